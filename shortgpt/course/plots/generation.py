"""Figures about writing: do a model's errors accumulate along its own text?

As in `plots`, every function draws on a new figure (or the given ``ax``), prints one sentence computed from the data and
returns the Axes.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from shortgpt.course.plots.basic import PALETTE, _new_axes, _number, _say, plain_log_ticks
from shortgpt.utils.arguments import check_choice, check_count, shown

QUANTITIES = {
    "divergence": "divergence from the dense model (nats)",
    "perplexity": "perplexity so far, to the dense model (log scale)",
    "agree": "same likeliest token (share)",
}
# who wrote the text -> label, line, marker (filled or hollow), colour
_TEXTS = {
    "dense": ("on the dense model's text", "-", "o", PALETTE[0], PALETTE[0]),
    "pruned": ("on its own text", "--", "s", PALETTE[1], "white"),
}


def plot_divergence_along(
    table: pd.DataFrame, ax: Axes | None = None, *, y: str = "divergence", stretch: int = 8
) -> Axes:
    """How far the pruned model is from the dense one along both texts; `table` is from `divergence_along`.

    Positions are taken together in stretches of `stretch` tokens, since single tokens differ by far more than stretches
    do. Points are means over prompts (geometric for the perplexity), bars are standard errors over prompts; a stretch that
    fewer than all texts reach is drawn with a smaller marker.

    Args:
        y: ``"divergence"``, ``"perplexity"`` (of the text so far, to the dense model) or ``"agree"``.
    """
    if not isinstance(table, pd.DataFrame) or not {"written_by", "position", "prompt", *QUANTITIES} <= {*table}:
        raise TypeError(f"table must be from divergence_along(), got {shown(table)}")
    check_choice("y", y, QUANTITIES)
    check_count("stretch", stretch)
    ax = ax or _new_axes()
    said = []
    for writer, (name, line, marker, colour, face) in _TEXTS.items():
        points = stretches(table[table["written_by"] == writer], y, stretch)
        ax.errorbar(
            points["position"], points["mean"], yerr=[points["mean"] - points["low"], points["high"] - points["mean"]],
            linestyle=line, color=colour, capsize=3, linewidth=1.5,
        )  # fmt: skip
        sizes = np.where(points["prompts"] == points["prompts"].max(), 45, 15)
        ax.scatter(points["position"], points["mean"], sizes, facecolor=face, edgecolor=colour, marker=marker, zorder=3)
        ax.plot([], [], linestyle=line, marker=marker, color=colour, mfc=face, label=name)
        first, last = (_number(v) if y == "perplexity" else f"{v:.2f}" for v in points["mean"].iloc[[0, -1]])
        said.append(f"{name} it goes from {first} to {last}")
    ax.set(xlabel="tokens written", ylabel=QUANTITIES[y], yscale="log" if y == "perplexity" else "linear")
    if y == "perplexity":
        plain_log_ticks(ax)
    else:
        ax.set_ylim(bottom=0)
    ax.legend()
    quantity = QUANTITIES[y].split(" (")[0]
    _say(f"{quantity}, from the first to the last {stretch} tokens: {', '.join(said)}.")
    return ax


def stretches(rows: pd.DataFrame, y: str, stretch: int) -> pd.DataFrame:
    """``position`` (middle), ``mean, low, high`` (mean and one standard error to each side) and ``prompts`` of stretches."""
    values = np.log(rows[y]) if y == "perplexity" else rows[y].astype(float)
    # a prompt may be there twice: a text begins where position is 1
    texts = (rows["position"] == 1).cumsum()
    number = (rows["position"] - 1) // stretch
    each = values.groupby([number, texts]).mean()  # a text's mean within a stretch
    middle = rows["position"].groupby(number).agg(lambda p: (p.min() + p.max()) / 2)
    mean, error = each.groupby(level=0).mean(), each.groupby(level=0).sem().fillna(0)
    back = np.exp if y == "perplexity" else (lambda v: v)
    return pd.DataFrame(
        {
            "position": middle,
            "mean": back(mean),
            "low": back(mean - error),
            "high": back(mean + error),
            "prompts": each.groupby(level=0).size(),
        }
    )
