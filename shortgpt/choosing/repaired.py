"""Choose layers with the repair in the loop: the best layers to remove and repair are not the best to remove.

A linear patch stands for several layers in a row as easily as for one, so contiguous spans gain most from it, and which ones
can only be found by repairing each. Part of the text fits the patches, the rest judges them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from shortgpt.choosing.criteria import Choice, Run, plan_of
from shortgpt.choosing.search import check_removed, evolve
from shortgpt.model.adapters import require_no_adapter
from shortgpt.model.anatomy import decoder_layers
from shortgpt.model.arguments import check_batches
from shortgpt.model.hooks import logits_of, require_numbers, unpadded
from shortgpt.model.logits import cross_entropy
from shortgpt.pruning.depth import remove_layers
from shortgpt.pruning.plan import PruningPlan, check_indices
from shortgpt.repair.fitting import Sample
from shortgpt.repair.healing import check_repair, repair
from shortgpt.scoring.spans import span_distances
from shortgpt.utils.arguments import check_count


def repaired_loss(
    model: PreTrainedModel,
    batches: Iterable[Mapping[str, Tensor]],
    held_back: Iterable[Mapping[str, Tensor]],
    *,
    kind: str = "fold",
    sites: str = "gaps",
) -> Callable[[Collection[int]], float]:
    """A function from a set of layers to the loss on `held_back` after removing them and repairing on `batches`.

    The loss is the mean cross entropy per token in nats; infinite for what can't be removed or repaired. The dense states at
    all depths are kept, ``(layers + 1) * tokens * hidden`` numbers, so that each trial runs the layers next to its gaps only.
    """
    check_repair(kind, sites)
    for some in (batches, held_back):
        check_batches(some)
    held_back, depth = list(held_back), len(decoder_layers(model))
    samples = [Sample(model, batch, range(depth + 1)) for batch in unpadded(model, batches)]

    def value(removed: Collection[int]) -> float:
        removed = check_indices(removed, depth)
        if 0 in removed:
            return float("inf")  # nothing comes before that gap
        try:
            pruned = remove_layers(model, removed)
        except ValueError:  # a hybrid model's last attention, keys and values that others read
            return float("inf")
        repaired = repair(model, pruned, samples, kind=kind, sites=sites, progress=False)
        return mean_loss(repaired, held_back)

    return value


@torch.inference_mode()
def mean_loss(model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]]) -> float:
    """Mean cross entropy of every real token that has a real one before it, in nats."""
    total, tokens = 0.0, 0
    for batch in unpadded(model, batches):
        losses = cross_entropy(logits_of(model, batch)[:, :-1].flatten(0, 1), batch["input_ids"][:, 1:].flatten())
        require_numbers(model, losses)
        total, tokens = total + losses.sum().item(), tokens + len(losses)
    if not tokens:
        raise ValueError(
            "no sample of the held-back text has two tokens, so there is none to predict: give longer text"
        )
    return total / tokens


def choose_repaired(
    model: PreTrainedModel,
    batches: Iterable[Mapping[str, Tensor]],
    n: int,
    *,
    kind: str = "fold",
    budget: int = 60,
    seed: int = 0,
    progress: bool = True,
) -> PruningPlan:
    """Choose `n` layers to remove *and repair*: a search over sets (`evolve`) whose value is the loss after the repair.

    Three of four batches fit the patches, the others judge. The search starts from contiguous spans of n layers, those over
    which the states turn least; they take up to half of the budget.

    Args:
        batches: at least two, as for `heal`.
        kind: of the repair; `sites` is ``"gaps"``, which is cheap: repair the chosen plan with ``"all"`` if you like.
        budget: how many sets are repaired and valued.

    Raises:
        ValueError: fewer than two batches, n out of range, or nothing that can be removed and repaired.
    """
    check_repair(kind, "gaps")
    depth, start = len(decoder_layers(model)), time.perf_counter()
    require_no_adapter(model, "be repaired")
    n, budget = check_removed(n, depth), check_count("budget", budget)
    check_batches(batches)
    batches = list(batches)
    run = Run(model, batches, [], [n], "loss", budget, [seed], progress)  # checks the rest
    if len(batches) < 2:
        raise ValueError("choosing with repair needs at least two batches: one to fit the patches, one to judge them")
    held = batches[1::4]
    value = repaired_loss(model, [batch for i, batch in enumerate(batches) if i % 4 != 1], held, kind=kind)
    spans = span_distances(model, batches)
    spans = spans[(spans["layers"] == n) & (spans["start"] > 0)].nsmallest(max(1, budget // 2), "score")
    starts = [range(first, first + n) for first in spans["start"]]
    best, history = evolve(value, depth, n, starts=starts, budget=budget, seed=seed, progress=progress)
    search = {
        "objective": f"loss after repair ({kind})",
        "value": float(history["value"].min()),
        "evaluations": len(history),
        "seconds": time.perf_counter() - start,
        "seed": seed,
        "budget": budget,
    }
    return plan_of(run, "repaired_search", Choice(list(best), search=search))
