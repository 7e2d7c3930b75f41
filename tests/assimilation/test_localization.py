"""Correlations that vanish with distance, and priors made of ensembles."""

import numpy as np
import pytest
import torch

from invdiff import Gaussian, Grid, Posterior
from invdiff.covariance import GaspariCohn
from invdiff.errors import InputError, ShapeError
from invdiff.operators import Mask
from invdiff.priors import EnsemblePrior
from tests.support.closed_form import normal

RING = Grid(("site",), (12,), torch.float64, {"site": np.arange(12.0)})
LOCAL = GaspariCohn(2.0, {"site": 12.0})


def test_the_correlation_is_that_of_gaspari_and_cohn() -> None:
    """Equation 4.10 at its joints: 5/24 at the half-width, and smooth there to second order."""
    near = torch.tensor([0.0, 1 - 1e-4, 1.0, 1 + 1e-4, 2.0, 5.0], dtype=torch.float64)
    found = GaspariCohn(1.0).correlation(near)
    assert found[0] == 1
    assert float(found[2]) == pytest.approx(5 / 24)
    assert (found[4:] == 0).all()
    assert float(found[1] + found[3] - 2 * found[2]) == pytest.approx(17 / 12 * 1e-8, rel=1e-3)
    width = (0.3**0.5) * 3.0
    distance = torch.tensor([width], dtype=torch.float64)
    assert float(GaspariCohn(3.0).correlation(distance)) == pytest.approx(np.exp(-0.5), abs=0.03)


def test_rings_are_closed_and_their_correlations_positive() -> None:
    rho = LOCAL.matrix(RING)
    assert torch.equal(rho, rho.mT)
    assert float(rho[0, 11]) == float(rho[0, 1])
    assert float(rho[0, 1]) == pytest.approx(0.6848958333)
    assert float(torch.linalg.eigvalsh(rho).min()) > -1e-12
    assert float(GaspariCohn(2.0).matrix(RING)[0, 11]) == 0


def test_distances_on_the_sphere_are_great_circles() -> None:
    """London to New York: 5570 km. Levels at one place are at distance zero."""
    coords = {"lat": np.array([51.5074, 40.7128]), "lon": np.array([-0.1278, 285.994])}
    grid = Grid(("level", "lat", "lon"), (2, 2, 2), torch.float32, coords)
    far = GaspariCohn(5570.0).matrix(grid).reshape(2, 2, 2, 2, 2, 2)
    assert float(far[0, 0, 0, 0, 1, 1]) == pytest.approx(5 / 24, abs=1e-3)
    assert float(far[0, 0, 0, 1, 0, 0]) == 1


def test_bad_localizations_are_refused() -> None:
    with pytest.raises(InputError, match="half_width"):
        GaspariCohn(0.0)
    with pytest.raises(InputError, match="names a dim"):
        GaspariCohn(1.0, {"lon": 360.0}).matrix(RING)


def test_the_prior_has_the_moments_of_the_ensemble() -> None:
    members = normal((5, 12), 0)
    exact = np.cov(members.numpy().T) * LOCAL.matrix(RING).numpy() * 1.1**2
    other = torch.eye(12, dtype=torch.float64)
    prior = EnsemblePrior(RING, members, localization=LOCAL, inflation=1.1, hybrid=(0.25, other))
    covariance = prior.covariance(torch.zeros(1, 12).double(), torch.tensor(1e6).double())
    found = covariance(torch.eye(12, dtype=torch.float64))
    np.testing.assert_allclose(found, 0.75 * exact + 0.25 * other.numpy(), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(prior.mean, members.mean(0))


def test_localization_lets_few_members_explain_many_data() -> None:
    """Without it the posterior mean stays in the span of two anomalies."""
    members, keep = normal((3, 12), 1), torch.arange(12) % 2 == 0
    y = normal((12,), 2)
    data = Gaussian(y * keep, Mask(RING, keep), 0.01)
    x_t, t = torch.zeros(1, 12).double(), torch.tensor(1e6).double()
    misfits = []
    for localization in (None, GaspariCohn(1.0, {"site": 12.0})):
        prior = EnsemblePrior(RING, members, localization=localization)
        misfits.append(float(data.misfit(Posterior(prior, data).denoise(x_t, t))[0]))
    assert misfits[1] < 1 < 1000 < misfits[0]


def test_bad_ensembles_are_refused() -> None:
    with pytest.raises(InputError, match="too few members"):
        EnsemblePrior(RING, torch.zeros(1, 12))
    with pytest.raises(ShapeError, match="members"):
        EnsemblePrior(RING, torch.zeros(3, 11))
    with pytest.raises(InputError, match="inflation"):
        EnsemblePrior(RING, normal((3, 12), 0), inflation=-1.0)
