r"""DAPS: decoupled annealing posterior sampling (Zhang et al. 2024, arXiv 2407.01521).

Each step draws a clean field from the posterior given ``x_t`` and puts fresh noise on it::

    x_0' ~ N(x_0_hat, C_t) prod_i exp(term_i),   z_s = x_0' + r_s eps

so that errors of early steps are forgotten, and operators see clean fields alone. ``x_0_hat`` comes
from ``ode_steps`` Euler steps of the probability flow from ``x_t`` to zero: one is ``E[x_0|x_t]``,
many a draw of the prior that belongs to ``x_t``. The paper takes 5 and ``C_t = r_t^2 I``
(:class:`RatioSpread`): 1.1 to 2.5 times the variance on Gaussian posteriors. One step and the
prior's own ``Cov[x_0|x_t]`` (:class:`PriorSpread`), the default, are exact there at any number of
steps; more steps of the flow count the spread of ``x_0`` twice (1.3 to 1.4 times the variance).
For linear Gaussian data that default is ``Ancestral(keep=0)`` by another way.
Exact otherwise only as ``p(x_0|x_t)`` is Gaussian. Any differentiable terms. Cost a step:
``ode_steps`` network passes and what the inner kernel takes.
"""

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
    """What is taken for ``Cov[x_0 | x_t]``."""

    def moments(self, prior: Prior, x_t: Tensor, *, t: Tensor) -> tuple[Tensor, Covariance]:
        """``E[x_0 | x_t]`` and that covariance, for one network pass."""
        ...


@dataclass(frozen=True)
class PriorSpread:
    """The prior's own covariance."""

    def moments(self, prior: Prior, x_t: Tensor, *, t: Tensor) -> tuple[Tensor, Covariance]:
        """Those of the prior."""
        return prior.moments(x_t, t)


@dataclass(frozen=True)
class RatioSpread:
    """The paper's guess ``(scale r_t)^2 I``: too wide wherever ``r_t`` exceeds the field's spread.

    Args:
        scale: in units of ``r_t``.

    Raises:
        InputError: a scale that is not positive.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise InputError("no spread", got=self, expected="scale > 0")

    def moments(self, prior: Prior, x_t: Tensor, *, t: Tensor) -> tuple[Tensor, Covariance]:
        """The prior's mean and the guess."""
        std = self.scale * float(prior.schedule.ratio(t))
        return prior.denoise(x_t, t), isotropic(prior.grid, std, device=x_t.device)


@dataclass(frozen=True)
class DAPS(TermSampler):
    """Decoupled annealing.

    Args:
        steps: number of steps.
        kernel: draws ``x_0'``.
        spread: what is taken for ``Cov[x_0 | x_t]``.
        ode_steps: Euler steps of the flow to ``x_0_hat``, a network pass each.

    Raises:
        InputError: no steps of the flow.
        UnsupportedError: terms that the kernel cannot use.
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
                "too few steps of the flow", got=f"ode_steps={self.ode_steps}", expected=">= 1"
            )

    def check(self, model: Posterior) -> None:
        """Refuse what kernel or method cannot use."""
        super().check(model)
        self.kernel.check(self.parts(model)[1])

    def finish(self, model: Posterior, x_t: Tensor, t: Tensor, *, noise: StepNoise) -> Tensor:
        """A draw of ``x_0``: what spread is left belongs to the posterior."""
        return self._clean(model, x_t, t, noise=noise)

    def advance(
        self, model: Posterior, walk: Walk, noise: StepNoise, *, state: SamplerState
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Draw a clean field, then noise of the next level."""
        x_0 = self._clean(model, state.x, walk.t, noise=noise)
        return x_0 + walk.ratio_s * noise(model.grid, 0), ()

    def _clean(self, model: Posterior, x_t: Tensor, t: Tensor, *, noise: StepNoise) -> Tensor:
        """``x_0'``."""
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
