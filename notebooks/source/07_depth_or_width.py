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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/shortgpt-course/shortgpt/blob/main/notebooks/07_depth_or_width.ipynb)
#
# # 07 · Depth or width: layers, sublayers, heads, channels
#
# So far we took out whole layers. One can also make a model smaller without making it shorter: take only the attention of a layer, or only its feed-forward network (FFN), or keep every layer and make each one narrower. ShortGPT says that whole layers are the better thing to take, although nothing could be simpler. In this lesson the methods compete with the same number of parameters gone, for quality, for speed and for memory. Then we read the paper's own comparison with what we have learned.
#
# **You will be able to**
#
# - say where the parameters of a language model are, and make a comparison of pruning methods fair;
# - remove attention, FFNs, heads and channels, and compare the damage of all of them with that of removing layers;
# - predict which of them makes a model faster, and which shrinks the key-value cache;
# - read a published comparison of pruning methods, and say what it proves.
#
# **Before:** [lesson 03](03_pruning.ipynb) (removing layers) and [lesson 05](05_evaluation.ipynb) (standard errors, retention) · **Takes:** about 4 minutes on 2 CPU cores · **Memory:** about 2 GB · **Download:** 93 MB once (shared by all lessons)

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
# One variable names the model.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from shortgpt import (
    built_in_text, calibration_batches, decoder_layers, equal_parameters, load, perplexity, removal_order, remove_channels,
    remove_heads, remove_layers, remove_sublayers, score_layers, score_sublayers, size, speed, watch_layers,
)  # fmt: skip
from shortgpt.plots import MARKERS, PALETTE, plain_log_ticks

MODEL = "smollm2-135m-instruct"  # or a Hub id such as "Qwen/Qwen2.5-0.5B"
model, tokenizer = load(MODEL, device="cpu")
depth = len(decoder_layers(model))

# %% [markdown]
# ## 1. What is there to remove?
#
# A decoder layer has two branches: *attention*, which brings information from earlier tokens, and the *FFN*, which works on each token alone. Each of them adds its result to the hidden state. There are also two norms in a layer, and outside of all layers the embedding: one vector for each token of the vocabulary. *Predict:* which of them has the most parameters?

# %%
layer = decoder_layers(model)[0]
parts = {
    "embedding": model.get_input_embeddings(),
    "attention": layer.self_attn,
    "FFN": layer.mlp,
    "norms": torch.nn.ModuleList([layer.input_layernorm, layer.post_attention_layernorm]),
}
parameters = pd.Series({name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()})
everywhere = parameters * [1, depth, depth, depth] / 1e6
print(f"one layer: {parameters.iloc[1:].sum():,} parameters; the whole model: {size(model)['parameters']:,}")

# %%
fig, ax = plt.subplots(figsize=(8, 1.9), layout="constrained")
left = 0
for (name, millions), hatch, colour in zip(everywhere.items(), ("", "///", "...", "xx"), PALETTE, strict=False):
    ax.barh(0, millions, left=left, color=colour, hatch=hatch, edgecolor="black", label=f"{name}: {millions:.2f} million")
    left += millions
ax.set(xlabel="parameters (millions), all layers together", yticks=[])
ax.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
plt.show()
in_layers = everywhere.iloc[1:].sum()
print(f"The embedding holds {everywhere['embedding'] / everywhere.sum():.0%} of the parameters. "
      f"Of those in the layers, the FFNs hold {everywhere['FFN'] / in_layers:.0%} and attention {everywhere['attention'] / in_layers:.0%}; the norms hardly count.")  # fmt: skip

# %% [markdown]
# Two things to keep in mind for later. The embedding is a large part of this small model and no method below touches it; in the paper's 7B models it is a few percent. And one attention is much smaller than one FFN, because several query heads share one key head and one value head (*grouped-query attention*).
#
# So "I removed twelve attentions without much harm" and "I removed twelve layers" are not the same achievement. A fair comparison removes **equal parameters**. `equal_parameters` says how much of each kind makes up for a number of layers.

# %%
COUNTS = (3, 6, 9)
budgets = pd.DataFrame({f"as much as {n} layers": equal_parameters(model, n) for n in COUNTS})
budgets

# %% [markdown]
# (filled when the width module is there)
