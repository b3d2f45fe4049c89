"""Scores: equal to independent float64 arithmetic, indifferent to padding and batching, loud when states are broken."""

import numpy as np
import pytest
import torch
from references import reference_scores
from small import LAYERS, random_batch

from shortgpt import (
    block_influence,
    calibration_batches,
    choose_layers,
    heal,
    hidden_states,
    score_layers,
    score_sublayers,
    span_distances,
    width_scores,
)
from shortgpt.choosing.repaired import RepairedTrials
from shortgpt.choosing.trials import Trials
from shortgpt.model.hooks import unpadded
from shortgpt.model.text import Batch, sample_digests
from shortgpt.scoring.influence import METRICS, LayerScores, angular_distance, relative_magnitude


def test_block_influence_of_known_directions():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [3.0, 4.0]])
    y = torch.tensor([[7.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [4.0, 3.0]])
    expected = torch.tensor([0.0, 1.0, 2.0, 1 - 24 / 25])
    torch.testing.assert_close(block_influence(x, y), expected, atol=1e-7, rtol=0)
    torch.testing.assert_close(angular_distance(x[:3], y[:3]), torch.tensor([0.0, 0.5, 1.0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(relative_magnitude(x[:3], y[:3]), torch.tensor([6 / 7, 5**0.5 / 2, 2.0]))


def test_half_precision_states_of_large_norm_do_not_overflow():
    x = torch.full((1, 64), 20_000.0, dtype=torch.float16)
    assert block_influence(x, x).item() == pytest.approx(0, abs=1e-6)


def test_scores_equal_a_float64_reference(family_model):
    batches = [random_batch(seed=1), random_batch(rows=2, tokens=9, seed=2)]
    scores = score_layers(family_model, batches, progress=False)
    assert np.abs(scores.values - reference_scores(family_model, batches)).max() <= 1e-7


@pytest.mark.real
def test_scores_of_the_real_model_equal_a_float64_reference(real):
    model, tokenizer = real
    batches = calibration_batches(tokenizer, samples=2, length=48, batch_size=1)
    scores = score_layers(model, batches, progress=False)
    assert np.abs(scores.values - reference_scores(model, batches)).max() <= 1e-7


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(family_model, side):
    rows = [random_batch(rows=1, tokens=n, seed=n) for n in (5, 9, 16)]
    alone = score_layers(family_model, rows, progress=False)
    padded = {"input_ids": torch.zeros(3, 20, dtype=torch.long), "attention_mask": torch.zeros(3, 20, dtype=torch.long)}
    for i, row in enumerate(rows):
        n = row["input_ids"].shape[1]
        place = slice(20 - n, 20) if side == "left" else slice(0, n)
        padded["input_ids"][i, place], padded["attention_mask"][i, place] = row["input_ids"][0], 1
    together = score_layers(family_model, [padded], progress=False)
    np.testing.assert_allclose(together.values, alone.values, atol=1e-7, rtol=0)
    assert together.counts.tolist() == [5, 9, 16] and together.sha256 == alone.sha256


@pytest.mark.parametrize("sizes", [[1] * 6, [2, 4], [5, 1]])
def test_batch_splits_change_nothing(tiny, sizes):
    whole = random_batch(rows=6)
    parts = [
        dict(zip(whole, rows, strict=True)) for rows in zip(*(v.split(sizes) for v in whole.values()), strict=True)
    ]
    one, many = (score_layers(tiny, batches, progress=False) for batches in ([whole], parts))
    np.testing.assert_allclose(many.values, one.values, atol=1e-7, rtol=0)
    assert many.sha256 == one.sha256


def test_merged_halves_equal_the_whole(tiny):
    first, second = random_batch(seed=1), random_batch(rows=2, seed=2)
    halves = [score_layers(tiny, [b], progress=False) for b in (first, second)]
    whole = score_layers(tiny, [first, second], progress=False)
    merged = halves[0].merge(halves[1])
    np.testing.assert_array_equal(merged.values, whole.values)
    np.testing.assert_array_equal(merged.standard_errors, whole.standard_errors)
    assert merged.sha256 == whole.sha256 != halves[1].merge(halves[0]).sha256
    with pytest.raises(ValueError, match="one metric and one model"):
        whole.merge(score_layers(tiny, [first], metric="relative_magnitude", progress=False))


def test_an_identity_layer_scores_zero_and_a_sign_flip_two(tiny, batch):
    tiny.model.layers[2].register_forward_hook(lambda m, args, out: args[0])
    tiny.model.layers[4].register_forward_hook(lambda m, args, out: -args[0])
    values = score_layers(tiny, [batch], progress=False).values
    assert values[2] == pytest.approx(0, abs=1e-6) and values[4] == pytest.approx(2, abs=1e-6)


def test_the_last_layer_is_measured_before_the_final_norm(tiny, batch):
    torch.nn.init.normal_(tiny.model.norm.weight)  # turns every state, if it is looked at after the norm
    states = hidden_states(tiny, batch)
    expected = block_influence(states[-2], states[-1]).mean().item()
    assert score_layers(tiny, [batch], progress=False).values[-1] == pytest.approx(expected, abs=1e-6)
    normed = tiny.model(**batch, output_hidden_states=True).hidden_states[-1]
    assert not torch.allclose(normed, states[-1])
    torch.testing.assert_close(tiny.model.norm(states[-1]), normed)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_non_finite_states_name_the_layer(tiny, batch, broken):
    with torch.no_grad():
        tiny.model.layers[3].mlp.down_proj.weight[0, 0] = broken
    with pytest.raises(ValueError, match=r"layer 3 gives hidden states with NaN or infinity .*float32"):
        score_layers(tiny, [batch], progress=False)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("metric", METRICS)
def test_one_broken_entry_of_a_state_breaks_every_metric(metric, dtype, broken):
    """`score_layers` looks at the metric instead of whole states: it must not miss a NaN or an infinity."""
    for x_in in (torch.randn(64, dtype=dtype), torch.zeros(64, dtype=dtype), torch.full((64,), broken, dtype=dtype)):
        x_out = torch.randn(64, dtype=dtype)
        x_out[3] = broken
        assert not torch.isfinite(METRICS[metric](x_in, x_out))


def test_a_layer_that_does_not_run_has_no_score(tiny, monkeypatch):
    monkeypatch.setattr(
        "shortgpt.scoring.influence.run_backbone", lambda model, batch: tiny.model.layers[0](torch.ones(1, 1, 32))
    )
    tiny.model.layers[0].forward = lambda states: states
    with pytest.raises(ValueError, match="layer 1 of this LlamaForCausalLM did not run"):
        score_layers(tiny, [random_batch(rows=1, tokens=1)], progress=False)


# whatever runs a model over batches, as a number or numbers
READERS = {
    "score_layers": lambda model, some: score_layers(model, some, progress=False).values,
    "score_sublayers": lambda model, some: score_sublayers(model, some, progress=False)["ffn"].values,
    "hidden_states": lambda model, some: hidden_states(model, some[0]),
    "span_distances": lambda model, some: span_distances(model, some, tokens="last")["score"],
    "Trials, loss": lambda model, some: Trials(model, some)([1]),
    "Trials, divergence": lambda model, some: Trials(model, some, objective="divergence")([1]),
    "heal": lambda model, some: heal(model, [2], some, progress=False)(**random_batch()).logits.detach(),
    "RepairedTrials": lambda model, some: RepairedTrials(model, some, some, kind="linear")([2, 3]),
    "width_scores": lambda model, some: width_scores(model, "heads", scores="activation", batches=some, progress=False),
}


@pytest.mark.parametrize("reader", READERS)
def test_no_pad_enters_the_model(tiny, reader):
    """The embedding of the pad is NaN, and a hidden state that attention multiplies by zero would be NaN still."""
    lengths, mask = (3, 16, 0, 9, 9), torch.zeros(5, 16, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, 16 - length :] = 1
    mask[1, 5] = 0  # inside a sample
    ids = random_batch(rows=5)["input_ids"] * mask
    with torch.no_grad():
        tiny.model.embed_tokens.weight[0] = float("nan")
    alone = [row[real.bool()][None] for row, real in zip(ids, mask, strict=True) if real.any()]
    alone = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in alone]
    got = torch.as_tensor(READERS[reader](tiny, [{"input_ids": ids, "attention_mask": mask}]))
    if reader == "hidden_states":
        assert not got[:, mask == 0].any()
        got, expected = got[:, mask == 1], torch.cat([hidden_states(tiny, sample)[:, 0] for sample in alone], 1)
    else:
        expected = torch.as_tensor(READERS[reader](tiny, alone))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_unpadded_batches_hold_the_same_samples_in_the_same_order(tiny, dtype):
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]])
    batch = {"input_ids": random_batch(6, 4)["input_ids"].to(dtype), "attention_mask": mask.bool()}
    parts = list(unpadded(tiny, [batch, random_batch(2, 5)]))
    assert [tuple(part["input_ids"].shape) for part in parts] == [(2, 3), (1, 1), (1, 3), (1, 4), (2, 5)]
    assert all(part["attention_mask"].all() and part["input_ids"].dtype in (dtype, torch.int64) for part in parts)
    digests = [digest for some in (batch, random_batch(2, 5)) for digest in sample_digests(some)]
    assert [digest for part in parts for digest in sample_digests(part)] == digests and len(digests) == 7
    assert list(unpadded(tiny, [{"input_ids": mask, "attention_mask": torch.zeros_like(mask)}])) == []


def test_the_model_is_left_as_it_was_also_after_an_exception(tiny, batch):
    tiny.train()
    hooks = sum(len(m._forward_hooks) for m in tiny.modules())

    def batches():
        yield batch
        raise RuntimeError("the text ended early")

    with pytest.raises(RuntimeError, match="ended early"):
        score_layers(tiny, batches(), progress=False)
    assert tiny.training and sum(len(m._forward_hooks) for m in tiny.modules()) == hooks
    assert all(p.requires_grad for p in tiny.parameters())


def test_bad_input_is_one_clear_sentence(tiny, batch):
    with pytest.raises(ValueError, match="unknown metric 'cosine': choose one of block_influence"):
        score_layers(tiny, [batch], metric="cosine")
    with pytest.raises(ValueError, match="hold no token"):
        score_layers(tiny, [], progress=False)
    with pytest.raises(ValueError, match="hold no token"):
        score_layers(tiny, [batch | {"attention_mask": torch.zeros(3, 16, dtype=torch.long)}], progress=False)
    with pytest.raises(TypeError, match="expected a transformers model"):
        score_layers(torch.nn.Linear(2, 2), [batch])


def test_standard_error_and_difference_equal_the_textbook_formula():
    rng = np.random.default_rng(0)
    per_sample = rng.normal(0.1, 0.01, size=(40, LAYERS))
    scores = LayerScores(per_sample * 100, np.full(40, 100))  # equal lengths: a plain mean of samples
    np.testing.assert_allclose(scores.standard_errors, per_sample.std(0, ddof=1) / np.sqrt(40), rtol=1e-9)
    mean, error = scores.difference(1, 4)
    paired = per_sample[:, 1] - per_sample[:, 4]
    assert mean == pytest.approx(paired.mean()) and error == pytest.approx(paired.std(ddof=1) / np.sqrt(40))


def test_a_sample_of_pads_only_takes_no_document_from_another(tiny, batch):
    ids, mask = batch["input_ids"], torch.ones_like(batch["input_ids"])
    mask[0] = 0
    named = Batch({"input_ids": ids, "attention_mask": mask})
    named.documents = tuple(f"document {i}" for i in range(len(ids)))
    assert score_layers(tiny, [named], progress=False).documents == named.documents[1:]
    assert score_layers(tiny, [{**named}], progress=False).documents == ()


def test_one_sample_has_no_standard_error(tiny):
    table = score_layers(tiny, [random_batch(rows=1)], progress=False).table
    assert table["standard_error"].isna().all() and list(table["layer"]) == list(range(LAYERS))


def test_selection_frequency_is_certain_only_where_the_samples_agree():
    sums = np.array([[1.0, 2.0, 9.0, 5.0], [1.0, 9.0, 2.0, 5.0], [1.0, 2.0, 9.0, 5.0], [1.0, 9.0, 2.0, 5.0]])
    frequency = LayerScores(sums, np.ones(4, dtype=int)).selection_frequency(2, resamples=400)
    assert frequency[0] == 1 and 0.2 < frequency[1] < 0.8 and frequency.sum() == pytest.approx(2)


def test_span_scores_agree_with_layer_scores_and_with_stored_states(tiny, batch):
    spans = span_distances(tiny, [batch])
    single = spans[spans["layers"] == 1].set_index("start")["score"]
    np.testing.assert_allclose(single, score_layers(tiny, [batch], progress=False).values, atol=1e-6)
    states = hidden_states(tiny, batch)
    wide = spans.query("start == 1 and end == 5")["score"].item()
    assert wide == pytest.approx(block_influence(states[1], states[5]).mean().item(), abs=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_gives_a_plan(tiny, batch, metric):
    plan = choose_layers(score_layers(tiny, [batch], metric=metric, progress=False), 2)
    assert plan.criterion == metric and len(plan.removed) == 2
