"""Attention and FFN branches removed freely, each replaced by its own small map: SubFit, and a form of it that stays plain.

SubFit (Cunegatti et al., arXiv 2606.02559) chooses branches for themselves, n attentions and n FFNs anywhere, and puts a map
of what entered the branch in its place, fitted to what left it: of low rank for an attention, and for the FFNs of a higher
rank on a basis that they share. The parameters that are added are about a tenth of those removed. Their code is not out;
what the descriptions leave open is ours: the score (how far a branch turns the state, times how long it is beside it), the
ranks (a tenth of what goes), the errors (relative, as in `heal`) and the ridge (chosen on held-back samples).

`paired` needs no new module: of the branches that are left the first attention and the first FFN make the first layer, and
so on. It is an ordinary checkpoint of fewer layers; some branches have changed their order, and `heal_paired` fits what that
does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shortgpt.model.anatomy import decoder_layers
from shortgpt.model.branches import KINDS, Removed, sublayers
from shortgpt.model.hooks import by_token, hooked, layer_input, layer_output, run_backbone, unpadded
from shortgpt.model.view import share_weights
from shortgpt.pruning.depth import remove_layers
from shortgpt.pruning.sublayers import remove_sublayers
from shortgpt.repair.equations import Equations, Regression
from shortgpt.repair.fitting import Sample
from shortgpt.repair.healing import patch_targets, repair
from shortgpt.scoring.sublayers import score_sublayers

SHARE = 0.1  # parameters that are added, of those removed
Batches = Iterable[Mapping[str, Tensor]]
Branch = tuple[str, int]  # kind, layer


class Bypass(Removed):
    """Stands where a branch was, and adds ``x first second + constant``."""

    def __init__(self, removed: Removed, first: Tensor, second: Tensor, constant: Tensor) -> None:
        nn.Module.__init__(self)
        vars(self).update({name: value for name, value in vars(removed).items() if not name.startswith("_")})
        for name, tensor in {"first": first, "second": second, "constant": constant}.items():
            self.register_buffer(name, tensor)  # FFNs share the first

    def forward(self, *args: Any, **kwargs: Any) -> Tensor | tuple:
        nothing = super().forward(*args, **kwargs)
        named = dict(zip(self.parameters_of_forward, args, strict=False)) | kwargs
        x: Any = next(value for value in named.values() if isinstance(value, Tensor))
        added = x @ self.first @ self.second + self.constant
        return added if isinstance(nothing, Tensor) else (added, *nothing[1:])


def subfit(model: PreTrainedModel, n: int, batches: Batches, *, share: float = SHARE) -> PreTrainedModel:
    """`model` without n attentions and n FFNs, a `Bypass` in place of each: no ordinary checkpoint, and not to be saved."""
    batches = list(batches)
    chosen = lowest_branches(model, n, batches)
    fits = _fitted(model, chosen, batches)
    pruned = remove_sublayers(model, attention=chosen["attention"], ffn=chosen["ffn"])
    for kind, indices in chosen.items():
        removed = {i: _parameters(model, kind, i) for i in indices}
        hidden = next(iter(fits.values()))[1].shape[1]
        here = {i: fits[kind, i] for i in indices}
        if kind == "attention":
            maps = {i: _low_rank(*fit, max(1, round(share * removed[i] / 2 / hidden))) for i, fit in here.items()}
        else:
            maps = _shared_basis(here, max(1, round(share * sum(removed.values()) / (len(here) + 1) / hidden)))
        for i, (first, second, constant) in maps.items():
            name, layer = sublayers(decoder_layers(model)[i])[kind][0], decoder_layers(pruned)[i]
            like = next(p for p in decoder_layers(model)[i].parameters() if p.is_floating_point())
            parts = (some.to(like) for some in (first, second, constant))
            removed_part = layer.get_submodule(name)
            assert isinstance(removed_part, Removed)
            layer.set_submodule(name, Bypass(removed_part, *parts))
    return pruned


def lowest_branches(
    model: PreTrainedModel, n: int, batches: Batches, *, but: int | None = None
) -> dict[str, list[int]]:
    """The n attentions and the n FFNs that turn and stretch the state least (product of both scores); not layer `but`'s."""
    batches = list(batches)
    turned, long = (score_sublayers(model, batches, metric=m, progress=False) for m in _METRICS)
    values = {kind: turned[kind].values * long[kind].values for kind in KINDS}
    for scores in values.values():
        scores[[] if but is None else [but]] = np.inf
    return {kind: sorted(np.argsort(values[kind], kind="stable")[:n].tolist()) for kind in KINDS}


_METRICS = ("block_influence", "relative_magnitude")


@torch.no_grad()
def _fitted(
    model: PreTrainedModel, chosen: Mapping[str, Sequence[int]], batches: Batches
) -> dict[Branch, tuple[Equations, Tensor]]:
    """For each branch the sums over all tokens (of ``[x, 1]`` and of what the branch added), and the map of full rank."""
    places: list[Branch] = [(kind, i) for kind, indices in chosen.items() for i in indices]
    branches = [
        decoder_layers(model)[i].get_submodule(name)
        for kind, i in places
        for name in sublayers(decoder_layers(model)[i])[kind]
    ]
    if len(branches) != len(places):
        raise ValueError("a layer of this model has several attentions or FFNs: there is no one map in place of one")
    regressions, ids = [Regression() for _ in places], torch.empty(0)

    def keep(place: int, module: nn.Module, args: tuple, kwargs: dict, output: Tensor | tuple) -> None:
        x, added = (by_token(some, ids) for some in (layer_input(args, kwargs), layer_output(output)))
        for row, target in zip(x.cpu().double(), added.cpu().double(), strict=True):
            z = torch.cat([row, torch.ones_like(row[:, :1])], -1)
            weight = 1 / target.square().sum(-1).clamp(min=target.square().sum(-1).mean() * 1e-3 + 1e-30)
            regressions[place].add(z, target, weight)

    with hooked(branches, keep):
        for batch in unpadded(model, batches):
            ids = batch["input_ids"]
            run_backbone(model, batch)
    finished = [regression.finish() for regression in regressions]
    return {place: (sums, sums.solve(ridge)) for place, (sums, ridge) in zip(places, finished, strict=True)}


def _parameters(model: PreTrainedModel, kind: str, i: int) -> int:
    layer = decoder_layers(model)[i]
    return sum(p.numel() for name in sublayers(layer)[kind] for p in layer.get_submodule(name).parameters())


def _low_rank(sums: Equations, full: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best map of this rank behind the ridge fit: `full` cut to the directions in which its predictions are longest."""
    matrix, constant = full[:-1], full[-1]
    predicted = matrix.T @ sums.square[:-1, :-1] @ matrix  # [hidden, hidden]
    directions = torch.linalg.eigh(predicted)[1][:, -rank:]
    return matrix @ directions, directions.T.contiguous(), constant


def _shared_basis(fits: Mapping[int, tuple[Equations, Tensor]], rank: int) -> dict[int, tuple[Tensor, Tensor, Tensor]]:
    """One ``first`` for all: the directions of x in which the maps of all branches together predict most."""
    mean = sum(sums.square[:-1, :-1] for sums, _ in fits.values())
    assert isinstance(mean, Tensor)
    mean.diagonal().add_(1e-6 * mean.diagonal().mean())
    root = torch.linalg.cholesky(mean)
    left = torch.linalg.svd(root.T @ torch.cat([full[:-1] for _, full in fits.values()], 1), full_matrices=False)[0]
    basis = torch.linalg.solve_triangular(root.T, left[:, :rank], upper=True)  # [hidden, rank]
    found = {}
    for i, (sums, full) in fits.items():
        square = sums.square[:-1, :-1]
        second = torch.linalg.lstsq(basis.T @ square @ basis, basis.T @ square @ full[:-1]).solution
        found[i] = (basis, second, full[-1])
    return found


@torch.no_grad()
def paired(model: PreTrainedModel, attention: Sequence[int], ffn: Sequence[int]) -> PreTrainedModel:
    """Without these attentions and as many FFNs: the j-th attention that is left, with the j-th FFN that is left.

    An ordinary checkpoint. Its record of removed layers names those whose attention went.

    Raises:
        ValueError: not as many of the one as of the other.
    """
    if len(attention) != len(ffn):
        raise ValueError(f"as many attentions as FFNs must go, got {len(attention)} and {len(ffn)}")
    pruned, donor = remove_layers(model, attention), decoder_layers(share_weights(model))
    left = [i for i in range(len(donor)) if i not in set(ffn)]
    for layer, i in zip(decoder_layers(pruned), left, strict=True):
        for name in ffn_parts(model, i):
            layer.set_submodule(name, donor[i].get_submodule(name))
    return pruned


def ffn_parts(model: PreTrainedModel, i: int) -> list[str]:
    """The parts of layer i that belong to its FFN: the norm whose output enters it, the FFN, and what runs behind it."""
    layer, ran = decoder_layers(model)[i], []
    names, parts = zip(*layer.named_children(), strict=True)

    def keep(place: int, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        ran.append((names[place], layer_input(args, kwargs), layer_output(output)))

    ids = torch.tensor([[1, 2, 3]])
    with hooked(parts, keep), torch.no_grad():
        run_backbone(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    at = next(place for place, (name, *_) in enumerate(ran) if name in sublayers(layer)["ffn"])
    norm_before = at > 0 and ran[at - 1][2] is ran[at][1]
    return [name for name, *_ in ran[at - norm_before :]]


def heal_paired(
    model: PreTrainedModel, n: int, batches: Batches, *, kind: str = "fold", sites: str = "all"
) -> PreTrainedModel:
    """`paired` without the branches that score lowest, and then repaired as `heal` repairs, at all sites behind the first."""
    batches = list(batches)
    pruned = paired(model, **lowest_branches(model, n, batches, but=0))
    targets = patch_targets(model, pruned, sites)
    samples = [Sample(model, batch, {*targets, *targets.values()}) for batch in unpadded(model, batches)]
    return repair(model, pruned, samples, kind=kind, sites=sites, progress=False)
