"""What is lost as layers go, on three real models, from stored measurements (`measure/removal_curves.py` made them)."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from shortgpt.evaluation.likelihood import mean_and_error
from shortgpt.utils.data import data_folder

LANGUAGES = ("en", "zh", "code")
MODELS = ("smollm2-135m-instruct", "gemma-3-270m", "qwen2.5-coder-1.5b-instruct")  # small ones first


def removal_curves(*, criterion: str | None = None, text: str | None = None) -> pd.DataFrame:
    """Every stored choice of layers with what it costs, in English, Chinese and code.

    Args:
        criterion: only what this one chose. text: only what was chosen on this text (``"en"``, ``"zh"``, ``"code"``,
            ``"ours"``: the built-in calibration part, or an English genre).

    Returns:
        A row per model, criterion, text, seed, number of layers and language: ``model, criterion, text, seed, removed,
        depth, share`` (removed of depth), ``layers`` (a list), ``language``; ``added`` (nats a token above the dense model)
        and ``added_error`` (standard error, over documents, of the paired difference); ``times`` (the factor of
        perplexity, ``exp(added)``); ``bits_per_byte``. The dense model's rows have criterion ``"dense"``.
    """
    orders, losses = (pd.read_csv(data_folder() / f"removal_{name}.csv") for name in ("orders", "curves"))
    dense = pd.DataFrame(
        {"model": losses["model"].unique(), "criterion": "dense", "text": "", "removed": 0, "layers": "[]"}
    )
    table = _small_first(pd.concat([dense, orders], ignore_index=True).drop(columns=["forward_passes", "seconds"]))
    for column, wanted in {"criterion": criterion, "text": text}.items():
        table = table if wanted is None else table[table[column].isin(["dense", "", wanted])]
    table["depth"] = table["model"].map(orders.groupby("model")["depth"].first())
    table["share"] = table["removed"] / table["depth"]
    costs = pd.DataFrame([row for name, rows in losses.groupby("model") for row in _costs(name, rows)])
    table = table.merge(costs, on=["model", "layers"])  # what is not measured yet has no row
    return table.assign(layers=table["layers"].map(json.loads), times=np.exp(table["added"]))


def removal_accuracy(*, criterion: str | None = None, text: str | None = None) -> pd.DataFrame:
    """Every stored choice of layers with what the offline tasks say of it (`measure/answers.py` asked them).

    Args:
        criterion, text: as in `removal_curves`.

    Returns:
        A row per model, criterion, text, number of layers and task: ``model, criterion, text, removed, layers`` (a list),
        ``task, value, standard_error, chance`` (percent), ``items``, and ``above_chance``: percent that is kept of what the
        dense model has above guessing. The dense model's rows have criterion ``"dense"``.
    """
    orders, asked = (pd.read_csv(data_folder() / f"removal_{name}.csv") for name in ("orders", "accuracy"))
    dense = asked[asked["layers"] == "[]"]
    for column, wanted in {"criterion": criterion, "text": text}.items():
        orders = orders if wanted is None else orders[orders[column] == wanted]
    orders = orders[["model", "criterion", "text", "removed", "layers"]]
    table = pd.concat(
        [dense.assign(criterion="dense", text="", removed=0), orders.merge(asked, on=["model", "layers"])],
        ignore_index=True,
    )
    table = _small_first(table)
    start = table[["model", "task"]].merge(dense[["model", "task", "value"]], on=["model", "task"])["value"]
    above = 100 * (table["value"] - table["chance"]) / (start - table["chance"])
    return table.assign(above_chance=above, layers=table["layers"].map(json.loads))


def paired(model: str, one: Sequence[int], other: Sequence[int], language: str = "en") -> tuple[float, float]:
    """Loss without the layers `one` minus loss without `other`, nats a token, and its standard error over the documents."""
    losses = pd.read_csv(data_folder() / "removal_curves.csv").query("model == @model").set_index("layers")[language]
    first, second = (np.array(json.loads(losses[json.dumps(sorted(map(int, layers)))])) for layers in (one, other))
    tokens = _documents(model)["tokens"][language]
    return mean_and_error((first - second) * tokens, tokens)


def _small_first(table: pd.DataFrame) -> pd.DataFrame:
    """The rows in the order of `MODELS`; other models come last."""
    places = {name: place for place, name in enumerate(MODELS)}
    return table.sort_values(
        "model", kind="stable", ignore_index=True, key=lambda names: names.map(places).fillna(len(MODELS))
    )


def _documents(model: str) -> dict[str, dict[str, np.ndarray]]:
    """Tokens and bytes of each measured document: of each language, ``[documents]``."""
    table = pd.read_csv(data_folder() / "removal_texts.csv").query("model == @model")
    return {
        column: {language: rows[column].to_numpy() for language, rows in table.groupby("language")}
        for column in ("tokens", "bytes")
    }


def _costs(model: str, losses: pd.DataFrame) -> list[dict]:
    sizes, rows, by_layers = _documents(model), [], losses.set_index("layers")
    for layers, row in by_layers.iterrows():
        for language in LANGUAGES:
            tokens, size = sizes["tokens"][language], sizes["bytes"][language]
            mean, dense = (np.array(json.loads(each[language])) for each in (row, by_layers.loc["[]"]))
            added, error = mean_and_error((mean - dense) * tokens, tokens)
            bits = float((mean * tokens).sum() / np.log(2) / size.sum())
            found = {"added": added, "added_error": error, "bits_per_byte": bits}
            rows.append({"model": model, "layers": layers, "language": language} | found)
    return rows
