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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/shortgpt-course/shortgpt/blob/main/notebooks/01_hidden_states.ipynb)
#
# # 01 · Hidden states: what flows between layers
#
# Before we say that a layer does little, we look at what goes into it and what comes out. We follow one sentence
# through a real language model, layer by layer (ShortGPT, section 2).
#
# **You will be able to**
#
# * say what happens to a text from characters to next-token probabilities, with the shape at every step;
# * draw a decoder layer and explain why it *adds* to what passes through it;
# * capture any layer's input and output with a hook, and prove that they are the real ones;
# * avoid a trap: the last hidden state that transformers reports is not what the last layer put out.
#
# **Before:** [lesson 00](00_start_here.ipynb), and a little PyTorch (tensors, modules) · **Takes:** about 1 minute
# on 2 CPU cores; reading about 25 minutes, exercises 50 · **Memory:** about 2 GB · **Download:** 93 MB once (shared
# by all lessons)

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
# The model is SmolLM2-135M-Instruct, built like the paper's Llama-2 models. We train nothing, so gradients are
# switched off.
#
# **Another model?** Change the line `MODEL = …`. The text still speaks of the default model; the cells show yours,
# except what says *default model, stored*.

# %% tags=["for-exercises"]
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from shortgpt import block_influence, built_in_text, calibration_batches
from shortgpt import decoder_layers, describe, hidden_states, load, span_distances
from shortgpt.course.plots import PALETTE, plain_log_ticks, plot_norms, plot_similarity

MODEL = "smollm2-135m-instruct"  # others: shortgpt.suggested_models()
model, tokenizer = load(MODEL, device="cpu")  # the cells below use plain CPU tensors
_ = torch.set_grad_enabled(False)
describe(model).T

# %% [markdown]
# ## 1. From text to vectors
#
# A language model does not see letters. A *tokenizer* cuts the text into *tokens*, frequent pieces of text, and
# gives each its number in a fixed vocabulary.
#
# Predict: how many tokens is this sentence, and does a space belong to the word before it or after it?

# %%
prompt = "The capital of France is the city of"
batch = tokenizer(prompt, return_tensors="pt")
ids = batch["input_ids"]  # [batch, tokens]
pd.DataFrame({"token": [repr(tokenizer.decode([i])) for i in ids[0]], "id": ids[0]}).T

# %% [markdown]
# Common words are one token each, and the space belongs to the word that follows. The numbers are rows of a table, the
# *embedding*. The model's first step looks up these rows.

# %%
embedding = model.get_input_embeddings()
x_0 = embedding(ids)

print("ids      ", list(ids.shape), "        [batch, tokens]")
print("embedding", list(embedding.weight.shape), "  [vocabulary, hidden]")
print("x_0      ", list(x_0.shape), "   [batch, tokens, hidden]")
scale = getattr(embedding, "embed_scale", 1)  # Gemma makes the vectors longer
assert torch.equal(x_0[0, 1], scale * embedding.weight[ids[0, 1]])  # only a look-up

# %% [markdown]
# From here on every token is a vector, its **hidden state**. We write $x_i$ for the hidden states that *enter layer
# $i$*, counting layers from 0, so $x_0$ is the embedding. Every decoder layer returns the shape that it gets. That is
# why a layer can be taken out.

# %% [markdown]
# ## 2. Inside a decoder layer
#
# A *decoder layer* is the block that the model repeats. What is in one?

# %%
layers = decoder_layers(model)
print(len(layers), "layers. The first one:")
print(layers[0])

# %% [markdown]
# There are two parts that compute and two norms. **Attention** (`self_attn`) lets a token read from the tokens
# before it. The **feed-forward network** or FFN (`mlp`) works on each token alone. How are the parts connected?


# %%
def draw_layer():
    _, ax = plt.subplots(figsize=(9, 2.6), layout="constrained")
    arrow = {"arrowstyle": "->", "linewidth": 4, "color": PALETTE[0]}
    ax.annotate("", (10.4, 0), (0.6, 0), arrowprops=arrow)
    box = {"facecolor": "white", "edgecolor": "black"}
    for start, part in ((1.4, "attention"), (6, "FFN")):
        x = [start, start, start + 3.2, start + 3.2]
        ax.plot(x, [0, 1.4, 1.4, 0.2], color="black")
        for at, text in (((0.75, 1.4), "RMSNorm"), ((2.3, 1.4), part), ((3.2, 0), "+")):
            shape = box | {"boxstyle": "circle" if text == "+" else "round"}
            look = {"ha": "center", "va": "center", "bbox": shape}
            ax.text(start + at[0], at[1], text, **look)
    ax.text(0.5, 0, "$x_i$", ha="right", va="center", fontsize=15)
    ax.text(10.5, 0, "$x_{i+1}$", va="center", fontsize=15)
    ax.text(5.3, -0.55, "residual stream", ha="center", color=PALETTE[0])
    ax.set(xlim=(-0.3, 11.4), ylim=(-0.8, 1.9))
    ax.axis("off")
    plt.show()


draw_layer()
print("The stream runs straight through; attention and FFN each read a normed copy.")

# %% [markdown]
# The thick line is the **residual stream**. Attention and FFN add something to it, and nothing on it is replaced.
# With $f_i(x)$ for all that layer $i$ adds,
#
# $$x_{i+1} = x_i + f_i(x_i).$$
#
# Removing a layer means replacing its $f_i$ by zero.
#
# The norms come *before* attention and FFN, which is called **pre-norm**. RMSNorm divides a vector by the root of
# its mean square and multiplies each entry by a learned gain $g$:
#
# $$\mathrm{RMSNorm}(x) = g \cdot \frac{x}{\sqrt{\mathrm{mean}(x^2) + \varepsilon}}$$


# %%
def rms_norm(x, gain=1.0, eps=1e-5):
    return gain * x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


print(rms_norm(torch.tensor([3.0, 4.0])), rms_norm(torch.tensor([300.0, 400.0])))
norm = layers[0].input_layernorm
gain = norm.weight + type(norm).__name__.startswith("Gemma")  # Gemma stores g - 1
torch.testing.assert_close(rms_norm(x_0, gain, model.config.rms_norm_eps), norm(x_0))

# %% [markdown]
# By hand: the mean square of 3 and 4 is 12.5, its root is about 3.54, and 3 / 3.54 is about 0.85. A vector a hundred
# times longer gives the same. So attention and FFN do not see how *long* a hidden state is, only its *direction*.

# %% [markdown]
# ## 3. A hook: look at one layer while it works
#
# PyTorch can call a function of ours each time a module has run: a *forward hook*. It gets the module, its inputs
# and its output. We put one on layer 4, run the model, and remove the hook.

# %%
seen = {}


def keep(module, args, output):
    seen["x_in"], seen["x_out"] = args[0], output


handle = layers[4].register_forward_hook(keep)
model(ids)
handle.remove()
print({name: list(state.shape) for name, state in seen.items()})

# %% [markdown]
# Is the output really the input plus two additions? Two more hooks record what attention and FFN add inside layer 4.

# %%
attention, ffn = layers[4].self_attn, layers[4].mlp
if hasattr(layers[4], "post_feedforward_layernorm"):  # Gemma
    attention, ffn = (
        layers[4].post_attention_layernorm,
        layers[4].post_feedforward_layernorm,
    )


def note(name):
    def hook(module, args, output):
        seen[name] = output[0] if isinstance(output, tuple) else output

    return hook


parts = {"attention": attention, "ffn": ffn}
handles = [part.register_forward_hook(note(name)) for name, part in parts.items()]
model(ids)
for handle in handles:
    handle.remove()

torch.testing.assert_close(
    seen["x_in"] + seen["attention"] + seen["ffn"], seen["x_out"]
)
print("x_out = x_in + attention + ffn holds")

# %% [markdown]
# So the layer is an addition.
#
# **Try it:** change the 4 to another layer in both cells and run them again.

# %% [markdown]
# ## 4. All layers at once
#
# Hooks of your own go wrong easily: a forgotten one stays on the model, and some model families return a tuple. The
# toolkit's `hidden_states` takes care of both and collects everything in one tensor. Predict: how many states do $L$
# layers give?

# %%
states = hidden_states(model, batch)
print(list(states.shape), "[layers + 1, batch, tokens, hidden]")
assert torch.equal(states[0], x_0)

# %% [markdown]
# $L + 1$: entry $i$ enters layer $i$, and the last one leaves the last layer. Then come two more steps: a **final norm**, and a matrix (`lm_head`) that turns each hidden state into one number per vocabulary entry, its *logit*. A softmax over the logits gives the probability of each possible next token.
#
# If our last state is the true one, these two steps must give exactly the model's own logits. Do they?

# %%
logits = model.lm_head(model.model.norm(states[-1]))  # [batch, tokens, vocabulary]
torch.testing.assert_close(logits, model(ids).logits, rtol=0, atol=0)

top = logits[0, -1].softmax(-1).topk(5)
pd.DataFrame(
    {
        "next token": [repr(tokenizer.decode([i])) for i in top.indices],
        "probability": top.values,
    }
).round(3)

# %% [markdown]
# Every number is equal, without any tolerance. And "Paris" makes sense.

# %% [markdown]
# ## 5. A trap: the last hidden state of transformers
#
# transformers can return hidden states by itself, with `output_hidden_states=True`. Predict: which of its entries
# will differ from ours?

# %%
theirs = model(ids, output_hidden_states=True).hidden_states
different = [i for i in range(len(theirs)) if not torch.equal(theirs[i], states[i])]
print(f"{len(theirs)} entries each; entries that differ: {different}")
assert torch.equal(
    theirs[-1], model.model.norm(states[-1])
)  # theirs is ours, after the final norm

# %% [markdown]
# Only the last: transformers reports it *after* the final norm, which belongs to no layer. How much does that change?
# We compare what enters a layer with what leaves it by their cosine: 1 means the same direction, 0 a right angle. From
# now on we read the first 256 tokens of four documents.

# %%
documents = built_in_text().drop_duplicates("genre").head(4)
print(*documents["title"], sep="; ")
batch = calibration_batches(tokenizer, documents["text"], length=256, pack=False)[0]
states = hidden_states(model, batch)  # [layers + 1, 4, 256, hidden]
reported = model.model(**batch, output_hidden_states=True)  # without the logits
theirs = torch.stack(reported.hidden_states)


def mean_cosine(states):
    return 1 - block_influence(states[:-1], states[1:]).mean((1, 2))  # [layers]

# %%
ours_cosine, theirs_cosine = mean_cosine(states), mean_cosine(theirs)
_, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
look = {"color": PALETTE[1], "markersize": 8, "fillstyle": "none"}
ax.plot(theirs_cosine, "s--", label="output_hidden_states", **look)
ax.plot(ours_cosine, "o-", color=PALETTE[0], markersize=4, label="hooks")
ax.set(xlabel="layer", ylabel="cosine of input and output", ylim=(-0.1, 1.05))
ax.legend(loc="lower center")
plt.show()
print(
    f"The last layer's cosine: {ours_cosine[-1]:.2f} by hooks, "
    f"{theirs_cosine[-1]:.2f} by output_hidden_states."
)

# %% [markdown]
# By `output_hidden_states` the last layer turns everything by a right angle. Most of that turn comes from the final
# norm, whose gain differs from entry to entry. The paper's published code scores layers this way; on another model than
# ours the error could change the choice.

# %% [markdown]
# ## 6. Along the depth
#
# Every layer adds to the stream. Predict how the length of the hidden states grows: not at all, like a straight
# line, or faster?

# %%
plot_norms(states)
plt.show()

# %% [markdown]
# They grow more than a hundredfold. On a logarithmic axis the nearly straight rise on the right means growth by a
# similar *factor* at each layer.
#
# The figure leaves out the first token of each document. Is it like the others?

# %%
lengths = states.norm(dim=-1)  # [layers + 1, documents, tokens]
first, others = lengths[:, :, 0].mean(1), lengths[:, :, 1:].mean((1, 2))
_, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
ax.plot(first, "s--", color=PALETTE[1], markersize=5, label="first token")
ax.plot(others, "o-", color=PALETTE[0], markersize=4, label="all other tokens")
ax.set(yscale="log", xlabel="layers passed", ylabel="mean length (log scale)")
plain_log_ticks(ax)
ax.legend()
plt.show()
jump = int((first[1:] / first[:-1])[1:].argmax()) + 1
print(
    f"The first token's state is up to {(first / others).max():.0f} times as long as "
    f"the others; layer {jump} alone takes it from {first[jump]:,.0f} to "
    f"{first[jump + 1]:,.0f}."
)

# %% [markdown]
# No: the first token is an **attention sink** (Xiao et al., arXiv 2309.17453). Attention weights must sum to one, so a
# head that finds nothing to read puts its weight there. States of such length are called massive activations (Sun et
# al., arXiv 2402.17762). One token in hundreds would dominate a mean over *states*: lesson 02 comes back to it.

# %% [markdown]
# ## 7. Neighbours point the same way
#
# Now compare *any* two depths: in the map below, row 3, column 20 is the mean cosine between what enters layer 3 and
# what enters layer 20. Where do you expect a dark line?

# %%
spans = span_distances(model, [batch])
plot_similarity(spans)
plt.show()

# %% [markdown]
# Close to the diagonal all is bright: neighbouring states are almost parallel. The first row and column are dark,
# since one layer leaves hardly anything of the embedding's direction. In the large bright square, even states many
# layers apart point in similar directions.

# %% [markdown]
# ## 8. How much does a layer add?
#
# If neighbouring states have a cosine of about 0.96, do the layers add almost nothing? We measure the length of what
# layer $i$ adds relative to the stream that leaves it, $|f(x)| / |x + f(x)|$, averaged over all tokens but the first.
# What is your guess?

# %%
x_in, x_out = states[:-1, :, 1:], states[1:, :, 1:]  # without the first token
added = ((x_out - x_in).norm(dim=-1) / x_out.norm(dim=-1)).mean((1, 2))  # [layers]
_, ax = plt.subplots(figsize=(8, 3), layout="constrained")
ax.bar(range(len(added)), added, color=PALETTE[0], edgecolor="black", linewidth=0.6)
ax.set(xlabel="layer", ylabel="what it adds / stream after it\n|f(x)| / |x + f(x)|")
plt.show()
print(
    f"The median layer adds {added.median():.2f} of the stream's length, "
    f"and no layer less than {added.min():.2f}."
)

# %% [markdown]
# That is far from nothing. How can a layer add a quarter of the stream's length and hardly change its direction? Here
# are $x$, $f(x)$ and their sum for one layer, true to scale (means over tokens).

# %%
layer = len(x_in) // 2 - 1  # near the middle
x, f = x_in[layer], x_out[layer] - x_in[layer]
lengths = x.norm(dim=-1)
along = ((x * f).sum(-1) / lengths.square()).mean()  # along x, as a share of |x|
across = ((f.norm(dim=-1) / lengths).square().mean() - along**2).sqrt()

_, ax = plt.subplots(figsize=(8, 2.8), layout="constrained")
start, middle, end = (0, 0), (1, 0), (1 + along, across)
look = {"arrowstyle": "->", "shrinkA": 0, "shrinkB": 0, "linewidth": 3}
ax.annotate("", middle, start, arrowprops=look | {"color": PALETTE[0]})
ax.annotate("", end, middle, arrowprops=look | {"color": PALETTE[1]})
ax.annotate("", end, start, arrowprops=look | {"linewidth": 1.5, "linestyle": "--"})
ax.text(0.5, -0.05, "x")
ax.text(1.03, across / 2, "f(x)")
ax.text(0.45, 0.17, "x + f(x)")
ax.set(xlim=(-0.05, 1.2), ylim=(-0.1, across + 0.06), aspect="equal")
ax.axis("off")
plt.show()
angle = torch.rad2deg(torch.atan2(across, 1 + along))
print(
    f"Layer {layer} adds {across:.2f} across and {along:+.2f} along the stream, "
    f"which turns it by {angle:.0f} degrees."
)

# %% [markdown]
# The addition is nearly at a right angle to the stream. A quarter of the length, added sideways, turns a long vector
# by a small angle, and the cosine of a small angle is close to one. So a high cosine says that a layer changes little
# *compared with what is already there*, and not that it does nothing.

# %% [markdown]
# ## 9. What would the model predict half way?
#
# Pretend that the model ended early: apply the final norm and `lm_head` to $x_i$. This is the **logit lens**
# (nostalgebraist, 2020). When does the answer "Paris" appear: early, in the middle, or late?


# %%
def readable(token_id):
    return repr(tokenizer.decode([token_id]))[1:-1].strip() or "␣"


def logit_lens(prompt):
    """The likeliest next token at each depth, and its probability: two tables."""
    batch = tokenizer(prompt, return_tensors="pt")
    states = hidden_states(model, batch)[:, 0]  # [layers + 1, tokens, hidden]
    top = model.lm_head(model.model.norm(states)).softmax(-1).max(-1)
    tokens = [readable(i) for i in batch["input_ids"][0]]
    words = [[readable(i) for i in row] for row in top.indices]
    probabilities = pd.DataFrame(top.values.numpy(), columns=tokens)
    return pd.DataFrame(words, columns=tokens), probabilities

# %%
def draw_lens(prompt):
    words, probabilities = lenses[prompt]
    rows = sorted({*range(0, len(words), 4), *range(len(words) - 7, len(words))})
    size = 1.05 * words.shape[1] + 1.6, 4.6
    figure = Figure(figsize=size, layout="constrained")  # a menu calls this: no pyplot
    ax = figure.subplots()
    look = {"cmap": "Blues", "vmin": 0, "vmax": 1.4, "linewidths": 0.5, "cbar": False}
    text = words.loc[rows].to_numpy()
    sns.heatmap(probabilities.loc[rows], annot=text, fmt="", ax=ax, **look)
    ax.set(xlabel="token read", ylabel="layers passed")
    display(figure)
    right = (words.iloc[::-1, -1] == words.iloc[-1, -1]).astype(int)
    since = len(words) - int(right.cummin().sum())
    print(
        f"After the last token the model predicts {words.iloc[-1, -1]!r}; "
        f"it is the lens's first choice from depth {since} on."
    )


others = "The president of the United States lives in the White", "Two plus two equals"
prompts = [prompt, *others]
lenses = {text: logit_lens(text) for text in prompts}
draw_lens(prompts[0])

# %% [markdown]
# Read the last column from top to bottom. A darker cell is a surer prediction, and ␣ is a token of spaces only.
# Depth 0 mostly predicts the token just read, because this model uses one table for embedding and `lm_head`. Then
# come many depths of commas and small words, and the answer appears in the last few layers.
#
# The lens shows when an answer becomes *readable*, not when it was found: middle states were never trained for the
# final head.
#
# The menu shows other prompts (in a running notebook). What will the model make of "Two plus two equals"?

# %%
import ipywidgets as widgets

menu = widgets.Dropdown(
    options=prompts, description="prompt", layout=widgets.Layout(width="70%")
)
display(menu, widgets.interactive_output(draw_lens, {"prompt": menu}))

# %%
draw_lens(prompts[2])

# %% [markdown]
# For a few depths the lens reads "four", the right answer; then the last layer turns it into "five", without being
# sure (the pale cell). A layer that changes much does not always improve the result.

# %% [markdown]
# ## 10. Watch a token
#
# How far does each layer *turn* a single token's state (1 minus the cosine of what enters and what leaves), and what
# does the lens read there? Choose a sentence or write your own, then press one of its tokens (by keyboard: Tab and the
# space bar).
#
# Predict: which do the middle layers turn more, *of*, the last token of the first sentence, or *The*, the first one?

# %%
from shortgpt import token_paths
from shortgpt.course.explorers import explore_token
from shortgpt.course.plots import plot_token_path

explore_token(model, tokenizer)

# %% [markdown]
# Without a running notebook: these two tokens. Change the positions to see others.

# %%
paths = token_paths(model, tokenizer, prompts[0])
for position in (-1, 0):
    plot_token_path(paths, position)
    plt.show()

# %% [markdown]
# The last token looks like the averages of section 5. The first one is the attention sink: once a layer has made its
# state long, what the next layers add is tiny compared with that length. So "this layer hardly turns the state" can be
# true because of the layer, or because of the token.
#
# **Try it:** one token in the middle of the first sentence behaves like the first one, for some layers. Find it.

# %% [markdown]
# ## Exercises
#
# Try these five functions first in the [exercise notebook](exercises/01_hidden_states.ipynb), where a check tells you
# what is wrong with yours. Here they are solved.

# %% [markdown]
# ### Exercise 1: How much memory do all hidden states take?
#
# **Difficulty:** easy · **Minutes:** 5
#
# Return the number of *bytes* that all hidden states of a batch take, as `hidden_states` collects them: `ids` has
# the shape `[batch, tokens]`, and `config` knows `num_hidden_layers` and `hidden_size`.
#
# <details><summary>Hint</summary>
# Section 4 gives the shape of that tensor. Multiply its four numbers, and remember that there is one state more
# than layers.
# </details>


# %% tags=["exercise"]
def states_bytes(config, ids, bytes_per_number):
    """Bytes that all hidden states of the batch ``ids`` take."""
    ### BEGIN SOLUTION
    states = config.num_hidden_layers + 1
    return states * ids.numel() * config.hidden_size * bytes_per_number
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_states_bytes, require_passed

check_states_bytes(states_bytes)

# %% tags=["apply"]
require_passed(states_bytes)
ids = torch.zeros(4, 512, dtype=torch.long)
shapes = {"this model": model.config, "Llama-2-7B's shape": transformers.LlamaConfig()}
for name, config in shapes.items():
    megabytes = states_bytes(config, ids, 4) / 1e6
    print(f"{name}: {megabytes:,.0f} MB for four texts of 512 tokens in float32")

# %% [markdown]
# For a large model that is too much, so `score_layers` in lesson 02 looks at each state as it passes and keeps none.

# %% [markdown]
# ### Exercise 2: The cosine of two states
#
# **Difficulty:** medium · **Minutes:** 10
#
# Write the cosine from products, sums and roots: `a` and `b` have the shape `[..., hidden]` with any number of axes
# in front, and the result has one cosine for each pair of states, `[...]`. It must also be right for states in
# `float16` that are as long as those of deep layers.
#
# <details><summary>Hint 1</summary>
# The dot product of two vectors, divided by both lengths. Everything happens along one axis.
# </details>
# <details><summary>Hint 2</summary>
# The largest number of float16 is 65,504. The square of 256 is beyond it. What could you do before squaring?
# </details>


# %% tags=["exercise"]
def cosine(a, b):
    """Cosine of each pair of states: ``[..., hidden] -> [...]``."""
    ### BEGIN SOLUTION
    a, b = a.float(), b.float()
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_cosine

check_cosine(cosine)

# %% [markdown]
# This line is the core of Block Influence. Along another axis its result means nothing, and in half precision it fails
# silently in the deep layers.

# %% [markdown]
# ### Exercise 3: A recorder for any module
#
# **Difficulty:** medium · **Minutes:** 10
#
# `run` is a function without arguments that makes `module` run, perhaps several times. Call it once and return a *list* of what the module put out each time. Leave the module as you found it: your hook gone, all other hooks still there, also if `run` fails with an error.
#
# <details><summary>Hint 1</summary>
# Section 3 has the pieces. A hook that appends to a list must itself return nothing: what a hook returns replaces
# the output.
# </details>
# <details><summary>Hint 2</summary>
# Python's <code>try</code> has a partner that runs whatever happens: <code>finally</code>.
# </details>


# %% tags=["exercise"]
def record_outputs(module, run):
    """Call ``run()`` and return the list of the outputs of ``module`` meanwhile."""
    ### BEGIN SOLUTION
    outputs = []

    def keep(module, args, output):
        outputs.append(output)

    handle = module.register_forward_hook(keep)
    try:
        run()
    finally:
        handle.remove()
    return outputs
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_record_outputs, require_passed

check_record_outputs(record_outputs)

# %% tags=["apply"]
require_passed(record_outputs)
batch = tokenizer("The capital of France is the city of", return_tensors="pt")
layer = len(decoder_layers(model)) // 2 - 1
outputs = record_outputs(
    decoder_layers(model)[layer],
    lambda: model.generate(**batch, max_new_tokens=4, do_sample=False),
)
print(
    f"layer {layer} while the model writes four tokens:",
    *[list(output.shape) for output in outputs],
)

# %% [markdown]
# While it writes, the model reads the whole prompt once and then one token at a time: a cache keeps what attention
# needs of the earlier tokens (lesson 03).

# %% [markdown]
# ### Exercise 4: Which layers turn the state most?
#
# **Difficulty:** medium · **Minutes:** 10
#
# From `states`, `[layers + 1, batch, tokens, hidden]`, find the `n` layers whose output points furthest away from
# their input, by the mean cosine over all tokens. Return their numbers as a list, the layer that turns most first.
#
# <details><summary>Hint 1</summary>
# <code>states[:-1]</code> are the inputs of all layers and <code>states[1:]</code> their outputs, in the same order.
# </details>
# <details><summary>Hint 2</summary>
# Compare first, average then. Section 6 shows a token that would dominate an average of states.
# </details>


# %% tags=["exercise"]
def busiest_layers(states, n):
    """The ``n`` layers with the lowest mean cosine, lowest first."""
    ### BEGIN SOLUTION
    before, after = states[:-1].float(), states[1:].float()
    cosines = torch.cosine_similarity(before, after, dim=-1)  # [layers, batch, tokens]
    return cosines.mean((1, 2)).argsort()[:n].tolist()
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_busiest_layers, require_passed

check_busiest_layers(busiest_layers)

# %% tags=["apply"]
require_passed(busiest_layers)
page = built_in_text()["text"][0][:1000]
print(
    "the busiest layers on one page:",
    busiest_layers(hidden_states(model, tokenizer(page, return_tensors="pt")), 4),
)

# %% [markdown]
# One page is enough to find the low points of section 5's curve. Pruning wants the other end of this list, the layers
# that turn the state *least*.

# %% [markdown]
# ### Exercise 5: The answer's rank at each depth
#
# **Difficulty:** hard · **Minutes:** 15
#
# Section 9 saw the answer only when it was the most probable token. Look earlier: at each depth, which *place* does
# the answer take among all tokens of the vocabulary, 1 being the most probable? `states` is `[layers + 1, tokens,
# hidden]`, `norm` and `head` are the final norm and `lm_head`, and `answer` is the number of a token. Return a list
# with one rank for each depth, for the prediction after the *last* token.
#
# <details><summary>Hint 1</summary>
# Softmax changes no order, so logits will do.
# </details>
# <details><summary>Hint 2</summary>
# The rank is one more than the number of tokens with a higher logit.
# </details>


# %% tags=["exercise"]
def answer_ranks(states, norm, head, answer):
    """Rank of the token ``answer`` at each depth; 1 is the most probable token."""
    ### BEGIN SOLUTION
    logits = head(norm(states[:, -1]))  # [layers + 1, vocabulary]
    higher = logits > logits[:, answer, None]
    return (1 + higher.sum(-1)).tolist()
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_answer_ranks, require_passed

check_answer_ranks(answer_ranks)

# %% tags=["apply"]
require_passed(answer_ranks)
batch = tokenizer("The capital of France is the city of", return_tensors="pt")
paris = tokenizer(" Paris", add_special_tokens=False)["input_ids"][0]
ranks = answer_ranks(
    hidden_states(model, batch)[:, 0], model.model.norm, model.lm_head, paris
)
print("rank of Paris by depth:", *ranks)

# %% [markdown]
# While the lens shows commas and small words, the rank already moves: slowly through the middle of the model, then
# within a few layers from the thousands to the first place.

# %% [markdown]
# ## What we saw
#
# * A hidden state is one vector per token. Each decoder layer adds to it, $x_{i+1} = x_i + f_i(x_i)$; we checked
#   that sum on the real model.
# * States captured with hooks are the model's own. transformers' last entry is already normed, which makes the last
#   layer look very different.
# * Hidden states grow along the depth, and the first token is an outlier (an attention sink).
# * Each layer adds a considerable vector, but nearly at a right angle to a long stream. So neighbouring states are
#   almost parallel.
# * For the prompts we tried, the answer becomes readable only in the last few layers.
#
# > **Limits.** One small model, four documents, three prompts. What the attention sink does for the model is Xiao et
# > al.'s explanation; this lesson shows only that it is there.
#
# ## Three questions
#
# **1.** Why can a decoder layer be taken out of the model without changing a shape elsewhere?
#
# <details><summary>Answer</summary>
# Its input and output have the same shape, and all it does is add to the stream. Without it, the next layer
# receives x instead of x + f(x).
# </details>
#
# **2.** You compute the cosine between entries 29 and 30 of <code>output_hidden_states</code> in a model of 30
# layers and get a value near 0. What has happened?
#
# <details><summary>Answer</summary>
# Entry 30 is taken after the final norm, so the value mixes the last layer with the norm's gains. Capture the last
# layer's output with a hook.
# </details>
#
# **3.** Layer A adds a vector a quarter as long as the stream, along it. Layer B adds one of the same length, at a
# right angle. Which changes the direction, and which would the next pre-norm layer notice?
#
# <details><summary>Answer</summary>
# Only B changes the direction. The next layer's RMSNorm removes the length, so it notices B and cannot see A at all
# (although A makes every later addition relatively smaller).
# </details>

# %% [markdown]
# **Check yourself.** Three more questions: press a letter (or reach it with Tab and press Space). In a saved
# notebook, unfold the line below.

# %%
from shortgpt.course.quiz import quiz

quiz("01")

# %% [markdown]
# ## Next
#
# Neighbouring states are almost parallel. Which of these layers could go? The next lesson turns the cosine into a
# score for each layer.
#
# **Next:** [02 · Block Influence: derive, compute, trust](02_block_influence.ipynb) · **Previous:** [00 · Start
# here](00_start_here.ipynb)
