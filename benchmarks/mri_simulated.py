"""Reconstruction of simulated 8-coil scans of Colin27, which no prior was trained on.

PSNR (dB) and SSIM of magnitudes, of the posterior mean where there is an ensemble; ``coverage90``
of real and imaginary parts within the object (Student's intervals); ``misfit`` the data misfit of
the members, 1 is expected; ``seconds`` of a whole ensemble of ``--members``; ``passes`` of the
network per member, a vjp counts two. Rows of the default sampler at several numbers of steps give
the curve of accuracy against passes, drawn in ``results/mri_simulated.png``.
Run: ``python -m benchmarks.mri_simulated [--method NAME ...] [--only CASE ...] [--quick]``; rows
that are not made again are kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.mri_common import (
    Method,
    Scan,
    colin27_slice,
    diffpir,
    dps,
    l1_wavelet,
    parser,
    scores,
    sense,
    simulate,
    timed,
    total_variation,
    tune,
)
from benchmarks.passes import plot
from benchmarks.table import kept, markdown, write_table
from invdiff.operators.mri import poisson_disc, random_lines
from invdiff.priors import hub
from invdiff.protocols import Prior
from invdiff.samplers import DAPS, Ancestral, Heun, SplitGibbs
from invdiff.samplers.base import RatioSampler
from invdiff.verbs import reconstruct

Row = dict[str, object]
NOISE_STD = 0.02
TUNING_SEED, TEST_SEED = 10, 0
POINT_METHODS: dict[str, tuple[Method, tuple[float, ...]]] = {
    "SENSE": (sense, (0.001, 0.003, 0.01, 0.03, 0.1)),
    "sigpy L1-wavelet": (l1_wavelet, (0.0015, 0.003, 0.006, 0.012, 0.025)),
    "sigpy TV": (total_variation, (0.003, 0.006, 0.012, 0.025, 0.05)),
}
DPS_WEIGHTS = (100.0, 300.0, 1000.0, 3000.0)
DIFFPIR_SETTINGS = tuple((lam, zeta) for lam in (2.0, 7.0, 20.0) for zeta in (0.1, 0.6))
# Of deepinv's methods while tuning: DPS diverges at strong guidance if its steps are few.
DPS_TUNING_STEPS, DIFFPIR_TUNING_STEPS = 150, 40


def masks(shape: tuple[int, ...], seed: int, *, quick: bool) -> dict[str, Tensor]:
    """The three ways of sampling; phase encoding along the last axis."""
    n = shape[-1]
    poisson = {"Poisson R=8": poisson_disc(shape, 8, calibration=16, seed=seed)}
    if quick:
        return poisson
    return {
        "lines R=4": random_lines(shape, 4, calibration=round(0.08 * n), seed=seed),
        "lines R=8": random_lines(shape, 8, calibration=round(0.04 * n), seed=seed),
        **poisson,
    }


def image_of(z: int, *, quick: bool) -> Tensor:
    """A slice; its central part for a quick look."""
    image = colin27_slice(z)
    return image[48:144, 40:120] if quick else image


class Run(NamedTuple):
    """How to make an ensemble of a method, and what else its row states."""

    draw: Callable[[], Tensor]
    settings: dict[str, object]


class Peers:
    """Settings of the peers for one mask, tuned on another slice and another draw of the mask.

    A method is tuned when it is first run.
    """

    def __init__(
        self, options: argparse.Namespace, prior: Prior, case: tuple[Scan, Tensor]
    ) -> None:
        self.options, self.prior, self._case = options, prior, case
        self._points: dict[str, float] = {}

    @cached_property
    def _weight(self) -> float:
        steps = min(DPS_TUNING_STEPS, self.options.dps_steps)

        def guided(scan: Scan, weight: float) -> Tensor:
            return dps(scan, self.prior, weight, n=1, steps=steps, seed=5)[0]

        return tune(guided, DPS_WEIGHTS, [self._case])

    @cached_property
    def _split(self) -> tuple[float, float]:
        steps = min(DIFFPIR_TUNING_STEPS, self.options.diffpir_steps)

        def split(scan: Scan, setting: float) -> Tensor:
            strength, zeta = DIFFPIR_SETTINGS[int(setting)]
            return diffpir(scan, self.prior, strength, n=1, steps=steps, zeta=zeta, seed=5)[0]

        return DIFFPIR_SETTINGS[int(tune(split, range(len(DIFFPIR_SETTINGS)), [self._case]))]

    def point(self, name: str, scan: Scan) -> Run:
        """A method that gives one image."""
        method, grid = POINT_METHODS[name]
        if name not in self._points:
            self._points[name] = tune(method, grid, [self._case])
        value = self._points[name]
        return Run(partial(_one, method, scan, value), {"setting": f"lambda={value}"})

    def diffpir(self, scan: Scan) -> Run:
        """deepinv's DiffPIR."""
        o, (strength, zeta) = self.options, self._split
        n, steps = o.diffpir_members, o.diffpir_steps
        setting = f"lambda={strength}, zeta={zeta}, {n} members"
        draw = partial(diffpir, scan, self.prior, strength, n=n, steps=steps, zeta=zeta, seed=0)
        return Run(draw, {"passes": steps, "setting": setting})

    def dps(self, scan: Scan) -> Run:
        """deepinv's DPS."""
        o, weight = self.options, self._weight
        n, steps = o.dps_members, o.dps_steps
        setting = f"weight={weight}, {n} members"
        draw = partial(dps, scan, self.prior, weight, n=n, steps=steps, seed=0)
        return Run(draw, {"passes": 3 * steps, "setting": setting})


def _one(method: Method, scan: Scan, value: float) -> Tensor:
    return method(scan, value)[None]


def draw(scan: Scan, prior: Prior, sampler: RatioSampler, *, members: int) -> Tensor:
    """An ensemble of ours."""
    posterior = reconstruct(
        scan.operator.range.to_dataarray(scan.y, "kspace"),
        scan.operator,
        prior,
        realizations=members,
        seed=0,
        noise_std=scan.noise_std,
        sampler=sampler,
    )
    return torch.from_numpy(posterior["image"].values)


def ours(scan: Scan, prior: Prior, sampler: RatioSampler, *, passes: int, members: int) -> Run:
    """One of invdiff's samplers."""
    settings = {"passes": passes, "setting": f"{members} members"}
    return Run(partial(draw, scan, prior, sampler, members=members), settings)


def methods(scan: Scan, peers: Peers, *, with_dps: bool) -> dict[str, Callable[[], Run]]:
    """All methods, by the names of their rows."""
    o, own = peers.options, partial(ours, scan, peers.prior)
    gibbs = SplitGibbs(o.gibbs_steps, rho_max=1.0, rho_min=NOISE_STD, calls=6)
    found: dict[str, Callable[[], Run]] = {
        "zero-filled": lambda: Run(lambda: scan.operator.adjoint(scan.y[None]), {})
    }
    found |= {name: partial(peers.point, name, scan) for name in POINT_METHODS}
    found |= {
        f"invdiff, {n} steps": partial(own, Ancestral(n), passes=n, members=o.members)
        for n in o.curve
    }
    found["invdiff DAPS"] = partial(own, DAPS(o.steps), passes=o.steps, members=o.members)
    found["invdiff SplitGibbs"] = partial(
        own, gibbs, passes=gibbs.steps * gibbs.calls, members=o.members // 2
    )
    if o.heun:
        found["invdiff Heun"] = partial(
            own, Heun(o.steps), passes=2 * o.steps - 1, members=o.members // 2
        )
    found["deepinv DiffPIR"] = partial(peers.diffpir, scan)
    if with_dps:
        found["deepinv DPS"] = partial(peers.dps, scan)
    return {name: run for name, run in found.items() if any(part in name for part in o.method)}


def evaluate(scan: Scan, image: Tensor, peers: Peers, *, with_dps: bool) -> Iterator[Row]:
    """Rows of one scan."""
    for name, prepared in methods(scan, peers, with_dps=with_dps).items():
        run = prepared()
        found, seconds = timed(run.draw)
        if "passes" in run.settings:  # an ensemble
            seconds *= peers.options.members / len(found)
        yield {"method": name, **scores(found, scan, image), "seconds": seconds, **run.settings}


def case_name(z: int, kind: str) -> str:
    return f"z={z} {kind}"


def main() -> None:
    """Print the table; write it and its picture unless quick."""
    options = arguments()
    torch.set_num_threads(options.threads)
    tuning_image = image_of(options.tuning_slice, quick=options.quick)
    shape = tuple(tuning_image.shape)
    rows: list[Row] = []
    for kind, tuning_mask in masks(shape, TUNING_SEED, quick=options.quick).items():
        tuning = simulate(tuning_image, tuning_mask, noise_std=NOISE_STD, seed=TUNING_SEED)
        prior = hub.load_prior(options.prior, grid=tuning.operator.domain)
        peers = Peers(options, prior, (tuning, tuning_image))
        mask = masks(shape, TEST_SEED, quick=options.quick)[kind]
        for i, z in enumerate(options.slices):
            name = case_name(z, kind)
            if not any(part in name for part in options.only):
                continue
            image = image_of(z, quick=options.quick)
            scan = simulate(image, mask, noise_std=NOISE_STD, seed=z)
            for row in evaluate(scan, image, peers, with_dps=i < options.dps_slices):
                rows.append({"case": name, **row})
                print(markdown(rows[-1:]).splitlines()[-1], flush=True)
    print(markdown(rows))
    if not options.quick:
        store(rows, options)


def store(rows: list[Row], options: argparse.Namespace) -> None:
    """Write the table, with the stored rows that were not made again, and the picture."""
    again = ", ".join(dict.fromkeys(str(row["method"]) for row in rows))
    both = [*kept("mri_simulated", rows), *rows]
    cases = list(dict.fromkeys(str(row["case"]) for row in both))
    both.sort(key=lambda row: (cases.index(str(row["case"])), _order(str(row["method"]))))
    path = write_table(
        "mri_simulated",
        both,
        command=command(options),
        notes=f"{notes(options)} Rows of this date: {again}; others were kept.",
    )
    plot(both, path.with_suffix(".png"))


def _order(method: str) -> tuple[int, int]:
    """Of rows within a case: classical methods, ours by their steps, peers."""
    kinds = ["zero", "SENSE", "sigpy", "invdiff,", "invdiff", "deepinv"]
    steps = method.split()[1] if method.startswith("invdiff,") else "0"
    return kinds.index(next(kind for kind in kinds if method.startswith(kind))), int(steps)


def arguments() -> argparse.Namespace:
    """The options; a quick run makes everything small."""
    options = parser(__doc__)
    options.add_argument("--slices", type=int, nargs="+", default=[60, 80])
    options.add_argument("--tuning-slice", type=int, default=95)
    options.add_argument(
        "--dps-slices", type=int, default=1, help="of the slices, how many DPS runs on"
    )
    options.add_argument(
        "--method", nargs="+", default=[""], help="only names that hold one of these"
    )
    options.add_argument(
        "--only", nargs="+", default=[""], help="only cases that hold one of these"
    )
    options.add_argument(
        "--curve", type=int, nargs="*", default=[4, 8, 12, 24], help="steps of the default sampler"
    )
    options.add_argument("--heun", action="store_true", help="run our Heun sampler too")
    options.add_argument("--gibbs-steps", type=int, default=12, help="sweeps of split Gibbs")
    options.add_argument("--dps-steps", type=int, default=1000)
    options.add_argument("--dps-members", type=int, default=2)
    options.add_argument("--diffpir-steps", type=int, default=100)
    options.add_argument("--diffpir-members", type=int, default=2)
    parsed = options.parse_args()
    if parsed.tuning_slice in parsed.slices:
        raise SystemExit("the tuning slice is among the test slices")
    if parsed.quick:
        parsed.slices, parsed.members, parsed.steps = parsed.slices[:1], 4, 8
        parsed.curve = [4, 8]
        parsed.dps_steps, parsed.diffpir_steps, parsed.diffpir_members = 12, 10, 2
        parsed.gibbs_steps = 4
    return parsed


def command(options: argparse.Namespace) -> str:
    """What makes the table again."""
    slices = " ".join(map(str, options.slices))
    return (
        f"python -m benchmarks.mri_simulated --slices {slices} --members {options.members} "
        f"--curve {' '.join(map(str, options.curve))} "
        f"--steps {options.steps} --dps-steps {options.dps_steps} "
        f"--dps-members {options.dps_members} --dps-slices {options.dps_slices} "
        f"--threads {options.threads}" + (" --heun" if options.heun else "")
    )


def notes(options: argparse.Namespace) -> str:
    """What a reader must know."""
    return (
        f"Colin27 T1, 191 x 161, smooth phase, 8 birdcage coils, complex noise {NOISE_STD}. "
        f"Settings of peers were tuned on slice {options.tuning_slice} with another draw of the "
        f"mask (those of DPS at {DPS_TUNING_STEPS} steps, of DiffPIR at {DIFFPIR_TUNING_STEPS}). "
        "Methods of deepinv have the same prior; for them (and for invdiff SplitGibbs and Heun) "
        f"`seconds` of an ensemble of {options.members} is extrapolated from the members that "
        "`setting` states. "
        "DPS starts at the prior's largest noise level and is not clipped; DiffPIR's inner solves "
        "stop at ten iterations (deepinv's default is 50, too slow here)."
    )


if __name__ == "__main__":
    main()
