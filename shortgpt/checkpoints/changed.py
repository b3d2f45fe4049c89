"""Weights that a repaired model has in memory, other than in the files of its dense model: to be written in their place."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from shortgpt.checkpoints.shards import Shard
from shortgpt.model.anatomy import removed_so_far
from shortgpt.model.arguments import check_model
from shortgpt.pruning.recipe import RECIPE

Data = Callable[[], memoryview]


def changed_weights(
    model: PreTrainedModel, path: str, stack: str, work: list[tuple[Shard, dict[str, str]]]
) -> dict[str, Data]:
    """Weights in the decoder layers of `model`, at `path`, that aren't those of the files: by old name, what gives the bytes.

    Each pair in `work` is a file, and new names by old ones of those of its tensors that stay; in the new ones the layers
    are called `stack`. Weights that accelerate keeps elsewhere are those of the files. Tensors are compared in the dtype of
    the model, and given in that of the file.

    Raises:
        ValueError: the model has a weight in memory that no file holds under its name.
    """
    mine = {
        stack + name.removeprefix(path): weight.detach()
        for name, weight in model.named_parameters()
        if name.startswith(f"{path}.") and not weight.is_meta
    }
    found: dict[str, Data] = {}
    for shard, names in work:
        with safe_open(shard.path, "pt") as file:
            for old in [old for old, new in names.items() if new in mine]:
                weight, stored = mine.pop(names[old]), file.get_tensor(old)
                if not torch.equal(weight.cpu(), stored.to(weight.dtype)):
                    found[old] = partial(_bytes, weight, stored.dtype)
    if mine:
        raise ValueError(f"the files have no {min(mine)}, which the repaired model has in memory: save it with save()")
    return found


def require_made_of(repaired: PreTrainedModel, kind: type, removed: tuple[int, ...]) -> None:
    """Raise ValueError if `repaired` is no `kind` without the layers `removed`, as a configuration describes it."""
    check_model(repaired)
    if getattr(repaired, RECIPE, None) is not None:
        raise ValueError(f"no configuration of {kind.__name__} describes the repaired model: save it with save()")
    if type(repaired) is not kind or removed_so_far(repaired) != removed:
        raise ValueError(
            f"the repaired model is a {type(repaired).__name__} without layers {list(removed_so_far(repaired))}, and the "
            f"files give a {kind.__name__} without {list(removed)}: repair what the same plan makes of them"
        )


def _bytes(weight: Tensor, dtype: torch.dtype) -> memoryview:
    return weight.to("cpu", dtype).flatten().view(torch.uint8).numpy().data
