"""Weights of an ensemble of starts by how well its members explain the data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import softmax
from torch import Tensor

__all__ = ["misfit_weights"]


def misfit_weights(chi2: Tensor, *, least: float = 0.5) -> NDArray[np.float64]:
    """Weights ``exp(-chi2 / (2 T))`` with the lowest ``T >= 1`` that keeps enough members.

    With ``T = 1`` a difference of a few in thousands of data would select a single member, but
    modelling errors are larger than that.

    Args:
        chi2: Squared residual over the noise of each member, ``(batch,)``.
        least: Effective number ``1 / sum w^2`` to keep, as a share of the members.
    """
    log = -0.5 * np.asarray(chi2.double().cpu())

    def weights(log_t: float) -> NDArray[np.float64]:
        return np.asarray(softmax(log * np.exp(-log_t)))

    def shortfall(log_t: float) -> float:
        return float(1 / np.square(weights(log_t)).sum() - least * len(log))

    highest = np.log(max(np.ptp(log), 1.0)) + 20  # equal weights
    if shortfall(0.0) >= 0:
        return weights(0.0)
    return weights(brentq(shortfall, 0.0, highest))
