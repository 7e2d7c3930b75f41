"""Procedural 2-D P-velocity models: layers, folds, faults, unconformities, salt and water."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from invdiff.errors import InputError

__all__ = ["VelocityGenerator"]

Floats = NDArray[np.floating[Any]]
Range = tuple[float, float]
Coordinates = tuple[Floats, Floats]
"""Depth and distance of each pixel in m; they broadcast to ``(nz, nx)``."""

_WATER = 1500.0  # m/s
_REFERENCE = 700.0  # m of depth, over which layers are counted and the rise of velocity is given
_COLUMN = (-3000, 5000)  # m of stratigraphic depth that a column of layers covers


@dataclass(frozen=True)
class VelocityGenerator:
    """P-velocity models in m/s, float32 ``(nz, nx)``, axes depth and distance.

    A cell's velocity is looked up in a column of layers at its *stratigraphic* depth: where its
    rock lay before it was folded and faulted. Each structure is a map of coordinates, undone latest
    first. Every draw is a function of ``(seed, index, shape)`` alone, and as likely as its mirror
    image.

    Structures are sized in m, whatever the size of the model; ranges are of uniform or log-uniform
    draws. What leaves ``bounds`` by texture or lateral change is set to them.

    Args:
        spacing: side of a cell in m.
        bounds: all velocities lie within, m/s.
        top: at the surface, m/s; one model in ten is faster there.
        rise: from the surface to 700 m depth, m/s; it levels off towards ``ceiling``.
        ceiling: velocity that the trend with depth approaches, m/s.
        n_layers: in 700 m.
        disorder: standard deviation of layer velocities about their trend, m/s.
        fold: height of folds, m.
        fold_length: wavelength of folds, m.
        throw: of a fault, m of depth.
        dip: of a fault at the surface, degrees.
        max_faults: in a model.
        salt: velocity of salt bodies, m/s.
        water_depth: m.
        fault_fraction: share of models with faults; the fractions below are shares too.
        salt_fraction: with a salt body.
        water_fraction: with water on top, 1500 m/s.
        unconformity_fraction: with younger layers on eroded older ones.
        gradient_fraction: with velocity gradients inside layers.
        lamination_fraction: with fine layering inside layers.
        texture_fraction: with weak scatter of small scale.
        blur_fraction: with layer boundaries smoothed by less than a cell.

    Raises:
        InputError: a reversed range or a share outside [0, 1].
    """

    spacing: float = 10.0
    bounds: Range = (1400.0, 5500.0)
    top: Range = (1500.0, 2200.0)
    rise: Range = (300.0, 4500.0)
    ceiling: Range = (3800.0, 5400.0)
    n_layers: Range = (3.0, 20.0)
    disorder: Range = (40.0, 900.0)
    fold: Range = (5.0, 160.0)
    fold_length: Range = (300.0, 2500.0)
    throw: Range = (20.0, 200.0)
    dip: Range = (35.0, 85.0)
    max_faults: int = 5
    salt: Range = (4400.0, 4600.0)
    water_depth: Range = (20.0, 200.0)
    fault_fraction: float = 0.7
    salt_fraction: float = 0.12
    water_fraction: float = 0.25
    unconformity_fraction: float = 0.25
    gradient_fraction: float = 0.45
    lamination_fraction: float = 0.35
    texture_fraction: float = 0.25
    blur_fraction: float = 0.4

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith("_fraction") and not 0 <= value <= 1:
                raise InputError(
                    f"{name} is not a share", got=value, expected="[0, 1]", hint="Give a fraction."
                )
            if isinstance(value, tuple) and not 0 < value[0] <= value[1]:
                raise InputError(
                    f"{name} is not a range",
                    got=value,
                    expected="0 < low <= high",
                    hint="Order the two bounds.",
                )
        if self.spacing <= 0 or self.max_faults < 1:
            raise InputError(
                "these numbers do not make a generator",
                got=f"spacing={self.spacing}, max_faults={self.max_faults}",
                expected="spacing > 0, max_faults >= 1",
                hint="Set fault_fraction=0 for models without faults.",
            )

    def model(self, seed: int, index: int, shape: tuple[int, int]) -> NDArray[np.float32]:
        """Draw number ``index``: velocities in m/s, float32 ``(nz, nx)``.

        Raises:
            InputError: a shape without cells.
        """
        nz, nx = shape
        if nz < 1 or nx < 1:
            raise InputError(
                "the shape has no cells",
                got=shape,
                expected="(nz, nx), both >= 1",
                hint="Give the number of cells in depth and along the line.",
            )
        rng = np.random.default_rng((seed, index))
        here = (
            (np.arange(nz) + 0.5)[:, None] * self.spacing,
            (np.arange(nx) + 0.5 - nx / 2)[None, :] * self.spacing,
        )
        trend = _Trend.draw(rng, self)
        velocity = self._rock(rng, here, trend)
        if rng.random() < self.unconformity_fraction:
            velocity = self._cover(rng, here, trend, velocity)
        velocity = velocity * _lateral_change(rng, here)
        if rng.random() < self.texture_fraction:
            velocity = velocity * _texture(rng, velocity.shape)
        if rng.random() < self.salt_fraction:
            velocity = np.where(_salt_body(rng, here), rng.uniform(*self.salt), velocity)
        if rng.random() < self.blur_fraction:
            velocity = ndimage.gaussian_filter(velocity, rng.uniform(0.3, 1.0), truncate=3)
        if rng.random() < self.water_fraction:
            velocity = np.where(here[0] < _log_uniform(rng, self.water_depth), _WATER, velocity)
        return np.clip(velocity, *self.bounds).astype(np.float32)

    def _rock(self, rng: np.random.Generator, here: Coordinates, trend: _Trend) -> Floats:
        """Layers, folded, then faulted."""
        column = _column(rng, self, trend)
        places = here
        half_width = float(np.abs(here[1]).max())
        for _ in range(_n_faults(rng, self)):
            places = _before_fault(rng, self, places, half_width)
        depth = _before_folds(rng, self, places)
        return _look_up(column, depth)

    def _cover(
        self, rng: np.random.Generator, here: Coordinates, trend: _Trend, old: Floats
    ) -> Floats:
        """Younger layers, gently folded and not faulted, on an eroded surface of older rock."""
        z, x = here
        floor = rng.uniform(0.1, 0.7) * _REFERENCE + _Curve.draw(
            rng, _log_uniform(rng, (3.0, 60.0)), self.fold_length, max_slope=0.5
        )(x)
        bend = _Curve.draw(rng, _log_uniform(rng, (2.0, 30.0)), self.fold_length, max_slope=0.3)
        young = _look_up(_column(rng, self, trend), z - bend(x))
        return np.where(z < floor, young, old)


@dataclass(frozen=True)
class _Trend:
    """``v(z) = top + span (1 - exp(-(rise / span) (z / 700 m)^power))`` below the surface."""

    top: float
    rise: float
    ceiling: float
    power: float

    @staticmethod
    def draw(rng: np.random.Generator, of: VelocityGenerator) -> _Trend:
        top = rng.uniform(*of.top)
        if rng.random() < 0.1:
            top = rng.uniform(of.top[1], 1.6 * of.top[1])
        return _Trend(top, rng.uniform(*of.rise), rng.uniform(*of.ceiling), rng.uniform(0.6, 1.5))

    def __call__(self, z: Floats) -> Floats:
        span = max(self.ceiling - self.top, 500.0)
        growth = np.maximum(z, 0.0) / _REFERENCE
        return np.asarray(self.top + span * -np.expm1(-self.rise / span * growth**self.power))


def _column(rng: np.random.Generator, of: VelocityGenerator, trend: _Trend) -> Floats:
    """Velocity of each metre of stratigraphic depth in ``_COLUMN``."""
    thickness = _REFERENCE / _log_uniform(rng, of.n_layers)
    evenness = rng.uniform(0.8, 5.0)  # shape of the gamma law of thicknesses
    length = _COLUMN[1] - _COLUMN[0]
    n = int(2 * length / thickness) + 8
    steps = 5.0 + (thickness - 5.0) * rng.gamma(evenness, 1 / evenness, n)
    tops = _COLUMN[0] + np.cumsum(steps) - steps
    middle = tops + steps / 2
    disorder = _log_uniform(rng, of.disorder)
    level = trend(middle) + disorder * rng.standard_normal(n)
    s = np.arange(*_COLUMN) + 0.5
    layer = np.searchsorted(tops, s, side="right") - 1
    velocity = level[layer]
    if rng.random() < of.gradient_fraction:
        # Inside a layer velocity follows the trend more or less closely, about the layer's level.
        share = rng.uniform(0, 1.5) * rng.uniform(0.3, 1.0, n)
        velocity = velocity + share[layer] * (trend(s) - trend(middle)[layer])
    if rng.random() < of.lamination_fraction:
        fine = ndimage.gaussian_filter1d(rng.standard_normal(length), _log_uniform(rng, (4, 20)))
        velocity = velocity * (1 + _log_uniform(rng, (0.01, 0.06)) * fine / fine.std())
    # Layers too slow or too fast fold back into the bounds, so that none merge there.
    low, high = of.bounds[0] + 50.0, of.bounds[1] - 100.0
    velocity = low + np.abs(velocity - low)
    return np.asarray(high - np.abs(high - velocity))


def _look_up(column: Floats, depth: Floats) -> Floats:
    place = np.clip(depth - _COLUMN[0], 0, len(column) - 1)
    return np.asarray(column[place.astype(np.int64)])


@dataclass(frozen=True, eq=False)
class _Curve:
    """Smooth curve ``tilt x + sum_k a_k sin(2 pi x / l_k + phi_k)``, m."""

    tilt: float
    amplitudes: Floats
    lengths: Floats
    phases: Floats

    @staticmethod
    def draw(
        rng: np.random.Generator,
        height: float,
        lengths: Range,
        *,
        max_slope: float,
        tilt: float = 0,
    ) -> _Curve:
        wavelengths = np.array([_log_uniform(rng, lengths) for _ in range(3)])
        amplitudes = height * rng.dirichlet(np.full(3, 0.7))
        slope = float((2 * np.pi * amplitudes / wavelengths).sum())
        amplitudes *= min(1.0, max_slope / slope)
        return _Curve(tilt, amplitudes, wavelengths, rng.uniform(0, 2 * np.pi, 3))

    def __call__(self, x: Floats) -> Floats:
        out = self.tilt * x
        for a, length, phase in zip(self.amplitudes, self.lengths, self.phases, strict=True):
            out = out + a * np.sin(2 * np.pi / length * x + phase)
        return out


def _before_folds(rng: np.random.Generator, of: VelocityGenerator, places: Coordinates) -> Floats:
    """Stratigraphic depth: a fold that grows or fades with depth, and a bend of single layers."""
    z, x = places
    is_steep = rng.random() < 0.15
    tilt = rng.uniform(-0.7, 0.7) if is_steep else rng.normal(0, 0.12)
    height = _log_uniform(rng, of.fold)
    fold = _Curve.draw(rng, height, of.fold_length, max_slope=rng.uniform(0.3, 1.4), tilt=tilt)
    growth = rng.uniform(-0.8, 0.8) / 1000.0
    depth = z - fold(x) * (1 + growth * (z - _REFERENCE / 2))
    if rng.random() < 0.35:
        across, along = rng.uniform(200.0, 800.0), rng.choice([-1, 1]) * rng.uniform(200.0, 800.0)
        bend = rng.uniform(0.01, 0.08) * across  # less than across / (2 pi): depth stays monotone
        phase = rng.uniform(0, 2 * np.pi)
        depth = depth + bend * np.sin(2 * np.pi * (depth / across + x / along) + phase)
    return depth


def _n_faults(rng: np.random.Generator, of: VelocityGenerator) -> int:
    if rng.random() >= of.fault_fraction:
        return 0
    weight = 0.65 ** np.arange(of.max_faults)
    return int(rng.choice(of.max_faults, p=weight / weight.sum())) + 1


def _before_fault(
    rng: np.random.Generator, of: VelocityGenerator, places: Coordinates, half_width: float
) -> Coordinates:
    """Undo the slip of the hanging wall along a straight or listric fault.

    The fault is ``x_f(z) = x_0 + side (z + z |z| / (2 bend)) / tan(dip)``; rock slipped along it.
    """
    z, x = places
    side = rng.choice([-1.0, 1.0])
    # A fault may enter the model from its side.
    start = rng.uniform(-1.3, 1.1) * side * half_width
    run = side / np.tan(np.deg2rad(rng.uniform(*of.dip)))
    bend = rng.uniform(400.0, 1500.0) if rng.random() < 0.4 else np.inf
    throw = _log_uniform(rng, of.throw) * (1 if rng.random() < 0.65 else -1)  # reverse: upwards

    def trace(depth: Floats) -> Floats:
        return np.asarray(start + run * (depth + depth * np.abs(depth) / (2 * bend)))

    is_hanging = side * (x - trace(z)) > 0
    heave = trace(z) - trace(z - throw)
    return np.where(is_hanging, z - throw, z), np.where(is_hanging, x - heave, x)


def _salt_body(rng: np.random.Generator, here: Coordinates) -> NDArray[np.bool_]:
    """Inside of a smooth closed outline."""
    z, x = here
    half_width = max(float(np.abs(x).max()), 1.0)
    dx = (x - rng.uniform(-1, 1) * half_width) / _log_uniform(rng, (60.0, 400.0))
    dz = (z - rng.uniform(150.0, 1100.0)) / _log_uniform(rng, (60.0, 350.0))
    angle = np.arctan2(dz, dx)
    outline = np.ones_like(angle)
    for k in range(2, 6):
        outline = outline + rng.normal(0, 0.35 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    return np.asarray(np.hypot(dz, dx) < np.maximum(outline, 0.3))


def _lateral_change(rng: np.random.Generator, here: Coordinates) -> Floats:
    """Smooth factor about 1 that varies along the distance, less with depth."""
    z, x = here
    size = rng.uniform(0, 0.06)
    k, tilt = 2 * np.pi / rng.uniform(600.0, 3000.0), rng.uniform(-0.5, 0.5)
    return np.asarray(1 + size * np.sin(k * (x + tilt * z) + rng.uniform(0, 2 * np.pi)))


def _texture(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Weak scatter of small scale, longer along the layers than across."""
    size = (rng.uniform(0.4, 1.5), rng.uniform(0.6, 4.0))
    field = ndimage.gaussian_filter(rng.standard_normal(shape), size, truncate=3)
    return np.asarray(1 + _log_uniform(rng, (0.003, 0.02)) * field / max(float(field.std()), 1e-9))


def _log_uniform(rng: np.random.Generator, bounds: Range) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))
