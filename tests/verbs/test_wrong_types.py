"""Objects of the wrong kind or in the wrong place: a named error that says what was meant."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from invdiff import invert, reconstruct
from invdiff.conditioning import DPS, MomentMatching
from invdiff.errors import (
    DTypeError,
    InputError,
    InvdiffError,
    NoiseLevelError,
    NonFiniteError,
    ShapeError,
    UnsupportedError,
)
from invdiff.fwi import LBFGS, Adam, AnnealedMode, AnnealedPosterior
from invdiff.fwi.misfit import L2
from invdiff.grid import Grid
from invdiff.likelihood import Gaussian, Poisson, StudentT
from invdiff.operators.linear import Mask
from invdiff.operators.mri import CartesianMRI
from invdiff.posterior import Posterior
from invdiff.priors import NetworkPrior
from invdiff.protocols import Problem
from invdiff.samplers import DAPS, EKI, Ancestral, TwistedSMC, iterate, sample
from tests.support.closed_form import gaussian_prior
from tests.support.linear_waves import waves_problem

GRID = Grid(("y", "x"), (6, 6), torch.float64)
PRIOR = gaussian_prior(GRID)
OPERATOR = Mask(GRID, np.eye(6))
VALUES = torch.eye(6, dtype=torch.float64)
DATA = GRID.to_dataarray(VALUES, "image")
PROBLEM = Problem(OPERATOR, VALUES, 0.2)
TERM = Gaussian(VALUES, OPERATOR, 1.0)

WAVES = waves_problem(n_shots=3)
TRACES, START = (torch.from_numpy(array.values) for array in (WAVES.y, WAVES.start))
LINE = Problem(WAVES.operator, TRACES, 100.0, start=START)


class Nothing:
    """Measures nothing."""

    domain = range = GRID
    measured = torch.zeros(6, 6, dtype=torch.bool)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return 0 * x

    adjoint = __call__


class Moments:
    """Looks like a prior from afar."""

    grid, schedule = GRID, PRIOR.schedule

    def moments(self, x_t: torch.Tensor, t: torch.Tensor) -> None: ...


class Steps:
    """Looks like a sampler from afar."""

    def step(self, model: object, noise: object, state: object) -> None: ...


Case = tuple[dict[str, object], type[InvdiffError], str]
RECONSTRUCT: dict[str, Case] = {
    "an array": ({"y": DATA.values}, InputError, "operator.range.to_dataarray"),
    "a tensor": ({"y": VALUES}, InputError, "operator.range.to_dataarray"),
    "text for data": ({"y": DATA.astype(str)}, DTypeError, "numbers that torch knows"),
    "objects for data": ({"y": DATA.astype(object)}, DTypeError, "numbers that torch knows"),
    "numbers too long": ({"y": DATA.astype("longdouble")}, DTypeError, ".astype('float64')"),
    "a prior of moments alone": (
        {"prior": Moments()}, UnsupportedError, "without needs_grad, denoise, covariance, draw",
    ),
    "a sampler of steps alone": (
        {"sampler": Steps()}, UnsupportedError,
        "without steps, couples_members, needs_grad, check, init",
    ),
    "a path": ({"y": "scan.h5"}, InputError, "Open the file first"),
    "a Dataset": ({"y": DATA.to_dataset()}, InputError, "Choose one of its variables, ['image']"),
    "operator and prior swapped": (
        {"operator": PRIOR, "prior": OPERATOR}, UnsupportedError, "reconstruct(y, operator, prior",
    ),
    "no operator": ({"operator": None}, InputError, "the operator is missing"),
    "no prior": ({"prior": None}, InputError, "invdiff.load_prior"),
    "an operator for a prior": ({"prior": OPERATOR}, UnsupportedError, "This is an operator"),
    "a class of operators": ({"operator": CartesianMRI}, InputError, "Pass an instance"),
    "the name of an operator": ({"operator": "cartesian-mri"}, InputError, "forward operator"),
    "a class of priors": ({"prior": NetworkPrior}, UnsupportedError, "invdiff.load_prior(name"),
    "the name of a prior": ({"prior": "brain-t1"}, UnsupportedError, "invdiff.load_prior(name"),
    "a class of samplers": ({"sampler": DAPS}, UnsupportedError, "by a call: DAPS()"),
    "the name of a sampler": ({"sampler": "daps"}, UnsupportedError, "by a call: DAPS()"),
    "a name like a sampler's": ({"sampler": "twisted"}, UnsupportedError, "TwistedSMC()"),
    "steps for a sampler": ({"sampler": 24}, UnsupportedError, "such as Ancestral(24)"),
    "a conditioning for a sampler": (
        {"sampler": MomentMatching()}, UnsupportedError, "this is not a sampler",
    ),
    "a class of conditionings": (
        {"conditioning": MomentMatching}, UnsupportedError, "such as MomentMatching()",
    ),
    "the name of a conditioning": ({"conditioning": "dps"}, UnsupportedError, "MomentMatching()"),
    "a sampler for a conditioning": (
        {"conditioning": Ancestral(2)}, UnsupportedError, "this is not a conditioning",
    ),
    "one term": ({"terms": TERM}, UnsupportedError, "terms=[term]"),
    "None for terms": ({"terms": None}, UnsupportedError, "() for none"),
    "text for terms": ({"terms": "tv"}, UnsupportedError, "terms=[term]"),
    "a class of terms": ({"terms": [Gaussian]}, UnsupportedError, "not a term of a posterior"),
    "a function for a term": ({"terms": [torch.sum]}, UnsupportedError, "with `log_prob`"),
    "a likelihood with data of its own": (
        {"likelihood": StudentT(VALUES, OPERATOR, 1.0)}, UnsupportedError, "functools.partial",
    ),
    "the name of a law": ({"likelihood": "poisson"}, UnsupportedError, "Such as Poisson"),
    "a law without its level": (
        {"likelihood": StudentT}, UnsupportedError, "functools.partial(StudentT, noise_std=0.1)",
    ),
    "a law of other arguments": ({"likelihood": lambda y: y}, UnsupportedError, "too many"),
    "a law that returns no likelihood": (
        {"likelihood": lambda y, a: 3}, UnsupportedError, "it returned 3",
    ),
    "a level and a law": (
        {"likelihood": Poisson, "noise_std": 1.0}, InputError, "the noise is given twice",
    ),
    "operator of nothing": ({"operator": Nothing()}, InputError, "the operator measures nothing"),
    "a name that is taken": ({"name": "mean"}, InputError, "name='mean'"),
    "the name of a dim": ({"name": "x"}, InputError, "name='x'"),
    "an empty name": ({"name": ""}, InputError, "name=''"),
    "a number for a name": ({"name": 3}, InputError, "name=3"),
    "half a seed": ({"seed": 1.5}, InputError, "seed is not an integer; got 1.5"),
    "a flag for a seed": ({"seed": True}, InputError, "seed is not an integer; got True"),
    "text for a seed": ({"seed": "1"}, InputError, "seed is not an integer"),
    "a seed too large": ({"seed": 2**64}, InputError, "seed is out of range"),
    "half a member": ({"realizations": 2.0}, InputError, "realizations is not an integer"),
    "a flag for members": ({"realizations": True}, InputError, "realizations is not an integer"),
    "text for members": ({"realizations": "2"}, InputError, "realizations is not an integer"),
    "a member too far": ({"realizations": [2**62]}, InputError, "< 2**48"),
    "half a batch": ({"batch_size": 2.5}, InputError, "batch_size is not an integer"),
    "text for a scale": ({"scale": "1"}, InputError, "scale is out of range"),
    "scales": ({"scale": np.ones(2)}, InputError, "scale is out of range"),
    "a device that is not here": ({"device": "cuda:99"}, InputError, "device is not available"),
    "a device that is not one": ({"device": "gpu"}, InputError, "expected one of ['cpu'"),
    "no device": ({"device": None}, InputError, "the device is not available"),
    "a device without memory": ({"device": "meta"}, InputError, "the device is not available"),
    "a number for a file": ({"checkpoint": 3}, InputError, "checkpoint is not a path"),
    "a problem and an operator": (
        {"y": PROBLEM}, InputError, "expected reconstruct(problem, prior=prior, ...)",
    ),
    "a problem and a prior in its place": (
        {"y": PROBLEM, "operator": PRIOR, "prior": None}, InputError, "Pass the prior by name",
    ),
    "a problem of an array": (
        {"y": Problem(OPERATOR, DATA.values, 0.2), "operator": None}, InputError, "not a tensor",
    ),
    "a problem of a DataArray": (
        {"y": Problem(OPERATOR, DATA, 0.2), "operator": None}, InputError, "not a tensor",
    ),
    "a problem of other data": (
        {"y": Problem(OPERATOR, VALUES[:3], 0.2), "operator": None}, ShapeError, "data",
    ),
    "a problem of NaN": (
        {"y": Problem(OPERATOR, VALUES * np.nan, 0.2), "operator": None}, NonFiniteError, "data",
    ),
    "a problem without an operator": (
        {"y": Problem(None, VALUES, 0.2), "operator": None}, InputError, "forward operator",
    ),
    "a problem without noise": (
        {"y": Problem(OPERATOR, VALUES, np.nan), "operator": None, "noise_std": None},
        NoiseLevelError, "not positive",
    ),
    "a problem with weights": (
        {"y": Problem(OPERATOR, VALUES, 0.2, weights=VALUES), "operator": None},
        InputError, "takes no weights",
    ),
    "a class of problems": ({"y": Problem}, InputError, "not a labelled array"),
}  # fmt: skip

INVERT: dict[str, Case] = {
    "an array": ({"y": WAVES.y.values}, InputError, "operator.range.to_dataarray"),
    "operator and prior swapped": (
        {"operator": WAVES.prior, "prior": WAVES.operator}, UnsupportedError, "invert(y, operator",
    ),
    "no operator": ({"operator": None}, InputError, "the operator is missing"),
    "a class of operators": ({"operator": type(WAVES.operator)}, InputError, "Pass an instance"),
    "an operator without shots": (
        {"y": DATA, "operator": OPERATOR}, UnsupportedError, "use invdiff.reconstruct",
    ),
    "traces and an operator without shots": (
        {"operator": OPERATOR}, UnsupportedError, "no shots to invert",
    ),
    "the name of a prior": ({"prior": "velocity-2d"}, UnsupportedError, "invdiff.load_prior"),
    "an operator for a prior": ({"prior": WAVES.operator}, UnsupportedError, "This is an operator"),
    "a prior of other dims": ({"prior": PRIOR}, ShapeError, "prior.on(operator.domain)"),
    "an array to start from": (
        {"start": WAVES.start.values}, InputError, "operator.domain.to_dataarray",
    ),
    "a path to start from": ({"start": Path("start.zarr")}, InputError, "Open the file first"),
    "a Dataset to start from": (
        {"start": WAVES.start.to_dataset()}, InputError, "Choose one of its variables",
    ),
    "a number to start from": ({"start": 2500.0}, InputError, "the starting model"),
    "no start": ({"start": None}, InputError, "the starting model is missing"),
    "a start in km/s": ({"start": WAVES.start / 1000}, InputError, "multiply it by 1000"),
    "a complex start": ({"start": WAVES.start + 0j}, DTypeError, "start is complex"),
    "the name of a method": ({"method": "lbfgs"}, UnsupportedError, "such as LBFGS(steps=100)"),
    "a class of methods": ({"method": LBFGS}, UnsupportedError, "such as LBFGS(steps=100)"),
    "a sampler": ({"method": Ancestral(2)}, UnsupportedError, "not a method of inversion"),
    "the name of a misfit": ({"misfit": "l2"}, UnsupportedError, "such as L2(noise_std)"),
    "a class of misfits": ({"misfit": L2}, UnsupportedError, "such as L2(noise_std)"),
    "a function for a misfit": ({"misfit": torch.dist}, UnsupportedError, "invdiff.fwi.Misfit"),
    "an array of weights": ({"weights": np.ones(6)}, InputError, "dims=('receiver',)"),
    "a number for weights": ({"weights": 2.0}, InputError, "dims=('receiver',)"),
    "weights below zero": (
        {"weights": xr.DataArray(-np.ones(6), dims="receiver")}, InputError, "negative",
    ),
    "complex weights": (
        {"weights": xr.DataArray(1j * np.ones(6), dims="receiver")}, DTypeError, "weights",
    ),
    "text for weights": (
        {"weights": xr.DataArray(["a"] * 6, dims="receiver")}, DTypeError, "weights",
    ),
    "weights of other samples": (
        {"weights": xr.ones_like(WAVES.y[0, 0]).assign_coords(time=WAVES.y.time[::-1].values)},
        ShapeError, "coordinate 'time' of the weights",
    ),
    "half a solve": ({"max_solves": 30.5}, InputError, "max_solves is not an integer"),
    "text for the end": ({"stop_at": "1"}, InputError, "stop_at is out of range"),
    "an end of NaN": ({"stop_at": float("nan")}, InputError, "stop_at is out of range"),
    "correlated noise": ({"noise_std": lambda r: r}, UnsupportedError, "independent noise"),
    "half a seed": ({"seed": 1.5}, InputError, "seed is not an integer"),
    "a device that is not one": ({"device": "gpu"}, InputError, "device is not available"),
    "a problem and an operator": ({"y": LINE}, InputError, "expected invert(problem, prior=prior"),
    "a problem of other shots": (
        {"y": Problem(WAVES.operator, TRACES[:2], 100.0), "operator": None}, ShapeError, "data",
    ),
    "a problem of an array": (
        {"y": Problem(WAVES.operator, WAVES.y.values, 1.0), "operator": None}, InputError, "tensor",
    ),
    "a problem with other weights": (
        {"y": Problem(WAVES.operator, TRACES, 1.0, weights=torch.ones(5)), "operator": None},
        ShapeError, "weights do not fit",
    ),
    "a problem with a start of NaN": (
        {"y": Problem(WAVES.operator, TRACES, 1.0, start=START * np.nan), "operator": None,
         "start": None}, NonFiniteError, "start",
    ),
    "a problem with a scale": (
        {"y": Problem(WAVES.operator, TRACES, 1.0, 2.0), "operator": None}, InputError, "no scale",
    ),
    "a problem of images": ({"y": PROBLEM, "operator": None}, UnsupportedError, "no shots"),
}  # fmt: skip

STEP = {"realizations": 1, "seed": 0}
ELSEWHERE: dict[str, tuple[Callable[[], object], type[InvdiffError], str]] = {
    "bands for levels": (
        lambda: AnnealedMode(bands=(6.0, 10.0)), InputError, "fit=LBFGS(bands=(6.0, 10.0))",
    ),
    "a band for levels": (lambda: AnnealedMode(bands=6.0), InputError, "are not pairs"),
    "a band for bands": (lambda: LBFGS(bands=6.0), InputError, "such as (5.0, 8.0)"),
    "levels for bands": (lambda: LBFGS(bands=((100, 6.0),)), InputError, "such as (5.0, 8.0)"),
    "text for bands": (lambda: Adam(bands="6"), InputError, "such as (5.0, 8.0)"),
    "a band within": (
        lambda: AnnealedPosterior.within(9, bands=6.0), InputError, "such as (5.0, 8.0)",
    ),
    "text for a level": (lambda: AnnealedMode(highest="100"), InputError, "highest"),
    "a class for a fit": (lambda: AnnealedMode(fit=LBFGS), UnsupportedError, "LBFGS(steps=60)"),
    "the name of a fit": (lambda: AnnealedMode(fit="lbfgs"), UnsupportedError, "LBFGS(steps=60)"),
    "a number of shots": (lambda: LBFGS(shots=3), UnsupportedError, "Minibatch(3)"),
    "a number of shots for levels": (
        lambda: AnnealedMode(shots=3), UnsupportedError, "Minibatch(3)",
    ),
    "half a step": (lambda: LBFGS(2.5), InputError, "steps is not an integer"),
    "text for steps": (lambda: Ancestral("24"), InputError, "steps is not an integer"),
    "half a particle": (lambda: TwistedSMC(particles=1.5), InputError, "particles"),
    "text for a threshold": (lambda: TwistedSMC(threshold="a"), InputError, "threshold"),
    "a list of terms": (lambda: Posterior(PRIOR, [TERM]), UnsupportedError, "not a term"),
    "None for a prior": (lambda: Posterior(None), UnsupportedError, "not a prior"),
    "a class for a conditioning": (
        lambda: Posterior(PRIOR, conditioning=DPS), UnsupportedError, "not a conditioning",
    ),
    "the name of a prior to sample": (
        lambda: sample("brain-t1", Ancestral(2), **STEP), UnsupportedError, "not a prior",
    ),
    "half a seed to iterate": (
        lambda: list(iterate(PRIOR, Ancestral(2), realizations=1, seed=1.5)), InputError, "seed",
    ),
    "text for a seed to sample": (
        lambda: sample(PRIOR, Ancestral(2), realizations=1, seed="a"), InputError, "seed",
    ),
    "a class to iterate": (
        lambda: list(iterate(PRIOR, EKI, **STEP)), UnsupportedError, "by a call: EKI()",
    ),
}  # fmt: skip


def assert_refused(call: Callable[[], object], error: type[InvdiffError], words: str) -> None:
    with pytest.raises(InvdiffError) as caught:
        call()
    assert type(caught.value) is error
    assert words in str(caught.value)
    assert caught.value.expected is not None
    # Python's errors do not speak of the command line.
    assert "--" not in str(caught.value)


@pytest.mark.parametrize("name", RECONSTRUCT)
def test_reconstruct_says_what_was_meant(name: str) -> None:
    changes, error, words = RECONSTRUCT[name]
    given: dict[str, object] = {"y": DATA, "operator": OPERATOR, "prior": PRIOR, "seed": 0}
    given |= {"realizations": 2, "sampler": Ancestral(2)} | changes
    if "likelihood" not in given:
        given.setdefault("noise_std", 0.2)
    call = functools.partial(reconstruct, given.pop("y"), given.pop("operator"), given.pop("prior"))
    assert_refused(lambda: call(**given), error, words)


@pytest.mark.parametrize("name", INVERT)
def test_invert_says_what_was_meant(name: str) -> None:
    changes, error, words = INVERT[name]
    given: dict[str, object] = {"y": WAVES.y, "operator": WAVES.operator, "prior": None, "seed": 0}
    given |= {"realizations": 2, "method": LBFGS(2), "start": WAVES.start} | changes
    call = functools.partial(invert, given.pop("y"), given.pop("operator"), given.pop("prior"))
    assert_refused(lambda: call(**given), error, words)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_other_calls_say_what_was_meant(name: str) -> None:
    assert_refused(*ELSEWHERE[name])


@pytest.mark.filterwarnings("ignore::invdiff.errors.DataFitWarning")
def test_right_types_are_right() -> None:
    """The cases above fail for their own reason and not for the frame they are in."""
    given = {"realizations": 2, "seed": 0, "sampler": Ancestral(2)}
    by_array = reconstruct(DATA, OPERATOR, PRIOR, noise_std=0.2, **given)
    by_problem = reconstruct(PROBLEM, prior=PRIOR, **given)
    xr.testing.assert_equal(by_array, by_problem)
    settings = {"realizations": 2, "seed": 0, "method": LBFGS(2)}
    by_array = invert(WAVES.y, WAVES.operator, start=WAVES.start, **settings)
    by_problem = invert(LINE, **settings)
    xr.testing.assert_equal(by_array, by_problem)
