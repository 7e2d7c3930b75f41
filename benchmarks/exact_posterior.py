"""The referee's table: samplers, ours and the peers', against posteriors known exactly.

``python -m benchmarks.exact_posterior [--quick] [--blocks mixture8 levy32 ...] [--method NAME
...]``. A block is a family of cases with one list of methods; a run of some blocks or methods
keeps the rows of the others. Each ensemble is evaluated by `tests.support.referee.Case`, next to
as many exact draws: the floor.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from benchmarks.methods import DEFAULT, SCALABLE, Drawn, Method, default_of, drawn, methods
from benchmarks.pareto import plot
from benchmarks.peers import FAMILIES, Family
from benchmarks.small_network import denoising_error, trained
from benchmarks.table import RESULTS, markdown, write_table
from invdiff.errors import InvdiffError
from tests.support.closed_form import mixture_prior
from tests.support.referee import (
    Case,
    design_case8,
    gaussian_case,
    levy_case,
    mixture_case8,
    mixture_case32,
    nonlinear_case,
)

__all__ = ["BLOCKS", "Block", "block_rows", "case_rows"]

Row = dict[str, object]
Factory = Callable[[], Case]
OVER_FLOOR = ("sw2", "energy")
ERRORS = ("mean_error", "covariance_error", "spectrum_error", "std_ratio", "mode_tv")
LEVELS = ("coverage50", "coverage90", "hpd50", "hpd90")
COPIED = (*ERRORS, *LEVELS, "mmse_gap_db")


@dataclass(frozen=True)
class Block:
    """Cases that one list of methods is run on.

    Args:
        name: on the command line.
        cases: factories.
        methods: ours.
        members: of an ensemble, at most an eighth of the case's spare draws.
        families: of peers.
        tuning: for each case the one, of other data, that the peers are tuned on; none: defaults.
        seeds: how many the default is run with.
    """

    name: str
    cases: Sequence[Factory]
    methods: Sequence[Method]
    members: int
    families: Sequence[Family] = ()
    tuning: Sequence[Factory] = ()
    seeds: int = 3


# --- rows -----------------------------------------------------------------------------------------


def score(case: Case, found: Drawn, floor: dict[str, float]) -> Row:
    """The figures of one ensemble."""
    scores = case.score(found.fields)
    row: Row = {}
    for key in OVER_FLOOR:
        row |= {key: scores[key], f"{key}_over_floor": scores[key] / floor[key]}
    row |= {key: scores[key] for key in COPIED if key in scores}
    row |= mode_variances(case, found.fields)
    if found.log_evidence is not None and case.log_evidence is not None:
        row["log_evidence_error"] = found.log_evidence - case.log_evidence
    return row | {"passes": found.passes, "seconds": found.seconds}


def mode_variances(case: Case, fields: torch.Tensor) -> dict[str, float]:
    """Rms and largest error of the variance of each Fourier mode, for Gaussian posteriors."""
    if not case.name.startswith("gaussian"):
        return {}
    axes = tuple(range(1, fields.ndim))
    modes = torch.fft.fftn(fields - fields.mean(0), dim=axes, norm="ortho")
    error = modes.abs().square().sum(0) / (len(fields) - 1) / case.power - 1
    return {
        "mode_variance_rms": float(error.square().mean().sqrt()),
        "mode_variance_max": float(error.abs().max()),
    }


def mean_row(rows: Sequence[Row]) -> Row:
    """Mean of a method's rows over seeds; the standard error of its distance beside it.

    The evidence is left out where a seed has none, its weights dropped on the way.
    """
    values = {k: [float(str(row[k])) for row in rows if k in row] for k in rows[0]}
    mean: Row = {k: float(np.mean(v)) for k, v in values.items() if len(v) == len(rows)}
    if len(rows) > 1:
        spread = float(np.std(values["sw2_over_floor"], ddof=1))
        mean["standard_error"] = spread / len(rows) ** 0.5
    return mean


def case_rows(case: Case, chosen: Iterable[Method], *, members: int) -> list[Row]:
    """The floor and one row a method; a method that refuses or diverges says so."""
    floor = case.floor(members)
    exact = case.spare[:members]
    base: Row = {"case": case.name, "method": "exact draws"}
    rows = [base | score(case, Drawn(exact, 0.0, 0.0), floor) | floor_scores(floor)]
    for method in chosen:
        base = {"case": case.name, "method": method.name}
        if method.name.startswith(DEFAULT.name):
            base["sampler"] = repr(default_of(case)[0])
        try:
            found = [drawn(method, case, members=members, seed=seed) for seed in method.seeds]
        except InvdiffError as error:
            rows.append(base | {"failed": str(error).split(";")[0]})
        else:
            row = mean_row([score(case, each, floor) for each in found])
            finite = all(math.isfinite(float(str(value))) for value in row.values())
            rows.append(base | (row if finite else {"failed": "its figures overflow"}))
        print(markdown([_short(rows[-1])]).splitlines()[-1], flush=True)
    return rows


def floor_scores(floor: dict[str, float]) -> Row:
    """Means over the sets of exact draws, in place of one set's scores."""
    over: Row = {f"{key}_over_floor": 1.0 for key in OVER_FLOOR}
    return {key: floor[key] for key in (*OVER_FLOOR, *COPIED) if key in floor} | over


def _short(row: Row) -> Row:
    keys = ("case", "method", "failed", "sw2_over_floor", "standard_error", "std_ratio", "mode_tv")
    return {key: row.get(key) for key in (*keys, "coverage90", "passes", "seconds")}


# --- peers ----------------------------------------------------------------------------------------


def tuned(family: Family, case: Case, *, members: int = 64) -> Method:
    """The setting nearest to the posterior of a tuning case, which is not a test case."""

    def distance(setting: object) -> float:
        try:
            found = drawn(family.method(setting, ""), case, members=members, seed=2)
        except InvdiffError:
            return float("inf")
        return case.score(found.fields)["sw2"]

    best = min((family.default, *family.others), key=distance)
    return family.method(best, f"tuned: {best}")


def peer_methods(tuning: Case | None, *, families: Sequence[Family]) -> list[Method]:
    """Default and tuned setting of each; the default once if tuning keeps it."""
    out = []
    for family in families:
        out.append(family.method(family.default, "default"))
        if tuning is not None:
            best = tuned(family, tuning)
            if not best.name.endswith(f"tuned: {family.default}"):
                out.append(best)
    return out


# --- blocks ---------------------------------------------------------------------------------------


def only(*names: str, linear: bool = True) -> tuple[Method, ...]:
    """The default and the named methods."""
    wanted = {f"invdiff {name}" for name in names}
    return (DEFAULT, *(m for m in methods(linear=linear)[1:] if m.name in wanted))


CHEAP = ("Ancestral(24)", "TwistedSMC(20, particles=1)", "MMPS + Heun(32)", "DAPS(GaussNewton)")
OPERATORS = ("inpainting", "blur", "fourier", "lines")
SLOW = ("deepinv DPS", "deepinv MMPS")  # a pass of the Levy prior is a message over a lattice
PUBLISHED = ("inpainting", "blur", "fourier")

BLOCKS = (
    Block(
        "mixture8",
        [partial(mixture_case8, name) for name in OPERATORS],
        methods(linear=True),
        members=256,
        families=FAMILIES,
        tuning=[partial(mixture_case8, name, index=5) for name in OPERATORS],
    ),
    Block(
        "noise",
        [partial(mixture_case8, name, noise=s) for s in (0.01, 0.5) for name in OPERATORS],
        only(*CHEAP),
        members=128,
    ),
    Block("design", [partial(design_case8, name) for name in PUBLISHED], only(*CHEAP), members=128),
    Block(
        "gaussian8",
        [partial(gaussian_case, name, 0.1, 8) for name in PUBLISHED],
        only(*CHEAP, *SCALABLE),
        members=256,
        families=FAMILIES,
        tuning=[partial(gaussian_case, name, 0.15, 8) for name in PUBLISHED],
    ),
    Block(
        "gaussian64",
        [partial(gaussian_case, name, 0.1, 64) for name in ("blur", "inpainting")],
        only(*SCALABLE),
        members=32,
        seeds=1,
    ),
    Block(
        "levy32",
        [partial(levy_case, name, 0.1) for name in ("inpainting", "blur")],
        only("Ancestral(24)", "DAPS(GaussNewton)"),
        members=64,
        families=[family for family in FAMILIES if family.name not in SLOW],
    ),
    Block(
        "mixture32",
        [partial(mixture_case32, name) for name in OPERATORS],
        only("Ancestral(24)", "TwistedSMC(20, particles=1)", "DAPS(GaussNewton)"),
        members=64,
    ),
    Block(
        "nonlinear",
        [partial(nonlinear_case, kind, 0.1) for kind in ("saturating", "lognormal")],
        methods(linear=False),
        members=128,
    ),
    Block(
        "nonlinear-noise",
        [partial(nonlinear_case, kind, 0.5) for kind in ("saturating", "lognormal")],
        only("Ancestral(24)", "DAPS(GaussNewton)", "DAPS(HMC)", linear=False),
        members=128,
    ),
)


def wanted(method: Method | Family, names: Sequence[str]) -> bool:
    """Whether its name holds one of ``names``."""
    return any(name in method.name for name in names)


def block_rows(
    block: Block, *, members: int, n_cases: int | None = None, names: Sequence[str] = ("",)
) -> list[Row]:
    """Rows of a block's methods of those names; peers are tuned on cases of other data."""
    families = [family for family in block.families if wanted(family, names)]
    rows = []
    for i, factory in enumerate(block.cases[:n_cases]):
        default, *others = block.methods
        first = dataclasses.replace(default, seeds=range(1, 1 + block.seeds))
        tuning = block.tuning[i]() if block.tuning else None
        chosen = [first, *others, *peer_methods(tuning, families=families)]
        rows += case_rows(factory(), [m for m in chosen if wanted(m, names)], members=members)
    return rows


def network_rows(
    *, members: int, steps: int, n_cases: int | None = None, names: Sequence[str] = ("",)
) -> list[Row]:
    """The 8 x 8 mixtures through a small trained network, ours and the best of the peers."""
    prior = mixture_prior()
    network = trained(prior, steps=steps)
    print(f"mean square error of the network over the exact: {denoising_error(network, prior):.3f}")
    peers = [f for f in FAMILIES if f.name in ("deepinv MMPS", "azula MMPS", "azula TMPD")]
    chosen = [DEFAULT, *only("Ancestral(24)")[1:], *peer_methods(None, families=peers)]
    renamed = [
        dataclasses.replace(m, name=f"{m.name} (network)") for m in chosen if wanted(m, names)
    ]
    rows = []
    for name in OPERATORS[:n_cases]:
        case = dataclasses.replace(mixture_case8(name), prior=network)
        rows += case_rows(case, renamed, members=members)[1:]  # the floor is there already
    return rows


# --- run ------------------------------------------------------------------------------------------

NETWORK = "network"
RESULT = RESULTS / "exact_posterior.json"


def _stored() -> list[Row]:
    """Rows of earlier runs, each with the name of its block."""
    return json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []


def main() -> None:
    names = [*(block.name for block in BLOCKS), NETWORK]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a case a block; writes no result")
    parser.add_argument("--blocks", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--method", nargs="+", default=[""], help="only names that hold one of these"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    by_block: dict[str, list[Row]] = {name: [] for name in names}
    for row in _stored():
        by_block[str(row["block"])].append(row)
    for name in options.blocks:
        start = time.perf_counter()
        found = _run(name, quick=options.quick, names=options.method)
        again = {(row["case"], row["method"]): row | {"block": name} for row in found}
        stored = [again.pop((row["case"], row["method"]), row) for row in by_block[name]]
        by_block[name] = [*stored, *again.values()]
        print(f"block {name}: {time.perf_counter() - start:.0f} s", flush=True)
        if not options.quick:  # the committed table is that of full runs; blocks are kept as done
            _write([row for rows in by_block.values() for row in rows])


def _run(name: str, *, quick: bool, names: Sequence[str]) -> list[Row]:
    n_cases = 1 if quick else None
    if name == NETWORK:
        members, steps = (32, 100) if quick else (256, 1000)
        return network_rows(members=members, steps=steps, n_cases=n_cases, names=names)
    block = next(block for block in BLOCKS if block.name == name)
    members = 32 if quick else block.members
    return block_rows(block, members=members, n_cases=n_cases, names=names)


def _write(rows: list[Row]) -> None:
    write_table(
        "exact_posterior", rows, command="python -m benchmarks.exact_posterior", notes=NOTES
    )
    plot(rows, RESULT.with_suffix(".png"))


NOTES = """\
`sw2` is the sliced Wasserstein-2 distance to 4096 exact draws (or long chains), `_over_floor` in \
units of what as many exact draws score (mean of 8 sets; row *exact draws*). `invdiff default` is \
a mean over three seeds, with the standard error of its distance. `mode_tv` is the total \
variation of the weights of the modes, its floor in the row of exact draws; `passes` are counted, \
a vjp as two, particles included; `seconds` are those of a shared machine, a member. Peers \
*tuned*: the setting with the least distance on a case of other data."""


if __name__ == "__main__":
    main()
