"""Models that the lessons suggest beside the default one: what each downloads, needs and takes, and where it fits.

The numbers were measured once (`measure/models.py`, which says how) and are read from `data/models.csv`.
"""

from __future__ import annotations

import pandas as pd

from shortgpt.checkpoints.packaged import DEFAULT_MODEL
from shortgpt.utils.arguments import shown
from shortgpt.utils.data import data_folder

# gigabytes for a model: of 8 the system and the browser take some, of a T4's 15 torch does
FREE_GB = {"laptop": 6, "colab_cpu": 12, "colab_t4": 14}


def suggested_models(machine: str | None = None) -> pd.DataFrame:
    """One row a model, indexed by the name that `load` takes, smallest first.

    Args:
        machine: only the models that fit one: ``"laptop"`` (8 GB, no GPU), ``"colab_cpu"`` (12 GB) or ``"colab_t4"`` (a
            GPU of 15 GB). Default: all.

    Columns: ``layers``; ``parameters``; ``licence``; ``gated`` (needs an account that accepted the licence);
    ``download_gb``; ``cpu_gb``, the memory for the walk of lesson 00 in float32, from loading to a saved checkpoint that was
    reloaded (the peak of the process where ``measured``, else the weights alone); ``gpu_gb``, the weights of the same walk
    on a GPU in float16 (the default model: float32), always computed; ``seconds`` of one pass of Block Influence over
    lesson 00's text (one CPU core, float32) and ``times_default``, the same as a multiple of the default model's (NaN: not
    measured); and a column of True and False for each machine.

    Raises:
        ValueError: an unknown machine.
    """
    if machine is not None and machine not in tuple(FREE_GB):
        raise ValueError(f"unknown machine {shown(machine)}: choose one of {', '.join(FREE_GB)}, or None for all")
    table = pd.read_csv(data_folder() / "models.csv", index_col="model")
    bytes_each = [4 if name == DEFAULT_MODEL else 2 for name in table.index]
    both = table["parameters"] + table["parameters_left"]  # the model, and the pruned one that save() reloads
    table["gpu_gb"] = bytes_each * both / 1e9
    for name, free in FREE_GB.items():
        table[name] = table["gpu_gb" if name == "colab_t4" else "cpu_gb"] <= free
    columns = ["layers", "parameters", "licence", "gated", "download_gb", "cpu_gb", "measured", "gpu_gb"]
    table = table[[*columns, "seconds", "times_default", *FREE_GB]]
    return table if machine is None else table[table[machine]]
