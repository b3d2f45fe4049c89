"""8 and 4 bits: small, close, in both orders with pruning, and equal after a reload (which is where libraries fail)."""

import builtins
import re
import warnings

import pytest
import torch
from quantized import DEVICES, logits, plain_reload, relative_error, small_llama
from small import build_tiny
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, LlamaConfig
from transformers.pytorch_utils import Conv1D

from shortgpt import built_in_text, perplexity, quantize, remove_layers, save, size
from shortgpt.quantization.methods import is_quantized


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
    reloaded = plain_reload(folder)
    assert is_quantized(reloaded) and reloaded.config.num_hidden_layers == 3
    torch.testing.assert_close(logits(reloaded), logits(small), atol=0, rtol=0)


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


# ---- weights that are not in linear layers ----------------------------------------------------------------------------
def test_gpt2_is_quantized_in_4_bits_and_refused_in_8(tmp_path):
    """Its weights are in `Conv1D`, which torchao doesn't know: the result would be the model itself."""
    config = GPT2Config(vocab_size=96, n_embd=128, n_layer=3, n_head=4, n_positions=64, initializer_range=0.1)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for bits, method in ((8, None), (8, "rtn"), (4, "rtn")):
        with pytest.raises(
            ValueError, match="^GPT2LMHeadModel keeps its weights in other .* use bits=4, method='nf4'$"
        ):
            quantize(model, bits, method=method)
    small = quantize(model, 4, method="nf4")
    assert 0.01 < relative_error(logits(small), logits(model)) < 0.4
    weights = sum(module.weight.numel() for module in model.modules() if isinstance(module, Conv1D))
    saved = size(model)["memory_bytes"] - size(small)["memory_bytes"]
    assert 0.98 * 3.5 * weights < saved < 3.5 * weights  # less the scales
    again = plain_reload(save(small, tmp_path / "small"))
    torch.testing.assert_close(logits(again), logits(small), atol=0, rtol=0)


def experts(kind):
    """A mixture of experts of `kind`, four layers."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    own = {
        "mixtral": {"num_local_experts": 4},
        "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 128, "shared_expert_intermediate_size": 64}
        | {"num_experts_per_tok": 2, "mlp_only_layers": [0, 2]},  # without experts
        "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 128, "num_experts_per_tok": 2, "head_dim": 16},
    }[kind]
    options = {"vocab_size": 96, "num_hidden_layers": 4, "initializer_range": 0.1, "pad_token_id": 0}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **own, **options)).eval()


@pytest.mark.parametrize(("bits", "method"), [(8, "int8"), (4, "nf4"), (8, "rtn")])
@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "qwen3_moe"])
def test_how_much_of_a_mixture_of_experts_stays_is_said(kind, bits, method, tmp_path):
    model = experts(kind)
    weights = list(model.model.layers.parameters())
    total = sum(weight.numel() for weight in weights)
    fused = sum(weight.numel() for weight in weights if weight.ndim == 3)
    with pytest.warns(UserWarning) as caught:
        small = quantize(model, bits, method=method)
    (text,) = [str(w.message) for w in caught if "decoder layers" in str(w.message)]
    share = int(re.search(r"left (\d+)% of the weights in the decoder layers of this \w+ForCausalLM", text)[1])
    assert fused / total > 0.5 and 0 <= share - 100 * fused / total < 2  # router and norms stay, too
    assert "\n" not in text and len(text) < 260
    assert caught[0].filename == __file__
    dense, packed = size(model)["memory_bytes"], size(small)["memory_bytes"]
    assert 4 * fused < packed < dense
    assert 1e-3 < relative_error(logits(small), logits(model)) < 0.6
    pruned = remove_layers(small, [0])  # then other layers have experts than before
    again = plain_reload(save(pruned, tmp_path / "small"))
    torch.testing.assert_close(logits(again), logits(pruned), atol=0, rtol=0)


def test_nf4_leaves_layers_that_its_kernel_for_cpus_can_not_run():
    """It would fail in the first forward pass, on CPUs that have bfloat16 arithmetic."""
    names = ("self_attn.k_proj", "mlp.up_proj", "mlp.down_proj", "self_attn.q_proj")
    for sizes, expected in [
        ({"num_key_value_heads": 1, "head_dim": 16}, "L444"),
        ({"intermediate_size": 96}, "44L4"),  # 96 inputs are no blocks of 64
    ]:
        options = {"vocab_size": 96, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3}
        config = LlamaConfig(**(options | {"num_attention_heads": 4, "initializer_range": 0.05} | sizes))
        model = AutoModelForCausalLM.from_config(config).eval()
        small = quantize(model, 4)
        for layer in small.model.layers:
            kinds = [type(layer.get_submodule(name)).__name__ for name in names]
            assert ["4" if kind == "Linear4bit" else "L" for kind in kinds] == list(expected)
        assert type(small.lm_head) is torch.nn.Linear
        assert 0.01 < relative_error(logits(small), logits(model)) < 0.4


def test_where_nothing_can_be_quantized_it_is_said():
    """Falcon's layers are linear layers of a class of its own, which bitsandbytes' loader passes over."""
    sizes = {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("falcon", **sizes))
    with pytest.raises(
        ValueError, match="^nothing in the decoder layers of this FalconForCausalLM .* 'nf4' takes: leave"
    ):
        quantize(model, 4)


@pytest.mark.parametrize("bits", [8, 4])
def test_of_a_dense_model_there_is_nothing_to_say(bits):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*decoder layers")
        quantize(small_llama(), bits)


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
