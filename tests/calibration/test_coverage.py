"""Coverage of prediction intervals: nominal where the ensemble is right, and only there."""

import numpy as np
import pytest
import xarray as xr

from invdiff.calibration import coverage, half_width
from invdiff.errors import DTypeError, InputError, NonFiniteError, ShapeError

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
N_CASES = 4000


def ensemble(
    n: int, *, spread: float = 1.0, seed: int = 0, is_complex: bool = False
) -> tuple[xr.DataArray, xr.DataArray]:
    """``N_CASES`` independent forecasts of ``n`` members, and truths from the same normal law."""
    rng = np.random.default_rng((seed, n))

    def normal(*shape: int) -> np.ndarray:
        real = rng.standard_normal(shape)
        return real + 1j * rng.standard_normal(shape) if is_complex else real

    centre = 10 * rng.standard_normal(N_CASES)
    size = rng.uniform(0.5, 2, N_CASES)
    members = xr.DataArray(
        centre + spread * size * normal(n, N_CASES), dims=("realization", "case")
    )
    return members, xr.DataArray(centre + size * normal(N_CASES), dims="case")


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("n", [2, 4, 16, 64])
def test_nominal_at_every_ensemble_size(n: int, is_complex: bool) -> None:
    found = coverage(*ensemble(n, is_complex=is_complex), LEVELS)
    assert found.dims == ("level",)
    assert found.level.values.tolist() == list(LEVELS)
    trials = N_CASES * (2 if is_complex else 1)
    for level, share in zip(LEVELS, found.values, strict=True):
        binomial = (level * (1 - level) / trials) ** 0.5
        assert abs(share - level) < 4 * binomial, (level, share)


@pytest.mark.parametrize("spread", [0.8, 1.25])
def test_ensembles_of_the_wrong_width_are_detected(spread: float) -> None:
    """With many members the interval is ``+- z s``, so a truth falls in with ``2 Phi(z s) - 1``."""
    from scipy.stats import norm

    found = coverage(*ensemble(200, spread=spread), (0.5, 0.9))
    for level, share in zip((0.5, 0.9), found.values, strict=True):
        expected = 2 * norm.cdf(norm.ppf((1 + level) / 2) * spread) - 1
        assert abs(share - expected) < 0.03
        assert abs(share - level) > 0.04


def test_where_says_where_to_evaluate() -> None:
    members, truth = ensemble(16)
    good = xr.DataArray(np.arange(N_CASES) % 2 == 0, dims="case")
    spoilt = truth.where(good, 1e6)
    np.testing.assert_array_equal(
        coverage(members, spoilt, where=good), coverage(members[:, ::2], truth[::2])
    )
    # Beyond 16 members a truth counts in part, from 15/17 on: by 0.15 at 0.9.
    assert float(coverage(members, spoilt, (0.9,))[0]) == pytest.approx(
        (float(coverage(members, spoilt, (0.9,), where=good)[0]) + 0.15) / 2
    )


def test_dims_are_found_by_name() -> None:
    members, truth = ensemble(8)
    grid = members.values.reshape(8, 40, 100)
    fields = xr.DataArray(grid, dims=("member", "y", "x")).transpose("x", "member", "y")
    exact = xr.DataArray(truth.values.reshape(40, 100), dims=("y", "x"))
    np.testing.assert_array_equal(
        coverage(fields, exact, LEVELS, dim="member"), coverage(members, truth, LEVELS)
    )


def test_the_interval_is_students() -> None:
    from scipy.stats import t

    members = xr.DataArray([[1.0, 0], [2, 0], [4, 0]], dims=("realization", "case"))
    expected = t.ppf(0.95, 2) * members.std("realization", ddof=1) * (4 / 3) ** 0.5
    np.testing.assert_allclose(half_width(members, 0.9), expected)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_levels_are_probabilities(level: float) -> None:
    members, truth = ensemble(4)
    with pytest.raises(InputError, match="0 < level < 1"):
        coverage(members, truth, (level,))


def test_nothing_to_evaluate_is_refused() -> None:
    members, truth = ensemble(4)
    with pytest.raises(InputError, match="2 members"):
        coverage(members[:1], truth)
    with pytest.raises(ShapeError, match="member"):
        coverage(members, truth, dim="member")
    with pytest.raises(ShapeError, match="do not match"):
        coverage(members, truth.rename(case="place"))
    with pytest.raises(ShapeError, match="do not match"):
        coverage(members, truth[:-1])
    labelled = members.assign_coords(case=np.arange(N_CASES))
    with pytest.raises(ShapeError, match="do not match"):
        coverage(labelled, truth.assign_coords(case=np.arange(N_CASES) + 1))
    with pytest.raises(ShapeError, match="do not match"):
        coverage(members, truth, where=xr.ones_like(truth[:-1], bool))
    with pytest.raises(DTypeError, match="complex"):
        coverage(members, truth * 1j)
    with pytest.raises(InputError, match="nothing to evaluate"):
        coverage(members, truth, where=xr.zeros_like(truth, bool))


def test_values_that_are_not_finite_are_not_counted_as_misses() -> None:
    members, truth = ensemble(4)
    holed = truth.where(truth.case > 0)
    with pytest.raises(NonFiniteError, match="truth"):
        coverage(members, holed)
    with pytest.raises(NonFiniteError, match="ensemble"):
        coverage(members.where(members.case > 0), truth)
    is_there = truth.case > 0  # unless they are left out on purpose
    np.testing.assert_array_equal(
        coverage(members, holed, where=is_there), coverage(members[:, 1:], truth[1:])
    )
