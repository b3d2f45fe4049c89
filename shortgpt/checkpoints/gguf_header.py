"""The header of a GGUF file, walked once before a library reads it: gguf goes on behind the end of a broken one, for ever.

A file: magic, version, number of tensors and of fields; the fields (name, kind, value); the tensors (name, shape, kind,
offset); the data.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path

_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of a value, by its kind
_STRING, _LIST = 8, 9


def number_of_weights(path: Path) -> int:
    """How many weights the tensors of a GGUF file have together. Raises ValueError if its header is damaged or cut short."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = _Header(data)
            found = header.weights()
            if header.at <= len(data):
                return found
    except (struct.error, ValueError, KeyError, OverflowError, RecursionError):  # an empty file can't be mapped
        pass
    raise ValueError(f"{path.name} has a damaged GGUF header, or is cut short: download it again")


class _Header:
    """A place in the file, moved along by what is read there."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at, self.order = data, 4, "<"
        if data[:4] != b"GGUF":
            raise ValueError
        if not self.number("I") & 0xFFFF:
            self.order = ">"

    def number(self, kind: str) -> int:
        (value,) = struct.unpack_from(self.order + kind, self.data, self.at)
        self.at += struct.calcsize(kind)
        return value

    def skip(self, kind: int) -> None:
        if kind == _STRING:
            length = self.number("Q")  # which moves on itself
            self.at += length
        elif kind == _LIST:
            of, count = self.number("I"), self.number("Q")
            if of in _BYTES:
                self.at += count * _BYTES[of]
            else:
                for _ in range(count):
                    self.skip(of)
        else:
            self.at += _BYTES[kind]

    def weights(self) -> int:
        tensors, fields = self.number("Q"), self.number("Q")
        for _ in range(fields):
            self.skip(_STRING)
            self.skip(self.number("I"))
        total = 0
        for _ in range(tensors):
            self.skip(_STRING)
            total += math.prod(self.number("Q") for _ in range(self.number("I")))
            self.number("I")
            self.number("Q")
        return total
