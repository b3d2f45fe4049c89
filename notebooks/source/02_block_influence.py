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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/shortgpt-course/shortgpt/blob/main/notebooks/02_block_influence.ipynb)
#
# # 02 · Block Influence: derive, compute, trust
#
# In lesson 01 most layers hardly turned the hidden states. ShortGPT scores each layer by this turn, **Block
# Influence** (section 3.1, equation 1), and removes the layers with the lowest scores. Here you compute the score on
# a real model and find out how far to trust it.
#
# **You will be able to**
#
# * derive Block Influence from the cosine, and explain each part of the formula;
# * compute it for one layer by hand and for all layers with the toolkit, with standard errors;
# * say what goes wrong with the same formula in half precision;
# * say how much text a stable choice of layers needs, and what changes it.
#
# **Before:** [lesson 01](01_hidden_states.ipynb) (hidden state, residual stream, hook) · **Takes:** about 4 minutes
# on 2 CPU cores; reading about 25 minutes, exercises 40 · **Memory:** about 3 GB · **Download:** 93 MB once (shared
# by all lessons)

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
# Nothing is trained here, so no gradients are kept.
#
# **Another model?** Change the line `MODEL = …`. The text still speaks of the default model; the cells show yours,
# except what says *default model, stored*.

# %% tags=["for-exercises"]
import functools
import inspect

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from shortgpt import block_influence, built_in_text, calibration_batches
from shortgpt import choose_layers, decoder_layers, hidden_states, load, perplexity
from shortgpt import remove_layers, score_layers
from shortgpt.utils.data import data_folder
from shortgpt.scoring.influence import LayerScores, relative_magnitude
from shortgpt.course.plots import PALETTE, plain_log_ticks, plot_layers, plot_scores

MODEL = "smollm2-135m-instruct"  # others: shortgpt.suggested_models()
model, tokenizer = load(MODEL, device="cpu")  # the cells below use plain CPU tensors
_ = torch.set_grad_enabled(False)

# %% [markdown]
# ## 1. The cosine, by hand
#
# The cosine of the angle between two vectors is their dot product divided by both lengths:
#
# $$\cos(a, b) = \frac{a^\top b}{\lVert a \rVert\,\lVert b \rVert}$$
#
# Take $a = (3, 4)$, of length 5. Predict its cosine with $(6, 8)$, $(4, 3)$, $(-4, 3)$ and $(-3, -4)$.

# %%
a = torch.tensor([3.0, 4.0])
others = torch.tensor([[6.0, 8.0], [4.0, 3.0], [-4.0, 3.0], [-3.0, -4.0]])
cosines = [float(a @ b / (a.norm() * b.norm())) for b in others]
table = pd.DataFrame({"b": [tuple(b.tolist()) for b in others], "cosine": cosines})
table.assign(**{"1 - cosine": 1 - table["cosine"]}).round(4)

# %% [markdown]
# The last column, $1 - \cos$, is 0 for "did not turn", 1 for a right angle, and at most 2. Length plays no part.
# Which of the four turns would you call small?


# %%
def draw_pair(ax, x_in, x_out):
    dashed = {"color": PALETTE[1], "linestyle": "--"}
    for vector, style in ((x_in, {"color": PALETTE[0]}), (x_out, dashed)):
        arrow = {"arrowstyle": "->", "linewidth": 2, "shrinkA": 0, "shrinkB": 0} | style
        ax.annotate("", tuple(vector.tolist()), (0, 0), arrowprops=arrow)
    ax.set(xlim=(-5, 7), ylim=(-5, 9), xticks=[-4, 0, 4], yticks=[-4, 0, 4, 8])
    ax.set(aspect="equal", title=f"1 − cos = {block_influence(x_in, x_out):.2f}")


_, axes = plt.subplots(1, 4, figsize=(10, 3.6), layout="constrained", sharey=True)
for ax, b in zip(axes, others, strict=True):
    draw_pair(ax, a, b)
plt.show()
print("The solid arrow is (3, 4) each time; a longer vector in its direction scores 0.")

# %% [markdown]
# In the second picture the arrows are about 16 degrees apart. You can see that at once, and yet $1 - \cos$ is just
# 0.04, because $1 - \cos\theta \approx \theta^2 / 2$. Middle layers of real models have scores of this size.
#
# Move the slider to get a feeling for the scale (if nothing moves, see 16 degrees below it).


# %%
def show_turn(degrees):
    figure = Figure(figsize=(3.2, 2.6), layout="constrained")  # a slider: no pyplot
    ax = figure.subplots()
    angle = torch.deg2rad(torch.tensor(float(degrees)))
    x_in, x_out = torch.tensor([5.0, 0.0]), 5 * torch.stack([angle.cos(), angle.sin()])
    draw_pair(ax, x_in, x_out)
    ax.set(xlim=(-6, 6), ylim=(-1, 6))
    display(figure)
    print(f"A turn of {degrees} degrees scores {block_influence(x_in, x_out):.4f}.")


slider = widgets.IntSlider(16, 0, 180, description="degrees", continuous_update=False)
display(slider, widgets.interactive_output(show_turn, {"degrees": slider}))

# %%
show_turn(16)

# %% [markdown]
# ## 2. From the cosine to Block Influence
#
# Let $X_{i,t}$ be the hidden state of token $t$ that enters layer $i$, and $X_{i+1,t}$ the one that leaves it. Then
#
# $$\mathrm{BI}_i = 1 - \mathbb{E}_{X,t}\left[\frac{X_{i,t}^\top X_{i+1,t}}{\lVert X_{i,t}\rVert_2\,\lVert X_{i+1,t}\rVert_2}\right] \qquad \text{(ShortGPT, equation 1)}$$
#
# *One minus* makes a low score mean "changes little". The *expectation* $\mathbb{E}$ is a mean over tokens and texts,
# *outside* the cosine: first compare, then average. Does the order matter? Take two tokens: the layer turns one to the
# left and the other to the right. Predict both results.

# %%
x_in = torch.tensor([[5.0, 0.0], [5.0, 0.0]])
x_out = torch.tensor([[4.0, 3.0], [4.0, -3.0]])
compare_first = block_influence(x_in, x_out).mean()
average_first = block_influence(x_in.mean(0), x_out.mean(0))

_, axes = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained", sharey=True)
befores, afters = [*x_in, x_in.mean(0)], [*x_out, x_out.mean(0)]
for ax, before, after in zip(axes, befores, afters, strict=True):
    draw_pair(ax, before, after)
    ax.set(xlim=(-1, 6), ylim=(-4, 4))
plt.show()
print(
    f"Compare first, then average: {compare_first:.2f}. "
    f"Average first (right panel), then compare: {average_first:.2f}."
)

# %% [markdown]
# Averaging first cancels the two turns: a layer that moved every token seems to do nothing. And in a real model? We try
# both orders on four documents.

# %%
texts = built_in_text().drop_duplicates("genre")["text"].head(4)
batch = calibration_batches(tokenizer, texts, length=256, pack=False)[0]
states = hidden_states(model, batch)  # [layers + 1, documents, tokens, hidden]

right = block_influence(states[:-1], states[1:]).mean((1, 2))  # compare, then average
means = states.mean((1, 2))  # [layers + 1, hidden]
wrong = block_influence(means[:-1], means[1:])  # average, then compare

# %%
_, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
ax.plot(right, "o-", color=PALETTE[0], label="compare, then average (equation 1)")
look = {"color": PALETTE[1], "fillstyle": "none"}
ax.plot(wrong, "s--", label="average, then compare", **look)
ax.set(yscale="log", xlabel="layer", ylabel="1 − cosine (log scale)")
plain_log_ticks(ax)
ax.legend()
plt.show()
odd = int((wrong / right).argmax())
print(
    f"In the wrong order the median layer is {(right / wrong).median():.0f} times too "
    f"low, and layer {odd} {wrong[odd] / right[odd]:.1f} times too high."
)

# %% [markdown]
# In the wrong order nearly every layer scores too low, because turns of different tokens cancel. One scores far too
# high: the layer in which lesson 01 saw the first token become so long that it turns the whole mean. In equation 1
# every token has one vote, and that layer gets an average score. Remember its number for section 10.

# %% [markdown]
# ## 3. When length matters
#
# The cosine ignores lengths. So do attention and feed-forward network (FFN): they read the stream through a norm,
# RMSNorm, which removes the length.
#
# But a layer that only *stretches* its input scores 0, although it makes all later additions relatively smaller. The
# **relative magnitude** $|f(x)| / |x + f(x)|$ (Samragh et al., arXiv 2312.09299) sees the stretch. Would it choose
# other layers? First a tiny case.

# %%
pairs = {
    "stretch by 2": (a, 2 * a),
    "turn, same length": (a, torch.tensor([4.0, 3.0])),
    "nothing": (a, a),
}
pd.DataFrame(
    {
        name: [float(block_influence(*pair)), float(relative_magnitude(*pair))]
        for name, pair in pairs.items()
    },
    index=["block influence", "relative magnitude"],
).round(3)

# %% [markdown]
# For the stretch the two disagree completely. But stretches are rare in this model, where layers add mostly sideways:
# lesson 03, section 5, gets the same six layers from both scores.

# %% [markdown]
# ## 4. The toolkit's function
#
# This is equation 1 for one pair of states, without the expectation:

# %%
print(inspect.getsource(block_influence))

# %% [markdown]
# `score_layers` takes the expectation, without padding. Is its result right? Compute one layer by hand, with a hook of
# our own. (Section 7 shows what the `.float()` is for.)

# %%
layer, seen = len(decoder_layers(model)) // 2 - 1, {}


def keep(module, args, output):
    seen.update(x_in=args[0], x_out=output)


handle = decoder_layers(model)[layer].register_forward_hook(keep)
model(**batch)
handle.remove()

x_in, x_out = seen["x_in"], seen["x_out"]  # [documents, tokens, hidden]
products = (x_in * x_out).sum(-1)  # [documents, tokens]
cosine = products / (x_in.norm(dim=-1) * x_out.norm(dim=-1))
by_hand = 1 - float(cosine.mean())
by_toolkit = score_layers(model, [batch], progress=False).values[layer]
print(f"layer {layer}: by hand {by_hand:.8f}, by toolkit {by_toolkit:.8f}")
assert abs(by_hand - by_toolkit) < 1e-6

# %% [markdown]
# They agree to a millionth.

# %% [markdown]
# ## 5. All layers
#
# The built-in calibration text has 27 English documents in nine genres. We read the first 512 tokens of each
# document, or *sample*, and score genre by genre, to compare the genres later.
#
# Predict: which layers of a 30-layer model will score highest? Which lowest?


# %%
def score_text(texts):
    batches = calibration_batches(
        tokenizer, texts, length=512, batch_size=3, pack=False
    )
    return score_layers(model, batches, progress=False)


documents = built_in_text("calibration")
by_genre = {
    genre: score_text(rows["text"]) for genre, rows in documents.groupby("genre")
}
scores = functools.reduce(LayerScores.merge, by_genre.values())
scores.table.nsmallest(6, "score").round(4)

# %%
plan = choose_layers(scores, 6)
plot_scores(scores.table, removed=plan.removed)
plt.show()

# %% [markdown]
# The first layer, which turns embeddings into something else, is far above all others. (Triangles do not fit on the
# axis.) Most layers are in a narrow band; squares mark the six lowest. Llama-2-7B looks similar: about 0.05 in the
# middle, above 0.4 for the first layer (ShortGPT, figure 3).
#
# *Where* are the low layers? Predict: will ours be in the same place as the paper's (ShortGPT, table 9)?

# %%
table9 = pd.read_csv(data_folder() / "paper" / "table9_removed_layers.csv")
chosen = {
    (row.model, row.layers): [int(i) for i in row.removed_order.split()]
    for row in table9.itertuples()
}
depth = len(decoder_layers(model))
chosen["this model", depth] = list(choose_layers(scores, ratio=0.28).removed)
_, axes = plt.subplots(len(chosen), 1, figsize=(9, 4.6), layout="constrained")
for ax, ((name, layers), removed) in zip(axes, chosen.items(), strict=True):
    plot_layers(layers, {name: removed}, ax=ax)
    ax.set(xlabel="layer" if name == "this model" else "")
plt.show()

# %% [markdown]
# In the paper's four models the low layers form one block in roughly the last third, and the last layer always
# stays. In SmolLM2-135M most of them are in the middle. So "remove deep layers" is not the rule: measure.

# %% [markdown]
# ## 6. Is the number right?
#
# <details><summary>Going deeper: three ways to get a wrong score without an error message</summary>
#
# **Rounding.** The same model and arithmetic in float64 must give the same scores. With the toolkit they agree to a
# millionth, far below the differences between layers (`tests/scoring/` holds it to that).
#
# **Padding.** To share a batch, short texts are filled up with pad tokens. The toolkit removes them before the
# model reads, so a text scores the same alone, padded on either side, or in batches of any size. A mean over all
# positions counts pads as text and makes scores badly wrong. Exercise 2 asks you for a version that does not.
#
# **The last layer.** `output_hidden_states` reports it after the final norm (lesson 01, section 5). Exercise 1
# shows how much that changes.
# </details>

# %% [markdown]
# ## 7. Half precision
#
# Models usually run in 16 bits, and the largest number in float16 is 65,504. Hidden states fit, but the *product of
# two lengths* may not: 256 times 256 is too much. Which layers will be hit?


# %%
def block_influence_float16(x_in, x_out):
    x_in, x_out = x_in.half(), x_out.half()
    return 1 - (x_in * x_out).sum(-1) / (x_in.norm(dim=-1) * x_out.norm(dim=-1))


half = block_influence_float16(states[:-1], states[1:])  # [layers, documents, tokens]
lost = half.isnan().float().mean((1, 2))
_, ax = plt.subplots(figsize=(8, 2.8), layout="constrained")
look = {"color": PALETTE[1], "hatch": "///", "edgecolor": "black", "linewidth": 0.6}
ax.bar(range(len(lost)), 100 * lost, **look)
ax.set(xlabel="layer", ylabel="percent NaN", ylim=(0, 105))
plt.show()
print(
    f"In float16 {lost.mean():.0%} of all scores of tokens become NaN, "
    f"and in {(lost > 0.99).sum()} layers practically all."
)

# %% [markdown]
# The deeper the layer, the longer the states, and the more is lost. (Low bars on the left are tokens that become long
# early, such as the first.) The paper's published code replaces NaN ("not a number") by 0.5. What would be chosen
# then?

# %%
silenced = half.float().nan_to_num(nan=0.5).mean((1, 2))
for name, values in (("float32", right), ("float16, NaN -> 0.5", silenced)):
    lowest = sorted(values.argsort()[:6].tolist())
    print(f"{name:20} lowest six: {lowest}")

# %% [markdown]
# Every layer behind the overflow gets a score near 0.5 and can't be chosen any more. No error appeared, and the
# list looks plausible. So the toolkit computes in float32, and `score_layers` stops with an error at a state that is
# not finite. (bfloat16 has float32's range and cannot overflow here.)

# %% [markdown]
# ## 8. How sure is the choice?
#
# The *standard error* of a score says how much other documents would change it. (It counts documents, since tokens of
# one text are not independent.) To compare two layers, take their difference on the *same* documents. Predict which of
# these differences are certain: layers 14 and 24, 14 and 17, 3 and 12.

# %%
rows = []
for pair in ((14, 24), (14, 17), (3, 12)):  # of 30; elsewhere at the same depths
    first, second = (layer * depth // 30 for layer in pair)
    difference, error = scores.difference(first, second)
    name = f"layer {first} minus layer {second}"
    rows.append({"pair": name, "difference": difference, "standard error": error})
pairs = pd.DataFrame(rows).set_index("pair")
pairs.assign(errors=pairs["difference"].abs() / pairs["standard error"]).round(4)

# %% [markdown]
# The last column counts standard errors; below about two, a difference is not a finding. The first difference is
# large, the second tiny but certain, the third not certain.
#
# To see how sure all six are, a *bootstrap* draws 27 documents with replacement, chooses the six lowest, and repeats
# that a thousand times. How many of the six do you expect in nearly all draws?

# %%
frequency = scores.selection_frequency(6)
candidates = frequency[frequency > 0].sort_values(ascending=False)
_, ax = plt.subplots(figsize=(7, 3), layout="constrained")
settled = candidates > 0.95
for i, (value, sure) in enumerate(zip(candidates, settled, strict=True)):
    look = {"color": PALETTE[int(sure)], "hatch": "///" if sure else ""}
    ax.bar(i, value, edgecolor="black", **look)
    ax.text(i, value + 0.02, f"{value:.2f}", ha="center")
ax.set_xticks(range(len(candidates)), [f"layer {layer}" for layer in candidates.index])
ax.set(ylabel="share of resamples", ylim=(0, 1.15))
plt.show()
print(
    f"{settled.sum()} layers are chosen in more than 95 percent of the resamples "
    f"(hatched); {(~settled).sum()} others share the remaining places."
)

# %% [markdown]
# Five layers are settled. Several near equals compete for the sixth place.
#
# How much text does one need? Choose layers from two *separate* sets of $n$ documents and count the choices they
# share. Predict: will the lowest three, six or nine be the hardest to agree on?


# %%
def agreement(documents, choose, draws=300):
    """Mean share of the `choose` lowest layers that two separate sets share."""
    generator, shared = np.random.default_rng(0), []
    for _ in range(draws):
        order = generator.permutation(len(scores.counts))
        halves = order[:documents], order[documents : 2 * documents]
        values = [
            scores.sums[half].sum(0) / scores.counts[half].sum() for half in halves
        ]
        first, second = (set(np.argsort(value)[:choose]) for value in values)
        shared.append(len(first & second) / choose)
    return np.mean(shared)


sizes = [1, 2, 3, 4, 6, 8, 10, 13]
shares = {choose: [agreement(n, choose) for n in sizes] for choose in (3, 6, 9)}
stability = pd.DataFrame(shares, index=sizes)

# %%
_, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
tokens = np.array(sizes) * scores.counts.mean()
for choose, style, colour in zip(stability, ("o-", "s--", "^:"), PALETTE, strict=False):
    ax.plot(tokens, stability[choose], style, color=colour, label=f"lowest {choose}")
ax.set(xlabel="tokens read for each choice", ylabel="share in common", ylim=(0, 1.05))
ax.legend()
plt.show()
ordered = np.sort(scores.values)
for choose in stability:
    gap = ordered[choose] - ordered[choose - 1]
    start, end = stability[choose].iloc[[0, -1]]
    print(
        f"Lowest {choose}: {start:.0%} in common from {tokens[0]:,.0f} tokens each, "
        f"{end:.0%} from {tokens[-1]:,.0f}; the next layer scores {gap:.4f} more."
    )

# %% [markdown]
# A few thousand tokens settle the lowest three and nine. The lowest six stay uncertain, however much we read, because
# the sixth and seventh lowest are near equals. So remove a number of layers at which the scores have a gap.
#
# One more setting matters: how many tokens of each document are read, the *window*. Will shorter windows choose the
# same six?

# %%
pair = [layer * depth // 30 for layer in (14, 17)]
by_window, rows = {512: scores}, []
for window in (256, 128, 64):
    cut = {"length": window, "batch_size": 9, "pack": False}
    batches = calibration_batches(tokenizer, documents["text"], **cut)
    by_window[window] = score_layers(model, batches, progress=False)
for window, part in by_window.items():
    six = sorted(choose_layers(part, 6).removed)
    difference, error = part.difference(*pair)
    rows.append([window, ", ".join(map(str, six)), difference, error])
columns = ["window", "lowest six", f"{pair[0]} minus {pair[1]}", "standard error"]
pd.DataFrame(rows, columns=columns).set_index("window").round(4)

# %% [markdown]
# The last of the six changes with the window, and so does the sign of the tiny difference between layers 14 and 17: a
# standard error over documents does not cover a change of the setting. **All lessons choose layers on windows of 512
# tokens of the built-in text**, and that gives layers 3, 13, 14, 17, 25 and 26. Where a lesson reads less, for speed,
# its list can differ in the last place.

# %% [markdown]
# ## 9. Which text?
#
# Now *other* text: Chinese, Python's own documentation (`pydoc_data.topics`, part of every Python), and random
# tokens. SmolLM2 hardly knows Chinese, so take that row as "text foreign to the model".
#
# Predict which of the three will differ most from our nine genres.

# %%
from pydoc_data.topics import topics

longest = sorted(topics.items(), key=lambda item: -len(item[1]))[:6]
generator = torch.Generator().manual_seed(0)
random_ids = torch.randint(len(tokenizer), (3, 512), generator=generator)
by_text = dict(by_genre)
by_text["Chinese"] = score_text(built_in_text(language="zh")["text"])
by_text["Python docs"] = score_text([text for _, text in longest])
noise = [{"input_ids": random_ids, "attention_mask": torch.ones_like(random_ids)}]
by_text["random tokens"] = score_layers(model, noise, progress=False)

# %%
ranked = {name: pd.Series(part.values).rank() for name, part in by_text.items()}
ranks = pd.DataFrame(ranked).T.astype(int)
_, ax = plt.subplots(figsize=(11, 4), layout="constrained")
look = {"cmap": "viridis", "cbar_kws": {"label": "rank (1 = lowest)"}}
sns.heatmap(ranks, annot=True, fmt="d", annot_kws={"fontsize": 8}, ax=ax, **look)
ax.axhline(len(by_genre), color="white", linewidth=3)
ax.set(xlabel="layer")
plt.show()
always = ranks.columns[(ranks.loc[list(by_genre)] <= 9).all()]
print(f"Layers {', '.join(map(str, always))} are among the nine lowest in every genre.")

# %% [markdown]
# The English genres and the Python documentation agree roughly, and random tokens rank most layers as English does. The
# foreign text differs most: layers 25 and 26, among the lowest on English, rank in the middle or above on Chinese. A
# plan made from English would remove them (lesson 05 tests both languages).
#
# So calibrate on text like the text that the model is for, and say which. (The toolkit stores a fingerprint of the text
# in every plan.)

# %% [markdown]
# ## 10. What Block Influence does not tell
#
# BI looks at a layer's own step, and not at whether later layers need it. How large is the *damage* when one layer
# goes? We measure **perplexity**, the model's surprise at text it has not seen (lower is better). Predict: will the
# layer that you remember from section 2 fit in?

# %%
by_rank = np.argsort(scores.values)
ranks = np.array([0, 1, 3, 6, 10, 20, 25, 27]) * len(by_rank) // 30
tried = [int(layer) for layer in by_rank[ranks]] + [odd]
text = [built_in_text("perplexity", genre="encyclopedic")["text"][0]]
dense = perplexity(model, tokenizer, text)
damage = [
    perplexity(remove_layers(model, [layer]), tokenizer, text) / dense
    for layer in tried
]

# %%
_, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
ax.scatter(scores.values[tried[:-1]], damage[:-1], color=PALETTE[0])
look = {"marker": "s", "s": 60, "color": PALETTE[1]}
ax.scatter(scores.values[odd], damage[-1], label=f"layer {odd}, from section 2", **look)
for i, (layer, ratio) in enumerate(zip(tried, damage, strict=True)):
    look = {"textcoords": "offset points", "ha": "center", "fontsize": 9}
    at, place = (scores.values[layer], ratio), (0, 7) if i % 2 else (0, -15)
    ax.annotate(layer, at, xytext=place, **look)
ax.set(xscale="log", xlabel="Block Influence (log scale)")
ax.set(yscale="log", ylabel="perplexity without the layer / with")
ax.margins(0.1)
plain_log_ticks(ax, "x")
plain_log_ticks(ax, "y")
ax.legend()
plt.show()
print(
    f"Perplexity grows {damage[0]:.2f}-fold without layer {tried[0]} (lowest score) "
    f"and {damage[-1]:.1f}-fold without layer {odd}, which scores only "
    f"{scores.values[odd]:.3f}."
)

# %% [markdown]
# The ends support the score: the lowest layers cost little, and a layer with a very high score costs a great deal.
#
# The square does not fit: removing it hurts more than removing layers that score higher. In this layer the first
# token becomes extremely long, and that is *one* vote among hundreds.
#
# So Block Influence is cheap, stable, and good at naming candidates. It does not see what later layers need.

# %% [markdown]
# ## 11. One vector
#
# [Lesson 00](00_start_here.ipynb) began with a riddle: layers 17 and 11 have nearly the same score, but without layer
# 11 nothing is left of a sentence. Why?
#
# First: how far does this layer turn the first token, and how far the others?

# %%
page = calibration_batches(tokenizer, built_in_text()["text"], samples=1)[0]
seen = hidden_states(model, page)[:, 0]  # [layers + 1, tokens, hidden]
sink = int(seen[:, 0].norm(dim=-1).diff().argmax())  # where the first token grows most
before, after = seen[sink, 0].norm(), seen[sink + 1, 0].norm()
turn = block_influence(seen[sink], seen[sink + 1])  # [tokens]
print(f"layer {sink}: the first token's state grows from {before:.0f} to {after:.0f}")
print(f"it turns the first token by {turn[0]:.2f}, all others by {turn[1:].mean():.3f}")
print(f"Block Influence, the mean over {len(turn)} tokens: {turn.mean():.3f}")

# %% [markdown]
# Is this one token the reason why the layer is needed? A hook can let the layer pass on its input unchanged for
# *some* tokens only. **Predict first:** does it hurt more to skip the layer for the first token, or for all the
# others? Four other layers are there for comparison.

# %%
from shortgpt import continue_text
from shortgpt.course.plots import plot_one_vector
from shortgpt.course.studies.first_token import one_vector, skipped_for

genres = ("encyclopedic", "news", "science", "story")
short = [built_in_text("perplexity", genre=g)["text"].iloc[0][:700] for g in genres]
others = [layer * len(decoder_layers(model)) // 30 for layer in (2, 8, 24, 28)]
vectors = one_vector(model, tokenizer, [sink, *others], short)
plot_one_vector(vectors, perplexity(model, tokenizer, short))
plt.show()

# %% [markdown]
# For layer 11 the order is reversed: skipping it for the first token alone costs far more than skipping it for all
# the rest. So what the later layers need from it is **one vector**: the long state of the first token, where their
# attention looks when nothing else fits (the *attention sink*). And the sentence of the riddle?

# %%
said = {"first": "the first token only", "others": "all other tokens"}
PROMPT = "The capital of France is"
for tokens, name in said.items():
    with skipped_for(model, sink, tokens):
        text = continue_text(model, tokenizer, PROMPT, new_tokens=12)
    text = " ".join(text.split())
    print(f"layer {sink} skipped for {name}: {PROMPT} … {text}")

# %% [markdown]
# That is the answer to the riddle. Layers 17 and 11 both turn most tokens a little, so their means are nearly the
# same. But layer 11 also prepares one vector that all later layers rely on.

# %% [markdown]
# ## Exercises
#
# Try these four functions first in the [exercise notebook](exercises/02_block_influence.ipynb), where a check tells
# you what is wrong with yours. Here they are solved.

# %% [markdown]
# ### Exercise 1: All layers from the states that transformers reports
#
# **Difficulty:** easy · **Minutes:** 5
#
# You get `reported`, what `output_hidden_states=True` returns (one tensor `[batch, tokens, hidden]` more than there
# are layers), and `last`, the output of the last layer, captured with a hook. There is no padding. Return a list
# with the Block Influence of every layer. You may use `block_influence`.
#
# <details><summary>Hint 1</summary>
# Lesson 01, section 5: one of the reported states is not what a layer put out.
# </details>
# <details><summary>Hint 2</summary>
# Build the list of true states first. Layer i takes entry i to entry i + 1.
# </details>


# %% tags=["exercise"]
def layer_influences(reported, last):
    """Block Influence of every layer, a list of numbers."""
    ### BEGIN SOLUTION
    states = [*reported[:-1], last]
    layers = range(len(states) - 1)
    return [float(block_influence(states[i], states[i + 1]).mean()) for i in layers]
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_layer_influences, require_passed

check_layer_influences(layer_influences)

# %% tags=["apply"]
require_passed(layer_influences)
batch = calibration_batches(tokenizer, built_in_text()["text"][:1], length=64)[0]
reported = model(**batch, output_hidden_states=True).hidden_states
last = hidden_states(model, batch)[-1]
right, wrong = (layer_influences(reported, each)[-1] for each in (last, reported[-1]))
print(f"the last layer's score: {right:.2f}")
print(f"the same with the reported last entry: {wrong:.2f}")

# %% [markdown]
# The second number mixes the last layer with the final norm. Nothing fails, and the number looks possible.

# %% [markdown]
# ### Exercise 2: One layer, with padding
#
# **Difficulty:** medium · **Minutes:** 10
#
# Block Influence of one layer for a padded batch: `x_in` and `x_out` are `[batch, tokens, hidden]`, and `mask` is
# `[batch, tokens]`, 1 at real tokens and 0 at pads. Every real token counts the same, in whichever sample it is.
# The states may be in `float16`, and pads may hold anything. Don't use `block_influence`.
#
# <details><summary>Hint 1</summary>
# Compute one number per token, then choose the tokens that count, then average.
# </details>
# <details><summary>Hint 2</summary>
# A tensor can be indexed with a mask of True and False: <code>values[mask.bool()]</code>.
# </details>


# %% tags=["exercise"]
def masked_influence(x_in, x_out, mask):
    """Block Influence over the real tokens of a batch, one number."""
    ### BEGIN SOLUTION
    x_in, x_out = x_in.float(), x_out.float()
    products = (x_in * x_out).sum(-1)  # [batch, tokens]
    cosine = products / (x_in.norm(dim=-1) * x_out.norm(dim=-1))
    return float(1 - cosine[mask.bool()].mean())
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_masked_influence

check_masked_influence(masked_influence)

# %% [markdown]
# Choosing is safer than multiplying by the mask: zero times NaN ("not a number") is NaN, and some attention
# implementations give NaN at pads. And the mean over all tokens is the mean of the samples' means only if all samples
# are equally long.

# %% [markdown]
# ### Exercise 3: How far does a span of layers turn?
#
# **Difficulty:** medium · **Minutes:** 10
#
# Some methods remove a row of neighbouring layers and ask how far the whole row turns the states (Gromov et al.,
# arXiv 2403.17887). Return the mean *angle* between the state that enters layer `start` and the one that leaves the
# last of the `n` layers from there on, as a fraction of a half turn: 0 for the same direction, 1 for the opposite
# one. `states` is `[layers + 1, batch, tokens, hidden]`, without padding.
#
# <details><summary>Hint 1</summary>
# Which entry of <code>states</code> leaves layer i? And if n is 1?
# </details>
# <details><summary>Hint 2</summary>
# <code>arccos</code> is the inverse of the cosine, in radians. It gives NaN beyond 1, and rounding can take a cosine there.
# </details>


# %% tags=["exercise"]
def span_angle(states, start, n):
    """Mean angle by which ``n`` layers from ``start`` on turn states, in half turns."""
    ### BEGIN SOLUTION
    cosine = 1 - block_influence(states[start], states[start + n])  # [batch, tokens]
    return float(cosine.clamp(-1, 1).arccos().mean() / torch.pi)
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_span_angle, require_passed

check_span_angle(span_angle)

# %% tags=["apply"]
require_passed(span_angle)
page = calibration_batches(tokenizer, built_in_text()["text"][:1], length=64)[0]
states = hidden_states(model, page)
angles = {start: span_angle(states, start, 6) for start in range(len(states) - 6)}
best = min(angles, key=angles.get)
single = sum(span_angle(states, layer, 1) for layer in range(best, best + 6))
print(
    f"the six layers in a row that turn least, {best} to {best + 5}: "
    f"{180 * angles[best]:.0f} degrees"
)
print(f"the turns of these six layers one by one: {180 * single:.0f} degrees in all")

# %% [markdown]
# Six single turns add up to far more than the turn of all six: the layers don't all turn in the same direction. A
# score for each layer alone can't see that; lesson 06 compares both ways of choosing.

# %% [markdown]
# ### Exercise 4: Is the difference of two layers real?
#
# **Difficulty:** hard · **Minutes:** 15
#
# `first` and `second` hold the Block Influence of two layers, token by token, `[samples, tokens]`, on the *same*
# samples. Return by how much the first layer scores higher, and the standard error of that difference. Take the
# sample as the independent unit.
#
# <details><summary>Hint 1</summary>
# Reduce each sample to one number before you think about spread. Which number, if a difference is what you want?
# </details>
# <details><summary>Hint 2</summary>
# The standard error of a mean of n numbers is their standard deviation (with n − 1) divided by the root of n.
# </details>


# %% tags=["exercise"]
def difference_with_error(first, second):
    """Mean of ``first - second``, and its standard error over samples."""
    ### BEGIN SOLUTION
    differences = (first - second).mean(1)  # [samples]
    return float(differences.mean()), float(differences.std() / len(differences) ** 0.5)
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_difference_with_error, require_passed

check_difference_with_error(difference_with_error)

# %% tags=["apply"]
require_passed(difference_with_error)
texts = built_in_text()["text"][::3]
batch = calibration_batches(tokenizer, texts, length=64, batch_size=9)[0]
states = hidden_states(model, batch)
influence = block_influence(states[:-1], states[1:])  # [layers, samples, tokens]
for pair in ((14, 24), (14, 17), (3, 12)):
    a, b = (layer * len(influence) // 30 for layer in pair)
    difference, error = difference_with_error(influence[a], influence[b])
    print(f"layer {a} minus layer {b}: {difference:+.4f} +- {error:.4f}")

# %% [markdown]
# These are the pairs of section 8 on less text, so the errors are larger. The windows have 64 tokens, and layer 14
# minus layer 17 has the sign that section 8's table shows for short windows.

# %% [markdown]
# ## What we saw
#
# * Block Influence is one minus the cosine of a layer's input and output, per token, then averaged. Averaging the
#   states first hides turns that cancel, and one long token can dominate.
# * The same formula in float16 loses the deep layers to overflow and changes the choice.
# * On SmolLM2-135M the lowest layers are mostly in the middle; in the paper's models they form one block in roughly
#   the last third.
# * A few thousand tokens settle the choice, except among near equals. Window length and foreign text change it.
# * The lowest layers were cheap to remove, but an average score hid a layer that the model needs.
#
# > **Limits.** One small model. Sections 2, 3 and 7 read four documents, section 10 one. Standard errors cover other
# > documents of the same kind, and no other windows, kinds of text or models.
#
# ## Three questions
#
# **1.** A colleague averages the hidden states of all tokens first and takes one cosine per layer, "because it is
# faster". Which two things go wrong?
#
# <details><summary>Answer</summary>
# Opposite turns of different tokens cancel, so a layer that does much seems to do little. And the longest state,
# the attention sink, weighs so much in the mean that one token can decide the score.
# </details>
#
# **2.** Two layers score 0.0259 and 0.0262, each with a standard error of 0.0003. Is the first one less important?
#
# <details><summary>Answer</summary>
# These numbers can't say: the difference is about as large as its error. Compare them on the same documents
# (<code>difference</code>), or see how often each is chosen (<code>selection_frequency</code>). And even a sure
# difference in BI is no sure difference in damage.
# </details>
#
# **3.** You score a float16 model with code that computes norms in float16. It runs without an error and never
# chooses a deep layer. What do you check?
#
# <details><summary>Answer</summary>
# Whether the product of two norms exceeds 65,504, that is, norms above 256: then the score is NaN, and some code
# replaces NaN by a constant. Convert the states to float32 before the arithmetic.
# </details>

# %% [markdown]
# **Check yourself.** Three more questions: press a letter (or reach it with Tab and press Space). In a saved
# notebook, unfold the line below.

# %%
from shortgpt.course.quiz import quiz

quiz("02")

# %% [markdown]
# ## Next
#
# Now we remove layers and see what the model can still do.
#
# **Next:** [03 · Pruning](03_pruning.ipynb) · **Previous:** [01 · Hidden states](01_hidden_states.ipynb)
