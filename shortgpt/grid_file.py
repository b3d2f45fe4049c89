"""The CSV file of `grid.size_quality_grid`: a row is in it as soon as it is measured, and is not measured again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from shortgpt.arguments import check_path
from shortgpt.beside import file_written_beside

KEY = ("removed", "method", "order")  # what names a model of the grid
_LISTS = ("losses", "tokens", "gone")


def read_rows(path: str | os.PathLike | None) -> list[dict]:
    """What an earlier call measured; nothing if there is no such file. Raises ValueError for another kind of file."""
    if path is None:
        return []
    path = check_path(path, "a CSV file")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a CSV file in it")
    if not path.exists():
        return []
    try:
        table = pd.read_csv(path, float_precision="round_trip")
        if missing := {*KEY, *_LISTS, "settings"} - set(table):
            raise KeyError(missing)
        rows = table.to_dict("records")
        for row in rows:
            row |= {name: json.loads(row[name]) for name in _LISTS} | {"settings": str(row["settings"])}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no table of size_quality_grid(): name another file") from error
    return rows


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
