"""Checks for lesson 05: perplexity of several documents, retention above chance, strided windows, scores of answers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from shortgpt.course.checks.verdict import Case, Mistake, compare


def check_corpus_perplexity(corpus_perplexity: Callable[[list[Tensor]], float]) -> None:
    """Check ``corpus_perplexity(losses)``: one perplexity from the token losses (nats) of several documents."""
    cases = []
    for seed, lengths in enumerate([(40, 6, 15), (3, 60), (9, 25, 5, 12)]):
        generator = torch.Generator().manual_seed(6000 + seed)
        losses = [
            0.3 * i + 1 + 3 * torch.rand(length, generator=generator) for i, length in enumerate(sorted(lengths), 1)
        ]
        cases.append(Case(f"losses of documents with {', '.join(map(str, sorted(lengths)))} tokens", (losses,)))

    def joined(losses):
        return torch.cat(losses).double()

    def means(losses):
        return torch.stack([each.double().mean() for each in losses])

    mistakes = [
        Mistake(
            lambda losses: means(losses).exp().mean(),
            "that is a mean of perplexities: average the losses first, and take the exponential last",
        ),
        Mistake(
            lambda losses: means(losses).mean().exp(),
            "every document counts the same there, however short: every token should count the same",
        ),
        Mistake(
            lambda losses: joined(losses).exp().mean(),
            "the exponential comes last: average the losses of the tokens first",
        ),
        Mistake(lambda losses: joined(losses).mean(), "that is the mean loss: perplexity is its exponential"),
        Mistake(
            lambda losses: 2 ** joined(losses).mean(),
            "the losses are in nats, so the base is e and not 2",
        ),
        Mistake(lambda losses: 10 ** joined(losses).mean(), "the losses are in nats, so the base is e and not 10"),
        Mistake(
            lambda losses: (joined(losses).sum() / len(losses)).exp(),
            "divide the sum by the number of tokens, not of documents",
        ),
        Mistake(lambda losses: (-joined(losses).mean()).exp(), "a loss is minus the log already: the sign is wrong"),
    ]
    endless = "the exponential of a sum of many losses is too large for any number: take their mean first"
    compare(
        "corpus_perplexity",
        corpus_perplexity,
        cases,
        lambda losses: joined(losses).mean().exp(),
        mistakes,
        not_finite=endless,
    )


def check_kept_above_chance(kept_above_chance: Callable[[float, float, int], float]) -> None:
    """Check ``kept_above_chance(dense, pruned, choices)``: percent of the score above guessing that is left."""
    cases = [
        Case(f"dense = {dense}, pruned = {pruned} and choices = {choices}", (dense, pruned, choices))
        for dense, pruned, choices in [(82.0, 61.0, 4), (70.0, 50.0, 2), (90.0, 66.0, 3), (64.0, 19.0, 5)]
    ]

    def right(dense, pruned, choices):
        return 100 * (pruned - 100 / choices) / (dense - 100 / choices)

    unit = "guessing is right once in so many choices, and the accuracies are in percent: so must that be"
    mistakes = [
        Mistake(lambda d, p, n: 100 * p / d, "that is plain retention: take the guessing level off both accuracies"),
        Mistake(lambda d, p, n: 100 * (p - 1 / n) / (d - 1 / n), unit),
        Mistake(lambda d, p, n: right(d, p, n) / 100, "that is a share between 0 and 1: percent is asked for"),
        Mistake(
            lambda d, p, n: 100 * (p - 100 / n) / d, "take the guessing level off the dense model's accuracy as well"
        ),
        Mistake(
            lambda d, p, n: 100 * p / (d - 100 / n), "take the guessing level off the pruned model's accuracy as well"
        ),
        Mistake(lambda d, p, n: right(p, d, n) if n != 2 else 0, "upside down: the dense model is the measure"),
        Mistake(lambda d, p, n: 100 - right(d, p, n), "that is what was lost: how much is kept?"),
        Mistake(lambda d, p, n: right(d, p, 2), "that takes two choices for granted: the guessing level depends on them"),
        Mistake(
            lambda d, p, n: max(0.0, right(d, p, n)),
            "a score below guessing stays below zero here: cutting it off would make noise look like zero",
        ),
        Mistake(
            lambda d, p, n: p - 100 / n,
            "that is how far the pruned model is above guessing: divide by how far the dense one was",
        ),
    ]  # fmt: skip
    compare("kept_above_chance", kept_above_chance, cases, right, mistakes)


def check_scored_windows(scored_windows: Callable[[int, int, int], list[tuple[int, int, int]]]) -> None:
    """Check ``scored_windows(tokens, window, stride)``: for each window its start, end, and the first token it scores."""
    cases = [
        Case(f"tokens = {tokens}, window = {window} and stride = {stride}", (tokens, window, stride))
        for tokens, window, stride in [(12, 5, 3), (20, 8, 6), (7, 9, 4), (2300, 1024, 512), (21, 6, 2)]
    ]

    def right(tokens, window, stride, first=1):
        result, done = [], first
        for start in range(0, tokens, stride):
            end = min(start + window, tokens)
            result.append((start, end, done))
            done = end
            if end == tokens:
                break
        return result

    def all_starts(tokens, window, stride):
        starts = range(0, tokens, stride)
        ends = [min(start + window, tokens) for start in starts]
        return list(zip(starts, ends, [1, *ends], strict=False))

    def not_cut(tokens, window, stride):
        return [(start, start + window, done) for start, _, done in right(tokens, window, stride)]

    def full_only(tokens, window, stride):
        return [(start, end, done) for start, end, done in right(tokens, window, stride) if end - start == window]

    twice = "some tokens are scored twice: what an earlier window has scored is only context in the next"
    first = "nothing stands before the first token of a text, so it has no loss: scoring starts at position 1"
    mistakes = [
        Mistake(lambda *a: right(*a, first=0), first),
        Mistake(lambda *a: [(start, end, start + 1) for start, end, _ in right(*a)], twice),
        Mistake(lambda *a: [(start, end, start) for start, end, _ in right(*a)], f"{twice}. And {first}"),
        Mistake(lambda *a: [(start, end, max(done - 1, 1)) for start, end, done in right(*a)], twice),
        Mistake(
            lambda *a: [(start, end, min(done + (start > 0), end)) for start, end, done in right(*a)],
            "a token between two windows is never scored: the next window starts where the last one ended",
        ),
        Mistake(
            lambda *a: [(start, end, max(end - a[2], 1) if start else 1) for start, end, _ in right(*a)],
            "the last window can be shorter, and then fewer than `stride` of its tokens have no loss yet",
        ),
        Mistake(all_starts, "once a window reaches the end of the text all is scored: stop there"),
        Mistake(not_cut, "the last window ends beyond the text: end is at most the number of tokens"),
        Mistake(full_only, "the tokens at the end are never scored: the last window may be shorter than the others"),
        Mistake(
            lambda tokens, window, stride: right(tokens, window, window),
            "windows should overlap: from one to the next, move by the stride",
        ),
        Mistake(
            lambda *a: [(start, end, end - done) for start, end, done in right(*a)],
            "the third number is how many tokens are scored: give the position of the first of them",
        ),
        Mistake(
            lambda *a: [(start, end - 1, done) for start, end, done in right(*a)],
            "end is the position after the last token of the window, as in Python's slices",
        ),
    ]
    compare("scored_windows", scored_windows, cases, right, mistakes)


def check_answer_scores(answer_scores: Callable[..., Tensor]) -> None:
    """Check ``answer_scores(logits, ids, question, lengths, per_token)``: log-probability of each answer."""
    cases = []
    tried = [(4, (3, 3, 3), False), (5, (2, 6, 3, 4), False), (3, (1, 5), True), (6, (4, 2, 3), True)]
    for seed, (question, answers, per_token) in enumerate(tried):
        generator = torch.Generator().manual_seed(7000 + seed)
        lengths = torch.tensor(answers) + question
        shape = (len(answers), int(lengths.max()))
        ids = torch.randint(1, 20, shape, generator=generator)
        ids[:, :question] = ids[0, :question]
        ids[torch.arange(shape[1]) >= lengths[:, None]] = 0
        logits = 2 * torch.randn(*shape, 20, generator=generator)
        words = f"a question of {question} tokens, answers of {', '.join(map(str, answers))} and per_token={per_token}"
        cases.append(Case(words, (logits, ids, question, lengths, per_token)))

    def of_tokens(logits, ids, shift=1):
        """What each token of ``ids`` but the first gets, ``[choices, tokens - 1]``."""
        values = logits.double().log_softmax(-1)
        values, wanted = (values[:, :-1], ids[:, 1:]) if shift else (values[:, 1:], ids[:, 1:])
        return values.gather(-1, wanted[..., None])[..., 0]

    def right(logits, ids, question, lengths, per_token, *, first=0, last=0, shift=1, of=None, divide=None):
        values = of_tokens(logits, ids, shift) if of is None else of(logits, ids)
        place = torch.arange(1, ids.shape[1])
        counted = (place >= question + first) & (place < lengths[:, None] + last)
        total = (values * counted).sum(-1)
        divisor = (lengths - question) if divide is None else divide(question, lengths)
        return total / divisor if per_token else total

    def raw(logits, ids):
        return logits[:, :-1].double().gather(-1, ids[:, 1:, None])[..., 0]

    def with_options(**options):
        return lambda *a: right(*a, **options)

    mistakes = [
        Mistake(with_options(shift=0), "off by one: the logits at a position predict the token after it"),
        Mistake(with_options(first=-99), "the question's tokens are counted: only the answer's should be"),
        Mistake(with_options(first=1), "the first token of the answer is missing: the question's last logits predict it"),
        Mistake(with_options(first=-1), "the last token of the question is counted: the answer starts behind it"),
        Mistake(with_options(last=99), "pads are counted: a row has as many real tokens as `lengths` says"),
        Mistake(with_options(last=-1), "the last token of each answer is missing"),
        Mistake(with_options(of=raw), "these are logits: turn them into log-probabilities first (log_softmax)"),
        Mistake(
            with_options(of=lambda *a: of_tokens(*a).exp()),
            "these are sums of probabilities: the logs of probabilities add up",
        ),
        Mistake(lambda *a: right(*a).exp(), "that is a probability: its logarithm is asked for"),
        Mistake(lambda *a: -right(*a), "the sign is wrong: a log-probability is negative, and the largest is the best"),
        Mistake(lambda *a: right(*a[:4], False), "per_token=True asks for the mean over the answer's tokens"),
        Mistake(lambda *a: right(*a[:4], True), "per_token=False asks for the sum over the answer's tokens"),
        Mistake(
            with_options(divide=lambda question, lengths: lengths),
            "divide by the number of tokens of the answer: the question's are not in the sum",
        ),
        Mistake(
            with_options(divide=lambda question, lengths: lengths.max() - question),
            "answers have different lengths: divide each sum by its own",
        ),
    ]  # fmt: skip
    compare("answer_scores", answer_scores, cases, right, mistakes, tolerance=1e-4)
