"""An ensemble and its truth, checked and made comparable: same labels, real values, finite."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from invdiff.errors import DTypeError, InputError, NonFiniteError, ShapeError

__all__ = [
    "PART",
    "generator",
    "matched",
    "paired",
    "real_parts",
    "refuse_non_finite",
    "same_labels",
    "uniform_like",
]

PART = "part_of_complex"
SALT = int.from_bytes(b"invdiff.calibration")


def paired(
    ensemble: xr.DataArray, truth: xr.DataArray, where: xr.DataArray | None, *, dim: str
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """The three on the same labels and real; ensemble and truth stay lazy, ``where`` is computed.

    Complex values get a last dimension ``part_of_complex`` of real and imaginary parts.

    Returns:
        The ensemble ``(dim, *dims)``, the truth ``(*dims)`` and a boolean mask ``(*dims)``.

    Raises:
        ShapeError: The ensemble lacks ``dim``, or dims or labels do not match.
        DTypeError: One of ensemble and truth is complex, or ``where`` is not boolean.
    """
    if where is None:
        where = xr.ones_like(truth, dtype=bool)
    ensemble, truth, where = matched(ensemble, truth, where, dim=dim)
    truth, ensemble = real_parts(truth), real_parts(ensemble)
    where = where.broadcast_like(truth).transpose(*truth.dims).compute()
    return ensemble.transpose(dim, *truth.dims), truth, where


def matched(
    ensemble: xr.DataArray, truth: xr.DataArray, where: xr.DataArray, *, dim: str
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """The three on the same labels, as they are and lazy.

    Raises:
        ShapeError: The ensemble lacks ``dim``, or dims or labels do not match.
        DTypeError: One of ensemble and truth is complex, or ``where`` is not boolean.
    """
    if (
        dim not in ensemble.dims
        or set(ensemble.dims) - {dim} != set(truth.dims)
        or not set(where.dims) <= set(truth.dims)
    ):
        raise ShapeError(
            "ensemble, truth and where do not match",
            got=f"dims {ensemble.dims}, {truth.dims} and {where.dims}",
            expected=f"the dims of the truth, and {dim!r} in the ensemble",
            hint="Rename or select dims.",
        )
    if np.iscomplexobj(ensemble) != np.iscomplexobj(truth):
        raise DTypeError(
            "one of ensemble and truth is complex, the other real",
            got=f"{ensemble.dtype}, {truth.dtype}",
            expected="both real or both complex",
            hint="Take abs() or .real of the complex one.",
        )
    if where.dtype != np.bool_:
        raise DTypeError("where is not a boolean mask", got=where.dtype, expected="bool")
    ensemble, truth, where = same_labels(ensemble, truth, where, what="ensemble, truth and where")
    return ensemble, truth, where


def same_labels(*fields: xr.DataArray, what: str) -> tuple[xr.DataArray, ...]:
    """The fields, checked to have the same labels along the dims that they share.

    Raises:
        ShapeError: Labels or sizes do not match; xarray would keep the common ones in silence.
    """
    try:
        return xr.align(*fields, join="exact")
    except ValueError as error:
        raise ShapeError(
            f"the labels of {what} do not match",
            got=error,
            expected="the same coordinates",
            hint="Select or interpolate one onto the other.",
        ) from error


def real_parts(values: xr.DataArray) -> xr.DataArray:
    """Real values as they are; complex ones with their parts along a last dimension ``PART``."""
    if not np.iscomplexobj(values):
        return values
    parts: xr.DataArray = xr.concat(
        [values.real, values.imag], PART, coords="minimal", compat="override", join="override"
    )
    return parts.transpose(..., PART)


def refuse_non_finite(where: xr.DataArray, fields: Mapping[str, xr.DataArray]) -> None:
    """Check that something is evaluated, and that all evaluated values are finite.

    Raises:
        InputError: ``where`` is False everywhere.
        NonFiniteError: A field is not finite where it is evaluated.
    """
    if not where.any():
        raise InputError(
            "there is nothing to evaluate",
            got="where is False everywhere",
            hint="Give a where= that is True where the ensemble is to be evaluated.",
        )
    for name, values in fields.items():
        n_bad = int((~np.isfinite(values) & where).sum())
        if n_bad:
            raise NonFiniteError(
                f"the {name} holds NaN or Inf",
                got=f"{n_bad} values",
                expected="finite values",
                hint="Leave them out by where=.",
            )


def generator(seed: int) -> np.random.Generator:
    """Draws that are independent of ``default_rng(seed)``, by which the data may be drawn."""
    return np.random.default_rng([SALT, seed])


def uniform_like(field: xr.DataArray, rng: np.random.Generator) -> xr.DataArray:
    """Uniform draws on the dims of a field, independent of their order and chunks."""
    dims = sorted(field.dims, key=str)
    draws = rng.random(tuple(field.sizes[name] for name in dims))
    return xr.DataArray(draws, dims=dims).transpose(*field.dims)
