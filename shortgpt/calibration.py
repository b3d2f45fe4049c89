"""Text in, token batches out: what the model reads while its layers are scored.

The built-in text (`data/text/`, written for this project, CC0) has two parts that share no document: ``calibration``
to score layers, ``perplexity`` to measure the result. Any other text is one argument away.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from shortgpt.arguments import check_count, check_strings, check_tokenizer, shown

Batch = dict[str, torch.Tensor]


def data_folder() -> Path:
    """The project's `data/` folder: beside the package in a checkout, inside it when installed from a wheel."""
    inside = Path(__file__).parent / "data"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "data"


def built_in_text(part: str = "calibration", *, language: str = "en", genre: str | None = None) -> pd.DataFrame:
    """The built-in documents, one a row: ``part, language, genre, title, text``.

    Args:
        part: ``"calibration"``, ``"perplexity"``, or ``"repair"`` (more English text, for `heal`).
        language: ``"en"`` or ``"zh"``.
        genre: one genre only, for instance ``"encyclopedic"``.
    """
    table = pd.concat(
        [pd.read_json(file, lines=True) for file in sorted((data_folder() / "text").glob("*.jsonl"))], ignore_index=True
    )
    for column, wanted in {"part": part, "language": language, "genre": genre}.items():
        if wanted is None:
            continue
        known = sorted(table[column].unique())
        if wanted not in known:
            raise ValueError(
                f"the built-in text has no {column} {shown(wanted)} here: choose one of {', '.join(known)}"
            )
        table = table[table[column] == wanted]
    return table.reset_index(drop=True)


def hub_text(dataset: str, name: str | None = None, *, split: str = "validation", column: str = "text") -> list[str]:
    """Documents of a Hub data set, for instance ``hub_text("Salesforce/wikitext", "wikitext-2-raw-v1", split="test")``."""
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ImportError("reading a Hub data set needs `pip install datasets`") from error
    return [text for text in load_dataset(dataset, name, split=split)[column] if text.strip()]


def calibration_batches(
    tokenizer: PreTrainedTokenizerBase,
    text: str | Path | Iterable[str] | None = None,
    *,
    samples: int | None = None,
    length: int = 512,
    batch_size: int = 4,
    seed: int = 0,
    pack: bool = True,
) -> list[Batch]:
    """Cut text into batches of ``{"input_ids", "attention_mask"}``, both int64 of shape ``[batch, tokens]``.

    Args:
        text: ``None`` for the built-in English calibration part; the path of a ``.txt`` file (one document) or a
            ``.jsonl`` file (a document a line under ``"text"``); or any iterable of strings.
        samples: how many samples at most; ``None`` takes all the text gives.
        length: tokens in a sample.
        batch_size: samples in a batch.
        seed: shuffles the documents; the same seed gives the same batches.
        pack: join the documents and cut every `length` tokens, so that nothing is padded and the rest is dropped
            (kept, shorter, if it is all there is). ``False``: each document is one sample, cut at `length` and padded.

    Raises:
        TypeError: something else for the tokenizer or the strings.
        ValueError: no text, a number below 1, or ``pack=False`` with a tokenizer that has no pad token.
    """
    check_tokenizer(tokenizer)
    for name, value in {"samples": samples, "length": length, "batch_size": batch_size}.items():
        if value is not None or name != "samples":
            check_count(name, value)
    check_count("seed", seed, least=0)
    documents = [document for document in documents_of(text) if document.strip()]
    if not documents:
        raise ValueError("the calibration text is empty: give at least one document with a few hundred words")
    order = np.random.default_rng(seed).permutation(len(documents))
    encoded = [tokenizer(documents[i], add_special_tokens=False)["input_ids"] for i in order]
    if pack:
        between = tokenizer("\n\n", add_special_tokens=False)["input_ids"]
        stream = [token for ids in encoded for token in ids + between][: -len(between) or None]
        rows = [stream[i : i + length] for i in range(0, len(stream) - length + 1, length)] or [stream]
    else:
        rows = [ids[:length] for ids in encoded if ids]
    rows = [row for row in rows if row][:samples]
    if not rows:
        raise ValueError("the tokenizer makes no token of the calibration text: give text in a language that it knows")
    return [_pad(rows[i : i + batch_size], tokenizer) for i in range(0, len(rows), batch_size)]


def documents_of(text: str | Path | Iterable[str] | None) -> list[str]:
    """The documents of a text as `calibration_batches` takes it, in their order."""
    if text is None:
        return built_in_text("calibration")["text"].tolist()
    if isinstance(text, str | Path):
        path = Path(text)
        if path.suffix not in (".txt", ".jsonl"):
            raise ValueError(f"text must be a .txt or .jsonl file or a list of strings, got {str(text)[:60]!r}")
        if not path.exists():
            raise FileNotFoundError(f"no such calibration file: {path}")
        content = path.read_text(encoding="utf-8")
        if path.suffix == ".txt":
            return [content]
        try:
            rows = [json.loads(line)["text"] for line in content.splitlines() if line.strip()]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f'{path}: every line must be a JSON object with a "text" field') from error
        return check_strings(f"the texts in {path.name}", rows)
    return check_strings("text", text)


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
