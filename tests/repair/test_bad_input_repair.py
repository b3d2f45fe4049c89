"""What merging and healing say when they are called wrongly."""

import pytest
import torch
from bad_input import BATCHES, MODEL, batches, check, forgotten, layers, nan, no_model, no_weights, wrong
from small import build_tiny, random_batch

from shortgpt import heal, merge_layers


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
]
REASONS = {}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_wrong_call_is_one_sentence_and_changes_nothing(case, world):
    check(case, world)


def test_every_parameter_is_asked():
    assert not forgotten("repair", CASES, REASONS)
