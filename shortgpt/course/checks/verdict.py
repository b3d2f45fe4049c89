"""The verdict on a learner's function: call it safely, and say in words what was expected, what came, and a hint.

A verdict is an exception, because graders and test runs go by exceptions. Notebooks show the message alone: IPython
asks an exception for `_render_traceback_`, and a traceback through this package would teach nobody anything.
"""

from __future__ import annotations

import textwrap
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

CHANGED_INPUT = "the function changed what it was given; compute the answer from new tensors or a copy"

_PASSED: set[Callable[..., Any]] = set()


class CheckFailed(AssertionError):
    """A learner's answer is wrong: the message says what was expected, what came, and a hint."""

    def _render_traceback_(self) -> list[str]:
        return str(self).splitlines()


class NotSolved(CheckFailed):
    """The exercise is still a stub."""


def require_function(name: str, function: object) -> None:
    if not callable(function):
        kind = type(function).__name__
        raise TypeError(f"check_{name} expects the function itself, got {kind}: write check_{name}({name})")


def call(name: str, function: Callable[..., Any], *arguments: Any, hints: dict[Any, str] | None = None) -> Any:
    """The function's answer. An exception in it becomes a verdict, with the hint for its type if `hints` has one."""
    require_function(name, function)
    try:
        # graders read a warning, which goes to stderr, as a failure
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return function(*arguments)
    except CheckFailed:
        raise
    except NotImplementedError as error:
        raise NotSolved(f"not solved yet: {str(error) or f'{name}() is still to be written'}") from None
    except Exception as error:
        message = f"{name} stopped with {type(error).__name__}: {error}"
        own = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == _file_of(function)]
        if own:
            message += f"\n  where     line {own[-1].lineno} of its cell: {own[-1].line}"
        for kind, hint in (hints or {}).items():
            if isinstance(error, kind):
                message += "\n" + _labelled("hint", hint)
        raise CheckFailed(message) from error


def failure(name: str, words: str, expected: object, answer: object, hint: str) -> CheckFailed:
    told = {"expected": shown(expected), "got": shown(answer)} | ({"hint": hint} if hint else {})
    lines = [f"{name} is not right yet, given {words}:", *(_labelled(*line) for line in told.items())]
    return CheckFailed("\n".join(lines))


def passed(name: str, function: Callable[..., Any], cases: int) -> None:
    _PASSED.add(function)
    print(f"{name} is right: {cases} of {cases} tests passed.")


def require_passed(function: Callable[..., Any]) -> None:
    """Stop a cell that uses a learner's function, with one sentence, unless the function has passed its check.

    Raises:
        NotSolved: this very function has not passed: a cell that defines it anew makes a new function.
    """
    if function not in _PASSED:
        raise NotSolved(f"this cell shows what {function.__name__}() finds, once its check has passed")


def shown(value: object) -> str:
    """A value as a message can hold it: small things in full, of tensors the shape and the first numbers."""
    if isinstance(value, Tensor) and value.ndim:
        first = ", ".join(f"{number:.4g}" for number in value.flatten()[:4].tolist())
        return f"tensor of shape {list(value.shape)}: {first}{', …' if value.numel() > 4 else ''}"
    if isinstance(value, Tensor):
        value = value.item()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple | list) and all(isinstance(item, float | Tensor) for item in value):
        return "[" + ", ".join(shown(item) for item in value) + "]"
    text = str(value)
    return text if len(text) <= 160 else text[:157] + "..."


def _labelled(label: str, text: str) -> str:
    """A line of a verdict; a long one is broken, because notebooks break it in the middle of a word."""
    return textwrap.fill(text, 100, initial_indent=f"  {label:10}", subsequent_indent=" " * 12)


def _file_of(function: Callable[..., Any]) -> str | None:
    code = getattr(function, "__code__", None)
    return code.co_filename if code else None
