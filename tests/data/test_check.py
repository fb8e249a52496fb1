"""A complete copy of each dataset passes; on a damaged one, each damage is named."""

from __future__ import annotations

import hashlib
import json

import fakes
import numpy as np
import pytest
import scipy.io
from PIL import Image

from rsovlib.data.check import check_copy
from rsovlib.data.manifest import Manifest
from rsovlib.errors import InputError


def kinds(report):
    return {(finding.kind, finding.path) for finding in report.findings}


def relative(fake, path):
    return path.relative_to(fake.root).as_posix()


@pytest.mark.parametrize(("name", "layout_name"), fakes.all_layouts())
def test_a_complete_copy_is_complete(fake_of, name, layout_name):
    fake = fake_of(name, layout_name)
    report = check_copy(fake.manifest_path, fake.root, progress=False)
    assert report.findings == ()
    assert report.is_complete
    assert (report.layout, report.samples) == (layout_name, len(fake.samples))
    assert report.splits == {split: len(names) for split, names in fake.splits.items()}
    assert "as the manifest says" in report.summary()


@pytest.mark.parametrize(("name", "layout_name"), fakes.all_layouts())
def test_each_damage_is_named(fake_of, tmp_path, name, layout_name):
    """On every dataset: a lost file, an empty one, a garbled one, a strange one, a label that means nothing."""
    fake = fakes.own_copy(fake_of(name, layout_name), tmp_path)
    # Split lists that aren't a list of samples would change with every lost sample, so only single files are lost.
    first, second, third = sorted(fake.samples)[:3]
    required = [modality for modality, files in fake.layout.files.items() if not files.optional]
    expected = set()

    lost = fake.samples[first].files.get(required[-1] if required else "labels")
    if lost is not None and len(set(fake.samples[first].files.values())) > 1:
        lost.unlink()
        expected.add(("unpaired", relative(fake, lost)))

    modality = required[0] if required else next(iter(fake.layout.files))
    empty, garbled = fake.samples[second].files[modality], fake.samples[third].files[modality]
    empty.write_bytes(b"")
    garbled.write_bytes(b"neither a picture nor an array")
    expected |= {("unreadable", relative(fake, empty)), ("unreadable", relative(fake, garbled))}

    (fake.root / "left over.xyz").write_text("?")
    expected.add(("extra", "left over.xyz"))

    labels = fake.layout.labels
    labelled = [sample for sample in (second, third) if "labels" in fake.samples[sample].files]
    if labelled and labels.encoding != "mat":
        path = fake.samples[labelled[0]].files["labels"]
        height, width = fakes.label_size(fake)
        count = 3 if labels.encoding == "colour" else labels.band
        strange = np.full((count, height, width), 77, np.dtype(labels.dtype or "uint8"))
        fakes.write_array(path, strange, labels.format, fake)
        expected.add(("label values", relative(fake, path)))

    report = check_copy(fake.manifest, fake.root, progress=False, layout=layout_name)
    found = {pair for pair in kinds(report) if pair[0] != "count"}
    assert found == expected
    assert not report.is_complete
    assert report.counts["unreadable"] == 2
    assert list(report.table()["path"]) == sorted(report.table()["path"])


@pytest.fixture
def potsdam(fake_of, tmp_path):
    return fakes.own_copy(fake_of("potsdam", "isprs"), tmp_path)


def only(fake, **options):
    """The one finding."""
    report = check_copy(fake.manifest, fake.root, progress=False, **options)
    (finding,) = report.findings
    return finding


def change(fake, part, **how):
    """Write one file anew, in another form."""
    path = fake.samples[min(fake.samples)].files[part]
    height, width = fakes.size_of(fake, "rgb")
    shape = how.get("shape", (3, height, width))
    fakes.write_tif(path, np.full(shape, how.get("value", 0), how.get("dtype", "uint8")))
    return relative(fake, path)


@pytest.mark.parametrize(
    ("part", "how", "kind", "words"),
    [
        ("rgb", {"shape": (3, 20, 36)}, "wrong size", "has 20 x 36 pixels, and 36 x 36 were expected"),
        ("rgb", {"shape": (4, 36, 36)}, "wrong bands", "has 4 bands, and 3 were expected"),
        ("rgb", {"dtype": "uint16"}, "wrong type", "holds uint16, and uint8 was expected"),
        ("labels", {"shape": (1, 36, 36)}, "wrong bands", "has 1 band, and 3 were expected"),
        ("labels", {"value": 9}, "label values", "holds the colour (9, 9, 9) (1296 pixels), which"),
    ],
)
def test_files_of_another_form(potsdam, part, how, kind, words):
    path = change(potsdam, part, **how)
    finding = only(potsdam)
    assert (finding.path, finding.kind) == (path, kind)
    assert words in finding.message


@pytest.mark.parametrize("part", ["rgb", "labels"])
def test_a_palette_where_colours_were_expected(potsdam, part):
    path = potsdam.samples[min(potsdam.samples)].files[part]
    fakes.write_palette(path, np.zeros((36, 36)))
    finding = only(potsdam)
    assert (finding.path, finding.kind) == (relative(potsdam, path), "palette")


def test_a_format_that_the_name_does_not_say(fake_of, tmp_path):
    fake = fakes.own_copy(fake_of("loveda", "zenodo"), tmp_path)
    path = fake.samples[min(fake.samples)].files["rgb"]
    with Image.open(path) as picture:
        picture.save(path, format="JPEG")
    finding = only(fake)
    assert finding.kind == "wrong format"
    assert finding.message == "is of the format jpg, and png was expected"


@pytest.mark.parametrize(("name", "layout_name"), [("loveda", "zenodo"), ("eurosat", "rgb"), ("potsdam", "isprs")])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_pictures(fake_of, tmp_path, name, layout_name, share):
    """PNG, JPEG and TIFF; GDAL by itself reads a PNG that was cut short as if its lost rows were black."""
    fake = fakes.own_copy(fake_of(name, layout_name), tmp_path)
    path = next(iter(fake.samples[min(fake.samples)].files.values()))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    finding = only(fake)
    assert (finding.kind, finding.path) == ("unreadable", relative(fake, path))


def test_damage_within_a_picture_is_found_by_its_pixels(fake_of, tmp_path):
    fake = fakes.own_copy(fake_of("loveda", "zenodo"), tmp_path)
    path = fake.samples[min(fake.samples)].files["rgb"]
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = b"\xff" * 40
    path.write_bytes(content)
    assert only(fake).kind == "unreadable"
    assert check_copy(fake.manifest, fake.root, progress=False, all_pixels=False).is_complete


def test_a_missing_georeference(fake_of, tmp_path):
    fake = fakes.own_copy(fake_of("eurosat", "all-bands"), tmp_path)
    name = min(fake.samples)
    fakes.write_tif(fake.samples[name].files["optical"], fake.samples[name].images["optical"])
    finding = only(fake)
    assert finding.kind == "no georeference"
    assert "has no CRS" in finding.message


def test_listed_samples_and_lists_that_are_gone(fake_of, tmp_path):
    fake = fakes.own_copy(fake_of("pie-rgb-sar", "asanet"), tmp_path)
    lost = min(fake.splits["train"])
    for path in fake.samples[lost].files.values():
        path.unlink()
    report = check_copy(fake.manifest, fake.root, progress=False)
    assert kinds(report) == {("missing", f"rgb/{lost}.tif"), ("missing", f"sar/{lost}.tif")}
    assert all("which is in train" in finding.message for finding in report.findings)
    assert check_copy(fake.manifest, fake.root, progress=False, partial=True).is_complete
    (fake.root / "val.txt").unlink()
    assert ("missing", "val.txt") in kinds(check_copy(fake.manifest, fake.root, progress=False))


def test_numbers_of_files_and_samples(potsdam):
    name = max(potsdam.samples)
    for path in potsdam.samples[name].files.values():
        path.unlink()
    report = check_copy(potsdam.manifest, potsdam.root, progress=False)
    counts = {finding.path: finding.message for finding in report.findings if finding.kind == "count"}
    assert counts["(rgb)"] == "are 3 files here, and 4 were published"
    assert [path for path in counts if path.startswith("(split")] != []
    assert check_copy(potsdam.manifest, potsdam.root, progress=False, partial=True).is_complete


def test_optional_files_may_be_missing_altogether(potsdam):
    for sample in potsdam.samples.values():
        sample.files["dsm"].unlink()
        sample.files["irrg"].unlink()
    report = check_copy(potsdam.manifest, potsdam.root, progress=False)
    assert report.findings == ()
    assert report.files["dsm"] == 0


def test_samples_without_published_labels_need_none(fake_of):
    fake = fake_of("loveda", "zenodo")
    report = check_copy(fake.manifest, fake.root, progress=False)
    assert report.files["labels"] == report.files["rgb"] - len(fake.splits["test"])
    assert report.is_complete


def test_doubles(fake_of, tmp_path):
    fake = fakes.own_copy(fake_of("loveda", "mmsegmentation"), tmp_path)
    name = min(fake.splits["train"])
    path = fake.samples[name].files["rgb"]
    twin = fake.root / "img_dir" / "val" / path.name
    twin.write_bytes(path.read_bytes())
    found = kinds(check_copy(fake.manifest, fake.root, progress=False))
    assert ("double", relative(fake, twin)) in found


def test_polygons(fake_of, tmp_path):
    fake = fakes.own_copy(fake_of("dstl"), tmp_path)
    table = fake.root / fake.layout.labels.path
    rows = table.read_text().splitlines()
    first = rows[1].split(",")[0]
    table.write_text(
        "\n".join([rows[0], *(row for row in rows[1:] if not row.startswith(first)), '6170_0_4,77,"POINT (0 0)"'])
    )
    found = [
        (finding.kind, finding.path, finding.message)
        for finding in check_copy(fake.manifest, fake.root, progress=False).findings
    ]
    assert ("unpaired", "train_wkt_v4.csv", f"has no polygons of {first!r}, though its images are there") in found
    assert any(kind == "label values" and "[77]" in message for kind, _, message in found)
    table.write_text("ImageId,Wrong\n")
    assert only(fake).kind == "unreadable"
    table.unlink()
    assert only(fake).kind == "missing"


def own_manifest(**layout):
    files = {"a": {"path": "{id}.mat", "format": "mat", "variable": "img", "dtype": "uint8"}}
    labels = {"path": "{id}_l.mat", "encoding": "mat", "format": "mat", "variable": "gt", "ignore_values": [0]}
    return Manifest.model_validate(
        {
            "name": "own",
            "title": "Own",
            "version": "1",
            "pages": ["https://example.org"],
            "licence": {"name": "none"},
            "modalities": {"a": {"kind": "optical", "sensor": "x", "bands": [{"name": "red"}, {"name": "nir"}]}},
            "classes": [{"name": "land", "values": [1]}],
            "layouts": {
                "x": {
                    "source": "me",
                    "placeholders": {"id": {"pattern": "[a-z]"}},
                    "files": files,
                    "labels": labels,
                    **layout,
                }
            },
        }
    )


def test_matlab_files(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"img": np.zeros((6, 4, 2), np.uint8)})
    scipy.io.savemat(tmp_path / "a_l.mat", {"gt": np.ones((6, 4), np.uint8)})
    assert check_copy(own_manifest(), tmp_path, progress=False).is_complete
    scipy.io.savemat(tmp_path / "a_l.mat", {"gt": np.full((6, 4), 3.0)})
    scipy.io.savemat(tmp_path / "a.mat", {"image": np.zeros((6, 4, 2), np.uint8)})
    messages = {
        finding.path: finding.message for finding in check_copy(own_manifest(), tmp_path, progress=False).findings
    }
    assert messages["a.mat"] == "holds image, and the array 'img' is needed"
    assert "the label value 3 (24 pixels)" in messages["a_l.mat"]


def test_checksums(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"img": np.zeros((6, 4, 2), np.uint8)})
    scipy.io.savemat(tmp_path / "a_l.mat", {"gt": np.ones((6, 4), np.uint8)})
    (tmp_path / "list.txt").write_text("content")
    right = hashlib.md5(b"content", usedforsecurity=False).hexdigest()
    more = {"extra_files": ["list.txt"]}
    assert check_copy(
        own_manifest(checksums={"list.txt": f"md5:{right}"}, **more), tmp_path, progress=False
    ).is_complete
    wrong = own_manifest(checksums={"list.txt": f"sha256:{'0' * 64}"}, **more)
    (finding,) = check_copy(wrong, tmp_path, progress=False).findings
    assert (finding.kind, finding.path) == ("checksum", "list.txt")


def test_several_processes_find_the_same(potsdam):
    change(potsdam, "labels", value=9)
    change(potsdam, "rgb", dtype="uint16")
    one = check_copy(potsdam.manifest, potsdam.root, progress=False)
    two = check_copy(potsdam.manifest, potsdam.root, progress=False, workers=2)
    assert one == two
    assert len(one.findings) == 2
    assert json.loads(json.dumps(one.as_dict()))["counts"] == {"label values": 1, "wrong type": 1}
    with pytest.raises(InputError, match="0 workers"):
        check_copy(potsdam.manifest, potsdam.root, progress=False, workers=0)


@pytest.mark.parametrize(("name", "count"), [("loveda", 3), ("potsdam", 1), ("vaihingen", 1)])
def test_real_tiles(shared, name, count):
    root = shared / "data" / "mmseg-tiles" / name
    if not root.is_dir():
        pytest.skip(f"no {root}")
    report = check_copy(name, root, progress=False)
    assert report.findings == ()
    assert (report.samples, report.files["labels"]) == (count, count)
