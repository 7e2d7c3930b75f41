"""What the MRI benchmarks share: simulated scans, peers, and figures of merit."""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.calibration import StudentInterval, coverage
from invdiff.grid import Grid
from invdiff.likelihood import Gaussian
from invdiff.noise import NoiseField
from invdiff.operators.deepinv import to_deepinv as to_physics
from invdiff.operators.mri import CartesianMRI, birdcage
from invdiff.priors.deepinv import to_deepinv
from invdiff.protocols import Prior

__all__ = [
    "Method",
    "Scan",
    "colin27_slice",
    "data_folder",
    "diffpir",
    "dps",
    "l1_wavelet",
    "parser",
    "psnr",
    "scores",
    "sense",
    "simulate",
    "timed",
    "total_variation",
    "tune",
    "with_smooth_phase",
]

OBJECT = 0.05  # of the brightest: where coverage is evaluated
WITHIN = 1.25  # real and imaginary parts of images lie within this
Method = Callable[["Scan", float], Tensor]


@dataclass(frozen=True, eq=False)
class Scan:
    """K-space ``y (coil, ky, kx)`` in units of the prior, and what made it."""

    operator: CartesianMRI
    y: Tensor
    noise_std: float


def parser(description: str | None) -> argparse.ArgumentParser:
    """Options that all benchmarks of MRI take."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--quick", action="store_true", help="small and few; writes no result")
    options.add_argument("--prior", default="brain-t1", help="name or path")
    options.add_argument("--members", type=int, default=16)
    options.add_argument("--steps", type=int, default=24, help="of invdiff's sampler")
    options.add_argument("--threads", type=int, default=2)
    return options


def data_folder() -> Path:
    """Folder of the real data."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("INVDIFF_DATA", beside)) / "mri"
    if not folder.is_dir():
        raise SystemExit(f"{folder} is missing; point INVDIFF_DATA at the data folder")
    return folder


def colin27_slice(z: int) -> Tensor:
    """A complex axial T1 slice."""
    import nibabel

    volume = np.asarray(nibabel.load(data_folder() / "colin27_t1.nii.gz").dataobj)
    magnitude = np.ascontiguousarray(volume[:, :, z].T[::-1], np.float32)
    return with_smooth_phase(magnitude)


def with_smooth_phase(magnitude: np.ndarray) -> Tensor:
    """A complex image: the 99th percentile of the foreground is 1, the phase a cubic."""
    scale = np.percentile(magnitude[magnitude > 0.1 * magnitude.max()], 99)
    rows, columns = (torch.linspace(-1, 1, n) for n in magnitude.shape)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    powers = [y**i * x**j for i in range(4) for j in range(4 - i)]
    weights = np.random.default_rng(27).normal(0, 0.4, len(powers))
    phase = sum(float(w) * p for w, p in zip(weights, powers, strict=True))
    return torch.polar(torch.from_numpy(magnitude / scale), torch.as_tensor(phase))


def simulate(image: Tensor, mask: Tensor, *, noise_std: float, seed: int) -> Scan:
    """An 8-coil scan with complex noise, ``E|n|^2 = noise_std^2``."""
    domain = Grid(("y", "x"), tuple(image.shape), torch.complex64)
    operator = CartesianMRI(mask, birdcage(domain.shape, 8), domain=domain)
    noise = NoiseField(seed)(operator.range, [0], 0)[0]
    return Scan(operator, operator(image[None])[0] + noise_std * noise * mask, noise_std)


def sense(scan: Scan, regularisation: float) -> Tensor:
    """``argmin |A x - y|^2 + regularisation |x|^2`` by conjugate gradients."""
    b = scan.operator.adjoint(scan.y[None])
    return scan.operator.solve(b, regularisation, 1.0, max_iterations=50)[0]


def l1_wavelet(scan: Scan, regularisation: float) -> Tensor:
    """sigpy's L1-wavelet reconstruction."""
    from sigpy.mri.app import L1WaveletRecon

    return _sigpy(L1WaveletRecon, scan, regularisation)


def total_variation(scan: Scan, regularisation: float) -> Tensor:
    """sigpy's total-variation reconstruction."""
    from sigpy.mri.app import TotalVariationRecon

    return _sigpy(TotalVariationRecon, scan, regularisation)


def _sigpy(app: Any, scan: Scan, regularisation: float) -> Tensor:
    maps = scan.operator.sensitivity
    assert maps is not None
    # Without weights sigpy takes the mask from the zeros of the data.
    mask = scan.operator.mask.numpy().astype(np.float32)
    image = app(
        scan.y.numpy(), maps.numpy(), regularisation, weights=mask, max_iter=100, show_pbar=False
    ).run()
    return torch.from_numpy(np.asarray(image, np.complex64))


def dps(scan: Scan, prior: Prior, weight: float, *, n: int, steps: int, seed: int) -> Tensor:
    """deepinv's DPS as published (VP, DDPM steps, norm guidance), with our prior.

    Values are told to be within +-1, not mapped from [0, 1], and not clipped. The walk starts at
    the largest noise level that the prior was trained on, rather than at 152.
    """
    from deepinv.sampling import DPS, DDPMSolver

    largest = prior.schedule.ratio_max / 2**0.5
    # B(t) = 0.1 t + 9.95 t^2 = log(1 + sigma^2) of deepinv's VP schedule.
    start = (math.sqrt(0.01 + 4 * 9.95 * math.log1p(largest**2)) - 0.1) / (2 * 9.95)
    solver = DDPMSolver(
        timesteps=torch.linspace(start, 0, steps + 1, dtype=torch.float64),
        rng=torch.Generator().manual_seed(seed),
    )
    model = DPS(to_deepinv(prior), solver=solver, weight=weight, minus_one_one=False)
    model.data_fidelity.clip = None
    y = scan.operator.range.to_channels(scan.y[None])
    drawn = model(y, to_physics(scan.operator), x_init=(n, 2, *scan.operator.domain.shape))
    return scan.operator.domain.from_channels(drawn.float())


def diffpir(
    scan: Scan, prior: Prior, strength: float, *, n: int, steps: int, zeta: float, seed: int
) -> Tensor:
    """deepinv's DiffPIR with our prior; parts of images are mapped from +-1.25 to its [0, 1].

    Its inner solves stop at ten iterations, where deepinv's default is 50: that is too slow here.
    """
    from deepinv.models import Denoiser
    from deepinv.optim.data_fidelity import L2
    from deepinv.sampling import DiffPIR

    ours, width = to_deepinv(prior), 2 * WITHIN

    class Mapped(Denoiser):
        def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
            return (ours(width * x - WITHIN, width * sigma) + WITHIN) / width

    physics = to_physics(scan.operator)
    physics.max_iter = 10
    y = scan.operator.range.to_channels(scan.y[None])
    offset = physics.A(torch.full((1, 2, *scan.operator.domain.shape), WITHIN))
    model = DiffPIR(
        Mapped(),
        L2(),
        sigma=scan.noise_std * 0.5**0.5 / width,
        max_iter=steps,
        zeta=zeta,
        lambda_=strength,
    )
    mapped = ((y + offset) / width).expand(n, *y.shape[1:])
    drawn = width * model(mapped, physics, seed=1 + seed) - WITHIN
    return scan.operator.domain.from_channels(drawn)


def tune(method: Method, grid: Sequence[float], cases: Sequence[tuple[Scan, Tensor]]) -> float:
    """The value of ``grid`` with the best mean PSNR over tuning cases."""

    def merit(value: float) -> float:
        return float(np.mean([psnr(method(scan, value), image) for scan, image in cases]))

    return max(grid, key=merit)


def psnr(image: Tensor, reference: Tensor) -> float:
    """Of the magnitudes, in dB of the largest; minus infinity for an image that diverged."""
    error = float((image.abs() - reference.abs()).square().mean())
    return (
        20 * math.log10(float(reference.abs().max())) - 10 * math.log10(error)
        if (math.isfinite(error))
        else -math.inf
    )


def scores(members: Tensor, scan: Scan, reference: Tensor) -> dict[str, float]:
    """Figures of an ensemble ``(n, y, x)``, or of one image ``(1, y, x)``."""
    from skimage.metrics import structural_similarity

    mean, domain = members.mean(0), scan.operator.domain
    peak = float(reference.abs().max())
    row = {
        "psnr": psnr(mean, reference),
        "ssim": float(
            structural_similarity(mean.abs().numpy(), reference.abs().numpy(), data_range=peak)
        ),
    }
    if len(members) > 1:
        ensemble = domain.to_dataarray(
            members, "image", leading={"realization": range(len(members))}
        )
        truth = domain.to_dataarray(reference, "reference")
        is_object = abs(truth) > OBJECT
        held = coverage(ensemble, truth, (0.9,), where=is_object, interval=StudentInterval())
        row["coverage90"] = float(held[0])
    likelihood = Gaussian(scan.y, scan.operator, scan.noise_std)
    row["misfit"] = float(likelihood.misfit(members).mean())
    return row


def timed(run: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """Result and wall seconds."""
    start = time.perf_counter()
    result = run()
    return result, time.perf_counter() - start
