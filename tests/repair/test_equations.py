"""The solve: the digits of float64 from a float32 factor, in less memory, and a refusal where it does not fit."""

import logging

import numpy as np
import psutil
import pytest
import torch

from shortgpt.repair import equations
from shortgpt.repair.equations import RIDGES, Equations, fit, fit_bytes


def sums(k=120, hidden=7, tokens=400, spread=6.0, seed=0):
    """Equations of inputs whose lengths differ by many orders, as hidden channels' do."""
    rng = np.random.default_rng(seed)
    scale = 10 ** rng.uniform(-spread / 2, spread / 2, k)
    z = torch.tensor(rng.normal(size=(tokens, k)) * scale)
    r, w = torch.tensor(rng.normal(size=(tokens, hidden))), torch.tensor(rng.uniform(0.1, 2, tokens))
    found = Equations()
    found.add(z[:150], r[:150], w[:150])
    found.add(z[150:], r[150:], w[150:])
    return found, (z, r, w)


def old_solution(some, ridge):
    """As it was: a copy of the sums, factored in float64."""
    square = some.square.clone()
    square.diagonal().add_(ridge * square.diagonal().mean())
    return torch.cholesky_solve(some.cross, torch.linalg.cholesky(square))


@pytest.mark.parametrize("spread", [0, 3, 6, 9])
@pytest.mark.parametrize("ridge", [*RIDGES, 1e-6, 1e-10])
def test_the_solution_is_that_of_float64(ridge, spread, monkeypatch):
    monkeypatch.setattr(equations, "COLUMNS", 3)  # of 7
    some, _ = sums(spread=spread)
    before = some.square.clone()
    found, old = some.solve(ridge), old_solution(some, ridge)
    assert float((found - old).norm()) <= 1e-8 * float(old.norm()) and torch.equal(some.square, before)


def test_no_matrix_is_factored_in_float64_where_float32_and_refinement_do(monkeypatch):
    monkeypatch.setattr(torch.linalg, "cholesky", lambda *_, **__: pytest.fail("factored in float64"))
    some, _ = sums(spread=6)
    for ridge in RIDGES:
        some.solve(ridge)


def test_sums_are_those_of_all_tokens_weighted():
    some, (z, r, w) = sums(spread=1)
    torch.testing.assert_close(some.square, z.T @ (w[:, None] * z))
    torch.testing.assert_close(some.cross, z.T @ (w[:, None] * r))
    d = torch.randn(120, 7, dtype=torch.float64)
    assert some.error(d) == pytest.approx(float((w * ((r - z @ d) ** 2).sum(-1)).sum()))


def test_what_is_taken_is_added_and_leaves_nothing_behind():
    one, two = sums(seed=0)[0], sums(seed=1)[0]
    together = one.square + two.square, one.cross + two.cross, one.total + two.total
    one.take(two)
    assert torch.equal(one.square, together[0]) and torch.equal(one.cross, together[1]) and one.total == together[2]
    assert two.square == two.cross == two.total == 0


def test_memory_is_told_before_and_refused_where_it_is_not_there(monkeypatch, caplog):
    parts = [(torch.randn(30, 50), torch.randn(30, 4), torch.ones(30)) for _ in range(4)]
    with caplog.at_level(logging.INFO, logger="shortgpt.repair.equations"):
        fit(parts)
    assert "fitting 50 inputs: 0.0 GB of memory" in caplog.text
    assert fit_bytes(11008, 4096) == pytest.approx(4.4e9, rel=0.02)  # a 7B
    assert fit_bytes(28672, 8192) == pytest.approx(26.3e9, rel=0.02)  # a 70B
    free = psutil.virtual_memory()._replace(available=fit_bytes(50, 4) - 1)
    monkeypatch.setattr(equations.psutil, "virtual_memory", lambda: free)
    with pytest.raises(ValueError, match=r"fitting 50 inputs needs 0\.0 GB of memory, and 0\.0 GB are free"):
        fit(parts)
