"""Leave layers out and read: a button a layer, what the model writes without those that are pressed, and all tries so far."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import ipywidgets as widgets
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.course.explorers.parts import (
    announced,
    beside_layers,
    button,
    label,
    latest,
    layer_buttons,
    pressed,
    unless_paused,
)
from shortgpt.evaluation.writing import continue_text
from shortgpt.model.anatomy import decoder_layers
from shortgpt.pruning.depth import remove_layers

SHOWN = 12  # tries, the newest first


def explore_writing(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, *, new_tokens: int = 16
) -> widgets.Widget:
    """Press layers to leave them out, and read how the model goes on after `prompt` without them.

    Without a widget: ``continue_text(remove_layers(model, [11]), tokenizer, prompt)``.

    Args:
        new_tokens: how many tokens are written, each the likeliest. An answer takes about as many forward passes.
    """
    layers = layer_buttons(len(decoder_layers(model)))
    told, tries = widgets.HTML(), widgets.HTML()
    written: dict[tuple[int, ...], str] = {}

    def write() -> None:
        out = tuple(pressed(layers))
        try:
            text = written.pop(out, None) or continue_text(
                remove_layers(model, out) if out else model, tokenizer, prompt, new_tokens=new_tokens
            )
        except ValueError as error:
            told.value = announced(escape(str(error)))
            return
        written[out] = text  # popped before: the newest is last
        told.value = announced(f"{names(out)}:<br>{escape(prompt)} <b>{escape(text.strip())}</b>")
        tries.value = tries_html(written)

    def answer() -> None:
        label(layers)
        told.value = "<i>…</i>"
        ask()

    def put_back() -> None:
        with pause():
            for layer in layers:
                layer.value = False
        answer()

    ask = latest(write)
    changed, pause = unless_paused(answer)
    for layer in layers:
        layer.observe(changed, "value")
    label(layers)
    write()
    return beside_layers(layers, [button("Put all back", "leave no layer out", put_back), told, tries])


def names(out: tuple[int, ...]) -> str:
    """Which layers are left out, in words."""
    if not out:
        return "With all layers"
    return f"Without layer{'s' * (len(out) > 1)} {', '.join(map(str, out))}"


def tries_html(written: Mapping[tuple[int, ...], str]) -> str:
    """The latest tries as a table, the newest first: layers left out, and the text."""
    rows = [
        f'<tr><th scope="row" style="text-align: left">{names(out)}</th><td>{escape(" ".join(text.split()))}</td></tr>'
        for out, text in list(written.items())[::-1][:SHOWN]
    ]
    return f"<table>{''.join(rows)}</table>"
