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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/shortgpt-course/shortgpt/blob/main/notebooks/04_quantization.ipynb)
#
# # 04 · Quantization combined with pruning
#
# Removing layers leaves fewer weights. Quantization stores each remaining weight in fewer bits. In the layers the
# two savings multiply. Do the two *losses* multiply as well (ShortGPT, section 4.5)? And which should come first?
#
# **You will be able to**
#
# - round a weight matrix to 8 or 4 bits by hand, and say where the error comes from;
# - quantize a pruned model with `quantize`, and count its real size;
# - choose between fewer layers and fewer bits, for a budget of memory or of time;
# - compute whether the losses of pruning and quantization add up;
# - save a pruned, quantized model and check that what reloads is what you saved.
#
# **Before:** [lesson 03](03_pruning.ipynb) (removing layers, perplexity) · **Takes:** about 3 minutes on 2 CPU
# cores; reading about 30 minutes, exercises 40 · **Memory:** about 4 GB · **Download:** 93 MB once (shared by all
# lessons)

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
    project = "shortgpt-pruning[quant] @ git+https://github.com/shortgpt-course/shortgpt"
    get_ipython().run_line_magic("pip", f"install -q -c /tmp/held.txt '{project}'")
    if not getattr(find_spec("shortgpt"), "origin", None):
        raise ImportError("pip could not install the toolkit, and says above why. If this is an old copy of the lesson, open "
                          "it anew from the course's page; else choose Runtime > Disconnect and delete runtime, and try again")

import torch
import transformers

import shortgpt

print(f"shortgpt {shortgpt.__version__}, torch {torch.__version__}, transformers {transformers.__version__}")

# %% [markdown] tags=["for-exercises"]
# **Another model?** Change the line `MODEL = …`. The text still speaks of the default model; the cells show yours,
# except what says *default model, stored*.

# %% tags=["for-exercises"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display

from shortgpt import added_losses, built_in_text, calibration_batches, continue_text
from shortgpt import decoder_layers, load, quantize, read_grid, removal_order
from shortgpt import remove_layers, save, score_layers, size, size_quality_grid
from shortgpt import speed_table
from shortgpt.evaluation.likelihood import mean_and_error
from shortgpt.course.plots import PALETTE, STORED, plot_frontier
from shortgpt.utils.data import data_folder

MODEL = "smollm2-135m-instruct"  # others: shortgpt.suggested_models()
model, tokenizer = load(MODEL, device="cpu")  # the cells below use plain CPU tensors

# %% [markdown]
# A small function for the bars of this lesson, with hatches for readers who don't see the colours.

# %%
def bars(table: pd.DataFrame, label: str, number: str = "%.1f", **options) -> plt.Axes:
    ax = table.plot.barh(edgecolor="black", width=0.75, color=PALETTE, **options)
    for container, hatch in zip(ax.containers, ("", "///", "..."), strict=False):
        plt.setp(container, hatch=hatch)
        if number:
            ax.bar_label(container, fmt=number, padding=3, fontsize=8)
    ax.invert_yaxis()
    ax.margins(x=0.1)
    ax.set(xlabel=label, ylabel="")
    plt.tight_layout()
    return ax

# %% [markdown]
# ## 1. Rounding a weight
#
# Almost all weights of a language model are in its *linear layers*, matrices that multiply the hidden state. Each
# weight is a float32 number, 32 bits. An 8-bit integer has 256 possible values, a 4-bit integer 16. To *quantize* is
# to move every weight to the nearest point of a grid of so few values.
#
# The simplest grid, *absmax*, is evenly spaced, symmetric around zero, and just wide enough for the largest weight.
# With $b$ bits the integers run from $-q_{max}$ to $q_{max}$, where $q_{max} = 2^{b-1}-1$:
#
# $$ s = \frac{\max_j |w_j|}{q_{max}} \qquad q_j = \mathrm{round}\!\left(\frac{w_j}{s}\right) \qquad \hat w_j = s\, q_j $$
#
# Only the small integers $q_j$ and one *scale* $s$ a row are stored.


# %%
def round_absmax(w: torch.Tensor, bits: int) -> torch.Tensor:
    """Round every row of w to an evenly spaced grid that its largest weight fits in."""
    q_max = 2 ** (bits - 1) - 1  # 127 for 8 bits, 7 for 4 bits
    s = w.abs().amax(dim=-1, keepdim=True) / q_max  # [rows, 1]
    q = (w / s).round()  # [rows, columns], whole numbers from -q_max to q_max
    return s * q

# %% [markdown]
# Try it on four numbers with 4 bits. The largest is 0.70, so the scale is $0.70 / 7 = 0.10$. *Predict:* where do 0.23
# and 0.04 end up, and how large can the error of one weight be at most?

# %%
w = torch.tensor([[0.70, -0.32, 0.23, 0.04]])
w_hat = round_absmax(w, bits=4)
rows = {"weight": w[0], "rounded": w_hat[0], "error": (w_hat - w)[0]}
assert (w_hat - w).abs().max() <= 0.10 / 2 + 1e-6  # never more than half a step
pd.DataFrame({name: values.numpy() for name, values in rows.items()}).T.round(2)

# %% [markdown]
# No weight moves by more than half a step. That is little for 0.70, but 0.04 became zero: **the largest weight of
# the row sets the step, and the small weights lose.**
#
# Now a row of the real model, from a feed-forward matrix (`mlp.up_proj`) in the middle of the network.

# %%
LAYER = len(decoder_layers(model)) // 2 - 1  # in the middle
weight = decoder_layers(model)[LAYER].mlp.up_proj.weight.detach()  # [outputs, inputs]
row = weight[:1]  # [1, inputs]
largest, typical = row.abs().max(), row.abs().median()
print(
    f"largest {largest:.3f}, median {typical:.3f}, 4-bit step {largest / 7:.3f}"
)

# %% [markdown]
# *Predict* from these three numbers: on how many of the 15 points of the 4-bit grid will nearly all of its weights land?

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
for ax, bits in zip(axes, (8, 4), strict=True):
    s = row.abs().max() / (2 ** (bits - 1) - 1)
    ax.hist(row[0].numpy(), bins=60, color=PALETTE[0], edgecolor="black", linewidth=0.3)
    grid = s * torch.arange(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1))
    ax.vlines(grid, -9, -2, color="black", linewidth=0.6)
    title = f"{bits} bits: {len(grid)} grid points (ticks below zero)"
    ax.set(title=title, xlabel="weight", ylim=(-10, None))
axes[0].set_ylabel("weights in the row")
plt.show()
used = round_absmax(row, 4).unique().numel()
inside = (row.abs() < 3.5 * s).float().mean()
print(
    f"With 4 bits, {inside:.0%} of the row's {row.numel()} weights fall on the inner "
    f"7 grid points, and {used} of 15 are used at all."
)

# %% [markdown]
# Most weights are close to zero, and a few large ones set the width. Eight bits are fine enough. With four bits most
# weights share a handful of grid points.

# %% [markdown]
# ## 2. One scale for how many weights?
#
# Give each short *group* of weights its own scale, and a large weight disturbs only its own group. We cut the matrix
# into rows of 64 and measure the *relative error*, the length of $\hat w - w$ over the length of $w$. How much will
# groups help?


# %%
def relative_error(w: torch.Tensor, w_hat: torch.Tensor) -> float:
    return float((w_hat - w).norm() / w.norm())


rows = {}
for bits in (8, 4):
    per_row = round_absmax(weight, bits)
    per_group = round_absmax(weight.reshape(-1, 64), bits).reshape(weight.shape)
    both = {"a scale per row": per_row, "a scale per 64": per_group}
    rows[f"{bits} bits"] = {name: relative_error(weight, w) for name, w in both.items()}
(100 * pd.DataFrame(rows).T).round(2).add_suffix(", error in %")

# %% [markdown]
# From 8 to 4 bits the step gets 18 times coarser (127 / 7), and so does the error. Groups win some of it back, at a
# price: a float32 scale for every 64 weights is half a bit a weight.

# %% [markdown]
# ## 3. NF4: levels where the weights are
#
# The grid need not be even. *NF4* ("normal float, 4 bits"; Dettmers et al., arXiv 2305.14314) has 16 levels that are
# dense around zero, where most weights are, scaled by the largest weight of each block of 64. *Predict:* will the gap
# between its two outermost levels be larger or smaller than the even grid's?

# %%
import logging

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # no report when offline
import bitsandbytes.functional as bnb

nf4 = bnb.get_4bit_type("nf4", device="cpu")  # [16], from -1 to 1
even = torch.arange(-7, 8) / 7  # [15]
blocks = weight.reshape(-1, 64)
scaled = (blocks / blocks.abs().amax(1, keepdim=True)).flatten()

fig, ax = plt.subplots(figsize=(8, 3), layout="constrained")
look = {"bins": 101, "density": True, "color": PALETTE[0], "alpha": 0.5}
ax.hist(scaled.numpy(), label="weights / largest of their block", **look)
look = {"markersize": 14, "markeredgewidth": 2, "label": "NF4 levels"}
ax.plot(nf4, np.full(16, -0.08), "|", color="black", **look)
ax.plot(even, np.full(15, -0.24), "x", color=PALETTE[1], label="even levels")
ax.set(xlabel="weight, scaled to its block", ylabel="density")
ax.legend()
plt.show()
print(
    f"NF4's gaps grow from {nf4.diff().min():.3f} beside zero to "
    f"{nf4.diff().max():.3f} at the edge; the even grid's are all {1 / 7:.3f}."
)

# %% [markdown]
# The outermost gap is about twice the even grid's. To round, divide by the block's largest weight and take the
# nearest level. Does this equal bitsandbytes, the library that `quantize` uses?


# %%
def round_nf4(w: torch.Tensor, block: int = 64) -> torch.Tensor:
    blocks = w.reshape(-1, block)
    s = blocks.abs().amax(dim=-1, keepdim=True)  # [blocks, 1]
    nearest = (blocks / s)[..., None].sub(nf4).abs().argmin(dim=-1)  # 0 to 15
    return (s * nf4[nearest]).reshape(w.shape)


packed, state = bnb.quantize_4bit(weight.contiguous(), blocksize=64, quant_type="nf4")
torch.testing.assert_close(round_nf4(weight), bnb.dequantize_4bit(packed, state))
error = relative_error(weight, round_nf4(weight))
print(f"Our NF4 equals the library's; its relative error here is {error:.2%}.")
print(
    f"{weight.numel():,} weights became {packed.numel():,} bytes "
    f"and {state.absmax.numel():,} scales."
)

# %% [markdown]
# Two weights share a byte. `quantize` also stores the scales in 8 bits (*double quantization*): their cost falls
# from half a bit a weight to about an eighth.

# %% [markdown]
# ## 4. Where our weights come from
#
# <details><summary>Going deeper: one grid on which this model looks better than it is</summary>
#
# The default model's download is a *GGUF* file (the format of llama.cpp) of type Q4_1: each block of 32
# neighbouring weights had already been rounded to 16 evenly spaced values between its minimum and maximum. Loading
# makes float32 of them and brings nothing back.
#
# Rounding once more with the same rule changes nothing: the points are on the grid already. So **never report a
# result of this model on blocks of 32 with minimum and maximum.** The table shows it on one matrix, beside freshly
# drawn normal weights, which have no such history. On the other grids, those of `quantize` among them, the two
# differ little. To start from the original precision, go online and set `MODEL =
# "HuggingFaceTB/SmolLM2-135M-Instruct"`.
# </details>
#
# *Predict:* on which grid will this model's weights differ from fresh normal ones?

# %%
def round_min_max(w: torch.Tensor, bits: int = 4, block: int = 32) -> torch.Tensor:
    blocks = w.reshape(-1, block)
    low, high = blocks.amin(-1, keepdim=True), blocks.amax(-1, keepdim=True)
    step = ((high - low) / (2**bits - 1)).clamp(min=1e-12)
    return (low + step * ((blocks - low) / step).round()).reshape(w.shape)


def round_groups(w: torch.Tensor) -> torch.Tensor:
    return round_absmax(w.reshape(-1, 64), 4).reshape(w.shape)


drawn = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
matrices = {"this model": weight, "fresh normal": drawn * weight.std()}
grids = {
    "4 bits, groups of 64": round_groups,
    "NF4, blocks of 64": round_nf4,
    "min-max, blocks of 32 (the download's)": round_min_max,
}
errors = pd.DataFrame(index=grids)
for name, w in matrices.items():
    errors[f"{name}, error in %"] = [
        100 * relative_error(w, f(w)) for f in grids.values()
    ]
errors.round(2)

# %% [markdown]
# On the grid of its download, where rounding again changes nothing. No result below uses that grid.
#
# ## 5. The whole model: what is the size?
#
# `quantize` rounds only the linear layers: to 8 bits with the library torchao and a scale for each row, to 4 bits with
# bitsandbytes and NF4. *Predict:* with 8 bits instead of 32, is the model four times smaller? We count twice: by the
# usual formula, number of elements times bytes an element, and by `size`, which adds up the memory really held.

# %%
versions = {
    "32 bits": model,
    "8 bits": quantize(model, 8),
    "4 bits": quantize(model, 4),
}
embedding_mb = model.get_input_embeddings().weight.nbytes / 1e6
rows = {}
for name, m in versions.items():
    formula = sum(p.numel() * p.element_size() for p in m.parameters()) / 1e6
    rows[name] = {"formula MB": formula, "real MB": size(m)["memory_bytes"] / 1e6}
sizes = pd.DataFrame(rows).T
sizes["smaller by"] = sizes["real MB"].iloc[0] / sizes["real MB"]
sizes.round(2)

# %% [markdown]
# The formula says that 8 bits save nothing: torchao's weight looks like a float32 tensor, with the integers inside.
# Count storage, not shapes. But the real factors are below 4 and 8, too. Where are the missing megabytes?

# %%
rest = sizes["real MB"] - embedding_mb
table = "embeddings (also the output head)"
parts = pd.DataFrame({"linear layers and norms": rest, table: embedding_mb})
ax = bars(parts, "weights in memory (MB)", number="", stacked=True, figsize=(8, 2.6))
ax.legend(loc="lower right")
plt.show()
share = embedding_mb / sizes["real MB"]
print(
    f"Embeddings keep their {embedding_mb:.0f} MB: {share.iloc[0]:.0%} of the float32 "
    f"model, {share.iloc[-1]:.0%} of the 4-bit one."
)

# %% [markdown]
# The embedding table stays in float32. It is shared with the output head (*tied*), and rounding one of the two would
# make them two tables. In Llama-2-7B both are about 4 % of the weights; in a small model they become the largest
# part.

# %% [markdown]
# ## 6. The grid: pruning times bits
#
# Now both savings together. Layers go in the order of Block Influence. `size_quality_grid` makes nine models, three
# depths times three precisions, and measures their sizes and their perplexity on four documents, one of each of four
# genres: the text that every lesson calls *the four documents*. (`none` keeps 32 bits; `int8` and `nf4` are the 8 and
# 4 bits of section 5.)
#
# *Predict:* which costs more, removing six layers, or going from 32 bits to 4?

# %%
del versions  # the grid makes its own, one at a time
genres = ["encyclopedic", "news", "science", "story"]
four = built_in_text("perplexity").query("genre in @genres").groupby("genre").head(1)
texts = four["text"].tolist()
batches = calibration_batches(tokenizer, built_in_text()["text"])
order = removal_order(score_layers(model, batches, progress=False))
methods = ["none", "int8", "nf4"]
how = {"texts": texts, "progress": False}
grid = size_quality_grid(model, tokenizer, order, [0, 3, 6], methods, **how)
print("layers, in the order in which they go:", order[:9])
for column in ("perplexity", "memory_mb"):
    print(column)
    display(
        grid.pivot(index="removed", columns="method", values=column)[methods].round(1)
    )

# %% [markdown]
# The same nine models as points: left is small, down is good. Numbers say how many layers are gone; the dashed line
# joins the models that no other one beats. *Predict:* which of the nine would you never choose?

# %%
plot_frontier(grid)
plt.show()

# %% [markdown]
# 8 bits are nearly free. From 8 to 4 bits a model gains less memory at a visible cost. Layers cost more: three of
# them more than the whole way from 32 bits to 4.
#
# For decisions we measured more, once, and stored the table (`measure/grid.py`): up to nine layers, two further 4-bit
# methods, and *all eighteen* English documents, so that the dense perplexity is 32.0 there and not the 30.0 of the
# four. Two tasks of 120 items, explained in lesson 05, come with it: `grammar` (guessing gives 50 %) and `last_word`.
# The new methods:
#
# - **rtn4** rounds to the nearest of 15 even levels, one scale for each group of 64: `round_absmax` from above.
# - **gptq** (Frantar et al., arXiv 2210.17323) reads calibration text while it rounds. It goes through a matrix
#   column by column, and after each one it changes the columns still to come so that the *outputs* of the matrix
#   stay close. It is what the paper uses.

# %%
measured = read_grid(data_folder() / "grid.csv")
METHODS = ["none", "int8", "nf4", "gptq", "rtn4"]
first = measured[measured["order"] != "quantize first"]
pruned_first = first.set_index("method").loc[METHODS].reset_index()
for column in ("perplexity", "grammar", "last_word"):
    print(f"{column}: {STORED}")
    wide = pruned_first.pivot(index="removed", columns="method", values=column)
    display(wide[METHODS].round(1))

# %% [markdown]
# `int8` stays beside `none` in all three tables. Among the 4-bit methods perplexity has one order throughout: GPTQ,
# NF4, rtn4. The accuracies, with standard errors of two to five points, confirm only that rtn4 finds the fewest last
# words.

# %% [markdown]
# ## 7. When is a layer worth more than its bits?
#
# A model is worth having if no other is both smaller and better. Such models form the **frontier**. *Predict:* is a
# 32-bit or an 8-bit model with layers removed ever on it?

# %%
plot_frontier(pruned_first).set_title(STORED)
plt.show()

# %% [markdown]
# What does a megabyte cost on each of these steps? We measure the damage by the logarithm of perplexity, the *loss*.
# Its unit, from the natural logarithm, is the *nat*.

# %%
price = pruned_first.set_index(["removed", "method"])
loss, mb = np.log(price["perplexity"]), price["memory_mb"]
steps = {
    "32 to 8 bits": ((0, "none"), (0, "int8")),
    "8 to 4 bits (GPTQ)": ((0, "int8"), (0, "gptq")),
    "3 layers of the 32-bit model": ((0, "none"), (3, "none")),
    "3 layers of the 8-bit model": ((0, "int8"), (3, "int8")),
    "3 layers of the 4-bit model (GPTQ)": ((0, "gptq"), (3, "gptq")),
}
rows = {}
for name, (a, b) in steps.items():
    rows[name] = {"saves MB": mb[a] - mb[b], "costs nats": loss[b] - loss[a]}
prices = pd.DataFrame(rows).T
prices["nats for 100 MB"] = 100 * prices["costs nats"] / prices["saves MB"]
print(STORED)
prices.round(3)

# %% [markdown]
# 8 bits cost next to nothing, and 4 bits are still cheap for what they save. Only then do models with fewer layers
# appear: **no 8-bit and no 32-bit model with layers removed is on the frontier.** A megabyte saved by removing three
# layers of the 4-bit model costs more than twenty times as much as one saved by going from 8 to 4 bits.
#
# So for *memory* a layer is worth more than its bits when there are no bits left to take. (Here embeddings are two
# thirds of a 4-bit model, and layers can't touch them.) For *time* the answer differs, see section 12.
#
# (In the figure `rtn4` is right of `int8`, because torchao keeps each 4-bit value in a byte.)

# %% [markdown]
# *What is the best model that fits?* Set a budget with the slider, or walk along the frontier with the two buttons;
# *judge by* changes the measure. Below which budget does the best model have fewer layers?

# %%
from shortgpt.course.explorers import explore_frontier

print(STORED)
explore_frontier(pruned_first)

# %% [markdown]
# ## 8. Do the losses add up?
#
# Write $\ell(p, q)$ for the mean loss with pruning $p$ and quantization $q$. If the two damages have nothing to do
# with each other (the paper says *orthogonal*), both together cost the sum of the single costs, and the *interaction*
# is zero:
#
# $$ \underbrace{\ell(p, q) - \ell(0, 0)}_{\text{both}} \;-\; \underbrace{[\ell(p, 0) - \ell(0, 0)]}_{\text{pruning alone}} \;-\; \underbrace{[\ell(0, q) - \ell(0, 0)]}_{\text{quantization alone}} $$
#
# By hand, from the table above, for three layers and NF4:

# %%
keys = (3, "nf4"), (3, "none"), (0, "nf4")
both, pruning, rounding = (loss[key] - loss[0, "none"] for key in keys)
extra = both - pruning - rounding
print(f"{STORED}: {both:.3f} - {pruning:.3f} - {rounding:.3f} = {extra:+.3f} nats")

# %% [markdown]
# `added_losses` computes this document by document. *Predict:* will the other interactions be positive as well, and
# will they grow with the number of layers removed? (8 bits add nothing that could be seen, so the figure leaves them
# out.)

# %%
added = added_losses(pruned_first)
four = added[added["method"] != "int8"].sort_values(["removed", "method"])
four.index = [f"{row.method}, −{row.removed}" for row in four.itertuples()]
columns = ["added_by_pruning", "added_by_quantization", "interaction"]
names = ["pruning alone", "quantization alone", "interaction"]
shown = four[columns].set_axis(names, axis=1)
ax = bars(shown, "added loss (nats a token)", "%.2f", figsize=(8, 6.5), title=STORED)
plt.show()
sure = added["interaction"] > 2 * added["interaction_error"]
print(
    f"{(added['interaction'] > 0).sum()} of {len(added)} interactions are positive, "
    f"{sure.sum()} of them by more than two standard errors."
)

# %% [markdown]
# Up to six layers the first two bars tell nearly the whole story: **in the loss, the two damages nearly add up**,
# so in perplexity they nearly multiply. All interactions are positive: the sum is a little too low.
#
# At nine layers it is clearly too low. There, 4 bits cost at least one and a half times what they cost the dense
# model, and with NF4 nearly twice as much.
#
# ## 9. Which first?
#
# We pruned, then quantized. One can also quantize the dense model and remove layers from the result. *Predict:* for
# which of the methods can the order matter at all?

# %%
rows = []
for second in measured[measured["order"] == "quantize first"].itertuples():
    first = price.loc[(second.removed, second.method)]
    difference = np.subtract(second.losses, first["losses"])  # of each document
    change, error = mean_and_error(difference, np.array(second.tokens))
    row = {"method": second.method, "removed": second.removed}
    row |= {"prune first": first["perplexity"], "quantize first": second.perplexity}
    rows.append(row | {"change in nats": change, "s.e.": error})
orders = pd.DataFrame(rows).sort_values(["method", "removed"], ignore_index=True)
print(STORED)
orders.round(4)

# %% [markdown]
# Where each matrix is rounded by itself, the order cannot matter. *GPTQ* depends on the states that reach a matrix.
# With nine layers, quantizing *first* is clearly better in perplexity; with three and six the table shows no
# difference. We have no explanation.
#
# The paper's table 5 is for Llama-2-7B with 27 % of the model removed. MMLU and CMMLU are multiple-choice exams with
# four answers, one in English, one in Chinese. Which order is ahead?

# %%
paper = data_folder() / "paper"
table5 = pd.read_csv(paper / "table5_order.csv").set_index("order")
table5.columns = ["MMLU (English), %", "CMMLU (Chinese), %"]
print("The paper's Llama-2-7B, not our model; guessing gives 25 %")
table5

# %% [markdown]
# Quantizing first is ahead by about a point, from one run each: too little to prefer either order.
#
# ## 10. The paper's table, and what it hides
#
# Table 4 of the paper removes more and more layers from a Llama-2-7B that GPTQ had quantized. We draw it beside our
# 4-bit models, each relative to its own unpruned 4-bit model. Do the two panels tell the same story?

# %%
table4 = pd.read_csv(paper / "table4_gptq.csv")
by_gptq = measured[
    (measured["method"] == "gptq") & (measured["order"] != "prune first")
]
ours = by_gptq.sort_values("removed")  # quantized first, as in the paper
share = 100 * ours["removed"] / 30  # the default model's layers
paper_share = 100 - 100 * table4["kept_layers"] / table4["kept_layers"].iloc[0]
rise, paper_rise = (each / each.iloc[0] for each in (ours["perplexity"], table4["ppl"]))

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
name = "Llama-2-7B, GPTQ (the paper)"
left.plot(paper_share, paper_rise, "o-", color=PALETTE[0], label=name)
left.plot(share, rise, "s--", color=PALETTE[1], label=f"{STORED}: GPTQ")
left.set(ylabel="perplexity (unpruned = 1)", ylim=(0, None))
right.plot(paper_share, table4["mmlu"], "o-", color=PALETTE[0], label=name)
right.axhline(25, color="black", linestyle=":", label="guessing")
right.set(ylabel="MMLU (percent)", ylim=(0, 50))
for ax in (left, right):
    ax.set_xlabel("layers removed (percent)")
    ax.legend(fontsize=9, loc="best" if ax is left else "lower left")
plt.show()
start, end = table4["mmlu"].iloc[[0, -1]]
print(
    f"In the paper, perplexity rises {paper_rise.iloc[-1]:.1f} times while MMLU goes "
    f"from {start:.1f} to {end:.1f}; ours rises {rise.iloc[-1]:.1f} times."
)

# %% [markdown]
# The perplexity of the paper's model rises fivefold, most of it in the last steps, and MMLU does not move. (Ours
# rises earlier, and less near 30 %.) MMLU alone says that nine layers of 32 were not needed. Perplexity alone says
# that the model fell apart. Both are measured on the same models. **A pruned model needs more than one measure**:
# lesson 05.

# %% [markdown]
# ## 11. Save it, reload it, let it write
#
# Some quantization libraries write, on some processors, files that reload without a warning as garbage. So `save`
# writes an ordinary checkpoint, then reloads it and compares logits. We repeat that check with the pruned 8-bit model.
#
# *Try it:* change `bits` to 4, and `order[:3]` to `order[:6]`, and compare what it writes.

# %%
import tempfile

PROMPT = "The lighthouse keeper climbed the stairs every evening to"
small = quantize(remove_layers(model, order[:3]), bits=8)
with tempfile.TemporaryDirectory() as folder:
    path = save(small, f"{folder}/pruned-8bit", tokenizer=tokenizer)
    cost = size(small, path)
    reloaded, _ = load(path, device="cpu")

probe = tokenizer(PROMPT, return_tensors="pt")
with torch.inference_mode():
    torch.testing.assert_close(reloaded(**probe).logits, small(**probe).logits)
memory, disk = cost["memory_bytes"] / 1e6, cost["disk_bytes"] / 1e6
print(f"{memory:.0f} MB in memory, {disk:.0f} MB on disk, the same logits reloaded")
text = continue_text(reloaded, tokenizer, PROMPT, new_tokens=24).strip()
print(f"{PROMPT} … {text}")

# %% [markdown]
# ## 12. Is it faster?
#
# On a CPU an 8-bit weight is turned back into a float before it is multiplied: less memory to read, more work. A
# removed layer is work that nobody does any more. `speed_table` measures reading a prompt (*prefill*) and writing
# token by token (*decode*). *Predict:* which of the four models writes fastest? (The times are from the machine that
# built this page.)

# %% tags=["volatile"]
del small, reloaded
candidates = {"32 bits": model, "8 bits": quantize(model, 8), "4 bits": quantize(model, 4), "32 bits, −6 layers": remove_layers(model, order[:6])}
timed = speed_table(candidates, prompt_tokens=128, new_tokens=12, batch_sizes=[1], repeats=5, memory=False, progress=False)
wide = timed.pivot(index="model", columns="phase", values=["tokens_per_second", "relative"]).loc[list(candidates)].round(2)
wide.columns = [f"{phase}, {what.replace('_', ' ')}" for what, phase in wide.columns]
wide

# %% [markdown]
# `relative` is the median, over rounds, of the speed by that of the first model in the same round. Now a frontier with
# milliseconds for each written token, measured by `measure/speeds.py` on a machine with nothing else to do: *predict*
# which of the eight models are on it.

# %%
stored = pd.read_csv(data_folder() / "speeds.csv")
stored = stored.query("batch_size == 1 and phase == 'decode'")
seconds = stored[["method", "removed", "seconds"]]
by_time = pruned_first.merge(seconds, on=["method", "removed"])
by_time["ms a token"] = 1000 * by_time["seconds"]
plot_frontier(by_time, x="ms a token").set_title(STORED)
plt.show()
print("Measured on:", stored["processor"].iloc[0])

# %% [markdown]
# No quantized model is on it: each writes more slowly than the model that it was made from, while removing layers
# makes all of them faster, by about a fifth. So a layer is worth more than its bits when *time* is short and bits must
# be unpacked before multiplying.
#
# **Quantization saves memory for certain, and time perhaps; removing layers saves both**, though rarely in proportion:
# with nine of 32 layers gone 1.39 times the speed would be proportional, and on its quantized model the paper measured
# 1.19 (table 4). On a GPU, with kernels made for it, 4 bits can also be much faster.

# %% [markdown]
# ## Exercises
#
# Try these four functions first in the [exercise notebook](exercises/04_quantization.ipynb), where a check tells you
# what is wrong with yours. Here they are solved.

# %% [markdown]
# ### Exercise 1: How many bits does a weight take?
#
# **Difficulty:** easy · **Minutes:** 5
#
# With "4-bit" weights, every group also stores a scale, and in some methods a zero point. A weight matrix has the shape `[outputs, inputs]`. Each row is cut into groups of `group` neighbours, and the last group of a row may be shorter. Return how many bits are stored for each weight, on average: its own `bits`, and its share of the `scale_bits` and `zero_bits` that each group needs.
#
# <details><summary>Hint 1</summary>
# Count for one row: all rows are alike, so the number of outputs plays no part.
# </details>
# <details><summary>Hint 2</summary>
# How many groups do 50 inputs make, if a group has 16? Not 3.125: a group of two weights needs a whole scale.
# </details>


# %% tags=["exercise"]
def bits_per_weight(shape, bits, group, scale_bits, zero_bits):
    """Bits stored for each weight of a matrix, scales and zero points included."""
    ### BEGIN SOLUTION
    inputs = shape[1]
    groups = (inputs + group - 1) // group  # of one row, rounded up
    return bits + groups * (scale_bits + zero_bits) / inputs
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_bits_per_weight, require_passed

check_bits_per_weight(bits_per_weight)

# %% tags=["apply"]
require_passed(bits_per_weight)
layers = decoder_layers(model)
shape = list(layers[len(layers) // 2 - 1].mlp.up_proj.weight.shape)  # [outputs, inputs]
for group in (shape[1], 128, 64, 32, 16, 8):
    stored = bits_per_weight(shape, 4, group, scale_bits=16, zero_bits=0)
    print(f"{shape[0]} x {shape[1]} in groups of {group:3}: {stored:.2f} bits a weight")

# %% [markdown]
# With a 16-bit scale for every eight weights, the "4-bit" matrix takes half as much again. Ask of every reported
# number of bits whether the scales are in it.

# %% [markdown]
# ### Exercise 2: Round in groups
#
# **Difficulty:** medium · **Minutes:** 10
#
# Section 1 rounded a row with one scale. Now each group of `group` neighbours in a row has its own: the largest
# absolute value of the group is at the end of the grid, whose integers run from $-q_{max}$ to $q_{max}$ with
# $q_{max} = 2^{b-1}-1$. Return the rounded weights, as floats and in the shape of `weight`, `[outputs, inputs]`. The
# number of inputs is a multiple of `group`. A group may be all zeros, and then it stays so.
#
# <details><summary>Hint 1</summary>
# Can you give the matrix another shape, in which each row is one group? Neighbours in memory are neighbours in a
# row.
# </details>
# <details><summary>Hint 2</summary>
# The scale of a group of zeros is 0, and you divide by it. What would a tiny positive scale give?
# </details>


# %% tags=["exercise"]
def round_in_groups(weight, bits, group):
    """The weights, each moved to the nearest point of its group's grid."""
    ### BEGIN SOLUTION
    q_max = 2 ** (bits - 1) - 1
    groups = weight.reshape(-1, group)  # a group a row
    scale = (groups.abs().amax(dim=-1, keepdim=True) / q_max).clamp(min=1e-12)
    return (scale * (groups / scale).round()).reshape(weight.shape)
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_round_in_groups

check_round_in_groups(round_in_groups)

# %% tags=["apply"]
require_passed(round_in_groups)
layers = decoder_layers(model)
matrix = layers[len(layers) // 2 - 1].mlp.up_proj.weight.detach()  # [outputs, inputs]
for group in (matrix.shape[1], 64, 32, 16):
    error = (round_in_groups(matrix, 4, group) - matrix).norm() / matrix.norm()
    print(f"groups of {group:3}: the error is {error:.1%} of the matrix")

# %% [markdown]
# The smaller the group, the smaller its largest weight, and the finer its grid. Every grouped format makes this
# trade: bits for scales, or bits for weights.

# %% [markdown]
# ### Exercise 3: The models worth keeping
#
# **Difficulty:** medium · **Minutes:** 10
#
# `sizes` and `perplexities` are two lists with an entry for each model. A model is *beaten* if another one is at most as large, has at most the same perplexity, and differs in one of the two. Return the positions (0-based) of the models that none beats, the smallest model first. No two models are equal in both.
#
# <details><summary>Hint 1</summary>
# Go through the models from the smallest to the largest. What must a larger model offer to stay?
# </details>
# <details><summary>Hint 2</summary>
# Sort by size, and where sizes are equal by perplexity. Then remember one number: the lowest perplexity so far.
# </details>


# %% tags=["exercise"]
def best_models(sizes, perplexities):
    """Positions of the models that no other model beats, the smallest first."""
    ### BEGIN SOLUTION
    by_size = sorted(range(len(sizes)), key=lambda i: (sizes[i], perplexities[i]))
    kept, lowest = [], float("inf")
    for i in by_size:
        if perplexities[i] < lowest:
            kept.append(i)
            lowest = perplexities[i]
    return kept
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_best_models

check_best_models(best_models)

# %% tags=["apply"]
require_passed(best_models)
stored = read_grid(data_folder() / "grid.csv").query("order != 'quantize first'")
kept = best_models(stored["memory_mb"].tolist(), stored["perplexity"].tolist())
print(STORED)
for row in stored.iloc[kept].itertuples():
    print(
        f"{row.memory_mb:4.0f} MB  perplexity {row.perplexity:6.1f}  "
        f"{row.method}, {row.removed} layers removed"
    )

# %% [markdown]
# It is the frontier of section 7. Two neighbours that differ by less than their standard errors could change places
# with another text.

# %% [markdown]
# ### Exercise 4: Do the losses add up?
#
# **Difficulty:** hard · **Minutes:** 15
#
# The four arguments are tensors `[documents]`: the mean loss (nats a token) of each document under the dense model, a pruned one, a quantized one, and one that is both, for the same documents in the same order. Return two numbers: the interaction, that is, what *both* costs beyond the sum of what the two cost alone (each cost is counted from the dense model), as a mean over documents; and the standard error of this mean.
#
# <details><summary>Hint 1</summary>
# Some documents are hard for all four models. Which differences make that drop out?
# </details>
# <details><summary>Hint 2</summary>
# Compute the interaction of each document, and you have one number a document. The standard error of their mean is their standard deviation (dividing by the number less one) over the square root of the number.
# </details>


# %% tags=["exercise"]
def interaction(dense, pruned, quantized, both):
    """What both cost beyond the sum of the two, and its standard error (nats)."""
    ### BEGIN SOLUTION
    each = (both - dense) - (pruned - dense) - (quantized - dense)  # [documents]
    return each.mean(), each.std() / len(each) ** 0.5
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_interaction

check_interaction(interaction)

# %% tags=["apply"]
require_passed(interaction)
table = read_grid(data_folder() / "grid.csv").query("order != 'quantize first'")
per_token = {}
for row in table.itertuples():
    losses = torch.tensor(row.losses) / torch.tensor(row.tokens)
    per_token[row.removed, row.method] = losses
for removed in (3, 6, 9):
    keys = [(0, "none"), (removed, "none"), (0, "nf4"), (removed, "nf4")]
    extra, error = interaction(*(per_token[key] for key in keys))
    print(f"{STORED}: {removed} layers and NF4: {extra:+.3f} ± {error:.3f} nats more")

# %% [markdown]
# `added_losses` in section 8 weighs documents by their length, so its numbers differ a little. An error computed from
# the four losses one by one would be many times larger: it would count how much documents differ from each other.

# %% [markdown]
# ## What we saw
#
# - Rounding to 8 bits with one scale a row hardly changes perplexity, at any depth we tried.
# - 4 bits cost visibly more on a model this small, but less than removing three layers. Reading text while rounding
#   (GPTQ) helps; simple rounding in groups costs most.
# - For memory, bits come first. For time it was the other way round, on the processor that we measured.
# - Pruning and quantization nearly add up in the loss. At nine layers, 4 bits cost half as much again as on the dense
#   model, or more.
# - The order of the two cannot matter when matrices are rounded one by one. With GPTQ it did once, at nine layers.
# - The real saving is smaller than the number of bits promises, because embeddings stay in full precision.
#
# > **Limits.** One model of 135 million parameters whose weights had been rounded to 4 bits before, eighteen short
# > documents, one calibration text for GPTQ, one processor for the times. Question 7 of [the ten
# > questions](20_ten_questions.ipynb) puts the same grid to a model of 1.5 billion.

# %% [markdown]
# ## Three questions
#
# **1.** One weight in a row of 576 is fifty times larger than all others. What happens to the other 575 with absmax per row and 4 bits, and what with groups of 64?
#
# <details><summary>Answer</summary>The step is a seventh of the outlier, about seven times a typical weight, so all 575 others round to zero. With groups of 64 this happens only to the 63 neighbours in the outlier's group.</details>
#
# **2.** Someone reports that 4-bit quantization of *our default model* with min-max blocks of 32 has no loss at all, and concludes that 4 bits are enough for small models. What is wrong?
#
# <details><summary>Answer</summary>The weights came from a file that had rounded them on exactly this grid. The loss had happened before, in the making of the download; rounding again on the same grid only finds the grid. The test needs a model in its original precision, or another grid.</details>
#
# **3.** Pruning alone multiplies perplexity by 1.5, NF4 alone by 1.2. What do you expect of both, if the losses are additive in the loss?
#
# <details><summary>Answer</summary>Adding logarithms is multiplying: 1.5 × 1.2 = 1.8. An interaction would show as a factor different from 1.8.</details>

# %% [markdown]
# **Check yourself.** Three more questions: press a letter (or reach it with Tab and press Space). In a saved notebook, unfold the line below.

# %%
from shortgpt.course.quiz import quiz

quiz("04")

# %% [markdown]
# **Next:** [05 · Evaluation: perplexity, choice and generation](05_evaluation.ipynb) · **Previous:** [03 · Pruning](03_pruning.ipynb)
