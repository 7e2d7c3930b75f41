"""The MRI demonstration: a simulated 8-coil scan of a real brain slice, with error bars."""

from __future__ import annotations

import time
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from invdiff.calibration import coverage
from invdiff.demo.checks import check_members, check_stores
from invdiff.grid import Grid
from invdiff.io import write_result
from invdiff.noise import NoiseField
from invdiff.operators.mri import CartesianMRI, birdcage, foreground_percentile, poisson_disc
from invdiff.plot import reconstruction_figure, save_figure
from invdiff.priors import hub
from invdiff.verbs import reconstruct

__all__ = ["NOISE_STD", "OBJECT", "DemoReport", "bundled_slice", "run_demo", "simulate"]

NOISE_STD = 0.02
OBJECT = 0.05  # of the largest magnitude, above which coverage is evaluated
L1_WAVELET = 0.005  # tuned on other slices by benchmarks/mri_simulated.py


class DemoReport(NamedTuple):
    """The results of :func:`run_demo`: PSNR in dB, coverage, run time in s, files written."""

    psnr_zero_filled: float
    psnr_l1_wavelet: float
    psnr_mean: float
    coverage90: float
    seconds: float
    result: Path
    picture: Path


def bundled_slice() -> Tensor:
    """The bundled T1-weighted slice, with a smooth phase added.

    Returns:
        A complex image, ``(191, 161)``, scaled to a foreground near 1.
    """
    with (files("invdiff") / "data" / "colin27_axial.npz").open("rb") as file:
        magnitude = torch.from_numpy(np.load(file)["image"].astype(np.float32))
    magnitude = magnitude / foreground_percentile(magnitude)
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in magnitude.shape), indexing="ij")
    return torch.polar(magnitude, 0.5 + 0.8 * y - 0.6 * x + 0.5 * x * y + 0.4 * y**2)


def simulate(image: Tensor, *, acceleration: float, seed: int) -> tuple[CartesianMRI, Tensor]:
    """Simulate the k-space of an image: eight coils, a Poisson-disc mask, complex white noise.

    Args:
        image: The complex image, ``(ny, nx)``.
        acceleration: The number of all samples over that of the measured ones.
        seed: The seed of the mask and the noise.

    Returns:
        The operator, and the k-space ``(coil, ky, kx)`` with noise of standard deviation
        ``NOISE_STD`` at the measured samples.
    """
    shape = tuple(image.shape)
    mask = poisson_disc(shape, acceleration, calibration=16, seed=seed)
    coords = {dim: np.arange(n) - n // 2 for dim, n in zip(("y", "x"), shape, strict=True)}
    grid = Grid(("y", "x"), shape, torch.complex64, coords)
    operator = CartesianMRI(mask, birdcage(shape, 8), domain=grid)
    noise = NoiseField(seed)(operator.range, [0], 0)[0]
    return operator, operator(image[None])[0] + NOISE_STD * noise * mask


def run_demo(
    out: Path,
    *,
    realizations: int = 16,
    acceleration: float = 8.0,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> DemoReport:
    """Simulate a scan, reconstruct it and evaluate the ensemble against the truth.

    It writes ``result.zarr`` and ``demo.png`` into ``out``.

    Args:
        out: The folder of the results, which is made if missing.
        realizations: The number of members of the ensemble, at least two.
        acceleration: The acceleration of the Poisson-disc mask.
        seed: The seed of mask, noise and members.
        overwrite: Whether an earlier result is replaced.
        progress: Whether a progress bar is shown.

    Returns:
        PSNR, coverage, run time and the files written.

    Raises:
        OutputExistsError: There is an earlier result, and ``overwrite`` is False.
        InputError: Fewer than two members, or ``out`` cannot be written to.
    """
    store, picture = out / "result.zarr", out / "demo.png"
    check_stores([store], overwrite=overwrite)
    check_members(realizations)
    image = bundled_slice()
    operator, kspace = simulate(image, acceleration=acceleration, seed=seed)
    prior = hub.load_prior("brain-t1", grid=operator.domain)
    start = time.perf_counter()
    result = reconstruct(
        operator.range.to_dataarray(kspace, "kspace"),
        operator,
        prior,
        realizations=realizations,
        seed=seed,
        noise_std=NOISE_STD,
        progress=progress,
    )
    seconds = time.perf_counter() - start

    def labelled(values: Tensor, name: str) -> xr.DataArray:
        return operator.domain.to_dataarray(values, name)

    reference = labelled(image, "reference")
    zero_filled = labelled(operator.adjoint(kspace[None])[0], "zero_filled")
    wavelet = labelled(_l1_wavelet(operator, kspace), "l1_wavelet")
    is_object = abs(reference) > OBJECT
    levels = (0.1, 0.3, 0.5, 0.7, 0.9)
    curve = coverage(result["image"], reference, levels, where=is_object)
    figure = reconstruction_figure(
        result,
        reference,
        baselines={"zero-filled": zero_filled, "L1-wavelet": wavelet},
        curve=curve,
    )
    out.mkdir(parents=True, exist_ok=True)
    write_result(
        result.assign(reference=reference, zero_filled=zero_filled, coverage=curve),
        store,
        overwrite=overwrite,
    )
    save_figure(figure, picture)
    return DemoReport(
        _psnr(zero_filled, reference),
        _psnr(wavelet, reference),
        _psnr(result["mean"], reference),
        float(curve.sel(level=0.9)),
        seconds,
        store,
        picture,
    )


def _l1_wavelet(operator: CartesianMRI, kspace: Tensor) -> Tensor:
    """The classical baseline: SENSE with an L1-wavelet penalty, by sigpy."""
    from sigpy.mri.app import L1WaveletRecon

    assert operator.sensitivity is not None
    recon = L1WaveletRecon(
        kspace.numpy(),
        operator.sensitivity.numpy(),
        lamda=L1_WAVELET,
        weights=operator.mask.numpy().astype(np.float32),
        show_pbar=False,
    )
    return torch.from_numpy(recon.run())


def _psnr(image: xr.DataArray, reference: xr.DataArray) -> float:
    """The peak signal-to-noise ratio of magnitudes in dB."""
    error = abs(image) - abs(reference)
    return float(20 * np.log10(abs(reference).max() / np.sqrt((error**2).mean())))
