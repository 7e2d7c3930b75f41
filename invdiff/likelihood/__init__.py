"""Likelihoods: how well a field explains the data, one file per noise model."""

from invdiff.likelihood.base import Likelihood, Local
from invdiff.likelihood.gaussian import AxisCovariance, Gaussian, NoiseModel
from invdiff.likelihood.linearised import Linearised, LinearModel
from invdiff.likelihood.poisson import Poisson
from invdiff.likelihood.rician import Rician
from invdiff.likelihood.student_t import StudentT

__all__ = [
    "AxisCovariance",
    "Gaussian",
    "Likelihood",
    "LinearModel",
    "Linearised",
    "Local",
    "NoiseModel",
    "Poisson",
    "Rician",
    "StudentT",
]
