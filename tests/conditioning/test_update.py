"""The Gaussian update in both its spaces, and Laplace's, against dense algebra."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from invdiff.conditioning.laplace import Laplace
from invdiff.conditioning.update import (
    DataSpaceUpdate,
    GaussianUpdate,
    Slope,
    gaussian_update,
)
from invdiff.covariance import (
    Covariance,
    DenseCovariance,
    LowRankCovariance,
    SpectralCovariance,
)
from invdiff.errors import UnsupportedError
from invdiff.grid import Grid
from invdiff.likelihood import AxisCovariance, Gaussian, Linearised, StudentT
from invdiff.linalg import conjugate_gradient, inner
from invdiff.noise import NoiseField
from invdiff.operators import Convolution, Linear, Mask, Saturating
from invdiff.operators.mri import CartesianMRI, random_lines
from tests.support.closed_form import (
    correlation,
    grid2d,
    half,
    normal,
    observe,
    power_spectrum,
    whiten,
    whiteness,
)

N, BATCH = 5, 3
REAL, COMPLEX = torch.float64, torch.complex128
KINDS = pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=str)


def spectral(dtype: torch.dtype, *, by_member: bool = False) -> SpectralCovariance:
    power = power_spectrum(N, 2.0)
    if by_member:
        power = power * torch.tensor([0.5, 1.0, 2.0], dtype=REAL)[:, None, None]
    return SpectralCovariance(power, is_complex=dtype.is_complex, by_member=by_member)


COVARIANCES = {
    "dense": lambda dtype: DenseCovariance.of(correlation(N, 2.0).to(dtype)),
    "dense by member": lambda dtype: DenseCovariance.of(
        correlation(N, 2.0).to(dtype) * torch.tensor([0.5, 1.0, 2.0], dtype=REAL)[:, None, None]
    ),
    "spectral": spectral,
    "spectral by member": lambda dtype: spectral(dtype, by_member=True),
    "low rank": lambda dtype: LowRankCovariance(
        spectral(dtype, by_member=True), 0.5 * normal((BATCH, 2, N, N), 1, dtype)
    ),
}
every_covariance = pytest.mark.parametrize("name", COVARIANCES)


def matrix_of(covariance: Covariance, dtype: torch.dtype) -> Tensor:
    """``(batch, n, n)``, column by column."""
    columns = []
    for unit in torch.eye(N * N, dtype=dtype).reshape(-1, N, N):
        columns.append(covariance(unit.expand(BATCH, N, N)).flatten(1))
    return torch.stack(columns, -1)


def operators(dtype: torch.dtype) -> list[Linear]:
    grid = grid2d(N, dtype)
    if dtype.is_complex:
        return [
            CartesianMRI(half((N, N), 0.4, seed=2), domain=grid),
            Mask(grid, half((N, N), 0.5, seed=1)),
        ]
    return [Mask(grid, half((N, N), 0.5, seed=1)), Convolution.gaussian(grid, std=1.0)]


def terms(dtype: torch.dtype) -> list[Gaussian]:
    x = normal((N, N), 3, dtype)
    return [observe(a, x, 0.3 + 0.2 * i, seed=i) for i, a in enumerate(operators(dtype))]


def exact(mean: Tensor, c: Tensor, likelihoods: list[Gaussian]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, covariance and evidence of each member, whitened data, no inverse of ``c``."""
    rows = torch.cat([term.matrix() for term in likelihoods])
    data = torch.cat([term.measured(term.residual(0 * mean[:1]))[0] for term in likelihoods])
    s = rows @ c @ rows.mH + torch.eye(len(data), dtype=c.dtype)
    gain = torch.linalg.solve(s, rows @ c).mH
    r = data - mean.flatten(1) @ rows.mT
    shifted = mean.flatten(1) + (gain @ r[..., None])[..., 0]
    quadratic = (r.conj() * torch.linalg.solve(s, r[..., None])[..., 0]).real.sum(1)
    factor = 1.0 if c.is_complex() else 0.5
    return shifted, c - gain @ rows @ c, -factor * (quadratic + torch.linalg.slogdet(s)[1])


@KINDS
@every_covariance
def test_a_covariance_given_the_field_in_noise(name: str, dtype: torch.dtype) -> None:
    covariance, precision = COVARIANCES[name](dtype), 1.7
    c = matrix_of(covariance, dtype)
    eye = torch.eye(N * N, dtype=dtype)
    expected = torch.linalg.solve(eye + precision * c, c)
    torch.testing.assert_close(matrix_of(covariance.observed(precision), dtype), expected)


@KINDS
@every_covariance
def test_members_of_a_covariance_are_taken_and_joined(name: str, dtype: torch.dtype) -> None:
    covariance, members = COVARIANCES[name](dtype), torch.tensor([2, 0, 0])
    c = matrix_of(covariance, dtype)
    torch.testing.assert_close(matrix_of(covariance.take(members), dtype), c[members])
    parts = [covariance.take(torch.tensor(kept)) for kept in ([0], [1, 2])]
    torch.testing.assert_close(matrix_of(parts[0].join(parts[1:]), dtype), c)
    assert covariance.is_closed


def test_what_has_no_closed_form_says_so() -> None:
    mapped = SpectralCovariance(power_spectrum(N, 2.0), torch.ones(BATCH, N, N), is_complex=False)
    assert not mapped.is_closed
    with pytest.raises(UnsupportedError, match="noisy field"):
        mapped.observed(1.0)


@KINDS
@every_covariance
@pytest.mark.parametrize("kind", [GaussianUpdate, DataSpaceUpdate])
def test_the_update_is_that_of_dense_algebra(
    name: str, dtype: torch.dtype, kind: type[GaussianUpdate]
) -> None:
    covariance, mean = COVARIANCES[name](dtype), normal((BATCH, N, N), 4, dtype)
    likelihoods = terms(dtype)
    update = kind(mean, covariance, likelihoods, tolerance=1e-12, max_iterations=500)
    shifted, spread, evidence = exact(mean, matrix_of(covariance, dtype), likelihoods)
    torch.testing.assert_close(update.posterior_mean().flatten(1), shifted)
    torch.testing.assert_close(matrix_of(update.posterior_covariance(), dtype), spread)
    # Away from closed forms the log-determinant is a quadrature with eight random probes.
    loose = kind is GaussianUpdate
    torch.testing.assert_close(
        update.log_evidence(), evidence, rtol=0.15 if loose else 1e-7, atol=1e-7
    )
    kept = torch.tensor([1, 1, 2])
    torch.testing.assert_close(update.take(kept).posterior_mean().flatten(1), shifted[kept])


@pytest.mark.parametrize("side", [16, 32])
def test_a_solve_errs_by_a_share_of_a_deviation_in_every_direction(side: int) -> None:
    """Also along a lesion in a hole of the data, where a mean over all unknowns hides the error."""
    grid = grid2d(side)
    place = torch.arange(side, dtype=torch.float64) - side / 2
    lesion = torch.exp(-(place[:, None] ** 2 + place**2) / 8)
    covariance = SpectralCovariance(
        power_spectrum(side, 3.0), (0.5 + lesion)[None], is_complex=False
    )
    mask = lesion < 0.1
    term = Gaussian(normal((side, side), 3) * mask, Mask(grid, mask), 0.02)
    loose, tight = (
        GaussianUpdate(
            torch.zeros(1, side, side, dtype=torch.float64), covariance, [term], **kwargs
        )
        for kwargs in ({}, {"tolerance": 1e-10, "max_iterations": 2000})
    )
    error = loose.coordinates() - tight.coordinates()
    energy = float(inner(error, tight.precision(error)).sqrt())
    assert 0 < energy < loose.tolerance == 0.5
    missed = float(inner(lesion[None], covariance.sqrt(error)).abs())
    spread = float(inner(lesion[None], tight.posterior_covariance()(lesion[None])).sqrt())
    assert missed <= 1.001 * energy * spread


def disc_and_half(side: int) -> Tensor:
    """Two maps of deviations with a background of next to nothing."""
    place = torch.arange(side, dtype=REAL) - side / 2
    disc = (place[:, None] ** 2 + place**2 < 0.09 * side**2).double()
    return torch.stack([disc, (place < 0).double().expand(side, side)]) + 1e-3


@KINDS
def test_the_preconditioner_is_hermitian_and_the_inverse_of_one_deviation(
    dtype: torch.dtype,
) -> None:
    side = 16
    power, std = power_spectrum(side, 2.0), disc_and_half(side)
    precision = 100 * (torch.fft.fftfreq(side).abs() < 0.2).double().expand(side, side)
    covariance = SpectralCovariance(power, std, is_complex=dtype.is_complex)
    u, v = (covariance.coordinates(normal((2, side, side), seed, dtype)) for seed in (1, 2))
    apply = covariance.approximate_inverse(precision)
    torch.testing.assert_close(inner(u, apply(v)), inner(apply(u), v))
    assert (inner(u, apply(u)) > 0).all()
    even = SpectralCovariance(power, 0 * std + 0.5, is_complex=dtype.is_complex)
    product = u * (1 + 0.25 * power * precision)
    torch.testing.assert_close(even.approximate_inverse(precision)(product), u)


def test_a_background_without_spread_costs_no_iterations() -> None:
    side = 32
    lines = CartesianMRI(
        random_lines((side, side), 4, calibration=4, seed=0), domain=grid2d(side, COMPLEX)
    )
    term = Gaussian(normal((side, side), 3, COMPLEX), lines, 0.1)
    covariance = SpectralCovariance(power_spectrum(side, 2.0), disc_and_half(side), is_complex=True)
    update = GaussianUpdate(torch.zeros(2, side, side, dtype=COMPLEX), covariance, [term])
    precision = term.precision_spectrum
    of_the_mean = 1 + covariance.spectrum * precision

    def iterations(precondition: Callable[[Tensor], Tensor]) -> int:
        solve = partial(conjugate_gradient, atol=0.5, rtol=1e-9, max_iterations=999)
        return solve(update.precision, update._pull(), precondition=precondition).iterations

    found = iterations(covariance.approximate_inverse(precision))
    assert found < 0.25 * iterations(lambda r: r / of_the_mean)


@KINDS
@pytest.mark.parametrize("kind", [GaussianUpdate, DataSpaceUpdate])
def test_draws_of_the_update_have_its_moments(
    dtype: torch.dtype, kind: type[GaussianUpdate]
) -> None:
    n, grid = 600, grid2d(N, dtype)
    covariance = DenseCovariance.of(correlation(N, 2.0).to(dtype))
    mean, likelihoods = normal((1, N, N), 4, dtype), terms(dtype)
    update = kind(mean.expand(n, N, N), covariance, likelihoods, tolerance=1e-10)
    noise = NoiseField(5).at(range(n), 0, torch.device("cpu"))
    shifted, spread, _ = exact(mean, matrix_of(covariance, dtype)[:1], likelihoods)
    p_values = whiteness(whiten(update.draw(grid, noise), shifted[0], spread[0]))
    assert min(p_values.values()) > 1e-4, p_values


@pytest.mark.parametrize("noise", ["one level", "a level for each coil", "correlated coils"])
def test_draws_take_noise_at_measured_samples_only(noise: str) -> None:
    """Three coils take three blocks of noise, their samples one."""
    n, grid = 600, grid2d(N, COMPLEX)
    levels = torch.tensor([0.1, 0.2, 0.4], dtype=REAL)
    mixing = 0.2 * torch.eye(3, dtype=COMPLEX) + 0.1j * torch.eye(3).roll(1, 0)
    model, noise_covariance = {
        "one level": (0.2, 0.04 * torch.eye(3, dtype=COMPLEX)),
        "a level for each coil": (levels[:, None, None], torch.diag(levels**2).to(COMPLEX)),
        "correlated coils": (AxisCovariance(mixing @ mixing.mH), mixing @ mixing.mH),
    }[noise]
    operator = CartesianMRI(half((N, N), 0.4, seed=2), normal((3, N, N), 3, COMPLEX), domain=grid)
    y = normal(operator.range.shape, 5, COMPLEX) * operator.mask
    likelihood = Gaussian(y, operator, model)
    covariance = spectral(COMPLEX)
    update = GaussianUpdate(
        torch.zeros(n, N, N, dtype=COMPLEX), covariance, [likelihood], tolerance=1e-10
    )
    kept = operator.measured.flatten()
    rows = operator(torch.eye(N * N, dtype=COMPLEX).reshape(-1, N, N)).flatten(1).mT[kept]
    within = torch.kron(noise_covariance, torch.eye(N * N, dtype=COMPLEX))[kept][:, kept]
    c = matrix_of(covariance, COMPLEX)[0]
    gain = torch.linalg.solve(rows @ c @ rows.mH + within, rows @ c).mH
    mean, posterior = gain @ y.flatten()[kept], c - gain @ rows @ c
    drawn = update.draw(grid, NoiseField(5).at(range(n), 0, torch.device("cpu")))
    p_values = whiteness(whiten(drawn, mean, (posterior + posterior.mH) / 2))
    assert min(p_values.values()) > 1e-4, p_values
    e = NoiseField(5).at([0], 0, torch.device("cpu"))(
        operator.range, 2, where=likelihood.informative
    )
    assert not e[:, ~operator.measured].any()


def test_a_whitening_that_mixes_samples_takes_noise_everywhere() -> None:
    operator = Mask(grid2d(N, REAL), half((N, N), 0.4, seed=2))
    y = normal((N, N), 1) * operator.keep
    rows = AxisCovariance(torch.eye(N, dtype=REAL) + 0.1, dim="y")
    assert Gaussian(y, operator, 0.1).informative is operator.keep
    assert Gaussian(y, operator, rows).informative is None
    assert Gaussian(y, operator, lambda r: 2 * r).informative is None
    assert Linearised(Gaussian(y, operator, 0.1), y[None]).informative is operator.keep


class Linear1:
    """``log p = Re <b, x>``."""

    def __init__(self, b: Tensor) -> None:
        self.b = b

    def log_prob(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return (self.b.conj() * x_0).real.flatten(1).sum(1)


@KINDS
@pytest.mark.parametrize("kind", [GaussianUpdate, DataSpaceUpdate])
def test_a_slope_tilts_the_gaussian(dtype: torch.dtype, kind: type[GaussianUpdate]) -> None:
    """``log E[exp(Re <b, x>)]`` over the posterior is known; without data and with them."""
    covariance = DenseCovariance.of(correlation(N, 2.0).to(dtype))
    mean, b, t = normal((BATCH, N, N), 4, dtype), normal((N, N), 7, dtype), torch.tensor(1.0)
    slope = Slope.of([Linear1(b)], mean + 1, covariance, x_t=mean, t=t)
    tight = {"tolerance": 1e-12, "max_iterations": 500}
    plain = kind(mean, covariance, terms(dtype), **tight)
    tilted = kind(mean, covariance, terms(dtype), slope, **tight)
    shifted, spread, evidence = exact(mean, matrix_of(covariance, dtype), terms(dtype))
    shared = b.flatten() * (0.5 if dtype.is_complex else 1.0)
    moved = shifted + spread @ shared
    torch.testing.assert_close(tilted.posterior_mean().flatten(1), moved)
    along = (b.flatten().conj() * (shifted + moved) / 2).real.sum(1)
    torch.testing.assert_close(tilted.log_evidence() - plain.log_evidence(), along)
    empty = GaussianUpdate(mean, covariance, [], slope)
    c = matrix_of(covariance, dtype)
    middle = mean.flatten(1) + (c @ shared) / 2
    torch.testing.assert_close(empty.log_evidence(), (b.flatten().conj() * middle).real.sum(1))
    assert evidence.isfinite().all()


@KINDS
def test_evidence_given_a_noisy_field_is_the_ratio_of_two(dtype: torch.dtype) -> None:
    """``p(y | z) = p(y, z) / p(z)``, with ``z`` as a datum like any other."""
    covariance, precision = DenseCovariance.of(correlation(N, 2.0).to(dtype)), 2.5
    mean, z = normal((1, N, N), 4, dtype), normal((N, N), 6, dtype)
    grid, likelihoods = grid2d(N, dtype), terms(dtype)
    seen = Gaussian(z, Mask(grid, torch.ones(N, N)), precision**-0.5)
    c = matrix_of(covariance, dtype)[:1]
    both, alone = exact(mean, c, [*likelihoods, seen])[2], exact(mean, c, [seen])[2]
    update = gaussian_update(mean, covariance, likelihoods)
    assert isinstance(update, DataSpaceUpdate)
    torch.testing.assert_close(update.given(z[None], precision).log_evidence(), both - alone)


def test_the_log_likelihood_is_what_multiplies_the_gaussian() -> None:
    mean, likelihoods = normal((BATCH, N, N), 4), terms(REAL)
    x, t = normal((BATCH, N, N), 8), torch.tensor(1.0)
    b = Linear1(normal((N, N), 7))
    slope = Slope.of([b], mean, spectral(REAL), x_t=mean, t=t)
    update = gaussian_update(mean, spectral(REAL), likelihoods, slope=slope)
    expected = sum(term.log_prob(x, x, t) for term in [*likelihoods, b])
    torch.testing.assert_close(update.log_likelihood(x), expected)


# --- Laplace --------------------------------------------------------------------------------------


def nonlinear_terms() -> list:
    grid = grid2d(N)
    operator = Saturating(Mask(grid, half((N, N), 0.6, seed=1)), level=1.0)
    x = normal((1, N, N), 3)
    y = operator(x)[0] + 0.2 * normal((N, N), 4) * operator.measured
    return [Gaussian(y, operator, 0.2), StudentT(y, operator, 0.2, degrees=4.0)]


@pytest.mark.parametrize("which", [0, 1])
def test_laplace_is_at_the_mode(which: int) -> None:
    term = nonlinear_terms()[which]
    covariance, mean = DenseCovariance.of(correlation(N, 2.0)), 0.3 * normal((BATCH, N, N), 4)
    update = Laplace(iterations=60, rtol=1e-9).around_mode(mean, covariance, [term])
    mode = update.posterior_mean().detach().requires_grad_()
    u = torch.linalg.solve(correlation(N, 2.0), (mode - mean).flatten(1).mT).mT
    value = (
        term.log_prob(mode, mode, torch.tensor(0.0)).sum()
        - 0.5 * ((mode - mean).flatten(1) * u).sum()
    )
    (gradient,) = torch.autograd.grad(value, mode)
    assert float(gradient.abs().max()) < 1e-4


def test_laplace_of_linear_data_is_the_update_itself() -> None:
    covariance, mean = DenseCovariance.of(correlation(N, 2.0)), normal((BATCH, N, N), 4)
    laplace = Laplace().around_mode(mean, covariance, terms(REAL))
    update = gaussian_update(mean, covariance, terms(REAL))
    assert torch.equal(laplace.posterior_mean(), update.posterior_mean())


def test_the_linearisation_is_the_jacobian() -> None:
    term, x = nonlinear_terms()[0], normal((BATCH, N, N), 5)
    model = Linearised(term, x)
    v, r = normal((BATCH, N, N), 6), normal((BATCH, N, N), 7)
    step = 1e-6
    difference = (term.operator(x + step * v) - term.operator(x - step * v)) / (2 * step * 0.2)
    torch.testing.assert_close(model.forward(v), difference, rtol=1e-6, atol=1e-7)
    left = (model.forward(v) * r).flatten(1).sum(1)
    torch.testing.assert_close(left, (v * model.pullback(r)).flatten(1).sum(1))
    rows = model.matrix()
    assert rows.shape == (BATCH, term.operator.n_data, N * N)
    seen = model.measured(model.forward(v))
    torch.testing.assert_close((rows @ v.flatten(1)[..., None])[..., 0], seen)


def test_members_of_laplace_do_not_depend_on_each_other() -> None:
    (term, _), grid = nonlinear_terms(), Grid(("y", "x"), (N, N), REAL)
    covariance, mean = DenseCovariance.of(correlation(N, 2.0)), normal((BATCH, *grid.shape), 4)
    together = Laplace().around_mode(mean, covariance, [term]).posterior_mean()
    alone = Laplace().around_mode(mean[:1], covariance, [term]).posterior_mean()
    torch.testing.assert_close(together[:1], alone, rtol=1e-9, atol=1e-10)
