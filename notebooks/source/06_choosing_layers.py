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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/shortgpt-course/shortgpt/blob/main/notebooks/06_choosing_layers.ipynb)
#
# # 06 · Choosing layers: from a coin to a search
#
# Lesson 03 compared orders that read the model with orders by position. Here are eleven ways to choose layers, from random to a search over whole sets: what does each read, what does it cost, and how much better is its choice? Then you compete.
#
# **You will be able to**
#
# - choose layers by any of eleven criteria with one call, and say what a better choice costs;
# - explain why relative magnitude agrees with Block Influence on this model, and on which layers the two must differ;
# - show two layers that cost more together than one by one;
# - check whether a choice depends on the calibration text;
# - repair a pruned model in closed form, without training.
#
# **Before:** [lesson 03](03_pruning.ipynb) (removing layers) and [lesson 05](05_evaluation.ipynb) (standard errors) · **Takes:** about 3 minutes on 2 CPU cores; reading about 35 minutes, exercises 55 · **Memory:** about 2 GB · **Download:** 93 MB once (shared by all lessons)

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
# The model and two kinds of text. `batches` is **calibration text**, which the criteria may read. `texts` are the openings of four other documents, on which the results are measured.
#
# **Another model?** Change the line `MODEL = …`. The text still speaks of the default model; the cells show yours,
# except what says *default model, stored*.

# %% tags=["for-exercises"]
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from shortgpt import Trials, built_in_text, calibration_batches, compare_criteria, decoder_layers, heal
from shortgpt import leave_one_out, load, perplexity, plan_agreement, removal_order, remove_layers, sampled_text
from shortgpt import score_layers, tokens_needed, watch_layers
from shortgpt.scoring.influence import block_influence, relative_magnitude
from shortgpt.course.plots import MARKERS, PALETTE, STORED, plain_log_ticks, plot_agreement, plot_criteria
from shortgpt.course.plots import plot_removal_curves, plot_tokens_needed
from shortgpt.course.studies.again import measured_again
from shortgpt.course.studies.curves import paired, removal_curves
from shortgpt.utils.data import data_folder

MODEL = "smollm2-135m-instruct"  # others: shortgpt.suggested_models()
model, tokenizer = load(MODEL)
depth = len(decoder_layers(model))
batches = calibration_batches(tokenizer, built_in_text()["text"], samples=4, length=256)
documents = built_in_text("perplexity")
chosen = documents[documents["genre"].isin(["encyclopedic", "news", "science", "story"])].groupby("genre").head(1)
texts = [text[:1100] for text in chosen["text"]]
dense = perplexity(model, tokenizer, texts)
print(f"{depth} layers; the criteria read {sum(b['attention_mask'].sum().item() for b in batches):,} tokens; ", end="")
print(f"measured on {sum(len(tokenizer(t)['input_ids']) for t in texts)} others, where dense perplexity is {dense:.1f}.")

# %% [markdown]
# ## 1. Could a random choice do it?
#
# A *pass* is one forward pass over the calibration text. L is the number of layers, n how many are to go.
#
# | criterion | what it asks | passes |
# |---|---|---|
# | random, sequential, reverse | nothing: random layers, the first ones, the last ones | 0 |
# | relative magnitude | how large is what the layer adds? | 1 |
# | Block Influence (BI) | how far does the layer turn the state? | 1 |
# | BI, iterative | the same again after every removal | n, getting shorter |
# | angular span | over which n layers in a row does the state turn least (its last token, or all tokens)? | 1 |
# | leave-one-out | how large is the loss without this layer alone? | about L/2 |
# | greedy | which layer is cheapest to lose *now*, given what is gone? | about nL/2 |
# | search | try whole sets, exchange layers, keep the best | what you allow |
#
# (The span: Gromov et al., arXiv 2403.17887. Leave-one-out: Shortened LLaMA, arXiv 2402.02834. Greedy: SLEB, arXiv 2402.09025. A search of this kind: EvoPress, arXiv 2410.14649.)
#
# One call makes a plan by any of them:

# %%
from shortgpt import choose_by

plan = choose_by(model, batches, "angular_span_all_tokens", 6, progress=False)
print(f"{plan.criterion}: remove layers {sorted(plan.removed)}")

# %% [markdown]
# One pass gives the states before and after *every* row of layers. The map shows how far each row turns them: across, where it begins; upward, how many layers it has.

# %%
from shortgpt import span_distances

spans = span_distances(model, batches)
grid = spans.pivot(index="layers", columns="start", values="score")

# %% [markdown]
# *Predict:* where does the cheapest row of six begin, and does the cheapest row of three lie inside it?

# %%
_, ax = plt.subplots(figsize=(8, 4.4), layout="constrained")
picture = ax.pcolormesh(grid.columns, grid.index, grid, norm="log", cmap="cividis")
ax.figure.colorbar(picture, label="1 − cosine over the row (log scale)")
cheapest = spans.loc[spans.groupby("layers")["score"].idxmin()].set_index("layers")
rows = cheapest.loc[1:12]
ax.plot(rows["start"], rows.index, "o", color="white", markeredgecolor="black")
ax.set(xlabel="first layer of the row", ylabel="layers in the row")
plt.show()
print("Circles: the rows that turn least; six layers begin at "
      f"{cheapest.loc[6, 'start']:.0f}, three at {cheapest.loc[3, 'start']:.0f}.")

# %% [markdown]
# A row that contains the first layers, or the last, turns the states far at any length. In the middle the cost grows slowly with the length, and the cheapest row moves little.
#
# `compare_criteria` makes many plans and measures each. *Predict:* will one of three random choices beat Block Influence?

# %%
CHEAP = ["random", "sequential", "reverse", "relative_magnitude", "block_influence"]
CHEAP += ["block_influence_iterative", "angular_span", "angular_span_all_tokens"]


def measure(model):
    return {"perplexity": perplexity(model, tokenizer, texts)}


cheap = compare_criteria(model, batches, (3, 6, 9), CHEAP, measure, seeds=(0, 1, 2))
print(f"{len(cheap)} plans, {cheap['layers'].map(frozenset).nunique()} different ones")

# %%
plot_criteria(cheap, highlight=["random", "block_influence", "reverse"])
plt.show()
coins = cheap[cheap["criterion"] == "random"].groupby("removed")["perplexity"].min()
influence = cheap[cheap["criterion"]
                  == "block_influence"].set_index("removed")["perplexity"]
print("The luckiest of three coins, as a multiple of Block Influence:", end=" ")
print(", ".join(f"{coins[n] / influence[n]:.1f} times with {n} removed"
                for n in coins.index) + ".")

# %% [markdown]
# Even the luckiest of the three (the band is their range) loses, and by more the more layers go.
#
# Why does the turn of a layer tell so much? Add up the Block Influence of what each plan removed. *Predict:* does perplexity follow this sum, also for plans that were chosen without it?

# %%
scores = score_layers(model, batches, progress=False)
cheap["lost"] = [scores.values[list(layers)].sum() for layers in cheap["layers"]]
_, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for marker, n, colour in zip("os^", (3, 6, 9), PALETTE, strict=False):
    some = cheap[cheap["removed"] == n]
    ax.plot(some["lost"], some["perplexity"], marker, color=colour,
            markeredgecolor="black", label=f"{n} removed")
ax.set(xscale="log", yscale="log", xlabel="sum of Block Influence removed (log scale)",
       ylabel="perplexity (log scale)")
plain_log_ticks(ax, "x")
plain_log_ticks(ax)
ax.legend()
plt.show()
ranks = cheap[["lost", "perplexity"]].rank().corr().iloc[0, 1]
ends = cheap["layers"].map(lambda layers: bool({0, 1, depth - 1} & {*layers}))
print(f"The rank correlation of removed influence and perplexity is {ranks:.2f} over {len(cheap)} plans.")
print(f"Plans without layers 0, 1 and {depth - 1}: perplexity "
      f"{cheap[~ends]['perplexity'].min():,.0f} to "
      f"{cheap[~ends]['perplexity'].max():,.0f}; ", end="")
print(f"plans with one of them: {cheap[ends]['perplexity'].min():,.0f} to "
      f"{cheap[ends]['perplexity'].max():,.0f}.")
odd = cheap[~ends & (cheap["removed"] == 3)].sort_values("perplexity").iloc[-1]
print(f"The three layers {sorted(odd['layers'])} have an influence of "
      f"{odd['lost']:.2f} in all, and perplexity without them "
      f"is {odd['perplexity']:,.0f}.")

# %% [markdown]
# Mostly. Sequential, reverse and an unlucky random choice take a layer of large influence at once. A criterion that reads the model goes *around* the layers that matter (figure 5 of the paper).
#
# The last line is an exception: three layers of ordinary influence, and far worse than plans with the same sum. Section 4 comes back to it.

# %% [markdown]
# ## 2. All eleven, and what they cost
#
# Some criteria need more time than a lesson has. So `python measure/choosing.py` chose 3, 6 and 9 layers by every criterion and measured all plans on text that no criterion had read.

# %%
choosing = pd.read_csv(data_folder() / "choosing.csv")
choosing["layers"] = choosing["layers"].map(json.loads)
whole = choosing[choosing["criterion"] == "dense"].iloc[0]
plain = choosing[(choosing["repair"] == "none")
                 & ~choosing["criterion"].isin(["dense", "repaired_search"])]
plain = plain.assign(low=plain["perplexity"] - plain["perplexity_error"],
                     high=plain["perplexity"] + plain["perplexity_error"])
best = plain.loc[plain.groupby("removed")["perplexity"].idxmin()].set_index("removed")
print(STORED)
best[["criterion", "layers", "perplexity", "perplexity_error"]].round(1)

# %% [markdown]
# These are the best plans for each number. *Predict:* which criteria will be within a standard error of the best one?

# %%
# the others would need a far longer axis
asking = plain[~plain["criterion"].isin(["random", "sequential", "reverse"])]
start = pd.DataFrame([whole[["removed", "perplexity"]].to_dict() | {"criterion": c}
                      for c in asking["criterion"].unique()])
start = start.assign(low=start["perplexity"], high=start["perplexity"])
ax = plot_criteria(pd.concat([start, asking]),
                   highlight=["block_influence", "greedy", "angular_span_all_tokens"])
ax.set_title(STORED)
plt.show()
for n in (3, 6, 9):
    here = plain[(plain["removed"] == n) & (plain["seed"].fillna(0) == 0)]
    close = here[here["perplexity"] <= best.loc[n, "high"]]["criterion"].tolist()
    others = [name for name in close if name != best.loc[n, "criterion"]]
    print(f"{n} removed: within a standard error of {best.loc[n, 'criterion']}, the "
          f"best: {', '.join(others) or 'none'}.")

# %% [markdown]
# None, and another criterion is best each time. (All plans were measured on the *same* documents, so the order of two curves is more certain than their bands suggest.)
#
# *Predict:* does accuracy follow perplexity? Two tasks: `grammar` (two answers, guessing gives 50 percent) and the exact `last_word` of a passage.

# %%
TASKS = ["grammar", "grammar_error", "last_word", "last_word_error"]
six = plain[(plain["removed"] == 6) & (plain["seed"].fillna(0) == 0)].sort_values(
    "perplexity").set_index("criterion")
table = pd.concat([whole.to_frame().T.set_index("criterion"), six])[["perplexity",
    *TASKS]].astype(float)
print(STORED)
for task in ("grammar", "last_word"):
    same = six["perplexity"].rank().corr(-six[task].rank())
    top = six[task].astype(float).idxmax()
    print(f"{task}: highest for {top} ({six.loc[top, task]:.0f} ± "
          f"{six.loc[top, f'{task}_error']:.0f}); ", end="")
    print("its order agrees with that of perplexity with a rank correlation of "
          f"{same:.2f}.")
table.round(1)

# %% [markdown]
# A rank correlation near 1 says that both measures prefer the same plans. With so few items, neighbours in the table can't be told apart.
#
# What does a better plan cost? Down and to the left is better; no point beats those on the dashed line in both. *Predict:* does the line go down steadily?

# %%
fig, axes = plt.subplots(1, 3, figsize=(10, 3.8), sharey=True, layout="constrained")
fig.suptitle(STORED)
for ax, n in zip(axes, (3, 6, 9), strict=True):
    paid = asking[asking["removed"] == n].sort_values(["forward_passes", "perplexity"])
    for i, name in enumerate(asking["criterion"].unique()):
        row = paid[paid["criterion"] == name].iloc[0]
        look = {"color": PALETTE[i], "fillstyle": "none", "markersize": 6 + i,
                "markeredgewidth": 2}
        ax.plot(row["forward_passes"], row["perplexity"], MARKERS[i],
                label=name.replace("_", " "), **look)
    worth = paid[
        paid["perplexity"] < paid["perplexity"].cummin().shift(fill_value=np.inf)]
    ax.step(worth["forward_passes"], worth["perplexity"], "k--", where="post",
            linewidth=1)
    ax.set(xscale="log", yscale="log", title=f"{n} removed",
           xlabel="passes to choose (log scale)")
    plain_log_ticks(ax, "x")
    plain_log_ticks(ax)
    steps = [f"{row.criterion} (passes {row.forward_passes:.0f}, perplexity "
             f"{row.perplexity:.1f})" for row in worth.itertuples()]
    print(f"{n} removed, worth their price, from cheap to dear: {'; '.join(steps)}.")
axes[0].set_ylabel("perplexity (log scale)")
axes[2].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# At three layers, greedy's tens of passes buy something. At six, one pass finds a row of layers that beats every other set. At nine this row is a bad one, and leave-one-out is ahead. So a more expensive criterion is not always better.

# %% [markdown]
# ### Two more models
#
# Now up to half of the layers go from three models: chosen on English prose by people, measured on prose from other sources (`python measure/removal_curves.py`). It is figure 5 of the paper, drawn again. The largest has ten times the parameters of ours. The grey band is the range of five random choices.
#
# *Predict:* does the larger model lose less? And is there a number of layers from which one more ruins it?

# %%
curves = removal_curves(text="en").query("language == 'en'")
plot_removal_curves(curves, highlight=["block_influence", "relative_magnitude",
    "greedy", "angular_span_all_tokens"])
plt.show()

# %%
LARGE = "qwen2.5-coder-1.5b-instruct"
sets = curves.query("model == @LARGE").set_index(["criterion", "removed"])["layers"]
for n in (2, 4, 6, 8):
    by = {name: paired(LARGE, sets["block_influence", n], sets[name, n])
          for name in ("relative_magnitude", "greedy")}
    print(f"{LARGE}, {n} removed: Block Influence takes {sets['block_influence', n]}, "
          f"greedy {sets['greedy', n]}; ", end="")
    print("it costs " + ", ".join(
        f"{value:+.2f} ± {error:.2f} nats against {name.replace('_', ' ')}"
        for name, (value, error) in by.items()) + ".")

# %% [markdown]
# **Criteria differ.** On both other models relative magnitude chooses better than Block Influence from three or four layers on (section 3 shows why). Greedy is ahead of both on all three models. A *span* is as good on the larger one, but ruins Gemma from four layers on and ours from eight. So no cheap criterion is good on all three.
#
# **The cliff.** If Block Influence chooses, the fifth layer multiplies Gemma's perplexity by almost ten. By relative magnitude or greedy there is no such step. No score warns of a cliff, so remove one layer at a time and measure: `removal_sweep`, or in a shell `shortgpt score --sweep`.
#
# **Size.** The larger model loses less: with a fifth of the layers gone, chosen by greedy, its perplexity is 1.3 times the dense one's, and ours 1.8 times.
#
# (`LIVE = True` fetches the larger model, 1.1 GB, and measures two of its points again: 5 GB of memory, about three minutes on two cores.)

# %%
LIVE = False
if LIVE:
    large, its_tokenizer = load(LARGE)
    display(measured_again(large, its_tokenizer, LARGE, {name: sets[name, 6]
        for name in ("block_influence", "greedy")}).round(3))

# %% [markdown]
# ## 3. Why relative magnitude comes close
#
# **Relative magnitude** is the length of what a layer adds, against the length of what leaves it. It ignores direction, and Block Influence uses nothing else. Yet they rank layers almost alike. Why?
#
# Both look at one triangle: $x$, then $f$ on top of it, then $x+f$. Let $r=|f|/|x|$ be small, and $\varphi$ the angle between $f$ and $x$. The state then turns by about $\theta \approx r\sin\varphi$, so
#
# $$\text{BI} = 1-\cos\theta \approx \tfrac12\theta^2 \approx \tfrac12\, r^2\sin^2\varphi ,$$
#
# $$\text{relative magnitude} = \frac{|f|}{|x+f|} \approx r .$$
#
# As long as $\sin\varphi$ is about the same for all layers, one is half the square of the other, and a square keeps the order. They differ where $\sin\varphi$ is small: a layer that stretches the state without turning it. First on two triangles with the same $|f|$:

# %%
x = torch.tensor([1.0, 0.0])
for name, f in {"turns": torch.tensor([0.0, 0.4]),
                "stretches": torch.tensor([0.4, 0.0])}.items():
    bi, magnitude = block_influence(x, x + f).item(), relative_magnitude(x,
        x + f).item()
    print(f"{name:9}: Block Influence {bi:.3f}, relative magnitude {magnitude:.3f}, "
          f"half its square {magnitude**2 / 2:.3f}")

# %% [markdown]
# And the layers of our model? With $f$ at a right angle to $x$, a point lies on the dashed line. (For large additions, as in the first layer, the line is only a rough guide.) *Predict:* which layers lie below it?

# %%
magnitudes = score_layers(model, batches, metric="relative_magnitude", progress=False)
# about the mean of sin² of the angle between f and x
turn = scores.values / (magnitudes.values**2 / 2)
longer = np.zeros(depth)


def record(layer, x_in, x_out):
    longer[layer] = (x_out.norm(dim=-1) / x_in.norm(dim=-1)).median()


with torch.inference_mode(), watch_layers(model, record):
    model(**batches[0])

# %%
_, (left, ax) = plt.subplots(
    1, 2, figsize=(10, 4), width_ratios=[1, 2], layout="constrained")
for height, (name, f) in enumerate({"stretches": (0.4, 0), "turns": (0, 0.4)}.items()):
    for tip, tail, style in (
            ((1, 0), (0, 0), "-"), (f, (1, 0), "-"), ((1 + f[0], f[1]), (0, 0), ":")):
        arrow = {"arrowstyle": "->", "linestyle": style, "linewidth": 1.6}
        begin, end = (tail[0], tail[1] + height), (tail[0] + tip[0], tail[1] + tip[1] + height)
        left.annotate("", end, begin, arrowprops=arrow)
    left.text(0, height - 0.15, name + ": x, then f; dotted: x + f", fontsize=9)
left.set(xlim=(-0.1, 1.6), ylim=(-0.3, 1.7))
left.axis("off")
ax.plot(magnitudes.values, scores.values, "o", color=PALETTE[0], markeredgecolor="black")
line = np.geomspace(magnitudes.values.min(), magnitudes.values.max())
ax.plot(line, line**2 / 2, "k--", label="right angle: half the square")
for i in {*np.argsort(turn)[:3], 0, depth - 1}:
    ax.annotate(str(i), (magnitudes.values[i], scores.values[i]), xytext=(6, -4), textcoords="offset points")
ax.set(xscale="log", yscale="log", xlabel="relative magnitude (log scale)",
       ylabel="Block Influence (log scale)")
plain_log_ticks(ax, "x")
plain_log_ticks(ax)
ax.legend()
plt.show()
near = (np.abs(turn - 1) < 0.1).sum()
print(f"Two triangles with the same f; and for {near} of {depth} layers Block "
      "Influence is within 10 % of half the square.")

# %%
ranks = pd.Series(scores.values).rank().corr(pd.Series(magnitudes.values).rank())
apart = int(np.argmin(turn))
same = {n: len({*removal_order(scores)[:n]} & {*removal_order(magnitudes)[:n]})
        for n in (3, 6, 9)}
print(f"Rank correlation of the two: {ranks:.3f}. Layers in common:",
      ", ".join(f"{m} of {n}" for n, m in same.items()))
print(f"Farthest below the line is layer {apart}: its Block Influence is "
      f"{turn[apart]:.2f} of half the square.")
print(f"It makes the median state {longer[apart]:.2f} times as long; the median layer, "
      f"{np.median(longer):.2f} times.")
spread = [np.divide(*np.quantile(values, [0.9, 0.1]))
          for values in (magnitudes.values**2, turn)]
print("Between the 10th and the 90th percentile of layers the square varies "
      f"{spread[0]:.1f} times, the angle's part {spread[1]:.1f} times.")

# %% [markdown]
# Where a layer adds little and at a wide angle, the two are the same measure in different units. Still, the lists of the lowest differ, because neighbours have almost equal scores (2 of 3, 4 of 6 and 8 of 9 in common here; with five times the text, in section 2, all six of six).
#
# The two really disagree on a layer that mostly stretches the state: relative magnitude calls it important, BI does not. On the larger model only Block Influence took layers 24, 25 and 26 early. *Predict:* in the same figure for that model, are these layers on the line, above it or below?

# %%
scored = pd.read_csv(data_folder()
                     / "removal_layers.csv").query("model == @LARGE").set_index("layer")
share = scored["block_influence"] / (scored["relative_magnitude"] ** 2 / 2)
_, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.plot(scored["relative_magnitude"], scored["block_influence"], "o", color=PALETTE[0],
        markeredgecolor="black")
line = np.geomspace(scored["relative_magnitude"].min(),
                    scored["relative_magnitude"].max())
ax.plot(line, line**2 / 2, "k--", label="right angle: half the square")
for i in {*share.nsmallest(4).index, *scored["block_influence"].nsmallest(3).index}:
    ax.annotate(str(i), (scored["relative_magnitude"][i], scored["block_influence"][i]),
                xytext=(6, -4), textcoords="offset points")
ax.set(xscale="log", yscale="log", xlabel="relative magnitude (log scale)",
       ylabel="Block Influence (log scale)", title=f"{LARGE}, stored")
plain_log_ticks(ax, "x")
plain_log_ticks(ax)
ax.legend()
plt.show()
for i in share.nsmallest(4).sort_index().index:
    places = [int(scored[name].rank()[i])
              for name in ("block_influence", "relative_magnitude")]
    print(f"Layer {i} makes the median state {scored['longer'][i]:.2f} times as long; "
          f"number {places[0]} from below by Block Influence, {places[1]} by relative "
          "magnitude.")

# %% [markdown]
# They are below, and they make the state longer. Block Influence calls them cheap, takes them early and loses more by it. (On Gemma, layer 16 stretches the state by a third.) Why does a stretch matter? Attention and the feed-forward network (FFN) read the state through a norm, RMSNorm, which takes its length away; but what later layers add to it weighs less.
#
# Elsewhere either of the two may be ahead ([question 9](20_ten_questions.ipynb)). Compute both: either takes one pass.

# %% [markdown]
# ## 4. When Block Influence is wrong
#
# A layer may turn the state very little, but in just the direction that matters. To see that, leave the layer out and look at the loss (mean −log p of a token, in *nats*, the unit of the natural logarithm).
#
# `Trials` does that. Without layer $k$ everything below it is unchanged, so it starts there and saves half of the work.

# %%
trials = Trials(model, calibration_batches(tokenizer, built_in_text()["text"],
    samples=3, length=240))
before = trials.forward_passes
whole_loss = trials([])
damage = leave_one_out(trials, depth) - whole_loss
print(f"{depth} layers left out one at a time, on {trials.tokens} predicted tokens: "
      f"{trials.forward_passes - before:.1f} passes.")

# %% [markdown]
# *Predict:* which layers lie high above the others of the same Block Influence?

# %%
place_bi, place_damage = (pd.Series(values).rank()
                          for values in (scores.values, damage))
# more harm than their turn suggests
hidden = (place_damage - place_bi).nlargest(3).index.tolist()
harmless = (place_bi - place_damage).nlargest(2).index.tolist()
_, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.plot(scores.values, damage, "o", color=PALETTE[0], markeredgecolor="black")
for i in hidden + harmless:
    ax.annotate(f"{i}", (scores.values[i], damage[i]), xytext=(6, 3),
                textcoords="offset points", weight="bold")
ax.set(xscale="log", xlabel="Block Influence (log scale)",
       ylabel="loss added by leaving it out\n(nats; log scale beyond 0.1)")
ax.set_yscale("symlog", linthresh=0.1)
ax.set_ylim(bottom=0)
ticks = [0, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]
ax.set_yticks(ticks, map(str, ticks))
plain_log_ticks(ax, "x")
plt.show()
for i in hidden:
    print(f"Layer {i}: number {place_bi[i]:.0f} of {depth} from below by Block "
          f"Influence, number {place_damage[i]:.0f} by damage (+{damage[i]:.2f} nats).")
print("The other way round, least harm for their influence: layers "
      f"{' and '.join(map(str, harmless))}.")

# %% [markdown]
# The first lines name layers whose loss hurts more than their angle says. The random plan of section 1 had taken one of them.
#
# So take the layers with the least damage? *Predict:* the six layers that are cheapest alone are left out in pairs. Does a pair cost the sum of both?

# %%
cheapest = sorted(np.argsort(damage)[:6].tolist())
pairs = pd.DataFrame([{"first": a, "second": b} for a in cheapest for b in cheapest
                      if a < b])
pairs["sum"] = [damage[a] + damage[b]
                for a, b in zip(pairs["first"], pairs["second"], strict=True)]
pairs["together"] = [trials([a, b]) - whole_loss
                     for a, b in zip(pairs["first"], pairs["second"], strict=True)]
pairs["difference"] = pairs["together"] - pairs["sum"]
worst, kindest = pairs.loc[pairs["difference"].idxmax()], pairs.loc[
    pairs["difference"].idxmin()]
for row in (worst, kindest):
    print(f"Layers {row['first']:.0f} and {row['second']:.0f}: {row['sum']:.3f} nats "
          f"if damages added up, {row['together']:.3f} together.")
print(f"{(pairs['difference'] > 0).sum()} of {len(pairs)} pairs cost more together "
      "than the sum of both.")
pairs.sort_values("difference", ascending=False).head(4).round(3)

# %% [markdown]
# A pair costs more than its sum if either of the two can do the work of both. About half of these pairs cost *less*. A list of single damages knows nothing of this; greedy asks again after each removal. But at nine layers that list made the best plan of all (section 2): knowing a short text better doesn't always help on another.

# %% [markdown]
# ## 5. Does the calibration text matter?
#
# We choose layers on nine English genres, on Chinese, and on text that the model has sampled itself (`sampled_text`, which needs no data), with about 1,000 tokens of each. *Predict:* which of these chooses the most different layers?

# %%
genres = built_in_text("calibration").groupby("genre")["text"].apply(list).to_dict()
sources = {**genres,
           "Chinese": built_in_text("calibration", language="zh")["text"].tolist()}
sources["sampled"] = sampled_text(model, tokenizer, samples=8, length=128,
    progress=False)
by_text = {name: score_layers(model, calibration_batches(tokenizer, text, samples=8,
                                                         length=128), progress=False)
           for name, text in sources.items()}
agreement = plan_agreement(by_text, 6)

# %%
plot_agreement(agreement)
plt.show()
foreign = agreement[agreement[["first", "second"]].isin(["Chinese"]).any(axis=1)]
own = agreement[agreement[["first", "second"]].isin(["sampled"]).any(axis=1)]
rest = agreement.drop([*foreign.index, *own.index])
print(f"Mean overlap: between English genres {rest['overlap'].mean():.2f}, with Chinese {foreign['overlap'].mean():.2f}, with sampled text {own['overlap'].mean():.2f}.")
low, high = rest["rank_correlation"].min(), foreign["rank_correlation"].max()
print(f"Rank correlation over all layers: at least {low:.2f} between English genres, at most {high:.2f} with Chinese.")

# %% [markdown]
# By overlap and by rank correlation, Chinese, which this model hardly knows, chooses others. Text that the model made up agrees with the genres about as well as these agree with each other.
#
# <details><summary>Going deeper: are other layers worse layers?</summary>
#
# Not always. On the three models of section 2, prose by people chose better than the course's text on two and worse on the third, and Chinese prose chose better layers for *English* on the two small ones ([three models](../docs/three_models.md)). Where two texts disagree, measure both plans, on a third text.
# </details>
#
# Is it the kind of text, or simply too little of it? Draw two texts of the same size from *one* source and compare. *Predict:* how many tokens until both choose nine tenths of the same layers?

# %%
long = score_layers(model, calibration_batches(tokenizer, built_in_text()["text"],
    samples=64, length=128), progress=False)
plot_tokens_needed(tokens_needed(long, 6))
plt.show()

# %% [markdown]
# Two mixed texts soon choose nearly the same six, if all samples have *one* length (here 128 tokens). Two genres often don't, even with more tokens. So use more documents, and a mixture.
#
# **The length of the samples matters as well.** In longer samples layer 15 scores higher, so layers 12 and 15 change places, however much text is read (`measure/stability.py`). This lesson reads 4 samples of 256 tokens and gets 12, 13, 14, 15, 17, 25. The stored plans read samples of 512 tokens and got 3, 13, 14, 17, 25, 26: four of six in common. So say how a choice was read, and take samples about as long as the texts that the model is for.

# %% [markdown]
# ## 6. What repair buys
#
# Part of what the removed layers did is linear, and a linear map can be had without training. Let $x_e$ be the state that the dense model has behind the gap, $y$ the state that the pruned model brings there, and $z$ what enters the last matrix of the layer before the gap. Over calibration tokens $t$ we look for
#
# $$\min_D \sum_t \frac{|x_{e,t} - y_t - z_t D|^2}{|x_{e,t}|^2} + \lambda |D|^2 .$$
#
# That is least squares, solved in one step (compare ReplaceMe, arXiv 2505.02819). $D$ is added to that last matrix (*fold*), so there is no new parameter. Dividing by the length keeps a few tokens with huge states from deciding everything; the ridge $\lambda$ keeps $D$ from learning the calibration text by heart.
#
# We remove six layers in a row and repair with 4,096 tokens that the measurement doesn't use. (Gemma needs another form, `linear`.) *Predict:* how much of the added loss comes back?

# %%
# of 30 layers 13 to 18; elsewhere at the same depth
SPAN = range(depth * 13 // 30, depth * 13 // 30 + 6)
kind = "linear" if hasattr(decoder_layers(model)[0],
                           "post_feedforward_layernorm") else "fold"
folded = heal(model, SPAN, calibration_batches(tokenizer, built_in_text()["text"],
    samples=8), kind=kind, progress=False)
cut = perplexity(remove_layers(model, SPAN), tokenizer, texts)
repaired = perplexity(folded, tokenizer, texts)
print(f"dense {dense:.1f}, layers {SPAN[0]} to {SPAN[-1]} cut {cut:.1f}, repaired "
      f"{repaired:.1f}")
print("Of the loss that the cut added, repair takes back "
      f"{np.log(cut / repaired) / np.log(cut / dense):.0%}.")

# %% [markdown]
# Is a row of layers easier to repair than scattered ones? A row needs a single patch; four gaps need four, but these have four times as many numbers to fit. *Predict* which gets more of its loss back. (Six layers, stored: circles are cut, squares repaired.)

# %%
at_six = choosing[(choosing["removed"] == 6) & (choosing["seed"].fillna(0) == 0)]
both = at_six.pivot(index="criterion", columns="repair",
                    values="perplexity").dropna(subset=["none", "fold"])
both = both.sort_values("fold", ascending=False)
spots = np.arange(len(both))
_, ax = plt.subplots(figsize=(8, 4), layout="constrained")
ax.hlines(spots, both["fold"], both["none"], color="0.7")
ax.plot(both["none"], spots, "o", color=PALETTE[0], label="cut",
        markeredgecolor="black")
ax.plot(both["fold"], spots, "s", color=PALETTE[1], label="repaired (fold)",
        markeredgecolor="black")
ax.set(xscale="log", xlabel="perplexity (log scale)", yticks=spots,
       yticklabels=both.index.str.replace("_", " "))
ax.set_title(STORED)
plain_log_ticks(ax, "x")
ax.legend()
plt.show()
print(f"Best when only cut: {both['none'].idxmin()} ({both['none'].min():.1f}). Best "
      f"when repaired: {both['fold'].idxmin()} ({both['fold'].min():.1f}).")

# %%
plans = at_six[at_six["repair"] == "none"].set_index("criterion")["layers"].map(sorted)
gaps = plans.map(lambda layers: 1 + int((np.diff(layers) > 1).sum()))
back = 100 * np.log(both["none"] / both["fold"]) / np.log(both["none"]
    / whole["perplexity"])
print(STORED)
people = at_six.pivot(index="criterion", columns="repair",
                      values="natural").dropna(subset=["none", "fold"])
of_people = 100 * np.log(people["none"] / people["fold"]) / np.log(people["none"]
    / whole["natural"])
overview = both[["none", "fold"]].assign(layers=plans, gaps=gaps, percent_back=back,
    natural_none=people["none"], natural_fold=people["fold"])
print(f"On prose by people: {of_people.min():.0f} to {of_people.max():.0f} %; of the "
      f"loss on the course's own text {back.min():.0f} to {back.max():.0f} %.")
for name, some in (("one gap", overview[overview["gaps"] == 1]),
                   ("several gaps", overview[overview["gaps"] > 1])):
    print(f"{name}: repair takes back {some['percent_back'].min():.0f} to "
          f"{some['percent_back'].max():.0f} % of the loss that the cut added.")
overview.sort_values("fold").round(2)

# %% [markdown]
# Neither: the two ranges overlap. (`repaired_search` repaired every set before judging it, and ended at the same row.) But the repair had read text by the author of our test text. On prose by people it gives back half to four fifths as much, and still helps every plan.
#
# There are other repairs. `linear` puts a small matrix on the residual stream. `all` fits every layer behind the first gap. `merge` reads no text: the layer before the gap takes over how the weights of the removed ones differ from its own (LaCo, arXiv 2402.11187). *Predict:* can one add up the weights of layers that do different things?

# %%
wide = at_six.pivot(index="criterion", columns="repair", values="perplexity")
wide = wide.loc[["block_influence", "search", "repaired_search"], ["none", "merge", "fold", "linear", "all"]]
of_people = at_six.pivot(index="criterion", columns="repair", values="natural").loc[wide.index]
print("On prose by people, all against fold: " + ", ".join(f"{row['all']:.1f} and {row['fold']:.1f}" for _, row in of_people.iterrows()) + ".")
print(f"{STORED}: merging multiplies the cut model's perplexity by {(wide['merge'] / wide['none']).min():,.1f} or more; every fitted repair lowers it.")
wide.map("{:,.1f}".format)

# %% [markdown]
# No: the merged models are ruined. LaCo merges only where the outputs stay near the dense model's, and on larger models that works (lesson 07, section 7). We merged without that check.
#
# *Predict:* how far down does perplexity come with ten times the text? (Measured by `python measure/repair.py`.)

# %%
repair = pd.read_csv(data_folder() / "repair.csv")
curve = repair[(repair["removed"] == 6) & (repair["tokens"] > 0) & (repair["text"] == "ours")]
cut_six = repair[(repair["removed"] == 6) & (repair["tokens"] == 0)].iloc[0]
dense_row = repair[repair["removed"] == 0].iloc[0]
_, ax = plt.subplots(figsize=(8, 4), layout="constrained")
for sites, marker, colour, label in (("gaps", "s", PALETTE[1], "one FFN, before the gap"), ("all", "^", PALETTE[2], "every FFN from there on")):
    rows = curve[curve["sites"] == sites]
    ax.plot(rows["tokens"], rows["encyclopedic"], marker + "-", color=colour, markeredgecolor="black", label=label)
for value, name, style in ((cut_six["encyclopedic"], "cut, not repaired", "--"), (dense_row["encyclopedic"], "dense", ":")):
    ax.axhline(value, color="black", linestyle=style, label=name)
ax.set(xscale="log", yscale="log", xlabel="tokens that the repair reads (log scale)", ylabel="perplexity, encyclopedic (log scale)")
ax.set_title(STORED)
plain_log_ticks(ax, "x")
plain_log_ticks(ax)
ax.legend()
plt.show()
best_six = curve.loc[curve["encyclopedic"].idxmin()]
print(f"Six layers gone, encyclopedic perplexity: dense {dense_row['encyclopedic']:.1f}, cut {cut_six['encyclopedic']:.1f}, repaired with {best_six['tokens']:,} tokens {best_six['encyclopedic']:.1f} ± {best_six['encyclopedic_error']:.1f}.")

# %% [markdown]
# The curves fall up to about 16,000 tokens; after that a doubling buys hardly anything. Neither comes back to the dense model: a linear map can't replace all that the layers did.
#
# Does the repair bring back answers as well? Here is every offline task, in percent of what the dense model has above guessing:

# %%
final = repair[repair["removed"].isin([0, 6]) & (repair["grammar"].notna())]
tasks = ["grammar", "last_word", "physical", "science"]
above = pd.DataFrame({task: final[task] - final[f"{task}_chance"] for task in tasks})
names = final["sites"].map({"none": "cut", "gaps": "repaired, one FFN",
                            "all": "repaired, every later FFN"}).where(
                                final["removed"] > 0, "dense")
share = (100 * above / above.iloc[0]).set_axis(names.tolist())
errors = 100 * final[[f"{task}_error" for task in tasks]].set_axis(tasks,
    axis=1) / above.iloc[0]
print(f"{STORED}. Standard errors of these shares, without the dense model's own, "
      "reach", ", ".join(f"{errors[t].max():.0f} ({t})" for t in tasks) + " points.")
share.round(0)

# %% [markdown]
# Grammar is nearly whole again, and everyday physics has more than half of its loss back. The exact last word suffered most and regains about half. Science gains nothing that could be measured. And this took no new parameter and no gradient.

# %% [markdown]
# ## 7. Beat the algorithm
#
# Press layers to take them out; *the algorithm's choice* shows what greedy takes for the same number. Everything is valued on 128 tokens, so differences in the second digit mean nothing.

# %%
from shortgpt import Ablation
from shortgpt.course.explorers import explore_pruning

greedy_order = choosing[(choosing["criterion"] == "greedy") & (choosing["removed"]
    == 9)]["layers"].iloc[0]
if MODEL != "smollm2-135m-instruct":  # greedy's choice is stored for this one only
    greedy_order = np.argsort(damage).tolist()  # the least damage alone, from section 4
explore_pruning(model, tokenizer, greedy_order, text=texts[0])

# %% [markdown]
# Without a running notebook: put your layers into the list and run the cell. Ours is a naive guess, every third layer of the middle.

# %%
# of 30; elsewhere at the same depths
MINE = [layer * depth // 30 for layer in (8, 11, 14, 17, 20, 23)]
algorithms = {"Block Influence": removal_order(scores),
              "greedy (else least damage)": greedy_order}
game = Ablation(model, tokenizer, texts[0])
tried = game.table({"mine": MINE,
                    **{name: order[: len(MINE)] for name, order in algorithms.items()}})
tried[["layers", "perplexity", "times_dense", "text"]].round(2)

# %% [markdown]
# *Try it* (10 minutes, medium): beat greedy with three layers; then with six.

# %% [markdown]
# ## 8. Which of the paper's claims hold here
#
# The paper compares four criteria on Llama-2 and Baichuan2 (figures 5 and 6): BI is best over all; relative magnitude is close; removal from the end does well on MMLU (a multiple-choice exam) and badly on perplexity. And ours? How many layers, of 3, 6 and 9, may go before perplexity is four times the dense one?

# %%
print(STORED)
limit = 4 * whole["perplexity"]
middle = plain.groupby(["criterion", "removed"], sort=False)[
    "perplexity"].median().unstack().sort_index(axis=1)
allowed = (middle <= limit).cummin(axis=1).mul(middle.columns).max(axis=1).astype(
    int).sort_values(ascending=False)
for n in sorted(allowed.unique(), reverse=True):
    print(f"up to {n} layers: {', '.join(allowed.index[allowed == n])}")
bi = middle.loc["block_influence"]
for name in ("relative_magnitude", "sequential", "reverse"):
    print(f"{name} against Block Influence: " + ", ".join(
        f"{middle.loc[name, n] / bi[n]:,.2f} times ({n} layers)" for n in middle) + ".")
print("Better than Block Influence: " + ", ".join(
    f"{(middle[n] < bi[n]).sum()} of 10 others ({n} layers)" for n in middle) + ".")
print(f"Grammar at 6 layers: reverse {six.loc['reverse', 'grammar']:.0f}, Block "
      f"Influence {six.loc['block_influence', 'grammar']:.0f}, guessing 50.")

# %% [markdown]
# On our model, Gemma 3 270M and Qwen2.5-Coder-1.5B (all numbers: [three models](../docs/three_models.md)):
#
# - **BI before the orders by position.** Holds on our model and on the larger one. On Gemma only with three or four of 18 layers gone; with six or more, removing the last layers was better. (Both ruin the perplexity.)
# - **Relative magnitude close to BI.** Holds on our model, up to a third of the layers. On the two others relative magnitude is clearly ahead.
# - **BI is the best.** The paper says so of *its four*. On our model none of these is better at six and nine layers; on the two others relative magnitude is. Of all eleven, some are better at every number.
# - **Reverse is good at choosing answers.** Not on our model. But `grammar` is not MMLU, and our last layers matter more than Llama-2's, so this doesn't refute the paper.

# %% [markdown]
# ## Exercises
#
# Try these three functions first in the [exercise notebook](exercises/06_choosing_layers.ipynb), where a check tells you what is wrong with yours. Here they are solved.

# %% [markdown]
# ### Exercise 1: How much of an overlap is chance?
#
# **Difficulty:** easy · **Minutes:** 10
#
# Two random choices of six layers out of thirty have some layers in common. Write a measure that knows this. `first` and `second` are lists of layer numbers, equally many and in any order; `depth` is the number of layers of the model. Return 1 if both choose the same layers, 0 if they have as many in common as two random choices have in the mean, and in between (or below) by the straight line through these two points.
#
# <details><summary>Hint 1</summary>
# What share of its layers does a choice have in common with a random one? Think of one of its layers: how likely is it in the other?
# </details>
# <details><summary>Hint 2</summary>
# How far above chance is the overlap, against how far above chance it could be?
# </details>

# %% tags=["exercise"]
def overlap_above_chance(first, second, depth):
    """Overlap of two choices of equal size: 1 is the same, 0 is chance."""
    ### BEGIN SOLUTION
    share = len({*first} & {*second}) / len(first)
    chance = len(first) / depth
    return (share - chance) / (1 - chance)
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_overlap_above_chance, require_passed

check_overlap_above_chance(overlap_above_chance)

# %% tags=["apply"]
require_passed(overlap_above_chance)
stored = pd.read_csv(data_folder()
                     / "choosing.csv").query("repair == 'none' and removed == 6")
stored = stored.drop_duplicates("criterion").set_index(
    "criterion")  # of the coins, the first
plans = stored["layers"].map(json.loads)
print(STORED)
for name, layers in plans.drop("block_influence").items():
    above = overlap_above_chance(layers, plans["block_influence"],
        30)  # the table is of the default model
    common = len({*layers} & {*plans["block_influence"]})
    print(f"{name:26} {common} of 6 as Block Influence, above chance {above:+.2f}, "
          f"perplexity {stored.loc[name, 'perplexity']:,.0f}")

# %% [markdown]
# One layer of six in common is what chance gives. Now look at the perplexities: `reverse` and `search` agree with Block Influence equally well, and one of them is ruined. Agreement says whether two choices are *alike*, not whether they are good.

# %% [markdown]
# ### Exercise 2: A search by exchanges
#
# **Difficulty:** medium · **Minutes:** 20
#
# Greedy never takes a removal back. A search does. `cost(layers)` says what removing a list of layers costs, lower is better. Begin with the list `chosen`. Try every *exchange*: one layer of the list goes back in, and one of `candidates` that isn't in the list is removed in its place. Make the exchange with the lowest cost of all, and start again from there, until no exchange is better than what you have. Return that list, in any order.
#
# <details><summary>Hint 1</summary>
# Two loops give all exchanges: over the layers of the list, and over the candidates that are not in it.
# </details>
# <details><summary>Hint 2</summary>
# <code>min</code> with <code>key=cost</code> finds the best of a list of lists. Compare its cost with that of the list before you go on.
# </details>

# %% tags=["exercise"]
def exchange_search(cost, chosen, candidates):
    """The layers that no single exchange can improve, found from ``chosen``."""
    ### BEGIN SOLUTION
    best = list(chosen)
    while True:
        trials = []
        for out in best:
            rest = [layer for layer in best if layer != out]
            trials += [[*rest, new] for new in candidates if new not in best]
        found = min(trials, key=cost)
        if cost(found) >= cost(best):
            return best
        best = found
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_exchange_search

check_exchange_search(exchange_search)

# %% tags=["apply"]
require_passed(exchange_search)
short_text = Trials(model, calibration_batches(tokenizer, built_in_text()["text"],
    samples=1, length=160))
tried = {}


def cost(layers):
    """Loss (nats) without these layers on the short text; each set is measured once."""
    key = tuple(sorted(layers))
    if key not in tried:
        tried[key] = short_text(key)
    return tried[key]


ours = removal_order(score_layers(model, batches, progress=False))
start, found = sorted(ours[:3]), sorted(exchange_search(cost, ours[:3], ours[:10]))
print(f"{len(tried)} sets tried on {short_text.tokens} tokens")
for name, layers in {"Block Influence": start, "after the exchanges": found}.items():
    elsewhere = perplexity(remove_layers(model, layers), tokenizer, texts)
    print(f"{name:20} {layers}: loss {cost(layers):.2f} on the text of the search, "
          f"perplexity {elsewhere:.1f} on the four others")

# %% [markdown]
# On the text that they looked at, the exchanges lowered the loss, as a search always will. On the four other documents the result is no better. Never judge a search by its own loss. (*Try it* with six times as much text, `samples=4, length=256`, in about a minute.)

# %% [markdown]
# ### Exercise 3: The repair, in closed form
#
# **Difficulty:** hard · **Minutes:** 25
#
# Section 6 minimised
#
# $$\sum_t \frac{|x_{e,t} - y_t - z_t D|^2}{|x_{e,t}|^2} + \lambda |D|^2 .$$
#
# Write the function that does it. `z` `[tokens, k]` enters the last matrix before the gap, `y` `[tokens, hidden]` is the state that the pruned model brings, `goal` `[tokens, hidden]` the one it should bring ($x_e$), all float64, and `ridge` is $\lambda$. Return $D$ `[k, hidden]`. There may be fewer tokens than k; then the ridge alone makes the answer unique.
#
# <details><summary>Hint 1</summary>
# Each token is one line of a least-squares problem: what $z_t$ should bring is the rest, goal less y. Give every token its weight.
# </details>
# <details><summary>Hint 2</summary>
# At the minimum the derivative by $D$ is zero. That is a linear system with a square matrix of k rows: the weighted products of z with itself, and the ridge on its diagonal.
# </details>
# <details><summary>Hint 3</summary>
# <code>torch.linalg.solve(A, B)</code> solves it. A weight for each token has shape <code>[tokens, 1]</code>, so it multiplies z line by line.
# </details>

# %% tags=["exercise"]
def repair_matrix(z, y, goal, ridge):
    """The matrix D ``[k, hidden]`` that brings ``y + z @ D`` nearest to ``goal``."""
    ### BEGIN SOLUTION
    weight = 1 / goal.square().sum(-1, keepdim=True)  # [tokens, 1]
    square = z.T @ (weight * z) + ridge * torch.eye(z.shape[1], dtype=z.dtype)
    return torch.linalg.solve(square, z.T @ (weight * (goal - y)))
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_repair_matrix

check_repair_matrix(repair_matrix)

# %% tags=["apply"]
require_passed(repair_matrix)
gone, reading = (range(depth * 13 // 30, depth * 13 // 30 + 6),
                 calibration_batches(tokenizer, built_in_text()["text"], samples=8))
seen = {"z": [], "y": [], "goal": []}


def note(layer, x_in, x_out):
    """Keep the state before the gap, and the one that the dense model has behind it."""
    for name in [
            name for name, at in (("y", gone[0] - 1), ("goal", gone[-1])) if at == layer]:
        seen[name].append(x_out.flatten(0, 1))


handle = decoder_layers(model)[gone[0] - 1].mlp.down_proj.register_forward_pre_hook(
    lambda module, args: seen["z"].append(args[0].flatten(0, 1)))
with torch.inference_mode(), watch_layers(model, note):
    for batch in reading:
        model(**batch)
handle.remove()
z, y, goal = (torch.cat(parts).double() for parts in seen.values())  # [tokens, k], ...
# as large as the diagonal is in the mean
ridge = (z / goal.norm(dim=-1, keepdim=True)).square().sum(0).mean()
D = repair_matrix(z, y, goal, ridge)
short = remove_layers(model, gone)
down = decoder_layers(short)[gone[0] - 1].mlp.down_proj
before = perplexity(short, tokenizer, texts)
down.weight = torch.nn.Parameter(down.weight + D.T.to(down.weight))
print(f"{len(z):,} tokens. Perplexity: dense {dense:.1f}, six layers cut {before:.1f}, "
      f"repaired by you {perplexity(short, tokenizer, texts):.1f}")

# %% [markdown]
# (In Gemma a norm stands behind the matrix that you changed, so there the result means nothing.) `heal` solves the same system, tries several ridges on text that it holds back, and adds up over batches to save memory.

# %% [markdown]
# ## An open exercise: the six-layer challenge
#
# Nobody knows the best six layers to remove, or the best repair. [The challenge](../docs/challenge.md) has the rules, a scorer and ten baselines, on text that is written anew for each word. Begin with a plan: `plan.to_json("mine.json")`, then in a shell `shortgpt challenge mine.json --word 2026-12-01`. (*Try it:* the best row of layers, or the search of exercise 2 on other text.)

# %% [markdown]
# ## What we saw
#
# - A random choice, or an order by position, sooner or later hits a layer that matters. Reading the model once is enough to avoid that.
# - Relative magnitude and Block Influence measure the same triangle. They differ on layers that stretch the state; on two larger models these layers were worth keeping.
# - Angles can't see a small turn in an important direction. Trials can, for tens of passes; but on little text they choose for that text.
# - Damages don't add up: some pairs cost more together than one by one, others less.
# - A choice depends on the text and on the length of its samples.
# - Repair needs no training and helped every plan, on prose by people less than on text like that which it read.
#
# *Why does Block Influence allow more layers to go than an order by position (question 4)?* *How does relative magnitude differ from it (question 9)?* Write two sentences each, and then compare with [our answers](20_ten_questions.ipynb).
#
# > **Limits.** Most figures are of one small model; section 2 has two more. Texts are few, ± is one standard error over documents, and the best of eleven choices is always a little lucky. Most of our texts were written by one author, a language model. (On prose by people the same criterion is best at each number.) No model was pruned by the plans of section 5.

# %% [markdown]
# ## Three questions
#
# **1.** A layer multiplies every state by 1.5. What do Block Influence and relative magnitude say, and what happens if you remove it?
#
# <details><summary>Answer</summary>BI is 0; relative magnitude is 0.5/1.5 = one third. Without it all later layers read the same normalised state, but what they add weighs 1.5 times as much against it. Neither number says whether that matters.</details>
#
# **2.** Leave-one-out says layers 12 and 13 can each go at no cost. Why may you not conclude that both can?
#
# <details><summary>Answer</summary>If each does the same work, one may go because the other is there. Only a trial without both says what the pair costs. Greedy makes that trial; a list of single damages never does.</details>
#
# **3.** A search finds a plan that is better than BI's by 3 percent on the text it searched on. What do you check before you believe it?
#
# <details><summary>Answer</summary>Other text: a search that tries hundreds of sets on a thousand tokens also finds those that fit these tokens by luck. Measure on documents that no criterion read, compare item by item, and give the standard error of the difference.</details>

# %% [markdown]
# **Check yourself.** Three more questions: press a letter (or reach it with Tab and press Space). In a saved notebook, unfold the line below.

# %%
from shortgpt.course.quiz import quiz

quiz("06")

# %% [markdown]
# So far whole layers went. Is that the right piece to take? · **Next:** [07 · Depth or width](07_depth_or_width.ipynb) · **Previous:** [05 · Evaluation](05_evaluation.ipynb)
