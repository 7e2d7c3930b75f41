"""Gradients from every few stored wave fields are the exact ones, however noisy the data are."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from invdiff.errors import InputError
from invdiff.fwi.diagnose import pulled_back
from invdiff.operators.seismic import (
    Acoustic,
    Boundary,
    Deepwave,
    Devito,
    Elastic,
    Survey,
    gardner,
    ricker,
)
from invdiff.operators.seismic.propagator import Engine
from invdiff.operators.seismic.sampling import Sampling, highest_frequency
from tests.support.seismic_cases import BOUNDS, domain, line, model

pytestmark = pytest.mark.seismic

NOISE = 0.05  # of the standard deviation of the data
ENGINES: dict[str, Callable[..., Engine]] = {"devito": Devito, "deepwave": Deepwave}
MEDIA = list(product([False, True], [False, True]))


def operator(
    engine: Engine, *, has_density: bool, is_free: bool, dtype: torch.dtype = torch.float64
) -> Acoustic:
    return Acoustic(
        line(),
        domain(dtype=dtype),
        bounds=BOUNDS,
        boundary=Boundary(10, is_free),
        density=gardner if has_density else None,
        engine=engine,
    )


def white(like: Tensor, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(like.shape)).to(like)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(("has_density", "is_free"), MEDIA)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_residual_of_white_noise_gives_the_gradient_of_all_fields(
    engine: str, has_density: bool, is_free: bool
) -> None:
    """At the true model: a chi-square of one, all of it noise."""
    pytest.importorskip(engine)
    x, media = model(), {"has_density": has_density, "is_free": is_free}
    exact = operator(ENGINES[engine](snapshot=1), **media)
    clean = exact(x)[0]
    y = clean + NOISE * clean.std() * white(clean, 0)
    _, gradient = exact.misfit_and_gradient(x, y)
    for snapshot in (None, 2):
        other = operator(ENGINES[engine](snapshot=snapshot), **media)
        value, found = other.misfit_and_gradient(x, y)
        assert relative(found, gradient) < 1.5e-6
        leaf = x.clone().requires_grad_()
        misfit = 0.5 * (other(leaf) - y).square().sum()
        torch.testing.assert_close(value[0], misfit.detach(), rtol=1e-12, atol=0)
        (by_torch,) = torch.autograd.grad(misfit, leaf)
        assert relative(by_torch, found) < 1e-12


@pytest.mark.parametrize("engine", ENGINES)
def test_steps_between_the_samples_change_nothing(engine: str) -> None:
    """What drives the adjoint field has images beyond the samples' own frequencies."""
    pytest.importorskip(engine)
    media = {"has_density": False, "is_free": False}
    exact, default = (operator(ENGINES[engine](snapshot=k, substeps=3), **media) for k in (1, None))
    x = model()
    clean = exact(x)[0]
    y = clean + NOISE * clean.std() * white(clean, 0)
    gradients = [each.misfit_and_gradient(x, y)[1] for each in (default, exact)]
    assert relative(*gradients) < 1.5e-6


@pytest.mark.parametrize("engine", ENGINES)
def test_the_default_gradient_is_the_derivative_with_noise_in_the_data(engine: str) -> None:
    """Along the gradient itself and along a random direction, by Richardson's differences."""
    pytest.importorskip(engine)
    default = operator(ENGINES[engine](), has_density=False, is_free=False)
    x = model()
    clean = default(x)[0]
    y = clean + NOISE * clean.std() * white(clean, 1)
    _, gradient = default.misfit_and_gradient(x, y)
    for d in (gradient / gradient.abs().max(), white(x, 2)):
        f = {h: float(default.misfit_and_gradient(x + h * d, y)[0]) for h in (2, 1, -1, -2)}
        central = (8 * (f[1] - f[-1]) - (f[2] - f[-2])) / 12
        size = float(gradient.norm() * d.norm())
        assert float((gradient * d).sum()) == pytest.approx(central, abs=2e-6 * size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("engine", ENGINES)
def test_white_data_are_pulled_back_alike(engine: str, dtype: torch.dtype) -> None:
    """The Gauss-Newton curvature and the illumination rest on it."""
    pytest.importorskip(engine)
    exact, default = (
        operator(ENGINES[engine](snapshot=k), has_density=False, is_free=False, dtype=dtype)
        for k in (1, None)
    )
    x, e = model(dtype=dtype), white(torch.empty(exact.range.shape, dtype=dtype), 3)
    tolerance = 1.5e-6 if dtype == torch.float64 else 2e-4
    assert relative(pulled_back(default, x, e), pulled_back(exact, x, e)) < tolerance


def test_elastic_gradients_too() -> None:
    pytest.importorskip("deepwave")
    section, names = domain(), np.array(["vp", "vs", "density"])
    coords = {"parameter": names, **section.coords}
    grid = type(section)(("parameter", "z", "x"), (3, *section.shape), torch.float64, coords)
    vp = model()[0]
    x = torch.stack([vp, 0.5 * vp, 0 * vp + 2000])[None]
    receivers = line().receivers + np.array([80.0, 0.0])
    survey = Survey(line().sources + np.array([60.0, 0.0]), receivers, line().wavelet, 1e-3)
    exact, *sparse = (
        Elastic(survey, grid, bounds=BOUNDS, boundary=Boundary(10), engine=Deepwave(snapshot=k))
        for k in (1, None, 2)
    )
    clean = exact(x)[0]
    y = clean + NOISE * clean.std() * white(clean, 0)
    _, gradient = exact.misfit_and_gradient(x, y)
    for other in sparse:
        _, found = other.misfit_and_gradient(x, y)
        for i in range(3):
            assert relative(found[:, i], gradient[:, i]) < 1.5e-6


# --- the sampling itself -------------------------------------------------------------------------


def test_the_low_pass_keeps_the_waves_and_stops_what_the_fields_do_not_sample() -> None:
    survey = line()
    sampling = Sampling.of(survey)
    assert sampling.taps is not None
    f_max, rate = highest_frequency(survey), 1 / survey.dt
    assert 3.5 * 15 < f_max < 4.5 * 15  # of a Ricker wavelet of 15 Hz
    frequency = np.fft.rfftfreq(8192, survey.dt)
    response = np.abs(np.fft.rfft(sampling.taps, 8192))
    stop = rate / sampling.every - f_max
    assert stop >= 2 * f_max
    np.testing.assert_allclose(response[frequency <= f_max], 1, atol=1e-6)
    assert response[frequency >= stop].max() < 1e-6


def test_it_has_no_delay_and_places_samples_at_the_solver_s_steps() -> None:
    survey = line(n_samples=400)
    sampling = Sampling.of(survey.resampled(survey.dt / 2))
    burst = torch.from_numpy(ricker(15.0, survey.dt, 400, delay=0.2))[None]
    found = sampling.limited(burst, 2)
    assert found.shape == (1, 799 + sampling.n_beyond)
    # Zeros between the samples halve what is left of the burst.
    torch.testing.assert_close(2 * found[:, :799:2], burst, rtol=0, atol=1e-6)
    assert torch.equal(Sampling().limited(burst, 1), burst)


def test_a_wavelet_that_is_cut_off_has_every_field_stored() -> None:
    survey = line()
    cut = Survey(survey.sources, survey.receivers, survey.wavelet[:70], survey.dt)
    assert Sampling.of(cut).every == 1
    assert Sampling.of(survey).every == 5


def test_fields_that_do_not_hold_the_waves_are_refused() -> None:
    with pytest.raises(InputError, match=r"snapshot = 12.*snapshot <= 9.*Leave it out"):
        Sampling.of(line(), every=12)
    assert Sampling.of(line(), every=9).every == 9
