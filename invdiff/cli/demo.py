"""``invdiff demo``: a whole run on simulated data, and a picture of it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from invdiff.cli.common import Overwrite, Seed, messages

__all__ = ["Demonstration", "demo"]


class Demonstration(StrEnum):
    """What can be shown."""

    MRI = "mri"
    FWI = "fwi"


def demo(
    context: typer.Context,
    which: Annotated[
        Demonstration, typer.Argument(help="A brain scan, or waves through rock.")
    ] = Demonstration.MRI,
    out: Annotated[Path, typer.Option(help="Folder for the results and the picture.")] = Path(
        "invdiff-demo"
    ),
    *,
    realizations: Annotated[
        int | None,
        typer.Option("-n", "--realizations", help="Members to draw; 16 of mri, 4 of fwi."),
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Reconstruct a simulated scan of a brain (mri), or a section of the subsurface (fwi).

    mri: 8 coils, accelerated eight times. fwi: full waveform inversion of six shots across folds
    and a fault, without and with a prior; it needs the extra "seismic" and a C compiler.
    """
    with messages(context):
        show = _mri if which is Demonstration.MRI else _fwi
        for label, value in show(out, realizations, seed=seed, overwrite=overwrite):
            typer.echo(f"{label:<30}{value}")


def _mri(
    out: Path, realizations: int | None, *, seed: int, overwrite: bool
) -> list[tuple[str, str]]:
    from invdiff.demo import run_demo

    n = 16 if realizations is None else realizations
    report = run_demo(out, realizations=n, seed=seed, overwrite=overwrite)
    return [
        ("PSNR of zero-filled", f"{report.psnr_zero_filled:.2f} dB"),
        ("PSNR of L1-wavelet (sigpy)", f"{report.psnr_l1_wavelet:.2f} dB"),
        ("PSNR of the posterior mean", f"{report.psnr_mean:.2f} dB"),
        ("coverage of 90 % intervals", f"{100 * report.coverage90:.1f} %"),
        ("seconds for the ensemble", f"{report.seconds:.1f}"),
        ("result", str(report.result)),
        ("picture", str(report.picture)),
    ]


def _fwi(
    out: Path, realizations: int | None, *, seed: int, overwrite: bool
) -> list[tuple[str, str]]:
    from invdiff.demo import run_fwi_demo

    n = 4 if realizations is None else realizations
    report = run_fwi_demo(out, realizations=n, seed=seed, overwrite=overwrite)
    scores = {"start": report.start, "no prior": report.no_prior, "posterior mean": report.mean}
    return [
        *(
            (f"error of {name}", f"MAE {score.mae:.0f} m/s, SSIM {score.ssim:.3f}")
            for name, score in scores.items()
        ),
        ("coverage of 90 % intervals", f"{100 * report.coverage90:.1f} %"),
        ("rank of std and |error|", f"{report.rank_correlation:.2f}"),
        ("cycle skipping", report.cycle_skipping),
        ("seconds for both inversions", f"{report.seconds:.1f}"),
        ("result", str(report.result)),
        ("survey, for invdiff invert", str(report.survey)),
        ("picture", str(report.picture)),
    ]
