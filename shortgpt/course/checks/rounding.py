"""Checks for lesson 04: bits a weight, rounding in groups, the size–quality frontier, and whether two losses add up."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from shortgpt.course.checks.verdict import Case, Mistake, compare


def check_bits_per_weight(bits_per_weight: Callable[..., float]) -> None:
    """Check ``bits_per_weight(shape, bits, group, scale_bits, zero_bits)``: all bits that are stored, for each weight."""
    cases = [
        Case("shape = {}, bits = {}, group = {}, scale_bits = {} and zero_bits = {}".format(*given), given)
        for given in (
            ([48, 64], 4, 16, 16, 0),
            ([7, 50], 3, 16, 16, 8),
            ([8, 576], 4, 128, 16, 8),
            ([32, 96], 8, 96, 32, 8),
        )
    ]

    def right(shape, bits, group, scale_bits, zero_bits):
        return bits + -(-shape[1] // group) * (scale_bits + zero_bits) / shape[1]

    mistakes = [
        Mistake(lambda shape, bits, group, s, z: bits, "the scales take room, too"),
        Mistake(
            lambda shape, bits, group, s, z: right(shape, bits, group, s, 0),
            "each group has a zero point beside its scale",
        ),
        Mistake(
            lambda shape, bits, group, s, z: bits + s + z,
            "a scale and a zero point belong to a whole group: each weight pays its share of them",
        ),
        Mistake(
            lambda shape, bits, group, s, z: bits + (s + z) / group,
            "the last group of a row can be shorter than the others, and it needs a whole scale all the same",
        ),
        Mistake(
            lambda shape, bits, group, s, z: bits + shape[1] // group * (s + z) / shape[1],
            "the weights behind the last full group of a row need a scale, too",
        ),
        Mistake(
            lambda shape, bits, group, s, z: bits + -(-shape[0] * shape[1] // group) * (s + z) / shape[0] / shape[1],
            "a group ends where its row ends: count the groups of one row",
        ),
        Mistake(
            lambda shape, bits, group, s, z: bits + -(-shape[0] // group) * (s + z) / shape[0],
            "groups lie along the inputs, and the shape is [outputs, inputs]",
        ),
        Mistake(lambda *a: right(*a) / 8, "that is in bytes: a byte has 8 bits"),
        Mistake(lambda *a: right(*a) * a[0][0] * a[0][1], "that is the whole matrix: divide by its number of weights"),
    ]
    compare("bits_per_weight", bits_per_weight, cases, right, mistakes)


def check_round_in_groups(round_in_groups: Callable[[Tensor, int, int], Tensor]) -> None:
    """Check ``round_in_groups(weight, bits, group)``: absmax rounding with a scale per group along the inputs."""
    cases = []
    for seed, (shape, bits, group) in enumerate(
        [((8, 16), 4, 8), ((32, 64), 4, 32), ((6, 24), 8, 6), ((16, 16), 3, 4)]
    ):
        generator = torch.Generator().manual_seed(4000 + seed)
        weight = 10 * torch.randn(*shape, generator=generator)
        words = f"a weight of shape {list(shape)}, bits = {bits} and group = {group}"
        if seed == 3:
            weight[1, :group], words = 0, words + ", one group all zeros"
        cases.append(Case(words, (weight, bits, group)))

    def to_grid(groups, bits, q_max=None, to_integer=torch.round, size=None):
        q_max = 2 ** (bits - 1) - 1 if q_max is None else q_max
        size = groups.abs().amax(-1, keepdim=True) if size is None else size
        s = size.clamp(min=1e-12) / q_max
        return s * to_integer(groups / s)

    def right(weight, bits, group, **options):
        return to_grid(weight.reshape(-1, group), bits, **options).reshape(weight.shape)

    def integers(weight, bits, group):
        groups = weight.reshape(-1, group)
        return (groups / groups.abs().amax(-1, keepdim=True).clamp(min=1e-12) * (2 ** (bits - 1) - 1)).round()

    def min_max(weight, bits, group):
        groups = weight.reshape(-1, group)
        low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
        step = ((high - low) / (2**bits - 1)).clamp(min=1e-12)
        return (low + step * ((groups - low) / step).round()).reshape(weight.shape)

    def without_absolute(weight, bits, group):
        groups = weight.reshape(-1, group)
        return to_grid(groups, bits, size=groups.amax(-1, keepdim=True)).reshape(weight.shape)

    sides = "q_max is wrong: the grid is the same on both sides of zero, and zero takes one value itself"
    unscaled = "these are the integers of the grid: multiply them by their scale"
    mistakes = [
        Mistake(
            lambda w, bits, group: right(w.T.contiguous(), bits, group).T,
            "these groups lie along the outputs: the weights of a group are neighbours in one row",
        ),
        Mistake(
            lambda w, bits, group: to_grid(w, bits), "that is one scale for a whole row: each group has its own scale"
        ),
        Mistake(
            lambda w, bits, group: to_grid(w, bits, size=w.abs().max()),
            "that is one scale for the whole matrix: each group has its own scale",
        ),
        Mistake(lambda w, bits, group: right(w, bits, group, q_max=2 ** (bits - 1)), sides),
        Mistake(lambda w, bits, group: right(w, bits, group, q_max=2**bits - 1), sides),
        Mistake(
            lambda w, bits, group: to_grid(w.reshape(-1, group), bits),
            "each row of this answer is a group: give the result the shape of the weight",
        ),
        Mistake(integers, unscaled),
        Mistake(lambda *a: integers(*a).reshape(a[0].shape), unscaled),
        *[
            Mistake(
                lambda *a, cut=cut: right(*a, to_integer=cut), "round to the nearest integer instead of cutting off"
            )
            for cut in (torch.trunc, torch.floor, torch.ceil)
        ],
        Mistake(
            without_absolute,
            "the largest weight of a group may be negative: take absolute values before the largest",
        ),
        Mistake(min_max, "that grid runs from the smallest weight to the largest: here it is symmetric around zero"),
        Mistake(lambda w, bits, group: w, "the weights are not rounded at all"),
    ]  # fmt: skip
    zeros = "a group whose weights are all zero has the scale 0, and 0 / 0 is NaN: keep the scale above zero"
    compare("round_in_groups", round_in_groups, cases, right, mistakes, not_finite=zeros)


def check_best_models(best_models: Callable[[list[float], list[float]], list[int]]) -> None:
    """Check ``best_models(sizes, perplexities)``: positions of the models that no other beats, the smallest first."""
    cases = [
        Case(f"sizes = {sizes} and perplexities = {perplexities}", (sizes, perplexities))
        for sizes, perplexities in [
            ([50, 10, 30, 20, 40], [10.0, 50.0, 30.0, 35.0, 45.0]),
            ([500, 300, 300, 100, 400], [20.0, 25.0, 22.0, 40.0, 22.0]),
            ([40, 20, 50, 30, 10], [40.0, 30.0, 20.0, 45.0, 50.0]),
            ([7, 3, 7, 5, 3, 9, 4], [18.0, 60.0, 16.0, 31.0, 44.0, 17.0, 31.0]),
        ]
    ]

    def by_size(sizes, perplexities):
        return sorted(range(len(sizes)), key=lambda i: (sizes[i], perplexities[i]))

    def beaten(i, sizes, perplexities):
        here = (sizes[i], perplexities[i])
        others = zip(sizes, perplexities, strict=True)
        return any(size <= here[0] and value <= here[1] and (size, value) != here for size, value in others)

    def right(sizes, perplexities):
        return [i for i in by_size(sizes, perplexities) if not beaten(i, sizes, perplexities)]

    def unless_both_better(sizes, perplexities):
        def both(i):
            return any(s < sizes[i] and p < perplexities[i] for s, p in zip(sizes, perplexities, strict=True))

        return [i for i in by_size(sizes, perplexities) if not both(i)]

    def better_than_the_one_before(sizes, perplexities):
        order = by_size(sizes, perplexities)
        return order[:1] + [b for a, b in itertools.pairwise(order) if perplexities[b] < perplexities[a]]

    tie = "a model is beaten by one of the same size with a lower perplexity, too, and by a smaller one with the same"
    mistakes = [
        Mistake(
            lambda sizes, perplexities: right(sizes, [-p for p in perplexities]),
            "a lower perplexity is better, and you kept the higher ones",
        ),
        Mistake(lambda *a: sorted(right(*a)), "the right models, but the smallest should come first"),
        Mistake(lambda *a: right(*a)[::-1], "the right models, but the smallest should come first, not last"),
        Mistake(unless_both_better, tie),
        Mistake(
            better_than_the_one_before,
            "being better than the next smaller model isn't enough: no smaller one may be better",
        ),
        Mistake(lambda *a: [a[0][i] for i in right(*a)], "these are sizes: return the positions in the lists"),
        Mistake(
            lambda *a: [by_size(*a).index(i) for i in right(*a)],
            "these are positions in a sorted list: return those in the lists that you were given",
        ),
        Mistake(lambda *a: [i for i in by_size(*a) if i not in right(*a)], "these are the models that are beaten"),
        Mistake(by_size, "that sorts the models and keeps all of them: leave out those that another one beats"),
        Mistake(lambda *a: [], "no model is left: a model is as large and as good as itself, and must not beat itself"),
    ]
    compare("best_models", best_models, cases, right, mistakes)


def check_interaction(interaction: Callable[..., tuple[float, float]]) -> None:
    """Check ``interaction(dense, pruned, quantized, both)``: what both cost beyond the sum, and its standard error."""
    cases = []
    for seed, documents in enumerate([6, 11, 4]):
        generator = torch.Generator().manual_seed(5000 + seed)
        text = 3 + 0.4 * torch.randn(documents, generator=generator)  # what makes a text hard for all four models
        rises = [added + 0.05 * torch.randn(documents, generator=generator) for added in (0.35, 0.2, 0.65)]
        cases.append(Case(f"losses of {documents} documents", (text, *(text + rise for rise in rises))))

    def error(values: Tensor, correction: int = 1) -> Tensor:
        return values.std(correction=correction) / len(values) ** 0.5

    def together(*losses: Tensor) -> Tensor:
        dense, pruned, quantized, both = (each.double() for each in losses)
        return both - pruned - quantized + dense

    def right(*losses):
        return together(*losses).mean(), error(together(*losses))

    def with_error(new_error: Callable[..., Tensor]) -> Callable:
        return lambda *losses: (together(*losses).mean(), new_error(*(each.double() for each in losses)))

    def of(values: Callable[..., Tensor]) -> Callable:
        def answer(*losses: Tensor) -> tuple[Tensor, Tensor]:
            made = values(*(each.double() for each in losses))
            return made.mean(), error(made)

        return answer

    def root_of_sum(errors: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(errors)).square().sum().sqrt()

    apart = "all four models read the same documents: compute the interaction of each document first, then its spread"
    perplexities = "that is about perplexities: losses add up, so subtract losses"
    mistakes = [
        Mistake(of(lambda *losses: -together(*losses)), "the sign is wrong: both, minus each of the two alone"),
        Mistake(
            of(lambda dense, pruned, quantized, both: both - pruned - quantized),
            "each of the three losses is a loss above the dense model's: the dense loss is taken off once too often",
        ),
        Mistake(of(lambda dense, pruned, quantized, both: both - dense), "that is all that both cost, not what is left"),
        Mistake(of(lambda *losses: together(*(each.exp() for each in losses))), perplexities),
        Mistake(of(lambda *losses: together(*losses).exp()), perplexities),
        Mistake(lambda *losses: (together(*losses).mean().exp(), error(together(*losses))), perplexities),
        Mistake(with_error(lambda *losses: root_of_sum(error(each) for each in losses)), apart),
        Mistake(with_error(lambda dense, *others: root_of_sum(error(each - dense) for each in others)), apart),
        Mistake(
            with_error(lambda *losses: error(together(*losses), correction=0)),
            "for a spread estimated from few documents, divide by their number less one",
        ),
        Mistake(
            with_error(lambda *losses: together(*losses).std()),
            "that is the spread of the documents: the error of their mean is smaller, the more documents there are",
        ),
    ]  # fmt: skip
    compare("interaction", interaction, cases, right, mistakes)
