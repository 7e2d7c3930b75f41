"""Poisson counts, as in photon-limited imaging."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invdiff.errors import DTypeError, InputError
from invdiff.likelihood.base import Likelihood, measured_values
from invdiff.protocols import Operator

__all__ = ["Poisson"]


class Poisson(Likelihood):
    """Counts ``y ~ Poisson(gain A(x))``, as in photon-limited imaging (Shepp & Vardi 1982).

    With predictions ``z = A(x)`` (doi 10.1109/TMI.1982.4307558)::

        log p(y | z) = sum y log z - gain z + const

    The Fisher information is ``gain / z``. The density is zero, its logarithm ``-inf``, for
    negative predictions, and for zero ones where something was counted: Metropolis steps and line
    searches then turn back. Methods that need a quadratic approximation there (``information``,
    ``local``, ``misfit``) raise an error instead.

    Assumptions: real predictions that the operator keeps positive, such as ``operators.Lognormal``.
    Cost: one operator call per evaluation and one reverse pass per gradient.

    Args:
        y: Counts, ``(*operator.range.shape)``: whole numbers in a floating-point tensor.
        operator: Forward operator with real, positive predictions.
        gain: Expected counts per unit of the prediction.

    Raises:
        ShapeError: The data do not lie on the operator's range.
        NonFiniteError: The data hold NaN or Inf.
        DTypeError: The data are complex.
        InputError: The data are not counts, or the gain is not positive.

    Example:
        >>> import torch
        >>> from invdiff import Grid, Poisson
        >>> from invdiff.operators import Identity
        >>> data = Poisson(torch.tensor([4.0, 9.0]), Identity(Grid(("x",), (2,))))
        >>> data.misfit(torch.tensor([[4.0, 4.0]]))  # residuals 0 and 5, variance 4
        tensor([3.1250])
    """

    def __init__(self, y: Tensor, operator: Operator, gain: float = 1.0) -> None:
        super().__init__(y, operator)
        if y.is_complex():
            raise DTypeError(
                "counts must be real", got=y.dtype, expected="an operator with real data"
            )
        if not ((y >= 0) & (y == y.round())).all():
            raise InputError(
                "data are not counts",
                got=f"values from {float(y.min())} to {float(y.max())}",
                expected="whole numbers >= 0",
                hint="Undo the scaling of the data, and pass it as the gain.",
            )
        if not 0 < gain < math.inf:
            raise InputError("the gain is out of range", got=gain, expected="finite, > 0")
        self.gain = float(gain)

    def __repr__(self) -> str:
        return f"Poisson(y, {self.operator!r}, gain={self.gain})"

    def log_density(self, z: Tensor) -> Tensor:
        """``sum y log z - gain z``, ``(batch,)``; ``-inf`` where a prediction is impossible."""
        z, y = measured_values(z, self.operator), measured_values(self.y[None], self.operator)
        possible = (z > 0) | ((z == 0) & (y == 0))
        inside = torch.where(possible, z, 1.0)  # so that gradients are finite everywhere
        terms = torch.special.xlogy(y, inside) - self.gain * inside
        return torch.where(possible, terms, -math.inf).sum(1)

    @property
    def log_normalisation(self) -> float:
        """The constant that makes :meth:`log_density` that of a distribution over counts."""
        y = measured_values(self.y[None], self.operator)
        return float((y * math.log(self.gain) - torch.lgamma(y + 1)).sum())

    def information(self, z: Tensor) -> Tensor:
        """Fisher information ``gain / z``, ``(batch, *data)``; zero for data that are not measured.

        Raises:
            InputError: A prediction of a measured datum is not positive.
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
                hint="Use an operator with positive predictions, for example Lognormal(linear).",
            )
        return torch.where(measured > 0, self.gain / z, 0)
