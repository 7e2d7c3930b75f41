"""MCGDiff: sequential Monte Carlo in the singular vectors of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.conditioning.base import split_terms
from invdiff.grid import Grid
from invdiff.needs import Needs
from invdiff.noise import NoiseField
from invdiff.posterior import Posterior
from invdiff.samplers.base import SamplerState, UsesTerms, centre_of
from invdiff.samplers.eigenbasis import DataModes, data_modes
from invdiff.samplers.particles import ParticleSampler, particle_noise
from invdiff.samplers.resampling import reweigh

__all__ = ["MCGDiff"]


@dataclass(frozen=True)
class MCGDiff(ParticleSampler, UsesTerms):
    """Monte Carlo guided diffusion (Cardoso et al. 2023, arXiv 2308.07983).

    Sequential Monte Carlo in the singular vectors of the data.

    In these coordinates a datum is the field in noise of standard deviation ``tau``, and is treated
    as an observation of ``z`` at the noise ratio ``tau``. Above it, particles are weighted by the
    forward process, ``g_r(z) = N(data; z, r^2 - tau^2)``; the step that crosses ``tau`` is
    conditioned by the Brownian bridge from ``z_s`` to ``z_t``; below it, the datum has been used.
    DDPM's kernel times either is Gaussian in each coordinate, with ``m = E[x_0 | x_t]``,
    ``b = r_s^2 / r_t^2`` and ``v = r_s^2 (1 - b)``::

        z_s ~ N(b z_t + (1 - b) m, v) g_s(z_s)
        w_s = w_t int N(z_s; b z_t + (1 - b) m, v) g_s(z_s) dz_s / g_t(z_t)

    Assumptions: linear Gaussian data. Exact as particles and steps grow; the kernel ignores the
    spread of ``x_0`` given ``x_t``, and the weights of many data leave few ancestors.

    Cost: one network pass per step and particle and two changes of coordinates; no vjp.

    Args:
        steps: Number of steps.
        particles: Particles per member; at the end the members are resampled from all particles.
        threshold: Share of the particles below which the effective number leads to resampling.

    Raises:
        InputError: ``steps`` or ``particles`` is less than one, or the threshold lies outside [0,
            1].
    """

    needs: ClassVar[Needs] = Needs.LINEAR_GAUSSIAN

    def init(
        self,
        model: Posterior,
        noise: NoiseField,
        realizations: Sequence[int],
        *,
        device: torch.device,
    ) -> SamplerState:
        """Particles of noise given the data at the largest noise level, with their weights."""
        state = super().init(model, noise, realizations, device=device)
        modes, walk = self._modes(model), self.walk(model, state)
        if modes is None:
            return state
        held = _Held.at(modes, walk.ratio_t, walk.ratio_t, is_complex=model.grid.is_complex)
        zero = torch.zeros_like(walk.z)
        centre = zero + centre_of(model, zero)
        eps = (walk.z - centre) / walk.ratio_t
        z, log_weight = held.step(centre, eps, zero, variance=walk.ratio_t**2, grid=model.grid)
        # For the evidence: the coordinates' data are the whitened ones times tau, and what lies
        # outside all noise levels, or is not measured, is only noise.
        terms, _ = split_terms(self.parts(model)[1])
        half = 1.0 if model.grid.is_complex else 0.5
        squares = sum(float(term.residual(zero[:1]).abs().square().sum()) for term in terms)
        informs, tau2 = held.slope > 0, modes.noise**2
        used = torch.where(informs, modes.data.abs().square() / tau2, 0).sum()
        whitened = torch.where(informs, tau2, 1).log().sum() - (squares - used)
        log_weights = (log_weight + half * whitened).double()
        return state._replace(x=walk.alpha_t * z, log_weights=log_weights)

    def step(self, model: Posterior, noise: NoiseField, state: SamplerState) -> SamplerState:
        """Draw a step given the data, weight it, and resample if necessary."""
        prior, _ = self.parts(model)
        modes, walk = self._modes(model), self.walk(model, state)
        draws = particle_noise(state, noise)
        b = (walk.ratio_s / walk.ratio_t) ** 2
        v = walk.ratio_s**2 * (1 - b)
        centre = b * walk.z + (1 - b) * prior.denoise(state.x, walk.t)
        eps = draws(model.grid, 0).to(centre.dtype)
        if modes is None:
            z, log_weight = centre + v**0.5 * eps, torch.zeros(len(centre))
        else:
            before = _Held.at(modes, walk.ratio_t, walk.ratio_t, is_complex=model.grid.is_complex)
            held = _Held.at(modes, walk.ratio_t, walk.ratio_s, is_complex=model.grid.is_complex)
            z, log_weight = held.step(centre, eps, walk.z, variance=v, grid=model.grid)
            log_weight = log_weight - before.log_density(modes.to_modes(walk.z), 0.0)
        state = state._replace(x=walk.alpha_s * z, step=state.step + 1)
        return reweigh(state, log_weight, draws, threshold=self.threshold)[0]

    def _modes(self, model: Posterior) -> DataModes | None:
        _, terms = self.parts(model)
        return data_modes(tuple(split_terms(terms)[0]), model.grid) if terms else None


@dataclass(frozen=True, eq=False)
class _Held:
    """``data = slope z_s + offset z_t + noise`` in each coordinate; slope 0 means no data."""

    modes: DataModes
    is_complex: bool
    slope: Tensor
    offset: Tensor
    variance: Tensor

    @classmethod
    def at(cls, modes: DataModes, ratio_t: float, ratio_s: float, *, is_complex: bool) -> _Held:
        """How the data constrain ``z`` at ``ratio_s``, in a step from ``ratio_t``."""
        above = modes.noise <= ratio_s
        crossed = ~above & (modes.noise < ratio_t)
        tau2 = torch.where(crossed | above, modes.noise, 0) ** 2
        span = max(ratio_t**2 - ratio_s**2, 1e-300)
        share = torch.where(crossed, (tau2 - ratio_s**2) / span, 0)
        bridge = share * (ratio_t**2 - tau2)
        return cls(
            modes,
            is_complex,
            slope=torch.where(above, 1, torch.where(crossed, 1 - share, 0)).to(tau2.dtype),
            offset=share,
            variance=torch.where(above, ratio_s**2 - tau2, torch.where(crossed, bridge, 1)),
        )

    def log_density(self, centre: Tensor, variance: float) -> Tensor:
        """``log N(data; slope centre, slope^2 variance + noise variance)``, ``(batch,)``."""
        total = self.slope**2 * variance + self.variance
        informs = self.slope > 0
        deviation = torch.where(informs, self.modes.data - self.slope * centre, 0)
        squares = deviation.abs().square() / total + torch.where(informs, total, 1).log()
        # Coordinates of a real field may be complex; then each counts twice, and half as much.
        half = 1.0 if self.is_complex else 0.5
        return -half * squares.flatten(1).sum(1)

    def step(
        self, centre: Tensor, eps: Tensor, z_t: Tensor, *, variance: float, grid: Grid
    ) -> tuple[Tensor, Tensor]:
        """A draw of ``z_s ~ N(centre, variance)`` given the data, and the log-evidence of these."""
        mean, white, before = map(self.modes.to_modes, (centre, eps, z_t))
        gain = self.slope * variance / (self.slope**2 * variance + self.variance)
        innovation = self.modes.data - self.offset * before - self.slope * mean
        u = mean + gain * innovation + (variance * (1 - gain * self.slope)) ** 0.5 * white
        shifted = mean + torch.where(self.slope > 0, self.offset * before / self.slope, 0)
        return self.modes.to_field(u, grid), self.log_density(shifted, variance)
