"""Long exact chains for posteriors without a closed form, and what they are made of. No tests here.

Gibbs sampling for Laplace increments and linear data, Hamiltonian Monte Carlo for Gaussian fields
and any differentiable operator; many chains side by side, so that R-hat means something.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from invdiff.likelihood import Gaussian
from invdiff.operators import Linear
from invdiff.priors.gaussian import StationaryGaussianPrior
from invdiff.priors.levy import LevyPrior
from tests.support.closed_form import dense
from tests.support.distances import LogProb

REAL = torch.float64


def measured_rows(operator: Linear, y: Tensor) -> tuple[Tensor, Tensor]:
    """Matrix and data of what is measured, ``(m, n)`` and ``(m,)``."""
    mask = getattr(operator, "measured", None)
    rows = slice(None) if mask is None else mask.flatten()
    return dense(operator)[rows], y.flatten()[rows]


def likelihood_of(term: Gaussian, x: Tensor) -> Tensor:
    """``term.log_prob`` of clean fields."""
    return term.log_prob(x, x, torch.zeros((), dtype=REAL))


def filtered(power: Tensor, x: Tensor) -> Tensor:
    """``F^H power F x`` of real fields."""
    axes = tuple(range(-power.ndim, 0))
    return torch.fft.ifftn(power * torch.fft.fftn(x, dim=axes), dim=axes).real


def coloured(prior: StationaryGaussianPrior, eps: Tensor) -> Tensor:
    """Draws of the prior from standard normal fields."""
    return prior.mean + filtered(prior.spectrum.sqrt(), eps)


def identity(prior: StationaryGaussianPrior) -> Tensor:
    return torch.eye(prior.grid.size, dtype=REAL).reshape(-1, *prior.grid.shape)


def r_hat(chains: Tensor) -> float:
    """Split R-hat, worst coordinate of ``(n_chains, n_steps, d)`` (Gelman et al., BDA3, 11.4)."""
    n = chains.shape[1] // 2
    halves = torch.cat([chains[:, :n], chains[:, n : 2 * n]])
    within = halves.var(1).mean(0)
    between = halves.mean(1).var(0)
    return float(((n - 1) / n + between / within).sqrt().max())


def thinned(chains: Tensor, n: int) -> Tensor:
    """``n`` draws evenly from all chains ``(n_chains, n_steps, d)``, each chain's in turn."""
    each = n // len(chains)
    steps = torch.linspace(0, chains.shape[1] - 1, each).round().long()
    return chains[:, steps].transpose(0, 1).flatten(0, 1)


def gibbs(
    prior: LevyPrior,
    term: Gaussian,
    noise: float,
    *,
    n_chains: int = 128,
    n_steps: int = 1000,
    burn_in: int = 200,
    seed: int = 0,
) -> Tensor:
    """Blocked Gibbs for Laplace increments, ``(n_chains, n_steps, d)`` (Park & Casella 2008).

    A Laplace variable ``u`` is ``N(0, v)`` with ``v`` exponential, so ``x | v, y`` is Gaussian, and
    ``1 / v | x`` is inverse Gaussian of mean ``1 / (scale |u|)`` and shape ``1 / scale^2``.
    """
    rng = np.random.default_rng(seed)
    matrix, y = measured_rows(term.operator, term.y)
    d = prior.grid.size
    difference = torch.eye(d, dtype=REAL).diff(dim=0)
    fixed = matrix.mT @ matrix / noise**2
    fixed[0, 0] += prior.first_std**-2
    pull = (matrix.mT @ y / noise**2)[:, None]
    inverse_v = torch.from_numpy(1 / rng.exponential(2 * prior.scale**2, (n_chains, d - 1)))
    kept = []
    for step in range(burn_in + n_steps):
        precision = fixed + (difference.mT * inverse_v[:, None]) @ difference
        root = torch.linalg.cholesky(precision)
        half_way = torch.linalg.solve_triangular(root, pull.expand(n_chains, -1, -1), upper=False)
        half_way = half_way + torch.from_numpy(rng.standard_normal(half_way.shape))
        x = torch.linalg.solve_triangular(root.mT, half_way, upper=True)[..., 0]
        steps = x.diff(dim=1).abs().numpy()
        inverse_v = torch.from_numpy(rng.wald(1 / (prior.scale * steps), prior.scale**-2))
        if step >= burn_in:
            kept.append(x)
    return torch.stack(kept, 1)


def hmc(
    prior: StationaryGaussianPrior,
    term: Gaussian,
    *,
    n_chains: int = 128,
    n_steps: int = 800,
    burn_in: int = 100,
    seed: int = 0,
) -> Tensor:
    """Hamiltonian Monte Carlo, ``(n_chains, n_steps, d)`` (Neal 2011, arXiv 1206.1901).

    In ``u`` with ``x = C^(1/2) u``, then ``u = centre + root v``: from the mode and its Hessian for
    a pilot run, from the pilot's mean and covariance for the run that counts.
    """
    rng = np.random.default_rng(seed)
    d = prior.grid.size
    colour = coloured(prior, identity(prior)).flatten(1)  # symmetric; the prior's mean is zero

    def potential(u: Tensor) -> Tensor:
        x = (u @ colour).reshape(-1, *prior.grid.shape)
        return 0.5 * u.square().sum(1) - likelihood_of(term, x)

    centre, root = _laplace(potential, d)
    v = torch.from_numpy(rng.standard_normal((n_chains, d)))
    pilot = (
        centre + _leapfrog(potential, centre, root, v=v, steps=(burn_in, 100), rng=rng) @ root.mT
    )
    centre = pilot.mean((0, 1))
    root = torch.linalg.cholesky(pilot.flatten(0, 1).mT.cov())
    v = torch.linalg.solve_triangular(root, (pilot[:, -1] - centre).mT, upper=False).mT
    u = (
        centre
        + _leapfrog(potential, centre, root, v=v, steps=(burn_in, n_steps), rng=rng) @ root.mT
    )
    return u @ colour


def _leapfrog(
    potential: LogProb,
    centre: Tensor,
    root: Tensor,
    *,
    v: Tensor,
    steps: tuple[int, int],
    rng: np.random.Generator,
) -> Tensor:
    """Chains of ``v``, ``(n_chains, steps[1], d)``.

    The step size is tuned to 80 % acceptance in the ``steps[0]`` of burn-in and then fixed. Lengths
    of trajectories are random about a quarter of the period: a whole one would lead back.
    """

    def at(v: Tensor) -> tuple[Tensor, Tensor]:
        v = v.detach().requires_grad_()
        value = potential(centre + v @ root.mT)
        (gradient,) = torch.autograd.grad(value.sum(), v)
        return value.detach(), gradient

    value, gradient = at(v)
    size, kept = 0.3, []
    for step in range(sum(steps)):
        p = torch.from_numpy(rng.standard_normal(tuple(v.shape)))
        energy = value + 0.5 * p.square().sum(1)
        h = size * rng.uniform(0.7, 1.3)
        v_new, value_new, gradient_new = v, value, gradient
        for _ in range(math.ceil(rng.uniform(0.5, 1.5) * math.pi / 2 / h)):
            p = p - h / 2 * gradient_new
            v_new = v_new + h * p
            value_new, gradient_new = at(v_new)
            p = p - h / 2 * gradient_new
        # A trajectory that overflows is refused.
        accept = (energy - value_new - 0.5 * p.square().sum(1)).clamp_max(0).exp().nan_to_num(0)
        taken = torch.from_numpy(rng.random(len(v))) < accept
        v = torch.where(taken[:, None], v_new, v)
        value = torch.where(taken, value_new, value)
        gradient = torch.where(taken[:, None], gradient_new, gradient)
        if step < steps[0]:
            size = max(0.02, size * math.exp(0.1 * (float(accept.mean()) - 0.8)))
        else:
            kept.append(v)
    return torch.stack(kept, 1)


def _laplace(potential: LogProb, d: int) -> tuple[Tensor, Tensor]:
    """The mode and a root of the inverse Hessian there."""
    u = torch.zeros(1, d, dtype=REAL, requires_grad=True)
    optimiser = torch.optim.LBFGS([u], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = potential(u).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    mode = u.detach()
    hessian = torch.autograd.functional.hessian(lambda v: potential(v[None]).sum(), mode[0])
    values, vectors = torch.linalg.eigh(hessian)
    # Data that curve the wrong way do not widen the metric beyond the prior's.
    return mode, vectors * values.clamp_min(1).rsqrt()
