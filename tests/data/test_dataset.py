"""What was written comes back: every dataset in every layout, and what a reader may ask for."""

from __future__ import annotations

import pickle

import fakes
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from rsovlib.data.dataset import ManifestDataset, collate_samples, to_tensor
from rsovlib.data.manifest import IGNORE, Tiles, load_manifest, manifest_names
from rsovlib.errors import InputError, RasterError

LAYOUTS = fakes.all_layouts()


@pytest.mark.parametrize(("name", "layout_name"), LAYOUTS)
def test_read_back_equals_what_was_written(fake_of, name, layout_name):
    fake = fake_of(name, layout_name)
    dataset = ManifestDataset(fake.manifest, fake.root, modalities=list(fake.layout.files))
    assert dataset.classes == [item.name for item in fake.manifest.classes if not item.ignored]
    assert len(dataset) == len(fake.samples)
    for sample in dataset:
        wanted = fake.samples[sample.id]
        assert list(sample.images) == list(fake.layout.files)
        for modality, image in sample.images.items():
            assert np.array_equal(image.numpy(), wanted.images[modality].astype(image.numpy().dtype))
            assert np.array_equal(sample.valid[modality].numpy(), wanted.valid[modality])
            assert sample.bands[modality] == fake.manifest.modalities[modality].band_names
            assert sample.available[modality]
        assert (sample.labels is None) == (wanted.labels is None)
        if sample.labels is not None:
            assert sample.labels.dtype == torch.int64
            assert np.array_equal(sample.labels.numpy(), wanted.labels)
        assert (sample.cloud_mask is None) == (wanted.clouds is None)
        if sample.cloud_mask is not None:
            assert np.array_equal(sample.cloud_mask.numpy(), wanted.clouds)
        reference = fake.layout.files[dataset.plan.reference]
        assert (sample.crs == fakes.CRS) == bool(reference.georeferenced)
        assert (sample.transform is not None) == bool(reference.georeferenced)


@pytest.mark.parametrize("name", manifest_names())
def test_every_protocol_reads_its_splits(fake_of, name):
    fake = fake_of(name)
    for key, protocol in fake.manifest.protocols.items():
        counted = (["background"] if protocol.others == "background" else []) + list(protocol.classes)
        for split in protocol.splits or {"train": "", "val": "", "test": ""}:
            dataset = ManifestDataset(fake.manifest, fake.root, protocol=key, split=split)
            assert dataset.classes == counted
            for sample in dataset:
                assert tuple(sample.images) == protocol.modalities
                if sample.labels is not None:
                    assert set(sample.labels.unique().tolist()) <= {*range(len(counted)), IGNORE}
                if protocol.tiles is not None:
                    reference = sample.valid.get(dataset.plan.reference)
                    assert reference is None or reference.shape == (16, 16)


def test_a_protocol_renumbers_the_classes(fake_of):
    """Potsdam's trees against the rest."""
    fake = fake_of("potsdam", "isprs")
    everything = ManifestDataset(fake.manifest, fake.root)
    trees = ManifestDataset(fake.manifest, fake.root, protocol="scenario-sampling", tiles=None, modalities=["rgb"])
    assert trees.classes == ["background", "tree"]
    tree = everything.classes.index("tree")
    for one, other in zip(everything, trees, strict=True):
        plain = one.labels
        assert torch.equal(other.labels == 1, plain == tree)
        assert (other.labels[(plain != tree) & (plain != IGNORE)] == 0).all()


def test_seen_and_unseen(fake_of):
    fake = fake_of("pie-rgb-sar", "asanet")
    options = {"protocol": "mm-ovseg-clean", "prompt_set": "corrected"}
    every = ManifestDataset(fake.manifest, fake.root, **options)
    seen = ManifestDataset(fake.manifest, fake.root, classes_of="seen", **options)
    unseen = ManifestDataset(fake.manifest, fake.root, classes_of="unseen", **options)
    assert seen.classes == list(fake.manifest.protocol("mm-ovseg-clean").seen)
    assert unseen.classes == ["road", "water"]
    assert every.prompts == fake.manifest.prompts("corrected", "mm-ovseg-clean")
    assert unseen.prompts == ["road", "water"]
    for one, first, second in zip(every, seen, unseen, strict=True):
        for place, name in enumerate(every.classes):
            where = one.labels == place
            for part, chosen in ((first, seen), (second, unseen)):
                expected = chosen.classes.index(name) if name in chosen.classes else IGNORE
                assert (part.labels[where] == expected).all()
    with pytest.raises(InputError, match="only under a protocol that names them: mm-ovseg-clean"):
        ManifestDataset(fake.manifest, fake.root, classes_of="seen")
    with pytest.raises(InputError, match="Did you mean 'seen'"):
        ManifestDataset(fake.manifest, fake.root, classes_of="sen", protocol="mm-ovseg-clean")


def test_clear_and_cloudy_variants(fake_of):
    fake = fake_of("pie-rgb-sar", "asanet")
    cloudy = ManifestDataset(fake.manifest, fake.root, modalities=["rgb", "sar"], variant="cloudy")
    assert list(cloudy[0].images) == ["rgb_cloudy", "sar"]
    clear = ManifestDataset(fake.manifest, fake.root, protocol="mm-ovseg-cloud", variant="clear")
    assert list(clear[0].images) == ["rgb", "sar"]
    potsdam = fake_of("potsdam", "isprs")
    with pytest.raises(InputError, match=r"no cloudy version of rgb.*rsovlib\.data\.clouds"):
        ManifestDataset(potsdam.manifest, potsdam.root, modalities=["rgb"], variant="cloudy")
    with pytest.raises(InputError, match="variant"):
        ManifestDataset(fake.manifest, fake.root, variant="foggy")


def test_missing_modalities(fake_of, tmp_path):
    fake = fakes.own_copy(fake_of("pie-rgb-sar", "asanet"), tmp_path)
    name = min(fake.samples)
    fake.samples[name].files["sar"].unlink()
    with pytest.raises(RasterError, match=rf"sar/{name}\.tif is missing: sar of the sample"):
        ManifestDataset(fake.manifest, fake.root, modalities=["rgb", "sar"])
    dataset = ManifestDataset(fake.manifest, fake.root, modalities=["rgb", "sar"], allow_missing=True)
    sample = dataset[0]
    assert sample.id == name
    assert sample.available == {"rgb": True, "sar": False}
    assert sample.images["sar"].shape == (1, *sample.images["rgb"].shape[1:])
    assert sample.images["sar"].dtype == dataset[1].images["sar"].dtype
    assert not sample.images["sar"].any()
    assert not sample.valid["sar"].any()
    # Nothing at all is never allowed, and neither is a missing label.
    with pytest.raises(RasterError, match="is missing"):
        ManifestDataset(fake.manifest, fake.root, modalities=["sar"], allow_missing=True)
    fake.samples[name].files["labels"].unlink()
    with pytest.raises(RasterError, match=rf"label/{name}\.tif is missing: the labels"):
        ManifestDataset(fake.manifest, fake.root, modalities=["rgb", "sar"], allow_missing=True)


def test_missing_modality_of_another_resolution_has_its_own_size(fake_of, tmp_path):
    fake = fakes.own_copy(fake_of("m3m-cr"), tmp_path)
    name = min(fake.samples)
    fake.samples[name].files["sar"].unlink()
    dataset = ManifestDataset(fake.manifest, fake.root, modalities=["optical", "sar"], allow_missing=True)
    assert dataset[0].images["sar"].shape == dataset[1].images["sar"].shape
    assert dataset[0].images["sar"].shape != dataset[0].images["optical"].shape
    assert collate_samples([dataset[0], dataset[1]])["available"]["sar"].tolist() == [False, True]


def test_windows_and_tiles_are_pieces_of_the_whole(fake_of):
    fake = fake_of("loveda", "zenodo")
    whole = ManifestDataset(fake.manifest, fake.root, split="val")[0]
    window = ManifestDataset(fake.manifest, fake.root, split="val", window=(3, 5, 10, 7))[0]
    assert torch.equal(window.images["rgb"], whole.images["rgb"][:, 3:13, 5:12])
    assert torch.equal(window.labels, whole.labels[3:13, 5:12])
    assert window.id == f"{whole.id}@3,5"
    tiles = Tiles(size=16, stride=10, edge="pad")
    for tile in ManifestDataset(fake.manifest, fake.root, split="val", tiles=tiles):
        if tile.id.startswith(f"{whole.id}@"):
            row, column = tile.box.row, tile.box.column
            inside = whole.labels[row : row + 16, column : column + 16]
            assert tile.labels.shape == (16, 16)
            assert torch.equal(tile.labels[: inside.shape[0], : inside.shape[1]], inside)
            assert (tile.labels[inside.shape[0] :] == IGNORE).all()
            assert int(tile.valid["rgb"].sum()) == inside.numel()
    for wrong, sentence in [
        ((30, 0, 30, 4), "does not lie within"),
        ((0, 0, 0, 4), "at least one"),
        ((1, 2, 3), "four whole"),
    ]:
        with pytest.raises(InputError, match=sentence):
            ManifestDataset(fake.manifest, fake.root, window=wrong)[0]


def test_a_tile_knows_its_place_on_earth(fake_of):
    fake = fake_of("eurosat", "all-bands")
    whole = ManifestDataset(fake.manifest, fake.root)[0]
    piece = ManifestDataset(fake.manifest, fake.root, window=(3, 5, 4, 4))[0]
    a, _, c, _, e, f = whole.transform
    assert piece.transform == (a, 0, c + 5 * a, 0, e, f + 3 * e)
    assert piece.crs == whole.crs == fakes.CRS


def test_whole_image_classes(fake_of):
    fake = fake_of("eurosat", "rgb")
    dataset = ManifestDataset(fake.manifest, fake.root)
    for sample in dataset:
        assert dataset.classes[sample.image_class] == fake.samples[sample.id].fields["class"]
        assert (sample.labels == sample.image_class).all()


def test_random_splits_share_tiles_out(fake_of):
    fake = fake_of("dstl")
    use = {"protocol": "scenario-sampling"}
    ids = [
        {sample.id for sample in ManifestDataset(fake.manifest, fake.root, split=s, **use)}
        for s in ("train", "val", "test")
    ]
    every = [sample.id for sample in ManifestDataset(fake.manifest, fake.root, **use)]
    assert sum(map(len, ids)) == len(every) == len(set().union(*ids))
    other = {sample.id for sample in ManifestDataset(fake.manifest, fake.root, split="test", fold=1, **use)}
    assert not other & ids[2]


def test_batches(fake_of):
    fake = fake_of("loveda", "zenodo")
    dataset = ManifestDataset(fake.manifest, fake.root, split="train", window=(0, 0, 12, 20))
    (batch,) = DataLoader(dataset, batch_size=4, collate_fn=collate_samples)
    count = len(dataset)
    assert batch["images"]["rgb"].shape == (count, 3, 12, 20)
    assert batch["labels"].shape == (count, 12, 20)
    assert batch["available"]["rgb"].tolist() == [True] * count
    assert batch["valid"]["rgb"].shape == (count, 12, 20)
    with pytest.raises(InputError, match="differ in size"):
        collate_samples([dataset[0], ManifestDataset(fake.manifest, fake.root, split="train")[0]])
    with pytest.raises(InputError, match="has no labels"):
        collate_samples([dataset[0], ManifestDataset(fake.manifest, fake.root, split="test", window=(0, 0, 12, 20))[0]])


def test_datasets_go_to_other_processes(fake_of):
    fake = fake_of("dstl")
    dataset = ManifestDataset(fake.manifest, fake.root, split="labelled")
    before = dataset[0]
    twin = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(twin[0].labels, before.labels)
    assert torch.equal(twin[0].images["swir"], before.images["swir"])


def test_transforms_get_the_sample(fake_of):
    fake = fake_of("loveda", "zenodo")
    dataset = ManifestDataset(fake.manifest, fake.root, split="val", transform=lambda sample: sample.id.upper())
    assert dataset[0] == min(fake.splits["val"]).upper()


def test_types_that_torch_computes_with():
    for given, wanted in [
        ("uint8", "uint8"),
        ("uint16", "int32"),
        ("uint32", "int64"),
        ("int16", "int16"),
        ("float64", "float32"),
    ]:
        tensor = to_tensor(np.array([[[200]]]).astype(given))
        assert tensor.dtype == getattr(torch, wanted)
        assert tensor.item() == 200


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"modalities": ["rbg"]}, "Did you mean 'rgb'"),
        ({"modalities": "rgb"}, "give a list of names"),
        ({"modalities": []}, "No modality was chosen"),
        ({"split": "trian"}, "Did you mean 'train'"),
        ({"protocol": "sdic"}, "Did you mean 'sdci'"),
        ({"layout": "isprz"}, "layout of loveda 'isprz'"),
        ({"prompt_set": "generalised"}, "Did you mean 'generalized'"),
    ],
)
def test_wrong_names(fake_of, options, sentence):
    fake = fake_of("loveda", "zenodo")
    with pytest.raises(InputError, match=sentence):
        ManifestDataset(fake.manifest, fake.root, **options)


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _other_bands(path):
    fakes.write_tif(path, np.zeros((4, 5, 5), np.uint8))


def _palette(path):
    fakes.write_palette(path, np.zeros((5, 5)))


@pytest.mark.parametrize(
    ("part", "damage", "sentence"),
    [
        ("rgb", lambda path: path.write_bytes(b""), "is empty"),
        ("rgb", lambda path: path.write_text("no raster"), "can't be opened as a raster"),
        ("rgb", _cut, "is cut short|is damaged|can't be opened"),
        ("rgb", _other_bands, "has 4 bands, and 3 were expected"),
        ("rgb", _palette, "holds numbers of colours in a palette, and 3 bands were expected"),
        ("labels", _palette, "holds numbers of colours in a palette, and 3 bands were expected"),
        (
            "labels",
            lambda path: fakes.write_tif(path, np.full((3, 5, 5), 9, np.uint8)),
            r"colour \(9, 9, 9\) \(25 pixels\)",
        ),
        ("labels", lambda path: path.unlink(), "is missing: the labels"),
    ],
)
def test_damaged_files_are_named(fake_of, tmp_path, part, damage, sentence):
    fake = fakes.own_copy(fake_of("potsdam", "isprs"), tmp_path)
    path = fake.samples[min(fake.samples)].files[part]
    damage(path)
    with pytest.raises(RasterError, match=sentence) as error:
        ManifestDataset(fake.manifest, fake.root, modalities=["rgb"])[0]
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    ("name", "modality", "count"), [("loveda", "rgb", 3), ("potsdam", "rgb", 1), ("vaihingen", "irrg", 1)]
)
def test_real_tiles(shared, name, modality, count):
    """Tiles as a segmentation library ships them; the values present are those of the tiles' own description."""
    root = shared / "data" / "mmseg-tiles" / name
    if not root.is_dir():
        pytest.skip(f"no {root}")
    dataset = ManifestDataset(name, root)
    assert len(dataset) == count
    present = {"0": {1, 2, 3, 4, 7}, "1": {1, 2, 3, 4, 6, 7}, "2": {1, 4, 6, 7}}
    manifest = load_manifest(name)
    for sample in dataset:
        values = present.get(sample.id, {0, 1, 2, 3, 4, 5})
        table = manifest.index_table(dataset.plan.layout_name)
        assert set(sample.labels.unique().tolist()) == {table[value] for value in values}
        assert sample.images[modality].dtype == torch.uint8
        assert sample.images[modality].shape[1:] == sample.labels.shape
        assert sample.images[modality].float().std() > 5


def test_a_real_cloudy_pair(shared):
    root = shared / "data" / "sen12mscr-cloudy-sample"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    (sample,) = ManifestDataset("sen12ms-cr", root)
    assert sample.images["optical_cloudy"].shape == (13, 256, 256)
    assert sample.images["sar"].shape == (2, 256, 256)
    assert sample.images["sar"].max() < 40  # decibels
    assert sample.crs == "EPSG:32631"
    assert sample.labels is None
