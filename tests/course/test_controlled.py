"""Accuracy on controlled tasks, against one text at a time, without padding, and an argmax by hand."""

import json

import pandas as pd
import pytest
import torch
from small import joining
from tiny_twins import ITEMS, OWN, characters, tiny_kind

from shortgpt.course.studies.controlled import (
    accuracy_by_task,
    answer_ids,
    controlled_accuracy,
    controlled_items,
    read_answers,
)


@pytest.mark.parametrize("kind", OWN)
def test_what_is_found_likeliest_is_what_each_text_gives_alone(kind):
    """Of every kind of model: neither the pads behind a shorter text nor the other texts change it."""
    model, tokenizer = tiny_kind(kind), characters()
    table = controlled_accuracy(model, tokenizer, ITEMS)
    for i, item in enumerate(ITEMS[:3]):
        rows = table[table["item"] == i]
        text = item["prompt"] + item["answer"]
        logits = model(input_ids=torch.tensor([tokenizer(text)["input_ids"]]), use_cache=False).logits[0]
        for position, letter in enumerate(item["answer"]):
            row = rows[rows["position"] == position].iloc[0]
            likeliest = tokenizer.decode([logits[len(item["prompt"]) + position].argmax()])  # behind the begin token
            assert (row["expected"], row["predicted"]) == (letter, likeliest)
            assert row["right"] == (letter == likeliest)
        assert len(rows) == len(item["answer"]) and set(rows["level"]) == {item["level"]}


def test_of_two_verbs_the_likelier_is_chosen_by_all_its_letters():
    model, tokenizer = tiny_kind("llama"), characters()
    item = ITEMS[3]

    def likelihood(verb: str) -> float:
        ids = torch.tensor([tokenizer(item["prompt"] + verb)["input_ids"]])
        chances = model(input_ids=ids).logits[0].double().log_softmax(-1)
        return sum(chances[-1 - k, ids[0, -k]].item() for k in range(1, len(verb) + 1))

    swapped = item | {"answer": item["other"], "other": item["answer"]}
    table = controlled_accuracy(model, tokenizer, [item, swapped])
    right = likelihood(item["answer"]) > likelihood(item["other"])
    assert table["right"].tolist() == [right, not right] and table["position"].tolist() == [0, 0]
    assert table["predicted"].nunique() == 1 and table["predicted"][0] == item["answer" if right else "other"]


def test_small_batches_give_the_same():
    model, tokenizer = tiny_kind("llama"), characters()
    whole = controlled_accuracy(model, tokenizer, ITEMS * 2)
    pd.testing.assert_frame_equal(controlled_accuracy(model, tokenizer, ITEMS * 2, batch_size=3), whole)


def test_an_answer_is_right_if_all_of_it_is():
    table = pd.DataFrame(
        {"task": ["addition"] * 4, "item": [0, 0, 1, 1], "right": [True, True, True, False], "position": [0, 1, 0, 1]}
    )
    assert accuracy_by_task(table).to_dict("records") == [
        {"task": "addition", "tokens_right": 75, "answers_right": 50, "items": 2}
    ]


def test_a_token_over_the_border_is_refused():
    _, tokenizer = joining(["ab"])
    with pytest.raises(ValueError, match="joins the end of 'a' and the beginning of 'b'"):
        answer_ids(tokenizer, "a", "b")


def test_logits_that_are_no_numbers_are_refused():
    model = tiny_kind("llama")
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN"):
        list(read_answers(model, characters(), [("1+1=", "2")]))


def test_items_are_read_spread_over_the_file(tmp_path):
    file = tmp_path / "items.jsonl"
    rows = [{"task": task, "level": i} for task in ("addition", "brackets") for i in range(10)]
    file.write_text("\n".join(map(json.dumps, rows)))
    assert [item["level"] for item in controlled_items("brackets", most=5, file=file)] == [0, 2, 4, 6, 8]
    assert controlled_items(file=file) == rows and len(controlled_items(most=3, file=file)) == 6
    with pytest.raises(ValueError, match="task"):
        controlled_items("chess", file=file)
