"""Figures of what pruning costs: by the number of layers removed, by the size that is left, and token by token of a text."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from shortgpt.course.plots.style import PALETTE, literal, look, new_axes, number, plain_log_ticks, say
from shortgpt.course.studies.accumulation import divergence_by_pair
from shortgpt.evaluation.tables import frontier

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


def plot_divergence_along(table: pd.DataFrame, *, stretch: int = 12, least: int = 12) -> list[Axes]:
    """How far the pruned model is from the dense one along both texts; `table` is from `divergence_along`.

    Two panels with one scale: tokens that make a new pair with the one before them, and those that repeat a pair of the
    same text (`divergence_by_pair`). Points are means over tokens in stretches of `stretch`, bars are standard errors over
    texts, and the number of tokens stands at each point. A point of fewer than `least` tokens is left out.
    """
    points = divergence_by_pair(table, stretch=stretch)
    points = points[points["tokens"] >= least]
    _, axes = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True, layout="constrained")
    for ax, pair in zip(axes, ("new", "repeated"), strict=True):
        said = []
        for writer, (name, style) in TEXTS.items():
            some = points[(points["pair"] == pair) & (points["written_by"] == writer)]
            ax.errorbar(some["middle"], some["divergence"], some["error"], capsize=3, markersize=7, label=name, **style)
            below: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8}
            for row in some.itertuples():
                ax.annotate(f"{row.tokens}", (row.middle, row.divergence), xytext=(6, 5), **below)
            told = ", ".join(
                f"{value:.2f} ± {error:.2f}" for value, error in zip(some["divergence"], some["error"], strict=True)
            )
            said.append(f"{name} {told}")
        ax.set(xlabel=f"tokens written (stretches of {stretch})", title=f"{pair} pairs of tokens")
        say(f"Divergence at {pair} pairs, stretch by stretch: {'; '.join(said)}.")
    axes[0].set(ylabel="divergence from the dense model (nats)")
    axes[0].set_ylim(bottom=0)
    axes[0].legend()
    return list(axes)
