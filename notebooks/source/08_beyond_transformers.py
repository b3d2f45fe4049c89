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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/shortgpt-course/shortgpt/blob/main/notebooks/08_beyond_transformers.ipynb)
#
# # 08 · Beyond transformers: Mamba and RWKV
#
# So far every model was a transformer. Is depth redundancy a product of attention, or does it come with any deep model? ShortGPT asks this with Mamba-2.8B and RWKV-7B, two language models without attention (table 3). Its answer rests on one run each. In this lesson we train nothing and load small **twins**: a transformer, a Mamba-2 and an RWKV-4 of the same size, trained on the same text in the same order. Nothing but the layers differs, so what differs in the results comes from the layers.
#
# **You will be able to**
#
# - say what a layer does in Mamba and in RWKV, and what takes the place of attention;
# - use the same hook and the same formula on any model whose layers add to a stream;
# - compare architectures fairly: the same size, text and training, and know what one run of each can't tell;
# - tell a model without redundancy from a score that does not find it;
# - answer question six of the course, and say how sure the answer is.
#
# **Before:** [lesson 02](02_block_influence.ipynb) (Block Influence) and [lesson 03](03_pruning.ipynb) (removing layers) · **Takes:** about 2 minutes on 2 CPU cores · **Memory:** about 1 GB · **Download:** nothing (the twins come with the course, 7 MB each)

# %% [markdown] tags=["for-exercises"]
# Run this cell first. It is the same in every lesson.

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
# What we need from the toolkit and from the studies of this course.

# %% tags=["for-exercises"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from shortgpt import block_influence, calibration_batches, decoder_layers, hidden_states
from shortgpt import load, removal_order, remove_layers, score_layers, size
from shortgpt import watch_layers
from shortgpt.course.plots import MARKERS, PALETTE, plain_log_ticks
from shortgpt.course.plots import plot_prunability, plot_twin_removal
from shortgpt.course.studies import twins as study
from shortgpt.utils.data import data_folder

DATA = data_folder()
_ = torch.set_grad_enabled(False)
transformers.logging.set_verbosity_error()  # it would tell of faster kernels for GPUs

# %% [markdown] tags=["for-exercises"]
# The three twins. A name is `twin-KIND-SEED`; the **seed** is the number that decides the first random weights and the order of the text. `twin-pre-norm-0` is the transformer, built like Llama. In this lesson we call it *the transformer*.

# %% tags=["for-exercises"]
KINDS = ["pre-norm", "mamba", "rwkv"]
models = {}
for kind in KINDS:
    name = f"twin-{kind}-0"
    models[kind], tokenizer = load(name, device="cpu", dtype=torch.float32)
text = DATA / "twins" / "calibration.jsonl"  # a part of what the twins were trained on
batches = calibration_batches(tokenizer, text, length=256, samples=16, batch_size=16)
print(f"{batches[0]['input_ids'].numel():,} tokens of text for all three")

# %% [markdown]
# > **Limits of this lesson.** There is one twin of each kind, so we don't know how much a second one, trained from other random weights, would differ: take small differences for chance. The twins have three million parameters and read 1.5 million tokens, which is little: they were stopped while they were still learning, and a model that has learned little has little to lose. And RWKV-4 is an older RWKV. What is shown here is that the method works without attention, and what to compare; how strong the effects are in large models it can't show.
#
# ## 1. A layer without attention
#
# A layer of a language model has two jobs. It brings **information from earlier tokens** to the present one, and it **works on each token** with what it has. In a transformer, attention does the first: at each token it reads all earlier ones again. That is exact, and it gets slower and larger with each token.
#
# The alternative is older: keep a **memory** of fixed size, and change it a little with each token. A model that works like this is called *recurrent*. In its simplest form the memory $s$ is one number. It fades by a factor $a$, the **decay**, and takes in the new input $x_t$:
#
# $$s_t = a\,s_{t-1} + x_t, \qquad 0 < a < 1$$
#
# So what came in $k$ tokens ago counts $a^k$ today. *Predict:* with $a = 0.9$, after how many tokens is half of it gone? And with $a = 0.99$?

# %%
decays, ago = (0.5, 0.9, 0.99), np.arange(101)
fig, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
for decay, style, colour in zip(decays, ("-", "--", ":"), PALETTE, strict=False):
    ax.plot(ago, decay**ago, style, color=colour, linewidth=2, label=f"a = {decay}")
ax.axhline(0.5, color="black", linewidth=0.8)
ax.set(xlabel="tokens ago", ylabel="what is left")
ax.legend()
plt.show()
half = {decay: np.log(0.5) / np.log(decay) for decay in decays}
told = ", ".join(f"{n:.1f} tokens for a = {decay}" for decay, n in half.items())
print(f"Half of what came in is gone after {told}.")

# %% [markdown]
# Ten times nearer to 1 is ten times as long a memory. A useful rule: $a$ remembers about $1/(1-a)$ tokens.
#
# One number is a poor memory. **Mamba-2** (arXiv 2405.21060) keeps a matrix $S$ in each of its heads. Each token writes its content $x_t$ into the place that a vector $w_t$ names, and reads from the place that another vector $r_t$ names:
#
# $$S_t = a_t\,S_{t-1} + w_t\,x_t^\top, \qquad y_t = S_t^\top r_t$$
#
# The decay $a_t$, the place to write $w_t$ and the place to read $r_t$ are all computed *from the token*. So the model can decide to keep something for long, or to forget everything at the end of a sentence.
#
# **RWKV-4** (arXiv 2305.13048) keeps a weighted mean of all earlier values $v_s$. How much each counts depends on its key $k_s$ and on how long ago it was, and the token itself counts with a weight $u$ of its own:
#
# $$y_t = \frac{\sum_{s<t} e^{k_s - (t-1-s)\,d}\,v_s + e^{k_t + u}\,v_t}{\sum_{s<t} e^{k_s - (t-1-s)\,d} + e^{k_t + u}}$$
#
# Every channel (each of the 128 numbers of the state) has a speed of forgetting $d > 0$, so its decay is $a = e^{-d}$. It was learned in training, and does *not* depend on the text. This is the large difference to Mamba.
#
# | | earlier tokens | work on each token | what is remembered of the past |
# |---|---|---|---|
# | transformer | attention | FFN (feed-forward network) | every token (the key-value cache) |
# | Mamba-2 | one *mixer* does both | the same mixer | a matrix in each head, decay from the text |
# | RWKV-4 | *time mixing* | *channel mixing*, a kind of FFN | a weighted mean a channel, decay fixed |

# %% [markdown]
# ## 2. The twins
#
# What do the layers look like as objects? *Look for* the parts of the table above, and compare the sizes in the last two columns.

# %%
rows = {}
for kind, model in models.items():
    layers = decoder_layers(model)
    parts = [name for name, _ in layers[0].named_children() if name != "pre_ln"]
    one = sum(p.numel() for p in layers[1].parameters())
    rows[kind] = {
        "layers": len(layers),
        "class": type(layers[0]).__name__,
        "parts": ", ".join(parts),
        "a layer": one,
        "the whole model": size(model)["parameters"],
    }
pd.DataFrame(rows).T

# %% [markdown]
# Sixteen layers each, and sizes within three percent of each other. Mamba's layer has one branch and one norm. RWKV's `attention` is only a name that transformers gives to the time mixing.
#
# All twins read the same text in the same order: documentation, dictionaries, speeches and a novel, and a fifth of it made by a program, so that its right answers are known (sums, brackets, and verbs that agree with a distant noun). `data/twins/SOURCES.md` has the list, and `measure/train_twins.py` the recipe. What do they write? They are three million parameters small, so expect form rather than sense.

# %%
prompt = "In computer science, a"
for kind, model in models.items():
    ids = torch.tensor([tokenizer(prompt)["input_ids"]])
    for _ in range(24):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    print(f"{kind:9} {tokenizer.decode(ids[0], skip_special_tokens=True)!r}")

# %% [markdown]
# All three have learned what English looks like, and none what it means. Two of them repeat themselves. But one prompt is an anecdote, and the loss is the measure.
#
# Equal size is not equal quality. Before we compare what pruning costs, we need to know how good each twin is: its **loss**, the mean negative log-probability of the next token in nats (units of the natural logarithm), on text that none of them has read. Lower is better. Measured before, on more text than a lesson has time for (`measure/twins.py`):

# %%
removal = study.twin_removal().query("kind in @KINDS")
whole = removal.query("removed == 0 and criterion == 'random' and not repaired")
whole.groupby("kind", sort=False)[["loss"]].mean().round(3)

# %% [markdown]
# RWKV and Mamba are about equally good. The transformer is worse by about 0.7 nats: with so little text it has learned the least (lesson 11 comes back to this). Keep this in mind for everything that follows: a model that knows less has less to lose.

# %% [markdown]
# ## 3. The same hook, the same formula
#
# Does Block Influence need attention? Look at what it uses: the state that enters a layer, the state that leaves it, and that the layer *adds* to a stream. In all three models a layer is
#
# $$x_{l+1} = x_l + f_l(\mathrm{norm}(x_l))$$
#
# with one or two branches $f$. Check it on the real thing. We catch the states around one layer with the toolkit's hook, then write the layer's output down by hand from its parts.

# %%
def by_hand(kind, layer, x):
    """What a layer puts out, from its parts."""
    if kind == "mamba":
        return x + layer.mixer(layer.norm(x))
    x = x + layer.attention(layer.ln1(x))[0]
    return x + layer.feed_forward(layer.ln2(x))[0]


caught = {}
for kind in ("mamba", "rwkv"):
    seen = caught[kind] = {}
    with watch_layers(models[kind], lambda i, *pair, seen=seen: seen.update({i: pair})):
        models[kind](**batches[0])
    x_in, x_out = seen[7]  # [samples, tokens, hidden]
    gap = (by_hand(kind, decoder_layers(models[kind])[7], x_in) - x_out).abs().max()
    print(f"{kind}: layer 7, by hand and by hook differ by at most {gap:.0e}")

# %% [markdown]
# They agree: the hook sees what the formula says, and nothing else happens inside a layer. So equation 1 of the paper can be used as it stands:

# %%
scores = {kind: score_layers(models[kind], batches, progress=False) for kind in KINDS}
for kind, seen in caught.items():
    hand = block_influence(*seen[7]).mean()
    toolkit = scores[kind].values[7]
    print(f"{kind}: layer 7 by hand {hand:.6f}, by toolkit {toolkit:.6f}")

# %% [markdown]
# Now all layers of all three. *Predict:* will the profile of a model without attention look different? Where will the lowest scores be?

# %%
fig, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
for i, (kind, each) in enumerate(scores.items()):
    style = MARKERS[i] + ("-", "--", ":")[i]
    ax.plot(each.values, style, color=PALETTE[i], markersize=5, label=kind)
ax.set(yscale="log", xlabel="layer", ylabel="Block Influence (log scale)")
plain_log_ticks(ax)
ax.legend()
plt.show()
lowest = {kind: sorted(removal_order(each)[:4]) for kind, each in scores.items()}
told = "; ".join(f"{kind} {', '.join(map(str, four))}" for kind, four in lowest.items())
print(f"The four layers with the lowest scores: {told}.")

# %% [markdown]
# All three begin high and fall steeply: the first layers turn the state most. Then they differ. Mamba falls to the very end, while the transformer and RWKV are lowest in the middle and rise again. So a profile with many low scores needs no attention, and *where* the low scores are depends on the model.

# %% [markdown]
# ## 4. How far back does it look?
#
# The three models remember in different ways. Can one see it from outside? Change *one* token in the middle of a text, and compare the last states of all later tokens with what they were. *Predict* for each model: how does the effect of the change fade with distance?

# %%
AT = 64  # the token that is changed, in every sample


def echo(model):
    """How far the last states of all tokens move when one token is changed."""
    ids = batches[0]["input_ids"]
    other = ids.clone()
    other[:, AT] = ids[:, AT].roll(1)  # the token of another sample
    mask = torch.ones_like(ids)
    both = ({"input_ids": each, "attention_mask": mask} for each in (ids, other))
    a, b = (hidden_states(model, batch)[-1] for batch in both)
    moved = (a - b).norm(dim=-1) / a.norm(dim=-1)  # [samples, tokens]
    return moved[ids[:, AT] != other[:, AT]].mean(0)


echoes = {kind: echo(model) for kind, model in models.items()}
assert all(each[:AT].max() < 1e-4 for each in echoes.values()), "no effect on the past"

# %%
fig, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
for i, (kind, each) in enumerate(echoes.items()):
    style, ago = ("-", "--", ":")[i], range(1, len(each) - AT)
    ax.plot(ago, each[AT + 1 :], style, color=PALETTE[i], label=kind)
ax.set(xscale="log", yscale="log", xlabel="tokens after the change (log scale)")
ax.set_ylabel("relative change of the state (log scale)")
ax.legend()
plt.show()
told = [f"{kind} {e[AT + 10]:.3f} and {e[AT + 100]:.3f}" for kind, e in echoes.items()]
print(f"Ten and a hundred tokens after it, states still differ by: {'; '.join(told)}.")

# %% [markdown]
# The line `assert` holds for all three: no model looks ahead.

# %% [markdown]
# The transformer's echo is the strongest at both distances, as one expects of a model that can look up any earlier token. At a hundred tokens those of Mamba and RWKV are clearly weaker. But all three fade quickly: in this text most of what counts is near, whatever a model *could* remember.

# %% [markdown]
# ## 5. Take layers away
#
# First live: without the four layers of sixteen that have the lowest scores, without the last four, and without four that a coin chooses. The text to judge by is text that no twin has read.

# %%
held_out = DATA / "twins" / "validation.jsonl"
judge = calibration_batches(tokenizer, held_out, length=256, samples=16, batch_size=16)


def loss(model):
    losses = [model(**batch, labels=batch["input_ids"]).loss.item() for batch in judge]
    return np.mean(losses)


coin = sorted(np.random.default_rng(0).choice(16, 4, replace=False).tolist())
rows = {}
for kind, model in models.items():
    sets = {"lowest scores": lowest[kind], "last four": range(12, 16), "a coin": coin}
    losses = {name: loss(remove_layers(model, gone)) for name, gone in sets.items()}
    rows[kind] = {"whole": loss(model)} | losses
live = pd.DataFrame(rows).T
live[list(sets)] = live[list(sets)].sub(live["whole"], axis=0)  # what is added
live.round(2)

# %% [markdown]
# The first column is the loss of the whole twin, the others what is *added* to it. The same as a picture: *which* of the three ways is the best for each model, and is it the same one?

# %%
ways = list(live.columns[1:])
fig, ax = plt.subplots(figsize=(7.5, 3), layout="constrained")
for i, way in enumerate(ways):
    places = np.arange(len(live)) + 0.25 * (i - 1)
    look = {"color": PALETTE[i], "hatch": ("", "///", "...")[i], "edgecolor": "black"}
    ax.barh(places, live[way], 0.22, label=way, **look)
ax.set_yticks(range(len(live)), live.index)
ax.set_xlabel("nats a token above the whole model")
ax.invert_yaxis()
ax.legend()
plt.show()
best = [f"{kind}: {way}" for kind, way in live[ways].idxmin(axis=1).items()]
print(f"The cheapest of the three: {', '.join(best)}.")

# %% [markdown]
# For the transformer and for Mamba the lowest scores are the cheapest of the three ways. For RWKV this coin is cheaper by a hundredth of a nat, which is nothing; other coins hit layer 0 and ruin the model. The last four are a bad choice for the transformer and RWKV, and nearly the choice of the score for Mamba.

# %% [markdown]
# ## 6. How much can go?
#
# What each kind loses as layers go by Block Influence. *Predict:* which line is the lowest at a quarter?

# %%
cut = removal.query("criterion == 'block_influence' and not repaired")
plot_twin_removal(cut)
plt.show()

# %% [markdown]
# Up to a quarter the lines lie together: two hundredths of a nat between the first and the last are no difference between architectures, with one twin of each. At a half they part, and RWKV loses the least.
#
# And with repair? A linear map, fitted in closed form on some text, stands in for each gap (lesson 06; no training). The full points are the plain cut, the hollow ones the repaired model.

# %%
table = study.prunability()
plot_prunability(table[table["kind"].isin(KINDS)].reset_index(drop=True))
plt.show()

# %% [markdown]
# Repair takes back two fifths of the loss in RWKV, half in Mamba and two thirds in the transformer. So a good part of what was missing is a change that a matrix can make, whatever the architecture.
#
# In numbers: each kind's added loss *minus the transformer's*, with the layers that Block Influence names and with those that a greedy search finds (section 7). Above 0 it loses more than the transformer.

# %%
quarter = removal[np.isclose(removal["share"], 0.25)]
some = quarter.query("criterion in ['block_influence', 'greedy']")
by = ["kind", "criterion", "repaired"]
more = study.difference(some, "added", by=by)
more["layers"] = more["criterion"] + np.where(more["repaired"], ", repaired", ", cut")
more.pivot(index="kind", columns="layers", values="mean").round(3)

# %% [markdown]
# No entry reaches a tenth of a nat, and both models without attention start from a lower loss, so they have more to lose. This is no sign that one of them is less redundant.

# %% [markdown]
# ## 7. Is it the model, or the score?
#
# If a model falls apart when its lowest-scoring layers go, there are two explanations. Perhaps it has **no layers to spare**. Or it has, and **the score does not find them**. They can be told apart: look for better layers with a slower method. *Greedy* search (lesson 06) removes whatever layer costs least, measures, and goes on. It needs no theory of importance. If greedy is far below Block Influence, the score is to blame.

# %%
names = ["greedy", "block_influence", "relative_magnitude", "reverse", "random"]
plain = quarter.query("not repaired")
found = study.over_seeds(plain, "added", by=["kind", "criterion"])
shape = {"figsize": (10, 3), "sharex": True, "sharey": True}
fig, axes = plt.subplots(1, 3, layout="constrained", **shape)
for ax, kind in zip(axes, KINDS, strict=True):
    rows = found[found["kind"] == kind].set_index("criterion").reindex(names)
    look = {"fmt": "o", "color": PALETTE[0], "capsize": 3}
    ax.errorbar(rows["mean"], range(len(names)), xerr=rows["error"].fillna(0), **look)
    ax.set(title=kind, xlabel="nats above the whole model", xscale="log")
plain_log_ticks(axes[0], "x")
axes[0].set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
axes[0].invert_yaxis()
plt.show()
wide = found.pivot(index="kind", columns="criterion", values="mean").loc[KINDS]
ratio = wide["block_influence"] / wide["greedy"]
told = ", ".join(f"{kind} {value:.1f}" for kind, value in ratio.items())
print(f"Loss added by Block Influence's choice, divided by that of greedy's: {told}.")

# %% [markdown]
# The factors are near 1: Block Influence finds layers to spare in all three. For Mamba it is even below 1. Greedy chose on one text and is judged on another, so a slow search can lose to a simple score. The bad choices stand out in all three: *random* can take layer 0, and *reverse* takes the end of the transformer and of RWKV.
#
# The same question for single layers: does a low score mean a cheap removal? Each point is one layer of one twin.

# %%
layers = study.twin_layers()
fig, axes = plt.subplots(1, 3, figsize=(10, 3.2), sharey=True, layout="constrained")
said = []
for ax, kind in zip(axes, KINDS, strict=True):
    rows = layers[layers["kind"] == kind]
    ax.scatter(rows["block_influence"], rows["added"], color=PALETTE[0], s=14)
    ax.set(xscale="log", title=kind, xlabel="Block Influence (log scale)")
    ax.set_yscale("symlog", linthresh=0.01)  # logarithmic, but straight around zero
    plain_log_ticks(ax, "x")
    seeds = [twin[["block_influence", "added"]] for _, twin in rows.groupby("seed")]
    ranks = [twin.corr("spearman").iloc[0, 1] for twin in seeds]
    said.append(f"{kind} {np.mean(ranks):.2f}")
axes[0].set_ylabel("nats added without the layer")
plt.show()
print(f"Rank correlation of score and damage: {', '.join(said)}.")

# %% [markdown]
# A rank correlation of 1 would mean that the score orders the layers exactly as their damage does; 0, that it says nothing.

# %% [markdown]
# High in all three; highest for Mamba, lowest for RWKV. So the score orders layers without attention, too. (One layer, the first, is far from the others in each panel, and a rank correlation counts it as one place only.)

# %% [markdown]
# ### What do they still know?
#
# Loss says how surprised a model is. The part of the text whose truth is known says whether it is *right*. Percent of right answers, whole and with a quarter of the layers removed by Block Influence. (The digits of a sum are written with the last one first; a right digit by guessing is one in ten.)

# %%
tasks = ["addition", "brackets", "agreement"]
both = removal.query("criterion == 'block_influence' and not repaired")
both = both[np.isclose(both["share"], 0) | np.isclose(both["share"], 0.25)]
both.groupby(["kind", "removed"], sort=False)[tasks].mean().round(1)

# %% [markdown]
# Hardly anything changes: four layers of sixteen are not missed here. Between the models there is a difference, and it was there before the cut: Mamba closes brackets best, which takes a memory of what is open, and the transformer worst. In agreement all are near guessing.

# %% [markdown]
# ## 8. The paper's table 3, and a number beside it
#
# The paper removed layers of Mamba-2.8B and RWKV-7B by the same score and kept this share of the mean of 13 benchmarks. Nothing here is ours: the left panel is printed in the paper. The right panel is printed by *another* group, which pruned the same two models with ShortGPT for comparison with its own method (arXiv 2602.07804): the perplexity on WikiText2, an encyclopedic text. It gives the parameters that were kept; we turn them into a share of the nominal 2.8 and 7 billion. *Before you look:* if a model keeps 90 percent of its score, how good do you expect its perplexity to be?

# %%
table3 = pd.read_csv(DATA / "paper" / "table3_non_transformers.csv")
others = pd.read_csv(DATA / "paper" / "replications_other.csv")
others = others[others["model"].isin(table3["model"])]
kept = others["removed"].str.extract(r"([\d.]+)B")[0].astype(float)
nominal = others["model"].str.extract(r"([\d.]+)B")[0].astype(float)
others = others.assign(percent=100 * (1 - kept / nominal))
others[["model", "method", "removed", "percent", "value"]].round(1)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for i, (name, rows) in enumerate(table3.groupby("model")):
    look = {"color": PALETTE[i], "marker": MARKERS[i]}
    left.plot(rows["ratio_percent"], rows["retention_percent"], label=name, **look)
    for method, rows in others.query("model == @name").groupby("method"):
        style = "-" if method == "ShortGPT" else ":"
        label = f"{name}, {method}"
        right.plot(rows["percent"], rows["value"], linestyle=style, label=label, **look)
left.set(xlabel="removed (%)", ylabel="percent of the score kept", ylim=(0, 104))
left.set_title("printed in the paper (table 3)")
right.set(xlabel="removed (%), from nominal sizes", yscale="log", xlim=(0, 32))
right.set(ylabel="perplexity (log scale)", title="printed by another group")
left.legend()
right.legend(fontsize=7)
plt.show()
mamba = table3.query("model == 'Mamba-2.8B'").set_index("ratio_percent")
share = mamba["retention_percent"]
ours = others.query("model == 'Mamba-2.8B' and removed.str.startswith('2.5B')")
first, second = ours["value"]
print(f"Mamba-2.8B keeps {share[10.9]} % of the score with 10.9 % removed, {share[25]} "
      f"% with 25 %. With 2.5B parameters kept, its perplexity is {first}; "
      f"{second} if other layers go.")  # fmt: skip

# %% [markdown]
# The two panels can't both be the whole story. At about a tenth removed, table 3 keeps 95 percent of Mamba's score (and 90 percent with a quarter gone), while the other group prints a perplexity of 379. For comparison: on the same text Llama-2-7B has 5.5 intact and 18 without a fifth of its layers (two groups agree; `data/paper/replications_wikitext2.csv`). A model with 379 no longer writes language.
#
# Three things help to read it.
#
# - **A plain mean can hide a broken model.** Mamba-2.8B guesses on many of the 13: it has 26 percent on MMLU (multiple-choice questions), where guessing among four answers gives 25. What is at the guessing level can't fall, and counts as kept. (Look at `table3` yourself; `20_ten_questions` shows only what stands above guessing.)
# - **The score is to blame more than the model.** With the layers that the other group chose, and just as many of them gone, Mamba has 24 in place of 379. So the layers to spare exist, and Block Influence did not name them.
# - **With RWKV it is the other way round.** In table 3 it falls sooner than Mamba; in the right panel ShortGPT hurts it much *less* than Mamba, and the other group's choice is not far ahead (34 against 39). Which of the two models is more redundant depends on what one measures.
#
# What weakens the right panel: we have it at second hand, from a summary of the paper; it has no values of the intact models; and the protocol is the other group's own. So its *ratios* within one model can be used, and hardly more.

# %% [markdown]
# ## 9. Question six: what does RWKV's redundancy mean?
#
# The paper removes layers of RWKV, sees it fall faster than the transformers and Mamba, and suggests that RWKV is less redundant. What do we know now?
#
# - That layers can be scored and removed without attention is settled: the hook, the formula and the removal needed no change (section 3), since all they use is a stream that layers add to.
# - That one number a model says little is settled as well: a better choice of layers changes the picture (sections 7 and 8), and so does the measure.

# %% [markdown]
# And among our twins, equal in size, text and training? With a quarter of the layers gone, by either choice, RWKV and Mamba lose about as much as the transformer, and with half of them gone RWKV loses the least. So we find no sign that a model without attention is less redundant: attention is not what makes layers dispensable. What the paper saw in RWKV-7B is a fact about that model, that score and those benchmarks. Our twins are tiny, and no proof for 7 billion parameters.

# %% [markdown]
# ## Exercises
#
# Three functions to write yourself. To try them before you see a solution, open the [exercise notebook](exercises/08_beyond_transformers.ipynb): there each solution is left out, and a check tells you what is wrong with yours. Here they are solved.

# %% [markdown]
# ### Exercise 1: How long is a memory?
#
# **Difficulty:** easy · **Minutes:** 5
#
# In RWKV a channel forgets with speed $d$: what came in $k$ tokens ago counts $e^{-k d}$. Return after how many tokens half of it is gone. `speeds` is a tensor of positive speeds, and the answer has the same shape.
#
# <details><summary>Hint</summary>
# For which k is the weight one half? Take the logarithm of both sides.
# </details>

# %% tags=["exercise"]
def half_life(speeds):
    """Tokens after which half of what a channel took in is gone."""
    ### BEGIN SOLUTION
    return torch.tensor(0.5).log() / -speeds
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_half_life, require_passed

check_half_life(half_life)

# %% tags=["apply"]
require_passed(half_life)
reaches = []
for layer in decoder_layers(models["rwkv"]):
    speeds = layer.attention.time_decay.detach().float().exp()  # stored as a logarithm
    lives = half_life(speeds)
    reaches.append([lives.quantile(q).item() for q in (0.1, 0.5, 0.9)])
table = pd.DataFrame(reaches, columns=["shortest tenth", "median", "longest tenth"])
table.rename_axis("layer").round(1).iloc[::3]

# %% [markdown]
# Each row is a layer: a tenth of its channels forget faster than the first number, half faster than the second, nine tenths faster than the third (in tokens).
#
# Deeper layers remember longer: the median grows from less than one token to more than ten. RWKV is *initialized* like this, with slower decay in deeper layers and a spread over the channels, and training has kept it.

# %% [markdown]
# ### Exercise 2: A memory that is a matrix
#
# **Difficulty:** medium · **Minutes:** 15
#
# One head of Mamba-2, as in section 1: the memory $S$ begins with zeros, $S_t = a_t S_{t-1} + w_t x_t^\top$ and $y_t = S_t^\top r_t$. `decay` is `[tokens]`, `write` and `read` are `[tokens, state]`, `x` is `[tokens, channels]`. Return all $y_t$ as one tensor `[tokens, channels]`.
#
# <details><summary>Hint 1</summary>
# A loop over tokens, in which the memory is a tensor <code>[state, channels]</code>. What is its first value?
# </details>
# <details><summary>Hint 2</summary>
# The product of a column and a row: <code>torch.outer(a, b)</code>. A token may read what it has just written.
# </details>

# %% tags=["exercise"]
def run_memory(decay, write, read, x):
    """What each token reads from the memory, ``[tokens, channels]``."""
    ### BEGIN SOLUTION
    memory = torch.zeros(write.shape[1], x.shape[1], dtype=x.dtype)
    out = []
    for t in range(len(x)):
        memory = decay[t] * memory + torch.outer(write[t], x[t])
        out.append(memory.T @ read[t])
    return torch.stack(out)
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_run_memory, require_passed

check_run_memory(run_memory)

# %% tags=["apply"]
require_passed(run_memory)
places = torch.eye(4)  # four places of the memory
x = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
at = torch.tensor([0, 1, 2, 0])  # the last token asks for the first one's place
for a in (1.0, 0.5):
    y = run_memory(torch.full((4,), a), places, places[at], x)
    print(f"decay {a}: the last token reads {y[-1].item():.3f}")

# %% [markdown]
# Each token writes into a place of its own, and the last one asks for the first place. Without decay it reads the 1 that was written there; with decay one half, three tokens later, an eighth of it. With as many places as tokens nothing is ever mixed up. A real memory has fewer places than a text has tokens, so they share them.

# %% [markdown]
# ### Exercise 3: The same memory as attention
#
# **Difficulty:** hard · **Minutes:** 20
#
# The same memory can be written as attention. Return the matrix `weights` `[tokens, tokens]` for which `weights @ x` is what `run_memory` of exercise 2 gives, for any `x`: entry $(t, s)$ says how much token $t$ takes from token $s$. There is no softmax in it. Decays are between 0 and 1, and may be exactly 0: then everything before is forgotten.
#
# <details><summary>Hint 1</summary>
# Follow one token s: it was written with w<sub>s</sub>, then faded once at each later token up to t, then was read with r<sub>t</sub>. Write that down as a product of numbers.
# </details>
# <details><summary>Hint 2</summary>
# The fading from s to t is the product of the decays of tokens s + 1 to t (for s = t an empty product, 1). Quotients of cumulative products fail where a decay is 0.
# </details>

# %% tags=["exercise"]
def memory_as_attention(decay, write, read):
    """How much each token takes from each earlier one, ``[tokens, tokens]``."""
    ### BEGIN SOLUTION
    tokens = len(decay)
    faded = torch.zeros(tokens, tokens, dtype=decay.dtype)
    for s in range(tokens):
        one = torch.ones(1, dtype=decay.dtype)
        faded[s:, s] = torch.cat([one, decay[s + 1 :]]).cumprod(0)
    return (read @ write.T) * faded
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_memory_as_attention, require_passed

check_memory_as_attention(memory_as_attention)

# %% tags=["apply"]
require_passed(memory_as_attention)
ones = torch.ones(5, 1)
decay = torch.tensor([0.5, 0.5, 0.5, 0.0, 0.5])
weights = memory_as_attention(decay, ones, ones)
pd.DataFrame(weights.numpy(), index=[f"token {t}" for t in range(5)]).round(3)

# %% [markdown]
# Each row is a token that reads, each column one that is read. It is a lower triangle, as in attention with a causal mask, and it fades to the left. At token 3 the decay is 0: everything before is gone, for this token and for all later ones. The authors of Mamba-2 call this *duality*: one can compute the memory token by token, or all at once with two matrix products, whichever is faster. Training does the second, writing the first.

# %% [markdown]
# ## What we saw
#
# - A recurrent layer carries a memory of fixed size along in place of looking back at every token. How long it remembers is a decay: computed from the text in Mamba-2, fixed in RWKV-4.
# - Block Influence needs a stream that layers add to, not attention. Hook, formula and removal work unchanged.
# - Whether a model has layers to spare and whether a score finds them are two questions. In another group's numbers, Mamba falls to a perplexity of 379 by ShortGPT's choice and to 24 by a better one.
# - A plain mean of benchmarks counts what was guessed as kept.
# - Three twins of equal size and training lose about the same when a quarter of their layers goes, and a repair takes back about half of it. The score orders their layers well, with attention and without.
# - Where the low scores are differs: at the end in Mamba, in the middle in RWKV. So "remove the last layers" is no rule.

# %% [markdown]
# ## Three questions
#
# **1.** Does Block Influence need attention anywhere in its definition?
#
# <details><summary>Answer</summary>No. It compares the state that enters a layer with the state that leaves it. It makes sense wherever a layer adds to a stream, so that without the layer the stream goes on.</details>
#
# **2.** Model A keeps 95 percent of its mean score after pruning, model B 80 percent. A had been at the guessing level on half of the benchmarks, B on none. Which one is more redundant?
#
# <details><summary>Answer</summary>It can't be said from these numbers. On half of the benchmarks A had nothing to lose, and they count as fully kept. Take the guessing level off first, and leave out benchmarks on which the dense model is not clearly above it.</details>
#
# **3.** Two models of different architecture are pruned, one of each, and one loses more. What else could be the reason, and how would you find out?
#
# <details><summary>Answer</summary>Size, training text, number of tokens, tokenizer, depth, quality of the dense model, chance of the seed, or a score that suits one of them better. Train twins that differ in one thing, several seeds of each, and compare the score's choice with that of a search.</details>

# %% [markdown]
# **Check yourself.** Three more questions, with choices: press a letter (or reach it with Tab and press Space). In a saved notebook, unfold the line below.

# %%
from shortgpt.course.quiz import quiz

quiz("08")

# %% [markdown]
# If attention is not the reason why deep layers can go, what is? The paper points at the norms, and lesson 11 tests that. First, what pruning does to writing: · **Next:** [10 · Generation](10_generation.ipynb) · **Previous:** [07 · Depth or width](07_depth_or_width.ipynb)
