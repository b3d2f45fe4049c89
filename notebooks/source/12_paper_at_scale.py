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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/shortgpt-course/shortgpt/blob/main/notebooks/12_paper_at_scale.ipynb)
#
# # 12 · The paper at scale
#
# The paper prunes models of 7 to 13 billion parameters. The lessons prune one of 135 million. Two questions follow. Does what we saw in the small model hold in a large one? And what does it cost to do the same with a model of 7 billion: how much memory, how much time? The first question we answer with published numbers beside our own. The second we answer by a calculation, and we check the calculation before we believe it.
#
# **You will be able to**
#
# - put results from small and large models side by side, and say what may be compared;
# - calculate the parameters, the memory and the time that pruning needs, from a model's configuration alone;
# - say how many layers have to go so that a model fits into a given memory;
# - run the whole recipe on a large model by changing one line.
#
# **Before:** [lesson 03](03_pruning.ipynb) (removing layers) and [lesson 05](05_evaluation.ipynb) (perplexity and accuracy) · **Takes:** about 2 minutes on 2 CPU cores · **Memory:** about 2 GB · **Download:** 93 MB once (shared by all lessons)

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
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from shortgpt import (
    built_in_text, calibration_batches, choose_layers, decoder_layers, load,
    perplexity, remove_layers, score_layers, size,
)  # fmt: skip
from shortgpt.course.plots import MARKERS, PALETTE, plain_log_ticks
from shortgpt.course.studies.curves import removal_curves
from shortgpt.utils.data import data_folder

# %% [markdown] tags=["for-exercises"]
# One variable names the model that we prune in section 6. On a computer with a large GPU, write the name of a large model there.

# %% tags=["for-exercises"]
MODEL = "smollm2-135m-instruct"  # others: shortgpt.suggested_models()
model, tokenizer = load(MODEL)

# %% [markdown]
# ## 1. Does a larger model have more layers to spare?
#
# A large model has more layers and wider ones. It seems plausible that it can lose a larger share of them. *Predict:* at a quarter of the layers, which grows by the larger factor, the perplexity of our 135-million model or that of a 7-billion one?
#
# A perplexity can't be compared between models: tokenizers and texts differ. What can be compared, with care, is the *factor*: perplexity after the cut, divided by perplexity before it, on the same text. For our three models we have measured it. For the large ones we take the numbers that the authors of EvoPress printed for ShortGPT's method.

# %%
ours = removal_curves(criterion="block_influence", text="en").query("language == 'en'")
ours = ours[["model", "depth", "share", "times"]]
printed = pd.read_csv(data_folder() / "paper" / "evopress.csv")
printed = printed[printed["method"].isin(["Dense", "ShortGPT"])]
dense = printed[printed["method"] == "Dense"].set_index("model")["ppl"]
theirs = printed.assign(
    share=printed["sparsity"] / 100, times=printed["ppl"] / printed["model"].map(dense)
)[["model", "share", "times"]]

# %% [markdown]
# Left our models, right the large ones; both panels have the same axes.

# %%
shape = {"figsize": (10, 4), "sharex": True, "sharey": True}
fig, axes = plt.subplots(1, 2, layout="constrained", **shape)
both = {"measured by us": ours, "printed by EvoPress": theirs}
for ax, (title, table) in zip(axes, both.items(), strict=True):
    groups = table.groupby("model", sort=False)
    for (name, rows), marker, colour in zip(groups, MARKERS, PALETTE, strict=False):
        look = {"color": colour, "label": name}
        ax.plot(100 * rows["share"], rows["times"], marker + "-", **look)
    ax.axhline(10, color="black", linestyle=":")
    ax.set(yscale="log", ylim=(0.9, 1e5), xlabel="layers removed (%)", title=title)
    ax.legend(fontsize=8, loc="upper left")
axes[0].set_ylabel("perplexity, times the dense model's (log)")
plt.show()
quarter = theirs[theirs["share"] == 0.25].set_index("model")["times"]
told = ", ".join(f"{n} × {v:,.1f}" for n, v in quarter.items())
print(f"A quarter removed, large models: {told}.")

# %% [markdown]
# Size does not decide it. In the right panel four models of seven to eight billion parameters lie side by side, and at a quarter of the layers their factors lie far apart: the largest is more than two hundred times the smallest. Llama-2-7B loses the least of them there, and still more than our small model. The newer Llama-3-8B has the same number of layers and breaks completely. In the left panel the largest model stays lowest up to a quarter, but the middle one breaks first.
#
# Where does a curve pass a limit? The next cell looks for the share of layers at which the factor reaches 2, and 10. Between two measured points it draws a straight line in the logarithm. (Exercise 3 asks for a more careful version.)

# %%
def share_at(rows, limit):
    """Share of layers (%) at which perplexity is ``limit`` times the dense one's."""
    highest = np.maximum.accumulate(np.log(rows["times"].to_numpy()))
    return 100 * np.interp(np.log(limit), highest, rows["share"].to_numpy())


both = pd.concat([ours, theirs])
limits = pd.DataFrame({
    name: {f"× {limit}": share_at(rows, limit) for limit in (2, 10)}
    for name, rows in both.groupby("model", sort=False)
}).T
limits.round(0).rename_axis(columns="layers removed (%) when perplexity is")

# %% [markdown]
# With Block Influence's choice, every one of these models has doubled its perplexity when little more than a quarter of its layers is gone, most of them much earlier. So "a quarter of the layers can go" is never a statement about perplexity. The paper's own claim is about *accuracy on choice tasks*, above all on tests of knowledge, and there large models do keep more. [Lesson 05](05_evaluation.ipynb) shows why the two measures differ.

# %% [markdown]
# ## 2. What the paper measured
#
# The paper's main table has four large models with about a quarter of their parameters removed. It gives the average of 13 benchmarks, and calls pruned average divided by dense average the *retention*.

# %%
table2 = pd.read_csv(data_folder() / "paper" / "table2_summary.csv")
pairs = table2[table2["method"].isin(["Dense", "ShortGPT"])]
wide = pairs.pivot(index="model", columns="method", values="average")
wide["retention (%)"] = 100 * wide["ShortGPT"] / wide["Dense"]
wide.round(1)

# %% [markdown]
# *Predict:* does a model that keeps the most accuracy also keep the best perplexity? Two other groups measured the perplexity of models that are in the table, with the same method and nearly the same cut. (Their accuracy is over five tasks, not 13.)

# %%
blocks = pd.read_csv(data_folder() / "paper" / "replications_wikitext2.csv")
blocks = blocks[blocks["method"] == "ShortGPT"].set_index("model")
beside = pd.DataFrame({
    "parameters removed (%)": blocks["ratio_percent"],
    "perplexity, times dense": blocks["ppl"] / blocks["dense_ppl"],
    "accuracy kept (%)": 100 * blocks["average"] / blocks["dense_average"],
})
beside.round(1).sort_values("perplexity, times dense")

# %% [markdown]
# All six were measured by one group, on one text. Perplexity grows three to six times in five of them, and 166 times in Qwen1.5-14B, the largest but one. Accuracy falls much less than perplexity rises: five models keep three quarters or more of it. That is the picture of our small model as well. What is kept is choosing between answers; what goes first is predicting the next word.

# %% [markdown]
# ## 3. How many parameters? Six numbers say it
#
# Now the cost. We want to know what a model needs before we download it. A configuration file has all that we need: width of the hidden state, number of layers, heads for queries and for keys, size of a head, and channels of the feed-forward network, the FFN (*inner*). Add the size of the vocabulary, and whether input and output share one matrix.

# %%
columns = ["hidden", "layers", "heads", "kv_heads", "head_dim", "inner"]
columns += ["vocabulary", "matrices"]
shapes = pd.DataFrame.from_dict({
    "smollm2-135m-instruct": (576, 30, 9, 3, 64, 1536, 49152, 1),
    "HuggingFaceTB/SmolLM2-360M-Instruct": (960, 32, 15, 5, 64, 2560, 49152, 1),
    "Qwen/Qwen2.5-0.5B": (896, 24, 14, 2, 64, 4864, 151936, 1),
    "Qwen/Qwen2.5-1.5B": (1536, 28, 12, 2, 128, 8960, 151936, 1),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": (2048, 22, 32, 4, 64, 5632, 32000, 2),
    "meta-llama/Llama-3.2-1B": (2048, 16, 32, 8, 64, 8192, 128256, 1),
    "meta-llama/Llama-2-7b-hf": (4096, 32, 32, 32, 128, 11008, 32000, 2),
    "meta-llama/Llama-3.1-8B": (4096, 32, 32, 8, 128, 14336, 128256, 2),
    "meta-llama/Llama-2-13b-hf": (5120, 40, 40, 40, 128, 13824, 32000, 2),
    "meta-llama/Llama-2-70b-hf": (8192, 80, 64, 8, 128, 28672, 32000, 2),
}, orient="index", columns=columns)  # from the published configurations
shapes

# %% [markdown]
# Attention has four matrices: queries, keys, values, and the one that leads back. The FFN has three. Each layer has two norms with one number for each entry of the state. (Exercise 1 asks you to write this.)

# %%
s = shapes
attention = 2 * s.hidden * s.head_dim * (s.heads + s.kv_heads)
layer = attention + 3 * s.hidden * s.inner + 2 * s.hidden
total = s.layers * layer + s.matrices * s.vocabulary * s.hidden + s.hidden
published = pd.read_csv(data_folder() / "models.csv").set_index("model")["parameters"]
counted = pd.DataFrame({
    "one layer (million)": layer / 1e6,
    "all (billion)": total / 1e9,
    "as published": published.reindex(s.index) / 1e9,
    "16-bit weights (GB)": 2 * total / 1e9,
    "in layers (%)": 100 * s.layers * layer / total,
})
counted.round(2)

# %% [markdown]
# Where the toolkit knows the published count, ours agrees with it (NaN, *not a number*: it knows none). For the Llama family the two are equal to the last parameter; Qwen2.5 has small biases, which we leave out. Two things to see. A 7-billion model in 16 bits needs about 13 GB for its weights alone, so it fits on a card with 24 GB, and a 70-billion model does not. And in the large models nearly everything is in the layers: a quarter of the layers is almost a quarter of the model. In our small one, a fifth of all parameters is the embedding, which no layer removal touches.

# %% [markdown]
# ## 4. How much time? Count operations, then check
#
# A pass over calibration text is all that Block Influence needs. When a token is read, it meets each weight of the layers once: one multiplication and one addition. So:
#
# > *operations for a token = 2 × the parameters in the layers*
#
# *Predict* from that, before you look: how much longer does Llama-3.2-1B take than our model, with 9 times as many parameters in its layers?
#
# A script (`measure/models.py`) has measured it: models of these shapes with random weights, each beside the default model in the same process.

# %%
measured = pd.read_csv(data_folder() / "models.csv").set_index("model")
measured = measured["times_default"].dropna()
known = [name for name in s.index if name in measured.index and name != s.index[0]]
weights = s.layers * layer
simple = (weights / weights.iloc[0])[known]

TOKENS = 512  # of a window
# attention: each token with half of the window
meets = 2 * s.layers * s.heads * s.head_dim * TOKENS
operations = 2 * weights + meets
finer = (operations / operations.iloc[0])[known]
check = pd.DataFrame({"by weights": simple, "with attention": finer})
check["measured"] = measured[known]
check.round(2)

# %% [markdown]
# The simple rule says too much. A part of the reason can be calculated: in attention each token also meets the earlier tokens of its window, and that part does not grow with the FFN. It is 2 × heads × head size × window length for each layer (half of the window, two products, two operations each). In a small model it counts for more. The second column has it in.

# %%
fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
for i, column in enumerate(("by weights", "with attention")):
    look = {"color": PALETTE[i], "markersize": 9, "label": column}
    ax.plot(check[column], check["measured"], "os"[i], **look)
ax.plot([2, 12], [2, 12], ":", color="black", label="prediction = measurement")
ax.set(xscale="log", yscale="log", ylabel="measured")
ax.set_xlabel("predicted: times the default model")
plain_log_ticks(ax, "x")
plain_log_ticks(ax, "y")
ax.legend()
plt.show()
gap = (check.div(check["measured"], axis=0) - 1).max()
print(f"The rule by weights is at most {gap['by weights']:.0%} too high, "
      f"the finer one at most {gap['with attention']:.0%}.")  # fmt: skip

# %% [markdown]
# The rest has another cause: large matrices are multiplied more efficiently than small ones, so a large model gains a little. For a plan that is good enough: the prediction errs on the safe side, and by about a third at most.
#
# Now the same on *your* computer. First we measure how many operations it does in a second, on the default model. Then we build a model of another shape, with random weights, and predict how long it takes before we run it.

# %%
def pass_seconds(some_model, batches):
    """Seconds of one Block Influence pass: the faster of two."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        score_layers(some_model, batches, progress=False)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def layer_operations(some_model, window=TOKENS):
    """Operations for one token in the decoder layers."""
    c, layers = some_model.config, decoder_layers(some_model)
    in_layers = sum(p.numel() for p in layers.parameters())
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    return 2 * in_layers + 2 * len(layers) * c.num_attention_heads * head_dim * window


# %%
from transformers import LlamaConfig, LlamaForCausalLM

text = built_in_text()["text"]
batches = calibration_batches(tokenizer, text, samples=4, batch_size=2)
read = sum(int(batch["attention_mask"].sum()) for batch in batches)
wide_config = LlamaConfig(
    hidden_size=1024, intermediate_size=4096,
    num_hidden_layers=4, num_attention_heads=16,
    num_key_value_heads=8, vocab_size=len(tokenizer),
)  # fmt: skip
torch.manual_seed(0)
wide_model = LlamaForCausalLM(wide_config).to(model.device, model.dtype).eval()

# %% tags=["volatile"]
seconds = pass_seconds(model, batches)
per_second = layer_operations(model) * read / seconds
print(f"The default model reads {read:,} tokens in {seconds:.1f} s: {per_second / 1e9:,.0f} billion operations a second.")
expected = layer_operations(wide_model) * read / per_second
found = pass_seconds(wide_model, batches)
print(f"The wide model: predicted {expected:.1f} s, measured {found:.1f} s.")

# %% [markdown]
# On most computers the wide model is quicker than predicted: it has four wide layers where the default model has thirty narrow ones. The number of operations a second is *what this computer reaches*, not what its data sheet promises.

# %% [markdown]
# ## 5. A plan for seven billion
#
# With these numbers we can fill a table for any model: memory for the weights, what is left with a quarter of the layers gone, and time for one pass over 128 windows of 2,048 tokens, a usual amount of calibration text. We do it for this computer, and for a card. For the card we **assume** 400 thousand billion operations a second, about 40 % of what the maker of the H100 promises for 16-bit numbers. Nobody here has measured that: replace it by your own.

# %% tags=["volatile"]
CARD = 400e12  # operations a second: assumed, not measured
TEXT = 128 * 2048  # tokens
longer = 2 * weights + 2 * s.layers * s.heads * s.head_dim * 2048
goes = (s.layers // 4) * layer
plan = pd.DataFrame({
    "weights, 16 bits (GB)": 2 * total / 1e9,
    "a quarter gone (GB)": 2 * (total - goes) / 1e9,
    "and 4 bits in the layers (GB)": (2 * (total - weights) + 0.55 * (weights - goes)) / 1e9,
    "pass, this computer (hours)": longer * TEXT / per_second / 3600,
    "pass, the assumed card (seconds)": longer * TEXT / CARD,
})
plan.round(2)

# %% [markdown]
# (4 bits cost about 0.55 bytes a weight: half a byte, and scales. [Lesson 04](04_quantization.ipynb).)
#
# Read the last row. Llama-2-70B takes 138 GB; without a quarter of its layers it still takes more than one card of 80 GB holds. Pruned *and* in 4 bits it fits with room to spare. Read the last two columns: on a card, scoring takes seconds. Without one it takes a day for a 7-billion model, but so much text is not needed: lesson 00 reads a 64th of it.
#
# A pass also needs memory for the text that it is reading. With the toolkit that is a few hidden states, not all of them: [lesson 01](01_hidden_states.ipynb).

# %% [markdown]
# ## 6. The recipe, end to end
#
# These are the same lines for 135 million and for 7 billion parameters. Here they run on the default model. For the paper's model, set `MODEL = "meta-llama/Llama-2-7b-hf"` at the top on a computer with a 24 GB card (you have to accept its licence on the Hub first), and the paper's nine of 32 layers go.

# %%
depth = len(decoder_layers(model))
n = depth * 9 // 32  # the paper's share
scores = score_layers(model, batches, progress=False)
chosen = choose_layers(scores, n)
pruned = remove_layers(model, chosen)
texts = [text[:1200] for text in built_in_text("perplexity")["text"].head(6)]
rows = {
    name: {
        "layers": len(decoder_layers(m)),
        "weights (GB)": size(m)["memory_bytes"] / 1e9,
        "perplexity": perplexity(m, tokenizer, texts),
    }
    for name, m in {"dense": model, "pruned": pruned}.items()
}
pd.DataFrame(rows).T.round(2)

# %%
table9 = data_folder() / "paper" / "table9_removed_layers.csv"
paper_order = pd.read_csv(table9).set_index("model")["removed_order"]
llama = sorted(map(int, paper_order["Llama-2-7B"].split()))
gone_here = sorted(chosen.removed)
fig, ax = plt.subplots(figsize=(9, 1.9), layout="constrained")
for row, (gone, layers) in enumerate(((gone_here, depth), (llama, 32))):
    for i in range(layers):
        out = i in gone
        box = {"color": "white" if out else PALETTE[row], "edgecolor": "black"}
        box["hatch"] = "" if out else "///"
        ax.barh(row, 1 / layers, left=i / layers, height=0.6, **box)
ax.set_yticks([0, 1])
ax.set_xlabel("depth (0: first layer, 1: behind the last); white: removed")
ax.set_yticklabels([MODEL, "Llama-2-7B (the paper)"])
plt.show()
print(f"Removed here: {', '.join(map(str, gone_here))} of {depth}; in the paper's "
      f"Llama-2-7B: {', '.join(map(str, llama))} of 32.")  # fmt: skip

# %% [markdown]
# The share is the same, the place is not. In Llama-2-7B one row of layers goes, near the end. In the default model most of the layers that go lie around the middle. That is one more reason not to copy layer numbers from a paper: score your own model.
#
# A large model is pruned in the shell as well: `shortgpt score`, `shortgpt prune`, `shortgpt eval`. [docs/toolkit.md](../docs/toolkit.md) has the commands.

# %% [markdown]
# ## 7. What may be said
#
# | claim | in the large models that others measured | in our small ones |
# |---|---|---|
# | Block Influence is far better than chance or position | holds in the paper's figure 5 | holds for two of three |
# | a quarter of the layers can go and perplexity stays | no: three times and more | no: three times and more |
# | a quarter can go and most of the accuracy in choice tasks stays | yes in five of six models | in part: guessing is a large share of what is kept |
# | the layers that can go are near the end | yes in Llama-2 and Baichuan2 | no: around the middle |
# | larger models have more layers to spare | not as a rule: Llama-3-8B and Qwen1.5-14B break early | not as a rule: the middle one breaks first |
#
# > **Limits.** The numbers of others are on other texts and with other tokenizers; only their factors are beside ours, and one text more or less changes a factor. The cost was checked on five shapes up to 1.5 billion parameters, on a CPU. We have pruned no model of 7 billion ourselves: nothing here says how *our* toolkit does on one, only what it should cost.

# %% [markdown]
# ## Exercises
#
# Three functions to write yourself. To try them before you see a solution, open the [exercise notebook](exercises/12_paper_at_scale.ipynb): there each solution is left out, and a check tells you what is wrong with yours. Here they are solved.

# %% [markdown]
# ### Exercise 1: Parameters from a configuration
#
# **Difficulty:** easy · **Minutes:** 10
#
# How many parameters has a model of the Llama family? `layer` is the number in one decoder layer, with its norms. There are `layers` of them, an embedding of `vocabulary` vectors of `hidden` numbers, and one last norm with `hidden` numbers. At the end a matrix of the same size as the embedding leads to the vocabulary. If `tied` is true, that matrix *is* the embedding and must not be counted twice.
#
# <details><summary>Hint</summary>
# Count the embedding once or twice, depending on <code>tied</code>. The last norm is there in both cases.
# </details>

# %% tags=["exercise"]
def model_parameters(layer, layers, hidden, vocabulary, tied):
    """Parameters of a whole model."""
    ### BEGIN SOLUTION
    matrices = 1 if tied else 2
    return layer * layers + matrices * vocabulary * hidden + hidden
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_model_parameters, require_passed

check_model_parameters(model_parameters)

# %% tags=["apply"]
require_passed(model_parameters)
config = model.config
one_layer = sum(p.numel() for p in decoder_layers(model)[0].parameters())
shape = config.hidden_size, config.vocab_size, config.tie_word_embeddings
ours_now = model_parameters(one_layer, len(decoder_layers(model)), *shape)
print(f"By your function: {ours_now:,}. In the model: {size(model)['parameters']:,}.")

# %% [markdown]
# Equal to the last parameter. You can now read a configuration on the Hub and know what you are about to download.

# %% [markdown]
# ### Exercise 2: How many layers have to go?
#
# **Difficulty:** medium · **Minutes:** 15
#
# A model takes `total` bytes, and each of its `layers` decoder layers takes `layer` of them. How many layers have to go *at least*, so that the rest takes no more than `budget` bytes? Return 0 if the model fits as it is. If it would not fit even with one layer left, return None: a model needs one.
#
# <details><summary>Hint 1</summary>
# How many bytes are too many? How many layers is that, rounded up?
# </details>
# <details><summary>Hint 2</summary>
# <code>math.ceil(a / b)</code> divides and rounds up; so does <code>-(-a // b)</code>, in whole numbers.
# </details>

# %% tags=["exercise"]
def layers_to_remove(total, layer, layers, budget):
    """How many layers must go so that the rest fits into ``budget`` bytes, or None."""
    ### BEGIN SOLUTION
    too_many = max(0, total - budget)
    n = -(-too_many // layer)
    return n if n < layers else None
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_layers_to_remove

check_layers_to_remove(layers_to_remove)

# %% tags=["apply"]
require_passed(layers_to_remove)
large = {  # parameters of the model and of one layer, and layers: section 3
    "Llama-2-7b": (6_738_415_616, 202_383_360, 32),
    "Llama-3.1-8B": (8_030_261_248, 218_112_000, 32),
    "Llama-2-13b": (13_015_864_320, 317_204_480, 40),
    "Llama-2-70b": (68_976_648_192, 855_654_400, 80),
}
for gigabytes in (16, 24, 48, 80):
    budget = int(gigabytes * 0.9e9)  # a tenth for the text that is being read
    needs = {}
    for name, (parameters, each, there) in large.items():
        n = layers_to_remove(2 * parameters, 2 * each, there, budget)
        needs[name] = "never" if n is None else f"{n} of {there}"
    print(f"{gigabytes} GB:", ", ".join(f"{name} {n}" for name, n in needs.items()))

# %% [markdown]
# On a card of 80 GB, Llama-2-70B would have to lose nearly half of its layers, and section 1 says what that does. Here removing layers is the wrong tool, and fewer bits are the right one. On 24 GB a 13-billion model would have to lose about one layer in six: that is in reach. The question "how many *must* go?" has an answer before anything is measured; whether the model survives it does not.

# %% [markdown]
# ### Exercise 3: Where does the curve pass the limit?
#
# **Difficulty:** hard · **Minutes:** 20
#
# Section 1 asked at which share of layers perplexity has doubled. `shares` are the shares that were measured, in rising order, beginning with 0; `times` is the factor of perplexity at each (so `times[0]` is 1). Both are lists of numbers. Return the share at which the factor *first* reaches `limit`. Between two measured points, the *logarithm* of the factor rises in a straight line. If the curve never reaches the limit, return None. A curve may fall again afterwards.
#
# <details><summary>Hint 1</summary>
# Look for the first measured point at or above the limit. The answer lies between the point before it and that one.
# </details>
# <details><summary>Hint 2</summary>
# Which part of the way, in logarithms, is the limit? The same part of the way between the two shares.
# </details>

# %% tags=["exercise"]
def first_share_at(shares, times, limit):
    """Share of layers at which perplexity is ``limit`` times the dense one's, or None."""
    ### BEGIN SOLUTION
    from math import log

    for i in range(1, len(times)):
        if times[i] >= limit:
            low, high = log(times[i - 1]), log(times[i])
            part = (log(limit) - low) / (high - low)
            return shares[i - 1] + part * (shares[i] - shares[i - 1])
    return None
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_first_share_at

check_first_share_at(first_share_at)

# %% tags=["apply"]
require_passed(first_share_at)
for chooser in ("block_influence", "relative_magnitude", "greedy"):
    curves = removal_curves(criterion=chooser, text="en").query("language == 'en'")
    found = {}
    for name, rows in curves.groupby("model", sort=False):
        share = first_share_at(list(rows["share"]), list(rows["times"]), 2)
        missing = "not within what was measured"
        found[name] = missing if share is None else f"{share:.0%}"
    words = ", ".join(f"{name} {share}" for name, share in found.items())
    print(f"{chooser.replace('_', ' ')}: perplexity doubles at {words}")

# %% [markdown]
# The way of choosing moves the limit as much as the model does. A better choice is worth several layers: [lesson 06](06_choosing_layers.ipynb).

# %% [markdown]
# ## What we saw
#
# - The factor of perplexity can be compared between models with care; perplexities can't, and accuracy is another measure.
# - With Block Influence's choice, perplexity has doubled when little more than a quarter of the layers is gone, in every model here, large or small.
# - Larger does not mean more redundant: among models of seven to eight billion parameters, the largest factor at a quarter is more than two hundred times the smallest.
# - Parameters, memory and time follow from six numbers of the configuration. The count was exact, the time about a third too high at most.
# - Scoring is cheap at any size. A quarter of the layers is worth a quarter of the memory, and rarely decides whether a model fits; bits do.

# %% [markdown]
# ## Three questions
#
# **1.** Someone reports perplexity 18 for a pruned Llama-2-7B, and 65 for the small model of this course, with a fifth of the layers removed in both. Does the large one take pruning better?
#
# <details><summary>Answer</summary>The numbers don't say so. Dense perplexities differ (5.5 and about 30, on different texts), so first form the factors: about 3.4 and about 2.2. By that measure the small model lost less at this cut. And it is one measure: ask for accuracy, too.</details>
#
# **2.** A model of 16 GB has to run on a card of 12 GB. A colleague wants to remove a third of the layers. What would you try first?
#
# <details><summary>Answer</summary>Fewer bits: 8 bits take 8 GB and change almost nothing. Removing a third of the layers costs every model in this lesson a multiple of its perplexity. If time matters as well as memory, combine a few layers with 8 bits.</details>
#
# **3.** You predict two hours for a pass, and it takes three. Name two reasons that the calculation leaves out.
#
# <details><summary>Answer</summary>For instance: the weights don't fit into memory and are read from disk again and again; the windows are padded, and pads are computed like tokens; other programs use the processor; the number of operations a second was measured with larger matrices or in another number format.</details>

# %% [markdown]
# **Check yourself.** Three more questions, with choices: press a letter (or reach it with Tab and press Space). In a saved notebook, unfold the line below.

# %%
from shortgpt.course.quiz import quiz

quiz("12")

# %% [markdown]
# This is the last lesson (09, on healing by training, is still to come). Can you answer the [ten questions](20_ten_questions.ipynb) of the course now? · **Previous:** [11 · Why deep layers repeat](11_why_layers_repeat.ipynb)
