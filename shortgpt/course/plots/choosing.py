"""Figures that compare choices of layers: does another text choose the same ones, how much text, by which criterion?"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from shortgpt.course.plots.style import PALETTE, literal, look, new_axes, number, plain_log_ticks, say
from shortgpt.utils.arguments import shown

STYLES = ("-", "--", "-.")  # three, with eight markers: 24 lines differ; dotted is the dense model


def plot_agreement(table: pd.DataFrame, ax: Axes | None = None, *, y: str = "overlap") -> Axes:
    """Heat map of `y` for every pair of texts, with its numbers in the cells; `table` is from `plan_agreement`."""
    names = list(dict.fromkeys([*table["first"], *table["second"]]))
    matrix = pd.DataFrame(np.eye(len(names)), names, names)
    for first, second, value in zip(table["first"], table["second"], table[y], strict=True):
        matrix.loc[first, second] = matrix.loc[second, first] = value
    quantity = y.replace("_", " ")
    ax = ax or new_axes(2.4 + 0.75 * len(names), 1.6 + 0.6 * len(names))
    sns.heatmap(
        matrix.rename(literal, axis=0).rename(literal, axis=1), ax=ax, annot=True, fmt=".2f", cmap="Blues",
        vmin=min(0, table[y].min()), vmax=1, linewidths=0.5, cbar_kws={"label": quantity},
    )  # fmt: skip
    ax.tick_params(length=0)
    ax.set_xticks(ax.get_xticks(), map(literal, names), rotation=40, ha="right")
    worst, best = (table.loc[at] for at in (table[y].idxmin(), table[y].idxmax()))
    chance = f" (two random choices: {table['chance'].iloc[0]:.2f})" if y == "overlap" else ""
    say(
        f"{quantity} is lowest between {worst['first']} and {worst['second']} ({worst[y]:.2f}) and highest between "
        f"{best['first']} and {best['second']} ({best[y]:.2f}), with a mean of {table[y].mean():.2f}{chance}."
    )
    return ax


def plot_tokens_needed(table: pd.DataFrame, ax: Axes | None = None, *, enough: float = 0.9) -> Axes:
    """Agreement of two texts against their size, with the middle 80 % of draws; `table` is from `tokens_needed`."""
    ax = ax or new_axes()
    ax.plot(table["tokens"], table["overlap"], marker="o", color=PALETTE[0], label="overlap, mean of the draws")
    ax.fill_between(table["tokens"], table["low"], table["high"], alpha=0.25, color=PALETTE[0], label="80 % of draws")
    boot = table[table["draws"] == "bootstrap"]
    ax.plot(boot["tokens"], boot["overlap"], "o", markersize=11, mfc="none", color="black", label="all, bootstrap")
    ax.axhline(table["chance"].iloc[0], color="black", linestyle=":", label="two random choices")
    ax.axhline(enough, color="black", linestyle="--", linewidth=1, label=f"{enough:g}")
    ax.set(xscale="log", xlabel="tokens in each text (log scale)", ylabel="share of layers that both choose")
    ax.set_ylim(0, 1.02)
    plain_log_ticks(ax, "x")
    ax.legend(loc="lower right")
    reached = table["overlap"] >= enough
    stays = reached[::-1].cummin()[::-1]  # from here on it does not fall below again
    last = table.iloc[-1]
    say(
        f"Two texts of {table['tokens'].iloc[0]:,} tokens share {100 * table['overlap'].iloc[0]:.0f} % of the chosen layers, "
        f"two of {last['tokens']:,} share {100 * last['overlap']:.0f} %; "
        + (
            f"{100 * enough:g} % takes {table['tokens'][stays].iloc[0]:,} tokens."
            if stays.any()
            else f"{100 * enough:g} % is not reached."
        )
    )
    return ax


def plot_criteria(
    table: pd.DataFrame,
    y: str = "perplexity",
    *,
    highlight: Collection[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """`y` (log scale) against the number of layers removed, a line per ``criterion``, each named at its end.

    Many lines would be a tangle: the ones in `highlight` (None: the best and the worst at the largest number that all
    criteria have) are thick and coloured, the others thin and grey; all have a marker and a name.

    Args:
        table: ``criterion, removed``, `y`, and perhaps ``low, high`` for a band. Several rows of one criterion and number
            (seeds) become their median and a band from the least to the most. Rows with no layer removed are the dense
            model: a horizontal line.
    """
    lines = {name: line_of(rows, y) for name, rows in table.groupby("criterion", sort=False)}
    counts = set.intersection(*(set(line.index) for line in lines.values()))
    if not counts:
        raise ValueError(
            "the criteria have no number of removed layers in common: give each a value at the same number"
        )
    at_common = pd.Series({name: line["mid"][max(counts)] for name, line in lines.items()})
    best, worst = at_common.idxmin(), at_common.idxmax()
    highlight = list(dict.fromkeys([best, worst] if highlight is None else highlight))
    unknown = [name for name in highlight if name not in lines]
    if unknown:
        raise ValueError(f"there is no criterion {shown(unknown[0])} to highlight: choose out of {', '.join(lines)}")
    ax = ax or new_axes(8.4, 4.8)
    ax.set(xlabel="layers removed", ylabel=f"{y} (log scale)", yscale="log")
    draw_lines(ax, lines, highlight)
    dense = table[table["removed"] == 0][y].median()
    if not np.isnan(dense):
        ax.axhline(dense, color="black", linestyle=":", linewidth=1)
        at_right: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right"}
        ax.annotate("dense", (1, dense), xytext=(-3, 3), fontsize=9, **at_right)
    plain_log_ticks(ax)
    _name_line_ends(ax, lines, highlight)
    say(
        f"With {max(counts):g} layers removed, {best} has the lowest {y} ({number(at_common[best])}) and {worst} the highest "
        f"({number(at_common[worst])}) of {len(lines)} criteria"
        + ("." if np.isnan(dense) else f"; the dense model has {number(dense)}.")
    )
    return ax


def line_of(rows: pd.DataFrame, y: str) -> pd.DataFrame:
    """``mid, low, high`` of one criterion, indexed by the number removed, ascending."""
    groups = rows.groupby("removed")
    low, high = ("low", "high") if {"low", "high"} <= {*rows} else (y, y)
    return pd.DataFrame({"mid": groups[y].median(), "low": groups[low].min(), "high": groups[high].max()})


def draw_lines(ax: Axes, lines: dict[str, pd.DataFrame], highlight: list[str]) -> None:
    for i, (name, line) in enumerate(lines.items()):
        colour, width, size = (PALETTE[highlight.index(name) % 10], 2.4, 7) if name in highlight else ("0.6", 1, 5)
        style = look(i) | {"color": colour, "linestyle": STYLES[i % 3], "linewidth": width, "markersize": size}
        ax.plot(line.index, line["mid"], label=literal(name), zorder=1 + width, **style)
        if (line["high"] > line["low"]).any():
            ax.fill_between(line.index, line["low"], line["high"], color=colour, alpha=0.25, linewidth=0)


def _name_line_ends(ax: Axes, lines: dict[str, pd.DataFrame], highlight: Collection[str], gap: float = 0.058) -> None:
    """Write each line's name right of the axes, pushed apart where they'd overlap, with a thin line to the line's end."""
    to_axes = ax.transData + ax.transAxes.inverted()
    ends = {name: (line.index[-1], line["mid"].iloc[-1]) for name, line in lines.items()}
    heights = {name: to_axes.transform(end)[1] for name, end in ends.items()}
    order = sorted(heights, key=heights.__getitem__)
    places = np.array([heights[name] for name in order])
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    places -= max(0, places[-1] - max(1, gap * (len(places) - 1)))  # what was pushed out at the top comes down again
    for i in range(len(places) - 2, -1, -1):
        places[i] = min(places[i], places[i + 1] - gap)
    for name, place in zip(order, places, strict=True):
        ax.annotate(
            literal(name), ends[name], xytext=(1.04, place), textcoords="axes fraction", va="center", fontsize=9,
            weight="bold" if name in highlight else "normal", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "0.75", "linewidth": 0.7},
        )  # fmt: skip
