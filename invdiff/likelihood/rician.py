"""Rician noise of magnitude data."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from invdiff.errors import DTypeError, InputError, NoiseLevelError
from invdiff.likelihood.base import Likelihood, measured_values
from invdiff.protocols import Operator

__all__ = ["Rician"]

_N_NODES, _REACH = 48, 8.0  # of the quadrature; the distribution ends 8 deviations from its centre


class Rician(Likelihood):
    """Magnitudes ``y = |A(x) + n|`` of complex data with circular noise ``n``.

    With predictions ``z = A(x)``, such as those of ``Magnitude(linear)``, and the standard
    deviation ``s = noise_std / sqrt(2)`` of each part of ``n`` (Gudbjartsson & Patz 1995, doi
    10.1002/mrm.1910340618)::

        log p(y | z) = sum -(y - |z|)^2 / (2 s^2) + log(I0(a) e^-a) + const,   a = y |z| / s^2

    in a form that does not overflow. The Fisher information falls from ``1 / s^2`` at high signal
    to ``z^2 / s^4`` at low signal; it is computed by quadrature over the distribution of the score
    (48 Gauss-Legendre nodes).

    Assumptions: one receiver channel, or channels combined so that the noise stays Rician; real
    predictions. Cost: that of `Gaussian`, one Bessel function per datum, 96 for the information.

    Args:
        y: Magnitudes, ``(*operator.range.shape)``, real, ``>= 0``.
        operator: Forward operator with real predictions, whose sign does not matter.
        noise_std: Noise level with ``E|n|^2 = noise_std^2``, in the units of ``y``, as for complex
            data.

    Raises:
        ShapeError: The data do not lie on the operator's range.
        NonFiniteError: The data hold NaN or Inf.
        DTypeError: The data are complex.
        InputError: A magnitude is negative.
        NoiseLevelError: The noise level is not finite and positive.

    Example:
        The information about signals of 0, 1 and 10 times ``s``, in units of ``1 / s^2``:

        >>> import torch
        >>> from invdiff import Grid, Rician
        >>> from invdiff.operators import Identity
        >>> data = Rician(torch.ones(3), Identity(Grid(("x",), (3,))), noise_std=2**0.5)
        >>> data.information(torch.tensor([[0.0, 1.0, 10.0]]))
        tensor([[0.0000, 0.5214, 0.9950]])
    """

    def __init__(self, y: Tensor, operator: Operator, noise_std: float) -> None:
        super().__init__(y, operator)
        if y.is_complex():
            raise DTypeError(
                "magnitudes must be real",
                got=y.dtype,
                expected="an operator with real data",
                hint="Use Magnitude(operator) and abs() of the data, or Gaussian for complex data.",
            )
        if (y < 0).any():
            raise InputError("some magnitudes are negative", got=float(y.min()), expected=">= 0")
        if not 0 < noise_std < math.inf:
            raise NoiseLevelError("the noise level is not positive", got=noise_std, expected="> 0")
        self.noise_std = float(noise_std)

    def __repr__(self) -> str:
        return f"Rician(y, {self.operator!r}, {self.noise_std})"

    @property
    def _part_std(self) -> float:
        return self.noise_std / 2**0.5

    def log_density(self, z: Tensor) -> Tensor:
        """``sum -(y - |z|)^2 / 2 s^2 + log(I0(a) e^-a)``, ``(batch,)``, of predictions ``z``."""
        y, z = self.y / self._part_std, z.abs() / self._part_std
        log_i0e: Tensor = torch.special.i0e(y * z).log()
        return (log_i0e - (y - z) ** 2 / 2).flatten(1).sum(1)

    @property
    def log_normalisation(self) -> float:
        """``sum log(y / s^2)``, which makes :meth:`log_density` a density; ``-inf`` if one is 0."""
        y = measured_values(self.y[None], self.operator)
        return float((y / self._part_std**2).log().sum())

    def information(self, z: Tensor) -> Tensor:
        """``(E[(u I1(u v) / I0(u v))^2] - v^2) / s^2`` with ``u = y / s``, ``v = |z| / s``."""
        v = z.abs() / self._part_std
        low, high = (v - _REACH).clamp_min(0), v + _REACH
        total = torch.zeros_like(v)
        nodes, weights = np.polynomial.legendre.leggauss(_N_NODES)
        for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
            u = low + (high - low) * (node + 1) / 2
            i0 = torch.special.i0e(u * v)
            score = u * torch.special.i1e(u * v) / i0 - v
            density = u * i0 * torch.exp(-((u - v) ** 2) / 2)
            total = total + weight / 2 * (high - low) * density * score**2
        return total / self._part_std**2
