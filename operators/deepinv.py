"""Operators of deepinv as ours, and ours as deepinv's."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from invdiff.arguments import as_integer
from invdiff.errors import InputError, NoiseLevelError, UnsupportedError
from invdiff.grid import Grid
from invdiff.operators.base import Linear, as_linear
from invdiff.protocols import Operator

__all__ = ["DeepinvLinear", "from_deepinv", "to_deepinv", "to_deepinv_physics"]


class DeepinvLinear(Linear):
    """A deepinv ``LinearPhysics`` as a linear operator, without its noise.

    ``A x`` is ``physics.A`` and ``A^H y`` is ``physics.A_adjoint``, at their cost. deepinv keeps a
    complex field as two real channels, ``(batch, 2, *shape)``, where we keep it complex; a real
    field has one channel there if its grid has two axes, and is left as it is otherwise.

    Args:
        physics: the ``LinearPhysics``; held, not copied.
        domain: grid of the fields; complex for two channels.
        range: grid of the data.
        n_data: number of measured values, where zeros of the range are not data.

    Raises:
        UnsupportedError: a physics that has no adjoint.
        ShapeError: grids that do not fit the physics.
        InputError: ``n_data`` that is not a count of values of the range, or anything but a `Grid`.
    """

    def __init__(
        self, physics: Any, domain: Grid, range: Grid, *, n_data: int | None = None
    ) -> None:
        if not hasattr(physics, "A_adjoint"):
            raise UnsupportedError(
                "only linear physics can be wrapped",
                got=type(physics).__name__,
                expected="a deepinv LinearPhysics",
            )
        super().__init__(domain, range)
        n_data = range.size if n_data is None else as_integer("n_data", n_data, least=1)
        if n_data > range.size:
            raise InputError("n_data is too large", got=n_data, expected=f"at most {range.size}")
        self.physics, self._n_data = physics, n_data
        device = next((b.device for b in physics.buffers()), torch.device("cpu"))
        self(torch.zeros(1, *domain.shape, dtype=domain.dtype, device=device))  # grids that misfit

    def to(self, device: torch.device | str) -> DeepinvLinear:
        """A copy of the operator and of its physics on another device."""
        moved = copy.copy(self)
        moved.physics = copy.deepcopy(self.physics).to(device)
        return moved

    def _forward(self, x: Tensor) -> Tensor:
        return self.range.from_channels(self.physics.A(self.domain.to_channels(x)))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.domain.from_channels(self.physics.A_adjoint(self.range.to_channels(y)))

    @property
    def n_data(self) -> int:
        """Number of measured values: ``n_data`` as given, else all values of the range."""
        return self._n_data

    def __repr__(self) -> str:
        return f"DeepinvLinear({type(self.physics).__name__})"


def from_deepinv(physics: Any, domain: Grid, range: Grid, *, n_data: int | None = None) -> Linear:
    """A deepinv ``LinearPhysics`` as one of our operators.

    Args:
        physics: the ``LinearPhysics``; held, not copied.
        domain: grid of the fields; complex for two channels.
        range: grid of the data.
        n_data: number of measured values, where zeros of the range are not data.

    Returns:
        A `DeepinvLinear`, with its errors.

    Examples:
        >>> import deepinv
        >>> import torch
        >>> from invdiff import Grid
        >>> from invdiff.operators import from_deepinv
        >>> grid = Grid(("y", "x"), (4, 4))
        >>> physics = deepinv.physics.Blur(torch.ones(1, 1, 3, 3) / 9, padding="circular")
        >>> from_deepinv(physics, grid, grid)
        DeepinvLinear(Blur)
    """
    return DeepinvLinear(physics, domain, range, n_data=n_data)


def to_deepinv(operator: Operator, *, noise_std: float | None = None) -> Any:
    """One of our operators as a deepinv ``LinearPhysics``, for deepinv's algorithms.

    A complex field is two real channels there, ``(batch, 2, *shape)``; a real one has one channel
    if its grid has two axes, and is left as it is otherwise.

    Args:
        operator: any linear operator.
        noise_std: if given, the physics adds noise of this level when called, everywhere in the
            range; of a complex range ``E|n|^2 = noise_std^2``, that is ``noise_std / sqrt(2)`` in
            each channel.

    Returns:
        ``deepinv.physics.LinearPhysics`` from fields to data, both in real channels.

    Raises:
        NoiseLevelError: a noise level that is not positive.
        UnsupportedError: an operator that is not linear by declaration; see `to_deepinv_physics`.

    Examples:
        >>> import torch
        >>> from invdiff import Grid
        >>> from invdiff.operators import Mask, to_deepinv
        >>> physics = to_deepinv(Mask(Grid(("y", "x"), (2, 2)), [[1, 0], [1, 1]]))
        >>> physics.A(torch.ones(1, 1, 2, 2))
        tensor([[[[1., 0.],
                  [1., 1.]]]])
    """
    from deepinv.physics import LinearPhysics

    linear = as_linear(operator)
    domain, range = linear.domain, linear.range
    noise = _noise_model(noise_std, range)

    # deepinv hands its own parameters on to A and A_adjoint; ours have none.
    def forward(x: Tensor, **_: Any) -> Tensor:
        return range.to_channels(linear(domain.from_channels(x)))

    def adjoint(y: Tensor, **_: Any) -> Tensor:
        return domain.to_channels(linear.adjoint(range.from_channels(y)))

    zeros = torch.zeros(1, *domain.shape, dtype=domain.dtype)
    return LinearPhysics(
        A=forward,
        A_adjoint=adjoint,
        img_size=tuple(domain.to_channels(zeros).shape[1:]),
        noise_model=noise,
    )


def to_deepinv_physics(
    operator: Operator,
    *,
    noise_std: float | None = None,
    interval: tuple[float, float] | None = None,
) -> Any:
    """A nonlinear operator as a deepinv ``Physics``, for deepinv's algorithms.

    deepinv's gradient of a data fidelity is ``A`` and then ``A_vjp``: where the operator has a
    ``misfit_and_gradient(x, y, misfit=...)``, as `Acoustic`, that is three solves per shot. The
    vjp cannot be differentiated again.

    Args:
        operator: any differentiable operator.
        noise_std: if given, the physics adds noise of this level when called, as for `to_deepinv`.
        interval: the values of a real field that deepinv is to see as 0 and 1, such as velocity
            bounds: its denoisers know that range alone, and its step sizes become moderate.

    Returns:
        ``deepinv.physics.Physics`` from fields to data, both in real channels.

    Raises:
        NoiseLevelError: a noise level that is not positive.
        InputError: an interval of no length, or of a complex field.

    Examples:
        >>> import torch
        >>> from invdiff import Grid
        >>> from invdiff.operators import Identity, Saturating, to_deepinv_physics
        >>> detector = Saturating(Identity(Grid(("y", "x"), (1, 2))), level=2.0)
        >>> to_deepinv_physics(detector).A(torch.tensor([[[[0.0, 200.0]]]]))
        tensor([[[[0., 2.]]]])
    """
    from deepinv.physics import Physics

    domain, range = operator.domain, operator.range
    low, high = interval or (0.0, 1.0)
    if not low < high or (interval and domain.is_complex):
        raise InputError(
            "deepinv cannot see the field in this interval",
            got=f"{interval} of {domain.dtype}",
            expected="low < high, of a real field",
        )

    def field(x: Tensor) -> Tensor:
        return domain.from_channels(low + (high - low) * x)

    def forward(x: Tensor, **_: Any) -> Tensor:
        return range.to_channels(operator(field(x)))

    class Nonlinear(Physics):  # type: ignore[misc]  # deepinv is imported here alone
        def A_vjp(self, x: Tensor, v: Tensor) -> Tensor:
            cotangent = range.from_channels(v.detach())
            gradient = _vjp(operator, field(x.detach()), cotangent)
            return (high - low) * domain.to_channels(gradient)

    return Nonlinear(A=forward, noise_model=_noise_model(noise_std, range))


def _vjp(operator: Operator, x: Tensor, cotangent: Tensor) -> Tensor:
    """``J(x)^H cotangent``, without a forward solve for data where the operator has a fused one."""
    fused = getattr(operator, "misfit_and_gradient", None)
    if fused is not None:
        gradient: Tensor = fused(x, cotangent, misfit=_inner)[1]
        return gradient
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(operator(leaf), leaf, cotangent)
    return gradient


def _inner(predicted: Tensor, cotangent: Tensor) -> Tensor:
    """A misfit whose gradient is the vjp."""
    return (predicted * cotangent).sum()


def _noise_model(noise_std: float | None, range: Grid) -> Any:
    from deepinv.physics import GaussianNoise, ZeroNoise

    if noise_std is None:
        return ZeroNoise()
    if not noise_std > 0:
        raise NoiseLevelError("noise level must be positive", got=noise_std, expected="> 0")
    return GaussianNoise(noise_std / 2**0.5 if range.is_complex else noise_std)
