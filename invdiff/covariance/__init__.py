"""The covariance of ``x_0`` given ``x_t`` as a linear operator, which sets the spread.

A covariance ``C`` has a factor ``L`` with ``C = L L^H``. Products, draws ``L e`` and solves go
through the factor, also where ``C`` is singular. ``L`` acts on coordinates that it chooses, in
which white noise stays white. For complex fields ``C = E[(x - m)(x - m)^H]``.
"""

from invdiff.covariance.base import Covariance, NoCovariance
from invdiff.covariance.dense import DenseCovariance
from invdiff.covariance.localization import GaspariCohn
from invdiff.covariance.products import (
    JacobianCovariance,
    ProductCovariance,
    TransformedCovariance,
)
from invdiff.covariance.spectral import LowRankCovariance, SpectralCovariance

__all__ = [
    "Covariance",
    "DenseCovariance",
    "GaspariCohn",
    "JacobianCovariance",
    "LowRankCovariance",
    "NoCovariance",
    "ProductCovariance",
    "SpectralCovariance",
    "TransformedCovariance",
]
