"""Multi-coil Cartesian MRI in 2-D and 3-D."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from invdiff.errors import DTypeError, ShapeError
from invdiff.grid import Grid, check_finite
from invdiff.operators.base import Linear
from invdiff.operators.inputs import as_mask, as_tensor

__all__ = ["CartesianMRI", "check_sensitivity"]

_DIMS = {2: ("y", "x"), 3: ("z", "y", "x")}
# Complex values that the gram of a GPU holds at once; more coils go one after the other.
_MAX_VALUES = 2**22


class CartesianMRI(Linear):
    r"""Undersampled Cartesian k-space of a complex image, seen by several coils (SENSE).

    .. math:: y_c = M F (S_c x), \qquad
              A^H y = \sum_c \overline{S_c} F^H M y_c, \qquad
              A^H A x = \sum_c \overline{S_c} F^H M F S_c x

    with ``F`` the centred unitary DFT over the image axes (zero frequency at ``n // 2``, any
    parity), ``S_c`` the coil sensitivities and ``M`` the sampling mask. Samples that were not
    acquired are zero in the data and ignored in what the adjoint is given.

    Assumptions: an image that does not change during the scan, samples on the Cartesian grid
    (regrid radial or spiral ones first), no off-resonance, and the same mask for all coils.
    Noise that is correlated between coils is whitened before: see
    `invdiff.operators.mri.prewhiten`.

    Cost: two FFTs per coil for the gram, over the axes on which the mask varies (one axis for
    lines), without shifts. ``A^H A`` is diagonal in the DFT for a single coil without a map, and
    then solves are exact; otherwise `gram_spectrum` preconditions conjugate gradients.

    Args:
        mask: acquired samples, boolean or zeros and ones, centred layout, ``(*image)`` or
            broadcastable to it (lines along x: ``(1, n_x)``).
        sensitivity: complex maps ``(n_coils, *image)``; None for one coil of uniform sensitivity,
            whose data have no coil dim.
        domain: grid of the image; by default dims ``y, x`` or ``z, y, x``, in the dtype of the
            maps, complex64 without maps.

    Raises:
        ShapeError: mask, sensitivity and domain that do not fit together.
        DTypeError: a real sensitivity or domain.
        NonFiniteError: NaN or Inf in mask or sensitivity.
        InputError: an empty mask.

    References:
        Pruessmann et al. (1999), SENSE: Sensitivity encoding for fast MRI,
        doi:10.1002/(SICI)1522-2594(199911)42:5<952::AID-MRM16>3.0.CO;2-S

    Examples:
        >>> import torch
        >>> from invdiff.operators.mri import CartesianMRI, birdcage, random_lines
        >>> mask = random_lines((32, 32), 2, calibration=8, seed=0)
        >>> operator = CartesianMRI(mask, birdcage((32, 32), 4))
        >>> operator, operator.n_data
        (CartesianMRI(4 coils, 32x32, R=2.00), 2048)
        >>> image = torch.zeros(1, 32, 32, dtype=torch.complex64)
        >>> image[:, 8:24, 8:24] = 1.0
        >>> kspace = operator(image)
        >>> kspace.shape
        torch.Size([1, 4, 32, 32])

        The regularised SENSE image ``(A^H A + rho)^(-1) A^H y``:

        >>> sense = operator.solve(operator.adjoint(kspace), 1e-3, 1.0, max_iterations=50)
        >>> bool((sense - image).norm() < 0.1 * image.norm())
        True
    """

    def __init__(
        self, mask: Tensor, sensitivity: Tensor | None = None, *, domain: Grid | None = None
    ) -> None:
        mask = as_tensor(mask, "mask")
        check_finite(mask, "mask")
        if sensitivity is not None:
            sensitivity = as_tensor(sensitivity, "sensitivity")
            check_sensitivity(sensitivity)
        domain = domain or _default_domain(mask, sensitivity)
        if not domain.is_complex:
            raise DTypeError(
                "an MR image is complex",
                got=domain.dtype,
                expected="a complex domain",
                hint="Use domain.with_dtype(torch.complex64).",
            )
        if sensitivity is not None and tuple(sensitivity.shape[1:]) != domain.shape:
            raise ShapeError(
                "sensitivity does not fit the image",
                got=tuple(sensitivity.shape),
                expected=f"(n_coils, {', '.join(map(str, domain.shape))})",
                hint="Crop, pad or transpose it as the image was.",
            )
        dims, shape = tuple(f"k{dim}" for dim in domain.dims), domain.shape
        if sensitivity is not None:
            dims, shape = ("coil", *dims), (sensitivity.shape[0], *shape)
        super().__init__(domain, Grid(dims, shape, domain.dtype))

        self.mask = as_mask(mask, domain.shape)
        self.sensitivity = None if sensitivity is None else sensitivity.to(domain.dtype)
        self.n_coils = 1 if sensitivity is None else int(sensitivity.shape[0])
        self._n_samples = int(self.mask.sum())
        # Origins at n // 2 as phases on both sides of the DFT, which copy less than shifts do.
        self._axes = tuple(range(-domain.ndim, 0))
        self._image_phase, kspace_phase = _centring(domain)
        self._masked_phase = self.mask * kspace_phase
        # The DFT along an axis on which the mask does not vary cancels in the gram (the readout).
        self._gram_axes = tuple(
            axis - domain.ndim
            for axis in range(domain.ndim)
            if not (self.mask == self.mask.narrow(axis, 0, 1)).all()
        )
        self._gram_mask = torch.fft.ifftshift(self.mask)
        for axis in range(-domain.ndim, 0):
            if axis not in self._gram_axes:
                self._gram_mask = self._gram_mask.narrow(axis, 0, 1)
        self._gram_mask = self._gram_mask.to(domain.real_dtype)

    @property
    def measured(self) -> Tensor:
        """The mask expanded to the range: True where a sample of a coil was acquired."""
        return self.mask.expand(self.range.shape)

    @property
    def n_data(self) -> int:
        """Number of acquired samples, over all coils."""
        return self.n_coils * self._n_samples

    @property
    def acceleration(self) -> float:
        """Grid points in k-space per acquired sample."""
        return self.domain.size / self._n_samples

    def _forward(self, x: Tensor) -> Tensor:
        turned = self._image_phase * x
        coil_images = turned if self.sensitivity is None else self.sensitivity * turned[:, None]
        y: Tensor = torch.fft.fftn(coil_images, dim=self._axes, norm="ortho")
        return y.mul_(self._masked_phase)

    def _adjoint(self, y: Tensor) -> Tensor:
        kept = y * self._masked_phase.conj()
        images: Tensor = torch.fft.ifftn(kept, dim=self._axes, norm="ortho")
        if self.sensitivity is not None:
            images = (self.sensitivity.conj() * images).sum(1)
        return self._image_phase.conj() * images

    def gram(self, x: Tensor) -> Tensor:
        """``sum_c conj(S_c) F^H M F S_c x`` without shifts.

        ``F^H M F`` commutes with translations, so the image-side shifts cancel for every parity.
        """
        self.domain.check(x, name="field")
        if self.sensitivity is None:
            return self._filter(x)
        # One coil after the other stays in a processor's cache; a GPU takes many at once.
        n_at_once = 1 if x.device.type == "cpu" else max(1, _MAX_VALUES // x.numel())
        result = torch.zeros_like(x)
        maps: Tensor
        for maps in self.sensitivity.split(n_at_once):
            for sensitivity, image in zip(
                maps, self._filter(maps * x[:, None]).unbind(1), strict=True
            ):
                result.addcmul_(sensitivity.conj(), image)
        return result

    def _filter(self, x: Tensor) -> Tensor:
        if not self._gram_axes:
            return x  # everything is acquired
        kept = torch.fft.fftn(x, dim=self._gram_axes).mul_(self._gram_mask)
        filtered: Tensor = torch.fft.ifftn(kept, dim=self._gram_axes)
        return filtered

    @cached_property
    def gram_spectrum(self) -> Tensor:
        """Exact diagonal ``sum_c sum_k' M[k'] |fft(S_c)[k' - k]|^2 / N^2``."""
        mask: Tensor = torch.fft.ifftshift(self.mask).to(self.domain.real_dtype)
        if self.sensitivity is None:
            return mask
        axes = tuple(range(-self.domain.ndim, 0))
        # Sum over coils one by one: 3-D maps are large.
        power = torch.zeros_like(mask)
        for maps in self.sensitivity:
            power += torch.fft.fftn(maps).abs().square()
        power /= self.domain.size**2
        correlation = torch.fft.fftn(mask, dim=axes) * torch.fft.fftn(power, dim=axes).conj()
        # A sum of squares; the FFT may leave it below zero by a rounding error.
        diagonal: Tensor = torch.fft.ifftn(correlation, dim=axes).real.clamp_min(0)
        return diagonal

    @property
    def is_circulant(self) -> bool:
        """True for a single coil of uniform sensitivity: ``A^H A`` is then diagonal in the DFT."""
        return self.sensitivity is None

    def __repr__(self) -> str:
        coils = "1 coil" if self.n_coils == 1 else f"{self.n_coils} coils"
        size = "x".join(map(str, self.domain.shape))
        return f"CartesianMRI({coils}, {size}, R={self.acceleration:.2f})"


def check_sensitivity(sensitivity: Tensor) -> None:
    """Refuse what is not one set of coil maps, ``(n_coils, *image)``, complex and finite."""
    if not sensitivity.is_complex():
        raise DTypeError(
            "sensitivity is real",
            got=sensitivity.dtype,
            expected="complex values",
            hint="Convert it with sensitivity.to(torch.complex64) if its phase is zero.",
        )
    if sensitivity.ndim not in (3, 4):
        raise ShapeError(
            "sensitivity does not look like coil maps",
            got=tuple(sensitivity.shape),
            expected="(n_coils, y, x) or (n_coils, z, y, x)",
            hint="Give a single coil an axis of length 1.",
        )
    check_finite(sensitivity, "sensitivity")


def _centring(domain: Grid) -> tuple[Tensor, Tensor]:
    """Phases of image and k-space that make a plain DFT a centred one.

    ``exp(-2 pi i (k - c)(n - c) / N)`` is the DFT's ``exp(-2 pi i k n / N)`` times
    ``exp(2 pi i c n / N)`` and ``exp(2 pi i c (k - c) / N)``.
    """
    image = kspace = torch.zeros((), dtype=torch.float64)
    for n in domain.shape:
        c, index = n // 2, torch.arange(n)
        # Whole turns are taken out exactly, before they are rounded.
        image = image[..., None] + (c * index % n).double() / n
        kspace = kspace[..., None] + (c * (index - c) % n).double() / n
    phases = [torch.polar(torch.ones_like(t), 2 * torch.pi * t) for t in (image, kspace)]
    return phases[0].to(domain.dtype), phases[1].to(domain.dtype)


def _default_domain(mask: Tensor, sensitivity: Tensor | None) -> Grid:
    shape = tuple(mask.shape if sensitivity is None else sensitivity.shape[1:])
    if len(shape) not in _DIMS:
        raise ShapeError(
            "the mask does not give the shape of the image",
            got=shape,
            expected="a mask with two or three axes",
            hint="Give the domain, or a mask of the image's shape.",
        )
    dtype = torch.complex64 if sensitivity is None else sensitivity.dtype
    return Grid(_DIMS[len(shape)], shape, dtype)
