# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,nbmake,-all
#     notebook_metadata_filter: -all
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/shortgpt-course/shortgpt/blob/main/notebooks/07_depth_or_width.ipynb)
#
# # 07 · Depth or width: layers, sublayers, heads, channels
#
# A model can also become smaller if only the attention of a layer goes, or only its feed-forward network (FFN), or if every layer becomes narrower. ShortGPT says that removing whole layers is better, although it is the simplest way. Here the methods compete with the same number of parameters gone, for quality, speed and memory. Then we read the paper's own comparison.
#
# **You will be able to**
#
# - say where the parameters of a language model are, and make a comparison of pruning methods fair;
# - remove attention, FFNs, heads and channels, and compare the damage of all of them with that of removing layers;
# - predict which of them makes a model faster, and which shrinks the key-value cache;
# - read a published comparison of pruning methods, and say what it proves.
#
# **Before:** [lesson 03](03_pruning.ipynb) (removing layers) and [lesson 05](05_evaluation.ipynb) (standard errors, retention) · **Takes:** about 3 minutes on 2 CPU cores; reading about 30 minutes, exercises 45 · **Memory:** about 2 GB · **Download:** 93 MB once (shared by all lessons)

# %% [markdown] tags=["for-exercises"]
# Run this cell first. On Colab it installs the toolkit.

# %% tags=["setup"]
# @title Set-up: run this cell first
import sys
from importlib.util import find_spec

if "google.colab" in sys.modules and not getattr(find_spec("shortgpt"), "origin", None):  # a folder has no origin
    from importlib.metadata import version
    from pathlib import Path

    present = ["torch", "numpy", "pandas", "transformers", "ipywidgets", "matplotlib"]  # pip must not move them
    held = [f"{name}=={version(name)}" for name in present] + ["shortgpt-pruning==0.1.*"]  # what this lesson needs
    Path("/tmp/held.txt").write_text("\n".join(held))
    project = "shortgpt-pruning @ git+https://github.com/shortgpt-course/shortgpt"
    get_ipython().run_line_magic("pip", f"install -q -c /tmp/held.txt '{project}'")
    if not getattr(find_spec("shortgpt"), "origin", None):
        raise ImportError("pip could not install the toolkit, and says above why. If this is an old copy of the lesson, open "
                          "it anew from the course's page; else choose Runtime > Disconnect and delete runtime, and try again")

import torch
import transformers

import shortgpt

print(f"shortgpt {shortgpt.__version__}, torch {torch.__version__}, transformers {transformers.__version__}")

# %% [markdown] tags=["for-exercises"]
# What we need from the toolkit:

# %% tags=["for-exercises"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

# %% tags=["for-exercises"]
from shortgpt import (
    built_in_text, calibration_batches, decoder_layers, equal_parameters,
    key_value_bytes, load, perplexity, removal_order, remove_channels, remove_heads,
    remove_layers,
    remove_sublayers, score_layers, score_sublayers, size, speed_table, watch_layers,
)  # fmt: skip
from shortgpt.course.plots import MARKERS, PALETTE, STORED, plain_log_ticks
from shortgpt.utils.data import data_folder

# %% [markdown] tags=["for-exercises"]
# **Another model?** Change the line `MODEL = …`. The text still speaks of the default model; the cells show yours,
# except what says *default model, stored*.

# %% tags=["for-exercises"]
MODEL = "smollm2-135m-instruct"  # others: shortgpt.suggested_models()
model, tokenizer = load(MODEL, device="cpu")
depth = len(decoder_layers(model))

# %% [markdown]
# ## 1. What is there to remove?
#
# A decoder layer has two branches: *attention*, which brings information from earlier tokens, and the *FFN*, which works on each token alone. Each adds its result to the hidden state. A layer also has two norms, and outside of all layers is the embedding: one vector for each token of the vocabulary. *Predict:* which of them has the most parameters?

# %%
layer = decoder_layers(model)[0]
parts = {
    "embedding": model.get_input_embeddings(),
    "attention": layer.self_attn,
    "FFN": layer.mlp,
    "norms": torch.nn.ModuleList([part for name, part in layer.named_children()
        if name.endswith("norm")]),
}
parameters = pd.Series({name: sum(p.numel() for p in part.parameters())
                        for name, part in parts.items()})
everywhere = parameters * [1, depth, depth, depth] / 1e6
print(f"one layer: {parameters.iloc[1:].sum():,} parameters; the whole model: "
      f"{size(model)['parameters']:,}")

# %%
fig, ax = plt.subplots(figsize=(8, 1.9), layout="constrained")
left = 0
for (name, millions), hatch, colour in zip(everywhere.items(), ("", "///", "...", "xx"),
        PALETTE, strict=False):
    ax.barh(0, millions, left=left, color=colour, hatch=hatch, edgecolor="black",
            label=f"{name}: {millions:.2f} million")
    left += millions
ax.set(xlabel="parameters (millions), all layers together", yticks=[])
ax.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
plt.show()
in_layers = everywhere.iloc[1:].sum()
print(f"The embedding holds {everywhere['embedding'] / everywhere.sum():.0%} of the "
      "parameters. "
      f"Of those in the layers, the FFNs hold {everywhere['FFN'] / in_layers:.0%} and "
      f"attention {everywhere['attention'] / in_layers:.0%}; the norms hardly count.")

# %% [markdown]
# No method below touches the embedding, a large part of this small model and a few percent of the paper's 7B models. One attention is much smaller than one FFN, because several query heads share one key head and one value head (*grouped-query attention*).
#
# So "twelve attentions" and "twelve layers" can't be compared. A fair comparison removes **equal parameters**. `equal_parameters` says how much of each kind is worth some layers: attentions and FFNs (the *sublayers*) in the whole model, but channels and heads *in every layer*. A *channel* is one of the numbers between the matrices of an FFN. A *head* has its part of the query and output matrices; as query heads share keys and values, whole groups go.

# %%
worth = {layers: equal_parameters(model, layers) for layers in (3, 6, 9)}
table = pd.DataFrame({f"{layers} layers": {kind: each["n"]
    for kind, each in kinds.items()} for layers, kinds in worth.items()})
table["there are"] = [depth, depth, depth, model.config.intermediate_size,
                      model.config.num_key_value_heads]
display(table)
off = worth[3]["heads"]["parameters"] / worth[3]["layers"]["parameters"]
print("Head groups are too coarse to match exactly: those for three layers hold "
      f"{off:.0%} of the parameters that they should.")

# %% [markdown]
# Nine layers have more parameters than all attentions together. Attention holds a quarter of what is in the layers, so with a quarter of the layers' parameters gone it is used up, and the heads, its parts, with it. FFNs and their channels hold three quarters and last longer. Only whole layers have no such limit.

# %% [markdown]
# ## 2. What should go?
#
# For layers we have Block Influence. `score_sublayers` asks the same of the two branches. *Predict:* which turns the hidden state more, attention or FFN?

# %%
batches = calibration_batches(tokenizer, built_in_text()["text"], samples=5)
scores = {"layers": score_layers(model, batches, progress=False)}
scores |= score_sublayers(model, batches, progress=False)
lowest = {kind: removal_order(each) for kind, each in scores.items()}
for kind, order in lowest.items():
    print(f"{kind}: lowest scores at {', '.join(map(str, order[:6]))}")

# %%
fig, ax = plt.subplots(figsize=(9, 3.4), layout="constrained")
for (kind, each), marker, style, colour in zip(scores.items(), MARKERS,
        ("-", "--", ":"), PALETTE, strict=False):
    ax.plot(each.table["layer"], each.table["score"], marker + style, color=colour,
            markersize=5, label=kind)
ax.set(yscale="log", xlabel="layer", ylabel="Block Influence (log scale)",
       xticks=range(0, depth, 5))
plain_log_ticks(ax)
ax.legend()
plt.show()
attention, ffn = (scores[kind].table["score"] for kind in ("attention", "ffn"))
print(f"In {(attention < ffn).sum()} of {depth} layers attention turns the state less "
      "than the FFN does. "
      f"In the last layer the two have {attention.iloc[-1]:.3f} and "
      f"{ffn.iloc[-1]:.3f}.")

# %% [markdown]
# In most layers it is the FFN. Remember the last layer for section 6: its attention has a low score and its FFN one of the highest.
#
# For heads and channels we try two scores. *Magnitude* looks at the weights alone: how long are the vectors that write and read this channel? *Activation* reads calibration text: how much does this channel really add to the hidden state?
#
# First by hand, in an FFN with three channels. The channels hold `h`, and `down` brings them back to a state of two numbers. Channel 1 has the *longest* weight vector. *Predict:* which channel can go?

# %%
h = torch.tensor([2.0, 0.1, 3.0])  # what the three channels hold for one token
down = torch.tensor([[1.0, 5.0, 0.0], [0.0, 5.0, 1.0]])  # [hidden, channels]
whole = down @ h
for channel in range(3):
    kept = [i for i in range(3) if i != channel]
    narrow = down[:, kept] @ h[kept]
    print(f"without channel {channel}: {narrow.tolist()}, off by "
          f"{(whole - narrow).norm():.2f}; "
          f"magnitude {down[:, channel].norm():.1f}, "
          f"activation {(h[channel] * down[:, channel]).norm():.1f}")

# %% [markdown]
# Channel 1: it holds so little on this text that its long vector hardly matters. The activation score is exactly the error that the cut makes; magnitude would have kept this channel. `remove_heads` and `remove_channels` compute both scores.
#
# ## 3. Equal parameters: which hurts least?
#
# Seven models, each without as many parameters as three layers have.

# %%
def cut(layers: int, width_scores=("activation", "magnitude")) -> dict:
    """Models without as many parameters as `layers` layers have."""
    n = {kind: each["n"] for kind, each in equal_parameters(model, layers).items()}
    made = {"layers": remove_layers(model, lowest["layers"][:layers])}
    for kind in ("attention", "ffn"):
        if n[kind] < depth:  # in some models there is not as much of it
            made[kind] = remove_sublayers(model, **{kind: lowest[kind][: n[kind]]})
    there_are = {"channels": model.config.intermediate_size,
                 "heads": model.config.num_key_value_heads}
    for kind, remove in {"channels": remove_channels, "heads": remove_heads}.items():
        for score in width_scores if n[kind] < there_are[kind] else ():
            made[f"{kind}, {score}"] = remove(model, n[kind], scores=score,
                batches=batches)
    return made

# %% [markdown]
# Each column is a layer, with its attention below and its FFN above, as tall as their parameters. What is gone is white. Which columns stay whole?

# %%
candidates = {"dense": model} | cut(3)


def numbers_of(name: str) -> list[int]:
    """The numbers that the layers of a candidate have in the dense model."""
    return [i for i in range(depth) if name != "layers"
            or i not in lowest["layers"][:3]]


def millions_of(name: str) -> np.ndarray:
    """Millions of parameters of attention and FFN in each dense layer: [2, depth]."""
    left = np.zeros((2, depth))
    for i, layer in zip(numbers_of(name), decoder_layers(candidates[name]),
                        strict=True):
        left[:, i] = [sum(p.numel() for p in branch.parameters()) / 1e6
                      for branch in (layer.self_attn, layer.mlp)]
    return left

# %%
shown = [name for name in candidates if "magnitude" not in name][1:]
fig, axes = plt.subplots(len(shown), 1, figsize=(9, 5), sharex=True,
                         layout="constrained")
whole = millions_of("dense")
for ax, name in zip(axes, shown, strict=True):
    left = millions_of(name)
    for bottom, full, kept, colour, hatch in zip((0, whole[0]), whole, left,
            PALETTE[1:3], ("///", "..."), strict=True):
        ax.bar(range(depth), full, bottom=bottom, color="white", edgecolor="black",
               linewidth=0.5)
        ax.bar(range(depth), kept, bottom=bottom, color=colour, hatch=hatch,
               edgecolor="black", linewidth=0.5)
    ax.set_ylabel(name.replace(", ", "\n"), rotation=0, ha="right", va="center",
                  fontsize=9)
    ax.set_yticks([])
axes[-1].set(xlabel="layer (attention below, FFN above)", xticks=range(0, depth, 5))
plt.show()
untouched = {name: int(np.isclose(millions_of(name), whole).all(axis=0).sum())
             for name in shown}
print("Layers left exactly as they were: "
      + ", ".join(f"{name} {n}" for name, n in untouched.items()) + f", of {depth}.")

# %% [markdown]
# Layers and sublayers are cuts in **depth**: a branch stays as it was, or goes. Heads and channels are cuts in **width**: every branch of the kind loses a share.
#
# *Predict* the order of the seven. The text is the beginnings of four documents that no score has read, so look at large differences only.

# %%
documents = built_in_text("perplexity").query(
    "genre in ['encyclopedic', 'news', 'science', 'story']")
texts = [text[:1200] for text in documents.groupby("genre").head(1)["text"]]
rows = [
    {"removed": name, "parameters": size(m)["parameters"],
     "perplexity": perplexity(m, tokenizer, texts)}
    for name, m in candidates.items()
]
live = pd.DataFrame(rows).set_index("removed")
live.assign(times_dense=live["perplexity"] / live.loc["dense", "perplexity"]).round(2)

# %%
ordered = live.drop("dense").sort_values("perplexity")
is_width = ordered.index.str.contains(",")
fig, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
for chosen, label, hatch, colour in ((~is_width, "depth", "", PALETTE[0]),
        (is_width, "width", "///", PALETTE[1])):
    places = np.flatnonzero(chosen)
    ax.barh(places, ordered["perplexity"][chosen], color=colour, hatch=hatch,
            edgecolor="black", label=label)
ax.set_yticks(range(len(ordered)), ordered.index)
ax.axvline(live.loc["dense", "perplexity"], color="black", linestyle=":", label="dense")
ax.set(xscale="log", xlabel="perplexity (log scale)")
ax.invert_yaxis()
plain_log_ticks(ax, "x")
ax.legend()
plt.show()
print("From best to worst: " + ", ".join(f"{name} {value:,.0f}"
    for name, value in ordered["perplexity"].items()) + ".")

# %% [markdown]
# - **The score matters more than the direction.** Both rows called *channels* lose the same number of channels from every layer; one is the best of all seven models, the other is ruined.
# - **Among the cuts in depth, whole layers are the best.** (Don't trust the order of attention and FFNs: a little more calibration text picks other attentions. *Try it:* `samples=6` above.)
# - **Width does not lose here.** Channels chosen by reading text are ahead of layers. The paper's tables show no such case.

# %% [markdown]
# ### Where does the error come in?
#
# Let the dense and a pruned model read the same text, and measure after every layer how far apart their hidden states are, in percent of the length of the dense state.

# %%
ids = tokenizer(texts[0], return_tensors="pt")["input_ids"]  # [1, tokens]


@torch.inference_mode()
def states_of(model, numbers) -> dict:
    """Hidden states [tokens, hidden] after each layer, by its dense number."""
    states = {}
    # not the sink
    with watch_layers(model, lambda i, x_in,
                      x_out: states.__setitem__(numbers[i], x_out[0, 1:])):
        model(input_ids=ids)
    return states

# %% [markdown]
# A missing layer has no state; the others are compared with the one of the same number. *Predict:* which curves start at zero?

# %%
reference = states_of(model, range(depth))
distance = {}
for name, m in candidates.items():
    states = states_of(m, numbers_of(name))
    distance[name] = {i: 100 * ((x - reference[i]).norm(dim=-1) / reference[i].norm(
        dim=-1)).mean().item() for i, x in states.items()}

# %%
error = pd.DataFrame(distance).drop(columns="dense").reindex(range(depth))
fig, ax = plt.subplots(figsize=(9, 3.8), layout="constrained")
for i, (name, column) in enumerate(error.items()):
    column = column[column > 0]  # a logarithm has no place for zero
    ax.plot(column.index, column, marker=MARKERS[i], markersize=4,
            linestyle="--" if "," in name else "-", color=PALETTE[i], label=name)
ax.set(xlabel="after layer (number in the dense model)",
       ylabel="distance from the dense state\n(%, log scale)", yscale="log",
       xticks=range(0, depth, 5))
plain_log_ticks(ax)
ax.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
first, last = error.loc[0], error.iloc[-1]
print(f"After layer 0, {(first.dropna() == 0).sum()} of {error.shape[1]} models are "
      "still exactly where the dense one is. "
      f"After the last layer: " + ", ".join(f"{name} {value:.0f} %"
          for name, value in last.sort_values().items()) + ".")

# %% [markdown]
# The two kinds of cut fail differently. A cut in **depth** leaves every state as it was up to the first gap; then each gap is a step. A cut in **width** is wrong from layer 0 on, a little in every layer. But no curve explodes: a layer *adds* to the state, so an error is carried along, and the layers that stay add nearly what they always added.
#
# So a cut is good if its errors are small where they begin. Block Influence and the activation score measure that; magnitude doesn't. The order at the right edge is nearly the order of the perplexities.

# %% [markdown]
# ## 4. The full comparison
#
# `python measure/width.py` measured three sizes on all of the English perplexity part. Perplexity is given as a multiple of the dense model's, with the standard error of this ratio over the eighteen documents. *Predict:* does the order of section 3 change when more goes?

# %%
full = pd.read_csv(data_folder() / "width.csv")
dense = full[full["removed"] == "dense"].iloc[0]
pruned = full[full["removed"] != "dense"].assign(percent=lambda t: 100
    * (1 - t["parameters"] / dense["parameters"]))
print(STORED)
pruned.pivot(index="removed", columns="layers",
             values="times_dense").round(2).sort_values(3)

# %%
def panel(ax, column: str, errors: str) -> None:
    """A line for each kind of removal, with error bars of one standard error."""
    for i, (name, rows) in enumerate(pruned.groupby("removed", sort=False)):
        style = MARKERS[i] + ("--" if "," in name else "-")
        ax.errorbar(rows["percent"], rows[column], rows[errors], fmt=style, capsize=3,
                    color=PALETTE[i], label=name)
    ax.set(xlabel="parameters removed (% of the whole model)", title=STORED)

# %%
fig, ax = plt.subplots(figsize=(10, 4.2), layout="constrained")
panel(ax, "times_dense", "times_dense_error")
ax.axhline(1, color="black", linestyle=":")
ax.set(yscale="log", ylabel="perplexity, times the dense one (log scale)")
plain_log_ticks(ax)
ax.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
for n, rows in pruned.groupby("layers"):
    best, second = rows.nsmallest(2, "times_dense").itertuples()
    print(f"As much as {n} layers: {best.removed} multiply perplexity by "
          f"{best.times_dense:.2f} ± {best.times_dense_error:.2f}, "
          f"next come {second.removed} with {second.times_dense:.2f} ± "
          f"{second.times_dense_error:.2f}.")

# %% [markdown]
# The top is the same at all three sizes: channels chosen by activation first, whole layers second. The others are behind, and from six layers on far behind. (NaN: there isn't as much of that kind. FFNs are not used up, they only get bad.) It hurts more to take one kind of branch alone than to take both in proportion, as whole layers do.
#
# Both leaders could be better: lesson 06 has better choices of layers, and the channels are the simplest choice, too. Does accuracy follow, here on `grammar`?

# %%
fig, ax = plt.subplots(figsize=(10, 3.8), layout="constrained")
panel(ax, "grammar", "grammar_error")
ax.axhline(dense["grammar"], color="black", linestyle=":")
ax.axhline(50, color="black", linestyle="--", linewidth=1)
ax.text(pruned["percent"].max(), 50, "guessing", ha="right", va="bottom")
ax.text(pruned["percent"].max(), dense["grammar"], "dense", ha="right", va="bottom")
ax.set(ylabel="grammar (% right)")
ax.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
three = pruned[pruned["layers"]
               == 3].set_index("removed")["grammar"].sort_values(ascending=False)
print(f"Dense {dense['grammar']:.0f} % right; without as much as three layers: "
      + ", ".join(f"{name} {value:.0f}" for name, value in three.items()) + ".")

# %% [markdown]
# At the left neighbours can't be told apart. Further right the channels chosen by activation stay near the dense model, where the layers have lost about half of what they had above guessing. Find a pair of models that perplexity and accuracy put in opposite order.

# %% [markdown]
# ## 5. What one gets for it: time and memory
#
# Equal parameters mean about equal arithmetic for one token. *Predict:* are all these models equally fast when a prompt is read (*prefill*, many tokens at once)? And when one token is written after the other (*decode*)? We take as much as six layers.

# %% tags=["volatile"]
large = {"dense": model} | cut(6,
    width_scores=["magnitude"])  # which channels go makes no difference to the time
rates = speed_table(large, new_tokens=16, batch_sizes=[1], repeats=3, memory=False,
                    progress=False)
faster = rates.pivot(index="model", columns="phase", values="relative").loc[list(large),
    ["prefill", "decode"]]
ax = faster.drop("dense").plot.barh(figsize=(8, 3.4), color=PALETTE[:2],
    edgecolor="black", width=0.75)
plt.setp(ax.containers[1], hatch="///")
ax.axvline(1, color="black", linestyle=":")
ax.invert_yaxis()
ax.set(xlabel="speed, times the dense one")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.tight_layout()
plt.show()
print("Times as fast as dense (prefill, decode): "
      + ", ".join(f"{name} {row.prefill:.2f}, {row.decode:.2f}"
                  for name, row in faster.drop("dense").iterrows()) + ".")

# %% [markdown]
# Every cut made the model faster, in width as well as in depth. (The machine had other work, so don't rank the bars.) Removing layers or sublayers removes whole *steps*. Narrower matrices keep every step and make each a little smaller. On a GPU that writes for one user, most of the time goes into starting small steps, so there we expect more from depth.

# %% [markdown]
# Memory has two parts. Weights are the same for all, by the rules of this comparison. (The heads of this cut hold fewer parameters.) The **key-value cache** is not: while a model writes, every attention keeps a key and a value for every token read so far. *Predict:* which cut saves most of it?

# %%
memory = pd.DataFrame({
    name: {"weights (MB)": size(m)["memory_bytes"] / 1e6,
           "cache (kB a token)": key_value_bytes(m, 512) / 1e3}
    for name, m in large.items()
}).T
memory.round(1)

# %% [markdown]
# Attention saves most: only the six layers that kept theirs have a cache. Heads come next, since a group goes with its keys and values. FFNs and channels save nothing. For long texts and many users the cache often fills the memory, and then attention is a better thing to remove than the perplexities suggest.

# %% [markdown]
# ## 6. The last layer, in pieces
#
# Table 1 of the paper takes the last layer of Llama-2-7B apart. *Predict:* which part of it is needed, its attention or its FFN? (Theirs was measured on PG19 books, ours on the four short texts.)

# %%
last = depth - 1
ours = {
    "none": model,
    "whole last layer": remove_layers(model, [last]),
    "its attention": remove_sublayers(model, attention=[last]),
    "its FFN": remove_sublayers(model, ffn=[last]),
}
ours = pd.Series({name: perplexity(m, tokenizer, texts) for name, m in ours.items()})

# %%
paper = data_folder() / "paper"
theirs = pd.read_csv(paper / "table1_last_layer.csv").set_index("removed")["ppl"]
table1 = pd.DataFrame({"Llama-2-7B (the paper)": theirs,
                       "our model": ours}).loc[ours.index]
table1.round(2)

# %%
relative = (table1 / table1.loc["none"]).drop("none")
ax = relative.plot.bar(figsize=(8, 3.4), rot=0, color=PALETTE[:2], edgecolor="black",
                       width=0.7)
plt.setp(ax.containers[1], hatch="///")
for bars in ax.containers:
    ax.bar_label(bars, fmt="× %.2f")
ax.axhline(1, color="black", linestyle=":")
ax.set(yscale="log", ylabel="perplexity,\ntimes the dense one (log scale)",
       xlabel="removed", ylim=(0.8, max(12, 2 * relative.max().max())))
plain_log_ticks(ax)
plt.tight_layout()
plt.show()
print("Without the attention of the last layer: times "
      f"{relative.loc['its attention'].iloc[0]:.2f} in the paper, "
      f"{relative.loc['its attention'].iloc[1]:.2f} here. "
      f"Without its FFN: times {relative.loc['its FFN'].iloc[0]:.2f} and "
      f"{relative.loc['its FFN'].iloc[1]:.2f}.")

# %% [markdown]
# Two very different models, two kinds of text, and the same picture: attention can go for almost nothing, and most of what the layer is worth is in its FFN. A likely reason: by then every token has what it needs from the others, and what remains is to prepare the next *token*. The paper says that the last FFN acts as a part of the classifier.

# %% [markdown]
# ## 7. The paper's comparison
#
# Table 2 of the paper compares ShortGPT with three methods at about a quarter of the parameters: *LLM-Pruner* (coupled channels and heads by gradients), *SliceGPT* (narrower hidden states, after a rotation that sorts directions by their variance) and *LaCo* (merges neighbouring layers). The first two cut width, the last two depth. **These are the paper's models, not ours.** Which two bars of each group are high?

# %%
table2 = pd.read_csv(paper / "table2_summary.csv").pivot(index="model",
    columns="method", values="retention_percent")
table2 = table2.loc[["Llama-2-7B", "Llama-2-13B", "Baichuan2-7B", "Baichuan2-13B"],
                    ["LLM-Pruner", "SliceGPT", "LaCo", "ShortGPT"]]
ax = table2.plot.bar(figsize=(9, 3.6), rot=0, color=PALETTE[:4], edgecolor="black",
                     width=0.8)
for bars, hatch in zip(ax.containers, ("///", "xx", "...", ""), strict=True):
    plt.setp(bars, hatch=hatch)
ax.set(ylabel="average, % of the dense model's", xlabel="", ylim=(0, 115))
ax.legend(ncols=4, loc="upper center")
plt.tight_layout()
plt.show()
width, both = table2[["LLM-Pruner", "SliceGPT"]].max(axis=1), table2[["LaCo",
    "ShortGPT"]].min(axis=1)
print(f"In the paper the better width method keeps {width.min():.0f} to "
      f"{width.max():.0f} %, ShortGPT {table2['ShortGPT'].min():.0f} to "
      f"{table2['ShortGPT'].max():.0f} %; "
      f"for {(both > width).sum()} of {len(table2)} models both depth methods are "
      "ahead of both width methods.")

# %% [markdown]
# A clear result. But the rows of the three other methods are quoted from the LaCo paper, nobody gives standard errors, and retention counts guessing as ability (lesson 05).
#
# The appendix compares again, with LLM-Pruner (table 7) and SliceGPT (table 8). One check is easy: is each printed average the mean of its row?

# %%
appendix = []
for name in ("table7_zero_shot", "table8_slicegpt"):
    table = pd.read_csv(paper / f"{name}.csv")
    mean = table.drop(columns=["model", "method", "ratio_percent",
                               "average"]).mean(axis=1)
    appendix.append(table.assign(table=name[:6],
        mean=mean)[["table", "model", "method", "ratio_percent", "average", "mean"]])
appendix = pd.concat(appendix, ignore_index=True)
appendix["sound"] = (appendix["average"] - appendix["mean"]).abs() < 0.01
display(appendix.query("not sound").round(2))
print(f"{(~appendix['sound']).sum()} of {len(appendix)} averages are not the mean of "
      "their row.")

# %% [markdown]
# All of them are in table 8: some cells belong to another model, and two columns have the same numbers (`data/paper/README.md`). We drop these rows. Two points from another source go in: LLM-Pruner *with* its short fine-tuning by LoRA (small trained matrices beside the frozen weights), which table 7 leaves out, and *FLAP*, a width method that needs no training.

# %%
others = pd.read_csv(paper / "replications_other.csv")
others = others[others["source"].str.startswith("FLAP")]
others = others.assign(table="table7", ratio_percent=20.0, average=others["value"],
                       sound=True)
results = pd.concat([appendix[appendix["sound"]], others]).query("method != 'Dense'")
panels = {"table 7: Llama-7B": ("table7", "Llama-7B"), "table 7: Llama-13B": ("table7",
    "Llama-13B"), "table 8: Llama-2-13B": ("table8", "Llama-2-13B")}

# %% [markdown]
# Each panel is one model; up is good, and further right more is gone.

# %%
fig, axes = plt.subplots(1, 3, figsize=(10, 3.8), sharey=True, layout="constrained")
names = ["LLM-Pruner", "SliceGPT", "LaCo", "ShortGPT", "LLM-Pruner + LoRA", "FLAP"]
styles = dict(zip(names, zip(MARKERS, PALETTE, strict=False), strict=False))
for ax, (title, (table, name)) in zip(axes, panels.items(), strict=True):
    for method, rows in results[(results["table"] == table) & (results["model"]
            == name)].groupby("method"):
        ax.plot(rows["ratio_percent"], rows["average"], styles[method][0] + "-",
                markersize=9, color=styles[method][1], label=method)
    ax.set(title=title, xlabel="parameters removed (%)", xlim=(18, 32))
    ax.legend(fontsize=8)
axes[0].set_ylabel("average accuracy (%)")
plt.show()
seven = results[results["model"] == "Llama-7B"].set_index("method")["average"]
print(
    "Llama-7B: "
    f"{', '.join(f'{method} {value:.1f}' for method, value in seven.sort_values().items())}."
)

# %% [markdown]
# In table 8 ShortGPT is far ahead of SliceGPT. In table 7 it is a little ahead of LLM-Pruner on Llama-7B, and equal on Llama-13B. But *with* its fine-tuning, as it was meant to be used, LLM-Pruner is ahead. So is FLAP, without any training. (Both values come from FLAP's tables, which we know from a review.)
#
# So at about a quarter of the parameters and without repair, plain layer removal beats *these* width methods. That doesn't show that depth beats width as such.

# %% [markdown]
# ## 8. Which claims hold here?
#
# | what the paper says | on our model |
# |---|---|
# | the last layer must stay, and its FFN is the reason (table 1) | holds, and more sharply |
# | deep layers are the redundant ones | doesn't hold: the layers with the lowest scores are in the middle (lesson 03) |
# | a quarter of the model can go without repair and most of the performance stays | doesn't hold: by then perplexity has multiplied (section 4) |
# | removing layers beats more complex pruning | holds against heads, attention or FFNs alone, and channels chosen by their weights; not against channels chosen by activation |
# | pruned depth turns into speed | holds (and pruned width did as well, on two CPU cores) |
#
# Our model has nearly as many layers as the 7B model, at a seventh of the width, so perhaps fewer of them do nothing. One model can't tell: change `MODEL`.

# %% [markdown]
# ## Exercises
#
# Try these three functions first in the [exercise notebook](exercises/07_depth_or_width.ipynb), where a check tells you what is wrong with yours. Here they are solved.

# %% [markdown]
# ### Exercise 1: Count before you cut
#
# **Difficulty:** easy · **Minutes:** 10
#
# How many parameters have the attention and the FFN of one layer? The hidden state has `hidden` numbers. There are `heads` query heads of `head_dim` numbers each, and `kv_heads` key heads and as many value heads of the same size; a last matrix leads from all heads together back to the hidden state. The FFN has `intermediate` channels and three matrices: gate and up lead to the channels, down leads back. No biases. Return a pair: attention, FFN.
#
# <details><summary>Hint</summary>
# A matrix from a numbers to b numbers has a · b parameters. Attention has four: queries, keys, values and the one that leads back.
# </details>

# %% tags=["exercise"]
def layer_parameters(hidden, heads, kv_heads, head_dim, intermediate):
    """Parameters of the attention and of the FFN of one decoder layer."""
    ### BEGIN SOLUTION
    queries = hidden * heads * head_dim
    keys_and_values = 2 * hidden * kv_heads * head_dim
    back = heads * head_dim * hidden
    return queries + keys_and_values + back, 3 * hidden * intermediate
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_layer_parameters, require_passed

check_layer_parameters(layer_parameters)

# %% tags=["apply"]
require_passed(layer_parameters)
config = model.config
head_dim = getattr(config, "head_dim",
                   None) or config.hidden_size // config.num_attention_heads
sizes = {
    "our model": (config.hidden_size, config.num_attention_heads,
                  config.num_key_value_heads, head_dim, config.intermediate_size),
    "Llama-2-7B": (4096, 32, 32, 128, 11008),  # from the published configurations
    "Llama-3-8B": (4096, 32, 8, 128, 14336),
    "Qwen2.5-7B": (3584, 28, 4, 128, 18944),
}
for name, numbers in sizes.items():
    attention_count, ffn_count = layer_parameters(*numbers)
    share = attention_count / (attention_count + ffn_count)
    print(f"{name:11} attention {attention_count / 1e6:5.1f} million, FFN "
          f"{ffn_count / 1e6:5.1f} million: attention is {share:.0%} of a layer")

# %% [markdown]
# In Llama-2-7B every query head has a key head and a value head of its own. Newer models share keys and values among many queries and have wider FFNs. So "remove attention only" has less and less to remove.

# %% [markdown]
# ### Exercise 2: Take channels out of an FFN
#
# **Difficulty:** medium · **Minutes:** 15
#
# The weights of an FFN are `gate` and `up` `[inner, hidden]` and `down` `[hidden, inner]` (PyTorch keeps a linear module's weight as [outputs, inputs]). Return the three weights of the same FFN without the channels in the list `removed`. They may come in any order. Don't change the weights that you are given.
#
# <details><summary>Hint 1</summary>
# First make the list of the channels that stay, by their old numbers.
# </details>
# <details><summary>Hint 2</summary>
# Where do the channels stand in each weight: are they its rows, or its columns?
# </details>

# %% tags=["exercise"]
def without_channels(gate, up, down, removed):
    """The weights of the FFN without the channels in ``removed``."""
    ### BEGIN SOLUTION
    kept = [channel for channel in range(len(gate)) if channel not in removed]
    return gate[kept], up[kept], down[:, kept]
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_without_channels

check_without_channels(without_channels)

# %% tags=["apply"]
require_passed(without_channels)
ffn_module = decoder_layers(model)[12].mlp
weights = [getattr(ffn_module, name).weight.detach()
           for name in ("gate_proj", "up_proj", "down_proj")]
every_fourth = list(range(0, len(weights[0]), 4))
# [tokens, hidden]
x = torch.randn(5, weights[0].shape[1], generator=torch.Generator().manual_seed(0))


def channels_of(gate, up):
    return ffn_module.act_fn(x @ gate.T) * (x @ up.T)  # [tokens, channels]


gate, up, down = without_channels(*weights, every_fourth)
narrow = channels_of(gate, up) @ down.T
silenced = channels_of(*weights[:2])
silenced[:, every_fourth] = 0
apart = (narrow - silenced @ weights[2].T).abs().max() / narrow.abs().max()
print(f"Parameters: {sum(w.numel() for w in weights):,} before, "
      f"{sum(w.numel() for w in (gate, up, down)):,} after.")
print(f"The narrow FFN and the wide one with silenced channels differ by {apart:.0e} "
      "of the largest value.")

# %% [markdown]
# The narrow FFN computes what the wide one computes with these channels silenced, up to rounding. So a channel can be judged by silencing it, and taken out afterwards. The same holds for heads and for layers.

# %% [markdown]
# ### Exercise 3: What does a channel add?
#
# **Difficulty:** hard · **Minutes:** 20
#
# The activation score of section 2. `inner` `[samples, tokens, channels]` is what the channels hold when text is read, `down` `[hidden, channels]` the weight that leads them back, and `mask` `[samples, tokens]` is 1 for real tokens and 0 for pads. What channel $c$ adds to the state of a token is its number times its column of `down`. Return the root mean square, over the real tokens, of the length of that vector: a tensor `[channels]`.
#
# <details><summary>Hint 1</summary>
# The length of a number times a vector is the absolute value of the number times the length of the vector. The second factor is the same for all tokens.
# </details>
# <details><summary>Hint 2</summary>
# Root mean square: square, then the mean, then the root. <code>inner[mask.bool()]</code> holds the real tokens, <code>[real tokens, channels]</code>.
# </details>

# %% tags=["exercise"]
def channel_scores(inner, down, mask):
    """Root mean square length of what each channel adds to a real token's state."""
    ### BEGIN SOLUTION
    real = inner[mask.bool()]  # [real tokens, channels]
    return real.square().mean(0).sqrt() * down.norm(dim=0)
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_channel_scores

check_channel_scores(channel_scores)

# %% tags=["apply"]
require_passed(channel_scores)
reading, first_ffn, held = (calibration_batches(tokenizer, built_in_text()["text"],
    samples=5), decoder_layers(model)[0].mlp, [])
handle = first_ffn.down_proj.register_forward_pre_hook(
    lambda module, args: held.append(args[0]))
with torch.inference_mode():
    for batch in reading:
        model(**batch)
handle.remove()
gate, up, down = (getattr(first_ffn, name).weight.detach()
                  for name in ("gate_proj", "up_proj", "down_proj"))
orders = {"no channel": torch.arange(0),
    "lowest by activation": channel_scores(torch.cat(held), down, torch.cat(
        [b["attention_mask"] for b in reading])).argsort(),
    "lowest by magnitude": (gate.square().sum(1) + up.square().sum(1)
                            + down.square().sum(0)).argsort(),
    "drawn by a coin": torch.randperm(len(gate), generator=torch.Generator().manual_seed(0))}
openings = built_in_text("perplexity").query(
    "genre in ['encyclopedic', 'news', 'science', 'story']").groupby("genre").head(1)["text"].str[:1200].tolist()
for name, order in orders.items():
    silent = order[: len(gate) // 10]
    handle = first_ffn.down_proj.register_forward_pre_hook(
        lambda module, args, silent=silent: args[0].index_fill(-1, silent, 0))
    print(f"{name:21} perplexity {perplexity(model, tokenizer, openings):,.1f}")
    handle.remove()

# %% [markdown]
# A tenth of the channels of *one* layer. Chosen by activation they are hardly missed. Random channels do more harm, and those with the smallest weights far more still: in this layer some channels with short weight vectors are the most active. (*Try it* with layer 12 in place of layer 0.)

# %% [markdown]
# ## What we saw
#
# - Three quarters of the parameters in our layers are FFN, one quarter attention; a fair comparison counts parameters, not parts.
# - A cut in depth leaves all other layers as they were; a cut in width disturbs every layer a little. In both cases errors are carried along and don't explode.
# - The score decides: channels chosen by what they do to text leave a working model, channels chosen by the size of their weights a ruined one.
# - At equal parameters, channels chosen by activation came first and whole layers second. One kind of branch alone was worse.
# - Only what takes attention along (layers, attentions, heads) saves key-value cache.
# - The attention of the last layer can go for nothing, as long as its FFN stays.
#
# > **Limits.** One model of 135 million parameters, a few texts, one simple way to score each kind, and no repair: this doesn't settle which direction wins when both are done as well as possible. SliceGPT, LLM-Pruner, FLAP and LaCo were not run here. Times are from two busy CPU cores; no GPU was measured. ± is one standard error.

# %% [markdown]
# ## Two of the ten questions
#
# *Why can plain removal beat more complex pruning (question 3)?* and *Is there more redundancy in depth or in width (question 5)?* Write two sentences each, from sections 3, 4 and 7, and then compare with [our answers](20_ten_questions.ipynb).

# %% [markdown]
# ## Three questions
#
# **1.** Someone removes twelve attentions, someone else twelve layers. The first model is far better. Is attention more redundant than a whole layer?
#
# <details><summary>Answer</summary>Not shown: a layer contains its attention and an FFN that is three times as large in our model, so the second person removed four times as many parameters. At equal parameters the comparison may turn around, as it did here.</details>
#
# **2.** A service reads long documents for many users at once, and its memory is full of key-value cache. Which cut helps most, which not at all?
#
# <details><summary>Answer</summary>Removing attentions: each one takes its whole share of the cache along, for a quarter of a layer's parameters. Whole layers help in proportion to their number. FFNs and channels free no cache at all.</details>
#
# **3.** A paper shows its method X ahead of Y. Y's numbers are quoted from an older paper, at 24 instead of 27 % removed, and without the fine-tuning that Y's authors recommend. What would you ask for?
#
# <details><summary>Answer</summary>Both run by the same people on the same model, text and harness; equal parameters, with the embedding counted the same way; both with repair or both without; standard errors; and more than one measure, with the guessing level taken off. Until then, "X was ahead of Y as quoted" is all that is known.</details>

# %% [markdown]
# **Check yourself.** Three more questions: press a letter (or reach it with Tab and press Space). In a saved notebook, unfold the line below.

# %%
from shortgpt.course.quiz import quiz

quiz("07")

# %% [markdown]
# All this was done to transformers. Do models without attention have layers to spare, too? · **Next:** [08 · Beyond transformers](08_beyond_transformers.ipynb) · **Previous:** [06 · Choosing layers: from a coin to a search](06_choosing_layers.ipynb)
