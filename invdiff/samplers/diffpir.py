"""DiffPIR: plug-and-play restoration along the diffusion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from invdiff.conditioning.laplace import Laplace
from invdiff.errors import InputError
from invdiff.needs import Needs
from invdiff.noise import StepNoise
from invdiff.posterior import Posterior
from invdiff.samplers.base import SamplerState, TermSampler, Walk
from invdiff.samplers.inner import Target, isotropic

__all__ = ["DiffPIR"]


@dataclass(frozen=True)
class DiffPIR(TermSampler):
    """Denoising diffusion for plug-and-play image restoration (Zhu et al. 2023, arXiv 2305.08995).

    Half-quadratic splitting: a denoising step, a proximal step towards the data, then noise, of
    which a share ``zeta`` is fresh::

        x_0' = argmax_x log p(y | x) - strength |x - E[x_0|x_t]|^2 / (2 r_t^2)
        z_s = x_0' + r_s (sqrt(1 - zeta) (z_t - x_0') / r_t + sqrt(zeta) eps)

    The proximal step is the mean of the Gaussian update of ``N(E[x_0|x_t], r_t^2 / strength)``
    where the data are linear and Gaussian, and is found by Gauss-Newton otherwise; terms other than
    likelihoods enter to first order.

    Assumptions: differentiable terms. Each step takes a mode instead of a draw, so that the spread
    is wrong in any limit. Measured on Gaussian posteriors: with ``strength = zeta = 1`` half the
    variance; with the published 7 and 0.3 some directions have a fifth of it and some five times
    it, and the mean is biased too.

    Cost: one network pass per step and member and one solve; no vjp of the network.

    Args:
        steps: Number of steps.
        strength: Weight of the prior against the data, ``lambda`` in the paper.
        zeta: Share of the noise that is fresh in each step, between 0 and 1.
        solver: Solver of the proximal step.

    Raises:
        InputError: ``steps`` is less than one, the strength is not positive, or ``zeta`` lies
            outside [0, 1].
    """

    needs: ClassVar[Needs] = Needs.GRADIENT | Needs.ANALYTIC
    narrow: ClassVar[str] = "its data step is a point estimate"

    steps: int = 100
    strength: float = 1.0
    zeta: float = 1.0
    solver: Laplace = field(default_factory=Laplace)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.strength > 0 and 0 <= self.zeta <= 1):
            raise InputError(
                "strength or zeta is out of range",
                got=self,
                expected="strength > 0 and 0 <= zeta <= 1",
            )

    def finish(self, model: Posterior, x_t: Tensor, t: Tensor, *, noise: StepNoise) -> Tensor:
        """The result of the last proximal step, ``(batch, *grid.shape)``."""
        return self._proximal(model, x_t, t)

    def advance(
        self, model: Posterior, walk: Walk, noise: StepNoise, *, state: SamplerState
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Denoise, fit the data, and add noise of the next level."""
        x_0 = self._proximal(model, state.x, walk.t)
        old = (walk.z - x_0) / walk.ratio_t
        eps = (1 - self.zeta) ** 0.5 * old + self.zeta**0.5 * noise(model.grid, 0)
        return x_0 + walk.ratio_s * eps, ()

    def _proximal(self, model: Posterior, x_t: Tensor, t: Tensor) -> Tensor:
        prior, terms = self.parts(model)
        mean = prior.denoise(x_t, t)
        std = float(prior.schedule.ratio(t)) / self.strength**0.5
        covariance = isotropic(prior.grid, std, device=mean.device)
        return Target(mean, covariance, terms, x_t, t).gaussian(self.solver).posterior_mean()
