"""Run a criterion on a model: for one plan, or for a table of what several choose, what that costs, and how good it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from shortgpt.choosing.criteria import BUDGET, CRITERIA, REPAIRED, SEEDED, WAYS, Choice, Task
from shortgpt.choosing.orders import BASELINES, plan_for
from shortgpt.choosing.search import check_removed
from shortgpt.model.anatomy import decoder_layers
from shortgpt.model.arguments import check_batches
from shortgpt.pruning.depth import remove_layers, require_removable
from shortgpt.pruning.plan import PruningPlan
from shortgpt.scoring.provenance import Provenance
from shortgpt.utils.arguments import (
    check_amount,
    check_choice,
    check_count,
    check_counts,
    check_some,
    check_strings,
    shown,
)

Batches = Iterable[Mapping[str, Tensor]]


def choose(task: Task, criterion: str, n: int | None, *, ratio: float | None = None, seed: int = 0) -> PruningPlan:
    """The plan of `choose_layers` for a model."""
    check_choice("criterion", criterion, WAYS)
    n = check_amount(n, ratio, task.depth, "layers", f"this model has {task.depth} layers")
    if criterion not in BASELINES:
        check_batches(task.batches)
    source = Provenance.of(task.model, task.batches)
    (choice,) = _choices(task, criterion, [n], check_count("seed", seed, least=0))
    return _plan_of(task, source, criterion, choice)


def choose_by(
    model: PreTrainedModel, batches: Batches, criterion: str, n: int, *, seed: int = 0, **options: Any
) -> PruningPlan:
    """`choose_layers` of a model by `criterion`: the name it had before there was one door, with the same options."""
    decoder_layers(model)
    check_batches(batches)
    return choose(Task(model, batches, **options), criterion, n, seed=seed)


def choose_repaired(model: PreTrainedModel, batches: Batches, n: int, *, seed: int = 0, **options: Any) -> PruningPlan:
    """`choose_layers` of a model by ``"repaired_search"``: the name it had before there was one door."""
    return choose(Task(model, batches, **options), REPAIRED, n, seed=seed)


def compare_criteria(
    model: PreTrainedModel,
    batches: Batches,
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
        objective, budget: of the trials, as in `choose_layers`.

    Returns:
        One row per criterion, seed and count: ``criterion, seed, removed, layers`` (the plan's, in the dense model's
        numbering), ``value`` (or the columns of `measure`), ``forward_passes, seconds``: what choosing these layers costs,
        without measuring, in passes over `batches` and in time.

    Raises:
        ValueError: as `choose_layers`; before anything is read, where that can be known.
    """
    if not callable(measure):
        raise TypeError(f"measure must be a function of a model that returns a number, got {shown(measure)}")
    criteria = check_some("criteria", check_strings("criteria", criteria))
    counts = check_some("counts", sorted(set(check_counts("counts", counts))))
    seeds = check_some("seeds", [check_count("seed", seed, least=0) for seed in check_counts("seeds", seeds)])
    decoder_layers(model)
    check_batches(batches)
    task = Task(model, batches, objective, budget=budget, progress=progress)
    for criterion in criteria:
        check_choice("criterion", criterion, CRITERIA)
    for n in counts:
        check_removed(n, task.depth)
    source = Provenance.of(model, task.batches)
    runs = [(criterion, seed) for criterion in criteria for seed in (seeds if criterion in SEEDED else [None])]
    rows, measured = [], {}
    for criterion, seed in tqdm(runs, desc="comparing criteria", unit="criterion", disable=not progress):
        for n, choice in zip(counts, _choices(task, criterion, counts, seed or 0), strict=True):
            plan = _plan_of(task, source, criterion, choice)
            layers = frozenset(plan.removed)
            if layers not in measured:
                value = measure(remove_layers(model, plan))
                measured[layers] = dict(value) if isinstance(value, Mapping) else {"value": value}
            row = {"criterion": criterion, "seed": seed, "removed": n, "layers": plan.removed, **measured[layers]}
            rows.append(row | {"forward_passes": choice.forward_passes, "seconds": choice.seconds})
    return pd.DataFrame(rows).astype({"seed": "Int64"})


def _choices(task: Task, criterion: str, counts: list[int], seed: int) -> list[Choice]:
    """A choice for every count (ascending): from one run where that gives all of them, and what it took up to there."""
    found = []
    for some in [[n] for n in counts] if criterion in ("search", REPAIRED) else [counts]:
        start = time.perf_counter()
        for choice in WAYS[criterion](task, some, seed):
            seconds = time.perf_counter() - start
            search = choice.search | {"seconds": seconds} if choice.search else {}
            found.append(replace(choice, seconds=seconds, search=search))
    return found


def _plan_of(task: Task, source: Provenance, criterion: str, choice: Choice) -> PruningPlan:
    require_removable(task.model, choice.layers)
    return plan_for(source, choice.layers, criterion, scores=choice.scores, search=choice.search)
