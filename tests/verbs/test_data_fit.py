"""A data misfit far from one is told in words by each verb, and never by chance."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

from invdiff import invert, reconstruct
from invdiff.data_fit import fit_verdict, warn_of_misfit
from invdiff.errors import DataFitWarning, DataWarning
from invdiff.fwi import LBFGS, AnnealedPosterior
from invdiff.operators.mri import CartesianMRI
from tests.support import tiny
from tests.support.linear_waves import waves_problem

SCAN = tiny.scan((16, 16), noise=0.05)
MASK, MAPS = (torch.from_numpy(SCAN[name]) for name in ("mask", "sensitivity"))
TOO_LARGE, TOO_SMALL = "noise level is too large", "Check the noise level"


def image(noise_std: float, mask: torch.Tensor = MASK) -> xr.Dataset:
    operator = CartesianMRI(mask, MAPS, domain=tiny.grid((16, 16)))
    y = operator.range.to_dataarray(torch.from_numpy(SCAN["kspace"]), "kspace")
    return reconstruct(
        y, operator, tiny.prior((16, 16)), realizations=4, seed=0, noise_std=noise_std
    )


def section(factor: float) -> xr.Dataset:
    waves = waves_problem(n_shots=3)
    return invert(
        waves.y, waves.operator, waves.prior, start=waves.start, seed=0, realizations=2,
        noise_std=100.0 * factor, method=AnnealedPosterior(20),
    )  # fmt: skip


def test_a_right_run_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = image(0.05), section(1.0)
    for result in results:
        assert 0.8 < float(result["data_misfit"].mean()) < 1.25
        assert result.attrs["invdiff_data_fit"].startswith("The members explain the data")


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_a_wrong_noise_level_is_told(factor: float) -> None:
    for run in (lambda: image(0.05 * factor), lambda: section(factor)):
        with pytest.warns(DataFitWarning) as caught:
            result = run()
        (words,) = {str(w.message) for w in caught if w.category is DataFitWarning}
        assert (TOO_LARGE if factor > 1 else TOO_SMALL) in words
        assert result.attrs["invdiff_data_fit"] == words
        misfit = float(result["data_misfit"].mean())
        assert f"misfit is {misfit:.3g}, where 1 is expected" in words
        assert misfit < 0.8 if factor > 1 else misfit > 1.25


def test_a_wrong_mask_is_told() -> None:
    shifted = MASK.roll(1, -1)
    kspace = torch.from_numpy(SCAN["kspace"])
    n = int((kspace[:, ~shifted] != 0).sum())
    with pytest.warns(DataWarning, match=rf"^{n} of {int((kspace != 0).sum())} values.*its mask"):
        assert image(0.05, shifted).attrs["invdiff_unmeasured_values"] == n
    with pytest.warns(DataFitWarning, match="not measured is left out"):  # zeros taken for data
        everything = image(0.3, torch.ones_like(MASK))
    assert float(everything["data_misfit"].mean()) < 0.8


def test_values_that_were_not_measured_do_not_count() -> None:
    """A fully sampled scan may be handed over with the mask of another."""
    operator = CartesianMRI(MASK, MAPS, domain=tiny.grid((16, 16)))
    kspace = torch.from_numpy(SCAN["kspace"])
    given = {"realizations": 2, "seed": 0, "noise_std": 0.05}
    full = operator.range.to_dataarray(torch.where(MASK, kspace, 5.0 + 0j), "kspace")
    zeroed = operator.range.to_dataarray(torch.where(MASK, kspace, 0.0 + 0j), "kspace")
    prior = tiny.prior((16, 16))
    with pytest.warns(DataWarning, match="where the operator does not measure"):
        results = [reconstruct(y, operator, prior, **given) for y in (full, zeroed)]
    assert "invdiff_unmeasured_values" not in results[1].attrs
    np.testing.assert_allclose(results[0]["image"], results[1]["image"], atol=1e-5)
    np.testing.assert_allclose(results[0]["data_misfit"], results[1]["data_misfit"], rtol=1e-4)


@pytest.mark.parametrize("n_data", [1, 2, 5, 20, 100, 1000, 100_000])
def test_chance_does_not_warn(n_data: int) -> None:
    """Of a right run of one member: the misfit is a chi-square over its degrees of freedom."""
    quantiles = stats.chi2(n_data).ppf([1e-4, 0.5, 1 - 1e-4]) / n_data
    for misfit in quantiles:
        verdict = fit_verdict(torch.tensor([misfit]), n_data)
        assert verdict.startswith("The members explain"), (misfit, verdict)
    # And what chance does not make is told, if the data are enough to say so.
    extremes = stats.chi2(n_data).ppf([1e-6, 1 - 1e-6]) / n_data
    for misfit in extremes[np.abs(np.log(extremes)) > np.log(1.25)]:
        with pytest.warns(DataFitWarning):
            warn_of_misfit(torch.tensor([misfit]), n_data)


def test_weights_do_not_change_how_many_samples_there_are() -> None:
    """The same weight for all is none, however large."""
    waves = waves_problem(n_shots=2)
    y = waves.y[:, :1, :2]
    operator = type(waves.operator)(waves.operator.matrices[:, :1, :2])
    given = {"start": waves.start, "seed": 0, "realizations": 1}
    verdicts = []
    for weight in (1.0, 100.0):
        weights = xr.DataArray([weight], dims="receiver")
        # A start that is off by three standard deviations, and no step to correct it.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataFitWarning)
            result = invert(
                y, operator, weights=weights, noise_std=100.0, stop_at=1e9, max_solves=10**6,
                **given,
            )  # fmt: skip
        verdicts.append(result.attrs["invdiff_data_fit"])
    assert verdicts[0] == verdicts[1]


def test_the_warning_points_at_the_call_of_the_user() -> None:
    waves = waves_problem()
    settings = {"start": waves.start, "seed": 0, "realizations": 1, "method": LBFGS(1)}
    with pytest.warns(DataFitWarning) as caught:
        invert(waves.y.assign_attrs(noise_std=1e-3), waves.operator, **settings)
    assert [Path(w.filename).name for w in caught] == [Path(__file__).name]
