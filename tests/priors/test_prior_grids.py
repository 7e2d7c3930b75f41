"""A prior is put on grids of its own kind of field and refuses all others, by name."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from invdiff.errors import DTypeError, InputError, NonFiniteError, ShapeError, UnsupportedError
from invdiff.grid import Grid
from invdiff.priors import (
    GaussianMixturePrior,
    GaussianPrior,
    LevyPrior,
    NetworkPrior,
    SpectralMixturePrior,
    StationaryGaussianPrior,
    TiledPrior,
    UNetConfig,
    from_deepinv,
    load_prior,
)
from invdiff.priors.checks import window_grid
from invdiff.priors.positions import Depth
from invdiff.priors.spectral import ErrorSpectra
from tests.support import tiny

VELOCITY = Grid(("z", "x"), (20, 16), torch.float32, units="m s-1")
IMAGE = Grid(("y", "x"), (20, 16), torch.complex64)


def velocity(grid: Grid = VELOCITY, **card: object) -> NetworkPrior:
    """A tiny prior of velocities in m/s, on cells of 10 m unless the card says otherwise."""
    config = UNetConfig(1, positions=1, widths=(8, 12), blocks=1, embedding=16)
    return NetworkPrior(
        tiny.network(config),
        tiny.FLAT,
        grid,
        scale=1000.0,
        offset=3000.0,
        coordinates=Depth(),
        card={"name": "tiny-velocity", "spacing": {"z": 10.0, "x": 10.0}, **card},
    )


def line(step: float = 10.0, dims: tuple[str, str] = ("z", "x"), **changed: object) -> Grid:
    axes = {d: step * np.arange(n) for d, n in zip(dims, (24, 40), strict=True)}
    return replace(Grid(dims, (24, 40), torch.float32, axes, "m s-1"), **changed)


SHIPPED = [
    ("velocity-2d", VELOCITY.with_dtype(torch.complex64), DTypeError, "real fields"),
    ("velocity-2d", Grid(("x",), (16,)), ShapeError, "2-D"),
    ("velocity-2d", Grid(("shot", "z", "x"), (2, 20, 16)), ShapeError, "slice"),
    ("velocity-2d", Grid(("x", "z"), (16, 20)), ShapeError, "another order"),
    ("velocity-2d", replace(VELOCITY, units="km s-1"), InputError, "m s-1"),
    ("velocity-2d", line(20.0), InputError, "cells of 20 to 20; expected cells of 10"),
    ("velocity-2d", line(0.01), InputError, "km"),
    ("brain-t1", IMAGE.with_dtype(torch.float32), DTypeError, "complex fields"),
    ("brain-t1", Grid(("x",), (16,), torch.complex64), ShapeError, "2-D"),
    ("brain-t1", Grid(("x", "y"), (16, 20), torch.complex64), ShapeError, "another order"),
]


@pytest.mark.parametrize(("name", "grid", "error", "words"), SHIPPED)
def test_shipped_priors_refuse_grids_of_another_kind(
    name: str, grid: Grid, error: type[InputError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        load_prior(name, grid=grid)
    assert name in str(caught.value) or "cells" in str(caught.value)
    assert caught.value.got is not None
    assert caught.value.expected is not None
    assert caught.value.hint


ACCEPTED = [
    Grid(("z", "x"), (24, 40)),  # neither cells nor units are stated
    line(),
    line(dims=("depth", "distance")),
    line(units="m/s"),
    line(units="m s^-1"),
    line(units="m.s-1"),
    line(10.05),  # within one percent
    line(dtype=torch.float64),
]


@pytest.mark.parametrize("grid", ACCEPTED, ids=str)
def test_grids_of_the_same_kind_are_accepted(grid: Grid) -> None:
    prior = velocity().on(grid)
    assert prior.grid is grid
    x_t = torch.full((2, 24, 40), 2500.0, dtype=grid.dtype)
    t = torch.tensor(300.0, dtype=torch.float64)
    # White noise of 300 m/s about 3000 m/s, seen with noise of 300 m/s: halfway.
    torch.testing.assert_close(prior.denoise(x_t, t), torch.full_like(x_t, 2750.0))


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (line(20.0, dims=("depth", "distance")), "'depth'; got cells of 20"),
        (line(-10.0), "Flip"),
        (line(coords={"z": np.array(list("abcdefghijklmnopqrstuvwx"))}), "not numeric"),
        (line(coords={"x": np.geomspace(1, 400, 40)}), "other cells along 'x'"),
    ],
    ids=["renamed", "descending", "letters", "uneven"],
)
def test_other_cells_are_refused_under_any_name(grid: Grid, words: str) -> None:
    with pytest.raises(InputError, match=words):
        velocity().on(grid)
    # The same grid straight away, where its dims are those of the card.
    if grid.dims == ("z", "x"):
        with pytest.raises(InputError, match=words):
            velocity(grid)


def test_a_grid_in_between_does_not_loosen_the_checks() -> None:
    """Neither units nor cells are forgotten on a grid that states none."""
    unstated = velocity().on(Grid(("depth", "distance"), (24, 40)))
    with pytest.raises(InputError, match="km s-1"):
        unstated.on(line(units="km s-1"))
    with pytest.raises(InputError, match="cells of 20"):
        unstated.on(line(20.0))
    with pytest.raises(ShapeError, match="another order"):
        unstated.on(Grid(("x", "z"), (24, 40)))


@pytest.mark.parametrize("spacing", [{"y": 10.0}, {"z": 0.0}, {"z": "10 m"}, 10.0])
def test_a_spacing_that_could_not_be_checked_is_refused(spacing: object) -> None:
    with pytest.raises(InputError, match="spacing"):
        velocity(spacing=spacing)


def test_a_window_keeps_its_coordinates() -> None:
    part = velocity().on(line(), (slice(4, 24), slice(8, 24)))
    assert part.grid.shape == (20, 16)
    assert part.grid.units == "m s-1"
    np.testing.assert_array_equal(part.grid.coords["z"], np.arange(40.0, 240.0, 10.0))
    np.testing.assert_array_equal(part.grid.coords["x"], np.arange(80.0, 240.0, 10.0))


@pytest.mark.parametrize(
    "window",
    [
        (slice(0, 25), slice(0, 8)),
        (slice(-4, 24), slice(0, 8)),
        (slice(8, 8), slice(0, 8)),
        (slice(0, 8, 2), slice(0, 8)),
        (slice(None), slice(0, 8)),
        (slice(0, 8),),
    ],
    ids=str,
)
def test_windows_outside_the_grid_are_refused(window: tuple[slice, ...]) -> None:
    with pytest.raises(ShapeError, match="window"):
        velocity().on(line(), window)
    with pytest.raises(ShapeError, match="window"):
        from_deepinv(lambda x, _: x, IMAGE).on(Grid(("y", "x"), (24, 40), torch.complex64), window)
    with pytest.raises(ShapeError, match="window"):
        window_grid(line(), window)


# --- the constructor ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "error"),
    [
        (torch.float32, DTypeError),  # the network has two channels
        (torch.float16, DTypeError),
        (torch.complex32, DTypeError),
    ],
)
def test_networks_refuse_grids_that_they_cannot_take(
    dtype: torch.dtype, error: type[InputError]
) -> None:
    made = tiny.prior()
    with pytest.raises(error, match=r"channel|precision") as caught:
        NetworkPrior(made.network, made.spectra, tiny.grid(dtype=dtype))
    assert caught.value.hint


def test_things_that_are_not_grids_or_networks_are_refused() -> None:
    with pytest.raises(InputError, match=r"got tuple.*operator.domain"):
        velocity().on((20, 16))
    with pytest.raises(InputError, match="from_deepinv"):
        NetworkPrior(torch.nn.Identity(), tiny.FLAT, VELOCITY)


def test_networks_refuse_other_position_channels() -> None:
    made = tiny.prior()
    with pytest.raises(ShapeError, match=r"Depth.* 1 channel"):
        NetworkPrior(made.network, made.spectra, made.grid, coordinates=Depth())


@pytest.mark.parametrize(
    "units", [{"scale": 0.0}, {"scale": -1.0}, {"scale": True}, {"offset": np.nan}, {"scale": "1"}]
)
def test_units_that_are_not_numbers_are_refused(units: dict[str, float]) -> None:
    made = tiny.prior()
    with pytest.raises(InputError, match=next(iter(units))):
        NetworkPrior(made.network, made.spectra, made.grid, **units)


def test_numpy_numbers_are_numbers() -> None:
    made = tiny.prior()
    prior = NetworkPrior(
        made.network, made.spectra, made.grid, scale=np.float32(3), offset=np.array(1)
    )
    assert (prior.scale, prior.offset) == (3.0, 1.0)
    assert type(prior.scale) is type(prior.offset) is float


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"ratios": [1.0, 0.1]}, InputError),
        ({"ratios": [0.0, 1.0]}, InputError),
        ({"wavenumbers": [0.1, 0.5]}, InputError),
        ({"power": [[1.0, np.nan], [1.0, 1.0]]}, InputError),
        ({"power": [[1.0, -1.0], [1.0, 1.0]]}, InputError),
        ({"power": [1.0, 1.0]}, ShapeError),
    ],
)
def test_spectra_that_are_not_a_table_are_refused(
    changed: dict[str, list[float]], error: type[InputError]
) -> None:
    table = {"ratios": [0.1, 1.0], "wavenumbers": [0.0, 0.5], "power": [[1.0, 1.0], [1.0, 1.0]]}
    ErrorSpectra(**table)
    with pytest.raises(error):
        ErrorSpectra(**{**table, **changed})


# --- tiled and wrapped ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grid", "error", "words"),
    [
        (line(dtype=torch.complex64), DTypeError, "real fields"),
        (Grid(("x",), (40,)), ShapeError, "2-D"),
        (Grid(("x", "z"), (40, 24)), ShapeError, "another order"),
        (line(units="km/s"), InputError, "units"),
        (line(20.0), InputError, "cells of 20"),
    ],
)
def test_tiled_priors_refuse_grids_of_another_kind(
    grid: Grid, error: type[InputError], words: str
) -> None:
    with pytest.raises(error, match=words):
        TiledPrior(velocity(), grid, overlap=4)
    with pytest.raises(error, match=words):
        TiledPrior(velocity(), line(), overlap=4).on(grid)


@pytest.mark.parametrize("overlap", [1.5, True, "4", -1, 16, np.float64(4.0)])
def test_an_overlap_is_a_whole_number_of_pixels(overlap: object) -> None:
    with pytest.raises(InputError, match="overlap"):
        TiledPrior(velocity(), line(), overlap=overlap)


@pytest.mark.parametrize("overlap", [np.int64(8), np.uint8(8), np.array(8)])
def test_numpy_integers_are_overlaps(overlap: object) -> None:
    tiled = TiledPrior(velocity(), line(), overlap=overlap)
    assert type(tiled.overlap) is int
    assert [w[1].start for w in tiled._windows[:4]] == [0, 8, 16, 24]


def test_a_prior_in_closed_form_is_not_tiled() -> None:
    exact = GaussianPrior(Grid(("x",), (3,)), torch.zeros(3), torch.eye(3))
    with pytest.raises(UnsupportedError, match="GaussianPrior"):
        TiledPrior(exact, Grid(("x",), (9,)))


@pytest.mark.parametrize(
    ("grid", "error"),
    [
        (IMAGE.with_dtype(torch.float32), DTypeError),
        (Grid(("x",), (20,), torch.complex64), ShapeError),
        (Grid(("x", "y"), (20, 16), torch.complex64), ShapeError),
    ],
)
def test_denoisers_of_deepinv_refuse_grids_of_another_kind(
    grid: Grid, error: type[InputError]
) -> None:
    with pytest.raises(error):
        from_deepinv(lambda x, _: x, IMAGE).on(grid)


def test_denoisers_of_deepinv_refuse_other_channels() -> None:
    def rgb(x: Tensor, sigma: float) -> Tensor:
        return torch.conv2d(x, torch.ones(3, 3, 1, 1))

    t = torch.tensor(0.5)
    with pytest.raises(ShapeError, match=r"number of channels.*2 channel\(s\)"):
        from_deepinv(rgb, IMAGE).denoise(torch.zeros(1, 20, 16, dtype=torch.complex64), t)
    colour = from_deepinv(rgb, Grid(("c", "y", "x"), (3, 8, 8)))
    assert colour.denoise(torch.zeros(1, 3, 8, 8), t).shape == (1, 3, 8, 8)
    with pytest.raises(ShapeError, match="channels"):
        colour.on(Grid(("c", "y", "x"), (2, 8, 8)))
    with pytest.raises(InputError, match="cannot be called"):
        from_deepinv("DRUNet", IMAGE)


# --- priors in closed form ------------------------------------------------------------------------

N = 4
GRID = Grid(("x",), (N,), torch.float64)
ZEROS, EYE = torch.zeros(N, dtype=torch.float64), torch.eye(N, dtype=torch.float64)
HALF = [0.5, 0.5]


def gaussian(mean: object = ZEROS, covariance: object = EYE) -> GaussianPrior:
    return GaussianPrior(GRID, mean, covariance)


def stationary(mean: object = ZEROS, spectrum: object = ZEROS + 1) -> StationaryGaussianPrior:
    return StationaryGaussianPrior(GRID, mean, spectrum)


def mixture(weights: object = HALF, means: object = (ZEROS, ZEROS)) -> GaussianMixturePrior:
    means = torch.stack(list(means))
    return GaussianMixturePrior(GRID, weights, means, covariances=torch.stack([EYE, EYE]))


NAN = ZEROS + torch.nan


@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda: gaussian(mean=ZEROS[:3]), ShapeError),
        (lambda: gaussian(covariance=EYE[:3, :3]), ShapeError),
        (lambda: gaussian(mean=ZEROS + 1j), DTypeError),
        (lambda: gaussian(covariance=EYE * (1 + 0j)), DTypeError),
        (lambda: gaussian(mean=NAN), NonFiniteError),
        (lambda: gaussian(covariance=EYE + torch.nan), NonFiniteError),
        (lambda: gaussian(covariance=EYE + torch.ones(N, N).triu(1)), InputError),
        (lambda: gaussian(covariance=-EYE), InputError),
        (lambda: stationary(mean=ZEROS[:3]), ShapeError),
        (lambda: stationary(mean=ZEROS + 1j), DTypeError),
        (lambda: stationary(spectrum=ZEROS + 1j), DTypeError),
        (lambda: stationary(spectrum=ZEROS - 1), InputError),
        (lambda: stationary(spectrum=NAN), NonFiniteError),
        # 1e-9 and 2e-9 differ by a factor of two, however small.
        (lambda: stationary(spectrum=1e-9 * torch.arange(1, 5).double()), ShapeError),
        (lambda: mixture(weights=[0.5, np.nan]), NonFiniteError),
        (lambda: mixture(weights=[0.5, 0.6]), InputError),
        (lambda: mixture(means=(ZEROS, ZEROS + 1j)), DTypeError),
        (lambda: mixture(means=(ZEROS,)), ShapeError),
        (
            lambda: GaussianMixturePrior(
                GRID.with_dtype(torch.complex64), HALF, np.zeros((2, N)), covariances=np.zeros(2)
            ),
            DTypeError,
        ),
        (
            lambda: GaussianMixturePrior(GRID, [1.0], ZEROS[None], covariances=-EYE[None]).denoise(
                ZEROS[None], torch.tensor(1.0)
            ),
            InputError,
        ),
        (
            lambda: SpectralMixturePrior(GRID, [1.0], ZEROS[None], spectra=torch.arange(4.0)[None]),
            ShapeError,
        ),
        (lambda: LevyPrior(IMAGE, 1.0), ShapeError),
        (lambda: LevyPrior(GRID.with_dtype(torch.complex64), 1.0), DTypeError),
        (lambda: LevyPrior(GRID, np.inf), InputError),
        (lambda: LevyPrior(GRID, 1.0, first_std=True), InputError),
    ],
)
def test_arrays_that_do_not_fit_their_prior_are_refused(build, error) -> None:
    with pytest.raises(error) as caught:
        build()
    assert caught.value.got is not None
    assert caught.value.expected is not None


@pytest.mark.parametrize("order", ["<", ">"])
def test_arrays_of_any_byte_order_make_the_same_prior(order: str) -> None:
    mean = np.arange(N, dtype=f"{order}f8")
    covariance = np.diag(np.arange(1, N + 1)).astype(f"{order}f4")
    prior = GaussianPrior(GRID, mean, covariance)
    x_t = torch.zeros(1, N, dtype=torch.float64)
    gain = torch.arange(1, N + 1) / torch.arange(2, N + 2)
    expected = torch.arange(N) * (1 - gain.double())
    torch.testing.assert_close(prior.denoise(x_t, torch.tensor(1.0))[0], expected)
