"""`shortgpt heal`: train a pruned model to answer as the dense one does, and save it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

import shortgpt
from shortgpt.cli.deciding import dense_of
from shortgpt.cli.failing import UsageError
from shortgpt.cli.options import FLAG, FROM_0, FROM_1, OUTPUT, Loading, Progress, Texts, spelt
from shortgpt.cli.places import require_room
from shortgpt.cli.printing import Result

if TYPE_CHECKING:
    import pandas as pd

TRAINING = Group("Training", sort_key=1)
_FACTORS = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}


def parse_tokens(text: str) -> int:
    """``"1M"``, ``"250k"``, ``"1.5M"`` or a plain number, to a number of tokens."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmb]?)", text.strip().replace("_", "").replace(",", "").lower())
    if not match or (tokens := round(float(match[1]) * _FACTORS[match[2]])) < 1:
        raise ValueError(f"{text!r} is not a number of tokens: write it like 1M, 250k or 500000")
    return tokens


@Parameter(name="*", group=TRAINING)
@dataclass(frozen=True)
class Training:
    """What `shortgpt.distill` takes."""

    lora: Annotated[int | None, FROM_1] = None
    """Train adapters of this rank, merged at the end. Default: all weights."""
    learning_rate: float | None = None
    """The highest. Default: 3e-4, with --lora 1e-3."""
    temperature: float = 1.0
    """Softens the answers that are compared."""
    top_k: Annotated[int | None, FROM_1] = None
    """Compare only the teacher's likeliest tokens: less memory."""
    states: float = 1.0
    """Weight of the hidden states' error; 0: none."""
    length: Annotated[int, FROM_1] = 512
    """Tokens in a sample."""
    batch_size: Annotated[int, FROM_1] = 16
    """Samples in a step, of all processes together."""
    at_once: Annotated[int, FROM_1] = 4
    """Samples in a forward pass: less memory, same result."""
    checkpointing: Annotated[bool, FLAG] = False
    """Compute states twice instead of keeping them."""
    evaluations: Annotated[int, FROM_1] = 10
    """How often it is measured and kept."""
    seed: Annotated[int, FROM_0] = 0
    """Orders the samples, and draws the teacher's text."""


def heal_model(
    pruned: str,
    /,
    *,
    tokens: Annotated[int, spelt(parse_tokens, "N"), Parameter(group=TRAINING)],
    output: Annotated[Path, Parameter(name=["--output", "-o"], group=OUTPUT)],
    teacher: Annotated[str | None, Parameter(group=TRAINING)] = None,
    text: Annotated[Path | None, Parameter(group=TRAINING)] = None,
    state: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    overwrite: Annotated[bool, FLAG, Parameter(group=OUTPUT)] = False,
    verify: Annotated[bool, Parameter(show_default=False, group=OUTPUT)] = True,
    training: Training = Training(),
    loading: Loading = Loading(),
    progress: Progress = True,
) -> Result:
    """Train a pruned model to answer as the dense one does, and save it.

    After prune, and better after prune --repair fold. One dial: how many tokens it reads. The best model that was measured
    on held-back text on the way goes to OUTPUT, also if you press Ctrl-C or the loss diverges.

        shortgpt heal ./smaller --tokens 100k -o ./healed
        shortgpt heal ./smaller --teacher ./big --tokens 1M -o ./healed2 --lora 16
        shortgpt heal ./smaller --tokens 1M -o ./own --text my_domain.txt --state run

    The last one takes long: if it is stopped, the same line goes on. On several GPUs, put accelerate launch -m in front.

    Columns: tokens (read so far), loss (mean since the row before), and on held-back text divergence (nats a token, from the
    teacher's answers), states (relative squared error of the hidden states), perplexity, and best, the row that was saved.

    Args:
        pruned: The model to heal: a folder that prune wrote.
        tokens: How much it reads: 1M, 250k.
        output: Where the healed model goes.
        teacher: The dense model. Default: the one that the plan in PRUNED names.
        text: What it reads: .txt, or .jsonl with a "text" field a line. Default: the teacher writes it, 1M tokens at most.
        state: Keep the state of the run in this folder, so that the same line goes on.
        overwrite: Replace what is at OUTPUT.
        verify: Reload and compare logits.
    """
    from shortgpt.pruning.plan_words import plan_beside
    from shortgpt.utils.distributed import this_process

    require_room(output, overwrite=overwrite)
    plan = plan_beside(pruned)
    name, where = (teacher, loading) if teacher or plan is None else dense_of(plan, loading)
    if not name:
        raise UsageError(f"{pruned} does not say which model it was made of: name that with --teacher")
    documents = None if text is None else Texts(text=text).documents("calibration")
    first = this_process()[0] == 0  # before anything is loaded: each process has a GPU of its own
    small, tokenizer = loading.load(pruned)
    dense, _ = where.load(name)
    healed, history = shortgpt.distill(
        small, dense, tokenizer, documents, tokens=tokens, folder=state, progress=progress, **asdict(training)
    )
    if first:
        shortgpt.save(healed, output, tokenizer=tokenizer, plan=plan, overwrite=overwrite, verify=verify)
    return _report(history, output, name, verify=verify)


def _report(history: pd.DataFrame, output: Path, teacher: str, *, verify: bool) -> Result:
    table = history.drop(columns=["step", "seconds", "tokens_per_second"])
    table["best"] = table["best"].map({True: "yes", False: ""})
    took = f"{history['seconds'].iloc[-1]:,.0f} s of training, {history['tokens_per_second'].iloc[-1]:,.0f} tokens/s"
    notes = [f"saved to {output}{' and verified' if verify else ''}; {took}", f"next: shortgpt eval {teacher} {output}"]
    if history.attrs["stopped"]:
        notes.insert(0, history.attrs["stopped"])
    return Result(history, table.to_string(index=False, float_format="%.4f", na_rep="–"), notes)
