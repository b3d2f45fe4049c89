"""`shortgpt eval`: several models in one table."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import shortgpt
from shortgpt.cli.failing import UsageError
from shortgpt.cli.options import FROM_0, FROM_1, MEASURES, Loading, Progress, Texts, spelt
from shortgpt.cli.places import require_writable
from shortgpt.cli.printing import Result

if TYPE_CHECKING:
    import pandas as pd

_COUNTS = ("layers", "parameters")


def parse_batch_size(text: str) -> int | str:
    """``"auto"``, or a whole number from 1."""
    if text == "auto" or re.fullmatch(r"0*[1-9]\d*", text):
        return text if text == "auto" else int(text)
    raise ValueError(f"{text!r} is not a number of prompts: give a whole number from 1, or auto")


def parse_tasks(text: str) -> tuple[str, ...]:
    """``"offline"``, ``"paper"``, ``"none"`` and names of tasks, separated by commas, to names of tasks, each once."""
    from shortgpt.evaluation.benchmarks import OFFLINE_TASKS, PAPER_BENCHMARKS

    groups = {"offline": OFFLINE_TASKS, "paper": PAPER_BENCHMARKS, "none": ()}
    names = [name.strip() for name in text.split(",")]
    return tuple(dict.fromkeys(task for name in names for task in groups.get(name, (name,))))


@Parameter(name="*", group=MEASURES)
@dataclass(frozen=True)
class Benchmarks:
    """What `shortgpt.compare` takes for its benchmarks."""

    tasks: Annotated[str, Parameter(metavar="LIST")] = "offline"
    """offline (the five that come along), paper (ShortGPT's thirteen), none, or a list."""
    limit: Annotated[int | None, FROM_1] = None
    """Only the first items of each task: faster, less sure."""
    shots: Annotated[int | None, FROM_0] = None
    """Worked examples in a prompt. Default: the task's own."""
    seed: Annotated[int, FROM_0] = 1234
    """Draws the worked examples."""
    batch_size: Annotated[int | str, spelt(parse_batch_size, "N")] = 16
    """Prompts at a time; auto: as many as a GPU holds, to 64."""
    results: Path | None = None
    """Keep each task done, in JSON lines; the next run goes on."""


def compare_models(
    *models: Annotated[str, Parameter(required=True)],
    benchmarks: Benchmarks = Benchmarks(),
    texts: Annotated[Texts, Parameter(name="*", group=MEASURES)] = Texts(),
    loading: Loading = Loading(),
    progress: Progress = True,
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

    Args:
        models: The first one is the reference.
    """
    import pandas as pd

    tasks, documents = _checked(models, benchmarks, texts, loading)
    options = asdict(benchmarks) | {"tasks": tasks, "texts": documents, "bos": texts.bos, "progress": progress}
    rows, vocabularies = zip(*_measured(models, loading, options), strict=True)
    table = pd.concat(rows)
    if tasks:
        table["retention"] = 100 * table["average"] / table["average"].iloc[0]
    notes = []
    if tasks and (limit := benchmarks.limit) is not None:
        error = f"a standard error of up to {50 / limit**0.5:.0f} points each"
        notes.append(f"note: a subset, at most {limit} items of each task, with {error}")
    if len({*vocabularies}) > 1:
        notes.append("note: these models have different tokenizers, so their perplexities do not compare")
    if tasks and benchmarks.results is not None:
        notes.append(f"the results of each task are in {benchmarks.results}")
    return Result(table.assign(limit=benchmarks.limit).reset_index(), for_people(table), notes)


def _checked(
    models: tuple[str, ...], benchmarks: Benchmarks, texts: Texts, loading: Loading
) -> tuple[tuple[str, ...], list[str]]:
    """Tasks and documents; what is wrong with the second model is not to be found out after minutes with the first."""
    from shortgpt.checkpoints.facts import empty_model
    from shortgpt.evaluation.benchmarks import manager_of

    if repeated := [name for name in models if models.count(name) > 1]:
        raise UsageError(f"{repeated[0]} is named twice: name each model once")
    tasks = parse_tasks(benchmarks.tasks)
    if tasks and importlib.util.find_spec("lm_eval") is None:
        raise ImportError(
            "benchmarks need lm-evaluation-harness: pip install 'shortgpt-pruning[eval]', or --tasks none"
        )
    documents = texts.documents("perplexity")
    if benchmarks.results is not None:
        require_writable(benchmarks.results)
    for name in models:
        if not name.endswith(".gguf"):
            empty_model(name, **loading.source)
    if tasks:
        manager_of(tasks)
    return tasks, documents


def _measured(models: tuple[str, ...], loading: Loading, options: dict) -> Iterator[tuple[pd.DataFrame, int]]:
    """A row for each model, and the size of its vocabulary. One model is in memory at a time."""
    from tqdm.auto import tqdm

    for number, name in enumerate(models, start=1):
        model, tokenizer = loading.load(name)
        label = f"measuring {name} ({number} of {len(models)})"
        with tqdm(total=1, desc=label, bar_format="{desc}, {elapsed}", disable=not options["progress"]):
            row = shortgpt.compare({name: model}, tokenizer, **options)
        del model
        yield row, len(tokenizer)


def for_people(table: pd.DataFrame) -> str:
    """A column for each model; counts as whole numbers."""
    text = table.astype(object)
    for name in table:
        text[name] = [f"{value:,.0f}" if name in _COUNTS else f"{value:,.2f}" for value in table[name]]
    return text.T.to_string()
