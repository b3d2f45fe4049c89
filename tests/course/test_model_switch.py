"""`MODEL` is one variable: the suggestions say what another model costs, and the first lessons run with one.

The suggested models themselves can't be downloaded here. Their shapes are built from their published configurations, and the
lessons run on a random model of another family, depth and width, and, where it is cached, on a real one: gemma-3-270m,
a base model with a begin token, norms behind its branches, sliding windows and no chat template.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

import build
import pandas as pd
import pytest
import torch
from nbclient import NotebookClient
from transformers import AutoConfig, AutoModelForCausalLM

from shortgpt import suggested_models
from shortgpt.checkpoints.fetching import is_here
from shortgpt.checkpoints.packaged import DEFAULT_MODEL
from shortgpt.course import suggestions

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("measure_models", ROOT / "measure" / "models.py")
measure_models = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = measure_models
_spec.loader.exec_module(measure_models)
MODELS = measure_models.MODELS
FIRST_LESSONS = sorted((ROOT / "notebooks" / "source").glob("0[0-3]_*.py"))
GEMMA = "gemma-3-270m"
WITH_GEMMA = [lesson for lesson in FIRST_LESSONS if lesson.name[:2] in ("00", "02", "03")]
BYTES = {DEFAULT_MODEL: (4, 4), GEMMA: (4, 4), "qwen2.5-coder-1.5b-instruct": (2, 2)}  # of a weight, on a CPU and a GPU
WHEELS_GB = {DEFAULT_MODEL: 0.0929, GEMMA: 0.2382, "qwen2.5-coder-1.5b-instruct": 1.0928}  # PyPI's file sizes, added up


# ---- the table ----


def test_the_table_has_the_models_of_its_script_smallest_first():
    table = suggested_models()
    assert list(table.index) == list(MODELS) and table["parameters"].is_monotonic_increasing
    assert table.index[0] == DEFAULT_MODEL and {"meta-llama/Llama-2-7b-hf", "Qwen/Qwen2.5-0.5B"} <= set(table.index)
    assert {GEMMA, "qwen2.5-coder-1.5b-instruct"} <= set(table.index) and (table["parameters"] > 7e9).sum() >= 3
    assert all(table["gated"] == [name.startswith("meta-llama/") for name in table.index])


@pytest.mark.real
@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_those_that_are_published(name):
    """Counted on the architecture, without weights; the published number is in the script, and in the table."""
    licence, gated, published, fields = MODELS[name]
    layers, parameters, left = measure_models.count(fields)
    row = suggested_models().loc[name]
    assert parameters == published == row["parameters"] and layers == row["layers"]
    assert (row["licence"], row["gated"]) == (licence, gated) and left < parameters
    assert row["download_gb"] == pytest.approx(WHEELS_GB.get(name, 2 * parameters / 1e9), rel=1e-3)
    (on_cpu, on_gpu), both = BYTES.get(name, (4, 2)), parameters + left
    assert row["gpu_gb"] == pytest.approx(on_gpu * both / 1e9)
    assert row["gpu_dense_gb"] == pytest.approx(on_gpu * parameters / 1e9)
    # two copies of the weights, and what Python, the states and the logits take beside them
    assert (
        0 <= row["cpu_gb"] - on_cpu * both / 1e9 <= 2.5
        if row["measured"]
        else row["cpu_gb"] == pytest.approx(on_cpu * both / 1e9, rel=1e-4)
    )


def test_what_was_not_measured_is_not_claimed():
    table = suggested_models()
    assert not table.loc[table["parameters"] > measure_models.TOO_LARGE, "measured"].any()
    for column in ("seconds", "times_default"):
        assert (table[column].notna() == table["measured"]).all()
    assert table["times_default"].iloc[0] == pytest.approx(1, abs=0.1)


def test_machines_take_what_fits():
    table = suggested_models()
    for machine, (column, gigabytes) in {
        "laptop": ("cpu_gb", 8),
        "colab_cpu": ("cpu_gb", 12),
        "colab_t4": ("gpu_gb", 15),
        "gpu_24gb": ("gpu_gb", 24),
        "gpu_24gb_plan": ("gpu_dense_gb", 24),
    }.items():
        fitting = suggested_models(machine)
        pd.testing.assert_frame_equal(fitting, table[table[machine]])
        assert DEFAULT_MODEL in fitting.index
        assert ("meta-llama/Llama-2-7b-hf" in fitting.index) == (machine == "gpu_24gb_plan")  # two copies don't fit
        assert (fitting[column] < gigabytes).all() and (table.drop(fitting.index)[column] > 0.7 * gigabytes).all()
    assert set(suggested_models("laptop").index) <= set(suggested_models("colab_cpu").index)


def test_a_gpu_is_judged_by_what_is_on_the_gpu(monkeypatch):
    monkeypatch.setitem(suggestions.FREE_GB, "colab_t4", 5)
    table = suggested_models("colab_t4")
    assert list(table.index) == list(suggested_models().query("gpu_gb <= 5").index)
    assert table["cpu_gb"].max() > 5, "main memory would say something else"


# ---- the lessons ----


@pytest.fixture(scope="module")
def other_model(real_tokenizer, tmp_path_factory) -> str:
    """A random Qwen2 of 16 layers, the fewest of all suggested models, with the default model's tokenizer."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 16, "num_attention_heads": 4}
    special = {name: getattr(real_tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = AutoConfig.for_model(
        "qwen2",
        vocab_size=len(real_tokenizer),
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.1,
        **sizes,
        **special,
    )
    folder = tmp_path_factory.mktemp("other") / "model"
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    real_tokenizer.save_pretrained(folder)
    return str(folder)


STORED = re.compile(r"(grid|speeds|choosing|repair|width|along|relay|choice_generation)\.csv|measured\.json")


def test_what_is_stored_of_the_default_model_says_so():
    """With another `MODEL` a table from `data/` would pass for that model's: the label is in the cell, or in the next."""
    labelled = 0
    for lesson in (ROOT / "notebooks" / "source").glob("[01]*.py"):
        code = [cell.source for cell in build.generate(lesson).cells if cell.cell_type == "code"]
        for here, after in zip(code, [*code[1:], ""], strict=True):
            if STORED.search(here):
                assert "STORED" in here + after, f"{lesson.stem}: whose results are these?\n{here}"
                labelled += 1
    assert labelled >= 10


@pytest.fixture(scope="module")
def gemma() -> str:
    """Its name where that is known to `load`, else the folder in the cache."""
    if not is_here(GEMMA):
        pytest.skip(f'{GEMMA} is not in the cache: load("{GEMMA}", accept_terms=True) fetches it')
    return GEMMA


def run_with(model: str, lesson: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Execute a lesson with another `MODEL`; an error in a cell is an error."""
    for name, value in {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "IPYTHONDIR": str(tmp_path / "ipython")}.items():
        monkeypatch.setenv(name, value)
    notebook, changed = build.generate(lesson), 0
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source, n = re.subn(r'^MODEL = "[^"]*"', f"MODEL = {model!r}", cell.source, flags=re.MULTILINE)
            changed += n
    assert changed == 1
    folder = tmp_path / "notebooks"
    folder.mkdir()
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    assert os.listdir(folder) == [], "a lesson writes to ../output only"


@pytest.mark.real
@pytest.mark.parametrize("lesson", FIRST_LESSONS, ids=lambda path: path.stem)
def test_the_first_lessons_run_with_another_model(lesson, other_model, tmp_path, monkeypatch):
    run_with(other_model, lesson, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("lesson", WITH_GEMMA, ids=lambda path: path.stem)
def test_lessons_run_with_gemma(lesson, gemma, tmp_path, monkeypatch):
    run_with(gemma, lesson, tmp_path, monkeypatch)
