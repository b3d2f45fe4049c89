"""Every twin without some of its layers: what goes, what that costs, and what a repair brings back.

    python measure/twins.py [--all] [NAME …]      go on where the files end; without a name all twins that are on this machine

Block Influence and relative magnitude remove 1 to half of the layers, the other criteria a quarter; a quarter is repaired as
well. With `--all` every criterion removes 1 to half of the layers, and every set is repaired. On two busy cores with AVX2 a
twin took 5 minutes, Mamba 27; with `--all` about five times as many sets.
Writes in `data/twins/`: `layers.csv`, a row a twin and layer (scores, growth of the states, the loss without that layer, of
the last layer also without its attention or its FFN); and `removal.csv`, a row a twin, set of layers and repair: loss on text
that was kept from training, and accuracy on the controlled tasks.
The text is `calibration.jsonl` (of the training text: layers are chosen and repairs fitted on it) and `validation.jsonl`; for
the practised twins, which have forgotten such text, `practice.jsonl` and `practice_test.jsonl`, both of what they have read
(the items of the controlled tasks are new to all twins).
All are taken from `build/twins/` once, where `measure/twin_text.py` writes them, and kept, so that numbers can be checked.
"""

from __future__ import annotations

import json
import sys
import time
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rows import Rows
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from twin_kinds import quick

from shortgpt import (
    calibration_batches,
    compare_criteria,
    decoder_layers,
    load,
    remove_layers,
    remove_sublayers,
    score_layers,
)
from shortgpt.checkpoints.twins import KINDS
from shortgpt.choosing.search import leave_one_out
from shortgpt.choosing.trials import Trials, loss_sum
from shortgpt.course.studies.controlled import accuracy_by_task, controlled_accuracy, controlled_items
from shortgpt.course.studies.growth import state_growth
from shortgpt.model.hooks import logits_of
from shortgpt.repair.fitting import Sample
from shortgpt.repair.healing import repair
from shortgpt.utils.atomic import file_written_beside

DATA = Path(__file__).parents[1] / "data" / "twins"
SEEDS, DRAWS = (0, 1, 2), range(5)
WINDOW, ITEMS = 256, 100  # tokens of a window; items of each task
TOKENS = 20_000  # that are kept of each text
SOURCES = {"calibration": "train", "validation": "validation", "practice": "practice", "practice_test": "practice"}
CHUNK = 16  # tokens that Mamba-2 computes at once: the same sums, and short texts need no long chunk
GREEDY_WINDOWS = 8  # greedy reads hundreds of times, so little
CURVES = ("block_influence", "relative_magnitude")  # these remove 1 to half of the layers
REPAIRED = ("block_influence", "greedy")  # where a quarter is repaired
EVERY_SET = "--all"
CRITERIA = ("block_influence", "relative_magnitude", "reverse", "greedy", "random")
LAYERS = Rows(DATA / "layers.csv", ["name", "layer"])
REMOVAL = Rows(DATA / "removal.csv", ["name", "criterion", "draw", "removed", "repaired"])
Batches = list[dict[str, Tensor]]


def twins() -> list[str]:
    """The twins named on the command line, or all names that there can be."""
    every = [f"twin-{kind}-{seed}" for seed in SEEDS for kind in KINDS]
    names = [word for word in sys.argv[1:] if word != EVERY_SET] or every
    unknown = set(names) - set(every)
    if unknown:
        sys.exit(f"unknown twin {sorted(unknown)[0]}: name some of {', '.join(every)}, or none for all")
    return names


def loaded(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase] | None:
    """The twin in float32 on the CPU, if it is on this machine."""
    try:
        model, tokenizer = load(name, device="cpu", dtype=torch.float32)
    except FileNotFoundError as error:
        print(f"{name}: left out ({error})", flush=True)
        return None
    for part in (*model.modules(), model.config):
        if hasattr(part, "chunk_size"):
            part.chunk_size = CHUNK
    return model, tokenizer


def texts(name: str, tokenizer: PreTrainedTokenizerBase) -> tuple[Batches, Batches]:
    """Windows of the text to choose and to fit on, and of the text to measure on."""
    both = ("practice", "practice_test") if parts(name)[1] == "practised" else ("calibration", "validation")
    return text_of(both[0], tokenizer), text_of(both[1], tokenizer)


@cache
def text_of(part: str, tokenizer: PreTrainedTokenizerBase) -> Batches:
    """Windows of one of the kept texts (`SOURCES`), taken from `build/twins/` if it isn't there yet."""
    file = DATA / f"{part}.jsonl"
    if not file.exists():
        ids = np.load(DATA.parents[1] / "build" / "twins" / f"{SOURCES[part]}.npy", mmap_mode="r")
        some = np.asarray(ids[-100 * TOKENS :] if part == "practice_test" else ids[: 100 * TOKENS])
        starts = np.flatnonzero(some == tokenizer.bos_token_id)
        documents, size = [], 0
        for begin, end in pairwise(starts):  # each with its beginning only, so that many are read
            kept = some[begin + 1 : min(end, begin + 4 * WINDOW)]
            documents.append(tokenizer.decode(kept))
            size += len(kept)
            if size > TOKENS + WINDOW:
                break
        with file_written_beside(file) as beside:
            beside.write_text("".join(json.dumps({"text": d}, ensure_ascii=False) + "\n" for d in documents), "utf-8")
    return list(calibration_batches(tokenizer, file, length=WINDOW, batch_size=16))


def describe(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Append the rows of a twin to `layers.csv`."""
    last = len(decoder_layers(model)) - 1
    if {"name": name, "layer": last} in LAYERS:
        return
    calibration, validation = texts(name, tokenizer)
    table = state_growth(model, calibration)
    for metric in ("block_influence", "relative_magnitude"):
        table[metric] = score_layers(model, calibration, metric=metric, progress=False).values
    trials = Trials(model, validation)
    table["dense_loss"], table["loss"] = trials([]), leave_one_out(trials, progress=False)
    for branch in ("attention", "ffn"):
        try:
            without = remove_sublayers(model, **{branch: [last]})
            table.loc[last, f"loss_{branch}"] = Trials(without, validation)([])
        except ValueError:  # a layer of one branch, or one that does more than add the two
            table.loc[last, f"loss_{branch}"] = np.nan
    _, kind, seed = parts(name)
    LAYERS.add(*json.loads(table.assign(name=name, kind=kind, seed=seed).to_json(orient="records")))


def chosen(model: PreTrainedModel, batches: Batches, criterion: str) -> pd.DataFrame:
    """What a criterion removes, by number of layers: ``draw, removed, layers``."""
    depth = len(decoder_layers(model))
    step, quarter = max(1, depth // 16), depth // 4
    counts = range(step, depth // 2 + 1, step) if EVERY_SET in sys.argv or criterion in CURVES else [quarter]
    if criterion == "greedy":
        batches = [{key: rows[:GREEDY_WINDOWS] for key, rows in batches[0].items()}]
    left = lambda pruned: len(decoder_layers(pruned))  # noqa: E731
    table = compare_criteria(model, batches, counts, [criterion], left, seeds=DRAWS, progress=False)
    return table.assign(draw=table["seed"].fillna(0).astype(int), layers=table["layers"].map(sorted))


def measured(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, validation: Batches) -> dict[str, float]:
    """Loss on the validation text, and percent right on the controlled tasks, of a model as it is."""
    table = accuracy_by_task(controlled_accuracy(model, tokenizer, controlled_items(most=ITEMS))).set_index("task")
    whole = {f"{task}_whole": table.at[task, "answers_right"] for task in ("addition", "brackets")}
    return {"loss": loss(model, validation)} | table["tokens_right"].to_dict() | whole


@torch.inference_mode()
def loss(model: PreTrainedModel, batches: Batches) -> float:
    """Nats a token, mean over all windows."""
    tokens = sum(batch["input_ids"][:, 1:].numel() for batch in batches)
    return sum(loss_sum(model, batch, logits_of(model, batch)) for batch in batches) / tokens


def remove(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Append what each criterion removes, cut and repaired, to `removal.csv`."""
    start, depth = time.perf_counter(), len(decoder_layers(model))
    _, kind, seed = parts(name)
    named: dict[str, Any] = {"name": name, "kind": kind, "seed": seed, "depth": depth}
    calibration, validation = texts(name, tokenizer)
    dense = {"criterion": "dense", "draw": 0, "removed": 0, "repaired": False}
    if named | dense not in REMOVAL:
        REMOVAL.add(named | dense | {"layers": "[]"} | measured(model, tokenizer, validation))
    samples = [Sample(model, batch, range(depth + 1)) for batch in calibration]
    known: dict[tuple[str, bool], dict[str, float]] = {}  # several criteria often choose the same layers
    for criterion in CRITERIA:
        sets = chosen(model, calibration, criterion)
        for row in tqdm(sets.itertuples(), total=len(sets), desc=f"{name} {criterion}", unit="set"):
            for repaired in (False, True):
                key = {"criterion": criterion, "draw": row.draw, "removed": row.removed, "repaired": repaired}
                if named | key in REMOVAL or (repaired and not worth_repairing(row, depth)):
                    continue
                layers = json.dumps(row.layers)
                if (layers, repaired) not in known:
                    smaller = without(model, row.layers, samples if repaired else [])
                    known[layers, repaired] = measured(smaller, tokenizer, validation)
                REMOVAL.add(named | key | {"layers": layers} | known[layers, repaired])
    print(name, f"{time.perf_counter() - start:.0f} s", flush=True)


def worth_repairing(row: Any, depth: int) -> bool:
    """Before layer 0 nothing can be fitted; of the many random sets only those of the central table are repaired."""
    quarter = row.removed == depth // 4
    every = EVERY_SET in sys.argv and row.criterion != "random"
    return 0 not in row.layers and (every or (quarter and (row.criterion in REPAIRED or EVERY_SET in sys.argv)))


def without(model: PreTrainedModel, layers: list[int], samples: list[Sample]) -> PreTrainedModel:
    """`model` without `layers`; with `samples`, repaired by a linear map on the state before each gap.

    That is the one repair that fits all kinds: the other is folded into an FFN whose output is simply added.
    """
    pruned = remove_layers(model, layers)
    return repair(model, pruned, samples, kind="linear", progress=False) if samples else pruned


def parts(name: str) -> tuple[str, str, int]:
    kind, seed = name.removeprefix("twin-").rsplit("-", 1)
    return name, kind, int(seed)


def main() -> None:
    for name in twins():
        found = loaded(name)
        if found is not None:
            with quick():
                describe(name, *found)
                remove(name, *found)


if __name__ == "__main__":
    main()
