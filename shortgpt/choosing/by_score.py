"""Which layers to remove, and the plan that says so.

A `PruningPlan` is a small JSON file: it names the layers by their index in the *dense* model, and keeps what led to
the choice (scores, calibration, versions), so that it can be read, shared and applied on another machine.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from shortgpt.scoring.influence import LayerScores
from shortgpt.utils.arguments import check_choice, check_count, check_number, check_path, check_string, shown
from shortgpt.utils.atomic import file_written_beside
from shortgpt.utils.untrusted import MOST_LAYERS, read_json

SCHEMA = 1
PLAN_FILE = "pruning_plan.json"  # a plan's name inside a checkpoint
ORDERS = ("score", "reverse", "sequential", "random")
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
        calibration: ``tokens, samples, sha256`` of the text that was read.
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
        """The plan as a mergekit configuration, also written to `path` if given: see `exchange.mergekit_config`."""
        from shortgpt.pruning.exchange import mergekit_config  # which imports this module

        config = mergekit_config(self, model=model, dtype=dtype)
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
            raise FileNotFoundError(f"no such plan: {path} (PruningPlan.to_json() writes one)")
        no_plan = f"{path} is not a pruning plan"
        fields = read_json(path, wrong := f"{no_plan}: write one with PruningPlan.to_json()")
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


def choose_layers(
    scores: LayerScores, n: int | None = None, *, ratio: float | None = None, order: str = "score", seed: int = 0
) -> PruningPlan:
    """Choose `n` layers to remove.

    Args:
        scores: from `score_layers`. The baselines use only the number of layers.
        n: how many layers; or give `ratio`, a fraction of the *layers* (not of the parameters), rounded to a number.
        order: ``"score"``, lowest score first (the paper's rule, section 3.2); or a baseline of section 4.3:
            ``"reverse"`` from the last layer back, ``"sequential"`` from the first on, or ``"random"``.
        seed: for ``"random"``.

    Scores of an already pruned model give a plan that names original indices and includes what was removed before.

    Raises:
        ValueError: neither or both of n and ratio, too many layers, an unknown order, a chosen layer without a score.
    """
    _require_scores(scores)
    original = scores.original_layers
    if (n is None) == (ratio is None):
        raise ValueError("say how many layers to remove: give either n (a number) or ratio (a fraction of the layers)")
    if ratio is not None:
        if isinstance(ratio, bool) or not isinstance(ratio, int | float | np.number):
            raise TypeError(f"ratio must be a number, got {shown(ratio)}")
        if not 0 <= ratio < 1:
            raise ValueError(f"ratio is a fraction of the layers, 0 to below 1, got {ratio}")
        n = round(ratio * len(original))
    n = check_count("n", n, least=None)
    if not 0 <= n < len(original):
        raise ValueError(f"n must be 0 to {len(original) - 1} (this model has {len(original)} layers), got {n}")
    chosen = removal_order(scores, order, seed=seed)[:n]
    nameless = [original[i] for i in chosen if order == "score" and np.isnan(scores.values[i])]
    if nameless:
        raise ValueError(f"layer {nameless[0]} has no score (NaN), so it can't be chosen by it: take a smaller n")
    return PruningPlan(
        layers=len(original) + len(scores.removed),
        removed=(*scores.removed, *(original[i] for i in chosen)),
        criterion=scores.metric if order == "score" else order,
        scores={original[i]: float(value) for i, value in enumerate(scores.values)} if order == "score" else {},
        calibration=scores.calibration,
        model=scores.model,
    )


def removal_order(scores: LayerScores, order: str = "score", *, seed: int = 0) -> list[int]:
    """All layers (current indices), the first to remove first. See `choose_layers` for the orders."""
    _require_scores(scores)
    check_choice("order", order, ORDERS)
    seed = check_count("seed", seed, least=0)
    depth = len(scores.values)
    if order == "score":
        return np.argsort(scores.values, kind="stable").tolist()
    if order == "reverse":
        return list(range(depth - 1, -1, -1))
    if order == "sequential":
        return list(range(depth))
    return np.random.default_rng(seed).permutation(depth).tolist()


def _require_scores(scores: object) -> None:
    if not isinstance(scores, LayerScores):
        raise TypeError(f"expected scores from score_layers(), got {shown(scores)}")


def _versions() -> dict[str, str]:
    found = {}
    for package in ("shortgpt-pruning", "torch", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a checkout that is not installed
            found[package] = "unknown"
    return found
