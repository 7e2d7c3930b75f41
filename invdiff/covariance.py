r"""``Cov[x_0 | x_t]`` as a linear operator: the part of a prior that makes its spread right.

A covariance ``C`` comes with a factor ``L`` (``C = L L^H``): products, samples ``L e`` and solves
all go through it, also where ``C`` is singular. ``L`` acts on coordinates of its own choosing, in
which white noise is white. For complex fields ``C = E[(x - m)(x - m)^H]``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from invdiff.errors import UnsupportedError
from invdiff.linalg import lanczos

__all__ = [
    "Covariance",
    "DenseCovariance",
    "JacobianCovariance",
    "LowRankCovariance",
    "NoCovariance",
    "ProductCovariance",
    "SpectralCovariance",
    "TransformedCovariance",
]


class Covariance(ABC):
    """A Hermitian positive semi-definite operator on fields ``(batch, *shape)``."""

    spectrum: Tensor | None = None
    """If the coordinates are those of the DFT: the power of a stationary approximation there."""

    is_stationary: bool = False
    """Whether ``spectrum`` is all there is."""

    is_shared: bool = False
    """Whether it is known to be the same for all members."""

    is_closed: bool = False
    """Whether members can be selected (:meth:`take`) and noisy fields seen (:meth:`observed`)."""

    def coordinates(self, e: Tensor) -> Tensor:
        """White noise on the grid as coordinates of ``L``; a unitary map, here the identity."""
        return e

    @abstractmethod
    def sqrt(self, u: Tensor) -> Tensor:
        """``L u``: the field of coordinates ``u``."""

    @abstractmethod
    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """``L^H v``."""

    def draw(self, e: Tensor) -> Tensor:
        """A draw from ``N(0, C)``, where ``e`` is standard normal on the grid."""
        return self.sqrt(self.coordinates(e))

    def __call__(self, v: Tensor) -> Tensor:
        """``C v``."""
        return self.sqrt(self.sqrt_adjoint(v))

    def take(self, members: Tensor) -> Covariance:
        """The covariances of the members with these indices.

        Raises:
            UnsupportedError: a covariance tied to the batch it was made from.
        """
        raise UnsupportedError(
            "members of this covariance cannot be selected",
            got=type(self).__name__,
            expected="a dense or spectral covariance",
            mend="Use a sampler without resampling, such as Ancestral().",
        )

    def closed(self) -> Covariance | None:
        """Itself where it has closed forms, else the nearest covariance that does, if any."""
        return self if self.is_closed else None

    def join(self, others: Sequence[Covariance]) -> Covariance:
        """That of these members followed by those of ``others``, of the same kind.

        Raises:
            UnsupportedError: a covariance tied to the batch it was made from.
        """
        raise UnsupportedError(
            "covariances of two batches cannot be joined",
            got=type(self).__name__,
            expected="dense or spectral ones",
            mend="Draw all members in one batch.",
        )

    def sandwich(self, matrix: Tensor) -> Tensor | None:
        """``M C M^H`` of rows ``M``, ``(m, n)`` or ``(batch, m, n)``, if that is cheap."""
        return None

    def observed(self, precision: float) -> Covariance:
        """``(C^-1 + precision I)^-1``: what is left after seeing the field in white noise.

        A negative precision takes such noise out again; where ``C`` does not allow it the result
        is NaN.

        Raises:
            UnsupportedError: a covariance that has no closed form for it.
        """
        raise UnsupportedError(
            "no closed form of this covariance given a noisy field",
            got=type(self).__name__,
            expected="a dense or stationary covariance, or one of low rank beside it",
            mend="Use a sampler without weights, such as Ancestral().",
        )


@dataclass(frozen=True)
class NoCovariance(Covariance):
    """Zero: what a method that ignores the spread of ``x_0`` given ``x_t`` believes."""

    is_closed = True

    def sqrt(self, u: Tensor) -> Tensor:
        """Zero."""
        return torch.zeros_like(u)

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """Zero."""
        return torch.zeros_like(v)

    def take(self, members: Tensor) -> NoCovariance:
        """Zero."""
        return self

    def join(self, others: Sequence[Covariance]) -> NoCovariance:
        """Zero."""
        return self

    def observed(self, precision: float) -> NoCovariance:
        """Zero."""
        return self


@dataclass(frozen=True, eq=False)
class DenseCovariance(Covariance):
    """``C = L L^H`` with an explicit factor, for fields small enough.

    Args:
        factor: ``L``, ``(n, n)`` shared by all members or ``(batch, n, n)``.
    """

    factor: Tensor = field(repr=False)
    is_closed = True

    @property
    def is_shared(self) -> bool:  # type: ignore[override]
        """Where there is one factor."""
        return self.factor.ndim == 2

    @classmethod
    def of(cls, matrix: Tensor) -> DenseCovariance:
        """From ``C`` itself, ``(n, n)`` or ``(batch, n, n)``; it may be singular."""
        factor, info = torch.linalg.cholesky_ex(matrix)
        singular = info != 0
        if singular.any():
            values, vectors = torch.linalg.eigh(matrix)
            root = vectors * values.clamp_min(0).sqrt()[..., None, :]
            factor = torch.where(singular[..., None, None], root, factor)
        return cls(factor)

    def sqrt(self, u: Tensor) -> Tensor:
        """``L u``."""
        return _matvec(self.factor, u)

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """``L^H v``."""
        return _matvec(self.factor.mH, v)

    def take(self, members: Tensor) -> DenseCovariance:
        """One factor a member, or the shared one."""
        return self if self.factor.ndim == 2 else DenseCovariance(self.factor[members])

    def join(self, others: Sequence[Covariance]) -> DenseCovariance:
        """Factors one after the other, or the shared one."""
        if self.factor.ndim == 2:
            return self
        return DenseCovariance(torch.cat([self.factor, *(o.factor for o in _alike(self, others))]))

    def sandwich(self, matrix: Tensor) -> Tensor:
        """``(M L) (M L)^H``."""
        root = matrix @ self.factor
        return root @ root.mH

    def observed(self, precision: float) -> DenseCovariance:
        """``L (I + precision L^H L)^-1 L^H``."""
        eye = torch.eye(self.factor.shape[-1], dtype=self.factor.dtype, device=self.factor.device)
        root = _cholesky_or_nan(eye + precision * self.factor.mH @ self.factor)
        return DenseCovariance(torch.linalg.solve_triangular(root, self.factor.mH, upper=False).mH)


def _matvec(matrix: Tensor, x: Tensor) -> Tensor:
    return (matrix @ x.flatten(1)[..., None])[..., 0].reshape(x.shape)


@dataclass(frozen=True, eq=False)
class SpectralCovariance(Covariance):
    r"""``C = D F^H S F D``: a stationary correlation times a map of standard deviations.

    Its coordinates are those of the DFT, ``L = D F^H S^(1/2)``: solves need two DFTs a step.

    Args:
        power: ``S >= 0`` in ``torch.fft.fftn`` order, ``(*shape)`` or ``(batch, *shape)``; its mean
            is the variance where ``std`` is one. Symmetric for real fields.
        std: ``D``, ``(batch, *shape)`` or broadcastable; None for a stationary field.
        is_complex: whether the field is complex.
        by_member: whether ``power`` has a first axis of members.
    """

    power: Tensor = field(repr=False)
    std: Tensor | None = field(default=None, repr=False)
    is_complex: bool = field(kw_only=True)
    by_member: bool = field(default=False, kw_only=True)

    @property
    def is_stationary(self) -> bool:  # type: ignore[override]
        """Whether the standard deviation is the same everywhere."""
        return self.std is None

    @property
    def is_shared(self) -> bool:  # type: ignore[override]
        """Where members have no power or standard deviation of their own."""
        return not self.by_member and (self.std is None or len(self.std) == 1)

    @property
    def is_closed(self) -> bool:  # type: ignore[override]
        """Where it is stationary."""
        return self.is_stationary

    @property
    def spectrum(self) -> Tensor:  # type: ignore[override]
        """``S`` times the mean variance of each member."""
        if self.std is None:
            return self.power
        return self.power * self.std.square().mean(tuple(range(-self.power.ndim, 0)), keepdim=True)

    @cached_property
    def _amplitude(self) -> Tensor:
        return self.power.sqrt()

    def coordinates(self, e: Tensor) -> Tensor:
        """``F e`` with the unitary DFT."""
        return _dft(e)

    def sqrt(self, u: Tensor) -> Tensor:
        """``D F^H S^(1/2) u``; for a real field ``u`` are the coefficients of one."""
        x = _inverse_dft(self._amplitude * u, is_complex=self.is_complex)
        return x if self.std is None else self.std * x

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """``S^(1/2) F D v``."""
        return self._amplitude * self.coordinates(v if self.std is None else self.std * v)

    def closed(self) -> SpectralCovariance:
        """The stationary one of each member's mean variance."""
        if self.std is None:
            return self
        return replace(self, power=self.spectrum, std=None, by_member=True)

    def _per_member(self, modes: Tensor, power: Tensor) -> Tensor:
        """``power``, with or without members, times ``modes`` ``(batch, k, *shape)``."""
        return modes * (power[:, None] if self.by_member else power)

    def take(self, members: Tensor) -> SpectralCovariance:
        """Powers and standard deviations of the members, where they have their own."""
        std = self.std if self.std is None or len(self.std) == 1 else self.std[members]
        power = self.power[members] if self.by_member else self.power
        return replace(self, power=power, std=std)

    def join(self, others: Sequence[Covariance]) -> SpectralCovariance:
        """Powers and standard deviations one after the other, where members have their own."""
        alike = _alike(self, others)
        power, std = self.power, self.std
        if self.by_member:
            power = torch.cat([power, *(o.power for o in alike)])
        if std is not None:
            std = torch.cat([std, *(o.std for o in alike if o.std is not None)])
        return replace(self, power=power, std=std)

    def observed(self, precision: float) -> Covariance:
        """``S / (1 + precision S)``, for a stationary field."""
        if self.std is not None:
            return super().observed(precision)
        left = 1 + precision * self.power
        return replace(self, power=self.power / torch.where(left > 0, left, torch.nan))

    def sandwich(self, matrix: Tensor) -> Tensor | None:
        """``M C M^H`` in the DFT, for a stationary field."""
        if self.std is not None:
            return None
        shape = self.power.shape[1:] if self.by_member else self.power.shape
        modes = _dft(matrix.reshape(-1, *shape)).reshape(matrix.shape)
        power = self.power.reshape(-1, 1, matrix.shape[-1])
        product: Tensor = (modes * power) @ modes.mH
        return product if self.is_complex else product.real


@dataclass(frozen=True, eq=False)
class LowRankCovariance(Covariance):
    r"""``C = Q + sum_k f_k f_k^H``: a stationary covariance and a few directions beside it.

    In the coordinates ``v_k = S^(-1/2) F f_k`` of the DFT, with ``V^H V = R diag(l) R^H``::

        L = F^H S^(1/2) (I + V V^H)^(1/2),
        (I + V V^H)^(1/2) = I + V R diag((sqrt(1 + l) - 1) / l) R^H V^H

    Args:
        base: ``Q``, stationary, with positive power.
        factors: ``f_k``, ``(batch, k, *shape)``.
    """

    base: SpectralCovariance
    factors: Tensor = field(repr=False)
    is_closed = True

    @property
    def spectrum(self) -> Tensor:  # type: ignore[override]
        """Diagonal of ``C`` in the DFT."""
        return self.base.power + _dft(self.factors, start=2).abs().square().sum(1)

    @cached_property
    def _directions(self) -> Tensor:
        """``V R``, ``(batch, n, k)``."""
        modes = self.base._per_member(_dft(self.factors, start=2), 1 / self.base.power.sqrt())
        return modes.flatten(2).mT

    @cached_property
    def _eigen(self) -> tuple[Tensor, Tensor]:
        """``V R`` with orthogonal columns, and their squared norms ``l``."""
        values, rotation = torch.linalg.eigh(self._directions.mH @ self._directions)
        return self._directions @ rotation, values.real.clamp_min(torch.finfo(values.dtype).tiny)

    def _stretch(self, u: Tensor) -> Tensor:
        """``(I + V V^H)^(1/2) u``."""
        directions, values = self._eigen
        weights = ((1 + values).sqrt() - 1) / values
        flat = u.flatten(1)[..., None]
        along = weights[..., None] * (directions.mH @ flat)
        return u + (directions @ along)[..., 0].reshape(u.shape)

    def coordinates(self, e: Tensor) -> Tensor:
        """Those of the DFT."""
        return self.base.coordinates(e)

    def sqrt(self, u: Tensor) -> Tensor:
        """``L u``."""
        return self.base.sqrt(self._stretch(u))

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """``L^H v``."""
        return self._stretch(self.base.sqrt_adjoint(v))

    def take(self, members: Tensor) -> LowRankCovariance:
        """Base and factors of the members."""
        return LowRankCovariance(self.base.take(members), self.factors[members])

    def join(self, others: Sequence[Covariance]) -> LowRankCovariance:
        """Bases and factors one after the other."""
        alike = _alike(self, others)
        base = self.base.join([o.base for o in alike])
        return LowRankCovariance(base, torch.cat([self.factors, *(o.factors for o in alike)]))

    def sandwich(self, matrix: Tensor) -> Tensor | None:
        """``M Q M^H + sum_k (M f_k) (M f_k)^H``."""
        base = self.base.sandwich(matrix)
        if base is None:
            return None
        along = matrix @ self.factors.flatten(2).mT
        return base + along @ along.mH

    def observed(self, precision: float) -> LowRankCovariance:
        r"""``p^-1 (I - R) + R F (I + p F^H R F)^-1 F^H R``, ``R = (I + p Q)^-1``, by Woodbury."""
        shrink = 1 / (1 + precision * self.base.power)
        modes = _dft(self.factors, start=2)
        shrunk = self.base._per_member(modes, shrink)
        gram = modes.flatten(2).conj() @ shrunk.flatten(2).mT
        gram = gram if self.base.is_complex else gram.real
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        root = _cholesky_or_nan(eye + precision * gram)
        fields = _inverse_dft(shrunk, start=2, is_complex=self.base.is_complex)
        solved = torch.linalg.solve_triangular(root.conj(), fields.flatten(2), upper=False)
        base = self.base.observed(precision)
        assert isinstance(base, SpectralCovariance)
        return LowRankCovariance(base, solved.reshape(self.factors.shape))


def _cholesky_or_nan(matrix: Tensor) -> Tensor:
    factor, info = torch.linalg.cholesky_ex(matrix)
    return torch.where((info == 0)[..., None, None], factor, torch.nan)


_Kind = TypeVar("_Kind", bound=Covariance)


def _alike(first: _Kind, others: Sequence[Covariance]) -> list[_Kind]:
    """``others``, which are of the kind of the first."""
    alike = [other for other in others if isinstance(other, type(first))]
    assert len(alike) == len(others), "one prior gives one kind of covariance"
    return alike


def _dft(x: Tensor, *, start: int = 1) -> Tensor:
    """Unitary DFT over the axes from ``start`` on."""
    modes: Tensor = torch.fft.fftn(x, dim=tuple(range(start, x.ndim)), norm="ortho")
    return modes


def _inverse_dft(modes: Tensor, *, start: int = 1, is_complex: bool) -> Tensor:
    x: Tensor = torch.fft.ifftn(modes, dim=tuple(range(start, modes.ndim)), norm="ortho")
    return x if is_complex else x.real


class ProductCovariance(Covariance):
    """A covariance known by its products alone; its Hermitian root is applied by Lanczos.

    Args:
        product: ``C v``.
        iterations: Lanczos steps of ``sqrt``, a product each.
    """

    def __init__(self, product: Callable[[Tensor], Tensor], *, iterations: int = 16) -> None:
        self._product, self._iterations = product, iterations

    def __call__(self, v: Tensor) -> Tensor:
        """``C v``."""
        return self._product(v)

    def sqrt(self, u: Tensor) -> Tensor:
        """``C^(1/2) u``."""
        return lanczos(self._product, u, _root, iterations=self._iterations)

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """The same: the root is Hermitian."""
        return self.sqrt(v)


class JacobianCovariance(ProductCovariance):
    r"""``C = (sigma^2 / alpha) dE[x_0|x_t] / dx_t`` by vector-Jacobian products.

    Exact for an exact denoiser (Tweedie's second-order formula; Rozet et al. 2024, arXiv
    2405.13712). Each product costs one backward pass.

    Args:
        mean: ``E[x_0 | x_t]``, with its graph.
        x_t: the leaf it was computed from.
        scale: ``sigma^2 / alpha``.
        iterations: Lanczos steps of ``sqrt``.
    """

    def __init__(self, mean: Tensor, x_t: Tensor, scale: Tensor, *, iterations: int = 16) -> None:
        def product(v: Tensor) -> Tensor:
            (pulled,) = torch.autograd.grad(mean, x_t, v, retain_graph=True)
            return scale * pulled

        super().__init__(product, iterations=iterations)


@dataclass(frozen=True, eq=False)
class TransformedCovariance(Covariance):
    """``B K^(-1) B^H`` for a precision ``K`` in whitened coordinates, ``C_prior = B B^H``.

    What a Gaussian update leaves of a prior covariance.

    Args:
        base: gives ``B``.
        precision: ``K``, Hermitian positive definite.
        solve: ``K^(-1)``.
        iterations: Lanczos steps of ``sqrt``.
    """

    base: Covariance
    precision: Callable[[Tensor], Tensor]
    solve: Callable[[Tensor], Tensor]
    iterations: int = 32

    def __call__(self, v: Tensor) -> Tensor:
        """``B K^(-1) B^H v``."""
        return self.base.sqrt(self.solve(self.base.sqrt_adjoint(v)))

    def coordinates(self, e: Tensor) -> Tensor:
        """Those of the base."""
        return self.base.coordinates(e)

    def sqrt(self, u: Tensor) -> Tensor:
        """``B K^(-1/2) u``."""
        return self.base.sqrt(self._inverse_root(u))

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """``K^(-1/2) B^H v``."""
        return self._inverse_root(self.base.sqrt_adjoint(v))

    def _inverse_root(self, u: Tensor) -> Tensor:
        return lanczos(self.precision, u, torch.rsqrt, iterations=self.iterations)


def _root(values: Tensor) -> Tensor:
    return values.clamp_min(0).sqrt()
