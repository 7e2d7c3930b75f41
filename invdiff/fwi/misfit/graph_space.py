"""Optimal transport between the graphs of traces: samples move in time and in amplitude."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invdiff.fwi.misfit.base import Misfit, check_positive, check_traces

__all__ = ["GraphSpace"]


@dataclass(frozen=True)
class GraphSpace(Misfit):
    r"""The cheapest pairing of the samples of each trace, in amplitude and time.

    .. math:: \sum_r \min_\sigma \tfrac12 \sum_t
        (p_t - d_{\sigma(t)})^2 + (a_r\, (t - \sigma(t))\, dt / \tau)^2,

    with the peak :math:`a_r` of the observed trace. Signed traces need no normalisation; amplitudes
    count as in :class:`L2`, which is the limit of small :math:`\tau`. An observed trace that is
    zero is paired with itself. Cost: :math:`O(n^3)` per trace of :math:`n` samples, on one core;
    filter and decimate first.

    Args:
        dt: The sampling interval in s.
        max_shift: The shift :math:`\tau` in s that costs as much as the peak amplitude, about the
            largest shift that is expected.

    Raises:
        InputError: The interval or the shift is not finite and positive.

    References:
        Metivier, Brossier, Merigot and Oudet, Inverse Problems 35, 2019,
        doi 10.1088/1361-6420/ab206f.

    Examples:
        >>> import torch
        >>> from invdiff.fwi.misfit import L2, GraphSpace
        >>> observed = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
        >>> predicted = observed.roll(1)  # late by one sample of 10 ms
        >>> float(L2()(predicted, observed))
        1.0
        >>> round(float(GraphSpace(dt=0.01, max_shift=0.1)(predicted, observed)), 4)
        0.01
    """

    dt: float
    max_shift: float

    def __post_init__(self) -> None:
        check_positive(self.dt, "the sampling interval dt")
        check_positive(self.max_shift, "max_shift")

    def __call__(self, predicted: Tensor, observed: Tensor) -> Tensor:
        """The misfit of each shot, ``(...)``, in units of the traces squared."""
        check_traces(predicted, observed)
        observed = observed.expand_as(predicted)
        n = predicted.shape[-1]
        p, d = (x.detach().double().cpu().numpy().reshape(-1, n) for x in (predicted, observed))
        found = np.stack([self._pairing(*pair) for pair in zip(p, d, strict=True)])
        pairing = torch.from_numpy(found).to(predicted.device).reshape(predicted.shape)
        # The pairing is optimal, so that its change adds nothing to the gradient.
        moved = (pairing - torch.arange(n, device=pairing.device)) * (self.dt / self.max_shift)
        time = (observed.abs().amax(-1, keepdim=True) * moved).square()
        return ((predicted - observed.gather(-1, pairing)).square() + time).sum((-2, -1)) / 2

    def _pairing(self, p: np.ndarray, d: np.ndarray) -> np.ndarray:
        """The observed sample that is paired with each predicted one."""
        from scipy.optimize import linear_sum_assignment

        t = np.arange(len(p)) * (self.dt / self.max_shift) * np.abs(d).max()
        if not d.any():
            return np.arange(len(p))
        cost = np.subtract.outer(p, d) ** 2 + np.subtract.outer(t, t) ** 2
        pairing: np.ndarray = linear_sum_assignment(cost)[1]
        return pairing
