"""Our own format: what no configuration describes comes back equal, and plain transformers refuses it."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from shortgpt import load, remove_layers, remove_sublayers, save
from shortgpt.checkpoints.facts import empty_model, model_facts
from shortgpt.checkpoints.own_format import is_own_format, read_recipe, restore


@pytest.fixture
def folder(tiny, tokenizer, tmp_path):
    return save(remove_layers(remove_sublayers(tiny, attention=[2]), [0]), tmp_path / "own", tokenizer=tokenizer)


def test_it_comes_back_equal(folder, tiny, batch):
    assert is_own_format(folder) and read_recipe(folder)["steps"][0]["attention"] == [2]
    model = remove_layers(remove_sublayers(tiny, attention=[2]), [0])
    with torch.inference_mode():
        expected = model(**batch).logits
        assert torch.equal(restore(folder)(**batch).logits, expected)
        assert torch.equal(load(folder)[0](**batch).logits, expected)
    with pytest.raises(ValueError, match="shortgpt_pruned"):
        AutoModelForCausalLM.from_pretrained(folder)


def test_facts_are_those_of_the_model_without_its_weights(folder):
    facts, model = model_facts(folder), restore(folder)
    assert (facts["format"], facts["layers"], facts["removed_layers"], facts["dtype"]) == (
        "shortgpt",
        5,
        [0],
        "float32",
    )
    assert facts["parameters"] == sum(weight.numel() for weight in model.parameters())
    empty = empty_model(folder)
    assert all(weight.is_meta for weight in empty.parameters()) and type(empty) is type(model)


def test_a_recipe_that_save_did_not_write_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"steps": [{"exec": [1]}]}))
    with pytest.raises(ValueError, match=r"holds no model that save\(\) wrote"):
        restore(folder)
