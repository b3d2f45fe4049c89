"""Pruned prefill against a slow reference: the whole layer runs, its cache too, and a hook throws its output away."""

import copy

import numpy as np
import pytest
import torch
from architectures import tiny_model
from small import LAYERS, random_batch
from torch.nn.functional import cross_entropy

from shortgpt import (
    PruningPlan,
    built_in_text,
    decoder_layers,
    prefill_report,
    prune_prefill,
    remove_layers,
)

PROMPT = 9


def step_by_step(model, ids, prompt=PROMPT, mask=None):
    """Logits from the prompt's last token on: the prompt at once, the rest of `ids` token by token."""
    mask = torch.ones_like(ids) if mask is None else mask
    out = model(input_ids=ids[:, :prompt], attention_mask=mask[:, :prompt], use_cache=True)
    logits = [out.logits[:, -1:]]
    for i in range(prompt, ids.shape[1]):
        one = {"input_ids": ids[:, i : i + 1], "attention_mask": mask[:, : i + 1]}
        out = model(**one, past_key_values=out.past_key_values, use_cache=True)
        logits.append(out.logits)
    return torch.cat(logits, 1), out.past_key_values


def slow(model, layers):
    """A copy whose `layers` run in full on a prompt, and whose output is then replaced by their input."""
    model = copy.deepcopy(model)

    def hook(module, args, kwargs, output):
        x_in = args[0] if args else kwargs["hidden_states"]
        if x_in.shape[1] > 1:
            return x_in if isinstance(output, torch.Tensor) else (x_in, *output[1:])

    for i in layers:
        decoder_layers(model)[i].register_forward_hook(hook, with_kwargs=True)
    return model


@pytest.mark.parametrize("layers", [[3], [1, 2, 5], [0]])
@torch.inference_mode()
def test_it_is_the_dense_model_over_the_cache_of_a_pruned_pass(family_model, layers):
    ids = random_batch(2, 14)["input_ids"]
    got, cache = step_by_step(prune_prefill(family_model, layers), ids)
    expected, right = step_by_step(slow(family_model, layers), ids)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(cache.layers, right.layers, strict=True):
        torch.testing.assert_close(mine.keys, theirs.keys, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(mine.values, theirs.values, atol=1e-5, rtol=1e-5)
    dense, removed = (step_by_step(m, ids)[0] for m in (family_model, remove_layers(family_model, layers)))
    assert (got - dense).abs().max() > 1e-2
    torch.testing.assert_close(
        got[:, 0], removed[:, 0], atol=1e-5, rtol=1e-5
    )  # the first new token is the pruned model's
    assert (got[:, 1:] - removed[:, 1:]).abs().max() > 1e-2


OTHERS = [
    "bloom",
    "gpt_neox",
    "phi",
    "cohere2",
    "gpt_oss",
    "gemma2",
    "falcon_h1",
    "deepseek_v3",
    "opt",
    "mpt",
    "gemma4_text",
]


@pytest.mark.parametrize("name", OTHERS)
@torch.inference_mode()
def test_other_architectures_too(name):
    model, ids = tiny_model(name), random_batch(2, 12)["input_ids"]
    expected = step_by_step(slow(model, [1, 4]), ids)[0]
    torch.testing.assert_close(step_by_step(prune_prefill(model, [1, 4]), ids)[0], expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_sliding_windows_shorter_than_the_prompt():
    model = tiny_model("gemma2")
    assert model.config.sliding_window > 4
    for layer in decoder_layers(model):
        if getattr(layer.self_attn, "sliding_window", None):
            layer.self_attn.sliding_window = 4
    model.config.sliding_window = 4
    ids = random_batch(1, 16)["input_ids"]
    expected = step_by_step(slow(model, [0, 3]), ids)[0]
    torch.testing.assert_close(step_by_step(prune_prefill(model, [0, 3]), ids)[0], expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_padding_on_the_left(tiny):
    ids = random_batch(2, 14)["input_ids"]
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    got = step_by_step(prune_prefill(tiny, [2, 3]), ids, mask=mask)[0]
    torch.testing.assert_close(got, step_by_step(slow(tiny, [2, 3]), ids, mask=mask)[0], atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_generate_goes_the_same_way(tiny):
    ids = random_batch(1, PROMPT)["input_ids"]
    new = prune_prefill(tiny, [1, 3]).generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False
    )
    reference, text = slow(tiny, [1, 3]), ids
    while text.shape[1] < new.shape[1]:
        text = torch.cat([text, step_by_step(reference, text)[0][:, -1:].argmax(-1)], 1)
    assert torch.equal(new, text)


@torch.inference_mode()
def test_chunks_spare_the_last_token(tiny):
    """The line of the docstring: the first new token then is that of all layers, over the pruned cache."""
    ids = random_batch(1, PROMPT)["input_ids"]
    view, settings = prune_prefill(tiny, [1, 3]), {"max_new_tokens": 6, "do_sample": False, "output_logits": True}
    out = view.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        prefill_chunk_size=PROMPT - 1,
        return_dict_in_generate=True,
        **settings,
    )
    expected = step_by_step(slow(tiny, [1, 3]), out.sequences[:, :-1], prompt=PROMPT - 1)[0][:, 1:]
    torch.testing.assert_close(torch.stack(out.logits, 1), expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_skipped_layers_run_nothing_behind_their_keys(tiny):
    view, ran = prune_prefill(tiny, [2]), []
    for name, module in decoder_layers(view)[2].named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    cache = view(**random_batch(1, 5)).past_key_values
    assert {n.rpartition(".")[2] for n in ran if n.endswith("proj")} == {"q_proj", "k_proj", "v_proj"}
    ran.clear()
    view(input_ids=torch.tensor([[5]]), past_key_values=cache)
    assert "mlp.down_proj" in ran and "self_attn.o_proj" in ran


@torch.inference_mode()
def test_the_model_is_unchanged_and_weights_are_shared(tiny, batch):
    before = tiny(**batch).logits
    view = prune_prefill(tiny, [2, 3])
    assert torch.equal(tiny(**batch).logits, before)
    assert not any("forward" in vars(layer) or layer._forward_hooks for layer in decoder_layers(tiny))
    assert {p.data_ptr() for p in view.parameters()} == {p.data_ptr() for p in tiny.parameters()}
    cache = view(**batch).past_key_values
    assert "update" not in vars(cache)


@torch.inference_mode()
def test_a_copy_of_a_view_is_a_view_of_its_own(tiny):
    view, ids = prune_prefill(tiny, [2]), random_batch(1, 12)["input_ids"]
    twin = copy.deepcopy(view)
    expected = step_by_step(view, ids)[0]  # the steps read what the skipped layer wrote
    for parameter in view.parameters():
        parameter.data = parameter.data * 2
    torch.testing.assert_close(step_by_step(twin, ids)[0], expected)


@torch.inference_mode()
def test_a_view_may_skip_more(tiny, batch):
    twice = prune_prefill(prune_prefill(tiny, [2]), [2, 4])
    assert torch.equal(twice(**batch).logits, prune_prefill(tiny, [2, 4])(**batch).logits)


@torch.inference_mode()
def test_plans_and_pruned_models(tiny, batch):
    pruned = remove_layers(tiny, [1])
    expected = prune_prefill(pruned, [1, 3])(**batch).logits  # layers 2 and 4 of the dense model
    plan = PruningPlan(layers=LAYERS, removed=(4, 1, 2))
    torch.testing.assert_close(prune_prefill(pruned, plan)(**batch).logits, expected)
    torch.testing.assert_close(remove_layers(tiny, [1, 2, 4])(**batch).logits, expected)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mamba", "keeps no keys and values"),
        ("jamba", "layer 2 .JambaMambaDecoderLayer. puts no keys and values"),
        ("longcat_flash", "more than the keys and values of one attention"),
        ("zaya", "layer 2 .*hands on more than its hidden states"),
        ("gemma3n_text", "shape .4, 1, 2, 64. for .1, 2. tokens"),
    ],
)
def test_what_can_not_be_done_is_said_at_once(name, says):
    with pytest.raises(ValueError, match=says):
        prune_prefill(tiny_model(name), [2, 3])


def test_without_a_cache_nothing_could_be_written(tiny, batch):
    with pytest.raises(ValueError, match="needs a cache"):
        prune_prefill(tiny, [2])(**batch, use_cache=False)


# ---- the report ------------------------------------------------------------------------------------------------------
TEXTS = ["the river rose in the night and took the bridge.", "a bridge of stone stood there for a hundred years."]


@torch.inference_mode()
def test_the_report_is_the_loss_of_writing_token_by_token(tiny, tokenizer):
    table = prefill_report(
        tiny, tokenizer, [[2], [1, 4]], [*TEXTS, "short"], prompt_tokens=12, new_tokens=10, progress=False
    )
    assert table["way"].tolist() == ["dense", *["prefill", "prefill, last token whole", "removed"] * 2]
    assert (table["texts"] == 2).all()
    for row in table.itertuples():
        model = remove_layers(tiny, row.layers) if row.way == "removed" else slow(tiny, row.layers)
        losses = []
        for text in TEXTS:
            ids = torch.tensor([tokenizer(text)["input_ids"][:22]])
            spared = row.way.endswith("whole")
            logits = step_by_step(model, ids[:, :-1], prompt=12 - spared)[0][0, spared:]
            losses.append(cross_entropy(logits, ids[0, 12:], reduction="none").numpy())
        assert row.perplexity == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)
        assert row.first_loss == pytest.approx(np.mean([each[0] for each in losses]), rel=1e-4)
        assert row.later_loss == pytest.approx(np.mean([each[1:] for each in losses]), rel=1e-4)


def test_the_share_of_weights_can_be_counted_by_hand(tiny, tokenizer):
    table = prefill_report(tiny, tokenizer, [[2, 3]], TEXTS, prompt_tokens=12, new_tokens=1, progress=False)
    layer = {n: p.numel() for n, p in decoder_layers(tiny)[0].named_parameters() if p.ndim > 1}
    keys = sum(size for n, size in layer.items() if any(f"{x}_proj" in n for x in ("q", "k", "v")))
    whole = sum(layer.values())
    assert table["read_weights"].tolist() == pytest.approx([1, *[(4 * whole + 2 * keys) / (6 * whole)] * 2, 4 / 6])
    assert table["later_loss"].isna().all()  # one new token has no later ones
    assert table["removed"].tolist() == [0, 2, 2, 2]


@pytest.mark.real
def test_reading_with_fewer_layers_costs_the_real_model_less_than_writing_so(real):
    model, tokenizer = real
    texts = built_in_text("perplexity")["text"].head(3)
    table = prefill_report(model, tokenizer, [[13, 14, 17]], texts, prompt_tokens=64, new_tokens=32, progress=False)
    loss = table.set_index("way")["later_loss"]
    assert loss["dense"] < loss["prefill"] < loss["removed"]
