"""What a conditioning method offers, and helpers that several of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from invdiff.covariance import Covariance
from invdiff.errors import UnsupportedError
from invdiff.likelihood import Gaussian
from invdiff.noise import StepNoise
from invdiff.protocols import Prior, Term

__all__ = ["Conditioning", "data_streams", "guided", "split_terms"]

_FIRST_DATA_STREAM = 2  # 0 and 1 are the sampler's


class Conditioning(ABC):
    """Turns the moments of a prior given ``x_t`` into those given ``x_t`` and terms."""

    needs_grad: bool = False

    @abstractmethod
    def check(self, terms: Sequence[Term]) -> None:
        """Raise UnsupportedError for terms this method cannot use."""

    @abstractmethod
    def moments(
        self, prior: Prior, terms: Sequence[Term], x_t: Tensor, *, t: Tensor
    ) -> tuple[Tensor, Covariance]:
        """``E[x_0 | x_t, y]`` and ``Cov[x_0 | x_t, y]``."""

    @abstractmethod
    def draw(
        self, prior: Prior, terms: Sequence[Term], x_t: Tensor, *, t: Tensor, noise: StepNoise
    ) -> Tensor:
        """One ``x_0`` a member, from the Gaussian with these moments."""


def split_terms(
    terms: Sequence[Term], *, method: str, others: bool
) -> tuple[list[Gaussian], list[Term]]:
    """Linear-Gaussian likelihoods and the rest; refuse what ``method`` cannot use.

    Args:
        terms: of a posterior.
        method: named in the error.
        others: whether other differentiable terms are acceptable.

    Raises:
        UnsupportedError: a nonlinear operator, or another term where ``others`` is False.
    """
    gaussians: list[Gaussian] = []
    rest: list[Term] = []
    for term in terms:
        if isinstance(term, Gaussian):
            if not term.is_linear:
                raise UnsupportedError(
                    f"{method} needs a linear operator",
                    got=term.operator,
                    expected="a LinearOperator (with adjoint and gram)",
                    mend="Use DPS() for a nonlinear differentiable one.",
                )
            gaussians.append(term)
        elif others:
            rest.append(term)
        else:
            raise UnsupportedError(
                f"{method} takes linear-Gaussian likelihoods only",
                got=term,
                expected="Gaussian(y, linear operator, noise)",
                mend="Use DPS() or MomentMatching() for other differentiable terms.",
            )
    return gaussians, rest


def data_streams(terms: Sequence[Gaussian], noise: StepNoise) -> list[Tensor]:
    """Standard normal noise on the range of each term."""
    return [
        noise(term.operator.range, _FIRST_DATA_STREAM + i).to(term.y.dtype)
        for i, term in enumerate(terms)
    ]


def guided(
    prior: Prior,
    x_t: Tensor,
    *,
    t: Tensor,
    log_prob: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    r"""``E[x_0|x_t] + (sigma^2 / alpha) grad_{x_t} log p(y | x_t)``: Tweedie's formula with data.

    Args:
        prior: differentiated through.
        x_t: noisy field.
        t: its time.
        log_prob: of ``(E[x_0|x_t], x_t)``, summed over members or not.
    """
    with torch.enable_grad():
        x_t = x_t.detach().requires_grad_()
        mean = prior.denoise(x_t, t)
        (gradient,) = torch.autograd.grad(log_prob(mean, x_t).sum(), x_t)
    # torch differentiates by real and imaginary part, each of which carries half the noise.
    half = 0.5 if x_t.is_complex() else 1.0
    schedule = prior.schedule
    return mean.detach() + half * float(schedule.sigma(t) ** 2 / schedule.alpha(t)) * gradient
