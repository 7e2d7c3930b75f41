"""Misfits: laws that all keep, each against a closed form or a library, basins, wrappers."""

import math

import numpy as np
import pytest
import torch
from scipy import signal
from scipy.optimize import linprog
from scipy.sparse import csr_matrix
from torch import Tensor

from invdiff.errors import DTypeError, InputError, NoiseLevelError, NonFiniteError, ShapeError
from invdiff.fwi.misfit import (
    L2,
    Envelope,
    Exponential,
    Filtered,
    GraphSpace,
    Masked,
    Misfit,
    NormalisedCorrelation,
    Shifted,
    Softplus,
    SourceFitted,
    Wasserstein,
    bandpass,
    lowpass,
)
from invdiff.fwi.misfit.envelope import squared_envelope
from invdiff.fwi.misfit.wasserstein import EVEN_SHARE

DT, F = 0.004, 5.0
WEIGHTS = torch.tensor([1.0, 0.5, 0.0])[:, None]  # by receiver

MISFITS = {
    "l2": L2(0.3),
    "correlation": NormalisedCorrelation(),
    "envelope": Envelope(),
    "envelope 1": Envelope(1.0),
    "w2 softplus": Wasserstein(DT),
    "w2 exponential": Wasserstein(DT, Exponential(2.0)),
    "w2 shifted": Wasserstein(DT, Shifted(5.0)),
    "graph space": GraphSpace(DT, 0.1),
    "masked": Masked(L2(), WEIGHTS),
    "filtered": Filtered(NormalisedCorrelation(), 30.0, DT, low=3.0),
    "source": SourceFitted(L2(0.3), 2 * DT, DT),
    "source of envelopes": SourceFitted(Envelope(), 2 * DT, DT, ridge=0.1),
    "source of masked": SourceFitted(Masked(L2(), WEIGHTS), 2 * DT, DT),
    "both": Masked(Filtered(Envelope(), 30.0, DT), WEIGHTS),
}
each = pytest.mark.parametrize("misfit", MISFITS.values(), ids=MISFITS)


def draws(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def ricker(delay: float, n: int = 400) -> Tensor:
    """One shot of one receiver."""
    a = (math.pi * F * (torch.arange(n, dtype=torch.float64) * DT - delay)) ** 2
    return ((1 - 2 * a) * torch.exp(-a))[None]


@each
def test_is_a_misfit_with_a_pasteable_name(misfit: Misfit) -> None:
    assert isinstance(misfit, Misfit)
    if "Masked" not in repr(misfit):
        assert eval(repr(misfit)) == misfit


@each
def test_zero_with_zero_gradient_at_equality(misfit: Misfit) -> None:
    observed = draws(2, 3, 40)
    predicted = observed.clone().requires_grad_()
    value = misfit(predicted, observed)
    (gradient,) = torch.autograd.grad(value.sum(), predicted)
    (elsewhere,) = torch.autograd.grad(misfit(predicted * 0.5 + 0.1, observed).sum(), predicted)
    scale = misfit(draws(2, 3, 40, seed=1), observed).max()
    assert value.shape == (2,)
    assert value.abs().max() < 1e-12 * scale
    assert gradient.abs().max() < 1e-8 * elsewhere.abs().max()


@each
def test_gradient(misfit: Misfit) -> None:
    predicted, observed = draws(2, 3, 24, seed=1).requires_grad_(), draws(2, 3, 24)
    assert torch.autograd.gradcheck(lambda p: misfit(p, observed), predicted, atol=1e-7, rtol=1e-5)


@each
def test_single_precision_agrees_with_double(misfit: Misfit) -> None:
    values, gradients = [], []
    for dtype in (torch.float64, torch.float32):
        predicted = draws(2, 3, 40, seed=1, dtype=dtype).requires_grad_()
        value = misfit(predicted, draws(2, 3, 40, dtype=dtype))
        assert value.dtype == dtype
        values.append(value.detach().double())
        gradients.append(torch.autograd.grad(value.sum(), predicted)[0].double())
    torch.testing.assert_close(values[1], values[0], rtol=1e-4, atol=0)
    assert (gradients[1] - gradients[0]).norm() < 1e-4 * gradients[0].norm()


@each
def test_dead_traces_are_harmless(misfit: Misfit) -> None:
    observed, start = draws(2, 3, 40), draws(2, 3, 40, seed=1)
    observed[0, 0], start[0, 1] = 0, 0
    observed[1], start[1] = 0, 0
    predicted = start.requires_grad_()
    value = misfit(predicted, observed)
    (gradient,) = torch.autograd.grad(value.sum(), predicted)
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    assert value[1] == 0


@each
def test_shots_and_receivers_add_up_and_leading_dims_broadcast(misfit: Misfit) -> None:
    predicted, observed = draws(2, 2, 3, 40, seed=1), draws(2, 3, 40)
    value = misfit(predicted, observed)
    one = misfit.shots([1])(predicted[0, 1], observed[1])
    assert value.shape == (2, 2)
    torch.testing.assert_close(value[0, 1], one, rtol=1e-12, atol=0)
    assert torch.equal(misfit(predicted, observed), value)


@each
def test_independent_of_units(misfit: Misfit) -> None:
    """Small amplitudes in single precision do not underflow into silence."""
    predicted, observed = (draws(1, 3, 40, seed=i, dtype=torch.float32) for i in (1, 0))
    ratio = misfit(1e-6 * predicted, 1e-6 * observed) / misfit(predicted, observed)
    power = {L2: 2, GraphSpace: 2, Envelope: 4}
    core = misfit
    while isinstance(core, Masked | Filtered | SourceFitted):
        core = core.misfit
    exponent = 2 if core == Envelope(1.0) else power.get(type(core), 0)
    assert ratio.item() == pytest.approx(1e-6**exponent, rel=1e-3)


def test_l2_is_a_gaussian_log_density() -> None:
    predicted, observed = draws(2, 3, 40, seed=1), draws(2, 3, 40)
    normal = torch.distributions.Normal(predicted, 0.3)
    expected = -(normal.log_prob(observed) - normal.log_prob(predicted)).sum((1, 2))
    torch.testing.assert_close(L2(0.3)(predicted, observed), expected)


def test_correlation_is_one_minus_the_cosine_whatever_the_amplitude() -> None:
    predicted, observed = draws(2, 3, 40, seed=1), draws(2, 3, 40)
    cosine = torch.nn.functional.cosine_similarity(predicted, observed, dim=-1)
    gains = torch.tensor([0.1, 1.0, 7.0])[:, None]
    for amplified in (predicted, gains * predicted):
        value = NormalisedCorrelation()(amplified, observed)
        torch.testing.assert_close(value, (1 - cosine).sum(-1))


@pytest.mark.parametrize("n", [40, 41])
def test_envelope_is_that_of_scipy(n: int) -> None:
    traces = draws(2, 3, n)
    expected = np.abs(signal.hilbert(traces.numpy())) ** 2
    np.testing.assert_allclose(squared_envelope(traces).numpy(), expected, rtol=1e-10)


def test_wasserstein_of_atoms_is_the_linear_programme() -> None:
    """Densities constant over fine cells against the transport of atoms in their middles."""
    n, fine = 12, 20
    predicted, observed = draws(1, n, seed=1), draws(1, n)
    peak = observed.abs().max()
    masses = []
    for traces in (predicted, observed):
        mass = torch.nn.functional.softplus(2.0 * traces[0] / peak)
        mass = (1 - EVEN_SHARE) * mass / mass.sum() + EVEN_SHARE / n
        masses.append((mass / fine).repeat_interleave(fine).numpy())
    edges = (np.arange(n * fine) + 0.5) * DT / fine
    reference = _programme(edges, *masses)
    # Inside a fine cell no more than its width is added to any path.
    value = Wasserstein(DT, Softplus(2.0))(predicted, observed).item()
    assert math.sqrt(value) == pytest.approx(math.sqrt(reference), abs=DT / fine)
    assert value == pytest.approx(reference, rel=0.02)


def _programme(positions: np.ndarray, p: np.ndarray, d: np.ndarray) -> float:
    """Cost of the cheapest plan between atoms, none of which moves half the trace."""
    n = len(positions)
    cost = np.subtract.outer(positions, positions) ** 2
    near = np.argwhere(np.abs(np.subtract.outer(np.arange(n), np.arange(n))) < n // 2)
    rows = np.arange(len(near))
    ones = np.ones(len(near))
    marginals = csr_matrix(
        (np.r_[ones, ones], (np.r_[near[:, 0], n + near[:, 1]], np.r_[rows, rows])),
        shape=(2 * n, len(near)),
    )
    plan = linprog(
        cost[near[:, 0], near[:, 1]], A_eq=marginals[:-1], b_eq=np.r_[p, d][:-1], method="highs"
    )
    assert plan.status == 0
    return float(plan.fun)


def test_wasserstein_of_a_shift_is_its_square() -> None:
    """All mass moves by the same time, so W2 = tau, up to the even share and the floor."""
    observed, predicted = torch.zeros(1, 400).double(), torch.zeros(1, 400).double()
    observed[0, 100:120], predicted[0, 137:157] = 1, 1
    value = Wasserstein(DT, Exponential(40.0))(predicted, observed).item()
    assert math.sqrt(value) == pytest.approx(37 * DT, rel=1e-4)


def test_graph_space_ends_as_least_squares_and_as_a_shift() -> None:
    predicted, observed = draws(1, 2, 30, seed=1), draws(1, 2, 30)
    assert torch.equal(GraphSpace(DT, 1e-6)(predicted, observed), L2()(predicted, observed))
    free = GraphSpace(DT, 1e6)(predicted, observed)
    ordered = L2()(predicted.sort(-1).values, observed.sort(-1).values)  # time costs nothing
    torch.testing.assert_close(free, ordered)


def basin(misfit: Misfit, *, n_shifts: int = 60) -> float:
    """Shift, in periods, up to which the misfit of a late arrival grows."""
    shifts = np.linspace(0, 3 / F, n_shifts + 1)
    values = [float(misfit(ricker(0.4 + shift), ricker(0.4))) for shift in shifts]
    falls = np.flatnonzero(np.diff(values) <= 0)
    return float(shifts[falls[0]] if falls.size else shifts[-1]) * F


@pytest.mark.parametrize(
    "misfit",
    [
        Envelope(),
        Envelope(1.0),
        Wasserstein(DT),
        Wasserstein(DT, Exponential()),
        GraphSpace(DT, 0.6),
    ],
    ids=repr,
)
def test_the_basin_is_wide(misfit: Misfit) -> None:
    """Least squares turns before half a period, these not before two."""
    n_shifts = 20 if isinstance(misfit, GraphSpace) else 60
    assert basin(L2()) < 0.5
    assert basin(NormalisedCorrelation()) < 0.5
    assert basin(misfit, n_shifts=n_shifts) > 2


def test_linear_normalisation_has_a_narrower_basin() -> None:
    assert 0.5 < basin(Wasserstein(DT, Shifted())) < 1


def test_wasserstein_is_convex_in_the_shift() -> None:
    shifts = np.linspace(0, 2 / F, 41)
    values = [float(Wasserstein(DT)(ricker(0.5 + s), ricker(0.5))) for s in shifts]
    assert np.diff(values, 2).min() > 0


def test_filtered_has_the_basin_of_its_band() -> None:
    """Continuation: half a period is longer at low frequency."""
    assert basin(Filtered(L2(), 1.5, DT)) > 1.5 * basin(L2())


def test_lowpass_has_half_amplitude_at_its_corner_and_no_phase() -> None:
    n = 4000
    t = np.arange(n) * DT
    for frequency, gain in ((2.0, 1 / (1 + 0.4**8)), (5.0, 0.5), (10.0, 1 / (1 + 2.0**8))):
        wave = np.cos(2 * np.pi * frequency * t)
        middle = slice(n // 4, 3 * n // 4)
        filtered = lowpass(wave, 5.0, DT)
        np.testing.assert_allclose(filtered[middle], gain * wave[middle], atol=1e-3)


def test_lowpass_of_torch_and_numpy_agree_and_keep_dtype() -> None:
    traces = draws(2, 3, 50, dtype=torch.float32)
    filtered = lowpass(traces, 20.0, DT)
    assert filtered.dtype == torch.float32
    other = lowpass(traces.numpy(), 20.0, DT)
    assert other.dtype == np.float32
    np.testing.assert_array_equal(filtered.numpy(), other)


def test_filters_are_symmetric_and_do_not_wrap() -> None:
    a, b = draws(1, 60), draws(1, 60, seed=1)
    left = (bandpass(a, 5.0, 40.0, dt=DT) * b).sum()
    right = (a * bandpass(b, 5.0, 40.0, dt=DT)).sum()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=0)
    end = torch.zeros(1000).double()
    end[-1] = 1
    assert lowpass(end, 20.0, DT)[:500].abs().max() < 1e-8


def test_bandpass_removes_the_mean_and_lowpass_keeps_it() -> None:
    traces = 3 + torch.zeros(4000).double()
    assert bandpass(traces, 3.0, 20.0, dt=DT)[2000].abs() < 1e-4
    assert lowpass(traces, 20.0, DT)[2000].item() == pytest.approx(3, abs=1e-4)


def test_filtering_traces_is_filtering_the_wavelet() -> None:
    medium, wavelet = draws(300).numpy(), ricker(2.0, n=1000)[0].numpy()
    filtered = lowpass(np.convolve(medium, wavelet), 4.0, DT)
    other = np.convolve(medium, lowpass(wavelet, 4.0, DT))
    assert np.linalg.norm(filtered - other) < 1e-4 * np.linalg.norm(filtered)


def test_masked_leaves_out_and_weighs() -> None:
    predicted, observed = draws(2, 3, 40, seed=1), draws(2, 3, 40)
    weights = torch.ones(2, 3, 1)
    weights[0, 1], weights[1, 2] = 0, 2
    expected = 0.5 * ((weights * (predicted - observed)) ** 2).sum((1, 2))
    masked = Masked(L2(), weights)
    torch.testing.assert_close(masked(predicted, observed), expected)
    second = masked.shots([1])(predicted[1:], observed[1:])
    torch.testing.assert_close(second, expected[1:])
    nested = Filtered(masked, 20.0, DT).shots([1])
    assert isinstance(nested.misfit, Masked)
    assert nested.misfit.weights.shape == (1, 3, 1)


def test_order_of_wrappers() -> None:
    """The outer one comes first: muted, then filtered."""
    predicted, observed, weights = draws(1, 2, 40, seed=1), draws(1, 2, 40), torch.zeros(40)
    weights[:20] = 1
    value = Masked(Filtered(L2(), 10.0, DT), weights)(predicted, observed)
    expected = L2()(lowpass(weights * predicted, 10.0, DT), lowpass(weights * observed, 10.0, DT))
    torch.testing.assert_close(value, expected)


@each
@pytest.mark.parametrize("shape", [(2, 3, 41), (2, 4, 40), (3, 3, 40), (40,), (2, 2, 3, 40)])
def test_bad_shapes(misfit: Misfit, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="do not match"):
        misfit(draws(2, 3, 40), draws(*shape))


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128, torch.int64])
def test_bad_dtypes(misfit: Misfit, dtype: torch.dtype) -> None:
    with pytest.raises(DTypeError, match="not of one real floating dtype"):
        misfit(draws(2, 3, 40), draws(2, 3, 40).to(dtype))


def test_bad_parameters() -> None:
    for noise_std in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(NoiseLevelError):
            L2(noise_std)
    for make in (Envelope, Wasserstein, Softplus, Exponential, Shifted):
        with pytest.raises(InputError, match="out of range"):
            make(0.0)
    with pytest.raises(InputError, match="max_shift"):
        GraphSpace(DT, -1.0)
    with pytest.raises(InputError, match="not ms"):
        Filtered(L2(), 5.0, 4.0)  # ms
    with pytest.raises(InputError, match="frequency band is out of range"):
        lowpass(draws(40), 0.0, DT)
    with pytest.raises(InputError, match="frequency band is out of range"):
        bandpass(draws(40), 20.0, 10.0, dt=DT)
    with pytest.raises(InputError, match="order"):
        lowpass(draws(40), 10.0, DT, order=0)


def test_bad_weights() -> None:
    with pytest.raises(NonFiniteError):
        Masked(L2(), torch.tensor([1.0, math.nan]))
    with pytest.raises(ShapeError, match="too many axes"):
        Masked(L2(), torch.ones(1, 1, 1, 1))
    with pytest.raises(ShapeError, match=r"shots\(indices\)"):
        Masked(L2(), torch.ones(5, 1, 1))(draws(2, 3, 40), draws(2, 3, 40))
