"""Write a folder or a file as a whole or not at all: beside its final place first, then renamed."""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_LOCK, _NEW, _OLD = "lock", "new", "old"
_FULL = {errno.ENOSPC, errno.EDQUOT}  # the disk, or the user's share of it
_FULL_ELSEWHERE = re.compile(r"No space left|^\d+ requested and \d+ written$")  # safetensors and NumPy keep no number


def check_target(path: Path, *, overwrite: bool) -> None:
    """Raise if `path` can't become a new folder: a file, a full folder (unless `overwrite`), or one that we stand in."""
    if _is_around_here(path):
        raise ValueError(
            f"{path} is the current folder or one around it, which can't be replaced: name a folder inside it"
        )
    inside = next((parent for parent in path.parents if parent.exists()), path)
    if not inside.is_dir():
        raise NotADirectoryError(f"{inside} is a file, so {path} can't be a folder in it: choose another folder")
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is a file: name a folder to save the model in")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise FileExistsError(f"{path} is not empty: choose another folder, or pass overwrite to replace it")


def _is_around_here(path: Path) -> bool:
    try:
        here = Path.cwd()
    except FileNotFoundError:  # somebody removed it
        return False
    return path.resolve() in (here, *here.parents)


@contextmanager
def written_beside(path: Path, *, overwrite: bool, needed_bytes: int = 0) -> Iterator[Path]:
    """Yield an empty folder on the same disk; when the block ends without an error it becomes `path`.

    What was at `path` goes only then. If the process is killed, `path` holds what it held before, or, in the instant
    between the two renames, nothing; the next call for the same `path` puts the old content back and removes what dead
    runs left (a lock in each temporary folder tells whether its process still lives).

    Raises:
        FileExistsError: see `check_target`.
        OSError: less than `needed_bytes` are free, or the disk became full.
    """
    _clear_dead_runs(path)
    check_target(path, overwrite=overwrite)
    missing = [parent for parent in path.parents if not parent.exists()]  # the innermost first
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if free < needed_bytes:
        raise OSError(
            errno.ENOSPC,
            f"{path} needs {needed_bytes / 1e9:.2f} GB and its disk has {free / 1e9:.2f} GB free: free some space, or "
            "name a folder on another disk",
        )
    beside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    try:
        with FileLock(beside / _LOCK), clear_about_a_full_disk(path):
            try:
                (beside / _NEW).mkdir()
                yield beside / _NEW
                with_usual_modes(beside / _NEW)
                check_target(path, overwrite=overwrite)  # another process may have been there meanwhile
                if path.exists():
                    os.replace(path, beside / _OLD)
                os.replace(beside / _NEW, path)
            finally:
                _put_back(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        if not path.exists():
            for parent in missing:
                with suppress(OSError):  # somebody else put something there
                    parent.rmdir()


def with_usual_modes(folder: Path) -> None:
    """Give all files and folders in `folder` the modes that the umask asks for: those of `folder`, if mkdir made it.

    safetensors and `tempfile` make files that only their owner can read, whatever the umask.
    """
    mode = folder.stat().st_mode & 0o777
    for inside in folder.rglob("*"):
        inside.chmod(mode if inside.is_dir() else mode & 0o666)


@contextmanager
def file_written_beside(path: Path) -> Iterator[Path]:
    """Yield the name of a file on the same disk; when the block ends without an error it becomes `path`, and else it goes.

    Raises:
        OSError: the disk became full. What was at `path` is still there then.
    """
    beside = path.with_name(f".{path.name}-{os.getpid()}")
    with clear_about_a_full_disk(path):
        try:
            yield beside
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)


@contextmanager
def clear_about_a_full_disk(path: Path) -> Iterator[None]:
    """Libraries say it in their own words, or only how many bytes they could not write: then say what and what to do."""
    try:
        yield
    except Exception as error:  # safetensors wraps the operating system's error in a class of its own
        if getattr(error, "errno", None) not in _FULL and not _FULL_ELSEWHERE.search(str(error)):
            raise
        raise OSError(errno.ENOSPC, f"the disk is full: {path} was not written; free some space") from error


def _put_back(beside: Path, path: Path) -> None:
    """Undo the first of the two renames if the second did not happen."""
    if (beside / _OLD).exists() and not path.exists():
        os.replace(beside / _OLD, path)


def _clear_dead_runs(path: Path) -> None:
    for lock in path.parent.glob(f".{glob.escape(path.name)}-*/{_LOCK}"):  # only folders of ours have this file
        try:
            with FileLock(lock, timeout=0):
                _put_back(lock.parent, path)
        except (Timeout, OSError):  # its process is alive, or the file is not ours to touch
            continue
        shutil.rmtree(lock.parent, ignore_errors=True)
