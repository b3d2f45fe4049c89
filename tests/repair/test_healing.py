"""Repair is least squares, aims at the dense states, leaves the dense model alone, and survives saving."""

import copy
import json

import numpy as np
import pytest
import torch
from small import LAYERS, build_tiny, random_batch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from shortgpt import (
    PruningPlan,
    calibration_batches,
    decoder_layers,
    heal,
    hidden_states,
    load,
    merge_layers,
    perplexity,
    prune_checkpoint,
    remove_layers,
    save,
)
from shortgpt.checkpoints.own_format import restore
from shortgpt.pruning.repair_record import repairs_so_far
from shortgpt.repair.equations import HOLD_BACK, RIDGES, fit
from shortgpt.repair.fitting import Sample
from shortgpt.repair.healing import repair

FOLDABLE = ("llama", "mistral", "qwen2", "qwen3", "gpt2")
NORM_BEHIND = ("gemma2", "gemma3_text", "olmo2")  # the FFN's


def batches(count=4, rows=4, tokens=24):
    return [random_batch(rows, tokens, seed=seed) for seed in range(count)]


def logits(model, batch):
    with torch.no_grad():
        return model(**batch).logits


def samples_of(seed=0, count=6, tokens=40, k=5, hidden=3):
    rng = np.random.default_rng(seed)
    make = lambda *shape: torch.tensor(rng.normal(size=shape))  # noqa: E731
    return [(make(tokens, k), make(tokens, hidden), make(tokens).abs() + 0.1) for _ in range(count)]


def weighted_ridge(samples, ridge):
    """The same problem as one tall least-squares system, without normal equations."""
    z, r, w = (torch.cat([s[i] for s in samples]).numpy() for i in range(3))
    scale = ridge * (w[:, None] * z**2).sum(0).mean()
    tall = np.concatenate([np.sqrt(w)[:, None] * z, np.sqrt(scale) * np.eye(z.shape[1])])
    return np.linalg.lstsq(
        tall, np.concatenate([np.sqrt(w)[:, None] * r, np.zeros((z.shape[1], r.shape[1]))]), rcond=None
    )[0]


def test_fit_is_weighted_ridge_regression_with_the_ridge_that_serves_held_back_samples():
    samples = samples_of()
    held = [s for count, s in enumerate(samples, 1) if count % HOLD_BACK == 2]
    fitted = [s for count, s in enumerate(samples, 1) if count % HOLD_BACK != 2]
    assert len(held) == 2

    def held_error(ridge):
        d = weighted_ridge(fitted, ridge)
        return sum(float((w * ((r - z @ torch.tensor(d)) ** 2).sum(-1)).sum()) for z, r, w in held)

    solution, ridge = fit(samples)
    assert ridge == min(RIDGES, key=held_error)
    np.testing.assert_allclose(solution.numpy(), weighted_ridge(samples, ridge), atol=1e-10)


def test_of_two_samples_the_second_is_held_back():
    first, second = samples_of(count=2, tokens=8)

    def held_error(ridge):
        z, r, w = second
        return float((w * ((r - z @ torch.tensor(weighted_ridge([first], ridge))) ** 2).sum(-1)).sum())

    assert fit([first, second])[1] == min(RIDGES, key=held_error)
    assert held_error(RIDGES[0]) != pytest.approx(held_error(RIDGES[-1]))


def test_the_ridge_grows_when_there_is_nothing_to_learn_and_vanishes_when_all_is_linear():
    linear = [(z, z @ torch.ones(5, 3, dtype=torch.float64), w) for z, _, w in samples_of()]
    assert fit(linear)[1] == RIDGES[0] and fit(samples_of(tokens=4))[1] == RIDGES[-1]


def test_a_fit_needs_two_samples_of_finite_numbers():
    with pytest.raises(ValueError, match="two samples"):
        fit(samples_of(count=1))
    bad = samples_of()
    bad[3][0][0, 0] = torch.inf
    with pytest.raises(ValueError, match="NaN or infinity"):
        fit(bad)


@pytest.mark.parametrize("family", FOLDABLE)
def test_fold_adds_the_least_squares_solution_to_one_matrix(family):
    model = build_tiny(family)
    text, removed = batches(), [2, 3]
    healed, pruned = heal(model, removed, text, progress=False), remove_layers(model, removed)
    changed = [name for (name, a), b in zip(healed.named_parameters(), pruned.parameters(), strict=True) if a is not b]
    assert len(changed) == 1 and f".{1}." in changed[0]  # in the layer before the gap

    name = changed[0].removesuffix(".weight")
    seen = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda module, args: seen.append(args[0].double()))
    rows = []
    for batch in text:
        states = hidden_states(model, batch).double()
        z = seen.pop().view(*batch["input_ids"].shape, -1)
        rows += [(z[i], states[4, i] - states[2, i], 1 / states[4, i].square().sum(-1)) for i in range(len(z))]
    handle.remove()
    expected, _ = fit(rows)
    difference = (healed.get_submodule(name).weight - model.get_submodule(name).weight).double()
    difference = difference if family == "gpt2" else difference.T
    torch.testing.assert_close(difference, expected, atol=2e-6, rtol=1e-4)


def test_linear_is_the_least_squares_map_of_the_state_and_a_constant():
    model, text = build_tiny(), batches()
    healed = heal(model, [2, 3], text, kind="linear", progress=False)
    rows = []
    for batch in text:
        states = hidden_states(model, batch).double()
        for y, goal in zip(states[2], states[4], strict=True):
            rows.append((torch.cat([y, torch.ones_like(y[:, :1])], -1), goal - y, 1 / goal.square().sum(-1)))
    expected, _ = fit(rows)
    patch = decoder_layers(healed)[1].linear_patch
    assert expected[-1].abs().max() > 1e-3
    torch.testing.assert_close(patch.weight.double().T, expected[:-1], atol=2e-6, rtol=1e-4)
    torch.testing.assert_close(patch.bias.double(), expected[-1], atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", ["fold", "linear"])
@pytest.mark.parametrize("trainable", [True, False])
def test_frozen_weights_stay_frozen(kind, trainable):
    model = build_tiny().requires_grad_(trainable)
    healed = heal(model, [2, 3], batches(), kind=kind, progress=False)
    assert all(parameter.requires_grad == trainable for parameter in healed.parameters())


WAYS = [("llama", "fold", "gaps"), ("llama", "fold", "all"), ("llama", "fold_both", "all"), ("llama", "linear", "gaps")]


@pytest.mark.parametrize("family, kind, sites", WAYS + [(family, "fold", "all") for family in NORM_BEHIND])
@pytest.mark.parametrize("removed", [[2, 3], [1, 4], [LAYERS - 1], [2, 3, 5]])
def test_the_repaired_states_come_nearer_to_the_dense_ones(family, kind, sites, removed):
    model, text = build_tiny(family), batches(8)
    healed = heal(model, removed, text, kind=kind, sites=sites, progress=False)
    pruned = remove_layers(model, removed)
    unseen = random_batch(8, 24, seed=99)
    goal = hidden_states(model, unseen)[-1]

    def relative_error(other):
        off = hidden_states(other, unseen)[-1] - goal
        return float((off.square().sum(-1) / goal.square().sum(-1)).mean())

    assert relative_error(healed) < 0.97 * relative_error(pruned)


def test_the_dense_model_is_left_alone():
    model, text = build_tiny(), batches()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    heal(model, [2, 4], text, sites="all", progress=False)
    heal(model, [2, 4], text, kind="linear", progress=False)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert modes == [m.training for m in model.modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("family", FOLDABLE + NORM_BEHIND)
@pytest.mark.parametrize("sites", ["gaps", "all"])
def test_a_folded_model_is_a_plain_checkpoint_with_no_more_parameters(tmp_path, family, sites):
    model = build_tiny(family)
    healed = heal(model, [1, 4], batches(), sites=sites, progress=False)
    assert healed.num_parameters() == remove_layers(model, [1, 4]).num_parameters()
    save(healed, tmp_path / "healed")
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "healed")
    torch.testing.assert_close(logits(reloaded, random_batch()), logits(healed, random_batch()), atol=1e-5, rtol=1e-5)
    repaired = json.loads((tmp_path / "healed" / "config.json").read_text())["shortgpt_repair"]
    (repaired,) = repaired
    assert repaired["kind"] == "fold" and repaired["sites"] == sites and repaired["samples"] == 16


def test_a_linear_module_needs_our_loader_and_comes_back_with_it(tmp_path, tokenizer):
    model = build_tiny()
    healed = heal(model, [1, 4], batches(), kind="linear", progress=False)
    hidden = model.config.hidden_size
    assert healed.num_parameters() == remove_layers(model, [1, 4]).num_parameters() + 2 * (hidden + 1) * hidden
    save(healed, tmp_path / "healed", tokenizer=tokenizer)
    with pytest.raises(ValueError, match="shortgpt_pruned"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "healed")
    reloaded, _ = load(str(tmp_path / "healed"))
    torch.testing.assert_close(logits(reloaded, random_batch()), logits(healed, random_batch()), atol=1e-6, rtol=1e-6)
    shorter, same = remove_layers(healed, [3]), remove_layers(reloaded, [3])
    torch.testing.assert_close(logits(shorter, random_batch()), logits(same, random_batch()), atol=1e-6, rtol=1e-6)
    assert not torch.allclose(logits(shorter, random_batch()), logits(remove_layers(model, [1, 4, 5]), random_batch()))


@pytest.mark.parametrize("kind", ["fold", "linear"])
def test_a_repaired_model_generates_with_and_without_cache_alike(kind):
    healed = heal(build_tiny(), [2, 3], batches(), kind=kind, progress=False)
    settings = GenerationConfig(max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=-1)
    batch = random_batch(rows=2, tokens=7)
    cached, uncached = (healed.generate(**batch, generation_config=settings, use_cache=use) for use in (True, False))
    assert torch.equal(cached, uncached)


def test_pads_and_batches_do_not_matter():
    model = build_tiny()
    rows = [random_batch(1, tokens, seed=tokens) for tokens in (9, 14, 20, 24, 30)]
    padded = {
        "input_ids": torch.zeros(5, 30, dtype=torch.int64),
        "attention_mask": torch.zeros(5, 30, dtype=torch.int64),
    }
    for i, row in enumerate(rows):
        padded["input_ids"][i, 30 - row["input_ids"].shape[1] :] = row["input_ids"]
        padded["attention_mask"][i, 30 - row["input_ids"].shape[1] :] = 1
    one_by_one, together = (heal(model, [2, 3], text, sites="all", progress=False) for text in (rows, [padded]))
    for a, b in zip(one_by_one.parameters(), together.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-3)


def test_nothing_removed_is_nothing_repaired(tiny):
    healed = heal(tiny, [], batches(), progress=False)
    assert torch.equal(logits(healed, random_batch()), logits(tiny, random_batch()))


def test_an_already_pruned_model_is_repaired_towards_itself():
    pruned = remove_layers(build_tiny(), [1])
    healed = heal(pruned, [2], batches(), progress=False)
    assert healed.config.shortgpt_removed_layers == [1, 3]
    assert [step["layers"] for step in repairs_so_far(healed.config)] == [[2]]  # which was layer 1 of the pruned one


def test_the_record_names_layers_of_the_dense_model_and_forgets_those_that_go():
    merged = merge_layers(build_tiny(), [3])  # into 2
    healed = heal(merged, [4], batches(), sites="all", progress=False)  # 5 of the dense model; nothing behind the last
    steps = [(step["kind"], step["layers"]) for step in repairs_so_far(healed.config)]
    assert steps == [("merge", [2]), ("fold", [4])]
    for gone, left in (([0], steps), ([2], steps[1:]), ([3], steps[:1]), ([2, 3], [])):  # now: 0 1 2 4
        shorter = remove_layers(healed, gone)
        assert [(step["kind"], step["layers"]) for step in repairs_so_far(shorter.config)] == left
    assert len(repairs_so_far(healed.config)) == 2 and not repairs_so_far(remove_layers(build_tiny(), [1]).config)


def test_merging_into_an_already_pruned_model_names_the_dense_layer():
    merged = merge_layers(remove_layers(build_tiny(), [1]), [2])  # 3 of the dense model, into 2
    assert [step["layers"] for step in repairs_so_far(merged.config)] == [[2]]
    assert merged.config.shortgpt_removed_layers == [1, 3]


def test_a_record_of_which_nothing_is_left_is_none():
    """It stayed as an empty list, and made another model of one that was never repaired."""
    healed = heal(build_tiny(), [3], batches(), progress=False)  # in 2
    assert not hasattr(remove_layers(healed, [2]).config, "shortgpt_repair")


def test_the_card_of_a_model_repaired_twice_tells_both_in_the_dense_numbering(tmp_path):
    model = build_tiny()
    plan = PruningPlan(removed=(1, 4), layers=LAYERS)
    healed = heal(merge_layers(model, [1]), [3], batches(), progress=False)
    save(healed, tmp_path / "twice", plan=plan)
    card = " ".join((tmp_path / "twice" / "README.md").read_text().split())
    assert "removed layers were merged into layer 0 (" in card and "; then the output" in card
    assert "fitted again in layer 3, in closed form on 16 samples" in card
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "twice")
    assert [step["layers"] for step in repairs_so_far(reloaded.config)] == [[0], [3]]
    prune_checkpoint(tmp_path / "twice", tmp_path / "shorter", [0], progress=False)
    card = (tmp_path / "shorter" / "README.md").read_text()
    assert "merged" not in card and "fitted again in layer 3" in card


def test_a_record_of_an_earlier_release_is_read(tmp_path, tokenizer):
    """It was the last step alone."""
    healed = heal(build_tiny(), [2], batches(), progress=False)
    healed.config.shortgpt_repair = healed.config.shortgpt_repair[0]
    save(healed, tmp_path / "old", tokenizer=tokenizer)
    again, _ = load(str(tmp_path / "old"))
    again = heal(again, [3], batches(), progress=False)  # 4 of the dense model
    assert [step["layers"] for step in repairs_so_far(again.config)] == [[1], [3]]


def test_half_precision_keeps_its_dtype():
    healed = heal(build_tiny().bfloat16(), [2, 3], batches(), progress=False)
    assert {p.dtype for p in healed.parameters()} == {torch.bfloat16}


def test_what_cannot_be_folded_is_refused_and_linear_works_there():
    config = AutoConfig.for_model(
        "mixtral", vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(ValueError, match="kind='linear'"):
        heal(model, [2], batches(), progress=False)
    healed = heal(model, [2], batches(), kind="linear", progress=False)
    assert torch.isfinite(logits(healed, random_batch())).all()


def test_nan_names_the_layer(tiny):
    with torch.no_grad():
        decoder_layers(tiny)[2].mlp.down_proj.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="layer 1 can't be patched.*NaN"):
        heal(tiny, [2], batches(), progress=False)


def test_samples_of_an_earlier_recording_can_be_used_again(tiny):
    text, removed = batches(), [2, 3]
    recorded = [Sample(tiny, batch, range(LAYERS + 1)) for batch in text]
    one = repair(tiny, remove_layers(tiny, removed), recorded, progress=False)
    two = repair(tiny, remove_layers(tiny, removed), recorded, progress=False)
    three = heal(tiny, removed, text, progress=False)
    for other in (two, three):
        assert torch.equal(logits(one, random_batch()), logits(other, random_batch()))


@pytest.mark.real
def test_repair_helps_the_real_model_on_text_it_has_not_seen(real):
    model, tokenizer = real
    text = calibration_batches(tokenizer, samples=8)
    unseen = [
        "The glacier moves a few metres every year. At its end the ice melts, and the water carries sand and stones into the "
        "valley, where a lake has formed behind the old moraine. In summer the lake is green."
    ]
    removed = list(range(13, 19))
    cut = perplexity(remove_layers(model, removed), tokenizer, unseen)
    folded = perplexity(heal(model, removed, text, progress=False), tokenizer, unseen)
    assert perplexity(model, tokenizer, unseen) < folded < 0.9 * cut


# ---- merging, the neighbour without text ----


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_merging_adds_what_the_removed_layers_differ_by_and_leaves_the_rest_alone(family):
    model = build_tiny(family)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    merged = merge_layers(model, [2, 3, 5])
    stack = [dict(layer.named_parameters()) for layer in decoder_layers(model)]
    found = [dict(layer.named_parameters()) for layer in decoder_layers(merged)]
    for name in stack[0]:
        assert found[0][name] is stack[0][name], "layer 0 stands before no gap"
        wanted = (stack[2][name].double() + stack[3][name].double() - stack[1][name].double()).float()
        torch.testing.assert_close(found[1][name], wanted, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found[2][name], stack[5][name], rtol=1e-5, atol=1e-6)  # one layer: it is replaced
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert not torch.allclose(logits(merged, random_batch()), logits(remove_layers(model, [2, 3, 5]), random_batch()))


def test_merging_equal_layers_changes_nothing():
    model = build_tiny()
    stack = decoder_layers(model)
    for j in (3, 4):
        stack[j].load_state_dict(stack[2].state_dict())
    assert torch.allclose(
        logits(merge_layers(model, [3, 4]), random_batch()), logits(remove_layers(model, [3, 4]), random_batch())
    )


def test_a_merged_model_is_an_ordinary_checkpoint_and_its_card_says_so(tmp_path):
    model = build_tiny()
    plan = PruningPlan(removed=(2, 3), layers=LAYERS, criterion="span")
    merged = merge_layers(model, plan)
    save(merged, tmp_path / "merged", plan=plan)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert torch.equal(logits(again, random_batch()), logits(merged, random_batch()))
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "removed layers were merged into layer 1" in card and "unchanged" not in card


def test_the_record_of_a_linear_repair_comes_back_with_the_model(tmp_path):
    """Our own format wrote the steps that make the model, and not what the card says of them."""
    healed = heal(remove_layers(build_tiny(), [0]), [3], batches(), kind="linear", progress=False)
    folder = save(healed, tmp_path / "healed")
    again = restore(folder)
    assert repairs_so_far(healed.config) and repairs_so_far(again.config) == repairs_so_far(healed.config)
    assert repairs_so_far(remove_layers(again, [0]).config) == repairs_so_far(remove_layers(healed, [0]).config)
