"""What merging and healing say when they are called wrongly."""

import pytest
import torch
from bad_input import (
    BATCHES,
    MODEL,
    TEXTS,
    TOKENIZER,
    batches,
    check,
    count,
    forgotten,
    layers,
    nan,
    no_model,
    no_tokenizer,
    no_weights,
    on_meta,
    wrong,
)
from small import build_tiny, random_batch

from shortgpt import distill, heal, merge_layers, remove_layers


def changed_layer(what: str) -> torch.nn.Module:
    """A model whose layer 2 or 3 can't take part in sums of weights."""
    model = build_tiny()
    two, three = model.model.layers[2].mlp.up_proj, model.model.layers[3].mlp
    if what == "sharing":
        three.up_proj.weight = two.weight
    elif what == "uneven":
        three.gate = torch.nn.Linear(2, 2)
    else:
        two.weight = torch.nn.Parameter(two.weight.detach().to(torch.int8), requires_grad=False)
    return model


CASES = [
    *wrong(
        merge_layers,
        {"model": MODEL, "layers": [3]},
        no_model(),
        layers(),
        ({"layers": [0, 3]}, ValueError, "layer 0 is removed.*keep layer 0"),
        (
            {"model": lambda w: changed_layer("sharing")},
            ValueError,
            "layers 2 and 3 share weights.*shortgpt.heal",
        ),
        ({"model": lambda w: changed_layer("uneven")}, ValueError, "layer 3 has other weights than layer 2"),
        (
            {"model": lambda w: changed_layer("quantized")},
            ValueError,
            "the weights of layer 2 are quantized or not in memory",
        ),
    ),
    *wrong(
        heal,
        {"model": MODEL, "layers": [2], "batches": BATCHES, "progress": False},
        no_model(),
        layers(),
        *batches(),
        ({"kind": "lora"}, ValueError, "unknown kind 'lora': .*fold, fold_both, linear"),
        ({"sites": [1]}, ValueError, "unknown sites list: .*gaps, all"),
        ({"kind": "linear", "sites": "all"}, ValueError, "sites='all' .*needs kind='fold'"),
        ({"layers": [0, 3]}, ValueError, "layer 0 is removed.*keep layer 0"),
        ({"batches": [random_batch(rows=1)]}, ValueError, "at least two samples"),
        nan(layers=[4], says="layer 3 can't be patched: hidden states hold NaN or infinity"),
        no_weights(),
    ),
    *wrong(
        distill,
        {"pruned": lambda w: remove_layers(w.model, [2]), "teacher": MODEL, "tokenizer": TOKENIZER, "texts": TEXTS * 9}
        | {"tokens": 64, "length": 16, "batch_size": 2, "progress": False},
        no_model("pruned"),
        no_model("teacher"),
        no_tokenizer(),
        no_weights("teacher"),
        ({"pruned": on_meta}, ValueError, "holds no weights"),
        ({"pruned": lambda w: changed_layer("quantized")}, ValueError, "quantized: heal it first"),
        ({"teacher": lambda w: remove_layers(w.model, [1])}, ValueError, "was not made of this teacher of 5 layers"),
        ({"texts": []}, ValueError, "the text is empty"),
        ({"texts": 3}, TypeError, "text must be a list of strings"),
        ({"texts": None}, ValueError, "no begin and no end token, which sampling needs"),
        ({"held_back": "one text"}, TypeError, "held_back must be a list of strings"),
        ({"held_back": []}, ValueError, "the calibration text is empty"),
        *map(count, ["tokens", "batch_size", "at_once", "evaluations", "lora", "top_k"]),
        ({"length": 1}, ValueError, "length must be at least 2"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"learning_rate": "high"}, TypeError, "learning_rate must be a number"),
        ({"learning_rate": -1.0}, ValueError, "learning_rate must be a finite number from 0, got -1"),
        ({"temperature": 0}, ValueError, "temperature must be a finite number above 0, got 0"),
        ({"states": float("nan")}, ValueError, "states must be a finite number from 0, got nan"),
        ({"checkpointing": 1}, TypeError, "checkpointing must be True or False, got 1"),
        ({"folder": 3}, TypeError, "expected the path of a folder, got 3"),
        ({"report": 3}, TypeError, "report must be a function of a row, got 3"),
        nan("teacher", says="the loss is no number"),
    ),
]
REASONS = {}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_wrong_call_is_one_sentence_and_changes_nothing(case, world):
    check(case, world)


def test_every_parameter_is_asked():
    assert not forgotten("repair", CASES, REASONS)
