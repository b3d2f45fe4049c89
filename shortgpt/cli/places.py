"""Where results go: that they could not be written there is said before the work begins."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from shortgpt.cli.failing import UsageError


def require_writable(file: Path, *suffixes: str) -> None:
    """Raise if no file could be written to `file`."""
    if suffixes and file.suffix not in suffixes:
        raise UsageError(f"{file}: the name must end in {' or '.join(suffixes)}")
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder: name a file")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {file.parent}; make it first")
    _try_to_write(file.parent)


def require_room(folder: Path, *, overwrite: bool) -> None:
    """Raise if no model could be saved to `folder`."""
    from shortgpt.utils.atomic import check_target

    check_target(folder, overwrite=overwrite)
    _try_to_write(next(p for p in folder.absolute().parents if p.exists()))


def _try_to_write(folder: Path) -> None:
    try:
        os.rmdir(tempfile.mkdtemp(dir=folder, prefix=".shortgpt-"))
    except OSError as error:
        raise OSError(f"{folder} can't be written to ({error.strerror}): save the result elsewhere") from error
