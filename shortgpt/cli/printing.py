"""What a command gives, and how it is printed: a table for people, or JSON; libraries talk elsewhere."""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, NamedTuple

from shortgpt.utils.quieting import NOISY, quiet


class Result(NamedTuple):
    """What a command gives: `data` for ``--json``, `text` for people, `notes` for standard error."""

    data: object
    text: str
    notes: Sequence[str] = ()


def show(result: Result, *, as_json: bool, notes: bool) -> None:
    """Print the result; characters that command a terminal (a name may hold some) are left out."""
    for note in result.notes if notes else ():
        print(_tame(note), file=sys.stderr)
    print(to_json(result.data) if as_json else _tame(result.text), flush=True)


def _tame(text: str) -> str:
    return re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f]", " ", text)


@contextmanager
def calm_libraries(*, bars: bool) -> Iterator[None]:
    """While libraries work: what they print goes to standard error, and without bars if they are not wanted.

    The switches are environment variables, which tqdm and huggingface_hub read once, when they are imported: no command
    imports them earlier. Functions of this package have their own, ``progress=``.
    """
    if not bars:
        os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    with redirect_stdout(sys.stderr):
        if os.environ.get("SHORTGPT_DEBUG"):
            yield
            return
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # it tells of every retry
        with warnings.catch_warnings(), quiet(*NOISY, "huggingface_hub"):
            warnings.simplefilter("ignore")
            yield


def to_json(data: Any) -> str:
    """JSON that any reader takes: NaN (a standard error of one sample) is null, and no character commands a terminal."""
    if hasattr(data, "to_dict"):  # a table: one object a row
        data = data.astype(object).where(data.notna(), None).to_dict("records")
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False, default=str)
    return re.sub("[\x7f-\x9f]", lambda match: f"\\u{ord(match[0]):04x}", text)
