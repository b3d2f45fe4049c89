"""Trials with the repair in the loop: what they value is what repairing and measuring gives, on text that fits no patch."""

import pytest
import torch
from small import LAYERS, build_tiny, random_batch

from shortgpt import PruningPlan, choose_layers, choose_repaired, decoder_layers, heal, remove_layers
from shortgpt.choosing.repaired import RepairedTrials, mean_loss


def batches(count=4, rows=4, tokens=24):
    return [random_batch(rows, tokens, seed=seed) for seed in range(count)]


def logits(model, batch):
    with torch.no_grad():
        return model(**batch).logits


def test_trials_with_repair_equal_repairing_and_measuring(tiny):
    text, held = batches(), [random_batch(3, 20, seed=50), random_batch(2, 12, seed=51)]
    value = RepairedTrials(tiny, text, held, sites="all")
    for removed in ([2, 3], [4], [1, 5]):
        healed = heal(tiny, removed, text, sites="all", progress=False)
        losses = [
            torch.nn.functional.cross_entropy(
                logits(healed, b)[:, :-1].flatten(0, 1), b["input_ids"][:, 1:].flatten(), reduction="none"
            )
            for b in held
        ]
        assert value(removed) == pytest.approx(float(torch.cat(losses).double().mean()), abs=1e-5)
    assert value([0, 1]) == float("inf")


def test_choosing_with_repair_judges_on_text_that_fits_no_patch(tiny, tmp_path):
    text = batches(8, rows=2)
    fitted, held = [b for i, b in enumerate(text) if i not in (1, 5)], [text[1], text[5]]
    plan = choose_repaired(tiny, text, 2, budget=12, progress=False)
    value = RepairedTrials(tiny, fitted, held)
    assert plan.search["value"] == pytest.approx(value(plan.removed), abs=1e-5)
    assert abs(RepairedTrials(tiny, text, held)(plan.removed) - value(plan.removed)) > 1e-3  # the split matters
    assert plan.search["value"] <= min(value([start, start + 1]) for start in range(1, LAYERS - 1)) + 1e-6
    assert plan == choose_repaired(tiny, text, 2, budget=12, progress=False)
    assert PruningPlan.from_json(plan.to_json(tmp_path / "plan.json")).removed == plan.removed


def test_choosing_with_repair_after_pruning_names_original_layers():
    pruned = remove_layers(build_tiny(), [1])
    plan = choose_repaired(pruned, batches(4), 1, budget=6, progress=False)
    assert plan.layers == LAYERS and len(plan.removed) == 2 and 1 in plan.removed
    assert heal(pruned, plan, batches(), progress=False).config.num_hidden_layers == LAYERS - 2


def test_trials_with_repair_say_what_is_wrong_instead_of_calling_it_infinite(tiny):
    value = RepairedTrials(tiny, batches(), batches(1))
    for wrong in ([2, 2], [LAYERS], list(range(LAYERS))):
        with pytest.raises(ValueError, match="layer"):
            value(wrong)
    with pytest.raises(ValueError, match="two tokens"):
        RepairedTrials(tiny, batches(), [random_batch(2, 1)])([2])
    with pytest.raises(ValueError, match="a norm follows the attention: use kind='fold'"):
        RepairedTrials(build_tiny("gemma3_text"), batches(), batches(1), kind="fold_both")([2])
    with torch.no_grad():
        decoder_layers(tiny)[2].mlp.down_proj.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN"):
        choose_repaired(tiny, batches(), 1, budget=4, progress=False)


def test_mean_loss_leaves_pads_out(tiny):
    batch = random_batch(1, 10)
    padded = {
        "input_ids": torch.cat([torch.zeros(1, 4, dtype=torch.int64), batch["input_ids"]], 1),
        "attention_mask": torch.tensor([[0] * 4 + [1] * 10]),
    }
    assert mean_loss(tiny, [padded]) == pytest.approx(mean_loss(tiny, [batch]), abs=1e-5)


def test_text_longer_than_the_learned_positions_is_refused_in_a_sentence():
    model = build_tiny("gpt2")
    with pytest.raises(
        ValueError, match="300 tokens are too many for this GPT2LMHeadModel, which learned 256 positions"
    ):
        mean_loss(model, [random_batch(1, 300)])


def test_a_search_that_repairs_values_fewer_sets_unless_told_otherwise(tiny):
    found = {
        by: choose_layers(tiny, 1, by=by, batches=batches(4), progress=False).search["budget"]
        for by in ("search", "repaired_search")
    }
    assert found == {"search": 200, "repaired_search": 60}
    assert (
        choose_layers(tiny, 1, by="repaired_search", batches=batches(4), budget=7, progress=False).search["budget"] == 7
    )
