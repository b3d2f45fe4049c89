"""Do errors accumulate, and whose fault is a loop? Writing of the dense default model and of its six-layers-fewer version.

    python measure/generation.py    (a quarter of an hour on one core)

Writes `along.csv`, the table of `divergence_along` over the openings of 32 documents, and `relay.csv`: each of the two models
goes on from the first half of each of the two texts, with the share of repeated word triples in the whole text, and among
those of its second half alone. Lesson 10 draws them.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from shortgpt import (
    built_in_text,
    calibration_batches,
    continue_text,
    divergence_along,
    load,
    removal_order,
    remove_layers,
    repetition,
    score_layers,
)

FOLDER = Path(__file__).parents[1] / "data"
PROMPTS, PROMPT_TOKENS, LENGTH, REMOVED = 32, 24, 48, 6
COLUMNS = ["prompt", "written_by", "position", "token", "divergence", "agree", "loss", "perplexity"]


def repeated_after(begun: str, text: str) -> float:
    """Share of the word triples that end behind `begun` and stood in `text` before. NaN if there are none."""
    words = text.split()
    triples = list(zip(words, words[1:], words[2:], strict=False))
    behind = range(max(len(begun.split()) - 2, 0), len(triples))
    return sum(triples[i] in triples[:i] for i in behind) / len(behind) if behind else float("nan")


def main() -> None:
    model, tokenizer = load(device="cpu")
    order = removal_order(score_layers(model, calibration_batches(tokenizer, built_in_text()["text"]), progress=False))
    pruned = remove_layers(model, order[:REMOVED])
    texts = [*built_in_text("perplexity")["text"], *built_in_text("repair")["text"]][:PROMPTS]
    prompts = [tokenizer.decode(tokenizer(text)["input_ids"][:PROMPT_TOKENS]) for text in texts]
    along = divergence_along(model, pruned, tokenizer, prompts, new_tokens=LENGTH)
    numbered = along.assign(prompt=along["prompt"].map(prompts.index))
    numbered[COLUMNS].to_csv(FOLDER / "along.csv", index=False, float_format="%.4g")

    rows = []
    halves = along[along["position"] <= LENGTH // 2].groupby(["prompt", "written_by"])["token"]
    for (prompt, first), tokens in tqdm(halves, desc="relay", unit="half"):
        begun = tokenizer.decode(tokens)
        for second, each in {"dense": model, "pruned": pruned}.items():
            text = begun + continue_text(each, tokenizer, prompt + begun, new_tokens=LENGTH // 2)
            row = {"prompt": prompts.index(prompt), "first": first, "second": second, "repeated": repetition(text)}
            rows.append(row | {"repeated_after": repeated_after(begun, text), "text": text})
    pd.DataFrame(rows).sort_values(["prompt", "first", "second"]).to_csv(FOLDER / "relay.csv", index=False)


if __name__ == "__main__":
    main()
