"""Figure 5 of the paper on three real models: what is lost as layers go, by eight ways to choose them.

    python measure/removal_curves.py [MODEL …]      go on where the files end (about two hours on two cores)

Chooses on human-written English (part ``natural``), measures on other sources (part ``natural_test``): English, Chinese and
code. Writes four files in `data/`: `removal_orders.csv`, what each criterion chooses and what that cost;
`removal_curves.csv`, a row per model and set of layers with the mean loss of every document (a JSON list a language, nats
a token), so that any two models can be compared document by document; `removal_texts.csv`, what these are; and
`removal_layers.csv`, a row per model and layer: Block Influence, relative magnitude, and how many times as long as before the
median state is behind it.
`removal_curves()` in `shortgpt.course.studies.curves` makes a tidy table with standard errors of them.
"""

from __future__ import annotations

import json
import time

import numpy as np
import pandas as pd
import torch
from rows import Rows
from study import DATA, LARGE, asked, batches_of, load_model, measured_documents
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt import compare_criteria, decoder_layers, remove_layers, score_layers, watch_layers
from shortgpt.course.studies.again import document_losses
from shortgpt.course.studies.curves import LANGUAGES
from shortgpt.model.hooks import run_backbone

ORDERS = Rows(DATA / "removal_orders.csv", ["model", "criterion", "text"])
CURVES = Rows(DATA / "removal_curves.csv", ["model", "layers"])
DOCUMENTS = Rows(DATA / "removal_texts.csv", ["model", "language"])
LAYERS = Rows(DATA / "removal_layers.csv", ["model"])
SEEDS = range(5)
TRIAL_TEXT = {"samples": 8, "length": 256}  # for greedy, which reads hundreds of times; the others read 40 of 256
LARGE_COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14)  # the large model takes ten times as long
GREEDY_MOST = 8  # layers that greedy takes from the large model: 196 trials
# what is chosen by what, on which text: those that matter most first
RUNS = [
    *[(name, "en") for name in ("block_influence", "relative_magnitude")],
    *[("block_influence", text) for text in ("zh", "ours", "default")],
    *[(name, "en") for name in ("greedy", "reverse", "sequential", "block_influence_iterative")],
    *[(name, "en") for name in ("angular_span_all_tokens", "random")],
]


def choose(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, criterion: str, text: str) -> None:
    """Append what a criterion chooses for every number of layers to `removal_orders.csv`."""
    counts = LARGE_COUNTS if name == LARGE else range(1, len(decoder_layers(model)) // 2 + 1)
    if name == LARGE and criterion == "greedy":
        counts = [count for count in counts if count <= GREEDY_MOST]
    batches = batches_of(tokenizer, text, **(TRIAL_TEXT if criterion == "greedy" else {}))
    left = lambda pruned: len(decoder_layers(pruned))  # noqa: E731
    table = compare_criteria(model, batches, counts, [criterion], left, seeds=SEEDS, progress=False)
    table = table.assign(
        model=name,
        text=text,
        depth=len(decoder_layers(model)),
        layers=[json.dumps(sorted(map(int, each))) for each in table["layers"]],
    )
    ORDERS.add(*json.loads(table.drop(columns="value").to_json(orient="records")))
    print(name, criterion, text, round(table["seconds"].max(), 1), "s", flush=True)


def describe(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Append to `removal_layers.csv` what each layer does to the state."""
    batches = batches_of(tokenizer, "en")
    metrics = ("block_influence", "relative_magnitude")
    columns = {m: score_layers(model, batches, metric=m, progress=False).values for m in metrics}
    longer: dict[int, list[torch.Tensor]] = {layer: [] for layer in range(len(decoder_layers(model)))}

    def keep(layer: int, x_in: torch.Tensor, x_out: torch.Tensor) -> None:
        longer[layer].append((x_out.float().norm(dim=-1) / x_in.float().norm(dim=-1))[mask])

    with torch.inference_mode(), watch_layers(model, keep):
        for batch in batches[:5]:
            mask = batch["attention_mask"].bool()
            run_backbone(model, batch)
    table = pd.DataFrame(columns).assign(longer=[torch.cat(longer[i]).median().item() for i in sorted(longer)])
    table = table.assign(model=name, layer=table.index)
    LAYERS.add(*json.loads(table.to_json(orient="records")))


def wanted(name: str, criterion: str, text: str) -> list[str]:
    """The sets of layers to measure; of those chosen blindly a few, for most are ruins."""
    table = pd.DataFrame(ORDERS.rows)
    table = table[(table["model"] == name) & (table["criterion"] == criterion) & (table["text"] == text)]
    if criterion in ("random", "sequential", "reverse"):
        table = table[table["removed"].isin([2, 6, 10] if name == LARGE else [3, 6, 9])]
    return table["layers"].drop_duplicates().tolist()


def measure(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, layers: str) -> None:
    """Append the losses without these layers to `removal_curves.csv`."""
    start, row = time.perf_counter(), {"model": name, "layers": layers}
    if row in CURVES:
        return
    pruned = remove_layers(model, json.loads(layers))
    for language in LANGUAGES:
        texts = measured_documents(name, language)
        torch.set_float32_matmul_precision("medium")  # products in bfloat16, sums in float32: 0.003 nats a document
        table = document_losses(pruned, tokenizer, texts)
        torch.set_float32_matmul_precision("highest")
        row[language] = json.dumps(table["loss"].round(4).tolist())
        if {"model": name, "language": language} not in DOCUMENTS:
            sizes = texts[["genre", "title"]].assign(model=name, language=language).join(table[["tokens", "bytes"]])
            DOCUMENTS.add(*json.loads(sizes.to_json(orient="records")))
    CURVES.add(row | {"seconds": round(time.perf_counter() - start, 1)})
    means = {language: round(float(np.mean(json.loads(row[language]))), 3) for language in LANGUAGES}
    print(name, layers, means, f"{time.perf_counter() - start:.0f} s", flush=True)


def main() -> None:
    for name in asked():
        model, tokenizer = load_model(name)
        measure(name, model, tokenizer, "[]")
        if {"model": name} not in LAYERS:
            describe(name, model, tokenizer)
        for criterion, text in RUNS:
            if {"model": name, "criterion": criterion, "text": text} not in ORDERS:
                choose(name, model, tokenizer, criterion, text)
            for layers in wanted(name, criterion, text):
                measure(name, model, tokenizer, layers)


if __name__ == "__main__":
    main()
