"""Sampling masks for Cartesian k-space: boolean, centred (zero frequency at ``n // 2``), seeded.

Line masks pick positions along the phase-encoding ``axis`` (by default the last); each line
extends over the other axes, and the mask has the full image shape. The number of samples is that
of the asked acceleration to within half a line, or half a sample, so that a mask combined by ``&``
with another has fewer. All functions raise InputError for what cannot be had.
"""

from __future__ import annotations

from math import prod

import numpy as np
import torch
from torch import Tensor

from invdiff.errors import InputError, ShapeError

__all__ = [
    "equispaced_lines",
    "gaussian_lines",
    "partial_fourier",
    "poisson_disc",
    "random_lines",
]

Shape = tuple[int, ...]
_N_BISECTIONS = 12


def random_lines(
    shape: Shape, acceleration: float, *, calibration: int, seed: int, axis: int = -1
) -> Tensor:
    """Central lines and others drawn uniformly without replacement.

    Args:
        shape: image shape, two or three axes.
        acceleration: lines in all per line acquired, at least 1.
        calibration: number of central lines, all acquired.
        seed: of the draw.
        axis: phase-encoding axis.

    Returns:
        Boolean mask of ``shape``.
    """
    n_lines, outer = _plan_lines(shape, acceleration, calibration=calibration, axis=axis)
    picked = np.random.default_rng(seed).choice(outer, n_lines - calibration, replace=False)
    return _lines(shape, axis, picked, outer)


def gaussian_lines(
    shape: Shape,
    acceleration: float,
    *,
    calibration: int,
    seed: int,
    width: float = 1 / 6,
    axis: int = -1,
) -> Tensor:
    """Central lines and others drawn with density ``exp(-k^2 / 2 (width n)^2)``.

    Args:
        shape: image shape, two or three axes.
        acceleration: lines in all per line acquired, at least 1.
        calibration: number of central lines, all acquired.
        seed: of the draw.
        width: standard deviation as a fraction of the axis.
        axis: phase-encoding axis.

    Returns:
        Boolean mask of ``shape``.
    """
    if not width > 0:
        raise InputError("width must be positive", got=width, expected="width > 0")
    n_lines, outer = _plan_lines(shape, acceleration, calibration=calibration, axis=axis)
    n = shape[axis]
    # Gumbel keys: the largest are a draw without replacement, even where weights underflow.
    keys = np.random.default_rng(seed).gumbel(size=outer.size)
    keys -= 0.5 * ((outer - n // 2) / (width * n)) ** 2
    picked = outer[np.argsort(keys)[outer.size - (n_lines - calibration) :]]
    return _lines(shape, axis, picked, outer)


def equispaced_lines(
    shape: Shape, acceleration: float, *, calibration: int, offset: int = 0, axis: int = -1
) -> Tensor:
    """Central lines and others equally spaced among the rest.

    The spacing is widened for the central lines (as in fastMRI's "equispaced fraction" masks), so
    it need not be an integer: lines lie at its nearest lower multiples.

    Args:
        shape: image shape, two or three axes.
        acceleration: lines in all per line acquired, at least 1.
        calibration: number of central lines, all acquired.
        offset: first line, less than the spacing.
        axis: phase-encoding axis.

    Returns:
        Boolean mask of ``shape``.
    """
    n_lines, outer = _plan_lines(shape, acceleration, calibration=calibration, axis=axis)
    n_picked = n_lines - calibration
    spacing = outer.size / n_picked if n_picked else 1.0
    if not 0 <= offset < spacing:
        raise InputError(
            "offset out of range", got=offset, expected=f"0 <= offset < spacing {spacing:.4g}"
        )
    positions = np.floor(np.arange(n_picked) * spacing + offset).astype(int) % max(outer.size, 1)
    return _lines(shape, axis, outer[positions], outer)


def poisson_disc(
    shape: Shape,
    acceleration: float,
    *,
    calibration: int | tuple[int, int],
    seed: int,
    crop_corners: bool = True,
) -> Tensor:
    """Variable-density Poisson disc: samples that keep a distance growing away from the centre.

    Points are visited in random order and kept if no kept point is nearer than its radius
    ``(1 + s |k|) u``, with ``u`` uniform in 0.6 to 1.4 and the slope ``s`` found by bisection;
    surplus ones are dropped at random.

    Args:
        shape: image shape ``(y, x)``, or ``(z, y, x)`` with ``z`` the fully sampled readout.
        acceleration: samples in all per sample acquired, at least 1.
        calibration: edges of the fully sampled central block.
        seed: of the draw.
        crop_corners: leave out the corners beyond the inscribed ellipse.

    Returns:
        Boolean mask of ``shape``.

    References:
        Bridson (2007), Fast Poisson disk sampling in arbitrary dimensions.
        Lustig & Pauly (2010), SPIRiT, doi:10.1002/mrm.22428 (the use in MRI).
    """
    plane = _check(shape, acceleration)[-2:]
    block = (calibration, calibration) if isinstance(calibration, int) else calibration
    centre = np.zeros(plane, bool)
    centre[tuple(_central(n, c) for n, c in zip(plane, block, strict=True))] = True
    ky, kx = (
        np.maximum(np.abs(np.arange(n) - n // 2) - c / 2, 0) / max((n - c) / 2, 1)
        for n, c in zip(plane, block, strict=True)
    )
    radius = np.hypot(ky[:, None], kx)
    allowed = (radius < 1) | centre if crop_corners else np.ones(plane, bool)
    target = round(prod(plane) / acceleration)
    if not int(centre.sum()) <= target <= int(allowed.sum()):
        n_centre, n_allowed = int(centre.sum()), int(allowed.sum())
        raise InputError(
            f"acceleration {acceleration} cannot be had on {plane}",
            got=f"{target} samples",
            expected=f"between {n_centre} (calibration) and {n_allowed} (all but the corners)",
            hint="Change the calibration or the acceleration, or use crop_corners=False.",
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.flatnonzero(allowed & ~centre))
    # Distances on a grid are few: without dither the density would fall in steps.
    dither = rng.uniform(0.6, 1.4, plane)

    low, high = 0.0, float(max(plane))
    best = order  # slope 0 keeps every point
    for _ in range(_N_BISECTIONS):
        slope = (low + high) / 2
        kept = _throw(order, (1 + slope * radius) * dither, centre)
        if kept.size + centre.sum() >= target:
            low, best = slope, min(best, kept, key=len)
        else:
            high = slope
    mask = centre.copy()
    mask.flat[rng.permutation(best)[: target - int(centre.sum())]] = True
    return torch.from_numpy(np.broadcast_to(mask, shape).copy())


def partial_fourier(shape: Shape, fraction: float, *, axis: int = -1) -> Tensor:
    """The first ``fraction`` of the lines: one side of k-space and a little beyond the centre.

    Args:
        shape: image shape, two or three axes.
        fraction: of the lines, more than one half; they include the zero frequency.
        axis: phase-encoding axis.

    Returns:
        Boolean mask of ``shape``, to be combined with others by ``&``.
    """
    n = _check(shape, 1.0, axis=axis)[axis]
    n_lines = round(fraction * n)
    if not n // 2 < n_lines <= n:
        raise InputError(
            "partial Fourier must include the zero frequency",
            got=f"fraction={fraction}, {n_lines} of {n} lines",
            expected=f"between {n // 2 + 1} and {n} lines",
        )
    return _lines(shape, axis, np.arange(n_lines), np.arange(n))


def _check(shape: Shape, acceleration: float, *, axis: int = -1) -> Shape:
    """The shape, if it and the other arguments make sense."""
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ShapeError("not an image shape", got=shape, expected="two or three axes")
    if not -len(shape) <= axis < len(shape):
        raise ShapeError("no such axis", got=axis, expected=f"an axis of {shape}")
    if not acceleration >= 1:
        raise InputError("acceleration too small", got=acceleration, expected="at least 1")
    return shape


def _central(n: int, n_central: int) -> slice:
    """The central block of an axis; it holds the zero frequency ``n // 2``."""
    if not 0 <= n_central <= n:
        raise InputError(
            "calibration does not fit", got=n_central, expected=f"between 0 and the axis, {n}"
        )
    start = n // 2 - n_central // 2
    return slice(start, start + n_central)


def _plan_lines(
    shape: Shape, acceleration: float, *, calibration: int, axis: int
) -> tuple[int, np.ndarray]:
    """How many lines in all, and the positions outside the calibration."""
    n = _check(shape, acceleration, axis=axis)[axis]
    outer = np.delete(np.arange(n), _central(n, calibration))
    n_lines = round(n / acceleration)
    if n_lines < max(calibration, 1):
        raise InputError(
            f"acceleration {acceleration} leaves fewer lines than the calibration needs",
            got=f"{n_lines} of {n} lines",
            expected=f"at least {max(calibration, 1)}",
            hint="Lower the acceleration or the calibration.",
        )
    return n_lines, outer


def _lines(shape: Shape, axis: int, picked: np.ndarray, outer: np.ndarray) -> Tensor:
    """Mask of all lines but those of ``outer`` that were not picked."""
    line = torch.ones(shape[axis], dtype=torch.bool)
    line[torch.from_numpy(outer)] = False
    line[torch.from_numpy(picked)] = True
    along = [1] * len(shape)
    along[axis] = -1
    return line.reshape(along).expand(shape).contiguous()


def _throw(order: np.ndarray, radius: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Those of ``order``, in that order, that keep the distance ``radius`` from all before them."""
    n_y, n_x = radius.shape
    reach = np.ceil(radius).astype(int) - 1  # strictly nearer than the radius is too near
    offsets = np.arange(-reach.max(), reach.max() + 1)
    squared = offsets[:, None] ** 2 + offsets**2
    middle = int(reach.max())
    blocked = taken.copy()
    kept = []
    for index in order.tolist():
        y, x = divmod(index, n_x)
        if blocked[y, x]:
            continue
        kept.append(index)
        r = int(reach[y, x])
        top, bottom, left, right = (
            max(y - r, 0),
            min(y + r, n_y - 1),
            max(x - r, 0),
            min(x + r, n_x - 1),
        )
        window = squared[
            middle + top - y : middle + bottom - y + 1, middle + left - x : middle + right - x + 1
        ]
        blocked[top : bottom + 1, left : right + 1] |= window < radius[y, x] ** 2
    return np.array(kept, int)
