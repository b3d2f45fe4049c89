"""Checks for lesson 02: Block Influence of all layers, with padding, over spans, and how sure a difference is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from shortgpt.course.checks.comparing import Answers, AnyOf, Case, compare, seeded, standard_error

SIMILARITY = "that is the similarity: Block Influence is one minus it"
AVERAGE_LAST = "take the cosine of each token first and average after that: averaged states hide turns that cancel"


def check_layer_influences(layer_influences: Callable[[Sequence[Tensor], Tensor], list[float]]) -> None:
    """Check ``layer_influences(reported, last)``: the Block Influence of every layer, a list.

    ``reported`` is what transformers returns as ``hidden_states``, its last entry taken after the final norm; ``last``
    is the last layer's own output.
    """
    cases = []
    for seed, (layers, *shape) in enumerate([(3, 2, 5, 8), (5, 1, 4, 12), (4, 3, 6, 8)]):
        states = _stream(seed, layers + 1, *shape)
        gains = torch.rand(shape[-1], generator=seeded(seed)) * 3
        normed = states[-1] / states[-1].square().mean(-1, keepdim=True).sqrt() * gains
        words = f"{layers + 1} states of shape {shape}, the last of them normed"
        cases.append(Case(words, ((*states[:-1], normed), states[-1])))
    compare("layer_influences", layer_influences, cases, _layer_influences)


def _layer_influences(reported: Sequence[Tensor], last: Tensor) -> Answers:
    def influences(states: Sequence[Tensor]) -> list[Tensor]:
        return [_influence(a, b).mean() for a, b in itertools.pairwise(states)]

    states = [*reported[:-1], last]
    right = influences(states)
    return right, {
        "the last layer is off: the last entry that transformers reports has been through the final norm":
            influences(reported),
        "there is one score too few: the last layer's output is not among the reported states as it left the layer":
            influences(reported[:-1]),
        "there is one score too many: the norm after the last layer is no layer": influences([*reported, last]),
        "off by one: layer i takes entry i to entry i + 1": influences([*states[1:], last]),
        "off by one: layer 0 takes the first entry, the embedding, to the second": influences(states[1:]),
        SIMILARITY: [1 - score for score in right],
        AVERAGE_LAST: influences([x.mean((0, 1)) for x in states]),
        "that compares each state with the embedding: compare it with the state that entered the same layer":
            [_influence(states[0], x).mean() for x in states[1:]],
    }  # fmt: skip


def check_masked_influence(masked_influence: Callable[[Tensor, Tensor, Tensor], float]) -> None:
    """Check ``masked_influence(x_in, x_out, mask)``: one layer's Block Influence over the real tokens of a batch."""
    cases = [
        _padded(10, (3, 8, 16), (8, 3, 5), "right"),
        _padded(11, (2, 6, 8), (2, 6), "left"),
        _padded(12, (2, 9, 16), (9, 4), "left", nan=True),
        _padded(13, (2, 5, 256), (5, 3), "right", half=True),
    ]
    pads = "pads may hold anything, NaN included, and 0 times NaN is NaN: choose the real tokens instead of multiplying"
    compare("masked_influence", masked_influence, cases, _masked_influence, not_finite=pads)


def _padded(
    seed: int, shape: tuple[int, ...], lengths: tuple[int, ...], side: str, nan: bool = False, half: bool = False
) -> Case:
    words = f"states of shape {list(shape)} with {side} padding"
    mask = torch.stack([(torch.arange(shape[1]) < length).long() for length in lengths])
    mask = mask.flip(1) if side == "left" else mask
    x_in, x_out = _stream(seed, 2, *shape)
    x_out = x_out + 0.3 * (torch.arange(len(mask)) + 1)[:, None, None] * x_in.roll(1, -1)  # samples that differ
    if nan:
        x_in, x_out = (x.masked_fill(mask[..., None] == 0, float("nan")) for x in (x_in, x_out))
        words += " that holds NaN"
    if half:
        x_in, x_out, words = (60 * x_in).half(), (60 * x_out).half(), words + " in float16"
    return Case(words, (x_in, x_out, mask))


def _masked_influence(x_in: Tensor, x_out: Tensor, mask: Tensor) -> Answers:
    real, each = mask.bool(), _influence(x_in, x_out)
    right = each[real].mean()
    return right, {
        SIMILARITY: 1 - right,
        AVERAGE_LAST: _influence(x_in[real].double().mean(0), x_out[real].double().mean(0)),
        "pad tokens are counted: the mask is 1 at real tokens only": each.mean(),
        "these are the pads: the mask is 1 where a token is real": each[~real].mean(),
        "the sum leaves out the pads, but the number it is divided by does not":
            AnyOf((each * mask).mean(), 1 - ((1 - each) * mask).mean()),
        "that is a mean of means: tokens of short samples weigh more there, and every token should weigh the same":
            ((each * mask).sum(1) / mask.sum(1)).mean(),
    }  # fmt: skip


def check_span_angle(span_angle: Callable[[Tensor, int, int], float]) -> None:
    """Check ``span_angle(states, start, n)``: how far n layers from ``start`` on turn the states, in half turns."""
    cases = []
    for seed, (layers, start, n) in enumerate([(8, 0, 5), (6, 1, 3), (5, 4, 1), (7, 2, 2)]):
        states = _stream(20 + seed, layers + 1, 2, 40, 16)
        words = f"{layers + 1} states, start = {start} and n = {n}"
        if seed == 2:  # by more than a right angle
            states, words = torch.cat([states[: start + n], -states[start + n :]]), words + ", turned round"
        if seed == 3:
            states, words = states[:1].expand(layers + 1, -1, -1, -1).clone(), words + ", all states equal"
        cases.append(Case(words, (states, start, n)))
    beyond = "a cosine rounded to just above 1 has no angle: keep it between -1 and 1 (clamp) before arccos"
    compare("span_angle", span_angle, cases, _span_angle, tolerance=1e-3, not_finite=beyond)


def _span_angle(states: Tensor, start: int, n: int) -> Answers:
    def angles(start: int, end: int) -> Tensor:
        return (1 - _influence(states[start], states[end])).clamp(-1, 1).arccos()

    def turns(start: int, end: int) -> Tensor:
        return angles(start, end).mean() / torch.pi

    each = angles(start, start + n)
    return each.mean() / torch.pi, {
        "off by one: n layers lie between entry start and entry start + n": AnyOf(
            turns(start, start + n - 1), lambda: turns(start, start + n + 1), lambda: turns(start + 1, start + n + 1)
        ),
        "that is in radians: divide by the half turn, pi": each.mean(),
        "that is in degrees: a half turn should count as 1": each.mean().rad2deg(),
        "that is in whole turns: a half turn should count as 1": each.mean() / torch.pi / 2,
        "take the angle of each token first and average after that": each.cos().mean().arccos() / torch.pi,
        "that is one minus the cosine: the angle itself is asked for": 1 - each.cos().mean(),
        "that is the cosine: the angle itself is asked for": each.cos().mean(),
    }


def check_difference_with_error(difference_with_error: Callable[[Tensor, Tensor], tuple[float, float]]) -> None:
    """Check ``difference_with_error(first, second)``: the mean difference of two layers and its standard error."""
    cases = []
    for seed, (samples, tokens) in enumerate([(5, 12), (9, 4), (3, 20)], 30):
        generator = seeded(seed)
        text = 0.02 * torch.randn(samples, 1, generator=generator)  # what a text does to both layers
        pair = [
            shift
            + text
            + 0.005 * torch.randn(samples, 1, generator=generator)
            + 0.02 * torch.randn(samples, tokens, generator=generator)
            for shift in (0.10, 0.07)
        ]
        cases.append(Case(f"two tables of shape [{samples}, {tokens}]", tuple(100 * each for each in pair)))
    compare("difference_with_error", difference_with_error, cases, _difference_with_error)


def _difference_with_error(first: Tensor, second: Tensor) -> Answers:
    first, second = first.double(), second.double()
    tokens, samples = (first - second).flatten(), (first - second).mean(1)
    difference = samples.mean()
    return (difference, standard_error(samples)), {
        "the sign is wrong: how much higher does the first layer score?": (-difference, standard_error(samples)),
        "that takes every token for a measurement of its own: tokens of one sample are not independent, samples are":
            (difference, standard_error(tokens)),
        "both layers read the same samples: subtract within each sample first, and what a text does to both cancels":
            (difference, (standard_error(first.mean(1)) ** 2 + standard_error(second.mean(1)) ** 2) ** 0.5),
        "for a spread estimated from few samples, divide by their number less one":
            (difference, standard_error(samples, correction=0)),
        "that is the spread of the samples: the error of their mean is smaller, the more samples there are":
            (difference, samples.std()),
        "the error of a mean falls with the root of the number of samples": (difference, samples.std() / len(first)),
        "that is the error squared: a root is missing": (difference, standard_error(samples) ** 2),
    }  # fmt: skip


def _influence(x_in: Tensor, x_out: Tensor) -> Tensor:
    """One minus the cosine per token, in float64: ``[..., hidden] -> [...]``."""
    x_in, x_out = x_in.double(), x_out.double()
    return 1 - (x_in * x_out).sum(-1) / (x_in.norm(dim=-1) * x_out.norm(dim=-1))


def _stream(seed: int, entries: int, *shape: int) -> Tensor:
    """Random states along a depth, ``[entries, *shape]``: each is the one before plus something."""
    steps = torch.randn(entries, *shape, generator=seeded(3000 + seed))
    return (steps * torch.linspace(1, 0.4, entries).reshape(-1, *[1] * len(shape))).cumsum(0)
