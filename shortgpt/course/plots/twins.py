"""Figures of the twins: what each kind's layers do, and what each kind loses without some of them."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from shortgpt.course.plots.style import PALETTE, literal, look, new_axes, plain_log_ticks, say
from shortgpt.course.studies.twins import over_seeds

AXES = {
    "added": "nats a token above the whole model",
    "loss": "nats a token",
    "block_influence": "Block Influence",
    "relative_magnitude": "relative magnitude",
    "cosine": "cosine of input and output",
}


def plot_twin_layers(layers: pd.DataFrame, y: str = "block_influence") -> np.ndarray:
    """Profile of the layers of each kind, a panel a kind: seeds are thin lines, their mean is thick.

    Args:
        layers: rows of `twin_layers`. y: the column to draw; a log axis where all its values are above 0.

    Returns:
        the panels, ``Axes [kinds]``.
    """

    def draw(ax: Axes, rows: pd.DataFrame) -> None:
        _seeds_and_mean(ax, rows, y)

    axes = _panels(layers, draw, AXES.get(y, y.replace("_", " ")), log=bool((layers[y] > 0).all()))
    means = {kind: rows.groupby("layer")[y].mean() for kind, rows in layers.groupby("kind", sort=False)}
    told = [f"{kind} at layer {mean.idxmin()} ({mean.min():.2g})" for kind, mean in means.items()]
    say(f"{AXES.get(y, y.replace('_', ' '))} is lowest for {', '.join(told)}.")
    return axes


def plot_twin_norms(layers: pd.DataFrame) -> np.ndarray:
    """Length of the states behind each layer, and what pre-norm theory expects (dashed): a panel a kind, as above."""

    def draw(ax: Axes, rows: pd.DataFrame) -> None:
        _seeds_and_mean(ax, rows, "norm_out")
        expected = rows.groupby("layer")["expected_norm"].mean()
        ax.plot(expected.index, expected, color="black", linestyle="--", linewidth=1.5, label="independent branches")

    axes = _panels(layers, draw, "length of the states", log=True)
    ends = layers[layers["layer"] == layers.groupby("name")["layer"].transform("max")]
    means = ends.assign(ratio=ends["norm_out"] / ends["expected_norm"]).groupby("kind", sort=False)["ratio"].mean()
    told = [f"{kind} {value:.2f}" for kind, value in means.items()]
    say(
        f"Behind the last layer, states are so many times as long as independent branches would give: {', '.join(told)}."
    )
    return axes


def plot_twin_removal(removal: pd.DataFrame, y: str = "added", ax: Axes | None = None) -> Axes:
    """What each kind loses as layers go: mean and standard error over seeds against the share removed, a line a kind.

    Args:
        removal: rows of `twin_removal` of one criterion, repaired or not.
        y: ``"added"`` (nats a token), or percent right: ``"addition"``, ``"brackets"``, ``"agreement"`` and so on.
    """
    table = over_seeds(removal, y, by=["kind", "share"])
    ax = ax or new_axes(8, 4.6)
    for i, (kind, rows) in enumerate(table.groupby("kind", sort=False)):
        rows = rows.sort_values("share")
        ax.errorbar(
            100 * rows["share"], rows["mean"], rows["error"].fillna(0), label=literal(kind), capsize=3, **look(i)
        )
    ax.set(xlabel="layers removed, percent", ylabel=AXES.get(y, f"{y.replace('_', ' ')}, percent right"))
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    at = min(table["share"].unique(), key=lambda share: abs(share - 0.25))
    here = table[table["share"] == at].set_index("kind")
    told = [f"{kind} {_with_error(row)}" for kind, row in here.iterrows()]
    say(f"With {100 * at:.0f} % of the layers removed, {y.replace('_', ' ')} is: {', '.join(told)}.")
    return ax


def plot_prunability(table: pd.DataFrame, ax: Axes | None = None, *, label: str = AXES["added"]) -> Axes:
    """How well each kind does without a share of its layers: a row a kind, as cut (full) and repaired (hollow).

    Args:
        table: of `prunability`. label: what its values are.
    """
    ax = ax or new_axes(8, 1 + 0.5 * len(table))
    for name, filled, marker, shift in (("cut", True, "o", -0.12), ("repaired", False, "s", 0.12)):
        ax.errorbar(
            table[name], np.arange(len(table)) + shift, xerr=table[f"{name}_error"].fillna(0), fmt=marker, capsize=3,
            color=PALETTE[0 if filled else 1], mfc=None if filled else "white", markersize=8, label=name,
        )  # fmt: skip
    ax.set_yticks(range(len(table)), map(literal, table["kind"]))
    ax.invert_yaxis()
    ax.grid(axis="y", color="0.9")
    ax.set_xlabel(label)
    ax.legend()
    told = []
    for row in table.itertuples():
        end = f"and {row.repaired:.2f} repaired" if np.isfinite(row.repaired) else "(no repair: layer 0 goes)"
        told.append(f"{row.kind} {row.cut:.2f} cut {end}")
    say(f"{label}: {'; '.join(told)}.")
    return ax


def plot_restored(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Share of lost answers that one state of the dense model brings back, by the depth where it is put: a line a role.

    Args:
        table: of `restored`, or `twin_steps("restored")`, of one task and one set of layers; seeds become their mean.
    """
    ax = ax or new_axes(8, 4.2)
    weighted = (
        table.assign(right=table["restored"] * table["n"]).groupby(["role", "depth"], sort=False)[["right", "n"]].sum()
    )
    share = (100 * weighted["right"] / weighted["n"]).rename("share").reset_index()
    said = []
    for i, (role, rows) in enumerate(share.groupby("role", sort=False)):
        rows = rows.sort_values("depth")
        ax.plot(rows["depth"], rows["share"], label=literal(role), **look(i))
        best = rows.loc[rows["share"].idxmax()]
        said.append(f"{role} {best['share']:.0f} % (depth {best['depth']:.0f})")
    ax.set(xlabel="depth where the dense state is put back", ylabel="lost answers that are right again, percent")
    ax.set_ylim(-3, 103)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize=8)
    say(f"The most that one state brings back, by where its token stands: {', '.join(said)}.")
    return ax


def _with_error(row: pd.Series) -> str:
    error = f" ± {row['error']:.2f}" if np.isfinite(row["error"]) else ""
    return f"{row['mean']:.2f}{error}"


def _seeds_and_mean(ax: Axes, rows: pd.DataFrame, y: str) -> None:
    label = "measured" if rows["seed"].nunique() == 1 else "measured, mean of the seeds"
    for _, one in rows.groupby("seed"):
        ax.plot(one["layer"], one[y], color=PALETTE[0], linewidth=0.8, alpha=0.6)
    mean = rows.groupby("layer")[y].mean()
    ax.plot(mean.index, mean, color=PALETTE[0], linewidth=2, marker="o", markersize=4, label=label)


def _panels(table: pd.DataFrame, draw: Callable[[Axes, pd.DataFrame], None], label: str, log: bool) -> np.ndarray:
    """A panel a kind, four in a row, all with the same y axis; one legend."""
    kinds = list(table["kind"].unique())
    width = min(4, len(kinds))
    height = -(-len(kinds) // width)
    fig, grid = plt.subplots(
        height, width, figsize=(2.6 * width + 0.6, 2.5 * height + 0.4), sharey=True, squeeze=False, layout="constrained"
    )
    axes = grid.flat[: len(kinds)]
    for ax in grid.flat[len(kinds) :]:
        ax.set_axis_off()
    for ax, kind in zip(axes, kinds, strict=True):
        rows = table[table["kind"] == kind]
        draw(ax, rows)
        seeds = rows["seed"].nunique()
        ax.set(
            title=f"{literal(kind)} ({seeds} {'seed' if seeds == 1 else 'seeds'})", yscale="log" if log else "linear"
        )
        ax.title.set_fontsize(10)
        ax.spines[["top", "right"]].set_visible(False)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if log:
        plain_log_ticks(axes[0])
    fig.supxlabel("layer", fontsize=10)
    fig.supylabel(label + (" (log scale)" if log else ""), fontsize=10)
    axes[-1].legend(fontsize=7)
    return np.array(axes)
