r"""A likelihood as a linear-Gaussian one around given fields: what Gauss-Newton works with.

With the working model of the likelihood and ``J = dA/dx`` at ``x*``::

    |r - w J (x - x*)|^2 / 2,    residual(x) = r - w J (x - x*)

Products with ``J`` are two reverse passes, with ``J^H`` one.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from invdiff.grid import Grid
from invdiff.likelihood.base import Likelihood, measured_values

__all__ = ["LinearModel", "Linearised"]


class LinearModel(Protocol):
    """Whitened linear data of each member: a Gaussian likelihood, or one linearised."""

    def residual(self, x: Tensor) -> Tensor:
        """``W (y - A x)``."""
        ...

    def forward(self, x: Tensor) -> Tensor:
        """``W A x``."""
        ...

    def pullback(self, r: Tensor) -> Tensor:
        """``A^H W^H r``."""
        ...

    def precision(self, x: Tensor) -> Tensor:
        """``A^H Sigma^-1 A x``."""
        ...

    @property
    def precision_spectrum(self) -> Tensor | None:
        """Diagonal of the precision in the DFT, if known."""
        ...

    @property
    def is_circulant(self) -> bool:
        """Whether the precision is ``precision_spectrum`` and nothing else."""
        ...

    @property
    def data_grid(self) -> Grid:
        """Grid of the data."""
        ...

    @property
    def n_data(self) -> int:
        """Number of measured values."""
        ...

    @property
    def informative(self) -> Tensor | None:
        """Booleans over the data: those whose noise reaches the field; None for all."""
        ...

    def matrix(self) -> Tensor:
        """``W A`` of the measured data, ``(m, n)`` for all members or ``(batch, m, n)``."""
        ...

    def measured(self, r: Tensor) -> Tensor:
        """The measured ones of ``(batch, *data)``, ``(batch, m)``."""
        ...

    def take(self, members: Tensor) -> LinearModel:
        """That of the members with these indices."""
        ...


class Linearised:
    """Quadratic model of a likelihood around ``x_star``, ``(batch, *domain)``.

    Args:
        likelihood: with a differentiable operator.
        x_star: where to linearise, one field a member.
    """

    precision_spectrum: Tensor | None = None
    is_circulant: bool = False

    def __init__(self, likelihood: Likelihood, x_star: Tensor) -> None:
        self.likelihood, self.x_star = likelihood, x_star.detach()
        with torch.enable_grad():
            self._leaf = self.x_star.clone().requires_grad_()
            self._z = likelihood.operator(self._leaf)
        self._local = likelihood.local(self._z.detach())

    @property
    def data_grid(self) -> Grid:
        """The operator's range."""
        return self.likelihood.operator.range

    def residual(self, x: Tensor) -> Tensor:
        """``r - w J (x - x*)``."""
        return self._local.residual - self.forward(x - self.x_star)

    def forward(self, x: Tensor) -> Tensor:
        """``w J x``."""
        with torch.enable_grad():
            dual = torch.zeros_like(self._z).requires_grad_()
            pulled = torch.autograd.grad(self._z, self._leaf, dual, create_graph=True)
            (pushed,) = torch.autograd.grad(pulled, dual, x)
        return self._local.whiten(pushed.detach())

    def pullback(self, r: Tensor) -> Tensor:
        """``J^H w^H r``."""
        (pulled,) = torch.autograd.grad(
            self._z, self._leaf, self._local.whiten_adjoint(r), retain_graph=True
        )
        return pulled

    def precision(self, x: Tensor) -> Tensor:
        """``J^H w^H w J x``."""
        return self.pullback(self.forward(x))

    @property
    def n_data(self) -> int:
        """Number of measured values."""
        return self.likelihood.operator.n_data

    @property
    def informative(self) -> Tensor | None:
        """As the likelihood."""
        return self.likelihood.informative

    def matrix(self) -> Tensor:
        """``w J``, ``(batch, m, n)``: a reverse pass for each datum of all members at once."""
        rows = []
        n_values = self._z[0].numel()
        for i in self.measured(torch.arange(n_values)[None])[0].tolist():
            unit = torch.zeros_like(self._z).flatten(1)
            unit[:, i] = 1
            rows.append(self.pullback(unit.reshape(self._z.shape)).flatten(1).conj())
        return torch.stack(rows, 1)

    def measured(self, r: Tensor) -> Tensor:
        """The measured ones of ``(batch, *data)``, ``(batch, m)``."""
        return measured_values(r, self.likelihood.operator)

    def take(self, members: Tensor) -> Linearised:
        """Around the fields of the members with these indices."""
        return Linearised(self.likelihood, self.x_star[members])
