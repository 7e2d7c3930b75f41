"""The objective of an inversion: misfit and gradient of models, and their cost in solves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from invdiff.covariance import SpectralCovariance
from invdiff.errors import InputError
from invdiff.fwi.diagnose import pulled_back
from invdiff.fwi.misfit import L2, Filtered, Masked, Misfit, SourceFitted
from invdiff.grid import Grid
from invdiff.noise import InversionStream, NoiseField
from invdiff.protocols import WaveOperator

__all__ = ["Objective"]

# Power of white noise that `lowpass` passes, as a share of that below its corner: the integral of
# (1 + x^8)^-2.
_PASSED = 7 / 8 * (np.pi / 8) / float(np.sin(np.pi / 8))

_SMOOTHING = 3.0  # cells: the squares of a single draw fluctuate
_FLOOR = 1e-3  # of the largest illumination
_WRAPPERS = Masked | Filtered | SourceFitted


@dataclass(frozen=True, eq=False)
class Objective:
    """The misfit ``scale * misfit(F(x), y)`` and its gradient as a function of models ``x``.

    Cost: an evaluation takes a forward and an adjoint solve per model and shot.

    Args:
        operator: Operator ``F`` that predicts the traces.
        y: Data, ``(shot, receiver, time)``.
        misfit: Misfit of the traces of a shot; minus their log-likelihood for an ensemble.
        noise_std: Standard deviation of the noise of a sample.
        n_data: Number of samples that count, as in a chi-square.
        scale: Number of all shots over the number of those that ``operator`` fires.
    """

    operator: WaveOperator
    y: Tensor
    misfit: Misfit
    noise_std: float
    n_data: float
    scale: float = 1.0

    @classmethod
    def gaussian(
        cls,
        operator: WaveOperator,
        y: Tensor,
        noise_std: float,
        *,
        misfit: Misfit | None = None,
        weights: Tensor | None = None,
    ) -> Objective:
        """Half the squared residual over the noise, or another misfit, of weighted traces.

        Args:
            operator: Operator ``F`` that predicts the traces.
            y: Data, ``(shot, receiver, time)``.
            noise_std: Standard deviation of the noise of a sample.
            misfit: Misfit of a shot; None for ``L2(noise_std)``.
            weights: Weights, broadcastable to ``y``; 0 leaves samples out.

        Raises:
            InputError: All weights are zero.
        """
        misfit = misfit or L2(noise_std)
        n_data = float(y.numel())
        if weights is not None:
            if isinstance(misfit, SourceFitted):  # which fits the source with them
                misfit = misfit.masked(weights)
            else:
                misfit = Masked(misfit, weights)
            n_data = float(weights.square().expand(y.shape).sum())
            if n_data == 0:
                raise InputError(
                    "the weights leave no data",
                    got="only zeros",
                    expected="a weight that is not zero",
                    hint="A weight of 1 keeps a sample, 0 leaves it out.",
                )
        return cls(operator, y, misfit, noise_std, n_data)

    @property
    def n_shots(self) -> int:
        """Forward solves per evaluation and model; there are as many adjoint ones."""
        return self.operator.range.shape[0]

    @property
    def has_data(self) -> bool:
        """Whether any sample counts: the weights may leave out all shots of a minibatch."""
        return self._weights is None or bool(self._weights.any())

    @property
    def _weights(self) -> Tensor | None:
        """Product of the weights of all masks around the misfit, where the data are."""
        return _masks(self.misfit, self.y.device)

    def is_explained(self, f: Tensor) -> bool:
        """Whether a misfit is zero, or due to rounding where it is a least-squares one.

        A residual of a hundred roundings of the data is not due to the model.
        """
        if isinstance(_unwrapped(self.misfit), L2):
            rounding = 100 * torch.finfo(self.y.dtype).eps
            y = self.y if self._weights is None else self._weights * self.y
            silence = self.scale * float(y.double().square().sum()) / (2 * self.noise_std**2)
            return bool(f <= rounding**2 * silence)
        return bool(f == 0)

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest velocity of the models, m/s."""
        return self.operator.bounds

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values ``(batch,)``, double, and gradients ``(batch, nz, nx)`` at models in bounds."""
        values, gradients = self.operator.misfit_and_gradient(x, self.y, misfit=self.misfit)
        return self.scale * values, self.scale * gradients

    def hessian(self, x: Tensor, noise: NoiseField) -> SpectralCovariance:
        r"""Gauss-Newton Hessian ``J^T J / noise_std^2`` at models, as ``D F^H S F D``.

        White data pulled back, ``J^T e``, are draws of a field with this covariance. Their mean
        square by cell, smoothed, gives the map ``D^2``, and their mean spectrum by wavenumber, once
        divided by ``D`` and by its own mean, the power ``S``. Cost: a forward and an adjoint solve
        per model and shot, for one draw of ``e`` each; all models are solved for together.

        Args:
            x: Models, ``(batch, nz, nx)``, m/s.
            noise: Source of ``e``, which is the same for all models.

        Returns:
            One operator for each model, in 1 / (m/s)^2.
        """
        e = noise(self.operator.range, [0], 0, stream=InversionStream.ILLUMINATION)[0].to(x)
        draws = pulled_back(self.operator, x, e if self._weights is None else self._weights * e)
        found = [_power_and_std(fields) for fields in draws.cpu()]
        power, std = (torch.stack(parts).to(x.device) for parts in zip(*found, strict=True))
        return SpectralCovariance(power, std / self.noise_std, is_complex=False, by_member=True)

    def below(self, frequency: float) -> Objective:
        """The objective of data and prediction that are low-passed at a frequency in Hz."""
        dt = _interval(self.operator.range)
        # Of white noise this share of the power passes the filter, the integral of its response
        # squared: so many samples stay independent.
        share = min(1.0, 2 * frequency * dt * _PASSED)
        misfit: Misfit = Filtered(self.misfit, frequency, dt)
        weights = self._weights
        if weights is not None:
            # Where nothing was recorded the data are zero; the filter would smear the prediction
            # there into the recorded samples.
            recorded = (weights != 0) | (self.y != 0)
            if bool((recorded.any(-1) & ~recorded.all(-1)).any()):
                misfit = Masked(misfit, recorded.to(self.y.dtype))
        return replace(self, misfit=misfit, n_data=share * self.n_data)

    def shots(self, indices: Sequence[int]) -> Objective:
        """The objective of some of the shots, scaled to stand for all."""
        n = self.n_shots
        return replace(
            self,
            operator=self.operator.shots(indices),
            y=self.y[list(indices)],
            misfit=self.misfit.shots(indices),
            scale=self.scale * n / len(indices),
        )

    def encoded(self, weights: np.ndarray) -> Objective:
        """The objective of simultaneous sources, scaled to stand for all.

        ``E |sum_i w_i r_i|^2 = sum_i |r_i|^2`` for independent weights of unit variance. Shots
        without any data, such as dead ones, are not fired.

        Raises:
            InputError: The misfit weights the shots differently.
        """
        mask, code, misfit = self._weights, torch.as_tensor(weights), self.misfit
        if mask is not None and mask.ndim == 3 and len(mask) > 1:
            has_data = mask.flatten(1).any(1)
            first = int(has_data.int().argmax())
            if not torch.equal(mask[has_data], mask[first].expand_as(mask[has_data])):
                raise InputError(
                    "shots with different weights cannot be fired together",
                    got=f"weights of {int(has_data.sum())} shots that differ",
                    expected="weights (receiver, time) that all shots share",
                    hint="Omit the mute of near offsets and the weights by amplitude, or use"
                    " Minibatch. Receivers must be dead in all shots or in none.",
                )
            code, misfit = code * has_data.cpu(), misfit.shots([first])
        return replace(
            self,
            operator=self.operator.encoded(code.numpy()),
            y=torch.einsum("sj,jrt->srt", code.to(self.y), self.y),
            misfit=misfit,
            scale=self.scale / len(weights),
        )


def _masks(misfit: Misfit, device: torch.device) -> Tensor | None:
    """Product of the weights of all masks around a misfit; None without a mask."""
    if not isinstance(misfit, _WRAPPERS):
        return None
    inner = _masks(misfit.misfit, device)
    if not isinstance(misfit, Masked):
        return inner
    weights = misfit.weights.to(device)
    return weights if inner is None else weights * inner


def _unwrapped(misfit: Misfit) -> Misfit:
    return _unwrapped(misfit.misfit) if isinstance(misfit, _WRAPPERS) else misfit


def _power_and_std(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Power ``S`` and map ``D`` of a field's draws ``(n, nz, nx)``, on the CPU."""
    squares = gaussian_filter(draws.square().sum(0).numpy(), _SMOOTHING, mode="nearest")
    illumination = torch.from_numpy(squares + _FLOOR * squares.max())
    spectra = torch.fft.fft2(draws / illumination.sqrt(), norm="ortho").abs().square().sum(0)
    power = _radial_mean(spectra)
    return power / power.mean(), illumination.sqrt()


def _radial_mean(power: Tensor) -> Tensor:
    """Mean over modes of nearly the same wavenumber, on the grid of the modes."""
    k = sum(a**2 for a in np.meshgrid(*map(np.fft.fftfreq, power.shape), indexing="ij")) ** 0.5
    ring = np.round(k * min(power.shape)).astype(int)
    mean = np.bincount(ring.ravel(), power.numpy().ravel()) / np.bincount(ring.ravel())
    return torch.from_numpy(mean[ring])


def _interval(grid: Grid) -> float:
    time = np.asarray(grid.coords["time"], np.float64)
    return float(time[-1] - time[0]) / (len(time) - 1)
