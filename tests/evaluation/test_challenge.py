"""The six-layer challenge: the text is decided by the word, the numbers are what they say, and the rules hold."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from shortgpt import decoder_layers, remove_layers
from shortgpt.evaluation import challenge
from shortgpt.evaluation.challenge import GIVEN, challenge_score, held_back, losses, require_entry

ASKED = challenge.ASKED


@pytest.fixture
def dense(tokenizer):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), num_hidden_layers=8, initializer_range=0.2, **sizes)
    config.eos_token_id = None  # writes to the end
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def speaker(tokenizer):
    tokenizer.eos_token = tokenizer.bos_token = "."
    return tokenizer


def score(dense, pruned, tokenizer, word="tide"):
    return challenge_score(dense, pruned, tokenizer, word, documents=6, progress=False)


def test_a_word_decides_the_text(dense, speaker):
    one, again, other = (
        held_back(dense, speaker, word, documents=4, progress=False) for word in ("tide", " tide ", "ebb")
    )
    assert one.digest == again.digest != other.digest
    assert all(torch.equal(a, b) for a, b in zip(one.documents, again.documents, strict=True))
    assert len(one.documents) == 4 and all(len(ids) >= GIVEN + ASKED for ids in one.documents)


def test_the_dense_model_loses_nothing_and_its_own_text_is_what_it_finds_likeliest(dense, speaker):
    held = held_back(dense, speaker, "tide", documents=6, progress=False)
    own, right = losses(dense, held, progress=False)
    cut, _ = losses(remove_layers(dense, range(1, 7)), held, progress=False)
    assert (cut > own).all(), "it wrote every document itself"
    assert right.sum() >= 4, "and knows how each goes on"


def test_nats_lost_and_items_against_plain_float64(dense, speaker):
    pruned = remove_layers(dense, range(1, 7))
    held = held_back(dense, speaker, "tide", documents=6, progress=False)
    found = score(dense, pruned, speaker)

    def plain(model, ids):
        with torch.inference_mode():
            logits = model.double()(torch.cat([torch.tensor(held.begin), ids]).long()[None]).logits[0]
        model.float()
        start = len(held.begin) or 1
        wanted = ids[1 - min(len(held.begin), 1) :]
        return -logits[start - 1 : -1].log_softmax(-1).gather(-1, wanted[:, None])[:, 0]

    lost = [plain(pruned, ids) - plain(dense, ids) for ids in held.documents]
    assert found["nats_lost"] == pytest.approx(torch.cat(lost).mean().item(), abs=2e-5)
    right = 0
    for ids, other in zip(held.documents, [*held.documents[1:], held.documents[0]], strict=True):
        swapped = torch.cat([ids[:GIVEN], other[GIVEN : GIVEN + ASKED]])
        end = GIVEN + ASKED - (not held.begin)
        right += bool(plain(pruned, ids)[end - ASKED : end].sum() < plain(pruned, swapped)[-ASKED:].sum())
    assert found["right"] == pytest.approx(100 * right / 6)
    assert found["layers"] == 2 and found["documents"] == 6 and found["text"] == held.digest
    assert found["error"] > 0 and math.isfinite(found["right_error"])


def test_what_breaks_the_rules_is_refused(dense, speaker):
    with pytest.raises(ValueError, match=r"3 decoder layers are left, and the challenge allows 2: remove 1 more"):
        require_entry(dense, remove_layers(dense, range(1, 6)))
    wide = remove_layers(dense, range(1, 7))
    decoder_layers(wide)[0].mlp.extra = torch.nn.Linear(32, 32)
    with pytest.raises(ValueError, match=r"parameters, and the challenge allows"):
        require_entry(dense, wide)
    with pytest.raises(ValueError, match="the word that the text is made from is empty"):
        score(dense, remove_layers(dense, range(1, 7)), speaker, "  ")
    other = LlamaForCausalLM(LlamaConfig(**dense.config.to_dict() | {"vocab_size": 90, "num_hidden_layers": 2}))
    with pytest.raises(ValueError, match="knows 90 tokens"):
        require_entry(dense, other)


def test_a_model_that_ends_too_early_is_told(dense, speaker, monkeypatch):
    monkeypatch.setattr(challenge, "sampled_text", lambda *a, **k: ["short."] * 8)
    with pytest.raises(ValueError, match="only 0 of 8 documents are long enough, and 4 are needed"):
        held_back(dense, speaker, "tide", documents=4)
