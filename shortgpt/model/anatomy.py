"""Where the decoder layers of a transformers model are, and which of the dense model's layers they were.

Nothing here knows an architecture by name. The decoder layers are the `ModuleList` of the backbone that is as long as the
configuration says.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from shortgpt.model.arguments import check_model

REMOVED_FIELD = "shortgpt_removed_layers"  # in the configuration of a pruned model: original indices, ascending
REPAIR_FIELD = "shortgpt_repair"  # and of a repaired one: how, and which layers (see `repair_record`)
BASE = "_shortgpt_base"  # on a model that is no checkpoint any more: the name of the one it was made of
INDEX_NAMES = ("layer_idx", "layer_id", "layer_number")
COUNT_NAMES = re.compile(r"(num|n)_(hidden_)?(layers?|blocks)")


def backbone(model: PreTrainedModel) -> nn.Module:
    """The model without its language-model head: ids in, final hidden states out."""
    inner = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
    has_layers = any(isinstance(module, nn.ModuleList) for module in inner.modules())
    return inner if has_layers else model.base_model  # a few models call their head the decoder


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The model's decoder layers in order: the live `ModuleList`, not a copy.

    Raises:
        TypeError: `model` is not a transformers model.
        ValueError: an encoder-decoder, or no (or no single) list of layers as long as the configuration says.
    """
    path = decoder_layers_path(model)  # refuses what is no model
    stack = model.get_submodule(path)
    assert isinstance(stack, nn.ModuleList)
    return stack


def decoder_layers_path(model: PreTrainedModel) -> str:
    """Dotted name of the decoder layers within `model`, for instance ``"model.layers"``."""
    check_model(model)
    if model.config.is_encoder_decoder:
        raise ValueError(f"{type(model).__name__} is an encoder-decoder; only decoder-only models can be pruned here")
    config = text_config(model.config)
    depths = {getattr(config, name, None) for name in ("num_hidden_layers", "num_layers")}
    inside = {id(module) for module in backbone(model).modules()}
    candidates = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) in depths and id(module) in inside
    ]
    # a layer has parts of its own; a list of plain linears beside the layers can be as long by chance (Gemma 3n's AltUp)
    candidates = [
        name for name in candidates if all(any(layer.children()) for layer in model.get_submodule(name).children())
    ]
    outermost = min((name.count(".") for name in candidates), default=0)  # layers may hold lists of their own
    candidates = [name for name in candidates if name.count(".") == outermost]
    if not candidates:
        raise ValueError(
            f"{type(model).__name__} has no decoder stack: no list of {getattr(config, 'num_hidden_layers', '?')} layers, "
            "as its config.num_hidden_layers says"
        )
    if len(candidates) > 1:
        raise ValueError(
            f"{type(model).__name__} keeps the parts of its layers in parallel lists ({', '.join(candidates)}): there is "
            "no decoder layer that could be scored or removed as one"
        )
    return candidates[0]


def text_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The part of `config` that describes the decoder: all of it, or the text part of a composite model."""
    return config.get_text_config(decoder=True)


def removed_so_far(model: PreTrainedModel) -> tuple[int, ...]:
    """Indices, in the dense model, of the layers that are already gone from `model` (also after a reload)."""
    return tuple(getattr(model.config, REMOVED_FIELD, ()))


def surviving(depth: int, removed: Collection[int]) -> list[int]:
    """Which layers of the dense model are the `depth` ones that are left when `removed` are gone: original indices."""
    return [index for index in range(depth + len(removed)) if index not in removed]


def original_layers(model: PreTrainedModel) -> list[int]:
    """For each layer of `model`, which one of the dense model it is."""
    return surviving(len(decoder_layers(model)), removed_so_far(model))


def model_name(model: PreTrainedModel) -> str:
    """The name under which `model` was loaded, with ``@commit`` if it came from the Hub.

    For a model that was changed since (`forget_checkpoint`), the name of the one that it was made of.
    """
    commit = getattr(model.config, "_commit_hash", None)
    name = (model.config.name_or_path or "") + (f"@{commit}" if commit else "")
    return name or getattr(model, BASE, "")


def forget_checkpoint(model: PreTrainedModel, base: str) -> None:
    """`model` (changed in place) was made of the checkpoint `base` and is another model: take the name off it.

    peft, Trainer and the Hub's cards take ``name_or_path`` for where these very weights are: an adapter trained on a
    pruned model would be loaded onto the dense one.
    """
    setattr(model, BASE, base)
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module.name_or_path = module.config.name_or_path = ""
            module.config._commit_hash = None


def parameter_count(model: nn.Module) -> int:
    """Parameters, each counted once when shared, and also when 4-bit packing hides half of them."""
    counts: dict[int, int] = {}
    for module in model.modules():
        inside = getattr(module, "in_features", 0) * getattr(module, "out_features", 0)  # of a linear layer
        for name, parameter in module.named_parameters(recurse=False):
            packed = isinstance(module, nn.Linear) and name == "weight"
            counts[id(parameter)] = inside if packed else parameter.numel()
        if "qweight" in dict(module.named_buffers(recurse=False)):  # GPTQ keeps weight and bias as buffers
            bias = getattr(module, "bias", None)
            counts[id(module)] = inside + (0 if bias is None else bias.numel())
    return sum(counts.values())


def runs_own_code(model: PreTrainedModel) -> bool:
    """Whether `model` is of a class that came with its checkpoint, which only ``trust_remote_code=True`` lets load."""
    return any(type(part).__module__.partition(".")[0] == "transformers_modules" for part in (model, model.config))
