"""Analyses of linear Gaussian data against the Kalman filter, and of others against the truth."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from invdiff import Gaussian, Grid, NoiseField, Posterior, StudentT
from invdiff.assimilation import LETKF, EnKF, IEnKF
from invdiff.covariance import GaspariCohn
from invdiff.errors import InputError, UnsupportedError
from invdiff.noise import StepNoise
from invdiff.operators import BlackBox, Identity, Mask, Saturating
from invdiff.priors import EnsemblePrior
from tests.support.closed_form import normal

RING = Grid(("site",), (12,), torch.float64, {"site": np.arange(12.0)})
LOCAL = GaspariCohn(2.0, {"site": 12.0})
KEEP = torch.arange(12) % 3 != 0
NOISE = 0.5
ANALYSES = [EnKF, LETKF, IEnKF]


def step_noise(n: int, step: int = 0) -> StepNoise:
    return StepNoise(NoiseField(0), tuple(range(n)), step, torch.device("cpu"))


def members(n: int) -> Tensor:
    root = torch.linalg.cholesky(LOCAL.matrix(RING) + 0.1 * torch.eye(12))
    return 1.0 + normal((n, 12), 3) @ root.mT


def data(seed: int = 4) -> Gaussian:
    return Gaussian(normal((12,), seed) * KEEP, Mask(RING, KEEP), NOISE)


def kalman(x: Tensor, y: Gaussian, covariance: Tensor) -> tuple[Tensor, Tensor]:
    h = torch.eye(12, dtype=torch.float64)[KEEP]
    gain = covariance @ h.mT @ torch.linalg.inv(h @ covariance @ h.mT + NOISE**2 * torch.eye(8))
    mean = x.mean(0)
    return mean + gain @ (y.y[KEEP] - mean[KEEP]), covariance - gain @ h @ covariance


@pytest.mark.parametrize("kind", ANALYSES)
@pytest.mark.parametrize("localization", [None, LOCAL])
def test_the_mean_is_that_of_the_kalman_filter(kind, localization: GaspariCohn | None) -> None:
    """Perturbations have zero mean, so that nothing is left to chance.

    Transforms localize the data instead of the covariance, which is not the same.
    """
    x, y = members(30), data()
    covariance = x.mT.cov() * (1 if localization is None else LOCAL.matrix(RING))
    mean, _ = kalman(x, y, covariance)
    found = kind(localization)(x, y, step_noise(30)).mean(0)
    if kind is not EnKF and localization is not None:
        assert float((found - mean).abs().max()) < 0.5 * float((x.mean(0) - mean).abs().max())
    else:
        torch.testing.assert_close(found, mean, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ANALYSES)
def test_the_spread_is_that_of_the_kalman_filter(kind) -> None:
    n = 2000
    x, y = members(n), data()
    _, exact = kalman(x, y, x.mT.cov())
    found = kind()(x, y, step_noise(n)).mT.cov()
    if kind is not EnKF:  # a square root: exact
        torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-6)
    else:
        assert float((found - exact).norm() / exact.norm()) < 3 * (12 / n) ** 0.5
        assert float(found.trace() / exact.trace()) == pytest.approx(1, abs=0.04)


def test_the_mean_is_that_of_the_posterior_of_an_ensemble_prior() -> None:
    x, y = members(20), data()
    prior = EnsemblePrior(RING, x, localization=LOCAL, inflation=1.2)
    hidden = torch.zeros(1, 12, dtype=torch.float64), torch.tensor(1e5, dtype=torch.float64)
    expected = Posterior(prior, y).denoise(*hidden)[0]
    found = EnKF(LOCAL, inflation=1.2)(x, y, step_noise(20)).mean(0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_local_analyses_leave_far_points_alone() -> None:
    keep = torch.arange(12) == 0
    y = Gaussian(9.0 * keep.double(), Mask(RING, keep), NOISE)
    x = members(10)
    for kind in ANALYSES:
        moved = (kind(LOCAL)(x, y, step_noise(10)) - x).abs().amax(0)
        assert (moved[4:9] < 1e-9).all()
        assert (moved[[11, 0, 1]] > 1e-3).all()


def test_inflation_and_relaxation_widen() -> None:
    x, y = members(50), data()
    base, after = LETKF(), LETKF()(x, y, step_noise(50))
    wide = replace(base, inflation=1.5)(x, y, step_noise(50))
    assert (wide.std(0) > after.std(0)).all()
    relaxed = replace(base, relaxation=0.5)(x, y, step_noise(50))
    torch.testing.assert_close(relaxed.std(0), (after.std(0) + x.std(0)) / 2)
    torch.testing.assert_close(relaxed.mean(0), after.mean(0))


def test_saturating_data_are_used() -> None:
    truth = normal((1, 12), 7)
    operator = Saturating(Identity(RING), level=1.0)
    y = Gaussian(operator(truth)[0] + 0.05 * normal((12,), 8), operator, 0.05)
    x = members(200)
    for kind in ANALYSES:
        found = kind(LOCAL)(x, y, step_noise(200)).mean(0)
        assert float((found - truth).norm()) < 0.6 * float((x.mean(0) - truth).norm()), kind


def test_gross_errors_move_a_student_likelihood_less() -> None:
    y = torch.zeros(12, dtype=torch.float64)
    y[5] = 50.0
    x = members(50)
    gaussian = EnKF(LOCAL)(x, Gaussian(y, Identity(RING), NOISE), step_noise(50))
    student = partial(StudentT, noise_std=NOISE, degrees=4.0)
    robust = EnKF(LOCAL)(x, student(y, Identity(RING)), step_noise(50))
    assert float(robust[:, 5].mean()) < 0.3 * float(gaussian[:, 5].mean())


def test_what_cannot_be_localized_is_refused() -> None:
    box = BlackBox(lambda x: x, RING, RING)
    y = Gaussian(torch.zeros(12, dtype=torch.float64), box, NOISE)
    EnKF()(members(10), y, step_noise(10))  # by regression over the members
    with pytest.raises(UnsupportedError, match="where the data stand"):
        EnKF(LOCAL)(members(10), y, step_noise(10))


@pytest.mark.parametrize("kind", ANALYSES)
def test_settings_out_of_range_are_refused(kind) -> None:
    with pytest.raises(InputError, match="inflation"):
        kind(inflation=0.0)
    with pytest.raises(InputError, match="relaxation"):
        kind(relaxation=1.5)


def test_iterations_find_the_minimum_of_saturated_data() -> None:
    """Against Newton's method in the weights of the members, without localization."""
    x, operator = members(6), Saturating(Identity(RING), level=0.5)
    y = Gaussian(operator(x[:1])[0] + 0.1 * normal((12,), 5), operator, 0.1)
    mean = x.mean(0)
    deviations = (x - mean).flatten(1)

    def cost(w: Tensor) -> Tensor:
        residual = (y.y - operator((mean + w @ deviations)[None])[0]) / 0.1
        return (residual**2).sum() / 2 + 5 * (w**2).sum() / 2

    w = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([w], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = cost(w)
        value.backward()
        return value

    optimiser.step(closure)
    best, errors = mean + w.detach() @ deviations, []
    for iterations in (1, 3, 12):
        found = IEnKF(iterations=iterations, bundle=1e-3)(x, y, step_noise(6)).mean(0)
        errors.append(float((found - best).norm()))
    assert errors[2] < 1e-2 < errors[0]


def test_settings_of_iterations_are_checked() -> None:
    with pytest.raises(InputError, match="iterations"):
        IEnKF(iterations=0)
    with pytest.raises(InputError, match="bundle"):
        IEnKF(bundle=0.0)
