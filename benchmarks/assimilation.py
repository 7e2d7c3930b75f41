"""Ensemble filters on the ring of Lorenz (1996): 40 sites, F = 8, data every 0.05, 2000 cycles.

Cases: ``lorenz96`` all sites with errors of standard deviation 1; ``lorenz96 half`` every second
site; ``lorenz96 arctan`` arctan(x) of all sites with errors of 0.3, which says little more than the
sign of most values. Members begin at the truth plus N(0, 1); 100 cycles are left out.

``rmse`` is the mean over cycles of the root mean square error of the mean, as DAPPER prints it;
``spread_skill`` the root mean variance over the root mean square error, times (M + 1) / M under the
root; ``innovation`` the mean of d^T (H B H^T + R)^-1 d / n, 1 is expected; ``coverage90`` of
Student's intervals; ``diverged`` cycles with an error beyond the climatological spread, 3.6;
``seconds`` a cycle; ``steps`` of the model a member and cycle. All arms have 20 members, a
half-width of 7.3 sites and an inflation of 1.02: nothing was tuned to a case or an arm.
Run: ``python -m benchmarks.assimilation [--quick] [--case NAME ...]``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from scipy.stats import t as student

from benchmarks.table import kept, markdown, write_table
from invdiff import assimilate
from invdiff.assimilation import LETKF, Analysis, EnKF, IEnKF
from invdiff.covariance import GaspariCohn
from invdiff.operators import Identity, Saturating, Select
from invdiff.operators.atmosphere import Lorenz96
from invdiff.verification import crps

SEED, BURN_IN, CLIMATE = 2026, 100, 3.6
MODEL = Lorenz96(dtype=torch.float64)
PERIODS = {"site": 40.0}
LOCAL, INFLATION, N_MEMBERS = GaspariCohn(7.3, PERIODS), 1.02, 20
Row = dict[str, object]


class Case(NamedTuple):
    """What is observed, and its errors."""

    observed: object
    noise_std: float


CASES = {
    "lorenz96": Case(Identity(MODEL.grid), 1.0),
    "lorenz96 half": Case(Select(MODEL.grid, "site", range(0, 40, 2)), 1.0),
    "lorenz96 arctan": Case(Saturating(Identity(MODEL.grid), 1.0, torch.atan), 0.3),
}


# The analyses, and the steps of the model that a member takes a cycle.
ARMS: dict[str, tuple[Analysis, int]] = {
    "invdiff IEnKF": (IEnKF(LOCAL, INFLATION), 5),
    "invdiff EnKF": (EnKF(LOCAL, INFLATION), 1),
    "invdiff LETKF": (LETKF(LOCAL, INFLATION), 1),
}


def twin(case: Case, n_cycles: int, seed: int) -> tuple[xr.DataArray, np.ndarray]:
    """Observations of a true run, and the true states ``(time, site)``."""
    rng = np.random.default_rng(seed)
    truth = 8 + torch.from_numpy(rng.standard_normal((1, 40)))
    for _ in range(400):
        truth = MODEL.step(truth)
    states, data = [truth[0].numpy()], []
    for _ in range(n_cycles):
        truth = MODEL.step(truth)
        states.append(truth[0].numpy())
        clean = case.observed(truth)[0].numpy()
        data.append(clean + case.noise_std * rng.standard_normal(clean.shape))
    coords = {"time": MODEL.dt * np.arange(1, n_cycles + 1), **case.observed.range.coords}
    dims = ("time", *case.observed.range.dims)
    y = xr.DataArray(data, coords, dims, attrs={"noise_std": case.noise_std})
    return y, np.array(states)


def run(name: str, method: str, *, n_cycles: int) -> Row:
    """The row of an analysis on a case."""
    case, n, (analysis, steps) = CASES[name], N_MEMBERS, ARMS[method]
    y, states = twin(case, n_cycles, SEED)
    rng = np.random.default_rng(SEED + 1)
    initial = xr.DataArray(
        states[0] + rng.standard_normal((n, 40)), dims=("realization", "site"), name="x"
    )
    began = time.perf_counter()
    found = assimilate(y, case.observed, MODEL, initial=initial, seed=SEED, analysis=analysis)
    seconds = time.perf_counter() - began
    late = slice(BURN_IN, None)
    truth = found["mean"].isel(time=late).copy(data=states[1:][late])
    error = found["mean"].values[late] - truth.values
    variance = found["std"].values[late] ** 2
    by_cycle = np.sqrt((error**2).mean(1))
    limit = student.ppf(0.95, n - 1) * np.sqrt(variance * (1 + 1 / n))
    return {
        "case": name,
        "method": method,
        "rmse": float(by_cycle.mean()),
        "crps": float(crps(found["x"].isel(time=late), truth)),
        "spread_skill": float(np.sqrt((n + 1) / n * variance.mean() / (error**2).mean())),
        "innovation": float(found["innovation"][late].mean()),
        "coverage90": float((abs(error) <= limit).mean()),
        "diverged": int((by_cycle > CLIMATE).sum()),
        "seconds": seconds / n_cycles,
        "steps": steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", nargs="*", default=list(CASES))
    parser.add_argument("--quick", action="store_true", help="200 cycles; no table is written")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, method in itertools.product(arguments.case, ARMS):
        rows.append(run(name, method, n_cycles=200 if arguments.quick else 2000))
        print(json.dumps(rows[-1]), flush=True)
    if arguments.quick:
        print(markdown(rows))
        return
    rows = [*kept("assimilation", rows), *rows]
    write_table("assimilation", rows, command="python -m benchmarks.assimilation")


if __name__ == "__main__":
    main()
