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
# # 06 · Choosing layers: would another criterion have done better?
#
# Block Influence picked our layers, and the pruned model still wrote English. But what is that worth? A coin picks layers too. In this lesson Block Influence competes: with a coin, with simple rules, with other scores, and with searches that simply try. Then we repair what was removed, without training, and see that the best layers to remove change when a repair follows.
#
# **You will be able to**
# - compare criteria for choosing layers on equal terms, with their cost and their uncertainty;
# - say why relative magnitude comes close to Block Influence, and where Block Influence is wrong;
# - tell how much text a stable choice needs, and whether its kind matters;
# - repair a pruned model in closed form, and choose layers with the repair in mind.
#
# **Before:** lesson [03 · Pruning](03_pruning.ipynb) and [05 · Evaluation](05_evaluation.ipynb) · **Takes:** about 4 minutes on 2 CPU cores · **Memory:** about 3 GB · **Download:** 93 MB once (shared by all lessons)

# %% [markdown]
# Run this cell first. It is the same in every lesson.

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
# The model, text to choose by, and other text to judge by: the openings of four documents that no criterion reads.

# %%
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from shortgpt import Trials, built_in_text, calibration_batches, choose_by, compare_criteria, decoder_layers, heal
from shortgpt import leave_one_out, load, perplexity, plan_agreement, remove_layers, score_layers, tokens_needed
from shortgpt.calibration import data_folder
from shortgpt.plots import MARKERS, PALETTE, plain_log_ticks, plot_layers
from shortgpt.plots_choosing import plot_agreement, plot_criteria, plot_tokens_needed
from shortgpt.widgets import picking_explorer

MODEL = "smollm2-135m-instruct"  # or a Hub id such as "Qwen/Qwen2.5-0.5B"
model, tokenizer = load(MODEL)
depth = len(decoder_layers(model))
batches = calibration_batches(tokenizer, samples=6)
documents = built_in_text("perplexity")
documents = documents[documents["genre"].isin(["encyclopedic", "news", "science", "story"])]
texts = [text[:700] for text in documents.groupby("genre").head(1)["text"]]
print(f"{depth} layers; dense perplexity {perplexity(model, tokenizer, texts):.1f}")

# %% [markdown]
# ## 1. Could a coin do it?
#
# Seven ways to choose, all of which cost next to nothing. Three read no text at all: **random**, **sequential** (from the first layer on) and **reverse** (from the last one back). Three take a score for each layer from one pass over the text and remove the lowest: **Block Influence** (BI) and **relative magnitude**, both in the paper, and the **angular span**, the contiguous run of layers over which the states turn least (Gromov et al., arXiv 2403.17887). One scores again after each removal.
#
# *Predict:* with six of the layers gone, what is the ratio between the best and the worst perplexity? And where does the coin land?

# %%
cheap = ["random", "sequential", "reverse", "relative_magnitude", "block_influence", "angular_span_all_tokens"]
counts = [3, 6, 9]
table = compare_criteria(
    model, batches, counts, cheap, lambda pruned: perplexity(pruned, tokenizer, texts), seeds=(0, 1, 2), progress=False
)
table.pivot_table(index="criterion", columns="removed", values="value", aggfunc="median").round(1)

# %% [markdown]
# `compare_criteria` chooses, removes, measures, and gives one row for each criterion, seed and number of layers. The random rows are medians of three draws; the band shows all three.

# %%
plot_criteria(table.rename(columns={"value": "perplexity"}), highlight=["block_influence", "random", "reverse"])
plt.show()
six = table[table["removed"] == 6].groupby("criterion")["value"].median()
print(f"At six layers the best and the worst of these criteria are a factor of {six.max() / six.min():,.0f} apart.")

# %% [markdown]
# So *which* layers go decides everything, and the simple rules are far worse than a coin: the first layers build the representation that all others read, and the last ones turn it into a prediction. Any score that looks at the states finds the middle of the model. That is the paper's figure 5 in small: rules that ignore the states break the model at a ratio at which a score still leaves something to work with.
#
# What do they choose?

# %%
chosen = {row["criterion"]: row["layers"] for _, row in table[table["removed"] == 6].drop_duplicates("criterion").iterrows()}
plot_layers(depth, chosen)
plt.show()

# %% [markdown]
# ## 2. Criteria that try
#
# A score is a guess about the damage. One can also ask for the damage itself: remove, measure the loss on the calibration text, choose. **Leave-one-out** does it for one layer at a time and removes those missed least (Shortened LLaMA, arXiv 2402.02834). **Greedy** does it again after each removal (SLEB, arXiv 2402.09025). A **search** tries whole sets, varies the best one so far, and stops when its budget is spent (an evolutionary search like EvoPress, arXiv 2410.14649).
#
# That is a lot of forward passes: greedy removal of nine layers takes 234 trials. Some minutes on two cores, so we read results that `python data/measure_choosing.py` stored, measured on the whole built-in perplexity part (nine genres). *Predict:* how much better than BI can one do by trying?

# %%
stored = pd.read_csv(data_folder() / "choosing.csv")
costs = pd.read_csv(data_folder() / "chosen.csv")
bare = stored[stored["repair"] == "none"]
bare = bare.assign(low=bare["perplexity"] - bare["perplexity_error"], high=bare["perplexity"] + bare["perplexity_error"])
rules = ["sequential", "reverse", "random"]
plot_criteria(bare[~bare["criterion"].isin(rules)], highlight=["block_influence", "greedy", "search"])
plt.show()

# %% [markdown]
# The bands are standard errors over documents. All lines read the same documents, so the *order* of two lines is surer than overlapping bands suggest.
#
# And a measure that is no perplexity: the share of sentence pairs in which the model prefers the grammatical one. It moved most in lesson 05.

# %%
tasks = bare[(bare["removed"] == 6) & bare["grammar"].notna()].sort_values("grammar")
tasks = tasks[~tasks["criterion"].isin(["sequential", "reverse"])].drop_duplicates("criterion")
_, ax = plt.subplots(figsize=(7.5, 4), layout="constrained")
ax.errorbar(tasks["grammar"], tasks["criterion"], xerr=tasks["grammar_error"], fmt="o", color=PALETTE[0], capsize=3)
ax.axvline(50, color="black", linestyle=":")
ax.set(xlabel="grammar, percent right, six layers removed (dotted: chance)")
plt.show()
whole = stored.loc[stored["criterion"] == "dense", "grammar"].iloc[0]
print(f"Grammar: dense {whole:.0f} percent, from {tasks['grammar'].iloc[0]:.0f} to {tasks['grammar'].iloc[-1]:.0f} with six layers removed.")
best = tasks[tasks["criterion"] == "search"].iloc[0]
print(f"The search keeps {100 * (best['grammar'] - 50) / (whole - 50):.0f} percent of what the dense model has above chance.")

# %% [markdown]
# Perplexity and accuracy need not agree: a criterion that looks at perplexity gets perplexity. With 160 items the whiskers are wide, and most of the differences between good criteria are within them.
#
# What does the better choice cost? One *forward pass* below is one pass over the text that the criterion reads; a trial that resumes behind unchanged layers counts only the layers that it runs.

# %%
price = bare.drop(columns=["forward_passes", "seconds"], errors="ignore").merge(
    costs[["criterion", "removed", "seed", "forward_passes"]], on=["criterion", "removed", "seed"])
price = price[(price["removed"] == 6) & ~price["criterion"].isin(rules)].dropna(subset=["forward_passes"])
_, ax = plt.subplots(figsize=(7.5, 4), layout="constrained")
for i, (_, row) in enumerate(price.iterrows()):
    ax.plot(row["forward_passes"], row["perplexity"], MARKERS[i % 8], color=PALETTE[i % 10], markersize=9)
    ax.annotate(row["criterion"], (row["forward_passes"], row["perplexity"]), xytext=(7, 4), textcoords="offset points", fontsize=9)
ax.set(xscale="log", xlim=(0.7, 2 * price["forward_passes"].max() + 200), xlabel="forward passes to choose (log scale)", ylabel="perplexity, six layers removed")
plt.show()
one, many = price[price["criterion"] == "block_influence"].iloc[0], price.loc[price["perplexity"].idxmin()]
print(f"BI costs one pass and gives {one['perplexity']:.1f}; {many['criterion']} costs {many['forward_passes']:.0f} passes and gives {many['perplexity']:.1f}.")

# %% [markdown]
# That is the honest case for Block Influence: nearly all of the way from chaos to the best known choice, for the price of a single pass, with no labels and no search. Who prunes once and serves the model for months will pay for the rest.
#
# ## 3. Why relative magnitude comes close
#
# Relative magnitude is $|f(x)| / |x + f(x)|$: how long is what the layer adds, compared with what leaves it? Draw the triangle of $x$, $f(x)$ and their sum. If the addition stands at a right angle to $x$, its relative length is the *sine* of the angle by which the state turns, and BI is one minus the *cosine* of that angle. Small angle $\varphi$: one is about $\varphi$, the other about $\varphi^2/2$. Both rise together, so both put the layers into the same order.

# %%
bi = score_layers(model, batches, progress=False).values
magnitude = score_layers(model, batches, metric="relative_magnitude", progress=False).values
angle = np.linspace(0.02, 1.5, 200)
_, ax = plt.subplots(figsize=(7, 4.4), layout="constrained")
ax.plot(np.sin(angle), 1 - np.cos(angle), "--", color="0.4", label="addition at a right angle to the state")
ax.plot(magnitude, bi, "o", color=PALETTE[0], markeredgecolor="black", label="layers")
off = np.abs(np.log(bi / (1 - np.sqrt(np.clip(1 - magnitude**2, 1e-3, 1)))))
for layer in np.argsort(-off)[:4]:
    ax.annotate(str(layer), (magnitude[layer], bi[layer]), xytext=(6, -4), textcoords="offset points")
ax.set(xscale="log", yscale="log", xlabel="relative magnitude (log scale)", ylabel="Block Influence (log scale)")
ax.legend()
plt.show()
ranks = pd.DataFrame({"bi": bi, "magnitude": magnitude}).corr("spearman").iloc[0, 1]
print(f"The rank correlation of the two scores is {ranks:.2f}; layers {', '.join(map(str, np.argsort(-off)[:4]))} are farthest from the line.")

# %% [markdown]
# Where points leave the line, the addition is *not* at a right angle. Below it, a layer adds along the state: it makes it longer or shorter and hardly turns it. The next layer begins with a norm that removes length, so BI calls such a layer harmless and relative magnitude does not. That is the whole difference between the two, and why in the paper, too, relative magnitude comes second and close.
#
# ## 4. When Block Influence is wrong
#
# BI says how far a layer turns a state, not whether the turn matters. `Trials` asks for the loss. It keeps the state that leaves every layer of the dense model; to try a model without layer 20 it resumes there instead of running layers 0 to 19 again. So leaving out each layer once costs about half as many layers as separate passes do, and gives the same numbers.

# %%
few = calibration_batches(tokenizer, samples=4, length=128)
trials = Trials(model, few)
dense_loss = trials([])
damage = leave_one_out(trials, depth, progress=False) - dense_loss
print(f"{trials.evaluations} trials ran the layers of {trials.forward_passes:.1f} forward passes, so far.")

# %%
_, ax = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
ax.plot(bi, damage, "o", color=PALETTE[0], markeredgecolor="black")
gap = pd.Series(damage).rank() - pd.Series(bi).rank()
wrong = gap.nlargest(3).index
for layer in {*wrong, *np.argsort(bi)[:6]}:
    ax.annotate(str(layer), (bi[layer], damage[layer]), xytext=(6, 3), textcoords="offset points", weight="bold" if layer in wrong else "normal")
ax.set(xscale="log", yscale="log", xlabel="Block Influence (log scale)", ylabel="loss without it, above dense (nats, log scale)")
plt.show()
print(f"Layers {', '.join(map(str, wrong))} hurt more than their Block Influence lets one expect: "
      + ", ".join(f"{layer} adds {damage[layer]:.2f} nats with a score of {bi[layer]:.3f}" for layer in wrong) + ".")  # fmt: skip

# %% [markdown]
# Nearly an identity, yet it matters: a small turn in the right direction. No score of one pass can see that. Leave-one-out can, but it has a blind spot of its own: it assumes that the damage of two layers adds up. Does it?

# %%
pairs = pd.DataFrame({"a": range(12, 18), "b": range(13, 19)})
pairs["sum"] = [damage[a] + damage[b] for a, b in zip(pairs["a"], pairs["b"], strict=True)]
pairs["together"] = [trials([a, b]) - dense_loss for a, b in zip(pairs["a"], pairs["b"], strict=True)]
_, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
names = [f"{a} and {b}" for a, b in zip(pairs["a"], pairs["b"], strict=True)]
ax.bar(np.arange(6) - 0.2, pairs["sum"], 0.4, label="sum of both alone", color=PALETTE[0], edgecolor="black")
ax.bar(np.arange(6) + 0.2, pairs["together"], 0.4, label="together", color=PALETTE[1], hatch="///", edgecolor="black")
ax.set_xticks(range(6), names)
ax.set(ylabel="loss above dense (nats)", xlabel="layers removed")
ax.legend()
plt.show()
most = (pairs["together"] / pairs["sum"]).idxmax()
print(f"Without layers {names[most]} the loss rises by {pairs['together'][most]:.2f} nats; the two alone add up to {pairs['sum'][most]:.2f}.")

# %% [markdown]
# Neighbours do similar work. Either may go, because the other is still there; both may not. A search over whole sets sees this, and a list of thirty numbers, however good, can't. Six layers have more than half a million sets, so "search" never means all of them.
#
# ## 5. Does the text matter?
#
# All of this read *some* text. Would another genre have chosen other layers? Another language? We score seven kinds of text and compare the six lowest layers of each pair.

# %%
english = built_in_text("calibration")
sources = {genre: english[english["genre"] == genre]["text"].tolist() for genre in ("dialogue", "encyclopedic", "howto", "news", "story")}
sources["Chinese"] = built_in_text("calibration", language="zh")["text"].tolist()
sources["all English"] = None
read = {name: calibration_batches(tokenizer, text, samples=40 if name == "all English" else 12, length=128, batch_size=12) for name, text in sources.items()}
kinds = {name: score_layers(model, some, progress=False) for name, some in read.items()}
plot_agreement(plan_agreement(kinds, 6))
plt.show()

# %% [markdown]
# Genres of one language nearly agree; the differences are about the fifth and sixth layer, where scores are close. Chinese, of which this model knows little, moves the choice. *Rule:* calibrate on the language that you will serve.
#
# And how much text? We draw two texts of the same size at random from our samples, let each choose six layers, and ask how many of them they share.

# %%
plot_tokens_needed(tokens_needed(kinds["all English"], 6))
plt.show()

# %% [markdown]
# A few thousand tokens settle it. More text makes the scores more precise, but it changes the *set* only where two layers are nearly tied, and then the choice hardly matters. (`sampled_text` lets the model write its own calibration text, for a model whose training data nobody has. Try it: `score_layers(model, calibration_batches(tokenizer, sampled_text(model, tokenizer)))`.)
#
# ## 6. Repair without training
#
# Six layers turned the state $x_s$ into $x_e$. Now they are gone, and layer $e$ gets $x_s$ instead. Part of what they did is *linear*, and a linear map can be found without training, by least squares over calibration tokens $t$:
#
# $$\min_D \sum_t \frac{|x_{e,t} - x_{s,t} - z_t D|^2}{|x_{e,t}|^2} + \lambda |D|^2$$
#
# With $z$ the inner state of the FFN just before the gap, $D$ is added to that FFN's output matrix: **folded** in, so the model has no parameter more, and it is an ordinary checkpoint. (With $z = (x_s, 1)$ it is a small **linear** module, which needs our loader.) Every fourth sample is held back and chooses $\lambda$. Dividing by $|x_e|^2$ matters: the first token of a text has a state hundreds of times longer than the others, and would decide everything.

# %%
span = list(range(13, 19))
repair_text = calibration_batches(tokenizer, samples=8)
versions = {"dense": model, "cut": remove_layers(model, span)}
versions["folded"] = heal(model, span, repair_text, progress=False)
versions["linear module"] = heal(model, span, repair_text, kind="linear", progress=False)
values = {name: perplexity(version, tokenizer, texts) for name, version in versions.items()}
_, ax = plt.subplots(figsize=(7, 3), layout="constrained")
bars = ax.barh(list(values), list(values.values()), color=PALETTE[0], edgecolor="black")
ax.bar_label(bars, fmt="%.1f", padding=4)
ax.set(xlabel="perplexity, layers 13 to 18 removed", ylim=(3.5, -0.5))
plt.show()
back = (values["cut"] - values["folded"]) / (values["cut"] - values["dense"])
print(f"The folded patch takes back {back:.0%} of the damage, without a gradient and without a parameter more.")

# %% [markdown]
# How many parameters changed? One matrix of the layer before the gap. Let us make sure that it is an ordinary model:

# %%
changed = [name for name, weight in versions["folded"].named_parameters() if weight is not dict(versions["cut"].named_parameters())[name]]
print(f"changed: {', '.join(changed)}")
print(f"parameters: {versions['cut'].num_parameters():,} cut, {versions['folded'].num_parameters():,} folded")
print(f"recorded in the configuration: {versions['folded'].config.shortgpt_repair}")

# %% [markdown]
# Now the question behind the question. BI proposed scattered layers; one patch per gap is needed then, and each sees the errors of the ones before. A contiguous span needs *one* patch, which stands for six layers as easily as for one. So the best plan to repair need not be the best plan to leave alone. The stored results, with a patch fitted on 12 samples, and `repaired_search`, which repairs each set before it judges it:

# %%
both = stored[(stored["removed"] == 6) & stored["repair"].isin(["none", "fold"]) & (stored["seed"].fillna(0) == 0)]
both = both.pivot(index="criterion", columns="repair", values="perplexity").dropna().sort_values("fold")
_, ax = plt.subplots(figsize=(8, 4), layout="constrained")
ax.hlines(range(len(both)), both["fold"], both["none"], color="0.6")
ax.plot(both["none"], range(len(both)), "s", color=PALETTE[1], label="cut", markersize=8)
ax.plot(both["fold"], range(len(both)), "o", color=PALETTE[0], label="repaired (folded)", markersize=8)
ax.set_yticks(range(len(both)), both.index)
ax.set(xlabel="perplexity, six layers removed", ylim=(len(both) - 0.5, -0.5))
ax.legend()
plt.show()
first, cut = both["fold"].idxmin(), both["none"].idxmin()
print(f"Cut only, {cut} is best ({both['none'][cut]:.1f}); repaired, {first} is ({both['fold'][first]:.1f}). "
      f"BI goes from {both['none']['block_influence']:.1f} to {both['fold']['block_influence']:.1f}.")  # fmt: skip

# %% [markdown]
# How far does it go? `heal(..., sites="all")` fits every later FFN again, too, each to the dense state at its place.

# %%
far = stored[(stored["removed"] == 6) & stored["criterion"].isin(["block_influence", "search", "repaired_search"])]
far.pivot(index="criterion", columns="repair", values="encyclopedic").round(1)

# %% [markdown]
# These are perplexities on encyclopedic text only. They are still far from dense, and more calibration text helps more than more fitting: a matrix of this FFN has nearly a million numbers, and we fit it on a few thousand tokens. Real repair, with gradients, is a later lesson.
#
# ## 7. Beat the algorithm
#
# Your turn. Press the layers to remove, then *Try*. One button picks BI's six layers, another the span from above. The loss is measured on a little text (so that it answers quickly), which makes winning here easier than winning in general: that is the trap every search falls into.

# %%
contest = Trials(model, calibration_batches(tokenizer, samples=2, length=128))
plan = choose_by(model, batches, "block_influence", 6, progress=False)
picking_explorer(contest, depth, {"BI, 6 layers": plan.removed, "span 13 to 18": span})

# %% [markdown]
# The same without buttons, for readers of the saved notebook. Change the list:

# %%
mine = [3, 12, 13, 14, 17, 26]
for name, layers in {"mine": mine, "BI": plan.removed, "span": span}.items():
    print(f"{name}: without {sorted(layers)} perplexity is {np.exp(contest(layers)):.1f}")

# %% [markdown]
# ## What we saw
#
# - Rules that ignore the states (first layers, last layers) destroy this model; a coin does better, and any score of the states better than a coin.
# - Trying beats scoring, at hundreds of times the cost. Block Influence is the cheapest criterion on the way.
# - A few thousand tokens settle the choice; the language of the text matters more than its genre.
# - A closed-form patch takes back a good part of the damage, most of all for contiguous spans, and costs nothing at run time.
#
# **Which of the paper's claims hold here?** That BI beats sequential and reverse order (figures 5 and 6): yes, by far. That relative magnitude comes close: yes, and we saw why. That the redundant layers are the deep ones: no. In this small model they are in the middle, and removing the last ones is a catastrophe; in the paper's 7B models reverse order is poor on perplexity, but not on MMLU.
#
# **Question 4 of the course: why does BI allow higher pruning ratios than the other metrics of figure 5?** Because the curve of a bad order breaks at its *first* bad layer. Sequential removal starts with the layer that matters most, and reverse order with the second most. BI postpones every layer that turns the states much, so the break comes late. It does not make the layers any less needed.
#
# **Question 9: relative magnitude against BI?** Both measure the same triangle. They order the layers alike as long as additions are at right angles to the state, and part where a layer changes only the length, which the following norm would remove anyway.
#
# ## Three questions
#
# **1.** A colleague found the best six layers by trying 500 sets on the text on which she reports perplexity. What is wrong?
#
# <details><summary>Answer</summary>The smallest of 500 noisy numbers is small partly by luck, and the luck doesn't carry over. Choose on one text and report on another, as the stored results do.</details>
#
# **2.** Leave-one-out says that layers 14 and 15 are each nearly free. Is removing both nearly free?
#
# <details><summary>Answer</summary>Not necessarily: each may be free only because the other one is still there. Measure the pair, or remove one and score again.</details>
#
# **3.** Why does a patch of one matrix help a contiguous span more than six single gaps?
#
# <details><summary>Answer</summary>One least-squares fit aims at the state behind the whole span, so errors do not add up from gap to gap; and what several layers do together to the mean state is as linear as what one does.</details>
#
# **Next:** [07 · Depth or width](07_depth_or_width.ipynb) · **Previous:** [05 · Evaluation](05_evaluation.ipynb)
