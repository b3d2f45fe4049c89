"""Remove more and more layers, measure each model, and find the cliff: where one layer more ruins it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from shortgpt.model.anatomy import decoder_layers
from shortgpt.pruning.depth import remove_layers
from shortgpt.pruning.plan import check_indices
from shortgpt.utils.arguments import check_counts, check_number, shown

FACTOR, TIMES = 2.0, 3.0  # of `cliff`


def removal_sweep(
    model: PreTrainedModel,
    order: Sequence[int],
    measure: Callable[[PreTrainedModel], float],
    counts: Iterable[int] | None = None,
    *,
    progress: bool = True,
) -> pd.DataFrame:
    """Remove the first 0, 1, 2, … layers of `order` and `measure` each model: ``removed, layers, value``.

    >>> sweep = removal_sweep(model, removal_order(scores), lambda m: perplexity(m, tokenizer, texts))
    >>> cliff(sweep)  # stop there

    `counts` are the numbers to try; None: all up to half of the layers. Each model is a view that shares the weights
    (see `remove_layers`).

    Raises:
        ValueError: a count below 0, above the length of `order`, or that leaves no layer (before anything is measured).
    """
    order, counts = check_removals(model, order, counts)
    if not callable(measure):
        raise TypeError(f"measure must be a function of a model that returns a number, got {shown(measure)}")
    rows = []
    for n in tqdm(counts, desc="removing layers", unit="model", disable=not progress):
        pruned = remove_layers(model, order[:n])
        rows.append(
            {"removed": n, "layers": pruned.config.get_text_config().num_hidden_layers, "value": measure(pruned)}
        )
    return pd.DataFrame(rows)


def check_removals(
    model: PreTrainedModel, order: Sequence[int], counts: Iterable[int] | None
) -> tuple[list[int], list[int]]:
    """``(order, counts)``, if so many of the layers in `order` can go and one stays; no counts: 0 to half of the layers."""
    depth = len(decoder_layers(model))
    order = check_indices(order, depth, keep_one=False)
    most = min(len(order), depth - 1)
    counts = list(range(min(most, depth // 2) + 1)) if counts is None else check_counts("counts", counts)
    for n in counts:
        if not 0 <= n <= most:
            raise ValueError(f"counts must be 0 to {most} ({len(order)} of {depth} layers are in the order), got {n}")
    return order, counts


def cliff(sweep: pd.DataFrame, *, factor: float = FACTOR, times: float = TIMES) -> int | None:
    """How many layers can go before the cliff: the last number before one step too many. None: there is no cliff.

    A step is the cliff if it multiplies perplexity by at least `factor` a layer, and adds at least `times` the loss (the
    logarithm of perplexity) of the median step before it, if there is one. The first alone would call the steady rise of a
    small model a cliff; the second alone any step behind tiny ones. Where several layers went at once their mean is taken,
    and the cliff is somewhere among them.

    Args:
        sweep: a row a model: ``removed``, and ``value``, its perplexity (see `removal_sweep`).
        factor, times: what makes a step the cliff.

    Raises:
        TypeError: no table. ValueError: a missing column, fewer than two rows, a number measured twice, a perplexity that
        is no number from 1.
    """
    _check_sweep(sweep)
    if check_number("factor", factor) <= 1 or check_number("times", times) < 1:
        raise ValueError(f"factor must be above 1, and times at least 1, got {factor} and {times}")
    sweep = sweep.sort_values("removed")
    removed, loss = sweep["removed"].to_numpy(), np.log(sweep["value"].to_numpy(dtype=float))
    steps = np.diff(loss) / np.diff(removed)  # nats a layer
    for i, step in enumerate(steps):
        before = max(0.0, float(np.median(steps[:i]))) if i else 0.0
        if step >= max(np.log(factor), times * before):
            return int(removed[i])
    return None


def _check_sweep(sweep: object) -> None:
    if not isinstance(sweep, pd.DataFrame):
        raise TypeError(f"sweep must be the table of removal_sweep(), got {shown(sweep)}")
    for column in ("removed", "value"):
        if column not in sweep:
            raise ValueError(f"the table has no column {column!r}: pass what removal_sweep() returned")
    if len(sweep) < 2 or sweep["removed"].duplicated().any():
        raise ValueError("a cliff shows in at least two rows, each with another number of removed layers")
    if not (sweep["value"] >= 1).all():
        raise ValueError("a perplexity is 1 or more: measure with perplexity(), which refuses logits with NaN")
