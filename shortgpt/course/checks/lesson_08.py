"""Checks for lesson 08: the half-life of a memory, a memory that is a matrix, and the same memory as attention."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from shortgpt.course.checks.comparing import Answers, AnyOf, Case, compare, seeded

FUTURE = "a token can't take anything from later ones: everything above the diagonal is 0"


def check_half_life(half_life: Callable[[Tensor], Tensor]) -> None:
    """Check ``half_life(speeds)``: tokens after which half is gone, where ``exp(-k d)`` is left after k tokens."""
    cases = []
    for seed, shape in enumerate([(5,), (2, 3), (1,)]):
        speeds = 0.02 + 2 * torch.rand(shape, generator=seeded(8300 + seed))
        cases.append(Case(f"speeds of shape {list(shape)}", (speeds,)))
    compare("half_life", half_life, cases, _half_life)


def _half_life(speeds: Tensor) -> Answers:
    right = math.log(2) / speeds.double()
    left = torch.exp(-speeds.double())
    return right, {
        "that is what is left after one token: in how many tokens is it one half?": left,
        "after 1/d tokens the weight is 1/e: when is it 1/2?": 1 / speeds,
        "the sign: the logarithm of one half is negative, and so is -k d": -right,
        "d is a speed; the decay is exp(-d)": math.log(0.5) / speeds.log(),
        "1/(1 - a) is a rule of thumb: solve exp(-k d) = 1/2 for k": 1 / (1 - left),
        "the faster a channel forgets, the shorter its memory: divide by d": math.log(2) * speeds,
        "the weight is a power of e: use the natural logarithm": math.log10(2) / speeds,
    }


def check_run_memory(run_memory: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> None:
    """Check ``run_memory(decay, write, read, x)``: what each token reads from a fading memory, ``[tokens, channels]``."""
    cases = [
        Case(f"{tokens} tokens, {state} places and {channels} channels", (*_memory(seed, tokens, state), x))
        for seed, (tokens, state, channels) in enumerate([(6, 4, 3), (5, 3, 7), (1, 2, 2)])
        for x in [torch.randn(tokens, channels, generator=seeded(8450 + seed))]
    ]
    compare("run_memory", run_memory, cases, _run_memory)


def _memory(seed: int, tokens: int, state: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = seeded(8400 + seed)
    decay = 0.3 + 0.6 * torch.rand(tokens, generator=generator)
    write, read = torch.randn(2, tokens, state, generator=generator)
    return decay, write, read


def _run_memory(decay: Tensor, write: Tensor, read: Tensor, x: Tensor) -> Answers:
    decay, write, read, x = (part.double() for part in (decay, write, read, x))
    weights = _weights(decay, write, read)
    early = (read @ write.T) * _before(decay)
    right = weights @ x
    return right, {
        "a token reads what it has just written, too: read behind the update": AnyOf(weights.tril(-1) @ x, early @ x),
        "the memory fades, then the token writes: what is new has not faded yet":
            _weights(decay, write * decay[:, None], read) @ x,
        "the memory does not fade: multiply it by the decay before anything is written":
            _weights(torch.ones_like(decay), write, read) @ x,
        "write and read are mixed up: x goes to the place that `write` names": _weights(decay, read, write) @ x,
        "what is written counts in full: there is no (1 - a) in this memory":
            _weights(decay, write * (1 - decay)[:, None], read) @ x,
        "that is what the last token reads: every token has a row": right[-1],
        "tokens come first: [tokens, channels]": right.T,
    }  # fmt: skip


def check_memory_as_attention(memory_as_attention: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Check ``memory_as_attention(decay, write, read)``: how much each token takes from each, ``[tokens, tokens]``."""
    cases = []
    for seed, (tokens, state, forgets) in enumerate([(6, 4, []), (7, 3, [3]), (5, 2, [0, 2])]):
        decay, write, read = _memory(50 + seed, tokens, state)
        decay[forgets] = 0.0
        words = f"{tokens} tokens, {state} places and decay {'0 at ' + str(forgets) if forgets else 'above 0'}"
        cases.append(Case(words, (decay, write, read)))
    zero = "a decay of 0 has no logarithm and nothing can be divided by it: multiply the decays from s + 1 to t"
    compare("memory_as_attention", memory_as_attention, cases, _memory_as_attention, not_finite=zero)


def _memory_as_attention(decay: Tensor, write: Tensor, read: Tensor) -> Answers:
    decay, write, read = (part.double() for part in (decay, write, read))
    right = _weights(decay, write, read)
    every = read @ write.T
    return right, {
        FUTURE: AnyOf(right + every.triu(1), every),
        "row t is the token that reads, column s the one that is read: it is the other way round": right.T,
        "what lies back has faded: the decays are missing": every.tril(),
        "a token's own decay fades what came before it, not what it writes: multiply from s + 1 on":
            _weights(decay, write * decay[:, None], read),
        "the memory fades at token t as well, before it is read: multiply up to t":
            every * _before(decay) + every.diag().diag(),
        "read and write are mixed up: entry (t, s) has read of t and write of s": _weights(decay, read, write),
        "a token reads what it has just written: on the diagonal nothing has faded": right.tril(-1),
        "there is no softmax in it": right.masked_fill(~torch.ones_like(right).tril().bool(), -torch.inf).softmax(-1),
    }  # fmt: skip


def _weights(decay: Tensor, write: Tensor, read: Tensor) -> Tensor:
    """How much token t takes from token s: ``[tokens, tokens]``."""
    return (read @ write.T) * _faded(decay)


def _faded(decay: Tensor) -> Tensor:
    """Products of the decays from s + 1 to t, in row t and column s."""
    tokens = range(len(decay))
    return torch.stack([torch.stack([decay[s + 1 : t + 1].prod() * (s <= t) for s in tokens]) for t in tokens])


def _before(decay: Tensor) -> Tensor:
    """Products of the decays from s + 1 to t - 1: what is left before token t comes."""
    return torch.cat([torch.zeros_like(decay)[None], _faded(decay)[:-1]])
