"""The procedural velocity models: reproducible, within bounds, and geology that holds together."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from invdiff.errors import InputError
from invdiff.priors.recipes import velocity_2d as recipe
from invdiff.priors.recipes import velocity_generator as velocity
from invdiff.priors.recipes.velocity_generator import VelocityGenerator

GENERATOR = VelocityGenerator()
PLAIN = VelocityGenerator(
    salt_fraction=0,
    water_fraction=0,
    unconformity_fraction=0,
    texture_fraction=0,
    blur_fraction=0,
)


def models(generator: VelocityGenerator, n: int, shape: tuple[int, int], seed: int = 0):
    return np.stack([generator.model(seed, i, shape) for i in range(n)])


def places(nz: int, nx: int):
    return 10 * (np.arange(nz) + 0.5)[:, None], 10 * (np.arange(nx) + 0.5 - nx / 2)[None, :]


def test_a_draw_depends_on_seed_and_index_only():
    first = GENERATOR.model(3, 5, (40, 50))
    GENERATOR.model(3, 6, (40, 50))
    assert np.array_equal(first, GENERATOR.model(3, 5, (40, 50)))
    assert not np.array_equal(first, GENERATOR.model(3, 6, (40, 50)))
    assert not np.array_equal(first, GENERATOR.model(4, 5, (40, 50)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (7, 300), (70, 70), (128, 33)])
def test_any_size(shape: tuple[int, int]):
    for index in range(10):
        model = GENERATOR.model(0, index, shape)
        assert model.shape == shape
        assert model.dtype == np.float32
        assert np.isfinite(model).all()


def test_velocities_lie_within_bounds_and_fill_them():
    drawn = models(GENERATOR, 200, (70, 70))
    assert drawn.min() >= 1400
    assert drawn.max() <= 5500
    assert np.percentile(drawn, 2) < 1650
    assert np.percentile(drawn, 98) > 4400
    # Hardly anything is pressed onto the bounds.
    assert np.isin(drawn, (1400.0, 5500.0)).mean() < 0.01


def test_velocity_increases_with_depth_in_the_mean_but_not_always():
    drawn = models(GENERATOR, 300, (70, 40))
    profile = drawn.mean((0, 2)).reshape(7, 10).mean(1)
    assert (np.diff(profile) > 0).all()
    steps = np.diff(drawn[:, :, 20], axis=1)
    assert 0.005 < (steps < -50).mean() < 0.2  # inversions occur
    rise = drawn[:, -10:].mean((1, 2)) - drawn[:, :10].mean((1, 2))
    assert (rise > 0).mean() > 0.85
    assert np.percentile(rise, 10) < 500
    assert np.percentile(rise, 90) > 2000


def test_the_mirror_image_is_as_likely():
    drawn = models(GENERATOR, 400, (40, 40)).astype(float)
    difference = drawn[:, :, :20].mean((1, 2)) - drawn[:, :, 20:].mean((1, 2))
    assert abs(difference.mean()) < 4 * difference.std() / 20


def test_water_is_flat():
    for model in models(replace(GENERATOR, water_fraction=1.0), 30, (40, 50)):
        depth = (model == 1500).argmin(0)
        assert np.ptp(depth) == 0
        assert 2 <= depth[0] <= 20
        assert (model[: depth[0]] == 1500).all()
    assert not (models(PLAIN, 30, (40, 50)) == 1500).all(2).any()


def test_salt_is_one_body_of_one_velocity():
    found = 0
    for index in range(60):
        without = PLAIN.model(1, index, (128, 128))
        model = replace(PLAIN, salt_fraction=1.0).model(1, index, (128, 128))
        is_salt = model != without
        if is_salt.any():
            found += 1
            assert np.ptp(model[is_salt]) == 0
            assert 4400 <= model[is_salt][0] <= 4600
            # One outline; the model's edge may cut it.
            assert ndimage.label(is_salt, np.ones((3, 3)))[1] <= 2
    assert found > 30


def test_a_column_has_layers_of_uneven_thickness():
    generator = replace(PLAIN, gradient_fraction=0.0, lamination_fraction=0.0)
    rng = np.random.default_rng(0)
    n_layers = []
    for _ in range(50):
        column = velocity._column(rng, generator, velocity._Trend.draw(rng, generator))
        boundaries = np.flatnonzero(np.diff(column))
        n_layers.append(700 * len(boundaries) / len(column))
        assert np.diff(boundaries).std() > 0.1 * np.diff(boundaries).mean()
    assert 2 < min(n_layers) < 5
    assert 12 < max(n_layers) < 24


def test_folding_keeps_the_order_of_the_layers():
    for seed in range(200):
        here = places(70, 70)
        depth = velocity._before_folds(np.random.default_rng(seed), GENERATOR, here)
        assert depth.shape == (70, 70)
        assert (np.diff(depth, axis=0) > 0).all()


def test_a_fault_moves_all_on_one_side_of_it():
    n_cut = 0
    for seed in range(60):
        z, x = places(70, 70)
        before = velocity._before_fault(np.random.default_rng(seed), GENERATOR, (z, x), 350.0)
        throw, heave = z - before[0], x - before[1]
        is_hanging = throw != 0
        assert len(np.unique(throw[is_hanging].round(6))) <= 1
        assert not heave[~is_hanging].any()
        if is_hanging.any() and not is_hanging.all():
            n_cut += 1
            size = abs(throw[is_hanging][0])
            assert 20 <= size <= 200
            # Slip runs along the fault: down and outwards, or up and back.
            assert len(np.unique(np.sign(heave[is_hanging]))) == 1
            assert np.abs(heave).max() > size / np.tan(np.deg2rad(GENERATOR.dip[1])) - 1e-6
            for row in is_hanging:  # each row is cut at most once
                assert np.count_nonzero(np.diff(row)) <= 1
    assert n_cut > 30


def test_a_fault_breaks_the_layers():
    """Flat layers are alike in all columns; behind a fault they are displaced."""
    here, rng = places(70, 70), np.random.default_rng(3)
    column = velocity._column(rng, GENERATOR, velocity._Trend.draw(rng, GENERATOR))
    flat = velocity._look_up(column, here[0] + 0 * here[1])
    assert not np.ptp(flat, axis=1).any()
    before = velocity._before_fault(np.random.default_rng(0), GENERATOR, here, 350.0)
    broken = velocity._look_up(column, before[0])
    is_hanging = before[0] != here[0]
    assert is_hanging.any()
    assert not is_hanging.all()
    assert np.array_equal(broken[~is_hanging], flat[~is_hanging])
    assert (broken[is_hanging] != flat[is_hanging]).mean() > 0.2


def test_younger_layers_lie_above_an_unconformity():
    rng, here = np.random.default_rng(2), places(70, 70)
    trend = velocity._Trend.draw(rng, GENERATOR)
    old = np.full((70, 70), -1.0)
    model = GENERATOR._cover(rng, here, trend, old)
    is_old = model == -1
    assert is_old.any()
    assert not is_old.all()
    assert (np.diff(is_old.astype(int), axis=0) >= 0).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [("salt_fraction", 1.5), ("throw", (200.0, 20.0)), ("top", (0.0, 20.0)), ("spacing", 0.0)],
)
def test_bad_parameters_are_refused(name: str, value: object):
    with pytest.raises(InputError, match=name):
        replace(GENERATOR, **{name: value})


def test_a_model_without_cells_is_refused():
    with pytest.raises(InputError, match="shape"):
        GENERATOR.model(0, 0, (0, 70))


def test_training_patches_are_windows_of_models_with_their_depth():
    batches = recipe.VelocityBatches(batch_size=8)
    tops = []
    for step in range(12):
        fields, depth = batches(step)
        assert fields.shape == depth.shape
        assert fields.dtype == depth.dtype == np.float32
        h, w = fields.shape[2:]
        assert {h, w} <= set(recipe.SIDES)
        rows = np.rint(depth[:, 0, :, 0] * 70).astype(int)
        assert (depth == depth[..., :1]).all()
        assert (np.diff(rows, axis=1) == 1).all()
        for i, top in enumerate(rows[:, 0].tolist()):
            whole = GENERATOR.model(0, step * 8 + i, (top + h, w))
            np.testing.assert_allclose(3000 + 1000 * fields[i, 0], whole[top:], rtol=1e-6)
        tops += rows[:, 0].tolist()
    share = np.mean(np.array(tops) == 0)
    assert abs(share - 0.5) < 3 * 0.5 / 96**0.5
    assert max(tops) <= recipe.DEEPEST_TOP
