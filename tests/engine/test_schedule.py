"""Schedules and the conversions of predictions."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invdiff.errors import InputError
from invdiff.schedule import VE, VP, Cosine, RectifiedFlow, Schedule, convert
from tests.support.closed_form import normal

SCHEDULES = (VE(), VP(), Cosine(), RectifiedFlow())
KINDS = ("x0", "eps", "v", "score")
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


@every_schedule
@given(st.floats(0.002, 80))
def test_time_inverts_the_ratio(schedule: Schedule, ratio: float) -> None:
    t = schedule.time(torch.tensor(ratio, dtype=torch.float64))
    torch.testing.assert_close(float(schedule.ratio(t)), ratio, rtol=1e-9, atol=0)


@every_schedule
def test_no_noise_at_time_zero(schedule: Schedule) -> None:
    zero = torch.zeros((), dtype=torch.float64)
    assert (float(schedule.alpha(zero)), float(schedule.sigma(zero))) == (1, 0)


@pytest.mark.parametrize("schedule", [VP(), Cosine()], ids=repr)
def test_variance_is_preserved(schedule: Schedule) -> None:
    t = schedule.timesteps(10)
    total = schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2
    torch.testing.assert_close(total, torch.ones_like(t))


@every_schedule
@pytest.mark.parametrize("steps", [1, 2, 18])
def test_timesteps_are_those_of_karras(schedule: Schedule, steps: int) -> None:
    t = schedule.timesteps(steps)
    assert t.shape == (steps + 1,)
    assert t.dtype == torch.float64
    assert t[-1] == 0
    assert (t.diff() < 0).all()
    hi, lo, rho = schedule.ratio_max, schedule.ratio_min, schedule.rho
    for i in range(steps):
        share = i / max(steps - 1, 1)
        ratio = (hi ** (1 / rho) + share * (lo ** (1 / rho) - hi ** (1 / rho))) ** rho
        assert float(schedule.ratio(t[i])) == pytest.approx(ratio, rel=1e-9)


@every_schedule
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(KINDS, 2)))
def test_conversions_round_trip(
    schedule: Schedule, dtype: torch.dtype, source: str, target: str
) -> None:
    x_0, eps = normal((2, 5), 0, dtype), normal((2, 5), 1, dtype)
    t = schedule.time(torch.tensor(0.7, dtype=torch.float64))
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x_t = alpha * x_0 + sigma * eps
    truth = {"x0": x_0, "eps": eps, "v": alpha * eps - sigma * x_0, "score": -eps / sigma}
    got = convert(truth[source], x_t, t, schedule=schedule, source=source, target=target)
    torch.testing.assert_close(got, truth[target])
    back = convert(got, x_t, t, schedule=schedule, source=target, target=source)
    torch.testing.assert_close(back, truth[source])


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="schedule"):
        VE(1.0, 0.5)
    with pytest.raises(InputError, match="schedule"):
        VE(rho=0)
    with pytest.raises(InputError, match="steps"):
        VE().timesteps(0)
    x = torch.ones(1, 2)
    with pytest.raises(InputError, match="prediction"):
        convert(x, x, torch.tensor(0.5), schedule=VE(), source="x0", target="epsilon")
