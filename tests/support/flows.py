"""Step models and smooth states for tests of dynamics, and how orders are measured. No tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from invdiff.dynamics import trajectory
from invdiff.operators.atmosphere import (
    BarotropicVorticity,
    KolmogorovFlow,
    Lorenz63,
    Lorenz96,
    ShallowWater,
    SphericalHarmonics,
    TwoLayerQG,
)
from invdiff.protocols import StepModel

DOUBLE = torch.float64
SPHERE = SphericalHarmonics(12)


@dataclass(frozen=True)
class Flow:
    """A step model in double precision, states that suit it, and what its laws are tried on."""

    model: StepModel
    states: Callable[[int], Tensor]
    """Initial states ``(n, *grid.shape)`` of a number of members."""
    unstable_dt: float
    order: float = 4.0


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def band_limited(
    harmonics: SphericalHarmonics, n: int, *, dtype: torch.dtype, seed: int = 0
) -> Tensor:
    """Standard normal coefficients of ``n`` real fields, complex ``(n, T + 1, T + 1)``."""
    size = harmonics.degree + 1
    parts = np.random.default_rng(seed).standard_normal((2, n, size, size))
    a = np.tril(parts[0] + 1j * parts[1])
    a[..., 0] = a[..., 0].real
    return torch.from_numpy(a).to(dtype.to_complex())


def smooth(*shape: int, scale: float = 3.0, seed: int = 0) -> Tensor:
    """Periodic fields of mean zero and variance about one, of a few waves: ``(..., n, n)``."""
    n = shape[-1]
    k_y, k_x = np.fft.fftfreq(n, 1 / n)[:, None], np.fft.rfftfreq(n, 1 / n)
    k_squared = k_y**2 + k_x**2
    envelope = torch.from_numpy(np.where(k_squared > 0, np.exp(-k_squared / scale**2), 0))
    fields = torch.fft.irfft2(envelope * torch.fft.rfft2(normal(*shape, seed=seed)), s=(n, n))
    return fields / fields.std()


def smooth_waves(harmonics: SphericalHarmonics, n: int, *, seed: int = 0) -> Tensor:
    """Coefficients of ``n`` fields of mean zero, of size one and of a few waves."""
    degree = torch.arange(harmonics.degree + 1)[:, None]
    a = band_limited(harmonics, n, dtype=DOUBLE, seed=seed) * torch.exp(-((degree / 4) ** 2))
    return a * (degree > 0)


def shallow_water_states(harmonics: SphericalHarmonics, n: int) -> Tensor:
    """Winds of a vorticity of 2e-5 and a divergence of 1e-6 1/s; heights of 200 m about 10 km."""
    waves = torch.stack([smooth_waves(harmonics, n, seed=seed) for seed in range(3)], 1)
    potentials = waves / torch.from_numpy(np.minimum(harmonics.laplacian, -2.0)) * 6.4e6
    east, north = harmonics.gradient(potentials)
    u = 1e-6 * east[:, 1] - 2e-5 * north[:, 0]
    v = 2e-5 * east[:, 0] + 1e-6 * north[:, 1]
    return torch.stack([u, v, 1e4 + 200 * harmonics.inverse(waves[:, 2])], 1)


FLOWS = {
    "lorenz63": Flow(
        Lorenz63(0.02, dtype=DOUBLE),
        lambda n: torch.tensor([0.0, 0.0, 25.0], dtype=DOUBLE) + 5 * normal(n, 3),
        unstable_dt=0.1,
    ),
    "lorenz96": Flow(
        Lorenz96(12, 0.02, dtype=DOUBLE), lambda n: 2 + 3 * normal(n, 12), unstable_dt=0.1
    ),
    "kolmogorov": Flow(
        KolmogorovFlow(24, 0.04, viscosity=0.02, dtype=DOUBLE),
        lambda n: 3 * smooth(n, 24, 24),
        unstable_dt=0.2,
    ),
    "quasi-geostrophic": Flow(
        TwoLayerQG(24, 2400.0, dtype=DOUBLE),
        lambda n: 3e-5 * smooth(n, 2, 24, 24),
        unstable_dt=8000.0,
    ),
    "barotropic": Flow(
        BarotropicVorticity(SPHERE, 4000.0, dtype=DOUBLE),
        lambda n: 2e-5 * SPHERE.inverse(smooth_waves(SPHERE, n)),
        unstable_dt=12000.0,
    ),
    "shallow water": Flow(
        ShallowWater(SPHERE, 2000.0, dtype=DOUBLE),
        lambda n: shallow_water_states(SPHERE, n),
        unstable_dt=6000.0,
    ),
}


def after(model: StepModel, state: Tensor, n_steps: int) -> Tensor:
    """The state after a number of steps."""
    *_, last = trajectory(model, state, n_steps, every=n_steps)
    return last


def order_in_dt(flow: Flow) -> float:
    """Slope of the error's logarithm in that of the time step, against the finest run."""
    n_steps = 16
    results = []
    for halvings in range(4):
        model = replace(flow.model, dt=flow.model.dt / 2**halvings)
        results.append(after(model, flow.states(2), n_steps * 2**halvings))
    errors = [float((result - results[-1]).norm()) for result in results[:-1]]
    # The finest run has an error too: by the order p, that of the coarser ones counts 1 - 2^-pk.
    steps = np.arange(len(errors), 0, -1)
    errors = [e / (1 - 2.0 ** (-flow.order * k)) for e, k in zip(errors, steps, strict=True)]
    return float(np.polyfit(np.arange(len(errors)), -np.log2(errors), 1)[0])
