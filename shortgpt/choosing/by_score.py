"""Which layers to remove: one door for every criterion, and the plan that comes out of it.

By scores that exist already it is arithmetic, done here. Every other way runs the model, and is in `by_criterion`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from shortgpt.choosing.orders import BASELINES, ORDERS, baseline_order, plan_for, removal_order
from shortgpt.pruning.plan import PruningPlan
from shortgpt.scoring.provenance import Provenance
from shortgpt.scoring.scores import LayerScores, require_scores
from shortgpt.utils.arguments import check_amount, check_choice, shown


def choose_layers(
    scores: LayerScores | Provenance | PreTrainedModel,
    n: int | None = None,
    *,
    ratio: float | None = None,
    by: str | None = None,
    batches: Iterable[Mapping[str, Tensor]] | None = None,
    objective: str = "loss",
    kind: str = "fold",
    budget: int | None = None,
    seed: int = 0,
    progress: bool = True,
    order: str | None = None,
) -> PruningPlan:
    """Choose `n` layers to remove, by any criterion.

    >>> choose_layers(score_layers(model, batches), 6)  # the lowest scores first: the paper's rule, section 3.2
    >>> choose_layers(model, ratio=0.25, by="greedy", batches=batches)

    Args:
        scores: from `score_layers`, and nothing is run; or the model. (For a baseline a `Provenance` is enough.)
        n: how many layers; or give `ratio`, a fraction of the *layers* (not of the parameters), rounded to a number.
        by: for scores ``"score"``, lowest first (default), or a baseline of section 4.3: ``"reverse"`` from the last layer
            back, ``"sequential"`` from the first on, ``"random"``. For a model a baseline, or what reads `batches`:
            ``"block_influence"`` (default), ``"relative_magnitude"``, ``"angular_distance"``: the lowest scores of one pass
            (`score_layers`);
            ``"block_influence_iterative"``: the lowest score, scored again after every removal;
            ``"angular_span"``: the n layers in a row over which the last token of each sample turns least (Gromov et
            al., arXiv 2403.17887); ``"angular_span_all_tokens"``: the same over all tokens;
            ``"leave_one_out"``, ``"greedy"``, ``"search"``: by trying (see the functions in `search`; the last is
            `evolve`, begun with what the scores and spans propose);
            ``"repaired_search"``: the best to remove *and repair*, each set being repaired before it is judged (see
            `repaired`); hand the plan to `heal`.
        batches: dicts with ``input_ids`` and ``attention_mask``, ``[batch, tokens]`` (see `calibration_batches`).
        objective: of trials, ``"loss"`` or ``"divergence"`` (see `Trials`).
        kind: of the repair, ``"fold"`` or ``"linear"`` (see `heal`).
        budget: how many sets a search values; None: 200, or 60 with repair, of which each costs more.
        seed: of ``"random"`` and the searches.
        order: the older name of `by` for scores.

    The model is left as it was. If it was pruned before, the plan names original indices and includes what was removed
    then. The plan's field ``search`` says what trials found and cost.

    Raises:
        ValueError: neither or both of n and ratio, too many layers, an unknown criterion, a chosen layer without a score,
            no tokens, or layers that the rest can't do without. TypeError: neither scores nor a model.
    """
    if order is not None:
        check_choice("order", order, ORDERS)
        by = order
    if isinstance(scores, PreTrainedModel):
        from shortgpt.choosing.by_criterion import choose
        from shortgpt.choosing.criteria import Task

        task = Task(scores, batches, objective=objective, kind=kind, budget=budget, progress=progress)
        return choose(task, "block_influence" if by is None else by, n, ratio=ratio, seed=seed)
    return _without_a_model(scores, n, ratio, by, seed)


def _without_a_model(scores: Any, n: int | None, ratio: float | None, by: str | None, seed: int) -> PruningPlan:
    source = scores if isinstance(scores, Provenance) else require_scores(scores).provenance
    depth = source.layers
    n = check_amount(n, ratio, depth, "layers", f"this model has {depth} layers")
    if by is not None and by in BASELINES:
        return plan_for(source, baseline_order(depth, by, seed=seed)[:n], by)
    if source is scores or by not in (None, "score", scores.metric):
        raise ValueError(
            f"without the model, layers are chosen by score, {', '.join(BASELINES)}, not by {shown(by)}: pass the model in "
            "the place of scores, and batches"
        )
    chosen = removal_order(scores, seed=seed)[:n]
    nameless = [source.original_layers[i] for i in chosen if np.isnan(scores.values[i])]
    if nameless:
        raise ValueError(f"layer {nameless[0]} has no score (NaN), so it can't be chosen by it: take a smaller n")
    return plan_for(source, chosen, scores.metric, scores=scores.values)
