"""Our samplers, as the benchmarks run them, and a prior that counts what they ask of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from invdiff.conditioning import DPS, MMPS, TMPD, JacobianFree, PiGDM
from invdiff.conditioning.base import Conditioning
from invdiff.covariance import Covariance
from invdiff.errors import DivergedError
from invdiff.posterior import Posterior
from invdiff.protocols import BasePrior, Prior, Sampler
from invdiff.samplers import (
    DAPS,
    DDIM,
    DDNM,
    DDRM,
    EKI,
    HMC,
    MALA,
    TDS,
    Ancestral,
    AnnealedGibbs,
    Corrected,
    DiffPIR,
    EnKG,
    ExactGaussian,
    Heun,
    Langevin,
    MCGDiff,
    RatioSpread,
    REDDiff,
    Renew,
    SplitGibbs,
    TwistedSMC,
    default_sampler,
    ensemble,
    sample,
)
from tests.support.referee import Case

__all__ = [
    "DEFAULT",
    "SCALABLE",
    "Counted",
    "Drawn",
    "Method",
    "default_of",
    "drawn",
    "fixed",
    "methods",
    "noise_of",
    "ours",
]


class _CountedVjp(torch.autograd.Function):
    """The identity; each pass back through it counts two a member."""

    @staticmethod
    def forward(x: Tensor, counter: Counted) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.counter = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.counter.passes += 2 * len(gradient)
        return gradient, None


class Counted(BasePrior):
    """A prior that counts its own network passes, a vjp as two; for all members together."""

    def __init__(self, prior: Prior) -> None:
        self.prior, self.passes = prior, 0
        self.grid, self.schedule, self.needs_grad = prior.grid, prior.schedule, prior.needs_grad
        self.spread = getattr(prior, "spread", None)

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        self.passes += len(x_t)
        mean, covariance = self.prior.moments(x_t, t)
        return _CountedVjp.apply(mean, self), covariance

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.passes += len(x_t)
        mean: Tensor = _CountedVjp.apply(self.prior.denoise(x_t, t), self)
        return mean


class Drawn(NamedTuple):
    """An ensemble and its price a member."""

    fields: Tensor
    passes: float
    seconds: float
    log_evidence: float | None = None


@dataclass(frozen=True)
class Method:
    """A named way to draw: ``run(case, prior, members, seed)`` gives fields, perhaps evidence."""

    name: str
    run: Callable[[Case, Prior, int, int], tuple[Tensor, float | None]] = field(repr=False)
    seeds: Sequence[int] = (1,)


def drawn(method: Method, case: Case, *, members: int, seed: int) -> Drawn:
    """Run a method on a case, and count.

    Raises:
        DivergedError: draws that are not finite.
    """
    prior = Counted(case.prior)
    start = time.perf_counter()
    fields, log_evidence = method.run(case, prior, members, seed)
    seconds = time.perf_counter() - start
    if not torch.isfinite(fields).all():
        raise DivergedError(f"{method.name} left the finite numbers", got=case.name)
    return Drawn(fields, prior.passes / members, seconds / members, log_evidence)


Made = tuple[Sampler, Conditioning | None]
"""A sampler and its conditioning, if any."""


def ours(name: str, make: Callable[[Case], Made], *, seeds: Sequence[int] = (1,)) -> Method:
    """One of our samplers, set for a case."""

    def run(case: Case, prior: Prior, members: int, seed: int) -> tuple[Tensor, float | None]:
        sampler, conditioning = make(case)
        model = Posterior(prior, case.term, conditioning=conditioning)
        result = ensemble(model, sampler, realizations=members, seed=seed, batch_size=members)
        evidence = result.log_evidence
        # NaN says that the weights were dropped on the way.
        return result.fields, None if evidence is None or math.isnan(evidence) else evidence

    return Method(f"invdiff {name}", run, seeds)


def default_of(case: Case) -> Made:
    """What `reconstruct` takes when nothing is said."""
    return default_sampler(Posterior(case.prior, case.term)), None


DEFAULT = ours("default", default_of, seeds=(1, 2, 3))


def noise_of(case: Case) -> float:
    """Standard deviation of the noise."""
    assert isinstance(case.term.noise, float)
    return case.term.noise


def power_of(case: Case) -> Tensor:
    """Mean power spectrum of draws of the prior, what :class:`JacobianFree` asks for."""
    draws = sample(case.prior, Ancestral(), realizations=256, seed=9, batch_size=256)
    axes = tuple(range(1, draws.ndim))
    modes = torch.fft.fftn(draws - draws.mean(0), dim=axes, norm="ortho")
    power: Tensor = modes.abs().square().mean(0)
    return power


def gibbs(case: Case, sampler: type[SplitGibbs]) -> SplitGibbs:
    """A third of the noise as last coupling, as its documentation says."""
    return sampler(rho_min=max(noise_of(case) / 3, case.prior.schedule.ratio_min))


def fixed(name: str, sampler: Sampler, conditioning: Conditioning | None = None) -> Method:
    """A sampler that is the same for all cases."""
    return ours(name, lambda case: (sampler, conditioning))


EVERYWHERE = (
    fixed("Ancestral(24)", Ancestral(24)),
    fixed("Ancestral(24, keep=0)", Ancestral(24, keep=0.0)),
    fixed("Ancestral(24, keep=1)", Ancestral(24, keep=1.0)),
    fixed("TwistedSMC(20, particles=1)", TwistedSMC(20, particles=1)),
    ours("SplitGibbs(32)", lambda case: (gibbs(case, SplitGibbs), None)),
    ours("AnnealedGibbs(32)", lambda case: (gibbs(case, AnnealedGibbs), None)),
    fixed("DAPS(GaussNewton)", DAPS()),
    fixed("DAPS(Langevin)", DAPS(kernel=Langevin())),
    fixed("DAPS(HMC)", DAPS(kernel=HMC())),
    fixed("DAPS(GaussNewton, RatioSpread)", DAPS(spread=RatioSpread(), ode_steps=5)),
    fixed("Corrected(Ancestral(24), Renew)", Corrected(Ancestral(24), Renew())),
    fixed("TDS(100)", TDS(100)),
    fixed("REDDiff(200)", REDDiff()),
    fixed("DiffPIR(100)", DiffPIR()),
    fixed("EnKG(24)", EnKG()),
    fixed("EKI(32)", EKI()),
    fixed("DPS + DDIM(300, eta=1)", DDIM(300, eta=1.0), DPS()),
)
"""For linear and nonlinear operators."""

LINEAR = (
    fixed("MMPS + Heun(32)", Heun(32), MMPS()),
    fixed("MMPS + Ancestral(24)", Ancestral(24), MMPS()),
    fixed("Heun(32)", Heun(32)),
    fixed("Corrected(Heun(32), MALA)", Corrected(Heun(32), MALA())),
    fixed("PiGDM + DDIM(100, eta=1)", DDIM(100, eta=1.0), PiGDM()),
    fixed("TMPD + Ancestral(100, keep=1)", Ancestral(100, keep=1.0), TMPD()),
    ours("JacobianFree + Ancestral(24)", lambda c: (Ancestral(24), JacobianFree(power_of(c)))),
    ours("JacobianFree + TwistedSMC(40)", lambda c: (TwistedSMC(40), JacobianFree(power_of(c)))),
    fixed("DAPS(ExactGaussian)", DAPS(kernel=ExactGaussian())),
    fixed("MCGDiff(100)", MCGDiff(100)),
    fixed("DDRM(20)", DDRM()),
    fixed("DDNM(100)", DDNM()),
)
"""For linear operators and Gaussian noise alone."""

SCALABLE = ("Ancestral(24)", "SplitGibbs(32)", "DAPS(GaussNewton)")
"""Those that are run at 64 x 64 too, beside the default."""


def methods(*, linear: bool) -> tuple[Method, ...]:
    """The default, then all others."""
    return (DEFAULT, *EVERYWHERE, *(LINEAR if linear else ()))
