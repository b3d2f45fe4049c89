"""Is the pruned model still any good? Perplexity, benchmarks, generated text, and one table to compare.

Perplexity (in `likelihood.py`) always moves. Benchmarks are lm-evaluation-harness: the project's own offline tasks
(`OFFLINE_TASKS`, in `data/tasks/`) and every task that the harness knows. Look at both, and at generated text: a model
can keep its multiple-choice accuracy and lose the ability to write.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.arguments import (
    check_count,
    check_counts,
    check_model,
    check_models,
    check_strings,
    check_tokenizer,
    shown,
)
from shortgpt.calibration import data_folder
from shortgpt.capture import eval_mode
from shortgpt.choose import check_indices
from shortgpt.layers import decoder_layers
from shortgpt.likelihood import perplexity
from shortgpt.measurement import size
from shortgpt.placement import input_device
from shortgpt.pruning import remove_layers
from shortgpt.writing import begin_token

OFFLINE_TASKS = tuple(sorted(file.stem for file in (data_folder() / "tasks").glob("*.yaml")))


def removal_sweep(
    model: PreTrainedModel, order: Sequence[int], measure: Callable[[PreTrainedModel], float], counts: Iterable[int]
) -> pd.DataFrame:
    """Remove the first 0, 1, 2, … layers of `order` and `measure` each model: ``removed, layers, value``.

    `counts` are the numbers to try. Each model is a view that shares the weights (see `remove_layers`).

    Raises:
        ValueError: a count below 0, above the length of `order`, or that leaves no layer (before anything is measured).
    """
    depth = len(decoder_layers(model))
    order = check_indices(order, depth, keep_one=False)
    if not callable(measure):
        raise TypeError(f"measure must be a function of a model that returns a number, got {shown(measure)}")
    counts, most = check_counts("counts", counts), min(len(order), depth - 1)
    for n in counts:
        if not 0 <= n <= most:
            raise ValueError(f"counts must be 0 to {most} ({len(order)} of {depth} layers are in the order), got {n}")
    rows = []
    for n in tqdm(counts, desc="removing layers", unit="model"):
        pruned = remove_layers(model, order[:n])
        rows.append(
            {"removed": n, "layers": pruned.config.get_text_config().num_hidden_layers, "value": measure(pruned)}
        )
    return pd.DataFrame(rows)


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str] = OFFLINE_TASKS,
    *,
    limit: int | None = None,
    batch_size: int = 16,
) -> pd.DataFrame:
    """Run benchmark tasks with lm-evaluation-harness.

    Args:
        tasks: names out of `OFFLINE_TASKS`, or any task of the harness (``"hellaswag"``, ``"mmlu"``, …; these fetch
            their data from the Hub).
        limit: only the first items of each task (the offline files are in random order); ``subset`` then says so.

    Returns:
        One row per task and metric: ``task, metric, value, standard_error`` (percent for accuracies), ``chance, items,
        subset``. 100 items have a standard error of up to 5 points: read it before comparing.

    Raises:
        ImportError: the extra ``[eval]`` is missing. ValueError: an unknown task. ConnectionError: no network.
    """
    check_model(model)
    check_tokenizer(tokenizer)
    tasks = [tasks] if isinstance(tasks, str) else check_strings("tasks", tasks)
    limit, batch_size = None if limit is None else check_count("limit", limit), check_count("batch_size", batch_size)
    input_device(model)  # refuses a model without weights
    try:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ImportError("benchmarks need lm-evaluation-harness: pip install 'shortgpt-pruning[eval]'") from error
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns that the model is an object, not a name
    # the harness's own catalogue takes most of a minute to read: leave it out when nothing needs it
    manager = TaskManager(include_defaults=not set(tasks) <= set(OFFLINE_TASKS))
    unknown = [name for name in tasks if name not in OFFLINE_TASKS and name not in manager.all_tasks]
    if unknown or not tasks:
        raise ValueError(
            f"unknown task {', '.join(unknown) or '(none given)'}: offline there are {', '.join(OFFLINE_TASKS)}; "
            "`lm_eval ls tasks` lists the harness's own"
        )
    start = begin_token(tokenizer, "the harness")
    tokenizer = copy.deepcopy(tokenizer)  # the harness gives it a pad token
    options = dict(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=batch_size,
        max_length=1024,
        softmax_dtype="float32",  # in half precision log-probabilities are rounded until answers tie
        prefix_token_id=tokenizer.convert_tokens_to_ids(start),
    )
    try:
        with eval_mode(model):  # the harness leaves it on
            results = lm_eval.simple_evaluate(
                model=HFLM(**options),
                tasks=[_offline_task(name) if name in OFFLINE_TASKS else name for name in tasks],
                task_manager=manager,
                limit=limit,
                log_samples=False,
                bootstrap_iters=100,
            )
    except (ConnectionError, OSError) as error:
        if "connect" in str(error).lower() or "offline" in str(error).lower():
            raise ConnectionError(
                f"the data of {', '.join(tasks)} is on the Hub, which can't be reached: use offline tasks "
                f"({', '.join(OFFLINE_TASKS)}), or connect"
            ) from error
        raise
    return pd.DataFrame(_tidy(results, limit))


def compare(
    models: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    *,
    tasks: Sequence[str] = OFFLINE_TASKS,
    texts: Iterable[str] | None = None,
    limit: int | None = None,
    errors: bool = False,
) -> pd.DataFrame:
    """One row per model, the first being the reference (dense) one.

    Columns: ``layers, parameters, memory_mb`` (10^6 bytes), ``perplexity``, one accuracy in percent per task, their
    ``average``, and ``retention``: that average in percent of the reference's, as in table 2 of the paper. Chance is
    not zero, so retention flatters: compare it with the chance level in `evaluate`'s table.

    ``errors=True`` adds standard errors in points: a column ``<task>_error`` per task, and ``average_error``. They say
    what other items could change. The models answered the same items, so their *difference* is usually surer than two
    such errors suggest; lesson 05 pairs the items to see it.
    """
    models = check_models(models)  # before the first is measured
    texts = None if texts is None else check_strings("texts", texts)
    tasks = [tasks] if isinstance(tasks, str) else check_strings("tasks", tasks)
    limit = None if limit is None else check_count("limit", limit)
    rows = {}
    for name, model in models.items():
        cost = size(model)
        row = {"layers": cost["layers"], "parameters": cost["parameters"], "memory_mb": cost["memory_bytes"] / 1e6}
        row["perplexity"] = perplexity(model, tokenizer, texts)
        if tasks:
            results = evaluate(model, tokenizer, tasks, limit=limit).drop_duplicates("task").set_index("task")
            row |= results["value"].to_dict() | {"average": results["value"].mean()}
            if errors:
                row |= results["standard_error"].add_suffix("_error").to_dict()
                row["average_error"] = float(np.linalg.norm(results["standard_error"])) / len(results)
        rows[name] = row
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
    if tasks:
        table["retention"] = 100 * table["average"] / table["average"].iloc[0]
    return table


def _offline_task(name: str) -> dict:
    """The task's definition with the data file's absolute path: the harness resolves paths from the working folder."""
    import yaml

    folder = data_folder() / "tasks"
    definition = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    definition["dataset_kwargs"] = {"data_files": {"test": str(folder / f"{name}.jsonl")}}
    return definition


def _tidy(results: dict, limit: int | None) -> Iterable[dict]:
    for task, metrics in results["results"].items():
        items = results["n-samples"].get(task, {})
        for key, value in metrics.items():
            metric, _, _ = key.partition(",")
            if not isinstance(value, float) or metric.endswith("_stderr"):
                continue
            error = metrics.get(key.replace(metric, f"{metric}_stderr", 1))
            scale = 100 if metric.startswith(("acc", "exact", "f1")) else 1
            yield {
                "task": task,
                "metric": metric,
                "value": scale * value,
                "standard_error": scale * error if isinstance(error, float) else np.nan,
                "chance": (results["configs"].get(task, {}).get("metadata") or {}).get("chance", np.nan),
                "items": items.get("effective"),
                "subset": bool(limit) and items.get("effective") != items.get("original"),
            }
