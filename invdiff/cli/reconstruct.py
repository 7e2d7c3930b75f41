"""``invdiff reconstruct``: images from the k-space of a file."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

from invdiff.cli.common import Checkpoint, Overwrite, Seed, given, messages, report
from invdiff.errors import UnknownNameError

__all__ = ["reconstruct"]


def reconstruct(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="IN", help="k-space: .npz, .zarr or .h5.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Zarr store or .nc file to write.")],
    *,
    prior: Annotated[str, typer.Option(help="Name or path of a prior.")],
    operator: Annotated[str, typer.Option(help="Name of an operator.")] = "cartesian-mri",
    realizations: Annotated[
        int | None, typer.Option("-n", "--realizations", help="Members to draw; default 16.")
    ] = None,
    seed: Seed = 0,
    steps: Annotated[
        int | None,
        typer.Option(help="Steps of Ancestral(), a network pass each; default 24."),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Members drawn together; default 8.")
    ] = None,
    noise_std: Annotated[
        float | None, typer.Option(help="Noise of each coil; estimated if not given.")
    ] = None,
    slice_index: Annotated[int | None, typer.Option("--slice", help="Slice of a volume.")] = None,
    device: Annotated[str | None, typer.Option(help="Where to compute; default cpu.")] = None,
    checkpoint: Checkpoint = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw an ensemble of images from the k-space of a file."""
    with messages(context):
        from invdiff.io import check_output, read_kspace, write_result
        from invdiff.priors import load_prior
        from invdiff.samplers import Ancestral
        from invdiff.verbs import reconstruct as draw

        check_output(out, overwrite=overwrite)
        sampler = None if steps is None else Ancestral(steps)
        make_problem = _operator(operator)
        scan = read_kspace(source, slice_index=slice_index)
        problem = make_problem(scan, noise_std=noise_std)
        result = draw(
            problem,
            prior=load_prior(prior, grid=problem.operator.domain),
            seed=seed,
            sampler=sampler,
            checkpoint=checkpoint,
            progress=sys.stderr.isatty(),
            **given({"realizations": realizations, "batch_size": batch_size, "device": device}),
        ).assign_attrs(invdiff_input=source.name)
        write_result(result, out, overwrite=overwrite)
        report(out, result)


def _operator(name: str) -> Any:
    """The builder that makes a problem of a file's arrays, by its registered name."""
    entries = {entry.name: entry for entry in entry_points(group="invdiff.operators")}
    if name not in entries:
        raise UnknownNameError(
            "unknown operator",
            got=repr(name),
            expected=f"one of {sorted(entries)}",
            hint="Another package can add its own by an entry point.",
        )
    return entries[name].load()
