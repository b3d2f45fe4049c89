"""The stored curves, read: sums by hand on two invented models, and the files of the project themselves."""

import json

import numpy as np
import pandas as pd
import pytest

from shortgpt import built_in_text, remove_layers
from shortgpt.course.plots import plot_removal_curves
from shortgpt.course.studies import again, curves
from shortgpt.course.studies.curves import LANGUAGES, paired, removal_accuracy, removal_curves
from shortgpt.evaluation.likelihood import token_losses
from shortgpt.utils.data import data_folder
from tests.small import build_tiny

LOSSES = {"[]": [1.0, 2.0], "[0]": [2.0, 2.5], "[1]": [1.5, 3.0], "[0, 1]": [4.0, 6.0]}
TOKENS, BYTES = [10, 30], [40, 100]


@pytest.fixture
def two_documents(tmp_path, monkeypatch):
    """A model of two layers: English as in `LOSSES`, Chinese twice and code three times as much."""
    monkeypatch.setattr(curves, "data_folder", lambda: tmp_path)
    rows = [
        {"model": "m", "layers": layers}
        | {name: json.dumps([i * x for x in losses]) for i, name in enumerate(LANGUAGES, 1)}
        for layers, losses in LOSSES.items()
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "removal_curves.csv", index=False)
    orders = [
        ("greedy", "en", 1, "[1]"),
        ("greedy", "en", 2, "[0, 1]"),
        ("random", "en", 1, "[0]"),
        ("greedy", "zh", 1, "[0]"),
    ]
    table = pd.DataFrame(orders, columns=["criterion", "text", "removed", "layers"])
    table.assign(model="m", seed=None, depth=2, forward_passes=1, seconds=1).to_csv(
        tmp_path / "removal_orders.csv", index=False
    )
    pd.concat(
        [pd.DataFrame({"model": "m", "language": name, "tokens": TOKENS, "bytes": BYTES}) for name in LANGUAGES]
    ).to_csv(tmp_path / "removal_texts.csv", index=False)


def test_losses_are_means_over_tokens_and_errors_are_paired_over_documents(two_documents):
    table = removal_curves(criterion="greedy", text="en").set_index(["language", "removed"])
    assert sorted(table.index.unique("removed")) == [0, 1, 2] and (table["depth"] == 2).all()
    row = table.loc[("en", 1)]
    difference, tokens = np.array([0.5, 1.0]), np.array(TOKENS)  # without layer 1, document by document
    mean = (difference * tokens).sum() / 40
    assert row["added"] == pytest.approx(mean) and row["times"] == pytest.approx(np.exp(mean))
    assert row["added_error"] == pytest.approx(np.sqrt(2 * (((difference - mean) * tokens) ** 2).sum()) / 40)
    assert row["bits_per_byte"] == pytest.approx((1.5 * 10 + 3 * 30) / np.log(2) / 140)
    assert table.loc[("zh", 1), "added"] == pytest.approx(2 * mean) and row["layers"] == [1] and row["share"] == 0.5
    assert table.loc[("en", 0), "added"] == 0 and table.loc[("en", 0), "criterion"] == "dense"


def test_only_what_was_asked_for(two_documents):
    assert set(removal_curves(text="zh")["criterion"]) == {"dense", "greedy"}
    assert set(removal_curves(criterion="random")["criterion"]) == {"dense", "random"}
    assert len(removal_curves()) == 3 * 5


def test_two_sets_are_compared_document_by_document(two_documents):
    mean, error = paired("m", [0], [1], "en")
    assert mean == pytest.approx((0.5 * 10 - 0.5 * 30) / 40) and error > 0
    assert paired("m", [1, 0], [0, 1]) == (0, 0)


def test_the_stored_files_fit_together():
    """Every set in the curves is one that a criterion chose, a single layer, or none; and every document has its size."""
    orders, losses, documents = (
        pd.read_csv(data_folder() / f"removal_{name}.csv") for name in ("orders", "curves", "texts")
    )
    for name, rows in losses.groupby("model"):
        sizes = documents[documents["model"] == name].groupby("language").size()
        for language in LANGUAGES:
            assert set(rows[language].map(json.loads).map(len)) == {sizes[language]}
        chosen = set(orders.loc[orders["model"] == name, "layers"])
        assert all(layers in chosen or len(json.loads(layers)) < 2 for layers in rows["layers"])
        assert not rows["layers"].duplicated().any() and "[]" in set(rows["layers"])
    assert orders["layers"].map(json.loads).map(len).equals(orders["removed"])
    assert removal_curves()["added"].notna().all()


def test_the_figure_has_a_panel_a_model_and_says_what_each_criterion_costs(two_documents, capsys):
    curves = removal_curves(text="en").query("language == 'en'")
    (ax,) = plot_removal_curves(curves, highlight=["greedy"])
    assert [line.get_label() for line in ax.get_lines()[:2]] == ["greedy", "random"] and "of 2" in ax.get_xlabel()
    plot_removal_curves(curves.assign(depth=5), highlight=[])  # a fifth is a layer
    # e to the 0.625 and to the 0.875, the means over tokens of two documents
    assert "On m, with a fifth of the layers removed (1), perplexity times: random 1.9, greedy 2.4." in " ".join(
        capsys.readouterr().out.split()
    )
    with pytest.raises(ValueError, match="no criterion 'magic' in these curves: choose out of greedy, random"):
        plot_removal_curves(curves, highlight=["magic"])


def test_accuracy_is_told_against_guessing_and_the_dense_model(two_documents, tmp_path):
    asked = pd.DataFrame({"layers": ["[]", "[0]"], "value": [75, 50], "standard_error": 5, "chance": 25, "items": 8})
    asked.assign(model="m", task="science").to_csv(tmp_path / "removal_accuracy.csv", index=False)
    table = removal_accuracy(text="zh")
    assert table["criterion"].tolist() == ["dense", "greedy"] and table["layers"].tolist() == [[], [0]]
    assert table["above_chance"].tolist() == [100, 50] and table["removed"].tolist() == [0, 1]
    assert set(removal_accuracy(criterion="random")["criterion"]) == {"dense", "random"}


def test_what_is_stored_can_be_measured_again(tmp_path, monkeypatch, tokenizer):
    for module in (again, curves):
        monkeypatch.setattr(module, "data_folder", lambda: tmp_path)
    texts = built_in_text("natural_test").drop_duplicates("title").iloc[[3, 5]]
    sizes = texts.assign(model="m", tokens=[10, 30], bytes=[40, 100])
    sizes.to_csv(tmp_path / "removal_texts.csv", index=False)
    kept = {"[]": [1.0, 2.0], "[1]": [1.5, 2.5]}
    rows = [{"model": "m", "layers": layers, "en": json.dumps(losses)} for layers, losses in kept.items()]
    pd.DataFrame(rows).to_csv(tmp_path / "removal_curves.csv", index=False)

    model = build_tiny()
    table = again.measured_again(model, tokenizer, "m", {"one": [1], "none": [], "first": [0]}, progress=False)
    assert table["stored"].fillna(-1).tolist() == [0.5, 0, -1] and table.loc["none", "added"] == 0
    with_and_without = []
    for each in (model, remove_layers(model, [1])):
        ids = [tokenizer(text[:1600], return_tensors="pt")["input_ids"][0] for text in texts["text"]]
        losses = np.concatenate([token_losses(each, row, window=1024, stride=512) for row in ids])
        with_and_without.append(losses.mean())
    assert table.loc["one", "added"] == pytest.approx(with_and_without[1] - with_and_without[0], abs=1e-5)
    assert table.loc["one", "times"] == pytest.approx(np.exp(table.loc["one", "added"]))
    with pytest.raises(ValueError, match="other was not measured in 'en' yet"):
        again.measured_documents("other", "en")


def test_every_panel_shares_one_legend_and_one_look(two_documents):
    stored = removal_curves(text="en").query("language == 'en'").replace("random", "block_influence")
    both = pd.concat([stored, stored[stored["criterion"] != "greedy"].assign(model="another")])
    first, second = plot_removal_curves(both, highlight=[])
    legend = [text.get_text() for text in second.get_legend().get_texts()]
    assert legend == ["greedy", "block influence"], "though the last panel has no greedy"
    looks = [{line.get_label(): line.get_marker() for line in ax.get_lines()} for ax in (first, second)]
    assert looks[0]["block_influence"] == looks[1]["block_influence"] != looks[0]["greedy"]
    assert all(float(tick).is_integer() for ax in (first, second) for tick in ax.get_xticks()), "layers are whole"


def test_the_stored_models_come_in_order_of_size():
    for table in (removal_curves(), removal_accuracy()):
        found = list(table["model"].unique())
        assert found == [name for name in curves.MODELS if name in found]
