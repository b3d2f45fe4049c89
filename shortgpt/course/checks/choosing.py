"""Checks for lesson 06: agreement of two choices above chance, a search by exchanges, a repair by least squares."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection

import numpy as np
import torch
from torch import Tensor

from shortgpt.course.checks.verdict import Case, CheckFailed, Mistake, compare


def check_overlap_above_chance(overlap_above_chance: Callable[[list[int], list[int], int], float]) -> None:
    """Check ``overlap_above_chance(first, second, depth)``: 1 for the same layers, 0 for what chance gives in the mean."""
    tried = [
        ([4, 9, 2, 7], [7, 3, 9, 11], 12),
        ([0, 1, 2], [2, 1, 0], 10),
        ([5, 6, 7, 8, 9], [1, 3, 9, 13, 15], 20),
        ([0, 1, 2], [7, 8, 9], 10),
    ]
    cases = [
        Case(f"first = {first}, second = {second} and depth = {depth}", (first, second, depth))
        for first, second, depth in tried
    ]

    def share(first, second):
        return len({*first} & {*second}) / len(first)

    def scaled(value, chance):
        return (value - chance) / (1 - chance)

    def right(first, second, depth):
        return scaled(share(first, second), len(first) / depth)

    mistakes = [
        Mistake(lambda a, b, depth: share(a, b), "two choices by coin overlap as well: take that share off"),
        Mistake(
            lambda a, b, depth: share(a, b) - len(a) / depth,
            "the same layers twice should give 1: divide by how far above chance an overlap can be",
        ),
        Mistake(
            lambda a, b, depth: share(a, b) * depth / len(a),
            "that is how many times chance: ask how much of the way from chance to perfect it goes",
        ),
        Mistake(
            lambda a, b, depth: scaled(share(a, b), 1 / depth),
            "chance depends on how many are chosen: a layer of one choice is in another of n layers n times out of depth",
        ),
        Mistake(
            lambda a, b, depth: scaled(share(a, b), (len(a) / depth) ** 2),
            "take a layer that the first choice has: the chance that the second has it too is not a square",
        ),
        Mistake(
            lambda a, b, depth: scaled(np.mean(np.equal(a, b)), len(a) / depth),
            "a choice is a set: the order of the numbers must not matter",
        ),
        Mistake(
            lambda a, b, depth: scaled(len({*a} & {*b}) / len({*a} | {*b}), len(a) / depth),
            "divide the layers in common by the size of one choice, not by that of both together",
        ),
        Mistake(
            lambda a, b, depth: max(0.0, right(a, b, depth)),
            "fewer in common than chance gives is a value below zero, and worth knowing: don't cut it off",
        ),
    ]  # fmt: skip
    compare("overlap_above_chance", overlap_above_chance, cases, right, mistakes)


def check_exchange_search(exchange_search: Callable[[Callable, list[int], list[int]], list[int]]) -> None:
    """Check ``exchange_search(cost, chosen, candidates)``: the best single exchange, again and again while it helps."""
    cases = []
    for seed in (2, 18, 29, 45):
        candidates = list(range(2, 10))
        cost, chosen = _cost(seed, candidates), [2, 3, 4]
        cases.append(
            Case(f"chosen = {chosen}, candidates 2 to 9 and the cost of seed {seed}", (cost, chosen, candidates))
        )

    def search(cost, chosen, candidates, rounds=99, sign=1, old_only=False):
        best = sorted(chosen)
        for _ in range(rounds):
            outs = [layer for layer in best if not old_only or layer in chosen]
            trials = [
                sorted([*({*best} - {out}), new]) for out in outs for new in candidates if new not in best
            ]  # fmt: skip
            found = min(trials, key=lambda layers: sign * cost(layers), default=best)
            if sign * cost(found) >= sign * cost(best):
                break
            best = found
        return best

    def exhaustive(cost, chosen, candidates):
        return sorted(min(itertools.combinations(candidates, len(chosen)), key=cost))

    def first_better(cost, chosen, candidates):
        best = sorted(chosen)
        for out in best:
            for new in candidates:
                trial = sorted([*({*best} - {out}), new])
                if new not in best and cost(trial) < cost(best):
                    return trial
        return best

    mistakes = [
        Mistake(lambda *a: search(*a, rounds=1), "one exchange was made: go on as long as one helps"),
        Mistake(lambda cost, chosen, candidates: chosen, "nothing was exchanged"),
        Mistake(lambda *a: search(*a, sign=-1), "that looks for the highest cost: a low cost is good"),
        Mistake(first_better, "of all exchanges take the best one, and go on from there"),
        Mistake(lambda *a: search(*a, old_only=True), "a layer that came in by an exchange may go out again later"),
        Mistake(exhaustive, "that is the best set of all, for far more trials: exchange one layer at a time"),
        Mistake(
            lambda cost, chosen, candidates: sorted(sorted(candidates, key=lambda i: cost([i]))[: len(chosen)]),
            "these are the layers that are cheapest alone: change the given choice, one exchange at a time",
        ),
    ]

    def without_order(answer):
        numbers = isinstance(answer, list | tuple) and all(isinstance(layer, int | np.integer) for layer in answer)
        return sorted(answer) if numbers else answer

    def look(answer, expected):
        if not isinstance(answer, list):
            return ""
        if len(answer) != len(expected):
            return "an exchange takes one layer out and one in: the number of layers stays"
        return "a layer is in it twice: take in what isn't there yet" if len({*answer}) < len(answer) else ""

    name = "exchange_search"
    compare(name, exchange_search, cases, search, mistakes, counts=without_order, look=look)


def check_repair_matrix(repair_matrix: Callable[[Tensor, Tensor, Tensor, float], Tensor]) -> None:
    """Check ``repair_matrix(z, y, goal, ridge)``: D ``[k, hidden]`` that brings ``y + z @ D`` nearest to ``goal``."""
    cases = []
    for seed, (tokens, k, hidden, ridge) in enumerate([(40, 5, 3, 0.5), (12, 4, 6, 0.05), (6, 9, 4, 0.2)]):
        generator = torch.Generator().manual_seed(8000 + seed)
        draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: B023, E731
        length = torch.rand(tokens, 1, generator=generator, dtype=torch.float64) * 3 + 0.5
        z, y = draw(tokens, k) * length, draw(tokens, hidden) * length
        goal = y + 0.5 * z @ draw(k, hidden) + 0.3 * draw(tokens, hidden) * length
        words = f"{tokens} tokens, k = {k}, hidden size {hidden} and ridge = {ridge}"
        cases.append(Case(words, (z, y, goal, ridge)))

    def lengths(states):
        return states.norm(dim=-1, keepdim=True)

    def solve(z, y, goal, ridge, weight=None, aim=None):
        weight = 1 / lengths(goal) ** 2 if weight is None else weight
        square = z.T @ (weight * z) + ridge * torch.eye(z.shape[1], dtype=z.dtype)
        return torch.linalg.solve(square, z.T @ (weight * (goal - y if aim is None else aim)))

    mistakes = [
        Mistake(
            lambda z, y, goal, ridge: solve(z, y, goal, ridge, weight=torch.ones_like(lengths(goal))),
            "errors count relative to the length of the goal: a token with a huge state decides everything here",
        ),
        Mistake(
            lambda z, y, goal, ridge: solve(z, y, goal, ridge, weight=1 / lengths(goal)),
            "a token's *squared* error is divided by its *squared* length",
        ),
        Mistake(
            lambda z, y, goal, ridge: solve(z, y, goal, ridge, weight=1 / lengths(goal) ** 4),
            "the weight comes in once too often: if z and the rest are both divided, each is divided by the length alone",
        ),
        Mistake(
            lambda z, y, goal, ridge: solve(z, y, goal, ridge, weight=1 / lengths(y) ** 2),
            "the length to divide by is that of the goal",
        ),
        Mistake(lambda z, y, goal, ridge: solve(z, y, goal, 0.0), "the ridge is missing"),
        Mistake(
            lambda z, y, goal, ridge: solve(z, y, goal, ridge, aim=goal),
            "y is there already: D has only the rest to bring",
        ),
        Mistake(lambda z, y, goal, ridge: -solve(z, y, goal, ridge), "the sign: D brings what is missing, goal less y"),
        Mistake(lambda z, y, goal, ridge: solve(z, y, goal, ridge * len(z)), "the errors are summed up, not averaged"),
        Mistake(
            lambda z, y, goal, ridge: solve(z, y, goal, ridge**2),
            "to put the ridge in as more rows of data, use its root: least squares squares them",
        ),
        Mistake(lambda *a: solve(*a).T, "D stands behind z in z @ D: it is [k, hidden]"),
        Mistake(
            lambda z, y, goal, ridge: y + z @ solve(z, y, goal, ridge), "that is the repaired state: D is asked for"
        ),
    ]
    singular = "without the ridge this system has no single solution if there are fewer tokens than inputs"
    hints = {torch.linalg.LinAlgError: singular}
    compare("repair_matrix", repair_matrix, cases, solve, mistakes, tolerance=1e-4, not_finite=singular, hints=hints)


def _cost(seed: int, candidates: list[int]) -> Callable[[Collection[int]], float]:
    """A cost of sets of layers in which pairs count as well, so that one exchange prepares the next."""
    rng = np.random.default_rng(seed)
    alone = dict(zip(candidates, rng.random(len(candidates)), strict=True))
    pairs = {(a, b): rng.normal() for a in candidates for b in candidates if a < b}

    asked = itertools.count(1)

    def cost(layers: Collection[int]) -> float:
        if next(asked) > 20_000:
            raise CheckFailed("cost was asked 20,000 times, and still no end: stop when no exchange is better")
        layers = sorted({*layers})
        if unknown := [layer for layer in layers if layer not in alone]:
            raise CheckFailed(f"cost was asked about layer {unknown[0]}, but the candidates are {candidates}")
        return sum(alone[a] for a in layers) + sum(pairs[a, b] for a in layers for b in layers if a < b)

    return cost
