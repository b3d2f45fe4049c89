"""Repair without training: a linear patch for what the removed layers did, in closed form.

Removed layers s … e-1 turned the state x_s into x_e. What they did can't be had for nothing, but part of it is linear:
least squares finds the matrix that brings the pruned model's state nearest to the dense model's x_e,

    min_D  sum_t  |x_e,t - y_t - z_t D|^2 / |x_e,t|^2  +  ridge |D|^2

over calibration tokens t; y is the state that leaves the last layer before the gap. Errors are relative: a few tokens
(the first of a text above all) have states hundreds of times longer than the rest and would decide everything.
Choices of z give patches (others' are in `course.studies.published_repairs`):

``fold``: z is what enters the output projection of that layer's FFN, so D is simply added to the projection's weight. The
result is an ordinary checkpoint of the same architecture without one parameter more. Where a norm follows the projection
(Gemma 2 and 3, OLMo 2), matrix and norm are fitted in turns (`folding`).
``fold_both``: z is that and what enters attention's output projection, and both are changed.
``linear``: z is the state itself and a constant, so D is a small linear module on the residual stream; nothing in a
transformers configuration describes it, and it needs our loader.

Of the text only the normal equations are kept, sums over tokens in float64. Every fourth sample is held back from the fit
and chooses the ridge; then all are fitted together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from shortgpt.model.adapters import require_no_adapter
from shortgpt.model.anatomy import decoder_layers, original_layers
from shortgpt.model.arguments import NO_TOKENS, check_batches
from shortgpt.model.hooks import eval_mode, unpadded
from shortgpt.pruning.depth import kept_layers, remove_layers
from shortgpt.pruning.plan import PruningPlan
from shortgpt.pruning.repair_record import record_repair
from shortgpt.repair.fitting import Sample, States, fit_residual
from shortgpt.repair.folding import fit_fold, fit_fold_both
from shortgpt.repair.patches import add_patches
from shortgpt.utils.arguments import check_choice

Fit = Callable[[nn.Module, int, Sequence[Sample], States, States], tuple[States, Tensor]]
FITS: dict[str, Fit] = {"fold": fit_fold, "fold_both": fit_fold_both, "linear": fit_residual}
SITES = ("gaps", "all")


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
        kind: ``"fold"``, ``"fold_both"`` or ``"linear"``, see above.
        sites: ``"gaps"``: one patch per gap, in the layer before it. ``"all"`` (with ``"fold"``): every kept layer from
            there on is fitted too, each to the dense state at its place, so that what one patch can't do is shared out.

    Weights that are not patched are shared with `model`. Cost: one pass of the dense backbone, then the layers from the first
    patch to the last, two passes for a patched one (in front of a norm up to twenty). Memory: a dense state per token and
    site, and `fit_bytes` of the projection's inputs (0.13 GB for 1,536, 2.6 GB for 8,960); what does not fit is refused
    before it is begun. A model spread over devices and the disk works; weights that a fold changes are in memory afterwards.

    Raises:
        ValueError: layer 0 is removed (nothing comes before that gap), fewer than two samples, an FFN without a single
            output projection that is added to the residual stream (mixtures of experts: use ``kind="linear"``), states with
            NaN or infinity, too little memory, or what `remove_layers` refuses.
    """
    check_repair(kind, sites)
    require_no_adapter(model, "be repaired")
    pruned = remove_layers(model, layers)  # refuses what can't be removed, before anything is computed
    targets = patch_targets(model, pruned, sites)
    check_batches(batches)
    depths = {min(targets), *targets.values()} if targets else set()
    samples = [Sample(model, batch, depths) for batch in unpadded(model, batches)]
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
    targets = patch_targets(model, pruned, sites)
    if not samples:
        raise ValueError(NO_TOKENS)
    rows = sum(len(sample.ids) for sample in samples)
    if rows < 2:
        raise ValueError(
            "repair needs at least two samples of text, one of them to choose the ridge: give more batches"
        )
    if not targets:
        return pruned
    patches = fit_in_order(model, pruned, samples, targets, FITS[kind], progress)
    if kind == "linear":
        pruned = add_patches(pruned, patches)
    original = original_layers(model)
    record_repair(pruned.config, kind, sites, [original[i] for i in targets], rows)
    return pruned


@torch.no_grad()
def fit_in_order(
    model: PreTrainedModel,
    pruned: PreTrainedModel,
    samples: Sequence[Sample],
    targets: Mapping[int, int],
    fit: Fit,
    progress: bool,
) -> dict[int, Tensor]:
    """The patches by their layers' positions in `pruned`, fitted one on top of the other; a fold puts them in."""
    first, last = min(targets), max(targets)
    states, patches = [sample.states[first] for sample in samples], {}
    bar = tqdm(total=len(targets), desc="fitting", unit="layer", disable=not progress)
    with eval_mode(model), eval_mode(pruned), bar:
        for position, i in enumerate(kept_layers(model, pruned)):
            layer = decoder_layers(pruned)[position]
            if i in targets:
                goals = [sample.states[targets[i]] for sample in samples]
                states, patches[position] = fit(layer, i, samples, states, goals)
                bar.update()
            elif first < i < last:
                states = [sample.run(layer, i, x) for sample, x in zip(samples, states, strict=True)]
    return patches


def patch_targets(model: PreTrainedModel, pruned: PreTrainedModel, sites: str) -> dict[int, int]:
    """Layers of `model` to patch, each with the depth whose dense state it should give."""
    following = following_layers(model, pruned)
    gaps = [i for i, end in following.items() if end != i + 1]
    return {i: following[i] for i in following if gaps and i >= gaps[0] and (sites == "all" or i in gaps)}


def following_layers(model: PreTrainedModel, pruned: PreTrainedModel) -> dict[int, int]:
    """For each layer of `model` that `pruned` has, which one comes next there; a gap is between them, or there is none.

    Raises:
        ValueError: the first layer is gone, so there is nothing in front of that gap.
    """
    kept = kept_layers(model, pruned)
    if kept[0] != 0:
        raise ValueError(
            "layer 0 is removed, and there is no layer before this gap to patch or to merge into: keep layer 0"
        )
    return dict(zip(kept, [*kept[1:], len(decoder_layers(model))], strict=True))


def check_repair(kind: str, sites: str) -> None:
    check_choice("kind", kind, FITS)
    check_choice("sites", sites, SITES)
    if kind == "linear" and sites == "all":
        raise ValueError("sites='all' fits weights that the layers have, so it needs kind='fold'")
