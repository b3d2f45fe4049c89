"""Variants of the exercises: other values in the cells that use a solution, and every solution still passes."""

from __future__ import annotations

import importlib.util

import nbformat
import pytest
import torch
import variants
from exercise_notebooks import ExerciseError, with_solution
from test_setup import ROOT
from transformers import LlamaConfig, LlamaForCausalLM

import shortgpt

NOTEBOOKS = ROOT / "notebooks"
EXERCISES = sorted((NOTEBOOKS / "exercises").glob("*.ipynb"))
# by its path: there is a well-known package of the name build
_spec = importlib.util.spec_from_file_location("build_notebooks", NOTEBOOKS / "build.py")
build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)

SEEDS = (1, 2, 3)
every_lesson = pytest.mark.parametrize("name", [path.stem for path in EXERCISES])


def tagged(found: list, tag: str) -> list:
    return [cell for cell in found if tag in cell.metadata.get("tags", [])]


def nbgrader(found: list) -> list[dict]:
    return [cell.metadata.nbgrader for cell in found if "nbgrader" in cell.metadata]


def variant(name: str, seed: int | None, *, solved: bool = False) -> list:
    return build.generate_exercises(NOTEBOOKS / "source" / f"{name}.py", solved=solved, variant=seed).cells


@every_lesson
def test_seeds_differ_and_only_where_solutions_are_used(name):
    plain, *others = (variant(name, seed) for seed in (None, *SEEDS))
    applied = ["".join(cell.source for cell in tagged(found, "apply")) for found in (plain, *others)]
    assert len(set(applied)) == 1 + len(SEEDS) and variant(name, 1) == others[0]
    for found in others:
        for ours, old in zip(found[1:], plain[1:], strict=True):
            changed = ours.source != old.source
            assert (
                not changed or "apply" in old.metadata.get("tags", []) or ours.source.startswith("**What do you see?**")
            )
        points = [sum(each.get("points", 0) for each in nbgrader(each)) for each in (plain, found)]
        words = [cell for cell in found if cell.source.startswith("**What do you see?**")]
        assert points[1] == points[0] + len(words) and len(words) >= 2
        ids = [each["grade_id"] for each in nbgrader(found)]
        assert len(ids) == len(set(ids))


def test_every_exercise_of_the_table_exists():
    used = {
        cell.source.partition("(")[2].partition(")")[0]
        for path in EXERCISES
        for cell in tagged(nbformat.read(path, as_version=4).cells, "apply")
    }
    assert set(variants.FREE) <= used


def test_a_changed_lesson_is_told():
    cell = ("code", "require_passed(greedy)\nnothing = 1", {"tags": ["apply"]})
    with pytest.raises(ExerciseError, match="03_pruning: variants.py looks for .*, which is not in this cell"):
        variants.vary("03_pruning", [("markdown", "# 03", {}), cell], 1)


def test_the_command_writes_stubs_or_a_course(tmp_path):
    folder = tmp_path / "notebooks"
    (folder / "source").mkdir(parents=True)
    source = NOTEBOOKS / "source" / "03_pruning.py"
    (folder / "source" / source.name).write_bytes(source.read_bytes())
    assert build.main(["--variant", "7", "--folder", str(folder)]) == 0
    stubs = nbformat.read(tmp_path / "output" / "variant_7" / "03_pruning.ipynb", as_version=4).cells
    assert "**Variant 7.**" in stubs[0].source and "NotImplementedError" in tagged(stubs, "exercise")[0].source
    assert build.main(["--variant", "7", "--classroom", str(tmp_path), "--folder", str(folder)]) == 0
    solved = nbformat.read(tmp_path / "source" / "03_pruning" / "03_pruning.ipynb", as_version=4).cells
    assert "BEGIN SOLUTION" in tagged(solved, "exercise")[0].source
    assert [cell.source for cell in tagged(solved, "apply")] == [cell.source for cell in tagged(stubs, "apply")]


# ---- every cell of a variant runs, with a tiny model in place of the real one ----


@pytest.fixture
def small_world(monkeypatch, tokenizer):
    """But for the twins ``shortgpt.load`` gives a random model of 30 tiny layers that reads letters, and texts are short."""
    config = LlamaConfig(vocab_size=31, hidden_size=16, intermediate_size=64, num_hidden_layers=30, num_attention_heads=4,
                         num_key_value_heads=2, max_position_embeddings=4096, bos_token_id=0, eos_token_id=30)  # fmt: skip
    torch.manual_seed(0)
    model, whole, real = LlamaForCausalLM(config).eval(), shortgpt.built_in_text, shortgpt.load

    def load(*name, **how):  # the twins are small as they are
        return real(*name, **how) if name and str(name[0]).startswith("twin-") else (model, tokenizer)

    monkeypatch.setattr(shortgpt, "load", load)
    monkeypatch.setattr(
        shortgpt, "built_in_text", lambda *a, **how: whole(*a, **how).assign(text=lambda rows: rows["text"].str[:1200])
    )
    with torch.set_grad_enabled(torch.is_grad_enabled()):  # some lessons switch it off
        yield


@pytest.mark.slow
@every_lesson
def test_solutions_pass_and_are_used_with_the_values_of_every_seed(name, small_world, capsys):
    cells = [cell for cell in variant(name, SEEDS[0], solved=True) if cell.cell_type == "code"]
    applied = zip(*(tagged(variant(name, seed, solved=True), "apply") for seed in SEEDS), strict=True)
    names: dict = {"display": print}
    exec("import torch, transformers, shortgpt", names)  # as the set-up cell does
    for cell in cells:
        if "setup" not in (tags := cell.metadata.get("tags", [])):
            for each in next(applied) if "apply" in tags else [cell]:
                exec(compile(with_solution(each.source), f"<{name}>", "exec"), names)
    assert capsys.readouterr().out.count(" is right: ") == len(tagged(cells, "check"))
