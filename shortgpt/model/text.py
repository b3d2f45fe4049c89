"""Text in, token batches out: what the model reads while its layers are scored.

The built-in text (`data/text/`) has parts that share no document: ``calibration`` to score layers and ``perplexity`` to
measure the result, written for this project, and ``natural`` and ``natural_test`` for the same two uses, written by people
and taken from packages (`data/text/SOURCES.md` names each work and its licence). Any other text is one argument away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice, zip_longest
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


class Batch(dict[str, torch.Tensor]):
    """``input_ids`` and ``attention_mask``, as ``model(**batch)`` takes them, and which text its samples are from.

    Attributes:
        documents: fingerprint of the document that each sample begins in. Samples of one document are not independent,
            so `LayerScores` takes standard errors over documents. Empty (and in any other dict): not known.
    """

    documents: tuple[str, ...] = ()


Row = tuple[list[int], int]  # the token ids of a sample, and the number of the document it begins in


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


def calibration_documents(language: str = "en") -> list[str]:
    """What is scored where no text is given: the beginnings of documents that people wrote, as many of each genre.

    About 15,000 tokens. docs/three_models.md compares what it chooses with what ``"calibration"`` does, on three models.
    """
    most, characters = (8, 700) if language == "zh" else (3, 2200)
    table = built_in_text("natural", language=language)
    return table.groupby("genre").head(most)["text"].str[:characters].tolist()


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
    spread: bool = False,
    bos: bool | None = None,
) -> list[Batch]:
    """Cut text into batches of ``{"input_ids", "attention_mask"}``, both int64 of shape ``[batch, tokens]``.

    Args:
        text: ``None`` for built-in English by people (see `calibration_documents`); the path of a ``.txt`` file (one
            document) or a ``.jsonl`` file (a document a line under ``"text"``); or any iterable of strings.
        samples: how many samples at most; ``None`` takes all the text gives.
        length: tokens in a sample, begin token included.
        batch_size: samples in a batch.
        seed: shuffles the documents; the same seed gives the same batches.
        pack: join the documents and cut every `length` tokens, so that nothing is padded and the rest is dropped
            (kept, shorter, if it is all there is). ``False``: each document is one sample, cut at `length` and padded.
        spread: the first `length` tokens of every document, then the next of every document that has so many, and so on:
            of as few tokens as possible, as many documents as possible. (A document shorter than `length` is one sample.)
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
    rows: Iterable[Row]
    most = None if samples is None else samples * length
    if spread and not pack:
        raise ValueError(
            "spread=True cuts documents into several samples, and pack=False into one: give one of the two"
        )
    if spread:
        rows = _dealt([_packed(tokenizer, {i: document}, begin, length, most) for i, document in enumerate(shuffled)])
    elif pack:
        rows = _packed(tokenizer, dict(enumerate(shuffled)), begin, length, most)
    else:
        rows = ((encode(tokenizer, document, bos=bos, most=length), i) for i, document in enumerate(shuffled))
        rows = ((row, i) for row, i in rows if row != begin)
    found = list(islice(rows, samples))
    if not found:
        raise ValueError("the tokenizer makes no token of the calibration text: give text in a language that it knows")
    batches = []
    for i in range(0, len(found), batch_size):
        batch = Batch(_pad([row for row, _ in found[i : i + batch_size]], tokenizer))
        batch.documents = tuple(_fingerprint(shuffled[number]) for _, number in found[i : i + batch_size])
        batches.append(batch)
    return batches


def _dealt(decks: list[Iterator[Row]]) -> Iterator[Row]:
    """The first row of each deck, then the second of each that has one, and so on."""
    for hand in zip_longest(*decks):
        yield from (row for row in hand if row is not None)


def _packed(
    tokenizer: PreTrainedTokenizerBase, documents: Mapping[int, str], begin: list[int], length: int, most: int | None
) -> Iterator[Row]:
    """Rows of `length` tokens, each begun by `begin`; the last one, shorter, only if there is no other.

    A document is tokenized when its turn comes, and no further than the `most` tokens that are wanted in all.
    """
    between = begin or bare_tokens(tokenizer, "\n\n")
    row, some, first, owner = [*begin], False, True, 0
    for number, document in documents.items():
        ids = bare_tokens(tokenizer, document, most)
        if begin and ids[: len(begin)] == begin:  # it is in the text already
            ids = ids[len(begin) :]
        if not first and (row != begin or not begin):  # a sample that has just begun needs no second begin token
            ids = between + ids
        first, done = False, 0
        while done < len(ids):
            owner = number if row == begin else owner
            take = length - len(row)
            row += ids[done : done + take]
            done += take
            if len(row) == length:
                yield row, owner
                row, some = [*begin], True
    if not some and row != begin:
        yield row, owner


def _fingerprint(document: str) -> str:
    return hashlib.sha256(document.encode(errors="replace")).hexdigest()[:16]


def documents_of(text: str | Path | Iterable[str] | None) -> list[str]:
    """The documents of a text as `calibration_batches` takes it, in their order."""
    if text is None:
        return calibration_documents()
    if not isinstance(text, str | Path):
        return check_strings("text", text)
    return documents_in(Path(text))


def sample_digests(batch: Mapping[str, torch.Tensor]) -> list[bytes]:
    """Fingerprint (SHA-256) of the real tokens of each sample that has any, whatever its batch or padding."""
    rows = zip(batch["input_ids"].cpu(), batch["attention_mask"].bool().cpu(), strict=True)
    tokens = [ids[real].numpy() for ids, real in rows]
    return [hashlib.sha256(ids.astype("<i8").tobytes()).digest() for ids in tokens if len(ids)]


def _pad(rows: list[list[int]], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
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
