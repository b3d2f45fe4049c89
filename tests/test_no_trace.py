"""Right calls leave no trace either: the mode, the weights and the hooks of a model, and the tokenizer, are as they were."""

import os

import numpy as np
import pandas as pd
import pytest
import torch
from bad_input import TEXTS, World, assert_same_state, state_of
from small import build_tiny

from shortgpt import (
    Trials,
    choice_and_generation,
    choose_by,
    continue_text,
    divergence_along,
    evaluate,
    generate_with_draft,
    generation_report,
    heal,
    hidden_states,
    key_value_bytes,
    perplexity,
    perplexity_table,
    prefill_report,
    prune_prefill,
    quantize,
    save,
    score_layers,
    score_sublayers,
    span_distances,
    speculative_report,
)

MEASURES = {
    "Trials": lambda w, m: Trials(m, [w.batch])([1]),
    "choose_by": lambda w, m: choose_by(m, [w.batch], "greedy", 2).search["value"],
    "heal": lambda w, m: heal(m, [2], [w.batch], progress=False).lm_head(torch.ones(1, 32)).detach().numpy(),
    "hidden_states": lambda w, m: hidden_states(m, w.batch).numpy(),
    "score_layers": lambda w, m: score_layers(m, [w.batch], progress=False).sums,
    "score_sublayers": lambda w, m: score_sublayers(m, [w.batch], progress=False)["ffn"].sums,
    "span_distances": lambda w, m: span_distances(m, [w.batch])["score"].to_numpy(),
    "perplexity": lambda w, m: perplexity(m, w.tokenizer, TEXTS),
    "generate_with_draft": lambda w, m: generate_with_draft(m, w.tokenizer, "the", [3], new_tokens=8).ids.numpy(),
    "speculative_report": lambda w, m: speculative_report(m, w.tokenizer, [[3]], ["the"], new_tokens=8, progress=False)[
        "acceptance"
    ],
    "prefill_report": lambda w, m: prefill_report(
        m, w.tokenizer, [[3]], TEXTS, prompt_tokens=8, new_tokens=4, progress=False
    )["perplexity"],
    "prune_prefill": lambda w, m: prune_prefill(m, [3]).eval()(**w.batch).logits.detach().numpy(),
    "generation_report": lambda w, m: generation_report({"a": m}, w.tokenizer, ["the"], new_tokens=8, progress=False)[
        "perplexity"
    ].to_numpy(),
    "divergence_along": lambda w, m: divergence_along(
        m, build_tiny("gpt2"), w.tokenizer, ["the"], new_tokens=8, progress=False
    )["loss"].to_numpy(),
    "key_value_bytes": lambda w, m: key_value_bytes(m, 8),
    "continue_text": lambda w, m: [ord(letter) for letter in continue_text(m, w.tokenizer, "the", new_tokens=8)],
    "evaluate": lambda w, m: evaluate(m, w.tokenizer, ["grammar"], limit=4)["value"].to_numpy(),
    "choice_and_generation": lambda w, m: choice_and_generation(m, w.tokenizer, limit=2, new_tokens=2, progress=False)[
        "choice_right"
    ].to_numpy(),
    "save": lambda w, m: len(os.listdir(save(m, w.folder / f"saved-{m.training}"))),
    "quantize": lambda w, m: quantize(m, 4)(**w.batch).logits.detach().numpy(),
}


@pytest.mark.parametrize("name", MEASURES)
def test_training_mode_changes_no_result_and_is_left_on(name, tmp_path, tokenizer):
    """GPT-2 has dropout: a measure that forgot about it would differ from run to run."""
    tokenizer.eos_token = "?"
    model, w = build_tiny("gpt2"), World(tmp_path, tokenizer)
    expected = MEASURES[name](w, model)
    model.train()
    model.transformer.h[1].eval()
    before = state_of(model)
    np.testing.assert_array_equal(MEASURES[name](w, model), expected)
    assert_same_state(model, before)


def test_the_harness_gets_a_tokenizer_of_its_own(tiny, tokenizer):
    tokenizer.pad_token, tokenizer.eos_token = None, "?"
    evaluate(tiny, tokenizer, ["grammar"], limit=2)
    assert tokenizer.pad_token is None


def test_a_document_without_a_label_is_measured(tiny, tokenizer):
    documents = pd.DataFrame({"text": TEXTS, "genre": ["news", None]})
    table = perplexity_table(tiny, tokenizer, documents, by="genre")
    assert table["tokens"].sum() == sum(len(text) - 1 for text in TEXTS) and len(table) == 2
