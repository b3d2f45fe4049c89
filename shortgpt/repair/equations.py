"""Ridge regression from sums over tokens, streamed: ``min_D sum_t w_t |r_t - z_t D|^2 + ridge |D|^2``.

Only sums are kept, in float64. One part of the samples is held back: it chooses the ridge, and then all samples are fitted
together. A solution is found in float32 and refined with the float64 sums until nothing changes any more, which gives the
digits of float64 for less time and memory (`fit_bytes`: 4.4 GB for the FFN of a 7B, 26 GB for that of a 70B).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor

RIDGES = (0.01, 0.1, 0.3, 1.0, 3.0)  # times the mean of the diagonal of Z'Z
COLUMNS = 1024  # of D that are solved for at a time
HOLD_BACK = 4  # one sample in so many chooses the ridge
_LOG = logging.getLogger(__name__)
_REFINEMENTS, _SOLVED = 50, 1e-11  # steps at most, and the relative residual to reach

Part = tuple[Tensor, Tensor, Tensor]  # z [tokens, k], residual [tokens, hidden], weight [tokens]


@dataclass
class Equations:
    """Normal equations of ``z D = r``, weighted: sums over tokens, float64, on the CPU."""

    square: Any = 0.0  # Z'Z [k, k], a tensor as soon as there is a token
    cross: Any = 0.0  # Z'R [k, hidden]
    total: Any = 0.0  # sum of |r|^2

    def add(self, z: Tensor, r: Tensor, weight: Tensor) -> None:
        if not isinstance(self.square, Tensor):
            self.square = torch.zeros(z.shape[1], z.shape[1], dtype=torch.float64)
            self.cross = torch.zeros(z.shape[1], r.shape[1], dtype=torch.float64)
        z, r, weight = (some.cpu().double() for some in (z, r, weight))  # not every accelerator has float64
        weighted = z * weight[:, None]
        self.square.addmm_(weighted.T, z)
        self.cross.addmm_(weighted.T, r)
        self.total = self.total + (weight * r.square().sum(-1)).sum()

    def take(self, other: Equations) -> None:
        """Add what `other` has summed up; `other` is empty afterwards, so that no matrix is held for nothing."""
        self.square += other.square
        self.cross += other.cross
        self.total = self.total + other.total
        other.square = other.cross = other.total = 0.0

    def solve(self, ridge: float) -> Tensor:
        """D ``[k, hidden]``; `ridge` is in units of the mean of the diagonal of Z'Z."""
        shift = ridge * self.square.diagonal().mean()
        factor = self.square.float()
        factor.diagonal().add_(shift.float())
        info = torch.zeros((), dtype=torch.int32)
        torch.linalg.cholesky_ex(factor, out=(factor, info))  # in place
        if not info and self._refine(factor, shift, solution := torch.zeros_like(self.cross)):
            return solution
        del factor  # a ridge that float32 does not see
        square = self.square.clone()
        square.diagonal().add_(shift)
        return torch.cholesky_solve(self.cross, torch.linalg.cholesky(square, out=square))

    def _refine(self, factor: Tensor, shift: Tensor, solution: Tensor) -> bool:
        """Bring `solution` (changed in place, some columns at a time) to the digits of float64; whether it got there."""
        for x, cross in zip(solution.split(COLUMNS, 1), self.cross.split(COLUMNS, 1), strict=True):
            for _ in range(_REFINEMENTS):
                rest = cross - self.square @ x - shift * x
                if rest.norm() <= _SOLVED * cross.norm():
                    break
                x += torch.cholesky_solve(rest.float(), factor)
            else:
                return False
        return True

    def error(self, solution: Tensor) -> float:
        """Sum of |r - z D|^2, without another look at the tokens."""
        pairs = zip(solution.split(COLUMNS, 1), self.cross.split(COLUMNS, 1), strict=True)
        return float(self.total + sum((x * (self.square @ x - 2 * cross)).sum() for x, cross in pairs))


class Regression:
    """Normal equations of samples as they come, some of them apart: those choose the ridge."""

    def __init__(self) -> None:
        self.fitted, self.held, self.samples = Equations(), Equations(), 0

    def add(self, z: Tensor, residual: Tensor, weight: Tensor) -> None:
        """One more sample: ``[tokens, k]``, ``[tokens, hidden]``, ``[tokens]``."""
        if not self.samples:
            _require_memory(z.shape[1], residual.shape[1])
        self.samples += 1
        (self.held if self.samples % HOLD_BACK == 2 else self.fitted).add(z, residual, weight)

    def finish(self) -> tuple[Equations, float]:
        """The equations of all samples, and the ridge with which the held-back ones were predicted best."""
        if self.samples < 2:
            raise ValueError("a fit needs at least two samples of text, one of them to choose the ridge")
        for some in (self.fitted, self.held):
            if not torch.isfinite(some.total) or not torch.isfinite(some.square).all():
                raise ValueError("hidden states hold NaN or infinity")
        best = min(RIDGES, key=lambda ridge: self.held.error(self.fitted.solve(ridge)))
        self.fitted.take(self.held)
        return self.fitted, best


def fit(samples: Iterable[Part]) -> tuple[Tensor, float]:
    """D ``[k, hidden]`` and its ridge, from ``(z, residual, weight)`` of every sample.

    Raises:
        ValueError: NaN or infinity among them, fewer than two samples, or sums that do not fit into memory.
    """
    regression = Regression()
    for part in samples:
        regression.add(*part)
    equations, ridge = regression.finish()
    return equations.solve(ridge), ridge


def fit_bytes(k: int, hidden: int) -> int:
    """Memory that a fit from k inputs to `hidden` outputs needs at its peak, beside the states: two sums, and a factor.

    The factor is float32, but may have to be replaced by one of float64.
    """
    return 8 * (3 * k * k + 3 * k * hidden + 4 * k * min(hidden, COLUMNS))


def _require_memory(k: int, hidden: int) -> None:
    needed, free = fit_bytes(k, hidden), psutil.virtual_memory().available
    if needed > free:
        raise ValueError(
            f"fitting {k:,} inputs needs {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free: use a larger "
            "machine, or kind='linear', which fits only as many inputs as a state is wide"
        )
    _LOG.info("fitting %s inputs: %.1f GB of memory", f"{k:,}", needed / 1e9)
