"""Adapters (LoRA and its like, from `peft`), in a model or in a folder: to be merged before anything is written.

Of a model that holds one, transformers saves the adapter alone; one that lies beside a checkpoint it runs if peft is
installed, and passes over if not.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import ADAPTER_CONFIG_NAME, find_adapter_config_file

from shortgpt.model.arguments import check_model

_MERGE = "peft.PeftModel.from_pretrained(model, adapter_folder).merge_and_unload()"


def require_no_adapter(model: PreTrainedModel, what: str) -> None:
    """Raise TypeError if `model` is none, and ValueError if an adapter's layers stand in it, even switched off or deleted.

    Args:
        what: can't be done then, for instance ``"be saved"``.
    """
    check_model(model)
    if any(type(module).__module__.partition(".")[0] == "peft" for module in model.modules()):
        raise ValueError(
            f"a model that holds an adapter can't {what}: merge it first, with merge_and_unload() of the PeftModel, or else "
            f"write the adapter with model.save_pretrained(adapter_folder), load() the model without it and take {_MERGE}"
        )


def require_no_adapter_beside(name: str | os.PathLike, folder: str | os.PathLike, **options: Any) -> None:
    """Raise ValueError if an adapter lies in `folder` (or Hub id), alone or beside a checkpoint.

    Args:
        name: what the user called it.
        options: ``revision=`` and ``cache_dir=``, for a Hub id.
    """
    found = find_adapter_config_file(str(folder), **options)
    if found is None:
        return
    if Path(folder).is_dir() and not (Path(folder) / "config.json").is_file():
        raise ValueError(f"{name} holds an adapter and no model: load() the model it was trained on, and take {_MERGE}")
    raise ValueError(
        f"{name} holds an adapter beside the weights ({ADAPTER_CONFIG_NAME}): move the adapter's files to a folder of their "
        "own (download the model first if it is on the Hub), and to keep what it learned, load() the rest and save() "
        f"{_MERGE}"
    )
