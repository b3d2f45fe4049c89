"""A layer skipped for some tokens: against a plain forward hook, a model without the layer, and itself without a cache."""

import pytest
import torch
from small import LAYERS, build_tiny, random_batch

from shortgpt import continue_text, decoder_layers, perplexity, remove_layers
from shortgpt.course.studies.first_token import one_vector, skipped_for

BATCH = random_batch()


@torch.inference_mode()
def logits(model):
    return model(**BATCH).logits


def test_the_first_token_alone_is_skipped_as_a_plain_forward_hook_does_it():
    model = build_tiny()
    dense = logits(model)

    def by_hand(module, args, output):
        return torch.cat([args[0][:, :1], output[:, 1:]], dim=1)

    handle = decoder_layers(model)[2].register_forward_hook(by_hand)
    expected = logits(model)
    handle.remove()
    with skipped_for(model, 2, "first"):
        found = logits(model)
    assert torch.equal(found, expected) and not torch.allclose(found, dense)
    assert torch.equal(logits(model), dense), "nothing stays behind"


def test_both_parts_together_are_the_layer_removed_and_each_part_is_something_else():
    model = build_tiny()
    without = logits(remove_layers(model, [2]))
    with skipped_for(model, 2, "all"):
        torch.testing.assert_close(logits(model), without, rtol=0, atol=0)
    with skipped_for(model, 2, "first"), skipped_for(model, 2, "others"):
        torch.testing.assert_close(logits(model), without, rtol=0, atol=0)
    with skipped_for(model, 2, "others"):
        others = logits(model)
    assert not torch.allclose(others[:, 1:], without[:, 1:])
    assert torch.equal(others[:, 0], logits(model)[:, 0]), "the first token sees no other"


def test_with_a_cache_a_later_token_is_no_first_token():
    model, ids = build_tiny(), BATCH["input_ids"][:1, :6]
    with torch.inference_mode(), skipped_for(model, 1, "first"):
        whole = model(ids).logits[:, -1]
        start = model(ids[:, :-1], use_cache=True)
        last = model(ids[:, -1:], past_key_values=start.past_key_values).logits[:, -1]
    torch.testing.assert_close(last, whole)


def test_perplexities_are_those_of_the_models_so_changed(tokenizer):
    model, texts = build_tiny(), ["the old keeper opened the door", "a light on the sea"]
    table = one_vector(model, tokenizer, [3, 0], texts)
    assert table[["layer", "skipped_for"]].values.tolist() == [[3, "first"], [3, "others"], [0, "first"], [0, "others"]]
    for row in table.itertuples():
        with skipped_for(model, row.layer, row.skipped_for):
            assert row.perplexity == pytest.approx(perplexity(model, tokenizer, texts))
    assert table["perplexity"].nunique() == 4


def test_what_it_refuses():
    model = build_tiny()
    with (
        pytest.raises(ValueError, match="unknown layer 6: this model has layers 0 to 5"),
        skipped_for(model, LAYERS, "all"),
    ):
        pass
    with (
        pytest.raises(ValueError, match="unknown tokens 'second': choose one of first, others, all"),
        skipped_for(model, 1, "second"),
    ):
        pass
    unpositioned = build_tiny("bloom")
    with (
        pytest.raises(ValueError, match="BloomBlock is not told the positions of its tokens"),
        skipped_for(unpositioned, 1, "first"),
    ):
        logits(unpositioned)


@pytest.mark.real
def test_the_sink_of_the_default_model_is_one_vector(real):
    """What lesson 02 says: without layer 11's work on the first token nothing is left of the sentence."""
    model, tokenizer = real
    prompt = "The capital of France is"
    for tokens, keeps in (("first", False), ("others", True)):
        with skipped_for(model, 11, tokens):
            assert continue_text(model, tokenizer, prompt, new_tokens=3).startswith(" Paris") == keeps
