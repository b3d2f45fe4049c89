"""States that grow as we say: theory on layers that do what it assumes, and on some that don't."""

import numpy as np
import pytest
import torch
from small import random_batch
from tiny_twins import DEPTH, OWN, WIDTH, tiny_kind

from shortgpt import decoder_layers, remove_layers
from shortgpt.course.studies.growth import pre_norm_growth, state_growth

BATCH = random_batch(rows=3, tokens=8)


def adding(directions: torch.Tensor):
    """A model whose layer l adds ``directions[l]`` to every state; embeddings are 3 along the last axis."""
    model = tiny_kind("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight.zero_()[:, -1] = 3
    for layer, direction in zip(model.model.layers, directions, strict=True):
        layer.forward = lambda hidden_states, *args, direction=direction, **kwargs: hidden_states + direction
    return model


def test_layers_at_right_angles_grow_as_the_root():
    table = state_growth(adding(2 * torch.eye(WIDTH)[:DEPTH]), [BATCH])
    norms = np.sqrt(9 + 4 * np.arange(DEPTH + 1))
    np.testing.assert_allclose(table["norm_in"], norms[:-1], rtol=1e-6)
    np.testing.assert_allclose(table["norm_out"], norms[1:], rtol=1e-6)
    np.testing.assert_allclose(table["cosine"], norms[:-1] / norms[1:], rtol=1e-6)
    np.testing.assert_allclose(table["branch_rms"], 2, rtol=1e-6)
    np.testing.assert_allclose(table["expected_norm"], table["norm_out"], rtol=1e-6)
    np.testing.assert_allclose(table["expected_cosine"], table["cosine"], rtol=1e-6)


def test_layers_that_agree_grow_faster_than_theory():
    table = state_growth(adding(torch.ones(DEPTH, WIDTH) / WIDTH**0.5), [BATCH])
    assert table["norm_out"].iloc[-1] > 1.5 * table["expected_norm"].iloc[-1]


def test_theory_in_closed_form():
    table = pre_norm_growth(4)
    np.testing.assert_allclose(table["expected_norm"], np.sqrt([1, 2, 3, 4]))
    np.testing.assert_allclose(table["expected_cosine"], [np.nan, (1 / 2) ** 0.5, (2 / 3) ** 0.5, (3 / 4) ** 0.5])
    draws = np.random.default_rng(0).standard_normal((5, 20_000, 64)) / 8  # five branches of length 1, at random
    norms = np.linalg.norm(draws.cumsum(0), axis=-1).mean(1)
    np.testing.assert_allclose(pre_norm_growth(5)["expected_norm"], norms, rtol=0.01)


@pytest.mark.parametrize("kind", OWN)
def test_what_is_measured_are_the_states_of_the_model(kind):
    model, norms = tiny_kind(kind), []
    table = state_growth(model, [BATCH])

    def note(layer: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        norms.append([*args, *kwargs.values()][0][:, 1:].norm(dim=-1).median().item())

    for layer in decoder_layers(model):
        layer.register_forward_pre_hook(note, with_kwargs=True)
    model.train()(**BATCH)  # RWKV halves its states behind every second layer, but not in training
    np.testing.assert_allclose(table["norm_in"], norms, rtol=1e-4)
    assert table["layer"].tolist() == list(range(DEPTH))


def test_layers_keep_the_numbers_of_the_dense_model():
    assert state_growth(remove_layers(tiny_kind("llama"), [1, 2]), [BATCH])["layer"].tolist() == [0, 3, 4, 5]
