"""The plan: which layers to remove, as a small JSON file.

It names the layers by their index in the *dense* model, and keeps what led to the choice (scores, calibration, versions), so
that it can be read, shared and applied on another machine. Reading one needs no torch.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path

import numpy as np

from shortgpt.utils.arguments import check_count, check_number, check_path, check_string, shown
from shortgpt.utils.atomic import file_written_beside
from shortgpt.utils.untrusted import MOST_LAYERS, read_json

SCHEMA = 1
PLAN_FILE = "pruning_plan.json"  # a plan's name inside a checkpoint
_DICTS = {  # fields of a plan: what they hold, and the kind of their values
    "scores": ("from layer to score", int | float | np.number),
    "calibration": ("of what was read", str | int | float),
    "search": ("of what the search cost", str | int | float | None),
    "versions": ("from package to version", str),
}


@dataclass(frozen=True)
class PruningPlan:
    """Layers to remove from a model, in its dense (original) numbering.

    Attributes:
        layers: how many layers the dense model has.
        removed: indices of the layers to remove, in the order in which they were chosen.
        criterion: what chose them, for instance ``"block_influence"`` or ``"reverse"``.
        scores: score of each layer that could be chosen, keyed by its original index (empty for criteria without one).
        calibration: ``tokens, samples, sha256`` of the text that was read, and ``bos``: whether each sample began with BOS.
        model: name of the model, ``@commit`` included if it came from the Hub; for the reader, it is not checked.
        search: what the choice cost, if layers were tried: ``objective, value, evaluations, forward_passes, seconds, seed,
            budget``. Plans are equal whatever it says: seconds differ from run to run.
        versions: of shortgpt, torch and transformers.
    """

    layers: int
    removed: tuple[int, ...]
    criterion: str = "by hand"
    scores: dict[int, float] = field(default_factory=dict)
    calibration: dict[str, int | str] = field(default_factory=dict)
    model: str = ""
    search: dict[str, int | float | str] = field(default_factory=dict, compare=False)
    versions: dict[str, str] = field(default_factory=lambda: _versions())

    def __post_init__(self) -> None:
        # plain numbers, whatever they came as: a plan is written as JSON
        object.__setattr__(self, "layers", check_count("layers", self.layers))
        if self.layers > MOST_LAYERS:
            raise ValueError(f"layers must be at most {MOST_LAYERS:,}, got {self.layers}: no model has so many")
        object.__setattr__(self, "removed", tuple(check_indices(self.removed, self.layers)))
        for name, (what, kind) in _DICTS.items():
            if not isinstance(value := getattr(self, name), dict):
                raise TypeError(f"{name} must be a dict {what}, got {shown(value)}")
            for key, entry in value.items():
                if not isinstance(key, str | int) or not isinstance(entry, kind):
                    raise TypeError(f"{name} must be a dict {what}, got {shown(key)}: {shown(entry)}")
        check_string("criterion", self.criterion)
        check_string("model", self.model)
        for name in {"tokens", "samples"} & self.calibration.keys():
            check_count(f"calibration's {name}", self.calibration[name], least=0)
        layers = check_indices(self.scores, self.layers, keep_one=False)
        scores = [check_number("a score", score) for score in self.scores.values()]
        object.__setattr__(self, "scores", dict(zip(layers, scores, strict=True)))

    def __hash__(self) -> int:  # equal plans hash alike; their dicts have no hash
        return hash((self.layers, self.removed, self.criterion, self.model))

    @property
    def kept(self) -> tuple[int, ...]:
        """Indices of the layers that stay, ascending."""
        return tuple(sorted({*range(self.layers)} - {*self.removed}))

    def to_json(self, path: str | Path) -> Path:
        """Write the plan to `path` and return it."""
        path = check_path(path, "a file")
        fields = asdict(self)
        if not self.search:
            del fields["search"]
        with file_written_beside(path) as beside:
            beside.write_text(json.dumps({"schema": SCHEMA, **fields}, indent=1) + "\n", encoding="utf-8")
        return path

    def to_mergekit(self, path: str | Path | None = None, *, model: str | None = None, dtype: str | None = None) -> str:
        """The configuration for ``mergekit-yaml`` that stacks the kept layers: a slice for each run of consecutive ones.

        Args:
            path: where it is written to as well, if anywhere.
            model: Hub id (``@revision`` allowed) or folder of the *dense* model; default: the plan's.
            dtype: what mergekit converts the weights to, for instance ``"bfloat16"``; default: left as they are.

        mergekit sets the number of layers and nothing else: for models with one configuration entry a layer (`layer_types`
        of Gemma 3, Qwen 3.5 …) use `prune_checkpoint`, which slices those entries too.

        Raises:
            ValueError: neither the plan nor `model` names a model.
        """
        model = model or self.model
        if not model:
            raise ValueError("the plan names no model: pass model='owner/name', or the folder of the dense model")
        lines = ["merge_method: passthrough", *([f"dtype: {_quoted(dtype)}"] if dtype else []), "slices:"]
        for start, end in _runs(self.kept):
            lines += ["- sources:", f"  - model: {_quoted(model)}", f"    layer_range: [{start}, {end}]"]
        config = "\n".join(lines) + "\n"
        if path is not None:
            with file_written_beside(Path(path)) as beside:
                beside.write_text(config, encoding="utf-8")
        return config

    def to_llama_cpp(self) -> str:
        """The list for ``llama-quantize --prune-layers``: the removed layers, for instance ``"8,9,14"``."""
        return ",".join(str(layer) for layer in sorted(self.removed))

    @classmethod
    def from_json(cls, path: str | Path) -> PruningPlan:
        """Read a plan. Raises FileNotFoundError, or ValueError if the file is no plan, or one of a newer schema."""
        if not check_path(path, "a plan").exists():
            raise FileNotFoundError(
                f"no such plan: {path} (PruningPlan.to_json() and shortgpt prune --plan-only write one)"
            )
        no_plan = f"{path} is not a pruning plan"
        fields = read_json(
            path, wrong := f"{no_plan}: write one with PruningPlan.to_json() or shortgpt prune --plan-only"
        )
        if (schema := fields.pop("schema", None)) is None:
            raise ValueError(wrong)
        if schema != SCHEMA:
            raise ValueError(
                f"{path} has plan schema {shown(schema)}, this version reads {SCHEMA}: update shortgpt-pruning"
            )
        try:
            if isinstance(scores := fields.get("scores", {}), dict):  # in JSON every key is a string
                fields["scores"] = {int(layer): score for layer, score in scores.items()}
            return cls(**fields)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{no_plan}: {error}") from error


def check_indices(indices: Iterable[int], layers: int, *, keep_one: bool = True) -> list[int]:
    """`indices` as a list, if they are distinct layers of a model with `layers` layers, and at least one stays.

    Raises:
        TypeError: `indices` is no list. ValueError: an unknown or repeated layer, or none left.
    """
    if not isinstance(indices, Iterable):
        raise TypeError(f"layers are a list of numbers, for instance [3, 4], got {shown(indices)}")
    indices = list(indices)
    for index in indices:
        if isinstance(index, bool) or not isinstance(index, int | np.integer):
            hint = " (a tensor: call tolist() on it first)" if hasattr(index, "tolist") else ""
            raise ValueError(f"a layer is named by its number, 0 to {layers - 1}, got {shown(index)}{hint}")
    unknown = [int(i) for i in indices if not 0 <= i < layers]
    if unknown:
        raise ValueError(f"unknown layer {_some(unknown)}: this model has layers 0 to {layers - 1}")
    twice = sorted(int(i) for i, times in Counter(indices).items() if times > 1)
    if twice:
        raise ValueError(f"layer {_some(twice)} is named twice: name each layer to remove once")
    if keep_one and len(indices) >= layers:
        raise ValueError(f"removing {len(indices)} of {layers} layers leaves none: keep at least one")
    return [int(i) for i in indices]


def _some(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:10])) + ", …" * (len(numbers) > 10)


def _versions() -> dict[str, str]:
    found = {}
    for package in ("shortgpt-pruning", "torch", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a checkout that is not installed
            found[package] = "unknown"
    return found


def _quoted(text: str) -> str:
    """A string of YAML in one line, whatever is in it."""
    import yaml

    return yaml.safe_dump(text, default_style='"', width=sys.maxsize, allow_unicode=True).removesuffix("\n")


def _runs(kept: tuple[int, ...]) -> list[tuple[int, int]]:
    """Consecutive numbers as ``(first, last + 1)``."""
    runs = []
    for _, group in groupby(enumerate(kept), key=lambda item: item[1] - item[0]):
        numbers = [number for _, number in group]
        runs.append((numbers[0], numbers[-1] + 1))
    return runs
