"""Fit one patch of `healing`: into the output projection of a layer's FFN, or on the state that leaves the layer.

Layers are run one by one, on states recorded in the dense model or handed on by the layer before, with the masks and
positions that the dense model gave them. The fit itself is ridge regression from sums over tokens, in float64, streamed:
``min_D sum_t w_t |r_t - z_t D|^2 + ridge |D|^2``. One part of the samples is held back: it chooses the ridge, and then all
samples are fitted together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from shortgpt.model.anatomy import decoder_layers
from shortgpt.model.branches import sublayers
from shortgpt.model.hooks import by_token, hooked, layer_input, layer_output, run_backbone

RIDGES = (0.01, 0.1, 0.3, 1.0, 3.0)  # times the mean of the diagonal of Z'Z
HOLD_BACK = 4  # one sample in so many chooses the ridge


class Sample:
    """One calibration batch, of `unpadded`, as the dense model sees it.

    Attributes:
        ids: its tokens, ``[batch, tokens]``.
        states: the dense model's hidden states at the wanted depths; depth i enters layer i, the last leaves the last.
        inputs: what each layer gets besides the states: masks and positions.
    """

    def __init__(self, model: PreTrainedModel, batch: Mapping[str, Tensor], depths: Collection[int]) -> None:
        self.ids = batch["input_ids"]
        self.states: dict[int, Tensor] = {}
        self.inputs: list[tuple[tuple, dict]] = []

        def keep(i: int, layer: nn.Module, args: tuple, kwargs: dict, output: Tensor | tuple) -> None:
            for depth, state in ((i, layer_input(args, kwargs)), (i + 1, layer_output(output))):
                if depth in depths:
                    self.states[depth] = state
            self.inputs.append((args[1:], {name: value for name, value in kwargs.items() if name != "hidden_states"}))

        with hooked(decoder_layers(model), keep), torch.no_grad():
            run_backbone(model, batch)

    def run(self, layer: nn.Module, i: int, states: Tensor) -> Tensor:
        """What `layer` makes of `states`, given the masks and positions that the dense model gave to its layer `i`."""
        args, kwargs = self.inputs[i]
        return layer_output(layer(states, *args, **kwargs))


def fit_projection(
    layer: nn.Module, i: int, samples: Sequence[Sample], states: list[Tensor], goals: list[Tensor]
) -> tuple[list[Tensor], Tensor]:
    """Add D to the FFN's output projection of `layer` (changed in place): the states that then leave it, and D."""
    projection, z = _output_projection(layer, i, samples[0], states[0]), []

    def keep(position: int, module: nn.Module, args: tuple, kwargs: dict) -> None:
        z.append(args[0])

    def parts() -> Iterator[tuple[Sample, Tensor, Tensor, Tensor]]:
        for sample, x, goal in zip(samples, states, goals, strict=True):
            y = sample.run(layer, i, x)
            yield sample, z.pop().view(*y.shape[:-1], -1), y, goal

    with hooked([projection], keep, before=True):
        solution = _solve(parts(), i)
        y = samples[0].run(layer, i, states[0])
        expected = y + (z.pop() @ solution.to(y)).view_as(y)
    weight = projection.weight
    change = solution if isinstance(projection, Conv1D) else solution.T
    projection.weight = nn.Parameter(weight + change.to(weight), requires_grad=weight.requires_grad)
    new = [sample.run(layer, i, x) for sample, x in zip(samples, states, strict=True)]
    off, scale = (new[0] - expected).float().norm(), expected.float().norm()
    if not off <= 0.01 * scale:  # rounding is far below: bfloat16 has 0.004
        raise ValueError(f"layer {i} ({type(layer).__name__}) {_NOT_ADDED}")
    return new, solution


def fit_residual(
    layer: nn.Module, i: int, samples: Sequence[Sample], states: list[Tensor], goals: list[Tensor]
) -> tuple[list[Tensor], Tensor]:
    """D ``[hidden + 1, hidden]`` for the state that leaves `layer` and a constant: the patched states, and D."""
    after = [sample.run(layer, i, x) for sample, x in zip(samples, states, strict=True)]

    def with_one(y: Tensor) -> Tensor:
        return torch.cat([y, torch.ones_like(y[..., :1])], -1)

    solution = _solve(((s, with_one(y), y, g) for s, y, g in zip(samples, after, goals, strict=True)), i)
    return [y + with_one(y) @ solution.to(y) for y in after], solution


def _solve(parts: Iterable[tuple[Sample, Tensor, Tensor, Tensor]], i: int) -> Tensor:
    """D ``[k, hidden]`` from ``(sample, z, y, x_e)`` of every batch, each ``[batch, tokens, features]``."""

    def samples() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for sample, *states in parts:
            for row in zip(*(by_token(some, sample.ids) for some in states), strict=True):
                # [tokens, features]; not every accelerator has float64, so it is done on the CPU
                z, y, goal = (some.cpu().double() for some in row)
                yield z, goal - y, 1 / goal.square().sum(-1).clamp(min=torch.finfo(torch.float32).tiny)

    try:
        return fit(samples())[0]
    except ValueError as error:
        raise ValueError(
            f"layer {i} can't be patched: {error}; load the model in float32 or bfloat16, or look for damaged weights"
        ) from error


_NOT_ADDED = (
    "has no FFN whose output projection is simply added to the residual stream, so nothing can be folded into it: use "
    "kind='linear'"
)


def _output_projection(layer: nn.Module, i: int, sample: Sample, states: Tensor) -> Any:
    """The matrix that the FFN of `layer` ends with: of its linear maps to the hidden size, the one that runs last."""
    ran: list[Any] = []
    maps = [
        module
        for name in sublayers(layer)["ffn"]
        for module in layer.get_submodule(name).modules()
        if isinstance(module, nn.Linear | Conv1D) and type(module.weight) is nn.Parameter
    ]
    with hooked(maps, lambda position, module, args, kwargs, output: ran.append(module)):
        width = sample.run(layer, i, states).shape[-1]
    last = ran[-1] if ran and ran[-1].weight.is_floating_point() and ran[-1].weight.device.type != "meta" else None
    if last is None or ran.count(last) != 1 or last.weight.shape[-1 if isinstance(last, Conv1D) else 0] != width:
        raise ValueError(f"layer {i} ({type(layer).__name__}) {_NOT_ADDED}")
    return last


@dataclass
class Equations:
    """Normal equations of ``z D = r``, weighted: sums over tokens, float64, on the CPU."""

    square: Any = 0.0  # Z'Z [k, k], a tensor as soon as there is a token
    cross: Any = 0.0  # Z'R [k, hidden]
    total: Any = 0.0  # sum of |r|^2

    def add(self, z: Tensor, r: Tensor, weight: Tensor) -> None:
        weighted = z * weight[:, None]
        self.square = self.square + weighted.T @ z
        self.cross = self.cross + weighted.T @ r
        self.total = self.total + (weight * r.square().sum(-1)).sum()

    def __add__(self, other: Equations) -> Equations:
        return Equations(self.square + other.square, self.cross + other.cross, self.total + other.total)

    def solve(self, ridge: float) -> Tensor:
        square = self.square.clone()
        square.diagonal().add_(ridge * square.diagonal().mean())
        return torch.cholesky_solve(self.cross, torch.linalg.cholesky(square))  # [k, hidden]

    def error(self, solution: Tensor) -> float:
        """Sum of |r - z D|^2, without another look at the tokens."""
        return float(self.total - 2 * (self.cross * solution).sum() + (solution * (self.square @ solution)).sum())


def fit(samples: Iterable[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, float]:
    """D ``[k, hidden]`` and its ridge, from ``(z, residual, weight)`` of every sample: ``[tokens, k]``, ``[tokens, hidden]``,
    ``[tokens]``.

    Raises:
        ValueError: NaN or infinity among them, or fewer than two samples.
    """
    fitted, held = Equations(), Equations()
    count = 0
    for count, (z, residual, weight) in enumerate(samples, start=1):
        part = held if count % HOLD_BACK == 2 else fitted
        part.add(z.cpu().double(), residual.cpu().double(), weight.cpu().double())
    if count < 2:
        raise ValueError("a fit needs at least two samples of text, one of them to choose the ridge")
    both = fitted + held
    if not torch.isfinite(both.total) or not torch.isfinite(both.square).all():
        raise ValueError("hidden states hold NaN or infinity")
    best = min(RIDGES, key=lambda ridge: held.error(fitted.solve(ridge)))
    return both.solve(best), best
