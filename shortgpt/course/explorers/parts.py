"""What the explorers share: figures as HTML with alternative text, answers that are announced, and only the latest answer."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from html import escape
from io import BytesIO

import ipywidgets as widgets
from matplotlib.figure import Figure

COLUMN = 15  # buttons below each other: all of them and the answer fit on one screen
# The line through a removed layer is to be seen without colour; the outline shows where the keyboard is.
STYLE = """<style>
.shortgpt-layers button { height: 25px; line-height: 23px; width: 118px; margin: 1px 2px; text-align: left;
  background: #d9e6f2; color: black; border: 1px solid #33567a; }
.shortgpt-layers button.mod-active { background: white; color: #333; border-style: dashed; box-shadow: none;
  text-decoration: line-through; }
.shortgpt-layers button:focus-visible { outline: 3px solid #de8f05; outline-offset: -1px; }
</style>"""
WAIT = 0.1  # seconds: clicks that follow each other faster get one answer


def image(figure: Figure, alt: str) -> str:
    """`figure` as an HTML image, with `alt` for readers who can't see it.

    Made without pyplot and without an output area: JupyterLab runs callbacks in another thread than cells.
    """
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    data = b64encode(buffer.getvalue()).decode()
    return f'<img style="max-width: 100%" alt="{escape(alt)}" src="data:image/png;base64,{data}">'


def announced(html: str) -> str:
    """`html` in a region that screen readers read out when it changes."""
    return f'<div role="status" aria-live="polite" style="line-height: 1.5">{html}</div>'


def latest(answer: Callable[[], None], wait: float = WAIT) -> Callable[[], None]:
    """A function that calls `answer`, but only once for calls that follow each other within `wait` seconds.

    While an answer is computed, clicks queue up; without this each of them would be answered, one after the other. Where
    no event loop runs (a test, a script) `answer` is called at once.
    """
    waiting: list[asyncio.TimerHandle] = []

    def ask() -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return answer()
        while waiting:
            waiting.pop().cancel()
        waiting.append(loop.call_later(wait, answer))

    return ask


def unless_paused(answer: Callable[[], None]) -> tuple[Callable[[object], None], Callable[[], AbstractContextManager]]:
    """What to hand to `observe`, which calls `answer`; and a context in which it doesn't, for many changes at once."""
    paused: list[bool] = []

    def changed(change: object) -> None:
        if not paused:
            answer()

    @contextmanager
    def pause() -> Iterator[None]:
        paused.append(True)
        try:
            yield
        finally:
            paused.pop()

    return changed, pause


def button(description: str, tooltip: str, pressed: Callable[[], None], width: str = "auto") -> widgets.Button:
    """A button that calls `pressed` without arguments."""
    made = widgets.Button(description=description, tooltip=tooltip, layout=widgets.Layout(width=width))
    made.on_click(lambda _: pressed())
    return made


def layer_buttons(depth: int) -> list[widgets.ToggleButton]:
    """A button for each layer; pressed means left out. `label` gives them their names."""
    width = widgets.Layout(width="118px")
    return [widgets.ToggleButton(tooltip=f"remove layer {i}, or put it back", layout=width) for i in range(depth)]


def label(layers: Sequence[widgets.ToggleButton]) -> None:
    """Let each button say whether its layer is out, also to those who don't see the line through it."""
    for i, layer in enumerate(layers):
        layer.description = f"layer {i} out" if layer.value else f"layer {i}"


def pressed(layers: Sequence[widgets.ToggleButton]) -> list[int]:
    """The layers that are left out, ascending."""
    return [i for i, layer in enumerate(layers) if layer.value]


def beside_layers(layers: Sequence[widgets.Widget], side: list[widgets.Widget]) -> widgets.Widget:
    """The buttons of the layers in columns, and beside them what they say."""
    columns = [widgets.VBox(layers[i : i + COLUMN]) for i in range(0, len(layers), COLUMN)]
    stack = widgets.HBox(columns, layout=widgets.Layout(flex="0 0 auto"))
    stack.add_class("shortgpt-layers")
    return widgets.HBox([stack, widgets.VBox([*side, widgets.HTML(STYLE)], layout=widgets.Layout(margin="0 0 0 16px"))])
