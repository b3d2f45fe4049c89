"""Pruning times bits on the model of 1.5 billion parameters: layers removed × quantization method, with perplexity and size.

    python measure/grid_large.py              go on where grid_large.csv ends (40 minutes of two cores)
    python measure/grid_large.py gptq         only one method; GPTQ needs two more packages, see `quantization/gptq.py`,
                                              and takes 28 of them and 13 GB of memory

Writes `grid_large.csv` by `size_quality_grid`, from the bfloat16 checkpoint. Layers are chosen, and GPTQ is calibrated, on
human-written English; perplexity is measured on other sources (see `study`). Bits come first: GPTQ takes long, and one run
serves every number of layers. Read it with `read_grid`.
"""

from __future__ import annotations

import sys

from study import DATA, LARGE, batches_of, load_model, measured_documents

from shortgpt import removal_order, score_layers, size_quality_grid

COUNTS = (0, 2, 3, 5, 7)
METHODS = ("none", "int8", "nf4", "gptq")


def main() -> None:
    model, tokenizer = load_model(LARGE)
    batches = batches_of(tokenizer, "en")
    order = removal_order(score_layers(model, batches, progress=False))
    texts = measured_documents(LARGE, "en")["text"]
    options = {"texts": texts, "calibration": batches, "path": DATA / "grid_large.csv"}
    for method in sys.argv[1:] or METHODS:
        print(
            size_quality_grid(model, tokenizer, order, COUNTS, [method], orders=["quantize first"], **options),
            flush=True,
        )


if __name__ == "__main__":
    main()
