"""Fit one patch of `healing`: into the output projection of a layer's FFN, or on the state that leaves the layer.

Layers are run one by one, on states recorded in the dense model or handed on by the layer before, with the masks and
positions that the dense model gave them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from shortgpt.model.anatomy import decoder_layers
from shortgpt.model.branches import layer_input, sublayers
from shortgpt.model.hooks import by_token, layer_output, run_backbone
from shortgpt.repair import least_squares


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

        def keep(module: nn.Module, args: tuple, kwargs: dict, output: Tensor | tuple) -> None:
            i = len(self.inputs)
            for depth, state in ((i, layer_input(args, kwargs)), (i + 1, layer_output(output))):
                if depth in depths:
                    self.states[depth] = state
            self.inputs.append((args[1:], {name: value for name, value in kwargs.items() if name != "hidden_states"}))

        handles = [layer.register_forward_hook(keep, with_kwargs=True) for layer in decoder_layers(model)]
        try:
            with torch.no_grad():
                run_backbone(model, batch)
        finally:
            for handle in handles:
                handle.remove()

    def run(self, layer: nn.Module, i: int, states: Tensor) -> Tensor:
        """What `layer` makes of `states`, given the masks and positions that the dense model gave to its layer `i`."""
        args, kwargs = self.inputs[i]
        return layer_output(layer(states, *args, **kwargs))


def fit_projection(
    layer: nn.Module, i: int, samples: Sequence[Sample], states: list[Tensor], goals: list[Tensor]
) -> tuple[list[Tensor], Tensor]:
    """Add D to the FFN's output projection of `layer` (changed in place): the states that then leave it, and D."""
    projection, z = _output_projection(layer, i, samples[0], states[0]), []
    handle = projection.register_forward_pre_hook(lambda module, args: z.append(args[0]))

    def parts() -> Iterator[tuple[Sample, Tensor, Tensor, Tensor]]:
        for sample, x, goal in zip(samples, states, goals, strict=True):
            y = sample.run(layer, i, x)
            yield sample, z.pop().view(*y.shape[:-1], -1), y, goal

    try:
        solution = _solve(parts(), i)
        y = samples[0].run(layer, i, states[0])
        expected = y + (z.pop() @ solution.to(y)).view_as(y)
    finally:
        handle.remove()
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
        return least_squares.fit(samples())[0]
    except ValueError as error:
        raise ValueError(
            f"layer {i} can't be patched: {error}; load the model in float32 or bfloat16, or look for damaged weights"
        ) from error


_NOT_ADDED = (
    "has no FFN whose output projection is simply added to the residual stream, so nothing can be folded into it: use "
    "kind='linear'"
)


def _output_projection(layer: nn.Module, i: int, sample: Sample, states: Tensor) -> nn.Module:
    """The matrix that the FFN of `layer` ends with: of its linear maps to the hidden size, the one that runs last."""
    ran: list[nn.Module] = []
    handles = [
        module.register_forward_hook(lambda module, args, output: ran.append(module))
        for name in sublayers(layer)["ffn"]
        for module in layer.get_submodule(name).modules()
        if isinstance(module, nn.Linear | Conv1D) and type(module.weight) is nn.Parameter
    ]
    try:
        width = sample.run(layer, i, states).shape[-1]
    finally:
        for handle in handles:
            handle.remove()
    if not ran or not ran[-1].weight.is_floating_point() or ran[-1].weight.device.type == "meta":
        raise ValueError(f"layer {i} ({type(layer).__name__}) {_NOT_ADDED}")
    outputs = ran[-1].weight.shape[-1 if isinstance(ran[-1], Conv1D) else 0]
    if outputs != width or ran.count(ran[-1]) != 1:
        raise ValueError(f"layer {i} ({type(layer).__name__}) {_NOT_ADDED}")
    return ran[-1]
