"""`shortgpt eval`: several models in one table."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shortgpt.cli.options import BOS_HELP, Language, Loading, read_documents, require_writable
from shortgpt.cli.run import Result

if TYPE_CHECKING:
    import pandas as pd

_COUNTS = ("layers", "parameters")


def evaluate(
    loading: Loading,
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="The first one is the reference.")],
    tasks: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="offline (the five that come along), paper (ShortGPT's thirteen), none, or a list.",
            rich_help_panel="Measures",
        ),
    ] = "offline",
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Only the first items of each task: faster, less sure.", rich_help_panel="Measures"
        ),
    ] = None,
    shots: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="Worked examples in a prompt. Default: the task's own.", rich_help_panel="Measures"
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Draws the worked examples.", rich_help_panel="Measures")
    ] = 1234,
    batch_size: Annotated[
        str,
        typer.Option(
            metavar="N", help="Prompts at a time; auto: as many as a GPU holds, to 64.", rich_help_panel="Measures"
        ),
    ] = "16",
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Keep each task done, in JSON lines; the next run goes on.", rich_help_panel="Measures"
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Text for perplexity, .txt or .jsonl.", rich_help_panel="Measures"),
    ] = None,
    language: Annotated[
        Language | None,
        typer.Option(metavar="NAME", help="Of the built-in text for perplexity: en, zh.", rich_help_panel="Measures"),
    ] = None,
    bos: Annotated[bool | None, typer.Option("--bos/--no-bos", help=BOS_HELP, rich_help_panel="Measures")] = None,
) -> Result:
    """Compare models: perplexity, benchmark accuracy, size, and what was retained.

    Use it on the dense model and what you made of it. One model is in memory at a time.

        shortgpt eval smollm2-135m-instruct ./smaller --limit 100
        shortgpt eval ./my_model ./smaller --tasks none --text my_domain.txt
        shortgpt eval Qwen/Qwen2.5-0.5B ./smaller --tasks hellaswag,piqa --json
        shortgpt eval ./big ./smaller --tasks paper --results results.jsonl

    The last one takes long: if it is stopped, the same line goes on, and runs only those tasks that are not in the file
    for the same model and settings (perplexity is measured again).

    Rows: memory_mb (10^6 bytes of weights), perplexity (lower is better; only models with one tokenizer compare), an
    accuracy in percent for each task, their average, and retention: the average in percent of the first model's. Chance
    is not zero, so retention flatters; and read some generated text, too. Other tasks fetch their data from the Hub.
    """
    options = {"limit": limit, "shots": shots, "seed": seed, "batch_size": parse_batch_size(batch_size), "bos": bos}
    import pandas as pd
    from tqdm.auto import tqdm

    from shortgpt.checkpoints.facts import empty_model
    from shortgpt.evaluation.benchmarks import manager_of
    from shortgpt.evaluation.comparing import compare

    names = tasks_named(tasks)
    if names and importlib.util.find_spec("lm_eval") is None:
        raise ImportError(
            "benchmarks need lm-evaluation-harness: pip install 'shortgpt-pruning[eval]', or --tasks none"
        )
    repeated = sorted({name for name in models if models.count(name) > 1})
    if repeated:
        raise typer.BadParameter(f"{repeated[0]} is named twice: name each model once")
    documents = read_documents(text, language, "perplexity")
    if results is not None:
        require_writable(results)
    for name in models:  # a misspelt second model should not be found out after minutes with the first
        if not name.endswith(".gguf"):
            empty_model(name, **loading.source)
    if names:
        manager_of(names)  # nor should a misspelt task
    tables, vocabularies = [], set()
    for number, name in enumerate(models, start=1):
        model, tokenizer = loading.load(name)
        vocabularies.add(len(tokenizer))
        with tqdm(total=1, desc=f"measuring {name} ({number} of {len(models)})", bar_format="{desc}, {elapsed}"):
            tables.append(compare({name: model}, tokenizer, tasks=names, texts=documents, results=results, **options))
        del model  # one at a time
    table = pd.concat(tables)
    if names:
        table["retention"] = 100 * table["average"] / table["average"].iloc[0]
    notes = []
    if names and limit is not None:
        notes.append(
            f"note: a subset, at most {limit} items of each task, with a standard error of up to {50 / limit**0.5:.0f} "
            "points each"
        )
    if len(vocabularies) > 1:
        notes.append("note: these models have different tokenizers, so their perplexities do not compare")
    if names and results is not None:
        notes.append(f"the results of each task are in {results}")
    table["limit"] = limit
    return Result(table.reset_index(), for_people(table.drop(columns="limit")), notes)


def tasks_named(text: str) -> tuple[str, ...]:
    """``"offline"``, ``"paper"``, ``"none"`` and names of tasks, separated by commas, to names of tasks, each once."""
    from shortgpt.evaluation.benchmarks import OFFLINE_TASKS, PAPER_BENCHMARKS

    groups = {"offline": OFFLINE_TASKS, "paper": PAPER_BENCHMARKS, "none": ()}
    names = [name.strip() for name in text.split(",")]
    return tuple(dict.fromkeys(task for name in names for task in groups.get(name, (name,))))


def parse_batch_size(text: str) -> int | str:
    """``"auto"``, or a whole number from 1."""
    if text == "auto" or re.fullmatch(r"0*[1-9]\d*", text):
        return text if text == "auto" else int(text)
    raise typer.BadParameter(f"--batch-size {text!r} is not a number of prompts: give a whole number from 1, or auto")


def for_people(table: pd.DataFrame) -> str:
    """A column for each model; counts as whole numbers."""
    text = table.astype(object)
    for name in table:
        text[name] = [f"{value:,.0f}" if name in _COUNTS else f"{value:,.2f}" for value in table[name]]
    return text.T.to_string()
