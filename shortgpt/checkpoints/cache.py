"""Checkpoints in the cache: built once, under a lock, whole or not at all, and read by whoever may only read there.

A folder of the cache is trusted when its files have the CRC-32 that was noted when they were written. Each process compares
them once. Reading several gigabytes each time would cost seconds (3.5 GB: 4), so a file above `ALWAYS_READ` bytes is read
whole once for all, and again only when its size or its time of change is another one: a bit that the disk itself turns is not
noticed there.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import platformdirs
import torch
from filelock import FileLock
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.checkpoints.gguf import read_gguf, require_checksum
from shortgpt.checkpoints.gguf_header import number_of_weights
from shortgpt.checkpoints.shards import read_shard
from shortgpt.utils.atomic import clear_about_a_full_disk, file_written_beside, with_usual_modes

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]
ALWAYS_READ = 2_000_000_000
_CHECKSUMS = "crc32.json"  # of each file; older caches have only that of the weights, or none at all
_READ = "read.json"  # size and time of change of the large files that were found whole
_SMALL_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
_TOKENIZER_BYTES = 50_000_000
_read_here: dict[Path, list[int]] = {}  # the same of all files, for this process


def cache_folder() -> Path:
    """Where downloads are kept: the environment variable ``SHORTGPT_CACHE``, else the platform's user cache."""
    return Path(os.environ.get("SHORTGPT_CACHE") or platformdirs.user_cache_dir("shortgpt"))


def built_once(name: str, make: Callable[[Path], Loaded]) -> Path:
    """The checkpoint `name` in the cache; if it is missing or damaged, `make` says what is to be written there.

    Args:
        make: called with a folder for what it needs meanwhile. That stays when it is interrupted, for the next call, and
            goes when the checkpoint is there. Not called at the same time in two processes.

    Raises:
        OSError: the cache can't be written, and the checkpoint isn't there; the disk is full; or from `make`.
    """
    folder, work = cache_folder() / name, cache_folder() / f".{name}-parts"
    if is_intact(folder):
        return folder
    try:
        work.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(work.parent / f".{name}.lock").acquire()
    except OSError as error:
        raise OSError(
            error.errno,
            f"{folder} is not there as a whole and can't be written: point SHORTGPT_CACHE to another folder",
        ) from error
    with lock:
        if not is_intact(folder):  # another process may have built it meanwhile
            work.mkdir(exist_ok=True)
            try:
                _write(*make(work), work / "new", folder)
                shutil.rmtree(work, ignore_errors=True)
            finally:
                with contextlib.suppress(OSError):  # pieces are in it
                    work.rmdir()
    return folder


def require_room(needed: int, name: str, already: int = 0) -> None:
    """Raise OSError if the disk of the cache has not `needed` bytes for `name`, of which `already` are written."""
    free = shutil.disk_usage(cache_folder()).free
    if free + already < needed:
        raise OSError(
            errno.ENOSPC,
            f"{name} needs {(needed - already) / 1e9:.1f} GB in the cache {cache_folder()} while it is built, and "
            f"{free / 1e9:.1f} GB are free: free some space, or point SHORTGPT_CACHE to another disk",
        )


def kept_gguf(path: Path, sha256: str | None, dtype: torch.dtype) -> Path | None:
    """The folder in the cache with what `read_gguf` makes of a file; None, with a warning, if it can't be kept there.

    Raises:
        FileNotFoundError, ValueError: as `read_gguf`.
    """
    require_checksum(path, sha256)
    name = f"gguf-{str(sha256)[:16]}-{str(dtype).removeprefix('torch.')}"

    def make(_: Path) -> Loaded:
        require_room(number_of_weights(path) * dtype.itemsize + _TOKENIZER_BYTES, f"the converted {path.name}")
        return read_gguf(path, sha256, dtype)

    try:
        return built_once(name, make)
    except OSError as error:
        if error.errno is None:  # not the disk's
            raise
        warnings.warn(f"{path.name} is converted again each time: {error.strerror}", stacklevel=4)
        return None


def _write(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, new: Path, folder: Path) -> None:
    shutil.rmtree(new, ignore_errors=True)  # of a process that was killed
    new.mkdir()
    try:
        with clear_about_a_full_disk(folder):
            model.save_pretrained(new)
            tokenizer.save_pretrained(new)
            _note_checksums(new)
        with_usual_modes(new)
        shutil.rmtree(folder, ignore_errors=True)  # only ever a damaged copy of what we are about to put there
        os.replace(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def is_intact(folder: Path) -> bool:
    """Whether a checkpoint of the cache is there, and as it was written."""
    try:
        if not (folder / _CHECKSUMS).exists():  # put there as a whole, before there were checksums
            read_shard(folder / "model.safetensors")
            _require_json(folder)
            with contextlib.suppress(OSError):  # not ours to write
                _note_checksums(folder)
            return True
        expected = json.loads((folder / _CHECKSUMS).read_text())
        if [*expected] == ["model.safetensors"]:
            _require_json(folder)
        there = any(name.endswith(".safetensors") for name in expected)
        return there and all(_is_unchanged(folder / name, crc) for name, crc in expected.items())
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def _require_json(folder: Path) -> None:
    for name in _SMALL_FILES:  # half a JSON file is none
        json.loads((folder / name).read_text(encoding="utf-8"))


def _note_checksums(folder: Path) -> None:
    files = [file for file in folder.iterdir() if file.is_file()]
    sums = json.dumps({file.name: _crc32(file) for file in files})
    with file_written_beside(folder / _CHECKSUMS) as beside:
        beside.write_text(sums)
    for file in files:
        _note_read(file)


def _is_unchanged(file: Path, crc: int) -> bool:
    if _stamp(file) in (_read_here.get(file), _were_read(file.parent).get(file.name)):
        return True
    if _crc32(file) != crc:
        return False
    _note_read(file)
    return True


def _were_read(folder: Path) -> dict[str, list[int]]:
    try:
        return dict(json.loads((folder / _READ).read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _note_read(file: Path) -> None:
    _read_here[file] = _stamp(file)
    if file.stat().st_size > ALWAYS_READ:
        read = _were_read(file.parent) | {file.name: _stamp(file)}
        with contextlib.suppress(OSError), file_written_beside(file.with_name(_READ)) as beside:
            beside.write_text(json.dumps(read))


def _stamp(file: Path) -> list[int]:
    return [file.stat().st_size, file.stat().st_mtime_ns]


def _crc32(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            crc = zlib.crc32(chunk, crc)
    return crc
