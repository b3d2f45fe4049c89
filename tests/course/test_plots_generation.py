"""The divergence along two texts, split by new and repeated pairs of tokens, and its figure."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from shortgpt.course.plots import plot_divergence_along
from shortgpt.course.studies.accumulation import divergence_by_pair
from shortgpt.utils.data import data_folder


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def along(texts: dict[str, list[tuple[list[int], list[float]]]]) -> pd.DataFrame:
    """A table of texts, each given as its tokens and the divergences at them. All have one prompt: prompts may be alike."""
    rows = [
        {"prompt": "same", "written_by": writer, "position": i + 1, "token": token, "divergence": value}
        for writer, each in texts.items()
        for tokens, values in each
        for i, (token, value) in enumerate(zip(tokens, values, strict=True))
    ]
    return pd.DataFrame(rows)


def test_a_pair_is_repeated_if_the_same_text_has_had_it():
    table = along({"pruned": [([1, 2, 1, 2, 2, 2, 2], [9, 8, 7, 1, 6, 2, 3]), ([1, 2], [5, 4])]})
    found = divergence_by_pair(table, stretch=10).set_index("pair")
    # repeated: the second "1 2", and "2 2" from its second time on
    assert found.loc["repeated", ["tokens", "texts", "divergence"]].tolist() == [3, 1, 2]
    assert np.isnan(found.loc["repeated", "error"])
    # new: 9, 8, 7 and 6 of the first text, 5 and 4 of the second: "1 2" there is new
    assert found.loc["new", ["tokens", "texts", "divergence"]].tolist() == [6, 2, 6.5]
    # a ratio over two texts: residuals 30 - 4 * 6.5 = 4 and 9 - 2 * 6.5 = -4, so sqrt(2 * 32) / 6
    assert found.loc["new", "error"] == pytest.approx(8 / 6)


def test_a_mixture_that_falls_is_level_in_both_parts():
    """What fooled the lesson before: more and more repeated pairs, and nothing changes on either kind."""
    tokens = [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6, 1, 2]
    values = [
        1.0 if i < 7 else 0.25 for i in range(len(tokens))
    ]  # the pair "1 2" at place 7 is the first to come again
    table = along({"dense": [(tokens, values)], "pruned": [(tokens, values)]})
    together = table[table["written_by"] == "dense"].set_index("position")["divergence"]
    assert together[:7].mean() > 3 * together[8:].mean()
    found = divergence_by_pair(table, stretch=7)
    assert found.groupby("pair")["divergence"].unique().map(list).to_dict() == {"new": [1.0], "repeated": [0.25]}
    assert found["middle"].isin([4, 11]).all()


def test_new_pairs_of_the_stored_texts_stay_where_they_are():
    """Counted here by hand: what lesson 10 and question 8 say of the stored table."""
    table = pd.read_csv(data_folder() / "along.csv")
    sums = {}
    for (writer, _), text in table.groupby(["written_by", "prompt"]):
        seen, before = set(), None
        for position, token, value in zip(text["position"], text["token"], text["divergence"], strict=True):
            key = writer, "repeated" if (before, token) in seen else "new", (position - 1) // 12
            total, count = sums.get(key, (0.0, 0))
            sums[key] = total + value, count + 1
            seen.add((before, token))
            before = token
    found = divergence_by_pair(table).set_index(["written_by", "pair", "middle"])
    for (writer, pair, part), (total, count) in sums.items():
        row = found.loc[writer, pair, 12 * part + 6.5]
        assert (row["divergence"], row["tokens"]) == (pytest.approx(total / count), count)
    new = found.xs("new", level="pair")
    for writer in ("dense", "pruned"):
        rows = new.loc[writer]
        change = rows["divergence"].iloc[-1] - rows["divergence"].iloc[0]
        assert abs(change) < 2 * np.hypot(rows["error"].iloc[-1], rows["error"].iloc[0]), "no clear change on new pairs"
        assert rows["divergence"].between(0.6, 1).all(), "high everywhere"
        easy = found.loc[writer, "repeated"].iloc[1:]
        assert (easy["divergence"].to_numpy() < rows["divergence"].to_numpy()[1:]).all(), "repeated pairs are easier"
    share = found["tokens"].unstack("pair").pipe(lambda t: t["repeated"] / t.sum(axis=1)).loc["pruned"]
    assert share.iloc[0] < 0.1 and share.iloc[-1] > 0.9, "loops take over"


def test_the_texts_differ_in_line_and_marker_and_the_sentences_have_the_values(capsys):
    texts = [([1, 2, 3, 4], [1.0, 1.0, 3.0, 3.0]), ([1, 2, 3, 4], [2.0, 2.0, 4.0, 4.0])]
    axes = plot_divergence_along(along({"dense": texts, "pruned": texts}), stretch=2, least=1)
    assert [ax.get_title() for ax in axes] == ["new pairs of tokens", "repeated pairs of tokens"]
    shown = [bars.lines[0] for bars in axes[0].containers]
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == [
        "on the dense model's text",
        "on its own text",
    ]
    for look in ("get_linestyle", "get_marker", "get_markerfacecolor"):
        assert len({str(getattr(line, look)()) for line in shown}) == 2
    assert shown[0].get_xydata().tolist() == [[1.5, 1.5], [3.5, 3.5]]
    assert capsys.readouterr().out.startswith(
        "Divergence at new pairs, stretch by stretch: on the dense model's text 1.50 ± 0.50, 3.50 ± 0.50; on its own text"
    )


def test_a_stretch_with_few_tokens_is_not_drawn():
    axes = plot_divergence_along(
        along({"dense": [([1, 2, 3], [1, 1, 1])], "pruned": [([1, 2], [1, 1])]}), stretch=2, least=2
    )
    assert [bars.lines[0].get_xdata().tolist() for bars in axes[0].containers] == [[1.5], [1.5]]


def test_other_tables_are_refused():
    with pytest.raises(TypeError, match="along must be a table of divergence_along\\(\\), got DataFrame"):
        plot_divergence_along(pd.DataFrame({"position": [1]}))
    with pytest.raises(ValueError, match="stretch must be at least 1"):
        divergence_by_pair(along({"dense": [([1], [1])]}), stretch=0)
