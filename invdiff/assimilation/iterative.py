"""The iterative ensemble Kalman filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.arguments import as_integer, as_number
from invdiff.assimilation.analysis import EnsembleAnalysis, correlations, predictions, transform
from invdiff.likelihood import Likelihood
from invdiff.noise import StepNoise

__all__ = ["IEnKF"]


@dataclass(frozen=True)
class IEnKF(EnsembleAnalysis):
    r"""The iterative ensemble Kalman filter: data are explained by states of the cycle before.

    With the model ``F`` from the last analysis to the time of the data, the deviations ``X`` of the
    members there and weights ``w`` of each point of the grid, Gauss-Newton steps minimise ::

        |y - A(F(x + X w))|^2_(rho / Sigma) / 2 + (M - 1) |w|^2 / 2

    where ``Y``, the derivative of the predictions along the members, is found from members that are
    ``bundle`` times as far from the present mean (Sakov, Oliver & Bertino 2012, doi
    10.1175/MWR-D-11-00176.1; localized: Bocquet 2016, doi 10.1002/qj.2711). The members then are
    transformed as by `LETKF`, and go on to the time of the data.

    Assumptions: a model without error, members that are nearly Gaussian at the last analysis.
    Localization takes the places of the data as those of the state before; it is for data that
    follow soon. Nothing is drawn.

    Cost: per Gauss-Newton step a forecast of all members, and an analysis of `LETKF`; then one more
    forecast.

    Args:
        localization: Correlation by distance; None for none.
        inflation: Factor on the deviations of the members from their mean, before the analysis.
        relaxation: Share of the spread before the analysis to which that after it is relaxed.
        iterations: Number of Gauss-Newton steps.
        bundle: Distance of the members that find the derivative, in deviations of the members.

    Raises:
        InputError: A setting out of range.
    """

    iterations: int = 3
    bundle: float = 1.0

    starts_before: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "iterations", as_integer("iterations", self.iterations, least=1))
        as_number("bundle", self.bundle)

    def __call__(self, members: Tensor, data: Likelihood, noise: StepNoise) -> Tensor:
        """The members of the cycle before, after the data, ``(M, *domain)``."""
        x = self.inflated(members)
        start = x.mean(0)
        deviations = (x - start).flatten(1)
        roots = correlations(self.localization, data, start).of_points.sqrt()
        weights = torch.zeros(len(roots), len(x)).to(x)
        for _ in range(self.iterations):
            mean = start + self._along(deviations, weights).reshape(start.shape)
            near = mean + self.bundle * (x - start)
            predicted = predictions(near, data)
            y = predicted.deviations / self.bundle
            # The residual at the mean, continued to the weights zero.
            at_zero = predicted.residuals.mean(0) + weights @ y
            own = roots[:, None] * y
            update = transform(own, roots * at_zero)
            weights = update.mean
        moved = torch.einsum("mp,pmk->kp", deviations, update.matrix.expand(x[0].numel(), -1, -1))
        return self.relaxed(start + moved.reshape(x.shape), members)

    @staticmethod
    def _along(deviations: Tensor, weights: Tensor) -> Tensor:
        """The change of the field by weights ``(points or 1, M)`` of the deviations."""
        return (deviations * weights.mT).sum(0)
