"""TiledPrior: tiles cover the grid, fuse exactly, and leave no trace in the spread of samples."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from invdiff.errors import InputError
from invdiff.grid import Grid
from invdiff.likelihood import Gaussian
from invdiff.noise import NoiseField
from invdiff.operators.linear import Mask
from invdiff.posterior import Posterior
from invdiff.priors.spectral import SpectralPrior
from invdiff.priors.tiled import TiledPrior
from invdiff.run_state import identity
from invdiff.samplers import DDIM, Ancestral, Heun, sample
from invdiff.schedule import VE
from tests.support import tiny

SCHEDULE = VE(0.01, 20.0)


def image(*shape: int, dtype: torch.dtype = torch.complex64) -> Grid:
    return Grid(("y", "x"), shape, dtype)


class Pixelwise(SpectralPrior):
    """Independent Gaussian pixels whose mean and deviation depend on where they lie: exact tiles.

    A pixel's place is its index in the whole grid, as a network's positions would be.
    """

    def __init__(self, grid: Grid, *, corner: tuple[int, ...] = (0, 0), states_std: bool = True):
        self.grid, self.corner, self.states_std = grid, corner, states_std
        self.schedule = SCHEDULE
        row, column = (
            torch.arange(c, c + n, dtype=grid.real_dtype)
            for c, n in zip(corner, grid.shape, strict=True)
        )
        place = row[:, None] + 0.3 * column
        self.mean = torch.cos(place).to(grid.dtype)
        self.prior_std = 1 + 0.5 * torch.sin(place) if states_std else torch.ones(grid.shape)

    def on(self, grid: Grid, window: tuple[slice, ...] | None = None) -> "Pixelwise":
        if window is None:
            return Pixelwise(grid, states_std=self.states_std)
        shape = tuple(w.stop - w.start for w in window)
        corner = tuple(w.start for w in window)
        return Pixelwise(
            Grid(grid.dims, shape, grid.dtype), corner=corner, states_std=self.states_std
        )

    def mean_and_std(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        alpha, ratio = self.levels(t)
        variance = self.prior_std**2
        gain = variance / (variance + ratio**2)
        mean = self.mean + gain * (x_t / alpha - self.mean)
        std = (ratio * gain.sqrt()).expand(x_t.shape) if self.states_std else None
        return mean, std

    def power(self, t: Tensor, shape: tuple[int, ...]) -> Tensor:
        ratio = self.levels(t)[1]
        level = 1.0 if self.states_std else ratio**2 / (1 + ratio**2)
        return torch.full(shape, level, dtype=torch.float64)


def at(ratio: float) -> Tensor:
    return SCHEDULE.time(torch.tensor(ratio, dtype=torch.float64))


sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(grid=sizes, tile=st.tuples(st.integers(2, 16), st.integers(2, 16)), data=st.data())
def test_tiles_cover_every_grid_and_weights_sum_to_one(grid, tile, data):
    overlap = data.draw(st.integers(0, min(tile) - 1))
    tiled = TiledPrior(Pixelwise(image(*tile)), image(*grid), overlap=overlap)
    total = torch.zeros(grid)
    for window in tiled._windows:
        assert all(0 <= w.start < w.stop <= n for w, n in zip(window, grid, strict=True))
        total[window] += tiled._weight
    assert (tiled._weight > 0).all()
    assert (total > 0).all()
    torch.testing.assert_close(total, tiled._total)
    # Neighbours share at least the overlap; starts along an axis are those of a product grid.
    for axis in range(2):
        starts = sorted({window[axis].start for window in tiled._windows})
        edge = tiled._weight.shape[axis]
        assert starts[0] == 0
        assert starts[-1] + edge == grid[axis]
        assert all(b - a <= edge - overlap for a, b in itertools.pairwise(starts))
    x_t = torch.ones(1, *grid, dtype=torch.complex64)
    exact = Pixelwise(image(*grid)).denoise(x_t, at(0.5))
    torch.testing.assert_close(tiled.denoise(x_t, at(0.5)), exact)


@pytest.mark.parametrize("states_std", [True, False])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.float32])
@pytest.mark.parametrize("shape", [(8, 8), (23, 17), (8, 31), (5, 20)])
def test_tiling_a_pixelwise_prior_is_exact(shape, dtype, states_std):
    grid = image(*shape, dtype=dtype)
    whole = Pixelwise(grid, states_std=states_std)
    tiled = TiledPrior(Pixelwise(image(8, 8, dtype=dtype), states_std=states_std), grid, overlap=3)
    x_t = 2 * NoiseField(0)(grid, range(2), 0)
    for ratio in (0.05, 1.0, 9.0):
        mean, covariance = tiled.moments(x_t, at(ratio))
        exact_mean, exact_covariance = whole.moments(x_t, at(ratio))
        torch.testing.assert_close(mean, exact_mean)
        v = NoiseField(1)(grid, range(2), 0)
        torch.testing.assert_close(covariance(v), exact_covariance(v))


def test_one_tile_is_the_patch_prior():
    grid = image(8, 8)
    prior = Pixelwise(grid)
    tiled = TiledPrior(prior, grid, overlap=4)
    assert len(tiled._windows) == 1
    x_t = NoiseField(0)(grid, range(2), 0)
    for ours, theirs in zip(
        tiled.mean_and_std(x_t, at(0.7)), prior.mean_and_std(x_t, at(0.7)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_a_tile_larger_than_the_grid_is_cut_to_it():
    tiled = TiledPrior(Pixelwise(image(32, 32)), image(6, 40), overlap=8)
    assert tiled._weight.shape == (6, 32)
    assert tiled.on(image(40, 6))._weight.shape == (32, 6)


@pytest.mark.parametrize("overlap", [-1, 8])
def test_an_overlap_without_a_step_is_refused(overlap):
    with pytest.raises(InputError, match="overlap"):
        TiledPrior(Pixelwise(image(8, 8)), image(20, 20), overlap=overlap)


def test_a_window_of_a_tiled_prior_is_refused():
    tiled = TiledPrior(Pixelwise(image(8, 8)), image(20, 20), overlap=2)
    with pytest.raises(InputError, match="no windows"):
        tiled.on(image(20, 20), (slice(0, 8), slice(0, 8)))


@pytest.mark.parametrize("sampler", [Ancestral(24), Heun(64)], ids=["ancestral", "heun"])
def test_samples_vary_as_much_in_overlaps_as_inside(sampler):
    grid, n = image(12, 40), 200
    tiled = TiledPrior(Pixelwise(image(12, 16), states_std=False), grid, overlap=8)
    assert [window[1].start for window in tiled._windows] == [0, 8, 16, 24]
    members = sample(tiled, sampler, realizations=n, seed=3, batch_size=n)
    variance = members.var(0).mean(0)
    inside = torch.cat([variance[:8], variance[-8:]]).mean()  # the outer columns lie in one tile
    overlap = variance[8:-8].mean()
    # 192 and 288 pixels of 200 members: standard errors of 0.5 % and 0.4 %.
    assert overlap / inside == pytest.approx(1, abs=0.03)
    # Ancestral steps are exact here; Heun's error at 64 steps is below 3 %.
    assert overlap == pytest.approx(1, abs=0.05)


class Correlated(Pixelwise):
    """Rows of ``Cov = exp(-|i - j| / 2)``: what a tile knows of a pixel depends on the tile."""

    def on(self, grid: Grid, window: tuple[slice, ...] | None = None) -> "Correlated":
        shape = grid.shape if window is None else tuple(w.stop - w.start for w in window)
        return Correlated(Grid(grid.dims, shape, grid.dtype), states_std=False)

    def mean_and_std(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, None]:
        n, ratio = x_t.shape[-1], self.levels(t)[1]
        place = torch.arange(n, dtype=torch.float64)
        covariance = torch.exp(-(place[:, None] - place).abs() / 2)
        gain = torch.linalg.solve(covariance + ratio**2 * torch.eye(n).double(), covariance)
        return x_t @ gain.to(x_t.dtype), None


def test_tiles_that_disagree_leave_the_covariance_of_samples_right():
    """Blending finished samples left 0.49 of the variance; fusing the mean at each step does not.

    In the middle of an overlap both tiles see correlations of 8 pixels, four times their length.
    """
    grid, n = image(20, 40), 64
    tiled = TiledPrior(Correlated(image(20, 16), states_std=False), grid, overlap=8)
    members = sample(tiled, Heun(64), realizations=n, seed=3, batch_size=n)
    product = (members[..., :-1] * members[..., 1:].conj()).real.mean((0, 1))
    variance = members.abs().square().mean((0, 1))
    # 1280 independent rows: a column's variance has a standard error of 2.8 %, 1.2 % over a few.
    assert variance[8:32].mean() / variance[:8].mean() == pytest.approx(1, abs=0.06)
    assert (variance - 1).abs().max() < 0.12
    assert (product - math.exp(-0.5)).abs().max() < 0.12


def test_posterior_samples_keep_their_spread_across_seams():
    grid, n, noise_std = image(10, 30), 300, 0.5
    tiled = TiledPrior(Pixelwise(image(10, 12)), grid, overlap=6)
    kept = torch.zeros(grid.shape, dtype=torch.bool)
    kept[::2] = True
    y = torch.where(kept, NoiseField(5)(grid, [0], 0)[0], 0)
    posterior = Posterior(tiled, Gaussian(y, Mask(grid, kept), noise_std))
    members = sample(posterior, Ancestral(24), realizations=n, seed=0, batch_size=n)
    prior_variance = Pixelwise(grid).prior_std ** 2
    exact = 1 / (1 / prior_variance + kept / noise_std**2)
    ratio = members.var(0) / exact
    # A pixel's relative standard error is 1 / sqrt(300) = 5.8 %; a column of ten has 1.8 %.
    assert (ratio.mean(0) - 1).abs().max() < 0.09
    assert ratio.mean() == pytest.approx(1, abs=0.02)


def test_deterministic_samples_do_not_depend_on_the_tiling():
    grid = image(9, 21)
    whole = sample(Pixelwise(grid), DDIM(10), realizations=2, seed=1)
    tiled = TiledPrior(Pixelwise(image(6, 6)), grid, overlap=2)
    torch.testing.assert_close(sample(tiled, DDIM(10), realizations=2, seed=1), whole)


def test_a_tiled_network_moves_with_its_tiles() -> None:
    tiled = TiledPrior(tiny.prior((16, 16), wiggle=1.0), image(24, 20), overlap=8)
    moved = tiled.to("cpu")
    x_t = NoiseField(0)(tiled.grid, range(2), 0)
    torch.testing.assert_close(moved.denoise(x_t, at(0.5)), tiled.denoise(x_t, at(0.5)))
    assert TiledPrior(Pixelwise(image(8, 8)), image(9, 9), overlap=2).to("cpu").overlap == 2


def test_the_identity_of_a_prior_is_what_changes_its_moments() -> None:
    """Not its card, nor the way that it came to its grid."""
    prior, large = tiny.prior((16, 16), wiggle=1.0), image(24, 20)
    direct, twice = prior.on(large), prior.on(image(9, 9)).on(large)
    direct.card["name"] = "other"
    assert identity({"prior": direct}) == identity({"prior": twice})
    tiled = [TiledPrior(prior, large, overlap=n) for n in (8, 8, 9)]
    assert (
        identity({"prior": tiled[0]})
        == identity({"prior": tiled[1]})
        != identity({"prior": tiled[2]})
    )
    parts = {"wiggle": 0.5, "scale": 2.0, "spectra": replace(tiny.FLAT, power=np.full((2, 2), 2.0))}
    for name, value in parts.items():
        other = tiny.prior((16, 16), **{"wiggle": 1.0, name: value}).on(large)
        assert identity({"prior": other}) != identity({"prior": direct}), name
    part = prior.on(large, (slice(0, 16), slice(2, 18)))
    assert identity({"prior": part}) != identity({"prior": prior.on(part.grid)})
