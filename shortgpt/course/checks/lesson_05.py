"""Checks for lesson 05: perplexity of several documents, retention above chance, strided windows, scores of answers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from shortgpt.course.checks.comparing import Answers, AnyOf, Case, compare, named_cases, seeded


def check_corpus_perplexity(corpus_perplexity: Callable[[list[Tensor]], float]) -> None:
    """Check ``corpus_perplexity(losses)``: one perplexity from the token losses (nats) of several documents."""
    cases = []
    for seed, lengths in enumerate([(6, 15, 40), (3, 60), (5, 9, 12, 25)]):
        generator = seeded(6000 + seed)
        losses = [0.3 * i + 1 + 3 * torch.rand(length, generator=generator) for i, length in enumerate(lengths, 1)]
        cases.append(Case(f"losses of documents with {', '.join(map(str, lengths))} tokens", (losses,)))
    endless = "the exponential of a sum of many losses is too large for any number: take their mean first"
    compare("corpus_perplexity", corpus_perplexity, cases, _corpus_perplexity, not_finite=endless)


def _corpus_perplexity(losses: list[Tensor]) -> Answers:
    tokens = torch.cat(losses).double()
    mean, means = tokens.mean(), torch.stack([each.double().mean() for each in losses])
    return mean.exp(), {
        "that is a mean of perplexities: average the losses first, and take the exponential last": means.exp().mean(),
        "every document counts the same there, however short: every token should count the same": means.mean().exp(),
        "the exponential comes last: average the losses of the tokens first": tokens.exp().mean(),
        "that is the mean loss: perplexity is its exponential": mean,
        "the losses are in nats, so the base is e and not 2": 2**mean,
        "the losses are in nats, so the base is e and not 10": 10**mean,
        "divide the sum by the number of tokens, not of documents": (tokens.sum() / len(losses)).exp(),
        "a loss is minus the log already: the sign is wrong": (-mean).exp(),
    }


def check_kept_above_chance(kept_above_chance: Callable[[float, float, int], float]) -> None:
    """Check ``kept_above_chance(dense, pruned, choices)``: percent of the score above guessing that is left."""
    tried = [(82.0, 61.0, 4), (70.0, 50.0, 2), (90.0, 66.0, 3), (64.0, 19.0, 5)]
    cases = named_cases("dense pruned choices", *tried)
    compare("kept_above_chance", kept_above_chance, cases, _kept_above_chance)


def _kept_above_chance(dense: float, pruned: float, choices: int) -> Answers:
    def kept(dense: float, pruned: float, guess: float = 100 / choices) -> float:
        return 100 * (pruned - guess) / (dense - guess)

    guess, right = 100 / choices, kept(dense, pruned)
    return right, {
        "that is plain retention: take the guessing level off both accuracies": 100 * pruned / dense,
        "guessing is right once in so many choices, and the accuracies are in percent: so must that be":
            kept(dense, pruned, guess / 100),
        "that is a share between 0 and 1: percent is asked for": right / 100,
        "take the guessing level off the dense model's accuracy as well": 100 * (pruned - guess) / dense,
        "take the guessing level off the pruned model's accuracy as well": 100 * pruned / (dense - guess),
        "upside down: the dense model is the measure": lambda: kept(pruned, dense),
        "that is what was lost: how much is kept?": 100 - right,
        "that takes two choices for granted: the guessing level depends on them": kept(dense, pruned, 50),
        "a score below guessing stays below zero here: cutting it off would make noise look like zero": max(0.0, right),
        "that is how far the pruned model is above guessing: divide by how far the dense one was": pruned - guess,
    }  # fmt: skip


def check_scored_windows(scored_windows: Callable[[int, int, int], list[tuple[int, int, int]]]) -> None:
    """Check ``scored_windows(tokens, window, stride)``: for each window its start, end, and the first token it scores."""
    tried = [(12, 5, 3), (20, 8, 6), (7, 9, 4), (2300, 1024, 512), (21, 6, 2)]
    compare("scored_windows", scored_windows, named_cases("tokens window stride", *tried), _scored_windows)


def _scored_windows(tokens: int, window: int, stride: int) -> Answers:
    right = _windows(tokens, window, stride)
    twice = "some tokens are scored twice: what an earlier window has scored is only context in the next"
    first = "nothing stands before the first token of a text, so it has no loss: scoring starts at position 1"
    return right, {
        first: [(0, right[0][1], 0), *right[1:]],
        twice: AnyOf(
            [(start, end, start + 1) for start, end, _ in right],
            [(start, end, max(done - 1, 1)) for start, end, done in right],
        ),
        f"{twice}. And {first}": [(start, end, start) for start, end, _ in right],
        "a token between two windows is never scored: the next window starts where the last one ended":
            [(start, end, min(done + (start > 0), end)) for start, end, done in right],
        "the last window can be shorter, and then fewer than `stride` of its tokens have no loss yet":
            [(start, end, max(end - stride, 1) if start else 1) for start, end, _ in right],
        "once a window reaches the end of the text all is scored: stop there":
            _windows(tokens, window, stride, to_the_end=True),
        "the last window ends beyond the text: end is at most the number of tokens":
            [(start, start + window, done) for start, _, done in right],
        "the tokens at the end are never scored: the last window may be shorter than the others":
            [(start, end, done) for start, end, done in right if end - start == window],
        "windows should overlap: from one to the next, move by the stride": _windows(tokens, window, window),
        "the third number is how many tokens are scored: give the position of the first of them":
            [(start, end, end - done) for start, end, done in right],
        "end is the position after the last token of the window, as in Python's slices":
            [(start, end - 1, done) for start, end, done in right],
    }  # fmt: skip


def _windows(tokens: int, window: int, stride: int, to_the_end: bool = False) -> list[tuple[int, int, int]]:
    found: list[tuple[int, int, int]] = []
    for start in range(0, tokens, stride):
        found.append((start, min(start + window, tokens), found[-1][1] if found else 1))
        if found[-1][1] == tokens and not to_the_end:
            break
    return found


def check_answer_scores(answer_scores: Callable[..., Tensor]) -> None:
    """Check ``answer_scores(logits, ids, question, lengths, per_token)``: log-probability of each answer."""
    cases = []
    tried = [(4, (3, 3, 3), False), (5, (2, 6, 3, 4), False), (3, (1, 5), True), (6, (4, 2, 3), True)]
    for seed, (question, answers, per_token) in enumerate(tried):
        generator = seeded(7000 + seed)
        lengths = torch.tensor(answers) + question
        shape = (len(answers), int(lengths.max()))
        ids = torch.randint(1, 20, shape, generator=generator)
        ids[:, :question] = ids[0, :question]
        ids[torch.arange(shape[1]) >= lengths[:, None]] = 0
        logits = 2 * torch.randn(*shape, 20, generator=generator)
        words = f"a question of {question} tokens, answers of {', '.join(map(str, answers))} and per_token={per_token}"
        cases.append(Case(words, (logits, ids, question, lengths, per_token)))
    compare("answer_scores", answer_scores, cases, _answer_scores, tolerance=1e-4)


def _answer_scores(logits: Tensor, ids: Tensor, question: int, lengths: Tensor, per_token: bool) -> Answers:
    place, size = torch.arange(1, ids.shape[1]), lengths - question
    predicted = logits.double()[:, :-1]
    logs = _at(ids[:, 1:], predicted.log_softmax(-1))

    def score(
        values: Tensor = logs, first: int = 0, last: int = 0, mean: bool = per_token, size: Tensor = size
    ) -> Tensor:
        counted = (place >= question + first) & (place < lengths[:, None] + last)
        total = (values * counted).sum(-1)
        return total / size if mean else total

    return score(), {
        "off by one: the logits at a position predict the token after it":
            score(_at(ids[:, 1:], logits.double()[:, 1:].log_softmax(-1))),
        "the question's tokens are counted: only the answer's should be": score(first=-question),
        "the first token of the answer is missing: the question's last logits predict it": score(first=1),
        "the last token of the question is counted: the answer starts behind it": score(first=-1),
        "pads are counted: a row has as many real tokens as `lengths` says": score(last=ids.shape[1]),
        "the last token of each answer is missing": score(last=-1),
        "these are logits: turn them into log-probabilities first (log_softmax)": score(_at(ids[:, 1:], predicted)),
        "these are sums of probabilities: the logs of probabilities add up": score(logs.exp()),
        "that is a probability: its logarithm is asked for": score().exp(),
        "the sign is wrong: a log-probability is negative, and the largest is the best": -score(),
        "per_token=True asks for the mean over the answer's tokens": score(mean=False),
        "per_token=False asks for the sum over the answer's tokens": score(mean=True),
        "divide by the number of tokens of the answer: the question's are not in the sum": score(size=lengths),
        "answers have different lengths: divide each sum by its own": score(size=size.max()),
    }  # fmt: skip


def _at(ids: Tensor, values: Tensor) -> Tensor:
    """What the values ``[choices, tokens, vocabulary]`` say about these tokens: ``[choices, tokens]``."""
    return values.gather(-1, ids[..., None])[..., 0]
