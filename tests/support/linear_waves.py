"""A wave operator that is a matrix, so that posteriors are known. No tests in here.

``y_s = A_s v``: it offers all that an inversion asks of an operator, is exact, and counts solves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from invdiff.fwi.misfit import Misfit
from invdiff.grid import Grid
from invdiff.priors.gaussian import GaussianPrior
from tests.support.closed_form import correlation, kalman, normal

__all__ = ["LinearWaves", "WavesProblem", "random_waves", "waves_problem"]

SHAPE = (6, 6)
SPREAD = (6, 10)  # receivers and samples of a shot
BOUNDS = (500.0, 4500.0)
MEAN, STD = 2500.0, 200.0  # of the prior, m/s


class LinearWaves:
    """``A_s v`` of velocities ``v``, noting each solve in ``solves``.

    Args:
        matrices: ``A``, ``(shot, receiver, time, nz, nx)``.
        bounds: of the models, m/s.
        solves: counter of forward and adjoint solves, shared by the operators made of this one.
    """

    def __init__(
        self,
        matrices: Tensor,
        bounds: tuple[float, float] = BOUNDS,
        *,
        solves: Counter[str] | None = None,
    ) -> None:
        self.matrices, self.bounds = matrices, bounds
        self.solves = Counter() if solves is None else solves
        shape = tuple(matrices.shape[-2:])
        axes = {d: 10.0 * np.arange(n) for d, n in zip("zx", shape, strict=True)}
        self.domain = Grid(("z", "x"), shape, matrices.dtype, axes, "m s-1")

    @property
    def settings(self) -> dict[str, object]:
        """What identifies it: not the counter."""
        return {"matrices": self.matrices, "bounds": self.bounds}

    @property
    def range(self) -> Grid:
        """``(shot, receiver, time)`` at 100 Hz."""
        shape = tuple(self.matrices.shape[:3])
        coords = {"time": 0.01 * np.arange(shape[2])}
        return Grid(("shot", "receiver", "time"), shape, self.domain.dtype, coords)

    def __call__(self, x: Tensor) -> Tensor:
        self._check(x)
        self.solves["forward"] += len(x) * len(self.matrices)
        return self._data(x)

    def misfit_and_gradient(self, x: Tensor, y: Tensor, *, misfit: Misfit) -> tuple[Tensor, Tensor]:
        self._check(x)
        n = len(x) * len(self.matrices)
        self.solves.update(forward=n, adjoint=n)
        y = y.expand(len(x), *self.range.shape)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            p = self._data(leaf)
            shots = range(p.shape[1])
            by_shot = [
                [misfit.shots([s])(q[s : s + 1], d[s : s + 1]).sum() for s in shots]
                for q, d in zip(p, y, strict=True)
            ]
            value = torch.stack([torch.stack(values).sum() for values in by_shot])
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach().double(), gradient

    def shots(self, indices: Sequence[int]) -> LinearWaves:
        return LinearWaves(self.matrices[list(indices)], self.bounds, solves=self.solves)

    def to(self, device: torch.device) -> LinearWaves:
        return LinearWaves(self.matrices.to(device), self.bounds, solves=self.solves)

    def encoded(self, weights: np.ndarray) -> LinearWaves:
        code = torch.as_tensor(weights).to(self.matrices)
        matrices = torch.einsum("sj,j...->s...", code, self.matrices)
        return LinearWaves(matrices, self.bounds, solves=self.solves)

    def _data(self, x: Tensor) -> Tensor:
        return torch.einsum("srtzx,bzx->bsrt", self.matrices, x)

    def _check(self, x: Tensor) -> None:
        self.domain.check(x)
        assert bool(((x >= self.bounds[0]) & (x <= self.bounds[1])).all()), "out of bounds"

    def __repr__(self) -> str:
        return f"LinearWaves({tuple(self.matrices.shape)}, bounds={self.bounds})"


def random_waves(n_shots: int = 2, *, bounds: tuple[float, float] = BOUNDS) -> LinearWaves:
    """Random weights that neighbouring cells nearly share: rough models are seen badly."""
    white = normal((n_shots, *SPREAD, SHAPE[0] * SHAPE[1]), 7)
    rows = white @ correlation(SHAPE[0], length=1.5) / SHAPE[0]
    return LinearWaves(rows.unflatten(-1, SHAPE), bounds)


class WavesProblem(NamedTuple):
    """Traces, prior and start, and the exact posterior ``N(mean, covariance)``, flattened."""

    y: xr.DataArray
    operator: LinearWaves
    prior: GaussianPrior
    start: xr.DataArray
    truth: Tensor
    mean: Tensor
    covariance: Tensor


def waves_problem(
    *,
    noise: float = 100.0,
    n_shots: int = 2,
    seed: int = 3,
    bounds: tuple[float, float] = BOUNDS,
) -> WavesProblem:
    """A model of correlated velocities, well seen in some directions and badly in others."""
    operator = random_waves(n_shots, bounds=bounds)
    grid = operator.domain
    c = STD**2 * correlation(SHAPE[0], length=3.0)
    centre = torch.full(SHAPE, MEAN, dtype=torch.float64)
    prior = GaussianPrior(grid, centre, c)
    truth = centre + (torch.linalg.cholesky(c) @ normal((grid.size,), seed)).reshape(SHAPE)
    clean = operator._data(truth[None])[0]
    y = clean + noise * normal(clean.shape, seed + 1)
    matrix = operator.matrices.flatten(3).flatten(0, 2)
    deviation, covariance = kalman(c, matrix, y.flatten() - matrix @ centre.flatten(), noise)
    return WavesProblem(
        operator.range.to_dataarray(y, "pressure", attrs={"noise_std": noise}),
        operator,
        prior,
        grid.to_dataarray(centre, "velocity"),
        truth,
        deviation + centre.flatten(),
        covariance,
    )
