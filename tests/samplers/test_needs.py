"""What methods need of terms: refusals name the methods that would do, and those work."""

import re
import warnings
from types import ModuleType

import pytest
import torch

import invdiff.conditioning
import invdiff.samplers
from invdiff.conditioning import (
    DPS,
    MMPS,
    TMPD,
    Conditioning,
    JacobianFree,
    Laplace,
    MomentMatching,
    PiGDM,
)
from invdiff.errors import CalibrationWarning, UnsupportedError
from invdiff.likelihood import Gaussian, Poisson
from invdiff.needs import able, registered, warn_if_narrow
from invdiff.operators import BlackBox, Identity, Lognormal, Magnitude, Mask
from invdiff.operators.mri import CartesianMRI
from invdiff.posterior import Posterior
from invdiff.protocols import Sampler, Term
from invdiff.samplers import (
    DAPS,
    DDIM,
    DDNM,
    DDRM,
    EKI,
    TDS,
    AnnealedGibbs,
    DiffPIR,
    EnKG,
    MCGDiff,
    REDDiff,
    SplitGibbs,
    default_sampler,
    sample,
)
from invdiff.samplers.base import UsesTerms
from invdiff.terms import Penalty
from tests.support.closed_form import gaussian_prior, grid2d, half

REAL, COMPLEX = grid2d(4), grid2d(4, torch.complex128)
NARROW = {"DDNM", "DDRM", "DiffPIR", "REDDiff", "DPS", "PiGDM"}
ONES = torch.ones(4, 4, dtype=torch.float64)
METHODS: dict[str, Conditioning | Sampler] = {
    type(method).__name__: method
    for method in (
        MomentMatching(),
        JacobianFree(1.0),
        MMPS(),
        TMPD(),
        PiGDM(),
        Laplace(),
        DPS(),
        DDRM(6),
        DDNM(6),
        MCGDiff(6),
        DiffPIR(6),
        DAPS(6),
        SplitGibbs(6, rho_min=0.1, calls=2),
        AnnealedGibbs(6, rho_min=0.1, calls=2),
        REDDiff(6),
        TDS(6),
        EnKG(6, calls=3),
        EKI(6, updates=3),
    )
}


def black_box(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(x)


MASK = Mask(REAL, half(REAL.shape, 0.5, seed=1))
FOURIER = CartesianMRI(half(COMPLEX.shape, 0.5, seed=2), domain=COMPLEX)
LINEAR = Gaussian(ONES * MASK.keep, MASK, 0.3)
PENALTY = Penalty(lambda x: x.square().flatten(1).sum(1), 0.5)
TERMS: dict[str, tuple[Term, ...]] = {
    "linear Gaussian": (LINEAR,),
    "complex linear Gaussian": (Gaussian(FOURIER.mask + 0j, FOURIER, 0.3),),
    "nonlinear Gaussian": (Gaussian(ONES, Lognormal(Identity(REAL)), 0.3),),
    "moduli": (Gaussian(ONES, Magnitude(Identity(COMPLEX)), 0.3),),
    "nonlinear Poisson": (Poisson(ONES, Lognormal(Identity(REAL))),),
    "black-box Gaussian": (Gaussian(ONES, BlackBox(black_box, REAL, REAL), 0.3),),
    "black-box Poisson": (Poisson(ONES, BlackBox(torch.exp, REAL, REAL)),),
    "penalty": (PENALTY,),
    "linear Gaussian and penalty": (LINEAR, PENALTY),
}
every_term = pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)


def model(terms: tuple[Term, ...], conditioning: Conditioning | None = None) -> Posterior:
    grids = [term.operator.domain for term in terms if hasattr(term, "operator")]
    return Posterior(gaussian_prior(grids[0] if grids else REAL), *terms, conditioning=conditioning)


def refusal(name: str, terms: tuple[Term, ...]) -> str | None:
    """The message with which a method refuses terms; None if it takes them."""
    method = METHODS[name]
    try:
        if isinstance(method, Conditioning):
            model(terms, method)
        else:
            method.check(model(terms))
    except UnsupportedError as error:
        return str(error)
    return None


def exported(package: ModuleType, kind: type) -> set[str]:
    """Names of the concrete classes of a kind."""
    members = {name: getattr(package, name) for name in package.__all__}
    return {n for n, m in members.items() if isinstance(m, type) and issubclass(m, kind)}


# --- the table and the classes --------------------------------------------------------------------


def built_in(kind: str) -> set[str]:
    return {cls.__name__ for cls in registered(kind) if cls.__module__.startswith("invdiff.")}


def test_the_register_holds_every_class_and_no_other() -> None:
    conditionings, samplers = built_in("conditionings"), built_in("samplers")
    assert exported(invdiff.conditioning, Conditioning) - {"Conditioning"} == conditionings
    assert exported(invdiff.samplers, UsesTerms) == samplers
    assert set(METHODS) == conditionings | samplers  # so that the tests below see all


# --- refusals -------------------------------------------------------------------------------------


@every_term
def test_a_method_accepts_what_the_table_says_and_refuses_the_rest(terms: tuple[Term, ...]) -> None:
    listed = {*able("conditionings", terms), *able("samplers", terms)} & METHODS.keys()
    assert {name for name in METHODS if refusal(name, terms) is None} == listed


@every_term
def test_a_refusal_lists_those_that_accept(terms: tuple[Term, ...]) -> None:
    messages = {name: message for name in METHODS if (message := refusal(name, terms)) is not None}
    accepting = METHODS.keys() - messages.keys()
    for name, message in messages.items():
        hit = re.search(r"These can: conditionings (.*); samplers (.*)\.$", message)
        assert hit, message
        listed = {n for group in hit.groups() for n in group.split(", ")} - {"none"}
        assert listed & METHODS.keys() == accepting
        assert message.startswith(f"{name} cannot use this term")


def test_each_kind_of_term_tells_methods_apart() -> None:
    """The loops above are not empty: who takes what, written out."""
    takes = {key: {n for n in METHODS if refusal(n, terms) is None} for key, terms in TERMS.items()}
    assert takes["linear Gaussian"] == takes["complex linear Gaussian"] == set(METHODS)
    assert takes["nonlinear Gaussian"] == {
        *("Laplace", "DPS", "DiffPIR", "DAPS", "SplitGibbs", "AnnealedGibbs", "REDDiff", "TDS"),
        *("EnKG", "EKI"),
    }
    assert takes["nonlinear Poisson"] == takes["nonlinear Gaussian"] - {"EnKG", "EKI"}
    assert takes["moduli"] == {"DPS", "REDDiff", "TDS", "EnKG", "EKI"}
    assert takes["black-box Gaussian"] == {"EnKG", "EKI"}
    assert takes["black-box Poisson"] == set()
    assert takes["penalty"] == takes["linear Gaussian and penalty"]
    assert takes["penalty"] == {
        *("MomentMatching", "JacobianFree", "Laplace", "DPS"),
        *("DiffPIR", "DAPS", "SplitGibbs", "REDDiff", "TDS"),
    }


@pytest.mark.parametrize("name", METHODS)
def test_a_method_runs_on_all_that_it_accepts(name: str) -> None:
    method = METHODS[name]
    for key, terms in TERMS.items():
        if refusal(name, terms) is not None:
            continue
        is_conditioning = isinstance(method, Conditioning)
        posterior = model(terms, method if is_conditioning else None)
        sampler = DDIM(6, eta=1.0) if is_conditioning else method
        draws = sample(posterior, sampler, realizations=3, seed=0)
        assert draws.shape == (3, 4, 4), key
        assert torch.isfinite(draws).all(), key


# --- warnings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_narrow_methods_are_warned_of_and_no_others(name: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_if_narrow(METHODS[name])
    messages = [str(w.message) for w in caught if w.category is CalibrationWarning]
    if name in NARROW:
        (message,) = messages
        assert message.startswith(name)
        assert METHODS[name].narrow in message
    else:
        assert caught == []


@pytest.mark.parametrize("kind", ["linear Gaussian", "nonlinear Gaussian", "black-box Gaussian"])
def test_the_default_is_not_narrow(kind: str) -> None:
    posterior = model(TERMS[kind])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_narrow(default_sampler(posterior), posterior.conditioning)
