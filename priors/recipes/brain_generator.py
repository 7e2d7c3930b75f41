"""Synthetic T1-like complex brain slices drawn from label maps with randomised contrast."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from invdiff.errors import InputError

__all__ = ["BrainGenerator", "LabelMaps"]

Floats = NDArray[np.float32]
Range = tuple[float, float]

# FreeSurfer: right-hemisphere id -> left-hemisphere id, so that both sides share one intensity.
_RIGHT_TO_LEFT = {
    41: 2, 42: 3, 43: 4, 44: 5, 46: 7, 47: 8, 49: 10, 50: 11, 51: 12, 52: 13,
    53: 17, 54: 18, 58: 26, 60: 28, 62: 30, 163: 136, 164: 137,
}  # fmt: skip
_FLUID = frozenset({4, 5, 14, 15, 24, 72})
_OUTER_CSF = 24
_FIRST_OUTER_ID = 500
_SOFT_TISSUE = 507
_BONE = 515
_MARROW = 516
_FAT = 1000  # no FreeSurfer id: the label maps do not tell fat from muscle
# Position of each tissue between cortex (0) and white matter (1) on the T1 intensity axis.
_WHITENESS = {
    2: 1.0, 3: 0.0, 7: 0.95, 8: 0.0, 10: 0.55, 11: 0.15, 12: 0.3, 13: 0.7, 16: 0.8,
    17: 0.0, 18: 0.0, 25: 0.3, 26: 0.15, 28: 0.7, 85: 0.6,
    136: 0.3, 137: 0.3,
}  # fmt: skip
# Outside the brain: muscle and other soft tissue, skin, eyes, veins.
_OUTER_RANGES: dict[int, Range] = {
    _SOFT_TISSUE: (0.3, 0.75), 511: (0.35, 0.9), 506: (0.1, 0.35), 514: (0.1, 0.5),
}  # fmt: skip
_MM_PER_UNIT = 112.0


@lru_cache(maxsize=256)
def _spline_basis(n: int, spacing: int) -> Floats:
    """Cubic B-spline basis, shape (n, n_knots), knots every `spacing` of the n samples."""
    n_knots = n // spacing + 4
    t = np.abs(np.arange(n)[:, None] / spacing + 1 - np.arange(n_knots)[None, :])
    near = 2 / 3 - t**2 + t**3 / 2
    far = np.clip(2 - t, 0, None) ** 3 / 6
    return np.where(t < 1, near, far).astype(np.float32)


def _smooth_field(rng: np.random.Generator, shape: tuple[int, int], spacing: int) -> Floats:
    """Gaussian field of about unit std, smooth over `spacing` samples, shape `shape`."""
    rows, cols = _spline_basis(shape[0], spacing), _spline_basis(shape[1], spacing)
    knots = rng.standard_normal((rows.shape[1], cols.shape[1]), dtype=np.float32)
    # 151/315 = integral of B(t)^2 is the variance lost per axis, hence the std lost over two.
    return np.asarray(rows @ knots @ cols.T / np.float32(151 / 315), np.float32)


def _sample_halved(tissue: Floats, rows: Floats, cols: Floats) -> Floats:
    """Bilinear samples of tissue (h, w, c) at rows, cols (2m, 2n), averaged to (m, n, c).

    Interpolating intensities rather than picking labels is what gives partial volume.
    """
    h, w, n_channels = tissue.shape
    # Beyond the slice lies air: one zero pixel on each side.
    flat = np.pad(tissue, ((1, 1), (1, 1), (0, 0))).reshape(-1, n_channels)
    rows, cols = np.clip(rows + 1, 0, h + 0.999), np.clip(cols + 1, 0, w + 0.999)
    i, j = rows.astype(np.int32), cols.astype(np.int32)
    v, u = (rows - i)[..., None], (cols - j)[..., None]
    corner = i * (w + 2) + j
    top = flat[corner] * (1 - u) + flat[corner + 1] * u
    bottom = flat[corner + w + 2] * (1 - u) + flat[corner + w + 3] * u
    fine = top * (1 - v) + bottom * v
    total = fine[::2, ::2] + fine[1::2, ::2] + fine[::2, 1::2] + fine[1::2, 1::2]
    return np.asarray(total / 4, np.float32)


@dataclass(frozen=True, eq=False, repr=False)
class LabelMaps:
    """Axial label slices with left-right along the rows and anterior at the last column.

    Pixels are squares of 1 mm.

    Args:
        labels: indices into ``lut``, uint8 ``(n, h, w)``.
        lut: FreeSurfer ids, integers ``(k,)``.
        subject: number of the subject that each slice is of, ``(n,)``.

    Raises:
        InputError: shapes that disagree, or a label that has no entry in ``lut``.
    """

    labels: NDArray[np.uint8]
    lut: NDArray[np.integer[Any]]
    subject: NDArray[np.integer[Any]]

    def __post_init__(self) -> None:
        labels, lut, subject = self.labels, self.lut, self.subject
        if labels.ndim != 3 or labels.dtype != np.uint8 or labels.size == 0:
            raise InputError(
                "the labels are not a stack of label slices",
                got=f"{labels.dtype} of shape {labels.shape}",
                expected="non-empty uint8 of shape (n, h, w)",
                hint="Stack the slices along the first axis and index them into the lut.",
            )
        if lut.ndim != 1 or not np.issubdtype(lut.dtype, np.integer) or labels.max() >= lut.size:
            raise InputError(
                "the lut does not give an id to each label",
                got=f"{lut.dtype} of shape {lut.shape} for labels up to {labels.max()}",
                expected="integer ids of shape (k,), k above the largest label",
                hint="List one FreeSurfer id per label index.",
            )
        if subject.shape != labels.shape[:1]:
            raise InputError(
                "the subjects do not fit the slices",
                got=f"shape {subject.shape}",
                expected=f"shape {labels.shape[:1]}",
                hint="Give one subject number per slice.",
            )

    def __repr__(self) -> str:
        n, h, w = self.labels.shape
        n_subjects = np.unique(self.subject).size
        return f"LabelMaps({n} slices of {h}x{w}, {self.lut.size} labels, {n_subjects} subjects)"

    @classmethod
    def load(cls, path: str | Path) -> LabelMaps:
        """Read an ``.npz`` file of the arrays ``labels``, ``lut`` and ``subject``.

        Raises:
            InputError: an array is missing from the file.
        """
        with np.load(path) as archive:
            missing = {"labels", "lut", "subject"} - set(archive.files)
            if missing:
                raise InputError(
                    f"an array is missing from the label file {path}",
                    got=f"arrays {sorted(archive.files)}",
                    expected="arrays labels, lut, subject",
                    hint=f"Save the missing {sorted(missing)} with numpy.savez.",
                )
            return cls(archive["labels"], archive["lut"], archive["subject"])

    def of_subjects(self, ids: Iterable[int]) -> LabelMaps:
        """The slices of some of the subjects.

        Raises:
            InputError: a subject has no slice.
        """
        wanted = sorted(set(ids))
        present = sorted(set(self.subject.tolist()))
        if not wanted or not set(wanted) <= set(present):
            raise InputError(
                "these subjects have no slices",
                got=wanted,
                expected=f"some of {present}",
                hint="Choose among these.",
            )
        chosen = np.isin(self.subject, wanted)
        return LabelMaps(self.labels[chosen], self.lut, self.subject[chosen])


@dataclass(frozen=True)
class BrainGenerator:
    """Domain-randomised complex slices ``x = s (w + f exp(i psi)) exp(i phase)``, pixels of 1 mm.

    ``w`` and ``f`` are the water and the fat of the labels; ``psi`` is the angle between them, one
    for an image: fat precesses 3.4 ppm slower, so that it depends on field and echo time. Every
    draw is a function of ``(seed, index)`` alone. Intensities are made on a grid twice as
    fine and averaged, which gives partial volume at tissue borders. The foreground of an image is
    ``|x| > 0.1 max|x|``. Reference: Billot et al., SynthSeg, Medical Image Analysis 86 (2023)
    102789.

    Args:
        maps: label slices to draw from.
        quarter_turns: of the maps; one puts anterior at the top, and ``(h, w)`` is the shape after.
        contrast_random_fraction: share of images whose tissues have random intensities.
        skull_strip_fraction: share of images of the brain alone.
        warp_std: range of the standard deviation of the bend, pixels.
        warp_scale: range of the spacing of its knots, pixels.
        max_rotation: largest rotation, degrees.
        zoom_range: range of the magnification.
        max_shift: largest shift along each axis, pixels.
        blur_range: range of the standard deviation of the blur, pixels.
        bias_strength: largest standard deviation of the logarithm of the gain field.
        gamma_range: range of the exponent of the intensities.
        texture_std: range of the standard deviation of the fine texture.
        outer_texture: range of the patchiness outside of the brain, relative to its intensity.
        fat_level: range of the intensity of fat, where white matter has .78 to .92.
        fat_share: range of the share of fat in the soft tissue outside of the skull; the rest of
            it, further from the skin by trend, is muscle.
        fat_phase_fraction: share of images whose fat is displaced and out of phase with water.
        max_fat_shift: largest displacement of fat, pixels.
        marrow_fraction: share of images with fatty marrow all through the thick bone.
        phase_strength: largest deviation of the phase from its mean, rad.
        phase_scale: range of the knots of its slow part, relative to the longer side.
        flat_phase_fraction: share of images of nearly constant phase.
        scale_range: range of the 99th percentile of ``|x|`` over the foreground.
        uniform_patch_fraction: share of patches that lie anywhere, foreground or not.

    Raises:
        InputError: a fraction outside [0, 1], a reversed range or a negative number.
    """

    maps: LabelMaps
    quarter_turns: int = 1
    contrast_random_fraction: float = 0.3
    skull_strip_fraction: float = 0.35
    warp_std: Range = (0.5, 2.0)
    warp_scale: tuple[int, int] = (10, 28)
    max_rotation: float = 12.0
    zoom_range: Range = (0.9, 1.1)
    max_shift: float = 8.0
    blur_range: Range = (0.0, 0.8)
    bias_strength: float = 0.25
    gamma_range: Range = (0.8, 1.25)
    texture_std: Range = (0.02, 0.04)
    outer_texture: Range = (0.1, 0.5)
    fat_level: Range = (0.7, 1.7)
    fat_share: Range = (0.3, 1.0)
    fat_phase_fraction: float = 0.6
    max_fat_shift: float = 2.0
    marrow_fraction: float = 0.5
    phase_strength: float = 2.0
    phase_scale: Range = (0.12, 0.33)
    flat_phase_fraction: float = 0.25
    scale_range: Range = (0.8, 1.2)
    uniform_patch_fraction: float = 0.1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith("_fraction") and not 0 <= value <= 1:
                raise InputError(
                    f"{name} is not a share", got=value, expected="[0, 1]", hint="Give a fraction."
                )
            if isinstance(value, tuple) and not 0 <= value[0] <= value[1]:
                raise InputError(
                    f"{name} is not a range",
                    got=value,
                    expected="0 <= low <= high",
                    hint="Order the two bounds.",
                )
            if isinstance(value, float) and value < 0:
                raise InputError(
                    f"{name} is negative", got=value, expected=">= 0", hint="Give its magnitude."
                )
        for name in ("zoom_range", "warp_scale", "gamma_range", "scale_range", "phase_scale"):
            if getattr(self, name)[0] <= 0:
                raise InputError(
                    f"{name} reaches zero",
                    got=getattr(self, name),
                    expected="low > 0",
                    hint="Raise the lower bound.",
                )

    def image(self, seed: int, index: int) -> NDArray[np.complex64]:
        """Draw number ``index``: complex64 ``(h, w)``, of magnitude about 1 in the foreground."""
        rng = np.random.default_rng((seed, index))
        total, fat = self._tissue(rng)
        image = total - fat + self._fat_signal(rng, fat)
        magnitude = np.abs(image)
        foreground = magnitude[magnitude > 0.1 * magnitude.max()]
        # A slice without any tissue stays zero: there is nothing to scale.
        level = np.percentile(foreground, 99) if foreground.size else 1.0
        phase = self._phase(rng, image.shape)
        return np.asarray(
            image * np.exp(1j * phase) * (rng.uniform(*self.scale_range) / level), np.complex64
        )

    def patches(
        self, seed: int, index: int, size: int, *, n: int = 1
    ) -> tuple[NDArray[np.complex64], Floats]:
        """Crops of one image, complex64 ``(n, size, size)``, and positions ``(n, 2, size, size)``.

        ``position = (row - (h-1)/2, col - (w-1)/2) / 112``. Most crops hold at least one foreground
        pixel, a share ``uniform_patch_fraction`` lies anywhere; outside the image is 0.

        Raises:
            InputError: size or n below 1.
        """
        if size < 1 or n < 1:
            raise InputError(
                "a crop needs pixels",
                got=f"size={size}, n={n}",
                expected="both >= 1",
                hint="Ask for one pixel or more.",
            )
        image = self.image(seed, index)
        rng = np.random.default_rng((seed, index, size, n))
        corners = self._corners(rng, image, size, n)
        padded = np.pad(image, size)
        steps = np.arange(size)
        rows = corners[:, :1] + steps
        cols = corners[:, 1:] + steps
        crops = padded[(rows + size)[:, :, None], (cols + size)[:, None, :]]
        h, w = image.shape
        position = np.empty((n, 2, size, size), np.float32)
        position[:, 0] = ((rows - (h - 1) / 2) / _MM_PER_UNIT)[:, :, None]
        position[:, 1] = ((cols - (w - 1) / 2) / _MM_PER_UNIT)[:, None, :]
        return crops, position

    def _corners(
        self, rng: np.random.Generator, image: NDArray[np.complex64], size: int, n: int
    ) -> NDArray[np.int64]:
        """First row and column of each crop, (n, 2), from -size + 1 up to h - 1, w - 1."""
        h, w = image.shape
        magnitude = np.abs(image)
        inside = np.argwhere(magnitude > 0.1 * magnitude.max())
        anywhere = rng.integers(-(size // 2), [h - size // 2, w - size // 2], size=(n, 2))
        uniform = rng.random(n) < self.uniform_patch_fraction
        if not len(inside):
            return anywhere
        held = inside[rng.integers(len(inside), size=n)] - rng.integers(size, size=(n, 2))
        return np.where(uniform[:, None], anywhere, held)

    def _kept(self, rng: np.random.Generator, ids: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Mask (h, w) of the pixels with tissue: the head, or the brain when skull-stripped."""
        if rng.random() >= self.skull_strip_fraction:
            return ids > 0
        brain = (ids > 0) & (ids < _FIRST_OUTER_ID)
        variety = rng.integers(3)
        if variety:
            # Brain extraction tools differ in how much of the outer fluid they keep.
            brain &= ids != _OUTER_CSF
            brain = ndimage.binary_closing(brain, iterations=2)
        if variety == 2:
            brain = ndimage.binary_dilation(brain, iterations=int(rng.integers(1, 4)))
        return np.asarray(ndimage.binary_fill_holes(brain), np.bool_)

    def _coordinates(self, rng: np.random.Generator, h: int, w: int) -> tuple[Floats, Floats]:
        """Where each fine pixel (2h, 2w) comes from: flip, rotation, zoom, shift and bend."""
        angle = np.deg2rad(rng.uniform(-self.max_rotation, self.max_rotation))
        zoom = rng.uniform(*self.zoom_range) * rng.uniform(0.97, 1.03, size=2)
        left_right = rng.choice([-1.0, 1.0])
        shift = rng.uniform(-self.max_shift, self.max_shift, size=2)
        y = ((np.arange(2 * h) + 0.5) / 2 - h / 2 - shift[0])[:, None]
        x = ((np.arange(2 * w) + 0.5) / 2 - w / 2 - shift[1])[None, :]
        c, s = np.cos(angle), np.sin(angle)
        rows = (c * y - s * x) / zoom[0] + (h - 1) / 2
        cols = left_right * (s * y + c * x) / zoom[1] + (w - 1) / 2
        std = np.float32(rng.uniform(*self.warp_std))
        spacing = 2 * int(rng.integers(self.warp_scale[0], self.warp_scale[1] + 1))
        bend_rows = std * _smooth_field(rng, (2 * h, 2 * w), spacing)
        bend_cols = std * _smooth_field(rng, (2 * h, 2 * w), spacing)
        return rows.astype(np.float32) + bend_rows, cols.astype(np.float32) + bend_cols

    def _fat_signal(self, rng: np.random.Generator, fat: Floats) -> NDArray[np.complexfloating]:
        """Fat (h, w) as the scanner sees it: displaced along one axis, and turned in phase."""
        if rng.random() >= self.fat_phase_fraction:
            return fat + 0j
        displacement = np.zeros(2)
        displacement[rng.integers(2)] = rng.uniform(-self.max_fat_shift, self.max_fat_shift)
        displaced = ndimage.shift(fat, displacement, order=1)
        return np.asarray(displaced * np.exp(1j * rng.uniform(-np.pi, np.pi)))

    def _fatty(self, rng: np.random.Generator, labels: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Rows of `_contrast` for labels (h, w), with fat and marrow told by where they lie."""
        rows, ids = labels.astype(np.int64), self.maps.lut[labels]
        soft, bone = ids == _SOFT_TISSUE, ids == _BONE
        share, n_eroded = rng.uniform(*self.fat_share), int(rng.integers(1, 3))
        field = _smooth_field(rng, ids.shape, int(rng.integers(4, 17)))
        depth = ndimage.distance_transform_edt(ids > 0) / rng.uniform(4, 40)
        if soft.any():
            score = field + depth
            rows[soft & (score <= np.quantile(score[soft], share))] = len(self.maps.lut)
        if rng.random() < self.marrow_fraction:
            rows[ndimage.binary_erosion(bone, iterations=n_eroded)] = len(self.maps.lut) + 1
        return rows

    def _tissue(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Water with fat, and fat alone, (h, w): tissue, warp, texture, blur, gamma, bias."""
        labels = self.maps.labels[rng.integers(len(self.maps.labels))]
        labels = np.rot90(labels, self.quarter_turns)
        kept = self._kept(rng, self.maps.lut[labels])
        tissue = self._contrast(rng)[self._fatty(rng, labels)] * kept[..., None]
        shape = (labels.shape[0], labels.shape[1])
        total, grain, patchiness, fat = np.moveaxis(
            _sample_halved(tissue, *self._coordinates(rng, *shape)), -1, 0
        )
        share = fat / np.maximum(total, np.float32(1e-6))
        white = rng.standard_normal(shape, dtype=np.float32)
        fine = np.float32(0.5) * white + np.float32(0.87) * _smooth_field(rng, shape, 2)
        spots = _smooth_field(rng, shape, int(rng.integers(3, 6)))
        spots = np.tanh(spots + _smooth_field(rng, shape, int(rng.integers(6, 14))))
        total = total + grain * fine + patchiness * spots
        blur = rng.uniform(*self.blur_range)
        total, fat = (ndimage.gaussian_filter(x, blur, truncate=3) for x in (total, share * total))
        share = np.clip(fat / np.maximum(total, np.float32(1e-6)), 0, 1)
        # Texture may push fluid and bone slightly below zero, which a magnitude cannot be.
        total = np.maximum(total, 0) ** np.float32(rng.uniform(*self.gamma_range))
        bias = _smooth_field(rng, shape, max(max(shape) // 3, 1))
        total = total * np.exp(rng.uniform(0, self.bias_strength) * bias)
        return np.asarray(total, np.float32), np.asarray(share * total, np.float32)

    def _contrast(self, rng: np.random.Generator) -> Floats:
        """Mean, fine-grained std, smooth patchiness and fat of each label, of fat and of marrow.

        Shape (k + 2, 4).
        """
        labels = [_RIGHT_TO_LEFT.get(raw, raw) for raw in self.maps.lut.tolist()]
        labels += [_FAT, _MARROW]
        white, grey = rng.uniform(0.78, 0.92), rng.uniform(0.45, 0.65)
        fluid = rng.uniform(0.04, 0.2)
        is_random = rng.random() < self.contrast_random_fraction
        fat = rng.uniform(*self.fat_level)
        by_id: dict[int, tuple[float, float, float, float]] = {0: (0.0, 0.0, 0.0, 0.0)}
        for label in labels:
            if label not in by_id:
                if label in (_FAT, _MARROW):
                    level = fat * (rng.uniform(0.4, 1.0) if label == _MARROW else 1.0)
                elif is_random:
                    level = rng.uniform(0.03, 1.0)
                elif label in _WHITENESS:
                    level = grey + _WHITENESS[label] * (white - grey) + rng.normal(0, 0.02)
                elif label in _FLUID:
                    level = max(fluid + rng.normal(0, 0.02), 0.02)
                elif label == _BONE:
                    level = rng.uniform(0.01, 0.06)
                else:
                    level = rng.uniform(*_OUTER_RANGES.get(label, (0.2, 0.9)))
                outer = label >= _FIRST_OUTER_ID
                patchy = level * rng.uniform(*self.outer_texture) if outer else 0.01
                grain, fatty = rng.uniform(*self.texture_std), label in (_FAT, _MARROW)
                by_id[label] = (level, grain, patchy, level if fatty else 0.0)
        return np.array([by_id[label] for label in labels], np.float32)

    def _phase(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        """Cubic polynomial plus a slow field, at most `strength` rad, plus a global phase."""
        h, w = shape
        powers = np.arange(4)
        coefficients = rng.standard_normal((4, 4)) * (powers[:, None] + powers <= 3)
        y = np.linspace(-1, 1, h)[:, None] ** powers
        x = np.linspace(-1, 1, w)[:, None] ** powers
        field = y @ coefficients @ x.T
        spacing = max(round(max(h, w) * rng.uniform(*self.phase_scale)), 1)
        field += rng.uniform(0, 1) * _smooth_field(rng, (h, w), spacing)
        field -= field.mean()
        is_flat = rng.random() < self.flat_phase_fraction
        strength = self.phase_strength * rng.uniform(0, 0.05 if is_flat else 1.0)
        field *= strength / max(float(np.abs(field).max()), 1e-6)
        return (field + rng.uniform(0, 2 * np.pi)).astype(np.float32)
