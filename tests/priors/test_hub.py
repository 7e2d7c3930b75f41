"""Stored priors: what is saved is what is loaded, and damage is found. The shipped ones too."""

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from invdiff import priors
from invdiff.errors import (
    ChecksumError,
    InputError,
    OutputExistsError,
    UnknownNameError,
    UnsupportedError,
)
from invdiff.grid import Grid
from invdiff.noise import NoiseField
from invdiff.priors import GaussianPrior, TiledPrior, hub
from invdiff.priors.fit import validate
from invdiff.priors.network import NetworkPrior
from invdiff.priors.positions import Centred, Depth
from invdiff.priors.spectral import ErrorSpectra
from invdiff.priors.unet import UNetConfig
from invdiff.schedule import VE, VP
from tests.support import tiny

WEIGHTS = Path(hub.__file__).parent / "weights"
SHIPPED = sorted(WEIGHTS.glob("*.safetensors"))


def time(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_round_trip(tmp_path: Path, dtype: torch.dtype) -> None:
    spectra = ErrorSpectra(
        np.array([0.01, 0.5, 8.0]), np.linspace(0, 0.7, 4), np.arange(1.0, 13).reshape(3, 4)
    )
    prior = tiny.prior((11, 14), dtype=dtype, wiggle=1.0, scale=3.0, spectra=spectra)
    path = hub.save_prior(prior, tmp_path / "folder" / "mine.v2", {**tiny.CARD, "extra": [1, "a"]})
    assert path == tmp_path / "folder" / "mine.v2.safetensors"
    x_t, t = tiny.standard_normal((2, 11, 14), 0, dtype), time(0.7)
    v = tiny.standard_normal((2, 11, 14), 1, dtype)
    expected, covariance = prior.moments(x_t, t)
    rounded = 0
    for name in ("mine.v2", "mine.v2.safetensors", "mine.v2.json"):
        found = hub.load_prior(tmp_path / "folder" / name)
        assert found.grid == prior.grid
        assert found.schedule == prior.schedule
        assert found.scale == 3.0
        assert found.card["extra"] == [1, "a"]
        assert not any(p.requires_grad for p in found.network.parameters())
        for a, b in zip(found.network.parameters(), prior.network.parameters(), strict=True):
            assert torch.equal(a, b.half().float())
            rounded += int((a != b).sum())
        mean, found_covariance = found.moments(x_t, t)
        # Half precision has 11 bits: 5e-4 a weight, over a few layers.
        scale = float((expected - x_t).abs().max())
        torch.testing.assert_close(mean, expected, rtol=0, atol=5e-3 * scale)
        torch.testing.assert_close(found_covariance(v), covariance(v), rtol=0.02, atol=0.02)
    assert rounded > 0


def test_a_prior_that_was_rounded_before_comes_back_exactly(tmp_path: Path) -> None:
    prior = tiny.prior(wiggle=1.0)
    for parameter in prior.network.parameters():
        parameter.data = parameter.half().float()
    hub.save_prior(prior, tmp_path / "tiny", tiny.CARD)
    x_t = tiny.standard_normal((2, *tiny.SHAPE), 0, torch.complex64)
    a, b = prior.denoise(x_t, time(0.3)), hub.load_prior(tmp_path / "tiny").denoise(x_t, time(0.3))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_offset_and_position_channels_come_back(tmp_path: Path) -> None:
    config = UNetConfig(1, positions=1, widths=(8, 12), blocks=1, embedding=16)
    network = tiny.network(config, wiggle=1.0)
    for parameter in network.parameters():
        parameter.data = parameter.half().float()
    prior = NetworkPrior(
        network,
        tiny.FLAT,
        Grid(("z", "x"), (20, 16), torch.float32, units="m s-1"),
        schedule=VE(5.0, 2e4),
        scale=1000.0,
        offset=3000.0,
        coordinates=Depth(unit=35.0),
    )
    hub.save_prior(prior, tmp_path / "velocity", {**tiny.CARD, "name": "velocity"})
    found = hub.load_prior(tmp_path / "velocity")
    assert found.coordinates == Depth(unit=35.0)
    assert (found.scale, found.offset, found.grid) == (1000.0, 3000.0, prior.grid)
    assert found.card["positions"] == {"kind": "depth", "unit": 35.0}
    x_t = 3000 + 500 * tiny.standard_normal((2, 20, 16), 0, torch.float32)
    a, b = found.denoise(x_t, time(300.0)), prior.denoise(x_t, time(300.0))
    torch.testing.assert_close(a, b, rtol=0, atol=0.01)


def test_cards_from_before_offset_and_positions_mean_none_and_centred(tmp_path: Path) -> None:
    stem = tiny.stored(tmp_path, wiggle=1.0)
    expected = hub.load_prior(stem)
    path = stem.with_suffix(".json")
    card = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in card.items() if k not in ("offset", "positions")}))
    found = hub.load_prior(stem)
    assert (found.offset, found.coordinates) == (0.0, Centred(112.0))
    x_t = tiny.standard_normal((1, *tiny.SHAPE), 0, torch.complex64)
    assert torch.equal(found.denoise(x_t, time(0.3)), expected.denoise(x_t, time(0.3)))


def test_position_channels_that_nobody_could_restore(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Sideways(Centred):
        pass

    made = tiny.prior()
    prior = NetworkPrior(made.network, made.spectra, made.grid, coordinates=Sideways())
    with pytest.raises(InputError, match="position channels"):
        hub.save_prior(prior, tmp_path / "tiny", tiny.CARD)
    assert not [*tmp_path.iterdir()]
    stem = tiny.stored(tmp_path)
    path = stem.with_suffix(".json")
    path.write_text(path.read_text().replace('"centred"', '"sideways"'))
    with pytest.raises(InputError, match="sideways"):
        hub.load_prior(stem)


def test_on_another_grid(tmp_path: Path) -> None:
    grid = tiny.grid((17, 9))
    assert hub.load_prior(tiny.stored(tmp_path), grid=grid).grid == grid


def test_the_card(tmp_path: Path) -> None:
    stem = tiny.stored(tmp_path)
    card = json.loads(stem.with_suffix(".json").read_text())
    described = ("architecture", "sigma_data", "scale", "offset", "positions", "grid", "schedule")
    assert {*tiny.CARD, *described, "sha256"} == {*card}
    digest = hashlib.sha256(stem.with_suffix(".safetensors").read_bytes()).hexdigest()
    assert card["sha256"] == digest
    assert card["grid"] == {
        "dims": ["y", "x"],
        "shape": [32, 24],
        "dtype": "complex64",
        "units": "1",
    }
    assert hub.load_prior(stem).card == card


@pytest.mark.parametrize("key", ["name", "data", "licence", "recipe", "seed", "metrics"])
def test_an_incomplete_card_is_refused(tmp_path: Path, key: str) -> None:
    card = {k: v for k, v in tiny.CARD.items() if k != key}
    with pytest.raises(InputError, match=f"incomplete.*{key}"):
        hub.save_prior(tiny.prior(), tmp_path / "tiny", card)
    assert not [*tmp_path.iterdir()]


def test_a_card_that_json_cannot_hold_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="JSON"):
        hub.save_prior(tiny.prior(), tmp_path / "tiny", {**tiny.CARD, "metrics": np.ones(2)})
    assert not [*tmp_path.iterdir()]


def test_a_schedule_that_is_not_stored_is_refused(tmp_path: Path) -> None:
    """It would come back as another one."""
    made = tiny.prior()
    prior = NetworkPrior(made.network, made.spectra, made.grid, schedule=VP())
    with pytest.raises(InputError, match="VE"):
        hub.save_prior(prior, tmp_path / "tiny", tiny.CARD)
    assert not [*tmp_path.iterdir()]


def test_a_spacing_of_other_dims_is_refused(tmp_path: Path) -> None:
    """It could not be checked when the prior is put on a grid."""
    with pytest.raises(InputError, match=r"spacing.*'y', 'x'"):
        hub.save_prior(tiny.prior(), tmp_path / "tiny", {**tiny.CARD, "spacing": {"z": 10.0}})
    assert not [*tmp_path.iterdir()]


def test_weights_beyond_half_precision_are_refused(tmp_path: Path) -> None:
    """They would come back as Inf."""
    prior = tiny.prior()
    next(prior.network.parameters()).data[0] = 1e5
    with pytest.raises(InputError, match="half precision"):
        hub.save_prior(prior, tmp_path / "tiny")
    assert not [*tmp_path.iterdir()]


def test_other_priors_are_not_stored(tmp_path: Path) -> None:
    grid = Grid(("x",), (3,))
    exact = GaussianPrior(grid, torch.zeros(3), torch.eye(3))
    tiled = TiledPrior(tiny.prior(), tiny.grid((40, 44)), overlap=8)
    for prior in (exact, tiled):
        with pytest.raises(UnsupportedError, match=type(prior).__name__):
            hub.save_prior(prior, tmp_path / "tiny", tiny.CARD)
    assert not [*tmp_path.iterdir()]


def test_names_are_loaded_on_first_use() -> None:
    code = "import sys, invdiff.priors; print('torch' in sys.modules, invdiff.priors.load_prior)"
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.startswith("False <function load_prior")
    assert {"load_prior", "save_prior", "NetworkPrior", "GaussianPrior"} <= {*priors.__all__}
    assert priors.load_prior is hub.load_prior


def test_the_card_of_the_prior_is_the_default(tmp_path: Path) -> None:
    hub.save_prior(tiny.prior(), tmp_path / "tiny")
    assert hub.load_prior(tmp_path / "tiny").card.items() >= tiny.CARD.items()
    with pytest.raises(OutputExistsError, match="is stored"):
        hub.save_prior(tiny.prior(), tmp_path / "tiny")
    hub.save_prior(tiny.prior(), tmp_path / "tiny", overwrite=True)


@pytest.mark.parametrize("place", [0, 100, -1])
def test_damaged_weights_are_found(tmp_path: Path, place: int) -> None:
    stem = tiny.stored(tmp_path)
    weights = stem.with_suffix(".safetensors")
    data = bytearray(weights.read_bytes())
    data[place] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ChecksumError, match="damaged") as caught:
        hub.load_prior(stem)
    assert "expected" in str(caught.value)
    assert caught.value.hint


def test_truncated_weights_are_found(tmp_path: Path) -> None:
    stem = tiny.stored(tmp_path)
    weights = stem.with_suffix(".safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ChecksumError, match="damaged"):
        hub.load_prior(stem)


def test_weights_of_another_prior_are_found(tmp_path: Path) -> None:
    stem = tiny.stored(tmp_path)
    other = tiny.stored(tmp_path / "other", wiggle=1.0)
    stem.with_suffix(".safetensors").write_bytes(other.with_suffix(".safetensors").read_bytes())
    with pytest.raises(ChecksumError):
        hub.load_prior(stem)


def test_missing_weights(tmp_path: Path) -> None:
    stem = tiny.stored(tmp_path)
    stem.with_suffix(".safetensors").unlink()
    with pytest.raises(InputError, match="weights are missing") as caught:
        hub.load_prior(stem)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "tiny"}'])
def test_a_damaged_card(tmp_path: Path, text: str) -> None:
    stem = tiny.stored(tmp_path)
    stem.with_suffix(".json").write_text(text)
    with pytest.raises(InputError, match="card") as caught:
        hub.load_prior(stem)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["brain-t7", "no/such/prior", "prior.safetensors", "", ".", ".."])
def test_unknown_names(name: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        hub.load_prior(name)
    assert "brain-t1" in str(caught.value)


def test_names_come_from_entry_points() -> None:
    assert hub.available() == sorted(hub.available())
    assert "brain-t1" in hub.available()


# --- what is shipped ------------------------------------------------------------------------------

needs_weights = pytest.mark.skipif(not SHIPPED, reason="no file in priors/weights")


@needs_weights
def test_the_shipped_weights_are_small() -> None:
    sizes = [path.stat().st_size for path in SHIPPED]
    assert max(sizes) <= 8e6
    assert sum(sizes) <= 30e6


@needs_weights
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_priors_are_described(path: Path) -> None:
    prior = hub.load_prior(path)
    for key in ("name", "data", "licence", "recipe", "seed", "metrics", "sha256", "architecture"):
        assert key in prior.card, key
        assert prior.card[key] not in ("", "x", None), key
    assert prior.card["name"] == path.stem
    assert isinstance(prior.schedule, VE)
    for row in prior.card["metrics"]:
        assert 0.85 <= row["coverage90"] <= 0.95, row
        assert row["rmse"] < 1.02 * row["ratio"]  # no worse than leaving the noise in
    rmse = [row["rmse"] for row in prior.card["metrics"]]
    assert rmse == sorted(rmse)


def _brain_slices(shared_data: Path) -> np.ndarray:
    from invdiff.priors.recipes import brain_t1 as recipe
    from invdiff.priors.recipes.brain_generator import BrainGenerator, LabelMaps

    maps = LabelMaps.load(shared_data / "mri" / "head_labels_axial.npz")
    generator = BrainGenerator(maps.of_subjects(recipe.VALIDATION_SUBJECTS))
    return np.stack([generator.image(recipe.SEED_VALIDATE, i) for i in range(4)])


def _velocity_models() -> np.ndarray:
    from invdiff.priors.recipes import velocity_2d as recipe
    from invdiff.priors.recipes.velocity_generator import VelocityGenerator

    generator = VelocityGenerator()
    return np.stack([generator.model(recipe.SEED_VALIDATE, i, (70, 70)) for i in range(24)])


@needs_weights
@pytest.mark.slow
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_priors_do_what_their_cards_say(path: Path, request: pytest.FixtureRequest) -> None:
    """A few of the fields the card was made from."""
    if path.stem == "brain-t1":
        fields = _brain_slices(request.getfixturevalue("shared_data"))
    elif path.stem == "velocity-2d":
        fields = _velocity_models()
    else:
        pytest.fail(f"no validation is known for {path.stem}")
    prior = hub.load_prior(path)
    grid, unit = prior.grid, prior.scale
    rows = [row for row in prior.card["metrics"] if 0.03 * unit < row["ratio"] < unit][::2]
    assert rows
    found = validate(
        prior.on(Grid(grid.dims, fields.shape[1:], grid.dtype, units=grid.units)),
        torch.from_numpy(fields).split(2),
        ratios=np.array([row["ratio"] for row in rows]),
    )
    for row, again in zip(rows, found, strict=True):
        assert again["rmse"] == pytest.approx(row["rmse"], rel=0.35)  # a part of the fields
        assert 0.85 <= again["coverage90"] <= 0.95


@pytest.mark.skipif(not (WEIGHTS / "velocity-2d.safetensors").exists(), reason="not trained yet")
@pytest.mark.parametrize("shape", [(70, 70), (70, 190), (101, 83)])
def test_the_velocity_prior_denoises_models_it_never_saw(shape: tuple[int, int]) -> None:
    """Of any size, in m/s."""
    from invdiff.priors.recipes.velocity_generator import VelocityGenerator

    prior = hub.velocity_2d()
    assert prior.grid.units == "m s-1"
    generator = VelocityGenerator()
    models = np.stack([generator.model(77, i, shape) for i in range(8)])
    prior = prior.on(Grid(("z", "x"), shape, torch.float32, units="m s-1"))
    (row,) = validate(prior, torch.from_numpy(models).split(4), ratios=np.array([300.0]))
    assert row["rmse"] < 150
    assert 0.85 <= row["coverage90"] <= 0.95


@pytest.mark.skipif(not (WEIGHTS / "velocity-2d.safetensors").exists(), reason="not trained yet")
def test_an_odd_side_has_no_stripe_at_its_end() -> None:
    """Models are alike from side to side: so are the errors at both, though only one is padded."""
    from invdiff.priors.recipes.velocity_generator import VelocityGenerator

    grid = Grid(("z", "x"), (48, 65), torch.float32, units="m s-1")  # 7 columns short of a stride
    prior, generator = hub.velocity_2d().on(grid), VelocityGenerator()
    models = torch.from_numpy(np.stack([generator.model(78, i, grid.shape) for i in range(24)]))
    noise = 300 * NoiseField(0)(grid, range(24), 0)
    error = prior.denoise(models + noise, torch.tensor(300.0, dtype=torch.float64)) - models
    power = error.square().mean((0, 1))
    assert power[-2:].mean() < 1.8 * power[:2].mean()  # 3 times it, if padded by zeros
