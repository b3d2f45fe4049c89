"""The grid of pruning and quantization: the numbers of the single functions, resumed without computing twice."""

import errno
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from small import build_tiny

from shortgpt import added_losses, perplexity, quantize, read_grid, remove_layers, save, size, size_quality_grid
from shortgpt.course.plots import plot_frontier
from shortgpt.evaluation import grid
from shortgpt.evaluation.likelihood import token_losses

TEXTS = ["the river rose in the night.", "and took the bridge with it.\n", "nobody saw the bridge again"]
ORDER = [3, 1, 4]
METHODS = ["none", "int8", "rtn4"]


@pytest.fixture(scope="module")
def model():
    return build_tiny()


def measured(model, tokenizer, counts=(0, 2), methods=METHODS, **options):
    return size_quality_grid(model, tokenizer, ORDER, counts, methods, texts=TEXTS, progress=False, **options)


def candidate(model, row):
    """The model of a row, made anew."""
    scheme = {"int8": (8, "int8"), "rtn4": (4, "rtn"), "none": None}[row["method"]]
    if scheme is None:
        return remove_layers(model, ORDER[: row["removed"]])
    if row["order"] == "quantize first":
        return remove_layers(quantize(model, scheme[0], method=scheme[1]), ORDER[: row["removed"]])
    return quantize(remove_layers(model, ORDER[: row["removed"]]), scheme[0], method=scheme[1])


def test_each_row_is_what_the_single_functions_say(model, tokenizer, tmp_path):
    table = measured(model, tokenizer, orders=grid.ORDERS, disk=True)
    keys = list(table[["removed", "method", "order"]].itertuples(index=False, name=None))
    both = [(2, m, o) for m in ("int8", "rtn4") for o in grid.ORDERS]
    assert sorted(keys) == sorted(
        both + [(n, "none", "either") for n in (0, 2)] + [(0, m, "either") for m in METHODS[1:]]
    )
    for i, row in enumerate(table.to_dict("records")):
        expected = candidate(model, row)
        assert row["layers"] == 6 - row["removed"]
        assert row["bits"] == {"none": 32, "int8": 8, "rtn4": 4}[row["method"]]
        assert row["memory_bytes"] == size(expected)["memory_bytes"] == 1e6 * row["memory_mb"]
        assert row["perplexity"] == pytest.approx(perplexity(expected, tokenizer, TEXTS), rel=1e-6)
        if i in (0, len(table) - 1):
            disk = size(expected, save(expected, tmp_path / str(i)))["disk_bytes"]
            assert row["disk_bytes"] == pytest.approx(disk, rel=0.01)
    assert table["tokens_per_second"].isna().all()


def test_a_further_call_measures_only_what_is_new(model, tokenizer, tmp_path, monkeypatch):
    path = tmp_path / "new folder" / "grid.csv"
    calls = []
    monkeypatch.setattr(
        grid, "token_losses", lambda *args, **options: calls.append(1) or token_losses(*args, **options)
    )
    first = measured(model, tokenizer, methods=["none", "int8"], path=path)
    assert len(calls) == 4 * len(TEXTS) and len(pd.read_csv(path)) == 4
    again = measured(model, tokenizer, methods=["none", "int8"], path=path)
    assert len(calls) == 4 * len(TEXTS)
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    more = measured(model, tokenizer, counts=(0, 2, 3), path=path)
    assert len(calls) == 9 * len(TEXTS)
    pd.testing.assert_frame_equal(more, measured(model, tokenizer, counts=(0, 2, 3)), check_exact=True)
    assert [file.name for file in path.parent.iterdir()] == ["grid.csv"]


def test_an_interrupted_call_keeps_what_it_measured(model, tokenizer, tmp_path, monkeypatch):
    path = tmp_path / "grid.csv"
    real_size, seen = grid.size, []

    def interrupted(*args):
        seen.append(args)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real_size(*args)

    monkeypatch.setattr(grid, "size", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measured(model, tokenizer, path=path)
    assert len(pd.read_csv(path)) == 2
    monkeypatch.setattr(grid, "size", real_size)
    pd.testing.assert_frame_equal(measured(model, tokenizer, path=path), measured(model, tokenizer), check_exact=True)


def test_a_full_disk_is_one_sentence_and_the_rows_before_stay(model, tokenizer, tmp_path, monkeypatch):
    path = tmp_path / "grid.csv"
    measured(model, tokenizer, methods=["none"], path=path)
    before = path.read_bytes()

    def full(table, file, **options):
        file.write_text("half a ta")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_csv", full)
        with pytest.raises(OSError, match=r"the disk is full: .*grid.csv was not written; free some space$"):
            measured(model, tokenizer, methods=["none", "int8"], path=path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    assert len(measured(model, tokenizer, methods=["none", "int8"], path=path)) == 4


def test_a_misspelt_task_is_told_before_anything_is_measured(model, tokenizer, monkeypatch):
    monkeypatch.setattr("shortgpt.evaluation.benchmarks._index", lambda *args: SimpleNamespace(all_tasks=["piqa"]))
    monkeypatch.setattr(grid, "fingerprint", lambda *args: pytest.fail("measured"))
    tokenizer.eos_token = "?"
    with pytest.raises(ValueError, match="unknown task pica"):
        measured(model, tokenizer, tasks=["pica"])


@pytest.mark.parametrize("what", ["model", "texts", "order", "window"])
def test_a_file_of_other_measurements_is_refused(what, model, tokenizer, tmp_path):
    path = tmp_path / "grid.csv"
    size_quality_grid(model, tokenizer, ORDER, [2], ["none"], texts=TEXTS, path=path, progress=False)
    before = path.read_bytes()
    other = {"model": build_tiny(seed=1)}.get(what, model)
    order = [1, 3, 4] if what == "order" else ORDER
    texts = TEXTS[:2] if what == "texts" else TEXTS
    window = {"window": 8, "stride": 4} if what == "window" else {}
    with pytest.raises(ValueError, match=r"grid.csv holds measurements of another model"):
        size_quality_grid(other, tokenizer, order, [2], ["none"], texts=texts, path=path, progress=False, **window)
    assert path.read_bytes() == before


@pytest.mark.parametrize("tasks", [(), ("grammar",)])
def test_a_grid_is_read_from_its_file(tasks, model, tokenizer, tmp_path):
    tokenizer.eos_token, path = "?", tmp_path / "grid.csv"
    table = measured(model, tokenizer, counts=(0, 1), path=path, tasks=tasks, limit=3, disk=True)
    pd.testing.assert_frame_equal(read_grid(path), table, check_exact=True)


def test_the_quantized_model_is_made_once_for_all_that_are_pruned_from_it(model, tokenizer, monkeypatch):
    made = []
    monkeypatch.setattr(grid, "quantize", lambda *args, **options: made.append(args) or quantize(*args, **options))
    measured(model, tokenizer, counts=(0, 1, 2), methods=["int8"], orders=["quantize first"])
    assert len(made) == 1


# ---- do the losses add up? --------------------------------------------------------------------------------------------
def made_up(losses, tokens):
    rows = [
        {"removed": n, "method": m, "order": o, "losses": list(losses[n, m]), "tokens": tokens}
        for n, m, o in [
            (0, "none", "either"),
            (2, "none", "either"),
            (0, "nf4", "either"),
            (2, "nf4", "prune first"),
        ]
    ]
    return pd.DataFrame(rows)


def test_losses_that_add_up_have_no_interaction():
    tokens = [10, 30]
    dense, pruning, rounding = np.array([20.0, 66.0]), np.array([5.0, 3.0]), np.array([1.0, 4.0])
    losses = {
        (0, "none"): dense,
        (2, "none"): dense + pruning,
        (0, "nf4"): dense + rounding,
        (2, "nf4"): dense + pruning + rounding,
    }
    row = added_losses(made_up(losses, tokens)).iloc[0]
    assert row["added_by_pruning"] == pytest.approx(8 / 40) and row["added_by_quantization"] == pytest.approx(5 / 40)
    assert row["added_by_both"] == pytest.approx(13 / 40)
    assert row["interaction"] == pytest.approx(0) and row["interaction_error"] == pytest.approx(0)
    assert row["documents"] == 2


def test_the_standard_error_is_that_of_the_mean_of_equally_long_texts():
    rng = np.random.default_rng(0)
    losses = {key: rng.random(5) * 40 for key in [(0, "none"), (2, "none"), (0, "nf4"), (2, "nf4")]}
    row = added_losses(made_up(losses, [20] * 5)).iloc[0]
    each = (losses[2, "nf4"] - losses[2, "none"] - losses[0, "nf4"] + losses[0, "none"]) / 20
    assert row["interaction"] == pytest.approx(each.mean())
    assert row["interaction_error"] == pytest.approx(each.std(ddof=1) / np.sqrt(5))


def test_the_added_losses_of_a_grid_are_differences_of_log_perplexity(model, tokenizer, tmp_path):
    table = measured(model, tokenizer, orders=grid.ORDERS, path=tmp_path / "grid.csv")
    loss = {key: np.log(p) for *k, p in table[["removed", "method", "order", "perplexity"]].values if (key := tuple(k))}
    added = added_losses(table)
    assert len(added) == 4
    for row in added.to_dict("records"):
        dense, pruned, rounded = (loss[n, m, "either"] for n, m in ((0, "none"), (2, "none"), (0, row["method"])))
        assert row["added_by_pruning"] == pytest.approx(pruned - dense, abs=1e-9)
        assert row["added_by_both"] == pytest.approx(loss[2, row["method"], row["order"]] - dense, abs=1e-9)
        assert row["interaction"] == pytest.approx(
            row["added_by_both"] - row["added_by_pruning"] - (rounded - dense), abs=1e-9
        )
    assert (added["interaction"].abs() > 1e-9).all()


def test_the_plot_takes_the_grid(model, tokenizer):
    table = measured(model, tokenizer)
    ax = plot_frontier(table[table["order"] != "quantize first"])
    names = {text.get_text() for text in ax.get_legend().get_texts()}
    assert names == {*table["method"], "frontier"} and len(ax.texts) == 2 * table["method"].nunique()
    plt.close(ax.figure)


def test_tasks_and_speed_are_columns(model, tokenizer):
    tokenizer.eos_token = "?"
    one = {"counts": [2], "methods": ["int8"]}
    torch.manual_seed(0)
    table = measured(model, tokenizer, **one, tasks=["grammar"], limit=4, speeds=False)
    assert 0 <= table["grammar"].item() <= 100
    assert list(table.columns).index("grammar") == list(table.columns).index("perplexity") + 1


def test_without_progress_the_tasks_show_nothing_either(model, tokenizer, capfd):
    tokenizer.eos_token = "?"
    measured(model, tokenizer, counts=[1], methods=["none"], tasks=["grammar"], limit=2)
    assert capfd.readouterr().err == ""
