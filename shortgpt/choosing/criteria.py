"""Every criterion that can choose layers of a model, behind one interface (`by_criterion` runs them).

From cheap to dear: orders that read nothing; scores of one pass (`influence`), of one layer at a time or of spans; and
trials, which ask for the loss itself (`search`). What a criterion costs is counted in forward passes over the batches.

A new criterion is a function like those below, that yields a choice for each of the counts, and a line in `WAYS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from shortgpt.choosing.orders import baseline_order, removal_order
from shortgpt.choosing.repaired import RepairedTrials
from shortgpt.choosing.search import evolve, greedy, leave_one_out
from shortgpt.choosing.trials import OBJECTIVES, Trials
from shortgpt.model.anatomy import decoder_layers
from shortgpt.model.arguments import check_batches
from shortgpt.pruning.depth import remove_layers, require_removable
from shortgpt.repair.healing import check_repair
from shortgpt.scoring.influence import score_layers
from shortgpt.scoring.spans import span_distances
from shortgpt.utils.arguments import check_choice, check_count

REPAIRED = "repaired_search"
SEEDED = ("random", "search", REPAIRED)  # the others give the same whatever the seed
BUDGET, REPAIRED_BUDGET = 200, 60  # sets that a search values; a repair costs more than a trial


@dataclass(frozen=True)
class Task:
    """What criteria are given: the model, its text (a baseline does without), and the options of `choose_layers`."""

    model: PreTrainedModel
    batches: Any  # as `calibration_batches` gives them; None for a baseline
    objective: str = "loss"
    kind: str = "fold"
    budget: int | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        decoder_layers(self.model)  # refuses what is no model
        check_choice("objective", self.objective, OBJECTIVES)
        check_repair(self.kind, "gaps")
        if self.budget is not None:
            check_count("budget", self.budget)
        if self.batches is not None:
            check_batches(self.batches)
            object.__setattr__(self, "batches", list(self.batches))

    @property
    def depth(self) -> int:
        return len(decoder_layers(self.model))


@dataclass(frozen=True)
class Choice:
    """The layers that a criterion removes (current indices, in the order of choice), and what choosing cost."""

    layers: list[int]
    forward_passes: float = 0.0
    scores: np.ndarray | None = None  # [depth], for a criterion with one number a layer
    search: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


# ---- the ways: each yields a choice for every count (ascending) --------------------------------------------------------


def _baseline(order: str, task: Task, counts: list[int], seed: int) -> Iterator[Choice]:
    layers = baseline_order(task.depth, order, seed=seed)
    yield from (Choice(layers[:n]) for n in counts)


def _scores(metric: str, task: Task, counts: list[int], seed: int) -> Iterator[Choice]:
    scores = score_layers(task.model, task.batches, metric=metric, progress=task.progress)
    layers = removal_order(scores)
    yield from (Choice(layers[:n], 1.0, scores.values) for n in counts)


def _scores_again(task: Task, counts: list[int], seed: int) -> Iterator[Choice]:
    passes = 0.0
    layers: list[int] = []
    with tqdm(total=counts[-1], desc="scoring after each removal", unit="layer", disable=not task.progress) as bar:
        for n in counts:
            while len(layers) < n:
                scores = score_layers(remove_layers(task.model, layers), task.batches, progress=False)
                passes += len(scores.values) / task.depth
                there = [layer for layer in range(task.depth) if layer not in layers]
                ranked = [there[i] for i in removal_order(scores)]
                layers = [*layers, next(layer for layer in ranked if _can_go(task.model, [*layers, layer]))]
                bar.update()
            yield Choice(layers, passes)


def _span(tokens: str, task: Task, counts: list[int], seed: int) -> Iterator[Choice]:
    table = span_distances(task.model, task.batches, metric="angular_distance", tokens=tokens)
    for n in counts:
        spans = table[table["layers"] == n]
        first = int(spans.loc[spans["score"].idxmin(), "start"]) if n else 0
        yield Choice(list(range(first, first + n)), 1.0)


def _one_by_one(task: Task, counts: list[int], seed: int) -> Iterator[Choice]:
    trials = Trials(task.model, task.batches, objective=task.objective)
    values = leave_one_out(trials, progress=task.progress)
    order = np.argsort(values, kind="stable").tolist()
    for n in counts:
        value = trials(order[:n])
        yield Choice(order[:n], trials.forward_passes, values, _found(task.objective, value, trials))


def _greedy(task: Task, counts: list[int], seed: int) -> Iterator[Choice]:
    trials = Trials(task.model, task.batches, objective=task.objective)
    order: list[int] = []
    for n in counts:
        order = greedy(trials, n, start=order, progress=task.progress)
        value = trials(order)
        yield Choice(order, trials.forward_passes, search=_found(task.objective, value, trials))


def _search(task: Task, counts: list[int], seed: int) -> Iterator[Choice]:
    trials = Trials(task.model, task.batches, objective=task.objective)
    for n in counts:
        ways = (partial(_scores, "block_influence"), partial(_span, "all"), partial(_baseline, "reverse"))
        starts = [choice for way in ways for choice in way(task, [n], seed)]
        trials.forward_passes += sum(start.forward_passes for start in starts)
        budget = task.budget or BUDGET
        possible = [start.layers for start in starts if _can_go(task.model, start.layers)][:budget]
        yield _evolved(task, trials, n, possible, budget, seed, task.objective)


def _repaired(task: Task, counts: list[int], seed: int) -> Iterator[Choice]:
    trials = RepairedTrials.split(task.model, task.batches, kind=task.kind)
    spans = span_distances(task.model, task.batches)
    budget = task.budget or REPAIRED_BUDGET
    for n in counts:
        starts = spans[(spans["layers"] == n) & (spans["start"] > 0)].nsmallest(max(1, budget // 2), "score")
        spanned = [range(first, first + n) for first in starts["start"]]
        yield _evolved(task, trials, n, spanned, budget, seed, f"loss after repair ({task.kind})")


def _evolved(
    task: Task,
    trials: Trials | RepairedTrials,
    n: int,
    starts: Sequence[Sequence[int]],
    budget: int,
    seed: int,
    objective: str,
) -> Choice:
    best, history = evolve(trials, n, starts=starts, budget=budget, seed=seed, progress=task.progress)
    search = _found(objective, history["value"].min(), trials) | {"seed": seed, "budget": budget}
    return Choice(list(best), search.get("forward_passes", 0.0), search=search)


def _found(objective: str, value: float, trials: Trials | RepairedTrials) -> dict[str, Any]:
    """What a plan says of a search; the seconds are added when it is over."""
    found = {"objective": objective, "value": float(value), "evaluations": trials.evaluations}
    return found | ({"forward_passes": trials.forward_passes} if isinstance(trials, Trials) else {})


def _can_go(model: PreTrainedModel, layers: Sequence[int]) -> bool:
    try:
        require_removable(model, layers)
    except ValueError:
        return False
    return True


WAYS: dict[str, Callable[[Task, list[int], int], Iterator[Choice]]] = {
    **{order: partial(_baseline, order) for order in ("random", "sequential", "reverse")},
    **{metric: partial(_scores, metric) for metric in ("relative_magnitude", "block_influence", "angular_distance")},
    "block_influence_iterative": _scores_again,
    "angular_span": partial(_span, "last"),
    "angular_span_all_tokens": partial(_span, "all"),
    "leave_one_out": _one_by_one,
    "greedy": _greedy,
    "search": _search,
    REPAIRED: _repaired,
}
# those that a table compares: pruned models would not do the one justice, and the other is close to Block Influence
CRITERIA = tuple(name for name in WAYS if name not in (REPAIRED, "angular_distance"))
