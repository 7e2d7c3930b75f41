r"""Student-t noise: robust to outliers (Lange, Little & Taylor 1989, doi 10.2307/2290063).

With residuals ``r = y - z``, scale ``s`` and ``d = 1`` for real data, 2 for complex ones::

    log p(y | z) = -(nu + d) / 2 sum log(1 + d |r|^2 / (nu s^2)) + const

Each datum has its own outliers; complex ones are circular. Fisher information ``(nu + d) /
((nu + d + 2) s^2)``, exact and the same everywhere. Cost: as a Gaussian.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invdiff.errors import InputError, NoiseLevelError
from invdiff.likelihood.base import Likelihood
from invdiff.protocols import Operator

__all__ = ["StudentT"]


class StudentT(Likelihood):
    r"""``y = A(x) + s n`` with ``n`` of a t-distribution.

    Args:
        y: data ``(*operator.range.shape)``.
        operator: any operator.
        noise_std: scale ``s``, in the units of ``y``: the standard deviation of the Gaussian that
            the noise becomes for many degrees; its own is ``sqrt(nu / (nu - 2))`` times that.
        degrees: ``nu``, degrees of freedom; 1 is Cauchy, 4 a common choice.

    Raises:
        ShapeError: data that do not lie on the operator's range.
        NonFiniteError: NaN or Inf in the data.
        NoiseLevelError: a scale that is not finite and positive.
        InputError: degrees that are not finite and positive.
    """

    def __init__(
        self, y: Tensor, operator: Operator, noise_std: float, *, degrees: float = 4.0
    ) -> None:
        super().__init__(y, operator)
        if not 0 < noise_std < math.inf:
            raise NoiseLevelError("noise level is not positive", got=noise_std, expected="> 0")
        if not 0 < degrees < math.inf:
            raise InputError(
                "degrees of freedom out of range",
                got=degrees,
                expected="finite, > 0",
                hint="Take about 4 for outliers; without any, use Gaussian.",
            )
        self.noise_std, self.degrees = float(noise_std), float(degrees)

    def __repr__(self) -> str:
        """Operator, scale and degrees."""
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
        """What makes :meth:`log_density` a density over the measured data."""
        d, nu = self._n_parts, self.degrees
        volume = d / 2 * math.log(nu * math.pi * self.noise_std**2 / d)
        return self.operator.n_data * (math.lgamma((nu + d) / 2) - math.lgamma(nu / 2) - volume)

    def information(self, z: Tensor) -> Tensor:
        """``(nu + d) / ((nu + d + 2) s^2)``."""
        n = self.degrees + self._n_parts
        return torch.full_like(z.real, n / (n + 2) / self.noise_std**2)
