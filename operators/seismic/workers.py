"""Where the shots run: in threads of this process, or on a Dask cluster.

A job is one solve of one shot in one medium. Results come back in the order of the jobs and are
summed in that order, so that a gradient is the same bits for any number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from invdiff.arguments import as_integer
from invdiff.operators.seismic.environment import check_threads

__all__ = ["Cluster", "Job", "Threads", "Workers"]

Job = tuple[Any, ...]
"""Arguments of a task after the engine; the first is an index into the media."""

Task = Callable[..., Any]
"""``task(engine, medium, *rest of the job)``."""


class Workers(Protocol):
    """Runs jobs of an engine."""

    def run(
        self, task: Task, engine: Any, media: Sequence[Any], *, jobs: Sequence[Job]
    ) -> list[Any]:
        """``task(engine, media[i], ...)`` for each job ``(i, ...)``, in order."""
        ...


@dataclass(frozen=True)
class Threads:
    """Threads of this process; the solver lets go of Python's lock.

    Args:
        n: shots at work at the same time, each with wave fields of its own.

    Raises:
        InputError: none, or more than there are cores.
    """

    n: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", as_integer("n", self.n))
        check_threads(self.n)

    def run(
        self, task: Task, engine: Any, media: Sequence[Any], *, jobs: Sequence[Job]
    ) -> list[Any]:
        """In the calling thread if there is one worker."""
        if self.n == 1:
            return [task(engine, media[i], *rest) for i, *rest in jobs]
        with ThreadPoolExecutor(self.n) as pool:
            return list(pool.map(lambda job: task(engine, media[job[0]], *job[1:]), jobs))


@dataclass
class Cluster:
    """Workers of a Dask cluster: the engine goes to each of them once, the media once a call.

    Args:
        client: a ``dask.distributed.Client``; its workers need Devito and a C compiler.
    """

    client: Any
    _engines: dict[int, tuple[Any, Any]] = field(default_factory=dict, repr=False)

    def run(
        self, task: Task, engine: Any, media: Sequence[Any], *, jobs: Sequence[Job]
    ) -> list[Any]:
        """One Dask task a job; a failed worker's jobs are run again by another."""
        if id(engine) not in self._engines:  # the engine is kept with its future: ids stay its own
            future = self.client.scatter(engine, broadcast=True, hash=False)
            self._engines[id(engine)] = (engine, future)
        _, engine_there = self._engines[id(engine)]
        there = self.client.scatter(list(media), broadcast=True, hash=False)
        futures = [
            self.client.submit(task, engine_there, there[i], *rest, pure=False) for i, *rest in jobs
        ]
        return list(self.client.gather(futures))
