"""What a model costs: bytes in memory and on disk, and tokens per second."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from shortgpt.evaluation.memory import memory_peak
from shortgpt.model.anatomy import decoder_layers, parameter_count
from shortgpt.model.arguments import check_model, check_models, vocabulary_size, within_positions
from shortgpt.model.hooks import eval_mode
from shortgpt.model.offload import input_device
from shortgpt.utils.arguments import check_count, check_counts, check_path, check_some

Way = TypeVar("Way")


def size(model: PreTrainedModel, folder: str | os.PathLike | None = None) -> dict[str, Any]:
    """``layers``, ``parameters``, ``memory_bytes`` of the weights and buffers, and ``disk_bytes`` of a saved checkpoint.

    Bytes count real storage, each piece once: packed integers, their scales, tied weights; not what accelerate keeps on
    disk. (``numel * element_size`` reports a torchao int8 model as if nothing had been saved.) Parameters count what a
    linear layer computes with, however it is packed. `folder` is where the model was saved; without it ``disk_bytes``
    is None.
    """
    check_model(model)
    storages = {}
    for tensor in (*model.parameters(), *model.buffers()):
        for piece in _pieces(tensor) if tensor.device.type != "meta" else ():
            storage = piece.untyped_storage()
            storages[storage.data_ptr(), piece.device] = storage.nbytes()
    disk = None
    if folder is not None:
        if not check_path(folder).is_dir():
            raise FileNotFoundError(f"no such folder: {folder}; save the model there first")
        disk = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    return {
        "layers": len(decoder_layers(model)),
        "parameters": parameter_count(model),
        "memory_bytes": sum(storages.values()),
        "disk_bytes": disk,
    }


def speed(
    model: PreTrainedModel,
    *,
    prompt_tokens: int = 256,
    new_tokens: int = 32,
    batch_size: int = 1,
    repeats: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Tokens per second in prefill (reading the prompt) and decode (writing, one token at a time, with the cache).

    Greedy generation from a random prompt: a run that writes one token is the prefill, what each further token takes
    is the decode. One warm-up, then `repeats` of both runs. Returns two rows, ``phase, tokens_per_second`` (median),
    ``slowest, fastest, batch_size, repeats``, and as times ``seconds`` (median), ``seconds_low, seconds_high``
    (quartiles): until the first token is there (prefill), and for each further token of all texts (decode). The numbers
    belong to this machine and its load: compare models with `speed_table`, which runs them in turn.
    """
    check_model(model)
    shape = {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens, "repeats": repeats, "seed": seed}
    sizes = [check_count("batch_size", batch_size)]
    table = speed_table({"": model}, **shape, batch_sizes=sizes, memory=False, progress=False)
    columns = ["phase", "tokens_per_second", "slowest", "fastest", "batch_size", "repeats"]
    return table[[*columns, "seconds", "seconds_low", "seconds_high"]]


def speed_table(
    models: Mapping[str, PreTrainedModel],
    *,
    prompt_tokens: int = 256,
    new_tokens: int = 32,
    batch_sizes: Sequence[int] = (1, 8),
    repeats: int = 5,
    warm_up: int = 1,
    seed: int = 0,
    memory: bool = True,
    progress: bool = True,
) -> pd.DataFrame:
    """Speed and peak memory of several models at several batch sizes, measured in turn.

    Each of the `repeats` rounds runs every model once at every batch size, every other round in opposite order, so that
    a machine that grows slower, or is busy for a while, slows all of them alike. ``relative`` goes further: it compares
    within rounds only.

    Args:
        models: name → model, what to compare with first. They may share weights.
        new_tokens: how many tokens are written after the first.
        warm_up: whole runs of each model and batch size that nobody times.
        memory: whether to run each twice more to see its peak memory. These runs aren't timed.

    Returns:
        a row per model, batch size and phase. ``model``; ``batch_size``; ``phase``, ``"prefill"`` or ``"decode"``;
        ``seconds`` (median) and ``seconds_low, seconds_high`` (quartiles): until the first token is there, and for each
        further token of all texts; ``tokens_per_second`` (median, over all texts), ``slowest, fastest``; ``relative``:
        the median, over rounds, of the speed by that of the first model in the same round; ``peak_bytes``: the most memory
        that was in use at once above what was before, weights aside (see `memory_peak` for what that counts; NaN where
        it can't be seen), in a run that stops at the first token, and in one that writes all; ``repeats``.
    """
    models = check_models(models)
    check_count("repeats", repeats)
    check_count("prompt_tokens", prompt_tokens)
    steps = {"prefill": 1, "decode": 1 + check_count("new_tokens", new_tokens)}  # tokens that a run writes
    check_count("seed", seed, least=0)
    sizes = check_some("batch_sizes", check_counts("batch_sizes", batch_sizes, least=1))
    check_count("warm_up", warm_up, least=0)
    ways = {
        (size, name, phase): partial(_write, model, _prompt(model, size, prompt_tokens, seed), tokens)
        for size in sizes
        for name, model in models.items()
        for phase, tokens in steps.items()
    }
    warming = [way for key, way in ways.items() if key[-1] == "decode"] * warm_up
    total = len(warming) + (memory + repeats) * len(ways)
    with tqdm(total=total, desc="timing", unit="run", disable=not progress) as bar:
        for way in warming:
            way()
            bar.update()
        peaks = {}
        for key in ways if memory else ():
            with memory_peak(input_device(models[key[1]])) as peak:
                ways[key]()
            peaks[key] = peak[0]
            bar.update()
        clock = pd.DataFrame(timed(ways, repeats=repeats, warmup=0, bar=bar))
    first, prefill = next(iter(models)), clock.xs("prefill", axis=1, level=2)
    further = (clock.xs("decode", axis=1, level=2) - prefill).clip(lower=1e-9) / new_tokens
    rows = []
    for size, name, phase in ways:
        seconds, tokens = (prefill, size * prompt_tokens) if phase == "prefill" else (further, size)
        row = {"model": name, "batch_size": size, "phase": phase, **_statistics(seconds[size, name], tokens)}
        row["relative"] = (seconds[size, first] / seconds[size, name]).median()
        rows.append(row | {"peak_bytes": peaks.get((size, name, phase), np.nan), "repeats": repeats})
    return pd.DataFrame(rows)


def timed(
    ways: Mapping[Way, Callable[[], object]], *, repeats: int, warmup: int = 1, bar: tqdm | None = None
) -> dict[Way, list[float]]:
    """Seconds that each of `ways` takes: name → one number for each of `repeats` rounds.

    >>> seconds = timed({"dense": lambda: model(ids), "pruned": lambda: pruned(ids)}, repeats=5)
    >>> pd.DataFrame(seconds).median()

    In a round every way runs once, in every other round in opposite order, so a machine that grows slower, or is busy for a
    while, slows all of them alike: compare numbers of the same round. Garbage is collected before each round and never
    while the clock runs. An accelerator has finished what it was given when the clock starts and when it stops.

    Args:
        warmup: runs of each way that nobody times.
        bar: a progress bar to move on by one after each timed run.

    Raises:
        ValueError: no ways, `repeats` below 1, `warmup` below 0.
    """
    check_some("ways", list(ways))
    check_count("repeats", repeats)
    for _ in range(check_count("warmup", warmup, least=0)):
        for way in ways.values():
            way()
    seconds: dict[Way, list[float]] = {name: [] for name in ways}
    for turn in range(repeats):
        gc.collect()
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            seconds[name].append(_seconds(ways[name]))
            if bar is not None:
                bar.update()
    return seconds


def _seconds(way: Callable[[], object]) -> float:
    collects = gc.isenabled()
    gc.disable()
    try:
        _synchronize()
        start = time.perf_counter()
        way()
        _synchronize()
        return time.perf_counter() - start
    finally:
        if collects:
            gc.enable()


def _prompt(model: PreTrainedModel, batch_size: int, tokens: int, seed: int) -> Tensor:
    """Random tokens, ``[batch_size, tokens]``."""
    vocabulary = vocabulary_size(model)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocabulary, (batch_size, tokens), generator=generator).to(input_device(model))


def _write(model: PreTrainedModel, prompt: Tensor, tokens: int) -> None:
    """Write `tokens` tokens after each row of the prompt, no fewer."""
    with eval_mode(model), within_positions(model, prompt.shape[1] + tokens):
        model.generate(  # type: ignore[operator]
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
        )


def _statistics(seconds: pd.Series, tokens: int) -> dict[str, float]:
    low, middle, high = seconds.quantile([0.25, 0.5, 0.75])
    rates = tokens / seconds
    row = {"seconds": middle, "seconds_low": low, "seconds_high": high}
    return row | {"tokens_per_second": rates.median(), "slowest": rates.min(), "fastest": rates.max()}


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    """The plain tensors that `tensor` is stored in: itself, or the packed data and scales of a quantized one."""
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _pieces(getattr(tensor, name))
        return
    yield tensor
    state = getattr(tensor, "quant_state", None)  # bitsandbytes keeps its scales beside the packed weight
    while state is not None:
        yield from (t for t in (state.absmax, state.code, state.offset) if isinstance(t, Tensor))
        state = getattr(state, "state2", None)


def _synchronize() -> None:
    """Wait for what the accelerators still have to do: Python goes on while they work."""
    if torch.cuda.is_available():
        used = [gpu for gpu in range(torch.cuda.device_count()) if torch.cuda.memory_reserved(gpu)]  # don't wake others
        for gpu in used:
            torch.cuda.synchronize(gpu)
    elif torch.accelerator.is_available():
        torch.accelerator.synchronize()
