"""Is this the same model as before? A short text that changes with the model, cheap next to any evaluation."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.evaluation.likelihood import token_losses
from shortgpt.model.arguments import check_model, check_tokenizer
from shortgpt.model.tokens import begin_tokens

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def fingerprint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, bos: bool | None = None) -> str:
    """Sixteen hexadecimal digits of the configuration, the weights, what the model makes of a few tokens, and the tokenizer.

    Every weight counts: of each tensor the bits are added up as whole numbers (exactly, whatever the number of threads)
    and a few are taken as they stand, so a changed weight changes the text. Weights that are not in memory (offloaded
    ones) and changes outside the weights show in the loss on 64 fixed tokens, rounded to three digits. That loss can
    differ between devices and versions of torch: then the same model counts as another one, never the reverse.
    What stands in front of a text (see `tokens.begin_tokens`) counts, by the tokenizer's own rule or as `bos` forces it.
    """
    check_model(model)
    check_tokenizer(tokenizer)
    parts = [type(model).__name__, json.dumps(_settings(model.config.to_dict()), sort_keys=True, default=str)]
    for name, value in model.state_dict().items():
        parts += [f"{name} {part}" for part in _bits(value)]
    vocabulary = model.get_input_embeddings().weight.shape[0]
    loss = token_losses(model, torch.arange(64) * 7919 % vocabulary).mean().item()
    parts += [f"{loss:.3f}", json.dumps(sorted(tokenizer.get_vocab().items()))]
    parts += [str(tokenizer(text)["input_ids"]) for text in ("A b, 12", "水")]
    if begin_tokens(tokenizer, bos) != begin_tokens(tokenizer):
        parts += [f"begins with {begin_tokens(tokenizer, bos)}"]
    return digest(parts)


def digest(*parts: object) -> str:
    """Sixteen hexadecimal digits of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _settings(config: object) -> object:
    """A configuration without what saving and loading add to it."""
    passing = {"_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype"}
    if isinstance(config, dict):
        return {name: _settings(value) for name, value in config.items() if name not in passing}
    return config


def _bits(value: object) -> list[str]:
    """Type, shape, sum of all bits read as integers, and nine of them."""
    if not isinstance(value, Tensor):  # what a quantized layer keeps beside its weights
        return [str(value)]
    if hasattr(value, "__tensor_flatten__"):  # a quantized weight: several plain tensors
        return [f"{name} {part}" for name in value.__tensor_flatten__()[0] for part in _bits(getattr(value, name))]
    what = f"{value.dtype} {list(value.shape)}"
    if value.is_meta or not value.numel():
        return [what]
    numbers = value.detach().contiguous().flatten().view(_INTEGERS[value.element_size()])
    few = numbers[:: max(1, len(numbers) // 8)].tolist()
    total = sum(part.sum(dtype=torch.int64).item() for part in numbers.split(1 << 24))  # sum() makes a copy in int64
    return [f"{what} {total} {few}"]
