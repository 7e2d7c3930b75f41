"""What stations, areas and satellites see of known fields, and the input that they refuse."""

import numpy as np
import pytest
import torch

from invdiff import Grid
from invdiff.errors import InputError, ShapeError
from invdiff.operators import Mask
from invdiff.operators.atmosphere import AreaMean, SphericalHarmonics, Stations, swath
from invdiff.run_state import identity
from tests.support.flows import DOUBLE, normal


def globe(n_lat=9, n_lon=12, *, southward=False, start=0.0, names=("lat", "lon")) -> Grid:
    lat = np.linspace(-80, 80, n_lat)[:: -1 if southward else 1]
    lon = start + np.arange(n_lon) * 360 / n_lon
    return Grid(names, (n_lat, n_lon), DOUBLE, dict(zip(names, (lat, lon), strict=True)))


def bilinear(lat, lon):
    """Linear in latitude, and in longitude but for the jump between 330 and 360 degrees."""
    return (2.0 + 0.1 * lat) * (1.0 + 0.01 * lon)


GRIDS = {
    "northward": globe(),
    "southward": globe(southward=True),
    "from -180": globe(start=-180.0),
    "long names": globe(names=("latitude", "longitude")),
    "gaussian": SphericalHarmonics(16).grid(DOUBLE),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("convention", ["0 to 360", "-180 to 180"])
def test_stations_interpolate_bilinearly(grid, convention):
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(-75, 75, 20), rng.uniform(0, 320, 20)
    rows, columns = (np.asarray(grid.coords[dim]) for dim in grid.dims)
    field = torch.from_numpy(bilinear(rows[:, None], np.mod(columns, 360)))
    given = lon if convention == "0 to 360" else (lon + 180) % 360 - 180
    seen = Stations(grid, lat, given)(field[None])
    np.testing.assert_allclose(seen[0], bilinear(lat, lon), rtol=1e-12)


def test_stations_see_across_the_end_of_the_circle():
    grid = globe(n_lon=12)
    field = torch.zeros(9, 12, dtype=DOUBLE)
    field[:, 0], field[:, -1] = 1.0, 3.0
    stations = Stations(grid, [0.0, 10.0, 0.0, 0.0], [345.0, -15.0, 352.5, -0.0])
    np.testing.assert_allclose(stations(field[None])[0], [2.0, 2.0, 1.5, 1.0])


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_stations_on_grid_points_see_their_values(grid):
    x = normal(2, *grid.shape)
    rows, columns = (np.asarray(grid.coords[dim]) for dim in grid.dims)
    at = [(0, 0), (-1, -1), (3, 5), (0, -1)]
    stations = Stations(grid, [rows[i] for i, _ in at], [columns[j] for _, j in at])
    expected = torch.stack([x[:, i, j] for i, j in at], 1)
    torch.testing.assert_close(stations(x), expected, rtol=1e-12, atol=1e-12)


def test_a_regional_grid_across_greenwich_is_not_periodic():
    lat, lon = np.linspace(40, 60, 5), np.arange(350.0, 376.0, 5.0) % 360
    grid = Grid(("lat", "lon"), (5, 6), DOUBLE, {"lat": lat, "lon": lon})
    field = torch.arange(6.0, dtype=DOUBLE).expand(1, 5, 6)
    seen = Stations(grid, [40.0, 50.0, 60.0, 45.0], [-10.0, 2.5, 15.0, 357.5])(field)
    np.testing.assert_allclose(seen[0], [0.0, 2.5, 5.0, 1.5])
    with pytest.raises(InputError, match=r"1 of 2 stations are outside.*station 1 at 50 N, 16 E"):
        Stations(grid, [50.0, 50.0], [0.0, 16.0])


def test_stations_see_all_variables_and_keep_labels():
    names = np.array(["u", "v"])
    plane = globe()
    dims, shape = ("variable", *plane.dims), (2, *plane.shape)
    grid = Grid(dims, shape, DOUBLE, {"variable": names, **plane.coords}, "m s-1")
    stations = Stations(grid, [10.0, 20.0, 30.0], [5.0, 6.0, 7.0])
    assert stations.range.dims == ("variable", "station")
    assert stations.range.units == "m s-1"
    x = normal(2, *grid.shape)
    alone = Stations(plane, [10.0, 20.0, 30.0], [5.0, 6.0, 7.0])
    torch.testing.assert_close(stations(x)[:, 1], alone(x[:, 1]))


@pytest.mark.parametrize(
    ("lat", "lon", "words"),
    [
        ([], [], "no stations"),
        ([10.0, 85.0], [0.0, 0.0], r"outside of the grid.*station 1 at 85 N.*periodic"),
        ([10.0, 5.0, 10.0], [-90.0, 0.0, 270.0], "stations 0, 2 are at one place"),
        ([10.0, 10.0], [0.0, 360.0], "stations 0, 1 are at one place"),
        ([120.0], [45.0], r"no valid position.*order is latitudes, longitudes"),
        ([np.nan], [45.0], "no valid position"),
        ([10.0], [1000.0], "no valid position"),
        ([10.0, 20.0], [0.0], "not two lists of one length"),
        ([[10.0]], [[0.0]], "not two lists of one length"),
        (["a"], ["b"], "not an array of numbers"),
    ],
)
def test_bad_stations(lat, lon, words):
    with pytest.raises(InputError, match=words):
        Stations(globe(), lat, lon)


def test_bad_grids_of_stations():
    with pytest.raises(ShapeError, match="needs latitudes and longitudes"):
        Stations(Grid(("y", "x"), (4, 4)), [0.0], [0.0])
    with pytest.raises(ShapeError, match="needs the coordinate 'lat'"):
        Stations(Grid(("lat", "lon"), (4, 4)), [0.0], [0.0])
    both_ends = {"lat": np.arange(3.0), "lon": np.linspace(0, 360, 5)}
    with pytest.raises(ShapeError, match="without the meridian at both ends"):
        Stations(Grid(("lat", "lon"), (3, 5), coords=both_ends), [0.0], [0.0])


def test_area_means_of_the_globe_are_weighted_by_area():
    grid = SphericalHarmonics(36, 72).grid(DOUBLE)
    lat = torch.from_numpy(np.radians(grid.coords["lat"]))[:, None]
    whole = AreaMean(grid, (36, 72))
    ones, squares = torch.ones(1, 36, 72, dtype=DOUBLE), torch.sin(lat).square().expand(1, 36, 72)
    assert float(whole(ones)) == pytest.approx(1)
    assert float(whole(squares)) == pytest.approx(1 / 3, abs=2e-3)  # unweighted: 1/2
    coarse = AreaMean(grid, (6, 12))
    assert coarse.range.shape == (6, 6)
    x = normal(2, 36, 72)
    weights = torch.cos(lat[12:18]).expand(6, 12)
    expected = (x[:, 12:18, 24:36] * weights).sum((1, 2)) / weights.sum()
    torch.testing.assert_close(coarse(x)[:, 2, 2], expected)
    assert coarse.range.coords["lon"][1] == pytest.approx(np.mean(grid.coords["lon"][12:24]))


def test_area_means_of_a_plane_are_plain_means():
    grid = Grid(("layer", "y", "x"), (2, 8, 6), DOUBLE)
    x = normal(3, 2, 8, 6)
    expected = torch.nn.functional.avg_pool2d(x, (4, 3))
    torch.testing.assert_close(AreaMean(grid, (4, 3))(x), expected)
    with pytest.raises(ShapeError, match="do not divide"):
        AreaMean(grid, (3, 3))
    with pytest.raises(InputError, match="not a pair"):
        AreaMean(grid, 2)
    with pytest.raises(InputError, match="a factor is too small"):
        AreaMean(grid, (0, 2))


def test_a_swath_follows_the_orbit():
    grid, period = SphericalHarmonics(45, 90).grid(), 6000.0
    times = np.arange(1, 49) * period / 8
    seen = swath(grid, times, 1.2e6, period=period, inclination=60.0, node=30.0).numpy()
    lat, lon = grid.coords["lat"], grid.coords["lon"]
    half_width = np.degrees(0.6e6 / 6.371e6)
    rows = np.abs(lat[seen.any((0, 2))])
    assert 60 < rows.max() <= 60 + half_width  # as far as the inclination
    # At the equator the passes are as far apart as the Earth turns in an orbit: 25 degrees.
    equator = np.argmin(np.abs(lat))
    for orbit in range(5):
        northward = seen[8 * orbit, equator]  # the eighth of the orbit that begins at the node
        centre = np.angle(np.exp(1j * np.radians(lon))[northward].mean(), deg=True)
        expected = 30.0 - orbit * np.degrees(7.292e-5) * period
        assert abs((centre - expected + 180) % 360 - 180) < 4
    # The northernmost point is a quarter of an orbit after the node.
    assert seen[1].any(1)[lat > 55].any()
    assert not seen[4].any(1)[lat > 20].any()


def test_a_narrow_swath_sees_a_share_of_the_globe():
    harmonics = SphericalHarmonics(90, 180)
    seen = swath(harmonics.grid(), [6070.0], 1e6, inclination=90.0)
    area = torch.from_numpy(harmonics.weights)[:, None] / 180
    share = float((seen * area).sum())
    # A great circle's strip is sin(half width) of the globe; the Earth turns below it a little.
    assert share == pytest.approx(np.sin(0.5e6 / 6.371e6), rel=0.05)


def test_bad_swaths():
    grid = globe()
    with pytest.raises(InputError, match="do not ascend"):
        swath(grid, [2.0, 1.0], 1e6)
    with pytest.raises(InputError, match="do not ascend"):
        swath(grid, [], 1e6)
    with pytest.raises(InputError, match="width"):
        swath(grid, [1.0], 0.0)
    with pytest.raises(ShapeError, match="swath needs latitudes"):
        swath(Grid(("y", "x"), (4, 4)), [1.0], 1e6)
    with pytest.raises(InputError, match="not a Grid"):
        swath("globe", [1.0], 1e6)


def test_identities_of_station_lists():
    """A run is resumed by where its stations are."""
    grid = globe()
    one = identity({"operator": Stations(grid, [10.0, 20.0], [0.0, 5.0])})
    assert one == identity({"operator": Stations(grid, [10.0, 20.0], [360.0, 5.0])})
    assert one != identity({"operator": Stations(grid, [10.0, 20.0], [0.0, 5.1])})
    assert Mask(grid, swath(grid, [6070.0], 2e6)[0]).n_data > 10
