"""Full waveform inversion of published and of generated models, by budget of solves.

``curvefault`` and ``marmousi`` are the data sets that RED-DiffEq published with its results (Shan
et al. 2026): 5 shots, 15 Hz, 10 m cells. Their data are inverted as they are: our operator
reproduces them, see the rows ``data``. Arms have 1500 forward solves, each with one adjoint, all
members of an ensemble together. ``generated`` are models of `VelocityGenerator` with a seed that
neither training, fitting nor tuning used; their data come from cells of half the size, with 2 %
noise. Arms have 500 solves there; the ensemble of four has 2000, and a row tells what no prior
makes of as many.

All arms weight the data alike: for noise (0.3 % of their standard deviation where data are without
noise, what our operator makes of the published data; 2 % else) and errors of 5 % of the amplitude.
``solves`` are those made, of all members together. ``ssim`` on models scaled to [0, 1] from 1500
to 4500 m/s, ``mae`` in m/s, ``rel_l2``; for ensembles of their mean, with ``coverage90`` of all
cells by Student intervals, and ``rank``, the rank correlation of std and absolute error.
``misfit``: chi2 a datum. Weights of TV and RED-diffusion, levels and weights of data were chosen
on generated models of another seed.
Run: ``python -m benchmarks.fwi DATA [--case NAME ...] [--only INDEX ...] [--arm NAME]
[--quick]``, DATA the folder of those files; rows not made again are kept.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from scipy.ndimage import gaussian_filter
from torch import Tensor

from benchmarks.table import kept, markdown, write_table
from invdiff import invert
from invdiff.fwi import (
    LBFGS,
    AnnealedMode,
    AnnealedPosterior,
    REDDiffusion,
    amplitude_weights,
    near_offset_mute,
    total_variation,
)
from invdiff.fwi.diagnose import model_errors, spread_figures
from invdiff.fwi.method import Method
from invdiff.grid import Grid
from invdiff.io import survey_dataset
from invdiff.operators.seismic import Acoustic, Boundary, Devito, Survey, Threads, ricker
from invdiff.priors import hub
from invdiff.priors.recipes.velocity_generator import VelocityGenerator
from invdiff.protocols import Prior
from invdiff.terms import Penalty

BOUNDS = (1400.0, 4800.0)
SCALED = (1500.0, 4500.0)
N_SHOTS, PEAK, DT, N_SAMPLES = 5, 15.0, 1e-3, 1000
BANDS = (0.4 * PEAK, 0.67 * PEAK)
TV_WEIGHT, RED_WEIGHT = 0.02, 0.1
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

    @property
    def operator(self) -> Acoustic:
        shape = (self.truth.shape[0], self.truth.shape[1])
        return acoustic(shape, 10.0, n_absorbing=self.n_absorbing, space_order=4)

    @property
    def traces(self) -> xr.DataArray:
        return self.operator.range.to_dataarray(self.data, "pressure")

    @property
    def weights(self) -> xr.DataArray:
        survey = survey_dataset(self.operator.survey.to_arrays())
        by_amplitude = amplitude_weights(self.traces, self.noise_std, relative=0.05)
        return near_offset_mute(survey, self.muted) * by_amplitude


def acoustic(
    shape: tuple[int, int], spacing: float, *, n_absorbing: int, space_order: int
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
        engine=Devito(space_order=space_order, workers=Threads(1)),
    )


def simulated(velocity: Tensor, seed: int) -> Tensor:
    """Data on cells of half the size, with noise of 2 % of their standard deviation."""
    shape = tuple(2 * n - 1 for n in velocity.shape)
    fine = torch.nn.functional.interpolate(
        velocity[None, None], size=shape, mode="bilinear", align_corners=True
    )[0]
    data = acoustic(shape, 5.0, n_absorbing=120, space_order=8)(fine)[0]
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
    truth = torch.from_numpy(VelocityGenerator(bounds=SCALED).model(seed, index, (70, 70)))
    start = torch.from_numpy(gaussian_filter(truth.numpy(), 10.0, mode="nearest"))
    data = simulated(truth, seed + index)
    return Case(f"generated {index}", truth, start, data, 0.02 * float(data.std()), 60, 25.0)


def section(case: Case, x: Tensor) -> xr.DataArray:
    return case.operator.domain.to_dataarray(x, "velocity")


def errors(case: Case, estimate: xr.DataArray) -> Row:
    found = model_errors(estimate, section(case, case.truth), bounds=SCALED)
    return {key: float(found[key]) for key in ("ssim", "mae", "rel_l2")}


class Arm(NamedTuple):
    """A method, its number of members, and the solves of each."""

    method: Method
    n_members: int
    max_solves: int


def singles(budget: int) -> dict[str, Arm]:
    """Methods that make one model."""
    n = budget // N_SHOTS
    penalty = (Penalty(total_variation, TV_WEIGHT),)
    methods: dict[str, Method] = {
        "no prior (L-BFGS)": LBFGS(steps=n, bands=BANDS),
        "TV (L-BFGS)": LBFGS(steps=n, bands=BANDS, terms=penalty),
        "invdiff RED-diffusion": REDDiffusion(steps=n, weight=RED_WEIGHT),
        "invdiff mode": AnnealedMode.within(n, bands=BANDS),
    }
    return {name: Arm(method, 1, budget) for name, method in methods.items()}


def ensemble(n_members: int, budget: int) -> dict[str, Arm]:
    """Members that share a fit, and a budget."""
    n = 4 * (budget // N_SHOTS) // (3 + n_members)
    posterior = AnnealedPosterior.within(n, bands=BANDS)
    return {f"invdiff posterior, {n_members} members": Arm(posterior, n_members, n * N_SHOTS)}


def start_row(case: Case) -> Row:
    return {"case": case.name, "method": "start", "solves": 0} | errors(
        case, section(case, case.start)
    )


def run(case: Case, prior: Prior, arms: dict[str, Arm]) -> Iterator[Row]:
    """Rows of one case."""
    operator = case.operator
    truth = section(case, case.truth)
    for name, arm in arms.items():
        began = time.perf_counter()
        result = invert(
            case.traces,
            operator,
            prior.on(operator.domain) if arm.method.needs_prior else None,
            start=section(case, case.start),
            seed=0,
            method=arm.method,
            realizations=arm.n_members,
            noise_std=case.noise_std,
            weights=case.weights,
            max_solves=arm.max_solves,
        )
        row: Row = {"case": case.name, "method": name}
        row |= errors(case, result["mean"])
        row |= {
            "misfit": float(result["data_misfit"].mean()),
            "solves": result.attrs["invdiff_adjoint_solves"],
            "seconds": time.perf_counter() - began,
        }
        if arm.n_members > 1:
            spread = spread_figures(result["velocity"], truth)
            row |= {
                "coverage90": float(spread["coverage"]),
                "rank": float(spread["rank_correlation"]),
                "std": float(result["std"].mean()),
            }
        yield row


def averages(rows: list[Row]) -> list[Row]:
    """Means over the generated models, by method."""
    means = []
    for method in dict.fromkeys(str(row["method"]) for row in rows):
        own = [row for row in rows if row["method"] == method]
        keys = [k for k in own[0] if k not in ("case", "method")]
        mean = {k: float(np.mean([float(str(row[k])) for row in own])) for k in keys}
        means.append({"case": f"generated mean of {len(own)}", "method": method} | mean)
    return means


def published_rows(folder: Path, name: str, width: int, prior: Prior, chosen: str) -> list[Row]:
    case, row = published(folder, name, width)
    banded = REDDiffusion(steps=1500 // N_SHOTS, weight=RED_WEIGHT, bands=BANDS)
    arms = singles(1500) | ensemble(3, 1500)
    arms |= {
        "invdiff RED-diffusion, low frequencies first": Arm(banded, 1, 1500),
        "invdiff mode, half the solves": singles(750)["invdiff mode"],
    }
    arms = {name: arm for name, arm in arms.items() if chosen in name}
    return [*data_rows(case), row, start_row(case), *show(run(case, prior, arms))]


def generated_rows(index: int, prior: Prior, chosen: str) -> list[Row]:
    case = generated(index)
    arms = singles(500) | ensemble(4, 2000)
    arms |= {"no prior (L-BFGS), 2000 solves": singles(2000)["no prior (L-BFGS)"]}
    arms = {name: arm for name, arm in arms.items() if chosen in name}
    return [start_row(case), *show(run(case, prior, arms))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--case", nargs="*", default=["curvefault", "marmousi", "generated"])
    parser.add_argument("--only", type=int, nargs="*", default=range(10), help="generated models")
    parser.add_argument("--arm", default="", help="only those whose name holds this")
    parser.add_argument("--quick", action="store_true", help="one generated model, few solves")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prior = hub.load_prior("velocity-2d")
    if arguments.quick:
        print(markdown(list(run(generated(0), prior, singles(150) | ensemble(2, 300)))))
        return
    rows: list[Row] = []
    for name, width in (("curvefault", 70), ("marmousi", 190)):
        if name in arguments.case:
            rows += published_rows(arguments.data, name, width, prior, arguments.arm)
    if "generated" in arguments.case:
        for index in arguments.only:
            rows += generated_rows(index, prior, arguments.arm)
    stored = [row for row in kept("fwi", rows) if "mean of" not in str(row["case"])]
    rows = sorted([*stored, *rows], key=lambda row: _order(str(row["case"])))
    models = [row for row in rows if str(row["case"]).startswith("generated")]
    rows += averages(models)
    write_table("fwi", rows, command="python -m benchmarks.fwi DATA")
    print(markdown(rows))


def _order(case: str) -> tuple[str, int, bool]:
    """By name, generated models by number, what tells of the operator first."""
    first, second, *_ = case.split()
    return first, int(second) if second.isdigit() else 0, second != "data"


def show(rows: Iterator[Row]) -> list[Row]:
    """The rows, printed as they come."""
    listed = []
    for row in rows:
        print(json.dumps(row), flush=True)
        listed.append(row)
    return listed


if __name__ == "__main__":
    main()
