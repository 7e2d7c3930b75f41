"""The sensitivity of traces to each cell of a model."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from scipy.ndimage import gaussian_filter
from torch import Tensor

from invdiff.errors import InputError
from invdiff.fwi.misfit import Misfit
from invdiff.noise import NoiseField
from invdiff.protocols import WaveOperator

__all__ = ["illumination", "pulled_back"]


def illumination(
    operator: WaveOperator,
    model: xr.DataArray,
    *,
    seed: int = 0,
    smoothing: float = 3.0,
    weights: xr.DataArray | None = None,
) -> xr.DataArray:
    """Illumination: the square root of the diagonal of :math:`J^T W^2 J`.

    :math:`J` is the Jacobian of the traces and :math:`W` holds their weights. White data pulled
    back, :math:`J^T W e`, have this standard deviation; it is estimated from one draw per shot,
    smoothed over cells. Where it is low, an inversion follows the prior or leaves the start as it
    was. Cost: one forward and one adjoint solve per shot, whatever the number of cells.

    Args:
        operator: A wave operator, such as :class:`invdiff.operators.seismic.Acoustic`.
        model: The velocities ``(z, x)``, in m/s.
        seed: The seed of the draws.
        smoothing: The standard deviation of the smoothing in cells, positive; the relative error is
            about ``1 / (4 smoothing)`` for one shot.
        weights: The weights of the traces, over any of their dims; ones by default.

    Returns:
        The illumination ``(z, x)``, in units of the traces per m/s.

    Raises:
        InputError: ``smoothing`` is not positive.
        ShapeError: The model is on another grid.
    """
    if not smoothing > 0:
        raise InputError(
            "the smoothing is not positive", got=smoothing, expected="a number of cells > 0"
        )
    x = operator.domain.to_tensor(model, name="the model")[None]
    e = NoiseField(seed)(operator.range, [0], 0)[0]
    labelled = operator.range.to_dataarray(e, "noise")
    if weights is not None:
        labelled = (labelled * weights).transpose(*labelled.dims)
    (draws,) = pulled_back(operator, x, torch.from_numpy(labelled.values).to(x))
    square = gaussian_filter(draws.square().sum(0).cpu().numpy(), smoothing, mode="nearest")
    return operator.domain.to_dataarray(
        torch.from_numpy(np.sqrt(square)).to(x),
        "illumination",
        attrs={"long_name": "sensitivity of the traces, in their units", "units": "s m-1"},
    )


def pulled_back(operator: WaveOperator, x: Tensor, e: Tensor) -> Tensor:
    """The fields :math:`J_s^T e_s` of each shot at models, ``(batch, shot, nz, nx)``, double.

    Shots are solved one after another, since their fields are wanted one by one; all models at
    once.

    Args:
        operator: A wave operator of shots ``s``.
        x: The velocities, ``(batch, nz, nx)``, in m/s.
        e: The data to pull back, ``(shot, receiver, time)``, the same for all models.
    """
    pulled = []
    for shot in range(operator.range.shape[0]):
        one = operator.shots([shot])
        _, gradient = one.misfit_and_gradient(x, e[shot : shot + 1], misfit=_Projection())
        pulled.append(gradient)
    return torch.stack(pulled, dim=1).double()


class _Projection(Misfit):
    """The inner product ``<p, e>``, whose gradient pulls back ``e``."""

    def __call__(self, predicted: Tensor, observed: Tensor) -> Tensor:
        return (predicted * observed).sum((-2, -1))
