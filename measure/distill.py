"""Healing by training: how much of what six of thirty layers were worth comes back, and after how many tokens.

    python measure/distill.py                        go on where distilled.csv ends, on the CPU
    python measure/distill.py --most 1e6             only rows of up to so many tokens
    python measure/distill.py --gpu --minutes 9 --out FOLDER    on a GPU: a row after the other, those that fit the time
    python measure/distill.py --merge FOLDER         take over the rows that another machine wrote (FOLDER/distilled.csv)

Default model without the six layers that the repaired search takes (`chosen.csv`). Each row starts from the cut or from the
folded model (``fold``, 66,560 tokens of our own text, as in `repair.csv`), and trains all weights or adapters (LoRA, rank
16), on text that the teacher writes or on ``natural`` (text by people). Measured on ``natural_test`` (other sources;
`study.measured_documents`): loss a document, so that the difference from the dense model has a paired standard error; and
four offline tasks, where lm_eval is installed. Writes `data/distilled.csv`, a row a model, and `data/distilled_history.csv`,
what was measured on the way. The state of a row that was stopped is in ``~/.cache/shortgpt/distill``: the same line goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import torch
from rows import Rows
from study import DATA, MODELS, measured_documents
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt import built_in_text, calibration_batches, distill, evaluate, heal, load, remove_layers
from shortgpt.course.studies.again import document_losses
from shortgpt.evaluation.likelihood import mean_and_error
from shortgpt.repair.reading import MOST_WRITTEN, TEXT_FILE

FILE, HISTORY = "distilled.csv", "distilled_history.csv"
STATES = "~/.cache/shortgpt/distill"
REMOVED, RANK, LENGTH = 6, 16, 512
TASKS = {"grammar": 480, "last_word": 252, "physical": 260, "science": 280}  # items: all there are
KEYS = ["start", "trained", "text", "tokens"]


def wanted() -> Iterator[dict]:
    """Rows to measure, those that matter most first, so that an unfinished file is of use too."""
    yield {"start": "dense", "trained": "none", "text": "none", "tokens": 0}
    for start in ("cut", "fold"):
        yield {"start": start, "trained": "none", "text": "none", "tokens": 0}
    for tokens in (100_000, 1_000_000, 10_000_000):
        for start, trained, text in (
            ("fold", "full", "teacher"),
            ("fold", "full", "natural"),
            ("fold", "lora", "teacher"),
            ("cut", "full", "teacher"),
            ("cut", "lora", "teacher"),
        ):
            yield {"start": start, "trained": trained, "text": text, "tokens": tokens}


def layers() -> list[int]:
    """The six layers that the search with repair in the loop takes."""
    chosen = pd.read_csv(DATA / "chosen.csv").query("criterion == 'repaired_search' and removed == @REMOVED")
    return json.loads(chosen["layers"].iloc[0])


@cache
def start_of(start: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """What a row starts from; training changes it not."""
    if start == "dense":
        return model
    if start == "cut":
        return remove_layers(model, layers())
    documents = [*built_in_text("calibration")["text"], *built_in_text("repair")["text"]]
    return heal(model, layers(), calibration_batches(tokenizer, documents, length=LENGTH), progress=False)


def trained(
    row: dict, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, gpu: bool
) -> tuple[PreTrainedModel, pd.DataFrame | None]:
    """The model of a row, and its history if it was trained."""
    pruned = start_of(row["start"], model, tokenizer)
    if not row["tokens"]:
        return pruned, None
    states = Path(STATES).expanduser()
    folder = states / "-".join(str(row[key]) for key in KEYS)
    written = states / "teacher-text" / str(min(row["tokens"], MOST_WRITTEN))  # rows that need as much share it
    if row["text"] == "teacher" and (written / TEXT_FILE).exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(written / TEXT_FILE, folder)
    texts = None if row["text"] == "teacher" else built_in_text("natural")["text"].tolist()
    healed, history = distill(
        pruned, model, tokenizer, texts, tokens=row["tokens"], lora=RANK if row["trained"] == "lora" else None,
        length=LENGTH, at_once=16 if gpu else 4, folder=folder,
    )  # fmt: skip
    if history.attrs["stopped"]:
        raise KeyboardInterrupt(history.attrs["stopped"])
    if row["text"] == "teacher":
        written.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / TEXT_FILE, written)
    return healed, history


def measure(
    changed: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, documents: pd.DataFrame, dense: pd.DataFrame
) -> dict[str, float]:
    """Loss on text by people with the paired error of what is lost, and accuracies in percent."""
    own = document_losses(changed, tokenizer, documents)
    lost, error = mean_and_error((own["loss"] - dense["loss"]) * own["tokens"], own["tokens"])
    found = {"loss": (own["loss"] * own["tokens"]).sum() / own["tokens"].sum(), "lost": lost, "lost_error": error}
    for task, limit in TASKS.items() if find_spec("lm_eval") else ():  # a lent GPU machine may lack it
        result = evaluate(changed, tokenizer, [task], limit=limit).iloc[0]
        found |= {task: result["value"], f"{task}_error": result["standard_error"], f"{task}_chance": result["chance"]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--most", type=float, default=1e7, help="tokens, for instance 1e6")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no row that may not end by then")
    parser.add_argument("--out", type=Path, default=DATA, help="where the two tables are")
    parser.add_argument("--merge", type=Path)
    args = parser.parse_args()
    rows = Rows(args.out / FILE, KEYS)
    if args.merge:
        rows.add(*(row for row in Rows(args.merge / FILE, KEYS).rows if row not in rows))
        return
    end, pace = time.perf_counter() + 60 * args.minutes, 0.0  # pace: seconds a token, all that a row needs
    model, tokenizer = load(device="cuda" if args.gpu else "cpu", dtype=torch.float32)
    documents = measured_documents(MODELS[0], "en")
    dense = document_losses(model, tokenizer, documents)
    for row in wanted():
        begun = time.perf_counter()
        if row in rows or row["tokens"] > args.most or begun + row["tokens"] * pace > end:
            continue
        changed, history = trained(row, model, tokenizer, args.gpu)
        seconds = 0.0 if history is None else history["seconds"].iloc[-1]
        where = torch.cuda.get_device_name() if args.gpu else "CPU"
        rows.add(row | {"seconds": seconds, "where": where} | measure(changed, tokenizer, documents, dense))
        if history is not None:
            read = json.loads(history.rename(columns={"tokens": "read"}).to_json(orient="records"))
            Rows(args.out / HISTORY, [*KEYS, "read"]).add(*(row | each for each in read))
            pace = (time.perf_counter() - begun) / row["tokens"]
        print(rows.rows[-1], flush=True)


if __name__ == "__main__":
    main()
