"""Interactive explorers for Jupyter: sliders and menus, thin over `look_up`, which is a pure function.

They use only what ipywidgets 7 (Colab) and 8 share. Everything shown is computed beforehand and handed in as a table,
so a slider answers at once. The same row can be had without a widget: ``look_up(table, criterion=…, removed=…)``.
"""

from __future__ import annotations

from html import escape

import ipywidgets as widgets
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
