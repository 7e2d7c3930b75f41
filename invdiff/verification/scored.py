"""An ensemble and its truth, checked lazily, and weighted means of their scores."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from invdiff.calibration.pairs import matched, same_labels
from invdiff.errors import DTypeError, InputError, NoiseLevelError, NonFiniteError, ShapeError

__all__ = [
    "Dims",
    "Noise",
    "Scored",
    "check_noise",
    "check_weights",
    "finite",
    "kept",
    "mean",
    "moments",
    "one_chunk",
    "refuse_overlap",
    "scored",
]

Dims = str | Sequence[Hashable]
Noise = float | xr.DataArray


@dataclass(frozen=True, eq=False)
class Scored:
    """An ensemble and its truth, on the same labels, NaN where a value is left out.

    Attributes:
        ensemble: The members, float64, with the dims of the truth and that of the members.
        truth: The truth, float64.
        weights: The weights of the mean, with dims of the truth.
        over: The dims of the truth that are averaged.
    """

    ensemble: xr.DataArray
    truth: xr.DataArray
    weights: xr.DataArray
    over: tuple[Hashable, ...]

    def mean(self, score: xr.DataArray) -> xr.DataArray:
        """The weighted mean of a score, NaN where no value is evaluated."""
        return mean(score, self.weights, self.over)


def scored(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    *,
    dim: str,
    n_members: int,
    by: Dims = (),
    weights: xr.DataArray | None = None,
    where: xr.DataArray | None = None,
    is_complete: bool = False,
) -> Scored:
    """Check an ensemble and its truth without computing them.

    Values are checked when they are computed: what is not finite and not left out is refused then.

    Args:
        ensemble: The members.
        truth: The truth.
        dim: The name of the dimension of the members.
        n_members: The number of members that are needed.
        by: The dims that are kept.
        weights: Weights over dims of the truth.
        where: A boolean mask over dims of the truth, and that of the members.
        is_complete: Whether the score needs all members everywhere: ``where`` is without ``dim``.

    Raises:
        ShapeError: Dims or labels do not match.
        DTypeError: Complex values, or ``where`` is not boolean.
        InputError: Too few members, weights that are none, or ``where`` is False everywhere.
    """
    where = xr.DataArray(True) if where is None else where
    if is_complete and dim in where.dims:
        raise ShapeError(
            "this score needs all members in the same places",
            got=f"where over {where.dims}",
            expected="dims of the truth",
            hint=f"Give where.all({dim!r}), or leave out the members that lack values.",
        )
    # A mask of members is one of the ensemble; that of the truth is True where any member is there.
    of_truth = where.any(dim) if dim in where.dims else where
    ensemble, truth, of_truth = matched(ensemble, truth, of_truth, dim=dim)
    ensemble, where = same_labels(ensemble, where, what="ensemble and where")
    if np.iscomplexobj(truth):
        raise DTypeError(
            "these scores are of real values",
            got=truth.dtype,
            expected="a real dtype",
            hint="Take abs() or .real of ensemble and truth.",
        )
    if ensemble.sizes[dim] < n_members:
        raise InputError(
            "the score needs members",
            got=f"{ensemble.sizes[dim]} along {dim!r}",
            expected=f"at least {n_members}",
            hint="Give more members; the absolute error scores a single one.",
        )
    if not where.chunks and not where.any():
        raise InputError(
            "there is nothing to evaluate",
            got="where is False everywhere",
            hint="Give a where= that is True where the ensemble is to be evaluated.",
        )
    return Scored(
        finite(ensemble, where, name="ensemble"),
        finite(truth, of_truth, name="truth"),
        check_weights(weights, truth),
        tuple(name for name in truth.dims if name not in kept(by, truth)),
    )


def kept(by: Dims, field: xr.DataArray) -> tuple[Hashable, ...]:
    """The dims that a mean keeps.

    Raises:
        ShapeError: The field lacks one.
    """
    names = (by,) if isinstance(by, str) else tuple(by)
    if missing := [name for name in names if name not in field.dims]:
        raise ShapeError(
            "a named dimension is not there",
            got=f"{missing}, field with {field.dims}",
            expected="dims of the field",
            hint="Name dims of the truth, which has none of the members.",
        )
    return names


def refuse_overlap(vector: tuple[Hashable, ...], by: tuple[Hashable, ...]) -> None:
    """Check that no dimension of a vector is kept.

    Raises:
        ShapeError: One is.
    """
    if set(vector) & set(by):
        raise ShapeError(
            "a dimension of the vectors cannot be kept",
            got=f"vector_dims={vector}, by={by}",
            expected="other dims in by",
        )


def check_weights(weights: xr.DataArray | None, field: xr.DataArray) -> xr.DataArray:
    """Weights in memory, 1 if there are none.

    Raises:
        ShapeError: They have other dims or labels than the field.
        NonFiniteError: NaN or Inf.
        InputError: A weight is negative, or all are zero.
    """
    if weights is None:
        return xr.DataArray(1.0)
    if not set(weights.dims) <= set(field.dims):
        raise ShapeError(
            "the weights have other dims than the field",
            got=weights.dims,
            expected=f"dims out of {field.dims}",
            hint="Weights are over dims of the truth.",
        )
    same_labels(field, weights, what="field and weights")
    weights = weights.astype(float).reset_coords(drop=True).compute()
    if not np.isfinite(weights).all():
        raise NonFiniteError(
            "the weights hold NaN or Inf", expected="finite weights", hint="Set them to 0."
        )
    if (weights < 0).any() or not (weights > 0).any():
        raise InputError(
            "the weights are not those of a mean",
            got=f"{float(weights.min()):g} to {float(weights.max()):g}",
            expected="numbers >= 0, some of them positive",
        )
    return weights


def check_noise(noise_std: Noise, observations: xr.DataArray) -> xr.DataArray:
    """Noise levels in memory, on the labels of the observations.

    Raises:
        ShapeError: Dims or labels do not match.
        NoiseLevelError: One is not positive and finite.
    """
    noise = noise_std if isinstance(noise_std, xr.DataArray) else xr.DataArray(noise_std)
    if not set(noise.dims) <= set(observations.dims):
        raise ShapeError(
            "the noise level has other dims than the observations",
            got=noise.dims,
            expected=f"dims out of {observations.dims}",
        )
    same_labels(observations, noise, what="observations and noise_std")
    noise = noise.astype(float).reset_coords(drop=True).compute()
    if not ((noise > 0) & (noise < np.inf)).all():
        raise NoiseLevelError(
            "a noise level is not positive and finite",
            got=f"{float(noise.min()):g} to {float(noise.max()):g}",
            expected="standard deviations > 0",
            hint="Leave observations without a noise level out by where=, and give them any.",
        )
    return noise


def moments(members: xr.DataArray, dim: str) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Number, mean and sample variance of the members that are not NaN, by chunks of members.

    Number and mean are NaN without members, the variance with fewer than two.
    """
    n = members.notnull().sum(dim)
    n = n.where(n > 0)
    centre = members.sum(dim) / n
    variance = ((members - centre) ** 2).sum(dim) / (n - 1).where(n > 1)
    return n, centre, variance


def mean(
    field: xr.DataArray, weights: xr.DataArray, over: Iterable[Hashable] | None = None
) -> xr.DataArray:
    """Weighted mean over the values that are not NaN; NaN where there is none of weight."""
    over = field.dims if over is None else tuple(over)
    total = (field.notnull() * weights).sum(over)
    mean: xr.DataArray = (field * weights).sum(over) / total.where(total > 0)
    return mean


def finite(values: xr.DataArray, where: xr.DataArray, *, name: str) -> xr.DataArray:
    """Values as float64, NaN where they are left out; checked when they are computed."""
    checked: xr.DataArray = xr.apply_ufunc(
        _finite,
        values,
        where,
        kwargs={"name": name},
        dask="parallelized",
        output_dtypes=[np.float64],
        keep_attrs="drop_conflicts",
    )
    return checked


def _finite(
    values: NDArray[np.generic], where: NDArray[np.bool_], *, name: str
) -> NDArray[np.float64]:
    """A block of :func:`finite`.

    Raises:
        NonFiniteError: NaN or Inf that is not left out.
    """
    values = np.asarray(values, dtype=np.float64)
    n_bad = int((~np.isfinite(values) & where).sum())
    if n_bad:
        raise NonFiniteError(
            f"the {name} holds NaN or Inf",
            got=f"{n_bad} values in a block of {values.shape}",
            expected="finite values",
            hint="Leave them out, as by where=truth.notnull().",
        )
    return np.where(where, values, np.nan)


def one_chunk(field: xr.DataArray, *dims: Hashable) -> xr.DataArray:
    """One chunk along ``dims``, and so many along the others that a chunk keeps Dask's size.

    The new chunks are made by tasks, block by block. What is not chunked is left as it is.
    """
    if not field.chunks or all(len(field.chunksizes[name]) == 1 for name in dims):
        return field
    return field.chunk({name: -1 if name in dims else "auto" for name in field.dims})
