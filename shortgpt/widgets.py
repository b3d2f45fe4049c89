"""Interactive explorers for Jupyter: sliders and menus, thin over `look_up`, which is a pure function.

They use only what ipywidgets 7 (Colab) and 8 share. Everything shown is computed beforehand and handed in as a table,
so a slider answers at once. The same row can be had without a widget: ``look_up(table, criterion=…, removed=…)``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from html import escape

import ipywidgets as widgets
import numpy as np
import pandas as pd
from IPython.display import display
from matplotlib.figure import Figure

from shortgpt.plots import plot_layers, plot_sweep


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


def verdict(tried: dict[tuple[int, ...], float], picked: Collection[int], plans: Mapping[str, Collection[int]]) -> str:
    """One sentence on the set `picked`, whose loss is in `tried`: its perplexity, the best of its size, the rival plans.

    Args:
        tried: loss in nats of every set valued so far, by its layers in ascending order; `picked` and `plans` among them.
        plans: what algorithms choose, by name; those of another size are left out.
    """
    key = tuple(sorted(picked))
    same_size = {layers: loss for layers, loss in tried.items() if len(layers) == len(key)}
    best = min(same_size, key=same_size.get)
    rivals = {name: tried[tuple(sorted(plan))] for name, plan in plans.items() if len(plan) == len(key)}
    sentence = (
        f"Without {len(key)} layers ({', '.join(map(str, key)) or 'none'}) perplexity is {np.exp(tried[key]):,.1f}"
    )
    sentence += (
        f"; the best so far without {len(key)}: {np.exp(tried[best]):,.1f} ({', '.join(map(str, best)) or 'none'})"
    )
    for name, loss in rivals.items():
        sentence += f"; {name}: {np.exp(loss):,.1f}, which you {'beat' if tried[key] < loss else 'do not beat'}"
    return sentence + "."


def picking_explorer(
    value: Callable[[Collection[int]], float], depth: int, plans: Mapping[str, Collection[int]]
) -> widgets.Widget:
    """Pick layers by hand and try to do better than the algorithms; each try is valued by `value` (see `Trials`).

    A button a layer (pressed: removed), a button to try what is picked, and one for each of `plans` that picks its layers.
    The same without widgets: ``value([13, 14])``, and `verdict`.
    """
    narrow = widgets.Layout(width="54px")
    layers = [
        widgets.ToggleButton(value=False, description=str(i), tooltip=f"remove layer {i}", layout=narrow)
        for i in range(depth)
    ]
    attempt = widgets.Button(description="Try", button_style="primary", tooltip="value the layers that are picked")
    known = {name: widgets.Button(description=name, tooltip=f"pick the layers of {name}") for name in plans}
    says = widgets.HTML("Pick layers to remove, then press Try.")
    tried: dict[tuple[int, ...], float] = {}

    def loss(picked: Collection[int]) -> None:
        key = tuple(sorted(picked))
        if key not in tried:
            tried[key] = value(key)

    def show(_: object = None) -> None:
        picked = [i for i, button in enumerate(layers) if button.value]
        if len(picked) == depth:
            says.value = "At least one layer has to stay: release one."
            return
        says.value = "Trying …"
        for some in (picked, *(plan for plan in plans.values() if len(plan) == len(picked))):
            loss(some)
        says.value = escape(verdict(tried, picked, plans))

    def pick(plan: Collection[int]) -> None:
        for i, button in enumerate(layers):
            button.value = i in plan
        show()

    attempt.on_click(show)
    for name, button in known.items():
        button.on_click(lambda _, plan=tuple(plans[name]): pick(plan))
    rows = [widgets.HBox(layers[start : start + 10]) for start in range(0, depth, 10)]
    return widgets.VBox([*rows, widgets.HBox([attempt, *known.values()]), says])
