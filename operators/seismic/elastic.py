"""Elastic waves by Deepwave: pressure at receivers of P and S velocities and density."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from invdiff.errors import InputError, NonFiniteError, ShapeError, UnsupportedError
from invdiff.grid import Grid
from invdiff.operators.seismic.boundary import Boundary
from invdiff.operators.seismic.deepwave import Deepwave, DeepwavePropagator, load_deepwave
from invdiff.operators.seismic.points import Points
from invdiff.operators.seismic.propagator import Misfit, Setting, fused_gradient
from invdiff.operators.seismic.survey import Survey

__all__ = ["Elastic"]

_PARAMETERS = ("vp", "vs", "density")


class Elastic:
    r"""Pressure of elastic waves in a plane, a nonlinear operator of P and S velocity and density.

    The velocity-stress equations (Virieux 1986, Geophysics 51(4))::

        rho u_t = div sigma,    sigma_t = lambda (div u) 1 + mu (grad u + grad u^T) - K s 1,
        p = -(sigma_xx + sigma_zz) / 2,    K = lambda + mu,    s = int f dt delta(x - x_s) / rho_0

    with the particle velocity ``u``, ``lambda + 2 mu = rho vp^2`` and ``mu = rho vs^2``. Without S
    waves (``vs = 0``) it is `Acoustic` with a density. Assumptions: two dimensions, isotropic, no
    attenuation, explosive sources, no free surface. The time step follows from the bounds. Cost:
    one solve per model and shot, two for a gradient, whose memory grows with the shots of a call.

    Args:
        survey: explosive sources, pressure receivers, and the wavelet ``f``.
        domain: grid of the models: dims ``("parameter", "z", "x")``, three parameters, in m/s, m/s
            and kg/m^3; ``z`` and ``x`` in m.
        bounds: lowest and highest P velocity that a model may have, m/s.
        boundary: absorbing layers on all sides.
        engine: settings of the solver.

    Raises:
        UnsupportedError: a free surface, for which Deepwave has no stable elastic scheme.
        ShapeError: a domain that does not hold three parameters on a section.
        InputError: bounds or positions that cannot be used.
    """

    def __init__(
        self,
        survey: Survey,
        domain: Grid,
        *,
        bounds: tuple[float, float],
        boundary: Boundary | None = None,
        engine: Deepwave | None = None,
    ) -> None:
        if domain.dims != ("parameter", "z", "x") or domain.shape[0] != len(_PARAMETERS):
            raise ShapeError(
                "the domain of Elastic is not a section of three parameters",
                got=f"{domain.dims} of shape {domain.shape}",
                expected="('parameter', 'z', 'x') of shape (3, nz, nx): vp, vs, density",
            )
        boundary = boundary or Boundary()
        if boundary.is_free_surface:
            raise UnsupportedError(
                "Elastic has no free surface",
                got=boundary,
                expected="Boundary(is_free_surface=False)",
                hint="Use an absorbing top, or the operator Acoustic.",
            )
        if not 20 <= bounds[0] < bounds[1]:
            raise InputError(
                "these are not velocity bounds", got=bounds, expected="low < high, m/s"
            )
        coords = {dim: domain.coords[dim] for dim in ("z", "x")}
        section = Grid(("z", "x"), domain.shape[1:], domain.dtype, coords=coords, units="m s-1")
        survey.check_on(section)
        self.survey, self.domain, self.bounds, self.boundary = survey, domain, bounds, boundary
        self.engine = engine or Deepwave()
        # Deepwave's bound on the time step takes lambda twice: up to sqrt(2) times the P velocity.
        stable = (bounds[0], bounds[1] * 2**0.5)
        setting = Setting(survey, section, stable, boundary, has_density=True)
        self.propagator = _ElasticPropagator(setting, *self.engine.settled(setting))

    @property
    def range(self) -> Grid:
        """Grid of the data, ``(shot, receiver, time)``."""
        return self.survey.data_grid(self.domain.dtype)

    @property
    def n_data(self) -> int:
        """Number of samples of the data, all shots and receivers together."""
        return self.range.size

    @property
    def n_shots(self) -> int:
        """Number of shots: the solves that the data of one model take."""
        return self.survey.n_shots

    def __call__(self, x: Tensor) -> Tensor:
        """Pressure ``(batch, shot, receiver, time)`` of models ``(batch, 3, nz, nx)``.

        Raises:
            InputError: velocities or densities that no rock of these bounds has.
            NonFiniteError: NaN or Inf.
            ShapeError: models that do not lie on the domain.
        """
        self.check(x)
        return self.propagator.data(x, None)

    def misfit_and_gradient(
        self, x: Tensor, y: Tensor, *, misfit: Misfit | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `Acoustic.misfit_and_gradient`, of models and gradients ``(batch, 3, nz, nx)``."""
        self.check(x)
        return fused_gradient(
            self.propagator, x, y, grid=self.range, misfit=misfit, density=lambda _: None
        )

    def shots(self, indices: Sequence[int] | NDArray[Any]) -> Elastic:
        """The operator of some of the shots, chosen by number."""
        return Elastic(
            self.survey.shots(indices), self.domain,
            bounds=self.bounds, boundary=self.boundary, engine=self.propagator.engine,
        )  # fmt: skip

    def check(self, x: Tensor) -> None:
        """Refuse models ``(batch, 3, nz, nx)`` that are not rock within the bounds."""
        self.domain.check(x, name="model")
        if not torch.isfinite(x).all():
            raise NonFiniteError("the model holds NaN or Inf", expected="finite values")
        vp, vs, density = x.detach().unbind(1)
        low, high = self.bounds
        rules = {
            f"vp in {low:g} to {high:g} m/s": bool(((vp >= low) & (vp <= high)).all()),
            # Beyond, the bulk modulus lambda + 2/3 mu would be negative.
            "0 <= vs <= sqrt(3/4) vp": bool(((vs >= 0) & (vs <= 0.75**0.5 * vp)).all()),
            "density of 100 kg/m^3 or more": bool((density >= 100).all()),
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            ranges = zip(_PARAMETERS, (vp, vs, density), strict=True)
            raise InputError(
                "not an elastic medium within the bounds",
                got=", ".join(f"{n} {float(f.min()):g} to {float(f.max()):g}" for n, f in ranges),
                expected=", ".join(broken),
                hint="Give m/s and kg/m^3, in the order vp, vs, density.",
            )

    @property
    def settings(self) -> Mapping[str, object]:
        """What identifies it: all but the compiled solver, which follows from these."""
        names = ("survey", "domain", "bounds", "boundary", "engine")
        return {name: getattr(self, name) for name in names}

    def __repr__(self) -> str:
        _, n_z, n_x = self.domain.shape
        return f"Elastic({self.survey!r}, {n_z}x{n_x}, bounds={self.bounds}, {self.engine!r})"


@dataclass(frozen=True, eq=False)
class _ElasticPropagator(DeepwavePropagator):
    """Media are ``[models]``, ``(batch, 3, nz, nx)``."""

    def _run(
        self, media: list[Tensor], amplitudes: Tensor, sources: Points, receivers: Points
    ) -> Tensor:
        vp, vs, density = media[0].unbind(-3)
        mu = density * vs**2
        lamb = density * vp**2 - 2 * mu
        modulus = (lamb + mu).expand(len(amplitudes), *vp.shape[-2:])
        shots = torch.arange(len(amplitudes), device=vp.device)[:, None]
        row, column = sources.cells.unbind(-1)
        rate = self._volume_rate(amplitudes).to(vp) * modulus[shots, row, column][..., None]
        with self._refusals():
            traces: Tensor = (
                load_deepwave()
                .elastic(
                    lamb,
                    mu,
                    1 / density,
                    self.setting.spacing,
                    self._dt,
                    source_amplitudes_pressure_rate=rate,
                    source_locations_pressure_rate=self._locations(sources),
                    receiver_locations_p=self._locations(receivers),
                    **self._options(),
                )
                .receiver_amplitudes_p
            )
        return traces
