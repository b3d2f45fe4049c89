"""What the studies of the lessons say when they are called wrongly."""

import pandas as pd
import pytest
from architectures import tiny_model
from bad_input import (
    MODEL,
    OTHER_VOCABULARY,
    TEXTS,
    TOKENIZER,
    YES_OR_NO,
    check,
    count,
    forgotten,
    gpt2,
    layers,
    many_tokens,
    nan,
    no_model,
    no_tokenizer,
    no_weights,
    prompts,
    wrong,
)
from small import LAYERS, build_tiny

from shortgpt import (
    Ablation,
    PruningPlan,
    choice_and_generation,
    choice_summary,
    divergence_along,
    generate_with_draft,
    prefill_report,
    prune_prefill,
    speculative_report,
    suggested_models,
    token_paths,
)


def ablate(model, tokenizer, text, layers):
    Ablation(model, tokenizer, text)(layers)


def writes(model, tokenizer, text, layers):
    Ablation(model, tokenizer, text).writes(layers)


def table(model, tokenizer, text, choices):
    Ablation(model, tokenizer, text).table(choices)


def wider(w):
    model = build_tiny()
    model.resize_token_embeddings(100)
    return model


def long_text(n: int) -> str:
    return "a" * n


ABLATION = {"model": MODEL, "tokenizer": TOKENIZER, "text": TEXTS[0]}
CASES = [
    *wrong(
        Ablation,
        ABLATION,
        no_model(),
        no_tokenizer(),
        ({"text": TEXTS}, TypeError, "text must be a string, got list"),
        ({"text": "a"}, ValueError, "no sample has two tokens"),
        ({"text": " "}, ValueError, "the calibration text is empty"),
        count("tokens", least=2),
        count("new_tokens"),
        ({"prompt": ""}, ValueError, "the prompt is empty: give it at least one word"),
        nan(),
        no_weights(),
    ),
    *wrong(
        ablate,
        ABLATION,
        layers(),
        ({"layers": range(LAYERS)}, ValueError, "leaves none"),
        name="Ablation.__call__",
    ),
    *wrong(writes, ABLATION, layers(), name="Ablation.writes"),
    *wrong(
        table,
        ABLATION,
        ({"choices": [[1]]}, TypeError, "choices must be a dict from name to layers, got list"),
        name="Ablation.table",
    ),
    *wrong(
        divergence_along,
        {"dense": MODEL, "pruned": MODEL, "tokenizer": TOKENIZER, "prompts": ["the"], "progress": False},
        no_model("dense"),
        no_model("pruned"),
        no_tokenizer(),
        *prompts(),
        count("new_tokens"),
        (
            {"pruned": lambda w: wider(w)},
            ValueError,
            "the models have vocabularies of 96 and 100 tokens: compare two that came from one model",
        ),
        nan("pruned", dense=lambda w: build_tiny()),
        no_weights("pruned"),
        ({"pruned": gpt2, "dense": gpt2, "prompts": [long_text(300)]}, ValueError, "tokens .*256 positions"),
        ({"tokenizer": many_tokens, "prompts": ["zz"]}, ValueError, OTHER_VOCABULARY),
    ),
    *wrong(
        choice_and_generation,
        {"model": MODEL, "tokenizer": TOKENIZER, "progress": False},
        no_model(),
        no_tokenizer(),
        ({"task": "grammar"}, ValueError, "unknown task 'grammar': choose one of science, physical"),
        count("limit"),
        count("new_tokens"),
        ({"chat": True}, ValueError, "no chat template: pass chat=False"),
        no_weights(limit=1),
    ),
    *wrong(
        choice_summary,
        {},
        ({"table": [1]}, TypeError, "table of choice_and_generation.*got list"),
        ({"table": pd.DataFrame({"task": ["x"]})}, ValueError, "no column 'choice_right'"),
        (
            {"table": pd.DataFrame(columns=["choice_right", "written_right", "read"])},
            ValueError,
            "the table is empty: give it at least one",
        ),
    ),
    *wrong(
        prefill_report,
        {
            "model": MODEL,
            "tokenizer": TOKENIZER,
            "layer_sets": [[1]],
            "texts": TEXTS,
            "prompt_tokens": 8,
            "new_tokens": 4,
            "progress": False,
        },
        no_model(),
        no_tokenizer(),
        ({"layer_sets": [[1, LAYERS]]}, *layers()[1:]),
        ({"layer_sets": 3}, TypeError, "layer_sets must be a list of lists.*got 3"),
        (
            {"layer_sets": [1, 2]},
            TypeError,
            "layers are a list of numbers, for instance \\[3, 4\\], got 1",
        ),
        ({"layer_sets": []}, ValueError, "layer_sets is empty: give at least one"),
        ({"texts": "ab"}, TypeError, "texts must be a list of strings"),
        (
            {"prompt_tokens": 256, "new_tokens": 64},
            ValueError,
            "no text has 320 tokens .the longest has 28.: give longer texts",
        ),
        ({"texts": []}, ValueError, "the longest has 0"),
        count("prompt_tokens", least=3),
        count("new_tokens"),
        count("repeats"),
        nan(),
        (
            {"tokenizer": many_tokens, "texts": ["zz" * 9], "prompt_tokens": 4},
            ValueError,
            OTHER_VOCABULARY,
        ),
    ),
    *wrong(
        generate_with_draft,
        {"model": MODEL, "tokenizer": TOKENIZER, "prompt": "the", "draft": [1]},
        no_model(),
        no_tokenizer(),
        layers("draft"),
        ({"prompt": ""}, ValueError, "the prompt is empty: give"),
        ({"prompt": ["a"]}, TypeError, "prompt must be a string, got list"),
        count("new_tokens"),
        count("draft_tokens"),
        nan(),
        no_weights(),
        (
            {"draft": lambda w: tiny_model("llama")},
            ValueError,
            "the draft has a vocabulary of 128 tokens and the model one of 96",
        ),
        ({"model": gpt2, "prompt": long_text(300)}, ValueError, "340 tokens .*256 positions"),
        (
            {"model": lambda w: prune_prefill(w.model, [2])},
            ValueError,
            "skips layers where several tokens come at once.*pass the model",
        ),
        (
            {"model": lambda w: tiny_model("mamba")},
            ValueError,
            "MambaForCausalLM can't be helped by a draft: its state",
        ),
        ({"tokenizer": many_tokens, "prompt": "zz"}, ValueError, OTHER_VOCABULARY),
    ),
    *wrong(
        speculative_report,
        {"model": MODEL, "tokenizer": TOKENIZER, "drafts": [[1]], "prompts": ["the"], "progress": False},
        no_model(),
        no_tokenizer(),
        ({"drafts": [[1, LAYERS]]}, *layers()[1:]),
        ({"drafts": [1, 2]}, TypeError, "layers are a list of numbers, for instance \\[3, 4\\], got 1"),
        ({"drafts": PruningPlan(6, (1,))}, TypeError, "drafts must be a list .* got PruningPlan"),
        ({"drafts": {}}, ValueError, "drafts is empty: give at least one"),
        *prompts()[:2],
        ({"draft_tokens": "3"}, TypeError, "each of draft_tokens must be a whole number, got '3'"),
        ({"draft_tokens": [2, 0]}, ValueError, "each of draft_tokens must be at least 1, got 0"),
        ({"draft_tokens": []}, ValueError, "draft_tokens is empty"),
        count("new_tokens"),
        count("repeats"),
        nan(),
    ),
    *wrong(
        token_paths,
        {"model": MODEL, "tokenizer": TOKENIZER, "text": "the door"},
        no_model(),
        no_tokenizer(),
        count("top"),
        ({"text": None}, TypeError, "text must be a string, got None"),
        ({"text": ""}, ValueError, "the prompt is empty"),
        ({"text": "a" * 65}, ValueError, "has 65 tokens, and 64 are the"),
        nan(),
        no_weights(),
        ({"tokenizer": many_tokens, "text": "zz"}, ValueError, OTHER_VOCABULARY),
    ),
    *wrong(
        suggested_models,
        {},
        ({"machine": "phone"}, ValueError, "unknown machine 'phone': choose one of laptop"),
        ({"machine": ["laptop"]}, ValueError, "unknown machine list: choose one of laptop"),
    ),
]
REASONS = {"choice_and_generation.choices_shown": YES_OR_NO}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_wrong_call_is_one_sentence_and_changes_nothing(case, world):
    check(case, world)


def test_every_parameter_is_asked():
    assert not forgotten("course", CASES, REASONS)
