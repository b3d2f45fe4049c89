"""Every way to choose layers behind one interface. (`comparison` makes a table of them.)

From cheap to dear: orders that read nothing; scores of one pass (`influence`), of one layer at a time or of spans; and
trials, which ask for the loss itself (`search`). What a criterion costs is counted in forward passes over the batches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from shortgpt.choosing.by_score import removal_order
from shortgpt.choosing.search import check_removed, evolve, greedy, leave_one_out
from shortgpt.choosing.trials import OBJECTIVES, Trials
from shortgpt.model.anatomy import decoder_layers, model_name, removed_so_far
from shortgpt.model.arguments import NO_TOKENS, check_batches
from shortgpt.model.hooks import unpadded
from shortgpt.model.text import sample_digests
from shortgpt.pruning.depth import remove_layers, require_removable
from shortgpt.pruning.plan import PruningPlan
from shortgpt.scoring.influence import LayerScores, score_layers
from shortgpt.scoring.provenance import begins_with_bos
from shortgpt.scoring.spans import span_distances
from shortgpt.utils.arguments import check_choice, check_count

SEEDED = ("random", "search")  # the others give the same whatever the seed
BUDGET = 200
Numbers = Mapping[str, int | float | str]


@dataclass(frozen=True)
class Choice:
    """The layers that a criterion removes (current indices, in the order of choice), and what choosing cost."""

    layers: list[int]
    forward_passes: float = 0.0
    seconds: float = 0.0
    scores: np.ndarray | None = None  # [depth], for a criterion with one number a layer
    search: Numbers = field(default_factory=dict)


class Run:
    """What all criteria need: the arguments, checked, and one `Trials` for those that try."""

    def __init__(
        self,
        model: PreTrainedModel,
        batches: Iterable[Mapping[str, Tensor]],
        criteria: Iterable[str],
        counts: Iterable[int],
        objective: str,
        budget: int,
        seeds: Iterable[int],
        progress: bool,
    ) -> None:
        depth = len(decoder_layers(model))
        for criterion in criteria:
            check_choice("criterion", criterion, CRITERIA)
        for n in counts:
            check_removed(n, depth)
        check_choice("objective", objective, OBJECTIVES)
        check_count("budget", budget)
        for seed in seeds:
            check_count("seed", seed, least=0)
        check_batches(batches)
        self.model, self.batches, self.depth = model, list(batches), depth
        self.objective, self.budget, self.progress = objective, budget, progress
        self.blank = _blank(model, self.batches)

    @cached_property
    def trials(self) -> Trials:
        start = time.perf_counter()
        trials = Trials(self.model, self.batches, objective=self.objective)
        self.dense_seconds = time.perf_counter() - start
        return trials


def choose_by(
    model: PreTrainedModel,
    batches: Iterable[Mapping[str, Tensor]],
    criterion: str,
    n: int,
    *,
    objective: str = "loss",
    budget: int = BUDGET,
    seed: int = 0,
    progress: bool = True,
) -> PruningPlan:
    """Choose `n` layers of `model` to remove, by any of `CRITERIA`.

    Args:
        batches: dicts with ``input_ids`` and ``attention_mask``, ``[batch, tokens]`` (see `calibration_batches`).
        criterion:
            ``"random"``, ``"sequential"`` (from the first layer on), ``"reverse"``: baselines that read nothing;
            ``"relative_magnitude"``, ``"block_influence"``: the lowest scores of one pass (`score_layers`);
            ``"block_influence_iterative"``: the lowest score, scored again after every removal;
            ``"angular_span"``: the n layers in a row over which the last token of each sample turns least (Gromov et
            al., arXiv 2403.17887); ``"angular_span_all_tokens"``: the same over all tokens;
            ``"leave_one_out"``, ``"greedy"``, ``"search"``: by trying (see the functions in `search`; the last is
            `evolve`, begun with what the scores and spans propose).
        objective: of the trials, ``"loss"`` or ``"divergence"`` (see `Trials`).
        budget: trials of ``"search"``; seed: of ``"random"`` and ``"search"``.

    The model is left as it was. For a model that was pruned before, the plan names original indices and includes what is
    gone, as that of `choose_layers`. Its field ``search`` says what trials found and cost.

    Raises:
        ValueError: an unknown criterion or objective, n out of range, no tokens, or layers that the rest can't do without.
    """
    run = Run(model, batches, [criterion], [n], objective, budget, [seed], progress)
    (choice,) = WAYS[criterion](run, [int(n)], seed)
    return plan_of(run, criterion, choice)


# ---- the ways: each yields a choice for every count (ascending), from one run where that gives all of them ----------


def _baseline(order: str, run: Run, counts: list[int], seed: int) -> Iterator[Choice]:
    layers = removal_order(run.blank, order, seed=seed or 0)
    yield from (Choice(layers[:n]) for n in counts)


def _scores(metric: str, run: Run, counts: list[int], seed: int) -> Iterator[Choice]:
    start = time.perf_counter()
    scores = score_layers(run.model, run.batches, metric=metric, progress=run.progress)
    layers, seconds = removal_order(scores), time.perf_counter() - start
    yield from (Choice(layers[:n], 1.0, seconds, scores.values) for n in counts)


def _scores_again(run: Run, counts: list[int], seed: int) -> Iterator[Choice]:
    start, passes, layers = time.perf_counter(), 0.0, []
    bar = tqdm(total=counts[-1], desc="scoring after each removal", unit="layer", disable=not run.progress)
    with bar:
        for n in counts:
            while len(layers) < n:
                scores = score_layers(remove_layers(run.model, layers), run.batches, progress=False)
                passes += len(scores.values) / run.depth
                there = [layer for layer in range(run.depth) if layer not in layers]
                ranked = [there[i] for i in removal_order(scores)]
                layers = [*layers, next(layer for layer in ranked if _can_go(run.model, [*layers, layer]))]
                bar.update()
            yield Choice(layers, passes, time.perf_counter() - start)


def _span(tokens: str, run: Run, counts: list[int], seed: int) -> Iterator[Choice]:
    start = time.perf_counter()
    table = span_distances(run.model, run.batches, metric="angular_distance", tokens=tokens)
    seconds = time.perf_counter() - start
    for n in counts:
        spans = table[table["layers"] == n]
        first = int(spans.loc[spans["score"].idxmin(), "start"]) if n else 0
        yield Choice(list(range(first, first + n)), 1.0, seconds)


def _one_by_one(run: Run, counts: list[int], seed: int) -> Iterator[Choice]:
    cost = _Cost(run)
    values = leave_one_out(run.trials, run.depth, progress=run.progress)
    order = np.argsort(values, kind="stable").tolist()
    yield from [cost.choice(order[:n], run.trials(order[:n]), values) for n in counts]


def _greedy(run: Run, counts: list[int], seed: int) -> Iterator[Choice]:
    cost, order = _Cost(run), []
    for n in counts:
        order = greedy(run.trials, run.depth, n, start=order, progress=run.progress)
        yield cost.choice(order, run.trials(order))


def _search(run: Run, counts: list[int], seed: int) -> Iterator[Choice]:
    for n in counts:
        cost = _Cost(run)
        ways = (partial(_scores, "block_influence"), partial(_span, "all"), partial(_baseline, "reverse"))
        starts = [choice for way in ways for choice in way(run, [n], seed)]
        cost.passes -= sum(start.forward_passes for start in starts)
        possible = [start.layers for start in starts if _can_go(run.model, start.layers)][: run.budget]
        best, history = evolve(
            run.trials, run.depth, n, starts=possible, budget=run.budget, seed=seed, progress=run.progress
        )
        yield cost.choice(list(best), history["best"].iloc[-1], seed=seed, budget=run.budget)


class _Cost:
    """What the trials of a run cost since this was made; the dense pass that all trials need is included."""

    def __init__(self, run: Run) -> None:
        run.trials.rebase(())  # so that the cost does not depend on what was tried before
        self.start, self.run = time.perf_counter() - run.dense_seconds, run
        self.passes, self.evaluations = run.trials.forward_passes - 1, run.trials.evaluations

    def choice(self, layers: list[int], value: float, scores: np.ndarray | None = None, **more: int) -> Choice:
        passes, seconds = self.run.trials.forward_passes - self.passes, time.perf_counter() - self.start
        evaluations = self.run.trials.evaluations - self.evaluations
        search = {"objective": self.run.objective, "value": float(value), "evaluations": evaluations}
        search |= {"forward_passes": passes, "seconds": seconds, **more}
        return Choice(layers, passes, seconds, scores, search)


WAYS: dict[str, Callable[[Run, list[int], int], Iterator[Choice]]] = {
    **{order: partial(_baseline, order) for order in ("random", "sequential", "reverse")},
    **{metric: partial(_scores, metric) for metric in ("relative_magnitude", "block_influence")},
    "block_influence_iterative": _scores_again,
    "angular_span": partial(_span, "last"),
    "angular_span_all_tokens": partial(_span, "all"),
    "leave_one_out": _one_by_one,
    "greedy": _greedy,
    "search": _search,
}
CRITERIA = tuple(WAYS)


def plan_of(run: Run, criterion: str, choice: Choice) -> PruningPlan:
    """The choice as a plan: original indices, what is gone already included."""
    require_removable(run.model, choice.layers)
    original = run.blank.original_layers
    return PruningPlan(
        layers=run.depth + len(run.blank.removed),
        removed=(*run.blank.removed, *(original[i] for i in choice.layers)),
        criterion=criterion,
        scores={} if choice.scores is None else {original[i]: float(v) for i, v in enumerate(choice.scores)},
        calibration=run.blank.calibration,
        model=run.blank.model,
        search=dict(choice.search),
    )


def _can_go(model: PreTrainedModel, layers: Sequence[int]) -> bool:
    try:
        require_removable(model, layers)
    except ValueError:
        return False
    return True


def _blank(model: PreTrainedModel, batches: Sequence[Mapping[str, Tensor]]) -> LayerScores:
    """Zeros in the place of scores, with the names that scores of `model` on `batches` carry."""
    read = list(unpadded(model, batches))
    if not read:
        raise ValueError(NO_TOKENS)
    counts = np.concatenate([batch["attention_mask"].sum(1).cpu() for batch in read])
    digests = tuple(digest for batch in read for digest in sample_digests(batch))
    sums, bos = np.zeros((len(counts), len(decoder_layers(model)))), all(begins_with_bos(model, b) for b in read)
    return LayerScores(sums, counts, "", removed_so_far(model), digests, model_name(model), bos)
