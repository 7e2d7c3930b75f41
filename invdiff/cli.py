"""Command line: thin wrappers over the library's verbs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

from invdiff.errors import InputError, InvdiffError, UnknownNameError

__all__ = ["app"]

app = typer.Typer(
    help="Calibrated posterior ensembles for inverse problems.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
Realizations = Annotated[int, typer.Option("-n", "--realizations", help="Members to draw.")]
Seed = Annotated[int, typer.Option(help="Seed of all randomness.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the result and the picture.")] = Path(
        "invdiff-demo"
    ),
    *,
    realizations: Realizations = 16,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Reconstruct a simulated 8-coil scan of a brain slice, accelerated eight times."""
    with _errors_to_exit_code():
        from invdiff.demo import run_demo

        report = run_demo(out, realizations=realizations, seed=seed, overwrite=overwrite)
        rows = [
            ("PSNR of zero-filled", f"{report.psnr_zero_filled:.2f} dB"),
            ("PSNR of L1-wavelet (sigpy)", f"{report.psnr_l1_wavelet:.2f} dB"),
            ("PSNR of the posterior mean", f"{report.psnr_mean:.2f} dB"),
            ("coverage of 90 % intervals", f"{100 * report.coverage90:.1f} %"),
            ("seconds for the ensemble", f"{report.seconds:.1f}"),
            ("result", str(report.result)),
            ("picture", str(report.picture)),
        ]
        for label, value in rows:
            typer.echo(f"{label:<30}{value}")


@app.command()
def reconstruct(
    source: Annotated[Path, typer.Argument(metavar="IN", help="k-space: .npz, .zarr or .h5.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Zarr store to write.")],
    *,
    prior: Annotated[str, typer.Option(help="Name or path of a prior.")],
    operator: Annotated[str, typer.Option(help="Name of an operator.")] = "cartesian-mri",
    realizations: Realizations = 16,
    seed: Seed = 0,
    steps: Annotated[int | None, typer.Option(help="Steps of the sampler.")] = None,
    batch_size: Annotated[int, typer.Option(help="Members drawn together.")] = 8,
    noise_std: Annotated[
        float | None, typer.Option(help="Noise of each coil; estimated if not given.")
    ] = None,
    slice_index: Annotated[int | None, typer.Option("--slice", help="Slice of a volume.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw an ensemble of images from the k-space of a file."""
    with _errors_to_exit_code():
        import torch

        from invdiff.io import check_output, read_kspace, write_result
        from invdiff.priors import hub
        from invdiff.reconstruct import reconstruct as draw
        from invdiff.samplers import Ancestral

        if realizations < 1:
            raise InputError(
                "nothing to draw",
                got=f"-n {realizations}",
                expected="at least 1",
                mend="Ask for some; 16 give a usable standard deviation.",
            )
        sampler = Ancestral() if steps is None else Ancestral(steps)
        check_output(out, overwrite=overwrite)
        learned = hub.load(prior)
        make_problem = _operator(operator)
        scan = read_kspace(source, slice_index=slice_index)
        if noise_std is None:
            noise_std = scan["kspace"].attrs.get("noise_std")
        arrays = {str(k): torch.from_numpy(v.values.copy()) for k, v in scan.data_vars.items()}
        problem = make_problem(arrays, noise_std=noise_std)
        result = draw(
            problem.operator.range.to_dataarray(problem.data, "kspace"),
            problem.operator,
            learned.on(problem.operator.domain),
            realizations=realizations,
            seed=seed,
            noise_std=problem.noise_std,
            scale=problem.scale,
            sampler=sampler,
            batch_size=batch_size,
            progress=sys.stderr.isatty(),
        )
        result.attrs["invdiff_input"] = source.name
        write_result(result, out, overwrite=overwrite)
        misfit = float(result["data_misfit"].mean())
        typer.echo(f"{out}: {realizations} members, data misfit {misfit:.2f} (1 is expected)")


@app.command()
def names() -> None:
    """List the priors and operators that can be named."""
    for group in ("invdiff.priors", "invdiff.operators"):
        found = sorted(entry.name for entry in entry_points(group=group))
        typer.echo(f"{group.removeprefix('invdiff.')}: {', '.join(found)}")


def _operator(name: str) -> Any:
    """What makes a problem of a file's arrays, by its registered name."""
    entries = {entry.name: entry for entry in entry_points(group="invdiff.operators")}
    if name not in entries:
        raise UnknownNameError(
            "unknown operator",
            got=repr(name),
            expected=f"one of {sorted(entries)}",
            mend="Another package can add its own by an entry point.",
        )
    return entries[name].load()


@contextmanager
def _errors_to_exit_code() -> Iterator[None]:
    """Print errors raised on purpose without a traceback, and exit with 1."""
    try:
        yield
    except InvdiffError as error:
        typer.echo(f"invdiff: {type(error).__name__}: {error}", err=True)
        raise typer.Exit(1) from error
