"""An ensemble and its truth made fit to be compared: same labels, real values, finite."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from invdiff.errors import DTypeError, InputError, NonFiniteError, ShapeError

__all__ = ["PART", "paired", "real_parts", "refuse_non_finite", "uniform_like"]

PART = "part_of_complex"


def paired(
    ensemble: xr.DataArray, truth: xr.DataArray, where: xr.DataArray | None, *, dim: str
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """The three on the same labels and real; ensemble and truth lazy if they are, where in memory.

    Complex values get a dimension ``PART`` of real and imaginary parts.

    Returns:
        ``(dim, *dims)``, ``(*dims)`` and a boolean ``(*dims)``.

    Raises:
        ShapeError: an ensemble without ``dim``, or a truth or ``where`` with other dims or labels.
        DTypeError: one of ensemble and truth complex, or a ``where`` that is not boolean.
    """
    if where is None:
        where = xr.ones_like(truth, dtype=bool)
    if (
        dim not in ensemble.dims
        or set(ensemble.dims) - {dim} != set(truth.dims)
        or not set(where.dims) <= set(truth.dims)
    ):
        raise ShapeError(
            "ensemble, truth and where do not match",
            got=f"{ensemble.dims}, {truth.dims} and {where.dims}",
            expected=f"the truth's dims, and {dim!r} in the ensemble",
            hint="Rename, select or transpose dims.",
        )
    if np.iscomplexobj(ensemble) != np.iscomplexobj(truth):
        raise DTypeError(
            "one of ensemble and truth is complex",
            got=f"{ensemble.dtype}, {truth.dtype}",
            expected="both or neither",
            hint="Take abs() or .real of the complex one.",
        )
    if where.dtype != np.bool_:
        raise DTypeError("where is not a mask", got=where.dtype, expected="bool")
    try:
        ensemble, truth, where = xr.align(ensemble, truth, where, join="exact")
    except ValueError as error:
        raise ShapeError(
            "labels of ensemble, truth and where do not match",
            got=error,
            expected="the same coordinates",
            hint="Select or interpolate one onto the other.",
        ) from error
    truth, ensemble = real_parts(truth), real_parts(ensemble)
    where = where.broadcast_like(truth).transpose(*truth.dims).compute()
    return ensemble.transpose(dim, *truth.dims), truth, where


def real_parts(values: xr.DataArray) -> xr.DataArray:
    """Real values as they are, complex ones with their parts along a last dimension ``PART``."""
    if not np.iscomplexobj(values):
        return values
    parts: xr.DataArray = xr.concat(
        [values.real, values.imag], PART, coords="minimal", compat="override", join="override"
    )
    return parts.transpose(..., PART)


def refuse_non_finite(where: xr.DataArray, fields: Mapping[str, xr.DataArray]) -> None:
    """Nothing is judged by NaN or Inf, and something is judged.

    Raises:
        InputError: ``where`` is False everywhere.
        NonFiniteError: a field that is not finite where it is judged.
    """
    if not where.any():
        raise InputError(
            "calibration is asked for nowhere",
            got="where is False everywhere",
            hint="Give a where= that is True where the ensemble is to be judged.",
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


def uniform_like(field: xr.DataArray, rng: np.random.Generator) -> xr.DataArray:
    """Uniform draws on the dims of a field, whatever their order and chunks."""
    dims = sorted(field.dims, key=str)
    draws = rng.random(tuple(field.sizes[name] for name in dims))
    return xr.DataArray(draws, dims=dims).transpose(*field.dims)
