"""Operators, priors, samplers and conditionings as users write them, from the docs alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from invdiff import Grid, reconstruct
from invdiff.conditioning.base import Conditioning, Point
from invdiff.covariance import Covariance, DenseCovariance, SpectralCovariance
from invdiff.errors import CalibrationWarning, UnsupportedError
from invdiff.likelihood import Gaussian
from invdiff.needs import Needs, registered
from invdiff.noise import NoiseField, StepNoise
from invdiff.operators import Linear, check_operator
from invdiff.posterior import Posterior
from invdiff.protocols import BasePrior, Operator, Prior, Term
from invdiff.samplers import (
    DAPS,
    DDNM,
    EKI,
    Ancestral,
    TwistedSMC,
    ensemble,
)
from invdiff.schedule import VE
from tests.support.closed_form import dense, gaussian_prior, kalman, normal, whiten, whiteness
from tests.support.operators import Declared, Thinned

# --- twenty lines each ----------------------------------------------------------------------------


class RunningMean(Linear):
    """Means of ``width`` neighbours of a 1-D field, at every second point."""

    def __init__(self, domain: Grid, width: int) -> None:
        self.width = width
        n = len(range(0, domain.shape[0] - width + 1, 2))
        super().__init__(domain, Grid(("window",), (n,), domain.dtype))

    def _forward(self, x: Tensor) -> Tensor:
        return x.unfold(-1, self.width, 2).mean(-1)

    def _adjoint(self, y: Tensor) -> Tensor:
        x = y.new_zeros(len(y), *self.domain.shape)
        for i in range(self.width):
            x[:, i : i + 2 * y.shape[1] : 2] += y / self.width
        return x


class RandomWalk(BasePrior):
    """A walk of ``n`` steps of standard deviation ``step``: ``C_ij = step^2 min(i, j)``."""

    def __init__(self, grid: Grid, step: float) -> None:
        self.grid, self.schedule = grid, VE(ratio_min=0.002, ratio_max=80.0)
        i = torch.arange(1, grid.shape[0] + 1, dtype=grid.dtype)
        self.values, self.vectors = torch.linalg.eigh(step**2 * torch.minimum(i[:, None], i))

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        alpha, ratio = self.levels(t)
        gain = self.values / (self.values + ratio**2)
        mean = ((x_t / alpha) @ self.vectors * gain) @ self.vectors.T
        return mean, DenseCovariance(self.vectors * (ratio * gain.sqrt()))


def test_twenty_lines_each_give_the_exact_posterior() -> None:
    """By the default sampler: the law of the draws, and their mean and standard deviation."""
    grid, n, noise = Grid(("x",), (15,), torch.float64), 1000, 0.3
    operator, prior = RunningMean(grid, 3), RandomWalk(grid, 0.5)
    assert list(check_operator(operator)) == [
        "input", "batch", "linearity", "adjoint", "vjp", "gram",
    ]  # fmt: skip
    i = torch.arange(1, 16, dtype=torch.float64)
    covariance = 0.25 * torch.minimum(i[:, None], i)
    truth = torch.linalg.cholesky(covariance) @ normal((15,), 1)
    data = operator(truth[None])[0] + noise * normal((7,), 2)
    exact_mean, exact = kalman(covariance, dense(operator), data, noise)
    y = operator.range.to_dataarray(data, "means")
    result = reconstruct(
        y, operator, prior, realizations=n, seed=0, noise_std=noise, batch_size=n, name="level"
    )
    assert result.attrs["invdiff_sampler"].startswith("TwistedSMC(")
    draws = torch.from_numpy(result["level"].values)
    # Resampling makes the members a little less than independent: the spread of the mean of n
    # draws is taken for n / 2 of them.
    std = exact.diagonal().sqrt()
    error = (torch.from_numpy(result["mean"].values) - exact_mean) / std
    assert float(error.abs().max()) < 4.5 * (2 / n) ** 0.5
    np.testing.assert_allclose(result["std"], std, rtol=4.5 * n**-0.5)
    independent = reconstruct(
        y, operator, prior, realizations=n, seed=0, noise_std=noise, batch_size=n,
        sampler=Ancestral(8),
    )  # fmt: skip
    draws = torch.from_numpy(independent["image"].values)
    assert min(whiteness(whiten(draws, exact_mean, exact)).values()) > 1e-4


# --- operators ------------------------------------------------------------------------------------


class Full(Linear):
    """`Thinned` with all that the base class brings."""

    def __init__(self, domain: Grid) -> None:
        self.thinned = Thinned(domain)
        super().__init__(domain, self.thinned.range)

    def _forward(self, x: Tensor) -> Tensor:
        return self.thinned(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.thinned.adjoint(y)


class Cubic:
    """Nonlinear; its ``adjoint`` is a method that has nothing to do with linearity."""

    is_linear = False

    def __init__(self, domain: Grid) -> None:
        self.domain = self.range = domain

    def __call__(self, x: Tensor) -> Tensor:
        return x + 0.05 * x**3

    def adjoint(self, y: Tensor) -> Tensor:
        raise AssertionError("not the adjoint of a linear operator")


class Bare:
    """The same by three members."""

    def __init__(self, domain: Grid) -> None:
        self.domain = self.range = domain

    def __call__(self, x: Tensor) -> Tensor:
        return x + 0.05 * x**3


def observed(operator: Operator, prior: Prior) -> xr.DataArray:
    x = NoiseField(1)(prior.grid, [0], 0)
    noise = 0.3 * NoiseField(2)(operator.range, [0], 0)
    return operator.range.to_dataarray((operator(x) + noise)[0], "data")


def draw(operator: Operator, prior: Prior, **more: object) -> xr.Dataset:
    given = {"realizations": 4, "seed": 0, "noise_std": 0.3} | more
    return reconstruct(observed(operator, prior), operator, prior, **given)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.filterwarnings("ignore::invdiff.errors.DataFitWarning")
def test_an_adjoint_or_a_word_is_enough_to_be_linear(dtype: torch.dtype) -> None:
    prior = gaussian_prior(Grid(("y", "x"), (6, 6), dtype))
    full = draw(Full(prior.grid), prior)
    assert full.attrs["invdiff_conditioning"].startswith("MomentMatching(")
    for kind in (Thinned, Declared):
        own = draw(kind(prior.grid), prior)
        for name in ("sampler", "conditioning"):
            assert own.attrs[f"invdiff_{name}"] == full.attrs[f"invdiff_{name}"]
        np.testing.assert_allclose(own["image"], full["image"], atol=1e-5)


@pytest.mark.parametrize("kind", [Cubic, Bare])
@pytest.mark.filterwarnings("ignore::invdiff.errors.DataFitWarning")
@pytest.mark.filterwarnings("ignore::invdiff.errors.CalibrationWarning")
def test_others_are_nonlinear(kind: type[Cubic | Bare]) -> None:
    prior = gaussian_prior(Grid(("y", "x"), (6, 6), torch.float64))
    result = draw(kind(prior.grid), prior)
    assert result.attrs["invdiff_conditioning"].startswith("Laplace(")
    with pytest.raises(UnsupportedError, match="expected a linear operator"):
        draw(kind(prior.grid), prior, sampler=DDNM())


# --- samplers and conditionings -------------------------------------------------------------------


class MyDAPS(DAPS):
    """Inherits what DAPS needs."""


class MyDDNM(DDNM):
    """Claims to take any operator."""

    needs: ClassVar[Needs] = Needs.NOTHING


class PriorMean(Conditioning):
    """Ignores the data, and needs nothing of them."""

    def update(self, prior: Prior, terms: Sequence[Term], x_t: Tensor, *, t: Tensor) -> Point:
        return Point(prior.denoise(x_t, t))


class Unnamed(Conditioning):
    """Abstract: it is not offered."""


@pytest.mark.filterwarnings("ignore::invdiff.errors.DataFitWarning")
@pytest.mark.filterwarnings("ignore::invdiff.errors.CalibrationWarning")
def test_own_methods_state_their_needs() -> None:
    prior = gaussian_prior(Grid(("y", "x"), (6, 6), torch.float64))
    assert (MyDAPS.needs, MyDAPS.narrow) == (DAPS.needs, DAPS.narrow)
    assert MyDAPS in registered("samplers")
    assert PriorMean in registered("conditionings")
    assert Unnamed not in registered("conditionings")
    linear, nonlinear = Full(prior.grid), Bare(prior.grid)
    given = {"realizations": 2}
    own = draw(linear, prior, sampler=MyDAPS(3), **given)
    xr.testing.assert_equal(own, draw(linear, prior, sampler=DAPS(3), **given))
    with pytest.raises(UnsupportedError) as caught:
        draw(nonlinear, prior, sampler=DDNM())
    offered = str(caught.value).partition("These can: ")[2]
    assert "PriorMean" in offered
    assert "MyDAPS" in offered
    assert "MyDDNM" in offered  # by its word
    assert " DDNM," not in offered
    ignoring = draw(nonlinear, prior, conditioning=PriorMean(), sampler=Ancestral(3), **given)
    assert "PriorMean object>" in ignoring.attrs["invdiff_conditioning"]  # without an address
    alone = ensemble(Posterior(prior), Ancestral(3), realizations=2, seed=0).fields
    assert float((alone - torch.from_numpy(ignoring["image"].values)).abs().max()) > 0.1


class MyNarrow(MyDAPS):
    """Says of itself that it is narrow."""

    narrow: ClassVar[str] = "it was made so"


@pytest.mark.filterwarnings("ignore::invdiff.errors.DataFitWarning")
def test_own_warnings_are_given() -> None:
    prior = gaussian_prior(Grid(("y", "x"), (6, 6), torch.float64))
    with pytest.warns(CalibrationWarning, match="it was made so"):
        draw(Full(prior.grid), prior, sampler=MyNarrow(2), realizations=2)


# --- a prior's own draw ---------------------------------------------------------------------------


class TwoPoints(BasePrior):
    """Moments of a standard normal field, and a ``draw`` that is -1 or 1: who used which shows."""

    def __init__(self, grid: Grid) -> None:
        self.grid, self.schedule = grid, VE()

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        alpha, ratio = self.levels(t)
        power = torch.full(self.grid.shape, ratio**2 / (1 + ratio**2), dtype=self.grid.dtype)
        return x_t / alpha / (1 + ratio**2), SpectralCovariance(power, is_complex=False)

    def draw(self, x_t: Tensor, t: Tensor, noise: StepNoise) -> Tensor:
        assert len(noise.realizations) == len(x_t)
        alpha, ratio = self.levels(t)
        share = torch.sigmoid(2 * x_t / alpha / ratio**2)
        return torch.where(torch.special.ndtr(noise(self.grid, 1)) < share, 1.0, -1.0).to(x_t.dtype)


@pytest.mark.parametrize(
    "sampler",
    [Ancestral(5), TwistedSMC(5), TwistedSMC(5, particles=1), EKI(12)],
    ids=repr,
)
@pytest.mark.parametrize("batch_size", [1, 4, 8])
def test_samplers_use_the_draw_of_a_prior(sampler: object, batch_size: int) -> None:
    """Coupled samplers too, who see the prior in batches."""
    prior = TwoPoints(Grid(("y", "x"), (4, 4), torch.float64))
    fields = ensemble(prior, sampler, realizations=6, seed=0, batch_size=batch_size).fields
    assert torch.equal(fields.abs(), torch.ones_like(fields))
    assert abs(float(fields.mean())) < 4.5 / fields.numel() ** 0.5
    # Not one draw for all of them.
    assert len(torch.unique(fields.flatten(1), dim=0)) >= 3


def test_a_draw_does_not_depend_on_its_batch() -> None:
    prior = TwoPoints(Grid(("y", "x"), (4, 4), torch.float64))
    one, all_ = (
        ensemble(prior, EKI(12), realizations=6, seed=0, batch_size=n).fields for n in (1, 6)
    )
    assert torch.equal(one, all_)


def test_gaussian_terms_are_needed() -> None:
    """The register's needs hold for likelihoods that users construct themselves."""
    grid = Grid(("y", "x"), (4, 4), torch.float64)
    term = Gaussian(torch.zeros(4, 4, dtype=torch.float64), Bare(grid), 1.0)
    with pytest.raises(UnsupportedError, match="MyDAPS"):
        ensemble(Posterior(TwoPoints(grid), term), DDNM(3), realizations=1, seed=0)
