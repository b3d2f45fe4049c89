"""The stored curves measured again: the same model, documents and cut, so that a reader can check a number."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.course.studies.curves import paired
from shortgpt.evaluation.likelihood import mean_and_error, perplexity_table
from shortgpt.model.text import built_in_text
from shortgpt.pruning.depth import remove_layers
from shortgpt.utils.data import data_folder

CHARACTERS = {"en": 1600, "zh": 400, "code": 1200}  # of each document that are measured: many documents, the beginnings


def measured_documents(name: str, language: str) -> pd.DataFrame:
    """The documents of ``natural_test`` on which the model `name` was measured, each cut to its first characters.

    `removal_texts.csv` names them, so text that is added later changes nothing.

    Raises:
        ValueError: nothing was measured of this model in this language. KeyError: a document is no longer there.
    """
    chosen = pd.read_csv(data_folder() / "removal_texts.csv").query("model == @name and language == @language")
    if chosen.empty:
        raise ValueError(f"{name} was not measured in {language!r} yet (see measure/removal_curves.py)")
    documents = built_in_text("natural_test", language=language).drop_duplicates("title").set_index("title")
    documents = documents.loc[chosen["title"]].reset_index()
    return documents.assign(text=documents["text"].str[: CHARACTERS[language]])


def document_losses(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, documents: pd.DataFrame
) -> pd.DataFrame:
    """One row a document: ``loss`` (nats a token), ``tokens`` (scored), ``bytes`` (of them)."""
    table = perplexity_table(model, tokenizer, documents.assign(number=documents.index), by="number")
    table = table.set_index("number")
    loss = np.log(table["perplexity"])
    size = (loss * table["tokens"] / np.log(2) / table["bits_per_byte"]).round().astype(int)
    return pd.DataFrame({"loss": loss, "tokens": table["tokens"], "bytes": size})


def measured_again(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    removals: Mapping[str, Sequence[int]],
    *,
    language: str = "en",
    progress: bool = True,
) -> pd.DataFrame:
    """What each set of layers costs, measured now, beside what is stored.

    Args:
        name: whose stored documents are read: ``"smollm2-135m-instruct"`` and so on.
        removals: layers to remove, by a label.

    Returns:
        A row a set: ``layers, added`` (nats a token above the dense model), ``added_error`` (standard error, paired over
        documents), ``times`` (the factor of perplexity); ``stored`` (the stored ``added``, empty if there is none).

    Raises:
        ValueError: no stored study of this model; layers that can't be removed (see `remove_layers`).
    """
    documents = measured_documents(name, language)
    dense = document_losses(model, tokenizer, documents)
    tokens, rows = dense["tokens"].to_numpy(), []
    for label, layers in tqdm(removals.items(), desc="measuring again", unit="set", disable=not progress):
        losses = document_losses(remove_layers(model, layers), tokenizer, documents)["loss"]
        added, error = mean_and_error((losses - dense["loss"]).to_numpy() * tokens, tokens)
        try:
            stored = paired(name, layers, [], language)[0]
        except KeyError:
            stored = float("nan")
        rows.append(
            {"set": label, "layers": json.dumps(sorted(map(int, layers))), "added": added, "added_error": error}
            | {"times": float(np.exp(added)), "stored": stored}
        )
    return pd.DataFrame(rows).set_index("set")
