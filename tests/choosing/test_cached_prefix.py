"""Layers that stand still, in the model's own forward: what comes out, and that nothing stays behind."""

import pytest
import torch
from small import LAYERS, build_tiny, random_batch

from shortgpt import decoder_layers, hidden_states, remove_layers
from shortgpt.choosing.cached_prefix import copied, stand_ins
from shortgpt.model.view import share_weights


def logits(model, batch):
    with torch.no_grad():
        return model(**batch, use_cache=False).logits


@pytest.mark.parametrize("removed", [[], [3], [4, 5]])
def test_a_state_that_is_known_takes_the_place_of_the_layers_before_it(removed):
    view, batch = share_weights(build_tiny()), random_batch()
    expected = logits(remove_layers(view, removed), batch)
    kept = list(hidden_states(view, batch)[1:4])  # what leaves layers 0, 1 and 2
    ran = []
    for i, layer in enumerate(decoder_layers(view)):
        layer.mlp.register_forward_hook(lambda module, args, output, i=i: ran.append(i))
    with stand_ins(decoder_layers(view), [0] * LAYERS, removed, kept):
        assert torch.equal(logits(view, batch), expected)
    assert ran == [i for i in (3, 4, 5) if i not in removed]


def test_stand_ins_go_also_after_an_error_and_leave_what_was_there():
    view = share_weights(build_tiny())
    first, *others = decoder_layers(view)
    mine = first.forward = first.forward  # as accelerate puts one on the layer
    with pytest.raises(RuntimeError, match="stop"), stand_ins([first, *others], [0] * LAYERS, [0, 2], []):
        assert first.forward is not mine
        raise RuntimeError("stop")
    assert vars(first)["forward"] is mine and not any("forward" in vars(layer) for layer in others)


def test_a_copy_is_memory_of_its_own_and_may_leave_attention_maps_out():
    states, maps = torch.ones(1, 2, 3), torch.ones(1, 4, 2, 2)
    copy = copied((states, maps), whole=False)
    copy[0].zero_()
    assert states.all() and copy[1] is None and copied((states, maps))[1] is maps
