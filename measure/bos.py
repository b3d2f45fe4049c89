"""What a begin token (BOS) does to every number of a model that was trained with one: writes data/bos.csv and prints it.

    python measure/bos.py gemma-3-270m

Its terms are accepted once, before: ``load("gemma-3-270m", accept_terms=True)``.
Each row is a model without some layers, measured with BOS and without: perplexity of the built-in perplexity text, and what
it writes. Plans are chosen from the built-in calibration text, read in the same way. About ten minutes on two cores.
"""

import sys
from pathlib import Path

import pandas as pd
import torch

from shortgpt import (
    built_in_text,
    calibration_batches,
    choose_layers,
    continue_text,
    load,
    perplexity,
    remove_layers,
    score_layers,
)
from shortgpt.evaluation.likelihood import scored_tokens, token_losses
from shortgpt.model.tokens import begin_tokens

FILE = Path(__file__).parents[1] / "data" / "bos.csv"
PROMPT, LAYERS, LENGTH, SAMPLES = "The capital of France is", 3, 128, 8


def first_window_only(model, tokenizer, texts, window: int = 256, stride: int = 128) -> float:
    """Perplexity with BOS in front of each document, but not of the windows that start inside it."""
    losses, begin = [], begin_tokens(tokenizer)
    for text in texts:
        ids = torch.tensor([*begin, *scored_tokens(tokenizer, text, begin).tolist()])
        losses.append(token_losses(model, ids, window=window, stride=stride))
    return float(torch.cat(losses).mean().exp())


def main(name: str) -> None:
    model, tokenizer = load(name, device="cpu")
    texts = built_in_text("perplexity").drop_duplicates("genre")["text"].tolist()
    plans, rows = {}, []
    for bos in (True, False):
        batches = calibration_batches(tokenizer, built_in_text()["text"], length=LENGTH, samples=SAMPLES, bos=bos)
        scores = score_layers(model, batches)
        plans[bos] = choose_layers(scores, LAYERS).removed
        print("with BOS" if bos else "without", scores.values.round(4).tolist(), "removed first:", plans[bos])
    for removed in ((), plans[True], plans[False]):
        view = remove_layers(model, removed)
        for bos in (True, False):
            rows.append(
                {
                    "model": Path(name).name,
                    "removed": " ".join(map(str, removed)),
                    "plan_read": "" if not removed else "with BOS" if removed == plans[True] else "without",
                    "bos": bos,
                    "perplexity": perplexity(view, tokenizer, texts, window=256, stride=128, bos=bos),
                    "bos_in_first_window_only": first_window_only(view, tokenizer, texts) if bos else None,
                    "text": continue_text(view, tokenizer, PROMPT, new_tokens=16, bos=bos),
                }
            )
            print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(FILE, index=False)


if __name__ == "__main__":
    main(sys.argv[1])
