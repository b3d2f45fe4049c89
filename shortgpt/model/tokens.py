"""Text to token ids, begun the way the model was trained to see it.

Llama, Gemma and Mistral were trained with a begin token (BOS) in front of every text, and are another, far worse model
without it: attention that has nothing to look at goes to the first token (Xiao et al., arXiv 2309.17453). Qwen and SmolLM2
were trained without one, though their tokenizers name a BOS. So what belongs in front is asked of the tokenizer itself: what
it puts there when it is called as transformers calls it. What a tokenizer adds at the *end* is left out: a prompt with an end
token is finished, and an end token is not part of the text whose perplexity is measured.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from shortgpt.utils.arguments import check_string, shown

CHARACTERS_A_TOKEN = 8  # more than texts have on average, so that one try usually suffices
MARGIN = 16  # the last tokens of a text that was cut may differ from those of the whole one


def begin_tokens(tokenizer: PreTrainedTokenizerBase, bos: bool | None = None) -> list[int]:
    """The token ids that belong in front of a text; ``[]`` for a tokenizer that adds none.

    Args:
        bos: None: the tokenizer's own rule. True: its BOS, also if it adds none by itself. False: nothing.

    Raises:
        ValueError: ``bos=True``, and the tokenizer has no BOS. TypeError: something else for `bos`.
    """
    if bos is not None and not isinstance(bos, bool):
        raise TypeError(f"bos must be True, False, or None for the tokenizer's own rule, got {shown(bos)}")
    if bos is False:
        return []
    bare, whole = (list(tokenizer("a", add_special_tokens=added)["input_ids"]) for added in (False, True))
    starts = [i for i in range(len(whole) - len(bare) + 1) if whole[i : i + len(bare)] == bare]
    own = whole[: starts[0]] if bare and starts else []
    if own or bos is None:
        return own
    if tokenizer.bos_token_id is None:
        raise ValueError("the tokenizer has no begin token (bos_token): leave that out, or set tokenizer.bos_token")
    return [tokenizer.bos_token_id]


def encode(
    tokenizer: PreTrainedTokenizerBase, text: str, *, bos: bool | None = None, most: int | None = None
) -> list[int]:
    """Token ids of `text` behind what belongs in front of it (`begin_tokens`), which is never put there twice.

    (A text from a chat template often starts with BOS already.) With `most`, the first `most` ids, at a cost in
    proportion to them, however long the text is.
    """
    begin = begin_tokens(tokenizer, bos)
    ids = bare_tokens(tokenizer, text, most)
    ids = ids if begin and ids[: len(begin)] == begin else begin + ids
    return ids[:most]


def bare_tokens(tokenizer: PreTrainedTokenizerBase, text: str, most: int | None = None) -> list[int]:
    """Token ids of `text`, nothing added; with `most`, the first ones, from no more of the text than they need."""
    size = len(text) if most is None else CHARACTERS_A_TOKEN * (most + MARGIN)
    while True:
        # verbose=False: transformers would warn that a text is too long for the model, which reads it in windows
        ids = list(tokenizer(text[:size], add_special_tokens=False, verbose=False)["input_ids"])
        if size >= len(text):
            return ids[:most]
        if most is not None and len(ids) >= most + MARGIN:
            return ids[:most]
        size *= 4


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, prompt: str, bos: bool | None = None) -> dict[str, Tensor]:
    """The prompt as a batch of one row, ``input_ids`` and ``attention_mask`` of shape ``[1, tokens]``."""
    check_string("prompt", prompt)
    if not bare_tokens(tokenizer, prompt, 1):
        raise ValueError("the prompt is empty: give it at least one word")
    ids = torch.tensor([encode(tokenizer, prompt, bos=bos)])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def begin_token(tokenizer: PreTrainedTokenizerBase, what: str) -> str:
    """The one token that a text sampled from nothing starts with: what the tokenizer puts in front, or else
    ``<|endoftext|>`` if there is one (a chat model's own BOS begins a chat turn)."""
    if begin := begin_tokens(tokenizer):
        return str(tokenizer.convert_ids_to_tokens(begin[-1]))
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer has no begin and no end token, which {what} needs: set tokenizer.eos_token")
    return "<|endoftext|>" if "<|endoftext|>" in tokenizer.get_vocab() else tokenizer.bos_token or tokenizer.eos_token
