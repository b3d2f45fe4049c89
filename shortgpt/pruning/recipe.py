"""How a model that no configuration describes came about: the steps, noted on it, and written with its weights."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MethodType
from typing import Any

import transformers
from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers import PreTrainedModel

from shortgpt.model.anatomy import REPAIR_FIELD
from shortgpt.model.offload import accelerate_hooks
from shortgpt.pruning.repair_record import repairs_so_far

RECIPE = "_shortgpt_recipe"  # on a model that its configuration can't describe: the one it came from, and the steps
MODEL_TYPE = "shortgpt_pruned"  # in config.json of our own format; transformers knows no such type
WEIGHTS = "pruned{suffix}.safetensors"  # not the name that transformers looks for


def record_step(pruned: PreTrainedModel, model: PreTrainedModel, step: Mapping[str, object]) -> None:
    """Note on `pruned` how it came from `model`, for a model that no configuration describes (see `saving`)."""
    before = getattr(model, RECIPE, None) or {"config": model.config.to_dict(), "steps": []}
    setattr(pruned, RECIPE, {"config": before["config"], "steps": [*before["steps"], step]})
    vars(pruned)["save_pretrained"] = MethodType(_save_in_own_format, pruned)  # what Trainer and push_to_hub call


def _save_in_own_format(
    model: PreTrainedModel, save_directory: str | os.PathLike, is_main_process: bool = True, **settings: Any
) -> None:
    """``save_pretrained`` of a model that no configuration describes: its ordinary checkpoint would get random weights.

    Of the other settings of transformers' method, those that would change what is written are refused.
    """
    for name in ("state_dict", "push_to_hub"):
        if settings.get(name):
            raise _indescribable(
                model,
                f"so it is written in shortgpt's own format, from memory: leave {name} out, or call shortgpt.save()",
            )
    if is_main_process:
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        write_own_format(model, getattr(model, RECIPE), Path(save_directory))


def write_own_format(model: PreTrainedModel, recipe: Mapping[str, object], folder: Path) -> None:
    """Write `model`, which came about as its `recipe` says, into `folder`.

    Raises:
        ValueError: quantized weights, weights that are not in memory, or a class that is not part of transformers.
    """
    if getattr(model, "hf_quantizer", None) is not None:
        why = "our own format holds no quantized weights: save the pruned model first, and quantize it after loading"
        raise _indescribable(model, f"and {why}")
    if accelerate_hooks(model):
        why = "our own format is written from memory: load the model without device_map and max_memory to save it"
        raise _indescribable(model, f"and {why}")
    if not hasattr(transformers, type(model).__name__):
        why = "its class is not part of transformers: there is no checkpoint from which it could be loaded again"
        raise _indescribable(model, f"and {why}")
    save_torch_state_dict(_weights(model), folder, filename_pattern=WEIGHTS, metadata={"format": "pt"})
    config = {
        "model_type": MODEL_TYPE,
        "architectures": [type(model).__name__],
        "dtype": str(model.dtype).removeprefix("torch."),
        "base_config": recipe["config"],
        "steps": recipe["steps"],
    }
    if repairs := repairs_so_far(model.config):
        config[REPAIR_FIELD] = repairs
    (folder / "config.json").write_text(json.dumps(config, indent=1, default=str) + "\n", encoding="utf-8")
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)


def _weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """Each parameter and buffer once, under its first name; rebuilding ties them again."""
    seen: set[int] = set()
    state = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if id(tensor) not in seen:
            state[name] = tensor.detach().contiguous()
        seen.add(id(tensor))
    return state


def _indescribable(model: PreTrainedModel, why: str) -> ValueError:
    return ValueError(f"transformers' configuration can't describe this pruned {type(model).__name__}, {why}")


def write_plain(model: PreTrainedModel, folder: str) -> None:
    """Write `model` for a library that loads it itself.

    Raises:
        ValueError: its configuration doesn't describe it, so that another model would be loaded.
    """
    if getattr(model, RECIPE, None) is not None:
        why = "this method loads it from a plain checkpoint: use 8 bits, or method='rtn'"
        raise _indescribable(model, f"and {why}")
    model.save_pretrained(folder)
