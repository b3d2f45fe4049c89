"""What plans and pruning say when they are called wrongly."""

import json

import numpy as np
import pytest
import torch
from bad_input import (
    MODEL,
    batches,
    check,
    count,
    forgotten,
    layers,
    no_model,
    no_weights,
    wrong,
)
from small import LAYERS

from shortgpt import (
    PruningPlan,
    equal_parameters,
    prune_prefill,
    remove_channels,
    remove_heads,
    remove_layers,
    remove_sublayers,
    width_scores,
)


def plan_file(w, **changed):
    """The path of a plan with some of its fields changed, or left out (…)."""
    fields = {"schema": 1, "layers": 6, "removed": [1]} | changed
    return w.file(json.dumps({k: v for k, v in fields.items() if v is not ...}))


def write(removed, path):
    PruningPlan(LAYERS, removed).to_json(path)


def mergekit(removed):
    PruningPlan(LAYERS, removed).to_mergekit()


def prefilled(model, layers, **batch):
    prune_prefill(model, layers)(**batch)


OF_ANOTHER = PruningPlan(30, (1,))
# of each way to name layers wrongly, one row: `check_indices` reads all lists of layers
LISTS = [
    (None, TypeError, "layers are a list of numbers, for instance \\[3, 4\\], got None"),
    (3, TypeError, "layers are a list of numbers, for instance \\[3, 4\\], got 3"),
    (MODEL, TypeError, "a list of numbers.*got LlamaForCausalLM"),
    ([1.0], ValueError, "a layer is named by its number, 0 to 5, got 1.0"),
    ("23", ValueError, "a layer is named by its number, 0 to 5, got '2'"),
    ([True], ValueError, "a layer is named by its number, 0 to 5, got True"),
    (torch.tensor([1, 2]), ValueError, "a layer is named by its number, 0 to 5, got.*tolist"),
    ([-1], ValueError, "unknown layer -1: this model has layers 0 to 5"),
    ([1, LAYERS], ValueError, "unknown layer 6: this model has layers 0 to 5"),
    ([10**30], ValueError, f"unknown layer {10**30}: this model"),
    ((np.int64(2), 2), ValueError, "layer 2 is named twice: name each layer to remove once"),
]


def width_rows():
    """Both ways to remove a layer's inner width ask the same."""
    return [
        no_model(),
        ({"n": "3"}, TypeError, "n must be a whole number, got '3'"),
        ({"n": -1}, ValueError, "n must be 0 to .*got -1"),
        ({"n": 64}, ValueError, "n must be 0 to .*got 64"),
        ({"n": None}, ValueError, "give either n .* or ratio"),
        ({"ratio": 0.5}, ValueError, "give either n .* or ratio"),
        ({"n": None, "ratio": 1}, ValueError, "ratio is a fraction of the .*got 1"),
        ({"n": None, "ratio": "half"}, TypeError, "ratio must be a number, got 'half'"),
        ({"scores": "taylor"}, ValueError, "unknown scores 'taylor': .*magnitude"),
        ({"scores": "activation", "batches": None}, TypeError, "batches must be a list"),
        *batches(scores="activation"),
    ]


CASES = [
    *wrong(
        PruningPlan,
        {"layers": LAYERS, "removed": (1,)},
        *[({"removed": value}, kind, says) for value, kind, says in LISTS],
        count("layers"),
        ({"layers": 10**9}, ValueError, "layers must be at most .*no model has so many"),
        ({"layers": 2, "removed": (0, 1)}, ValueError, "removing 2 of 2 layers leaves none: keep at least one"),
        ({"criterion": 3}, TypeError, "criterion must be a string, got 3"),
        ({"scores": [0.1]}, TypeError, "scores must be a dict from layer to score, got list"),
        ({"scores": {9: 0.1}}, ValueError, "unknown layer 9: "),
        ({"calibration": [3]}, TypeError, "calibration must be a dict .*got list"),
        ({"model": None}, TypeError, "model must be a string, got None"),
        ({"search": [3]}, TypeError, "search must be a dict .*got list"),
        ({"versions": "1.0"}, TypeError, "versions must be a dict .*got '1.0'"),
    ),
    *wrong(
        PruningPlan.from_json,
        {},
        ({"path": lambda w: w.folder / "no.json"}, FileNotFoundError, "no such plan: .*no.json"),
        ({"path": lambda w: w.folder / "mine"}, ValueError, "mine is not a pruning plan: "),
        ({"path": None}, TypeError, "expected the path of a plan, got None"),
        ({"path": lambda w: w.file('{"schema": 1, ')}, ValueError, "not a pruning plan: .*to_json"),
        ({"path": lambda w: w.file("[1, 2]")}, ValueError, "not a pruning plan: "),
        ({"path": lambda w: w.file("3")}, ValueError, "not a pruning plan: "),
        ({"path": lambda w: plan_file(w, layers=...)}, ValueError, "not a pruning plan: "),
        ({"path": lambda w: plan_file(w, author="me")}, ValueError, "not a pruning plan: .*'author'"),
        ({"path": lambda w: plan_file(w, scores=[1])}, ValueError, "not a pruning plan: "),
        (
            {"path": lambda w: plan_file(w, removed=[9])},
            ValueError,
            "plan.json is not a pruning plan: .*unknown layer 9",
        ),
        ({"path": lambda w: plan_file(w, removed=3)}, ValueError, "plan.json is not a pruning plan: "),
        ({"path": lambda w: w.file('{"schema": 2, "drop": []}')}, ValueError, "schema 2, .*update"),
        name="PruningPlan.from_json",
    ),
    *wrong(
        write,
        {"removed": (1,)},
        ({"path": None}, TypeError, "expected the path of a file, got None"),
        ({"path": lambda w: w.new / "p.json"}, FileNotFoundError, "new"),
        name="PruningPlan.to_json",
    ),
    *wrong(
        mergekit,
        {},
        ({"removed": (1,)}, ValueError, "names no model: pass model='owner/name'"),
        name="PruningPlan.to_mergekit",
    ),
    *wrong(
        remove_layers,
        {"model": MODEL, "layers": [1]},
        no_model(),
        layers(),
        ({"layers": range(LAYERS)}, ValueError, "removing 6 of 6 layers leaves none: keep"),
        ({"layers": OF_ANOTHER}, ValueError, "a dense model of 30 layers"),
    ),
    *wrong(
        prune_prefill,
        {"model": MODEL, "layers": [1]},
        no_model(),
        layers(),
        ({"layers": OF_ANOTHER}, ValueError, "model of 30 layers"),
        no_weights(),
    ),
    *wrong(
        prefilled,
        {"model": MODEL, "layers": [1], "input_ids": torch.ones(1, 4, dtype=torch.long)},
        ({"use_cache": False}, ValueError, "needs a cache.*leave use_cache on"),
        name="prune_prefill.forward",
    ),
    *wrong(
        remove_sublayers,
        {"model": MODEL, "ffn": [1]},
        no_model(),
        layers("attention"),
        layers("ffn"),
        no_weights(),
    ),
    *wrong(remove_channels, {"model": MODEL, "n": 1}, *width_rows()),
    *wrong(remove_heads, {"model": MODEL, "n": 1}, *width_rows()),
    *wrong(
        width_scores,
        {"model": MODEL, "kind": "heads"},
        no_model(),
        ({"kind": "rows"}, ValueError, "unknown kind 'rows': .*channels, heads"),
        ({"scores": 1}, ValueError, "unknown scores 1: "),
        *batches(scores="activation"),
    ),
    *wrong(equal_parameters, {"model": MODEL, "layers": 1}, no_model(), count("layers")),
]
REASONS = {"remove_sublayers.outputs": "given by our own reader of a saved model, which checks what it read"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_wrong_call_is_one_sentence_and_changes_nothing(case, world):
    check(case, world)


def test_every_parameter_is_asked():
    assert not forgotten("pruning", CASES, REASONS)
