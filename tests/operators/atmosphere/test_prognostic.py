"""Models written against earth2studio's protocol as step models: dates, gradients."""

from collections import OrderedDict

import numpy as np
import pytest
import torch

from invdiff.dynamics import trajectory
from invdiff.errors import InputError, ShapeError, UnsupportedError
from invdiff.operators.atmosphere import Prognostic, Rollout, Stations
from invdiff.operators.checks import gradient_error
from invdiff.protocols import StepModel
from invdiff.run_state import identity
from tests.support.flows import normal

HOUR = np.timedelta64(1, "h")


class Smoother(torch.nn.Module):
    """A convolution, periodic in longitude, that mixes two variables and the past states.

    Follows earth2studio 0.18: dims before ``lead_time`` are batch dims but for ``time``,
    coordinates are checked against ``input_coords``, the iterator begins with the initial state.
    """

    def __init__(self, n_past: int = 1, *, has_time: bool = False) -> None:
        super().__init__()
        weight = torch.from_numpy(
            np.random.default_rng(n_past).standard_normal((2, 2 * n_past, 3, 3))
        )
        self.weight = torch.nn.Parameter(0.15 * weight.float())
        self.n_past, self.has_time = n_past, has_time
        self.seen: list[np.ndarray] = []

    def input_coords(self):
        lead_time = np.array([-6 * k * HOUR for k in reversed(range(self.n_past))])
        coords = OrderedDict({"batch": np.empty(0), "time": np.empty(0), "lead_time": lead_time})
        if not self.has_time:
            del coords["time"]
        coords["variable"] = np.array(["u10m", "v10m"])
        coords["lat"], coords["lon"] = np.linspace(90, -90, 7), np.arange(0.0, 360.0, 30.0)
        return coords

    def output_coords(self, input_coords):
        for key in ("variable", "lat", "lon"):
            if not np.array_equal(input_coords[key], self.input_coords()[key]):
                raise ValueError(f"other {key}")
        coords = input_coords.copy()
        coords["lead_time"] = input_coords["lead_time"][-1:] + 6 * HOUR
        return coords

    def __call__(self, x, coords):
        assert isinstance(coords, OrderedDict)
        assert x.shape == tuple(len(values) for values in coords.values())
        date = coords["time"] if self.has_time else np.array([0], "M8[ns]")
        self.seen.append(date[:, None] + coords["lead_time"])
        shape = x.shape
        channels = x.reshape(-1, 2 * self.n_past, *shape[-2:])
        channels = torch.nn.functional.pad(channels, (1, 1, 0, 0), mode="circular")
        channels = torch.nn.functional.pad(channels, (0, 0, 1, 1))
        y = torch.tanh(torch.nn.functional.conv2d(channels, self.weight))
        if self.has_time:  # warmer by day, as a model with the solar zenith angle would be
            hour = float((self.seen[-1][0, -1] - np.datetime64("2026-01-01")) / HOUR)
            y = y + 0.1 * np.sin(2 * np.pi * hour / 24)
        return y.reshape(*shape[:-4], 1, *shape[-3:]), self.output_coords(coords)

    def create_iterator(self, x, coords):
        last = coords.copy()
        last["lead_time"] = coords["lead_time"][-1:]
        axis = list(coords).index("lead_time")
        yield x.narrow(axis, self.n_past - 1, 1), last
        while True:
            y, after = self(x, coords)
            coords["lead_time"] = np.concatenate([coords["lead_time"][1:], after["lead_time"]])
            x = torch.cat([x.narrow(axis, 1, self.n_past - 1), y], axis)
            yield y, after


class Sealed(Smoother):
    """The same in inference mode, as many models of earth2studio."""

    @torch.inference_mode()
    def __call__(self, x, coords):
        return super().__call__(x, coords)


TIME = np.datetime64("2026-01-01T06:00")
CASES = {
    "one state": (Smoother(), None),
    "two states": (Smoother(2), None),
    "dated": (Smoother(has_time=True), TIME),
    "dated, three states": (Smoother(3, has_time=True), TIME),
}
every_case = pytest.mark.parametrize(("model", "time"), CASES.values(), ids=CASES)


@every_case
def test_steps_are_those_of_the_iterator(model, time):
    adapted = Prognostic(model, time)
    assert isinstance(adapted, StepModel)
    x = normal(3, *adapted.grid.shape).float()
    coords = model.input_coords()
    coords["batch"] = np.arange(3)
    given = x if model.n_past > 1 else x[:, None]
    if model.has_time:
        coords["time"], given = np.array([time], "M8[ns]"), given[:, None]
    with torch.no_grad():
        iterator = model.create_iterator(given, coords)
        next(iterator)
        for state in trajectory(adapted, x, 4):
            expected = next(iterator)[0].reshape(3, 2, 7, 12)
            torch.testing.assert_close(state if model.n_past == 1 else state[:, -1], expected)


@every_case
def test_gradients_pass_through(model, time):
    rollout = Rollout(Prognostic(model, time), 4, every=2)
    assert gradient_error(rollout, fields=normal(2, *rollout.domain.shape).float()) < 5e-3


def test_labels():
    adapted = Prognostic(Smoother(2), units="m s-1")
    assert adapted.dt == 21600
    assert adapted.grid.dims == ("lead_time", "variable", "lat", "lon")
    np.testing.assert_array_equal(adapted.grid.coords["lead_time"], [-21600, 0])
    assert adapted.grid.units == "m s-1"
    single = Prognostic(Smoother())
    stations = Stations(single.grid, [51.5, 40.7], [0.1, -74.0])
    data = Rollout(single, 8, stations, every=4)(normal(2, 2, 7, 12).float())
    assert data.shape == (2, 2, 2, 2)
    assert repr(single) == "Prognostic(Smoother(...), dt=21600 s)"


def test_dates_go_on_with_the_steps():
    model = Smoother(2, has_time=True)
    with torch.no_grad():
        list(trajectory(Prognostic(model, TIME), torch.zeros(1, 2, 2, 7, 12), 3))
        assert [seen[0, -1] for seen in model.seen] == [TIME, TIME + 6 * HOUR, TIME + 12 * HOUR]
        model.seen.clear()
        list(trajectory(Prognostic(model, TIME), torch.zeros(1, 2, 2, 7, 12), 1, start=4))
        assert list(model.seen[0][0]) == [TIME + 18 * HOUR, TIME + 24 * HOUR]


def test_a_model_in_inference_mode_forecasts_but_has_no_gradient():
    sealed, x = Prognostic(Sealed()), normal(2, 2, 7, 12).float()
    with torch.no_grad():
        expected = Prognostic(Smoother()).step(x)
        result = sealed.step(x)
    torch.testing.assert_close(result, expected)
    assert not result.is_inference()
    sealed.step(x)  # nobody asks for a gradient
    with pytest.raises(UnsupportedError, match="records no gradient"):
        sealed.step(x.requires_grad_())


def test_what_is_refused():
    with pytest.raises(InputError, match="not a prognostic model"):
        Prognostic(torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match="not a prognostic model"):
        Prognostic(Smoother)
    with pytest.raises(InputError, match="depends on the date"):
        Prognostic(Smoother(has_time=True))
    with pytest.raises(InputError, match="not a date"):
        Prognostic(Smoother(has_time=True), "yesterday")

    class Partial(Smoother):
        def output_coords(self, input_coords):
            return OrderedDict(super().output_coords(input_coords), variable=np.array(["u10m"]))

    with pytest.raises(UnsupportedError, match=r"does not predict all.*no v10m"):
        Prognostic(Partial())

    class Stuck(Smoother):
        def output_coords(self, input_coords):
            return OrderedDict(input_coords)

    with pytest.raises(UnsupportedError, match="one step at a time"):
        Prognostic(Stuck())

    class Wrong(Smoother):
        def __call__(self, x, coords):
            y, after = super().__call__(x, coords)
            return y[..., :-1], after

    with pytest.raises(ShapeError, match="not what its coordinates say"):
        Prognostic(Wrong()).step(torch.zeros(1, 2, 7, 12))
    with pytest.raises(ShapeError, match="state does not lie"):
        Prognostic(Smoother()).step(torch.zeros(1, 7, 12))


def test_identity_is_that_of_the_weights():
    one, same, other = (Prognostic(m) for m in (Smoother(), Smoother(), Smoother()))
    with torch.no_grad():
        other.model.weight[0, 0, 0, 0] += 1e-3
    assert identity({"model": one}) == identity({"model": same})
    assert identity({"model": one}) != identity({"model": other})
