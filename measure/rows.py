"""Tables of the measuring scripts that grow by a row at a time, so that a run that was stopped goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from shortgpt.utils.atomic import file_written_beside


class Rows:
    """A table in a CSV file that grows by a row at a time; a row whose keys are in it is not measured again."""

    def __init__(self, path: Path, keys: list[str]) -> None:
        self.path, self.keys = path, keys
        self.rows = json.loads(pd.read_csv(path).to_json(orient="records")) if path.exists() else []

    def __contains__(self, row: dict) -> bool:
        wanted = tuple(row[key] for key in self.keys)
        return any(tuple(each[key] for key in self.keys) == wanted for each in self.rows)

    def add(self, *rows: dict) -> None:
        self.rows += rows
        self._write()

    def complete(self, row: dict, columns: list[str], measure: Callable[[], dict[str, float]]) -> bool:
        """Measure and add those columns of a row that is in the table, if they are empty there; whether it was done."""
        kept = next(each for each in self.rows if all(each[key] == row[key] for key in self.keys))
        if all(kept.get(column) is not None for column in columns):
            return False
        found = measure()
        kept.update({column: found[column] for column in columns})
        self._write()
        return True

    def _write(self) -> None:
        table = pd.DataFrame(self.rows)
        table = table.astype({name: "Int64" for name in ("seed", "samples") if name in table})  # not 0.0
        with file_written_beside(self.path) as beside:
            table.to_csv(beside, index=False, float_format="%.6g")
