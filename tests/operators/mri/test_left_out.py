"""Samples and coils that were not measured are left out, reported, and do no harm."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import xarray as xr
from torch import Tensor

from invdiff.errors import (
    DataWarning,
    InputError,
)
from invdiff.operators.linear import centred_fft
from invdiff.operators.mri import CartesianMRI, cartesian_problem
from invdiff.protocols import Problem
from invdiff.samplers import Ancestral
from invdiff.verbs import reconstruct
from tests.support import tiny
from tests.support.scans import (
    GIVEN,
    arrays,
    assert_one,
    chi2,
    some_of,
    without,
)


@pytest.mark.parametrize("n_coils", [1, 4])
def test_zero_filled_columns_are_not_measured(n_coils: int) -> None:
    """Counted as measured zeros they would say that the image has no power there."""
    given = arrays(n_coils=n_coils, noise=0.05)
    if n_coils == 1:
        given["image"] = given["image"] * given.pop("sensitivity")[0]
    padded = torch.arange(24) < 8
    given["kspace"] = given["kspace"] * ~padded
    n_zero = int((given["mask"] & padded).sum())
    with pytest.warns(DataWarning, match=rf"^{n_zero} of {int(given['mask'].sum())} samples") as w:
        problem = cartesian_problem(given, noise_std=0.05)
    assert w[0].filename == __file__
    assert problem.notes["n_zero_in_mask"] == n_zero
    assert not problem.operator.mask[:, padded].any()
    assert problem.operator.n_data == n_coils * (int(given["mask"].sum()) - n_zero)
    # The data are what the truth says to within the noise, which zeros are not.
    assert_one(chi2(problem, given["image"]), problem.operator.n_data)
    everything = CartesianMRI(given["mask"], problem.operator.sensitivity)
    counted = Problem(everything, problem.data, problem.noise_std)
    assert chi2(counted, given["image"]) > 1.4
    # The reader finds the same, and the count is passed on to the problem.
    scan = xr.Dataset(attrs={"n_zero_in_mask": n_zero})
    scan["kspace"] = ("coil", "ky", "kx"), given["kspace"].numpy()
    scan["mask"] = ("ky", "kx"), (given["mask"] & ~padded).numpy()
    if n_coils > 1:
        scan["sensitivity"] = ("coil", "y", "x"), given["sensitivity"].numpy()
    again = cartesian_problem(scan, noise_std=0.05)
    assert again.notes == problem.notes
    torch.testing.assert_close(again.data, problem.data, rtol=0, atol=0)


def test_the_posterior_has_the_power_of_the_prior_in_zero_filled_columns() -> None:
    """Not the little that zeros taken as data would leave."""
    prior = tiny.prior()  # white, of variance 2 SIGMA_DATA^2: so is k-space
    power, level, scale = 2 * tiny.SIGMA_DATA**2, 0.5, 10.0
    image, noise = (tiny.standard_normal((1, *tiny.SHAPE), i, torch.complex64) for i in (7, 8))
    padded = torch.arange(24) < 8
    kspace = (scale * power**0.5 * image + level * noise) * ~padded
    with pytest.warns(DataWarning, match="256 of 768 samples"):
        problem = cartesian_problem(
            {"kspace": kspace, "mask": torch.ones(tiny.SHAPE)}, noise_std=level
        )
    result = reconstruct(
        replace(problem, scale=scale),
        prior=prior.on(problem.operator.domain),
        realizations=32,
        seed=0,
        sampler=Ancestral(8),
    )
    assert result.attrs["invdiff_n_zero_in_mask"] == 256
    members = centred_fft(torch.from_numpy(result["image"].values) / scale, 2)
    n = 32 * 256  # of |k|^2, exponential: relative standard error 1 / sqrt(n)
    unmeasured = float(members[..., padded].abs().square().mean())
    assert unmeasured == pytest.approx(power, rel=4 / n**0.5)
    spread = float(members[..., ~padded].var(0).mean()) ** 0.5
    exact = (power * (level / scale) ** 2 / (power + (level / scale) ** 2)) ** 0.5
    assert spread == pytest.approx(exact, rel=0.02)
    assert float(result["data_misfit"].mean()) == pytest.approx(1, abs=5 / 512**0.5)


def sense_error(problem: Problem, image: Tensor) -> float:
    """Relative error of the regularised SENSE image, in the units of the image."""
    operator = problem.operator
    assert isinstance(operator, CartesianMRI)
    b = operator.adjoint(problem.data[None])
    rho = 0.3 / problem.scale**2 if problem.notes["sensitivity_source"] == "given" else 0.3
    found = operator.solve(b, rho, 1.0, max_iterations=100)[0]
    # Estimated maps leave the phase and the profile of the image open: compare what the coils see.
    assert operator.sensitivity is not None
    seen = (operator.sensitivity * found).abs().square().sum(0).sqrt()
    truth = (operator.sensitivity * image).abs().square().sum(0).sqrt()
    if problem.notes["sensitivity_source"] != "given":
        truth = truth * (seen * truth).sum() / truth.square().sum()
    return float((seen - truth).norm() / truth.norm())


def dead(given: dict[str, Tensor]) -> dict[str, Tensor]:
    kspace = given["kspace"].clone()
    kspace[2] = 0
    return {**given, "kspace": kspace}


def partly_dead(given: dict[str, Tensor]) -> dict[str, Tensor]:
    kspace = given["kspace"].clone()
    kspace[2, :, 20:28] = 0
    return {**given, "kspace": kspace}


def appended(given: dict[str, Tensor], weights: dict[int, complex]) -> dict[str, Tensor]:
    """With one coil more, a combination of others."""
    extra = {
        name: torch.cat([values, sum(w * values[i : i + 1] for i, w in weights.items())])
        for name, values in given.items()
        if name in ("kspace", "sensitivity")
    }
    return {**given, **extra}


LEFT_OUT: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "dead": (dead, "2: zero at all measured samples"),
    "partly dead": (partly_dead, "2: zero at 240 of 1000 measured samples"),
    "copied": (lambda g: appended(g, {1: 1.0}), "6: a multiple of coil 1"),
    "scaled": (lambda g: appended(g, {0: 2e-4 - 1e-4j}), "6: a multiple of coil 0"),
    "strong copy": (lambda g: appended(g, {0: 3e5j}), "6: a multiple of coil 0"),
    "sum": (
        lambda g: appended(g, dict.fromkeys(range(6), 1.0)),
        "6: a combination of coils 0, 1, 2, 3, 4, 5",
    ),
    "two copies": (
        lambda g: appended(appended(g, {1: 1.0}), {3: -1j}),
        "6: a multiple of coil 1; 7: a multiple of coil 3",
    ),
    "dead and copied": (
        lambda g: appended(dead(g), {1: 1.0}),
        "2: zero at all measured samples; 6: a multiple of coil 1",
    ),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # sigpy and numba, on import
@pytest.mark.parametrize("what", GIVEN)
@pytest.mark.parametrize("case", LEFT_OUT)
def test_coils_that_cannot_be_used_are_left_out(case: str, what: str) -> None:
    """The problem is that of the other coils, bit for bit, and what happened is reported."""
    change, told = LEFT_OUT[case]
    whole = arrays(shape=(40, 40), n_coils=6, noise=0.05)
    image = whole.pop("image")
    given, noise_std = some_of(change(whole), what)
    with pytest.warns(DataWarning, match=r"coils are left out \(counted from 0\)") as warned:
        problem = cartesian_problem(given, noise_std=noise_std)
    assert told in str(warned[0].message)
    assert warned[0].filename == __file__
    assert problem.notes["coils_left_out"] == told
    out = {int(part.split(":")[0]) for part in told.split("; ")}
    used = [coil for coil in range(len(given["kspace"])) if coil not in out]
    others = {k: v[used] if k in ("kspace", "sensitivity") else v for k, v in given.items()}
    expected = cartesian_problem(others, noise_std=noise_std)
    torch.testing.assert_close(problem.data, expected.data, rtol=0, atol=0)
    torch.testing.assert_close(
        problem.operator.sensitivity, expected.operator.sensitivity, rtol=0, atol=0
    )
    # And it is a good one: the image is nearly as good as that of the scan without the fault.
    untouched = cartesian_problem(some_of(whole, what)[0], noise_std=noise_std)
    reference = sense_error(untouched, image)
    assert reference < 0.2
    assert sense_error(problem, image) < 1.2 * reference


def test_noise_levels_of_the_coils_that_are_used() -> None:
    given = without(dead(arrays()), "image")
    levels = [0.1, 0.2, 0.0, 0.4]  # the noise of a dead coil, as measured
    with pytest.warns(DataWarning, match="2: zero"):
        problem = cartesian_problem(given, noise_std=levels)
    torch.testing.assert_close(problem.data[2], given["kspace"][3] / 0.4)


def test_a_coil_without_a_map_is_left_out() -> None:
    """Its samples could only raise the misfit: the model says that it sees nothing."""
    given = arrays(n_coils=6, noise=0.05)
    given["sensitivity"][4] = 0
    with pytest.warns(DataWarning, match="4: its sensitivity is zero everywhere"):
        problem = cartesian_problem(given, noise_std=0.05)
    assert_one(chi2(problem, given["image"]), problem.operator.n_data)


def test_one_coil_is_left() -> None:
    given = without(arrays(n_coils=2), "sensitivity", "image")
    given["kspace"][0] = 0
    with pytest.warns(DataWarning, match="1 of 2 coils"):
        problem = cartesian_problem(given, noise_std=[0.0, 0.02])
    torch.testing.assert_close(problem.data, given["kspace"][1])
    assert problem.noise_std == 0.02
    assert problem.notes["sensitivity_source"] == "none"


def test_no_coil_is_left() -> None:
    given = without(arrays(), "image")
    given["sensitivity"][:] = 0
    with pytest.raises(InputError, match="no coil can be used") as caught:
        cartesian_problem(given, noise_std=0.02)
    assert str(caught.value.got).startswith("0: its sensitivity is zero everywhere; 1:")


def test_copied_samples_with_other_maps_are_refused() -> None:
    """Which of the two maps belongs to the samples is not known."""
    given = arrays()
    given["kspace"][3] = given["kspace"][1]
    with pytest.raises(InputError, match="coil 3 holds a multiple of coil 1, but its sensitivity"):
        cartesian_problem(given, noise_std=0.02)


def test_a_volume_with_a_dead_and_a_copied_coil() -> None:
    given = without(appended(dead(arrays(shape=(4, 12, 14), n_coils=5, noise=0.05)), {1: 2j}))
    image = given.pop("image")
    with pytest.warns(DataWarning, match="2: zero at all .*; 5: a multiple of coil 1"):
        problem = cartesian_problem(given, noise_std=0.05)
    assert problem.operator.range.dims == ("coil", "kz", "ky", "kx")
    assert problem.operator.domain.dims == ("z", "y", "x")
    assert_one(chi2(problem, image), problem.operator.n_data)
