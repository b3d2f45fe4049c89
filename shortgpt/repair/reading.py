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

from shortgpt.model.offload import input_device
from shortgpt.model.sampling import Processor, write_tokens
from shortgpt.model.text import calibration_batches, documents_of
from shortgpt.model.tokens import bare_tokens, begin_token
from shortgpt.utils.atomic import file_written_beside

HOLD_BACK = 20  # one document in so many
WRITTEN_AT_ONCE = {"cpu": 64, "cuda": 256}  # texts that the teacher writes before they are kept
MOST_WRITTEN = 1_000_000  # tokens: longer training reads them again
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
    """The documents of `texts`; or if there are none, what the teacher writes, `tokens` or `MOST_WRITTEN`."""
    if texts is not None:
        return documents_of(texts)
    tokens = min(tokens, MOST_WRITTEN)
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
    """At least `tokens` tokens of text sampled from the teacher, each from the begin token on; kept in `folder` as it grows.

    `seed` decides it, on one kind of device. (`sampled_text` gives the same text on all, and takes several times as long.)

    Raises:
        ValueError: the teacher ends each text at once. A tokenizer with neither begin nor end token, NaN in the logits.
    """
    file = folder / TEXT_FILE if folder else None
    texts = [json.loads(line)["text"] for line in file.open(encoding="utf-8")] if file and file.exists() else []
    count = sum(len(bare_tokens(tokenizer, text)) for text in texts)
    with tqdm(total=tokens, initial=count, desc="teacher writes", unit="token", disable=not progress) as bar:
        while count < tokens:
            batch = _written(teacher, tokenizer, length, seed=seed, part=len(texts))
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


def _written(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, length: int, *, seed: int, part: int
) -> list[str]:
    """The next texts: what the teacher writes once, drawn from its whole distribution."""
    device = input_device(teacher)
    start = tokenizer.convert_tokens_to_ids(begin_token(tokenizer, "sampling"))
    ids = torch.tensor([[start]] * WRITTEN_AT_ONCE.get(device.type, 64))
    own_seed = int(np.random.SeedSequence([seed, part]).generate_state(1)[0])
    draws = _noise(torch.Generator(device).manual_seed(own_seed), len(tokenizer))
    written = write_tokens(
        teacher, tokenizer, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, length, draws
    )
    return tokenizer.batch_decode(written, skip_special_tokens=True)


def _noise(generator: torch.Generator, known: int) -> Processor:
    """Gumbel noise where the logits are (see `sampling_noise`)."""

    def add(_: Tensor, logits: Tensor) -> Tensor:
        waits = torch.empty_like(logits, dtype=torch.float32).exponential_(generator=generator)
        noisy = logits.float() - waits.clamp(min=torch.finfo(torch.float32).tiny).log()
        noisy[:, known:] = -torch.inf
        return noisy

    return add
