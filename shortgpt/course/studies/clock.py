"""Ways to do the same thing that take turns at a clock: what each of them gave, and how long it took."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

from tqdm.auto import tqdm

from shortgpt.evaluation.cost import timed


def in_turn(ways: Sequence[Callable[[], Any]], repeats: int, bar: tqdm) -> tuple[list[Any], list[float]]:
    """What each way returned when it first ran, and its median seconds (see `timed`)."""
    results: dict[int, Any] = {}

    def run(i: int) -> None:
        result = ways[i]()
        results.setdefault(i, result)  # the others are the same

    seconds = timed({str(i): partial(run, i) for i in range(len(ways))}, repeats=repeats, warmup=0, bar=bar)
    return [results[i] for i in range(len(ways))], [median(each) for each in seconds.values()]
