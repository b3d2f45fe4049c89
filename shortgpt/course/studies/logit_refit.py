"""Refit the last matrix that writes to the states, so that the pruned model's distributions are the dense model's.

All other repairs aim at states. What counts is what the head makes of them, and behind the last layer there are only a norm
and the head: the divergence of the dense model's distribution from the pruned one's is a function of that layer's output
projection which needs no gradient through the stack. L-BFGS (curvature from the last gradients) goes down it; samples that
are held back say when to stop, for a matrix has more numbers than the text has tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from shortgpt.model.anatomy import decoder_layers
from shortgpt.model.hooks import eval_mode, hooked, layer_output, logits_of, unpadded
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
        {name: row[None] for name, row in zip(b, pair, strict=True)}
        for b in unpadded(model, batches)
        for pair in zip(*b.values(), strict=True)
    ]
    if len(rows) < 2:
        raise ValueError("refitting on logits needs at least two samples of text, one of them to say when to stop")
    last = len(decoder_layers(pruned)) - 1
    sample = Sample(pruned, rows[0], {last})
    projection = output_projection(decoder_layers(pruned)[last], last, sample, sample.states[last], "ffn")
    kept = [_frozen(model, pruned, row, projection) for row in rows]
    held = [row for place, row in enumerate(kept, start=1) if place % HOLD_BACK == 2]
    fitted = [row for place, row in enumerate(kept, start=1) if place % HOLD_BACK != 2]
    change = torch.zeros(kept[0][0].shape[-1], sample.states[last].shape[-1], requires_grad=True)
    with eval_mode(pruned):
        best, seen = _descend(pruned, change, fitted, held, steps)
    add_to(projection, best)
    return pruned, seen


Kept = tuple[Tensor, Tensor, Tensor]  # what enters the projection, the last state, the dense log-probabilities


@torch.no_grad()
def _frozen(
    model: PreTrainedModel, pruned: PreTrainedModel, row: Mapping[str, Tensor], projection: torch.nn.Module
) -> Kept:
    seen: list[Tensor] = []
    stack = decoder_layers(pruned)
    with (
        hooked([projection], lambda place, module, args, kwargs: seen.append(args[0]), before=True),
        hooked(stack[-1:], lambda place, module, args, kwargs, output: seen.append(layer_output(output))),
    ):
        logits_of(pruned, row)
    return seen[0], seen[1], log_probabilities(logits_of(model, row)[0]).half()


def _loss(pruned: PreTrainedModel, change: Tensor, row: Kept) -> Tensor:
    """Mean divergence in nats a token: the model's own norm and head, behind a last layer that hands on these states."""
    z, state, log_p = row
    shifted = state + (z @ change.to(z)).view_as(state)
    with hooked(decoder_layers(pruned)[-1:], lambda place, module, args, kwargs, output: _put(output, shifted)):
        logits = pruned(inputs_embeds=torch.zeros_like(shifted), use_cache=False).logits[0]
    return divergence(log_p.float(), logits.float().log_softmax(-1)).mean()


def _put(output: Tensor | tuple, states: Tensor) -> Tensor | tuple:
    return states if isinstance(output, Tensor) else (states, *output[1:])


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
            total += float(loss)
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
