"""``invdiff invert``: velocities of the subsurface from the seismic line of a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from invdiff.cli.common import Checkpoint, Overwrite, Seed, given, messages, report

if TYPE_CHECKING:  # the command line starts without them
    import xarray as xr

    from invdiff.fwi.method import Method
    from invdiff.fwi.misfit import Misfit
    from invdiff.protocols import Prior, Problem

__all__ = ["invert"]

# Options that are not given leave the defaults to what they are handed to.
Members = Annotated[
    int | None, typer.Option("-n", "--realizations", help="Members to draw; default 8.")
]
Line = Annotated[
    list[Path],
    typer.Argument(metavar="SURVEY...", help="Line: .zarr, or one or more .segy or .sgy files."),
]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="Zarr store or .nc file to write.")]
Start = Annotated[Path, typer.Option(help="Store of the start: velocity (z, x), m/s; z, x in m.")]
PriorName = Annotated[str, typer.Option(help="Name or path of a prior.")]
NoPrior = Annotated[bool, typer.Option("--no-prior", help="L-BFGS on the misfit alone.")]
NoiseStd = Annotated[
    float | None,
    typer.Option(help="Noise of a sample; default that of the file, or estimated before arrivals."),
]
Bounds = Annotated[
    tuple[float, float] | None,
    typer.Option(help="Lowest and highest velocity, m/s; default 1400 5000."),
]
Band = Annotated[
    list[float] | None, typer.Option(help="Corner frequency of a first stage, Hz; repeat, rising.")
]
Absorbing = Annotated[int, typer.Option("--absorbing", help="Cells of the absorbing layers.")]
FreeSurface = Annotated[bool, typer.Option("--free-surface", help="The top reflects.")]
Mute = Annotated[
    float | None,
    typer.Option(help="Leave out traces nearer to the source, m; default 25."),
]
Relative = Annotated[
    float | None,
    typer.Option(help="Modelling error as a share of the trace amplitude; default 0.05."),
]
Ricker = Annotated[
    float | None,
    typer.Option(help="Frequency of a Ricker wavelet, Hz. Without any wavelet it is estimated."),
]
Delay = Annotated[
    float | None,
    typer.Option(help="Time of its peak, s; default 1.5 periods, 0 for zero phase."),
]
WaveletFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Wavelet: .txt, .csv, .npy, .zarr or .nc."),
]
FitSource = Annotated[
    float | None,
    typer.Option(metavar="LAG", help="Fit the source of each shot, by a filter of such lags, s."),
]
Depths = Annotated[bool, typer.Option("--elevation-is-depth", help="Of SEG-Y: z downwards.")]
MaxSolves = Annotated[
    int | None,
    typer.Option(help="Forward and adjoint solves per member; default 300 for each shot."),
]
Workers = Annotated[int, typer.Option("--threads", help="Number of shots solved in parallel.")]
Device = Annotated[str | None, typer.Option(help="Of the prior and the models; default cpu.")]


def invert(
    context: typer.Context,
    source: Line,
    out: Out,
    *,
    start: Start,
    prior: PriorName = "velocity-2d",
    no_prior: NoPrior = False,
    realizations: Members = None,
    seed: Seed = 0,
    noise_std: NoiseStd = None,
    bounds: Bounds = None,
    band: Band = None,
    n_absorbing: Absorbing = 60,
    free_surface: FreeSurface = False,
    mute: Mute = None,
    relative_error: Relative = None,
    ricker: Ricker = None,
    delay: Delay = None,
    wavelet: WaveletFile = None,
    fit_source: FitSource = None,
    elevation_is_depth: Depths = False,
    max_solves: MaxSolves = None,
    n_threads: Workers = 1,
    device: Device = None,
    checkpoint: Checkpoint = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw velocity models from the traces of a seismic line, in single precision."""
    with messages(context):
        from invdiff.fwi import invert as draw
        from invdiff.io import check_output, read_velocity, read_wavelet, write_result
        from invdiff.operators.seismic import Boundary, acoustic_problem
        from invdiff.priors.hub import load_prior

        check_output(out, overwrite=overwrite)
        problem = acoustic_problem(
            _line(source, elevation_is_depth=elevation_is_depth),
            read_velocity(start),
            boundary=Boundary(n_absorbing, free_surface),
            ricker=ricker, delay=delay, noise_std=noise_std, n_threads=n_threads,
            wavelet=None if wavelet is None else read_wavelet(wavelet),
            **given({"bounds": bounds, "mute": mute, "relative_error": relative_error}),
        )  # fmt: skip
        _tell(problem)
        learned = None if no_prior else load_prior(prior, grid=problem.operator.domain)
        result = draw(
            problem,
            prior=learned,
            seed=seed,
            method=_method(problem, learned, band, max_solves=max_solves),
            misfit=_misfit(problem, fit_source),
            checkpoint=checkpoint,
            progress=sys.stderr.isatty(),
            **given({"realizations": realizations, "max_solves": max_solves, "device": device}),
        )
        names = ", ".join(path.name for path in source)
        result = result.assign_attrs(invdiff_input=names, invdiff_start=start.name)
        write_result(result, out, overwrite=overwrite)
        report(out, result)


def _line(source: list[Path], *, elevation_is_depth: bool) -> xr.Dataset:
    from invdiff.io import read_segy, read_survey

    return read_segy(source, elevation_is_depth=True) if elevation_is_depth else read_survey(source)


def _tell(problem: Problem) -> None:
    """What was estimated because neither the file nor an option says it."""
    notes = problem.notes
    if "noise_source" in notes:
        level = f"{problem.noise_std:.3g}, {notes['noise_source']}"
        typer.echo(f"invdiff: noise of a sample {level}", err=True)
    if str(notes.get("wavelet", "")).startswith("estimated"):
        typer.echo(f"invdiff: wavelet {notes['wavelet']}", err=True)


def _method(
    problem: Problem, prior: Prior | None, band: list[float] | None, *, max_solves: int | None
) -> Method | None:
    """The default method with its bands; None where there are none."""
    from invdiff.fwi.inversion import SOLVES, default_method

    if not band:
        return None
    n_gradients = SOLVES if max_solves is None else max_solves // problem.operator.range.shape[0]
    return default_method(prior, n_gradients, bands=tuple(band))


def _misfit(problem: Problem, lag: float | None) -> Misfit | None:
    """Least squares with the source fitted; None for least squares as it is."""
    from invdiff.fwi.misfit import L2, SourceFitted

    if lag is None:
        return None
    dt = float(problem.operator.range.coords["time"][1])
    return SourceFitted(L2(problem.noise_std), lag, dt)
