"""The readers of the twins' tables and their figures, on invented twins whose means are known."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from shortgpt.course import plots
from shortgpt.course.studies import twins
from shortgpt.course.studies.twins import (
    difference,
    disagreements,
    over_seeds,
    prunability,
    twin_layers,
    twin_removal,
    twin_steps,
)

DEPTH, SEEDS = 8, (0, 1, 2)
DENSE = {"pre-norm": 3.0, "mamba": 3.2}


def loss(kind: str, seed: int, removed: int, repaired: bool) -> float:
    """Pre-norm loses (1 + seed) / 10 a layer and mamba twice that; a repair brings half of it back."""
    added = removed * (1 + seed) / 10 * (1 + (kind == "mamba")) / (1 + repaired)
    return DENSE[kind] + seed / 100 + added


@pytest.fixture(autouse=True)
def invented(tmp_path, monkeypatch):
    monkeypatch.setattr(twins, "data_folder", lambda: tmp_path)
    folder = tmp_path / "twins"
    folder.mkdir()
    removal, layers = [], []
    for kind in ("mamba", "pre-norm"):  # not in their order
        for seed in SEEDS:
            named = {"name": f"twin-{kind}-{seed}", "kind": kind, "seed": seed, "depth": DEPTH}
            right = {
                "addition": 50.0,
                "addition_whole": 20.0,
                "brackets": 60.0,
                "brackets_whole": 30.0,
                "agreement": 90.0,
            }

            def row(criterion, draw, removed, repaired, gone, named=named, right=right, kind=kind, seed=seed):
                value = loss(kind, seed, removed, repaired) + draw
                key = {"criterion": criterion, "draw": draw, "removed": removed, "repaired": repaired}
                removal.append(named | key | {"layers": json.dumps(gone), "loss": value} | right)

            row("dense", 0, 0, False, [])
            for removed in (1, 2):
                for repaired in (False, True):
                    row("block_influence", 0, removed, repaired, [3, 4][:removed])
                    row("relative_magnitude", 0, removed, repaired, [3, 5][:removed])
                    for draw in (0, 1, 2):
                        row("random", draw, removed, repaired, [draw, 7][:removed])
            for layer in range(DEPTH):
                values = {
                    "block_influence": 0.5 / (layer + 1),
                    "relative_magnitude": 0.2,
                    "norm_out": 1.0 + layer + seed,
                }
                values |= {"expected_norm": 2.0, "loss": named["seed"] + 4.0, "dense_loss": 3.0, "loss_ffn": 3.5}
                layers.append(
                    {"name": named["name"], "kind": kind, "seed": seed, "layer": layer, "loss_attention": np.nan}
                    | values
                )
    pd.DataFrame(removal).to_csv(folder / "removal.csv", index=False)
    pd.DataFrame(layers).to_csv(folder / "layers.csv", index=False)
    yield
    plt.close("all")


def test_kinds_come_in_one_order_and_the_dense_twin_starts_every_line():
    table = twin_removal()
    assert table["kind"].unique().tolist() == ["pre-norm", "mamba"]
    start = table[table["removed"] == 0]
    assert (start["added"] == 0).all() and len(start) == 2 * 3 * 3 * 2, "kinds, seeds, criteria, cut and repaired"
    row = table.query(
        "name == 'twin-mamba-2' and criterion == 'block_influence' and removed == 2 and not repaired"
    ).iloc[0]
    assert row["added"] == pytest.approx(2 * 0.3 * 2) and row["layers"] == [3, 4] and row["share"] == 0.25
    assert set(twin_removal(criterion="random", repaired=True)["criterion"]) == {"random"}


def test_random_sets_count_as_one_value_a_seed():
    row = twin_removal(criterion="random").query("name == 'twin-pre-norm-0' and removed == 1 and not repaired")
    assert len(row) == 1 and row["added"].item() == pytest.approx(0.1 + (0 + 1 + 2) / 3)


def test_errors_are_over_seeds():
    table = over_seeds(twin_removal(criterion="block_influence", repaired=False).query("removed == 2"), "added")
    table = table.set_index("kind")
    values = np.array([0.2, 0.4, 0.6])
    assert table.loc["pre-norm", "mean"] == pytest.approx(values.mean()) and (table["n"] == 3).all()
    assert table.loc["pre-norm", "error"] == pytest.approx(values.std(ddof=1) / 3**0.5)
    alone = over_seeds(pd.DataFrame({"kind": ["a"], "seed": [0], "x": [1.0]}), "x")
    assert np.isnan(alone["error"].item()) and alone["n"].item() == 1, "one seed says nothing about others"


def test_kinds_are_compared_seed_by_seed():
    rows = twin_removal(criterion="block_influence", repaired=False).query("removed == 1")
    row = difference(rows, "added").iloc[0]
    extra = np.array([0.1, 0.2, 0.3])  # mamba loses twice as much
    assert (row["kind"], row["n"]) == ("mamba", 3) and row["mean"] == pytest.approx(extra.mean())
    assert row["error"] == pytest.approx(extra.std(ddof=1) / 3**0.5)
    with pytest.raises(ValueError, match="no twin of the kind 'rwkv' was measured: take one of pre-norm, mamba"):
        difference(rows, "added", other="rwkv")


def test_the_central_table():
    table = prunability()
    assert table["kind"].tolist() == ["pre-norm", "mamba"], "the best first"
    row = table.iloc[1]
    assert (row["removed"], row["depth"], row["n"]) == (2, DEPTH, 3)
    assert row["dense"] == pytest.approx(3.21) and row["cut"] == pytest.approx(0.8)
    assert row["repaired"] == pytest.approx(0.4) and row["repaired_error"] == pytest.approx(0.2 / 3**0.5)
    with pytest.raises(ValueError, match="no twin was measured with a share of 0.9"):
        prunability(0.9)


def test_layers_know_their_depth_and_cost():
    table = twin_layers()
    assert (
        (table["depth"] == DEPTH).all() and (table["added_ffn"] == 0.5).all() and table["added_attention"].isna().all()
    )
    assert table.query("name == 'twin-mamba-1' and layer == 3")["added"].item() == 2


def test_where_two_scores_choose_differently():
    (row,) = disagreements("twin-pre-norm-1").to_dict("records")
    assert (row["removed"], row["only_block_influence"], row["only_relative_magnitude"]) == (2, [4], [5])
    assert row["added_block_influence"] == pytest.approx(0.4) and disagreements("twin-pre-norm-1", most=1).empty


def test_steps_are_read(tmp_path):
    named = {"name": "twin-mamba-0", "kind": "mamba", "seed": 0, "criterion": "greedy", "removed": 4}
    pd.DataFrame([named | {"depth": 3}]).to_csv(tmp_path / "twins" / "steps_restored.csv", index=False)
    assert twin_steps("restored")["depth"].tolist() == [3]


def test_profiles_have_a_thin_line_a_seed(capsys):
    axes = plots.plot_twin_layers(twin_layers())
    lines = axes[0].get_lines()
    assert len(axes) == 2 and len(lines) == 4 and axes[0].get_title() == "pre-norm (3 seeds)"
    np.testing.assert_allclose(lines[-1].get_ydata(), 0.5 / np.arange(1, DEPTH + 1))
    assert "Block Influence is lowest for pre-norm at layer 7 (0.062), mamba at layer 7" in capsys.readouterr().out


def test_norms_are_beside_theory(capsys):
    axes = plots.plot_twin_norms(twin_layers())
    measured, theory = axes[0].get_lines()[-2:]
    np.testing.assert_allclose(measured.get_ydata(), np.arange(DEPTH) + 2.0)  # of seeds 0, 1, 2
    assert set(theory.get_ydata()) == {2.0} and theory.get_linestyle() == "--"
    assert "pre-norm 4.50, mamba 4.50" in capsys.readouterr().out


def test_removal_has_a_marker_a_kind_and_errors(capsys):
    ax = plots.plot_twin_removal(twin_removal(criterion="block_influence", repaired=False))
    first, second = (container.lines[0] for container in ax.containers)
    assert first.get_marker() != second.get_marker() and first.get_linestyle() != second.get_linestyle()
    np.testing.assert_allclose(np.asarray(first.get_ydata(), float), [0, 0.2, 0.4])
    np.testing.assert_allclose(np.asarray(first.get_xdata(), float), [0, 12.5, 25])
    assert (
        "With 25 % of the layers removed, added is: pre-norm 0.40 ± 0.12, mamba 0.80 ± 0.23." in capsys.readouterr().out
    )


def test_the_dot_plot_shows_cut_and_repaired(capsys):
    ax = plots.plot_prunability(prunability())
    cut, repaired = (container.lines[0] for container in ax.containers)
    np.testing.assert_allclose(np.asarray(cut.get_xdata(), float), [0.4, 0.8])
    np.testing.assert_allclose(np.asarray(repaired.get_xdata(), float), [0.2, 0.4])
    assert cut.get_marker() != repaired.get_marker()
    assert "pre-norm 0.40 cut and 0.20 repaired; mamba 0.80 cut and 0.40 repaired." in capsys.readouterr().out
    plots.plot_prunability(prunability().assign(repaired=np.nan))
    assert "mamba 0.80 cut (no repair: layer 0 goes)." in capsys.readouterr().out


def test_what_a_state_brings_back_is_weighted_by_cases(capsys):
    rows = [("asked", 0, 0.0, 10), ("asked", 4, 1.0, 30), ("asked", 4, 0.0, 10), ("noun", 4, 0.5, 40)]
    table = pd.DataFrame(rows, columns=["role", "depth", "restored", "n"])
    ax = plots.plot_restored(table)
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), [0, 75])
    assert "asked 75 % (depth 4), noun 50 % (depth 4)." in capsys.readouterr().out
