"""Whether a learner's function gives the right answers: cases, what is right, and what common mistakes give."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from shortgpt.course.checks.verdict import CHANGED_INPUT, call, failure, passed

NO_RETURN = "the function returned nothing: end it with a return"
HALF = (
    "in half precision squares and products overflow (float16 ends at 65,504) and round: "
    "convert the states to float32 before any arithmetic"
)

Answers = tuple[Any, dict[str, Any]]
"""What `compare` wants to know of a case: the right answer and, by the hint that helps, what a common mistake gives.

A wrong answer that exists in some cases only, or takes long, is a function without arguments; `AnyOf` holds several.
"""


@dataclass(frozen=True)
class Case:
    """One input: in `words` for the message, and as `arguments`."""

    words: str
    arguments: tuple[Any, ...]

    def fresh(self) -> tuple[Any, ...]:
        """A copy of the arguments, which a learner's function may spoil."""
        return copy.deepcopy(self.arguments)


class AnyOf(tuple):
    """Several wrong answers that share a hint, as in ``AnyOf(first, second)``."""

    def __new__(cls, *answers: Any) -> AnyOf:
        return super().__new__(cls, answers)


def named_cases(names: str, *rows: tuple[Any, ...]) -> list[Case]:
    """A case for each row of arguments, in words such as ``a = 1, b = 2 and c = 3``."""

    def words(row: tuple[Any, ...]) -> str:
        *most, last = (f"{name} = {value}" for name, value in zip(names.split(), row, strict=True))
        return f"{', '.join(most)} and {last}"

    return [Case(words(row), row) for row in rows]


def seeded(seed: int) -> torch.Generator:
    """Random numbers that are the same in every run and leave the learner's own alone."""
    return torch.Generator().manual_seed(seed)


def standard_error(values: Tensor, correction: int = 1) -> Tensor:
    """Of the mean of these values: their standard deviation by the root of their number."""
    return values.std(correction=correction) / len(values) ** 0.5


def compare(
    name: str,
    function: Callable[..., Any],
    cases: Sequence[Case],
    answers: Callable[..., Answers],
    *,
    tolerance: float = 1e-5,
    not_finite: str = "",
    otherwise: str = "",
    hints: dict[Any, str] | None = None,
    counts: Callable[[Any], Any] = lambda answer: answer,
    look: Callable[[Any, Any], str] = lambda answer, expected: "",
    also: Callable[[Case, tuple[Any, ...]], None] = lambda case, arguments: None,
) -> None:
    """Raise CheckFailed unless `function` gives the right answer in every case; print one line if it does.

    Args:
        answers: from the arguments of a case to the right answer, and what common mistakes give (see `Answers`).
        tolerance: largest difference of two numbers, relative to the larger of 1 and the expected number.
        not_finite: hint for an answer with NaN or infinity, where half precision isn't to blame.
        otherwise: hint for a wrong answer that no mistake explains.
        hints: hints for types of exceptions in `function`.
        counts: what of an answer counts, for instance without its order.
        look: a hint found in the answer itself, asked before the mistakes.
        also: raises for what is wrong in spite of a right answer, from the case and the arguments after the call.
    """
    for case in cases:
        arguments = case.fresh()
        answer = counts(call(name, function, *arguments, hints=hints))
        expected, mistakes = answers(*case.fresh())
        if not same(answer, expected, tolerance):
            rest = not_finite
            if _is_finite(answer):
                rest = otherwise or _shape_hint(answer, expected) or relation(answer, expected, tolerance)
            hint = look(answer, expected) or _hint(case, answer, expected, mistakes, tolerance) or rest
            raise failure(name, case.words, expected, answer, hint)
        if not same(arguments, case.arguments, 0):
            raise failure(name, case.words, "the same arguments after the call", "changed arguments", CHANGED_INPUT)
        also(case, arguments)
    passed(name, function, len(cases))


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


def _hint(case: Case, answer: object, expected: object, mistakes: dict[str, Any], tolerance: float) -> str:
    """The hint that fits any exercise, or that of the first mistake that gives this answer and not the right one."""
    if answer is None:
        return NO_RETURN
    finite = _is_finite(answer)
    for hint, wrong in mistakes.items() if finite else ():  # one NaN is like another
        if any(same(answer, each, tolerance) and not same(each, expected, tolerance) for each in _computed(wrong)):
            return hint
    half = any(isinstance(value, Tensor) and value.dtype == torch.float16 for value in case.arguments)
    return HALF if half and (not finite or same(answer, expected, 0.02)) else ""


def _computed(wrong: Any) -> Iterator[Any]:
    for each in wrong if isinstance(wrong, AnyOf) else (wrong,):
        try:
            yield each() if callable(each) else each
        except Exception:  # a mistake need not make sense of every case
            continue


def _shape_hint(answer: object, expected: object) -> str:
    numbers, wanted = _numbers(answer), _numbers(expected)
    if numbers is None or wanted is None or numbers.shape == wanted.shape:
        return ""
    return f"the answer has shape {list(numbers.shape)}, not {list(wanted.shape)}: which axis should be gone?"


def relation(answer: object, expected: object, tolerance: float) -> str:
    """What a wrong answer has to do with the right one of the same shape, in a sentence; empty where nothing simple is so."""
    if isinstance(expected, tuple) and isinstance(answer, tuple | list) and len(answer) == len(expected):
        right = [place for place, pair in enumerate(zip(answer, expected, strict=True)) if same(*pair, tolerance)]
        if right:
            return f"right: the {_places(right)} of {len(expected)} parts; look at the rest"
    got, wanted = _numbers(answer), _numbers(expected)
    if got is None or wanted is None or got.shape != wanted.shape or not wanted.numel():
        return ""
    if not got.any() and wanted.any():
        return "everything is 0: is something multiplied by 0, or never filled in?"
    for words, other in _RELATED.items():
        if same(got, other(wanted), tolerance):
            return f"that is {words}"
    if wanted.ndim and same(got.flatten().sort().values, wanted.flatten().sort().values, tolerance):
        return "these are the right numbers in another order"
    if wanted.numel() > 2:
        for words, each in (("%.4g times what it should be", got / wanted), ("%+.4g away from it", got - wanted)):
            if each.isfinite().all() and same(each, each.flatten()[0].expand_as(each), tolerance):
                return f"every number is {words % each.flatten()[0]}"
        off = ((got - wanted).abs() > tolerance * wanted.abs().clamp(min=1)).nonzero().tolist()
        if len(off) < wanted.numel():
            place = off[0] if wanted.ndim > 1 else off[0][0]
            at = got[tuple(off[0])].item(), wanted[tuple(off[0])].item()
            return f"{len(off)} of {wanted.numel()} numbers are off, the first at {place}: {at[0]:.6g}, not {at[1]:.6g}"
    return ""


_FACTORS = (2, 4, 8, 100, 1000)
_RELATED: dict[str, Callable[[Tensor], Tensor]] = {
    "the right number with the wrong sign": torch.neg,
    "one minus the right number": lambda x: 1 - x,
    "one divided by the right number": torch.reciprocal,
    "the square of the right number": torch.square,
    "the root of the right number": torch.sqrt,
    "the logarithm of the right number": torch.log,
    "the exponential of the right number": torch.exp,
    "the right number plus one": lambda x: x + 1,
    "the right number less one": lambda x: x - 1,
    **{f"{n} times the right number": partial(torch.mul, other=n) for n in _FACTORS},
    **{f"the right number divided by {n}": partial(torch.div, other=n) for n in _FACTORS},
}


def _places(places: Sequence[int]) -> str:
    return " and ".join(("first", "second", "third", "fourth")[p] if p < 4 else f"{p + 1}th" for p in places)


def _is_finite(answer: object) -> bool:
    numbers = _numbers(answer)
    return numbers is None or bool(numbers.isfinite().all())


def _numbers(value: object) -> Tensor | None:
    """A number, a tensor or an array as a float64 tensor; None for anything else."""
    try:
        numbers = None if isinstance(value, str | dict) else torch.as_tensor(value).detach()
        return None if numbers is None or numbers.is_complex() else numbers.to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return None


def _equal(answer: object, expected: object) -> bool:
    # objects without a notion of equality, such as functions and configurations, are copied and never changed here
    return type(answer).__eq__ is object.__eq__ or bool(answer == expected)
