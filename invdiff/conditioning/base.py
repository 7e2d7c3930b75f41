"""The base class of conditioning methods, and helpers that several of them share."""

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
    """Turns the moments of a prior given ``x_t`` into those given ``x_t`` and the terms.

    A subclass writes ``update`` and states what it ``needs`` of the terms; see `invdiff.needs`.
    """

    kind: ClassVar[str] = "conditionings"
    needs_grad: bool = False
    has_evidence: bool = False
    """Whether its updates are ``GaussianUpdate``s, which give the evidence of the data."""

    def check(self, terms: Sequence[Term]) -> None:
        """Refuse terms that this method cannot use.

        Raises:
            UnsupportedError: A term cannot be used; the error lists the methods that can use it.
        """
        require(self, terms)

    @abstractmethod
    def update(self, prior: Prior, terms: Sequence[Term], x_t: Tensor, *, t: Tensor) -> Update:
        """The Gaussian that approximates ``p(x_0 | x_t, y)``.

        Args:
            prior: Prior of the clean fields.
            terms: Likelihoods and other differentiable log-densities.
            x_t: Noisy fields, ``(batch, *grid.shape)``.
            t: Time of the noisy fields, a scalar.
        """

    def tracked_update(
        self,
        prior: Prior,
        terms: Sequence[Term],
        x_t: Tensor,
        *,
        t: Tensor,
        record: Tensor | None,
    ) -> tuple[Update, Tensor | None]:
        """The update within a run, and the record of the innovations; see `InnovationScale`.

        By default the innovations are not used.

        Args:
            prior: Prior of the clean fields.
            terms: Likelihoods and other differentiable log-densities.
            x_t: Noisy fields of a run, ``(batch, *grid.shape)``.
            t: Time of the noisy fields, a scalar.
            record: Record of the run so far, ``(update, 4, batch)``; None at its start.
        """
        return self.update(prior, terms, x_t, t=t), record


class Update(Protocol):
    """The Gaussian approximation of ``p(x_0 | x_t, y)`` for a batch of members."""

    def posterior_mean(self) -> Tensor:
        """``E[x_0 | x_t, y]``, ``(batch, *grid.shape)``."""
        ...

    def posterior_covariance(self) -> Covariance:
        """``Cov[x_0 | x_t, y]`` as a linear operator on fields."""
        ...

    def draw(self, grid: Grid, noise: StepNoise) -> Tensor:
        """One ``x_0`` per member, ``(batch, *grid.shape)``."""
        ...


@dataclass(frozen=True, eq=False)
class Point:
    """A mean without covariance: the update of methods that leave out the spread of ``x_0``.

    Args:
        mean: ``E[x_0 | x_t, y]``, ``(batch, *shape)``.
    """

    mean: Tensor

    def posterior_mean(self) -> Tensor:
        """``E[x_0 | x_t, y]``, ``(batch, *shape)``."""
        return self.mean

    def posterior_covariance(self) -> Covariance:
        """The covariance zero, since the method has none."""
        return NoCovariance()

    def draw(self, grid: Grid, noise: StepNoise) -> Tensor:
        """The mean itself, ``(batch, *shape)``, since there is no spread to draw from."""
        return self.mean


def split_terms(terms: Sequence[Term]) -> tuple[list[Gaussian], list[Term]]:
    """The Gaussian likelihoods among the terms, and all others."""
    gaussians = [term for term in terms if isinstance(term, Gaussian)]
    return gaussians, [term for term in terms if not isinstance(term, Gaussian)]


def data_streams(
    models: Sequence[LinearModel], noise: StepNoise, *, first: int = Stream.DATA
) -> list[Tensor]:
    """Standard normal noise of the data of each model, ``(batch, *data)``.

    Args:
        models: Whitened linear data.
        noise: Noise of the members and this step.
        first: Stream of the first model; those of the others follow.
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
    """Tweedie's formula with data: ``E[x_0|x_t] + (sigma^2 / alpha) grad_{x_t} log p(y | x_t)``.

    Args:
        prior: Prior, which is differentiated through.
        x_t: Noisy fields, ``(batch, *grid.shape)``.
        t: Time of the noisy fields, a scalar.
        log_prob: Log-density of the data as a function of ``(E[x_0|x_t], x_t)``, ``(batch,)`` or
            summed.

    Returns:
        ``E[x_0|x_t, y]``, ``(batch, *grid.shape)``.
    """
    with torch.enable_grad():
        x_t = x_t.detach().requires_grad_()
        mean = prior.denoise(x_t, t)
        (gradient,) = torch.autograd.grad(log_prob(mean, x_t).sum(), x_t)
    # torch differentiates by real and imaginary part, each of which has half of the noise.
    half = 0.5 if x_t.is_complex() else 1.0
    schedule = prior.schedule
    return mean.detach() + half * float(schedule.sigma(t) ** 2 / schedule.alpha(t)) * gradient
