"""Elementary linear operators: identity, mask, matrix, periodic convolution, Fourier transform."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from invdiff.arguments import as_number
from invdiff.errors import DTypeError, InputError, ShapeError
from invdiff.grid import Grid
from invdiff.operators.base import Linear
from invdiff.operators.inputs import as_mask, as_tensor, as_values, check_grid, describe

__all__ = [
    "Convolution",
    "Fourier",
    "Identity",
    "Mask",
    "Matrix",
    "Select",
    "centred_fft",
    "centred_ifft",
]


class Identity(Linear):
    """``y = x``: the data are the field itself, seen through noise (denoising).

    ``A^H A = I``: solves are a division, and a product costs nothing.

    Args:
        domain: grid of the fields, and of the data.

    Raises:
        InputError: anything but a `Grid`.

    Examples:
        >>> import torch
        >>> from invdiff import Grid
        >>> from invdiff.operators import Identity
        >>> operator = Identity(Grid(("x",), (3,)))
        >>> operator(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[1., 2., 3.]])
        >>> operator.n_data
        3
    """

    is_circulant = True
    is_diagonal_in_dft = True

    def __init__(self, domain: Grid) -> None:
        super().__init__(domain, domain)
        self._ones = torch.ones(domain.shape, dtype=domain.real_dtype)

    def _forward(self, x: Tensor) -> Tensor:
        return x

    def _adjoint(self, y: Tensor) -> Tensor:
        return y

    @property
    def gram_spectrum(self) -> Tensor:
        """Ones ``(*domain.shape)``: the spectrum of the identity."""
        return self._ones


class Mask(Linear):
    """``y = m x`` with ``m`` 0 or 1: values are seen where ``keep`` is true (inpainting).

    The range is the domain; values that are not kept are zero there, are not data, and do not
    count in ``n_data``. ``A^H A = A`` is diagonal in the grid, so solves are a division.

    Args:
        domain: grid of the fields.
        keep: booleans, or zeros and ones of any dtype, that broadcast to ``domain.shape``; a
            tensor or a NumPy array.

    Raises:
        ShapeError: ``keep`` does not broadcast to the domain.
        DTypeError: ``keep`` is not an array of numbers or booleans.
        InputError: values other than 0 and 1, nothing kept, or anything but a `Grid`.

    Examples:
        >>> import torch
        >>> from invdiff import Grid
        >>> from invdiff.operators import Mask
        >>> operator = Mask(Grid(("y", "x"), (2, 3)), torch.tensor([True, False, True]))
        >>> operator
        Mask(4 of 6 kept)
        >>> operator(torch.ones(1, 2, 3))
        tensor([[[1., 0., 1.],
                 [1., 0., 1.]]])
    """

    def __init__(self, domain: Grid, keep: Tensor) -> None:
        super().__init__(domain, domain)
        self.keep = as_mask(keep, domain.shape, name="keep")
        self._n_data = int(self.keep.sum())

    def _forward(self, x: Tensor) -> Tensor:
        return x * self.keep

    def _adjoint(self, y: Tensor) -> Tensor:
        return y * self.keep

    def gram(self, x: Tensor) -> Tensor:
        """``A^H A x = m x``: ``(batch, *domain.shape)``, for one product instead of two."""
        return self(x)

    @property
    def measured(self) -> Tensor:
        """``keep``: booleans ``(*domain.shape)``."""
        return self.keep

    @property
    def n_data(self) -> int:
        """Number of values kept."""
        return self._n_data

    @cached_property
    def gram_spectrum(self) -> Tensor:
        """Kept fraction at every frequency: real ``(*domain.shape)``."""
        fraction = self.n_data / self.domain.size
        return torch.full_like(self.keep, fraction, dtype=self.domain.real_dtype)

    @property
    def is_circulant(self) -> bool:
        """Whether everything is kept: the mask is then the identity."""
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
        """``x`` of ``(A^H A / noise_std^2 + rho I) x = b``, exactly: a division at each point.

        Args:
            b: right-hand sides ``(batch, *domain.shape)``.
            rho: prior precision, positive.
            noise_std: standard deviation of the data, positive.
            rtol: not used.
            max_iterations: not used.

        Returns:
            Fields ``(batch, *domain.shape)``.

        Raises:
            NoiseLevelError: ``rho`` or ``noise_std`` not positive.
        """
        self._check_solve(b, rho, noise_std)
        return b / (self.keep.to(b.real.dtype) / noise_std**2 + rho)

    def __repr__(self) -> str:
        return f"Mask({self.n_data} of {self.domain.size} kept)"


class Select(Linear):
    """``y = x`` at some places of one dim: channels, variables, levels, sites.

    Unlike those of a `Mask` its data are only what is seen, in the order asked for:
    ``A A^H = I``. A product costs a copy.

    Args:
        domain: grid of the fields.
        dim: name of the dim to choose from.
        values: coordinates of the dim, or positions along it where the grid has no coordinate for
            it; each at most once.

    Raises:
        InputError: a dim or value that the domain does not have, repeated values, none, or anything
            but a `Grid`.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> from invdiff import Grid
        >>> from invdiff.operators import Select
        >>> names = {"variable": np.array(["u", "v", "height"])}
        >>> grid = Grid(("variable", "x"), (3, 2), coords=names)
        >>> operator = Select(grid, "variable", ["height", "u"])
        >>> operator(torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]]))
        tensor([[[5., 6.],
                 [1., 2.]]])
    """

    def __init__(self, domain: Grid, dim: str, values: Iterable[object]) -> None:
        check_grid(domain, type(self))
        if dim not in domain.dims:
            raise InputError("no such dim to select from", got=repr(dim), expected=domain.dims)
        self.axis = domain.dims.index(dim)
        coordinate = domain.coords.get(dim, np.arange(domain.shape[self.axis]))
        indices = _indices(np.asarray(coordinate), dim, values)
        shape = (*domain.shape[: self.axis], len(indices), *domain.shape[self.axis + 1 :])
        coords = dict(domain.coords)
        if dim in coords:
            coords[dim] = np.asarray(coordinate)[indices]
        super().__init__(domain, Grid(domain.dims, shape, domain.dtype, coords, domain.units))
        self.indices = torch.tensor(indices)

    def _forward(self, x: Tensor) -> Tensor:
        return x.index_select(self.axis + 1, self.indices)

    def _adjoint(self, y: Tensor) -> Tensor:
        x = y.new_zeros(len(y), *self.domain.shape)
        return x.index_copy(self.axis + 1, self.indices, y)


def _indices(coordinate: np.ndarray, dim: str, values: Iterable[object]) -> list[int]:
    """Positions of values along a coordinate, each found once and asked for once."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InputError(
            f"the values to select along {dim!r} are not a list",
            got=describe(values),
            expected=f"a list, such as [{describe(values)}]",
        )
    indices: list[int] = []
    for value in values:
        found = np.flatnonzero(coordinate == value)
        if len(found) != 1:
            raise InputError(
                f"the coordinate {dim!r} does not have this value",
                got=repr(value),
                expected=f"one of {np.array2string(coordinate, threshold=10, separator=', ')}",
            )
        indices.append(int(found[0]))
    if not indices or len(set(indices)) < len(indices):
        raise InputError(
            f"nothing or something twice is selected along {dim!r}",
            got=f"positions {indices}",
            expected="one or more different ones",
        )
    return indices


class Matrix(Linear):
    """``y = M x`` on the flattened field: any linear operator, written out.

    A product costs ``range.size * domain.size`` multiplications per member, so this is for small
    problems and for tests.

    Args:
        matrix: ``(range.size, domain.size)``, real or complex as the domain; a tensor or a NumPy
            array. It is stored in the domain's precision.
        domain: grid of the fields.
        range: grid of the data; a plain axis ``data`` if left out.

    Raises:
        ShapeError: a matrix that does not fit the grids.
        DTypeError: a real matrix on a complex domain or the reverse.
        NonFiniteError: NaN or Inf in the matrix.
        InputError: values that the domain's dtype cannot hold, or anything but a `Grid`.

    Examples:
        >>> import torch
        >>> from invdiff import Grid
        >>> from invdiff.operators import Matrix
        >>> operator = Matrix([[1, 1, 0], [0, 1, 1]], Grid(("x",), (3,)))
        >>> operator(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[3., 5.]])
        >>> operator.adjoint(torch.tensor([[3.0, 5.0]]))
        tensor([[3., 8., 5.]])
    """

    def __init__(self, matrix: Tensor, domain: Grid, range: Grid | None = None) -> None:
        check_grid(domain, type(self))
        matrix = as_tensor(matrix, "matrix")
        n_rows = range.size if isinstance(range, Grid) else matrix.shape[0] if matrix.ndim else 0
        if matrix.shape != (n_rows, domain.size):
            raise ShapeError(
                "matrix does not fit the grids",
                got=tuple(matrix.shape),
                expected=f"(range.size, domain.size), ({n_rows or 'n'}, {domain.size}) here",
            )
        if range is None:
            range = Grid(("data",), (n_rows,), domain.dtype)
        super().__init__(domain, range)
        self.matrix = as_values(matrix, domain, "matrix")
        if domain.is_complex != range.is_complex:
            raise DTypeError(
                "matrix, domain and range must be all real or all complex",
                got=f"{matrix.dtype}, {domain.dtype}, {range.dtype}",
            )

    def _forward(self, x: Tensor) -> Tensor:
        y: Tensor = x.flatten(1) @ self.matrix.mT
        return y.reshape(-1, *self.range.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        x: Tensor = y.flatten(1) @ self.matrix.conj()
        return x.reshape(-1, *self.domain.shape)


class Convolution(Linear):
    """``y = k * x``, periodic: a blur, a wavelet, any translation-invariant filter.

    ``y = F^H (k_hat F x)`` with the DFT ``F`` and the transfer function ``k_hat``: a product and a
    solve cost one pair of FFTs each, real ones where the domain is real. The field wraps around:
    where that is wrong, pad the domain by the length of the kernel and compose with a `Mask`.

    Args:
        domain: grid of the fields, and of the data.
        kernel: ``k``: as many axes as the domain, none longer, real or complex as the domain; its
            origin is at ``kernel.shape // 2``. A tensor or a NumPy array, stored in the domain's
            precision.

    Raises:
        ShapeError: a kernel larger than the domain or of another number of axes.
        DTypeError: a real kernel on a complex domain or the reverse.
        NonFiniteError: NaN or Inf in the kernel.
        InputError: values that the domain's dtype cannot hold, or anything but a `Grid`.

    Examples:
        >>> import torch
        >>> from invdiff import Grid
        >>> from invdiff.operators import Convolution
        >>> operator = Convolution(Grid(("x",), (5,)), torch.tensor([1.0, 2.0, 3.0]))
        >>> y = operator(torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0]]))
        >>> torch.allclose(y, torch.tensor([[1.0, 2.0, 3.0, 0.0, 0.0]]), atol=1e-6)
        True
        >>> Convolution.gaussian(Grid(("y", "x"), (64, 64)), std=1.5)
        Convolution(64x64 -> 64x64)
    """

    is_circulant = True
    is_diagonal_in_dft = True

    def __init__(self, domain: Grid, kernel: Tensor) -> None:
        super().__init__(domain, domain)
        kernel = as_tensor(kernel, "kernel")
        if kernel.ndim != domain.ndim or any(
            k > n for k, n in zip(kernel.shape, domain.shape, strict=False)
        ):
            raise ShapeError(
                "kernel does not fit the domain",
                got=tuple(kernel.shape),
                expected=f"{domain.ndim} axes, at most {domain.shape}",
            )
        kernel = as_values(kernel, domain, "kernel")
        padded = torch.zeros(domain.shape, dtype=domain.dtype, device=kernel.device)
        padded[tuple(slice(0, k) for k in kernel.shape)] = kernel
        origin = [-(k // 2) for k in kernel.shape]
        self.transfer = torch.fft.fftn(padded.roll(origin, dims=tuple(range(domain.ndim))))

    @classmethod
    def gaussian(cls, domain: Grid, std: float) -> Convolution:
        """Gaussian blur of unit sum.

        Args:
            domain: grid of the fields, and of the data.
            std: standard deviation in grid points, positive, the same along all axes.

        Raises:
            InputError: a width that is not positive, or anything but a `Grid`.
        """
        check_grid(domain, cls)
        std = as_number("std", std)
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
        """``F^H |k_hat|^2 F x``: ``(batch, *domain.shape)``, one pair of FFTs instead of two."""
        self.domain.check(x, name="field")
        return self._filter(x, self.gram_spectrum)

    @cached_property
    def gram_spectrum(self) -> Tensor:
        """``|k_hat|^2``: real ``(*domain.shape)``, in ``torch.fft`` order."""
        power: Tensor = self.transfer.abs().square()
        return power


class Fourier(Linear):
    """``y = F x``: unitary DFT over all axes, with the origins at ``n // 2``.

    ``F = fftshift . fft . ifftshift / sqrt(N)``, so that ``F^H F = I`` and the zero frequency is in
    the centre for even and odd lengths. A product costs one FFT.

    Args:
        domain: complex grid of the fields; the range has its dims with ``k`` before each name.

    Raises:
        DTypeError: a real domain.
        InputError: anything but a `Grid`.

    Examples:
        >>> import torch
        >>> from invdiff import Grid
        >>> from invdiff.operators import Fourier
        >>> operator = Fourier(Grid(("y", "x"), (2, 2), torch.complex64))
        >>> operator(torch.ones(1, 2, 2, dtype=torch.complex64)).real
        tensor([[[0., 0.],
                 [0., 2.]]])
        >>> operator.range.dims
        ('ky', 'kx')
    """

    is_circulant = True

    def __init__(self, domain: Grid) -> None:
        check_grid(domain, type(self))
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
        """``A^H A x = x``: ``(batch, *domain.shape)``, for the transform is unitary."""
        self.domain.check(x, name="field")
        return x

    @property
    def gram_spectrum(self) -> Tensor:
        """Ones ``(*domain.shape)``: the transform is unitary."""
        return self._ones


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
