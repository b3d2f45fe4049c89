"""Branches chosen freely: the maps in their place are least squares, and what is paired is an ordinary checkpoint."""

import numpy as np
import pytest
import torch
from small import LAYERS, build_tiny, random_batch
from transformers import AutoModelForCausalLM, GenerationConfig

from shortgpt import decoder_layers, remove_layers, remove_sublayers, save
from shortgpt.course.studies.submodules import (
    _fitted,
    _low_rank,
    _shared_basis,
    ffn_parts,
    heal_paired,
    lowest_branches,
    paired,
    subfit,
)

PLAIN = ("llama", "qwen3", "gemma3_text", "gpt2")


def batches(count=4):
    return [random_batch(4, 24, seed=seed) for seed in range(count)]


def logits(model, batch=None):
    with torch.no_grad():
        return model(**(batch or random_batch(seed=9))).logits


def seen(model, i, name):
    """What enters and leaves a module of layer i, ``[tokens, hidden]``."""
    found = []
    take = lambda args, kwargs: args[0] if args else kwargs["hidden_states"]  # noqa: E731
    hook = lambda module, args, kwargs, out: found.append((take(args, kwargs), out if torch.is_tensor(out) else out[0]))  # noqa: E731
    handle = decoder_layers(model)[i].get_submodule(name).register_forward_hook(hook, with_kwargs=True)
    for batch in batches():
        logits(model, batch)
    handle.remove()
    return [torch.cat([pair[k].flatten(0, 1) for pair in found]).double().numpy() for k in (0, 1)]


def weighted(x, y):
    """Predictions of a map at full rank, by weighted least squares without normal equations or ridge."""
    return np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0]


def test_a_map_of_low_rank_is_the_full_one_cut_where_it_predicts_least():
    model = build_tiny()
    sums, full = _fitted(model, {"attention": [2]}, batches())["attention", 2]
    first, second, constant = _low_rank(sums, full, 5)
    assert first.shape == (32, 5) and torch.equal(constant, full[-1])
    root = torch.linalg.cholesky(sums.square[:-1, :-1] + 1e-12 * torch.eye(32, dtype=torch.float64))
    u, s, v = torch.linalg.svd(root.T @ full[:-1])
    best = u[:, :5] * s[:5] @ v[:5]  # Eckart-Young, in the metric of the text
    torch.testing.assert_close(root.T @ first @ second, best, atol=1e-8, rtol=1e-6)
    whole = _low_rank(sums, full, 32)
    torch.testing.assert_close(whole[0] @ whole[1], full[:-1])


def test_a_shared_basis_of_full_rank_gives_each_branch_its_own_map():
    fits = _fitted(build_tiny(), {"ffn": [1, 4]}, batches())
    here = {i: fits["ffn", i] for i in (1, 4)}
    maps = _shared_basis(here, 32)
    assert maps[1][0] is maps[4][0]
    for i, (first, second, constant) in maps.items():
        torch.testing.assert_close(first @ second, here[i][1][:-1], atol=1e-6, rtol=1e-5)
        assert torch.equal(constant, here[i][1][-1])


def test_a_linear_branch_is_replaced_without_loss():
    """An FFN that is a linear map: nothing is lost at full rank."""
    model = build_tiny("gpt2")
    for layer in decoder_layers(model):
        layer.mlp.act = torch.nn.Identity()
    x, y = seen(model, 2, "mlp")
    np.testing.assert_allclose(np.c_[x, np.ones(len(x))] @ weighted(x, y), y, atol=1e-3)
    sums, full = _fitted(model, {"ffn": [2]}, batches())["ffn", 2]
    assert sums.error(full) < 0.05 * float(sums.total)  # the ridge's share


@pytest.mark.parametrize("family", PLAIN)
def test_subfit_is_nearer_than_cutting_the_same_branches_and_adds_a_tenth(family):
    model, before = build_tiny(family), logits(build_tiny(family))
    replaced = subfit(model, 2, batches(8), share=0.5)
    cut = remove_sublayers(model, **lowest_branches(model, 2, batches(8)))
    assert torch.equal(logits(model), before)
    kept = logits(model).softmax(-1)

    def divergence(other):
        return float((kept * (kept.log() - logits(other).log_softmax(-1))).sum(-1).mean())

    assert divergence(replaced) < divergence(cut)


def test_bypasses_write_with_and_without_a_cache_alike():
    replaced = subfit(build_tiny(), 2, batches())
    settings = GenerationConfig(max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=-1)
    cached, uncached = (
        replaced.generate(**random_batch(2, 7), generation_config=settings, use_cache=use) for use in (True, False)
    )
    assert torch.equal(cached, uncached)


@pytest.mark.parametrize("family", PLAIN)
def test_pairing_what_is_left_of_whole_layers_is_removing_these(family):
    model = build_tiny(family)
    torch.testing.assert_close(logits(paired(model, [1, 4], [1, 4])), logits(remove_layers(model, [1, 4])))


def test_a_pair_takes_its_ffn_from_another_layer():
    model = build_tiny()
    stack = decoder_layers(paired(model, [1], [4]))
    dense = decoder_layers(model)
    for layer, a, f in zip(stack, (0, 2, 3, 4, 5), (0, 1, 2, 3, 5), strict=True):
        assert layer.self_attn.q_proj.weight is dense[a].self_attn.q_proj.weight
        assert layer.input_layernorm.weight is dense[a].input_layernorm.weight
        assert layer.mlp.up_proj.weight is dense[f].mlp.up_proj.weight
        assert layer.post_attention_layernorm.weight is dense[f].post_attention_layernorm.weight
    with pytest.raises(ValueError, match="as many attentions as FFNs"):
        paired(model, [1], [])


def test_the_parts_of_an_ffn_are_what_runs_for_it():
    assert ffn_parts(build_tiny(), 0) == ["post_attention_layernorm", "mlp"]
    assert ffn_parts(build_tiny("gemma3_text"), 1) == [
        "pre_feedforward_layernorm",
        "mlp",
        "post_feedforward_layernorm",
    ]
    assert ffn_parts(build_tiny("gpt2"), 1) == ["ln_2", "mlp"]


@pytest.mark.parametrize("family", ("llama", "qwen3"))
def test_a_paired_model_is_an_ordinary_checkpoint_and_repaired(tmp_path, family):
    model = build_tiny(family)
    repaired = heal_paired(model, 2, batches())
    assert len(decoder_layers(repaired)) == LAYERS - 2
    save(repaired, tmp_path / "model")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(logits(again), logits(repaired), atol=1e-5, rtol=1e-5)
