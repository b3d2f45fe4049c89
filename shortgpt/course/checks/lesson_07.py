"""Checks for lesson 07: parameters of a layer, taking channels out of an FFN, and what a channel adds to the state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from shortgpt.course.checks.comparing import Answers, AnyOf, Case, compare, seeded

SHIFTED = "each deletion moves the channels behind it: decide by the original numbers which stay, then take those"


def check_layer_parameters(layer_parameters: Callable[[int, int, int, int, int], tuple[int, int]]) -> None:
    """Check ``layer_parameters(hidden, heads, kv_heads, head_dim, intermediate)``: parameters of attention and of the FFN."""
    names = ("hidden", "heads", "kv_heads", "head_dim", "intermediate")
    tried = [(576, 9, 3, 64, 1536), (64, 4, 4, 16, 100), (1024, 16, 4, 96, 3072), (96, 6, 1, 32, 200)]
    cases = [
        Case(", ".join(f"{name} = {value}" for name, value in zip(names, sizes, strict=True)), sizes) for sizes in tried
    ]
    compare("layer_parameters", layer_parameters, cases, _layer_parameters, tolerance=0)


def _layer_parameters(hidden: int, heads: int, kv_heads: int, head_dim: int, intermediate: int) -> Answers:
    ffn = 3 * hidden * intermediate

    def attention(heads: int = heads, kv_heads: int = kv_heads, query_and_out: int = 2, key_and_value: int = 2) -> int:
        return hidden * head_dim * (heads * query_and_out + kv_heads * key_and_value)

    right = attention(), ffn
    return right, {
        "several query heads share one key head and one value head: count `kv_heads` of those":
            (attention(kv_heads=heads), ffn),
        "only keys and values are shared: there are `heads` queries": (attention(heads=kv_heads), ffn),
        "a fourth matrix leads from the heads back to the hidden state": (attention(query_and_out=1), ffn),
        "keys and values have a matrix each": (attention(key_and_value=1), ffn),
        "all heads together need not be as wide as the hidden state: they are heads times head_dim":
            (2 * hidden * hidden + 2 * hidden * kv_heads * head_dim, ffn),
        "this FFN has three matrices: gate, up and down": AnyOf((attention(), ffn // 3 * 2), (attention(), ffn // 3)),
        "attention first, then the FFN": right[::-1],
        "return the two numbers, not their sum": sum(right),
    }  # fmt: skip


def check_without_channels(
    without_channels: Callable[[Tensor, Tensor, Tensor, list[int]], tuple[Tensor, Tensor, Tensor]],
) -> None:
    """Check ``without_channels(gate, up, down, removed)``: the three weights of the FFN without these channels."""
    cases = []
    for seed, (hidden, inner, removed) in enumerate([(6, 10, [1, 4, 5]), (8, 9, [3, 0]), (12, 7, [5, 2, 3, 6])]):
        generator = seeded(8100 + seed)
        shapes = (inner, hidden), (inner, hidden), (hidden, inner)
        weights = (torch.randn(*shape, generator=generator) for shape in shapes)
        words = f"hidden size {hidden}, {inner} channels and removed = {removed}"
        cases.append(Case(words, (*weights, removed)))
    hints = {IndexError: SHIFTED}
    compare("without_channels", without_channels, cases, _without_channels, tolerance=0, hints=hints)


def _without_channels(gate: Tensor, up: Tensor, down: Tensor, removed: list[int]) -> Answers:
    (channels, hidden), fewer = gate.shape, len(gate) - len(removed)
    stay, entries = ([i for i in range(size) if i not in removed] for size in (channels, hidden))
    loud = torch.tensor([i in stay for i in range(channels)])

    def only(stay: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        return gate[stay], up[stay], down[:, stay]

    def one_by_one(order: Iterable[int]) -> tuple[Tensor, Tensor, Tensor]:
        left = list(range(channels))
        for i in order:
            del left[i : i + 1]
        return only(left)

    right = new_gate, new_up, new_down = only(stay)
    return right, {
        "down reads the channels, so its channels are its columns, [hidden, inner]": (new_gate, new_up, down[entries]),
        "these are entries of the hidden state: a channel is a row of gate and up, and a column of down":
            (gate[:, entries], up[:, entries], down[entries]),
        "down still reads all channels": (new_gate, new_up, down),
        "gate still writes all channels": (gate, new_up, new_down),
        "up still writes all channels": (new_gate, up, new_down),
        "these are the channels that should go": AnyOf(only(removed), only(sorted(removed))),
        "zeros cost as much time and memory as other numbers: take the rows and columns out":
            (gate * loud[:, None], up * loud[:, None], down * loud),
        SHIFTED: AnyOf(one_by_one(removed), one_by_one(sorted(removed))),
        "that cuts from the end: the channels to go are named in `removed`": only(range(fewer)),
        "down stays [hidden, channels], as a linear module needs it": (new_gate, new_up, new_down.T),
    }  # fmt: skip


def check_channel_scores(channel_scores: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Check ``channel_scores(inner, down, mask)``: length of what each channel adds to the state, ``[channels]``."""
    cases = []
    for seed, (samples, tokens, hidden, channels) in enumerate([(3, 7, 5, 9), (2, 5, 6, 6), (4, 6, 8, 4)]):
        generator = seeded(8200 + seed)
        inner = torch.randn(samples, tokens, channels, generator=generator) + 0.3
        inner = inner * torch.rand(channels, generator=generator) * 4
        down = torch.randn(hidden, channels, generator=generator) * (0.2 + torch.rand(channels, generator=generator))
        mask = torch.ones(samples, tokens, dtype=torch.long)
        for i in range(1, samples):
            mask[i, : i + 1] = 0  # padded on the left, by a different number each
        inner[mask == 0] = 9.0
        words = f"{samples} samples of up to {tokens} tokens, {channels} channels and hidden size {hidden}"
        cases.append(Case(words, (inner, down, mask)))
    axis = "channels are the last axis of inner, and the columns of down [hidden, channels]"
    compare("channel_scores", channel_scores, cases, _channel_scores, hints={RuntimeError: axis})


def _channel_scores(inner: Tensor, down: Tensor, mask: Tensor) -> Answers:
    inner, length = inner.double(), down.double().norm(dim=0)
    real = inner[mask.bool()]  # [tokens, channels]
    rms = real.square().mean(0).sqrt()
    right = rms * length
    return right, {
        "pad tokens are counted: leave them out": inner.square().mean((0, 1)).sqrt() * length,
        "pads are left out of the sum, but not out of the number it is divided by":
            (inner * mask[..., None]).square().mean((0, 1)).sqrt() * length,
        "a channel that is now positive, now negative adds much and averages to little: square before the mean":
            AnyOf(real.mean(0).abs() * length, real.mean(0) * length),
        "that is the mean of the absolute values: root mean square is asked for, in which large values count more":
            real.abs().mean(0) * length,
        "the root is missing": real.square().mean(0) * length,
        "that is the square of the length: the root is missing": right**2,
        "divide by the number of tokens before the root: more text must not raise all scores": real.norm(dim=0) * length,
        "a channel may be loud and find no ear: what it adds is its value times its column of down": rms,
        "that looks at the weights alone: what do the texts say?": length,
        "the length of a column is the root of its sum of squares": rms * length**2,
    }  # fmt: skip
