"""Trials with the repair in the loop: the best layers to remove and repair are not the best to remove.

A linear patch stands for several layers in a row as easily as for one, so contiguous spans gain most from it, and which ones
can only be found by repairing each. Part of the text fits the patches, the rest judges them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from shortgpt.choosing.trials import loss_sum
from shortgpt.model.adapters import require_no_adapter
from shortgpt.model.anatomy import decoder_layers
from shortgpt.model.arguments import check_batches
from shortgpt.model.hooks import logits_of, unpadded
from shortgpt.pruning.depth import remove_layers
from shortgpt.pruning.plan import check_indices
from shortgpt.repair.fitting import Sample
from shortgpt.repair.healing import check_repair, repair


class RepairedTrials:
    """Value sets of layers, removed and repaired: ``trials(removed)`` is the loss on other text, for `evolve` and others.

    Args:
        batches: fit the patches, as for `heal`; held_back: judge them.
        kind, sites: of the repair, as for `heal`. ``"gaps"`` is cheap; the set that is chosen can be repaired with ``"all"``.

    The loss is the mean cross entropy per token in nats; infinite for what can't be removed or repaired. The dense states at
    all depths are kept, ``(layers + 1) * tokens * hidden`` numbers, so that each trial runs the layers next to its gaps only.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        batches: Iterable[Mapping[str, Tensor]],
        held_back: Iterable[Mapping[str, Tensor]],
        *,
        kind: str = "fold",
        sites: str = "gaps",
    ) -> None:
        check_repair(kind, sites)
        for some in (batches, held_back):
            check_batches(some)
        require_no_adapter(model, "be repaired")
        self.model, self.kind, self.sites, self.held_back = model, kind, sites, list(held_back)
        self.depth, self.evaluations = len(decoder_layers(model)), 0
        self.samples = [Sample(model, batch, range(self.depth + 1)) for batch in unpadded(model, batches)]

    @classmethod
    def split(cls, model: PreTrainedModel, batches: Sequence[Mapping[str, Tensor]], *, kind: str) -> RepairedTrials:
        """Three of four batches fit the patches, the others judge them."""
        if len(batches) < 2:
            raise ValueError(
                "choosing with repair needs at least two batches: one to fit the patches, one to judge them"
            )
        return cls(model, [batch for i, batch in enumerate(batches) if i % 4 != 1], batches[1::4], kind=kind)

    def __call__(self, removed: Collection[int]) -> float:
        removed = check_indices(removed, self.depth)
        self.evaluations += 1
        if 0 in removed:
            return float("inf")  # nothing comes before that gap
        try:
            pruned = remove_layers(self.model, removed)
        except ValueError:  # a hybrid model's last attention, keys and values that others read
            return float("inf")
        repaired = repair(self.model, pruned, self.samples, kind=self.kind, sites=self.sites, progress=False)
        return mean_loss(repaired, self.held_back)

    def rebase(self, removed: Collection[int]) -> None:
        """Nothing that one repair computes serves the next."""


@torch.inference_mode()
def mean_loss(model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]]) -> float:
    """Mean cross entropy of every real token that has a real one before it, in nats."""
    total, tokens = 0.0, 0
    for batch in unpadded(model, batches):
        total += loss_sum(model, batch, logits_of(model, batch))
        tokens += batch["input_ids"][:, 1:].numel()
    if not tokens:
        raise ValueError(
            "no sample of the held-back text has two tokens, so there is none to predict: give longer text"
        )
    return total / tokens
