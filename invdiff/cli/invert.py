"""``invdiff invert``: velocities of the subsurface from the seismic line of a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from invdiff.cli.common import (
    Overwrite,
    Realizations,
    Seed,
    check_realizations,
    errors_to_exit_code,
)

if TYPE_CHECKING:  # the command line starts without them
    import xarray as xr

    from invdiff.fwi.method import Method
    from invdiff.operators.seismic import Acoustic

__all__ = ["invert"]

_SKIPPED = 0.05  # of the traces, above which the start is called cycle-skipped

Line = Annotated[Path, typer.Argument(metavar="SURVEY", help="Line: .zarr, .segy or .sgy.")]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="Zarr store to write.")]
Start = Annotated[Path, typer.Option(help="Zarr store of the start: velocity (z, x), m/s.")]
PriorName = Annotated[str, typer.Option(help="Name or path of a prior.")]
NoPrior = Annotated[bool, typer.Option("--no-prior", help="L-BFGS on the misfit alone.")]
NoiseStd = Annotated[float | None, typer.Option(help="Noise of a sample, if not in the file.")]
Bounds = Annotated[tuple[float, float], typer.Option(help="Lowest and highest velocity, m/s.")]
Band = Annotated[list[float] | None, typer.Option(help="Data below it first, Hz; repeat, rising.")]
Absorbing = Annotated[int, typer.Option(help="Cells of the absorbing layers.")]
FreeSurface = Annotated[bool, typer.Option("--free-surface", help="The top reflects.")]
Mute = Annotated[float, typer.Option(help="Leave out traces nearer to the source, m.")]
Relative = Annotated[float, typer.Option(help="Errors of modelling, of the traces' amplitude.")]
Ricker = Annotated[float | None, typer.Option(help="Peak of the wavelet if the file has none, Hz.")]
Depths = Annotated[bool, typer.Option("--elevation-is-depth", help="Of SEG-Y: z downwards.")]
MaxSolves = Annotated[int, typer.Option(help="Forward solves of a member, each with its adjoint.")]
Workers = Annotated[int, typer.Option("--threads", help="Shots at work at once.")]
Checkpoint = Annotated[Path | None, typer.Option(help="File to store the run in, and go on from.")]


def invert(
    source: Line,
    out: Out,
    *,
    start: Start,
    prior: PriorName = "velocity-2d",
    no_prior: NoPrior = False,
    realizations: Realizations = 8,
    seed: Seed = 0,
    noise_std: NoiseStd = None,
    bounds: Bounds = (1400.0, 5000.0),
    band: Band = None,
    absorbing: Absorbing = 60,
    free_surface: FreeSurface = False,
    mute: Mute = 25.0,
    relative_error: Relative = 0.05,
    ricker: Ricker = None,
    elevation_is_depth: Depths = False,
    max_solves: MaxSolves = 1500,
    threads: Workers = 1,
    checkpoint: Checkpoint = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw velocity models from the traces of a seismic line, in single precision."""
    with errors_to_exit_code():
        from invdiff.cli import seismic
        from invdiff.io import check_output, write_result
        from invdiff.operators.seismic import Boundary
        from invdiff.priors import hub
        from invdiff.verbs import invert as draw
        from invdiff.verbs.inputs import noise_samples

        check_realizations(realizations, 8)
        check_output(out, overwrite=overwrite)
        line, survey = seismic.read_line(source, ricker, elevation_is_depth=elevation_is_depth)
        model = seismic.read_start(start)
        boundary = Boundary(absorbing, free_surface)
        operator = seismic.acoustic(
            survey, model, bounds=bounds, boundary=boundary, n_threads=threads
        )
        y = seismic.traces(line, operator)
        noise = float(noise_samples(noise_std or y.attrs.get("noise_std"), operator.range))
        weights = seismic.weights(line, y, noise, mute=mute, relative_error=relative_error)
        frequency = band[0] if band else seismic.peak_frequency(survey)
        _warn_if_skipped(operator, model, y, weights=weights, frequency=frequency)
        result = draw(
            y,
            operator,
            None if no_prior else hub.load_prior(prior, grid=operator.domain),
            start=model,
            seed=seed,
            method=_method(max_solves // survey.n_shots, band, has_prior=not no_prior),
            realizations=realizations,
            noise_std=noise,
            weights=weights,
            max_solves=max_solves,
            checkpoint=checkpoint,
            progress=sys.stderr.isatty(),
        ).assign_attrs(invdiff_input=source.name, invdiff_start=start.name)
        write_result(result, out, overwrite=overwrite)
        _report(out, result)


def _method(n_gradients: int, band: list[float] | None, *, has_prior: bool) -> Method:
    """The verb's, with as many steps as the budget pays for, and bands."""
    from invdiff.fwi import LBFGS, AnnealedPosterior

    bands = tuple(band or ())
    if not has_prior:
        return LBFGS(steps=max(n_gradients, 1), bands=bands)
    return AnnealedPosterior.within(n_gradients, bands=bands)


def _report(out: Path, result: xr.Dataset) -> None:
    misfit, n = float(result["data_misfit"].mean()), result.attrs["invdiff_adjoint_solves"]
    n_members = result.sizes["realization"]
    typer.echo(f"{out}: {n_members} members, data misfit {misfit:.2f} (1 is expected), {n} solves")


def _warn_if_skipped(
    operator: Acoustic,
    start: xr.DataArray,
    y: xr.DataArray,
    *,
    weights: xr.DataArray,
    frequency: float,
) -> None:
    """Tell before the long run that its start is too far away."""
    import torch

    from invdiff.fwi.diagnose import cycle_skipping

    with torch.no_grad():
        traces = operator(operator.domain.to_tensor(start, name="the start")[None])[0]
    predicted = operator.range.to_dataarray(traces, "pressure")
    found = cycle_skipping(
        predicted * weights, y * weights, dt=operator.survey.dt, frequency=frequency
    )
    if float(found["fraction"]) > _SKIPPED:
        typer.echo(f"invdiff: the start: {found.attrs['verdict']}", err=True)
