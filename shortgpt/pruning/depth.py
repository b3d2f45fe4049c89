"""Remove decoder layers from a model.

Removing is cheap: the pruned model is a *view*, a new tree of modules over the very same weights. So a plan can be
tried and thrown away, and the original model is never touched. Writing the result to disk is in `saving`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from shortgpt.model.anatomy import (
    REMOVED_FIELD,
    decoder_layers,
    decoder_layers_path,
    keep_in_config,
    original_layers,
    per_layer_properties,
    removed_so_far,
    renumber,
    require_key_value_sources,
    text_config,
)
from shortgpt.model.names import LayerNames
from shortgpt.model.offload import keep_in_device_map
from shortgpt.model.view import share_weights
from shortgpt.pruning.config_fit import differences, fit_config, fit_shared_weights
from shortgpt.pruning.plan import PruningPlan, check_indices
from shortgpt.pruning.recipe import RECIPE, record_step


def remove_layers(model: PreTrainedModel, layers: Sequence[int] | PruningPlan) -> PreTrainedModel:
    """Return `model` without some decoder layers: a new model that shares all weights with it.

    Args:
        layers: 0-based indices in `model` as it is now; or a plan, whose indices are those of the dense model, so that
            a plan fits a model that part of the plan has been applied to already.

    The input is unchanged. The result computes what `model` would compute if those layers passed their input on
    unchanged. Its configuration records the original indices of all removed layers (`removed_so_far`).

    Because weights are shared, whatever writes to them in one model writes to the other: an optimizer, or peft's
    ``merge_and_unload()``. Before training, `save` the result and `load` it again: then the weights are its own, and an
    adapter trained on it names that folder as its base. (`copy.deepcopy` gives it its own weights in memory, and no name:
    an adapter trained on that can't tell where its base is.) The result has no ``name_or_path``, for it isn't the
    checkpoint that `model` came from.

    Raises:
        ValueError: an unknown or repeated index, no layer left, a plan made for another model, layers that the rest
            can't do without (their keys and values are used elsewhere; a hybrid model's last attention layer); or a
            replaced ``forward`` that can't be given to a copy (see `rebinding`).
    """
    original, already = original_layers(model), removed_so_far(model)
    if isinstance(layers, PruningPlan):
        if layers.layers != len(original) + len(already) or not set(already) <= set(layers.removed):
            raise ValueError(
                f"this plan is for a dense model of {layers.layers} layers without {sorted(layers.removed)}; the model at "
                f"hand comes from one of {len(original) + len(already)} layers and already lacks {list(already) or 'none'}"
            )
        layers = [original.index(i) for i in layers.removed if i not in already]
    layers = check_indices(layers, len(original))
    kept = [i for i in range(len(original)) if i not in set(layers)]
    require_removable(model, layers)

    pruned = share_weights(model)
    path = decoder_layers_path(pruned)
    parent, _, name = path.rpartition(".")
    survivors = nn.ModuleList(decoder_layers(pruned)[i] for i in kept)
    renumber(survivors, kept, len(original), text_config(model.config).num_hidden_layers // len(original))
    _keep_entry_norm(decoder_layers(model)[0], survivors[0])
    setattr(pruned.get_submodule(parent), name, survivors)
    keep_in_device_map(pruned, path, kept)
    keep_in_config(pruned.config, kept)
    _rename_in_quantization(pruned.config, LayerNames(path, path, kept))
    setattr(
        pruned.config, REMOVED_FIELD, sorted(set(range(len(original) + len(already))) - {original[i] for i in kept})
    )
    if len(kept) < len(original):
        _match_config(pruned, model, kept)
    return pruned


def kept_layers(model: PreTrainedModel, pruned: PreTrainedModel) -> list[int]:
    """Where each layer of `pruned` stands in `model`."""
    gone = removed_so_far(pruned)
    return [position for position, original in enumerate(original_layers(model)) if original not in gone]


def require_removable(model: PreTrainedModel, layers: Sequence[int]) -> None:
    """Raise ValueError if the rest of `model` can't do without `layers` (current indices)."""
    kept = [i for i in range(len(decoder_layers(model))) if i not in set(layers)]
    _require_kinds(model.config, kept)
    _require_no_boundary(decoder_layers(model), layers)
    require_key_value_sources(text_config(model.config), kept)


def _match_config(pruned: PreTrainedModel, model: PreTrainedModel, kept: Sequence[int]) -> None:
    """Make the configuration describe the pruned model; if that can't be done, keep the recipe instead."""
    depth = len(decoder_layers(model))
    left = differences(pruned, pruned.config)
    if left:
        fit_shared_weights(pruned, kept, depth)
        if fit_config(pruned, model.config, kept):
            fit_shared_weights(pruned, kept, depth)  # now that there may be a configuration to build from
        left = differences(pruned, pruned.config)
    if left and getattr(model, RECIPE, None) is None:
        # what already differs in the dense model is not about removal: somebody changed it after loading
        before = set(_kinds(differences(model, model.config)))
        left = [difference for difference in left if not {*_kinds([difference])} & before]
    if not left:
        for name in (RECIPE, "save_pretrained"):
            vars(pruned).pop(name, None)
        return
    removed = [i for i in range(depth) if i not in kept]
    record_step(pruned, model, {"layers": removed})
    wanted = {name: [values[i] for i in kept] for name, values in per_layer_properties(model.config)}
    _freeze_properties(pruned.config, wanted)


def _kinds(left: list[str]) -> list[str]:
    return [re.sub(r"\d+", "*", difference.partition(":")[0]) for difference in left]


def _require_kinds(config: PreTrainedConfig, kept: Sequence[int]) -> None:
    """A hybrid model needs one layer that keeps keys and values: transformers counts the cached tokens there."""
    kinds = getattr(text_config(config), "layer_types", None) or []
    with_keys = {
        i for i, kind in enumerate(kinds) if "hybrid" in kind or ("attention" in kind and "linear" not in kind)
    }
    if with_keys and len(with_keys) < len(kinds) and not with_keys & set(kept):
        raise ValueError(
            f"only layers {', '.join(map(str, sorted(with_keys)))} of this hybrid model keep keys and values, and cached "
            "generation needs one of them: keep at least one"
        )


def _require_no_boundary(stack: nn.ModuleList, layers: Sequence[int]) -> None:
    for i in layers:
        if getattr(stack[i], "is_block_boundary", False):
            raise ValueError(
                f"layer {i} starts a block of layers, and all later blocks attend to the state at its start: the model is "
                "not defined without it"
            )


def _keep_entry_norm(first: nn.Module, new_first: nn.Module) -> None:
    """RWKV has a norm in front of its first layer, and runs one in whatever layer comes first: let it do nothing."""
    have = dict(new_first.named_children())
    for name, child in first.named_children():
        if name not in have and type(first) is type(new_first) and all(p.ndim == 1 for p in child.parameters()):
            setattr(new_first, name, nn.Identity())


def _rename_in_quantization(config: PreTrainedConfig, names: LayerNames) -> None:
    """Quantization settings may list modules, by names with layer numbers in them, that were left as they were."""
    for owner in {id(c): c for c in (config, text_config(config))}.values():
        settings = getattr(owner, "quantization_config", None)
        if isinstance(settings, dict):
            owner.quantization_config = names.inside(settings)
        elif settings is not None:
            for name, value in list(vars(settings).items()):
                if isinstance(value, list | tuple | dict):
                    setattr(settings, name, names.inside(value))


def _freeze_properties(config: PreTrainedConfig, wanted: dict[str, list]) -> None:
    """Give `config` the per-layer lists `wanted` where its class computes others: caches and masks are built from them."""
    config = text_config(config)
    now = dict(per_layer_properties(config))
    frozen = {name: value for name, value in wanted.items() if now.get(name) != value}
    if frozen:
        config.__class__ = type(
            type(config).__name__, (type(config),), frozen | {"__module__": type(config).__module__}
        )
