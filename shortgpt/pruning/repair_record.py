"""What the configuration of a repaired model says about that: one entry a repair, in the numbering of the dense model."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from transformers import PreTrainedConfig

from shortgpt.model.anatomy import REMOVED_FIELD, REPAIR_FIELD

KINDS = ("fold", "fold_both", "linear", "merge", "distill")  # how a model can have been repaired
Step = dict[str, Any]  # kind, sites, samples (and tokens): how; layers: where, original indices


def repairs_so_far(config: PreTrainedConfig) -> list[Step]:
    """What was repaired in the model with this configuration and is still there, the first repair first (maybe none)."""
    record = getattr(config, REPAIR_FIELD, None) or []
    return [record] if isinstance(record, dict) else list(record)  # releases up to 0.1 kept the last step alone


def record_repair(
    config: PreTrainedConfig, kind: str, sites: str, layers: Collection[int], samples: int, **more: int
) -> None:
    """Note in `config` (changed in place) one more repair, of `layers` (original indices); `more`, such as its tokens."""
    step = {"kind": kind, "sites": sites, "layers": sorted(layers), "samples": samples, **more}
    setattr(config, REPAIR_FIELD, [*repairs_so_far(config), step])


def forget_removed(config: PreTrainedConfig) -> None:
    """Leave out of the record in `config` (changed in place) what was repaired in layers that are gone by now."""
    gone = getattr(config, REMOVED_FIELD, ())
    steps = [step | {"layers": [i for i in step["layers"] if i not in gone]} for step in repairs_so_far(config)]
    if left := [step for step in steps if step["layers"]]:
        setattr(config, REPAIR_FIELD, left)
    elif hasattr(config, REPAIR_FIELD):
        delattr(config, REPAIR_FIELD)  # as if it had never been repaired, for so it is
