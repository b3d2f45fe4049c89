"""The command in this process, and a tiny model for it (the working folder is a fixture in cli/conftest.py)."""

import json
import os
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import NamedTuple
from unittest import mock

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from shortgpt.cli import main

LAYERS = 12  # enough for the layer numbers in the examples
TEXT = "the tide came in over the flats and the boats rose with it. "


def tiny_model(seed=0):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=96, num_hidden_layers=LAYERS, initializer_range=0.3, **sizes)
    return LlamaForCausalLM(config).eval()


class Ran(NamedTuple):
    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self):
        return self.stdout + self.stderr


def run(*arguments, **environment):
    """The command in this process, which keeps its own environment."""
    out, err = StringIO(), StringIO()
    with mock.patch.dict(os.environ, environment), redirect_stdout(out), redirect_stderr(err):
        code = main([str(a) for a in arguments])
    return Ran(code, out.getvalue(), err.getvalue())


def ok(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, f"{arguments}: {result.output}"
    return result


def data(*arguments):
    return json.loads(ok(*arguments, "--json").stdout)
