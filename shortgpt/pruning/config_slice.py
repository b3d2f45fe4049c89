"""What in a configuration has one entry a layer, or names layers by number, and how it follows when layers go.

Nothing here knows an architecture by name: the fields are found by looking. Whether that was enough for a model is checked in
`config_fit`, by building what the changed configuration describes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from transformers import PreTrainedConfig

from shortgpt.model.anatomy import COUNT_NAMES, REMOVED_FIELD, REPAIR_FIELD, text_config
from shortgpt.model.names import LayerNames

_NOT_LISTS = ("per_layer_config", "use_return_dict", "torch_dtype")  # reading the last one logs a warning
_LISTS_OF_INDICES = re.compile(r".*layer.*|.*(idxs|indices)")


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
        elif "token" in name or name in (REMOVED_FIELD, REPAIR_FIELD):
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


def rename_in_quantization(config: PreTrainedConfig, names: LayerNames) -> None:
    """Quantization settings may list modules, by names with layer numbers in them, that were left as they were."""
    for owner in {id(c): c for c in (config, text_config(config))}.values():
        settings = getattr(owner, "quantization_config", None)
        if isinstance(settings, dict):
            owner.quantization_config = names.inside(settings)
        elif settings is not None:
            for name, value in list(vars(settings).items()):
                if isinstance(value, list | tuple | dict):
                    setattr(settings, name, names.inside(value))


def freeze_properties(config: PreTrainedConfig, wanted: dict[str, list]) -> None:
    """Give `config` the per-layer lists `wanted` where its class computes others: caches and masks are built from them."""
    config = text_config(config)
    now = dict(per_layer_properties(config))
    frozen = {name: value for name, value in wanted.items() if now.get(name) != value}
    if frozen:
        config.__class__ = type(
            type(config).__name__, (type(config),), frozen | {"__module__": type(config).__module__}
        )
