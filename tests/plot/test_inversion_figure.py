"""The picture of an inversion shows what it is given."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from invdiff.calibration import coverage
from invdiff.io import survey_dataset
from invdiff.plot import inversion_figure, png_bytes

RNG = np.random.default_rng(0)
Z, X, TIME = np.arange(20) * 10.0, np.arange(30) * 10.0, np.arange(50) * 2e-3


def section(spread: float = 0.0) -> xr.DataArray:
    values = 2000.0 + 5 * Z[:, None] + spread * RNG.standard_normal((20, 30))
    return xr.DataArray(values, dims=("z", "x"), coords={"z": Z, "x": X})


TRUTH = section()
MEMBERS = xr.concat([section(50.0) for _ in range(4)], "realization").assign_coords(
    realization=[3, 4, 5, 6]
)
RESULT = xr.Dataset(
    {"velocity": MEMBERS, "mean": MEMBERS.mean("realization"), "std": MEMBERS.std("realization")}
)
SHOT = xr.DataArray(
    RNG.standard_normal((12, 50)),
    dims=("receiver", "time"),
    coords={"time": TIME, "receiver_x": ("receiver", np.linspace(0, 290, 12))},
)
STATIONS = survey_dataset(
    {
        "source_z": [10.0, 10.0], "source_x": [50.0, 250.0], "time": TIME,
        "receiver_z": np.full(12, 10.0), "receiver_x": SHOT["receiver_x"].values,
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def figure() -> Figure:
    return inversion_figure(
        RESULT,
        TRUTH,
        models={"start": TRUTH + 100},
        gathers={"observed": SHOT, "after": 0.1 * SHOT},
        curve=coverage(MEMBERS, TRUTH),
        survey=STATIONS,
    )


def panels(figure: Figure) -> dict[str, Axes]:
    return {axis.get_title(): axis for axis in figure.axes if axis.get_title()}


def test_panels(figure: Figure) -> None:
    assert list(panels(figure)) == [
        "true",
        "start: MAE 100 m/s",
        f"posterior mean: MAE {float(abs(RESULT['mean'] - TRUTH).mean()):.0f} m/s",
        f"member 3: MAE {float(abs(MEMBERS[0] - TRUTH).mean()):.0f} m/s",
        f"member 4: MAE {float(abs(MEMBERS[1] - TRUTH).mean()):.0f} m/s",
        "posterior std",
        "|posterior mean \N{MINUS SIGN} true|",
        "coverage of intervals",
        "observed",
        "after",
    ]
    assert png_bytes(figure).startswith(b"\x89PNG")


def test_depth_points_down_in_km(figure: Figure) -> None:
    axis = panels(figure)["true"]
    assert axis.get_ylim() == pytest.approx((0.195, -0.005))
    assert axis.get_xlim() == pytest.approx((-0.005, 0.295))
    np.testing.assert_array_equal(axis.images[0].get_array(), TRUTH)
    stations = [collection.get_offsets() for collection in axis.collections]
    np.testing.assert_allclose(stations[1], [(0.05, 0.01), (0.25, 0.01)])
    assert len(stations[0]) == 12


def test_what_is_compared_shares_its_colours(figure: Figure) -> None:
    limits = {
        title: axis.images[0].get_clim() for title, axis in panels(figure).items() if axis.images
    }
    values = list(limits.values())
    assert set(values[:5]) == {(float(TRUTH.min()), float(TRUTH.max()))}
    assert limits["posterior std"] == limits["|posterior mean \N{MINUS SIGN} true|"]
    assert limits["observed"] == limits["after"]
    assert limits["observed"][0] == -limits["observed"][1]
    labels = [axis.get_ylabel() for axis in figure.axes if axis.get_label() == "<colorbar>"]
    assert labels == ["velocity (m/s)", "velocity (m/s)", "pressure"]


def test_axes_in_another_order_change_nothing() -> None:
    turned = inversion_figure(
        RESULT.transpose("realization", "x", "z"),
        TRUTH.T,
        models={},
        gathers={"observed": SHOT.T.where(SHOT.T["receiver_x"] > 50).drop_vars("receiver_x")},
        curve=coverage(MEMBERS, TRUTH),
    )
    axis = panels(turned)["true"]
    np.testing.assert_array_equal(axis.images[0].get_array(), TRUTH)
    assert panels(turned)["observed"].get_xlabel() == "receiver"
