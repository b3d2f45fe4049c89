"""What packaging promises: floors that Colab meets, one pinned set that fits them, files that agree with each other."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    Requirement(r)
    for r in [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]
]


def pins():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    return {name.lower(): pinned for name, pinned in (line.split("==") for line in lines)}


def test_floors_have_no_ceilings():
    """That Colab meets them is tested in test_colab.py."""
    for requirement in REQUIREMENTS:
        assert all(s.operator == ">=" for s in requirement.specifier), f"{requirement} has more than a floor"


def test_the_tested_set_pins_every_direct_dependency_within_its_floor():
    pinned = pins()
    for requirement in REQUIREMENTS:
        if requirement.name in ("filelock", "pyyaml"):  # held by what needs them
            continue
        assert requirement.specifier.contains(pinned[requirement.name.lower()]), requirement


def test_what_runs_here_is_the_tested_set():
    from importlib.metadata import version

    different = {name: (version(name), pin) for name, pin in pins().items() if version(name).split("+")[0] != pin}
    if different and not (ROOT / ".venv").exists():
        pytest.skip(f"not the project's own environment: {different}")
    assert not different


def test_environment_yml_is_valid_without_any_conda_channel():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert "pip" in conda and environment["dependencies"].index("pip") < len(environment["dependencies"]) - 1
    python = next(d for d in conda if d.startswith("python=")).split("=")[1]
    assert Version(python) >= Version(PROJECT["requires-python"].removeprefix(">="))
    (line,) = pip
    assert set(re.search(r"\[(.*)]", line)[1].split(",")) <= set(PROJECT["optional-dependencies"])


@pytest.mark.slow
def test_the_pip_part_of_environment_yml_resolves(tmp_path):
    (pip,) = [
        d["pip"] for d in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"] if isinstance(d, dict)
    ]
    (tmp_path / "requirements.txt").write_text("\n".join(pip))
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--no-deps",
        "-q",
        "-r",
        str(tmp_path / "requirements.txt"),
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_ci_calls_what_the_readme_calls():
    assert "\nmake test\n" in (ROOT / ".ci" / "run").read_text()
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert all(command in workflow for command in ("bash .ci/run", "make colab", "make book"))
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make (\w+)", readme)):
        assert re.search(rf"^{target}:", makefile, re.M), f"the README says `make {target}`"


@pytest.mark.parametrize("user", ["0", "1000"])
def test_the_lab_opens_in_a_container_where_everybody_is_root(user, tmp_path):
    (tmp_path / "id").write_text(f"#!/bin/sh\necho {user}\n")
    (tmp_path / "id").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["make", "-n", "lab", "READY="]
    shown = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert "jupyter lab" in shown and ("--allow-root" in shown) == (user == "0")


def test_readme_links_and_badges_lead_somewhere():
    readme = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", readme):
        assert (ROOT / link).exists(), link
    repository = PROJECT["urls"]["Repository"]
    base = "https://colab.research.google.com/github/" + repository.removeprefix("https://github.com/") + "/blob/main/"
    badges = re.findall(r"\((https://colab[^)]*/notebooks/[^)]*)\)", readme)
    assert len(badges) >= 6
    for badge in badges:
        assert badge.startswith(base) and (ROOT / badge.removeprefix(base)).exists(), badge


@pytest.mark.slow
def test_the_wheel_carries_package_and_data(tmp_path):
    """What Colab installs must find its text and tasks without the repository."""
    import zipfile

    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    run = subprocess.run(build, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (wheel,) = tmp_path.glob("shortgpt_pruning-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import shortgpt.model.text as c; assert 'site' in str(c.data_folder()), c.data_folder();"
        "from shortgpt.evaluation.harness import OFFLINE_TASKS as t; print(len(c.built_in_text()), len(t))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "site", capture_output=True, text=True, check=True
    ).stdout
    documents, tasks = map(int, out.split())
    assert documents >= 24 and tasks == 5


def test_version_is_stated_once_per_file():
    import shortgpt

    assert shortgpt.__version__ == PROJECT["version"]


def test_modules_stay_readable():
    lengths = {p.name: len(p.read_text().splitlines()) for p in (ROOT / "shortgpt").glob("*.py")}
    assert max(lengths.values()) <= 300, lengths
