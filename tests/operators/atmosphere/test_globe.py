"""Flows on the sphere: what they conserve, and states known exactly."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from invdiff.errors import InputError
from invdiff.operators.atmosphere import (
    BarotropicVorticity,
    ShallowWater,
    SphericalHarmonics,
    galewsky_jet,
)
from tests.support.flows import DOUBLE, after, shallow_water_states, smooth_waves

SPHERE = SphericalHarmonics(24)
FREE = BarotropicVorticity(SPHERE, 1800.0, damping_time=math.inf, dtype=DOUBLE)
SHALLOW = ShallowWater(SPHERE, 900.0, damping_time=math.inf, dtype=DOUBLE)
AREA = torch.from_numpy(SPHERE.weights)[:, None] / SPHERE.shape[1]


def mean(field):
    return (field * AREA).sum((-2, -1))


def rossby_haurwitz(harmonics, *, order=4, omega=7.848e-6, k=7.848e-6, shift=0.0):
    """Vorticity of the wave of the test cases of Williamson et al. (1992), turned eastwards."""
    lat = np.radians(harmonics.latitudes)[:, None]
    lon = np.radians(harmonics.longitudes) - shift
    wave = np.cos(lat) ** order * np.cos(order * lon) * (order**2 + 3 * order + 2)
    return torch.from_numpy(2 * omega * np.sin(lat) - k * np.sin(lat) * wave)[None]


def test_a_rossby_haurwitz_wave_keeps_its_form_and_phase_speed():
    """Haurwitz (1940): ``(R (3 + R) omega - 2 Omega) / ((1 + R) (2 + R))``, 12.2 degrees a day."""
    order, omega = 4, 7.848e-6
    speed = (order * (3 + order) * omega - 2 * FREE.rotation) / ((1 + order) * (2 + order))
    n_steps = 96  # two days
    result = after(FREE, rossby_haurwitz(SPHERE), n_steps)
    turned = rossby_haurwitz(SPHERE, shift=speed * n_steps * FREE.dt)
    assert float((result - turned).norm() / turned.norm()) < 1e-8
    assert np.degrees(speed) * 86400 == pytest.approx(12.2, abs=0.1)
    still = rossby_haurwitz(SPHERE)
    assert float((result - still).norm() / still.norm()) > 0.5


def test_free_barotropic_flow_conserves_energy_enstrophy_and_momentum():
    start = 2e-5 * SPHERE.inverse(smooth_waves(SPHERE, 2))
    drifts = []
    for k in (1, 2):
        end = after(replace(FREE, dt=FREE.dt / k), start, 96 * k)
        invariants = [
            (mean(x.square()), mean(FREE.velocity(x).square().sum(1))) for x in (start, end)
        ]
        drifts.append(max(float((b / a - 1).abs().max()) for a, b in zip(*invariants, strict=True)))
    assert float((end - start).norm() / start.norm()) > 0.5
    assert drifts[0] < 1e-5
    assert math.log2(drifts[0] / drifts[1]) == pytest.approx(5, abs=0.5)
    cosine = torch.from_numpy(np.cos(np.radians(SPHERE.latitudes)))[:, None]
    momentum = [mean(FREE.velocity(x)[:, 0] * cosine) for x in (start, end)]
    torch.testing.assert_close(*momentum, rtol=1e-12, atol=1e-12)
    assert float(mean(end).abs().max()) < 1e-17


def test_hyperdiffusion_acts_on_the_smallest_scales():
    model = replace(FREE, damping_time=7200.0, rotation=0.0)
    a = torch.zeros(1, SPHERE.degree + 1, SPHERE.degree + 1, dtype=torch.complex128)
    for degree, kept in ((SPHERE.degree, math.exp(-1)), (3, 1.0)):
        zonal = a.clone()
        zonal[0, degree, 0] = 1e-6
        end = SPHERE.forward(after(model, SPHERE.inverse(zonal), 4))[0, degree, 0].real
        assert float(end) / 1e-6 == pytest.approx(kept, rel=1e-3)


def test_input_of_the_barotropic_model():
    with pytest.raises(InputError, match="harmonics is not a transform"):
        BarotropicVorticity(32)
    with pytest.raises(InputError, match="damping_time"):
        BarotropicVorticity(damping_time=0.0)
    with pytest.raises(InputError, match="rotation is negative"):
        BarotropicVorticity(rotation=-7e-5)


@pytest.mark.parametrize(("degree", "order"), [(1, 0), (4, 2), (10, 7)])
def test_gravity_waves_have_their_frequency(degree, order):
    """Small waves on a layer at rest: ``omega = sqrt(g H l (l + 1)) / a``, without rotation."""
    model = replace(SHALLOW, rotation=0.0)
    a = torch.zeros(1, SPHERE.degree + 1, SPHERE.degree + 1, dtype=torch.complex128)
    a[0, degree, order] = 1e-3
    rest, wave = torch.zeros(1, 3, *SPHERE.shape, dtype=DOUBLE), SPHERE.inverse(a)
    rest[:, 2] = 1e4
    start = rest.clone()
    start[:, 2] += wave
    omega = math.sqrt(model.gravity * 1e4 * degree * (degree + 1)) / model.radius
    n_steps = 40
    end = after(model, start, n_steps) - rest
    phase = omega * n_steps * model.dt
    torch.testing.assert_close(end[:, 2], math.cos(phase) * wave, rtol=0, atol=2e-5)
    # dh/dt = -H div v, and v is a gradient: H lap chi = omega sin(omega t) h.
    chi = omega * math.sin(phase) * a * (model.radius / 1e4 / -(degree * (degree + 1)))
    expected = torch.stack(SPHERE.gradient(chi), 1)
    torch.testing.assert_close(end[:, :2], expected, rtol=0, atol=1e-6)


def test_solid_rotation_is_steady():
    """Case 2 of Williamson et al. (1992): a zonal flow in gradient balance, twelve days round."""
    lat = torch.from_numpy(np.radians(SPHERE.latitudes))[:, None]
    speed = 2 * math.pi * SHALLOW.radius / (12 * 86400)
    slope = (SHALLOW.radius * SHALLOW.rotation * speed + speed**2 / 2) / SHALLOW.gravity
    height = 2.94e4 / SHALLOW.gravity - slope * torch.sin(lat) ** 2
    fields = [speed * torch.cos(lat), torch.zeros_like(lat), height]
    state = torch.stack([field.expand(SPHERE.shape) for field in fields])[None]
    torch.testing.assert_close(after(SHALLOW, state, 96), state, rtol=0, atol=1e-8)


def test_mass_is_conserved_and_energy_nearly():
    start = shallow_water_states(SPHERE, 2)
    end = after(SHALLOW, start, 96)
    assert float((end - start)[:, :2].norm() / start[:, :2].norm()) > 0.5
    assert float((mean(end[:, 2]) - mean(start[:, 2])).abs().max()) < 1e-9

    def energy(x):  # per mass, above that of the layer at rest
        kinetic = 0.5 * mean(x[:, 2] * x[:, :2].square().sum(1))
        return kinetic + 0.5 * SHALLOW.gravity * mean((x[:, 2] - 1e4).square())

    assert float((energy(end) / energy(start) - 1).abs().max()) < 1e-3


def test_the_jet_stays_balanced_and_the_bump_does_not():
    """Galewsky et al. (2004): a steady state for a day, and waves from the bump."""
    sphere = SphericalHarmonics(64)
    model = ShallowWater(sphere, 900.0, damping_time=math.inf, dtype=DOUBLE)
    states = torch.stack([galewsky_jet(model, is_perturbed=p) for p in (False, True)])
    end = after(model, states, 96)
    change = end - after(model, states, 1)  # the first step truncates
    assert float(change[0, :2].abs().max()) < 0.01  # m/s, of 80
    assert float(change[0, 2].abs().max()) < 0.3  # m, of 10 km
    assert float(change[1, :2].abs().max()) > 1
    assert 77 < float(states[0, 0].max()) <= 80  # no latitude is that of the maximum
    heights = (states[:, 2] * torch.from_numpy(sphere.weights)[:, None]).sum(1).mean(1)
    assert float(heights[0]) == pytest.approx(1e4, abs=1e-6)


def test_input_of_the_jet():
    with pytest.raises(InputError, match="needs a shallow-water model"):
        galewsky_jet(FREE)
    with pytest.raises(InputError, match=r"gravity waves and winds add up to 428 m/s"):
        ShallowWater(dt=3600.0)
