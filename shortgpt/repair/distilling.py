"""Repair with training: the pruned model learns to answer as the dense one does, and to have its states on the way.

The loss is the divergence of the two models' next-token distributions plus the relative error of the states, matched by
original layer index (`objective`). Start from what `heal` repaired in closed form: training would have to get there first.

The loop is our own, a screen of plain torch (accelerate starts the processes and adds up): transformers' `Trainer` would hide
the two forward passes and the states, which are all there is to see, behind a subclass and callbacks.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.model.adapters import require_no_adapter
from shortgpt.model.anatomy import model_name, original_layers, removed_so_far
from shortgpt.model.arguments import check_ids, check_tokenizer
from shortgpt.model.offload import accelerate_hooks, input_device
from shortgpt.model.view import share_weights
from shortgpt.pruning.repair_record import record_repair
from shortgpt.repair.objective import matching_depths
from shortgpt.repair.reading import split, training_documents, windows
from shortgpt.repair.training import Run, put_back, resume, train
from shortgpt.utils.arguments import check_count, check_number, check_path, check_strings, shown
from shortgpt.utils.distributed import this_process
from shortgpt.utils.quieting import quiet

FULL_RATE, LORA_RATE = 3e-4, 1e-3  # learning rates: of all weights, and of adapters
MOST_HELD = 8_192  # tokens that each measurement reads


def distill(
    pruned: PreTrainedModel,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: str | Path | Iterable[str] | None = None,
    *,
    tokens: int,
    held_back: Iterable[str] | None = None,
    lora: int | None = None,
    learning_rate: float | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    states: float = 1.0,
    length: int = 512,
    batch_size: int = 16,
    at_once: int = 4,
    checkpointing: bool = False,
    evaluations: int = 10,
    folder: str | os.PathLike | None = None,
    seed: int = 0,
    report: Callable[[dict[str, float]], None] | None = None,
    progress: bool = True,
) -> tuple[PreTrainedModel, pd.DataFrame]:
    """Train `pruned` to be like `teacher`: a new model, the best that was measured on the way, and what was measured.

    >>> healed, history = distill(heal(model, plan, batches), model, tokenizer, tokens=1_000_000)

    Args:
        pruned: what `remove_layers` or, better, `heal` made of `teacher`. Neither is changed.
        texts: to train on, as for `calibration_batches`; not what the result is measured on. None: the teacher writes it, as
            many tokens as are read but a million at most; on a CPU this takes longer than to train on them.
        tokens: how much is read in all: the dial. Text that is shorter is read again, in another order.
        held_back: documents that only the measurements read. Default: one document in twenty of the text.
        lora: train adapters of this rank on every linear layer (needs peft), merged at the end; None: all weights.
        learning_rate: the highest. Default: 3e-4, with `lora` 1e-3.
        temperature, top_k: of the answers' divergence, see `objective.answer_divergence`.
        states: weight of the states' error; 0 leaves them out.
        length, batch_size: tokens in a sample, and samples in a step, of all processes together.
        at_once: samples in a forward pass of one process: less memory, same result.
        checkpointing: keep only what enters each layer and compute the rest again: far less memory, a third slower.
        evaluations: how often it is measured and kept, after the first time.
        folder: keep the state there (three times the trained weights in float32, and the best ones): the same call goes on
            with a run that was stopped or killed. Default: nothing is kept.
        report: called with each new row of the history.

    Returns:
        the model, ordinary as `pruned` is and in its dtype, whose configuration records the healing; and the history, a row
        a measurement: ``step, tokens, loss`` (mean since the row before), on held-back text ``divergence`` (nats a token),
        ``states`` (relative squared error) and ``perplexity``, then ``seconds, tokens_per_second, best``. Its
        ``attrs["stopped"]`` says what ended the run early: Ctrl-C, a loss that is no number, a full disk (also a warning).

    Trained weights are float32; on a GPU that has bfloat16, computing is done in that. Memory: both models, and of what is
    trained five copies (gradient, two of the optimizer's, the best). With ``accelerate launch`` each process reads its share.

    Raises:
        ValueError: a teacher that `pruned` was not made of, quantized or spread weights, no text, another run in `folder`,
            a run that ended before anything became better. TypeError: no model, tokenizer or number.
    """
    settings = _checked(
        tokens=tokens,
        lora=lora,
        learning_rate=learning_rate,
        temperature=temperature,
        top_k=top_k,
        states=states,
        length=length,
        batch_size=batch_size,
        at_once=at_once,
        evaluations=evaluations,
        seed=seed,
        checkpointing=checkpointing,
    )
    place = None if folder is None else check_path(folder)
    if report is not None and not callable(report):
        raise TypeError(f"report must be a function of a row, got {shown(report)}")
    depths = _fitting(pruned, teacher, tokenizer)
    own_held = None if held_back is None else check_strings("held_back", held_back)
    if place is not None:
        place.mkdir(parents=True, exist_ok=True)
    documents = training_documents(
        texts, teacher, tokenizer, tokens, length=length, seed=seed, folder=place, progress=progress
    )
    read, held = (documents, own_held) if own_held is not None else split(documents)
    samples, measured = (windows(tokenizer, some, length, seed) for some in (read, held))
    measured = measured[: max(1, MOST_HELD // length)]
    for ids in (samples, measured):
        check_ids(pruned, ids)
    student, wrapper = _student(pruned, lora, seed)
    half = input_device(student).type == "cuda" and torch.cuda.is_bf16_supported()
    settings |= {"bfloat16": half, "teacher": model_name(teacher), "text": _digest(samples, measured)}
    settings["removed"] = list(removed_so_far(pruned))
    run = Run(student, teacher, depths, samples, measured, settings, place, report)
    resume(run)
    stopped = train(run, progress=progress)
    return _finished(run, wrapper, pruned, stopped), _table(run, stopped)


def _checked(**settings: Any) -> dict[str, Any]:
    """The settings, if they are what they should be, with the default learning rate filled in."""
    for name in ("tokens", "length", "batch_size", "at_once", "evaluations"):
        check_count(name, settings[name], least=2 if name == "length" else 1)
    check_count("seed", settings["seed"], least=0)
    for name in ("lora", "top_k"):
        if settings[name] is not None:
            check_count(name, settings[name])
    if settings["learning_rate"] is None:
        settings["learning_rate"] = FULL_RATE if settings["lora"] is None else LORA_RATE
    for name in ("learning_rate", "temperature", "states"):
        value = check_number(name, settings[name])
        if not (value > 0 if name == "temperature" else value >= 0) or value == float("inf"):
            raise ValueError(
                f"{name} must be a finite number {'above' if name == 'temperature' else 'from'} 0, got {value}"
            )
    if not isinstance(settings["checkpointing"], bool):
        raise TypeError(f"checkpointing must be True or False, got {shown(settings['checkpointing'])}")
    if settings["batch_size"] % this_process()[1]:
        raise ValueError(f"batch_size {settings['batch_size']} can't be shared by {this_process()[1]} processes")
    return settings


def _fitting(pruned: PreTrainedModel, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[int, int]:
    """The depths to match, if the three can be brought together."""
    for model in (pruned, teacher):
        require_no_adapter(model, "be healed or teach")
    check_tokenizer(tokenizer)
    input_device(teacher)
    if accelerate_hooks(pruned) or input_device(pruned).type == "meta":
        raise ValueError("the model to heal is spread over devices: load it on one (the teacher may be spread)")
    if getattr(pruned.config, "quantization_config", None) or not all(
        p.is_floating_point() for p in pruned.parameters()
    ):
        raise ValueError("the weights of the model to heal are quantized: heal it first, then quantize it")
    return matching_depths(pruned, teacher)


def _student(pruned: PreTrainedModel, lora: int | None, seed: int) -> tuple[PreTrainedModel, Any]:
    """A copy of `pruned` with weights of its own, ready to be trained; and what peft wrapped it in, if it did."""
    student = share_weights(pruned)
    own = {
        # steps would be lost in the rounding of half precision
        id(weight): nn.Parameter(
            weight.detach().to(torch.float32 if lora is None else weight.dtype, copy=True), lora is None
        )
        for weight in pruned.parameters()
    }
    for module in student.modules():
        for name, weight in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            setattr(module, name, own[id(weight)])  # shared ones stay shared
    if lora is None:
        return student, None
    with torch.random.fork_rng(), quiet("bitsandbytes"), warnings.catch_warnings():  # peft imports it
        warnings.simplefilter("ignore")  # of layers that keep their weights the other way round
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise ImportError("lora needs peft: pip install peft") from error
        torch.manual_seed(seed)
        wrapper = get_peft_model(student, LoraConfig(r=lora, lora_alpha=2 * lora, target_modules="all-linear"))
    return student, wrapper


def _finished(run: Run, wrapper: Any, pruned: PreTrainedModel, stopped: str) -> PreTrainedModel:
    """The student with its best weights, plain again; or an error, if nothing became better."""
    if stopped and (not run.history or run.best_row["step"] == 0):
        raise ValueError(f"{stopped}, and nothing better than the model to heal had been measured by then")
    put_back(run, run.best)
    student = run.student if wrapper is None else wrapper.merge_and_unload()
    for old, new in zip(pruned.parameters(), student.parameters(), strict=True):
        new.grad, new.data = None, new.data.to(old.dtype)
        new.requires_grad_(old.requires_grad)
    for plain, trained in zip(pruned.modules(), student.modules(), strict=True):
        trained.training = plain.training
    if (best := run.best_row)["step"]:
        kind = "all weights" if wrapper is None else f"adapters of rank {run.settings['lora']}"
        samples = best["step"] * run.settings["batch_size"]
        record_repair(
            student.config, "distill", kind, original_layers(student), int(samples), tokens=int(best["tokens"])
        )
    return student


def _table(run: Run, stopped: str) -> pd.DataFrame:
    """The history, and a warning if it ended early."""
    table = pd.DataFrame(run.history)
    best = run.best_row
    table["best"] = table["step"] == best["step"]
    table.attrs["stopped"] = ""
    if stopped:
        again = f"; the same call goes on from {run.folder}" if run.folder else ""
        table.attrs["stopped"] = (
            f"{stopped}: stopped after {run.step * run.per_step:,} of {run.steps * run.per_step:,} tokens; this is the best "
            f"model so far, of {best['tokens']:,} tokens (divergence {best['divergence']:.3f}){again}"
        )
        warnings.warn(table.attrs["stopped"], stacklevel=3)
    return table


def _digest(*ids: Tensor) -> str:
    """Fingerprint of what is read."""
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in ids)).hexdigest()[:16]
