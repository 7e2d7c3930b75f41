"""Fit what a prior states about its own error to validation fields, and evaluate it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from invdiff.arguments import as_integer
from invdiff.errors import InputError
from invdiff.grid import check_finite
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
    r"""Radial power spectra of ``(x_0 - E[x_0|x_t]) / std`` at each noise level.

    ``S(r, |k|)`` is the mean over fields, and over the modes of a bin of ``|k|``, of
    ``|F (x_0 - m) / d|^2 / n`` with ``m, d`` the prior's mean and standard deviation and ``n`` the
    number of pixels. Cost: one network pass per field and noise level.

    Args:
        prior: gives mean and standard deviation; its own spectra are not used.
        fields: batches of validation fields ``(batch, *prior.grid.shape)`` in the prior's units,
            all of them kept in memory.
        ratios: noise-to-signal ratios in the units of the fields, increasing, ``(n_levels,)``.
        n_wavenumbers: bins of ``|k|`` from 0 to the corner of the spectrum, >= 2.
        seed: of the noise.

    Raises:
        InputError: no fields, or numbers that are not possible.
        ShapeError: fields that do not lie on the prior's grid.
        DTypeError: real fields where complex ones are expected, or the reverse.
        NonFiniteError: NaN or Inf in a field.
    """
    n_wavenumbers = as_integer("n_wavenumbers", n_wavenumbers, least=2)
    ratios = np.asarray(ratios, np.float64)
    shape = prior.grid.shape
    k = np.sqrt(sum(a**2 for a in np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij")))
    wavenumbers = np.linspace(0, 0.5 * len(shape) ** 0.5, n_wavenumbers)
    # Each mode is shared by its two nearest bins: the transpose of the table's interpolation.
    place = np.interp(k, wavenumbers, np.arange(n_wavenumbers)).ravel()
    low = np.minimum(place.astype(int), n_wavenumbers - 2)
    share = place - low
    batches = _checked(prior, fields)
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
    return ErrorSpectra(ratios, wavenumbers, table)


def validate(
    prior: SpectralPrior, fields: Iterable[Tensor], *, ratios: np.ndarray, seed: int = 1
) -> list[dict[str, float]]:
    """Denoising error at each noise level, and how well the prior predicts it.

    Cost: one network pass per field and noise level.

    Args:
        prior: with its spectra.
        fields: batches of fields ``(batch, *prior.grid.shape)`` in the prior's units, other ones
            than its spectra were fitted to.
        ratios: noise-to-signal ratios in the units of the fields, ``(n_levels,)``.
        seed: of the noise.

    Raises:
        InputError: no fields.
        ShapeError: fields that do not lie on the prior's grid.
        DTypeError: real fields where complex ones are expected, or the reverse.
        NonFiniteError: NaN or Inf in a field.

    Returns:
        For each ratio: ``rmse`` of the denoised fields, ``expected_rmse`` stated by the prior, and
        ``coverage90``, the share of errors (by real and imaginary part) within its 90 % interval.
    """
    batches = _checked(prior, fields)
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


def _checked(prior: SpectralPrior, fields: Iterable[Tensor]) -> list[Tensor]:
    """The batches in a list, all of them on the prior's grid."""
    batches = list(fields)
    if sum(len(batch) for batch in batches) == 0:
        raise InputError(
            "there are no fields to fit or evaluate a prior on",
            got=f"{len(batches)} batches",
            expected="batches of fields, such as images.split(4)",
            hint="Set some fields aside that the network is not trained on.",
        )
    for batch in batches:
        prior.grid.check(batch, name="a batch of fields")
        check_finite(batch, "a batch of fields")
    return batches


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
