"""Devito as engine: the wave equation for one shot, its data and its exact discrete gradient."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from invdiff.operators.seismic.environment import kept_subnormals, load_devito
from invdiff.operators.seismic.kernels import Kernels
from invdiff.operators.seismic.sampling import Sampling

__all__ = ["DevitoEngine", "Response", "Shot"]

Array = NDArray[Any]
Response = Callable[[Array], tuple[float, Array]]
"""Data of a shot ``(n_receivers, n_samples)`` to a value, and its derivative by the data."""

_BUILDING = threading.Lock()  # SymPy's caches and Devito's configuration are global


class Shot(NamedTuple):
    """A shot in the engine's terms.

    ``sources`` and ``receivers`` are positions ``(n, 2)`` in m from the first point of the padded
    model; ``wavelets`` are ``(n_sources, n_steps)``.
    """

    sources: Array
    wavelets: Array
    receivers: Array


@dataclass
class DevitoEngine:
    """Solves for single shots; safe to call from several threads, cheap to pickle.

    Its time step is the survey's, or a whole fraction of it. Sample ``j`` of a wavelet acts between
    the steps ``j`` and ``j + 1``; sample ``j`` of the data is the field at step ``j``.

    Args:
        kernels: what Devito builds, each kernel once.
        damping: ``d`` over the padded model.
        dt: time step, s.
        n_steps: number of samples at that step.
        stride: time steps between two samples of the data.
        sampling: which wave fields a gradient stores.
    """

    kernels: Kernels
    damping: Array
    dt: float
    n_steps: int
    stride: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    _idle: list[_Workspace] = field(default_factory=list, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Wave fields stay: the other process makes its own."""
        return {**self.__dict__, "_idle": []}

    def forward(self, medium: Array, shot: Shot) -> Array:
        """Data ``(n_receivers, n_samples)`` of a medium ``(n_parameters, *shape)``: one solve."""
        with self._workspace() as space:
            space.set(medium, shot)
            self._apply("forward", space, self.n_steps, u=space.rolling("u"))
            return self._sampled(space)

    def gradient(self, medium: Array, shot: Shot, respond: Response) -> tuple[float, Array]:
        """A function of the data and its gradient in the medium: two solves.

        Args:
            medium: ``(n_parameters, *shape)``.
            shot: where and what.
            respond: from data ``(n_receivers, n_samples)`` to the function's value and its
                derivative by the data.

        Returns:
            The value and ``(n_parameters, *shape)``.
        """
        names = self.kernels.equation.parameters
        with self._workspace() as space:
            space.set(medium, shot)
            stored = space.stored()
            wave = {} if stored.name == "u" else {"u": space.rolling("u")}
            n_steps = self.n_steps + self.sampling.n_beyond
            self._apply("forward_stored", space, n_steps, **{stored.name: stored}, **wave)
            value, slope = respond(self._sampled(space))
            driving = self.sampling.limited(torch.from_numpy(slope), self.stride)
            space.receivers.data[:] = 0
            space.receivers.data[1 : 1 + n_steps] = driving.numpy().T
            images = {f"g_{name}": space.image(name) for name in names}
            w = space.rolling("w")
            self._apply("gradient", space, n_steps, **{stored.name: stored}, w=w, **images)
            gradient = np.stack([np.array(image.data) for image in images.values()])
        gradient *= self.kernels.snapshot
        gradient[:, : self.kernels.mirror] = 0  # ghost rows are not rows of the medium
        return value, gradient

    def born(self, medium: Array, shot: Shot, change: Array) -> Array:
        """Change of the data to first order in a change ``(1, *shape)`` of the medium."""
        with self._workspace() as space:
            space.set(medium, shot)
            waves = {"u": space.rolling("u"), "du": space.rolling("du")}
            self._apply("born", space, self.n_steps, **waves, dm=space.changed(change))
            return self._sampled(space)

    def compile(self, *names: str) -> None:
        """Build kernels now: ``forward``, ``forward_stored``, ``gradient`` or ``born``."""
        for name in names:
            self._operator(name)

    def bytes_per_shot(self) -> int:
        """Memory of the stored wave field, which a gradient needs for each shot at work."""
        halo = 2 * self.kernels.space_order
        n_stored = -(-self.n_times // self.kernels.snapshot)
        size = int(np.prod([n + halo for n in self.kernels.shape]))
        return n_stored * size * np.dtype(self.kernels.dtype).itemsize

    @property
    def n_times(self) -> int:
        """Time levels of a gradient, from rest to the end of the adjoint source."""
        return self.n_steps + self.sampling.n_beyond + 2

    def _sampled(self, space: _Workspace) -> Array:
        recorded = space.receivers.data[1 : 1 + self.n_steps : self.stride]
        return np.ascontiguousarray(recorded.T)

    def _apply(self, name: str, space: _Workspace, n_steps: int, **fields: Any) -> None:
        operator = self._operator(name)
        uses_source = name != "gradient"
        with kept_subnormals():
            operator.apply(
                **space.medium,
                **fields,
                damp=space.damp,
                rec=space.receivers,
                **({"src": space.source} if uses_source else {}),
                dt=np.dtype(self.kernels.dtype).type(self.dt),
                time_m=1,
                time_M=n_steps,
            )

    def _operator(self, name: str) -> Any:
        with _BUILDING:
            return _built(self.kernels, name)

    def _workspace(self) -> _Lease:
        return _Lease(self)


@lru_cache(maxsize=32)
def _built(kernels: Kernels, name: str) -> Any:
    """A compiled operator, shared by all engines of this process that need the same."""
    load_devito()
    build = {
        "forward": lambda: kernels.forward(is_stored=False),
        "forward_stored": lambda: kernels.forward(is_stored=True),
        "gradient": kernels.gradient,
        "born": kernels.born,
    }[name]
    operator = build()
    with kept_subnormals():  # loading what was compiled with -ffast-math may flush them too
        _ = operator.cfunction  # compiles
    return operator


class _Lease:
    """A workspace for one job, taken from the idle ones and given back."""

    def __init__(self, engine: DevitoEngine) -> None:
        self.engine = engine

    def __enter__(self) -> _Workspace:
        with _BUILDING:
            idle = self.engine._idle
            if not idle:
                load_devito()
            self.space = idle.pop() if idle else _Workspace(self.engine)
        return self.space

    def __exit__(self, *_: object) -> None:
        self.engine._idle.append(self.space)


class _Workspace:
    """The arrays of one job at a time. Reused: a fresh wave field costs more than the solve."""

    def __init__(self, engine: DevitoEngine) -> None:
        kernels = engine.kernels
        self.kernels, self.n_steps, self.n_times = kernels, engine.n_steps, engine.n_times
        self.grid = kernels.grid()
        self.medium = kernels.equation.medium(self.grid, kernels.space_order)
        self.damp = kernels.damping(self.grid)
        self.damp.data[:] = engine.damping
        self._fields: dict[str, Any] = {}

    def set(self, medium: Array, shot: Shot) -> None:
        """Take over medium, sources and receivers."""
        for function, values in zip(self.medium.values(), medium, strict=True):
            function.data[:] = values
        self.source = self._points("src", shot.sources)
        # A point source is a delta function: one over the area of a cell.
        area = self.kernels.spacing[0] * self.kernels.spacing[1]
        self.source.data[1 : 1 + self.n_steps] = shot.wavelets.T / area
        self.receivers = self._points("rec", shot.receivers)

    def rolling(self, name: str) -> Any:
        """A wave field at rest."""
        wave = self._keep(name, lambda: self.kernels.field(self.grid, name))
        wave.data_with_halo[:] = 0
        return wave

    def stored(self) -> Any:
        """The wave field to be stored, at rest at its start; the rest will be overwritten."""
        wave = self._keep("stored", lambda: self.kernels.stored_field(self.grid, self.n_times))
        wave.data_with_halo[:2] = 0
        return wave

    def image(self, name: str) -> Any:
        """An empty gradient."""
        from devito import Function

        make = lambda: Function(name=f"g_{name}", grid=self.grid, space_order=0)  # noqa: E731
        image = self._keep(f"g_{name}", make)
        image.data[:] = 0
        return image

    def changed(self, change: Array) -> Any:
        """The change of a medium."""
        from devito import Function

        order = self.kernels.space_order
        make = lambda: Function(name="dm", grid=self.grid, space_order=order)  # noqa: E731
        function = self._keep("dm", make)
        function.data[:] = change[0]
        return function

    def _points(self, name: str, positions: Array) -> Any:
        n = len(positions)
        points = self._keep(
            f"{name}{n}",
            lambda: self.kernels.points(self.grid, name, n_points=n, n_times=self.n_times),
        )
        points.coordinates.data[:] = positions
        points.data[:] = 0
        return points

    def _keep(self, key: str, make: Callable[[], Any]) -> Any:
        if key not in self._fields:
            with _BUILDING:
                self._fields[key] = make()
        return self._fields[key]
