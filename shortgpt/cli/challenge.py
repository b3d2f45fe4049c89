"""`shortgpt challenge`: what an entry to the six-layer challenge gets (docs/challenge.md)."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from shortgpt.cli.options import Loading, Progress, default_model
from shortgpt.cli.printing import Result


def score_entry(
    entry: str,
    /,
    *,
    word: Annotated[str, Parameter(name="--word")],
    loading: Loading = Loading(),
    progress: Progress = True,
) -> Result:
    """Score an entry to the six-layer challenge: the default model without six of its thirty layers.

    The text to measure on is written by the dense model, from a word: the date, or one that a teacher sets. Scores compare
    where the checksum of the text is the same: another processor may write another text for the same word.

        shortgpt challenge ./smaller --word 2026-12-01
        shortgpt challenge ./smaller/pruning_plan.json --word 2026-12-01
        shortgpt challenge ./repaired --word autumn --json

    Takes a few minutes on two cores.

    Args:
        entry: A folder with the pruned model, repaired or not, or a plan (a .json file).
        word: What the held-back text is made from.
    """
    from shortgpt.evaluation.challenge import challenge_score
    from shortgpt.pruning.depth import remove_layers
    from shortgpt.pruning.plan import PruningPlan

    # the entry first, so that a wrong name is told at once
    if entry.endswith(".json"):
        plan = PruningPlan.from_json(entry)
        dense, tokenizer = loading.load(default_model())
        pruned = remove_layers(dense, plan)
    else:
        pruned = loading.load(entry)[0]
        dense, tokenizer = loading.load(default_model())
    found = challenge_score(dense, pruned, tokenizer, word, progress=progress)
    right = f"{found['right']:.0f} % ± {found['right_error']:.0f} of {found['documents']} items"
    lines = [
        f"nats lost  {found['nats_lost']:.3f} ± {found['error']:.3f} a token (0 is the dense model; lower is better)",
        f"right      {right} (dense {found['right_dense']:.0f} %, guessing 50 %)",
        f"text       {found['text']} (of the word {found['word']})",
    ]
    return Result(found, "\n".join(lines))
