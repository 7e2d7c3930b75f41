"""deepinv's and azula's posterior samplers through their public interfaces, with our denoisers.

Fields are handed over as vectors, and data as the measured rows of a dense operator with its
singular value decomposition: the peers' own closed forms apply, none is slowed by iterative solves.
Samplers of deepinv that take values within [0, 1] see the range of the prior mapped there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from benchmarks.methods import Method, noise_of
from invdiff.priors.deepinv import to_deepinv
from invdiff.protocols import Prior
from invdiff.samplers import Ancestral, sample
from tests.support.chains import measured_rows
from tests.support.referee import Case

__all__ = ["FAMILIES", "Family"]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The peers draw from torch's global generator: seeded here, and put back."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        yield


@dataclass(frozen=True, eq=False)
class Problem:
    """A case as peers see it: ``y = matrix x + noise n`` of flat fields ``x``.

    ``low`` and ``width`` map fields to ``(x - low) / width``.
    """

    case: Case
    prior: Prior
    n: int
    low: float = 0.0
    width: float = 1.0

    @cached_property
    def rows(self) -> tuple[Tensor, Tensor]:
        """Matrix and data, of mapped fields."""
        matrix, y = measured_rows(self.case.term.operator, self.case.term.y)
        return matrix, (y - self.low * matrix.sum(1)) / self.width

    @property
    def noise(self) -> float:
        """Standard deviation of the noise, of mapped data."""
        return noise_of(self.case) / self.width

    def mapped(self) -> Problem:
        """Fields within [0, 1]: 1.1 times the range of draws of the prior."""
        draws = sample(self.case.prior, Ancestral(24), realizations=64, seed=8, batch_size=64)
        width = 2.2 * float(draws.abs().max())
        return Problem(self.case, self.prior, self.n, -width / 2, width)

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """``E[x_0 | x]`` of flat mapped fields ``(..., size)`` in noise ``sigma``."""
        grid = self.case.prior.grid
        fields = grid.to_channels(x.double().reshape(-1, *grid.shape)) * self.width + self.low
        level = torch.as_tensor(sigma, dtype=torch.float64).detach() * self.width
        out = (self._denoiser(fields, level) - self.low) / self.width
        mean: Tensor = out.to(x.dtype).reshape(x.shape)
        return mean

    @cached_property
    def _denoiser(self) -> Any:
        return to_deepinv(self.prior)

    def fields(self, x: Tensor) -> Tensor:
        """Mapped fields in units of the prior, ``(n, *shape)``."""
        return (x.double() * self.width + self.low).reshape(-1, *self.case.prior.grid.shape)


# --- deepinv --------------------------------------------------------------------------------------


def physics(problem: Problem) -> Any:
    """``DecomposablePhysics`` of the measured rows; fields are images of one row."""
    from deepinv.physics import DecomposablePhysics, GaussianNoise

    matrix, _ = problem.rows
    m, n = matrix.shape
    u, s, vh = torch.linalg.svd(matrix.float(), full_matrices=True)
    rank = min(m, n)
    mask = torch.zeros(1, 1, 1, n)
    mask[..., :rank] = s
    return DecomposablePhysics(
        U=lambda z: z[..., :rank].to(u.dtype) @ u[:, :rank].mT,
        U_adjoint=lambda y: torch.nn.functional.pad(y.to(u.dtype) @ u[:, :rank], (0, n - rank)),
        V=lambda z: z.to(vh.dtype) @ vh,
        V_adjoint=lambda x: x.to(vh.dtype) @ vh.mT,
        img_size=(1, 1, n),
        mask=mask,
        noise_model=GaussianNoise(problem.noise),
    )


def deepinv_denoiser(problem: Problem) -> Any:
    """The exact denoiser as a ``deepinv.models.Denoiser``."""
    from deepinv.models import Denoiser

    class Exact(Denoiser):  # type: ignore[misc]  # deepinv is untyped
        def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
            return problem.denoise(x, sigma)

    return Exact()


def data(problem: Problem) -> Tensor:
    """One copy of the data a member, ``(n, 1, 1, m)``."""
    return problem.rows[1].float().expand(problem.n, 1, 1, -1).clone()


def deepinv_dps(problem: Problem, weight: float) -> Tensor:
    """As published: VP, 1000 DDPM steps, norm guidance."""
    from deepinv.sampling import DPS

    problem = problem.mapped()
    model = DPS(deepinv_denoiser(problem), weight=weight)
    shape = (problem.n, 1, 1, problem.case.prior.grid.size)
    return problem.fields(model(data(problem), physics(problem), x_init=shape))


def deepinv_guided(problem: Problem, fidelity: Any, steps: int) -> Tensor:
    """``PosteriorDiffusion`` by ancestral steps on the VP schedule, in units of the prior."""
    from deepinv.sampling import DDPMSolver, PosteriorDiffusion, VariancePreservingDiffusion

    model = PosteriorDiffusion(
        data_fidelity=fidelity,
        denoiser=deepinv_denoiser(problem),
        sde=VariancePreservingDiffusion(alpha=1.0),
        solver=DDPMSolver(timesteps=torch.linspace(1, 0, steps + 1, dtype=torch.float64)),
        minus_one_one=False,
    )
    shape = (problem.n, 1, 1, problem.case.prior.grid.size)
    return problem.fields(model(data(problem), physics(problem), x_init=shape))


def deepinv_pigdm(problem: Problem, setting: tuple[float, int]) -> Tensor:
    from deepinv.sampling import PiGDMDataFidelity

    weight, steps = setting
    return deepinv_guided(problem, PiGDMDataFidelity(weight=weight), steps)


def deepinv_mmps(problem: Problem, setting: tuple[int, int]) -> Tensor:
    from deepinv.sampling import MomentMatchingDataFidelity

    iterations, steps = setting
    return deepinv_guided(problem, MomentMatchingDataFidelity(cg_max_iter=iterations), steps)


def deepinv_diffpir(problem: Problem, setting: tuple[float, float]) -> Tensor:
    from deepinv.optim.data_fidelity import L2
    from deepinv.sampling import DiffPIR

    problem, (strength, zeta) = problem.mapped(), setting
    model = DiffPIR(
        deepinv_denoiser(problem), L2(), sigma=problem.noise, lambda_=strength, zeta=zeta
    )
    start = torch.full((problem.n, 1, 1, problem.case.prior.grid.size), 0.5)
    return problem.fields(model(data(problem), physics(problem), x_init=start))


def deepinv_ddrm(problem: Problem, setting: tuple[float, float]) -> Tensor:
    from deepinv.sampling import DDRM

    problem, (eta, etab) = problem.mapped(), setting
    model = DDRM(deepinv_denoiser(problem), eta=eta, etab=etab)
    return problem.fields(model(data(problem), physics(problem)))


# --- azula ----------------------------------------------------------------------------------------


def azula_denoiser(problem: Problem) -> Any:
    """The exact denoiser as an ``azula.denoise.Denoiser`` on its VP schedule."""
    from azula.denoise import Denoiser, DiracPosterior
    from azula.noise import VPSchedule

    class Exact(Denoiser):  # type: ignore[misc]  # azula is untyped
        def __init__(self) -> None:
            super().__init__()
            self.schedule = VPSchedule()

        def forward(self, x_t: Tensor, t: Tensor) -> DiracPosterior:
            alpha, sigma = self.schedule(t)
            return DiracPosterior(problem.denoise(x_t / alpha, sigma / alpha))

    return Exact()


def azula_run(problem: Problem, sampler: Any) -> Tensor:
    """From noise to fields."""
    shape = (problem.n, problem.case.prior.grid.size)
    return problem.fields(sampler(sampler.init(shape, dtype=torch.float64)))


def forward_of(problem: Problem) -> Callable[[Tensor], Tensor]:
    """``x -> matrix x`` of flat fields."""
    matrix, _ = problem.rows
    return lambda x: x @ matrix.mT.to(x.dtype)


def azula_ddpm(problem: Problem, denoiser: Any, steps: int) -> Tensor:
    from azula.sample import DDPMSampler

    return azula_run(problem, DDPMSampler(denoiser, steps=steps, silent=True, dtype=torch.float64))


def azula_mmps(problem: Problem, setting: tuple[int, int]) -> Tensor:
    from azula.guidance.mmps import MMPSDenoiser
    from azula.linalg.covariance import IsotropicCovariance

    iterations, steps = setting
    denoiser = MMPSDenoiser(
        azula_denoiser(problem),
        problem.rows[1],
        forward_of(problem),
        IsotropicCovariance(torch.tensor(problem.noise**2, dtype=torch.float64)),
        iterations=iterations,
    )
    return azula_ddpm(problem, denoiser, steps)


def azula_tmpd(problem: Problem, steps: int) -> Tensor:
    from azula.guidance.tmpd import TMPDenoiser

    inner, a = azula_denoiser(problem), forward_of(problem)
    return azula_ddpm(problem, TMPDenoiser(inner, problem.rows[1], a, problem.noise**2), steps)


def azula_diffpir(problem: Problem, setting: tuple[float, int]) -> Tensor:
    from azula.guidance.diffpir import DiffPIRDenoiser

    strength, steps = setting
    denoiser = DiffPIRDenoiser(
        azula_denoiser(problem),
        problem.rows[1],
        forward_of(problem),
        problem.noise**2,
        lmbda=strength,
        iterations=5,
    )
    return azula_ddpm(problem, denoiser, steps)


def azula_dps(problem: Problem, setting: tuple[float, int]) -> Tensor:
    """Its norm runs over the batch: times ``sqrt(n)``, ``zeta`` means what it does for one."""
    from azula.guidance.dps import DPSSampler

    zeta, steps = setting
    sampler = DPSSampler(
        azula_denoiser(problem),
        problem.rows[1],
        forward_of(problem),
        zeta=zeta * math.sqrt(problem.n),
        steps=steps,
        silent=True,
        dtype=torch.float64,
    )
    return azula_run(problem, sampler)


def azula_pgdm(problem: Problem, setting: tuple[float, int]) -> Tensor:
    from azula.guidance.pgdm import PGDMSampler

    eta, steps = setting
    inverse = torch.linalg.pinv(problem.rows[0], rtol=1e-3)
    sampler = PGDMSampler(
        azula_denoiser(problem),
        problem.rows[1],
        forward_of(problem),
        lambda y: y @ inverse.mT,
        eta=eta,
        steps=steps,
        silent=True,
        dtype=torch.float64,
    )
    return azula_run(problem, sampler)


def azula_tds(problem: Problem, setting: tuple[float, int]) -> Tensor:
    """Twist ``N(y; A m, s^2 + share r^2)``, ``r`` the noise level: the user's to choose."""
    from azula.guidance.tds import TDSSampler

    share, steps = setting
    matrix, y = problem.rows

    def twist(x: Tensor, ratio: Tensor) -> Tensor:
        variance = problem.noise**2 + share * ratio**2 / (1 + ratio**2)
        return -0.5 * ((y - x @ matrix.mT).square() / variance).sum(-1)

    sampler = TDSSampler(
        azula_denoiser(problem), twist, steps=steps, silent=True, dtype=torch.float64
    )
    return azula_run(problem, sampler)


# --- all ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """A peer's method: its default setting, and others among which it may be tuned."""

    name: str
    draw: Callable[[Problem, Any], Tensor]
    default: Any
    others: Sequence[Any]

    def method(self, setting: Any, label: str) -> Method:
        """With one setting."""

        def run(case: Case, prior: Prior, members: int, seed: int) -> tuple[Tensor, None]:
            with seeded(seed), torch.no_grad():
                return self.draw(Problem(case, prior, members), setting), None

        return Method(f"{self.name}, {label}", run)


FAMILIES = (
    Family("deepinv MMPS", deepinv_mmps, (3, 100), ((3, 300), (8, 100))),
    Family("deepinv PiGDM", deepinv_pigdm, (1.0, 100), ((1.0, 300), (0.5, 100), (2.0, 100))),
    Family("deepinv DPS", deepinv_dps, 1.0, (0.3, 3.0)),
    Family("deepinv DiffPIR", deepinv_diffpir, (7.0, 0.1), ((1.0, 1.0), (3.0, 0.5), (25.0, 1.0))),
    Family("deepinv DDRM", deepinv_ddrm, (0.85, 1.0), ((1.0, 1.0), (0.85, 0.5), (0.5, 1.0))),
    Family("azula MMPS", azula_mmps, (1, 64), ((3, 100), (5, 100), (5, 200))),
    Family("azula TMPD", azula_tmpd, 64, (200, 500)),
    Family("azula DPS", azula_dps, (1.0, 64), ((0.3, 300), (1.0, 300), (1.0, 1000))),
    Family("azula PGDM", azula_pgdm, (0.0, 64), ((1.0, 64), (1.0, 200))),
    Family("azula DiffPIR", azula_diffpir, (10.0, 64), ((1.0, 64), (1.0, 200), (3.0, 200))),
    Family("azula TDS", azula_tds, (0.0, 64), ((1.0, 64), (1.0, 200), (0.1, 200))),
)
