"""What a model costs: bytes in memory and on disk, and tokens per second."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shortgpt.arguments import check_count, check_model, check_path, within_positions
from shortgpt.capture import eval_mode
from shortgpt.layers import decoder_layers
from shortgpt.placement import input_device


def size(model: PreTrainedModel, folder: str | os.PathLike | None = None) -> dict[str, int | None]:
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


def parameter_count(model: nn.Module) -> int:
    """Parameters, each counted once when shared, and also when 4-bit packing hides half of them."""
    counts = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            packed = isinstance(module, nn.Linear) and name == "weight"
            counts[id(parameter)] = module.in_features * module.out_features if packed else parameter.numel()
        if "qweight" in dict(module.named_buffers(recurse=False)):  # GPTQ keeps weight and bias as buffers
            bias = getattr(module, "bias", None)
            counts[id(module)] = module.in_features * module.out_features + (0 if bias is None else bias.numel())
    return sum(counts.values())


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
    is the decode. One warm-up, then `repeats` pairs of runs. Returns two rows, ``phase, tokens_per_second`` (median),
    ``slowest, fastest, batch_size, repeats``. The numbers belong to this machine and its load: compare models only
    within one session.
    """
    check_model(model)
    counts = {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens, "batch_size": batch_size, "repeats": repeats}
    for name, value in counts.items():
        check_count(name, value)
    check_count("seed", seed, least=0)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    device, generator = input_device(model), torch.Generator().manual_seed(seed)
    prompt = torch.randint(vocabulary, (batch_size, prompt_tokens), generator=generator).to(device)

    def seconds(tokens: int) -> float:
        _synchronize(device)
        start = time.perf_counter()
        model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
        )
        _synchronize(device)
        return time.perf_counter() - start

    rates: dict[str, list[float]] = {"prefill": [], "decode": []}
    with eval_mode(model), within_positions(model, prompt_tokens + 1 + new_tokens):
        seconds(2)
        for _ in range(repeats):
            one, all_tokens = seconds(1), seconds(1 + new_tokens)
            rates["prefill"].append(batch_size * prompt_tokens / one)
            rates["decode"].append(batch_size * new_tokens / max(all_tokens - one, 1e-9))
    return pd.DataFrame(
        {
            "phase": phase,
            "tokens_per_second": statistics.median(values),
            "slowest": min(values),
            "fastest": max(values),
            "batch_size": batch_size,
            "repeats": repeats,
        }
        for phase, values in rates.items()
    )


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


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
