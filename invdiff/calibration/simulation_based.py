r"""Simulation-based calibration: ranks of statistics over simulated data sets.

Talts, Betancourt, Simpson, Vehtari and Gelman, arXiv:1804.06788, 2018. Draw :math:`x` from the
prior, :math:`y` from the likelihood, an ensemble from the posterior of :math:`y`: the rank of any
statistic of :math:`x` among those of the members is uniform if the sampler is exact. Exact for
independent members and any number of them; sees only what the statistics see (none of them, for
instance, is moved by a sampler that ignores the data: add one that depends on both).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from invdiff.calibration._pairs import paired, refuse_non_finite
from invdiff.calibration.rank_statistics import MIN_EXPECTED, pit, shares_by_bin
from invdiff.calibration.uniformity import pit_ecdf
from invdiff.errors import DTypeError, InputError, ShapeError

__all__ = ["sbc"]

Statistic = Callable[[xr.DataArray], xr.DataArray]


def sbc(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    statistics: Mapping[str, Statistic],
    *,
    dim: str = "realization",
    dim_independent: str = "case",
    n_bins: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> xr.Dataset:
    """Ranks of the truth's statistics over data sets, and whether they are uniform.

    Args:
        ensemble: members, with dims ``dim`` and ``dim_independent``.
        truth: the draws of the prior behind the data, with ``dim_independent``.
        statistics: by name, functions of a field that keep ``dim`` and ``dim_independent`` and
            reduce the rest, such as ``lambda x: x.mean(("y", "x"))``; real.
        dim: the dimension of the members.
        dim_independent: the dimension of the data sets.
        n_bins: of the chi-square; by default 10, or a fifth of the data sets if that is less.
        confidence: of the ECDF band.
        seed: of the draws that break ties.

    Returns:
        ``pit(statistic, case)``, ``share(statistic, bin)``, ``ecdf(statistic, point)`` with
        ``lower(point)`` and ``upper(point)``, ``p_value(statistic)`` by chi-square and
        ``p_value_ecdf(statistic)`` by the ECDF.

    Raises:
        InputError: no statistics.
        ShapeError: dims or labels that do not match; a statistic with other dims than
            ``dim_independent`` (and ``dim``).
        DTypeError: real members and a complex truth, or the reverse; a complex statistic.
        NonFiniteError: NaN or Inf in a field or a statistic.
    """
    if not statistics:
        raise InputError(
            "no statistics to rank",
            got="an empty mapping",
            expected="at least one",
            hint='For instance {"mean": lambda x: x.mean(("y", "x"))}.',
        )
    # Here, since a mean that skips NaN would hide them.
    members, exact, where = paired(ensemble, truth, None, dim=dim)
    refuse_non_finite(where, {"truth": exact, "ensemble": members})
    results = []
    for name, statistic in statistics.items():
        drawn, exact = statistic(ensemble), statistic(truth)
        _check(name, drawn, exact, dims=(dim, dim_independent))
        values = pit(drawn, exact, dim=dim, seed=seed).compute().rename("pit")
        curve = pit_ecdf(values, confidence=confidence, seed=seed)
        everywhere = xr.ones_like(values, dtype=bool)
        histogram = shares_by_bin(
            values,
            everywhere,
            dim_independent,
            n_bins=max(2, min(10, values.size // MIN_EXPECTED)) if n_bins is None else n_bins,
            confidence=confidence,
        )
        results.append(
            curve.rename(p_value="p_value_ecdf").assign(
                pit=values.drop_vars(set(values.coords) - {dim_independent}),
                share=histogram["share"],
                p_value=histogram["p_value"],
            )
        )
    label = xr.DataArray(list(statistics), dims="statistic", name="statistic")
    return xr.concat(
        results,
        label,
        data_vars=["ecdf", "p_value_ecdf", "pit", "share", "p_value"],
        coords="minimal",
        compat="override",
        join="exact",
        combine_attrs="override",
    )


def _check(name: str, drawn: xr.DataArray, exact: xr.DataArray, *, dims: tuple[str, str]) -> None:
    """One real number a member and data set."""
    if set(drawn.dims) != set(dims) or set(exact.dims) != {dims[1]}:
        raise ShapeError(
            f"the statistic {name!r} is not one number a member and data set",
            got=f"{drawn.dims} of the ensemble, {exact.dims} of the truth",
            expected=f"{dims} and {dims[1:]}",
            hint="Reduce the other dims, as in x.mean(('y', 'x')).",
        )
    if np.iscomplexobj(drawn) or np.iscomplexobj(exact):
        raise DTypeError(
            f"the statistic {name!r} is complex", got=drawn.dtype, expected="real", hint="Take abs."
        )
