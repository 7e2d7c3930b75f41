"""A small residual U-Net that runs at any image size."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invdiff.arguments import as_integer
from invdiff.errors import InputError, ShapeError

__all__ = ["UNet", "UNetConfig"]


@dataclass(frozen=True)
class UNetConfig:
    """Size of a U-Net.

    Args:
        channels: real channels of the field, 2 for a complex one.
        positions: channels that state the place of a pixel.
        widths: features at 1/2, 1/4, 1/8 ... of the resolution.
        blocks: residual blocks per level on the way down (one more on the way up).
        embedding: features of the noise-level embedding.

    Raises:
        InputError: numbers that are not whole or not positive, or no widths.
    """

    channels: int = 2
    positions: int = 2
    widths: tuple[int, ...] = (64, 96, 128)
    blocks: int = 2
    embedding: int = 128

    def __post_init__(self) -> None:
        if len(self.widths) == 0:
            raise InputError(
                "a U-Net needs at least one level",
                got=f"widths={self.widths}",
                expected="features of one or more levels",
                hint="Give widths such as (64, 96, 128).",
            )
        widths = tuple(as_integer("a width", w, least=1) for w in self.widths)
        object.__setattr__(self, "widths", widths)
        for name, at_least in (("channels", 1), ("positions", 0), ("blocks", 1), ("embedding", 1)):
            value = as_integer(name, getattr(self, name), least=at_least)
            object.__setattr__(self, name, value)

    @property
    def stride(self) -> int:
        """Image sides are padded to multiples of this by reflection, and cropped again."""
        return 1 << len(self.widths)

    def to_dict(self) -> dict[str, object]:
        """Plain values for a JSON card."""
        return {**asdict(self), "widths": list(self.widths)}


class _Block(nn.Module):
    """``x + conv(silu(modulated conv(silu(x))))``, the identity at initialisation."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.modulate = nn.Linear(embedding, 2 * width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        gain, shift = self.modulate(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(x)) * (1 + gain) + shift
        out: Tensor = x + self.conv2(F.silu(h))
        return out


class _Level(nn.Module):
    """The residual blocks of one resolution, applied in turn."""

    def __init__(self, width: int, n_blocks: int, embedding: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(width, embedding) for _ in range(n_blocks))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, embedding)
        return x


class UNet(nn.Module):
    """Residual U-Net with noise-level modulation and position channels, for any image size.

    Each block is ``x + conv(silu(modulated conv(silu(x))))``. The last output channel is a
    log-variance: the network's own estimate of its squared error. Work starts at half resolution
    (pixel unshuffle, as in FFDNet, Zhang et al. 2018, arXiv 1710.04026), which makes the network
    cheap on a CPU.

    Assumptions: none of the layers normalises over space, so that a pixel's output depends on its
    neighbourhood alone and a network trained on patches serves whole images.

    Args:
        config: channels, widths and depth.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, e = config.widths, config.embedding
        self.frequencies: Tensor
        self.register_buffer("frequencies", 2.0 ** torch.arange(-2, 6), persistent=False)
        self.embed = nn.Sequential(nn.Linear(16, e), nn.SiLU(), nn.Linear(e, e), nn.SiLU())
        self.enter = nn.Conv2d(4 * (config.channels + config.positions), widths[0], 3, padding=1)
        self.down = nn.ModuleList(_Level(w, config.blocks, e) for w in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in _pairs(widths))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in _pairs(widths))
        self.merge = nn.ModuleList(nn.Conv2d(2 * a, a, 1) for a, _ in _pairs(widths))
        self.up = nn.ModuleList(_Level(w, config.blocks + 1, e) for w in widths[:-1])
        self.leave = nn.Conv2d(widths[0], 4 * (config.channels + 1), 3, padding=1)
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: Tensor, c_noise: Tensor, positions: Tensor) -> Tensor:
        """Map a field, its noise level and its positions to a field and a log-variance.

        Args:
            x: ``(batch, channels, h, w)``.
            c_noise: ``log(sigma) / 4`` of each member, ``(batch,)``.
            positions: ``(batch, n_positions, h, w)``.

        Returns:
            ``(batch, channels + 1, h, w)``.

        Raises:
            ShapeError: another number of channels, or positions of another shape.
        """
        if x.shape[1] != self.config.channels:
            raise ShapeError(
                "the field has another number of channels than the network",
                got=tuple(x.shape),
                expected=f"(batch, {self.config.channels}, h, w)",
                hint="A complex field has two real channels, a real one has one.",
            )
        if positions.shape[1] != self.config.positions or positions.shape[-2:] != x.shape[-2:]:
            raise ShapeError(
                "position channels do not fit the field",
                got=tuple(positions.shape),
                expected=f"(batch, {self.config.positions}, {x.shape[-2]}, {x.shape[-1]})",
                hint="Train and run the network with the same coordinates.",
            )
        h, w = x.shape[-2:]
        stride = self.config.stride
        sides = (-h % stride, -w % stride)
        x = torch.cat([_extended(x, *sides), _extended(positions, *sides, linear=True)], dim=1)
        phases = c_noise[:, None] * self.frequencies
        embedding = self.embed(torch.cat([phases.sin(), phases.cos()], dim=1))
        x = self.enter(F.pixel_unshuffle(x, 2))
        skips = []
        for level, shrink in zip(self.down, self.shrink, strict=False):
            x = level(x, embedding)
            skips.append(x)
            x = shrink(x)
        x = self.down[-1](x, embedding)
        for level, grow, merge in zip(
            reversed(self.up), reversed(self.grow), reversed(self.merge), strict=True
        ):
            x = level(merge(torch.cat([grow(x), skips.pop()], dim=1)), embedding)
        return F.pixel_shuffle(self.leave(F.silu(x)), 2)[..., :h, :w]


def _extended(x: Tensor, n_rows: int, n_cols: int, *, linear: bool = False) -> Tensor:
    """``x`` with more rows and columns at its end: reflected, or on the line of the last two.

    Reflection that reaches the other end of a short side goes on with the value there.
    """
    for dim, n in ((-2, n_rows), (-1, n_cols)):
        if n == 0:
            continue
        size = x.shape[dim]
        ahead = torch.arange(1, n + 1, device=x.device)
        if linear:
            last, before = (x.narrow(dim, max(size - i, 0), 1) for i in (1, 2))
            added = last + (last - before) * (ahead[:, None] if dim == -2 else ahead)
        else:
            added = x.index_select(dim, (size - 1 - ahead).clamp_min(0))
        x = torch.cat([x, added], dim)
    return x


def _pairs(widths: tuple[int, ...]) -> list[tuple[int, int]]:
    return list(pairwise(widths))
