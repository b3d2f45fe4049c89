"""Figure of the bench of repairs: what each leaves of the loss, by model and plan."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from shortgpt.course.plots.style import look, number, plain_log_ticks, say
from shortgpt.course.studies.bench import REPAIRS


def plot_repairs(bench: pd.DataFrame, *, most: float = 100) -> np.ndarray:
    """Perplexity, times the dense model's (log scale), of every repair: a panel a model, a marker a plan.

    Args:
        bench: rows of `repair_bench` with one share of the layers. Filled markers are ordinary checkpoints, hollow ones
            need a loader of their own; lines are one standard error over documents.
        most: where the axis ends; what is beyond it is drawn at its edge.

    Returns:
        the panels, ``Axes [models]``.

    Raises:
        ValueError: several shares, or none.
    """
    if bench["share"].nunique() != 1:
        raise ValueError("bench must hold one share of the layers: repair_bench(share=0.25)")
    measured = bench.dropna(subset=["times"])
    names = [name for name in REPAIRS if name in set(measured["repair"])][::-1]
    models, plans = list(measured["model"].unique()), list(measured["plan"].unique())
    size = (3.4 * len(models) + 2.4, 0.32 * len(names) + 1.5)
    fig, axes = plt.subplots(1, len(models), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for ax, model in zip(axes[0], models, strict=True):
        mine = measured[measured["model"] == model]
        for number_of_plan, plan in enumerate(plans):
            _draw(ax, mine[mine["plan"] == plan], names, number_of_plan, plan, most)
        ax.axvline(1, color="black", linestyle=":", linewidth=1)
        ax.set(title=f"{model}\n{mine['removed'].iloc[0]} layers gone", xscale="log", xlim=(0.95, most))
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", alpha=0.3)
        plain_log_ticks(ax, "x")
        best = mine.loc[mine["times"].idxmin()]
        say(
            f"on {model}, with {mine['removed'].iloc[0]} layers gone, the lowest perplexity is {number(best['times'])} times "
            f"the dense one: {REPAIRS[best['repair']]}, layers chosen by {best['plan'].replace('_', ' ')}."
        )
    axes[0, 0].set_yticks(range(len(names)), [REPAIRS[name] for name in names])
    fig.supxlabel("perplexity, times the dense model's (log scale)", fontsize="medium")
    axes[0, -1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), title="layers chosen by")
    return axes[0]


def _draw(ax: plt.Axes, rows: pd.DataFrame, names: list[str], place: int, plan: str, most: float) -> None:
    style = look(place) | {"linestyle": "none"}
    heights = rows["repair"].map(names.index) + 0.18 * (place - 1)
    for ordinary, label in ((True, plan.replace("_", " ")), (False, None)):
        some = rows["ordinary"].astype(bool) == ordinary
        values = rows.loc[some, "times"].clip(upper=0.97 * most)
        errors = rows.loc[some, "times"] * rows.loc[some, "added_error"]
        style["markerfacecolor"] = style["color"] if ordinary else "white"
        ax.errorbar(values, heights[some], xerr=errors.clip(upper=most), label=label, markersize=6, **style)
