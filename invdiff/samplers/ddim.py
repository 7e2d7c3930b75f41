"""DDIM: first-order steps along the probability flow, with or without fresh noise."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from invdiff.errors import InputError
from invdiff.noise import StepNoise
from invdiff.posterior import Posterior
from invdiff.samplers.base import RatioSampler, SamplerState, Walk

__all__ = ["DDIM"]


@dataclass(frozen=True)
class DDIM(RatioSampler):
    """Denoising diffusion implicit models (Song et al. 2021, arXiv 2010.02502).

    With ``m = E[x_0 | x_t, y]`` and ``eps_t = (z_t - m) / r_t``, for ``z = x_t / alpha_t`` and
    ``r = sigma / alpha``::

        z_s = m + sqrt(r_s^2 - eta^2 v) eps_t + eta sqrt(v) eps,   v = r_s^2 (1 - r_s^2 / r_t^2)

    ``eta = 0`` is Euler's method on the probability flow, ``eta = 1`` is DDPM (Ho et al. 2020,
    arXiv 2006.11239).

    Assumptions: exact as steps grow and the moments are exact. Its error is of first order: with
    few steps the members have too little spread. Cost: one network pass per step and member, and
    what the conditioning takes.

    Args:
        steps: Number of steps.
        eta: Share of fresh noise: 0 for deterministic steps, 1 for those of DDPM.

    Raises:
        InputError: ``steps`` is less than one, or ``eta`` lies outside [0, 1].

    Example:
        >>> import torch
        >>> from invdiff import Grid, sample
        >>> from invdiff.priors import StationaryGaussianPrior
        >>> from invdiff.samplers import DDIM
        >>> prior = StationaryGaussianPrior(Grid(("x",), (64,)), torch.zeros(64), torch.ones(64))
        >>> draw = lambda steps: sample(prior, DDIM(steps), realizations=64, seed=0)
        >>> [round(float(draw(steps).std()), 2) for steps in (10, 100)]
        [0.79, 0.98]
    """

    steps: int = 100
    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise InputError("eta is out of range", got=self.eta, expected="0 <= eta <= 1")

    def advance(
        self, model: Posterior, walk: Walk, noise: StepNoise, *, state: SamplerState
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Move along the flow, with a share ``eta`` of fresh noise."""
        mean = model.denoise(state.x, walk.t)
        fresh = self.eta * walk.ratio_s * (1 - (walk.ratio_s / walk.ratio_t) ** 2) ** 0.5
        kept = (walk.ratio_s**2 - fresh**2) ** 0.5
        z = mean + kept / walk.ratio_t * (walk.z - mean)
        return z + fresh * noise(model.grid, 0) if fresh else z, ()
