"""Random crops of the images of a Zarr array, for the training loop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from invdiff.errors import DTypeError, InputError, NonFiniteError, ShapeError

if TYPE_CHECKING:
    import zarr

__all__ = ["ZarrBatches", "training_fields"]

Floats = NDArray[np.float32]

# The unit of positions in the brain prior: 112 pixels, half its field of view.
_PIXELS_PER_UNIT = 112.0


@dataclass(frozen=True)
class ZarrBatches:
    """Batch of a step: random crops, a function of ``(seed, step)`` and the array alone.

    Picklable: the array is opened where the batch is drawn, and only the crops are read.

    Args:
        path: the Zarr store.
        variable: name of an array ``(n, y, x)`` in it, float or complex, read as stored.
        size: side of the square crops, which lie inside the images.
        batch_size: crops a batch, each of an image drawn with replacement.
        seed: of the crops.

    Raises:
        InputError: a size, batch size or seed that is not possible.
    """

    path: str
    variable: str
    size: int
    batch_size: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or self.batch_size < 1 or self.seed < 0:
            raise InputError(
                "these crops cannot be drawn", got=self, expected="size, batch_size >= 1, seed >= 0"
            )

    def __call__(self, step: int) -> tuple[Floats, Floats]:
        """Fields ``(b, channels, size, size)`` and positions ``(b, 2, size, size)``, float32.

        ``position = (row - (h-1)/2, col - (w-1)/2) / 112``; channels are the value, or the real and
        imaginary parts of a complex one.

        Raises:
            NonFiniteError: NaN or Inf in a crop, or values beyond float32.
        """
        images = _images(self)
        n, h, w = images.shape
        rng = np.random.default_rng((self.seed, step))
        index = rng.integers(n, size=self.batch_size)
        top = rng.integers(h - self.size + 1, size=self.batch_size)
        left = rng.integers(w - self.size + 1, size=self.batch_size)
        corners = zip(index.tolist(), top.tolist(), left.tolist(), strict=True)
        crops = np.stack(
            [np.asarray(images[i, y : y + self.size, x : x + self.size]) for i, y, x in corners]
        )
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
        return fields, self._positions(top, left, (h, w))

    def _positions(
        self, top: NDArray[np.int64], left: NDArray[np.int64], shape: tuple[int, int]
    ) -> Floats:
        positions = np.empty((self.batch_size, 2, self.size, self.size), np.float32)
        steps = np.arange(self.size)
        rows = top[:, None] + steps - (shape[0] - 1) / 2
        cols = left[:, None] + steps - (shape[1] - 1) / 2
        positions[:, 0] = (rows / _PIXELS_PER_UNIT)[:, :, None]
        positions[:, 1] = (cols / _PIXELS_PER_UNIT)[:, None, :]
        return positions


def training_fields(
    path: str | Path, variable: str, *, size: int, batch_size: int, seed: int = 0
) -> ZarrBatches:
    """The ``batches(step)`` of a training run over the array ``variable`` of a Zarr store.

    Raises:
        InputError: no such array, a packed one, or numbers that are not possible.
        ShapeError: not ``(n, y, x)``, or images smaller than the crops.
        DTypeError: neither float nor complex.
    """
    batches = ZarrBatches(str(path), variable, size, batch_size, seed)
    _images(batches)
    return batches


def _images(batches: ZarrBatches) -> zarr.Array[Any]:
    """The array, opened and checked; nothing of it is read."""
    import zarr

    path, name = batches.path, batches.variable
    try:
        group = zarr.open_group(path, mode="r")
    except (OSError, ValueError) as error:  # zarr's own errors are ValueErrors
        raise InputError(f"{path} cannot be opened as a Zarr group", got=error) from error
    images = group.get(name)
    if not isinstance(images, zarr.Array):
        raise InputError(
            f"{path} has no array {name!r}", got=f"arrays {sorted(group.array_keys())}"
        )
    if images.ndim != 3 or images.shape[0] < 1 or min(images.shape[1:]) < batches.size:
        raise ShapeError(
            f"no crops can be drawn from {name!r}",
            got=f"shape {images.shape}",
            expected=f"(n, y, x) with y, x >= size = {batches.size}",
        )
    if images.dtype.kind not in "fc":
        raise DTypeError(
            f"images {name!r} are not floating-point", got=images.dtype, expected="float or complex"
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
