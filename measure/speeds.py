"""Tokens a second of the grid's models, measured in turn, on a machine with nothing else to do.

    python measure/speeds.py    (some minutes; GPTQ is left out where gptqmodel is missing)

Writes `speeds.csv`: for the dense default model and the same without six layers, unquantized and in three quantizations,
the table of `speed_table` at batch sizes 1 and 8, with the processor's name. Another processor, other numbers, and perhaps
another order. GPTQ runs in the kernel that can be saved again (see `shortgpt/quantization/gptq.py`), not in its fastest one;
`rtn4` is left out, because on a CPU it only simulates 4 bits.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

from shortgpt import (
    built_in_text,
    calibration_batches,
    load,
    quantize,
    removal_order,
    remove_layers,
    score_layers,
    speed_table,
)
from shortgpt.evaluation.grid import METHODS

FILE = Path(__file__).parents[1] / "data" / "speeds.csv"


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor"
    )
    return f"{name}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"


def main() -> None:
    model, tokenizer = load(device="cpu")
    batches = calibration_batches(tokenizer, built_in_text()["text"])
    order = removal_order(score_layers(model, batches, progress=False))
    methods = ["none", "int8", "nf4"] + ["gptq"] * bool(importlib.util.find_spec("gptqmodel"))
    models = {}
    for n in (0, 6):
        pruned = remove_layers(model, order[:n])
        for method in methods:
            options = {"calibration": batches[:1]} if method == "gptq" else {}  # speed doesn't depend on the text
            bits, name = METHODS[method] or (None, None)
            models[f"{method} −{n}"] = quantize(pruned, bits, method=name, **options) if bits else pruned
    table = speed_table(models, prompt_tokens=128, new_tokens=16, batch_sizes=(1, 8), repeats=5)
    split = table["model"].str.split(" −", expand=True)
    table = table.assign(method=split[0], removed=split[1].astype(int), processor=processor()).drop(columns="model")
    table.to_csv(FILE, index=False, float_format="%.5g")
    print(table.to_string())


if __name__ == "__main__":
    main()
