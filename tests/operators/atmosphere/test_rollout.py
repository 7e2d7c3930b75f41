"""Rollouts as operators: labels, gradients by checkpoints, observations, and what is refused."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from invdiff import Grid, dynamics
from invdiff.completion import completed
from invdiff.dynamics import trajectory
from invdiff.errors import DivergedError, DTypeError, InputError, NonFiniteError, ShapeError
from invdiff.likelihood import Gaussian
from invdiff.likelihood.linearised import Linearised
from invdiff.operators import Identity, Mask, Saturating, Select, check_operator, checks
from invdiff.operators.atmosphere import Lorenz63, Lorenz96, Rollout
from invdiff.run_state import identity
from tests.support.flows import DOUBLE, normal

MODEL = Lorenz96(12, 0.02, dtype=DOUBLE)
X = 2 + 3 * normal(3, 12)


def half(model=MODEL):
    return Select(model.grid, "site", range(0, 12, 2))


def cases():
    states = Rollout(MODEL, 12, every=4).range
    moving = torch.from_numpy(np.random.default_rng(1).random(states.shape) < 0.4)
    return {
        "states": Rollout(MODEL, 12, every=4),
        "one step": Rollout(MODEL, 1, half()),
        "linear": Rollout(MODEL, 12, half(), every=4),
        "with start": Rollout(MODEL, 12, half(), every=4, observes_start=True),
        "masked": Rollout(MODEL, 12, Mask(MODEL.grid, np.arange(12) % 3 == 0), every=4),
        "saturating": Rollout(MODEL, 12, Saturating(half(), 3.0), every=6, checkpoint=2),
        "all stored": Rollout(MODEL, 12, half(), every=4, checkpoint=0),
        "moving mask": Rollout(MODEL, 12, Mask(states, moving), every=4),
    }


every_case = pytest.mark.parametrize("rollout", cases().values(), ids=cases())


@every_case
def test_rollouts_are_operators(rollout):
    errors = check_operator(rollout, fields=X)
    assert set(errors) == {"input", "batch", "gradient"}
    slope = checks.taylor_slope(rollout, X, normal(3, 12, seed=2), steps=(1e-2, 3e-3, 1e-3, 3e-4))
    assert slope == pytest.approx(2, abs=0.1)


@every_case
def test_data_are_the_observed_states(rollout):
    states = [X] * rollout.observes_start
    states += trajectory(MODEL, X, 12 if rollout.n_steps > 1 else 1, every=rollout.every)
    seen = torch.stack(states, 1)
    expected = {
        Select: lambda: seen[..., ::2],
        Mask: lambda: seen * rollout.measured,
        Saturating: lambda: 3 * torch.tanh(seen[..., ::2] / 3),
        type(None): lambda: seen,
    }[type(rollout.observed)]()
    assert torch.equal(rollout(X), expected)
    n_measured = rollout.range.size if rollout.measured is None else int(rollout.measured.sum())
    assert completed(rollout) is not None
    assert rollout.n_data == n_measured


def test_labels():
    rollout = Rollout(MODEL, 12, half(), every=4)
    assert rollout.range.dims == ("time", "site")
    np.testing.assert_allclose(rollout.range.coords["time"], [0.08, 0.16, 0.24])
    np.testing.assert_array_equal(rollout.range.coords["site"], np.arange(0, 12, 2))
    with_start = Rollout(MODEL, 12, every=6, observes_start=True)
    np.testing.assert_allclose(with_start.range.coords["time"], [0, 0.12, 0.24])
    array = rollout.range.to_dataarray(rollout(X), "x", leading={"realization": range(3)})
    assert array.dims == ("realization", "time", "site")


@pytest.mark.parametrize("checkpoint", [None, 1, 2, 5, 12])
@pytest.mark.parametrize("every", [1, 4, 12])
def test_checkpoints_change_no_bit(every, checkpoint):
    gradients = []
    for k in (0, checkpoint):
        x = X.clone().requires_grad_()
        y = Rollout(MODEL, 12, half(), every=every, checkpoint=k)(x)
        gradients.append(torch.autograd.grad(y.square().sum(), x)[0])
    assert torch.equal(*gradients)


def test_checkpoints_are_made_of_few_states(monkeypatch):
    """Tensors that autograd keeps until the backward pass: some states, not every step."""
    kept = {}
    for k in (0, 1, 10, "small", "large"):
        monkeypatch.setattr(dynamics, "_STORED_AT_MOST", 0 if k == "large" else 2**28)
        sizes = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: (sizes.append(t.numel()), t)[1], lambda t: t
        )
        with hooks:
            length = k if isinstance(k, int) else None
            Rollout(MODEL, 100, every=100, checkpoint=length)(X.clone().requires_grad_())
        kept[k] = sum(sizes) / X.numel()
    assert kept[0] > 800
    assert kept[1] <= 101
    assert kept[10] <= 11
    assert kept["small"] == kept[0]
    assert kept["large"] <= 51  # segments of two steps


def test_products_with_the_jacobian_as_gauss_newton_takes_them():
    """Double backward through checkpoints, several times over one graph."""
    operators = [Rollout(MODEL, 12, half(), every=4, checkpoint=k) for k in (0, 2)]
    y = torch.zeros(3, 6, dtype=DOUBLE)
    likelihoods = [Gaussian(y, operator, 0.5) for operator in operators]
    plain, recomputed = (Linearised(likelihood, X) for likelihood in likelihoods)
    v = normal(3, 12, seed=3)
    for _ in range(2):
        torch.testing.assert_close(recomputed.precision(v), plain.precision(v), rtol=1e-13, atol=0)
    h = 1e-5
    operator = operators[0]
    pushed = (operator(X + h * v) - operator(X - h * v)) / (2 * h) / 0.5
    torch.testing.assert_close(
        recomputed.forward(v).reshape_as(pushed), pushed, rtol=1e-6, atol=1e-7
    )


def test_no_gradient_no_graph():
    with torch.inference_mode():
        assert torch.equal(Rollout(MODEL, 4)(X), Rollout(MODEL, 4)(X.clone().requires_grad_()))


def test_a_chaotic_trajectory_forgets_its_start():
    """Lorenz-96 in single precision: errors double in 0.42 units of time, so 1e-5 grows to one."""
    model = Lorenz96()
    x = (2 + 3 * normal(1, 40)).float()
    *_, a = trajectory(model, x, 1000, every=1000)
    *_, b = trajectory(model, x + 1e-5, 1000, every=1000)
    assert float((a - b).abs().max()) > 1


def test_nan_names_step_and_member():
    @dataclass(frozen=True)
    class Breaks:
        grid = Grid(("x",), (2,))
        dt = 0.5
        n: int = 0

        def at(self, n):
            return Breaks(n)

        def step(self, state):
            factor = torch.ones(len(state), 1)
            factor[-1] = torch.inf if self.n == 6 else 1.0
            return state * factor

    message = r"after step 7, time 3.5, in member 2 of the batch; got NaN or Inf in 1 of 3"
    for checkpoint in (0, 2):
        rollout = Rollout(Breaks(), 10, every=5, checkpoint=checkpoint)
        with pytest.raises(DivergedError, match=message):
            rollout(torch.ones(3, 2).requires_grad_())
    with pytest.raises(NonFiniteError, match="initial state of member 1"):
        Rollout(Breaks(), 10)(torch.tensor([[1.0, 1.0], [1.0, torch.nan]]))
    # From step 7 on the model is sound.
    assert len(list(trajectory(Breaks(), torch.ones(3, 2), 4, start=7))) == 4


def test_what_is_refused():
    with pytest.raises(InputError, match="not a multiple of every"):
        Rollout(MODEL, 10, every=4)
    with pytest.raises(InputError, match="n_steps"):
        Rollout(MODEL, 0)
    with pytest.raises(InputError, match="checkpoint"):
        Rollout(MODEL, 10, checkpoint=-1)
    with pytest.raises(InputError, match="not a step model"):
        Rollout(MODEL.grid, 10)
    with pytest.raises(InputError, match="not a step model"):
        Rollout(Lorenz63, 10)
    with pytest.raises(InputError, match="not a forward operator"):
        Rollout(MODEL, 10, "all")
    with pytest.raises(ShapeError, match="does not act on the model's states"):
        Rollout(MODEL, 10, Identity(Grid(("site",), (11,))))
    with pytest.raises(ShapeError, match="other coordinates 'site'"):
        Rollout(MODEL, 10, Identity(Grid(("site",), (12,), coords={"site": np.arange(1, 13)})))
    with pytest.raises(ShapeError, match=r"Build it on .*, or on the range of a Rollout"):
        Rollout(MODEL, 10, Identity(Rollout(MODEL, 5).range))
    with pytest.raises(DTypeError):
        Rollout(MODEL, 10, Identity(Grid(("site",), (12,), torch.complex64)))
    with pytest.raises(ShapeError, match="initial state"):
        Rollout(MODEL, 10)(torch.ones(2, 11))
    timed = Grid(("time",), (12,))
    with pytest.raises(ShapeError, match="a dim `time` of their own"):
        Rollout(MODEL, 10, Identity(timed)).range  # noqa: B018


def test_identity_and_repr():
    rollouts = cases()
    found = {name: identity({"operator": r}) for name, r in rollouts.items()}
    for name, rollout in rollouts.items():
        rollout(X)
        assert identity({"operator": rollout}) == found[name]
    assert len({tuple(sorted(parts.items())) for parts in found.values()}) == len(found)
    text = (
        "Rollout(model=Lorenz96(n_sites=12, dt=0.02, forcing=8.0, dtype=torch.float64), n_steps=12"
    )
    assert repr(rollouts["states"]).startswith(text)
