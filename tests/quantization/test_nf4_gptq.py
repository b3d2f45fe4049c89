"""Quantization by name: what each method stores, both orders with pruning, and a check that notices wrong checkpoints."""

import json
import logging
import re

import pytest
import torch
from quantized import DEVICES, logits, plain_reload, relative_error, small_llama
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small import build_tiny, random_batch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from shortgpt import load, quantize, remove_layers, remove_sublayers, save, size
from shortgpt.checkpoints import saving
from shortgpt.model.anatomy import removed_so_far
from shortgpt.quantization.methods import METHODS, fitting_group_size

HERE = [(8, "int8"), (4, "nf4"), (8, "rtn"), (4, "rtn")]  # every method whose library the tests have


def gptq(model, **options):
    pytest.importorskip("gptqmodel")
    batches = [random_batch(8, 64, seed=seed) for seed in range(2)]
    return quantize(model, 4, method="gptq", calibration=batches, progress=False, **options)


def by_name(model, bits, method):
    return gptq(model) if method == "gptq" else quantize(model, bits, method=method)


# ---- what is computed -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("group_size", [32, 64])
@pytest.mark.parametrize("bits", [8, 4])
def test_rounding_is_to_the_nearest_step_of_each_group(bits, group_size, device):
    model = small_llama().to(device)
    layer, dense = quantize(model, bits, method="rtn", group_size=group_size).model.layers[2], model.model.layers[2]
    for name in ("self_attn.q_proj", "mlp.down_proj"):
        stored, weight = (
            m.double().cpu().reshape(len(m), -1, group_size)  # [out, groups, inputs of a group]
            for m in (layer.get_submodule(name).weight.dequantize(), dense.get_submodule(name).weight.detach())
        )
        step = weight.abs().amax(-1, keepdim=True) / ((2**bits - 1) / 2)
        counts = stored / step
        assert (counts - counts.round()).abs().max() < 1e-3
        assert -(2 ** (bits - 1)) <= counts.round().min() and counts.round().max() < 2 ** (bits - 1)
        assert ((stored - weight).abs() / step).max() < 0.5 + 1e-3
    assert model.model.layers[2].self_attn.q_proj.weight.dtype == torch.float32  # the input is unchanged


def test_smaller_groups_and_more_bits_are_nearer():
    model = small_llama()
    before = logits(model)
    errors = [
        relative_error(logits(quantize(model, bits, method="rtn", group_size=group)), before)
        for bits, group in ((4, 128), (4, 32), (8, 128), (8, 32))
    ]
    assert errors == sorted(errors, reverse=True) and errors[1] > 5 * errors[2]


@pytest.mark.parametrize(("hidden", "ffn", "expected"), [(128, 256, 128), (64, 192, 64), (128, 160, 32)])
def test_the_group_size_is_the_largest_that_fits_every_layer(hidden, ffn, expected):
    sizes = dict(vocab_size=50, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)
    model = AutoModelForCausalLM.from_config(LlamaConfig(hidden_size=hidden, intermediate_size=ffn, **sizes))
    assert fitting_group_size(model) == expected
    assert quantize(model, 4, method="rtn").model.layers[0].mlp.down_proj.weight.block_size[1] == expected


def test_a_group_size_that_does_not_fit_names_the_layer():
    sizes = dict(vocab_size=50, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)
    model = AutoModelForCausalLM.from_config(LlamaConfig(hidden_size=32, intermediate_size=72, **sizes))
    with pytest.raises(
        ValueError, match=r"groups of 32 .* don't fit model.layers.0.mlp.down_proj, which has 72 inputs"
    ):
        quantize(model, 4, method="rtn")
    assert fitting_group_size(model, 8) == 8


def test_4_bit_rounding_is_stored_a_value_a_byte():
    """The docstring says that its size is simulated: if a release packs it, say something else there."""
    model = small_llama()
    eight, four = (size(quantize(model, bits, method="rtn"))["memory_bytes"] for bits in (8, 4))
    assert eight == four > size(quantize(model, 4))["memory_bytes"]
    assert size(quantize(model, 4, method="rtn"))["parameters"] == size(model)["parameters"]


@pytest.mark.parametrize("bits", [8, 4])
def test_without_a_name_the_methods_are_what_they_were(bits):
    model = small_llama()
    named = quantize(model, bits, method={8: "int8", 4: "nf4"}[bits])
    torch.testing.assert_close(logits(quantize(model, bits)), logits(named), atol=0, rtol=0)


# ---- both orders ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("order", ["prune first", "quantize first"])
@pytest.mark.parametrize(("bits", "method"), [*HERE, (4, "gptq")])
def test_in_both_orders_what_is_saved_reloads_equal_and_writes(bits, method, order, tmp_path):
    model = small_llama()
    if order == "prune first":
        small = by_name(remove_layers(model, [1]), bits, method)
    else:
        small = remove_layers(by_name(model, bits, method), [1])
    expected = logits(small)  # and some kernels repack their weights in the first forward pass
    reloaded = plain_reload(save(small, tmp_path / "small"))
    assert reloaded.config.num_hidden_layers == 3 and removed_so_far(reloaded) == (1,)
    torch.testing.assert_close(logits(reloaded), expected, atol=0, rtol=0)
    prompt = torch.arange(3, 9)[None]
    cached, uncached = (
        reloaded.generate(prompt, max_new_tokens=6, do_sample=False, use_cache=use) for use in (True, False)
    )
    assert torch.equal(cached, uncached) and cached.shape[1] > 6
    # a reloaded model is as good as the first: prune it again, save it again
    again = remove_layers(reloaded, [0])
    twice = plain_reload(save(again, tmp_path / "again"))
    torch.testing.assert_close(logits(twice), logits(again), atol=0, rtol=0)


@pytest.mark.parametrize(("bits", "method"), HERE)
def test_without_calibration_the_order_does_not_matter(bits, method):
    model = small_llama()
    first = logits(remove_layers(quantize(model, bits, method=method), [1]))
    second = logits(quantize(remove_layers(model, [1]), bits, method=method))
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-4)


def test_the_loggers_of_bitsandbytes_are_as_they_were():
    logger = logging.getLogger("bitsandbytes")
    before = logger.level
    quantize(small_llama(), 4)
    assert logger.level == before


def test_a_model_that_no_configuration_describes_is_refused_where_it_would_pass_through_a_plain_checkpoint():
    pruned = remove_sublayers(build_tiny(), attention=[2])
    with pytest.raises(ValueError, match="can't describe this pruned LlamaForCausalLM"):
        quantize(pruned, 4)
    assert relative_error(logits(quantize(pruned, 8, method="rtn")), logits(pruned)) < 0.3


# ---- the check in save notices what libraries got wrong ---------------------------------------------------------------
def damaging(model, monkeypatch, damage):
    """Let `damage(folder)` happen to what the model's save_pretrained writes."""
    write = model.save_pretrained

    def write_damaged(folder, **options):
        write(folder, **options)
        damage(folder)

    monkeypatch.setattr(model, "save_pretrained", write_damaged)
    return model


def change_tensors(folder, change):
    file = folder / "model.safetensors"
    with safe_open(file, framework="pt") as weights:
        tensors, metadata = {name: weights.get_tensor(name) for name in weights.keys()}, weights.metadata()  # noqa: SIM118
    changed = {name: change(name, tensor).contiguous() for name, tensor in tensors.items()}
    assert any(not torch.equal(changed[name], tensors[name]) for name in tensors)
    save_file(changed, file, metadata=metadata)


def assert_refused(model, folder, says="does not reload as the same model|can't be loaded again"):
    with pytest.raises(OSError, match=says):
        save(model, folder)
    assert not folder.exists() and not list(folder.parent.glob(f".{folder.name}*"))


def plain_nf4(folder):
    """NF4 without double quantization, which `quantize` does not offer."""
    from transformers import BitsAndBytesConfig

    scheme = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=False)
    small_llama().save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, quantization_config=scheme).eval()


def test_save_passes_nf4_without_double_quantization_on_a_cpu_that_does_not_repack(tmp_path):
    from bitsandbytes.functional import has_avx512bf16

    if has_avx512bf16():
        pytest.skip("this CPU repacks")
    save(plain_nf4(tmp_path / "dense"), tmp_path / "small")


def test_save_notices_scales_that_a_repacking_kernel_left_transposed(tmp_path, monkeypatch):
    """What bitsandbytes 0.50.2 does in the first forward pass on CPUs with AVX512_BF16, by its own code, on any CPU."""
    from bitsandbytes import functional
    from bitsandbytes.nn import Linear4bit

    model = plain_nf4(tmp_path / "dense")
    write = model.save_pretrained

    def write_repacked(folder, **options):
        for module in model.modules():
            weight = getattr(module, "weight", None)
            if isinstance(module, Linear4bit) and not getattr(weight.quant_state, "packing_format_for_cpu", False):
                packed, state = functional._convert_weight_packed_for_cpu(weight.data, weight.quant_state)
                weight.data, weight.quant_state = packed, state
        write(folder, **options)

    monkeypatch.setattr(model, "save_pretrained", write_repacked)
    assert_refused(model, tmp_path / "small")


def test_save_notices_the_same_where_the_cpu_does_it(tmp_path):
    from bitsandbytes.functional import has_avx512bf16

    if not has_avx512bf16():
        pytest.skip("needs a CPU with AVX512_BF16")
    model = plain_nf4(tmp_path / "dense")
    logits(model)
    assert_refused(model, tmp_path / "small")


@pytest.mark.parametrize("way", ["quantized", "loaded"])
def test_nf4_is_not_repacked_on_cpus_where_bitsandbytes_would(way, tmp_path, monkeypatch):
    """Repacking rounds the scales: the model would be another one after saving, and on another CPU."""
    from bitsandbytes.nn import Linear4bit, modules

    monkeypatch.setattr(modules, "has_avx512bf16", lambda: True)  # what 4-bit layers ask when they are made

    def repack(*args):
        raise AssertionError("repacked")  # nor does the model that save() reloads to compare with

    monkeypatch.setattr(modules, "_convert_weight_packed_for_cpu", repack)
    model = quantize(small_llama(), 4)
    if way == "loaded":
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(WordLevel({"a": 0, "?": 1}, unk_token="?")), unk_token="?"
        )
        model, _ = load(save(model, tmp_path / "saved", tokenizer=tokenizer), device="cpu", dtype=torch.float32)
    before = logits(model)
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert layers and not any(getattr(each.weight.quant_state, "packing_format_for_cpu", False) for each in layers)
    again = save(model, tmp_path / "again")
    assert torch.equal(logits(model), before), "saving left the model as it was"
    save(model, tmp_path / "once more")
    first, second = (load_file(folder / "model.safetensors") for folder in (again, tmp_path / "once more"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_save_notices_transposed_scales(tmp_path, monkeypatch):
    """The same fault written by hand, should the library's code go: scales [rows, groups] in the order [groups, rows]."""

    def transposed(name, tensor):
        if not name.endswith("weight.absmax"):
            return tensor
        groups = 4 if "down_proj" in name else 2  # inputs / 64
        return tensor.reshape(-1, groups).T.reshape(-1)

    model = plain_nf4(tmp_path / "dense")
    damaging(model, monkeypatch, lambda folder: change_tensors(folder, transposed))
    assert_refused(model, tmp_path / "small", "does not reload as the same model")


@pytest.mark.parametrize("shift", [1, -1])
def test_save_notices_zero_points_of_another_version(shift, tmp_path, monkeypatch):
    """GPTQ's version 1 stores each zero point less one. Written as one version and read as the other, all are one off."""
    model = quantize(small_llama(), 4, method="rtn")
    change = lambda name, tensor: tensor + shift if "zero_point" in name else tensor  # noqa: E731
    damaging(model, monkeypatch, lambda folder: change_tensors(folder, change))
    assert_refused(model, tmp_path / "small", "does not reload as the same model")


@pytest.mark.parametrize(("bits", "method"), [(None, None), *HERE])
def test_save_notices_the_dense_models_configuration(bits, method, tmp_path, monkeypatch):
    """llm-compressor 0.14 writes the old config.json back: too many layers, the last ones made up on loading."""

    def old_config(folder):
        config = json.loads((folder / "config.json").read_text())
        config["num_hidden_layers"] = 4
        (folder / "config.json").write_text(json.dumps(config))

    pruned = remove_layers(small_llama(), [1])
    model = pruned if bits is None else quantize(pruned, bits, method=method)
    save(model, tmp_path / "right")
    assert_refused(damaging(model, monkeypatch, old_config), tmp_path / "small")


def gptq_as_transformers_loads_it(folder):
    """Version 1 on disk, version 2 in memory, version 1 in the configuration."""
    model = gptq(small_llama())
    model.save_pretrained(folder)
    minus_one = 0b00010001000100010001000100010001
    change = lambda name, tensor: tensor - minus_one if name.endswith("qzeros") else tensor  # noqa: E731
    change_tensors(folder, change)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] |= {"format": "gptq", "checkpoint_format": "gptq"}
    (folder / "config.json").write_text(json.dumps(config))
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.testing.assert_close(logits(loaded), logits(model), atol=0, rtol=0)
    return loaded


def test_a_gptq_model_that_transformers_loaded_is_refused_and_the_check_would_notice_too(tmp_path, monkeypatch):
    model = gptq_as_transformers_loads_it(tmp_path / "version1")
    for candidate in (model, remove_layers(model, [1])):
        with pytest.raises(ValueError, match=r"changed the zero points .* prune_checkpoint"):
            save(candidate, tmp_path / "small")
    monkeypatch.setattr(saving, "require_savable", lambda config: None)
    assert_refused(model, tmp_path / "small", "does not reload as the same model")


@pytest.mark.parametrize("fields", [{"format": "gptq"}, {}])
def test_the_refusal_needs_no_library(fields, tmp_path):
    model = small_llama()
    model.config.quantization_config = {"quant_method": "gptq", "bits": 4, "group_size": 64} | fields
    with pytest.raises(ValueError, match="changed the zero points of this GPTQ model"):
        save(model, tmp_path / "small")


# ---- GPTQ -----------------------------------------------------------------------------------------------------------
def test_gptq_is_nearer_than_rounding_on_the_same_grid_and_packs_four_bits(tmp_path, monkeypatch):
    pytest.importorskip("gptqmodel")
    monkeypatch.chdir(tmp_path)  # it would write logs here
    model = small_llama()
    before, batch = model.state_dict(), random_batch(8, 64, seed=9)
    with torch.inference_mode():
        dense, by_gptq, by_rounding = (
            m(**batch).logits
            for m in (model, gptq(model, group_size=64), quantize(model, 4, method="rtn", group_size=64))
        )
    assert relative_error(by_gptq, dense) < 0.9 * relative_error(by_rounding, dense)
    small = gptq(model)
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not model.lm_head)
    assert size(small)["parameters"] == size(model)["parameters"]
    saved = size(model)["memory_bytes"] - size(small)["memory_bytes"]
    assert 0.95 * linear * 3.5 < saved < linear * 3.5
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not list(tmp_path.iterdir())


def test_gptq_without_its_library_comes_with_the_install_line(monkeypatch):
    import builtins

    real_import = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] in ("gptqmodel", "optimum"):
            raise ImportError(f"No module named {name!r}")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=re.escape("pip install gptqmodel==7.6.0 optimum==2.3.0")):
        quantize(small_llama(), 4, method="gptq", calibration=[random_batch()], progress=False)


def test_every_method_is_tried_above():
    assert {method for _, method in HERE} | {"gptq"} == set(METHODS)


# ---- the default model was rounded before -----------------------------------------------------------------------------
def asymmetric(weight, group_size):
    """The nearest of 16 equal steps from the least to the greatest weight of each group: [out, in] -> [out, in]."""
    groups = weight.double().reshape(weight.shape[0], -1, group_size)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    step = (high - low) / 15
    return (((groups - low) / step).round() * step + low).reshape(weight.shape)


@pytest.mark.real
def test_rounding_the_default_model_in_its_own_blocks_costs_nothing(real):
    """Its file has 16 values for each block of 32: the same blocks find them again, blocks of 64 can't."""
    layer = real[0].model.layers[10]
    for weight in (layer.mlp.up_proj.weight.detach(), layer.self_attn.o_proj.weight.detach()):
        fresh = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        own, double = (relative_error(asymmetric(weight, size), weight.double()) for size in (32, 64))
        assert own < 0.005 and double > 0.05
        assert relative_error(asymmetric(fresh, 32), fresh.double()) > 0.05  # weights that nobody rounded before


@pytest.mark.real
def test_rounding_the_real_model_costs_more_than_nf4(real):
    from shortgpt import built_in_text, perplexity

    model, tokenizer = real
    text = built_in_text("perplexity", genre="encyclopedic")["text"].head(1)
    dense, eight, nf4, four = (
        perplexity(m, tokenizer, text)
        for m in (model, quantize(model, 8, method="rtn"), quantize(model, 4), quantize(model, 4, method="rtn"))
    )
    assert abs(eight / dense - 1) < 0.02
    assert eight < nf4 < four < 3 * dense
