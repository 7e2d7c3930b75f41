"""Multi-coil Cartesian MRI of several image components, each with maps of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from invdiff.errors import ShapeError
from invdiff.grid import Grid
from invdiff.operators.base import Linear
from invdiff.operators.inputs import as_tensor
from invdiff.operators.mri.cartesian import CartesianMRI, check_sensitivity

__all__ = ["SoftSenseMRI"]


class SoftSenseMRI(Linear):
    r"""Cartesian k-space of several image components with a set of coil maps each (soft SENSE).

    .. math:: y_c = M F \sum_m S_{mc} x_m, \qquad
              (A^H y)_m = \sum_c \overline{S_{mc}} F^H M y_c

    with ``F`` and ``M`` as in `CartesianMRI`, and sets of maps ``S_m``. Two sets describe what one
    cannot: an object that is larger than the field of view, of which the parts that fold onto each
    other are seen through different maps. Where a set is zero, its component is not in the data.

    Assumptions: those of `CartesianMRI`. A prior over the components is needed, on
    ``(component, *image)``.

    Cost: two FFTs per coil for the gram, as for one component, and ``n_sets`` products with maps.

    Args:
        mask: acquired samples, boolean or zeros and ones, centred layout, broadcastable to
            ``(*image)``.
        sensitivity: complex maps ``(n_sets, n_coils, *image)``, as of ``espirit(..., n_sets=2)``.
        image: grid of one component; by default dims ``y, x`` or ``z, y, x``, in the dtype of the
            maps. The domain has the dim ``component`` in front of them.

    Raises:
        ShapeError: mask, sensitivity and image that do not fit together.
        DTypeError: a real sensitivity or image.
        NonFiniteError: NaN or Inf in mask or sensitivity.
        InputError: an empty mask.

    References:
        Uecker et al. (2014), ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI,
        doi:10.1002/mrm.24751

    Examples:
        >>> import torch
        >>> from invdiff.operators.mri import SoftSenseMRI, birdcage, random_lines
        >>> maps = torch.stack([birdcage((32, 32), 4), birdcage((32, 32), 4).roll(16, dims=1)])
        >>> operator = SoftSenseMRI(random_lines((32, 32), 2, calibration=8, seed=0), maps)
        >>> operator, operator.domain.dims
        (SoftSenseMRI(2 components, 4 coils, 32x32, R=2.00), ('component', 'y', 'x'))
        >>> operator(torch.ones(1, 2, 32, 32, dtype=torch.complex64)).shape
        torch.Size([1, 4, 32, 32])
    """

    def __init__(self, mask: Tensor, sensitivity: Tensor, *, image: Grid | None = None) -> None:
        sensitivity = as_tensor(sensitivity, "sensitivity")
        if sensitivity.ndim not in (4, 5):
            raise ShapeError(
                "sensitivity does not look like sets of coil maps",
                got=tuple(sensitivity.shape),
                expected="(n_sets, n_coils, y, x) or (n_sets, n_coils, z, y, x)",
                hint="Use CartesianMRI for one set of maps.",
            )
        for maps in sensitivity:
            check_sensitivity(maps)
        # One map set checks all shapes; the operator proper has one uniform coil.
        first = CartesianMRI(mask, sensitivity[0], domain=image)
        one = first.domain
        super().__init__(
            Grid(
                ("component", *one.dims),
                (len(sensitivity), *one.shape),
                one.dtype,
                one.coords,
                one.units,
            ),
            first.range,
        )
        self.sensitivity = sensitivity.to(one.dtype)
        self._coil = CartesianMRI(first.mask, domain=one)

    @property
    def mask(self) -> Tensor:
        """Acquired samples, boolean ``(*image)``."""
        return self._coil.mask

    @property
    def measured(self) -> Tensor:
        """The mask expanded to the range: True where a sample of a coil was acquired."""
        return self.mask.expand(self.range.shape)

    @property
    def n_data(self) -> int:
        """Number of acquired samples, over all coils."""
        return self.range.shape[0] * self._coil.n_data

    def _forward(self, x: Tensor) -> Tensor:
        return self._each_coil(self._coil._forward, self._coil_images(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._components(self._each_coil(self._coil._adjoint, y))

    def gram(self, x: Tensor) -> Tensor:
        """``sum_c conj(S_mc) F^H M F sum_n S_nc x_n``, ``(batch, *domain.shape)``."""
        self.domain.check(x, name="field")
        return self._components(self._each_coil(self._coil.gram, self._coil_images(x)))

    def to(self, device: str | torch.device) -> SoftSenseMRI:
        """The same operator on another device."""
        return SoftSenseMRI(
            self.mask.to(device), self.sensitivity.to(device), image=self._coil.domain
        )

    def __repr__(self) -> str:
        """Sizes and acceleration."""
        n_sets, n_coils, *shape = self.sensitivity.shape
        size = "x".join(map(str, shape))
        acceleration = self.mask.numel() / int(self.mask.sum())
        return f"SoftSenseMRI({n_sets} components, {n_coils} coils, {size}, R={acceleration:.2f})"

    def _coil_images(self, x: Tensor) -> Tensor:
        """``sum_m S_mc x_m``, ``(batch, n_coils, *image)``."""
        return torch.einsum("bm...,mc...->bc...", x, self.sensitivity)

    def _components(self, images: Tensor) -> Tensor:
        """``sum_c conj(S_mc) z_c``, ``(batch, n_sets, *image)``."""
        return torch.einsum("bc...,mc...->bm...", images, self.sensitivity.conj())

    @staticmethod
    def _each_coil(apply: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
        """``apply`` to the image of each coil, ``(batch, n_coils, *image)``."""
        images: Tensor = apply(values.flatten(0, 1))
        return images.reshape(*values.shape[:2], *images.shape[1:])
