"""The house: a room for each chapter, arrows that point one way, and a page that names every door once."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from bad_input import PUBLIC

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "shortgpt"
PAGE = (REPOSITORY / "docs" / "code.md").read_text(encoding="utf-8")
# a room imports from the floors below its own, and from its own modules
FLOORS = (
    {"utils"},
    {"model"},
    {"scoring", "pruning"},
    {"repair", "quantization"},
    {"choosing", "checkpoints"},
    {"evaluation"},
    {"cli", "course"},
)
METHOD = ("model/anatomy", "model/text", "model/hooks", "scoring/influence", "choosing/by_score", "pruning/plan")
METHOD += ("pruning/depth", "evaluation/likelihood")


def module_of(path: Path) -> str:
    """``room.module`` of a file; what a package's ``__init__`` imports, the package imports."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if module_of(path) not in ("", "__main__")}


def imported(module: str) -> set[str]:
    """Modules of the package that a module imports anywhere: at the top, inside functions, for types only."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            home = node.module or ""
            found |= {home} | {f"{home}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in (each.removeprefix("shortgpt.") for each in found) if name in MODULES} - {module}


ARROWS = {module: imported(module) for module in MODULES}


def room(module: str) -> str:
    return module.partition(".")[0]


def test_each_room_stands_on_one_floor():
    assert Counter(room(module) for module in MODULES).keys() == set().union(*FLOORS)
    assert sum(map(len, FLOORS)) == len(set().union(*FLOORS))


def test_arrows_point_down():
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    up = [
        f"{module} -> {other}"
        for module, others in ARROWS.items()
        for other in others
        if room(module) != room(other) and floor[room(module)] <= floor[room(other)]
    ]
    assert not up, "a room imports from the floors below it"


def test_there_is_no_circle():
    """Also none inside a room, and none that an import inside a function hides."""
    left = {module: set(others) for module, others in ARROWS.items()}
    # a package's own modules are imported by its __init__, and import it: that is no circle of ideas
    left = {m: {o for o in others if not m.startswith(f"{o}.")} for m, others in left.items()}
    while free := [module for module, others in left.items() if not others]:
        for module in free:
            del left[module]
        left = {module: others - set(free) for module, others in left.items()}
    assert not left


def test_the_top_has_few_doors():
    doors = {path.name for path in PACKAGE.iterdir() if path.name not in ("__pycache__", "data")}
    assert len(doors) <= 15, sorted(doors)


def test_a_module_holds_one_idea():
    long = {module: n for module, path in MODULES.items() if (n := path.read_text(encoding="utf-8").count("\n")) > 250}
    assert not long, "two ideas, in two modules"


def test_every_module_is_on_the_page_once():
    linked = Counter(re.findall(r"\]\(\.\./shortgpt/([\w/]+)\.py\)", PAGE))
    there = {module.replace(".", "/") for module, path in MODULES.items() if path.stem != "__init__"}
    assert {name for name, times in linked.items() if times == 1} == there and max(linked.values()) == 1


def test_the_hour_is_an_hour():
    lines = [(PACKAGE / f"{name}.py").read_text(encoding="utf-8").count("\n") for name in METHOD]
    assert sum(lines) <= 1500, "25 lines a minute, docstrings included"
    first = PAGE.partition("## ")[2].partition("## ")[0]
    assert re.findall(r"\]\(\.\./shortgpt/([\w/]+)\.py\)", first) == [] or set(METHOD), "the page names them first"


def test_no_module_has_the_name_of_what_it_defines():
    """`from shortgpt.room import name` would give the one or the other, by who imported first."""
    same = []
    for module, path in MODULES.items():
        names = {getattr(node, "name", None) for node in ast.parse(path.read_text(encoding="utf-8")).body}
        same += [module] if path.stem in names and module != "course.quiz" else []
    assert not same


@pytest.mark.parametrize(
    "code",
    [
        "from shortgpt import PruningPlan; PruningPlan(6, (1, 2)).to_mergekit(model='a/b')",
        "from shortgpt.cli import app",
        "import shortgpt; dir(shortgpt)",
    ],
)
def test_this_needs_no_torch(code):
    """A plan is a small file, and ``--help`` answers at once."""
    run = [
        sys.executable,
        "-c",
        f"import sys; {code}; print(*({{'torch', 'transformers', 'pandas'}} & set(sys.modules)))",
    ]
    out = subprocess.run(run, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert not out.stdout.strip()


def test_importing_leaves_other_loggers_alone():
    code = (
        "import logging; before = {n: l.level for n, l in logging.root.manager.loggerDict.items() if hasattr(l, 'level')};"
        "import shortgpt; shortgpt.score_layers, shortgpt.quantize, shortgpt.evaluate;"
        "print(logging.getLogger('torchao').level, logging.getLogger('torch.utils._pytree').level)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert out.stdout.split() == ["0", "0"] and "torchao" not in out.stderr


def test_every_room_with_public_names_tests_wrong_calls_of_all_of_them():
    """Each of these files demands a row for every parameter of its room's names: see `bad_input.forgotten`."""
    assert len(PUBLIC) > 50
    for name in {*PUBLIC.values()}:
        file = REPOSITORY / "tests" / name / f"test_bad_input_{name}.py"
        assert f'forgotten("{name}", CASES, REASONS)' in file.read_text(encoding="utf-8")


# ---- a test can be found from a module's name ------------------------------------------------------------------------
TESTED_ELSEWHERE = {  # module -> where, with a reason if that is another room
    **{
        f"cli.{part}": "tests/cli/test_cli.py"
        for part in ("deciding", "evaluate", "heal", "info", "places", "printing", "score")
    },  # by running it
    **{f"cli.{part}": "tests/cli/test_road.py" for part in ("challenge", "config_file", "generate", "quantize")},
    "checkpoints.changed": "tests/checkpoints/test_on_disk.py",
    "model.names": "tests/checkpoints/test_on_disk.py",
    "utils.data": "tests/test_setup.py",  # data are where the wheel has them
    "utils.lazy": "tests/test_rooms.py",
}


def homes() -> dict[str, str]:
    """Name -> module of the package, for the names that the stubs of the rooms (and the one at the top) list."""
    found = {}
    for stub in sorted(PACKAGE.rglob("__init__.pyi"), key=lambda path: len(path.parts)):  # the rooms' own come later
        place = ".".join(stub.parent.relative_to(PACKAGE).parts)
        for node in ast.parse(stub.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.level:
                home = ".".join(filter(None, (place, node.module)))
                found |= {alias.name: home for alias in node.names}
    return found


def named_by_tests(folder: Path) -> set[str]:
    """Modules that the tests in `folder` name: by an import, a name that lives there, ``room.module``, their own name."""
    named, home = set(), homes()
    for file in folder.glob("test_*.py"):
        text = file.read_text(encoding="utf-8")
        named |= {
            f"{folder.name}.{part}" for part in (file.stem, file.stem.removeprefix("test_"), *file.stem.split("_"))
        }
        named |= set(re.findall(r"\b(?:shortgpt\.)?([a-z_]+(?:\.[a-z_0-9]+)+)", text))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("shortgpt"):
                inside = node.module.removeprefix("shortgpt").removeprefix(".")
                named |= {f"{inside}.{alias.name}" for alias in node.names}
                named |= {home.get(alias.name, "") for alias in node.names}
    return named


@pytest.mark.parametrize("name", sorted(set().union(*FLOORS)))
def test_the_tests_of_a_module_are_in_the_folder_of_its_room(name):
    """A module in a folder of the room (course/checks/lesson_01.py) is tested by who names the folder."""
    named = named_by_tests(REPOSITORY / "tests" / name)
    modules = {m for m, path in MODULES.items() if room(m) == name and path.stem != "__init__"}
    found = {m for m in modules if m in named or (m.count(".") > 1 and m.rpartition(".")[0] in named)}
    assert modules - found == {module for module in TESTED_ELSEWHERE if room(module) == name}
    assert all((REPOSITORY / file).exists() for file in TESTED_ELSEWHERE.values())
