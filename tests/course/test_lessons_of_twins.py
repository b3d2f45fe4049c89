"""Lessons 08, 11 and 20 on the twins: what their text says of the stored measurements is so."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from committed import printed
from test_setup import ROOT

from shortgpt.course.studies.twins import disagreements, prunability, twin_layers, twin_removal

TEXTS = {n: next((ROOT / "notebooks" / "source").glob(f"{n}_*.py")).read_text(encoding="utf-8") for n in ("08", "11")}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return prunability().set_index("kind")


def added(kind: str, removed: int) -> float:
    rows = twin_removal(criterion="block_influence", repaired=False).query("kind == @kind and removed == @removed")
    return rows["added"].item()


def test_there_is_one_twin_of_each_kind_and_the_lessons_say_so(table):
    assert (table["n"] == 1).all(), "more seeds: the boxes of limits and the answer to question six have to say so"
    assert "There is one twin of each kind" in TEXTS["08"] and "One twin of each kind" in TEXTS["11"]
    losses = pd.read_csv(ROOT / "data" / "twins" / "losses.csv").groupby("kind")["tokens"].max()
    assert (losses / 1e6).round(1).eq(1.5).all() and all("read 1.5 million tokens" in text for text in TEXTS.values())


def test_how_good_the_whole_twins_are(table):
    dense = table["dense"]
    assert abs(dense["rwkv"] - dense["mamba"]) < 0.1
    assert dense["pre-norm"] - dense[["rwkv", "mamba"]].max() == pytest.approx(0.7, abs=0.05)
    assert dense.idxmin() == "post-norm" and dense.idxmax() == "pre-norm", "post-norm has learned the most"


def test_a_quarter_costs_the_same_without_attention(table):
    some = table.loc[["pre-norm", "mamba", "rwkv"]]
    assert some["cut"].max() - some["cut"].min() < 0.025
    back = 1 - some["repaired"] / some["cut"]
    assert back["rwkv"] == pytest.approx(2 / 5, abs=0.05)
    assert back["mamba"] == pytest.approx(1 / 2, abs=0.05) and back["pre-norm"] == pytest.approx(2 / 3, abs=0.05)
    half = {kind: added(kind, 8) for kind in ("pre-norm", "mamba", "rwkv")}
    assert min(half, key=half.get) == "rwkv"


def test_where_the_low_scores_are():
    lowest = {
        kind: set(rows.nsmallest(4, "block_influence")["layer"])
        for kind, rows in twin_layers().groupby("kind", sort=False)
    }
    assert {13, 14, 15} < lowest["mamba"] and min(lowest["rwkv"]) > 3 and max(lowest["rwkv"]) < 13
    said = printed("08_beyond_transformers", "7. Is it the model, or the score?").partition(
        "divided by that of greedy's: "
    )[2]
    factors = [float(number) for number in re.findall(r"\d\.\d", said.partition("\n")[0])]
    ranks = re.findall(
        r"([\w-]+) (0\.\d+)", printed("08_beyond_transformers", "7. Is it").partition("score and damage: ")[2]
    )
    ranks = {kind: float(rank) for kind, rank in ranks}
    assert min(ranks.values()) > 0.7 and max(ranks, key=ranks.get) == "mamba" and min(ranks, key=ranks.get) == "rwkv"
    assert len(factors) == 3 and factors[1] < 1 and all(0.6 < factor < 1.5 for factor in factors)


def test_the_order_of_the_norms(table):
    cut = table["cut"]
    assert cut["scaled-norm"] < 0.02 < cut["pre-norm"] < cut["post-norm"]
    assert added("scaled-norm", 8) < added("post-norm", 4) and added("post-norm", 8) > 1
    after = table["dense"] + cut
    assert after.loc[["pre-norm", "post-norm", "scaled-norm"]].idxmin() == "post-norm"
    back = 1 - table["repaired"] / cut
    assert 0.4 < back["post-norm"] < 0.5 and back[["pre-norm", "scaled-norm"]].between(0.6, 0.72).all()


def test_turns_against_the_three_lines():
    layers = twin_layers()
    deep = layers[layers["layer"] >= 8]
    times = deep["block_influence"] / (1 - deep["expected_cosine"])
    times = times.groupby(deep["kind"]).mean()
    assert times["pre-norm"] == pytest.approx(0.2, abs=0.05) and times["scaled-norm"] == pytest.approx(0.01, abs=0.005)
    post = layers[layers["kind"] == "post-norm"].set_index("layer")["block_influence"]
    assert 3 <= post.idxmin() <= 8 and post.idxmax() == 15, "the middle turns least, the last layer most"
    norms = layers[layers["kind"] == "post-norm"].set_index("layer")["norm_out"]
    assert norms[:14].max() / norms[:14].min() < 1.02 and norms[15] > 1.5 * norms[14]


def test_the_last_layer():
    layers = twin_layers().query("layer == 15").set_index("kind")["added"]
    assert layers["post-norm"] == pytest.approx(0.5, abs=0.05) and layers[["pre-norm", "scaled-norm"]].max() < 0.05


def test_question_nine_one_score_with_few_layers_gone_and_the_other_with_many():
    rows = disagreements("twin-pre-norm-0").set_index("removed")
    ahead = rows["added_block_influence"] < rows["added_relative_magnitude"]
    assert ahead.loc[:6].all() and not ahead.loc[7:].any() and len(ahead.loc[7:]) == 2
