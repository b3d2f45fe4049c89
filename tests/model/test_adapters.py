"""Adapters are recognised, in a model and in a folder: what is right goes on, what would go wrong is one sentence."""

import importlib.util
import json

import pytest
import torch
from small import build_tiny, random_batch
from torch import nn

from shortgpt import (
    distill,
    heal,
    load,
    merge_layers,
    prune_checkpoint,
    quantize,
    remove_channels,
    remove_heads,
    remove_layers,
    save,
    save_gguf,
    score_layers,
)
from shortgpt.checkpoints.facts import model_facts

needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")


class Wrapped(nn.Module):
    """What peft puts in a linear layer's place."""

    __module__ = "peft.tuners.lora.layer"

    def __init__(self, base_layer):
        super().__init__()
        self.base_layer = base_layer

    def forward(self, x):
        return self.base_layer(x)


@pytest.fixture
def adapted(tiny):
    for layer in tiny.model.layers:
        layer.self_attn.q_proj = Wrapped(layer.self_attn.q_proj)
    return tiny


REFUSED = {
    "save": lambda m, t, to: save(m, to),
    "save unverified": lambda m, t, to: save(m, to, verify=False),
    "save a pruned view": lambda m, t, to: save(remove_layers(m, [1]), to),
    "save_gguf": lambda m, t, to: save_gguf(m, t, to / "x.gguf"),
    "quantize": lambda m, t, to: quantize(m, 8),
    "merge_layers": lambda m, t, to: merge_layers(m, [2]),
    "heal": lambda m, t, to: heal(m, [2], [random_batch()], progress=False),
    "distill": lambda m, t, to: distill(m, m, t, ["a b c"] * 9, tokens=9, folder=to, progress=False),
    "remove_channels": lambda m, t, to: remove_channels(m, 1),
    "remove_heads": lambda m, t, to: remove_heads(m, 1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_go_wrong_with_an_adapter_says_to_merge_it(name, adapted, tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"holds an adapter can't .*: merge it first.*merge_and_unload") as caught:
        REFUSED[name](adapted, tokenizer, tmp_path / "out")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_a_wrapper_of_peft_is_told_what_to_pass():
    wrapper = type("PeftModelForCausalLM", (nn.Module,), {"__module__": "peft.peft_model"})()
    with pytest.raises(TypeError, match=r"got PeftModelForCausalLM: pass its merge_and_unload\(\), or get_base_model"):
        score_layers(wrapper, [random_batch()])


@pytest.mark.parametrize("beside_weights", [True, False])
def test_a_folder_with_an_adapter_is_refused_alike_on_every_road(beside_weights, tokenizer, tmp_path):
    folder = tmp_path / "model"
    tokenizer.save_pretrained(folder)
    if beside_weights:
        build_tiny().save_pretrained(folder)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "x/y", "peft_type": "LORA"}))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    says = r"holds an adapter (beside the weights|and no model).*merge_and_unload\(\)"
    with pytest.raises(ValueError, match=says):
        load(folder)
    with pytest.raises(ValueError, match=says):
        prune_checkpoint(folder, tmp_path / "out", [1], progress=False)
    if beside_weights:
        facts = model_facts(folder)
        assert facts["model_type"] == "llama" and not facts["prunable"] and "holds an adapter" in facts["reason"]
    else:
        with pytest.raises(ValueError, match=says):
            model_facts(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@needs_peft
def test_a_pruned_view_keeps_its_adapter_and_merging_as_the_sentence_says_gives_the_same_model(tiny, tmp_path):
    from peft import LoraConfig, PeftModel

    tiny.add_adapter(LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    torch.manual_seed(1)
    for name, weight in tiny.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.3)
    tiny.eval().save_pretrained(tmp_path / "adapter")
    merged = PeftModel.from_pretrained(build_tiny(), tmp_path / "adapter").merge_and_unload()
    save(remove_layers(merged, [1, 3]), tmp_path / "merged")
    ids = random_batch()["input_ids"]
    with torch.no_grad():
        expected, got = (remove_layers(model, [1, 3])(ids).logits for model in (merged, tiny))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    tiny.delete_adapter("default")  # its layers still stand there
    with pytest.raises(ValueError, match="holds an adapter"):
        save(tiny, tmp_path / "deleted")
