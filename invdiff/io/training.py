"""Random crops of the images of a Zarr array, for the training loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from invdiff.arguments import as_integer, as_number
from invdiff.errors import DTypeError, InputError, NonFiniteError, ShapeError

if TYPE_CHECKING:
    import zarr
    from torch import Tensor

__all__ = ["ZarrBatches", "training_fields"]

Floats = NDArray[np.float32]

# The unit of positions in the brain prior: 112 pixels, half its field of view.
_PIXELS_PER_UNIT = 112.0


@dataclass(frozen=True)
class ZarrBatches:
    """Batch of one step: random crops, a function of ``(seed, step)`` and the array alone.

    Crops are drawn with replacement, uniformly over images and over the places that lie inside
    them. Picklable: the array is opened where the batch is drawn, and only the chunks of the crops
    are read.

    Args:
        path: the Zarr store.
        variable: name of an array ``(n, y, x)`` in it, float or complex, of any byte order and
            chunks, read as stored.
        size: side of the square crops in pixels.
        batch_size: crops per batch.
        seed: of the crops.
        scale: units of the images in one network unit, as of `invdiff.priors.NetworkPrior`.
        offset: value of the images that is zero to the network.
        coordinates: position channels of a whole image, ``shape -> (n_channels, *shape)``, such as
            `invdiff.priors.positions.Depth`; default row and column from the centre,
            ``((row - (h-1)/2) / 112, (col - (w-1)/2) / 112)``, as `Centred`.

    Raises:
        InputError: a size, batch size, seed or scale that is not possible.
    """

    path: str
    variable: str
    size: int
    batch_size: int
    seed: int = 0
    scale: float = 1.0
    offset: float = 0.0
    coordinates: Callable[[tuple[int, ...]], Tensor] | None = None

    def __post_init__(self) -> None:
        for name, least in (("size", 1), ("batch_size", 1), ("seed", 0)):
            value = as_integer(name, getattr(self, name), least=least)
            object.__setattr__(self, name, value)
        object.__setattr__(self, "scale", as_number("scale", self.scale))
        object.__setattr__(self, "offset", as_number("offset", self.offset, above=-math.inf))

    def __call__(self, step: int) -> tuple[Floats, Floats]:
        """Fields and positions of step ``step``, both float32.

        Returns:
            Fields ``(batch, channels, size, size)`` in network units, ``(image - offset) / scale``:
            one channel, or the real and imaginary parts of complex images. Positions
            ``(batch, n_positions, size, size)``.

        Raises:
            NonFiniteError: NaN or Inf in a crop, or values beyond float32.
        """
        images = _images(self)
        n, h, w = images.shape
        rng = np.random.default_rng((self.seed, step))
        index = rng.integers(n, size=self.batch_size)
        top = rng.integers(h - self.size + 1, size=self.batch_size)
        left = rng.integers(w - self.size + 1, size=self.batch_size)
        windows = [
            (slice(y, y + self.size), slice(x, x + self.size))
            for y, x in zip(top.tolist(), left.tolist(), strict=True)
        ]
        crops = np.stack(
            [np.asarray(images[(i, *w)]) for i, w in zip(index.tolist(), windows, strict=True)]
        )
        if (self.scale, self.offset) != (1, 0):
            crops = (crops - self.offset) / self.scale
        parts = [crops.real, crops.imag] if np.iscomplexobj(crops) else [crops]
        with np.errstate(over="ignore"):  # an overflow becomes Inf, which is refused below
            fields = np.stack(parts, axis=1).astype(np.float32)
        finite = np.isfinite(fields).all(axis=(1, 2, 3))
        if not finite.all():
            raise NonFiniteError(
                f"{self.variable} of {self.path} holds NaN or Inf",
                got=f"image {index[~finite][0]}, in a crop of step {step}",
                expected="values that are finite in float32",
                hint="Repair or remove that image.",
            )
        places = self._positions((h, w))
        return fields, np.stack([places[(slice(None), *w)] for w in windows])

    def _positions(self, shape: tuple[int, int]) -> Floats:
        """Position channels ``(n_positions, h, w)`` of a whole image."""
        if self.coordinates is not None:
            return np.asarray(self.coordinates(shape), np.float32)
        axes = [(np.arange(n) - (n - 1) / 2) / _PIXELS_PER_UNIT for n in shape]
        return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)


def training_fields(
    path: str | Path,
    variable: str,
    *,
    size: int,
    batch_size: int,
    seed: int = 0,
    scale: float = 1.0,
    offset: float = 0.0,
    coordinates: Callable[[tuple[int, ...]], Tensor] | None = None,
) -> ZarrBatches:
    """The ``batches(step)`` of a training run over the array ``variable`` of a Zarr store.

    Args:
        path: the Zarr store.
        variable: name of an array ``(n, y, x)`` in it, float or complex.
        size: side of the square crops in pixels, at most that of the images.
        batch_size: crops per batch.
        seed: of the crops.
        scale: units of the images in one network unit.
        offset: value of the images that is zero to the network.
        coordinates: position channels of a whole image; see `ZarrBatches`.

    Raises:
        InputError: a store or an array that is not there, a packed array, or numbers that are not
            possible.
        ShapeError: not ``(n, y, x)``, or images smaller than the crops.
        DTypeError: neither float nor complex.
    """
    batches = ZarrBatches(str(path), variable, size, batch_size, seed, scale, offset, coordinates)
    _images(batches)
    return batches


def _images(batches: ZarrBatches) -> zarr.Array[Any]:
    """The array, opened and checked; nothing of it is read."""
    import zarr

    path, name = batches.path, batches.variable
    try:
        group = zarr.open_group(path, mode="r")
    except (OSError, ValueError) as error:  # zarr's own errors are ValueErrors
        raise InputError(
            f"{path} cannot be opened as a Zarr group",
            got=error,
            expected="a Zarr store",
            hint="Give the path of the store, not that of an array within it.",
        ) from error
    images = group.get(name)
    if not isinstance(images, zarr.Array):
        raise InputError(
            f"{path} has no array {name!r}",
            got=f"arrays {sorted(group.array_keys())}",
            expected=f"an array {name!r}",
            hint="Choose one of these.",
        )
    if images.ndim != 3 or images.shape[0] < 1 or min(images.shape[1:]) < batches.size:
        raise ShapeError(
            f"no crops can be drawn from {name!r}",
            got=f"shape {images.shape}",
            expected=f"(n, y, x) with y, x >= size = {batches.size}",
            hint="Draw smaller crops, or give the images as one array of three axes.",
        )
    if images.dtype.kind not in "fc":
        raise DTypeError(
            f"images {name!r} are not floating-point",
            got=images.dtype,
            expected="float or complex",
            hint="Convert them with .astype('float32').",
        )
    packed = {"scale_factor", "add_offset"} & set(images.attrs)
    if packed:
        raise InputError(
            f"images {name!r} are packed",
            got=f"attributes {sorted(packed)}",
            expected="values as they are",
            hint="Write them unpacked: dataset.drop_encoding().to_zarr(...).",
        )
    return images
