"""What a choice of layers hangs on, and how many tokens it takes: scores every token once, and resamples what was kept.

    python measure/stability.py                     score what is not scored yet, then write the answers
    python measure/stability.py gemma-3-270m        only some models
    python measure/stability.py answers             only the answers, from what is kept

Keeps the influence of every token in ``build/stability/`` (a file for each scoring, so a run that was stopped goes on), and
writes `data/stability.csv`, a row a number: ``model, question, setting, against, n, tokens, measure, value, low, high``.
About 25 minutes of one processor core for all three models.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from stability_answers import answers
from study import DATA, LARGE, MODELS, load_model
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt import built_in_text, remove_layers, watch_layers
from shortgpt.evaluation.likelihood import token_losses
from shortgpt.model.hooks import by_token, run_backbone
from shortgpt.model.tokens import bare_tokens, begin_tokens
from shortgpt.scoring.influence import block_influence
from shortgpt.utils.atomic import file_written_beside

FEW = 5120  # tokens of a scoring that is compared with another
SCORINGS: list[dict[str, Any]] = [
    {"length": 512, "tokens": 70_000},
    {"length": 512, "text": "human", "tokens": 2 * FEW},
    *({"length": length, "packed": True, "tokens": FEW} for length in (128, 256, 512, 1024)),
    {"length": 512, "chat": True, "tokens": FEW},
    {"length": 512, "bos": False, "tokens": FEW},
]
BATCH = 1024  # tokens at a time


def kept_folder() -> Path:
    return DATA.parent / "build" / "stability"


class Kept:
    """One model, loaded when it is needed, and what is known of it already."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None

    @property
    def loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        if self._loaded is None:
            self._loaded = load_model(self.name)
        return self._loaded


@torch.inference_mode()
def token_scores(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> Iterator[np.ndarray]:
    """Block Influence of each token, float32 ``[tokens, layers]``, for each of `rows`."""
    start = 0
    while start < len(rows):
        size, end = len(rows[start]), start + 1
        while end < len(rows) and len(rows[end]) == size and (end + 1 - start) * size <= BATCH:
            end += 1
        ids = torch.tensor(rows[start:end])
        found: dict[int, torch.Tensor] = {}

        def keep(layer: int, x_in: torch.Tensor, x_out: torch.Tensor, mask=ids, found=found) -> None:
            found[layer] = block_influence(by_token(x_in, mask), by_token(x_out, mask))

        with watch_layers(model, keep):
            run_backbone(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        yield from torch.stack([found[i] for i in sorted(found)], -1).numpy()
        start = end


def windows(
    tokenizer: PreTrainedTokenizerBase, documents: Sequence[str], length: int, *, packed: bool, bos: bool | None
) -> Iterator[tuple[list[int], list[int]]]:
    """Rows of token ids and the document of each token: packed like `calibration_batches`, or cut where documents end."""
    begin = begin_tokens(tokenizer, bos)
    between = begin or bare_tokens(tokenizer, "\n\n")
    row, owner = [*begin], [0] * len(begin)
    for number, document in enumerate(documents):
        ids = bare_tokens(tokenizer, document)
        ids = ids[len(begin) :] if begin and ids[: len(begin)] == begin else ids
        if packed and number and (row != begin or not begin):
            ids = between + ids
        if not packed:
            row, owner = [*begin], [number] * len(begin)
        while ids:
            take = length - len(row)
            row, owner, ids = row + ids[:take], owner + [number] * len(ids[:take]), ids[take:]
            if len(row) == length or (not packed and not ids):
                yield row, owner
                row, owner = [*begin], [number] * len(begin)


def texts(name: str) -> pd.DataFrame:
    """Documents in one shuffled order: our own (calibration and repair), or English ones that people wrote."""
    if name == "own":
        table = pd.concat([built_in_text("calibration"), built_in_text("repair")], ignore_index=True)
    else:
        table = built_in_text("natural")
        table = table.assign(text=table["text"].str[:2200])  # many documents, the beginning of each
    return table.iloc[np.random.default_rng(0).permutation(len(table))].reset_index(drop=True)


def score(kept: Kept, how: dict[str, Any]) -> None:
    """Score once and keep: ``scores [tokens, layers]``, ``document, window, position [tokens]``, ``labels [documents]``."""
    text, bos, chat = how.get("text", "own"), how.get("bos"), how.get("chat", False)
    marks = [text, how["length"], *(mark for mark in ("packed", "chat") if how.get(mark))] + ["nobos"] * (bos is False)
    file = kept_folder() / f"{kept.name}_{'_'.join(map(str, marks))}.npz"
    if file.exists():
        return
    model, tokenizer = kept.loaded
    if (chat and not tokenizer.chat_template) or (bos is False and not begin_tokens(tokenizer)):
        return
    table = texts(text)
    documents = table["text"].tolist()
    if chat:
        documents = [
            tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False) for text in documents
        ]
    rows, owners = [], []
    for row, owner in windows(tokenizer, documents, how["length"], packed=how.get("packed", False), bos=bos):
        rows.append(row)
        owners.append(owner)
        if sum(map(len, rows)) + len(row) > how["tokens"]:
            break
    sizes, start = [len(row) for row in rows], time.process_time()
    arrays = {
        "scores": np.concatenate(list(token_scores(model, rows))),
        "document": np.concatenate(owners).astype(np.int32),
        "window": np.repeat(np.arange(len(rows), dtype=np.int32), sizes),
        "position": np.concatenate([np.arange(size, dtype=np.int32) for size in sizes]),
        "labels": table["genre"].to_numpy(dtype=str),
    }
    kept_folder().mkdir(parents=True, exist_ok=True)
    with file_written_beside(file) as beside, beside.open("wb") as handle:
        np.savez_compressed(handle, **arrays)
    print(f"{file.name}: {sum(sizes):,} tokens, {time.process_time() - start:.0f} s", flush=True)


def mean_scores(name: str, what: str = "own_512") -> np.ndarray:
    return np.load(kept_folder() / f"{name}_{what}.npz")["scores"].astype(float).mean(0)


def losses(kept: Kept, plans: dict[str, list[int]], documents: int = 8) -> None:
    """Summed loss of each human document without the layers of each plan: what plans that differ by a tie cost."""
    model, tokenizer = kept.loaded
    begin = begin_tokens(tokenizer)
    measured = built_in_text("natural_test").drop_duplicates("title")["text"].str[:1200]
    read = [torch.tensor(bare_tokens(tokenizer, text)) for text in measured[:documents]]
    for plan, layers in plans.items():
        file = kept_folder() / f"{kept.name}_loss_{'-'.join(map(str, sorted(layers)))}.csv"
        if file.exists():
            continue
        view = remove_layers(model, layers)
        found = [token_losses(view, ids, begin=begin) for ids in read]
        table = pd.DataFrame({"plan": plan, "loss": [x.sum().item() for x in found], "tokens": [len(x) for x in found]})
        table.to_csv(file, index=False)
        print(kept.name, plan, layers, table["loss"].sum() / table["tokens"].sum(), flush=True)


def tied_plans(name: str) -> dict[str, list[int]]:
    """The plans of a fifth of the layers that the windows of several lengths choose, by name."""
    depth = len(mean_scores(name))
    found = {}
    for what in ("own_512", *(f"own_{length}_packed" for length in (128, 256, 512, 1024))):
        if (kept_folder() / f"{name}_{what}.npz").exists():
            found[what] = np.argsort(mean_scores(name, what), kind="stable")[: round(depth / 5)].tolist()
    return found


def main(names: Sequence[str]) -> None:
    for name in names:
        kept = Kept(name)
        for how in SCORINGS:
            score(kept, how | ({"tokens": 20_480} if name == LARGE and how["tokens"] > FEW else {}))
        losses(kept, tied_plans(name))
    answers(kept_folder()).to_csv(DATA / "stability.csv", index=False, float_format="%.6g")


if __name__ == "__main__":
    main([] if sys.argv[1:] == ["answers"] else sys.argv[1:] or list(MODELS))
