"""The analysis of a cycle: an ensemble before the data becomes one after them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from invdiff.arguments import as_number, as_share
from invdiff.conditioning.adaptive import linear_model
from invdiff.covariance import GaspariCohn
from invdiff.errors import UnsupportedError
from invdiff.likelihood import Likelihood
from invdiff.likelihood.base import measured_values
from invdiff.noise import StepNoise, Stream

__all__ = [
    "LETKF",
    "Analysis",
    "EnKF",
    "EnsembleAnalysis",
    "correlations",
    "predictions",
    "transform",
]

_POINTS_AT_ONCE = 4096  # of a local analysis, whose matrices are in memory together


class Analysis(Protocol):
    """What turns members before the data of a cycle into members after them."""

    @property
    def starts_before(self) -> bool:
        """Whether it changes the states of the cycle before, whose forecast has the data."""
        ...

    def __call__(self, members: Tensor, data: Likelihood, noise: StepNoise) -> Tensor:
        """The members after the data.

        Args:
            members: Members ``(M, *domain)`` of the forecast.
            data: Likelihood of the data of this time.
            noise: Noise of the members and this cycle.
        """
        ...


@dataclass(frozen=True)
class EnsembleAnalysis:
    """Settings that every analysis by an ensemble has.

    Args:
        localization: Correlation by distance; None for none.
        inflation: Factor on the deviations of the members from their mean, before the analysis.
        relaxation: Share of the spread before the analysis to which that after it is relaxed, in
            ``[0, 1]`` (relaxation to prior spread: Whitaker & Hamill 2012, doi
            10.1175/MWR-D-11-00276.1).

    Raises:
        InputError: An inflation that is not positive, or a share outside ``[0, 1]``.
    """

    localization: GaspariCohn | None = None
    inflation: float = 1.0
    relaxation: float = 0.0

    starts_before: ClassVar[bool] = False

    def __post_init__(self) -> None:
        as_number("inflation", self.inflation)
        as_share("relaxation", self.relaxation)

    def inflated(self, members: Tensor) -> Tensor:
        """Members ``(M, *domain)`` with their deviations times ``inflation``."""
        mean = members.mean(0)
        return mean + self.inflation * (members - mean)

    def relaxed(self, after: Tensor, before: Tensor) -> Tensor:
        """Members after the data with some of the spread of those before, ``(M, *domain)``."""
        if self.relaxation == 0:
            return after
        mean, std = after.mean(0), after.std(0)
        wanted = (1 - self.relaxation) * std + self.relaxation * before.std(0)
        return mean + (after - mean) * (wanted / std.clamp_min(torch.finfo(std.dtype).tiny))


@dataclass(frozen=True)
class EnKF(EnsembleAnalysis):
    r"""The ensemble Kalman filter with perturbed observations.

    With the deviations ``X`` of the members and ``Y`` of their predictions ``A(x_i)``, and the
    correlation ``rho`` of the localization between points and data::

        K = (rho_xy o X Y^T) (rho_yy o Y Y^T + (M - 1) Sigma)^-1
        x_i <- x_i + K (y + n_i - A(x_i)),    n_i ~ N(0, Sigma), of zero mean over the members

    (Burgers et al. 1998, doi 10.1175/1520-0493(1998)126<1719:ASITEK>2.0.CO;2; Houtekamer & Mitchell
    2001, doi 10.1175/1520-0493(2001)129<0123:ASEKFF>2.0.CO;2.) A datum stands where it depends most
    on the field. For linear data that are single values it is the draw of `MomentMatching` from an
    `invdiff.priors.EnsemblePrior`, with the members as the draws before the data.

    Assumptions: members that are nearly Gaussian; with localization, noise that is independent
    between data. Operators that are not linear are replaced by the regression over the members.

    Cost: one call of the operator per member and a solve with as many unknowns as data.

    Args:
        localization: Correlation by distance; None for none. It needs an operator that is linear or
            differentiable, to find where the data stand.
        inflation: Factor on the deviations of the members from their mean, before the analysis.
        relaxation: Share of the spread before the analysis to which that after it is relaxed.

    Raises:
        InputError: An inflation that is not positive, or a share outside ``[0, 1]``.

    Example:
        >>> import torch
        >>> from invdiff import Gaussian, Grid, NoiseField
        >>> from invdiff.assimilation import EnKF
        >>> from invdiff.noise import StepNoise
        >>> from invdiff.operators import Identity
        >>> grid = Grid(("x",), (1,))
        >>> members = torch.linspace(-1, 1, 100)[:, None]
        >>> noise = StepNoise(NoiseField(0), tuple(range(100)), 0, torch.device("cpu"))
        >>> data = Gaussian(torch.ones(1), Identity(grid), 0.1)
        >>> after = EnKF()(members, data, noise)
        >>> round(float(after.mean()), 2), round(float(after.std()), 1)
        (0.97, 0.1)
    """

    def __call__(self, members: Tensor, data: Likelihood, noise: StepNoise) -> Tensor:
        """The members after the data, ``(M, *domain)``."""
        x = self.inflated(members)
        predicted = predictions(x, data)
        e = perturbations(data, noise, like=x)
        deviations, scale = (x - x.mean(0)).flatten(1), len(x) - 1
        rho = correlations(self.localization, data, x.mean(0))
        cross = rho.of_points * (deviations.mT @ predicted.deviations / scale)
        own = rho.of_data * predicted.covariance
        eye = torch.eye(len(own), dtype=own.dtype, device=own.device)
        weights = torch.linalg.solve(own + eye, (predicted.residuals + e).mT)
        moved = x + (cross @ weights).mT.reshape(x.shape)
        return self.relaxed(moved, members)


@dataclass(frozen=True)
class LETKF(EnsembleAnalysis):
    r"""The local ensemble transform Kalman filter.

    At each point of the grid, with the data that the localization correlates with it, their noise
    divided by that correlation ``rho`` (Hunt et al. 2007, doi 10.1016/j.physd.2006.11.008)::

        P = ((M - 1) I + Y^T (rho o Sigma^-1) Y)^-1,    w = P Y^T (rho o Sigma^-1) (y - A(x))
        x_i <- x + X (w + ((M - 1) P)^(1/2)_i)

    with the mean ``x`` of the members and of their predictions, and the deviations ``X``, ``Y``.

    Assumptions: members that are nearly Gaussian, and noise that is independent between data.
    Operators that are not linear are replaced by the regression over the members. Nothing is drawn.

    Cost: one call of the operator per member and, for each point, an eigendecomposition of a matrix
    of as many rows as members.

    Args:
        localization: Correlation by distance; None for none, where all points have the same
            weights.
        inflation: Factor on the deviations of the members from their mean, before the analysis.
        relaxation: Share of the spread before the analysis to which that after it is relaxed.

    Raises:
        InputError: An inflation that is not positive, or a share outside ``[0, 1]``.
    """

    def __call__(self, members: Tensor, data: Likelihood, noise: StepNoise) -> Tensor:
        """The members after the data, ``(M, *domain)``."""
        x = self.inflated(members)
        predicted, mean = predictions(x, data), x.mean(0)
        deviations = (x - mean).flatten(1)
        innovation = predicted.residuals.mean(0)
        roots = correlations(self.localization, data, mean).of_points.sqrt()
        moved = torch.empty_like(deviations)
        for part in torch.arange(deviations.shape[1], device=x.device).split(_POINTS_AT_ONCE):
            own = roots if len(roots) == 1 else roots[part]
            weights = transform(own[:, None] * predicted.deviations, own * innovation).matrix
            weights = weights.expand(len(part), -1, -1)
            moved[:, part] = torch.einsum("mp,pmk->kp", deviations[:, part], weights)
        return self.relaxed(mean + moved.reshape(x.shape), members)


class Transform(NamedTuple):
    """Weights of the deviations of the members at each point."""

    mean: Tensor
    """Those of the mean, ``w``: ``(points, M)``."""
    matrix: Tensor
    """Those of the members, ``w + ((M - 1) P)^(1/2)``: ``(points, M, M)``, a member a column."""


def transform(y: Tensor, innovation: Tensor) -> Transform:
    """The ensemble transform at each point; see `LETKF`.

    Args:
        y: Whitened deviations of the predictions, ``(points, M, data)``.
        innovation: Whitened difference of data and mean prediction, ``(points, data)``.
    """
    scale = y.shape[1] - 1
    values, vectors = torch.linalg.eigh(y @ y.mT)
    values = values.clamp_min(0) + scale
    pulled = (y @ innovation[..., None])[..., 0]
    mean = (vectors @ ((vectors.mT @ pulled[..., None]) / values[..., None]))[..., 0]
    root = vectors @ ((scale / values).sqrt()[..., None] * vectors.mT)
    return Transform(mean, root + mean[..., None])


class Correlations(NamedTuple):
    """What a localization multiplies covariances by; ones without any."""

    of_points: Tensor
    """Between points of the grid and measured data, ``(points, m)``; ``(1, m)`` without any."""
    of_data: Tensor
    """Between the measured data, ``(m, m)``; ``(1, 1)`` without any."""


def correlations(localization: GaspariCohn | None, data: Likelihood, x: Tensor) -> Correlations:
    """Correlations by the distance of points and data, which stand where `places` finds them.

    Args:
        localization: Correlation by distance; None for none.
        data: Likelihood of the data.
        x: Field at which operators that are not linear are linearised, ``(*domain)``.
    """
    if localization is None:
        return Correlations(torch.ones(1, data.operator.n_data).to(x), torch.ones(1, 1).to(x))
    rho = localization.matrix(data.operator.domain).to(x)
    at = places(data, x[None])
    return Correlations(rho[:, at], rho[at][:, at])


class Predictions(NamedTuple):
    """Whitened predictions of the measured data by the members."""

    deviations: Tensor
    """From their mean, ``(M, m)``."""
    residuals: Tensor
    """Of the data, ``(M, m)``."""

    @property
    def covariance(self) -> Tensor:
        """Covariance of the predictions, ``(m, m)``."""
        return self.deviations.mT @ self.deviations / (len(self.deviations) - 1)


def predictions(x: Tensor, data: Likelihood) -> Predictions:
    """Predictions of members ``(M, *domain)``, whitened for their mean prediction."""
    z = data.operator(x)
    mean = z.mean(0, keepdim=True)
    local = data.local(mean)
    deviations = measured_values(local.whiten(z - mean), data.operator)
    residual = measured_values(local.residual, data.operator)
    return Predictions(deviations, residual - deviations)


def places(data: Likelihood, x: Tensor) -> Tensor:
    """Points of the grid on which the measured data depend most, ``(m,)``."""
    if not (data.is_linear or data.is_differentiable):
        raise UnsupportedError(
            "localization needs to know where the data stand",
            got=f"{data.operator!r}, which is neither linear nor differentiable",
            expected="such an operator, or localization=None",
        )
    matrix = linear_model(data, x).matrix()
    return matrix.reshape(-1, matrix.shape[-1]).abs().argmax(-1)


def perturbations(data: Likelihood, noise: StepNoise, *, like: Tensor) -> Tensor:
    """Standard normal noise of the measured data, ``(M, m)``, of zero mean over the members."""
    e = measured_values(noise(data.operator.range, Stream.DATA).to(like), data.operator)
    unbiased: float = (len(e) / (len(e) - 1)) ** 0.5
    return (e - e.mean(0)) * unbiased
