"""What every criterion chooses for the default model, and how good the result is, with and without repair.

    python measure/choosing.py              go on where choosing.csv ends (about an hour in all on 2 cores)
    python measure/choosing.py --restart    begin again

Writes `chosen.csv`, what each criterion chooses and what that costs, and `choosing.csv`, a row per criterion, seed, number of
layers removed and repair: perplexity on the built-in perplexity part (none of it was read while choosing or repairing), on
English that people wrote (``natural``, see `study.measured_documents`: of another origin than what was chosen and fitted
on) and, at six layers, accuracy on two offline tasks that move. Lesson 06 draws its curves from them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from rows import Rows
from study import MODELS, measured_documents
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt import (
    built_in_text,
    calibration_batches,
    choose_repaired,
    compare_criteria,
    decoder_layers,
    evaluate,
    heal,
    load,
    merge_layers,
    perplexity_table,
    remove_layers,
)
from shortgpt.choosing.criteria import CRITERIA
from shortgpt.course.studies.again import document_losses
from shortgpt.evaluation.likelihood import perplexity_and_error

DEFAULT = MODELS[0]
FILE = Path(__file__).parents[1] / "data" / "choosing.csv"
CHOSEN = Path(__file__).parents[1] / "data" / "chosen.csv"
COUNTS = (3, 6, 9)  # 10, 20 and 30 percent of 30 layers
LIMITS = {"grammar": 120, "last_word": 40}  # items: standard errors of about 3 and 7 points
GENRES = ("encyclopedic", "news", "science", "story")  # of the perplexity part; all nine would take twice the time
SEEDS = (0, 1, 2)
BUDGET = 50  # trials of a search
REPAIRED_BUDGET = 14  # of a search with repair in the loop, which cost several times as much each
TRIAL_TEXT = {"samples": 4, "length": 128}  # for criteria that try; scores and spans read the whole calibration part
REPAIR_TEXT = {"samples": 8}  # of 512 tokens
TRYING = ("leave_one_out", "greedy", "search")
UNREPAIRED = ("random", "sequential", "reverse")  # baselines: far from usable with or without it
NATURAL = ["natural", "natural_error"]  # columns
OURS = built_in_text("calibration")["text"]
KEYS = ["criterion", "seed", "removed", "repair"]


def choose(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
    """What each criterion chooses and what that costs: ``criterion, seed, removed, layers, forward_passes, seconds``."""
    tables = []
    for criteria, text in (
        ([c for c in CRITERIA if c not in TRYING], calibration_batches(tokenizer, OURS)),
        (TRYING, calibration_batches(tokenizer, OURS, **TRIAL_TEXT)),
    ):
        table = compare_criteria(model, text, COUNTS, criteria, len_of, seeds=SEEDS, budget=BUDGET, progress=False)
        tables.append(table[(table["criterion"] == "random") | (table["seed"].fillna(0) == 0)].drop(columns="value"))
        print(tables[-1].to_string(), flush=True)
    text = calibration_batches(tokenizer, OURS, samples=8, length=256, batch_size=2)
    for n in COUNTS:
        plan = choose_repaired(model, text, n, budget=REPAIRED_BUDGET, progress=False)
        row = {
            "criterion": "repaired_search",
            "seed": 0,
            "removed": n,
            "layers": plan.removed,
            "seconds": plan.search["seconds"],
        }
        tables.append(pd.DataFrame([row]))
        print(row, flush=True)
    table = pd.concat(tables, ignore_index=True)
    return table.assign(layers=[json.dumps([int(i) for i in layers]) for layers in table["layers"]])


def len_of(model: PreTrainedModel) -> int:
    return len(decoder_layers(model))


def wanted(chosen: pd.DataFrame) -> Iterator[dict]:
    """Rows to measure, those that matter most first, so that an unfinished file is of use too."""
    yield {"criterion": "dense", "seed": None, "removed": 0, "layers": "[]", "repair": "none"}
    rows = json.loads(chosen.to_json(orient="records"))
    repaired = [row for row in rows if row["criterion"] not in UNREPAIRED and 0 not in json.loads(row["layers"])]
    best = [row for row in repaired if row["criterion"] in ("block_influence", "search", "repaired_search")]
    for n in (6, 3, 9):
        yield from (row | {"repair": "none"} for row in rows if row["removed"] == n)
        yield from (row | {"repair": "fold"} for row in repaired if row["removed"] == n)
    for repair in ("all", "linear", "merge"):
        yield from (row | {"repair": repair} for row in best if row["removed"] == 6)


def changed_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, row: dict) -> PreTrainedModel:
    """What a row of `wanted` is about."""
    layers, repair = json.loads(row["layers"]), row["repair"]
    if repair == "none":
        return remove_layers(model, layers)
    if repair == "merge":
        return merge_layers(model, layers)
    kind, sites = ("fold", "all") if repair == "all" else (repair, "gaps")
    text = calibration_batches(tokenizer, OURS, **REPAIR_TEXT)
    return heal(model, layers, text, kind=kind, sites=sites, progress=False)


def natural(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
    """Perplexity with its standard error on text that people wrote."""
    table = document_losses(model, tokenizer, measured_documents(DEFAULT, "en"))
    value, error = perplexity_and_error(table["loss"] * table["tokens"], table["tokens"])
    return dict(zip(NATURAL, (value, error), strict=True))


def quality(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, tasks: bool = True) -> dict[str, float]:
    """Perplexity with its standard error, of the genres in `GENRES` and of the encyclopedic one; accuracies in percent."""
    documents = built_in_text("perplexity")
    documents = documents[documents["genre"].isin(GENRES)]
    by_genre = perplexity_table(model, tokenizer, documents, by="genre").set_index("genre")
    loss, tokens = np.log(by_genre["perplexity"]), by_genre["tokens"]
    mean = float(np.exp((loss * tokens).sum() / tokens.sum()))
    # of the mean over genres: the errors of the genres' losses, weighted by their tokens
    errors = by_genre["standard_error"] / by_genre["perplexity"] * tokens / tokens.sum()
    row = {"perplexity": mean, "perplexity_error": mean * float(np.sqrt((errors**2).sum()))}
    encyclopedic = by_genre.loc["encyclopedic"]
    row |= {"encyclopedic": encyclopedic["perplexity"], "encyclopedic_error": encyclopedic["standard_error"]}
    for task, limit in LIMITS.items() if tasks else ():
        result = evaluate(model, tokenizer, [task], limit=limit).iloc[0]
        row |= {task: result["value"], f"{task}_error": result["standard_error"]}
    return row | natural(model, tokenizer)


def main() -> None:
    if "--restart" in sys.argv:
        FILE.unlink(missing_ok=True)
        CHOSEN.unlink(missing_ok=True)
    model, tokenizer = load(device="cpu")
    if not CHOSEN.exists():
        choose(model, tokenizer).to_csv(CHOSEN, index=False, float_format="%.6g")
    rows = Rows(FILE, KEYS)
    for row in wanted(pd.read_csv(CHOSEN)):
        make = partial(changed_model, model, tokenizer, row)
        if row not in rows:
            rows.add(row | quality(make(), tokenizer, tasks=row["removed"] in (0, 6)))
        elif not rows.complete(row, NATURAL, lambda make=make: natural(make(), tokenizer)):
            continue
        print({name: row.get(name) for name in (*KEYS, "layers")}, flush=True)


if __name__ == "__main__":
    main()
