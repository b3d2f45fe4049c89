"""Memory that a model needs beside its weights (for those see `size`): the peak while it works, and its key-value cache."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from shortgpt.model.arguments import check_model, within_positions
from shortgpt.model.hooks import eval_mode
from shortgpt.model.offload import input_device
from shortgpt.utils.arguments import check_count, shown

_PROCESS = Path("/proc/self")
_INTERVAL = 0.001  # seconds between two looks at the memory, where the kernel keeps no peak that can be reset


@contextmanager
def memory_peak(device: torch.device | str = "cpu") -> Iterator[list[float]]:
    """While open, watch the memory; then the list that it gives holds one number: the peak, in bytes above the start.

    >>> with memory_peak(model.device) as peak:
    ...     model.generate(prompt)
    >>> peak[0]

    On CUDA: what torch's allocator had given out at most, above what it had given out before; over all GPUs the sum of
    their peaks. Its peak statistics are reset. The cushion that torch reserves, the driver's memory and what accelerate
    keeps in the computer's own memory don't count.

    On the CPU: the process's resident set. Pages that were freed before are handed back first, else they would be used
    again unseen. The kernel's high-water mark is exact to its counters, some 100 kB; it is reset (``VmHWM``, and with it
    ``ru_maxrss``). Where that is forbidden, a thread looks every millisecond, and a shorter peak escapes it. What other
    threads do counts too, and so do weights of a memory-mapped file when they are first touched: run the model once before.

    NaN elsewhere: on other accelerators, and without Linux's ``/proc``.
    """
    peak: list[float] = []
    if torch.device(device).type == "cuda":
        gpus = range(torch.cuda.device_count())
        before = [torch.cuda.memory_allocated(gpu) for gpu in gpus]
        for gpu in gpus:
            torch.cuda.reset_peak_memory_stats(gpu)
        yield peak
        peak.append(float(sum(torch.cuda.max_memory_allocated(gpu) - b for gpu, b in zip(gpus, before, strict=True))))
    elif torch.device(device).type == "cpu" and (_PROCESS / "status").exists():
        _give_back_freed_pages()
        before = _status("VmRSS")
        with _marked() if _reset_high_water_mark() else _sampled() as highest:
            yield peak
        peak.append(float(max(highest[0] - before, 0)))
    else:
        yield peak
        peak.append(float("nan"))


@torch.inference_mode()
def key_value_bytes(model: PreTrainedModel, tokens: int = 512, *, cache: Cache | None = None) -> float:
    """Bytes that the key-value cache holds for each token of one text of `tokens` tokens, weights aside.

    The model reads the text, the last token for itself as when it writes, and what its cache keeps in memory is counted.
    Attention over everything keeps the same for each token: 2 (key and value) x key-value heads x head width x bytes a
    number x layers. A sliding window keeps its last tokens only, so there the number falls as `tokens` grow past it.
    The states of fixed size that state-space and linear-attention layers keep don't grow with the text: not counted.

    Args:
        cache: an empty cache of transformers to fill (for instance ``StaticCache(model.config, max_cache_len=1024)``, which
            takes all its room at once), or None for the one that the model makes.

    Raises:
        ValueError: the model keeps no key-value cache (Mamba, RWKV), the cache is not empty, or it packs what it holds.
    """
    check_model(model)
    check_count("tokens", tokens, least=2)
    if cache is not None and not isinstance(cache, Cache):
        raise TypeError(f"cache must be a cache of transformers, for instance DynamicCache(), got {shown(cache)}")
    if cache is not None and cache.get_seq_length():
        raise ValueError(f"the cache must be empty, but it holds {int(cache.get_seq_length())} tokens: make a new one")
    ids = torch.ones(1, tokens, dtype=torch.long, device=input_device(model))
    named = {} if cache is None else {"past_key_values": cache}
    with eval_mode(model), within_positions(model, tokens):
        cache = getattr(model(input_ids=ids[:, :-1], use_cache=True, **named), "past_key_values", None)
        if not isinstance(cache, Cache) or not any(hasattr(layer, "keys") for layer in cache.layers):
            raise ValueError(f"{type(model).__name__} keeps no key-value cache: its memory of a text has a fixed size")
        model(input_ids=ids[:, -1:], past_key_values=cache, use_cache=True)
    return _held(cache) / tokens


def _held(cache: Cache) -> int:
    """Bytes of the storage behind all keys and values, each piece once: a slice of a tensor holds the whole of it."""
    storages = {}
    for layer in cache.layers:
        if hasattr(layer, "_quantized_keys"):
            raise ValueError(f"a {type(layer).__name__} packs its keys and values: their bytes are not counted here")
        for tensor in (getattr(layer, "keys", None), getattr(layer, "values", None)):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                storages[storage.data_ptr(), tensor.device] = storage.nbytes()
    return sum(storages.values())


def _status(field: str) -> int:
    """A field of ``/proc/self/status`` in bytes; these are in kB there."""
    for line in (_PROCESS / "status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    return 0


def _give_back_freed_pages() -> None:
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def _reset_high_water_mark() -> bool:
    try:
        (_PROCESS / "clear_refs").write_text("5")
    except OSError:
        return False
    return bool(_status("VmHWM"))


@contextmanager
def _marked() -> Iterator[list[int]]:
    highest = [0]
    yield highest
    highest[0] = _status("VmHWM")


@contextmanager
def _sampled() -> Iterator[list[int]]:
    highest, done = [_status("VmRSS")], threading.Event()

    def look() -> None:
        while not done.wait(_INTERVAL):
            highest[0] = max(highest[0], _status("VmRSS"))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield highest
    finally:
        done.set()
        thread.join()
        highest[0] = max(highest[0], _status("VmRSS"))
