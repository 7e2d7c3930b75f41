"""The iterative ensemble Kalman filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.assimilation.analysis import EnsembleAnalysis, correlations, perturbations
from invdiff.conditioning.laplace import Laplace
from invdiff.covariance import DenseCovariance
from invdiff.likelihood import Likelihood
from invdiff.noise import StepNoise

__all__ = ["IEnKF"]


@dataclass(frozen=True)
class IEnKF(EnsembleAnalysis):
    r"""The iterative ensemble Kalman filter: data are explained by states of the cycle before.

    The members ``x_i`` of the last analysis and the model ``F`` to the time of the data make the
    prior ``N(m, C)``, localized and inflated, and the operator ``A o F``. Gauss-Newton steps find
    the mode ``x*`` (`invdiff.Laplace`); with the Jacobian ``J`` there the members move by ::

        x_i <- x_i + C J^T (J C J^T + Sigma)^-1 (y + n_i - A(F(x*)) - J (x_i - x*))

    and go on to the time of the data (Sakov, Oliver & Bertino 2012, doi 10.1175/MWR-D-11-00176.1;
    here with perturbed observations). Neither model nor operator is replaced by a regression over
    the members, and what the data say of the last state is used.

    Assumptions: a differentiable model and operator, a model without error, Gaussian members.

    Cost: per Gauss-Newton step as many reverse passes of model and operator as there are data, for
    one state; then one more forecast of the members.

    Args:
        localization: Correlation by distance; None for none.
        inflation: Factor on the deviations of the members from their mean, before the analysis.
        relaxation: Share of the spread before the analysis to which that after it is relaxed.
        iterations: Largest number of Gauss-Newton steps.

    Raises:
        InputError: An inflation that is not positive, or a share outside ``[0, 1]``.
    """

    iterations: int = 4
    starts_before: ClassVar[bool] = True

    def __call__(self, members: Tensor, data: Likelihood, noise: StepNoise) -> Tensor:
        """The members of the cycle before, after the data, ``(M, *domain)``."""
        x = self.inflated(members)
        mean = x.mean(0, keepdim=True)
        deviations = (x - mean).flatten(1)
        covariance = deviations.mT @ deviations / (len(x) - 1)
        if self.localization is not None:
            covariance = covariance * correlations(self.localization, data.operator.domain, like=x)
        laplace = Laplace(iterations=self.iterations, scale=None)
        (model,) = laplace.around_mode(mean, DenseCovariance.of(covariance), [data]).models
        matrix = model.matrix().reshape(-1, x[0].numel())
        e = perturbations(data, noise, like=x)
        residuals = model.measured(model.residual(mean)) - deviations @ matrix.mT + e
        gain = covariance @ matrix.mT
        eye = torch.eye(len(matrix), dtype=x.dtype, device=x.device)
        weights = torch.linalg.solve(matrix @ gain + eye, residuals.mT)
        return self.relaxed(x + (gain @ weights).mT.reshape(x.shape), members)
