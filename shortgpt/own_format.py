"""Our own format on disk, for pruned models that no configuration of transformers describes (see `blueprint`).

It holds the weights, the configuration of the model it came from, and the steps that led from there; `models.load` replays
them. Plain ``from_pretrained`` refuses such a folder: its ``model_type`` is unknown to transformers, so it can't reload as
another model by mistake.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import transformers
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel

from shortgpt.placement import accelerate_hooks
from shortgpt.pruning import remove_layers

MODEL_TYPE = "shortgpt_pruned"  # in config.json of our own format; transformers knows no such type
WEIGHTS = "pruned{suffix}.safetensors"  # not the name that transformers looks for


def write_own_format(model: PreTrainedModel, recipe: Mapping[str, object], folder: Path) -> None:
    """Write `model`, which came about as its `recipe` says, into `folder`.

    Raises:
        ValueError: quantized weights, weights that are not in memory, or a class that is not part of transformers.
    """
    if getattr(model, "hf_quantizer", None) is not None:
        raise ValueError(
            f"transformers' configuration can't describe this pruned {type(model).__name__}, and our own format holds no "
            "quantized weights: save the pruned model first, and quantize it after loading"
        )
    if accelerate_hooks(model):
        raise ValueError(
            f"transformers' configuration can't describe this pruned {type(model).__name__}, and our own format is written "
            "from memory: load the model without device_map and max_memory to save it"
        )
    if not hasattr(transformers, type(model).__name__):
        raise ValueError(
            f"transformers' configuration can't describe this pruned {type(model).__name__}, and its class is not part of "
            "transformers: there is no checkpoint from which it could be loaded again"
        )
    from huggingface_hub import save_torch_state_dict

    seen: set[int] = set()
    state = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if id(tensor) not in seen:  # tied weights once; rebuilding ties them again
            state[name] = tensor.detach().contiguous()
        seen.add(id(tensor))
    save_torch_state_dict(state, folder, filename_pattern=WEIGHTS, metadata={"format": "pt"})
    config = {
        "model_type": MODEL_TYPE,
        "architectures": [type(model).__name__],
        "dtype": str(model.dtype).removeprefix("torch."),
        "base_config": recipe["config"],
        "steps": recipe["steps"],
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1, default=str) + "\n", encoding="utf-8")
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)


def is_own_format(folder: str | os.PathLike) -> bool:
    """Whether `folder` holds a model in our own format."""
    try:
        return json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")).get("model_type") == MODEL_TYPE
    except (OSError, ValueError, AttributeError):
        return False


def saved_dtype(folder: str | os.PathLike) -> torch.dtype:
    """Dtype of the model in our own format in `folder`; transformers can't read its configuration."""
    return getattr(torch, json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))["dtype"])


def base_config(folder: str | os.PathLike) -> PreTrainedConfig:
    """Configuration of the model that the model in our own format in `folder` came from."""
    fields = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))["base_config"]
    return CONFIG_MAPPING[fields["model_type"]].from_dict(fields)


def restore(folder: str | os.PathLike, *, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """The model that `write_own_format` wrote to `folder`, on the CPU, in eval mode.

    Raises:
        ValueError: the weights on disk are not those of the model that the recipe gives.
    """
    from safetensors import safe_open

    folder = Path(folder)
    saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    fields = saved["base_config"]
    config = CONFIG_MAPPING[fields["model_type"]].from_dict(fields)
    with _no_random_weights():  # pages that nobody writes to cost no memory
        dtype = dtype or saved_dtype(folder)
        model = getattr(transformers, saved["architectures"][0])._from_config(config, dtype=dtype)
    model.tie_weights()
    for step in saved["steps"]:
        model = replay(model, step)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    missing = {id(tensor) for tensor in model.parameters()}
    for file in sorted(folder.glob(WEIGHTS.format(suffix="*"))):
        with safe_open(file, framework="pt") as weights, torch.no_grad():
            for name in weights.keys():  # noqa: SIM118 (not a dict)
                if name not in tensors or list(tensors[name].shape) != weights.get_slice(name).get_shape():
                    raise ValueError(f"{folder}: {name} is not a weight of the model that config.json describes")
                tensors[name].copy_(weights.get_tensor(name))
                missing.discard(id(tensors[name]))
    if missing:
        raise ValueError(f"{folder}: {len(missing)} weights are missing; copy the folder again from where it was saved")
    if (folder / "generation_config.json").exists():
        model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    return model.eval()


def replay(model: PreTrainedModel, step: dict[str, list[int]]) -> PreTrainedModel:
    """Apply one step of a recipe."""
    if "layers" in step:
        return remove_layers(model, step["layers"])
    if "patches" in step:
        from shortgpt.patches import add_patches, empty_patches

        return add_patches(model, empty_patches(step["patches"], step["width"]))
    from shortgpt.sublayers import remove_sublayers

    return remove_sublayers(model, **step)


@contextlib.contextmanager
def _no_random_weights() -> Iterator[None]:
    try:
        from transformers.initialization import no_init_weights
    except ImportError:  # an older transformers: slower, same result
        yield
        return
    with no_init_weights():
        yield
