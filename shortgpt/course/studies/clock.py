"""Ways to do the same thing that take turns at a clock: what each of them gave, and how long it took."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any

from tqdm import tqdm

from shortgpt.evaluation.cost import timed


def in_turn(ways: Mapping[str, Callable[[], Any]], repeats: int, bar: tqdm) -> tuple[dict[str, Any], dict[str, float]]:
    """What each way returned when it first ran, and its median seconds (see `timed`), by name."""
    results: dict[str, Any] = {}

    def run(name: str) -> None:
        result = ways[name]()
        results.setdefault(name, result)  # the others are the same

    seconds = timed({name: partial(run, name) for name in ways}, repeats=repeats, warmup=0, bar=bar)
    return results, {name: median(each) for name, each in seconds.items()}
