"""Why generation dies: which step of a sum, a bracket or a verb fails without some layers, and where what it needs is lost.

    python measure/twin_steps.py [NAME …]      go on where the files end; needs what measure/twins.py chose

A minute or two a twin on one core. Writes in `data/twins/`: `steps.csv`, right tokens by step, whole, cut and repaired;
`steps_restored.csv`, which state of the whole twin, put back, makes a lost answer right (`patching.restored`); and
`steps_lens.csv`, at which depth the right token is the likeliest (`patching.readable`), whole and cut.
"""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import twins
from rows import Rows
from twin_kinds import quick

from shortgpt import decoder_layers
from shortgpt.course.studies.controlled import controlled_accuracy, controlled_items
from shortgpt.course.studies.patching import cases, readable, restored
from shortgpt.course.studies.steps import accuracy_by_step
from shortgpt.repair.fitting import Sample

DATA = twins.DATA
ITEMS = 100  # of each task
CHOICES = [("block_influence", 8), ("block_influence", 4), ("greedy", 4)]  # one layer in so many goes
KEYS = ["name", "criterion", "removed"]
STEPS, RESTORED, LENS = (Rows(DATA / f"{part}.csv", KEYS) for part in ("steps", "steps_restored", "steps_lens"))


def sets(name: str, depth: int) -> list[dict[str, Any]]:
    """The sets of layers to look at: of no layer, and what `measure/twins.py` found."""
    kept = [{"criterion": "dense", "removed": 0, "layers": []}]
    for criterion, part in CHOICES:
        for row in twins.REMOVAL.rows:
            if (row["name"], row["criterion"], row["removed"]) == (name, criterion, depth // part) and not row[
                "repaired"
            ]:
                kept.append({"criterion": criterion, "removed": depth // part, "layers": json.loads(row["layers"])})
    return kept


def study(name: str) -> None:
    """Append what is found of one twin."""
    found = twins.loaded(name)
    if found is None:
        return
    model, tokenizer = found
    _, kind, seed = twins.parts(name)
    items = controlled_items(most=ITEMS)
    asked = cases(tokenizer, items)
    samples: list[Sample] = []
    for chosen in sets(name, len(decoder_layers(model))):
        named = {"name": name, "kind": kind, "seed": seed} | {key: chosen[key] for key in ("criterion", "removed")}
        if named in STEPS:
            continue
        layers = chosen["layers"]
        cut = twins.without(model, layers, [])
        tables = [(False, accuracy_by_step(controlled_accuracy(cut, tokenizer, items), items))]
        if layers and 0 not in layers:
            depths = range(len(decoder_layers(model)) + 1)
            samples = samples or [Sample(model, batch, depths) for batch in twins.texts(name, tokenizer)[0]]
            healed = twins.without(model, layers, samples)
            tables.append((True, accuracy_by_step(controlled_accuracy(healed, tokenizer, items), items)))
        _add(LENS, readable(cut, asked), named)
        if layers:
            _add(RESTORED, restored(model, cut, asked), named)
        _add(STEPS, pd.concat([table.assign(repaired=repaired) for repaired, table in tables]), named)  # the last: done
        print(name, chosen["criterion"], chosen["removed"], flush=True)


def _add(rows: Rows, table: pd.DataFrame, named: dict[str, Any]) -> None:
    """Append, in place of what an interrupted run left."""
    if table.empty:  # nothing was lost
        return
    rows.rows = [row for row in rows.rows if any(row[key] != named[key] for key in KEYS)]
    rows.add(*json.loads(table.assign(**named)[[*named, *table]].to_json(orient="records")))


def main() -> None:
    for name in twins.twins():
        with quick():
            study(name)


if __name__ == "__main__":
    main()
