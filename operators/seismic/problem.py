"""From a seismic line and a starting model to a problem that any prior can be put on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from invdiff.arguments import as_number
from invdiff.errors import InputError, NoiseLevelError, ShapeError
from invdiff.grid import Grid, check_finite
from invdiff.operators.seismic.acoustic import Acoustic
from invdiff.operators.seismic.boundary import Boundary
from invdiff.operators.seismic.inputs import check_bounds
from invdiff.operators.seismic.noise import NoiseEstimate, noise_before_arrivals
from invdiff.operators.seismic.propagator import Devito
from invdiff.operators.seismic.source import estimate_wavelet
from invdiff.operators.seismic.survey import Survey
from invdiff.operators.seismic.wavelets import chosen_wavelet, on_one_axis, pulse, sampling
from invdiff.operators.seismic.workers import Threads
from invdiff.protocols import Problem
from invdiff.traces import LiveTraces, amplitude_weights, is_far, live_traces

__all__ = ["acoustic_problem"]

_NAMES = ("source_z", "source_x", "receiver_z", "receiver_x", "time", "wavelet", "pressure")
_DIMS = ("shot", "receiver", "time")


def acoustic_problem(
    line: Mapping[Any, Any],
    start: Any,
    *,
    bounds: tuple[float, float] = (1400.0, 5000.0),
    boundary: Boundary | None = None,
    ricker: float | None = None,
    delay: float | None = None,
    wavelet: Any = None,
    noise_std: float | None = None,
    mute: float = 25.0,
    relative_error: float = 0.05,
    n_threads: int = 1,
) -> Problem:
    r"""An acoustic operator, weighted traces and a start, in single precision.

    The operator is `Acoustic` of constant density on the grid of the starting model. Traces count
    with :math:`w = \sigma / \sqrt{\sigma^2 + (r e)^2}`, with the noise :math:`\sigma`, the relative
    error of the modelling :math:`r` and the envelope :math:`e` (see `invdiff.fwi.
    amplitude_weights`). Dead traces, NaN at the ends of traces and traces nearer to the source than
    ``mute`` have weight 0.

    A wavelet that is not known is estimated by least squares with the start as the model
    (`estimate_wavelet`), for one solve per shot; otherwise nothing is compiled or solved here. A
    noise level that is not known is estimated from the samples before the first arrivals
    (`invdiff.operators.seismic.noise.noise_before_arrivals`). The modelling begins before time zero
    where the wavelet or the recording does; samples that were not recorded have weight 0.

    Args:
        line: a Dataset of `invdiff.read_survey`, or its arrays by name: ``pressure (shot, receiver,
            time)``; ``source_z``, ``source_x`` ``(shot,)``, ``receiver_z``, ``receiver_x``
            ``(receiver,)`` or ``(shot, receiver)``, m; ``time``, s, the source acting at zero; and
            ``wavelet`` ``(time,)`` or ``(shot, time)`` if it is known.
        start: starting model, m/s, with its coordinates in m: a DataArray ``(z, x)`` of
            `invdiff.io.read_velocity`, or arrays ``velocity (z, x)``, ``z`` and ``x`` by name. It
            gives the grid of the inversion.
        bounds: lowest and highest velocity that a model may have, m/s.
        boundary: what surrounds the model; ``Boundary(60)`` by default.
        ricker: peak frequency of a Ricker wavelet for a line that has none, Hz.
        delay: time of its peak, s; 1.5 periods unless given, 0 for a wavelet of zero phase.
        wavelet: amplitudes ``(n,)`` or ``(shot, n)`` at the step of the data, from time zero on, or
            a DataArray of `invdiff.read_wavelet` with its own ``time``.
        noise_std: standard deviation of the noise of a sample, in the units of ``pressure``; by
            default its attribute ``noise_std``, or else an estimate.
        mute: traces nearer to their source have weight 0, m: a grid does not resolve a point
            source. 0 keeps all.
        relative_error: errors of the modelling as a share of the amplitude.
        n_threads: shots that are solved at the same time.

    Returns:
        The problem. Its notes count ``dead_traces``, ``padded_samples`` and ``muted_traces``, and
        say what the ``wavelet`` is if the line has none, where a noise level that was estimated
        comes from (``noise_source``), and the time at which the modelling begins if it is not zero
        (``modelled_from``, s).

    Raises:
        InputError: no traces, two wavelets, a start without coordinates or out of bounds, positions
            outside the model, weights that leave no data.
        ShapeError: arrays that do not fit together.
        NoiseLevelError: a noise level that is not positive, or none that can be estimated.
        NonFiniteError: Inf, or NaN that is not the end of a trace.
        MissingDependencyError: Devito or its C compiler is not installed.

    Warns:
        DataWarning: dead traces or padded samples, with their number; an estimated wavelet that
            explains less than half of the data.
    """
    _check_kinds(line, start)
    arrays = _arrays(line)
    known = chosen_wavelet(arrays, wavelet, ricker=ricker, delay=delay)
    guess, length = (known, 0.0) if known else pulse(arrays)
    placed, n_before = on_one_axis(arrays, guess)
    survey = Survey.from_arrays(placed)
    _check_pressure(arrays["pressure"], survey, n_before)
    domain, model = _model(start, bounds)
    physics = partial(
        Acoustic,
        domain=domain,
        bounds=bounds,
        boundary=boundary or Boundary(60),
        engine=Devito(workers=Threads(n_threads)),
    )
    operator = physics(survey)
    live = live_traces(np.asarray(arrays["pressure"], np.float32))
    noise, notes = _noise(line, noise_std, _Recording(live, survey, arrays["time"], bounds[1]))
    weights, n_muted = _weights(live, survey, noise, mute=mute, relative=relative_error)
    notes |= live.notes | ({"muted_traces": n_muted} if n_muted else {})
    before = [(0, 0), (0, 0), (n_before, 0)]
    data, weighted = (torch.from_numpy(np.pad(part, before)) for part in (live.values, weights))
    if known is None:
        # Loud samples count in full: they are the early ones, which the start explains best.
        counted = (weighted != 0).to(weighted)
        found = estimate_wavelet(operator, model, data, weights=counted, length=length)
        operator = physics(replace(survey, wavelet=found.wavelet))
        notes["wavelet"] = found.verdict
    elif known.note:
        notes["wavelet"] = known.note
    start_time = sampling(arrays["time"])[1] - n_before
    if start_time:
        notes["modelled_from"] = start_time * survey.dt
    return Problem(operator, data, noise, weights=weighted, start=model, notes=notes)


def _check_kinds(line: object, start: object) -> None:
    """Refuse paths, arrays without names, and arguments in the wrong order."""
    if not isinstance(line, Mapping):
        raise InputError(
            "the line is not a Dataset",
            got=type(line).__name__,
            expected="acoustic_problem(line, start, ...) with the Dataset of a line",
            hint="Read a file with invdiff.read_survey(path).",
        )
    is_named = "velocity" in start if isinstance(start, Mapping) else hasattr(start, "coords")
    if not is_named:
        raise InputError(
            "the start is not a velocity model with coordinates",
            got=type(start).__name__,
            expected="a DataArray (z, x), or arrays velocity, z and x by name",
            hint="Read a file with invdiff.io.read_velocity(path).",
        )


def _arrays(line: Mapping[Any, Any]) -> dict[str, NDArray[Any]]:
    """Those of the survey, axes in order."""
    if "pressure" not in line:
        raise InputError(
            "the line holds no traces",
            got=sorted(map(str, line)),
            expected="also 'pressure', (shot, receiver, time)",
            hint="Read it with invdiff.read_survey.",
        )
    found = {}
    for name in _NAMES:
        if name not in line and name not in getattr(line, "coords", ()):
            continue
        values = line[name]
        if hasattr(values, "dims"):
            _check_labels(name, values)
            values = values.transpose(*(dim for dim in _DIMS if dim in values.dims)).values
        found[name] = np.asarray(values)
    return found


def _check_labels(name: str, values: Any) -> None:
    if set(values.dims) - set(_DIMS):
        raise ShapeError(f"{name} has other dims", got=values.dims, expected=f"some of {_DIMS}")
    units = {"time": "s", "pressure": None, "wavelet": None}.get(name, "m")
    if units and values.attrs.get("units", units) != units:
        raise InputError(
            f"{name} is not in SI units",
            got=f"units {values.attrs['units']!r}",
            expected=repr(units),
            hint="Convert the values, and then the attribute.",
        )


class _Recording(NamedTuple):
    """What a noise level is estimated from."""

    live: LiveTraces
    survey: Survey
    time: NDArray[Any]
    v_max: float

    def noise(self) -> NoiseEstimate:
        offsets = self.survey.sources[:, None] - self.survey.receivers
        return noise_before_arrivals(
            self.live, np.linalg.norm(offsets, axis=-1), time=self.time, v_max=self.v_max
        )


def _noise(
    line: Mapping[Any, Any], noise_std: float | None, recording: _Recording
) -> tuple[float, dict[str, str | int | float]]:
    """The noise level that is given, that of the line, or an estimate and a note of it."""
    noise = noise_std
    if noise is None:
        noise = getattr(line["pressure"], "attrs", {}).get("noise_std")
    if noise is None:
        found = recording.noise()
        note = f"estimated from {found.n_samples} samples before the first arrivals"
        return found.std, {"noise_source": note}
    try:
        return as_number("noise_std", noise), {}
    except InputError as error:
        raise NoiseLevelError(error.what, got=error.got, expected=error.expected) from error


def _check_pressure(pressure: NDArray[Any], survey: Survey, n_before: int) -> None:
    expected = (survey.n_shots, survey.n_receivers, survey.n_samples - n_before)
    if pressure.shape != expected:
        raise ShapeError("pressure does not fit the survey", got=pressure.shape, expected=expected)


def _model(start: Any, bounds: tuple[float, float]) -> tuple[Grid, Tensor]:
    """The grid of the starting model, and the model ``(nz, nx)``."""
    check_bounds(bounds)
    is_labelled = hasattr(start, "dims") and not isinstance(start, Mapping)
    velocity = start if is_labelled else start["velocity"]
    places = start.coords if is_labelled else start
    missing = [dim for dim in ("z", "x") if dim not in places]
    if missing:
        raise InputError(
            "the starting model has no depth and distance",
            got=f"no coordinate {missing}",
            expected="coordinates 'z' and 'x' in m",
            hint="Assign them, such as ds.assign_coords(z=10.0 * np.arange(nz)).",
        )
    if hasattr(velocity, "dims"):
        if set(velocity.dims) != {"z", "x"}:
            raise ShapeError(
                "the starting model is not a section", got=velocity.dims, expected="('z', 'x')"
            )
        velocity = velocity.transpose("z", "x")
    values = np.array(getattr(velocity, "values", velocity), np.float32)
    axes = {dim: np.asarray(places[dim], np.float64) for dim in ("z", "x")}
    domain = Grid(("z", "x"), values.shape, torch.float32, axes, "m s-1")
    model = torch.from_numpy(values)
    check_finite(model, "the starting model")
    low, high = float(model.min()), float(model.max())
    if low < bounds[0] or high > bounds[1]:
        raise InputError(
            "the starting model is out of bounds",
            got=f"{low:g} to {high:g}",
            expected=f"{bounds[0]:g} to {bounds[1]:g} m/s",
            hint="It looks like km/s: multiply it by 1000."
            if high < 20
            else "Clip it, or widen them with bounds=(LOW, HIGH); a higher upper bound shortens the"
            " time step.",
        )
    return domain, model


def _weights(
    live: LiveTraces, survey: Survey, noise_std: float, *, mute: float, relative: float
) -> tuple[NDArray[np.float32], int]:
    """Of the samples, and the number of live traces that lie too near to their source."""
    for name, value in (("mute", mute), ("relative_error", relative)):
        if not 0 <= value < float("inf"):
            raise InputError(f"{name} is out of range", got=value, expected="a finite number >= 0")
    weights = amplitude_weights(live, noise_std, dt=survey.dt, relative=relative)
    is_kept = is_far(survey.sources, survey.receivers, mute)
    n_muted = int((weights.any(-1) & ~is_kept).sum())
    weights = weights * is_kept[..., None]
    if not weights.any():
        raise InputError(
            "no trace is left",
            got=f"all {is_kept.size} are dead or nearer to their source than mute={mute:g} m",
            expected="live traces at larger offsets",
            hint="Lower mute=....",
        )
    return np.asarray(weights, np.float32), n_muted
