"""The scale of a prior's covariance by the innovations of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invdiff.covariance import Covariance
from invdiff.errors import InputError
from invdiff.likelihood import LinearModel
from invdiff.linalg import inner, squared_norm

__all__ = ["BY_DATA", "InnovationScale"]

_SALT = 20051104  # of the probes, so that they share no numbers with the noise of a run
_VAGUE = 0.5  # standard error of a factor that says too little to be used


@dataclass(frozen=True)
class InnovationScale:
    """Scale of ``Cov[x_0 | x_t]`` by the innovation statistic of ensemble filters.

    If ``N(m, C)`` is right, the whitened innovation ``r = W (y - A m)`` of ``n`` data has the
    covariance ``I + S`` with ``S = W A C A^H W^H``. The factor that makes the stated covariance
    agree with the innovation is estimated at each noise level (Desroziers et al. 2005, doi
    10.1256/qj.05.108; Anderson 2007, doi 10.1111/j.1600-0870.2006.00216.x)::

        kappa = (|r|^2 - n) / tr S,   tr S ~ |W A L e|^2,   C = L L^H,   E[e e^H] = I

    with one random probe ``e``. Its variance where the covariance is right is ``se^2 = f (n + 2 tr
    S + 2 tr S^2) / (tr S)^2``, with ``f = 1`` for complex and 2 for real fields. The factor starts
    at 1 and moves from one noise level to the next by the part of the change that chance does not
    explain, as in the positive-part estimator of James & Stein (1961)::

        d = kappa - scale_t,   scale_s = scale_t + d max(0, 1 - (z se / d)^2)

    and not at all where ``se > 1/2``. So an exact prior is left as it is, few data change nothing,
    and the factor lasts at low noise levels, where the innovation is noise of the data alone.

    Assumptions: the noise level of the data is right, one factor serves all of the field, and
    ``x_t`` is a state of a run that draws from the posterior given these data alone: with other
    terms, which shift the field, the conditionings do not use it. Cost: one application of the
    operator and one of its normal operator per update and member.

    Args:
        lowest: Smallest factor.
        highest: Largest factor.
        z: Change in standard errors that is ascribed to chance.

    Raises:
        InputError: The limits do not enclose 1, or ``z`` is negative.
    """

    lowest: float = 0.3
    highest: float = 30.0
    z: float = 3.0

    def __post_init__(self) -> None:
        if not (0 < self.lowest <= 1 <= self.highest and self.z >= 0):
            raise InputError(
                "these limits do not make a scale",
                got=self,
                expected="0 < lowest <= 1 <= highest, z >= 0",
                hint="Leave them out for the default.",
            )

    def apply(
        self,
        mean: Tensor,
        covariance: Covariance,
        models: Sequence[LinearModel],
        *,
        level: float,
        record: Tensor | None,
    ) -> tuple[Covariance, Tensor | None]:
        """The covariance scaled, and the record with one more row.

        Args:
            mean: Mean ``m``, ``(batch, *shape)``.
            covariance: Covariance ``C`` as the prior states it.
            models: Whitened linear data; without any nothing is changed.
            level: Noise level of ``x_t``.
            record: Rows of earlier updates, ``(update, 4, batch)``: noise level, factor,
                ``|r|^2 / n`` and ``tr S / n``; None at the start. Their number seeds the probe.
        """
        n = sum(model.n_data for model in models)
        if n == 0:
            return covariance, record
        number = 0 if record is None else len(record)
        squares, trace, error = self._statistics(mean, covariance, models, number)
        tiny = torch.finfo(trace.dtype).tiny
        before = torch.ones_like(trace) if record is None else record[-1, 1]
        change = (squares - n) / trace.clamp_min(tiny) - before
        kept = (1 - (self.z * error / change).square()).clamp_min(0) * (error < _VAGUE)
        factor = before + torch.where(torch.isfinite(kept * change), kept * change, 0)
        factor = factor.clamp(self.lowest, self.highest)
        row = torch.stack([torch.full_like(trace, level), factor, squares / n, trace / n])[None]
        record = row if record is None else torch.cat([record, row])
        if bool((factor == 1).all()):
            return covariance, record
        return covariance.scaled(factor.to(mean.dtype.to_real())), record

    def _statistics(
        self, mean: Tensor, covariance: Covariance, models: Sequence[LinearModel], number: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``|r|^2``, ``tr S`` and the standard error of the factor, ``(batch,)`` in double."""
        n = sum(model.n_data for model in models)
        zero = torch.zeros(len(mean), dtype=torch.float64, device=mean.device)
        squares = sum((squared_norm(m.measured(m.residual(mean))) for m in models), zero)
        probe = covariance.coordinates(_probe(mean[:1], number).expand_as(mean))
        spread = covariance.sqrt(probe)
        first, *others = (model.precision(spread) for model in models)
        pulled = covariance.sqrt_adjoint(sum(others, first))
        trace = inner(probe, pulled).double().clamp_min(0)
        f = 1.0 if mean.is_complex() else 2.0
        variance = f * (n + 2 * trace + 2 * squared_norm(pulled))
        return squares, trace, variance.sqrt() / trace.clamp_min(torch.finfo(trace.dtype).tiny)


BY_DATA = InnovationScale()
"""The default of the conditionings that use it."""


def _probe(like: Tensor, number: int) -> Tensor:
    """White values of modulus one, ``(1, *shape)``, the same in all units of the field."""
    rng = np.random.default_rng([_SALT, number])
    signs = rng.choice([-1.0, 1.0], (2, *like.shape))
    white = (signs[0] + 1j * signs[1]) * 0.5**0.5 if like.is_complex() else signs[0]
    return torch.from_numpy(np.asarray(white)).to(like)
