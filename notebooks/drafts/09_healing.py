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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/shortgpt-course/shortgpt/blob/main/notebooks/09_healing.ipynb)
#
# # 09 · Healing: least squares, then gradients
#
# A model without a fifth of its layers is smaller and faster, and worse. Lesson 06 took part of the loss back with one matrix and without training. Here we look at what exactly is missing, and where; we repair it by hand; and then we do what everybody does who puts a pruned model to use: we train it, with the dense model as its teacher. At the end stand the paper's own results, and what healing doesn't bring back.
#
# **You will be able to**
#
# - say at which layer a pruned model goes wrong, and which state of the dense model is the right one to compare with;
# - fit one matrix by least squares so that the next layer reads what it expects;
# - train a pruned model to answer as the dense one does, and watch it learn;
# - read a published healing result, and say what it leaves open.
#
# **Before:** [lesson 03](03_pruning.ipynb) (removing layers) and [lesson 06](06_choosing_layers.ipynb) (choosing them, and the first repair) · **Takes:** about 8 minutes on 2 CPU cores, half of it one training run · **Memory:** about 3 GB · **Download:** 93 MB once (shared by all lessons)

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
# What we need from the toolkit:

# %% tags=["for-exercises"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from shortgpt import (
    built_in_text, calibration_batches, continue_text, decoder_layers, distill, heal,
    load, perplexity, remove_layers, watch_layers,
)  # fmt: skip
from shortgpt.course.plots import MARKERS, PALETTE, STORED
from shortgpt.utils.data import data_folder

# %% [markdown] tags=["for-exercises"]
# One variable names the model.
#
# **Another model?** Change the line `MODEL = …`. The text of this lesson then still speaks of the default model; what the cells print and draw is about yours, except what says *default model, stored*. (Gemma has a norm behind each FFN, so the repair of section 2 can't be folded into it.)

# %% tags=["for-exercises"]
MODEL = "smollm2-135m-instruct"  # others, and what they need: the table in lesson 00
model, tokenizer = load(MODEL, device="cpu")
depth = len(decoder_layers(model))
gone = list(range(depth * 13 // 30, depth * 13 // 30 + 6))  # six in a row
cut = remove_layers(model, gone)

# %% [markdown]
# Text to learn from and text to measure on: both written by people, from different sources. Only the beginnings are read, so that the lesson stays short.

# %%
people = built_in_text("natural").groupby("genre").head(6)["text"].str[:2200].tolist()
tests = (
    built_in_text("natural_test").groupby("genre").head(2)["text"].str[:800].tolist()
)
print(f"{len(people)} documents to learn from, {len(tests)} to measure on.")
print(
    f"Perplexity: dense {perplexity(model, tokenizer, tests):.1f}, "
    f"layers {gone[0]} to {gone[-1]} cut {perplexity(cut, tokenizer, tests):.1f}."
)

# %% [markdown]
# ## 1. What is lost, and where?
#
# Each layer that is left was trained to read the state that the layers before it make. Now six of them are missing, and one layer reads something it has never seen. *Predict:* does the error grow from there to the end, stay, or shrink?
#
# To see it, we compare states. But which ones? The pruned model has a layer 13, and so does the dense one, and they are not the same layer. What the cut model calls 13 is the dense layer 19: it should read what the dense layer 19 reads. So we match by **original number**, and compare what *enters* each layer.

# %%
kept = [i for i in range(depth) if i not in gone]
pairs = {new: old for new, old in enumerate(kept) if new} | {len(kept): depth}
print("pruned -> dense: " + ", ".join(f"{new} -> {old}" for new, old in pairs.items()))


@torch.inference_mode()
def entering(model, ids) -> dict:
    """State i enters layer i of `model`, the last leaves the last: [tokens, hidden]."""
    states = {}

    def keep(layer, x_in, x_out):
        states[layer], states[layer + 1] = x_in[0], x_out[0]

    with watch_layers(model, keep):
        model(input_ids=ids)
    return states


# %% [markdown]
# The error is relative: the length of the difference in percent of the length of the dense state, a mean over tokens.

# %%
reading = [tokenizer(text, return_tensors="pt")["input_ids"][:, :256] for text in tests]
dense_states = [entering(model, ids) for ids in reading]


def errors(pruned) -> pd.Series:
    """Distance from the dense state (%), by the layer's number in the dense model."""
    found = {old: [] for old in pairs.values()}
    for ids, dense in zip(reading, dense_states, strict=True):
        states = entering(pruned, ids)
        for new, old in pairs.items():
            off = (states[new] - dense[old]).norm(dim=-1) / dense[old].norm(dim=-1)
            found[old].append(off[1:])  # not the first token, whose state is huge
    return pd.Series(
        {old: 100 * float(torch.cat(off).mean()) for old, off in found.items()}
    )

# %% [markdown]
# *Look at* the first layer behind the gap, and at what becomes of the error from there on.

# %%
def draw(curves: dict) -> None:
    """Errors along the layers, a line for each model."""
    _, ax = plt.subplots(figsize=(9, 3.6), layout="constrained")
    for i, (name, curve) in enumerate(curves.items()):
        style = MARKERS[i] + "-"
        ax.plot(curve.index, curve, style, color=PALETTE[i], label=name, markersize=4)
    ax.axvspan(gone[0] - 0.5, gone[-1] + 0.5, color="0.9", label="removed")
    ax.set_xlabel("entering layer (number in the dense model)")
    ax.set_ylabel("distance from the dense state (%)")
    ax.legend()
    plt.show()


# %% [markdown]
# First the cut model alone.

# %%
curves = {"cut": errors(cut)}
draw(curves)
first = gone[-1] + 1
print(
    f"Up to layer {gone[0] - 1} nothing is different. "
    f"Layer {first} reads a state that is {curves['cut'][first]:.0f} % off, "
    f"and what leaves the last layer is {curves['cut'][depth]:.0f} % off."
)

# %% [markdown]
# TODO(result): two sentences on the curve (how large is the step behind the gap; does the error grow, stay or shrink behind it; what the last layer does to it).
#
# So there is one place where the damage happens, and all later layers only hand it on. That is a hint where to repair.

# %% [markdown]
# ## 2. One matrix, by hand
#
# The state behind the gap is the state before it plus what six layers added. Part of that addition can be had from what is there already. Let $z_t$ be what enters the last matrix before the gap (the output projection of the FFN of the layer before), $y_t$ the state that this layer hands on, and $x_t$ the dense state behind the gap. We look for the matrix $D$ that makes $y_t + z_t D$ as near to $x_t$ as possible, over many tokens: least squares. As $D$ only ever meets $z_t$, where the projection does too, it can be added to the projection's weight. The repaired model has no new parameter.
#
# First the three kinds of numbers, from a text that nobody measures on.

# %%
batches = calibration_batches(tokenizer, people, samples=8, length=512)
before = decoder_layers(model)[gone[0] - 1]
seen = {"z": [], "y": [], "x": []}


def note(layer, x_in, x_out):
    if layer in (gone[0] - 1, gone[-1]):
        seen["y" if layer < gone[0] else "x"].append(x_out.flatten(0, 1))


down = before.mlp.down_proj
handle = down.register_forward_pre_hook(
    lambda module, args: seen["z"].append(args[0].flatten(0, 1))
)
with torch.inference_mode(), watch_layers(model, note):
    for batch in batches:
        model(**batch)
handle.remove()
z, y, x = (torch.cat(parts).double() for parts in seen.values())  # [tokens, features]
print(f"{len(z):,} tokens; z has {z.shape[1]:,} numbers each, the state {x.shape[1]}.")

# %% [markdown]
# At the minimum the derivative is zero, and that is a system of linear equations with as many unknown rows as $z$ has numbers. A small number on its diagonal, the *ridge*, keeps it solvable and $D$ small. *Predict:* how much of the missing part can one matrix bring, on the tokens it was fitted to, and on others?

# %%
def fitted(z, y, x, ridge=1.0):
    """D [k, hidden] with the smallest relative errors of y + z D against x."""
    weight = 1 / x.square().sum(-1, keepdim=True)  # errors count relative to the state
    square = z.T @ (weight * z)
    square += ridge * square.diagonal().mean() * torch.eye(len(square), dtype=z.dtype)
    return torch.linalg.solve(square, z.T @ (weight * (x - y)))


half = len(z) * 3 // 4
D = fitted(z[:half], y[:half], x[:half])
for name, some in (("fitted to", slice(half)), ("held back", slice(half, None))):
    missing = (x[some] - y[some]).norm(dim=-1)
    left = (x[some] - y[some] - z[some] @ D).norm(dim=-1)
    share = (1 - left / missing).mean()
    print(f"tokens {name}: {share:.0%} of the missing part is there.")

# %% [markdown]
# TODO(result): how much, and how much less on held-back tokens.
#
# Now put it in, and draw the errors again. `heal` solves the same system, from sums over the batches, and tries several ridges on text that it holds back.

# %%
by_hand = remove_layers(model, gone)
patched = decoder_layers(by_hand)[gone[0] - 1].mlp.down_proj
patched.weight = torch.nn.Parameter(patched.weight + D.T.to(patched.weight))
folded = heal(model, gone, batches, progress=False)
curves |= {
    "one matrix, by hand": errors(by_hand),
    "one matrix, by heal": errors(folded),
}
draw(curves)
values = {
    name: perplexity(m, tokenizer, tests)
    for name, m in {
        "dense": model,
        "cut": cut,
        "by hand": by_hand,
        "by heal": folded,
    }.items()
}
print(
    "Perplexity: "
    + ", ".join(f"{name} {value:.1f}" for name, value in values.items())
    + "."
)

# %% [markdown]
# TODO(result): the step behind the gap is smaller, and what follows keeps that; how much of the loss is back.
#
# This took seconds and no gradient. What one linear map can't do is what the six layers did *differently for different tokens*: their attention, and whatever is not linear. For that, the layers that are left must change.

# %% [markdown]
# ## 3. What to learn from
#
# Training needs a goal. The next token of a text is one: that is how the dense model was trained, on trillions of tokens. We have far fewer. But we have something better: the dense model itself. At every position it says of all 49,152 tokens how likely they are. To learn from that is called *distillation* (Hinton et al., [arXiv 1503.02531](https://arxiv.org/abs/1503.02531)), and the dense model is the *teacher*.
#
# *Look at* what each of them expects after a few words: what does the text say, and what does the teacher?

# %%
prompt = "The ship left the harbour at dawn and sailed"


@torch.inference_mode()
def expected(model) -> torch.Tensor:
    """Probabilities of the next token: [vocabulary]."""
    return model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1].softmax(-1)


teacher = expected(model)
likely = teacher.topk(8).indices
table = pd.DataFrame(
    {
        name: 100 * expected(m)[likely].numpy()
        for name, m in {"dense": model, "cut": cut, "folded": folded}.items()
    },
    index=[tokenizer.decode(i) for i in likely],
)
display(table.round(1))
print(f"These eight hold {teacher[likely].sum():.0%} of the teacher's expectation.")

# %% [markdown]
# How far one distribution is from another is measured by the Kullback–Leibler divergence: $\sum_w p_w (\log p_w - \log q_w)$, with $p$ the teacher's probabilities. It is 0 if the two agree, and else positive; exercise 2 computes it. The loss that we minimise has two parts:
#
# - the **divergence** of the answers, a mean over all tokens of a batch;
# - the **error of the states**, matched by original number as in section 1, a mean over tokens and layers. It tells every layer at once what it should hand on, while the answers alone only speak to the end.
#
# What may change? All weights, or only *adapters*: beside each matrix $W$ two thin ones, and $W + \frac{\alpha}{r} B A$ is used in its place (LoRA, [arXiv 2106.09685](https://arxiv.org/abs/2106.09685)). They have few parameters, so that the optimizer needs little memory, and at the end they are added to $W$ for good (exercise 3).

# %% [markdown]
# ## 4. Two hundred steps
#
# We start from the folded model, with adapters of rank 16, and read a few thousand tokens by people. The figure is drawn anew at each measurement on text that is held back. It takes about four minutes. *Predict* while it runs: will two hundred steps do more than the one matrix did?

# %%
STEPS, LENGTH, SAMPLES = 200, 96, 2  # what four minutes on 2 cores are enough for
rows = []
figure, axis = plt.subplots(figsize=(8, 3), layout="constrained")
place = display(figure, display_id=True)


def live(row: dict) -> None:
    """Draw what was measured so far."""
    rows.append(row)
    read, apart = ([r[name] for r in rows] for name in ("tokens", "divergence"))
    axis.clear()
    axis.plot(read, apart, "o-", color=PALETTE[0])
    axis.set(xlabel="tokens read", ylabel="divergence, held-back text", ylim=(0, None))
    place.update(figure)


# %% [markdown]
# `distill` is the whole of it: a student, a teacher, a text, and how many tokens to read. It never changes the two models that it is given.

# %%
healed, history = distill(
    folded, model, tokenizer, people,
    tokens=STEPS * LENGTH * SAMPLES, held_back=[text[:600] for text in tests[:6]],
    lora=16, length=LENGTH, batch_size=SAMPLES, at_once=SAMPLES,
    evaluations=8, report=live, progress=False,
)  # fmt: skip
plt.close(figure)
start, best = history["divergence"].iloc[0], history["divergence"].min()
print(f"The divergence on held-back text fell from {start:.3f} to {best:.3f}.")

# %%
display(
    history[["step", "tokens", "loss", "divergence", "states", "perplexity"]].round(3)
)
values["healed"] = perplexity(healed, tokenizer, tests)
back = np.log(values["cut"] / pd.Series(values)) / np.log(
    values["cut"] / values["dense"]
)
print(
    "Of the loss that the cut added is back: "
    + ", ".join(f"{name} {back[name]:.0%}" for name in ("by hand", "by heal", "healed"))
    + "."
)

# %% [markdown]
# TODO(result): what two hundred steps brought, beside the matrix, on the documents that were measured.
#
# And where? Are the states nearer, too, or only the answers?

# %%
curves["trained"] = errors(healed)
shown = {name: curves[name] for name in ("cut", "one matrix, by heal", "trained")}
draw(shown)
places = {f"Entering layer {first}": first, "Leaving the last layer": depth}
for name, where in places.items():
    off = ", ".join(f"{which} {curve[where]:.0f} %" for which, curve in shown.items())
    print(f"{name}, the states are off by: {off}.")

# %% [markdown]
# TODO(result): one sentence: does training work at the gap, or behind it?
#
# A number is not a text. What does each of them write?

# %%
for name, m in {"dense": model, "cut": cut, "folded": folded, "healed": healed}.items():
    print(f"{name:7} {continue_text(m, tokenizer, prompt, new_tokens=30)!r}")

# %% [markdown]
# TODO(result): what came back of the writing, and what didn't.

# %% [markdown]
# ## 5. More tokens
#
# Two hundred steps of this size are a beginning: people who heal models read millions of tokens. `python measure/distill.py` has read more, and `data/distilled.csv` keeps what came of it, from the cut and from the folded model, with all weights and with adapters, on text that the teacher wrote itself and on text by people. *Predict:* does the head start of the folded model last?

# %%
stored = pd.read_csv(data_folder() / "distilled.csv")
untrained = stored[stored["trained"] == "none"].set_index("start")["lost"]
runs = stored[stored["trained"] != "none"]
fig, ax = plt.subplots(figsize=(9, 4), layout="constrained")
for i, (names, run) in enumerate(runs.groupby(["start", "trained", "text"])):
    look = {"fmt": MARKERS[i] + "-", "color": PALETTE[i], "capsize": 3}
    label = "from the {} model, {}, text: {}".format(*names)
    ax.errorbar(run["tokens"], run["lost"], run["lost_error"], label=label, **look)
for start, style in (("cut", "--"), ("fold", ":")):
    name = f"{start}, not trained"
    ax.axhline(untrained[start], color="black", linestyle=style, label=name)
ax.set(xscale="log", xlabel="tokens read (log scale)", title=STORED)
ax.set_ylabel("loss above the dense model\n(nats a token)")
ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
best = runs.nsmallest(1, "lost").iloc[0]
print(
    f"{STORED}, nats a token above the dense model: cut {untrained['cut']:.3f}, "
    f"folded {untrained['fold']:.3f}, "
    f"best of the trained ones {best['lost']:.3f} ± {best['lost_error']:.3f}."
)

# %% [markdown]
# TODO(result): start (cut or folded), adapters or all weights, whose text; how the curve bends, and what the next factor of ten would buy.
#
# Perplexity is one thing and answers are another. The same models on four offline tasks, with what is above guessing in percent of what the dense model has above guessing:

# %%
tasks = ["grammar", "last_word", "physical", "science"]
above = (
    stored[tasks].to_numpy() - stored[[f"{task}_chance" for task in tasks]].to_numpy()
)
dense_row = int(stored.index[stored["start"] == "dense"][0])
kept_above = pd.DataFrame(100 * above / above[dense_row], columns=tasks)
label = (
    stored[["start", "trained", "text", "tokens"]].astype(str).agg(", ".join, axis=1)
)
display(kept_above.assign(mean=kept_above.mean(axis=1)).set_index(label).round(0))
worst = kept_above.drop(index=dense_row).mean().idxmin()
print(
    f"What lags behind most, in the mean over all models, is {worst.replace('_', ' ')}."
)

# %% [markdown]
# TODO(result): which task comes back first and which last; how sure that is with so few items.

# %% [markdown]
# ## 6. What the paper did
#
# ShortGPT's table 6 heals as well: each removed run of layers is replaced by a small network (an MLP), and these are trained. On Llama-2-7B that leaves 24 % removed in place of 27.1. *Look at* the task that was worst after the cut: how far did it come?

# %%
table6 = pd.read_csv(data_folder() / "paper" / "table6_post_training.csv")
scores = table6.set_index("method").drop(columns=["model", "ratio_percent"]).T
dense_scores, healed_scores = scores["Dense"], scores.drop(columns="Dense")
relative = 100 * healed_scores.div(dense_scores, axis=0).drop(index="average")
relative = relative.sort_values("ShortGPT")
fig, ax = plt.subplots(figsize=(9, 3.6), layout="constrained")
for i, (name, column) in enumerate(relative.items()):
    look = {"color": PALETTE[i], "hatch": ("", "///")[i], "edgecolor": "black"}
    ax.bar(np.arange(len(column)) + 0.4 * i - 0.2, column, 0.4, label=name, **look)
ax.axhline(100, color="black", linestyle=":")
ax.set_xticks(range(len(relative)), relative.index, rotation=45, ha="right")
ax.set(ylabel="% of the dense score")
ax.legend()
plt.show()
dense_mean, cut_mean, healed_mean = scores.loc["average"]
task, (lowest, then) = relative.index[0], relative.iloc[0]
print(
    f"Average: dense {dense_mean:.1f}, cut {cut_mean:.1f}, healed {healed_mean:.1f}. "
    f"{task} goes from {lowest:.0f} to {then:.0f} % of the dense score."
)

# %% [markdown]
# XSum is the one task of the thirteen in which the model has to *write* something (a summary); in the others it chooses among answers. After the cut next to nothing of it was left, and after healing it is still far below everything else. Note also what the table can't tell: the healed model has fewer parameters removed than the cut one, several of the tasks were at the guessing level all along (lesson 05), and there are no standard errors.

# %% [markdown]
# ## 7. The ceiling
#
# - Who learns only to answer as the teacher does can't get past the teacher, and what isn't in the text that is read isn't learned. Measure on text of another origin than you train on.
# - **Writing comes back last.** Answers that are chosen need one good position; a text needs all of them in a row, each on top of the ones before (lesson 10). Studies of healed models find multiple choice nearly restored when mathematics and free writing are still broken (for instance [arXiv 2602.01997](https://arxiv.org/abs/2602.01997)).
# - **The ranking can turn around.** Which layers are best to remove *before healing* need not be best after it. NVIDIA's guide to its own pruner found exactly that with two methods. So choose by the model that you will use, healed, if you can afford to.
# - **It never ends quite at 100 %.** The curve of section 5 is nearly straight over a logarithmic axis: each further step costs ten times as much as the one before. TODO(result): is it? Published models that are pruned for use read billions of tokens, not millions.

# %% [markdown]
# ## Exercises
#
# Three functions to write yourself. To try them before you see a solution, open the [exercise notebook](exercises/09_healing.ipynb): there each solution is left out, and a check tells you what is wrong with yours. Here they are solved.

# %% [markdown]
# ### Exercise 1: Which states belong together?
#
# **Difficulty:** easy · **Minutes:** 10
#
# A dense model has `depth` layers, and those in the list `removed` (dense numbers, in any order) are gone. Number the states: state i enters layer i, and the last one leaves the last layer. Return a list of pairs `(pruned, dense)`, ascending: for every layer that is left but the first, the number of the state that enters it in the pruned model and in the dense one; and at the end the pair of the states that leave the last layer.
#
# <details><summary>Hint</summary>
# Make the list of the layers that stay. A layer's place in it is its new number, and what stands there its old one.
# </details>

# %% tags=["exercise"]
def state_pairs(depth, removed):
    """Pairs of states, in the pruned and in the dense model, that should agree."""
    ### BEGIN SOLUTION
    staying = [layer for layer in range(depth) if layer not in removed]
    return [*enumerate(staying), (len(staying), depth)][1:]
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_state_pairs, require_passed

check_state_pairs(state_pairs)

# %% tags=["apply"]
require_passed(state_pairs)
print(f"Our cut: {state_pairs(depth, gone)}")

# %% [markdown]
# The same pairs as in section 1. `distill` finds them in the configuration of the pruned model, which records the removed layers by their dense numbers.

# %% [markdown]
# ### Exercise 2: How far apart are two answers?
#
# **Difficulty:** medium · **Minutes:** 15
#
# `dense` and `pruned` are logits `[tokens, vocabulary]`. Divide both by `temperature` and turn them into distributions, $p$ (dense) and $q$ (pruned). Return $T^2 \sum_w p_w (\log p_w - \log q_w)$ for each token: `[tokens]`. A temperature above 1 flattens both, so that unlikely words count for more; the factor keeps gradients at their size.
#
# <details><summary>Hint 1</summary>
# <code>log_softmax(-1)</code> gives log-probabilities without overflow.
# </details>
# <details><summary>Hint 2</summary>
# The weights in front of the bracket are probabilities: <code>exp</code> of the dense model's log-probabilities.
# </details>

# %% tags=["exercise"]
def answer_divergence(dense, pruned, temperature):
    """How far the pruned model's answers are from the dense one's, ``[tokens]``."""
    ### BEGIN SOLUTION
    log_p = (dense / temperature).log_softmax(-1)
    log_q = (pruned / temperature).log_softmax(-1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(-1)
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_answer_divergence

check_answer_divergence(answer_divergence)

# %% tags=["apply"]
require_passed(answer_divergence)
text = built_in_text("natural_test")["text"].iloc[0][:300]
ids = tokenizer(text, return_tensors="pt")["input_ids"]
with torch.inference_mode():
    apart = answer_divergence(
        model(ids).logits[0], remove_layers(model, gone)(ids).logits[0], 1.0
    )
hardest = apart.topk(3).indices.sort().values
print(
    f"Mean {apart.mean():.2f} nats, median {apart.median():.2f}. Furthest apart after: "
    + ", ".join(
        repr(tokenizer.decode(ids[0, max(0, i - 3) : i + 1])) for i in hardest.tolist()
    )
)

# %% [markdown]
# TODO(result): is the mean well above the median? Then at most positions the two models nearly agree, and a few make the loss; those are what training has to mend.

# %% [markdown]
# ### Exercise 3: Merge an adapter
#
# **Difficulty:** medium · **Minutes:** 10
#
# An adapter of rank $r$ beside the weight `weight` `[outputs, inputs]` has two matrices: `a` `[r, inputs]`, which leads into few numbers, and `b` `[outputs, r]`, which leads out of them. Its part is scaled by `alpha` / $r$. Return the one matrix `[outputs, inputs]` that does what both together did.
#
# <details><summary>Hint</summary>
# For an input x the two paths give W x and (alpha / r) B (A x). Put the brackets elsewhere.
# </details>

# %% tags=["exercise"]
def merged_weight(weight, a, b, alpha):
    """The weight with its adapter in it, ``[outputs, inputs]``."""
    ### BEGIN SOLUTION
    rank = a.shape[0]
    return weight + alpha / rank * (b @ a)
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_merged_weight

check_merged_weight(merged_weight)

# %% tags=["apply"]
require_passed(merged_weight)
weight = decoder_layers(model)[0].mlp.down_proj.weight.detach()  # [outputs, inputs]
draw_numbers = torch.Generator().manual_seed(0)
a = torch.randn(16, weight.shape[1], generator=draw_numbers) / 100
b = torch.randn(weight.shape[0], 16, generator=draw_numbers) / 100
x_in = torch.randn(5, weight.shape[1], generator=draw_numbers)
one, two = (
    x_in @ merged_weight(weight, a, b, 32).T,
    x_in @ weight.T + 2 * (x_in @ a.T) @ b.T,
)
off = (one - two).abs().max() / two.abs().max()
print(f"The two paths and the merged matrix differ by {off:.0e} of the largest value.")
adapter = a.numel() + b.numel()
print(f"Parameters: the matrix {weight.numel():,}, its adapter {adapter:,}.")

# %% [markdown]
# A matrix of many numbers is changed through an adapter of a few percent of them. That is why adapters are quick to train and easy on memory, and also their limit: the change has rank 16, whatever the text would ask for.

# %% [markdown]
# ## What we saw
#
# - A cut in depth does its damage at the gap; the layers behind it hand the error on.
# - States belong together by original number, and each layer is judged by what *enters* it.
# - One matrix, found by least squares in seconds, takes back part of the loss and leaves an ordinary checkpoint.
# - Training with the dense model as teacher goes on from there. TODO(result): how far, with how many tokens.
# - Answers that are chosen come back before texts that are written.
#
# All of it is one model, one cut, and at most TODO(result) tokens.

# %% [markdown]
# ## Three questions
#
# **1.** Somebody matches states by position: layer 13 of the pruned model with layer 13 of the dense one. What would training then do?
#
# <details><summary>Answer</summary>Ask the layers behind the gap for states of layers that came six earlier in the dense model: they would have to unlearn what they do, and the answers, which come out at the end, pull the other way.</details>
#
# **2.** You train on your company's manuals and measure on other pages of the same manuals. The healed model is better than the dense one! Is it?
#
# <details><summary>Answer</summary>On such manuals perhaps, if the loss included the text itself: it was adapted to them. It says nothing on other text, where it may have lost. And against a dense model that had read the same manuals it would have no advantage.</details>
#
# **3.** Healing costs two days on eight GPUs. What would you compare it with before you start?
#
# <details><summary>Answer</summary>With a smaller model that exists already at that size; with the closed-form repair alone; with fewer layers removed; and with the same training on a few other choices of layers, for a small part of the budget, because the ranking may turn around.</details>

# %% [markdown]
# **Check yourself.** Three more questions, with choices: press a letter (or reach it with Tab and press Space). In a saved notebook, unfold the line below.

# %%
from shortgpt.course.quiz import quiz

quiz("09")

# %% [markdown]
# What comes back last is writing. Why that is so, and what can be done about it: · **Next:** [10 · Generation](10_generation.ipynb) · **Previous:** [07 · Depth or width: layers, sublayers, heads, channels](07_depth_or_width.ipynb)
