r"""Jacobian-free moment matching: the spread of ``x_0`` from a fixed covariance of the field.

As JFPS of azula (Rozet et al., github.com/probabilists/azula): what a Gaussian field of covariance
``Sigma_x = F^H S F`` would have left after seeing ``z = x_0 + r eps``::

    p(x_0 | x_t) = N(E[x_0|x_t], (Sigma_x^-1 + r^-2 I)^-1)

the mean from the network. Exact for a Gaussian field with that spectrum; otherwise the spread does
not know where ``x_t`` is. Linear Gaussian data; other terms enter to first order. Cost a step: one
network pass, no vjp, and a solve (closed form where all is diagonal in the DFT).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.conditioning.base import Conditioning, split_terms
from invdiff.conditioning.update import GaussianUpdate, Slope, gaussian_update
from invdiff.covariance import SpectralCovariance
from invdiff.errors import InputError, ShapeError
from invdiff.needs import Needs
from invdiff.protocols import Prior, Term

__all__ = ["JacobianFree"]


@dataclass(frozen=True, eq=False)
class JacobianFree(Conditioning):
    """Moment matching with a fixed stationary covariance of the field.

    Args:
        power: spectrum ``S`` of the field, ``(*shape)`` in ``torch.fft.fftn`` order, its mean the
            variance of a point (for a real field ``S(-k) = S(k)``); or that variance alone, for
            white fields.
        tolerance: error left by a solve, as a fraction of the posterior's own spread.
        max_iterations: bound on its conjugate-gradient steps.

    Raises:
        InputError: a power that is negative or not finite.
    """

    needs: ClassVar[Needs] = Needs.LINEAR | Needs.GAUSSIAN  # other terms enter to first order

    power: Tensor | float
    tolerance: float = 0.05
    max_iterations: int = 100
    has_evidence = True

    def __post_init__(self) -> None:
        power = torch.as_tensor(self.power)
        if power.is_complex() or not (torch.isfinite(power) & (power >= 0)).all():
            raise InputError(
                "not the power of a field",
                got=f"{power.dtype} values, {power.flatten()[:4].tolist()} first",
                expected="finite real values >= 0",
                hint="Average |fftn(x - mean, norm='ortho')|^2 over training fields.",
            )

    def update(
        self, prior: Prior, terms: Sequence[Term], x_t: Tensor, *, t: Tensor
    ) -> GaussianUpdate:
        """``N(m, C_t)`` and the data.

        Raises:
            ShapeError: a power of another shape than the grid.
        """
        grid = prior.grid
        power = torch.as_tensor(self.power, dtype=grid.real_dtype, device=x_t.device)
        if power.ndim and tuple(power.shape) != grid.shape:
            raise ShapeError(
                "power and field differ", got=tuple(power.shape), expected=tuple(grid.shape)
            )
        signal = SpectralCovariance(power.expand(grid.shape), is_complex=grid.is_complex)
        mean = prior.denoise(x_t, t)
        gaussians, others = split_terms(terms)
        covariance = signal.observed(float(prior.schedule.ratio(t)) ** -2)
        return gaussian_update(
            mean,
            covariance,
            gaussians,
            slope=Slope.of(others, mean, covariance, x_t=x_t, t=t),
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
        )
