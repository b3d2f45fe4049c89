"""How layers are named: the one reader of their numbers, on any list."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from shortgpt import PruningPlan
from shortgpt.pruning.plan import check_indices

depths = st.integers(1, 40)


@given(depths, st.data())
def test_distinct_layers_come_back_as_plain_numbers_in_their_order(depth, data):
    named = data.draw(st.lists(st.integers(0, depth - 1), unique=True, max_size=depth - 1))
    for given_so in (named, tuple(named), iter(named), np.array(named, dtype=np.int64)):
        found = check_indices(given_so, depth)
        assert found == named and all(type(i) is int for i in found)
    plan = PruningPlan(depth, named)
    assert plan.removed == tuple(named) and sorted((*plan.kept, *named)) == list(range(depth))
    assert plan.to_llama_cpp() == ",".join(map(str, sorted(named)))


@given(depths, st.lists(st.integers(-5, 45), max_size=45))
def test_any_list_is_right_or_told_what_is_wrong(depth, named):
    unknown, all_gone = [i for i in named if not 0 <= i < depth], len(named) >= depth
    twice = sorted({i for i in named if named.count(i) > 1})
    if not (unknown or twice or all_gone):
        assert check_indices(named, depth) == named
        return
    with pytest.raises(ValueError) as caught:
        check_indices(named, depth)
    said = str(caught.value)
    if unknown:
        assert said.startswith(f"unknown layer {unknown[0]}") and said.endswith(f"has layers 0 to {depth - 1}")
    elif twice:
        assert said.startswith(f"layer {twice[0]}") and "is named twice: name each layer to remove once" in said
    else:
        assert said == f"removing {len(named)} of {depth} layers leaves none: keep at least one"
        assert check_indices(named, depth, keep_one=False) == named
    assert len(said) <= 330 and "\n" not in said


def test_many_wrong_numbers_are_not_all_listed():
    with pytest.raises(ValueError, match="unknown layer 6, 7, .*15, …: this"):
        check_indices(range(1000), 6)


def test_equal_plans_are_one_in_a_set():
    """Their dicts have no hash, and what a search cost makes no other plan."""
    quick, slow = (PruningPlan(6, (1, 2), scores={1: 0.5}, search={"seconds": each}) for each in (1.0, 2.0))
    assert quick == slow and hash(quick) == hash(slow) and len({quick, slow}) == 1
    assert len({quick, PruningPlan(6, (2, 1), scores={1: 0.5}), PruningPlan(6, (1,))}) == 3
