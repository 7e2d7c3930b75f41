"""Noise levels of every form are the same level, and noise laws speak in the units of the data."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr

from invdiff import Grid, invert, reconstruct
from invdiff.errors import InvdiffError, NoiseLevelError, ShapeError
from invdiff.fwi import LBFGS
from invdiff.likelihood import AxisCovariance, Gaussian, Poisson, Rician, StudentT
from invdiff.operators.linear import Identity, Matrix
from invdiff.priors.gaussian import GaussianPrior
from invdiff.samplers import Ancestral
from tests.support.closed_form import correlation, kalman, normal, whiten, whiteness
from tests.support.linear_waves import waves_problem

SHAPE, N_COILS, N_RAYS = (4, 4), 3, 8
GRID = Grid(("y", "x"), SHAPE, torch.float64)
RANGE = Grid(
    ("coil", "ray"), (N_COILS, N_RAYS), torch.float64, {"coil": np.arange(3), "ray": np.arange(8)}
)
COVARIANCE = correlation(4, length=2.0)
PRIOR = GaussianPrior(GRID, torch.zeros(SHAPE), COVARIANCE)
MATRIX = normal((N_COILS * N_RAYS, 16), 1)
OPERATOR = Matrix(MATRIX, GRID, RANGE)
COILS = np.array([0.2, 0.5, 1.0])
SAMPLES = np.broadcast_to(COILS[:, None], (N_COILS, N_RAYS)) * np.linspace(1, 2, N_RAYS)
TRUTH = torch.linalg.cholesky(COVARIANCE) @ normal((16,), 2)
VALUES = (MATRIX @ TRUTH).reshape(N_COILS, N_RAYS) + torch.from_numpy(SAMPLES) * normal((3, 8), 3)
Y = RANGE.to_dataarray(VALUES, "data")


def draw(noise_std: object, n: int = 2, **more: object) -> xr.Dataset:
    given = {"realizations": n, "seed": 0, "sampler": Ancestral(4), "batch_size": n} | more
    return reconstruct(Y, OPERATOR, PRIOR, noise_std=noise_std, **given)


def labelled(values: np.ndarray, *dims: str) -> xr.DataArray:
    return xr.DataArray(values, dims=dims, coords={dim: RANGE.coords[dim] for dim in dims})


SAME: dict[str, tuple[object, list[object]]] = {
    "one": (
        0.5,
        [np.float32(0.5), np.float64(0.5), np.array(0.5), torch.tensor(0.5), xr.DataArray(0.5),
         np.array([[0.5]]), torch.tensor(0.5, requires_grad=True), torch.tensor(0.5).bfloat16(),
         np.array(0.5, ">f8"), np.float16(0.5)],
    ),
    "a whole one": (1.0, [1, np.int64(1), np.uint8(1), torch.tensor(1)]),
    "for each coil": (
        np.broadcast_to(COILS[:, None], (N_COILS, N_RAYS)),
        [COILS, COILS.tolist(), tuple(COILS), torch.from_numpy(COILS), COILS[:, None],
         COILS.astype(">f8"), labelled(COILS, "coil"), xr.DataArray(COILS, dims="coil")],
    ),
    "for each sample": (
        SAMPLES,
        [SAMPLES.tolist(), torch.from_numpy(SAMPLES.copy()), labelled(SAMPLES, "coil", "ray"),
         labelled(SAMPLES.T, "ray", "coil"), SAMPLES.astype(">f8"), SAMPLES[::-1][::-1]],
    ),
    "for each ray": (SAMPLES[:1], [SAMPLES[0], labelled(SAMPLES[0], "ray")]),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
@pytest.mark.filterwarnings("ignore::invdiff.errors.DataFitWarning")
def test_forms_of_a_level_give_equal_members(name: str) -> None:
    expected, forms = SAME[name]
    for form in forms:
        members = draw(form)["image"].values
        np.testing.assert_allclose(members, draw(expected)["image"].values, rtol=0, atol=1e-12)
    by_attribute = reconstruct(
        Y.assign_attrs(noise_std=expected), OPERATOR, PRIOR,
        realizations=2, seed=0, sampler=Ancestral(4), batch_size=2,
    )  # fmt: skip
    np.testing.assert_array_equal(by_attribute["image"], draw(expected)["image"])


@pytest.mark.parametrize("levels", [COILS, SAMPLES], ids=["coils", "samples"])
@pytest.mark.filterwarnings("ignore::invdiff.errors.DataFitWarning")
def test_the_posterior_is_that_of_these_levels(levels: np.ndarray) -> None:
    std = torch.from_numpy(np.broadcast_to(levels.reshape(3, -1), (3, 8)).copy()).reshape(-1, 1)
    exact = kalman(COVARIANCE, MATRIX / std, VALUES.flatten() / std[:, 0], 1.0)
    draws = torch.from_numpy(draw(levels, n=600)["image"].values)
    assert min(whiteness(whiten(draws, *exact)).values()) > 1e-4


def test_a_covariance_of_coils_is_the_level_of_each() -> None:
    covariance = AxisCovariance(torch.diag(torch.from_numpy(COILS**2)), "coil")
    np.testing.assert_allclose(draw(covariance)["image"], draw(COILS)["image"], atol=1e-9)


WRONG: dict[str, tuple[object, type[InvdiffError], str]] = {
    "text": ("0.1", NoiseLevelError, "not a number"),
    "texts": (["0.1"] * 3, NoiseLevelError, "not a number"),
    "a flag": (True, NoiseLevelError, "not a number"),
    "a flag of numpy": (np.True_, NoiseLevelError, "not a number"),
    "flags": (np.ones(3, bool), NoiseLevelError, "not a number"),
    "complex": (1j, NoiseLevelError, "not a number"),
    "complex levels": (np.ones(3) + 0j, NoiseLevelError, "not a number"),
    "nothing": ([None] * 3, NoiseLevelError, "not a number"),
    "a class": (Gaussian, NoiseLevelError, "not a number"),
    "zero": (0.0, NoiseLevelError, "not positive"),
    "one of zero": ([0.0, 1.0, 1.0], NoiseLevelError, "not positive"),
    "below zero": (-COILS, NoiseLevelError, "got values from -1"),
    "NaN": (np.nan * COILS, NoiseLevelError, "not positive"),
    "without a square": (1e-200, NoiseLevelError, "not positive"),
    "a list of one": ([0.5], ShapeError, "got shape (1,)"),
    "too few": ([0.5, 0.5], ShapeError, "got shape (2,)"),
    "too many axes": (np.ones((1, 3, 8)), ShapeError, "got shape (1, 3, 8)"),
    "none": ([], ShapeError, "got shape (0,)"),
    "of other dims": (xr.DataArray(np.ones(3), dims="z"), ShapeError, "other dims"),
    "of other sizes": (xr.DataArray(np.ones(2), dims="coil"), ShapeError, "do not fit"),
    "in another order": (
        labelled(COILS, "coil")[::-1], ShapeError, "coordinate 'coil' of the noise level",
    ),
    "of another axis": (AxisCovariance(torch.eye(3), "channel"), ShapeError, "channel"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_levels_that_are_none_are_refused(name: str) -> None:
    level, error, words = WRONG[name]
    with pytest.raises(error) as caught:
        draw(level)
    assert words in str(caught.value)


# --- inversions -----------------------------------------------------------------------------------


def test_samples_with_more_noise_weigh_less_in_an_inversion() -> None:
    waves = waves_problem(n_shots=2)
    std = 50.0 * (1 + xr.DataArray(np.arange(6), dims="receiver"))
    given = {"start": waves.start, "seed": 0, "realizations": 1, "method": LBFGS(5)}
    by_level = invert(waves.y, waves.operator, noise_std=std, **given)
    by_hand = invert(waves.y, waves.operator, noise_std=50.0, weights=50.0 / std, **given)
    xr.testing.assert_allclose(by_level["velocity"], by_hand["velocity"], rtol=1e-6)
    np.testing.assert_allclose(by_level["data_misfit"], by_hand["data_misfit"], rtol=1e-6)


@pytest.mark.filterwarnings("ignore::invdiff.errors.DataFitWarning")
def test_byte_order_is_no_part_of_the_values() -> None:
    waves = waves_problem(n_shots=2)
    weights = xr.DataArray(np.linspace(0.5, 1, 6), dims="receiver")
    given = {"seed": 0, "realizations": 1, "method": LBFGS(3)}
    native = invert(waves.y, waves.operator, start=waves.start, weights=weights, **given)
    for order in (">f8", "<f8"):
        y, start, w = (array.astype(order) for array in (waves.y, waves.start, weights))
        y = y.assign_coords(time=y.time.values.astype(order)).assign_attrs(waves.y.attrs)
        swapped = invert(y, waves.operator, start=start, weights=w, **given)
        np.testing.assert_array_equal(swapped["velocity"], native["velocity"])
        image = reconstruct(
            Y.astype(order), OPERATOR, PRIOR, realizations=2, seed=0, sampler=Ancestral(4),
            noise_std=COILS.astype(order), batch_size=2,
        )  # fmt: skip
        np.testing.assert_array_equal(image["image"], draw(COILS)["image"])


# --- noise laws -----------------------------------------------------------------------------------

COUNTS_PRIOR = GaussianPrior(GRID, torch.full(SHAPE, 20.0), COVARIANCE)
COUNTS = GRID.to_dataarray(torch.round(40 + 6 * normal(SHAPE, 5)), "counts")
LAWS = {
    "Poisson": Poisson,
    "StudentT": partial(StudentT, noise_std=2.0),
    "Rician": partial(Rician, noise_std=2.0),
    "Gaussian": partial(Gaussian, noise=2.0),
    "a function": lambda y, operator: StudentT(y, operator, 2.0, degrees=3.0),
}


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.filterwarnings("ignore::invdiff.errors.DataFitWarning")
def test_a_law_is_stated_in_the_units_of_the_data(name: str) -> None:
    identity = Identity(GRID)
    given = {"realizations": 3, "seed": 0, "sampler": Ancestral(6), "likelihood": LAWS[name]}
    scaled = reconstruct(COUNTS, identity, COUNTS_PRIOR, scale=2.0, **given)
    by_hand = reconstruct(COUNTS, 2.0 * identity, COUNTS_PRIOR, **given)
    np.testing.assert_allclose(scaled["image"], 2 * by_hand["image"], rtol=1e-9)
    np.testing.assert_allclose(scaled["data_misfit"], by_hand["data_misfit"], rtol=1e-9)
    assert abs(float(scaled["mean"].mean()) - 40) < 3
    words = name if name != "a function" else "StudentT"
    assert scaled.attrs["invdiff_noise_std"].startswith(words)


def test_the_gaussian_law_is_the_noise_level() -> None:
    given = {"realizations": 3, "seed": 0, "sampler": Ancestral(6), "scale": 2.0}
    by_law = reconstruct(
        COUNTS, Identity(GRID), COUNTS_PRIOR, likelihood=partial(Gaussian, noise=6.0), **given
    )
    by_level = reconstruct(COUNTS, Identity(GRID), COUNTS_PRIOR, noise_std=6.0, **given)
    np.testing.assert_allclose(by_law["image"], by_level["image"], rtol=1e-9)
