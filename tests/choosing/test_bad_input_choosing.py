"""What choosing layers says when it is called wrongly."""

import numpy as np
import pytest
from bad_input import (
    BATCHES,
    MODEL,
    NAN,
    batches,
    check,
    count,
    forgotten,
    gpt2,
    layers,
    nan,
    no_model,
    no_weights,
    unreachable,
    wrong,
)
from small import LAYERS, build_tiny, random_batch

from shortgpt import (
    Trials,
    choose_by,
    choose_layers,
    choose_repaired,
    compare_criteria,
    leave_one_out,
    removal_order,
)
from shortgpt.scoring.influence import LayerScores

SCORES = LayerScores(np.random.default_rng(0).random((4, LAYERS)), np.full(4, 8))
NOT_AN_OBJECTIVE = "unknown objective .*: choose one of loss, divergence"

NOT_TRIALS = "expected trials of removed layers, for instance Trials\\(model, batches\\), got "


def nan_scores() -> LayerScores:
    sums = np.ones((2, LAYERS))
    sums[:, 2:4] = np.nan
    return LayerScores(sums, np.ones(2, dtype=int))


def trial(model, batches, layers):
    Trials(model, batches)(layers)


def rebased(model, batches, layers):
    Trials(model, batches).rebase(layers)


CASES = [
    *wrong(
        choose_layers,
        {"scores": SCORES, "n": 2},
        ({"scores": None}, TypeError, "expected scores from score_layers\\(\\), got None"),
        ({"scores": SCORES.values}, TypeError, "expected scores from score_layers\\(\\), got ndarray"),
        ({"scores": {"ffn": SCORES}}, TypeError, "expected scores .*got dict"),
        ({"n": "3"}, TypeError, "n must be a whole number, got '3'"),
        ({"n": -1}, ValueError, "n must be 0 to 5 .*got -1"),
        ({"n": LAYERS}, ValueError, "n must be 0 to 5 .*got 6"),
        ({"n": 10**30}, ValueError, "n must be 0 to 5"),
        ({"n": None}, ValueError, "give either n .* or ratio"),
        ({"ratio": 0.2}, ValueError, "give either n .* or ratio"),
        ({"n": None, "ratio": 1.0}, ValueError, "ratio is a fraction .*got 1.0"),
        ({"n": None, "ratio": float("nan")}, ValueError, "ratio is a fraction .*got nan"),
        ({"n": None, "ratio": "25%"}, TypeError, "ratio must be a number, got '25%'"),
        ({"n": None, "ratio": False}, TypeError, "ratio must be a number, got False"),
        ({"order": "best"}, ValueError, "unknown order 'best': choose one of score"),
        ({"order": []}, ValueError, "unknown order list: choose one of score"),
        ({"by": "greedy"}, ValueError, "without the model, .* not by 'greedy': pass the model"),
        count("seed", least=0, order="random"),
        ({"scores": nan_scores(), "n": 6 - 1}, ValueError, "layer 2 has no score \\(NaN\\)"),
    ),
    *wrong(
        choose_layers,
        {"scores": MODEL, "n": 2, "by": "greedy", "batches": BATCHES, "progress": False},
        *batches(),
        ({"by": "best"}, ValueError, "unknown criterion 'best': choose one of "),
        ({"ratio": 0.5}, ValueError, "give either n .* or ratio"),
        ({"n": LAYERS}, ValueError, "n must be 0 to 5 .*got 6"),
        ({"objective": "mmlu"}, ValueError, NOT_AN_OBJECTIVE),
        ({"kind": 1}, ValueError, "unknown kind 1: "),
        count("budget"),
        count("seed", least=0),
        no_weights("scores"),
        nan("scores"),
    ),
    *wrong(
        removal_order,
        {"scores": SCORES},
        ({"scores": None}, TypeError, "expected scores from score_layers\\(\\), got None"),
        ({"order": "best"}, ValueError, "unknown order 'best': choose one of score"),
        count("seed", least=0, order="random"),
    ),
    *wrong(
        Trials,
        {"model": MODEL, "batches": BATCHES},
        no_model(),
        *batches(),
        ({"objective": "mmlu"}, ValueError, NOT_AN_OBJECTIVE),
        (
            {"batches": [{k: v[:, :1] for k, v in random_batch().items()}]},
            ValueError,
            "no sample has two tokens, so there is none to predict: give longer text",
        ),
        no_weights(),
        ({"model": gpt2, "batches": [random_batch(1, 257)]}, ValueError, "257 tokens .*256 positions"),
    ),
    *wrong(
        trial,
        {"model": lambda w: build_tiny(), "batches": BATCHES, "layers": [2]},
        layers(),
        ({"layers": range(LAYERS)}, ValueError, "removing 6 of 6 layers leaves none"),
        nan(),
        name="Trials.__call__",
    ),
    *wrong(rebased, {"model": MODEL, "batches": BATCHES}, layers(), name="Trials.rebase"),
    *wrong(
        leave_one_out,
        {"trials": lambda w: Trials(w.model, [w.batch]), "progress": False},
        ({"trials": lambda w: w.model.config}, TypeError, NOT_TRIALS),
        ({"trials": None}, TypeError, f"{NOT_TRIALS}None"),
        ({"trials": None, "depth": 6}, TypeError, f"{NOT_TRIALS}None"),
        count("depth"),
    ),
    *wrong(
        choose_repaired,
        {"model": MODEL, "batches": lambda w: [w.batch] * 2, "n": 1, "progress": False},
        no_model(),
        *batches(),
        ({"batches": BATCHES}, ValueError, "at least two batches"),
        ({"n": 6}, ValueError, "n must be 0 to 5 .*got 6"),
        ({"n": 1.5}, TypeError, "n must be a whole number"),
        ({"kind": 1}, ValueError, "unknown kind 1: "),
        count("budget"),
        count("seed", least=0),
        no_weights(),
    ),
    *wrong(
        choose_by,
        {"model": MODEL, "batches": BATCHES, "criterion": "greedy", "n": 1},
        no_model(),
        *batches(),
        ({"criterion": "score"}, ValueError, "unknown criterion 'score': .*"),
        ({"criterion": None}, ValueError, "unknown criterion None: choose"),
        ({"n": -1, "criterion": "search"}, ValueError, "n must be 0 to 5 .*got -1"),
        ({"n": 6, "criterion": "reverse"}, ValueError, "n must be 0 to 5 .*got 6"),
        ({"n": "3"}, TypeError, "n must be a whole number, got '3'"),
        count("budget", criterion="search"),
        count("seed", least=0, criterion="random"),
        ({"objective": None}, ValueError, "unknown objective None"),
        nan(criterion="block_influence_iterative", says=NAN),
        nan(),
    ),
    *wrong(
        compare_criteria,
        {"model": MODEL, "batches": BATCHES, "counts": [1], "criteria": ["reverse"], "measure": unreachable},
        no_model(),
        *batches(),
        ({"measure": "perplexity"}, TypeError, "measure must be a function .*'perplexity'"),
        ({"criteria": "reverse"}, TypeError, "criteria must be a list of strings, got 'reverse'"),
        ({"criteria": ["reverse", "x"]}, ValueError, "unknown criterion 'x': choose one of random, "),
        ({"counts": 1}, TypeError, "counts must be a list of whole numbers, .*got 1"),
        ({"counts": [1, 6]}, ValueError, "n must be 0 to 5 .*got 6"),
        ({"counts": []}, ValueError, "counts is empty: give at least one"),
        ({"seeds": [-1], "criteria": ["random"]}, ValueError, "seed must be at least 0, got -1"),
        ({"seeds": 0, "criteria": ["random"]}, TypeError, "seeds must be a list of whole numbers.*got 0"),
        ({"seeds": (), "criteria": ["random"]}, ValueError, "seeds is empty: give at least one"),
        ({"objective": "mmlu"}, ValueError, NOT_AN_OBJECTIVE),
        count("budget"),
    ),
]
PASSED_ON = "the options of choose_layers, which have rows there"
REASONS = {"choose_by.options": PASSED_ON, "choose_repaired.options": PASSED_ON}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_wrong_call_is_one_sentence_and_changes_nothing(case, world):
    check(case, world)


def test_every_parameter_is_asked():
    assert not forgotten("choosing", CASES, REASONS)
