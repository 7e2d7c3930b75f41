"""Diagnostics of an inversion against cases known by construction and published figures."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import binom, chi2, spearmanr

from invdiff.errors import InputError, NoiseLevelError, NonFiniteError, ShapeError
from invdiff.fwi import amplitude_weights
from invdiff.fwi.diagnose import (
    cycle_skipping,
    data_fit,
    illumination,
    model_errors,
    relative_error,
    spread_figures,
)
from invdiff.fwi.misfit import lowpass
from tests.support.closed_form import normal
from tests.support.linear_waves import LinearWaves

DT, F = 0.004, 5.0
NOISE = np.random.default_rng(0).standard_normal((3, 4, 500))


def traces(values: np.ndarray) -> xr.DataArray:
    n_shots, n_receivers, n = values.shape
    coords = {"shot": range(n_shots), "receiver": range(n_receivers), "time": np.arange(n) * DT}
    return xr.DataArray(values, coords, ("shot", "receiver", "time"))


def arrivals(delays: np.ndarray, amplitude: np.ndarray | float = 1.0) -> xr.DataArray:
    a = (np.pi * F * (np.arange(500) * DT - delays[..., None])) ** 2
    return traces(np.broadcast_to(amplitude, delays.shape)[..., None] * (1 - 2 * a) * np.exp(-a))


LAGS = np.array([[0.0, 0.02, 0.08, 0.12], [-0.02, -0.12, 0.3, 0.0], [0.0, 0.0, 0.0, 0.0]])
OBSERVED = arrivals(np.full((3, 4), 0.9), np.array([[1.0], [3.0], [1.0]]))


def test_lags_are_found_and_those_beyond_half_a_period_flagged() -> None:
    """Half a period is 0.1 s; three of twelve traces, (1 + 9 + 9) / (4 + 36 + 4) of the energy."""
    found = cycle_skipping(arrivals(0.9 + LAGS, 0.5), OBSERVED, dt=DT, frequency=F)
    np.testing.assert_allclose(found["lag"], LAGS, atol=1e-12)
    assert found["lag"].attrs["units"] == "s"
    np.testing.assert_allclose(found["correlation"], 1, atol=1e-6)
    assert (found["is_skipped"].values == (abs(LAGS) > 0.1)).all()
    assert float(found["fraction"]) == 0.25
    assert float(found["energy_fraction"]) == pytest.approx(19 / 44)
    assert found.attrs["verdict"].startswith("Cycle-skipped: 25% of the traces with 43%")


def test_a_lower_frequency_is_not_skipped() -> None:
    found = cycle_skipping(arrivals(0.9 + LAGS), OBSERVED, dt=DT, frequency=1.5)
    assert float(found["fraction"]) == 0
    assert found.attrs["verdict"].startswith("Not cycle-skipped")


def test_dead_traces_do_not_count() -> None:
    predicted, observed = arrivals(0.9 + LAGS), OBSERVED.copy()
    observed[2], predicted[1, 3] = 0, 0
    found = cycle_skipping(predicted, observed, dt=DT, frequency=F)
    dead = np.zeros((3, 4), bool)
    dead[2], dead[1, 3] = True, True
    assert (np.isnan(found["lag"]).values == dead).all()
    assert not found["is_skipped"].values[dead].any()
    assert float(found["fraction"]) == 3 / 7
    with pytest.raises(InputError, match="dead traces"):
        cycle_skipping(predicted, 0 * observed, dt=DT, frequency=F)


def test_noise_outside_the_band_does_not_move_the_lag() -> None:
    high = NOISE - lowpass(NOISE, 40.0, DT)
    found = cycle_skipping(arrivals(0.9 + LAGS) + 0.3 * high, OBSERVED, dt=DT, frequency=F)
    np.testing.assert_allclose(found["lag"], LAGS, atol=2 * DT)


def test_chi2_of_noise_is_one_and_names_the_bad_shot() -> None:
    std = xr.DataArray([0.1, 0.2, 0.3], {"shot": range(3)}, "shot")
    observed = OBSERVED + std * traces(NOISE)
    fit = data_fit(OBSERVED, observed, noise_std=std)
    low, high = chi2.ppf([1e-4, 1 - 1e-4], NOISE.size) / NOISE.size
    assert low < float(fit["chi2"]) < high
    np.testing.assert_allclose(fit["chi2_shot"], (NOISE**2).mean((1, 2)))
    np.testing.assert_allclose(fit["chi2_receiver"], (NOISE**2).mean((0, 2)))
    wrong = OBSERVED.copy()
    wrong[1] = 0
    worse = data_fit(wrong, observed, noise_std=std)
    assert worse["chi2_shot"].values.argmax() == 1
    assert float(worse["rel_l2_shot"][1]) == pytest.approx(1)
    np.testing.assert_allclose(worse["rel_l2_shot"][[0, 2]], fit["rel_l2_shot"][[0, 2]])


def test_relative_error_of_a_gain() -> None:
    fit = data_fit(1.1 * OBSERVED, OBSERVED, noise_std=1.0)
    for name in ("rel_l2", "rel_l2_shot", "rel_l2_receiver"):
        np.testing.assert_allclose(fit[name], 0.1)
    assert np.isnan(data_fit(OBSERVED, 0 * OBSERVED, noise_std=1.0)["rel_l2"])


def test_bad_traces() -> None:
    bad = OBSERVED.copy()
    bad[0, 0, 0] = np.nan
    for method in (
        lambda p, d: data_fit(p, d, noise_std=1.0),
        lambda p, d: cycle_skipping(p, d, dt=DT, frequency=F),
    ):
        with pytest.raises(NonFiniteError):
            method(bad, OBSERVED)
        with pytest.raises(ShapeError, match="labels"):
            method(OBSERVED.assign_coords(receiver=np.arange(4) + 1), OBSERVED)
        with pytest.raises(ShapeError, match="dims"):
            method(OBSERVED[0], OBSERVED)
    with pytest.raises(NoiseLevelError):
        data_fit(OBSERVED, OBSERVED, noise_std=0.0)
    for other in (xr.DataArray([1.0], {"shot": [7]}, "shot"), xr.DataArray([1.0], dims="offset")):
        with pytest.raises(ShapeError):
            data_fit(OBSERVED, OBSERVED, noise_std=other)
    with pytest.raises(InputError, match="dt is not"):
        cycle_skipping(OBSERVED, OBSERVED, dt=0.002, frequency=F)
    with pytest.raises(InputError, match="frequency band"):
        cycle_skipping(OBSERVED, OBSERVED, dt=DT, frequency=0.0)


PUBLISHED = {
    "curvefault": {"ssim": 0.80094, "mae": 174.0, "rel_l2": 0.0965},
    "marmousi": {"ssim": 0.66455, "mae": 207.0, "rel_l2": 0.142},
}


@pytest.mark.parametrize("case", PUBLISHED)
def test_published_figures_are_reproduced(case: str, shared_data: Path) -> None:
    with np.load(shared_data / "seismic" / f"{case}_red_diffeq_result.npz") as stored:
        estimate = xr.DataArray(1500 * stored["result"] + 3000, dims=("z", "x"))
        truth = xr.DataArray(stored["ground_truth"], dims=("z", "x"), attrs={"units": "m s-1"})
        last = float(stored["ssim"][-1])
    errors = model_errors(estimate, truth, bounds=(1500.0, 4500.0))
    assert float(errors["ssim"]) == pytest.approx(last, abs=2e-5)
    for name, expected in PUBLISHED[case].items():
        assert float(errors[name]) == pytest.approx(expected, rel=3e-3)
    assert errors["mae"].attrs["units"] == "m s-1"


def model(values: np.ndarray) -> xr.DataArray:
    return xr.DataArray(values, dims=("z", "x"), attrs={"units": "m s-1"})


def test_model_errors_by_hand_and_by_member() -> None:
    truth = model(np.random.default_rng(1).uniform(1500, 4500, (30, 40)))
    members = xr.concat([truth, truth + 100, 1.1 * truth], "realization")
    errors = model_errors(members.transpose("x", "realization", "z"), truth, bounds=(1500, 4500))
    np.testing.assert_allclose(errors["rel_l2"][[0, 2]], [0, 0.1], atol=1e-12)
    np.testing.assert_allclose(errors["mae"], [0, 100, 0.1 * float(truth.mean())])
    np.testing.assert_allclose(errors["rmse"][:2], [0, 100])
    assert float(errors["ssim"][0]) == pytest.approx(1)
    assert (errors["ssim"][1:] < 0.999).all()
    one = model_errors(members[2], truth, bounds=(1500, 4500))
    np.testing.assert_allclose(one["ssim"], errors["ssim"][2])


def test_ssim_does_not_depend_on_units() -> None:
    rng = np.random.default_rng(2)
    truth, estimate = (model(rng.uniform(1500, 4500, (30, 40))) for _ in range(2))
    metres = model_errors(estimate, truth, bounds=(1500, 4500))["ssim"]
    kilometres = model_errors(estimate / 1000, truth / 1000, bounds=(1.5, 4.5))["ssim"]
    assert float(metres) == pytest.approx(float(kilometres), rel=1e-6)


def test_bad_models() -> None:
    truth = model(np.full((20, 20), 2000.0))
    with pytest.raises(InputError, match="bounds"):
        model_errors(truth, truth, bounds=(4500.0, 1500.0))
    with pytest.raises(ShapeError):
        model_errors(truth[:, :10].assign_coords(x=range(10)), truth, bounds=(1, 2))
    with pytest.raises(ShapeError, match="dims"):
        model_errors(truth.rename(x="y"), truth, bounds=(1500, 4500))
    with pytest.raises(NonFiniteError):
        model_errors(truth.where(truth < 0), truth, bounds=(1500, 4500))


def calibrated(n: int = 200) -> tuple[xr.DataArray, xr.DataArray]:
    """Members and truth of one law, whose spread grows tenfold from left to right."""
    rng = np.random.default_rng(3)
    std = np.broadcast_to(np.geomspace(10, 100, 40), (40, 40))
    members = xr.DataArray(std * rng.standard_normal((n, 40, 40)), dims=("realization", "z", "x"))
    return members, model(std * rng.standard_normal((40, 40)))


def test_spread_of_a_calibrated_ensemble() -> None:
    members, truth = calibrated()
    figures = spread_figures(members, truth)
    low, high = binom.ppf([1e-4, 1 - 1e-4], truth.size, 0.9) / truth.size
    assert low < float(figures["coverage"]) < high
    # Many draws of the law say what to expect of its ranks; n of them are off by 1 / sqrt(n).
    std = np.tile(np.geomspace(10, 100, 40), 5000)
    errors = std * abs(np.random.default_rng(5).standard_normal(std.size))
    expected = spearmanr(std, errors).statistic
    assert float(figures["rank_correlation"]) == pytest.approx(expected, abs=4 / 1600**0.5)
    # A mean of squares w |n|^2 is off by sqrt(2 sum w^2) / sum w, its root by half of that.
    weights = np.tile(np.geomspace(10, 100, 40) ** 2, 40)
    uncertainty = (2 * (weights**2).sum()) ** 0.5 / weights.sum() / 2
    assert float(figures["spread_skill"]) == pytest.approx(1, abs=4 * uncertainty)
    assert figures.attrs == {"level": 0.9, "n_cells": 1600}


def test_spread_that_says_nothing_or_too_little() -> None:
    members, truth = calibrated()
    blind = members.isel(x=np.random.default_rng(4).permutation(40))
    # 40 columns, each with its own spread: 4 / sqrt(40) at most.
    assert abs(float(spread_figures(blind, truth)["rank_correlation"])) < 0.5 * 4 / 40**0.5
    narrow = members.mean("realization") + 0.3 * (members - members.mean("realization"))
    figures = spread_figures(narrow, truth)
    assert float(figures["coverage"]) < 0.5
    assert float(figures["spread_skill"]) == pytest.approx(0.3, abs=0.05)


def test_spread_is_evaluated_only_where_asked() -> None:
    members, truth = calibrated()
    where = xr.DataArray(np.arange(40) < 20, dims="x")
    figures = spread_figures(members, truth, where=where)
    half = spread_figures(members.isel(x=slice(20)), truth.isel(x=slice(20)))
    assert figures.attrs["n_cells"] == 800
    xr.testing.assert_allclose(figures, half)


def test_bad_ensembles() -> None:
    members, truth = calibrated(4)
    with pytest.raises(InputError, match="complex"):
        spread_figures(members + 0j, truth)
    with pytest.raises(ShapeError):
        spread_figures(members.rename(x="y"), truth)
    with pytest.raises(InputError, match="rank correlation of spread and error is not defined"):
        spread_figures(members.isel(z=[0] * 40, x=[0] * 40), truth)


# ---------------------------------------------------------------- illumination


def test_illumination_is_the_root_of_the_diagonal_of_the_normal_matrix() -> None:
    """Of an operator that sees the right half better, and one shot of which is muted."""
    sight = torch.linspace(1.0, 3.0, 16, dtype=torch.float64)
    matrices = sight * normal((40, 8, 16, 16, 16), 1)
    operator = LinearWaves(matrices)
    model = operator.domain.to_dataarray(torch.full((16, 16), 2500.0, dtype=torch.float64), "v")
    weights = xr.DataArray(np.r_[0.0, np.ones(39)], dims="shot")
    found = illumination(operator, model, weights=weights)
    exact = matrices[1:].square().sum((0, 1, 2)).sqrt()
    # 39 draws, smoothed over about 4 pi 3^2 cells; edges are smoothed into.
    np.testing.assert_allclose(found[:, 3:-3].mean("z"), exact[:, 3:-3].mean(0), rtol=0.06)
    assert found.dims == ("z", "x")
    assert dict(operator.solves) == {"forward": 40, "adjoint": 40}
    with pytest.raises(InputError, match="smoothing"):
        illumination(operator, model, smoothing=0.0)


# ---------------------------------------------------------------- errors of the modelling

CLEAN = arrivals(np.linspace(0.6, 1.4, 12).reshape(3, 4), np.array([[1.0], [3.0], [10.0]]))


def with_errors(share: float) -> xr.DataArray:
    """Traces with noise of 0.01 and errors of this share of the amplitude, white under it."""
    weights = amplitude_weights(CLEAN, 0.01, relative=1.0, window=0.2)
    own = 0.01 * np.random.default_rng(1).standard_normal(CLEAN.shape)
    amplitude = 0.01 * np.sqrt(1 / weights.values.astype(float) ** 2 - 1)
    return CLEAN + own + share * amplitude * NOISE


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
def test_the_relative_error_of_the_modelling_is_learned(share: float) -> None:
    found = relative_error(with_errors(share), CLEAN, noise_std=0.01, window=0.2)
    # About 1500 samples are louder than the noise: a standard error of 2 %, twice that where few.
    assert found == pytest.approx(share, rel=0.12)
    weights = amplitude_weights(CLEAN, 0.01, relative=found, window=0.2)
    residual = weights * (with_errors(share) - CLEAN) / 0.01
    assert float((residual**2).mean()) == pytest.approx(1, abs=0.05)  # 6000 samples: 0.018


def test_noise_alone_is_no_error_of_the_modelling() -> None:
    quiet = CLEAN + 0.009 * NOISE
    assert relative_error(quiet, CLEAN, noise_std=0.01) == 0


def test_muted_traces_teach_no_error() -> None:
    wrong = with_errors(0.05)
    wrong[2] *= 2
    weights = xr.DataArray([1.0, 1.0, 0.0], dims="shot")
    kept = relative_error(wrong, CLEAN, noise_std=0.01, weights=weights, window=0.2)
    assert kept == pytest.approx(0.05, rel=0.15)
    assert relative_error(wrong, CLEAN, noise_std=0.01, window=0.2) > 0.2


def test_relative_errors_refuse_what_they_cannot_use() -> None:
    with pytest.raises(NoiseLevelError, match="not positive"):
        relative_error(CLEAN, CLEAN, noise_std=0.0)
    with pytest.raises(InputError, match="leave no data"):
        relative_error(CLEAN, CLEAN, noise_std=0.1, weights=xr.zeros_like(CLEAN))
    with pytest.raises(InputError, match="no times"):
        relative_error(CLEAN.drop_vars("time"), CLEAN.drop_vars("time"), noise_std=0.1)
