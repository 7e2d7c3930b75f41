"""Sampling masks for Cartesian k-space: boolean, centred, seeded."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import numpy as np
import torch
from torch import Tensor

from invdiff.arguments import as_integer, as_integers, as_number
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
    """Central lines, and others drawn uniformly without replacement.

    ``round(n / acceleration)`` of the ``n`` lines are acquired, the central ones included. Aliasing
    is incoherent, as compressed sensing asks for; the mask of the fastMRI knee challenge.

    Args:
        shape: image shape ``([z,] y, x)``; the zero frequency lies at ``n // 2``.
        acceleration: number of lines of the axis per line acquired, at least 1.
        calibration: number of central lines, all of them acquired; 0 for none.
        seed: of the draw; the same seed gives the same mask.
        axis: phase-encoding axis; lines extend over the others.

    Returns:
        Boolean mask of ``shape``.

    Raises:
        InputError: numbers of lines that do not fit the axis, or arguments that are not numbers.
        ShapeError: a shape of other than two or three axes, or an axis that it does not have.

    References:
        Zbontar et al. (2018), fastMRI: An open dataset and benchmarks for accelerated MRI,
        arXiv:1811.08839

    Examples:
        >>> from invdiff.operators.mri import random_lines
        >>> mask = random_lines((4, 32), 4, calibration=4, seed=0)
        >>> "".join("x" if kept else "." for kept in mask[0])
        '.......x.....xxxxx..x....x......'
    """
    n_lines, outer = _plan_lines(shape, acceleration, calibration=calibration, axis=axis)
    picked = _rng(seed).choice(outer, n_lines - calibration, replace=False)
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
    """Central lines, and others drawn with density ``exp(-k^2 / 2 (width n)^2)``.

    ``round(n / acceleration)`` of the ``n`` lines are acquired, the central ones included. Drawn
    without replacement by Gumbel keys, so that far lines are drawn even where their density
    underflows.

    Args:
        shape: image shape ``([z,] y, x)``; the zero frequency lies at ``n // 2``.
        acceleration: number of lines of the axis per line acquired, at least 1.
        calibration: number of central lines, all of them acquired; 0 for none.
        seed: of the draw.
        width: standard deviation as a fraction of the axis, more than 0.
        axis: phase-encoding axis; lines extend over the others.

    Returns:
        Boolean mask of ``shape``.

    Raises:
        InputError: numbers of lines that do not fit the axis, or arguments that are not numbers.
        ShapeError: a shape of other than two or three axes, or an axis that it does not have.

    References:
        Lustig, Donoho & Pauly (2007), Sparse MRI: The application of compressed sensing for rapid
        MR imaging, doi:10.1002/mrm.21391

    Examples:
        >>> from invdiff.operators.mri import gaussian_lines
        >>> mask = gaussian_lines((4, 32), 4, calibration=4, seed=0)
        >>> "".join("x" if kept else "." for kept in mask[0])
        '...........x.xxxxx.x....x.......'
    """
    as_number("width", width)
    n_lines, outer = _plan_lines(shape, acceleration, calibration=calibration, axis=axis)
    n = shape[axis]
    # Gumbel keys: the largest are a draw without replacement, even where weights underflow.
    keys = _rng(seed).gumbel(size=outer.size)
    keys -= 0.5 * ((outer - n // 2) / (width * n)) ** 2
    picked = outer[np.argsort(keys)[outer.size - (n_lines - calibration) :]]
    return _lines(shape, axis, picked, outer)


def equispaced_lines(
    shape: Shape, acceleration: float, *, calibration: int, offset: int = 0, axis: int = -1
) -> Tensor:
    """Central lines, and others equally spaced among the rest, as scanners acquire them.

    ``round(n / acceleration)`` of the ``n`` lines are acquired, the central ones included. The
    spacing is widened to make up for the central lines (as in fastMRI's "equispaced fraction"
    masks), so that it need not be an integer: lines lie at its nearest lower multiples. Aliasing is
    coherent: parallel imaging unfolds it, compressed sensing does not.

    Args:
        shape: image shape ``([z,] y, x)``; the zero frequency lies at ``n // 2``.
        acceleration: number of lines of the axis per line acquired, at least 1.
        calibration: number of central lines, all of them acquired; 0 for none.
        offset: position of the first line among the outer ones, an integer less than the spacing.
        axis: phase-encoding axis; lines extend over the others.

    Returns:
        Boolean mask of ``shape``.

    Raises:
        InputError: numbers of lines that do not fit the axis, or arguments that are not numbers.
        ShapeError: a shape of other than two or three axes, or an axis that it does not have.

    References:
        Zbontar et al. (2018), fastMRI: An open dataset and benchmarks for accelerated MRI,
        arXiv:1811.08839

    Examples:
        >>> from invdiff.operators.mri import equispaced_lines
        >>> mask = equispaced_lines((4, 32), 4, calibration=4)
        >>> "".join("x" if kept else "." for kept in mask[0])
        'x......x......xxxxx......x......'
    """
    n_lines, outer = _plan_lines(shape, acceleration, calibration=calibration, axis=axis)
    n_picked = n_lines - calibration
    spacing = outer.size / n_picked if n_picked else 1.0
    if not as_integer("offset", offset, least=0) < spacing:
        raise InputError(
            "offset is out of range", got=offset, expected=f"0 <= offset < spacing {spacing:.4g}"
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

    Points are visited in random order and kept if no kept point is nearer than their radius
    ``(1 + s |k|) u``, with ``|k|`` from 0 at the calibration to 1 at the edge, ``u`` uniform in 0.6
    to 1.4 (distances on a grid are few: without it the density would fall in steps), and the slope
    ``s`` found by bisection; surplus points are dropped at random, so that
    ``round(n / acceleration)`` of the ``n`` samples are acquired. Costs 12 passes over the plane.

    Args:
        shape: image shape ``(y, x)``, or ``(z, y, x)`` with ``z`` the fully sampled readout.
        acceleration: number of samples of the plane per sample acquired, at least 1.
        calibration: edge of the fully sampled central block, or its edges ``(y, x)``.
        seed: of the draw; the same seed gives the same mask.
        crop_corners: whether to leave out the corners beyond the inscribed ellipse.

    Returns:
        Boolean mask of ``shape``.

    Raises:
        InputError: an acceleration that the calibration or the corners do not allow.
        ShapeError: a shape of other than two or three axes.

    References:
        Bridson (2007), Fast Poisson disk sampling in arbitrary dimensions.
        Lustig & Pauly (2010), SPIRiT, doi:10.1002/mrm.22428 (the use in MRI).

    Examples:
        >>> from invdiff.operators.mri import poisson_disc
        >>> mask = poisson_disc((64, 48), 4, calibration=12, seed=0)
        >>> int(mask.sum()), bool(mask[26:38, 18:30].all())
        (768, True)
    """
    plane = _check(shape, acceleration)[-2:]
    edges = list(calibration) if isinstance(calibration, Iterable) else [calibration] * 2
    block = as_integers("calibration", edges, least=0)
    if len(block) != 2:
        raise InputError(
            "calibration does not fit the plane",
            got=calibration,
            expected="one edge, or two (y, x)",
        )
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
            f"acceleration {acceleration} is not possible on {plane}",
            got=f"{target} samples",
            expected=f"between {n_centre} (calibration) and {n_allowed} (all but the corners)",
            hint="Change the calibration or the acceleration, or use crop_corners=False.",
        )
    rng = _rng(seed)
    order = rng.permutation(np.flatnonzero(allowed & ~centre))
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

    An image with a slowly varying phase has the other side as nearly its conjugate mirror.

    Args:
        shape: image shape ``([z,] y, x)``; the zero frequency lies at ``n // 2``.
        fraction: of the lines, more than one half, so that they include the zero frequency.
        axis: phase-encoding axis; lines extend over the others.

    Returns:
        Boolean mask of ``shape``, to be combined with others by ``&`` (which leaves fewer samples
        than the acceleration of either).

    Raises:
        InputError: numbers of lines that do not fit the axis, or arguments that are not numbers.
        ShapeError: a shape of other than two or three axes, or an axis that it does not have.

    References:
        McGibney et al. (1993), Quantitative evaluation of several partial Fourier reconstruction
        algorithms used in MRI, doi:10.1002/mrm.1910300109

    Examples:
        >>> from invdiff.operators.mri import partial_fourier
        >>> mask = partial_fourier((4, 32), 5 / 8)
        >>> "".join("x" if kept else "." for kept in mask[0])
        'xxxxxxxxxxxxxxxxxxxx............'
    """
    n = _check(shape, 1.0, axis=axis)[axis]
    n_lines = round(as_number("fraction", fraction) * n)
    if not n // 2 < n_lines <= n:
        raise InputError(
            "partial Fourier must include the zero frequency",
            got=f"fraction={fraction}, {n_lines} of {n} lines",
            expected=f"between {n // 2 + 1} and {n} lines",
        )
    return _lines(shape, axis, np.arange(n_lines), np.arange(n))


def _check(shape: Shape, acceleration: float, *, axis: int = -1) -> Shape:
    """The shape, if it and the other arguments make sense."""
    shape = tuple(as_integers("shape", tuple(shape)))
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ShapeError(
            "shape is not that of an image", got=shape, expected="two or three axes of length >= 1"
        )
    if not -len(shape) <= as_integer("axis", axis) < len(shape):
        raise ShapeError(
            "axis is not one of the image's",
            got=axis,
            expected=f"{-len(shape)} to {len(shape) - 1}",
        )
    if not as_number("acceleration", acceleration) >= 1:
        raise InputError("acceleration is too small", got=acceleration, expected="at least 1")
    return shape


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(as_integer("seed", seed, least=0))


def _central(n: int, n_central: int) -> slice:
    """The central block of an axis; it holds the zero frequency ``n // 2``."""
    if as_integer("calibration", n_central, least=0) > n:
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
    return line.reshape(along).expand(tuple(shape)).contiguous()


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
