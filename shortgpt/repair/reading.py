"""What a model reads while it is healed: windows of tokens from any text, or from text that the teacher writes itself.

Text held back is never trained on: whole documents, or the end of the only one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.model.sampling import sampled_text
from shortgpt.model.text import calibration_batches, documents_of
from shortgpt.model.tokens import bare_tokens
from shortgpt.utils.atomic import file_written_beside

HOLD_BACK = 20  # one document in so many
WRITTEN_AT_ONCE = 64  # texts that the teacher writes before they are kept
TEXT_FILE = "teacher.jsonl"


def windows(tokenizer: PreTrainedTokenizerBase, documents: list[str], length: int, seed: int) -> Tensor:
    """All the text gives, ``[samples, length]`` (one shorter sample if it gives less)."""
    batches = calibration_batches(tokenizer, documents, length=length, batch_size=64, seed=seed)
    return torch.cat([batch["input_ids"] for batch in batches])


def split(documents: list[str]) -> tuple[list[str], list[str]]:
    """Documents to train on, and documents to measure on: one in `HOLD_BACK`, at least one."""
    documents = [document for document in documents if document.strip()]
    if len(documents) == 1:
        cut = len(documents[0]) * 9 // 10
        documents = [documents[0][:cut], documents[0][cut:]]
    if len(documents) < 2:
        raise ValueError("the text is empty: give at least one document with a few hundred words")
    held = documents[1::HOLD_BACK]
    return [document for i, document in enumerate(documents) if i % HOLD_BACK != 1], held


def training_documents(
    texts: str | Path | Iterable[str] | None,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tokens: int,
    *,
    length: int,
    seed: int,
    folder: Path | None,
    progress: bool,
) -> list[str]:
    """The documents of `texts`; or if there are none, as many tokens of them as training wants, written by the teacher."""
    if texts is not None:
        return documents_of(texts)
    return teacher_text(teacher, tokenizer, tokens, length=length, seed=seed, folder=folder, progress=progress)


def teacher_text(
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tokens: int,
    *,
    length: int,
    seed: int,
    folder: Path | None,
    progress: bool,
) -> list[str]:
    """At least `tokens` tokens of text sampled from the teacher, decided by `seed`; kept in `folder` as it grows.

    Raises:
        ValueError: the teacher ends each text at once. What `sampled_text` refuses.
    """
    file = folder / TEXT_FILE if folder else None
    texts = [json.loads(line)["text"] for line in file.open(encoding="utf-8")] if file and file.exists() else []
    count = sum(len(bare_tokens(tokenizer, text)) for text in texts)
    with tqdm(total=tokens, initial=count, desc="teacher writes", unit="token", disable=not progress) as bar:
        while count < tokens:
            own_seed = int(np.random.SeedSequence([seed, len(texts)]).generate_state(1)[0])
            batch = sampled_text(
                teacher, tokenizer, WRITTEN_AT_ONCE, length, seed=own_seed, batch_size=16, progress=False
            )
            more = sum(len(bare_tokens(tokenizer, text)) for text in batch)
            if not more:
                raise ValueError("the teacher ends each text before its first word: give texts to train on")
            texts, count = texts + batch, count + more
            bar.update(more)
            if file:
                with file_written_beside(file) as beside:
                    lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
                    beside.write_text("".join(lines), encoding="utf-8")
    return texts
