"""The twins by name: kinds of one size, found where they lie, refused when they are other files."""

import pytest
import torch
from small import random_batch
from transformers import AutoModelForCausalLM
from twins_small import small_config

from shortgpt import decoder_layers, load, remove_layers, save
from shortgpt.checkpoints import twins
from shortgpt.checkpoints.facts import model_facts
from shortgpt.checkpoints.gguf import sha256_of
from shortgpt.checkpoints.saving import read_model
from shortgpt.checkpoints.twins import KINDS, SHA256, split_name, twin_config, twin_places
from shortgpt.model.anatomy import parameter_count


@pytest.fixture
def places(tmp_path, monkeypatch, tokenizer):
    """An empty ``data/twins`` with a tokenizer, and ``build/twins`` beside it."""
    monkeypatch.setattr(twins, "data_folder", lambda: tmp_path / "data")
    monkeypatch.setattr(twins, "SHA256", {})
    tokenizer.save_pretrained(tmp_path / "data" / "twins" / "tokenizer")
    return twin_places()


def put(kind: str, folder) -> None:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(small_config(kind)).half().save_pretrained(folder)


def test_kinds_of_sixteen_layers_have_the_same_number_of_parameters():
    counts = {}
    for kind in KINDS:
        config = twin_config(kind)
        with torch.device("meta"):
            counts[kind] = parameter_count(AutoModelForCausalLM.from_config(config))
        assert config.num_hidden_layers == {"shallow": 8, "deep": 32}.get(kind, 16) and config.hidden_size == 128
    assert 2e6 < counts["pre-norm"] < 5e6
    for kind in KINDS.keys() - {"shallow", "deep"}:
        assert counts[kind] == pytest.approx(counts["pre-norm"], rel=0.03), kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_taken_out_is_a_layer_that_passes_its_input_on(kind, tmp_path):
    torch.manual_seed(1)
    model, batch = AutoModelForCausalLM.from_config(small_config(kind)).eval(), random_batch()
    pruned = remove_layers(model, [0, 2])  # the first as well: RWKV's has a norm of its own
    path = save(pruned, tmp_path / "pruned")

    def passed_on(layer, args, output):
        return (args[0], *output[1:]) if isinstance(output, tuple) else args[0]

    for i in (0, 2):
        decoder_layers(model)[i].register_forward_hook(passed_on)
    with torch.no_grad():
        wanted, got = model(**batch, use_cache=False).logits, pruned(**batch, use_cache=False).logits
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
        again = read_model(path, dtype=torch.float32, device_map={"": "cpu"})[0](**batch, use_cache=False).logits
    torch.testing.assert_close(again, got, atol=1e-6, rtol=0)


def test_a_twin_is_loaded_by_its_name(places):
    for name, place in (("twin-post-norm-0", places[0]), ("twin-mamba-1", places[1])):
        put(split_name(name)[0], place / name)
        model, tokenizer = load(name, device="cpu")
        assert model.dtype == torch.float32 and not model.training and model.config.name_or_path == name
        assert tokenizer("a")["input_ids"]
        assert model_facts(name)["layers"] == 4 and model_facts(name)["prunable"]
    assert load("twin-mamba-1", device="cpu", dtype=torch.bfloat16)[0].dtype == torch.bfloat16


def test_what_is_not_there_is_one_sentence(places):
    with pytest.raises(
        FileNotFoundError, match=r"^twin-rwkv-0 is not on .*/train_twins.py twin-rwkv-0 trains any of them$"
    ):
        load("twin-rwkv-0")
    for name in ("twin-gru-0", "twin-rwkv", "twin-rwkv-x"):
        with pytest.raises(FileNotFoundError, match=f"^there is no twin '{name}': its name is twin-KIND-SEED"):
            load(name)
    with pytest.raises(ValueError, match="^there is no kind of twin 'gru': take one of pre-norm, "):
        twin_config("gru")


def test_another_file_in_the_place_of_a_committed_one_is_refused(places, monkeypatch):
    put("pre-norm", places[0] / "twin-pre-norm-0")
    file = places[0] / "twin-pre-norm-0" / "model.safetensors"
    monkeypatch.setitem(twins.SHA256, "twin-pre-norm-0", sha256_of(file))
    load("twin-pre-norm-0", device="cpu")
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(OSError, match="is not the file that was committed"):
        load("twin-pre-norm-0", device="cpu")


def test_every_committed_twin_has_its_checksum():
    there = {folder.name for folder in twin_places()[0].glob("twin-*")}
    assert there == SHA256.keys()
    assert all(sha256_of(twin_places()[0] / name / "model.safetensors") == SHA256[name] for name in there)
