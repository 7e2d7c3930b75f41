r"""DDIM (Song et al. 2021, arXiv 2010.02502): ``eta = 0`` is Euler on the flow, 1 is DDPM.

    z_s = m + sqrt(r_s^2 - eta^2 v) eps_t + eta sqrt(v) eps,   v = r_s^2 (1 - r_s^2 / r_t^2)

with ``m = E[x_0|x_t]`` and ``eps_t = (z_t - m) / r_t``.
"""

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
    """First order; one pass a step. Under-disperses at few steps: its error is first order.

    Args:
        steps: number of steps.
        eta: 0 for deterministic steps, 1 for DDPM's.
    """

    steps: int = 100
    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise InputError("eta out of range", got=self.eta, expected="0 <= eta <= 1")

    def advance(
        self, model: Posterior, walk: Walk, noise: StepNoise, *, state: SamplerState
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Move along the flow, with a share ``eta`` of fresh noise."""
        mean = model.denoise(state.x, walk.t)
        fresh = self.eta * walk.ratio_s * (1 - (walk.ratio_s / walk.ratio_t) ** 2) ** 0.5
        kept = (walk.ratio_s**2 - fresh**2) ** 0.5
        z = mean + kept / walk.ratio_t * (walk.z - mean)
        return z + fresh * noise(model.grid, 0) if fresh else z, ()
