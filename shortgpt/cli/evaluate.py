"""`shortgpt eval`: several models in one table."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

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


@Parameter(name="*", group=MEASURES)
@dataclass(frozen=True)
class Running:
    """How benchmarks are run: what `shortgpt.evaluate` takes."""

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
    tasks: Annotated[str, Parameter(group=MEASURES, metavar="LIST")] = "offline",
    running: Running = Running(),
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
        tasks: offline (the five that come along), paper (ShortGPT's thirteen), none, or a list.
    """
    names, documents = _checked(models, tasks, running, texts, loading)
    table, vocabularies = _measured(models, names, documents, running, texts.bos, loading, progress)
    notes = []
    if names:
        table["retention"] = 100 * table["average"] / table["average"].iloc[0]
    if names and running.limit is not None:
        notes.append(
            f"note: a subset, at most {running.limit} items of each task, with a standard error of up to "
            f"{50 / running.limit**0.5:.0f} points each"
        )
    if vocabularies > 1:
        notes.append("note: these models have different tokenizers, so their perplexities do not compare")
    if names and running.results is not None:
        notes.append(f"the results of each task are in {running.results}")
    return Result(table.assign(limit=running.limit).reset_index(), for_people(table), notes)


def _checked(
    models: tuple[str, ...], tasks: str, running: Running, texts: Texts, loading: Loading
) -> tuple[tuple[str, ...], list[str]]:
    """The tasks and the text for perplexity; a misspelt second model should not be found out after minutes with the first."""
    from shortgpt.checkpoints.facts import empty_model
    from shortgpt.evaluation.benchmarks import manager_of

    repeated = [name for name in models if models.count(name) > 1]
    if repeated:
        raise UsageError(f"{repeated[0]} is named twice: name each model once")
    names = tasks_named(tasks)
    if names and importlib.util.find_spec("lm_eval") is None:
        raise ImportError(
            "benchmarks need lm-evaluation-harness: pip install 'shortgpt-pruning[eval]', or --tasks none"
        )
    documents = texts.documents("perplexity")
    if running.results is not None:
        require_writable(running.results)
    for name in models:
        if not name.endswith(".gguf"):
            empty_model(name, **loading.source)
    if names:
        manager_of(names)
    return names, documents


def _measured(
    models: tuple[str, ...],
    tasks: tuple[str, ...],
    documents: list[str],
    running: Running,
    bos: bool | None,
    loading: Loading,
    progress: bool,
) -> tuple[pd.DataFrame, int]:
    """A row for each model, and how many sizes of vocabulary they have. One model is in memory at a time."""
    import pandas as pd
    from tqdm.auto import tqdm

    from shortgpt.evaluation.comparing import compare

    options = asdict(running) | {"bos": bos, "progress": progress}
    tables, vocabularies = [], set()
    for number, name in enumerate(models, start=1):
        model, tokenizer = loading.load(name)
        vocabularies.add(len(tokenizer))
        label = f"measuring {name} ({number} of {len(models)})"
        with tqdm(total=1, desc=label, bar_format="{desc}, {elapsed}", disable=not progress):
            tables.append(compare({name: model}, tokenizer, tasks=tasks, texts=documents, **options))
        del model
    return pd.concat(tables), len(vocabularies)


def tasks_named(text: str) -> tuple[str, ...]:
    """``"offline"``, ``"paper"``, ``"none"`` and names of tasks, separated by commas, to names of tasks, each once."""
    from shortgpt.evaluation.benchmarks import OFFLINE_TASKS, PAPER_BENCHMARKS

    groups = {"offline": OFFLINE_TASKS, "paper": PAPER_BENCHMARKS, "none": ()}
    names = [name.strip() for name in text.split(",")]
    return tuple(dict.fromkeys(task for name in names for task in groups.get(name, (name,))))


def for_people(table: pd.DataFrame) -> str:
    """A column for each model; counts as whole numbers."""
    text = table.astype(object)
    for name in table:
        text[name] = [f"{value:,.0f}" if name in _COUNTS else f"{value:,.2f}" for value in table[name]]
    return text.T.to_string()
