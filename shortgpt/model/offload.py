"""Where the weights are when accelerate spread a model over several devices and the disk (``load(device_map=...)``).

accelerate hangs a hook (``_hf_hook``) on the modules: it carries inputs to the module's *execution device*, and brings
weights that are kept elsewhere there for as long as the module runs. Between runs such weights look as if they were on
the device ``meta``. A model without hooks passes through all of this unchanged.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from shortgpt.model.anatomy import decoder_layers_path

_MOVERS = ("to", "cuda", "npu", "xpu", "mlu", "sdaa", "musa", "neuron")  # methods that accelerate replaces


def accelerate_hooks(model: PreTrainedModel) -> list[object]:
    """The hooks that accelerate hung on the modules of `model`; none for a model on one device."""
    return [module._hf_hook for module in model.modules() if hasattr(module, "_hf_hook")]


def input_device(model: PreTrainedModel) -> torch.device:
    """Where token ids must be: with the embeddings, or where these are brought to. (``model.device`` may be ``meta``.)

    From there on the hooks carry states from layer to layer, whatever device each layer is on.

    Raises:
        ValueError: the model holds no weights: they are on ``meta`` for good.
    """
    embeddings = model.get_input_embeddings()
    device = next(embeddings.parameters()).device
    if device.type != "meta":
        return device
    brought_to = getattr(getattr(embeddings, "_hf_hook", None), "execution_device", None)
    if brought_to is None:
        raise ValueError(f"this {type(model).__name__} holds no weights (device meta): load it with load()")
    return torch.device(brought_to)


def require_in_memory(model: PreTrainedModel) -> None:
    """Raise ValueError if weights of `model` are nowhere, or where accelerate fetches them from for each run."""
    input_device(model)
    if any(getattr(hook, "offload", False) for hook in accelerate_hooks(model)):
        raise ValueError(
            f"this {type(model).__name__} has weights that are moved in when they are needed, and all must be at hand: load "
            "it without device_map and max_memory"
        )


def device_map_of(model: PreTrainedModel) -> dict[str, object]:
    """The device map that loads a checkpoint of `model` to the places where `model` is now."""
    return getattr(model, "hf_device_map", None) or {"": input_device(model)}


def layers_on_disk(model: PreTrainedModel, device: object) -> dict[str, int | str]:
    """A device map: the decoder layers of `model` stay on disk and are read as they run, all else goes to `device`."""
    path, places = decoder_layers_path(model), dict[str, int | str]()
    parents = [path[: dot.start()] for dot in re.finditer(r"\.", path)]
    for parent in ("", *parents):
        module = model.get_submodule(parent)
        names = [name for name, _ in (*module.named_children(), *module.named_parameters(recurse=False))]
        places |= dict.fromkeys([f"{parent}.{name}".lstrip(".") for name in names], str(device))
    return {name: place for name, place in places.items() if name not in parents} | {path: "disk"}


def bring_in(module: nn.Module) -> None:
    """Have the weights of `module` (changed in place) in memory for good, where accelerate keeps them elsewhere.

    Its hook is copied, because the hooks of a view are those of the model that it was cut from.
    """
    hook = getattr(module, "_hf_hook", None)
    if not getattr(hook, "offload", False):
        return
    new: Any = copy.copy(hook)
    for name, weight in list(module.named_parameters(recurse=False)):
        value = new.weights_map[name].to(new.execution_device, weight.dtype)
        setattr(module, name, nn.Parameter(value, requires_grad=weight.requires_grad))
    new.offload = False
    module._hf_hook = new


def keep_in_device_map(model: PreTrainedModel, path: str, kept: Sequence[int]) -> None:
    """Renumber the layers in the device map of `model` (changed in place) after those at `path` were cut to `kept`."""
    device_map: dict[str, object] | None = getattr(model, "hf_device_map", None)
    if device_map is None:
        return
    position = {str(old): str(new) for new, old in enumerate(kept)}
    renumbered = {}
    for name, device in device_map.items():
        if name.startswith(f"{path}."):
            layer, dot, rest = name.removeprefix(f"{path}.").partition(".")
            if layer not in position:
                continue
            name = f"{path}.{position[layer]}{dot}{rest}"
        renumbered[name] = device
    setattr(model, "hf_device_map", renumbered)  # noqa: B010  (torch types attributes as modules)


def forget_replaced_movers(model: PreTrainedModel) -> None:
    """Give a copied model its own ``to`` and ``cuda``: those that accelerate put there would move the original."""
    for name in _MOVERS:
        vars(model).pop(name, None)


def require_not_read_from(model: PreTrainedModel, folder: Path) -> None:
    """Raise ValueError if `model` still reads weights from files in `folder`, which are about to be replaced.

    They are read by their path whenever a layer runs, so the model (and the one it was cut from) would read the new ones.
    """
    for reader in {id(it): it for it in map(_reader, accelerate_hooks(model)) if it is not None}.values():
        files = [info["safetensors_file"] for info in reader.index.values() if info.get("safetensors_file")]
        places = {Path(file).parent.resolve() for file in files}  # of the file: the Hub's cache has links to elsewhere
        places |= {Path(reader.save_folder).resolve()} if reader.save_folder else set()
        if any(folder.resolve() in (place, *place.parents) for place in places):
            raise ValueError(
                f"this {type(model).__name__} still reads its weights from {folder}, because device_map or max_memory left "
                "them on disk: save it to another folder"
            )


def _reader(hook: object) -> Any:
    """accelerate's reader of weights on disk, which the hooks of several modules share."""
    reader = getattr(getattr(hook, "weights_map", None), "dataset", None)
    return reader if hasattr(reader, "index") and hasattr(reader, "save_folder") else None
