"""Wave propagation through batches of models, and its gradient: engines behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from invdiff.arguments import as_integer
from invdiff.errors import InputError, ShapeError, UnsupportedError
from invdiff.grid import Grid, check_finite
from invdiff.operators.seismic.boundary import Boundary
from invdiff.operators.seismic.devito import DevitoEngine, Response, Shot
from invdiff.operators.seismic.environment import load_devito
from invdiff.operators.seismic.equations import RHO_0, ConstantDensity, VariableDensity
from invdiff.operators.seismic.kernels import Kernels
from invdiff.operators.seismic.sampling import Sampling
from invdiff.operators.seismic.stability import n_substeps
from invdiff.operators.seismic.survey import Survey
from invdiff.operators.seismic.workers import Threads, Workers

__all__ = [
    "Devito",
    "Engine",
    "Misfit",
    "Propagator",
    "Setting",
    "fused_gradient",
]

Misfit = Callable[[Tensor, Tensor], Tensor]
"""Predicted and observed traces ``(1, receiver, time)`` of a shot to a number, or ``(1,)``.

With a method ``shots(indices)`` also those of ``n`` shots, ``(n, receiver, time)``, to ``(n,)``.
"""


@dataclass(frozen=True, eq=False)
class Setting:
    """All that an engine needs to know of a problem.

    Args:
        survey: of all sources.
        domain: grid of the models.
        bounds: lowest and highest velocity, m/s.
        boundary: what surrounds the models.
        has_density: whether the density varies.
        weights: ``(n_shots, n_sources)`` of simultaneous sources; None for one source per shot.
    """

    survey: Survey
    domain: Grid
    bounds: tuple[float, float]
    boundary: Boundary
    has_density: bool = False
    weights: NDArray[np.float64] | None = None

    @property
    def spacing(self) -> tuple[float, float]:
        """Of the grid, m."""
        z, x = (np.asarray(self.domain.coords[dim], np.float64) for dim in ("z", "x"))
        return float(z[-1] - z[0]) / (len(z) - 1), float(x[-1] - x[0]) / (len(x) - 1)

    @property
    def shape(self) -> tuple[int, int]:
        """Of the models."""
        n_z, n_x = self.domain.shape
        return n_z, n_x

    def sources_of(self, survey: Survey, shot: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Positions ``(n, 2)`` and wavelets ``(n, n_samples)`` of what fires in one shot."""
        if self.weights is None:
            return survey.sources[shot : shot + 1], survey.wavelet_of(shot)[None]
        row = self.weights[shot]
        firing = np.flatnonzero(row)
        wavelets = np.stack([row[i] * survey.wavelet_of(int(i)) for i in firing])
        return survey.sources[firing], wavelets

    @property
    def n_shots(self) -> int:
        """Number of solves of a model's data."""
        return self.survey.n_shots if self.weights is None else len(self.weights)


class Propagator(Protocol):
    """Data of models, differentiable, and fused gradients of misfits."""

    @property
    def sampling(self) -> Sampling:
        """Which wave fields a gradient stores."""
        ...

    def data(self, velocity: Tensor, density: Tensor | None) -> Tensor:
        """``(batch, nz, nx)`` to ``(batch, shot, receiver, time)``."""
        ...

    def misfits(
        self, velocity: Tensor, density: Tensor | None, *, misfit: Misfit | None, observed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Misfit of each shot ``(batch, shot)``, and a scalar whose gradient is their sum's."""
        ...

    def on(self, setting: Setting) -> Propagator:
        """The same for other shots of the same time axis and grid, sharing what is compiled."""
        ...


class Engine(Protocol):
    """A wave solver that makes propagators for surveys."""

    def propagator(self, setting: Setting) -> Propagator:
        """The propagator of a survey over a domain."""
        ...


@dataclass(frozen=True)
class Devito:
    """Finite differences of second order in time by Devito, compiled for the CPU.

    Code is generated and compiled once for each equation and grid spacing (Louboutin et al. 2019,
    doi 10.5194/gmd-12-1165-2019; Luporini et al. 2020, doi 10.1145/3374916), a few seconds at the
    first solve, and serves all models, shots and threads. It needs a C compiler at run time.

    Cost: a solve takes one pass over the padded grid per time step. A gradient stores a wave field
    for each shot at work, ``4 n_t n_z n_x / snapshot`` bytes in single precision. What drives the
    adjoint field is low-passed to what the stored fields sample, so that the gradient is the exact
    one, to 1e-6, however noisy the data are (`Sampling`).

    Args:
        space_order: of the finite differences, even.
        snapshot: time steps between the stored wave fields of a gradient; by default as many as
            the frequencies of the wavelets allow, 1 stores them all.
        substeps: time steps per sample; by default the fewest that are stable.
        workers: where the shots run, ``Threads(1)`` by default.

    Raises:
        InputError: counts that are not integers.
    """

    space_order: int = 8
    snapshot: int | None = None
    substeps: int | None = None
    workers: Workers = field(default_factory=Threads)

    def __post_init__(self) -> None:
        for name in ("space_order", "snapshot", "substeps"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, as_integer(name, getattr(self, name)))

    def propagator(self, setting: Setting) -> DevitoPropagator:
        """Nothing is compiled before the first solve."""
        load_devito()
        self._check(setting)
        survey = setting.survey
        # A divergence of a gradient reaches twice as far over the surface as a Laplacian.
        reach = self.space_order // 2
        n_ghost = max(reach, 2 * reach - 2) if setting.has_density else reach
        substeps = n_substeps(
            survey.dt, setting.spacing, setting.bounds[1],
            space_order=self.space_order, is_staggered=setting.has_density, asked=self.substeps,
        )  # fmt: skip
        dt = survey.dt / substeps
        sampling = Sampling.of(survey.resampled(dt), every=self.snapshot)
        boundary, low, high = setting.boundary, *setting.bounds
        kernels = Kernels(
            VariableDensity() if setting.has_density else ConstantDensity(),
            boundary.shape(setting.shape, n_ghost),
            setting.spacing,
            str(setting.domain.dtype).removeprefix("torch."),
            self.space_order,
            n_ghost if boundary.is_free_surface else 0,
            sampling.every,
        )
        damping = boundary.damping(
            setting.shape, n_ghost, spacing=setting.spacing, velocity=(low * high) ** 0.5
        )
        n_steps = (survey.n_samples - 1) * substeps + 1
        engine = DevitoEngine(kernels, damping, dt, n_steps, substeps, sampling)
        return DevitoPropagator(setting, engine, self.workers, n_ghost)

    def _check(self, setting: Setting) -> None:
        if self.space_order < 2 or self.space_order % 2:
            raise InputError(
                "finite differences do not have this order",
                got=f"space_order = {self.space_order}",
                expected="an even number >= 2",
            )
        for name, value in (("snapshot", self.snapshot), ("substeps", self.substeps)):
            if value is not None and value < 1:
                raise InputError(
                    f"{name} counts time steps",
                    got=f"{name} = {value}",
                    expected=f"{name} >= 1",
                    hint="Leave it out for the default.",
                )
        if setting.boundary.is_free_surface and setting.shape[0] < 2 * self.space_order:
            raise ShapeError(
                "the model has too few rows for a free surface",
                got=f"{setting.shape[0]} rows",
                expected=f"at least {2 * self.space_order}, twice the order",
                hint="Lower space_order, or extend the model downwards.",
            )


@dataclass(frozen=True, eq=False)
class DevitoPropagator:
    """Shots by a `DevitoEngine`; padding and medium are torch's, so that their adjoint is exact."""

    setting: Setting
    engine: DevitoEngine
    workers: Workers
    n_ghost: int

    @property
    def sampling(self) -> Sampling:
        """Which wave fields a gradient stores."""
        return self.engine.sampling

    def data(self, velocity: Tensor, density: Tensor | None) -> Tensor:
        """Data of models: one solve per shot, two more for the derivative."""
        data: Tensor = _Propagate.apply(self.medium(velocity, density), self)
        return data

    def misfits(
        self, velocity: Tensor, density: Tensor | None, *, misfit: Misfit | None, observed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Misfits and their derivative: two solves per shot."""
        medium = self.medium(velocity, density)
        responses = [
            [_Response(_numpy(y), _misfit_of_shot(misfit, s)) for s, y in enumerate(traces)]
            for traces in observed
        ]
        values, gradient = self.gradient(medium.detach(), responses)
        return values, (medium * gradient).sum()

    def on(self, setting: Setting) -> DevitoPropagator:
        """The propagator of another setting, which shares the compiled engine."""
        return DevitoPropagator(setting, self.engine, self.workers, self.n_ghost)

    def medium(self, velocity: Tensor, density: Tensor | None) -> Tensor:
        """Parameters of the wave equation on the padded grid, ``(batch, n_parameters, *shape)``."""
        boundary = self.setting.boundary
        slowness = boundary.pad(velocity, self.n_ghost) ** -2
        if density is None:
            return slowness[:, None]
        b = RHO_0 / boundary.pad(density, self.n_ghost)
        b_z = torch.cat([(b[:, 1:] + b[:, :-1]) / 2, b[:, -1:]], dim=1)
        b_x = torch.cat([(b[..., 1:] + b[..., :-1]) / 2, b[..., -1:]], dim=2)
        return torch.stack([b * slowness, b_z, b_x], dim=1)

    @property
    def shots(self) -> list[Shot]:
        """In the engine's terms: at its time step, from the corner of the padded grid."""
        setting, boundary = self.setting, self.setting.boundary
        survey = setting.survey.resampled(self.engine.dt)
        corner = np.array([setting.domain.coords[dim][0] for dim in ("z", "x")], np.float64)
        pad = np.array([boundary.top(self.n_ghost), boundary.n_absorbing]) * setting.spacing
        shots = []
        for shot in range(setting.n_shots):
            positions, wavelets = setting.sources_of(survey, shot)
            receivers = survey.receivers_of(shot if setting.weights is None else 0)
            shots.append(Shot(positions - corner + pad, wavelets, receivers - corner + pad))
        return shots

    def simulate(self, medium: Tensor) -> Tensor:
        """Data of media, ``(batch, shot, receiver, time)``."""
        shots = self.shots
        jobs = [(b, shot) for b in range(len(medium)) for shot in shots]
        traces = self.workers.run(DevitoEngine.forward, self.engine, _arrays(medium), jobs=jobs)
        return _stacked(traces, medium).reshape(len(medium), len(shots), *traces[0].shape)

    def gradient(
        self, medium: Tensor, responses: Sequence[Sequence[Response]]
    ) -> tuple[Tensor, Tensor]:
        """Values ``(batch, shot)`` of functions of the data; gradient of their sum over shots."""
        shots = self.shots
        jobs = [
            (b, s, respond)
            for b, row in enumerate(responses)
            for s, respond in zip(shots, row, strict=True)
        ]
        results = self.workers.run(DevitoEngine.gradient, self.engine, _arrays(medium), jobs=jobs)
        values = torch.tensor([value for value, _ in results], dtype=torch.float64)
        totals = [
            _total([g for _, g in results[i : i + len(shots)]])
            for i in range(0, len(results), len(shots))
        ]
        return values.reshape(len(medium), -1).to(medium.device), _stacked(totals, medium)

    def scatter(self, medium: Tensor, change: Tensor) -> Tensor:
        """Born data of changes ``(batch, 1, *shape)`` of one medium."""
        shots, (background,) = self.shots, _arrays(medium)
        jobs = [(0, shot, array) for array in _arrays(change) for shot in shots]
        traces = self.workers.run(DevitoEngine.born, self.engine, [background], jobs=jobs)
        return _stacked(traces, medium).reshape(len(change), len(shots), *traces[0].shape)

    def pull_back(self, medium: Tensor, cotangent: Tensor) -> Tensor:
        """Adjoint derivative of the data of media, applied to ``(batch, shot, receiver, time)``."""
        fixed = [[_Cotangent(_numpy(c)) for c in traces] for traces in cotangent]
        return self.gradient(medium, fixed)[1]


class _Propagate(torch.autograd.Function):
    """Data of media; the wave fields are computed again backwards rather than kept."""

    @staticmethod
    def forward(medium: Tensor, propagator: DevitoPropagator) -> Tensor:
        return propagator.simulate(medium)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, DevitoPropagator], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.propagator = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (medium,) = ctx.saved_tensors
        return _PullBack.apply(medium, grads[0], ctx.propagator), None


class _PullBack(torch.autograd.Function):
    """Keeps the graph of medium and cotangent, so that a second derivative raises an error.

    torch's ``once_differentiable`` cuts it: ``autograd.grad`` would return the padding's share
    only.
    """

    @staticmethod
    def forward(medium: Tensor, cotangent: Tensor, propagator: DevitoPropagator) -> Tensor:
        return propagator.pull_back(medium, cotangent)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> None:
        raise UnsupportedError(
            "second derivatives of waves are not available",
            got="a derivative of the gradient",
            expected="first derivatives",
            hint="Use create_graph=False; for Gauss-Newton products use Born.",
        )


@dataclass(frozen=True, eq=False)
class _Cotangent:
    """Derivative of the inner product with given traces; its value is not asked for."""

    traces: NDArray[Any]

    def __call__(self, predicted: NDArray[Any]) -> tuple[float, NDArray[Any]]:
        return 0.0, self.traces


@dataclass(frozen=True, eq=False)
class _Response:
    """Value and derivative of a misfit of traces; half the squared residual unless another."""

    observed: NDArray[Any]
    misfit: Misfit | None = None

    def __call__(self, predicted: NDArray[Any]) -> tuple[float, NDArray[Any]]:
        if self.misfit is None:
            residual = predicted - self.observed
            return 0.5 * float(np.sum(residual.astype(np.float64) ** 2)), residual
        with torch.enable_grad():
            traces = torch.from_numpy(predicted).requires_grad_()
            value = self.misfit(traces[None], torch.from_numpy(self.observed)[None]).sum()
            (slope,) = torch.autograd.grad(value, traces)
        return float(value.detach()), slope.numpy()


def fused_gradient(
    propagator: Propagator,
    x: Tensor,
    y: Tensor,
    *,
    grid: Grid,
    misfit: Misfit | None,
    density: Callable[[Tensor], Tensor | None],
) -> tuple[Tensor, Tensor]:
    """Misfits ``(batch,)`` of checked models, summed over shots, and their gradients.

    Args:
        propagator: of the models' operator.
        x: models.
        y: data on ``grid``, or with a leading batch.
        grid: of the data.
        misfit: of the traces of a shot.
        density: of models, None where it is constant or one of their parameters.

    Raises:
        NonFiniteError, ShapeError: data that do not fit.
    """
    y = y.to(x.device)
    y = y[None].expand(len(x), *y.shape) if y.ndim == 3 else y
    grid.check(y, name="data")
    check_finite(y, "data")
    if len(y) != len(x):
        raise ShapeError("data and models differ in number", got=len(y), expected=len(x))
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        values, scalar = propagator.misfits(leaf, density(leaf), misfit=misfit, observed=y)
        (gradient,) = torch.autograd.grad(scalar, leaf)
    return values.detach().sum(1), gradient


def _misfit_of_shot(misfit: Misfit | None, shot: int) -> Misfit | None:
    """The misfit of one shot, by its method ``shots(indices)`` where it differs between shots."""
    select = getattr(misfit, "shots", None)
    return misfit if select is None else select([shot])


def _total(arrays: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Their sum in double precision, in order and without a copy of them all."""
    total = np.zeros(arrays[0].shape)
    for array in arrays:
        total += array
    return total


def _numpy(x: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(x.detach().cpu().numpy())


def _arrays(x: Tensor) -> list[NDArray[Any]]:
    return [_numpy(member) for member in x]


def _stacked(arrays: Sequence[NDArray[Any]], like: Tensor) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).to(like)
