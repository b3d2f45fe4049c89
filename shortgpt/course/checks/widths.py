"""Checks for lesson 07: parameters of a layer, taking channels out of an FFN, and what a channel adds to the state."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from shortgpt.course.checks.verdict import Case, Mistake, compare


def check_layer_parameters(layer_parameters: Callable[[int, int, int, int, int], tuple[int, int]]) -> None:
    """Check ``layer_parameters(hidden, heads, kv_heads, head_dim, intermediate)``: parameters of attention and of the FFN."""
    names = ("hidden", "heads", "kv_heads", "head_dim", "intermediate")
    tried = [(576, 9, 3, 64, 1536), (64, 4, 4, 16, 100), (1024, 16, 4, 96, 3072), (96, 6, 1, 32, 200)]
    cases = [
        Case(", ".join(f"{name} = {value}" for name, value in zip(names, sizes, strict=True)), sizes) for sizes in tried
    ]

    def attention(h, heads, groups, width, *, out=True, values=2):
        return h * heads * width * (1 + out) + values * h * groups * width

    def right(h, heads, groups, width, inner):
        return attention(h, heads, groups, width), 3 * h * inner

    mistakes = [
        Mistake(
            lambda h, heads, groups, width, inner: (attention(h, heads, heads, width), 3 * h * inner),
            "several query heads share one key head and one value head: count `kv_heads` of those",
        ),
        Mistake(
            lambda h, heads, groups, width, inner: (attention(h, groups, groups, width), 3 * h * inner),
            "only keys and values are shared: there are `heads` queries",
        ),
        Mistake(
            lambda h, heads, groups, width, inner: (attention(h, heads, groups, width, out=False), 3 * h * inner),
            "a fourth matrix leads from the heads back to the hidden state",
        ),
        Mistake(
            lambda h, heads, groups, width, inner: (attention(h, heads, groups, width, values=1), 3 * h * inner),
            "keys and values have a matrix each",
        ),
        Mistake(
            lambda h, heads, groups, width, inner: (2 * h * h + 2 * h * groups * width, 3 * h * inner),
            "all heads together need not be as wide as the hidden state: they are heads times head_dim",
        ),
        Mistake(lambda *a: (right(*a)[0], right(*a)[1] // 3 * 2), "this FFN has three matrices: gate, up and down"),
        Mistake(lambda *a: (right(*a)[0], right(*a)[1] // 3), "this FFN has three matrices: gate, up and down"),
        Mistake(lambda *a: right(*a)[::-1], "attention first, then the FFN"),
        Mistake(lambda *a: sum(right(*a)), "return the two numbers, not their sum"),
    ]  # fmt: skip
    compare("layer_parameters", layer_parameters, cases, right, mistakes, tolerance=0)


def check_without_channels(
    without_channels: Callable[[Tensor, Tensor, Tensor, list[int]], tuple[Tensor, Tensor, Tensor]],
) -> None:
    """Check ``without_channels(gate, up, down, removed)``: the three weights of the FFN without these channels."""
    cases = []
    for seed, (hidden, inner, removed) in enumerate([(6, 10, [1, 4, 5]), (8, 9, [3, 0]), (12, 7, [5, 2, 3, 6])]):
        generator = torch.Generator().manual_seed(8100 + seed)
        shapes = (inner, hidden), (inner, hidden), (hidden, inner)
        weights = (torch.randn(*shape, generator=generator) for shape in shapes)
        words = f"hidden size {hidden}, {inner} channels and removed = {removed}"
        cases.append(Case(words, (*weights, removed)))

    def kept(count, removed):
        return [i for i in range(count) if i not in removed]

    def right(gate, up, down, removed):
        stay = kept(len(gate), removed)
        return gate[stay], up[stay], down[:, stay]

    def rest(gate, up, down, removed, *, parts):
        """Only those of the three weights are cut that `parts` names."""
        new = right(gate, up, down, removed)
        return tuple(new[i] if i in parts else old for i, old in enumerate((gate, up, down)))

    def with_stay(choose: Callable[[int, Sequence[int]], list[int]]):
        return lambda gate, up, down, removed: (
            gate[stay := choose(len(gate), removed)],
            up[stay],
            down[:, stay],
        )  # fmt: skip

    def one_by_one(order: Callable):
        def choose(count: int, removed: Sequence[int]) -> list[int]:
            stay = list(range(count))
            for i in order(removed):
                if i < len(stay):
                    del stay[i]
            return stay

        return with_stay(choose)

    def zeroed(gate, up, down, removed):
        parts = gate.clone(), up.clone(), down.clone()
        for part, places in zip(parts, ((removed,), (removed,), (slice(None), removed)), strict=True):
            part[places] = 0
        return parts

    shifted = "each deletion moves the channels behind it: decide by the original numbers which stay, then take those"
    mistakes = [
        Mistake(
            lambda gate, up, down, removed: (gate[s := kept(len(gate), removed)], up[s], down[kept(len(down), removed)]),
            "down reads the channels, so its channels are its columns, [hidden, inner]",
        ),
        Mistake(
            lambda gate, up, down, removed: (gate[:, s := kept(gate.shape[1], removed)], up[:, s], down[s]),
            "these are entries of the hidden state: a channel is a row of gate and up, and a column of down",
        ),
        Mistake(lambda *a: rest(*a, parts=(0, 1)), "down still reads all channels"),
        Mistake(lambda *a: rest(*a, parts=(1, 2)), "gate still writes all channels"),
        Mistake(lambda *a: rest(*a, parts=(0, 2)), "up still writes all channels"),
        Mistake(with_stay(lambda count, removed: list(removed)), "these are the channels that should go"),
        Mistake(with_stay(lambda count, removed: sorted(removed)), "these are the channels that should go"),
        Mistake(zeroed, "zeros cost as much time and memory as other numbers: take the rows and columns out"),
        Mistake(one_by_one(list), shifted),
        Mistake(one_by_one(sorted), shifted),
        Mistake(
            with_stay(lambda count, removed: list(range(count - len(removed)))),
            "that cuts from the end: the channels to go are named in `removed`",
        ),
        Mistake(lambda *a: (*right(*a)[:2], right(*a)[2].T), "down stays [hidden, channels], as a linear module needs it"),
    ]  # fmt: skip
    compare("without_channels", without_channels, cases, right, mistakes, tolerance=0, hints={IndexError: shifted})


def check_channel_scores(channel_scores: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Check ``channel_scores(inner, down, mask)``: length of what each channel adds to the state, ``[channels]``."""
    cases = []
    for seed, (samples, tokens, hidden, channels) in enumerate([(3, 7, 5, 9), (2, 5, 6, 6), (4, 6, 8, 4)]):
        generator = torch.Generator().manual_seed(8200 + seed)
        inner = torch.randn(samples, tokens, channels, generator=generator) + 0.3
        inner = inner * torch.rand(channels, generator=generator) * 4
        down = torch.randn(hidden, channels, generator=generator) * (0.2 + torch.rand(channels, generator=generator))
        mask = torch.ones(samples, tokens, dtype=torch.long)
        for i in range(1, samples):
            mask[i, : i + 1] = 0  # padded on the left, by a different number each
        inner[mask == 0] = 9.0
        words = f"{samples} samples of up to {tokens} tokens, {channels} channels and hidden size {hidden}"
        cases.append(Case(words, (inner, down, mask)))

    def rms(inner, mask):
        return inner[mask.bool()].square().mean(0).sqrt()

    def right(inner, down, mask):
        return rms(inner, mask) * down.norm(dim=0)

    mistakes = [
        Mistake(
            lambda inner, down, mask: right(inner, down, torch.ones_like(mask)), "pad tokens are counted: leave them out"
        ),
        Mistake(
            lambda inner, down, mask: (
                (inner * mask[..., None]).square().mean((0, 1)).sqrt() * down.norm(dim=0)
            ),
            "pads are left out of the sum, but not out of the number it is divided by",
        ),
        Mistake(
            lambda inner, down, mask: inner[mask.bool()].mean(0).abs() * down.norm(dim=0),
            "a channel that is now positive, now negative adds much and averages to little: square before the mean",
        ),
        Mistake(
            lambda inner, down, mask: inner[mask.bool()].mean(0) * down.norm(dim=0),
            "a channel that is now positive, now negative adds much and averages to little: square before the mean",
        ),
        Mistake(
            lambda inner, down, mask: inner[mask.bool()].abs().mean(0) * down.norm(dim=0),
            "that is the mean of the absolute values: root mean square is asked for, in which large values count more",
        ),
        Mistake(
            lambda inner, down, mask: inner[mask.bool()].square().mean(0) * down.norm(dim=0),
            "the root is missing",
        ),
        Mistake(
            lambda inner, down, mask: right(inner, down, mask) ** 2,
            "that is the square of the length: the root is missing",
        ),
        Mistake(
            lambda inner, down, mask: inner[mask.bool()].norm(dim=0) * down.norm(dim=0),
            "divide by the number of tokens before the root: more text must not raise all scores",
        ),
        Mistake(
            lambda inner, down, mask: rms(inner, mask),
            "a channel may be loud and find no ear: what it adds is its value times its column of down",
        ),
        Mistake(
            lambda inner, down, mask: down.norm(dim=0).clone(), "that looks at the weights alone: what do the texts say?"
        ),
        Mistake(
            lambda inner, down, mask: rms(inner, mask) * down.square().sum(0),
            "the length of a column is the root of its sum of squares",
        ),
    ]  # fmt: skip
    axis = "channels are the last axis of inner, and the columns of down [hidden, channels]"
    compare("channel_scores", channel_scores, cases, right, mistakes, hints={RuntimeError: axis})
