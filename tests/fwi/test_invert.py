"""Inversion where the answer is known: posteriors, objectives, labels, real waves."""

import dataclasses
import itertools
from functools import cache

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import norm
from torch import Tensor

from invdiff import invert
from invdiff.errors import DataFitWarning, InputError
from invdiff.fwi import (
    LBFGS,
    AnnealedMode,
    AnnealedPosterior,
    Encoded,
    Minibatch,
    Objective,
    total_variation,
)
from invdiff.fwi.misfit import NormalisedCorrelation
from invdiff.fwi.weighting import misfit_weights
from invdiff.grid import Grid
from invdiff.noise import NoiseField
from invdiff.priors import hub
from invdiff.terms import Penalty
from tests.support.closed_form import normal
from tests.support.linear_waves import LinearWaves, WavesProblem, random_waves, waves_problem
from tests.support.seismic_cases import acoustic, domain, line

WAVES = waves_problem()
N_MEMBERS = 128
LEVELS = {"steps": 40, "highest": 400.0, "lowest": 30.0, "fit": None}


# ---------------------------------------------------------------- the exact posterior


@cache
def ensemble() -> xr.Dataset:
    return invert(
        WAVES.y, WAVES.operator, WAVES.prior, start=WAVES.start, seed=0,
        method=AnnealedPosterior(**LEVELS), realizations=N_MEMBERS,
    )  # fmt: skip


def members() -> Tensor:
    return torch.from_numpy(ensemble()["velocity"].values).flatten(1)


def test_the_mean_is_the_exact_one() -> None:
    """Within what 128 draws tell: their mean is off by 0.09 of a standard deviation."""
    std = WAVES.covariance.diagonal().sqrt()
    error = float((((members().mean(0) - WAVES.mean) / std).square().mean()).sqrt())
    # The field has few modes, so that this root mean square is itself known to a fifth only.
    assert error < 1.4 * N_MEMBERS**-0.5


def test_the_spread_is_the_exact_one() -> None:
    """Sum of variances: that of one is known to 12 %, over the field's few modes to about 6 %."""
    ratio = float(members().var(0).sum() / WAVES.covariance.trace())
    assert ratio == pytest.approx(1.0, abs=2 * 0.06)


def test_intervals_cover_what_they_say() -> None:
    """Posterior mass within the 5 % and 95 % quantiles of the members, mean over cells."""
    low, high = np.quantile(members().numpy(), [0.05, 0.95], axis=0)
    exact = norm(WAVES.mean.numpy(), WAVES.covariance.diagonal().sqrt().numpy())
    coverage = float((exact.cdf(high) - exact.cdf(low)).mean())
    # Quantiles of 128 draws alone make 0.89.
    assert coverage == pytest.approx(0.9, abs=0.03)


def test_correlations_between_cells_are_those_of_the_posterior() -> None:
    found = np.corrcoef(members().numpy().T)
    exact = WAVES.covariance / WAVES.covariance.diagonal().outer(WAVES.covariance.diagonal()).sqrt()
    # Of 64 pairs with opposite noise the standard error of a small correlation is 64^-1/2 = 0.125.
    assert float(np.abs(found - exact.numpy()).mean()) < 0.125


def test_the_mode_is_the_exact_one() -> None:
    """Without draws the descent converges."""
    method = AnnealedMode(**LEVELS)
    result = invert(
        WAVES.y, WAVES.operator, WAVES.prior, start=WAVES.start, seed=0, method=method,
        realizations=1,
    )  # fmt: skip
    error = torch.from_numpy(result["velocity"].values).flatten() - WAVES.mean
    assert float((error / WAVES.covariance.diagonal().sqrt()).abs().max()) < 0.1
    np.testing.assert_allclose(result.misfit_history[0, -1], result.data_misfit[0], rtol=1e-9)


# ---------------------------------------------------------------- objectives


def objective(n_shots: int = 3, *, weights: Tensor | None = None) -> Objective:
    operator = random_waves(n_shots)
    return Objective.gaussian(operator, normal(operator.range.shape, 2), 0.5, weights=weights)


def models(n: int = 2) -> Tensor:
    return 2500 + 100 * normal((n, 6, 6), 4)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_objective_is_half_the_squared_residual_over_the_noise(is_weighted: bool) -> None:
    w = normal((3, 6, 1), 8).abs() if is_weighted else torch.ones(1, 1, 1, dtype=torch.float64)
    f = objective(weights=w if is_weighted else None)
    x = models().requires_grad_()
    expected = ((w * (f.operator(x) - f.y) / 0.5) ** 2).flatten(1).sum(1) / 2
    (slope,) = torch.autograd.grad(expected.sum(), x)
    value, gradient = f(x.detach())
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradient, slope)
    assert f.n_data == pytest.approx(float((w**2).expand(3, 6, 10).sum()))


@pytest.mark.parametrize("n", [1, 2])
def test_minibatches_and_encoded_shots_are_unbiased(n: int) -> None:
    """Means over all choices of ``n`` of 3 shots, and over all patterns of signs."""
    f, x = objective(), models()
    batches = [f.shots(chosen) for chosen in itertools.combinations(range(3), n)]
    patterns = np.array(list(itertools.product([-1.0, 1.0], repeat=3)))
    codes = [f.encoded(np.stack(rows)) for rows in itertools.combinations(patterns, n)]
    for choices in (batches, codes):
        values, gradients = zip(*(choice(x) for choice in choices), strict=True)
        torch.testing.assert_close(torch.stack(values).mean(0), f(x)[0])
        torch.testing.assert_close(torch.stack(gradients).mean(0), f(x)[1])
        assert {choice.n_shots for choice in choices} == {n}
        assert not torch.allclose(gradients[0], f(x)[1])


def test_shots_of_weighted_objectives_keep_their_own() -> None:
    f = objective(weights=normal((3, 6, 1), 8).abs())
    x = models()
    parts = [f.shots([s])(x)[0] / 3 for s in range(3)]
    torch.testing.assert_close(sum(parts), f(x)[0])


def test_low_passed_objectives_count_what_is_left() -> None:
    """At 100 Hz sampling, 10 Hz keep a fifth of the samples, of which the filter passes 0.9."""
    matrices = torch.zeros(1, 400, 60, 2, 2, dtype=torch.float64)
    operator = LinearWaves(matrices)
    f = Objective.gaussian(operator, 0.5 * normal(operator.range.shape, 2), 0.5)
    low = f.below(10.0)
    response = 1 / (1 + (np.arange(0, 50, 0.01) / 10) ** 8)
    assert low.n_data == pytest.approx(0.01 * (response**2).sum() / 50 * f.n_data, rel=1e-3)
    value, _ = low(torch.full((1, 2, 2), 2500.0, dtype=torch.float64))
    # 4300 samples: a standard error of 2 %; the filter reaches beyond both ends of the traces.
    assert float(2 * value / low.n_data) == pytest.approx(1, abs=0.07)


def test_the_hessian_has_the_illumination_and_the_spectrum_of_the_exact_one() -> None:
    """Against ``J^T J / noise^2`` of a long, smooth operator that sees the right half better."""
    n = 16
    rows = normal((40, 8, 16, n, n), 1)
    sight = torch.linspace(1.0, 3.0, n, dtype=torch.float64)
    smooth = torch.exp(
        -8 * sum(a**2 for a in torch.meshgrid(*[torch.fft.fftfreq(n)] * 2, indexing="ij"))
    )
    matrices = sight * torch.fft.ifft2(torch.fft.fft2(rows) * smooth).real
    operator = LinearWaves(matrices)
    f = Objective.gaussian(operator, torch.zeros(operator.range.shape, dtype=torch.float64), 0.5)
    x = torch.full((2, n, n), 2500.0, dtype=torch.float64)
    x[1] += 10
    operator.solves.clear()
    hessian = f.hessian(x, NoiseField(1))
    assert dict(operator.solves) == {"forward": 80, "adjoint": 80}  # one of each a model and shot
    exact = matrices.square().sum((0, 1, 2)) / 0.25
    # 40 draws, smoothed over about 4 pi 3^2 cells: a few per cent; edges are smoothed into.
    inner = (slice(None), slice(3, -3))
    found = hessian.std[0].square()
    np.testing.assert_allclose(found[inner].mean(0), exact[inner].mean(0), rtol=0.12)
    assert float(hessian.power[0].mean()) == pytest.approx(1.0)
    # The same draws for both models, and the operator is linear.
    torch.testing.assert_close(hessian.power[0], hessian.power[1])
    # Low wavenumbers are well determined, high ones are not.
    power = smooth.square() / smooth.square().mean()
    np.testing.assert_allclose(hessian.power[0, 0, :4], power[0, :4], rtol=0.25)
    assert float(hessian.power[0, n // 2, n // 2]) < 0.1
    assert float(hessian.std[0].min()) > 0


def test_shots_of_different_weights_are_not_fired_together() -> None:
    shared = objective(weights=normal((6, 10), 8).abs())
    patterns = np.array(list(itertools.product([-1.0, 1.0], repeat=3)))
    values = [shared.encoded(row[None])(models())[0] for row in patterns]
    torch.testing.assert_close(torch.stack(values).mean(0), shared(models())[0])
    with pytest.raises(InputError, match="cannot be fired together"):
        objective(weights=normal((3, 6, 1), 8)).encoded(patterns[:1])


# ---------------------------------------------------------------- the verb


def short(waves: WavesProblem = WAVES, **settings) -> xr.Dataset:
    given = {"start": waves.start, "seed": 1, "realizations": [4, 2, 7]} | settings
    given = {"method": AnnealedPosterior(4, highest=300.0, lowest=50.0, fit=None)} | given
    return invert(given.pop("y", waves.y), waves.operator, waves.prior, **given)


def test_members_that_start_alike_share_a_fit() -> None:
    method = AnnealedPosterior(2, fit=AnnealedMode(4, fit=None))
    shared = short(method=method)
    starts = WAVES.start + xr.DataArray([0.0, 10.0, 20.0], dims="realization")
    own = short(method=method, start=starts)
    fit, levels = (
        1 + 1 + 4,
        1 + 2,
    )  # gradients of two shots: curvature, start, levels; start, levels
    assert shared.attrs["invdiff_adjoint_solves"] == 2 * (fit + 3 * levels)
    assert own.attrs["invdiff_adjoint_solves"] == 2 * 3 * (fit + levels)


def test_members_begin_around_the_fit_as_far_apart_as_asked() -> None:
    """Before any level: deviations of a prior's draws, of mean zero and of that spread."""
    method = AnnealedPosterior(1, highest=1e-6, lowest=1e-6, fit=None, scatter=50.0)
    result = short(method=method, realizations=400)
    spread = float((result["std"] ** 2).mean()) ** 0.5
    # The level is found with one field of noise, whose rms over 36 cells is known to a tenth or so.
    assert spread == pytest.approx(50.0, rel=0.3)
    pairs = result["velocity"].values.reshape(200, 2, 6, 6).mean(1) - WAVES.start.values
    np.testing.assert_allclose(pairs, 0.0, atol=1.0)  # of opposite noise
    alike = short(method=dataclasses.replace(method, scatter=0.0))
    assert float(alike["std"].max()) < 1e-3


def test_the_scatter_follows_from_the_error_of_the_fit() -> None:
    """Two fits of the same data that differ by more are less certain."""
    levels, noise_std = {"highest": 300.0, "lowest": 50.0}, 1000.0
    for steps in (1, 12):
        fit = AnnealedMode(steps, fit=None, **levels)
        method = AnnealedPosterior(1, highest=1e-6, lowest=1e-6, fit=fit)
        result = short(method=method, realizations=64, noise_std=noise_std)
        moved = short(method=fit, realizations=1, noise_std=noise_std)["mean"] - WAVES.start
        found = float((result["std"] ** 2).mean()) ** 0.5
        assert found == pytest.approx(2 * float((moved**2).mean()) ** 0.5, rel=0.35)


def test_levels_go_on_with_the_curvature_of_their_fit() -> None:
    """The same levels in one run and in two; the second begins as the first ended."""
    levels = {"highest": 300.0, "lowest": 300.0, "damping": 2.0}
    whole = short(method=AnnealedMode(6, fit=None, **levels))
    first = AnnealedMode(4, fit=None, **levels)
    halves = short(method=AnnealedMode(2, fit=first, **levels))
    # Solves end at a tolerance, the sooner or later by rounding.
    np.testing.assert_allclose(halves["velocity"], whole["velocity"], rtol=1e-4)
    restarted = short(start=short(method=first)["mean"], method=AnnealedMode(2, fit=None, **levels))
    assert float(abs(restarted["velocity"] / whole["velocity"] - 1).max()) > 1e-3


@pytest.mark.parametrize("method", [AnnealedMode, AnnealedPosterior])
def test_a_budget_is_spent_and_not_exceeded(method: type[AnnealedMode]) -> None:
    n = 40
    result = short(method=method.within(n, bands=(10.0,)), max_solves=2 * n)
    assert 0.8 * 2 * n < int(result["solves"][-1]) <= 2 * n


def test_the_result_is_labelled() -> None:
    result = short()
    dims = {name: variable.dims for name, variable in result.data_vars.items()}
    assert dims == {
        "velocity": ("realization", "z", "x"),
        "mean": ("z", "x"),
        "std": ("z", "x"),
        "data_misfit": ("realization",),
        "shot_misfit": ("realization", "shot"),
        "misfit_history": ("realization", "iteration"),
        "solves": ("iteration",),
        "weight": ("realization",),
    }
    assert result.realization.values.tolist() == [4, 2, 7]
    assert result.realization.attrs["standard_name"] == "realization"
    for dim, values in WAVES.operator.domain.coords.items():
        np.testing.assert_array_equal(result[dim], values)
    for name in ("velocity", "mean", "std"):
        assert result[name].attrs["units"] == "m s-1"
        assert result[name].attrs["long_name"]
    assert result.sizes["iteration"] == 5
    attrs = result.attrs
    assert attrs["Conventions"].startswith("CF-")
    assert attrs["invdiff_seed"] == 1
    assert attrs["invdiff_noise_std"] == 100.0
    assert attrs["invdiff_iterations"] == 4
    assert attrs["invdiff_adjoint_solves"] == 3 * (2 * 2 + 4 * 2)  # curvature, start, levels
    assert attrs["invdiff_forward_solves"] == attrs["invdiff_adjoint_solves"] + (1 + 3) * 2
    assert attrs["invdiff_method"].startswith("AnnealedPosterior(steps=4")
    assert attrs["invdiff_prior"] == repr(WAVES.prior)


def test_statistics_are_those_of_the_members() -> None:
    result = short(is_weighted=False)
    velocity = result["velocity"]
    np.testing.assert_allclose(result["mean"], velocity.mean("realization"), rtol=1e-12)
    np.testing.assert_allclose(result["std"], velocity.std("realization", ddof=1), rtol=1e-12)
    np.testing.assert_allclose(result["weight"], 1 / 3)
    residual = np.einsum("srtzx,bzx->bsrt", WAVES.operator.matrices, velocity) - WAVES.y.values
    np.testing.assert_allclose(result["shot_misfit"], (residual**2).mean((2, 3)) / 100.0**2)
    np.testing.assert_allclose(result["data_misfit"], result["shot_misfit"].mean("shot"))


def test_one_member_has_no_spread() -> None:
    result = short(realizations=1)
    assert bool(result["std"].isnull().all())
    np.testing.assert_allclose(result["mean"], result["velocity"][0])


def test_the_truth_has_a_misfit_of_one() -> None:
    """Seen by a run that cannot move: 1 to the spread of a chi-square of 120 data, 0.13."""
    truth = WAVES.operator.domain.to_dataarray(WAVES.truth, "velocity")
    method = AnnealedPosterior(1, highest=1e-6, lowest=1e-6, fit=None, scatter=0.0)
    result = short(start=truth, method=method)
    np.testing.assert_allclose(result["velocity"], truth.expand_dims(realization=3), rtol=1e-6)
    np.testing.assert_allclose(result["data_misfit"], 1, atol=3 * 0.13)


def test_without_a_prior_the_method_is_lbfgs() -> None:
    result = invert(
        WAVES.y, WAVES.operator, start=WAVES.start, seed=0, realizations=1, max_solves=20
    )
    assert result.attrs["invdiff_method"] == repr(LBFGS(steps=10))  # 20 solves of 2 shots
    assert result.attrs["invdiff_prior"] == "none"
    assert result.solves[-1] <= 20
    same = short(
        method=LBFGS(10), seed=0, realizations=1, max_solves=20
    )  # has a prior, asks it not
    xr.testing.assert_identical(same, result)


def test_the_default_noise_level_is_that_of_the_traces() -> None:
    bare = short(y=WAVES.y.drop_attrs(), noise_std=100.0)
    xr.testing.assert_identical(bare, short())
    # Models that do not explain the data yet are the same: `T` takes the residual for the noise.
    ratio = short(noise_std=50.0).data_misfit / bare.data_misfit
    np.testing.assert_allclose(ratio, 4.0, rtol=1e-3)


def test_axes_are_found_by_name() -> None:
    turned = short(y=WAVES.y.transpose("time", "shot", "receiver"), start=WAVES.start.T)
    xr.testing.assert_identical(turned, short())


def test_weights_broadcast_by_name_and_leave_out() -> None:
    keep = xr.DataArray([1, 1, 0, 1, 1, 1], dims="receiver")
    full = keep.expand_dims(time=10, shot=2).astype(np.float32)
    garbage = WAVES.y.where(keep == 1, 1e9)
    for other in (
        short(weights=full),
        short(weights=keep == 1),
        short(weights=keep, y=garbage.assign_attrs(WAVES.y.attrs)),
    ):
        xr.testing.assert_allclose(other, short(weights=keep), rtol=1e-9)
    assert not np.allclose(short(weights=keep).velocity, short().velocity)


def test_a_muted_shot_has_no_misfit_and_counts_no_data() -> None:
    result = short(weights=xr.DataArray([1.0, 0.0], dims="shot"))
    assert bool(result.shot_misfit[:, 1].isnull().all())
    np.testing.assert_allclose(result.data_misfit, result.shot_misfit[:, 0])


def test_another_misfit_is_minimised_and_l2_is_told() -> None:
    result = short(misfit=NormalisedCorrelation(), method=LBFGS(10), realizations=1)
    assert result.attrs["invdiff_misfit"] == repr(NormalisedCorrelation())
    assert result.misfit_history[0, -1] < 0.5 * result.misfit_history[0, 0]
    residual = np.einsum("srtzx,zx->srt", WAVES.operator.matrices, result.velocity[0]) - WAVES.y
    np.testing.assert_allclose(result.data_misfit[0], float((residual**2).mean()) / 100.0**2)


def test_members_may_start_apart_and_be_weighted() -> None:
    """Starts of a bad one among four: it loses its weight, and half of the members count."""
    starts = xr.concat([WAVES.start + d for d in (0.0, 1.0, 2.0, 900.0)], dim="realization")
    settings = {"method": LBFGS(2), "start": starts, "realizations": 4}
    result = short(is_weighted=True, **settings)
    weight = result["weight"].values
    assert weight.sum() == pytest.approx(1)
    assert 1 / np.square(weight).sum() >= 2 - 1e-6
    assert result["data_misfit"].values.argmax() == weight.argmin() == 3
    assert weight[3] < 1e-3
    velocity = result["velocity"].values
    np.testing.assert_allclose(result["mean"], np.average(velocity, axis=0, weights=weight))
    variance = np.average((velocity - result["mean"].values) ** 2, axis=0, weights=weight)
    effective = 1 / np.square(weight).sum()
    np.testing.assert_allclose(
        result["std"], (variance * effective / (effective - 1)) ** 0.5, rtol=1e-9
    )
    plain = short(is_weighted=False, **settings)
    np.testing.assert_array_equal(plain["velocity"], velocity)
    assert float(plain["std"].mean()) > float(result["std"].mean())


def test_members_that_fit_much_worse_are_named_and_count_less() -> None:
    starts = xr.concat([WAVES.start + d for d in (0.0, 1.0, 2.0, 900.0)], dim="realization")
    settings = {"method": LBFGS(2), "start": starts, "realizations": [5, 6, 7, 9]}
    with pytest.warns(DataFitWarning, match="Members 9 explain the data much worse") as caught:
        result = short(**settings)
    assert any(warning.filename == __file__ for warning in caught)
    assert result.attrs["invdiff_strays"] == "[9]"
    assert float(result["weight"][-1]) < 1e-3
    np.testing.assert_array_equal(result["weight"], short(is_weighted=True, **settings)["weight"])


@pytest.mark.parametrize("spread", [0.1, 10.0, 1e4, 1e9])
def test_misfit_weights_keep_half_of_the_members(spread: float) -> None:
    chi2 = 1e4 + spread * normal((10,), 3).abs()
    weight = misfit_weights(chi2)
    effective = 1 / np.square(weight).sum()
    assert weight.sum() == pytest.approx(1)
    assert np.array_equal(np.argsort(-weight), np.argsort(chi2.numpy()))
    if spread == 0.1:  # nothing to temper
        likelihood = np.exp(-(chi2 - chi2.min()).numpy() / 2)
        np.testing.assert_allclose(weight, likelihood / likelihood.sum())
        assert effective > 5
    else:
        assert effective == pytest.approx(5, rel=1e-6)


# ---------------------------------------------------------------- real waves


@cache
def seismic(dtype: torch.dtype = torch.float64):
    """Operator, traces with 2 % noise, truth and start: a slow lens below a gradient."""
    pytest.importorskip("devito")
    from invdiff.operators.seismic import ricker

    shape = (40, 50)
    survey = line(3, n_samples=300, width=490.0)
    survey = dataclasses.replace(survey, wavelet=ricker(12.0, survey.dt, 300))
    operator = acoustic(survey, domain(shape, dtype), space_order=4)
    z, x = torch.meshgrid(*(10.0 * torch.arange(n) for n in shape), indexing="ij")
    start = 2000 + 1.5 * z
    lens = torch.exp(-((z - 150) ** 2 + (x - 250) ** 2) / (2 * 50.0**2))
    truth = (start - 250 * lens).to(dtype)
    clean = operator(truth[None])[0]
    std = 0.002 * float(clean.std())  # direct waves are most of it
    y = clean + std * normal(clean.shape, 1, dtype)
    grid: Grid = operator.domain
    return (
        operator,
        operator.range.to_dataarray(y, "pressure", attrs={"noise_std": std}),
        grid.to_dataarray(truth, "velocity"),
        grid.to_dataarray(start.to(dtype), "velocity"),
    )


def model_error(result: xr.Dataset, truth: xr.DataArray, start: xr.DataArray) -> float:
    """Relative to that of the start."""
    return float(((result["mean"] - truth) ** 2).sum() / ((start - truth) ** 2).sum()) ** 0.5


@pytest.mark.seismic
@pytest.mark.parametrize(
    ("method", "share"),
    [
        (LBFGS(20), 0.1),
        (LBFGS(20, terms=(Penalty(total_variation, 0.1),)), 0.1),
        (LBFGS(15, bands=(8.0,)), 0.1),
        (LBFGS(15, shots=Encoded(2, keep=5)), 0.4),
        (LBFGS(15, shots=Minibatch(2, keep=5)), 0.4),
    ],
    ids=["plain", "total variation", "bands", "encoded", "minibatch"],
)
def test_a_lens_is_found_by_lbfgs(method: LBFGS, share: float) -> None:
    operator, y, truth, start = seismic()
    settings = {"seed": 0, "realizations": 1, "method": method}
    result = invert(y, operator, start=start, **settings)
    residual = operator(torch.from_numpy(start.values)[None])[0].numpy() - y.values
    before = float((residual**2).mean()) / y.noise_std**2
    assert float(result["data_misfit"][0]) < share * before
    assert model_error(result, truth, start) < 0.95
    low, high = operator.bounds
    assert low <= result["velocity"].min() < result["velocity"].max() <= high


@pytest.mark.seismic
def test_total_variation_makes_flatter_models() -> None:
    operator, y, _, start = seismic()
    settings = {"start": start, "seed": 0, "realizations": 1, "max_solves": 36}
    rough, flat = (
        invert(y, operator, method=LBFGS(8, terms=(Penalty(total_variation, s),)), **settings)
        for s in (0.0, 5.0)
    )
    first, plain, penalised = (
        float(total_variation(torch.from_numpy(v.values)[None]))
        for v in (start, rough["mean"], flat["mean"])
    )
    assert first < penalised < first + 0.6 * (plain - first)


@pytest.mark.seismic
def test_a_muted_shot_says_nothing() -> None:
    operator, y, _, start = seismic()
    keep = xr.DataArray([1.0, 0.0, 1.0], dims="shot")
    settings = {"start": start, "seed": 0, "realizations": 1, "max_solves": 12, "weights": keep}
    garbage = y.copy(deep=True)
    garbage[1] = normal(tuple(y.shape[1:]), 9).numpy() * 1e3
    one = invert(y, operator, method=LBFGS(3), **settings)
    other = invert(garbage, operator, method=LBFGS(3), **settings)
    np.testing.assert_array_equal(one["velocity"], other["velocity"])
    assert not one["velocity"][0].equals(start)


@pytest.mark.seismic
def test_the_shipped_prior_draws_models_that_explain_real_waves() -> None:
    operator, y, truth, start = seismic(torch.float32)
    prior = hub.load_prior("velocity-2d").on(operator.domain)
    fit = AnnealedMode(8, fit=LBFGS(8, bands=(8.0,)))
    method = AnnealedPosterior(8, highest=60.0, fit=fit, scatter=15.0)
    result = invert(y, operator, prior, start=start, seed=0, realizations=2, method=method)
    assert result["velocity"].dtype == np.float32
    assert result.attrs["invdiff_prior"].startswith("velocity-2d@sha256:")
    assert result.misfit_history.sizes["iteration"] == 9
    residual = operator(torch.from_numpy(start.values)[None])[0].numpy() - y.values
    before = float((residual**2).mean()) / y.noise_std**2
    assert bool((result["data_misfit"] < 0.3 * before).all())
    assert model_error(result, truth, start) < 1.0
    assert bool((result["std"] > 0).all())
    low, high = operator.bounds
    assert low <= result["velocity"].min() < result["velocity"].max() <= high
