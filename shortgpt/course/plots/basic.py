"""The lessons' figures, for your own results too: seaborn and matplotlib, readable without colour.

Every function draws on a new figure (or the given ``ax``), prints one sentence that says what the figure shows, computed
from the data, and returns the Axes. The sentence is there for readers who can't see the picture; it isn't decoration.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from torch import Tensor

PALETTE = sns.color_palette("colorblind")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def plot_norms(states: Tensor, ax: Axes | None = None) -> Axes:
    """Mean length of the hidden states along depth; `states` is ``[layers + 1, batch, tokens, hidden]``.

    The first token of a text is left out: it carries an outsized state (an attention sink) that says little.
    """
    norms = states[:, :, 1:].float().norm(dim=-1).flatten(1).cpu()  # [layers + 1, tokens]
    mean = norms.mean(1).numpy()
    low, high = np.quantile(norms.numpy(), [0.1, 0.9], axis=1)
    ax = ax or _new_axes()
    ax.plot(mean, marker="o", markersize=4, color=PALETTE[0], label="mean")
    ax.fill_between(range(len(mean)), low, high, alpha=0.25, color=PALETTE[0], label="middle 80 % of tokens")
    ax.set(yscale="log", xlabel="layers passed", ylabel="length of the hidden state (log scale)")
    plain_log_ticks(ax)
    ax.legend()
    _say(
        f"The hidden states grow from a mean length of {mean[0]:.1f} (embedding) to {mean[-2]:.0f} before the last layer "
        f"and {mean[-1]:.0f} after it."
    )
    return ax


def plot_similarity(spans: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Heat map of the cosine between the hidden states at any two depths; `spans` is from `span_distances`."""
    depth = int(spans["end"].max()) + 1
    matrix = np.eye(depth)
    matrix[spans["start"], spans["end"]] = matrix[spans["end"], spans["start"]] = 1 - spans["score"]
    ax = ax or _new_axes(6.4, 5.4)
    sns.heatmap(matrix, ax=ax, cmap="viridis", vmin=0, vmax=1, square=True, cbar_kws={"label": "mean cosine"})
    ticks = range(0, depth, 5)
    ax.set(xlabel="layers passed", ylabel="layers passed")
    ax.set_xticks([t + 0.5 for t in ticks], ticks)
    ax.set_yticks([t + 0.5 for t in ticks], ticks)
    neighbours = np.diag(matrix, 1)
    _say(
        f"Neighbouring states have a median cosine of {np.median(neighbours):.3f}; the state before the first layer and the "
        f"state after the last have {matrix[0, -1]:.2f}."
    )
    return ax


def plot_scores(table: pd.DataFrame, removed: Collection[int] = (), ax: Axes | None = None) -> Axes:
    """Bars of each layer's score with standard errors, on a log scale; the layers in `removed` are hatched."""
    removed = {int(layer) for layer in removed}
    ax = ax or _new_axes(9, 3.6)
    chosen = table["layer"].isin(removed)
    for rows, colour, hatch, label in (
        (table[~chosen], PALETTE[0], "", "kept"),
        (table[chosen], PALETTE[1], "///", "removed"),
    ):
        if len(rows):
            ax.bar(
                rows["layer"], rows["score"], yerr=rows["standard_error"], color=colour, hatch=hatch, label=label,
                edgecolor="black", linewidth=0.6, capsize=2,
            )  # fmt: skip
    ax.set(yscale="log", xlabel="layer", ylabel="Block Influence (log scale)", xticks=range(0, len(table), 5))
    plain_log_ticks(ax)
    if removed:
        ax.legend()
    low = table.nsmallest(len(removed) or 3, "score").sort_values("layer")
    names = ", ".join(map(str, low["layer"]))
    high = table.loc[table["score"].idxmax()]
    _say(
        f"The lowest scores are those of layers {names} (at most {low['score'].max():.3f}); the highest is layer "
        f"{int(high['layer'])} with {high['score']:.2f}."
    )
    return ax


def plot_sweep(
    sweep: pd.DataFrame,
    *,
    x: str = "removed",
    y: str = "value",
    hue: str | None = None,
    xlabel: str = "layers removed",
    ylabel: str = "perplexity (log scale)",
    log: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """A quantity against the number of layers removed, a line per value of `hue`, each with its own marker."""
    ax = ax or _new_axes()
    groups = list(sweep.groupby(hue, sort=False)) if hue else [("", sweep)]
    for i, (label, rows) in enumerate(groups):
        ax.plot(
            rows[x],
            rows[y],
            marker=MARKERS[i % 8],
            linestyle=("-", "--", "-.", ":")[i % 4],
            color=PALETTE[i % 10],
            label=literal(label),
        )
    ax.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if log else "linear")
    if log:
        plain_log_ticks(ax)
    if hue:
        ax.legend()
    quantity = ylabel.split(" (")[0]
    first, last = sweep[x].min(), sweep[x].max()
    ends = [
        f"{str(label) + ' ' if hue else ''}{_number(rows[y].iloc[0])} to {_number(rows[y].iloc[-1])}"
        + ("" if rows[x].iloc[-1] == last else f" (at {rows[x].iloc[-1]:g})")
        for label, rows in groups
    ]
    _say(f"{quantity} from {first:g} to {last:g} {xlabel}: {', '.join(ends)}.")
    return ax


def plot_size_quality(
    table: pd.DataFrame,
    *,
    x: str = "memory_mb",
    y: str = "perplexity",
    group: str = "bits",
    note: str = "removed",
    ax: Axes | None = None,
) -> Axes:
    """The size–quality plane: one point a model, one marker and line per `group`, annotated with `note`."""
    ax = ax or _new_axes(7.2, 4.6)
    for i, (label, rows) in enumerate(table.groupby(group, sort=False)):
        rows = rows.sort_values(x)
        ax.plot(
            rows[x],
            rows[y],
            marker=MARKERS[i % 8],
            linestyle=("-", "--", "-.", ":")[i % 4],
            color=PALETTE[i % 10],
            label=f"{label} bits" if group == "bits" else literal(label),
        )
        for _, row in rows.iterrows():
            ax.annotate(
                f"−{row[note]:.0f}" if row[note] else "dense",
                (row[x], row[y]),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=9,
            )
    ax.set(xlabel="weights in memory (MB)", ylabel="perplexity (log scale)", yscale="log")
    plain_log_ticks(ax)
    ax.legend()
    best = table.loc[table[y].idxmin()]
    smallest = table.loc[table[x].idxmin()]
    _say(
        f"The best perplexity is {best[y]:.1f} at {best[x]:.0f} MB; the smallest model has {smallest[x]:.0f} MB and "
        f"perplexity {smallest[y]:.1f}."
    )
    return ax


def plot_retention(
    retention: pd.DataFrame, ax: Axes | None = None, *, xlabel: str = "percent of the dense model's score"
) -> Axes:
    """Grouped horizontal bars: a row of `retention` per task, a column per model, in percent of the dense model.

    Panels side by side can share their axes: ``plt.subplots(1, 2, sharex=True, sharey=True)``, one `ax` each.
    """
    ax = ax or _new_axes(7.2, 0.5 + 0.32 * retention.size)
    height = 0.8 / retention.shape[1]
    for i, model in enumerate(retention.columns):
        places = np.arange(len(retention)) + (i - (retention.shape[1] - 1) / 2) * height
        ax.barh(
            places,
            retention[model],
            height=height,
            label=literal(model),
            color=PALETTE[i % 10],
            hatch=("", "///", "...", "xx")[i % 4],
            edgecolor="black",
            linewidth=0.6,
        )
    ax.axvline(100, color="black", linewidth=1)
    ax.set_yticks(range(len(retention)), map(literal, retention.index))
    ax.set(xlabel=xlabel, ylim=(len(retention) - 0.5, -0.5))  # the first row on top
    ax.legend(loc="lower right")
    last = retention.iloc[:, -1]
    _say(
        f"With {retention.columns[-1]}, {last.idxmin()} keeps the least ({last.min():.0f} %) and {last.idxmax()} the most "
        f"({last.max():.0f} %)."
    )
    return ax


def plot_layers(depth: int, removed: Sequence[int] | Mapping[str, Sequence[int]], ax: Axes | None = None) -> Axes:
    """A row of boxes, one a layer; removed ones are hatched and crossed. Several rows for a mapping name → layers."""
    rows = removed if isinstance(removed, Mapping) else {"": removed}
    ax = ax or _new_axes(9, 0.6 + 0.5 * len(rows))
    for y, gone in enumerate(rows.values()):
        for layer in range(depth):
            out = layer in gone
            ax.add_patch(
                plt.Rectangle(
                    (layer - 0.45, y - 0.4),
                    0.9,
                    0.8,
                    facecolor="white" if out else PALETTE[0],
                    hatch="xxx" if out else "",
                    edgecolor="black",
                )
            )
    ax.set(xlim=(-1, depth), ylim=(len(rows) - 0.4, -0.6), xlabel="layer", xticks=range(0, depth, 5))
    ax.set_yticks(range(len(rows)), map(literal, rows))
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.tick_params(left=False)
    _say(
        "; ".join(
            f"{name + ': ' if name else ''}removed layers {', '.join(map(str, sorted(gone))) or 'none'} of {depth}"
            for name, gone in rows.items()
        )
        + "."
    )
    return ax


def plain_log_ticks(ax: Axes, axis: str = "y") -> None:
    """Label a log axis of up to four decades with plain numbers (0.02, 0.05, 0.1 …). Call it when all is drawn."""
    axis = ax.xaxis if axis == "x" else ax.yaxis
    low, high = sorted(axis.get_view_interval())
    decades = np.log10(high / low)
    if decades > 4:
        return  # powers of ten are plainer there
    steps = (1, 2, 3, 5, 7) if decades < 1 else (1, 2, 5) if decades < 2.2 else (1,)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def literal(name: object) -> str:
    """`name` as a label that matplotlib writes as it is: between two $ it would read a formula, or stop."""
    return str(name).replace("$", r"\$")


def _number(value: float) -> str:
    return f"{value:,.1f}" if abs(value) < 1000 else f"{value:,.0f}"


def _new_axes(width: float = 7, height: float = 4) -> Axes:
    _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _say(sentence: str) -> None:
    print(sentence[:1].upper() + sentence[1:])
