"""Fixtures: tiny random models (milliseconds, for breadth) and the real default model (for truth). No network anywhere."""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")

sys.path.append(str(Path(__file__).resolve().parents[1] / "notebooks"))
import patient_client  # noqa: F401  (nbmake runs the lessons in this process: a widget must not halt it)
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

VOCABULARY, HIDDEN, LAYERS = 96, 32, 6
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "gpt2")


def build_tiny(family: str = "llama", seed: int = 0) -> PreTrainedModel:
    """A random model with weights large enough that every layer matters."""
    names = {"gpt2": {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 4, "n_positions": 256}}
    sizes = names.get(
        family,
        {
            "hidden_size": HIDDEN,
            "intermediate_size": 64,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 256,
        },
    )
    config = AutoConfig.for_model(
        family, vocab_size=VOCABULARY, initializer_range=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=2, **sizes
    )
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(params=FAMILIES)
def family_model(request) -> PreTrainedModel:
    return build_tiny(request.param)


@pytest.fixture
def tiny() -> PreTrainedModel:
    return build_tiny()


def random_batch(rows: int = 3, tokens: int = 16, seed: int = 0) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, VOCABULARY, (rows, tokens), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    return random_batch()


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """A token a character: sizes can be counted by hand."""
    alphabet = "abcdefghijklmnopqrstuvwxyz .\n"
    backend = Tokenizer(
        models.WordLevel({c: i for i, c in enumerate(alphabet)} | {"?": 29, "<pad>": 30}, unk_token="?")
    )
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="?", pad_token="<pad>")


@pytest.fixture(scope="session")
def real():
    """``(model, tokenizer)``: the default model, downloaded once into the cache. Tests must not change it."""
    from shortgpt import load

    return load(device="cpu")


@pytest.fixture(scope="session")
def real_tokenizer(real):
    return real[1]
