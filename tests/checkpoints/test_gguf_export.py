"""A GGUF file says what the model says: read back by transformers, which did not write it."""

import gguf
import numpy as np
import pytest
import torch
from small import build_tiny, llama
from tokenizers import pre_tokenizers, processors
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from shortgpt import quantize, remove_layers, remove_sublayers, save_gguf
from shortgpt.checkpoints import gguf_export

TEXT = "the river rose in 1953, and took the bridge with it."


def read(path):
    options = {"gguf_file": path.name, "quantization_config": GgufConfig(dequantize=True), "dtype": torch.float32}
    return AutoModelForCausalLM.from_pretrained(path.parent, **options).eval()


def logits(model, ids):
    with torch.inference_mode():
        return model(ids).logits


@pytest.mark.parametrize("shape", [{}, {"head_dim": 16}])
@pytest.mark.parametrize("tied", [True, False])
def test_a_pruned_model_comes_back_equal(tied, shape, tmp_path, bytes_tokenizer):
    pruned = remove_layers(llama(bytes_tokenizer, tied, **shape), [1])
    path = save_gguf(pruned, bytes_tokenizer, tmp_path / "new" / "small.gguf", dtype=torch.float32, progress=False)
    again = read(path)
    assert again.config.num_hidden_layers == 3 and again.config.tie_word_embeddings == tied
    ids = torch.tensor([bytes_tokenizer(TEXT)["input_ids"]])
    torch.testing.assert_close(logits(again, ids), logits(pruned, ids), atol=2e-5, rtol=1e-5)
    for name, weight in pruned.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    assert [file.name for file in path.parent.iterdir()] == ["small.gguf"]


def test_float16_halves_the_matrices_and_leaves_the_norms(tmp_path, bytes_tokenizer):
    model = llama(bytes_tokenizer)
    path = save_gguf(model, bytes_tokenizer, tmp_path / "half.gguf", progress=False)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
    assert kinds["blk.0.attn_q.weight"] == "F16" and kinds["blk.0.attn_norm.weight"] == "F32"
    again = read(path).state_dict()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight.half().float() if weight.ndim == 2 else weight, again[name]), name


def test_queries_are_turned_in_neighbouring_pairs(tmp_path, bytes_tokenizer):
    """By hand: in a head of 8, llama.cpp's rows 0, 1, 2, 3, … are rows 0, 4, 1, 5, … of transformers."""
    model = llama(bytes_tokenizer)
    path = save_gguf(model, bytes_tokenizer, tmp_path / "a.gguf", dtype=torch.float32, progress=False)
    stored = next(t.data for t in gguf.GGUFReader(path).tensors if t.name == "blk.2.attn_q.weight")
    order = [8 * head + row for head in range(6) for row in (0, 4, 1, 5, 2, 6, 3, 7)]
    np.testing.assert_array_equal(stored, model.model.layers[2].self_attn.q_proj.weight.detach().numpy()[order])


def test_the_tokenizer_comes_back(tmp_path, bytes_tokenizer):
    path = save_gguf(llama(bytes_tokenizer), bytes_tokenizer, tmp_path / "a.gguf", progress=False)
    fields = gguf.GGUFReader(path).fields
    tokens, kinds = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type"))
    size = len(bytes_tokenizer)
    assert tokens[:size] == bytes_tokenizer.convert_ids_to_tokens(range(size)) and len(tokens) == size + 3
    assert kinds == [3, 3] + [1] * (size - 3) + [4] + [5] * 3  # control, normal, the added word, padding
    assert fields["tokenizer.ggml.merges"].contents() == ["t h", "th e", "Ġ the"]
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    ids = [fields[f"tokenizer.ggml.{name}_token_id"].contents() for name in ("bos", "eos")]
    assert ids == [0, 1]
    again = AutoTokenizer.from_pretrained(tmp_path, gguf_file="a.gguf")
    assert again(TEXT, add_special_tokens=False)["input_ids"] == bytes_tokenizer(TEXT)["input_ids"]


@pytest.mark.parametrize("template", ["$A", "<s> $A", "$A </s>", "<s> $A </s>"])
def test_the_file_says_whether_a_text_is_given_a_begin_and_an_end(template, tmp_path, bytes_tokenizer):
    """Left unsaid, llama.cpp goes by the name of the cutting: after "llama-bpe" it begins every text with <s>."""
    bytes_tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=template, pair=f"{template} $B", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    model = llama(bytes_tokenizer)
    path = save_gguf(model, bytes_tokenizer, tmp_path / "a.gguf", pre_tokenizer="llama-bpe", progress=False)
    fields = gguf.GGUFReader(path).fields
    said = [fields[f"tokenizer.ggml.add_{name}_token"].contents() for name in ("bos", "eos")]
    assert said == [template.startswith("<s>"), template.endswith("</s>")]


def test_how_text_is_cut_is_found_out_or_asked_for(bytes_tokenizer):
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend = bytes_tokenizer.backend_tokenizer
    assert gguf_export._cutting(bytes_tokenizer) == "gpt-2"
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), plain])
    assert gguf_export._cutting(bytes_tokenizer) == "smollm"
    for other in (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False), plain]),
        pre_tokenizers.ByteLevel(add_prefix_space=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ):
        backend.pre_tokenizer = other
        with pytest.raises(ValueError, match="pass pre_tokenizer= with llama.cpp's name"):
            gguf_export._cutting(bytes_tokenizer)
    backend.pre_tokenizer = plain
    backend.model.ignore_merges = True  # whole words first: llama.cpp does so for names such as "llama-bpe" only
    with pytest.raises(ValueError, match="pass pre_tokenizer= with llama.cpp's name"):
        gguf_export._cutting(bytes_tokenizer)
    assert gguf_export._cutting(bytes_tokenizer, "llama-bpe") == "llama-bpe"


def test_what_does_not_read_back_is_not_written(tmp_path, bytes_tokenizer, monkeypatch):
    model, path = llama(bytes_tokenizer), tmp_path / "a.gguf"
    array = gguf_export._array
    monkeypatch.setattr(gguf_export, "_array", lambda name, weight, kind, heads: array(name, weight, kind, 0))
    with pytest.raises(OSError, match="does not read back as the same model"):
        save_gguf(model, bytes_tokenizer, path, progress=False)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(gguf_export, "_array", array)
    written = save_gguf(model, bytes_tokenizer, path, progress=False).read_bytes()
    with pytest.raises(FileExistsError, match="a.gguf exists already"):
        save_gguf(model, bytes_tokenizer, path, progress=False)
    assert path.read_bytes() == written
    save_gguf(remove_layers(model, [0]), bytes_tokenizer, path, overwrite=True, verify=False, progress=False)
    assert len(path.read_bytes()) < len(written)


def test_a_full_disk_is_one_sentence_and_the_earlier_file_stays(tmp_path, bytes_tokenizer, monkeypatch):
    model, path = llama(bytes_tokenizer), tmp_path / "a.gguf"
    path.write_text("years of work")
    written = []

    def full(self, array, **options):  # NumPy's words
        written.append(array)
        if len(written) == 3:
            raise OSError(f"{array.size} requested and 672 written")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", full)
    with pytest.raises(OSError, match=r"the disk is full: .*a.gguf was not written; free some space$"):
        save_gguf(model, bytes_tokenizer, path, overwrite=True, progress=False)
    assert path.read_text() == "years of work" and list(tmp_path.iterdir()) == [path]


def test_what_can_not_be_written_is_refused(tmp_path, bytes_tokenizer):
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 7000.0}
    scaled = llama(bytes_tokenizer)
    scaled.config.rope_parameters = rope
    big = llama(bytes_tokenizer)
    with torch.no_grad():
        big.model.layers[3].mlp.up_proj.weight[0, 0] = 1e5
    for model, says in [
        (build_tiny("gpt2"), "only LlamaForCausalLM can be written, and this is a GPT2LMHeadModel"),
        (build_tiny("mistral"), "this is a MistralForCausalLM"),
        (quantize(build_tiny()), "this model is quantized: write the unquantized one"),
        (remove_sublayers(build_tiny(), attention=[2]), "no configuration describes this pruned model"),
        (scaled, "rotary positions are scaled .linear."),
        (llama(bytes_tokenizer, attention_bias=True), "has biases"),
        (build_tiny(), "the tokenizer has 262 tokens and the model 96"),
        (big, "blk.3.ffn_up.weight has weights beyond the range of float16"),
    ]:
        with pytest.raises(ValueError, match=says):
            save_gguf(model, bytes_tokenizer, tmp_path / "a.gguf", progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.real
def test_the_default_models_vocabulary_is_that_of_its_own_file(real, tmp_path):
    from shortgpt.checkpoints.default_model import GGUF_IN_WHEEL, cache_folder

    model, tokenizer = real
    path = save_gguf(remove_layers(model, [10, 11]), tokenizer, tmp_path / "small.gguf", pre_tokenizer="smollm")
    original = cache_folder() / GGUF_IN_WHEEL.rpartition("/")[2]
    ours, theirs = gguf.GGUFReader(path).fields, gguf.GGUFReader(original).fields
    for name in ("tokens", "token_type", "merges", "pre", "model", "bos_token_id", "eos_token_id", "padding_token_id"):
        assert ours[f"tokenizer.ggml.{name}"].contents() == theirs[f"tokenizer.ggml.{name}"].contents(), name
    for name in ("context_length", "embedding_length", "attention.head_count_kv", "rope.freq_base", "vocab_size"):
        assert ours[f"llama.{name}"].contents() == theirs[f"llama.{name}"].contents(), name
    assert ours["llama.block_count"].contents() == 28
