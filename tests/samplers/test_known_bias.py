"""Methods that are biased by design: the bias is written down.

The measured ratio of variances and error of the mean stand here with a band around them, so that a
change shows.
"""

import pytest
import torch
from torch import Tensor

from invdiff.conditioning import Conditioning
from invdiff.conditioning.jacobian_free import JacobianFree
from invdiff.conditioning.tmpd import TMPD
from invdiff.likelihood import Gaussian
from invdiff.operators import Identity, Lognormal
from invdiff.posterior import Posterior
from invdiff.priors import GaussianMixturePrior
from invdiff.samplers import Ancestral, Heun, sample
from invdiff.samplers.base import RatioSampler
from invdiff.samplers.daps import DAPS
from invdiff.samplers.ddnm import DDNM
from invdiff.samplers.ddrm import DDRM
from invdiff.samplers.diffpir import DiffPIR
from invdiff.samplers.hamiltonian import HMC, Langevin
from invdiff.samplers.red_diff import REDDiff
from tests.support.closed_form import (
    OPERATORS,
    gaussian_prior,
    gaussian_problem,
    grid2d,
    mixture_case,
    mixture_prior,
    normal,
)
from tests.support.sampling import law

every_operator = pytest.mark.parametrize("name", OPERATORS)


# (mean error in posterior std, ratio of variances) at noise 0.1, n=6: inpainting, blur, fourier.
# DDRM: no data count below their own noise, and m alone carries the prior. DDNM: counts the same
# noise at each step, which small singular values (blur) turn into an error of the mean. DiffPIR: a
# mode each step. TMPD: a diagonal in place of the data's covariance.
BIASED: list[tuple[RatioSampler, Conditioning | None, list[tuple[float, float]]]] = [
    (DDRM(20), None, [(0.270, 0.832), (0.658, 0.267), (0.359, 0.729)]),
    (DDNM(20), None, [(0.278, 0.907), (1.994, 0.019), (0.362, 0.768)]),
    (DiffPIR(20), None, [(0.219, 0.532), (0.233, 0.360), (0.336, 0.477)]),
    (DiffPIR(20, 7.0, 0.3), None, [(0.492, 1.253), (0.214, 0.892), (0.380, 0.918)]),
    (Heun(32), TMPD(), [(0.549, 1.182), (0.727, 1.842), (0.109, 0.942)]),
]


@pytest.mark.parametrize(
    ("sampler", "conditioning", "measured"),
    BIASED,
    ids=["DDRM", "DDNM", "DiffPIR", "DiffPIR as published", "TMPD"],
)
@every_operator
def test_bias_on_gaussian_posteriors(
    sampler: RatioSampler,
    conditioning: Conditioning | None,
    measured: list[tuple[float, float]],
    name: str,
) -> None:
    error, ratio = law(gaussian_problem(name, 0.1, n=6), sampler, conditioning)
    expected_error, expected_ratio = measured[OPERATORS.index(name)]
    assert error == pytest.approx(expected_error, rel=0.1, abs=0.01)
    assert ratio == pytest.approx(expected_ratio, rel=0.1, abs=0.01)


def symmetric_colour(prior: GaussianMixturePrior, component: int, eps: Tensor) -> Tensor:
    """Draws by the symmetric root: the signs of eigenvectors differ between machines."""
    vectors = prior._vectors[component]
    modes = prior._values[component].sqrt() * (eps.flatten(1) @ vectors)
    return (modes @ vectors.mT).reshape(eps.shape)


def mixture_power() -> Tensor:
    """Mean power of the mixture's fields in the DFT."""
    draws = mixture_prior().exact_draws(500, seed=1)
    return torch.fft.fft2(draws, norm="ortho").abs().square().mean(0)


# (sampler, conditioning, std_ratio, sliced W2 over its floor) on inpainting, 128 members.
MIXTURES: list[tuple[RatioSampler, Conditioning | None, float, float]] = [
    (DAPS(8), None, 1.05, 1.2),
    (DDRM(20), None, 1.53, 7.3),
    (DDNM(20), None, 1.48, 7.4),
    (DiffPIR(20), None, 1.36, 6.3),
    (REDDiff(100), None, 0.68, 4.1),
    (Heun(32), TMPD(), 1.19, 2.7),
    (Ancestral(32), JacobianFree(mixture_power()), 1.43, 4.6),
]


@pytest.mark.parametrize(("sampler", "conditioning", "std_ratio", "distance"), MIXTURES)
def test_a_mixture_posterior(
    sampler: RatioSampler,
    conditioning: Conditioning | None,
    std_ratio: float,
    distance: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Spread and sliced W2 as measured; only DAPS reaches the floor of exact draws."""
    monkeypatch.setattr(GaussianMixturePrior, "_colour", symmetric_colour)
    case = mixture_case("inpainting", 1, members=128)
    posterior = Posterior(case.prior, case.term, conditioning=conditioning)
    draws = sample(posterior, sampler, realizations=128, seed=0, batch_size=128)
    # 128 members know a standard deviation to 6 %, and their mean over 64 points to less.
    assert case.std_ratio(draws) == pytest.approx(std_ratio, rel=0.1)
    assert case.sw2(draws) / case.floor == pytest.approx(distance, rel=0.25)


@pytest.mark.parametrize(
    "sampler",
    [DiffPIR(12), DAPS(12), DAPS(6, kernel=HMC(2)), DAPS(6, kernel=Langevin(2)), REDDiff(100)],
    ids=["DiffPIR", "DAPS", "HMC", "Langevin", "REDDiff"],
)
def test_nonlinear_data_are_fitted(sampler: RatioSampler) -> None:
    """The misfit, 1 at the truth, comes down from tens: members are draws near the data."""
    grid = grid2d(4)
    prior, operator = gaussian_prior(grid), Lognormal(Identity(grid), log_std=0.5)
    x = prior._vectors @ (prior._values.sqrt() * (prior._vectors.mT @ normal((16,), 1)))
    y = operator(x.reshape(1, 4, 4))[0] + 0.1 * normal((4, 4), 2)
    term = Gaussian(y, operator, 0.1)
    start = sample(prior, DAPS(4), realizations=8, seed=0)
    draws = sample(Posterior(prior, term), sampler, realizations=8, seed=0)
    assert float(term.misfit(start).mean()) > 10
    assert float(term.misfit(draws).mean()) < 2
