"""The table of the toolkit's page that says how many tokens agree with 20,480, against the stored study."""

import pandas as pd
import pytest

from shortgpt.utils.data import data_folder

COLUMNS = [("smollm2-135m-instruct", n) for n in (3, 6, 9)]
COLUMNS += [("gemma-3-270m", n) for n in (2, 4, 5)] + [("qwen2.5-coder-1.5b-instruct", n) for n in (3, 6, 8)]
ROWS = {"document after document": "whole documents", "the first 256 of eight documents": "first 256 of each"}


@pytest.fixture(scope="module")
def stored() -> pd.DataFrame:
    return pd.read_csv(data_folder() / "stability.csv")


def of(stored: pd.DataFrame, **wanted: object) -> float:
    rows = stored
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    return rows["value"].iloc[0]


def test_the_page_has_the_stored_agreements(stored):
    page = (data_folder().parent / "docs" / "toolkit.md").read_text(encoding="utf-8")
    for words, setting in ROWS.items():
        found = {"setting": setting, "against": "the same 20,480", "tokens": 2048.0, "measure": "agreement"}
        cells = [f"{of(stored, model=model, n=float(n), **found):.2f}" for model, n in COLUMNS]
        assert f"| 2,048 tokens, {words} | {' | '.join(cells)} |" in page


def test_what_the_page_says_of_the_pass_that_stops_by_itself(stored):
    stops = stored[(stored["question"] == "stopping") & (stored["setting"] == "first 512 of each")]
    read = stops[stops["measure"] == "tokens read"]["value"]
    assert len(read) == len(COLUMNS) and 4050 < read.min() < 4150 and 10_250 < read.max() < 10_350
    agreed = stops[(stops["measure"] == "agreement") & (stops["against"] == "the same 20,480")]["value"].round(2)
    assert sorted(agreed)[3:] == [1.0] * 6 and min(agreed) >= 0.95 and max(sorted(agreed)[:3]) <= 0.97
    ended = stops[stops["measure"] == "stopped"].set_index(["model", "n"])["value"]
    assert ended["qwen2.5-coder-1.5b-instruct", 6.0] == pytest.approx(1 - 0.37, abs=0.005)
