"""Properties that hold for any layers, any batches and any dtype, tried on random ones (the same ones in every run)."""

import copy
import itertools
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from references import identity_logits, logits, reference_scores
from small import HIDDEN, LAYERS, VOCABULARY, build_tiny, random_batch
from transformers import AutoModelForCausalLM, GenerationConfig

from shortgpt import (
    PruningPlan,
    block_influence,
    choose_layers,
    prune_checkpoint,
    remove_layers,
    remove_sublayers,
    save,
    score_layers,
    span_distances,
)
from shortgpt.model.anatomy import removed_so_far
from shortgpt.scoring.influence import METRICS, LayerScores

few = settings(max_examples=6)  # where files are written

MODELS = {family: build_tiny(family) for family in ("llama", "gpt2", "gemma3_text")}  # nobody may change them
TINY = MODELS["llama"]
BATCH = random_batch()

families = st.sampled_from(sorted(MODELS))
layers = st.lists(st.integers(0, LAYERS - 1), max_size=LAYERS - 1, unique=True)  # in any order
some_layers = st.lists(st.integers(0, LAYERS - 1), min_size=1, max_size=LAYERS - 1, unique=True)
seeds = st.integers(0, 10_000)
lengths = st.lists(st.integers(1, 12), min_size=1, max_size=6)  # of the samples


def samples_of(lengths: list[int], seed: int = 0) -> list[torch.Tensor]:
    return [random_batch(rows=1, tokens=n, seed=seed + i)["input_ids"][0] for i, n in enumerate(lengths)]


def padded(samples: list[torch.Tensor], side: str, extra: int) -> dict[str, torch.Tensor]:
    """One batch with `extra` more columns than the longest sample needs; pads hold a token like any other."""
    width = max(map(len, samples)) + extra
    ids, mask = torch.full((len(samples), width), 7), torch.zeros(len(samples), width, dtype=torch.long)
    for row, sample in enumerate(samples):
        place = slice(width - len(sample), width) if side == "left" else slice(0, len(sample))
        ids[row, place], mask[row, place] = sample, 1
    return {"input_ids": ids, "attention_mask": mask}


def scored(batches, model=TINY, **options) -> LayerScores:
    return score_layers(model, batches, progress=False, **options)


# ---- removing --------------------------------------------------------------------------------------------------------
@given(families, layers)
def test_removal_of_any_layers_equals_forcing_them_to_identity(family, removed):
    model = MODELS[family]
    before = {name: tensor._version for name, tensor in model.state_dict().items()}, model.config.to_json_string()
    pruned = remove_layers(model, removed)
    torch.testing.assert_close(logits(pruned, BATCH), identity_logits(model, BATCH, removed), atol=2e-5, rtol=1e-4)
    assert removed_so_far(pruned) == tuple(sorted(removed))
    after = {name: tensor._version for name, tensor in model.state_dict().items()}, model.config.to_json_string()
    assert before == after


@given(families, some_layers, st.data())
def test_removal_in_two_steps_equals_removal_at_once(family, removed, data):
    model = MODELS[family]
    first = data.draw(st.lists(st.sampled_from(removed), unique=True))
    once = remove_layers(model, first)
    left = [i for i in range(LAYERS) if i not in first]
    by_index = remove_layers(once, [left.index(i) for i in removed if i not in first])
    by_plan = remove_layers(once, PruningPlan(LAYERS, removed))
    at_once = remove_layers(model, removed)
    for twice in (by_index, by_plan):
        assert torch.equal(logits(twice, BATCH), logits(at_once, BATCH))
        assert twice.config.to_dict() == at_once.config.to_dict()


@given(families, some_layers, st.randoms(use_true_random=False))
def test_the_order_in_which_layers_are_named_does_not_matter(family, removed, random):
    shuffled = random.sample(removed, len(removed))
    one, other = (remove_layers(MODELS[family], order) for order in (removed, np.array(shuffled)))
    assert torch.equal(logits(one, BATCH), logits(other, BATCH)) and one.config.to_dict() == other.config.to_dict()


@settings(max_examples=15)
@given(families, layers, seeds)
def test_cached_generation_equals_uncached_whatever_is_removed(family, removed, seed):
    pruned = remove_layers(MODELS[family], removed)
    how = GenerationConfig(max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=-1)
    prompt = random_batch(rows=2, tokens=5, seed=seed)
    cached, uncached = (pruned.generate(**prompt, generation_config=how, use_cache=use) for use in (True, False))
    assert torch.equal(cached, uncached) and cached.shape == (2, 11)


@few
@given(families, layers)
def test_a_saved_model_reloads_bit_for_bit_whatever_is_removed(family, removed):
    pruned = remove_layers(MODELS[family], removed)
    with tempfile.TemporaryDirectory() as folder:
        save(pruned, Path(folder) / "new", verify=False)
        reloaded = AutoModelForCausalLM.from_pretrained(Path(folder) / "new").eval()
    mine, theirs = pruned.state_dict(), reloaded.state_dict()
    assert mine.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
    assert torch.equal(logits(reloaded, BATCH), logits(pruned, BATCH))


@few
@given(families, layers, st.sampled_from(["40KB", "1GB"]))
def test_pruning_files_equals_saving_what_removal_gives(family, removed, shard):
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        MODELS[family].save_pretrained(folder / "dense", max_shard_size=shard)
        prune_checkpoint(folder / "dense", folder / "files", removed, progress=False)
        save(
            remove_layers(AutoModelForCausalLM.from_pretrained(folder / "dense"), removed),
            folder / "memory",
            verify=False,
        )
        files, memory = (json.loads((folder / name / "config.json").read_text()) for name in ("files", "memory"))
        assert files == memory
        files, memory = (AutoModelForCausalLM.from_pretrained(folder / name) for name in ("files", "memory"))
    assert files.state_dict().keys() == memory.state_dict().keys()
    assert all(torch.equal(tensor, memory.state_dict()[name]) for name, tensor in files.state_dict().items())


def test_removing_no_sublayer_leaves_an_ordinary_model(tmp_path):
    save(remove_sublayers(TINY), tmp_path / "new", verify=False)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "new"), BATCH), logits(TINY, BATCH))


@settings(max_examples=12)
@given(families, layers)
def test_removing_both_branches_of_layers_equals_removing_the_layers(family, removed):
    model = MODELS[family]
    hollow = remove_sublayers(model, attention=removed, ffn=removed[::-1])
    torch.testing.assert_close(
        logits(hollow, BATCH), logits(remove_layers(model, removed), BATCH), atol=2e-5, rtol=1e-4
    )


# ---- scoring ---------------------------------------------------------------------------------------------------------
@given(families, lengths, seeds, st.sampled_from(["left", "right"]), st.integers(0, 5), st.data())
def test_scores_do_not_depend_on_how_samples_are_batched_and_padded(family, lengths, seed, side, extra, data):
    samples = samples_of(lengths, seed)
    alone = scored([padded([sample], "right", 0) for sample in samples], MODELS[family])
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(samples) - 1)))))
    parts = [samples[a:b] for a, b in itertools.pairwise([0, *cuts, len(samples)]) if a < b]
    together = scored([padded(part, side, extra) for part in parts], MODELS[family])
    np.testing.assert_allclose(together.values, alone.values, atol=3e-7, rtol=0)
    np.testing.assert_allclose(together.sums, alone.sums, atol=3e-6, rtol=0)
    assert together.counts.tolist() == lengths and together.sha256 == alone.sha256


@given(lengths, st.data())
def test_rows_of_pads_and_the_order_of_samples_change_no_score(lengths, data):
    samples = samples_of(lengths)
    order = data.draw(st.permutations(range(len(samples))))
    batch = padded([samples[i] for i in order], "right", 1)
    batch = {name: torch.cat([rows, torch.zeros_like(rows[:1])]) for name, rows in batch.items()}  # a row of pads
    straight, permuted = scored([padded(samples, "right", 1)]), scored([batch])
    np.testing.assert_allclose(permuted.values, straight.values, atol=3e-7, rtol=0)
    np.testing.assert_allclose(permuted.sums, straight.sums[order], atol=3e-6, rtol=0)
    assert permuted.counts.tolist() == [lengths[i] for i in order]
    assert permuted.digests == tuple(straight.digests[i] for i in order)


@given(lengths, st.data())
def test_merging_any_partition_gives_the_whole(lengths, data):
    batches = [padded([sample], "right", 0) for sample in samples_of(lengths)]
    whole = scored(batches)
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(batches) - 1)))))
    parts = [batches[a:b] for a, b in itertools.pairwise([0, *cuts, len(batches)]) if a < b]
    merged = None
    for part in parts:
        merged = scored(part) if merged is None else merged.merge(scored(part))
    np.testing.assert_array_equal(merged.sums, whole.sums)
    np.testing.assert_array_equal(merged.standard_errors, whole.standard_errors)
    assert merged.digests == whole.digests and merged.counts.tolist() == whole.counts.tolist()


@settings(max_examples=12)
@given(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]), lengths, seeds)
def test_scores_are_right_in_every_dtype(dtype, lengths, seed):
    """Against float64 arithmetic on the very states that the model of this dtype computes, and on those of float64."""
    batch = padded(samples_of(lengths, seed), "right", 2)
    model = copy.deepcopy(TINY).to(dtype)
    scores = scored([batch], model)
    seen = [[] for _ in range(LAYERS)]

    def keep(module, args, output, index):
        x, y = (states.double() for states in (args[0], output[0] if isinstance(output, tuple) else output))
        seen[index] += (1 - (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))).flatten().tolist()

    for i, layer in enumerate(model.model.layers):
        layer.register_forward_hook(lambda module, args, output, i=i: keep(module, args, output, i))
    scored([batch], model)
    assert np.isfinite(scores.values).all() and (scores.values >= -1e-6).all() and (scores.values <= 2 + 1e-6).all()
    assert np.shape(seen) == (LAYERS, sum(lengths))  # the model never reads a pad
    # 32 products and three sums of them in float32, whatever the states' own dtype
    np.testing.assert_allclose(scores.values, np.mean(seen, axis=1), atol=10 * torch.finfo(torch.float32).eps, rtol=0)
    # a state keeps the rounding of each residual addition, which moves a score by less than one of them (measured: 0.6 eps
    # in half precision, 2 in float32, where the sums count too)
    bound = LAYERS * torch.finfo(dtype).eps
    np.testing.assert_allclose(scores.values, reference_scores(TINY, [batch]), atol=bound, rtol=0)


@settings(max_examples=8)
@given(lengths, seeds)
def test_spans_of_one_layer_are_the_scores(lengths, seed):
    batch = padded(samples_of(lengths, seed), "left", 1)
    spans = span_distances(TINY, [batch]).set_index(["start", "end"])["score"]
    single = [spans[i, i + 1] for i in range(LAYERS)]
    np.testing.assert_allclose(single, scored([batch]).values, atol=3e-7)
    assert len(spans) == LAYERS * (LAYERS + 1) // 2 and spans.between(-1e-6, 2 + 1e-6).all()


# ---- the formula -----------------------------------------------------------------------------------------------------
def states(seed: int, tokens: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, tokens, HIDDEN, generator=generator))


@given(seeds, st.floats(1e-3, 1e4), st.floats(1e-3, 1e4))
def test_block_influence_ignores_lengths_and_rotations_and_is_symmetric(seed, a, b):
    x, y = states(seed)
    score = block_influence(x, y)
    cosine = (x.double() * y.double()).sum(-1) / (x.double().norm(dim=-1) * y.double().norm(dim=-1))
    rotation = torch.linalg.qr(torch.randn(HIDDEN, HIDDEN, generator=torch.Generator().manual_seed(seed + 1)))[0]
    close = {"atol": 2e-6, "rtol": 0}
    torch.testing.assert_close(score, (1 - cosine).float(), **close)
    torch.testing.assert_close(block_influence(a * x, b * y), score, **close)
    torch.testing.assert_close(block_influence(x @ rotation, y @ rotation), score, **close)
    torch.testing.assert_close(block_influence(y, x), score, **close)
    torch.testing.assert_close(block_influence(x, -y), 2 - score, **close)
    torch.testing.assert_close(block_influence(x, a * x), torch.zeros(8), **close)
    assert torch.equal(block_influence(torch.zeros_like(x), y), torch.ones(8))  # no direction: a right angle
    assert torch.equal(block_influence(torch.zeros_like(x), torch.zeros_like(y)), torch.ones(8))


@given(seeds, st.sampled_from([torch.float16, torch.bfloat16]), st.floats(1, 5000), st.sampled_from(sorted(METRICS)))
def test_no_metric_overflows_in_half_precision(seed, dtype, scale, metric):
    x, y = ((scale * s).to(dtype) for s in states(seed))
    torch.testing.assert_close(METRICS[metric](x, y), METRICS[metric](x.float(), y.float()), atol=0, rtol=0)
    assert METRICS[metric](x, y).isfinite().all()


@given(seeds)
def test_non_contiguous_states_and_batches_score_the_same(seed):
    x, y = states(seed)
    wide = torch.stack([x, y], -1)  # every second number
    assert not wide[..., 0].is_contiguous()
    torch.testing.assert_close(block_influence(wide[..., 0], wide[..., 1]), block_influence(x, y), atol=3e-7, rtol=0)
    batch = random_batch(seed=seed)
    turned = {name: value.T.contiguous().T for name, value in batch.items()}
    np.testing.assert_array_equal(scored([turned]).sums, scored([batch]).sums)


# ---- choosing --------------------------------------------------------------------------------------------------------
@given(st.lists(st.integers(-3, 3), min_size=2, max_size=12), st.data())  # many ties
def test_the_n_lowest_are_chosen_and_ties_go_to_the_earlier_layer(values, data):
    scores = LayerScores(np.array([values], dtype=float), np.ones(1, dtype=int))
    n = data.draw(st.integers(0, len(values) - 1))
    by_hand = sorted(range(len(values)), key=lambda i: (values[i], i))[:n]
    plan = choose_layers(scores, n)
    assert list(plan.removed) == by_hand and plan.layers == len(values)
    assert choose_layers(scores, np.int64(n)).removed == plan.removed
    assert set(choose_layers(scores, ratio=n / len(values)).removed) == set(by_hand)
    assert sorted([*plan.kept, *plan.removed]) == list(range(len(values)))


names = st.text(max_size=20)
numbers = st.floats(allow_nan=False, width=64)


@given(
    st.integers(1, 200).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.lists(st.integers(0, n - 1), max_size=min(n - 1, 20), unique=True),
            st.dictionaries(st.integers(0, n - 1), numbers, max_size=20),
        )
    ),
    names,
    names,
)
def test_any_plan_survives_its_file(parts, criterion, model):
    depth, removed, scores = parts
    plan = PruningPlan(depth, tuple(removed), criterion, scores, {"tokens": 3, "sha256": "ab"}, model)
    with tempfile.TemporaryDirectory() as folder:
        assert PruningPlan.from_json(plan.to_json(Path(folder) / "plan.json")) == plan
        numpy_ints = PruningPlan(
            np.int64(depth), np.array(removed, dtype=int), criterion, scores, plan.calibration, model
        )
        assert numpy_ints == plan and PruningPlan.from_json(numpy_ints.to_json(Path(folder) / "plan.json")) == plan


@settings(max_examples=10)
@given(seeds, st.integers(2, 30))
def test_standard_errors_equal_the_delta_method_and_agree_with_a_bootstrap(seed, samples):
    rng = np.random.default_rng(seed)
    counts = rng.integers(5, 60, samples)
    sums = counts[:, None] * rng.normal(0.3, 0.05, (samples, LAYERS)) + rng.normal(0, 0.5, (samples, LAYERS))
    scores = LayerScores(sums, counts)
    # var(r) = (var(s) - 2 r cov(s, c) + r² var(c)) / (samples · mean(c)²), from numpy's covariances
    for layer, ratio in enumerate(scores.values):
        (vs, cov), (_, vc) = np.cov(sums[:, layer], counts)
        variance = (vs - 2 * ratio * cov + ratio**2 * vc) / samples / counts.mean() ** 2
        assert scores.standard_errors[layer] == pytest.approx(np.sqrt(variance), rel=1e-6)
    if samples >= 20:
        draws = rng.integers(samples, size=(4000, samples))
        bootstrap = (sums[draws].sum(1) / counts[draws].sum(1)[:, None]).std(0)
        np.testing.assert_allclose(scores.standard_errors, bootstrap, rtol=0.25)


def test_ids_reach_up_to_the_vocabulary():
    """The checks of arguments refuse what is wrong and nothing else: both ends of the vocabulary are tokens."""
    ids = torch.tensor([[0, VOCABULARY - 1]])
    for mask in (torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 2, dtype=torch.int32)):
        assert scored([{"input_ids": ids.int(), "attention_mask": mask}]).counts.tolist() == [2]
