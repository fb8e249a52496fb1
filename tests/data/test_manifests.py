"""Manifests: what they say against the specifications, what the schema refuses, and that reading them is light."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from rsovlib.data.classes import parse_classes
from rsovlib.data.manifest import IGNORE, Layout, Manifest, PathTemplate, load_manifest, manifest_names
from rsovlib.errors import InputError
from rsovlib.resources import resource

DATASETS = [
    "cmu-data",
    "ddhr-ch",
    "ddhr-sk",
    "dstl",
    "eurosat",
    "gid",
    "hunan",
    "isaid",
    "loveda",
    "m3m-cr",
    "openearthmap-sar",
    "pie-rgb-sar",
    "potsdam",
    "sen12ms-cr",
    "vaihingen",
    "whu-opt-sar",
]

# --- the specifications, written down a second time ---------------------------------------------------------

GROUND = "road, streets, ground, parking lot, sidewalk"
LAWN = "low vegetation, low-growing grassland, grass patches, lawn, grass vegetation"
HOUSES = "building, man-made buildings, architecture, house"
ISAID = [
    "ship",
    "storage tank",
    "baseball diamond",
    "tennis court",
    "basketball court",
    "ground track field",
    "bridge",
    "large vehicle",
    "small vehicle",
    "helicopter",
    "swimming pool",
    "roundabout",
    "soccer ball field",
    "plane",
    "harbor",
]

# SDCI, table 3
PROMPTS = {
    ("gid", "original"): ["built-up", "farmland", "forest", "meadow", "water"],
    ("gid", "generalized"): ["buildings", "agricultural land", "mountain forest", "flatland forest", "water body"],
    ("gid", "candidates"): [
        "residential area, structures, buildings, architecture",
        "cropland, agricultural land, field, cultivated land",
        "woodland, tree cover, mountain forest, canopy",
        "grassland, greenspace, shrubs, flatland forest, low vegetation",
        "river, lake, water body",
    ],
    ("potsdam", "original"): ["impervious surfaces", "building", "low vegetation", "tree", "car"],
    ("potsdam", "generalized"): [
        "ground, road, streets",
        "buildings, man-made buildings",
        LAWN,
        "trees",
        "vehicles",
    ],
    ("potsdam", "candidates"): [
        GROUND,
        "buildings, man-made buildings, architecture, house",
        LAWN,
        "woods, trees, plants",
        "automobile, vehicles, transportation",
    ],
    ("vaihingen", "original"): ["impervious surfaces", "building", "low vegetation", "tree", "car"],
    ("vaihingen", "generalized"): [
        "ground, road, streets",
        "building",
        "low vegetation, low-growing grassland",
        "tree",
        "vehicle",
    ],
    ("vaihingen", "candidates"): [
        GROUND,
        HOUSES,
        "low vegetation, low-growing grassland, grass",
        "woods, tree, plants",
        "automobile, vehicles, transportation",
    ],
    ("loveda", "original"): ["building", "road", "water", "barren", "forest", "agriculture"],
    ("loveda", "generalized"): ["building", "road", "water", "dry soil", "forest", "farmland"],
    ("loveda", "candidates"): [
        HOUSES,
        "road, streets",
        "river, lake, water",
        "bare land, dry soil, sandy land",
        "woodland, tree cover, forest",
        "cropland, agricultural land, field, farmland",
    ],
    ("isaid", "original"): ISAID,
    # SegEarth-OV, its released configurations
    ("potsdam", "segearth"): [
        "road, parking lot",
        "building",
        "low vegetation",
        "tree",
        "car",
        "clutter, background",
    ],
    ("vaihingen", "segearth"): ["impervious surface", "building", "low vegetation", "tree", "car", "clutter"],
    ("loveda", "segearth"): [
        "background",
        "building, roof, house",
        "road",
        "water",
        "barren",
        "forest",
        "agricultural",
    ],
    ("isaid", "segearth"): ["background", "ship", "store tank", *ISAID[2:]],
    ("openearthmap-sar", "segearth"): [
        "background",
        "bareland, barren",
        "grass",
        "pavement",
        "road",
        "tree, forest",
        "water, river",
        "cropland",
        "building, roof, house",
    ],
    # MM-OVSeg, its released class lists
    ("pie-rgb-sar", "original"): ["backbroad", "city", "road", "water", "forest", "farmland"],
    ("pie-rgb-sar", "corrected"): ["background", "city", "road", "water", "forest", "farmland"],
    ("ddhr-sk", "original"): ["city", "road", "forest", "water", "farmland"],
    ("ddhr-ch", "original"): ["city", "road", "farmland", "forest", "water"],
    ("openearthmap-sar", "original"): [
        "bareland",
        "rangeland",
        "developedspace",
        "road",
        "tree",
        "water",
        "agricultureland",
        "building",
    ],
}

OEM = ["bareland", "rangeland", "developed space", "road", "tree", "water", "agriculture land", "building"]
# dataset, protocol: classes in test order, unseen classes
OPEN_VOCABULARY = {
    ("pie-rgb-sar", "mm-ovseg-cloud"): (["background", "city", "road", "water", "forest", "farmland"], 2),
    ("pie-rgb-sar", "mm-ovseg-clean"): (["background", "city", "road", "water", "forest", "farmland"], 2),
    ("ddhr-sk", "mm-ovseg"): (["city", "road", "forest", "water", "farmland"], 2),
    ("ddhr-ch", "mm-ovseg"): (["city", "road", "farmland", "forest", "water"], 2),
    ("openearthmap-sar", "mm-ovseg-thick"): (OEM, 3),
    ("openearthmap-sar", "mm-ovseg-thin"): (OEM, 3),
}
# setting of MM-OVSeg's table 1: training side, test side
SETTINGS = {
    "s1": (("pie-rgb-sar", "mm-ovseg-cloud"),) * 2,
    "s2": (("ddhr-sk", "mm-ovseg"),) * 2,
    "s3": (("openearthmap-sar", "mm-ovseg-thick"),) * 2,
    "s4": (("openearthmap-sar", "mm-ovseg-thin"),) * 2,
    "s5": (("pie-rgb-sar", "mm-ovseg-clean"),) * 2,
    "s6": (("ddhr-sk", "mm-ovseg"), ("ddhr-ch", "mm-ovseg")),
}
SDCI_NAMES = {"GID": "gid", "Potsdam": "potsdam", "Vaihingen": "vaihingen", "LoveDA": "loveda", "iSAID": "isaid"}


@pytest.fixture(scope="module")
def tables(shared: Path) -> dict[str, Any]:
    """The papers' tables, as the specifications hold them."""
    folder = shared / "specs"
    return {
        name: yaml.safe_load((folder / f"paper_tables_{name}.yaml").read_text(encoding="utf-8"))
        for name in ("sdci", "trained")
    }


# --- what the manifests say ---------------------------------------------------------------------------------


def test_there_is_one_manifest_for_each_dataset():
    assert manifest_names() == DATASETS


@pytest.mark.parametrize("name", DATASETS)
def test_a_manifest_is_valid_and_whole(name: str):
    manifest = load_manifest(name)
    assert manifest.name == name
    assert manifest.pages
    assert manifest.notes, "what is not known must be said"
    for layout_name, layout in manifest.layouts.items():
        assert layout.splits, "every layout says which samples belong to what"
        if layout.labels.encoding in ("index", "palette"):
            table = manifest.index_table(layout_name)
            counted = len(manifest.counted_classes())
            assert set(table.values()) - {IGNORE} == set(range(counted))
        if layout.labels.encoding == "colour":
            assert set(manifest.colour_table(layout_name).values()) - {IGNORE} == set(
                range(len(manifest.counted_classes()))
            )


@pytest.mark.parametrize(("name", "prompt_set"), list(PROMPTS))
def test_prompts_are_those_of_the_papers(name: str, prompt_set: str):
    assert load_manifest(name).prompts(prompt_set) == PROMPTS[name, prompt_set]


@pytest.mark.parametrize("name", DATASETS)
def test_every_prompt_set_is_a_class_list_that_segment_takes(name: str):
    manifest = load_manifest(name)
    for prompt_set in manifest.prompt_sets:
        prompts = manifest.prompts(prompt_set)
        assert [str(prompt) for prompt in parse_classes(prompts)] == prompts


@pytest.mark.parametrize(("name", "protocol"), list(OPEN_VOCABULARY))
def test_seen_and_unseen_classes_of_mm_ovseg(name: str, protocol: str):
    classes, unseen = OPEN_VOCABULARY[name, protocol]
    manifest = load_manifest(name)
    use = manifest.protocol(protocol)
    assert manifest.counted_classes(protocol) == tuple(classes)
    assert use.unseen == ("road", "water", "building")[:unseen]
    assert use.seen == tuple(item for item in classes if item not in use.unseen)
    assert manifest.prompts("original", protocol) == PROMPTS[name, "original"]


def test_clouds_are_those_of_mm_ovseg_table_1():
    """Table 1: varied, varied, thick, thin, none; setting 6 tests on varied."""
    kinds = {}
    for setting, (_, (name, protocol)) in SETTINGS.items():
        manifest = load_manifest(name)
        clouds = manifest.protocol(protocol).clouds
        kinds[setting] = manifest.clouds[clouds].kind if clouds else None
    assert kinds == {"s1": "varied", "s2": "varied", "s3": "thick", "s4": "thin", "s5": None, "s6": "varied"}


def test_three_modality_sets_of_scenario_sampling():
    expected = {
        "dstl": (("rgb", "nir", "swir"), "crop"),
        "potsdam": (("rgb", "irrg", "dsm"), "tree"),
        "hunan": (("sar", "msi", "dem"), "forest"),
    }
    for name, (modalities, target) in expected.items():
        use = load_manifest(name).protocol("scenario-sampling")
        assert (use.modalities, use.classes, use.others) == (modalities, (target,), "background")
        assert use.tiles is not None
        assert use.tiles.size == 224
    for name in ("dstl", "potsdam"):
        split = load_manifest(name).protocol("scenario-sampling").random_split
        assert split is not None
        assert (split.folds, split.fractions) == (5, {"train": 0.72, "val": 0.08, "test": 0.2})


def test_edc_sets():
    m3m = load_manifest("m3m-cr")
    assert m3m.counted_classes("edc") == ("forest", "rangeland", "agriculture", "urban", "barren", "water")
    values = {10: 0, 20: 1, 30: 1, 40: 2, 50: 3, 60: 4, 80: 5, 90: 5}
    assert m3m.index_table(protocol="edc") == values | dict.fromkeys((0, 70, 95, 100), IGNORE)
    assert m3m.clouds["real"].origin == "real"
    whu = load_manifest("whu-opt-sar")
    assert whu.counted_classes("edc") == ("farmland", "city", "village", "water", "forest", "road", "others")
    assert whu.index_table(protocol="edc") == {0: IGNORE} | {10 * (index + 1): index for index in range(7)}
    assert whu.index_table("asanet", "edc") == {0: IGNORE} | {index + 1: index for index in range(7)}
    splits = whu.layout().splits
    assert (len(splits["train"].ids), len(splits["test"].ids)) == (80, 20)


def test_published_counts():
    """SDCI's lists; MMSegmentation's documentation; the publishers' pages."""
    tiles = {"gid": 6300, "potsdam": 2016, "vaihingen": 398, "loveda": 6676, "isaid": 14201}
    for name, count in tiles.items():
        assert load_manifest(name).protocol("sdci").tile_counts == {"test": count}
    loveda = load_manifest("loveda").layout().splits
    assert {name: split.count for name, split in loveda.items()} == {"train": 2522, "val": 1669, "test": 1796}
    potsdam = load_manifest("potsdam")
    assert sorted(len(split.ids) for split in potsdam.layout().splits.values()) == [14, 24]
    assert {name: split.count for name, split in potsdam.layout("mmsegmentation").splits.items()} == {
        "train": 3456,
        "val": 2016,
    }
    assert len(load_manifest("dstl").layout().splits["labelled"].ids) == 25
    assert load_manifest("ddhr-sk").protocol("mm-ovseg").tile_counts == {"train": 3087, "test": 3086}


@pytest.mark.parametrize(
    ("name", "sizes", "count"),
    [
        ("potsdam", [(6000, 6000)] * 14, 2016),
        ("gid", [(7200, 6800)] * 30, 6300),
        ("loveda", [(1024, 1024)] * 1669, 6676),
        # the sides of Vaihingen's 17 validation images, from ISPRS
        (
            "vaihingen",
            [
                *[(2428, 2767), (1922, 2575), (1866, 2315), (1917, 3313), (1917, 2563), (1980, 2555), (1581, 2555)],
                *[(2805, 1884), (3816, 2550), (1919, 2565), (1919, 2565), (1903, 2546), (1903, 2546)],
                *[(1887, 2557)] * 4,
            ],
            398,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tiles_as_described_give_the_counts_of_the_papers(name: str, sizes: list[tuple[int, int]], count: int):
    """No overlap and a shifted last tile: that is how 2016, 398, 6676 and 6300 come about."""
    tiles = load_manifest(name).protocol("sdci").tiles
    assert tiles is not None
    assert (tiles.edge, tiles.stride) == ("shift", tiles.size)
    assert sum(-(-width // tiles.size) * -(-height // tiles.size) for width, height in sizes) == count


def test_sdci_tables_agree(tables: dict[str, Any]):
    sdci = tables["sdci"]
    for paper_name, name in SDCI_NAMES.items():
        manifest = load_manifest(name)
        assert list(manifest.counted_classes("sdci")) == sdci["label_order"][paper_name]
        described = sdci["datasets"][paper_name]
        use = manifest.protocol("sdci")
        assert use.tile_counts["test"] == described["tiles"]
        assert len(use.classes) == described["classes_counted"]
        assert use.tiles is not None
        assert use.tiles.size == sdci["datasets"]["tile_size"]
        assert sdci["datasets"]["ignore_label"] == IGNORE
        if "gsd_isprs_m" in described:
            assert manifest.modalities[use.modalities[0]].gsd_m == described["gsd_isprs_m"]
        names = sdci["segearth_names"].get(paper_name)
        if names:
            assert manifest.prompts("segearth", "segearth") == [", ".join(words) for words in names["names"]]
        prompts = sdci["table3_prompts"][paper_name]
        if isinstance(prompts, list):
            assert manifest.prompts("original", "sdci") == [item["ori"] for item in prompts]
            assert manifest.prompts("generalized", "sdci") == [", ".join(item["gen"]) for item in prompts]
            assert manifest.prompts("candidates", "sdci") == [", ".join(item["set_of_gen"]) for item in prompts]
    oem = sdci["segearth_names"]["OpenEarthMap"]["names"]
    assert load_manifest("openearthmap-sar").prompts("segearth") == [", ".join(words) for words in oem]
    isaid = load_manifest("isaid")
    colours = [isaid.dataset_class(name).display_colour for name in isaid.counted_classes("sdci")]
    assert colours == [tuple(reversed(colour)) for colour in sdci["palettes_bgr"]["iSAID"]]


def test_trained_tables_agree(tables: dict[str, Any]):
    trained = tables["trained"]
    settings_of_paper = trained["mm_ovseg"]["settings"]
    assert set(settings_of_paper) == set(SETTINGS)
    for name, described in settings_of_paper.items():
        for dataset, protocol in SETTINGS[name]:
            use = load_manifest(dataset).protocol(protocol)
            assert (len(use.seen), len(use.unseen)) == (described["n_seen"], described["n_unseen"])
    ablation = trained["mm_ovseg"]["table3_ablation_ddhr_sk"]
    use = load_manifest("ddhr-sk").protocol("mm-ovseg")
    assert set(use.seen) == set(ablation["seen"])
    assert set(use.unseen) == set(ablation["unseen"])
    scenario = trained["scenario_sampling"]
    for dataset, modalities in scenario["modalities"].items():
        use = load_manifest(dataset.lower()).protocol("scenario-sampling")
        assert [modality.upper() for modality in use.modalities] == modalities
        assert use.classes == (scenario["classes"][dataset],)


def test_papers_and_their_datasets():
    datasets: dict[str, set[str]] = {}
    for name in manifest_names():
        for paper in load_manifest(name).papers:
            datasets.setdefault(paper, set()).add(name)
    assert datasets == {
        "sdci": {"gid", "potsdam", "vaihingen", "loveda", "isaid"},
        "mm-ovseg": {"pie-rgb-sar", "ddhr-sk", "ddhr-ch", "openearthmap-sar", "cmu-data"},
        "scenario-sampling": {"dstl", "potsdam", "hunan"},
        "edc": {"m3m-cr", "whu-opt-sar"},
    }


def test_statistics_stand_only_where_they_are_published():
    """Only EuroSAT's are: a mean elsewhere would be one that somebody made up."""
    with_statistics = {
        name
        for name in manifest_names()
        for modality in load_manifest(name).modalities.values()
        for band in modality.bands
        if band.mean is not None or band.std is not None
    }
    assert with_statistics == {"eurosat"}


# --- paths --------------------------------------------------------------------------------------------------


def test_names_of_one_potsdam_sample_differ_in_their_zeros():
    layout = load_manifest("potsdam").layout()
    fields = layout.template("dsm").match("1_DSM/dsm_potsdam_02_10.tif")
    assert fields == {"row": 2, "column": 10}
    assert layout.template("rgb").fill(fields) == "2_Ortho_RGB/top_potsdam_2_10_RGB.tif"
    label = layout.label_template()
    assert label is not None
    assert label.fill(fields) == "5_Labels_all_noBoundary/top_potsdam_2_10_label_noBoundary.tif"
    assert layout.sample_name(fields) == "2_10"
    assert layout.sample_fields("2_10") == fields
    assert layout.template("dsm").match("1_DSM/dsm_potsdam_2_10.tif") is None
    assert layout.template("rgb").match("2_Ortho_RGB/top_potsdam_02_10_RGB.tif") is None


def test_white_space_in_names():
    layout = load_manifest("gid").layout()
    path = "Large-scale Classification_5classes/image_RGB/GF2_PMS1__L1A0000564539-MSS1 (2).tif"
    fields = layout.template("rgb").match(path)
    assert fields == {"id": "GF2_PMS1__L1A0000564539-MSS1 (2)"}
    label = layout.label_template()
    assert label is not None
    assert label.fill(fields) == path.replace("image_RGB", "label_5classes").replace(".tif", "_label.tif")


def test_a_placeholder_has_one_value_everywhere():
    layout = load_manifest("sen12ms-cr").layout()
    template = layout.template("optical_cloudy")
    path = "ROIs1868_summer_s2_cloudy/s2_cloudy_19/ROIs1868_summer_s2_cloudy_19_p30.tif"
    fields = template.match(path)
    assert fields == {"season": "ROIs1868_summer", "scene": 19, "patch": 30}
    assert template.fill(fields) == path
    assert layout.group_name(fields) == "ROIs1868_summer_19"
    assert template.match(path.replace("s2_cloudy_19/", "s2_cloudy_20/")) is None
    assert template.match(path.replace("ROIs1868_summer_s2_cloudy/", "ROIs1158_spring_s2_cloudy/")) is None
    assert template.match(path.replace("summer", "summers")) is None


def test_sen12ms_cr_areas_are_parted():
    splits = load_manifest("sen12ms-cr").layout().splits
    assert {name: len(split.groups) for name, split in splits.items()} == {"train": 155, "val": 10, "test": 10}
    assert "ROIs1868_summer_19" in splits["val"].groups


def test_glob_finds_what_the_template_matches(tmp_path: Path):
    template = PathTemplate("a [1]/{part}/x_{number:03d}*.tif", {"part": "train|val"})
    for name in ("a [1]/train/x_007*.tif", "a [1]/val/x_1000*.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        assert template.match(name) is not None
    (tmp_path / "a [1]/train/y_007*.tif").touch()
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob(template.glob))
    assert found == ["a [1]/train/x_007*.tif", "a [1]/val/x_1000*.tif"]
    assert template.match("a [1]/test/x_007*.tif") is None
    assert template.match("a [1]/train/x_07*.tif") is None
    assert template.match("a [1]/train/x_0007*.tif") is None


@pytest.mark.parametrize("text", ["{", "a}", "{a", "{A}", "{a:x}", "{a:d2}", "/a", "a\\b", "../a", "a/../b", "{1a}"])
def test_what_is_no_path_template(text: str):
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        PathTemplate(text)


def test_filling_needs_every_value():
    with pytest.raises(ValueError, match="needs a value for 'b'"):
        PathTemplate("{a}_{b:d}").fill({"a": "x"})


LAYOUTS = [(name, layout) for name in DATASETS for layout in load_manifest(name).layouts]


@st.composite
def _fields(draw: st.DrawFn, layout: Layout) -> dict[str, str | int]:
    """Values for all placeholders of a layout."""
    paths = [files.path for files in layout.files.values()] + [layout.labels.path or ""]
    numbers = set(re.findall(r"\{(\w+):", " ".join(paths)))
    fields: dict[str, str | int] = {}
    for name in sorted({field for path in paths for field in PathTemplate(path).fields}):
        if name in numbers:
            fields[name] = draw(st.integers(0, 10**6))
        elif name in layout.placeholders and layout.placeholders[name].values:
            fields[name] = draw(st.sampled_from(layout.placeholders[name].values))
        else:
            regex = layout.patterns.get(name, r"[A-Za-z0-9][A-Za-z0-9_ ().-]*[a-z]")
            fields[name] = draw(st.from_regex(regex, fullmatch=True, alphabet=st.characters(codec="ascii")))
    return fields


@pytest.mark.parametrize(("name", "layout_name"), LAYOUTS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_files_of_a_sample_find_each_other(name: str, layout_name: str, data: st.DataObject):
    """Every path that a template writes it reads back, and all files of a sample have the sample's id."""
    layout = load_manifest(name).layout(layout_name)
    fields = data.draw(_fields(layout))
    templates = [layout.template(modality) for modality in layout.files]
    label = layout.label_template()
    templates += [template for template in (label, layout.cloud_mask_template()) if template is not None]
    expected = layout.sample_name(fields)
    for template in templates:
        if template.fields:
            read = template.match(template.fill(fields))
            assert read == {field: fields[field] for field in template.fields}
            assert layout.sample_name(read) == expected
    ids = layout.sample_fields(expected)
    assert ids is not None
    assert layout.sample_name(ids) == expected


def test_files_at_hand_are_of_the_described_form(shared: Path):
    """Tiles of three benchmarks and a pair with real clouds."""
    tiles = shared / "data" / "mmseg-tiles"
    for name, count in (("loveda", 3), ("potsdam", 1), ("vaihingen", 1)):
        manifest = load_manifest(name)
        layout = manifest.layout("mmsegmentation-flat")
        label = layout.label_template()
        assert label is not None
        (modality,) = layout.files
        root = tiles / name
        found = [layout.template(modality).match(path.relative_to(root).as_posix()) for path in root.glob("img_dir/*")]
        assert len(found) == count
        for fields in found:
            assert fields is not None
            with Image.open(root / label.fill(fields)) as image:
                values = set(np.unique(np.asarray(image)).tolist())
            assert values <= set(manifest.index_table("mmsegmentation-flat"))
    layout = load_manifest("sen12ms-cr").layout("flat")
    root = shared / "data" / "sen12mscr-cloudy-sample"
    names = {
        layout.sample_name(fields)
        for modality in ("optical_cloudy", "sar")
        for path in root.glob("*.tif")
        if (fields := layout.template(modality).match(path.name)) is not None
    }
    assert names == {"ROIs1868_summer_19_p30"}


# --- numbers in label files ---------------------------------------------------------------------------------


def test_a_binary_task_has_background_where_the_dataset_has_other_classes():
    potsdam = load_manifest("potsdam")
    table = potsdam.index_table("mmsegmentation", "scenario-sampling")
    assert table == {0: IGNORE, 1: 0, 2: 0, 3: 0, 4: 1, 5: 0, 6: 0}
    assert potsdam.index_table("mmsegmentation", "sdci") == {0: IGNORE, 1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 6: IGNORE}
    colours = potsdam.colour_table(protocol="sdci")
    assert colours[255, 255, 255] == 0
    assert colours[255, 0, 0] == IGNORE  # clutter
    assert colours[0, 0, 0] == IGNORE  # boundary
    assert (0, 0, 0) not in potsdam.colour_table("isprs-full-labels", "sdci")


def test_what_no_polygon_covers():
    dstl = load_manifest("dstl")
    assert dstl.index_table(protocol="scenario-sampling") == {0: 0, 6: 1} | dict.fromkeys(
        (1, 2, 3, 4, 5, 7, 8, 9, 10), 0
    )
    assert dstl.index_table()[0] == IGNORE


def test_shifted_labels():
    oem = load_manifest("openearthmap-sar")
    assert oem.index_table() == {0: IGNORE} | {value: value - 1 for value in range(1, 9)}
    shifted = oem.index_table("mm-ovseg")
    assert {value: shifted[value] for value in range(8)} == {value: value for value in range(8)}
    assert shifted[255] == IGNORE


def test_order_of_indices_is_the_protocols():
    sk, ch = load_manifest("ddhr-sk"), load_manifest("ddhr-ch")
    assert sk.index_table(protocol="mm-ovseg") == {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 255: IGNORE}
    assert sk.counted_classes("mm-ovseg")[2] == "forest"
    assert ch.counted_classes("mm-ovseg")[2] == "farmland"


# --- what the schema refuses --------------------------------------------------------------------------------


def _write(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A small manifest with one thing changed in it."""
    content: dict[str, Any] = {
        "name": "tiny",
        "title": "Tiny",
        "version": "1",
        "papers": ["sdci"],
        "pages": ["https://example.org"],
        "licence": {"name": "none"},
        "modalities": {
            "rgb": {
                "kind": "optical",
                "sensor": "camera",
                "gsd_m": 0.5,
                "bands": [{"name": "red"}, {"name": "green"}, {"name": "blue"}],
                "display": ["red", "green", "blue"],
            },
            "sar": {"kind": "sar", "sensor": "radar", "bands": [{"name": "VV", "polarisation": "VV"}]},
        },
        "prompt_sets": {"original": {"source": "here"}},
        "classes": [
            {"name": "water", "values": [1], "colours": [[0, 0, 255]], "prompts": {"original": ["water", "river"]}},
            {"name": "land", "values": [2], "colours": [[0, 255, 0]], "prompts": {"original": ["land"]}},
        ],
        "layouts": {
            "one": {
                "source": "here",
                "sample_id": "{id}",
                "placeholders": {"part": {"values": ["train", "test"]}},
                "files": {
                    "rgb": {"path": "{part}/rgb/{id}.tif", "format": "tif", "dtype": "uint8"},
                    "sar": {"path": "{part}/sar/{id}.tif", "format": "tif", "channels": [1], "file_bands": 3},
                },
                "labels": {"path": "{part}/label/{id}.png", "encoding": "index", "format": "png"},
                "splits": {"train": {"where": {"part": ["train"]}}, "test": {"where": {"part": ["test"]}}},
            }
        },
        "clouds": {
            "thin": {"origin": "simulated", "kind": "thin", "cover": [0.2, 0.5], "clear": "rgb", "method": "noise"}
        },
        "protocols": {
            "sdci": {
                "paper": "sdci",
                "modalities": ["rgb", "sar"],
                "classes": ["water", "land"],
                "seen": ["land"],
                "unseen": ["water"],
                "prompt_sets": ["original"],
                "splits": {"train": "train", "test": "test"},
                "tiles": {"size": 64, "stride": 32, "edge": "pad", "of": "rgb"},
                "resize": {"rule": "square", "size": 48},
                "clouds": "thin",
            }
        },
    }
    change(content)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def _set(*keys: Any) -> Callable[[dict[str, Any]], None]:
    """A change: ``_set("a", 0, "b", value)`` sets ``content["a"][0]["b"] = value``; the value DROP removes the key."""
    *inner, last, value = keys

    def change(content: Any) -> None:
        for key in inner:
            content = content[key]
        if value is DROP:
            del content[last]
        else:
            content[last] = value

    return change


DROP = object()
BAND = ("modalities", "rgb", "bands", 0)
RGB = ("modalities", "rgb")
LAYOUT = ("layouts", "one")
USE = ("protocols", "sdci")

REFUSED: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    # wrong keys: the nearest right one
    (_set("titel", "x"), r"there is no key 'titel' here; did you mean 'title'\?$"),
    (_set(*RGB, "gsd", 1.0), r"modalities\.rgb: there is no key 'gsd' here; did you mean 'gsd_m'\?$"),
    (_set(*BAND, "wavelenght_nm", 490), r"modalities\.rgb\.bands\[0\]: .*did you mean 'wavelength_nm'\?$"),
    (_set(*LAYOUT, "files", "rgb", "datatype", "uint8"), r"layouts\.one\.files\.rgb: .*did you mean 'dtype'\?$"),
    (_set("classes", 1, "color", [1, 2, 3]), r"classes\[1\]: .*did you mean 'colour'\?$"),
    (_set(*USE, "tiles", "size_px", 3), r"protocols\.sdci\.tiles: .*did you mean 'size'\?$"),
    (_set(*BAND, "zzz", 1), r"there is no key 'zzz' here; the keys here are name, wavelength_nm"),
    # missing keys, wrong types and values
    (_set("title", DROP), r"the key 'title' is missing"),
    (_set(*RGB, "bands", DROP), r"modalities\.rgb: the key 'bands' is missing"),
    (_set(*RGB, "gsd_m", "half a metre"), r"modalities\.rgb\.gsd_m: .*valid number, not 'half a metre'"),
    (_set(*RGB, "gsd_m", True), r"modalities\.rgb\.gsd_m: .*valid number, not True"),
    (_set(*RGB, "gsd_m", 0), r"modalities\.rgb\.gsd_m: .*greater than 0, not 0"),
    (_set(*RGB, "gsd_m", float("nan")), r"modalities\.rgb\.gsd_m: .*finite number"),
    (_set("version", 2014), r"version: .*valid string, not 2014; write it in quotes"),
    (_set("classes", 0, "values", ["1"]), r"classes\[0\]\.values\[0\]: .*valid integer, not '1'"),
    (_set("classes", 0, "colours", [[0, 0, 256]]), r"classes\[0\]\.colours\[0\]\[2\]: .*less than or equal to 255"),
    (_set("classes", 0, "colours", [[0, 0]]), r"classes\[0\]\.colours\[0\]: an item is missing"),
    (_set("pages", []), r"pages: .*at least 1 item"),
    (_set("pages", ["example.org"]), r"pages\[0\]: .*not 'example\.org'"),
    (_set(*RGB, "kind", "optic"), r"modalities\.rgb\.kind: .*'optical', 'sar' or 'elevation', not 'optic'"),
    (_set("modalities", "Rgb Image", {}), r"modalities\.Rgb Image: .*not 'Rgb Image'"),
    (_set("modalities", 3), r"modalities: .*valid dictionary"),
    (_set(*LAYOUT, "checksums", {"a.zip": "md5:12"}), r"layouts\.one\.checksums\.a\.zip: .*not 'md5:12'"),
    (_set("name", "other"), r"name is 'other', but the file is called tiny\.yaml"),
    # bands and modalities
    (_set(*RGB, "bands", [{"name": "red"}, {"name": "red"}]), r"modalities\.rgb: band 'red' occurs twice"),
    (_set(*RGB, "display", ["red", "green", "bleu"]), r"modalities\.rgb: There is no band 'bleu'.*'blue'\?"),
    (_set(*RGB, "display", ["red", "green"]), r"display must name one band or three"),
    (_set(*BAND, "valid_range", [3, 1]), r"valid_range must be \[smaller, larger\]"),
    (_set(*BAND, "polarisation", "VV"), r"band 'red' of an optical modality has a polarisation"),
    (_set("modalities", "sar", "bands", 0, "wavelength_nm", 500), r"not both"),
    (_set("modalities", "sar", "bands", [{"name": "x", "wavelength_nm": 5}]), r"kind 'sar' has a wavelength"),
    (_set("modalities", "rgb", "bands", 0, {"name": "r", "wavelength_nm": 9, "range_nm": [1, 2]}), r"outside range_nm"),
    (_set(*RGB, "clear_twin", "rbg"), r"modalities\.rgb\.clear_twin: There is no modality 'rbg'.*'rgb'\?"),
    # classes and words
    (_set("classes", 1, "name", "water"), r"class 'water' occurs twice"),
    (_set("classes", 1, "values", [1]), r"class value 1 occurs twice"),
    (_set("classes", 1, "colours", [[0, 0, 255]]), r"class colour \(0, 0, 255\) occurs twice"),
    (_set("classes", 1, "values", []), r"layouts\.one\.labels: class 'land' has no value"),
    (_set("classes", 0, "prompts", "original", ["a, b"]), r"give each synonym as an item of its own"),
    (_set("classes", 0, "prompts", "original", ["a", "a"]), r"word of prompts\.original 'a' occurs twice"),
    (_set("classes", 0, "prompts", "original", []), r"prompts\.original is empty"),
    (_set("classes", 0, "prompts", {"origin": ["a"]}), r"prompts of class 'water': .*'original'\?"),
    (_set("prompt_sets", "more", {"source": "x"}), r"prompt_sets\.more: no class has words"),
    # files and labels
    (_set(*LAYOUT, "files", "rgb", "path", "rgb/{part}.tif"), r"files\.rgb\.path .* lacks the placeholder 'id'"),
    (_set(*LAYOUT, "labels", "path", "label/a.png"), r"labels\.path 'label/a\.png' lacks the placeholder 'id'"),
    (_set(*LAYOUT, "files", "rgb", "path", "{id.tif"), r"layouts\.one\.files\.rgb\.path: .*is no path template"),
    (_set(*LAYOUT, "files", "rgb", "path", "../{id}.tif"), r"must be relative to the dataset's root"),
    (_set(*LAYOUT, "sample_id", "all"), r"layouts\.one: sample_id 'all' has no placeholder"),
    (_set(*LAYOUT, "placeholders", {"prt": {"values": ["a"]}}), r"placeholders\.prt: .*'part'\?"),
    (_set(*LAYOUT, "placeholders", {"part": {"pattern": "("}}), r"is no regular expression"),
    (_set(*LAYOUT, "placeholders", {"part": {}}), r"give either pattern or values"),
    (_set(*LAYOUT, "files", "sar", "channels", [4]), r"channel 4 of a file with 3 bands"),
    (_set(*LAYOUT, "files", "sar", "channels", [1, 2]), r"channels has 2 items, the modality 1 bands"),
    (_set(*LAYOUT, "files", "sar", "channels", []), r"say with channels which"),
    (_set(*LAYOUT, "files", "sra", {"path": "{id}.tif", "format": "tif"}), r"no modality 'sra'.*'sar'\?"),
    (_set(*LAYOUT, "files", "rgb", "format", "mat"), r"variable belongs to format 'mat'"),
    (_set(*LAYOUT, "labels", "format", "jpg"), r"labels in JPEG files are not exact"),
    (_set(*LAYOUT, "labels", "encoding", "none"), r"encoding 'none' has no path"),
    (_set(*LAYOUT, "labels", "encoding", "polygons"), r"polygons belongs to encoding 'polygons'"),
    (_set(*LAYOUT, "labels", "ignore_values", [2]), r"layouts\.one\.labels: label value 2 occurs twice"),
    (_set(*LAYOUT, "labels", "values", {"watr": [1]}), r"layouts\.one\.labels\.values: .*'water'\?"),
    (_set(*LAYOUT, "labels", "covers", "rbg"), r"layouts\.one: labels\.covers: .*'rgb'\?"),
    (_set(*LAYOUT, "labels", {"encoding": "folder"}), r"needs the placeholder 'class'"),
    # splits
    (_set(*LAYOUT, "splits", "train", {}), r"give exactly one of ids, where, groups, list_file, all or fraction"),
    (_set(*LAYOUT, "splits", "train", {"all": True, "ids": ["a"]}), r"layouts\.one\.splits\.train: give exactly one"),
    (
        _set(*LAYOUT, "splits", {"a": {"ids": ["x", "y"]}, "b": {"ids": ["y"]}}),
        r"splits\.a and splits\.b both list 'y'",
    ),
    (_set(*LAYOUT, "splits", {"a": {"ids": ["x", "x"]}}), r"id 'x' occurs twice"),
    (_set(*LAYOUT, "splits", {"a": {"ids": ["x"], "count": 2}}), r"count is 2, but 1 ids are listed"),
    (_set(*LAYOUT, "splits", {"a": {"ids": ["x/y"]}}), r"'x/y' is not of the form '\{id\}'"),
    (_set(*LAYOUT, "splits", {"a": {"groups": ["x"]}}), r"splits\.a\.groups: 'x' is not of the form None"),
    (_set(*LAYOUT, "splits", {"a": {"fraction": 0.7}, "b": {"fraction": 0.4}}), r"add up to more than 1"),
    (_set(*LAYOUT, "splits", "train", "where", {"prat": ["train"]}), r"splits\.train\.where: .*'part'\?"),
    (_set(*LAYOUT, "splits", "train", "where", {"part": ["trian"]}), r"splits\.train\.where\.part: .*'train'\?"),
    # protocols and clouds
    (_set(*USE, "classes", ["water", "lnd"]), r"protocols\.sdci: seen: There is no class 'land'|'land'\?"),
    (_set(*USE, "seen", ["land", "water"]), r"class 'water' is both seen and unseen"),
    (_set(*USE, "seen", []), r"class 'land' is neither seen nor unseen"),
    (_set(*USE, "unseen", ["watr"]), r"unseen: There is no class 'watr'.*'water'\?"),
    (_set(*USE, "modalities", ["rgb", "sra"]), r"protocols\.sdci\.modalities: .*'sar'\?"),
    (_set(*USE, "prompt_sets", ["originl"]), r"protocols\.sdci\.prompt_sets: .*'original'\?"),
    (_set(*USE, "splits", {"test": "tset"}), r"protocols\.sdci\.splits: .*'test'\?"),
    (_set(*USE, "splits", {"exam": "test"}), r"protocols\.sdci\.splits\.exam: .*'train', 'val' or 'test'"),
    (_set(*USE, "layout", "two"), r"protocols\.sdci\.layout: There is no layout 'two'"),
    (_set(*USE, "clouds", "thni"), r"protocols\.sdci\.clouds: .*'thin'\?"),
    (_set(*USE, "tiles", "of", "rbg"), r"protocols\.sdci\.tiles\.of: .*'rgb'\?"),
    (_set(*USE, "resize", {"rule": "none", "size": 3}), r"size belongs to every rule but 'none'"),
    (_set(*USE, "random_split", {"fractions": {"a": 0.5, "b": 0.4}}), r"the fractions add up to 0\.9, not to 1"),
    (_set(*USE, "random_split", {"fractions": {"a": 0.5, "b": 0.5}}), r"give either splits or random_split"),
    (_set("papers", ["sdci", "edc"]), r"papers names 'edc', but no protocol has it"),
    (_set("clouds", "thin", "cover", [0.5, 0.2]), r"clouds\.thin: cover must be \[smaller, larger\]"),
    (_set("clouds", "thin", "cover", [0.5, 1.2]), r"clouds\.thin\.cover\[1\]: .*less than or equal to 1"),
    (_set("clouds", "thin", "cover", DROP), r"simulated clouds need kind, cover and clear"),
    (_set("clouds", "thin", "origin", "real"), r"clouds of origin 'real' need cloudy"),
    (_set("clouds", "thin", "clear", "rbg"), r"clouds\.thin: There is no modality 'rbg'.*'rgb'\?"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_one_sentence_names_the_file_and_what_is_wrong(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
):
    path = _write(tmp_path, change)
    with pytest.raises(InputError, match=message) as caught:
        load_manifest(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    assert text[-1] in ".?"
    assert "pydantic" not in text


def test_the_unchanged_small_manifest_is_fine(tmp_path: Path):
    manifest = load_manifest(_write(tmp_path, lambda content: None))
    assert manifest.prompts(protocol="sdci") == ["water, river", "land"]
    with pytest.raises(ValidationError, match="frozen"):
        manifest.title = "another"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be a block of keys, not None"),
        (b"- 1\n", r"must be a block of keys, not \[1\]"),
        (b"name: [1\nb: 2", r"bad\.yaml, line 2, column 2: not valid YAML"),
        (b"name: a\ntitle: b\nname: c\n", r"line 3, column 1: not valid YAML \(the key 'name' stands twice\)"),
        (b"licence: {name: a, url: b, name: c}\n", r"line 1, column 28: .*the key 'name' stands twice"),
        (b"name: \xff\n", r"is not UTF-8 text \(byte 6\)"),
        (b"a: !!python/object/apply:os.getcwd []\n", r"line 1, column 4: not valid YAML"),
        (b"a: *nowhere\n", r"line 1, column 4: not valid YAML"),
        (b"a: \x00\n", "not valid YAML"),
    ],
)
def test_broken_yaml(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_manifest(path)
    assert str(path) in str(caught.value)


def test_an_anchor_may_be_changed_in_its_copy(tmp_path: Path):
    """A merge with an own value for a key is no double key."""
    path = resource("data_manifests") / "pie-rgb-sar.yaml"
    assert "<<: *" in path.read_text(encoding="utf-8")
    manifest = load_manifest(path)
    assert manifest.protocols["mm-ovseg-cloud"].modalities == ("rgb_cloudy", "sar")
    assert manifest.protocols["mm-ovseg-clean"].modalities == ("rgb", "sar")


def test_missing_files_and_unknown_names(tmp_path: Path):
    with pytest.raises(InputError, match=r"There is no dataset 'potsdan'.*Did you mean 'potsdam'\?"):
        load_manifest("potsdan")
    with pytest.raises(InputError, match=r"There is no file .*none\.yaml"):
        load_manifest(tmp_path / "none.yaml")
    with pytest.raises(InputError, match=r"can't be read \(Is a directory\)"):
        load_manifest(tmp_path)


@pytest.mark.parametrize(
    ("look_up", "message"),
    [
        (lambda manifest: manifest.layout("isprss"), r"no layout of potsdam 'isprss'.*'isprs'\?"),
        (lambda manifest: manifest.protocol("scdi"), r"no protocol of potsdam 'scdi'.*'sdci'\?"),
        (lambda manifest: manifest.prompts("generalised"), r"no prompt set of potsdam .*'generalized'\?"),
        (lambda manifest: manifest.prompts("original", "segearth"), r"no prompt set for all classes of .*segearth"),
        (lambda manifest: manifest.dataset_class("tre"), r"no class of potsdam 'tre'.*'tree'\?"),
        (lambda manifest: manifest.layout().template("rbg"), r"no modality 'rbg'.*'rgb"),
    ],
)
def test_look_ups_name_the_nearest(look_up: Callable[[Manifest], object], message: str):
    with pytest.raises(InputError, match=message):
        look_up(load_manifest("potsdam"))


def test_a_manifest_is_read_without_the_heavy_libraries():
    code = (
        "import sys; from rsovlib.data.manifest import load_manifest, manifest_names; "
        "[load_manifest(name) for name in manifest_names()]; "
        "print([name for name in ('torch', 'rasterio', 'scipy', 'pandas', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
