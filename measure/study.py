"""What the studies on three real models share: the models, text to choose and text to measure on, and files that grow.

Text is human-written (`data/text/SOURCES.md`): layers are chosen on the part ``natural``, everything is measured on the part
``natural_test``, whose sources are others. Each document counts with its beginning only, so that many documents are read.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt import built_in_text, calibration_batches, load
from shortgpt.course.studies import again
from shortgpt.course.studies.curves import MODELS

DATA = Path(__file__).parents[1] / "data"
LARGE = MODELS[2]
DOCUMENTS = 12  # of each language


def load_model(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """One of `MODELS` on the CPU: the small ones in float32, the large one in bfloat16."""
    return load(name, device="cpu", dtype=torch.bfloat16 if name == LARGE else torch.float32)


def balanced(documents: pd.DataFrame, count: int) -> pd.DataFrame:
    """`count` of the documents, as equally many of each genre as there are: the first of each, then the second …"""
    turn = documents.groupby("genre").cumcount()
    return documents.assign(turn=turn).sort_values(["turn", "genre"], kind="stable").head(count).drop(columns="turn")


def measured_documents(model_name: str, language: str) -> pd.DataFrame:
    """The documents that are measured in one language, each cut to its first characters: those of the first run."""
    try:
        return again.measured_documents(model_name, language)
    except (ValueError, FileNotFoundError):  # this is the first run
        documents = balanced(built_in_text("natural_test", language=language).drop_duplicates("title"), DOCUMENTS)
        return documents.assign(text=documents["text"].str[: again.CHARACTERS[language]]).reset_index(drop=True)


def texts_to_choose_on(name: str) -> pd.DataFrame:
    """Documents to choose layers on: ``"ours"`` (the course's), or by people: ``"en"`` (all
    genres), ``"zh"``, ``"code"``, or one English genre."""
    if name == "ours":
        return built_in_text("calibration")
    whole = built_in_text("natural", language=name if name in again.CHARACTERS else "en")
    return whole if name in again.CHARACTERS else whole[whole["genre"] == name]


def batches_of(
    tokenizer: PreTrainedTokenizerBase, text: str, samples: int = 40, length: int = 256
) -> list[dict[str, torch.Tensor]]:
    """So many tokens of the text: of people's the beginning of each document, of ours packed windows of 512; or
    ``"default"``, what `calibration_batches` reads where nothing else is given."""
    if text == "default":
        return calibration_batches(tokenizer)
    documents = texts_to_choose_on(text)
    if text == "ours":
        return calibration_batches(tokenizer, documents["text"], samples=samples * length // 512)
    return calibration_batches(tokenizer, balanced(documents, samples)["text"], length=length, pack=False)


def asked() -> list[str]:
    """The models named on the command line, or all."""
    names = [name for name in sys.argv[1:] if not name.startswith("-")]
    unknown = set(names) - set(MODELS)
    if unknown:
        sys.exit(f"unknown model {sorted(unknown)[0]}: name some of {', '.join(MODELS)}, or none for all")
    return names or list(MODELS)
