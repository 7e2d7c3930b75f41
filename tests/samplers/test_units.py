"""A change of units is a change of units only: every prior, every sampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from invdiff.errors import DivergedError, UnsupportedError
from invdiff.grid import Grid
from invdiff.likelihood import Gaussian
from invdiff.operators import Mask
from invdiff.posterior import Posterior
from invdiff.priors import (
    GaussianMixturePrior,
    GaussianPrior,
    LevyPrior,
    NetworkPrior,
    SpectralMixturePrior,
    StationaryGaussianPrior,
    TiledPrior,
)
from invdiff.priors.spectral import ErrorSpectra
from invdiff.protocols import BasePrior, Sampler
from invdiff.samplers import DAPS, AnnealedGibbs, EnKG, SplitGibbs, sample
from tests.samplers.test_samplers import SAMPLERS
from tests.support import tiny
from tests.support.closed_form import correlation, half, normal, power_spectrum

N = 4
GRID = Grid(("y", "x"), (N, N), torch.float64)
LINE = Grid(("x",), (8,), torch.float64)
IMAGE = Grid(("y", "x"), (8, 8), torch.float32)
WIDE = Grid(("y", "x"), (8, 12), torch.float32)
MEANS = torch.stack([normal((N, N), 1), normal((N, N), 2) - 1])
WEIGHTS = torch.tensor([0.3, 0.7], dtype=torch.float64)

# Priors of the same field ``x``, told of ``scale * x + offset``.


def gaussian(scale: float, offset: float) -> BasePrior:
    mean = scale * MEANS[0] + offset
    # Without the symmetries of the grid, whose eigenvectors are told apart by rounding alone.
    stds = 1 + 0.5 * normal((N * N,), 6).tanh()
    return GaussianPrior(GRID, mean, scale**2 * stds[:, None] * correlation(N, 3.0) * stds)


def stationary(scale: float, offset: float) -> BasePrior:
    mean = scale * MEANS[0] + offset
    return StationaryGaussianPrior(GRID, mean, scale**2 * power_spectrum(N, 2.0))


def mixture(scale: float, offset: float) -> BasePrior:
    widths = torch.tensor([0.1, 0.3], dtype=torch.float64)[:, None, None]
    covariances = scale**2 * widths * correlation(N, 2.0)
    means = scale * MEANS + offset
    return GaussianMixturePrior(GRID, WEIGHTS, means, covariances=covariances)


def spectral(scale: float, offset: float) -> BasePrior:
    spectra = scale**2 * torch.stack([0.1 * power_spectrum(N, 1.0), 0.3 * power_spectrum(N, 2.0)])
    return SpectralMixturePrior(GRID, WEIGHTS, scale * MEANS + offset, spectra=spectra)


def levy(scale: float, offset: float) -> BasePrior:
    assert offset == 0  # the process starts about zero
    return LevyPrior(LINE, 0.5 * scale, first_std=scale)


def network(scale: float, offset: float) -> BasePrior:
    config = tiny.UNetConfig(**{**tiny.CONFIG.__dict__, "channels": 1})
    flat = ErrorSpectra(np.array([1e-3, 40.0]), np.array([0.0, 1.0]), np.ones((2, 2)))
    # Nearly linear: random weights far from that magnify the rounding of single precision.
    return NetworkPrior(tiny.network(config, wiggle=0.1), flat, IMAGE, scale=scale, offset=offset)


def tiled(scale: float, offset: float) -> BasePrior:
    return TiledPrior(network(scale, offset), WIDE, overlap=4)


Factory = Callable[[float, float], BasePrior]
PRIORS = (gaussian, stationary, mixture, spectral, levy, network, tiled)
OF_ROOTS = (DAPS, SplitGibbs, AnnealedGibbs, EnKG)
every_prior = pytest.mark.parametrize("prior", PRIORS, ids=lambda p: p.__name__)
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)


def drawn(
    prior: Factory,
    sampler: Sampler,
    scale: float = 1.0,
    offset: float = 0.0,
) -> Tensor:
    """Members of a posterior in other units, told in the first ones."""
    made = prior(scale, offset)
    operator = Mask(made.grid, half(made.grid.shape, 0.5, seed=1))
    values, noise = (normal(made.grid.shape, seed, made.grid.dtype) for seed in (3, 4))
    y = operator((scale * values + offset)[None])[0] + 0.3 * scale * noise * operator.keep
    model = Posterior(made, Gaussian(y, operator, 0.3 * scale))
    # Settings of a sampler that are in units of the field.
    names = [name for name in ("rho_min", "rho_max", "rate") if hasattr(sampler, name)]
    sampler = replace(sampler, **{name: scale * getattr(sampler, name) for name in names})
    members = sample(model, sampler, realizations=4, seed=5)
    return (members - offset) / scale


def reference(prior: Factory, sampler: Sampler) -> Tensor:
    """Members in the first units, if the sampler can draw from this prior at all."""
    try:
        return drawn(prior, sampler)
    except (UnsupportedError, DivergedError) as error:
        pytest.skip(str(error))


@every_prior
@pytest.mark.parametrize("scale", [2.0**10, 2.0**-10])
def test_powers_of_two_change_no_bit_of_a_schedule(prior: Factory, scale: float) -> None:
    one, other = prior(1.0, 0.0), prior(scale, 0.0)
    assert torch.equal(other.schedule.timesteps(7), scale * one.schedule.timesteps(7))


@every_sampler
@every_prior
def test_powers_of_two_change_no_bit(prior: Factory, sampler: Sampler) -> None:
    """The sharp form. Logarithms and roots of what has units are equal to rounding only."""
    expected, found = reference(prior, sampler), drawn(prior, sampler, 1024.0)
    if prior in (mixture, spectral) or isinstance(sampler, OF_ROOTS):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    else:
        assert torch.equal(found, expected)


@every_sampler
@every_prior
def test_other_units_give_the_same_members(prior: Factory, sampler: Sampler) -> None:
    """To rounding: of single precision in networks, of its quadrature in the Levy process."""
    tolerance = {network: 1e-3, tiled: 1e-3, levy: 3e-4}.get(prior, 1e-6)
    expected = reference(prior, sampler)
    for scale in (1000.0, 1e-3):
        offset = 0.0 if prior is levy else 3 * scale
        found = drawn(prior, sampler, scale, offset)
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
