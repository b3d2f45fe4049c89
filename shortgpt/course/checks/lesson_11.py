"""Checks for lesson 11: the turns that theory expects, where the growth of a state comes from, and its exponent."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from shortgpt.course.checks.comparing import Answers, AnyOf, Case, compare, named_cases, seeded, standard_error


def check_expected_influence(expected_influence: Callable[[float, float, int], list[float]]) -> None:
    """Check ``expected_influence(start, step, layers)``: Block Influence of each layer that adds at a right angle."""
    cases = named_cases("start step layers", (2.0, 1.5, 6), (0.0, 1.0, 5), (3.0, 0.0, 4), (1.0, 2.0, 8))
    hints = {ZeroDivisionError: "with start 0 there is no length before the first layer: divide by the one behind"}
    compare("expected_influence", expected_influence, cases, _expected_influence, hints=hints)


def _expected_influence(start: float, step: float, layers: int) -> Answers:
    def turns(start: float = start, first: int = 0, count: int = layers, power: float = 1.0) -> list[float]:
        squared = [start**2 + (first + layer) * step**2 for layer in range(count + 1)]
        return [1 - (squared[i] / squared[i + 1]) ** (0.5 * power) for i in range(count)]

    right = turns()

    def lengths() -> list[float]:
        return [1 - (start + i * step) / (start + (i + 1) * step) for i in range(layers)]

    return right, {
        "those are the cosines: Block Influence is one minus the cosine": [1 - value for value in right],
        "the first layer (layer 0) reads the embedding alone: nothing has been added yet": turns(first=1),
        "at a right angle squares add up, lengths don't": lengths,
        "those are quotients of squared lengths: the root is missing": turns(power=2),
        "the stream begins with the embedding, of length start": lambda: turns(start=0.0),
        "a value for each layer: there is one too many, or one too few":
            AnyOf(turns(count=layers + 1), turns(count=layers - 1)),
        "square the length of the embedding as well": lambda: turns(start=start**0.5),
    }  # fmt: skip


def check_growth_parts(growth_parts: Callable[[Tensor, Tensor], tuple[float, float]]) -> None:
    """Check ``growth_parts(x_in, x_out)``: relative growth of the squared length, by the addition and by its direction."""
    cases = []
    sizes = [(2, 5, 8, torch.float32), (3, 4, 16, torch.float32), (2, 6, 64, torch.float16)]
    for seed, (batch, tokens, hidden, dtype) in enumerate(sizes):
        generator = seeded(8500 + seed)
        x, other = (torch.randn(batch, tokens, hidden, generator=generator) for _ in range(2))
        length = 0.5 + 3 * torch.rand(batch, tokens, 1, generator=generator)
        x_in = x * length * (20 if dtype == torch.float16 else 1)
        x_out = x_in + 0.3 * x_in + 0.8 * other
        words = f"{batch} samples of {tokens} tokens, hidden size {hidden}, {str(dtype).removeprefix('torch.')}"
        cases.append(Case(words, (x_in.to(dtype), x_out.to(dtype))))
    compare("growth_parts", growth_parts, cases, _growth_parts, tolerance=1e-4)


def _growth_parts(x_in: Tensor, x_out: Tensor) -> Answers:
    x, y = x_in.double(), x_out.double()
    f = y - x
    before, alone, mixed = x.square().sum(-1), f.square().sum(-1), 2 * (x * f).sum(-1)

    def means(own: Tensor, other: Tensor, by: Tensor = before) -> tuple[float, float]:
        return (own / by).mean().item(), (other / by).mean().item()

    right = means(alone, mixed)
    return right, {
        "first the part of the addition alone, then that of its direction": right[::-1],
        "the mixed term counts twice": means(alone, mixed / 2),
        "divide each token by its own squared length, then average": means(alone, mixed, before.mean()),
        "divide by the squared length that enters": means(alone, mixed, y.square().sum(-1)),
        "squared lengths: the root has no place here":
            AnyOf(means(alone.sqrt(), mixed, before), means(alone.sqrt(), mixed, before.sqrt())),
        "the direction counts against the state that enters, x_in": means(alone, 2 * (y * f).sum(-1)),
        "return the two parts, not their sum": sum(right),
        "a number for each part: average over all tokens": (alone / before, mixed / before),
    }  # fmt: skip


def check_growth_exponent(growth_exponent: Callable[[Tensor], tuple[float, float]]) -> None:
    """Check ``growth_exponent(norms)``: exponent of the growth with depth, mean over seeds, and its standard error."""
    cases = []
    for seed, (seeds, layers) in enumerate([(3, 8), (4, 16), (2, 5)]):
        generator = seeded(8600 + seed)
        slope, start = (torch.rand(seeds, 1, generator=generator) + shift for shift in (0.1, 1.0))
        noise = 0.1 * torch.randn(seeds, layers, generator=generator)
        norms = start * torch.arange(1, layers + 1) ** slope * noise.exp()
        cases.append(Case(f"{seeds} seeds of {layers} layers", (norms,)))
    zero = "layer 0 has a logarithm only if layers are counted from 1: behind layer l, l + 1 layers have added"
    compare("growth_exponent", growth_exponent, cases, _growth_exponent, not_finite=zero)


def _growth_exponent(norms: Tensor) -> Answers:
    norms = norms.double()
    place = torch.arange(1, norms.shape[1] + 1, dtype=torch.float64)

    x, y = place.log(), norms.log()

    def slopes(x: Tensor = x, y: Tensor = y) -> Tensor:
        x, y = x - x.mean(), y - y.mean(-1, keepdim=True)
        return (x * y).sum(-1) / x.square().sum()

    def told(each: Tensor, error: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return each.mean(), standard_error(each) if error is None else error

    each = slopes()
    right = told(each)
    return right, {
        "the line need not go through 0, for c is unknown: take the means off first":
            told((x * y).sum(1) / x.square().sum()),
        "take the logarithm of the lengths as well": told(slopes(y=norms)),
        "take the logarithm of the layers as well": told(slopes(x=place)),
        "that is the spread of the slopes: divide by the root of their number": told(each, each.std()),
        "the standard deviation over seeds divides by n - 1": told(each, standard_error(each, correction=0)),
        "fit each seed for itself, then average the slopes": told(slopes(y=norms.mean(0).log()), right[1]),
        "that is the slope of the layers on the lengths: lengths are explained by layers":
            told(((x - x.mean()) * (y - y.mean(1, keepdim=True))).sum(1) / (y - y.mean(1, keepdim=True)).square().sum(1)),
        "lengths, not squared lengths: that is twice the exponent": told(2 * each),
        "the mean first, then its error": right[::-1],
    }  # fmt: skip
