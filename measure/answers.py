"""Accuracy on three real models as layers go, and the same questions answered by choosing and by writing.

    python measure/answers.py [MODEL …]      go on where the files end (about an hour on two cores)

Needs `removal_orders.csv` (see `measure/removal_curves.py`). Writes `removal_accuracy.csv`, a row per model, set of layers
and offline task (of the dense models also with the question hidden), and `removal_answers.csv`, a row per set of layers of
the large model and question: whether the likeliest choice was right, and whether what the model wrote was.
"""

from __future__ import annotations

import json
import time

import pandas as pd
from hidden_question import hidden_question
from rows import Rows
from study import DATA, LARGE, asked, load_model
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt import choice_and_generation, decoder_layers, evaluate, remove_layers

ACCURACY = Rows(DATA / "removal_accuracy.csv", ["model", "layers", "task"])
ANSWERS = Rows(DATA / "removal_answers.csv", ["model", "layers", "task"])
TASKS = ("science", "science_zh", "physical", "last_word", "grammar", "chinese")
PRUNED_TASKS = ("science", "science_zh", "last_word")  # once layers are gone; of the dense models all
HIDDEN = ("science", "science_zh", "physical", "chinese")  # also asked with the question hidden
LIMIT = 120  # items: standard errors of 2 to 4 points
QUESTIONS = 80  # of science, answered both ways by the large model: the small ones guess when answers are listed
# what is asked of the large model, and of the small ones (nine layers are half of gemma's)
LARGE_COUNTS = {("block_influence", "en"): (4, 8, 6, 2), ("block_influence", "zh"): (6,), ("greedy", "en"): (8,)}
COUNTS = {("block_influence", "en"): range(3, 16, 3), ("block_influence", "zh"): (3, 6, 9), ("greedy", "en"): (3, 6, 9)}


def wanted(name: str, depth: int) -> list[tuple[str, bool]]:
    """Sets of layers to ask without, and whether in both ways: by Block Influence on English, on Chinese, then greedy."""
    orders = (
        pd.read_csv(DATA / "removal_orders.csv").query("model == @name").set_index(["criterion", "text", "removed"])
    )
    found: dict[str, bool] = {"[]": name == LARGE}
    for (criterion, text), counts in (LARGE_COUNTS if name == LARGE else COUNTS).items():
        for n in [count for count in counts if count <= depth // 2]:
            both = name == LARGE and (criterion, text) == ("block_influence", "en")
            layers = orders.loc[(criterion, text, n), "layers"]
            found[layers] = found.get(layers, False) or both
    return list(found.items())


def ask(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, layers: str) -> None:
    """Append the accuracies that are not in the file."""
    start, key = time.perf_counter(), {"model": name, "layers": layers}
    pruned = remove_layers(model, json.loads(layers))
    for task in TASKS if layers == "[]" else PRUNED_TASKS:
        if key | {"task": task} not in ACCURACY:
            row = evaluate(pruned, tokenizer, [task], limit=LIMIT, progress=False).iloc[0]
            ACCURACY.add(key | {each: row[each] for each in ("task", "value", "standard_error", "chance", "items")})
    for task in HIDDEN if layers == "[]" else ():
        if key | {"task": f"{task}, hidden"} not in ACCURACY:
            ACCURACY.add(key | hidden_question(pruned, tokenizer, task, LIMIT) | {"task": f"{task}, hidden"})
    print(name, layers, f"{time.perf_counter() - start:.0f} s", flush=True)


def ask_both_ways(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, layers: str) -> None:
    """Append the answers, chosen and written, that are not in the file."""
    start, key = time.perf_counter(), {"model": name, "layers": layers}
    pruned = remove_layers(model, json.loads(layers))
    if key | {"task": "science"} not in ANSWERS:
        table = choice_and_generation(pruned, tokenizer, "science", limit=QUESTIONS, progress=False)
        columns = ["task", "item", "choice_right", "written_right", "written", "read"]
        ANSWERS.add(*(key | row for row in json.loads(table[columns].to_json(orient="records"))))
    print(name, layers, f"both ways {time.perf_counter() - start:.0f} s", flush=True)


def main() -> None:
    for name in asked():
        model, tokenizer = load_model(name)
        sets = wanted(name, len(decoder_layers(model)))
        for layers, _ in sets:
            ask(name, model, tokenizer, layers)
        for layers in [layers for layers, both in sets if both]:
            ask_both_ways(name, model, tokenizer, layers)


if __name__ == "__main__":
    main()
