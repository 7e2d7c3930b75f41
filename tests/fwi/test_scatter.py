"""Where the members of an ensemble begin."""

import pytest
import torch
from torch import Tensor

from invdiff.covariance import SpectralCovariance
from invdiff.fwi.curvature import Curvature
from invdiff.fwi.scatter import (
    antithetic,
    deviations,
    error_of_fit,
    level_with_deviations,
    tempered,
)
from invdiff.noise import InversionStream, NoiseField
from tests.support.closed_form import normal
from tests.support.linear_waves import waves_problem

WAVES = waves_problem()
PRIOR, GRID = WAVES.prior, WAVES.operator.domain
X = torch.from_numpy(WAVES.start.values)[None]


def noise(n: int, step: int) -> Tensor:
    return NoiseField(0)(GRID, range(n), step, stream=InversionStream.SCATTER).to(X)


def test_noise_of_pairs_is_opposite_and_a_members_own() -> None:
    def drawn(members: list[int]) -> Tensor:
        return antithetic(NoiseField(0), GRID, members, step=0, stream=InversionStream.STATE)

    four = drawn([0, 1, 2, 3])
    assert torch.equal(four[0::2], -four[1::2])
    assert torch.equal(drawn([3, 0])[0], four[3])
    assert torch.equal(four[0], NoiseField(0)(GRID, [0], 0, stream=InversionStream.STATE)[0])
    assert float(drawn(list(range(400))).std()) == pytest.approx(1, abs=0.03)


def test_deviations_are_those_of_the_prior_around_zero() -> None:
    """For a Gaussian prior of covariance S: ``S (S + s^2)^-1`` of the noise, and a draw of C."""
    level, n = 150.0, 4000
    e_t, e_x = noise(n, 0), noise(n, 1)
    d = deviations(PRIOR, X.expand(n, 6, 6), level, e_t=e_t, e_x=e_x)
    t = PRIOR.schedule.time(torch.tensor(level, dtype=torch.float64))
    _, covariance = PRIOR.moments(X, t)
    eye = torch.eye(36, dtype=torch.float64).reshape(36, 6, 6)
    c = covariance(eye).reshape(36, 36)
    gain = c / level**2  # of a noisy model: C = S - S (S + s^2)^-1 S = s^2 S (S + s^2)^-1
    exact = gain @ gain.T * level**2 + c
    found = d.flatten(1).T.double().cov()
    assert float(found.trace() / exact.trace()) == pytest.approx(1, abs=0.05)
    assert float((found - exact).norm() / exact.norm()) < 4 * (36 / n) ** 0.5
    opposite = deviations(PRIOR, X.expand(n, 6, 6), level, e_t=-e_t, e_x=-e_x)
    torch.testing.assert_close(opposite, -d)


@pytest.mark.parametrize("rms", [5.0, 40.0, 90.0])
def test_the_level_gives_deviations_of_that_size(rms: float) -> None:
    e = {"e_t": noise(1, 0), "e_x": noise(1, 1)}
    level = level_with_deviations(PRIOR, X, rms, **e)
    found = float(deviations(PRIOR, X, level, **e).square().mean() ** 0.5)
    assert found == pytest.approx(rms, rel=0.1)  # interpolated between levels that rise by half
    assert level_with_deviations(PRIOR, X, 1e9, **e) == PRIOR.schedule.ratio_max


def test_the_error_of_a_fit_is_twice_what_two_fits_differ_by() -> None:
    after = X + torch.tensor([3.0, -4.0])[:, None, None]
    torch.testing.assert_close(error_of_fit(X, after), torch.tensor([6.0, 8.0]).to(X))


def test_tempered_deviations_raise_the_misfit_as_far_as_allowed() -> None:
    """Stiff along what the data determine alone, and even, so that pairs stay opposite."""
    eye = torch.eye(36, dtype=torch.float64).reshape(36, 6, 6)
    t = PRIOR.schedule.time(torch.tensor(300.0, dtype=torch.float64))
    _, covariance = PRIOR.moments(X, t)
    base = SpectralCovariance(torch.full((6, 6), 1e-8), None, is_complex=False)
    seen = torch.zeros(1, 6, 6, dtype=torch.float64)
    seen[0, 2, 3] = 1.0  # the data determine a single cell
    curvature = Curvature.start(base, X).updated(seen, 4.0 * seen, memory=1).expand(2)
    d = 100 * normal((1, 6, 6), 5)
    pair = torch.cat([d, -d])
    found = tempered(pair, covariance, curvature, rise=50.0)
    torch.testing.assert_close(found[1], -found[0])
    rise = (found[0] * curvature.product(found)[0]).sum() / 2
    assert 10.0 < float(rise) <= 50.0
    assert torch.equal(tempered(pair, covariance, curvature, rise=1e9), pair)
    cells = covariance(eye)[2 * 6 + 3]
    far = cells.abs() < 0.05 * cells[2, 3]
    assert float(((found[0] - d[0])[far]).abs().max()) < 0.1 * float((found[0] - d[0])[2, 3].abs())
