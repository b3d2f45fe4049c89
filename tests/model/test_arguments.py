"""Each helper that checks a model, a tokenizer or batches, on all kinds of nonsense: its callers only show that they ask."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from small import VOCABULARY, build_tiny, random_batch

from shortgpt.model.arguments import (
    check_batch,
    check_batches,
    check_ids,
    check_model,
    check_models,
    check_tokenizer,
    within_positions,
)

TINY = build_tiny()  # nobody may change it
BATCH = random_batch()
A_BATCH = "a batch is a dict with input_ids and attention_mask, got "
A_MASK = "attention_mask must hold 1 for a token and 0 for padding, and nothing else"


def sentence(kind: type[Exception], call, *args) -> str:
    with pytest.raises(kind) as caught:
        call(*args)
    said = str(caught.value)
    assert "\n" not in said and 20 <= len(said) <= 330
    return said


# ---- models and tokenizers -------------------------------------------------------------------------------------------
def other_things(tokenizer) -> list:
    return [None, "gpt2", {}, 3, tokenizer, (TINY, tokenizer), torch.nn.Linear(2, 2), TINY.config, type(TINY)]


def test_what_is_no_model_is_named_by_its_type(tokenizer):
    check_model(TINY)
    for thing in other_things(tokenizer):
        said = f"expected a transformers model, got {type(thing).__name__}: pass what load() returned first"
        assert sentence(TypeError, check_model, thing) == said


def test_a_compiled_model_is_told_apart():
    said = sentence(TypeError, check_model, torch.compile(TINY))
    assert said.endswith("got what torch.compile() made of one: pass the model that it was given")


def test_an_adapter_is_told_apart():
    adapted = type("PeftModel", (), {"__module__": "peft.peft_model"})()
    said = sentence(TypeError, check_model, adapted)
    assert said.startswith("expected a transformers model, got PeftModel: pass its merge_and_unload(), or ")


def test_models_are_a_dict_of_at_least_one():
    assert check_models({"a": TINY}) == {"a": TINY}
    for thing in (TINY, [TINY], None, "a"):
        said = sentence(TypeError, check_models, thing)
        assert said.startswith("models must be a dict from name to model, got ")
    assert sentence(ValueError, check_models, {}) == "models is empty: give at least one, the reference first"
    assert "got NoneType: pass" in sentence(TypeError, check_models, {"a": TINY, "b": None})


def test_what_is_no_tokenizer_is_named_by_its_type(tokenizer):
    check_tokenizer(tokenizer)
    for thing in (None, "gpt2", TINY, (TINY, tokenizer)):
        said = f"expected a tokenizer, got {type(thing).__name__}: pass what load() returned second"
        assert sentence(TypeError, check_tokenizer, thing) == said


# ---- batches ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("value", [None, 3, "the", BATCH["input_ids"]], ids=["none", "number", "string", "tensor"])
def test_what_is_no_list_of_batches(value):
    said = sentence(TypeError, check_batches, value)
    assert said.startswith("batches must be a list as calibration_batches() gives it, got ")


def test_one_batch_is_not_a_list_of_them():
    assert sentence(TypeError, check_batches, BATCH).endswith("got dict: put it in a list")
    for several in ([BATCH], (BATCH,), iter([BATCH]), []):  # each batch is looked at when its turn comes
        check_batches(several)


def with_mask(mask) -> dict:
    return BATCH | {"attention_mask": mask}


def with_ids(ids) -> dict:
    return {"input_ids": ids, "attention_mask": torch.ones(ids.shape, dtype=torch.long)}


WRONG = {
    "none": (None, TypeError, f"{A_BATCH}None"),
    "a string": ("the river", TypeError, f"{A_BATCH}'the river'"),
    "ids alone": (BATCH["input_ids"], TypeError, f"{A_BATCH}Tensor"),
    "no mask": ({"input_ids": BATCH["input_ids"]}, ValueError, "the batch has no attention_mask: .*return_tensors"),
    "no ids": ({"attention_mask": BATCH["input_ids"]}, ValueError, "the batch has no input_ids: "),
    "lists": ({"input_ids": [[1]], "attention_mask": [[1]]}, TypeError, "input_ids must be a tensor .*got list"),
    "numpy": ({k: v.numpy() for k, v in BATCH.items()}, TypeError, "input_ids must be a tensor .*got ndarray"),
    "1-D ids": (with_ids(torch.arange(1, 9)), ValueError, "input_ids must be .*\\[batch, tokens\\], got shape \\[8\\]"),
    "float ids": (with_ids(torch.rand(2, 8)), ValueError, "input_ids must be whole numbers.*torch.float32"),
    "bool ids": (with_ids(torch.ones(2, 8) > 0), ValueError, "input_ids must be whole numbers.*torch.bool"),
    "shapes differ": (
        with_mask(torch.ones(3, 15)),
        ValueError,
        "attention_mask has shape \\[3, 15\\].*\\[3, 16\\]: make them equal",
    ),
    "4-D mask": (with_mask(torch.ones(3, 1, 16, 16)), ValueError, "attention_mask has shape \\[3, 1, 16, 16\\]"),
    "mask of lists": (with_mask([[1] * 16] * 3), TypeError, "attention_mask must be a tensor .*got list"),
    "additive mask": (with_mask(torch.full((3, 16), -1e9)), ValueError, A_MASK),
    "NaN mask": (with_mask(torch.full((3, 16), float("nan"))), ValueError, A_MASK),
    "id beyond": (
        with_ids(torch.full((1, 8), VOCABULARY)),
        ValueError,
        "token 96 is not in .*vocabulary of 96.*own tokenizer.*pad_token",
    ),
    "negative id": (with_ids(torch.full((1, 8), -100)), ValueError, "token -100 is not in .*vocabulary of 96"),
    "no tokens": (with_ids(torch.ones(2, 0, dtype=torch.long)), ValueError, "the batch holds no token: .*\\[2, 0\\]"),
    "no rows": (with_ids(torch.ones(0, 4, dtype=torch.long)), ValueError, "the batch holds no token: .*\\[0, 4\\]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_batch(name):
    batch, kind, says = WRONG[name]
    said = sentence(kind, check_batch, TINY, batch)
    assert re.search(says, said), said


@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 1000), st.data())
def test_any_mask_of_ones_and_zeros_is_welcome_in_any_dtype(rows, tokens, seed, data):
    batch = random_batch(rows, tokens, seed)
    mask = torch.tensor(data.draw(st.lists(st.integers(0, 1), min_size=rows * tokens, max_size=rows * tokens)))
    dtype = data.draw(st.sampled_from([torch.bool, torch.int8, torch.int64, torch.float32]))
    check_batch(TINY, batch | {"attention_mask": mask.reshape(rows, tokens).to(dtype)})


@given(st.integers(-(2**40), 2**40), st.integers(0, 15))
def test_one_token_outside_the_vocabulary_is_found_wherever_it_is(token, place):
    ids = random_batch(rows=1)["input_ids"]
    ids[0, place] = token
    if 0 <= token < VOCABULARY:
        check_ids(TINY, ids)
    else:
        said = sentence(ValueError, check_ids, TINY, ids)
        assert said.startswith(f"token {token} is not in the model's vocabulary of {VOCABULARY}: ")


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.int64])
def test_ids_may_have_any_whole_dtype(dtype):
    check_ids(TINY, BATCH["input_ids"].to(dtype))
    check_ids(TINY, torch.empty(0, dtype=dtype))


# ---- positions -------------------------------------------------------------------------------------------------------
def beyond(model, tokens: int) -> None:
    with within_positions(model, tokens):
        raise IndexError("index out of range in self")


def test_an_index_error_past_the_positions_is_explained():
    said = sentence(ValueError, beyond, build_tiny("gpt2"), 257)
    assert said == "257 tokens are too many for this GPT2LMHeadModel, which learned 256 positions: take fewer"


def test_any_other_error_is_left_as_it_is():
    with pytest.raises(IndexError, match="out of range in self"):
        beyond(build_tiny("gpt2"), 256)
    unlimited = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: np))  # a config without that field
    with pytest.raises(IndexError, match="out of range in self"):
        beyond(unlimited, 10**6)
    with pytest.raises(KeyError), within_positions(TINY, 10**6):
        raise KeyError
