"""Choose layers by trying them: one at a time, one after another, or by a search over whole sets.

The functions take `Trials`, or others like them: a lower value is better, and infinity means that a set can't be removed.
What the value measures, and on which text, decides how far the choice carries: hold other text back to check it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from math import comb, inf
from typing import Protocol

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from shortgpt.pruning.plan import check_indices
from shortgpt.utils.arguments import check_amount, check_count, shown

Removed = tuple[int, ...]  # ascending
_FITTED = 0.8  # the share of exchanges that are proposed, not drawn


class Valued(Protocol):
    """What can be searched, as `Trials`: ``trials(removed)`` is a number, ``rebase`` says which sets come next."""

    depth: int

    def __call__(self, removed: Collection[int]) -> float: ...

    def rebase(self, removed: Collection[int]) -> None: ...


def leave_one_out(trials: Valued, depth: int | None = None, *, progress: bool = True) -> np.ndarray:
    """The value without each layer alone, float64 ``[depth]``: low means that the layer is missed least.

    Removing the n lowest at once is what Shortened LLaMA does with perplexity (Kim et al., arXiv 2402.02834). It does not
    see that of two layers either can go, but not both: `greedy` does. Costs `depth` evaluations; by
    default that is all layers.
    """
    all_layers = _depth_of(trials)  # refuses what are no trials
    layers = range(all_layers if depth is None else check_count("depth", depth))
    trials.rebase(())
    bar = tqdm(layers, desc="leaving out each layer", unit="layer", disable=not progress)
    return np.array([trials([layer]) for layer in bar])


def greedy(trials: Valued, n: int, *, start: Collection[int] = (), progress: bool = True) -> list[int]:
    """Remove the layer without which the value is lowest, and again from what is left, until `n` are gone.

    This is SLEB (Song et al., arXiv 2402.09025). The result begins with `start` (removed already) and has `n` layers in the
    order of their removal, so its beginnings are the results for smaller n. Of equally good layers the first goes. Costs
    one evaluation for every layer left, in every round.

    Raises:
        ValueError: an unknown or repeated layer in `start`, n out of range, or no layer that can go.
    """
    depth = _depth_of(trials)
    order, n = check_indices(start, depth), check_removed(n, depth)
    if n < len(order):
        raise ValueError(f"n must be {len(order)} to {depth - 1} (start has {len(order)} layers), got {n}")
    rounds = range(len(order), n)
    bar = tqdm(total=sum(depth - k for k in rounds), desc="greedy removal", unit="trial", disable=not progress)
    with bar:
        for _ in rounds:
            trials.rebase(order)
            values = np.full(depth, inf)
            for layer in (layer for layer in range(depth) if layer not in order):
                values[layer] = trials([*order, layer])
                bar.update()
            if np.isinf(values).all():
                raise ValueError(f"without layers {order} no other layer can be removed: choose fewer than {n}")
            order.append(int(values.argmin()))
            bar.set_postfix_str(f"{len(order)} removed, best {values.min():.4f}")
    return order


def evolve(
    trials: Valued,
    n: int,
    *,
    starts: Iterable[Collection[int]] = (),
    budget: int = 200,
    seed: int = 0,
    progress: bool = True,
) -> tuple[Removed, pd.DataFrame]:
    """Search for the set of `n` layers with the lowest value, within `budget` evaluations.

    An evolutionary search with one parent, as in EvoPress (Sieberling et al., arXiv 2410.14649): the best set so far is
    varied by putting layers back and removing as many others. Unlike there, most exchanges are not drawn but proposed: a
    price for each layer is fitted to all values so far, and the exchange that it makes the cheapest is tried. The
    others are drawn, mostly near neighbours, because these do alike. No set is valued twice, and the parent is the best of
    all, so the result is never worse than the best of `starts`.

    Args:
        starts: sets of `n` layers to begin with, for instance what scores propose; if there is none, a random one.
        budget: how many sets to value, `starts` included.
        seed: the same seed gives the same search.

    Returns:
        The best set, ascending, and one row per evaluation: ``evaluation, layers, value, best``.

    Raises:
        ValueError: n out of range, a start that has not n layers, a budget below the number of starts, or no set that
            can be removed.
    """
    depth = _depth_of(trials)
    n, budget = check_removed(n, depth), check_count("budget", budget)
    rng = np.random.default_rng(check_count("seed", seed, least=0))
    first = _first_sets(starts, depth, n, rng)
    if len(first) > budget:
        raise ValueError(f"budget must be at least the number of starts, {len(first)}, got {budget}")
    tried: dict[Removed, float] = {}
    best, low, most = first[0], inf, min(budget, comb(depth, n))
    with tqdm(total=most, desc="searching", unit="trial", disable=not progress) as bar:
        while len(tried) < most:
            if len(tried) < len(first):
                child = first[len(tried)]
            else:
                child = (rng.random() < _FITTED and _cheapest(tried, best, depth)) or _varied(best, depth, rng)
            if child in tried:
                continue
            tried[child] = trials(child)
            bar.update()
            if tried[child] < low:
                best, low = child, tried[child]
                bar.set_postfix_str(f"best {low:.4f}")
                if len(tried) >= len(first):
                    trials.rebase(best)
    if low == inf:
        raise ValueError(f"none of {len(tried)} sets of {n} layers can be removed: choose fewer")
    rows = [{"evaluation": i, "layers": layers, "value": v} for i, (layers, v) in enumerate(tried.items(), start=1)]
    history = pd.DataFrame(rows)
    return best, history.assign(best=history["value"].cummin())


def check_removed(n: object, depth: int) -> int:
    """`n` as an int, if so many of `depth` layers can go."""
    return check_amount(n, None, depth, "layers", f"this model has {depth} layers")


def _first_sets(starts: Iterable[Collection[int]], depth: int, n: int, rng: np.random.Generator) -> list[Removed]:
    """The distinct sets among `starts`, or a random one."""
    first = [tuple(sorted(check_indices(start, depth))) for start in starts]
    for start in first:
        if len(start) != n:
            raise ValueError(f"each start must have n = {n} layers, got one with {len(start)}: {list(start)}")
    return list(dict.fromkeys(first)) or [tuple(sorted(rng.permutation(depth)[:n].tolist()))]


def _cheapest(tried: dict[Removed, float], parent: Removed, depth: int) -> Removed | None:
    """Of the sets not tried that differ from `parent` in one layer, the one with the lowest price; None if there is none.

    Prices are a weighted ridge regression of the values on which layers are out: good sets count more, and a layer that no
    set removes has the average price.
    """
    known = {layers: value for layers, value in tried.items() if value < inf}
    if not known:
        return None
    out = np.zeros((len(known), depth))  # [sets, layers]
    for row, layers in enumerate(known):
        out[row, list(layers)] = 1
    excess = np.array(list(known.values())) - min(known.values())
    weights = np.exp(-excess / (np.median(excess) or 1))
    centred = excess - np.average(excess, weights=weights)
    prices = np.linalg.solve(out.T @ (weights[:, None] * out) + 0.3 * np.eye(depth), out.T @ (weights * centred))
    exchanges = ((prices[gone] - prices[back], back, gone) for back in parent for gone in set(range(depth)) - {*parent})
    for _, back, gone in sorted(exchanges):
        child = tuple(sorted({*parent, gone} - {back}))
        if child not in tried:
            return child
    return None


def _varied(parent: Removed, depth: int, rng: np.random.Generator) -> Removed:
    """`parent` with one layer (or sometimes more) exchanged for another, more likely a near one."""
    removed = set(parent)
    for _ in range(min(rng.geometric(0.6), len(parent), depth - len(parent))):
        back = rng.choice(sorted(removed))
        kept = np.array([layer for layer in range(depth) if layer not in removed])
        near = 1 / np.abs(kept - back)
        gone = rng.choice(kept, p=near / near.sum())
        removed = removed - {int(back)} | {int(gone)}
    return tuple(sorted(removed))


def _depth_of(trials: object) -> int:
    if not callable(trials) or not hasattr(trials, "depth"):
        raise TypeError(f"expected trials of removed layers, for instance Trials(model, batches), got {shown(trials)}")
    return trials.depth
