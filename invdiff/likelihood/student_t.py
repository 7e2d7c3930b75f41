"""Student-t noise, robust to outliers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invdiff.errors import InputError, NoiseLevelError
from invdiff.likelihood.base import Likelihood
from invdiff.protocols import Operator

__all__ = ["StudentT"]


class StudentT(Likelihood):
    """Student-t noise ``y = A(x) + s n``, robust to outliers (Lange, Little & Taylor 1989).

    With residuals ``r = y - A(x)``, scale ``s``, ``nu`` degrees of freedom, and ``d = 1`` for real
    data, ``d = 2`` for complex data (doi 10.2307/2290063)::

        log p(y | x) = -(nu + d) / 2 sum log(1 + d |r|^2 / (nu s^2)) + const

    The Fisher information is ``(nu + d) / ((nu + d + 2) s^2)``, the same everywhere.

    Assumptions: outliers that occur in each datum independently; for complex data circular noise.
    Cost: that of `Gaussian`, one operator call per evaluation and one reverse pass per gradient.

    Args:
        y: Data, ``(*operator.range.shape)``.
        operator: Forward operator.
        noise_std: Scale ``s``, in the units of ``y``: the standard deviation of the Gaussian that
            the noise becomes for many degrees of freedom. The noise itself has
            ``sqrt(nu / (nu - 2))`` times that.
        degrees: Degrees of freedom ``nu``: 1 is Cauchy, 4 a common choice.

    Raises:
        ShapeError: The data do not lie on the operator's range.
        NonFiniteError: The data hold NaN or Inf.
        NoiseLevelError: The scale is not finite and positive.
        InputError: The degrees of freedom are not finite and positive.

    Example:
        The penalty grows with the logarithm of an outlier, not with its square:

        >>> import torch
        >>> from invdiff import Grid, StudentT
        >>> from invdiff.operators import Identity
        >>> data = StudentT(torch.zeros(1), Identity(Grid(("x",), (1,))), 1.0)
        >>> data.log_density(torch.tensor([[10.0], [100.0]]))
        tensor([ -8.1452, -19.5611])
    """

    def __init__(
        self, y: Tensor, operator: Operator, noise_std: float, *, degrees: float = 4.0
    ) -> None:
        super().__init__(y, operator)
        if not 0 < noise_std < math.inf:
            raise NoiseLevelError("the noise level is not positive", got=noise_std, expected="> 0")
        if not 0 < degrees < math.inf:
            raise InputError(
                "the degrees of freedom are out of range",
                got=degrees,
                expected="finite, > 0",
                hint="Use about 4 for data with outliers; for data without any, use Gaussian.",
            )
        self.noise_std, self.degrees = float(noise_std), float(degrees)

    def __repr__(self) -> str:
        return f"StudentT(y, {self.operator!r}, {self.noise_std}, degrees={self.degrees})"

    @property
    def _n_parts(self) -> int:
        return 2 if self.y.is_complex() else 1

    def log_density(self, z: Tensor) -> Tensor:
        """``-(nu + d) / 2 sum log(1 + d |y - z|^2 / (nu s^2))``, ``(batch,)``."""
        d = self._n_parts
        r = self.y - z
        squares = (r * r.conj()).real / self.noise_std**2  # smooth at zero, which abs is not
        return -(self.degrees + d) / 2 * torch.log1p(d * squares / self.degrees).flatten(1).sum(1)

    @property
    def log_normalisation(self) -> float:
        """The constant that makes :meth:`log_density` a density over the measured data."""
        d, nu = self._n_parts, self.degrees
        volume = d / 2 * math.log(nu * math.pi * self.noise_std**2 / d)
        return self.operator.n_data * (math.lgamma((nu + d) / 2) - math.lgamma(nu / 2) - volume)

    def information(self, z: Tensor) -> Tensor:
        """Fisher information ``(nu + d) / ((nu + d + 2) s^2)``, the same for each datum."""
        n = self.degrees + self._n_parts
        return torch.full_like(z.real, n / (n + 2) / self.noise_std**2)
