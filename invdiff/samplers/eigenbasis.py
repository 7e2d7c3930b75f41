"""Coordinates of the field in which linear Gaussian data are independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from invdiff.errors import UnsupportedError
from invdiff.grid import Grid
from invdiff.likelihood import Gaussian

__all__ = ["DataModes", "data_modes"]

_MAX_DENSE = 4096  # unknowns: a matrix of 128 MiB, a minute to decompose


@dataclass(frozen=True, eq=False)
class DataModes:
    """The data in independent coordinates of the field, in which `DDRM`, `DDNM` and `MCGDiff` work.

    The precision ``P = sum_i A_i^H Sigma_i^-1 A_i`` is ``V diag(s^2) V^H``, with ``s`` and ``V``
    the singular values and right singular vectors of all whitened operators stacked. In
    ``u = V^H x`` the data are::

        u_data = s^-2 V^H sum_i A_i^H Sigma_i^-1 y_i = u + n,   E|n|^2 = 1/s^2

    so that left singular vectors are never needed.

    Args:
        data: Coordinates ``u_data`` of the data, ``(*modes)``; zero where nothing is measured.
        noise: Standard deviation ``1/s`` of their noise, ``(*modes)``; infinite where nothing is
            measured.
        vectors: Singular vectors ``V``, ``(size, size)``; None for the DFT or the grid itself.
        is_dft: Whether ``V^H`` is the unitary DFT.
    """

    data: Tensor
    noise: Tensor
    vectors: Tensor | None = None
    is_dft: bool = False

    @classmethod
    def of_precision(
        cls,
        pulled: Tensor,
        squares: Tensor,
        *,
        vectors: Tensor | None = None,
        is_dft: bool = False,
    ) -> DataModes:
        """The coordinates for given eigenvalues of the precision.

        Args:
            pulled: Pulled-back data ``A^H Sigma^-1 y``, ``(1, *shape)``.
            squares: Eigenvalues ``s^2`` of ``P``, ``(*modes)``.
            vectors: Singular vectors ``V``, ``(size, size)``; None for the DFT or the grid itself.
            is_dft: Whether ``V^H`` is the unitary DFT.
        """
        # An eigenvalue below the rounding of the largest cannot be distinguished from zero.
        rounding = squares.max() * squares.numel() * torch.finfo(squares.dtype).eps
        is_measured = squares > rounding
        basis = cls(pulled, squares, vectors, is_dft)
        data = torch.where(is_measured, basis.to_modes(pulled)[0] / squares, 0)
        return replace(basis, data=data, noise=torch.where(is_measured, squares, 0).rsqrt())

    def to_modes(self, x: Tensor) -> Tensor:
        """Coordinates ``V^H x`` of fields ``(batch, *shape)``."""
        if self.is_dft:
            modes: Tensor = torch.fft.fftn(x, dim=tuple(range(1, x.ndim)), norm="ortho")
            return modes
        return x if self.vectors is None else x.flatten(1) @ self.vectors.conj()

    def to_field(self, u: Tensor, grid: Grid) -> Tensor:
        """Fields ``V u``, ``(batch, *grid.shape)``, of coordinates ``(batch, *modes)``."""
        if self.is_dft:
            x: Tensor = torch.fft.ifftn(u, dim=tuple(range(1, u.ndim)), norm="ortho")
            return x if grid.is_complex else x.real
        return u if self.vectors is None else (u @ self.vectors.mT).reshape(-1, *grid.shape)


@lru_cache(maxsize=2)  # terms never change, and a run asks at each step
def data_modes(terms: tuple[Gaussian, ...], grid: Grid) -> DataModes:
    """The coordinates for linear Gaussian terms on a grid.

    ``V`` is the DFT where all precisions are circulant, and the identity where ``P`` is diagonal on
    the grid (masks), which a product with random values reveals. Otherwise it comes from a dense
    eigendecomposition of cost ``O(size^3)``, once per posterior.

    Args:
        terms: Linear Gaussian likelihoods.
        grid: Grid of the fields.

    Raises:
        UnsupportedError: There are more than 4096 unknowns and the basis is not known.
    """
    zero = torch.zeros(1, *grid.shape, dtype=grid.dtype, device=terms[0].y.device)
    pulled = torch.stack([term.pullback(term.residual(zero)) for term in terms]).sum(0)
    if all(term.is_circulant for term in terms):
        spectra = [term.precision_spectrum for term in terms]
        squares = torch.stack([s for s in spectra if s is not None]).sum(0)
        return DataModes.of_precision(pulled, squares, is_dft=True)
    diagonal = _diagonal(terms, grid)
    if diagonal is not None:
        return DataModes.of_precision(pulled, diagonal)
    if grid.size > _MAX_DENSE:
        raise UnsupportedError(
            "the singular value decomposition of these data is not available",
            got=f"{grid.size} unknowns",
            expected=f"a mask, an operator with is_circulant, or at most {_MAX_DENSE} unknowns",
            hint="Use DiffPIR() or DAPS(), which solve linear systems instead.",
        )
    matrix = torch.cat([term.matrix() for term in terms])
    squares, vectors = torch.linalg.eigh(matrix.mH @ matrix)
    return DataModes.of_precision(pulled, squares, vectors=vectors)


def _diagonal(terms: Sequence[Gaussian], grid: Grid) -> Tensor | None:
    """Diagonal of the precision ``(*shape)`` if it has no other entries, otherwise None."""
    values = np.random.default_rng(0).standard_normal(grid.shape)
    probe = torch.from_numpy(values).to(terms[0].y.device, grid.dtype)[None]
    ones = torch.ones_like(probe)
    diagonal = torch.stack([term.precision(ones) for term in terms]).sum(0)
    product = torch.stack([term.precision(probe) for term in terms]).sum(0)
    rounding = 100 * torch.finfo(grid.real_dtype).eps * float(diagonal.abs().max())
    is_all = torch.allclose(product, diagonal * probe, rtol=0, atol=rounding)
    return diagonal[0].real if is_all else None
