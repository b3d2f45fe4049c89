"""What packaging promises: floors that Colab meets, one pinned set that fits them, files that agree with each other."""

import ast
import os
import re
import subprocess
import sys
import textwrap
import tomllib
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from shortgpt.utils.old_paths import MOVED

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
    installed = {re.sub("[-_.]+", "-", found.name).lower(): found.version for found in distributions()}
    here = {name: installed.get(name, "absent") for name in pins()}
    different = {name: (here[name], pin) for name, pin in pins().items() if here[name].split("+")[0] != pin}
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


# ---- the wheel: what a Colab runtime has, and nothing else ----


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)]
    run = subprocess.run(build, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (file,) = folder.glob("shortgpt_pruning-*.whl")
    return zipfile.ZipFile(file)


def shipped(wheel: zipfile.ZipFile) -> set[str]:
    """The wheel's files, named as in the repository; what is about the wheel itself aside."""
    names = [name for name in wheel.namelist() if not name.startswith("shortgpt_pruning-")]
    return {name.removeprefix("shortgpt/") if name.startswith("shortgpt/data/") else name for name in names}


def strings(folder: Path) -> set[str]:
    """Every text that the Python files of a folder write down."""
    nodes = (n for file in folder.rglob("*.py") for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    return {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}


@pytest.mark.slow
def test_the_wheel_has_the_whole_package_and_no_other_code(wheel):
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "shortgpt").rglob("*") if path.is_file()}
    package = {name for name in package if "__pycache__" not in name}
    assert {name for name in shipped(wheel) if name.startswith("shortgpt/")} == package
    assert "shortgpt/__init__.pyi" in package, "without it nothing knows the public names"
    others = shipped(wheel) - package
    assert all(name.startswith("data/") for name in others)
    assert [name for name in others if name.endswith(".py")] == ["data/tasks_paper/items.py"], "lm-eval imports that"


LOADED_TWINS = {"twin-pre-norm-0", "twin-mamba-0", "twin-rwkv-0"}  # by lessons 08 and 11


@pytest.mark.slow
def test_the_wheel_has_the_data_that_is_read_and_no_more(wheel):
    data = {name for name in shipped(wheel) if name.startswith("data/")}
    here = {path.relative_to(ROOT).as_posix() for path in (ROOT / "data").rglob("*") if path.is_file()}
    here = {name for name in here if "__pycache__" not in name}
    other_twins = {name for name in here if "/twin-" in name and name.split("/")[2] not in LOADED_TWINS}
    named = {Path(text).name for text in strings(ROOT / "shortgpt") | strings(ROOT / "notebooks" / "source")}
    read_by_name = {name for name in here - other_twins if Path(name).name in named}
    read_as_a_whole = {name for name in here if name.split("/")[1] in ("paper", "quiz", "tasks", "tasks_paper")}
    text = {f"data/text/{part}.jsonl" for part in ("calibration", "perplexity", "repair", "natural", "natural_test")}
    text |= {"data/text/SOURCES.md", "data/text/licences/GPL-2.0.txt", "data/text/licences/click.txt"}
    assert {"data/grid.csv", "data/evaluated.jsonl", "data/measured.json"} <= read_by_name, "this test finds nothing"
    assert read_by_name | read_as_a_whole | text <= data <= here - other_twins
    assert not any("documents" in name or "figures" in name for name in data)
    twins = {name for name in data if "/twin-" in name}
    for part, most in ((data - twins, 4e6), (twins, 21e6)):
        assert sum(wheel.getinfo(f"shortgpt/{name}").file_size for name in part) < most


def test_lessons_load_no_other_twins():
    """On Colab there is the wheel and nothing else."""
    lessons = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "notebooks" / "source").glob("*.py"))
    kinds = re.findall(r"load\(\"(twin-[\w-]+)\"", lessons)
    assert kinds and {*kinds} <= LOADED_TWINS
    (written,) = re.findall(r"KINDS = (\[.*\])\nmodels = {}", lessons)
    assert {f"twin-{kind}-0" for kind in re.findall(r"\"([\w-]+)\"", written)} == LOADED_TWINS


@pytest.mark.slow
def test_the_source_distribution_can_make_that_wheel():
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert targets["sdist"]["include"][:2] == ["/shortgpt", "/data"]
    assert all((ROOT / path[1:]).exists() for path in targets["sdist"]["include"] + targets["sdist"]["exclude"])
    wanted, left_out = targets["wheel"]["include"], targets["sdist"]["exclude"]
    assert not [(w, out) for w in wanted for out in left_out if f"{w}/".startswith(f"{out}/")]


@pytest.mark.slow
def test_the_wheel_works_where_there_is_no_repository(wheel, tmp_path):
    """What Colab installs must find its text, tasks and questions."""
    wheel.extractall(tmp_path)
    code = """
        import pathlib, shortgpt
        from shortgpt.course.quiz import quiz, read_quiz
        from shortgpt.evaluation.benchmarks import LOCAL_TASKS, OFFLINE_TASKS, _folders
        from shortgpt.utils.data import data_folder

        assert data_folder() == pathlib.Path("shortgpt/data").absolute() == pathlib.Path(shortgpt.__file__).parent / "data"
        assert {len(shortgpt.built_in_text(part)) > 17 for part in ("calibration", "repair", "natural_test")} == {True}
        assert len(OFFLINE_TASKS) == 5 and len(shortgpt.paper_benchmarks()) == 13
        assert {*LOCAL_TASKS} == {*OFFLINE_TASKS, "science_zh"}
        assert len(shortgpt.suggested_models()) == 13 and len(read_quiz("03")) == 3
        quiz("03")
        (folder,) = _folders([])
        assert (pathlib.Path(folder) / "items.py").exists()
    """
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_version_is_stated_once_per_file():
    import shortgpt

    assert shortgpt.__version__ == PROJECT["version"]


# ---- the pages beside the README ----


def test_the_changelog_says_where_every_old_module_is_now():
    page = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `shortgpt\.([\w.]+)` \| `shortgpt\.([\w.]+)` \|$", page, re.M))
    assert rows == MOVED
    headings = re.findall(r"^## \[(.+?)\]", page, re.M)
    assert headings[0] == "Unreleased" and headings[1] == PROJECT["version"]
    assert {*headings} == {*re.findall(r"^\[(.+?)\]: ", page, re.M)}, "each version has its link"
    kinds = set(re.findall(r"^### (.+)", page, re.M))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_citation_agrees_with_the_readme():
    """Validated against the schema of CFF 1.2.0 with cffconvert 2.0 when it was written."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys() and citation["cff-version"] == "1.2.0"
    code, *_ = PROJECT["license"].split(
        " AND "
    )  # the others are of texts that lie beside it; in CFF several mean a choice
    assert (citation["version"], citation["license"]) == (PROJECT["version"], code)
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]
    paper = citation["references"][0]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    name, title, url = re.search(r"cite the paper: (\w+) et al\., \*(.+)\*, \[arXiv [\d.]+\]\((.+?)\)", readme).groups()
    assert name == paper["authors"][0]["family-names"] and paper["title"].startswith(title)
    assert url == paper["url"] == PROJECT["urls"]["Paper"]


CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_every_path_that_contributing_names_exists():
    paths = set(re.findall(r"`([\w.]+/[\w./]*|[\w]+\.(?:py|toml|txt|md|pyi|cff))`", CONTRIBUTING)) - {"tests/"}
    paths |= set(re.findall(r"\]\((?!https?:)([^)#]+)\)", CONTRIBUTING))
    assert len(paths) > 40
    assert not [path for path in paths if "NN_" not in path and not (ROOT / path).exists()]


def patches() -> list[tuple[str, str, str]]:
    """``(file, what, seen on)`` of the table of what reaches into other libraries."""
    rows = re.findall(r"^\| `([\w/]+\.py)` \| (.+?) \| .+? \| ([\w-]+ [\d.]+) \| .+ \|$", CONTRIBUTING, re.M)
    assert len(rows) >= 5
    return rows


@pytest.mark.parametrize("row", patches(), ids=lambda row: row[0])
def test_a_patch_of_another_library_is_there_and_was_seen_on_the_tested_version(row):
    """Raising a version fails here until somebody has looked: is the patch still needed, does it still work?"""
    file, what, seen = row
    source = (ROOT / file).read_text(encoding="utf-8")
    assert re.findall(r"`([\w.]+)`", what)[0].removeprefix("tqdm.") in source, what
    name, version = seen.split()
    assert pins().get(name, version) == version
    assert name in pins() or f"{name}=={version}" in source


def reaching() -> set[str]:
    """Files of ours that set an attribute of what they import from elsewhere, mock it, or change an object's class."""
    found, ours = set(), {"shortgpt", *sys.stdlib_module_names}
    for path in [*(ROOT / "shortgpt").rglob("*.py"), *(ROOT / "notebooks").glob("*.py")]:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        froms = [(n.module or "", alias) for n in nodes if isinstance(n, ast.ImportFrom) for alias in n.names]
        froms += [(alias.name, alias) for n in nodes if isinstance(n, ast.Import) for alias in n.names]
        theirs = {(a.asname or a.name).split(".")[0] for home, a in froms if home.split(".")[0] not in ours}
        targets = [t for n in nodes if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Attribute)]
        roots = {ast.unparse(target).split(".")[0] for target in targets}
        mocks = any(home.startswith("unittest") for home, _ in froms)
        if roots & theirs or mocks or any(target.attr == "__class__" for target in targets):
            found.add(path.relative_to(ROOT).as_posix())
    return found


def test_no_patch_of_another_library_is_left_out_of_the_table():
    assert "shortgpt/quantization/gptq.py" in reaching(), "this test finds nothing"
    assert reaching() <= {file for file, _, _ in patches()}


# ---- .github ----


def test_actions_are_pinned_by_commit_and_kept_up_to_date():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    used = re.findall(r"uses: (.+)", workflow)
    assert len(used) > 5 and all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line) for line in used), used
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"github-actions", "pip"}


def test_the_form_for_problems_is_one_that_github_shows():
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "problem.yml").read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    assert all(part["attributes"]["label"] for part in form["body"])
    assert len({part["id"] for part in form["body"]}) == len(form["body"])
