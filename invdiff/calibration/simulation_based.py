"""Simulation-based calibration: ranks of statistics over simulated data sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from invdiff.calibration.pairs import paired, refuse_non_finite
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
    """Ranks of statistics of the truth over simulated data sets, and whether they are uniform.

    Simulation-based calibration: draw :math:`x` from the prior, :math:`y` from the likelihood given
    :math:`x`, and an ensemble from the posterior given :math:`y`. The rank of any statistic of
    :math:`x` among those of the members is uniform if the sampler is exact, for any number of
    independent members. The test detects only what the statistics depend on; a sampler that ignores
    the data passes all statistics of the field alone, so add one that depends on the data too.

    Args:
        ensemble: The members, with dims ``dim`` and ``dim_independent``.
        truth: The draws of the prior behind the data, with ``dim_independent``, without ``dim``.
        statistics: Functions of a field by name, such as ``lambda x: x.mean(("y", "x"))``. They
            return real values and reduce all dims but ``dim`` and ``dim_independent``.
        dim: The name of the dimension of the members.
        dim_independent: The name of the dimension of the data sets.
        n_bins: The number of bins of the chi-square. By default 10, or a fifth of the number of
            data sets if that is less.
        confidence: The confidence of the band of the distribution function.
        seed: The seed of the draws that break ties.

    Returns:
        ``pit(statistic, case)``, ``share(statistic, bin)``, ``ecdf(statistic, point)`` with
        ``lower(point)`` and ``upper(point)``, ``p_value(statistic)`` of the chi-square and
        ``p_value_ecdf(statistic)`` of the distribution function.

    Raises:
        InputError: ``statistics`` is empty.
        ShapeError: Dims or labels do not match, or a statistic has dims other than
            ``dim_independent`` and, for the ensemble, ``dim``.
        DTypeError: The ensemble is real and the truth complex, or the reverse; a statistic is
            complex.
        NonFiniteError: NaN or Inf in a field or a statistic.

    References:
        Talts, Betancourt, Simpson, Vehtari and Gelman, 2018, arXiv 1804.06788.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.calibration import sbc
        >>> draws = np.random.default_rng(0).standard_normal((21, 200, 3))
        >>> truth = xr.DataArray(draws[0], dims=("case", "x"))
        >>> ensemble = xr.DataArray(draws[1:], dims=("realization", "case", "x"))
        >>> statistics = {"mean": lambda x: x.mean("x"), "largest": lambda x: x.max("x")}
        >>> found = sbc(ensemble, truth, statistics)
        >>> found["p_value"].round(2).values
        array([0.46, 0.64])
        >>> narrow = sbc(0.5 * ensemble, truth, statistics)  # half the spread
        >>> bool((narrow["p_value"] < 1e-4).all())
        True
    """
    if not statistics:
        raise InputError(
            "there are no statistics to rank",
            got="an empty mapping",
            expected="at least one function",
            hint='Give, for instance, {"mean": lambda x: x.mean(("y", "x"))}.',
        )
    # Here, since a statistic that skips NaN would hide them.
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
    """Check that a statistic is one real number per member and data set."""
    if set(drawn.dims) != set(dims) or set(exact.dims) != {dims[1]}:
        raise ShapeError(
            f"the statistic {name!r} is not one number per member and data set",
            got=f"dims {drawn.dims} for the ensemble, {exact.dims} for the truth",
            expected=f"{dims} and {dims[1:]}",
            hint="Reduce the other dims, as in x.mean(('y', 'x')).",
        )
    if np.iscomplexobj(drawn) or np.iscomplexobj(exact):
        raise DTypeError(
            f"the statistic {name!r} is complex",
            got=drawn.dtype,
            expected="real",
            hint="Take its abs().",
        )
