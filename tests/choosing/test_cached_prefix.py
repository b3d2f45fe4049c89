"""Layers that stand still: the model's own forward goes through the others, and is whole again afterwards."""

import pytest
import torch
from references import identity_logits, logits
from small import LAYERS, build_tiny, random_batch

from shortgpt import decoder_layers, hidden_states, remove_layers
from shortgpt.choosing.cached_prefix import copied, stand_ins
from shortgpt.model.view import share_weights

BATCH = random_batch()


def forwards(model) -> list:
    return [(name, vars(m).get("forward"), len(m._forward_hooks)) for name, m in model.named_modules()]


@pytest.mark.parametrize("removed", [[], [2], [0, 1, 5], range(LAYERS)], ids=str)
def test_removed_layers_do_nothing(removed):
    model = build_tiny()
    expected = identity_logits(model, BATCH, list(removed))
    before = forwards(model)
    with stand_ins(decoder_layers(model), [0] * LAYERS, removed, []):
        torch.testing.assert_close(logits(model, BATCH), expected, atol=2e-5, rtol=1e-4)
    assert forwards(model) == before


@pytest.mark.parametrize("known", range(1, LAYERS + 1))
def test_the_first_layers_end_in_the_state_that_is_known(known):
    """With the states of the dense model the result is the dense model's; with others it is not."""
    model = build_tiny()
    dense, states = logits(model, BATCH), hidden_states(model, BATCH)
    kept = list(states[1 : known + 1])
    stack = decoder_layers(model)
    with stand_ins(stack, [0] * LAYERS, [], kept):
        torch.testing.assert_close(logits(model, BATCH), dense, atol=1e-5, rtol=1e-4)
        assert torch.equal(kept[-1], states[known])  # nobody wrote into what the caller keeps
    with stand_ins(stack, [0] * LAYERS, [], [*kept[:-1], kept[-1] + 1]):
        assert not torch.allclose(logits(model, BATCH), dense, atol=1e-3)


def test_what_was_there_comes_back_also_after_an_exception():
    model = build_tiny()
    own = model.model.layers[1].forward
    model.model.layers[1].forward = own  # as accelerate has it
    before = forwards(model)
    with pytest.raises(KeyError), stand_ins(decoder_layers(model), [2] * LAYERS, [1, 3], []):
        assert vars(model.model.layers[1])["forward"] is not own
        raise KeyError
    assert forwards(model) == before and vars(model.model.layers[1])["forward"] is own


def test_a_layer_of_several_values_hands_on_those_of_the_last_that_ran():
    class Layer(torch.nn.Module):
        def forward(self, x):
            return x + 1, "weights", "cache"

    stack = [Layer() for _ in range(3)]
    with stand_ins(stack, [3, 3, 3], [0, 2], []):
        x = torch.zeros(2)
        assert stack[0](x) == (x, None, None)  # nothing ran yet
        first = stack[1](x)
        assert torch.equal(first[0], x + 1)
        assert stack[2](hidden_states=x) == (x, "weights", "cache")


def test_copies_have_memory_of_their_own_and_may_leave_attention_maps_out():
    states, maps = torch.ones(1, 2, 3), torch.ones(1, 4, 2, 2)
    for copy in (copied(states), copied((states, maps))[0]):
        assert torch.equal(copy, states) and copy.data_ptr() != states.data_ptr()
    assert copied((states, maps))[1] is maps and copied((states, maps), whole=False)[1] is None


@pytest.mark.parametrize("removed", [[], [3], [4, 5]])
def test_a_state_that_is_known_takes_the_place_of_the_layers_before_it(removed):
    view, batch = share_weights(build_tiny()), random_batch()
    expected = logits(remove_layers(view, removed), batch | {"use_cache": False})
    kept = list(hidden_states(view, batch)[1:4])  # what leaves layers 0, 1 and 2
    ran = []
    for i, layer in enumerate(decoder_layers(view)):
        layer.mlp.register_forward_hook(lambda module, args, output, i=i: ran.append(i))
    with stand_ins(decoder_layers(view), [0] * LAYERS, removed, kept):
        assert torch.equal(logits(view, batch | {"use_cache": False}), expected)
    assert ran == [i for i in (3, 4, 5) if i not in removed]
