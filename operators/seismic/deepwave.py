"""Deepwave as engine: models and shots as one batch, on the CPU or a GPU, without a compiler."""

# It solves the equations of `invdiff.operators.seismic.equations` with its own conventions, which
# this module translates, so that data agree with Devito's sample by sample:
#
# - Constant density: its source is lap u - u_tt / v^2 = f, so ours goes in as -f / (h_z h_x), a
#   delta function being one over the area of a cell. Its sample j acts between the steps j and
#   j + 1 and its data are the field at step j, as ours are: no shift.
# - Variable density: first order, with a volume rate s: p_t / K = -div u + s. So
#   s_j = sum_{i <= j} f_i dt / (rho_0 h_z h_x).
# - Free surface: the pressure vanishes one row *above* its constant-density model, so the top row,
#   which no wave feels, is left out.
# - Positions between grid points are bilinear, as with Devito: its own windowed sinc refuses
#   positions close to an edge.

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from invdiff.arguments import as_integer
from invdiff.errors import InputError, MissingDependencyError, ShapeError
from invdiff.operators.seismic.equations import RHO_0
from invdiff.operators.seismic.points import Points
from invdiff.operators.seismic.propagator import Misfit, Setting
from invdiff.operators.seismic.sampling import Sampling
from invdiff.operators.seismic.stability import n_substeps
from invdiff.operators.seismic.survey import Survey

__all__ = ["Deepwave", "DeepwavePropagator", "dominant_frequency", "load_deepwave"]

_ACCURACIES = (2, 4, 6, 8)


def load_deepwave() -> Any:
    """The library.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import deepwave
    except ImportError as error:
        raise MissingDependencyError(
            "Deepwave is not installed",
            hint="pip install 'invdiff[seismic]', or take the engine Devito().",
        ) from error
    return deepwave


@dataclass(frozen=True)
class Deepwave:
    """Finite differences of second order in time by Deepwave, on the device of the models.

    The engine for a GPU, and for machines without a compiler (Richardson 2023, Zenodo 3829886). Its
    data are those of `Devito`, but for two things: its absorbing layers are CPMLs (Pasalic &
    McGarry 2010, SEG), which absorb more than a `Boundary` of the same thickness; and it averages
    the density between grid points where Devito averages its inverse, so that they differ where
    neighbours contrast.

    Cost: a gradient keeps the wave fields of all shots of a call, so its memory grows with them. On
    the CPU Deepwave takes as many threads as ``OMP_NUM_THREADS`` says.

    Args:
        space_order: of the finite differences: 2, 4, 6 or 8.
        snapshot: time steps between the stored wave fields of a gradient, as with `Devito`.
        substeps: time steps per sample; by default the fewest that are stable.
        pml_frequency: at which the absorbing layers are best, Hz; that of the wavelets by default.
        shots_per_call: solves at a time, which bounds the memory of a gradient; all models and
            shots by default.

    Raises:
        InputError: an order that Deepwave does not have, or a count that is not an integer >= 1.
    """

    space_order: int = 8
    snapshot: int | None = None
    substeps: int | None = None
    pml_frequency: float | None = None
    shots_per_call: int | None = None

    def __post_init__(self) -> None:
        for name in ("space_order", "snapshot", "substeps", "shots_per_call"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, as_integer(name, value, least=1))
        if self.space_order not in _ACCURACIES:
            raise InputError(
                "Deepwave does not have this space order",
                got=f"space_order={self.space_order}",
                expected=f"one of {_ACCURACIES}",
            )

    def propagator(self, setting: Setting) -> DeepwavePropagator:
        """Time step and absorbing layers follow from bounds and wavelet, not from any model."""
        return DeepwavePropagator(setting, *self.settled(setting))

    def settled(self, setting: Setting) -> tuple[Deepwave, Sampling]:
        """With every default replaced by its number, and which wave fields a gradient stores.

        Raises:
            InputError: fewer substeps than stability needs, or a snapshot too large for the waves.
            MissingDependencyError: Deepwave is not installed.
        """
        load_deepwave()
        survey = setting.survey
        substeps = n_substeps(
            survey.dt, setting.spacing, setting.bounds[1],
            space_order=self.space_order, is_staggered=setting.has_density, asked=self.substeps,
        )  # fmt: skip
        sampling = Sampling.of(survey.resampled(survey.dt / substeps), every=self.snapshot)
        engine = replace(
            self,
            substeps=substeps,
            snapshot=sampling.every,
            pml_frequency=self.pml_frequency or dominant_frequency(survey),
        )
        return engine, sampling


@dataclass(frozen=True, eq=False)
class DeepwavePropagator:
    """Solves by Deepwave; ``engine`` has all its numbers settled."""

    setting: Setting
    engine: Deepwave
    sampling: Sampling

    def data(self, velocity: Tensor, density: Tensor | None) -> Tensor:
        """Data of models: one solve per shot, two more for the derivative."""
        data: Tensor = _Propagate.apply(self, velocity, density)
        return data

    def misfits(
        self, velocity: Tensor, density: Tensor | None, *, misfit: Misfit | None, observed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Misfits and their derivative: two solves per shot."""
        media = _given(velocity, density)
        wanted = [x.requires_grad for x in media]

        def respond(traces: Tensor, batch: Tensor, shots: Tensor) -> Tensor:
            return _values(misfit, traces, observed[batch, shots], shots=shots.tolist())

        values, gradients = self.gradient([x.detach() for x in media], wanted, respond=respond)
        products = [(x * g).sum() for x, g in zip(media, gradients, strict=True)]
        return values, torch.stack(products).sum()

    def on(self, setting: Setting) -> Self:
        """With the same time step, absorbing layers and stored wave fields."""
        return replace(self, setting=setting)

    def simulate(self, media: list[Tensor]) -> Tensor:
        """Data ``(batch, shot, receiver, time)`` of velocities, and densities if they vary."""
        n_batch, n_shots = len(media[0]), self.setting.n_shots
        traces = torch.cat([self._solve(media, *part) for part in self._parts(n_batch)])
        return traces.reshape(n_batch, n_shots, *traces.shape[1:])

    def gradient(
        self,
        media: list[Tensor],
        wanted: list[bool],
        *,
        respond: Callable[[Tensor, Tensor, Tensor], Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """Functions of the traces, and the gradient of their sum; one call's fields in memory.

        Args:
            media: velocities, and densities if they vary.
            wanted: which of their gradients; the others are zero.
            respond: from traces ``(solve, receiver, time)``, and model and shot of each solve,
                to one number for each.

        Returns:
            Values ``(batch, shot)``, and a gradient for each of ``media``.
        """
        leaves = [x.requires_grad_(is_wanted) for x, is_wanted in zip(media, wanted, strict=True)]
        variables = [leaf for leaf in leaves if leaf.requires_grad]
        gradients = [torch.zeros_like(leaf) for leaf in leaves]
        totals = [g for g, is_wanted in zip(gradients, wanted, strict=True) if is_wanted]
        values: list[Tensor] = []
        for batch, shots in self._parts(len(media[0])):
            with torch.set_grad_enabled(any(wanted)):
                traces = self._solve(leaves, batch, shots)
                terms = respond(traces, batch, shots)
                slopes = torch.autograd.grad(terms.sum(), variables) if variables else ()
            values.append(terms.detach())
            for total, slope in zip(totals, slopes, strict=True):
                total += slope
        return torch.cat(values).reshape(len(media[0]), -1), gradients

    @cached_property
    def _dt(self) -> float:
        return self.setting.survey.dt / (self.engine.substeps or 1)

    @cached_property
    def _sources(self) -> tuple[Points, Tensor]:
        """Where, and ``f`` at each point at the engine's time step, ``(shot, point, time)``."""
        setting, survey = self.setting, self.setting.survey.resampled(self._dt)
        n_sources, each = survey.n_shots, range(survey.n_shots)
        if setting.weights is None:
            positions = survey.sources[:, None]
            wavelets = np.stack([survey.wavelet_of(i) for i in each])[:, None]
        else:
            positions = np.broadcast_to(survey.sources, (setting.n_shots, n_sources, 2))
            alone = np.stack([survey.wavelet_of(i) for i in each])
            wavelets = setting.weights[:, :, None] * alone
        points = self._points(positions)
        return points, points.spread(torch.from_numpy(np.ascontiguousarray(wavelets)))

    @cached_property
    def _receivers(self) -> Points:
        setting, survey = self.setting, self.setting.survey
        if survey.is_fixed_spread:
            return self._points(
                np.broadcast_to(survey.receivers, (setting.n_shots, *survey.receivers.shape))
            )
        return self._points(survey.receivers)

    def _points(self, positions: Any) -> Points:
        setting = self.setting
        corner = np.array([setting.domain.coords[dim][0] for dim in ("z", "x")], np.float64)
        first_row = 1 if setting.boundary.is_free_surface else 0  # the pressure is zero above it
        cells = (positions - corner) / setting.spacing
        return Points.between(cells, setting.shape, first_row=first_row)

    def _parts(self, n_batch: int) -> list[tuple[Tensor, Tensor]]:
        """Models and shots of each call."""
        n_shots = self.setting.n_shots
        pairs = torch.arange(n_batch * n_shots)
        size = self.engine.shots_per_call or len(pairs)
        return [(part // n_shots, part % n_shots) for part in pairs.split(size)]

    def _solve(self, media: list[Tensor], batch: Tensor, shots: Tensor) -> Tensor:
        """Traces ``(solve, receiver, time)`` of models ``batch`` and their ``shots``."""
        device = media[0].device
        # One model for all shots is not copied for each of them.
        chosen = batch[:1] if bool((batch == batch[0]).all()) else batch
        media = [x[chosen.to(device)] for x in media]
        if len(chosen) == 1:
            media = [x[0] for x in media]
        points, force = self._sources
        receivers = self._receivers.of(shots, device)
        amplitudes = force[shots] / (self.setting.spacing[0] * self.setting.spacing[1])
        traces = self._run(media, amplitudes, points.of(shots, device), receivers)
        sampled: Tensor = _Sampled.apply(traces, self.sampling, self.engine.substeps or 1)
        return receivers.gather(sampled[..., : self.setting.survey.n_samples])

    def _run(
        self, media: list[Tensor], amplitudes: Tensor, sources: Points, receivers: Points
    ) -> Tensor:
        """Traces ``(solve, point, time)`` by the library, at its time step."""
        solve = self._acoustic if self.setting.has_density else self._scalar
        return solve(media, amplitudes, sources, receivers)

    def _scalar(
        self, media: list[Tensor], amplitudes: Tensor, sources: Points, receivers: Points
    ) -> Tensor:
        (velocity,) = media
        is_free = self.setting.boundary.is_free_surface
        traces: Tensor = (
            load_deepwave()
            .scalar(
                velocity[..., 1:, :] if is_free else velocity,
                self.setting.spacing,
                self._dt,
                source_amplitudes=-amplitudes.to(velocity),
                source_locations=self._locations(sources, n_above=int(is_free)),
                receiver_locations=self._locations(receivers, n_above=int(is_free)),
                **self._options(),
            )
            .receiver_amplitudes
        )
        return traces

    def _acoustic(
        self, media: list[Tensor], amplitudes: Tensor, sources: Points, receivers: Points
    ) -> Tensor:
        with self._refusals():
            traces: Tensor = (
                load_deepwave()
                .acoustic(
                    *media,
                    self.setting.spacing,
                    self._dt,
                    source_amplitudes_volume_rate=self._volume_rate(amplitudes).to(media[0]),
                    source_locations_volume_rate=self._locations(sources),
                    receiver_locations_p=self._locations(receivers),
                    **self._options(),
                )
                .receiver_amplitudes_p
            )
        return traces

    def _volume_rate(self, amplitudes: Tensor) -> Tensor:
        """``s``; in double precision, for it is a long sum."""
        return amplitudes.double().cumsum(-1) * self._dt / RHO_0

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Its bound on the time step depends on the contrast of neighbouring cells too."""
        try:
            yield
        except load_deepwave().DeepwaveValueError as error:
            raise InputError(
                "Deepwave refuses this medium",
                got=str(error),
                expected="contrasts that the time step allows for",
                hint=f"Take Deepwave(substeps={(self.engine.substeps or 1) + 1}) or smooth the"
                " model.",
            ) from error

    def _locations(self, points: Points, *, n_above: int = 0) -> Tensor:
        """Rows and columns, counted below ``n_above`` rows that Deepwave is not shown."""
        cells = points.cells - torch.tensor([n_above, 0], device=points.cells.device)
        ignored = load_deepwave().IGNORE_LOCATION
        return torch.where(points.is_used[..., None], cells, ignored)

    def _options(self) -> dict[str, Any]:
        setting, n, high = self.setting, self.setting.boundary.n_absorbing, self.setting.bounds[1]
        # Exactly this many cells a step at the highest velocity, so that it takes no steps between.
        courant = self._dt * high * float(np.hypot(*(1 / np.array(setting.spacing))))
        is_free = setting.boundary.is_free_surface
        every = self.sampling.every
        n_steps = (setting.survey.n_samples - 1) * (self.engine.substeps or 1) + 1
        if torch.is_grad_enabled():
            n_steps += self.sampling.n_beyond
        return {
            "accuracy": self.engine.space_order,
            "pml_width": [0 if is_free else n, n, n, n],
            "boundary": ["free" if is_free else "pml", "pml", "pml", "pml"],
            "pml_freq": self.engine.pml_frequency,
            "max_vel": high,
            "courant_number": courant * (1 + 1e-9),
            "model_gradient_sampling_interval": every,
            "nt": -(-n_steps // every) * every,  # it wants whole intervals
        }


class _Sampled(torch.autograd.Function):
    """Samples of the data; the derivative by them drives the adjoint field low-passed."""

    @staticmethod
    def forward(traces: Tensor, sampling: Sampling, stride: int) -> Tensor:
        return traces[..., ::stride].clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Sampling, int], output: Tensor) -> None:
        traces, ctx.sampling, ctx.stride = inputs
        ctx.n_steps = traces.shape[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        driving = ctx.sampling.limited(grads[0], ctx.stride)
        n_more = ctx.n_steps - driving.shape[-1]  # less than none: those are zero
        return torch.nn.functional.pad(driving, (0, n_more)), None, None


class _Propagate(torch.autograd.Function):
    """Data of models; Deepwave's own graph serves no ``torch.func``, and keeps all wave fields."""

    @staticmethod
    def forward(propagator: DeepwavePropagator, velocity: Tensor, density: Tensor | None) -> Tensor:
        return propagator.simulate(_given(velocity, density))

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[DeepwavePropagator, Tensor, Tensor | None], output: Tensor
    ) -> None:
        ctx.propagator = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        media = [x.detach() for x in _given(*ctx.saved_tensors)]
        wanted = list(ctx.needs_input_grad[1 : 1 + len(media)])
        _, gradients = ctx.propagator.gradient(
            media, wanted, respond=lambda traces, b, s: (traces * grads[0][b, s]).sum((-2, -1))
        )
        velocity, *density = gradients
        return None, velocity, density[0] if density else None


def dominant_frequency(survey: Survey) -> float:
    """Frequency at the peak of the wavelets' mean spectrum, Hz."""
    wavelets = np.atleast_2d(survey.wavelet)
    n = 8 * survey.n_samples  # the peak lies between the frequencies of so short a record
    energy = (np.abs(np.fft.rfft(wavelets, n, axis=1)) ** 2).sum(0)
    peak = float(np.fft.rfftfreq(n, survey.dt)[energy.argmax()])
    return peak or 0.1 / survey.dt


def _values(
    misfit: Misfit | None, predicted: Tensor, observed: Tensor, *, shots: list[int]
) -> Tensor:
    """Misfit of each solve: all at once if the misfit says which shots it takes, else in turn."""
    if misfit is None:
        return 0.5 * (predicted - observed).double().square().sum((-2, -1))
    select = getattr(misfit, "shots", None)
    if select is None:
        pairs = zip(predicted.split(1), observed.split(1), strict=True)
        return torch.stack([misfit(*pair).double().sum() for pair in pairs])
    values: Tensor = select(shots)(predicted, observed)
    if values.shape != (len(shots),):
        raise ShapeError(
            "the misfit does not give one value per shot",
            got=f"shape {tuple(values.shape)}",
            expected=f"({len(shots)},) of traces {tuple(predicted.shape)}",
            hint="Sum over receivers and time alone: .sum((-2, -1)).",
        )
    return values.double()


def _given(velocity: Tensor, density: Tensor | None) -> list[Tensor]:
    return [velocity] if density is None else [velocity, density]
