"""The verb: labels and provenance of the result, its scale, its members, and its statistics."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

import invdiff
from invdiff import Ancestral, AxisCovariance, Grid, MomentMatching, TwistedSMC, reconstruct
from invdiff.calibration import coverage
from invdiff.conditioning import DPS
from invdiff.covariance import Covariance
from invdiff.errors import CalibrationWarning, InputError, NoiseLevelError, ShapeError
from invdiff.operators import Linear, Mask, Matrix
from invdiff.operators.mri import CartesianMRI, birdcage
from invdiff.priors import hub
from invdiff.priors.gaussian import GaussianPrior
from tests.support import tiny
from tests.support.closed_form import correlation, kalman, whiten, whiteness

NOISE = 0.2
SHAPE = (6, 6)
GRID = Grid(
    ("y", "x"),
    SHAPE,
    torch.float64,
    {"y": 0.5 * np.arange(6), "x": 10.0 + np.arange(6)},
    units="km/s",
)
COVARIANCE = correlation(6, length=3.0)
PRIOR = GaussianPrior(GRID, torch.zeros(SHAPE), COVARIANCE)
KEEP = torch.from_numpy(np.random.default_rng(0).random(SHAPE) < 0.5)
OPERATOR = Mask(GRID, KEEP)


def draw_truth(seed: int) -> Tensor:
    root = torch.linalg.cholesky(COVARIANCE)
    return (root @ tiny.standard_normal((36,), seed)).reshape(SHAPE)


def observe(truth: Tensor, seed: int) -> xr.DataArray:
    y = (truth + NOISE * tiny.standard_normal(SHAPE, seed)) * KEEP
    return OPERATOR.range.to_dataarray(y, "velocity", attrs={"noise_std": NOISE})


@pytest.fixture(scope="module")
def y() -> xr.DataArray:
    return observe(draw_truth(1), seed=2)


@pytest.fixture(scope="module")
def result(y: xr.DataArray) -> xr.Dataset:
    return reconstruct(y, OPERATOR, PRIOR, realizations=6, seed=3, batch_size=4, name="velocity")


def test_the_result_is_labelled(result: xr.Dataset) -> None:
    assert type(result) is xr.Dataset
    assert set(result.data_vars) == {"velocity", "mean", "std", "data_misfit"}
    assert result["velocity"].dims == ("realization", "y", "x")
    assert result["mean"].dims == result["std"].dims == ("y", "x")
    assert result["data_misfit"].dims == ("realization",)
    assert result.realization.values.tolist() == list(range(6))
    assert result.realization.attrs["standard_name"] == "realization"
    for dim, values in GRID.coords.items():
        np.testing.assert_array_equal(result[dim], values)
    for name in ("velocity", "mean", "std"):
        assert result[name].attrs["units"] == "km/s"
        assert result[name].attrs["long_name"]
        assert result[name].dtype == np.float64
    assert result["data_misfit"].attrs["units"] == "1"


def test_mean_std_and_misfit_are_those_of_the_members(result: xr.Dataset, y: xr.DataArray) -> None:
    members = result["velocity"]
    np.testing.assert_allclose(result["mean"], members.mean("realization"), rtol=1e-12)
    np.testing.assert_allclose(result["std"], members.std("realization", ddof=1), rtol=1e-12)
    squares = ((y - members).where(xr.DataArray(KEEP.numpy(), dims=("y", "x"))) ** 2).sum(
        ("y", "x")
    )
    expected = squares / NOISE**2 / int(KEEP.sum())
    np.testing.assert_allclose(result["data_misfit"], expected.values, rtol=1e-12)


def test_the_attributes_tell_how_it_was_made(result: xr.Dataset) -> None:
    attrs = result.attrs
    assert attrs["Conventions"].startswith("CF-")
    assert attrs["source"] == f"invdiff {invdiff.__version__}"
    assert attrs["invdiff_seed"] == 3
    assert attrs["invdiff_batch_size"] == 4
    assert attrs["invdiff_scale"] == 1.0
    assert attrs["invdiff_sampler"] == repr(TwistedSMC())
    assert 0.5 < attrs["invdiff_effective_number"] <= 1
    assert np.isfinite(attrs["invdiff_log_evidence"])
    assert attrs["invdiff_weights"] == "carried"
    assert attrs["invdiff_conditioning"] == repr(MomentMatching())
    assert attrs["invdiff_operator"] == repr(OPERATOR)
    assert attrs["invdiff_prior"] == repr(PRIOR)
    for package in ("torch", "numpy", "xarray"):
        assert f"{package} {version(package)}" in attrs["versions"]
    json.dumps(attrs)


def test_a_learned_prior_is_named_with_the_checksum_of_its_file(tmp_path) -> None:
    stem = tiny.stored(tmp_path)
    prior = hub.load_prior(stem)
    operator = CartesianMRI(torch.ones(tiny.SHAPE, dtype=torch.bool), domain=prior.grid)
    data = operator.range.to_dataarray(torch.zeros(tiny.SHAPE, dtype=torch.complex64), "kspace")
    with pytest.warns(CalibrationWarning, match="too cautious here"):  # of an image of zeros
        result = reconstruct(data, operator, prior, realizations=1, seed=0, noise_std=0.1)
    digest = hashlib.sha256(stem.with_suffix(".safetensors").read_bytes()).hexdigest()
    assert result.attrs["invdiff_prior"] == f"tiny@sha256:{digest}"
    assert result["image"].dtype == np.complex64
    assert np.isnan(result["std"]).all()  # one member has no spread, and does not claim one


def test_labels_come_from_the_operator_where_the_prior_has_none(y: xr.DataArray) -> None:
    bare = GaussianPrior(replace(GRID, coords={}), torch.zeros(SHAPE), COVARIANCE)
    result = reconstruct(y, OPERATOR, bare, realizations=2, seed=3)
    for dim, values in GRID.coords.items():
        np.testing.assert_array_equal(result[dim], values)


def test_axes_of_the_data_are_found_by_name(y: xr.DataArray, result: xr.Dataset) -> None:
    turned = reconstruct(
        y.transpose("x", "y"),
        OPERATOR,
        PRIOR,
        realizations=6,
        seed=3,
        batch_size=4,
        name="velocity",
    )
    xr.testing.assert_identical(turned, result)


def test_data_with_other_labels_are_refused(y: xr.DataArray) -> None:
    with pytest.raises(ShapeError, match=r"coordinate 'y'.*differs"):
        reconstruct(y.assign_coords(y=y.y + 1), OPERATOR, PRIOR, realizations=2, seed=0)


@pytest.mark.parametrize("factor", [4.0, 3.0])
def test_the_scale_is_done_and_undone(y: xr.DataArray, factor: float) -> None:
    plain = reconstruct(y, OPERATOR, PRIOR, realizations=4, seed=0, scale=0.5)
    scaled = reconstruct(
        factor * y,
        OPERATOR,
        PRIOR,
        realizations=4,
        seed=0,
        noise_std=factor * NOISE,
        scale=factor * 0.5,
    )
    for name in ("image", "mean", "std"):
        np.testing.assert_allclose(scaled[name], factor * plain[name], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(scaled["data_misfit"], plain["data_misfit"], rtol=1e-9)
    other = reconstruct(y, OPERATOR, PRIOR, realizations=4, seed=0)
    assert abs(other["mean"] - plain["mean"]).max() > 0.01  # the scale means something to the prior


def symmetric_root(r: Tensor) -> Tensor:
    return r / NOISE


@pytest.mark.parametrize(
    "noise",
    [
        torch.full(SHAPE, NOISE, dtype=torch.float64),
        torch.full((6, 1), NOISE, dtype=torch.float64),
        AxisCovariance(NOISE**2 * torch.eye(6, dtype=torch.float64), "y"),
        symmetric_root,
        np.float64(NOISE),
    ],
    ids=["map", "broadcast map", "axis covariance", "callable", "numpy scalar"],
)
def test_every_form_of_the_noise_is_scaled_alike(
    y: xr.DataArray, noise: Tensor | AxisCovariance | Callable[[Tensor], Tensor]
) -> None:
    # Solves stop at a tolerance that a preconditioner affects, so it is made tight.
    tight = MomentMatching(tolerance=1e-9, max_iterations=500)
    draws = [
        reconstruct(
            y, OPERATOR, PRIOR, realizations=3, seed=0, noise_std=n, scale=2.0, conditioning=tight
        )
        for n in (NOISE, noise)
    ]
    np.testing.assert_allclose(draws[0]["image"], draws[1]["image"], atol=1e-6)
    np.testing.assert_allclose(draws[0]["data_misfit"], draws[1]["data_misfit"], rtol=1e-6)


def test_the_noise_level_comes_from_the_data_or_the_call(y: xr.DataArray) -> None:
    by_attribute = reconstruct(y, OPERATOR, PRIOR, realizations=2, seed=0)
    by_argument = reconstruct(
        y.assign_attrs(noise_std=77.0), OPERATOR, PRIOR, realizations=2, seed=0, noise_std=NOISE
    )
    xr.testing.assert_identical(by_attribute, by_argument)
    with pytest.raises(NoiseLevelError, match="missing"):
        reconstruct(y.drop_attrs(), OPERATOR, PRIOR, realizations=2, seed=0)


def test_the_noise_levels_of_coils_may_differ() -> None:
    grid = tiny.grid((8, 8), torch.complex128)
    operator = CartesianMRI(torch.ones(8, 8), birdcage((8, 8), 3), domain=grid)
    prior = GaussianPrior(grid, torch.zeros(8, 8), torch.eye(64))
    levels = [0.1, 0.2, 0.4]
    values = operator(tiny.standard_normal((1, 8, 8), 0, torch.complex128))[0]
    data = operator.range.to_dataarray(values, "kspace")
    given = reconstruct(
        data,
        operator,
        prior,
        realizations=2,
        seed=0,
        noise_std=torch.tensor(levels, dtype=torch.float64)[:, None, None],
    )
    # The attribute as invdiff.io.read_kspace leaves it.
    read = reconstruct(data.assign_attrs(noise_std=levels), operator, prior, realizations=2, seed=0)
    np.testing.assert_allclose(read["image"], given["image"], atol=0.02)
    with pytest.raises(InputError, match=r"3"):
        reconstruct(data.assign_attrs(noise_std=[0.1]), operator, prior, realizations=2, seed=0)


def test_members_are_drawn_by_number(y: xr.DataArray) -> None:
    def drawn(members, seed: int) -> xr.Dataset:
        return reconstruct(
            y, OPERATOR, PRIOR, realizations=members, seed=seed, batch_size=3, sampler=Ancestral()
        )

    longer, some = drawn(9, 0), drawn([5, 6, 7], 0)
    assert some.realization.values.tolist() == [5, 6, 7]
    expected = longer["image"].sel(realization=[5, 6, 7])
    np.testing.assert_array_equal(some["image"], expected)
    assert (drawn([5, 6, 7], 1)["image"] != some["image"]).all()
    assert len(np.unique(longer["image"][:, 0, 0])) == 9


@pytest.mark.parametrize("members", [[1, 1], [-1, 0]])
def test_members_are_distinct_and_count_from_zero(y: xr.DataArray, members: list[int]) -> None:
    with pytest.raises(InputError, match="realizations"):
        reconstruct(y, OPERATOR, PRIOR, realizations=members, seed=0)


class Watched(GaussianPrior):
    """Remembers how many members it, or a copy of it on a device, was asked for at a time."""

    def __init__(self) -> None:
        super().__init__(GRID, torch.zeros(SHAPE), COVARIANCE)
        self.sizes: list[int] = []

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        self.sizes.append(len(x_t))
        return super().moments(x_t, t)


def test_the_batch_size_bounds_what_is_held_at_once(y: xr.DataArray) -> None:
    prior = Watched()
    result = reconstruct(
        y, OPERATOR, prior, realizations=10, seed=0, batch_size=4, sampler=Ancestral(5)
    )
    assert result.sizes["realization"] == 10
    assert prior.sizes == [4] * 15


def test_sampler_conditioning_and_terms_are_used(y: xr.DataArray) -> None:
    class PullUp:
        def log_prob(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
            return 3 * x_0.flatten(1).sum(1)

    few = reconstruct(y, OPERATOR, PRIOR, realizations=2, seed=0, sampler=Ancestral(3))
    assert few.attrs["invdiff_sampler"] == "Ancestral(steps=3, keep=0.75)"
    with pytest.warns(CalibrationWarning, match="too narrow"):
        guided = reconstruct(y, OPERATOR, PRIOR, realizations=2, seed=0, conditioning=DPS(0.5))
    assert guided.attrs["invdiff_conditioning"] == "DPS(scale=0.5)"
    same_noise = {"realizations": 2, "seed": 0, "sampler": Ancestral()}
    plain = reconstruct(y, OPERATOR, PRIOR, **same_noise)
    pulled = reconstruct(y, OPERATOR, PRIOR, terms=[PullUp()], **same_noise)
    assert (pulled["mean"] > plain["mean"] + 0.1).all()


def test_draws_have_the_exact_posterior_mean_and_covariance(y: xr.DataArray) -> None:
    n = 1000
    result = reconstruct(
        y, OPERATOR, PRIOR, realizations=n, seed=5, batch_size=500, sampler=Ancestral(4)
    )
    matrix = torch.diag(KEEP.flatten().double())
    mean, covariance = kalman(COVARIANCE, matrix, torch.from_numpy(y.values).flatten(), NOISE)
    draws = torch.from_numpy(result["image"].values)
    p_values = whiteness(whiten(draws, mean, covariance))
    assert min(p_values.values()) > 1e-4, p_values
    sd = covariance.diagonal().sqrt().reshape(SHAPE).numpy()
    assert abs(result["mean"].values - mean.reshape(SHAPE).numpy()).max() < 5 * sd.max() / n**0.5
    # std has relative Monte-Carlo error 1 / sqrt(2 n)
    assert abs(result["std"].values / sd - 1).max() < 5 / (2 * n) ** 0.5
    # E |W (y - A x)|^2 = |W (y - A m)|^2 + tr(W A C A^T W^T)
    left = (y.values - mean.reshape(SHAPE).numpy()) * KEEP.numpy()
    expected = ((left**2).sum() + (sd**2 * KEEP.numpy()).sum()) / NOISE**2 / int(KEEP.sum())
    misfit = result["data_misfit"].values
    assert abs(misfit.mean() - expected) < 5 * misfit.std() / n**0.5


def test_many_reconstructions_are_calibrated() -> None:
    """Over truths from the prior: intervals cover what they claim, the misfit is one."""
    n_truths = 80
    shares, misfits = [], []
    for i in range(n_truths):
        truth = draw_truth(1000 + i)
        result = reconstruct(
            observe(truth, seed=5000 + i),
            OPERATOR,
            PRIOR,
            realizations=8,
            seed=i,
            batch_size=8,
            sampler=Ancestral(3),
        )
        exact = GRID.to_dataarray(truth, "truth")
        shares.append(coverage(result["image"], exact, (0.5, 0.9)).values)
        misfits.append(float(result["data_misfit"].mean()))
    # Pixels of one truth go together, truths do not: the error comes from their spread.
    standard_error = np.std(shares, axis=0, ddof=1) / n_truths**0.5
    assert (abs(np.mean(shares, axis=0) - (0.5, 0.9)) < 4 * standard_error).all()
    assert (standard_error < 0.025).all()
    assert abs(np.mean(misfits) - 1) < 4 * np.std(misfits, ddof=1) / n_truths**0.5


def test_operators_that_change_dims() -> None:
    """Data on other dims than the field."""
    lines = Grid(("ray",), (4,), torch.float64, units="s")
    operator: Linear = Matrix(tiny.standard_normal((4, 36), 0), GRID, lines)
    y = operator.range.to_dataarray(operator(draw_truth(1)[None])[0], "time")
    result = reconstruct(y, operator, PRIOR, realizations=3, seed=0, noise_std=0.1)
    assert result["image"].dims == ("realization", "y", "x")
    assert result["image"].attrs["units"] == "km/s"
