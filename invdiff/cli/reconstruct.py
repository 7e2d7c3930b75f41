"""``invdiff reconstruct``: images from the k-space of a file."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

from invdiff.cli.common import (
    Overwrite,
    Realizations,
    Seed,
    check_realizations,
    errors_to_exit_code,
)
from invdiff.errors import UnknownNameError

__all__ = ["reconstruct"]


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
    with errors_to_exit_code():
        import torch

        from invdiff.io import check_output, read_kspace, write_result
        from invdiff.priors import hub
        from invdiff.samplers import Ancestral
        from invdiff.verbs import reconstruct as draw

        check_realizations(realizations, 16)
        sampler = Ancestral() if steps is None else Ancestral(steps)
        check_output(out, overwrite=overwrite)
        learned = hub.load_prior(prior)
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


def _operator(name: str) -> Any:
    """What makes a problem of a file's arrays, by its registered name."""
    entries = {entry.name: entry for entry in entry_points(group="invdiff.operators")}
    if name not in entries:
        raise UnknownNameError(
            "unknown operator",
            got=repr(name),
            expected=f"one of {sorted(entries)}",
            hint="Another package can add its own by an entry point.",
        )
    return entries[name].load()
