"""The base class of likelihoods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from invdiff.completion import completed
from invdiff.grid import check_finite
from invdiff.linalg import squared_norm
from invdiff.protocols import CompleteOperator, Operator

__all__ = ["Likelihood", "Local", "measured_values"]


class Local(NamedTuple):
    """The quadratic approximation of a likelihood around predictions ``z``, ``(batch, *data)``.

    Attributes:
        residual: Working residual ``r``, ``(batch, *data)``.
        whiten: Applies the root ``w`` of the Fisher information.
        whiten_adjoint: Applies ``w^H``.
    """

    residual: Tensor
    whiten: Callable[[Tensor], Tensor]
    whiten_adjoint: Callable[[Tensor], Tensor]


class Likelihood(ABC):
    """Base class of likelihoods ``log p(y | x)`` that depend on ``x`` through ``z = operator(x)``.

    Near a prediction every likelihood is approximated by a quadratic, its working model (Fisher
    scoring)::

        log p(y | z + d) = log p(y | z) - |w d - r|^2 / 2 + |r|^2 / 2

    with the root ``w`` of the Fisher information and the working residual ``r = w^-H score``. For
    Gaussian noise ``w`` is the whitening, ``r = w (y - z)``, and the quadratic is exact. For
    complex data both factors 1/2 are left out, since circular noise has ``E|n|^2 = s^2``.

    Args:
        y: Data, ``(*operator.range.shape)``.
        operator: Forward operator.

    Raises:
        ShapeError: The data do not lie on the operator's range.
        NonFiniteError: The data hold NaN or Inf.
    """

    def __init__(self, y: Tensor, operator: Operator) -> None:
        self.operator: CompleteOperator = completed(operator)
        operator.range.check(y[None], name="data")
        check_finite(y, "data")
        self.y = y

    @property
    def is_linear(self) -> bool:
        """Whether the operator declares that it is linear."""
        return self.operator.is_linear

    @property
    def is_differentiable(self) -> bool:
        """Whether torch can differentiate the operator; a black box declares that it cannot."""
        return self.operator.is_differentiable

    def log_prob(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Log-likelihood of clean fields ``x_0``, ``(batch,)``, up to a constant."""
        return self.log_density(self.operator(x_0))

    @abstractmethod
    def log_density(self, z: Tensor) -> Tensor:
        """``log p(y | z)`` up to a constant, ``(batch,)``, of predictions ``(batch, *data)``."""

    @abstractmethod
    def information(self, z: Tensor) -> Tensor:
        """Fisher information of each datum about ``z``, real, ``>= 0``, ``(batch, *data)``."""

    @property
    def informative(self) -> Tensor | None:
        """Booleans over the data that mark those which depend on the field; None for all."""
        return self.operator.measured

    def misfit(self, x: Tensor) -> Tensor:
        """``|r|^2 / n_data`` of the working residual, ``(batch,)``: expected 1 at the truth."""
        residual = self.local(self.operator(x)).residual
        return squared_norm(measured_values(residual, self.operator)) / self.operator.n_data

    def local(self, z: Tensor) -> Local:
        """The quadratic approximation around predictions ``z``, ``(batch, *data)``."""
        with torch.enable_grad():
            leaf = z.detach().clone().requires_grad_()
            (score,) = torch.autograd.grad(self.log_density(leaf).sum(), leaf)
        # torch differentiates by real and imaginary part, each of which has half of the noise.
        score = score / 2 if score.is_complex() else score
        root = self.information(z).sqrt()
        informed = root > 0  # a datum without information has no residual

        def whiten(v: Tensor) -> Tensor:
            return root * v

        return Local(torch.where(informed, score / root, 0), whiten, whiten)


def measured_values(r: Tensor, operator: CompleteOperator) -> Tensor:
    """Those values of ``(batch, *data)`` that the operator measures, ``(batch, m)``."""
    mask = operator.measured
    flat = r.flatten(1)
    return flat if mask is None else flat[:, mask.flatten()]
