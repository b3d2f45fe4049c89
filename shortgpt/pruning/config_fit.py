"""Does a configuration describe a model? Build what it describes, without weights, and compare.

After layers are removed, the configuration must say so, or the saved checkpoint reloads as something else. Most
architectures need one number and one list changed (`config_slice`). Others compute what a layer is from its
index (every fourth layer has experts, the first three are dense, a constant shrinks with depth). So nothing is assumed:
the model that transformers *would* build is built on the meta device, where it costs milliseconds and no memory, and
compared with the model at hand, module by module. Where they differ, the numbers in the configuration are tried out
(`fit_config`). What is left is what plain transformers can't express; `saving` then writes our own format.
"""

from __future__ import annotations

import copy
import re
import tempfile
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from shortgpt.model.anatomy import COUNT_NAMES, decoder_layers_path, text_config
from shortgpt.pruning.config_slice import is_index_list
from shortgpt.utils.quieting import quiet

# numbers that say which layers are of which kind: how many at the start or end, every how many
_KIND_NAMES = re.compile(r".*(layer|dense|moe|sparse|shared|window|replace|offset|period|step|interval|freq|pattern).*")
_PLAIN = (bool, int, float, str, type(None))
_REFUSED = "the configuration is refused by its own class"
_ROUNDS = 4  # fields that may have to change together


def reread(config: PreTrainedConfig) -> PreTrainedConfig:
    """`config` as it comes back from a file: whatever the class computes on the way in is computed."""
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        return type(config).from_pretrained(folder)


def build(model: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """The model that `config` describes, of the class of `model`, on the meta device: structure without weights."""
    # what is kept back is about attention kernels and rotary settings of a model nobody runs
    with quiet("transformers"), torch.device("meta"):
        return type(model)(config)


def differences(model: PreTrainedModel, config: PreTrainedConfig) -> list[str]:
    """What a reload with `config` would build differently from `model`; empty if the configuration describes it.

    Compared are the modules, the shapes of parameters and buffers, and every plain attribute (numbers, strings, lists of
    them) of every module, for these are what a layer computes with.
    """
    try:
        other = build(model, reread(config))
    except Exception as error:  # a configuration that its own class refuses
        return [f"{_REFUSED} ({type(error).__name__}: {' '.join(str(error).split())[:200]})"]
    return list(_compare(model, other))


def fit_config(model: PreTrainedModel, dense: PreTrainedConfig, kept: Sequence[int]) -> list[str]:
    """Change the configuration of `model` until it describes `model`; return the differences that are left.

    `dense` is the configuration before removal and `kept` the surviving layers. Each round tries the values that a count
    of layers could take (``first_k_dense_replace``: how many of the first three are left?) and keeps the best one.
    """
    left = differences(model, model.config)
    for _ in range(_ROUNDS):
        if not left:
            break
        trials = []
        for name, value in _candidates(text_config(model.config), text_config(dense), kept):
            trial = _with(model.config, name, value)
            if trial is not None:
                trials.append((_distance(differences(model, trial)), name, value))
        fewest, name, value = min(trials, key=lambda t: t[0], default=(_distance(left), "", None))
        if fewest >= _distance(left):
            break
        setattr(text_config(model.config), name, value)
        left = differences(model, model.config)
    return left


def fit_shared_weights(model: PreTrainedModel, kept: Sequence[int], depth: int) -> None:
    """Cut the weights *outside* the layers that have a block for each layer (Gemma 3n's per-layer embeddings), in place.

    The cut weights are new tensors; the model they were shared with keeps its own. Counts and lists of layer numbers in
    those modules follow.
    """
    try:
        other = build(model, reread(model.config))
    except Exception:  # as `differences` reports
        return
    inside = decoder_layers_path(model) + "."
    for name, module in model.named_modules():
        if f"{name}.".startswith(inside):
            continue
        try:
            wanted = other.get_submodule(name)
        except AttributeError:
            continue
        for key, weight in list(module.named_parameters(recurse=False)):
            target = getattr(wanted, key, None)
            if isinstance(target, Tensor) and target.shape != weight.shape and target.ndim == weight.ndim:
                if weight.is_meta and hasattr(module, "_hf_hook"):
                    raise ValueError(
                        f"{name}.{key} has a block for each layer and is kept on disk: load the model without max_memory to "
                        "remove layers"
                    )
                setattr(module, key, nn.Parameter(_cut(weight, target.shape, kept, depth), weight.requires_grad))
        for key, value in _plain_attributes(wanted):
            mine = vars(module).get(key)
            if mine != value and isinstance(value, int | list | tuple) and type(mine) is type(value):
                setattr(module, key, value)


def _distance(left: list[str]) -> float:
    return float("inf") if left and left[0].startswith(_REFUSED) else len(left)


def _cut(weight: Tensor, shape: torch.Size, kept: Sequence[int], depth: int) -> Tensor:
    axes = [axis for axis in range(weight.ndim) if weight.shape[axis] != shape[axis]]
    if len(axes) != 1 or weight.shape[axes[0]] % depth:
        return weight.detach()
    blocks = weight.detach().unflatten(axes[0], (depth, -1))
    return blocks.index_select(axes[0], torch.tensor(kept, device=weight.device)).flatten(axes[0], axes[0] + 1)


def _compare(model: nn.Module, other: nn.Module) -> Iterator[str]:
    mine, theirs = (dict(m.named_modules(remove_duplicate=False)) for m in (model, other))
    for name in theirs.keys() - mine.keys():
        yield f"{name}: not in the model"
    for name, module in mine.items():
        wanted = theirs.get(name)
        if wanted is None:
            yield f"{name}: not in the configuration"
            continue
        replaced = type(module) is not type(wanted)
        if replaced and isinstance(wanted, nn.Linear):
            continue  # some library put its own linear layer here (quantization, LoRA)
        if replaced:
            yield f"{name}: {type(module).__name__} instead of {type(wanted).__name__}"
        elif isinstance(module, nn.Linear) and _packed(module):
            continue
        else:
            yield from _compare_tensors(name, module, wanted)
            here = dict(_plain_attributes(module))
            for key, value in _plain_attributes(wanted):
                if here.get(key, value) != value:
                    yield f"{name}.{key}: {here[key]!r} instead of {value!r}"


def _compare_tensors(name: str, module: nn.Module, wanted: nn.Module) -> Iterator[str]:
    mine, theirs = (
        {key: tuple(tensor.shape) for key, tensor in m.named_parameters(recurse=False)} for m in (module, wanted)
    )
    for key in mine.keys() | theirs.keys():
        if mine.get(key) != theirs.get(key):
            yield f"{name}.{key}: shape {mine.get(key)} instead of {theirs.get(key)}"
    # a buffer too many does no harm (rotary frequencies of a kind of layer that is gone), nor does its length
    for key in dict(wanted.named_buffers(recurse=False)).keys() - dict(module.named_buffers(recurse=False)).keys():
        yield f"{name}.{key}: no such buffer"


def _packed(linear: nn.Linear) -> bool:
    return not linear.weight.is_floating_point() or hasattr(linear.weight, "__tensor_flatten__")


def _plain_attributes(module: nn.Module) -> Iterator[tuple[str, object]]:
    for name, value in vars(module).items():
        if name.startswith("_") or name in ("training", "gradient_checkpointing"):
            continue
        if isinstance(value, _PLAIN) or (isinstance(value, list | tuple) and all(isinstance(v, _PLAIN) for v in value)):
            yield name, value


def _candidates(config: PreTrainedConfig, dense: PreTrainedConfig, kept: Sequence[int]) -> Iterator[tuple[str, object]]:
    """``(field, value)``: what a field about kinds of layers could have become."""
    depth = dense.num_hidden_layers
    for name, value in vars(dense).items():
        if "token" in name or COUNT_NAMES.fullmatch(name):
            continue
        if not _KIND_NAMES.fullmatch(name) and not isinstance(value, list | tuple):
            continue
        options: list[object] = []
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= depth:
            before, after = sum(i < value for i in kept), sum(i >= depth - value for i in kept)
            options = [before, after, before - 1 if before else 0, 1]
        elif value and is_index_list(value, depth + 1):
            options = [
                [new for new, old in enumerate(kept) if old in value],
                [new + 1 for new, old in enumerate(kept) if old + 1 in value],  # counted from one
            ]
        elif isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
            pattern = (list(value) * depth)[:depth]  # it repeats: write it out
            options = [[pattern[i] for i in kept]]
        yield from ((name, option) for option in options if option != vars(config).get(name))


def _with(config: PreTrainedConfig, name: str, value: object) -> PreTrainedConfig | None:
    """A copy of `config` with one field of its text part changed, or None if the class refuses the value."""
    try:
        fresh = copy.deepcopy(config)
        setattr(text_config(fresh), name, value)
    except Exception:
        return None
    return fresh
