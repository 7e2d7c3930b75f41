"""Pictures show the figures that they are given."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from invdiff import plot
from invdiff.calibration import (
    coverage,
    coverage_curve,
    pit,
    pit_ecdf,
    rank_histogram,
    sbc,
    spread_skill_curve,
    tarp,
)
from tests.support.forecasts import forecasts

MEMBERS, TRUTH = forecasts("too narrow", n=9, n_cases=60, size=3)


@pytest.fixture
def axis() -> Axes:
    return Figure().subplots()


def drawn(axis: Axes, line: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = axis.lines[line].get_data()
    return np.asarray(x), np.asarray(y)


def band(axis: Axes) -> tuple[float, float]:
    """Lowest and highest value of the shaded band."""
    y = axis.collections[-1].get_paths()[0].vertices[:, 1]
    return float(y.min()), float(y.max())


def test_coverage_with_and_without_band(axis: Axes) -> None:
    plot.coverage_curve(coverage(MEMBERS, TRUTH), axis)
    assert not axis.collections
    curve = coverage_curve(MEMBERS, TRUTH, dim_independent="case")
    plot.coverage_curve(curve, axis)
    x, y = drawn(axis, -1)
    np.testing.assert_array_equal(x, curve["level"])
    np.testing.assert_array_equal(y, curve["coverage"])
    assert band(axis) == (float(curve["lower"].min()), float(curve["upper"].max()))


def test_rank_histogram_bars_and_band(axis: Axes) -> None:
    found = rank_histogram(MEMBERS, TRUTH, dim_independent="case")
    plot.rank_histogram(found, axis)
    np.testing.assert_array_equal(axis.patches[0].get_data().values, found["share"])
    assert band(axis) == (float(found["lower"][0]), float(found["upper"][0]))
    np.testing.assert_allclose(drawn(axis, 0)[1], 1 / found.sizes["bin"])


def test_ecdf_of_one_and_of_several_statistics(axis: Axes) -> None:
    one = pit_ecdf(pit(MEMBERS, TRUTH)[:, 0, 0])
    plot.ecdf_difference(one, axis)
    np.testing.assert_array_equal(drawn(axis, -1)[1], one["ecdf"] - one["point"])
    other = Figure().subplots()
    several = sbc(
        MEMBERS, TRUTH, {"mean": lambda x: x.mean(("y", "x")), "max": lambda x: x.max(("y", "x"))}
    )
    plot.ecdf_difference(several, other)
    assert [text.get_text() for text in other.get_legend().get_texts()] == [
        "expected",
        "mean",
        "max",
    ]
    np.testing.assert_array_equal(
        drawn(other, -1)[1], several["ecdf"].sel(statistic="max") - several["point"]
    )


def test_tarp(axis: Axes) -> None:
    found = tarp(MEMBERS, TRUTH)
    plot.tarp_curve(found, axis)
    np.testing.assert_array_equal(drawn(axis, -1)[1], found["ecp"])
    assert band(axis) == (float(found["lower"].min()), float(found["upper"].max()))


def test_spread_and_skill_share_their_axes(axis: Axes) -> None:
    found = spread_skill_curve(MEMBERS, TRUTH.assign_attrs(units="m s-1"), n_bins=4)
    plot.spread_skill(found, axis)
    np.testing.assert_array_equal(drawn(axis, -1)[1], found["skill"])
    assert axis.get_xlim() == axis.get_ylim()
    assert axis.get_xlabel() == "spread (m s-1)"


def test_figures_are_png(tmp_path: Path) -> None:
    figure = Figure()
    plot.save_figure(figure, tmp_path / "figure.png")
    for data in (plot.png_bytes(figure), (tmp_path / "figure.png").read_bytes()):
        assert data.startswith(b"\x89PNG")
