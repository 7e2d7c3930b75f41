"""The scale of a prior's covariance by the innovations of the data."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from invdiff import Ancestral, Gaussian, Grid, Laplace, MomentMatching, Posterior, sample
from invdiff.conditioning import InnovationScale
from invdiff.errors import InputError
from invdiff.noise import NoiseField
from invdiff.operators import Identity, Lognormal, Mask
from invdiff.priors import StationaryGaussianPrior
from invdiff.protocols import BasePrior
from invdiff.samplers import ensemble

GRID = Grid(("y", "x"), (32, 32), torch.float64)
K = torch.fft.fftfreq(32)
SPECTRUM = 1 / (1 + (K[:, None] ** 2 + K**2) / 0.15**2) ** 2
NOISE = 0.1
KEEP = NoiseField(9)(GRID, [0], 0)[0] > 0


class Misstated(BasePrior):
    """A prior with the right mean, and ``share`` of the covariance that it should state."""

    def __init__(self, share: float) -> None:
        self.exact = StationaryGaussianPrior(GRID, torch.zeros(32, 32), SPECTRUM)
        self.grid, self.schedule, self.share = GRID, self.exact.schedule, share

    def moments(self, x_t: Tensor, t: Tensor):
        mean, covariance = self.exact.moments(x_t, t)
        return mean, covariance.scaled(torch.full((len(x_t),), self.share, dtype=GRID.dtype))


def truth(seed: int) -> Tensor:
    """A draw of the exact prior."""
    white = NoiseField(seed)(GRID, [0], 0)[0]
    return torch.fft.ifft2(SPECTRUM.sqrt() * torch.fft.fft2(white)).real


def likelihood(seed: int) -> Gaussian:
    operator = Mask(GRID, KEEP)
    noise = NoiseField(seed)(GRID, [0], 1)[0]
    return Gaussian(operator(truth(seed)[None])[0] + NOISE * noise * KEEP, operator, NOISE)


def drawn(share: float, seed: int, conditioning: MomentMatching | None = None):
    model = Posterior(Misstated(share), likelihood(seed), conditioning=conditioning)
    return ensemble(model, Ancestral(12), realizations=4, seed=seed)


def test_an_exact_prior_is_left_alone() -> None:
    """Three standard errors are exceeded by chance in 3 of 1000 updates."""
    records = [drawn(1.0, seed).innovations for seed in range(6)]
    factors = torch.stack([record[:, 1] for record in records])
    assert (factors == 1).double().mean() > 0.9  # once moved, a factor lasts
    assert (factors - 1).abs().max() < 0.5
    # The statistic itself has the mean that it claims: |r|^2 / n = 1 + tr S / n.
    squares, predicted = (torch.stack([r[:, i] for r in records]) for i in (2, 3))
    ratio = ((squares - 1) / predicted)[:, :6].mean((1, 2))  # one figure a data set
    # All data sets share the probes of six levels, each of which errs by about 0.15.
    error = (float(ratio.var()) / len(ratio) + 0.15**2 / 6) ** 0.5
    assert abs(float(ratio.mean()) - 1) < 3 * error


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_a_misstated_covariance_is_found(share: float) -> None:
    """The factor is the inverse of the share, where the field of the run is right."""
    factors = torch.stack([drawn(share, seed).innovations[:, 1] for seed in range(4)])
    found = float(factors[:, 3:8].log().mean().exp())
    # The first levels are exact; then the error of a few data sets is about a tenth.
    assert found * share == pytest.approx(1, rel=0.3)


def test_the_scale_restores_fit_and_spread() -> None:
    """Of a prior that states a tenth of its covariance."""
    misfit, spread = {}, {}
    for name, scale in (("stated", None), ("scaled", InnovationScale())):
        terms = [likelihood(seed) for seed in range(4)]
        members = [
            drawn(0.1, seed, replace(MomentMatching(), scale=scale)).fields for seed in range(4)
        ]
        misfit[name] = sum(
            float(term.misfit(x).mean()) for term, x in zip(terms, members, strict=True)
        ) / len(terms)
        error = torch.stack([x.mean(0) - truth(seed) for seed, x in enumerate(members)])
        std = torch.stack([x.std(0) for x in members])
        spread[name] = float((1.25 * std.square().mean() / error.square().mean()).sqrt())
    # The misfit of a mean over 4 data sets of 510 values is known to 0.03, the spread to 0.05.
    assert misfit["stated"] > 1.2 > 1.1 > misfit["scaled"] > 0.9
    assert spread["stated"] < 0.88 < 0.9 < spread["scaled"] < 1.15, spread


def test_a_member_depends_on_its_own_number_alone() -> None:
    model = Posterior(Misstated(0.25), likelihood(0))
    together = sample(model, Ancestral(6), realizations=3, seed=1)
    alone = sample(model, Ancestral(6), realizations=[2], seed=1)
    torch.testing.assert_close(together[2], alone[0], rtol=1e-9, atol=1e-9)


def test_nonlinear_data_scale_it_too() -> None:
    """Through the likelihood linearised at the prior's mean."""
    operator = Lognormal(Identity(GRID), log_std=0.3)
    noise = NoiseField(0)(GRID, [0], 1)[0]
    data = Gaussian(operator(truth(0)[None])[0] + 0.02 * noise, operator, 0.02)
    for share, low, high in ((0.25, 2.0, 8.0), (1.0, 0.5, 2.0)):
        model = Posterior(Misstated(share), data, conditioning=Laplace())
        record = ensemble(model, Ancestral(8), realizations=2, seed=0).innovations
        assert low < float(record[2:6, 1].mean()) < high


def test_other_terms_and_prior_draws_leave_the_covariance_as_stated() -> None:
    class Flat:
        def log_prob(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
            return 0 * x_0.flatten(1).sum(1)

    model = Posterior(Misstated(0.25), likelihood(0), Flat())
    assert ensemble(model, Ancestral(3), realizations=1, seed=0).innovations is None
    assert ensemble(Misstated(0.25), Ancestral(3), realizations=1, seed=0).innovations is None


def test_limits_are_checked() -> None:
    with pytest.raises(InputError, match="do not make a scale"):
        InnovationScale(lowest=2.0)
