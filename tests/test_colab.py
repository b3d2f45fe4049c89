"""Colab: what its image has stays as it is, the set-up cell does what it says, and a T4 gets no bfloat16.

tests/colab.json holds the recorded versions. `make colab` installs them and runs lessons 00 to 03 there; nothing here does.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable, Iterable
from importlib.machinery import ModuleSpec

import jupytext
import pytest
import torch
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from small import build_tiny
from test_setup import PROJECT, ROOT
from transformers import PreTrainedModel

from shortgpt import built_in_text, calibration_batches, choose_layers, load, perplexity, save, score_layers
from shortgpt.checkpoints import loading
from shortgpt.checkpoints.packaged import PACKAGED
from shortgpt.pruning.sublayers import remove_sublayers

IMAGES = json.loads((ROOT / "tests" / "colab.json").read_text(encoding="utf-8"))["images"]
MAY_MOVE = {"torchao"}  # as tests/colab_lessons.py says
every_image = pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
Requires = Callable[[str], Iterable[str]]


def set_up() -> str:
    """Source of the set-up cell, which is the same in all lessons (test_notebooks)."""
    (lesson,) = (ROOT / "notebooks" / "source").glob("00_*.py")
    (cell,) = [c for c in jupytext.read(lesson).cells if "setup" in c.metadata.get("tags", [])]
    return cell.source


# ---- what pip would move ----


def installed(name: str) -> Iterable[str]:
    """Requirements of a package as it is here; one that Colab lacks is installed there in its newest version, as here."""
    return importlib.metadata.requires(name) or []


def moved(image: dict, wanted: Iterable[str], requires: Requires = installed) -> dict[str, str]:
    """Packages of the image that `wanted`, and all that it needs, would change, each with the requirement that does.

    pip leaves what satisfies a requirement, so what the image has and keeps asks for nothing new. What it lacks (or may
    lack: the newest record is not the whole list) is looked into.
    """
    environment = default_environment() | {
        "python_version": image["python"][:4],
        "python_full_version": image["python"],
    }
    have, changed, seen = image["packages"], {}, set()
    todo = [Requirement(line) for line in wanted]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in have and not requirement.specifier.contains(have[name], prereleases=True):
            changed[name] = str(requirement)
        for extra in {"", *requirement.extras}:
            if (name, extra) in seen or (name in have and not extra):
                continue
            seen.add((name, extra))
            for line in requires(name):
                below = Requirement(line)
                plain = below.marker is None or below.marker.evaluate(environment | {"extra": ""})
                with_extra = below.marker is None or below.marker.evaluate(environment | {"extra": extra})
                if with_extra and (not extra or not plain):
                    todo.append(below)
    return changed


def wanted() -> list[str]:
    """What the set-up cells of all lessons together ask pip for, as pyproject.toml spells it out."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "notebooks" / "source").glob("*.py")]
    asked = {found for source in sources for found in re.findall(r'"(shortgpt-pruning(?:\[\w+\])?) @', source)}
    extras = sorted({extra for line in asked for extra in Requirement(line).extras})
    assert extras == ["eval", "quant"] and "shortgpt-pruning" in asked
    return [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]


@every_image
def test_the_set_up_cell_moves_nothing_that_colab_has(image):
    assert not moved(image, wanted()).keys() - MAY_MOVE


def test_one_too_high_floor_anywhere_is_noticed():
    image = IMAGES["2026-08-19"]
    assert moved(image, ["numpy>=2.0"]) == {} and moved(image, ["numpy>=2.2"]) == {"numpy": "numpy>=2.2"}
    chain = {"lm-eval": ["evaluate>=0.4; extra == 'hf'", "pandas>=9; extra == 'other'"], "evaluate": ["pandas>=3"]}
    assert moved(image, ["lm-eval[hf]>=0.4"], chain.__getitem__) == {"pandas": "pandas>=3"}
    assert moved(image, ["lm-eval>=0.4"], chain.__getitem__) == {}
    later = {"new": ["torch>=9; python_version >= '3.14'", "ipywidgets<7; python_version == '3.13'"]}
    assert moved(image, ["new"], later.__getitem__) == {"ipywidgets": 'ipywidgets<7; python_version == "3.13"'}


@every_image
def test_python_and_what_is_absent_fit(image):
    assert Version(image["python"]) >= Version(PROJECT["requires-python"].removeprefix(">="))
    assert not set(image["absent"]) & set(image["packages"])


# ---- the set-up cell ----


class Colab:
    """A kernel on Colab as the set-up cell sees it: the module, pip, and what is installed."""

    def __init__(self, monkeypatch, tmp_path, *, pip_works=True, found: ModuleSpec | None = None):
        self.calls: list[list[str]] = []
        self.found, self.pip_works, self.held = found, pip_works, tmp_path / "held.txt"
        self.code = set_up().replace("/tmp/", f"{tmp_path}/")
        assert str(self.held) in self.code
        packages = IMAGES["2026-08-19"]["packages"] | {"torch": "2.11.0+cu128"}
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: self.found)
        monkeypatch.setattr(importlib.metadata, "version", packages.__getitem__)

    def run_line_magic(self, magic: str, line: str) -> None:
        assert magic == "pip"
        self.calls.append(shlex.split(line))
        if self.pip_works:
            self.found = ModuleSpec(
                "shortgpt", None, origin="/usr/local/lib/python3.13/dist-packages/shortgpt/__init__.py"
            )

    def run(self) -> None:
        exec(self.code, {"get_ipython": lambda: self})


def test_on_a_fresh_runtime_it_installs_once_and_holds_what_is_loaded(monkeypatch, tmp_path, capsys):
    colab = Colab(monkeypatch, tmp_path)
    colab.run()
    ((command, quiet, option, file, project),) = colab.calls
    assert (command, quiet, option, file) == ("install", "-q", "-c", str(colab.held))
    requirement = Requirement(project)
    assert (requirement.name, requirement.url) == (PROJECT["name"], f"git+{PROJECT['urls']['Repository']}")
    held = {r.name: r.specifier for r in map(Requirement, colab.held.read_text().splitlines())}
    packages = IMAGES["2026-08-19"]["packages"]
    assert {"torch", "numpy", "pandas", "transformers", "ipywidgets", "matplotlib"} <= held.keys()
    assert str(held["torch"]) == "==2.11.0+cu128" and str(held["numpy"]) == f"=={packages['numpy']}"
    assert held[PROJECT["name"]].contains(PROJECT["version"]), "the lesson refuses the toolkit that it belongs to"
    assert f"shortgpt {PROJECT['version']}, torch" in capsys.readouterr().out
    colab.run()
    assert len(colab.calls) == 1, "run again: it is there already"


def test_when_pip_fails_it_stops_with_a_sentence(monkeypatch, tmp_path, capsys):
    colab = Colab(monkeypatch, tmp_path, pip_works=False)
    with pytest.raises(ImportError, match="pip could not install the toolkit, and says above why"):
        colab.run()
    assert len(colab.calls) == 1 and not capsys.readouterr().out


def test_a_clone_beside_the_notebook_is_not_taken_for_the_toolkit(monkeypatch, tmp_path):
    """A folder without __init__.py is found as a namespace package, and has no origin."""
    (tmp_path / "shortgpt").mkdir()
    found = importlib.machinery.PathFinder.find_spec("shortgpt", [str(tmp_path)])
    assert found is not None
    colab = Colab(monkeypatch, tmp_path, found=found)
    colab.run()
    assert len(colab.calls) == 1


def test_elsewhere_it_installs_nothing(monkeypatch, tmp_path, capsys):
    colab = Colab(monkeypatch, tmp_path)
    monkeypatch.delitem(sys.modules, "google.colab")
    colab.run()
    assert not colab.calls and "shortgpt" in capsys.readouterr().out


@pytest.mark.parametrize(("version", "accepted"), [(PROJECT["version"], True), ("0.2.0", False)])
def test_an_old_copy_of_a_lesson_refuses_a_newer_toolkit(version, accepted, tmp_path):
    """pip holds a package from an address to the constraint file too."""
    (line,) = re.findall(r'"(shortgpt-pruning==[^"]*)"', set_up())
    (tmp_path / "held.txt").write_text(line)
    wheel = tmp_path / f"shortgpt_pruning-{version}-py3-none-any.whl"
    about = f"shortgpt_pruning-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: shortgpt-pruning\nVersion: {version}\n")
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--ignore-installed", "-c"]
    project = f"shortgpt-pruning @ file://{wheel}"
    run = subprocess.run([*command, str(tmp_path / "held.txt"), project], capture_output=True, text=True)
    assert (run.returncode == 0) is accepted, run.stderr
    assert accepted or line in run.stdout


# ---- the run on Colab's versions ----


def test_ci_runs_the_lessons_on_colabs_python_and_versions():
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["colab"]
    (python,) = [step["with"]["python-version"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
    assert IMAGES["2026-08-19"]["python"].startswith(f"{python}.")
    assert any(step.get("run", "").startswith("make colab") for step in job["steps"])
    assert "tests/colab_lessons.py" in (ROOT / "Makefile").read_text()


def test_what_it_installs_are_the_recorded_versions():
    run = [sys.executable, str(ROOT / "tests" / "colab_lessons.py"), "--list"]
    listed = dict(
        line.split("==") for line in subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    )
    newest, older = IMAGES["2026-08-19"], IMAGES["2026-02"]["packages"]
    assert newest["packages"].items() <= listed.items()
    assert not listed.keys() & set(newest["newer_since"])
    assert listed.items() - newest["packages"].items() <= older.items()


# ---- a T4: no bfloat16 ----


@pytest.fixture
def t4(monkeypatch):
    """A machine that says it has a T4; models stay where they are."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *device: (7, 5))
    monkeypatch.setattr(loading, "best_device", lambda: "cuda")
    monkeypatch.setattr(PreTrainedModel, "to", lambda self, *where, **how: self)


def test_a_t4_gets_float16_where_the_checkpoint_has_bfloat16(tmp_path, tokenizer, t4, monkeypatch):
    half = build_tiny().bfloat16()
    own = remove_sublayers(half, attention=[2])
    for name, model in {"half": half, "own": own, "single": build_tiny()}.items():
        save(model, tmp_path / name, tokenizer=tokenizer, verify=False)
    found = {name: load(tmp_path / name)[0].dtype for name in ("half", "own", "single")}
    assert found == {"half": torch.float16, "own": torch.float16, "single": torch.float32}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *device: (8, 0))
    newer = {name: load(tmp_path / name)[0].dtype for name in ("half", "own", "single")}
    assert newer == {"half": torch.bfloat16, "own": torch.bfloat16, "single": torch.float32}


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16)])
def test_a_packaged_model_in_bfloat16_too_is_float16_on_a_t4(capability, dtype, tmp_path, tokenizer, t4, monkeypatch):
    name = next(name for name, row in PACKAGED.items() if row.dtype == "bfloat16")
    save(build_tiny().bfloat16(), tmp_path / "model", tokenizer=tokenizer, verify=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *device: capability)
    monkeypatch.setattr(loading, "model_folder", lambda name, **options: str(tmp_path / "model"))
    assert load(name)[0].dtype == dtype and load(name, device="cpu")[0].dtype == torch.bfloat16


MAY_NAME_BFLOAT16 = {
    "shortgpt/checkpoints/packaged.py": "what a packaged model is kept in",
    "shortgpt/checkpoints/loading.py": "to compare with what a checkpoint has",
    "shortgpt/cli/options.py": "a choice on the command line",
    "shortgpt/repair/distilling.py": "the name of a setting, which a device decides",
    "shortgpt/repair/training.py": "what a GPU that has it computes in",
}


def test_nothing_else_in_the_package_or_the_lessons_asks_for_bfloat16():
    """Named in code, docstrings and comments aside."""
    places = set()
    for path in sorted([*(ROOT / "shortgpt").rglob("*.py"), *(ROOT / "notebooks" / "source").glob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if getattr(node, "attr", getattr(node, "value", None)) in ("bfloat16", "bf16"):
                places.add(path.relative_to(ROOT).as_posix())
    assert "shortgpt/checkpoints/loading.py" in places, "this test looks where nothing is"
    assert places <= MAY_NAME_BFLOAT16.keys()


@pytest.mark.real
def test_the_default_model_fits_into_float16(real):
    """A T4 computes in it. The states peak near 24,600 of 65,504, and neither plan nor perplexity notice the difference."""
    model, tokenizer = real
    half = load(device="cpu", dtype=torch.float16)[0]
    batches = calibration_batches(tokenizer, samples=2, length=256)
    with torch.inference_mode():
        states = half.model(batches[0]["input_ids"], output_hidden_states=True).hidden_states
    assert 10_000 < max(state.abs().max().item() for state in states) < 40_000
    full_scores, half_scores = (score_layers(each, batches, progress=False) for each in (model, half))
    assert set(choose_layers(full_scores, 6).removed) == set(choose_layers(half_scores, 6).removed)
    texts = built_in_text("perplexity")["text"].tolist()[:1]
    assert perplexity(half, tokenizer, texts) == pytest.approx(perplexity(model, tokenizer, texts), rel=2e-3)
