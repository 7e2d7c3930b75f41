"""Samplers against posteriors known in closed form: Gaussian mixtures on 8 x 8 pixels.

Sliced W2 to the exact posterior, as a fraction of the distance from prior to posterior, and over
what the same number of exact draws score. Run: ``python -m benchmarks.closed_form [--quick]``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from benchmarks.table import markdown, write_table
from invdiff.conditioning import DPS, MMPS, MomentMatching, PiGDM
from invdiff.conditioning.base import Conditioning
from invdiff.posterior import Posterior
from invdiff.samplers import DDIM, Ancestral, Heun, sample
from invdiff.samplers.base import RatioSampler
from tests.closed_form import MIXTURE_NOISE, OPERATORS, MixtureCase, mixture_case

MEMBERS = 256
METRICS = ("sw2", "sw2_over_floor", "std_ratio", "mode_tv", "seconds")


@dataclass(frozen=True)
class Method:
    """A conditioning with a sampler; ``passes`` a member, a vjp counted as two."""

    name: str
    conditioning: Conditioning
    sampler: RatioSampler
    passes: int


METHODS = (
    Method("invdiff default, 20 steps", MomentMatching(), Ancestral(20), 20),
    Method("invdiff default, 40 steps", MomentMatching(), Ancestral(40), 40),
    Method("invdiff Ancestral(40, keep=1)", MomentMatching(), Ancestral(40, keep=1.0), 40),
    Method("invdiff Ancestral(40, keep=0)", MomentMatching(), Ancestral(40, keep=0.0), 40),
    Method("invdiff MomentMatching + Heun(32)", MomentMatching(), Heun(32), 63),
    Method("invdiff MMPS(5) + Heun(32)", MMPS(), Heun(32), 63 * (1 + 2 * 6)),
    Method("invdiff PiGDM + DDIM(100, eta=1)", PiGDM(0.7), DDIM(100, eta=1.0), 300),
    Method("invdiff DPS + DDIM(1000, eta=1)", DPS(), DDIM(1000, eta=1.0), 3000),
)


def measure(case: MixtureCase, method: Method, *, members: int) -> dict[str, object]:
    """One row."""
    posterior = Posterior(case.prior, case.term, conditioning=method.conditioning)
    start = time.perf_counter()
    draws = sample(posterior, method.sampler, realizations=members, seed=1, batch_size=members)
    seconds = time.perf_counter() - start
    sw2 = case.sw2(draws)
    return {
        "case": case.name,
        "method": method.name,
        "sw2": sw2,
        "sw2_over_floor": sw2 / case.floor,
        "std_ratio": case.std_ratio(draws),
        "mode_tv": case.mode_tv(draws),
        "passes": method.passes,
        "seconds": seconds,
    }


def floor_row(case: MixtureCase) -> dict[str, object]:
    """The score of as many exact draws, mean of eight sets."""
    row = {"case": case.name, "method": "exact draws", "sw2": case.floor, "sw2_over_floor": 1.0}
    return row | {"passes": 0}


def averages(rows: Iterable[dict[str, object]], methods: Iterable[Method]) -> list[dict]:
    """Means over the posteriors, by operator and over all."""
    rows = list(rows)
    out = []
    for group in (*OPERATORS, ""):
        for method in methods:
            chosen = [
                row
                for row in rows
                if str(row["case"]).startswith(group) and row["method"] == method.name
            ]
            means = {
                key: float(np.mean([float(str(row[key])) for row in chosen])) for key in METRICS
            }
            name = {"case": f"mean {group}".strip(), "method": method.name}
            out.append(name | means | {"passes": method.passes})
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one posterior an operator, no DPS")
    quick = parser.parse_args().quick
    methods = METHODS[:-1] if quick else METHODS
    n_cases, members = (1, 64) if quick else (4, MEMBERS)
    rows: list[dict[str, object]] = []
    for name in OPERATORS:
        for index in range(n_cases):
            case = mixture_case(name, index, members=members)
            rows.append(floor_row(case))
            rows += [measure(case, method, members=members) for method in methods]
    rows = averages(rows, methods) + rows
    print(markdown(rows))
    if not quick:  # the committed table is that of the full run
        write_table(
            "closed_form",
            rows,
            command="python -m benchmarks.closed_form",
            notes=f"Five modes, noise {MIXTURE_NOISE}, {members} members; `sw2` is a fraction of "
            "the distance from prior to posterior, `mode_tv` the total variation of the weights "
            "of the modes. Seconds are those of a shared machine.",
        )


if __name__ == "__main__":
    main()
