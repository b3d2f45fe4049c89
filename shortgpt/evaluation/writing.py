"""What a model writes. Pruned models lose this first: look at it, and count how often it repeats itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.model.arguments import check_model, check_tokenizer
from shortgpt.model.sampling import write_tokens
from shortgpt.model.tokens import prompt_tokens
from shortgpt.utils.arguments import check_count, check_string


@torch.inference_mode()
def continue_text(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    new_tokens: int = 40,
    bos: bool | None = None,
) -> str:
    """What the model writes after `prompt`, greedily (always the likeliest token), without the prompt.

    `bos`: whether a begin token stands in front; None: as the tokenizer itself does it (see `tokens.begin_tokens`).
    """
    check_model(model)
    check_tokenizer(tokenizer)
    check_count("new_tokens", new_tokens)
    written = write_tokens(model, tokenizer, prompt_tokens(tokenizer, prompt, bos), new_tokens)
    return str(tokenizer.decode(written[0], skip_special_tokens=True))


def repetition(text: str, n: int = 3) -> float:
    """Share of the word n-grams of `text` that stood in it before: 0 for fresh text, near 1 for a loop."""
    check_string("text", text)
    check_count("n", n)
    fresh = distinct(text.split(), n)
    return 0.0 if fresh != fresh else 1 - fresh


def distinct(tokens: Sequence, n: int) -> float:
    """Number of different n-grams of `tokens` by the number of all: 1 if none comes twice, NaN if there is none."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(set(grams)) / len(grams) if grams else float("nan")
