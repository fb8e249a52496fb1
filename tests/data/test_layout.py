"""Finding the samples of a dataset under a folder."""

from __future__ import annotations

import fakes
import numpy as np
import pytest

from rsovlib.data.layout import dataset_root, find_samples
from rsovlib.data.manifest import Manifest, load_manifest
from rsovlib.errors import InputError


def small(layouts, **more) -> Manifest:
    """A manifest of one's own, with the least that one needs."""
    band = {"name": "grey"}
    content = {
        "name": "own",
        "title": "Own",
        "version": "1",
        "pages": ["https://example.org"],
        "licence": {"name": "none"},
        "modalities": {"a": {"kind": "optical", "sensor": "x", "bands": [band]}},
        "classes": [{"name": "land", "values": [1]}],
        "layouts": layouts,
    }
    return Manifest.model_validate(content | more)


def layout(path="img/{id}.png", labels="lab/{id}.png", **more):
    files = {"a": {"path": path, "format": "png", "dtype": "uint8"}}
    found = {"path": labels, "encoding": "index", "format": "png"} if labels else {"encoding": "none"}
    return {"source": "me", "files": files, "labels": found} | more


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(("name", "layout_name"), fakes.all_layouts())
def test_every_sample_of_a_complete_copy_is_found(fake_of, name, layout_name):
    fake = fake_of(name, layout_name)
    copy = find_samples(fake.manifest, fake.root)
    assert copy.layout_name == layout_name
    assert [sample.id for sample in copy.samples] == sorted(fake.samples)
    for sample in copy.samples:
        wanted = fake.samples[sample.id]
        table = {"labels": copy.root / copy.layout.labels.path} if copy.layout.labels.encoding == "polygons" else {}
        assert sample.all_files == wanted.files | table
        assert set(sample.splits) == {split for split, names in fake.splits.items() if sample.id in names}
    for split, names in fake.splits.items():
        assert {sample.id for sample in copy.in_split(split)} == names
    assert (copy.strangers, copy.doubles, copy.torn, dict(copy.absent), copy.absent_lists) == ((), (), (), {}, ())


def test_the_layout_that_fits_best_is_taken(fake_of):
    """Of all layouts of the published manifest, with copies that are laid out in one of them."""
    for name, layout_name in fakes.all_layouts():
        fake = fake_of(name, layout_name)
        found = find_samples(load_manifest(name), fake.root)
        assert found.layout_name == layout_name


def test_white_space_dots_and_case_in_names(tmp_path):
    touch(tmp_path, "img/a b.png", "lab/a b.png", "img/A.b.png", "lab/A.b.png", "img/ü.png", "lab/ü.png")
    copy = find_samples(small({"x": layout()}), tmp_path)
    assert [sample.id for sample in copy.samples] == ["A.b", "a b", "ü"]
    assert all(sample.label_file for sample in copy.samples)


@pytest.mark.parametrize(
    "line",
    ["one two", "one two.png", "img/one two.png", "lab/one two.png", "img/one two.png lab/one two.png", "  one two "],
)
def test_lines_of_a_list(tmp_path, line):
    touch(tmp_path, "img/one two.png", "img/three.png")
    (tmp_path / "list.txt").write_text(f"{line}\n\n", encoding="utf-8-sig")
    manifest = small({"x": layout(labels=None, splits={"train": {"list_file": "list.txt"}})})
    copy = find_samples(manifest, tmp_path)
    assert [sample.id for sample in copy.in_split("train")] == ["one two"]
    assert copy.absent == {}
    assert copy.strangers == ()


def test_lines_with_two_files(tmp_path):
    touch(tmp_path, "img/one.png", "lab/one.png")
    (tmp_path / "list.txt").write_text("img/one.png lab/one.png\n")
    copy = find_samples(small({"x": layout(splits={"train": {"list_file": "list.txt"}})}), tmp_path)
    assert [sample.id for sample in copy.in_split("train")] == ["one"]


def test_what_is_listed_and_not_there(tmp_path):
    touch(tmp_path, "img/one.png")
    splits = {"train": {"ids": ["one", "two"]}, "val": {"list_file": "gone.txt"}}
    copy = find_samples(small({"x": layout(splits=splits)}), tmp_path)
    assert copy.absent == {"two": ("train",)}
    assert copy.absent_lists == ("gone.txt",)
    assert copy.expected_path("two", "labels") == "lab/two.png"
    with pytest.raises(InputError, match=r"gone\.txt is not there"):
        copy.in_split("val")
    with pytest.raises(InputError, match="Did you mean 'train'"):
        copy.in_split("trian")


def test_placeholders_that_nobody_knows_stay(tmp_path):
    touch(tmp_path, "train/one.png")
    manifest = small({"x": layout("{part}/{id}.png", None, splits={"train": {"ids": ["one", "two"]}})})
    copy = find_samples(manifest, tmp_path)
    assert copy.expected_path("two", "a") == "{part}/two.png"
    assert copy.expected_path("two", "a", {"part": "val"}) == "val/two.png"


def test_strangers_doubles_and_torn_samples(tmp_path):
    touch(
        tmp_path,
        "train/one.png",
        "val/one.png",
        "notes.doc",
        "README.md",
        ".DS_Store",
        "train/one.png.aux.xml",
        "a.zip",
    )
    copy = find_samples(small({"x": layout("{part}/{id}.png", "lab-{part}/{id}.png")}), tmp_path)
    assert copy.strangers == ("notes.doc",)
    assert copy.doubles == (("train/one.png", "val/one.png"),)
    touch(tmp_path, "lab-val/one.png")
    (sentence,) = find_samples(small({"x": layout("{part}/{id}.png", "lab-{part}/{id}.png")}), tmp_path).torn[-1:]
    assert "part = " in sentence


def test_files_of_another_layout_are_no_strangers(tmp_path):
    touch(tmp_path, "img/one.png", "lab/one.png", "lab2/one.png")
    copy = find_samples(small({"x": layout(), "y": layout(labels="lab2/{id}.png")}), tmp_path)
    assert copy.layout_name == "x"
    assert copy.strangers == ()


def test_fractions_are_shares_of_shuffled_ids(tmp_path):
    touch(tmp_path, *(f"img/{number:02d}.png" for number in range(20)))
    splits = {"train": {"fraction": 0.7, "seed": 4}, "val": {"fraction": 0.3, "seed": 4}}
    copy = find_samples(small({"x": layout(labels=None, splits=splits)}), tmp_path)
    order = np.random.default_rng(4).permutation(20)
    assert {sample.id for sample in copy.in_split("train")} == {f"{place:02d}" for place in order[:14]}
    assert copy.split_sizes == {"train": 14, "val": 6}


def test_roots(tmp_path, monkeypatch):
    manifest = small({"x": layout()})
    monkeypatch.delenv("RSOV_DATA", raising=False)
    with pytest.raises(InputError, match=r"set RSOV_DATA.*example\.org"):
        dataset_root(manifest)
    monkeypatch.setenv("RSOV_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"no folder .*own"):
        dataset_root(manifest)
    (tmp_path / "own").mkdir()
    assert dataset_root(manifest) == tmp_path / "own"
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not a folder"):
        dataset_root(manifest, tmp_path / "file")
    with pytest.raises(InputError, match="No file under"):
        find_samples(manifest, tmp_path / "own")
    with pytest.raises(InputError, match="layout of own 'z'"):
        find_samples(manifest, tmp_path / "own", "z")


def test_links_that_go_round(tmp_path):
    touch(tmp_path, "img/one.png")
    (tmp_path / "img" / "up").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "img")
    manifest = small({"x": layout(labels=None), "y": layout("again/{id}.png", None)})
    assert [sample.id for sample in find_samples(manifest, tmp_path, "x").samples] == ["one"]
    # A second way to the same folder is none of them.
    assert [sample.id for sample in find_samples(manifest, tmp_path, "y").samples] == ["one"]


def test_lists_that_are_no_text(tmp_path):
    touch(tmp_path, "img/one.png")
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"list\.txt is no list of samples"):
        find_samples(small({"x": layout(labels=None, splits={"train": {"list_file": "list.txt"}})}), tmp_path)
