"""What each token of an answer hangs on, by hand."""

import pandas as pd
import pytest
from tiny_twins import ITEMS

from shortgpt.course.studies.steps import accuracy_by_step, answer_steps, lost_carry


def test_carries_come_in_where_the_digits_below_add_up_to_ten():
    """347 + 586 = 933: 7 + 6 gives a carry, and 4 + 8 + 1 another."""
    prompt, answer = ITEMS[0]["prompt"], ITEMS[0]["answer"]
    steps = answer_steps(ITEMS[0])
    assert [(s.step, s.size) for s in steps] == [("no carry in", 0), ("carry in", 1), ("carry in", 2), ("end", 0)]
    letters = [{role: (prompt + answer)[place] for role, place in s.places.items()} for s in steps]
    assert letters[0] == {"asked": "=", "first number's digit": "7", "second number's digit": "6"}
    assert letters[1] == {
        "asked": "3", "first number's digit": "4", "second number's digit": "8",
        "first number's digit below": "7", "second number's digit below": "6",
    }  # fmt: skip
    assert letters[3] == {"asked": "9", "first number's digit below": "3", "second number's digit below": "5"}


def test_numbers_of_two_lengths():
    """95 + 8 = 103."""
    steps = answer_steps(ITEMS[1])
    assert [s.step for s in steps] == ["no carry in", "carry in", "carry in", "end"]
    text = ITEMS[1]["prompt"] + ITEMS[1]["answer"]
    assert {role: text[place] for role, place in steps[1].places.items()} == {
        "asked": "3", "first number's digit": "9", "first number's digit below": "5", "second number's digit below": "8",
    }  # fmt: skip


@pytest.mark.parametrize("a, b", [(999, 1), (1234, 4321), (5, 5), (90, 9999)])
def test_with_its_carry_each_digit_is_the_sum(a, b):
    answer = str(a + b)[::-1]
    steps = answer_steps({"task": "addition", "prompt": f"{a}+{b}=", "answer": answer, "level": 1})
    text = f"{a}+{b}="
    for letter, step in zip(answer, steps, strict=True):
        digits = [int(text[place]) for role, place in step.places.items() if role.endswith("digit")]
        assert int(letter) == (sum(digits) + (step.step == "carry in")) % 10


def test_brackets_are_closed_inside_out():
    steps = answer_steps(ITEMS[2])  # behind ([]{[ three are open
    text = ITEMS[2]["prompt"] + ITEMS[2]["answer"]
    assert [(s.step, s.size) for s in steps] == [("bracket", 2), ("bracket", 4), ("bracket", 8), ("end", 0)]
    assert [text[s.places["bracket that is closed"]] for s in steps[:3]] == ["[", "{", "("]
    assert all(text[s.places["marker"]] == "|" for s in steps)


def test_the_verb_hangs_on_the_noun():
    (step,) = answer_steps(ITEMS[3])
    prompt = ITEMS[3]["prompt"]
    assert (
        step.step == "verb, misled"
        and step.size == 3
        and prompt[step.places["noun"] :].startswith("keys")
        and step.places["asked"] == len(prompt) - 1
    )
    alone = {"task": "agreement", "prompt": "The old key", "distance": 0, "number": "singular", "attractors": []}
    assert answer_steps(alone) == [("verb", 0, {"asked": 10, "noun": 8})]
    agreeing = ITEMS[3] | {"attractors": ["singular", "plural"]}
    assert answer_steps(agreeing)[0].step == "verb", "the last attractor agrees"


def test_a_carry_is_lost_if_the_digit_is_one_too_small():
    assert lost_carry("4", "3") and lost_carry("0", "9")
    assert not lost_carry("4", "5") and not lost_carry("4", "]") and not lost_carry("\n", "3")


def test_accuracy_by_step_counts_tokens():
    answers = pd.DataFrame({"item": 0, "task": "addition", "position": range(4), "expected": [*"339\n"]})
    table = accuracy_by_step(answers.assign(predicted=[*"328\n"], right=[True, False, False, True]), ITEMS).set_index(
        "step"
    )
    assert (table["n"] == 1).all() and len(table) == 4
    assert table.loc["no carry in", "right"] == 1 and table.loc["end", "right"] == 1
    assert table.loc["carry in", "right"].tolist() == [0, 0] and table.loc["carry in", "lost_carry"].tolist() == [1, 1]
    assert table.loc["carry in", "size"].tolist() == [1, 2]
