"""Figure 5 of the paper on three real models: what is lost as layers go, by eight ways to choose them.

    python measure/removal_curves.py [MODEL …]      go on where the files end (about … on two cores)

Chooses on human-written English (part ``natural``) and measures on other sources (part ``natural_test``): English, Chinese and
code. Writes three files in `data/`: `removal_orders.csv`, what each criterion chooses and what that cost; `removal_curves.csv`,
a row per model and set of layers with the mean loss of every document (a JSON list a language, nats a token), so that any
two models can be compared document by document; and `removal_documents.csv`, what those documents are. `removal_curves()`
in `shortgpt.course.studies.curves` makes a tidy table with standard errors of them.
"""

from __future__ import annotations

import json
import time

import pandas as pd
from study import DATA, LANGUAGES, LARGE, Rows, asked, document_losses, load_model, measured_documents, natural_batches
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt import compare_criteria, decoder_layers, remove_layers

ORDERS, CURVES = Rows(DATA / "removal_orders.csv", ["model"]), Rows(DATA / "removal_curves.csv", ["model", "layers"])
DOCUMENTS = Rows(DATA / "removal_documents.csv", ["model", "language"])
SEEDS = range(5)
READING = ("relative_magnitude", "block_influence", "block_influence_iterative", "angular_span_all_tokens")
TEXT = {"samples": 40, "length": 256}  # for criteria that read once (iterated Block Influence: for each layer)
TRIAL_TEXT = {"samples": 8, "length": 256}  # for greedy, which reads hundreds of times
LARGE_COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14)  # the large model takes ten times as long
FIRST = ("block_influence", "greedy", "block_influence_iterative", "relative_magnitude", "angular_span_all_tokens")


def choose(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Append what each criterion chooses to `removal_orders.csv`."""
    depth = len(decoder_layers(model))
    counts = LARGE_COUNTS if name == LARGE else range(1, depth // 2 + 1)
    tables = []
    for criteria, text in (
        (("random", "sequential", "reverse", *READING), TEXT),
        (("greedy",), TRIAL_TEXT),
    ):
        batches = natural_batches(tokenizer, **text)
        count = lambda model: len(decoder_layers(model))  # noqa: E731
        table = compare_criteria(model, batches, counts, criteria, count, seeds=SEEDS, progress=False)
        tables.append(table.drop(columns="value"))
        print(name, criteria, table.groupby("criterion")["seconds"].max().round(1).to_dict(), flush=True)
    table = pd.concat(tables, ignore_index=True)
    table = table.assign(layers=[json.dumps([int(i) for i in layers]) for layers in table["layers"]])
    ORDERS.add(*json.loads(table.assign(model=name).to_json(orient="records")))


def wanted(name: str) -> list[str]:
    """The sets of layers to measure, those that matter most first."""
    table = pd.DataFrame(ORDERS.rows)
    table = table[table["model"] == name]
    rank = {criterion: i for i, criterion in enumerate(FIRST)}
    table = table.assign(rank=table["criterion"].map(rank).fillna(len(rank)))
    few = (table["rank"] == len(rank)) & (table["removed"] % 2 == 1) & (name == LARGE)  # baselines: every second count
    return ["[]", *table[~few].sort_values(["rank", "removed"])["layers"].drop_duplicates()]


def main() -> None:
    for name in asked():
        model, tokenizer = load_model(name)
        if {"model": name} not in ORDERS:
            choose(name, model, tokenizer)
        documents = {language: measured_documents(name, language) for language in LANGUAGES}
        for layers in wanted(name):
            if {"model": name, "layers": layers} in CURVES:
                continue
            start, row = time.perf_counter(), {"model": name, "layers": layers}
            pruned = remove_layers(model, json.loads(layers))
            for language, texts in documents.items():
                table = document_losses(pruned, tokenizer, texts)
                row[language] = json.dumps(table["loss"].round(4).tolist())
                if layers == "[]" and {"model": name, "language": language} not in DOCUMENTS:
                    sizes = texts[["genre", "title"]].assign(model=name, language=language).join(table[["tokens", "bytes"]])
                    DOCUMENTS.add(*json.loads(sizes.to_json(orient="records")))
            CURVES.add(row | {"seconds": round(time.perf_counter() - start, 1)})
            print(name, layers, {k: sum(json.loads(row[k])) / len(json.loads(row[k])) for k in LANGUAGES}, flush=True)


if __name__ == "__main__":
    main()
