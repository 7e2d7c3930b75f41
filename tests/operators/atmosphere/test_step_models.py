"""The laws of step models, over one registry of all of them."""

import pickle
from dataclasses import replace

import pytest
import torch

from invdiff.errors import DivergedError, DTypeError, InputError, ShapeError
from invdiff.operators.atmosphere import Rollout
from invdiff.operators.checks import gradient_error, taylor_slope
from invdiff.protocols import StepModel
from invdiff.run_state import identity
from tests.support.flows import DOUBLE, FLOWS, after, order_in_dt

every_flow = pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)


@every_flow
def test_order_of_convergence(flow):
    assert order_in_dt(flow) == pytest.approx(flow.order, abs=0.15)


@every_flow
def test_members_are_independent(flow):
    states = flow.states(3)
    together = after(flow.model, states, 3)
    alone = torch.cat([after(flow.model, state[None], 3) for state in states])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-13 * float(alone.abs().max()))


@every_flow
def test_gradients_are_those_of_the_steps(flow):
    rollout = Rollout(flow.model, 3)
    states = flow.states(2)
    assert gradient_error(rollout, fields=states) < 1e-7
    # At scales of the states themselves, whatever their units.
    direction = (flow.states(4)[2:] - states).abs()
    slope = taylor_slope(rollout, states, direction, steps=(1e-2, 3e-3, 1e-3, 3e-4))
    assert slope == pytest.approx(2, abs=0.1)


@every_flow
def test_a_state_is_not_changed_in_place(flow):
    states = flow.states(2)
    before = states.clone()
    flow.model.step(states)
    assert torch.equal(states, before)


@every_flow
def test_precision_follows_the_states(flow):
    single = flow.states(1).float()
    result = flow.model.step(single)
    assert result.dtype == torch.float32
    exact = flow.model.step(flow.states(1))
    torch.testing.assert_close(
        result.double(), exact, rtol=1e-3, atol=1e-4 * float(exact.abs().max())
    )


@every_flow
def test_bad_states_and_steps(flow):
    model = flow.model
    with pytest.raises(ShapeError):
        model.step(flow.states(1)[0])
    with pytest.raises(DTypeError):
        model.step(flow.states(1) + 0j)
    with pytest.raises(InputError, match="unstable"):
        replace(model, dt=flow.unstable_dt)
    for dt in (0.0, -1.0, float("nan"), "1"):
        with pytest.raises(InputError, match="dt"):
            replace(model, dt=dt)


@every_flow
def test_an_unstable_dt_is_refused_with_one_that_works(flow):
    with pytest.raises(InputError) as caught:
        replace(flow.model, dt=flow.unstable_dt)
    hinted = float(caught.value.hint.split("dt=")[1].split()[0])
    replace(flow.model, dt=hinted)


@every_flow
def test_what_a_model_states(flow):
    model = flow.model
    assert isinstance(model, StepModel)
    assert model.grid.dtype == DOUBLE
    assert set(model.grid.coords) == set(model.grid.dims)
    assert flow.states(1).shape[1:] == model.grid.shape
    assert identity({"model": model}) == identity({"model": replace(model)})
    assert identity({"model": model}) != identity({"model": replace(model, dt=model.dt / 2)})
    assert repr(replace(model, dt=model.dt / 2)) != repr(model)
    assert pickle.loads(pickle.dumps(model)) == model  # as workers are sent it


@every_flow
def test_divergence_names_step_and_member(flow):
    states = flow.states(3)
    states[1] = states[1] * 1e150
    with pytest.raises(DivergedError, match=r"after step \d+.*member 1 of the batch"):
        after(flow.model, states, 40)
