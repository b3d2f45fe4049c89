"""What every command does: spread its groups of options, keep standard output clean, fail in one sentence.

A command is a plain function that returns a `Result`. `command` makes of it what typer calls.
"""

from __future__ import annotations

import _thread
import functools
import inspect
import json
import logging
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, NamedTuple, get_type_hints

import typer

from shortgpt.utils.untrusted import one_line, raised_here

EXIT_CODES = (
    "Exit codes: 0 done, 1 something was wrong (one sentence on standard error says what), 2 wrong command line, "
    "130 interrupted. SHORTGPT_DEBUG=1 shows the traceback."
)
# the library's sentences speak Python; here they speak shell
_WORDS = {
    r"pass overwrite=True": "pass --overwrite",
    r"(set |pass )?`?trust_remote_code=True`?": "--trust-remote-code",
    r"(`|the option )?device_map(`|=)?": "--device-map",
    r"without max_memory": "without --max-memory",
    r"(`)?\bmax_memory\b(`|=)?": "--max-memory",
    r"use load\(\) without a name for": "leave the name out for",
    r"(then )?call load\(\) again": "then run this again",
    r"no sha256= was given": "no --sha256 was given",
    r"\bsha256=": "--sha256 ",
    r"give either n \(a number\) or ratio": "give either -n (a number) or --ratio",
    r"write one with PruningPlan.to_json\(\)": "write one with shortgpt prune --plan-only",
    r"give calibration_batches\(\) some text": "name a file with --text",
}


class Result(NamedTuple):
    """What a command gives: `data` for ``--json``, `text` for people, `notes` for standard error."""

    data: object
    text: str
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Printing:
    """Options that every command has."""

    as_json: Annotated[
        bool, typer.Option("--json", metavar=" ", help="Print JSON instead of a table.", rich_help_panel="Output")
    ] = False
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", metavar=" ", help="No progress bars, no hints.", rich_help_panel="Output"),
    ] = False


def help_text(docstring: str) -> str:
    """The docstring for typer: paragraphs flow to the terminal's width, indented lines (the examples) stay lines."""
    paragraphs = inspect.cleandoc(docstring).split("\n\n")
    # \b keeps older typers from joining the lines, and rich leaves it out
    shown = (f"\b[cyan]{p}[/cyan]" if p.startswith("    ") else " ".join(p.split()) for p in paragraphs)
    return "\n\n".join(shown)


def command(function: Callable[..., Result]) -> Callable[..., None]:
    """Turn `function` into a command: parameters that are dataclasses become a group of options, a field each."""
    parameters, groups = [], {"printing": Printing}
    hints = get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        if is_dataclass(hints[parameter.name]):
            groups[parameter.name] = hints[parameter.name]
        else:
            parameters.append(parameter.replace(annotation=hints[parameter.name], kind=parameter.KEYWORD_ONLY))
    for name in [*(name for name in groups if name != "printing"), "printing"]:
        types = get_type_hints(groups[name], include_extras=True)
        parameters += [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=types[f.name])
            for f in fields(groups[name])
        ]

    @functools.wraps(function)
    def run(**values: object) -> None:
        with one_sentence():
            made = {name: cls(**{f.name: values.pop(f.name) for f in fields(cls)}) for name, cls in groups.items()}
            printing = made.pop("printing")
            with calm_libraries(bars=not printing.quiet and sys.stderr.isatty()):
                result = function(**values, **made)
            for note in () if printing.quiet else result.notes:
                print(note, file=sys.stderr)
            _print(as_json(result.data) if printing.as_json else result.text)

    run.__signature__ = inspect.Signature(parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn every failure into one sentence on standard error and an exit code."""
    pressed: list[int] = []
    try:
        with _heeding_ctrl_c(pressed):
            yield
    except (KeyboardInterrupt, Exception) as error:
        if pressed or isinstance(error, KeyboardInterrupt):
            print("shortgpt: interrupted; nothing half-written is left", file=sys.stderr)
            raise typer.Exit(130) from None
        if isinstance(error, typer.Exit | typer.BadParameter):  # typer's own: they know their exit code
            raise
        if os.environ.get("SHORTGPT_DEBUG"):
            traceback.print_exc()
        print(f"shortgpt: {sentence(error)}", file=sys.stderr)
        raise typer.Exit(1) from None


@contextmanager
def _heeding_ctrl_c(pressed: list[int]) -> Iterator[None]:
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


def sentence(error: Exception) -> str:
    """What was wrong, in one line and in the words of the command line."""
    text = one_line(error, 2000)
    if isinstance(error, OSError) and error.strerror:  # "[Errno 13] Permission denied: 'x'" says it the wrong way round
        text = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
        text = "out of memory: lower --batch-size or --length, or let layers wait on disk with --max-memory"
    elif type(error).__name__ == "SafetensorError":
        text = f"the weights are damaged ({text}): download or copy them again"
    elif not isinstance(error, OSError | ImportError) and not raised_here(error):
        text = f"unexpected {type(error).__name__} ({text[:300]}): SHORTGPT_DEBUG=1 shows where; please report it"
    for pattern, words in _WORDS.items():
        text = re.sub(pattern, words, text)
    return text[:600]


@contextmanager
def calm_libraries(*, bars: bool) -> Iterator[None]:
    """While libraries work: what they print goes to standard error, and their bars show only if `bars`."""
    from tqdm import std

    start = std.tqdm.__init__  # every library's bars are tqdm's, and some have no switch of their own

    def without_bar(self: std.tqdm, *args: object, **options: object) -> None:
        start(self, *args, **options | {"disable": True})

    with redirect_stdout(sys.stderr), warnings.catch_warnings():
        if not os.environ.get("SHORTGPT_DEBUG"):
            warnings.simplefilter("ignore")
            logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of every retry
        try:
            if not bars:
                std.tqdm.__init__ = without_bar
            yield
        finally:
            std.tqdm.__init__ = start


def as_json(data: object) -> str:
    """JSON that any reader takes: NaN (a standard error of one sample) is null, and no character commands a terminal."""
    text = json.dumps(_plain(data), indent=1, ensure_ascii=False, allow_nan=False)
    return re.sub("[\x7f-\x9f]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _plain(value: object) -> object:
    if hasattr(value, "to_dict"):  # a table: one object a row
        value = value.to_dict("records")
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _print(text: str) -> None:
    try:
        print(
            re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f]", " ", text), flush=True
        )  # a name may hold commands to the terminal
    except OSError as error:
        # nobody reads on (`| head -1`), or the disk is full: Python would try once more as it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise OSError(error.errno, f"standard output could not be written ({error.strerror})") from error
