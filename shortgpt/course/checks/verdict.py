"""What every check does: call the learner's function safely, compare answers, and word the verdict.

A verdict is an exception, because graders and test runs go by exceptions. Notebooks show the message alone: IPython
asks an exception for `_render_traceback_`, and a traceback through this package would teach nobody anything.
"""

from __future__ import annotations

import copy
import textwrap
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

NO_RETURN = "the function returned nothing: end it with a return"
CHANGED_INPUT = "the function changed what it was given; compute the answer from new tensors or a copy"
HALF = (
    "in half precision squares and products overflow (float16 ends at 65,504) and round: "
    "convert the states to float32 before any arithmetic"
)


_PASSED: set[Callable[..., Any]] = set()


class CheckFailed(AssertionError):
    """A learner's answer is wrong: the message says what was expected, what came, and a hint."""

    def _render_traceback_(self) -> list[str]:
        return str(self).splitlines()


class NotSolved(CheckFailed):
    """The exercise is still a stub."""


@dataclass(frozen=True)
class Mistake:
    """A common mistake: the `answer` that a function with this mistake gives, and the `hint` that helps."""

    answer: Callable[..., Any]
    hint: str


@dataclass(frozen=True)
class Case:
    """One input: in `words` for the message, and as `arguments`."""

    words: str
    arguments: tuple[Any, ...]

    def fresh(self) -> tuple[Any, ...]:
        """A copy of the arguments, which a learner's function may spoil."""
        return copy.deepcopy(self.arguments)


def require_function(name: str, function: object) -> None:
    if not callable(function):
        kind = type(function).__name__
        raise TypeError(f"check_{name} expects the function itself, got {kind}: write check_{name}({name})")


def call(name: str, function: Callable[..., Any], *arguments: Any, hints: dict[type, str] | None = None) -> Any:
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


def compare(
    name: str,
    function: Callable[..., Any],
    cases: Sequence[Case],
    reference: Callable[..., Any],
    mistakes: Sequence[Mistake],
    *,
    tolerance: float = 1e-5,
    not_finite: str = "",
    hints: dict[type, str] | None = None,
    counts: Callable[[Any], Any] = lambda answer: answer,
    look: Callable[[Any, Any], str] = lambda answer, expected: "",
) -> None:
    """Raise CheckFailed unless `function` agrees with `reference` in every case; print one line if it does.

    Args:
        tolerance: largest difference of two numbers, relative to the larger of 1 and the expected number.
        not_finite: hint for an answer with NaN or infinity, where half precision isn't to blame.
        hints: hints for types of exceptions in `function`.
        counts: what of an answer counts, for instance without its order.
        look: a hint found in the answer itself, asked before the mistakes.
    """
    for case in cases:
        arguments = case.fresh()
        answer, expected = counts(call(name, function, *arguments, hints=hints)), reference(*case.fresh())
        if not same(answer, expected, tolerance):
            hint = look(answer, expected) or _hint(answer, expected, case, mistakes, tolerance, not_finite)
            raise failure(name, case.words, expected, answer, hint)
        if not same(arguments, case.arguments, 0):
            raise failure(name, case.words, "the same arguments after the call", "changed arguments", CHANGED_INPUT)
    passed(name, function, len(cases))


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


def same(answer: object, expected: object, tolerance: float) -> bool:
    """Whether both are the same numbers in the same shape, whatever holds them; other things are compared by ==."""
    if isinstance(expected, tuple | list) and isinstance(answer, tuple | list):
        return len(answer) == len(expected) and all(
            same(*pair, tolerance) for pair in zip(answer, expected, strict=True)
        )
    left, right = _numbers(answer), _numbers(expected)
    if left is None or right is None:
        return left is right and type(answer) is type(expected) and _equal(answer, expected)
    if left.shape != right.shape:
        return False
    gap, scale = (left - right).abs(), right.abs().clamp(min=1)
    return bool(((left == right) | (left.isnan() & right.isnan()) | (gap <= tolerance * scale)).all())


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


def _hint(
    answer: object, expected: object, case: Case, mistakes: Sequence[Mistake], tolerance: float, not_finite: str
) -> str:
    if answer is None:
        return NO_RETURN
    numbers = _numbers(answer)
    finite = numbers is None or bool(numbers.isfinite().all())
    for mistake in mistakes if finite else ():  # one NaN is like another
        try:
            wrong = mistake.answer(*case.fresh())
        except Exception:  # a mistake need not make sense of every case
            continue
        if same(answer, wrong, tolerance) and not same(wrong, expected, tolerance):
            return mistake.hint
    half = any(isinstance(a, Tensor) and a.dtype == torch.float16 for a in case.arguments)
    if half and (not finite or same(answer, expected, 0.02)):
        return HALF
    if not finite:
        return not_finite
    wanted = _numbers(expected)
    if numbers is None or wanted is None:
        return ""
    if numbers.shape != wanted.shape:
        return f"the answer has shape {list(numbers.shape)}, not {list(wanted.shape)}: which axis should be gone?"
    return ""


def _labelled(label: str, text: str) -> str:
    """A line of a verdict; a long one is broken, because notebooks break it in the middle of a word."""
    return textwrap.fill(text, 100, initial_indent=f"  {label:10}", subsequent_indent=" " * 12)


def _numbers(value: object) -> Tensor | None:
    """A number, a tensor or an array as a float64 tensor; None for anything else."""
    try:
        return None if isinstance(value, str | dict) else torch.as_tensor(value).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return None


def _equal(answer: object, expected: object) -> bool:
    # objects without a notion of equality, such as functions and configurations, are copied and never changed here
    return type(answer).__eq__ is object.__eq__ or bool(answer == expected)


def _file_of(function: Callable[..., Any]) -> str | None:
    code = getattr(function, "__code__", None)
    return code.co_filename if code else None
