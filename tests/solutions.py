"""The lessons' exercises as their sources hold them, with their solutions, and their checks: for the tests of those."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import jupytext
import torch
from torch import nn

from shortgpt import block_influence
from shortgpt.course import checks

__all__ = ["check", "defined", "exercises", "with_solution", "with_stub"]
NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
sys.path.append(str(NOTEBOOKS))
from exercise_notebooks import function_name, with_solution, with_stub  # noqa: E402


@functools.cache
def exercises() -> dict[str, str]:
    """The cell of each exercise in the lessons' sources, and in drafts of lessons, by the name of its function."""
    found = {}
    for source in sorted([*(NOTEBOOKS / "source").glob("*.py"), *(NOTEBOOKS / "drafts").glob("*.py")]):
        for cell in jupytext.read(source, fmt="py:percent").cells:
            if "exercise" in cell.metadata.get("tags", []):
                found[function_name(cell.source)] = cell.source
    return found


def defined(source: str, name: str) -> Callable:
    namespace = {"torch": torch, "nn": nn, "block_influence": block_influence}
    exec(compile(source, f"<{name}>", "exec"), namespace)
    return namespace[name]


def check(name: str) -> Callable:
    return getattr(checks, f"check_{name}")
