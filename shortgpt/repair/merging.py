"""Merge removed layers into the layer before the gap: the older neighbour of `healing`, which reads no text.

LaCo (Yang et al., arXiv 2402.11187) keeps of a run of layers the first and adds to its weights what the others differ by:

    theta_a  <-  theta_a + sum_j (theta_j - theta_a)

for the removed layers j right behind layer a. That is plausible only where neighbouring layers have nearly the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shortgpt.model.adapters import require_no_adapter
from shortgpt.model.anatomy import decoder_layers, original_layers
from shortgpt.pruning.depth import remove_layers
from shortgpt.pruning.plan import PruningPlan
from shortgpt.pruning.repair_record import record_repair
from shortgpt.repair.healing import following_layers


@torch.no_grad()
def merge_layers(model: PreTrainedModel, layers: Sequence[int] | PruningPlan) -> PreTrainedModel:
    """Remove `layers` and add to each layer before a gap how the removed ones differ from it (LaCo, "RDSC merging").

    Args:
        model: a model in float32, bfloat16 or float16. Sums are float32 and rounded once.
        layers: as for `remove_layers`.

    Returns:
        A new model, an ordinary checkpoint; all other weights are shared with `model`, which is unchanged.

    Raises:
        ValueError: layer 0 is removed, a removed layer has weights of other names or shapes than the one it is merged into,
            weights are quantized, shared between layers or not in memory, or what `remove_layers` refuses.
    """
    pruned, stack = remove_layers(model, layers), decoder_layers(model)
    # an adapter's matrices are factors: their sums are not the sums of products
    require_no_adapter(model, "be merged layer by layer")
    merged = []
    for layer, (i, following) in zip(decoder_layers(pruned), following_layers(model, pruned).items(), strict=True):
        gone = range(i + 1, following)
        if gone:
            _add_differences(layer, i, {j: dict(stack[j].named_parameters()) for j in gone})
            merged.append(original_layers(model)[i])
    if merged:
        record_repair(pruned.config, "merge", "gaps", merged, 0)
    return pruned


def _add_differences(layer: nn.Module, i: int, gone: dict[int, dict[str, Tensor]]) -> None:
    """Give `layer`, number i, new weights; `gone` has those of the removed layers behind it, by number and name."""
    own = dict(layer.named_parameters())
    for j, weights in gone.items():
        if {name: w.shape for name, w in weights.items()} != {name: w.shape for name, w in own.items()}:
            raise ValueError(f"layer {j} has other weights than layer {i}, so they can't be added: use shortgpt.heal")
        if any(weights[name] is own[name] for name in own):
            raise ValueError(f"layers {i} and {j} share weights, so they can't be merged: use shortgpt.heal")
    for name, weight in own.items():
        if type(weight) is not nn.Parameter or not weight.is_floating_point() or weight.device.type == "meta":
            raise ValueError(
                f"the weights of layer {i} are quantized or not in memory: merge the original model, loaded on one device"
            )
        total = weight.float()
        for weights in gone.values():
            total = total + (weights[name].to(weight.device).float() - weight.float())
        owner, _, leaf = name.rpartition(".")
        setattr(layer.get_submodule(owner), leaf, nn.Parameter(total.to(weight), requires_grad=weight.requires_grad))
