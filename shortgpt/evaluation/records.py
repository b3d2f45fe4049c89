"""What `evaluate` has measured already, in a file: one line of JSON per row of its table, so that it can go on later.

A table again: ``pandas.read_json(path, lines=True)``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from shortgpt.utils.atomic import file_written_beside
from shortgpt.utils.untrusted import is_whole, parse_json, read_text

KEY = ("fingerprint", "asked", "limit", "shots", "seed", "definition")
ROW = ("task", "metric", "value", "standard_error", "chance", "items", "subset")
LIMIT = 1 << 28  # bytes; a row has about 300


def _or_none(sound: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or sound(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


_SOUND: dict[str, Callable[[object], bool]] = {  # what each field of a line must be
    **dict.fromkeys(("fingerprint", "asked", "definition", "task", "metric"), _is_text),
    **dict.fromkeys(("value", "standard_error", "chance"), _or_none(lambda value: type(value) in (int, float))),
    **dict.fromkeys(("limit", "shots", "items"), _or_none(is_whole)),
    "seed": is_whole,
    "subset": lambda value: isinstance(value, bool),
    "rows": lambda value: is_whole(value, 1),
}


def read(path: Path) -> list[dict]:
    """All lines; none if there is no file.

    Raises:
        ValueError: a line that `evaluate` did not write, or an unfinished one. The file is never written to then.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file in it for the results")
    inside = next(parent for parent in path.absolute().parents if parent.exists())
    if not inside.is_dir():
        raise NotADirectoryError(
            f"{inside} is a file, so {path} can't be a file in it: name another place for the results"
        )
    if not path.exists():
        return []
    lines = []
    text = read_text(path, f"{path} is no file of results: name another", limit=LIMIT, errors="replace")
    for number, line in enumerate(text.split("\n")[:-1] if text.endswith("\n") else text.split("\n"), 1):
        wrong = (
            f"{path}, line {number}, is no result of evaluate(): repair or move the file, or name another; it was left as "
            "it is"
        )
        fields = parse_json(line, wrong)
        if not isinstance(fields, dict) or fields.keys() != _SOUND.keys():
            raise ValueError(wrong)
        if not all(sound(fields[name]) for name, sound in _SOUND.items()):
            raise ValueError(wrong)
        lines.append(fields)
    return lines


def known(path: Path, key: dict) -> list[dict] | None:
    """The table's rows that were measured under `key`, or None."""
    found = [line for line in read(path) if {name: line[name] for name in KEY} == key]
    if not found or len(found) < found[-1]["rows"]:
        return None
    found = found[-found[-1]["rows"] :]
    return [{name: _number(line[name]) for name in ROW} for line in found]


def add(path: Path, key: dict, rows: list[dict]) -> None:
    """Write the rows behind what is there: into a new file beside it, which then takes its place.

    Raises:
        OSError: the disk is full. The file holds what it held before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        lines = read(path)
        for row in rows:
            values = {name: None if row[name] != row[name] else row[name] for name in ROW}  # JSON has no NaN
            lines.append(key | values | {"rows": len(rows)})
        with file_written_beside(path) as beside, beside.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())


def _number(value: object) -> object:
    return float("nan") if value is None else value
