"""Bad input to `invert`: a named error that says what, got, expected, and a hint."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from invdiff import invert
from invdiff.errors import InputError, InvdiffError, NoiseLevelError, NonFiniteError, ShapeError
from invdiff.errors import UnsupportedError as Unsupported
from invdiff.fwi import (
    LBFGS,
    Adam,
    AnnealedMode,
    AnnealedPosterior,
    Encoded,
    Minibatch,
    REDDiffusion,
)
from invdiff.grid import Grid
from invdiff.priors.gaussian import GaussianPrior
from tests.support.closed_form import gaussian_prior
from tests.support.linear_waves import waves_problem

WAVES = waves_problem(n_shots=3)


def spoilt(array: xr.DataArray, value: float) -> xr.DataArray:
    copy = array.copy(deep=True)
    copy[dict.fromkeys(copy.dims, 0)] = value
    return copy


def ones(**sizes: int) -> xr.DataArray:
    return xr.DataArray(np.ones(tuple(sizes.values())), dims=tuple(sizes))


def several(n: int) -> xr.DataArray:
    return xr.concat([WAVES.start] * n, dim="realization")


def other_prior(shape: tuple[int, int]) -> GaussianPrior:
    return gaussian_prior(Grid(("z", "x"), shape, torch.float64))


OTHER_CELLS = {d: 0.7 * v for d, v in WAVES.operator.domain.coords.items()}
NO_NOISE = WAVES.y.drop_attrs()
BAD: dict[str, tuple[dict[str, object], type[InvdiffError], str]] = {
    "NaN start": ({"start": spoilt(WAVES.start, np.nan)}, NonFiniteError, "start"),
    "Inf start": ({"start": spoilt(WAVES.start, np.inf)}, NonFiniteError, "start"),
    "start too fast": ({"start": WAVES.start + 3000}, InputError, "out of bounds"),
    "start too slow": ({"start": spoilt(WAVES.start, 499.0)}, InputError, "out of bounds"),
    "start in km/s": ({"start": WAVES.start / 1000}, InputError, "multiply it by 1000"),
    "start of another size": ({"start": WAVES.start[:-1]}, ShapeError, "start"),
    "start of other dims": ({"start": WAVES.start.rename(z="depth")}, ShapeError, "start"),
    "start elsewhere": ({"start": WAVES.start.assign_coords(z=np.arange(6.0))}, ShapeError, "'z'"),
    "too few starts": ({"start": several(2)}, ShapeError, "starts and members"),
    "NaN traces": ({"y": spoilt(WAVES.y, np.nan)}, NonFiniteError, "NaN within traces"),
    "traces of other shots": ({"y": WAVES.y[:2]}, ShapeError, "pressure"),
    "traces too short": ({"y": WAVES.y[..., :-1]}, ShapeError, "pressure"),
    "other interval": (
        {"y": WAVES.y.assign_coords(time=WAVES.y.time.values * 2)}, ShapeError, "'time'",
    ),
    "no noise level": ({"y": NO_NOISE}, NoiseLevelError, "noise level"),
    "noise of zero": ({"noise_std": 0.0}, NoiseLevelError, "noise level"),
    "negative noise": ({"noise_std": -1.0}, NoiseLevelError, "noise level"),
    "NaN noise": ({"noise_std": np.nan}, NoiseLevelError, "noise level"),
    "infinite noise": ({"noise_std": np.inf}, NoiseLevelError, "noise level"),
    "prior missing": ({"prior": None, "method": REDDiffusion()}, Unsupported, "needs a prior"),
    "no prior to draw from": (
        {"prior": None, "method": AnnealedPosterior()}, Unsupported, "AnnealedPosterior",
    ),
    "prior of another size": ({"prior": other_prior((5, 5))}, ShapeError, "prior"),
    "prior on other cells": (
        {"prior": gaussian_prior(replace(WAVES.operator.domain, coords=OTHER_CELLS))}, ShapeError,
        "x 0 to 35",
    ),
    "draws that stop early": (
        {"stop_at": 1.1, "method": AnnealedPosterior()}, Unsupported,
        "end at their last noise level",
    ),
    "weights of unknown dims": ({"weights": ones(channel=6)}, ShapeError, "weights"),
    "weights of another size": ({"weights": ones(receiver=5)}, ShapeError, "weights"),
    "NaN weights": ({"weights": np.nan * ones(receiver=6)}, NonFiniteError, "weights"),
    "weights of zero": ({"weights": 0 * ones(shot=3)}, InputError, "no data"),
    "budget too small for the start": ({"max_solves": 2}, InputError, "at least 9"),
    "budget too small for a step": ({"max_solves": 8}, InputError, "at least 9"),
    "no budget": ({"max_solves": 0, "method": REDDiffusion()}, InputError, "at least 3"),
    "no members": ({"realizations": 0}, InputError, "realizations"),
    "a member twice": ({"realizations": [1, 1]}, InputError, "distinct"),
    "seed out of range": ({"seed": -1}, InputError, "seed"),
    "frequency above Nyquist": ({"method": LBFGS(4, bands=(60.0,))}, InputError, "band"),
    "weights by shot, encoded": (
        {"method": LBFGS(4, shots=Encoded(1)), "weights": ones(shot=3).cumsum("shot")}, InputError,
        "fired together",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told(name: str) -> None:
    changes, kind, words = BAD[name]
    given = {"y": WAVES.y, "prior": WAVES.prior, "start": WAVES.start, "seed": 0} | changes
    settings = {"method": AnnealedMode(4, fit=None), "realizations": 3} | given
    y, prior = settings.pop("y"), settings.pop("prior")
    with pytest.raises(kind) as caught:
        invert(y, WAVES.operator, prior, **settings)
    error = caught.value
    assert type(error) is kind
    assert words in str(error)
    assert error.expected is not None
    assert str(error.expected) in str(error)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LBFGS(0),
        lambda: LBFGS(bands=(10.0, 5.0)),
        lambda: Adam(0),
        lambda: AnnealedPosterior(0),
        lambda: AnnealedPosterior(highest=10.0, lowest=20.0),
        lambda: AnnealedPosterior(lowest=0.0),
        lambda: AnnealedMode(lowest=-1.0),
        lambda: REDDiffusion(0),
        lambda: REDDiffusion(weight=-1.0),
        lambda: REDDiffusion(rate=0.0),
        lambda: REDDiffusion(lowest=3000.0),
        lambda: Minibatch(0),
        lambda: Encoded(1, keep=0),
    ],
)
def test_settings_that_make_no_method_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InputError, match="expected"):
        make()


OTHER_RUNS: dict[str, dict[str, object]] = {
    "method": {"method": AnnealedMode(3, fit=None)},
    "seed": {"seed": 1},
    "members": {"realizations": 2},
    "noise": {"noise_std": 99.0},
    "traces": {"y": WAVES.y + 1.0, "noise_std": 100.0},
    "weights": {"weights": 0.5 * ones(receiver=6)},
    "start": {"start": WAVES.start + 1.0},
    "bounds": {"operator": waves_problem(n_shots=3, bounds=(600.0, 4400.0)).operator},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "state"
    again(path)
    return path


def again(path: Path, **changes: object) -> xr.Dataset:
    given = {"y": WAVES.y, "operator": WAVES.operator, "start": WAVES.start, "seed": 0}
    given |= {"realizations": 1, "method": AnnealedMode(2, fit=None)} | changes
    y, operator = given.pop("y"), given.pop("operator")
    return invert(y, operator, WAVES.prior, checkpoint=path, **given)


@pytest.mark.parametrize("what", OTHER_RUNS)
def test_the_checkpoint_of_another_run_is_refused(checkpoint: Path, what: str) -> None:
    before = checkpoint.read_bytes()
    with pytest.raises(InputError, match="belongs to another run"):
        again(checkpoint, **OTHER_RUNS[what])
    assert checkpoint.read_bytes() == before


def test_the_checkpoint_of_the_same_run_is_taken(checkpoint: Path) -> None:
    xr.testing.assert_identical(again(checkpoint), again(checkpoint))


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not tensors")
    with pytest.raises(InputError, match=r"notes\.txt is not a stored run"):
        again(path)
    assert path.read_text() == "not tensors"
