"""The figure of accumulating errors: its points are means over prompts, and it can be read without colour."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from shortgpt.course.plots import plot_divergence_along
from shortgpt.course.plots.results import stretches


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def along(lengths: dict[str, list[int]]) -> pd.DataFrame:
    """Texts of these lengths; on the dense text 0.5 everywhere, on the own text text number + position."""
    rows = [
        {
            "prompt": "same",  # two prompts may be alike
            "written_by": writer,
            "position": position,
            "divergence": 0.5 if writer == "dense" else text + position,
        }
        for text in range(max(map(len, lengths.values())))
        for writer, each in lengths.items()
        if text < len(each)
        for position in range(1, each[text] + 1)
    ]
    return pd.DataFrame(rows)


def test_points_are_means_of_texts_with_standard_errors():
    own = along({"dense": [4], "pruned": [4, 4, 6]}).query("written_by == 'pruned'")
    points = stretches(own, 4)
    assert points.index.tolist() == [2.5, 5.5] and points["texts"].tolist() == [3, 1]
    # means of positions 1 to 4 are 2.5, 3.5, 4.5; of 5 and 6, in the third text alone, 7.5
    assert points["mean"].tolist() == pytest.approx([3.5, 7.5])
    assert points["error"].tolist() == pytest.approx([1 / np.sqrt(3), 0])


def test_the_texts_differ_in_line_and_marker_and_the_sentence_has_the_ends(capsys):
    ax = plot_divergence_along(along({"dense": [8, 8], "pruned": [8, 8]}), stretch=4)
    shown = dict(zip(["dense", "own"], (bars.lines[0] for bars in ax.containers), strict=True))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["on the dense model's text", "on its own text"]
    for look in ("get_linestyle", "get_marker", "get_markerfacecolor"):
        assert len({str(getattr(line, look)()) for line in shown.values()}) == 2
    assert capsys.readouterr().out == (
        "Divergence from the dense model, from the first to the last 4 tokens: on the dense model's text it goes from 0.50 "
        "to 0.50, on its own text it goes from 3.00 to 7.00.\n"
    )
    assert shown["dense"].get_xydata().tolist() == [[2.5, 0.5], [6.5, 0.5]]
    assert shown["own"].get_ydata().tolist() == pytest.approx([3, 7])


def test_a_stretch_that_some_texts_do_not_reach_has_a_smaller_marker():
    ax = plot_divergence_along(along({"dense": [8, 8], "pruned": [8, 4]}), stretch=4)
    assert ax.containers[0].lines[0].get_markersize() < 7
    dense, own = (line.get_xdata().tolist() for line in ax.lines if line.get_markersize() == 7)
    assert dense == [2.5, 6.5] and own == [2.5]


def test_a_given_ax_is_used():
    _, ax = plt.subplots()
    assert plot_divergence_along(along({"dense": [8], "pruned": [8]}), ax) is ax


def test_other_tables_are_refused():
    with pytest.raises(TypeError, match="table must be from divergence_along\\(\\), got DataFrame"):
        plot_divergence_along(pd.DataFrame({"position": [1]}))
    with pytest.raises(ValueError, match="stretch must be at least 1"):
        plot_divergence_along(along({"dense": [1], "pruned": [1]}), stretch=0)
