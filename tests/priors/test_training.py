"""The training loop: it learns, resumes bit for bit, averages, and stops when it diverges."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from invdiff.errors import DivergedError, InputError, ShapeError
from invdiff.priors.edm import EDMNetwork
from invdiff.priors.train import Batch, TrainingRecipe, prefetch, train
from invdiff.priors.unet import UNetConfig
from invdiff.run_state import load
from tests.support import tiny

CONFIG = UNetConfig(channels=1, widths=(16, 24), blocks=1, embedding=32)
FIELDS = tiny.SmoothFields()


def fresh(seed: int = 0) -> EDMNetwork:
    return tiny.network(CONFIG, wiggle=0.1, seed=seed).requires_grad_(True)


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def assert_equal(a: nn.Module, b: nn.Module) -> None:
    for (name, x), y in zip(weights(a).items(), weights(b).values(), strict=True):
        assert torch.equal(x, y), name


def denoising_error(network: EDMNetwork, level: float) -> float:
    """Mean square error on new fields, over that of the exact denoiser."""
    fields, positions = tiny.SmoothFields(batch_size=64, seed=9)(0)
    x_0 = torch.from_numpy(fields)
    x_t = x_0 + level * tiny.standard_normal(tuple(x_0.shape), 5, torch.float32)
    power = torch.from_numpy(FIELDS.spectrum).float()
    with torch.no_grad():
        found = network(x_t, torch.full((64,), level), torch.from_numpy(positions)).mean
    exact = torch.fft.ifft2(power / (power + level**2) * torch.fft.fft2(x_t)).real
    return float((found - x_0).square().mean() / (exact - x_0).square().mean())


@pytest.mark.slow
def test_training_approaches_the_exact_denoiser() -> None:
    recipe = TrainingRecipe(600, learning_rate=3e-3, warmup=20, ema=0.98, noise_median=0.2)
    untrained = fresh()
    before = [denoising_error(untrained, level) for level in (0.1, 0.3, 1.0)]
    network = train(untrained, FIELDS, recipe, workers=0, progress=False)
    after = [denoising_error(network, level) for level in (0.1, 0.3, 1.0)]
    for b, a in zip(before, after, strict=True):
        assert a < 1.15, (before, after)  # the exact one is the floor: 1
        assert a > 0.98, "better than the optimum is impossible"
        assert a < 1 + 0.35 * (b - 1), (before, after)
    # The stated error is the actual one.
    fields, positions = tiny.SmoothFields(batch_size=64, seed=9)(0)
    x_0, sigma = torch.from_numpy(fields), torch.full((64,), 0.3)
    x_t = x_0 + 0.3 * tiny.standard_normal(tuple(x_0.shape), 5, torch.float32)
    with torch.no_grad():
        mean, std = network(x_t, sigma, torch.from_numpy(positions))
    ratio = float((mean - x_0).square().mean() / std.square().mean())
    assert 0.85 < ratio < 1.18


def test_a_short_run_already_learns() -> None:
    recipe = TrainingRecipe(60, learning_rate=3e-3, warmup=5, ema=0.9, noise_median=0.2)
    network = fresh()
    before = denoising_error(network, 0.3)
    averaged = train(network, FIELDS, recipe, workers=0, progress=False)
    assert denoising_error(averaged, 0.3) < 0.8 * before
    assert not any(p.requires_grad for p in averaged.parameters())


class InterruptedError_(Exception):
    pass


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_stopped_run_resumes_bit_for_bit(tmp_path: Path, layout: torch.memory_format) -> None:
    recipe = TrainingRecipe(9, warmup=3)
    whole = fresh().to(memory_format=layout)
    averaged = train(whole, FIELDS, recipe, workers=0, progress=False)

    def killed(step: int) -> Batch:
        if step == 6:
            raise InterruptedError_
        return FIELDS(step)

    checkpoint = tmp_path / "run.safetensors"
    with pytest.raises(InterruptedError_):
        train(
            fresh().to(memory_format=layout),
            killed,
            recipe,
            checkpoint=checkpoint,
            checkpoint_every=4,
            workers=0,
            progress=False,
        )
    seen = []

    def watched(step: int) -> Batch:
        seen.append(step)
        return FIELDS(step)

    resumed = fresh(seed=77).to(memory_format=layout)  # what it starts from is of no account
    again = train(resumed, watched, recipe, checkpoint=checkpoint, workers=0, progress=False)
    assert seen == [4, 5, 6, 7, 8]
    assert_equal(resumed, whole)
    assert_equal(again, averaged)
    assert load(checkpoint, run=None)["step"] == 9
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]
    # A run that is complete is read, not trained on.
    seen.clear()
    done = train(fresh(5), watched, recipe, checkpoint=checkpoint, workers=0, progress=False)
    assert seen == []
    assert_equal(done, averaged)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"learning_rate": 2e-3}, "recipe.learning_rate"),
        ({"noise_median": 0.2}, "recipe.noise_median"),
        ({"steps": 4}, "recipe.steps"),
        ({"config": replace(CONFIG, widths=(16, 32))}, "network"),
        ({"sigma_data": 0.5}, "network"),
    ],
    ids=str,
)
def test_a_run_resumes_with_its_own_settings_only(
    tmp_path: Path, changed: dict[str, object], words: str
) -> None:
    def run(
        steps: int = 2, *, config: UNetConfig = CONFIG, sigma_data: float = 0.3, **recipe: float
    ) -> EDMNetwork:
        network = tiny.network(config, wiggle=0.1, sigma_data=sigma_data).requires_grad_(True)
        return train(
            network,
            FIELDS,
            TrainingRecipe(steps, warmup=1, **recipe),
            checkpoint=str(tmp_path / "runs" / "run.safetensors"),  # the folder is made
            workers=0,
            progress=False,
        )

    first = run()
    assert_equal(run(), first)
    with pytest.raises(InputError, match=f"differs in {words};"):
        run(**changed)
    (tmp_path / "runs" / "run.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="not a stored run"):
        run()


@pytest.mark.parametrize(
    "numbers",
    [
        {"steps": 1.5},
        {"steps": True},
        {"steps": 0},
        {"warmup": 0},
        {"seed": -1},
        {"seed": 0.5},
        {"learning_rate": 0.0},
        {"learning_rate": np.nan},
        {"decay": 1.5},
        {"ema": 1.0},
        {"variance_weight": -1.0},
    ],
    ids=str,
)
def test_numbers_that_do_not_make_a_run_are_refused(numbers: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(numbers))):
        TrainingRecipe(**{"steps": 10, **numbers})


def test_numpy_numbers_make_the_same_run() -> None:
    made = TrainingRecipe(np.int64(9), learning_rate=np.float64(0.5), warmup=np.uint8(3))
    assert repr(made) == repr(TrainingRecipe(9, learning_rate=0.5, warmup=3))
    config = UNetConfig(np.int64(1), widths=[np.int32(8), 12], blocks=np.int8(1))
    assert repr(config) == repr(UNetConfig(1, widths=(8, 12), blocks=1))


@pytest.mark.parametrize(
    "numbers",
    [{"channels": 0}, {"channels": 1.0}, {"widths": ()}, {"widths": (8.5,)}, {"blocks": True}],
    ids=str,
)
def test_sizes_that_do_not_make_a_network_are_refused(numbers: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"integer|too small|at least one level"):
        UNetConfig(**numbers)


def test_batches_of_other_channels_are_refused() -> None:
    def two_channels(step: int) -> Batch:
        fields, positions = FIELDS(step)
        return np.concatenate([fields, fields], axis=1), positions

    with pytest.raises(ShapeError, match="number of channels"):
        train(fresh(), two_channels, TrainingRecipe(1), workers=0, progress=False)
    with pytest.raises(InputError, match="workers"):
        train(fresh(), FIELDS, TrainingRecipe(1), workers=-1, progress=False)


def test_the_average_is_exponential() -> None:
    network, history = fresh(), []

    def recording(step: int) -> Batch:
        history.append(weights(network))
        return FIELDS(step)

    recipe = TrainingRecipe(6, warmup=1, ema=0.3, learning_rate=1e-2)
    averaged = train(network, recording, recipe, workers=0, progress=False)
    history.append(weights(network))
    for name, found in averaged.named_parameters():
        expected = history[0][name]
        for step, new in enumerate(history[1:]):
            decay = min(0.3, (step + 1) / (step + 10))  # shorter at first
            expected = decay * expected + (1 - decay) * new[name]
        torch.testing.assert_close(found.detach(), expected, rtol=1e-5, atol=1e-6)


def test_the_run_does_not_touch_the_global_generator() -> None:
    recipe = TrainingRecipe(2)
    state = torch.random.get_rng_state()
    a = train(fresh(), FIELDS, recipe, workers=0, progress=False)
    assert torch.equal(state, torch.random.get_rng_state())
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(99)
        b = train(fresh(), FIELDS, recipe, workers=0, progress=False)
    assert_equal(a, b)


def test_not_a_number_stops_the_run_and_spares_the_checkpoint(tmp_path: Path) -> None:
    def spoilt(step: int) -> Batch:
        fields, positions = FIELDS(step)
        return (fields * np.float32(np.nan) if step == 3 else fields), positions

    checkpoint = tmp_path / "run.safetensors"
    with pytest.raises(DivergedError, match="step 3") as caught:
        train(
            fresh(),
            spoilt,
            TrainingRecipe(8),
            checkpoint=checkpoint,
            checkpoint_every=1,
            workers=0,
            progress=False,
        )
    assert "learning_rate" in str(caught.value)
    stored = load(checkpoint, run=None)
    assert stored["step"] == 3
    for group in (stored["network"], stored["averaged"], *stored["optimiser"].values()):
        assert all(torch.isfinite(tensor).all() for tensor in group.values())


@pytest.mark.parametrize(
    ("steps", "workers"),
    [
        (range(0), 0),
        (range(5, 17), 0),
        pytest.param(range(5, 17), 1, marks=pytest.mark.slow),  # a process that imports torch
    ],
)
def test_prefetch_keeps_the_order(steps: range, workers: int) -> None:
    small = tiny.SmoothFields(8, 2)
    found = list(prefetch(small, steps, workers=workers))
    assert len(found) == len(steps)
    for (fields, positions), step in zip(found, steps, strict=True):
        np.testing.assert_array_equal(fields, small(step)[0])
        np.testing.assert_array_equal(positions, small(step)[1])


# --- the recipe and the loss ----------------------------------------------------------------------


def test_the_rate_warms_up_and_cools_down() -> None:
    recipe = TrainingRecipe(1000, learning_rate=2.0, warmup=100, decay=0.3)
    rates = [recipe.rate(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.02)
    assert rates[49] == pytest.approx(1.0)
    assert rates[100] == rates[500] == rates[699] == 2.0
    assert rates[850] == pytest.approx(1.0)
    assert 0 < rates[999] < 0.01


def test_noise_levels_are_log_normal_and_stratified() -> None:
    recipe = TrainingRecipe(1, noise_median=0.2, noise_spread=1.1)
    shape = (2000, 1, 2, 2)
    levels, noise = recipe.noise(0, shape)
    logs = np.log(levels)
    # One level in each of n equal quantiles: mean and spread are known better than by chance.
    assert float(logs.mean()) == pytest.approx(np.log(0.2), abs=1e-2)
    assert float(logs.std()) == pytest.approx(1.1, rel=1e-2)
    assert float(noise.var()) == pytest.approx(1, abs=4 * (2 / noise.size) ** 0.5)
    same_levels, same_noise = recipe.noise(0, shape)
    assert np.array_equal(levels, same_levels)
    assert np.array_equal(noise, same_noise)
    assert not np.array_equal(levels, recipe.noise(1, shape)[0])


def losses(
    network: EDMNetwork, *, variance_weight: float, sigma: float = 0.3
) -> tuple[Tensor, Tensor]:
    fields, positions = FIELDS(0)
    x_0 = torch.from_numpy(fields)
    return network.loss(
        x_0,
        tiny.standard_normal(tuple(x_0.shape), 1, torch.float32),
        torch.full((len(x_0),), sigma),
        positions=torch.from_numpy(positions),
        variance_weight=variance_weight,
    )


def test_the_loss_is_that_of_edm() -> None:
    """Weighted by ``1 / c_out^2``: the squared error of the denoised field in those units."""
    network = fresh()
    total, squared = losses(network, variance_weight=0.0)
    fields, positions = FIELDS(0)
    x_0 = torch.from_numpy(fields)
    x_t = x_0 + 0.3 * tiny.standard_normal(tuple(x_0.shape), 1, torch.float32)
    mean = network(x_t, torch.full((len(x_0),), 0.3), torch.from_numpy(positions)).mean
    c_out2 = 0.3**2 * tiny.SIGMA_DATA**2 / (0.3**2 + tiny.SIGMA_DATA**2)
    expected = (mean - x_0).square().mean((1, 2, 3)) / c_out2
    torch.testing.assert_close(squared, expected.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(total.detach(), expected.mean().detach(), rtol=1e-4, atol=1e-6)


def test_the_error_estimate_does_not_pull_at_the_mean() -> None:
    """Gradients of the mean's own outputs are the same whatever the estimate weighs."""
    gradients = []
    for variance_weight in (0.0, 10.0):
        network = fresh()
        losses(network, variance_weight=variance_weight)[0].backward()
        gradients.append(network.network.leave.weight.grad)
    n_mean = 4 * CONFIG.channels
    torch.testing.assert_close(gradients[0][:n_mean], gradients[1][:n_mean])
    assert (gradients[0][n_mean:] == 0).all()
    assert (gradients[1][n_mean:] != 0).any()


def test_the_error_estimate_is_best_when_it_is_right() -> None:
    network = fresh()
    with torch.no_grad():
        network.network.leave.weight.zero_()  # the same estimate everywhere
    _, squared = losses(network, variance_weight=1.0)
    totals = []
    for factor in (0.5, 1.0, 2.0):
        tuned = copy.deepcopy(network)
        with torch.no_grad():
            tuned.network.leave.bias[-4:] = float(torch.log(factor * squared.mean()))
        totals.append(float(losses(tuned, variance_weight=1.0)[0].detach()))
    assert totals[1] < min(totals[0], totals[2])
