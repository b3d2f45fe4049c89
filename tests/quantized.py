"""A model wide enough to quantize, and how quantized ones are compared."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from shortgpt.quantization.nf4 import without_repacking

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU"))]


def small_llama():
    """Wide enough for blocks of 64 weights."""
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.05,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def logits(model):
    with torch.inference_mode():
        return model(torch.arange(3, 40)[None].to(model.device)).logits.float().cpu()


def plain_reload(folder):
    """The checkpoint as plain transformers reads it, but for the kernel that rounds NF4's scales on some CPUs."""
    return without_repacking(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)).eval()


def relative_error(a, b):
    return ((a - b).norm() / b.norm()).item()
