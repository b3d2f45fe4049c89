"""Repair without training: a linear patch for what the removed layers did, in closed form.

Removed layers s … e-1 turned the state x_s into x_e. What they did can't be had for nothing, but part of it is linear:
least squares finds the matrix that brings the pruned model's state nearest to the dense model's x_e,

    min_D  sum_t  |x_e,t - y_t - z_t D|^2 / |x_e,t|^2  +  ridge |D|^2

over calibration tokens t; y is the state that leaves the last layer before the gap. Errors are relative: a few tokens
(the first of a text above all) have states hundreds of times longer than the rest and would decide everything.
Two choices of z give two patches (compare LinearPatch, arXiv 2505.24680, and ReplaceMe, arXiv 2505.02819):

``fold``: z is what enters the output projection of that layer's FFN, so D is simply added to the projection's weight. The
result is an ordinary checkpoint of the same architecture without one parameter more.
``linear``: z is the state itself and a constant, so D is a small linear module on the residual stream; nothing in a
transformers configuration describes it, and it needs our loader.

Of the text only the normal equations are kept, sums over tokens in float64. Every fourth sample is held back from the fit
and chooses the ridge; then all are fitted together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from shortgpt import least_squares
from shortgpt.arguments import check_batch, check_batches, check_choice
from shortgpt.branches import first, layer_input, sublayers
from shortgpt.capture import by_token, eval_mode, run_backbone
from shortgpt.choose import PruningPlan
from shortgpt.influence import NO_TOKENS
from shortgpt.layers import decoder_layers, removed_so_far
from shortgpt.patches import add_patches
from shortgpt.pruning import remove_layers

KINDS = ("fold", "linear")
SITES = ("gaps", "all")
REPAIR_FIELD = "shortgpt_repair"  # in the configuration of a repaired model: how it was repaired


def heal(
    model: PreTrainedModel,
    layers: Sequence[int] | PruningPlan,
    batches: Iterable[Mapping[str, Tensor]],
    *,
    kind: str = "fold",
    sites: str = "gaps",
    progress: bool = True,
) -> PreTrainedModel:
    """Remove `layers` from `model` and repair the rest, without training: a new model; `model` stays as it was.

    Args:
        model: the *dense* model (or whatever the layers are removed from): its states are what the repair aims at.
        layers: as for `remove_layers`; several gaps are repaired in order, each on top of the ones before.
        batches: calibration text as for `score_layers`, not that on which the result is measured. A few thousand tokens
            at least: more text, better repair.
        kind: ``"fold"`` or ``"linear"``, see above.
        sites: ``"gaps"``: one patch per gap, in the layer before it. ``"all"`` (with ``"fold"``): every kept layer from
            there on is fitted too, each to the dense state at its place, so that what one patch can't do is shared out.

    Weights that are not patched are shared with `model`. Cost: one pass of the dense backbone and two of the layers from the
    first gap on; memory: a dense state per token and site, and ``4 k^2`` float64 for k inputs of the projection.

    Raises:
        ValueError: layer 0 is removed (nothing comes before that gap), fewer than two samples, an FFN without a single
            output projection that is added to the residual stream (mixtures of experts: use ``kind="linear"``), states
            with NaN or infinity, or what `remove_layers` refuses.
    """
    check_repair(kind, sites)
    pruned = remove_layers(model, layers)  # refuses what can't be removed, before anything is computed
    targets = _targets(model, pruned, sites)
    check_batches(batches)
    samples = [Sample(model, batch, {min(targets), *targets.values()} if targets else set()) for batch in batches]
    return repair(model, pruned, samples, kind=kind, sites=sites, progress=progress)


@torch.no_grad()
def repair(
    model: PreTrainedModel,
    pruned: PreTrainedModel,
    samples: Sequence[Sample],
    *,
    kind: str = "fold",
    sites: str = "gaps",
    progress: bool = True,
) -> PreTrainedModel:
    """Repair `pruned`, which `remove_layers` made of `model` and nobody else holds, on recorded `samples`: see `heal`."""
    check_repair(kind, sites)
    targets = _targets(model, pruned, sites)
    samples = [sample for sample in samples if sample.real.any()]
    if not samples:
        raise ValueError(NO_TOKENS)
    if sum(sample.rows for sample in samples) < 2:
        raise ValueError(
            "repair needs at least two samples of text, one of them to choose the ridge: give more batches"
        )
    if not targets:
        return pruned
    kept = _kept(model, pruned)
    start = min(targets)
    states = [sample.states[start] for sample in samples]
    patches = {}
    bar = tqdm(total=len(targets), desc="fitting", unit="layer", disable=not progress)
    with eval_mode(model), eval_mode(pruned), bar:
        for position, layer in enumerate(decoder_layers(pruned)):
            i = kept[position]
            if i < start or i > max(targets):
                continue
            if i in targets:
                fit = _fit_projection if kind == "fold" else _fit_residual
                goals = [sample.states[targets[i]] for sample in samples]
                states, patch = fit(layer, i, samples, states, goals)
                patches[position] = patch
                bar.update()
            else:
                states = [sample.run(layer, i, x) for sample, x in zip(samples, states, strict=True)]
    if kind == "linear":
        pruned = add_patches(pruned, patches)
    how = {"kind": kind, "sites": sites, "layers": sorted(targets), "samples": sum(sample.rows for sample in samples)}
    setattr(pruned.config, REPAIR_FIELD, how)
    return pruned


class Sample:
    """One calibration batch as the dense model sees it.

    Attributes:
        real: which tokens are no padding, bool ``[batch, tokens]``.
        states: the dense model's hidden states at the wanted depths; depth i enters layer i, the last leaves the last.
        inputs: what each layer gets besides the states: masks and positions.
    """

    def __init__(self, model: PreTrainedModel, batch: Mapping[str, Tensor], depths: Collection[int]) -> None:
        check_batch(model, batch)
        self.real = batch["attention_mask"].bool().cpu()
        self.states: dict[int, Tensor] = {}
        self.inputs: list[tuple[tuple, dict]] = []

        def keep(module: nn.Module, args: tuple, kwargs: dict, output: Tensor | tuple) -> None:
            i = len(self.inputs)
            for depth, state in ((i, layer_input((args, kwargs))), (i + 1, first(output))):
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

    @property
    def rows(self) -> int:
        """Samples in the batch that hold any token."""
        return int(self.real.any(1).sum())

    def run(self, layer: nn.Module, i: int, states: Tensor) -> Tensor:
        """What `layer` makes of `states`, given the masks and positions that the dense model gave to its layer `i`."""
        args, kwargs = self.inputs[i]
        return first(layer(states, *args, **kwargs))


def _fit_projection(
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
    real = samples[0].real
    off, scale = by_token(new[0] - expected, real)[real].float().norm(), by_token(expected, real)[real].float().norm()
    if not off <= 0.01 * scale:  # rounding is far below: bfloat16 has 0.004
        raise ValueError(f"layer {i} ({type(layer).__name__}) {_NOT_ADDED}")
    return new, solution


def _fit_residual(
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
            for real, *row in zip(sample.real, *(by_token(some, sample.real) for some in states), strict=True):
                if real.any():
                    z, y, goal = (some[real.to(some.device)].double() for some in row)  # [tokens, features]
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


def _kept(model: PreTrainedModel, pruned: PreTrainedModel) -> list[int]:
    """Where each layer of `pruned` stands in `model`."""
    already, gone = removed_so_far(model), removed_so_far(pruned)
    original = [i for i in range(len(decoder_layers(model)) + len(already)) if i not in already]
    return [position for position, layer in enumerate(original) if layer not in gone]


def _targets(model: PreTrainedModel, pruned: PreTrainedModel, sites: str) -> dict[int, int]:
    """Layers of `model` to patch, each with the depth whose dense state it should give."""
    depth, kept = len(decoder_layers(model)), _kept(model, pruned)
    following = dict(zip(kept, [*kept[1:], depth], strict=True))
    if kept[0] != 0:
        raise ValueError("layer 0 is removed, and there is no layer before this gap to patch: keep layer 0")
    gaps = [i for i in kept if following[i] != i + 1]
    return {i: following[i] for i in kept if gaps and i >= gaps[0] and (sites == "all" or i in gaps)}


def check_repair(kind: str, sites: str) -> None:
    check_choice("kind", kind, KINDS)
    check_choice("sites", sites, SITES)
    if kind == "linear" and sites == "all":
        raise ValueError("sites='all' fits weights that the layers have, so it needs kind='fold'")
