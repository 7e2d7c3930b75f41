"""From images to a stored prior: the page of the docs, and figures that are those of its parts."""

import copy
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from invdiff.errors import (
    DTypeError,
    InputError,
    NonFiniteError,
    OutputExistsError,
    ShapeError,
)
from invdiff.grid import Grid
from invdiff.priors import EDMNetwork, NetworkPrior, UNetConfig, load_prior, recipes, save_prior
from invdiff.priors.fit import fit_error_spectra, validate
from invdiff.priors.positions import Centred, Depth, Positions
from invdiff.priors.recipes import brain_t1, velocity_2d
from invdiff.priors.recipes.brain_generator import BrainGenerator
from invdiff.priors.recipes.velocity_generator import VelocityGenerator
from invdiff.priors.spectral import ErrorSpectra
from invdiff.priors.train import TrainingRecipe, train
from invdiff.schedule import VE
from tests.priors.test_brain_generator import ellipse_maps
from tests.support import tiny


def fields(grid: Grid, n: int, seed: int) -> Tensor:
    return tiny.standard_normal((n, *grid.shape), seed, grid.dtype)


VELOCITY = Grid(("z", "x"), (12, 10), torch.float32, units="m s-1")
IMAGE = Grid(("y", "x"), (12, 10), torch.complex64)


@pytest.mark.parametrize(
    ("grid", "scale", "offset", "coordinates", "schedule"),
    [
        (IMAGE, 1.0, 0.0, Centred(), VE(0.005, 8.0)),
        (VELOCITY, 1000.0, 3000.0, Depth(70.0), VE(5.0, 2e4)),
    ],
    ids=["brain", "velocity"],
)
def test_one_call_gives_the_bits_of_its_parts(
    grid: Grid, scale: float, offset: float, coordinates: Positions, schedule: VE
) -> None:
    """The steps as the recipes of the shipped priors had them, one by one."""
    config = UNetConfig(
        channels=2 if grid.is_complex else 1,
        positions=coordinates.n_channels,
        widths=(8, 12),
        blocks=1,
        embedding=16,
    )
    network = tiny.network(config, wiggle=1.0)
    weights = copy.deepcopy(network.state_dict())
    fit, check = (offset + scale * fields(grid, 6, seed) for seed in (1, 2))
    found = NetworkPrior.fitted(
        network,
        fit.split(4),
        grid,
        validation=check.split(4),
        schedule=schedule,
        scale=scale,
        offset=offset,
        coordinates=coordinates,
        card={"name": "mine"},
        n_levels=7,
    )
    for key, value in network.state_dict().items():
        assert torch.equal(value, weights[key])  # the given network is not touched

    rounded = copy.deepcopy(network)
    for parameter in rounded.parameters():
        parameter.data = parameter.half().float()
    units = {"schedule": schedule, "scale": scale, "offset": offset, "coordinates": coordinates}
    ratios = np.geomspace(schedule.ratio_min, schedule.ratio_max, 7)
    white = ErrorSpectra(ratios[[0, -1]] / scale, np.array([0.0, 1.0]), np.ones((2, 2)))
    raw = fit_error_spectra(
        NetworkPrior(rounded, white, grid, **units), fit.split(4), ratios=ratios
    )
    spectra = ErrorSpectra(ratios / scale, raw.wavenumbers, raw.power)
    prior = NetworkPrior(rounded, spectra, grid, **units)
    for axis in ("ratios", "wavenumbers", "power"):
        np.testing.assert_array_equal(getattr(found.spectra, axis), getattr(spectra, axis))
    assert found.card == {
        "name": "mine",
        "metrics": validate(prior, check.split(4), ratios=ratios[::2]),
    }
    x_t, t = offset + scale * fields(grid, 2, 3), torch.tensor(0.3 * scale, dtype=torch.float64)
    assert torch.equal(found.denoise(x_t, t), prior.denoise(x_t, t))


def test_an_exact_network_is_fitted_to_its_exact_error(tmp_path: Path) -> None:
    """White noise of 0.3: `tiny.network` denoises it exactly, and its scaled error is white."""
    grid = Grid(("y", "x"), (16, 16))
    network = tiny.network(UNetConfig(1, widths=(8,), blocks=1, embedding=16))
    drawn = tiny.SIGMA_DATA * fields(grid, 64, 0)
    prior = NetworkPrior.fitted(
        network,
        drawn[:32].split(16),
        grid,
        validation=drawn[32:].split(16),
        schedule=VE(0.01, 8.0),
        card={key: tiny.CARD[key] for key in ("name", "data", "licence", "recipe", "seed")},
        n_levels=5,
    )
    # 32 fields of 256 modes, of which the bins near |k| = 0 hold few.
    assert prior.spectra.power.mean() == pytest.approx(1, abs=0.1)
    for row in prior.card["metrics"]:
        exact = row["ratio"] * tiny.SIGMA_DATA / np.hypot(row["ratio"], tiny.SIGMA_DATA)
        # 8192 errors: a standard error of 0.8 % of the root mean square, 0.3 % of the coverage.
        assert row["rmse"] == pytest.approx(exact, rel=0.032)
        assert row["expected_rmse"] == pytest.approx(exact, rel=0.032)
        assert row["coverage90"] == pytest.approx(0.9, abs=0.02)
    save_prior(prior, tmp_path / "white")  # the card of the prior is enough
    again = load_prior(tmp_path / "white")
    assert again.card["metrics"] == prior.card["metrics"]
    x_t, t = fields(grid, 1, 5), torch.tensor(0.3, dtype=torch.float64)
    assert torch.equal(again.denoise(x_t, t), prior.denoise(x_t, t))


@pytest.mark.parametrize(
    ("batches", "error"),
    [
        ([], InputError),
        ([torch.zeros(0, 12, 10)], InputError),
        ([torch.zeros(12, 10)], ShapeError),
        ([torch.zeros(2, 10, 12)], ShapeError),
        ([torch.zeros(2, 12, 10, dtype=torch.complex64)], DTypeError),
        ([torch.full((2, 12, 10), torch.nan)], NonFiniteError),
    ],
)
def test_fields_that_cannot_be_fitted_are_refused(
    batches: list[Tensor], error: type[InputError]
) -> None:
    prior = tiny.prior((12, 10), dtype=torch.float32)
    good = [torch.zeros(2, 12, 10)]
    for fit, check in ((batches, good), (good, batches)):
        with pytest.raises(error):
            NetworkPrior.fitted(prior.network, fit, prior.grid, validation=check, n_levels=2)


@pytest.mark.parametrize("n_levels", [1, 2.0, True])
def test_levels_are_counted(n_levels: object) -> None:
    prior = tiny.prior((12, 10), dtype=torch.float32)
    with pytest.raises(InputError, match="n_levels"):
        NetworkPrior.fitted(prior.network, [], prior.grid, validation=[], n_levels=n_levels)


def test_an_untrained_network_is_a_function_of_its_seed() -> None:
    before = torch.get_rng_state()
    first, again, other = (EDMNetwork.untrained(tiny.CONFIG, 0.3, seed=s) for s in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), before)
    pairs = zip(first.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    enter = "network.enter.weight"
    assert not torch.equal(first.state_dict()[enter], other.state_dict()[enter])
    assert first.network.enter.weight.is_contiguous(memory_format=torch.channels_last)


# --- recipes --------------------------------------------------------------------------------------


def test_the_page_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line by line, with a smaller network and run."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, n in (("train", 6), ("validation", 8)):
        values = (0.3 * rng.standard_normal((n, 72, 70))).astype("f4")
        xr.Dataset({"image": (("n", "y", "x"), values)}).to_zarr(f"{name}.zarr", zarr_format=2)
    page = recipes.__doc__.partition("::\n\n")[2].partition("\n\n``sigma_data``")[0]
    page = "\n".join(line[4:] for line in page.splitlines())
    smaller = {
        "UNetConfig(channels=1)": "UNetConfig(channels=1, widths=(8,), blocks=1, embedding=16)",
        "steps=4000)": "steps=2, warmup=1)",
        'checkpoint="run.safetensors")': 'checkpoint="run.safetensors", workers=0, progress=False)',
        "batch_size=16": "batch_size=2",
    }
    for given, small in smaller.items():
        assert page.count(given) == 1, given
        page = page.replace(given, small)
    names: dict[str, object] = {}
    exec(page, names)
    prior = load_prior("mine", grid=Grid(("y", "x"), (40, 30)))
    assert prior.card["name"] == "mine"
    assert [row["ratio"] for row in prior.card["metrics"]] == pytest.approx(
        np.geomspace(0.005, 8.0, 20)[::2]
    )
    made = names["prior"]
    np.testing.assert_allclose(prior.spectra.power, made.spectra.power, rtol=1e-6)
    n_lines = len([line for line in re.split(r"\n(?!\s|\))", page) if line.strip()])
    assert n_lines <= 15


def test_the_recipe_of_the_velocity_prior_ends_in_a_prior() -> None:
    network = EDMNetwork.untrained(velocity_2d.CONFIG, velocity_2d.SIGMA_DATA)
    prior = velocity_2d.fit(network, VelocityGenerator(), n_models=2)
    assert prior.grid == velocity_2d.GRID
    assert (prior.scale, prior.offset, prior.coordinates) == (1000.0, 3000.0, Depth(70.0))
    assert prior.spectra.power.shape == (25, 32)
    np.testing.assert_allclose(prior.spectra.ratios, np.geomspace(0.005, 20.0, 25))
    assert len(prior.card["metrics"]) == 13


def test_patches_and_whole_slices_take_turns() -> None:
    maps = ellipse_maps()
    large = replace(maps, labels=np.pad(maps.labels, ((0, 0), (72, 72), (76, 76))))
    batches = brain_t1.BrainBatches(BrainGenerator(large, quarter_turns=0), seed=3)
    for step in range(4):
        fields, positions = batches(step)
        assert fields.dtype == positions.dtype == np.float32
        assert fields.shape == positions.shape  # two channels each
        for a, b in zip(batches(step), (fields, positions), strict=True):
            np.testing.assert_array_equal(a, b)
        if step % 2:
            h, w = fields.shape[2:]
            image = batches.generator.image(3, 4 * step)
            top, left = (image.shape[0] - h) // 2, (image.shape[1] - w) // 2
            crop = image[top : top + h, left : left + w]
            np.testing.assert_array_equal(fields[0], np.stack([crop.real, crop.imag]))
            np.testing.assert_array_equal(positions[0], Centred()((h, w)).numpy())
    sides = [batches(step)[0].shape[2] for step in (0, 2, 4)]
    assert sides == [96, 125, 96]


def test_a_stage_goes_on_from_the_averaged_weights_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = TrainingRecipe(2, warmup=1), TrainingRecipe(3, warmup=1, noise_median=1.0, seed=1)
    monkeypatch.setattr(brain_t1, "CONFIG", replace(tiny.CONFIG, channels=1))
    monkeypatch.setattr(brain_t1, "BrainBatches", lambda _, seed: tiny.SmoothFields(seed=seed))
    monkeypatch.setattr(brain_t1, "STAGES", stages)
    whole = brain_t1.train_stages(ellipse_maps(), checkpoint=tmp_path / "run.safetensors")
    monkeypatch.setattr(brain_t1, "STAGES", stages[:1])
    first = brain_t1.train_stages(ellipse_maps(), checkpoint=tmp_path / "run.safetensors")
    again = train(first.requires_grad_(True), tiny.SmoothFields(seed=1), stages[1], workers=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "run-1.safetensors",
        "run-2.safetensors",
    ]
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("recipe", [brain_t1, velocity_2d])
def test_recipes_describe_what_is_shipped(recipe) -> None:
    shipped = load_prior(recipe.CARD["name"])
    assert {key: shipped.card[key] for key in recipe.CARD} == recipe.CARD
    assert shipped.schedule == recipe.SCHEDULE
    assert shipped.network.network.config == recipe.CONFIG
    assert len(shipped.card["metrics"]) == len(shipped.spectra.ratios[::2])


def test_recipes_refuse_a_path_in_use_before_they_train(tmp_path: Path) -> None:
    stem = tiny.stored(tmp_path)
    with pytest.raises(OutputExistsError, match="is stored"):
        velocity_2d.main(stem)
    with pytest.raises(OutputExistsError, match="is stored"):
        brain_t1.main(tmp_path / "labels.npz", stem)
