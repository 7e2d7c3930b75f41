"""Fit and judge what a network says of its own error, on validation fields."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from invdiff.noise import NoiseField
from invdiff.priors.spectral import ErrorSpectra, SpectralPrior

__all__ = ["fit_error_spectra", "validate"]


def fit_error_spectra(
    prior: SpectralPrior,
    fields: Iterable[Tensor],
    *,
    ratios: np.ndarray,
    n_wavenumbers: int = 32,
    seed: int = 0,
) -> ErrorSpectra:
    """Radial power spectra of ``(x_0 - E[x_0|x_t]) / std`` at each noise level.

    Args:
        prior: gives mean and std; its own spectra are not used.
        fields: validation fields ``(batch, *prior.grid.shape)``, passed over once a level.
        ratios: noise-to-signal ratios, increasing.
        n_wavenumbers: bins of ``|k|`` from 0 to the corner of the spectrum.
        seed: of the noise.
    """
    shape = prior.grid.shape
    k = np.sqrt(sum(a**2 for a in np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij")))
    wavenumbers = np.linspace(0, 0.5 * len(shape) ** 0.5, n_wavenumbers)
    # Each mode is shared by its two nearest bins: the transpose of the table's interpolation.
    place = np.interp(k, wavenumbers, np.arange(n_wavenumbers)).ravel()
    low = np.minimum(place.astype(int), n_wavenumbers - 2)
    share = place - low
    batches = list(fields)
    axes = tuple(range(1, len(shape) + 1))
    table = np.empty((len(ratios), n_wavenumbers))
    for level, ratio in enumerate(ratios):
        power, count = np.zeros(shape), 0
        for x_0, mean, std in _denoised(prior, batches, ratio=float(ratio), seed=seed):
            scaled = (x_0 - mean) / (1 if std is None else std)
            power += torch.fft.fftn(scaled, dim=axes).abs().square().sum(0).cpu().numpy()
            count += len(x_0)
        mean_power = (power / (count * k.size)).ravel()
        weight = np.bincount(low, 1 - share, n_wavenumbers) + np.bincount(
            low + 1, share, n_wavenumbers
        )
        total = np.bincount(low, (1 - share) * mean_power, n_wavenumbers) + np.bincount(
            low + 1, share * mean_power, n_wavenumbers
        )
        is_hit = weight > 0  # a small grid has no modes near some of the wavenumbers
        table[level] = np.interp(wavenumbers, wavenumbers[is_hit], total[is_hit] / weight[is_hit])
    return ErrorSpectra(np.asarray(ratios, float), wavenumbers, table)


def validate(
    prior: SpectralPrior, fields: Iterable[Tensor], *, ratios: np.ndarray, seed: int = 1
) -> list[dict[str, float]]:
    """Denoising error at each noise level, and how well the prior foresees it.

    Returns:
        For each ratio: ``rmse`` of the denoised fields, ``expected_rmse`` stated by the prior, and
        ``coverage90``, the share of errors (by real and imaginary part) within its 90 % interval.
    """
    batches = list(fields)
    rows = []
    for ratio in ratios:
        squared = stated = inside = count = 0.0
        t = prior.schedule.time(torch.tensor(float(ratio), dtype=torch.float64))
        scale = float(prior.power(t, prior.grid.shape).mean()) ** 0.5
        for x_0, mean, std in _denoised(prior, batches, ratio=float(ratio), seed=seed):
            error = x_0 - mean
            spread = (torch.ones_like(error.real) if std is None else std) * scale
            squared += float(error.abs().square().sum())
            stated += float(spread.square().sum())
            parts = torch.view_as_real(error) if error.is_complex() else error[..., None]
            bound = 1.6449 * spread * (0.5**0.5 if error.is_complex() else 1.0)
            inside += float((parts.abs() <= bound[..., None]).float().mean(-1).sum())
            count += error.numel()
        rows.append(
            {
                "ratio": float(ratio),
                "rmse": (squared / count) ** 0.5,
                "expected_rmse": (stated / count) ** 0.5,
                "coverage90": inside / count,
            }
        )
    return rows


def _denoised(
    prior: SpectralPrior, batches: list[Tensor], *, ratio: float, seed: int
) -> Iterable[tuple[Tensor, Tensor, Tensor | None]]:
    schedule = prior.schedule
    t = schedule.time(torch.tensor(ratio, dtype=torch.float64))
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    for index, x_0 in enumerate(batches):
        eps = NoiseField(seed)(prior.grid, range(len(x_0)), index).to(x_0.device)
        with torch.inference_mode():
            yield (x_0, *prior.mean_and_std(alpha * x_0 + sigma * eps, t))
