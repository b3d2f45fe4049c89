"""How far repair goes when it gets more text: the plan that was chosen with repair in the loop, on ever more tokens.

    python measure/repair.py              go on where repair.csv ends (about half an hour in all on 2 cores)
    python measure/repair.py --restart    begin again

Needs `chosen.csv` (see `measure/choosing.py`). Writes `repair.csv`: the dense model, the one without six layers, and a row
per number of tokens that its repair reads and per choice of places, with perplexity on the built-in perplexity part (which no
repair has read); of the first two and of the two best-repaired ones also accuracy on four offline tasks. For lesson 06.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from choosing import CHOSEN, quality
from rows import Rows
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt import built_in_text, calibration_batches, evaluate, heal, load, remove_layers

FILE = Path(__file__).parents[1] / "data" / "repair.csv"
LENGTH = 512
SAMPLES = (4, 8, 16, 32, 64, None)  # of 512 tokens; None: all there is
TASKS = {"grammar": 480, "last_word": 252, "physical": 260, "science": 280}  # items: all there are
KEYS = ["removed", "samples", "sites"]


def wanted() -> Iterator[dict]:
    """What to measure: ``removed, layers, samples, sites``; 0 samples stand for the cut model, not repaired."""
    chosen = pd.read_csv(CHOSEN).query("criterion == 'repaired_search'").set_index("removed")["layers"]
    yield {"removed": 0, "layers": "[]", "samples": 0, "sites": "none"}
    six = {"removed": 6, "layers": chosen[6]}
    yield six | {"samples": 0, "sites": "none"}
    for samples in SAMPLES:
        for sites in ("gaps", "all"):
            yield six | {"samples": samples, "sites": sites}


def measure(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, row: dict) -> dict[str, float]:
    """The columns to add to a row of `wanted`."""
    layers, samples, tokens, start = json.loads(row["layers"]), row["samples"], 0, time.perf_counter()
    if row["sites"] == "none":
        changed = remove_layers(model, layers)
    else:
        documents = [*built_in_text("calibration")["text"], *built_in_text("repair")["text"]]
        batches = calibration_batches(tokenizer, documents, samples=samples, length=LENGTH)
        tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
        changed = heal(model, layers, batches, sites=row["sites"], progress=False)
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
            print(rows.rows[-1], flush=True)


if __name__ == "__main__":
    main()
