"""What the explorers share: figures as HTML with alternative text, answers that are announced, and only the latest answer."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from html import escape
from io import BytesIO

import ipywidgets as widgets
from matplotlib.figure import Figure

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
