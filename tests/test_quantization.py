"""8 and 4 bits: small, close, in both orders with pruning, and equal after a reload (which is where libraries fail)."""

import builtins

import pytest
import torch
from small import build_tiny
from transformers import AutoModelForCausalLM, LlamaConfig

from shortgpt import built_in_text, perplexity, quantize, remove_layers, save, size
from shortgpt.quantization import is_quantized

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU"))]


def small_llama():
    """Wide enough for blocks of 64 weights."""
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.05,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def logits(model):
    with torch.inference_mode():
        return model(torch.arange(3, 40)[None].to(model.device)).logits.float().cpu()


def relative_error(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("bits", "low", "high"), [(8, 1e-5, 0.03), (4, 0.01, 0.3)])
def test_quantized_logits_are_close_but_not_equal(bits, low, high, device):
    model = small_llama().to(device)
    before = logits(model)
    error = relative_error(logits(quantize(model, bits)), before)
    assert low < error < high
    torch.testing.assert_close(logits(model), before, atol=0, rtol=0)  # the input is unchanged
    assert not is_quantized(model)


@pytest.mark.parametrize("bits", [8, 4])
def test_both_orders_give_the_same_model(bits):
    model = small_llama()
    first = logits(remove_layers(quantize(model, bits), [1]))
    second = logits(quantize(remove_layers(model, [1]), bits))
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("order", ["prune then quantize", "quantize then prune"])
@pytest.mark.parametrize("bits", [8, 4])
def test_a_saved_model_reloads_equal_also_after_it_was_used(bits, order, tmp_path):
    model = small_llama()
    small = (
        quantize(remove_layers(model, [1]), bits)
        if order == "prune then quantize"
        else remove_layers(quantize(model, bits), [1])
    )
    logits(small)  # some kernels repack their weights in the first forward pass
    folder = save(small, tmp_path / "small")
    reloaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert is_quantized(reloaded) and reloaded.config.num_hidden_layers == 3
    torch.testing.assert_close(logits(reloaded), logits(small), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("bits", [8, 4])
def test_sizes_count_real_storage(bits, tmp_path):
    model = small_llama()
    small = quantize(model, bits)
    dense, packed = size(model), size(small, save(small, tmp_path / "small"))
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not model.lm_head)
    assert packed["parameters"] == dense["parameters"]
    saved = dense["memory_bytes"] - packed["memory_bytes"]
    expected = linear * (4 - bits / 8)  # less the scales
    assert 0.85 * expected < saved < expected
    assert abs(packed["disk_bytes"] - packed["memory_bytes"]) < 40_000
    assert small.get_input_embeddings().weight.data_ptr() == small.get_output_embeddings().weight.data_ptr()


def test_save_notices_a_quantized_checkpoint_that_reloads_as_garbage(tmp_path, monkeypatch):
    from safetensors.torch import load_file, save_file

    small = quantize(small_llama(), 4)
    write = small.save_pretrained

    def write_damaged(folder):
        write(folder)
        tensors = load_file(folder / "model.safetensors")
        name = next(n for n in tensors if n.endswith("absmax"))
        tensors[name] = tensors[name].flip(0)  # scales in the wrong order: what one library really did
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(small, "save_pretrained", write_damaged)
    with pytest.raises(OSError, match="does not reload as the same model"):
        save(small, tmp_path / "small")


def test_bad_requests_are_one_clear_sentence():
    model = small_llama()
    for bits in (3, 16, "4"):
        with pytest.raises(ValueError, match="bits must be 8 or 4"):
            quantize(model, bits)
    with pytest.raises(ValueError, match="quantized already"):
        quantize(quantize(model, 8), 4)


@pytest.mark.parametrize(("bits", "library"), [(8, "torchao"), (4, "bitsandbytes")])
def test_a_missing_library_comes_with_its_install_line(bits, library, monkeypatch):
    real_import = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == library:
            raise ImportError(f"No module named {library!r}")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=rf"{library}: pip install 'shortgpt-pruning\[quant\]'"):
        quantize(build_tiny(), bits)


@pytest.mark.real
def test_the_real_model_keeps_its_perplexity_in_8_bits_and_loses_some_in_4(real):
    model, tokenizer = real
    text = built_in_text("perplexity", genre="encyclopedic")["text"].head(1)  # 600 tokens: a sentence is too noisy
    dense, eight, four = (perplexity(m, tokenizer, text) for m in (model, quantize(model, 8), quantize(model, 4)))
    assert abs(eight / dense - 1) < 0.02
    assert eight < four < 2 * dense
