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
# Whoever has finished the course can answer these ten questions, and say which experiment the answer rests on. First write your own answers, all ten, before you scroll on; a guess is fine, and a wrong guess is the best start. Then each section sets your answer beside a figure and an answer of ours.
#
# The figures are drawn from results that the lessons and the scripts in `measure/` have stored, so the page is quick. "Our model" is SmolLM2-135M-Instruct, the small one of the lessons. Some questions it can't answer: it guesses where it should know. There two more models take part: gemma-3-270m, and qwen2.5-coder-1.5b-instruct ("the larger model"), which is ten times as large and knows Chinese. Where a claim of the paper does not hold on one of them, the answer names the model.
#
# **Before:** lessons [00](00_start_here.ipynb) to [07](07_depth_or_width.ipynb) and [10](10_generation.ipynb), or any part of them · **Takes:** about 1 minute on 2 CPU cores, and as long as you need to think · **Memory:** about 1 GB · **Download:** nothing

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
    project = "shortgpt-pruning[eval,quant] @ git+https://github.com/shortgpt-course/shortgpt"
    get_ipython().run_line_magic("pip", f"install -q -c /tmp/held.txt '{project}'")
    if not getattr(find_spec("shortgpt"), "origin", None):
        raise ImportError("pip could not install the toolkit, and says above why. If this is an old copy of the lesson, open "
                          "it anew from the course's page; else choose Runtime > Disconnect and delete runtime, and try again")

import torch
import transformers

import shortgpt

print(f"shortgpt {shortgpt.__version__}, torch {torch.__version__}, transformers {transformers.__version__}")

# %% [markdown]
# What the figures need. `DATA` is the folder with the stored results.
#
# **Don't believe the stored results of the larger model?** Set `LIVE = True`. Some of them are then measured again, in the last cell of the page: it fetches the model (1.1 GB, once), needs 5 GB of memory, and takes about ten minutes on two cores.

# %%
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from shortgpt import added_losses, choice_and_generation, choice_summary, cliff, evaluate, frontier_steps, load, read_grid
from shortgpt.course.answer_book import AnswerBook
from shortgpt.evaluation.benchmarks import BENCHMARKS
from shortgpt.course.plots import MARKERS, PALETTE, plain_log_ticks, plot_removal_curves
from shortgpt.course.studies.again import measured_again
from shortgpt.course.studies.curves import paired, removal_accuracy, removal_curves
from shortgpt.utils.data import data_folder

LARGE = "qwen2.5-coder-1.5b-instruct"
LIVE = False  # True: measure some of the larger model's numbers again
DATA = data_folder()
layers = pd.read_csv(DATA / "layers.csv")
choosing = pd.read_csv(DATA / "choosing.csv")
dense = choosing[choosing["criterion"] == "dense"].iloc[0]
plans = choosing[(choosing["repair"] == "none") & (choosing["removed"] > 0)].copy()
plans["layers"] = plans["layers"].map(json.loads)

# %% [markdown]
# ## Your answers first
#
# A sentence or two each. What you keep is written to a file (`output/ten_questions.json`), so it is still there tomorrow, and it appears again beside our answer. Without a running notebook, take a sheet of paper: these are the questions.

# %%
QUESTIONS = {
    "1": "How is Block Influence computed, and why should it say how important a layer is?",
    "2": "What evidence is there that layers are redundant?",
    "3": "Why can plain removal of layers beat more complex pruning?",
    "4": "Why does Block Influence allow more layers to go than removal by position (figure 5 of the paper)?",
    "5": "Is there more redundancy in depth or in width?",
    "6": "What does it mean that RWKV, which has no attention, turned out less redundant?",
    "7": "How do quantization and layer removal go together?",
    "8": "Why do tasks that write suffer more than tasks that choose?",
    "9": "How does relative magnitude differ from Block Influence, and when does it matter?",
    "10": "Does removal harm English and Chinese alike?",
}
book = AnswerBook(QUESTIONS, "../output/ten_questions.json")
book.ask()

# %% [markdown]
# ## 1. How is Block Influence computed, and why does it indicate importance?
#
# If the score measures what is lost, then plans that remove more of it must be worse, whoever made them. Each point is one plan of lesson 06, chosen by one of its criteria, the coin among them.

# %%
book.kept("1")

# %% tags=["hide-input"]
score = layers["block_influence"].to_numpy()
plans["lost"] = [score[gone].sum() for gone in plans["layers"]]
_, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for marker, (n, some), colour in zip(MARKERS, plans.groupby("removed"), PALETTE, strict=False):
    ax.plot(some["lost"], some["perplexity"], marker, color=colour, markeredgecolor="black", label=f"{n} removed")
ax.axhline(dense["perplexity"], color="black", linestyle=":", label="dense")
ax.set(xscale="log", yscale="log", xlabel="sum of the Block Influence removed (log scale)", ylabel="perplexity (log scale)")
plain_log_ticks(ax, "x")
ax.legend()
plt.show()
close = plans[plans["perplexity"] < 10 * dense["perplexity"]]
alone = layers[["block_influence", "added_loss"]].rank().corr().iloc[0, 1]
within = {n: some[["lost", "perplexity"]].rank().corr().iloc[0, 1] for n, some in close.groupby("removed")}
print(f"Rank correlation of removed influence and perplexity over all {len(plans)} plans: {plans[['lost', 'perplexity']].rank().corr().iloc[0, 1]:.2f}.")
print("Among plans of one size, below ten times the dense perplexity: " + ", ".join(f"{value:.2f} ({n} removed)" for n, value in within.items()) + ".")
print(f"Of single layers, influence and the loss that leaving one out adds: {alone:.2f}.")

# %% [markdown]
# **Our answer.** For every token, take the cosine of the hidden state that enters the layer and the one that leaves it; average over tokens and texts; subtract from one. A low score means: the layer hardly turns what passes through. It *should* matter because a layer only adds to the state and the next layer reads the state's direction, so a layer that hardly turns it leaves the rest almost the input they were trained on. It *does* indicate importance in the sense of the figure: plans that remove much influence are the ruined ones. But it is a proxy. It sees the layer's own step and not what later layers need, and it needs no right answers, which is its charm and its limit: within the good plans it hardly ranks, and single layers are missed more than their angle says (lessons [02](02_block_influence.ipynb), section 10, and [06](06_choosing_layers.ipynb), section 4).

# %% [markdown]
# ## 2. What evidence is there that layers are redundant?
#
# The plainest test is to leave out one layer at a time. How many of the thirty are missed?

# %%
book.kept("2")

# %% tags=["hide-input"]
_, ax = plt.subplots(figsize=(9, 3.4), layout="constrained")
cheap = layers["added_loss"] < np.log(1.25)
for chosen, hatch, colour, label in ((~cheap, "", PALETTE[0], "more"), (cheap, "///", PALETTE[1], "perplexity times less than 1.25")):
    ax.bar(layers["layer"][chosen], layers["added_loss"][chosen], color=colour, hatch=hatch, edgecolor="black", label=label)
ax.set(yscale="log", xlabel="layer left out", ylabel="loss added (nats, log scale)", xticks=range(0, len(layers), 5))
ax.legend()
plt.show()
print(f"{cheap.sum()} of {len(layers)} layers multiply perplexity by less than 1.25 when left out alone; the last one by {np.exp(layers['added_loss'].iloc[-1]):.1f}.")
for n, row in plans.loc[plans.groupby("removed")["perplexity"].idxmin()].set_index("removed").iterrows():
    print(f"The best plan for {n} layers multiplies it by {row['perplexity'] / dense['perplexity']:.2f}; its layers' single factors multiply to {np.exp(layers['added_loss'][row['layers']].sum()):.2f}.")

# %% [markdown]
# **Our answer.** Three kinds of evidence. Neighbouring states are almost parallel (lesson [01](01_hidden_states.ipynb)). Half of the layers can be left out alone at moderate cost, as the figure shows. And several can go together while the model still works: in the paper, Llama-2-7B without nine of 32 layers keeps most of its benchmark scores ([05](05_evaluation.ipynb), section 13, with what guessing adds to that). On our model the evidence is weaker and lies elsewhere. The cheap layers stand in the *middle*, while the end is among the dearest, so "deep layers are redundant" is not true of it. And small costs multiply, as the last lines show: nine layers that hardly matter one by one are more than the model can spare. So *redundant* has a meaning only with a number behind it, how many go together, and with what is measured afterwards.

# %% [markdown]
# ## 3. Why can plain removal beat more complex pruning?
#
# Left, the paper's table 2: the average over thirteen benchmarks, in percent of the dense model's. Right, our model without as many parameters as six layers have, cut in seven ways.

# %%
book.kept("3")

# %% tags=["hide-input"]
table2 = pd.read_csv(DATA / "paper" / "table2_summary.csv").pivot(index="method", columns="model", values="retention_percent").drop("Dense")
width = pd.read_csv(DATA / "width.csv")
six = width[width["layers"] == 6].set_index("removed")["times_dense"].sort_values(ascending=False)
_, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for i, (name, values) in enumerate(table2.items()):
    left.plot(values, range(len(values)), MARKERS[i], color=PALETTE[i], markeredgecolor="black", label=name)
left.set(yticks=range(len(table2)), yticklabels=table2.index, xlim=(0, 104), xlabel="% of the dense average", title="the paper's models")
left.legend(fontsize=8, loc="lower left")
right.barh(six.index, six, color=[PALETTE[1] if name == "layers" else PALETTE[0] for name in six.index], edgecolor="black")
right.set(xscale="log", xlabel="perplexity, times dense (log scale)", title="our model")
plt.show()
print(f"In the paper ShortGPT is ahead of the three other methods for {(table2.idxmax() == 'ShortGPT').sum()} of {table2.shape[1]} models.")
print("On our model, from best to worst: " + ", ".join(f"{name} {value:,.1f}" for name, value in six[::-1].items()) + ".")

# %% [markdown]
# **Our answer.** Where it does, for three reasons. Layers add, so a missing one leaves the others in working order, while a cut in width disturbs every layer. Block Influence measures the very error that removal makes; a more complex method may rest on a score that doesn't, such as the size of weights. And there is nothing to tune. But it does not always win. On our model, channels chosen by how much they *do* on a text are ahead of whole layers in perplexity, at every size; layers beat heads, single branches, and channels chosen by weight. And in the paper's table three of the four methods are quoted from another paper, without the repair that belongs to one of them; FLAP, and LLM-Pruner with its fine-tuning, which the paper leaves out, are ahead of it on Llama-7B ([07](07_depth_or_width.ipynb), section 7).

# %% [markdown]
# ## 4. Why does Block Influence allow more layers to go?
#
# Figure 5 of the paper, drawn again for three models. Layers were chosen on English prose by people, and perplexity is measured on prose from other sources. Which ways are still usable with a fifth of the layers gone?

# %%
book.kept("4")

# %% tags=["hide-input"]
names = ["dense", "block_influence", "relative_magnitude", "greedy", "random", "reverse", "sequential"]
three = removal_curves(text="en").query("language == 'en' and criterion in @names")
plot_removal_curves(three, highlight=["block_influence", "greedy", "reverse"])
plt.show()

# %% tags=["hide-input"]
for (model, criterion), line in three.query("criterion in ['block_influence', 'greedy']").groupby(["model", "criterion"], sort=False):
    whole = pd.DataFrame([{"removed": 0, "times": 1.0}])
    last = cliff(pd.concat([whole, line])[["removed", "times"]].rename(columns={"times": "value"}))
    steps = f"a step that stands out comes after {last} layers" if last is not None else f"no step stands out, up to {line['removed'].max()} layers"
    print(f"{model}, {criterion.replace('_', ' ')}: {steps}.")
sets = three.query("model == @LARGE").set_index(["criterion", "removed"])["layers"]
for n in (4, 8):
    value, error = paired(LARGE, sets["block_influence", n], sets["greedy", n])
    print(f"{LARGE}, {n} removed: Block Influence costs {value:.2f} ± {error:.2f} nats a token more than greedy.")

# %% [markdown]
# **Our answer.** What it removes first hardly turns the state, so what reaches the remaining layers is near to what they were trained on, and it goes *around* the few layers that matter. An order by position runs into one of these early: the first layer, or, on the small and the larger model, the last. After that no choice of further layers can repair the damage. The figure shows the gap; on these two it is orders of magnitude wide. Three limits. *Reverse* depends on how much the last layers matter: on Gemma little, and there it is even better than Block Influence with six or more layers gone (both are ruins by perplexity); on the paper's models it does well on MMLU, a multiple-choice exam. Among criteria that read the model, Block Influence is one of several, and on the two larger models not a good one: relative magnitude is ahead, and greedy, which tries what it removes, is ahead of both, or a whole row of layers (*span*), which one pass finds: on the larger one each of them avoids about half of the loss, while on Gemma the row is a ruin ([06](06_choosing_layers.ipynb), sections 2 and 3). And how many layers may go is not in the scores: by Block Influence Gemma falls off an edge at the fifth layer, by relative magnitude or greedy it doesn't. Only measuring one layer after the other shows it.

# %% [markdown]
# ## 5. Depth or width?
#
# The same number of parameters removed, in depth (solid lines) and in width (dashed).

# %%
book.kept("5")

# %% tags=["hide-input"]
kinds = ["layers", "ffn", "attention", "channels, activation", "channels, magnitude", "heads, activation"]
_, ax = plt.subplots(figsize=(9, 4), layout="constrained")
for i, kind in enumerate(kinds):
    rows = width[width["removed"] == kind]
    ax.plot(rows["layers"], rows["times_dense"], MARKERS[i] + ("--" if "," in kind else "-"), color=PALETTE[i], label=kind)
ax.axhline(1, color="black", linestyle=":")
ax.set(yscale="log", xticks=[3, 6, 9], xlabel="parameters removed, as many as this number of layers has", ylabel="perplexity, times dense (log scale)")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
pair = width.pivot(index="layers", columns="removed", values="times_dense")[["channels, activation", "layers", "channels, magnitude"]].drop(0)
for n, row in pair.iterrows():
    print(f"As much as {n} layers: channels by activation times {row.iloc[0]:.2f}, layers times {row.iloc[1]:.2f}, channels by weight times {row.iloc[2]:,.0f}.")

# %% [markdown]
# **Our answer.** The paper says depth, because depth methods keep more in its table 2. Our model says: that depends on how one looks. The same number of channels is the best cut of all, or the worst, depending on the score that picks them, and that difference is far larger than the one between depth and width. So the claim does *not* hold here, and the experiment shows what it is a claim about: a model, a size of cut, and the scores that were used. What can be said for depth without reservation is that its redundancy is the cheapest to find and to use, and that a shorter model saves time and cache without special kernels. Neither side was done as well as possible: better choices of layers and better width methods exist (lesson [07](07_depth_or_width.ipynb)).

# %% [markdown]
# ## 6. What does RWKV's redundancy mean?
#
# There is no lesson for this question yet, so the answer is read from the paper's table 3: **its models, its runs**, nothing of ours. RWKV is a model without attention. Left, the plain averages; right, only what stands above guessing, over the benchmarks where the dense model is at least five points above it.

# %% tags=["hide-input"]
def above_guessing(rows: pd.DataFrame) -> np.ndarray:
    """Percent kept of the first row's score above guessing; `rows` has a column for each benchmark."""
    chance = pd.Series({name: each.chance for name, each in BENCHMARKS.items()})
    extra = rows.rename(columns=str.lower)[chance.index] - chance
    clear = extra.iloc[0] >= 5
    return (100 * extra.loc[:, clear].sum(axis=1) / extra.iloc[0][clear].sum()).to_numpy()


table3 = pd.read_csv(DATA / "paper" / "table3_non_transformers.csv")
table2 = pd.read_csv(DATA / "paper" / "table2_benchmarks.csv").query("method in ['Dense', 'ShortGPT']")
transformers_ = table2.pivot(index=["model", "method", "ratio_percent"], columns="benchmark", values="score").reset_index()
curves = pd.concat([table3, transformers_], ignore_index=True)

# %%
book.kept("6")

# %% tags=["hide-input"]
_, axes = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True, layout="constrained")
kept = {}
for i, (name, rows) in enumerate(curves.groupby("model", sort=False)):
    plain = rows[list(table3.columns[2:15])].mean(axis=1)
    kept[name] = rows["ratio_percent"].to_numpy(), (100 * plain / plain.iloc[0]).to_numpy(), above_guessing(rows)
    for ax, values in zip(axes, kept[name][1:], strict=True):
        ax.plot(kept[name][0], values, MARKERS[i] + ("--" if i > 1 else "-"), color=PALETTE[i], label=name)
axes[0].set(title="plain retention", ylabel="percent of dense", ylim=(0, 104), xlabel="removed (%)")
axes[1].set(title="above guessing", xlabel="removed (%)")
axes[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
for name, (ratio, plain, above) in kept.items():
    at = int(np.argmin(np.abs(ratio - 25)))
    print(f"{name} without {ratio[at]:.1f} %: keeps {plain[at]:.0f} % plainly, {above[at]:.0f} % above guessing.")

# %% [markdown]
# **Our answer.** Mamba and RWKV have no softmax attention, and layers can be taken out of both. So redundancy in depth is not a product of attention; it comes with residual layers that are stacked deep. But the two differ. Mamba loses about as slowly as the transformers. RWKV loses from the first cut on, and with a quarter gone it keeps the least of all six models, above guessing by far the least. The paper reads this as less redundancy in RWKV: its layers do more different things, at least as this criterion can see. What one should not conclude is that recurrent models as such are less redundant (Mamba contradicts it), or that more redundancy is a merit: a model that loses little had layers to spare. Two models, one run each and one criterion are a thin base for more. Lesson 08, which is still to come, will have our own measurements.

# %% [markdown]
# ## 7. How do quantization and layer removal go together?
#
# If the two losses had nothing to do with each other, both together would cost their sum: the dashed line. Each point is a pruned and quantized model: left our small model, right the larger one, whose stored results are from `measure/grid_large.py`.

# %%
book.kept("7")

# %% tags=["hide-input"]
grids = {"our model": read_grid(DATA / "grid.csv").query("order != 'quantize first'"), "the larger model": read_grid(DATA / "grid_large.csv")}
_, panels = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
for ax, (name, grid) in zip(panels, grids.items(), strict=True):
    added = added_losses(grid)
    for i, method in enumerate(("int8", "nf4", "gptq", "rtn4")):
        rows = added[added["method"] == method]
        total = rows["added_by_pruning"] + rows["added_by_quantization"]
        if len(rows):
            ax.errorbar(total, rows["added_by_both"], rows["interaction_error"], fmt=MARKERS[i], color=PALETTE[i], label=method, markeredgecolor="black")
    ax.axline((0.4, 0.4), slope=1, color="black", linestyle="--", label="they add up")
    ax.set(title=name, xlabel="loss added by pruning + loss added by quantization (nats)", ylabel="loss added by both (nats)")
    ax.legend()
    share = 100 * added["interaction"] / added["added_by_both"]
    print(f"{name}: {(added['interaction'] > 0).sum()} of {len(added)} points lie above the line; the difference from it is {share.min():.1f} to {share.max():.1f} % of the loss of both.")
    best = [f"{row.method}, {row.removed} removed ({row.memory_mb:,.0f} MB, perplexity {row.perplexity:.1f})" for row in frontier_steps(grid).itertuples()]
    print(f"{name}, models that none beats in size and perplexity: " + "; ".join(best) + ".")
plt.show()

# %% [markdown]
# **Our answer.** Well. The savings multiply, since fewer weights and fewer bits touch different things, and the losses nearly add in the loss, so they nearly multiply in perplexity. The paper calls this orthogonal, and as a forecast that is right. As a law it isn't: every point of our model lies on the same side of the line, as if a pruned model had a little less left with which to make up for rounding. On the larger one the sum is right to 0.01 nats (the unit of the natural logarithm) with up to five layers gone, and with seven, 4 bits cost 0.03 more than on the dense model. For memory alone, bits should go first: on neither model is a shortened one with 8 or more bits worth its place ([04](04_quantization.ipynb), section 7). Which one would we ship? In memory the larger model in 4 bits with all its layers; layers go where time is short. Which of the two is *done* first cannot matter where each matrix is rounded by itself, and with GPTQ, which reads text while it rounds, it did once, at nine layers, without an explanation. (On the larger model GPTQ is behind NF4, 4-bit "normal float" rounding, on ours ahead of it: one more thing that one model can't tell.)

# %% [markdown]
# ## 8. Why does writing suffer more than choosing?
#
# Left and middle, the same questions asked twice: choose from a list, or write the answer. Right, who is to blame for loops: texts whose first and second halves were written by the dense or by the pruned model.

# %%
book.kept("8")

# %% tags=["hide-input"]
answered = pd.read_csv(DATA / "choice_generation.csv", keep_default_na=False)
of_large = pd.read_csv(DATA / "removal_answers.csv", keep_default_na=False).query("model == @LARGE and task == 'science'")
of_large = of_large.assign(removed=of_large["layers"].map(json.loads).map(len))
asked = {"physical, our model": (answered[answered["task"] == "physical"], 50), "science, the larger model": (of_large, 25)}
loops = pd.read_csv(DATA / "relay.csv").pivot(index="prompt", columns=["first", "second"], values="repeated_after").dropna()
_, (*both, right) = plt.subplots(1, 3, figsize=(13, 3.4), layout="constrained")
for ax, (title, (table, guess)) in zip(both, asked.items(), strict=True):
    ways = pd.concat([choice_summary(rows).assign(removed=n) for n, rows in table.groupby("removed")])
    for i, way in enumerate(("choice", "written")):
        ax.errorbar(ways["removed"], ways[way], ways[f"{way}_error"], fmt="o-" if i == 0 else "s--", capsize=4, color=PALETTE[i], label=way)
    ax.axhline(guess, color="black", linestyle=":", label="guessing, if one may choose")
    ax.set(xlabel="layers removed", ylabel="right (percent)", xticks=ways["removed"], ylim=(0, 103), title=title)
    print(f"{title}: " + "; ".join(f"{row.removed} removed, chosen {row.choice:.0f} %, written {row.written:.0f} %, choosing is ahead by {row.difference:.0f} ± {row.difference_error:.0f}" for row in ways.itertuples()) + ".")
both[0].legend(fontsize=8)
right.barh([f"{a}, then {b}" for a, b in loops], loops.mean(), xerr=loops.sem(), capsize=4, color=PALETTE[0], edgecolor="black", hatch=["", "//", "..", "xx"])
right.invert_yaxis()
right.set(xlabel="repeated word triples, second half", title="who wrote which half", xlim=(0, 1))
plt.show()
print("Repeated triples of the second half: " + ", ".join(f"{a} then {b} {value:.2f}" for (a, b), value in loops.mean().items()) + ".")

# %% [markdown]
# **Our answer.** A list of answers forgives whatever hits all answers alike: much of what both lose cancels in the margin. It also gives an answer by construction, so a model that can no longer say anything still "chooses". Writing asks, at every token, for the best of the whole vocabulary, and what was taken becomes part of the next question. The paper calls the second half accumulation of errors. On our model that is *not* what happens to the model: its distance from the dense one is there at the first token and shrinks along the text. What goes bad is the *text*. After a looping first half the dense model, with all its layers, mostly loops as well (right panel). In the left panel the small model only guesses from the start, in this form of question, and what guesses has nothing to lose. The larger model knows the answers, and there the rule fails at first: without two or four layers *choosing* from the list falls further than writing, because the model begins to write sentences instead of naming an answer. Where greedy chose the layers, the paper's picture is there: bare questions stay right, and the exact last word of a text falls by more than a third. It is there on both small models too: bare questions fall less than last words. So it depends on the model, on the layers and on the form of the question ([05](05_evaluation.ipynb), section 10; [10](10_generation.ipynb), sections 1 to 3).

# %% [markdown]
# ## 9. Relative magnitude or Block Influence?
#
# Left, both scores of every layer of three models. Right, what choosing by relative magnitude costs against Block Influence: perplexity as a ratio, on our three models with a fifth and a third of the layers removed, and on models that other people measured (BlockPruner, table 1; a fifth to a quarter removed).

# %%
book.kept("9")
others = pd.read_csv(DATA / "paper" / "replications_wikitext2.csv").pivot(index="model", columns="method", values="ppl")
others = others["Relative Magnitude"] / others["ShortGPT"]
scored = pd.read_csv(DATA / "removal_layers.csv")
DEPTHS = scored.groupby("model", sort=False).size()

# %% tags=["hide-input"]
times = three.pivot_table(index=["model", "removed"], columns="criterion", values="times")
times = times["relative_magnitude"] / times["block_influence"]
ours = pd.Series({f"{name}, {n} of {depth}": times[name, n] for name, depth in DEPTHS.items() for n in (round(depth / 5), 2 * round(depth / 6))})
_, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
for i, (name, rows) in enumerate(scored.groupby("model", sort=False)):
    left.plot(rows["relative_magnitude"], rows["block_influence"], MARKERS[i], color=PALETTE[i], markeredgecolor="black", label=name)
    same = rows[["relative_magnitude", "block_influence"]].rank().corr().iloc[0, 1]
    turn = rows["block_influence"] / (rows["relative_magnitude"] ** 2 / 2)
    far = rows.loc[turn.nsmallest(3).index].sort_values("layer")
    print(f"{name}: rank correlation of the two {same:.2f}; farthest below the line: layers {', '.join(map(str, far['layer']))}, which make the state {', '.join(f'{v:.2f}' for v in far['longer'])} times as long.")
line = np.geomspace(scored["relative_magnitude"].min(), scored["relative_magnitude"].max())
left.plot(line, line**2 / 2, "k--", label="right angle: half the square")
left.set(xscale="log", yscale="log", xlabel="relative magnitude (log scale)", ylabel="Block Influence (log scale)")
plain_log_ticks(left, "x")
plain_log_ticks(left)
left.legend(fontsize=8)
ratio = pd.concat([others, ours])
right.hlines(ratio.index, 1, ratio, color="0.6")
right.plot(ratio, ratio.index, "s", color=PALETTE[1], markeredgecolor="black")
right.axvline(1, color="black", linestyle=":")
right.set(xscale="log", xlabel="perplexity, relative magnitude / Block Influence (log scale)")
plt.show()
print("Ratios of perplexity on our models: " + "; ".join(f"{name} removed {value:.2f}" for name, value in ours.items()) + ".")
print(f"On the six models of others the ratio runs from {others.min():.2f} ({others.idxmin()}) to {others.max():.1f} ({others.idxmax()}).")

# %% [markdown]
# **Our answer.** Relative magnitude is the length of what a layer adds against the length of what leaves it; Block Influence is the turn alone. Where a layer adds little and at a wide angle, the second is about half the square of the first, and they order the layers alike. They part on a layer that mostly stretches the state: relative magnitude calls it important, Block Influence does not. On our small model the additions stand at wide angles, and up to a third of the layers little hangs on the choice, as in the paper, where relative magnitude is close behind. On the two larger ones it matters: the points below the line are layers that stretch, Block Influence takes them early, and it loses more by it. That is no law either. On the models that others measured one of the two is ahead many times over, and it is not always the same one. Whoever prunes a new model should compute both, since either is cheap, and measure what comes out ([06](06_choosing_layers.ipynb), section 3).

# %% [markdown]
# ## 10. English against Chinese
#
# What is kept of the score above guessing. Left, our small model, two tasks with two answers each. Middle, the larger model on 120 science questions with four answers, each in English and in Chinese: layers chosen on English text (filled) or on Chinese text (outlines). Right the paper's models, two exams with four answers each.

# %%
book.kept("10")

# %% tags=["hide-input"]
ours = pd.read_json(DATA / "evaluated.jsonl", lines=True)
ours["removed"] = 3 * ours.groupby("fingerprint", sort=False).ngroup()
ours = ours.set_index(["task", "removed"])[["value", "standard_error"]]
exam = table2.pivot(index=["model", "benchmark"], columns="method", values="score").loc[(slice(None), ["MMLU", "CMMLU"]), :]
exam = (100 * (exam["ShortGPT"] - 25) / (exam["Dense"] - 25)).unstack()[["MMLU", "CMMLU"]]
_, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.6), sharey=True, layout="constrained")
for i, (task, label) in enumerate({"physical": "physical (English)", "chinese": "chinese"}.items()):
    start = ours.loc[(task, 0), "value"] - 50
    three_six = 100 * (ours.loc[task].loc[[3, 6], "value"] - 50) / start
    left.bar(np.array([3, 6]) + (i - 0.5), three_six, yerr=100 * ours.loc[task].loc[[3, 6], "standard_error"] / start, width=1, capsize=4, color=PALETTE[i], hatch=["", "///"][i], edgecolor="black", label=label)
    print(f"{label}: keeps {three_six[3]:.0f} % of what it had above guessing with three layers fewer, {three_six[6]:.0f} % with six.")
left.set(xticks=[3, 6], xlabel="layers removed", ylabel="percent kept above guessing", title="our model")
left.legend(fontsize=8, loc="upper right")
answers = removal_accuracy(criterion="block_influence").query("model == @LARGE and task in ['science', 'science_zh'] and text in ['', 'en', 'zh']")
for i, (task, rows) in enumerate(answers.groupby("task")):
    for text, style, fill in (("en", "-", PALETTE[i]), ("zh", ":", "none")):
        line = rows[rows["text"].isin(["", text])].sort_values("removed")
        middle.plot(line["removed"], line["above_chance"], MARKERS[i] + style, color=PALETTE[i], mfc=fill, mec="black", ms=8, label=f"{task}, chosen on {text}")
        print(f"The larger model, {task}, layers chosen on {text}: " + ", ".join(f"{row.above_chance:.0f} % with {row.removed} removed" for row in line.itertuples()) + ".")
middle.set(xlabel="layers removed", title="the larger model")
middle.legend(fontsize=8)
drawn = exam.plot.bar(ax=right, rot=0, color=PALETTE[:2], edgecolor="black", title="the paper's models", xlabel="", fontsize=8)
plt.setp(drawn.containers[1], hatch="///")
plt.show()
print(f"In the paper {(exam['CMMLU'] < exam['MMLU'] - 3).sum()} of {len(exam)} models lose more of their Chinese exam by over three points, {(exam['CMMLU'] > exam['MMLU'] + 3).sum()} less.")

# %% [markdown]
# And the loss on prose by people, in nats a token (the unit of the natural logarithm). What does it cost each language to choose on the other's text?

# %% tags=["hide-input"]
by = {text: removal_curves(criterion="block_influence", text=text).query("model == @LARGE and removed > 0") for text in ("en", "zh")}
sets = {text: table.drop_duplicates("removed").set_index("removed")["layers"] for text, table in by.items()}
_, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
for i, language in enumerate(("en", "zh")):
    found = [paired(LARGE, sets["zh"][n], sets["en"][n], language) for n in sets["en"].index]
    ax.errorbar(sets["en"].index + 0.15 * i, *np.transpose(found), fmt=MARKERS[i], capsize=3, color=PALETTE[i], label=f"measured in {language}")
ax.axhline(0, color="black", linestyle=":")
ax.set(xlabel="layers removed", ylabel="loss when chosen on Chinese\nminus when chosen on English (nats)", title=LARGE)
ax.legend()
plt.show()
same = [n for n in sets["en"].index if sets["en"][n] == sets["zh"][n]]
print(f"Both texts choose the same layers for {', '.join(map(str, same))} removed.")

# %% [markdown]
# **Our answer.** Not alike on our small model: with six layers fewer most of the Chinese, of which there was little, is gone, and most of the English is not. But the larger model, which knows both languages well, does not repeat that. Its answers in Chinese fall no more than those in English to the same questions, and in bits per byte its English loses the larger share. So what is known barely is lost first, in whatever language. The calibration text matters less than one would think, and not as one would think: the two texts choose the same layers at many numbers, and where they don't, the one that is in the language measured is not always ahead (second figure). In the paper's exams no language loses more throughout, though another Chinese task, idioms, is among the hardest hit. The practical rule: measure every language the model is for, with two or three candidate plans ([05](05_evaluation.ipynb), section 12; [three models](../docs/three_models.md), section 3).

# %% [markdown]
# With `LIVE = True` at the top of the page: what four and eight layers cost (question 4), choosing and writing (question 8), and the two languages (question 10), measured now and not stored.

# %%
if LIVE:
    large, its_tokenizer = load(LARGE)
    sets = three.query("model == @LARGE").set_index(["criterion", "removed"])["layers"]
    again = {f"{name}, {n} removed": sets[name, n] for name in ("block_influence", "greedy") for n in (4, 8)}
    display(measured_again(large, its_tokenizer, LARGE, again).round(3))
    display(choice_summary(choice_and_generation(large, its_tokenizer, "science", limit=20)).round(0))
    display(evaluate(large, its_tokenizer, ["science", "science_zh"], limit=40).round(1))

# %% [markdown]
# ## How did you do?
#
# Compare your ten answers with ours before you count. A good answer names the experiment, says which model it was done on, and says what would change the author's mind. Where you disagree with us and can name a measurement, you may well be right: every figure here is drawn from a file in `data/`, and the script that wrote the file stands beside it.
#
# Back to the beginning: [00 · Start here](00_start_here.ipynb)
