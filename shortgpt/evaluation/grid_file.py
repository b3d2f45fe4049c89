"""The CSV file of `grid.size_quality_grid`: a row is in it as soon as it is measured, and is not measured again."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from io import StringIO
from pathlib import Path

import pandas as pd

from shortgpt.utils.arguments import check_path
from shortgpt.utils.atomic import file_written_beside
from shortgpt.utils.untrusted import is_number, is_whole, parse_json, read_text

KEY = ("removed", "method", "order")  # what names a model of the grid
LIMIT = 1 << 28  # bytes
COLUMNS = 1000
_LISTS = ("losses", "tokens", "gone")
_TEXTS = ("method", "order", "settings")


def read_rows(path: str | os.PathLike | None) -> list[dict]:
    """What an earlier call measured; nothing if there is no such file. Raises ValueError for another kind of file."""
    if path is None:
        return []
    path = check_path(path, "a CSV file")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a CSV file in it")
    if not path.exists():
        return []
    wrong = f"{path} is no table of size_quality_grid(): name another file"
    text = read_text(path, wrong, limit=LIMIT)
    if text.partition("\n")[0].count(",") > COLUMNS:  # pandas takes for ever over a million of the same name
        raise ValueError(wrong)
    try:
        table = pd.read_csv(StringIO(text), float_precision="round_trip", dtype=dict.fromkeys(_TEXTS, str))
    except ValueError as error:
        raise ValueError(wrong) from error
    if not {*KEY, *_LISTS, "settings", "memory_bytes"} <= {*table}:
        raise ValueError(wrong)
    rows = table.to_dict("records")
    for row in rows:
        row |= {name: parse_json(str(row[name]), wrong) for name in _LISTS}
        if not _is_sound(row):
            raise ValueError(wrong)
    return rows


def _is_sound(row: dict) -> bool:
    """Whether `row` has values of the kinds that were written; what was not measured is NaN."""
    disk = row.get("disk_bytes", math.nan)
    others = (value for name, value in row.items() if name not in (*_TEXTS, *_LISTS))
    return (
        all(isinstance(row[name], str) for name in _TEXTS)
        and all(isinstance(row[name], list) for name in _LISTS)
        and all(value != value or is_number(value) for value in others)
        and (disk != disk or is_whole(disk) or (float(disk).is_integer() and 0 <= disk < 1 << 62))
        and all(map(is_number, row["losses"]))
        and all(is_whole(count, 1) for count in row["tokens"])
        and all(map(is_whole, (row["removed"], *row["gone"])))
        and len(row["losses"]) == len(row["tokens"]) > 0
    )


def check_same(rows: Iterable[dict], path: str | os.PathLike | None, settings: str, removal: list[int]) -> None:
    """Raise ValueError if `rows` of `path` were measured with other `settings` or another order of removal."""
    for row in rows:
        if not row["settings"].startswith(settings) or row["gone"] != removal[: row["removed"]]:
            raise ValueError(
                f"{path} holds measurements of another model, with other text, settings or order of removal: name another "
                "file"
            )


def write_rows(path: str | os.PathLike | None, rows: Iterable[dict]) -> None:
    """All rows to a file beside `path`, then renamed: there is never half a table. Raises OSError if the disk is full."""
    if path is None:
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_written_beside(path) as beside:
        pd.DataFrame(rows).to_csv(beside, index=False)
