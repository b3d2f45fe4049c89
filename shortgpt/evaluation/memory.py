"""Memory that a model needs beside its weights (for those see `size`): the peak while it works, and its key-value cache."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from shortgpt.model.arguments import check_model, within_positions
from shortgpt.model.hooks import eval_mode
from shortgpt.model.offload import input_device
from shortgpt.utils.arguments import check_count, shown
from shortgpt.utils.peak import highest

_INTERVAL = 0.001  # seconds between two looks at the memory


@contextmanager
def memory_peak(device: torch.device | str = "cpu") -> Iterator[list[float]]:
    """While open, watch the memory; then the list that it gives holds one number: the peak, in bytes above the start.

    >>> with memory_peak(model.device) as peak:
    ...     model.generate(prompt)
    >>> peak[0]

    On CUDA: what torch's allocator had given out at most, above what it had given out before; over all GPUs the sum of
    their peaks. Its peak statistics are reset. The cushion that torch reserves, the driver's memory and what accelerate
    keeps in the computer's own memory don't count.

    On the CPU: the process's resident set, at which a thread looks every millisecond (psutil). It can miss a peak that is
    shorter than that, or that comes and goes while Python code holds the lock. What was freed before is handed back first,
    else it would be used again unseen; outside Linux that can't be done. What other threads do counts too, and so do weights
    of a memory-mapped file when they are first touched: run the model once before.

    NaN on other accelerators.
    """
    peak: list[float] = []
    kind = torch.device(device).type
    if kind == "cuda":
        gpus = range(torch.cuda.device_count())
        before = [torch.cuda.memory_allocated(gpu) for gpu in gpus]
        for gpu in gpus:
            torch.cuda.reset_peak_memory_stats(gpu)
        yield peak
        peak.append(float(sum(torch.cuda.max_memory_allocated(gpu) - b for gpu, b in zip(gpus, before, strict=True))))
    elif kind == "cpu":
        _give_back_freed_pages()
        process = psutil.Process()
        start = process.memory_info().rss
        with highest(lambda: process.memory_info().rss, _INTERVAL) as most:
            yield peak
        peak.append(float(most[0] - start if most[0] > start else 0))
    else:
        yield peak
        peak.append(float("nan"))


def _give_back_freed_pages() -> None:
    with suppress(OSError, AttributeError, TypeError):  # glibc alone has it (psutil has, from 7.2 on)
        ctypes.CDLL(None).malloc_trim(0)


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
