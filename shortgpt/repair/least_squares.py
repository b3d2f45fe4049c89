"""Ridge regression from sums over tokens: ``min_D sum_t w_t |r_t - z_t D|^2 + ridge |D|^2``, in float64, streamed.

One part of the samples is held back: it chooses the ridge, and then all samples are fitted together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGES = (0.01, 0.1, 0.3, 1.0, 3.0)  # times the mean of the diagonal of Z'Z
HOLD_BACK = 4  # one sample in so many chooses the ridge


@dataclass
class Equations:
    """Normal equations of ``z D = r``, weighted: sums over tokens, float64, on the CPU."""

    square: Tensor | float = 0.0  # Z'Z [k, k]
    cross: Tensor | float = 0.0  # Z'R [k, hidden]
    total: Tensor | float = 0.0  # sum of |r|^2

    def add(self, z: Tensor, r: Tensor, weight: Tensor) -> None:
        weighted = z * weight[:, None]
        self.square = self.square + weighted.T @ z
        self.cross = self.cross + weighted.T @ r
        self.total = self.total + (weight * r.square().sum(-1)).sum()

    def __add__(self, other: Equations) -> Equations:
        return Equations(self.square + other.square, self.cross + other.cross, self.total + other.total)

    def solve(self, ridge: float) -> Tensor:
        square = self.square.clone()
        square.diagonal().add_(ridge * square.diagonal().mean())
        return torch.cholesky_solve(self.cross, torch.linalg.cholesky(square))  # [k, hidden]

    def error(self, solution: Tensor) -> float:
        """Sum of |r - z D|^2, without another look at the tokens."""
        return float(self.total - 2 * (self.cross * solution).sum() + (solution * (self.square @ solution)).sum())


def fit(samples: Iterable[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, float]:
    """D ``[k, hidden]`` and its ridge, from ``(z, residual, weight)`` of every sample: ``[tokens, k]``, ``[tokens, hidden]``,
    ``[tokens]``.

    Raises:
        ValueError: NaN or infinity among them, or fewer than two samples.
    """
    fitted, held = Equations(), Equations()
    count = 0
    for count, (z, residual, weight) in enumerate(samples, start=1):
        part = held if count % HOLD_BACK == 2 else fitted
        part.add(z.cpu().double(), residual.cpu().double(), weight.cpu().double())
    if count < 2:
        raise ValueError("a fit needs at least two samples of text, one of them to choose the ridge")
    both = fitted + held
    if not torch.isfinite(both.total) or not torch.isfinite(both.square).all():
        raise ValueError("hidden states hold NaN or infinity")
    best = min(RIDGES, key=lambda ridge: held.error(fitted.solve(ridge)))
    return both.solve(best), best
