"""How far repair goes when it gets more text: the plan that was chosen with repair in the loop, on ever more tokens.

    python measure/repair.py              go on where repair.csv ends (about half an hour in all on 2 cores)
    python measure/repair.py --restart    begin again

Needs `chosen.csv` (see `measure/choosing.py`). Writes `repair.csv`: the dense model, the one without six layers, and a row
per number of tokens that its repair reads and per choice of places, with perplexity on the built-in perplexity part (which no
repair has read) and on English that people wrote; of the first two and of the two best-repaired ones also accuracy on four
offline tasks. Repairs fit our own text, some of them text that people wrote (of other sources). For lesson 06.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from choosing import CHOSEN, NATURAL, natural, quality
from rows import Rows
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt import built_in_text, calibration_batches, evaluate, heal, load, remove_layers
from shortgpt.model.text import Batch

FILE = Path(__file__).parents[1] / "data" / "repair.csv"
LENGTH = 512
SAMPLES = (4, 8, 16, 32, 64, None)  # of 512 tokens; None: all there is
TASKS = {"grammar": 480, "last_word": 252, "physical": 260, "science": 280}  # items: all there are
NATURAL_SAMPLES = (8, 32)  # the same from text that people wrote
KEYS = ["removed", "samples", "sites", "text"]


def wanted() -> Iterator[dict]:
    """What to measure: ``removed, layers, samples, sites, text``; 0 samples stand for the cut model, not repaired."""
    chosen = pd.read_csv(CHOSEN).query("criterion == 'repaired_search'").set_index("removed")["layers"]
    yield {"removed": 0, "layers": "[]", "samples": 0, "sites": "none", "text": "ours"}
    six = {"removed": 6, "layers": chosen[6], "text": "ours"}
    yield six | {"samples": 0, "sites": "none"}
    for samples in SAMPLES:
        for sites in ("gaps", "all"):
            yield six | {"samples": samples, "sites": sites}
    for samples in NATURAL_SAMPLES:
        for sites in ("gaps", "all"):
            yield six | {"samples": samples, "sites": sites, "text": "people"}


def text_of(tokenizer: PreTrainedTokenizerBase, row: dict) -> list[Batch]:
    """What a repair reads: our own text, or of people's the beginnings of documents."""
    if row["text"] == "ours":
        documents = [*built_in_text("calibration")["text"], *built_in_text("repair")["text"]]
        return calibration_batches(tokenizer, documents, samples=row["samples"], length=LENGTH)
    return calibration_batches(
        tokenizer, built_in_text("natural")["text"], samples=row["samples"], length=LENGTH, spread=True
    )


def changed_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, row: dict) -> tuple[PreTrainedModel, int]:
    """What a row of `wanted` is about, and how many tokens its repair read."""
    layers = json.loads(row["layers"])
    if row["sites"] == "none":
        return remove_layers(model, layers), 0
    batches = text_of(tokenizer, row)
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    return heal(model, layers, batches, sites=row["sites"], progress=False), tokens


def measure(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, row: dict) -> dict[str, float]:
    """The columns to add to a row of `wanted`."""
    start, samples = time.perf_counter(), row["samples"]
    changed, tokens = changed_model(model, tokenizer, row)
    found = {"tokens": tokens, "seconds": time.perf_counter() - start} | quality(changed, tokenizer, tasks=False)
    if samples in (0, None):
        for task, limit in TASKS.items():
            result = evaluate(changed, tokenizer, [task], limit=limit).iloc[0]
            found |= {
                task: result["value"],
                f"{task}_error": result["standard_error"],
                f"{task}_chance": result["chance"],
            }
    return found


def main() -> None:
    if "--restart" in sys.argv:
        FILE.unlink(missing_ok=True)
    rows, (model, tokenizer) = Rows(FILE, KEYS), load(device="cpu")
    for row in wanted():
        if row not in rows:
            rows.add(row | measure(model, tokenizer, row))
        elif not rows.complete(
            row, NATURAL, lambda row=row: natural(changed_model(model, tokenizer, row)[0], tokenizer)
        ):
            continue
        print(row, flush=True)


if __name__ == "__main__":
    main()
