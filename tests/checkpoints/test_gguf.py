"""GGUF is written by llama.cpp's converter: what it is given and told, and that half a file is never left.

With ``LLAMA_CPP`` set to a checkout of llama.cpp (and sentencepiece and protobuf installed) the real converter runs too; its
files are read back by transformers.
"""

import json
import os
import stat
import sys
from pathlib import Path

import gguf
import pytest
import torch
from small import LAYERS, build_tiny
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

from shortgpt import built_in_text, quantize, remove_layers, remove_sublayers, save, save_gguf
from shortgpt.checkpoints.cache import cache_folder
from shortgpt.checkpoints.gguf_layers import unsaid_kinds
from shortgpt.checkpoints.packaged import DEFAULT_MODEL, PACKAGED

FAKE = """
import argparse, json, pathlib, sys
parser = argparse.ArgumentParser()
parser.add_argument("model", type=pathlib.Path)
for name in ("--outfile", "--outtype", "--model-name"):
    parser.add_argument(name, required=True)
said = vars(parser.parse_args())
folder = said.pop("model").absolute()
said["files"] = sorted(file.name for file in folder.iterdir())
said["layers"] = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
pathlib.Path(said["outfile"]).write_text("half a file")
{then}
pathlib.Path(said["outfile"]).write_text(json.dumps(said))
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Writes a converter that does `then` in the middle of its work; returns where it is."""
    monkeypatch.delenv("LLAMA_CPP", raising=False)

    def write(then="", checkout="llama.cpp {x}"):
        script = tmp_path / "tools" / checkout / "convert_hf_to_gguf.py"
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(FAKE.replace("{then}", then))
        return script

    return write


def test_the_converter_gets_a_whole_checkpoint_and_nothing_else_is_left(tiny, tokenizer, fake, tmp_path):
    folder = tmp_path / "a {ftype} folder"
    path = save_gguf(remove_layers(tiny, [1, 3]), tokenizer, folder / "small.gguf", converter=fake(), outtype="q8_0")
    assert path == folder / "small.gguf" and list(folder.iterdir()) == [path]
    said = json.loads(path.read_text())
    assert said["layers"] == LAYERS - 2 and said["outtype"] == "q8_0" and said["model_name"] == "small"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {*said["files"]}


def test_a_sentencepiece_file_comes_along(tiny, tokenizer, fake, tmp_path):
    """The converter makes nothing of a Gemma without it, and transformers 5 doesn't write it."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "tokenizer.model").write_text("pieces")
    tokenizer.vocab_file = str(tmp_path / "source" / "tokenizer.model")
    assert (save(tiny, tmp_path / "saved", tokenizer=tokenizer) / "tokenizer.model").read_text() == "pieces"
    path = save_gguf(tiny, tokenizer, tmp_path / "x.gguf", converter=fake(), verify=False)
    assert "tokenizer.model" in json.loads(path.read_text())["files"]
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "source" / "tokenizer.model").unlink()
    (tmp_path / "source" / "tokenizer.model").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="is a link that leads out of the folder"):
        save(tiny, tmp_path / "again", tokenizer=tokenizer, verify=False)


def test_where_the_converter_is(tiny, tokenizer, fake, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.chdir(tmp_path)
    options = {"overwrite": True, "verify": False}
    with pytest.raises(FileNotFoundError, match="git clone .*llama.cpp and pip install .*or set LLAMA_CPP to that"):
        save_gguf(tiny, tokenizer, "x.gguf")
    script = fake()
    for place in (script, script.parent, str(script.parent), script.relative_to(tmp_path)):
        assert save_gguf(tiny, tokenizer, "x.gguf", converter=place, **options) == tmp_path / "x.gguf"
    with pytest.raises(FileNotFoundError, match=r"none.convert_hf_to_gguf.py is not there: name llama.cpp's"):
        save_gguf(tiny, tokenizer, "x.gguf", converter=tmp_path / "none" / "convert_hf_to_gguf.py", **options)
    monkeypatch.setenv("LLAMA_CPP", str(script.parent))
    save_gguf(tiny, tokenizer, "y.gguf")
    if os.name != "nt":
        monkeypatch.delenv("LLAMA_CPP")
        (tmp_path / "bin").mkdir()
        installed = tmp_path / "bin" / "llama-convert-hf-to-gguf"
        installed.write_text(f"#!{sys.executable}\n{script.read_text()}")
        installed.chmod(installed.stat().st_mode | stat.S_IXUSR)
        save_gguf(tiny, tokenizer, "z.gguf")


@pytest.mark.parametrize(
    ("then", "kind", "says"),
    [
        (
            "raise ImportError('no module\\nnamed sentencepiece')",
            ValueError,
            "converter stopped: ImportError: no module$",
        ),
        (
            "print('Traceback', file=sys.stderr); print('ERROR:hf-to-gguf:Model Foo is not supported', file=sys.stderr); "
            "print('later noise', file=sys.stderr); sys.exit(1)",
            ValueError,
            "stopped: Model Foo is not supported$",
        ),
        ("sys.exit(3)", ValueError, "stopped: it gave no reason$"),
        (
            "raise OSError(28, 'No space left on device')",
            OSError,
            "the disk is full: .*x.gguf was not written; free some",
        ),
    ],
)
def test_a_converter_that_stops_leaves_what_was_there(then, kind, says, tiny, tokenizer, fake, tmp_path):
    path = tmp_path / "out" / "x.gguf"
    path.parent.mkdir()
    path.write_text("years of work")
    with pytest.raises(FileExistsError, match="x.gguf exists already: choose another name, or pass overwrite=True"):
        save_gguf(tiny, tokenizer, path, converter=fake())
    with pytest.raises(kind, match=says):
        save_gguf(tiny, tokenizer, path, converter=fake(then), overwrite=True, verify=False)
    assert path.read_text() == "years of work" and list(path.parent.iterdir()) == [path]
    with pytest.raises(ValueError, match="invalid choice|not x"):
        then = "parser.error('argument --outtype: not x') if said['outtype'] == 'x' else 0"
        save_gguf(tiny, tokenizer, path, converter=fake(then), outtype="x", overwrite=True, verify=False)


def test_what_can_not_be_written_is_refused(tiny, tokenizer, fake, tmp_path):
    for model, says in [
        (quantize(build_tiny()), "this model is quantized: write the unquantized one"),
        (remove_sublayers(build_tiny(), attention=[2]), "no configuration describes this pruned model"),
    ]:
        with pytest.raises(ValueError, match=f"can't write this as GGUF: {says}"):
            save_gguf(model, tokenizer, tmp_path / "out" / "a.gguf", converter=fake())
    tokenizer.add_tokens([f"word {i}" for i in range(100)])
    with pytest.raises(
        ValueError, match="the tokenizer has 131 tokens and the model 96: use the model's own tokenizer"
    ):
        save_gguf(tiny, tokenizer, tmp_path / "out" / "a.gguf", converter=fake())
    assert not (tmp_path / "out").exists()


# --- models that llama.cpp would run as others ---

WRITES = """
import gguf, numpy
writer = gguf.GGUFWriter(said["outfile"], "tiny")
for i in range(said["layers"]):
    writer.add_tensor(f"blk.{i}.attn_q.weight", numpy.zeros((2, 32), numpy.float32))
{more}
writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
sys.exit()
"""
TYPES = "json.loads((folder / 'config.json').read_text())['layer_types']"
LIST = f"writer.add_sliding_window_pattern([kind == 'sliding_attention' for kind in {TYPES}])"
TENSORS = f"""
for i, kind in enumerate({TYPES}):
    if kind == 'sliding_attention':
        writer.add_tensor(f"blk.{{i}}.other.weight", numpy.zeros((2, 32), numpy.float32))
"""


def patterned(family, layers, **more):
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
    }
    sizes |= {"query_pre_attn_scalar": 16} if family.startswith("gemma") else {}
    config = AutoConfig.for_model(
        family, vocab_size=96, num_hidden_layers=layers, pad_token_id=0, bos_token_id=1, eos_token_id=2, **sizes | more
    )
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize(("family", "layers", "period"), [("gemma3_text", 14, 6), ("gemma2", 8, 2), ("smollm3", 10, 4)])
def test_a_cut_is_fit_for_llama_cpp_if_every_layer_keeps_its_place_in_the_period(family, layers, period):
    model = patterned(family, layers)
    assert unsaid_kinds(model) is None
    cuts = [range(start, start + count) for count in (1, 2, period) for start in range(layers - count + 1)]
    cuts += [range(period - 1, layers, period)]  # all odd ones: what is left is of one kind
    fit = 0
    for cut in cuts:
        kept = [i for i in range(layers) if i not in cut]
        last = [(i + 1) % period == 0 for i in kept]  # which of those that stay are the odd one of their period
        place = [(i + 1) % period == 0 for i in range(len(kept))]  # and which ones llama.cpp takes for that
        found = unsaid_kinds(remove_layers(model, cut))
        assert (found is None) == (last == place), (cut, found)
        fit += found is None
    assert 0 < fit < len(cuts)


@pytest.mark.parametrize("family", ["gemma3_text", "smollm3"])
def test_a_file_that_does_not_say_what_its_layers_are_is_refused_and_not_left(family, tokenizer, fake, tmp_path):
    model, file = patterned(family, 14), tmp_path / "out" / "x.gguf"
    for cut in ([2], [0, 9], [5, 11] if family == "gemma3_text" else [3, 7, 11]):
        with pytest.raises(
            ValueError,
            match="can't write this pruned model as GGUF: its layers differ \\((layer_types|no_rope_layers) ",
        ):
            save_gguf(remove_layers(model, cut), tokenizer, file, converter=fake(WRITES.replace("{more}", "")))
        assert not [*file.parent.iterdir()]
    period = 6 if family == "gemma3_text" else 4
    for cut in ([12, 13], range(period)):
        path = save_gguf(remove_layers(model, cut), tokenizer, file, converter=fake(), overwrite=True, verify=False)
        assert json.loads(path.read_text())["layers"] == 14 - len(cut)
    assert save_gguf(
        model, tokenizer, file, converter=fake(), overwrite=True, verify=False
    )  # dense: the converter's affair


@pytest.mark.parametrize("more", [LIST, TENSORS])
def test_a_file_that_tells_its_layers_apart_is_kept(more, tokenizer, fake, tmp_path):
    pruned = remove_layers(patterned("gemma3_text", 8), [2])
    path = save_gguf(pruned, tokenizer, tmp_path / "x.gguf", converter=fake(WRITES.replace("{more}", more)))
    assert path.read_bytes()[:4] == b"GGUF"


def test_models_that_llama_cpp_knows_by_their_number_of_layers_are_refused(tokenizer, fake, tmp_path):
    for model, says in [
        (patterned("gemma2", 4, query_pre_attn_scalar=8), "the scale of its queries by the number of layers"),
        (patterned("exaone4", 8, sliding_window=64), "how exaone4 works by its number of layers"),
    ]:
        save_gguf(model, tokenizer, tmp_path / "x.gguf", converter=fake(), overwrite=True, verify=False)
        with pytest.raises(ValueError, match=says):
            save_gguf(remove_layers(model, [3]), tokenizer, tmp_path / "y.gguf", converter=fake())
        assert not (tmp_path / "y.gguf").exists()
    for family in ("llama", "qwen3", "mistral", "gpt2"):
        assert unsaid_kinds(remove_layers(build_tiny(family), [1, 3])) is None


@pytest.fixture(scope="module")
def llama_cpp() -> Path:
    if "LLAMA_CPP" not in os.environ:
        pytest.skip("set LLAMA_CPP to a checkout of llama.cpp")
    pytest.importorskip("sentencepiece")
    return Path(os.environ["LLAMA_CPP"])


def back(path: Path) -> torch.nn.Module:
    options = {"gguf_file": path.name, "quantization_config": GgufConfig(dequantize=True), "dtype": torch.float32}
    return AutoModelForCausalLM.from_pretrained(path.parent, **options).eval()


def sentencepiece_tokenizer(folder: Path):
    """A tokenizer of the kind that Llama 2, Mistral and Gemma have, loaded from a saved checkpoint."""
    import sentencepiece

    folder.mkdir()
    (folder / "text").write_text("\n".join(built_in_text()["text"]))
    sentencepiece.SentencePieceTrainer.train(
        input=folder / "text", model_prefix=folder / "tokenizer", model_type="bpe", vocab_size=600, byte_fallback=True
    )
    build_tiny().save_pretrained(folder)
    save(build_tiny(), folder / "saved", tokenizer=AutoTokenizer.from_pretrained(folder))
    return AutoTokenizer.from_pretrained(folder / "saved")


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text"])
def test_llama_cpp_s_own_converter(family, llama_cpp, tmp_path):
    tokenizer = sentencepiece_tokenizer(tmp_path / "source")
    config = AutoConfig.for_model(
        family,
        vocab_size=616,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=128 if family == "qwen3" else 16,  # the only one that transformers reads from GGUF
        **({"query_pre_attn_scalar": 16} if family.startswith("gemma") else {}),
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    pruned = remove_layers(AutoModelForCausalLM.from_config(config).eval(), [1, 2])
    path = save_gguf(pruned, tokenizer, tmp_path / "x.gguf", converter=llama_cpp, outtype="f32")
    again = back(path)
    assert again.config.num_hidden_layers == 3
    ids = torch.tensor([tokenizer("The river rose, and took the bridge with it.")["input_ids"]])
    with torch.inference_mode():
        torch.testing.assert_close(again(ids).logits, pruned(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.real
def test_the_default_model_through_llama_cpp_s_own_converter(real, llama_cpp, tmp_path):
    model, tokenizer = real
    pruned = remove_layers(model, [10, 11])
    path = save_gguf(pruned, tokenizer, tmp_path / "small.gguf", converter=llama_cpp, outtype="f32", verify=False)
    ids = torch.tensor([tokenizer("The river rose, and took the bridge with it.")["input_ids"]])
    with torch.inference_mode():
        torch.testing.assert_close(back(path)(ids).logits, pruned(ids).logits, atol=1e-3, rtol=1e-4)
    original = cache_folder() / PACKAGED[DEFAULT_MODEL].gguf
    ours, theirs = gguf.GGUFReader(path).fields, gguf.GGUFReader(original).fields
    for name in ("tokens", "token_type", "merges", "pre", "model", "bos_token_id", "eos_token_id", "padding_token_id"):
        assert ours[f"tokenizer.ggml.{name}"].contents() == theirs[f"tokenizer.ggml.{name}"].contents(), name
    assert ours["llama.block_count"].contents() == 28
