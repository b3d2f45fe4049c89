"""What a choice of layers hangs on, and how many tokens it takes: writes data/stability.csv and prints its answers.

python measure/stability.py               go on where build/stability/ ends
python measure/stability.py default       only one model: default, gemma-3-270m or qwen2.5-coder-1.5b
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
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt import built_in_text, load, watch_layers
from shortgpt.model.hooks import by_token, run_backbone
from shortgpt.model.tokens import bare_tokens, begin_tokens
from shortgpt.scoring.influence import block_influence
from shortgpt.utils.atomic import file_written_beside

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "build" / "stability"  # the influence of every token, a file for each scoring
MODELS = {
    "default": ("smollm2-135m-instruct", torch.float32),
    "gemma-3-270m": ("/root/.cache/shortgpt/gemma-3-270m", torch.float32),
    "qwen2.5-coder-1.5b": ("/work/qwen/model", torch.bfloat16),
}
BATCH = 2048  # tokens


@torch.inference_mode()
def token_scores(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> Iterator[np.ndarray]:
    """Block Influence of each token, float32 ``[tokens, layers]``, for each of `rows`."""
    start = 0
    while start < len(rows):
        size = len(rows[start])
        end = start + 1
        while end < len(rows) and len(rows[end]) == size and (end + 1 - start) * size <= BATCH:
            end += 1
        ids = torch.tensor(rows[start:end])
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        found: dict[int, torch.Tensor] = {}

        def keep(layer: int, x_in: torch.Tensor, x_out: torch.Tensor, mask=ids, found=found) -> None:
            found[layer] = block_influence(by_token(x_in, mask), by_token(x_out, mask)).float().cpu()

        with watch_layers(model, keep):
            run_backbone(model, batch)
        yield from torch.stack([found[i] for i in sorted(found)], -1).numpy()
        start = end


def windows(
    tokenizer: PreTrainedTokenizerBase, documents: Sequence[str], length: int, *, packed: bool, bos: bool | None
) -> Iterator[tuple[list[int], list[int]]]:
    """Rows of token ids, and the document of each token: packed as `calibration_batches` does it, or cut at document ends."""
    begin = begin_tokens(tokenizer, bos)
    between = begin or bare_tokens(tokenizer, "\n\n")
    row, owner = [*begin], [0] * len(begin)
    for number, document in enumerate(documents):
        ids = bare_tokens(tokenizer, document)
        if begin and ids[: len(begin)] == begin:
            ids = ids[len(begin) :]
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


def scoring(
    name: str, text: str, documents: Sequence[str], labels: Sequence[str], kept: dict[str, Any], **how: Any
) -> Path:
    """Score once and keep: ``scores [tokens, layers], document, window, position [tokens], labels [documents], seconds``."""
    packed, bos, most = how.get("packed", False), how.get("bos"), how.get("tokens", 10**9)
    file = (
        KEPT
        / f"{name}_{text}_{how['length']}{'_packed' if packed else ''}{'' if bos is None else f'_bos{int(bos)}'}.npz"
    )
    if file.exists():
        return file
    if "model" not in kept:
        where, dtype = MODELS[name]
        kept["model"], kept["tokenizer"] = load(where, device="cpu", dtype=dtype)
    rows, owners, total = [], [], 0
    for row, owner in windows(kept["tokenizer"], documents, how["length"], packed=packed, bos=bos):
        if total + len(row) > most:
            break
        rows.append(row)
        owners.append(owner)
        total += len(row)
    start = time.process_time()
    scores = np.concatenate(list(token_scores(kept["model"], rows)))
    seconds = time.process_time() - start
    arrays = {
        "scores": scores,
        "document": np.concatenate(owners).astype(np.int32),
        "window": np.repeat(np.arange(len(rows), dtype=np.int32), [len(row) for row in rows]),
        "position": np.concatenate([np.arange(len(row), dtype=np.int32) for row in rows]),
        "ids": np.concatenate(rows).astype(np.int32),
        "labels": np.array(labels),
        "seconds": np.array(seconds),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    with file_written_beside(file) as beside, beside.open("wb") as handle:
        np.savez_compressed(handle, **arrays)
    print(f"{file.name}: {total:,} tokens, {seconds:.0f} s", flush=True)
    return file


def own_text() -> pd.DataFrame:
    """Calibration and repair documents, in one shuffled order."""
    table = pd.concat([built_in_text("calibration"), built_in_text("repair")], ignore_index=True)
    return table.iloc[np.random.default_rng(0).permutation(len(table))].reset_index(drop=True)


if __name__ == "__main__":
    for name in sys.argv[1:] or MODELS:
        own = own_text()
        kept: dict[str, Any] = {}
        scoring(name, "own", own["text"].tolist(), own["genre"].tolist(), kept, length=512)
