"""Refit the last matrix that writes to the states, so that the pruned model's distributions are the dense model's.

All other repairs aim at states. What counts is what the head makes of them, and behind the last layer there are only a norm
and the head: the divergence of the dense model's distribution from the pruned one's is a function of that layer's output
projection which needs no gradient through the stack. L-BFGS (curvature from the last gradients) goes down it; samples that
are held back say when to stop, for a matrix has more numbers than the text has tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shortgpt.choosing.cached_prefix import stand_ins
from shortgpt.model.anatomy import decoder_layers
from shortgpt.model.hooks import hooked, layer_output, logits_of, unpadded
from shortgpt.model.logits import divergence, log_probabilities
from shortgpt.repair.equations import HOLD_BACK
from shortgpt.repair.fitting import Sample
from shortgpt.repair.folding import add_to, output_projection

Batches = Iterable[Mapping[str, Tensor]]


def refit_on_logits(
    model: PreTrainedModel, pruned: PreTrainedModel, batches: Batches, *, steps: int = 12
) -> tuple[PreTrainedModel, list[float]]:
    """Change the last layer's FFN output projection of `pruned` (in place: hand over what nobody else holds).

    Args:
        model: the dense model. batches: text, at least two samples; each keeps the dense distributions in memory, float16
            ``[tokens, vocabulary]``: some two thousand tokens are enough.
        steps: of L-BFGS at most.

    Returns:
        `pruned`, and the mean divergence of the held-back samples (nats a token) before and after each step that helped.

    Raises:
        ValueError: fewer than two samples, or no output projection (see `folding`).
    """
    rows = [
        {name: part[k : k + 1] for name, part in b.items()} for b in unpadded(model, batches) for k in range(_rows(b))
    ]
    if len(rows) < 2:
        raise ValueError("refitting on logits needs at least two samples of text, one of them to say when to stop")
    last = len(decoder_layers(pruned)) - 1
    sample = Sample(pruned, rows[0], {last})
    projection = output_projection(decoder_layers(pruned)[last], last, sample, sample.states[last], "ffn")
    kept = [_frozen(model, pruned, row, projection) for row in rows]
    held = [row for place, row in enumerate(kept, start=1) if place % HOLD_BACK == 2]
    fitted = [row for place, row in enumerate(kept, start=1) if place % HOLD_BACK != 2]
    device = projection.weight.device
    change = torch.zeros(kept[0].z.shape[-1], sample.states[last].shape[-1], device=device, requires_grad=True)
    best, seen = _descend(pruned, change, fitted, held, steps)
    add_to(projection, best)
    return pruned, seen


@dataclass
class Kept:
    """A sample: its tokens, what enters the projection, what leaves the last layer, and the dense log-probabilities."""

    row: Mapping[str, Tensor]
    z: Tensor
    output: Tensor | tuple
    log_p: Tensor


@torch.no_grad()
def _frozen(model: PreTrainedModel, pruned: PreTrainedModel, row: Mapping[str, Tensor], projection: nn.Module) -> Kept:
    seen: list[Any] = []
    with (
        hooked([projection], lambda place, module, args, kwargs: seen.append(args[0]), before=True),
        hooked(decoder_layers(pruned)[-1:], lambda place, module, args, kwargs, output: seen.append(output)),
    ):
        logits_of(pruned, row)
    return Kept(row, seen[0], seen[1], log_probabilities(logits_of(model, row)[0]).half())


def _loss(pruned: PreTrainedModel, change: Tensor, kept: Kept) -> Tensor:
    """Mean divergence in nats a token: the model's own norm and head, behind layers that stand still."""
    stack, state = decoder_layers(pruned), layer_output(kept.output)
    shifted = state + (kept.z @ change.to(kept.z)).view_as(state)
    output = shifted if isinstance(kept.output, Tensor) else (shifted, *kept.output[1:])
    width = 0 if isinstance(output, Tensor) else len(output)
    with stand_ins(stack, [width] * len(stack), (), [output] * len(stack)):
        logits = logits_of(pruned, kept.row)[0]
    return divergence(kept.log_p.float().to(logits.device), logits.float().log_softmax(-1)).mean()


def _rows(batch: Mapping[str, Tensor]) -> int:
    return len(batch["input_ids"])


def _descend(
    pruned: PreTrainedModel, change: Tensor, fitted: list[Kept], held: list[Kept], steps: int
) -> tuple[Tensor, list[float]]:
    def mean(rows: list[Kept]) -> float:
        with torch.no_grad():
            return sum(float(_loss(pruned, change, row)) for row in rows) / len(rows)

    def closure() -> float:
        optimizer.zero_grad()
        total = 0.0
        for row in fitted:
            loss = _loss(pruned, change, row) / len(fitted)
            loss.backward()
            total += float(loss.detach())
        return total

    optimizer = torch.optim.LBFGS([change], max_iter=1, line_search_fn="strong_wolfe")
    best, seen = change.detach().clone(), [mean(held)]
    for _ in range(steps):
        optimizer.step(closure)
        now = mean(held)
        if not now < seen[-1]:
            break
        best, seen = change.detach().clone(), [*seen, now]
    return best, seen
