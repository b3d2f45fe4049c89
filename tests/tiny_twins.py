"""Tiny random models of the kinds that the twins have, a tokenizer of single characters for them, and items of each task."""

from __future__ import annotations

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

DEPTH, WIDTH = 6, 32
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
OWN: dict[str, dict] = {
    "llama": {"intermediate_size": 64, "num_attention_heads": 4},
    "olmo2": {"intermediate_size": 64, "num_attention_heads": 4},  # norms behind the branches
    "mamba": {"state_size": 8},
    "mamba2": {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1, "expand": 2, "chunk_size": 16},
    "rwkv": {"attention_hidden_size": WIDTH, "intermediate_size": 64, "context_length": 64, "rescale_every": 2},
}
CHARACTERS = ["<|endoftext|>", "\n", *map(chr, range(32, 127))]

ITEMS = [
    {"task": "addition", "prompt": "347+586=", "answer": "339\n", "level": 3},
    {"task": "addition", "prompt": "95+8=", "answer": "301\n", "level": 2},
    {"task": "brackets", "prompt": "([]{[|", "answer": "]})\n", "level": 3},
    {
        "task": "agreement",
        "prompt": "The keys near the box",
        "answer": " are",
        "other": " is",
        "level": 1,
        "distance": 3,
        "number": "plural",
        "attractors": ["singular"],
    },
]


def tiny_kind(kind: str, seed: int = 0) -> PreTrainedModel:
    """A random model with weights so large that every layer matters."""
    config = AutoConfig.for_model(kind, vocab_size=len(CHARACTERS), **SIZES, **OWN[kind])
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.3)
    return model


def characters() -> PreTrainedTokenizerFast:
    """Every printable ASCII character is a token, and every text begins with the one special token."""
    inside = Tokenizer(models.WordLevel({text: i for i, text in enumerate(CHARACTERS)}, unk_token=CHARACTERS[0]))
    inside.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    inside.decoder = decoders.Fuse()
    inside.post_processor = processors.TemplateProcessing(
        single=f"{CHARACTERS[0]} $A", special_tokens=[(CHARACTERS[0], 0)]
    )
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), CHARACTERS[0])
    return PreTrainedTokenizerFast(tokenizer_object=inside, **special)
