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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/shortgpt-course/shortgpt/blob/main/notebooks/03_pruning.ipynb)
#
# # 03 · Pruning: remove, reload, generate, explore
#
# Block Influence says which layers turn the hidden states least. Now we take layers out: what happens to the text, to
# the model object and to the file on disk? At the end you remove layers yourself, until the model fails.
#
# **You will be able to**
# - measure what each single layer is worth, and say how well Block Influence predicts it;
# - explain what must change in a model when a layer goes, and prove that nothing else did;
# - save a pruned model, reload it without this toolkit, and prune it further;
# - compare removal orders, and find the point where a model stops being useful.
#
# **Before:** lesson [02 · Block Influence](02_block_influence.ipynb) · **Takes:** about 5 minutes on 2 CPU cores;
# reading about 20 minutes, exercises 45 · **Memory:** about 2 GB · **Download:** 93 MB once (shared by all lessons)

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
# The model, and what we need from the toolkit. `depth` is the number of its **decoder layers**.
#
# **Another model?** Change the line `MODEL = …`. The text still speaks of the default model; the cells show yours,
# except what says *default model, stored*.

# %% tags=["for-exercises"]
import json
import tempfile
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import pandas as pd
from torch import nn
from tqdm.auto import tqdm

from shortgpt import built_in_text, calibration_batches, choose_layers, continue_text
from shortgpt import decoder_layers, load, perplexity, removal_order, remove_layers
from shortgpt import save, score_layers
from shortgpt.course.plots import PALETTE, plain_log_ticks, plot_layers, plot_sweep
from shortgpt.model.view import share_weights

MODEL = "smollm2-135m-instruct"  # others: shortgpt.suggested_models()
model, tokenizer = load(MODEL)
depth = len(decoder_layers(model))
print(f"{type(model).__name__} with {depth} decoder layers")

# %% [markdown]
# ## 1. One layer at a time
#
# What if a layer weren't there? We leave out each layer in turn and measure **perplexity**, the exponential of the
# mean loss per token: how many equally likely tokens the model seems to hesitate between. Lower is better.
#
# To save time we read only the *openings* of four documents that the scores have not seen. (On the four whole
# documents, as in lessons 04 and 05, the dense model's perplexity is 30.0.)

# %%
documents = built_in_text("perplexity")
genres = ["encyclopedic", "news", "science", "story"]
documents = documents[documents["genre"].isin(genres)]
first = documents.groupby("genre").head(1)["text"]  # the first of each genre
texts = [text[:700] for text in first]
dense = perplexity(model, tokenizer, texts)
tokens = sum(len(tokenizer(text)["input_ids"]) for text in texts)
print(f"{tokens} tokens; the dense model has perplexity {dense:.1f} on these openings")

# %% [markdown]
# *Dense* means: nothing removed. Predict: which layer will hurt most, which least? The next cell takes more than a minute.

# %%
alone = []
for layer in tqdm(range(depth)):
    alone.append(perplexity(remove_layers(model, [layer]), tokenizer, texts))
batches = calibration_batches(tokenizer, built_in_text()["text"])
scores = score_layers(model, batches, progress=False)
damage = scores.table[["layer", "score"]].assign(perplexity=alone)
damage["times_worse"] = damage["perplexity"] / dense
damage.sort_values("perplexity", ascending=False).head(6).round(3)

# %% [markdown]
# These six hurt most. Here are all layers, with Block Influence below (the upper half is figure 1 of the paper, for our model):

# %%
_, (top, bottom) = plt.subplots(2, 1, figsize=(9, 5), sharex=True, layout="constrained")
top.plot(damage["layer"], damage["perplexity"], "o", color=PALETTE[0])
top.axhline(dense, color="black", linestyle="--", label=f"dense: {dense:.0f}")
top.set(yscale="log", ylabel="perplexity without it\n(log scale)")
top.legend()
bottom.plot(damage["layer"], damage["score"], "s", color=PALETTE[1])
bottom.set(yscale="log", ylabel="Block Influence\n(log scale)")
bottom.set(xlabel="layer", xticks=range(0, depth, 5))
plain_log_ticks(bottom)
for ax in (top, bottom):
    ax.grid(axis="x", color="0.9")
plt.show()
worst, mildest = damage["perplexity"].idxmax(), damage["perplexity"].idxmin()
print(
    f"Losing layer {worst} alone takes perplexity to {alone[worst]:,.0f}; "
    f"losing layer {mildest} alone takes it to {alone[mildest]:.1f}."
)

# %% [markdown]
# At both ends the two rows agree. In between, some dots are high in one row only. In a scatter plot of the layers,
# which is the largest surprise?

# %%
_, ax = plt.subplots(figsize=(7, 4.4), layout="constrained")
ax.plot(damage["score"], damage["times_worse"], "o", color=PALETTE[0])
for row in damage[(damage["score"] > 0.1) | (damage["times_worse"] > 1.5)].itertuples():
    at = row.score, row.times_worse
    ax.annotate(row.layer, at, xytext=(6, 3), textcoords="offset points")
ax.set(xscale="log", xlabel="Block Influence (log scale)")
ax.set(yscale="log", ylabel="perplexity, times the dense one (log scale)")
plain_log_ticks(ax, "x")
plain_log_ticks(ax, "y")
plt.show()
place = damage[["score", "perplexity"]].rank(ascending=False).astype(int)
surprise = (place["score"] - place["perplexity"]).idxmax()
by_score, by_damage = place.loc[surprise]
print(
    f"The largest surprise is layer {surprise}: number {by_score} of {depth} by score, "
    f"number {by_damage} by damage."
)

# %% [markdown]
# A **rank correlation** puts a number on it: sort the layers by score and by damage, and correlate the two ranks. 1
# is the same order, 0 no relation.


# %%
def rank_correlation(table):
    return table["score"].rank().corr(table["perplexity"].rank())


low = damage[damage["score"] < 0.1]
six = damage.nsmallest(6, "score")
print(f"rank correlation, all {depth} layers: {rank_correlation(damage):.2f}")
print(f"among the {len(low)} with a score below 0.1: {rank_correlation(low):.2f}")
print(f"worst perplexity among the six lowest scores: {six['perplexity'].max():.1f}")

# %% [markdown]
# Block Influence finds what must stay at the two ends, layers 0, 1 and 29. In between it is a moderate guide: layers
# 2, 11 and 28 have ordinary scores and do several times the damage of their neighbours. But pruning needs only the low
# end of the list, and there Block Influence made no bad mistake.

# %% [markdown]
# Why not choose by damage itself? Predict: is it better to remove the six layers that cost least one at a time, or
# the six with the lowest scores? To be fair we also measure on four texts that neither choice has seen.

# %%
last = documents.groupby("genre").tail(1)["text"]
unseen = [text[:700] for text in last]
rows = {}
for name, column in {"cheapest alone": "perplexity", "lowest score": "score"}.items():
    layers = sorted(damage.nsmallest(6, column)["layer"])
    smaller = remove_layers(model, layers)
    rows[name] = {"layers": layers}
    for text, which in {"these texts": texts, "unseen texts": unseen}.items():
        rows[name][text] = round(perplexity(smaller, tokenizer, which), 1)
pd.DataFrame(rows).T

# %% [markdown]
# On the texts that it was chosen on, damage wins. On unseen texts its lead is gone: a few hundred tokens found layers
# that matter little *for these tokens*. More text would help, but damage needs one reading for each layer, and Block
# Influence one in all. And neither knows how layers act together.

# %% [markdown]
# ## 2. What removal changes in the model
#
# Taking an item out of a list is one line of code. Let's write it for the three lowest layers. What will be wrong?

# %%
plan = choose_layers(scores, 3)
by_hand = share_weights(model)  # a copy of the module tree: the original stays as it is
kept = [layer for i, layer in enumerate(by_hand.model.layers) if i not in plan.removed]
by_hand.model.layers = nn.ModuleList(kept)
print("removed:", sorted(plan.removed))
print("layers in the list:", len(by_hand.model.layers))
print("layers in the configuration:", by_hand.config.num_hidden_layers)
print("they call themselves:", [layer.self_attn.layer_idx for layer in kept])

# %% [markdown]
# Two things are wrong.
#
# **The configuration** still has the old number of layers. `from_pretrained` builds a model from it: a reload would
# give full depth, with random numbers in the layers that the file lacks.
#
# **Each layer knows its index.** It is the layer's address in the **KV cache**, where a model that writes keeps what
# attention has computed for the earlier tokens (keys and values). Let's repair only the configuration, and generate
# with and without that cache.

# %%
by_hand.config.num_hidden_layers = len(by_hand.model.layers)
inputs = tokenizer("The history of bread begins", return_tensors="pt").to(model.device)


def generate(model, use_cache, tokens=12):
    return model.generate(
        **inputs, max_new_tokens=tokens, do_sample=False, use_cache=use_cache
    )


for use_cache in (False, True):
    try:
        print(
            f"use_cache={use_cache}:",
            repr(tokenizer.decode(generate(by_hand, use_cache)[0])),
        )
    except IndexError as error:
        print(f"use_cache={use_cache}: IndexError: {error}")

# %% [markdown]
# Without the cache the model works. With it, a layer that still has its old number asks for a slot that doesn't
# exist. (With the wrong configuration there would be enough slots, and nothing would fail until a reload.)
#
# So `remove_layers` makes a new list, new indices and a new configuration, including every list in it with one entry
# per layer.

# %%
pruned = remove_layers(model, plan)
indices = [layer.self_attn.layer_idx for layer in decoder_layers(pruned)]
print("the layers call themselves:", indices)
before, after = model.config.to_dict(), pruned.config.to_dict()
for name in sorted(after):
    if after[name] != before.get(name):
        print(f"{name}: {before.get(name)} -> {after[name]}")

# %% [markdown]
# The last field names the removed layers, by their numbers in the dense model.

# %% [markdown]
# ### The weights are shared
#
# What does the pruned model cost in memory? We add up the storage behind all tensors, each piece once.


# %%
def megabytes(*models):
    storages = {}
    for each in models:
        for tensor in (*each.parameters(), *each.buffers()):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values()) / 1e6


print(
    f"dense {megabytes(model):.1f} MB, pruned {megabytes(pruned):.1f} MB, "
    f"both together {megabytes(model, pruned):.1f} MB"
)

# %% [markdown]
# Both together take no more than the dense one alone: the pruned model is a *view*. So memory is freed only when the
# dense model goes too, and training one would train the other; `copy.deepcopy(pruned)` makes it independent.

# %% [markdown]
# ## 3. Proof: removing a layer is skipping it
#
# A decoder layer adds to the hidden state: `x_out = x_in + f(x_in)`. So removing it and skipping it should give the
# same logits: nearly, or exactly? We skip with a **forward hook**, a function that PyTorch calls after a module has
# run. If it returns something, that replaces the module's output; ours returns the input.

# %%
def pass_on(layer, inputs, output):
    return inputs[0]  # the hidden states that came in


layers = decoder_layers(model)
handles = [layers[layer].register_forward_hook(pass_on) for layer in plan.removed]
with torch.inference_mode():
    skipped = model(**inputs).logits  # [batch, tokens, vocabulary]
for handle in handles:
    handle.remove()
with torch.inference_mode():
    without, whole = pruned(**inputs).logits, model(**inputs).logits
torch.testing.assert_close(without, skipped, rtol=0, atol=0)
print(
    f"difference of removed and skipped: {(without - skipped).abs().max():.1f}"
)
print(f"difference of removed and dense: {(without - whole).abs().max():.1f}")

# %% [markdown]
# Exactly. The second line shows that the test could have failed: without working hooks the first difference would be
# as large. And with the right indices, generation with and without the cache must give the same tokens.

# %%
cached, uncached = generate(pruned, True, tokens=20), generate(pruned, False, tokens=20)
torch.testing.assert_close(cached, uncached, rtol=0, atol=0)
print("the same with and without cache:", repr(tokenizer.decode(cached[0])))

# %% [markdown]
# ## 4. Save, reload, generate
#
# `save` writes an ordinary checkpoint, plus the plan and a model card (`README.md`). (This folder is temporary; give
# any path for your own.)

# %%
temporary = tempfile.TemporaryDirectory()
folder = save(pruned, Path(temporary.name) / "pruned", tokenizer=tokenizer, plan=plan)
for file in sorted(folder.iterdir()):
    print(f"{file.name:26}{file.stat().st_size / 1e6:8.2f} MB")

# %% [markdown]
# The plan names the layers and keeps what led to the choice: the criterion, all scores, a fingerprint of the text.
# (Only three scores are printed here.)

# %%
written = json.loads((folder / "pruning_plan.json").read_text())
written["scores"] = {
    layer: round(score, 4) for layer, score in list(written["scores"].items())[:3]
}
print(json.dumps(written, indent=1))

# %% [markdown]
# Does it reload with `transformers` alone, and give the same logits?

# %%
reloaded = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
reloaded = reloaded.to(model.device)
with torch.inference_mode():
    again = reloaded(**inputs).logits
torch.testing.assert_close(again, without, rtol=0, atol=0)
print(f"{len(decoder_layers(reloaded))} layers, the same logits to the last bit")

# %% [markdown]
# ### Prune the pruned model
#
# Later we want three layers more. But which is layer 25 of a model that already lacks three? Plans always use the
# numbers of the dense model, and the saved configuration knows what is gone. Do two steps give the same model as one?

# %%
further = choose_layers(scores, 6)
in_two_steps, in_one_step = (remove_layers(m, further) for m in (reloaded, model))
with torch.inference_mode():
    logits = in_two_steps(**inputs).logits, in_one_step(**inputs).logits
torch.testing.assert_close(*logits, rtol=0, atol=0)
print("gone before:", reloaded.config.shortgpt_removed_layers)
print("gone now:", in_two_steps.config.shortgpt_removed_layers)
temporary.cleanup()

# %% [markdown]
# They do. Plain numbers instead of a plan, `remove_layers(reloaded, [3])`, mean positions in the model that you pass.

# %% [markdown]
# ## 5. How far can one go?
#
# The paper compares removal orders (section 4.3). **Block Influence** and **relative magnitude** (how large a
# layer's addition is against what leaves it) measure. The others know only the position: **reverse** takes the last
# layer first, **sequential** the first one, **random** draws. Will the two that measure choose alike?

# %%
magnitude = score_layers(model, batches, metric="relative_magnitude", progress=False)
orders = {
    "Block Influence": removal_order(scores),
    "relative magnitude": removal_order(magnitude),
}
for name in ("reverse", "sequential", "random"):
    orders[name] = removal_order(scores, name)
plot_layers(depth, {name: order[:6] for name, order in orders.items()})
plt.show()

# %% [markdown]
# These are the first six of each. Predict: after how many layers does each order reach a perplexity of 1,000?

# %%
measured = {}


def perplexity_without(layers):
    key = tuple(sorted(layers))
    if key not in measured:
        measured[key] = perplexity(remove_layers(model, key), tokenizer, texts)
    return measured[key]


rows = []
for name, order in orders.items():
    for n in range(0, min(13, depth), 1 if name == "Block Influence" else 3):
        ppl = perplexity_without(order[:n])
        rows.append({"criterion": name, "removed": n, "perplexity": ppl})
curves = pd.DataFrame(rows)
third = curves[curves["removed"] % 3 == 0]
table = third.pivot(index="removed", columns="criterion", values="perplexity")
table[list(orders)].map("{:,.0f}".format)

# %%
ax = plot_sweep(curves, y="perplexity", hue="criterion")
words = model.config.vocab_size
ax.axhline(words, color="black", linewidth=0.8, linestyle=":")
ax.annotate(
    "guessing among all tokens", (7.5, words), ha="center", va="top", fontsize=9
)
plt.show()

# %% [markdown]
# The two orders that measure choose the same six layers. Their perplexity rises steadily and stays far below 1,000.
# The others are past 1,000 at their first point. Above the dotted line a model is worse than one that guesses blindly.
#
# *Random* and *sequential* both come down somewhere: more layers gone, lower perplexity. Damage doesn't add up, so
# an order that judges layers one at a time can't be the best possible.
#
# At nine layers perplexity is between three and four times the dense one. The paper's Llama-2-7B (in 4 bits) goes
# from 8.03 to 40.78 when nine of 32 layers go, while its accuracy on MMLU, a multiple-choice exam, stays where it
# was (ShortGPT, table 4). Lesson 05 is about that difference.

# %% [markdown]
# ### What it writes
#
# Perplexity is an average over somebody else's text. What does the model write itself without three, six, nine layers?

# %%
PROMPT = "The old lighthouse keeper opened the door and"
for n in (0, 3, 6, 9):
    smaller = remove_layers(model, orders["Block Influence"][:n])
    text = continue_text(smaller, tokenizer, PROMPT, new_tokens=32).strip()
    print(fill(f"{n} removed: … {text}", 88), "\n")

# %% [markdown]
# Without three layers each sentence is correct, but the model repeats it. Deeper cuts shorten the loop; words and
# phrases remain, even without nine. Perplexity alone would not have told this.

# %% [markdown]
# ## 6. Explore: prune it yourself
#
# Press a layer to take it out, and again to put it back (by keyboard: Tab and the space bar). *The algorithm's choice*
# takes as many layers as you have taken, by Block Influence. Perplexity is measured on another short text.
#
# Predict: six layers are to go. Is it better to spread them, or to take six in a row?

# %%
from shortgpt import Ablation
from shortgpt.course.explorers import explore_pruning

explore_pruning(model, tokenizer, orders["Block Influence"], prompt=PROMPT)

# %% [markdown]
# Without a running notebook: put your layers into the dictionary and run the cell. `work` is the number of
# multiplications for a token, in percent of the dense model's.

# %%
at = [layer * depth // 30 for layer in (8, 11, 13, 14, 17, 20, 23)]  # of 30 layers
CHOICES = {
    "nothing": [],
    "Block Influence": orders["Block Influence"][:6],
    "spread out": [layer for layer in at if layer != at[2]],
    "six in a row": list(range(at[2], at[2] + 6)),
    "the first six": [0, 1, 2, 3, 4, 5],
}
ablation = Ablation(model, tokenizer, prompt=PROMPT)
plot_layers(depth, CHOICES)
plt.show()
ablation.table(CHOICES).drop(columns=["layers"]).round(1)

# %% [markdown]
# All four cuts leave the same size and the same work, but not the same model. The spread-out choice is many times
# worse than the row, because it includes a layer that the model can't do without. (Which? Put the six back one at a
# time.) The row even beats Block Influence here, on one short text: lesson 06 asks whether that holds.
#
# Try it: take out the last layer alone, `orders["reverse"][:1]`. Then find the largest `n` at which the model without
# `orders["random"][:n]` still writes English.

# %% [markdown]
# ## Exercises
#
# Try these four functions first in the [exercise notebook](exercises/03_pruning.ipynb), where a check tells you what
# is wrong with yours. Here they are solved.

# %% [markdown]
# ### Exercise 1: Take layers out of a list
#
# **Difficulty:** easy · **Minutes:** 5
#
# Return a new `ModuleList` with the layers that survive when those numbered in `removed` go. The numbers are those of the list
# as it is now, in any order. The survivors are the very same modules, and the list you were given stays as it was.
#
# <details><summary>Hint</summary>
# Deleting one by one moves everything behind the gap. Deciding for each layer whether it stays moves nothing.
# </details>


# %% tags=["exercise"]
def without_layers(layers, removed):
    """A new ModuleList without the layers whose numbers are in ``removed``."""
    ### BEGIN SOLUTION
    return nn.ModuleList(layer for i, layer in enumerate(layers) if i not in removed)
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_without_layers

check_without_layers(without_layers)

# %% [markdown]
# If the list changes while you count in it, you remove the wrong layers without an error: the result runs, and is a
# little worse.

# %% [markdown]
# ### Exercise 2: New addresses in the cache
#
# **Difficulty:** medium · **Minutes:** 10
#
# `layers` are the survivors of a removal. Every module in a layer that has a `layer_idx` uses it as its address in the
# cache. Set each of them to the position that its layer has now. In most models only `self_attn` has one; in some, other
# modules inside the layer do, or the layer itself.
#
# <details><summary>Hint 1</summary>
# <code>layer.modules()</code> walks through a layer and all that is in it, the layer itself included.
# </details>
# <details><summary>Hint 2</summary>
# <code>hasattr(module, "layer_idx")</code> tells whether a module has an address. Don't give one to a module that has none.
# </details>


# %% tags=["exercise"]
def number_layers(layers):
    """Set each ``layer_idx`` there is to the position of its layer in ``layers``."""
    ### BEGIN SOLUTION
    for position, layer in enumerate(layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_number_layers, require_passed

check_number_layers(number_layers)

# %% tags=["apply"]
require_passed(number_layers)
by_hand = share_weights(model)  # a copy of the module tree over the same weights
layers = enumerate(by_hand.model.layers)
survivors = [layer for i, layer in layers if i not in (12, 14, 17)]
by_hand.model.layers = nn.ModuleList(survivors)
by_hand.config.num_hidden_layers = len(survivors)
number_layers(by_hand.model.layers)
prompt = "The history of bread begins"
inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
how = {"max_new_tokens": 12, "do_sample": False}
cached, uncached = (
    by_hand.generate(**inputs, **how, use_cache=c) for c in (True, False)
)
print("the same with and without cache:", torch.equal(cached, uncached))

# %% [markdown]
# This is the repair for section 2: list, configuration and addresses changed together.

# %% [markdown]
# ### Exercise 3: Lists in the configuration
#
# **Difficulty:** medium · **Minutes:** 10
#
# Some configurations say something about each layer, such as its kind of attention. Here a configuration is a plain dict.
# Return the one of the pruned model: `num_hidden_layers` is the new number, every *list with one entry per layer* keeps the
# entries of the layers that stay, and all else is as it was. The dict that you were given doesn't change.
#
# <details><summary>Hint 1</summary>
# How do you recognise a list with one entry per layer? By its length, in the dense model.
# </details>
# <details><summary>Hint 2</summary>
# The right length isn't enough: think of which entries stay, not of how many.
# </details>


# %% tags=["exercise"]
def sliced_config(config, removed):
    """The configuration without the layers ``removed``, as a new dict."""
    ### BEGIN SOLUTION
    depth = config["num_hidden_layers"]
    kept = [i for i in range(depth) if i not in removed]
    new = dict(config, num_hidden_layers=len(kept))
    for key, values in config.items():
        if isinstance(values, list) and len(values) == depth:
            new[key] = [values[i] for i in kept]
    return new
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_sliced_config

check_sliced_config(sliced_config)

# %% [markdown]
# The tempting line is `values[:len(kept)]`. The list has the right length, so nothing fails, but the layers attend in
# the wrong way.

# %% [markdown]
# ### Exercise 4: A greedy search
#
# **Difficulty:** hard · **Minutes:** 20
#
# A *greedy search* asks again after each removal: which of the remaining layers costs least to remove *now*?
# `cost(layers)` returns what a model without the list `layers` costs, low being good; `candidates` are the layers that
# may go. Return a list of the `n` layers that you removed, in that order.
#
# <details><summary>Hint 1</summary>
# The first step is what section 1 did. The second step has one layer fewer to try, and each trial lacks two layers.
# </details>
# <details><summary>Hint 2</summary>
# <code>min(rest, key=...)</code> finds the layer for which a function of yours is lowest.
# </details>


# %% tags=["exercise"]
def greedy(cost, candidates, n):
    """The ``n`` layers that a greedy search removes, in order of removal."""
    ### BEGIN SOLUTION
    removed = []
    for _ in range(n):
        rest = [layer for layer in candidates if layer not in removed]
        removed.append(min(rest, key=lambda layer: cost([*removed, layer])))
    return removed
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_greedy, require_passed

check_greedy(greedy)

# %% tags=["apply"]
require_passed(greedy)
page = [built_in_text("perplexity")["text"][0][:300]]
tried = {}


def cost(layers):
    tried[tuple(layers)] = perplexity(remove_layers(model, layers), tokenizer, page)
    return tried[tuple(layers)]


depth = len(decoder_layers(model))
candidates = [layer * depth // 30 for layer in (10, 12, 14, 17, 20)]
found = greedy(cost, candidates, 2)
print(
    f"greedy removes {found} after {len(tried)} trials; "
    f"perplexity on its own page {tried[tuple(found)]:.1f}"
)

# %% [markdown]
# Each step tries every layer that is left, so a search over all layers needs hundreds of trials. Is it worth that?
# Lesson 06 asks. And the choice is the best for the one page that it was made on.

# %% [markdown]
# ## What we saw
#
# - Losing the first layers or the last one does great harm; most others can be missed one at a time.
# - Block Influence put no harmful layer among its lowest six. In the middle its order agrees only moderately with
#   the damage, and it missed a few layers that matter.
# - Removing a layer equals skipping it, to the last bit, if list, indices and configuration change together.
# - A pruned model is a view while you try things, and an ordinary checkpoint once it is saved.
# - Orders that measure degrade gradually; going by position alone destroys this model within three layers. Text
#   falls into loops long before perplexity looks alarming.
#
# > **Limits.** One small model, and perplexities of a few hundred tokens. Only the gap between measured orders and the
# > others is far larger than any error; differences between the two measured orders, and between single layers in the
# > middle, are not.

# %% [markdown]
# ## Three questions
#
# **1.** A colleague removes layers from the `ModuleList` and fixes `num_hidden_layers`. Perplexity is as expected, but
# `generate` fails. What did they forget, and why did perplexity not notice?
#
# <details><summary>Answer</summary>
# The indices inside the layers. They are addresses in the KV cache; perplexity reads the whole text in one pass and uses no
# cache, so nobody asked for an address.
# </details>
#
# **2.** Why does a model still work without a decoder layer, where an old convolutional network would not work without one
# of its layers?
#
# <details><summary>Answer</summary>
# Because of the residual connection: a layer adds to the hidden state instead of replacing it. Without the layer the state
# still arrives, in the same space and with the same meaning of its axes, only without that addition.
# </details>
#
# **3.** You could choose layers by the damage of section 1 instead of by Block Influence. What would that cost, and what
# could still go wrong?
#
# <details><summary>Answer</summary>
# One evaluation per layer, where Block Influence needs one pass for all. And two layers that are cheap to lose one at a time
# may be expensive to lose together: when one goes, the other may have to do its work. Lesson 06 shows such a pair,
# and orders that take this into account.
# </details>

# %% [markdown]
# **Check yourself.** Three more questions: press a letter (or reach it with Tab and press Space). In a saved
# notebook, unfold the line below.

# %%
from shortgpt.course.quiz import quiz

quiz("03")

# %% [markdown]
# ## Next
#
# Fewer layers is one way to a smaller model, fewer bits per weight is another. Do they go together?
#
# Next: [04 · Quantization](04_quantization.ipynb) · Previous: [02 · Block Influence](02_block_influence.ipynb)
