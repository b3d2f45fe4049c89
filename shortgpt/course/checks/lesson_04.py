"""Checks for lesson 04: bits a weight, rounding in groups, the size–quality frontier, and whether two losses add up."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from shortgpt.course.checks.comparing import Answers, AnyOf, Case, compare, named_cases, seeded, standard_error


def check_bits_per_weight(bits_per_weight: Callable[..., float]) -> None:
    """Check ``bits_per_weight(shape, bits, group, scale_bits, zero_bits)``: all bits that are stored, for each weight."""
    cases = named_cases(
        "shape bits group scale_bits zero_bits",
        ([48, 64], 4, 16, 16, 0),
        ([7, 49], 3, 16, 16, 8),
        ([8, 576], 4, 128, 16, 8),
        ([32, 96], 8, 96, 32, 8),
    )
    compare("bits_per_weight", bits_per_weight, cases, _bits_per_weight)


def _bits_per_weight(shape: Sequence[int], bits: int, group: int, scale_bits: int, zero_bits: int) -> Answers:
    outputs, inputs = shape
    groups, extra = -(-inputs // group), scale_bits + zero_bits
    right = bits + groups * extra / inputs
    return right, {
        "the scales take room, too": bits,
        "each group has a zero point beside its scale": bits + groups * scale_bits / inputs,
        "a scale and a zero point belong to a whole group: each weight pays its share of them": bits + extra,
        "the last group of a row can be shorter than the others, and it needs a whole scale all the same":
            bits + extra / group,
        "the weights behind the last full group of a row need a scale, too": bits + inputs // group * extra / inputs,
        "a group ends where its row ends: count the groups of one row":
            bits + -(-outputs * inputs // group) * extra / outputs / inputs,
        "groups lie along the inputs, and the shape is [outputs, inputs]": bits + -(-outputs // group) * extra / outputs,
        "that is in bytes: a byte has 8 bits": right / 8,
        "that is the whole matrix: divide by its number of weights": right * outputs * inputs,
    }  # fmt: skip


def check_round_in_groups(round_in_groups: Callable[[Tensor, int, int], Tensor]) -> None:
    """Check ``round_in_groups(weight, bits, group)``: absmax rounding with a scale per group along the inputs."""
    cases = []
    tried = [((8, 16), 4, 8), ((32, 64), 4, 32), ((6, 24), 8, 6), ((16, 16), 3, 4)]
    for seed, (shape, bits, group) in enumerate(tried):
        weight = 10 * torch.randn(*shape, generator=seeded(4000 + seed))
        words = f"a weight of shape {list(shape)}, bits = {bits} and group = {group}"
        if seed == 3:
            weight[1, :group], words = 0, words + ", one group all zeros"
        cases.append(Case(words, (weight, bits, group)))
    zeros = "a group whose weights are all zero has the scale 0, and 0 / 0 is NaN: keep the scale above zero"
    compare("round_in_groups", round_in_groups, cases, _round_in_groups, not_finite=zeros)


def _round_in_groups(weight: Tensor, bits: int, group: int) -> Answers:
    largest, groups, columns = 2 ** (bits - 1) - 1, weight.reshape(-1, group), weight.T.reshape(-1, group)

    def step(values: Tensor, q_max: int = largest) -> Tensor:
        return values.abs().amax(-1, keepdim=True).clamp(min=1e-12) / q_max

    def shaped(values: Tensor) -> Tensor:
        return values.reshape(weight.shape)

    own, low, high = step(groups), groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    return shaped(_on_grid(groups, own)), {
        "these groups lie along the outputs: the weights of a group are neighbours in one row":
            _on_grid(columns, step(columns)).reshape(weight.T.shape).T,
        "that is one scale for a whole row: each group has its own scale": _on_grid(weight, step(weight)),
        "that is one scale for the whole matrix: each group has its own scale": _on_grid(weight, step(weight.flatten())),
        "q_max is wrong: the grid is the same on both sides of zero, and zero takes one value itself":
            AnyOf(*(shaped(_on_grid(groups, step(groups, q_max))) for q_max in (2 ** (bits - 1), 2**bits - 1))),
        "each row of this answer is a group: give the result the shape of the weight": _on_grid(groups, own),
        "these are the integers of the grid: multiply them by their scale":
            AnyOf((groups / own).round(), shaped((groups / own).round())),
        "round to the nearest integer instead of cutting off":
            AnyOf(*(shaped(_on_grid(groups, own, cut)) for cut in (torch.trunc, torch.floor, torch.ceil))),
        "the largest weight of a group may be negative: take absolute values before the largest":
            shaped(_on_grid(groups, high.clamp(min=1e-12) / largest)),
        "that grid runs from the smallest weight to the largest: here it is symmetric around zero":
            shaped(low + _on_grid(groups - low, ((high - low) / (2**bits - 1)).clamp(min=1e-12))),
        "the weights are not rounded at all": weight,
    }  # fmt: skip


def _on_grid(values: Tensor, step: Tensor, cut: Callable[[Tensor], Tensor] = torch.round) -> Tensor:
    return step * cut(values / step)


def check_best_models(best_models: Callable[[list[float], list[float]], list[int]]) -> None:
    """Check ``best_models(sizes, perplexities)``: positions of the models that no other beats, the smallest first."""
    cases = named_cases(
        "sizes perplexities",
        ([50, 10, 30, 20, 40], [10.0, 50.0, 30.0, 35.0, 45.0]),
        ([500, 300, 300, 100, 400], [20.0, 25.0, 22.0, 40.0, 22.0]),
        ([40, 20, 50, 30, 10], [40.0, 30.0, 20.0, 45.0, 50.0]),
        ([7, 3, 7, 5, 3, 9, 4], [18.0, 60.0, 16.0, 31.0, 44.0, 17.0, 31.0]),
    )
    compare("best_models", best_models, cases, _best_models)


def _best_models(sizes: list[float], perplexities: list[float]) -> Answers:
    def unbeaten(values: list[float], beats: Callable = lambda a, b: a != b and a[0] <= b[0] and a[1] <= b[1]) -> list:
        models = list(zip(sizes, values, strict=True))
        order = sorted(range(len(models)), key=models.__getitem__)
        return [i for i in order if not any(beats(other, models[i]) for other in models)]

    right, order = unbeaten(perplexities), unbeaten(perplexities, lambda a, b: False)
    return right, {
        "a lower perplexity is better, and you kept the higher ones": unbeaten([-value for value in perplexities]),
        "the right models, but the smallest should come first": sorted(right),
        "the right models, but the smallest should come first, not last": right[::-1],
        "a model is beaten by one of the same size with a lower perplexity, too, and by a smaller one with the same":
            unbeaten(perplexities, lambda a, b: a[0] < b[0] and a[1] < b[1]),
        "being better than the next smaller model isn't enough: no smaller one may be better":
            order[:1] + [b for a, b in itertools.pairwise(order) if perplexities[b] < perplexities[a]],
        "these are sizes: return the positions in the lists": [sizes[i] for i in right],
        "these are positions in a sorted list: return those in the lists that you were given":
            [order.index(i) for i in right],
        "these are the models that are beaten": [i for i in order if i not in right],
        "that sorts the models and keeps all of them: leave out those that another one beats": order,
        "no model is left: a model is as large and as good as itself, and must not beat itself": [],
    }  # fmt: skip


def check_interaction(interaction: Callable[..., tuple[float, float]]) -> None:
    """Check ``interaction(dense, pruned, quantized, both)``: what both cost beyond the sum, and its standard error."""
    cases = []
    for seed, documents in enumerate([6, 11, 4]):
        generator = seeded(5000 + seed)
        text = 3 + 0.4 * torch.randn(documents, generator=generator)  # what makes a text hard for all four models
        rises = [added + 0.05 * torch.randn(documents, generator=generator) for added in (0.35, 0.2, 0.65)]
        cases.append(Case(f"losses of {documents} documents", (text, *(text + rise for rise in rises))))
    compare("interaction", interaction, cases, _interaction)


def _interaction(*losses: Tensor) -> Answers:
    def together(dense: Tensor, pruned: Tensor, quantized: Tensor, both: Tensor) -> Tensor:
        return both - pruned - quantized + dense

    def measured(values: Tensor) -> tuple[Tensor, Tensor]:
        return values.mean(), standard_error(values)

    def apart(*values: Tensor) -> tuple[Tensor, Tensor]:
        return mean, torch.stack([standard_error(each) for each in values]).square().sum().sqrt()

    dense, *others = losses = tuple(each.double() for each in losses)
    each = together(*losses)
    mean = each.mean()
    return measured(each), {
        "the sign is wrong: both, minus each of the two alone": measured(-each),
        "each of the three losses is a loss above the dense model's: the dense loss is taken off once too often":
            measured(each - dense),
        "that is all that both cost, not what is left": measured(losses[-1] - dense),
        "that is about perplexities: losses add up, so subtract losses": AnyOf(
            measured(together(*(each.exp() for each in losses))), measured(each.exp()), (mean.exp(), standard_error(each))),
        "all four models read the same documents: compute the interaction of each document first, then its spread":
            AnyOf(apart(*losses), apart(*(each - dense for each in others))),
        "for a spread estimated from few documents, divide by their number less one":
            (mean, standard_error(each, correction=0)),
        "that is the spread of the documents: the error of their mean is smaller, the more documents there are":
            (mean, each.std()),
    }  # fmt: skip
