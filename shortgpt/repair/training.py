"""The loop of `distilling`: read, compare with the teacher, step; measure now and then; keep the best.

A step's samples, learning rate and all follow from its number alone, so that a run that was killed and goes on gives the
very numbers of one that was not. What ends a run early (Ctrl-C, a loss that is no number, a full disk) leaves the best
weights so far.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import reduce
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from shortgpt.model.anatomy import decoder_layers
from shortgpt.model.hooks import eval_mode
from shortgpt.model.logits import cross_entropy
from shortgpt.model.offload import input_device
from shortgpt.repair.objective import answer_divergence, answers_and_states, state_error
from shortgpt.utils.atomic import file_written_beside
from shortgpt.utils.distributed import this_process

WARM_UP, LAST_RATE = 0.05, 0.1  # share of the steps; the last learning rate, as a share of the highest
LONGEST_STEP = 1.0  # gradients are cut to this norm
STATE_FILE = "state.pt"


@dataclass
class Run:
    """A training run: what it works with, and how far it is."""

    student: PreTrainedModel
    teacher: PreTrainedModel
    depths: dict[int, int]
    samples: Tensor  # [samples, length], to train on
    held: Tensor  # to measure on
    settings: dict[str, Any]
    folder: Path | None
    report: Callable[[dict[str, float]], None] | None
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)  # since the last measurement
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rank, self.world = this_process()
        self.device = input_device(self.student)
        self.optimizer = torch.optim.AdamW(self.weights().values(), betas=(0.9, 0.95), weight_decay=0.0)
        # several processes: gradients are averaged behind the scenes
        self.wrapped = nn.parallel.DistributedDataParallel(self.student) if self.world > 1 else self.student
        self.per_step = self.settings["batch_size"] * self.samples.shape[1]
        self.steps = math.ceil(self.settings["tokens"] / self.per_step)

    def weights(self) -> dict[str, nn.Parameter]:
        """What is trained."""
        return {name: weight for name, weight in self.student.named_parameters() if weight.requires_grad}

    @property
    def best_row(self) -> dict[str, float]:
        return min(self.history, key=lambda row: row["divergence"])


def train(run: Run, *, progress: bool) -> str:
    """Train to the end, or say in a sentence what ended it early. `run.best` holds the best weights either way."""
    due = {round(run.steps * (i + 1) / run.settings["evaluations"]) for i in range(run.settings["evaluations"])}
    bar = tqdm(
        total=run.steps * run.per_step,
        initial=run.step * run.per_step,
        desc="healing",
        unit="token",
        unit_scale=True,
        disable=not progress or run.rank > 0,
    )
    with eval_mode(run.teacher), _without_dropout(run), bar:
        try:
            if not run.history:
                _measure(run)
            while run.step < run.steps:
                start = time.perf_counter()
                run.losses.append(_one_step(run))
                run.seconds += time.perf_counter() - start
                run.step += 1
                bar.update(run.per_step)
                bar.set_postfix(loss=f"{run.losses[-1]:.3f}", refresh=False)
                if not math.isfinite(run.losses[-1]) or (run.step in due and not _measure(run)):
                    return "the loss is no number any more: lower learning_rate"
        except KeyboardInterrupt:
            if run.world > 1:  # the others wait for this one
                raise
            return "interrupted"
        except OSError as error:
            return str(error.strerror or error)
    return ""


@contextmanager
def _without_dropout(run: Run) -> Iterator[None]:
    """The student answers as it will later. Layers are told that they train, for else they keep all they compute."""
    with eval_mode(run.student):
        if run.settings["checkpointing"]:
            run.student.gradient_checkpointing_enable({"use_reentrant": False})
            for layer in decoder_layers(run.student):
                layer.training = True  # itself, not its parts
        try:
            yield
        finally:
            if run.settings["checkpointing"]:
                run.student.gradient_checkpointing_disable()


def _one_step(run: Run) -> float:
    """Change the weights by one step; the loss before it, mean over all processes."""
    rows = step_rows(len(run.samples), run.step, run.settings["batch_size"], run.settings["seed"])
    parts = run.samples[rows[run.rank :: run.world]].split(run.settings["at_once"])
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(run.step, run.steps, run.settings["learning_rate"])
    total = torch.zeros((), device=run.device)
    for i, part in enumerate(parts):
        waits = run.wrapped.no_sync() if run.world > 1 and i + 1 < len(parts) else nullcontext()  # type: ignore[operator]
        with waits:
            loss = _loss(run, part) * (len(part) * run.world / len(rows))
            loss.backward()
        total += loss.detach()
    nn.utils.clip_grad_norm_(run.weights().values(), LONGEST_STEP)
    run.optimizer.step()
    run.optimizer.zero_grad()
    return float(reduce(total, "mean") if run.world > 1 else total)


def step_rows(samples: int, step: int, batch_size: int, seed: int) -> list[int]:
    """Numbers of the samples that a step reads: all come once, in an order of their own, before any comes again."""
    orders: dict[int, list[int]] = {}
    rows = []
    for place in range(step * batch_size, (step + 1) * batch_size):
        turn = place // samples
        if turn not in orders:
            orders[turn] = torch.randperm(
                samples, generator=torch.Generator().manual_seed(seed * 1_000_003 + turn)
            ).tolist()
        rows.append(orders[turn][place % samples])
    return rows


def learning_rate(step: int, steps: int, highest: float) -> float:
    """Rises in the first steps, then falls along a cosine."""
    rising = max(1, round(WARM_UP * steps))
    if step < rising:
        return highest * (step + 1) / rising
    return highest * (
        LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising))) / 2
    )


def _both(run: Run, ids: Tensor, student: Any) -> tuple[Tensor, Tensor, dict[int, Tensor], dict[int, Tensor]]:
    """Logits of student and teacher on the student's device, and their states."""
    half = torch.autocast(run.device.type, torch.bfloat16, enabled=run.settings["bfloat16"])
    with half, torch.no_grad():
        goals, dense = answers_and_states(run.teacher, ids.to(input_device(run.teacher)), set(run.depths.values()))
    with half:
        answers, states = answers_and_states(run.student, ids.to(run.device), set(run.depths), student)
    return answers, goals.to(answers.device), states, dense


def _loss(run: Run, ids: Tensor) -> Tensor:
    answers, goals, states, dense = _both(run, ids, run.wrapped)
    wanted = {name: run.settings[name] for name in ("temperature", "top_k")}
    loss = answer_divergence(answers, goals, **wanted).mean()
    return (
        loss + run.settings["states"] * state_error(states, dense, run.depths).mean()
        if run.settings["states"]
        else loss
    )


@torch.no_grad()
def _measure(run: Run) -> bool:
    """Add a row to the history, keep the best weights and where we are; False if a value is no number."""
    sums = torch.zeros(4, dtype=torch.float64)
    for ids in filter(len, run.held[run.rank :: run.world].split(run.settings["at_once"])):
        answers, goals, states, dense = _both(run, ids, run.student)
        sums[0] += answer_divergence(answers, goals).double().sum().cpu()
        sums[1] += state_error(states, dense, run.depths).double().sum().cpu()
        sums[2] += cross_entropy(answers[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).sum()
        sums[3] += ids.numel()
    if run.world > 1:
        sums = reduce(sums.float().to(run.device), "sum").cpu().double()
    count, (rows, length) = sums[3].item(), run.held.shape
    row = {"step": run.step, "tokens": run.step * run.per_step}
    row["loss"] = sum(run.losses) / len(run.losses) if run.losses else math.nan
    row |= {"divergence": sums[0].item() / count, "states": sums[1].item() / count}
    row["perplexity"] = math.exp(min(sums[2].item() / (rows * (length - 1)), 700))
    row |= {"seconds": run.seconds, "tokens_per_second": row["tokens"] / run.seconds if run.seconds else math.nan}
    run.losses.clear()
    if not math.isfinite(row["divergence"]):
        return False
    if not run.history or row["divergence"] < run.best_row["divergence"]:  # first the weights: Ctrl-C may come any time
        run.best = {name: weight.detach().cpu().clone() for name, weight in run.weights().items()}
    run.history.append(row)
    if run.report is not None and run.rank == 0:
        run.report(row)
    _write_state(run)
    return True


def _write_state(run: Run) -> None:
    if run.folder is None or run.rank > 0:
        return
    run.folder.mkdir(parents=True, exist_ok=True)
    state = {name: getattr(run, name) for name in ("settings", "step", "seconds", "history", "best")}
    state["weights"] = {name: weight.detach() for name, weight in run.weights().items()}
    with file_written_beside(run.folder / STATE_FILE) as beside:
        torch.save(state | {"optimizer": run.optimizer.state_dict()}, beside)


def resume(run: Run) -> None:
    """Go on where the run in `run.folder` was, if there is one.

    Raises:
        ValueError: it is another run.
    """
    file = run.folder / STATE_FILE if run.folder else None
    if file is None or not file.exists():
        return
    state = torch.load(file, map_location="cpu", weights_only=True)
    for name, value in run.settings.items():
        if name != "at_once" and (before := state["settings"].get(name)) != value:
            raise ValueError(
                f"{run.folder} holds a run with {name} {before}, not {value}: call it as before, or name another folder"
            )
    for name in ("step", "seconds", "history", "best"):
        setattr(run, name, state[name])
    put_back(run, state["weights"])
    run.optimizer.load_state_dict(state["optimizer"])


@torch.no_grad()
def put_back(run: Run, weights: dict[str, Tensor]) -> None:
    """Give the student these weights."""
    for name, weight in run.weights().items():
        weight.copy_(weights[name])
