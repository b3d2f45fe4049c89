"""Choosing and writing on the same items: rigged models that can do one and not the other, and errors by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from rigged import rigged
from small import build_tiny, joining

from shortgpt import choice_and_generation, choice_summary, evaluate
from shortgpt.course.studies.choice_generation import read_answer
from shortgpt.utils.data import data_folder

ITEMS = [json.loads(line) for line in (data_folder() / "tasks" / "science.jsonl").open(encoding="utf-8")][:4]
SOUP = "Question: What do you use to eat soup?\nA. a fork\nB. a toothpick\nC. a spoon\nD. a knife\nAnswer:"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("a spoon", 2), ("A spoon.", 2), ("The Spoon!", 2), ("C", 2), ("C. a spoon", 2), ("(C) because", 2), ("D: knife", 3),
        ("You use a spoon to eat it.", 2), ("a fork or a spoon", None), ("a teaspoon", None), ("a ladle", None), ("", None),
        ("A fork and a fork", 0), ("E. a whisk", None), ("A", 0), ("I use hands", None), ("Be kind", None),
        ("The answer is C.", 2), ("the correct answer is: (D)", 3), ("The answer is A spade", None),
    ],
)  # fmt: skip
def test_written_answers_are_read_as_a_person_would(written, read):
    assert read_answer(written, ["a fork", "a toothpick", "a spoon", "a knife"]) == read


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("勺子", 2), ("勺子。", 2), ("喝汤用勺子。", 2), ("C", 2), ("C、勺子", 2), ("（C）勺子", 2), ("C：勺子", 2),
        ("C 勺子", 2), ("答案是C。", 2), ("正确答案：D", 3), ("应该选C。", 2), ("“勺子”", 2), ("叉子或者勺子", None),
        ("筷子", None), ("勺子和勺子", 2), ("E。", None),
    ],
)  # fmt: skip
def test_chinese_answers_are_read_too(written, read):
    assert read_answer(written, ["叉子", "牙签", "勺子", "刀子"]) == read


def test_a_choice_inside_a_longer_one_is_not_named_with_it():
    hours, sweets = ["九十", "十", "六十", "二十四"], ["ice", "ice cream", "icing"]
    assert read_answer("一共有二十四个小时", hours) == 3 and read_answer("十个小时", hours) == 1
    assert read_answer("六十或者十", hours) is None
    assert read_answer("I like ice cream best", sweets) == 1 and read_answer("ice cream on ice", sweets) is None


def test_the_chinese_task_asks_in_chinese():
    asked = "问题：喝汤的时候用什么？\nA. 叉子\nB. 牙签\nC. 勺子\nD. 刀子\n答案："
    model, tokenizer = rigged(f"{asked}勺子。\n完", f"<{asked.removesuffix(chr(10) + '答案：')}>叉子\n")
    (row,) = choice_and_generation(model, tokenizer, "science_zh", limit=1, progress=False).to_dict("records")
    assert (
        row["item"] == "sc-001"
        and row["written"] == "勺子。"
        and row["answer"] == row["choice"] == row["read"] == "勺子"
    )
    assert row["choice_right"] and row["written_right"]
    tokenizer.chat_template = "<{{ messages[0]['content'] }}>"
    row = choice_and_generation(model, tokenizer, "science_zh", limit=1, progress=False)
    assert row["choice"].item() == row["written"].item() == "叉子"


def test_letters_count_only_where_they_were_shown():
    assert read_answer("B", ["salt", "iron"]) == 1 and read_answer("B", ["salt", "iron"], letters=False) is None


def test_a_model_that_knows_the_answer_chooses_and_writes_it():
    (row,) = choice_and_generation(*rigged(f"{SOUP} a spoon\nBye"), limit=1, progress=False).to_dict("records")
    assert row == {
        "task": "science", "item": "sc-001", "question": "What do you use to eat soup?", "answer": "a spoon",
        "choice": "a spoon", "choice_right": True, "written": "a spoon", "read": "a spoon", "written_right": True,
    }  # fmt: skip


def test_a_letter_is_an_answer_too_and_a_wrong_one_is_wrong():
    for text, read, right in ((" C\n", "a spoon", True), (" B) a\n", "a toothpick", False), (" soup\n", "", False)):
        row = choice_and_generation(
            *rigged(SOUP + text, *(c for i in ITEMS for c in i["choices"])), limit=1, progress=False
        )
        assert row["read"].item() == read and row["written_right"].item() is right


def test_choosing_can_survive_where_writing_does_not():
    """The model goes on with nonsense, but of the choices it finds the one likeliest that shares its beginning."""
    row = choice_and_generation(*rigged(f"{SOUP} a spade\n", *"fkth"), limit=1, progress=False)
    assert row["choice"].item() == "a spoon" and row["choice_right"].item() is True
    assert row["written"].item() == "a spade" and row["read"].item() == "" and row["written_right"].item() is False


def test_a_chat_template_is_used_for_both_ways_unless_it_is_refused():
    chat = "<" + SOUP.removesuffix("\nAnswer:") + ">"
    model, tokenizer = rigged(f"{chat}a spoon\nBye", f"{SOUP} a knife\n")
    tokenizer.chat_template = "<{{ messages[0]['content'] }}>"
    row = choice_and_generation(model, tokenizer, limit=1, progress=False)
    assert row["choice"].item() == row["written"].item() == "a spoon"
    row = choice_and_generation(model, tokenizer, limit=1, chat=False, progress=False)
    assert row["choice"].item() == row["written"].item() == "a knife"


@pytest.mark.parametrize("task", ["science", "science_zh"])
def test_without_choices_in_the_prompt_the_choice_is_that_of_the_harness(tokenizer, task):
    tokenizer.eos_token = "?"
    model = build_tiny()
    table = choice_and_generation(model, tokenizer, task, limit=24, choices_shown=False, new_tokens=1, progress=False)
    expected = evaluate(model, tokenizer, task, limit=24, progress=False)["value"].item()
    assert 100 * table["choice_right"].mean() == pytest.approx(expected) and 0 < expected < 100
    assert table["item"].tolist()[:4] == [item["id"] for item in ITEMS] and table["question"].is_unique


def test_a_choice_counts_whole_where_its_tokens_join_those_of_the_prompt():
    items = [json.loads(line) for line in (data_folder() / "tasks/science_zh.jsonl").read_text().splitlines()[:30]]
    joined = ["答案：" + choice for item in items for choice in item["choices"]]
    model, tokenizer = joining([*joined, *(item["question"] for item in items)])
    assert len(tokenizer(joined[0])["input_ids"]) < 4 + len(items[0]["choices"][0])
    table = choice_and_generation(
        model, tokenizer, "science_zh", limit=30, choices_shown=False, chat=False, new_tokens=1, progress=False
    )
    theirs = evaluate(model, tokenizer, ["science_zh"], limit=30, progress=False)
    assert table["choice_right"].mean() * 100 == pytest.approx(theirs["value"].item())


def test_the_summary_is_paired():
    """Seven items: both right 3 times, only by choice twice, only written once, neither once."""
    pairs = [(1, 1)] * 3 + [(1, 0)] * 2 + [(0, 1)] + [(0, 0)]
    table = pd.DataFrame(pairs, columns=["choice_right", "written_right"]).astype(bool)
    table["read"] = ["x"] * 5 + ["", ""]
    (row,) = choice_summary(table).to_dict("records")
    differences = np.array([0, 0, 0, 1, 1, -1, 0])
    assert row["items"] == 7 and row["choice"] == pytest.approx(500 / 7) and row["written"] == pytest.approx(400 / 7)
    assert row["difference"] == pytest.approx(100 / 7)
    assert row["difference_error"] == pytest.approx(100 * differences.std(ddof=1) / 7**0.5)
    assert row["only_choice"] == pytest.approx(200 / 7) and row["only_written"] == pytest.approx(100 / 7)
    assert row["unread"] == pytest.approx(200 / 7)
    share = 5 / 7  # the standard error of a share, as the harness computes it
    assert row["choice_error"] == pytest.approx(100 * (share * (1 - share) / 6) ** 0.5)


def test_agreement_makes_the_difference_sure():
    """The same share of right answers both ways: without pairing, its error would look like that of independent items."""
    rng = np.random.default_rng(0)
    right = rng.random(400) < 0.6
    same = choice_summary(pd.DataFrame({"choice_right": right, "written_right": right, "read": "x"})).iloc[0]
    assert same["difference"] == 0 and same["difference_error"] == 0 and same["choice_error"] > 2


@pytest.mark.real
def test_the_default_model_does_better_than_nothing_both_ways(real):
    row = choice_summary(choice_and_generation(*real, limit=12, progress=False)).iloc[0]
    assert row["items"] == 12 and row["choice"] > 0 and row["unread"] < 100
