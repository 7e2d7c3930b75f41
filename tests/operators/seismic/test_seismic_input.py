"""Bad input to the wave-equation operators: a named error with what, got, expected and the fix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from invdiff.errors import (
    DTypeError,
    InputError,
    InvdiffError,
    NonFiniteError,
    ShapeError,
    UnsupportedError,
)
from invdiff.grid import Grid
from invdiff.operators.seismic import (
    Acoustic,
    Born,
    Boundary,
    Devito,
    Survey,
    Threads,
    gardner,
    ricker,
)
from tests.support.seismic_cases import BOUNDS, acoustic, domain, line, model

pytest.importorskip("devito")
pytestmark = pytest.mark.seismic

Make = Callable[[], object]


def assert_tells(error: InvdiffError, *words: str) -> None:
    for part in (error.what, error.got, error.expected):
        assert part is not None
        assert str(part) in str(error)
    for word in words:
        assert word in str(error), word


def survey(**changes: Any) -> Survey:
    """One shot, two receivers."""
    sources, receivers = [(20.0, 100.0)], [(20.0, 50.0), (20.0, 250.0)]
    return Survey(
        changes.get("sources", sources),
        changes.get("receivers", receivers),
        ricker(15.0, 1e-3, 200),
        1e-3,
    )


def built(
    *, on: Survey | None = None, grid: Grid | None = None, bounds: Any = BOUNDS, **more: Any
) -> Acoustic:
    return Acoustic(on or survey(), grid or domain(), bounds=bounds, **more)


def on_axes(z: Any, x: Any) -> Grid:
    z, x = np.asarray(z, float), np.asarray(x, float)
    return Grid(("z", "x"), (len(z), len(x)), torch.float64, {"z": z, "x": x})


Z, X = np.arange(24) * 10.0, np.arange(30) * 10.0
UNEVEN = np.where(np.arange(24) < 20, Z, Z + 5)
FREE = Boundary(10, is_free_surface=True)

CONSTRUCTION: dict[str, tuple[Make, type[InvdiffError], list[str]]] = {
    "CFL violated": (
        lambda: built(bounds=(1500, 9000), engine=Devito(substeps=1)),
        InputError,
        ["CFL", "9000", "substeps=2", "upper velocity bound"],
    ),
    "CFL violated with a density": (
        lambda: built(bounds=(1500, 14000), engine=Devito(substeps=2), density=gardner),
        InputError,
        ["CFL", "substeps=3"],
    ),
    "bounds in km/s": (lambda: built(bounds=(1.5, 4.5)), InputError, ["km/s", "1000"]),
    "bounds reversed": (lambda: built(bounds=(4500, 1500)), InputError, ["low < high"]),
    "bounds of zero": (lambda: built(bounds=(0, 4500)), InputError, ["low < high"]),
    "bounds of NaN": (lambda: built(bounds=(1500, np.nan)), InputError, ["low < high"]),
    "bounds infinite": (lambda: built(bounds=(1500, np.inf)), InputError, ["low < high"]),
    "receiver outside": (
        lambda: built(on=survey(receivers=[(20.0, 50.0), (20.0, 291.0)])),
        InputError,
        ["receiver 1", "291", "290"],
    ),
    "source outside": (lambda: built(on=survey(sources=[(-1.0, 50)])), InputError, ["source 0"]),
    "positions in km": (
        lambda: built(on=survey(sources=[(0.02, 0.1)], receivers=[(0.02, 0.05), (0.02, 0.25)])),
        InputError,
        ["km", "1000"],
    ),
    "source on the free surface": (
        lambda: built(on=survey(sources=[(0.0, 100.0)]), boundary=FREE),
        InputError,
        ["source", "free surface", "cell deeper"],
    ),
    "receiver on the free surface": (
        lambda: built(on=survey(receivers=[(0.0, 50.0), (20.0, 50.0)]), boundary=FREE),
        InputError,
        ["receiver", "free surface"],
    ),
    "uneven grid": (
        lambda: built(grid=on_axes(UNEVEN, X)), InputError, ["evenly", "z", "Interpolate"]
    ),
    "grid upside down": (lambda: built(grid=on_axes(Z[::-1], X)), InputError, ["evenly"]),
    "one column": (
        lambda: built(
            on=survey(sources=[(20.0, 0.0)], receivers=[(30.0, 0.0), (90.0, 0.0)]),
            grid=on_axes(Z, X[:1]),
        ),
        InputError,
        ["x"],
    ),
    "grid of y and x": (
        lambda: built(grid=Grid(("y", "x"), (24, 30), torch.float64, {"y": Z, "x": X})),
        ShapeError,
        ["'z'"],
    ),
    "grid without coordinates": (
        lambda: built(grid=Grid(("z", "x"), (24, 30), torch.float64)), ShapeError, ["coordinate"]
    ),
    "complex grid": (
        lambda: built(grid=Grid(("z", "x"), (24, 30), torch.complex64, {"z": Z, "x": X})),
        DTypeError,
        ["complex64", "float32"],
    ),
    "half precision": (
        lambda: built(grid=Grid(("z", "x"), (24, 30), torch.float16, {"z": Z, "x": X})),
        DTypeError,
        ["float16", "float32"],
    ),
    "density of another shape": (
        lambda: built(density=torch.ones(24, 29)), ShapeError, ["(24, 29)", "(24, 30)"]
    ),
    "density in g/cm3": (
        lambda: built(density=torch.full((24, 30), 2.1)), InputError, ["kg/m^3", "1000"]
    ),
    "density of zero": (lambda: built(density=torch.zeros(24, 30)), InputError, ["density"]),
    "density of NaN": (
        lambda: built(density=torch.full((24, 30), torch.nan)), NonFiniteError, ["density"]
    ),
    "odd order": (lambda: built(engine=Devito(space_order=5)), InputError, ["even", "5"]),
    "order of zero": (lambda: built(engine=Devito(space_order=0)), InputError, ["even"]),
    "no snapshot": (lambda: built(engine=Devito(snapshot=0)), InputError, ["snapshot", ">= 1"]),
    "no substeps": (lambda: built(engine=Devito(substeps=0)), InputError, ["substeps", ">= 1"]),
    "no layer": (lambda: Boundary(0), InputError, ["n_absorbing >= 1"]),
    "layer that amplifies": (lambda: Boundary(reflection=2.0), InputError, ["between 0 and 1"]),
    "model thinner than the ghosts": (
        lambda: built(grid=on_axes(Z[:4], X), boundary=FREE), ShapeError, ["rows", "free surface"]
    ),
}  # fmt: skip


COUNTS: dict[str, Callable[[Any], object]] = {
    "Threads": Threads,
    "Boundary": Boundary,
    "space_order": lambda n: Devito(space_order=n),
    "snapshot": lambda n: Devito(snapshot=n),
    "substeps": lambda n: Devito(substeps=n),
}


@pytest.mark.parametrize("make", COUNTS.values(), ids=COUNTS)
def test_counts_are_integers(make: Callable[[Any], object]) -> None:
    assert repr(make(np.int64(2))) == repr(make(np.uint8(2))) == repr(make(2))
    for value in (True, np.True_, 1.5, 2.0, "2", np.float32(2)):
        with pytest.raises(InputError, match="not an integer"):
            make(value)


@pytest.mark.parametrize("case", CONSTRUCTION)
def test_construction(case: str) -> None:
    make, error, words = CONSTRUCTION[case]
    with pytest.raises(error) as raised:
        make()
    assert_tells(raised.value, *words)


def spoiled(value: float) -> torch.Tensor:
    v = model()
    v[0, 3, 4] = value
    return v


MODELS: dict[str, tuple[Callable[[], torch.Tensor], type[InvdiffError], list[str]]] = {
    "NaN": (lambda: spoiled(np.nan), NonFiniteError, ["1 of 720 cells"]),
    "Inf": (lambda: spoiled(np.inf), NonFiniteError, ["1 of 720 cells"]),
    "too fast": (lambda: spoiled(3501.0), InputError, ["3501", "3500", "Clamp"]),
    "too slow": (lambda: spoiled(1499.0), InputError, ["1499", "1500"]),
    "negative": (lambda: spoiled(-2000.0), InputError, ["-2000"]),
    "km/s": (lambda: model() / 1000, InputError, ["km/s", "multiply it by 1000"]),
    "no batch": (lambda: model()[0], ShapeError, ["(24, 30)"]),
    "another shape": (lambda: model((24, 31)), ShapeError, ["(1, 24, 31)"]),
    "transposed": (lambda: model().mT, ShapeError, ["(1, 30, 24)"]),
    "complex": (lambda: model().to(torch.complex128), DTypeError, ["complex128", "float64"]),
}


@pytest.mark.parametrize("case", MODELS)
def test_models(case: str) -> None:
    make, error, words = MODELS[case]
    operator = acoustic()
    y = torch.zeros(operator.range.shape, dtype=torch.float64)
    for call in (operator, lambda v: operator.misfit_and_gradient(v, y)):
        with pytest.raises(error) as raised:
            call(make())
        assert_tells(raised.value, *words)
    if case not in ("no batch", "another shape", "transposed"):
        with pytest.raises(error):
            Born(operator, make()[0])


@pytest.mark.parametrize(
    ("shape", "dtype", "error"),
    [
        ((2, 8, 199), torch.float64, ShapeError),
        ((1, 8, 200), torch.float64, ShapeError),
        ((2, 200, 8), torch.float64, ShapeError),
        ((3, 2, 8, 200), torch.float64, ShapeError),
        ((8, 200), torch.float64, ShapeError),
        ((2, 8, 200), torch.complex128, DTypeError),
    ],
)
def test_data(shape: tuple[int, ...], dtype: torch.dtype, error: type[InvdiffError]) -> None:
    with pytest.raises(error) as raised:
        acoustic().misfit_and_gradient(model(), torch.zeros(shape, dtype=dtype))
    assert_tells(raised.value)


def test_data_of_nan() -> None:
    operator = acoustic()
    y = torch.zeros(operator.range.shape, dtype=torch.float64)
    y[1, 2, 3] = torch.nan
    with pytest.raises(NonFiniteError) as raised:
        operator.misfit_and_gradient(model(), y)
    assert_tells(raised.value, "1 of 3200")


@pytest.mark.parametrize(
    "weights",
    [
        np.ones(2),
        np.ones((1, 3)),
        np.zeros((1, 2)),
        np.array([[1.0, 1.0], [0.0, 0.0]]),
        np.zeros((0, 2)),
    ],
)
def test_weights(weights: np.ndarray) -> None:
    with pytest.raises(ShapeError) as raised:
        acoustic().encoded(weights)
    assert_tells(raised.value, "(n_encoded, 2)")


def test_weights_of_nan() -> None:
    with pytest.raises(NonFiniteError) as raised:
        acoustic().encoded(np.array([[1.0, np.nan]]))
    assert_tells(raised.value, "weights")


def test_encoding_a_moving_spread() -> None:
    fixed = line()
    receivers = np.stack([fixed.receivers, fixed.receivers + 1])
    moving = acoustic(Survey(fixed.sources, receivers, fixed.wavelet, fixed.dt))
    with pytest.raises(InputError) as raised:
        moving.encoded(np.ones((1, 2)))
    assert_tells(raised.value, "moving spread")


def test_choosing_from_encoded_shots() -> None:
    with pytest.raises(InputError, match=r"[Cc]hoose before encoding"):
        acoustic().encoded(np.ones((1, 2))).shots([0])


@pytest.mark.parametrize("indices", [[2], [-1], []])
def test_shots(indices: list[int]) -> None:
    with pytest.raises(InputError) as raised:
        acoustic().shots(indices)
    assert_tells(raised.value)


@pytest.mark.parametrize("value", [0.0, -2000.0, torch.nan])
def test_density_as_a_function(value: float) -> None:
    """What it gives back is known at the call alone."""
    operator = acoustic(density=lambda v: torch.full_like(v, value))
    with pytest.raises(InputError) as raised:
        operator(model())
    assert_tells(raised.value, "density")


def test_density_function_of_another_shape() -> None:
    operator = acoustic(density=lambda v: v[:, :-1])
    with pytest.raises(ShapeError) as raised:
        operator(model())
    assert_tells(raised.value, "density", "(1, 23, 30)")


def test_born_of_a_density() -> None:
    with pytest.raises(UnsupportedError) as raised:
        Born(acoustic(density=gardner), model()[0])
    assert_tells(raised.value, "torch.func.vjp")
