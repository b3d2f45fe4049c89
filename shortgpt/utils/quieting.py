"""Other libraries' log lines and bars, kept back while we use them, and as they were afterwards."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

# transformers imports torchao if it is installed, and that complains about CUDA libraries on machines without a GPU
NOISY = ("torchao", "torch.utils._pytree")


@contextmanager
def quiet(*names: str, level: int = logging.ERROR) -> Iterator[None]:
    """While open, the loggers `names` (and those below them) tell nothing less serious than `level`."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(max(level, logger.level))
    try:
        yield
    finally:
        for logger, its in zip(loggers, before, strict=True):
            logger.setLevel(its)


@contextmanager
def no_data_bars(progress: bool = False) -> Iterator[None]:
    """While open, `datasets` draws no bars, unless `progress`."""
    import datasets

    hide = not progress and not datasets.are_progress_bars_disabled()
    if hide:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            datasets.enable_progress_bars()
