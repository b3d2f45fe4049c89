"""What the figures share: colours and markers that differ without colour, plain numbers on log axes, and the sentence."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

PALETTE = sns.color_palette("colorblind")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":")
HATCHES = ("", "///", "...", "xx")
STORED = "default model (SmolLM2-135M), stored"  # whose the results in data/ are, whatever a lesson's MODEL is


def new_axes(width: float = 7, height: float = 4) -> Axes:
    """An Axes on a new figure of so many inches, without a frame above and to the right."""
    _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def look(i: int) -> dict[str, Any]:
    """Colour, marker and line of the i-th curve of a figure: any two of the first eight differ without colour too."""
    return {"color": PALETTE[i % 10], "marker": MARKERS[i % 8], "linestyle": LINES[i % 4]}


def plain_log_ticks(ax: Axes, axis: str = "y") -> None:
    """Label a log axis of up to four decades with plain numbers (0.02, 0.05, 0.1 …). Call it when all is drawn."""
    on = ax.xaxis if axis == "x" else ax.yaxis
    low, high = sorted(on.get_view_interval())
    decades = np.log10(high / low)
    if decades > 4:
        return  # powers of ten are plainer there
    steps = (1, 2, 3, 5, 7) if decades < 1 else (1, 2, 5) if decades < 2.2 else (1,)
    on.set_major_locator(LogLocator(subs=steps))
    on.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    on.set_minor_formatter(NullFormatter())


def literal(name: object) -> str:
    """`name` as a label that matplotlib writes as it is: between two $ it would read a formula, or stop."""
    return str(name).replace("$", r"\$")


def number(value: float) -> str:
    """A perplexity or a size as it is told: one decimal, none from 1,000 on."""
    return f"{value:,.1f}" if abs(value) < 1000 else f"{value:,.0f}"


def say(sentence: str) -> None:
    """Print what the figure shows, for readers who can't see it."""
    print(sentence[:1].upper() + sentence[1:])
