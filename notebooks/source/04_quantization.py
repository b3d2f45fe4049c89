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
# Removing layers makes a model *shorter*. Storing each remaining weight in fewer bits makes it *thinner*. The two savings multiply, because they touch different things: how many weights there are, and how many bits each one takes. The question of this lesson is whether the two *losses* multiply as well (ShortGPT, section 4.5).
#
# **You will be able to**
#
# - round a weight matrix to 8 or 4 bits by hand, and say where the error comes from;
# - quantize a pruned model with `quantize`, and count its real size;
# - compute whether the losses of pruning and quantization add up;
# - save a pruned, quantized model and check that what reloads is what you saved.
#
# **Before:** [lesson 03](03_pruning.ipynb) (removing layers, perplexity) · **Takes:** about 6 minutes on 2 CPU cores · **Memory:** about 4 GB · **Download:** 93 MB once (shared by all lessons)

# %% [markdown]
# Run this cell first. On Colab it installs the package; elsewhere it only prints versions, so that you can compare yours with ours.

# %% tags=["setup"]
import sys

if "google.colab" in sys.modules:  # Colab: add what its image lacks, and leave what it has at its version
    from importlib.metadata import version
    from pathlib import Path

    present = ["torch", "numpy", "pandas", "transformers", "ipywidgets", "matplotlib"]
    Path("/tmp/present.txt").write_text("\n".join(f"{name}=={version(name)}" for name in present))
    project = "shortgpt-pruning[eval,quant] @ git+https://github.com/shortgpt-course/shortgpt"
    get_ipython().run_line_magic("pip", f"install -q -c /tmp/present.txt '{project}'")

import torch
import transformers

import shortgpt

print(f"shortgpt {shortgpt.__version__}, torch {torch.__version__}, transformers {transformers.__version__}")

# %% [markdown]
# One variable names the model. Everything below follows from it.

# %%
import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display

from shortgpt import (
    built_in_text, calibration_batches, choose_layers, continue_text, decoder_layers, load, perplexity_table,
    quantize, remove_layers, save, score_layers, size, speed,
)  # fmt: skip
from shortgpt.plots import PALETTE, plot_size_quality

MODEL = "smollm2-135m-instruct"  # or a Hub id such as "Qwen/Qwen2.5-0.5B"
model, tokenizer = load(MODEL, device="cpu")  # the cells below use plain CPU tensors

# %% [markdown]
# Several figures below are horizontal bars, so one small function draws them, with hatches for readers who don't see the colours.


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
# Almost all weights of a language model sit in its *linear layers*: matrices that multiply the hidden state. Here each weight is a float32 number, 32 bits. An 8-bit integer has 256 possible values, a 4-bit integer has 16. To *quantize* is to put a grid of so few values under the weights and move every weight to the nearest grid point.
#
# The simplest grid is evenly spaced, symmetric around zero, and just wide enough for the largest weight. With $b$ bits the integers run from $-q_{max}$ to $q_{max}$, where $q_{max} = 2^{b-1}-1$:
#
# $$ s = \frac{\max_j |w_j|}{q_{max}} \qquad q_j = \mathrm{round}\!\left(\frac{w_j}{s}\right) \qquad \hat w_j = s\, q_j $$
#
# Only the small integers $q_j$ and one *scale* $s$ a row are stored. This rule is called *absmax*.


# %%
def round_absmax(w: torch.Tensor, bits: int) -> torch.Tensor:
    """Round every row of w to an evenly spaced grid that its largest weight fits in."""
    q_max = 2 ** (bits - 1) - 1  # 127 for 8 bits, 7 for 4 bits
    s = w.abs().amax(dim=-1, keepdim=True) / q_max  # [rows, 1]
    q = (w / s).round()  # [rows, columns], whole numbers from -q_max to q_max
    return s * q


# %% [markdown]
# Try it on four numbers first, with 4 bits. The largest weight is 0.70, so the scale is $0.70 / 7 = 0.10$. *Predict:* where do 0.23 and 0.04 end up, and how large can the error of one weight be at most?

# %%
w = torch.tensor([[0.70, -0.32, 0.23, 0.04]])
w_hat = round_absmax(w, bits=4)
print("weights  ", [round(x, 4) for x in w[0].tolist()])
print("rounded  ", [round(x, 4) for x in w_hat[0].tolist()])
print("errors   ", [round(x, 4) for x in (w_hat - w)[0].tolist()])
assert (w_hat - w).abs().max() <= 0.10 / 2 + 1e-6  # never more than half a step

# %% [markdown]
# No weight moves by more than half a step. That is small for 0.70 and everything for 0.04, which became zero: **the step is set by the largest weight of the row, and the small weights pay for it.**
#
# Now a row of the real model: one output channel of a feed-forward matrix (`mlp.up_proj`) in the middle of the network. *Predict* from the three printed numbers: on how many of the 15 points of the 4-bit grid will nearly all of its weights land?

# %%
LAYER = 14
weight = decoder_layers(model)[LAYER].mlp.up_proj.weight.detach()  # [outputs, inputs]
row = weight[:1]  # [1, inputs]
print(f"largest {row.abs().max():.3f}, typical (median) {row.abs().median():.3f}, 4-bit step {row.abs().max() / 7:.3f}")

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
for ax, bits in zip(axes, (8, 4), strict=True):
    s = row.abs().max() / (2 ** (bits - 1) - 1)
    ax.hist(row[0].numpy(), bins=60, color=PALETTE[0], edgecolor="black", linewidth=0.3)
    grid = s * torch.arange(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1))
    ax.vlines(grid, -9, -2, color="black", linewidth=0.6)
    ax.set(title=f"{bits} bits: {len(grid)} grid points (ticks below zero)", xlabel="weight", ylim=(-10, None))
axes[0].set_ylabel("weights in the row")
plt.show()
used = round_absmax(row, 4).unique().numel()
inside = (row.abs() < 3.5 * s).float().mean()
print(
    f"With 4 bits, {inside:.0%} of the row's {row.numel()} weights fall on the inner 7 grid points, and {used} of 15 are used at all."
)

# %% [markdown]
# Weights crowd around zero, and the few at the edges dictate the width. Eight bits are fine enough not to mind. Four bits are not: most weights share a handful of grid points.

# %% [markdown]
# ## 2. One scale for how many weights?
#
# A remedy follows at once: give each short *group* of weights its own scale, so that one large weight spoils its own group only. The function is already the right one, since it treats rows separately: cut the matrix into rows of 64 first. We measure the damage as *relative error*, the length of $\hat w - w$ over the length of $w$.


# %%
def relative_error(w: torch.Tensor, w_hat: torch.Tensor) -> float:
    return float((w_hat - w).norm() / w.norm())


for bits in (8, 4):
    per_row = round_absmax(weight, bits)
    per_group = round_absmax(weight.reshape(-1, 64), bits).reshape(weight.shape)
    print(f"{bits} bits: error {relative_error(weight, per_row):6.2%} with a scale per row of {weight.shape[1]}, "
          f"{relative_error(weight, per_group):6.2%} with a scale per group of 64")  # fmt: skip

# %% [markdown]
# Going from 8 to 4 bits makes the step 18 times coarser (127 / 7), and the error follows. Groups win some of it back, at a price: a float32 scale for every 64 weights is half a bit a weight.

# %% [markdown]
# ## 3. NF4: levels where the weights are
#
# The second remedy is a grid that isn't even. If weights are roughly normal, then levels should be dense around zero and sparse outside. *NF4* ("normal float, 4 bits", from QLoRA) is such a list of 16 levels, scaled by the largest weight of each block of 64. *Predict:* will the gap between its two outermost levels be larger or smaller than the even grid's?

# %%
import bitsandbytes.functional as bnb

nf4 = bnb.get_4bit_type("nf4", device="cpu")  # [16], from -1 to 1
even = torch.arange(-7, 8) / 7  # [15]
scaled = (weight.reshape(-1, 64) / weight.reshape(-1, 64).abs().amax(1, keepdim=True)).flatten()

fig, ax = plt.subplots(figsize=(8, 3), layout="constrained")
ax.hist(scaled.numpy(), bins=101, density=True, color=PALETTE[0], alpha=0.5, label="weights / largest of their block")
ax.plot(nf4, np.full(16, -0.08), "|", color="black", markersize=14, markeredgewidth=2, label="NF4 levels")
ax.plot(even, np.full(15, -0.24), "x", color=PALETTE[1], label="even levels")
ax.set(xlabel="weight, scaled to its block", ylabel="density")
ax.legend()
plt.show()
print(
    f"NF4's gaps grow from {nf4.diff().min():.3f} beside zero to {nf4.diff().max():.3f} at the edge; the even grid's are all {1 / 7:.3f}."
)

# %% [markdown]
# Rounding to NF4 means dividing by the block's largest weight and taking the nearest level. We write it out, and check it against the library that will do the work for us, bitsandbytes.


# %%
def round_nf4(w: torch.Tensor, block: int = 64) -> torch.Tensor:
    blocks = w.reshape(-1, block)
    s = blocks.abs().amax(dim=-1, keepdim=True)  # [blocks, 1]
    nearest = (blocks / s)[..., None].sub(nf4).abs().argmin(dim=-1)  # [blocks, block], 0 to 15
    return (s * nf4[nearest]).reshape(w.shape)


packed, state = bnb.quantize_4bit(weight.contiguous(), blocksize=64, quant_type="nf4")
torch.testing.assert_close(round_nf4(weight), bnb.dequantize_4bit(packed, state))
print(f"Our NF4 equals the library's; its relative error here is {relative_error(weight, round_nf4(weight)):.2%}.")
print(
    f"The library packs two weights in a byte: {weight.numel():,} weights became {packed.numel():,} bytes and {state.absmax.numel():,} scales."
)

# %% [markdown]
# The scales can themselves be stored in 8 bits, with scales of their own. This is *double quantization*; it takes the overhead from half a bit a weight to about an eighth of a bit.

# %% [markdown]
# ## 4. A confession about this model
#
# Before we believe any 4-bit number we must look at where our weights come from. The default model is distributed as a small download, a *GGUF* file of type Q4_1. That format had already rounded each block of 32 neighbouring weights (along the inputs) to 16 evenly spaced values between the block's minimum and maximum. Loading turns them back into float32, but nobody can bring back what was lost. *Predict:* how many different values does a block of 32 hold?

# %%
blocks = weight.reshape(-1, 32)  # [blocks, 32]
distinct = torch.tensor([len(block.unique()) for block in blocks[:5000]])
values, low, high = blocks[0], blocks[0].min(), blocks[0].max()

fig, ax = plt.subplots(figsize=(8, 3), layout="constrained")
ax.hlines(torch.linspace(low, high, 16), 0, 33, color="black", linewidth=0.5)
ax.plot(range(1, 33), values, "o", color=PALETTE[0])
ax.set(xlabel="position in the block of 32 weights", ylabel="weight")
plt.show()
print(
    f"All 32 points lie on 16 evenly spaced lines: the blocks hold {distinct.float().mean():.1f} different values on average and at most {distinct.max()}."
)

# %% [markdown]
# What follows from it? Rounding such weights to *their own* grid again changes almost nothing, and would look like a miracle. To see the trap, we round the real matrix and a freshly drawn normal one of the same size with five methods. `round_min_max` is the grid of the download.


# %%
def round_min_max(w: torch.Tensor, bits: int = 4, block: int = 32) -> torch.Tensor:
    blocks = w.reshape(-1, block)
    low, high = blocks.amin(-1, keepdim=True), blocks.amax(-1, keepdim=True)
    step = (high - low) / (2**bits - 1)
    return (low + step * ((blocks - low) / step).round()).reshape(w.shape)


# %% [markdown]
# The fresh matrix has the same shape and spread, and no history.

# %%
fresh = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * weight.std()
methods = {
    "8 bits, a scale per row": lambda w: round_absmax(w, 8),
    "4 bits, a scale per row": lambda w: round_absmax(w, 4),
    "4 bits, groups of 64": lambda w: round_absmax(w.reshape(-1, 64), 4).reshape(w.shape),
    "NF4, blocks of 64": round_nf4,
    "min-max, blocks of 32 (Q4_1)": round_min_max,
}
matrices = {"this model's weights": weight, "fresh normal weights": fresh}
errors = pd.DataFrame(
    {name: {label: relative_error(w, f(w)) for label, w in matrices.items()} for name, f in methods.items()}
).T
bars(100 * errors, "relative error (percent)", "%.2f", figsize=(8, 3.6))
plt.show()
own, other = errors.iloc[-1]
assert (errors.iloc[:-1, 0] / errors.iloc[:-1, 1] - 1).abs().max() < 0.1
print(
    f"On the download's own grid this model's weights move by {own:.2%}, fresh weights by {other:.2%}; on the other four grids the two differ by less than a tenth."
)

# %% [markdown]
# So the rule for this model is: **never report a result on blocks of 32 with minimum and maximum**, it would be nearly free by construction. The two methods that `quantize` offers use other grids (a scale per row for 8 bits, NF4 in blocks of 64 for 4 bits), and there this model's weights behave like fresh ones. One caveat stays: our "float32" model is itself a rounded one. When you are online, set `MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"` to start from the original precision.

# %% [markdown]
# ## 5. The whole model: what is the size?
#
# `quantize` rounds the linear layers and leaves the rest alone. *Predict:* with 8 bits instead of 32, is the model four times smaller? We count twice: the formula that one finds everywhere, number of elements times bytes an element, and `size`, which adds up the memory that is really held.

# %%
versions = {"32 bits": model, "8 bits": quantize(model, 8), "4 bits": quantize(model, 4)}
embedding_mb = model.get_input_embeddings().weight.nbytes / 1e6
sizes = pd.DataFrame({
    "formula MB": {name: sum(p.numel() * p.element_size() for p in m.parameters()) / 1e6 for name, m in versions.items()},
    "real MB": {name: size(m)["memory_bytes"] / 1e6 for name, m in versions.items()},
})  # fmt: skip
sizes["smaller by"] = sizes["real MB"].iloc[0] / sizes["real MB"]
sizes.round(2)

# %% [markdown]
# The formula claims that 8 bits save nothing: a torchao weight introduces itself as a float32 tensor of the old shape, with the integers hidden inside. With 4 bits it sees the packed bytes, but not the scales. Count storage, not shapes.
#
# And still the real factors fall short of 4 and 8. Where are the missing megabytes?

# %%
rest = sizes["real MB"] - embedding_mb
parts = pd.DataFrame({"linear layers and norms": rest, "embeddings (also the output head)": embedding_mb})
bars(parts, "weights in memory (MB)", number="", stacked=True, figsize=(8, 2.6)).legend(loc="lower right")
plt.show()
print(f"Embeddings keep their {embedding_mb:.0f} MB: {embedding_mb / sizes['real MB'].iloc[0]:.0%} of the float32 model, {embedding_mb / sizes['real MB'].iloc[-1]:.0%} of the 4-bit one; "
      f"the rest shrinks by {rest.iloc[0] / rest.iloc[1]:.1f} and {rest.iloc[0] / rest.iloc[2]:.1f} times.")  # fmt: skip

# %% [markdown]
# The embedding table stays in float32. It is shared with the output head (*tied*), and rounding one of the two would only split them into two tables. In a model of seven billion parameters embeddings are a few percent of the weights and nobody notices; in a small model they become the largest piece.

# %% [markdown]
# ## 6. The grid: pruning times bits
#
# Now both savings together. First the pruning plan: score the layers by Block Influence and order them, as in lesson 03.

# %%
scores = score_layers(model, calibration_batches(tokenizer, samples=8), progress=False)
plans = {n: choose_layers(scores, n=n) for n in (0, 3, 6)}
genres = ["encyclopedic", "news", "science", "story"]
texts = built_in_text("perplexity").query("genre in @genres").groupby("genre").head(1)
for n, plan in plans.items():
    print(f"remove {n}: layers {sorted(plan.removed)}")

# %% [markdown]
# Nine models: three depths times three precisions. For each we keep the size, the perplexity on four documents (one of each of four genres), and a sentence that it writes. *Predict:* which costs more, removing six layers, or going from 32 bits to 4?

# %%
PROMPT = "The lighthouse keeper climbed the stairs every evening to"


def measure(candidate, removed: int, bits: int) -> pd.DataFrame:
    """One row a document: its mean loss (the log of its perplexity), and the model's size and writing."""
    megabytes = size(candidate)["memory_bytes"] / 1e6
    table = perplexity_table(candidate, tokenizer, texts, by="genre")
    table["loss"] = np.log(table["perplexity"])
    text = continue_text(candidate, tokenizer, PROMPT, new_tokens=16)
    return table[["genre", "loss", "tokens"]].assign(removed=removed, bits=bits, memory_mb=megabytes, text=text)


# %% [markdown]
# Size is taken before the model runs. Then the double loop; no weights are copied for the pruned models, and each quantized one is thrown away after its turn.

# %%
parts = []
for n, plan in plans.items():
    pruned = remove_layers(model, plan)
    for bits in (32, 8, 4):
        parts.append(measure(pruned if bits == 32 else quantize(pruned, bits), n, bits))
documents = pd.concat(parts, ignore_index=True)

# %% [markdown]
# Perplexity is `exp` of the mean loss a token, so we average losses (weighted by tokens) before we take the exponential.


# %%
def to_perplexity(documents: pd.DataFrame) -> float:
    return float(np.exp(np.average(documents["loss"], weights=documents["tokens"])))


keys = ["removed", "bits"]
grid = documents.groupby(keys, sort=False)[["memory_mb", "text"]].first()
grid["perplexity"] = [to_perplexity(rows) for _, rows in documents.groupby(keys, sort=False)]
grid = grid.reset_index()
display(grid.pivot(index="removed", columns="bits", values="perplexity")[[32, 8, 4]].round(2))
display(grid.pivot(index="removed", columns="bits", values="memory_mb")[[32, 8, 4]].round(1))

# %% [markdown]
# The same nine models as points in a plane: left is small, down is good. A model is worth having if no other is both smaller and better.

# %%
plot_size_quality(grid)
plt.show()

# %% [markdown]
# Follow the steps. From 32 to 8 bits a point moves far to the left and hardly up: 8 bits are nearly free. From 8 to 4 bits it gains much less memory and pays for it visibly. Removing layers from a float32 model is, seen from size alone, a bad bargain next to 8 bits: so quantize first in your *thinking*, and prune when you want what quantization does not give, fewer computations a token.
#
# A small explorer over the nine models; `row_of(removed, bits)` gives the same without a widget, so you can also edit the numbers in the cell after it and run that.


# %%
def row_of(removed: int, bits: int) -> None:
    row = grid[(grid["removed"] == removed) & (grid["bits"] == bits)].iloc[0]
    print(f"{removed} layers removed, {bits} bits: {row['memory_mb']:.0f} MB, perplexity {row['perplexity']:.1f}")
    print(f"  {PROMPT} … {' '.join(row['text'].split())}")


choices = {
    "removed": widgets.Dropdown(options=[0, 3, 6], value=3, description="removed"),
    "bits": widgets.Dropdown(options=[32, 8, 4], value=8, description="bits"),
}
display(*choices.values(), widgets.interactive_output(row_of, choices))

# %% [markdown]
# Without a widget, three layers removed, in all three precisions:

# %%
for bits in (32, 8, 4):
    row_of(removed=3, bits=bits)

# %% [markdown]
# ## 7. Do the losses add up?
#
# Perplexity is an exponential, so the fair question is about its logarithm, the loss (its unit, from the natural logarithm, is the *nat*). Write $\ell(p, b)$ for the mean loss with pruning $p$ and bits $b$. If the two damages have nothing to do with each other, then doing both costs the sum of the single costs, and the *interaction* is zero:
#
# $$ \underbrace{\ell(p, b) - \ell(0, 32)}_{\text{both}} \;-\; \underbrace{[\ell(p, 32) - \ell(0, 32)]}_{\text{pruning alone}} \;-\; \underbrace{[\ell(0, b) - \ell(0, 32)]}_{\text{quantization alone}} $$
#
# All models read the same documents, so we compute it per document and look at how much the documents differ: a paired comparison. *Predict its sign:* does a pruned model, which has fewer layers to repair an error, suffer more from rounding, or less?

# %%
loss = documents.set_index(["removed", "bits", "genre"])["loss"].sort_index()
rows = []
for n in (3, 6):
    for bits in (8, 4):
        prune, rounding = loss[n, 32] - loss[0, 32], loss[0, bits] - loss[0, 32]
        interaction = loss[n, bits] - loss[0, 32] - prune - rounding
        rows.append({"removed": n, "bits": bits, "pruning": prune.mean(), "quantization": rounding.mean(),
                     "interaction": interaction.mean(), "s.e.": interaction.sem()})  # fmt: skip
costs = pd.DataFrame(rows)
costs.round(4)

# %% [markdown]
# The same table as bars. Where the third bar of a group is short beside the other two, "add the losses" is a good forecast.

# %%
costs.index = [f"−{r.removed} layers, {r.bits} bits" for r in costs.itertuples()]
bars(costs[["pruning", "quantization", "interaction"]].round(3) + 0.0, "added loss (nats a token)", "%.3f", figsize=(8, 3.6))
plt.show()
worst = costs.loc[costs["interaction"].abs().idxmax()]
print(f"The largest interaction is {worst['interaction']:+.3f} ± {worst['s.e.']:.3f} nats, at {worst['removed']:.0f} layers and {worst['bits']:.0f} bits, "
      f"next to {worst['pruning']:.2f} for pruning and {worst['quantization']:.2f} for quantization.")  # fmt: skip
sure = (costs["interaction"] > 2 * costs["s.e."]).sum()
print(f"{(costs['interaction'] > 0).sum()} of {len(costs)} interactions are positive, {sure} by more than two standard errors.")

# %% [markdown]
# The first two bars tell nearly the whole story: **in the loss, the two damages nearly add up**, which means that in perplexity they nearly multiply. The interaction is small beside them. Where it stands clear of its standard error it is positive, so a pruned model seems a little more sensitive to rounding. "Seems", because the errors themselves come from four documents.

# %% [markdown]
# ## 8. Which first?
#
# We pruned, then quantized. One can also quantize the dense model once and remove layers from the result. *Predict:* can the order matter, when each matrix is rounded by itself, without looking at any text?

# %%
rows = []
for bits in (8, 4):
    first = grid[(grid["removed"] == 3) & (grid["bits"] == bits)]["perplexity"].item()
    other = to_perplexity(measure(remove_layers(versions[f"{bits} bits"], plans[3]), 3, bits))
    rows.append({"bits": bits, "removed": 3, "prune, then quantize": first, "quantize, then prune": other})
orders = pd.DataFrame(rows)
display(orders.round(4))
gap = (orders.iloc[:, 2] - orders.iloc[:, 3]).abs().max()
print(f"The two orders differ by at most {gap:.4f} in perplexity.")

# %% [markdown]
# Here the order does not matter, and it cannot: both methods look at one matrix at a time, and a layer that stays has the same matrix either way. The paper found a difference. It used *GPTQ*, which looks at calibration text while it rounds and lets later columns make up for earlier errors, so what it does can depend on the layers around. Here are the paper's own numbers (table 5): Llama-2-7B, another model, another method, 27 % of the model removed. MMLU and CMMLU are multiple-choice exams with four answers, one in English, one in Chinese.

# %%
paper = shortgpt.calibration.data_folder() / "paper"
table5 = pd.read_csv(paper / "table5_order.csv").set_index("order")
table5.columns = ["MMLU (English)", "CMMLU (Chinese)"]

ax = bars(table5, "accuracy (percent; dotted: guessing)", figsize=(8, 3.2), title="The paper's Llama-2-7B, not our model")
ax.axvline(25, color="black", linestyle=":", linewidth=1)
ax.set_xlim(0, 70)
plt.show()
gap = table5.loc["quantization then removal"] - table5.loc["removal then quantization"]
print(f"In the paper, quantizing first is ahead by {gap.iloc[0]:.1f} points on MMLU and {gap.iloc[1]:.1f} on CMMLU, from one run each.")

# %% [markdown]
# About a point, once, without a standard error: the paper does not make much of it, and neither should we.

# %% [markdown]
# ## 9. The paper's table, and what it hides
#
# Table 4 of the paper removes more and more layers from a Llama-2-7B that GPTQ had quantized. We draw it beside our 4-bit models, each relative to its own unpruned 4-bit model, because perplexities of different models on different texts must not share an axis. *Look for* the shape of the two panels: do they tell the same story?

# %%
table4 = pd.read_csv(paper / "table4_gptq.csv")
ours = grid[grid["bits"] == 4].sort_values("removed")
share = 100 * ours["removed"] / len(decoder_layers(model))
curves = {
    "Llama-2-7B, GPTQ (the paper)": (table4["removed_percent"], table4["ppl"] / table4["ppl"].iloc[0]),
    "our model, NF4": (share, ours["perplexity"] / ours["perplexity"].iloc[0]),
}

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for (label, (x, y)), style, colour in zip(curves.items(), ("o-", "s--"), PALETTE[:2], strict=True):
    left.plot(x, y, style, color=colour, label=label)
left.set(xlabel="layers removed (percent)", ylabel="perplexity (unpruned = 1)", ylim=(0, None))
left.legend(fontsize=9)
right.plot(table4["removed_percent"], table4["mmlu"], "o-", color=PALETTE[0], label="Llama-2-7B, GPTQ (the paper)")
right.axhline(25, color="black", linestyle=":", label="guessing")
right.set(xlabel="layers removed (percent)", ylabel="MMLU (percent)", ylim=(0, 50))
right.legend(fontsize=9, loc="lower left")
plt.show()
(_, paper_rise), (_, our_rise) = curves.values()
first, last = table4["mmlu"].iloc[[0, -1]]
print(f"In the paper, perplexity rises {paper_rise.iloc[-1]:.1f} times while MMLU goes from {first:.1f} to {last:.1f}.")
print(f"Our model's perplexity rises {our_rise.iloc[-1]:.1f} times at {share.iloc[-1]:.0f} percent of the layers.")

# %% [markdown]
# The perplexity of the paper's model rises fivefold, and MMLU does not move. Read alone, MMLU says that nine layers of 32 were superfluous. Read alone, perplexity says that the model fell apart. Both are measured on the same models. A multiple-choice test asks only which of four letters is likeliest; a model can lose much of its grip on language and still rank four letters. **A pruned model needs more than one measure**, and lesson 05 is about that. (Our own model would not help to settle it: at its size MMLU is at guessing level even when dense.)

# %% [markdown]
# ## 10. Save it, reload it, let it write
#
# `save` writes an ordinary checkpoint, then reloads it and compares logits before it lets you have it. That is not pedantry: some quantization libraries write, on some processors, files that reload without a warning as garbage. We save the pruned 8-bit model, load it into a second one and let that write.

# %%
import tempfile

small = quantize(remove_layers(model, plans[3]), bits=8)
with tempfile.TemporaryDirectory() as folder:
    path = save(small, f"{folder}/pruned-8bit", tokenizer=tokenizer, plan=plans[3])
    cost = size(small, path)
    reloaded, _ = load(path)

probe = tokenizer(PROMPT, return_tensors="pt")
with torch.inference_mode():
    torch.testing.assert_close(reloaded(**probe).logits, small(**probe).logits)
print(
    f"{cost['layers']} layers, {cost['memory_bytes'] / 1e6:.0f} MB in memory, {cost['disk_bytes'] / 1e6:.0f} MB on disk, the same logits after reloading"
)
print(f"{PROMPT} … {continue_text(reloaded, tokenizer, PROMPT, new_tokens=24).strip()}")

# %% [markdown]
# ## 11. Is it faster?
#
# Smaller is not automatically faster. On a CPU an 8-bit weight is turned back into a float before it is multiplied; whether the smaller memory traffic outweighs that extra work depends on the processor, the kernel and the batch. A removed layer is different: it is work that nobody does any more. `speed` measures reading a prompt (*prefill*) and writing token by token (*decode*). The numbers are those of the machine that built this page; run the cell for yours.

# %% tags=["volatile"]
candidates = versions | {"32 bits, −6 layers": remove_layers(model, plans[6])}
rates = {
    name: speed(m, prompt_tokens=128, new_tokens=12, repeats=3).set_index("phase")["tokens_per_second"]
    for name, m in candidates.items()
}
pd.DataFrame(rates).T.round(0).astype(int).rename_axis(columns="tokens per second")

# %% [markdown]
# The honest summary of such a table is short: **quantization saves memory for certain, and time perhaps; removing layers saves both, roughly in proportion.** On a GPU, and with kernels made for it, 4 bits can also be much faster, because writing one token at a time is limited by how fast weights can be read.
#
# *Try it:* change `bits` in the save cell to 4, and `plans[3]` to `plans[6]`, and compare what it writes.

# %% [markdown]
# ## What we saw
#
# - Rounding to 8 bits with one scale a row hardly changes perplexity, at any depth we tried.
# - NF4 costs visibly more on a model this small, but less than removing three layers.
# - Pruning and quantization add up in the logarithm of perplexity, apart from a small interaction.
# - The order of the two does not matter when matrices are rounded one by one.
# - Real storage, counted with `size`, is less spectacular than the bit count promises, because embeddings stay in full precision.
#
# All of it is about one model of 135 million parameters whose weights had been rounded to 4 bits before, four short documents, and two quantization methods without calibration.

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
#
# **Next:** [05 · Evaluation: perplexity, choice and generation](05_evaluation.ipynb) · **Previous:** [03 · Pruning](03_pruning.ipynb)
