"""What a healed model is held to: the dense model's answers, and its states where both have the same layer.

A layer that was kept has a number in the dense model, and the state that enters it there is what should enter it here (a
gap's repair aims at the same, see `healing`). So states are matched by *original layer index*, however many gaps there are:
of a model without layers 3 and 4 of six, what enters its layer 3 is held against what enters the dense layer 5.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from shortgpt.model.anatomy import decoder_layers, original_layers, removed_so_far
from shortgpt.model.arguments import vocabulary_size
from shortgpt.model.hooks import by_token, watch_layers
from shortgpt.model.logits import divergence
from shortgpt.pruning.depth import kept_layers


def matching_depths(pruned: PreTrainedModel, teacher: PreTrainedModel) -> dict[int, int]:
    """Which depth of `teacher` each depth of `pruned` is to agree with; depth i enters layer i, the last leaves the last.

    What enters the first layer of `pruned` is left out: it is the embedding, and no layer could change it.

    Raises:
        ValueError: `pruned` was not made of `teacher` by taking layers out of it.
    """
    kept, depth = kept_layers(teacher, pruned), len(decoder_layers(teacher))
    gone, before = set(removed_so_far(pruned)), set(removed_so_far(teacher))
    same_stack = (
        before <= gone and gone - before <= set(original_layers(teacher)) and len(kept) == depth - len(gone - before)
    )
    if not same_stack or len(kept) != len(decoder_layers(pruned)):
        raise ValueError(
            f"the model to heal has {len(decoder_layers(pruned))} layers and lacks {sorted(gone) or 'none'}, so it was not "
            f"made of this teacher of {depth} layers: give the model that the layers were removed from"
        )
    if vocabulary_size(pruned) != vocabulary_size(teacher):
        raise ValueError(
            f"the teacher knows {vocabulary_size(teacher)} tokens and the model to heal {vocabulary_size(pruned)}: give the "
            "model that the layers were removed from"
        )
    return {**{position: i for position, i in enumerate(kept) if position}, len(kept): depth}


def answers_and_states(
    model: PreTrainedModel, ids: Tensor, depths: Collection[int], run: Callable[..., Any] | None = None
) -> tuple[Tensor, dict[int, Tensor]]:
    """One forward pass: logits ``[batch, tokens, vocabulary]``, and states ``[batch, tokens, hidden]`` at `depths`.

    `run`: what to call instead of `model`, for instance the same model inside `DistributedDataParallel`.
    """
    states: dict[int, Tensor] = {}

    def keep(layer: int, x_in: Tensor, x_out: Tensor) -> None:
        for depth, state in ((layer, x_in), (layer + 1, x_out)):
            if depth in depths:
                states[depth] = by_token(state, ids)

    with watch_layers(model, keep):  # only while it runs: what checkpointing computes again is not wanted
        output = (run or model)(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return output.logits, states


def answer_divergence(
    student: Tensor, teacher: Tensor, *, temperature: float = 1.0, top_k: int | None = None
) -> Tensor:
    """How far the student's next-token distribution is from the teacher's: ``[..., vocabulary]`` twice ``-> [...]``, nats.

    Kullback-Leibler divergence of both softened by `temperature`, times its square, so that gradients keep their size
    (Hinton et al., arXiv 1503.02531). With `top_k` only the teacher's likeliest tokens are told apart and all others are one
    event: a lower bound of the whole divergence, for a fraction of its memory.
    """
    if top_k is None:
        log_p, log_q = ((logits.float() / temperature).log_softmax(-1) for logits in (teacher, student))
    else:
        chosen = teacher.topk(min(top_k, teacher.shape[-1] - 1), -1).indices
        log_p, log_q = (_with_rest(logits, chosen, temperature) for logits in (teacher, student))
    return temperature**2 * divergence(log_p, log_q)


def _with_rest(logits: Tensor, chosen: Tensor, temperature: float) -> Tensor:
    """Log-probabilities of the tokens `chosen`, and of all others together: ``[..., k + 1]``."""
    logits = logits.float() / temperature
    of_chosen = logits.gather(-1, chosen) - logits.logsumexp(-1, keepdim=True)
    together = of_chosen.logsumexp(-1, keepdim=True).clamp(max=-1e-6)  # rounding: never all of it
    return torch.cat([of_chosen, torch.log(-torch.expm1(together))], -1)


def state_error(student: Mapping[int, Tensor], teacher: Mapping[int, Tensor], depths: Mapping[int, int]) -> Tensor:
    """``|x - x_dense|^2 / |x_dense|^2``, mean over `depths` (see `matching_depths`): ``[batch, tokens]``, float32.

    Relative, because a few tokens (the first of a text above all) have states hundreds of times longer than the rest.
    """
    errors = []
    for own, dense in depths.items():
        goal = teacher[dense].to(student[own].device).float()
        errors.append((student[own].float() - goal).square().sum(-1) / goal.square().sum(-1).clamp(min=1e-12))
    return torch.stack(errors).mean(0)
