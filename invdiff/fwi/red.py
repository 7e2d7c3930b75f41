"""RED-diffusion: an inversion regularised by the residual of a denoiser."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from invdiff.arguments import as_integer
from invdiff.errors import InputError
from invdiff.fwi.bands import check_bands, in_band, sees_all
from invdiff.fwi.method import Setting, noised, without_data
from invdiff.fwi.shots import AllShots, Shots, check_shots
from invdiff.fwi.state import InversionState
from invdiff.linalg import per_member
from invdiff.noise import InversionStream

__all__ = ["REDDiffusion"]

_LEVELS = 1  # numbers of their own for the noise levels, apart from those of the shots

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8  # of Adam (Kingma & Ba 2015, arXiv 1412.6980)


@dataclass(frozen=True)
class REDDiffusion:
    r"""Regularisation by denoising diffusion, an optimiser.

    Adam on the misfit and on the residual of the denoiser ``D`` at a random noise level, which is
    not differentiated (Shan et al. 2026, doi 10.1038/s42005-026-02677-6)::

        gradient = grad f(x) / T + weight (eps_hat - eps)
        eps_hat  = (x + sigma eps - D(x + sigma eps)) / sigma

    with ``T = max(1, 2 f / n_data)``, as in `AnnealedMode`.

    Assumptions: members differ only by ``eps``, and their spread is not an uncertainty. Cost: a
    forward and an adjoint solve per shot and one network pass per step and member.

    Args:
        steps: Number of iterations of Adam.
        weight: Weight of the denoiser's residual, in units of the misfit's gradient, s/m.
        rate: Rate of the first step, m/s; it falls to zero as a cosine.
        lowest: Lowest noise level, m/s.
        highest: Highest noise level, m/s; levels are drawn log-uniformly, equal for all members.
        bands: Frequencies in Hz, rising, as of `LBFGS`.
        shots: Choice of the shots that a step uses.

    Raises:
        InputError: A count is not an integer >= 1, a level or rate is not positive, or the bands do
            not rise.
    """

    steps: int = 300
    weight: float = 0.1
    rate: float = 45.0
    lowest: float = 5.0
    highest: float = 2000.0
    bands: tuple[float, ...] = ()
    shots: Shots = field(default_factory=AllShots)

    needs_prior = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", as_integer("steps", self.steps, least=1))
        check_bands(self.bands)
        check_shots(self.shots)
        if not (self.weight >= 0 < self.rate and 0 < self.lowest < self.highest):
            raise InputError(
                "settings of RED-diffusion are out of range",
                got=self,
                expected="weight >= 0, rate > 0, 0 < lowest < highest",
            )

    def sees_all(self, step: int) -> bool:
        """Whether that step used all shots and frequencies."""
        return sees_all(self, step, self.bands)

    def init(self, setting: Setting) -> InversionState:
        """The start; its misfit is that of the first step's evaluation."""
        zero = torch.zeros_like(setting.start)
        unknown = torch.full((len(zero),), math.nan, dtype=torch.float64)
        memory = {"first": zero, "second": zero, "n_updates": torch.tensor(0)}
        return InversionState.at(setting.start, unknown, solves=0, memory=memory)

    def cost(self, setting: Setting, state: InversionState) -> int:
        """Solves of one evaluation of the step's shots."""
        return self.shots.count(setting.objective.n_shots)

    def step(self, setting: Setting, state: InversionState) -> InversionState:
        """One step of Adam; the misfit stored is that before it."""
        objective = in_band(setting.objective, self.bands, state.step / self.steps)
        objective = self.shots.of(objective, state.step, setting.noise.seed)
        if not objective.has_data:
            return without_data(state)
        f, g = objective(state.x)
        misfit = 2 * f / objective.n_data
        g = g / per_member(misfit.clamp_min(1.0), g).to(g) + self.weight * self._residual(
            setting, state
        )
        n = int(state.memory["n_updates"]) + 1  # fewer than steps where some had no data
        first = _BETA_1 * state.memory["first"] + (1 - _BETA_1) * g
        second = _BETA_2 * state.memory["second"] + (1 - _BETA_2) * g.square()
        rate = self.rate * (1 + math.cos(math.pi * state.step / self.steps)) / 2
        root = (second / (1 - _BETA_2**n)).sqrt() + _EPSILON
        x = state.x - rate / (1 - _BETA_1**n) * first / root
        x = x.clamp(*objective.bounds)
        memory = {"first": first, "second": second, "n_updates": torch.tensor(n)}
        return state.after(x, misfit, solves=objective.n_shots, memory=memory)

    def _residual(self, setting: Setting, state: InversionState) -> Tensor:
        """Residual ``eps_hat - eps`` of the denoiser at a random noise level."""
        prior = setting.prior
        assert prior is not None
        rng = np.random.default_rng((setting.noise.seed, _LEVELS, state.step))
        sigma = math.exp(rng.uniform(math.log(self.lowest), math.log(self.highest)))
        eps = setting.noise(
            prior.grid, setting.members, state.step, stream=InversionStream.STATE
        ).to(state.x)
        with torch.no_grad():
            x_t, t = noised(prior, state.x, sigma, e=eps)
            return (state.x - prior.denoise(x_t, t)) / sigma
