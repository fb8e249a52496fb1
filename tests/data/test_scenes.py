"""Simulated scenes: the same every time, plausible in every sensor, and clear about wrong arguments."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from rsovlib.data import _noise
from rsovlib.data._scene_light import REGIONS, _shifted
from rsovlib.data._scene_plan import LAYOUTS
from rsovlib.data._scene_radar import _radar_shadow
from rsovlib.data.lexicon import (
    BUILDING,
    CLASSES,
    COARSE_LISTS,
    FINE_LIST,
    FOREST,
    HELD_OUT_CROP,
    HELD_OUT_ROOF,
    HELD_OUT_TEMPLATES,
    LEXICON,
    ORCHARD,
    ROAD,
    TEMPLATES,
    WATER,
    all_training_texts,
)
from rsovlib.data.scenes import MODALITIES, SCENE_VERSION, make_scene
from rsovlib.errors import InputError

SHAPE = (72, 101)


def arrays(scene):
    return {name: getattr(scene, name) for name in ("optical", "labels", "nir", "sar", "dsm", "roof", "crop")}


def test_a_scene_holds_what_it_promises():
    scene = make_scene(SHAPE, 3)
    assert scene.optical.shape == (*SHAPE, 3)
    assert scene.optical.dtype == np.uint8
    assert scene.labels.shape == SHAPE
    assert scene.labels.dtype == np.uint8
    assert scene.labels.max() < len(scene.classes) == len(CLASSES)
    assert scene.nir.shape == SHAPE
    assert scene.nir.dtype == np.uint8
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


def test_speckle_has_the_variance_of_its_looks():
    # On calm water without texture the power's relative variance would be 1 / looks; texture adds to it.
    scene = make_scene(200, 4, layout="coast", region="temperate")
    water = ndimage.binary_erosion(scene.labels == WATER, iterations=4)
    assert water.sum() > 2000
    power = 10 ** (scene.sar[0][water].astype(float) / 10)
    local = power / ndimage.uniform_filter(10 ** (scene.sar[0].astype(float) / 10), 7)[water]
    assert local.std() == pytest.approx(0.5, abs=0.15)  # four looks


def test_radar_shadow_of_a_wall_has_the_length_that_the_angle_says():
    surface = np.zeros((1, 60), np.float32)
    surface[0, 10] = 20
    hidden = np.flatnonzero(_radar_shadow(surface, drop=1.0)[0])
    # The line of sight over 20 m falls 1 m a pixel; the last 2 m don't count as shadow.
    assert hidden.tolist() == list(range(11, 28))


def test_shifting_loses_what_leaves_the_scene():
    mask = np.zeros((4, 5), bool)
    mask[1, 1] = mask[3, 4] = True
    moved = _shifted(mask, 1, 2)
    assert np.argwhere(moved).tolist() == [[2, 3]]
    assert not _shifted(mask, 0, 9).any()
    np.testing.assert_array_equal(_shifted(mask, 0, 0), mask)


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
        np.testing.assert_allclose(_noise._spline_matrix(length, spacing).sum(axis=1), 1, atol=1e-6)


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
