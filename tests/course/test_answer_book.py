"""Answers are kept before anything is shown: in a file, on the page, and again after a restart. No browser."""

import errno
import json
from pathlib import Path

import ipywidgets as widgets
import pytest

from shortgpt.course.answer_book import AnswerBook, read_answers

QUESTIONS = {"1": "Why < how?", "2": "What then?"}


@pytest.fixture
def book(tmp_path):
    return AnswerBook(QUESTIONS, tmp_path / "new" / "answers.json")


def parts(book: AnswerBook) -> list[tuple[widgets.HTML, widgets.Textarea, widgets.Button, widgets.HTML]]:
    return [(box.children[0], box.children[1], *box.children[2].children) for box in book.ask().children]


def test_every_question_gets_a_field_and_a_button(book):
    boxes = parts(book)
    assert len(boxes) == 2 and "Why &lt; how?" in boxes[0][0].value
    assert [button.description for _, _, button, _ in boxes] == ["Keep 1", "Keep 2"]


def test_what_is_kept_stands_in_the_file_and_on_the_page(book):
    shown, other = book.kept("1"), book.kept("2")
    assert "not kept" in shown.value and not book.file.exists()
    _, field, button, note = parts(book)[0]
    field.value = " <b>since</b> "
    button.click()
    assert json.loads(book.file.read_text(encoding="utf-8")) == {"1": "<b>since</b>"}
    assert "&lt;b&gt;since" in shown.value and "&lt;b&gt;since" in book.kept("1").value
    assert "not kept" in other.value and "Kept" in note.value


def test_a_later_answer_replaces_the_earlier_and_leaves_the_others(book):
    for name, answer in (("1", "a"), ("2", "b"), ("1", "c")):
        book.keep(name, answer)
    assert read_answers(book.file) == {"1": "c", "2": "b"}


def test_answers_survive_a_restart(book):
    book.keep("2", "later")
    again = AnswerBook(QUESTIONS, book.file)
    assert parts(again)[1][1].value == "later" and "later" in again.kept("2").value
    assert parts(again)[0][1].value == ""


def test_an_empty_answer_is_not_kept_and_says_so(book):
    _, _, button, note = parts(book)[0]
    button.click()
    assert "write an answer first" in note.value and not book.file.exists()


def test_a_full_disk_is_told_and_loses_nothing(book, monkeypatch):
    book.keep("1", "first")
    before, write = book.file.read_bytes(), Path.write_text

    def half(path, text, **options):
        write(path, text[: len(text) // 2], **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    shown = book.kept("1")
    _, field, button, note = parts(book)[0]
    field.value = "second"
    button.click()
    assert "disk is full" in note.value and "Kept" not in note.value
    assert book.file.read_bytes() == before and "first" in shown.value and book.answers == {"1": "first"}
    assert [file.name for file in book.file.parent.iterdir()] == [book.file.name]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda book, file: book.kept("3"), r"there is no question '3': choose one of 1, 2"),
        (lambda book, file: book.keep(1, "a"), r"there is no question 1: choose one of 1, 2"),
        (lambda book, file: book.keep("1", "  "), r"there is nothing to keep"),
        (lambda book, file: book.keep("1", None), r"there is nothing to keep"),
        (lambda book, file: AnswerBook({}, file), r"questions must be a dict .* got dict"),
        (lambda book, file: AnswerBook(["a"], file), r"questions must be a dict .* got list"),
        (lambda book, file: read_answers(file), r"broken.json does not hold answers: move it away"),
    ],
)
def test_a_wrong_call_is_one_sentence(call, says, book, tmp_path):
    file = tmp_path / "broken.json"
    file.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=says) as raised:
        call(book, file)
    assert "\n" not in str(raised.value) and file.read_text(encoding="utf-8") == "{"
