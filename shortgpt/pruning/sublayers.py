"""Remove only the attention or only the FFN of a layer; score them like layers.

Most decoder layers add two branches to the residual stream, one after the other or side by side: a token mixer
(attention; a state-space or linear-attention block counts as one) and an FFN (an MLP or a mixture of experts). A removed
branch is replaced by a module that adds nothing. No configuration of transformers can say that, so such a model is saved
in our own format (see `saving`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shortgpt.choosing.by_score import check_indices
from shortgpt.model.anatomy import decoder_layers
from shortgpt.model.branches import KINDS, Inputs, Removed, first, layer_input, record, rerun, sublayers
from shortgpt.model.hooks import run_backbone
from shortgpt.pruning.depth import record_step, share_weights
from shortgpt.scoring.influence import METRICS, LayerScores, score_layers
from shortgpt.utils.arguments import check_batches, check_choice

_NOT_SEPARATE = (
    "layer {i} ({layer}) does not simply add an attention and an FFN branch to the residual stream, so they can't be removed "
    "or scored one by one: use remove_layers and score_layers"
)


def remove_sublayers(
    model: PreTrainedModel,
    *,
    attention: Sequence[int] = (),
    ffn: Sequence[int] = (),
    outputs: Mapping[str, int] | None = None,
) -> PreTrainedModel:
    """Return `model` without the attention of some layers and without the FFN of some: a view that shares the weights.

    Args:
        attention, ffn: 0-based indices of layers in `model` as it is now.
        outputs: how many values each replaced module returns, by its class (see `Removed`); measured with a forward pass
            over a few tokens if it is not given. `saving` gives it.

    The input is unchanged. A layer may lose both, and then passes its input on; `remove_layers` does that at no cost.

    Raises:
        ValueError: an unknown or repeated index, a layer without that sublayer, or an architecture whose layers don't
            add the two as separate branches to the residual stream (that is checked by running it).
    """
    stack = decoder_layers(model)
    wanted = {
        kind: check_indices(indices, len(stack), keep_one=False)
        for kind, indices in (("attention", attention), ("ffn", ffn))
    }
    names = [sublayers(layer) for layer in stack]
    for kind, indices in wanted.items():
        for i in indices:
            if not names[i][kind]:
                there = " and ".join(k for k in KINDS if names[i][k]) or "neither of the two"
                raise ValueError(f"layer {i} has no {kind} to remove: it has {there}")
    if outputs is None:
        affected = sorted({*wanted["attention"], *wanted["ffn"]})
        outputs, separate = _probe(model, affected)
        for i in affected:
            if i not in separate:
                raise ValueError(_NOT_SEPARATE.format(i=i, layer=type(stack[i]).__name__))
    view = share_weights(model)
    for kind, indices in wanted.items():
        for i in indices:
            for position, name in enumerate(names[i][kind]):
                layer = decoder_layers(view)[i]
                original = layer.get_submodule(name)
                counts = kind == "attention" and position == 0  # Falcon-H1 has two mixers, and one cache place for both
                layer.set_submodule(name, Removed(original, outputs[type(original).__name__], counts=counts))
    step = {kind: sorted(indices) for kind, indices in wanted.items()}
    if not any(step.values()):  # an ordinary model still
        return view
    record_step(view, model, step | {"outputs": dict(outputs)})
    return view


def score_sublayers(
    model: PreTrainedModel,
    batches: Iterable[Mapping[str, Tensor]],
    *,
    metric: str = "block_influence",
    progress: bool = True,
) -> dict[str, LayerScores]:
    """Score the attention and the FFN of every layer as `score_layers` scores layers: ``{"attention": …, "ffn": …}``.

    The attention is scored from the layer's input to the residual stream after attention, the FFN from there to the
    layer's output. That middle state is computed by the layer itself, run again with the attention's output replayed and
    the FFN adding nothing; so it is right for norms after the branch, scaled residuals and parallel branches too. Where a
    layer lacks one of the two, or does more than add them (RWKV's first), the score is NaN.

    Raises:
        ValueError: as `score_layers`; or an architecture whose layers don't add two separate branches.
    """
    stack = decoder_layers(model)
    check_choice("metric", metric, METRICS)
    check_batches(batches)
    _, separate = _probe(model, range(len(stack)))
    if not separate:
        raise ValueError(_NOT_SEPARATE.format(i=0, layer=type(stack[0]).__name__))
    both = score_layers(model, batches, metric=metric, progress=progress, watch=_watch_sublayers)
    scores = {}
    for column, kind in enumerate(KINDS):
        sums = both.sums[:, column :: len(KINDS)].copy()
        sums[:, [i for i, layer in enumerate(stack) if i not in separate or not sublayers(layer)[kind]]] = np.nan
        scores[kind] = replace(both, sums=sums)
    return scores


@contextmanager
def _watch_sublayers(model: PreTrainedModel, report: Callable[[int, Tensor, Tensor], None]) -> Iterator[int]:
    """Like `watch_layers`, with two numbers a layer: ``2 i`` for its attention, ``2 i + 1`` for its FFN."""

    def split(index: int, layer: nn.Module, inputs: Inputs, outputs: dict[str, object], out: object) -> None:
        x_in, x_out = layer_input(inputs), first(out)
        x_between = first(rerun(layer, inputs, outputs, without=sublayers(layer)["ffn"]))
        report(2 * index, x_in, x_between)
        report(2 * index + 1, x_between, x_out)

    with record(model, range(len(decoder_layers(model))), split):
        yield 2 * len(decoder_layers(model))


def _probe(model: PreTrainedModel, indices: Iterable[int]) -> tuple[dict[str, int], set[int]]:
    """Run `model` over three tokens: how many values each sublayer's class returns, and which of the layers `indices`
    hand on their input unchanged when their sublayers add nothing."""
    counts: dict[str, int] = {}
    separate: set[int] = set()

    def check(index: int, layer: nn.Module, inputs: Inputs, outputs: dict[str, object], out: object) -> None:
        for name, output in outputs.items():
            counts[type(layer.get_submodule(name)).__name__] = 0 if isinstance(output, Tensor) else len(output)
        ffn = sublayers(layer)["ffn"]
        order = [name in ffn for name in outputs]  # as they ran
        if order != sorted(order):
            return  # attention again after an FFN (LongCat): not one pair
        x_in = layer_input(inputs)
        try:
            rest = first(rerun(layer, inputs, outputs, without=[*outputs]))
        except Exception:  # the layer does more with a sublayer than call it
            return
        if rest.shape == x_in.shape and torch.equal(rest.float(), x_in.float()):
            separate.add(index)

    ids = torch.tensor([[1, 2, 3]])
    with torch.inference_mode(), record(model, indices, check):
        run_backbone(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    return counts, separate
