"""Files from elsewhere: they are read within limits, and no name in them leads out of their folder.

A checkpoint, a plan or a table may come from a stranger. Whoever reads one names the sentence that is raised if it is
not what it should be; what a value must be is checked where the file is read (`is_whole`, `is_number`).
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_LAYERS = 1000  # of a model: an empty one of so many is built in a second
FILE_LIMIT = 1 << 22  # bytes of a configuration or a plan
_DEPTH = 40  # lists in lists in a JSON file


def read_text(path: str | os.PathLike, wrong: str, *, limit: int = FILE_LIMIT, errors: str = "strict") -> str:
    """The text of a file. Raises ValueError(`wrong`) for pipes and devices, more than `limit` bytes, and other than UTF-8."""
    path = Path(path)
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(wrong)
    with path.open("rb") as file:
        data = file.read(limit + 1)
    try:
        if len(data) > limit:
            raise ValueError(f"more than {limit} bytes")
        return data.decode("utf-8", errors)
    except ValueError as error:
        raise ValueError(wrong) from error


def read_json(path: str | os.PathLike, wrong: str, *, limit: int = FILE_LIMIT) -> dict:
    """The JSON object in a file. Raises FileNotFoundError, or ValueError(`wrong`) if there is anything else in it."""
    value = parse_json(read_text(path, wrong, limit=limit), wrong)
    if not isinstance(value, dict):
        raise ValueError(wrong)
    return value


def parse_json(text: str | bytes, wrong: str) -> object:
    """The value of a JSON text. Raises ValueError(`wrong`) for other text, and for lists in lists in lists ….

    Whole numbers of 19 digits and more come as floats, so what is an int fits into 64 bits.
    """
    try:
        value = json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 19 else float(digits))
        level = [value]
        for _ in range(_DEPTH):
            for item in level:
                if isinstance(item, str):
                    item.encode()  # half a character can't be written anywhere
            level = [inner for outer in level if isinstance(outer, dict | list) for inner in _items(outer)]
        if level:
            raise ValueError(f"nested deeper than {_DEPTH}")
    except (ValueError, RecursionError) as error:
        raise ValueError(wrong) from error
    return value


def _items(outer: dict | list) -> list:
    return [*outer, *outer.values()] if isinstance(outer, dict) else outer


def is_whole(value: object, least: int = 0, most: int = 1 << 62) -> bool:
    """Whether `value` is a whole number from `least` to `most`; True is none."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_number(value: object) -> bool:
    """Whether `value` is a finite number; True is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def inside(folder: str | os.PathLike, name: str) -> Path:
    """``folder / name``, if that is in `folder`: neither named with ``..``, nor a link that leads out of it.

    The only links followed are those of the Hub's cache (``<model>/snapshots/<commit>/file`` to ``<model>/blobs``).
    Whether there is such a file is not asked.

    Raises:
        ValueError: it is elsewhere.
    """
    path = Path(folder, require_inner_name(folder, name))
    home = Path(folder).resolve()
    homes = [home]
    if home.parent.name == "snapshots":
        homes.append(home.parents[1] / "blobs")
    try:
        if any(path.resolve().is_relative_to(each) for each in homes):
            return path
    except (OSError, RuntimeError):  # a link to itself
        pass
    raise ValueError(f"{path} is a link that leads out of the folder: put a copy of the file in its place")


def require_inner_name(folder: str | os.PathLike, name: object) -> str:
    """`name`, if it names something in `folder`, links aside."""
    parts = re.split(r"[/\\]", name) if isinstance(name, str) else [".."]
    if not isinstance(name, str) or ".." in parts or not all(parts) or ":" in parts[0] or "\0" in name:
        raise ValueError(f"{folder} names a file outside of itself ({one_line(name)}): download it again, or leave it")
    return name


def one_line(text: object, most: int = 200) -> str:
    """`text` for a sentence: one line without control characters (which can command a terminal), cut where it is long."""
    text = str(text)[: most + 1]
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= most else text[: most - 1] + "…"


@contextmanager
def in_one_sentence(wrong: str) -> Iterator[None]:
    """Turn whatever other libraries raise while they read a file into a ValueError: ``wrong: their reason``.

    What the operating system says, a missing library and our own errors stay as they are.
    """
    kept = OSError | ImportError | MemoryError
    try:
        yield
    except BaseException as error:  # a panic in Rust (tokenizers, safetensors) is no Exception
        is_error = isinstance(error, Exception) or type(error).__name__ == "PanicException"
        if not is_error or isinstance(error, kept) or raised_here(error) or "trust_remote_code" in str(error):
            raise
        from huggingface_hub.errors import StrictDataclassError

        reason = one_line((str(error).strip().splitlines() or [""])[-1], 300)
        reason = reason if isinstance(error, StrictDataclassError) else f"{type(error).__name__}: {reason}"
        raise ValueError(f"{wrong}: {reason}") from error


def raised_here(error: BaseException) -> bool:
    """Whether this package raised `error` on purpose: another library's ValueError is rarely about what the user did."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or not isinstance(error, ValueError | TypeError):
        return False
    on_purpose = (frames[-1].line or "raise").startswith("raise")  # int("x") in a line of ours is not
    return on_purpose and Path(frames[-1].filename).is_relative_to(Path(__file__).parents[1])
