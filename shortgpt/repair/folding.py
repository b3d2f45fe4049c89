"""Fold a patch of `healing` into weights that a layer has: an output projection, and the norm behind it where one is.

A branch that ends in ``W z``, added to the residual stream, takes the least-squares D as it is: ``W + D'``. In Gemma 2 and 3
and OLMo 2 a norm stands behind: ``y = h + g * W z / |W z|`` (|.|: root mean square). What the branch adds then has a fixed
length, and D has no place. But with the lengths of the tokens kept from the round before, ``g * W`` is found by the same
least squares from ``z / |W z|``, and then g channel by channel from ``W z / |W z|``. Both are repeated for a few rounds; a
step that does not lower the error is halved, or left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from shortgpt.model.branches import sublayers
from shortgpt.model.hooks import hooked
from shortgpt.model.offload import bring_in
from shortgpt.repair.fitting import Sample, States, rows, solve

ROUNDS, STEPS = 3, (1.0, 0.5, 0.25)  # of the fit in front of a norm

_NOT_ADDED = (
    "has no {branch} whose output projection is simply added to the residual stream, so nothing can be folded into it: use "
    "kind='linear'"
)


def fit_fold(
    layer: nn.Module, i: int, samples: Sequence[Sample], states: States, goals: States
) -> tuple[States, Tensor]:
    """Fit the FFN's output projection of `layer` (changed in place) again: the states that then leave it, and D."""
    projection = output_projection(layer, i, samples[0], states[0], "ffn")
    norm = norm_behind(layer, projection, samples[0], i, states[0])
    if norm is not None:
        return _fit_before_norm(layer, i, projection, norm, samples, states, goals)
    parts = (
        (s, z, y, g) for (s, y, [z]), g in zip(running(layer, i, samples, states, [projection]), goals, strict=True)
    )
    return _add(layer, i, projection, solve(parts, i), samples, states, "FFN")


def fit_fold_both(
    layer: nn.Module, i: int, samples: Sequence[Sample], states: States, goals: States
) -> tuple[States, Tensor]:
    """Fit the output projections of attention and FFN again, from both inputs together; then the FFN's once more.

    The FFN answers to what attention adds, which the first fit does not see and the second one makes good.
    """
    attention, ffn = (output_projection(layer, i, samples[0], states[0], name) for name in ("attention", "ffn"))
    if norm_behind(layer, attention, samples[0], i, states[0]) is not None:
        raise ValueError(f"in layer {i} ({type(layer).__name__}) a norm follows the attention: use kind='fold'")
    both = running(layer, i, samples, states, [attention, ffn])
    solution = solve(((s, torch.cat(z, -1), y, g) for (s, y, z), g in zip(both, goals, strict=True)), i)
    add_to(attention, solution[: _width(attention)])
    return fit_fold(layer, i, samples, states, goals)


def running(
    layer: nn.Module, i: int, samples: Sequence[Sample], states: States, modules: Sequence[nn.Module]
) -> Iterator[tuple[Sample, Tensor, list[Tensor]]]:
    """For each sample: what leaves the layer, and what enters each of the modules on the way (each runs once)."""
    seen: dict[int, Tensor] = {}

    def keep(position: int, module: nn.Module, args: tuple, kwargs: dict) -> None:
        seen[position] = args[0]

    with hooked(modules, keep, before=True):
        for sample, x in zip(samples, states, strict=True):
            y = sample.run(layer, i, x)
            yield sample, y, [seen[place].view(*y.shape[:-1], -1) for place in range(len(modules))]


def output_projection(layer: nn.Module, i: int, sample: Sample, states: Tensor, branch: str) -> Any:
    """The matrix that a branch of `layer` ends with: of its linear maps to the hidden size, the one that runs last.

    It is in memory from now on. Raises ValueError if there is no such matrix.
    """
    ran: list[Any] = []
    maps = [
        module
        for name in sublayers(layer)[branch]
        for module in layer.get_submodule(name).modules()
        if isinstance(module, nn.Linear | Conv1D) and type(module.weight) is nn.Parameter
    ]
    with hooked(maps, lambda position, module, args, kwargs, output: ran.append(module)):
        width = sample.run(layer, i, states).shape[-1]
    last = ran[-1] if ran else None
    if last is not None:
        bring_in(last)
    if last is None or not last.weight.is_floating_point() or ran.count(last) != 1 or _outputs(last) != width:
        raise ValueError(f"layer {i} ({type(layer).__name__}) {_NOT_ADDED.format(branch=_called(branch))}")
    return last


def add_to(projection: Any, change: Tensor) -> None:
    """Give `projection` a new weight: W with `change` ``[k, hidden]`` added (`Conv1D` keeps W that way round)."""
    weight = projection.weight
    change = change if isinstance(projection, Conv1D) else change.T
    projection.weight = nn.Parameter(weight + change.to(weight), requires_grad=weight.requires_grad)


def _called(branch: str) -> str:
    return "FFN" if branch == "ffn" else branch


def _outputs(projection: Any) -> int:
    return projection.weight.shape[1 if isinstance(projection, Conv1D) else 0]


def _width(projection: Any) -> int:
    return projection.weight.shape[0 if isinstance(projection, Conv1D) else 1]


def _add(
    layer: nn.Module, i: int, projection: Any, solution: Tensor, samples: Sequence[Sample], states: States, called: str
) -> tuple[States, Tensor]:
    """Add D to the projection, and see that the layer really adds what comes out of it to its states."""
    _, y, [z] = next(running(layer, i, samples[:1], states[:1], [projection]))
    expected = y + (z @ solution.to(y)).view_as(y)
    add_to(projection, solution)
    new = [sample.run(layer, i, x) for sample, x in zip(samples, states, strict=True)]
    off, scale = (new[0] - expected).float().norm(), expected.float().norm()
    if not off <= 0.01 * scale:  # rounding is far below: bfloat16 has 0.004
        raise ValueError(f"layer {i} ({type(layer).__name__}) {_NOT_ADDED.format(branch=called)}")
    return new, solution


def norm_behind(layer: nn.Module, projection: nn.Module, sample: Sample, i: int, states: Tensor) -> Any:
    """The root-mean-square norm that what leaves `projection` goes through before it is added, or None."""
    ran: list[tuple[nn.Module, Tensor, Tensor]] = []
    norms = [m for m in layer.modules() if m is projection or getattr(getattr(m, "weight", None), "ndim", 0) == 1]
    with hooked(norms, lambda position, module, args, kwargs, output: ran.append((module, args[0], output))):
        sample.run(layer, i, states)
    at = next(place for place, (module, *_) in enumerate(ran) if module is projection)
    if at + 1 == len(ran):
        return None
    u, (norm, given, output) = ran[at][2], ran[at + 1]
    if given.shape != u.shape or not torch.equal(given, u) or getattr(norm, "bias", None) is not None:
        return None
    bring_in(norm)
    off = gain(norm) * u.float() / _length(u.float()) - output.float()
    return norm if off.norm() <= 0.02 * output.float().norm() else None


def gain(norm: Any) -> Tensor:
    """What a norm multiplies each channel by, ``[hidden]`` float32: its weight, or 1 + weight as Gemma has it."""
    return norm.weight.float() + unit_offset(norm)


def unit_offset(norm: Any) -> float:
    one = torch.ones(1, norm.weight.shape[0], device=norm.weight.device, dtype=norm.weight.dtype)
    return float(functional_call(norm, {"weight": torch.zeros_like(norm.weight)}, (one,)).float().abs().max() > 0.5)


def _length(u: Tensor) -> Tensor:
    return u.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-6)


def _fit_before_norm(
    layer: nn.Module, i: int, projection: Any, norm: Any, samples: Sequence[Sample], states: States, goals: States
) -> tuple[States, Tensor]:
    """See the head of this module. D is the change of ``(g * W)'``."""

    def ran() -> Iterator[tuple[Sample, Tensor, list[Tensor]]]:
        return running(layer, i, samples, states, [projection, norm])

    def error() -> float:
        parts = ((s, y, y, g) for (s, y, _), g in zip(ran(), goals, strict=True))
        return sum(float((w * r.square().sum(-1)).sum()) for _, r, w in rows(parts))

    start = _effective(projection, norm)
    best = error()
    for _ in range(ROUNDS):
        by_length = ((s, z / _length(u.float()).to(z), y, g) for (s, y, [z, u]), g in zip(ran(), goals, strict=True))
        change, old = solve(by_length, i), projection.weight
        small = gain(norm).abs() < 1e-3 * gain(norm).abs().mean()  # a channel that the norm shuts stays shut
        for step in STEPS:
            add_to(projection, step * (change / gain(norm).cpu().double()).masked_fill(small.cpu(), 0))
            if (now := error()) < best:
                best = now
                break
            projection.weight = old
        best = _refit_gain(norm, ((s, u, y, g) for (s, y, [_, u]), g in zip(ran(), goals, strict=True)), error, best)
    new = [sample.run(layer, i, x) for sample, x in zip(samples, states, strict=True)]
    return new, (_effective(projection, norm) - start).cpu().double()


def _effective(projection: Any, norm: Any) -> Tensor:
    """``(g * W)'``, ``[k, hidden]`` float32."""
    weight = projection.weight.float()
    return (weight if isinstance(projection, Conv1D) else weight.T) * gain(norm)


def _refit_gain(norm: Any, parts: Iterator, error: Any, best: float) -> float:
    """The norm's weight by least squares, each channel on its own: the error then, or as it was if that is lower."""
    old = norm.weight
    over, under = torch.zeros(2, len(old), dtype=torch.float64)
    for u, r, w in rows(parts):
        n = u / _length(u)
        over += (w[:, None] * n * r).sum(0)
        under += (w[:, None] * n * n).sum(0)
    change = (over / under.clamp(min=1e-30)).to(old)
    norm.weight = nn.Parameter(old + change, requires_grad=old.requires_grad)
    if (now := error()) < best:
        return now
    norm.weight = old
    return best
