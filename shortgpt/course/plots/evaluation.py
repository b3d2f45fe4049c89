"""Figures to decide by: our benchmark scores beside those that the paper printed, and the size–quality frontier.

As in `plots`, every function draws on a new figure (or the given ``ax``), prints one sentence computed from the data and
returns the Axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from shortgpt.course.plots.basic import MARKERS, PALETTE, _new_axes, _number, _say, literal, plain_log_ticks
from shortgpt.evaluation.benchmarks import BENCHMARKS
from shortgpt.evaluation.tables import AVERAGE, frontier
from shortgpt.utils.arguments import check_strings, shown
from shortgpt.utils.data import data_folder

TITLES = {"retention": "score, % of the dense model's", "above_chance": "score above chance, % of the dense model's"}


def plot_beside_paper(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    model: str | None = None,
    paper: Sequence[str] = ("Llama-2-7B", "Baichuan2-7B"),
    method: str = "ShortGPT",
    y: str = "retention",
) -> Axes:
    """What `model` kept, by task, beside what models of the paper's table 2 kept: filled marks are ours, open ones printed.

    They are **other models** with other prompts, so no two marks in a row measure the same thing. What compares is the
    pattern: which kinds of task survive, and which do not.

    Args:
        table: from `retention_table`.
        model: which of its models; default: the last.
        paper: models of table 2 (Llama-2-7B, Llama-2-13B, Baichuan2-7B, Baichuan2-13B).
        method: ShortGPT, or one of those the paper quotes (LLM-Pruner, SliceGPT, LaCo).
        y: ``"retention"``, or ``"above_chance"`` with chance taken off, where the dense model is well enough above it
            (for the paper's models, whose errors are not printed: by 5 points).
    """
    if y not in TITLES:
        raise ValueError(f"unknown y {shown(y)}: choose one of {', '.join(TITLES)}")
    names = list(dict.fromkeys(table["model"]))
    model = names[-1] if model is None else model
    if model not in names:
        raise ValueError(f"the table has no model {shown(model)}: choose out of {', '.join(names)}")
    ours = table[table["model"] == model].set_index("task")
    printed = {name: _printed(name, method, y) for name in check_strings("paper", paper)}
    tasks = [task for task in ours.index if task != AVERAGE]
    tasks += [task for task in BENCHMARKS if task not in tasks and printed]
    rows = [*tasks, AVERAGE]
    ax = ax or _new_axes(8.2, 1.6 + 0.34 * len(rows))
    at = pd.Series(np.arange(len(rows)), rows)
    ax.errorbar(
        ours[y], at[ours.index], xerr=ours[f"{y}_error"], fmt=MARKERS[0], color=PALETTE[0], markersize=8, capsize=3,
        label=f"{literal(model)} (ours, ± 1 standard error)", zorder=3,
    )  # fmt: skip
    for i, (name, values) in enumerate(printed.items(), 1):
        ax.plot(
            values, at[values.index], MARKERS[i % 8], color=PALETTE[i % 10], markersize=7, mfc="none", mew=1.6,
            label=f"{name}, {method} (the paper)",
        )  # fmt: skip
    ax.axvline(100, color="black", linestyle=":", linewidth=1)
    if y == "above_chance":
        ax.axvline(0, color="black", linestyle="--", linewidth=1)
    ax.axhline(len(rows) - 1.5, color="0.6", linewidth=0.8)
    ax.set_yticks(at, map(literal, rows))
    ax.set(xlabel=TITLES[y], ylim=(len(rows) - 0.5, -0.5))
    ax.grid(axis="y", color="0.9")
    ax.set_axisbelow(True)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12 if len(rows) > 10 else -0.22), ncols=1, frameon=False)
    _say(_sentence(model, ours, printed, y))
    return ax


def plot_frontier(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    x: str = "memory_mb",
    y: str = "perplexity",
    higher_is_better: bool = False,
    error: str | None = None,
    group: str = "method",
    note: str = "removed",
) -> Axes:
    """One point a model, a marker per `group`, its `note` beside it, and a line of steps along the `frontier`.

    Args:
        table: of `size_quality_grid` (the rows of one order).
        x, y, higher_is_better: as for `frontier`.
        error: a column with the standard errors of `y`, drawn as bars.
    """
    best = frontier(table, x, y, higher_is_better=higher_is_better)
    ax = ax or _new_axes(7.6, 4.8)
    draw_frontier(ax, table, best, x=x, y=y, error=error, group=group, note=note)
    where = [f"{row[group]} −{row[note]:.0f} ({row[x]:,.0f}: {_number(row[y])})" for _, row in best.iterrows()]
    _say(f"The frontier has {len(best)} of {len(table)} models ({x}: {y}): {', '.join(where).replace(' −0', '')}.")
    return ax


def draw_frontier(
    ax: Axes, table: pd.DataFrame, best: pd.DataFrame, *, x: str, y: str, error: str | None, group: str, note: str
) -> None:
    """Draw what `plot_frontier` draws, without its sentence; `best` are the rows of the frontier."""
    for i, (label, rows) in enumerate(table.dropna(subset=[x, y]).groupby(group, sort=False)):
        style = {"color": PALETTE[i % 10], "marker": MARKERS[i % 8], "linestyle": "none", "markeredgecolor": "black"}
        ax.errorbar(
            rows[x],
            rows[y],
            yerr=rows[error] if error else None,
            label=literal(label),
            capsize=3,
            markersize=8,
            **style,
        )
        for place, number in zip(rows[[x, y]].to_numpy(), rows[note], strict=True):
            words = f"−{number:.0f}" if number else "0"
            beside = {"xytext": (7, 2), "ha": "left"} if i % 2 == 0 else {"xytext": (-7, -8), "ha": "right"}
            ax.annotate(words, place, textcoords="offset points", fontsize=9, **beside)
    ax.step(best[x], best[y], where="post", color="black", linewidth=1.2, linestyle="--", label="frontier", zorder=0)
    titles = {"memory_mb": "weights in memory (MB)", "perplexity": "perplexity (log scale)"}
    ax.set(xlabel=literal(titles.get(x, x)), ylabel=literal(titles.get(y, y)))
    if y == "perplexity":
        ax.set_yscale("log")
        plain_log_ticks(ax)
    ax.legend()


def _printed(model: str, method: str, y: str) -> pd.Series:
    """What a model of table 2 kept of its dense scores, in percent, by benchmark and on average."""
    cells = pd.read_csv(data_folder() / "paper" / "table2_benchmarks.csv")
    for name, column in ((model, "model"), (method, "method")):
        if name not in set(cells[column]):
            raise ValueError(
                f"table 2 has no {column} {shown(name)}: choose out of {', '.join(cells[column].unique())}"
            )
    cells["benchmark"] = cells["benchmark"].str.lower()
    scores = (
        cells[cells["model"] == model].pivot(index="benchmark", columns="method", values="score").loc[list(BENCHMARKS)]
    )
    scores.loc[AVERAGE] = scores.mean()
    if y == "retention":
        return 100 * scores[method] / scores["Dense"]
    chance = pd.Series({name: each.chance for name, each in BENCHMARKS.items()})
    chance[AVERAGE] = chance.mean()
    above = scores["Dense"] - chance
    return (100 * (scores[method] - chance) / above).where(above > 5)


def _sentence(model: str, ours: pd.DataFrame, printed: dict[str, pd.Series], y: str) -> str:
    what = "of what the dense model has above chance" if y == "above_chance" else "of the dense model's score"
    by_task = ours[y].drop(AVERAGE).dropna()
    parts = [f"{model} keeps {_percent(ours.loc[AVERAGE, y])} % {what} on average of {len(ours) - 1} tasks"]
    if len(by_task):
        parts[0] += f", least on {by_task.idxmin()} ({_percent(by_task.min())} %)"
    for name, values in printed.items():
        lowest = values.drop(AVERAGE).dropna()
        parts.append(
            f"the paper's {name} {_percent(values[AVERAGE])} %, least on {lowest.idxmin()} ({_percent(lowest.min())} %)"
        )
    return "; ".join(parts) + ". These are other models with other prompts: compare the pattern, not the numbers."


def _percent(value: float) -> str:
    return "an unknown share" if np.isnan(value) else f"{value:.0f}"
