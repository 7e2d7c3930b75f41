"""How strongly traces depend on each cell of a model."""

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
    r"""Root of the diagonal of :math:`J^T W^2 J`, with the Jacobian :math:`J` of the traces.

    White data pulled back, :math:`J^T W e`, have this standard deviation. It is estimated by one
    draw a shot, smoothed over cells: a forward and an adjoint solve a shot, no matter how many
    cells. What is dim an inversion takes from the prior or leaves as it was.

    Args:
        operator: such as `invdiff.operators.seismic.Acoustic`.
        model: ``(z, x)``, m/s.
        seed: of the draws.
        smoothing: standard deviation, cells; the relative error is about ``1 / (4 smoothing)`` of
            a shot.
        weights: of the traces, over any of their dims.

    Returns:
        ``(z, x)``, in units of the traces per m/s.

    Raises:
        InputError: smoothing that is not positive.
        ShapeError: a model of another grid.
    """
    if not smoothing > 0:
        raise InputError("no smoothing", got=smoothing, expected="a number of cells > 0")
    x = operator.domain.to_tensor(model, name="the model")[None]
    e = NoiseField(seed)(operator.range, [0], 0)[0]
    labelled = operator.range.to_dataarray(e, "noise")
    if weights is not None:
        labelled = (labelled * weights).transpose(*labelled.dims)
    draws = pulled_back(operator, x, torch.from_numpy(labelled.values).to(x))
    square = gaussian_filter(draws.square().sum(0).numpy(), smoothing, mode="nearest")
    return operator.domain.to_dataarray(
        torch.from_numpy(np.sqrt(square)).to(x),
        "illumination",
        attrs={"long_name": "sensitivity of the traces, in their units", "units": "s m-1"},
    )


def pulled_back(operator: WaveOperator, x: Tensor, e: Tensor) -> Tensor:
    """``J_s^T e_s`` of each shot at a model, ``(shot, nz, nx)``, double.

    Args:
        operator: of shots ``s``.
        x: ``(1, nz, nx)``, m/s.
        e: ``(shot, receiver, time)``.
    """
    pulled = []
    for shot in range(operator.range.shape[0]):
        one = operator.shots([shot])
        _, gradient = one.misfit_and_gradient(x, e[shot : shot + 1], misfit=_Projection())
        pulled.append(gradient[0])
    return torch.stack(pulled).double().cpu()


class _Projection(Misfit):
    """``<p, e>``: its gradient pulls back ``e``."""

    def __call__(self, predicted: Tensor, observed: Tensor) -> Tensor:
        return (predicted * observed).sum()
