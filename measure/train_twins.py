"""Train the twins: small models that differ in one thing only (kinds and sizes: `shortgpt/checkpoints/twins.py`).

``python measure/train_twins.py [KIND-SEED …] --tokens 8e6`` trains those named, or seed 0 of every kind, then 1, then 2. A
twin that is finished is left as it is. The text is made by ``python measure/twin_text.py``. The state is kept in
build/twins/state/ every minute: whenever this is stopped, the same command goes on, and ends with the same weights. Seed 0
goes to data/twins/ (which is committed), the other seeds to build/twins/; losses of all to data/twins/losses.csv. All 24 take
about 11 hours on two cores with AVX-512 that have nothing else to do (estimated from the tokens a second of a few steps).

One recipe for all: AdamW, windows of 256 tokens, 32 in a step, warm-up over the first tenth, then linearly to zero.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from rows import Rows
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedConfig, PreTrainedModel
from twin_kinds import build, dropped, folded, quick

from shortgpt import decoder_layers
from shortgpt.checkpoints.gguf import sha256_of
from shortgpt.checkpoints.twins import KINDS, VOCABULARY, WINDOW, split_name
from shortgpt.utils.atomic import file_written_beside, written_beside

DATA = Path(__file__).parents[1] / "data"
SEEDS, SHIPPED = (0, 1, 2), (0,)
BATCH, RATE, WARM_UP, DECAY, CLIP = 32, 2e-3, 0.1, 0.1, 1.0
SAVE_SECONDS, NOTE_STEPS, GLANCE = (
    60,
    50,
    64,
)  # how often the state is kept; losses noted; windows of a look at validation


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

    @property
    def name(self) -> str:
        return f"twin-{self.kind}-{self.seed}"

    @property
    def folder(self) -> Path:
        return (self.data if self.seed in SHIPPED else self.build) / self.name


def windows(tokens: np.ndarray, seed: int, step: int, batch: int) -> Tensor:
    """The windows of one step, ``[batch, WINDOW + 1]``: a function of seed and step only, the same for all kinds."""
    whole = (len(tokens) - 1) // WINDOW
    rows: list[int] = []
    for number in range(step * batch, (step + 1) * batch):
        reading, place = divmod(number, whole)
        rows.append(WINDOW * _order(whole, seed, reading)[place])
    return torch.from_numpy(np.stack([tokens[start : start + WINDOW + 1] for start in rows]).astype(np.int64))


_ORDERS: dict[tuple[int, int, int], np.ndarray] = {}


def _order(whole: int, seed: int, reading: int) -> np.ndarray:
    key = (whole, seed, reading)
    if key not in _ORDERS:
        _ORDERS.clear()
        _ORDERS[key] = np.random.default_rng([seed, reading]).permutation(whole)
    return _ORDERS[key]


def rate(step: int, steps: int) -> float:
    """Learning rate: up from zero over the first tenth, then in a straight line to zero."""
    warm = max(1, round(WARM_UP * steps))
    return RATE * min((step + 1) / warm, (steps - step) / max(1, steps - warm))


def optimizer_of(model: PreTrainedModel) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices, and none on norms, biases, decays and embeddings."""
    embedding = model.get_input_embeddings().weight
    matrices = [p for p in model.parameters() if p.ndim == 2 and p is not embedding]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95), fused=True)


def loss_of(model: PreTrainedModel, ids: Tensor) -> Tensor:
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())


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
    model = build(run.kind, run.seed, run.config).to(run.device)
    optimizer, kept = optimizer_of(model), run.build / "state" / f"{run.name}.pt"
    first, total = _restore(run, model, optimizer, kept)
    rows = Rows(run.data / "losses.csv", ["kind", "seed", "step"])
    if run.compiled:
        for layer in decoder_layers(model):
            layer.compile()
    saved = time.monotonic()
    with quick(), tqdm(total=run.steps, initial=first, desc=run.name, unit="step") as bar:
        for step in range(first, run.steps):
            loss = _step(run, model, optimizer, step)
            if not math.isfinite(loss):
                print(f"{run.name}: the loss of step {step} is not a number; given up", file=sys.stderr)
                return False
            total, bar.postfix = total + loss, f"loss {loss:.3f}"
            bar.update()
            done = step + 1
            if done % NOTE_STEPS == 0 or done == run.steps:
                _note(run, rows, model, done, total / ((done - 1) % NOTE_STEPS + 1))
                total = 0.0
            if time.monotonic() - saved > SAVE_SECONDS or done == run.steps:
                _keep(run, model, optimizer, kept, done, total)
                saved = time.monotonic()
        _finish(run, model, rows)
    kept.unlink()
    return True


def _step(run: Run, model: PreTrainedModel, optimizer: torch.optim.AdamW, step: int) -> float:
    ids = windows(run.train, run.seed, step, run.batch).to(run.device)
    for group in optimizer.param_groups:
        group["lr"] = rate(step, run.steps)
    with dropped(model, run.kind, run.seed, step), torch.autocast(run.device.partition(":")[0], torch.bfloat16):
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


def _note(run: Run, rows: Rows, model: PreTrainedModel, step: int, loss: float) -> None:
    row = {"kind": run.kind, "seed": run.seed, "step": step, "tokens": step * run.batch * WINDOW, "loss": loss}
    if row not in rows:
        run.data.mkdir(parents=True, exist_ok=True)
        rows.add(row | {"validation": validation_loss(model, run.validation, run.device, GLANCE)})


def _finish(run: Run, model: PreTrainedModel, rows: Rows) -> None:
    """Write the twin in float16, and note the loss on all validation text that the written weights have."""
    whole = validation_loss(model, run.validation, run.device)
    half = folded(model).to("cpu").half()
    with written_beside(run.folder, overwrite=True) as new:
        half.save_pretrained(new)
    written = validation_loss(half.float(), run.validation, "cpu")
    last = {"kind": run.kind, "seed": run.seed, "step": run.steps}
    next(row for row in rows.rows if row.items() >= last.items()).update(final=written)
    rows.add()
    print(f"{run.name}: validation loss {whole:.4f}, in float16 {written:.4f}", file=sys.stderr)
    print(f'    "{run.name}": "{sha256_of(run.folder / "model.safetensors")}",', flush=True)


def main() -> None:
    every = [f"{kind}-{seed}" for seed in SEEDS for kind in KINDS]
    parser = argparse.ArgumentParser(description="Train the twins.")
    parser.add_argument("twins", nargs="*", metavar="KIND-SEED", help=f"for instance mamba-0; all: {' '.join(every)}")
    parser.add_argument("--tokens", type=float, default=8e6, help="tokens of training text for each (8e6)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    how = "torch.compile the layers: half as fast again; needs a C++ compiler on the CPU"
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help=how)
    asked = parser.parse_args()
    data, kept = DATA / "twins", DATA.parent / "build" / "twins"
    texts = {part: kept / f"{part}.npy" for part in ("train", "validation")}
    if missing := [str(file) for file in texts.values() if not file.exists()]:
        sys.exit(f"{' and '.join(missing)} not there: make the text first, with python measure/twin_text.py")
    text = {part: np.load(file, mmap_mode="r") for part, file in texts.items()}
    if int(max(part.max() for part in text.values())) >= VOCABULARY:
        sys.exit(
            f"build/twins/ holds token ids beyond {VOCABULARY - 1}: make the text again, with measure/twin_text.py"
        )
    for name in asked.twins or every:
        kind, seed = split_name(name)
        steps = round(asked.tokens / (BATCH * WINDOW))
        where: dict[str, Any] = {"data": data, "build": kept, "device": asked.device, "compiled": asked.compile}
        run = Run(kind, seed, steps, text["train"], text["validation"], **where)
        if not (run.folder / "model.safetensors").exists():
            train(run)


if __name__ == "__main__":
    main()
