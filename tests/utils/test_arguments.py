"""Each helper that checks an argument, on all kinds of nonsense: its callers only have to show that they ask."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from shortgpt.utils.arguments import (
    check_amount,
    check_choice,
    check_count,
    check_counts,
    check_flag,
    check_number,
    check_path,
    check_some,
    check_string,
    check_strings,
    shown,
)

NO_NUMBER = st.one_of(
    st.text(), st.binary(), st.booleans(), st.none(), st.lists(st.integers()), st.dictionaries(st.text(), st.integers())
)
NO_WHOLE_NUMBER = st.one_of(NO_NUMBER, st.floats(), st.complex_numbers(), st.floats().map(np.float64))
NO_STRING = st.one_of(st.none(), st.integers(), st.floats(), st.binary(), st.lists(st.text()))
NUMPY = [np.int8, np.int16, np.int32, np.int64, np.uint8]


def sentence(kind: type[Exception], call, *args, **options) -> str:
    with pytest.raises(kind) as caught:
        call(*args, **options)
    said = str(caught.value)
    assert "\n" not in said and len(said) <= 330
    return said


@given(st.one_of(st.text(), NO_WHOLE_NUMBER, st.integers()))
def test_any_value_is_shown_in_one_short_line(value):
    text = shown(value)
    assert "\n" not in text and (len(text) <= 260 or isinstance(value, int))  # an escape takes up to four characters
    if isinstance(value, str):
        assert text == repr(value) or text.endswith(("...'", '..."'))
    elif not isinstance(value, int | float | None):
        assert text == type(value).__name__


def test_a_model_is_shown_by_its_type(tiny):
    assert shown(tiny) == "LlamaForCausalLM"


# ---- numbers ---------------------------------------------------------------------------------------------------------
@given(st.integers(), st.one_of(st.none(), st.integers(-5, 5)))
def test_a_whole_number_is_itself_or_too_low(value, least):
    if least is None or value >= least:
        assert check_count("n", value, least=least) == value
    else:
        assert sentence(ValueError, check_count, "n", value, least=least) == f"n must be at least {least}, got {value}"


@pytest.mark.parametrize("kind", NUMPY)
def test_numpy_numbers_become_plain_ones(kind):
    for value in (check_count("n", kind(3)), *check_counts("n", np.array([3], dtype=kind))):
        assert value == 3 and type(value) is int
    assert check_number("x", kind(3)) == 3.0 and type(check_number("x", kind(3))) is float


@given(NO_WHOLE_NUMBER)
def test_what_is_no_whole_number_is_named(value):
    said = f"must be a whole number, got {shown(value)}"
    assert sentence(TypeError, check_count, "n", value) == f"n {said}"
    assert sentence(TypeError, check_counts, "n", [1, value]) == f"each of n {said}"


@pytest.mark.parametrize(
    ("value", "name"),
    [("3", "'3'"), (2.5, "2.5"), (True, "True"), ([1], "list"), (torch.tensor(2), "Tensor"), (None, "None")],
)
def test_the_likely_mistakes_read_well(value, name):
    assert sentence(TypeError, check_count, "samples", value) == f"samples must be a whole number, got {name}"


@given(st.one_of(st.integers(-(2**1000), 2**1000), st.floats()))
def test_a_number_is_itself(value):
    np.testing.assert_equal(check_number("x", value), float(value))


@given(NO_NUMBER)
def test_what_is_no_number_is_named(value):
    assert sentence(TypeError, check_number, "x", value) == f"x must be a number, got {shown(value)}"


@given(st.lists(st.integers()), st.sampled_from([list, tuple, set, iter]))
def test_counts_may_come_in_anything_that_can_be_gone_through(values, make):
    given_so = make(values)
    assert sorted(check_counts("n", given_so)) == sorted(set(values) if make is set else values)


@pytest.mark.parametrize("value", [3, None, "01", 2.5, True])
def test_what_is_no_list_of_counts_is_named(value):
    said = sentence(TypeError, check_counts, "counts", value)
    assert said == f"counts must be a list of whole numbers, for instance [0, 1], got {shown(value)}"


def test_each_count_has_the_least():
    assert sentence(ValueError, check_counts, "n", [2, 0], least=1) == "each of n must be at least 1, got 0"


@given(st.integers(1, 200), st.data())
def test_an_amount_is_a_number_or_a_fraction(of, data):
    n = data.draw(st.integers(0, of - 1))
    assert check_amount(n, None, of, "layers", "…") == n == check_amount(None, n / of, of, "layers", "…")
    too_many = data.draw(st.one_of(st.integers(of), st.integers(max_value=-1)))
    said = sentence(ValueError, check_amount, too_many, None, of, "layers", "as many as there are")
    assert said == f"n must be 0 to {of - 1} (as many as there are), got {too_many}"


@pytest.mark.parametrize(
    ("n", "ratio", "kind", "says"),
    [
        (None, None, ValueError, "say how many heads to remove: give either n (a number) or ratio (a fraction of the heads)"),
        (1, 0.5, ValueError, "say how many heads to remove: give either n (a number) or ratio (a fraction of the heads)"),
        (None, 1, ValueError, "ratio is a fraction of the heads, 0 to below 1, got 1"),
        (None, -0.1, ValueError, "ratio is a fraction of the heads, 0 to below 1, got -0.1"),
        (None, float("nan"), ValueError, "ratio is a fraction of the heads, 0 to below 1, got nan"),
        (None, "half", TypeError, "ratio must be a number, got 'half'"),
        (None, False, TypeError, "ratio must be a number, got False"),
        (1.0, None, TypeError, "n must be a whole number, got 1.0"),
        (None, 0.99, ValueError, "n must be 0 to 9 (ten heads), got 10"),
    ],
)  # fmt: skip
def test_an_amount_that_makes_no_sense(n, ratio, kind, says):
    assert sentence(kind, check_amount, n, ratio, 10, "heads", "ten heads") == says


# ---- strings, lists of them, and the rest ----------------------------------------------------------------------------
@given(st.text())
def test_a_string_is_a_string(text):
    check_string("prompt", text)
    assert check_strings("texts", [text]) == check_strings("texts", iter((text,))) == [text]
    said = sentence(TypeError, check_strings, "texts", text)
    assert said == f"texts must be a list of strings, got {shown(text)}: put it in a list, if it is a string"


@given(NO_STRING)
def test_what_is_no_string_is_named(value):
    assert sentence(TypeError, check_string, "prompt", value) == f"prompt must be a string, got {shown(value)}"
    said = sentence(TypeError, check_strings, "texts", ["a", value])
    assert said == f"texts must be strings, got {shown(value)} among them"


@pytest.mark.parametrize("value", [3, None, b"the", 2.5])
def test_what_is_no_list_of_strings_is_named(value):
    assert f"texts must be a list of strings, got {shown(value)}: " in sentence(
        TypeError, check_strings, "texts", value
    )


@given(st.one_of(st.text(), NO_STRING))
def test_a_choice_is_one_of_those_there_are(value):
    assert sentence(ValueError, check_choice, "order", value, ("by score", "at random")) == (
        f"unknown order {shown(value)}: choose one of by score, at random"
    )


def test_a_choice_that_there_is():
    for there in ({"score": 1}, ["score"], ("score",)):
        assert check_choice("order", "score", there) is None


@pytest.mark.parametrize("value", [1, 0, None, "True", np.True_, []])
def test_a_flag_is_true_or_false(value):
    check_flag("trust", True)
    check_flag("trust", False)
    assert sentence(TypeError, check_flag, "trust", value) == f"trust must be True or False, got {shown(value)}"


def test_a_path_is_a_path(tmp_path):
    assert check_path(str(tmp_path)) == check_path(tmp_path) == tmp_path
    assert check_path("x") == Path("x")
    assert sentence(ValueError, check_path, "") == "the path of the folder is empty: name one"
    assert sentence(ValueError, check_path, "", "a CSV file") == "the path of the CSV file is empty: name one"


@pytest.mark.parametrize("value", [None, 3, b"x", ["x"], True])
def test_what_is_no_path_is_named(value):
    assert sentence(TypeError, check_path, value) == f"expected the path of a folder, got {shown(value)}"
    assert sentence(TypeError, check_path, value, "a plan") == f"expected the path of a plan, got {shown(value)}"


def test_at_least_one():
    assert check_some("counts", [0]) == [0]
    assert sentence(ValueError, check_some, "counts", []) == "counts is empty: give at least one"
