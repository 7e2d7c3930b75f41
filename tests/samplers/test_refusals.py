"""What samplers refuse: terms, conditionings and settings."""

import pytest
import torch

from invdiff.conditioning import Conditioning, Laplace, MomentMatching
from invdiff.conditioning.jacobian_free import JacobianFree
from invdiff.conditioning.tmpd import TMPD
from invdiff.errors import InputError, ShapeError, UnsupportedError
from invdiff.likelihood import Gaussian
from invdiff.likelihood.poisson import Poisson
from invdiff.likelihood.rician import Rician
from invdiff.operators import BlackBox, Identity, Lognormal, Magnitude, Mask
from invdiff.operators.mri import CartesianMRI
from invdiff.posterior import Posterior
from invdiff.samplers import Ancestral, sample
from invdiff.samplers.annealed_gibbs import AnnealedGibbs
from invdiff.samplers.base import RatioSampler
from invdiff.samplers.corrector import MALA, ULA, Corrected, Renew
from invdiff.samplers.daps import DAPS, RatioSpread
from invdiff.samplers.ddnm import DDNM
from invdiff.samplers.ddrm import DDRM
from invdiff.samplers.diffpir import DiffPIR
from invdiff.samplers.eki import EKI
from invdiff.samplers.enkg import EnKG
from invdiff.samplers.hamiltonian import HMC, Langevin
from invdiff.samplers.inner import ExactGaussian
from invdiff.samplers.red_diff import REDDiff
from invdiff.samplers.split_gibbs import SplitGibbs
from invdiff.samplers.twisted import TwistedSMC
from tests.support.closed_form import (
    gaussian_prior,
    gaussian_problem,
    grid2d,
    normal,
    observe,
)
from tests.support.sampling import last


def posterior_with(term: Gaussian, conditioning: Conditioning | None = None) -> Posterior:
    return Posterior(gaussian_prior(grid2d(4)), term, conditioning=conditioning)


def nonlinear() -> Gaussian:
    grid = grid2d(4)
    return Gaussian(torch.ones(4, 4).double(), Lognormal(Identity(grid)), 0.1)


@pytest.mark.parametrize("sampler", [DDRM(4), DDNM(4)], ids=repr)
def test_nonlinear_data_are_refused_by_linear_methods(sampler: RatioSampler) -> None:
    with pytest.raises(UnsupportedError, match=r"linear operator.*DAPS, DiffPIR"):
        sample(posterior_with(nonlinear()), sampler, realizations=1, seed=0)
    for conditioning in (TMPD(), JacobianFree(1.0)):
        with pytest.raises(UnsupportedError, match="linear operator"):
            posterior_with(nonlinear(), conditioning)
    exact = DAPS(4, kernel=ExactGaussian())
    with pytest.raises(UnsupportedError, match="linear Gaussian data"):
        sample(posterior_with(nonlinear()), exact, realizations=1, seed=0)


@pytest.mark.parametrize("sampler", [DDRM(4), DDNM(4), DiffPIR(4), DAPS(4), REDDiff(4)], ids=repr)
def test_a_conditioning_is_refused(sampler: RatioSampler) -> None:
    problem = gaussian_problem("inpainting", 0.1, n=4)
    posterior = Posterior(problem.prior, problem.term, conditioning=MomentMatching())
    with pytest.raises(UnsupportedError, match="uses the terms directly"):
        sample(posterior, sampler, realizations=1, seed=0)


def test_bad_arguments_are_refused() -> None:
    for eta, eta_b in ((1.5, 1.0), (0.5, -0.1)):
        with pytest.raises(InputError, match="0 <= eta <= 1"):
            DDRM(4, eta, eta_b)
    with pytest.raises(InputError, match="fresh noise"):
        DDNM(4, 0.0)
    for strength, zeta in ((0.0, 0.5), (1.0, 1.5)):
        with pytest.raises(InputError, match="DiffPIR"):
            DiffPIR(4, strength, zeta)
    with pytest.raises(InputError, match="ode_steps"):
        DAPS(4, ode_steps=0)
    with pytest.raises(InputError, match="scale"):
        RatioSpread(0.0)
    with pytest.raises(InputError, match="chain"):
        Langevin(0)
    with pytest.raises(InputError, match="step_size"):
        HMC(4, step_size=2.5)
    with pytest.raises(InputError, match="rate"):
        REDDiff(4, rate=0.0)
    with pytest.raises(InputError, match="power of the field"):
        JacobianFree(torch.tensor([1.0, -1.0]))
    prior = gaussian_prior(grid2d(4))
    term = observe(Mask(grid2d(4), torch.ones(4, 4)), normal((4, 4), 1), 0.1, seed=2)
    posterior = Posterior(prior, term, conditioning=JacobianFree(torch.ones(3, 3)))
    with pytest.raises(ShapeError, match="power"):
        posterior.denoise(normal((1, 4, 4), 1), torch.tensor(1.0))


@pytest.mark.parametrize(
    "sampler",
    [
        SplitGibbs(6, rho_min=0.1, calls=2),
        AnnealedGibbs(6, rho_min=0.1, calls=2),
        EnKG(6, calls=3),
        EKI(6, updates=3),
    ],
    ids=repr,
)
def test_a_conditioning_and_black_boxes_are_refused_where_they_do_not_belong(sampler) -> None:
    problem = gaussian_problem("inpainting", 0.1, n=5)
    model = Posterior(problem.prior, problem.term, conditioning=MomentMatching())
    with pytest.raises(UnsupportedError, match="uses the terms directly"):
        sampler.check(model)
    grid = grid2d(5)
    term = Gaussian(torch.ones(grid.shape).double(), BlackBox(torch.sin, grid, grid), 0.1)
    if isinstance(sampler, SplitGibbs):
        with pytest.raises(UnsupportedError, match="EKI"):
            sampler.check(Posterior(problem.prior, term))
    else:
        sampler.check(Posterior(problem.prior, term))
        counts = Poisson(torch.ones(grid.shape).double(), Lognormal(problem.term.operator))
        with pytest.raises(UnsupportedError, match="SplitGibbs"):
            sampler.check(Posterior(problem.prior, counts))


def test_bad_settings_are_refused() -> None:
    for settings in ({"rho_min": 5.0}, {"rho_min": 0.0}, {"calls": 0}, {"steps": 3}):
        with pytest.raises(InputError, match="couplings"):
            SplitGibbs(**settings)
    with pytest.raises(InputError, match="threshold"):
        AnnealedGibbs(threshold=1.5)
    with pytest.raises(InputError, match="noise levels"):
        SplitGibbs(rho_max=500.0).check(Posterior(gaussian_prior(grid2d(4))))
    with pytest.raises(InputError, match="EKI"):
        EKI(8, updates=8)
    with pytest.raises(InputError, match="too few steps"):
        EnKG(1)
    for bad in (lambda: ULA(0.0), lambda: MALA(1.5)):
        with pytest.raises(InputError, match="step size"):
            bad()
    with pytest.raises(InputError, match="kept"):
        Renew(1.0)
    with pytest.raises(InputError, match="corrections"):
        Corrected(Ancestral(4), Renew(), corrections=0)
    for sampler in (SplitGibbs(8), TwistedSMC(4), EKI(12)):
        with pytest.raises(UnsupportedError, match="score"):
            Corrected(sampler)
    problem = gaussian_problem("inpainting", 0.1, n=5)
    for sampler in (EnKG(4), EKI(4, updates=2)):
        with pytest.raises(InputError, match="too few members"):
            last(Posterior(problem.prior, problem.term), sampler, 1)


def test_magnitudes_of_complex_fields_are_refused() -> None:
    grid = grid2d(4, torch.complex128)
    operator = Magnitude(CartesianMRI(torch.ones(4, 4), domain=grid))
    model = Posterior(gaussian_prior(grid), Rician(torch.ones(4, 4).double(), operator, 0.1))
    with pytest.raises(UnsupportedError, match=r"not moduli.*DPS"):
        SplitGibbs(8).check(model)
    with pytest.raises(UnsupportedError, match="not moduli"):
        Posterior(gaussian_prior(grid), *model.terms, conditioning=Laplace())
