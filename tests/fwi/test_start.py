"""The first prediction: amplitudes of data and wavelet, polarity, cycle skipping."""

import warnings
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from invdiff.errors import DataWarning
from invdiff.fwi import LBFGS, Adam
from invdiff.fwi.drive import descend
from invdiff.fwi.method import Method, Setting
from invdiff.fwi.objective import Objective
from invdiff.fwi.start import amplitude_factor, check_start
from invdiff.noise import NoiseField
from invdiff.operators.seismic import Acoustic
from tests.support.seismic_cases import acoustic, domain, model

pytest.importorskip("devito")
pytestmark = pytest.mark.seismic

NOISE = 1e-3


@cache
def waves() -> tuple[Acoustic, Tensor, Tensor]:
    """An operator, a rough model, and its data with noise."""
    operator = acoustic(None, domain(dtype=torch.float32), snapshot=None)
    x = model(dtype=torch.float32)[0]
    clean = operator(x[None])[0]
    e = np.random.default_rng(0).standard_normal(tuple(clean.shape), dtype=np.float32)
    return operator, x, clean + NOISE * torch.from_numpy(e)


def smooth(x: Tensor) -> Tensor:
    return torch.full_like(x, float(x.mean()))


@pytest.mark.parametrize("factor", [3.0, 1000.0, 1e-3, 1 / 3])
def test_a_factor_between_the_amplitudes_is_told(factor: float) -> None:
    operator, x, y = waves()
    with pytest.warns(DataWarning, match="times as large as the first prediction") as told:
        found = check_start(operator, smooth(x), factor * y, noise_std=factor * NOISE)
    # The model is not the truth: its waves are a few percent off.
    assert found["amplitude_factor"] == pytest.approx(factor, rel=0.1)
    (message,) = (str(w.message) for w in told)
    assert f"multiply the wavelet by {found['amplitude_factor']:.3g}" in message
    assert f"by {1 / found['amplitude_factor']:.3g}." in message


@pytest.mark.parametrize("factor", [1.0, 1.8, 0.6])
def test_smaller_factors_are_left_to_the_model(factor: float) -> None:
    operator, x, y = waves()
    found = check_start(operator, smooth(x), factor * y, noise_std=NOISE)
    assert found["amplitude_factor"] == pytest.approx(factor, rel=0.1)
    assert found["cycle_skipped"] == 0


def test_the_wrong_polarity_is_told_and_is_no_lag() -> None:
    operator, x, y = waves()
    with pytest.warns(DataWarning, match="opposite sign") as told:
        found = check_start(operator, smooth(x), -y, noise_std=NOISE)
    assert found["amplitude_factor"] == pytest.approx(-1, rel=0.1)
    assert found["cycle_skipped"] == 0
    assert len(told) == 1


def test_noise_and_weights_do_not_bias_the_factor() -> None:
    operator, x, y = waves()
    weights = torch.ones(2, 8, 1)
    weights[0, 3] = 0
    spoiled = y.clone()
    spoiled[0, 3] = 1e3
    found = check_start(operator, smooth(x), spoiled, noise_std=NOISE, weights=weights)
    assert found["amplitude_factor"] == pytest.approx(1, rel=0.1)
    std = 3 * float(y.std())
    noisy = y + std * torch.from_numpy(np.random.default_rng(1).standard_normal(y.shape)).float()
    found = check_start(operator, smooth(x), noisy, noise_std=std)
    assert found["amplitude_factor"] == pytest.approx(1, rel=0.5)
    assert "cycle_skipped" not in found  # no trace stands out of the noise


def test_a_cycle_skipped_start_is_told() -> None:
    operator, x, y = waves()
    far = smooth(x) - 700
    with pytest.warns(DataWarning, match="cycle-skipped.*half a period"):
        found = check_start(operator, far, y, noise_std=NOISE, frequency=15.0)
    assert found["cycle_skipped"] > 0.1
    with warnings.catch_warnings(action="error"):
        low = check_start(operator, far, y, noise_std=NOISE, frequency=3.0)
    assert low["cycle_skipped"] == 0


def test_the_factor_by_hand() -> None:
    wave = torch.sin(torch.linspace(0, 60, 400))
    quiet, loud = torch.zeros(400), torch.full((400,), 10.0)
    assert amplitude_factor(wave, 5 * wave, quiet) == pytest.approx(5)
    assert amplitude_factor(2 * wave, -wave, quiet) == pytest.approx(-0.5)
    # Out of phase by a quarter period their product says nothing, their energies do.
    other = torch.cos(torch.linspace(0, 60, 400))
    ratio = float(other.norm() / wave.norm())
    assert amplitude_factor(wave, 5 * other, quiet) == pytest.approx(5 * ratio, rel=1e-6)
    # What noise alone can make is not held against the prediction.
    assert amplitude_factor(wave, 5 * other, loud) == pytest.approx(1)
    assert amplitude_factor(0 * wave, wave, quiet) is None
    assert amplitude_factor(wave, 0 * wave, quiet) is None


@pytest.mark.parametrize("method", [LBFGS(3), Adam(3)], ids=["LBFGS", "Adam"])
def test_the_truth_of_noise_free_data_is_returned(method: Method) -> None:
    operator, x, _ = waves()
    y = operator(x[None])[0]
    objective = Objective.gaussian(operator, y, NOISE)
    given = Setting(objective, None, x[None], NoiseField(0), [0])
    *_, last = descend(method, given, max_solves=100)
    assert torch.equal(last.x[0], x)
