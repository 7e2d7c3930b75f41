"""Simulation-based calibration of the shipped priors: ranks over 100 data sets of each case.

``python -m benchmarks.network_sbc [--quick]``. A truth is a draw of the prior by the default
sampler (or, in the rows of the probability-flow ODE, by Heun's method, which draws another law
wherever the network is not the exact denoiser); its data are simulated, and an ensemble is drawn by
what `reconstruct` takes when nothing is said. ``p_value`` is that of uniform ranks of a statistic;
``misfit`` the data misfit of the members, 1 where they are exchangeable with the truth;
``coverage90`` that of Student's intervals within the object, with its standard error over data
sets; ``spread`` the standard deviation of the members over their error.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from benchmarks.table import kept, markdown, write_table
from invdiff.calibration import StudentInterval, coverage, sbc
from invdiff.grid import Grid
from invdiff.likelihood import Gaussian
from invdiff.noise import NoiseField
from invdiff.operators import Mask
from invdiff.operators.mri import CartesianMRI, birdcage, poisson_disc, random_lines
from invdiff.posterior import Posterior
from invdiff.priors import load_prior
from invdiff.protocols import LinearOperator, Prior, Sampler
from invdiff.samplers import Ancestral, Heun, default_sampler, ensemble

__all__ = ["Case", "cases", "rows_of"]

SIDE = 64
OBJECT = 0.05  # of the brightest: where coverage of a brain is evaluated


@dataclass(frozen=True)
class Case:
    """A prior, what draws the truths, and how they are measured."""

    name: str
    prior: Prior
    operator: LinearOperator
    noise_std: float
    truths: Sampler


def cases() -> Iterator[Case]:
    """The brain prior with two masks, from both kinds of truth; the velocity prior with wells."""
    brain = load_prior("brain-t1", grid=Grid(("y", "x"), (SIDE, SIDE), torch.complex64))
    masks = {
        "lines R=8": random_lines((SIDE, SIDE), 8, calibration=4, seed=3),
        "Poisson R=8": poisson_disc((SIDE, SIDE), 8, calibration=8, seed=3),
    }
    for name, mask in masks.items():
        operator = CartesianMRI(mask, birdcage((SIDE, SIDE), 4), domain=brain.grid)
        yield Case(f"brain-t1, {name}", brain, operator, 0.02, Ancestral())
    operator = CartesianMRI(masks["lines R=8"], birdcage((SIDE, SIDE), 4), domain=brain.grid)
    yield Case("brain-t1, lines R=8, truths of the ODE", brain, operator, 0.02, Heun(64))
    velocity = load_prior(
        "velocity-2d", grid=Grid(("z", "x"), (SIDE, SIDE), torch.float32, units="m s-1")
    )
    wells = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    wells[:, 2::5] = True  # more data than the dense algebra of few data takes
    yield Case("velocity-2d, wells", velocity, Mask(velocity.grid, wells), 50.0, Ancestral())


def statistics(case: Case, data: Tensor) -> dict[str, Callable[[xr.DataArray], xr.DataArray]]:
    """Two points, mean, roughness, energy and the log-likelihood."""
    dims = case.prior.grid.dims

    def log_likelihood(x: xr.DataArray) -> xr.DataArray:
        flat = x.transpose("case", ..., *dims)
        lead = flat.shape[:-2]
        fields = torch.from_numpy(np.ascontiguousarray(flat.values)).reshape(-1, SIDE, SIDE)
        n_each = len(fields) // lead[0]
        y = data.repeat_interleave(n_each, 0)
        squares = (case.operator(fields) - y).abs().square().flatten(1).sum(1)
        return xr.DataArray(-squares.reshape(lead).numpy(), dims=flat.dims[:-2])

    def part(x: xr.DataArray) -> xr.DataArray:
        return x.real.astype(float)

    return {
        "point (20, 28)": lambda x: part(x).isel({dims[0]: 20, dims[1]: 28}, drop=True),
        "point (41, 36)": lambda x: part(x).isel({dims[0]: 41, dims[1]: 36}, drop=True),
        "mean": lambda x: part(x).mean(dims),
        "roughness": lambda x: (abs(x.diff(dims[1])) ** 2).mean(dims),
        "energy": lambda x: (abs(x - x.mean(dims)) ** 2).mean(dims),
        "log-likelihood": log_likelihood,
    }


def rows_of(case: Case, *, n_sets: int, members: int) -> list[dict[str, object]]:
    """A row for each statistic, and one for misfit, coverage and spread."""
    start = time.perf_counter()
    grid, s = case.prior.grid, case.noise_std
    truth = ensemble(case.prior, case.truths, realizations=n_sets, seed=1000).fields
    noise = NoiseField(7)(case.operator.range, range(n_sets), 0)
    measured = getattr(case.operator, "measured", None)
    data = case.operator(truth) + s * (noise if measured is None else noise * measured)
    fields, misfits = [], []
    for seed, y in enumerate(data):
        term = Gaussian(y, case.operator, s)
        model = Posterior(case.prior, term)
        drawn = ensemble(
            model, default_sampler(model), realizations=members, seed=seed, batch_size=members
        ).fields
        fields.append(drawn)
        misfits.append(float(term.misfit(drawn).mean()))
    seconds = (time.perf_counter() - start) / n_sets
    x = xr.DataArray(torch.stack(fields).numpy(), dims=("case", "realization", *grid.dims))
    exact = xr.DataArray(truth.numpy(), dims=("case", *grid.dims))
    found = sbc(x, exact, statistics(case, data))
    common = {"n_sets": n_sets, "members": members}
    rows: list[dict[str, object]] = [
        {"case": case.name, "method": "invdiff default", "statistic": "all points"}
        | _figures(x, exact, grid, misfits)
        | common
        | {"seconds": seconds}
    ]
    for name in found["statistic"].values:
        one = found.sel(statistic=name)
        rows.append(
            {"case": case.name, "method": "invdiff default", "statistic": str(name)}
            | {"p_value": float(one["p_value"]), "mean_rank": float(one["pit"].mean())}
            | {"rank_std": float(one["pit"].std())}
            | common
        )
    return rows


def _figures(
    x: xr.DataArray, exact: xr.DataArray, grid: Grid, misfits: list[float]
) -> dict[str, object]:
    """Misfit, coverage and spread, with standard errors over data sets."""
    hits, variances, errors = [], [], []
    for i in range(x.sizes["case"]):
        members, truth = x.isel(case=i), exact.isel(case=i)
        inside = abs(truth) > OBJECT * abs(truth).max() if grid.is_complex else truth == truth
        found = coverage(members, truth, (0.9,), where=inside, interval=StudentInterval())
        hits.append(float(found[0]))
        spread = abs(members - members.mean("realization")) ** 2
        variances.append(
            float((spread.sum("realization") / (len(members) - 1)).where(inside).mean())
        )
        errors.append(float((abs(truth - members.mean("realization")) ** 2).where(inside).mean()))
    n = len(hits)
    widen = 1 + 1 / x.sizes["realization"]
    return {
        "misfit": float(np.mean(misfits)),
        "misfit_se": float(np.std(misfits, ddof=1) / n**0.5),
        "coverage90": float(np.mean(hits)),
        "coverage_se": float(np.std(hits, ddof=1) / n**0.5),
        "spread": float((widen * np.mean(variances) / np.mean(errors)) ** 0.5),
    }


def main() -> None:
    """Print the table; write it unless quick."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few data sets; writes no result")
    parser.add_argument("--sets", type=int, default=100)
    parser.add_argument("--members", type=int, default=9)
    parser.add_argument("--only", nargs="+", default=[""], help="cases that hold one of these")
    options = parser.parse_args()
    torch.set_num_threads(1)
    n_sets, members = (8, 3) if options.quick else (options.sets, options.members)
    rows: list[dict[str, object]] = []
    for case in cases():
        if any(part in case.name for part in options.only):
            rows += rows_of(case, n_sets=n_sets, members=members)
            print(markdown(rows), flush=True)
            if not options.quick:
                store(rows)


def store(rows: list[dict[str, object]]) -> None:
    """Write the table, with the stored rows of other cases."""
    write_table(
        "network_sbc",
        [*kept("network_sbc", rows), *rows],
        command="python -m benchmarks.network_sbc",
        notes=f"Fields of {SIDE}x{SIDE} points; `misfit_se` and `coverage_se` are standard errors "
        "over data sets. The network is not the exact denoiser of any law: draws of the ODE and of "
        "the default kernel are different truths, and the former is the harder test.",
    )


if __name__ == "__main__":
    main()
