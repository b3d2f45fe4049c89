"""Depth against width at equal parameters: what removing layers, sublayers, heads and channels costs and gains.

    python measure/width.py              go on where width.csv ends (about a quarter of an hour in all on 2 cores)
    python measure/width.py --restart    begin again

Writes `width.csv`: a row for the dense model and one for each kind of removal, as much as 3, 6 and 9 layers, with
perplexity on the built-in perplexity part (no score has read it), accuracy on the offline grammar task, size, and bytes
of the key-value cache. Lesson 07 draws its comparison from it, and measures speed itself, side by side.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt import (
    built_in_text,
    calibration_batches,
    decoder_layers,
    equal_parameters,
    evaluate,
    key_value_bytes,
    load,
    perplexity_table,
    removal_order,
    remove_channels,
    remove_heads,
    remove_layers,
    remove_sublayers,
    score_layers,
    score_sublayers,
    size,
)
from shortgpt.evaluation.likelihood import mean_and_error

FILE = Path(__file__).parents[1] / "data" / "width.csv"
COUNTS = (3, 6, 9)  # 10, 20 and 30 percent of 30 layers
LIMIT = 240  # grammar items: a standard error of about 3 points


def removals(model: PreTrainedModel, batches: Sequence[dict[str, torch.Tensor]]) -> dict[str, Callable]:
    """Kind of removal → function of a number (of layers or sublayers; of channels or heads in each layer)."""
    scores = {"layers": score_layers(model, batches)} | score_sublayers(model, batches)
    order = {kind: removal_order(each) for kind, each in scores.items()}
    kinds: dict[str, Callable] = {
        "layers": lambda n: remove_layers(model, order["layers"][:n]),
        "attention": lambda n: remove_sublayers(model, attention=order["attention"][:n]),
        "ffn": lambda n: remove_sublayers(model, ffn=order["ffn"][:n]),
    }
    for kind, remove in {"channels": remove_channels, "heads": remove_heads}.items():
        for score in ("activation", "magnitude"):
            kinds[f"{kind}, {score}"] = partial(remove, model, scores=score, batches=batches)
    return kinds


def quality(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dense: pd.Series | None
) -> tuple[dict, pd.Series]:
    """Columns of measures, and the mean loss of each document; `dense` has those of the dense model, to pair with."""
    documents = built_in_text("perplexity").assign(document=lambda table: range(len(table)))
    single = perplexity_table(model, tokenizer, documents, by="document").set_index("document")
    losses = np.log(single["perplexity"])
    row = {}
    for name, values in {"perplexity": losses, "times_dense": losses - (losses if dense is None else dense)}.items():
        mean, error = mean_and_error(values * single["tokens"], single["tokens"])
        row |= {name: np.exp(mean), f"{name}_error": np.exp(mean) * error}
    result = evaluate(model, tokenizer, ["grammar"], limit=LIMIT).iloc[0]
    cost = size(model)
    row |= {name: cost[name] for name in ("parameters", "memory_bytes")} | {
        "cache_bytes_per_token": key_value_bytes(model)
    }
    return row | {"grammar": result["value"], "grammar_error": result["standard_error"]}, losses


def main() -> None:
    if "--restart" in sys.argv:
        FILE.unlink(missing_ok=True)
    known = json.loads(pd.read_csv(FILE).to_json(orient="records")) if FILE.exists() else []
    rows: dict[tuple, dict] = {(row["removed"], row["layers"]): row for row in known}
    model, tokenizer = load(device="cpu")
    kinds = removals(model, calibration_batches(tokenizer, built_in_text()["text"]))
    depth, config = len(decoder_layers(model)), model.config
    there = dict.fromkeys(("layers", "attention", "ffn"), depth)
    there |= {"channels": config.intermediate_size, "heads": config.num_key_value_heads}

    def add(kind: str, layers: int, values: dict) -> None:
        rows[kind, layers] = rows.get((kind, layers), {"removed": kind, "layers": layers}) | values
        pd.DataFrame(rows.values()).to_csv(FILE, index=False, float_format="%.6g")
        print(rows[kind, layers], flush=True)

    def missing() -> Iterator[tuple[str, int, PreTrainedModel]]:
        for layers in (0, *COUNTS):
            for kind in kinds if layers else ("dense",):
                if (kind, layers) in rows:
                    continue
                part = kind.partition(",")[0]
                n = equal_parameters(model, layers)[part]["n"] if layers else 0
                if layers and n >= there[part]:
                    print(f"{kind}: {n} would be worth {layers} layers, but there are only {there[part]}", flush=True)
                    continue
                yield kind, layers, kinds[kind](n) if layers else model

    dense, losses = quality(model, tokenizer, None)
    for kind, layers, pruned in missing():
        add(kind, layers, dense if pruned is model else quality(pruned, tokenizer, losses)[0])


if __name__ == "__main__":
    main()
