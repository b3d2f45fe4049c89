"""What quantizing says when it is called wrongly."""

import pytest
from architectures import tiny_model
from bad_input import BATCHES, MODEL, batches, check, count, forgotten, gpt2, no_model, no_weights, wrong

from shortgpt import quantize

CASES = wrong(
    quantize,
    {"model": MODEL},
    no_model(),
    ({"bits": 3}, ValueError, "bits must be 8 or 4, got 3"),
    ({"bits": "8"}, ValueError, "bits must be 8 or 4, got '8'"),
    ({"bits": [8]}, ValueError, "bits must be 8 or 4, got list"),
    (
        {"model": lambda w: quantize(w.model)},
        ValueError,
        "quantized already: quantize the original",
    ),
    ({"model": lambda w: tiny_model("mamba")}, ValueError, "MambaForCausalLM uses the .*nf4"),
    no_weights(),
    no_weights(bits=4),
    ({"method": "awq"}, ValueError, "unknown method 'awq': choose .*gptq"),
    ({"method": 8}, ValueError, "unknown method 8: choose one of int8"),
    ({"method": "nf4"}, ValueError, "'nf4' has 4 bits, got bits=8"),
    ({"method": "gptq"}, ValueError, "'gptq' has 4 bits, got bits=8"),
    ({"bits": 4, "method": "gptq"}, ValueError, "'gptq' needs text: pass calib"),
    ({"bits": 4, "calibration": BATCHES}, ValueError, "uses no calibration text"),
    *batches("calibration", bits=4, method="gptq"),
    ({"group_size": 32}, ValueError, "has groups of its own"),
    count("group_size", method="rtn"),
    (
        {"bits": 4, "method": "rtn", "group_size": 48},
        ValueError,
        "groups of 48 weights don't fit model.layers.0.self_attn.q_proj, which has 32 inputs",
    ),
    (
        {"model": gpt2, "bits": 4, "method": "rtn"},
        ValueError,
        "GPT2LMHeadModel keeps its weights in other modules than linear layers",
    ),
    ({"model": gpt2}, ValueError, "nothing would be quantized: use bits=4, method='nf4'"),
)
REASONS = {}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_wrong_call_is_one_sentence_and_changes_nothing(case, world):
    check(case, world)


def test_every_parameter_is_asked():
    assert not forgotten("quantization", CASES, REASONS)
