"""How a command ends badly: one sentence on standard error, an exit code, and nothing half-written after Ctrl-C."""

from __future__ import annotations

import _thread
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from shortgpt.utils.untrusted import one_line, raised_here


class UsageError(ValueError):
    """The command line is wrong: exit code 2."""


def told(error: BaseException, *, interrupted: bool) -> int:
    """Say in one sentence what went wrong, on standard error, and give the exit code."""
    if interrupted or isinstance(error, KeyboardInterrupt):
        print("shortgpt: interrupted; nothing half-written is left", file=sys.stderr)
        return 130
    if os.environ.get("SHORTGPT_DEBUG"):
        traceback.print_exception(error)
    print(f"shortgpt: {sentence(error)}", file=sys.stderr)
    return 1


@contextmanager
def heeding_ctrl_c(pressed: list[int]) -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt and note it in `pressed`: while a class is made, it becomes a RuntimeError."""
    before, report = signal.getsignal(signal.SIGINT), sys.unraisablehook

    def interrupt(number: int, _: object) -> None:
        pressed.append(number)
        logging.disable()  # transformers would list the weights that it has not read yet
        raise KeyboardInterrupt

    def not_lost(unraisable: sys.UnraisableHookArgs) -> None:  # raised in a destructor: nobody could catch it there
        if unraisable.exc_type is KeyboardInterrupt:
            threading.Timer(0.01, _thread.interrupt_main).start()
        else:
            report(unraisable)

    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        sys.unraisablehook = not_lost
        signal.signal(signal.SIGINT, interrupt)
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        sys.unraisablehook = report
        logging.disable(logging.NOTSET)


def sentence(error: BaseException) -> str:
    """What was wrong, in one line."""
    text = one_line(error, 2000)
    if isinstance(error, OSError) and error.strerror:  # "[Errno 13] Permission denied: 'x'" says it the wrong way round
        text = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
        text = "out of memory: lower --batch-size or --length, or let layers wait on disk with --max-memory"
    elif type(error).__name__ == "SafetensorError":
        text = f"the weights are damaged ({text}): download or copy them again"
    elif not isinstance(error, OSError | ImportError) and not raised_here(error):
        text = f"unexpected {type(error).__name__} ({text[:300]}): SHORTGPT_DEBUG=1 shows where; please report it"
    return text[:600]
