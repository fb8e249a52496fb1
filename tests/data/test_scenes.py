"""Simulated scenes: the same every time, plausible in every sensor, and clear about wrong arguments."""

from __future__ import annotations

import hashlib
import multiprocessing
import platform
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from scipy import ndimage

from rsovlib.data import _noise
from rsovlib.data._scene_light import REGIONS, shifted
from rsovlib.data._scene_plan import LAYOUTS
from rsovlib.data._scene_radar import LOOKS, RadarView, image_geometry, radar_shadow
from rsovlib.data._scene_relief import HURST, fractal_terrain
from rsovlib.data.lexicon import (
    BARE,
    BUILDING,
    CLASSES,
    COARSE_LISTS,
    FARMLAND,
    FINE_LIST,
    FOREST,
    GRASS,
    HELD_OUT_CROP,
    HELD_OUT_ROOF,
    HELD_OUT_TEMPLATES,
    LEXICON,
    ORCHARD,
    ROAD,
    TEMPLATES,
    TEST_ONLY_KINDS,
    WATER,
    WORD_KINDS,
    all_training_texts,
    attribute_prompts,
    class_prompts,
)
from rsovlib.data.scenes import MODALITIES, SCENE_VERSION, describe, make_scene
from rsovlib.errors import InputError

SHAPE = (72, 101)


def arrays(scene):
    return {name: getattr(scene, name) for name in ("optical", "labels", "nir", "swir", "sar", "dsm", "roof", "crop")}


def test_a_scene_holds_what_it_promises():
    scene = make_scene(SHAPE, 3)
    assert scene.optical.shape == (*SHAPE, 3)
    assert scene.optical.dtype == np.uint8
    assert scene.labels.shape == SHAPE
    assert scene.labels.dtype == np.uint8
    assert scene.labels.max() < len(scene.classes) == len(CLASSES)
    assert scene.nir.shape == SHAPE
    assert scene.nir.dtype == np.uint8
    assert scene.swir.shape == SHAPE
    assert scene.swir.dtype == np.uint8
    assert scene.sar.shape == (2, *SHAPE)
    assert scene.sar.dtype == np.float32
    assert scene.dsm.shape == SHAPE
    assert scene.dsm.dtype == np.float32
    assert np.isfinite(scene.sar).all()
    assert np.isfinite(scene.dsm).all()
    assert scene.version == SCENE_VERSION
    assert 0.5 <= scene.gsd <= 2
    assert scene.caption.startswith("an aerial image of ")


def test_the_same_seed_gives_the_same_scene_and_another_seed_another():
    first, again, other = make_scene(48, 11), make_scene(48, 11), make_scene(48, 12)
    for name, array in arrays(first).items():
        np.testing.assert_array_equal(array, getattr(again, name), err_msg=name)
    assert first.caption == again.caption
    assert not np.array_equal(first.optical, other.optical)


def digest(scene, names):
    total = hashlib.sha256()
    for name in names:
        total.update(np.ascontiguousarray(getattr(scene, name)).tobytes())
    return total


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the digests are of x86-64")
@pytest.mark.parametrize(
    ("seed", "options", "expected"),
    [
        (0, {}, "476a436dadd64b62"),
        (1, {}, "50fd9dea42441233"),
        (7, {}, "d6aa5f8ac8a75341"),
        (2_000_000, {}, "22604cdbcf77b869"),
        (1_000_003, {}, "5be71806a076403e"),
        (3, {"region": "desert", "layout": "urban"}, "3342c8b767796bcf"),
        (4, {"region": "tropical", "layout": "rural", "gsd": 0.7}, "24802850757bfa9e"),
        (5, {"layout": "coast", "gsd": 1.5}, "0aff2fa779263a0b"),
        (6, {"region": "dry", "layout": "suburb"}, "e2f652fcab3c0d11"),
    ],
)
def test_optical_images_labels_and_captions_are_still_those_of_version_1(seed, options, expected):
    # Computed with version 1: the embedded models were trained on these images, and their cards quote scores on them.
    scene = make_scene((61, 83), seed, **options)
    total = digest(scene, ("optical", "labels", "roof", "crop"))
    facts = (scene.caption, scene.region, scene.layout, repr(scene.gsd), scene.notes["water"])
    total.update("|".join(facts).encode())
    assert total.hexdigest()[:16] == expected
    assert scene.version == 2


def everything(seed):
    return digest(make_scene((45, 52), seed), ("optical", "labels", *MODALITIES)).hexdigest()


def test_other_processes_make_the_same_scenes():
    expected = [everything(seed) for seed in range(4)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        assert list(pool.map(everything, range(4))) == expected


def test_leaving_out_sensors_changes_nothing_else():
    full = make_scene(48, 5)
    for kept in MODALITIES:
        part = make_scene(48, 5, modalities=(kept,))
        np.testing.assert_array_equal(part.optical, full.optical)
        np.testing.assert_array_equal(getattr(part, kept), getattr(full, kept))
        assert all(getattr(part, name) is None for name in MODALITIES if name != kept)


def test_a_fixed_choice_leaves_the_other_draws_alone():
    free = make_scene(48, 21)
    fixed = make_scene(48, 21, region=free.region, layout=free.layout, gsd=free.gsd)
    np.testing.assert_array_equal(fixed.optical, free.optical)
    elsewhere = make_scene(48, 21, region="desert" if free.region != "desert" else "tropical")
    assert elsewhere.layout == free.layout
    assert elsewhere.gsd == free.gsd
    assert not np.array_equal(elsewhere.optical, free.optical)


@pytest.mark.parametrize("region", sorted(REGIONS))
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_every_region_and_layout_can_be_made(region, layout):
    scene = make_scene(64, 1, region=region, layout=layout)
    assert (scene.region, scene.layout) == (region, layout)
    assert scene.optical.std() > 1


def test_all_classes_occur_over_many_scenes():
    found = {int(label) for seed in range(40) for label in np.unique(make_scene(96, seed, modalities=()).labels)}
    assert found == set(range(len(CLASSES)))


def test_deserts_are_barer_and_their_images_less_green():
    def share(region, label):
        scenes = [make_scene(64, seed, region=region, modalities=()) for seed in range(12)]
        return np.mean([(scene.labels == label).mean() for scene in scenes])

    bare = CLASSES.index("bare soil")
    assert share("desert", bare) > share("temperate", bare) + 0.2


def test_a_finer_pixel_makes_things_larger():
    def road_width(gsd):
        widths = []
        for seed in range(8):
            road = make_scene(96, seed, layout="urban", region="temperate", gsd=gsd, modalities=()).labels == ROAD
            widths.append(ndimage.distance_transform_edt(road).max())
        return np.mean(widths)

    assert road_width(0.5) > 1.4 * road_width(2.0)


def test_heights_and_infrared_and_radar_follow_the_land_cover():
    town = [make_scene(128, seed, layout="urban", region="temperate", gsd=0.8) for seed in range(4)]
    for scene in town:
        roofs, roads = scene.labels == BUILDING, scene.labels == ROAD
        assert scene.dsm[roofs].mean() > scene.dsm[roads].mean() + 1.5
    scenes = [make_scene(96, seed, layout="coast", region="temperate") for seed in range(8)]
    water = np.concatenate([scene.nir[scene.labels == WATER] for scene in scenes])
    forest = np.concatenate([scene.nir[scene.labels == FOREST] for scene in scenes])
    assert np.median(forest) > 3 * np.median(water)
    calm = np.concatenate([scene.sar[0][scene.labels == WATER] for scene in scenes])
    trees = np.concatenate([scene.sar[0][scene.labels == FOREST] for scene in scenes])
    assert np.median(trees) > np.median(calm) + 6
    assert all(scene.sar[0].mean() > scene.sar[1].mean() for scene in scenes)  # VV above VH


def calm_water(looks, seed=6):
    """Power over open water, away from everything that leans or throws a shadow, (2, N)."""
    scene = make_scene(160, seed, layout="coast", region="temperate", gsd=1.0, sar_looks=looks, modalities=("sar",))
    water = ndimage.binary_erosion(scene.labels == WATER, iterations=20)
    assert water.sum() > 3000
    return 10 ** (scene.sar[:, water].astype(float) / 10)


@pytest.mark.parametrize("looks", [1, 4, 16])
def test_speckle_has_the_number_of_looks_that_was_asked_for(looks):
    for power in calm_water(looks):
        assert power.mean() ** 2 / power.var() == pytest.approx(looks, rel=0.1)


def test_speckle_is_gamma_distributed_and_multiplies():
    one, many = calm_water(1)[0], calm_water(1000)[0]
    assert one.mean() == pytest.approx(many.mean(), rel=0.05)
    # A share 1 - exp(-x) of exponentially distributed power is below x times the mean.
    for level in (0.1, 0.5, 1.0, 2.0):
        assert (one < level * one.mean()).mean() == pytest.approx(1 - np.exp(-level), abs=0.025)


def test_every_class_echoes_less_across_than_along():
    for seed in range(6):
        scene = make_scene(128, seed, gsd=1.0, modalities=("sar",))
        for label in np.unique(scene.labels):
            here = scene.labels == label
            if here.sum() > 300:
                vv, vh = 10 ** (scene.sar[:, here].astype(float) / 10)
                assert vv.mean() > 2 * vh.mean(), CLASSES[label]


def block_image(height, incidence, gsd, start=40, stop=60, width=120):
    """One row of dark ground with a bright block on it, seen by a radar that looks to the right."""
    above = np.zeros((1, width), np.float32)
    above[:, start:stop] = height
    echo = np.full((1, width, 2), 0.1, np.float32)
    echo[:, start:stop] = 1.0
    tangent = float(np.tan(np.radians(incidence)))
    built = above > 0
    return image_geometry(echo, above, np.zeros_like(above), built, gsd, tangent)[0, :, 0], tangent


@pytest.mark.parametrize(("height", "incidence", "gsd"), [(10, 35, 1.0), (12, 50, 1.0), (8, 25, 2.0), (20, 45, 1.0)])
def test_layover_and_shadow_are_as_long_as_the_angle_says(height, incidence, gsd):
    image, tangent = block_image(height, incidence, gsd)
    layover, shadow = height / tangent / gsd, height * tangent / gsd
    bright = np.flatnonzero(image > 0.15)
    assert abs(bright.min() - (40 - layover)) <= 1  # the roof's near edge lands h / tan(theta) before the wall
    dark = np.flatnonzero(image < 1e-6)
    assert np.array_equal(dark, np.arange(dark.min(), dark.max() + 1))
    # The roof's far edge landed nearer too, so that the dark begins there; it ends h * tan(theta) behind the wall.
    assert abs(dark.min() - (60 - layover)) <= 1
    assert abs(dark.max() - (59 + shadow)) < 1.5
    np.testing.assert_array_equal(image[:20], np.float32(0.1))
    np.testing.assert_array_equal(image[-10:], np.float32(0.1))


@pytest.mark.parametrize(("height", "drop"), [(20, 1.0), (7, 0.5), (12.5, 2.0)])
def test_radar_shadow_of_a_wall_has_the_length_that_the_angle_says(height, drop):
    surface = np.zeros((1, 60), np.float32)
    surface[0, 10] = height
    hidden = np.flatnonzero(radar_shadow(surface, drop)[0])
    # The line of sight over the wall comes down by `drop` metres a pixel: length h * tan(theta) / gsd.
    assert hidden.tolist() == list(range(11, 10 + int(np.ceil(height / drop))))


def test_the_corner_at_the_wall_that_faces_the_sensor_is_the_brightest_line():
    image, _ = block_image(10, 35, 1.0)
    assert image.argmax() == 39  # the ground just before the wall
    lower, _ = block_image(5, 35, 1.0)
    assert image[39] - lower[39] == pytest.approx(lower[39], rel=0.35)  # about proportional to the wall's height
    turned = block_image(10, 35, 1.0)[0][::-1]
    assert turned.argmax() != 39  # on the side that faces the sensor only


def test_an_oblique_wall_sends_back_less_from_its_corner():
    def brightest(slope):
        rows, columns = np.mgrid[:61, :90]
        above = np.where((columns - slope * (rows - 30) > 45) & (columns - slope * (rows - 30) < 65), 10, 0)
        above = above.astype(np.float32)
        echo = np.full((61, 90, 2), 0.1, np.float32)
        image = image_geometry(echo, above, np.zeros_like(above), above > 0, 1.0, 0.7)
        return np.median(image[10:-10, :, 0].max(axis=1))

    assert brightest(0.0) > 2 * brightest(0.6)


@pytest.mark.parametrize("look", LOOKS)
def test_shadows_of_the_radar_fall_away_from_it(look):
    view = RadarView(direction=look)
    field = np.arange(6 * 5 * 2).reshape(6, 5, 2)
    np.testing.assert_array_equal(view.turned_back(view.turned(field)), field)
    dy, dx = {"east": (0, 1), "west": (0, -1), "south": (1, 0), "north": (-1, 0)}[look]
    behind, before = [], []
    for seed in range(3):
        scene = make_scene(128, seed, layout="urban", region="temperate", gsd=1.0, look=look, modalities=("sar",))
        roofs = scene.labels == BUILDING
        for side, found in ((1, behind), (-1, before)):
            ring = shifted(roofs, 3 * side * dy, 3 * side * dx) & ~roofs
            found.append(scene.sar[0][ring].mean())
    assert np.mean(before) > np.mean(behind) + 8


def test_shadows_of_the_sun_fall_where_the_scene_says():
    for seed in range(4):
        scene = make_scene(128, seed, layout="urban", region="desert", gsd=1.0, modalities=())
        angle, roofs = scene.notes["shadow"], scene.labels == BUILDING
        ground = (scene.labels == ROAD) | (scene.labels == BARE)
        grey = scene.optical.mean(axis=2)
        dy, dx = round(3 * np.sin(angle)), round(3 * np.cos(angle))
        lee, sunny = shifted(roofs, dy, dx) & ground, shifted(roofs, -dy, -dx) & ground
        assert grey[lee & ~sunny].mean() < 0.8 * grey[sunny & ~lee].mean()


def test_vegetation_indices_are_high_on_plants_and_negative_on_water():
    found = {}
    for seed in range(24):
        scene = make_scene(96, seed, region=("temperate", "tropical")[seed % 2], modalities=("nir", "swir"))
        red, near, short = (band.astype(float) for band in (scene.optical[..., 0], scene.nir, scene.swir))
        for label in np.unique(scene.labels):
            here = scene.labels == label
            if here.sum() > 100:
                found.setdefault(label, []).append(np.median(((near - red) / (near + red + 1e-9))[here]))
        if (scene.labels == WATER).sum() > 100:
            assert np.median(near[scene.labels == WATER]) < np.median(near[scene.labels != WATER])
        plants, bare = np.isin(scene.labels, (FOREST, GRASS)), scene.labels == BARE
        if bare.sum() > 100 and plants.sum() > 100:  # dry ground is brighter than wet leaves in the short-wave band
            assert np.median(short[bare]) > np.median(short[plants])
    ndvi = {label: np.median(values) for label, values in found.items()}
    assert min(ndvi[FOREST], ndvi[GRASS]) > 0.3
    assert ndvi[FOREST] > ndvi[GRASS] > ndvi[BARE] > ndvi[WATER]
    assert abs(ndvi[ROAD]) < 0.15
    assert ndvi[WATER] < -0.3


@pytest.mark.parametrize("gsd", [0.5, 2.0])
def test_terrain_is_fractal_and_as_rough_as_asked_at_any_pixel_size(gsd):
    lags = np.asarray([16, 32, 64, 128])  # metres
    rng = np.random.default_rng(0)
    squares = []
    for _ in range(12):
        terrain = fractal_terrain(rng, (round(256 / gsd), round(320 / gsd)), gsd, roughness=3.0)
        squares.append([np.mean((terrain[:, step:] - terrain[:, :-step]) ** 2) for step in (lags / gsd).astype(int)])
    differences = np.sqrt(np.mean(squares, axis=0))
    slope = np.polyfit(np.log(lags), np.log(differences), 1)[0]
    assert slope == pytest.approx(HURST, abs=0.12)
    assert np.exp(np.interp(np.log(100), np.log(lags), np.log(differences))) == pytest.approx(3.0, rel=0.2)


def test_water_lies_level_and_lowest():
    scene = make_scene(128, 4, layout="coast", gsd=1.0, modalities=("dsm",))
    water = scene.labels == WATER
    assert water.sum() > 1000
    assert np.ptp(scene.dsm[water]) == 0
    assert scene.dsm[~water].min() > scene.dsm[water].max()
    shore = ndimage.binary_dilation(water, iterations=3) & ((scene.labels == GRASS) | (scene.labels == BARE))
    assert scene.dsm[shore].max() < scene.dsm[water].max() + 3  # banks, not cliffs


def flat(scene):
    """Where nothing stands for eight pixels to the right, (H, W - 8)."""
    open_ground = np.isin(scene.labels, (GRASS, BARE))
    return ndimage.minimum_filter(open_ground, (1, 9), origin=(0, -4))[:, :-8]


def test_regions_differ_in_colours_statistics_and_layout():
    def facts(region):
        scenes = [make_scene(96, seed, region=region, layout="mixed", gsd=1.0) for seed in range(16)]
        labels = np.stack([scene.labels for scene in scenes])
        shares = np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size
        optical = np.stack([scene.optical for scene in scenes]).astype(float)
        excess_green = (optical[..., 1] - (optical[..., 0] + optical[..., 2]) / 2).mean()
        near = np.mean(
            [np.median(scene.nir[scene.labels == FOREST]) for scene in scenes if (scene.labels == FOREST).any()]
        )
        relief = np.mean([(scene.dsm[:, 8:] - scene.dsm[:, :-8])[flat(scene)].std() for scene in scenes])
        return shares, excess_green, near, relief

    temperate, desert, dry = facts("temperate"), facts("desert"), facts("dry")
    assert np.abs(temperate[0] - desert[0]).sum() > 0.5  # layout: most of the ground is something else
    assert np.abs(temperate[0] - dry[0]).sum() > 0.05
    assert desert[0][FARMLAND] < 0.5 * temperate[0][FARMLAND]
    assert temperate[1] > desert[1] + 3  # colours
    assert temperate[2] > desert[2] * 1.15  # plants are duller
    assert desert[3] < dry[3]  # relief


def test_shifting_loses_what_leaves_the_scene():
    mask = np.zeros((4, 5), bool)
    mask[1, 1] = mask[3, 4] = True
    moved = shifted(mask, 1, 2)
    assert np.argwhere(moved).tolist() == [[2, 3]]
    assert not shifted(mask, 0, 9).any()
    np.testing.assert_array_equal(shifted(mask, 0, 0), mask)


@pytest.mark.parametrize("sigma", [0.4, 2.0, 9.0])
def test_noise_is_standardised_and_as_smooth_as_asked(sigma):
    field = _noise.smooth_noise(np.random.default_rng(0), (180, 231), sigma)
    assert field.shape == (180, 231)
    assert field.mean() == pytest.approx(0, abs=0.02)
    assert field.std() == pytest.approx(1, abs=0.02)
    # Of Gaussian covariance with smoothing sigma: neighbours at distance d correlate as exp(-d^2 / 4 sigma^2).
    lag = max(1, round(sigma))
    found = float((field[:, lag:] * field[:, :-lag]).mean())
    expected = np.exp(-(lag**2) / (4 * sigma**2)) if sigma > 0.6 else 0.0
    assert found == pytest.approx(expected, abs=0.12)


def test_spline_weights_sum_to_one():
    for length, spacing in ((31, 3.25), (64, 1.0), (7, 40.0)):
        first, weights = _noise._spline_taps(length, spacing)
        np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-6)
        # The four points lie around the pixel.
        assert (np.abs(first + 0.5 - np.arange(length) / spacing) <= 0.5).all()


def test_spline_noise_is_the_matrix_product_of_its_weights():
    shape, spacing = (23, 31), 3.25
    field = _noise.spline_noise(np.random.default_rng(5), shape, spacing)
    matrices = []
    for length in shape:
        first, weights = _noise._spline_taps(length, spacing)
        matrix = np.zeros((length, first[-1] + 4))
        for pixel in range(length):
            matrix[pixel, first[pixel] : first[pixel] + 4] = weights[:, pixel]
        matrices.append(matrix)
    lattice = np.random.default_rng(5).standard_normal((matrices[0].shape[1], matrices[1].shape[1]), dtype=np.float32)
    np.testing.assert_allclose(field, matrices[0] @ lattice @ matrices[1].T, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "options", "part"),
    [
        ((8, 0), {}, "16 to 8192"),
        (((64, 9000), 0), {}, "16 to 8192"),
        (((64.5, 64), 0), {}, "whole pixels"),
        ((64, -1), {}, "from 0 on"),
        ((64, 0.5), {}, "from 0 on"),
        ((64, 0), {"region": "dessert"}, "Did you mean 'desert'"),
        ((64, 0), {"layout": "citty"}, "There is no layout"),
        ((64, 0), {"modalities": ("lidar",)}, "There is no modality"),
        ((64, 0), {"gsd": 0.0}, "0.1 and 20 metres"),
        ((64, 0), {"sar_looks": 0}, "1 to 1000 looks"),
        ((64, 0), {"incidence": 85}, "between 10 and 70"),
        ((64, 0), {"look": "nrth"}, "Did you mean 'north'"),
    ],
)
def test_wrong_arguments_are_named(arguments, options, part):
    with pytest.raises(InputError, match=part):
        make_scene(*arguments, **options)


def test_kinds_of_words_do_not_overlap():
    everything = [word for words in LEXICON.values() for word in words.trained + words.thesaurus + words.combined]
    everything += [word for words in LEXICON.values() for word in words.unseen]
    assert len(everything) == len(set(everything))


def test_unseen_words_occur_in_no_training_text():
    taught = {word for text in all_training_texts() for word in text.split()}
    for words in LEXICON.values():
        for word in words.unseen:
            assert not taught & set(word.split()), word


def test_combinations_are_new_but_their_words_are_known():
    taught = {word for text in all_training_texts() for word in text.split()}
    texts = set(all_training_texts())
    for words in LEXICON.values():
        for phrase in words.combined:
            assert phrase not in texts
            assert set(phrase.split()) <= taught, phrase


def test_held_out_things_are_held_out():
    assert ORCHARD not in LEXICON
    groups = [*FINE_LIST, *(group for _, listed in COARSE_LISTS for group in listed)]
    assert all(ORCHARD not in group.members or len(group.members) > 1 for group in groups)
    assert not set(HELD_OUT_TEMPLATES) & set(TEMPLATES)
    assert HELD_OUT_ROOF in {"red", "white", "gray", "blue", "brown"}
    assert HELD_OUT_CROP in {"green", "yellow", "brown", "dark green"}


def test_every_word_list_parts_the_classes():
    assert sum(chance for chance, _ in COARSE_LISTS) == pytest.approx(1)
    for groups in (FINE_LIST, *(listed for _, listed in COARSE_LISTS)):
        members = [member for group in groups for member in group.members]
        assert len(members) == len(set(members))


def test_prompts_come_as_a_segmenter_takes_them():
    for kind in WORD_KINDS:
        prompts = class_prompts(kind)
        assert set(prompts) <= set(LEXICON)
        assert all(tuple(text.split(", ")) == getattr(LEXICON[label], kind) for label, text in prompts.items())
    assert set(class_prompts("trained")) == set(LEXICON)
    with pytest.raises(InputError, match="Did you mean 'unseen'"):
        class_prompts("unsen")
    taught, kept = attribute_prompts(), attribute_prompts(held_out=True)
    assert taught["red roof"] == (BUILDING, 0)
    assert set(kept) == {"blue roof", "brown field"}
    assert not set(taught) & set(kept)


def test_captions_use_the_words_that_they_may():
    scenes = [make_scene(64, seed, modalities=()) for seed in range(12)]
    words = {kind: {word for words in LEXICON.values() for word in getattr(words, kind)} for kind in WORD_KINDS}
    for kind in WORD_KINDS:
        texts = [describe(scene, words=kind, seed=draw) for scene in scenes for draw in range(3)]
        assert len(set(texts)) > len(scenes)
        assert all(any(word in text for word in words[kind]) for text in texts)
        held_out_sentence = [any(text.startswith(part) or text.endswith(part) for part in pieces()) for text in texts]
        assert all(held_out_sentence) == (kind in TEST_ONLY_KINDS)
        if kind not in TEST_ONLY_KINDS:
            assert not any(held_out_sentence)
            assert not any(word in text.replace(",", " ").split() for text in texts for word in words["unseen"])
            assert not any("orchard" in text or f"{HELD_OUT_ROOF} " in text for text in texts)
    assert describe(scenes[0], seed=1) == describe(scenes[0], seed=1)
    with pytest.raises(InputError, match="kind of words"):
        describe(scenes[0], words="new")


def pieces():
    return [part for template in HELD_OUT_TEMPLATES for part in template.split("{}") if part]
