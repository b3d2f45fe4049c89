"""Figure of the stored curves: perplexity as layers go, on several models beside each other."""

from __future__ import annotations

from collections.abc import Collection

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from shortgpt.course.plots.choosing import draw_lines, line_of
from shortgpt.course.plots.style import number, plain_log_ticks, say
from shortgpt.utils.arguments import shown


def plot_removal_curves(
    curves: pd.DataFrame,
    *,
    by: str = "criterion",
    highlight: Collection[str] = ("block_influence",),
    most: float = 1000,
) -> np.ndarray:
    """Perplexity, times the dense model's (log scale), against layers removed: a panel a model, a line for each `by`.

    Args:
        curves: rows of `removal_curves` in one language, those of the dense model included. Several rows of one line and
            number (seeds) become their median and a band.
        by: the column that tells lines apart: ``"criterion"`` or ``"text"``.
        highlight: lines to draw thick and coloured; the others are thin and grey, and all have a marker and a name.
        most: where the axis ends; lines go on above.

    Returns:
        the panels, ``Axes [models]``.
    """
    names = [name for name in curves[by].unique() if name not in ("dense", "")]
    for name in highlight:
        if name not in names:
            raise ValueError(
                f"there is no {by} {shown(name)} in these curves: choose out of {', '.join(map(str, names))}"
            )
    models = list(curves["model"].unique())
    fig, axes = plt.subplots(1, len(models), figsize=(3.6 * len(models) + 1.6, 4), sharey=True, squeeze=False)
    fig.set_layout_engine("constrained")
    for ax, model in zip(axes[0], models, strict=True):
        rows = curves[(curves["model"] == model) & (curves["removed"] > 0)]
        lines = {name: line_of(rows[rows[by] == name], "times") for name in names}  # all in each: one look, one legend
        draw_lines(ax, lines, list(highlight))
        ax.axhline(1, color="black", linestyle=":", linewidth=1)
        ax.set(title=model, xlabel=f"layers removed, of {rows['depth'].iloc[0]:.0f}", yscale="log", ylim=(0.9, most))
        ax.spines[["top", "right"]].set_visible(False)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        plain_log_ticks(ax)
        _say_what_is_lowest(model, lines, at=round(rows["depth"].iloc[0] / 5))
    axes[0, 0].set_ylabel("perplexity, times the dense model's (log scale)")
    handles, labels = axes[0, -1].get_legend_handles_labels()
    labels = [label.replace("_", " ") for label in labels]
    axes[0, -1].legend(handles, labels, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return axes[0]


def _say_what_is_lowest(model: str, lines: dict[str, pd.DataFrame], at: int) -> None:
    here = pd.Series({name: line["mid"].get(at) for name, line in lines.items()}, dtype=float).dropna().sort_values()
    if here.empty:
        return
    told = ", ".join(f"{str(name).replace('_', ' ')} {number(value)}" for name, value in here.items())
    say(f"on {model}, with a fifth of the layers removed ({at}), perplexity times: {told}.")
