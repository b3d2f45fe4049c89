"""Layers in an order, and a plan of the first of them: what every way to choose ends with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np

from shortgpt.choosing.names import Baseline
from shortgpt.pruning.plan import PruningPlan, check_indices
from shortgpt.scoring.provenance import Provenance
from shortgpt.scoring.scores import LayerScores, require_scores
from shortgpt.utils.arguments import check_choice, check_count

BASELINES = get_args(Baseline)
ORDERS = ("score", *BASELINES)


def removal_order(scores: LayerScores, order: str = "score", *, seed: int = 0) -> list[int]:
    """All layers (current indices), the first to remove first. See `choose_layers` for the orders.

    Raises:
        TypeError: no scores. ValueError: an unknown order, or a seed below 0.
    """
    require_scores(scores)
    check_choice("order", order, ORDERS)
    if order == "score":
        check_count("seed", seed, least=0)
        return np.argsort(scores.values, kind="stable").tolist()
    return baseline_order(len(scores.values), order, seed=seed)


def baseline_order(depth: int, order: str, *, seed: int = 0) -> list[int]:
    """The same for an order that reads nothing but the number of layers, one of `BASELINES`."""
    check_choice("order", order, BASELINES)
    seed = check_count("seed", seed, least=0)
    if order == "random":
        return np.random.default_rng(seed).permutation(depth).tolist()
    return list(range(depth))[:: -1 if order == "reverse" else 1]


def plan_for(
    source: Provenance,
    layers: Sequence[int],
    criterion: str = "by hand",
    *,
    scores: Sequence[float] | None = None,
    search: dict[str, int | float | str] | None = None,
) -> PruningPlan:
    """A plan to remove `layers` (current indices, in the order of choice) from the model that `source` tells of.

    Args:
        criterion: what chose them.
        scores: one for each layer of the model, if the criterion gives one.
        search: what trials found and cost.

    The plan names original indices and includes what was removed before.

    Raises:
        ValueError: an unknown or repeated layer, or none left.
    """
    original = source.original_layers
    layers = check_indices(layers, len(original))
    return PruningPlan(
        layers=len(original) + len(source.removed),
        removed=(*source.removed, *(original[i] for i in layers)),
        criterion=criterion,
        scores={} if scores is None else dict(zip(original, map(float, scores), strict=True)),
        calibration=dict(source.calibration),
        model=source.model,
        search=dict(search or {}),
    )
