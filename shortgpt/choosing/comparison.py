"""One table of what several criteria choose, what that costs, and how good it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from shortgpt.choosing.criteria import BUDGET, SEEDED, WAYS, Run, plan_of
from shortgpt.pruning.depth import remove_layers
from shortgpt.utils.arguments import check_counts, check_some, check_strings, shown


def compare_criteria(
    model: PreTrainedModel,
    batches: Iterable[Mapping[str, Tensor]],
    counts: Iterable[int],
    criteria: Iterable[str],
    measure: Callable[[PreTrainedModel], float | Mapping[str, float]],
    *,
    seeds: Sequence[int] = (0,),
    objective: str = "loss",
    budget: int = BUDGET,
    progress: bool = True,
) -> pd.DataFrame:
    """Choose layers by several criteria, remove them, and `measure` each pruned model.

    Args:
        counts: how many layers to remove; criteria: of `CRITERIA`. Where one run gives all counts, there is one run.
        measure: a function of a model that returns a number, or a dict of numbers: these become columns. Sets that
            several criteria choose are measured once. Measure on other text than `batches`, which the trials have seen.
        seeds: for each, ``"random"`` and ``"search"`` are run; the others have no seed, and one run.
        objective, budget: of the trials, as in `choose_by`.

    Returns:
        One row per criterion, seed and count: ``criterion, seed, removed, layers`` (the plan's, in the dense model's
        numbering), ``value`` (or the columns of `measure`), ``forward_passes, seconds``: what choosing these layers costs,
        without measuring, in passes over `batches` and in time.

    Raises:
        ValueError: as `choose_by`; before anything is read, where that can be known.
    """
    if not callable(measure):
        raise TypeError(f"measure must be a function of a model that returns a number, got {shown(measure)}")
    criteria = check_some("criteria", check_strings("criteria", criteria))
    counts = check_some("counts", sorted(set(check_counts("counts", counts))))
    seeds = check_some("seeds", check_counts("seeds", seeds))
    run = Run(model, batches, criteria, counts, objective, budget, seeds, progress)
    runs = [(criterion, seed) for criterion in criteria for seed in (seeds if criterion in SEEDED else [None])]
    rows, measured = [], {}
    for criterion, seed in tqdm(runs, desc="comparing criteria", unit="criterion", disable=not progress):
        for n, choice in zip(counts, list(WAYS[criterion](run, counts, seed)), strict=True):
            plan = plan_of(run, criterion, choice)
            layers = frozenset(plan.removed)
            if layers not in measured:
                value = measure(remove_layers(model, plan))
                measured[layers] = dict(value) if isinstance(value, Mapping) else {"value": value}
            row = {"criterion": criterion, "seed": seed, "removed": n, "layers": plan.removed, **measured[layers]}
            rows.append(row | {"forward_passes": choice.forward_passes, "seconds": choice.seconds})
    return pd.DataFrame(rows).astype({"seed": "Int64"})
