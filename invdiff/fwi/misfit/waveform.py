"""Misfits of the waveforms themselves: least squares and normalised correlation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.errors import NoiseLevelError
from invdiff.fwi.misfit.base import Misfit, check_traces

__all__ = ["L2", "NormalisedCorrelation"]


@dataclass(frozen=True)
class L2(Misfit):
    r"""Least squares, :math:`\frac12 \sum |p - d|^2 / s^2`: minus a Gaussian log-likelihood.

    It cycle-skips: a shift of more than half a period leads to the wrong cycle.

    Args:
        noise_std: The standard deviation ``s`` of the noise, positive, in the units of the traces.
            With the true one the expectation of the misfit at the truth is half the number of
            samples. The default of 1 leaves the misfit in units of the traces squared.

    Raises:
        NoiseLevelError: ``noise_std`` is not finite and positive.

    References:
        Tarantola, Geophysics 49, 1984, doi 10.1190/1.1441754.

    Examples:
        >>> import torch
        >>> from invdiff.fwi.misfit import L2
        >>> predicted, observed = torch.ones(2, 3, 4), torch.zeros(2, 3, 4)  # shot, receiver, time
        >>> L2(noise_std=0.5)(predicted, observed)
        tensor([24., 24.])
    """

    noise_std: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.noise_std < math.inf:
            raise NoiseLevelError(
                "the noise level is not positive", got=self.noise_std, expected="finite, > 0"
            )

    def __call__(self, predicted: Tensor, observed: Tensor) -> Tensor:
        """The misfit of each shot, ``(...)``, in units of the traces squared over ``s^2``."""
        check_traces(predicted, observed)
        residual = (predicted - observed) / self.noise_std
        return residual.square().sum((-2, -1)) / 2


@dataclass(frozen=True)
class NormalisedCorrelation(Misfit):
    r"""One minus the correlation of each trace, :math:`\sum_r 1 - \langle p, d\rangle / |p||d|`.

    It does not depend on the amplitude of a trace (source strength, coupling, geometrical
    spreading), and lies between 0 and 2 per trace. A trace that is zero, predicted or observed,
    counts 0 and has no gradient. It cycle-skips as :class:`L2` does.

    References:
        Choi and Alkhalifah, Geophysical Prospecting 60, 2012, doi 10.1111/j.1365-2478.2012.01079.x.

    Examples:
        >>> import torch
        >>> from invdiff.fwi.misfit import NormalisedCorrelation
        >>> observed = torch.tensor([[0.0, 3.0, 4.0]])
        >>> misfit = NormalisedCorrelation()
        >>> [round(float(misfit(factor * observed, observed)), 4) for factor in (5, -1)]
        [0.0, 2.0]
    """

    def __call__(self, predicted: Tensor, observed: Tensor) -> Tensor:
        """The misfit of each shot, ``(...)``, dimensionless."""
        check_traces(predicted, observed)
        # torch's cosine_similarity clamps small norms; traces in SI units can be that small.
        p, p_lives = _unit(predicted)
        d, d_lives = _unit(observed)
        # |p - d|^2 / 2 = 1 - <p, d> of unit vectors, without the cancellation near agreement.
        halves = (p - d).square().sum(-1) / 2
        return torch.where(p_lives & d_lives, halves, 0).sum(-1)


def _unit(traces: Tensor) -> tuple[Tensor, Tensor]:
    """Traces of norm one, and which of them are not zero, ``(..., receiver)``; zeros stay zero."""
    peak = traces.detach().abs().amax(-1, keepdim=True)
    lives = peak > 0
    # The peak first: squares of small amplitudes underflow.
    scaled = torch.where(lives, traces / torch.where(lives, peak, 1), 0)
    square = scaled.square().sum(-1, keepdim=True)
    return scaled / torch.where(lives, square, 1).sqrt(), lives[..., 0]
