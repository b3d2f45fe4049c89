"""Drafting with the pruned view: the text is the model's own, and counts and arithmetic are computed another way."""

import numpy as np
import pytest
import torch
from small import LAYERS, build_tiny

from shortgpt import (
    PruningPlan,
    built_in_text,
    continue_text,
    decoder_layers,
    generate_with_draft,
    heal,
    remove_layers,
    speculative_report,
)
from shortgpt.course.studies.drafting import DraftedText
from shortgpt.course.studies.speedup import break_even_acceptance, draft_cost, speculative_speedup

PROMPTS = ["the river", "a bridge of stone."]


@pytest.mark.parametrize(("layers", "draft_tokens"), [([3], 1), ([0, 5], 5)])
def test_the_text_is_the_models_own_whatever_the_draft(family_model, tokenizer, layers, draft_tokens):
    alone = continue_text(family_model, tokenizer, PROMPTS[0], new_tokens=12)
    run = generate_with_draft(family_model, tokenizer, PROMPTS[0], layers, new_tokens=12, draft_tokens=draft_tokens)
    assert run.text == alone and sum(run.written) == len(run.ids)


def by_hand(model, draft, ids, new_tokens, draft_tokens):
    """What each round drafted and wrote, and the text: every token from a forward pass over all of it, without a cache."""
    drafted, written, start = [], [], ids.shape[1]
    while ids.shape[1] < start + new_tokens:
        guess = ids
        room = start + new_tokens - ids.shape[1] - 1
        for _ in range(min(draft_tokens, room)):
            guess = torch.cat([guess, draft(guess).logits[:, -1:].argmax(-1)], 1)
            if guess[0, -1] == 2:
                break
        own = model(guess).logits.argmax(-1)[0, ids.shape[1] - 1 :]
        new = guess[0, ids.shape[1] :]
        matches = int((new == own[:-1]).long().cumprod(0).sum())
        add = own[: matches + 1]
        if (add == 2).any():
            add = add[: int((add == 2).nonzero()[0]) + 1]
        drafted.append(len(new))
        written.append(len(add))
        ids = torch.cat([ids, add[None]], 1)
        if add[-1] == 2:
            break
    return tuple(drafted), tuple(written), ids[0, start:]


@pytest.mark.parametrize("draft_tokens", [1, 4])
@torch.inference_mode()
def test_rounds_are_those_of_the_algorithm(family_model, tokenizer, draft_tokens):
    draft = remove_layers(family_model, [3])
    ids = torch.tensor([tokenizer(PROMPTS[1])["input_ids"]])
    run = generate_with_draft(family_model, tokenizer, PROMPTS[1], [3], new_tokens=12, draft_tokens=draft_tokens)
    drafted, written, new = by_hand(family_model, draft, ids, 12, draft_tokens)
    assert (run.drafted, run.written, run.draft_passes) == (drafted, written, sum(drafted))
    assert torch.equal(run.ids, new)


@pytest.mark.parametrize("pad", [29, 30])
def test_a_perfect_draft_is_always_accepted(tiny, tokenizer, pad):
    """Also where the model writes the tokenizer's padding token: a draft must not take that for padding."""
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    tiny.generation_config.eos_token_id = None
    with torch.no_grad():  # nearly always the same token next
        tiny.lm_head.weight[pad] = tiny.lm_head.weight.abs().max() * torch.sign(tiny.lm_head.weight[pad])
    run = generate_with_draft(tiny, tokenizer, PROMPTS[0], [], new_tokens=30, draft_tokens=4)
    assert pad in run.ids
    assert run.rejected == 0 and run.acceptance == 1 and run.tokens_per_pass == 5


def test_counts_of_a_run_worked_out_by_hand():
    run = DraftedText("", torch.arange(9), drafted=(3, 3, 3), written=(4, 1, 4), draft_passes=9, ended=False)
    assert (run.target_passes, run.accepted, run.rejected, run.tokens_per_pass) == (3, 6, 1, 3)
    assert run.acceptance == 6 / 7
    cut = DraftedText("", torch.arange(7), drafted=(3, 3), written=(4, 3), draft_passes=6, ended=True)
    assert cut.rejected == 0 and cut.acceptance == 1
    none = DraftedText("", torch.arange(1), drafted=(0,), written=(1,), draft_passes=0, ended=False)
    assert np.isnan(none.acceptance)


@pytest.mark.parametrize("acceptance", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("draft_tokens", [1, 4])
def test_the_formula_is_the_mean_of_many_rounds(acceptance, draft_tokens):
    hits = np.random.default_rng(0).random((200_000, draft_tokens)) < acceptance
    written = 1 + np.cumprod(hits, axis=1).sum(axis=1)
    expected = written.mean() / (1 + 0.6 * draft_tokens)
    assert speculative_speedup(acceptance, draft_tokens, 0.6) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("cost", [0.05, 0.5, 0.9, 1.0])
def test_break_even_is_where_the_gain_is_one(cost):
    assert break_even_acceptance(1, cost) == pytest.approx(cost)
    points = [break_even_acceptance(n, cost) for n in range(1, 7)]
    for n, point in enumerate(points, 1):
        assert speculative_speedup(point, n, cost) == pytest.approx(1)
    assert points == sorted(points)


def test_no_draft_dearer_than_the_model_pays():
    assert np.isnan(break_even_acceptance(3, 1.2))
    assert max(speculative_speedup(1.0, n, 0.8) for n in range(1, 200)) < 1 / 0.8


@pytest.mark.parametrize(("acceptance", "cost", "says"), [(1.1, 0.5, "0 to 1, got 1.1"), (0.5, 0, "above 0 .*got 0")])
def test_arithmetic_refuses_what_is_no_probability_and_no_cost(acceptance, cost, says):
    with pytest.raises(ValueError, match=says):
        speculative_speedup(acceptance, 2, cost)


@pytest.mark.parametrize("tied", [False, True])
def test_cost_counts_the_parameters_that_a_pass_reads(tied):
    model = build_tiny("llama")
    if tied:
        model.lm_head.weight = model.model.embed_tokens.weight
    layer = sum(p.numel() for p in decoder_layers(model)[0].parameters())
    rest = model.lm_head.weight.numel() + model.model.norm.weight.numel()
    expected = ((LAYERS - 2) * layer + rest) / (LAYERS * layer + rest)
    assert draft_cost(model, remove_layers(model, [1, 4])) == pytest.approx(expected)


def test_the_report_adds_up(tiny, tokenizer):
    table = speculative_report(
        tiny, tokenizer, [[], [3], [1, 2]], PROMPTS, new_tokens=8, draft_tokens=[1, 4], progress=False
    )
    assert table["draft"].tolist() == [name for name in ("0 removed", "1 removed", "2 removed") for _ in range(2)]
    assert table["equal"].all() and table["draft_tokens"].tolist() == [1, 4] * 3
    for row in table.itertuples():
        runs = [
            generate_with_draft(tiny, tokenizer, prompt, list(row.layers), new_tokens=8, draft_tokens=row.draft_tokens)
            for prompt in PROMPTS
        ]
        assert row.tokens == sum(len(run.ids) for run in runs)
        assert row.target_passes == sum(len(run.written) for run in runs)
        assert row.draft_passes == row.drafted == sum(sum(run.drafted) for run in runs)
        assert row.accepted == row.tokens - row.target_passes
        assert row.predicted == pytest.approx(row.tokens / (row.target_passes + row.cost * row.drafted))
        assert row.measured == pytest.approx(row.seconds_alone / row.seconds_drafted)
        assert row.removed == len(row.layers)


def test_a_wrong_text_would_be_reported(tiny, tokenizer, monkeypatch):
    from shortgpt.course.studies import speedup

    right = speedup.write_alone
    monkeypatch.setattr(speedup, "write_alone", lambda *args: right(*args) + 1)
    table = speculative_report(tiny, tokenizer, [[3]], PROMPTS, new_tokens=4, progress=False)
    assert not table["equal"].any()


def test_drafts_may_be_plans_models_and_named(tiny, tokenizer, batch):
    plan = PruningPlan(layers=LAYERS, removed=(4, 2))
    repaired = heal(tiny, [2, 4], [batch], progress=False)
    settings = repaired.generation_config.to_dict()
    table = speculative_report(
        tiny, tokenizer, {"plan": plan, "list": [2, 4], "repaired": repaired}, PROMPTS, new_tokens=8, progress=False
    ).set_index("draft")
    counts = table[["removed", "layers", "target_passes", "cost"]]
    assert counts.loc["plan"].equals(counts.loc["list"].rename("plan"))
    assert table.loc["repaired", "layers"] == (2, 4) and table["equal"].all()
    assert repaired.generation_config.to_dict() == settings


def test_the_draft_of_a_pruned_model_leaves_out_more(tiny, tokenizer):
    pruned = remove_layers(tiny, [1])
    table = speculative_report(pruned, tokenizer, [[1]], PROMPTS, new_tokens=8, progress=False)
    assert table["layers"].tolist() == [(1, 2)] and table["removed"].tolist() == [1] and table["equal"].all()


def test_nothing_is_left_on_the_model(tiny, tokenizer):
    tiny.train()
    generate_with_draft(tiny, tokenizer, PROMPTS[0], [3], new_tokens=6)
    assert tiny.training and not tiny._forward_hooks and not tiny._forward_pre_hooks
    assert tiny.generation_config.num_assistant_tokens is None


@pytest.mark.real
def test_the_real_model_writes_the_same_with_a_draft(real):
    model, tokenizer = real
    prompts = ["The capital of France is", "1, 2, 3, 4,", built_in_text("perplexity")["text"].iloc[0][:200]]
    table = speculative_report(model, tokenizer, [[14, 17, 25]], prompts, new_tokens=16, progress=False)
    assert table["equal"].all() and table["acceptance"].item() > 0.3
