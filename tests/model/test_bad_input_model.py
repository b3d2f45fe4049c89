"""What anatomy, hooks and texts say when they are called wrongly."""

import pytest
import torch
from bad_input import (
    MODEL,
    TEXTS,
    TOKENIZER,
    check,
    count,
    forgotten,
    gpt2,
    nan,
    no_model,
    no_tokenizer,
    no_weights,
    with_end,
    wrong,
)
from small import random_batch

from shortgpt import built_in_text, calibration_batches, decoder_layers, hidden_states, sampled_text, watch_layers


def watching(model, report):
    with watch_layers(model, report):
        pass


def endless(model):
    model.generation_config.eos_token_id = None
    return model


def without_pad(w):
    w.tokenizer.pad_token = None
    return w.tokenizer


CASES = [
    *wrong(
        sampled_text,
        {"model": MODEL, "tokenizer": with_end, "progress": False},
        no_model(),
        no_tokenizer(),
        ({"tokenizer": TOKENIZER}, ValueError, "no begin and no end token, which"),
        *map(count, ["samples", "length", "batch_size"]),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"temperature": 0}, ValueError, "temperature must be above 0 and finite, got 0"),
        ({"temperature": float("nan")}, ValueError, "temperature must be above 0 and finite, got nan"),
        ({"temperature": "high"}, TypeError, "temperature must be a number, got 'high'"),
        nan(),
        no_weights(),
        (
            {"model": lambda w: endless(gpt2(w)), "samples": 1, "length": 300},
            ValueError,
            "301 tokens .*256 positions",
        ),
    ),
    *wrong(decoder_layers, {}, no_model()),
    *wrong(
        built_in_text,
        {},
        (
            {"part": "all"},
            ValueError,
            "no part 'all' here: choose one of calibration, natural, natural_test, perplexity",
        ),
        ({"part": 3}, ValueError, "no part 3 here: choose one of"),
        ({"language": "fr"}, ValueError, "no language 'fr' here: choose one of en, zh"),
        ({"genre": [1]}, ValueError, "no genre .*choose one of"),
    ),
    *wrong(
        calibration_batches,
        {"tokenizer": TOKENIZER, "text": TEXTS},
        no_tokenizer(),
        *map(count, ["samples", "length", "batch_size"]),
        count("seed", least=0),
        ({"text": []}, ValueError, "text is empty: give at least one document"),
        ({"text": ["", " \n"]}, ValueError, "text is empty: give"),
        ({"text": "the river"}, ValueError, "list of strings, got 'the river'"),
        ({"text": ["a", 1]}, TypeError, "text must be strings, got 1"),
        ({"text": 3}, TypeError, "text must be a list of strings.*got 3"),
        ({"text": b"the"}, TypeError, "text must be .*got bytes"),
        ({"text": lambda w: w.folder / "no.txt"}, FileNotFoundError, "no such .*no.txt"),
        ({"text": lambda w: w.folder / "mine"}, ValueError, "must be a .txt or .jsonl"),
        ({"text": lambda w: w.file("{", "a.jsonl")}, ValueError, "every line must be a JSON"),
        ({"text": lambda w: w.file('{"text": 3}', "a.jsonl")}, TypeError, "strings, got 3"),
        (
            {"tokenizer": lambda w: without_pad(w), "text": [*TEXTS, "short"], "pack": False},
            ValueError,
            "the tokenizer has no pad token: set `tokenizer.pad_token",
        ),
        ({"spread": True, "pack": False}, ValueError, "give one of the two"),
    ),
    *wrong(
        hidden_states,
        {"model": MODEL, "batch": lambda w: w.batch},
        no_model(),
        ({"batch": None}, TypeError, "a batch is a dict with input_ids and attention_mask, got None"),
        (
            {"batch": lambda w: w.batch | {"attention_mask": torch.zeros(3, 16, dtype=torch.long)}},
            ValueError,
            "the batch holds no token: its attention_mask is 0 everywhere",
        ),
        no_weights(),
        ({"model": gpt2, "batch": random_batch(tokens=257)}, ValueError, "257 tokens .*256 positions: "),
    ),
    *wrong(
        watching,
        {"model": MODEL, "report": print},
        no_model(),
        ({"report": 3}, TypeError, "report must be a function .*got 3"),
        name="watch_layers",
    ),
]
REASONS = {}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_wrong_call_is_one_sentence_and_changes_nothing(case, world):
    check(case, world)


def test_every_parameter_is_asked():
    assert not forgotten("model", CASES, REASONS)
