"""A simulated seismic line across folds and a fault, whose truth is known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from invdiff.fwi.traces import near_offset_mute
from invdiff.grid import Grid
from invdiff.io import survey_dataset
from invdiff.operators.seismic import Acoustic, Boundary, Devito, Survey, Threads, ricker
from invdiff.operators.seismic.environment import available_cores
from invdiff.priors.recipes.velocity_generator import VelocityGenerator

__all__ = ["BOUNDS", "FREQUENCY", "Line", "folded_and_faulted", "simulate_line"]

SEED, INDEX = 41, 2  # of the model; the prior was trained, fitted and evaluated on seeds 0 to 2
SHAPE, SPACING = (70, 110), 10.0  # points, m
BOUNDS = (1400.0, 4800.0)  # m/s
FREQUENCY = 12.0  # Hz
DT, N_SAMPLES = 1e-3, 1000
N_SHOTS, RECEIVER_SPACING, DEPTH = 6, 20.0, 10.0  # m
NOISE = 0.02  # of the standard deviation of the traces
SMOOTHING = 120.0  # m, from the truth to the starting model
MUTED = 25.0  # m: the grid does not resolve a point source and its surroundings


class Line(NamedTuple):
    """The input of an inversion, and the truth.

    Args:
        operator: The waves of the survey on a grid of 10 m.
        truth: The velocities ``(z, x)`` in m/s: those of a grid of 5 m, averaged about the points
            of the grid of 10 m.
        start: The truth, smoothed.
        pressure: The traces ``(shot, receiver, time)``, simulated on the finer grid; the attribute
            ``noise_std`` holds the standard deviation of the noise.
        weights: The weights ``(shot, receiver)``, 0 for near offsets.
    """

    operator: Acoustic
    truth: xr.DataArray
    start: xr.DataArray
    pressure: xr.DataArray
    weights: xr.DataArray


def folded_and_faulted() -> Tensor:
    """A generated model on a grid of 5 m, ``(2 nz - 1, 2 nx - 1)``, in m/s."""
    generator = VelocityGenerator(spacing=SPACING / 2, bounds=(1500.0, 4500.0))
    return torch.from_numpy(generator.model(SEED, INDEX, (2 * SHAPE[0] - 1, 2 * SHAPE[1] - 1)))


def simulate_line(
    fine: Tensor, *, seed: int, n_shots: int = N_SHOTS, n_samples: int = N_SAMPLES
) -> Line:
    """Simulate shots over a model, with noise.

    Args:
        fine: The velocities ``(2 nz - 1, 2 nx - 1)``, in m/s, on a grid of 5 m.
        seed: The seed of the noise.
        n_shots: The number of shots along the line.
        n_samples: The number of samples, of 1 ms.

    Raises:
        MissingDependencyError: Devito or its C compiler is not installed.
    """
    average = torch.tensor([0.25, 0.5, 0.25])[:, None]
    padded = torch.nn.functional.pad(fine[None, None], (1, 1, 1, 1), mode="replicate")
    # At constant density it is the compliance 1 / v^2 that averages, for waves longer than a cell.
    kernel = (average @ average.T)[None, None]
    mean = torch.nn.functional.conv2d(padded**-2, kernel, stride=2)[0, 0] ** -0.5
    width = SPACING * (mean.shape[1] - 1)
    survey = Survey(
        _row(np.linspace(0.04, 0.96, n_shots) * width),
        _row(np.arange(0.0, width + 1, RECEIVER_SPACING)),
        ricker(FREQUENCY, DT, n_samples),
        DT,
    )
    # On another grid: data from the operator that inverts them would favour any method.
    exact = _acoustic(survey, fine.shape, spacing=SPACING / 2, n_absorbing=120)
    operator = _acoustic(survey, mean.shape, spacing=SPACING, n_absorbing=60)
    with torch.no_grad():
        clean = exact(fine[None])[0]
    unit = clean.std()
    rng = np.random.default_rng(seed)
    noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
    noise_std = NOISE * float(unit)
    smooth = gaussian_filter(mean.numpy(), SMOOTHING / SPACING, mode="nearest")
    return Line(
        operator,
        operator.domain.to_dataarray(mean, "truth"),
        operator.domain.to_dataarray(torch.from_numpy(smooth), "start"),
        operator.range.to_dataarray(
            clean + NOISE * unit * noise, "pressure", attrs={"noise_std": noise_std}
        ),
        near_offset_mute(survey_dataset(survey.to_arrays()), MUTED),
    )


def _row(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions ``(z, x)`` at one depth, on points of the grid, between which a source spreads."""
    on_grid = SPACING * np.round(x / SPACING)
    return np.stack([np.full_like(x, DEPTH), on_grid], axis=-1)


def _acoustic(survey: Survey, shape: torch.Size, *, spacing: float, n_absorbing: int) -> Acoustic:
    """The waves of the survey on a grid of this shape and spacing."""
    axes = {dim: np.arange(n) * spacing for dim, n in zip("zx", shape, strict=True)}
    domain = Grid(("z", "x"), tuple(shape), torch.float32, axes, "m s-1")
    return Acoustic(
        survey,
        domain,
        bounds=BOUNDS,
        boundary=Boundary(n_absorbing),
        engine=Devito(workers=Threads(min(2, available_cores()))),
    )
