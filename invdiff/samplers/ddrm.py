"""DDRM: denoising diffusion restoration in the singular vectors of the data."""

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
from invdiff.samplers.eigenbasis import DataModes, data_modes

__all__ = ["DDRM"]


@dataclass(frozen=True)
class DDRM(TermSampler):
    """Denoising diffusion restoration models (Kawar et al. 2022, arXiv 2201.11793).

    In the singular vectors of the data each coordinate ``u`` of the field has its own noise level
    ``n`` in the data. It is moved from ratio ``r_t`` to ``r_s`` independently of the others, with
    ``m = E[x_0 | x_t]``::

        not measured: u_s = m + sqrt(1 - eta^2) (r_s / r_t) (u_t - m) + eta r_s eps
        r_s < n:      u_s = m + sqrt(1 - eta^2) (r_s / n) (u_data - m) + eta r_s eps
        r_s >= n:     u_s = (1 - eta_b) m + eta_b u_data + sqrt(r_s^2 - eta_b^2 n^2) eps

    Assumptions: linear Gaussian data. A fast reconstruction that does not sample the posterior in
    any limit: data that are less noisy than ``x_t`` replace it, whatever the spread of the prior,
    and none count at the last level (a quarter to nine tenths of the variance on Gaussian
    posteriors).

    Cost: one network pass per step and member and two changes of coordinates; no operator call and
    no vjp. The singular vectors are computed once (`invdiff.samplers.eigenbasis`).

    Args:
        steps: Number of steps.
        eta: Share of fresh noise, as in `DDIM`.
        eta_b: Weight of the data where they are less noisy than ``x_t``.

    Raises:
        InputError: ``steps`` is less than one, or a share lies outside [0, 1].
    """

    needs: ClassVar[Needs] = Needs.LINEAR_GAUSSIAN
    narrow: ClassVar[str] = "unobserved coordinates are updated too late"

    steps: int = 20
    eta: float = 0.85
    eta_b: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.eta <= 1 and 0 <= self.eta_b <= 1):
            raise InputError(
                "eta or eta_b is out of range",
                got=self,
                expected="0 <= eta <= 1 and 0 <= eta_b <= 1",
            )

    def finish(self, model: Posterior, x_t: Tensor, t: Tensor, *, noise: StepNoise) -> Tensor:
        """``E[x_0 | x_t]`` of the prior: at ratio zero no data are less noisy than ``x_t``."""
        return self.parts(model)[0].denoise(x_t, t)

    def advance(
        self, model: Posterior, walk: Walk, noise: StepNoise, *, state: SamplerState
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Move each coordinate by its own rule; ``(batch, *grid.shape)``, no memory."""
        prior, terms = self.parts(model)
        mean = prior.denoise(state.x, walk.t)
        eps = noise(model.grid, 0).to(mean.dtype)
        kept = (1 - self.eta**2) ** 0.5
        unobserved = mean + kept * walk.ratio_s / walk.ratio_t * (walk.z - mean)
        unobserved = unobserved + self.eta * walk.ratio_s * eps
        if not terms:
            return unobserved, ()
        modes = data_modes(tuple(split_terms(terms)[0]), model.grid)
        u = self._observed(modes, modes.to_modes(mean), modes.to_modes(eps), ratio=walk.ratio_s)
        u = torch.where(modes.noise.isinf(), modes.to_modes(unobserved), u)
        return modes.to_field(u, model.grid), ()

    def _observed(self, modes: DataModes, mean: Tensor, eps: Tensor, *, ratio: float) -> Tensor:
        """``u_s`` of the measured coordinates, ``(batch, *modes)``."""
        coarse = (1 - self.eta**2) ** 0.5 * ratio / modes.noise * (modes.data - mean)
        coarse = mean + coarse + self.eta * ratio * eps
        # Only where ratio >= noise, so that the root is real.
        rest = (ratio**2 - (self.eta_b * modes.noise) ** 2).clamp_min(0).sqrt()
        fine = mean + self.eta_b * (modes.data - mean) + rest * eps
        return torch.where(ratio < modes.noise, coarse, fine)
