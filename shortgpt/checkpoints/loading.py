"""Get a model and its tokenizer: the packaged default, a Hub id, a local folder, or a GGUF file.

How the packaged default reaches the machine is in `packaged.py`.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.checkpoints.completeness import require_whole
from shortgpt.checkpoints.default_model import DEFAULT_MODEL, cache_folder, default_model_folder
from shortgpt.checkpoints.gguf import read_gguf
from shortgpt.checkpoints.hub import clear_errors, folder_or_hub_id
from shortgpt.checkpoints.own_format import base_config, is_own_format, restore, saved_dtype
from shortgpt.checkpoints.shards import read_index
from shortgpt.checkpoints.sound_config import require_sound_config
from shortgpt.checkpoints.vocabulary import read_tokenizer
from shortgpt.model.adapters import require_no_adapter_beside
from shortgpt.model.anatomy import COUNT_NAMES
from shortgpt.model.offload import accelerate_hooks
from shortgpt.quantization.nf4 import without_repacking
from shortgpt.utils.arguments import check_flag, shown


def load(
    name: str | os.PathLike = DEFAULT_MODEL,
    *,
    device: str | torch.device = "auto",
    dtype: torch.dtype | str = "auto",
    trust_remote_code: bool = False,
    sha256: str | None = None,
    device_map: str | Mapping[str, int | str] | None = None,
    max_memory: Mapping[int | str, int | str] | None = None,
    **from_pretrained: object,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return ``(model, tokenizer)``, the model in eval mode.

    Args:
        name: `DEFAULT_MODEL`, a Hub id such as ``"Qwen/Qwen2.5-0.5B"``, a local folder, or a ``.gguf`` file.
        device: ``"auto"`` takes a CUDA GPU if there is one (each process of ``accelerate launch`` its own), else the
            CPU; or any torch device. Where `device_map` is given it only decides the dtype.
        dtype: ``"auto"`` is float32 on the CPU and for the default model (so that its numbers are the same
            everywhere), and the checkpoint's own dtype on a GPU, with float16 where the GPU lacks bfloat16.
        trust_remote_code: run model code that comes with the checkpoint. Off unless you pass it. `save` runs a copy of
            that code to check what it wrote, and of no other.
        sha256: required for a ``.gguf`` file: the checksum its publisher states.
        device_map: spread the layers over several GPUs, main memory and the disk: ``"auto"``, or a device for each
            module. accelerate moves states between devices and reads weights when a layer needs them; scoring, pruning
            and perplexity work on such a model like on any other.
        max_memory: what the weights may take of each device, for instance ``{0: "20GiB", "cpu": "4GiB"}``; devices
            that are not named are not used, and the rest stays on disk. Implies ``device_map="auto"``. Leave room for
            Python, torch and one layer's states (about 0.5 GiB).
        from_pretrained: passed on, for instance ``revision=``, ``quantization_config=``, ``offload_folder=``.

    Weights are read from safetensors (or checksummed GGUF) only, never from pickles. Those on disk are read from the
    checkpoint itself, memory-mapped, without a copy if `dtype` is the checkpoint's own: pass ``torch.bfloat16`` for a
    bfloat16 checkpoint on the CPU if converting each layer in each pass is too slow. Weights that transformers must
    transform (fused experts) are written to a folder in the cache, which goes when the last model that reads it goes.

    Raises:
        FileNotFoundError: no such folder or file, or the Hub has no such model.
        ConnectionError: not in the cache, and the network can't be reached.
        ValueError: a GGUF file without or with a wrong checksum, or with a `device_map`; an encoder-decoder model; no
            tokenizer, or a damaged one; an adapter in the folder; weights that aren't all there, or not those that
            config.json describes; code that comes with the checkpoint; a GPU in `max_memory` that isn't there.
        PermissionError: a gated model without access.
        OSError: the disk is full.
    """
    if not isinstance(name, str | os.PathLike):
        raise TypeError(f"expected a Hub id or the path of a folder, got {shown(name)}")
    if not str(name):
        raise ValueError("expected a Hub id or the path of a folder, got ''")
    check_flag("trust_remote_code", trust_remote_code)
    device = _best_device() if str(device) == "auto" else _usable_device(device)
    if (
        dtype != "auto"
        and not isinstance(dtype, torch.dtype)
        and not (isinstance(dtype, str) and isinstance(getattr(torch, dtype, None), torch.dtype))
    ):
        raise ValueError(f'unknown dtype {shown(dtype)}: take torch.float32, torch.bfloat16, torch.float16 or "auto"')
    if max_memory is not None and not isinstance(max_memory, Mapping):
        raise TypeError(f'max_memory is a dict, for instance {{0: "20GiB", "cpu": "4GiB"}}, got {shown(max_memory)}')
    device_map = "auto" if device_map is None and max_memory is not None else device_map
    is_default = str(name) == DEFAULT_MODEL
    if is_default:
        folder = default_model_folder()
    elif str(name).endswith(".gguf"):
        if device_map is not None:
            raise ValueError(
                f"{Path(name).name}: a GGUF file is unpacked in memory, so device_map and max_memory do not apply; load it "
                "once without them, save() it as a checkpoint and load that"
            )
        model, tokenizer = read_gguf(Path(name), sha256, dtype=torch.float32 if dtype == "auto" else dtype)
        return model.to(device), tokenizer
    else:
        folder = folder_or_hub_id(name)
    options = {"trust_remote_code": trust_remote_code, **from_pretrained}
    place = {key: value for key, value in from_pretrained.items() if key in ("revision", "cache_dir")}
    choice = {"trust_remote_code": trust_remote_code, **place}
    with clear_errors(str(name)):
        require_sound_config(folder, **place)
        require_no_adapter_beside(name, folder, **place)
        for index in Path(folder).glob("*.safetensors.index*.json"):
            read_index(index)  # transformers would follow ../ in it
        own = is_own_format(folder)
        if own and device_map is not None:
            raise ValueError(
                f"{name} is in shortgpt's own format, which is read into memory as a whole: load it without device_map and "
                "max_memory"
            )
        config = base_config(folder) if own else AutoConfig.from_pretrained(folder, **choice)
        if config.is_encoder_decoder:
            raise ValueError(
                f"{folder} is an encoder-decoder ({config.model_type}); only decoder-only models can be pruned here"
            )
        tokenizer = read_tokenizer(name, folder, config, **choice)  # before the weights, which take longer
        if dtype == "auto":
            on_gpu = not (device == "cpu" or is_default)
            dtype = _dtype_on_gpu(folder, choice) if on_gpu else torch.float32
        options |= {"dtype": dtype, "use_safetensors": True}
        if own:
            model = restore(folder, dtype=None if dtype == "auto" else dtype)
        elif device_map is None:
            model = _read(folder, **options)
        else:
            model = _spread(folder, device_map, max_memory, options)
    model.config._name_or_path = str(name)  # for plans: what was asked for, not where the cache keeps it
    if not getattr(model, "hf_device_map", None):
        model = model.to(device)
    return without_repacking(model).eval(), tokenizer


def _read(folder: str | Path, **options: object) -> PreTrainedModel:
    """``from_pretrained`` that never fills a missing weight with random numbers."""
    options["ignore_mismatched_sizes"] = True  # to be told about them
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    if "config" in options or any(COUNT_NAMES.fullmatch(name) for name in options):  # the first layers were asked for
        report = report | {"unexpected_keys": ()}
    require_whole(folder, model, report)
    return model


def _usable_device(device: object) -> str:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        known = isinstance(device, str | torch.device) and str(device).startswith(("cuda", "mps", "xpu"))
        what = f"there is no device {str(device)!r} on this machine" if known else f"unknown device {shown(device)}"
        raise ValueError(f"{what}: take \"auto\", or a device that torch can use here, such as 'cpu'") from error
    return str(device)


def _best_device() -> str:
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"  # as accelerate launch says


def _dtype_on_gpu(folder: str | Path, options: Mapping[str, object]) -> torch.dtype | str:
    """The checkpoint's own dtype, or float16 instead of bfloat16 where the GPU lacks that (before Ampere: a T4)."""
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0):
        if is_own_format(folder):
            own = saved_dtype(folder)
        else:
            own = getattr(AutoConfig.from_pretrained(folder, **options).get_text_config(), "dtype", None)
        return torch.float16 if own == torch.bfloat16 else "auto"
    return "auto"


def _spread(folder: str | Path, device_map: object, max_memory: Mapping | None, options: dict) -> PreTrainedModel:
    """``from_pretrained`` through accelerate, with a folder for the weights that it can't read from the checkpoint."""
    count = torch.accelerator.device_count()
    absent = [name for name in max_memory or () if isinstance(name, int) and name >= count]
    if absent:
        raise ValueError(f'max_memory names GPU {absent[0]}, but this machine has {count}: name 0 to n - 1, or "cpu"')
    own: tempfile.TemporaryDirectory | None = None
    if options.get("offload_folder") is None:
        cache_folder().mkdir(parents=True, exist_ok=True)  # the system's temporary folder is often in memory
        own = tempfile.TemporaryDirectory(dir=cache_folder(), prefix="offload-", ignore_cleanup_errors=True)
        options = options | {"offload_folder": own.name}
    memory = None if max_memory is None else dict(max_memory)  # a copy: accelerate writes bytes in place of "1GiB"
    model = _read(folder, device_map=device_map, max_memory=memory, **options)
    if own is not None and os.listdir(own.name):
        # pruned views share what reads the weights: the folder goes with the last of them, or when Python ends
        maps = [getattr(hook, "weights_map", None) for hook in accelerate_hooks(model)]
        weakref.finalize(next(m.dataset for m in maps if m is not None), own.cleanup)
    elif own is not None:
        own.cleanup()
    return model


def describe(model: PreTrainedModel) -> pd.DataFrame:
    """One row about `model`: type, layers, hidden size, parameters (all, in one layer, in the embeddings), dtype, device.

    Parameters are counted once when shared (tied embeddings). Call it before quantizing: packed 4-bit weights hide
    their count.
    """
    from shortgpt.model.anatomy import decoder_layers

    layers = decoder_layers(model)  # refuses what is no model
    count = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "parameters_per_layer": sum(p.numel() for p in layers[0].parameters()),
        "embedding_parameters": model.get_input_embeddings().weight.numel(),
    }
    text_config = model.config.get_text_config()
    places = getattr(model, "hf_device_map", {"": model.device}).values()  # several, where accelerate spread the model
    return pd.DataFrame(
        [
            {"model_type": model.config.model_type, "layers": len(layers), "hidden_size": text_config.hidden_size}
            | count
            | {"dtype": str(model.dtype).removeprefix("torch."), "device": " + ".join(dict.fromkeys(map(str, places)))}
        ]
    )
