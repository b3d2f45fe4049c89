"""Checks for lesson 12: parameters from a configuration, layers that have to go, and where a curve passes a limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from shortgpt.course.checks.comparing import Answers, AnyOf, compare, named_cases

NOTHING = "your function gave None, but there is an answer here: does each way through it end with a return?"


def check_model_parameters(model_parameters: Callable[[int, int, int, int, bool], int]) -> None:
    """Check ``model_parameters(layer, layers, hidden, vocabulary, tied)``: parameters of a whole model."""
    cases = named_cases(
        "layer layers hidden vocabulary tied",
        (202_383_360, 32, 4096, 32_000, False),
        (3_540_096, 30, 576, 49_152, True),
        (1_000, 3, 10, 70, True),
        (1_000, 3, 10, 70, False),
    )
    compare("model_parameters", model_parameters, cases, _model_parameters, tolerance=0)


def _model_parameters(layer: int, layers: int, hidden: int, vocabulary: int, tied: bool) -> Answers:
    in_layers, matrix = layer * layers, vocabulary * hidden
    right = in_layers + (2 - tied) * matrix + hidden
    return right, {
        "the last norm is missing: one number for each entry of the hidden state": right - hidden,
        "there is one last norm, behind all layers; the norms of the layers are counted in `layer`":
            right + (layers - 1) * hidden,
        "if `tied` is true, the matrix at the end is the embedding: count it once": in_layers + 2 * matrix + hidden,
        "if `tied` is false, there is a second matrix at the end (a tied model has one)": in_layers + matrix + hidden,
        "the embedding is missing: a vector of `hidden` numbers for each token of the vocabulary": in_layers + hidden,
        "there are `layers` layers, each with `layer` parameters": right - in_layers + layer,
        "the embedding has a vector of `hidden` numbers for each token: multiply":
            in_layers + (2 - tied) * (vocabulary + hidden) + hidden,
    }  # fmt: skip


def check_layers_to_remove(layers_to_remove: Callable[[int, int, int, int], int | None]) -> None:
    """Check ``layers_to_remove(total, layer, layers, budget)``: how many layers have to go, or None."""
    cases = named_cases(
        "total layer layers budget",
        (100, 10, 8, 75),
        (100, 10, 8, 70),
        (100, 10, 8, 100),
        (100, 10, 8, 250),
        (100, 10, 8, 5),
        (100, 10, 8, 21),
        (100, 10, 8, 30),
        (13_500_000_001, 404_766_720, 32, 12_000_000_000),
    )
    compare(
        "layers_to_remove",
        layers_to_remove,
        cases,
        _layers_to_remove,
        tolerance=0,
        counts=lambda answer: -1 if answer is None else answer,
    )


def _layers_to_remove(total: int, layer: int, layers: int, budget: int) -> Answers:
    exact = -(-(total - budget) // layer)
    n = max(0, exact)

    def possible(n: int) -> int:
        return n if n < layers else -1

    right = possible(n)
    return right, {
        "a model that fits loses nothing: return 0, not a negative number": possible(exact),
        "round up: a part of a layer can't go, and with one layer fewer removed the rest is too large":
            possible(max(0, (total - budget) // layer)),
        "where the number is whole already, one layer too many goes": AnyOf(
            possible(max(0, (total - budget) // layer + 1)),
            possible((total - budget) // layer + 1 if total > budget else 0)),
        "the last layer has to stay: if all of them would have to go, return None": n if n <= layers else -1,
        "if it does not fit even with one layer left, return None": AnyOf(n, min(n, layers), min(n, layers - 1)),
        "that is how many layers stay: how many go?": AnyOf(max(0, layers - n), (budget - (total - layers * layer)) // layer),
        "what stands outside the layers takes memory, too: begin with `total - budget`":
            possible(max(0, -(-(layers * layer - budget) // layer))),
        NOTHING: -1,
    }  # fmt: skip


def check_first_share_at(
    first_share_at: Callable[[Sequence[float], Sequence[float], float], float | None],
) -> None:
    """Check ``first_share_at(shares, times, limit)``: share at which the factor first reaches the limit, or None."""
    cases = named_cases(
        "shares times limit",
        ([0.0, 0.1, 0.2, 0.4], [1.0, 1.2, 1.9, 5.0], 2),
        ([0.0, 0.1, 0.2, 0.3, 0.5], [1.0, 1.5, 4.0, 3.0, 40.0], 3.5),
        ([0.0, 0.125, 0.25, 0.375], [1.0, 1.1, 1.4, 1.8], 2),
        ([0.0, 0.2, 0.3], [1.0, 1.5, 2.0], 2),
        ([0.0, 0.05, 0.25], [1.0, 300.0, 1000.0], 10),
    )
    compare(
        "first_share_at",
        first_share_at,
        cases,
        _first_share_at,
        counts=lambda answer: -1.0 if answer is None else answer,
        hints={IndexError: "the curve may never reach the limit: then return None"},
    )


def _first_share_at(shares: Sequence[float], times: Sequence[float], limit: float) -> Answers:
    logs, limit_log = [math.log(value) for value in times], math.log(limit)
    places = [i for i, value in enumerate(times) if value >= limit]
    first = places[0] if places else len(times)
    again = [i for i in range(1, len(times)) if times[i - 1] < limit <= times[i]]
    beyond = [i for i, value in enumerate(times) if value > limit]

    def between(i: int, wanted: float, values: Sequence[float]) -> float:
        part = (wanted - values[i - 1]) / (values[i] - values[i - 1])
        return shares[i - 1] + part * (shares[i] - shares[i - 1])

    def or_none(i: int, wanted: float = limit_log, values: Sequence[float] = logs) -> float:
        return between(i, wanted, values) if places else -1.0

    right = or_none(first)
    unreached = (shares[-1], 1.0, 0.0) if not places else (right,) * 3
    return right, {
        "that is a straight line in the factor itself: take the logarithm of factors and limit first":
            lambda: or_none(first, limit, times),
        "the limit has a logarithm, too": lambda: or_none(first, limit),
        "that is the first measured share beyond the limit: the answer lies before it, between two points":
            lambda: shares[first] if places else -1.0,
        "that is the last measured share below the limit: the answer lies behind it, between two points":
            lambda: shares[first - 1] if places else -1.0,
        "that is the last time that the curve passes the limit: it may fall and come back, and the first time counts":
            lambda: or_none(again[-1]),
        "a factor equal to the limit has reached it: compare with >=": lambda: or_none(beyond[0]) if beyond else -1.0,
        "the curve may never reach the limit: then return None": AnyOf(*unreached),
        "the way is a part of the step between the two shares: multiply it by their difference":
            lambda: shares[first - 1] + (limit_log - logs[first - 1]) / (logs[first] - logs[first - 1]),
        "that is an index: take the share there": lambda: float(first),
        NOTHING: -1.0,
    }  # fmt: skip
