r"""DPS: the likelihood at the denoised mean (Chung et al. 2023, arXiv 2209.14687).

``p(y | x_t)`` is taken as ``p(y | E[x_0|x_t])``, with the residual's norm in place of its square::

    E[x_0|x_t, y] = E[x_0|x_t] - scale (sigma^2 / alpha) grad_{x_t} |W (y - A(E[x_0|x_t]))|

(other terms enter by their ``log_prob``). It leaves out the spread of ``x_0`` given ``x_t`` and has
a knob: expect ensembles that are too narrow. Any differentiable operator. Cost: a pass and a vjp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.conditioning.base import Conditioning, Point, guided
from invdiff.likelihood import Gaussian
from invdiff.needs import Needs
from invdiff.protocols import Prior, Term

__all__ = ["DPS"]


@dataclass(frozen=True)
class DPS(Conditioning):
    """Diffusion posterior sampling.

    Args:
        scale: strength of the guidance.
    """

    needs: ClassVar[Needs] = Needs.GRADIENT
    narrow: ClassVar[str] = "it leaves out the spread of x_0 given x_t"

    scale: float = 1.0
    needs_grad = True

    def update(self, prior: Prior, terms: Sequence[Term], x_t: Tensor, *, t: Tensor) -> Point:
        """The guided mean; the spread of ``x_0`` given ``x_t`` is left out, as published."""

        def log_prob(mean: Tensor, x_t: Tensor) -> Tensor:
            return sum(
                (self._log_prob(term, mean, x_t, t=t) for term in terms),
                torch.zeros(len(x_t), device=x_t.device),
            )

        return Point(guided(prior, x_t, t=t, log_prob=log_prob))

    def _log_prob(self, term: Term, mean: Tensor, x_t: Tensor, *, t: Tensor) -> Tensor:
        if isinstance(term, Gaussian):
            norm: Tensor = torch.linalg.vector_norm(term.residual(mean).flatten(1), dim=1)
            return -self.scale * norm
        return term.log_prob(mean, x_t, t)
