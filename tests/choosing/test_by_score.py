"""One door: any criterion, n or ratio, from scores or from the model; the older names give the same plans."""

import subprocess
import sys
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from small import LAYERS, random_batch

from shortgpt import choose_by, choose_layers, choose_repaired, remove_layers, score_layers
from shortgpt.choosing.criteria import CRITERIA, WAYS
from shortgpt.choosing.names import Baseline, Criterion
from shortgpt.choosing.orders import BASELINES, plan_for
from shortgpt.scoring.influence import METRICS
from shortgpt.scoring.provenance import Provenance

QUICK = dict(budget=8, progress=False)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_door_and_the_older_name_give_one_plan(tiny, criterion):
    batches = [random_batch(seed=1), random_batch(2, 9, seed=2)]
    plan = choose_layers(tiny, ratio=0.34, by=criterion, batches=iter(batches), seed=3, **QUICK)
    assert plan == choose_by(tiny, batches, criterion, 2, seed=3, **QUICK) and plan.criterion == criterion


def test_the_repaired_search_is_a_criterion_too(tiny):
    batches = [random_batch(4, 24, seed=seed) for seed in range(4)]
    plan = choose_layers(tiny, 2, by="repaired_search", batches=batches, kind="linear", **QUICK)
    assert plan == choose_repaired(tiny, batches, 2, kind="linear", **QUICK)
    assert plan.criterion == "repaired_search" and plan.search["objective"] == "loss after repair (linear)"
    assert set(plan.search) == {"objective", "value", "evaluations", "seconds", "seed", "budget"}


@pytest.mark.parametrize("metric", METRICS)
def test_from_the_model_or_from_its_scores_is_the_same(tiny, batch, metric):
    scores = score_layers(tiny, [batch], metric=metric, progress=False)
    plan = choose_layers(scores, 3)
    for other in (
        choose_layers(scores, 3, by="score"),
        choose_layers(scores, 3, by=metric),
        choose_layers(scores, ratio=0.5),
        choose_layers(tiny, 3, by=metric, batches=[batch], progress=False),
    ):
        assert other == plan
    if metric == "block_influence":
        assert choose_layers(tiny, 3, batches=[batch], progress=False) == plan


@pytest.mark.parametrize("order", BASELINES)
@pytest.mark.parametrize("before", [[], [1, 4]])
def test_a_baseline_needs_no_more_than_the_number_of_layers(tiny, batch, order, before):
    model = remove_layers(tiny, before)
    scores = score_layers(model, [batch], progress=False)
    plan = choose_layers(scores, 2, by=order, seed=5)
    assert (
        plan == choose_layers(scores, 2, order=order, seed=5) == choose_layers(scores.provenance, 2, by=order, seed=5)
    )
    assert plan == choose_layers(model, 2, by=order, batches=[batch], seed=5)
    unread = choose_layers(model, 2, by=order, seed=5)
    assert unread == replace(plan, calibration={}) == choose_layers(Provenance.of(model), 2, by=order, seed=5)
    assert plan.layers == LAYERS and list(plan.removed[: len(before)]) == before


def test_layers_named_by_hand_become_a_plan(tiny):
    plan = plan_for(Provenance.of(remove_layers(tiny, [1])), [0, 3])
    assert plan.removed == (1, 0, 4) and plan.layers == LAYERS and plan.criterion == "by hand"
    with pytest.raises(ValueError, match="unknown layer 5: this model has layers 0 to 4"):
        plan_for(Provenance.of(remove_layers(tiny, [1])), [5])


def test_the_names_are_those_of_the_functions():
    assert {*get_args(Criterion)} == {*WAYS} >= {*CRITERIA, *METRICS} and {*get_args(Baseline)} == {*BASELINES}


def test_what_the_door_refuses(tiny, batch):
    scores = score_layers(tiny, [batch], progress=False)
    for wrong, message in [
        (lambda: choose_layers(scores, 2, by="greedy"), "not by 'greedy': pass the model in the place of scores"),
        (
            lambda: choose_layers(scores, 2, by="relative_magnitude"),
            "chosen by score, reverse, sequential, random, not by",
        ),
        (lambda: choose_layers(scores.provenance, 2), "not by None: pass the model"),
        (lambda: choose_layers(tiny, 2, by="best", batches=[batch]), "unknown criterion 'best': choose one of random"),
        (lambda: choose_layers(tiny, 2, by="greedy"), "batches must be a list .* got None"),
        (lambda: choose_layers(tiny, by="greedy", batches=[batch]), "give either n .* or ratio"),
        (lambda: choose_layers(tiny, 1, by="greedy", batches=[]), "hold no token"),
        (lambda: choose_layers(np.ones(6), 1), "expected scores from score_layers"),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            wrong()


@pytest.mark.slow
def test_choosing_by_scores_does_not_wait_for_the_criteria():
    code = "import shortgpt, sys; shortgpt.choose_layers; print('shortgpt.choosing.criteria' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )
