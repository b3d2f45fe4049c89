"""Models that the lessons suggest beside the default one: what each downloads, needs and takes, and where it fits.

The numbers were measured or computed once (`measure/models.py`, which says how) and are read from `data/models.csv`.
"""

from __future__ import annotations

import pandas as pd

from shortgpt.utils.arguments import shown
from shortgpt.utils.data import data_folder

# gigabytes for a model: of 8 the system and the browser take some, of a GPU's 15 or 24 torch and the states do
FREE_GB = {"laptop": 6, "colab_cpu": 12, "colab_t4": 14, "gpu_24gb": 22, "gpu_24gb_plan": 22}
NEEDED = {"colab_t4": "gpu_gb", "gpu_24gb": "gpu_gb", "gpu_24gb_plan": "gpu_dense_gb"}  # the others: cpu_gb


def suggested_models(machine: str | None = None) -> pd.DataFrame:
    """One row a model, indexed by the name that `load` takes, smallest first.

    Args:
        machine: only the models that fit one: ``"laptop"`` (8 GB, no GPU), ``"colab_cpu"`` (12 GB), ``"colab_t4"`` (a GPU
            of 15 GB), ``"gpu_24gb"`` (a GPU of 24 GB) or ``"gpu_24gb_plan"`` (the same, which only scores and writes a
            plan: ``shortgpt prune --plan-only``, then ``--on-disk``, which never builds the model). Default: all.

    Columns: ``layers``; ``parameters``; ``licence``; ``gated`` (needs an account that accepted the licence);
    ``download_gb``; ``cpu_gb``, the memory for the walk of lesson 00, from loading to a saved checkpoint that was reloaded,
    as `load` takes the model on a CPU (float32; the packaged 1.5B: bfloat16; the peak of the process where ``measured``,
    else the weights alone); ``gpu_gb``, the weights of the same walk on a GPU (16 bits; the two smallest packaged models:
    float32), always computed: the dense model, and the pruned one that `save` reloads; ``gpu_dense_gb``, the weights of the
    dense model alone; ``seconds`` of one pass of Block Influence over lesson 00's text (one CPU core) and
    ``times_default``, the same as a multiple of the default model's (NaN: not measured); and a column of True and False for
    each machine.

    Raises:
        ValueError: an unknown machine.
    """
    if machine is not None and machine not in tuple(FREE_GB):
        raise ValueError(f"unknown machine {shown(machine)}: choose one of {', '.join(FREE_GB)}, or None for all")
    table = pd.read_csv(data_folder() / "models.csv", index_col="model")
    table["gpu_dense_gb"] = table["gpu_bytes"] * table["parameters"] / 1e9
    table["gpu_gb"] = table["gpu_dense_gb"] + table["gpu_bytes"] * table["parameters_left"] / 1e9
    for name, free in FREE_GB.items():
        table[name] = table[NEEDED.get(name, "cpu_gb")] <= free
    columns = "layers parameters licence gated download_gb cpu_gb measured gpu_gb gpu_dense_gb seconds times_default"
    table = table[[*columns.split(), *FREE_GB]]
    return table if machine is None else table[table[machine]]
