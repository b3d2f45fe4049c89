"""What every repair without training gives back, on three real models, from stored measurements (`measure/repairs.py`)."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from shortgpt.course.studies.curves import MODELS, _documents
from shortgpt.evaluation.likelihood import mean_and_error
from shortgpt.utils.data import data_folder

REPAIRS = {  # as figures and tables call them, the published ones by their papers
    "none": "cut, not repaired",
    "prune_and_comp": "Prune&Comp",
    "linear_patch": "LinearPatch",
    "replace_me": "ReplaceMe",
    "ghosted_layers": "Ghosted Layers",
    "subfit": "SubFit",
    "linear": "ours: linear",
    "fold": "ours: fold",
    "fold_both": "ours: fold, attention too",
    "fold_all": "ours: fold at all sites",
    "fold_both_all": "ours: both at all sites",
    "paired": "ours: branches paired, fold at all sites",
    "own_text": "ours: fold at all sites, on its own text",
    "logits": "ours: fold at all sites, then on logits",
}
AGAINST = "ghosted_layers"


def repair_bench(*, model: str | None = None, share: float | None = None) -> pd.DataFrame:
    """Every measured repair with what it leaves of the loss.

    Args:
        model: only this model. share: only this share of the layers (0.125, 0.25, 0.375).

    Returns:
        A row per model, share, plan and repair: ``model, share, removed, plan, repair, layers`` (a list);
        ``added`` (nats a token above the dense model, English), ``added_error`` (standard error over documents, paired);
        ``times`` (the factor of perplexity); ``against`` (perplexity divided by that of Ghosted Layers on the same plan;
        SubFit and pairs, which have no plan of layers, by its best plan's), ``against_error``; ``back`` (the share of the
        loss of the cut that is taken back); ``last_word, science`` (percent right, empty where not asked); ``seconds``,
        ``added_bytes``, ``ordinary`` (whether plain transformers loads it), ``why`` (why there is no number).
    """
    stored = pd.read_csv(data_folder() / "repairs.csv")
    table = pd.concat([_of_model(name, rows) for name, rows in stored.groupby("model")], ignore_index=True)
    for column, wanted in {"model": model, "share": share}.items():
        table = table if wanted is None else table[table[column] == wanted]
    places = {name: place for place, name in enumerate(MODELS)}
    order = table["model"].map(places).fillna(len(MODELS)), table["repair"].map(list(REPAIRS).index)
    table = table.assign(_model=order[0], _repair=order[1]).sort_values(["_model", "share", "plan", "_repair"])
    return table.drop(columns=["_model", "_repair"]).reset_index(drop=True)


def rank_correlation(bench: pd.DataFrame) -> pd.DataFrame:
    """Does perplexity rank as tasks do? Spearman's correlation of ``added`` with each accuracy, a row a model; ``rows``."""
    tasks = [name for name in ("last_word", "science") if name in bench]
    rows = []
    for model, some in bench.groupby("model", sort=False):
        both = some[["added", *tasks]].dropna()
        rows.append({"model": model, "rows": len(both)} | both.corr("spearman")["added"][tasks].to_dict())
    return pd.DataFrame(rows)


def _of_model(name: str, rows: pd.DataFrame) -> pd.DataFrame:
    tokens = _documents(name)["tokens"]["en"]
    losses = {i: np.array(json.loads(text)) for i, text in rows["en"].dropna().items()}
    dense = losses[rows.index[rows["repair"] == "dense"][0]]
    found = rows[rows["repair"] != "dense"].assign(model=name, layers=rows["layers"].map(json.loads))
    columns: dict[str, list[float]] = {
        name: [] for name in ("added", "added_error", "against", "against_error", "back")
    }
    for i, row in found.iterrows():
        added = _paired(losses.get(i), dense, tokens)
        here = found[found["share"] == row["share"]]
        there = here if row["plan"] == "branches" else here[here["plan"] == row["plan"]]
        other = min(
            (losses[j] for j in there.index[there["repair"] == AGAINST] if j in losses),
            key=lambda each: float((each * tokens).sum()),
            default=None,
        )
        gap, gap_error = _paired(losses.get(i), other, tokens)
        cut = next((losses[j] for j in there.index[there["repair"] == "none"] if j in losses), None)
        lost = _paired(cut if row["plan"] != "branches" else None, dense, tokens)[0]
        values = (*added, np.exp(gap), np.exp(gap) * gap_error, 1 - added[0] / lost)
        for column, value in zip(columns.values(), values, strict=True):
            column.append(float(value))
    found = found.assign(**columns).drop(columns="en")
    return found.assign(times=np.exp(found["added"]))


def _paired(one: np.ndarray | None, other: np.ndarray | None, tokens: np.ndarray) -> tuple[float, float]:
    if one is None or other is None:
        return np.nan, np.nan
    return mean_and_error((one - other) * tokens, tokens)
