"""The bench of repairs without training: the published ones and ours, on three real models, by plan and share of the layers.

    python measure/repairs.py [MODEL …]        go on where the file ends; see `hours` for how long
    python measure/repairs.py --plans          choose the layers that no stored study chose, and stop
    python measure/repairs.py --left           say how many rows are missing and how long they will take, and stop

Needs `removal_orders.csv` and `removal_texts.csv` (see `measure/removal_curves.py`). Repairs are fitted on human-written text
(part ``natural``) and measured on other sources (``natural_test``), the documents of `removal_curves.csv`, so that any two
models are compared document by document. Writes `repair_plans.csv`, the layers of each model, share and plan, and
`repairs.csv`, a row per model, share, plan and repair: the loss of every document (a JSON list, nats a token; empty with the
reason in ``why`` where a repair has no form for the model), seconds of the repair, bytes that it adds, whether the result is
an ordinary checkpoint, and at a quarter of the layers accuracy on two tasks. `repair_bench()` in
`shortgpt.course.studies.bench` makes a tidy table of them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import pandas as pd
import torch
from rows import Rows
from study import DATA, LARGE, asked, batches_of, load_model, measured_documents
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt import (
    calibration_batches,
    choose_layers,
    decoder_layers,
    evaluate,
    heal,
    remove_layers,
    sampled_text,
    size,
)
from shortgpt.course.studies.again import document_losses
from shortgpt.course.studies.logit_refit import refit_on_logits
from shortgpt.course.studies.published_repairs import METHODS
from shortgpt.course.studies.submodules import heal_paired, subfit
from shortgpt.pruning.recipe import RECIPE

PLANS = Rows(DATA / "repair_plans.csv", ["model", "share", "plan"])
REPAIRS = Rows(DATA / "repairs.csv", ["model", "share", "plan", "repair"])
SHARES = (0.25, 0.125, 0.375)  # that which matters most first
CRITERIA = {"block_influence": "block_influence", "span": "angular_span_all_tokens", "greedy": "greedy"}  # plans
FIT_TEXT = {"samples": 80, "length": 256}
LOGIT_TEXT = {"samples": 8, "length": 256}
OWN_TEXT = {"samples": 80, "length": 256}
TASKS = {"last_word": 120, "science": 120}
ASKED = ("dense", "none", "ghosted_layers", "linear", "fold", "fold_all", "fold_both_all", "subfit", "paired", "logits")
BRANCHES = ("subfit", "paired")  # these choose for themselves
OURS = {
    "linear": {"kind": "linear"},
    "fold": {},
    "fold_both": {"kind": "fold_both"},
    "fold_all": {"sites": "all"},
    "fold_both_all": {"kind": "fold_both", "sites": "all"},
}
RICHER = ("own_text", "logits")  # at a quarter of the layers only
# of the large model, where a fit of 8,960 inputs takes minutes a layer: at other shares, and of one plan only
LARGE_FEW = ("none", *METHODS, "linear", "fold")
ALL_SITES = ("fold_all", "fold_both_all", *RICHER)
LARGE_PLAN = "greedy"


class Bench:
    """One model with the text that repairs read, each built when it is first needed."""

    def __init__(self, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.name, self.model, self.tokenizer = name, model, tokenizer
        self.text = batches_of(tokenizer, "en", **FIT_TEXT)
        self._own: list[Any] = []

    def own_text(self) -> list[Any]:
        """What the model itself writes, as much as it reads otherwise."""
        if not self._own:
            written = sampled_text(self.model, self.tokenizer, **OWN_TEXT, progress=False)
            self._own = calibration_batches(self.tokenizer, written, length=OWN_TEXT["length"])
        return self._own

    def repaired(self, repair: str, layers: list[int], n: int) -> PreTrainedModel:
        """The model without `layers` (or, for branches, without n of each kind), repaired."""
        quiet = partial(heal, self.model, layers, progress=False)
        ways: dict[str, Callable[[], PreTrainedModel]] = {
            "dense": lambda: self.model,
            "none": lambda: remove_layers(self.model, layers),
            **{name: partial(method, self.model, layers, self.text) for name, method in METHODS.items()},
            **{name: partial(quiet, batches=self.text, **settings) for name, settings in OURS.items()},
            "subfit": lambda: subfit(self.model, n, self.text),
            "paired": lambda: heal_paired(self.model, n, self.text),
            "own_text": lambda: quiet(batches=self.own_text(), sites="all"),
            "logits": lambda: self._on_logits(quiet(batches=self.text, sites="all")),
        }
        return ways[repair]()

    def _on_logits(self, healed: PreTrainedModel) -> PreTrainedModel:
        return refit_on_logits(self.model, healed, batches_of(self.tokenizer, "en", **LOGIT_TEXT))[0]


def wanted(name: str, depth: int) -> Iterator[dict]:
    """The rows of one model, those that matter most first, without their layers."""
    yield {"model": name, "share": 0.0, "plan": "none", "repair": "dense", "removed": 0}
    for share in SHARES:
        main, large = share == SHARES[0], name == LARGE
        repairs = LARGE_FEW if large and not main else ("none", *METHODS, *OURS, *(RICHER if main else ()))
        rest = {"model": name, "share": share, "removed": round(share * depth)}
        yield from (
            rest | {"plan": plan, "repair": repair}
            for repair in repairs
            for plan in CRITERIA
            if not (large and repair in ALL_SITES and plan != LARGE_PLAN)
        )
        yield from (rest | {"plan": "branches", "repair": repair} for repair in BRANCHES if main or not large)


def layers_of(bench: Bench, row: dict) -> list[int]:
    """The layers of a plan, from the stored orders or chosen now as these were."""
    key = {"model": row["model"], "share": row["share"], "plan": row["plan"]}
    if key not in PLANS:
        PLANS.add(key | {"removed": row["removed"], "layers": json.dumps(choose(bench, row["plan"], row["removed"]))})
    return json.loads(next(each["layers"] for each in PLANS.rows if all(each[k] == key[k] for k in key)))


def choose(bench: Bench, plan: str, n: int) -> list[int]:
    orders = pd.read_csv(DATA / "removal_orders.csv").query("model == @bench.name and text == 'en'")
    orders = orders[orders["criterion"] == CRITERIA[plan]].sort_values("removed")
    stored = orders[orders["removed"] == n]
    if len(stored):
        return json.loads(stored["layers"].iloc[0])
    before: list[int] = []
    if plan == "greedy" and (fewer := orders[orders["removed"] < n]).size:  # go on where the stored one ends
        before = json.loads(fewer["layers"].iloc[-1])
    text = batches_of(bench.tokenizer, "en", **({"samples": 8} if plan == "greedy" else {}))
    cut = remove_layers(bench.model, before)
    return sorted(choose_layers(cut, batches=text, n=n - len(before), by=CRITERIA[plan], progress=False).removed)


def measure(bench: Bench, row: dict) -> dict[str, Any]:
    """The columns to add to a row of `wanted`; ``why`` is the refusal where a repair has no form for this model."""
    whole = row["plan"] in ("none", "branches")
    layers, start = [] if whole else layers_of(bench, row), time.perf_counter()
    found: dict[str, Any] = {"layers": json.dumps(layers)}
    try:
        changed = bench.repaired(row["repair"], layers, row["removed"])
    except ValueError as error:
        return found | {"why": str(error)}
    found["seconds"] = round(time.perf_counter() - start, 1)
    cut = bench.model if whole else remove_layers(bench.model, layers)
    added = 0 if row["repair"] in ("dense", "paired") else _added_bytes(changed, cut)
    found |= {"added_bytes": added, "ordinary": getattr(changed, RECIPE, None) is None}
    torch.set_float32_matmul_precision("medium")  # as `removal_curves.csv` was measured
    losses = document_losses(changed, bench.tokenizer, measured_documents(bench.name, "en"))["loss"]
    torch.set_float32_matmul_precision("highest")
    found["en"] = json.dumps(losses.round(4).tolist())
    if row["share"] in (0.0, SHARES[0]) and row["repair"] in ASKED:
        for task, limit in TASKS.items():
            result = evaluate(changed, bench.tokenizer, [task], limit=limit, progress=False).iloc[0]
            found |= {task: result["value"], f"{task}_error": result["standard_error"]}
    return found


def _added_bytes(changed: PreTrainedModel, cut: PreTrainedModel) -> int:
    """What a repair adds to the model without these layers; of branches, the maps in their place."""
    bypasses = [b for m in changed.modules() if type(m).__name__ == "Bypass" for b in m.buffers()]
    if bypasses:
        return sum(b.numel() * b.element_size() for b in {id(b): b for b in bypasses}.values())
    return size(changed)["memory_bytes"] - size(cut)["memory_bytes"]


def hours(rows: list[dict]) -> float:
    """How long these rows will take, from the same repair or else any row of that model; NaN where there is none yet."""
    told = 0.0
    for row in rows:
        here = [each for each in REPAIRS.rows if each["model"] == row["model"] and each.get("whole_seconds")]
        same = [each for each in here if each["repair"] == row["repair"]] or here
        told += median(each["whole_seconds"] for each in same) if same else float("nan")
    return told / 3600


def main() -> None:
    for name in asked():
        model, tokenizer = load_model(name)
        bench = Bench(name, model, tokenizer)
        rows = [row for row in wanted(name, len(decoder_layers(model))) if row not in REPAIRS]
        if "--left" in sys.argv:
            print(f"{name}: {len(rows)} rows, {hours(rows):.1f} hours")
            continue
        for place, row in enumerate(rows):
            if "--plans" in sys.argv:
                if row["plan"] in CRITERIA:
                    print(name, row["share"], row["plan"], layers_of(bench, row), flush=True)
                continue
            start = time.perf_counter()
            found = measure(bench, row)
            REPAIRS.add(row | found | {"whole_seconds": round(time.perf_counter() - start, 1)})
            said = (
                f"{found['why']}"
                if "why" in found
                else f"{sum(json.loads(found['en'])) / len(json.loads(found['en'])):.3f}"
            )
            print(*row.values(), said, f"({hours(rows[place + 1 :]):.1f} hours left)", flush=True)


if __name__ == "__main__":
    main()
