"""What of a layer can be made narrower: which matrices belong together, and how many units they have."""

import pytest
import torch
from small import HIDDEN, build_tiny
from torch import nn

from shortgpt.pruning.width_units import find_width


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_the_matrices_of_an_ffn_and_of_attention(family):
    model = build_tiny(family)
    layer = model.model.layers[3]
    ffn, heads = find_width(model, 3, "channels"), find_width(model, 3, "heads")
    assert ffn.out is layer.mlp.down_proj and {*ffn.into} == {layer.mlp.gate_proj, layer.mlp.up_proj}
    assert ffn.units == 64 and ffn.parameters == 3 * 64 * HIDDEN
    attention = layer.self_attn
    assert heads.out is attention.o_proj and {*heads.into} == {attention.q_proj, attention.k_proj, attention.v_proj}
    assert heads.units == 2  # a unit is what shares one key and value: two of the four heads
    bias = sum(p.numel() for name, p in attention.named_parameters() if name.endswith("bias"))
    assert heads.parameters == (2 * 32 + 2 * 16) * HIDDEN + bias


def test_units_of_all_their_weights():
    model = build_tiny()
    width, mlp = find_width(model, 0, "channels"), model.model.layers[0].mlp
    columns = mlp.down_proj.weight.detach().double().square().sum(0)
    rows = sum(m.weight.detach().double().square().sum(1) for m in (mlp.gate_proj, mlp.up_proj))
    torch.testing.assert_close(torch.tensor(width.column_squared()), columns)
    torch.testing.assert_close(torch.tensor(width.weights_squared()), columns + rows)


def test_rows_of_the_units_that_stay():
    heads = find_width(build_tiny(), 0, "heads")
    assert heads.kept(torch.tensor([1]), 16).tolist() == list(range(8, 16))  # k and v: 8 rows a unit
    assert heads.kept(torch.tensor([0]), 32).tolist() == list(range(16))  # q: two heads of 8


@pytest.mark.parametrize("kind", ["channels", "heads"])
def test_what_has_other_sizes_is_refused(kind):
    model = build_tiny()
    layer = model.model.layers[2]
    layer.mlp.gate_proj = nn.Linear(HIDDEN, 60)
    layer.self_attn.k_proj = nn.Linear(HIDDEN, 12)
    with pytest.raises(
        ValueError, match=f"layer 2 .LlamaDecoderLayer. has no {kind} that this can remove: its matrices"
    ):
        find_width(model, 2, kind)
    layer.mlp.gate_proj = layer.self_attn.k_proj = nn.Identity()
    layer.mlp.up_proj = layer.self_attn.v_proj = nn.Identity()
    with pytest.raises(ValueError, match=f"layer 2 .LlamaDecoderLayer. has no {kind} that this can remove: it takes"):
        find_width(model, 2, kind)
