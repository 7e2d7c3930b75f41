"""Images, k-space and noise of a Cartesian scan in closed form. No tests in here."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from invdiff.grid import Grid
from invdiff.noise import NoiseField
from invdiff.operators.mri import CartesianMRI, birdcage, poisson_disc
from invdiff.protocols import Problem
from tests.support import tiny

COMPLEX = torch.complex64


def grid(*shape: int) -> Grid:
    """Complex grid of an image or of coils of images."""
    return Grid(("coil", "z", "y", "x")[-len(shape) :], shape, COMPLEX)


def noise(*shape: int, n: int = 1, seed: int = 0) -> Tensor:
    """Complex white noise ``(n, *shape)`` with ``E|n|^2 = 1``."""
    return NoiseField(seed)(grid(*shape), range(n), 0)


def phantom(n_y: int, n_x: int) -> Tensor:
    """A head of ellipses, brightest 0.95, with a smooth phase and, as in voxels, soft edges."""
    y, x = np.mgrid[-1 : 1 : n_y * 1j, -1 : 1 : n_x * 1j]
    ellipses = [
        (0.0, 0.0, 0.75, 0.9, 0.8),
        (0.0, 0.0, 0.6, 0.75, -0.3),
        (0.2, 0.3, 0.15, 0.15, 0.5),
        (-0.25, 0.1, 0.2, 0.2, -0.1),
        (0.1, -0.4, 0.2, 0.2, 0.45),
    ]
    image = np.zeros((n_y, n_x))
    for centre_x, centre_y, a, b, level in ellipses:
        inside = 1 - np.hypot((x - centre_x) / a, (y - centre_y) / b)
        image += level * 0.5 * (1 + np.tanh(inside * min(a, b) * min(n_y, n_x) / 2))
    return torch.from_numpy(image * np.exp(1j * (1.2 * y - 0.8 * x + 0.5 * x * y))).to(COMPLEX)


def simulated(n_coils: int, shape: tuple[int, int], std: float) -> tuple[Tensor, Tensor, Tensor]:
    """K-space of the phantom with correlated noise, its mask, and the noise covariance."""
    mixing = noise(n_coils, n_coils, seed=4)[0] * 0.3 + torch.eye(n_coils)
    white = noise(n_coils, *shape, seed=5)[0]
    mask = poisson_disc(shape, 2, calibration=16, seed=0)
    signal = CartesianMRI(mask, birdcage(shape, n_coils))(phantom(*shape)[None])[0]
    colored = torch.einsum("ab,b...->a...", mixing, white)
    return signal + std * colored * mask, mask, std**2 * mixing @ mixing.mH


def arrays(**kwargs: object) -> dict[str, Tensor]:
    """The scan of `tiny.scan` as tensors."""
    found = tiny.scan(**kwargs)
    return {name: torch.from_numpy(values.copy()) for name, values in found.items()}


def without(given: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    """All arrays but those of these names."""
    return {name: values for name, values in given.items() if name not in names}


def chi2(problem: Problem, image: Tensor) -> float:
    """Mean square of the whitened residual at the true image: 1 if all is as it should be."""
    r = problem.data - problem.operator(image[None].to(problem.operator.domain.dtype))[0]
    return float(r.abs().square().sum() / problem.noise_std**2 / problem.operator.n_data)


def assert_one(value: float, n: int) -> None:
    """Within five standard errors of a mean of ``n`` squares of complex noise."""
    assert abs(value - 1) < 5 / n**0.5, value


GIVEN = ["maps and noise", "maps", "noise", "nothing"]


def some_of(given: dict[str, Tensor], what: str) -> tuple[dict[str, Tensor], float | None]:
    """Arrays and noise level, as far as ``what`` names them."""
    names = () if "maps" in what else ("sensitivity",)
    return without(given, *names), 0.05 if "noise" in what else None
