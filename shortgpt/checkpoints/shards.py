"""Safetensors files as bytes: read what is in one, and write some of its tensors to another under new names.

A safetensors file is 8 bytes (the length of the header, little-endian), the header (JSON: a name, dtype, shape and byte
range for each tensor), and the raw data. So choosing and renaming tensors needs a new header and a copy of byte ranges:
no tensor is built, memory stays at one buffer, and every dtype works, also those that torch does not know.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeGuard

from shortgpt.utils.untrusted import inside, is_whole, parse_json, read_json, require_inner_name

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
BUFFER_BYTES = 1 << 24
HEADER_LIMIT = 100_000_000  # bytes; the limit of the safetensors library
NAME_LIMIT = 500  # characters of a tensor's or a file's name
INDEX_LIMIT = 1 << 26  # bytes; the largest models' have 10 MB


@dataclass(frozen=True)
class Shard:
    """What one safetensors file holds.

    Attributes:
        path: the file.
        tensors: ``dtype, shape, data_offsets`` of each tensor by name, in the order of their bytes.
        metadata: the text that came along; torchao keeps the kinds of its tensors here.
        data_start: byte at which the data begins; offsets count from there.
    """

    path: Path
    tensors: dict[str, dict]
    metadata: dict[str, str]
    data_start: int


def read_shard(path: Path) -> Shard:
    """Read the header of a safetensors file. Raises ValueError if it is damaged or cut short."""
    size = path.stat().st_size
    damaged = f"{path} has a damaged safetensors header: download it again"
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, HEADER_LIMIT):
            raise ValueError(f"{path} is not a safetensors file, or is cut short: download it again")
        header = parse_json(file.read(length), damaged)
    metadata = header.pop("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(header, dict) or not _are_texts(metadata):
        raise ValueError(damaged)
    if not all(map(_is_name, header)) or not all(map(_is_tensor, header.values())):
        raise ValueError(damaged)
    tensors = dict(sorted(header.items(), key=lambda item: item[1]["data_offsets"]))
    position = 0
    for begin, end in (tensor["data_offsets"] for tensor in tensors.values()):
        if begin != position or end < begin:  # the format allows no holes and no overlap
            raise ValueError(damaged)
        position = end
    if 8 + length + position != size:
        raise ValueError(
            f"{path} has {size:,} bytes, its header says {8 + length + position:,}: it is cut short or damaged, "
            "download it again"
        )
    return Shard(path, tensors, metadata, 8 + length)


def read_shards(src: Path) -> list[Shard]:
    """The headers of all weight files, each with the tensors that the index says are there."""
    if (src / SINGLE_FILE).is_file():  # transformers prefers it to an index, too
        return [read_shard(inside(src, SINGLE_FILE))]
    if not (src / INDEX_FILE).is_file():
        if any(src.glob("*.bin")) or any(src.glob("*.pt*")):
            raise ValueError(f"{src} has pickled weights, which can run code: convert them to safetensors first")
        raise FileNotFoundError(f"{src} holds no weights: neither {SINGLE_FILE} nor {INDEX_FILE}")
    home = read_index(inside(src, INDEX_FILE))
    files: dict[str, set[str]] = {file: set() for file in home.values()}
    for name, file in home.items():
        files[file].add(name)
    return [_indexed_shard(src, file, names, home) for file, names in files.items()]


def _indexed_shard(src: Path, file: str, names: set[str], home: Mapping[str, str]) -> Shard:
    """The header of `file` in `src`, of which the index `home` says that it holds the tensors `names`."""
    if not (src / file).is_file():
        raise FileNotFoundError(f"{src} is incomplete: {file}, which its index names, is missing; download it again")
    shard = read_shard(inside(src, file))
    if missing := sorted(names - shard.tensors.keys()):
        raise ValueError(f"{src / file} lacks {missing[0]}, which the index says is there: download both again")
    # a tensor in two files: the index tells which one counts
    tensors = {name: tensor for name, tensor in shard.tensors.items() if name in names or name not in home}
    return replace(shard, tensors=tensors)


def _is_tensor(entry: object) -> bool:
    """Whether `entry` of a header says where a tensor is, and what it is."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return False
    lists = [entry.get("shape"), entry.get("data_offsets")]
    return (
        all(isinstance(each, list) and all(map(is_whole, each)) for each in lists) and len(entry["data_offsets"]) == 2
    )


def _is_name(text: str) -> bool:
    return text.isprintable() and len(text) <= NAME_LIMIT


def _are_texts(value: object) -> TypeGuard[dict[str, str]]:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def read_index(path: Path) -> dict[str, str]:
    """In which file each tensor is, by an index. Raises ValueError if it is damaged, or names files outside its folder."""
    damaged = f"{path} is damaged: download it again"
    home = read_json(path, damaged, limit=INDEX_LIMIT).get("weight_map")
    if not _are_texts(home) or not all(map(_is_name, (*home, *home.values()))):
        raise ValueError(damaged)
    for file in set(home.values()):
        require_inner_name(path.parent, file)
    return home


def tensor_bytes(shard: Shard, name: str) -> int:
    """Size of one tensor's data."""
    begin, end = shard.tensors[name]["data_offsets"]
    return end - begin


def write_tensors(
    shard: Shard,
    names: Mapping[str, str],
    path: Path,
    *,
    metadata: Mapping[str, str],
    changed: Mapping[str, Callable[[], memoryview]] = MappingProxyType({}),
    report: Callable[[int], object] = lambda count: None,
) -> None:
    """Copy the tensors `names` (old name to new name) of `shard` to a new safetensors file.

    Args:
        metadata: of the new file.
        changed: for some of the tensors, by their old names, what gives other data to write in place of theirs.
        report: called with the number of bytes after each piece that was written.
    """
    chosen = [name for name in shard.tensors if name in names]  # in byte order, so that alignment is kept
    header: dict[str, dict] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name in chosen:
        count = tensor_bytes(shard, name)
        header[names[name]] = {**shard.tensors[name], "data_offsets": [position, position + count]}
        position += count
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of 8 bytes
    buffer = memoryview(bytearray(BUFFER_BYTES))
    with shard.path.open("rb", buffering=0) as source, path.open("xb") as target:
        target.write(len(text).to_bytes(8, "little") + text)
        for name in chosen:
            begin, end = shard.tensors[name]["data_offsets"]
            if name in changed:
                target.write(changed[name]())
                report(end - begin)
                continue
            source.seek(shard.data_start + begin)
            while begin < end:
                count = source.readinto(buffer[: min(end - begin, BUFFER_BYTES)])
                if not count:
                    raise ValueError(f"{shard.path} became shorter while it was read: nothing was written")
                target.write(buffer[:count])
                begin += count
                report(count)
