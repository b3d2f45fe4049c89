"""Get a model and its tokenizer: the packaged default, a Hub id, a local folder, or a GGUF file.

How the packaged default reaches the machine is in `packaged.py`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.packaged import DEFAULT_MODEL, default_model_folder, read_gguf
from shortgpt.saving import is_own_format, restore


def load(
    name: str | os.PathLike = DEFAULT_MODEL,
    *,
    device: str | torch.device = "auto",
    dtype: torch.dtype | str = "auto",
    trust_remote_code: bool = False,
    sha256: str | None = None,
    **from_pretrained: object,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return ``(model, tokenizer)``, the model in eval mode.

    Args:
        name: `DEFAULT_MODEL`, a Hub id such as ``"Qwen/Qwen2.5-0.5B"``, a local folder, or a ``.gguf`` file.
        device: ``"auto"`` takes a CUDA GPU if there is one, else the CPU; or any torch device.
        dtype: ``"auto"`` is float32 on the CPU and for the default model (so that its numbers are the same
            everywhere), and the checkpoint's own dtype on a GPU, with float16 where the GPU lacks bfloat16.
        trust_remote_code: run model code that comes with the checkpoint. Off unless you pass it.
        sha256: required for a ``.gguf`` file: the checksum its publisher states.
        from_pretrained: passed on, for instance ``revision=``, ``device_map=``, ``quantization_config=``.

    Weights are read from safetensors (or checksummed GGUF) only, never from pickles.

    Raises:
        FileNotFoundError: no such folder or file, or the Hub has no such model.
        ConnectionError: not in the cache, and the network can't be reached.
        ValueError: a GGUF file without or with a wrong checksum; an encoder-decoder model.
        PermissionError: a gated model without access.
        OSError: the disk is full.
    """
    device = ("cuda" if torch.cuda.is_available() else "cpu") if str(device) == "auto" else str(device)
    is_default = str(name) == DEFAULT_MODEL
    if is_default:
        folder = default_model_folder()
    elif str(name).endswith(".gguf"):
        model, tokenizer = read_gguf(Path(name), sha256, dtype=torch.float32 if dtype == "auto" else dtype)
        return model.to(device), tokenizer
    else:
        folder = _existing_folder_or_hub_id(name)
    options = {"trust_remote_code": trust_remote_code, **from_pretrained}
    tokenizer_options = {k: v for k, v in options.items() if k in ("trust_remote_code", "revision", "cache_dir")}
    with _clear_errors(str(name)):
        if dtype == "auto":
            dtype = torch.float32 if device == "cpu" or is_default else "auto"
        if is_own_format(folder):
            model = restore(folder, dtype=None if dtype == "auto" else dtype)
        else:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True, **options)
        tokenizer = AutoTokenizer.from_pretrained(folder, **tokenizer_options)
    model.config._name_or_path = str(name)  # for plans: what was asked for, not where the cache keeps it
    if "device_map" not in options and not getattr(model, "hf_device_map", None):
        model = model.to(device)
    if model.dtype == torch.bfloat16 and model.device.type == "cuda" and torch.cuda.get_device_capability() < (8, 0):
        model = model.to(torch.float16)
    return model.eval(), tokenizer


def describe(model: PreTrainedModel) -> pd.DataFrame:
    """One row about `model`: type, layers, hidden size, parameters (all, in one layer, in the embeddings), dtype, device.

    Parameters are counted once when shared (tied embeddings). Call it before quantizing: packed 4-bit weights hide
    their count.
    """
    from shortgpt.layers import decoder_layers

    layers = decoder_layers(model)
    count = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "parameters_per_layer": sum(p.numel() for p in layers[0].parameters()),
        "embedding_parameters": model.get_input_embeddings().weight.numel(),
    }
    text_config = model.config.get_text_config()
    return pd.DataFrame(
        [
            {"model_type": model.config.model_type, "layers": len(layers), "hidden_size": text_config.hidden_size}
            | count
            | {"dtype": str(model.dtype).removeprefix("torch."), "device": str(model.device)}
        ]
    )


def _existing_folder_or_hub_id(name: str | os.PathLike) -> str:
    text = str(name)
    if Path(text).expanduser().is_dir():
        folder = Path(text).expanduser()
        if not (folder / "config.json").exists():
            raise FileNotFoundError(f"{folder} holds no model: it has no config.json")
        return str(folder)
    if isinstance(name, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1 or "\\" in text:
        raise FileNotFoundError(f"no such folder: {text} (a Hub id looks like 'owner/name')")
    return text


@contextlib.contextmanager
def _clear_errors(name: str) -> Iterator[None]:
    """Turn the Hub client's pages of explanation into one sentence that says what to do."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    def causes(error: BaseException | None) -> Iterator[BaseException]:
        while error is not None:
            yield error
            error = error.__cause__ or error.__context__

    try:
        yield
    except (OSError, HfHubHTTPError) as error:
        chain = list(causes(error))
        text = " ".join(str(e) for e in chain)
        if any(isinstance(e, GatedRepoError) for e in chain) or "gated repo" in text:
            raise PermissionError(
                f"{name!r} is gated: accept its licence on huggingface.co and run `hf auth login`, then call load() again"
            ) from error
        if any(isinstance(e, RepositoryNotFoundError) for e in chain) or "is not a valid model identifier" in text:
            raise FileNotFoundError(
                f"the Hub has no public model {name!r}: check the spelling ('owner/name'), or run `hf auth login` if it "
                "is private"
            ) from error
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise OSError(errno.ENOSPC, f"the disk is full: {name!r} could not be stored in the Hub cache") from error
        if "offline" in text.lower() or "connect" in text.lower() or "resolve" in text.lower():
            raise ConnectionError(
                f"{name!r} is not on this machine and the Hub can't be reached: check the name or the connection, unset "
                f"HF_HUB_OFFLINE if it is set, or use load() without a name for the packaged model"
            ) from error
        raise
