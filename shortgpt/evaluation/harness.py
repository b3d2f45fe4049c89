"""One benchmark through lm-evaluation-harness: which task file, which settings, and its results as tidy rows.

What `evaluate` needs of the harness, and nothing that a user calls. The harness is an extra, so it is imported inside.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import logging
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.evaluation.benchmarks import BENCHMARKS, task_folders
from shortgpt.model.hooks import eval_mode, numbers_only
from shortgpt.model.offload import input_device
from shortgpt.model.tokens import begin_token, begin_tokens
from shortgpt.utils.data import data_folder

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

OFFLINE_TASKS = tuple(sorted(file.stem for file in (data_folder() / "tasks").glob("*.yaml")))
CPU_BATCH = 16


def manager_of(tasks: Sequence[str]) -> TaskManager:
    """The harness's task index, no larger than `tasks` need: its whole catalogue takes most of a minute to read.

    Raises:
        ImportError: the extra ``[eval]`` is missing. ValueError: an unknown task.
    """
    try:
        import lm_eval.models.huggingface  # noqa: F401  (needs the extra's own extras)
    except ImportError as error:
        raise ImportError("benchmarks need lm-evaluation-harness: pip install 'shortgpt-pruning[eval]'") from error
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns that the model is an object, not a name
    ours = [BENCHMARKS[name] for name in tasks if name in BENCHMARKS]
    others = [name for name in tasks if name not in OFFLINE_TASKS and name not in BENCHMARKS]
    manager = _index(tuple(task_folders([] if others else ours)), bool(others))
    if any(each.task not in manager.all_tasks for each in ours):  # another version keeps them elsewhere
        manager = _index(tuple(task_folders([])), True)
    unknown = [name for name in others if name not in manager.all_tasks]
    if unknown or not tasks:
        raise ValueError(
            f"unknown task {', '.join(unknown) or '(none given)'}: offline there are {', '.join(OFFLINE_TASKS)}; "
            "`lm_eval ls tasks` lists the harness's own"
        )
    return manager


@functools.lru_cache(maxsize=2)  # a table of several models asks for the same one again and again
def _index(folders: tuple[str, ...], whole_catalogue: bool) -> TaskManager:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=list(folders), include_defaults=whole_catalogue)


def run_task(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    manager: TaskManager,
    *,
    limit: int | None,
    batch_size: int | str,
    shots: int | None,
    seed: int,
    bos: bool | None,
    progress: bool,
) -> list[dict]:
    """The rows of `evaluate` for one task. The global random state is left as it was, though the harness seeds it."""
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM

    start = begin_token(tokenizer, "the harness")
    tokenizer = _beginning(copy.deepcopy(tokenizer), bos)  # a copy: the harness gives it a pad token
    most, benchmark = context(model, name), BENCHMARKS.get(name)
    # the harness asks pip and git about the machine, a second for every task (outside a repository git complains on
    # standard error), and leaves the model in eval mode
    no_report = mock.patch.multiple(evaluator, add_env_info=mock.DEFAULT, get_git_commit_hash=mock.DEFAULT, create=True)
    with eval_mode(model), numbers_only(model), _random_state(), _bars(progress), _count_cuts(name, most), no_report:
        lm = HFLM(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=_batch_size(model, batch_size),
            max_length=most,
            softmax_dtype="float32",  # in half precision log-probabilities are rounded until answers tie
            prefix_token_id=tokenizer.convert_tokens_to_ids(start),
            add_bos_token=bool(
                begin_tokens(tokenizer)
            ),  # said, because versions of the harness differ in what they assume
        )
        if model._is_stateful:  # states may run through the pads that stand before the shorter prompts of a batch
            lm.generate_until = functools.partial(_one_by_one, lm, lm.generate_until)
        results = evaluator.simple_evaluate(
            model=lm,
            tasks=[_offline_task(name) if name in OFFLINE_TASKS else benchmark.task if benchmark else name],
            task_manager=manager,
            num_fewshot=benchmark.shots if shots is None and benchmark else shots,
            limit=limit,
            log_samples=True,  # to count the choices
            bootstrap_iters=100,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    return list(_tidy(results, name, limit))


def _beginning(tokenizer: PreTrainedTokenizerBase, bos: bool | None) -> PreTrainedTokenizerBase:
    """`tokenizer`, changed so that it puts in front of texts itself what `bos` asks for: the harness lets it do that."""
    wanted = begin_tokens(tokenizer, bos)
    if bos is not None and wanted != begin_tokens(tokenizer):
        tokenizer.add_bos_token = bos
        if wanted != begin_tokens(tokenizer):
            raise ValueError(f"this {type(tokenizer).__name__} can't be told to begin texts otherwise: leave that out")
    return tokenizer


def definition_of(name: str) -> str:
    """What a task's result depends on besides the model: a hash of our own files, or the harness's version."""
    from importlib.metadata import version

    benchmark = BENCHMARKS.get(name)
    if name in OFFLINE_TASKS:
        files = [data_folder() / "tasks" / f"{name}.{ending}" for ending in ("yaml", "jsonl")]
    elif benchmark and not benchmark.folder:
        files = sorted((data_folder() / "tasks_paper").glob("*.*"))
    else:
        files = []
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]
    settings = f" {benchmark.metric} {benchmark.shots}" if benchmark else ""
    return f"lm_eval {version('lm_eval')}{settings}" + (f" {digest}" if files else "")


def context(model: PreTrainedModel, name: str) -> int:
    """Tokens of a prompt at most; what stands before is cut off. Five worked examples of MMLU can be 3,000 tokens."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return 1024 if name in OFFLINE_TASKS else min(4096, positions or 4096)


def _batch_size(model: PreTrainedModel, batch_size: int | str) -> int | str:
    """``"auto"`` is the harness's search, which halves from 64 until the memory of a GPU suffices. On a CPU it would run
    64 full-length prompts five times over, and too much memory ends the process instead of being noticed: there, a fixed
    number."""
    return CPU_BATCH if batch_size == "auto" and input_device(model).type != "cuda" else batch_size


def _one_by_one(lm: HFLM, write: Callable[..., list[str]], requests: list, **options: object) -> list[str]:
    with mock.patch.object(lm, "batch_size_per_gpu", 1):
        return write(requests, **options)


def _offline_task(name: str) -> dict:
    """The task's definition with the data file's absolute path: the harness resolves paths from the working folder."""
    import yaml

    folder = data_folder() / "tasks"
    definition = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    definition["dataset_kwargs"] = {"data_files": {"test": str(folder / f"{name}.jsonl")}}
    return definition


def _tidy(results: dict, name: str, limit: int | None) -> Iterator[dict]:
    """A row per task and metric; of a benchmark of the paper only its total, the paper's metric first."""
    paper = BENCHMARKS.get(name)
    counts = results["n-samples"]
    for task, metrics in results["results"].items():
        if paper and task != paper.task:
            continue
        parts = list(counts) if paper else [part for part in (task,) if part in counts]  # subjects, or the task
        items = sum(counts[part]["effective"] for part in parts) if parts else None
        whole = sum(counts[part]["original"] for part in parts) if parts else None
        known = (results["configs"].get(task, {}).get("metadata") or {}).get("chance")
        if known is None:
            known = _chance([each for part in parts for each in results["samples"].get(part, [])])
        if known is None:
            known = paper.chance if paper else np.nan
        rows = []
        for key, value in metrics.items():
            metric, _, _ = key.partition(",")
            if not isinstance(value, float) or metric.endswith("_stderr"):
                continue
            error = metrics.get(key.replace(metric, f"{metric}_stderr", 1))
            scale = 100 if metric.startswith(("acc", "exact", "f1", "rouge")) else 1
            rows.append(
                {
                    "task": name if paper else task,
                    "metric": metric,
                    "value": scale * value,
                    "standard_error": scale * error if isinstance(error, float) else np.nan,
                    "chance": known,
                    "items": items,
                    "subset": bool(limit) and items != whole,
                }
            )
        yield from sorted(rows, key=lambda row: paper is not None and row["metric"] != paper.metric)


def _chance(samples: list[dict]) -> float | None:
    """Percent right when guessing among each item's choices; None if there are no choices."""
    choices = [len(each["arguments"]) for each in samples]
    return 100 * float(np.mean([1 / n for n in choices])) if choices and min(choices) > 1 else None


@contextmanager
def _random_state() -> Iterator[None]:
    ours, numpys = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(ours)
            np.random.set_state(numpys)


@contextmanager
def _bars(progress: bool) -> Iterator[None]:
    """Of the harness's bars only the one that counts requests, or none: it draws one more for each of 67 subjects."""
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("lm_eval.")]
    with ExitStack() as stack:
        for module in modules:
            if callable(getattr(module, "tqdm", None)) and not (
                progress and module.__name__.startswith("lm_eval.models")
            ):
                quiet = lambda *args, bar=module.tqdm, **options: bar(*args, **options | {"disable": True})  # noqa: E731
                stack.enter_context(mock.patch.object(module, "tqdm", quiet))
        yield


@contextmanager
def _count_cuts(name: str, most: int) -> Iterator[None]:
    """Warn once if prompts were cut off, which the harness logs for each and we keep from the screen."""
    logger, cuts = logging.getLogger("lm_eval.models.huggingface"), []
    handler = logging.Handler()
    handler.emit = lambda record: cuts.append(1) if "runcat" in record.getMessage() else None
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
    if cuts:
        warnings.warn(
            f"{name}: {len(cuts)} prompts had more than {most} tokens, so their beginning was cut off", stacklevel=4
        )
