"""Grids, fields and masks for tests of operators, and operators as users write them. No tests."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from invdiff.grid import Grid
from invdiff.noise import NoiseField
from invdiff.operators import HandWritten

REAL, COMPLEX, DOUBLE = torch.float32, torch.complex64, torch.float64


def grid(*shape: int, dtype: torch.dtype = COMPLEX) -> Grid:
    return Grid(("t", "z", "y", "x")[-len(shape) :], shape, dtype)


def noise(g: Grid, n: int = 1, stream: int = 7) -> Tensor:
    return NoiseField(5)(g, range(n), 0, stream=stream)


def keep(*shape: int, fraction: float = 0.5, seed: int = 0) -> Tensor:
    mask = torch.from_numpy(np.random.default_rng(seed).random(shape) < fraction)
    mask[(0,) * len(shape)] = True
    return mask


class Derivative(HandWritten):
    """Periodic difference along the last axis, in numpy: torch cannot differentiate it."""

    def __init__(self, domain: Grid) -> None:
        super().__init__(domain, domain)

    def _forward(self, x: Tensor) -> Tensor:
        values = x.detach().numpy()
        return torch.from_numpy(np.roll(values, -1, -1) - values)

    def _adjoint(self, y: Tensor) -> Tensor:
        values = y.detach().numpy()
        return torch.from_numpy(np.roll(values, 1, -1) - values)


class Thinned:
    """Every second value of the last axis times a phase or sign: no base class, four members."""

    def __init__(self, domain: Grid) -> None:
        n = domain.shape[-1]
        self.domain = domain
        self.range = Grid(domain.dims, (*domain.shape[:-1], (n + 1) // 2), domain.dtype)
        self.factor = noise(Grid(("x",), (n,), domain.dtype))[0]

    def __call__(self, x: Tensor) -> Tensor:
        return (self.factor * x)[..., ::2]

    def adjoint(self, y: Tensor) -> Tensor:
        x = y.new_zeros(len(y), *self.domain.shape)
        x[..., ::2] = y
        return self.factor.conj() * x


class Declared:
    """The same, linear by its word alone: torch's vjp is its adjoint."""

    is_linear = True

    def __init__(self, domain: Grid) -> None:
        thinned = Thinned(domain)
        self.domain, self.range, self.forward = domain, thinned.range, thinned.__call__

    def __call__(self, x: Tensor) -> Tensor:
        return self.forward(x)
