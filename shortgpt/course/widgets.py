"""Interactive explorers for Jupyter: sliders and menus, thin over `look_up`, which is a pure function.

They use only what ipywidgets 7 (Colab) and 8 share. What a slider shows is computed beforehand and handed in as a table,
so it answers at once; the same row can be had without a widget: ``look_up(table, criterion=…, removed=…)``. Sets of layers
are too many for a table, so they are tried when asked for; without a widget: ``try_layers(value, layers, tried)``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from html import escape
from io import BytesIO

import ipywidgets as widgets
import numpy as np
import pandas as pd
from IPython.display import display
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from shortgpt.course.plots.basic import PALETTE, plain_log_ticks, plot_layers, plot_sweep


def look_up(table: pd.DataFrame, **wanted: object) -> pd.Series:
    """The row of `table` whose columns equal `wanted`. Raises KeyError, naming what there is, if none does."""
    rows = table
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    if rows.empty:
        known = {column: table[column].unique().tolist() for column in wanted}
        raise KeyError(f"nothing was computed for {wanted}: there is {known}")
    return rows.iloc[0]


def pruning_explorer(table: pd.DataFrame, depth: int) -> widgets.Widget:
    """Choose a criterion and how many layers to remove; see which go, what that costs, and what the model writes.

    Args:
        table: one row per criterion and count: ``criterion, removed, layers`` (the list of removed layers),
            ``perplexity, parameters, text``.
        depth: layers of the dense model.
    """
    criterion = widgets.Dropdown(options=table["criterion"].unique().tolist(), description="criterion")
    removed = widgets.IntSlider(
        min=int(table["removed"].min()),
        max=int(table["removed"].max()),
        description="remove",
        continuous_update=False,
        layout=widgets.Layout(width="60%"),
    )

    def show(criterion: str, removed: int) -> None:
        row = look_up(table, criterion=criterion, removed=removed)
        print(f"{criterion}, {removed} of {depth} layers removed: perplexity {row['perplexity']:,.1f}")
        print(f"{row['parameters'] / 1e6:.1f} million parameters")
        # not through pyplot: JupyterLab runs callbacks in another thread, and pyplot's figures are one thread's
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        top, bottom = figure.subplots(2, 1, height_ratios=[1, 4])
        plot_layers(depth, row["layers"], ax=top)
        plot_sweep(table, y="perplexity", hue="criterion", ax=bottom)
        bottom.plot(removed, row["perplexity"], marker="o", markersize=16, fillstyle="none", color="black")
        display(figure)
        display(widgets.HTML(f"<b>It writes:</b> {escape(row['text'])}"))

    output = widgets.interactive_output(show, {"criterion": criterion, "removed": removed})
    return widgets.VBox([criterion, removed, output])


def try_layers(
    value: Callable[[Collection[int]], float], layers: Collection[int], tried: dict[tuple[int, ...], float]
) -> dict[str, object]:
    """Value the set `layers`, unless `tried` has it already, and compare it with the sets of its size in `tried`.

    Args:
        value: the loss in nats without some layers, for instance `Trials`.
        tried: ascending layers → loss; the set is added.

    Returns:
        ``layers, perplexity`` of the set, ``best, best_perplexity`` of the best tried of the same size.
    """
    key = tuple(sorted(set(layers)))
    if key not in tried:
        tried[key] = float(value(key))
    same = {other: loss for other, loss in tried.items() if len(other) == len(key)}
    best = min(same, key=same.get)
    perplexity, best_perplexity = float(np.exp(tried[key])), float(np.exp(tried[best]))
    return {"layers": list(key), "perplexity": perplexity, "best": list(best), "best_perplexity": best_perplexity}


def picking_explorer(
    value: Callable[[Collection[int]], float], depth: int, plans: Mapping[str, Sequence[int]]
) -> widgets.Widget:
    """Pick layers by hand, a button each, and see the perplexity without them beside the best so far and the plans.

    Args:
        value: the loss in nats without a set of layers, called when *Try* is pressed: `Trials` on a few hundred tokens.
        depth: layers of the dense model.
        plans: name → layers in the order of their removal; the first n are the plan for n layers.
    """
    tried: dict[tuple[int, ...], float] = {}
    buttons = [
        widgets.ToggleButton(description=str(i), tooltip=f"remove layer {i}", layout=widgets.Layout(width="60px"))
        for i in range(depth)
    ]
    attempt = widgets.Button(description="Try", tooltip="measure the model without the chosen layers")
    shortcuts = {name: widgets.Button(description=name, tooltip=f"{name}: as many layers") for name in plans}
    chosen, answer, picture = widgets.HTML(), widgets.HTML(), widgets.Image(format="png")

    def picked() -> list[int]:
        return [i for i, button in enumerate(buttons) if button.value]

    def mark(change: object = None) -> None:
        for button in buttons:
            button.icon = "times" if button.value else ""  # to be seen without colour
        chosen.value = f"{len(picked())} of {depth} layers to remove: {', '.join(map(str, picked())) or 'none'}"

    def answer_for(name: str) -> None:
        try:
            found = try_layers(value, picked(), tried)
        except ValueError as error:
            answer.value = escape(str(error))
            return
        answer.value = (
            f"<b>{escape(name)}</b>: without {found['layers']} perplexity is <b>{found['perplexity']:,.1f}</b>; best so far "
            f"of this size {found['best_perplexity']:,.1f}, without {found['best']}"
        )
        picture.value = _tries(tried, picked())

    def show(name: str) -> None:
        plan = set(list(plans[name])[: max(1, len(picked()))])
        for i, button in enumerate(buttons):
            button.value = i in plan
        answer_for(name)

    for button in buttons:
        button.observe(mark, "value")
    attempt.on_click(lambda _: answer_for("your choice"))
    for name, button in shortcuts.items():
        button.on_click(lambda _, name=name: show(name))
    mark()
    rows = [widgets.HBox(buttons[i : i + 10]) for i in range(0, depth, 10)]
    return widgets.VBox([*rows, chosen, widgets.HBox([attempt, *shortcuts.values()]), answer, picture])


def _tries(tried: Mapping[tuple[int, ...], float], last: Collection[int]) -> bytes:
    """A PNG of all sets tried, perplexity against size, the last one circled."""
    figure = Figure(figsize=(7, 2.8), layout="constrained")  # not through pyplot, see above
    ax = figure.subplots()
    ax.plot([len(layers) for layers in tried], np.exp(list(tried.values())), "o", color=PALETTE[0])
    loss = tried[tuple(sorted(last))]
    ax.plot(len(last), np.exp(loss), "o", markersize=15, fillstyle="none", color="black")
    ax.set(xlabel="layers removed", ylabel="perplexity (log scale)", yscale="log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain_log_ticks(ax)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
