"""What is folded: into attention too, in front of a norm, and into no weight that is not in memory."""

import copy

import pytest
import torch
from accelerate import dispatch_model
from small import LAYERS, build_tiny, random_batch

from shortgpt import decoder_layers, heal, hidden_states
from shortgpt.repair import folding
from shortgpt.repair.fitting import Sample
from shortgpt.repair.folding import fit_fold, fit_fold_both, gain, norm_behind, output_projection

NORM_BEHIND = ("gemma2", "gemma3_text", "olmo2")


def batches(count=6):
    return [random_batch(4, 24, seed=seed) for seed in range(count)]


def one_layer(family, i=2):
    """A layer of its own, and what a fit of it gets: samples, the states that enter it, and those that leave it."""
    model = build_tiny(family)
    samples = [Sample(model, batch, {i, i + 1}) for batch in batches()]
    layer = copy.deepcopy(decoder_layers(model)[i])
    return layer, samples, [s.states[i] for s in samples], [s.states[i + 1] for s in samples]


def relative_error(states, goals):
    pairs = zip(states, goals, strict=True)
    return float(sum(((x - g).square().sum(-1) / g.square().sum(-1)).sum() for x, g in pairs))


def ran(layer, samples, states):
    with torch.no_grad():
        return [sample.run(layer, 2, x) for sample, x in zip(samples, states, strict=True)]


@pytest.mark.parametrize("family", NORM_BEHIND)
def test_in_front_of_a_norm_a_changed_matrix_is_found_again(family):
    """The goals are what the layer gave with another matrix and another norm's weight, so they can be reached."""
    layer, samples, states, goals = one_layer(family)
    with torch.no_grad():
        layer.mlp.down_proj.weight.mul_(1 + 0.5 * torch.randn(layer.mlp.down_proj.weight.shape))
        layer.post_feedforward_layernorm.weight.add_(0.3)
        before = relative_error(ran(layer, samples, states), goals)
        new, _ = fit_fold(layer, 2, samples, states, goals)
    assert relative_error(new, goals) < 0.15 * before
    torch.testing.assert_close(new, ran(layer, samples, states))


@pytest.mark.parametrize("family", NORM_BEHIND)
def test_in_front_of_a_norm_nothing_gets_worse(family):
    layer, samples, states, _ = one_layer(family)
    goals = [x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) for x in states]
    before = relative_error(ran(layer, samples, states), goals)
    with torch.no_grad():
        new, _ = fit_fold(layer, 2, samples, states, goals)
    assert relative_error(new, goals) <= before


def test_in_front_of_a_norm_a_step_that_does_not_help_is_taken_back(monkeypatch):
    layer, samples, states, goals = one_layer("gemma2")  # which it reaches as it is
    before = copy.deepcopy(layer.state_dict())
    monkeypatch.setattr(folding, "solve", lambda parts, i: 100 * torch.randn(before["mlp.down_proj.weight"].T.shape))
    with torch.no_grad():
        fit_fold(layer, 2, samples, states, goals)
    assert torch.equal(layer.mlp.down_proj.weight, before["mlp.down_proj.weight"])


@pytest.mark.parametrize("family, offset", [("gemma2", 1), ("olmo2", 0)])
def test_the_norm_behind_an_ffn_is_known_by_what_it_does(family, offset):
    layer, samples, states, _ = one_layer(family)
    projection = output_projection(layer, 2, samples[0], states[0], "ffn")
    norm = norm_behind(layer, projection, samples[0], 2, states[0])
    assert projection is layer.mlp.down_proj and norm is layer.post_feedforward_layernorm
    torch.testing.assert_close(gain(norm), norm.weight + offset)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_no_norm_behind_an_ffn_is_known_too(family):
    layer, samples, states, _ = one_layer(family)
    for branch in ("attention", "ffn"):
        projection = output_projection(layer, 2, samples[0], states[0], branch)
        assert norm_behind(layer, projection, samples[0], 2, states[0]) is None


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_both_projections_are_fitted_and_reach_further_than_one(family):
    def error(fit):
        layer, samples, states, _ = one_layer(family)
        model = build_tiny(family)
        goals = [Sample(model, batch, {5}).states[5] for batch in batches()]
        before = {name: weight.clone() for name, weight in layer.named_parameters()}
        with torch.no_grad():
            new, _ = fit(layer, 2, samples, states, goals)
        changed = [name for name, weight in layer.named_parameters() if not torch.equal(weight, before[name])]
        return relative_error(new, goals), changed

    one, both = error(fit_fold), error(fit_fold_both)
    assert len(one[1]) == 1 and len(both[1]) == 2 and both[0] < one[0]


def test_a_norm_behind_attention_is_refused():
    with pytest.raises(ValueError, match="a norm follows the attention: use kind='fold'"):
        heal(build_tiny("gemma3_text"), [3], batches(), kind="fold_both", progress=False)


def spread(tmp_path, on_disk):
    model = build_tiny()
    places = {f"model.layers.{i}": "disk" if i in on_disk else "cpu" for i in range(LAYERS)}
    rest = ("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head")
    return dispatch_model(model, places | dict.fromkeys(rest, "cpu"), main_device="cpu", offload_dir=tmp_path)


def test_a_model_that_is_partly_on_disk_is_repaired_in_a_layer_in_memory(tmp_path):
    wanted = heal(build_tiny(), [2, 3], batches(), progress=False)
    healed = heal(spread(tmp_path, [0, 4]), [2, 3], batches(), progress=False)
    states = (hidden_states(each, random_batch())[-1] for each in (wanted, healed))
    torch.testing.assert_close(*states, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["fold", "fold_both", "linear"])
def test_a_layer_on_disk_is_repaired_as_in_memory_and_the_dense_model_keeps_its_own_there(tmp_path, kind):
    model = spread(tmp_path, range(LAYERS))
    wanted = heal(build_tiny(), [2, 3], batches(), kind=kind, progress=False)
    healed = heal(model, [2, 3], batches(), kind=kind, progress=False)
    states = (hidden_states(each, random_batch())[-1] for each in (wanted, healed))
    torch.testing.assert_close(*states, atol=0, rtol=0)
    again = heal(model, [2, 3], batches(), kind=kind, progress=False)
    torch.testing.assert_close(*(hidden_states(m, random_batch())[-1] for m in (healed, again)), atol=0, rtol=0)
    assert all(weight.is_meta for weight in decoder_layers(model).parameters())
    there = [name for name, weight in decoder_layers(healed).named_parameters() if not weight.is_meta]
    assert len(there) == {"fold": 1, "fold_both": 2, "linear": 2}[kind] and all(n.startswith("1.") for n in there)
