"""What a conditioning method offers, and helpers that several of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from invdiff.covariance import Covariance, NoCovariance
from invdiff.grid import Grid
from invdiff.likelihood import Gaussian, LinearModel
from invdiff.needs import TermMethod, require
from invdiff.noise import StepNoise, Stream
from invdiff.protocols import Prior, Term

__all__ = ["Conditioning", "Point", "Update", "data_streams", "guided", "split_terms"]


class Conditioning(TermMethod, ABC):
    """Turns the moments of a prior given ``x_t`` into those given ``x_t`` and terms."""

    kind: ClassVar[str] = "conditionings"
    needs_grad: bool = False
    has_evidence: bool = False
    """Whether its updates are ``GaussianUpdate``s, which know the evidence of the data."""

    def check(self, terms: Sequence[Term]) -> None:
        """Refuse terms that this method cannot use.

        Raises:
            UnsupportedError: with the list of methods that can.
        """
        require(self, terms)

    @abstractmethod
    def update(self, prior: Prior, terms: Sequence[Term], x_t: Tensor, *, t: Tensor) -> Update:
        """The Gaussian that stands for ``p(x_0 | x_t, y)``."""


class Update(Protocol):
    """``p(x_0 | x_t, y)`` as a Gaussian."""

    def posterior_mean(self) -> Tensor:
        """``E[x_0 | x_t, y]``."""
        ...

    def posterior_covariance(self) -> Covariance:
        """``Cov[x_0 | x_t, y]``."""
        ...

    def draw(self, grid: Grid, noise: StepNoise) -> Tensor:
        """One ``x_0`` a member."""
        ...


@dataclass(frozen=True, eq=False)
class Point:
    """A mean alone: what methods give that leave out the spread of ``x_0`` given ``x_t``.

    Args:
        mean: ``(batch, *shape)``.
    """

    mean: Tensor

    def posterior_mean(self) -> Tensor:
        """The mean."""
        return self.mean

    def posterior_covariance(self) -> Covariance:
        """None."""
        return NoCovariance()

    def draw(self, grid: Grid, noise: StepNoise) -> Tensor:
        """The mean itself."""
        return self.mean


def split_terms(terms: Sequence[Term]) -> tuple[list[Gaussian], list[Term]]:
    """Gaussian likelihoods and the rest."""
    gaussians = [term for term in terms if isinstance(term, Gaussian)]
    return gaussians, [term for term in terms if not isinstance(term, Gaussian)]


def data_streams(
    models: Sequence[LinearModel], noise: StepNoise, *, first: int = Stream.DATA
) -> list[Tensor]:
    """Standard normal noise of the data of each model, ``(batch, *data)``.

    Args:
        models: whitened linear data.
        noise: of the members and this step.
        first: stream of the first model; the others follow.
    """
    return [
        noise(model.data_grid, first + i, where=model.informative) for i, model in enumerate(models)
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
