"""Watching layers as they run: what is reported, in what order, and that nothing of it stays behind."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, strategies as st
from small import HIDDEN, LAYERS, build_tiny, random_batch
from torch import nn

from shortgpt import decoder_layers, hidden_states, remove_layers, watch_layers
from shortgpt.model.hooks import by_token, eval_mode, hooked, layer_input, layer_output


class Notes(list):
    def __call__(self, layer, x_in, x_out):
        self.append((layer, x_in.clone(), x_out.clone()))

    @property
    def layers(self) -> list[int]:
        return [layer for layer, _, _ in self]


def hooks_of(model) -> dict:
    return {name: (dict(m._forward_hooks), dict(m._forward_pre_hooks)) for name, m in model.named_modules()}


@torch.no_grad()
def watched(model, batch, notes=None):
    notes = Notes() if notes is None else notes
    with watch_layers(model, notes) as layers:
        assert layers == len(decoder_layers(model))
        model(**batch)
    return notes


# ---- what is reported ------------------------------------------------------------------------------------------------
def test_layers_are_reported_in_their_order_with_the_models_own_states(family_model, batch):
    notes = watched(family_model, batch)
    assert notes.layers == list(range(LAYERS))
    for _, x_in, x_out in notes:
        assert x_in.shape == x_out.shape == (3, 16, HIDDEN) and x_in.dtype == x_out.dtype == torch.float32
    for (_, _, x_out), (_, x_in, _) in pairwise(notes):
        assert torch.equal(x_out, x_in)  # what leaves a layer enters the next one


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_states_have_the_models_dtype(dtype, batch):
    notes = watched(build_tiny().to(dtype), batch)
    assert {state.dtype for _, *states in notes for state in states} == {dtype}


def test_it_sees_what_plain_hooks_see(family_model, batch):
    plain, handles = [], []
    for layer in decoder_layers(family_model):

        def note(module, args, kwargs, output):
            x_out = output if isinstance(output, torch.Tensor) else output[0]
            plain.append(((args[0] if args else kwargs["hidden_states"]).clone(), x_out.clone()))

        handles.append(layer.register_forward_hook(note, with_kwargs=True))
    notes = watched(family_model, batch)
    for handle in handles:
        handle.remove()
    assert len(plain) == len(notes)
    for (_, *mine), theirs in zip(notes, plain, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_it_sees_what_transformers_hands_out_except_behind_the_final_norm(family_model, batch):
    notes = watched(family_model, batch)
    with torch.no_grad():
        theirs = family_model(**batch, output_hidden_states=True).hidden_states
    assert all(torch.equal(x_in, theirs[layer]) for layer, x_in, _ in notes)
    assert not torch.allclose(notes[-1][2], theirs[-1])  # that one is behind the norm
    states = hidden_states(family_model, batch)
    torch.testing.assert_close(states, torch.stack([notes[0][1], *(x_out for _, _, x_out in notes)]))


def test_layers_that_return_a_tuple(tiny, batch):
    expected = watched(tiny, batch)
    for layer in tiny.model.layers:  # as older transformers, and some architectures, have them
        forward = layer.forward
        layer.forward = lambda *args, forward=forward, **kwargs: (forward(*args, **kwargs), "attention")
    notes = Notes()
    with torch.no_grad(), watch_layers(tiny, notes):
        x = tiny.model.embed_tokens(batch["input_ids"])
        where = tiny.model.rotary_emb(x, torch.arange(16)[None])
        for layer in tiny.model.layers:
            x, _ = layer(hidden_states=x, attention_mask=None, position_embeddings=where)
    assert notes.layers == list(range(LAYERS))
    for note, plain in zip(notes, expected, strict=True):  # without a mask the layers are causal by themselves
        torch.testing.assert_close(note[1:], plain[1:], atol=1e-5, rtol=1e-4)


def test_in_generation_with_a_cache_a_step_is_one_token(tiny):
    prompt, notes = random_batch(rows=2, tokens=5), Notes()
    with watch_layers(tiny, notes):
        out = tiny.generate(**prompt, max_new_tokens=4, do_sample=False, eos_token_id=-1)
    assert out.shape == (2, 9) and notes.layers == [*range(LAYERS)] * 4
    assert [x_in.shape[1] for _, x_in, _ in notes] == [5] * LAYERS + [1] * 3 * LAYERS
    full = watched(tiny, {"input_ids": out[:, :-1], "attention_mask": torch.ones(2, 8, dtype=torch.long)})
    for layer in range(LAYERS):  # the cached steps are the columns of the pass over the whole text
        steps = torch.cat([x_out for i, _, x_out in notes if i == layer], dim=1)
        torch.testing.assert_close(steps, full[layer][2], atol=1e-5, rtol=1e-4)


def test_a_pruned_view_counts_its_own_layers(tiny, batch):
    pruned = remove_layers(tiny, [1, 4])
    notes = watched(pruned, batch)
    assert notes.layers == [0, 1, 2, 3]
    assert torch.equal(notes[0][2], watched(tiny, batch)[0][2])
    assert watched(tiny, batch).layers == list(range(LAYERS)) and not any(any(h) for h in hooks_of(pruned).values())


# ---- nothing stays behind --------------------------------------------------------------------------------------------
def test_only_ours_are_removed_also_after_an_exception(tiny, batch):
    tiny.model.layers[2].register_forward_hook(lambda *given: None)
    tiny.model.layers[3].register_forward_pre_hook(lambda *given: None)
    before = hooks_of(tiny)
    watched(tiny, batch)
    assert hooks_of(tiny) == before

    def stop(layer, x_in, x_out):
        if layer == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), watch_layers(tiny, stop):
        tiny(**batch)
    assert hooks_of(tiny) == before
    with pytest.raises(ZeroDivisionError), watch_layers(tiny, stop):
        raise ZeroDivisionError
    assert hooks_of(tiny) == before
    assert watched(tiny, batch).layers == list(range(LAYERS))


def test_one_inside_the_other(tiny, batch):
    outer, inner = Notes(), Notes()
    with torch.no_grad(), watch_layers(tiny, outer):
        with watch_layers(tiny, inner):
            tiny(**batch)
        tiny(**batch)
    assert inner.layers == [*range(LAYERS)] and outer.layers == [*range(LAYERS)] * 2


def test_the_mode_and_the_gradients_are_left_alone(tiny, batch):
    tiny.train()
    tiny.model.layers[1].eval()
    modes = {name: m.training for name, m in tiny.named_modules()}
    asked = []
    with watch_layers(tiny, lambda layer, x_in, x_out: asked.append(x_out.requires_grad)):
        tiny(**batch).logits.sum().backward()
    assert {name: m.training for name, m in tiny.named_modules()} == modes
    assert asked == [True] * LAYERS and all(p.grad is not None for p in tiny.parameters())


# ---- the parts it is made of -----------------------------------------------------------------------------------------
def test_eval_mode_gives_each_module_its_own_mode_back(tiny):
    tiny.train()
    tiny.model.layers[1].eval()
    modes = {name: m.training for name, m in tiny.named_modules()}
    with eval_mode(tiny):
        assert not any(m.training for m in tiny.modules())
    assert {name: m.training for name, m in tiny.named_modules()} == modes
    with pytest.raises(KeyError), eval_mode(tiny):
        raise KeyError
    assert {name: m.training for name, m in tiny.named_modules()} == modes


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3), st.integers(1, 6))
def test_by_token_brings_every_layout_to_batch_tokens_features(rows, tokens, streams, width):
    mask = torch.ones(rows, tokens, dtype=torch.long)
    states = torch.arange(rows * tokens * width).reshape(rows, tokens, width)
    assert by_token(states, mask) is states
    many = torch.arange(rows * tokens * streams * width).reshape(rows, tokens, streams, width)  # DeepSeek-V4
    assert torch.equal(by_token(many, mask), many.flatten(2))
    if streams not in (rows, tokens):  # else the axes can't be told apart by their lengths
        first = many.movedim(2, 0)  # Gemma 3n: the streams first
        assert torch.equal(by_token(first, mask), many.flatten(2))
    if rows != tokens:
        assert torch.equal(by_token(states.transpose(0, 1), mask), states)  # XLNet


@pytest.mark.parametrize("shape", [(6,), (6, 8), (2, 4, 8), (3, 3, 8)])
def test_by_token_refuses_what_holds_no_state_for_each_token(shape):
    with pytest.raises(ValueError, match="does not hold one state for each of the 2 x 3 tokens"):
        by_token(torch.ones(shape), torch.ones(2, 3))


def test_a_layers_states_are_found_however_they_are_handed_over():
    x, other = torch.ones(1, 2, 3), torch.zeros(1)
    assert layer_input((x, other), {}) is x and layer_input((), {"hidden_states": x, "mask": other}) is x
    assert layer_output(x) is x and layer_output((x, other)) is x and layer_output((x,)) is x


def test_hooked_tells_positions_and_may_change_what_passes():
    parts, seen = [nn.Identity(), nn.Identity()], []
    with hooked(parts, lambda i, module, args, kwargs, out: seen.append((i, module, out)) or out + 1) as several:
        assert several == 2 and parts[1](parts[0](0)) == 2
    assert seen == [(0, parts[0], 0), (1, parts[1], 1)]
    with hooked(parts[:1], lambda i, module, args, kwargs: ((args[0] * 10,), kwargs), before=True):
        assert parts[0](3) == 30
    assert parts[0](3) == 3


def test_hooks_are_removed_if_not_all_could_be_set():
    part = nn.Identity()
    with pytest.raises(AttributeError), hooked([part, None], print):
        pass
    assert not part._forward_hooks
