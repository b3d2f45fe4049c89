"""The folder in which the command is run."""

from pathlib import Path

import pytest
from command import LAYERS, TEXT, tiny_model
from transformers.utils import logging as hf_logging

from shortgpt import PruningPlan


@pytest.fixture
def folder(tmp_path, tokenizer, monkeypatch):
    """The working folder: a model, a text, and a plan for the model (layers 1 and 2)."""
    monkeypatch.chdir(tmp_path)
    hf_logging.disable_progress_bar()  # a process of its own would have read TQDM_DISABLE
    tokenizer.eos_token = "."
    tiny_model().save_pretrained("model")
    tokenizer.save_pretrained("model")
    Path("text.txt").write_text(TEXT * 40)
    Path("empty.txt").touch()
    Path("some.gguf").write_bytes(b"GGUF")
    Path("latin.txt").write_bytes("the café ".encode("cp1252"))
    Path("bad.json").write_text('{"layers": 3}')
    PruningPlan(layers=LAYERS, removed=(1, 2), model="model").to_json("plan.json")
    PruningPlan(layers=30, removed=(1,), model="another").to_json("other.json")
    return tmp_path
