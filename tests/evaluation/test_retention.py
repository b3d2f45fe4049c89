"""Retention against arithmetic by hand, its errors against simulation, and the figure beside the paper's numbers."""

import numpy as np
import pandas as pd
import pytest

from shortgpt import retention_table
from shortgpt.utils.data import data_folder


def scores(**tasks: tuple[float, float, float]) -> pd.DataFrame:
    """``task=(value, standard_error, chance)``."""
    rows = [(task, "acc", *numbers) for task, numbers in tasks.items()]
    return pd.DataFrame(rows, columns=["task", "metric", "value", "standard_error", "chance"])


DENSE = scores(a=(80, 2, 50), b=(40, 3, 0), c=(26, 4, 25))
PRUNED = scores(a=(65, 3, 50), b=(10, 1, 0), c=(24, 4, 25))


def by_task(table: pd.DataFrame, model: str) -> pd.DataFrame:
    return table[table["model"] == model].set_index("task")


def test_retention_by_hand():
    rows = by_task(retention_table({"dense": DENSE, "pruned": PRUNED}), "pruned")
    assert rows.loc[["a", "b", "c"], "retention"].tolist() == pytest.approx([81.25, 25, 100 * 24 / 26])
    assert rows.loc[["a", "b"], "above_chance"].tolist() == pytest.approx([50, 25])  # (65 - 50) / (80 - 50), 10 / 40
    assert np.isnan(rows.loc["c", "above_chance"])  # the dense model itself is at chance
    assert rows.loc["average", "value"] == pytest.approx(33) and rows.loc["average", "chance"] == 25
    assert rows.loc["average", "retention"] == pytest.approx(100 * 99 / 146)  # sums of 65 + 10 + 24 and 80 + 40 + 26
    assert rows.loc["average", "above_chance"] == pytest.approx(100 * 24 / 71)
    assert rows.loc["average", "standard_error"] == pytest.approx((9 + 1 + 16) ** 0.5 / 3)


def test_the_dense_model_keeps_everything_surely():
    rows = by_task(retention_table({"dense": DENSE, "pruned": PRUNED}), "dense")
    assert (rows["retention"] == 100).all() and (rows["retention_error"] == 0).all()
    assert rows["above_chance"].dropna().tolist() == pytest.approx([100, 100, 100])


def test_a_model_that_guesses_keeps_nothing_above_chance():
    guess = scores(a=(50, 2, 50), b=(0, 0, 0), c=(25, 4, 25))
    rows = by_task(retention_table({"dense": DENSE, "guess": guess}), "guess")
    assert rows["above_chance"].dropna().tolist() == [0, 0, 0] and rows.loc["a", "retention"] == 62.5
    assert rows.loc["b", "retention_error"] == 0 and rows.loc["a", "above_chance_error"] == pytest.approx(100 * 2 / 30)


@pytest.mark.parametrize("correlation", [-0.5, 0.0, 0.8])
def test_errors_are_those_of_simulated_experiments(correlation):
    """A million pairs of scores drawn as the table states them. The delta method is good while d is far from 0."""
    table = retention_table({"dense": DENSE[:2], "pruned": PRUNED[:2]}, correlation=correlation)
    rows = by_task(table, "pruned")
    rng = np.random.default_rng(0)
    shared, own = rng.standard_normal((2, 2, 1_000_000))
    dense = DENSE["value"][:2].to_numpy()[:, None] + DENSE["standard_error"][:2].to_numpy()[:, None] * shared
    noise = correlation * shared + (1 - correlation**2) ** 0.5 * own
    pruned = PRUNED["value"][:2].to_numpy()[:, None] + PRUNED["standard_error"][:2].to_numpy()[:, None] * noise
    for i, task in enumerate(["a", "b"]):
        chance = DENSE["chance"][i]
        assert rows.loc[task, "retention_error"] == pytest.approx(100 * (pruned[i] / dense[i]).std(), rel=0.03)
        above = (pruned[i] - chance) / (dense[i] - chance)
        assert rows.loc[task, "above_chance_error"] == pytest.approx(100 * above.std(), rel=0.03)
    if correlation == 0:  # the averages' errors are uncorrelated only then
        ratio = pruned.mean(0) / dense.mean(0)
        assert rows.loc["average", "retention_error"] == pytest.approx(100 * ratio.std(), rel=0.03)


def test_tables_in_one_or_in_a_dict_are_the_same():
    together = pd.concat([DENSE.assign(model="dense"), PRUNED.assign(model="pruned")])
    pd.testing.assert_frame_equal(retention_table(together), retention_table({"dense": DENSE, "pruned": PRUNED}))


def test_the_papers_own_retention_comes_out():
    """Table 2 as it is printed, put through our function: the averages and retentions that the paper prints beside it."""
    cells = pd.read_csv(data_folder() / "paper" / "table2_benchmarks.csv").rename(
        columns={"score": "value", "benchmark": "task"}
    )
    printed = pd.read_csv(data_folder() / "paper" / "table2_summary.csv").set_index(["model", "method"])
    for model, rows in cells.groupby("model", sort=False):
        results = rows.assign(model=rows["method"], metric="acc", standard_error=0.0, chance=0.0)
        table = retention_table(results).query("task == 'average'").set_index("model")
        for method in table.index:
            assert table.loc[method, "retention"] == pytest.approx(
                printed.loc[(model, method), "retention_percent"], abs=0.03
            )


def test_the_first_metric_counts_and_unknown_errors_stay_unknown():
    two = pd.concat([DENSE, DENSE.assign(metric="acc_norm", value=1.0)])
    assert by_task(retention_table({"x": two}), "x").loc["a", "value"] == 80
    rows = by_task(retention_table({"x": DENSE, "y": PRUNED.assign(standard_error=np.nan)}), "y")
    assert rows["retention_error"].isna().all() and rows["retention"].notna().all()


# ---- the figure ------------------------------------------------------------------------------------------------------
@pytest.fixture
def table():
    return retention_table({"dense": DENSE, "ours": PRUNED})


def test_the_figure_shows_ours_and_the_papers_numbers(table, capsys):
    from shortgpt.course.plots import plot_beside_paper

    ax = plot_beside_paper(table, paper=["Llama-2-7B"])
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[:3] == ["a", "b", "c"] and labels[3] == "cmnli" and labels[-1] == "average" and len(labels) == 17
    (printed,) = (line for line in ax.lines if line.get_label().startswith("Llama-2-7B"))
    points = {labels[int(y)]: x for x, y in zip(*printed.get_data(), strict=True)}
    assert points["xsum"] == pytest.approx(100 * 0.67 / 19.40) and points["average"] == pytest.approx(86.31, abs=0.03)
    said = capsys.readouterr().out
    assert "Ours keeps 68 % of the dense model's score on average of 3 tasks, least on b (25 %)" in said
    assert "Llama-2-7B 86 %, least on xsum (3 %). These are other models" in said


def test_chance_is_taken_off_the_papers_numbers_too(table, capsys):
    from shortgpt.course.plots import plot_beside_paper

    ax = plot_beside_paper(table, paper=["Llama-2-7B"], y="above_chance")
    labels = [label.get_text() for label in ax.get_yticklabels()]
    (printed,) = (line for line in ax.lines if line.get_label().startswith("Llama-2-7B"))
    points = {labels[int(y)]: x for x, y in zip(*printed.get_data(), strict=True)}
    assert points["piqa"] == pytest.approx(100 * (66.43 - 50) / (77.91 - 50))
    assert np.isnan(points["cmnli"]) and np.isnan(points["wsc"])  # dense at chance: nothing to keep
    assert "above chance" in capsys.readouterr().out


def test_the_figure_is_readable_without_colour(table):
    from shortgpt.course.plots import plot_beside_paper

    ax = plot_beside_paper(table)
    marks = [
        (line.get_marker(), line.get_markerfacecolor())
        for line in ax.lines
        if line.get_marker() not in ("None", "|", None)
    ]
    assert len({mark for mark, _ in marks}) == 3 and len(ax.get_legend().get_texts()) == 3


def test_wrong_names_are_answered_with_the_right_ones(table):
    from shortgpt.course.plots import plot_beside_paper

    with pytest.raises(ValueError, match="no model 'x': choose out of dense, ours"):
        plot_beside_paper(table, model="x")
    with pytest.raises(ValueError, match="table 2 has no model 'GPT-4': choose out of Llama-2-7B"):
        plot_beside_paper(table, paper=["GPT-4"])
    with pytest.raises(ValueError, match="table 2 has no method 'x'"):
        plot_beside_paper(table, method="x")
    with pytest.raises(ValueError, match="unknown y 'value'"):
        plot_beside_paper(table, y="value")
