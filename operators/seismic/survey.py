"""Acquisition: positions of sources and receivers, the wavelet, and the time axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from invdiff.arguments import as_integer
from invdiff.errors import DTypeError, InputError, NonFiniteError, ShapeError
from invdiff.grid import Grid

__all__ = ["Survey", "ricker", "uniform_step"]

Floats = NDArray[np.float64]

# No wave field is recorded this coarsely; such a step was given in milli- or microseconds.
_LONGEST_DT = 0.1
# Energy that a coarser time step may lose, as a fraction: below it only round-off is lost.
_LOST_ENERGY = 1e-6
_POSITIONS = ("source_z", "source_x", "receiver_z", "receiver_x")


@dataclass(frozen=True, eq=False, repr=False)
class Survey:
    """Acquisition of a 2-D line, in SI units; positions are ``(z, x)``, z downwards.

    Shot ``s`` emits ``wavelet`` at ``sources[s]`` and is recorded at its receivers from time zero
    on, as many samples as the wavelet has: data are ``(shot, receiver, time)``. Arrays of any
    floating or integer dtype and byte order are copied to read-only float64. Surveys are equal when
    their contents are.

    Args:
        sources: ``(n_shots, 2)``, m.
        receivers: ``(n_receivers, 2)`` of a spread shared by all shots, or ``(n_shots, n_receivers,
            2)`` of one that moves with them; m.
        wavelet: ``(n_samples,)``, the same for all shots, or ``(n_shots, n_samples)``; it starts
            with the recording, at time zero.
        dt: time step of wavelet and data, s.

    Raises:
        InputError: no shots, no receivers, a dt that is not positive or looks like milliseconds, a
            wavelet that is all zero.
        ShapeError: arrays of other shapes.
        DTypeError: values that are not real numbers.
        NonFiniteError: NaN or Inf.

    >>> x = np.arange(0.0, 500.0, 100.0)
    >>> receivers = np.stack([np.full_like(x, 10.0), x], axis=1)
    >>> survey = Survey([(10.0, 250.0)], receivers, ricker(15.0, 2e-3, 200), 2e-3)
    >>> survey
    Survey(n_shots=1, n_receivers=5, n_samples=200, dt=0.002)
    >>> survey.duration
    0.398
    """

    sources: Floats
    receivers: Floats
    wavelet: Floats
    dt: float

    def __post_init__(self) -> None:
        for name in ("sources", "receivers", "wavelet"):
            object.__setattr__(self, name, _real(name, getattr(self, name)))
        object.__setattr__(self, "dt", _time_step(self.dt))
        _check_positions(self.sources, self.receivers)
        _check_wavelet(self.wavelet, len(self.sources))

    @property
    def n_shots(self) -> int:
        """Number of shots, one source each."""
        return len(self.sources)

    @property
    def n_receivers(self) -> int:
        """Number of receivers of each shot."""
        return int(self.receivers.shape[-2])

    @property
    def n_samples(self) -> int:
        """Number of time samples, the one at time zero included."""
        return int(self.wavelet.shape[-1])

    @property
    def duration(self) -> float:
        """Time of the last sample in s; the first is at zero."""
        return (self.n_samples - 1) * self.dt

    @property
    def time(self) -> Floats:
        """Times of the samples ``(n_samples,)`` in s, from zero."""
        return np.arange(self.n_samples, dtype=np.float64) * self.dt

    @property
    def is_fixed_spread(self) -> bool:
        """Whether all shots share their receivers."""
        return self.receivers.ndim == 2

    def receivers_of(self, shot: int) -> Floats:
        """Receivers of one shot, ``(n_receivers, 2)``, m."""
        return self.receivers if self.is_fixed_spread else self.receivers[shot]

    def wavelet_of(self, shot: int) -> Floats:
        """Wavelet of one shot, ``(n_samples,)``."""
        return self.wavelet if self.wavelet.ndim == 1 else self.wavelet[shot]

    def shots(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> Survey:
        """The survey of these shots, in this order.

        Raises:
            InputError: no indices, or shots that do not exist.
            DTypeError: indices that are not integers.
        """
        index = np.atleast_1d(np.asarray(indices))
        if index.size == 0:
            raise InputError(
                "empty shots: none are chosen", got="no indices", expected="one or more"
            )
        if index.dtype.kind not in "iu":
            raise DTypeError(
                "shots are chosen by number",
                got=index.dtype,
                expected="integers",
                hint="Turn a mask into numbers with np.flatnonzero.",
            )
        if index.ndim != 1 or index.min() < 0 or index.max() >= self.n_shots:
            raise InputError(
                "shots do not exist", got=index.tolist(), expected=f"0 to {self.n_shots - 1}"
            )
        return replace(
            self,
            sources=self.sources[index],
            receivers=self.receivers if self.is_fixed_spread else self.receivers[index],
            wavelet=self.wavelet if self.wavelet.ndim == 1 else self.wavelet[index],
        )

    def resampled(self, dt: float) -> Survey:
        """The same survey at another time step, up to the last sample within its duration.

        The wavelet is interpolated as the band-limited function through its samples, zero before
        and after them.

        Raises:
            InputError: a dt as the constructor refuses, or so long that the wavelet is aliased.
        """
        dt = _time_step(dt)
        if dt == self.dt:
            return self
        # A duration that is a whole number of steps must not lose its last one to round-off.
        n_samples = int(np.floor(self.duration / dt * (1 + 1e-12) + 1e-9)) + 1
        return replace(self, wavelet=_resample(self.wavelet, self.dt, dt, n_samples), dt=dt)

    def data_grid(self, dtype: torch.dtype = torch.float32) -> Grid:
        """Grid of the traces: ``(shot, receiver, time)``, time in s."""
        shape = (self.n_shots, self.n_receivers, self.n_samples)
        return Grid(("shot", "receiver", "time"), shape, dtype, {"time": self.time})

    def check_on(self, domain: Grid) -> None:
        """Raise unless all sources and receivers lie inside the model.

        Args:
            domain: dims ``("z", "x")`` with coordinates in m.

        Raises:
            ShapeError: other dims, or no coordinates.
            InputError: a position outside, or positions that look like km.
        """
        if domain.dims != ("z", "x") or not {"z", "x"} <= set(domain.coords):
            raise ShapeError(
                "the model has no depth and distance to place the survey on",
                got=f"dims {domain.dims}, coordinates {sorted(domain.coords)}",
                expected="dims ('z', 'x'), each with its coordinate in m",
            )
        axes = [np.asarray(domain.coords[dim], np.float64) for dim in ("z", "x")]
        everything = np.concatenate([self.sources, self.receivers.reshape(-1, 2)])
        _check_origin(everything, axes)
        for name, positions in (("source", self.sources), ("receiver", self.receivers)):
            _check_inside(name, positions, axes)
        extent = np.ptp(everything, axis=0)
        cell = [np.ptp(axis) / max(len(axis) - 1, 1) for axis in axes]
        if len(np.unique(everything, axis=0)) > 2 and (extent < cell).all():
            raise InputError(
                "all sources and receivers lie within one cell of the model",
                got=f"a spread of {extent[0]:g} m in z and {extent[1]:g} m in x",
                expected=f"more than a cell, {cell[0]:g} m by {cell[1]:g} m",
                hint="They look like km: multiply them by 1000.",
            )

    def to_arrays(self) -> dict[str, Floats]:
        """Plain arrays under the names of the labelled Dataset; see :meth:`from_arrays`."""
        return {
            "source_z": self.sources[:, 0],
            "source_x": self.sources[:, 1],
            "receiver_z": self.receivers[..., 0],
            "receiver_x": self.receivers[..., 1],
            "time": self.time,
            "wavelet": self.wavelet,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Survey:
        """Survey of the arrays of a labelled Dataset, as `invdiff.io.survey_arrays` gives them.

        Args:
            arrays: ``source_z``, ``source_x`` ``(shot,)``; ``receiver_z``, ``receiver_x``
                ``(receiver,)`` or ``(shot, receiver)``; ``time`` ``(time,)``; ``wavelet``
                ``(time,)`` or ``(shot, time)``; ``pressure (shot, receiver, time)`` may be there.

        Raises:
            InputError: arrays missing; times that are not uniform from zero; and as the
                constructor does.
            ShapeError: arrays that do not fit together.
        """
        missing = [name for name in (*_POSITIONS, "time") if name not in arrays]
        if missing:
            raise InputError(
                "arrays of the survey are missing", got=sorted(arrays), expected=f"also {missing}"
            )
        if "wavelet" not in arrays:
            raise InputError(
                "the survey has no wavelet",
                got=sorted(arrays),
                expected="also 'wavelet', (time,) or (shot, time)",
                hint="SEG-Y holds none. Estimate it, or ds['wavelet'] = ('time', ricker(f, dt, n))"
                " with invdiff.operators.seismic.ricker.",
            )
        time, wavelet = (np.asarray(arrays[name]) for name in ("time", "wavelet"))
        dt = uniform_step(time)
        if wavelet.shape[-1:] != time.shape:
            raise ShapeError(
                "wavelet and time do not fit together",
                got=f"wavelet {wavelet.shape}, time {time.shape}",
                expected="a wavelet on the time axis of the data",
                hint="Resample it to their dt, and pad it with zeros.",
            )
        survey = cls(_pair(arrays, "source"), _pair(arrays, "receiver"), wavelet, dt)
        shape = survey.data_grid().shape
        if "pressure" in arrays and np.shape(arrays["pressure"]) != shape:
            raise ShapeError(
                "pressure does not fit the survey", got=np.shape(arrays["pressure"]), expected=shape
            )
        return survey

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Survey):
            return NotImplemented
        names = ("sources", "receivers", "wavelet", "dt")
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in names)

    def __repr__(self) -> str:
        return (
            f"Survey(n_shots={self.n_shots}, n_receivers={self.n_receivers}, "
            f"n_samples={self.n_samples}, dt={self.dt!r})"
        )


def ricker(
    frequency: float, dt: float, n_samples: int, *, delay: float | None = None
) -> NDArray[np.float64]:
    """Ricker wavelet ``(1 - 2 a) exp(-a)``, ``a = (pi f (t - delay))^2``, of ``(n_samples,)``.

    Its peak is one, at ``delay``. Scale it to the units of the data.

    Args:
        frequency: of the peak of its spectrum, Hz.
        dt: time step, s.
        n_samples: length.
        delay: time of its peak, s; 1.5 periods unless given, when it starts at 1e-8 of the peak.

    Raises:
        InputError: a frequency that is not positive or too high for dt, a peak outside the samples.

    References:
        Ricker (1953), The form and laws of propagation of seismic wavelets, Geophysics 18(1)

    >>> wavelet = ricker(10.0, 2e-3, 200)
    >>> float(wavelet.max()), int(wavelet.argmax())  # 1.5 periods are 0.15 s
    (1.0, 75)
    """
    dt, n_samples = _time_step(dt), as_integer("n_samples", n_samples, least=1)
    if not 0 < frequency <= 0.2 / dt:  # at 2.5 peak frequencies the spectrum is 3 % of its peak
        raise InputError(
            "a Ricker wavelet of this frequency cannot be sampled",
            got=f"{frequency} Hz at dt = {dt} s",
            expected=f"frequency > 0, and 2.5 times it below Nyquist: at most {0.2 / dt:g} Hz",
            hint="Give Hz and s; shorten dt.",
        )
    delay = 1.5 / frequency if delay is None else delay
    if not 0 <= delay <= (n_samples - 1) * dt:
        raise InputError(
            "the peak of the wavelet is not among the samples",
            got=f"delay {delay:g} s",
            expected=f"0 to {(n_samples - 1) * dt:g} s, {n_samples} samples of {dt} s",
            hint="Record longer, raise the frequency (is it in Hz, not kHz?), or give a delay.",
        )
    a = (np.pi * frequency * (np.arange(n_samples) * dt - delay)) ** 2
    return np.asarray((1 - 2 * a) * np.exp(-a))


def _real(name: str, values: ArrayLike) -> Floats:
    """A read-only float64 copy of real, finite numbers."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise DTypeError(f"{name} are not real numbers", got=array.dtype, expected="float64")
    array = np.array(array, np.float64)
    if not np.isfinite(array).all():
        raise NonFiniteError(
            f"{name} hold NaN or Inf",
            got=f"{int((~np.isfinite(array)).sum())} of {array.size} values",
            expected="finite values",
        )
    array.flags.writeable = False
    return array


def _time_step(dt: float) -> float:
    dt = float(dt)
    if not 0 < dt < _LONGEST_DT:
        raise InputError(
            "not a time step of seismic data in seconds",
            got=f"dt = {dt}",
            expected=f"0 < dt < {_LONGEST_DT} s",
            hint="Give seconds: 1 ms is 0.001." if dt > 0 else "",
        )
    return dt


def uniform_step(time: NDArray[Any]) -> float:
    """Step of a time axis that starts at zero, to a thousandth of a step.

    Raises:
        ShapeError: no axis.
        InputError: times that are not uniform from zero.
    """
    time = _real("time", time)
    if time.ndim != 1 or len(time) < 2:
        raise ShapeError(
            "time is not an axis", got=f"shape {time.shape}", expected="two or more times"
        )
    dt = float(time[-1] - time[0]) / (len(time) - 1)
    if time[0] == 0 and np.allclose(time, np.arange(len(time)) * time[1], rtol=1e-9, atol=0):
        return float(time[1])  # not the mean, so that the same axis comes back bit for bit
    short = float(f"{dt:.6g}")  # what an axis in single precision was made of
    if np.abs(time - np.arange(len(time)) * short).max() <= np.finfo(np.float32).eps * abs(
        time[-1]
    ):
        dt = short
    if not np.allclose(time, np.arange(len(time)) * dt, rtol=0, atol=1e-3 * abs(dt)):
        raise InputError(
            "time is not uniform from zero",
            got=f"{time[0]:g} to {time[-1]:g} s in steps of {np.diff(time).min():g} to"
            f" {np.diff(time).max():g} s",
            expected="0, dt, 2 dt, ... in s, that of wavelet and data",
            hint="Resample the data; take out a recording delay by shifting or padding.",
        )
    return dt


def _pair(arrays: Mapping[str, NDArray[Any]], name: str) -> Floats:
    """Positions ``(..., 2)`` from depth and distance."""
    z, x = np.asarray(arrays[f"{name}_z"]), np.asarray(arrays[f"{name}_x"])
    if z.shape[-1:] == x.shape[-1:]:  # one of them may be shared by all shots
        z, x = np.broadcast_arrays(z, x)
    if z.shape != x.shape:
        raise ShapeError(
            f"{name}_z and {name}_x do not fit together",
            got=f"{z.shape} and {x.shape}",
            expected="the same shape",
        )
    return np.stack([z, x], axis=-1)


def _check_positions(sources: Floats, receivers: Floats) -> None:
    for name, positions in (("shots", sources), ("receivers", receivers)):
        if positions.size == 0:
            raise InputError(
                f"empty {name}: the survey has none",
                got=f"positions of shape {positions.shape}",
                expected="one or more",
            )
    if sources.ndim != 2 or sources.shape[1] != 2:
        raise ShapeError("sources are not positions", got=sources.shape, expected="(n_shots, 2)")
    n_shots = len(sources)
    leading = receivers.shape[:-2]
    if receivers.ndim < 2 or receivers.shape[-1] != 2 or leading not in ((), (n_shots,)):
        raise ShapeError(
            "receivers do not fit the shots",
            got=receivers.shape,
            expected=f"(n_receivers, 2) or ({n_shots}, n_receivers, 2), positions (z, x)",
        )


def _check_wavelet(wavelet: Floats, n_shots: int) -> None:
    if wavelet.ndim == 0 or wavelet.shape[:-1] not in ((), (n_shots,)) or wavelet.shape[-1] < 2:
        raise ShapeError(
            "the wavelet does not fit the shots",
            got=wavelet.shape,
            expected=f"(n_samples,) or ({n_shots}, n_samples), with two samples or more",
        )
    silent = np.flatnonzero(~np.atleast_2d(wavelet).any(axis=1))
    if silent.size:
        raise InputError(
            "the wavelet is all zero",
            got=f"shots {silent.tolist()}" if wavelet.ndim == 2 else "no other value",
            expected="a source that emits",
            hint="Leave such shots out with .shots(indices), or give their wavelet.",
        )


def _check_origin(positions: Floats, axes: Sequence[Floats]) -> None:
    """Refuse positions that all lie outside a model on which they would fit: UTM, elevations."""
    if _looks_like_km(positions, axes):
        return
    for dim, place, axis in zip("zx", positions.T, axes, strict=True):
        low, high, extent = axis.min(), axis.max(), np.ptp(axis)
        is_outside = (place < low - 5e-4) | (place > high + 5e-4)
        # Next to the model they are more likely to lie outside than to be measured otherwise.
        gap = max(place.min() - high, low - place.max())
        if is_outside.all() and np.ptp(place) <= extent and gap > extent:
            offset = place.min() - low
            raise InputError(
                f"positions and model have different origins in {dim}",
                got=f"sources and receivers at {dim} = {place.min():.10g} to {place.max():.10g} m",
                expected=f"{dim} from {low:.10g} to {high:.10g} m, as of the model",
                hint=f"Subtract the model's origin in the coordinates of the survey from"
                f" source_{dim} and receiver_{dim}; subtracting {offset:.10g} m puts the first of"
                " them at the model's edge.",
            )


def _looks_like_km(positions: Floats, axes: Sequence[Floats]) -> bool:
    """Whether positions in m are spread far wider than the axes of the model."""
    extent = np.array([np.ptp(axis) for axis in axes])
    return bool((np.ptp(positions, axis=0) > 100 * extent).any())


def _check_inside(name: str, positions: Floats, axes: Sequence[Floats]) -> None:
    low, high = np.array([axis.min() for axis in axes]), np.array([axis.max() for axis in axes])
    # Positions are rounded to a mm in files; half of that is not outside.
    outside = ((positions < low - 5e-4) | (positions > high + 5e-4)).any(axis=-1)
    if outside.any():
        first = tuple(np.argwhere(outside)[0].tolist())
        z, x = positions[first]
        where = f"{name} {first[-1]}" + (f" of shot {first[0]}" if len(first) > 1 else "")
        raise InputError(
            f"{int(outside.sum())} of {outside.size} {name}s lie outside the model",
            got=f"{where} at z = {z:g} m, x = {x:g} m",
            expected=f"z from {low[0]:g} to {high[0]:g} m, x from {low[1]:g} to {high[1]:g} m",
            hint="The coordinates of the model look like km: multiply them by 1000."
            if _looks_like_km(positions.reshape(-1, 2), axes)
            else "Positions are (z, x) in m. Extend the model, or leave them out of the survey.",
        )


def _resample(wavelet: Floats, dt: float, new_dt: float, n_samples: int) -> Floats:
    """Trigonometric interpolation at ``n_samples`` times ``k new_dt``, by a chirp z-transform."""
    from scipy.signal import czt

    # As many zeros behind the wavelet keep its periodic images away.
    padded = 2 * max(wavelet.shape[-1], int(np.ceil(n_samples * new_dt / dt)))
    spectrum = np.fft.rfft(wavelet, padded, axis=-1)
    frequency = np.fft.rfftfreq(padded, dt)
    spectrum[..., 1:] *= 2  # those of negative frequencies
    spectrum[..., -1] /= 2  # Nyquist is its own mirror image
    energy = np.abs(spectrum) ** 2
    lost = energy[..., frequency > 0.5 / new_dt].sum(-1) / energy.sum(-1)
    if (lost > _LOST_ENERGY).any():
        raise InputError(
            "the wavelet has frequencies that this time step cannot hold",
            got=f"{float(np.max(lost)):.1e} of its energy above {0.5 / new_dt:g} Hz, dt = {new_dt}",
            expected=f"at most {_LOST_ENERGY:g}",
            hint="Shorten dt, or low-pass the wavelet first.",
        )
    spectrum[..., frequency > 0.5 / new_dt] = 0
    # sum_k S_k exp(2 pi i k m new_dt / (padded dt)), for m = 0 ... n_samples - 1
    step = np.exp(2j * np.pi * new_dt / (padded * dt))
    wave: Floats = czt(spectrum, n_samples, w=step, axis=-1).real / padded
    return wave
