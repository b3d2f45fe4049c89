"""Code that comes with a checkpoint: runs if allowed at load, then also when `save` checks; else never; nobody is asked."""

import ast
import builtins
import json
from pathlib import Path

import pytest
import torch
from small import build_tiny, random_batch

import shortgpt
from shortgpt import load, prune_checkpoint, remove_layers, save
from shortgpt.checkpoints.facts import empty_model, model_facts

CODE = """
from transformers import LlamaConfig, LlamaForCausalLM
open({ran!r}, "a").write("x")
class MineConfig(LlamaConfig):
    model_type = {kind!r}
class MineForCausalLM(LlamaForCausalLM):
    config_class = MineConfig
"""


@pytest.fixture(autouse=True)
def nobody_is_asked(monkeypatch):
    def asked(*args):
        raise AssertionError("waits for input")

    monkeypatch.setattr(builtins, "input", asked)


@pytest.fixture
def own_code(tmp_path, tokenizer, monkeypatch):
    """A function: a folder with code that leaves a mark when it runs, for a model type that transformers knows or not."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))

    def make(kind):
        folder = tmp_path / "custom"
        build_tiny().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "modeling_mine.py").write_text(CODE.format(ran=str(tmp_path / "ran"), kind=kind))
        config = json.loads((folder / "config.json").read_text()) | {"model_type": kind}
        config["architectures"] = ["MineForCausalLM"] if kind == "mine" else ["LlamaForCausalLM"]
        classes = {"AutoConfig": "MineConfig", "AutoModelForCausalLM": "MineForCausalLM"}
        config["auto_map"] = {auto: f"modeling_mine.{name}" for auto, name in classes.items()}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return make


def test_permission_given_at_load_holds_at_save(own_code, tmp_path):
    model, tokenizer = load(own_code("mine"), device="cpu", trust_remote_code=True)
    pruned = remove_layers(model, [2])
    again, _ = load(save(pruned, tmp_path / "out", tokenizer=tokenizer), device="cpu", trust_remote_code=True)
    ids = random_batch()["input_ids"]
    with torch.no_grad():
        assert torch.equal(again(ids).logits, pruned(ids).logits)


def test_without_permission_nothing_runs_and_nobody_is_asked(own_code, tmp_path):
    folder = own_code("mine")
    for call in (load, model_facts, empty_model):
        with pytest.raises(
            ValueError, match="brings its own model code, which would run.*pass trust_remote_code$"
        ) as caught:
            call(folder)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="brings its own code, load it with trust_remote_code, then"):
        prune_checkpoint(folder, tmp_path / "out", [1], progress=False)
    for given in (None, 1, "yes"):
        with pytest.raises(TypeError, match="trust_remote_code must be True or False"):
            load(folder, trust_remote_code=given)
    assert not (tmp_path / "ran").exists()


def test_saving_never_widens_the_permission(own_code, tmp_path):
    model, tokenizer = load(own_code("llama"), device="cpu")  # transformers has a class of its own for it
    save(remove_layers(model, [2]), tmp_path / "out", tokenizer=tokenizer)
    assert not (tmp_path / "ran").exists()


def test_every_automatic_class_is_told_whether_code_may_run():
    """Not told, transformers asks on the terminal. `**options` counts: the functions that use it put it in."""
    silent = []
    for file in Path(shortgpt.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = ast.unparse(node.func.value).rpartition(".")[2]
            automatic = owner.startswith("Auto") and owner != "AutoHfQuantizer" and node.func.attr.startswith("from_")
            if automatic and not {"trust_remote_code", None} & {keyword.arg for keyword in node.keywords}:
                silent.append(f"{file.name}:{node.lineno}")
    assert not silent
