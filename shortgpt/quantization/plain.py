"""A model as a plain checkpoint, for a library that loads it itself."""

from __future__ import annotations

from transformers import PreTrainedModel

from shortgpt.pruning.recipe import RECIPE


def write_plain(model: PreTrainedModel, folder: str) -> None:
    """Write `model` for a library that loads it itself.

    Raises:
        ValueError: its configuration doesn't describe it, so that another model would be loaded.
    """
    if getattr(model, RECIPE, None) is not None:
        raise ValueError(
            f"transformers' configuration can't describe this pruned {type(model).__name__}, and this method loads it from "
            "a plain checkpoint: use 8 bits, or method='rtn'"
        )
    model.save_pretrained(folder)
