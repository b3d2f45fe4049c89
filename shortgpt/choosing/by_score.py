"""Which layers to remove, and the plan that says so.

A `PruningPlan` is a small JSON file: it names the layers by their index in the *dense* model, and keeps what led to
the choice (scores, calibration, versions), so that it can be read, shared and applied on another machine.
"""

from __future__ import annotations

import numpy as np

from shortgpt.pruning.plan import PruningPlan
from shortgpt.scoring.influence import LayerScores
from shortgpt.utils.arguments import check_amount, check_choice, check_count, shown

ORDERS = ("score", "reverse", "sequential", "random")


def choose_layers(
    scores: LayerScores, n: int | None = None, *, ratio: float | None = None, order: str = "score", seed: int = 0
) -> PruningPlan:
    """Choose `n` layers to remove.

    Args:
        scores: from `score_layers`. The baselines use only the number of layers.
        n: how many layers; or give `ratio`, a fraction of the *layers* (not of the parameters), rounded to a number.
        order: ``"score"``, lowest score first (the paper's rule, section 3.2); or a baseline of section 4.3:
            ``"reverse"`` from the last layer back, ``"sequential"`` from the first on, or ``"random"``.
        seed: for ``"random"``.

    Scores of an already pruned model give a plan that names original indices and includes what was removed before.

    Raises:
        ValueError: neither or both of n and ratio, too many layers, an unknown order, a chosen layer without a score.
    """
    _require_scores(scores)
    original = scores.original_layers
    n = check_amount(n, ratio, len(original), "layers", f"this model has {len(original)} layers")
    chosen = removal_order(scores, order, seed=seed)[:n]
    nameless = [original[i] for i in chosen if order == "score" and np.isnan(scores.values[i])]
    if nameless:
        raise ValueError(f"layer {nameless[0]} has no score (NaN), so it can't be chosen by it: take a smaller n")
    return PruningPlan(
        layers=len(original) + len(scores.removed),
        removed=(*scores.removed, *(original[i] for i in chosen)),
        criterion=scores.metric if order == "score" else order,
        scores={original[i]: float(value) for i, value in enumerate(scores.values)} if order == "score" else {},
        calibration=scores.calibration,
        model=scores.model,
    )


def removal_order(scores: LayerScores, order: str = "score", *, seed: int = 0) -> list[int]:
    """All layers (current indices), the first to remove first. See `choose_layers` for the orders."""
    _require_scores(scores)
    check_choice("order", order, ORDERS)
    seed = check_count("seed", seed, least=0)
    depth = len(scores.values)
    if order == "score":
        return np.argsort(scores.values, kind="stable").tolist()
    if order == "reverse":
        return list(range(depth - 1, -1, -1))
    if order == "sequential":
        return list(range(depth))
    return np.random.default_rng(seed).permutation(depth).tolist()


def _require_scores(scores: object) -> None:
    if not isinstance(scores, LayerScores):
        raise TypeError(f"expected scores from score_layers(), got {shown(scores)}")
