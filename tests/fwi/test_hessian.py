"""The stationary Gauss-Newton Hessian of waves against the dense one of a small model."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from invdiff.fwi import Objective
from invdiff.noise import NoiseField
from invdiff.operators.seismic import Born
from tests.support.closed_form import normal
from tests.support.seismic_cases import acoustic, domain, line

pytest.importorskip("devito")
pytestmark = pytest.mark.seismic

SHAPE = (20, 26)
N = SHAPE[0] * SHAPE[1]
NOISE_STD = 0.1


def smooth(fields: Tensor, cells: float) -> Tensor:
    return torch.from_numpy(gaussian_filter(fields.numpy(), (0, cells, cells), mode="nearest"))


def forms(hessian: Tensor, directions: Tensor) -> Tensor:
    """``d^T H d`` of each direction."""
    flat = directions.flatten(1)
    return torch.einsum("bi,ij,bj->b", flat, hessian, flat)


def test_the_default_curvature_is_that_of_the_dense_hessian() -> None:
    """Within a factor of two for changes of a cell and of several; aliased noise gave sixty."""
    operator = acoustic(line(3, n_samples=350, width=250.0), domain(SHAPE), snapshot=None)
    assert operator.propagator.sampling.every > 3
    depth = torch.linspace(2000, 2800, SHAPE[0], dtype=torch.float64)[:, None].expand(SHAPE)
    x = (depth + 100 * smooth(normal((1, *SHAPE), 1), 2.0))[0][None]
    born = Born(operator, x[0])
    basis = torch.eye(N, dtype=torch.float64).reshape(N, *SHAPE)
    jacobian = torch.cat([born(part).flatten(1) for part in basis.split(40)])
    exact = jacobian @ jacobian.mT / NOISE_STD**2
    objective = Objective.gaussian(operator, operator(x)[0], NOISE_STD)
    white = normal((40, *SHAPE), 2)
    for directions in (white, smooth(white, 1.0), smooth(white, 2.0)):
        ratios = []
        for seed in range(4):
            hessian = objective.hessian(x, NoiseField(seed))
            found = torch.stack([(d * hessian(d[None])[0]).sum() for d in directions])
            ratios.append(float((found / forms(exact, directions)).median()))
        assert 0.5 < float(np.exp(np.mean(np.log(ratios)))) < 2.0, ratios
