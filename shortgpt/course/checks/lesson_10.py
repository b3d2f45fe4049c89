"""Checks for lesson 10: repetition of n-grams, the best number of drafted tokens, writing with a draft."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from shortgpt.course.checks.comparing import Answers, AnyOf, Case, compare, named_cases, seeded
from shortgpt.course.checks.verdict import failure

Reader = Callable[[list[int]], Tensor]  # token ids -> logits [tokens, vocabulary]
VOCABULARY = 24


def check_repeated_share(repeated_share: Callable[[Sequence, int], float]) -> None:
    """Check ``repeated_share(tokens, n)``: of the n-grams, the share that stood in the text before."""
    letters = ["p", "q", "q", "p", "q", "r", "r", "q", "p", "q", "q", "p"]
    cases = named_cases(
        "tokens n",
        (["a", "b", "c", "a", "b", "c", "a", "b", "c", "d"], 3),
        (["to", "be", "or", "not", "to", "be", "that", "is", "it"], 2),
        (["x", "x", "x", "x", "x", "x", "y"], 2),
        (letters, 1),
        ([5, 7, 5, 7, 5, 9, 7, 5, 7], 2),
        (letters, 3),
        (["u", "v"], 3),
        ([], 1),
    )
    empty = "a text of fewer than n tokens has no n-gram, so nothing is repeated in it: 0.0"
    hints = {ZeroDivisionError: empty, TypeError: "lists can't stand in a set: make each n-gram a tuple"}
    compare("repeated_share", repeated_share, cases, _repeated_share, hints=hints, not_finite=empty)


def _repeated_share(tokens: Sequence, n: int) -> Answers:
    pieces = [tuple(tokens[i : i + n]) for i in range(len(tokens))]
    grams = pieces[: max(0, len(tokens) - n + 1)]
    count = max(1, len(grams))

    def share(found: Sequence) -> float:
        return 1 - len({*found}) / len(found) if found else 0.0

    right = share(grams)
    return right, {
        "that is the share of new ones: what is left is asked for": 1 - right,
        "the first time that an n-gram comes it is new: count it as repeated only from the second on":
            sum(grams.count(gram) > 1 for gram in grams) / count,
        "n-grams overlap: one starts at every token": share(grams[::n]),
        "the last n-gram is missing: mind where range ends": share(grams[:-1]),
        "near the end of the text fewer than n tokens are left: that is no n-gram": share(pieces),
        "the order within an n-gram counts":
            AnyOf(share([frozenset(gram) for gram in grams]), lambda: share([tuple(sorted(gram)) for gram in grams])),
        "these are single tokens, not n in a row": share(tokens),
        "an n-gram is repeated wherever it stood before, not only right before":
            sum(a == b for a, b in pairwise(grams)) / count,
        "that is how many: the share is asked for": right * len(grams),
        "that is percent: a share between 0 and 1 is asked for": 100 * right,
    }  # fmt: skip


def check_best_draft_length(best_draft_length: Callable[[float, float, int], int]) -> None:
    """Check ``best_draft_length(acceptance, cost, longest)``: the number of drafted tokens that is fastest, or 0."""
    cases = named_cases(
        "acceptance cost longest",
        (0.8, 0.3, 8),
        (0.9, 0.05, 20),
        (0.6, 0.8, 8),
        (0.95, 0.05, 6),
        (1.0, 0.5, 5),
        (0.75, 0.5, 10),
        (0.5, 0.1, 9),
    )
    zero = "at acceptance 1 the closed form of the sum is 0/0: add the powers up instead"
    compare("best_draft_length", best_draft_length, cases, _best_draft_length, hints={ZeroDivisionError: zero})


def _best_draft_length(acceptance: float, cost: float, longest: int) -> Answers:
    def tokens(drafted: int) -> float:
        return sum(acceptance**i for i in range(drafted + 1))

    def speed_up(drafted: int) -> float:
        return tokens(drafted) / (1 + drafted * cost)

    def best(gain: Callable[[int], float], longest: int = longest, least: float = 1.0) -> int:
        found = max(range(1, longest + 1), key=gain)
        return found if gain(found) > least else 0

    return best(speed_up), {
        "if no number of drafted tokens is faster than no draft, the answer is 0": best(speed_up, least=0.0),
        "the full model reads the draft in one pass: that costs 1 as well": best(lambda n: tokens(n) / (n * cost)),
        "more isn't always better: each drafted token costs a pass of the draft, and counts only if all before it were "
        "accepted (the third with a chance of acceptance to the power of 3)": best(tokens),
        "a round writes at least one token, the full model's own, and at most one more than was drafted: mind both ends":
            best(lambda n: tokens(n - 1) / (1 + n * cost)),
        "`longest` drafted tokens are allowed as well": best(speed_up, longest - 1),
        "that is the speed-up: the number of drafted tokens that gives it is asked for":
            max(speed_up(n) for n in range(1, longest + 1)),
    }  # fmt: skip


def check_write_with_draft(write_with_draft: Callable[[Reader, Reader, list[int], int, int], list[int]]) -> None:
    """Check ``write_with_draft(model, draft, ids, new_tokens, drafted)``: the model's text, in fewer of its passes."""
    tried = [([3, 1], 12, 3), ([7, 2, 2], 15, 4), ([5], 9, 1), ([9, 4, 4, 1], 11, 2)]
    cases = []
    for seed, (ids, new_tokens, drafted) in enumerate(tried):
        words = f"ids = {ids}, new_tokens = {new_tokens}, drafted = {drafted} and the models of test {seed}"
        cases.append(Case(words, (_Counted(seed), _Counted(seed, flaws=0.3), ids, new_tokens, drafted)))
    compare(
        "write_with_draft", write_with_draft, cases, _write_with_draft, tolerance=0, look=_look_at_length,
        otherwise="whatever is drafted, the text is the one that the full model writes alone, token by token",
        also=_require_few_passes,
    )  # fmt: skip


def _look_at_length(answer: object, expected: list[int]) -> str:
    if isinstance(answer, Sequence) and len(answer) > len(expected) and [*answer[: len(expected)]] == expected:
        return "the last round may write more than is asked for: cut off what is too much"
    return ""


def _require_few_passes(case: Case, after: tuple[Any, ...]) -> None:
    _write(*(used := case.fresh()))
    passes, needed = after[0].passes, used[0].passes
    if passes > needed:
        hint = (
            "the text is right, but a round should write more: read all drafted tokens in one pass, keep those up to "
            "the first wrong one, and take the model's own choice after them from the same pass"
        )
        raise failure("write_with_draft", case.words, f"{needed} passes of the model", f"{passes} passes", hint)


class _Counted:
    """A toy model: its choice follows from the last two tokens; a draft is wrong after some of them."""

    def __init__(self, seed: int, flaws: float = 0.0) -> None:
        generator = seeded(8300 + seed)
        shape = (VOCABULARY, VOCABULARY)
        self.table = torch.randn(*shape, VOCABULARY, generator=generator)
        other = torch.randn(*shape, VOCABULARY, generator=generator)
        wrong = torch.rand(shape, generator=generator) < flaws
        self.table[wrong] = other[wrong]
        self.passes = 0

    def __call__(self, ids: list[int]) -> Tensor:
        self.passes += 1
        if self.passes > 200:
            raise RuntimeError("a model was called 200 times: does every round add at least one token?")
        ids = [int(i) for i in ids]
        return self.table[[ids[0], *ids[:-1]], ids].clone()


def _write_with_draft(model: Reader, draft: Reader, ids: list[int], new_tokens: int, drafted: int) -> Answers:
    def written(**options: Any) -> list[int]:
        return _write(copy.copy(model), copy.copy(draft), ids, new_tokens, drafted, **options)

    right = written()
    return right, {
        "off by one: the logits at a position choose the token after it, so the end of the text judges the first draft":
            written(shift=0),
        "every drafted token is kept: only those up to the first that the model would not have written may stay":
            written(trust=True),
        "that is the draft's text: where the draft is wrong, the model's own choice comes in its place":
            written(own=False),
        "the new tokens alone are asked for, without the prompt": [*ids, *right],
    }  # fmt: skip


def _write(
    model: Reader, draft: Reader, ids: list[int], new_tokens: int, drafted: int, *,
    shift: int = 1, trust: bool = False, own: bool = True,
) -> list[int]:  # fmt: skip
    text = list(ids)
    while len(text) < len(ids) + new_tokens:
        guess: list[int] = []
        for _ in range(drafted):
            guess.append(int(draft(text + guess)[-1].argmax()))
        choices = model(text + guess).argmax(-1)[len(text) - shift :].tolist()
        right = 0
        while right < drafted and (trust or guess[right] == choices[right]):
            right += 1
        text += guess[:right] + ([choices[min(right, len(choices) - 1)]] if own else guess[right : right + 1])
    return text[len(ids) : len(ids) + new_tokens]
