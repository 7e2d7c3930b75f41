"""The verb ``assimilate``: observations in time, a model and initial members in; analyses out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm import tqdm

from invdiff.arguments import as_integer
from invdiff.assimilation import Analysis, Cycle, IEnKF, Observation, cycles
from invdiff.dynamics import check_step_model
from invdiff.errors import InputError, ShapeError
from invdiff.grid import Grid, check_coordinates, check_dataarray
from invdiff.likelihood import Gaussian, Likelihood
from invdiff.noise_levels import GivenNoise, noise_model
from invdiff.protocols import Operator, StepModel
from invdiff.result import provenance
from invdiff.verbs.members import given_members
from invdiff.verbs.times import in_model_units, steps_between

__all__ = ["assimilate"]

_TOO_WIDE, _TOO_NARROW = 0.9, 1.1  # innovations below and beyond which a verdict says so


def assimilate(
    y: xr.DataArray,
    observed: Operator,
    model: StepModel,
    *,
    initial: xr.DataArray,
    seed: int,
    analysis: Analysis | None = None,
    noise_std: GivenNoise | None = None,
    likelihood: Callable[[Tensor, Operator], Likelihood] | None = None,
    name: str | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Sequential assimilation: an ensemble that follows observations in time.

    From each time with data to the next the model takes the members ahead, and the analysis moves
    them by the data. Whether the spread before the data is right is checked in every cycle by the
    innovations, the differences of data and mean forecast: ``innovation`` is 1 on average if it is.

    Args:
        y: Observations ``(time, ...)``, whose further dims are those of the operator's range; NaN
            where nothing was observed. ``time`` holds numbers in the model's units, or dates, for
            models with ``dt`` in seconds.
        observed: Operator from states of the model to the data of one time.
        model: Step model, such as `invdiff.operators.atmosphere.Lorenz96`.
        initial: Members ``(realization, ...)`` on the model's grid, two or more. Their scalar
            coordinate ``time`` says when they are valid; without it they are at time 0.
        seed: Seed of all randomness.
        analysis: `IEnKF` by default, without localization; few members on a large grid need one.
        noise_std: Standard deviation of the errors of the observations, in their units; by default
            ``y.attrs["noise_std"]``.
        likelihood: Function of data and operator that makes another likelihood than that of
            Gaussian noise; for gross errors ``partial(StudentT, noise_std=0.5, degrees=4)``.
        name: Name of the variable in the result; by default that of ``initial``, or ``state``.
        progress: Whether to show a progress bar.

    Returns:
        A Dataset with the analyses ``name (realization, time, ...)``, NaN after a member diverged;
        ``mean`` and ``std``; ``background_mean`` and ``background_std``, before the data of each
        time; ``innovation (time)``, ``misfit (time)`` and ``n_data (time)``. The attribute
        ``invdiff_innovation`` says in words whether spread and innovations agree.

    Raises:
        InputError: Times that do not rise or are not multiples of ``dt``, fewer than two members,
            no data, or objects of the wrong kind.
        ShapeError: Data or members on another grid than operator and model.
        NonFiniteError: Members with NaN or Inf.
        NoiseLevelError: No noise level, or one that is not positive.
        DivergedError: Fewer than two members are finite.

    Warns:
        DivergedMembersWarning: Members that diverged, by number and cycle.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> import invdiff
        >>> from invdiff.operators import Identity
        >>> from invdiff.operators.atmosphere import Lorenz63
        >>> model = Lorenz63(dt=0.01)
        >>> truth = torch.tensor([[1.0, 2.0, 20.0]])
        >>> rng, data = np.random.default_rng(0), []
        >>> for _ in range(20):
        ...     for _ in range(10):
        ...         truth = model.step(truth)
        ...     data.append(truth[0].numpy() + rng.standard_normal(3))
        >>> coords = {"time": 0.1 * np.arange(1, 21), "component": ["x", "y", "z"]}
        >>> y = xr.DataArray(data, coords, name="state", attrs={"noise_std": 1.0})
        >>> initial = xr.DataArray(
        ...     20 + 8 * rng.standard_normal((20, 3)), dims=("realization", "component")
        ... )
        >>> analyses = invdiff.assimilate(y, Identity(model.grid), model, initial=initial, seed=0)
        >>> error = analyses["mean"].isel(time=-1) - truth[0].numpy()
        >>> bool(abs(error).max() < 1.0)
        True
    """
    check_step_model(model)
    seed = as_integer("seed", seed, least=0)
    members, numbers = given_members(initial, model.grid)
    data, times = _given_data(y, observed, model, initial)
    if likelihood is None:
        likelihood = partial(Gaussian, noise=noise_model(noise_std, y, observed.range))
    analysis = analysis or IEnKF()
    steps = steps_between(times, model)
    run = cycles(
        members,
        [Observation(n, own) for n, own in zip(steps, data, strict=True)],
        model=model,
        observed=observed,
        analysis=analysis,
        likelihood=likelihood,
        seed=seed,
    )
    done = list(tqdm(run, total=len(steps), disable=not progress, desc="cycles"))
    name = name or (str(initial.name) if initial.name is not None else "state")
    settings: dict[str, object] = {
        "seed": seed,
        "analysis": analysis,
        "model": model,
        "operator": observed,
        "likelihood": likelihood,
        "innovation": _verdict(done),
    }
    return _dataset(done, numbers, model.grid, time=y["time"], name=name).assign_attrs(
        provenance(None, settings)
    )


def _given_data(
    y: xr.DataArray, observed: Operator, model: StepModel, initial: xr.DataArray
) -> tuple[Tensor, np.ndarray]:
    """Data ``(time, *observed.range.shape)`` and their times since the initial states."""
    check_dataarray(y, "the observations")
    if observed.domain != model.grid:
        raise ShapeError(
            "the observation operator does not act on the model's states",
            got=f"a domain {observed.domain}",
            expected=f"{model.grid}",
            hint="Build it on model.grid.",
        )
    grid = observed.range
    if set(map(str, y.dims)) != {"time", *grid.dims} or "time" not in y.coords:
        raise ShapeError(
            "the observations have other dims than time and those of the operator's range",
            got=f"{dict(y.sizes)}, coordinates {[str(c) for c in y.coords]}",
            expected=f"time, with its coordinate, and {grid.dims}",
        )
    y = y.transpose("time", *grid.dims)
    if y.shape[1:] != grid.shape:
        raise ShapeError(
            "the observations do not lie on the operator's range",
            got=dict(y.sizes),
            expected=dict(zip(grid.dims, grid.shape, strict=True)),
        )
    check_coordinates(y, grid, "the observations")
    data = torch.from_numpy(np.array(y.values, np.float64)).to(grid.dtype)
    if not bool(torch.isfinite(data).any()):
        raise InputError("there are no observations", got="NaN alone", expected="some numbers")
    reference = initial["time"].values if "time" in initial.coords else _origin(y["time"])
    return data, in_model_units(y["time"], reference)


def _origin(time: xr.DataArray) -> object:
    if np.issubdtype(time.dtype, np.number):
        return 0.0
    raise InputError(
        "the time of the initial states is not known",
        got=f"observations at {time.values[0]} and later, no scalar coordinate `time` of `initial`",
        expected="initial.assign_coords(time=...)",
    )


def _verdict(done: list[Cycle]) -> str:
    """Whether spread and innovations agree, in a sentence."""
    counted = [(c.innovation, c.n_data) for c in done if c.n_data]
    values, n = (np.array(part, float) for part in zip(*counted, strict=True))
    mean = float((values * n).sum() / n.sum())
    chance = 4 * (2 / n.sum()) ** 0.5  # four standard errors of a chi-square over its number
    text = f"The innovations are {mean:.2f} of what spread and noise predict, where 1 is expected"
    if mean > _TOO_NARROW + chance:
        return text + ": the spread is too narrow, or the noise is larger than stated."
    if mean < _TOO_WIDE - chance:
        return text + ": the spread is too wide, or the noise is smaller than stated."
    return text + "."


def _dataset(
    done: list[Cycle], numbers: list[int], grid: Grid, *, time: xr.DataArray, name: str
) -> xr.Dataset:
    """The labelled analyses, and what the data say of the forecasts."""
    shape = (len(numbers), len(done), *grid.shape)
    analyses = torch.full(shape, torch.nan, dtype=grid.dtype)
    for k, cycle in enumerate(done):
        analyses[list(cycle.numbers), k] = cycle.analysis.cpu()
    leading: Mapping[str, Sequence[int] | np.ndarray] = {
        "realization": numbers,
        "time": time.values,
    }

    def over_time(part: str, statistic: Callable[[Tensor], Tensor], label: str) -> xr.DataArray:
        values = torch.stack([statistic(getattr(cycle, part)).cpu() for cycle in done])
        return grid.to_dataarray(
            values, label, leading={"time": time.values}, attrs={"long_name": label}
        )

    members = grid.to_dataarray(analyses, name, leading=leading, attrs={"long_name": "analysis"})
    members["realization"].attrs = {"standard_name": "realization", "units": "1"}
    labels = {
        "innovation": "squared innovation over its expectation, per datum",
        "misfit": "squared residual of the analyses over the noise, per datum",
        "n_data": "number of data",
    }
    series = {
        key: (
            "time",
            np.array([getattr(cycle, key) for cycle in done]),
            {"long_name": text, "units": "1"},
        )
        for key, text in labels.items()
    }
    result = xr.Dataset(
        {
            name: members,
            "mean": over_time("analysis", lambda x: x.mean(0), "analysis mean"),
            "std": over_time("analysis", lambda x: x.std(0), "analysis standard deviation"),
            "background_mean": over_time("background", lambda x: x.mean(0), "mean before the data"),
            "background_std": over_time(
                "background", lambda x: x.std(0), "standard deviation before the data"
            ),
            **series,
        }
    )
    result["time"].attrs = dict(time.attrs)
    return result
