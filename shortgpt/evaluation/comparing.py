"""Is the pruned model still any good? Perplexity, benchmarks, generated text, and one table to compare.

Perplexity (in `likelihood.py`) always moves. Benchmarks are lm-evaluation-harness: the project's own offline tasks
(`OFFLINE_TASKS`, in `data/tasks/`), the paper's (`benchmarks.py`), and every task that the harness knows. Look at both,
and at generated text: a model can keep its multiple-choice accuracy and lose the ability to write.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.evaluation import records
from shortgpt.evaluation.benchmarks import OFFLINE_TASKS, definition_of, manager_of
from shortgpt.evaluation.cost import size
from shortgpt.evaluation.harness import run_task
from shortgpt.evaluation.likelihood import perplexity
from shortgpt.evaluation.records import fingerprint
from shortgpt.model.arguments import check_model, check_models, check_tokenizer
from shortgpt.model.offload import input_device
from shortgpt.model.tokens import begin_token, begin_tokens
from shortgpt.utils.arguments import check_count, check_path, check_strings


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str] = OFFLINE_TASKS,
    *,
    limit: int | None = None,
    batch_size: int | str = 16,
    shots: int | None = None,
    seed: int = 1234,
    results: str | os.PathLike | None = None,
    bos: bool | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Run benchmark tasks with lm-evaluation-harness.

    >>> evaluate(model, tokenizer)  # offline
    >>> evaluate(model, tokenizer, PAPER_BENCHMARKS, batch_size="auto", results="results.jsonl")  # table 2 of the paper

    Args:
        tasks: names out of `OFFLINE_TASKS`, ``"science_zh"`` (science in Chinese, offline too), names out of
            `PAPER_BENCHMARKS` (see `paper_benchmarks`), or any task of the harness (``"arc_easy"``, ``"winogrande"``, …).
            All but the offline ones fetch their data.
        limit: only the first items of each task (the offline files are in random order); ``subset`` then says so.
        batch_size: prompts at once. ``"auto"``: as many, up to 64, as fit into a GPU's memory; on a CPU 16.
        shots: worked examples in each prompt; None: as many as the benchmark says (those that `paper_benchmarks` states).
        seed: which worked examples are drawn, and in what order.
        results: a file (JSON lines) to which every task's rows are added as soon as it is done. A task that is in there
            for the same model, tokenizer, limit, shots, seed and task definition is read instead of run (`fingerprint`
            says what "the same model" means), so a run that was stopped goes on where it was.
        bos: whether a begin token stands in front of each prompt; None: as the tokenizer itself does it, like `perplexity`.

    Returns:
        One row per task and metric: ``task, metric, value, standard_error`` (percent for accuracies and ROUGE), ``chance``
        (percent), ``items, subset``. 100 items have a standard error of up to 5 points: read it before comparing. A
        benchmark of the paper has the paper's metric first; `mmlu` and `cmmlu` are totals over their subjects.

    Raises:
        ImportError: the extra ``[eval]`` is missing. ValueError: an unknown task; a damaged file of results, which is left
        as it is. ConnectionError: no network. OSError: the disk is full; the file of results has the tasks before.
    """
    check_model(model)
    check_tokenizer(tokenizer)
    input_device(model)  # refuses a model without weights
    tasks, options, file = check_request(
        tokenizer, tasks, limit=limit, batch_size=batch_size, shots=shots, seed=seed, results=results
    )
    manager = manager_of(tasks)
    known = {name: options[name] for name in ("limit", "shots", "seed")}
    if file:
        known["fingerprint"] = fingerprint(model, tokenizer, bos)
    rows = []
    for name in tqdm(tasks, desc="benchmarks", unit="task", disable=not progress):
        key = known | {"asked": name, "definition": definition_of(name)}
        found = records.known(file, key) if file else None
        if found is None:
            with _clear_about_network(name):
                found = run_task(model, tokenizer, name, manager, bos=bos, progress=progress, **options)
            if file:
                records.add(file, key, found)
        rows += found
    return pd.DataFrame(rows)


def check_request(
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    batch_size: int | str = 16,
    shots: int | None = None,
    seed: int = 1234,
    results: str | os.PathLike | None = None,
) -> tuple[list[str], dict, Path | None]:
    """``(tasks, settings of run_task, file of results)``; or what `evaluate` raises, before any work. `tasks` may be none."""
    tasks = [tasks] if isinstance(tasks, str) else check_strings("tasks", tasks)
    options = {
        "limit": None if limit is None else check_count("limit", limit),
        "shots": None if shots is None else check_count("shots", shots, least=0),
        "batch_size": batch_size if batch_size == "auto" else check_count("batch_size", batch_size),
        "seed": check_count("seed", seed, least=0),
    }
    file = None if results is None else check_path(results, "a file")
    if tasks:
        manager_of(tasks)  # refuses an unknown one
        begin_token(tokenizer, "the harness")
    if tasks and file:
        records.read(file)  # refuses a damaged one
    return tasks, options, file


@contextmanager
def _clear_about_network(name: str) -> Iterator[None]:
    try:
        yield
    except (ConnectionError, OSError) as error:
        if any(word in str(error).lower() for word in ("connect", "offline", "unable to find 'http")):
            raise ConnectionError(
                f"the data of {name} is on the network, which can't be reached: use offline tasks "
                f"({', '.join(OFFLINE_TASKS)}), or connect"
            ) from error
        raise


def compare(
    models: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    *,
    tasks: Sequence[str] = OFFLINE_TASKS,
    texts: Iterable[str] | None = None,
    limit: int | None = None,
    batch_size: int | str = 16,
    shots: int | None = None,
    seed: int = 1234,
    results: str | os.PathLike | None = None,
    errors: bool = False,
    bos: bool | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """One row per model, the first being the reference (dense) one.

    Columns: ``layers, parameters, memory_mb`` (10^6 bytes), ``perplexity``, one accuracy in percent per task, their
    ``average``, and ``retention``: that average in percent of the reference's, as in table 2 of the paper. Chance is
    not zero, so retention flatters: compare it with the chance level in `evaluate`'s table. `tasks` to `results`: see
    `evaluate`; all models go to one file of results. `bos` holds for perplexity and tasks alike; `progress` shows bars.

    ``errors=True`` adds standard errors in points: a column ``<task>_error`` per task, and ``average_error``. They say
    what other items could change. The models answered the same items, so their *difference* is usually surer than two
    such errors suggest; lesson 05 pairs the items to see it.

    Raises:
        As `evaluate` does, but before the perplexity of the first model is measured.
    """
    models = check_models(models)  # before the first is measured
    check_tokenizer(tokenizer)
    texts = None if texts is None else check_strings("texts", texts)
    options: dict[str, Any] = dict(limit=limit, batch_size=batch_size, shots=shots, seed=seed, results=results)
    tasks, _, _ = check_request(tokenizer, tasks, **options)
    begin_tokens(tokenizer, bos)  # refuses to force what the tokenizer doesn't have
    rows = {}
    for name, model in models.items():
        cost = size(model)
        row: dict[str, float] = {name: cost[name] for name in ("layers", "parameters")}
        row["memory_mb"] = cost["memory_bytes"] / 1e6
        row["perplexity"] = perplexity(model, tokenizer, texts, bos=bos)
        if tasks:
            row |= _scores(evaluate(model, tokenizer, tasks, bos=bos, progress=progress, **options), errors)
        rows[name] = row
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
    if tasks:
        table["retention"] = 100 * table["average"] / table["average"].iloc[0]
    return table


def _scores(table: pd.DataFrame, errors: bool) -> dict[str, float]:
    """The first metric of each task in a table of `evaluate`, and their average."""
    scores = table.drop_duplicates("task").set_index("task")
    row = scores["value"].to_dict() | {"average": scores["value"].mean()}
    if errors:
        row |= scores["standard_error"].add_suffix("_error").to_dict()
        row["average_error"] = float(np.linalg.norm(scores["standard_error"])) / len(scores)
    return row
