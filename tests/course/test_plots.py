"""Figures show what they are given and say it in a sentence."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from small import random_batch

from shortgpt import hidden_states, score_layers, span_distances
from shortgpt.course import plots


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def sentence(capsys) -> str:
    text = capsys.readouterr().out.strip()
    assert text.endswith(".") and len(text) > 30 and "\n" not in text
    return text


def test_score_dots_stand_at_the_scores_and_tell_the_removed(tiny, capsys):
    table = score_layers(tiny, [random_batch()], progress=False).table
    table["score"] = [0.05, 0.02, 0.03, 0.9, 0.025, 0.04]  # one score beyond the axis
    ax = plots.plot_scores(table, removed=[1, 4])
    marks = [line for line in ax.lines if line.get_marker() in ("o", "s", "^")]  # not the ends of the error bars
    dots = {round(x): (y, line.get_marker()) for line in marks for x, y in line.get_xydata()}
    low, top = ax.get_ylim()
    assert low == 0 and ax.get_yscale() == "linear", "equal distances are equal differences"
    for layer, score in enumerate(table["score"]):
        if layer == 3:
            assert dots[layer][0] < top < score and dots[layer][1] == "^"
            assert "0.90" in [text.get_text() for text in ax.texts]
        else:
            assert dots[layer][0] == pytest.approx(score)
    assert [layer for layer, (_, marker) in sorted(dots.items()) if marker == "s"] == [1, 4]
    lowest = table.nsmallest(2, "score").sort_values("layer")["layer"]
    assert f"layers {', '.join(map(str, lowest))}" in sentence(capsys)


def test_norms_are_those_of_the_states(tiny, capsys):
    states = hidden_states(tiny, random_batch())
    ax = plots.plot_norms(states)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), states[:, :, 1:].norm(dim=-1).flatten(1).mean(1), rtol=1e-5)
    sentence(capsys)


def test_the_heat_map_is_symmetric_with_ones_on_the_diagonal(tiny, capsys):
    spans = span_distances(tiny, [random_batch()])
    values = np.asarray(plots.plot_similarity(spans).collections[0].get_array()).reshape(7, 7)
    np.testing.assert_allclose(values, values.T)
    np.testing.assert_allclose(np.diag(values), 1)
    assert values[1, 3] == pytest.approx(1 - spans.query("start == 1 and end == 3")["score"].item())
    sentence(capsys)


def test_sweeps_have_a_marker_per_line_and_their_ends_in_the_sentence(capsys):
    sweep = pd.DataFrame({"removed": [0, 3, 0, 3], "value": [30.0, 44.0, 30.0, 900.0], "order": ["a", "a", "b", "b"]})
    ax = plots.plot_sweep(sweep, hue="order")
    assert len({line.get_marker() for line in ax.lines}) == 2 and len({line.get_linestyle() for line in ax.lines}) == 2
    text = sentence(capsys)
    assert text == "Perplexity from 0 to 3 layers removed: a 30.0 to 44.0, b 30.0 to 900.0."


def test_a_line_that_ends_earlier_says_where(capsys):
    sweep = pd.DataFrame({"removed": [0, 3, 6, 0, 3], "value": [30, 44, 76, 30, 123456.7], "order": list("aaabb")})
    plots.plot_sweep(sweep, hue="order")
    assert sentence(capsys).endswith("layers removed: a 30.0 to 76.0, b 30.0 to 123,457 (at 3).")


@pytest.mark.parametrize(
    "low, high, labels",
    [
        (30, 96, ["30", "50", "70"]),
        (0.025, 1.1, ["0.05", "0.1", "0.2", "0.5", "1"]),
        (2.5, 1500, ["10", "100", "1,000"]),
    ],
)
@pytest.mark.parametrize("axis", ["x", "y"])
def test_log_axes_have_plain_numbers(axis, low, high, labels):
    _, ax = plt.subplots()
    ax.set(**{f"{axis}scale": "log", f"{axis}lim": (low, high)})
    plots.plain_log_ticks(ax, axis)
    ax.figure.draw_without_rendering()
    on = ax.xaxis if axis == "x" else ax.yaxis
    assert [tick.label1.get_text() for tick in on.get_major_ticks() if low <= tick.get_loc() <= high] == labels
    assert not any(tick.label1.get_text() for tick in on.get_minor_ticks())


def test_retention_panels_that_share_axes_start_with_the_same_row():
    retention = pd.DataFrame({"minus 3": [90.0, 70.0], "minus 6": [80.0, 120.0]}, index=["grammar", "last_word"])
    _, axes = plt.subplots(1, 2, sharex=True, sharey=True)
    for ax in axes:
        plots.plot_retention(retention, ax)
    for ax in axes:
        assert ax.yaxis_inverted() and ax.get_ylim() == (1.5, -0.5)
    assert axes[0].get_xlim() == axes[1].get_xlim()


def test_the_strip_crosses_what_is_left_out_and_writes_the_text_below(capsys):
    ax = plots.plot_strip(6, {(): "is  Paris\n$x$", (4, 1): "is not"})
    crossed = [[box.get_hatch() == "xxx" for box in ax.patches[row * 6 : row * 6 + 6]] for row in range(2)]
    assert [[i for i, out in enumerate(row) if out] for row in crossed] == [[], [1, 4]]
    texts = [text.get_text() for text in ax.texts]
    assert texts == ["all layers", "… is Paris " + plots.literal("$x$"), "without 1, 4", "… is not"]
    assert sentence(capsys).endswith("all layers; without 1, 4.")


def test_one_vector_is_drawn_with_two_markers_a_layer(capsys):
    rows = [(11, "first", 117.0), (11, "others", 37.5), (2, "first", 33.0), (2, "others", 90.0)]
    ax = plots.plot_one_vector(pd.DataFrame(rows, columns=["layer", "skipped_for", "perplexity"]), 30.0)
    first, others, dense = ax.lines
    assert first.get_ydata().tolist() == [117, 33] and others.get_ydata().tolist() == [37.5, 90]
    assert first.get_marker() != others.get_marker() and set(dense.get_ydata()) == {30.0}
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["layer 11", "layer 2"]
    assert "layer 11: 117.0 and 37.5; layer 2: 33.0 and 90.0." in sentence(capsys)


def test_the_other_figures_draw_and_speak(capsys):
    plots.plot_layers(6, {"ours": [1, 2], "last": [5]})
    assert "1, 2 of 6" in sentence(capsys)
    retention = pd.DataFrame({"minus 3": [90.0, 70.0]}, index=["grammar", "last_word"])
    plots.plot_retention(retention)
    assert "last_word keeps the least (70 %)" in sentence(capsys)
