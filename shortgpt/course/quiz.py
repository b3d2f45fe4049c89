"""Three multiple-choice questions at the end of each lesson, with an explanation for every choice, right or wrong.

The questions are data (`data/quiz/NN.json`). `quiz` shows them twice: as buttons, for a running notebook, and as folded
text with the answers, for readers of a saved one, where widgets are not to be seen. Only what ipywidgets 7 (Colab) and 8
share is used, and everything can be reached by Tab and pressed by Space or Enter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import ipywidgets as widgets
from IPython.display import HTML, display

from shortgpt.utils.arguments import shown
from shortgpt.utils.data import data_folder

LETTERS = "ABCDEF"


@dataclass(frozen=True)
class Choice:
    """One possible answer: its text, whether it is right, and why."""

    text: str
    right: bool
    because: str


@dataclass(frozen=True)
class Question:
    """A question and its choices, exactly one of them right."""

    question: str
    choices: tuple[Choice, ...]


def read_quiz(lesson: str) -> list[Question]:
    """The questions of one lesson, by its two digits, as in ``read_quiz("03")``. Raises ValueError naming what there is."""
    files = {file.stem: file for file in sorted((data_folder() / "quiz").glob("*.json"))}
    if not isinstance(lesson, str) or lesson not in files:
        raise ValueError(f"there are no questions for lesson {shown(lesson)}: choose one of {', '.join(files)}")
    rows = json.loads(files[lesson].read_text(encoding="utf-8"))
    return [Question(row["question"], tuple(Choice(**choice) for choice in row["choices"])) for row in rows]


def quiz(lesson: str) -> None:
    """Show the questions of a lesson, as in ``quiz("03")``: to be answered, and below that as text, folded away."""
    questions = read_quiz(lesson)
    display(quiz_widget(questions))
    display(HTML(quiz_text(questions)))


def quiz_text(questions: Sequence[Question]) -> str:
    """The questions as HTML without widgets: choices under each question, the answer and its reason folded away."""
    parts = []
    for number, question in enumerate(questions, 1):
        choices = "<br>".join(f"{LETTERS[i]}. {escape(choice.text)}" for i, choice in enumerate(question.choices))
        reasons = "<br>".join(verdict(question, i) for i in range(len(question.choices)))
        parts.append(
            f"<p><b>{number}.</b> {escape(question.question)}</p><p>{choices}</p>"
            f"<details><summary>Answer to {number}</summary><p>{reasons}</p></details>"
        )
    return f"<details><summary>The same questions as text, with answers</summary>{''.join(parts)}</details>"


def verdict(question: Question, choice: int) -> str:
    """What to say about a choice, as HTML: its letter, right or not, and why."""
    chosen = question.choices[choice]
    return f"<b>{LETTERS[choice]} is {'right' if chosen.right else 'not right'}.</b> {escape(chosen.because)}"


def quiz_widget(questions: Sequence[Question]) -> widgets.VBox:
    """Buttons A, B, C … for each question. A press explains that choice; the last line counts the first presses.

    Children: for each question a box with its heading, a row per choice (button and text) and the explanation; then the
    count.
    """
    first: dict[int, bool] = {}  # question -> whether the first press was right; later presses only explain
    count = widgets.HTML()

    def answered(number: int, right: bool) -> None:
        first.setdefault(number, right)
        count.value = (
            f"<p role='status'>{sum(first.values())} of {len(questions)} right at the first try"
            + ("" if len(first) == len(questions) else f", {len(questions) - len(first)} still open")
            + ".</p>"
        )

    boxes = [_question_box(question, number, answered) for number, question in enumerate(questions, 1)]
    return widgets.VBox([*boxes, count])


def _question_box(question: Question, number: int, answered: Callable[[int, bool], None]) -> widgets.VBox:
    explanation = widgets.HTML()
    # Text stands beside its button, because the text of a button is cut off where it should wrap
    buttons = [
        widgets.Button(
            description=LETTERS[i],
            tooltip=f"Question {number}, {LETTERS[i]}: {choice.text}",
            layout=widgets.Layout(width="56px", min_width="56px"),
        )
        for i, choice in enumerate(question.choices)
    ]

    def press(choice: int) -> None:
        right = question.choices[choice].right
        buttons[choice].icon = "check" if right else "times"  # no colours: white on them is hard to read
        explanation.value = f"<p role='status'>{verdict(question, choice)}</p>"
        answered(number, right)

    rows = []
    for i, (button, choice) in enumerate(zip(buttons, question.choices, strict=True)):
        button.on_click(lambda _, i=i: press(i))
        rows.append(widgets.HBox([button, widgets.HTML(escape(choice.text))]))
    heading = widgets.HTML(f"<p><b>{number}.</b> {escape(question.question)}</p>")
    return widgets.VBox([heading, *rows, explanation])
