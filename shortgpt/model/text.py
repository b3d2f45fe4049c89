"""Text in, token batches out: what the model reads while its layers are scored.

The built-in text (`data/text/`) has parts that share no document: ``calibration`` to score layers and ``perplexity`` to
measure the result, written for this project, and ``natural`` and ``natural_test`` for the same two uses, written by people
and taken from packages (`data/text/SOURCES.md` names each work and its licence). Any other text is one argument away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from shortgpt.model.arguments import check_tokenizer
from shortgpt.model.tokens import bare_tokens, begin_tokens, encode
from shortgpt.utils.arguments import check_count, check_strings, shown
from shortgpt.utils.data import data_folder
from shortgpt.utils.documents import documents_in

Batch = dict[str, torch.Tensor]


def built_in_text(part: str = "calibration", *, language: str = "en", genre: str | None = None) -> pd.DataFrame:
    """The built-in documents, one a row: ``part, language, genre, title, text``; in the two natural parts also ``source``.

    Args:
        part: ``"calibration"``, ``"perplexity"``, or ``"repair"`` (more English text, for `heal`): written for this project.
            ``"natural"`` (for scoring and repairs) or ``"natural_test"`` (for measuring): written by people; ``source`` is
            the key of the work in ``data/text/SOURCES.md``. They share no source.
        language: ``"en"`` or ``"zh"``, in the natural parts also ``"code"``; None for all.
        genre: one genre only, for instance ``"encyclopedic"``.
    """
    files = {file.stem: file for file in (data_folder() / "text").glob("*.jsonl")}
    _check_known("part", part, files)
    table = pd.read_json(files[part], lines=True)
    for column, wanted in {"language": language, "genre": genre}.items():
        if wanted is not None:
            _check_known(column, wanted, table[column])
            table = table[table[column] == wanted]
    return table.reset_index(drop=True)


def _check_known(name: str, wanted: object, known: Iterable[str]) -> None:
    """Refuse a part, language or genre that the built-in text does not have."""
    choices = sorted(set(known))
    if wanted not in choices:
        raise ValueError(f"the built-in text has no {name} {shown(wanted)} here: choose one of {', '.join(choices)}")


def calibration_batches(
    tokenizer: PreTrainedTokenizerBase,
    text: str | Path | Iterable[str] | None = None,
    *,
    samples: int | None = None,
    length: int = 512,
    batch_size: int = 4,
    seed: int = 0,
    pack: bool = True,
    bos: bool | None = None,
) -> list[Batch]:
    """Cut text into batches of ``{"input_ids", "attention_mask"}``, both int64 of shape ``[batch, tokens]``.

    Args:
        text: ``None`` for the built-in English calibration part; the path of a ``.txt`` file (one document) or a
            ``.jsonl`` file (a document a line under ``"text"``); or any iterable of strings.
        samples: how many samples at most; ``None`` takes all the text gives.
        length: tokens in a sample, begin token included.
        batch_size: samples in a batch.
        seed: shuffles the documents; the same seed gives the same batches.
        pack: join the documents and cut every `length` tokens, so that nothing is padded and the rest is dropped
            (kept, shorter, if it is all there is). ``False``: each document is one sample, cut at `length` and padded.
        bos: whether a begin token (BOS) stands in front of every document and every sample. None: as the tokenizer itself
            does it, which is how the model was trained (see `tokens.begin_tokens`). A sample that starts inside a document
            gets one, too: such a model never saw a text without it, and turns all states of one that lacks it. Documents
            are joined by it where it is used, and else by an empty line.

    Raises:
        TypeError: something else for the tokenizer or the strings.
        ValueError: no text, a number below 1, no room for text behind the begin token, ``bos=True`` with a tokenizer that
            has none, or ``pack=False`` with a tokenizer that has no pad token.
    """
    check_tokenizer(tokenizer)
    for name, value in {"samples": samples, "length": length, "batch_size": batch_size}.items():
        if value is not None or name != "samples":
            check_count(name, value)
    check_count("seed", seed, least=0)
    begin = begin_tokens(tokenizer, bos)
    if length <= len(begin):
        raise ValueError(f"length must be at least {len(begin) + 1}: the begin token takes a place, got {length}")
    documents = [document for document in documents_of(text) if document.strip()]
    if not documents:
        raise ValueError("the calibration text is empty: give at least one document with a few hundred words")
    shuffled = [documents[i] for i in np.random.default_rng(seed).permutation(len(documents))]
    if pack:
        rows = _packed(tokenizer, shuffled, begin, length, None if samples is None else samples * length)
    else:
        rows = (encode(tokenizer, document, bos=bos, most=length) for document in shuffled)
        rows = (row for row in rows if row != begin)
    found = list(islice(rows, samples))
    if not found:
        raise ValueError("the tokenizer makes no token of the calibration text: give text in a language that it knows")
    return [_pad(found[i : i + batch_size], tokenizer) for i in range(0, len(found), batch_size)]


def _packed(
    tokenizer: PreTrainedTokenizerBase, documents: list[str], begin: list[int], length: int, most: int | None
) -> Iterator[list[int]]:
    """Rows of `length` tokens, each begun by `begin`; the last one, shorter, only if there is no other.

    A document is tokenized when its turn comes, and no further than the `most` tokens that are wanted in all.
    """
    between = begin or bare_tokens(tokenizer, "\n\n")
    row, some = [*begin], False
    for number, document in enumerate(documents):
        ids = bare_tokens(tokenizer, document, most)
        if begin and ids[: len(begin)] == begin:  # it is in the text already
            ids = ids[len(begin) :]
        if number and (row != begin or not begin):  # a sample that has just begun needs no second begin token
            ids = between + ids
        done = 0
        while done < len(ids):
            take = length - len(row)
            row += ids[done : done + take]
            done += take
            if len(row) == length:
                yield row
                row, some = [*begin], True
    if not some and row != begin:
        yield row


def documents_of(text: str | Path | Iterable[str] | None) -> list[str]:
    """The documents of a text as `calibration_batches` takes it, in their order."""
    if text is None:
        return built_in_text("calibration")["text"].tolist()
    if not isinstance(text, str | Path):
        return check_strings("text", text)
    return documents_in(Path(text))


def sample_digests(batch: Mapping[str, torch.Tensor]) -> list[bytes]:
    """Fingerprint (SHA-256) of the real tokens of each sample that has any, whatever its batch or padding."""
    rows = zip(batch["input_ids"].cpu(), batch["attention_mask"].bool().cpu(), strict=True)
    tokens = [ids[real].numpy() for ids, real in rows]
    return [hashlib.sha256(ids.astype("<i8").tobytes()).digest() for ids in tokens if len(ids)]


def _pad(rows: list[list[int]], tokenizer: PreTrainedTokenizerBase) -> Batch:
    """Stack rows of token ids, padding on the tokenizer's side where they differ in length."""
    if len({len(row) for row in rows}) == 1:
        ids = torch.tensor(rows)  # [batch, tokens]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if tokenizer.pad_token_id is None:
        raise ValueError(
            "samples of different lengths must be padded and the tokenizer has no pad token: set "
            "`tokenizer.pad_token = tokenizer.eos_token` (pads are masked out), or use pack=True"
        )
    return dict(tokenizer.pad({"input_ids": rows}, return_tensors="pt"))
