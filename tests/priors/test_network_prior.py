"""A network as a prior: any image size, complex conventions, units, places, and its spread."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from invdiff.errors import ShapeError
from invdiff.grid import Grid
from invdiff.likelihood import Gaussian
from invdiff.noise import NoiseField
from invdiff.operators.linear import Mask
from invdiff.posterior import Posterior
from invdiff.priors.edm import Denoised, EDMNetwork
from invdiff.priors.fit import fit_error_spectra, object_mask, validate
from invdiff.priors.gaussian import GaussianPrior, StationaryGaussianPrior
from invdiff.priors.network import NetworkPrior
from invdiff.priors.positions import Centred, Depth
from invdiff.priors.spectral import ErrorSpectra, SpectralPrior
from invdiff.priors.unet import UNet, UNetConfig
from invdiff.samplers import Ancestral, sample
from invdiff.schedule import VE, VP, RectifiedFlow, Schedule
from tests.support import tiny
from tests.support.closed_form import whiten, whiteness

# --- the U-Net ------------------------------------------------------------------------------------


def time(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@settings(max_examples=25)
@given(st.integers(1, 41), st.integers(1, 41), st.integers(1, 3))
def test_any_image_size(h: int, w: int, batch: int) -> None:
    net = tiny.network(wiggle=1.0).network
    x = tiny.standard_normal((batch, 2, h, w), 0, torch.float32)
    out = net(x, torch.zeros(batch), Centred()((h, w)).expand(batch, -1, -1, -1))
    assert out.shape == (batch, 3, h, w)
    assert torch.isfinite(out).all()
    assert (out != 0).any()


@pytest.mark.parametrize("widths", [(4,), (4, 6), (4, 6, 8), (4, 4, 4, 4)])
def test_any_depth(widths: tuple[int, ...]) -> None:
    config = UNetConfig(channels=1, positions=3, widths=widths, blocks=2, embedding=8)
    net: UNet = tiny.network(config, wiggle=1.0).network
    out = net(torch.ones(1, 1, 21, 17), torch.zeros(1), torch.zeros(1, 3, 21, 17))
    assert out.shape == (1, 2, 21, 17)
    assert config.stride == 2 ** len(widths)
    assert UNetConfig(**{**config.to_dict(), "widths": widths}) == config


def test_a_pixel_depends_on_its_neighbourhood_alone() -> None:
    """What lets a patch network serve whole images."""
    net = tiny.network(wiggle=1.0).network
    x = tiny.standard_normal((1, 2, 128, 16), 0, torch.float32)
    far = x.clone()
    far[..., 112:, :] += 100
    none = torch.zeros(1, 2, 128, 16)
    a, b = (net(v, torch.zeros(1), none) for v in (x, far))
    torch.testing.assert_close(a[..., :48, :], b[..., :48, :], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(a[..., 112:, :], b[..., 112:, :], atol=0.1)


def test_level_and_place_matter() -> None:
    net = tiny.network(wiggle=1.0).network
    x, where = torch.ones(1, 2, 16, 16), Centred()((16, 16))[None]
    here = net(x, torch.zeros(1), where)
    assert not torch.allclose(here, net(x, torch.ones(1), where), atol=1e-3)
    assert not torch.allclose(here, net(x, torch.zeros(1), where + 1), atol=1e-3)


@pytest.mark.parametrize(("h", "w"), [(32, 29), (27, 32), (30, 31)])
def test_sides_are_padded_by_reflection(h: int, w: int) -> None:
    """And places go on as they would: not with the zeros of a dark stripe."""
    net = UNet(UNetConfig(widths=(4, 6, 8), blocks=1, embedding=8))
    net.load_state_dict(tiny.network(net.config, wiggle=1.0).network.state_dict())
    x = tiny.standard_normal((1, 2, h, w), 0, torch.float32)
    axes = torch.arange(32.0)
    places = torch.stack(torch.meshgrid(axes / 8 - 1, axes / 9 + 2, indexing="ij"))[None]
    padded = torch.nn.functional.pad(x, (0, 32 - w, 0, 32 - h), mode="reflect")
    with torch.no_grad():
        whole = net(padded, torch.zeros(1), places)[..., :h, :w]
        found = net(x, torch.zeros(1), places[..., :h, :w])
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (1, 2, 16, 15), (1, 3, 16, 16)])
def test_positions_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="position channels"):
        tiny.network().network(torch.zeros(1, 2, 16, 16), torch.zeros(1), torch.zeros(shape))


def test_positions_are_offsets_from_the_centre() -> None:
    y, x = Centred(unit=2.0)((3, 4))
    torch.testing.assert_close(y[:, 0], torch.tensor([-0.5, 0, 0.5]))
    torch.testing.assert_close(x[0], torch.tensor([-0.75, -0.25, 0.25, 0.75]))


def test_depth_counts_from_the_surface() -> None:
    (depth,) = Depth(unit=2.0)((3, 4))
    torch.testing.assert_close(depth, torch.tensor([0.0, 0.5, 1.0])[:, None].expand(3, 4))


@pytest.mark.parametrize("positions", [Centred(), Centred(7.0), Depth(), Depth(3.0)])
def test_positions_state_how_many_channels_they_are(positions: Centred | Depth) -> None:
    assert positions((5, 9)).shape == (positions.n_channels, 5, 9)
    assert positions((5, 9)).dtype == torch.float32
    again = type(positions)(2 * positions.unit)((5, 9))
    torch.testing.assert_close(2 * again, positions((5, 9)))
    assert eval(repr(positions)) == positions


# --- conventions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 7.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("schedule", [VE(), VP(), RectifiedFlow()], ids=["VE", "VP", "flow"])
@pytest.mark.parametrize("ratio", [0.03, 0.4, 5.0])
def test_moments_of_white_noise_are_exact(
    dtype: torch.dtype, schedule: Schedule, ratio: float, scale: float
) -> None:
    """Complex fields are two channels: twice the variance, and half the noise for each."""
    made = tiny.prior((6, 5), dtype=dtype, scale=scale)
    prior = NetworkPrior(made.network, made.spectra, made.grid, schedule=schedule, scale=scale)
    variance = (2 if dtype.is_complex else 1) * (scale * tiny.SIGMA_DATA) ** 2
    exact = GaussianPrior(made.grid, torch.zeros(6, 5), variance * torch.eye(30), schedule=schedule)
    t = schedule.time(time(ratio * scale))
    x_t = tiny.standard_normal((3, 6, 5), 0, dtype) * scale
    v = tiny.standard_normal((3, 6, 5), 1, dtype)
    (mean, covariance), (mean_0, covariance_0) = prior.moments(x_t, t), exact.moments(x_t, t)
    assert mean.dtype == dtype
    torch.testing.assert_close(mean, mean_0, rtol=1e-4, atol=1e-5 * scale)
    torch.testing.assert_close(covariance(v), covariance_0(v), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(prior.denoise(x_t, t), mean)


class Wiener(EDMNetwork):
    """Exact denoiser of a stationary Gaussian field, on real channels of given spectrum."""

    def __init__(self, spectrum: Tensor, channels: int) -> None:
        config = replace(tiny.CONFIG, channels=channels)
        super().__init__(config, sigma_data=float(spectrum.mean()) ** 0.5)
        self.spectrum = spectrum

    def forward(self, x: Tensor, sigma: Tensor, positions: Tensor) -> Denoised:
        gain = self.spectrum / (self.spectrum + sigma[:, None, None, None] ** 2)
        mean = torch.fft.ifft2(gain * torch.fft.fft2(x)).real
        variance = (gain.mean((-1, -2), keepdim=True) * sigma[:, None, None, None] ** 2).expand(
            -1, 1, *x.shape[-2:]
        )
        return Denoised(mean, variance.sqrt())


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_a_network_that_is_exact_makes_an_exact_prior(dtype: torch.dtype) -> None:
    fields = tiny.SmoothFields(12)
    per_channel = torch.from_numpy(fields.spectrum).float()
    grid = tiny.grid((12, 12), dtype)
    network = Wiener(per_channel, channels=2 if dtype.is_complex else 1)
    prior = NetworkPrior(network, tiny.FLAT, grid, schedule=tiny.SCHEDULE)
    total = per_channel * (2 if dtype.is_complex else 1)
    exact = StationaryGaussianPrior(grid, torch.zeros(12, 12), total, schedule=tiny.SCHEDULE)
    x_t = tiny.standard_normal((2, 12, 12), 0, dtype)
    for t in (0.05, 0.3, 2.0):
        mean, covariance = exact.moments(x_t, time(t))
        found, std = prior.mean_and_std(x_t, time(t))
        torch.testing.assert_close(found, mean, rtol=1e-4, atol=1e-5)
        variance = covariance.spectrum.mean()
        torch.testing.assert_close(std.square(), variance.expand_as(std), rtol=1e-4, atol=0)


def test_units_are_a_matter_of_scale() -> None:
    plain, scaled = tiny.prior(wiggle=1.0), tiny.prior(wiggle=1.0, scale=50.0)
    x_t = tiny.standard_normal((2, *tiny.SHAPE), 0, torch.complex64)
    v = tiny.standard_normal((2, *tiny.SHAPE), 1, torch.complex64)
    for t in (0.05, 1.0):
        mean, covariance = plain.moments(x_t, time(t))
        mean_50, covariance_50 = scaled.moments(50 * x_t, time(50 * t))
        torch.testing.assert_close(mean_50, 50 * mean, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(covariance_50(v), 2500 * covariance(v), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_offset_is_the_mean_of_the_field(dtype: torch.dtype) -> None:
    """White noise of 0.3 network units about zero is noise of 300 m/s about 3000 m/s."""
    made = tiny.prior((6, 5), dtype=dtype, scale=1000.0)
    prior = NetworkPrior(
        made.network, made.spectra, made.grid, schedule=VE(5, 2e4), scale=1000.0, offset=3000.0
    )
    variance = (1000 * tiny.SIGMA_DATA) ** 2
    centre = torch.full((6, 5), 3000.0)
    exact = GaussianPrior(made.grid, centre, variance * torch.eye(30), schedule=prior.schedule)
    x_t = 3000 + 500 * tiny.standard_normal((3, 6, 5), 0, dtype)
    v = tiny.standard_normal((3, 6, 5), 1, dtype)
    for ratio in (10.0, 300.0, 5000.0):
        mean, covariance = prior.moments(x_t, time(ratio))
        mean_0, covariance_0 = exact.moments(x_t, time(ratio))
        assert mean.dtype == dtype
        torch.testing.assert_close(mean, mean_0, rtol=1e-5, atol=0.01)
        torch.testing.assert_close(covariance(v), covariance_0(v), rtol=1e-3, atol=1e-2)


def test_an_offset_and_depth_stay_with_the_prior() -> None:
    config = UNetConfig(1, positions=1, widths=(8, 12), blocks=1, embedding=16)
    prior = NetworkPrior(
        tiny.network(config, wiggle=1.0),
        tiny.FLAT,
        tiny.grid((20, 16), torch.float32),
        scale=1000.0,
        offset=3000.0,
        coordinates=Depth(10.0),
    )
    assert prior.positions.shape == (1, 20, 16)
    part = prior.on(tiny.grid((40, 30), torch.float32), (slice(12, 32), slice(0, 16)))
    torch.testing.assert_close(part.positions, prior.positions + 1.2)
    for same in (part, part.to("cpu")):
        assert same.coordinates == Depth(10.0)
        assert (same.scale, same.offset) == (1000.0, 3000.0)
        torch.testing.assert_close(same.positions, part.positions)
    # The places reach the network.
    x_t = torch.full((1, 20, 16), 3000.0)
    difference = part.denoise(x_t, time(300.0)) - prior.denoise(x_t, time(300.0))
    assert difference.abs().max() > 1
    with pytest.raises(ShapeError, match="position channels"):
        NetworkPrior(prior.network, prior.spectra, prior.grid, positions=prior.positions)


def test_on_another_grid_and_on_a_window() -> None:
    prior = tiny.prior(wiggle=1.0)
    large = tiny.grid((40, 44))
    whole = prior.on(large)
    assert whole.grid == large
    assert whole.schedule == prior.schedule
    assert whole.card == prior.card
    torch.testing.assert_close(whole.positions, Centred()((40, 44)))
    window = (slice(3, 30), slice(10, 41))
    part = prior.on(large, window)
    assert part.grid.shape == (27, 31)
    torch.testing.assert_close(part.positions, whole.positions[:, 3:30, 10:41])
    # The places reach the network.
    x_t = torch.zeros(1, 27, 31, dtype=torch.complex64)
    sigma = torch.full((1,), 0.5**0.5)
    expected = part.network(torch.zeros(1, 2, 27, 31), sigma, part.positions[None]).mean
    found = torch.view_as_real(part.denoise(x_t, time(1.0))).movedim(-1, 1)
    torch.testing.assert_close(found, expected)
    centred = prior.on(part.grid).denoise(x_t, time(1.0))
    assert not torch.allclose(centred, part.denoise(x_t, time(1.0)), atol=1e-4)


def test_moving_a_prior_keeps_its_place() -> None:
    part = tiny.prior().on(tiny.grid((40, 44)), (slice(3, 30), slice(10, 41)))
    moved = part.to("cpu")
    assert moved.grid == part.grid
    torch.testing.assert_close(moved.positions, part.positions)


def test_grids_and_positions_that_do_not_fit_are_refused() -> None:
    volume = Grid(("z", "y", "x"), (4, 8, 8), torch.complex64)
    with pytest.raises(ShapeError, match="2-D") as caught:
        tiny.prior().on(volume)
    assert "slice" in str(caught.value)
    prior = tiny.prior()
    with pytest.raises(ShapeError, match="positions"):
        NetworkPrior(prior.network, prior.spectra, prior.grid, positions=torch.zeros(2, 3, 3))


def test_draws_from_a_learned_posterior_are_exact() -> None:
    """All of the machinery on a prior that happens to be known: white noise, half observed."""
    prior, noise, n = tiny.prior((8, 8)), 0.1, 400
    keep = torch.arange(64).reshape(8, 8) % 2 == 0
    operator = Mask(prior.grid, keep)
    y = keep * tiny.standard_normal((8, 8), 0, torch.complex64) * 0.4
    posterior = Posterior(prior, Gaussian(y, operator, noise))
    draws = sample(posterior, Ancestral(4), realizations=n, seed=0, batch_size=n)
    variance = 2 * tiny.SIGMA_DATA**2
    gain = keep.flatten() * variance / (variance + noise**2)
    spread = torch.diag(variance * (1 - gain)).to(torch.complex128)
    w = whiten(draws.to(torch.complex128), (gain * y.flatten()).to(torch.complex128), spread)
    p_values = whiteness(w)
    assert min(p_values.values()) > 1e-4, p_values


# --- spectra of the error -------------------------------------------------------------------------


def test_spectra_are_interpolated() -> None:
    ratios, wavenumbers = np.array([0.1, 1.0, 10.0]), np.array([0.0, 0.25, 0.5])
    spectra = ErrorSpectra(ratios, wavenumbers, np.arange(9.0).reshape(3, 3))
    np.testing.assert_allclose(spectra.at(1.0, (4,)), [3, 4, 5, 4])
    np.testing.assert_allclose(spectra.at(10**0.5, (4,)), [4.5, 5.5, 6.5, 5.5])
    np.testing.assert_allclose(spectra.at(1e-9, (8,))[1], 0.5)
    np.testing.assert_allclose(spectra.at(1e9, (8,))[1], 6.5)
    square = spectra.at(0.1, (4, 4))
    assert square[0, 1] == square[1, 0] == 1  # isotropic
    assert square[2, 2] == 2  # beyond the table its edge holds
    with pytest.raises(ShapeError, match="do not fit"):
        ErrorSpectra(ratios, wavenumbers, np.ones((3, 2)))


class Stationary(SpectralPrior):
    """Exact stationary Gaussian prior behind the spectral interface, with spectra of its own."""

    def __init__(self, grid: Grid, total: Tensor, *, states_std: bool) -> None:
        self.exact = StationaryGaussianPrior(grid, torch.zeros(grid.shape), total)
        self.grid, self.schedule, self.states_std = grid, VE(0.01, 20.0), states_std
        self.spectra: ErrorSpectra | None = None

    def on(self, grid: Grid, window: tuple[slice, ...] | None = None) -> "Stationary":
        raise NotImplementedError

    def mean_and_std(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        mean, covariance = self.exact.moments(x_t, t)
        std = covariance.spectrum.mean().sqrt().expand(x_t.shape)
        return mean, std if self.states_std else None

    def power(self, t: Tensor, shape: tuple[int, ...]) -> Tensor:
        assert self.spectra is not None
        return self.spectra.at(self.levels(t)[1], shape)


@pytest.mark.parametrize("states_std", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_fitted_spectra_are_those_of_the_error(dtype: torch.dtype, states_std: bool) -> None:
    size, n = 16, 192
    fields = tiny.SmoothFields(size)
    total = torch.from_numpy(fields.spectrum)
    grid = Grid(("y", "x"), (size, size), dtype)
    prior = Stationary(grid, total, states_std=states_std)
    white = torch.fft.fft2(NoiseField(3)(grid, range(n), 7))
    x_0 = torch.fft.ifft2(total.sqrt() * white)
    x_0 = x_0 if dtype.is_complex else x_0.real
    ratios = np.array([0.05, 0.2, 1.0])
    prior.spectra = fit_error_spectra(prior, x_0.split(48), ratios=ratios, n_wavenumbers=24)
    for ratio in ratios:
        t = time(float(ratio))
        error = ratio**2 * total / (total + ratio**2)
        found = prior.power(t, grid.shape) * (error.mean() if states_std else 1)
        # A bin averages over few modes of n fields, and is as wide as 1/24 of the spectrum.
        torch.testing.assert_close(found.mean(), error.mean(), rtol=0.03, atol=0)
        worst = (found / error - 1).abs().max()
        assert worst < 0.35, float(worst)
    for row, ratio in zip(validate(prior, x_0.split(48), ratios=ratios), ratios, strict=True):
        rmse = float((ratio**2 * total / (total + ratio**2)).mean().sqrt())
        assert row["ratio"] == ratio
        assert row["rmse"] == pytest.approx(rmse, rel=0.02)
        assert row["expected_rmse"] == pytest.approx(rmse, rel=0.02)
        assert row["coverage90"] == pytest.approx(0.9, abs=0.01)


def test_the_object_is_what_stands_out_from_the_background() -> None:
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(36.0), indexing="ij")
    radius = (y - 18).hypot(x - 20)
    ring = ((radius < 12) & (radius > 1.5)).float()  # a gap of 3 pixels
    found = object_mask(torch.stack([ring, 1e-3 * ring, torch.zeros(40, 36), 3 + ring]))
    disc = radius < 12
    assert (found[0] == disc).float().mean() > 0.98  # corners are rounded off
    assert found[0][disc].all()
    assert torch.equal(found[0], found[1])  # whatever its units
    assert found[2:].all()  # without a background
    assert torch.equal(object_mask(1j * ring[None])[0], found[0])
    assert object_mask(tiny.standard_normal((3, 40, 36), 0)).all()


class Known(SpectralPrior):
    """States the deviations of errors that it is given with the fields, batch by batch."""

    def __init__(self, grid: Grid, fields: Tensor, errors: Tensor, std: Tensor) -> None:
        self.grid, self.schedule = grid, VE(0.01, 20.0)
        self.fields, self.errors, self.std, self.calls = fields, errors, std, 0
        self.spectra: ErrorSpectra | None = None

    def on(self, grid: Grid, window: tuple[slice, ...] | None = None) -> "Known":
        raise NotImplementedError

    def mean_and_std(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        n, start = len(x_t), self.calls
        self.calls = (start + n) % len(self.fields)
        part = slice(start, start + n)
        return self.fields[part] - self.errors[part], self.std[part]

    def power(self, t: Tensor, shape: tuple[int, ...]) -> Tensor:
        assert self.spectra is not None
        return self.spectra.at(self.levels(t)[1], shape)


def test_the_background_does_not_blur_what_is_stated_of_the_object() -> None:
    """Its error is next to nothing, and white; that of the object is smooth."""
    size, n = 48, 64
    grid = Grid(("y", "x"), (size, size), torch.complex128)
    y, x = torch.meshgrid(*[torch.arange(float(size))] * 2, indexing="ij")
    disc = (y - 22).hypot(x - 25) < 14
    k = torch.fft.fftfreq(size, dtype=torch.float64)
    total = 4.0 * torch.exp(-((k[:, None] ** 2 + k**2) / 0.02)) + 0.2
    white, other = (NoiseField(3)(grid, range(n), step) for step in (0, 1))
    smooth = torch.fft.ifft2(total.sqrt() * torch.fft.fft2(white))
    std = torch.where(disc, 0.3, 1e-4).expand(n, -1, -1)
    errors = std * torch.where(disc, smooth, 3 * other)
    prior = Known(grid, disc + 0j + torch.zeros(n, 1, 1), errors, std)
    ratios = np.array([0.1, 1.0])
    prior.spectra = fit_error_spectra(prior, prior.fields.split(16), ratios=ratios)
    found = prior.power(time(0.3), grid.shape)
    # About 600 pixels by 64 fields, of which a bin of |k| holds a thirtieth: 3 % and the bins. The
    # first bin has one mode, known from 64 fields to 1/8 before the window smears it.
    ratio = (found / total).flatten()
    torch.testing.assert_close(ratio[1:], torch.ones_like(ratio[1:]), rtol=0.15, atol=0)
    assert 0.6 < ratio[0] < 1.5
    for row in validate(prior, prior.fields.split(16), ratios=ratios):
        assert row["coverage90"] == pytest.approx(0.9, abs=0.01)
        assert row["expected_rmse"] == pytest.approx(row["rmse"], rel=0.02)
        for edge, value in row["error_power"].items():
            assert value == pytest.approx(1, abs=0.05), edge


def test_validation_finds_a_prior_that_is_too_sure() -> None:
    grid = Grid(("y", "x"), (16, 16), torch.float64)
    total = torch.full((16, 16), 0.09, dtype=torch.float64)
    prior = Stationary(grid, total, states_std=True)
    prior.spectra = ErrorSpectra(np.array([0.1, 1.0]), np.array([0, 1.0]), np.full((2, 2), 0.25))
    x_0 = 0.3 * NoiseField(0)(grid, range(16), 0)
    (row,) = validate(prior, [x_0], ratios=np.array([0.3]))
    assert row["expected_rmse"] == pytest.approx(row["rmse"] / 2, rel=0.05)
    assert row["coverage90"] == pytest.approx(0.589, abs=0.03)  # within 1.645 / 2 deviations
    for edge, value in row["error_power"].items():  # 16 fields; the first band has one mode
        assert value == pytest.approx(4, rel=1.5 if edge == "0.05" else 0.3), edge
