"""What each token of an answer hangs on: is there a carry, how far is the bracket that it closes, where do the values stand?

All is read from the text of the item itself. Places are characters of prompt and answer together; the *asked* one is the
last before the answer's token: its state is what the model answers from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

PAIRS = {")": "(", "]": "[", "}": "{"}
END = "end"  # the token that ends an answer


class Step(NamedTuple):
    """One token of an answer.

    Attributes:
        step: what has to be done: ``"carry in"``, ``"no carry in"``, ``"bracket"``, ``"verb"``, ``"verb, misled"`` (by a
            noun of the other number right before it), or ``"end"``.
        size: how hard it is: in how many places in a row a carry came up to here; how many characters back the bracket
            stands that is closed; how many words are between noun and verb.
        places: where in the text the values are that it needs, by their role.
    """

    step: str
    size: int
    places: dict[str, int]


def answer_steps(item: Mapping[str, Any]) -> list[Step]:
    """A step for each token of the item's answer (each digit and bracket is one; a verb is one, whatever its length)."""
    return list(_STEPS[item["task"]](item))


def accuracy_by_step(table: pd.DataFrame, items: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Of a table of `controlled_accuracy` of these items, a row for each task, step and size.

    Returns:
        ``task, step, size, right`` (share of the tokens), ``lost_carry`` (share that would be right if a carry that came in
        had been forgotten), ``n`` (tokens).
    """
    steps = [answer_steps(items[i])[place] for i, place in zip(table["item"], table["position"], strict=True)]
    carries = [
        step.step == "carry in" and lost_carry(expected, predicted)
        for step, expected, predicted in zip(steps, table["expected"], table["predicted"], strict=True)
    ]
    named = table.assign(step=[s.step for s in steps], size=[s.size for s in steps], lost_carry=carries)
    groups = named.groupby(["task", "step", "size"], sort=False)
    return groups[["right", "lost_carry"]].mean().assign(n=groups.size()).reset_index()


def lost_carry(expected: str, predicted: str) -> bool:
    """Whether a digit would be right if a carry that came in had been forgotten."""
    return expected.isdigit() and predicted.isdigit() and int(predicted) == (int(expected) - 1) % 10


def _addition(item: Mapping[str, Any]) -> Iterator[Step]:
    """``347+586=339``: the answer's digits, the least significant one first."""
    prompt, answer = item["prompt"], item["answer"]
    first, second = re.findall(r"\d+", prompt)
    ends = {"first": prompt.index("+") - 1, "second": prompt.index("=") - 1}  # where the last digit of each number is
    sizes = {"first": len(first), "second": len(second)}
    carry, chain = 0, 0
    for place, letter in enumerate(answer):
        where = {"asked": len(prompt) + place - 1}
        for shift, role in ((0, "{} number's digit"), (1, "{} number's digit below")):
            for name, end in ends.items():
                if 0 <= place - shift < sizes[name]:
                    where[role.format(name)] = end - place + shift
        chain = chain + 1 if carry else 0
        yield Step(END if not letter.isdigit() else "carry in" if carry else "no carry in", chain, where)
        digits = [int(number[-1 - place]) for number in (first, second) if place < len(number)]
        carry = int(sum(digits) + carry > 9)


def _brackets(item: Mapping[str, Any]) -> Iterator[Step]:
    """``([]{[|]})``: what is still open before the marker is closed behind it, inside out."""
    prompt, open_ones = item["prompt"], []
    for place, letter in enumerate(prompt):
        if letter in PAIRS.values():
            open_ones.append(place)
        elif letter in PAIRS:
            open_ones.pop()
    for place, letter in enumerate(item["answer"], start=len(prompt)):
        where = {"asked": place - 1, "marker": len(prompt) - 1}
        if letter not in PAIRS:
            yield Step(END, 0, where)
            continue
        opened = open_ones.pop()
        yield Step("bracket", place - opened, where | {"bracket that is closed": opened})


def _agreement(item: Mapping[str, Any]) -> Iterator[Step]:
    """``The old keys near the cabinet are``: so many words (``distance``) stand between the noun and its verb.

    An attractor is a noun between the two; where the last one has the other number, it misleads.
    """
    words = [match.start() for match in re.finditer(r"\S+", item["prompt"])]
    where = {"asked": len(item["prompt"].rstrip()) - 1, "noun": words[-1 - item["distance"]]}
    misled = bool(item.get("attractors")) and item["attractors"][-1] != item["number"]
    yield Step("verb, misled" if misled else "verb", item["distance"], where)


_STEPS: dict[str, Callable[[Mapping[str, Any]], Iterator[Step]]] = {
    "addition": _addition,
    "brackets": _brackets,
    "agreement": _agreement,
}
