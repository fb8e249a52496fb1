"""Pairs of datasets: read when asked for, seen classes only, words by the reading, clouds made or read, odd grids."""

from __future__ import annotations

import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from rsovlib.data.manifest import load_manifest
from rsovlib.errors import InputError, RasterError
from rsovlib.fusion.augment import DrawFrom, SampleRule
from rsovlib.fusion.config import Readings
from rsovlib.fusion.pairs import (
    IGNORE,
    DatasetPairs,
    PairPool,
    class_prompts,
    dataset_pool,
    on_grid,
    pair_sensors,
    picture_of,
)
from rsovlib.fusion.prompts import class_words

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import fakes

LAYOUTS = {"ddhr-sk": "ddhrnet", "pie-rgb-sar": "asanet", "openearthmap-sar": "dfc2025", "cmu-data": "pairs"}


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, fakes.Fake]:
    """Small copies of the datasets in their publishers' folders, complete but for the clouds that are made here."""
    folder = tmp_path_factory.mktemp("datasets")
    made = {name: fakes.make_fake(folder / name, name, layout) for name, layout in LAYOUTS.items()}
    for name, cloudy in (("pie-rgb-sar", "rgb_clouds"), ("openearthmap-sar", "train/rgb_cloud")):
        shutil.rmtree(made[name].root / cloudy)
    return made


def pool_of(copies: dict[str, fakes.Fake], name: str, protocol: str, **options: object) -> PairPool:
    return dataset_pool(name, protocol, root=copies[name].root, **options)  # type: ignore[arg-type]


def test_training_names_and_labels_only_what_is_seen(copies: dict[str, fakes.Fake]) -> None:
    fake, pool = copies["ddhr-sk"], pool_of(copies, "ddhr-sk", "mm-ovseg")
    assert pool.classes == ("city", "forest", "farmland")
    assert pool.clouds is None  # the published images have theirs
    assert len(pool.pairs) == len(fake.splits["train"])
    for pair in pool.pairs:
        wanted = fake.samples[pair.name]
        # All classes of DDHR-SK in their order: city, road, forest, water, farmland.
        table = np.array([0, IGNORE, 1, IGNORE, 2, *[IGNORE] * 251], np.uint8)
        np.testing.assert_array_equal(pair.labels, table[wanted.labels])
        np.testing.assert_array_equal(pair.optical, np.moveaxis(wanted.images["rgb"], 0, -1))
        np.testing.assert_array_equal(pair.sar, np.moveaxis(wanted.images["sar"], 0, -1).repeat(3, axis=2))
    test = pool_of(copies, "ddhr-sk", "mm-ovseg", split="test", classes_of="all")
    assert test.classes == ("city", "road", "forest", "water", "farmland")
    assert {pair.name for pair in test.pairs} == fake.splits["val"]


def test_words_follow_the_reading(copies: dict[str, fakes.Fake]) -> None:
    plain, released = (
        pool_of(copies, "pie-rgb-sar", "mm-ovseg-clean", plain_names=plain).classes for plain in (True, False)
    )
    assert plain == ("background", "city", "forest", "farmland")
    assert released == ("backbroad", "city", "forest", "farmland")


@pytest.mark.parametrize("name", ["pie-rgb-sar", "openearthmap-sar", "ddhr-sk", "ddhr-ch"])
def test_a_networks_reading_turns_plain_words_into_the_releases(name: str) -> None:
    """The manifests' two spellings and the prompts' own table say the same."""
    manifest = load_manifest(name)
    classes = next(iter(manifest.protocols.values())).classes
    words = class_words(class_prompts(manifest, classes), Readings(plain_class_names=False))
    assert [group[0] for group in words] == class_prompts(manifest, classes, plain=False)


def test_clouds_are_made_where_there_are_none_and_always_the_same(copies: dict[str, fakes.Fake]) -> None:
    clear = pool_of(copies, "pie-rgb-sar", "mm-ovseg-clean").pairs
    made, again = (pool_of(copies, "pie-rgb-sar", "mm-ovseg-cloud").pairs for _ in range(2))
    for pair, same, bare in zip(made, again, clear, strict=True):
        assert pair.name == bare.name
        assert (pair.optical != bare.optical).any()
        np.testing.assert_array_equal(pair.optical, same.optical)
        np.testing.assert_array_equal(pair.sar, bare.sar)
    teacher = pool_of(copies, "pie-rgb-sar", "mm-ovseg-cloud", clear=True, classes_of="none").pairs
    for pair, bare in zip(teacher, clear, strict=True):
        np.testing.assert_array_equal(pair.optical, bare.optical)
        assert pair.labels is None
    with pytest.raises(InputError, match="no images without clouds"):
        pool_of(copies, "ddhr-sk", "mm-ovseg", clear=True)


def test_clouds_that_are_there_are_read(copies: dict[str, fakes.Fake], tmp_path: Path) -> None:
    fake = fakes.own_copy(copies["pie-rgb-sar"], tmp_path)
    pair = dataset_pool("pie-rgb-sar", "mm-ovseg-cloud", root=fake.root).pairs[0]
    file = fake.root / "rgb_clouds" / f"{pair.name}.tif"
    file.parent.mkdir()
    white = np.full((3, *pair.labels.shape), 250, np.uint8)
    fakes.write_tif(file, white)
    again = dataset_pool("pie-rgb-sar", "mm-ovseg-cloud", root=fake.root).pairs[0]
    assert (again.optical == 250).all()


def test_pairs_without_classes(copies: dict[str, fakes.Fake]) -> None:
    pool = pool_of(copies, "cmu-data", "cmu", classes_of="none")
    assert pool.classes == ()
    assert pool.pairs[0].labels is None
    with pytest.raises(InputError, match="seen and unseen"):
        pool_of(copies, "cmu-data", "cmu")


def test_nothing_is_read_before_it_is_asked_for(copies: dict[str, fakes.Fake], tmp_path: Path) -> None:
    fake = fakes.own_copy(copies["ddhr-sk"], tmp_path)
    pool = dataset_pool("ddhr-sk", "mm-ovseg", root=fake.root)
    first, second = pool.pairs[0], sorted(fake.splits["train"])[1]
    fake.samples[second].files["rgb"].write_bytes(b"no picture")
    np.testing.assert_array_equal(pool.pairs[0].optical, first.optical)
    with pytest.raises(RasterError, match=second):
        pool.pairs[1]
    with pytest.raises(IndexError):
        pool.pairs[2]
    fake.samples[second].files["sar"].unlink()
    with pytest.raises(RasterError, match="is missing"):
        dataset_pool("ddhr-sk", "mm-ovseg", root=fake.root)


def test_any_process_may_draw(copies: dict[str, fakes.Fake]) -> None:
    """Data loaders' workers get the pools pickled, and draw what the main process would."""
    pools = [pool_of(copies, "ddhr-sk", "mm-ovseg"), pool_of(copies, "openearthmap-sar", "mm-ovseg-thick")]
    draw = DrawFrom(pools, 3, SampleRule.papers(16))
    here, there = draw(np.random.default_rng(4)), pickle.loads(pickle.dumps(draw))(np.random.default_rng(4))
    assert torch.equal(here.optical, there.optical)
    assert torch.equal(here.labels, there.labels)
    assert here.classes == there.classes
    loader = DataLoader(pools[0].pairs, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    for pair, other in zip(loader, pools[0].pairs, strict=True):
        np.testing.assert_array_equal(pair.optical, other.optical)


def test_a_part_is_spread_evenly(copies: dict[str, fakes.Fake]) -> None:
    whole, part = (pool_of(copies, "openearthmap-sar", "mm-ovseg-thin", limit=limit) for limit in (0, 2))
    names = [pair.name for pair in whole.pairs]
    assert [pair.name for pair in part.pairs] == [names[0], names[-1]]
    assert [pair.name for pair in whole.pairs[1:]] == names[1:]


# ---- the redistribution, whose training labels count the seen classes ------------------------------------------------


@pytest.fixture
def redistributed(tmp_path: Path) -> fakes.Fake:
    """DDHR-SK as MM-OVSeg gives it away: 0, 1, 2 in its training labels are city, forest and farmland."""
    fake = fakes.make_fake(tmp_path, "ddhr-sk", "mm-ovseg")
    for name in fake.splits["train"]:
        sample = fake.samples[name]
        table = np.array([0, IGNORE, 1, IGNORE, 2, *[IGNORE] * 251], np.uint8)
        Image.fromarray(table[sample.labels]).save(sample.files["labels"])
    return fake


def test_training_labels_that_count_the_seen_classes(redistributed: fakes.Fake) -> None:
    table = np.array([0, IGNORE, 1, IGNORE, 2, *[IGNORE] * 251], np.uint8)
    pool = dataset_pool("ddhr-sk", "mm-ovseg", root=redistributed.root)
    assert pool.classes == ("city", "forest", "farmland")
    for pair in pool.pairs:
        np.testing.assert_array_equal(pair.labels, table[redistributed.samples[pair.name].labels])
    wrong = dataset_pool("ddhr-sk", "mm-ovseg", root=redistributed.root, train_labels="manifest").pairs[0]
    assert (wrong.labels == 1).sum() == (pool.pairs[0].labels == 2).sum()  # 2 would mean forest
    with pytest.raises(InputError, match="reading of training labels"):
        dataset_pool("ddhr-sk", "mm-ovseg", root=redistributed.root, train_labels="all")  # type: ignore[arg-type]


def test_labels_that_contradict_the_seen_list_say_so(redistributed: fakes.Fake) -> None:
    pool = dataset_pool("ddhr-sk", "mm-ovseg", root=redistributed.root)
    sample = redistributed.samples[pool.pairs[0].name]
    Image.fromarray(np.full(sample.labels.shape, 4, np.uint8)).save(sample.files["labels"])
    with pytest.raises(InputError, match=r"hold the number 4.*train_labels='manifest'"):
        pool.pairs[0]


# ---- pictures --------------------------------------------------------------------------------------------------------


def test_eight_bits_stay_and_others_are_stretched() -> None:
    valid = np.ones((9, 11), bool)
    bytes_ = np.random.default_rng(0).integers(0, 256, (1, 9, 11), dtype=np.uint8)
    np.testing.assert_array_equal(picture_of(bytes_, valid), np.moveaxis(bytes_, 0, -1).repeat(3, axis=2))
    decibels = np.linspace(-30, 0, 99, dtype=np.float32).reshape(1, 9, 11)
    decibels[0, 0, 0] = np.nan
    picture = picture_of(decibels, valid)
    assert picture.shape == (9, 11, 3)
    assert picture[0, 0, 0] == 0
    assert (np.diff(picture[..., 0].ravel()[1:].astype(int)) >= 0).all()
    assert picture[-1, -1, 0] == 255
    assert not picture_of(np.full((1, 9, 11), np.nan, np.float32), valid).any()


def test_a_sensor_of_another_resolution_is_brought_to_the_image() -> None:
    picture = np.repeat(np.array([[10, 10, 200, 200]] * 3, np.uint8)[..., None], 3, axis=2)
    wide = on_grid(picture, (6, 8))
    assert wide.shape == (6, 8, 3)
    assert wide[0, 0, 0] == 10
    assert wide[5, 7, 0] == 200
    assert on_grid(picture, (3, 4)) is picture


def test_protocols_without_a_pair_are_refused() -> None:
    assert pair_sensors(load_manifest("openearthmap-sar"), "mm-ovseg-thin") == ("rgb_thin", "sar")
    assert pair_sensors(load_manifest("openearthmap-sar"), "mm-ovseg-thin", clear=True) == ("rgb", "sar")
    with pytest.raises(InputError, match="no optical-SAR pair"):
        pair_sensors(load_manifest("gid"), "sdci")


def test_empty_sets_are_refused() -> None:
    with pytest.raises(InputError, match="no pairs"):
        PairPool("nothing", [])


def test_samples_without_labels_say_so(redistributed: fakes.Fake) -> None:
    name = sorted(redistributed.splits["train"])[0]
    redistributed.samples[name].files["labels"].unlink()
    pool = dataset_pool("ddhr-sk", "mm-ovseg", root=redistributed.root)
    assert isinstance(pool.pairs, DatasetPairs)
    with pytest.raises(InputError, match="has no labels"):
        pool.pairs[0]
