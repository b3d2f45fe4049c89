"""Our own format on disk, for pruned models that no configuration of transformers describes (see `config_fit`).

It holds the weights, the configuration of the model it came from, and the steps that led from there; `load` replays
them. Plain ``from_pretrained`` refuses such a folder: its ``model_type`` is unknown to transformers, so it can't reload as
another model by mistake.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from shortgpt.checkpoints.shards import read_shard
from shortgpt.checkpoints.soundness import are_layers, clear_about_config, require_sound_config
from shortgpt.model.anatomy import REPAIR_FIELD
from shortgpt.pruning.depth import remove_layers
from shortgpt.pruning.recipe import MODEL_TYPE, WEIGHTS
from shortgpt.utils.untrusted import MOST_LAYERS, inside, is_whole, one_line, read_json


def is_own_format(folder: str | os.PathLike) -> bool:
    """Whether `folder` holds a model in our own format."""
    try:
        return read_json(Path(folder, "config.json"), "damaged").get("model_type") == MODEL_TYPE
    except (OSError, ValueError):
        return False


def read_recipe(folder: str | os.PathLike) -> dict:
    """What config.json of our own format says: ``architectures, dtype, base_config, steps``; ValueError if it doesn't."""
    saved = require_sound_config(folder)
    names, steps, fields = (saved.get(name) for name in ("architectures", "steps", "base_config"))
    sound = isinstance(steps, list) and len(steps) <= MOST_LAYERS and all(map(_is_step, steps))
    kind = fields.get("model_type") if isinstance(fields, dict) else None
    sound = sound and isinstance(kind, str) and kind in CONFIG_MAPPING
    named = isinstance(names, list) and len(names) == 1 and _class(names[0]) is not None
    if not sound or not named or not isinstance(_dtype(saved.get("dtype")), torch.dtype):
        raise ValueError(f"{folder} holds no model that save() wrote: copy the folder again from where it was saved")
    return saved


def _class(name: object) -> type[PreTrainedModel] | None:
    """The model class of transformers of this name; nothing else that could be called."""
    found = getattr(transformers, name, None) if isinstance(name, str) else None
    return found if isinstance(found, type) and issubclass(found, PreTrainedModel) else None


def _dtype(name: object) -> Any:
    return getattr(torch, name, None) if isinstance(name, str) else None


def _is_step(step: object) -> bool:
    """Whether `replay` can make sense of `step`."""
    if not isinstance(step, dict) or not step:
        return False
    if "patches" in step:
        return step.keys() == {"patches", "width"} and are_layers(step["patches"]) and is_whole(step["width"], 1)
    if "layers" in step:
        return step.keys() == {"layers"} and are_layers(step["layers"])
    counts = step.get("outputs", {})
    lists = [value for kind, value in step.items() if kind in ("attention", "ffn")]
    counted = isinstance(counts, dict) and all(is_whole(count, most=100) for count in counts.values())
    return step.keys() <= {"attention", "ffn", "outputs"} and all(map(are_layers, lists)) and counted


def saved_dtype(folder: str | os.PathLike) -> torch.dtype:
    """Dtype of the model in our own format in `folder`; transformers can't read its configuration."""
    return _dtype(read_recipe(folder)["dtype"])


def rebuilt(folder: str | os.PathLike, *, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """The model in our own format in `folder` with weights of no meaning, on the default device (``meta``: none at all).

    Raises:
        ValueError: the configuration or a step makes no sense.
    """
    saved, config = read_recipe(folder), base_config(folder)
    with clear_about_config(folder):
        kind: Any = _class(saved["architectures"][0])
        model = kind._from_config(config, dtype=dtype or _dtype(saved["dtype"]))
        model.tie_weights()
        for step in saved["steps"]:
            model = replay(model, step)
    if REPAIR_FIELD in saved:
        setattr(model.config, REPAIR_FIELD, saved[REPAIR_FIELD])
    return model


def base_config(folder: str | os.PathLike) -> PreTrainedConfig:
    """Configuration of the model that the model in our own format in `folder` came from."""
    fields = read_recipe(folder)["base_config"]
    with clear_about_config(folder):
        return CONFIG_MAPPING[fields["model_type"]].from_dict(fields)


def restore(folder: str | os.PathLike, *, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """The model that `write_own_format` wrote to `folder`, on the CPU, in eval mode.

    Raises:
        ValueError: the weights on disk are not those of the model that the recipe gives.
    """
    folder = Path(folder)
    files = [inside(folder, file.name) for file in sorted(folder.glob(WEIGHTS.format(suffix="*"))) if file.is_file()]
    _require_fitting(folder, files)
    with no_init_weights():  # pages that nobody writes to cost no memory
        model = rebuilt(folder, dtype=dtype)
    tensors = _tensors(model)
    for file in files:
        try:
            with safe_open(file, framework="pt") as weights, torch.no_grad():
                for name in weights.keys():  # noqa: SIM118 (not a dict)
                    tensors[name].copy_(weights.get_tensor(name))
        except SafetensorError as error:
            raise ValueError(f"{file} is damaged ({error}): copy the folder again from where it was saved") from error
    if (folder / "generation_config.json").exists():
        with clear_about_config(folder):
            model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    return model.eval()


def _tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _require_fitting(folder: Path, files: list[Path]) -> None:
    """Compare the weights with an empty model, before a model takes memory."""
    with torch.device("meta"):
        model = rebuilt(folder)
    tensors = _tensors(model)
    missing = {id(tensor) for tensor in model.parameters()}
    for name, entry in (item for file in files for item in read_shard(file).tensors.items()):
        if name not in tensors or list(tensors[name].shape) != entry["shape"]:
            raise ValueError(f"{folder}: {one_line(name)} is not a weight of the model that config.json describes")
        missing.discard(id(tensors[name]))
    if missing:
        raise ValueError(f"{folder}: {len(missing)} weights are missing; copy the folder again from where it was saved")


def replay(model: PreTrainedModel, step: dict[str, Any]) -> PreTrainedModel:
    """Apply one step of a recipe."""
    if "layers" in step:
        return remove_layers(model, step["layers"])
    if "patches" in step:
        from shortgpt.repair.patches import add_patches, empty_patches

        hidden = getattr(model.config.get_text_config(), "hidden_size", step["width"])
        if step["width"] != hidden:
            raise ValueError(f"a patch of width {step['width']} does not fit a hidden size of {hidden}")
        return add_patches(model, empty_patches(step["patches"], step["width"]))
    from shortgpt.pruning.sublayers import remove_sublayers

    return remove_sublayers(model, **step)
