"""Scores as things: equal or not, hashable, and their provenance without their numbers."""

from dataclasses import replace

import numpy as np
import pytest
from small import LAYERS, random_batch

from shortgpt import remove_layers, score_layers
from shortgpt.scoring.influence import LayerScores
from shortgpt.scoring.provenance import Provenance


def test_scores_are_equal_if_all_they_hold_is(tiny, batch):
    scores = score_layers(tiny, [batch], progress=False)
    again = score_layers(tiny, [batch], progress=False)
    assert scores == again and hash(scores) == hash(again) and len({scores, again}) == 1
    assert scores != score_layers(tiny, [random_batch(seed=9)], progress=False)
    for change in (
        {"sums": scores.sums + 1},
        {"sums": scores.sums[:, 1:]},
        {"counts": scores.counts + 1},
        {"metric": "relative_magnitude"},
        {"removed": (2,)},
        {"model": "another"},
        {"bos": not scores.bos},
        {"digests": ()},
    ):
        assert replace(scores, **change) != scores, change
    assert scores != "scores" and scores is not None


def test_a_layer_without_a_score_makes_scores_no_less_equal():
    sums = np.array([[1.0, np.nan, 3.0]])
    assert LayerScores(sums, np.ones(1, int)) == LayerScores(sums.copy(), np.ones(1, int))
    assert LayerScores(sums, np.ones(1, int)) != LayerScores(np.nan_to_num(sums), np.ones(1, int))


@pytest.mark.parametrize("before", [[], [1, 4]])
def test_provenance_is_that_of_scores_of_the_same_model_and_text(tiny, batch, before):
    model = remove_layers(tiny, before)
    source = Provenance.of(model, [batch, random_batch(2, 9, seed=3)])
    scores = score_layers(model, [batch, random_batch(2, 9, seed=3)], progress=False)
    assert source == scores.provenance and hash(source) == hash(scores.provenance)
    assert source.calibration == scores.calibration and source.calibration["samples"] == 5
    assert source.original_layers == scores.original_layers == [i for i in range(LAYERS) if i not in before]
    assert Provenance.of(model) == replace(source, calibration={})
    with pytest.raises(ValueError, match="hold no token"):
        Provenance.of(model, [])
