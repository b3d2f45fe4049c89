"""The six-layer challenge: take six layers out of the default model, and lose as little as you can (docs/challenge.md).

What is measured on is made new from a word, so that nobody can learn it by heart: the dense model writes documents itself,
sampled with noise that the word decides. Two numbers come of it. *Nats lost*: how much less likely than the dense model the
pruned one finds a token of these documents. As the dense model wrote them, that estimates the Kullback-Leibler divergence
between the two. *Right*: in how many documents the pruned model finds the true next 32 tokens likelier than those that
stand at the same place of another document.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor, cat
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.evaluation.likelihood import mean_and_error, scored_documents, token_losses
from shortgpt.model.anatomy import decoder_layers
from shortgpt.model.arguments import vocabulary_size
from shortgpt.model.sampling import sampled_text

LAYERS, DOCUMENTS, LENGTH = 6, 32, 128  # that have to go; written for a word; tokens of each at most
GIVEN, ASKED = 64, 32  # tokens that an item shows; tokens that follow


Losses = tuple[np.ndarray, np.ndarray]


class HeldBack(NamedTuple):
    """What a word gives: token ids of each document, and the first hexadecimal digits of their checksum."""

    documents: list[Tensor]
    begin: list[int]
    digest: str


def held_back(
    dense: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    word: str,
    *,
    documents: int = DOCUMENTS,
    progress: bool = True,
) -> HeldBack:
    """Documents that `dense` writes for `word`, each ``[tokens]``, at least ``GIVEN + ASKED`` of them.

    Raises:
        ValueError: `word` is empty, or the model ends its documents so early that too few are long enough.
    """
    if not word.strip():
        raise ValueError("the word that the text is made from is empty: take the date, or a word that the teacher sets")
    seed = int(hashlib.sha256(word.strip().encode()).hexdigest()[:8], 16)
    for samples in (documents + documents // 4, 2 * documents):  # some end early; a sample is the same in both
        texts = sampled_text(dense, tokenizer, samples, LENGTH, seed=seed, batch_size=20, progress=progress)
        begin, written = scored_documents(tokenizer, texts, LENGTH, LENGTH // 2, None)
        long = [ids[:LENGTH] for ids in written if len(ids) >= GIVEN + ASKED][:documents]
        if len(long) == documents:
            break
    else:
        raise ValueError(f"only {len(long)} of {len(texts)} documents are long enough, and {documents} are needed")
    return HeldBack(long, begin, hashlib.sha256(repr([ids.tolist() for ids in long]).encode()).hexdigest()[:12])


def losses(model: PreTrainedModel, held: HeldBack, *, progress: bool = True) -> Losses:
    """Summed loss (nats) of each document, ``[documents]``, and which items are answered right, ``[documents]`` of bool."""
    sums, right = [], []
    others = [*held.documents[1:], held.documents[0]]
    bar = tqdm(held.documents, desc="scoring", unit="document", disable=not progress)
    for ids, other in zip(bar, others, strict=True):
        true = _losses(model, ids, held.begin)
        false = _losses(model, cat([ids[:GIVEN], other[GIVEN : GIVEN + ASKED]]), held.begin)
        asked = slice(len(true) - len(ids) + GIVEN, len(true) - len(ids) + GIVEN + ASKED)
        sums.append(true.sum().item())
        right.append(bool(true[asked].sum() < false[asked].sum()))
    return np.array(sums), np.array(right)


def _losses(model: PreTrainedModel, ids: Tensor, begin: Sequence[int]) -> Tensor:
    return token_losses(model, ids, window=LENGTH + len(begin) + 1, stride=LENGTH // 2, begin=begin)


def challenge_score(
    dense: PreTrainedModel,
    pruned: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    word: str,
    *,
    documents: int | None = None,
    progress: bool = True,
) -> dict[str, float | int | str]:
    """What a pruned model gets in the challenge, for the text that `word` gives.

    Returns:
        ``nats_lost`` a token (0: writes like the dense model; lower is better) and ``error``, its standard error over the
        documents, paired; ``right, right_dense`` (percent of the items) and ``right_error``; ``layers, documents``;
        ``word, text`` (the checksum of what was written: scores compare only where it is the same).

    Raises:
        ValueError: more layers or parameters are left than the rules allow, another vocabulary, or an empty word.
    """
    require_entry(dense, pruned)
    held = held_back(dense, tokenizer, word, documents=documents or DOCUMENTS, progress=progress)
    before, after = (losses(model, held, progress=progress) for model in (dense, pruned))
    return {**summary(before, after, held), "layers": len(decoder_layers(pruned)), "word": word.strip()}


def summary(before: Losses, after: Losses, held: HeldBack) -> dict[str, float | int | str]:
    """What `challenge_score` returns but for ``layers`` and ``word``, from the `losses` of the dense and the pruned model."""
    tokens = np.array([len(ids) for ids in held.documents]) - (not held.begin)
    lost, error = mean_and_error(after[0] - before[0], tokens)
    share = after[1].mean()
    return {
        "nats_lost": lost,
        "error": error,
        "right": 100 * share,
        "right_error": 100 * float(np.sqrt(share * (1 - share) / (len(after[1]) - 1))),
        "right_dense": 100 * before[1].mean(),
        "documents": len(held.documents),
        "text": held.digest,
    }


def require_entry(dense: PreTrainedModel, pruned: PreTrainedModel) -> None:
    """Raise ValueError unless `pruned` keeps the rules: six decoder layers fewer, and nothing added in their place."""
    sizes = [vocabulary_size(m) for m in (dense, pruned)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"the model knows {sizes[1]} tokens and the dense one {sizes[0]}: it is not made of that model"
        )
    left, most = len(decoder_layers(pruned)), len(decoder_layers(dense)) - LAYERS
    if left > most:
        raise ValueError(f"{left} decoder layers are left, and the challenge allows {most}: remove {left - most} more")
    each = max(sum(p.numel() for p in layer.parameters()) for layer in decoder_layers(dense))
    allowed = sum(p.numel() for p in dense.parameters()) - LAYERS * each
    count = sum(p.numel() for p in pruned.parameters())
    if count > allowed:
        raise ValueError(
            f"the model has {count:,} parameters, and the challenge allows {allowed:,}: what is repaired must not need more"
        )
