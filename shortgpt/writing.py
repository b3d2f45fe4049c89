"""What a model writes. Pruned models lose this first: look at it, and count how often it repeats itself."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.arguments import (
    check_count,
    check_ids,
    check_model,
    check_string,
    check_tokenizer,
    within_positions,
)
from shortgpt.capture import eval_mode, require_numbers
from shortgpt.placement import input_device


@torch.inference_mode()
def continue_text(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, *, new_tokens: int = 40
) -> str:
    """What the model writes after `prompt`, greedily (always the likeliest token), without the prompt."""
    check_model(model)
    check_tokenizer(tokenizer)
    check_string("prompt", prompt)
    check_count("new_tokens", new_tokens)
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    length = ids["input_ids"].shape[1]
    if not length:
        raise ValueError("the prompt is empty: give it at least one word")
    check_ids(model, ids["input_ids"])

    def watch(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        require_numbers(model, scores)  # the likeliest of NaN is token 0, and nobody would know
        return scores

    with eval_mode(model), within_positions(model, length + new_tokens):
        written = model.generate(
            **ids.to(input_device(model)),
            max_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
            logits_processor=[watch],
        )
    return tokenizer.decode(written[0, length:], skip_special_tokens=True)


def repetition(text: str, n: int = 3) -> float:
    """Share of the word n-grams of `text` that stood in it before: 0 for fresh text, near 1 for a loop."""
    check_string("text", text)
    check_count("n", n)
    words = text.split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
