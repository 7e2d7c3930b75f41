"""The demonstration of :func:`invdiff.invert`: velocities of the subsurface, with error bars."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import xarray as xr

from invdiff.calibration import coverage
from invdiff.demo.checks import check_members, check_stores
from invdiff.demo.line import FREQUENCY, Line, folded_and_faulted, simulate_line
from invdiff.fwi import LBFGS, AnnealedPosterior, amplitude_weights, invert
from invdiff.fwi.diagnose import cycle_skipping, model_errors, spread_figures
from invdiff.io import survey_dataset, write_result, write_survey
from invdiff.plot import inversion_figure, save_figure
from invdiff.priors import hub

__all__ = ["FWIReport", "Score", "run_fwi_demo"]

SCALE = (1500.0, 4500.0)  # of SSIM, m/s
BANDS = (0.4 * FREQUENCY, 0.67 * FREQUENCY)  # Hz: low frequencies first
SHOT = 1  # the one in the figure


class Score(NamedTuple):
    """The error of a model: mean absolute error in m/s, and SSIM."""

    mae: float
    ssim: float


class FWIReport(NamedTuple):
    """The results of :func:`run_fwi_demo`: errors, coverage, run time in s, files written."""

    start: Score
    no_prior: Score
    mean: Score
    coverage90: float
    rank_correlation: float
    cycle_skipping: str
    seconds: float
    result: Path
    survey: Path
    picture: Path


def run_fwi_demo(
    out: Path,
    *,
    realizations: int = 4,
    seed: int = 0,
    n_gradients: int = 400,
    overwrite: bool = False,
    progress: bool = True,
) -> FWIReport:
    """Simulate a line, invert it without and with a prior at equal cost, and evaluate both.

    It writes into ``out``: ``fwi.zarr``, the result with the truth and the models compared with it;
    ``survey.zarr`` and ``start.zarr``, the input of ``invdiff invert``; and ``fwi.png``.

    Args:
        out: The folder of the results, which is made if missing.
        realizations: The number of members of the ensemble, at least two.
        seed: The seed of noise and members.
        n_gradients: Evaluations per member, each a forward and an adjoint solve per shot; most are
            those of the fit that members share. The inversion without a prior spends as many
            solves as all members together.
        overwrite: Whether earlier results are replaced.
        progress: Whether progress bars are shown.

    Returns:
        Errors, coverage, run time and the files written.

    Raises:
        OutputExistsError: There is an earlier result, and ``overwrite`` is False.
        InputError: Fewer than two members, or ``out`` cannot be written to.
        MissingDependencyError: Devito or its C compiler is not installed.
    """
    check_members(realizations)
    stores = [out / f"{name}.zarr" for name in ("fwi", "survey", "start")]
    check_stores(stores, overwrite=overwrite)
    line = simulate_line(folded_and_faulted(), seed=seed)
    prior = hub.load_prior("velocity-2d", grid=line.operator.domain)
    began = time.perf_counter()
    result = invert(
        line.pressure,
        line.operator,
        prior,
        start=line.start,
        seed=seed,
        method=AnnealedPosterior.within(n_gradients, bands=BANDS),
        realizations=realizations,
        weights=data_weights(line),
        max_solves=n_gradients * line.operator.n_shots,
        progress=progress,
    )
    n_solves = int(result.attrs["invdiff_adjoint_solves"])
    classical = without_prior(line, n_solves, seed=seed, progress=progress)
    seconds = time.perf_counter() - began
    result = result.assign(
        truth=line.truth,
        start=line.start,
        no_prior=classical["mean"],
        coverage=coverage(result["velocity"], line.truth),
    )
    survey = _labelled(line)
    traces = predictions(line, result, survey)
    figure = inversion_figure(
        result,
        line.truth,
        models={"start": line.start, "no prior": result["no_prior"]},
        gathers=gathers(line, traces),
        curve=result["coverage"],
        survey=survey,
    )
    out.mkdir(parents=True, exist_ok=True)
    write_result(result, stores[0], overwrite=overwrite)
    write_survey(survey, stores[1], overwrite=overwrite)
    write_result(line.start.to_dataset(name="velocity"), stores[2], overwrite=overwrite)
    save_figure(figure, out / "fwi.png")
    paths = stores[0], stores[1], out / "fwi.png"
    return _report(line, result, traces["mean"], seconds=seconds, paths=paths)


def without_prior(line: Line, n_solves: int, *, seed: int, progress: bool) -> xr.Dataset:
    """Invert by L-BFGS without a prior, from low frequencies to high ones."""
    return invert(
        line.pressure,
        line.operator,
        start=line.start,
        seed=seed,
        method=LBFGS(steps=n_solves // line.operator.n_shots, bands=BANDS),
        realizations=1,
        weights=data_weights(line),
        max_solves=n_solves,
        progress=progress,
    )


def data_weights(line: Line) -> xr.DataArray:
    """The weights of the traces: near offsets left out, reflections raised next to direct waves."""
    return line.weights * amplitude_weights(line.pressure, line.pressure.attrs["noise_std"])


def predictions(line: Line, result: xr.Dataset, survey: xr.Dataset) -> dict[str, xr.DataArray]:
    """The traces observed, of the start and of the posterior mean, labelled as the survey."""
    grid = line.operator.domain
    models = torch.stack([grid.to_tensor(result[name]) for name in ("start", "mean")])
    with torch.no_grad():
        traces = line.operator(models)
    observed = survey["pressure"]
    start, mean = (observed.copy(data=own.numpy()) for own in traces)
    return {"observed": observed, "start": start, "mean": mean}


def gathers(line: Line, traces: Mapping[str, xr.DataArray]) -> dict[str, xr.DataArray]:
    """One shot: observed, and the residuals of start and posterior mean; NaN where muted."""
    observed = traces["observed"][SHOT].where(line.weights[SHOT] > 0)
    return {
        f"shot {SHOT + 1} of {line.operator.n_shots}, observed": observed,
        "residual of the start": traces["start"][SHOT] - observed,
        "residual of the posterior mean": traces["mean"][SHOT] - observed,
    }


def _labelled(line: Line) -> xr.Dataset:
    """The line as ``invdiff invert`` reads it."""
    return survey_dataset(
        line.operator.survey.to_arrays(),
        line.pressure.values,
        noise_std=line.pressure.attrs["noise_std"],
    )


def _report(
    line: Line,
    result: xr.Dataset,
    predicted: xr.DataArray,
    *,
    seconds: float,
    paths: tuple[Path, Path, Path],
) -> FWIReport:
    spread = spread_figures(result["velocity"], line.truth)
    return FWIReport(
        _score(line, line.start),
        _score(line, result["no_prior"]),
        _score(line, result["mean"]),
        float(spread["coverage"]),
        float(spread["rank_correlation"]),
        _verdict(predicted, line),
        seconds,
        *paths,
    )


def _score(line: Line, model: xr.DataArray) -> Score:
    found = model_errors(model, line.truth, bounds=SCALE)
    return Score(float(found["mae"]), float(found["ssim"]))


def _verdict(predicted: xr.DataArray, line: Line) -> str:
    """The verdict on cycle skipping of the traces that were inverted."""
    dt = line.operator.survey.dt
    pair = (line.pressure.copy(data=predicted.values), line.pressure)
    muted = (traces * line.weights for traces in pair)
    return str(cycle_skipping(*muted, dt=dt, frequency=FREQUENCY).attrs["verdict"])
