"""What lesson 05 reads instead of waiting for it: all items of the offline tasks, and choosing against writing.

    python measure/evaluation.py              go on where the files end (about an hour on one core)
    python measure/evaluation.py --restart    begin again

Writes `evaluated.jsonl`, to which `evaluate(..., results=)` adds: the dense default model and the same without its three
and six lowest layers, on every item. And `choice_generation.csv`: the tables of `choice_and_generation` for the same models.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from shortgpt import (
    built_in_text,
    calibration_batches,
    choice_and_generation,
    choose_layers,
    evaluate,
    load,
    remove_layers,
    score_layers,
)

EVALUATED = Path(__file__).parents[1] / "data" / "evaluated.jsonl"
ANSWERED = Path(__file__).parents[1] / "data" / "choice_generation.csv"
COUNTS = (0, 3, 6)
TASKS = ("science", "physical")
LIMIT = 120  # questions a task, each answered twice: paired standard errors of about 4 points


def main() -> None:
    if "--restart" in sys.argv:
        EVALUATED.unlink(missing_ok=True)
        ANSWERED.unlink(missing_ok=True)
    model, tokenizer = load(device="cpu")
    scores = score_layers(
        model, calibration_batches(tokenizer, built_in_text()["text"], samples=8), progress=False
    )  # as in the lesson
    models = {n: remove_layers(model, choose_layers(scores, n=n)) for n in COUNTS}
    for n, pruned in models.items():
        print(n, evaluate(pruned, tokenizer, results=EVALUATED, progress=False), flush=True)
    tables = [pd.read_csv(ANSWERED, keep_default_na=False)] if ANSWERED.exists() else []
    for n, pruned in models.items():
        for task in TASKS:
            if any(((table["removed"] == n) & (table["task"] == task)).any() for table in tables):
                continue
            table = choice_and_generation(pruned, tokenizer, task, limit=LIMIT, progress=False)
            tables.append(table.assign(removed=n))
            pd.concat(tables).to_csv(ANSWERED, index=False)
            print(n, task, flush=True)


if __name__ == "__main__":
    main()
