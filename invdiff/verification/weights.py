"""Weights of latitude, and means by them."""

from __future__ import annotations

import numpy as np
import xarray as xr

from invdiff.errors import InputError, ShapeError
from invdiff.verification.scored import Dims, check_weights, finite, kept, mean

__all__ = ["latitude_weights", "weighted_mean"]


def latitude_weights(latitude: xr.DataArray) -> xr.DataArray:
    r"""Shares of the area of the cells of a grid of latitudes, which add up to 1.

    .. math:: w_i = \frac{|\sin\phi_{i+1/2} - \sin\phi_{i-1/2}|}
        {\sum_j |\sin\phi_{j+1/2} - \sin\phi_{j-1/2}|},

    with edges halfway between the latitudes; the outer ones lie as far outside as the next ones lie
    inside, but not beyond a pole. A row at a pole gets the cap around it, where the cosine would
    give it nothing.

    Args:
        latitude: Latitudes in degrees, along one dimension, increasing or decreasing.

    Returns:
        The weights, along the dimension of the latitudes.

    Raises:
        ShapeError: Fewer than two latitudes, or not one dimension.
        InputError: They are not in order, or lie outside [-90, 90] degrees.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.verification import latitude_weights
        >>> latitude = xr.DataArray([-60.0, 0.0, 60.0], dims="lat")
        >>> latitude_weights(latitude).values.round(2)  # edges at 90, 30, -30 and -90 degrees
        array([0.25, 0.5 , 0.25])
    """
    if latitude.ndim != 1 or latitude.size < 2:
        raise ShapeError(
            "these latitudes have no cells",
            got=f"{latitude.dims}, {latitude.shape}",
            expected="one dimension of at least 2 latitudes",
        )
    degrees = latitude.values.astype(float)
    steps = np.diff(degrees)
    is_ordered = (steps > 0).all() or (steps < 0).all()
    if not is_ordered or not (np.abs(degrees) <= 90).all():
        raise InputError(
            "these are not latitudes of a grid",
            got=f"{degrees[0]:g} to {degrees[-1]:g}",
            expected="increasing or decreasing degrees within [-90, 90]",
        )
    inner = (degrees[1:] + degrees[:-1]) / 2
    outer = [degrees[0] - steps[0] / 2, degrees[-1] + steps[-1] / 2]
    edges = np.clip([outer[0], *inner, outer[1]], -90, 90)
    area = np.abs(np.diff(np.sin(np.radians(edges))))
    attrs = {"long_name": "share of the area", "units": "1"}
    return latitude.copy(data=area / area.sum()).rename("weight").assign_attrs(attrs)


def weighted_mean(
    field: xr.DataArray,
    weights: xr.DataArray | None = None,
    *,
    by: Dims = (),
    where: xr.DataArray | None = None,
) -> xr.DataArray:
    r"""Weighted mean :math:`\sum w x / \sum w` over all dims but those named by ``by``.

    The result is lazy if the field is. Cost: one pass.

    Args:
        field: The values.
        weights: Weights over dims of the field, not negative, such as :func:`latitude_weights`;
            they are held in memory. By default all are alike.
        by: The dims that are kept.
        where: A boolean mask over dims of the field, True where values count. By default all do.

    Returns:
        The mean, with the dims ``by``; NaN where no value counts.

    Raises:
        ShapeError: Dims or labels do not match.
        NonFiniteError: NaN or Inf in the weights; in a value that counts, when it is computed.
        InputError: Negative weights, or all of them zero.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.verification import latitude_weights, weighted_mean
        >>> latitude = xr.DataArray(np.linspace(-90, 90, 181), dims="lat")
        >>> field = np.sin(np.radians(latitude)) ** 2  # 1/3 over the sphere
        >>> float(weighted_mean(field, latitude_weights(latitude)).round(4))
        0.3333
    """
    keep = kept(by, field)
    where = xr.DataArray(True) if where is None else where
    checked = finite(field, where, name="field")
    over = [name for name in field.dims if name not in keep]
    return mean(checked, check_weights(weights, field), over).assign_attrs(field.attrs)
