"""Loading: failures are one sentence, and the packaged model is an ordinary one."""

import json
import logging
import subprocess
import sys

import pytest
import torch
from small import VOCABULARY, build_tiny
from transformers import AutoModelForCausalLM

from shortgpt import describe, load
from shortgpt.checkpoints.cache import cache_folder
from shortgpt.checkpoints.packaged import DEFAULT_MODEL, PACKAGED
from shortgpt.pruning.repair_record import repairs_so_far
from shortgpt.repair.healing import FITS


def test_importing_costs_nothing_and_needs_no_network():
    code = "import sys, shortgpt; print('torch' in sys.modules, 'transformers' in sys.modules, len(dir(shortgpt)))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert out[:2] == ["False", "False"] and int(out[2]) > 20


def test_every_public_name_exists_and_a_wrong_one_is_an_attribute_error():
    import shortgpt

    assert all(callable(getattr(shortgpt, name)) for name in shortgpt.__all__)
    with pytest.raises(AttributeError, match="no attribute 'prune_everything'"):
        _ = shortgpt.prune_everything


@pytest.mark.real
def test_the_packaged_model_is_an_ordinary_float32_model(real):
    model, tokenizer = real
    row = describe(model).iloc[0]
    assert (row["layers"], row["hidden_size"], row["dtype"]) == (30, 576, "float32")
    assert row["parameters"] == 134_515_008 and not hasattr(model.config, "quantization_config")
    assert model.config.name_or_path == DEFAULT_MODEL
    assert not model.training and model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tokenizer.decode(tokenizer("depth pruning")["input_ids"]) == "depth pruning" and tokenizer.chat_template


@pytest.mark.real
def test_the_cached_checkpoint_equals_the_gguf_file(real):
    """One matrix and one norm of the cached safetensors against the blocks of the file, unpacked by the gguf library."""
    import gguf
    import numpy as np

    file = gguf.GGUFReader(cache_folder() / PACKAGED[DEFAULT_MODEL].gguf)
    tensors = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in file.tensors}
    layer = real[0].model.layers[7]
    np.testing.assert_array_equal(layer.mlp.down_proj.weight.detach().numpy(), tensors["blk.7.ffn_down.weight"])
    np.testing.assert_array_equal(layer.input_layernorm.weight.detach().numpy(), tensors["blk.7.attn_norm.weight"])


def test_local_folders_load_and_bad_ones_are_named(tmp_path, tokenizer):
    build_tiny().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    model, loaded = load(tmp_path / "model", device="cpu")
    assert model.config.vocab_size == VOCABULARY and model.dtype == torch.float32 and len(loaded) == len(tokenizer)
    assert model.config.name_or_path == str(tmp_path / "model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no model: it has no config.json"):
        load(tmp_path / "empty")
    for name in ("./no/such/folder", tmp_path / "nowhere", "~/no_such_model"):
        with pytest.raises(FileNotFoundError, match="no such folder"):
            load(name)


def test_pickled_weights_are_refused(tmp_path, tokenizer):
    model = build_tiny()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(OSError, match="safetensors"):
        load(tmp_path, device="cpu")


def test_a_hub_id_without_network_is_one_sentence():
    with pytest.raises(ConnectionError, match="'no-one/no-model' is not on this machine and the Hub can't be reached"):
        load("no-one/no-model")


def test_a_gguf_file_needs_its_checksum(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such GGUF file"):
        load(tmp_path / "model.gguf")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    for given in (None, "0" * 64):
        with pytest.raises(ValueError, match="has SHA-256 .* pass the checksum that its publisher states"):
            load(tmp_path / "model.gguf", sha256=given)


@pytest.mark.real
def test_the_saved_default_model_reloads_as_plain_transformers(real, tmp_path):
    real[0].save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert "quantization_config" not in config and config["num_hidden_layers"] == 30
    assert not [k for k in config if "name_or_path" in k]
    logging.getLogger("transformers").setLevel(logging.ERROR)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, real[0](ids).logits, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("hub_says", "error", "message"),
    [
        (
            "You are trying to access a gated repo. Make sure to have access",
            PermissionError,
            "is gated: accept its licence",
        ),
        ("x/y is not a local folder and is not a valid model identifier", FileNotFoundError, "no public model 'x/y'"),
        ("We couldn't connect to the Hub to load the files", ConnectionError, "the Hub can't be reached"),
    ],
)
def test_what_the_hub_says_becomes_one_sentence(hub_says, error, message, monkeypatch):
    def refuse(*args, **options):
        raise OSError(hub_says)

    monkeypatch.setattr("shortgpt.checkpoints.soundness.cached_file", refuse)
    with pytest.raises(error, match=message) as caught:
        load("x/y")
    assert "\n" not in str(caught.value)


@pytest.fixture
def said(caplog):
    """What transformers logs, which it hands on to nobody."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_weights_without_a_place_are_told_in_one_sentence(tiny, tokenizer, tmp_path, said):
    from safetensors.torch import load_file, save_file

    tiny.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors") | {"vision.weight": torch.ones(2)}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.warns(
        UserWarning, match=r"holds weights that LlamaForCausalLM has no place for \(vision.weight\): left out"
    ):
        load(tmp_path)
    assert "REPORT" not in said.text  # its table


def test_a_checkpoint_that_lacks_weights_is_refused_not_filled_with_random_numbers(tiny, tokenizer, tmp_path, said):
    from safetensors.torch import load_file, save_file

    tiny.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["model.layers.3.mlp.up_proj.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks weights that LlamaForCausalLM needs \(model\.layers\.3\.mlp\.up_proj"):
        load(tmp_path)
    assert "REPORT" not in said.text  # its table, before our sentence


@pytest.mark.parametrize(
    "record",
    ["x", 3, [3], {"kind": "melt", "layers": [1], "samples": 1}, [{"kind": "fold", "layers": [1, 1], "samples": 1}]]
    + [{"kind": "distill", "layers": [1], "samples": 1, name: -1} for name in ("tokens", "sites")],
    ids=str,
)
def test_a_record_of_a_repair_that_nobody_wrote_is_refused(record, tiny, tokenizer, tmp_path):
    tiny.config.shortgpt_repair = record
    tiny.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="tells of a repair that there is not"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("kind", "several"), [("fold", False), *((kind, True) for kind in (*FITS, "merge", "distill"))]
)
def test_a_record_as_a_list_of_steps_or_as_the_first_release_wrote_it(kind, several, tiny, tokenizer, tmp_path):
    step = {"kind": kind, "sites": "gaps", "layers": [1], "samples": 4}
    tiny.config.shortgpt_repair = [step] if several else step
    tiny.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert repairs_so_far(load(tmp_path)[0].config) == [step]


def test_an_encoder_decoder_is_refused_before_its_weights_are_read(tmp_path):
    from transformers import BartConfig

    BartConfig(d_model=16, encoder_layers=1, decoder_layers=1).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is an encoder-decoder \(bart\)"):
        load(tmp_path)
