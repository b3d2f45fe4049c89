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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/shortgpt-course/shortgpt/blob/main/notebooks/11_why_layers_repeat.ipynb)
#
# # 11 · Why deep layers repeat
#
# From lesson to lesson we used one fact: deep layers turn the hidden state only a little. *Why* is that so? The paper has an explanation (its appendix A): modern models put a norm in front of each branch, so the states grow with depth, and what a deep layer adds is small beside them. It is a clear claim. The paper trained two models to test it, one with the norm in front and one with the norm behind, and the second one broke down early in its training, so little could be said. We have models that differ in this alone: the **twins** of lesson 08, trained in several ways on the same text in the same order. In this lesson you derive the claim in three lines, predict what each way of training should give, and then look.
#
# **You will be able to**
#
# - derive that states grow with the root of the depth, and that deep layers then turn less and less;
# - name what the derivation assumes, and measure each assumption on a model;
# - predict, and then check, what norms in other places and smaller branches change;
# - tell a small turn from a cheap removal;
# - say what this means for training, and how sure one can be.
#
# **Before:** [lesson 02](02_block_influence.ipynb) (Block Influence, norms) and [lesson 03](03_pruning.ipynb) (removing layers) · **Takes:** about 2 minutes on 2 CPU cores · **Memory:** about 1 GB · **Download:** nothing (the twins come with the course, 7 MB each)

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
from torch.nn.functional import cosine_similarity
from transformers import AutoModelForCausalLM

from shortgpt import calibration_batches, decoder_layers, load, watch_layers
from shortgpt.checkpoints.twins import twin_config
from shortgpt.course.plots import MARKERS, PALETTE, plain_log_ticks, plot_prunability
from shortgpt.course.plots import plot_twin_layers, plot_twin_norms, plot_twin_removal
from shortgpt.course.studies import twins as study
from shortgpt.course.studies.growth import pre_norm_growth, state_growth
from shortgpt.utils.data import data_folder

DATA = data_folder()
_ = torch.set_grad_enabled(False)
transformers.logging.set_verbosity_error()

# %% [markdown] tags=["for-exercises"]
# One twin to look into, `twin-KIND-SEED`: built like Llama, 16 layers, three million parameters. And some of the text it was trained on.

# %% tags=["for-exercises"]
model, tokenizer = load("twin-pre-norm-0", device="cpu", dtype=torch.float32)
text = DATA / "twins" / "calibration.jsonl"
batches = calibration_batches(tokenizer, text, length=256, samples=16, batch_size=16)
depth = len(decoder_layers(model))
print(f"{depth} layers, {batches[0]['input_ids'].numel():,} tokens of text")

# %% [markdown]
# > **Limits of this lesson.** One twin of each kind was trained, so we don't know how much two twins of one kind differ: take small differences for chance. They have three million parameters and read 1.5 million tokens, and were stopped while they were still learning. Post-norm is known to be hard to train in *deep* models; 16 layers are few. So what you see tests an argument about geometry, and it is no advice on how to train a large model.
#
# ## 1. Three lines
#
# In a **pre-norm** model each branch reads the state through a norm, and its result is added to the state itself:
#
# $$x_{l+1} = x_l + f_l(\mathrm{norm}(x_l))$$
#
# (We count a layer as one branch $f_l$ here.) The norm takes the length away. So a branch does not know how long the state is, and what it adds can't grow with it. Assume that everything a layer adds has the same length $s$, and that these additions are **independent**, so that two of them stand at a right angle on average. Then:
#
# $$\begin{aligned}
# \text{(1)}\quad & \lVert x_l\rVert^2 = \lVert f_0 + \dots + f_{l-1}\rVert^2 = l\,s^2 && \text{at right angles, squares add up (Pythagoras)}\\
# \text{(2)}\quad & x_l^\top x_{l+1} = \lVert x_l\rVert^2 + x_l^\top f_l = l\,s^2 && \text{what is added is at a right angle to the state}\\
# \text{(3)}\quad & \cos(x_l, x_{l+1}) = \frac{l\,s^2}{s\sqrt{l}\;s\sqrt{l+1}} = \sqrt{\frac{l}{l+1}} \approx 1 - \frac{1}{2l}
# \end{aligned}$$
#
# Line 1: the states grow with $\sqrt{l}$. Line 3: the Block Influence of layer $l$ is about $1/(2l)$. Nothing about language or learning went in. *Before you run the cell:* how large is the Block Influence of layer 4 and of layer 16, by line 3? Which of them would you remove?

# %%
table = pre_norm_growth(32)  # lines 1 and 3, with s = 1
turn = 1 - table["expected_cosine"]
for layer in (1, 2, 4, 8, 16, 31):
    thumb = 1 / (2 * layer)
    print(f"layer {layer:2}: 1 - cosine {turn[layer]:.4f}, rule of thumb {thumb:.4f}")

# %% [markdown]
# Deep layers turn the state little *although every layer does the same amount of work*. That is the heart of the paper's argument: redundancy would be a product of where the norms stand, and not of what the layers have learned.

# %% [markdown]
# ### The two other designs
#
# The first transformers were **post-norm**: the norm stands behind the sum.
#
# $$x_{l+1} = \mathrm{norm}(x_l + f_l(x_l))$$
#
# Every state leaves with the same length, call it $R$. If a branch adds $s$ at a right angle, then $\cos = R/\sqrt{R^2+s^2}$ at *every* depth. The states don't grow, and no layer turns less for being deep.
#
# **Scaled norms** (The Curse of Depth, arXiv 2502.05795) keep the norm in front and multiply its result by $1/\sqrt{l}$, so that deep layers add less and the states hardly grow. *Predict* by the three lines, with $s/\sqrt{l}$ in place of $s$: will its deep layers turn more than those of a pre-norm model, or less?
#
# Try it with random vectors of 128 numbers in place of branches.

# %%
def play(design, layers=32, hidden=128, tokens=200):
    """Lengths of the states and turn of each layer, with random vectors as branches."""
    generator = torch.Generator().manual_seed(0)
    size = layers + 1, tokens, hidden
    x, *branches = torch.randn(size, generator=generator) / hidden**0.5  # of length 1
    lengths, turns = [], []
    for layer, f in enumerate(branches, start=1):
        if design == "scaled norm":
            f = f / layer**0.5
        new = x + f
        if design == "post-norm":
            new = new / new.norm(dim=-1, keepdim=True)
        lengths.append(new.norm(dim=-1).mean().item())
        turns.append(1 - cosine_similarity(x, new, dim=-1).mean().item())
        x = new
    return lengths, turns


played = {design: play(design) for design in ("pre-norm", "post-norm", "scaled norm")}

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for i, (design, (lengths, turns)) in enumerate(played.items()):
    style = MARKERS[i] + ("-", "--", ":")[i]
    look = {"color": PALETTE[i], "markersize": 4, "label": design}
    for ax, values in ((left, lengths), (right, turns)):
        ax.plot(range(1, 33), values, style, **look)
left.set(xlabel="layer", ylabel="length of the state")
right.set(xlabel="layer", ylabel="1 − cosine (log scale)", yscale="log")
plain_log_ticks(right)
left.legend()
plt.show()
told = [f"{name} {turns[-1]:.3f}" for name, (_, turns) in played.items()]
print(f"With random branches, layer 32 has a Block Influence of: {', '.join(told)}.")

# %% [markdown]
# Pre-norm and post-norm do what we derived. The scaled norm may surprise you: its states hardly grow, yet its deep layers turn the state even *less*. By these lines the states' squared length is $s^2(1 + \tfrac12 + \dots + \tfrac1l)$, which grows like a logarithm, but the additions shrink like $1/\sqrt{l}$, and that is faster. So if scaled norms make deep layers more useful, as their authors find, it is not by this geometry. It must come from training: nothing keeps a branch from learning larger weights where its norm gives it less.
#
# Put together:
#
# | way of training | the states' length | turn of deep layers | cheap to remove? |
# |---|---|---|---|
# | pre-norm | grows, $\sqrt{l}$ | small, $1/(2l)$ | deep layers, says the paper |
# | post-norm | constant | constant | no layer in particular |
# | scaled norm | hardly grows | smaller still | by the turn: yes; by its authors: no |
#
# Write down which row you believe least. Everything below tests them.

# %% [markdown]
# ## 2. What was assumed
#
# The argument has three assumptions, and a real model may break each.
#
# - **A.** All layers add the same length $s$.
# - **B.** What a layer adds stands at a right angle to the state.
# - **C.** There is nothing in the stream at first. A real stream begins with the embedding; with its length $e$, line 1 becomes $\lVert x_l\rVert^2 = e^2 + l\,s^2$.
#
# C is easily repaired, and from now on $e$ is in the dashed lines. Start where A and B have their best chance: a model **before training**, whose weights are random. It has the twins' architecture and nothing else. *Predict:* does the theory fit it?

# %%
torch.manual_seed(0)
untrained = AutoModelForCausalLM.from_config(twin_config("pre-norm")).eval()
fresh = state_growth(untrained, batches)


def beside_theory(table, axes):
    """Draw lengths and turns of the states, measured and by the three lines."""
    lengths = table["norm_out"], table["expected_norm"]
    turns = 1 - table["cosine"], 1 - table["expected_cosine"]
    for ax, (measured, expected) in zip(axes, (lengths, turns), strict=True):
        look = {"color": PALETTE[0], "marker": "o", "markersize": 4}
        ax.plot(table["layer"], measured, label="measured", **look)
        ax.plot(table["layer"], expected, "--", color="black", label="three lines")
        ax.set(yscale="log", xlabel="layer")
        plain_log_ticks(ax)
    axes[0].set_ylabel("length of the state (log scale)")
    axes[1].set_ylabel("1 − cosine (log scale)")
    axes[0].legend()


# %%
_, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
beside_theory(fresh, axes)
plt.show()
off = (fresh["norm_out"] / fresh["expected_norm"] - 1).abs().max()
turns = (1 - fresh["cosine"]) / (1 - fresh["expected_cosine"])
low, high = turns.min(), turns.max()
print(f"Before training, lengths differ from the three lines by at most {off:.0%}; "
      f"turns are {low:.2f} to {high:.2f} times the expected ones.")  # fmt: skip

# %% [markdown]
# The shape is right. The lengths grow along such a curve and come near the dashed line at the end, and the turns fall with depth. But the first layers add too little. So the states are shorter than they should be, and what the next layers add turns them further. Both assumptions are about what is *added*. So look at that, for each of the two branches of a layer, attention and the FFN (feed-forward network). *Predict:* the weights of all layers are drawn in the same way; which branch might still add less in one layer than in another?

# %%
lengths, alike, handles = {"attention": [], "FFN": []}, [], []


def keep(module, args, output):
    added = (output[0] if isinstance(output, tuple) else output)[:, 1:]
    name = "attention" if isinstance(output, tuple) else "FFN"
    lengths[name].append(added.norm(dim=-1).mean().item())
    if name == "attention":  # does it add the same to neighbouring tokens?
        neighbours = cosine_similarity(added[:, 1:], added[:, :-1], dim=-1)
        alike.append(neighbours.mean().item())


for layer in decoder_layers(untrained):
    parts = layer.self_attn, layer.mlp
    handles += [part.register_forward_hook(keep) for part in parts]
untrained(**batches[0])
for handle in handles:
    handle.remove()
for name, each in lengths.items():
    told = ", ".join(f"{value:.2f}" for value in each[::3])
    print(f"{name}, length added in every third layer: {told}")
print(f"What attention adds to neighbours has a cosine of {min(alike):.3f} or more.")

# %% [markdown]
# The FFN works on each token alone, and adds the same length in every layer: assumption A holds. Attention does not. It adds a *mean* over earlier tokens. In the first layer these point in all directions, so their mean is short. But all tokens receive nearly the same mean (the last line), so with every layer the states become more alike, and a mean of vectors that point the same way is long. After a few layers this is settled, and from there on A holds for attention, too.
#
# So the argument needs care even where nothing has been learned: it treats every token alone, and attention connects them.

# %% [markdown]
# ## 3. After training
#
# The same measurement, on the twin that has read the text. *Predict:* training changes what the layers say. Can it change the growth?

# %%
grown = state_growth(model, batches)
_, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
beside_theory(grown, axes)
plt.show()
ratio = grown["norm_out"] / grown["expected_norm"]
low, high = ratio.min(), ratio.max()
print(f"After training, states are {low:.2f} to {high:.2f} times as long as the three "
      f"lines say; behind the last layer {ratio.iloc[-1]:.2f} times.")  # fmt: skip

# %% [markdown]
# The states are longer than the dashed line everywhere, and grow more slowly. Look at the left end: layer 0 alone makes a state that is nearly as long as the three lines allow after many layers. It turns the embedding almost to a right angle, and everything later adds to a state that is long already.
#
# Which assumption broke? Measure both. Assumption A: the length of what each layer adds. Assumption B: the cosine between what it adds and the state; 0 is a right angle, above 0 the layer pushes the state further the way it already points, below 0 it takes some of it away. *Which of the two do you trust less?*

# %%
def additions(model):
    """Length of what each layer adds, and its cosine with the state that enters."""
    rows = []

    def look(layer, x_in, x_out):
        x, f = x_in[:, 1:], (x_out - x_in)[:, 1:]  # without the first token
        angle = cosine_similarity(x, f, dim=-1).mean().item()
        rows.append({"length": f.norm(dim=-1).mean().item(), "cosine": angle})

    with watch_layers(model, look):
        model(**batches[0])
    return pd.DataFrame(rows)


added = {"before training": additions(untrained), "after training": additions(model)}

# %%
_, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
for i, (name, each) in enumerate(added.items()):
    style = MARKERS[i] + ("-", "--")[i]
    relative = each["length"] / each["length"].mean()
    axes[0].plot(relative, style, color=PALETTE[i], label=name)
    axes[1].plot(each["cosine"], style, color=PALETTE[i], label=name)
axes[0].set(xlabel="layer", ylabel="length added (mean = 1)", ylim=(0, None))
axes[1].axhline(0, color="black", linewidth=0.8)
axes[1].set(xlabel="layer", ylabel="cosine of addition and state", ylim=(-1, 1))
axes[0].legend()
plt.show()
for name, each in added.items():
    longest = each["length"].max() / each["length"].min()
    low, high = each["cosine"].min(), each["cosine"].max()
    print(f"{name.capitalize()}, the longest addition is {longest:.1f} times the "
          f"shortest; cosines lie between {low:.2f} and {high:.2f}.")  # fmt: skip

# %% [markdown]
# Both fail. *A:* layer 0 adds several times as much as any later layer. *B:* after training every cosine is above zero. The layers push the state the way it already points, so lengths grow, but the turn stays small. Before training the cosines were near zero, so this is what learning did: the geometry says what happens if layers know nothing of each other, and trained layers do.

# %% [markdown]
# ## 4. Three ways of training
#
# Now the twins of all three rows. First: did all of them learn? The loss on text they have not read, during training. *Post-norm models are known to be hard to train when they are deep. Do you see it?*

# %%
KINDS = ["pre-norm", "post-norm", "scaled-norm"]
curves = pd.read_csv(DATA / "twins" / "losses.csv").dropna(subset=["validation"])
fig, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
ends = {}
for i, kind in enumerate(KINDS):
    rows = curves[curves["kind"] == kind].groupby("tokens")["validation"].mean()
    look = {"color": PALETTE[i], "marker": MARKERS[i], "markevery": 0.2}
    ax.plot(rows.index / 1e6, rows, label=kind, **look)
    ends[kind] = rows.iloc[-1]
ax.set(xlabel="million tokens read", ylabel="loss on other text (nats a token)")
ax.legend(fontsize=8)
plt.show()
told = ", ".join(f"{kind} {value:.2f}" for kind, value in ends.items())
print(f"Loss at the end: {told}.")

# %% [markdown]
# No, and that is a surprise: the design that is feared to be hard to train has learned the most, and pre-norm the least. Two reasons not to generalize: 16 layers are not deep, and all three were stopped early. Why pre-norm is so slow here we did not find out. The scaled norms, made to help pre-norm models, are ahead of it. Keep the losses in mind: a model that has learned little has little to lose.
#
# Then the lengths, with the three lines dashed. Compare with your table: *which panels should be flat?*

# %%
layers = study.twin_layers().query("kind in @KINDS")
plot_twin_norms(layers)
plt.show()

# %% [markdown]
# Post-norm is flat, as derived, but for its last layer: the norm behind it has learned larger weights. Pre-norm jumps in layer 0 and then grows, less than the root says. Scaled norm starts in the same way and hardly grows afterwards.
#
# And the turns, as Block Influence. *Is it small in deep layers only where the states grow?*

# %%
plot_twin_layers(layers, "block_influence")
plt.show()

# %% [markdown]
# The prediction for pre-norm and post-norm holds: in pre-norm the deep half turns little, in post-norm it does not. There the *middle* turns least, and the last layers turn the most. The scaled norm follows the geometry to the letter: each layer turns less than the one before, and the deep half next to nothing. Its authors find that scaled norms make deep layers work; at this size and after so little text they have not.
#
# How well does $1/(2l)$ do, in numbers? For each kind, the Block Influence of the second half of the layers, divided by what line 3 gives there:

# %%
second = layers[layers["layer"] >= layers["depth"] / 2]
expected = 1 - second["expected_cosine"]
second = second.assign(times_expected=second["block_influence"] / expected)
second.groupby("kind", sort=False)[["times_expected"]].mean().round(2)

# %% [markdown]
# Near 1 means: these layers turn as much as independent additions of one length would. Below 1, they do less than that. For post-norm the number has no meaning of its own (line 3 was not derived for it); it is there for comparison.

# %% [markdown]
# Pre-norm's deep layers turn about a fifth of what independent additions would, scaled norm's a hundredth. So these layers are not merely small beside a long state: they add less than the others. The geometry gives deep layers a discount, and training at this stage made it larger.

# %% [markdown]
# ## 5. Is a small turn a cheap removal?
#
# So far we measured turns. What we want to know is the damage. *Predict* the order of the three, from cheapest to dearest, with a quarter of the layers removed by Block Influence.

# %%
removal = study.twin_removal().query("kind in @KINDS")
plot_twin_removal(removal.query("criterion == 'block_influence' and not repaired"))
plt.show()

# %% [markdown]
# Just the order of the turns: scaled norm loses almost nothing, pre-norm little, post-norm the most. At a half the distance is far larger: post-norm breaks, and scaled norm has lost less than post-norm at a quarter. The last column of the table was right about pre-norm and post-norm. About the scaled norm, the turn was right and its authors' hope was not fulfilled here.
#
# Now the central table: *how prunable is each way of training?* Loss of the whole twin, loss added without a quarter of the layers, as cut and after a repair in closed form (a linear map for each gap, lesson 06).

# %%
central = study.prunability()
central = central[central["kind"].isin(KINDS)].reset_index(drop=True)
central.set_index("kind")[["removed", "dense", "cut", "repaired"]].round(2)

# %% [markdown]
# The same as a picture, the most prunable on top. *For which kind does repair change its place?*

# %%
plot_prunability(central)
plt.show()

# %% [markdown]
# The order follows the turns of section 4, and repair does not change it. A linear map takes back a little less than half of what post-norm loses, and about two thirds of what the others lose.
#
# But read the table from the left. Scaled norm is "prunable" because its deep layers do next to nothing: what can be removed for nothing was of no use before. **A cheap removal is no merit of a model.**
#
# Was it the score's fault, as lesson 08 asked? A greedy search needs no theory. Each kind *minus pre-norm*, with Block Influence's layers and with greedy's:

# %%
quarter = removal[np.isclose(removal["share"], 0.25)]
some = quarter.query("criterion in ['block_influence', 'greedy'] and not repaired")
more = study.difference(some, "added", by=["kind", "criterion"])
more.pivot(index="kind", columns="criterion", values="mean").round(3)

# %% [markdown]
# Greedy's layers give the same order. So it is not the score that makes post-norm look worse: it really has no four layers that are as useless as those of the others.

# %% [markdown]
# ### The last layer
#
# Table 1 of the paper: without the last layer of Llama-2-7B the perplexity goes from 7.6 to 13.4, without its FFN alone to 12.4, without its attention alone to 7.7. By the three lines the last layer should be the *least* important of all. Loss added by removing the last layer, or one of its branches (post-norm layers don't simply add their branches, so there is no such number):

# %%
last = layers[layers["layer"] == layers["depth"] - 1]
parts = ["added", "added_attention", "added_ffn"]
table1 = pd.read_csv(DATA / "paper" / "table1_last_layer.csv")
table1 = table1.set_index("removed")["ppl"]
display(last.groupby("kind", sort=False)[parts].mean().round(3))
display(np.log(table1 / table1["none"]).round(3).rename("paper, nats added"))

# %% [markdown]
# In the pre-norm and the scaled twin the last layer matters no more than others. In the post-norm twin it costs half a nat (the unit of the natural logarithm, in which we give losses), about as much as in Llama-2-7B, which is pre-norm. So where the norms stand does not explain the paper's finding. Perhaps the last layer of a model that has learned enough turns the state toward the answer; no geometry knows that.

# %% [markdown]
# ## 6. How to train, then?
#
# Suppose that you will need a model of which a quarter can be cut away. A way of training is good if the *whole* model is good, and still good *after* the cut. Down and left is better. *Which kinds are not beaten on both axes by another?*

# %%
fig, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
for i, row in enumerate(central.itertuples()):
    end = row.dense + row.cut
    look = {"color": PALETTE[i], "fmt": MARKERS[i], "capsize": 3, "label": row.kind}
    ax.errorbar(row.dense, end, row.cut_error, row.dense_error, **look)
ax.set(xlabel="loss of the whole twin", ylabel="loss without a quarter of its layers")
ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
named = central.set_index("kind")
best, best_cut = named["dense"].idxmin(), (named["dense"] + named["cut"]).idxmin()
print(f"The best whole twin is {best}; the best one without a quarter is {best_cut}.")

# %% [markdown]
# Post-norm is the best on both axes. It loses more than the others by the cut, and is still far ahead after it. The two others lose less because they had less. If you want a *small* model, take the one that is best at the size that you will use, and not the one that loses least on the way there.
#
# Two things can be said without our numbers.
#
# - **Redundancy has two sides.** A model that loses nothing without a quarter of its layers has paid for them in training and at every token. But the way that leaves no layer idle, post-norm, is the one that is hard to train: the paper's own post-norm model diverged after 26 of 200 billion tokens. Pre-norm buys stable training, since every state has a straight way to the end and the gradient has one back.
# - **One can plan for removal.** With layer dropout (LayerDrop, arXiv 1909.11556) each layer is left out of a training step with some probability, so that no layer can rely on another one. Such models are meant to be cut later, to the depth that a user can afford.

# %% [markdown]
# ### Where the three lines fail
#
# They explain *why a layer can turn a state little and still work hard*. That alone is worth knowing: it warns against reading a low Block Influence as laziness. What they can't do:
#
# - They hold for independent additions. Training makes additions depend on each other (section 3).
# - They speak of turns. What is lost with a layer depends on who uses what it added, and no length knows that.
# - They order layers by depth alone, so the last layer would always be the first to go. Lessons 00 and 03 showed what removing the end does, and Block Influence itself disagrees: in our default model the last layer has the second highest score of all.

# %% [markdown]
# ## Exercises
#
# Three functions to write yourself. To try them before you see a solution, open the [exercise notebook](exercises/11_why_layers_repeat.ipynb): there each solution is left out, and a check tells you what is wrong with yours. Here they are solved.

# %% [markdown]
# ### Exercise 1: The three lines, with a beginning
#
# **Difficulty:** easy · **Minutes:** 10
#
# The stream begins with an embedding of length `start`, and each of `layers` layers adds a vector of length `step` at a right angle to what is there. Return the Block Influence of every layer, first layer first, as a list of numbers. Either length may be 0, but not both.
#
# <details><summary>Hint 1</summary>
# By Pythagoras, how long is the state in front of layer l (counted from 0), and how long behind it?
# </details>
# <details><summary>Hint 2</summary>
# The cosine is the length before divided by the length after.
# </details>

# %% tags=["exercise"]
def expected_influence(start, step, layers):
    """Block Influence of every layer that adds ``step`` at a right angle."""
    ### BEGIN SOLUTION
    squared = [start**2 + layer * step**2 for layer in range(layers + 1)]
    return [1 - (squared[i] / squared[i + 1]) ** 0.5 for i in range(layers)]
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_expected_influence, require_passed

check_expected_influence(expected_influence)

# %% tags=["apply"]
require_passed(expected_influence)
for start in (0, 2, 10):
    values = expected_influence(start, 1, 16)
    told = ", ".join(f"layer {layer} {values[layer]:.3f}" for layer in (0, 4, 15))
    print(f"start {start:2}: {told}")

# %% [markdown]
# A long embedding hides everything: with `start` 10 and `step` 1 all layers turn the state equally little, and depth hardly matters. So a flat profile of low scores can mean a strong embedding as well as idle layers. In many models the embedding is short, and the first layer has by far the highest score: it is the one that makes the stream.

# %% [markdown]
# ### Exercise 2: Where does the length come from?
#
# **Difficulty:** medium · **Minutes:** 15
#
# With $f = x_{out} - x_{in}$, the squared length grows by two parts:
#
# $$\lVert x_{out}\rVert^2 - \lVert x_{in}\rVert^2 = \lVert f\rVert^2 + 2\,x_{in}^\top f$$
#
# The first is there even at a right angle; the second is zero then. Divide both by $\lVert x_{in}\rVert^2$, for each token by its own, and return their means over all tokens: a pair of numbers, the part of $f$ alone first. The states are `[batch, tokens, hidden]`, may be in `float16`, and there is no padding.
#
# <details><summary>Hint 1</summary>
# Compute three numbers for each token (the two parts and the squared length), divide, and only then average.
# </details>
# <details><summary>Hint 2</summary>
# float16 ends at 65,504, and a squared length is soon larger.
# </details>

# %% tags=["exercise"]
def growth_parts(x_in, x_out):
    """Growth of the squared length: by the addition alone, and by its direction."""
    ### BEGIN SOLUTION
    x, f = x_in.float(), x_out.float() - x_in.float()
    before = x.square().sum(-1)  # [batch, tokens]
    alone = f.square().sum(-1) / before
    mixed = 2 * (x * f).sum(-1) / before
    return float(alone.mean()), float(mixed.mean())
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_growth_parts, require_passed

check_growth_parts(growth_parts)

# %% tags=["apply"]
require_passed(growth_parts)
kept = {}
with watch_layers(model, lambda layer, *pair: kept.update({layer: pair})):
    model(**batches[0])
for layer in range(1, depth, 3):
    alone, mixed = growth_parts(*(state[:, 1:] for state in kept[layer]))
    print(f"layer {layer:2}: by the addition {alone:+.1%}, its direction {mixed:+.1%}")

# %% [markdown]
# Above zero in every layer that is shown, and in some of them larger than the first number. So assumption B fails everywhere in this twin, and in one direction: layers lengthen the state along itself.

# %% [markdown]
# ### Exercise 3: Is it really a root?
#
# **Difficulty:** hard · **Minutes:** 20
#
# If the length behind layer $l$ (counted from 0) is $c\,(l+1)^\alpha$, the three lines say $\alpha = 1/2$. Estimate $\alpha$: in logarithms it is the slope of a straight line, to be fitted by least squares. `norms` `[seeds, layers]` holds the lengths of several twins. Fit each seed for itself, and return two numbers: the mean of the slopes, and its standard error over seeds.
#
# <details><summary>Hint 1</summary>
# The slope of y on x by least squares: take the means off both, then sum(x y) divided by sum(x x).
# </details>
# <details><summary>Hint 2</summary>
# The standard error of a mean of n numbers is their standard deviation (with n − 1) divided by the root of n.
# </details>

# %% tags=["exercise"]
def growth_exponent(norms):
    """Exponent of the growth with depth, mean over seeds, and its standard error."""
    ### BEGIN SOLUTION
    x = torch.arange(1, norms.shape[1] + 1).double().log()
    y = norms.double().log()
    x, y = x - x.mean(), y - y.mean(1, keepdim=True)
    slopes = (x * y).sum(1) / x.square().sum()  # [seeds]
    return float(slopes.mean()), float(slopes.std() / len(slopes) ** 0.5)
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_growth_exponent, require_passed

check_growth_exponent(growth_exponent)

# %% tags=["apply"]
import warnings

require_passed(growth_exponent)
stored = study.twin_layers()
for kind, rows in stored.groupby("kind", sort=False):
    norms = rows.pivot(index="seed", columns="layer", values="norm_out")
    with warnings.catch_warnings(action="ignore"):  # one seed has no spread
        exponent, error = growth_exponent(torch.tensor(norms.to_numpy()))
    sure = f"+- {error:.2f}" if len(norms) > 1 else "(one seed: no error)"
    print(f"{kind:13} grows like depth to the power {exponent:+.2f} {sure}")

# %% [markdown]
# One half is the root; 0 means no growth; 1, growth in step with depth. With one seed there is no error, as your function says, and small differences mean nothing.
#
# Mamba, a model without attention, comes nearest to one half. The pre-norm transformers grow more slowly, because layer 0 has made so long a state at once; post-norm is flat.

# %% [markdown]
# ## What we saw
#
# - In a pre-norm model with independent additions of one length, states grow with the root of the depth and the Block Influence of layer $l$ is near $1/(2l)$, although every layer does the same work.
# - Norms behind the sum keep the length constant, and every layer turns equally. Scaled norms stop the growth, but by the same lines deep layers turn even less; what they gain, they gain in training.
# - The argument rests on equal lengths and right angles. Both can be measured.
# - In the twins the order holds: post-norm's deep layers turn the state, pre-norm's little, scaled norm's hardly at all. What a removal costs follows that order.
# - Trained layers are not independent: layer 0 adds most of the length, and the others push along the state.
# - The twin that loses least by the cut is not the best one after it. A layer that can be removed for nothing was useless before.

# %% [markdown]
# ## Three questions
#
# **1.** In a pre-norm model, layer 20 has a Block Influence of 0.025. Is it lazy?
#
# <details><summary>Answer</summary>Not by this number. 1/(2 · 20) is 0.025: so much is turned by a layer that adds as much as every other one, at a right angle. Lazy would be a score far below that.</details>
#
# **2.** Someone finds that the states of a model grow in step with depth, not with its root. Which assumption must be wrong?
#
# <details><summary>Answer</summary>At least one of two. Either later layers add longer vectors, or additions point the same way as the state, so that lengths add up and not squares. (A long embedding would make the growth slower, not faster.)</details>
#
# **3.** A model trained with layer dropout has the same Block Influence profile as one without, and loses far less when layers go. What does that say about the score?
#
# <details><summary>Answer</summary>That the score sees only one half: how far a layer turns the state. How much the later layers depend on that turn is the other half, and training can change it while the turns stay the same. Within one model the score may still order the layers well; between models it does not compare damage.</details>

# %% [markdown]
# **Check yourself.** Three more questions, with choices: press a letter (or reach it with Tab and press Space). In a saved notebook, unfold the line below.

# %%
from shortgpt.course.quiz import quiz

quiz("11")

# %% [markdown]
# All of this was measured on small models. What of the paper holds for large ones, and what would it cost to try? · **Next:** [12 · The paper at scale](12_paper_at_scale.ipynb) · **Previous:** [10 · Generation](10_generation.ipynb)
