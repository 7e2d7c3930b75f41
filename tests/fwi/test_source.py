"""Sources fitted inside of a misfit: the filter of least squares, its weights, and the verb."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import toeplitz
from torch import Tensor

import invdiff
from invdiff.errors import InputError
from invdiff.fwi import LBFGS
from invdiff.fwi.misfit import L2, Filtered, Masked, SourceFitted
from invdiff.fwi.misfit.source import with_fitted_source
from invdiff.fwi.objective import Objective
from invdiff.operators.seismic import acoustic_problem, ricker
from tests.cli.test_cli_invert import SETTINGS, line, section, section_start

DT = 0.004


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def test_the_filter_is_that_of_scipy() -> None:
    """Against matrices of delayed traces, written down one by one."""
    predicted, observed, n, ridge = draws(2, 3, 40), draws(2, 3, 40, seed=1), 3, 1e-2
    weights = draws(2, 3, 40, seed=2).abs()
    misfit = SourceFitted(Masked(L2(), weights), n * DT, DT, ridge=ridge)
    fitted = misfit.fitted(predicted, observed)
    for shot in range(2):
        rows, right, columns = [], [], []
        for p, d, w in zip(predicted[shot], observed[shot], weights[shot], strict=True):
            whole = toeplitz(np.r_[p, np.zeros(2 * n)], np.zeros(2 * n + 1))[n : n + 40]
            columns.append(whole)
            rows.append(w.numpy()[:, None] * whole)
            right.append((w * d).numpy())
        energy = float((weights[shot] * predicted[shot]).square().sum())
        unit = np.eye(2 * n + 1)
        stiff = np.sqrt(ridge * energy)
        system = np.concatenate([*rows, stiff * unit])
        taps = np.linalg.lstsq(system, np.r_[*right, stiff * unit[n]], rcond=None)[0]
        for r, whole in enumerate(columns):
            np.testing.assert_allclose(fitted[shot, r], whole @ taps, rtol=1e-9, atol=1e-12)


def test_amplitude_and_delay_of_a_shot_do_not_count_but_what_differs_by_trace_does() -> None:
    wave = torch.from_numpy(ricker(15.0, DT, 100, delay=0.2))
    predicted = torch.stack([wave, wave.roll(5), wave.roll(9)])
    misfit = SourceFitted(L2(), 4 * DT, DT, ridge=1e-6)
    alike = 3 * predicted.roll(2, -1)
    moveout = torch.stack([wave, wave.roll(7), wave.roll(13)])
    assert misfit(predicted, alike) < 1e-4 * L2()(predicted, alike)
    assert misfit(predicted, 1000 * alike) < 1e-4 * L2()(predicted, 1000 * alike)
    assert misfit(predicted, moveout) > 0.1 * L2()(predicted, moveout)


def test_it_is_found_inside_of_other_wrappers() -> None:
    predicted, observed = draws(2, 3, 40), draws(2, 3, 40, seed=1)
    source = SourceFitted(L2(), 2 * DT, DT)
    wrapped = Masked(Filtered(source, 20.0, DT), torch.ones(3, 1))
    assert torch.equal(
        with_fitted_source(wrapped, predicted, observed), source.fitted(predicted, observed)
    )
    assert with_fitted_source(L2(), predicted, observed) is predicted
    assert with_fitted_source(None, predicted, observed) is predicted


@pytest.mark.parametrize("bad", [{"lag": -1.0}, {"dt": 0.0}, {"ridge": 0.0}, {"lag": 1e-3}])
def test_settings_out_of_range(bad: dict[str, float]) -> None:
    with pytest.raises(InputError):
        SourceFitted(L2(), **({"lag": 0.02, "dt": DT} | bad))


@pytest.mark.seismic
def test_the_gradient_by_the_model_is_that_of_its_differences() -> None:
    pytest.importorskip("devito")
    problem = acoustic_problem(line(), section_start(), **SETTINGS)
    misfit = SourceFitted(L2(problem.noise_std), 0.02, 2e-3)
    objective = Objective.gaussian(
        problem.operator, problem.data, problem.noise_std, misfit=misfit, weights=problem.weights
    )
    x, change = problem.start[None], torch.zeros_like(problem.start)[None]
    change[0, 12:22, 18:32] = 5.0
    _, gradient = objective(x)
    steps = [float(objective(x + s * change)[0] - objective(x - s * change)[0]) / 2 for s in (1,)]
    assert steps[0] == pytest.approx(float((gradient * change).sum()), rel=1e-2)


@pytest.mark.seismic
def test_a_wrong_wavelet_is_made_up_for(tmp_path: Path) -> None:
    """20 ms late and half as loud: without the fit the data are not explained."""
    pytest.importorskip("devito")
    known = line().drop_vars("wavelet")
    late = 0.5 * ricker(15.0, 2e-3, 200, delay=0.12)
    problem = acoustic_problem(known, section_start(), wavelet=late, **SETTINGS)
    fit = SourceFitted(L2(problem.noise_std), 0.04, 2e-3)
    run = {"seed": 0, "realizations": 1, "method": LBFGS(steps=8)}
    fitted = invdiff.invert(problem, misfit=fit, **run)
    true = invdiff.invert(acoustic_problem(line(), section_start(), **SETTINGS), **run)
    assert float(fitted["data_misfit"][0]) == pytest.approx(float(true["data_misfit"][0]), abs=0.2)
    errors = [float(abs(result["mean"] - section()).mean()) for result in (fitted, true)]
    assert errors[0] < 1.3 * errors[1]
    assert "SourceFitted" in fitted.attrs["invdiff_misfit"]
    assert fitted.attrs["invdiff_amplitude_factor"] == pytest.approx(1, abs=0.1)
