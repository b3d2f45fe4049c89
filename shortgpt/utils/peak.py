"""The highest value that something had in a while, seen by looking at it again and again beside the work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def highest(look: Callable[[], int], interval: float) -> Iterator[list[int]]:
    """While open, a thread calls `look` every `interval` seconds; the one number of the list is the highest so far.

    It also looks when the block begins and when it ends. What rises and falls again between two looks is missed, and the
    thread can't look while other code holds Python's lock (torch lets go of it while it computes).
    """
    peak, done = [look()], threading.Event()

    def watch() -> None:
        while not done.wait(interval):
            peak[0] = max(peak[0], look())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
        peak[0] = max(peak[0], look())
