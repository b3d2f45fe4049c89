"""Choosing layers by trying them: against really pruned models, brute force over all sets, and closed forms."""

import itertools
import json
from dataclasses import replace
from math import inf

import numpy as np
import pandas as pd
import pytest
import torch
from architectures import VOCABULARY as SMALL_VOCABULARY, tiny_model
from small import LAYERS, build_tiny, random_batch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaMLP

from shortgpt import (
    PruningPlan,
    Trials,
    calibration_batches,
    choose_by,
    compare_criteria,
    decoder_layers,
    hidden_states,
    leave_one_out,
    remove_layers,
    score_layers,
    span_distances,
)
from shortgpt.choosing.criteria import CRITERIA
from shortgpt.choosing.search import evolve, greedy

SETS = ([], [0], [LAYERS - 1], [2, 3], [0, 2, 5], [1, 2, 3, 4, 5])
ARCHITECTURES = (
    *("llama", "gpt2", "opt", "bloom", "gemma2", "gemma3_text", "qwen3", "mamba", "jamba", "rwkv", "falcon", "gptj"),
    *(
        "zaya",
        "glm_moe_dsa",
        "hy_v4",
        "gemma3n_text",
        "gpt_oss",
        "xlstm",
        "zamba2",
        "falcon_h1",
        "qwen3_next",
        "gpt_neox",
    ),
)


def samples_of(batches):
    """Each sample alone, without its pads."""
    for batch in batches:
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            if mask.any():
                yield ids[mask.bool()][None]


@torch.no_grad()
def logits_of(model, batches):
    return [model(ids, use_cache=False).logits[0].double() for ids in samples_of(batches)]


def true_loss(model, removed, batches) -> float:
    """Mean loss of the really pruned model in float64, sample by sample."""
    pruned = remove_layers(model, removed) if removed else model
    losses = [
        -logits[:-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        for logits, ids in zip(logits_of(pruned, batches), samples_of(batches), strict=True)
    ]
    return torch.cat(losses).mean().item()


def true_divergence(model, removed, batches) -> float:
    pruned = remove_layers(model, removed) if removed else model
    both = zip(logits_of(model, batches), logits_of(pruned, batches), strict=True)
    each = [(p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).sum(-1) for p, q in both]
    return torch.cat(each).mean().item()


def padded(side: str) -> list[dict]:
    """Two batches of samples of different lengths, one of them of pads only."""
    batches = [random_batch(3, 12, seed=1), random_batch(2, 9, seed=2)]
    for batch, lengths in zip(batches, ((12, 5, 0), (9, 2)), strict=True):
        positions = torch.arange(batch["input_ids"].shape[1])
        for row, length in enumerate(lengths):
            real = positions < length if side == "right" else positions >= len(positions) - length
            batch["attention_mask"][row] = real.long()
            batch["input_ids"][row][~real] = 0
    return batches


def tiny_of_depth(depth: int, seed: int = 0):
    config = AutoConfig.for_model(
        "llama",
        **dict(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=depth, initializer_range=0.3),
        **dict(num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64),
    )
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config).eval()


# ---- trials -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_trial_equals_the_really_pruned_model(architecture):
    model = tiny_model(architecture)
    generator = torch.Generator().manual_seed(1)
    batches = []
    for rows in (2, 1):
        ids = torch.randint(3, SMALL_VOCABULARY - 8, (rows, 12), generator=generator)
        batches.append({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    trials = Trials(model, batches)
    assert trials.resumes == (architecture != "gemma3n_text")  # whose last layers use the keys of earlier ones
    expected = {}
    for removed in ([], [2, 3], [0], [5], [0, 2, 5]):
        expected[tuple(removed)] = true_loss(model, removed, batches)
    assert len({round(value, 6) for value in expected.values()}) == len(expected)  # every layer matters
    for base in ([], [3], [0, 2]):
        trials.rebase(base)
        for removed, value in expected.items():
            assert trials(removed) == pytest.approx(value, abs=1e-5), (base, removed)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("objective", ["loss", "divergence"])
def test_pads_and_batches_play_no_part(family_model, objective, side):
    batches, true = padded(side), {"loss": true_loss, "divergence": true_divergence}[objective]
    trials = Trials(family_model, batches, objective=objective)
    for removed in SETS:
        assert trials(removed) == pytest.approx(true(family_model, removed, batches), abs=2e-5)
    assert objective == "loss" or (trials([]) == 0 and trials([3]) > 1e-3)


def test_a_masked_entry_of_the_vocabulary_is_no_damaged_weight(tiny, batch):
    """Some models never say some tokens: their logits are minus infinity, and 0 times that is no NaN here."""
    expected = Trials(tiny, [batch], objective="divergence")([2])
    unused = next(i for i in range(96) if not (batch["input_ids"] == i).any())

    def mask(module, args, output):
        return output.index_fill(-1, torch.tensor([unused]), float("-inf"))

    tiny.lm_head.register_forward_hook(mask)
    for objective in ("loss", "divergence"):
        trials = Trials(tiny, [batch], objective=objective)
        assert np.isfinite(trials([2])) and (objective == "loss" or trials([]) == 0)
    assert trials([2]) == pytest.approx(expected, rel=0.2)


def test_the_divergence_stays_that_from_the_dense_model(tiny, batch):
    trials = Trials(tiny, [batch], objective="divergence")
    trials.rebase([1, 4])
    for removed in ([1, 4], [1], [4, 5], [0]):
        assert trials(removed) == pytest.approx(true_divergence(tiny, removed, [batch]), abs=2e-5)
    assert trials([]) == pytest.approx(0, abs=1e-7)


def test_the_cost_is_what_really_runs(tiny):
    batches, ran = [random_batch(), random_batch(2, 7)], []

    def count(module, args, output):
        if isinstance(module, LlamaMLP) and output.shape[1] > 4:  # not the few tokens that ask whether trials resume
            ran.append(module)

    handle = torch.nn.modules.module.register_module_forward_hook(count)
    try:
        trials = Trials(tiny, batches)
        expected = [6]
        steps = [([2], 3), ([], 0), ([0], 5), ([4, 5], 0), ([0, 1, 2, 3, 4], 1)]
        for removed, layers in steps:
            trials(removed)
            expected.append(layers)
        trials.rebase([2, 3])  # from layer 2 on, 4 and 5 run
        trials.rebase([3, 2])  # the same set
        trials([2, 3, 5])  # resumes at 5, which is out
        trials([1])  # from 1 on: 2, 3, 4, 5
        expected += [2, 0, 0, 4]
        assert trials.forward_passes == pytest.approx(sum(expected) / 6)
        assert len(ran) == sum(expected) * len(batches)
        assert trials.evaluations == len(steps) + 2
    finally:
        handle.remove()


def test_a_model_that_can_not_resume_is_counted_in_full():
    model = tiny_model("gemma3n_text")
    trials = Trials(model, [random_batch()], objective="divergence")
    assert np.isfinite(trials([2]))
    assert not trials.resumes and trials.forward_passes == pytest.approx(1 + 5 / 6 + 1)


def test_layers_that_the_rest_needs_are_infinitely_dear():
    model = tiny_model("qwen3_next")
    attention = [i for i, kind in enumerate(model.config.layer_types) if kind == "full_attention"]
    with pytest.raises(ValueError, match="keep at least one"):
        remove_layers(model, attention)
    assert Trials(model, [random_batch()])(attention) == inf


def test_nothing_is_left_behind_even_after_an_error(tiny, batch):
    tiny.train()
    before = {name: tensor.clone() for name, tensor in tiny.state_dict().items()}
    trials = Trials(tiny, [batch])
    value = trials([2])
    with pytest.raises(RuntimeError, match="stop here"):
        handle = decoder_layers(trials._view)[4].register_forward_hook(stop)
        trials.rebase([3])
    handle.remove()
    assert trials.base == frozenset() and trials([2]) == value
    for model in (tiny, trials._view):
        assert not any("forward" in vars(module) or module._forward_hooks for module in model.modules())
    assert all(module.training for module in tiny.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny.state_dict().items())


def stop(module, args, output):
    raise RuntimeError("stop here")


def test_dropout_is_off():
    model = build_tiny("gpt2")
    expected = Trials(model, [random_batch()])([1])
    assert Trials(model.train(), [random_batch()])([1]) == expected


def test_bad_sets_and_texts_are_refused(tiny, batch):
    trials = Trials(tiny, [batch])
    for removed, message in [
        ([6], "unknown layer 6"),
        ([1, 1], "named twice"),
        (range(6), "leaves none"),
        (3, "a list of numbers"),
    ]:
        for ask in (trials, trials.rebase):
            with pytest.raises((ValueError, TypeError), match=message):
                ask(removed)
    assert trials.evaluations == 0
    one = {name: values[:, :1] for name, values in batch.items()}
    with pytest.raises(ValueError, match="no sample has two tokens"):
        Trials(tiny, [one])
    assert Trials(tiny, [one], objective="divergence")([2]) > 0
    with torch.no_grad():
        tiny.model.layers[3].mlp.down_proj.weight[0, 0] = float("nan")
    broken = Trials(tiny, [batch])
    with pytest.raises(ValueError, match="logits with NaN"):
        broken([2])
    assert np.isfinite(broken([3]))


def test_on_half_precision_the_sums_are_exact():
    model = build_tiny().bfloat16()
    batches = [random_batch()]
    assert Trials(model, batches)([2]) == pytest.approx(true_loss(model, [2], batches), abs=1e-5)


# ---- searching --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def brute():
    """A five-layer model, a batch, and the true loss of every set that can be removed."""
    model, batches = tiny_of_depth(5), [random_batch(2, 10)]
    sets = [s for n in range(5) for s in itertools.combinations(range(5), n)]
    return model, batches, {removed: true_loss(model, list(removed), batches) for removed in sets}


def test_leave_one_out_and_greedy_are_what_brute_force_says(brute):
    model, batches, table = brute
    expected = [table[(layer,)] for layer in range(5)]
    np.testing.assert_allclose(leave_one_out(Trials(model, batches), progress=False), expected, atol=1e-5)
    order: list[int] = []
    while len(order) < 4:
        left = [layer for layer in range(5) if layer not in order]
        order.append(min(left, key=lambda layer: table[tuple(sorted([*order, layer]))]))
    for n in range(5):
        assert greedy(Trials(model, batches), n, progress=False) == order[:n]
        assert greedy(Trials(model, batches), 4, start=order[:n], progress=False) == order


@pytest.mark.parametrize("n", range(5))
def test_the_search_finds_the_optimum_of_all_sets(brute, n):
    model, batches, table = brute
    best = min((value, removed) for removed, value in table.items() if len(removed) == n)
    found, history = evolve(Trials(model, batches), n, budget=50, progress=False)
    assert found == best[1] and history["best"].iloc[-1] == pytest.approx(best[0], abs=1e-5)
    assert sorted(history["layers"]) == [s for s in sorted(table) if len(s) == n]  # each once, then it ends


class Made:
    """Trials of no model: any function of the removed layers."""

    def __init__(self, value, depth: int = 14):
        self.value, self.depth = value, depth

    def __call__(self, removed):
        return self.value(removed)

    def rebase(self, removed):
        pass


def landscape(depth: int = 14, seed: int = 0):
    """A value like a loss: each layer has a price, and neighbours that both go cost more."""
    rng = np.random.default_rng(seed)
    price, together = rng.random(depth), 2 * rng.random(depth)

    def value(removed):
        pairs = sum(together[i] for i in removed if i + 1 in removed)
        return float(price[list(removed)].sum() + pairs)

    return Made(value, depth)


def test_the_search_beats_greedy_and_random_search_on_equal_evaluations():
    depth, n, budget = 14, 6, 250
    ranks = {"evolve": [], "greedy": [], "random": []}
    for seed in range(8):
        value = landscape(depth, seed)
        every = np.sort([value(s) for s in itertools.combinations(range(depth), n)])
        found = {
            "evolve": value(evolve(value, n, budget=budget, seed=seed, progress=False)[0]),
            "greedy": value(greedy(value, n, progress=False)),
            "random": np.random.default_rng(seed).choice(every, budget, replace=False).min(),
        }
        for way, low in found.items():
            ranks[way].append(int(np.searchsorted(every, low - 1e-9)))
    assert np.mean(ranks["evolve"]) < np.mean(ranks["random"]) / 3 and max(ranks["evolve"]) <= 10, ranks
    assert sum(ranks["evolve"]) <= sum(ranks["greedy"]), ranks


def test_the_search_never_returns_worse_than_its_best_start():
    value, starts = landscape(), [[0, 1, 2], [11, 5, 2], [3, 7, 9], [9, 7, 3]]
    for budget in (3, 4, 20):
        found, history = evolve(value, 3, starts=starts, budget=budget, progress=False)
        assert value(found) <= min(map(value, starts))
        assert list(history["layers"][:3]) == [(0, 1, 2), (2, 5, 11), (3, 7, 9)] and len(history) == budget
        assert history["layers"].is_unique and history["value"].min() == value(found)
        assert list(history["best"]) == list(np.minimum.accumulate(history["value"]))
        assert list(history["evaluation"]) == list(range(1, budget + 1))


def test_a_seed_decides_the_search():
    runs = [evolve(landscape(), 5, budget=40, seed=seed, progress=False)[1] for seed in (1, 1, 2)]
    pd.testing.assert_frame_equal(runs[0], runs[1])
    assert list(runs[0]["layers"]) != list(runs[2]["layers"])


def test_sets_that_can_not_go_are_passed_over():
    def value(removed):
        return inf if 2 in removed else landscape()(removed)

    order = greedy(Made(value), 12, progress=False)
    assert 2 not in order and 2 not in evolve(Made(value), 5, starts=[[2, 3, 4, 5, 6]], progress=False)[0]
    with pytest.raises(ValueError, match="no other layer can be removed: choose fewer than 14"):
        greedy(Made(lambda removed: inf if len(removed) > 2 else 0.0, 15), 14, progress=False)
    with pytest.raises(ValueError, match="none of 10 sets of 2 layers can be removed"):
        evolve(Made(lambda removed: inf, 5), 2, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(starts=[[1]]), "each start must have n = 2 layers, got one with 1"),
        (dict(starts=[[1, 2], [2, 3]], budget=1), "budget must be at least the number of starts, 2, got 1"),
        (dict(starts=[[1, 14]]), "unknown layer 14"),
        (dict(budget=0), "budget must be at least 1"),
    ],
)
def test_bad_searches_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        evolve(landscape(), 2, progress=False, **options)


@pytest.mark.parametrize("n", [-1, 14])
def test_an_impossible_number_of_layers_is_refused(n):
    for find in (greedy, evolve):
        with pytest.raises(ValueError, match=f"n must be 0 to 13 .*14 layers.* got {n}"):
            find(landscape(), n, progress=False)
    with pytest.raises(ValueError, match="n must be 2 to 13"):
        greedy(landscape(), 1, start=[3, 4], progress=False)


# ---- criteria ---------------------------------------------------------------------------------------------------------
OPTIONS = dict(budget=15, progress=False)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_gives_a_plan_that_can_be_applied(tiny, criterion, tmp_path):
    batches = padded("right")
    for n in (0, 1, 3, LAYERS - 1):
        plan = choose_by(tiny, batches, criterion, n, **OPTIONS)
        assert len(set(plan.removed)) == len(plan.removed) == n and plan.criterion == criterion
        assert choose_by(tiny, iter(batches), criterion, n, **OPTIONS) == plan
        assert len(decoder_layers(remove_layers(tiny, plan))) == LAYERS - n
    assert plan.calibration == score_layers(tiny, batches, progress=False).calibration
    read = PruningPlan.from_json(plan.to_json(tmp_path / "plan.json"))
    assert read == plan and read.search == plan.search
    tried = criterion in ("leave_one_out", "greedy", "search")
    assert bool(plan.search) == tried
    if tried:
        assert plan.search["value"] == pytest.approx(true_loss(tiny, list(plan.removed), batches), abs=1e-5)


def test_the_first_layers_of_the_cheap_criteria_are_what_their_names_say(tiny):
    batches = padded("left")
    removed = {c: list(choose_by(tiny, batches, c, 3, **OPTIONS).removed) for c in CRITERIA}
    assert removed["sequential"] == [0, 1, 2] and removed["reverse"] == [5, 4, 3]
    for metric in ("block_influence", "relative_magnitude"):
        scores = score_layers(tiny, batches, metric=metric, progress=False)
        assert removed[metric] == np.argsort(scores.values).tolist()[:3]
        assert choose_by(tiny, batches, metric, 2).scores == dict(enumerate(scores.values))
    assert len({tuple(choose_by(tiny, batches, "random", 3, seed=s).removed) for s in range(8)}) > 1


def test_iterative_scores_are_taken_from_the_pruned_model(tiny):
    batches, model, left, expected = padded("right"), build_tiny(), list(range(LAYERS)), []
    for _ in range(4):  # with the layers really taken out of the list
        lowest = int(score_layers(model, batches, progress=False).values.argmin())
        expected.append(left.pop(lowest))
        model = remove_layers(model, [lowest])
    assert list(choose_by(tiny, batches, "block_influence_iterative", 4, **OPTIONS).removed) == expected


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("tokens", ["last", "all"])
def test_the_angular_span_is_that_of_least_angle(tiny, tokens, side):
    batches, angles = padded(side), []
    for ids in samples_of(batches):
        states = hidden_states(tiny, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})[:, 0].double().numpy()
        states = states[:, -1:] if tokens == "last" else states
        unit = states / np.linalg.norm(states, axis=-1, keepdims=True)
        angles.append(np.arccos(np.clip(np.einsum("ith,jth->tij", unit, unit), -1, 1)) / np.pi)
    angle = np.concatenate(angles).mean(0)
    table = span_distances(tiny, batches, metric="angular_distance", tokens=tokens)
    np.testing.assert_allclose(table["score"], angle[table["start"], table["end"]], atol=1e-6)
    criterion = "angular_span" if tokens == "last" else "angular_span_all_tokens"
    for n in range(1, LAYERS):
        start = min(range(LAYERS - n + 1), key=lambda start: angle[start, start + n])
        assert list(choose_by(tiny, batches, criterion, n).removed) == list(range(start, start + n))


def test_block_influence_of_spans_over_the_last_tokens(tiny, batch):
    last = span_distances(tiny, [batch], tokens="last")
    states = hidden_states(tiny, batch)[:, :, -1].double()
    cosine = torch.cosine_similarity(states[1], states[4], dim=-1).mean().item()
    assert last.set_index(["start", "end"]).loc[(1, 4), "score"] == pytest.approx(1 - cosine, abs=1e-6)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_pruned_model_gets_a_plan_in_the_dense_numbering(tiny, criterion):
    batches, before = [random_batch()], [1, 4]
    pruned = remove_layers(tiny, before)
    plan = choose_by(pruned, batches, criterion, 2, **OPTIONS)
    assert plan.layers == LAYERS and list(plan.removed[:2]) == before and len(set(plan.removed)) == 4
    alone = choose_by(as_if_dense(pruned), batches, criterion, 2, **OPTIONS)
    assert [[0, 2, 3, 5][i] for i in alone.removed] == list(plan.removed[2:])
    assert {[0, 2, 3, 5][i]: v for i, v in alone.scores.items()} == plan.scores
    logits = remove_layers(pruned, plan)(**batches[0]).logits
    assert torch.equal(logits, remove_layers(tiny, plan)(**batches[0]).logits)


def as_if_dense(pruned):
    model = remove_layers(pruned, [])
    model.config.shortgpt_removed_layers = []
    return model


@pytest.mark.slow
def test_the_table_has_a_row_for_every_criterion_seed_and_count(tiny):
    batches, counts, measured = [random_batch()], [3, 0, 2], []

    def measure(model):
        measured.append(len(decoder_layers(model)))
        return {"loss": Trials(model, batches)([]), "depth": len(decoder_layers(model))}

    table = compare_criteria(tiny, batches, counts, CRITERIA, measure, seeds=(0, 3), **OPTIONS)
    seeds = {c: [0, 3] if c in ("random", "search") else [None] for c in CRITERIA}
    expected = [(c, seed, n) for c in CRITERIA for seed in seeds[c] for n in (0, 2, 3)]
    found = table[["criterion", "seed", "removed"]].astype(object).replace({pd.NA: None}).itertuples(index=False)
    assert list(map(tuple, found)) == expected
    assert list(table.columns[-4:]) == ["loss", "depth", "forward_passes", "seconds"]
    assert len(measured) == table["layers"].map(frozenset).nunique()  # each set once
    assert (table["depth"] == LAYERS - table["removed"]).all()
    for _, row in table.iterrows():
        seed = 0 if pd.isna(row["seed"]) else row["seed"]
        plan = choose_by(tiny, batches, row["criterion"], row["removed"], seed=seed, **OPTIONS)
        assert plan.removed == row["layers"]
        assert row["loss"] == pytest.approx(true_loss(tiny, list(plan.removed), batches), abs=1e-5)
        if plan.search:  # counts of one run cost as much as if each were asked for alone, up to the value of the sets
            assert row["forward_passes"] == pytest.approx(plan.search["forward_passes"], abs=1.01)
            assert row["forward_passes"] >= 1 and row["seconds"] > 0


def test_costs_of_choosing_are_counted_by_hand(tiny):
    table = compare_criteria(tiny, [random_batch()], [2], CRITERIA, lambda model: 1.0, **OPTIONS)
    cost = table.set_index("criterion")["forward_passes"]
    assert set(cost[["random", "sequential", "reverse"]]) == {0}
    assert set(cost[["block_influence", "relative_magnitude", "angular_span", "angular_span_all_tokens"]]) == {1}
    assert cost["block_influence_iterative"] == pytest.approx(1 + 5 / 6)
    order = table.set_index("criterion")["layers"]
    trials = Trials(tiny, [random_batch()])
    leave_one_out(trials, LAYERS, progress=False)
    trials(order["leave_one_out"])
    assert trials.forward_passes == pytest.approx(cost["leave_one_out"])
    alone = 1 + (5 + 4 + 3 + 2 + 1 + 0) / 6  # the dense pass, then each layer: those behind it run
    first = min(order["leave_one_out"])
    behind = [layer for layer in range(first, LAYERS) if layer not in order["leave_one_out"]]
    assert cost["leave_one_out"] == pytest.approx(alone + len(behind) / 6)


def test_measures_that_are_numbers_become_a_value(tiny):
    table = compare_criteria(tiny, [random_batch()], [1], ["reverse"], lambda model: 7, progress=False)
    (row,) = table.to_dict("records")
    assert pd.isna(row.pop("seed")) and row | {"seconds": 0} == {
        "criterion": "reverse",
        "removed": 1,
        "layers": (5,),
        "value": 7,
        "forward_passes": 0,
        "seconds": 0,
    }


def test_what_a_search_cost_is_in_the_plan_and_old_plans_load(tiny, tmp_path):
    plan = choose_by(tiny, [random_batch()], "search", 2, seed=4, **OPTIONS)
    assert set(plan.search) == {
        *("objective", "value", "evaluations", "forward_passes", "seconds", "seed", "budget"),
    }
    assert plan.search["evaluations"] == 15 and plan.search["budget"] == 15 and plan.search["seed"] == 4
    slower = replace(plan, search=plan.search | {"seconds": 1e9})
    assert slower == plan
    fields = json.loads(plan.to_json(tmp_path / "plan.json").read_text())
    del fields["search"]
    (tmp_path / "old.json").write_text(json.dumps(fields))
    old = PruningPlan.from_json(tmp_path / "old.json")
    assert old == plan and old.search == {}


@pytest.mark.real
def test_on_the_real_model_trials_equal_pruned_models(real):
    model, tokenizer = real
    batches = calibration_batches(tokenizer, samples=2, length=48)
    trials = Trials(model, batches)
    (batch,) = batches
    for removed in ([], [12], [20, 21], [0]):
        with torch.no_grad():
            logits = remove_layers(model, removed)(**batch).logits[:, :-1].double()
        expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["input_ids"][:, 1:].flatten())
        assert trials(removed) == pytest.approx(expected.item(), abs=1e-5)
    assert trials.forward_passes == pytest.approx(1 + 17 / 30 + 8 / 30 + 29 / 30)


def test_each_round_of_greedy_resumes_at_what_was_removed_before(tiny):
    trials = Trials(tiny, [random_batch()])
    first, _ = order = greedy(trials, 2, progress=False)
    run = LAYERS  # the dense pass
    run += sum(len(set(range(i, LAYERS)) - {i}) for i in range(LAYERS))  # each layer alone
    run += len(set(range(first, LAYERS)) - {first})  # the states without the first are recorded
    run += sum(len(set(range(i, LAYERS)) - {i, first}) for i in range(LAYERS) if i != first)
    assert trials.forward_passes * LAYERS == pytest.approx(run) and len(order) == 2
