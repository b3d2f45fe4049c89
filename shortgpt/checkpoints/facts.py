"""What can be said about a model without reading its weights: from its configuration and an empty copy of it.

The empty copy (device ``meta``) is built from the configuration in about a second, whatever the size of the model. It
tells how many layers and parameters there are, what was removed, and whether layers can be found and removed at all.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from shortgpt.checkpoints.default_model import DEFAULT_MODEL, default_model_folder
from shortgpt.checkpoints.hub import clear_errors, folder_or_hub_id
from shortgpt.checkpoints.own_format import is_own_format, read_recipe, rebuilt
from shortgpt.checkpoints.sound_config import clear_about_config, require_sound_config
from shortgpt.model.adapters import require_no_adapter_beside
from shortgpt.model.anatomy import decoder_layers, parameter_count, removed_so_far
from shortgpt.model.branches import KINDS, sublayers
from shortgpt.pruning.plan import PLAN_FILE, PruningPlan
from shortgpt.utils.arguments import check_flag
from shortgpt.utils.untrusted import one_line


def empty_model(name: str | os.PathLike, *, trust_remote_code: bool = False, **options: object) -> PreTrainedModel:
    """The model `name` without its weights: a folder, a Hub id (only small files are fetched) or `DEFAULT_MODEL`.

    Raises:
        ValueError: transformers has no causal language model of this type. FileNotFoundError, ConnectionError,
        PermissionError: as `models.load`.
    """
    folder = model_folder(name)
    check_flag("trust_remote_code", trust_remote_code)
    with clear_errors(str(name)), torch.device("meta"):
        require_no_adapter_beside(name, folder, **options)
        if is_own_format(folder):
            model = rebuilt(folder)
        else:
            require_sound_config(folder, **options)
            with clear_about_config(name):
                config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, **options)
                _require_causal(config, trust_remote_code)
                model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    model.config._name_or_path = str(name)
    return model.eval()


def model_facts(
    name: str | os.PathLike, *, model: PreTrainedModel | None = None, **options: object
) -> dict[str, object]:
    """Facts about the model `name`, as plain values that JSON can hold.

    Args:
        model: the model itself if it is loaded already (a GGUF file has to be).
        options: ``trust_remote_code=`` and ``revision=``.

    Keys: ``model, model_type, architecture, layers, hidden_size, parameters, parameters_per_layer, dtype, disk_bytes``
    (None if it isn't on this machine), ``dense_layers, removed_layers, steps`` (of our own format), ``format``
    (``transformers`` or ``shortgpt``), ``prunable``, ``reason`` (why not), ``attention`` and ``ffn`` (names of the
    sublayers in a layer; whether they can be removed one by one is tried when they are scored).
    """
    folder = Path(name) if str(name).endswith(".gguf") else model_folder(name)
    own = is_own_format(folder)
    reason = ""
    try:
        model = empty_model(name, **options) if model is None else model
        stack, config = decoder_layers(model), model.config
    except ValueError as error:
        if own:
            raise
        require_sound_config(folder, **options)
        reason, stack = str(error), []
        with clear_errors(str(name)), clear_about_config(name):
            config = AutoConfig.from_pretrained(folder, **{"trust_remote_code": False} | options)
    text = config.get_text_config()
    removed = [] if model is None else list(removed_so_far(model))
    return {
        "model": str(name),
        "model_type": config.model_type,
        "architecture": type(model).__name__ if model is not None else next(iter(config.architectures or []), None),
        "layers": len(stack) or getattr(text, "num_hidden_layers", None),
        "hidden_size": getattr(text, "hidden_size", None),
        "parameters": parameter_count(model) if model is not None else None,
        "parameters_per_layer": parameter_count(stack[0]) if stack else None,
        "dtype": read_recipe(folder)["dtype"] if own else _dtype(config),
        "disk_bytes": _disk_bytes(folder, options.get("revision")),
        "dense_layers": len(stack) + len(removed) if stack else None,
        "removed_layers": removed,
        "steps": read_recipe(folder)["steps"] if own else [],
        "format": "shortgpt" if own else "transformers",
        "prunable": not reason,
        "reason": reason,
    } | {kind: sorted({name for layer in stack for name in sublayers(layer)[kind]}) for kind in KINDS}


def plan_in_words(plan: PruningPlan) -> str:
    """The plan as a few sentences: what goes, what chose it, and how close the choice was."""
    removed = ", ".join(map(str, sorted(plan.removed))) or "none"
    of = f" of {one_line(plan.model)}" if plan.model else ""
    lines = [f"Removes {len(plan.removed)} of {plan.layers} layers{of}: {removed}. {len(plan.kept)} stay."]
    read = plan.calibration
    text = f", over {read['tokens']:,} tokens in {read['samples']} samples" if {"tokens", "samples"} <= {*read} else ""
    criterion = one_line(plan.criterion.removeprefix("by ").replace("_", " "))
    lines.append(f"Chosen by {criterion}{text if plan.scores else ''}.")
    gone = [i for i in plan.removed if i in plan.scores]
    left = [i for i in plan.scores if i not in plan.removed]
    if gone and left:
        last, following = max(gone, key=plan.scores.get), min(left, key=plan.scores.get)
        lines.append(
            f"The last one chosen, layer {last}, scores {plan.scores[last]:.5f}; the next would have been layer "
            f"{following} with {plan.scores[following]:.5f}."
        )
    if plan.versions:
        versions = ", ".join(f"{package} {version}" for package, version in plan.versions.items())
        lines.append(f"Written with {one_line(versions)}.")
    return "\n".join(lines)


def plan_beside(name: str | os.PathLike) -> PruningPlan | None:
    """The plan that was saved in the folder `name` along with the model, if there is one."""
    file = Path(name).expanduser() / PLAN_FILE
    return PruningPlan.from_json(file) if file.is_file() else None


def model_folder(name: str | os.PathLike) -> str:
    """Where `name` is: a folder, or the Hub id as it is."""
    return str(default_model_folder()) if str(name) == DEFAULT_MODEL else folder_or_hub_id(name)


def _require_causal(config: PreTrainedConfig, trust_remote_code: bool) -> None:
    own_code = trust_remote_code and "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    # of an encoder-decoder such as BART, transformers would load the decoder and fill what is missing with random numbers
    if not config.is_encoder_decoder and (own_code or type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING):
        return
    kind = "is an encoder-decoder" if config.is_encoder_decoder else "has no causal language model in transformers"
    raise ValueError(f"model type {config.model_type!r} {kind}: only decoder-only models can be pruned here")


def _dtype(config: PreTrainedConfig) -> str:
    own = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    return str(own or "float32").removeprefix("torch.")


def _disk_bytes(folder: str | Path, revision: object) -> int | None:
    """Bytes of all files of the model; None if its weights aren't on this machine."""
    from huggingface_hub import try_to_load_from_cache

    path = Path(folder).expanduser()
    if path.is_file():
        return path.stat().st_size
    if not path.is_dir():
        cached = try_to_load_from_cache(str(folder), "config.json", revision=revision)
        path = Path(cached).parent if isinstance(cached, str) else path
    files = [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) if any(f.suffix == ".safetensors" for f in files) else None
