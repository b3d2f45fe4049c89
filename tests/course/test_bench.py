"""The bench of repairs runs end to end on a tiny model, goes on where it stopped, and its table is right."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small import build_tiny

from shortgpt import calibration_batches
from shortgpt.course.plots import plot_repairs
from shortgpt.course.studies import bench as studied, curves
from shortgpt.course.studies.bench import REPAIRS, rank_correlation, repair_bench

NAME = "smollm2-135m-instruct"
TEXTS = [f"the {a} of a {b} is near the {c}." for a in ("end", "door", "top") for b in ("hill", "road") for c in "xyz"]
TITLES = pd.DataFrame({"title": ["a", "b", "c"], "text": TEXTS[:3]})


@pytest.fixture
def bench(tmp_path, tokenizer, monkeypatch):
    """The script as a module, with a tiny model, little text and files of its own."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "measure"))
    sys.modules.pop("repairs", None)
    import repairs

    for name, keys in (("PLANS", repairs.PLANS.keys), ("REPAIRS", repairs.REPAIRS.keys)):
        file = {"PLANS": "repair_plans.csv", "REPAIRS": "repairs.csv"}[name]
        monkeypatch.setattr(repairs, name, repairs.Rows(tmp_path / file, keys))
    orders = {"model": NAME, "text": "en", "criterion": "greedy", "removed": [1, 2], "layers": ["[3]", "[2, 3]"]}
    pd.DataFrame(orders).assign(depth=6).to_csv(tmp_path / "removal_orders.csv", index=False)
    texts = TITLES.assign(model=NAME, language="en", tokens=TITLES["text"].str.len() - 1, bytes=40, genre="x")
    texts.drop(columns="text").to_csv(tmp_path / "removal_texts.csv", index=False)
    monkeypatch.setattr(repairs, "DATA", tmp_path)
    monkeypatch.setattr(repairs, "SHARES", (0.3,))
    monkeypatch.setattr(repairs, "TASKS", {})
    monkeypatch.setattr(repairs, "OWN_TEXT", {"samples": 8, "length": 24})
    monkeypatch.setattr(repairs, "measured_documents", lambda name, language: TITLES)
    monkeypatch.setattr(
        repairs, "batches_of", lambda tokenizer, text, **settings: calibration_batches(tokenizer, TEXTS, length=24)
    )
    monkeypatch.setattr(repairs, "load_model", lambda name: (build_tiny(), tokenizer))
    monkeypatch.setattr(repairs, "asked", lambda: [NAME])
    tokenizer.bos_token = "?"
    for module in (studied, curves):
        monkeypatch.setattr(module, "data_folder", lambda: tmp_path)
    return repairs


def test_every_repair_is_measured_and_told(bench, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["repairs.py"])
    bench.main()
    printed = capsys.readouterr().out
    rows = len(list(bench.wanted(NAME, 6)))
    assert printed.count("hours left") == rows == len(bench.REPAIRS.rows)
    table = repair_bench()
    assert set(table["repair"]) == set(REPAIRS) and len(table) == rows - 1
    # a tiny random model's plans may begin with layer 0, and nothing comes before that gap
    refused = table["why"].dropna() if "why" in table else pd.Series(dtype=str)
    assert refused.str.contains("keep layer 0").all()
    plans = pd.DataFrame(bench.PLANS.rows).set_index("plan")["layers"].map(json.loads)
    assert plans["greedy"] == [2, 3] and all(len(layers) == 2 for layers in plans)

    # the numbers of one row, from the losses in the file
    stored = pd.read_csv(bench.REPAIRS.path)
    losses = {
        (row["plan"], row["repair"]): np.array(json.loads(row["en"]))
        for row in stored.dropna(subset=["en"]).to_dict("records")
    }
    tokens = TITLES["text"].str.len().to_numpy() - 1
    row = table[(table["plan"] == "greedy") & (table["repair"] == "fold")].iloc[0]
    mean = lambda each: (losses[each] * tokens).sum() / tokens.sum()  # noqa: E731
    dense, cut = mean(("none", "dense")), mean(("greedy", "none"))
    assert row["added"] == pytest.approx(mean(("greedy", "fold")) - dense)
    assert row["times"] == pytest.approx(np.exp(row["added"]))
    assert row["against"] == pytest.approx(np.exp(mean(("greedy", "fold")) - mean(("greedy", "ghosted_layers"))))
    assert row["back"] == pytest.approx((cut - mean(("greedy", "fold"))) / (cut - dense))
    by_name = table[table["plan"].isin(["greedy", "branches"])].set_index("repair")
    assert (by_name.loc[["fold", "fold_all", "replace_me", "prune_and_comp", "paired", "logits"], "ordinary"]).all()
    assert not (by_name.loc[["linear", "ghosted_layers", "linear_patch", "subfit"], "ordinary"]).any()
    assert (by_name.loc[["fold", "paired", "prune_and_comp"], "added_bytes"] == 0).all()
    assert by_name.loc["ghosted_layers", "added_bytes"] == by_name.loc["linear", "added_bytes"] == 4 * 33 * 32
    assert by_name.loc["subfit", "added_bytes"] > 0

    asked = table.assign(last_word=-table["added"], science=table["added"])
    assert rank_correlation(asked)[["last_word", "science"]].iloc[0].tolist() == pytest.approx([-1, 1])
    axes = plot_repairs(table, most=1000)
    assert len(axes) == 1 and "lowest perplexity" in capsys.readouterr().out
    assert repair_bench(share=0.5).empty
    with pytest.raises(ValueError, match="one share"):
        plot_repairs(table.iloc[:0])

    before = bench.REPAIRS.path.read_bytes()
    bench.main()  # nothing is left
    assert bench.REPAIRS.path.read_bytes() == before
