"""DiffPIR: its proximal step."""

import pytest
import torch

from invdiff.conditioning import Laplace
from tests.support.sampling import DATUM, MEAN, NOISE, STD, lognormal_target


def test_the_proximal_step_of_diffpir_is_the_mode() -> None:
    target, _ = lognormal_target(1)
    mode = target.gaussian(Laplace(iterations=30, rtol=1e-8)).posterior_mean()
    x = torch.linspace(-2, 2, 400001, dtype=torch.float64)
    log = -(((x - MEAN) / STD) ** 2) / 2 - ((DATUM - x.exp()) / NOISE) ** 2 / 2
    assert float(mode) == pytest.approx(float(x[log.argmax()]), abs=1e-4)
