"""Fit what a prior states about its own error to validation fields, and evaluate it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from invdiff.arguments import as_integer
from invdiff.errors import InputError
from invdiff.grid import check_finite
from invdiff.noise import NoiseField
from invdiff.priors.spectral import ErrorSpectra, SpectralPrior

__all__ = ["BANDS", "LevelMetrics", "fit_error_spectra", "object_mask", "power_by_band", "validate"]

BANDS = (0.05, 0.1, 0.15, 0.25, 0.35, 0.5)
"""Upper edges of the bands of ``|k|`` in which errors are evaluated, cycles per pixel."""

_BACKGROUND = 0.05  # of the largest magnitude of a field: what lies below is no object
_GAP = 5  # pixels: narrower gaps within the object belong to it
_SWEEPS = 2  # a third changes the spectra by less than 3 %, and adds to the noise of the first bin

_Array = NDArray[np.float64]


class LevelMetrics(TypedDict):
    """What `validate` finds at one noise level."""

    ratio: float
    rmse: float
    expected_rmse: float
    coverage90: float
    error_power: dict[str, float]


class _Pass(NamedTuple):
    """A batch denoised at one level: its error, the deviation stated for it, and the object."""

    error: Tensor
    std: Tensor
    inside: Tensor


def object_mask(fields: Tensor) -> Tensor:
    """Where each field has an object rather than background, bool ``(batch, *shape)``.

    Pixels of at least 5 % of the field's largest magnitude, and gaps of less than 5 pixels between
    them. A field without a background about zero is an object everywhere.

    Args:
        fields: ``(batch, *shape)``, real or complex, in physical units.
    """
    magnitude = fields.abs().flatten(1)
    mask = (magnitude >= _BACKGROUND * magnitude.amax(1, keepdim=True)).view(fields.shape)
    window = (1, *[_GAP] * (fields.ndim - 1))
    wide = ndimage.maximum_filter(mask.cpu().numpy(), window, mode="nearest")
    closed = ndimage.minimum_filter(wide, window, mode="nearest")
    return torch.from_numpy(closed).to(fields.device)


def fit_error_spectra(
    prior: SpectralPrior,
    fields: Iterable[Tensor],
    *,
    ratios: np.ndarray,
    n_wavenumbers: int = 32,
    seed: int = 0,
) -> ErrorSpectra:
    r"""Radial power spectra of ``u = (x_0 - E[x_0|x_t]) / std`` in the object, by noise level.

    With ``M`` the `object_mask` of a field, a stationary ``u`` of spectrum ``S`` has, inside of
    the mask, the power ``E |F (M u)|^2 = (S * |F M|^2) / n`` (``*`` a circular convolution, ``n``
    pixels). ``S(r, |k|)`` is the radial table, linear between its wavenumbers, with which this
    agrees with the mean over the fields; it is found by multiplicative sweeps from a flat one, as
    in Richardson (1972, doi 10.1364/JOSA.62.000055). The background is left out because its error
    is next to nothing, and divided by a deviation next to nothing it would drown the object's.
    Cost: one network pass per field and noise level.

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
    wavenumbers = np.linspace(0, 0.5 * len(shape) ** 0.5, n_wavenumbers)
    bins = _Bins(_radius(shape), wavenumbers)
    batches = _checked(prior, fields)
    window = _Window(batches)
    table = np.empty((len(ratios), n_wavenumbers))
    for level, ratio in enumerate(ratios):
        power = np.zeros(shape)
        for error, std, inside in _denoised(prior, batches, ratio=float(ratio), seed=seed):
            power += _power(inside * error / std)
        table[level] = _radial(power, window, bins)
    return ErrorSpectra(ratios, wavenumbers, table)


def validate(
    prior: SpectralPrior, fields: Iterable[Tensor], *, ratios: np.ndarray, seed: int = 1
) -> list[LevelMetrics]:
    """Denoising error inside the object at each noise level, and how well the prior predicts it.

    The object is that of `object_mask`: its background is easy, and an average over it would hide
    what the intervals are worth where they matter. Cost: one network pass per field and noise
    level.

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
        For each ratio: ``rmse`` of the denoised fields, ``expected_rmse`` stated by the prior,
        ``coverage90``, the share of errors (by real and imaginary part) within its 90 % interval,
        and ``error_power``: the power of the error divided by its stated deviation, over what the
        stated spectrum makes of it, in each of the `BANDS` that has modes (by its upper edge).
    """
    batches = _checked(prior, fields)
    window = _Window(batches)
    rows: list[LevelMetrics] = []
    for ratio in ratios:
        squared = stated = hits = 0.0
        t = prior.schedule.time(torch.tensor(float(ratio), dtype=torch.float64))
        spectrum = prior.power(t, prior.grid.shape)
        scale = float(spectrum.mean()) ** 0.5
        power = np.zeros(prior.grid.shape)
        for error, std, inside in _denoised(prior, batches, ratio=float(ratio), seed=seed):
            power += _power(inside * error / std)
            error, spread = error[inside], std[inside] * scale
            squared += float(error.abs().square().sum())
            stated += float(spread.square().sum())
            parts = torch.view_as_real(error) if error.is_complex() else error[..., None]
            bound = 1.6449 * spread * (0.5**0.5 if error.is_complex() else 1.0)
            hits += float((parts.abs() <= bound[..., None]).float().mean(-1).sum())
        measured = _by_band(power)
        expected = _by_band(window.smeared(spectrum.cpu().numpy()))
        rows.append(
            {
                "ratio": float(ratio),
                "rmse": (squared / window.n_inside) ** 0.5,
                "expected_rmse": (stated / window.n_inside) ** 0.5,
                "coverage90": hits / window.n_inside,
                "error_power": {edge: measured[edge] / expected[edge] for edge in measured},
            }
        )
    return rows


def power_by_band(fields: Tensor) -> dict[str, float]:
    """Sum over fields ``(batch, *shape)`` of ``|F x|^2 / n`` in each of the `BANDS` with modes.

    Args:
        fields: real or complex.

    Returns:
        The power by the upper edge of its band.
    """
    return _by_band(_power(fields))


class _Window:
    """What the masks of all fields make of a spectrum: it is smeared by their own."""

    def __init__(self, batches: list[Tensor]) -> None:
        masks = [object_mask(batch) for batch in batches]
        self.n_inside = sum(int(mask.sum()) for mask in masks)
        power = sum(_power(mask) for mask in masks)
        self._correlation = np.fft.ifftn(power)

    def smeared(self, spectrum: _Array) -> _Array:
        """Sum over the fields of ``E |F (M u)|^2 / n`` for a ``u`` of this spectrum."""
        smeared = np.fft.fftn(np.fft.ifftn(spectrum) * self._correlation)
        return np.asarray(smeared.real, np.float64)


class _Bins:
    """Means over modes about each wavenumber: the transpose of linear interpolation in ``|k|``."""

    def __init__(self, k: _Array, wavenumbers: _Array) -> None:
        self.k, self.wavenumbers = k, wavenumbers
        n = wavenumbers.size
        place = np.interp(k, wavenumbers, np.arange(float(n))).ravel()
        self._low = np.minimum(place.astype(int), n - 2)
        self._share = place - self._low
        # A small grid has no modes near some of the wavenumbers.
        self._is_hit = self.total(np.ones(k.shape)) > 0

    def total(self, values: _Array) -> _Array:
        """Sums of ``values`` on the DFT grid, each mode shared by its two nearest wavenumbers."""
        n, flat = self.wavenumbers.size, values.ravel()
        low = np.bincount(self._low, (1 - self._share) * flat, n)
        high = np.bincount(self._low + 1, self._share * flat, n)
        return np.asarray(low + high, np.float64)

    def quotient(self, above: _Array, below: _Array) -> _Array:
        """Sums of ``above`` over sums of ``below``, interpolated where there are no modes."""
        hit = self._is_hit
        found = self.total(above)[hit] / self.total(below)[hit]
        return np.asarray(np.interp(self.wavenumbers, self.wavenumbers[hit], found), np.float64)


def _radial(power: _Array, window: _Window, bins: _Bins) -> _Array:
    """The radial spectrum ``(n_wavenumbers,)`` that the window smears to ``power``."""
    row = np.ones(bins.wavenumbers.size)
    for _ in range(_SWEEPS):
        expected = window.smeared(np.interp(bins.k, bins.wavenumbers, row))
        row *= bins.quotient(power, expected)
    return row


def _by_band(power: _Array) -> dict[str, float]:
    """Sums over the modes ``(*shape)`` of each of the `BANDS` that has any."""
    band = np.digitize(_radius(power.shape), BANDS)
    return {
        f"{edge:g}": float(power[band == b].sum())
        for b, edge in enumerate(BANDS)
        if (band == b).any()
    }


def _radius(shape: tuple[int, ...]) -> _Array:
    """``|k|`` on the DFT grid of ``shape``, cycles per pixel."""
    axes = np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij")
    return np.asarray(np.sqrt(sum(axis**2 for axis in axes)), np.float64)


def _power(fields: Tensor) -> _Array:
    """Sum over the batch of ``|F x|^2 / n``, ``(*shape)``."""
    axes = tuple(range(1, fields.ndim))
    n = fields[0].numel()
    power = torch.fft.fftn(fields.to(torch.complex128), dim=axes).abs().square().sum(0) / n
    return np.asarray(power.cpu().numpy(), np.float64)


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
    return [batch for batch in batches if len(batch)]


def _denoised(
    prior: SpectralPrior, batches: list[Tensor], *, ratio: float, seed: int
) -> Iterator[_Pass]:
    schedule = prior.schedule
    t = schedule.time(torch.tensor(ratio, dtype=torch.float64))
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    for index, x_0 in enumerate(batches):
        eps = NoiseField(seed)(prior.grid, range(len(x_0)), index).to(x_0.device)
        with torch.inference_mode():
            mean, std = prior.mean_and_std(alpha * x_0 + sigma * eps, t)
            error = x_0 - mean
            yield _Pass(
                error, torch.ones_like(error.real) if std is None else std, object_mask(x_0)
            )
