"""What the acoustic operator costs: over raw Devito, over a forward, against peers, and in memory.

Rows of a case are timed by turns on one core, medians of the repetitions. ``ratio`` is: in
``overhead`` cases the operator's time over that of Devito's ``op.apply`` on preset buffers (aim
1.15), in ``gradient`` cases a gradient's over a forward's (aim 3.0), in peers' rows their time over
invdiff's on the same problem, in ``snapshot`` cases a gradient's over that of all wave fields.
There the data are those of the model with 2 % of white noise, so that the residual is noise alone:
``gradient_error`` is relative to the gradient of all fields, ``slope`` the derivative along that
gradient, once by finite differences. ``mb`` is how much a process's peak memory rises over its
memory before the first solve. Grids are named by their shape with absorbing layers.
Run: ``python -m benchmarks.seismic_operator [--quick]``.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.table import markdown, write_table
from invdiff.grid import Grid
from invdiff.operators.seismic import Acoustic, Boundary, Devito, Survey, ricker
from invdiff.operators.seismic.propagator import DevitoPropagator
from invdiff.operators.seismic.sampling import Sampling

BOUNDS = (1500.0, 3500.0)
DT = 1e-3
SHAPES = ((70, 70), (110, 230), (208, 128))
Row = dict[str, object]


def section(shape: tuple[int, int], spacing: tuple[float, float] = (10.0, 10.0)) -> Grid:
    """Cells of some metres."""
    z, x = (np.arange(n) * h for n, h in zip(shape, spacing, strict=True))
    return Grid(("z", "x"), shape, torch.float32, {"z": z, "x": x})


def model(grid: Grid, bounds: tuple[float, float] = BOUNDS) -> Tensor:
    """Velocities that grow with depth, and some noise."""
    low, high = bounds[0] + 100, bounds[1] - 200
    depth = torch.linspace(0, 1, grid.shape[0])[:, None]
    noise = torch.from_numpy(np.random.default_rng(0).random(grid.shape))
    return (low + (high - low) * depth + 100 * noise).float()[None]


def line(grid: Grid, *, n_shots: int, n_samples: int, frequency: float = 15.0) -> Survey:
    """Shots and a receiver in each column, a cell below the top."""
    x = np.asarray(grid.coords["x"])
    depth = float(grid.coords["z"][1])
    at = np.linspace(0.1, 0.9, n_shots) * x[-1]
    return Survey(
        np.stack([np.full(n_shots, depth), at], 1),
        np.stack([np.full(len(x), depth), x], 1),
        ricker(frequency, DT, n_samples),
        DT,
    )


def by_turns(tasks: Mapping[str, Callable[[], object]], *, n: int) -> dict[str, float]:
    """Median seconds of each task; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(n + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def raw_forward(operator: Acoustic, v: Tensor) -> Callable[[], object]:
    """Devito alone: the operator's kernel on buffers set once, for its first shot."""
    propagator: Any = operator.propagator
    engine = propagator.engine
    kernel = engine._operator("forward")
    space = engine._workspace().__enter__()
    space.set(propagator.medium(v, None)[0].numpy(), propagator.shots[0])
    wave = space.rolling("u")
    dt = np.float32(engine.dt)

    def run() -> object:
        return kernel.apply(
            **space.medium,
            u=wave,
            damp=space.damp,
            rec=space.receivers,
            src=space.source,
            dt=dt,
            time_m=1,
            time_M=engine.n_steps,
        )

    return run


def against_devito(*, n_samples: int, n: int) -> list[Row]:
    """Overhead and gradient, by grid."""
    rows: list[Row] = []
    for shape in SHAPES:
        grid = section(shape)
        operator = Acoustic(line(grid, n_shots=1, n_samples=n_samples), grid, bounds=BOUNDS)
        v, y = model(grid), torch.zeros(operator.range.shape)
        tasks = {
            "raw": raw_forward(operator, v),
            "forward": partial(operator, v),
            "gradient": partial(operator.misfit_and_gradient, v, y),
        }
        took = by_turns(tasks, n=n)
        name = "x".join(map(str, operator.propagator.engine.kernels.shape))
        case = f"{name}, {n_samples} samples, 1 shot"
        rows += [
            row(f"overhead {case}", "invdiff", took["forward"], took["forward"] / took["raw"]),
            row(f"overhead {case}", "devito op.apply", took["raw"]),
            row(
                f"gradient {case}", "invdiff", took["gradient"], took["gradient"] / took["forward"]
            ),
        ]
    return rows


def row(case: str, method: str, seconds: float, ratio: float = 1.0) -> Row:
    """One line of the table."""
    return {"case": case, "method": method, "ratio": ratio, "seconds": seconds}


def against_rebuilding(*, n_samples: int, n_peer: int, n: int) -> list[Row]:
    """Gradient of 16 shots; the peer makes Devito's example solver for each shot of each call."""
    from devito.logger import set_log_level

    set_log_level("WARNING")
    grid, bounds, n_shots = section((128, 128), (10.0, 20.0)), (1500.0, 4500.0), 16
    survey = line(grid, n_shots=n_shots, n_samples=n_samples, frequency=5.0)
    v = model(grid, bounds)
    boundary = Boundary(n_absorbing=80, is_free_surface=True)
    operators = {
        method: Acoustic(survey, grid, bounds=bounds, boundary=boundary, engine=engine)
        for method, engine in (
            ("invdiff", Devito(space_order=4)),
            ("invdiff, every wave field stored", Devito(space_order=4, snapshot=1)),
        )
    }
    y = torch.zeros(survey.n_shots, survey.n_receivers, survey.n_samples)
    tasks: dict[str, Callable[[], object]] = {
        method: partial(f.misfit_and_gradient, v, y) for method, f in operators.items()
    }
    peer = "devito AcousticWaveSolver, rebuilt per shot"
    tasks[peer] = lambda: [rebuilt(survey, v[0], grid, shot) for shot in range(n_peer)]
    took = by_turns(tasks, n=n)
    took[peer] *= n_shots / n_peer
    case = f"rebuild per shot, 288x208, {n_samples} samples, 16 shots, gradient"
    return [row(case, method, s, s / took["invdiff"]) for method, s in took.items()]


def rebuilt(survey: Survey, v: Tensor, grid: Grid, shot: int) -> object:
    """Gradient of one shot by the public classes of Devito's examples, as users wrap them."""
    from examples.seismic import AcquisitionGeometry, SeismicModel
    from examples.seismic.acoustic import AcousticWaveSolver

    h_z, h_x = (float(grid.coords[dim][1]) for dim in ("z", "x"))
    medium = SeismicModel(
        origin=(0.0, 0.0), spacing=(h_x, h_z), shape=grid.shape[::-1], space_order=4,
        vp=v.T.numpy() / 1000, nbl=80, fs=True, bcs="damp", dt=1000 * survey.dt,
    )  # fmt: skip
    geometry = AcquisitionGeometry(
        medium, survey.receivers[:, ::-1], survey.sources[shot : shot + 1, ::-1],
        0.0, 1000 * survey.duration, f0=0.005, src_type="Ricker",
    )  # fmt: skip
    solver = AcousticWaveSolver(medium, geometry, space_order=4)
    data, u, _ = solver.forward(save=True)
    gradient, _ = solver.jacobian_adjoint(data, u)
    return gradient.data


def against_deepwave(*, n_samples: int, n: int) -> list[Row]:
    """Forward and gradient of five shots by deepwave's public call, on as many cells."""
    import deepwave

    grid = section((70, 70))
    survey = line(grid, n_shots=5, n_samples=n_samples)
    operator = Acoustic(survey, grid, bounds=BOUNDS)
    v, y = model(grid), torch.zeros(operator.range.shape)
    n_shots = survey.n_shots
    cells = torch.from_numpy(survey.sources / 10).round().long()[:, None]
    receivers = torch.from_numpy(survey.receivers / 10).round().long().expand(n_shots, -1, -1)
    wavelet = torch.tensor(survey.wavelet).float().expand(n_shots, 1, -1).contiguous()

    def forward(velocity: Tensor) -> Tensor:
        out = deepwave.scalar(
            velocity, 10.0, DT, source_amplitudes=wavelet, source_locations=cells,
            receiver_locations=receivers.contiguous(), accuracy=8, pml_width=40, pml_freq=15.0,
            max_vel=BOUNDS[1],
        )  # fmt: skip
        traces: Tensor = out.receiver_amplitudes
        return traces

    def gradient() -> Tensor:
        leaf = v[0].clone().requires_grad_()
        return torch.autograd.grad(0.5 * forward(leaf).square().sum(), leaf)[0]

    took = by_turns(
        {
            "forward invdiff": lambda: operator(v),
            "forward deepwave": lambda: forward(v[0]),
            "gradient invdiff": lambda: operator.misfit_and_gradient(v, y),
            "gradient deepwave": gradient,
        },
        n=n,
    )
    rows = []
    for what in ("forward", "gradient"):
        case = f"deepwave {what}, 150x150, {n_samples} samples, {n_shots} shots"
        ours = took[f"{what} invdiff"]
        rows += [row(case, m, took[f"{what} {m}"], took[f"{what} {m}"] / ours)
                 for m in ("invdiff", "deepwave")]  # fmt: skip
    return rows


def against_shots(*, n_samples: int, n: int) -> list[Row]:
    """A gradient's time by the number of shots; ``ratio`` is that of a shot, over one alone."""
    grid = section(SHAPES[0])
    full = Acoustic(line(grid, n_shots=16, n_samples=n_samples), grid, bounds=BOUNDS)
    v, y = model(grid), torch.zeros(full.range.shape)
    some = {k: full.shots(range(k)) for k in (1, 4, 16)}
    took = by_turns(
        {str(k): partial(f.misfit_and_gradient, v, y[:k]) for k, f in some.items()},
        n=n,
    )
    return [
        row(f"shots, gradient, 150x150, {n_samples} samples, {k} shots", "invdiff", s,
            s / int(k) / took["1"])
        for k, s in took.items()
    ]  # fmt: skip


def against_all_fields(*, n_samples: int, n: int) -> list[Row]:
    """Gradients of noisy data from every few wave fields, in double precision."""
    grid = section(SHAPES[0]).with_dtype(torch.float64)
    survey, x = line(grid, n_shots=1, n_samples=n_samples), model(grid).double()
    every, default = (
        Acoustic(survey, grid, bounds=BOUNDS, engine=Devito(snapshot=k)) for k in (1, None)
    )
    propagator, unfiltered = default.propagator, copy.copy(default)
    assert isinstance(propagator, DevitoPropagator)
    k = propagator.sampling.every
    engine = replace(propagator.engine, sampling=Sampling(k))
    unfiltered.propagator = replace(propagator, engine=engine)
    operators = {
        "invdiff, every field": every,
        f"invdiff, every {k}th field (default)": default,
        f"every {k}th field without the low-pass": unfiltered,
    }
    clean = every(x)[0]
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal(clean.shape))
    y = clean + 0.02 * clean.std() * noise
    found = {m: f.misfit_and_gradient(x, y)[1] for m, f in operators.items()}
    exact = found["invdiff, every field"]
    d = exact / exact.abs().max()
    values = {h: every.misfit_and_gradient(x + h * d, y)[0] for h in (2, 1, -1, -2)}
    central = float((8 * (values[1] - values[-1]) - (values[2] - values[-2])) / 12)
    tasks = {m: partial(f.misfit_and_gradient, x, y) for m, f in operators.items()}
    took = by_turns(tasks, n=n)
    case = f"snapshot 150x150, {n_samples} samples, 1 shot, noise alone"
    rows = [
        row(case, method, seconds, seconds / took["invdiff, every field"])
        | {
            "gradient_error": float((found[method] - exact).norm() / exact.norm()),
            "slope": float((found[method] * d).sum()),
        }
        for method, seconds in took.items()
    ]
    return [*rows, {"case": case, "method": "finite differences", "slope": central}]


def memory(*, n_samples: int, is_quick: bool) -> list[Row]:
    """Peaks of subprocesses, one for each snapshot factor; shots come in growing number."""
    rows: list[Row] = []
    for factor in (1, 5) if is_quick else (1, 2, 5, 9):
        shots = "1,2,4,8,16" if factor == 1 else "1"
        command = [sys.executable, "-m", "benchmarks.seismic_operator"]
        command += ["--memory", str(factor), shots, str(n_samples)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        for k, megabytes in zip(shots.split(","), done.stdout.split(), strict=True):
            case = f"memory 190x310, {n_samples} samples, {k} shots, snapshot {factor}"
            rows.append({"case": case, "method": "invdiff", "mb": float(megabytes)})
    return rows


def measure_memory(factor: int, shots: str, n_samples: int) -> None:
    """Print how far a gradient lifts this process's peak, for each number of shots."""
    grid, v = section(SHAPES[1]), model(section(SHAPES[1]))
    survey = line(grid, n_shots=16, n_samples=n_samples)
    operator = Acoustic(survey, grid, bounds=BOUNDS, engine=Devito(snapshot=factor))
    engine: Any = operator.propagator.engine
    engine.compile("forward_stored", "gradient")
    before = memory_in_mb("VmRSS")
    for k in map(int, shots.split(",")):
        some = operator.shots(range(k))
        some.misfit_and_gradient(v, torch.zeros(some.range.shape))
        sys.stdout.write(f"{memory_in_mb('VmHWM') - before:.1f}\n")


def memory_in_mb(which: str) -> float:
    """Of this process, by Linux: ``VmRSS`` now, ``VmHWM`` at its peak."""
    # Not getrusage: its peak is inherited from the parent process.
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(text.split()[1] for text in lines if text.startswith(which))) * 1024 / 1e6


def main() -> None:
    """Print the table; write it unless quick."""
    options = arguments()
    torch.set_num_threads(1)
    if options.memory:
        factor, shots, n_samples = options.memory
        measure_memory(int(factor), shots, int(n_samples))
        return
    n, n_samples = (2, 301) if options.quick else (options.repetitions, 1001)
    before = os.getloadavg()[0]
    rows = against_devito(n_samples=n_samples, n=5 * n)
    rows += against_all_fields(n_samples=n_samples, n=n)
    rows += against_shots(n_samples=n_samples, n=n)
    rows += against_deepwave(n_samples=n_samples, n=1 if options.quick else 3)
    n_peer = 1 if options.quick else 2
    rows += against_rebuilding(n_samples=n_samples, n_peer=n_peer, n=1 if options.quick else 3)
    rows += memory(n_samples=n_samples, is_quick=options.quick)
    load = f"Load of the machine ({os.cpu_count()} cores): {before:.1f} before, " + (
        f"{os.getloadavg()[0]:.1f} after. devito {version('devito')}, "
        f"deepwave {version('deepwave')}. The peer that rebuilds ran {n_peer} shots, scaled to 16."
    )
    sys.stdout.write(f"{markdown(rows)}\n{load}\n")
    if not options.quick:
        command = f"python -m benchmarks.seismic_operator --repetitions {n}"
        notes = f"{__doc__.split(chr(10) * 2)[1]}\n\n{load}"
        write_table("seismic_operator", rows, command=command, notes=notes)


def arguments() -> argparse.Namespace:
    """The options."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="small and few; writes no result")
    options.add_argument("--repetitions", type=int, default=7)
    options.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    return options.parse_args()


if __name__ == "__main__":
    main()
