"""Cases of the inversion benchmark: published data sets, and models that are generated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from invdiff.fwi import amplitude_weights, near_offset_mute
from invdiff.fwi.diagnose import model_errors
from invdiff.grid import Grid
from invdiff.io import survey_dataset
from invdiff.operators.seismic import Acoustic, Boundary, Deepwave, Devito, Survey, Threads, ricker
from invdiff.priors.recipes.velocity_generator import VelocityGenerator

BOUNDS = (1400.0, 4800.0)
SCALED = (1500.0, 4500.0)
N_SHOTS, PEAK, DT, N_SAMPLES = 5, 15.0, 1e-3, 1000
TEST_SEED = 2026  # of generated models; tuning used 900
Row = dict[str, object]


@dataclass(frozen=True)
class Case:
    """A model, its start and its data ``(shot, receiver, time)``."""

    name: str
    truth: Tensor
    start: Tensor
    data: Tensor
    noise_std: float
    n_absorbing: int
    muted: float  # m: a point source and what lies beside it are not resolved by a coarser grid
    relative: float = 0.05  # errors of the modelling as a share of the amplitude

    @property
    def operator(self) -> Acoustic:
        shape = (self.truth.shape[0], self.truth.shape[1])
        return acoustic(shape, 10.0, n_absorbing=self.n_absorbing, space_order=4)

    def operator_on(self, device: str) -> Acoustic:
        """Of Devito on the CPU, of Deepwave elsewhere."""
        mine = self.operator
        if device == "cpu":
            return mine
        return Acoustic(
            mine.survey, mine.domain, bounds=BOUNDS, boundary=mine.boundary,
            engine=Deepwave(space_order=4),
        )  # fmt: skip

    @property
    def traces(self) -> xr.DataArray:
        return self.operator.range.to_dataarray(self.data, "pressure")

    @property
    def weights(self) -> xr.DataArray:
        survey = survey_dataset(self.operator.survey.to_arrays())
        by_amplitude = amplitude_weights(self.traces, self.noise_std, relative=self.relative)
        return near_offset_mute(survey, self.muted) * by_amplitude


def acoustic(
    shape: tuple[int, int],
    spacing: float,
    *,
    n_absorbing: int,
    space_order: int,
    density: Tensor | None = None,
) -> Acoustic:
    """Of a section: sources and receivers at 10 m depth, receivers every 10 m."""
    n_x = round((shape[1] - 1) * spacing / 10.0) + 1
    x = np.arange(n_x) * 10.0
    sources = np.linspace(0, n_x - 1, N_SHOTS).round() * 10.0
    survey = Survey(
        np.stack([np.full(N_SHOTS, 10.0), sources], 1),
        np.stack([np.full(n_x, 10.0), x], 1),
        ricker(PEAK, DT, N_SAMPLES, delay=0.072),
        DT,
    )
    axes = {d: np.arange(n) * spacing for d, n in zip("zx", shape, strict=True)}
    domain = Grid(("z", "x"), shape, torch.float32, axes, "m s-1")
    return Acoustic(
        survey,
        domain,
        bounds=BOUNDS,
        boundary=Boundary(n_absorbing),
        density=density,
        engine=Devito(space_order=space_order, workers=Threads(1)),
    )


def simulated(velocity: Tensor, seed: int, *, has_density: bool = False) -> Tensor:
    """Data on cells of half the size, with noise of 2 % of their standard deviation.

    With a density it follows the velocity as Gardner et al. (1974, doi 10.1190/1.1440465) found it,
    scaled to that of water at the sources, which is what a constant density means: so only the
    reflections are not those of the velocity.
    """
    shape = tuple(2 * n - 1 for n in velocity.shape)
    fine = torch.nn.functional.interpolate(
        velocity[None, None], size=shape, mode="bilinear", align_corners=True
    )[0]
    density = 1000.0 * (fine[0] / fine[0, 2].mean()) ** 0.25 if has_density else None
    operator = acoustic(shape, 5.0, n_absorbing=120, space_order=8, density=density)
    data = operator(fine)[0]
    noise = np.random.default_rng(seed).standard_normal(data.shape).astype(np.float32)
    return data + 0.02 * data.std() * torch.from_numpy(noise)


def published(folder: Path, name: str, width: int) -> tuple[Case, Row]:
    """A published case, and a row of the published result."""
    stem = f"{name}_70x{width}"
    truth = torch.from_numpy(np.load(folder / f"{stem}_velocity.npy")[0, 0])
    traces = np.load(folder / f"{stem}_seismic.npy")[0].transpose(0, 2, 1) / 100.0  # cell area
    stored = np.load(folder / f"{name}_red_diffeq_result.npz")
    start = torch.from_numpy(3000 + 1500 * stored["initial_velocity"]).clamp(*BOUNDS)
    data = torch.from_numpy(traces.copy())
    case = Case(f"{name} published data", truth, start, data, 0.003 * float(data.std()), 120, 0.0)
    result = torch.from_numpy(3000 + 1500 * stored["result"])
    row = {"case": case.name, "method": "RED-DiffEq, as published", "solves": 1500}
    return case, row | errors(case, section(case, result))


def data_rows(case: Case) -> Iterator[Row]:
    """How well the operator reproduces published data, by thickness of the absorbing layer."""
    for n in (60, 120):
        operator = acoustic(tuple(case.truth.shape), 10.0, n_absorbing=n, space_order=4)
        ours = operator(case.truth[None])[0]
        error = float((ours - case.data).norm() / case.data.norm())
        yield {"case": f"{case.name.split()[0]} data", "method": f"invdiff, layer of {n} cells",
               "rel_l2": error}  # fmt: skip


def generated(index: int, *, seed: int = TEST_SEED) -> Case:
    """A generated model that nothing was trained or tuned on."""
    truth = VelocityGenerator(bounds=SCALED).model(seed, index, (70, 70))
    return _smoothed(f"generated {index}", truth, seed + index)


def unknown_density(index: int, *, seed: int = TEST_SEED) -> Case:
    """A generated model whose data depend on a density that the inversion takes as constant."""
    truth = VelocityGenerator(bounds=SCALED).model(seed, 100 + index, (70, 70))
    return _smoothed(f"density {index}", truth, seed + 100 + index, has_density=True)


def marine(index: int, *, seed: int = TEST_SEED) -> Case:
    """Water over a smooth sediment without layers, as the prior's training set has none."""
    rng = np.random.default_rng((seed, 200 + index))
    z = 10.0 * np.arange(70)[:, None]
    floor = rng.uniform(100, 200) + rng.uniform(-30, 30) * np.linspace(-1, 1, 70)
    lateral = gaussian_filter(rng.standard_normal((70, 70)), 12.0, mode="nearest")
    below = 1650.0 + rng.uniform(0.8, 1.4) * (z - floor) + 120.0 * lateral / lateral.std()
    truth = np.where(z < floor, SCALED[0], below.clip(*SCALED)).astype(np.float32)
    return _smoothed(f"marine {index}", truth, seed + 200 + index)


def _smoothed(
    name: str, truth: NDArray[np.float32], seed: int, *, has_density: bool = False
) -> Case:
    """A case that starts from the smoothed truth."""
    model = torch.from_numpy(truth)
    start = torch.from_numpy(gaussian_filter(truth, 10.0, mode="nearest"))
    data = simulated(model, seed, has_density=has_density)
    return Case(name, model, start, data, 0.02 * float(data.std()), 60, 25.0)


def section(case: Case, x: Tensor) -> xr.DataArray:
    return case.operator.domain.to_dataarray(x, "velocity")


def errors(case: Case, estimate: xr.DataArray) -> Row:
    found = model_errors(estimate, section(case, case.truth), bounds=SCALED)
    return {key: float(found[key]) for key in ("ssim", "mae", "rel_l2")}
