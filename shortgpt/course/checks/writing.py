"""Checks for lesson 10: repetition of n-grams, the best number of drafted tokens, writing with a draft."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from shortgpt.course.checks.verdict import CHANGED_INPUT, Case, Mistake, call, compare, failure, passed, same

Reader = Callable[[list[int]], Tensor]  # token ids -> logits [tokens, vocabulary]
VOCABULARY = 24


def check_repeated_share(repeated_share: Callable[[Sequence, int], float]) -> None:
    """Check ``repeated_share(tokens, n)``: of the n-grams, the share that stood in the text before."""
    texts = ["a b c a b c a b c d", "to be or not to be that is it", "x x x x x x y", "p q q p q r r q p q q p", "u v"]
    tried = [(texts[0].split(), 3), (texts[1].split(), 2), (texts[2].split(), 2), (texts[3].split(), 1)]
    tried += [([5, 7, 5, 7, 5, 9, 7, 5, 7], 2), (texts[3].split(), 3), (texts[4].split(), 3), ([], 1)]
    cases = [Case(f"tokens = {tokens} and n = {n}", (tokens, n)) for tokens, n in tried]

    def grams(tokens, n, step=1, less=0):
        return [tuple(tokens[i : i + n]) for i in range(0, len(tokens) - n + 1 - less, step)]

    def share(found):
        return 1 - len({*found}) / len(found) if found else 0.0

    def right(tokens, n):
        return share(grams(tokens, n))

    def anywhere(tokens, n):
        found = grams(tokens, n)
        return sum(found.count(gram) > 1 for gram in found) / len(found) if found else 0.0

    def at_once(tokens, n):
        found = grams(tokens, n)
        return sum(a == b for a, b in pairwise(found)) / len(found) if found else 0.0

    mistakes = [
        Mistake(lambda tokens, n: 1 - right(tokens, n), "that is the share of new ones: what is left is asked for"),
        Mistake(
            anywhere, "the first time that an n-gram comes it is new: count it as repeated only from the second on"
        ),
        Mistake(lambda tokens, n: share(grams(tokens, n, step=n)), "n-grams overlap: one starts at every token"),
        Mistake(lambda tokens, n: share(grams(tokens, n, less=1)), "the last n-gram is missing: mind where range ends"),
        Mistake(
            lambda tokens, n: share([tuple(tokens[i : i + n]) for i in range(len(tokens))]),
            "near the end of the text fewer than n tokens are left: that is no n-gram",
        ),
        Mistake(
            lambda tokens, n: share([frozenset(gram) for gram in grams(tokens, n)]),
            "the order within an n-gram counts",
        ),
        Mistake(
            lambda tokens, n: share([tuple(sorted(gram)) for gram in grams(tokens, n)]),
            "the order within an n-gram counts",
        ),
        Mistake(lambda tokens, n: share(tokens), "these are single tokens, not n in a row"),
        Mistake(
            at_once,
            "an n-gram is repeated wherever it stood before, not only right before",
        ),
        Mistake(lambda tokens, n: right(tokens, n) * len(grams(tokens, n)), "that is how many: the share is asked for"),
        Mistake(lambda tokens, n: 100 * right(tokens, n), "that is percent: a share between 0 and 1 is asked for"),
    ]
    empty = "a text of fewer than n tokens has no n-gram, so nothing is repeated in it: 0.0"
    hints = {ZeroDivisionError: empty, TypeError: "lists can't stand in a set: make each n-gram a tuple"}
    compare("repeated_share", repeated_share, cases, right, mistakes, hints=hints, not_finite=empty)


def check_best_draft_length(best_draft_length: Callable[[float, float, int], int]) -> None:
    """Check ``best_draft_length(acceptance, cost, longest)``: the number of drafted tokens that is fastest, or 0."""
    tried = [
        (0.8, 0.3, 8),
        (0.9, 0.05, 20),
        (0.6, 0.8, 8),
        (0.95, 0.05, 6),
        (1.0, 0.5, 5),
        (0.75, 0.5, 10),
        (0.5, 0.1, 9),
    ]
    cases = [Case(f"acceptance = {a}, cost = {c} and longest = {n}", (a, c, n)) for a, c, n in tried]

    def tokens(acceptance, drafted, first=0):
        return sum(acceptance**i for i in range(first, drafted + 1))

    def best(gain, longest, least=1.0):
        found = max(range(1, longest + 1), key=gain)
        return found if gain(found) > least else 0

    def by(gain: Callable[[float, float, int], float], change: int = 0, least: float = 1.0):
        return lambda a, c, longest: best(lambda n: gain(a, c, n), longest + change, least)

    def speed_up(a, c, n):
        return tokens(a, n) / (1 + n * c)

    mistakes = [
        Mistake(by(speed_up, least=0.0), "if no number of drafted tokens is faster than no draft, the answer is 0"),
        Mistake(
            by(lambda a, c, n: tokens(a, n) / (n * c)),
            "the full model reads the draft in one pass: that costs 1 as well",
        ),
        Mistake(
            by(lambda a, c, n: tokens(a, n)),
            "more isn't always better: each drafted token costs a pass of the draft, and counts only if all before it were "
            "accepted (the third with a chance of acceptance to the power of 3)",
        ),
        Mistake(
            by(lambda a, c, n: tokens(a, n - 1) / (1 + n * c)),
            "a round writes at least one token, the full model's own, and at most one more than was drafted: mind both ends",
        ),
        Mistake(by(speed_up, change=-1), "`longest` drafted tokens are allowed as well"),
        Mistake(
            lambda a, c, longest: max(speed_up(a, c, n) for n in range(1, longest + 1)),
            "that is the speed-up: the number of drafted tokens that gives it is asked for",
        ),
    ]
    zero = "at acceptance 1 the closed form of the sum is 0/0: add the powers up instead"
    compare("best_draft_length", best_draft_length, cases, by(speed_up), mistakes, hints={ZeroDivisionError: zero})


def check_write_with_draft(write_with_draft: Callable[[Reader, Reader, list[int], int, int], list[int]]) -> None:
    """Check ``write_with_draft(model, draft, ids, new_tokens, drafted)``: the model's text, in fewer of its passes."""
    name = "write_with_draft"
    tried = [(0, [3, 1], 12, 3), (1, [7, 2, 2], 15, 4), (2, [5], 9, 1), (3, [9, 4, 4, 1], 11, 2)]
    for seed, ids, new_tokens, drafted in tried:
        words = f"ids = {ids}, new_tokens = {new_tokens}, drafted = {drafted} and the models of test {seed}"

        def run(
            function: Callable, seed=seed, ids=ids, new_tokens=new_tokens, drafted=drafted
        ) -> tuple[list, int, list]:
            model, draft, given = _Counted(seed), _Counted(seed, flaws=0.3), list(ids)
            return function(model, draft, given, new_tokens, drafted), model.passes, given

        got, passes, after = run(lambda *a: call(name, write_with_draft, *a))
        expected, needed, _ = run(_write)
        if not same(got, expected, 0):
            mistakes = {hint: run(wrong)[0] for wrong, hint in _MISTAKES}
            hint = next(
                (hint for hint, wrong in mistakes.items() if same(got, wrong, 0)), _length_hint(got, ids, expected)
            )
            raise failure(name, words, expected, got, hint)
        if after != ids:
            raise failure(name, words, "the same arguments after the call", "changed arguments", CHANGED_INPUT)
        if passes > needed:
            hint = (
                "the text is right, but a round should write more: read all drafted tokens in one pass, keep those up to "
                "the first wrong one, and take the model's own choice after them from the same pass"
            )
            raise failure(name, words, f"{needed} passes of the model", f"{passes} passes", hint)
    passed(name, write_with_draft, len(tried))


class _Counted:
    """A toy model: its choice follows from the last two tokens; a draft is wrong after some of them."""

    def __init__(self, seed: int, flaws: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(8300 + seed)
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


def _write(
    model: Reader, draft: Reader, ids: list[int], new_tokens: int, drafted: int, *, shift: int = 1, trust: bool = False,
    cut: bool = True, own: bool = True,
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
    return text[len(ids) : len(ids) + new_tokens] if cut else text[len(ids) :]


def _length_hint(got: object, ids: list[int], expected: list[int]) -> str:
    if not isinstance(got, Sequence):
        return ""
    if list(got) == [*ids, *expected]:
        return "the new tokens alone are asked for, without the prompt"
    if len(got) > len(expected) and list(got)[: len(expected)] == expected:
        return "the last round may write more than is asked for: cut off what is too much"
    return "whatever is drafted, the text is the one that the full model writes alone, token by token"


_MISTAKES = [
    (
        lambda *a: _write(*a, shift=0),
        "off by one: the logits at a position choose the token after it, so the end of the text judges the first draft",
    ),
    (
        lambda *a: _write(*a, trust=True),
        "every drafted token is kept: only those up to the first that the model would not have written may stay",
    ),
    (
        lambda *a: _write(*a, own=False),
        "that is the draft's text: where the draft is wrong, the model's own choice comes in its place",
    ),
]
