"""The frontier against its definition, row by row, on random tables."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from shortgpt import best_within, frontier, frontier_steps
from shortgpt.course.plots import plot_frontier


def beaten(row, other, sign):
    """By the definition: at most as large, at least as good, and better in one of the two."""
    no_worse = other["x"] <= row["x"] and sign * other["y"] <= sign * row["y"]
    return no_worse and (other["x"] < row["x"] or sign * other["y"] < sign * row["y"])


@pytest.mark.parametrize(("seed", "higher"), list(itertools.product(range(20), (False, True))))
def test_exactly_the_rows_that_none_beats(seed, higher):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.integers(0, 6, (12, 2)), columns=["x", "y"])  # few values: many ties
    found = frontier(table, "x", "y", higher_is_better=higher)
    rows = table.to_dict("records")
    expected = {(r["x"], r["y"]) for r in rows if not any(beaten(r, o, -1 if higher else 1) for o in rows)}
    assert list(found.itertuples(index=False, name=None)) == sorted(expected)


def test_rows_without_a_number_are_left_out_and_the_table_is_not_changed():
    table = pd.DataFrame({"memory_mb": [3.0, np.nan, 1.0], "perplexity": [1.0, 0.5, np.nan]}, index=[7, 8, 9])
    before = table.copy()
    assert list(frontier(table).index) == [7]
    pd.testing.assert_frame_equal(table, before)


def test_the_figure_draws_all_models_and_the_line_through_the_best(capsys):
    table = pd.DataFrame(
        {
            "method": ["none", "none", "int8", "int8"],
            "removed": [0, 3, 0, 3],
            "memory_mb": [400.0, 300, 200, 150],
            "perplexity": [30.0, 45, 31, 46],
        }
    )
    ax = plot_frontier(table)
    line = next(line for line in ax.lines if line.get_label() == "frontier")
    assert list(line.get_xdata()) == [150, 200, 400] and list(line.get_ydata()) == [46, 31, 30]
    assert sorted(text.get_text() for text in ax.texts) == ["0", "0", "−3", "−3"]
    said = capsys.readouterr().out
    assert said == (
        "The frontier has 3 of 4 models (memory_mb: perplexity): int8 −3 (150: 46.0), int8 (200: 31.0), none (400: 30.0).\n"
    )
    plt.close(ax.figure)


@pytest.mark.parametrize(("seed", "higher"), list(itertools.product(range(10), (False, True))))
def test_the_best_within_a_budget_is_the_best_of_all_that_fit(seed, higher):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.integers(0, 8, (12, 2)), columns=["x", "y"])
    for budget in range(int(table["x"].min()), 9):
        fits = table[table["x"] <= budget]["y"]
        best = best_within(table, budget, "x", "y", higher_is_better=higher)
        assert best["x"] <= budget and best["y"] == (fits.max() if higher else fits.min())
    with pytest.raises(ValueError, match="no model has x of at most -1: the smallest has"):
        best_within(table, -1, "x", "y")


def test_steps_lead_from_each_model_of_the_frontier_to_the_next():
    table = pd.DataFrame({"memory_mb": [400.0, 150, 200], "perplexity": [30.0, 46, 31]})
    steps = frontier_steps(table)
    assert steps["memory_mb"].tolist() == [150, 200, 400]
    assert steps["more"].tolist()[:2] == [50, 200] and steps["change"].tolist()[:2] == [-15, -1]
    assert steps.iloc[-1][["more", "change"]].isna().all() and "more" not in table


def test_the_plane_names_groups_as_they_are():
    table = pd.DataFrame(
        {"method": ["none", "nf4"], "bits": [32, 4], "removed": 0, "memory_mb": [4.0, 1], "perplexity": [3.0, 4]}
    )
    for group, names in {"method": ["none", "nf4"], "bits": ["32", "4"]}.items():
        ax = plot_frontier(table, group=group)
        assert {text.get_text() for text in ax.get_legend().get_texts()} == {*names, "frontier"}
        plt.close(ax.figure)
