"""Elementary linear operators; the base class and the algebra come from ``base``."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from invdiff.errors import DTypeError, InputError, ShapeError
from invdiff.grid import Grid, check_finite
from invdiff.operators.base import Adjoint, Composed, HandWritten, Linear, Scaled, Stacked

__all__ = [
    "Adjoint",
    "Composed",
    "Convolution",
    "Fourier",
    "HandWritten",
    "Identity",
    "Linear",
    "Mask",
    "Matrix",
    "Scaled",
    "Stacked",
]


def as_mask(mask: Tensor, shape: tuple[int, ...], *, name: str = "mask") -> Tensor:
    """A mask of booleans, or of zeros and ones, broadcast to ``shape`` as booleans.

    Raises:
        ShapeError: it does not broadcast to ``shape``.
        InputError: values other than 0 and 1, or nothing kept.
    """
    keep = mask != 0
    if mask.dtype != torch.bool and not ((mask == 0) | (mask == 1)).all():
        raise InputError(
            f"{name} is neither boolean nor of zeros and ones",
            got=f"{mask.dtype} values from {mask.min()} to {mask.max()}",
            expected="True where a sample is kept",
            hint="Compare it, such as weights > 0.",
        )
    try:
        keep = keep.broadcast_to(shape)
    except RuntimeError as error:
        raise ShapeError(
            f"{name} does not fit",
            got=tuple(mask.shape),
            expected=f"broadcastable to {shape}",
            hint="Crop, pad or transpose it as the data were.",
        ) from error
    if not keep.any():
        raise InputError(
            f"{name} is empty",
            got="no sample kept",
            expected="at least one",
            hint="Check that True means kept.",
        )
    return keep.contiguous()


class Identity(Linear):
    """``x -> x``: data are the field itself (denoising)."""

    def __init__(self, domain: Grid) -> None:
        super().__init__(domain, domain)
        self._ones = torch.ones(domain.shape, dtype=domain.real_dtype)

    def _forward(self, x: Tensor) -> Tensor:
        return x

    def _adjoint(self, y: Tensor) -> Tensor:
        return y

    @property
    def gram_spectrum(self) -> Tensor:
        """Ones."""
        return self._ones

    @property
    def is_circulant(self) -> bool:
        """Yes."""
        return True

    @property
    def is_diagonal_in_dft(self) -> bool:
        """Yes."""
        return True


class Mask(Linear):
    """``x -> m x``: values are observed where ``keep`` is true and zero elsewhere (inpainting).

    Args:
        domain: grid of the fields.
        keep: booleans, or zeros and ones, that broadcast to ``domain.shape``.

    Raises:
        ShapeError: ``keep`` does not broadcast to the domain.
        InputError: values other than 0 and 1, or nothing kept.
    """

    def __init__(self, domain: Grid, keep: Tensor) -> None:
        super().__init__(domain, domain)
        self.keep = as_mask(keep, domain.shape)
        self._n_data = int(self.keep.sum())

    def _forward(self, x: Tensor) -> Tensor:
        return x * self.keep

    def _adjoint(self, y: Tensor) -> Tensor:
        return y * self.keep

    def gram(self, x: Tensor) -> Tensor:
        """``m x``."""
        return self(x)

    @property
    def measured(self) -> Tensor:
        """The values kept."""
        return self.keep

    @property
    def n_data(self) -> int:
        """Number of values kept."""
        return self._n_data

    @cached_property
    def gram_spectrum(self) -> Tensor:
        """The kept fraction, everywhere."""
        fraction = self.n_data / self.domain.size
        return torch.full_like(self.keep, fraction, dtype=self.domain.real_dtype)

    @property
    def is_circulant(self) -> bool:
        """Only where everything is kept."""
        return self.n_data == self.domain.size

    def solve(
        self,
        b: Tensor,
        rho: float,
        noise_std: float,
        *,
        rtol: float = 1e-5,
        max_iterations: int = 100,
    ) -> Tensor:
        """Closed form: ``A^H A`` is diagonal in the grid."""
        self._check_solve(b, rho, noise_std)
        return b / (self.keep / noise_std**2 + rho)

    def __repr__(self) -> str:
        return f"Mask({self.n_data} of {self.domain.size} kept)"


class Matrix(Linear):
    """``x -> M x`` on the flattened field.

    Args:
        matrix: ``(range.size, domain.size)``, real or complex as the domain.
        domain: grid of the fields.
        range: grid of the data; a plain axis ``data`` if left out.

    Raises:
        ShapeError: a matrix that does not fit the grids.
        DTypeError: a real matrix on a complex domain or the reverse.
        NonFiniteError: NaN or Inf in the matrix.
    """

    def __init__(self, matrix: Tensor, domain: Grid, range: Grid | None = None) -> None:
        n_rows = range.size if range else matrix.shape[0]
        if matrix.shape != (n_rows, domain.size):
            raise ShapeError(
                "matrix does not fit the grids",
                got=tuple(matrix.shape),
                expected=(n_rows, domain.size),
            )
        range = range or Grid(("data",), (n_rows,), domain.dtype)
        if not matrix.is_complex() == domain.is_complex == range.is_complex:
            raise DTypeError(
                "matrix, domain and range must be all real or all complex",
                got=f"{matrix.dtype}, {domain.dtype}, {range.dtype}",
            )
        check_finite(matrix, "matrix")
        super().__init__(domain, range)
        self.matrix = matrix.to(domain.dtype)

    def _forward(self, x: Tensor) -> Tensor:
        y: Tensor = x.flatten(1) @ self.matrix.mT
        return y.reshape(-1, *self.range.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        x: Tensor = y.flatten(1) @ self.matrix.conj()
        return x.reshape(-1, *self.domain.shape)


class Convolution(Linear):
    """Periodic convolution ``x -> k * x``, by FFT (blur, any translation-invariant filter).

    Args:
        domain: grid of the fields.
        kernel: same number of axes as the domain, none longer, real or complex as the domain;
            its origin is at ``kernel.shape // 2``.

    Raises:
        ShapeError: a kernel larger than the domain or of another number of axes.
        DTypeError: a real kernel on a complex domain or the reverse.
        NonFiniteError: NaN or Inf in the kernel.
    """

    def __init__(self, domain: Grid, kernel: Tensor) -> None:
        if kernel.ndim != domain.ndim or any(
            k > n for k, n in zip(kernel.shape, domain.shape, strict=False)
        ):
            raise ShapeError(
                "kernel does not fit the domain",
                got=tuple(kernel.shape),
                expected=f"{domain.ndim} axes, at most {domain.shape}",
            )
        if kernel.is_complex() != domain.is_complex:
            raise DTypeError(
                "kernel is of another kind than the domain", got=kernel.dtype, expected=domain.dtype
            )
        check_finite(kernel, "kernel")
        super().__init__(domain, domain)
        padded = torch.zeros(domain.shape, dtype=domain.dtype, device=kernel.device)
        padded[tuple(slice(0, k) for k in kernel.shape)] = kernel.to(domain.dtype)
        origin = [-(k // 2) for k in kernel.shape]
        self.transfer = torch.fft.fftn(padded.roll(origin, dims=tuple(range(domain.ndim))))

    @classmethod
    def gaussian(cls, domain: Grid, std: float) -> Convolution:
        """Gaussian blur of standard deviation ``std`` grid points, of unit sum."""
        if not std > 0:
            raise InputError("blur width must be positive", got=std, expected="std > 0")
        kernel = torch.ones((), dtype=domain.dtype)
        for n in domain.shape:
            offset = torch.arange(n, dtype=domain.real_dtype) - n // 2
            kernel = kernel[..., None] * torch.exp(-0.5 * (offset / std) ** 2)
        return cls(domain, kernel / kernel.sum())

    def _filter(self, x: Tensor, transfer: Tensor) -> Tensor:
        axes = tuple(range(1, x.ndim))
        result: Tensor
        if self.domain.is_complex:
            result = torch.fft.ifftn(torch.fft.fftn(x, dim=axes) * transfer, dim=axes)
        else:
            half = transfer[..., : x.shape[-1] // 2 + 1]
            result = torch.fft.irfftn(torch.fft.rfftn(x, dim=axes) * half, x.shape[1:], axes)
        return result

    def _forward(self, x: Tensor) -> Tensor:
        return self._filter(x, self.transfer)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._filter(y, self.transfer.conj())

    def gram(self, x: Tensor) -> Tensor:
        """``|k|^2`` in the DFT: one FFT pair instead of two."""
        self.domain.check(x, name="field")
        return self._filter(x, self.gram_spectrum)

    @cached_property
    def gram_spectrum(self) -> Tensor:
        """Squared modulus of the transfer function."""
        power: Tensor = self.transfer.abs().square()
        return power

    @property
    def is_circulant(self) -> bool:
        """Yes."""
        return True

    @property
    def is_diagonal_in_dft(self) -> bool:
        """Yes."""
        return True


class Fourier(Linear):
    """Unitary DFT over all axes, ``fftshift . fft . ifftshift``: origins at ``n // 2``.

    Raises:
        DTypeError: a real domain.
    """

    def __init__(self, domain: Grid) -> None:
        if not domain.is_complex:
            raise DTypeError(
                "Fourier needs a complex domain",
                got=domain.dtype,
                expected="complex64 or complex128",
                hint="Use domain.with_dtype(torch.complex64).",
            )
        dims = tuple(f"k{dim}" for dim in domain.dims)
        super().__init__(domain, Grid(dims, domain.shape, domain.dtype))
        self._ones = torch.ones(domain.shape, dtype=domain.real_dtype)

    def _forward(self, x: Tensor) -> Tensor:
        return centred_fft(x, self.domain.ndim)

    def _adjoint(self, y: Tensor) -> Tensor:
        return centred_ifft(y, self.domain.ndim)

    def gram(self, x: Tensor) -> Tensor:
        """``x``: the transform is unitary."""
        self.domain.check(x, name="field")
        return x

    @property
    def gram_spectrum(self) -> Tensor:
        """Ones."""
        return self._ones

    @property
    def is_circulant(self) -> bool:
        """Yes."""
        return True


def centred_fft(x: Tensor, ndim: int) -> Tensor:
    """Unitary DFT over the last ``ndim`` axes, origins at ``n // 2`` on both sides."""
    axes = tuple(range(-ndim, 0))
    shifted = torch.fft.ifftshift(x, dim=axes)
    y: Tensor = torch.fft.fftshift(torch.fft.fftn(shifted, dim=axes, norm="ortho"), dim=axes)
    return y


def centred_ifft(y: Tensor, ndim: int) -> Tensor:
    """Inverse and adjoint of `centred_fft`."""
    axes = tuple(range(-ndim, 0))
    shifted = torch.fft.ifftshift(y, dim=axes)
    x: Tensor = torch.fft.fftshift(torch.fft.ifftn(shifted, dim=axes, norm="ortho"), dim=axes)
    return x
