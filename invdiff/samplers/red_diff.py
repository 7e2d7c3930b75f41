"""RED-diff: regularisation by denoising diffusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.errors import InputError
from invdiff.needs import Needs
from invdiff.noise import NoiseField, StepNoise
from invdiff.posterior import Posterior
from invdiff.samplers.base import SamplerState, TermSampler, Walk
from invdiff.samplers.inner import gradient

__all__ = ["REDDiff"]

_BETA_1, _BETA_2 = 0.9, 0.99  # of Adam (Kingma & Ba 2015, arXiv 1412.6980)
_EPSILON = 1e-9  # of Adam, times the rate: gradients are in inverse units of the field


@dataclass(frozen=True)
class REDDiff(TermSampler):
    """Regularisation by denoising diffusion (Mardani et al. 2023, arXiv 2305.04391).

    Variational inference with a point mass at ``mu``: Adam on the data and on the residual of the
    denoiser at falling noise levels, which is not differentiated::

        gradient = -sum_i grad term_i(mu) + weight (mu - E[x_0 | z_t = mu + r_t eps]) / r_t^2

    With ``weight = 1`` the second part is the score of the noisy prior, as in the divergence that
    the paper starts from. The paper's own weighting, ``r_t^2`` times that, needs a weight in units
    of the data, and its means erred more on Gaussian posteriors.

    Assumptions: differentiable terms. An optimiser that ends near a mode: members differ only by
    ``eps``, by an amount that ``rate`` and ``steps`` determine. Its ensemble is a set of restarts
    and not an uncertainty, with terms or without.

    Cost: one network pass per step and member, no vjp of the network, one gradient of the terms.

    The state holds ``alpha_t mu``; its memory holds the two moments of Adam.

    Args:
        steps: Number of noise levels; Adam moves ``mu`` at each but the last.
        weight: Weight of the prior against the data; 1 weights them as the posterior does.
        rate: Approximate length of a move of Adam, in units of the field.

    Raises:
        InputError: ``steps`` is less than one, or the weight or rate is not positive.
    """

    needs: ClassVar[Needs] = Needs.GRADIENT
    narrow: ClassVar[str] = "it seeks modes"

    steps: int = 200
    weight: float = 1.0
    rate: float = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.weight > 0 and self.rate > 0):
            raise InputError(
                "weight or rate is not positive", got=self, expected="weight > 0 and rate > 0"
            )

    def init(
        self,
        model: Posterior,
        noise: NoiseField,
        realizations: Sequence[int],
        *,
        device: torch.device,
    ) -> SamplerState:
        """``mu = E[x_0 | x_T]``, which is close to the mean of the prior, for one network pass."""
        state = super().init(model, noise, realizations, device=device)
        t = model.schedule.timesteps(self.steps)[0]
        mu = self.parts(model)[0].denoise(state.x, t)
        zero = torch.zeros_like(_as_reals(mu))
        return state._replace(x=float(model.schedule.alpha(t)) * mu, memory=(zero, zero))

    def finish(self, model: Posterior, x_t: Tensor, t: Tensor, *, noise: StepNoise) -> Tensor:
        """The point ``mu`` itself, ``(batch, *grid.shape)``."""
        return x_t / float(model.schedule.alpha(t))

    def advance(
        self, model: Posterior, walk: Walk, noise: StepNoise, *, state: SamplerState
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Move ``mu`` by one step of Adam."""
        (prior, terms), mu = self.parts(model), walk.z
        x_t = walk.alpha_t * (mu + walk.ratio_t * noise(model.grid, 0))
        slope = self.weight / walk.ratio_t**2 * (mu - prior.denoise(x_t, walk.t))
        g = _as_reals(slope - gradient(terms, mu, x_t, t=walk.t))
        first, second = state.memory
        first = _BETA_1 * first + (1 - _BETA_1) * g
        second = _BETA_2 * second + (1 - _BETA_2) * g.square()
        n = state.step + 1
        root = (second / (1 - _BETA_2**n)).sqrt() + _EPSILON / self.rate
        move = self.rate / (1 - _BETA_1**n) * first / root
        return mu - (torch.view_as_complex(move) if mu.is_complex() else move), (first, second)


def _as_reals(x: Tensor) -> Tensor:
    """Complex values as pairs: Adam scales real and imaginary part separately, as torch's does."""
    return torch.view_as_real(x) if x.is_complex() else x
