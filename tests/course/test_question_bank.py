"""docs/question_bank.md: sixty questions that belong to the lessons, with marks that add up and sums that are right."""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from decimal import Decimal

import nbformat
import pytest
from test_setup import ROOT

TEXT = re.sub(r"[ \n]+", " ", (ROOT / "docs" / "question_bank.md").read_text(encoding="utf-8"))
QUESTION = re.compile(
    r"### (?P<lesson>\d\d)\.(?P<number>\d) · (?P<level>\w+) · (?P<points>\d) points (?P<question>.+?) "
    r"\(Section (?P<section>\d+): (?P<terms>[^()]+)\) \*\*Answer\.\*\* (?P<answer>.+?) (?P<marks>- \d: .+?)(?= ##|$)"
)
BANK = [found.groupdict() for found in QUESTION.finditer(TEXT)]
LATER = {"08", "11"}  # lessons that have no questions here yet
LESSONS = sorted({path.stem for path in (ROOT / "data" / "quiz").glob("*.json")} - LATER)
LEVELS = {"Recall": 1, "Understand": 2, "Apply": 2, "Argue": 1}
SUM = re.compile(r"`([^`]+) = ([-\d.e]+)`")
each_question = pytest.mark.parametrize("q", BANK, ids=lambda q: f"{q['lesson']}.{q['number']}")


def lesson_text(lesson: str) -> str:
    path = next((ROOT / "notebooks").glob(f"{lesson}_*.ipynb"))
    return "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)


def value(sum_: str) -> float:
    """The value of a sum such as ``degrees(atan(0.3))``: numbers, operators and functions of `math`, nothing else."""
    allowed = ast.Expression | ast.BinOp | ast.UnaryOp | ast.operator | ast.unaryop | ast.Call | ast.Name | ast.Load
    for node in ast.walk(tree := ast.parse(sum_, mode="eval")):
        assert isinstance(node, allowed | ast.Constant), f"{sum_}: {ast.dump(node)}"
    return eval(compile(tree, "sum", "eval"), {"__builtins__": {}} | vars(math))


def test_sixty_different_questions_six_for_each_lesson():
    assert len(BANK) == TEXT.count("### ") == 60
    assert Counter(q["lesson"] for q in BANK) == dict.fromkeys(LESSONS, 6)
    for lesson in LESSONS:
        own = [q for q in BANK if q["lesson"] == lesson]
        assert [q["number"] for q in own] == list("123456")
        assert Counter(q["level"] for q in own) == LEVELS
    assert max(Counter(q[part] for q in BANK for part in ("question", "answer")).values()) == 1


@each_question
def test_marks_add_up_and_the_usual_mistake_earns_less(q):
    marks, _, often = q["marks"].partition(" - Often: ")
    assert sum(int(mark) for mark in re.findall(r"(?:^| )- (\d): ", marks)) == int(q["points"])
    earns = re.findall(r"Earns (\d)", often)
    assert len(earns) == 1 and int(earns[0]) < int(q["points"]), often
    assert len(q["answer"].split()) >= 15


@each_question
def test_section_and_terms_are_in_the_lesson(q):
    text = lesson_text(q["lesson"])
    assert re.search(rf"(?m)^## {q['section']}\. ", text), f"lesson {q['lesson']} has no section {q['section']}"
    missing = [term for term in q["terms"].split(", ") if term.lower() not in text.lower()]
    assert not missing, f"lesson {q['lesson']} never says {missing}"


@each_question
def test_every_number_is_given_or_computed(q):
    """An equation is right to its last digit; a number elsewhere in the answer stands in the question or in one."""
    for left, right in SUM.findall(q["answer"] + q["marks"]):
        unit = 10.0 ** Decimal(right).as_tuple().exponent
        assert abs(value(left) - float(right)) <= 0.5001 * unit, f"{left} is {value(left)}, not {right}"
    number = r"\d+(?:\.\d+)?"
    given = {float(n) for n in re.findall(number, q["question"])}
    given |= {float(right) for _, right in SUM.findall(q["answer"])} | {
        abs(float(r)) for _, r in SUM.findall(q["answer"])
    }
    loose = {float(n) for n in re.findall(number, SUM.sub("", q["answer"]))}
    assert loose - given <= {*range(10), 100}, q["answer"]
