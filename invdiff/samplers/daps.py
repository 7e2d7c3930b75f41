"""DAPS: decoupled annealing posterior sampling."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from invdiff.covariance import Covariance
from invdiff.errors import InputError
from invdiff.needs import Needs
from invdiff.noise import StepNoise
from invdiff.posterior import Posterior
from invdiff.protocols import Prior
from invdiff.samplers.base import SamplerState, TermSampler, Walk
from invdiff.samplers.inner import GaussNewton, InnerKernel, Target, isotropic

__all__ = ["DAPS", "PriorSpread", "RatioSpread", "Spread"]


class Spread(Protocol):
    """What a sampler assumes for the covariance ``Cov[x_0 | x_t]`` of the prior."""

    def moments(self, prior: Prior, x_t: Tensor, *, t: Tensor) -> tuple[Tensor, Covariance]:
        """``E[x_0 | x_t]``, ``(batch, *grid.shape)``, and the covariance, for one network pass."""
        ...


@dataclass(frozen=True)
class PriorSpread:
    """The prior's own covariance ``Cov[x_0 | x_t]``: exact for Gaussian priors."""

    def moments(self, prior: Prior, x_t: Tensor, *, t: Tensor) -> tuple[Tensor, Covariance]:
        """Mean ``(batch, *grid.shape)`` and covariance of the prior given ``x_t``."""
        return prior.moments(x_t, t)


@dataclass(frozen=True)
class RatioSpread:
    """The isotropic covariance ``(scale r_t)^2 I`` of the DAPS paper.

    Assumptions: it is too wide wherever the noise level ``r_t`` exceeds the spread of the field; on
    Gaussian posteriors the members have 1.1 to 2.5 times the variance.

    Args:
        scale: Standard deviation in units of the noise-to-signal ratio ``r_t``.

    Raises:
        InputError: The scale is not positive.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise InputError("the scale of a spread is not positive", got=self, expected="> 0")

    def moments(self, prior: Prior, x_t: Tensor, *, t: Tensor) -> tuple[Tensor, Covariance]:
        """The prior's mean ``(batch, *grid.shape)`` and the covariance ``(scale r_t)^2 I``."""
        std = self.scale * float(prior.schedule.ratio(t))
        return prior.denoise(x_t, t), isotropic(prior.grid, std, device=x_t.device)


@dataclass(frozen=True)
class DAPS(TermSampler):
    """Decoupled annealing posterior sampling (Zhang et al. 2024, arXiv 2407.01521).

    Each step draws a clean field from the posterior given ``x_t`` and adds fresh noise to it::

        x_0' ~ N(x_0_hat, C_t) prod_i exp(term_i),   z_s = x_0' + r_s eps

    so that errors of early steps are forgotten, and operators are applied to clean fields only.
    ``x_0_hat`` comes from ``ode_steps`` Euler steps of the probability flow from ``x_t`` to zero
    noise: one step is ``E[x_0 | x_t]``, many steps a draw of the prior that belongs to ``x_t``.

    Assumptions: one step of the flow and the prior's own ``Cov[x_0 | x_t]`` (`PriorSpread`), the
    default, are exact for Gaussian priors and linear Gaussian data at any number of steps, where
    the sampler equals ``Ancestral(keep=0)``. The paper's 5 steps of the flow and ``C_t = r_t^2 I``
    (`RatioSpread`) give 1.1 to 2.5 times the variance there; more steps of the flow with
    `PriorSpread` count the spread of ``x_0`` twice (1.3 to 1.4 times the variance). Otherwise exact
    only as far as ``p(x_0 | x_t)`` is Gaussian. Any differentiable terms.

    Cost: ``ode_steps`` network passes per step and member, no vjp of the network, and what the
    kernel takes.

    Args:
        steps: Number of steps.
        kernel: Draws ``x_0'`` from the Gaussian times the terms: ``GaussNewton()``,
            ``ExactGaussian()``, ``Langevin()`` or ``HMC()``.
        spread: Covariance ``C_t`` of ``x_0`` given ``x_t``: ``PriorSpread()`` or ``RatioSpread()``.
        ode_steps: Euler steps of the flow to ``x_0_hat``, one network pass each.

    Raises:
        InputError: ``steps`` is less than one, or less than one step of the flow.

    Example:
        >>> import torch
        >>> from invdiff import DAPS, Gaussian, Grid, Posterior, sample
        >>> from invdiff.operators import Identity
        >>> from invdiff.priors import StationaryGaussianPrior
        >>> grid = Grid(("x",), (64,))
        >>> prior = StationaryGaussianPrior(grid, torch.zeros(64), torch.ones(64))  # N(0, 1)
        >>> y = torch.full((64,), 2.0)
        >>> posterior = Posterior(prior, Gaussian(y, Identity(grid), 1.0))  # N(1, 1/2)
        >>> members = sample(posterior, DAPS(4), realizations=32, seed=0)
        >>> round(float(members.mean()), 1), round(float(members.var()), 1)
        (1.0, 0.5)
    """

    needs: ClassVar[Needs] = Needs.GRADIENT | Needs.ANALYTIC

    steps: int = 32
    kernel: InnerKernel = field(default_factory=GaussNewton, kw_only=True)
    spread: Spread = field(default_factory=PriorSpread, kw_only=True)
    ode_steps: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ode_steps < 1:
            raise InputError(
                "the flow has too few steps", got=f"ode_steps={self.ode_steps}", expected=">= 1"
            )

    def check(self, model: Posterior) -> None:
        """Refuse a model whose terms the sampler or its kernel cannot use.

        Raises:
            UnsupportedError: The error lists the methods that can use the terms.
        """
        super().check(model)
        self.kernel.check(self.parts(model)[1])

    def finish(self, model: Posterior, x_t: Tensor, t: Tensor, *, noise: StepNoise) -> Tensor:
        """A draw of ``x_0``, not its mean: the spread that is left belongs to the posterior."""
        return self._clean(model, x_t, t, noise=noise)

    def advance(
        self, model: Posterior, walk: Walk, noise: StepNoise, *, state: SamplerState
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Draw a clean field, then add noise of the next level."""
        x_0 = self._clean(model, state.x, walk.t, noise=noise)
        return x_0 + walk.ratio_s * noise(model.grid, 0), ()

    def _clean(self, model: Posterior, x_t: Tensor, t: Tensor, *, noise: StepNoise) -> Tensor:
        prior, terms = self.parts(model)
        mean, covariance = self.spread.moments(prior, x_t, t=t)
        x_0 = self._flow(prior, x_t, t, mean=mean)
        return self.kernel.draw(Target(x_0, covariance, terms, x_t, t), prior.grid, noise)

    def _flow(self, prior: Prior, x_t: Tensor, t: Tensor, *, mean: Tensor) -> Tensor:
        """``x_0_hat``: Euler steps on the spacing of Karras et al., of which ``mean`` is the first.

        The last one goes to ratio zero and so ends on the mean where it starts.
        """
        schedule = prior.schedule
        ratio_t, rho = schedule.ratio(t).double(), schedule.rho
        shares = torch.linspace(0, 1, self.ode_steps, dtype=torch.float64)
        low, high = schedule.ratio_min ** (1 / rho), ratio_t ** (1 / rho)
        ratios = (high + shares * (low - high)) ** rho
        z = x_t / float(schedule.alpha(t))
        for now, then in zip(ratios[:-1].tolist(), ratios[1:].tolist(), strict=True):
            z = mean + then / now * (z - mean)
            time = schedule.time(torch.tensor(then, dtype=torch.float64))
            mean = prior.denoise(float(schedule.alpha(time)) * z, time)
        return mean
