"""Bits or layers: move a size budget along the size–quality frontier, and see the best model that fits."""

from __future__ import annotations

import math
from html import escape

import ipywidgets as widgets
import pandas as pd
from matplotlib.figure import Figure

from shortgpt.course.explorers.parts import announced, button, image
from shortgpt.course.plots.results import draw_frontier
from shortgpt.course.plots.style import literal, plain_log_ticks
from shortgpt.evaluation.grid import NOT_TASKS
from shortgpt.evaluation.tables import best_within, frontier, frontier_steps
from shortgpt.utils.arguments import shown

BESIDE = {*NOT_TASKS, "perplexity", "memory_mb"}  # columns of a grid that are no accuracy


def explore_frontier(grid: pd.DataFrame) -> widgets.Widget:
    """Set a budget in MB: the best model within it, where it lies, and what the step to the next one costs.

    Without a widget: ``best_within(grid, 200)``, ``frontier_steps(grid)``, and `plot_frontier` for the figure.

    Args:
        grid: of `size_quality_grid` or `read_grid`: ``method, removed, memory_mb, perplexity``, and accuracies.

    Raises:
        TypeError, ValueError: no such table, or a table with no row.
    """
    steps = frontier_steps(grid)
    for column in ("method", "removed"):
        if column not in grid:
            raise ValueError(f"the table has no column {shown(column)}: give one of size_quality_grid()")
    tasks = [name for name in grid if name not in BESIDE and pd.api.types.is_numeric_dtype(grid[name])]
    sizes = {"min": math.ceil(grid["memory_mb"].min()), "max": math.ceil(grid["memory_mb"].max())}
    look = {"continuous_update": False, "layout": widgets.Layout(width="95%"), "description": "budget, MB"}
    budget = widgets.IntSlider(value=math.ceil(steps["memory_mb"].median()), **sizes, **look)
    quality = widgets.Dropdown(options=["perplexity", *tasks], description="judge by")
    told, picture = widgets.HTML(), widgets.HTML()

    def show(change: object = None) -> None:
        told.value = announced(budget_html(grid, budget.value, quality.value, tasks))
        picture.value = image(*draw_budget(grid, budget.value, quality.value))

    def step(by: int) -> None:
        sizes = _steps(grid, quality.value)["memory_mb"]
        at = max(int((sizes <= budget.value).sum()) - 1, 0)
        budget.value = math.ceil(sizes.iloc[min(max(at + by, 0), len(sizes) - 1)])

    for control in (budget, quality):
        control.observe(show, "value")
    show()
    smaller = button("Next smaller model", "one step down the frontier", lambda: step(-1))
    larger = button("Next larger model", "one step up the frontier", lambda: step(1))
    return widgets.VBox([budget, widgets.HBox([smaller, larger, quality]), told, picture])


def _steps(grid: pd.DataFrame, y: str) -> pd.DataFrame:
    return frontier_steps(grid, y=y, higher_is_better=y != "perplexity").reset_index(drop=True)


def budget_html(grid: pd.DataFrame, budget: float, y: str, tasks: list[str]) -> str:
    """The best model within `budget` (MB) by the quality `y`, and the steps to its neighbours on the frontier, in words."""
    try:
        best = best_within(grid, budget, y=y, higher_is_better=y != "perplexity")
    except ValueError as error:
        return escape(str(error))
    steps = _steps(grid, y)
    at = int((steps["memory_mb"] <= budget).sum()) - 1
    qualities = ", ".join(f"{_words(name)} {_value(name, best)}" for name in ("perplexity", *tasks))
    larger, smaller = "No larger model is better.", "It is the smallest model there is."
    if at + 1 < len(steps):
        after = steps.loc[at + 1]
        larger = f"The next larger, {_model(after)}, takes {best['more']:,.1f} MB more and brings {_words(y)} from "
        larger += f"{_value(y, best)} to {_value(y, after)}."
    if at:
        before = steps.loc[at - 1]
        smaller = f"The next smaller, {_model(before)}, saves {before['more']:,.1f} MB and takes {_words(y)} to "
        smaller += f"{_value(y, before)}."
    told = f"Within {budget:,.0f} MB: <b>{escape(_model(best))}</b>, {best['memory_mb']:,.0f} MB; {escape(qualities)}."
    return f"{told}<br>{escape(larger)}<br>{escape(smaller)}"


def draw_budget(grid: pd.DataFrame, budget: float, y: str = "perplexity") -> tuple[Figure, str]:
    """The frontier with the budget as a line and the best model within it circled, and a sentence that says it."""
    higher = y != "perplexity"
    figure = Figure(figsize=(7.4, 4.2), layout="constrained")
    ax = figure.subplots()
    rows = frontier(grid, y=y, higher_is_better=higher)
    draw_frontier(ax, grid, rows, y=y)
    if higher:
        ax.set_ylabel(f"{literal(_words(y))} (percent right)")
    ax.spines[["top", "right"]].set_visible(False)
    # most models with few bits are crowded at the left
    ax.set(xscale="log", xlabel="weights in memory (MB, log scale)")
    plain_log_ticks(ax, "x")
    ax.axvline(budget, color="black", linewidth=1, linestyle=":")
    ax.annotate(f" {budget:,.0f} MB", (budget, 1), xycoords=("data", "axes fraction"), va="top", fontsize=9)
    within = rows[rows["memory_mb"] <= budget]
    if within.empty:
        return figure, f"{len(grid)} models, none of at most {budget:,.0f} MB."
    best = within.iloc[-1]
    ax.plot(best["memory_mb"], best[y], "o", markersize=18, fillstyle="none", color="black", markeredgewidth=1.5)
    return figure, (
        f"{len(grid)} models, {len(rows)} of them on the frontier; the best of at most {budget:,.0f} MB is {_model(best)}: "
        f"{best['memory_mb']:,.0f} MB, {_words(y)} {_value(y, best)}."
    )


def _model(row: pd.Series) -> str:
    layers = f"{row['removed']:.0f} layers removed" if row["removed"] else "all layers"
    return f"{'not quantized' if row['method'] == 'none' else row['method']}, {layers}"


def _value(name: str, row: pd.Series) -> str:
    return f"{row[name]:,.2f}" if name == "perplexity" else f"{row[name]:.1f} %"


def _words(name: str) -> str:
    return name.replace("_", " ")
