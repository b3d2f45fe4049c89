"""Repairs without training that others published, beside ours (`heal`): for the bench, and to see how little they differ.

x_s enters the first removed layer and x_e left the last one, both in the dense model; all four are fitted on these states.

`prune_and_comp`: one number a gap, ``x_s -> a x_s``, folded into all weights before it (Chen et al., arXiv 2507.18212).
`linear_patch`: one number a channel of a rotated state, ``x_s -> x_s H diag(d) H'`` (Chen et al., arXiv 2505.24680).
`ghosted_layers`: any matrix, ``x_s -> x_s (I + M)`` (Yun et al., arXiv 2605.15491); our ``linear`` without the constant, with
absolute errors in place of relative ones, and hardly a ridge.
`replace_me`: any matrix on what the FFN before the gap adds, folded into its output projection (Shopkhoev et al., arXiv
2505.02819, least squares); our ``fold`` with hidden inputs in place of those of the projection, absolute errors, no ridge.

Where the papers' words leave something open, their authors' code decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from shortgpt.model.anatomy import backbone, decoder_layers
from shortgpt.model.hooks import by_token, hooked, run_backbone, unpadded
from shortgpt.pruning.depth import kept_layers, remove_layers
from shortgpt.repair.equations import Equations
from shortgpt.repair.fitting import Sample, States
from shortgpt.repair.folding import add_to, norm_behind, output_projection, running, unit_offset
from shortgpt.repair.healing import fit_in_order, patch_targets
from shortgpt.repair.patches import add_patches

EPSILON = 1e-6  # of Ghosted Layers: added to the diagonal as it is
Batches = Iterable[Mapping[str, Tensor]]


def prune_and_comp(model: PreTrainedModel, layers: Sequence[int], batches: Batches) -> PreTrainedModel:
    """a is the mean over channels and samples of ``mean |x_e| / mean |x_s|``. An ordinary checkpoint."""
    pruned = remove_layers(model, layers)
    for position, _, pairs in _gaps(model, pruned, batches):
        factor = torch.stack([_magnitude(after) / _magnitude(before) for before, after in pairs]).mean()
        scale_stream(pruned, position, float(factor))
    return pruned


def linear_patch(model: PreTrainedModel, layers: Sequence[int], batches: Batches) -> PreTrainedModel:
    """d is the mean over samples of ``mean |x_e H| / mean |x_s H|``, channel by channel."""
    pruned, patches = remove_layers(model, layers), {}
    for position, _, pairs in _gaps(model, pruned, batches):
        rotation = hadamard(pairs[0][0].shape[-1])
        ratios = [_magnitude(after @ rotation) / _magnitude(before @ rotation) for before, after in pairs]
        patches[position] = _patch(rotation @ torch.stack(ratios).mean(0).diag() @ rotation.T)
    return add_patches(pruned, patches)


def ghosted_layers(model: PreTrainedModel, layers: Sequence[int], batches: Batches) -> PreTrainedModel:
    """``M = (X_s' X_s + 1e-6 I)^-1 X_s' (X_e - X_s)``, float64: one matrix a gap, each from the dense states."""
    pruned, patches = remove_layers(model, layers), {}
    for position, _, pairs in _gaps(model, pruned, batches):
        sums = Equations()
        for before, after in pairs:
            sums.add(before, after - before, torch.ones(len(before)))
        sums.square.diagonal().add_(EPSILON)
        identity = torch.eye(len(sums.square), dtype=torch.float64)
        patches[position] = _patch(identity + torch.linalg.solve(sums.square, sums.cross))
    return add_patches(pruned, patches)


def replace_me(model: PreTrainedModel, layers: Sequence[int], batches: Batches) -> PreTrainedModel:
    """``T = (M'M)^-1 M'(X_e - Y)`` for the FFN's output M and the state Y that it is added to. An ordinary checkpoint."""
    pruned = remove_layers(model, layers)
    targets = patch_targets(model, pruned, "gaps")
    samples = _samples(model, batches, {*targets, *targets.values()})
    fit_in_order(model, pruned, samples, targets, _fit_output, False)
    return pruned


METHODS = {
    "prune_and_comp": prune_and_comp,
    "linear_patch": linear_patch,
    "replace_me": replace_me,
    "ghosted_layers": ghosted_layers,
}


def _samples(model: PreTrainedModel, batches: Batches, depths: set[int]) -> list[Sample]:
    return [Sample(model, batch, depths) for batch in unpadded(model, batches)]


def _gaps(
    model: PreTrainedModel, pruned: PreTrainedModel, batches: Batches
) -> list[tuple[int, int, list[tuple[Tensor, Tensor]]]]:
    """Each gap: the position in `pruned` of the layer before it, that layer's number, and x_s and x_e of every sample,
    ``[tokens, hidden]`` float64."""
    targets, kept = patch_targets(model, pruned, "gaps"), kept_layers(model, pruned)
    samples = _samples(model, batches, {i + 1 for i in targets} | set(targets.values()))
    found = []
    for i, end in targets.items():
        states = [(by_token(s.states[i + 1], s.ids), by_token(s.states[end], s.ids)) for s in samples]
        rows = [(x.cpu().double(), y.cpu().double()) for some in states for x, y in zip(*some, strict=True)]
        found.append((kept.index(i), i, rows))
    return found


def _magnitude(states: Tensor) -> Tensor:
    return states.abs().mean(0)


def _patch(matrix: Tensor) -> Tensor:
    """``x -> x matrix`` as `add_patches` wants it: what is added to x, and no constant."""
    change = matrix - torch.eye(len(matrix), dtype=matrix.dtype)
    return torch.cat([change, torch.zeros_like(change[:1])])


def hadamard(n: int) -> Tensor:
    """An orthogonal matrix of entries ±1/√n, ``[n, n]`` float64: Sylvester's doubling of one of Paley's.

    Raises:
        ValueError: n is not 2^a or 2^a (q + 1) with a prime q, q mod 4 = 3 (576, 640 and 1,536 are).
    """
    if n == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    q = n - 1
    if q % 4 == 3 and all(q % d for d in range(2, int(q**0.5) + 1)):
        squares = {i * i % q for i in range(1, q)}
        sign = torch.tensor([0, *(1 if i in squares else -1 for i in range(1, q))], dtype=torch.float64)
        place = torch.arange(q)
        matrix = torch.ones(n, n, dtype=torch.float64)
        matrix[1:, 0], matrix[1:, 1:] = -1, sign[(place[:, None] - place) % q] + torch.eye(q)
        return matrix / n**0.5
    if n % 2:
        raise ValueError(f"no Hadamard matrix of this size is built here: {n}")
    half = hadamard(n // 2) / 2**0.5
    return torch.cat([torch.cat([half, half], 1), torch.cat([half, -half], 1)])


@torch.no_grad()
def _fit_output(
    layer: nn.Module, i: int, samples: Sequence[Sample], states: States, goals: States
) -> tuple[States, Tensor]:
    """ReplaceMe's T as a fit of `fit_in_order`: the states that then leave `layer`, and T - I."""
    projection = output_projection(layer, i, samples[0], states[0], "ffn")
    if norm_behind(layer, projection, samples[0], i, states[0]) is not None:
        raise ValueError(
            f"in layer {i} ({type(layer).__name__}) a norm follows the FFN: ReplaceMe has no matrix to fold into"
        )
    sums = Equations()
    for (sample, y, [z]), goal in zip(running(layer, i, samples, states, [projection]), goals, strict=True):
        added, rest = (by_token(some, sample.ids).flatten(0, 1) for some in (projection(z).view_as(y), goal - y))
        sums.add(added, rest, torch.ones(sample.ids.numel()))
    solution = torch.linalg.pinv(sums.square, hermitian=True) @ sums.cross
    weight = projection.weight.detach().cpu().double()
    add_to(projection, (weight if isinstance(projection, Conv1D) else weight.T) @ solution)
    if projection.bias is not None:
        change = projection.bias.detach().cpu().double() @ solution
        projection.bias = nn.Parameter(projection.bias + change.to(projection.bias))
    return [sample.run(layer, i, x) for sample, x in zip(samples, states, strict=True)], solution


@torch.no_grad()
def scale_stream(model: PreTrainedModel, position: int, factor: float) -> None:
    """Multiply the state that leaves the layer at `position` by `factor`: everything that writes to it so far.

    `model` (changed in place, weights that others share replaced) stays an ordinary checkpoint: embeddings, output
    projections of the branches or the norms behind them, and the last norm divided where the head is the embedding.
    """
    ids = torch.tensor([[1, 2, 3]])
    sample = Sample(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, range(position + 1))
    for i, layer in enumerate(decoder_layers(model)[: position + 1]):
        for branch in ("attention", "ffn"):
            projection = output_projection(layer, i, sample, sample.states[i], branch)
            _scale(norm_behind(layer, projection, sample, i, sample.states[i]) or projection, factor)
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head is not None and head.weight is embeddings.weight
    for module in backbone(model).modules():
        if isinstance(module, nn.Embedding):  # of positions, too
            _scale(module, factor)
    if tied:
        head.weight = embeddings.weight
        _scale(_last_norm(model, ids), 1 / factor)


def _scale(module: Any, factor: float) -> None:
    """Give `module` a new weight (and bias), so that what it gives is `factor` times as long."""
    offset = unit_offset(module) if module.weight.ndim == 1 and getattr(module, "bias", None) is None else 0.0
    for name in ("weight", "bias"):
        if (old := getattr(module, name, None)) is not None:
            new = factor * (old.float() + offset) - offset
            setattr(module, name, nn.Parameter(new.to(old), requires_grad=old.requires_grad))


def _last_norm(model: PreTrainedModel, ids: Tensor) -> Any:
    ran: list[nn.Module] = []
    norms = [module for module in backbone(model).modules() if getattr(getattr(module, "weight", None), "ndim", 0) == 1]
    with hooked(norms, lambda position, module, args, kwargs, output: ran.append(module)), torch.no_grad():
        run_backbone(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    return ran[-1]
