"""Patches: ``x + [x, 1] D`` behind a layer of a view, and nothing on the model they were put on."""

import torch
from small import build_tiny, random_batch

from shortgpt import decoder_layers, hidden_states
from shortgpt.repair.patches import NAME, add_patches, empty_patches


def test_a_patch_adds_its_map_to_what_leaves_the_layer():
    model, batch = build_tiny(), random_batch()
    width = model.config.hidden_size
    solution = torch.randn(width + 1, width, generator=torch.Generator().manual_seed(0)) / width
    before, after = hidden_states(model, batch), hidden_states(add_patches(model, {2: solution}), batch)
    x = before[3]
    torch.testing.assert_close(after[3], x + x @ solution[:-1] + solution[-1], atol=1e-5, rtol=1e-5)
    assert torch.equal(after[:3], before[:3]) and torch.equal(hidden_states(model, batch), before)
    assert not hasattr(decoder_layers(model)[2], NAME)


def test_empty_patches_change_nothing():
    model, batch = build_tiny(), random_batch()
    patched = add_patches(model, empty_patches([0, 4], model.config.hidden_size))
    assert torch.equal(hidden_states(patched, batch), hidden_states(model, batch))
