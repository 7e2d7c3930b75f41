"""What a run costs beyond its network, its operator and its covariance.

``ratio`` is the wall time of ``reconstruct`` over the time spent, in that same run, inside the bare
network, the operator (forward, adjoint, gram) and products with ``Cov[x_0|x_t]``; aim 1.05. The
other columns are shares of the wall time: ``noise`` is part of the ``rest``.
Run: ``python -m benchmarks.overhead [--quick]``.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.mri_common import colin27_slice, parser, simulate
from benchmarks.table import markdown, write_table
from invdiff.covariance import Covariance
from invdiff.grid import Grid
from invdiff.noise import NoiseField
from invdiff.operators.mri import CartesianMRI, poisson_disc
from invdiff.priors import hub
from invdiff.priors.network import NetworkPrior
from invdiff.protocols import BasePrior
from invdiff.samplers import Ancestral, Heun
from invdiff.samplers.base import RatioSampler
from invdiff.verbs import reconstruct

NOISE_STD = 0.02
P = ParamSpec("P")
R = TypeVar("R")


class Clock:
    """Seconds and calls by part."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def timing(self, part: str, function: Callable[P, R]) -> Callable[P, R]:
        """The function, timed."""

        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            self.seconds[part] += time.perf_counter() - start
            self.calls[part] += 1
            return result

        return timed


class TimedOperator:
    """A linear operator whose products are timed."""

    def __init__(self, operator: CartesianMRI, clock: Clock) -> None:
        self.domain, self.range, self.n_data = operator.domain, operator.range, operator.n_data
        self.is_circulant, self.measured = operator.is_circulant, operator.measured
        self._operator = operator
        self._forward = clock.timing("operator", operator.__call__)
        self.adjoint = clock.timing("operator", operator.adjoint)
        self.gram = clock.timing("operator", operator.gram)

    def __call__(self, x: Tensor) -> Tensor:
        return self._forward(x)

    @property
    def gram_spectrum(self) -> Tensor | None:
        return self._operator.gram_spectrum


class TimedCovariance(Covariance):
    """A covariance whose products are timed."""

    def __init__(self, covariance: Covariance, clock: Clock) -> None:
        self._covariance, self._clock = covariance, clock
        self.spectrum, self.is_stationary = covariance.spectrum, covariance.is_stationary
        self._coordinates = clock.timing("covariance", covariance.coordinates)
        self._sqrt = clock.timing("covariance", covariance.sqrt)
        self._sqrt_adjoint = clock.timing("covariance", covariance.sqrt_adjoint)

    def coordinates(self, e: Tensor) -> Tensor:
        return self._coordinates(e)

    def sqrt(self, u: Tensor) -> Tensor:
        return self._sqrt(u)

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        return self._sqrt_adjoint(v)

    def scaled(self, factor: Tensor) -> TimedCovariance:
        return TimedCovariance(self._covariance.scaled(factor), self._clock)


class TimedPrior(BasePrior):
    """A network prior whose network, alone, and covariance are timed."""

    def __init__(self, prior: NetworkPrior, clock: Clock) -> None:
        self.grid, self.schedule, self.card = prior.grid, prior.schedule, prior.card
        self.spread = prior.spread
        self._prior, self._clock = prior, clock

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        mean, covariance = self._prior.moments(x_t, t)
        return mean, TimedCovariance(covariance, self._clock)


@contextmanager
def instrumented(clock: Clock) -> Iterator[None]:
    """The bare network and the noise field timed too."""
    network = hub.EDMNetwork
    with (
        patch.object(network, "forward", clock.timing("network", network.forward)),
        patch.object(NoiseField, "__call__", clock.timing("noise", NoiseField.__call__)),
    ):
        yield


def measure(
    operator: CartesianMRI, y: Tensor, prior: NetworkPrior, *, sampler: RatioSampler, members: int
) -> dict[str, object]:
    """One row."""
    clock = Clock()
    kspace = operator.range.to_dataarray(y, "kspace")
    _ = operator.gram_spectrum  # made once an operator, not once a run
    with instrumented(clock):
        start = time.perf_counter()
        reconstruct(
            kspace,
            TimedOperator(operator, clock),
            TimedPrior(prior, clock),
            realizations=members,
            seed=0,
            noise_std=NOISE_STD,
            sampler=sampler,
            batch_size=8,
        )
        wall = time.perf_counter() - start
    parts = ("network", "operator", "covariance")
    bare = sum(clock.seconds[part] for part in parts)
    shares = {part: clock.seconds[part] / wall for part in (*parts, "noise")}
    return {
        "seconds": wall,
        "ratio": wall / bare,
        **shares,
        "rest": 1 - bare / wall,
        "calls": {part: clock.calls[part] for part in (*parts, "noise")},
    }


def main() -> None:
    """Print the table; write it unless quick."""
    options = arguments()
    torch.set_num_threads(options.threads)
    image = colin27_slice(80)
    if options.quick:
        image = image[48:144, 40:120]
    mask = poisson_disc(tuple(image.shape), 8, calibration=16, seed=0)
    scan = simulate(image, mask, noise_std=NOISE_STD, seed=0)
    domain = Grid(("y", "x"), tuple(image.shape), torch.complex64)
    prior = hub.load_prior(options.prior, grid=domain)
    size = " x ".join(map(str, domain.shape))
    case = f"8 coils, Poisson R=8, {size}, {options.members} members by 8"
    samplers: dict[str, RatioSampler] = {"invdiff": Ancestral(options.steps)}
    if options.heun:
        samplers["invdiff Heun"] = Heun(options.steps)
    # The first call of everything pays for plans and allocations.
    measure(scan.operator, scan.y, prior, sampler=Ancestral(2), members=8)
    rows = [
        {
            "case": case,
            "method": f"{name}, {sampler.steps} steps",
            **measure(scan.operator, scan.y, prior, sampler=sampler, members=options.members),
        }
        for name, sampler in samplers.items()
    ]
    print(markdown(rows))
    if not options.quick:
        command = (
            f"python -m benchmarks.overhead --members {options.members} --steps {options.steps} "
            f"--threads {options.threads}"
        )
        write_table("overhead", rows, command=command, notes=__doc__.split("\n\n")[1])


def arguments() -> argparse.Namespace:
    """The options; a quick run makes everything small."""
    options = parser(__doc__)
    options.add_argument("--heun", action="store_true", help="measure Heun too")
    parsed = options.parse_args()
    if parsed.quick:
        parsed.steps = 4
    return parsed


if __name__ == "__main__":
    main()
