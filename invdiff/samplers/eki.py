"""Ensemble Kalman inversion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.conditioning.base import data_streams
from invdiff.errors import InputError
from invdiff.likelihood import Gaussian
from invdiff.needs import Needs
from invdiff.noise import NoiseField, StepNoise
from invdiff.posterior import Posterior
from invdiff.samplers.ancestral import Ancestral
from invdiff.samplers.base import SamplerState, UsesTerms
from invdiff.samplers.resampling import effective_number

__all__ = ["EKI", "check_ensemble", "data_noise", "kalman_update", "whitened_residuals"]

_N_BISECTIONS = 50


@dataclass(frozen=True)
class EKI(UsesTerms):
    """Ensemble Kalman inversion (Iglesias, Law & Stuart 2013, doi 10.1088/0266-5611/29/4/045001).

    Draws of the prior are moved to the posterior by covariances of the ensemble, without
    derivatives of the operator. In its stochastic form, with whitened residuals
    ``r_j = W (y - A(x_j))``::

        x_j += C_xr (C_rr + I / d)^-1 (r_j + eps_j / sqrt(d))

    for increments ``d`` that add up to one. Each is the largest that would leave an effective
    number of ``threshold`` times the members, were they weighted by ``exp(-d |r|^2 / 2)`` (Iglesias
    & Yang 2021, arXiv 2007.04060); the last increment is the remainder.

    Assumptions: Gaussian noise, any operator. Exact for a Gaussian prior and a linear operator as
    members grow; otherwise it finds the first two moments at best, and one mode. With ``n`` members
    it moves in ``n - 1`` directions, and its spread is too small by a share of about ``m_eff / n``,
    with ``m_eff`` the number of directions that the data inform. Members depend on each other: use
    a hundred or more.

    Cost: one network pass per step and member for the draws of the prior, then one operator call
    per member and update; no vjp.

    Args:
        steps: Number of steps: those of the draw from the prior, one network pass each, and the
            updates.
        updates: Largest number of steps that are Kalman updates.
        threshold: Share of the members that an increment leaves effective, in (0, 1).

    Raises:
        InputError: There is no step for the prior, no update, or the threshold lies outside (0, 1).
    """

    needs: ClassVar[Needs] = Needs.GAUSSIAN | Needs.LIKELIHOOD

    steps: int = 32
    updates: int = 8
    threshold: float = 0.5
    couples_members: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.updates < self.steps or not 0 < self.threshold < 1:
            raise InputError(
                "the settings of EKI are out of range",
                got=self,
                expected="1 <= updates < steps, 0 < threshold < 1",
            )

    def step(self, model: Posterior, noise: NoiseField, state: SamplerState) -> SamplerState:
        """A step of the prior's draw, or an update; the memory is the sum of the increments."""
        prior, terms = self.parts(model)
        sampler = Ancestral(self.steps - self.updates)
        if state.step < sampler.steps:
            return sampler.step(Posterior(prior), noise, state)
        gaussians = [term for term in terms if isinstance(term, Gaussian)]
        (reached,) = state.memory or (torch.zeros(1, dtype=torch.float64),)
        x, left = state.x, 1 - float(reached)
        if gaussians and left > 0:
            check_ensemble(x)
            residuals = whitened_residuals(gaussians, x)
            last = state.step + 1 == self.steps
            increment = left if last else min(left, self._increment(residuals))
            draws = noise.at(state.realizations, state.step, x.device)
            x = kalman_update(x, residuals, increment, noise=data_noise(gaussians, draws))
            reached = reached + increment if increment < left else torch.ones_like(reached)
        return SamplerState(x, state.step + 1, state.realizations, (reached,))

    def _increment(self, residuals: Tensor) -> float:
        """The largest increment that leaves enough members effective, found by bisection."""
        misfits = residuals.double().square().sum(1) / 2
        enough = self.threshold * len(misfits)
        low, high = 0.0, 1.0
        if effective_number(-misfits) >= enough:
            return 1.0
        for _ in range(_N_BISECTIONS):
            middle = (low + high) / 2
            if effective_number(-middle * misfits) >= enough:
                low = middle
            else:
                high = middle
        return high


def check_ensemble(x: Tensor) -> None:
    """Refuse an ensemble that has no covariance.

    Raises:
        InputError: There are fewer than two members.
    """
    if len(x) < 2:
        raise InputError(
            "too few members for a covariance",
            got=len(x),
            expected=">= 2",
            hint="Draw a hundred or more at once, even if only a few are kept.",
        )


def whitened_residuals(terms: Sequence[Gaussian], x: Tensor) -> Tensor:
    """``W (y - A(x))`` of the measured data of all terms, as reals of unit noise ``(n, m)``."""
    return torch.cat([_reals(term.measured(term.residual(x))) for term in terms], 1)


def data_noise(terms: Sequence[Gaussian], noise: StepNoise) -> Tensor:
    """Standard normal values of the shape of :func:`whitened_residuals`, ``(n, m)``."""
    pairs = zip(terms, data_streams(terms, noise), strict=True)
    return torch.cat([_reals(term.measured(e)) for term, e in pairs], 1)


def _reals(r: Tensor) -> Tensor:
    """Circular values of unit variance as pairs of real ones of unit variance."""
    return torch.view_as_real(r).flatten(1) * 2**0.5 if r.is_complex() else r


def kalman_update(x: Tensor, residuals: Tensor, increment: float, *, noise: Tensor) -> Tensor:
    """The stochastic ensemble Kalman filter for a share of the data, computed in ensemble space.

    Args:
        x: Fields of the members, ``(n, *shape)``.
        residuals: Whitened residuals of the fields, ``(n, m)``.
        increment: Share of the data's information that is used, in (0, 1].
        noise: Standard normal values, ``(n, m)``.

    Returns:
        The updated fields, ``(n, *shape)``.
    """
    anomalies = (residuals - residuals.mean(0)) / (len(x) - 1) ** 0.5
    target = residuals + noise.to(residuals) / increment**0.5
    # The residual falls where the prediction rises: C_xr = -sum_j dx_j dr_j.
    system = anomalies @ anomalies.mT
    system = system + torch.eye(len(x), dtype=system.dtype, device=x.device) / increment
    weights = torch.linalg.solve(system, anomalies @ target.mT)
    fields = (x - x.mean(0)).flatten(1) / (len(x) - 1) ** 0.5
    step: Tensor = weights.mT.to(x.dtype) @ fields
    return x - step.reshape(x.shape)
