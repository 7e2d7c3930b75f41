"""Samples of SEG-Y: integers to floats, dead traces, NaN at the ends of traces."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from invdiff.errors import DTypeError, InputError, NonFiniteError
from invdiff.io.segy_headers import DEAD, Headers

__all__ = ["samples_of"]

Floats = NDArray[np.floating[Any]]

_LARGEST_WEIGHT = 100  # a power of two that float32 holds, with the samples


def samples_of(headers: Headers) -> Floats:
    """All traces of a file ``(trace, sample)``, NaN at their ends where the file has them.

    Integers become the smallest float that holds them all, float32 for those of 24 bits, times
    ``2^-N`` with the weighting factor ``N`` of their trace (bytes 169-170), which changes no bit.
    Dead traces are NaN.

    Raises:
        DTypeError: integers that neither float32 nor float64 hold.
        InputError: weighting factors out of range.
        NonFiniteError: Inf, or NaN that is followed by numbers.
    """
    raw = headers.file.trace.raw[:]
    samples: Floats = raw if raw.dtype.kind == "f" else _from_integers(headers, raw)
    is_dead = headers["TraceIdentificationCode"] == DEAD
    is_number = ~np.isnan(samples)
    length = is_number.sum(-1, keepdims=True)
    is_padded = (is_number == (np.arange(samples.shape[-1]) < length)).all(-1)
    is_usable = is_dead | (is_padded & ~np.isinf(samples).any(-1))
    if not is_usable.all():
        raise NonFiniteError(
            f"traces of {headers.path.name} hold Inf, or numbers after a NaN",
            got=f"{int((~is_usable).sum())} of {len(samples)} traces, the first number"
            f" {int(is_usable.argmin()) + 1}",
            expected="finite values; NaN at the end of a trace only, or in all of it",
            hint="Repair them, or check that the format in the binary header is the true one.",
        )
    samples[is_dead] = np.nan
    return samples


def _from_integers(headers: Headers, raw: NDArray[np.integer[Any]]) -> Floats:
    """Floats that hold the integers exactly, weighted."""
    floats: list[Floats] = [raw.astype(np.float32), raw.astype(np.float64)]
    low, high = int(raw.min()), int(raw.max())
    # Not cast back: float(2**63 - 1) is 2**63, which int64 does not hold.
    exact = [
        f
        for f, bits in zip(floats, (24, 53), strict=True)
        if max(-low, high) <= 2**bits or _holds(f, raw)
    ]
    if not exact:
        raise DTypeError(
            f"integers of {headers.path.name} are too large for floats",
            got=f"{raw.dtype}, {low} to {high}",
            expected="integers that float64 holds, of 53 bits",
            hint="Convert the file to IEEE floats (format 5).",
        )
    weight = headers["TraceWeightingFactor"]
    if not ((weight >= 0) & (weight <= _LARGEST_WEIGHT)).all():
        raise InputError(
            f"trace weighting factors of {headers.path.name} are out of range",
            got=f"{weight.min()} to {weight.max()}",
            expected=f"N from 0 to {_LARGEST_WEIGHT}: samples count 2^-N",
            hint="Correct bytes 169-170 of the trace headers.",
        )
    return np.asarray(np.ldexp(exact[0], -weight[:, None].astype(np.int32)))


def _holds(floats: Floats, raw: NDArray[np.integer[Any]]) -> bool:
    """Whether no integer was rounded."""
    limit = 2.0 ** (8 * raw.dtype.itemsize - (raw.dtype.kind == "i"))
    return bool((np.abs(floats) < limit).all() and (floats.astype(raw.dtype) == raw).all())
