"""Full waveform inversion of published and of generated models, by budget of solves.

``curvefault`` and ``marmousi`` are the data sets that RED-DiffEq published with its results (Shan
et al. 2026): 5 shots, 15 Hz, 10 m cells. Their data are inverted as they are: our operator
reproduces them, see the rows ``data``. Arms have 1500 forward solves, each with one adjoint, all
members of an ensemble together. ``generated`` are models of `VelocityGenerator` with a seed that
neither training, fitting nor tuning used; their data come from cells of half the size, with 2 %
noise. Arms have 2000 solves there, the ensemble of four as many as the others.

All arms weight the data alike: for noise (0.3 % of their standard deviation where data are without
noise, what our operator makes of the published data; 2 % else) and errors of 5 % of the amplitude.
``solves`` are those made, of all members together. ``ssim`` on models scaled to [0, 1] from 1500
to 4500 m/s, ``mae`` in m/s, ``rel_l2``; for ensembles of their mean, with ``coverage90`` of all
cells by Student intervals, ``rank``, the rank correlation of std and absolute error, and
``rank_smoothed``, that of variance and squared error over windows of 3 cells; ``member_mae`` and
``member_chi2``, the mean and the largest over the members. ``misfit``: chi-square per datum.
Weights of TV and RED-diffusion, levels and weights of data were chosen on generated models of
another seed.

Two cases stand outside of what the method assumes: ``density``, data of a density that follows the
velocity, inverted with a constant one, also with errors of the modelling (``relative``, a share of
the amplitude) that are learned from the residual of a mode, at half the solves each; and
``marine``, smooth sediments under water, of which the prior has seen none. ``verdict`` is what the
run itself says of its fit.
Run: ``python -m benchmarks.fwi DATA [--case NAME ...] [--only INDEX ...] [--arm NAME ...]
[--device cuda] [--rows FILE] [--quick]``, DATA the folder of those files; rows not made again are
kept. With ``--rows`` they are appended to FILE instead, so that several runs can be made at once; a
run with ``--case`` and no name then writes the table from FILE.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from scipy.ndimage import uniform_filter
from scipy.stats import spearmanr

from benchmarks.fwi_cases import (
    N_SHOTS,
    PEAK,
    Case,
    Row,
    data_rows,
    errors,
    generated,
    marine,
    published,
    section,
    unknown_density,
)
from benchmarks.table import kept, markdown, write_table
from invdiff import invert
from invdiff.errors import DataFitWarning
from invdiff.fwi import LBFGS, AnnealedMode, AnnealedPosterior, REDDiffusion, total_variation
from invdiff.fwi.diagnose import relative_error, spread_figures
from invdiff.fwi.method import Method
from invdiff.priors import hub
from invdiff.priors.network import NetworkPrior
from invdiff.terms import Penalty

BANDS = (0.4 * PEAK, 0.67 * PEAK)
TV_WEIGHT, RED_WEIGHT = 0.02, 0.1
LEARNED = "invdiff posterior, 4 members, errors learned"


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
    n_gradients = budget // N_SHOTS

    def cost(n: int) -> int:
        own = AnnealedPosterior.within(n).steps + 1
        return n + (n_members - 1) * own

    n = max(n for n in range(8, n_gradients) if cost(n) <= n_gradients)
    posterior = AnnealedPosterior.within(n, bands=BANDS)
    return {f"invdiff posterior, {n_members} members": Arm(posterior, n_members, n * N_SHOTS)}


def start_row(case: Case) -> Row:
    return {"case": case.name, "method": "start", "solves": 0} | errors(
        case, section(case, case.start)
    )


def inverted(case: Case, prior: NetworkPrior, arm: Arm, *, device: str = "cpu") -> xr.Dataset:
    """Models of one arm."""
    operator = case.operator_on(device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataFitWarning)  # the verdict is in the row
        return invert(
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
            device=device,
        )


def run(
    case: Case, prior: NetworkPrior, arms: dict[str, Arm], *, device: str = "cpu"
) -> Iterator[Row]:
    """Rows of one case."""
    suffix = "" if device == "cpu" else f", deepwave on {device}"
    for name, arm in arms.items():
        began = time.perf_counter()
        result = inverted(case, prior, arm, device=device)
        row: Row = {"case": case.name, "method": f"{name}{suffix}"}
        row |= errors(case, result["mean"])
        row |= {
            "misfit": float(result["data_misfit"].mean()),
            "solves": result.attrs["invdiff_adjoint_solves"],
            "seconds": time.perf_counter() - began,
        }
        if arm.n_members > 1:
            row |= spread(result, section(case, case.truth))
        if not case.name.startswith("generated"):
            row["verdict"] = result.attrs["invdiff_data_fit"]
        yield row


def learned_row(case: Case, prior: NetworkPrior, *, device: str = "cpu") -> Row:
    """An ensemble whose weights are learned from the residual of a mode; half the solves each."""
    began = time.perf_counter()
    mode = inverted(case, prior, singles(1000)["invdiff mode"], device=device)
    operator = case.operator
    model = operator.domain.to_tensor(mode["mean"])[None]
    with torch.no_grad():
        predicted = operator.range.to_dataarray(operator(model)[0], "pressure")
    share = relative_error(predicted, case.traces, noise_std=case.noise_std, weights=case.weights)
    own = replace(case, relative=share)
    (row,) = run(own, prior, ensemble(4, 1000), device=device)
    return row | {
        "method": f"{row['method']}, errors learned",
        "solves": row["solves"] + mode.attrs["invdiff_adjoint_solves"],
        "seconds": time.perf_counter() - began,
        "relative": share,
    }


def spread(result: xr.Dataset, truth: xr.DataArray) -> Row:
    """How far the members of an ensemble lie apart, and whether that is where they err."""
    figures = spread_figures(result["velocity"], truth)
    variance, squared = (
        uniform_filter(field.values, 3)
        for field in (result["std"] ** 2, (result["mean"] - truth) ** 2)
    )
    return {
        "coverage90": float(figures["coverage"]),
        "rank": float(figures["rank_correlation"]),
        "rank_smoothed": float(spearmanr(variance, squared, axis=None).statistic),
        "std": float(result["std"].mean()),
        "member_mae": float(abs(result["velocity"] - truth).mean()),
        "member_chi2": float(result["data_misfit"].max()),
    }


def averages(rows: list[Row], kind: str) -> list[Row]:
    """Means over the models of a kind, by method."""
    means: list[Row] = []
    rows = [row for row in rows if str(row["case"]).startswith(f"{kind} ")]
    for method in dict.fromkeys(str(row["method"]) for row in rows):
        own = [row for row in rows if row["method"] == method]
        keys = [k for k in own[0] if k not in ("case", "method", "verdict")]
        mean: Row = {k: float(np.mean([float(str(row[k])) for row in own])) for k in keys}
        means.append({"case": f"{kind} mean of {len(own)}", "method": method} | mean)
    return means


def published_rows(
    folder: Path, name: str, width: int, *, prior: NetworkPrior, chosen: Chosen
) -> list[Row]:
    case, row = published(folder, name, width)
    banded = REDDiffusion(steps=1500 // N_SHOTS, weight=RED_WEIGHT, bands=BANDS)
    arms = singles(1500) | ensemble(3, 1500)
    arms |= {
        "invdiff RED-diffusion, low frequencies first": Arm(banded, 1, 1500),
        "invdiff mode, half the solves": singles(750)["invdiff mode"],
    }
    rows = show(run(case, prior, chosen.of(arms), device=chosen.device))
    return [*data_rows(case), row, start_row(case), *rows]


def drawn_rows(case: Case, prior: NetworkPrior, chosen: Chosen) -> list[Row]:
    arms = chosen.of(singles(2000) | ensemble(4, 2000))
    rows = show(run(case, prior, arms, device=chosen.device))
    if case.name.startswith("density") and chosen.has(LEARNED):
        rows += show([learned_row(case, prior, device=chosen.device)])
    return [start_row(case), *rows]


class Chosen(NamedTuple):
    """The arms that are run, those with one of these names or all, and the device."""

    names: list[str]
    device: str

    def has(self, name: str) -> bool:
        return not self.names or name in self.names

    def of(self, arms: dict[str, Arm]) -> dict[str, Arm]:
        return {name: arm for name, arm in arms.items() if self.has(name)}


DRAWN = {"generated": generated, "density": unknown_density, "marine": marine}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--case", nargs="*", default=["curvefault", "marmousi", *DRAWN])
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the models that are drawn")
    parser.add_argument("--arm", nargs="*", default=[], help="only those with one of these names")
    parser.add_argument("--device", default="cpu", help="'cuda' to solve with Deepwave there")
    parser.add_argument("--rows", type=Path, help="append rows to this file, write no table")
    parser.add_argument("--quick", action="store_true", help="one generated model, few solves")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prior, chosen = hub.load_prior("velocity-2d"), Chosen(arguments.arm, arguments.device)
    if arguments.quick:
        print(markdown(list(run(generated(0), prior, singles(150) | ensemble(2, 300)))))
        return
    rows: list[Row] = []
    for name, width in (("curvefault", 70), ("marmousi", 190)):
        if name in arguments.case:
            rows += published_rows(arguments.data, name, width, prior=prior, chosen=chosen)
    for kind, draw in DRAWN.items():
        default = range(10 if kind == "generated" else 3)
        for index in (arguments.only or default) if kind in arguments.case else ():
            rows += drawn_rows(draw(index), prior, chosen)
    if arguments.rows and arguments.case:
        with arguments.rows.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        return
    if arguments.rows:
        listed = map(json.loads, arguments.rows.read_text().splitlines())
        rows = list({(row["case"], row["method"]): row for row in listed}.values())
    stored = [row for row in kept("fwi", rows) if "mean of" not in str(row["case"])]
    rows = sorted([*stored, *rows], key=lambda row: _order(str(row["case"])))
    rows += [mean for kind in DRAWN for mean in averages(rows, kind)]
    write_table("fwi", rows, command="python -m benchmarks.fwi DATA")
    print(markdown(rows))


def _order(case: str) -> tuple[str, int, bool]:
    """By name, generated models by number, rows that test the operator first."""
    first, second, *_ = case.split()
    return first, int(second) if second.isdigit() else 0, second != "data"


def show(rows: Iterable[Row]) -> list[Row]:
    """The rows, printed as they come."""
    listed = []
    for row in rows:
        print(json.dumps(row), flush=True)
        listed.append(row)
    return listed


if __name__ == "__main__":
    main()
