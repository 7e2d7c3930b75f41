"""Jacobian-free moment matching with a fixed covariance of the field."""

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
    """Moment matching with a fixed stationary covariance of the field, as JFPS of azula.

    The mean of ``x_0`` given ``x_t`` comes from the network; its covariance is what a Gaussian
    field of covariance ``Sigma_x = F^H S F`` would have left, given ``z = x_0 + r eps`` with
    ``r = sigma / alpha`` (Rozet et al., https://github.com/probabilists/azula)::

        p(x_0 | x_t) = N(E[x_0|x_t], (Sigma_x^-1 + r^-2 I)^-1)

    Assumptions: linear Gaussian data; other terms enter to first order. Exact for a Gaussian field
    with that spectrum; otherwise the spread does not depend on ``x_t``.

    Cost: one network pass per step and member, no vjp, and one solve (in closed form where all is
    diagonal in the DFT).

    Args:
        power: Spectrum ``S`` of the field, ``(*shape)`` in ``torch.fft.fftn`` order, whose mean is
            the variance of a point (for a real field ``S(-k) = S(k)``); or that variance as a
            number, for white fields.
        tolerance: Largest error of a solve, in posterior standard deviations of any linear
            functional of the field.
        max_iterations: Largest number of conjugate-gradient steps of a solve.

    Raises:
        InputError: The power is negative or not finite.
    """

    needs: ClassVar[Needs] = Needs.LINEAR | Needs.GAUSSIAN  # other terms enter to first order

    power: Tensor | float
    tolerance: float = 0.5
    max_iterations: int = 300
    has_evidence = True

    def __post_init__(self) -> None:
        power = torch.as_tensor(self.power)
        if power.is_complex() or not (torch.isfinite(power) & (power >= 0)).all():
            raise InputError(
                "the power of the field is not valid",
                got=f"{power.dtype} values, {power.flatten()[:4].tolist()} first",
                expected="finite real values >= 0",
                hint="Average |fftn(x - mean, norm='ortho')|^2 over training fields.",
            )

    def update(
        self, prior: Prior, terms: Sequence[Term], x_t: Tensor, *, t: Tensor
    ) -> GaussianUpdate:
        """The update of ``N(m, C_t)`` by the data.

        Raises:
            ShapeError: The power has another shape than the grid.
        """
        grid = prior.grid
        power = torch.as_tensor(self.power, dtype=grid.real_dtype, device=x_t.device)
        if power.ndim and tuple(power.shape) != grid.shape:
            raise ShapeError(
                "the power has another shape than the field",
                got=tuple(power.shape),
                expected=tuple(grid.shape),
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
