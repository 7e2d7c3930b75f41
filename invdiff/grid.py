"""The labelled grid that a field lives on, and the conversion between xarray and torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from invdiff.arguments import as_integers
from invdiff.errors import DTypeError, InputError, NonFiniteError, ShapeError

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "LATITUDES",
    "LONGITUDES",
    "Grid",
    "check_coordinates",
    "check_dataarray",
    "check_finite",
]

LATITUDES, LONGITUDES = ("lat", "latitude"), ("lon", "longitude")
"""Names of dims in degrees on the sphere."""

_COORDINATE_TOLERANCE = 0.01  # of the smallest step


@dataclass(frozen=True)
class Grid:
    """Dims, shape, dtype, coordinates and units of a field.

    Grids are equal when dims, shape, dtype and units are; coordinates are compared when data are
    put on a grid, by :meth:`to_tensor`.

    Args:
        dims: Names of the axes, slowest first, such as ``("y", "x")``.
        shape: Length of each axis.
        dtype: ``torch.float32``, ``torch.complex64`` or their double forms.
        coords: 1-D coordinate of any of the dims; a dim without one counts from zero.
        units: Physical units of the field's values.

    Raises:
        ShapeError: Dims and shape of different length, repeated dims, empty axes, wrong coords.
        DTypeError: A dtype that is not a floating-point or complex dtype of torch.

    >>> grid = Grid(("y", "x"), (2, 3), units="m s-1")
    >>> grid.size, grid.is_complex
    (6, False)
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    coords: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)
    units: str = "1"

    def __post_init__(self) -> None:
        if isinstance(self.dims, str) or not isinstance(self.shape, Iterable):
            raise ShapeError(
                "dims and shape are not sequences",
                got=f"dims={self.dims!r}, shape={self.shape!r}",
                expected="such as dims=('y', 'x'), shape=(64, 64)",
            )
        object.__setattr__(self, "dims", tuple(map(str, self.dims)))
        object.__setattr__(self, "shape", tuple(as_integers("a length of shape", [*self.shape])))
        if not isinstance(self.dtype, torch.dtype) or not (
            self.dtype.is_floating_point or self.dtype.is_complex
        ):
            raise DTypeError(
                "the dtype of a grid is not one of torch's floating-point dtypes",
                got=repr(self.dtype),
                expected="torch.float32, torch.complex64, torch.float64 or torch.complex128",
            )
        if len(self.dims) != len(self.shape) or len(set(self.dims)) != len(self.dims):
            raise ShapeError(
                "dims and shape do not describe the same axes",
                got=f"dims={self.dims}, shape={self.shape}",
                expected="one distinct name for each axis",
            )
        if any(n < 1 for n in self.shape):
            raise ShapeError("an axis is empty", got=f"shape={self.shape}", expected="lengths >= 1")
        for dim, values in self.coords.items():
            if dim not in self.dims or np.shape(values) != (self.shape[self.dims.index(dim)],):
                raise ShapeError(
                    f"coordinate {dim!r} does not fit the grid",
                    got=f"shape {np.shape(values)}",
                    expected=f"1-D, one of dims {self.dims} of lengths {self.shape}",
                )

    @property
    def size(self) -> int:
        """Number of points of the grid."""
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        """Number of axes of the grid."""
        return len(self.shape)

    @property
    def is_complex(self) -> bool:
        """Whether fields on this grid are complex."""
        return self.dtype.is_complex

    @property
    def real_dtype(self) -> torch.dtype:
        """Dtype of magnitudes, variances and noise levels on this grid."""
        return self.dtype.to_real()

    def with_dtype(self, dtype: torch.dtype) -> Grid:
        """The same grid for values of another dtype."""
        return replace(self, dtype=dtype)

    @classmethod
    def from_dataarray(cls, array: xr.DataArray) -> Grid:
        """The grid of a DataArray: its dims, coords, dtype and ``units`` attribute.

        Raises:
            InputError: The argument is not a DataArray.
            DTypeError: The values are not floating-point numbers; integers are not cast.
        """
        check_dataarray(array, "the field")
        try:
            dtype = torch.from_numpy(np.empty(0, array.dtype.newbyteorder("="))).dtype
        except TypeError:
            dtype = torch.bool
        if not (dtype.is_floating_point or dtype.is_complex):
            raise DTypeError(
                f"variable {array.name!r} is not a floating-point field",
                got=array.dtype,
                expected="float or complex values",
                hint="Convert it with .astype('float32') or .astype('complex64').",
            )
        coords = {
            str(d): np.asarray(array.coords[d].values) for d in array.dims if d in array.coords
        }
        dims = tuple(str(d) for d in array.dims)
        return cls(dims, array.shape, dtype, coords, str(array.attrs.get("units", "1")))

    def to_tensor(self, array: xr.DataArray, *, name: str = "the variable") -> Tensor:
        """Values of a DataArray as a tensor ``(*shape)``, with the axes in the order of the grid.

        Values are converted to the byte order of the machine. Coordinates may differ from the
        grid's by a hundredth of its smallest step, as those stored in single precision do.

        Args:
            array: DataArray on this grid, in any order of its dims.
            name: Name of the variable, for messages.

        Raises:
            InputError: The argument is not a DataArray.
            ShapeError: Its dims, sizes or coordinates are not those of the grid.
            DTypeError: It is real and the grid complex, or the reverse.
            NonFiniteError: It holds NaN or Inf.
        """
        check_dataarray(array, name)
        if set(map(str, array.dims)) != set(self.dims):
            raise ShapeError(
                f"{name} has other dims than the grid",
                got=dict(zip(array.dims, array.shape, strict=True)),
                expected=dict(zip(self.dims, self.shape, strict=True)),
                hint="Rename, select or transpose its dims.",
            )
        array = array.transpose(*self.dims)
        if array.shape != self.shape:
            raise ShapeError(
                f"{name} has another shape than the grid",
                got=dict(zip(self.dims, array.shape, strict=True)),
                expected=dict(zip(self.dims, self.shape, strict=True)),
                hint="Crop, pad or interpolate it, or build the operator for its shape.",
            )
        check_coordinates(array, self, name)
        if np.iscomplexobj(array.values) != self.is_complex:
            raise DTypeError(
                f"{name} is {'complex' if np.iscomplexobj(array.values) else 'real'}",
                got=array.dtype,
                expected=str(self.dtype),
                hint="Convert it explicitly with .astype, or take .real or abs().",
            )
        native = array.dtype.newbyteorder("=")
        if native.kind not in "biufc" or native in (np.longdouble, np.clongdouble):
            raise DTypeError(
                f"{name} does not hold numbers that torch knows",
                got=array.dtype,
                expected=str(self.dtype),
                hint="Convert it, such as with .astype('float64') or .astype('complex128').",
            )
        tensor = torch.from_numpy(np.array(array.values, native, order="C")).to(self.dtype)
        check_finite(tensor, name)
        return tensor

    def to_dataarray(
        self,
        values: Tensor,
        name: str,
        *,
        leading: Mapping[str, Sequence[int] | np.ndarray] | None = None,
        attrs: Mapping[str, object] | None = None,
    ) -> xr.DataArray:
        """A tensor ``(*leading, *shape)`` as a DataArray with this grid's labels.

        Args:
            values: Tensor on any device.
            name: Name of the DataArray.
            leading: Coordinates of the leading axes by name, such as ``{"realization": [0, 1]}``.
            attrs: Attributes in addition to ``units``.
        """
        import xarray as xr

        leading = dict(leading or {})
        coords = {**leading, **self.coords}
        return xr.DataArray(
            values.detach().cpu().numpy(),
            dims=(*leading, *self.dims),
            coords={d: (d, np.asarray(v)) for d, v in coords.items()},
            name=name,
            attrs={"units": self.units, **(attrs or {})},
        )

    def to_channels(self, x: Tensor) -> Tensor:
        """A field ``(batch, *shape)`` in the layout of networks: real channels on axis 1.

        A complex field has two; a real one has one on a 2-D grid, and otherwise its first axis.
        """
        if self.is_complex:
            return torch.view_as_real(x.resolve_conj()).movedim(-1, 1)
        return x[:, None] if self.ndim == 2 else x

    def from_channels(self, channels: Tensor) -> Tensor:
        """The inverse of :meth:`to_channels`: a field ``(batch, *shape)`` of channels.

        Raises:
            ShapeError: The tensor does not have the shape of a field of this grid in channel
                layout.
        """
        leading = (2,) if self.is_complex else (1,) if self.ndim == 2 else ()
        if tuple(channels.shape[1:]) != leading + self.shape:
            raise ShapeError(
                f"the tensor is not a field of {self.dims} in channel layout",
                got=f"shape {tuple(channels.shape)}",
                expected=f"(batch, {', '.join(map(str, leading + self.shape))})",
            )
        channels = channels.to(self.real_dtype)
        if self.is_complex:
            return torch.view_as_complex(channels.movedim(1, -1).contiguous())
        return channels[:, 0] if leading else channels

    def check(self, x: Tensor, *, name: str = "input") -> None:
        """Refuse a tensor that is not a batch of fields on this grid.

        Args:
            x: Tensor that should be ``(batch, *shape)``, real or complex as the grid, of any
                precision.
            name: Name of the tensor, for the message.

        Raises:
            ShapeError: The shape is not ``(batch, *shape)``.
            DTypeError: The argument is not a tensor, or is real and the grid complex, or the
                reverse.
        """
        if not isinstance(x, Tensor):
            raise DTypeError(
                f"{name} is not a tensor",
                got=type(x).__name__,
                expected=f"a torch tensor (batch, {', '.join(map(str, self.shape))})",
                hint="Convert it with torch.from_numpy, or a DataArray with grid.to_tensor.",
            )
        if x.ndim != self.ndim + 1 or tuple(x.shape[1:]) != self.shape:
            raise ShapeError(
                f"{name} does not lie on the grid {self.dims}",
                got=f"shape {tuple(x.shape)}",
                expected=f"(batch, {', '.join(map(str, self.shape))})",
            )
        if x.is_complex() != self.is_complex:
            kinds = ("real", "complex")
            raise DTypeError(
                f"{name} is {kinds[x.is_complex()]} where {kinds[self.is_complex]} is expected",
                got=x.dtype,
                expected=self.dtype,
            )


def check_coordinates(array: xr.DataArray, grid: Grid, name: str) -> None:
    """Refuse a DataArray whose coordinates differ from those of the grid where both have them.

    Args:
        array: DataArray over any of the grid's dims; dims of another length are not compared.
        grid: Grid with the expected coordinates.
        name: Name of the array, for the message.

    Raises:
        ShapeError: A coordinate differs by more than a hundredth of the grid's smallest step.
    """
    for dim, values in grid.coords.items():
        if dim in array.coords and dim in array.dims and array.sizes[dim] == len(values):
            _check_coordinate(dim, array.coords[dim].values, np.asarray(values), name=name)


def _check_coordinate(dim: str, values: np.ndarray, expected: np.ndarray, *, name: str) -> None:
    """Refuse a coordinate that is not the grid's, to a hundredth of its smallest step.

    Single precision may round further than that, far from the origin; up to a quarter of a step.
    """
    if np.array_equal(values, expected):
        return
    if values.dtype.kind in "iuf" and expected.dtype.kind in "iuf":
        difference = np.abs(values.astype(np.float64) - expected)
        steps = np.abs(np.diff(expected.astype(np.float64)))
        step = float(steps.min() if steps.size else np.abs(expected).max())
        tolerance = max(_COORDINATE_TOLERANCE * step, min(_rounding(values, expected), step / 4))
        if bool((difference <= tolerance).all()):
            return
        at = int(np.argmax(difference))  # of NaN, if there is any
        wanted = f"{expected[at]}; the largest difference is {difference[at]:.6g}"
        hint = f"Interpolate the data onto the operator's grid; {tolerance:.3g} would be tolerated."
    else:
        pairs = zip(values, expected, strict=True)
        at = next((i for i, pair in enumerate(pairs) if pair[0] != pair[1]), 0)
        wanted = f"{expected[at]}"
        hint = "Align the data with the operator's grid."
    raise ShapeError(
        f"coordinate {dim!r} of {name} differs from the grid's",
        got=f"{values[at]} at index {at}",
        expected=wanted,
        hint=hint,
    )


def _rounding(values: np.ndarray, expected: np.ndarray) -> float:
    """How far the values of two coordinates may be rounded, by the coarser of their dtypes."""
    kinds = [array.dtype for array in (values, expected) if array.dtype.kind == "f"]
    eps = max((float(np.finfo(dtype).eps) for dtype in kinds), default=0.0)
    return eps * float(np.abs(expected).max())


def check_dataarray(
    array: object,
    name: str,
    *,
    label: str = 'operator.range.to_dataarray(torch.as_tensor(values), "data")',
) -> None:
    """Refuse an object that is not a DataArray.

    Args:
        array: Object that the caller passed.
        name: Name of the object, for the message.
        label: Call that makes a DataArray of an array, for the message.

    Raises:
        InputError: The message shows the call that makes a DataArray of what was passed.
    """
    import xarray as xr

    if isinstance(array, xr.DataArray):
        return
    hint = f"Add labels: {label}."
    if isinstance(array, str | Path):
        hint = "Open the file first, such as with xarray.open_dataset or invdiff.io."
    elif isinstance(array, xr.Dataset):
        hint = f"Choose one of its variables, {sorted(map(str, array.data_vars))}."
    raise InputError(
        f"{name} is not a labelled array",
        got=type(array).__name__,
        expected="an xarray.DataArray",
        hint=hint,
    )


def check_finite(values: Tensor, name: str) -> None:
    """Refuse values that are not finite.

    Args:
        values: Real or complex tensor.
        name: Name of the values, for the message.

    Raises:
        NonFiniteError: There is NaN or Inf among the values.
    """
    if not torch.isfinite(values).all():
        n_bad = int((~torch.isfinite(values)).sum())
        raise NonFiniteError(
            f"{name} holds NaN or Inf",
            got=f"{n_bad} of {values.numel()} values",
            expected="finite values",
            hint="Replace them, or set them to zero and exclude them from the mask.",
        )
