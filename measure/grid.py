"""Pruning times bits on the default model: removed layers × quantization method × order, with quality and size.

    python measure/grid.py              go on where grid.csv ends (an hour on one core, and as much for GPTQ)
    python measure/grid.py --restart    begin again
    python measure/grid.py gptq         only one method; GPTQ needs gptqmodel and optimum, see `shortgpt/quantization/gptq.py`

Writes `grid.csv` by `size_quality_grid`: perplexity on all English documents of the perplexity part (nothing has read it),
accuracy on two offline tasks, bytes in memory and on disk (every model is saved, reloaded and compared on the way).
Read it with `read_grid`; lesson 04 draws the size–quality frontier from it. Speed is not in it: that is
`measure/speeds.py`, for a machine with nothing else to do.
"""

from __future__ import annotations

import sys
from pathlib import Path

from shortgpt import built_in_text, calibration_batches, load, removal_order, score_layers, size_quality_grid

FILE = Path(__file__).parents[1] / "data" / "grid.csv"
COUNTS = (0, 3, 6, 9)
METHODS = ("none", "int8", "nf4", "rtn4", "gptq")
TASKS = ("grammar", "last_word")
LIMIT = 120  # items: standard errors of 3 to 4 points


def main() -> None:
    if "--restart" in sys.argv:
        FILE.unlink(missing_ok=True)
    model, tokenizer = load(device="cpu")
    batches = calibration_batches(tokenizer, built_in_text()["text"])
    order = removal_order(score_layers(model, batches, progress=False))
    texts = built_in_text("perplexity")["text"]
    options = {"texts": texts, "tasks": TASKS, "limit": LIMIT, "calibration": batches, "disk": True, "path": FILE}
    for method in [name for name in sys.argv[1:] if not name.startswith("-")] or METHODS:
        # rounding without text gives the same weights in both orders: once is enough to see it
        for first, counts in {"prune first": COUNTS, "quantize first": COUNTS if method == "gptq" else (6,)}.items():
            size_quality_grid(model, tokenizer, order, counts, [method], orders=[first], **options)


if __name__ == "__main__":
    main()
