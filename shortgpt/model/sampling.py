"""Tokens that a model writes: always the likeliest, or sampled with noise that a seed decides."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.model.arguments import check_ids, check_model, check_tokenizer, within_positions
from shortgpt.model.hooks import eval_mode, require_numbers
from shortgpt.model.offload import input_device
from shortgpt.model.tokens import begin_token
from shortgpt.utils.arguments import check_count, check_number


@torch.inference_mode()
def sampled_text(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    samples: int = 16,
    length: int = 256,
    *,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 8,
    progress: bool = True,
) -> list[str]:
    """Text that the model itself samples, to calibrate with when there is none to hand: one string a sample.

    >>> batches = calibration_batches(tokenizer, sampled_text(model, tokenizer))

    Each sample starts after the begin token (`begin_token`) and ends where the model ends it, after `length` tokens at
    most. Tokens are drawn from the whole distribution (no top-k or top-p), with noise of our own: the global random
    state is left as it is, and a sample depends on `seed` and its number only, not on `batch_size`.

    Args:
        samples, length: how many samples, and of how many tokens at most.
        temperature: 1 samples what the model believes; below 1 is tamer and repeats itself more.

    Raises:
        TypeError, ValueError: a wrong argument, a tokenizer with neither begin nor end token, NaN in the logits.
    """
    check_model(model)
    check_tokenizer(tokenizer)
    for name, value in {"samples": samples, "length": length, "batch_size": batch_size}.items():
        check_count(name, value)
    check_count("seed", seed, least=0)
    check_number("temperature", temperature)
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature must be above 0 and finite, got {temperature}: 1 is what the model believes")
    start = tokenizer.convert_tokens_to_ids(begin_token(tokenizer, "sampling"))
    texts = []
    with tqdm(total=samples, desc="sampling text", unit="sample", disable=not progress) as bar:
        for first in range(0, samples, batch_size):
            rows = range(first, min(first + batch_size, samples))
            ids = torch.tensor([[start]] * len(rows))
            draws = sampling_noise([np.random.default_rng([seed, row]) for row in rows], temperature, len(tokenizer))
            begun = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            written = write_tokens(model, tokenizer, begun, length, draws)
            texts += tokenizer.batch_decode(written, skip_special_tokens=True)
            bar.update(len(rows))
    return texts


Processor = Callable[[Tensor, Tensor], Tensor]  # (ids so far [rows, tokens], logits [rows, vocabulary]) -> logits


def write_tokens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ids: dict,
    new_tokens: int,
    *change: Processor,
    **settings: object,
) -> Tensor:
    """The tokens that the model adds to each row of `ids`, ``[rows, new tokens]`` (fewer where all rows end sooner).

    Always the likeliest token, after `change` has been at the logits. `settings` are further ones of `generate`.
    """
    length = ids["input_ids"].shape[1]
    check_ids(model, ids["input_ids"])

    def watch(_: Tensor, logits: Tensor) -> Tensor:
        require_numbers(model, logits)  # the likeliest of NaN is token 0, and nobody would know
        return logits

    device = input_device(model)
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    with eval_mode(model), within_positions(model, length + new_tokens):
        written = model.generate(  # type: ignore[operator]
            **{name: tensor.to(device) for name, tensor in ids.items()},
            max_new_tokens=new_tokens,
            do_sample=False,
            logits_processor=[watch, *change],
            **({"pad_token_id": pad} | settings),
        )
    return written[:, length:].cpu()


def sampling_noise(generators: list[np.random.Generator], temperature: float, known: int) -> Processor:
    """Turn "take the likeliest" into "sample": the argmax of logits / temperature + Gumbel noise is a sample of the
    softmax (Gumbel 1954; the "Gumbel-max trick"). Tokens from `known` on fill up the embedding and mean nothing."""

    def add(_: Tensor, logits: Tensor) -> Tensor:
        waits = np.stack([each.standard_exponential(logits.shape[-1]) for each in generators])
        noise = torch.from_numpy(-np.log(np.maximum(waits, np.finfo(float).tiny))).float()  # [rows, vocabulary]
        noisy = logits.float() / temperature + noise.to(logits.device)
        noisy[:, known:] = -torch.inf
        return noisy

    return add
