"""From the arrays of a scan to a whitened problem of known noise, and what cannot be one."""

import numpy as np
import pytest
import torch
from torch import Tensor

from invdiff.errors import (
    DTypeError,
    InputError,
    InvdiffError,
    NoiseLevelError,
    NonFiniteError,
    ShapeError,
)
from invdiff.operators.mri import CartesianMRI, cartesian_problem, prewhiten
from invdiff.protocols import Problem
from tests.support import tiny


def arrays(**kwargs: object) -> dict[str, Tensor]:
    found = tiny.scan(**kwargs)
    return {name: torch.from_numpy(values.copy()) for name, values in found.items()}


def without(given: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: values for name, values in given.items() if name not in names}


def chi2(problem: Problem, image: Tensor) -> float:
    """Mean square of the whitened residual at the true image: 1 if all is as it should be."""
    r = problem.data - problem.operator(image[None].to(problem.operator.domain.dtype))[0]
    return float(r.abs().square().sum() / problem.noise_std**2 / problem.operator.n_data)


def assert_one(value: float, n: int) -> None:
    assert abs(value - 1) < 5 / n**0.5, value


@pytest.mark.parametrize("noise_std", [0.05, [0.05, 0.1, 0.2, 0.4]])
def test_given_maps_and_noise(noise_std: float | list[float]) -> None:
    given = arrays(noise=0.0)
    levels = np.broadcast_to(noise_std, 4)[:, None, None].copy()
    noise = tiny.standard_normal((4, *tiny.SHAPE), 3, torch.complex64) * given["mask"]
    given["kspace"] = given["kspace"] + torch.from_numpy(levels).float() * noise
    problem = cartesian_problem(given, noise_std=noise_std)
    assert isinstance(problem.operator, CartesianMRI)
    assert problem.operator.domain == tiny.grid()
    assert problem.noise_std == 1.0  # whitened
    covariance = torch.diag(torch.from_numpy(levels).flatten().square()).to(torch.complex64)
    torch.testing.assert_close(problem.data, prewhiten(given["kspace"], covariance))
    assert_one(chi2(problem, given["image"]), problem.operator.n_data)
    # The disc is 1 bright and maps keep units; noise as strong as 0.4 raises the estimate.
    assert problem.scale == pytest.approx(1, rel=0.15 if noise_std == 0.05 else 0.3)


def test_noise_is_estimated() -> None:
    shape = (96, 96)
    given = arrays(shape=shape, noise=0.0)
    factor = torch.linalg.cholesky(
        0.05**2 * (torch.eye(4) + 0.4 * torch.ones(4, 4)).to(torch.complex64)
    )
    noise = torch.einsum(
        "ij,j...->i...", factor, tiny.standard_normal((4, *shape), 3, torch.complex64)
    )
    given["kspace"] = given["kspace"] + noise * given["mask"]
    problem = cartesian_problem(without(given, "image"))
    # The estimate is from few samples and biased upwards by what signal is left there.
    assert 0.5 < chi2(problem, given["image"]) < 1.2
    # Correlation between coils is gone.
    r = problem.data - problem.operator(given["image"][None].to(torch.complex64))[0]
    flat = r[:, given["mask"]]
    covariance = flat @ flat.mH / flat.shape[1]
    correlation = covariance / covariance.diagonal().real.mean()
    assert (correlation - torch.eye(4)).abs().max() < 0.25
    assert (correlation - torch.diag(correlation.diagonal())).abs().max() < 0.15


def test_maps_are_estimated() -> None:
    shape, noise = (64, 64), 0.1
    given = arrays(shape=shape, noise=noise)
    problem = cartesian_problem(without(given, "sensitivity", "image"), noise_std=noise)
    operator = problem.operator
    assert isinstance(operator, CartesianMRI)
    assert operator.sensitivity is not None
    # Units of the noise: the combined coils of the disc, over the noise.
    coils = given["image"] * given["sensitivity"]
    brightness = float(coils.abs().square().sum(0).sqrt().max()) / noise
    assert problem.scale == pytest.approx(brightness, rel=0.25)
    # The least-squares image explains the data.
    image = operator.solve(operator.adjoint(problem.data[None]), 1e-3, 1.0, max_iterations=200)
    r = problem.data - operator(image)[0]
    assert float(r.abs().square().sum()) / operator.n_data < 1.5


def test_a_single_coil_has_no_coil_dim() -> None:
    given = arrays(n_coils=1, noise=0.3)
    problem = cartesian_problem(without(given, "sensitivity"), noise_std=0.3)
    assert problem.operator.range.dims == ("ky", "kx")
    assert problem.data.shape == tiny.SHAPE
    assert problem.noise_std == pytest.approx(0.3)
    torch.testing.assert_close(problem.data, given["kspace"][0])
    seen = given["image"] * given["sensitivity"][0]  # its sensitivity is part of the image
    assert_one(chi2(problem, seen), problem.operator.n_data)
    estimated = cartesian_problem(without(given, "sensitivity"))
    assert estimated.noise_std == pytest.approx(0.3, rel=0.3)


def test_the_scale_follows_the_units() -> None:
    given = arrays()
    a = cartesian_problem(given, noise_std=0.02)
    b = cartesian_problem({**given, "kspace": 1000 * given["kspace"]}, noise_std=20.0)
    torch.testing.assert_close(a.data, b.data, rtol=1e-4, atol=1e-4)
    assert b.scale == pytest.approx(1000 * a.scale, rel=1e-3)


BAD: dict[str, tuple[dict[str, object], type[InvdiffError]]] = {
    "no kspace": ({"kspace": None}, InputError),
    "no mask": ({"mask": None}, InputError),
    "real": ({"kspace": torch.ones(4, *tiny.SHAPE)}, DTypeError),
    "fewer maps": ({"sensitivity": torch.ones(3, *tiny.SHAPE) + 0j}, ShapeError),
    "smaller maps": ({"sensitivity": torch.ones(4, 8, 8) + 0j}, ShapeError),
    "real maps": ({"sensitivity": torch.ones(4, *tiny.SHAPE)}, DTypeError),
    "smaller mask": ({"mask": torch.ones(8, 8, dtype=torch.bool)}, ShapeError),
    "no coil dim": ({"kspace": torch.ones(*tiny.SHAPE) + 0j}, ShapeError),
    "empty mask": ({"mask": torch.zeros(*tiny.SHAPE, dtype=torch.bool)}, InputError),
    "NaN": ({"kspace": torch.full((4, *tiny.SHAPE), torch.nan) + 0j}, NonFiniteError),
    "Inf map": ({"sensitivity": torch.full((4, *tiny.SHAPE), torch.inf) + 0j}, NonFiniteError),
    "zero noise": ({"noise_std": 0.0}, NoiseLevelError),
    "negative noise": ({"noise_std": [0.1, 0.1, -0.1, 0.1]}, NoiseLevelError),
    "NaN noise": ({"noise_std": float("nan")}, NoiseLevelError),
    "noise of other coils": ({"noise_std": [0.1, 0.1]}, ShapeError),
    "no centre": (
        {"mask": torch.arange(24).expand(32, 24) % 3 == 1, "sensitivity": None},
        InputError,
    ),
}


@pytest.mark.parametrize("noise_std", [0.02, None])
@pytest.mark.parametrize("case", BAD)
def test_bad_arrays_are_named(case: str, noise_std: float | None) -> None:
    changes, error = BAD[case]
    given: dict[str, object] = {**arrays(), **changes}
    noise = given.pop("noise_std", noise_std)
    with pytest.raises(error) as caught:
        cartesian_problem({k: v for k, v in given.items() if v is not None}, noise_std=noise)
    assert caught.value.got is not None
    assert caught.value.expected is not None
    assert caught.value.hint


def test_maps_without_a_centre_are_a_named_error() -> None:
    """Which centre is missing, and what to do."""
    given = arrays()
    mask = torch.arange(24).expand(32, 24) % 3 == 1
    with pytest.raises(InputError, match="sensitivit"):
        cartesian_problem({"kspace": given["kspace"] * mask, "mask": mask}, noise_std=0.02)
