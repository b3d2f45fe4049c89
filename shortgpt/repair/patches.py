"""Small linear modules on the residual stream, where `healing` puts them: after the layer before a gap.

The patched layer keeps its class and gets one more child; a forward hook applies it. So everything that looks at layers
(masks, caches, surgery, scoring) goes on working. transformers' configuration has no word for it: such a model is saved in
our own format (see `saving`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shortgpt.model.anatomy import decoder_layers
from shortgpt.model.view import share_weights
from shortgpt.pruning.recipe import record_step

NAME = "linear_patch"


def add_patches(model: PreTrainedModel, solutions: Mapping[int, Tensor]) -> PreTrainedModel:
    """A view of `model` in which layer i hands on ``x + [x, 1] @ solutions[i]``; each is ``[hidden + 1, hidden]``."""
    view = share_weights(model)
    for i, solution in solutions.items():
        layer = decoder_layers(view)[i]
        weights = next(p for p in layer.parameters() if p.is_floating_point())
        on_disk = weights.is_meta and not solution.is_meta  # else the whole model is empty
        device = "cpu" if on_disk else weights.device
        patch = nn.Linear(solution.shape[1], solution.shape[1], device=device, dtype=model.dtype)
        with torch.no_grad():
            patch.weight.copy_(solution[:-1].T)
            patch.bias.copy_(solution[-1])
        layer.add_module(NAME, patch.requires_grad_(weights.requires_grad))
        layer.register_forward_hook(_apply)
    widths = {int(i): solution.shape[1] for i, solution in solutions.items()}
    record_step(view, model, {"patches": sorted(widths), "width": max(widths.values())})
    return view


def empty_patches(positions: list[int], width: int) -> dict[int, Tensor]:
    """Solutions that change nothing, to be filled from a checkpoint."""
    return {i: torch.zeros(width + 1, width) for i in positions}


def _apply(layer: nn.Module, args: tuple, output: Tensor | tuple) -> Tensor | tuple:
    if isinstance(output, Tensor):
        return output + layer.get_submodule(NAME)(output)
    return (output[0] + layer.get_submodule(NAME)(output[0]), *output[1:])
