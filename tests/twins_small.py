"""Twins small enough for tests: every kind of `shortgpt.checkpoints.twins`, with a few thousand weights."""

from small import VOCABULARY
from transformers import PreTrainedConfig

from shortgpt.checkpoints.twins import KINDS, twin_config

_SMALL = {
    "mamba2": {"expand": 2, "head_dim": 16, "num_heads": 4, "state_size": 8},
    "rwkv": {"intermediate_size": 64, "attention_hidden_size": 32},
}


def small_config(kind: str, **changes: object) -> PreTrainedConfig:
    sizes = _SMALL.get(KINDS[kind]["model_type"], {"intermediate_size": 64, "initializer_range": 0.1})
    return twin_config(kind, **{"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 4} | sizes | changes)
