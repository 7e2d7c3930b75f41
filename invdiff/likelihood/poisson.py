r"""Poisson counts: ``y ~ Poisson(g z)``, as in photon-limited imaging (Shepp & Vardi 1982).

    log p(y | z) = sum y log z - g z + const

Fisher information ``g / z``, exact. The density is zero, its logarithm ``-inf``, for predictions
below zero, and at zero where something was counted: that is the model, not a clip; a Metropolis
step or a line search then turns back. What needs a working model there (``information``, ``local``,
``misfit``) refuses instead. Keep predictions positive by the operator, such as
``operators.nonlinear.Lognormal``. Cost: as a Gaussian.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invdiff.errors import DTypeError, InputError
from invdiff.likelihood.base import Likelihood, measured_values
from invdiff.protocols import Operator

__all__ = ["Poisson"]


class Poisson(Likelihood):
    """Counts with expectation ``gain * operator(x)``.

    Args:
        y: counts ``(*operator.range.shape)``, whole numbers in a float tensor.
        operator: any operator with real, positive predictions.
        gain: counts a unit of the prediction.

    Raises:
        ShapeError: data that do not lie on the operator's range.
        NonFiniteError: NaN or Inf in the data.
        DTypeError: complex data.
        InputError: data that are no counts, or a gain that is not positive.
    """

    def __init__(self, y: Tensor, operator: Operator, gain: float = 1.0) -> None:
        super().__init__(y, operator)
        if y.is_complex():
            raise DTypeError("counts are real", got=y.dtype, expected="an operator with real data")
        if not ((y >= 0) & (y == y.round())).all():
            raise InputError(
                "data are not counts",
                got=f"values from {float(y.min())} to {float(y.max())}",
                expected="whole numbers >= 0",
                hint="Undo their scaling, and hand it over as the gain.",
            )
        if not 0 < gain < math.inf:
            raise InputError("gain out of range", got=gain, expected="finite, > 0")
        self.gain = float(gain)

    def __repr__(self) -> str:
        """Operator and gain."""
        return f"Poisson(y, {self.operator!r}, gain={self.gain})"

    def log_density(self, z: Tensor) -> Tensor:
        """``sum y log z - gain z``, ``-inf`` where a prediction is impossible, ``(batch,)``."""
        z, y = measured_values(z, self.operator), measured_values(self.y[None], self.operator)
        possible = (z > 0) | ((z == 0) & (y == 0))
        inside = torch.where(possible, z, 1.0)  # so that no gradient passes where the other is
        terms = torch.special.xlogy(y, inside) - self.gain * inside
        return torch.where(possible, terms, -math.inf).sum(1)

    @property
    def log_normalisation(self) -> float:
        """What makes :meth:`log_density` that of a distribution over counts."""
        y = measured_values(self.y[None], self.operator)
        return float((y * math.log(self.gain) - torch.lgamma(y + 1)).sum())

    def information(self, z: Tensor) -> Tensor:
        """``gain / z``, and zero for data that are not measured.

        Raises:
            InputError: predictions that are not positive.
        """
        measured = torch.zeros_like(z).flatten(1)
        mask: Tensor | None = getattr(self.operator, "measured", None)
        measured[:, slice(None) if mask is None else mask.flatten()] = 1
        measured = measured.reshape(z.shape)
        if not ((z > 0) | (measured == 0)).all():
            raise InputError(
                "predicted counts are not positive",
                got=f"minimum {float(z.min())}",
                expected="> 0 for every measured datum",
                hint="Make them positive by the operator, for example Lognormal(linear).",
            )
        return torch.where(measured > 0, self.gain / z, 0)
