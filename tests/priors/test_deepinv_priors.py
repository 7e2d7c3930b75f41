"""Priors to and from deepinv, with deepinv's own denoisers and algorithms."""

import numpy as np
import pytest
import torch
from torch import Tensor

from invdiff.errors import InputError, ShapeError, UnsupportedError
from invdiff.grid import Grid
from invdiff.likelihood import Gaussian
from invdiff.noise import NoiseField
from invdiff.operators.deepinv import to_deepinv as to_physics
from invdiff.operators.linear import Mask
from invdiff.operators.mri import CartesianMRI, birdcage, poisson_disc
from invdiff.posterior import Posterior
from invdiff.priors.deepinv import from_deepinv, to_deepinv
from invdiff.priors.fit import fit_error_spectra
from invdiff.priors.gaussian import StationaryGaussianPrior
from invdiff.samplers import Ancestral, sample
from invdiff.schedule import VE, VP, Schedule

deepinv = pytest.importorskip("deepinv")

COMPLEX = Grid(("y", "x"), (16, 12), torch.complex64)
REAL = COMPLEX.with_dtype(torch.float32)
CHANNELS = Grid(("channel", "y", "x"), (3, 8, 8), torch.float32)
VARIANCE = 0.09


class Shrink(deepinv.models.Denoiser):
    """Exact for white Gaussian channels of variance ``VARIANCE`` about ``mean``."""

    def __init__(self, mean: float = 0.0) -> None:
        super().__init__()
        self.mean = mean

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        variance = self._handle_sigma(sigma, reference_tensor=x) ** 2
        return self.mean + VARIANCE / (VARIANCE + variance) * (x - self.mean)


def fields(grid: Grid, n: int = 3, seed: int = 0) -> Tensor:
    return NoiseField(seed)(grid, range(n), 0)


def time(schedule: Schedule, ratio: float) -> Tensor:
    return schedule.time(torch.tensor(ratio, dtype=torch.float64))


def smooth_prior(grid: Grid, schedule: Schedule | None = None) -> StationaryGaussianPrior:
    axes = np.meshgrid(*map(np.fft.fftfreq, grid.shape), indexing="ij")
    k = torch.from_numpy(np.sqrt(sum(a**2 for a in axes))).float()
    spectrum = 1 / (1 + (k / 0.08) ** 4)
    mean = torch.zeros(grid.shape, dtype=grid.dtype)
    return StationaryGaussianPrior(
        grid, mean, 0.1 * spectrum / spectrum.mean(), schedule=schedule or VE(0.005, 8.0)
    )


@pytest.mark.parametrize("schedule", [VE(), VP()], ids=["VE", "VP"])
@pytest.mark.parametrize("grid", [COMPLEX, REAL, CHANNELS], ids=["complex", "real", "channels"])
def test_a_denoiser_comes_back_as_it_went(grid, schedule):
    n_channels = 2 if grid.is_complex else grid.shape[0] if grid.ndim == 3 else 1
    theirs = deepinv.models.DRUNet(
        in_channels=n_channels, out_channels=n_channels, nc=(4, 4, 4, 4), nb=1, pretrained=None
    )
    back = to_deepinv(from_deepinv(theirs, grid, schedule=schedule))
    x = fields(Grid(("c", "y", "x"), (n_channels, *grid.shape[-2:])))
    for sigma in (0.05, 1.3):
        torch.testing.assert_close(back(x, sigma), theirs(x, sigma), rtol=1e-4, atol=1e-5)
    levels = torch.tensor([0.1, 0.5, 2.0])
    expected = torch.cat([theirs(x[i, None], float(s)) for i, s in enumerate(levels)])
    torch.testing.assert_close(back(x, levels), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grid", [COMPLEX, REAL], ids=["complex", "real"])
def test_a_prior_comes_back_as_it_went(grid):
    prior = smooth_prior(grid, VP())
    back = from_deepinv(to_deepinv(prior), grid, schedule=VP())
    for ratio in (0.01, 0.3, 4.0):
        x_t, t = fields(grid), time(VP(), ratio)
        torch.testing.assert_close(back.denoise(x_t, t), prior.denoise(x_t, t))


def test_the_range_of_values_is_mapped():
    prior = from_deepinv(Shrink(mean=0.5), COMPLEX, value_range=(-1.0, 3.0))
    x, ratio = fields(COMPLEX), 0.8  # field variance 4^2 VARIANCE a channel about (1 + 1j)
    gain = 16 * VARIANCE / (16 * VARIANCE + ratio**2 / 2)
    expected = (1 + 1j) + gain * (x - (1 + 1j))
    torch.testing.assert_close(prior.denoise(x, time(VE(), ratio)), expected)


def test_levels_beyond_the_schedule_are_those_at_its_ends():
    prior = smooth_prior(COMPLEX)
    denoiser = to_deepinv(prior)
    x = COMPLEX.to_channels(fields(COMPLEX))
    largest, smallest = (r * 0.5**0.5 for r in (prior.schedule.ratio_max, prior.schedule.ratio_min))
    torch.testing.assert_close(denoiser(x, 10 * largest), denoiser(x / 10, largest))
    torch.testing.assert_close(denoiser(x, 0.0), denoiser(x, smallest))


def test_gradients_pass_through():
    x = COMPLEX.to_channels(fields(COMPLEX)).clone().requires_grad_()
    torch.autograd.gradcheck(
        lambda v: to_deepinv(smooth_prior(COMPLEX.with_dtype(torch.complex128)))(v, 0.3),
        x.detach()[:1].double().requires_grad_(),
        fast_mode=True,
    )


def test_without_spectra_there_is_no_covariance():
    prior = from_deepinv(Shrink(), COMPLEX)
    with pytest.raises(UnsupportedError, match="fit_error_spectra"):
        prior.moments(fields(COMPLEX), time(VE(), 0.5))


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="value range"):
        from_deepinv(Shrink(), COMPLEX, value_range=(1.0, 1.0))
    with pytest.raises(ShapeError, match="two axes"):
        from_deepinv(Shrink(), Grid(("z", "y", "x"), (4, 4, 4), torch.complex64))
    with pytest.raises(ShapeError, match="changes the shape"):
        from_deepinv(lambda x, _: x[..., 1:], COMPLEX).denoise(fields(COMPLEX), time(VE(), 0.5))
    with pytest.raises(ShapeError, match="layout"):
        to_deepinv(smooth_prior(COMPLEX))(fields(REAL)[:, None], 0.1)


def test_fitted_spectra_make_a_foreign_denoiser_a_calibrated_prior():
    schedule = VE(0.005, 8.0)
    bare = from_deepinv(Shrink(), COMPLEX, schedule=schedule)
    drawn = (2 * VARIANCE) ** 0.5 * fields(COMPLEX, 64, seed=5)
    ratios = np.geomspace(0.005, 8.0, 24)
    spectra = fit_error_spectra(bare, [drawn], ratios=ratios, n_wavenumbers=4)
    exact = 2 * VARIANCE * ratios**2 / (2 * VARIANCE + ratios**2)
    # A bin averages at least 64 fields x 20 modes: 4 standard errors are 11 %.
    np.testing.assert_allclose(spectra.power, exact[:, None].repeat(4, 1), rtol=0.12)

    prior = from_deepinv(Shrink(), COMPLEX, schedule=schedule, spectra=spectra)
    kept = torch.zeros(COMPLEX.shape, dtype=torch.bool)
    kept[::2] = True
    noise_std = 0.3
    operator = Mask(COMPLEX, kept)
    scale = (2 * VARIANCE + noise_std**2) ** 0.5  # of data that such fields have
    y = torch.where(kept, scale * fields(COMPLEX, 1, seed=7)[0], 0)
    posterior = Posterior(prior, Gaussian(y, operator, noise_std))
    members = sample(posterior, Ancestral(24), realizations=64, seed=1, batch_size=64)
    variance = members.var(0)
    shrunk = 2 * VARIANCE * noise_std**2 / (2 * VARIANCE + noise_std**2)
    # 96 pixels x 64 members: the standard error is 1.3 %; the table's interpolation adds 1 %.
    assert variance[kept].mean() == pytest.approx(shrunk, rel=0.06)
    assert variance[~kept].mean() == pytest.approx(2 * VARIANCE, rel=0.06)
    gain = 2 * VARIANCE / (2 * VARIANCE + noise_std**2)
    error = (members.mean(0) - gain * y)[kept].abs().square().mean()
    assert error == pytest.approx(shrunk / 64, rel=0.5)  # 96 pixels: 4 standard errors are 40 %


def boxes(n: int, seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    x = torch.zeros(n, *REAL.shape)
    for field in x:
        top, left = rng.integers(0, 8), rng.integers(0, 6)
        field[top : top + 8, left : left + 6] = 1.0
    return x


def test_our_sampler_runs_on_a_classical_denoiser_of_deepinv():
    tv, schedule = deepinv.models.TVDenoiser(n_it_max=20), VE(0.02, 2.0)
    bare = from_deepinv(tv, REAL, schedule=schedule)
    spectra = fit_error_spectra(
        bare, [boxes(16, seed=0)], ratios=np.geomspace(0.02, 2, 8), n_wavenumbers=6
    )
    prior = from_deepinv(tv, REAL, schedule=schedule, spectra=spectra)
    x = boxes(1, seed=9)[0]
    kept = torch.from_numpy(np.random.default_rng(0).random(REAL.shape) < 0.7)
    y = torch.where(kept, x + 0.05 * fields(REAL, 1)[0], 0)
    posterior = Posterior(prior, Gaussian(y, Mask(REAL, kept), 0.05))
    drawn = sample(posterior, Ancestral(16), realizations=8, seed=0)
    assert (drawn.mean(0) - x).square().mean() < 0.5 * (y - x).square().mean()


@pytest.fixture
def scan():
    """A smooth complex field, its operator, data, and deepinv's form of operator and data."""
    prior = smooth_prior(COMPLEX)
    filtered = torch.fft.ifftn(torch.fft.fftn(fields(COMPLEX, 1)[0]) * prior.spectrum.sqrt())
    mask = poisson_disc(COMPLEX.shape, 3, calibration=4, seed=0)
    operator = CartesianMRI(mask, birdcage(COMPLEX.shape, 3))
    noise = fields(operator.range, 1, seed=3)
    y = operator(filtered[None]) + 0.02 * noise * mask
    return prior, filtered, operator, operator.range.to_channels(y)


def nrmse(channels: Tensor, x: Tensor) -> float:
    return float((channels - COMPLEX.to_channels(x[None])).norm() / x.norm())


def test_dps_of_deepinv_runs_with_our_prior(scan):
    prior, x, operator, y = scan
    physics = to_physics(operator, noise_std=0.02)

    def drawn(weight: float) -> Tensor:
        rng = torch.Generator().manual_seed(0)
        dps = deepinv.sampling.DPS(
            to_deepinv(prior), num_steps=100, weight=weight, rng=rng, minus_one_one=False
        )
        dps.data_fidelity.clip = None  # it presumes values within +-1
        return dps(y, physics, x_init=(1, 2, *COMPLEX.shape))

    assert nrmse(drawn(100.0), x) < 0.5
    assert nrmse(drawn(0.0), x) > 1  # a draw of the prior


def test_diffpir_of_deepinv_runs_with_our_prior(scan):
    prior, x, operator, y = scan
    physics = to_physics(operator)
    diffpir = deepinv.sampling.DiffPIR(
        _Affine(to_deepinv(prior)),
        deepinv.optim.data_fidelity.L2(),
        sigma=0.02 * 0.5**0.5 / 4,
        max_iter=20,
    )
    # DiffPIR works on [0, 1]: fields within +-2 become (x + 2) / 4, and their data follow.
    shift = physics.A(torch.full((1, 2, *COMPLEX.shape), 2.0))
    drawn = 4 * diffpir((y + shift) / 4, physics, seed=1) - 2
    assert nrmse(drawn, x) < 0.7 * nrmse(physics.A_adjoint(y), x)


class _Affine(deepinv.models.Denoiser):
    """A denoiser of fields within +-2 as one of values in [0, 1]."""

    def __init__(self, denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return (self.denoiser(4 * x - 2, 4 * sigma) + 2) / 4
