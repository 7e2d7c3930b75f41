"""From the arrays of a scan to a whitened problem of known noise, and what cannot be one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from invdiff.errors import (
    DTypeError,
    InputError,
    InvdiffError,
    NoiseLevelError,
    NonFiniteError,
    ShapeError,
)
from invdiff.io import read_kspace, write_result
from invdiff.operators.mri import CartesianMRI, cartesian_problem, prewhiten
from tests.support import tiny
from tests.support.scans import arrays, assert_one, chi2, some_of, without


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


def test_a_single_coil_with_a_map_keeps_it() -> None:
    given = arrays(n_coils=1, noise=0.05)
    given["sensitivity"] = given["sensitivity"] * 0.5
    given["kspace"] = given["kspace"] * 0.5
    problem = cartesian_problem(given, noise_std=0.025)
    assert problem.operator.range.dims == ("coil", "ky", "kx")
    assert_one(chi2(problem, given["image"]), problem.operator.n_data)


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
    "not zero outside the mask": (
        {"mask": torch.arange(24).expand(32, 24) % 3 == 1, "sensitivity": None},
        InputError,
    ),
    "noise as text": ({"noise_std": "0.1"}, NoiseLevelError),
    "noise by sample": ({"noise_std": torch.ones(4, *tiny.SHAPE)}, ShapeError),
    "ragged noise": ({"noise_std": [[0.1], [0.1, 0.2]]}, DTypeError),
    "weights for a mask": ({"mask": torch.full(tiny.SHAPE, 0.5)}, InputError),
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
    mask = given["mask"] & (torch.arange(24).expand(32, 24) % 3 == 1)
    with pytest.raises(InputError, match="sensitivit"):
        cartesian_problem({"kspace": given["kspace"] * mask, "mask": mask}, noise_std=0.02)


# A scan is taken as it is read, in any container.


def dataset(given: dict[str, Tensor]) -> xr.Dataset:
    kspace = xr.DataArray(given["kspace"].numpy(), dims=("coil", "ky", "kx"), attrs={"units": "V"})
    coords = {"y": ("y", np.linspace(-16, 15, 32)), "x": ("x", np.arange(24.0)), "ky": range(32)}
    maps = ("coil", "y", "x"), given["sensitivity"].numpy()
    mask = ("ky", "kx"), given["mask"].numpy()
    return xr.Dataset({"kspace": kspace, "mask": mask, "sensitivity": maps}, coords)


CONTAINERS: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "tensors": lambda given: given,
    "arrays": lambda given: {k: v.numpy() for k, v in given.items()},
    "big-endian": lambda given: {
        k: v.numpy().astype(v.numpy().dtype.newbyteorder(">")) for k, v in given.items()
    },
    "conjugate views": lambda given: {
        k: v.conj().resolve_conj().conj() if v.is_complex() else v for k, v in given.items()
    },
    "with gradients": lambda given: {
        k: v.clone().requires_grad_() if v.is_complex() else v for k, v in given.items()
    },
    "Fortran order": lambda given: {k: np.asfortranarray(v.numpy()) for k, v in given.items()},
    "negative strides": lambda given: {
        k: v.numpy()[..., ::-1].copy()[..., ::-1] for k, v in given.items()
    },
    "mask as integers": lambda given: {**given, "mask": given["mask"].to(torch.uint8)},
    "mask as lines": lambda given: {**given, "mask": given["mask"][0]},
    "Dataset": dataset,
    "Dataset in other order": lambda given: dataset(given).transpose("kx", "x", "y", "ky", "coil"),
    "Dataset with lines": lambda given: dataset(given).assign(
        mask=("kx", given["mask"][0].numpy())
    ),
    "DataArrays": lambda given: dict(dataset(given)),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_the_same_problem(container: str) -> None:
    given = without(arrays(), "image")
    expected = cartesian_problem(given, noise_std=0.02)
    problem = cartesian_problem(CONTAINERS[container](given), noise_std=0.02)
    torch.testing.assert_close(problem.data, expected.data, rtol=0, atol=0)
    torch.testing.assert_close(
        problem.operator.sensitivity, expected.operator.sensitivity, rtol=0, atol=0
    )
    assert torch.equal(problem.operator.mask, expected.operator.mask)
    assert (problem.scale, problem.noise_std) == (expected.scale, 1.0)


def test_coordinates_units_and_noise_of_a_dataset_are_kept() -> None:
    given = arrays()
    scan = dataset(given)
    scan["kspace"].attrs["noise_std"] = [0.02] * 4
    for labelled in (scan, dict(scan)):
        problem = cartesian_problem(labelled)
        domain = problem.operator.domain
        assert problem.notes == {"noise_source": "given", "sensitivity_source": "given"}
        np.testing.assert_array_equal(domain.coords["y"], np.linspace(-16, 15, 32))
        np.testing.assert_array_equal(domain.coords["x"], np.arange(24.0))
        assert domain.units == "V"
        torch.testing.assert_close(
            problem.data, cartesian_problem(given, noise_std=0.02).data, rtol=0, atol=0
        )
    # With estimated maps the image is in units of the noise.
    estimated = cartesian_problem(scan.drop_vars("sensitivity"))
    assert estimated.operator.domain.units == "1"
    assert estimated.notes["sensitivity_source"] == "ESPIRiT"
    # They take the phase that coils do not determine.
    image = estimated.operator.adjoint(estimated.data[None])[0]
    assert image.real.clamp_min(0).norm() > 0.95 * image.norm()
    with pytest.raises(ShapeError, match="kspace has other dims"):
        cartesian_problem(scan.rename(coil="channel"))
    # An argument comes before the attribute.
    assert cartesian_problem(scan, noise_std=0.04).data.abs().max() == pytest.approx(
        float(problem.data.abs().max()) / 2
    )


def test_a_file_is_a_problem_in_two_lines(tmp_path: Path) -> None:
    given = arrays(noise=0.05)
    named = {k: given[k].numpy() for k in ("kspace", "mask", "sensitivity")}
    np.savez(tmp_path / "scan.npz", **named, noise_std=np.array([0.05] * 4, ">f8"))
    write_result(read_kspace(tmp_path / "scan.npz"), tmp_path / "scan.zarr")
    expected = cartesian_problem(given, noise_std=0.05)
    for name in ("scan.npz", "scan.zarr"):
        problem = cartesian_problem(read_kspace(tmp_path / name))
        torch.testing.assert_close(problem.data, expected.data, rtol=0, atol=0)
        assert problem.scale == expected.scale
    with np.load(tmp_path / "scan.npz") as archive:  # a mapping as good as any
        problem = cartesian_problem(archive)
    torch.testing.assert_close(problem.data, expected.data, rtol=0, atol=0)


def test_the_dtype_is_single_unless_asked() -> None:
    given = arrays()
    wide = {**given, "kspace": given["kspace"].to(torch.complex128)}
    for n_coils in (4, 1):
        some = {k: v[:n_coils] if k == "kspace" else v for k, v in wide.items()}
        some = some if n_coils == 4 else without(some, "sensitivity")
        problem = cartesian_problem(some, noise_std=0.02)
        assert problem.data.dtype == problem.operator.domain.dtype == torch.complex64
        problem = cartesian_problem(some, noise_std=0.02, dtype=torch.complex128)
        assert problem.data.dtype == problem.operator.domain.dtype == torch.complex128


def test_what_is_not_a_scan() -> None:
    for wrong in (torch.ones(4, 8, 8) + 0j, None, "scan.npz", [1]):
        with pytest.raises(InputError, match="a Dataset or a mapping with 'kspace' and 'mask'"):
            cartesian_problem(wrong)


# Units.


@pytest.mark.parametrize("what", ["maps", "nothing"])
def test_coils_of_very_different_noise(what: str) -> None:
    """Gains of 1e-6 to 1e6 change nothing but the units of the coils."""
    given = without(arrays(shape=(48, 48), n_coils=5, noise=0.05), "image")
    given, _ = some_of(given, what)
    gains = torch.tensor([1e-6, 1.0, 1e6, 30.0, 1e-3])[:, None, None]
    other = {k: v * gains if k in ("kspace", "sensitivity") else v for k, v in given.items()}
    a, b = cartesian_problem(given), cartesian_problem(other)
    assert (a.data - b.data).norm() < 1e-4 * a.data.norm()
    assert b.scale == pytest.approx(a.scale, rel=1e-3)


@pytest.mark.parametrize("n_coils", [1, 4])
def test_tiny_units(n_coils: int) -> None:
    """Single precision has no squares of 1e-25."""
    given = without(arrays(n_coils=n_coils), "image", "sensitivity")
    small = {**given, "kspace": 1e-25 * given["kspace"]}
    a, b = cartesian_problem(given), cartesian_problem(small)
    units = 1e-25 if n_coils == 1 else 1.0
    assert (b.data / units - a.data).norm() < 1e-4 * a.data.norm()
    assert b.scale == pytest.approx(units * a.scale, rel=1e-3)


@pytest.mark.parametrize("units", [1e200, 1e-200])
def test_units_beyond_single_precision(units: float) -> None:
    given = without(arrays(n_coils=1), "image", "sensitivity")
    given["kspace"] = units * given["kspace"].to(torch.complex128)
    with pytest.raises(InputError, match=r"out of the range of torch\.complex64"):
        cartesian_problem(given)
    problem = cartesian_problem(given, dtype=torch.complex128)
    assert torch.equal(problem.data, given["kspace"][0])
