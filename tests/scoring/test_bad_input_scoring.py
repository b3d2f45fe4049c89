"""What scoring says when it is called wrongly."""

import numpy as np
import pytest
import torch
from bad_input import (
    BATCHES,
    MODEL,
    NAN,
    batches,
    broken,
    check,
    count,
    forgotten,
    gpt2,
    nan,
    no_model,
    no_weights,
    wrong,
)
from small import LAYERS, random_batch

from shortgpt import block_influence, plan_agreement, score_layers, score_sublayers, span_distances, tokens_needed
from shortgpt.scoring.influence import LayerScores

SCORES = LayerScores(np.random.default_rng(0).random((4, LAYERS)), np.full(4, 8))
NOT_A_METRIC = "unknown metric .*: choose one of block_influence, angular_distance, relative_magnitude"

CASES = [
    *wrong(
        block_influence,
        {"x_in": torch.ones(2, 3), "x_out": torch.ones(2, 3)},
        ({"x_in": [1.0], "x_out": [1.0]}, TypeError, "states must be tensors, got list"),
        ({"x_out": None}, TypeError, "states must be tensors, got None"),
        ({"x_in": torch.ones(3), "x_out": torch.ones(4)}, ValueError, "one shape, got \\[3\\] and \\[4\\]"),
        ({"x_out": torch.ones(3)}, ValueError, "one shape, got \\[2, 3\\] and"),
        ({"x_in": torch.tensor(1.0), "x_out": torch.tensor(1.0)}, ValueError, "at least one axis.*got \\[\\]"),
    ),
    *wrong(
        score_layers,
        {"model": MODEL, "batches": BATCHES, "progress": False},
        no_model(),
        *batches(),
        ({"metric": "cosine"}, ValueError, NOT_A_METRIC),
        ({"metric": ["a"]}, ValueError, NOT_A_METRIC),
        ({"metric": None}, ValueError, NOT_A_METRIC),
        nan(says=NAN),
        ({"model": lambda w: broken(w, float("inf"))}, ValueError, NAN),
        no_weights(),
        count("until_stable"),
        ({"until_stable": LAYERS}, ValueError, f"until_stable must be 1 to {LAYERS - 1}, .*, got {LAYERS}"),
        ({"until_stable": 2, "confidence": "high"}, TypeError, "confidence must be a number, got 'high'"),
        ({"until_stable": 2, "confidence": 95}, ValueError, "confidence must be above 0 and below 1, .*, got 95"),
        ({"model": gpt2, "batches": [random_batch(tokens=257)]}, ValueError, "257 tokens"),
    ),
    *wrong(
        span_distances,
        {"model": MODEL, "batches": BATCHES},
        no_model(),
        *batches(),
        (
            {"metric": "relative_magnitude"},
            ValueError,
            "unknown metric 'relative_magnitude': choose one of block_influence, angular_distance",
        ),
        ({"tokens": "first"}, ValueError, "unknown tokens 'first': choose one of all, last"),
        nan(says=NAN),
        no_weights(),
    ),
    *wrong(
        score_sublayers,
        {"model": MODEL, "batches": BATCHES, "progress": False},
        no_model(),
        *batches(),
        ({"metric": 3}, ValueError, NOT_A_METRIC),
        nan(says="layer 3 .*NaN or infinity"),
        no_weights(),
    ),
    *wrong(
        plan_agreement,
        {"scores": {"a": SCORES, "b": SCORES}, "n": 2},
        ({"scores": SCORES}, TypeError, "scores must be a dict from name to scores"),
        ({"scores": [SCORES] * 2}, TypeError, "scores must be a dict .* got list"),
        ({"scores": {"a": SCORES.table}}, TypeError, "expected scores .* got DataFrame"),
        ({"scores": {"a": SCORES}}, ValueError, "at least two texts, got 1"),
        (
            {"scores": {"a": SCORES, "b": LayerScores(np.ones((2, 4)), np.ones(2))}},
            ValueError,
            "the scores 'b' are of other layers than the first",
        ),
        count("n"),
        ({"n": LAYERS}, ValueError, f"n must be 1 to {LAYERS - 1} .*, got {LAYERS}"),
    ),
    *wrong(
        tokens_needed,
        {"scores": SCORES, "n": 2},
        ({"scores": {"a": SCORES}}, TypeError, "expected scores .* got dict"),
        (
            {"scores": LayerScores(np.ones((1, 4)), np.ones(1))},
            ValueError,
            "of one sample only: score at least two",
        ),
        count("n"),
        ({"n": LAYERS}, ValueError, f"n must be 1 to {LAYERS - 1} "),
        count("resamples"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
    ),
]
REASONS = {"score_layers.watch": "for those who measure something else: a context manager of theirs, called as it is"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_wrong_call_is_one_sentence_and_changes_nothing(case, world):
    check(case, world)


def test_every_parameter_is_asked():
    assert not forgotten("scoring", CASES, REASONS)
