"""Covariances that are diagonal in the DFT, except for a map of sizes or a few directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from invdiff.covariance.base import Covariance, alike, cholesky_or_nan
from invdiff.linalg import Apply

__all__ = ["LowRankCovariance", "SpectralCovariance"]

_LEAST = 1e-3  # smaller deviations, relative to the largest, are as good as none


@dataclass(frozen=True, eq=False)
class SpectralCovariance(Covariance):
    """A stationary correlation times a map of standard deviations, ``C = D F^H S F D``.

    Its coordinates are those of the unitary DFT ``F``, and its factor is ``L = D F^H S^(1/2)``.
    Cost: two DFTs per product, one per draw.

    Args:
        power: The spectrum ``S >= 0`` in the order of ``torch.fft.fftn``, ``(*shape)`` or
            ``(batch, *shape)``. Its mean is the variance where ``std`` is one. It is symmetric for
            real fields.
        std: The map ``D``, ``(batch, *shape)`` or broadcastable to it; None for a stationary field.
        is_complex: Whether the field is complex.
        by_member: Whether ``power`` has a first axis of members.

    Examples:
        >>> import torch
        >>> from invdiff.covariance import SpectralCovariance
        >>> white = SpectralCovariance(torch.full((4,), 9.0), is_complex=False)
        >>> white(torch.tensor([[1.0, 0.0, 0.0, 0.0]])).round(decimals=4) + 0.0
        tensor([[9., 0., 0., 0.]])
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
        """Whether all members have the same power and standard deviation."""
        return not self.by_member and (self.std is None or len(self.std) == 1)

    @property
    def is_closed(self) -> bool:  # type: ignore[override]
        """Whether closed forms exist, which is so for a stationary field."""
        return self.is_stationary

    @property
    def spectrum(self) -> Tensor:  # type: ignore[override]
        """The power ``S`` times the mean variance of each member."""
        if self.std is None:
            return self.power
        return self.power * self.std.square().mean(tuple(range(-self.power.ndim, 0)), keepdim=True)

    @cached_property
    def _amplitude(self) -> Tensor:
        return self.power.sqrt()

    def coordinates(self, e: Tensor) -> Tensor:
        """The coefficients ``F e`` of the unitary DFT, ``(batch, *shape)``."""
        return _dft(e)

    def sqrt(self, u: Tensor) -> Tensor:
        """The field ``D F^H S^(1/2) u``; for a real field ``u`` holds the coefficients of one."""
        x = _inverse_dft(self._amplitude * u, is_complex=self.is_complex)
        return x if self.std is None else self.std * x

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """The coefficients ``S^(1/2) F D v``, ``(batch, *shape)``."""
        return self._amplitude * self.coordinates(v if self.std is None else self.std * v)

    def approximate_inverse(self, precision: Tensor) -> Apply | None:
        """``(I + L^H P L)^-1`` for a stationary field; otherwise two such, each in its place.

        With the largest and the smallest deviation ``d_1`` and ``d_2``, and windows
        ``a_1^2 + a_2^2 = 1`` that follow the logarithm of the map, as wide as the correlation::

            M = sum_i F a_i F^H (1 + d_i^2 S P)^-1 F a_i F^H

        In a background whose deviation is next to nothing ``K`` is the identity, which the inverse
        of the mean variance is not: with it a scan takes two to four times as many iterations.

        Args:
            precision: The diagonal of ``P`` in the DFT, ``(*shape)`` or ``(batch, *shape)``.
        """
        if self.std is None:
            return super().approximate_inverse(precision)
        axes = tuple(range(-self.power.ndim + self.by_member, 0))
        largest = self.std.amax(axes, keepdim=True).clamp_min(torch.finfo(self.std.dtype).tiny)
        smallest = self.std.amin(axes, keepdim=True).maximum(_LEAST * largest)
        share = (self.std.maximum(smallest) / smallest).log()
        share = share / (largest / smallest).log().clamp_min(torch.finfo(share.dtype).eps)
        kernel = torch.fft.ifftn(self._amplitude, dim=axes).abs().square()
        kernel = torch.fft.fftn(kernel / kernel.sum(axes, keepdim=True), dim=axes)
        share = torch.fft.ifftn(kernel * torch.fft.fftn(share, dim=axes), dim=axes).real.clamp(0, 1)
        parts = [
            (window.sqrt(), (1 + deviation.square() * self.power * precision).reciprocal())
            for window, deviation in ((share, largest), (1 - share, smallest))
        ]

        def apply(u: Tensor) -> Tensor:
            x = _inverse_dft(u, is_complex=self.is_complex)
            total = torch.zeros_like(x)
            for window, inverse in parts:
                modes = inverse * _dft(window * x)
                total += window * _inverse_dft(modes, is_complex=self.is_complex)
            return _dft(total)

        return apply

    def closed(self) -> SpectralCovariance:
        """The stationary covariance with the mean variance of each member."""
        if self.std is None:
            return self
        return replace(self, power=self.spectrum, std=None, by_member=True)

    def _per_member(self, modes: Tensor, power: Tensor) -> Tensor:
        """``power``, with or without members, times ``modes`` ``(batch, k, *shape)``."""
        return modes * (power[:, None] if self.by_member else power)

    def take(self, members: Tensor) -> SpectralCovariance:
        """The powers and standard deviations of the selected members."""
        std = self.std if self.std is None or len(self.std) == 1 else self.std[members]
        power = self.power[members] if self.by_member else self.power
        return replace(self, power=power, std=std)

    def join(self, others: Sequence[Covariance]) -> SpectralCovariance:
        """The powers and standard deviations of both batches, where members have their own."""
        rest = alike(self, others)
        power, std = self.power, self.std
        if self.by_member:
            power = torch.cat([power, *(o.power for o in rest)])
        if std is not None:
            std = torch.cat([std, *(o.std for o in rest if o.std is not None)])
        return replace(self, power=power, std=std)

    def scaled(self, factor: Tensor) -> SpectralCovariance:
        """The standard deviations times the roots of the factors; the power, if stationary."""
        shape = (-1, *(1,) * (self.power.ndim - self.by_member))
        if self.std is None:
            return replace(self, power=self.power * factor.reshape(shape), by_member=True)
        return replace(self, std=self.std * factor.sqrt().reshape(shape))

    def observed(self, precision: float) -> Covariance:
        """The power ``S / (1 + precision S)`` after observing the field in noise, if stationary."""
        if self.std is not None:
            return super().observed(precision)
        left = 1 + precision * self.power
        return replace(self, power=self.power / torch.where(left > 0, left, torch.nan))

    def sandwich(self, matrix: Tensor) -> Tensor | None:
        """``M C M^H`` in the DFT for a stationary field, else None."""
        if self.std is not None:
            return None
        shape = self.power.shape[1:] if self.by_member else self.power.shape
        modes = _dft(matrix.reshape(-1, *shape)).reshape(matrix.shape)
        power = self.power.reshape(-1, 1, matrix.shape[-1])
        product: Tensor = (modes * power) @ modes.mH
        return product if self.is_complex else product.real


@dataclass(frozen=True, eq=False)
class LowRankCovariance(Covariance):
    """A stationary covariance plus a few directions, ``C = Q + sum_k f_k f_k^H``.

    In the coordinates ``v_k = S^(-1/2) F f_k`` of the DFT, with ``V^H V = R diag(l) R^H``::

        L = F^H S^(1/2) (I + V V^H)^(1/2),
        (I + V V^H)^(1/2) = I + V R diag((sqrt(1 + l) - 1) / l) R^H V^H

    Cost: that of the stationary covariance, and ``2 k`` inner products of fields per product.

    Args:
        base: The stationary covariance ``Q``, with positive power.
        factors: The directions ``f_k``, ``(batch, k, *shape)``.

    Examples:
        >>> import torch
        >>> from invdiff.covariance import LowRankCovariance, SpectralCovariance
        >>> white = SpectralCovariance(torch.ones(2), is_complex=False)
        >>> covariance = LowRankCovariance(white, torch.tensor([[[2.0, 0.0]]]))
        >>> covariance(torch.tensor([[1.0, 1.0]])).round(decimals=4)
        tensor([[5., 1.]])
    """

    base: SpectralCovariance
    factors: Tensor = field(repr=False)
    is_closed = True

    @property
    def spectrum(self) -> Tensor:  # type: ignore[override]
        """The diagonal of ``C`` in the DFT, ``(batch, *shape)``."""
        return self.base.power + _dft(self.factors, start=2).abs().square().sum(1)

    @cached_property
    def _directions(self) -> Tensor:
        """The whitened directions ``V``, ``(batch, n, k)``."""
        modes = self.base._per_member(_dft(self.factors, start=2), 1 / self.base.power.sqrt())
        return modes.flatten(2).mT

    @cached_property
    def _eigen(self) -> tuple[Tensor, Tensor]:
        """``V R``, whose columns are orthogonal, and their squared norms ``l``."""
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
        """The coefficients ``F e`` of the unitary DFT, ``(batch, *shape)``."""
        return self.base.coordinates(e)

    def sqrt(self, u: Tensor) -> Tensor:
        """The field ``L u``, ``(batch, *shape)``."""
        return self.base.sqrt(self._stretch(u))

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """The coefficients ``L^H v``, ``(batch, *shape)``."""
        return self._stretch(self.base.sqrt_adjoint(v))

    def take(self, members: Tensor) -> LowRankCovariance:
        """The stationary part and the directions of the selected members."""
        return LowRankCovariance(self.base.take(members), self.factors[members])

    def join(self, others: Sequence[Covariance]) -> LowRankCovariance:
        """The stationary parts and the directions of both batches, one after the other."""
        rest = alike(self, others)
        base = self.base.join([o.base for o in rest])
        return LowRankCovariance(base, torch.cat([self.factors, *(o.factors for o in rest)]))

    def scaled(self, factor: Tensor) -> LowRankCovariance:
        """The stationary part times the factors, the directions times their roots."""
        roots = factor.sqrt().reshape(-1, *(1,) * (self.factors.ndim - 1))
        return LowRankCovariance(self.base.scaled(factor), roots * self.factors)

    def sandwich(self, matrix: Tensor) -> Tensor | None:
        """``M Q M^H + sum_k (M f_k) (M f_k)^H``."""
        base = self.base.sandwich(matrix)
        if base is None:
            return None
        along = matrix @ self.factors.flatten(2).mT
        return base + along @ along.mH

    def observed(self, precision: float) -> LowRankCovariance:
        """The covariance after observing the field in noise, by Woodbury's identity.

        ``p^-1 (I - R) + R F (I + p F^H R F)^-1 F^H R`` with ``R = (I + p Q)^-1``, the directions
        ``F`` and the precision ``p``.
        """
        shrink = 1 / (1 + precision * self.base.power)
        modes = _dft(self.factors, start=2)
        shrunk = self.base._per_member(modes, shrink)
        gram = modes.flatten(2).conj() @ shrunk.flatten(2).mT
        gram = gram if self.base.is_complex else gram.real
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        root = cholesky_or_nan(eye + precision * gram)
        fields = _inverse_dft(shrunk, start=2, is_complex=self.base.is_complex)
        solved = torch.linalg.solve_triangular(root.conj(), fields.flatten(2), upper=False)
        base = self.base.observed(precision)
        assert isinstance(base, SpectralCovariance)
        return LowRankCovariance(base, solved.reshape(self.factors.shape))


def _dft(x: Tensor, *, start: int = 1) -> Tensor:
    """The unitary DFT over the axes from ``start`` on."""
    modes: Tensor = torch.fft.fftn(x, dim=tuple(range(start, x.ndim)), norm="ortho")
    return modes


def _inverse_dft(modes: Tensor, *, start: int = 1, is_complex: bool) -> Tensor:
    x: Tensor = torch.fft.ifftn(modes, dim=tuple(range(start, modes.ndim)), norm="ortho")
    return x if is_complex else x.real
