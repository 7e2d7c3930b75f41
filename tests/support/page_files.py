"""Small files under the names that the documentation uses, and small arrays under its names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy.ndimage import gaussian_filter

from invdiff.io import survey_dataset, write_result, write_survey
from tests.support import tiny

__all__ = ["FILES", "GIVEN", "make_files"]

SHAPE, SPACING, DT = (24, 32), 10.0, 2e-3
SCAN_SHAPE = (32, 24)
NOISE_STD = 5e-4  # of the line, for a Ricker wavelet of amplitude 1


def section() -> np.ndarray:
    """A step in depth, m/s."""
    model = np.full(SHAPE, 2000, np.float32)
    model[14:] = 2400
    return model


def scan_npz(path: Path) -> None:
    """A scan of four coils, without noise level and sensitivities, as most files are."""
    scan = tiny.scan(SCAN_SHAPE)
    np.savez(path, kspace=scan["kspace"], mask=scan["mask"])


def scan_h5(path: Path) -> None:
    """The same scan as a fastMRI file of one slice."""
    import h5py

    with h5py.File(path, "w") as file:
        file["kspace"] = tiny.scan(SCAN_SHAPE)["kspace"][None]
        file["ismrmrd_header"] = b"<ismrmrdHeader/>"
        file.attrs["acquisition"] = "AXT1"


def line(path: Path) -> None:
    """One shot at the end of the section, with noise of ``NOISE_STD``, 1 % of the traces'.

    Zarr stores hold the wavelet and the noise level; SEG-Y cannot. Far traces are quiet for long
    enough to estimate it.
    """
    from invdiff.operators.seismic import Survey, ricker
    from tests.support.seismic_cases import acoustic, domain

    x = np.arange(20.0, 310.0, 10.0)
    receivers = np.stack([np.full_like(x, 10.0), x], axis=1)
    survey = Survey([(10.0, 10.0)], receivers, ricker(15.0, DT, 160), DT)
    operator = acoustic(survey, domain(SHAPE, torch.float32), snapshot=None)
    clean = operator(torch.from_numpy(section())[None])[0].numpy()
    noise = np.random.default_rng(0).standard_normal(clean.shape, dtype=np.float32)
    arrays, pressure = survey.to_arrays(), clean + NOISE_STD * noise
    if path.suffix == ".zarr":
        write_survey(survey_dataset(arrays, pressure, noise_std=NOISE_STD), path)
        return
    without = {name: values for name, values in arrays.items() if name != "wavelet"}
    write_survey(survey_dataset(without, pressure), path)


def start(path: Path) -> None:
    """The section, smoothed."""
    smooth = gaussian_filter(section(), 6, mode="nearest")
    axes = {dim: (dim, np.arange(n) * SPACING) for dim, n in zip("zx", SHAPE, strict=True)}
    velocity = (("z", "x"), smooth, {"units": "m s-1"})
    write_result(xr.Dataset({"velocity": velocity}, axes), path)


def cases() -> tuple[xr.DataArray, xr.DataArray]:
    """Calibrated members ``(realization, case, x)`` and truths ``(case, x)``, standard normal."""
    draws = np.random.default_rng(0).standard_normal((21, 40, 5))
    members = xr.DataArray(draws[1:], dims=("realization", "case", "x"))
    return members, xr.DataArray(draws[0], dims=("case", "x"))


# What each file that a page names holds. A page may name no other file that it does not write.
FILES: Mapping[str, Callable[[Path], None]] = {
    "scan.npz": scan_npz,
    "scan.h5": scan_h5,
    "survey.segy": line,
    "survey.zarr": line,
    "line.segy": line,
    "line.zarr": line,
    "smooth.zarr": start,
    "start.zarr": start,
}
# Objects that a page takes as the reader's own.
GIVEN: Mapping[str, Callable[[], Any]] = {
    "members": lambda: cases()[0],
    "truths": lambda: cases()[1],
}


def make_files(text: str, folder: Path) -> None:
    """Write into ``folder`` each known file that the text names."""
    for name, make in FILES.items():
        if name in text:
            make(folder / name)
