"""Figures of benchmark scores: what pruned models kept of the dense one's, and that beside what the paper printed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from shortgpt.course.plots.style import HATCHES, MARKERS, PALETTE, literal, new_axes, say
from shortgpt.evaluation.benchmarks import BENCHMARKS
from shortgpt.evaluation.tables import AVERAGE
from shortgpt.utils.arguments import check_choice, check_strings, shown
from shortgpt.utils.data import data_folder

TITLES = {"retention": "score, % of the dense model's", "above_chance": "score above chance, % of the dense model's"}


def plot_retention(
    retention: pd.DataFrame, ax: Axes | None = None, *, xlabel: str = "percent of the dense model's score"
) -> Axes:
    """Grouped horizontal bars: a row of `retention` per task, a column per model, in percent of the dense model.

    Panels side by side can share their axes: ``plt.subplots(1, 2, sharex=True, sharey=True)``, one `ax` each.
    """
    rows, models = retention.shape
    ax = ax or new_axes(7.2, 0.5 + 0.32 * retention.size)
    height = 0.8 / models
    for i, model in enumerate(retention.columns):
        places = np.arange(rows) + (i - (models - 1) / 2) * height
        look = {"color": PALETTE[i % 10], "hatch": HATCHES[i % 4], "edgecolor": "black", "linewidth": 0.6}
        ax.barh(places, retention[model], height=height, label=literal(model), **look)
    ax.axvline(100, color="black", linewidth=1)
    ax.set_yticks(range(rows), map(literal, retention.index))
    ax.set(xlabel=xlabel, ylim=(rows - 0.5, -0.5))  # the first row on top
    ax.legend(loc="lower right")
    last = retention.iloc[:, -1]
    say(
        f"With {retention.columns[-1]}, {last.idxmin()} keeps the least ({last.min():.0f} %) and {last.idxmax()} the most "
        f"({last.max():.0f} %)."
    )
    return ax


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
    check_choice("y", y, TITLES)
    names = list(dict.fromkeys(table["model"]))
    model = names[-1] if model is None else model
    if model not in names:
        raise ValueError(f"the table has no model {shown(model)}: choose out of {', '.join(names)}")
    ours = table[table["model"] == model].set_index("task")
    printed = {name: _printed(name, method, y) for name in check_strings("paper", paper)}
    tasks = [*ours.index.drop(AVERAGE), *(BENCHMARKS if printed else ())]
    rows = [*dict.fromkeys(tasks), AVERAGE]
    ax = ax or new_axes(8.2, 1.6 + 0.34 * len(rows))
    at = pd.Series(range(len(rows)), rows)
    style = {"color": PALETTE[0], "label": f"{literal(model)} (ours, ± 1 standard error)", "zorder": 3}
    ax.errorbar(ours[y], at[ours.index], xerr=ours[f"{y}_error"], fmt=MARKERS[0], markersize=8, capsize=3, **style)
    for i, (name, values) in enumerate(printed.items(), 1):
        style = {"color": PALETTE[i % 10], "markersize": 7, "mfc": "none", "mew": 1.6}
        ax.plot(values, at[values.index], MARKERS[i % 8], label=f"{name}, {method} (the paper)", **style)
    ax.axvline(100, color="black", linestyle=":", linewidth=1)
    if y == "above_chance":
        ax.axvline(0, color="black", linestyle="--", linewidth=1)
    ax.axhline(len(rows) - 1.5, color="0.6", linewidth=0.8)
    ax.set_yticks(at, map(literal, rows))
    ax.set(xlabel=TITLES[y], ylim=(len(rows) - 0.5, -0.5))
    ax.grid(axis="y", color="0.9")
    ax.set_axisbelow(True)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12 if len(rows) > 10 else -0.22), frameon=False)
    say(_sentence(model, ours[y], printed, y))
    return ax


def _printed(model: str, method: str, y: str) -> pd.Series:
    """What a model of table 2 kept of its dense scores, in percent, by benchmark and on average."""
    cells = pd.read_csv(data_folder() / "paper" / "table2_benchmarks.csv")
    for name, column in ((model, "model"), (method, "method")):
        if name not in set(cells[column]):
            raise ValueError(
                f"table 2 has no {column} {shown(name)}: choose out of {', '.join(cells[column].unique())}"
            )
    cells = cells[cells["model"] == model].assign(benchmark=cells["benchmark"].str.lower())
    scores = cells.pivot(index="benchmark", columns="method", values="score").loc[list(BENCHMARKS)]
    chance = pd.Series({name: each.chance for name, each in BENCHMARKS.items()})
    scores.loc[AVERAGE], chance[AVERAGE] = scores.mean(), chance.mean()
    if y == "retention":
        return 100 * scores[method] / scores["Dense"]
    above = scores["Dense"] - chance
    return (100 * (scores[method] - chance) / above).where(above > 5)


def _sentence(model: str, ours: pd.Series, printed: dict[str, pd.Series], y: str) -> str:
    what = "of what the dense model has above chance" if y == "above_chance" else "of the dense model's score"
    parts = [f"{model} keeps {_kept(ours, f' {what} on average of {len(ours) - 1} tasks')}"]
    parts += [f"the paper's {name} {_kept(values)}" for name, values in printed.items()]
    return "; ".join(parts) + ". These are other models with other prompts: compare the pattern, not the numbers."


def _kept(values: pd.Series, of: str = "") -> str:
    """For instance ``"86 %, least on xsum (3 %)"``."""
    average, by_task = values[AVERAGE], values.drop(AVERAGE).dropna()
    share = "an unknown share" if np.isnan(average) else f"{average:.0f} %"
    return share + of + (f", least on {by_task.idxmin()} ({by_task.min():.0f} %)" if len(by_task) else "")
