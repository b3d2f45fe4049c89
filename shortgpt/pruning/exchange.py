"""A pruning plan in the words of mergekit: a passthrough merge of the slices that stay."""

from __future__ import annotations

import sys
from itertools import groupby

import yaml

from shortgpt.choosing.by_score import PruningPlan


def mergekit_config(plan: PruningPlan, *, model: str | None = None, dtype: str | None = None) -> str:
    """The configuration for ``mergekit-yaml`` that stacks the kept layers: a slice for each run of consecutive ones.

    Args:
        model: Hub id (``@revision`` allowed) or folder of the *dense* model; default: the plan's.
        dtype: what mergekit converts the weights to, for instance ``"bfloat16"``; default: left as they are.

    mergekit sets the number of layers and nothing else: for models with one configuration entry a layer (`layer_types`
    of Gemma 3, Qwen 3.5 …) use `prune_checkpoint`, which slices those entries too.

    Raises:
        ValueError: neither the plan nor `model` names a model.
    """
    model = model or plan.model
    if not model:
        raise ValueError("the plan names no model: pass model='owner/name', or the folder of the dense model")
    lines = ["merge_method: passthrough", *([f"dtype: {_quoted(dtype)}"] if dtype else []), "slices:"]
    for start, end in _runs(plan.kept):
        lines += ["- sources:", f"  - model: {_quoted(model)}", f"    layer_range: [{start}, {end}]"]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A string of YAML in one line, whatever is in it."""
    return yaml.safe_dump(text, default_style='"', width=sys.maxsize, allow_unicode=True).removesuffix("\n")


def _runs(kept: tuple[int, ...]) -> list[tuple[int, int]]:
    """Consecutive numbers as ``(first, last + 1)``."""
    runs = []
    for _, group in groupby(enumerate(kept), key=lambda item: item[1] - item[0]):
        numbers = [number for _, number in group]
        runs.append((numbers[0], numbers[-1] + 1))
    return runs
