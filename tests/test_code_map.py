"""docs/code.md names every module once, its hour is an hour, and imports point the way it says."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "shortgpt"
PAGE = (REPOSITORY / "docs" / "code.md").read_text(encoding="utf-8")
METHOD, _, _ = PAGE.partition("Beside them")
TOOLS = PAGE.partition("Beside them")[2].partition("## Shelves")[0]


def linked(text: str) -> list[str]:
    """Modules and subpackages that a text links to."""
    files = re.findall(r"\]\(\.\./shortgpt/([^)]+)\)", text)
    return [Path(file.removesuffix("/__init__.py")).stem for file in files]


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports when it is imported itself (not inside functions)."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("shortgpt"):
            _, _, below = node.module.partition(".")
            found |= {below.partition(".")[0]} if below else {alias.name for alias in node.names}
    return found


def top(path: Path) -> str:
    """The module of the package, or the subpackage, that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_module_is_on_the_map_once():
    there = Counter({top(path) for path in PACKAGE.rglob("*.py")} - {"__init__"})
    assert Counter(linked(PAGE)) == there


def test_the_hour_is_an_hour():
    lines = [(PACKAGE / f"{name}.py").read_text(encoding="utf-8").count("\n") for name in linked(METHOD)]
    assert len(lines) == 7 and sum(lines) <= 1500, "25 lines a minute, docstrings included"


def test_the_method_stands_on_itself():
    may = set(linked(METHOD)) | set(linked(TOOLS))
    wrong = {name: imported(PACKAGE / f"{name}.py") - may for name in may}
    assert not {name: rest for name, rest in wrong.items() if rest}


def test_only_the_course_imports_the_course():
    course = {name for name in linked(PAGE.partition("**The course.**")[2]) if name not in ("ablation", "lens")}
    assert {"plots", "checks", "explorers", "cli"} <= course
    for path in PACKAGE.rglob("*.py"):
        if top(path) not in course:
            assert not imported(path) & course, path.name
