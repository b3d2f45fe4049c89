"""What `shortgpt prune` needs is said before it starts; what is too large stays on disk; dense layers go before it saves."""

import gc
import weakref
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from command import LAYERS, data, ok, run, tiny_model
from safetensors.torch import load_file

import shortgpt
from shortgpt import decoder_layers, load
from shortgpt.cli import way

pytestmark = pytest.mark.filterwarnings("ignore")
TEXT = ("--text", "text.txt", "--samples", 8, "--length", 32)
CUT = ("--model", "model", "--no-cost", *TEXT)
WEIGHTS = sum(p.numel() for p in tiny_model().parameters()) * 4
IN_LAYERS = sum(p.numel() for p in decoder_layers(tiny_model()).parameters()) * 4


def free(monkeypatch, main, card=None):
    monkeypatch.setattr(way, "free_bytes", lambda device: (int(main), card))


def needed(repair=None):
    """What is said to be needed in memory, and from disk."""
    wish = shortgpt.cli.wish.Wish(model="model", layers=[1, 2], repair=repair)
    text = shortgpt.cli.options.Calibration(text=Path("text.txt"), samples=8, length=32)
    needs, rest = way._needs(tiny_model(), 4, wish, text)
    return sum(needs), sum(needs.of(on_disk=True, rest=rest))


def same(one, two):
    one, two = (load_file(f"{name}/model.safetensors") for name in (one, two))
    return one.keys() == two.keys() and all(torch.equal(tensor, two[name]) for name, tensor in one.items())


@pytest.mark.parametrize("repair", [["--repair", "fold"], ["--repair", "all"], []], ids=["fold", "all", "none"])
def test_from_disk_comes_bit_by_bit_what_comes_from_memory(folder, monkeypatch, repair):
    line = [*CUT, "-n", 3, *repair] if repair else [*CUT, "-n", 3, "--by", "angular_distance"]
    there, asked = ok("prune", "memory", *line), data("prune", "asked", *line, "--on-disk")
    assert "GB free): in memory" in there.stderr and "verified" in there.stdout
    free(monkeypatch, (sum(needed(repair[1] if repair else None))) / 2)
    found = ok("prune", "found", *line)
    assert "GB free): layers are read from the disk" in found.stderr
    assert asked["on_disk"] and not asked["verified"] and same("memory", "asked") and same("memory", "found")
    assert Path("memory/README.md").read_text() == Path("found/README.md").read_text()
    assert Path("memory/config.json").read_text() == Path("asked/config.json").read_text()


def test_what_is_needed_is_counted_from_shapes(folder, monkeypatch):
    in_memory, from_disk = needed()
    assert in_memory - from_disk == IN_LAYERS and in_memory > WEIGHTS + IN_LAYERS / LAYERS
    assert needed("fold")[0] - in_memory > shortgpt.repair.equations.fit_bytes(64, 32)
    monkeypatch.setattr("shortgpt.load", lambda *args, **options: pytest.fail("loaded"))
    free(monkeypatch, from_disk - 1)
    refused = run("prune", "out", *CUT, "--layers", "1,2")
    assert (
        refused.exit_code == 1 and "model needs about 0.0 GB here, and 0.0 GB with its layers on disk" in refused.stderr
    )
    for line, why in (
        (("--repair", "linear"), "the result is in shortgpt's own format"),
        (("--sublayers", "ffn"), "the result is in shortgpt's own format"),
    ):
        assert why in run("prune", "out", *CUT, "--layers", "1,2", *line).stderr
    asked = run("prune", "out", *CUT, "--layers", "1,2", "--repair", "linear", "--on-disk")
    assert asked.exit_code == 1 and "written from memory: leave --on-disk out" in asked.stderr
    assert not Path("out").exists()


def test_on_a_card_only_the_fit_is_in_main_memory():
    """Without a card: the arithmetic alone."""
    needs = way.Needs(weights=10, layer=1, states=2, repair=50)
    assert needs.of(on_disk=True, rest=3) == (3, 1, 2, 50) and sum(needs) - needs.repair == 13


def test_whoever_says_where_weights_go_is_obeyed(folder, monkeypatch):
    free(monkeypatch, 0)
    done = ok("prune", "out", *CUT, "-n", 1, "--max-memory", "cpu=100KB", "--quiet")
    assert "verified" in done.stdout and not done.stderr


@pytest.mark.parametrize("how", [["-n", 2], ["--layers", "3-4", "--repair", "fold"], ["-n", 2, "--sublayers", "ffn"]])
def test_dense_layers_are_gone_when_the_model_is_saved(folder, monkeypatch, how):
    loaded, real, save = [], shortgpt.load, shortgpt.save

    def noted(*args, **options):
        model, tokenizer = real(*args, **options)
        loaded.extend(weakref.ref(layer.mlp.down_proj.weight) for layer in decoder_layers(model))
        return model, tokenizer

    def saved(model, *args, **options):
        kept = {id(weight) for weight in model.parameters()}
        alive = [ref() for ref in loaded]
        assert len(alive) == LAYERS and sum(weight is None for weight in alive) == 2 + ("--repair" in how)
        assert all(weight is None or id(weight) in kept for weight in alive)
        return save(model, *args, **options)

    monkeypatch.setattr("shortgpt.load", noted)
    monkeypatch.setattr("shortgpt.save", saved)
    gc.collect()
    line = [option for option in CUT if option != "--no-cost"]
    ok("prune", "out", *line, *how)
    assert load("out", device="cpu")


def test_what_is_free_is_what_the_machine_says(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=123))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7, 9))
    assert way.free_bytes("cpu") == (123, None) and way.free_bytes("cuda:0") == (123, 7)
