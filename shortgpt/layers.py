"""Where the decoder layers of a transformers model are, and what must change when some of them go.

Nothing here knows an architecture by name. The decoder layers are the `ModuleList` of the backbone that is as long as
the configuration says; what must change is found by looking: attributes called ``layer_idx`` or ``layer_id`` in the
modules, and lists with one entry per layer in the configuration.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

_INDEX_NAMES = ("layer_idx", "layer_id")
REMOVED_FIELD = "shortgpt_removed_layers"  # in the configuration of a pruned model: original indices, ascending


def backbone(model: PreTrainedModel) -> nn.Module:
    """The model without its language-model head: ids in, final hidden states out."""
    return model.get_decoder() if hasattr(model, "get_decoder") else model.base_model


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The model's decoder layers in order: the live `ModuleList`, not a copy.

    Raises:
        TypeError: `model` is not a transformers model.
        ValueError: an encoder-decoder, or no list of layers as long as the configuration says.
    """
    return model.get_submodule(decoder_layers_path(model))


def decoder_layers_path(model: PreTrainedModel) -> str:
    """Dotted name of the decoder layers within `model`, for instance ``"model.layers"``."""
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"expected a transformers model, got {type(model).__name__}: pass what load() returned first")
    if model.config.is_encoder_decoder:
        raise ValueError(f"{type(model).__name__} is an encoder-decoder; only decoder-only models can be pruned here")
    depth = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    inner = backbone(model)
    candidates = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth and _is_within(module, inner)
    ]
    if not candidates:
        raise ValueError(
            f"{type(model).__name__} has no decoder stack: no list of {depth} layers, as its config.num_hidden_layers says"
        )
    return min(candidates, key=lambda name: name.count("."))  # the outermost: layers may hold lists of their own


def renumber(layers: Sequence[nn.Module]) -> None:
    """Tell each layer, and each module inside it that keeps its own index, the position it now has.

    The key-value cache is addressed by these indices: stale ones make cached generation fail or, worse, mix layers up.
    """
    for position, layer in enumerate(layers):
        for module in layer.modules():
            for name in _INDEX_NAMES:
                if isinstance(getattr(module, name, None), int):
                    setattr(module, name, position)


def keep_in_config(config: PreTrainedConfig, kept: Sequence[int]) -> None:
    """Make `config` (changed in place) describe the layers `kept` (current 0-based indices, ascending).

    Every list with one entry per layer is sliced by *surviving index*: a list of the right length with the wrong
    entries would reload without complaint as another model.
    """
    text_config = config.get_text_config()
    depth = text_config.num_hidden_layers
    per_layer = {
        name: [values[i] for i in kept]
        for name, values in vars(text_config).items()
        if isinstance(values, list | tuple)
        and len(values) == depth
        and not name.endswith(("_id", "_ids", REMOVED_FIELD))
    }
    text_config.num_hidden_layers = len(kept)  # the class maps this name to its own (n_layer, ...)
    for name, values in per_layer.items():
        setattr(text_config, name, values)


def removed_so_far(model: PreTrainedModel) -> tuple[int, ...]:
    """Indices, in the dense model, of the layers that are already gone from `model` (also after a reload)."""
    return tuple(getattr(model.config, REMOVED_FIELD, ()))


def _is_within(module: nn.Module, ancestor: nn.Module) -> bool:
    return any(module is inner for inner in ancestor.modules())
