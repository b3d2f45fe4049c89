"""A layer run again without one of its branches, and what the probe of all architectures rests on."""

import pytest
import torch
from small import build_tiny, random_batch

from shortgpt.model.branches import probe_sublayers, record, rerun, sublayers

BATCH = random_batch(rows=2, tokens=5)


@torch.no_grad()
def seen(model, index=2):
    """The layer, what entered it, what its sublayers gave, and what left it."""
    found = []
    with record(model, [index], lambda i, *rest: found.append(rest)):
        model(**BATCH)
    return found[0]


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_a_rerun_is_the_sum_of_the_branches_that_are_left(family):
    """Pre-norm layers add: out = x + attention + ffn, whatever each of them was given."""
    layer, inputs, outputs, out = seen(build_tiny(family))
    names = sublayers(layer)
    x = inputs[0][0] if inputs[0] else inputs[1]["hidden_states"]
    (attention,), (ffn,) = names["attention"], names["ffn"]
    given = {name: output if isinstance(output, torch.Tensor) else output[0] for name, output in outputs.items()}
    for without, expected in [
        ([], x + given[attention] + given[ffn]),
        ([ffn], x + given[attention]),
        ([attention], x + given[ffn]),
        ([attention, ffn], x),
    ]:
        result = rerun(layer, inputs, outputs, without)
        result = result if isinstance(result, torch.Tensor) else result[0]
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)
    out = out if isinstance(out, torch.Tensor) else out[0]
    torch.testing.assert_close(x + given[attention] + given[ffn], out, atol=1e-5, rtol=1e-5)


def test_a_rerun_leaves_the_layer_as_it_was_also_after_an_exception():
    layer, inputs, outputs, _ = seen(build_tiny())
    own = layer.mlp.forward
    layer.mlp.forward = own  # as accelerate has it: an attribute of the module itself
    rerun(layer, inputs, outputs, ["mlp"])
    assert vars(layer.mlp)["forward"] is own and "forward" not in vars(layer.self_attn)
    with pytest.raises(TypeError):
        rerun(layer, ((), {}), outputs, ["mlp"])
    assert vars(layer.mlp)["forward"] is own and "forward" not in vars(layer.self_attn)


def test_the_probe_finds_branches_that_only_add():
    counts, separate = probe_sublayers(build_tiny(), [0, 3])
    assert separate == {0, 3} and counts == {"LlamaAttention": 2, "LlamaMLP": 0}
