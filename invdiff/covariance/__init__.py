r"""``Cov[x_0 | x_t]`` as a linear operator: the part of a prior that makes its spread right.

A covariance ``C`` comes with a factor ``L`` (``C = L L^H``): products, samples ``L e`` and solves
all go through it, also where ``C`` is singular. ``L`` acts on coordinates of its own choosing, in
which white noise is white. For complex fields ``C = E[(x - m)(x - m)^H]``.
"""

from invdiff.covariance.base import Covariance, NoCovariance
from invdiff.covariance.dense import DenseCovariance
from invdiff.covariance.products import (
    JacobianCovariance,
    ProductCovariance,
    TransformedCovariance,
)
from invdiff.covariance.spectral import LowRankCovariance, SpectralCovariance

__all__ = [
    "Covariance",
    "DenseCovariance",
    "JacobianCovariance",
    "LowRankCovariance",
    "NoCovariance",
    "ProductCovariance",
    "SpectralCovariance",
    "TransformedCovariance",
]
