"""Checks for lesson 06: agreement of two choices above chance, a search by exchanges, a repair by least squares."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shortgpt.course.checks.comparing import Answers, Case, compare, named_cases, seeded
from shortgpt.course.checks.verdict import CheckFailed


def check_overlap_above_chance(overlap_above_chance: Callable[[list[int], list[int], int], float]) -> None:
    """Check ``overlap_above_chance(first, second, depth)``: 1 for the same layers, 0 for what chance gives in the mean."""
    cases = named_cases(
        "first second depth",
        ([4, 9, 2, 7], [7, 3, 9, 11], 12),
        ([0, 1, 2], [2, 1, 0], 10),
        ([5, 6, 7, 8, 9], [1, 3, 9, 13, 15], 20),
        ([0, 1, 2], [7, 8, 9], 10),
    )
    compare("overlap_above_chance", overlap_above_chance, cases, _overlap_above_chance)


def _overlap_above_chance(first: list[int], second: list[int], depth: int) -> Answers:
    common, together = len({*first} & {*second}), len({*first} | {*second})
    share, chance = common / len(first), len(first) / depth

    def scaled(share: float, chance: float = chance) -> float:
        return (share - chance) / (1 - chance)

    return scaled(share), {
        "two choices by coin overlap as well: take that share off": share,
        "the same layers twice should give 1: divide by how far above chance an overlap can be": share - chance,
        "that is how many times chance: ask how much of the way from chance to perfect it goes": share / chance,
        "chance depends on how many are chosen: a layer of one choice is in another of n layers n times out of depth":
            scaled(share, 1 / depth),
        "take a layer that the first choice has: the chance that the second has it too is not a square":
            scaled(share, chance**2),
        "a choice is a set: the order of the numbers must not matter": scaled(float(np.mean(np.equal(first, second)))),
        "divide the layers in common by the size of one choice, not by that of both together": scaled(common / together),
        "fewer in common than chance gives is a value below zero, and worth knowing: don't cut it off":
            max(0.0, scaled(share)),
    }  # fmt: skip


def check_exchange_search(exchange_search: Callable[[Callable, list[int], list[int]], list[int]]) -> None:
    """Check ``exchange_search(cost, chosen, candidates)``: the best single exchange, again and again while it helps."""
    chosen, candidates = [2, 3, 4], list(range(2, 10))
    cases = []
    for seed in (2, 18, 29, 45):
        words = f"chosen = {chosen}, candidates 2 to 9 and the cost of seed {seed}"
        cases.append(Case(words, (_cost(seed, candidates), chosen, candidates)))

    def without_order(answer: Any) -> Any:
        numbers = isinstance(answer, list | tuple) and all(isinstance(layer, int | np.integer) for layer in answer)
        return sorted(answer) if numbers else answer

    def look(answer: Any, expected: list[int]) -> str:
        if not isinstance(answer, list):
            return ""
        if len(answer) != len(expected):
            return "an exchange takes one layer out and one in: the number of layers stays"
        twice = len({str(layer) for layer in answer}) < len(answer)
        return "a layer is in it twice: take in what isn't there yet" if twice else ""

    compare("exchange_search", exchange_search, cases, _exchange_search, counts=without_order, look=look)


def _exchanges(best: list[int], outs: Collection[int], candidates: list[int]) -> list[list[int]]:
    """Every choice that differs from this one in a single layer, one of ``outs``."""
    return [sorted([*({*best} - {out}), new]) for out in outs for new in candidates if new not in best]


def _exchange_search(cost: Callable[[Any], float], chosen: list[int], candidates: list[int]) -> Answers:
    def search(sign: int = 1, rounds: int = 99, outs: Collection[int] = candidates) -> list[int]:
        best = sorted(chosen)
        for _ in range(rounds):
            trials = _exchanges(best, [out for out in best if out in outs], candidates)
            found = min(trials, key=lambda layers: sign * cost(layers), default=best)
            if sign * cost(found) >= sign * cost(best):
                break
            best = found
        return best

    return search(), {
        "one exchange was made: go on as long as one helps": search(rounds=1),
        "nothing was exchanged": chosen,
        "that looks for the highest cost: a low cost is good": search(sign=-1),
        "of all exchanges take the best one, and go on from there":
            next((some for some in _exchanges(chosen, chosen, candidates) if cost(some) < cost(chosen)), chosen),
        "a layer that came in by an exchange may go out again later": search(outs=chosen),
        "that is the best set of all, for far more trials: exchange one layer at a time":
            sorted(min(itertools.combinations(candidates, len(chosen)), key=cost)),
        "these are the layers that are cheapest alone: change the given choice, one exchange at a time":
            sorted(sorted(candidates, key=lambda layer: cost([layer]))[: len(chosen)]),
    }  # fmt: skip


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


def check_repair_matrix(repair_matrix: Callable[[Tensor, Tensor, Tensor, float], Tensor]) -> None:
    """Check ``repair_matrix(z, y, goal, ridge)``: D ``[k, hidden]`` that brings ``y + z @ D`` nearest to ``goal``."""
    cases = []
    for seed, (tokens, k, hidden, ridge) in enumerate([(40, 5, 3, 0.5), (12, 4, 6, 0.05), (6, 9, 4, 0.2)]):
        generator = seeded(8000 + seed)
        length = torch.rand(tokens, 1, generator=generator, dtype=torch.float64) * 3 + 0.5
        sizes = [(tokens, k), (tokens, hidden), (k, hidden), (tokens, hidden)]
        z, y, change, rest = (torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes)
        z, y, rest = z * length, y * length, rest * length
        words = f"{tokens} tokens, k = {k}, hidden size {hidden} and ridge = {ridge}"
        cases.append(Case(words, (z, y, y + 0.5 * z @ change + 0.3 * rest, ridge)))
    singular = "without the ridge this system has no single solution if there are fewer tokens than inputs"
    hints = {torch.linalg.LinAlgError: singular}
    compare("repair_matrix", repair_matrix, cases, _repair_matrix, tolerance=1e-4, not_finite=singular, hints=hints)


def _repair_matrix(z: Tensor, y: Tensor, goal: Tensor, ridge: float) -> Answers:
    length = goal.norm(dim=-1, keepdim=True)

    def solve(weight: Tensor = length**-2, aim: Tensor = goal - y, ridge: float = ridge) -> Tensor:
        square = z.T @ (weight * z) + ridge * torch.eye(z.shape[1], dtype=z.dtype)
        return torch.linalg.solve(square, z.T @ (weight * aim))

    right = solve()
    return right, {
        "errors count relative to the length of the goal: a token with a huge state decides everything here":
            solve(torch.ones_like(length)),
        "a token's *squared* error is divided by its *squared* length": solve(1 / length),
        "the weight comes in once too often: if z and the rest are both divided, each is divided by the length alone":
            solve(length**-4),
        "the length to divide by is that of the goal": solve(y.norm(dim=-1, keepdim=True) ** -2),
        "the ridge is missing": lambda: solve(ridge=0.0),
        "y is there already: D has only the rest to bring": solve(aim=goal),
        "the sign: D brings what is missing, goal less y": -right,
        "the errors are summed up, not averaged": solve(ridge=ridge * len(z)),
        "to put the ridge in as more rows of data, use its root: least squares squares them": solve(ridge=ridge**2),
        "D stands behind z in z @ D: it is [k, hidden]": right.T,
        "that is the repaired state: D is asked for": y + z @ right,
    }  # fmt: skip
