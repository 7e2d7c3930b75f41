"""The chi-square of innovations, and what it is expected to be for few members."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from invdiff.verification.scored import (
    Dims,
    Noise,
    check_noise,
    kept,
    one_chunk,
    refuse_overlap,
    scored,
)

__all__ = ["innovation_chi_square"]

Array = NDArray[np.float64]


def innovation_chi_square(
    background: xr.DataArray,
    observations: xr.DataArray,
    vector_dims: Dims,
    *,
    noise_std: Noise,
    dim: str = "realization",
    by: Dims = (),
    where: xr.DataArray | None = None,
) -> xr.Dataset:
    r"""Innovations over the covariance that ensemble and noise level state for them.

    .. math:: \chi^2 / n = \frac1n d^T (H B H^T + R)^{-1} d, \qquad d = y - \overline{H x},

    with diagonal :math:`R`, and :math:`H B H^T` the sample covariance of the :math:`M` members
    times :math:`(M + 1) / M`, since their mean errs more than that of their law. It is 1 for many
    members; more means that background spread or noise level are too small for the innovations.

    A sample covariance has rank :math:`M - 1` and its inverse is not unbiased, so that few members
    give more than 1 even if they are right: without noise :math:`(M - 1) / (M - n - 2)`. Hence
    ``expected``: each member in turn plays the truth of the others, with noise added in
    expectation. Of a right ensemble of :math:`M` members it is what the statistic of
    :math:`M - 1` members is on average, whatever the law, and thus slightly too large.

    Assumes observation errors that are independent, unbiased and of the stated noise level. The
    result is lazy if the ensemble is. Cost: :math:`n M^2 + M^3` for each vector.

    Args:
        background: The members of the prior or forecast in observation space, :math:`H x_i`, with
            dimension ``dim``, in the units of the observations. There must be two or more.
        observations: The observations, without ``dim``, on the labels of the background.
        vector_dims: The dims of one vector of observations.
        noise_std: The standard deviation of the observation errors, a number or one with dims of
            the observations.
        dim: The name of the dimension of the members.
        by: The dims that are kept; vectors are averaged over all others.
        where: A boolean mask over dims of the observations, True where there is one. By default all
            are there.

    Returns:
        ``chi_square``, and ``expected`` (NaN with fewer than three members), with the dims ``by``;
        NaN where nothing is observed.

    Raises:
        ShapeError: Dims or labels do not match, or ``vector_dims`` are among ``by``.
        DTypeError: Complex values, or ``where`` is not boolean.
        NoiseLevelError: A noise level is not positive and finite.
        NonFiniteError: NaN or Inf where values are evaluated, when they are computed.
        InputError: Fewer than two members, or ``where`` is False everywhere.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.verification import innovation_chi_square
        >>> rng = np.random.default_rng(0)
        >>> draws = rng.standard_normal((11, 500, 20))  # ten members, and the truth
        >>> y = xr.DataArray(draws[0] + rng.standard_normal((500, 20)), dims=("time", "station"))
        >>> background = xr.DataArray(draws[1:], dims=("realization", "time", "station"))
        >>> for ensemble in (background, background / 2):  # right, and too narrow
        ...     found = innovation_chi_square(ensemble, y, "station", noise_std=1.0)
        ...     float(found["chi_square"].round(2)), float(found["expected"].round(2))
        (1.52, 1.56)
        (1.75, 1.09)
    """
    vector = kept(vector_dims, observations)
    refuse_overlap(vector, kept(by, observations))
    given = scored(
        background, observations, dim=dim, n_members=2, by=by, where=where, is_complete=True
    )
    noise = check_noise(noise_std, observations)
    missing = {name: observations.sizes[name] for name in vector if name not in noise.dims}
    figures = xr.apply_ufunc(
        _chi_square,
        one_chunk(given.ensemble, *vector, dim),
        one_chunk(given.truth, *vector),
        noise.expand_dims(missing),
        input_core_dims=[[*vector, dim], list(vector), list(vector)],
        output_core_dims=[[], []],
        kwargs={"n_axes": len(vector)},
        dask="parallelized",
        output_dtypes=[np.float64, np.float64],
    )
    over = [name for name in given.over if name not in vector]
    names = ("chi_square", "expected")
    found = {name: figure.mean(over) for name, figure in zip(names, figures, strict=True)}
    return xr.Dataset({name: field.assign_attrs(units="1") for name, field in found.items()})


def _chi_square(
    members: Array, observations: Array, noise_std: Array, *, n_axes: int
) -> tuple[Array, Array]:
    """The statistic and its expectation, of vectors along the last axes; NaN is not observed."""
    m = members.shape[-1]
    shape = observations.shape[: observations.ndim - n_axes]
    centre = members.mean(-1)
    is_there = np.isfinite(observations)
    # What is not observed has an infinite noise level. All else is in units of the noise.
    scale = np.where(is_there, 1 / noise_std, 0)
    d = np.where(is_there, (observations - centre) * scale, 0).reshape(*shape, -1)
    u = np.where(is_there[..., None], (members - centre[..., None]) * scale[..., None], 0)
    u = u.reshape(*shape, -1, m)
    n = is_there.reshape(*shape, -1).sum(-1)
    per_datum = np.where(n > 0, 1 / np.maximum(n, 1), np.nan)
    gram = np.swapaxes(u, -1, -2) @ u
    projected = (np.swapaxes(u, -1, -2) @ d[..., None])[..., 0]
    # Woodbury's identity: a solve in the space of the members, not of the observations.
    inverse = np.linalg.inv(np.eye(m) + _factor(m) * gram)
    explained = np.einsum("...i,...ij,...j->...", projected, inverse, projected)
    square = (d**2).sum(-1) - _factor(m) * explained
    return square * per_datum, _expected(gram, n) * per_datum


def _factor(m: int) -> float:
    """The factor of the sum over members that makes it the covariance of their mean's error."""
    return (m + 1) / m / (m - 1)


def _expected(gram: Array, n: NDArray[np.int64]) -> Array:
    r"""The mean over members of their statistic about the others, noise added in expectation.

    In units of the noise and with the deviations :math:`u_i` from the mean of all :math:`m`, member
    :math:`i` is :math:`q u_i` from the mean of the others, :math:`q = m / (m - 1)`, and these have
    the covariance :math:`S_i = T - f q u_i u_i^T`, :math:`T = I + f \sum_j u_j u_j^T`. Sherman and
    Morrison give :math:`q^2 u_i^T S_i^{-1} u_i + \mathrm{tr}\, S_i^{-1}` by
    :math:`B = (I + f u^T u)^{-1}`.

    Args:
        gram: The products ``u^T u``, ``(*shape, m, m)``.
        n: The number of observations, ``(*shape)``.
    """
    m = gram.shape[-1]
    if m < 3:  # one member alone has no spread
        return np.full(gram.shape[:-2], np.nan)
    q, f = m / (m - 1), _factor(m - 1)
    inverse = np.linalg.inv(np.eye(m) + f * gram)
    own = np.diagonal(inverse, axis1=-2, axis2=-1)
    rest = q * (own - 1 / m)  # 1 - f q u^T T^-1 u
    square = q**2 * (1 - own) / f / rest
    trace = n[..., None] - m + own.sum(-1, keepdims=True) + q * (own - (inverse**2).sum(-1)) / rest
    expected: Array = (square + trace).mean(-1)
    return expected
