"""Figures of layers: how states grow and resemble each other along depth, what each layer scores, and which ones go."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from torch import Tensor

from shortgpt.course.plots.style import PALETTE, literal, new_axes, plain_log_ticks, say


def plot_norms(states: Tensor, ax: Axes | None = None) -> Axes:
    """Mean length of the hidden states along depth; `states` is ``[layers + 1, batch, tokens, hidden]``.

    The first token of a text is left out: it carries an outsized state (an attention sink) that says little.
    """
    norms = states[:, :, 1:].float().norm(dim=-1).flatten(1).cpu()  # [layers + 1, tokens]
    mean = norms.mean(1).numpy()
    low, high = np.quantile(norms.numpy(), [0.1, 0.9], axis=1)
    ax = ax or new_axes()
    ax.plot(mean, marker="o", markersize=4, color=PALETTE[0], label="mean")
    ax.fill_between(range(len(mean)), low, high, alpha=0.25, color=PALETTE[0], label="middle 80 % of tokens")
    ax.set(yscale="log", xlabel="layers passed", ylabel="length of the hidden state (log scale)")
    plain_log_ticks(ax)
    ax.legend()
    say(
        f"The hidden states grow from a mean length of {mean[0]:.1f} (embedding) to {mean[-2]:.0f} before the last layer "
        f"and {mean[-1]:.0f} after it."
    )
    return ax


def plot_similarity(spans: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Heat map of the cosine between the hidden states at any two depths; `spans` is from `span_distances`."""
    depth = int(spans["end"].max()) + 1
    matrix = np.eye(depth)
    matrix[spans["start"], spans["end"]] = matrix[spans["end"], spans["start"]] = 1 - spans["score"]
    ax = ax or new_axes(6.4, 5.4)
    sns.heatmap(matrix, ax=ax, cmap="viridis", vmin=0, vmax=1, square=True, cbar_kws={"label": "mean cosine"})
    ticks = range(0, depth, 5)
    ax.set(xlabel="layers passed", ylabel="layers passed")
    ax.set_xticks([t + 0.5 for t in ticks], map(str, ticks))
    ax.set_yticks([t + 0.5 for t in ticks], map(str, ticks))
    say(
        f"Neighbouring states have a median cosine of {np.median(np.diag(matrix, 1)):.3f}; the state before the first layer "
        f"and the state after the last have {matrix[0, -1]:.2f}."
    )
    return ax


def plot_scores(table: pd.DataFrame, removed: Collection[int] = (), ax: Axes | None = None) -> Axes:
    """A dot with its standard error for each layer's score; the layers in `removed` are squares.

    The axis is linear, so that equal distances are equal differences. Scores above three times the median would squeeze
    all others together: they are triangles at the upper edge, with their values beside them.
    """
    removed = {int(layer) for layer in removed}
    gone, beyond = table["layer"].isin(removed), table["score"] > 3 * table["score"].median()
    ax = ax or new_axes(9, 3.6)
    top = 1.2 * table.loc[~beyond, "score"].max() or 1.0
    look: dict[str, Any] = {"linestyle": "", "capsize": 2, "markeredgecolor": "black", "markeredgewidth": 0.6}
    for rows, marker, colour, label in (
        (table[~gone & ~beyond], "o", PALETTE[0], "kept"),
        (table[gone & ~beyond], "s", PALETTE[1], "removed"),
    ):
        if len(rows):
            errors = rows["standard_error"]
            ax.errorbar(rows["layer"], rows["score"], errors, marker=marker, color=colour, label=label, **look)
    for layer, score in table.loc[beyond, ["layer", "score"]].itertuples(index=False):
        ax.plot(layer, 0.96 * top, marker="^", color=PALETTE[1 if layer in removed else 0], markeredgecolor="black")
        ax.text(layer, 0.92 * top, f"{score:.2f}", rotation=90, ha="center", va="top", fontsize=9)
    ax.set(ylim=(0, top), xlabel="layer", ylabel="Block Influence", xticks=range(0, len(table), 5))
    if removed:
        ax.legend(loc="lower right")
    low = table.nsmallest(len(removed) or 3, "score").sort_values("layer")
    high = table.loc[table["score"].idxmax()]
    say(
        f"The lowest scores are those of layers {', '.join(map(str, low['layer']))} (at most {low['score'].max():.3f}); the "
        f"highest is layer {int(high['layer'])} with {high['score']:.2f}."
    )
    return ax


def plot_layers(depth: int, removed: Sequence[int] | Mapping[str, Sequence[int]], ax: Axes | None = None) -> Axes:
    """A row of boxes, one a layer; removed ones are hatched and crossed. Several rows for a mapping name → layers."""
    rows = removed if isinstance(removed, Mapping) else {"": removed}
    ax = ax or new_axes(9, 0.6 + 0.5 * len(rows))
    kept, out = {"facecolor": PALETTE[0]}, {"facecolor": "white", "hatch": "xxx"}
    for y, gone in enumerate(rows.values()):
        for layer in range(depth):
            look = out if layer in gone else kept
            ax.add_patch(plt.Rectangle((layer - 0.45, y - 0.4), 0.9, 0.8, edgecolor="black", **look))
    ax.set(xlim=(-1, depth), ylim=(len(rows) - 0.4, -0.6), xlabel="layer", xticks=range(0, depth, 5))
    ax.set_yticks(range(len(rows)), map(literal, rows))
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(left=False)
    said = [
        f"{name + ': ' if name else ''}removed layers {', '.join(map(str, sorted(gone))) or 'none'} of {depth}"
        for name, gone in rows.items()
    ]
    say(f"{'; '.join(said)}.")
    return ax


def plot_strip(depth: int, texts: Mapping[Sequence[int], str], ax: Axes | None = None) -> Axes:
    """Layers left out, and what the model then writes: a row of `depth` boxes for each entry, its text below.

    `texts`: layers (a tuple) → text. Boxes of layers that are left out are white, hatched and carry their number.
    """
    said = [f"without {', '.join(map(str, sorted(gone)))}" if gone else "all layers" for gone in texts]
    ax = ax or new_axes(9, 0.35 + 0.62 * len(texts))
    for y, (gone, text) in enumerate(texts.items()):
        for layer in range(depth):
            out = layer in gone
            look = {"facecolor": "white", "hatch": "xxx"} if out else {"facecolor": PALETTE[0]}
            ax.add_patch(plt.Rectangle((layer - 0.45, y - 0.4), 0.9, 0.34, edgecolor="black", linewidth=0.6, **look))
        ax.text(-0.9, y - 0.23, said[y], ha="right", va="center", fontsize=9)
        ax.text(-0.45, y + 0.22, literal("… " + " ".join(text.split())), va="center", fontsize=9)
    ax.set(xlim=(-1, depth), ylim=(len(texts) - 0.45, -0.6), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    say(f"rows of {depth} layers, those left out crossed, and below each row the text: {'; '.join(said)}.")
    return ax


def plot_one_vector(table: pd.DataFrame, dense: float, ax: Axes | None = None) -> Axes:
    """Perplexity when a layer is skipped for the first token only, and for all others only; `table` is of `one_vector`."""
    layers = list(dict.fromkeys(table["layer"]))
    ax = ax or new_axes(7, 3.4)
    for shift, (tokens, name) in enumerate({"first": "for the first token only", "others": "for all others"}.items()):
        rows = table[table["skipped_for"] == tokens].set_index("layer")["perplexity"].loc[layers]
        places = np.arange(len(layers)) + 0.2 * shift - 0.1
        marker: dict[str, Any] = {"marker": "os"[shift], "fillstyle": ("full", "none")[shift]}
        ax.plot(places, rows, linestyle="", markersize=9, color=PALETTE[shift], label=f"skipped {name}", **marker)
    ax.axhline(dense, color="black", linestyle="--", linewidth=1, label="all layers")
    ax.set(yscale="log", ylabel="perplexity (log scale)", xlim=(-0.5, len(layers) - 0.5))
    ax.set_xticks(range(len(layers)), [f"layer {layer}" for layer in layers])
    plain_log_ticks(ax)
    ax.legend()
    cells = table.set_index(["layer", "skipped_for"])["perplexity"]
    said = [f"layer {i}: {cells[i, 'first']:.1f} and {cells[i, 'others']:.1f}" for i in layers]
    say(
        f"perplexity {dense:.1f} with all layers; skipped for the first token only, and for all others: {'; '.join(said)}."
    )
    return ax
