"""Numbers of a configuration that follow from which layers are left are found by trying what they could be."""

import copy

import pytest
from architectures import tiny_config, tiny_model

from shortgpt.pruning.config_fit import differences, fit_config
from shortgpt.pruning.config_slice import keep_in_config


def cut(model, kept):
    """The model with other layers, and a configuration that only counts them."""
    dense = copy.deepcopy(model.config)
    layers = model.model.layers
    model.model.layers = type(layers)([layers[i] for i in kept])
    for i, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = i
    keep_in_config(model.config, kept)
    return dense


def test_nothing_to_fit_leaves_the_configuration_alone():
    model = tiny_model("llama")
    dense = cut(model, [0, 2, 5])
    before = model.config.to_dict()
    assert differences(model, model.config) == [] and fit_config(model, dense, [0, 2, 5]) == []
    assert model.config.to_dict() == before


@pytest.mark.parametrize(("kept", "dense_left"), [([0, 1, 4, 5], 2), ([0, 3, 4, 5], 1), ([2, 3, 4, 5], 0)], ids=str)
def test_how_many_of_the_first_layers_are_dense_is_counted_again(kept, dense_left):
    assert tiny_config("dots1").first_k_dense_replace == 2
    model = tiny_model("dots1")
    dense = cut(model, kept)
    assert bool(differences(model, model.config)) == (dense_left != 2)
    assert fit_config(model, dense, kept) == []
    assert model.config.first_k_dense_replace == dense_left and differences(model, model.config) == []


def test_what_no_number_can_say_is_told():
    """Dense layers behind ones with experts: `first_k_dense_replace` has no words for that."""
    model = tiny_model("dots1")
    layers = model.model.layers
    layers[1], layers[4] = layers[4], layers[1]
    left = fit_config(model, copy.deepcopy(model.config), range(6))
    assert left and all(isinstance(line, str) for line in left)
