r"""Coordinates in which linear Gaussian data are independent: what DDRM and DDNM work in.

The precision ``P = sum_i A_i^H Sigma_i^-1 A_i`` is ``V diag(s^2) V^H``, with ``s`` and ``V`` the
singular values and right vectors of the whitened operators joined. In ``u = V^H x`` the data say::

    u_data = s^-2 V^H sum_i A_i^H Sigma_i^-1 y_i = u + n,   E|n|^2 = 1/s^2

so left singular vectors are never needed. ``V`` is the DFT where all precisions are circulant; the
identity where ``P`` is diagonal in the grid (masks), found by a product with random values; else it
comes from a dense eigendecomposition, of ``O(size^3)``, once for a posterior.
"""

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
    """Data by independent coordinates of the field.

    Args:
        data: ``u_data``, ``(*modes)``; zero where nothing is measured.
        noise: ``1/s``, ``(*modes)``; infinite where nothing is measured.
        vectors: ``V``, ``(size, size)``; None for the DFT or the grid itself.
        is_dft: whether ``V^H`` is the unitary DFT.
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
        """From ``A^H Sigma^-1 y``, ``(1, *shape)``, and the eigenvalues ``s^2`` of ``P``."""
        # Below the rounding of the largest, an eigenvalue cannot be told from none.
        seen = squares > squares.max() * squares.numel() * torch.finfo(squares.dtype).eps
        basis = cls(pulled, squares, vectors, is_dft)
        data = torch.where(seen, basis.to_modes(pulled)[0] / squares, 0)
        return replace(basis, data=data, noise=torch.where(seen, squares, 0).rsqrt())

    def to_modes(self, x: Tensor) -> Tensor:
        """``V^H x`` of fields ``(batch, *shape)``."""
        if self.is_dft:
            modes: Tensor = torch.fft.fftn(x, dim=tuple(range(1, x.ndim)), norm="ortho")
            return modes
        return x if self.vectors is None else x.flatten(1) @ self.vectors.conj()

    def to_field(self, u: Tensor, grid: Grid) -> Tensor:
        """``V u`` as fields ``(batch, *grid.shape)``."""
        if self.is_dft:
            x: Tensor = torch.fft.ifftn(u, dim=tuple(range(1, u.ndim)), norm="ortho")
            return x if grid.is_complex else x.real
        return u if self.vectors is None else (u @ self.vectors.mT).reshape(-1, *grid.shape)


@lru_cache(maxsize=2)  # terms never change, and a run asks at each step
def data_modes(terms: tuple[Gaussian, ...], grid: Grid) -> DataModes:
    """The coordinates for linear Gaussian terms on ``grid``.

    Raises:
        UnsupportedError: more than 4096 unknowns and no known basis.
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
            "no singular value decomposition of these data is known",
            got=f"{grid.size} unknowns",
            expected=f"a mask, an operator with is_circulant, or at most {_MAX_DENSE} unknowns",
            hint="Take DiffPIR() or DAPS(), which solve instead.",
        )
    matrix = torch.cat([term.matrix() for term in terms])
    squares, vectors = torch.linalg.eigh(matrix.mH @ matrix)
    return DataModes.of_precision(pulled, squares, vectors=vectors)


def _diagonal(terms: Sequence[Gaussian], grid: Grid) -> Tensor | None:
    """Diagonal of the precision if that is all of it, ``(*shape)``."""
    values = np.random.default_rng(0).standard_normal(grid.shape)
    probe = torch.from_numpy(values).to(terms[0].y.device, grid.dtype)[None]
    ones = torch.ones_like(probe)
    diagonal = torch.stack([term.precision(ones) for term in terms]).sum(0)
    product = torch.stack([term.precision(probe) for term in terms]).sum(0)
    rounding = 100 * torch.finfo(grid.real_dtype).eps * float(diagonal.abs().max())
    is_all = torch.allclose(product, diagonal * probe, rtol=0, atol=rounding)
    return diagonal[0].real if is_all else None
