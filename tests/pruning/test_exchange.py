"""Plans in the words of other tools: mergekit, really run, makes the same weights."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zlib
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from small import LAYERS, build_tiny

from shortgpt import PruningPlan, prune_checkpoint

MERGEKIT = ["mergekit==0.1.5", "immutables==0.21"]  # the rest of what it needs is installed with our extras
UNREACHABLE = re.compile("No matching distribution|connection|resolve|timed out|proxy", re.IGNORECASE)


@pytest.fixture(scope="session")
def mergekit(request) -> Path:
    """A Python that has mergekit and sees our packages, kept in pytest's cache: mergekit's pins must not move ours."""
    folder = request.config.cache.mkdir("mergekit") / "-".join([*MERGEKIT, str(zlib.crc32(sys.prefix.encode()))])
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=False, clear=True)
        where = [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]
        site = Path(subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip())
        (site / "ours.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", *MERGEKIT]
        installed = subprocess.run(pip, capture_output=True, text=True)
        if installed.returncode and UNREACHABLE.search(installed.stderr):
            pytest.skip(f"mergekit can't be fetched from PyPI: {installed.stderr.strip().splitlines()[-1]}")
        assert installed.returncode == 0, installed.stderr
        (folder / "ready").touch()
    return python


def tensors(folder):
    return {name: t for file in sorted(Path(folder).glob("*.safetensors")) for name, t in load_file(file).items()}


@pytest.mark.slow
@pytest.mark.parametrize(("family", "removed"), [("llama", (4, 1, 2)), ("mistral", (0, 5)), ("gpt2", (3,))], ids=str)
def test_mergekit_makes_the_same_weights_from_the_exported_plan(mergekit, family, removed, tmp_path):
    build_tiny(family).save_pretrained(tmp_path / "dense")
    plan = PruningPlan(layers=LAYERS, removed=removed, model=str(tmp_path / "dense"))
    text = plan.to_mergekit(tmp_path / "merge.yml")
    assert (tmp_path / "merge.yml").read_text() == text
    command = [mergekit, "-m", "mergekit.scripts.run_yaml", tmp_path / "merge.yml", tmp_path / "theirs"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-3000:]
    theirs = tensors(tmp_path / "theirs")
    ours = tensors(prune_checkpoint(tmp_path / "dense", tmp_path / "ours", plan, progress=False))
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(t, ours[name]) and t.dtype == ours[name].dtype for name, t in theirs.items())


def test_consecutive_kept_layers_become_one_slice():
    plan = PruningPlan(layers=10, removed=(3, 9, 4, 6), model="owner/name@abc")
    config = yaml.safe_load(plan.to_mergekit(dtype="bfloat16"))
    sources = [source for piece in config.pop("slices") for source in piece["sources"]]
    assert config == {"merge_method": "passthrough", "dtype": "bfloat16"}
    assert [s["layer_range"] for s in sources] == [[0, 3], [5, 6], [7, 9]]
    assert [i for s in sources for i in range(*s["layer_range"])] == list(plan.kept)
    assert {s["model"] for s in sources} == {"owner/name@abc"}
    odd = yaml.safe_load(plan.to_mergekit(model='C:\\models\\my: "model" #1'))
    assert odd["slices"][0]["sources"][0]["model"] == 'C:\\models\\my: "model" #1'
    with pytest.raises(ValueError, match="names no model: pass model="):
        PruningPlan(layers=10, removed=(3,)).to_mergekit()


def test_the_page_shows_what_is_exported():
    page = (Path(__file__).parents[2] / "docs" / "exchange.md").read_text()
    shown = re.search(r"```yaml\n(merge_method.*?)```", page, flags=re.DOTALL)[1]
    assert shown == PruningPlan(layers=6, removed=(1, 2, 4), model="/models/dense").to_mergekit()


def test_llama_cpp_gets_the_removed_layers_in_ascending_order():
    assert PruningPlan(layers=30, removed=(14, 8, 9)).to_llama_cpp() == "8,9,14"
    assert PruningPlan(layers=30, removed=()).to_llama_cpp() == ""
