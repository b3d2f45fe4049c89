"""`load` and `prune_checkpoint` refuse the same checkpoints: nothing is ever written that reloads with random weights."""

import json
import os

import pytest
from safetensors.torch import load_file, save_file
from small import build_tiny

from shortgpt import load, prune_checkpoint, quantize

PREFIXED = "lacks weights that LlamaForCausalLM needs .*its names begin with '{}', which a wrapper"


def prefix(text):
    return lambda weights, config: {text + name: weight for name, weight in weights.items()}


def without(part):
    return lambda weights, config: {name: weight for name, weight in weights.items() if part not in name}


def wider(weights, config):
    config["intermediate_size"] = 65
    return weights


def longer(weights, config):
    return weights | {
        name.replace("layers.5", "layers.6"): w.clone() for name, w in weights.items() if "layers.5" in name
    }


def bare_and_longer(weights, config):
    return {name.removeprefix("model."): weight for name, weight in longer(weights, config).items()}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (prefix("module."), PREFIXED.format(r"module\.")),
        (prefix("_orig_mod."), PREFIXED.format(r"_orig_mod\.")),
        (
            without("lm_head"),
            r"lacks weights that LlamaForCausalLM needs \(lm_head.weight\): the checkpoint is incomplete",
        ),
        (without("layers.1.mlp.up_proj"), r"lacks weights .*layers\.1\.mlp\.up_proj"),  # of a layer that goes
        (
            wider,
            r"holds model.layers.0.mlp.down_proj.weight of shape \[32, 64\], and config.json describes .*\[32, 65\]",
        ),
        (longer, "more layers than its config.json says|the files hold no 6 layers"),
        (bare_and_longer, "more layers than its config.json says|the files hold no 6 layers"),
    ],
)
def test_both_roads_refuse_alike(change, says, tokenizer, tmp_path):
    folder = tmp_path / "model"
    build_tiny().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    save_file(change(load_file(folder / "model.safetensors"), config), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=says) as by_load:
        load(folder, device="cpu")
    with pytest.raises(ValueError, match=says) as by_files:
        prune_checkpoint(folder, tmp_path / "out", [1], progress=False)
    assert "\n" not in str(by_load.value) + str(by_files.value) and os.listdir(tmp_path) == ["model"]


def test_the_first_layers_can_be_asked_for(tokenizer, tmp_path):
    build_tiny().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert len(load(tmp_path, device="cpu", num_hidden_layers=4)[0].model.layers) == 4


@pytest.mark.parametrize("bits", [8, 4])
def test_names_in_quantized_files_count_too(bits, tmp_path):
    from quantized import small_llama

    quantize(small_llama(), bits).save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    save_file(prefix("module.")(load_file(file), {}), file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks weights .*its names begin with 'module\.'"):
        prune_checkpoint(tmp_path / "model", tmp_path / "out", [1], progress=False)
