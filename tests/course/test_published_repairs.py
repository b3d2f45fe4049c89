"""Each published repair gives what its paper's formula gives, computed here from the dense states in another way."""

import numpy as np
import pytest
import torch
from small import LAYERS, build_tiny, random_batch
from transformers import AutoModelForCausalLM

from shortgpt import decoder_layers, heal, hidden_states, remove_layers, save
from shortgpt.course.studies.published_repairs import (
    EPSILON,
    METHODS,
    ghosted_layers,
    hadamard,
    linear_patch,
    prune_and_comp,
    replace_me,
    scale_stream,
)
from shortgpt.repair.patches import add_patches

GAP = [2, 3]


def batches():
    return [random_batch(3, 24, seed=seed) for seed in range(4)]


def rows_at(model, depth):
    """The dense states at a depth, ``[samples, tokens, hidden]``."""
    return torch.cat([hidden_states(model, batch)[depth] for batch in batches()]).double().numpy()


def logits(model):
    with torch.no_grad():
        return model(**random_batch(seed=9)).logits


def patched(model, matrix, at=1):
    """The cut model with ``x -> x matrix`` behind a layer, by a plain hook."""
    pruned = remove_layers(model, GAP)
    matrix = torch.tensor(matrix, dtype=torch.float32)
    apply = lambda module, args, output: output @ matrix  # noqa: E731
    handle = decoder_layers(pruned)[at].register_forward_hook(apply)
    out = logits(pruned)
    handle.remove()
    return out


@pytest.mark.parametrize("n", [1, 2, 4, 12, 20, 32, 72, 576, 640])
def test_hadamard_matrices_are_orthogonal_with_entries_of_one_size(n):
    matrix = hadamard(n)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(n, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(matrix.abs(), torch.full((n, n), n**-0.5, dtype=torch.float64))


def test_linear_patch_scales_the_channels_of_the_rotated_state():
    model, rotation = build_tiny(), hadamard(32).numpy()
    before, after = (np.abs(rows_at(model, depth) @ rotation).mean(1) for depth in (2, 4))
    d = (after / before).mean(0)
    out = logits(linear_patch(model, GAP, batches()))
    torch.testing.assert_close(out, patched(model, rotation @ np.diag(d) @ rotation.T), atol=2e-4, rtol=1e-4)


def test_ghosted_layers_are_least_squares_with_absolute_errors():
    model = build_tiny()
    before, after = (rows_at(model, depth).reshape(-1, 32) for depth in (2, 4))
    m = np.linalg.lstsq(
        np.concatenate([before, EPSILON**0.5 * np.eye(32)]),
        np.concatenate([after - before, np.zeros((32, 32))]),
        rcond=None,
    )[0]
    torch.testing.assert_close(
        logits(ghosted_layers(model, GAP, batches())), patched(model, np.eye(32) + m), atol=2e-4, rtol=1e-4
    )


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_replace_me_maps_what_the_ffn_adds(family):
    model, added = build_tiny(family), []
    name = next(n for n, _ in decoder_layers(model)[1].named_modules() if n.endswith(("down_proj", "mlp.c_proj")))
    projection = decoder_layers(model)[1].get_submodule(name)
    with torch.no_grad():
        if family == "gpt2":
            projection.bias.uniform_(-1, 1)
    handle = projection.register_forward_hook(lambda module, args, output: added.append(output))
    goal, state = (rows_at(model, depth).reshape(-1, 32) for depth in (4, 2))
    handle.remove()
    m = torch.cat(added[: len(batches())]).double().numpy().reshape(-1, 32)
    t = np.linalg.lstsq(m, goal - (state - m), rcond=None)[0]
    repaired = decoder_layers(replace_me(model, GAP, batches()))[1].get_submodule(name)
    old, new = (w.weight.detach().double().numpy() for w in (projection, repaired))
    np.testing.assert_allclose(new, old @ t if family == "gpt2" else t.T @ old, atol=1e-4)
    if family == "gpt2":
        np.testing.assert_allclose(repaired.bias.detach().numpy(), projection.bias.detach().numpy() @ t, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_prune_and_comp_multiplies_the_state_by_one_number(family):
    model = build_tiny(family)
    before, after = (np.abs(rows_at(model, depth)).mean(1) for depth in (2, 4))
    a = (after / before).mean()
    assert abs(a - 1) > 0.02
    identity = torch.eye(32, dtype=torch.float64)
    cut = remove_layers(model, GAP)
    by_patch = add_patches(cut, {1: torch.cat([(a - 1) * identity, torch.zeros(1, 32)])})
    torch.testing.assert_close(logits(prune_and_comp(model, GAP, batches())), logits(by_patch), atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("tied", [True, False])
def test_scaling_the_stream_by_one_and_back_is_nothing_and_leaves_the_dense_model_alone(tied):
    from transformers import AutoConfig

    config = build_tiny().config.to_dict() | {"tie_word_embeddings": tied}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).eval()
    view, before = remove_layers(model, []), logits(model)
    scale_stream(view, 2, 3.0)
    assert torch.equal(logits(model), before)
    patch = torch.cat([2 * torch.eye(32), torch.zeros(1, 32)])
    torch.testing.assert_close(
        logits(view), logits(add_patches(remove_layers(model, []), {2: patch})), atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("method", ["prune_and_comp", "replace_me"])
def test_what_is_folded_is_an_ordinary_checkpoint(tmp_path, method):
    repaired = METHODS[method](build_tiny(), [1, 4], batches())
    save(repaired, tmp_path / "model")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(logits(again), logits(repaired), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_all_of_them_repair_every_gap_and_leave_the_model_alone(method):
    model = build_tiny()
    before = logits(model)
    repaired = METHODS[method](model, [1, 4, LAYERS - 1], batches())
    assert torch.equal(logits(model), before) and torch.isfinite(logits(repaired)).all()
    assert not torch.allclose(logits(repaired), logits(remove_layers(model, [1, 4, LAYERS - 1])))


def test_the_free_fold_is_nearer_on_its_own_text_than_the_restricted_one():
    """`heal` reads the inputs of the projection, of which the FFN's output is a linear map."""
    model = build_tiny()
    goal = rows_at(model, 4)

    def error(other):
        x = torch.cat([hidden_states(other, batch)[2] for batch in batches()]).double().numpy()
        return (((x - goal) ** 2).sum(-1) / (goal**2).sum(-1)).mean()

    ours = error(heal(model, GAP, batches(), progress=False))
    assert ours < error(replace_me(model, GAP, batches()))
