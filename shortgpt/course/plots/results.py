"""Figures of what pruning costs: by the number of layers removed, by the size that is left, and token by token of a text."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from shortgpt.course.plots.style import PALETTE, literal, look, new_axes, number, plain_log_ticks, say
from shortgpt.evaluation.tables import frontier
from shortgpt.utils.arguments import check_count, shown

TITLES = {"memory_mb": "weights in memory (MB)", "perplexity": "perplexity (log scale)"}
# who wrote the text -> its name, and its look; hollow markers for the second
TEXTS = {
    "dense": ("on the dense model's text", {**look(0), "markerfacecolor": PALETTE[0]}),
    "pruned": ("on its own text", {**look(1), "markerfacecolor": "white"}),
}


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
    ax = ax or new_axes()
    groups = list(sweep.groupby(hue, sort=False)) if hue else [("", sweep)]
    ends, last = [], sweep[x].max()
    for i, (label, rows) in enumerate(groups):
        ax.plot(rows[x], rows[y], label=literal(label), **look(i))
        ends.append(f"{label} {number(rows[y].iloc[0])} to {number(rows[y].iloc[-1])}".lstrip())
        if rows[x].iloc[-1] != last:
            ends[-1] += f" (at {rows[x].iloc[-1]:g})"
    ax.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if log else "linear")
    if log:
        plain_log_ticks(ax)
    if hue:
        ax.legend()
    say(f"{ylabel.split(' (')[0]} from {sweep[x].min():g} to {last:g} {xlabel}: {', '.join(ends)}.")
    return ax


def plot_frontier(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    x: str = "memory_mb",
    y: str = "perplexity",
    higher_is_better: bool = False,
    group: str = "method",
) -> Axes:
    """One point a model, a marker per `group`, its removed layers beside it, and a line of steps along the `frontier`.

    Args:
        table: of `size_quality_grid` (the rows of one order).
        x, y, higher_is_better: as for `frontier`.
    """
    best = frontier(table, x, y, higher_is_better=higher_is_better)
    ax = ax or new_axes(7.6, 4.8)
    draw_frontier(ax, table, best, x=x, y=y, group=group)
    where = [f"{row[group]} −{row['removed']:.0f} ({row[x]:,.0f}: {number(row[y])})" for _, row in best.iterrows()]
    say(f"The frontier has {len(best)} of {len(table)} models ({x}: {y}): {', '.join(where).replace(' −0', '')}.")
    return ax


def draw_frontier(
    ax: Axes, table: pd.DataFrame, best: pd.DataFrame, *, x: str = "memory_mb", y: str, group: str = "method"
) -> None:
    """Draw what `plot_frontier` draws, without its sentence; `best` are the rows of the frontier."""
    for i, (label, rows) in enumerate(table.dropna(subset=[x, y]).groupby(group, sort=False)):
        points = look(i) | {"linestyle": "none", "markersize": 8, "markeredgecolor": "black"}
        ax.plot(rows[x], rows[y], label=literal(label), **points)
        offset, side = ((7, 2), "left") if i % 2 == 0 else ((-7, -8), "right")
        beside: dict[str, Any] = {"xytext": offset, "textcoords": "offset points", "ha": side, "fontsize": 9}
        for place, removed in zip(rows[[x, y]].to_numpy(), rows["removed"], strict=True):
            ax.annotate(f"−{removed:.0f}" if removed else "0", place, **beside)
    ax.step(best[x], best[y], where="post", color="black", linewidth=1.2, linestyle="--", label="frontier", zorder=0)
    ax.set(xlabel=literal(TITLES.get(x, x)), ylabel=literal(TITLES.get(y, y)))
    if y == "perplexity":
        ax.set_yscale("log")
        plain_log_ticks(ax)
    ax.legend()


def plot_divergence_along(table: pd.DataFrame, ax: Axes | None = None, *, stretch: int = 8) -> Axes:
    """How far the pruned model is from the dense one along both texts; `table` is from `divergence_along`.

    Positions are taken together in stretches of `stretch` tokens, since single tokens differ by far more than stretches
    do. Points are means over prompts, bars are standard errors over prompts; a stretch that fewer than all texts reach is
    drawn with a smaller marker.
    """
    if not isinstance(table, pd.DataFrame) or not {"written_by", "position", "divergence"} <= {*table}:
        raise TypeError(f"table must be from divergence_along(), got {shown(table)}")
    check_count("stretch", stretch)
    ax = ax or new_axes()
    said = []
    for writer, (name, style) in TEXTS.items():
        points = stretches(table[table["written_by"] == writer], stretch)
        ax.errorbar(points.index, points["mean"], points["error"], capsize=3, markersize=4, label=name, **style)
        whole = points[points["texts"] == points["texts"].max()]
        ax.plot(whole.index, whole["mean"], markersize=7, zorder=3, **(style | {"linestyle": "none"}))
        said.append(f"{name} it goes from {points['mean'].iloc[0]:.2f} to {points['mean'].iloc[-1]:.2f}")
    ax.set(xlabel="tokens written", ylabel="divergence from the dense model (nats)")
    ax.set_ylim(bottom=0)
    ax.legend()
    say(f"Divergence from the dense model, from the first to the last {stretch} tokens: {', '.join(said)}.")
    return ax


def stretches(rows: pd.DataFrame, stretch: int) -> pd.DataFrame:
    """By the middle of each stretch: ``mean`` divergence, its standard ``error``, and how many ``texts`` reach it."""
    texts = (rows["position"] == 1).cumsum()  # a prompt may be there twice: a text begins where position is 1
    each = rows.groupby([(rows["position"] - 1) // stretch, texts])["divergence"].mean()  # a text's mean in a stretch
    found = each.groupby(level=0).agg(mean="mean", error="sem", texts="size").fillna({"error": 0})
    ends = rows["position"].groupby((rows["position"] - 1) // stretch)
    return found.set_axis((ends.min() + ends.max()) / 2)
