"""The `shortgpt` command: score, prune, eval, info. The same functions as in Python, for the shell.

Results go to standard output (a table, or JSON with ``--json``); progress and messages go to standard error. The exit
code is 0 on success, 1 when something was wrong (one sentence says what), 2 for a wrong command line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from shortgpt import __version__

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Depth pruning of language models: score layers by Block Influence, remove the lowest, evaluate honestly.",
)

Model = Annotated[str, typer.Argument(help="A Hub id, a folder, or 'smollm2-135m-instruct' (the packaged default).")]
Text = Annotated[
    Path | None, typer.Option(help="Calibration text: .txt or .jsonl. Default: the built-in English text.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, …")]
DEFAULT = "smollm2-135m-instruct"


@app.command()
def info(model: Model = DEFAULT, as_json: Json = False, device: Device = "cpu") -> None:
    """Tell a model's type, layers, parameters and size, and which layers were removed from it."""
    with _one_sentence():
        from shortgpt.layers import removed_so_far
        from shortgpt.measurement import size
        from shortgpt.models import describe, load

        loaded, _ = load(model, device=device)
        row = describe(loaded).iloc[0].to_dict() | {"memory_mb": size(loaded)["memory_bytes"] / 1e6}
        row["removed_layers"] = list(removed_so_far(loaded))
        print(json.dumps(row, default=_plain) if as_json else pd.Series(row).to_string())


@app.command()
def score(
    model: Model = DEFAULT,
    text: Text = None,
    samples: Annotated[int | None, typer.Option(help="Read at most this many samples of 512 tokens.")] = None,
    metric: Annotated[
        str, typer.Option(help="block_influence, angular_distance or relative_magnitude.")
    ] = "block_influence",
    as_json: Json = False,
    device: Device = "auto",
) -> None:
    """Score every layer: low means redundant.

    Example: shortgpt score Qwen/Qwen2.5-0.5B --text my_domain.txt
    """
    with _one_sentence():
        table = _score(model, text, samples, metric, device)[2].table
        print(table.to_json(orient="records") if as_json else table.to_string(index=False, float_format="%.5f"))


@app.command()
def prune(
    output: Annotated[Path, typer.Argument(help="Folder for the pruned checkpoint; must not exist or be empty.")],
    model: Annotated[str, typer.Option(help="A Hub id, a folder, or the packaged default.")] = DEFAULT,
    n: Annotated[int | None, typer.Option("-n", help="How many layers to remove.")] = None,
    plan: Annotated[Path | None, typer.Option(help="Remove the layers of this plan instead of choosing.")] = None,
    text: Text = None,
    samples: Annotated[int | None, typer.Option(help="Read at most this many samples of 512 tokens.")] = None,
    metric: Annotated[
        str, typer.Option(help="block_influence, angular_distance or relative_magnitude.")
    ] = "block_influence",
    overwrite: Annotated[bool, typer.Option(help="Replace an existing output folder.")] = False,
    as_json: Json = False,
    device: Device = "auto",
) -> None:
    """Remove the n lowest-scoring layers (or those of a plan) and save a checkpoint that transformers reloads.

    Example: shortgpt prune ./smaller --model Qwen/Qwen2.5-0.5B -n 4
    """
    with _one_sentence():
        if (n is None) == (plan is None):
            raise ValueError("say what to remove: either -n NUMBER or --plan FILE")
        from shortgpt.choose import PruningPlan, choose_layers
        from shortgpt.models import load
        from shortgpt.pruning import remove_layers
        from shortgpt.saving import save

        if plan is None:
            dense, tokenizer, scores = _score(model, text, samples, metric, device)
            decision = choose_layers(scores, n)
        else:
            if not plan.exists():
                raise FileNotFoundError(f"no such plan: {plan}")
            decision = PruningPlan.from_json(plan)
            dense, tokenizer = load(model, device=device)
        pruned = remove_layers(dense, decision)
        save(pruned, output, tokenizer=tokenizer, plan=decision, overwrite=overwrite)
        result = {"removed": list(decision.removed), "kept": len(decision.kept), "folder": str(output)}
        removed = ", ".join(map(str, decision.removed))
        print(json.dumps(result) if as_json else f"removed layers {removed} of {decision.layers}; saved to {output}")


@app.command(name="eval")
def evaluate_models(
    models: Annotated[list[str], typer.Argument(help="One or more models; retention is relative to the first.")],
    tasks: Annotated[
        str, typer.Option(help="Comma-separated tasks, 'offline' for all offline ones, or 'none'.")
    ] = "offline",
    limit: Annotated[int | None, typer.Option(help="Only the first items of each task.")] = None,
    as_json: Json = False,
    device: Device = "auto",
) -> None:
    """Perplexity, benchmark accuracy, size and retention of one or more models in one table.

    Example: shortgpt eval smollm2-135m-instruct ./smaller --limit 100
    """
    with _one_sentence():
        from shortgpt.evaluation import OFFLINE_TASKS, compare
        from shortgpt.models import load

        names = {"offline": OFFLINE_TASKS, "none": ()}.get(tasks, tuple(tasks.split(",")))
        loaded = {name: load(name, device=device) for name in models}
        tokenizer = next(iter(loaded.values()))[1]
        table = compare({name: model for name, (model, _) in loaded.items()}, tokenizer, tasks=names, limit=limit)
        print(table.reset_index().to_json(orient="records") if as_json else table.T.to_string(float_format="%.2f"))


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def _score(model: str, text: Path | None, samples: int | None, metric: str, device: str):
    from shortgpt.calibration import calibration_batches
    from shortgpt.influence import METRICS, score_layers
    from shortgpt.models import load

    if metric not in METRICS:  # before a model is fetched
        raise ValueError(f"unknown metric {metric!r}: choose one of {', '.join(METRICS)}")
    loaded, tokenizer = load(model, device=device)
    batches = calibration_batches(tokenizer, text, samples=samples)
    return loaded, tokenizer, score_layers(loaded, batches, metric=metric)


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Print what was wrong as one sentence; a traceback helps nobody at a shell."""
    try:
        yield
    except KeyboardInterrupt:
        print("shortgpt: interrupted; nothing half-written is left", file=sys.stderr)
        raise typer.Exit(130) from None
    except (ValueError, TypeError, ImportError, OSError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        print(f"shortgpt: {' '.join(text.split())}", file=sys.stderr)
        raise typer.Exit(1) from None


def _plain(value: object) -> object:
    return value.item() if hasattr(value, "item") else str(value)
