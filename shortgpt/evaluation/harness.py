"""One benchmark through lm-evaluation-harness: with which settings, and its results as tidy rows.

What `evaluate` needs of the harness, and nothing that a user calls. The harness is an extra, so it is imported inside.
"""

from __future__ import annotations

import copy
import logging
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.evaluation.benchmarks import BENCHMARKS, LOCAL_TASKS, offline_task
from shortgpt.model.hooks import eval_mode, numbers_only
from shortgpt.model.offload import input_device
from shortgpt.model.tokens import begin_token, begin_tokens
from shortgpt.utils.quieting import no_data_bars, quiet

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

CPU_BATCH = 16


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

    most, benchmark = context(model, name), BENCHMARKS.get(name)
    with (
        eval_mode(model),  # which the harness turns on and leaves on
        numbers_only(model),
        _random_state(),
        quiet("lm_eval"),  # it warns that the model is an object, not a name
        no_data_bars(progress),
        _count_cuts(name, most),
        _without_report_and_task_bars(),
    ):
        results = evaluator.simple_evaluate(
            model=_wrapped(model, tokenizer, most, batch_size, bos, progress),
            tasks=[offline_task(name) if name in LOCAL_TASKS else benchmark.task if benchmark else name],
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


def _wrapped(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    most: int,
    batch_size: int | str,
    bos: bool | None,
    progress: bool,
) -> HFLM:
    """The model as the harness takes it, for prompts of `most` tokens at most."""
    from lm_eval.models.huggingface import HFLM

    start = begin_token(tokenizer, "the harness")
    tokenizer = _beginning(copy.deepcopy(tokenizer), bos)  # a copy: the harness gives it a pad token
    lm = HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=_batch_size(model, batch_size),
        max_length=most,
        softmax_dtype="float32",  # in half precision log-probabilities are rounded until answers tie
        prefix_token_id=tokenizer.convert_tokens_to_ids(start),
        add_bos_token=bool(begin_tokens(tokenizer)),  # said, because versions of the harness differ in what they assume
    )
    lm._encode_pair = partial(_split, lm, lm._encode_pair)
    if model._is_stateful:  # states may run through the pads that stand before the shorter prompts of a batch
        lm.generate_until = partial(_one_by_one, lm, lm.generate_until)
    for kind in ("loglikelihood", "loglikelihood_rolling", "generate_until"):
        setattr(lm, kind, partial(getattr(lm, kind), disable_tqdm=not progress))
    return lm


def _split(
    lm: HFLM, encode: Callable[[str, str], tuple[list[int], list[int]]], context: str, choice: str
) -> tuple[list[int], list[int]]:
    """Tokens of a prompt and of a choice after it, each on its own where together they share a token.

    The harness cuts the tokens of both at the length of the prompt's. Without a space between them (Chinese) a token may
    reach over the border: then the choice's first token isn't scored, or nothing of it (seen with Qwen and Gemma).
    """
    before, after = encode(context, choice)
    if before + after == lm.tok_encode(context + choice):
        return before, after
    spaces = len(context) - len(context.rstrip())  # the harness counts them to the choice
    return before, lm.tok_encode(context[len(context) - spaces :] + choice, add_special_tokens=False)


def _beginning(tokenizer: PreTrainedTokenizerBase, bos: bool | None) -> PreTrainedTokenizerBase:
    """`tokenizer`, changed so that it puts in front of texts itself what `bos` asks for: the harness lets it do that."""
    wanted = begin_tokens(tokenizer, bos)
    if bos is not None and wanted != begin_tokens(tokenizer):
        tokenizer.add_bos_token = bos
        if wanted != begin_tokens(tokenizer):
            raise ValueError(f"this {type(tokenizer).__name__} can't be told to begin texts otherwise: leave that out")
    return tokenizer


def context(model: PreTrainedModel, name: str) -> int:
    """Tokens of a prompt at most; what stands before is cut off. Five worked examples of MMLU can be 3,000 tokens."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return 1024 if name in LOCAL_TASKS else min(4096, positions or 4096)


def _batch_size(model: PreTrainedModel, batch_size: int | str) -> int | str:
    """``"auto"`` is the harness's search, which halves from 64 until the memory of a GPU suffices. On a CPU it would run
    64 full-length prompts five times over, and too much memory ends the process instead of being noticed: there, a fixed
    number."""
    return CPU_BATCH if batch_size == "auto" and input_device(model).type != "cuda" else batch_size


def _one_by_one(lm: HFLM, write: Callable[..., list[str]], requests: list, **options: object) -> list[str]:
    together, lm.batch_size_per_gpu = lm.batch_size_per_gpu, 1
    try:
        return write(requests, **options)
    finally:
        lm.batch_size_per_gpu = together


def _tidy(results: dict, name: str, limit: int | None) -> Iterator[dict]:
    """A row per task and metric; of a benchmark of the paper only its total, the paper's metric first."""
    paper, counts = BENCHMARKS.get(name), results["n-samples"]
    for task, metrics in results["results"].items():
        if paper and task != paper.task:
            continue
        parts = list(counts) if paper else [part for part in (task,) if part in counts]  # subjects, or the task
        items, whole = (
            sum(counts[part][which] for part in parts) if parts else None for which in ("effective", "original")
        )
        chance = _chance(results, task, parts)
        about = {
            "chance": paper.chance if paper and chance is None else np.nan if chance is None else chance,
            "items": items,
            "subset": bool(limit) and items != whole,
        }
        rows = [{"task": name if paper else task} | row | about for row in _values(metrics)]
        yield from sorted(rows, key=lambda row: paper is not None and row["metric"] != paper.metric)


def _values(metrics: dict) -> Iterator[dict]:
    """``metric, value, standard_error`` of each metric of a task; shares in percent."""
    for key, value in metrics.items():
        metric, _, _ = key.partition(",")
        if not isinstance(value, float) or metric.endswith("_stderr"):
            continue
        error = metrics.get(key.replace(metric, f"{metric}_stderr", 1))
        scale = 100 if metric.startswith(("acc", "exact", "f1", "rouge")) else 1
        error = scale * error if isinstance(error, float) else np.nan
        yield {"metric": metric, "value": scale * value, "standard_error": error}


def _chance(results: dict, task: str, parts: list[str]) -> float | None:
    """Percent right when guessing, as the task says or among each item's choices; None if there are no choices."""
    stated = (results["configs"].get(task, {}).get("metadata") or {}).get("chance")
    choices = [len(each["arguments"]) for part in parts for each in results["samples"].get(part, [])]
    if stated is not None or not choices or min(choices) < 2:
        return stated
    return 100 * float(np.mean([1 / n for n in choices]))


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
def _without_report_and_task_bars() -> Iterator[None]:
    """Replace, for a while, what the harness has no switch for (seen on 0.4.13).

    It draws a bar for every task whose prompts it writes, of which `cmmlu` has 67; it asks pip and git about the machine, a
    second for every task, and outside a repository git complains on standard error. What another version lacks is left.
    """
    from lm_eval import evaluator
    from lm_eval.api import task

    new: dict[tuple[object, str], object] = {(task, "tqdm"): partial(tqdm, disable=True)}
    new |= {(evaluator, name): lambda *args: None for name in ("add_env_info", "get_git_commit_hash")}
    old = {place: getattr(*place) for place in new if hasattr(*place)}
    try:
        for place in old:
            setattr(*place, new[place])
        yield
    finally:
        for place, its in old.items():
            setattr(*place, its)


@contextmanager
def _count_cuts(name: str, most: int) -> Iterator[None]:
    """Warn once if prompts were cut off, which the harness logs for each and we keep from the screen."""
    logger, cuts = logging.getLogger("lm_eval.models.huggingface"), []

    def note(record: logging.LogRecord) -> bool:
        cuts.extend([1] * ("runcat" in record.getMessage()))
        return record.levelno >= logging.ERROR

    level = logger.level
    logger.addFilter(note)
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.removeFilter(note)
        logger.setLevel(level)
    if cuts:
        warnings.warn(
            f"{name}: {len(cuts)} prompts had more than {most} tokens, so their beginning was cut off", stacklevel=4
        )
