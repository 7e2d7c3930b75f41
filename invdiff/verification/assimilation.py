"""Departures of observations from background and analysis, and information from the data."""

from __future__ import annotations

import xarray as xr

from invdiff.errors import ShapeError
from invdiff.verification.scored import Dims, Noise, check_noise, moments, scored

__all__ = [
    "degrees_of_freedom_for_signal",
    "departures",
    "desroziers",
]


def degrees_of_freedom_for_signal(
    analysis: xr.DataArray,
    *,
    noise_std: Noise,
    dim: str = "realization",
    by: Dims = (),
    where: xr.DataArray | None = None,
) -> xr.DataArray:
    r"""Number of observations' worth of information that an analysis draws from the data.

    .. math:: \mathrm{DFS} = \mathrm{tr}(H K) = \mathrm{tr}(H A H^T R^{-1})
        = \sum_i \frac{\mathrm{Var}_a(H x)_i}{\sigma_i^2}

    for linear observations, Gaussian errors and diagonal :math:`R`: 0 where the data add nothing
    to the prior, the number of observations where the prior adds nothing to them. The sample
    variance makes it unbiased for any number of members, of any method that draws posterior
    ensembles; it is as right as their spread is. The result is lazy if the ensemble is.
    Cost: one pass over the members.

    Args:
        analysis: The members of the posterior in observation space, :math:`H x_i`, with dimension
            ``dim``, in the units of the observations. There must be two or more.
        noise_std: The standard deviation of the observation errors, a number or one with dims of
            the observations.
        dim: The name of the dimension of the members.
        by: The dims that are kept, such as that of the time; all others are summed.
        where: A boolean mask over dims of the observations, True where there is one. By default all
            are there.

    Returns:
        The sum, with the dims ``by``.

    Raises:
        ShapeError: Dims or labels do not match.
        DTypeError: Complex values, or ``where`` is not boolean.
        NoiseLevelError: A noise level is not positive and finite.
        NonFiniteError: NaN or Inf where values are evaluated, when they are computed.
        InputError: Fewer than two members, or ``where`` is False everywhere.

    References:
        Cardinali, Pezzulli and Andersson, Quarterly Journal of the Royal Meteorological Society
        130, 2004, doi 10.1256/qj.03.205.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.verification import degrees_of_freedom_for_signal
        >>> draws = np.random.default_rng(0).standard_normal((2000, 3))
        >>> analysis = xr.DataArray(0.5**0.5 * draws, dims=("realization", "station"))
        >>> float(degrees_of_freedom_for_signal(analysis, noise_std=1.0).round(1))  # half of 3
        1.5
    """
    if dim not in analysis.dims:
        raise ShapeError(
            "the analysis lacks the dimension of the members",
            got=analysis.dims,
            expected=f"a dimension {dim!r}",
            hint="Name it by dim=.",
        )
    # The analysis stands in for observations, which the figure does not need.
    observations = analysis.isel({dim: 0}, drop=True)
    given = scored(
        analysis, observations, dim=dim, n_members=2, by=by, where=where, is_complete=True
    )
    _, _, variance = moments(given.ensemble, dim)
    share = variance / check_noise(noise_std, observations) ** 2
    total = share.sum(given.over)  # NaN where nothing is observed adds nothing
    return total.rename("degrees_of_freedom_for_signal").assign_attrs(units="1")


def departures(
    background: xr.DataArray,
    analysis: xr.DataArray,
    observations: xr.DataArray,
    *,
    noise_std: Noise,
    dim: str = "realization",
    by: Dims = (),
    weights: xr.DataArray | None = None,
    where: xr.DataArray | None = None,
) -> xr.Dataset:
    r"""Statistics of observation minus background and of observation minus analysis.

    For a consistent system the mean squares are, with :math:`\overline{\phantom x}` over all
    observations but those told apart by ``by``,

    .. math:: \overline{d_b^2} = \overline{\sigma^2 + \tfrac{M + 1}{M} s_b^2}, \qquad
        \overline{d_a^2} = \overline{\sigma^2 - \tfrac{M - 1}{M} s_a^2},

    with the sample variances :math:`s^2` of the :math:`M` members of either in observation space;
    the second assumes linear observations and the observations that the analysis has seen, and
    members whose own noise does not depend on them. Both are unbiased for any :math:`M`. The
    result is lazy if the ensembles are. Cost: one pass over the members.

    Args:
        background: The members of the prior or forecast in observation space, with dimension
            ``dim``, in the units of the observations. There must be two or more.
        analysis: The members of the posterior in observation space, likewise.
        observations: The observations, without ``dim``, on the labels of the two.
        noise_std: The standard deviation of the observation errors, a number or one with dims of
            the observations.
        dim: The name of the dimension of the members.
        by: The dims that are kept, such as that of the instruments; all others are averaged.
        weights: Weights of the mean over dims of the observations, not negative; they are held in
            memory. By default all are alike.
        where: A boolean mask over dims of the observations, True where there is one. By default all
            are there.

    Returns:
        ``omb_mean``, ``omb_std``, ``omb_rms`` and the expected ``omb_expected``, and likewise
        ``oma_...``, in the units of the observations, with the dims ``by``; ``oma_expected`` is NaN
        where the analysis spreads more than the noise level allows.

    Raises:
        ShapeError: Dims or labels do not match.
        DTypeError: Complex values, or ``where`` is not boolean.
        NoiseLevelError: A noise level is not positive and finite.
        NonFiniteError: NaN or Inf in the weights; where values are evaluated, when they are
            computed.
        InputError: Fewer than two members, ``where`` is False everywhere, negative weights, or all
            of them zero.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.verification import departures
        >>> rng = np.random.default_rng(0)
        >>> draws = rng.standard_normal((41, 5000))
        >>> y = xr.DataArray(draws[0] + rng.standard_normal(5000), dims="time")
        >>> background = xr.DataArray(draws[1:], dims=("realization", "time"))
        >>> spread = 0.5**0.5 * xr.DataArray(rng.standard_normal((40, 5000)), dims=background.dims)
        >>> analysis = y / 2 + spread  # exact, for prior and noise of variance 1
        >>> found = departures(background, analysis, y, noise_std=1.0)
        >>> {name: round(float(found[name]), 2) for name in found if "mean" not in name}
        {'omb_std': 1.42, 'omb_rms': 1.42, 'omb_expected': 1.42,
        'oma_std': 0.71, 'oma_rms': 0.71, 'oma_expected': 0.71}
    """
    found: dict[str, xr.DataArray] = {}
    noise = check_noise(noise_std, observations)
    for name, ensemble, sign in (("omb", background, 1), ("oma", analysis, -1)):
        given = scored(
            ensemble,
            observations,
            dim=dim,
            n_members=2,
            by=by,
            weights=weights,
            where=where,
            is_complete=True,
        )
        m = ensemble.sizes[dim]
        _, centre, variance = moments(given.ensemble, dim)
        d = given.truth - centre
        expected = noise**2 + sign * (m + sign) / m * variance
        mean, square, expected = (given.mean(field) for field in (d, d**2, expected))
        found |= {
            f"{name}_mean": mean,
            f"{name}_std": (square - mean**2).clip(min=0) ** 0.5,
            f"{name}_rms": square**0.5,
            f"{name}_expected": expected.where(expected >= 0) ** 0.5,
        }
    units = {"units": observations.attrs.get("units", "1")}
    return xr.Dataset({name: field.assign_attrs(units) for name, field in found.items()})


def desroziers(
    background: xr.DataArray,
    analysis: xr.DataArray,
    observations: xr.DataArray,
    *,
    dim: str = "realization",
    by: Dims = (),
    weights: xr.DataArray | None = None,
    where: xr.DataArray | None = None,
) -> xr.Dataset:
    r"""Error variances in observation space that departures imply, by Desroziers and others.

    With the departures :math:`d_b = y - \overline{H x_b}`, :math:`d_a = y - \overline{H x_a}` and
    the increment :math:`d_{ab} = d_b - d_a`,

    .. math:: \hat\sigma_o^2 = \overline{d_a d_b}, \qquad
        \hat\sigma_b^2 = \overline{d_{ab} d_b}, \qquad
        \hat\sigma_a^2 = \overline{d_{ab} d_a}.

    They are the variances of observation, background and analysis errors where the analysis is
    linear and has weighed background and observations by their true covariances. Where it has not,
    the estimates contradict the variances that it was given, and tell in which direction to change
    them. An estimate may be negative. The result is lazy if the ensembles are. Cost: one pass over
    the members.

    Args:
        background: The members of the prior or forecast in observation space, with dimension
            ``dim``, in the units of the observations. One member is taken as their mean.
        analysis: The members of the posterior in observation space, likewise.
        observations: The observations that the analysis has seen, without ``dim``, on the labels of
            the two.
        dim: The name of the dimension of the members.
        by: The dims that are kept, such as that of the instruments; all others are averaged.
        weights: Weights of the mean over dims of the observations, not negative; they are held in
            memory. By default all are alike.
        where: A boolean mask over dims of the observations, True where there is one. By default all
            are there.

    Returns:
        ``observation_variance``, ``background_variance`` and ``analysis_variance`` in squared units
        of the observations, with the dims ``by``.

    Raises:
        ShapeError: Dims or labels do not match.
        DTypeError: Complex values, or ``where`` is not boolean.
        NonFiniteError: NaN or Inf in the weights; where values are evaluated, when they are
            computed.
        InputError: ``where`` is False everywhere, negative weights, or all of them zero.

    References:
        Desroziers, Berre, Chapnik and Poli, Quarterly Journal of the Royal Meteorological Society
        131, 2005, doi 10.1256/qj.05.108.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.verification import desroziers
        >>> rng = np.random.default_rng(0)
        >>> truth = 2 * rng.standard_normal(20_000)  # about a background of 0
        >>> y = xr.DataArray(truth + rng.standard_normal(20_000), dims="time")
        >>> background = 0 * y.expand_dims("realization")
        >>> analysis = 0.8 * y.expand_dims("realization")  # gain 4 / (4 + 1)
        >>> found = desroziers(background, analysis, y)
        >>> {name: round(float(field), 1) for name, field in found.items()}
        {'observation_variance': 1.0, 'background_variance': 4.0, 'analysis_variance': 0.8}
    """
    pairs = [
        scored(
            ensemble,
            observations,
            dim=dim,
            n_members=1,
            by=by,
            weights=weights,
            where=where,
            is_complete=True,
        )
        for ensemble in (background, analysis)
    ]
    d_b, d_a = (given.truth - moments(given.ensemble, dim)[1] for given in pairs)
    found = {
        "observation_variance": d_a * d_b,
        "background_variance": (d_b - d_a) * d_b,
        "analysis_variance": (d_b - d_a) * d_a,
    }
    units = observations.attrs.get("units", "1")
    attrs = {"units": units if units == "1" else f"({units})2"}
    return xr.Dataset(
        {name: pairs[0].mean(field).assign_attrs(attrs) for name, field in found.items()}
    )
