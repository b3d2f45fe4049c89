"""What the committed notebooks show: printed text, tables, and the numbers in them."""

from __future__ import annotations

import io
import re

import nbformat
import pandas as pd
from test_setup import ROOT


def cells_after(lesson: str, heading: str) -> list:
    """The code cells of a section."""
    found, inside = [], False
    for cell in nbformat.read(ROOT / "notebooks" / f"{lesson}.ipynb", as_version=4).cells:
        if cell.cell_type == "markdown" and re.search(r"(?m)^#{2,3} ", cell.source):
            inside = bool(re.search(rf"(?m)^#{{2,3}} {re.escape(heading)}", cell.source))
        elif cell.cell_type == "code" and inside:
            found.append(cell)
    assert found, f"{lesson} has no section {heading!r} with code"
    return found


def printed(lesson: str, heading: str) -> str:
    return "".join(output.get("text", "") for cell in cells_after(lesson, heading) for output in cell.outputs)


def tables(lesson: str, heading: str) -> list[pd.DataFrame]:
    """The tables that the section shows."""
    pages = (output.get("data", {}) for cell in cells_after(lesson, heading) for output in cell.outputs)
    found = [
        pd.read_html(io.StringIO(page["text/html"]), index_col=0)[0]
        for page in pages
        if "<table" in page.get("text/html", "")
    ]
    for table in found:
        table.columns = table.columns.get_level_values(0)  # the second row of a head has the name of the index
    return found


def numbers(pattern: str, text: str) -> list[tuple[float, ...]]:
    found = [each if isinstance(each, tuple) else (each,) for each in re.findall(pattern, text)]
    assert found, f"{pattern!r} is not in {text[:300]!r}"
    return [tuple(float(number.replace(",", "").replace("−", "-")) for number in row) for row in found]
