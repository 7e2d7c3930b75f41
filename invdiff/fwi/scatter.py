"""Where the members of an ensemble begin: around a fit, as far apart as it may be wrong."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log

import torch
from torch import Tensor

from invdiff.covariance import Covariance
from invdiff.fwi.annealed import coordinates
from invdiff.fwi.curvature import Curvature
from invdiff.fwi.method import noised
from invdiff.grid import Grid
from invdiff.linalg import conjugate_gradient, per_member
from invdiff.noise import NoiseField
from invdiff.protocols import Prior

__all__ = ["antithetic", "deviations", "error_of_fit", "level_with_deviations", "tempered"]

_OF_DIFFERENCE = 2.0
_RATIO = 1.5  # of successive noise levels that are tried
_LEAST_STIFFNESS, _DOUBLINGS = 1e-4, 40
_ITERATIONS = 100  # of conjugate gradients


def antithetic(
    noise: NoiseField, grid: Grid, members: list[int], *, step: int, stream: int
) -> Tensor:
    """Noise ``(n, *grid.shape)`` of members in pairs: that of an odd one is minus the one before.

    Each member alone has standard normal noise, and depends on its own number only. The means of
    an ensemble of pairs are more accurate than those of independent members (antithetic variates:
    Hammersley & Morton 1956, doi 10.1017/S0305004100031455).
    """
    even = [member - member % 2 for member in members]
    sign = torch.tensor([1.0 - 2.0 * (member % 2) for member in members])
    drawn = noise(grid, even, step, stream=stream)
    return per_member(sign, drawn).to(drawn) * drawn


def error_of_fit(before: Tensor, after: Tensor) -> Tensor:
    """Estimated root-mean-square errors of fits ``after``, m/s, ``(batch,)``.

    The levels of a fit begin at a model ``before`` that explains the data too. Two estimates of one
    truth with equal errors ``e`` and a correlation ``r`` of these differ by ``e sqrt(2 - 2 r)``;
    the estimate is twice their difference, which is that of ``r = 7/8``, as it was found on
    generated models of a seed of its own.
    """
    return _OF_DIFFERENCE * _rms(after - before)


def deviations(prior: Prior, x: Tensor, level: float, *, e_t: Tensor, e_x: Tensor) -> Tensor:
    """Differences from ``x`` of models that the prior holds possible near it, with mean zero.

    Of the prior's expectation ``m`` and covariance ``C`` of models near a noisy one::

        d = (m(x + level e_t) - m(x - level e_t)) / 2 + C^(1/2) e_x

    Draws of ``N(m, C)`` themselves are biased by ``m - x``: the prior's expectation does not know
    the data that ``x`` explains.

    Args:
        prior: Prior of the models.
        x: Models ``(batch, nz, nx)``, m/s.
        level: Noise level, m/s.
        e_t: Standard normal noise of the level, like ``x``.
        e_x: Standard normal noise of the prior's draws, like ``x``.
    """
    with torch.no_grad():
        above, t = noised(prior, x, level, e=e_t)
        below, _ = noised(prior, x, level, e=-e_t)
        mean, covariance = prior.moments(above, t)
        opposite, _ = prior.moments(below, t)
        return (mean - opposite) / 2 + covariance.draw(e_x)


def tempered(d: Tensor, covariance: Covariance, curvature: Curvature, *, rise: float) -> Tensor:
    """Deviations whose misfit rises by at most ``rise``, less stiff where the data tell nothing.

    Of the deviations with the least stiffness ``s``, doubled until ``d^T B d <= 2 rise``::

        argmin_d |C^(-1/2) (d - d_0)|^2 + s d^T B d

    for the curvature ``B`` of the misfit at the fit. It is even in ``d_0``: pairs of opposite
    deviations stay opposite. No wave solve.

    Args:
        d: Deviations ``d_0``, ``(batch, nz, nx)``, m/s.
        covariance: Covariance ``C`` of the prior's models near the fit.
        curvature: Curvature of each member's misfit.
        rise: Largest rise of the misfit in its quadratic model.
    """
    target = coordinates(covariance, d, _ITERATIONS)
    stiffness = torch.zeros(len(d), dtype=torch.float64, device=d.device)
    for _ in range(_DOUBLINGS):
        is_far = (d.double() * curvature.product(d)).sum((-2, -1)) > 2 * rise
        if not bool(is_far.any()):
            break
        stiffness = torch.where(is_far, (2 * stiffness).clamp_min(_LEAST_STIFFNESS), stiffness)
        s = per_member(stiffness, d)

        def normal(u: Tensor, s: Tensor = s) -> Tensor:
            stiff = s * curvature.product(covariance.sqrt(u))
            return u + covariance.sqrt_adjoint(stiff.to(u))

        u = conjugate_gradient(normal, target, rtol=1e-3, max_iterations=_ITERATIONS).x
        d = torch.where(per_member(stiffness > 0, d), covariance.sqrt(u), d)
    return d


def level_with_deviations(
    prior: Prior, x: Tensor, rms: float, *, e_t: Tensor, e_x: Tensor
) -> float:
    """Noise level, m/s, at which `deviations` have the root mean square ``rms``, m/s.

    Found between levels that rise by a half; the prior's largest where none suffices. Cost: about
    ten network passes of one model.

    Args:
        prior: Prior of the models.
        x: One model ``(1, nz, nx)``, m/s.
        rms: Wanted root mean square, m/s.
        e_t: Standard normal noise of the level, like ``x``.
        e_x: Standard normal noise of the prior's draws, like ``x``.
    """
    largest = prior.schedule.ratio_max

    def found(level: float) -> float:
        return float(_rms(deviations(prior, x, level, e_t=e_t, e_x=e_x)))

    # Deviations are at most sqrt(2) times the level.
    return _rising(found, rms, start=rms / 2, largest=largest)


def _rising(
    found: Callable[[float], float], wanted: float, *, start: float, largest: float
) -> float:
    """Argument at which a rising function is ``wanted``, by interpolation of logarithms."""
    level = min(start, largest)
    value = found(level)
    while value < wanted and level < largest:
        below, low = level, value
        level = min(_RATIO * level, largest)
        value = found(level)
        if value >= wanted:
            share = log(wanted / low) / log(value / low)
            return below * exp(share * log(level / below))
    return level


def _rms(d: Tensor) -> Tensor:
    return d.square().mean((-2, -1)).sqrt()
