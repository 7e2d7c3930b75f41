"""What Lorenz's models and the flows in a periodic square conserve, and states known exactly."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from invdiff.dynamics import trajectory
from invdiff.errors import InputError
from invdiff.operators.atmosphere import KolmogorovFlow, Lorenz63, Lorenz96, TwoLayerQG
from tests.support.flows import DOUBLE, after, normal, smooth

FREE = KolmogorovFlow(32, 0.02, viscosity=0.0, drag=0.0, amplitude=0.0, dtype=DOUBLE)
QG = TwoLayerQG(32, 1200.0, winds=(0.0, 0.0), drag=0.0, damping_time=math.inf, dtype=DOUBLE)


def test_lorenz63_contracts_volumes_and_has_its_lyapunov_exponent():
    model = Lorenz63(0.01, dtype=DOUBLE)
    x = after(model, normal(1, 3) + torch.tensor([0.0, 0.0, 25.0]), 500)
    frame, logs, n, h = torch.eye(3, dtype=DOUBLE), torch.zeros(3, dtype=DOUBLE), 8000, 1e-6
    for _ in range(n):
        x, *perturbed = model.step(torch.cat([x, x + h * frame.mT])).split([1, 3])
        frame, r = torch.linalg.qr((perturbed[0] - x).mT / h)
        logs += r.diagonal().abs().log()
    exponents = logs / (n * model.dt)
    # The sum is the divergence of the flow, -41/3; the first is 0.906, with an error of the mean.
    assert float(exponents.sum()) == pytest.approx(-41 / 3, abs=2e-3)
    assert float(exponents[0]) == pytest.approx(0.906, abs=0.1)


def test_advection_of_lorenz96_conserves_energy():
    x = normal(4, 40)
    free = Lorenz96(forcing=0.0).tendency(x) + x
    torch.testing.assert_close((free * x).sum(-1), torch.zeros(4, dtype=DOUBLE), rtol=0, atol=1e-13)


def test_lorenz96_has_its_climate():
    states = list(trajectory(Lorenz96(), normal(8, 40).float(), 3000, every=10))[100:]
    climate = torch.stack(states)
    assert float(climate.mean()) == pytest.approx(2.34, abs=0.06)
    assert float(climate.std()) == pytest.approx(3.63, abs=0.06)


def energy_and_enstrophy(vorticity):
    speed = FREE.velocity(vorticity)
    return speed.square().mean((1, 2, 3)) * 2, vorticity.square().mean((1, 2))


def test_free_two_dimensional_flow_conserves_energy_and_enstrophy():
    """Over two turnovers; the drifts are those of the time steps, so they fall as dt^5."""
    start = after(FREE, 2 * smooth(2, 32, 32), 1)
    drifts = []
    for k in (1, 2):
        end = after(replace(FREE, dt=FREE.dt / k), start, 100 * k)
        pairs = zip(energy_and_enstrophy(end), energy_and_enstrophy(start), strict=True)
        drifts.append(max(float((a / b - 1).abs().max()) for a, b in pairs))
    assert drifts[0] < 1e-5
    assert math.log2(drifts[0] / drifts[1]) == pytest.approx(5, abs=0.5)
    moved = after(FREE, start, 100) - start
    assert float(moved.norm() / start.norm()) > 0.5


def test_viscosity_and_drag_are_exact():
    """A single wave does not advect itself: it decays at the rate nu k^2 + mu."""
    model = KolmogorovFlow(32, 0.04, viscosity=0.05, drag=0.3, amplitude=0.0, dtype=DOUBLE)
    y, x = np.meshgrid(model.grid.coords["y"], model.grid.coords["x"], indexing="ij")
    wave = torch.from_numpy(np.cos(3 * x - 4 * y))[None]
    decay = math.exp(-(0.05 * 25 + 0.3) * 20 * 0.04)
    torch.testing.assert_close(after(model, wave, 20), decay * wave, rtol=0, atol=1e-13)


def test_velocity_of_a_known_stream_function():
    model = KolmogorovFlow(32, dtype=DOUBLE)
    y, x = np.meshgrid(model.grid.coords["y"], model.grid.coords["x"], indexing="ij")
    vorticity = torch.from_numpy(-5 * np.sin(x) * np.cos(2 * y))[None]  # of psi = sin x cos 2y
    expected = np.stack([2 * np.sin(x) * np.sin(2 * y), np.cos(x) * np.cos(2 * y)])
    np.testing.assert_allclose(model.velocity(vorticity)[0], expected, atol=1e-13)


def test_the_force_spins_up_the_laminar_flow():
    """From rest, ``w = -A k cos(k y) (1 - exp(-(mu + nu k^2) t)) / (mu + nu k^2)``."""
    model = KolmogorovFlow(32, 0.02, viscosity=0.01, drag=0.1, dtype=DOUBLE)
    rate, t = 0.1 + 0.16, 50 * 0.02
    profile = -4 * torch.cos(4 * torch.from_numpy(model.grid.coords["y"]))
    expected = (profile * -math.expm1(-rate * t) / rate)[None, :, None].expand(1, 32, 32)
    result = after(model, torch.zeros(1, 32, 32, dtype=DOUBLE), 50)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-8)


def test_kolmogorov_input():
    with pytest.raises(InputError, match="more waves than the grid resolves"):
        KolmogorovFlow(16, wavenumber=6)
    with pytest.raises(InputError, match="viscosity is negative"):
        KolmogorovFlow(viscosity=-1e-3)


def qg_energy_and_enstrophy(model, q):
    """Per area of a column of unit depth: kinetic and available potential energy; enstrophy."""
    psi, v = model.stream(q), model.velocity(q)
    f_1, f_2 = model.coupling
    depths = torch.tensor([f_2, f_1], dtype=DOUBLE) / (f_1 + f_2)
    kinetic = 0.5 * (depths * v.square().sum(1).mean((2, 3))).sum(1)
    potential = 0.5 * depths[0] * f_1 * (psi[:, 0] - psi[:, 1]).square().mean((1, 2))
    return kinetic + potential, (depths * q.square().mean((2, 3))).sum(1)


def test_quasigeostrophic_flow_conserves_energy_and_enstrophy():
    model = replace(QG, depth_ratio=0.25)
    start = after(model, 4e-5 * smooth(2, 2, 32, 32), 1)
    end = after(model, start, 100)
    assert float((end - start).norm() / start.norm()) > 0.5
    pairs = zip(
        qg_energy_and_enstrophy(model, end), qg_energy_and_enstrophy(model, start), strict=True
    )
    for a, b in pairs:
        assert float((a / b - 1).abs().max()) < 1e-5


@pytest.mark.parametrize("waves", [(1, 0), (2, 0), (2, 1), (5, 2)])
def test_baroclinic_waves_grow_at_the_rate_of_linear_theory(waves):
    """Eigenvalues of the 2 x 2 problem of Phillips, with drag, against a small wave's growth."""
    model = TwoLayerQG(32, 900.0, damping_time=math.inf, dtype=DOUBLE)
    (f_1, f_2), (u_1, u_2) = model.coupling, model.winds
    k_x, k_y = (2 * math.pi / model.length * m for m in waves)
    k2 = k_x**2 + k_y**2
    q_of_psi = np.array([[-k2 - f_1, f_1], [f_2, -k2 - f_2]])
    wind = np.diag([u_1, u_2])
    gradient = np.diag([model.beta + f_1 * (u_1 - u_2), model.beta - f_2 * (u_1 - u_2)])
    drag = np.diag([0, model.drag * k2])
    tendency = -1j * k_x * (wind @ q_of_psi + gradient) + drag
    rates, modes = np.linalg.eig(tendency @ np.linalg.inv(q_of_psi))
    fastest = int(np.argmax(rates.real))
    phase = 2j * np.pi / 32 * (waves[0] * np.arange(32) + waves[1] * np.arange(32)[:, None])
    field = modes[:, fastest, None, None] * np.exp(phase)
    n = 40
    grown = after(model, torch.from_numpy(1e-12 * field.real)[None], n)
    expected = 1e-12 * (np.exp(rates[fastest] * n * model.dt) * field).real
    np.testing.assert_allclose(grown[0], expected, rtol=0, atol=2e-4 * np.abs(expected).max())
    if waves == (2, 0):
        assert rates[fastest].real * 86400 > 0.2  # the storm track does grow


def test_stream_function_inverts_the_potential_vorticity():
    model = replace(QG, depth_ratio=0.4)
    q = 1e-5 * smooth(1, 2, 32, 32)
    psi, (f_1, f_2) = model.stream(q), model.coupling
    k = 2 * math.pi / model.length * np.fft.fftfreq(32, 1 / 32)
    squared = torch.from_numpy(k[:, None] ** 2 + k**2)
    laplacian = torch.fft.ifft2(-squared * torch.fft.fft2(psi)).real
    thickness = psi[:, 1] - psi[:, 0]
    expected = laplacian + torch.stack([f_1 * thickness, -f_2 * thickness], 1)
    torch.testing.assert_close(q, expected, rtol=0, atol=1e-16)
