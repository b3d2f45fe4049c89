"""Where the project's data lie."""

from __future__ import annotations

from pathlib import Path


def data_folder() -> Path:
    """The project's `data/` folder: beside the package in a checkout, inside it when installed from a wheel."""
    package = Path(__file__).parents[1]
    return package / "data" if (package / "data").is_dir() else package.parent / "data"
