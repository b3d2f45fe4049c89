"""Train the twins: small models that differ in one thing only (kinds and sizes: `shortgpt/checkpoints/twins.py`).

``python measure/train_twins.py [KIND-SEED …] --tokens 5e6`` trains those named, or seed 0 of every kind, then 1, then 2. A
twin that is finished is left as it is. The text is made by ``python measure/twin_text.py``. The state is kept in
build/twins/state/ every minute: whenever this is stopped, the same command goes on, and ends with the same weights. Seed 0
goes to data/twins/ (which is committed), the other seeds to build/twins/; losses of all to data/twins/losses.csv. With
``--jobs 2`` two are trained side by side, the quickest way on two cores: all 27 take about 7 hours with AVX-512 and AMX
(products in bfloat16), and three times that with AVX2 (in float32); estimated from the tokens a second of a few steps.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from rows import Rows
from torch import Tensor
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from twin_kinds import build, dropped, folded, quick
from twin_recipe import BATCH, CLIP, optimizer_of, rate, windows

from shortgpt import decoder_layers
from shortgpt.checkpoints.gguf import sha256_of
from shortgpt.checkpoints.twins import KINDS, VOCABULARY, WINDOW, split_name
from shortgpt.utils.atomic import file_written_beside, written_beside

DATA = Path(__file__).parents[1] / "data"
SEEDS, SHIPPED = (0, 1, 2), (0,)
SAVE_SECONDS, NOTE_STEPS = 60, 100  # how often the state is kept; losses noted
MEMORY = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=2147483648"
GLANCE = 32  # windows of a look at validation


class Run(NamedTuple):
    """What is trained, on what, and where it goes."""

    kind: str
    seed: int
    steps: int
    train: np.ndarray  # token ids, one document after another
    validation: np.ndarray
    data: Path  # of losses.csv and shipped twins
    build: Path  # of the state, and of the other twins
    device: str = "cpu"
    batch: int = BATCH
    config: PreTrainedConfig | None = None  # instead of the kind's own
    compiled: bool = False
    start: Path | None = None  # a trained twin to go on from

    @property
    def name(self) -> str:
        return f"twin-{self.kind}-{self.seed}"

    @property
    def folder(self) -> Path:
        return (self.data if self.seed in SHIPPED else self.build) / self.name


def loss_of(model: PreTrainedModel, ids: Tensor) -> Tensor:
    return _mean_loss(model(input_ids=ids[:, :-1], use_cache=False).logits, ids[:, 1:])


@torch.compile(dynamic=False)
def _mean_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    return F.cross_entropy(logits.float().flatten(0, 1), wanted.flatten())


@torch.no_grad()
def validation_loss(model: PreTrainedModel, tokens: np.ndarray, device: str, most: int | None = None) -> float:
    """Mean loss a token over the first `most` windows of `tokens` (None: all): in eval mode, float32, nothing compiled."""
    whole = (len(tokens) - 1) // WINDOW
    starts, losses = [WINDOW * i for i in range(whole)][:most], []
    model.eval()
    for begin in range(0, len(starts), BATCH):
        rows = np.stack([tokens[s : s + WINDOW + 1] for s in starts[begin : begin + BATCH]]).astype(np.int64)
        with torch.compiler.set_stance("force_eager"):
            losses.append(loss_of(model, torch.from_numpy(rows).to(device)).item() * len(rows))
    model.train()
    return sum(losses) / len(starts)


def train(run: Run) -> bool:
    """Train one twin from where it stood; whether that ended well (False: the loss is not a number any more)."""
    model = build(run.kind, run.seed, run.config)
    if run.start:
        model.load_state_dict(AutoModelForCausalLM.from_pretrained(run.start, dtype=torch.float32).state_dict())
    model = model.to(run.device)
    optimizer, kept = optimizer_of(model), run.build / "state" / f"{run.name}.pt"
    first, total = _restore(run, model, optimizer, kept)
    for layer in decoder_layers(model):
        layer.compile(dynamic=False)
    saved, how = time.monotonic(), "default" if run.compiled else "force_eager"
    with (
        torch.compiler.set_stance(how),
        quick(),
        tqdm(total=run.steps, initial=first, desc=run.name, unit="step") as bar,
    ):
        for step in range(first, run.steps):
            loss = _step(run, model, optimizer, step)
            if not math.isfinite(loss):
                print(f"{run.name}: the loss of step {step} is not a number; given up", file=sys.stderr)
                return False
            total, bar.postfix = total + loss, f"loss {loss:.3f}"
            bar.update()
            done = step + 1
            if done % NOTE_STEPS == 0 or done == run.steps:
                _note(run, model, done, total / ((done - 1) % NOTE_STEPS + 1))
                total = 0.0
            if time.monotonic() - saved > SAVE_SECONDS or done == run.steps:
                _keep(run, model, optimizer, kept, done, total)
                saved = time.monotonic()
        _finish(run, model)
    kept.unlink()
    return True


@cache
def quick_bfloat16(device: torch.device) -> bool:
    """Whether products are computed in bfloat16: a processor without instructions for that takes eight times as long."""
    return device.type != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _step(run: Run, model: PreTrainedModel, optimizer: torch.optim.AdamW, step: int) -> float:
    ids = windows(run.train, run.seed, step, run.batch).to(run.device)
    for group in optimizer.param_groups:
        group["lr"] = rate(step, run.steps)
    with dropped(model, run.kind, run.seed, step):
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=quick_bfloat16(ids.device)):
            loss = loss_of(model, ids)
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def _restore(run: Run, model: PreTrainedModel, optimizer: torch.optim.AdamW, kept: Path) -> tuple[int, float]:
    """Number of steps that are done, and the sum of losses that is not noted yet."""
    if not kept.exists():
        return 0, 0.0
    state = torch.load(kept, map_location=run.device, weights_only=True)
    if (state["steps"], state["batch"]) != (run.steps, run.batch):
        sys.exit(
            f"{kept} is of a run of {state['steps']} steps of {state['batch']} windows, and not {run.steps} of "
            f"{run.batch}: ask for the same again, or remove that file to begin anew"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["total"]


def _keep(run: Run, model: PreTrainedModel, optimizer: torch.optim.AdamW, kept: Path, step: int, total: float) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "total": total}
    kept.parent.mkdir(parents=True, exist_ok=True)
    with file_written_beside(kept) as beside:
        torch.save(state | {"steps": run.steps, "batch": run.batch}, beside)


@contextmanager
def _losses(run: Run) -> Iterator[Rows]:
    """The table of all losses as it is now; while open, no other process changes it."""
    for folder in (run.data, run.build):
        folder.mkdir(parents=True, exist_ok=True)
    with FileLock(run.build / "losses.lock"):
        yield Rows(run.data / "losses.csv", ["kind", "seed", "step"])


def _note(run: Run, model: PreTrainedModel, step: int, loss: float) -> None:
    row = {"kind": run.kind, "seed": run.seed, "step": step, "tokens": step * run.batch * WINDOW, "loss": loss}
    row["validation"] = validation_loss(model, run.validation, run.device, GLANCE)
    with _losses(run) as rows:
        if row not in rows:
            rows.add(row)


def _finish(run: Run, model: PreTrainedModel) -> None:
    """Write the twin in float16, and note the loss on all validation text that the written weights have."""
    whole = validation_loss(model, run.validation, run.device)
    half = folded(model).to("cpu").half()
    with written_beside(run.folder, overwrite=True) as new:
        half.save_pretrained(new)
    written = validation_loss(half.float(), run.validation, "cpu")
    last = {"kind": run.kind, "seed": run.seed, "step": run.steps}
    with _losses(run) as rows:
        next(row for row in rows.rows if row.items() >= last.items()).update(final=written)
        rows.add()
    print(f"{run.name}: validation loss {whole:.4f}, in float16 {written:.4f}", file=sys.stderr)
    print(f'    "{run.name}": "{sha256_of(run.folder / "model.safetensors")}",', flush=True)


def train_all(runs: list[Run], jobs: int) -> None:
    """Train twins, `jobs` of them at a time: each in a process of its own with one thread, if there are several."""
    if jobs == 1:
        for run in runs:
            train(run)
        return
    os.environ.setdefault("GLIBC_TUNABLES", MEMORY)
    alone: dict[str, Any] = {"initializer": torch.set_num_threads, "initargs": (1,)}
    alone["max_tasks_per_child"] = 1  # the second twin of a process takes twice as long a step
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), **alone) as pool:
        list(pool.map(train, runs))


def main() -> None:
    every = [f"{kind}-{seed}" for seed in SEEDS for kind in KINDS]
    parser = argparse.ArgumentParser(description="Train the twins.")
    parser.add_argument("twins", nargs="*", metavar="KIND-SEED", help=f"for instance mamba-0; all: {' '.join(every)}")
    parser.add_argument("--tokens", type=float, default=5e6, help="tokens of training text for each (5e6)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    how = "torch.compile the layers: much faster; needs a C++ compiler on the CPU"
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help=how)
    parser.add_argument(
        "--jobs", type=int, default=1, help="twins trained side by side, one thread each (1: all threads)"
    )
    asked = parser.parse_args()
    data, kept = DATA / "twins", DATA.parent / "build" / "twins"
    texts = {part: kept / f"{part}.npy" for part in ("train", "validation", "practice")}
    if missing := [str(file) for file in texts.values() if not file.exists()]:
        sys.exit(f"{' and '.join(missing)} not there: make the text first, with python measure/twin_text.py")
    text = {part: np.load(file) for part, file in texts.items()}
    if int(max(part.max() for part in text.values())) >= VOCABULARY:
        sys.exit(
            f"build/twins/ holds token ids beyond {VOCABULARY - 1}: make the text again, with measure/twin_text.py"
        )
    runs = []
    for name in asked.twins or every:
        kind, seed = split_name(name)
        steps = round(asked.tokens / (BATCH * WINDOW))
        where: dict[str, Any] = {"data": data, "build": kept, "device": asked.device, "compiled": asked.compile}
        run = Run(kind, seed, steps, text["train"], text["validation"], **where)
        if kind == "practised":
            run = run._replace(train=text["practice"], start=run._replace(kind="pre-norm").folder)
        if run.start and run.start not in [other.folder for other in runs] and not run.start.exists():
            sys.exit(f"{name} goes on from {run.start.name}: name pre-norm-{seed} in front of it")
        if not (run.folder / "model.safetensors").exists():
            runs.append(run)
    train_all(runs, asked.jobs)


if __name__ == "__main__":
    main()
