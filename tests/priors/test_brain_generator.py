"""The synthetic brain slices: reproducible, scaled, stripped and cropped as they say."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from invdiff.errors import InputError
from invdiff.priors.recipes.brain_generator import BrainGenerator, LabelMaps

H, W = 80, 72


def ellipse_maps() -> LabelMaps:
    """Scalp, bone, outer fluid, cortex, white matter of two sides and a ventricle, 3 subjects."""
    lut = np.array([0, 507, 515, 24, 3, 2, 41, 4], np.int16)
    y, x = np.mgrid[:H, :W]
    labels = np.zeros((3, H, W), np.uint8)
    for n in range(3):
        radius = np.hypot((y - H / 2 + 0.5) / (32 + n), (x - W / 2 + 0.5) / 28)
        for index, edge in ((1, 1.0), (2, 0.88), (3, 0.8), (4, 0.72), (5, 0.6), (7, 0.2)):
            labels[n][radius < edge] = index
        labels[n][(labels[n] == 5) & (y < H / 2)] = 6
    return LabelMaps(labels, lut, np.array([1, 2, 2]))


@pytest.fixture(scope="module")
def generator() -> BrainGenerator:
    return BrainGenerator(ellipse_maps(), quarter_turns=0)


def foreground(image: np.ndarray) -> np.ndarray:
    magnitude = np.abs(image)
    return magnitude > 0.1 * magnitude.max()


def test_a_draw_depends_on_seed_and_index_only(generator):
    first = generator.image(3, 5)
    generator.image(3, 6)
    assert np.array_equal(first, generator.image(3, 5))
    assert not np.array_equal(first, generator.image(3, 6))
    assert not np.array_equal(first, generator.image(4, 5))


def test_images_are_finite_complex64_of_the_turned_shape(generator):
    image = generator.image(0, 0)
    assert image.dtype == np.complex64
    assert image.shape == (H, W)
    assert np.isfinite(image).all()
    assert replace(generator, quarter_turns=1).image(0, 0).shape == (W, H)


def test_the_99th_percentile_of_the_foreground_lies_in_the_scale_range(generator):
    images = [generator.image(1, index) for index in range(20)]
    levels = np.array([np.percentile(np.abs(x)[foreground(x)], 99) for x in images])
    assert levels.min() >= 0.8 - 1e-4
    assert levels.max() <= 1.2 + 1e-4
    assert np.ptp(levels) > 0.1


def test_skull_stripping_reduces_the_support(generator):
    whole = replace(generator, skull_strip_fraction=0.0)
    stripped = replace(generator, skull_strip_fraction=1.0)
    area_whole = np.mean([np.count_nonzero(np.abs(whole.image(2, i))) for i in range(12)])
    area_stripped = np.mean([np.count_nonzero(np.abs(stripped.image(2, i))) for i in range(12)])
    # Brain with or without outer fluid covers .72^2 to .85^2 of the head.
    assert 0.4 * area_whole < area_stripped < 0.85 * area_whole


def test_t1_contrast_orders_the_tissues():
    still = BrainGenerator(
        ellipse_maps(),
        quarter_turns=0,
        contrast_random_fraction=0.0,
        warp_std=(0.0, 0.0),
        max_rotation=0.0,
        zoom_range=(1.0, 1.0),
        max_shift=0.0,
        bias_strength=0.0,
    )
    for index in range(8):
        magnitude = np.abs(still.image(0, index))
        centre, row = magnitude[H // 2 - 2 : H // 2 + 2], H // 2
        fluid = centre[:, W // 2 - 2 : W // 2 + 2].mean()
        white = magnitude[row - 2 : row + 2, W // 2 + 9 : W // 2 + 14].mean()
        grey = magnitude[row - 2 : row + 2, W // 2 + 18 : W // 2 + 20].mean()
        assert fluid < grey < white


def test_both_sides_share_the_white_matter_intensity(generator):
    table = generator._contrast(np.random.default_rng(0))
    lut = generator.maps.lut.tolist()
    assert np.array_equal(table[lut.index(2)], table[lut.index(41)])
    assert not table[lut.index(0)].any()


def test_the_global_phase_covers_the_circle(generator):
    phasors = [x.sum() / abs(x.sum()) for x in (generator.image(7, i) for i in range(60))]
    # The mean of 60 uniform phasors has rms 1/sqrt(60) = .13; 4 times that is .52.
    assert abs(np.mean(phasors)) < 0.52


def test_flat_phase_is_nearly_constant(generator):
    image = replace(generator, flat_phase_fraction=1.0, fat_phase_fraction=0.0).image(0, 3)
    inside = image[foreground(image)]
    # Strength is at most .05 * 2 rad about the global phase.
    assert np.abs(np.angle(inside * np.conj(inside[0]))).max() <= 0.2 + 1e-4


def test_fat_has_a_phase_of_its_own_in_a_share_of_the_images(generator):
    """One angle for an image, any of them, between the scalp and the brain."""
    plain = replace(
        generator, fat_share=(1.0, 1.0), flat_phase_fraction=1.0, phase_strength=0.0,
        skull_strip_fraction=0.0, fat_phase_fraction=0.0,
    )  # fmt: skip
    turned = replace(plain, fat_phase_fraction=1.0, max_fat_shift=0.0)

    def angles(image):
        inside = foreground(image)
        inner = np.hypot(*(np.mgrid[:H, :W] - np.array([[[H / 2]], [[W / 2]]]))) < 16
        water = image[inside & inner].sum()
        return np.angle(image[inside & ~inner] * water.conj())

    assert max(np.abs(angles(plain.image(1, i))).max() for i in range(8)) < 1e-3
    fat = []
    for i in range(24):
        found = np.abs(angles(turned.image(1, i)))
        fat.append(np.quantile(found, 0.97))  # the scalp's; the cortex has that of the brain
        assert np.quantile(found, 0.05) < 0.1
    # Angles are uniform on the circle, so that a sixth of them are within each 30 degrees of 0.
    assert np.histogram(fat, [0, np.pi / 3, 2 * np.pi / 3, np.pi + 1e-3])[0].min() >= 2


def test_fat_is_the_brightest_tissue_where_it_is_to_be():
    maps = ellipse_maps()
    bright = BrainGenerator(maps, quarter_turns=0, fat_level=(1.5, 1.5), skull_strip_fraction=0)
    table = bright._contrast(np.random.default_rng(1))
    assert table.shape == (maps.lut.size + 2, 4)
    level, share = table[:, 0], table[:, 3]
    assert level[-2] == pytest.approx(1.5)
    assert 0.4 * 1.5 <= level[-1] <= 1.5
    assert np.array_equal(share, np.where(np.arange(len(level)) >= maps.lut.size, level, 0))
    rows = bright._fatty(np.random.default_rng(2), maps.labels[0])
    scalp = maps.labels[0] == 1
    fat = rows == maps.lut.size
    assert fat[~scalp].sum() == 0
    assert 0.28 < fat[scalp].mean() < 1
    allfat = replace(bright, fat_share=(1.0, 1.0))._fatty(np.random.default_rng(2), maps.labels[0])
    assert (allfat == maps.lut.size)[scalp].all()


def test_positions_are_those_of_the_cropped_pixels(generator):
    size = 24
    image = generator.image(9, 1)
    crops, position = generator.patches(9, 1, size, n=40)
    assert crops.dtype == np.complex64
    assert crops.shape == (40, size, size)
    assert position.dtype == np.float32
    assert position.shape == (40, 2, size, size)
    rows = np.rint(position[:, 0] * 112 + (H - 1) / 2).astype(int)
    cols = np.rint(position[:, 1] * 112 + (W - 1) / 2).astype(int)
    inside = (rows >= 0) & (rows < H) & (cols >= 0) & (cols < W)
    assert inside.any()
    assert not inside.all()
    expected = np.where(inside, image[rows.clip(0, H - 1), cols.clip(0, W - 1)], 0)
    assert np.array_equal(crops, expected)


def test_crops_hold_foreground_unless_drawn_uniformly(generator):
    biased = replace(generator, uniform_patch_fraction=0.0)
    level = 0.1 * np.abs(biased.image(0, 2)).max()
    crops, _ = biased.patches(0, 2, 8, n=100)
    assert (np.abs(crops).max(axis=(1, 2)) > level).all()
    anywhere, _ = replace(generator, uniform_patch_fraction=1.0).patches(0, 2, 8, n=100)
    assert (np.abs(anywhere).max(axis=(1, 2)) <= level).any()


def test_subjects_are_selected_and_files_read_back(tmp_path):
    maps = ellipse_maps()
    assert len(maps.of_subjects([2]).labels) == 2
    path = tmp_path / "maps.npz"
    np.savez(path, labels=maps.labels, lut=maps.lut, subject=maps.subject)
    assert np.array_equal(LabelMaps.load(path).labels, maps.labels)


def test_bad_input_is_refused(generator, tmp_path):
    maps = generator.maps
    with pytest.raises(InputError, match="no slices"):
        maps.of_subjects([99])
    with pytest.raises(InputError, match="labels"):
        LabelMaps(maps.labels.astype(np.int64), maps.lut, maps.subject)
    with pytest.raises(InputError, match="lut"):
        LabelMaps(maps.labels, maps.lut[:3], maps.subject)
    with pytest.raises(InputError, match="subject"):
        LabelMaps(maps.labels, maps.lut, maps.subject[:1])
    with pytest.raises(InputError, match="skull_strip_fraction"):
        BrainGenerator(maps, skull_strip_fraction=1.5)
    with pytest.raises(InputError, match="blur_range"):
        BrainGenerator(maps, blur_range=(0.8, 0.1))
    with pytest.raises(InputError, match="crop"):
        generator.patches(0, 0, 0)
    np.savez(tmp_path / "short.npz", labels=maps.labels)
    with pytest.raises(InputError, match="label file"):
        LabelMaps.load(tmp_path / "short.npz")


def test_real_heads_give_scaled_finite_images():
    root = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
    path = Path(os.environ.get("INVDIFF_DATA", root)) / "mri" / "head_labels_axial.npz"
    if not path.exists():
        pytest.skip("the shared head label maps are absent")
    generator = BrainGenerator(LabelMaps.load(path).of_subjects(range(1, 17)))
    for index in range(4):
        image = generator.image(0, index)
        assert image.shape == (224, 224)
        assert np.isfinite(image).all()
        assert 0.79 < np.percentile(np.abs(image)[foreground(image)], 99) < 1.21
