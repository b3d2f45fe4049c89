"""The quiz: its questions give nothing away, and its buttons explain. No browser: a press is `Button.click()`."""

import itertools
import math
import re
from collections import Counter
from pathlib import Path

import ipywidgets as widgets
import pytest

from shortgpt.course.quiz import LETTERS, Choice, Question, quiz, quiz_text, quiz_widget, read_quiz
from shortgpt.utils.data import data_folder

LESSONS = sorted(file.stem for file in (data_folder() / "quiz").glob("*.json"))
QUESTIONS = {lesson: read_quiz(lesson) for lesson in LESSONS}
ALL = [question for questions in QUESTIONS.values() for question in questions]
TEACHING = [
    path.name[:2]
    for path in (Path(__file__).parents[2] / "notebooks" / "source").glob("*.py")
    if path.name[:2] < "20"  # from 20 on they are pages, not lessons
]


def answer(question: Question) -> int:
    """The place of the right choice, counted from 0."""
    return next(i for i, choice in enumerate(question.choices) if choice.right)


def test_every_lesson_has_three_questions_and_no_other_has_any():
    assert sorted(TEACHING) == LESSONS
    assert {len(questions) for questions in QUESTIONS.values()} == {3}


@pytest.mark.parametrize("question", ALL, ids=lambda question: question.question[:40])
def test_a_question_has_one_right_answer_and_a_reason_for_each(question):
    assert sum(choice.right for choice in question.choices) == 1
    assert 3 <= len(question.choices) <= 4
    assert len({choice.text.lower() for choice in question.choices}) == len(question.choices)
    for choice in question.choices:
        assert 25 <= len(choice.because) <= 220 and choice.because.endswith("."), choice.because
        assert not re.search(r"[<>*_`]{2}|\$", choice.text + choice.because), "markup is shown as it stands"


def test_no_question_and_no_reason_comes_twice():
    texts = [question.question for question in ALL] + [c.because for question in ALL for c in question.choices]
    assert max(Counter(texts).values()) == 1


def test_right_answers_stand_in_every_place_equally_often():
    places = Counter(answer(question) for question in ALL)
    assert set(places) == {0, 1, 2, 3} and max(places.values()) - min(places.values()) <= 1
    for questions in QUESTIONS.values():
        assert len({answer(question) for question in questions}) == 3, "never one letter twice in a lesson"


@pytest.mark.parametrize("pick", [max, min])
def test_length_gives_nothing_away(pick):
    """Always taking the longest (or the shortest) choice must not beat guessing by more than a tenth."""
    won = 0.0
    for question in ALL:
        lengths = [len(choice.text) for choice in question.choices]
        best = [i for i, n in enumerate(lengths) if n == pick(lengths)]
        won += (answer(question) in best) / len(best)
    guessing = sum(1 / len(question.choices) for question in ALL)
    assert won / len(ALL) <= guessing / len(ALL) + 0.1, won


def test_the_arithmetic_in_the_questions():
    """What the explanations compute, from the numbers in their questions. A changed number must change both."""

    def numbers(lesson: str, part: str) -> tuple[list[float], str]:
        question = next(q for q in QUESTIONS[lesson] if part in q.question)
        right = question.choices[answer(question)]
        return [float(n) for n in re.findall(r"\d+(?:\.\d+)?", question.question)], right.because + right.text

    cosine = 1 / math.sqrt(1 + 1 / 16)
    assert f"about {cosine:.2f}" in numbers("01", "a quarter as long")[1]
    assert any(f"{math.degrees(math.atan(1 / 4)):.0f} degrees" in c.because for c in QUESTIONS["01"][0].choices)
    (prune, both_bits, both), text = numbers("04", "interaction")
    assert math.isclose(both, prune + both_bits) and f"{both} − {prune} − {both_bits} = 0" in text
    gone, text = numbers("03", "dense layer 26")
    *removed, wanted = gone
    assert f"[{wanted - sum(layer < wanted for layer in removed):.0f}]" in text
    (dense, pruned), text = numbers("05", "two answers")
    assert (pruned - 50) / (dense - 50) == 0.5 and "Half" in text
    (cost, accepted), text = numbers("10", "draft pass")
    assert f"{1 + accepted / 100:.1f} tokens for {1 + cost:.1f} passes" in text and accepted / 100 < cost


# ---- the widget ----


def parts(box: widgets.VBox) -> tuple[list[list[widgets.Button]], list[widgets.HTML], widgets.HTML]:
    """The buttons and the explanation of each question, and the count."""
    *questions, count = box.children
    buttons = [[row.children[0] for row in q.children if isinstance(row, widgets.HBox)] for q in questions]
    return buttons, [q.children[-1] for q in questions], count


@pytest.fixture
def two():
    wrong, right = Choice("two < three", False, "No <b>."), Choice("one", True, "Since & so.")
    return [Question("How many?", (wrong, right, Choice("none", False, "Never."))), Question("And?", (right, wrong))]


def test_a_press_explains_this_choice_and_only_here(two):
    buttons, explanations, _ = parts(quiz_widget(two))
    assert [len(row) for row in buttons] == [3, 2] and explanations[0].value == ""
    buttons[0][0].click()
    assert "A is not right." in explanations[0].value and "No &lt;b&gt;." in explanations[0].value
    assert explanations[1].value == "" and buttons[0][0].icon == "times"
    buttons[0][1].click()
    assert "B is right." in explanations[0].value and "Since &amp; so." in explanations[0].value
    assert buttons[0][1].icon == "check" and buttons[0][0].icon == "times", "what was tried stays marked"


def test_only_first_presses_count(two):
    buttons, _, count = parts(quiz_widget(two))
    assert count.value == ""
    buttons[0][0].click()
    buttons[0][1].click()  # right, but second
    assert "0 of 2 right at the first try, 1 still open" in count.value
    buttons[1][0].click()
    buttons[1][1].click()
    assert "1 of 2 right at the first try." in count.value


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_button_says_whether_it_is_right_and_why(lesson):
    buttons, explanations, count = parts(quiz_widget(QUESTIONS[lesson]))
    for question, row, explanation in zip(QUESTIONS[lesson], buttons, explanations, strict=True):
        for letter, choice, button in zip(LETTERS, question.choices, row, strict=False):
            assert button.description == letter and choice.text in button.tooltip  # a screen reader reads the tooltip
            button.click()
            assert f"{letter} is {'right' if choice.right else 'not right'}." in explanation.value
    assert "still open" not in count.value


def test_the_text_holds_everything_and_folds_the_answers(two):
    text = quiz_text(two)
    for question, choice in itertools.chain.from_iterable(itertools.product([q], q.choices) for q in two):
        for part in (question.question, choice.text, choice.because):
            assert part.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in text
    assert text.count("<details>") == text.count("</details>") == 3
    unfolded = re.sub(r"<details><summary>Answer.*?</details>", "", text)
    assert "right" not in unfolded and "two &lt; three" in unfolded


def test_quiz_shows_the_buttons_and_then_the_text(monkeypatch):
    seen = []
    monkeypatch.setattr("shortgpt.course.quiz.display", seen.append)
    assert quiz("00") is None
    buttons, text = seen
    assert isinstance(buttons, widgets.VBox) and len(parts(buttons)[0]) == 3
    assert QUESTIONS["00"][0].question in text.data


@pytest.mark.parametrize("lesson", ["99", 3, None, "../quiz/00"])
def test_a_lesson_without_questions_is_one_sentence(lesson):
    with pytest.raises(ValueError, match=r"there are no questions for lesson .*: choose one of 00, 01, ") as raised:
        read_quiz(lesson)
    assert "\n" not in str(raised.value)


def test_a_lesson_shows_its_own_questions():
    for path in (Path(__file__).parents[2] / "notebooks" / "source").glob("[01]*.py"):
        found = re.findall(r"""\bquiz\(["'](\d\d)["']\)""", path.read_text(encoding="utf-8"))
        assert found == [path.name[:2]], f"{path.name} shows the questions of {found}"
