"""Where the shots run: in threads of this process, or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    """Runs jobs of an engine: one solve of one shot in one medium each.

    Results come back in the order of the jobs and are summed in that order, so that a gradient is
    the same bits for any number of workers.
    """

    def run(
        self, task: Task, engine: Any, media: Sequence[Any], *, jobs: Sequence[Job]
    ) -> list[Any]:
        """``task(engine, media[i], ...)`` for each job ``(i, ...)``, in order."""
        ...


@dataclass(frozen=True)
class Threads:
    """Threads of this process; the solver releases Python's lock.

    Args:
        n: shots at work at the same time, each with its own wave fields.

    Raises:
        InputError: not an integer, less than one, or more than twice the number of cores.
    """

    n: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", as_integer("n", self.n))
        check_threads(self.n)

    @property
    def settings(self) -> Mapping[str, object]:
        """Empty: where the shots run does not change an answer, so it does not identify a run."""
        return {}

    def run(
        self, task: Task, engine: Any, media: Sequence[Any], *, jobs: Sequence[Job]
    ) -> list[Any]:
        """Run the jobs by ``n`` threads, or in the calling one if ``n`` is 1."""
        if self.n == 1:
            return [task(engine, media[i], *rest) for i, *rest in jobs]
        with ThreadPoolExecutor(self.n) as pool:
            return list(pool.map(lambda job: task(engine, media[job[0]], *job[1:]), jobs))


@dataclass
class Cluster:
    """Workers of a Dask cluster: the engine is sent to each of them once, the media once per call.

    Args:
        client: a ``dask.distributed.Client``; its workers need Devito and a C compiler.
    """

    client: Any
    _engines: dict[int, tuple[Any, Any]] = field(default_factory=dict, repr=False)

    @property
    def settings(self) -> Mapping[str, object]:
        """Empty: where the shots run does not change an answer, so it does not identify a run."""
        return {}

    def run(
        self, task: Task, engine: Any, media: Sequence[Any], *, jobs: Sequence[Job]
    ) -> list[Any]:
        """Run one Dask task per job; those of a failed worker are run again by another."""
        if id(engine) not in self._engines:  # the engine is kept with its future: ids stay its own
            future = self.client.scatter(engine, broadcast=True, hash=False)
            self._engines[id(engine)] = (engine, future)
        _, engine_there = self._engines[id(engine)]
        there = self.client.scatter(list(media), broadcast=True, hash=False)
        futures = [
            self.client.submit(task, engine_there, there[i], *rest, pure=False) for i, *rest in jobs
        ]
        return list(self.client.gather(futures))
