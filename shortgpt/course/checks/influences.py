"""Checks for lesson 02: Block Influence of all layers, with padding, over spans, and how sure a difference is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from shortgpt.course.checks.verdict import Case, Mistake, compare

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
        gains = torch.rand(shape[-1], generator=torch.Generator().manual_seed(seed)) * 3
        normed = states[-1] / states[-1].square().mean(-1, keepdim=True).sqrt() * gains
        words = f"{layers + 1} states of shape {shape}, the last of them normed"
        cases.append(Case(words, ((*states[:-1], normed), states[-1])))

    def influences(states):
        return [_influence(a, b).mean() for a, b in itertools.pairwise(states)]

    def right(reported, last):
        return influences([*reported[:-1], last])

    mistakes = [
        Mistake(
            lambda reported, last: influences(reported),
            "the last layer is off: the last entry that transformers reports has been through the final norm",
        ),
        Mistake(
            lambda reported, last: influences(reported[:-1]),
            "there is one score too few: the last layer's output is not among the reported states as it left the layer",
        ),
        Mistake(
            lambda reported, last: influences([*reported, last]),
            "there is one score too many: the norm after the last layer is no layer",
        ),
        Mistake(
            lambda reported, last: influences([*reported[1:-1], last, last]),
            "off by one: layer i takes entry i to entry i + 1",
        ),
        Mistake(
            lambda reported, last: influences([*reported[1:-1], last]),
            "off by one: layer 0 takes the first entry, the embedding, to the second",
        ),
        Mistake(lambda reported, last: [1 - score for score in right(reported, last)], SIMILARITY),
        Mistake(
            lambda reported, last: influences([x.mean((0, 1)) for x in (*reported[:-1], last)]),
            AVERAGE_LAST,
        ),
        Mistake(
            lambda reported, last: [_influence(reported[0], x).mean() for x in (*reported[1:-1], last)],
            "that compares each state with the embedding: compare it with the state that entered the same layer",
        ),
    ]
    compare("layer_influences", layer_influences, cases, right, mistakes)


def check_masked_influence(masked_influence: Callable[[Tensor, Tensor, Tensor], float]) -> None:
    """Check ``masked_influence(x_in, x_out, mask)``: one layer's Block Influence over the real tokens of a batch."""
    cases = []
    for seed, (shape, lengths, side, pads) in enumerate(
        [
            ((3, 8, 16), (8, 3, 5), "right", 0.0),
            ((2, 6, 8), (2, 6), "left", 0.0),
            ((2, 9, 16), (9, 4), "left", float("nan")),
            ((2, 5, 256), (5, 3), "right", 0.0),
        ]
    ):
        mask = torch.stack([(torch.arange(shape[1]) < length).long() for length in lengths])
        mask = mask.flip(1) if side == "left" else mask
        x_in, x_out = _stream(10 + seed, 2, *shape)
        x_out = x_out + 0.3 * (torch.arange(len(mask)) + 1)[:, None, None] * x_in.roll(1, -1)  # samples that differ
        words = f"states of shape {list(shape)} with {side} padding"
        if pads:
            x_in, x_out = (x.masked_fill(mask[..., None] == 0, pads) for x in (x_in, x_out))
            words += " that holds NaN"
        if seed == 3:
            x_in, x_out, words = (60 * x_in).half(), (60 * x_out).half(), words + " in float16"
        cases.append(Case(words, (x_in, x_out, mask)))

    def right(x_in, x_out, mask):
        return _influence(x_in, x_out)[mask.bool()].mean()

    def of_means(x_in, x_out, mask):
        return _influence(x_in[mask.bool()].double().mean(0), x_out[mask.bool()].double().mean(0))

    mistakes = [
        Mistake(lambda *a: 1 - right(*a), SIMILARITY),
        Mistake(of_means, AVERAGE_LAST),
        Mistake(
            lambda x_in, x_out, mask: _influence(x_in, x_out).mean(),
            "pad tokens are counted: the mask is 1 at real tokens only",
        ),
        Mistake(
            lambda x_in, x_out, mask: _influence(x_in, x_out)[~mask.bool()].mean(),
            "these are the pads: the mask is 1 where a token is real",
        ),
        Mistake(
            lambda x_in, x_out, mask: (_influence(x_in, x_out) * mask).mean(),
            "the sum leaves out the pads, but the number it is divided by does not",
        ),
        Mistake(
            lambda x_in, x_out, mask: 1 - ((1 - _influence(x_in, x_out)) * mask).mean(),
            "the sum leaves out the pads, but the number it is divided by does not",
        ),
        Mistake(
            lambda x_in, x_out, mask: ((_influence(x_in, x_out) * mask).sum(1) / mask.sum(1)).mean(),
            "that is a mean of means: tokens of short samples weigh more there, and every token should weigh the same",
        ),
    ]
    pads = "pads may hold anything, NaN included, and 0 times NaN is NaN: choose the real tokens instead of multiplying"
    compare("masked_influence", masked_influence, cases, right, mistakes, not_finite=pads)


def check_span_angle(span_angle: Callable[[Tensor, int, int], float]) -> None:
    """Check ``span_angle(states, start, n)``: how far n layers from ``start`` on turn the states, in half turns."""
    cases = []
    for seed, (layers, start, n) in enumerate([(8, 0, 5), (6, 1, 3), (5, 4, 1), (7, 2, 2)]):
        states = _stream(20 + seed, layers + 1, 2, 40, 16)
        words = f"{layers + 1} states, start = {start} and n = {n}"
        if seed == 3:
            states, words = states[:1].expand(layers + 1, -1, -1, -1).clone(), words + ", all states equal"
        cases.append(Case(words, (states, start, n)))

    def angles(states, start, n):
        cosine = 1 - _influence(states[start], states[start + n])
        return cosine.clamp(-1, 1).arccos()

    def right(states, start, n):
        return angles(states, start, n).mean() / torch.pi

    short = "off by one: n layers lie between entry start and entry start + n"
    mistakes = [
        Mistake(lambda states, start, n: right(states, start, n - 1), short),
        Mistake(lambda states, start, n: right(states, start, n + 1), short),
        Mistake(lambda states, start, n: right(states, start + 1, n), short),
        Mistake(lambda *a: angles(*a).mean(), "that is in radians: divide by the half turn, pi"),
        Mistake(lambda *a: angles(*a).mean().rad2deg(), "that is in degrees: a half turn should count as 1"),
        Mistake(lambda *a: angles(*a).mean() / torch.pi / 2, "that is in whole turns: a half turn should count as 1"),
        Mistake(
            lambda *a: angles(*a).cos().mean().arccos() / torch.pi,
            "take the angle of each token first and average after that",
        ),
        Mistake(lambda *a: 1 - angles(*a).cos().mean(), "that is one minus the cosine: the angle itself is asked for"),
        Mistake(lambda *a: angles(*a).cos().mean(), "that is the cosine: the angle itself is asked for"),
    ]
    beyond = "a cosine rounded to just above 1 has no angle: keep it between -1 and 1 (clamp) before arccos"
    compare("span_angle", span_angle, cases, right, mistakes, tolerance=1e-3, not_finite=beyond)


def check_difference_with_error(difference_with_error: Callable[[Tensor, Tensor], tuple[float, float]]) -> None:
    """Check ``difference_with_error(first, second)``: the mean difference of two layers and its standard error."""
    cases = []
    for seed, (samples, tokens) in enumerate([(5, 12), (9, 4), (3, 20)]):
        generator = torch.Generator().manual_seed(30 + seed)
        text = 0.02 * torch.randn(samples, 1, generator=generator)  # what a text does to both layers
        pair = [
            shift
            + text
            + 0.005 * torch.randn(samples, 1, generator=generator)
            + 0.02 * torch.randn(samples, tokens, generator=generator)
            for shift in (0.10, 0.07)
        ]
        cases.append(Case(f"two tables of shape [{samples}, {tokens}]", tuple(100 * each for each in pair)))

    def error(values, correction=1):
        return values.std(correction=correction) / len(values) ** 0.5

    def right(first, second):
        means = (first - second).double().mean(1)
        return means.mean(), error(means)

    def with_error(new_error):
        return lambda first, second: (right(first, second)[0], new_error(first.double(), second.double()))

    mistakes = [
        Mistake(
            lambda first, second: right(second, first), "the sign is wrong: how much higher does the first layer score?"
        ),
        Mistake(
            with_error(lambda first, second: error((first - second).flatten())),
            "that takes every token for a measurement of its own: tokens of one sample are not independent, samples are",
        ),
        Mistake(
            with_error(lambda first, second: (error(first.mean(1)) ** 2 + error(second.mean(1)) ** 2) ** 0.5),
            "both layers read the same samples: subtract within each sample first, and what a text does to both cancels",
        ),
        Mistake(
            with_error(lambda first, second: error((first - second).mean(1), correction=0)),
            "for a spread estimated from few samples, divide by their number less one",
        ),
        Mistake(
            with_error(lambda first, second: (first - second).mean(1).std()),
            "that is the spread of the samples: the error of their mean is smaller, the more samples there are",
        ),
        Mistake(
            with_error(lambda first, second: (first - second).mean(1).std() / len(first)),
            "the error of a mean falls with the root of the number of samples",
        ),
        Mistake(
            with_error(lambda first, second: error((first - second).mean(1)) ** 2),
            "that is the error squared: a root is missing",
        ),
    ]
    compare("difference_with_error", difference_with_error, cases, right, mistakes)


def _influence(x_in: Tensor, x_out: Tensor) -> Tensor:
    """One minus the cosine per token, in float64: ``[..., hidden] -> [...]``."""
    x_in, x_out = x_in.double(), x_out.double()
    return 1 - (x_in * x_out).sum(-1) / (x_in.norm(dim=-1) * x_out.norm(dim=-1))


def _stream(seed: int, entries: int, *shape: int) -> Tensor:
    """Random states along a depth, ``[entries, *shape]``: each is the one before plus something."""
    steps = torch.randn(entries, *shape, generator=torch.Generator().manual_seed(3000 + seed))
    return (steps * torch.linspace(1, 0.4, entries).reshape(-1, *[1] * len(shape))).cumsum(0)
