"""Checks for lesson 09: which states belong together, how far two answers are apart, and an adapter merged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from shortgpt.course.checks.comparing import Answers, Case, compare, named_cases, seeded


def check_state_pairs(state_pairs: Callable[[int, list[int]], list[tuple[int, int]]]) -> None:
    """Check ``state_pairs(depth, removed)``: pairs of depths, in the pruned and in the dense model, that should agree."""
    rows = (6, [3, 4]), (9, [7, 2, 3]), (5, [4]), (8, [1, 3, 5])
    compare(
        "state_pairs", state_pairs, named_cases("depth removed", *rows), _state_pairs, counts=_as_pairs, tolerance=0
    )


def _as_pairs(answer: Any) -> Any:
    """Pairs in a list, whatever they came in; what is none, as it is."""
    in_order = isinstance(answer, list | tuple) and all(isinstance(pair, list | tuple) for pair in answer)
    return [tuple(pair) for pair in answer] if in_order else answer


def _state_pairs(depth: int, removed: list[int]) -> Answers:
    kept = [layer for layer in range(depth) if layer not in removed]
    right = [*enumerate(kept), (len(kept), depth)][1:]
    return right, {
        "one state leaves the last layer: it belongs to the one that leaves the dense model's last layer": right[:-1],
        "what enters the first layer is the embedding in both models: no layer could change it": [(0, kept[0]), *right],
        "the layers have new numbers in the pruned model, and their old ones in the dense one":
            [(new, new) for new, _ in right],
        "the pruned model comes first in each pair": [(old, new) for new, old in right],
        "those are states that *leave* layers with the same number: before a gap they are not what comes next":
            [(new + 1, old + 1) for new, old in enumerate(kept)],
        "these are the removed layers: the states belong to those that were kept": [*enumerate(sorted(removed))],
    }  # fmt: skip


def check_answer_divergence(answer_divergence: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Check ``answer_divergence(dense, pruned, temperature)``: logits ``[tokens, vocabulary]`` twice to nats ``[tokens]``."""
    cases = []
    for seed, (tokens, vocabulary, temperature) in enumerate([(4, 9, 1.0), (6, 5, 2.0), (3, 12, 0.5)]):
        generator = seeded(9100 + seed)
        logits = (2 * torch.randn(tokens, vocabulary, generator=generator, dtype=torch.float64) for _ in range(2))
        cases.append(Case(f"{tokens} tokens, {vocabulary} words and temperature {temperature}", (*logits, temperature)))
    compare("answer_divergence", answer_divergence, cases, _answer_divergence)


def _answer_divergence(dense: Tensor, pruned: Tensor, temperature: float) -> Answers:
    def apart(first: Tensor = dense, second: Tensor = pruned, warm: float = temperature) -> Tensor:
        log_p, log_q = (first / warm).log_softmax(-1), (second / warm).log_softmax(-1)
        return (log_p.exp() * (log_p - log_q)).sum(-1)

    right = temperature**2 * apart()
    of_probabilities = dense.softmax(-1) * (dense.softmax(-1) / pruned.softmax(-1)).log()
    return right, {
        "the dense model's probabilities are the weights: p times (log p - log q)": temperature**2 * apart(pruned, dense),
        "multiply by the temperature squared, or gradients shrink with it": apart(),
        "divide the logits by the temperature first, both of them": temperature**2 * apart(warm=1.0),
        "temperature has no part in this yet": of_probabilities.sum(-1),
        "the temperature comes in squared": temperature * apart(),
        "one number a token: sum over the vocabulary": right.sum(),
        "one number for each token, not their mean": right.mean(),
        "that is the cross entropy: take off the dense model's own":
            temperature**2 * -((dense / temperature).softmax(-1) * (pruned / temperature).log_softmax(-1)).sum(-1),
        "logits are not probabilities yet: softmax first": (dense * (dense - pruned)).sum(-1),
    }  # fmt: skip


def check_merged_weight(merged_weight: Callable[[Tensor, Tensor, Tensor, float], Tensor]) -> None:
    """Check ``merged_weight(weight, a, b, alpha)``: the matrix that does what ``weight`` and its adapter did together."""
    cases = []
    for seed, (out, into, rank, alpha) in enumerate([(5, 7, 2, 4.0), (6, 4, 3, 3.0), (8, 8, 4, 16.0)]):
        generator = seeded(9200 + seed)
        shapes = (out, into), (rank, into), (out, rank)
        tensors = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes)
        cases.append(Case(f"{into} inputs, {out} outputs, rank {rank} and alpha = {alpha}", (*tensors, alpha)))
    shapes_hint = "a leads from the inputs to the rank, b from there to the outputs: b @ a has the shape of the weight"
    compare("merged_weight", merged_weight, cases, _merged_weight, hints={RuntimeError: shapes_hint})


def _merged_weight(weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Answers:
    rank, change = len(a), b @ a
    return weight + alpha / rank * change, {
        "the adapter's part is scaled: by alpha divided by the rank": weight + change,
        "divide alpha by the rank": weight + alpha * change,
        "the rank is the number of rows of a": weight + alpha / a.shape[1] * change,
        "that is the change: add it to the weight": alpha / rank * change,
        "the weight itself is not scaled": alpha / rank * (weight + change),
        "the adapter is added, not taken off": weight - alpha / rank * change,
    }  # fmt: skip
