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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/shortgpt-course/shortgpt/blob/main/notebooks/00_start_here.ipynb)
#
# # 00 · Start here: one layer less
#
# A small language model has 30 layers, one above the other. We leave out **one** of them, train nothing, and let the model
# continue a sentence: *The capital of France is …* We do this three times: without layer 17, without layer 11, without
# layer 29.
#
# By the usual score, layers 17 and 11 both do very little. So both should be easy to miss. **Read what the model writes.
# Why can it do without one of the two, and not without the other?**
#
# **Takes:** about 2 minutes on 2 CPU cores, and 10 to read · **Memory:** about 2 GB · **Download:** 93 MB once (shared by
# all lessons) · **Before:** a little Python; no knowledge of language models

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

# %%
from shortgpt import continue_text, decoder_layers, load, remove_layers

MODEL = "smollm2-135m-instruct"  # or another name or Hub id: see docs/toolkit.md
model, tokenizer = load(MODEL, device="cpu")
depth = len(decoder_layers(model))  # 30
riddle = [layer * depth // 30 for layer in (17, 11, 29)]
PROMPT = "The capital of France is"


def writes(removed, prompt=PROMPT, new_tokens=16):
    smaller = remove_layers(model, removed) if removed else model
    text = continue_text(smaller, tokenizer, prompt, new_tokens=new_tokens)
    return " ".join(text.split())


texts = {(layer,): writes([layer]) for layer in riddle}
for (layer,), text in texts.items():
    print(f"without layer {layer}: {PROMPT} … {text}")

# %% [markdown]
# Without layer 17 it answers, and goes on in good English. Without layer 11 nothing is left of the sentence. Without
# layer 29, the last one, it writes single letters.
#
# ## 1. Your turn
#
# Press layers to leave them out, and press them again to put them back (by keyboard: Tab and the space bar). The text
# answers after a moment. Can you find five layers that go unnoticed? And which single layers does the model need?

# %%
from shortgpt.course.explorers import explore_writing

explore_writing(model, tokenizer, PROMPT)

# %% [markdown]
# Buttons need a running notebook. Here is the riddle as a picture: the layers, and below them the text.

# %%
import matplotlib.pyplot as plt

from shortgpt.course.plots import plot_strip

plot_strip(depth, {(): writes([])} | texts)
plt.show()

# %% [markdown]
# Now write down six layers that you would remove. A later figure shows your choice beside the others.

# %%
guess = [2, 4, 6, 8, 10, 12]  # yours

# %% [markdown]
# ## 2. The whole method
#
# A language model cuts text into **tokens** (words or pieces of words). Inside the model, each token is a long list of
# numbers, its **hidden state**. Think of it as an arrow. The layers take turns: each one reads all the arrows, and turns
# each arrow a little by adding something to it.
#
# A layer that hardly turns the arrows may be one that we can remove. The ShortGPT paper makes this a score, **Block
# Influence**:
#
# > *Block Influence of a layer = 1 − (cosine of the angle between the state that enters and the state that leaves,
# > averaged over many tokens)*
#
# Zero means that the layer turns nothing. One means a right angle. To compute it the model only has to read: eight pieces
# of 512 tokens here. No training is needed, and no right answers.
#
# To see what a removal costs, we need other texts, which nobody has looked at yet.

# %%
from shortgpt import built_in_text, calibration_batches

batches = calibration_batches(tokenizer, built_in_text()["text"], samples=8)
GENRES = ("encyclopedic", "news", "science", "story")
whole = [built_in_text("perplexity", genre=genre)["text"].iloc[0] for genre in GENRES]
unseen = [text[:700] for text in whole]  # the beginning of each

# %% [markdown]
# Here is the method in plain PyTorch: `model` is an ordinary model of the library `transformers`. A **hook** is a
# function that PyTorch calls each time a layer has run. Ours compares what entered with what left.

# %%
import torch
from torch.nn.functional import cosine_similarity

layers = model.model.layers
turns = {layer: [] for layer in layers}


def watch(layer, args, x_out):
    x_in = args[0]  # [batch, tokens, hidden]
    turns[layer].append(1 - cosine_similarity(x_in, x_out, dim=-1).flatten())


hooks = [layer.register_forward_hook(watch) for layer in layers]
with torch.inference_mode():
    for batch in batches:
        model.model(batch["input_ids"])
for hook in hooks:
    hook.remove()

influence = torch.stack([torch.cat(turns[layer]).mean() for layer in layers])
lowest = influence.argsort()[: depth // 5].tolist()  # a fifth: 6 of 30
print("the scores of the riddle:", {i: round(influence[i].item(), 3) for i in riddle})
print("the lowest scores, lowest first:", lowest)

# %% [markdown]
# So layers 17 and 11 have nearly the same score, and layer 29 has a high one. The score explains one half of the riddle,
# and the other half remains. Keep it in mind.
#
# The second half of the method: make a copy without these layers, and measure. **Perplexity** says how surprised a model
# is by a text that somebody else wrote. A perplexity of 30 means: on average the model was as unsure as if it had to pick
# among 30 equally likely tokens. Lower is better.

# %%
import copy
import math

small = copy.deepcopy(model)
kept = [layer for i, layer in enumerate(small.model.layers) if i not in lowest]
small.model.layers = torch.nn.ModuleList(kept)
small.config.num_hidden_layers = len(kept)
for place, layer in enumerate(kept):
    layer.self_attn.layer_idx = place  # its place in the memory of past tokens


@torch.inference_mode()
def surprise(model, texts):
    loss = tokens = 0
    for text in texts:
        ids = tokenizer(text, return_tensors="pt").input_ids
        scored = ids.shape[1] - 1  # nothing stands before the first token
        loss += scored * model(ids, labels=ids).loss.item()
        tokens += scored
    return math.exp(loss / tokens)


before, after = surprise(model, unseen), surprise(small, unseen)
print(f"perplexity: {before:.2f} before, {after:.2f} after")

# %% [markdown]
# That is all: hooks, a cosine, a sorted list, a shorter list of layers. The model is now a fifth shorter, and more than
# twice as unsure.
#
# ## 3. The same with the toolkit
#
# The rest of the course is *why*, and the toolkit is *this, made safe*: for padded text, for numbers of half precision,
# for some 150 kinds of models, with standard errors, and saved so that it loads again as the same model. The same
# method in five lines:

# %%
from shortgpt import choose_layers, perplexity, save, score_layers

scores = score_layers(model, batches, progress=False)
plan = choose_layers(scores, depth // 5)
pruned = remove_layers(model, plan)  # shares the weights: nothing is copied
dense, after = (perplexity(each, tokenizer, unseen) for each in (model, pruned))
folder = "../output/00_start_here/pruned_model"
save(pruned, folder, tokenizer=tokenizer, plan=plan, overwrite=True)

print(f"perplexity: {dense:.2f} before, {after:.2f} after")
difference = abs(scores.values - influence.numpy()).max()
print(f"largest difference of a score: {difference:.6f}")

# %% [markdown]
# The same numbers. `folder` holds an ordinary checkpoint that plain `transformers` loads. ("Dense" is the usual word for a
# model from which nothing was removed.) And these are the scores of all layers. **Predict first:** where do you expect the
# low ones, at the beginning, in the middle or at the end?

# %%
from shortgpt.course.plots import plot_scores

plot_scores(scores.table, plan.removed)
plt.show()

# %% [markdown]
# The first layer turns the states most, the last one second. The low scores lie between them. In the paper's Llama-2-7B
# the nine layers removed are 21 to 29 of 32, all near the end (ShortGPT, table 9). Another model has other quiet layers:
# measure, don't assume.
#
# ## 4. What is left
#
# **Predict first:** does the model still write English with three layers gone? With six? Without the *last* three?

# %%
BREAD = "The history of bread begins"
last = tuple(range(depth - 3, depth))
choices = [(), tuple(plan.removed[:3]), tuple(plan.removed), last]
bread = {out: writes(out, BREAD, new_tokens=24) for out in choices}
for out, text in bread.items():
    gone = f"without {', '.join(map(str, sorted(out)))}" if out else "all layers"
    print(f"{gone}: {BREAD} … {text}")
plot_strip(depth, bread)
plt.show()

# %% [markdown]
# With the three lowest layers gone it writes. With the six lowest gone it loops. Without the last three it writes noise,
# although it has as many layers as in the second row.
#
# ## 5. Is it the number of layers, or the choice?
#
# In the next figure all models but the first lack six layers: the six lowest, the last six, two draws at random, and your
# guess. **Predict first:** will a random choice be twice as bad as the lowest scores, or a hundred times?

# %%
found = {"all layers": dense, "lowest scores": after}
for name, out in {
    "random, draw 1": choose_layers(scores, depth // 5, order="random", seed=0),
    "random, draw 2": choose_layers(scores, depth // 5, order="random", seed=1),
    "the last ones": choose_layers(scores, depth // 5, order="reverse"),
    "your guess": guess,
}.items():
    found[name] = perplexity(remove_layers(model, out), tokenizer, unseen)

_, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
for y, (name, value) in enumerate(found.items()):
    ax.plot(value, -y, "k*" if name == "your guess" else "ko", markersize=9)
    ax.annotate(f" {value:,.0f}", (value, -y), va="bottom")
ax.set_yticks([-y for y in range(len(found))], found)
ax.axvline(len(tokenizer), linestyle=":", color="black")
ax.set(xscale="log", xlabel="perplexity (log scale; dotted: picking tokens blindly)")
ax.margins(x=0.2, y=0.1)
plt.show()
said = "; ".join(f"{name} {value:,.0f}" for name, value in found.items())
print(f"Perplexity: {said}.")

# %% [markdown]
# The shorter models are equally small. Which layers went makes the difference, by orders of magnitude: without its last
# six the model does worse than picking tokens blindly. A measurement of seconds avoided that.
#
# > **Limits.** This is a very small model, measured on four short texts, and perplexity is not the only thing that counts
# > (lesson 05). The score is a guide and can be wrong: layer 11 showed it. The number six is our choice; lesson 03 goes
# > along the whole curve. For another `MODEL` (`shortgpt.suggested_models()` prints a table of them) read your own output:
# > the words of this lesson speak of the default model.
#
# ## What we saw
#
# - Most layers of this model turn the hidden states only a little; the first and the last turn them a lot.
# - With three of the lowest-scored layers gone the model writes; with six it loops; without its last three it writes noise.
# - Six layers cost it more than a doubling of perplexity, without any training.
# - Which layers go matters far more than how many.
# - Layers 17 and 11 have nearly the same score, and only one of them can go. Lesson 02 ends with the answer: a single
#   vector.

# %% [markdown]
# **Check yourself.** Three questions: press a letter (or reach it with Tab and press Space). In a saved notebook, unfold
# the line below.

# %%
from shortgpt.course.quiz import quiz

quiz("00")

# %% [markdown]
# ## The course
#
# | lesson | you learn |
# |---|---|
# | [01 · Hidden states](01_hidden_states.ipynb) | what flows between the layers, and how to watch it |
# | [02 · Block Influence](02_block_influence.ipynb) | the score, how far to trust it, and the answer to the riddle |
# | [03 · Pruning](03_pruning.ipynb) | remove, reload, write, explore; how far one can go |
# | [04 · Quantization](04_quantization.ipynb) | fewer layers and fewer bits together |
# | [05 · Evaluation](05_evaluation.ipynb) | perplexity, multiple choice, writing; English and Chinese |
# | [06 · Choosing layers](06_choosing_layers.ipynb) | better ways to choose, and repair without training |
# | [07 · Depth or width](07_depth_or_width.ipynb) | layers against heads and channels |
# | [10 · Generation](10_generation.ipynb) | why writing breaks while choosing survives |
# | [12 · The paper at scale](12_paper_at_scale.ipynb) | what carries over to large models, and what it costs |
#
# Then: [ten questions](20_ten_questions.ipynb) that you should be able to answer, and a [challenge](../docs/challenge.md).
# To show it to somebody without Python: [prune the same model in a browser](../docs/prune.md).
#
# **Next:** [01 · Hidden states](01_hidden_states.ipynb)
