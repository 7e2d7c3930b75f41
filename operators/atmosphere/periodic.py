"""Fields on a doubly periodic square in Fourier space: waves, velocities and advection."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from invdiff.grid import Grid

__all__ = ["Waves", "advection", "square", "to_field", "to_waves", "velocity", "waves"]


class Waves(NamedTuple):
    """Wavenumbers of ``torch.fft.rfft2`` of a square, real ``(n, 1)``, ``(n // 2 + 1,)``, both."""

    k_y: Tensor
    k_x: Tensor
    squared: Tensor
    """``k_x^2 + k_y^2``."""
    inverse: Tensor
    """``1 / (k_x^2 + k_y^2)``, zero for the mean."""
    kept: Tensor
    """Zeros and ones: the waves that the truncation keeps."""


def square(n: int, length: float, *, dtype: torch.dtype, units: str) -> Grid:
    """Grid of ``n`` by ``n`` points with the dims ``("y", "x")``, evenly spaced from zero."""
    coordinate = np.arange(n) * (length / n)
    return Grid(("y", "x"), (n, n), dtype, {"y": coordinate, "x": coordinate}, units)


@lru_cache(maxsize=16)
def waves(n: int, length: float, *, dtype: torch.dtype, device: torch.device) -> Waves:
    """The waves of a square of ``n`` points a side, without those beyond a third of ``n``.

    Products of two truncated fields have no aliases among the waves that are kept (the 2/3 rule of
    Orszag 1971, J. Atmos. Sci. 28, 1074).
    """
    unit = 2 * math.pi / length
    k_y, k_x = np.fft.fftfreq(n, 1 / n)[:, None], np.fft.rfftfreq(n, 1 / n)
    kept = (np.abs(k_y) <= (n - 1) // 3) & (k_x <= (n - 1) // 3)
    squared = k_y**2 + k_x**2
    inverse = np.divide(1, squared, out=np.zeros_like(squared), where=squared > 0)
    arrays = (unit * k_y, unit * k_x, unit**2 * squared, inverse / unit**2, kept)
    # Kept beyond this call, which may be inside an inference mode whose tensors have no gradients.
    with torch.inference_mode(False):
        tensors = [torch.from_numpy(array).to(device, dtype) for array in arrays]
    return Waves(*tensors)


def to_waves(field: Tensor) -> Tensor:
    """Fourier coefficients ``(..., n, n // 2 + 1)`` of fields ``(..., n, n)``."""
    coefficients: Tensor = torch.fft.rfft2(field)
    return coefficients


def to_field(coefficients: Tensor) -> Tensor:
    """Fields ``(..., n, n)`` of coefficients ``(..., n, n // 2 + 1)``."""
    n = coefficients.shape[-2]
    field: Tensor = torch.fft.irfft2(coefficients, s=(n, n))
    return field


def velocity(stream: Tensor, k: Waves) -> Tensor:
    """``(u, v) = (-d psi / dy, d psi / dx)`` on the grid, ``(2, ..., n, n)``, of ``psi``."""
    return to_field(torch.stack([-1j * k.k_y * stream, 1j * k.k_x * stream]))


def advection(stream: Tensor, tracer: Tensor, k: Waves) -> Tensor:
    """``-(u, v) . grad q`` in Fourier space, as ``-div (q u, q v)``: the flow has no divergence.

    Args:
        stream: coefficients of the stream function ``psi``, truncated.
        tracer: coefficients of ``q``, truncated and of the same shape.
        k: their waves.
    """
    flux = to_waves(velocity(stream, k) * to_field(tracer))
    return -1j * k.kept * (k.k_x * flux[0] + k.k_y * flux[1])
