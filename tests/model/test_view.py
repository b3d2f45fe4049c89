"""A copy of a model computes with its own layers, whatever somebody put in the place of its methods, and is no checkpoint."""

import copy
import functools
import json
from types import MethodType

import pytest
import torch
from accelerate.utils.operations import convert_outputs_to_fp32
from small import build_tiny, random_batch
from torch import nn
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from shortgpt import decoder_layers, load, quantize, remove_layers, remove_sublayers, save, score_layers
from shortgpt.checkpoints.own_format import is_own_format
from shortgpt.model.anatomy import model_name
from shortgpt.model.view import share_weights
from shortgpt.pruning.recipe import RECIPE

BATCH = random_batch()
compiled = functools.partial(torch.compile, backend="eager")


def logits(model):
    with torch.inference_mode():
        return model(**BATCH).logits


class Called:
    """A patch that is an object."""

    def __init__(self, forward):
        self.forward = forward

    def __call__(self, *args, **kwargs):
        return self.forward(*args, **kwargs)


def compile_forward(model):
    model.forward = compiled(model.forward)


def compile_inner_forward(model):
    model.model.forward = compiled(model.model.forward)


def compile_in_place(model):
    model.compile(backend="eager")


def compile_layers(model):
    for i, layer in enumerate(model.model.layers):
        model.model.layers[i] = compiled(layer)


def autocast(model):
    model.forward = convert_outputs_to_fp32(torch.autocast("cpu", torch.bfloat16)(model.forward))


def autocast_as_a_method(model):  # as accelerate prepares a model for Trainer
    model.forward = MethodType(torch.autocast("cpu", torch.bfloat16)(model.forward.__func__), model)


def double(model):
    old = model.forward

    @functools.wraps(old)
    def doubled(*args, scale=2, **kwargs):
        out = old(*args, **kwargs)
        out.logits = scale * out.logits
        return out

    model.forward = doubled


def by_default_argument(model):
    model.forward = lambda *args, old=model.forward, **kwargs: old(*args, **kwargs)


def a_method_of_a_partial(model):  # as torchao puts on its layers
    model.forward = MethodType(functools.partial(type(model).forward), model)


def call_an_object(model):
    model.forward = Called(model.forward)


def compile_a_patch(model):
    double(model)
    compile_forward(model)


def compile_whole_call(model):  # what generate() keeps for a static cache
    model._compiled_call = compiled(model.__call__)


WRAPPERS = [compile_forward, compile_inner_forward, compile_in_place, compile_layers, autocast, autocast_as_a_method]
WRAPPERS += [double, by_default_argument, a_method_of_a_partial, call_an_object, compile_a_patch, compile_whole_call]


COMPILED = (compile_forward, compile_inner_forward, compile_a_patch)


@pytest.mark.parametrize(
    "wrap", [pytest.param(wrap, marks=pytest.mark.slow) if wrap in COMPILED else wrap for wrap in WRAPPERS]
)
def test_a_wrapped_model_is_pruned_to_what_the_pruned_model_would_be_wrapped(wrap):
    wrapped, expected = build_tiny(), remove_layers(build_tiny(), [1, 4])
    wrap(wrapped)
    wrap(expected)
    dense = logits(wrapped)
    pruned = remove_layers(wrapped, [1, 4])
    torch.testing.assert_close(logits(pruned), logits(expected), atol=0, rtol=0)
    torch.testing.assert_close(logits(remove_layers(pruned, [])), logits(expected), atol=0, rtol=0)
    call = getattr(pruned, "_compiled_call", pruned)
    torch.testing.assert_close(call(**BATCH).logits, logits(expected), atol=0, rtol=0)
    torch.testing.assert_close(logits(wrapped), dense, atol=0, rtol=0)


def test_a_quantized_copy_of_a_compiled_model_is_quantized():
    pytest.importorskip("torchao")
    wrapped = build_tiny()
    compile_forward(wrapped)
    torch.testing.assert_close(logits(quantize(wrapped, 8)), logits(quantize(build_tiny(), 8)), atol=0, rtol=0)


def test_a_function_that_calls_itself_is_copied(tiny):
    def patched(*args, again=True, **kwargs):
        return patched(*args, again=False, **kwargs) if again else old(*args, **kwargs)

    old, tiny.forward = tiny.forward, patched
    torch.testing.assert_close(
        logits(remove_layers(tiny, [2])), logits(remove_layers(build_tiny(), [2])), atol=0, rtol=0
    )


def test_what_gets_at_the_original_in_another_way_is_refused_and_the_rest_is_not(tiny):
    names = {"old": tiny.forward, "model": tiny}
    exec("def patched(*args, **kwargs):\n    return old(*args, **kwargs)", names)  # as in a notebook
    tiny.forward = names["patched"]
    with pytest.raises(
        ValueError, match=r"model.forward of this LlamaForCausalLM was replaced by .* take it off \(del model"
    ):
        remove_layers(tiny, [2])
    tiny.forward = lambda *args, **kwargs: None
    remove_layers(tiny, [2])
    exec("def method(self, *args, **kwargs):\n    return type(self).forward(self, *args, **kwargs)", names)
    tiny.forward = MethodType(names["method"], tiny)  # an attribute called like a global variable is none
    torch.testing.assert_close(
        logits(remove_layers(tiny, [2])), logits(remove_layers(build_tiny(), [2])), atol=0, rtol=0
    )


def test_a_compiled_model_as_an_argument_is_one_sentence(tiny):
    with pytest.raises(TypeError, match=r"what torch.compile\(\) made of one: pass the model that it was given"):
        remove_layers(compiled(tiny), [1])


# ---- saving ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("wrap", [autocast, autocast_as_a_method, compile_forward, compile_layers])
def test_saving_compares_like_with_like(wrap, tmp_path):
    wrapped = build_tiny()
    wrap(wrapped)
    save(wrapped, tmp_path / "dense")
    save(remove_layers(wrapped, [1]), tmp_path / "pruned")
    for name, expected in (("dense", build_tiny()), ("pruned", remove_layers(build_tiny(), [1]))):
        again = AutoModelForCausalLM.from_pretrained(tmp_path / name)
        torch.testing.assert_close(logits(again), logits(expected), atol=0, rtol=0)


def test_saving_still_notices_a_patch_that_no_checkpoint_holds(tiny, tmp_path):
    double(tiny)
    with pytest.raises(OSError, match="does not reload as the same model"):
        save(tiny, tmp_path / "saved")


def trained(model, folder, **settings):
    rows = [{"input_ids": row, "labels": row} for row in BATCH["input_ids"]]
    arguments = TrainingArguments(
        str(folder), max_steps=1, save_steps=1, use_cpu=True, report_to=[], disable_tqdm=True, **settings
    )
    Trainer(model, arguments, train_dataset=rows).train()
    return model


def test_a_model_after_a_trainer_run_in_bfloat16_is_saved_and_pruned(tmp_path):
    model = trained(build_tiny(), tmp_path / "run", bf16=True)
    assert "forward" in vars(model)  # accelerate leaves it there
    save(model, tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert len(decoder_layers(remove_layers(model, [1]))) == 5


# ---- names -------------------------------------------------------------------------------------------------------------
@pytest.fixture
def dense(tmp_path, tokenizer):
    build_tiny().save_pretrained(tmp_path / "dense")
    tokenizer.save_pretrained(tmp_path / "dense")
    return load(tmp_path / "dense", device="cpu")[0]


def names_in(model):
    return {getattr(m, "name_or_path", "") for m in model.modules()} | {model.config.name_or_path}


def test_a_changed_model_is_not_called_like_the_checkpoint_and_plans_still_are(dense, tokenizer, tmp_path):
    name = str(tmp_path / "dense")
    view = remove_layers(dense, [1])
    assert name in names_in(dense) and model_name(dense) == name
    for changed in (view, remove_layers(view, [0]), copy.deepcopy(view), remove_sublayers(dense, ffn=[2])):
        assert names_in(changed) == {""} and model_name(changed) == name
    assert score_layers(view, [BATCH], progress=False).model == name
    again = load(save(view, tmp_path / "pruned", tokenizer=tokenizer), device="cpu")[0]
    assert model_name(again) == again.name_or_path == str(tmp_path / "pruned")


@pytest.mark.parametrize(("bits", "method", "library"), [(8, "int8", "torchao"), (4, "nf4", "bitsandbytes")])
def test_a_quantized_model_is_not_called_like_the_checkpoint(dense, bits, method, library, tmp_path):
    pytest.importorskip(library)
    quantized = quantize(dense, bits, method=method)
    assert names_in(quantized) == {""} and model_name(quantized) == str(tmp_path / "dense")


def test_an_adapter_names_the_pruned_checkpoint_or_none(dense, tokenizer, tmp_path):
    peft = pytest.importorskip("peft")
    before, view = logits(dense), remove_layers(dense, [1, 2])
    save(view, tmp_path / "pruned", tokenizer=tokenizer)
    student = load(tmp_path / "pruned", device="cpu")[0]
    for model, base in ((view, None), (student, str(tmp_path / "pruned"))):
        with_adapter = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
        for name, weight in with_adapter.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(weight)
        with_adapter.save_pretrained(tmp_path / "adapter")
        assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == base
    again = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    expected = logits(with_adapter)
    torch.testing.assert_close(logits(again), expected, atol=0, rtol=0)
    torch.testing.assert_close(logits(with_adapter.merge_and_unload()), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(logits(dense), before, atol=0, rtol=0)  # as the documentation says


# ---- our own format ----------------------------------------------------------------------------------------------------
def test_what_trainer_writes_of_a_model_without_a_configuration_is_no_ordinary_checkpoint(dense, tokenizer, tmp_path):
    model = trained(copy.deepcopy(remove_sublayers(dense, attention=[2])), tmp_path / "run")
    folder = tmp_path / "run" / "checkpoint-1"
    assert is_own_format(folder) and not list(folder.glob("model*.safetensors"))
    with pytest.raises(ValueError, match="shortgpt_pruned"):
        AutoModelForCausalLM.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    torch.testing.assert_close(logits(load(folder, device="cpu")[0]), logits(model.eval()), atol=0, rtol=0)
    with pytest.raises(ValueError, match=r"leave push_to_hub out, or call shortgpt.save\(\)"):
        model.save_pretrained(tmp_path / "other", push_to_hub=True)


def test_a_copy_of_a_model_without_a_configuration_keeps_its_recipe_and_writes_its_own_weights(dense, tmp_path):
    view = remove_sublayers(dense, attention=[2])
    for twin in (copy.deepcopy(view), share_weights(view)):
        assert getattr(twin, RECIPE) == getattr(view, RECIPE) and twin.save_pretrained.__self__ is twin
    plain = remove_layers(view, [2])  # what no configuration could say is gone
    plain.save_pretrained(tmp_path / "plain")
    assert not is_own_format(tmp_path / "plain")
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(tmp_path / "plain")), logits(plain), atol=0, rtol=0
    )
