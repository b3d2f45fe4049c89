"""Fit one patch of `healing` on the states of a layer: what is recorded of the dense model, and the fit of a module.

Layers are run one by one, on states recorded in the dense model or handed on by the layer before, with the masks and
positions that the dense model gave them. How a patch becomes part of a layer's own weights is in `folding`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shortgpt.model.anatomy import decoder_layers
from shortgpt.model.hooks import by_token, hooked, layer_input, layer_output, run_backbone
from shortgpt.repair.equations import Part, fit

States = list[Tensor]  # of every sample, ``[batch, tokens, hidden]``


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


def fit_residual(
    layer: nn.Module, i: int, samples: Sequence[Sample], states: States, goals: States
) -> tuple[States, Tensor]:
    """D ``[hidden + 1, hidden]`` for the state that leaves `layer` and a constant: the patched states, and D."""
    after = [sample.run(layer, i, x) for sample, x in zip(samples, states, strict=True)]

    def with_one(y: Tensor) -> Tensor:
        return torch.cat([y, torch.ones_like(y[..., :1])], -1)

    solution = solve(((s, with_one(y), y, g) for s, y, g in zip(samples, after, goals, strict=True)), i)
    return [y + with_one(y) @ solution.to(y) for y in after], solution


def solve(parts: Iterable[tuple[Sample, Tensor, Tensor, Tensor]], i: int) -> Tensor:
    """D ``[k, hidden]`` from ``(sample, z, y, x_e)`` of every batch, each ``[batch, tokens, features]``."""
    try:
        return fit(rows(parts))[0]
    except ValueError as error:
        raise ValueError(
            f"layer {i} can't be patched: {error}; load the model in float32 or bfloat16, or look for damaged weights"
            if "NaN" in str(error)
            else f"layer {i} can't be patched: {error}"
        ) from error


def rows(parts: Iterable[tuple[Sample, Tensor, Tensor, Tensor]]) -> Iterator[Part]:
    """``z, x_e - y, 1 / |x_e|^2`` of every sample of the batches, ``[tokens, features]``, float64 on the CPU."""
    for sample, *states in parts:
        for row in zip(*(by_token(some, sample.ids) for some in states), strict=True):
            z, y, goal = (some.cpu().double() for some in row)
            yield z, goal - y, 1 / goal.square().sum(-1).clamp(min=torch.finfo(torch.float32).tiny)
