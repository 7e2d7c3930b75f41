"""Fields chunked by Dask: nothing is computed at a call, and chunks change no number."""

from collections.abc import Callable
from typing import NoReturn

import dask
import numpy as np
import pytest
import xarray as xr

from invdiff.errors import NonFiniteError
from invdiff.verification import (
    brier_score,
    crps,
    degrees_of_freedom_for_signal,
    departures,
    desroziers,
    energy_score,
    innovation_chi_square,
    isotropic_spectrum,
    reliability_diagram,
    spread_error,
    verify,
    weighted_mean,
    zonal_spectrum,
)
from tests.support.forecasts import forecasts

MEMBERS, TRUTH = forecasts(n=8, n_cases=10, size=4)
WEIGHTS = xr.DataArray([1.0, 2.0, 2.0, 0.0], dims="y")

Field = xr.DataArray
FUNCTIONS: dict[str, Callable[[Field, Field, Field], xr.Dataset | Field]] = {
    "crps": lambda m, t, w: crps(m, t, weights=WEIGHTS, where=w),
    "crps of members": lambda m, t, w: crps(m, t, is_fair=False, by=t.dims, where=w),
    "energy_score": lambda m, t, w: energy_score(m, t, ("y", "x"), by="case", where=w),
    "spread_error": lambda m, t, w: spread_error(m, t, by="x", weights=WEIGHTS, where=w),
    "brier_score": lambda m, t, w: brier_score(m, t, lambda x: x > 1, by="y", where=w),
    "reliability": lambda m, t, w: reliability_diagram(m, t, lambda x: x > 1, n_bins=3, where=w),
    "weighted_mean": lambda m, t, w: weighted_mean(m, WEIGHTS, by="realization", where=w),
    "zonal_spectrum": lambda m, t, w: zonal_spectrum(m, dim="x", period=None),
    "isotropic_spectrum": lambda m, t, w: isotropic_spectrum(m),
    "chi_square": lambda m, t, w: innovation_chi_square(m, t, ("y", "x"), noise_std=1.0, where=w),
    "chi_square by levels": lambda m, t, w: innovation_chi_square(
        m, t, "x", noise_std=WEIGHTS + 1, by=("y",), where=w
    ),
    "departures": lambda m, t, w: departures(m, 0.5 * m, t, noise_std=9.0, by="x", where=w),
    "desroziers": lambda m, t, w: desroziers(m, 0.5 * m, t, weights=WEIGHTS, where=w),
    "freedom": lambda m, t, w: degrees_of_freedom_for_signal(m, noise_std=2.0, by="case", where=w),
}
CHUNKS: list[dict[str, int]] = [
    {"realization": 3},
    {"case": 4},
    {"y": 3, "x": 1},
    {"realization": 5, "case": 3, "y": 2, "x": 3},
]


def forbidden(*_: object, **__: object) -> NoReturn:
    raise AssertionError("computed at the call")


def chunked(field: Field, chunks: dict[str, int]) -> Field:
    return field.chunk({name: n for name, n in chunks.items() if name in field.dims})


@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_nothing_is_computed_at_a_call(name: str, chunks: dict[str, int]) -> None:
    where = TRUTH > -4
    expected = FUNCTIONS[name](MEMBERS, TRUTH, where)
    with dask.config.set(scheduler=forbidden):
        lazy = FUNCTIONS[name](*(chunked(field, chunks) for field in (MEMBERS, TRUTH, where)))
        fields = list(lazy.values()) if isinstance(lazy, xr.Dataset) else [lazy]
        assert all(field.chunks is not None for field in fields)
    xr.testing.assert_allclose(lazy.compute(scheduler="synchronous"), expected, rtol=1e-11)


def test_the_scheduler_raises() -> None:
    with dask.config.set(scheduler=forbidden), pytest.raises(AssertionError, match="at the call"):
        MEMBERS.chunk(case=1).sum().compute()


def test_members_are_gathered_block_by_block() -> None:
    """A hundred members in chunks of one: no block of the graph holds more than Dask's size."""
    members = xr.DataArray(
        dask.array.zeros((100, 64, 64), chunks=(1, 64, 64)), dims=("realization", "y", "x")
    )
    truth = xr.DataArray(dask.array.zeros((64, 64)), dims=("y", "x"))
    sizes: list[int] = []
    original = np.sort

    def watched(values: np.ndarray, axis: int = -1) -> np.ndarray:
        sizes.append(values.size)
        return original(values, axis)

    with pytest.MonkeyPatch.context() as patch, dask.config.set({"array.chunk-size": "400KiB"}):
        patch.setattr(np, "sort", watched)
        score = crps(members, truth, by=("y", "x"))
        score.compute(scheduler="synchronous")
    assert len(sizes) >= 8
    assert max(sizes) * 8 <= 400 * 1024


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_hole_is_refused_when_it_is_computed(name: str) -> None:
    spoilt = MEMBERS.copy()
    spoilt[2, 5, 1, 1] = np.nan
    everywhere = xr.DataArray(True)
    lazy = FUNCTIONS[name](spoilt.chunk(realization=3), TRUTH, everywhere)
    with pytest.raises(NonFiniteError, match="1 values"):
        lazy.compute(scheduler="synchronous")


def test_a_verdict_is_that_of_fields_in_memory() -> None:
    members, truth = forecasts(n=8, n_cases=40, size=3)
    found = verify(members.chunk(realization=3, y=2), truth.chunk(y=2), dim_independent="case")
    expected = verify(members, truth, dim_independent="case")
    xr.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found.attrs["verdict"] == expected.attrs["verdict"]
