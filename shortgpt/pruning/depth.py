"""Remove decoder layers from a model.

Removing is cheap: the pruned model is a *view*, a new tree of modules over the very same weights. So a plan can be
tried and thrown away, and the original model is never touched. Writing the result to disk is in `saving`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from shortgpt.model.anatomy import (
    INDEX_NAMES,
    REMOVED_FIELD,
    decoder_layers,
    decoder_layers_path,
    original_layers,
    removed_so_far,
    text_config,
)
from shortgpt.model.names import LayerNames
from shortgpt.model.offload import keep_in_device_map
from shortgpt.model.view import share_weights
from shortgpt.pruning.config_fit import differences, fit_config, fit_shared_weights
from shortgpt.pruning.config_slice import (
    freeze_properties,
    keep_in_config,
    per_layer_properties,
    rename_in_quantization,
    require_key_value_sources,
)
from shortgpt.pruning.plan import PruningPlan, check_indices
from shortgpt.pruning.recipe import RECIPE, record_step
from shortgpt.pruning.repair_record import forget_removed


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
            replaced ``forward`` that can't be given to a copy (see `view`).
    """
    layers = _current_indices(model, layers)
    require_removable(model, layers)
    kept = [i for i in range(len(decoder_layers(model))) if i not in layers]
    pruned = share_weights(model)
    _cut_stack(pruned, kept)
    _describe(pruned, model, kept)
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


def _current_indices(model: PreTrainedModel, layers: Sequence[int] | PruningPlan) -> list[int]:
    """`layers` in the numbering of `model` as it is now, if they can be told apart in it."""
    original, already = original_layers(model), removed_so_far(model)
    if not isinstance(layers, PruningPlan):
        return check_indices(layers, len(original))
    dense = len(original) + len(already)
    if layers.layers != dense or not set(already) <= set(layers.removed):
        raise ValueError(
            f"this plan is for a dense model of {layers.layers} layers without {sorted(layers.removed)}; the model at "
            f"hand comes from one of {dense} layers and already lacks {list(already) or 'none'}"
        )
    return check_indices([original.index(i) for i in layers.removed if i not in already], len(original))


def _cut_stack(pruned: PreTrainedModel, kept: Sequence[int]) -> None:
    """Leave the layers `kept` in the tree of modules, each under its new number."""
    stack, path = decoder_layers(pruned), decoder_layers_path(pruned)
    parent, _, name = path.rpartition(".")
    survivors = nn.ModuleList(stack[i] for i in kept)
    renumber(survivors, kept, len(stack), text_config(pruned.config).num_hidden_layers // len(stack))
    _keep_entry_norm(stack[0], survivors[0])
    setattr(pruned.get_submodule(parent), name, survivors)
    keep_in_device_map(pruned, path, kept)


def _describe(pruned: PreTrainedModel, model: PreTrainedModel, kept: Sequence[int]) -> None:
    """Let the configuration of `pruned` say what it is now, and which layers of the dense model are gone."""
    path, original = decoder_layers_path(model), original_layers(model)
    keep_in_config(pruned.config, kept)
    rename_in_quantization(pruned.config, LayerNames(path, path, kept))
    gone = {*removed_so_far(model), *original} - {original[i] for i in kept}
    if gone:  # a view without any removal has the configuration of its model
        setattr(pruned.config, REMOVED_FIELD, sorted(gone))
    forget_removed(pruned.config)
    if len(kept) < len(original):
        _match_config(pruned, model, kept)


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
    freeze_properties(pruned.config, wanted)


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


def _are_numbers(values: dict) -> bool:
    return bool(values) and all(isinstance(key, int) and not isinstance(key, bool) for key in values)
