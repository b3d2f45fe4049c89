"""Answers that a learner writes before looking: text boxes, and a file that keeps what was written.

For pages that ask first and show afterwards, such as `notebooks/20_ten_questions.ipynb`. Only what ipywidgets 7 (Colab) and
8 share is used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from html import escape
from pathlib import Path

import ipywidgets as widgets

from shortgpt.utils.arguments import shown
from shortgpt.utils.atomic import file_written_beside
from shortgpt.utils.untrusted import read_json


def read_answers(file: str | os.PathLike) -> dict[str, str]:
    """What `AnswerBook` has written to `file`: question → answer, or nothing if there is no such file yet."""
    file = Path(file)
    if not file.exists():
        return {}
    wrong = f"{file} does not hold answers: move it away, or give another file"
    answers = read_json(file, wrong)
    if not all(isinstance(answer, str) for answer in answers.values()):
        raise ValueError(wrong)
    return answers


class AnswerBook:
    """Ask questions in one place, and show the learner's own answers in another.

    Args:
        questions: name → question, for instance ``{"1": "Why …?"}``.
        file: where answers are kept. Those that are there already are shown again.
    """

    def __init__(self, questions: Mapping[str, str], file: str | os.PathLike) -> None:
        if not isinstance(questions, Mapping) or not questions:
            raise ValueError(
                f"questions must be a dict from name to question with one at least, got {shown(questions)}"
            )
        self.questions = {str(name): question for name, question in questions.items()}
        self.file = Path(file)
        self.answers = read_answers(self.file)
        self._mirrors: dict[str, list[widgets.HTML]] = {name: [] for name in self.questions}

    def ask(self) -> widgets.VBox:
        """A box for each question: the question, a text field, a button *Keep*, and what has been kept."""
        return widgets.VBox([self._box(name, question) for name, question in self.questions.items()])

    def keep(self, name: str, answer: str) -> None:
        """Keep this answer: in the file, and wherever `kept` shows it.

        Raises:
            ValueError: an unknown question, or an empty answer. OSError: it can't be written; earlier ones stay.
        """
        self._check(name)
        if not isinstance(answer, str) or not answer.strip():
            raise ValueError("there is nothing to keep: write an answer first, a guess will do")
        answers = self.answers | {name: answer.strip()}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with file_written_beside(self.file) as beside:
            beside.write_text(json.dumps(answers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        self.answers = answers
        for mirror in self._mirrors[name]:
            mirror.value = self._quoted(name)

    def kept(self, name: str) -> widgets.HTML:
        """The learner's answer to this question, as it is now and whenever it changes."""
        self._check(name)
        self._mirrors[name].append(widgets.HTML(self._quoted(name)))
        return self._mirrors[name][-1]

    def _box(self, name: str, question: str) -> widgets.VBox:
        field = widgets.Textarea(
            value=self.answers.get(name, ""),
            placeholder=f"Your answer to question {name}",
            layout=widgets.Layout(width="95%", height="70px"),
        )
        button = widgets.Button(description=f"Keep {name}", tooltip=f"Keep your answer to question {name}: {question}")
        note = widgets.HTML()

        def press(_: widgets.Button) -> None:
            try:
                self.keep(name, field.value)
            except (ValueError, OSError) as error:
                note.value = f"<p role='status'>{_sentence(error)}</p>"
            else:
                button.icon, note.value = "check", f"<p role='status'>Kept in {escape(self.file.name)}.</p>"

        button.on_click(press)
        heading = widgets.HTML(f"<p><b>{escape(name)}.</b> {escape(question)}</p>")
        return widgets.VBox([heading, field, widgets.HBox([button, note])])

    def _quoted(self, name: str) -> str:
        if name not in self.answers:
            return f"<p><i>You have not kept an answer to question {escape(name)} yet.</i></p>"
        return f"<p>You wrote:</p><blockquote>{escape(self.answers[name])}</blockquote>"

    def _check(self, name: str) -> None:
        if name not in self.questions:
            raise ValueError(f"there is no question {shown(name)}: choose one of {', '.join(self.questions)}")


def _sentence(error: Exception) -> str:
    text = str(error)
    return escape(text[:1].upper() + text[1:]) + "."  # the rest as it is: there may be a path in it
