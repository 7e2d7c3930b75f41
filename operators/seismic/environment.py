"""What Devito needs of the machine, checked before the first solve."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from invdiff.errors import InputError, MissingDependencyError, UnsupportedError

__all__ = [
    "available_cores",
    "check_compiler",
    "check_lock",
    "check_threads",
    "kept_subnormals",
    "load_devito",
]

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # "max 100000", or microseconds of CPU and of each period
_STALE_AFTER = 120.0  # seconds: no compilation of ours takes that long


def load_devito() -> Any:
    """Devito, quiet unless ``DEVITO_LOGGING`` asks otherwise, after the checks below.

    Raises:
        MissingDependencyError: Devito or its C compiler is not installed.
        UnsupportedError: a stale lock in its compilation cache.
    """
    try:
        import devito
    except ImportError as error:
        raise MissingDependencyError(
            "Devito is not installed",
            got=str(error),
            expected="the package devito",
            hint="pip install 'invdiff[seismic]', or use the engine Deepwave().",
        ) from error
    if "DEVITO_LOGGING" not in os.environ:
        devito.configuration["log-level"] = "WARNING"
    compiler = devito.configuration["compiler"]
    check_compiler(str(compiler.CC))
    check_lock(Path(compiler.get_codepy_dir()))
    return devito


def check_compiler(compiler: str) -> None:
    """Refuse a C compiler that is missing: Devito compiles its operators at run time.

    Raises:
        MissingDependencyError: no such program.
    """
    if shutil.which(compiler) is None:
        raise MissingDependencyError(
            "the C compiler that Devito needs at run time is missing",
            got=f"no program {compiler!r}",
            expected="gcc, or another named by DEVITO_ARCH",
            hint="Install gcc (Debian: apt install gcc), or use the engine Deepwave().",
        )


def check_lock(cache: Path) -> None:
    """Refuse a compilation cache that a killed process left locked: Devito would wait for ever.

    Raises:
        UnsupportedError: a lock older than any compilation.
    """
    for lock in (cache / "lock", *cache.glob("*/lock")):
        try:
            age = time.time() - lock.stat().st_mtime
        except FileNotFoundError:
            continue
        if age > _STALE_AFTER:
            raise UnsupportedError(
                "Devito's compilation cache is locked by a process that is gone",
                got=f"{lock}, {age:.0f} s old",
                expected="no lock older than a compilation takes",
                hint="Delete that file, or set TMPDIR to a folder of your own before the start.",
            )


def check_threads(n_threads: int) -> None:
    """Refuse many more threads than cores: they gain nothing, and each holds wave fields.

    Up to two a core only take turns, for the kernels are built without OpenMP, whatever
    ``DEVITO_LANGUAGE`` and ``OMP_NUM_THREADS`` say: nothing spins at barriers.

    Raises:
        InputError: fewer than one thread, or more than two a core (four where there is one).
    """
    if n_threads < 1:
        raise InputError(
            "the number of threads is less than one",
            got=n_threads,
            expected=">= 1",
            hint="Use 1 or more.",
        )
    n_cores = available_cores()
    if n_threads > max(2 * n_cores, 4):
        raise InputError(
            "threads are oversubscribed",
            got=f"{n_threads} shots at once on {n_cores} cores",
            expected=f"at most {max(2 * n_cores, 4)}",
            hint=f"Use {n_cores}: more gain nothing, and each holds wave fields.",
        )


@contextmanager
def kept_subnormals() -> Iterator[None]:
    """Undo what compiled kernels do to the thread that calls them: flush subnormal numbers to zero.

    It speeds up their waves, and would change the caller's arithmetic ever after.
    """
    is_flushed = bool((np.array([np.finfo(np.float64).smallest_subnormal]) * 1.0)[0] == 0)
    try:
        yield
    finally:
        torch.set_flush_denormal(is_flushed)


def available_cores(quota: Path = _QUOTA) -> int:
    """Cores that this process may use; in a container its quota counts (cgroup v2)."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        limit, period = quota.read_text().split()
    except OSError:
        return cores
    return cores if limit == "max" else max(1, min(cores, int(limit) // int(period)))
