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
from small import FAMILIES, build_tiny, random_batch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast


@pytest.fixture(params=FAMILIES)
def family_model(request) -> PreTrainedModel:
    return build_tiny(request.param)


@pytest.fixture
def tiny() -> PreTrainedModel:
    return build_tiny()


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
