"""Where the decoder layers of a transformers model are, and what must change when some of them go.

Nothing here knows an architecture by name. The decoder layers are the `ModuleList` of the backbone that is as long as
the configuration says; what must change is found by looking: attributes that hold a layer's number, and fields of the
configuration with one entry per layer or with layer numbers. Whether the rules were enough for a model is checked in
`blueprint`, by building what the changed configuration describes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from shortgpt.model.arguments import check_model

REMOVED_FIELD = "shortgpt_removed_layers"  # in the configuration of a pruned model: original indices, ascending
REPAIR_FIELD = "shortgpt_repair"  # and of a repaired one: how, and which layers (see `healing`)
BASE = "_shortgpt_base"  # on a model that is no checkpoint any more: the name of the one it was made of
INDEX_NAMES = ("layer_idx", "layer_id", "layer_number")
COUNT_NAMES = re.compile(r"(num|n)_(hidden_)?(layers?|blocks)")
_NOT_LISTS = ("per_layer_config", "use_return_dict", "torch_dtype")  # reading the last one logs a warning
_LISTS_OF_INDICES = re.compile(r".*layer.*|.*(idxs|indices)")


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
    stack = model.get_submodule(decoder_layers_path(model))  # which refuses what is no model
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


def renumber(layers: Iterable[nn.Module], kept: Sequence[int], depth: int, per_layer: int = 1) -> None:
    """Tell each layer, and each module inside it that keeps its own number, the position it now has.

    The key-value cache is addressed by these numbers: stale ones make cached generation fail or, worse, mix layers up.
    `kept` are the positions that the layers had, of `depth`. A layer takes `per_layer` places in the cache (two in LongCat).
    """
    position = {old: new for new, old in enumerate(kept)}
    for new, (old, layer) in enumerate(zip(kept, layers, strict=True)):
        for module in layer.modules():
            for name, value in list(vars(module).items()):
                if name in INDEX_NAMES and isinstance(value, int) and value >= 0:
                    setattr(module, name, value + (new - old) * (1 if module is layer else per_layer))
                elif (
                    name.startswith("layer_") and isinstance(value, dict) and _are_numbers(value)
                ):  # number -> its weights
                    setattr(module, name, {position[i]: w for i, w in value.items() if i in position})
                elif isinstance(value, list | tuple) and len(value) == depth and all(isinstance(v, str) for v in value):
                    setattr(module, name, type(value)(value[i] for i in kept))  # a copy of the configuration's list


def keep_in_config(config: PreTrainedConfig, kept: Sequence[int]) -> None:
    """Make `config` (changed in place) describe the layers `kept` (current 0-based indices, ascending).

    Everything with one entry per layer is sliced by *surviving index* (a list of the right length with the wrong
    entries would reload without complaint as another model); lists of layer numbers are renumbered.

    Raises:
        ValueError: a kept layer reads keys and values that a removed one computes.
    """
    config = text_config(config)
    depth = config.num_hidden_layers
    listed = getattr(config, "num_layers", depth)  # LongCat: two cache places in each of its layers
    require_key_value_sources(config, kept)
    overrides = config.to_dict().get("per_layer_config") if getattr(config, "is_heterogeneous", False) else None
    changed = {}
    for name, value in vars(config).items():
        if COUNT_NAMES.fullmatch(name) and value in (depth, listed):
            changed[name] = len(kept) * (value // listed)
        elif "token" in name or name == REMOVED_FIELD:
            continue
        elif isinstance(value, list | tuple) and len(value) == depth:
            changed[name] = type(value)(value[i] for i in kept)
        elif _LISTS_OF_INDICES.fullmatch(name) and is_index_list(value, depth):
            changed[name] = [new for new, old in enumerate(kept) if old in value]
    if overrides is not None:
        config.per_layer_config = None
    for name, value in changed.items():
        setattr(config, name, value)
    if not any(COUNT_NAMES.fullmatch(name) for name in changed):  # the class maps or computes it
        config.num_hidden_layers = len(kept)
    if overrides is not None:
        by_index = {int(index): values for index, values in overrides.items()}
        config.per_layer_config = {new: by_index[old] for new, old in enumerate(kept) if old in by_index}


def is_index_list(value: object, depth: int) -> bool:
    """Whether `value` is a list of distinct layer numbers, ascending."""
    return (
        isinstance(value, list | tuple)
        and all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < depth for i in value)
        and list(value) == sorted(set(value))
    )


def per_layer_properties(config: PreTrainedConfig) -> Iterator[tuple[str, list]]:
    """Lists with one entry per layer that the configuration's class computes, for instance from a period."""
    config = text_config(config)
    for cls in type(config).__mro__:
        for name, member in vars(cls).items():
            if isinstance(member, property) and name not in _NOT_LISTS:
                try:
                    value = getattr(config, name)
                except Exception:  # of another configuration than this one
                    continue
                if isinstance(value, list) and len(value) == config.num_hidden_layers:
                    yield name, value


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


def _are_numbers(values: dict) -> bool:
    return bool(values) and all(isinstance(key, int) and not isinstance(key, bool) for key in values)


def require_key_value_sources(config: PreTrainedConfig, kept: Sequence[int]) -> None:
    modes = getattr(config, "kv_sharing_modes", None) or []
    kinds = getattr(config, "layer_types", None) or [None] * len(modes)
    for i, mode in enumerate(modes):
        readers = [r for r in kept if mode == "store" and modes[r] == "reuse" and kinds[r] == kinds[i]]
        if i not in kept and readers:
            raise ValueError(
                f"layer {i} computes the keys and values that layers {', '.join(map(str, readers))} use too: it can only be "
                "removed together with them"
            )


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
