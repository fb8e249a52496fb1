"""Tiles as the paper cuts them: the same pixels, the same on one and two processes, and after any interruption."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import fakes
import numpy as np
import pytest
import rasterio
import torch

from rsovlib.data import prepare
from rsovlib.data.dataset import ManifestDataset
from rsovlib.data.manifest import IGNORE, load_manifest, manifest_names
from rsovlib.data.prepare import prepare_tiles
from rsovlib.data.prepared import PreparedDataset, read_index
from rsovlib.errors import InputError, OutputError, RasterError


def contents(folder):
    """Every file that is a result, and its checksum."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".progress" not in path.parts
    }


def prepared(fake, out, **options):
    return prepare_tiles(fake.manifest, fake.root, out, progress=False, **options)


@pytest.mark.parametrize("name", manifest_names())
def test_tiles_hold_what_the_dataset_gives(fake_of, tmp_path, name):
    """Every protocol of every dataset: the folder read back equals the dataset read tile by tile."""
    fake = fake_of(name)
    for key in fake.manifest.protocols or [None]:
        out = tmp_path / str(key)
        report = prepared(fake, out, protocol=key)
        tiles = PreparedDataset(out, manifest=fake.manifest)
        assert tiles.classes == ManifestDataset(fake.manifest, fake.root, protocol=key).classes
        assert (report.tiles, report.kept) == (len(tiles), 0)
        direct = {}
        roles = fake.manifest.protocols[key].splits.values() if key else ()
        random = fake.manifest.protocols[key].random_split if key else None
        splits = dict.fromkeys(roles) or (dict.fromkeys(random.fractions) if random else {None: None})
        for split in splits:
            for sample in ManifestDataset(fake.manifest, fake.root, protocol=key, split=split):
                direct[sample.id.split("@")[0], sample.box, sample.split] = sample
        assert len(tiles) == len(direct)
        for row, tile in zip(tiles.index.itertuples(), tiles, strict=True):
            wanted = next(
                sample
                for (sample_id, box, split), sample in direct.items()
                if (sample_id, split) == (row.sample, row.split)
                and (box is None or (box.row, box.column) == (row.row, row.column))
            )
            for modality, image in wanted.images.items():
                assert torch.equal(tile.images[modality], image)
                assert torch.equal(tile.valid[modality], wanted.valid[modality])
            assert (tile.labels is None) == (wanted.labels is None)
            if wanted.labels is not None:
                assert torch.equal(tile.labels, wanted.labels)
                counts = torch.bincount(wanted.labels.flatten(), minlength=IGNORE + 1)[: len(tiles.classes)]
                assert list(row.class_pixels) == counts.tolist()
                assert row.labelled_share == pytest.approx(counts.sum().item() / wanted.labels.numel())
            if wanted.cloud_mask is not None:
                assert torch.equal(tile.cloud_mask, wanted.cloud_mask)
            assert row.valid_share == pytest.approx(min(v.float().mean().item() for v in wanted.valid.values()))
            assert tile.crs == wanted.crs
            assert tile.transform == wanted.transform
            assert tile.image_class == wanted.image_class


def test_one_and_two_processes_give_the_same_bytes(fake_of, tmp_path):
    fake = fake_of("potsdam", "isprs")
    one = prepared(fake, tmp_path / "one", protocol="scenario-sampling")
    two = prepared(fake, tmp_path / "two", protocol="scenario-sampling", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert one.splits == two.splits
    assert one.tiles == 4 * 2 * 2


def test_tiles_are_placed_on_earth(fake_of, tmp_path):
    fake = fake_of("eurosat", "all-bands")
    prepared(fake, tmp_path / "out")
    table, settings = read_index(tmp_path / "out")
    assert settings["dataset"] == "eurosat"
    with rasterio.open(tmp_path / "out" / table.path_optical[0]) as tile:
        assert tile.crs.to_string() == fakes.CRS == table.crs[0]
        assert list(tile.transform)[:6] == list(table.geotransform[0])
        assert tile.descriptions == fake.manifest.modalities["optical"].band_names


def test_png_tiles(fake_of, tmp_path):
    fake = fake_of("loveda", "zenodo")
    prepared(fake, tmp_path / "png", tile_format="png")
    prepared(fake, tmp_path / "tif")
    assert all(path.suffix in (".png", ".parquet") for path in map(tmp_path.joinpath, contents(tmp_path / "png")))
    for one, other in zip(
        PreparedDataset(tmp_path / "png", manifest=fake.manifest),
        PreparedDataset(tmp_path / "tif", manifest=fake.manifest),
        strict=True,
    ):
        assert torch.equal(one.images["rgb"], other.images["rgb"])
        assert torch.equal(one.labels, other.labels)
    potsdam = fake_of("potsdam", "isprs")
    with pytest.raises(InputError, match="PNG can't hold dsm"):
        prepared(potsdam, tmp_path / "x", protocol="scenario-sampling", tile_format="png")
    assert not (tmp_path / "x").exists()


def test_what_is_finished_is_kept_and_what_is_damaged_is_made_again(fake_of, tmp_path):
    fake, out = fake_of("loveda", "zenodo"), tmp_path / "out"
    count = prepared(fake, out).tiles
    before = contents(out)
    assert prepared(fake, out).kept == count
    table, _ = read_index(out)
    # Gone, cut short, replaced by another tile, and left over from a killed run.
    (out / table.path_rgb[0]).unlink()
    with (out / table.path_labels[1]).open("r+b") as file:
        file.truncate(40)
    (out / table.path_rgb[2]).write_bytes((out / table.path_rgb[3]).read_bytes())
    (out / "rgb" / ".tile.abc.part.tif").write_bytes(b"half")
    assert prepared(fake, out).kept == count - 3
    assert contents(out) == before


def test_a_journal_that_was_cut_short(fake_of, tmp_path):
    """The last line is half written when the power goes: its tile is made again, the others are kept."""
    fake, out = fake_of("loveda", "zenodo"), tmp_path / "out"
    count = prepared(fake, out).tiles
    before = contents(out)
    for journal in (out / ".progress").glob("*.jsonl"):
        text = journal.read_text()
        journal.write_text(text[: len(text) - 30])
    journals = len(list((out / ".progress").glob("*.jsonl")))
    assert prepared(fake, out).kept == count - journals
    assert contents(out) == before


def test_tiles_of_changed_files_are_made_again(fake_of, tmp_path):
    fake = fakes.own_copy(fake_of("loveda", "zenodo"), tmp_path / "copy")
    out = tmp_path / "out"
    count = prepared(fake, out).tiles
    name = min(fake.splits["val"])
    path = fake.samples[name].files["rgb"]
    array = fake.samples[name].images["rgb"]
    fakes.write_array(path, (array // 2).astype(np.uint8), "png", fake)
    os.utime(path, (1, 1))
    table, _ = read_index(out)
    assert prepared(fake, out).kept == count - (table["sample"] == name).sum()
    changed = next(tile for tile in PreparedDataset(out, manifest=fake.manifest) if tile.id.startswith(name))
    assert changed.images["rgb"].max() <= 128


def test_an_interrupted_run_goes_on(fake_of, tmp_path, monkeypatch):
    fake, out = fake_of("loveda", "zenodo"), tmp_path / "out"
    prepared(fake, tmp_path / "whole")
    written = []
    real = prepare._write

    def interrupted(path, *rest):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        real(path, *rest)

    monkeypatch.setattr(prepare, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepared(fake, out)
    assert not (out / "index.parquet").exists()
    with pytest.raises(InputError, match="let an unfinished run end"):
        PreparedDataset(out, manifest=fake.manifest)
    monkeypatch.setattr(prepare, "_write", real)
    assert prepared(fake, out).kept == 2  # two files a tile: five files are two whole tiles
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_leaves_nothing_half(fake_of, tmp_path, number):
    fake, out = fake_of("loveda", "zenodo"), tmp_path / "out"
    prepared(fake, tmp_path / "whole")
    program = (
        "import sys, time\n"
        "from rsovlib import cli\n"
        "from rsovlib.data import prepare\n"
        "real = prepare._write\n"
        "def slowly(path, *rest):\n"
        "    real(path, *rest)\n"
        "    print(path, flush=True)\n"
        "    time.sleep(0.1)\n"
        "prepare._write = slowly\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    command = ["data", "prepare", str(fake.manifest_path), "--root", str(fake.root), "--out", str(out), "--quiet"]
    with subprocess.Popen([sys.executable, "-c", program, *command], stdout=subprocess.PIPE, text=True) as process:
        for _ in range(4):
            assert process.stdout.readline().startswith(str(out))
        time.sleep(0.05)
        process.send_signal(number)
    assert process.returncode in (-number, 143)
    assert not (out / "index.parquet").exists()
    report = prepared(fake, out)
    assert 0 < report.kept < report.tiles
    assert contents(out) == contents(tmp_path / "whole")


def test_other_settings_need_another_folder(fake_of, tmp_path):
    fake, out = fake_of("potsdam", "isprs"), tmp_path / "out"
    prepared(fake, out, protocol="sdci")
    with pytest.raises(InputError, match=r"another protocol \('sdci', now 'segearth'\)"):
        prepared(fake, out, protocol="segearth")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(InputError, match="holds other things than tiles"):
        prepared(fake, tmp_path / "mine")
    with pytest.raises(InputError, match="is the dataset itself"):
        prepared(fake, fake.root)
    (out / ".progress" / "settings.json").write_text("{")
    with pytest.raises(InputError, match="is damaged; delete"):
        prepared(fake, out, protocol="sdci")


def test_another_fold_only_changes_the_index(fake_of, tmp_path):
    fake, out = fake_of("potsdam", "isprs"), tmp_path / "out"
    first = prepared(fake, out, protocol="scenario-sampling")
    table = read_index(out)[0]
    second = prepared(fake, out, protocol="scenario-sampling", fold=1)
    assert second.kept == first.tiles
    other = read_index(out)[0]
    assert table["id"].tolist() == other["id"].tolist()
    assert not set(table["id"][table["split"] == "test"]) & set(other["id"][other["split"] == "test"])
    with pytest.raises(InputError, match="There is no fold 9"):
        prepared(fake, tmp_path / "x", protocol="scenario-sampling", fold=9)


def test_roles_and_splits(fake_of, tmp_path):
    fake, out = fake_of("loveda", "zenodo"), tmp_path / "out"
    report = prepared(fake, out)
    assert report.settings["splits"] == {"test": "val"}
    assert len(PreparedDataset(out, "test", manifest=fake.manifest)) == report.tiles
    assert len(PreparedDataset(out, "val", manifest=fake.manifest)) == report.tiles
    words = PreparedDataset(out, manifest=fake.manifest, prompt_set="generalized").prompts
    assert words == fake.manifest.prompts("generalized", "sdci")
    with pytest.raises(InputError, match="split of these tiles 'train'"):
        PreparedDataset(out, "train", manifest=fake.manifest)


def test_the_papers_number_of_tiles_is_compared(fake_of, tmp_path):
    fake = fake_of("loveda", "zenodo")
    content = fake.manifest.model_dump(mode="json")
    content["protocols"]["sdci"]["tile_counts"] = {"test": 6676}
    manifest = type(fake.manifest).model_validate(content)
    summary = prepare_tiles(manifest, fake.root, tmp_path / "out", progress=False).summary()
    assert "the paper has 6676 tiles (test), here are" in summary
    assert "not the same" in summary


@pytest.mark.parametrize(
    ("name", "clear", "cloudy"), [("whu-opt-sar", "optical", "optical_cloudy"), ("pie-rgb-sar", "rgb", "rgb_cloudy")]
)
def test_clouds_that_nobody_published_are_simulated(fake_of, tmp_path, name, clear, cloudy):
    fake = fakes.own_copy(fake_of(name), tmp_path / "copy")
    key = next(key for key, use in fake.manifest.protocols.items() if cloudy in use.modalities)
    for sample in fake.samples.values():
        sample.files[cloudy].unlink()
    with pytest.raises(RasterError, match="or let its clouds be simulated"):
        prepared(fake, tmp_path / "x", protocol=key)
    one = prepared(fake, tmp_path / "one", protocol=key, simulate_clouds=True)
    prepared(fake, tmp_path / "two", protocol=key, simulate_clouds=True, workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert one.settings["simulated_clouds"][cloudy]["clear"] == clear
    how = next(clouds for clouds in fake.manifest.clouds.values() if clouds.cloudy == cloudy)
    direct = ManifestDataset(fake.manifest, fake.root, protocol=key, simulate_clouds=True)
    plain = ManifestDataset(fake.manifest, fake.root, protocol=key, variant="clear")
    covers = []
    for tile, made, without in zip(
        PreparedDataset(tmp_path / "one", manifest=fake.manifest), direct, plain, strict=True
    ):
        assert torch.equal(tile.images[cloudy], made.images[cloudy])
        assert torch.equal(tile.cloud_mask, made.cloud_mask)
        covers.append(tile.cloud_mask.float().mean().item())
        same = (made.images[cloudy] == without.images[clear]).all(dim=0)
        assert not same[tile.cloud_mask].all()
    assert min(covers) >= how.cover[0] - 0.02
    assert max(covers) <= how.cover[1] + 0.02
    assert len(set(covers)) > 1  # other clouds for each tile


def test_missing_modalities_are_refused_or_left_open(fake_of, tmp_path):
    fake = fakes.own_copy(fake_of("potsdam", "isprs"), tmp_path / "copy")
    name = min(fake.samples)
    fake.samples[name].files["dsm"].unlink()
    options = {"protocol": "scenario-sampling"}
    with pytest.raises(RasterError, match=r"dsm_potsdam_02_10\.tif is missing"):
        prepared(fake, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    prepared(fake, tmp_path / "out", allow_missing=True, **options)
    tiles = PreparedDataset(tmp_path / "out", manifest=fake.manifest)
    without = [tile for tile in tiles if not tile.available["dsm"]]
    assert {tile.id.split("_r")[0] for tile in without} == {name}
    assert all(tile.images["dsm"].shape == (1, 16, 16) and not tile.valid["dsm"].any() for tile in without)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_source_is_an_error_and_leaves_the_finished_tiles(fake_of, tmp_path, workers):
    fake = fakes.own_copy(fake_of("loveda", "zenodo"), tmp_path / "copy")
    bad = fake.samples[max(fake.splits["val"])].files["labels"]
    height, width = fakes.label_size(fake)
    fakes.write_array(bad, np.full((1, height, width), 99, np.uint8), "png", fake)
    with pytest.raises(RasterError, match="the label value 99"):
        prepared(fake, tmp_path / "out", workers=workers)
    assert not (tmp_path / "out" / "index.parquet").exists()
    assert not list((tmp_path / "out").rglob("*.part*"))
    good = fake_of("loveda", "zenodo").samples[max(fake.splits["val"])].files["labels"]
    bad.write_bytes(good.read_bytes())
    assert prepared(fake, tmp_path / "out").kept > 0


def test_names_that_would_fall_together():
    names = prepare._file_names(["a b", "a/b", "A_b", "c"])
    assert len({name.casefold() for name in names}) == 4
    assert names[3] == "c"
    assert all("/" not in name and " " not in name for name in names)


def test_a_full_disk_is_an_error_of_ours(fake_of, tmp_path, monkeypatch):
    fake = fake_of("loveda", "zenodo")

    def full(*arguments, **more):
        raise OutputError("no room")

    monkeypatch.setattr(prepare, "write_raster", full)
    with pytest.raises(OutputError, match="no room"):
        prepared(fake, tmp_path / "out")
    assert not (tmp_path / "out" / "index.parquet").exists()


def test_damaged_indices(fake_of, tmp_path):
    fake = fake_of("loveda", "zenodo")
    prepared(fake, tmp_path)
    index = tmp_path / "index.parquet"
    table, _ = read_index(tmp_path)
    table.to_parquet(index)
    with pytest.raises(InputError, match="not written by rsovlib data prepare"):
        read_index(tmp_path)
    index.write_bytes(b"PAR1")
    with pytest.raises(InputError, match="can't be read as a Parquet table"):
        read_index(tmp_path)


def test_the_settings_are_plain_and_whole(fake_of, tmp_path):
    fake = fake_of("potsdam", "isprs")
    report = prepared(fake, tmp_path / "out", protocol="sdci")
    _, settings = read_index(tmp_path / "out")
    assert settings == json.loads(json.dumps(report.settings))
    assert settings["tiles"] == {"size": 16, "stride": 16, "edge": "shift", "of": None}
    assert settings["classes"] == list(load_manifest("potsdam").protocol("sdci").classes)


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
def test_a_second_run_in_the_same_folder_is_told_of_the_first(fake_of, tmp_path, monkeypatch):
    fake, real, said = fake_of("potsdam"), prepare.run_all, []

    def meanwhile(*arguments):
        with pytest.raises(OutputError, match="Another process is preparing tiles") as error:
            prepared(fake, tmp_path / "tiles")
        said.append(str(error.value))
        return real(*arguments)

    monkeypatch.setattr(prepare, "run_all", meanwhile)
    report = prepared(fake, tmp_path / "tiles")
    assert len(said) == 1
    assert "\n" not in said[0]
    monkeypatch.undo()
    assert prepared(fake, tmp_path / "tiles").kept == report.tiles  # the lock ended with the run
