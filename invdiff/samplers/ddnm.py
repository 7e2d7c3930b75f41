"""DDNM+: data in the range of the operator, the prior in its null space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.conditioning.base import split_terms
from invdiff.errors import InputError
from invdiff.needs import Needs
from invdiff.noise import StepNoise
from invdiff.posterior import Posterior
from invdiff.samplers.base import SamplerState, TermSampler, Walk
from invdiff.samplers.eigenbasis import data_modes

__all__ = ["DDNM"]


@dataclass(frozen=True)
class DDNM(TermSampler):
    """Denoising diffusion null-space model, DDNM+ (Wang et al. 2022, arXiv 2212.00490).

    The data replace the part of the denoised field that they determine; the prior fills the null
    space of the operator. With ``m = E[x_0 | x_t]``, the singular vectors ``V`` of the data, their
    coordinates ``u`` and the noise levels ``n`` of these::

        x_0' = m - V L V^H (m - x_data),   L = min(1, c / (a n))
        z_s = x_0' + b (z_t - x_0') + V sqrt(c^2 - (a L n)^2) eps

    with fresh noise ``c^2 = eta^2 r_s^2 (1 - r_s^2 / r_t^2)``, ``b = sqrt(r_s^2 - c^2) / r_t`` and
    the weight ``a = 1 - b`` of ``x_0'``. Where ``c`` covers the noise of the data they replace
    ``m`` (``L = 1``, the pseudo-inverse); elsewhere they are weakened until their noise equals that
    fresh noise.

    Assumptions: linear Gaussian data. It does not sample the posterior in any limit: ``L`` weighs
    the data against the step and not against the spread of the prior, and each step counts the
    noise of the same data as if it were new. Where singular values are small (blur) that adds up,
    and means err by several standard deviations, the more the more steps.

    Cost: one network pass per step and member and two changes of coordinates; no operator call and
    no vjp. The singular vectors are computed once (`invdiff.samplers.eigenbasis`).

    Args:
        steps: Number of steps.
        eta: Share of fresh noise, 1 as in DDPM; it bounds how much the data may change in a step.

    Raises:
        InputError: ``steps`` is less than one, or ``eta`` lies outside (0, 1].
    """

    needs: ClassVar[Needs] = Needs.LINEAR_GAUSSIAN
    narrow: ClassVar[str] = "its data projections leave no spread"

    steps: int = 100
    eta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.eta <= 1:
            raise InputError(
                "eta is out of range",
                got=self.eta,
                expected="0 < eta <= 1",
                hint="Without fresh noise, noisy data could not be used; DDRM(eta=0) can use them.",
            )

    def finish(self, model: Posterior, x_t: Tensor, t: Tensor, *, noise: StepNoise) -> Tensor:
        """``E[x_0 | x_t]`` of the prior: without fresh noise no data are used in the last step."""
        return self.parts(model)[0].denoise(x_t, t)

    def advance(
        self, model: Posterior, walk: Walk, noise: StepNoise, *, state: SamplerState
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Replace the measured part by the data, then step as DDIM does with the missing noise."""
        prior, terms = self.parts(model)
        mean = prior.denoise(state.x, walk.t)
        eps = noise(model.grid, 0).to(mean.dtype)
        fresh = self.eta * walk.ratio_s * (1 - (walk.ratio_s / walk.ratio_t) ** 2) ** 0.5
        kept = (walk.ratio_s**2 - fresh**2) ** 0.5 / walk.ratio_t
        if not terms:
            return mean + kept * (walk.z - mean) + fresh * eps, ()
        modes = data_modes(tuple(split_terms(terms)[0]), model.grid)
        weight = 1 - kept
        share = (fresh / (weight * modes.noise)).clamp_max(1)  # 0 where nothing is measured
        carried = (weight * modes.noise).clamp_max(fresh)  # noise that the data carry
        rest = (fresh**2 - carried**2).clamp_min(0).sqrt()
        added = torch.where(modes.noise.isinf(), fresh, rest)
        u = modes.to_modes(mean)
        u = u + share * (modes.data - u)
        u = u + kept * (modes.to_modes(walk.z) - u) + added * modes.to_modes(eps)
        return modes.to_field(u, model.grid), ()
