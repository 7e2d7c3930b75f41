"""Laplace increments in one dimension: a Levy process, sparse in its jumps and not Gaussian."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from invdiff.arguments import as_number
from invdiff.covariance import Covariance, DenseCovariance
from invdiff.errors import DivergedError, DTypeError, ShapeError
from invdiff.grid import Grid
from invdiff.noise import NoiseField
from invdiff.protocols import BasePrior
from invdiff.schedule import Schedule
from invdiff.spread import Spread

__all__ = ["LevyPrior"]

_EDGE = 1e-8  # largest density at the edge of a window, relative to its peak
_WIDTH = 9.0  # half a window to begin with, in standard deviations of the Gaussian surrogate
_ATTEMPTS = 5
_NODES = 2, 3  # nodes at least, within one standard deviation of the noise and within one scale


class LevyPrior(BasePrior):
    r"""A random walk with Laplace increments from a Gaussian first value, in one dimension.

    ::

        x_1 ~ N(0, first_std^2),   p(x_{i+1} - x_i) = exp(-|x_{i+1} - x_i| / scale) / (2 scale)

    The test prior of Bohra et al. (2023, arXiv 2202.04016) and Zach et al. (2025, arXiv
    2509.12821). Given ``x_t`` the chain is pairwise Markov, so that mean and full covariance come
    from forward-backward messages, tabulated at spacing ``h`` in a window about each point:

    - smooth factors are summed by the trapezoidal rule: an error of ``exp(-2 pi^2 r^2 / h^2)``;
    - the kink of the kernel gets the first term of Euler and Maclaurin, which leaves an error of
      order ``h^4``: measured below 3e-4 of the standard deviation;
    - posterior marginals are log-concave (both factors are), so a density at the edges of a window
      below 1e-8 of its peak bounds what lies outside; windows grow until that holds.

    Assumptions: none beyond the law above. Cost: a transition between two points takes O(m) for
    ``m`` nodes, by running sums; `denoise` makes about four of them per point and `moments`
    ``n + 4``. Computed in float64 whatever the dtype of the grid.

    Args:
        grid: 1-D and real.
        scale: of the Laplace distribution, > 0; an increment has variance ``2 scale^2``.
        first_std: standard deviation of the first value, > 0.
        schedule: noise levels of ``x_t`` in the units of the field; default: from its spread.

    Raises:
        ShapeError: a grid that is not 1-D.
        DTypeError: a complex grid.
        InputError: a scale or deviation that is not a positive number.

    Example:
        >>> import torch
        >>> from invdiff.grid import Grid
        >>> from invdiff.priors import LevyPrior
        >>> prior = LevyPrior(Grid(("x",), (2,), torch.float64), 1.0)
        >>> x_t = torch.zeros(1, 2, dtype=torch.float64)
        >>> prior.denoise(x_t, torch.tensor(0.5)).abs().max() < 1e-6  # symmetric about zero
        tensor(True)
    """

    def __init__(
        self, grid: Grid, scale: float, *, first_std: float = 1.0, schedule: Schedule | None = None
    ) -> None:
        if grid.ndim != 1:
            raise ShapeError(
                "a Levy process is defined on a 1-D grid",
                got=f"dims {grid.dims}",
                expected="one dim",
                hint="Use a GaussianMixturePrior or a NetworkPrior on images.",
            )
        if grid.is_complex:
            raise DTypeError(
                "a Levy process is defined on a real grid",
                got=grid.dtype,
                expected="torch.float32 or torch.float64",
                hint="Treat the real and the imaginary part as two processes.",
            )
        self.grid = grid
        self.scale = as_number("the scale of a Levy process", scale)
        self.first_std = as_number("first_std of a Levy process", first_std)
        # The largest row sum of the covariance first_std^2 + 2 scale^2 min(i, j), i, j < n: a bound
        # on its largest eigenvalue, a quarter above it.
        n = grid.size
        largest = math.sqrt(n * self.first_std**2 + n * (n - 1) * self.scale**2)
        self.spread = Spread(min(2**0.5 * self.scale, self.first_std), largest)
        self.schedule = self.spread.schedule(schedule)

    def __repr__(self) -> str:
        """Grid and scales."""
        return (
            f"LevyPrior({self.grid}, {self.scale}, first_std={self.first_std}, "
            f"schedule={self.schedule!r})"
        )

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        """Mean and covariance of ``x_0`` given ``x_t``, exact to 3e-4 of the deviation.

        Raises:
            DivergedError: ``x_t`` so far from the prior that the messages leave double precision.
        """
        messages = self._messages(x_t, t)
        if messages is None:
            n = self.grid.size
            return x_t, DenseCovariance(torch.zeros(n, n, dtype=x_t.dtype))
        mean = messages.mean()
        covariance = DenseCovariance.of(messages.covariance(mean).to(x_t.dtype))
        return mean.to(x_t.dtype), covariance

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The mean alone, without the ``n`` extra messages of the covariance."""
        messages = self._messages(x_t, t)
        return x_t if messages is None else messages.mean().to(x_t.dtype)

    def exact_draws(self, n: int, *, seed: int) -> Tensor:
        """``n`` independent draws of ``x_0``, ``(n, *grid.shape)``."""
        noise = NoiseField(seed)
        grid = self.grid.with_dtype(torch.float64)
        a, b, c = (noise(grid, range(n), 0, stream=stream) for stream in range(3))
        # A Laplace variable is Gaussian with a variance that is exponential: a^2 + b^2.
        steps = self.scale * torch.hypot(a, b) * c
        steps[:, 0] = self.first_std * c[:, 0]
        return steps.cumsum(1).to(self.grid.dtype)

    def log_prob(self, x_0: Tensor) -> Tensor:
        """Normalised log-density of clean fields, ``(batch,)``."""
        first = torch.distributions.Normal(0.0, self.first_std).log_prob(x_0[:, 0])
        steps = torch.distributions.Laplace(0.0, self.scale).log_prob(x_0.diff(dim=1))
        log_prob: Tensor = first + steps.sum(1)
        return log_prob

    def _messages(self, x_t: Tensor, t: Tensor) -> _Messages | None:
        """Messages over windows that are wide enough; None without noise."""
        alpha, ratio = self.levels(t)
        if ratio == 0:
            return None
        z = x_t.double() / alpha
        centre, std = self._surrogate(z, ratio)
        width = _WIDTH
        for _ in range(_ATTEMPTS):
            messages = _Messages(self, z, ratio, centre=centre, half_width=width * std)
            if messages.edge < _EDGE:
                return messages
            width *= 1.4
        raise DivergedError(
            "messages of the Levy prior do not fit their windows",
            got=f"relative density {messages.edge:.1e} at an edge",
            expected=f"below {_EDGE}",
            hint="x_t lies hundreds of scales from anything the prior can make.",
        )

    def _surrogate(self, z: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
        """Mean and deviation of a Gaussian close to ``p(x | z)``; it only places the windows.

        Each ``|u| / scale`` is replaced by its tangent parabola at ``sqrt(E u^2)`` (the variational
        bound of Girolami 2001), iterated.
        """
        n = self.grid.size
        difference = torch.eye(n, dtype=z.dtype).diff(dim=0)
        fixed = torch.eye(n, dtype=z.dtype) / ratio**2
        fixed[0, 0] += self.first_std**-2
        weights = z.new_full((len(z), n - 1), 0.5 / self.scale**2)
        for _ in range(15):
            precision = fixed + (difference.mT * weights[:, None]) @ difference
            covariance = torch.linalg.inv(precision)
            mean = (covariance @ z[..., None])[..., 0] / ratio**2
            spread = (difference @ covariance @ difference.mT).diagonal(dim1=1, dim2=2)
            weights = 1 / (self.scale * (mean.diff(dim=1).square() + spread).sqrt())
        return mean, covariance.diagonal(dim1=1, dim2=2).sqrt()


@dataclass(frozen=True)
class _Window:
    """Nodes ``(first + j) h``, ``j < n``; one lattice for all windows: kinks fall on nodes."""

    first: Tensor  # (batch,)
    n: int
    h: float

    @property
    def nodes(self) -> Tensor:
        """Positions ``(batch, n)``."""
        return (self.first[:, None] + torch.arange(self.n)) * self.h


class _Messages:
    """Forward and backward messages of a batch, one window per point."""

    def __init__(
        self, prior: LevyPrior, z: Tensor, ratio: float, *, centre: Tensor, half_width: Tensor
    ) -> None:
        self.scale = prior.scale
        h = min(ratio / _NODES[0], prior.scale / _NODES[1])
        first = ((centre - half_width) / h).floor().long()
        sizes = 1 + 2 * (half_width / h).ceil().long().amax(0)
        self.windows = [_Window(f, int(n), h) for f, n in zip(first.mT, sizes, strict=True)]
        nodes = [window.nodes for window in self.windows]
        self.potentials = [-0.5 * ((z[:, i, None] - x) / ratio) ** 2 for i, x in enumerate(nodes)]
        self.potentials[0] = self.potentials[0] - 0.5 * (nodes[0] / prior.first_std) ** 2
        self.likelihoods = [torch.exp(p - p.amax(1, keepdim=True)) for p in self.potentials]
        self.nodes = nodes
        self._pass()

    def _pass(self) -> None:
        windows, likelihoods = self.windows, self.likelihoods
        forward, self.norms = [likelihoods[0]], []
        for i in range(1, len(windows)):
            arrived = likelihoods[i] * self._move(forward[-1], windows[i - 1], windows[i])
            self.norms.append(arrived.amax(1, keepdim=True))
            forward.append(arrived / self.norms[-1])
        backward = [torch.ones_like(likelihoods[-1])]
        for i in range(len(windows) - 1, 0, -1):
            arrived = self._move(likelihoods[i] * backward[-1], windows[i], windows[i - 1])
            backward.append(arrived / arrived.amax(1, keepdim=True))
        self.forward, self.backward = forward, backward[::-1]
        products = [a * b for a, b in zip(self.forward, self.backward, strict=True)]
        ends = [torch.maximum(p[:, 0], p[:, -1]) / p.amax(1) for p in products]
        # NaN, where a message underflowed, is no small edge either: comparisons with it are false.
        self.edge = float(torch.stack(ends).detach().max())
        self.totals = [p.sum(1, keepdim=True) for p in products]
        self.marginals = [p / s for p, s in zip(products, self.totals, strict=True)]

    def mean(self) -> Tensor:
        """Posterior mean, ``(batch, n)``."""
        pairs = zip(self.marginals, self.nodes, strict=True)
        return torch.stack([(p * x).sum(1) for p, x in pairs], 1)

    def covariance(self, mean: Tensor) -> Tensor:
        """``(batch, n, n)``, by messages weighted by ``x_k - mean_k`` and carried to ``i >= k``."""
        n_batch, n = mean.shape
        result = mean.new_zeros(n_batch, n, n)
        carried = mean.new_zeros(n_batch, 0, self.windows[0].n)
        for i in range(n):
            if i:
                moved = self._move(carried, self.windows[i - 1], self.windows[i])
                carried = moved * (self.likelihoods[i] / self.norms[i - 1])[:, None]
            deviation = self.nodes[i] - mean[:, i, None]
            carried = torch.cat([carried, (deviation * self.forward[i])[:, None]], 1)
            weight = deviation * self.backward[i] / self.totals[i]
            row = (carried @ weight[..., None])[..., 0]
            result[:, i, : i + 1] = row
            result[:, : i + 1, i] = row
        return result

    def _move(self, f: Tensor, old: _Window, new: _Window) -> Tensor:
        """Integral of ``exp(-|x - y| / scale) f(y) dy / h`` over the old window at the new nodes.

        ``f`` is ``(batch, n_old)`` or ``(batch, k, n_old)``. Running sums over ``y <= x`` and over
        ``y > x`` serve all ``x``.
        """
        step = old.h / self.scale
        j = (new.first - old.first)[:, None] + torch.arange(new.n)
        inside = (j >= 0) & (j < old.n)
        decay_below = torch.exp(-step * (j - (old.n - 1)).clamp_min(0)) * (j >= 0)
        decay_above = torch.exp(-step * (1 + (-1 - j).clamp_min(0))) * (j < old.n - 1)
        # Euler and Maclaurin: the slope of the kernel jumps by -2 / scale at y = x.
        kink = -(step / 6) * inside
        at, next_up = j.clamp(0, old.n - 1), (j + 1).clamp(0, old.n - 1)
        below, above = _decaying_sum(f, step), _decaying_sum(f.flip(-1), step).flip(-1)
        return (
            _like(decay_below, f) * below.gather(-1, _like(at, f))
            + _like(decay_above, f) * above.gather(-1, _like(next_up, f))
            + _like(kink, f) * f.gather(-1, _like(at, f))
        )


def _like(a: Tensor, f: Tensor) -> Tensor:
    """``(batch, n)`` for each of the ``k`` messages of ``f``, if it has that axis."""
    return a if f.ndim == 2 else a[:, None].expand(-1, f.shape[1], -1)


def _decaying_sum(f: Tensor, step: float) -> Tensor:
    """``sum_{l <= j} exp(-(j - l) step) f_l`` along the last axis, by doubling."""
    reach = 1
    # A cumulative sum of f_l exp(l step) is one pass, but overflows in wide windows.
    while reach < f.shape[-1] and reach * step < 40:
        f = f + math.exp(-reach * step) * pad(f[..., :-reach], (reach, 0))
        reach *= 2
    return f
