"""Exercise notebooks: what remains of a lesson for a learner who solves its exercises.

In a lesson's source the section ``## Exercises`` holds, for each exercise, four cells or more:

    text          a heading, difficulty and minutes, the task, hints folded away
    ``exercise``  one function; its solution lies between the lines ``### BEGIN SOLUTION`` and ``### END SOLUTION``
    ``check``     the call of the function's check
    ``apply``     if any: the function used on the real model
    text          what the result means

The lesson shows the solution without the two marker lines. The exercise notebook takes the cells that are tagged
``setup`` or ``for-exercises`` and this section, with a line that raises NotImplementedError in place of each solution.
Its cells carry nbgrader's metadata; cells that can't succeed before the learner has written something are tagged
``raises-exception``, so that a run goes on after them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from nbformat import NotebookNode

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
REGION = re.compile(rf"^([ \t]*){BEGIN}\n(.*?)^[ \t]*{END}(?:\n|$)", re.DOTALL | re.MULTILINE)
POINTS = {"easy": 1, "medium": 2, "hard": 3}
EFFORT = re.compile(rf"\*\*Difficulty:\*\* ({'|'.join(POINTS)}) · \*\*Minutes:\*\* (\d+)")
Cell = tuple[str, str, dict[str, Any]]  # kind, source, metadata


class ExerciseError(ValueError):
    """An exercise in a lesson's source is not laid out as this module needs it. The message says which, and how."""


def with_solution(source: str) -> str:
    """The cell as the lesson shows it: without the two marker lines."""
    return REGION.sub(lambda found: found[2], source).rstrip("\n") if BEGIN in source else source


def with_stub(source: str) -> str:
    """The cell as a learner gets it: the solution replaced by one line that raises NotImplementedError."""
    message = f"{function_name(source)}() is still to be written: put your lines in place of this one"
    return REGION.sub(rf'\1raise NotImplementedError("{message}")\n', source).rstrip("\n")


def function_name(source: str) -> str:
    """Name of the one function that an exercise cell defines and that holds its one solution."""
    names = re.findall(r"^def (\w+)\(", source, flags=re.MULTILINE)
    if len(names) != 1 or len(REGION.findall(source)) != 1 or source.count("SOLUTION") != 2:
        raise ExerciseError(
            f"an exercise cell needs one function with one solution between {BEGIN} and {END}:\n{source}"
        )
    return names[0]


def has_exercises(cells: Sequence[NotebookNode]) -> bool:
    return any("exercise" in tags(cell) for cell in cells)


def exercise_cells(cells: Sequence[NotebookNode], name: str, project: str, *, solved: bool = False) -> list[Cell]:
    """The cells of the exercise notebook of the lesson ``name`` (its file name without ending).

    Args:
        cells: the cells of the lesson's source.
        project: OWNER/REPO on GitHub, for the badge.
        solved: keep solutions and markers, as ``nbgrader generate_assignment`` wants its source.
    """
    needed = [cell for cell in cells if {"setup", "for-exercises"} & set(tags(cell))]
    section = _section(cells)
    result = [("markdown", _opening(cells[0].source, section, name, project), {})]
    result += [(cell.cell_type, cell.source, {"tags": tags(cell)} if tags(cell) else {}) for cell in needed]
    result.append(("markdown", "## Exercises", {}))
    return result + list(_graded(section, name, solved))


def tags(cell: NotebookNode) -> list[str]:
    return list(cell.metadata.get("tags", []))


def _section(cells: Sequence[NotebookNode]) -> list[NotebookNode]:
    """The cells after the one that opens the section Exercises (its text is for readers of the lesson)."""
    opens = [i for i, cell in enumerate(cells) if cell.cell_type == "markdown" and cell.source.startswith("## ")]
    starts = [i for i in opens if cells[i].source.startswith("## Exercises\n")]
    if len(starts) != 1:
        raise ExerciseError(
            f"a lesson with exercises needs one text cell that begins with ## Exercises, not {len(starts)}"
        )
    end = min((i for i in opens if i > starts[0]), default=len(cells))
    return list(cells[starts[0] + 1 : end])


def _graded(section: Sequence[NotebookNode], name: str, solved: bool) -> Iterator[Cell]:
    """The section's cells with nbgrader's metadata. Marks follow from the difficulty that the text announces."""
    points, function = 0, ""
    for cell in section:
        source, own = cell.source, tags(cell)
        metadata: dict[str, Any] = {"tags": own} if own else {}
        if cell.cell_type == "markdown" and (effort := EFFORT.search(source)):
            points = POINTS[effort[1]]
        elif "exercise" in own:
            if not points:
                raise ExerciseError(f"{name}: no text with difficulty and minutes stands before this cell:\n{source}")
            function = function_name(source)
            metadata["nbgrader"] = graded_cell(function, solution=True)
            source = source if solved else with_stub(source)
        elif "check" in own:
            if f"check_{function}({function})" not in source:
                raise ExerciseError(f"{name}: the cell after {function or 'no exercise'} does not check it:\n{source}")
            metadata["nbgrader"] = graded_cell(f"check_{function}", grade=True, locked=True, points=points)
            points = 0
        if {"check", "apply"} & set(own):
            metadata["tags"] = [*own, "raises-exception"]
        yield cell.cell_type, source, metadata


def graded_cell(
    identity: str, *, grade: bool = False, solution: bool = False, locked: bool = False, **points: int
) -> dict:
    """nbgrader's metadata of a cell."""
    parts = {"grade": grade, "grade_id": identity, "locked": locked, "solution": solution, "task": False}
    return dict(sorted((parts | points | {"schema_version": 3}).items()))


def _opening(lesson: str, section: Sequence[NotebookNode], name: str, project: str) -> str:
    """The first cell: badge, title, how to work, and how long it takes."""
    title, needs = (
        re.search(r"^# (\d\d) · ([^:\n]+)", lesson, re.MULTILINE),
        re.search(r"\*\*Memory:\*\*[^\n]*", lesson),
    )
    minutes = sum(int(effort[2]) for cell in section for effort in EFFORT.finditer(cell.source))
    if not title or not needs:
        raise ExerciseError(f"{name}: the first cell lacks a title such as '# 01 · Name: more', or the memory")
    badge = "https://colab.research.google.com/assets/colab-badge.svg"
    here = f"https://colab.research.google.com/github/{project}/blob/main/notebooks/exercises/{name}.ipynb"
    return f"""[![Open in Colab]({badge})]({here})

# {title[1]} · Exercises: {title[2].strip()}

These are the exercises of [lesson {title[1]}](../{name}.ipynb); read the lesson first. In each exercise you write one
function: put your lines in place of the one that raises `NotImplementedError`, run the cell, and run the check below it.
A check tries your function on several inputs. If something is wrong it says what it expected, what it got, and what the
mistake may be. The exercises don't build on each other, so a hard one can wait. The lesson's end has a solution to each.

**Takes:** about {minutes} minutes of your time · {needs[0]}"""
