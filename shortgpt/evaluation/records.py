"""What has been measured already, in a file, so that a run that was stopped goes on; and whether it was this model.

`evaluate` keeps one line of JSON per row of its table (a table again: ``pandas.read_json(path, lines=True)``), and
`size_quality_grid` a CSV file. Both are read as files from a stranger, and replaced as a whole by a new file beside them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable
from io import StringIO
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.evaluation.likelihood import token_losses
from shortgpt.model.arguments import check_model, check_tokenizer, vocabulary_size
from shortgpt.model.tokens import begin_tokens
from shortgpt.utils.arguments import check_path
from shortgpt.utils.atomic import file_written_beside
from shortgpt.utils.untrusted import is_number, is_whole, parse_json, read_text

KEY = ("fingerprint", "asked", "limit", "shots", "seed", "definition")  # what a result of `evaluate` depends on
ROW = ("task", "metric", "value", "standard_error", "chance", "items", "subset")
GRID_KEY = ("removed", "method", "order")  # what names a model of the grid
EITHER = "either"  # the order of a model that is only pruned, only quantized, or neither
LIMIT = 1 << 28  # bytes; a row has about 300
COLUMNS = 1000
_TEXTS = ("method", "order", "settings")
_LISTS = ("losses", "tokens", "gone")
Check = Callable[[object], bool]


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _or_none(sound: Check) -> Check:
    return lambda value: value is None or sound(value)


def _is_bytes(value: object) -> bool:
    """A whole number; a column in which others are missing has it as a float."""
    return is_whole(value) or (isinstance(value, float) and value.is_integer() and 0 <= value < 1 << 62)


def _all(sound: Check) -> Check:
    return lambda values: isinstance(values, list) and all(map(sound, values))


_RESULT: dict[str, Check] = {  # what each field of a line of `evaluate` must be
    **dict.fromkeys(("fingerprint", "asked", "definition", "task", "metric"), _is_text),
    **dict.fromkeys(("value", "standard_error", "chance"), _or_none(lambda value: type(value) in (int, float))),
    **dict.fromkeys(("limit", "shots", "items"), _or_none(is_whole)),
    "seed": is_whole,
    "subset": lambda value: isinstance(value, bool),
    "rows": lambda value: is_whole(value, 1),
}
_GRID: dict[str, Check] = {  # the same for a row of the grid; all other columns are numbers, or NaN if not measured
    **dict.fromkeys(_TEXTS, _is_text),
    **{"removed": is_whole, "gone": _all(is_whole), "disk_bytes": lambda value: value != value or _is_bytes(value)},
    **{"losses": _all(is_number), "tokens": _all(lambda count: is_whole(count, 1))},
}


def read(path: Path) -> list[dict]:
    """All lines of `evaluate`; none if there is no file.

    Raises:
        ValueError: a line that `evaluate` did not write, or an unfinished one. The file is never written to then.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file in it for the results")
    inside = next(parent for parent in path.absolute().parents if parent.exists())
    if not inside.is_dir():
        raise NotADirectoryError(
            f"{inside} is a file, so {path} can't be a file in it: name another place for the results"
        )
    if not path.exists():
        return []
    text = read_text(path, f"{path} is no file of results: name another", limit=LIMIT, errors="replace")
    return [_result(path, number, line) for number, line in enumerate(text.removesuffix("\n").split("\n"), 1)]


def _result(path: Path, number: int, line: str) -> dict:
    wrong = (
        f"{path}, line {number}, is no result of evaluate(): repair or move the file, or name another; it was left as "
        "it is"
    )
    fields = parse_json(line, wrong)
    if not isinstance(fields, dict) or fields.keys() != _RESULT.keys():
        raise ValueError(wrong)
    if not all(sound(fields[name]) for name, sound in _RESULT.items()):
        raise ValueError(wrong)
    return fields


def known(path: Path, key: dict) -> list[dict] | None:
    """The rows of `evaluate` that were measured under `key`, or None."""
    found = [line for line in read(path) if {name: line[name] for name in KEY} == key]
    if not found or len(found) < found[-1]["rows"]:
        return None
    found = found[-found[-1]["rows"] :]
    return [{name: math.nan if line[name] is None else line[name] for name in ROW} for line in found]


def add(path: Path, key: dict, rows: list[dict]) -> None:
    """Write rows of `evaluate` behind what is there.

    Raises:
        OSError: the disk is full. The file holds what it held before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        lines = read(path)
        for row in rows:
            values = {name: None if row[name] != row[name] else row[name] for name in ROW}  # JSON has no NaN
            lines.append(key | values | {"rows": len(rows)})
        with file_written_beside(path) as beside, beside.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())


def read_rows(path: str | os.PathLike | None) -> list[dict]:
    """All rows of a grid's file; none if there is no such file. Raises ValueError for another kind of file."""
    if path is None:
        return []
    path = check_path(path, "a CSV file")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a CSV file in it")
    if not path.exists():
        return []
    wrong = f"{path} is no table of size_quality_grid(): name another file"
    text = read_text(path, wrong, limit=LIMIT)
    if text.partition("\n")[0].count(",") > COLUMNS:  # pandas takes for ever over a million of the same name
        raise ValueError(wrong)
    try:
        table = pd.read_csv(StringIO(text), float_precision="round_trip", dtype=dict.fromkeys(_TEXTS, str))
    except ValueError as error:
        raise ValueError(wrong) from error
    if not {*GRID_KEY, *_LISTS, "settings", "memory_bytes"} <= {*table}:
        raise ValueError(wrong)
    rows = table.to_dict("records")
    for row in rows:
        row |= {name: parse_json(str(row[name]), wrong) for name in _LISTS}
        sound = all(_GRID.get(name, lambda x: x != x or is_number(x))(value) for name, value in row.items())
        if not sound or not len(row["losses"]) == len(row["tokens"]) > 0:
            raise ValueError(wrong)
    return rows


def write_rows(path: str | os.PathLike | None, rows: Iterable[dict]) -> None:
    """All rows of a grid to its file: there is never half a table. Raises OSError if the disk is full."""
    if path is None:
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_written_beside(path) as beside:
        pd.DataFrame(rows).to_csv(beside, index=False)


_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def fingerprint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, bos: bool | None = None) -> str:
    """Sixteen hexadecimal digits of the configuration, the weights, what the model makes of a few tokens, and the tokenizer.

    Every weight counts: of each tensor the bits are added up as whole numbers (exactly, whatever the number of threads)
    and a few are taken as they stand, so a changed weight changes the text. Weights that are not in memory (offloaded
    ones) and changes outside the weights show in the loss on 64 fixed tokens, rounded to three digits. That loss can
    differ between devices and versions of torch: then the same model counts as another one, never the reverse.
    What stands in front of a text (see `tokens.begin_tokens`) counts, by the tokenizer's own rule or as `bos` forces it.
    """
    check_model(model)
    check_tokenizer(tokenizer)
    parts = [type(model).__name__, json.dumps(_settings(model.config.to_dict()), sort_keys=True, default=str)]
    for name, value in model.state_dict().items():
        parts += [f"{name} {part}" for part in _bits(value)]
    vocabulary = vocabulary_size(model)
    loss = token_losses(model, torch.arange(64) * 7919 % vocabulary).mean().item()
    parts += [f"{loss:.3f}", json.dumps(sorted(tokenizer.get_vocab().items()))]
    parts += [str(tokenizer(text)["input_ids"]) for text in ("A b, 12", "水")]
    if begin_tokens(tokenizer, bos) != begin_tokens(tokenizer):
        parts += [f"begins with {begin_tokens(tokenizer, bos)}"]
    return digest(parts)


def digest(*parts: object) -> str:
    """Sixteen hexadecimal digits of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _settings(config: object) -> object:
    """A configuration without what saving and loading add to it."""
    passing = {"_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype"}
    if isinstance(config, dict):
        return {name: _settings(value) for name, value in config.items() if name not in passing}
    return config


def _bits(value: object) -> list[str]:
    """Type, shape, sum of all bits read as integers, and nine of them."""
    if not isinstance(value, Tensor):  # what a quantized layer keeps beside its weights
        return [str(value)]
    if hasattr(value, "__tensor_flatten__"):  # a quantized weight: several plain tensors
        return [f"{name} {part}" for name in value.__tensor_flatten__()[0] for part in _bits(getattr(value, name))]
    what = f"{value.dtype} {list(value.shape)}"
    if value.is_meta or not value.numel():
        return [what]
    numbers = value.detach().contiguous().flatten().view(_INTEGERS[value.element_size()])
    few = numbers[:: max(1, len(numbers) // 8)].tolist()
    total = sum(part.sum(dtype=torch.int64).item() for part in numbers.split(1 << 24))  # sum() makes a copy in int64
    return [f"{what} {total} {few}"]
