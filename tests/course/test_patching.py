"""States put back: exact where the answer is known beforehand, and nothing where nothing can happen."""

from contextlib import ExitStack

import pytest
import torch
from tiny_twins import DEPTH, ITEMS, OWN, characters, tiny_kind

from shortgpt import remove_layers
from shortgpt.course.studies.patching import (
    answered,
    cases,
    depths_of,
    is_right,
    put_back,
    readable,
    restored,
    states_by_depth,
)
from shortgpt.model.view import share_weights

CASES = cases(characters(), ITEMS)


def patched(model, pruned, depth, place):
    """Logits of `pruned` with the dense state of `depth` at token ``place(case)``."""
    depths, states = states_by_depth(model, CASES)
    places = [place(case) for case in CASES]
    state = states[depths.index(depth)][torch.arange(len(CASES)), places]
    pruned = share_weights(pruned)
    with put_back(pruned, depth, state, places):
        return answered(pruned, CASES)


def asked(case):
    return len(case.ids) - 1


def test_cases_are_the_tokens_of_the_answers():
    tokenizer = characters()
    assert [tokenizer.decode([case.right]) for case in CASES[:8]] == [*"339\n301\n"]
    assert tokenizer.decode(CASES[1].ids[1:]) == "347+586=3" and CASES[1].step == "carry in"
    assert (
        CASES[1].places["asked"] == 9
        and tokenizer.decode([CASES[1].ids[CASES[1].places["first number's digit"]]]) == "4"
    )
    assert len(CASES) == 8 + 4, "both verbs begin with a space, so the first letter tells nothing: no case"
    closing = [case for case in CASES if case.step == "bracket"]
    assert ["marker" in case.places for case in closing] == [False, True, True], "at first it is the asked token itself"


@pytest.mark.parametrize("kind", OWN)
@pytest.mark.parametrize("removed", [[2, 3], [1, 4], [4, 5]])
def test_behind_the_last_layer_the_answer_is_the_dense_models(kind, removed):
    model = tiny_kind(kind)
    pruned = remove_layers(model, removed)
    dense = answered(model, CASES)
    assert (answered(pruned, CASES) - dense).abs().max() > 0.1, "so that something is restored"
    torch.testing.assert_close(patched(model, pruned, DEPTH, asked), dense, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", OWN)
def test_before_the_first_removed_layer_nothing_changes(kind):
    model = tiny_kind(kind)
    pruned = remove_layers(model, [3, 4])
    alone = answered(pruned, CASES)
    assert depths_of(pruned) == [0, 1, 2, 5, 6]
    for depth in (0, 1, 2):
        torch.testing.assert_close(patched(model, pruned, depth, asked), alone, rtol=1e-4, atol=1e-4)
    assert (patched(model, pruned, 5, asked) - alone).abs().max() > 0.1


def test_all_tokens_put_back_behind_a_gap_are_the_dense_model():
    """One token after another: what is put stays where it was put, also by name, and only while it is open."""
    model = tiny_kind("llama")
    pruned = share_weights(remove_layers(model, [2]))
    before = answered(pruned, CASES)
    _, states = states_by_depth(model, CASES)
    with ExitStack() as stack:
        for token in range(states.shape[2]):
            stack.enter_context(put_back(pruned, 3, states[3][:, token], [token] * len(CASES)))
        torch.testing.assert_close(answered(pruned, CASES), answered(model, CASES), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(answered(pruned, CASES), before)


def test_the_table_counts_what_was_lost_and_is_right_again():
    """By cases whose answer is what the dense model says, so that all it says is right."""
    model = tiny_kind("llama")
    pruned = remove_layers(model, [2, 3])
    some = [case._replace(right=int(row.argmax())) for case, row in zip(CASES, answered(model, CASES), strict=True)]
    table = restored(model, pruned, some)
    lost = (~is_right(answered(pruned, some), some)).sum().item()
    at_end = table[(table["depth"] == DEPTH) & (table["role"] == "asked")]
    assert lost and (at_end["restored"] == 1).all() and at_end["n"].sum() == lost
    untouched = table[table["depth"] <= 1]
    assert len(untouched) and (untouched["restored"] == 0).all()
    elsewhere = table[(table["depth"] == DEPTH) & (table["role"] != "asked")]
    assert (elsewhere["restored"] == 0).all(), "behind the last layer no other token is read"
    assert restored(model, model, some).empty


@pytest.mark.parametrize("kind", OWN)
def test_the_lens_ends_in_the_model(kind):
    model = tiny_kind(kind)
    for each in (model, remove_layers(model, [2, 3])):
        some = [case._replace(right=int(row.argmax())) for case, row in zip(CASES, answered(each, CASES), strict=True)]
        table = readable(each, some)
        assert (table.loc[table["depth"] == DEPTH, "right"] == 1).all()
        assert sorted(table["depth"].unique()) == depths_of(each) and table["right"].mean() < 1
        assert table[table["depth"] == 0]["n"].sum() == len(CASES)


def test_the_lens_is_norm_and_head():
    model = tiny_kind("llama")
    _, states = states_by_depth(model, CASES)
    at = torch.stack([states[2][row, asked(case)] for row, case in enumerate(CASES)])
    by_hand = is_right(model.lm_head(model.model.norm(at)), CASES).double().mean()
    table = readable(model, CASES)
    found = table[table["depth"] == 2]
    assert (found["right"] * found["n"]).sum() / len(CASES) == pytest.approx(by_hand.item())


def test_of_two_verbs_the_likelier_is_right():
    case = CASES[0]._replace(right=3, rival=5)
    logits = torch.zeros(2, 10)
    logits[0, 7], logits[0, 3], logits[1, 5] = 9, 1, 1
    assert is_right(logits, [case, case]).tolist() == [True, False]
