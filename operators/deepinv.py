"""Operators of deepinv as ours, and ours as deepinv's.

deepinv keeps a complex field as two real channels, ``(batch, 2, *shape)``; we keep it complex. A
real field gets one channel if it has two axes, and is left as it is otherwise.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from invdiff.errors import NoiseLevelError, UnsupportedError
from invdiff.grid import Grid
from invdiff.operators.base import Linear
from invdiff.protocols import LinearOperator

__all__ = ["DeepinvLinear", "from_deepinv", "to_deepinv"]


class DeepinvLinear(Linear):
    """A deepinv ``LinearPhysics`` as a linear operator, without its noise.

    Args:
        physics: the ``LinearPhysics``; held, not copied.
        domain: grid of the fields; complex for two channels.
        range: grid of the data.
        n_data: number of measured values, where zeros of the range are not data.

    Raises:
        UnsupportedError: a physics that has no adjoint.
        ShapeError: grids that do not fit the physics.
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
        self.physics, self._n_data = physics, n_data
        device = next((b.device for b in physics.buffers()), torch.device("cpu"))
        self(torch.zeros(1, *domain.shape, dtype=domain.dtype, device=device))  # grids that misfit

    def to(self, device: torch.device | str) -> DeepinvLinear:
        """A copy, of the physics too, on another device."""
        moved = copy.copy(self)
        moved.physics = copy.deepcopy(self.physics).to(device)
        return moved

    def _forward(self, x: Tensor) -> Tensor:
        return self.range.from_channels(self.physics.A(self.domain.to_channels(x)))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.domain.from_channels(self.physics.A_adjoint(self.range.to_channels(y)))

    @property
    def n_data(self) -> int:
        """As given, else all of the range."""
        return self.range.size if self._n_data is None else self._n_data

    def __repr__(self) -> str:
        return f"DeepinvLinear({type(self.physics).__name__})"


def from_deepinv(physics: Any, domain: Grid, range: Grid, *, n_data: int | None = None) -> Linear:
    """A deepinv ``LinearPhysics`` as one of our operators; see `DeepinvLinear`."""
    return DeepinvLinear(physics, domain, range, n_data=n_data)


def to_deepinv(operator: LinearOperator, *, noise_std: float | None = None) -> Any:
    """One of our operators as a deepinv ``LinearPhysics``, for deepinv's algorithms.

    Args:
        operator: any linear operator.
        noise_std: if given, the physics adds noise of this level when called, everywhere in the
            range; of a complex range ``E|n|^2 = noise_std^2``, that is ``noise_std / sqrt(2)`` in
            each channel.

    Returns:
        ``deepinv.physics.LinearPhysics`` from fields to data, both in real channels.

    Raises:
        NoiseLevelError: a noise level that is not positive.
    """
    from deepinv.physics import GaussianNoise, LinearPhysics, ZeroNoise

    if noise_std is not None and not noise_std > 0:
        raise NoiseLevelError("noise level must be positive", got=noise_std, expected="> 0")
    domain, range = operator.domain, operator.range
    noise = ZeroNoise()
    if noise_std is not None:
        noise = GaussianNoise(noise_std / 2**0.5 if range.is_complex else noise_std)

    # deepinv hands its own parameters on to A and A_adjoint; ours have none.
    def forward(x: Tensor, **_: Any) -> Tensor:
        return range.to_channels(operator(domain.from_channels(x)))

    def adjoint(y: Tensor, **_: Any) -> Tensor:
        return domain.to_channels(operator.adjoint(range.from_channels(y)))

    zeros = torch.zeros(1, *domain.shape, dtype=domain.dtype)
    return LinearPhysics(
        A=forward,
        A_adjoint=adjoint,
        img_size=tuple(domain.to_channels(zeros).shape[1:]),
        noise_model=noise,
    )
