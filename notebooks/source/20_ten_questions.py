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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/shortgpt-course/shortgpt/blob/main/notebooks/20_ten_questions.ipynb)
#
# # 20 · Ten questions about depth pruning
#
# Write your own answers first, all ten, before you scroll on; a guess is fine. Then each section shows a figure, your answer and ours.
#
# The figures are drawn from stored results, so the page is quick. "Our model" is SmolLM2-135M-Instruct, the small one of the lessons. Two more take part: gemma-3-270m, and qwen2.5-coder-1.5b-instruct ("the larger model"), which has ten times as many parameters and knows Chinese. *Nats* are units of the natural logarithm.
#
# **Before:** lessons [00](00_start_here.ipynb) to [08](08_beyond_transformers.ipynb) and [10](10_generation.ipynb) to [12](12_paper_at_scale.ipynb), or any part of them · **Takes:** about 1 minute on 2 CPU cores, and as long as you need to think · **Memory:** about 1 GB · **Download:** nothing

# %% [markdown]
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
    project = "shortgpt-pruning[eval] @ git+https://github.com/shortgpt-course/shortgpt"
    get_ipython().run_line_magic("pip", f"install -q -c /tmp/held.txt '{project}'")
    if not getattr(find_spec("shortgpt"), "origin", None):
        raise ImportError("pip could not install the toolkit, and says above why. If this is an old copy of the lesson, open "
                          "it anew from the course's page; else choose Runtime > Disconnect and delete runtime, and try again")

import torch
import transformers

import shortgpt

print(f"shortgpt {shortgpt.__version__}, torch {torch.__version__}, transformers {transformers.__version__}")

# %% [markdown]
# What the figures need:

# %%
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from shortgpt import (
    added_losses, choice_and_generation, choice_summary, cliff, evaluate,
    frontier_steps, load, read_grid,
)
from shortgpt.course.answer_book import AnswerBook
from shortgpt.course.plots import MARKERS, PALETTE, plain_log_ticks, plot_removal_curves
from shortgpt.course.studies.again import measured_again
from shortgpt.course.studies.curves import paired, removal_accuracy, removal_curves
from shortgpt.course.studies.twins import disagreements, prunability
from shortgpt.evaluation.benchmarks import BENCHMARKS
from shortgpt.utils.data import data_folder

LARGE = "qwen2.5-coder-1.5b-instruct"
LIVE = False  # True: fetch the larger model and measure some of its numbers again
DATA = data_folder()
layers = pd.read_csv(DATA / "layers.csv")
choosing = pd.read_csv(DATA / "choosing.csv")
dense = choosing[choosing["criterion"] == "dense"].iloc[0]
plans = choosing[(choosing["repair"] == "none") & (choosing["removed"] > 0)].copy()
plans["layers"] = plans["layers"].map(json.loads)

# %% [markdown]
# ## Your answers first
#
# A sentence or two each. Your answers are kept in a file (`output/ten_questions.json`) and appear again beside ours. Without a running notebook, take a sheet of paper: these are the questions.

# %%
QUESTIONS = {
    "1": "How is Block Influence computed, and why does it indicate importance?",
    "2": "What evidence is there that layers are redundant?",
    "3": "Why can plain removal of layers beat more complex pruning?",
    "4": "Why does Block Influence allow more layers to go than removal by position?",
    "5": "Is there more redundancy in depth or in width?",
    "6": "RWKV has no attention and turned out less redundant. What does that mean?",
    "7": "How do quantization and layer removal go together?",
    "8": "Why do tasks that write suffer more than tasks that choose?",
    "9": "How does relative magnitude differ from Block Influence, and when?",
    "10": "Does removal harm English and Chinese alike?",
}
book = AnswerBook(QUESTIONS, "../output/ten_questions.json")
book.ask()

# %% [markdown]
# > **Limits of all ten answers.** Three models, the largest with 1.5 billion parameters. Few documents (12 to 18) and few test items (80 to 480), so small differences mean nothing: ± is one standard error. What the paper's models do is read from its tables; we did not run them. An answer that holds for one model says so.
#
# ## 1. How is Block Influence computed, and why does it indicate importance?
#
# Each point is one plan of lesson 06, random ones included. Does a plan that removes more Block Influence lose more?

# %%
book.kept("1")

# %% tags=["hide-input"]
score = layers["block_influence"].to_numpy()
plans["lost"] = [score[gone].sum() for gone in plans["layers"]]
_, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for i, (n, some) in enumerate(plans.groupby("removed")):
    look = {"color": PALETTE[i], "markeredgecolor": "black", "label": f"{n} removed"}
    ax.plot(some["lost"], some["perplexity"], MARKERS[i], **look)
ax.axhline(dense["perplexity"], color="black", linestyle=":", label="dense")
ax.set(xscale="log", yscale="log", ylabel="perplexity (log scale)")
ax.set(xlabel="sum of the Block Influence removed (log scale)")
plain_log_ticks(ax, "x")
ax.legend()
plt.show()
ranks = lambda table: table.rank().corr().iloc[0, 1]  # noqa: E731
good = plans[plans["perplexity"] < 10 * dense["perplexity"]].groupby("removed")
both = ["lost", "perplexity"]
within = [f"{ranks(some[both]):.2f} ({n} removed)" for n, some in good]
print(f"Rank correlation over all plans: {ranks(plans[both]):.2f}.")
print(f"Among usable plans of one size: {', '.join(within)}.")
alone = ranks(layers[["block_influence", "added_loss"]])
print(f"Single layers, influence against the loss of leaving one out: {alone:.2f}.")

# %% [markdown]
# **Our answer.** For every token, take the cosine between the hidden state that enters the layer and the one that leaves it. Average over tokens and texts, and subtract from one. A low score means that the layer hardly turns the state. It should matter because the next layer reads the direction of the state: if a layer hardly turns it, later layers get nearly the input they were trained on. The figure agrees: plans that remove much influence are ruined. But within the good plans the score hardly ranks, because it sees the layer's own step and not what later layers need ([02](02_block_influence.ipynb), section 10; [06](06_choosing_layers.ipynb), section 4).

# %% [markdown]
# ## 2. What evidence is there that layers are redundant?
#
# Leave out one layer at a time. How many of the thirty are missed?

# %%
book.kept("2")

# %% tags=["hide-input"]
added = layers["added_loss"]
cheap = added < np.log(1.25)
_, ax = plt.subplots(figsize=(9, 3.4), layout="constrained")
groups = ((~cheap, "", "more"), (cheap, "///", "perplexity times less than 1.25"))
for i, (chosen, hatch, label) in enumerate(groups):
    look = {"color": PALETTE[i], "hatch": hatch, "edgecolor": "black", "label": label}
    ax.bar(layers["layer"][chosen], added[chosen], **look)
ax.set(xlabel="layer left out", ylabel="loss added (nats)", xticks=range(0, 30, 5))
ax.legend()
plt.show()
print(f"{cheap.sum()} of {len(layers)} layers multiply perplexity by less than 1.25.")
best = plans.loc[plans.groupby("removed")["perplexity"].idxmin()].set_index("removed")
best["times dense"] = best["perplexity"] / dense["perplexity"]
best["single factors"] = [np.exp(added[gone].sum()) for gone in best["layers"]]
best[["layers", "times dense", "single factors"]].round(2)

# %% [markdown]
# **Our answer.** Three kinds. Neighbouring states are almost parallel ([01](01_hidden_states.ipynb)). Half of the layers can each be left out at moderate cost. And several can go together: in the paper, Llama-2-7B without nine of 32 layers keeps most of its benchmark scores ([05](05_evaluation.ipynb), section 13, with what guessing adds). On our model the cheap layers are in the *middle*; the last one is among the most expensive, so "deep layers are redundant" is not true of it. Small costs also multiply: nine layers that hardly matter alone are too many together. So *redundant* needs a number: how many layers, and what is measured afterwards.

# %% [markdown]
# ## 3. Why can plain removal beat more complex pruning?
#
# Left, the paper's table 2: the average over thirteen benchmarks. Right, our model without as many parameters as six layers have, cut in seven ways.

# %%
book.kept("3")

# %% tags=["hide-input"]
table2 = pd.read_csv(DATA / "paper" / "table2_summary.csv")
table2 = table2.pivot(index="method", columns="model", values="retention_percent")
table2 = table2.drop("Dense")
width = pd.read_csv(DATA / "width.csv")
six = width[width["layers"] == 6].set_index("removed")["times_dense"]
six = six.sort_values(ascending=False)
_, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for i, (name, values) in enumerate(table2.items()):
    look = {"color": PALETTE[i], "markeredgecolor": "black", "label": name}
    left.plot(values, range(len(values)), MARKERS[i], **look)
left.set(yticks=range(len(table2)), yticklabels=table2.index, xlim=(0, 104))
left.set(xlabel="% of the dense average", title="the paper's models")
left.legend(fontsize=8, loc="lower left")
right.plot(six, six.index, "o", color=PALETTE[0], markeredgecolor="black")
right.set(xscale="log", xlabel="perplexity, times dense (log scale)", title="our model")
right.grid(axis="y", linewidth=0.3)
plt.show()
wins = (table2.idxmax() == "ShortGPT").sum()
print(f"In the paper ShortGPT is ahead for {wins} of {table2.shape[1]} models.")
told = ", ".join(f"{name} {value:,.1f}" for name, value in six[::-1].items())
print(f"Our model, from best to worst: {told}.")

# %% [markdown]
# **Our answer.** Layers add to the state, so a missing one leaves the others in working order, while a cut in width disturbs every layer. Block Influence measures the error that removal makes; a more complex method may rest on a score that doesn't, such as the size of weights. And there is nothing to tune. But plain removal does not always win. On our model, channels chosen by what they *do* on a text are ahead of whole layers at every size. And in the paper's table three of the four methods are quoted from another paper, one of them without the fine-tuning that belongs to it. FLAP, and LLM-Pruner with its fine-tuning, are ahead of ShortGPT on Llama-7B ([07](07_depth_or_width.ipynb), section 7).

# %% [markdown]
# ## 4. Why does Block Influence allow more layers to go?
#
# Figure 5 of the paper, drawn again for three models on prose by people. Which ways are still usable with a fifth of the layers gone?

# %%
book.kept("4")

# %% tags=["hide-input"]
names = ["dense", "block_influence", "relative_magnitude", "greedy", "random"]
names += ["reverse", "sequential"]
three = removal_curves(text="en").query("language == 'en' and criterion in @names")
plot_removal_curves(three, highlight=["block_influence", "greedy", "reverse"])
plt.show()

# %% tags=["hide-input"]
some = three.query("criterion in ['block_influence', 'greedy']")
for (model, criterion), line in some.groupby(["model", "criterion"], sort=False):
    line = {"removed": [0, *line["removed"]], "value": [1, *line["times"]]}
    last = cliff(pd.DataFrame(line))
    found = "no cliff" if last is None else f"a cliff after {last} layers"
    print(f"{model}, {criterion}: {found} (tried up to {max(line['removed'])})")
sets = three.query("model == @LARGE").set_index(["criterion", "removed"])["layers"]
for n in (4, 8):
    value, error = paired(LARGE, sets["block_influence", n], sets["greedy", n])
    print(f"{LARGE}, {n}: BI costs {value:.2f} ± {error:.2f} nats more than greedy.")

# %% [markdown]
# **Our answer.** What it removes first hardly turns the state, and it goes *around* the few layers that matter. (*Why* so many layers hardly turn it is the question of lesson [11](11_why_layers_repeat.ipynb): where the norms stand has much to do with it.) An order by position soon takes one of these: the first layer, or, on the small and the larger model, the last. No later choice repairs that. On these two models the gap is orders of magnitude wide. Two limits. On Gemma the last layers matter little, and with six or more gone *reverse* is even better than Block Influence (both are ruined). And among criteria that read the model, Block Influence is not the best on the two larger ones: relative magnitude is ahead, and greedy, which tries what it removes, is ahead of both ([06](06_choosing_layers.ipynb), sections 2 and 3). How many layers may go is not in the scores: by Block Influence Gemma collapses at the fifth layer, by greedy it doesn't. Remove one more at a time and measure.

# %% [markdown]
# ## 5. Depth or width?
#
# The same number of parameters removed, in depth (solid lines) and in width (dashed).

# %%
book.kept("5")

# %% tags=["hide-input"]
kinds = ["layers", "ffn", "attention", "channels, activation", "channels, magnitude"]
kinds += ["heads, activation"]
_, ax = plt.subplots(figsize=(9, 4), layout="constrained")
for i, kind in enumerate(kinds):
    rows = width[width["removed"] == kind]
    style = MARKERS[i] + ("--" if "," in kind else "-")
    ax.plot(rows["layers"], rows["times_dense"], style, color=PALETTE[i], label=kind)
ax.axhline(1, color="black", linestyle=":")
ax.set(yscale="log", xticks=[3, 6, 9], ylabel="perplexity, times dense (log scale)")
ax.set(xlabel="parameters removed, as many as this number of layers has")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
pair = width.pivot(index="layers", columns="removed", values="times_dense").drop(0)
for n, row in pair.iterrows():
    told = ", ".join(f"{kind} {row[kind]:,.2f}" for kind in kinds[::3] + kinds[4:5])
    print(f"As many parameters as {n} layers, times dense perplexity: {told}.")

# %% [markdown]
# **Our answer.** The paper says depth, because depth methods keep more in its table 2. On our model the same number of channels is the best cut of all or the worst, depending on the score that picks them. That difference is far larger than the one between depth and width, so the claim does *not* hold here: it is a claim about a model, a size of cut and certain scores. What can be said for depth: its redundancy is the cheapest to find, and a shorter model saves time and cache without special kernels. Better choices of layers and better width methods exist than the two compared here ([07](07_depth_or_width.ipynb)).

# %% [markdown]
# ## 6. What does RWKV's redundancy mean?
#
# RWKV is a model without attention. From the paper's table 3: **its models, its runs**. Left, plain averages; right, only what is above guessing, over the benchmarks where the dense model is at least five points above it.

# %% tags=["hide-input"]
def above_guessing(rows: pd.DataFrame) -> np.ndarray:
    """Percent kept of the first row's score above guessing; a column a benchmark."""
    chance = pd.Series({name: each.chance for name, each in BENCHMARKS.items()})
    extra = rows.rename(columns=str.lower)[chance.index] - chance
    clear = extra.iloc[0] >= 5
    kept = extra.loc[:, clear].sum(axis=1)
    return (100 * kept / extra.iloc[0][clear].sum()).to_numpy()


# %% [markdown]
# The models of table 3 beside those of table 2:

# %% tags=["hide-input"]
table3 = pd.read_csv(DATA / "paper" / "table3_non_transformers.csv")
scores = pd.read_csv(DATA / "paper" / "table2_benchmarks.csv")
scores = scores.query("method in ['Dense', 'ShortGPT']")
keys = ["model", "method", "ratio_percent"]
scores = scores.pivot(index=keys, columns="benchmark", values="score").reset_index()
curves = pd.concat([table3, scores], ignore_index=True)

# %%
book.kept("6")

# %% tags=["hide-input"]
_, axes = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True, layout="constrained")
rows = {}
for i, (name, some) in enumerate(curves.groupby("model", sort=False)):
    ratio = some["ratio_percent"].to_numpy()
    plain = some[list(table3.columns[2:15])].mean(axis=1)
    kept = (100 * plain / plain.iloc[0]).to_numpy(), above_guessing(some)
    style = MARKERS[i] + ("--" if i > 1 else "-")
    for ax, values in zip(axes, kept, strict=True):
        ax.plot(ratio, values, style, color=PALETTE[i], label=name)
    at = int(np.argmin(np.abs(ratio - 25)))
    rows[name] = {"removed (%)": ratio[at], "plain": kept[0][at], "above": kept[1][at]}
axes[0].set(title="plain retention", ylabel="percent of dense", ylim=(0, 104))
axes[1].set(title="above guessing")
for ax in axes:
    ax.set_xlabel("removed (%)")
axes[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
quarter = pd.DataFrame(rows).T
print(f"Without a quarter {quarter['above'].idxmin()} keeps least above guessing.")
display(quarter.round(1))
again = pd.read_csv(DATA / "paper" / "replications_other.csv")
again = again[again["model"].isin(["Mamba-2.8B", "RWKV-7B"])]
again.loc[again["method"] == "ShortGPT", "model":]

# %% [markdown]
# And our own evidence: three small models of lesson [08](08_beyond_transformers.ipynb), one of each kind, equal in size, text and training. Loss in nats a token: of the whole model, and what a quarter of the layers adds, cut and repaired.

# %% tags=["hide-input"]
twins = prunability().set_index("kind").loc[["pre-norm", "mamba", "rwkv"]]
twins[["dense", "cut", "repaired"]].round(2)

# %% [markdown]
# **Our answer.** Mamba and RWKV have no softmax attention, and layers can be taken out of both. So redundancy in depth does not come from attention; it comes with deep stacks of residual layers. In the paper Mamba loses about as slowly as the transformers, while RWKV loses from the first cut on and keeps the least of all six. The paper reads this as less redundancy in RWKV. But a later paper (second table) measured the same two models, also with ShortGPT, by perplexity, and there it is *Mamba* that breaks. (It has its own protocol, and we know no dense values.) So don't conclude that recurrent models are less redundant: it depends on the model and on the measure. The paper's RWKV-7B belongs to the fifth generation of RWKV; transformers, and so our toolkit, runs RWKV-4. Among our own three the quarter costs about the same with attention and without. They are tiny, and there is one of each kind, so this is a hint and no proof.

# %% [markdown]
# ## 7. How do quantization and layer removal go together?
#
# If the two losses had nothing to do with each other, both together would cost their sum: the dashed line. Each point is a pruned and quantized model.

# %%
book.kept("7")

# %% tags=["hide-input"]
grids = {
    "our model": read_grid(DATA / "grid.csv").query("order != 'quantize first'"),
    "the larger model": read_grid(DATA / "grid_large.csv"),
}
_, panels = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
for ax, (name, grid) in zip(panels, grids.items(), strict=True):
    both = added_losses(grid)
    for i, (method, rows) in enumerate(both.groupby("method", sort=False)):
        total = rows["added_by_pruning"] + rows["added_by_quantization"]
        look = {"color": PALETTE[i], "label": method, "markeredgecolor": "black"}
        errors = rows["interaction_error"]
        ax.errorbar(total, rows["added_by_both"], errors, fmt=MARKERS[i], **look)
    ax.axline((0.4, 0.4), slope=1, color="black", linestyle="--", label="they add up")
    ax.set(title=name, xlabel="loss of pruning + loss of quantization (nats)")
    ax.set(ylabel="loss of both together (nats)")
    ax.legend()
    share = 100 * both["interaction"] / both["added_by_both"]
    print(f"{name}: {(share > 0).sum()} of {len(both)} points lie above the line,")
    print(f"  difference {share.min():.1f} to {share.max():.1f} % of the loss of both.")
plt.show()
best = pd.concat({name: frontier_steps(grid) for name, grid in grids.items()})
best[["method", "removed", "memory_mb", "perplexity"]].round(1)

# %% [markdown]
# The table lists the models that no other beats in both size and perplexity.
#
# **Our answer.** They combine well. Fewer weights and fewer bits touch different things, so the savings multiply; the losses nearly add in nats, so they nearly multiply in perplexity. The paper calls this orthogonal, and as a forecast that is right. As a law it isn't: on our model every point lies above the line. For memory alone, reduce bits first: on neither model is a shortened one with 8 or more bits in the table ([04](04_quantization.ipynb), section 7). In memory we would ship the larger model in 4 bits with all its layers; remove layers where time is short. Which is *done* first cannot matter where each matrix is rounded by itself. GPTQ reads text while it rounds, and there the order mattered once, at nine layers; we don't know why.

# %% [markdown]
# ## 8. Why does writing suffer more than choosing?
#
# The same questions asked twice: choose from a list, or write the answer.

# %%
book.kept("8")

# %% tags=["hide-input"]
answered = pd.read_csv(DATA / "choice_generation.csv", keep_default_na=False)
asked = pd.read_csv(DATA / "removal_answers.csv", keep_default_na=False)
asked = asked.query("model == @LARGE and task == 'science'")
asked = asked.assign(removed=asked["layers"].map(json.loads).map(len))
ours = answered[answered["task"] == "physical"]
tasks = {"physical, our model": (ours, 50), "science, the larger model": (asked, 25)}
_, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for ax, (title, (table, guess)) in zip(axes, tasks.items(), strict=True):
    ways = {n: choice_summary(rows).iloc[0] for n, rows in table.groupby("removed")}
    ways = pd.DataFrame(ways).T
    for i, way in enumerate(("choice", "written")):
        look = {"fmt": ("o-", "s--")[i], "color": PALETTE[i], "label": way}
        ax.errorbar(ways.index, ways[way], ways[f"{way}_error"], capsize=4, **look)
    ax.axhline(guess, color="black", linestyle=":", label="guessing, if one may choose")
    ax.set(xlabel="layers removed", ylabel="right (percent)", xticks=ways.index)
    ax.set(ylim=(0, 103), title=title)
    ahead, error = ways["difference"], ways["difference_error"]
    told = [f"{n} removed {ahead[n]:+.0f} ± {error[n]:.0f}" for n in ways.index]
    print(f"{title}: choosing is ahead of writing by {'; '.join(told)} points.")
axes[0].legend(fontsize=8)
plt.show()

# %% [markdown]
# And what causes loops, the writer or the text? The two halves of each text were written by the dense or by the pruned model.

# %% tags=["hide-input"]
loops = pd.read_csv(DATA / "relay.csv")
keys = ["first", "second"]
loops = loops.pivot(index="prompt", columns=keys, values="repeated_after")
loops = loops.dropna().set_axis([f"{a}, then {b}" for a, b in loops], axis=1)
_, ax = plt.subplots(figsize=(7, 2.4), layout="constrained")
ax.errorbar(loops.mean(), loops.columns, xerr=loops.sem(), fmt="o", capsize=4)
ax.set(xlabel="repeated word triples in the second half (share)", xlim=(0, 1))
plt.show()
told = ", ".join(f"{name} {value:.2f}" for name, value in loops.mean().items())
print(f"Repeated triples of the second half: {told}.")

# %% [markdown]
# **Our answer.** In a list of answers, much of what both answers lose cancels; and a model that can no longer say anything still "chooses". Writing asks for the best token of the whole vocabulary each time, and what was taken becomes part of the next question. The paper calls this accumulation of errors. On our model the distance from the dense one does *not* grow along the text: it is there at the first token, stays high where a pair of tokens is new, and is small only where the text repeats itself ([10](10_generation.ipynb), section 3). What goes bad is the *text*: after a looping first half the dense model mostly loops as well.
#
# There is no simple rule, as the first figure shows. The small model only guesses from the start, and a guesser has nothing to lose. The larger model knows the answers; with two or four layers gone *choosing* falls further than writing, because it begins to write sentences instead of naming a choice. Where greedy chose the layers, the paper's picture is there: bare questions stay right, and the exact last word of a text falls by more than a third ([05](05_evaluation.ipynb), section 12).

# %% [markdown]
# ## 9. Relative magnitude or Block Influence?
#
# Both scores of every layer of three models. On which layers do the two disagree?

# %%
book.kept("9")

# %% tags=["hide-input"]
scored = pd.read_csv(DATA / "removal_layers.csv")
_, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
for i, (name, rows) in enumerate(scored.groupby("model", sort=False)):
    x, y = rows["relative_magnitude"], rows["block_influence"]
    ax.plot(x, y, MARKERS[i], color=PALETTE[i], markeredgecolor="black", label=name)
    far = rows.loc[(y / x**2).nsmallest(3).index].sort_values("layer")
    told = [f"{r.layer} (state {r.longer:.2f} times as long)" for r in far.itertuples()]
    print(f"{name}: rank correlation {x.rank().corr(y.rank()):.2f}.")
    print(f"  farthest below the line: layers {', '.join(told)}.")
line = np.geomspace(*scored["relative_magnitude"].agg(["min", "max"]))
ax.plot(line, line**2 / 2, "k--", label="right angle: half the square")
ax.set(xscale="log", yscale="log", xlabel="relative magnitude (log scale)")
ax.set(ylabel="Block Influence (log scale)")
plain_log_ticks(ax, "x")
plain_log_ticks(ax)
ax.legend(fontsize=8)
plt.show()

# %% [markdown]
# Which one chooses better? Perplexity after choosing by relative magnitude, divided by that of Block Influence: on our three models, and on six that other people measured (BlockPruner, table 1).

# %% tags=["hide-input"]
others = pd.read_csv(DATA / "paper" / "replications_wikitext2.csv")
others = others.pivot(index="model", columns="method", values="ppl")
others = others["Relative Magnitude"] / others["ShortGPT"]
keys = ["model", "removed"]
times = three.pivot_table(index=keys, columns="criterion", values="times")
times = times["relative_magnitude"] / times["block_influence"]
depths = scored.groupby("model", sort=False).size().items()
ours = pd.Series({f"{name}, {n} of {depth}": times[name, n] for name, depth in depths
                  for n in (round(depth / 5), 2 * round(depth / 6))})
ratio = pd.concat([others, ours])
_, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
ax.plot(ratio, ratio.index, "s", color=PALETTE[1], markeredgecolor="black")
ax.axvline(1, color="black", linestyle=":")
ax.set(xscale="log", xlabel="relative magnitude / Block Influence (log scale)")
ax.grid(axis="y", linewidth=0.3)
plt.show()
for name, some in {"our models": ours, "models of others": others}.items():
    low, high = (f"{some[at]:.2f} ({at})" for at in (some.idxmin(), some.idxmax()))
    print(f"On {name} the ratio of perplexities runs from {low} to {high}.")

# %% [markdown]
# And on a small model of lesson [11](11_why_layers_repeat.ipynb), a transformer with 16 layers: the layers that only one of the two removes, and the nats a token that are lost by each one's choice.

# %% tags=["hide-input"]
disagreements("twin-pre-norm-0").round(3)

# %% [markdown]
# **Our answer.** Relative magnitude is the length of what a layer adds, divided by the length of what leaves it. Block Influence is the turn alone. Where a layer adds little and at a wide angle, the second is about half the square of the first, and they rank alike. They part on a layer that mostly stretches the state: relative magnitude calls it important, Block Influence does not. On our small model the choice hardly matters up to a fifth of the layers. On the two larger ones Block Influence takes stretching layers early and loses more by it. On models of others either of the two may be ahead, many times over, and on the small model of lesson 11 it is one with few layers gone and the other with many. So compute both, and measure what comes out ([06](06_choosing_layers.ipynb), section 3).

# %% [markdown]
# ## 10. English against Chinese
#
# What is kept of the score above guessing, with its standard error? First our small model.

# %%
book.kept("10")

# %%
ours = pd.read_json(DATA / "evaluated.jsonl", lines=True)
ours["removed"] = 3 * ours.groupby("fingerprint", sort=False).ngroup()
ours = ours.set_index(["task", "removed"])[["value", "standard_error"]]
small = []
for task, n in (("physical", 3), ("physical", 6), ("chinese", 3), ("chinese", 6)):
    (whole, whole_error), (cut, error) = ours.loc[(task, 0)], ours.loc[(task, n)]
    share = 100 * (cut - 50) / (whole - 50)
    error = np.hypot(100 * error, share * whole_error) / (whole - 50)  # of a ratio
    small.append((task, n, share, error))
    print(f"{task}: {n} removed, keeps {share:.0f} ± {error:.0f} % above guessing")

# %% [markdown]
# The same beside the larger model, with 120 science questions in both languages and layers chosen on English text (filled) or on Chinese text (outlines), and beside two exams of the paper:

# %% tags=["hide-input"]
exam = pd.read_csv(DATA / "paper" / "table2_benchmarks.csv")
exam = exam.pivot(index=["model", "benchmark"], columns="method", values="score")
exam = (exam["ShortGPT"] - 25) / (exam["Dense"] - 25)
exam = 100 * exam.unstack()[["MMLU", "CMMLU"]]
known = removal_accuracy(criterion="block_influence").query("model == @LARGE")
_, axes = plt.subplots(1, 3, figsize=(13, 3.6), sharey=True, layout="constrained")
for i, rows in enumerate((small[:2], small[2:])):
    task, n, share, error = zip(*rows, strict=True)
    look = {"fmt": MARKERS[i], "capsize": 4, "color": PALETTE[i], "label": task[0]}
    axes[0].errorbar(np.add(n, 0.3 * i), share, error, **look)
for i, task in enumerate(("science", "science_zh")):
    for text, line, fill in (("en", "-", PALETTE[i]), ("zh", ":", "none")):
        rows = known[(known["task"] == task) & known["text"].isin(["", text])]
        rows = rows.sort_values("removed").set_index("removed")["above_chance"]
        look = {"color": PALETTE[i], "mfc": fill, "label": f"{task}, chosen on {text}"}
        axes[1].plot(rows, MARKERS[i] + line, **look)
for i, name in enumerate(exam):
    axes[2].plot(exam.index, exam[name], MARKERS[i], color=PALETTE[i], label=name)
for i, title in enumerate(("our model", "the larger model", "the paper's models")):
    axes[i].set(title=title, ylim=(0, 150), xlabel="layers removed" if i < 2 else "")
    axes[i].legend(fontsize=8)
axes[0].set(ylabel="percent kept above guessing", xticks=[3, 6])
plt.show()
more = (exam["CMMLU"] < exam["MMLU"] - 3).sum()
print(f"Models of the paper that lose 3 points more in Chinese: {more} of {len(exam)}.")

# %% [markdown]
# And the loss on prose by people. What does it cost each language if the layers were chosen on text in the other one?

# %% tags=["hide-input"]
by = removal_curves(criterion="block_influence").query("model == @LARGE")
by = by[by["removed"] > 0]
by = by.drop_duplicates(["text", "removed"]).set_index(["text", "removed"])["layers"]
counts = [n for n in by["en"].index if n in by["zh"].index]
_, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
for i, language in enumerate(("en", "zh")):
    found = [paired(LARGE, by["zh", n], by["en", n], language) for n in counts]
    value, error = np.transpose(found)
    look = {"fmt": MARKERS[i], "capsize": 3, "color": PALETTE[i]}
    look["label"] = f"measured in {language}"
    ax.errorbar(np.array(counts) + 0.15 * i, value, error, **look)
ax.axhline(0, color="black", linestyle=":")
ax.set(xlabel="layers removed", title=LARGE)
ax.set(ylabel="loss, chosen on Chinese minus\nchosen on English (nats)")
ax.legend()
plt.show()
same = ", ".join(str(n) for n in counts if by["en", n] == by["zh", n])
print(f"Both texts choose the same layers for {same} removed.")

# %% [markdown]
# **Our answer.** Our small model can't tell. It has little Chinese to lose, and the error bars of what it keeps are wide (first table): with six layers fewer most of it seems gone, while most of the English stays. The larger model knows both languages well, and its answers in Chinese fall no more than those in English; in bits per byte its English loses the larger share. So perhaps what is barely known is lost first, in whatever language. The text that layers are chosen on matters less than expected: both texts often choose the same layers, and where they don't, the text in the measured language is not always better. In the paper's exams no language loses more throughout. The practical rule: measure every language that the model is for, with two or three plans ([05](05_evaluation.ipynb), section 12; [three models](../docs/three_models.md), section 3).

# %% [markdown]
# With `LIVE = True` in the second code cell, some numbers of the larger model are measured now (1.1 GB to fetch, 5 GB of memory, ten minutes on two cores):

# %%
if LIVE:
    large, its_tokenizer = load(LARGE)
    kinds = [(name, n) for name in ("block_influence", "greedy") for n in (4, 8)]
    again = {f"{name}, {n} removed": sets[name, n] for name, n in kinds}
    display(measured_again(large, its_tokenizer, LARGE, again).round(3))
    found = choice_and_generation(large, its_tokenizer, "science", limit=20)
    display(choice_summary(found).round(0))
    both = ["science", "science_zh"]
    display(evaluate(large, its_tokenizer, both, limit=40).round(1))

# %% [markdown]
# ## How did you do?
#
# Compare your answers with ours. A good answer names the experiment, says on which model it was done, and says what would change the author's mind. If you disagree and can name a measurement, you may well be right: every figure is drawn from a file in `data/`, and the script that wrote the file is named in [its README](../data/README.md).
#
# Back to the beginning: [00 · Start here](00_start_here.ipynb)
