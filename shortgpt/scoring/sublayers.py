"""Score the attention and the FFN of every layer, as layers are scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn
from transformers import PreTrainedModel

from shortgpt.model.anatomy import decoder_layers
from shortgpt.model.arguments import check_batches
from shortgpt.model.branches import (
    KINDS,
    NOT_SEPARATE,
    Inputs,
    layer_input,
    probe_sublayers,
    record,
    rerun,
    sublayers,
)
from shortgpt.model.hooks import layer_output
from shortgpt.scoring.influence import METRICS, LayerScores, score_layers
from shortgpt.utils.arguments import check_choice


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
    _, separate = probe_sublayers(model, range(len(stack)))
    if not separate:
        raise ValueError(NOT_SEPARATE.format(i=0, layer=type(stack[0]).__name__))
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

    def split(index: int, layer: nn.Module, inputs: Inputs, outputs: dict[str, Any], out: Any) -> None:
        x_in, x_out = layer_input(*inputs), layer_output(out)
        x_between = layer_output(rerun(layer, inputs, outputs, without=sublayers(layer)["ffn"]))
        report(2 * index, x_in, x_between)
        report(2 * index + 1, x_between, x_out)

    with record(model, range(len(decoder_layers(model))), split):
        yield 2 * len(decoder_layers(model))
