"""Prune it yourself: a button a layer, and what the model is without those that are pressed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.choosing.by_score import removal_order
from shortgpt.course.explorers.parts import (
    announced,
    beside_layers,
    button,
    image,
    label,
    latest,
    layer_buttons,
    pressed,
    unless_paused,
)
from shortgpt.course.plots.style import PALETTE, plain_log_ticks
from shortgpt.course.studies.ablation import PROMPT, Ablation
from shortgpt.model.text import calibration_batches
from shortgpt.pruning.plan import check_indices
from shortgpt.scoring.influence import score_layers


def explore_pruning(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    order: Sequence[int] | None = None,
    *,
    text: str | None = None,
    prompt: str = PROMPT,
    new_tokens: int = 12,
) -> widgets.Widget:
    """Press layers to remove them, and see perplexity, size, work and what the model writes; the algorithm is one click away.

    Without a widget: ``Ablation(model, tokenizer)([8, 9])``.

    Args:
        order: layers in the order of their removal by the algorithm (see `removal_order`); None: by Block Influence.
        text, prompt, new_tokens: what is read and continued, see `Ablation`.
    """
    ablation = Ablation(model, tokenizer, text, prompt=prompt, new_tokens=new_tokens)
    depth = ablation.depth
    if order is None:
        order = removal_order(score_layers(model, calibration_batches(tokenizer, samples=4), progress=False))
    order = check_indices(order, depth, keep_one=False)
    layers = layer_buttons(depth)
    numbers, written, picture = widgets.HTML(), widgets.HTML(), widgets.HTML()

    def measure() -> None:
        try:
            numbers.value, picture.value = answer_html(ablation, pressed(layers), order)
        except ValueError as error:
            numbers.value, written.value = announced(escape(str(error))), ""
        else:
            write()

    def write_now() -> None:
        now = pressed(layers)
        if tuple(now) in ablation.tried:  # else a newer choice is about to be measured
            written.value = announced(f"{escape(prompt)} <b>{escape(ablation.writes(now).strip())}</b>")

    def answer() -> None:
        label(layers)
        written.value = "<i>…</i>"
        ask()

    def choose(wanted: Sequence[int]) -> None:
        with pause():
            for i, layer in enumerate(layers):
                layer.value = i in wanted
        answer()

    ask, write = latest(measure), latest(write_now)
    changed, pause = unless_paused(answer)
    for layer in layers:
        layer.observe(changed, "value")
    for first in (lambda: label(layers), measure, write_now):  # at once: what is asked for in a cell comes after it
        first()
    algorithm = button(
        "The algorithm's choice", "as many layers as you removed", lambda: choose(order[: max(1, len(pressed(layers)))])
    )
    reset = button("Put all back", "remove no layer", lambda: choose([]))
    return beside_layers(layers, [widgets.HBox([algorithm, reset]), numbers, written, picture])


def answer_html(ablation: Ablation, removed: Sequence[int], order: Sequence[int]) -> tuple[str, str]:
    """What a choice of layers costs, with the best so far, and the figure of all tries. Raises ValueError as `Ablation`."""
    costs = cost_html(ablation(removed), ablation([]), ablation.depth)
    figure, tries = draw_tries(ablation.tried, removed, order)
    return announced(f"{costs}<br>{tries}"), image(figure, tries)


def cost_html(found: Mapping[str, Any], dense: Mapping[str, Any], depth: int) -> str:
    """What a choice of layers costs (of `Ablation`), beside the dense model, in words."""
    names = ", ".join(map(str, found["layers"])) or "none"
    return (
        f"{found['removed']} of {depth} layers removed: {names}.<br>"
        f"Perplexity <b>{found['perplexity']:,.1f}</b>, {found['times_dense']:,.2f} times the dense model's "
        f"{dense['perplexity']:,.1f}.<br>"
        f"Size <b>{found['memory_mb']:,.0f} MB</b> of {dense['memory_mb']:,.0f} MB. "
        f"Multiplications for a token: <b>{found['work']:.0f} %</b>."
    )


def draw_tries(
    tried: Mapping[tuple[int, ...], Mapping[str, Any]], last: Sequence[int], order: Sequence[int]
) -> tuple[Figure, str]:
    """A figure of all sets tried, perplexity against their number of layers, and a sentence that says what it shows."""
    figure = Figure(figsize=(6.4, 2.9), layout="constrained")
    ax = figure.subplots()
    of_algorithm = {key for key in tried if key and set(key) == set(order[: len(key)])}
    for name, marker, colour, keys in (
        ("your choices", "o", PALETTE[0], [key for key in tried if key not in of_algorithm]),
        ("the algorithm's", "s", PALETTE[1], of_algorithm),
    ):
        if keys:
            points = sorted((len(key), tried[key]["perplexity"]) for key in keys)
            ax.plot(*zip(*points, strict=True), marker, color=colour, markeredgecolor="black", label=name)
    now = tried[tuple(last)]
    ax.plot(now["removed"], now["perplexity"], "o", markersize=15, fillstyle="none", color="black")
    most = max(len(key) for key in tried)
    ax.set(xlabel="layers removed", ylabel="perplexity (log scale)", yscale="log", xlim=(-0.5, max(most, 3) + 0.5))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain_log_ticks(ax)
    ax.legend()
    same = {key: found["perplexity"] for key, found in tried.items() if len(key) == now["removed"]}
    best = min(same, key=same.__getitem__)
    names = ", ".join(map(str, best)) or "none"
    return figure, (
        f"{len(tried)} sets of layers tried; the best of the {len(same)} with {now['removed']} removed is without {names}, "
        f"perplexity {same[best]:,.1f}."
    )
