"""One recipe for all twins (`train_twins.py`): which text a step reads, how fast it learns, what decays.

AdamW, windows of 256 tokens, 4 in a step, warm-up over the first tenth, then linearly to zero. With a million tokens, the
shallow twin ends at a validation loss of 6.06 with 32 windows in a step, 5.58 with 16, 5.26 with 8 and 5.01 with 4: so
little text is best read in many small steps. (8 windows at twice the rate: 5.30.)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from shortgpt.checkpoints.twins import WINDOW

BATCH, RATE, WARM_UP, DECAY, CLIP = 4, 2e-3, 0.1, 0.1, 1.0


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
