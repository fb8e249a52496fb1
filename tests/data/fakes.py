"""Tiny copies of every dataset in its published layout and encodings, made from the manifests themselves.

What is written is decided here independently of the reader: arrays go to disk by Pillow, SciPy and rasterio, and what
must come back (values, class indices) is computed pixel by pixel from the manifest's plain lists.
"""

from __future__ import annotations

import csv
import random
import re
import shutil
import warnings
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import hypothesis
import numpy as np
import rasterio
import scipy.io
import yaml
from hypothesis import strategies as st
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from rsovlib.data.manifest import IGNORE, Layout, Manifest, PathTemplate, load_manifest, manifest_names

SIDE = 36
"""Longest side of a fake image."""

PER_SPLIT = 2

CRS = "EPSG:32632"

# White space, upper and lower case, and a dot before the suffix: names as publishers give them.
FREE_NAMES = ("Scene 1", "scene-two", "3.b", "Scene_4 c", "e5", "f 6", "g7", "h8", "i9", "j10", "k11", "l12")

# Where random text would be less telling than a name that is known to occur.
KNOWN_NAMES = {
    ("ddhr-sk", "id"): ("1", "20", "300", "4000", "5001"),
    ("dstl", "id"): ("6010_0_0", "6020_1_1"),
    ("openearthmap-sar", "id"): ("Tokyo_1", "Aichi_12", "Koeln_3", "Paris_44", "Kyoto_5"),
    ("gid", "id"): ("GF2_PMS1__L1A0000564539-MSS1", "GF2_PMS2__L1A0000607677-MSS2"),
    ("whu-opt-sar", "scene"): ("NH49E001013", "NI49E002014", "NH49E003015", "NH49E004016"),
    ("isaid", "id"): ("P0000", "P0003", "P0019", "P0104", "P1397", "P2806"),
}

# How the lines of split lists look where they are not plain ids.
LIST_LINES = {"eurosat": "{}.jpg"}


@dataclass
class FakeSample:
    fields: dict
    images: dict[str, np.ndarray] = field(default_factory=dict)  # modality -> (C, H, W) as read back
    valid: dict[str, np.ndarray] = field(default_factory=dict)
    clouds: np.ndarray | None = None  # (H, W) bool
    labels: np.ndarray | None = None  # (H, W) class indices without a protocol
    files: dict[str, Path] = field(default_factory=dict)  # modality or "labels" -> file


@dataclass
class Fake:
    manifest: Manifest
    layout_name: str
    root: Path
    manifest_path: Path
    samples: dict[str, FakeSample]
    splits: dict[str, set[str]]

    @property
    def layout(self) -> Layout:
        return self.manifest.layout(self.layout_name)


def all_layouts() -> list[tuple[str, str]]:
    """Every dataset in every layout."""
    return [(name, layout) for name in manifest_names() for layout in load_manifest(name).layouts]


def make_fake(folder: Path, name: str, layout_name: str | None = None) -> Fake:
    """Write a complete, tiny copy, and the manifest that it is complete by: only sizes and numbers are smaller."""
    published = load_manifest(name)
    layout_name = layout_name or published.default_layout
    rng = np.random.default_rng(sum(map(ord, name + layout_name)))
    fields, splits = _choose_samples(published, layout_name)
    manifest = _shrunk(published, layout_name, splits, len(fields))
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(manifest.model_dump(mode="json", exclude_defaults=True), sort_keys=False))
    fake = Fake(load_manifest(path), layout_name, folder / "root", path, {}, splits)
    for sample_id, values in fields.items():
        fake.samples[sample_id] = _write_sample(fake, sample_id, values, rng)
    if fake.layout.labels.encoding == "polygons":
        _write_polygons(fake, rng)
    _write_lists(fake)
    return fake


def own_copy(fake: Fake, folder: Path) -> Fake:
    """A second copy of a fake, to be damaged."""
    root = folder / "root"
    shutil.copytree(fake.root, root)
    samples = {
        name: replace(sample, files={part: root / path.relative_to(fake.root) for part, path in sample.files.items()})
        for name, sample in fake.samples.items()
    }
    return replace(fake, root=root, samples=samples)


# --- which samples there are --------------------------------------------------------------------------------


def _templates(layout: Layout) -> list[str]:
    paths = [files.path for files in layout.files.values()]
    if layout.labels.path is not None and layout.labels.encoding != "polygons":
        paths.append(layout.labels.path)
    if layout.cloud_mask is not None:
        paths.append(layout.cloud_mask.path)
    return paths


def _choose_samples(manifest: Manifest, layout_name: str) -> tuple[dict[str, dict], dict[str, set[str]]]:
    layout = manifest.layout(layout_name)
    names = list(dict.fromkeys(re.findall(r"\{([a-z][a-z0-9_]*)", " ".join(_templates(layout)))))
    numbers = set(re.findall(r"\{([a-z][a-z0-9_]*):", " ".join(_templates(layout))))
    makers = {key: _values(manifest, layout, key, key in numbers) for key in names}
    samples: dict[str, dict] = {}
    splits: dict[str, set[str]] = {key: set() for key in layout.splits}

    def add(fixed: dict) -> str:
        values = {key: fixed[key] if key in fixed else next(makers[key]) for key in names}
        sample = layout.sample_name(values)
        samples[sample] = values
        return sample

    for split, rule in layout.splits.items():
        if rule.ids:
            for sample in rule.ids[:PER_SPLIT]:
                splits[split].add(add(layout.sample_fields(sample) or {}))
        elif rule.where:
            for choice in product(*rule.where.values()):
                for _ in range(PER_SPLIT):
                    splits[split].add(add(dict(zip(rule.where, choice, strict=True))))
        elif rule.groups:
            for group in rule.groups[:PER_SPLIT]:
                splits[split] |= {
                    add(PathTemplate(layout.group, layout.patterns).match(group)) for _ in range(PER_SPLIT)
                }
        elif rule.list_file is not None:
            splits[split] = {add({}) for _ in range(PER_SPLIT)}
    if layout.labels.encoding == "folder":
        for item in manifest.class_names:
            add({"class": item})
    if any(rule.all and not rule.labelled for rule in layout.splits.values()) and samples:
        add({})  # one whose labels the publisher keeps
    if not samples:
        for _ in range(5):
            add({})
    _share_out(layout, samples, splits)
    return samples, splits


def _share_out(layout: Layout, samples: dict[str, dict], splits: dict[str, set[str]]) -> None:
    """The splits that are rules over all samples."""
    start, order = 0.0, None
    for split, rule in layout.splits.items():
        if rule.all:
            splits[split] = set(samples)
        elif rule.fraction is not None:
            if order is None:
                order = np.random.default_rng(rule.seed).permutation(len(samples))
            end = start + rule.fraction
            chosen = order[round(start * len(samples)) : round(end * len(samples))]
            splits[split] = {sorted(samples)[place] for place in chosen}
            start = end


def _values(manifest: Manifest, layout: Layout, key: str, is_number: bool):
    """One value after another for a placeholder, all different unless there are only a few."""
    if is_number:
        number = 7
        while True:
            yield number
            number += 6
    described = layout.placeholders.get(key)
    if described is not None and described.values:
        while True:
            yield from described.values
    given = KNOWN_NAMES.get((manifest.name, key), ()) or (FREE_NAMES if described is None else ())
    yield from given
    used = {name.casefold() for name in given}
    while True:
        name = _example(described.regex if described is not None else "[a-z]{4}", used)
        used.add(name.casefold())
        yield name


def _example(regex: str, used: set[str]) -> str:
    """A text that a regular expression matches, and that is none of those used."""
    strategy = st.from_regex(regex, fullmatch=True, alphabet=st.characters(min_codepoint=48, max_codepoint=122))
    return hypothesis.find(
        strategy,
        lambda text: text.casefold() not in used and "/" not in text,
        settings=hypothesis.settings(database=None, max_examples=500),
        random=random.Random(len(used)),
    )


def _shrunk(manifest: Manifest, layout_name: str, splits: dict[str, set[str]], count: int) -> Manifest:
    """The same manifest with small sizes, the numbers of files that are made here, and small tiles."""
    content = manifest.model_dump(mode="json")
    layout = content["layouts"][layout_name]
    parts = [*layout["files"].values(), layout["labels"], *([layout["cloud_mask"]] if layout["cloud_mask"] else [])]
    sides = [side for part in parts if part["size"] for side in part["size"].values()]
    factor = min(1.0, SIDE / max(sides)) if sides else 1.0
    labelled = count - len(_unlabelled(manifest.layout(layout_name), splits))
    for part in parts:
        if part["size"]:
            part["size"] = {key: max(3, round(side * factor)) for key, side in part["size"].items()}
        if part["count"] is not None:
            part["count"] = labelled if part is layout["labels"] else count
    for name, split in layout["splits"].items():
        if split["ids"]:
            split["ids"] = sorted(splits[name])
        if split["groups"]:
            split["groups"] = split["groups"][:PER_SPLIT]
        if split["count"] is not None:
            split["count"] = len(splits[name])
    layout["checksums"] = {}
    for protocol in content["protocols"].values():
        if protocol["tiles"]:
            size = protocol["tiles"]["size"]
            protocol["tiles"]["stride"] = max(1, round(16 * protocol["tiles"]["stride"] / size))
            protocol["tiles"]["size"] = 16
        protocol["tile_counts"] = {}
    content["layouts"] = {layout_name: layout}
    known = set(content["modalities"])
    # Protocols of the layouts that are left out can't stand; those without a layout mean the first one.
    kept = {}
    for name, protocol in content["protocols"].items():
        own = protocol["layout"] or manifest.default_layout
        has_splits = set(protocol["splits"].values()) <= set(layout["splits"])
        if own == layout_name and has_splits and set(protocol["modalities"]) <= set(layout["files"]):
            kept[name] = protocol
    content["protocols"] = kept
    content["papers"] = [paper for paper in content["papers"] if paper in {use["paper"] for use in kept.values()}]
    # Parts of the manifest that speak of what is left out.
    content["clouds"] = {
        name: clouds
        for name, clouds in content["clouds"].items()
        if {clouds["clear"], clouds["cloudy"]} <= known | {None}
    }
    return Manifest.model_validate(content)


def _unlabelled(layout: Layout, splits: dict[str, set[str]]) -> set[str]:
    """Samples whose labels the publisher keeps."""
    with_labels = {name for split, names in splits.items() if layout.splits[split].labelled for name in names}
    return {name for names in splits.values() for name in names} - with_labels


# --- what is in them ----------------------------------------------------------------------------------------


def _write_sample(fake: Fake, sample_id: str, fields: dict, rng: np.random.Generator) -> FakeSample:
    layout, manifest = fake.layout, fake.manifest
    sample = FakeSample(fields)
    by_path: dict[str, list[str]] = {}
    for modality, files in layout.files.items():
        by_path.setdefault(files.path, []).append(modality)
    for template, modalities in by_path.items():
        files = layout.files[modalities[0]]
        counts = [len(manifest.modalities[name].bands) for name in modalities]
        given = [layout.files[name].file_bands or max(layout.files[name].channels or (0,)) for name in modalities]
        array = _image(fake, modalities[0], max(*counts, *given), rng)
        path = fake.root / template.format(**fields)
        array = _write_array(path, array, files.format, files.variable, files.georeferenced, fake, modalities[0])
        for name in modalities:
            channels = layout.files[name].channels or range(1, len(manifest.modalities[name].bands) + 1)
            stored = array[[channel - 1 for channel in channels]]
            sample.images[name] = stored
            sample.valid[name] = _valid(stored, [band.nodata for band in manifest.modalities[name].bands])
            sample.files[name] = path
    _write_labels(fake, sample, sample_id, rng)
    if layout.cloud_mask is not None:
        mask = layout.cloud_mask
        shape = (mask.size.height, mask.size.width) if mask.size else size_of(fake, next(iter(layout.files)))
        sample.clouds = rng.random(shape) < 0.3
        path = fake.root / mask.path.format(**fields)
        sample.files["cloud_mask"] = path
        _write_array(
            path, sample.clouds[None].astype(mask.dtype or "uint8"), mask.format, mask.variable, None, fake, None
        )
    return sample


def size_of(fake: Fake, modality: str) -> tuple[int, int]:
    """(H, W) of a modality's images: as the manifest says, or as its ground sampling distance makes it."""
    files = fake.layout.files[modality]
    if files.size is not None:
        return files.size.height, files.size.width
    known = next((name for name, other in fake.layout.files.items() if other.size is not None), None)
    height, width = (24, 31) if known is None else size_of(fake, known)
    first = known or next(iter(fake.layout.files))
    own, other = fake.manifest.modalities[modality].gsd_m, fake.manifest.modalities[first].gsd_m
    ratio = other / own if own and other else 1.0
    return max(3, round(height * ratio)), max(3, round(width * ratio))


def dtype_of(fake: Fake, modality: str) -> np.dtype:
    files, kind = fake.layout.files[modality], fake.manifest.modalities[modality].kind
    if files.dtype is not None:
        return np.dtype(files.dtype)
    if files.format in ("png", "jpg"):
        return np.dtype("uint8")
    return np.dtype("float32" if kind != "optical" else "uint16")


def _image(fake: Fake, modality: str, count: int, rng: np.random.Generator) -> np.ndarray:
    height, width = size_of(fake, modality)
    dtype = dtype_of(fake, modality)
    band = fake.manifest.modalities[modality].bands[0]
    low, high = band.valid_range or ((1, 200) if dtype.kind in "ui" else (-25.0, 5.0))
    if dtype.kind in "ui":
        low, high = max(low, np.iinfo(dtype).min), min(high, np.iinfo(dtype).max)
        low, high = (low + 1, high - 1) if high - low > 2 else (low, high)
    values = rng.uniform(low, high, (count, height, width))
    if fake.layout.files[modality].format == "jpg":  # what a lossy format keeps
        values = np.broadcast_to(np.linspace(low, high, width), (count, height, width))
    array = (np.round(values) if dtype.kind in "ui" else values).astype(dtype)
    nodata = [band.nodata for band in fake.manifest.modalities[modality].bands]
    if len(nodata) == count and all(value is not None for value in nodata):
        for channel, value in enumerate(nodata):
            array[channel, 0, :3] = value
    return array


def _valid(stored: np.ndarray, nodata: list) -> np.ndarray:
    valid = np.ones(stored.shape[1:], dtype=bool)
    if all(value is not None for value in nodata):
        valid &= ~np.all([band == value for band, value in zip(stored, nodata, strict=True)], axis=0)
    return valid


def _write_array(
    path: Path,
    array: np.ndarray,
    kind: str,
    variable: str | None,
    placed: bool | None,
    fake: Fake,
    modality: str | None,
) -> np.ndarray:
    """Write (C, H, W); the array as any reader must give it back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "tif":
        write_tif(path, array, _transform(fake, modality) if placed else None)
    elif kind in ("png", "jpg"):
        plane = array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)
        Image.fromarray(plane).save(path, **({"quality": 95} if kind == "jpg" else {}))
        if kind == "jpg":
            with Image.open(path) as picture:
                decoded = np.asarray(picture)
            return decoded[None] if decoded.ndim == 2 else np.moveaxis(decoded, -1, 0)
    elif kind == "mat":
        scipy.io.savemat(path, {str(variable): array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)})
    elif kind == "npy":
        np.save(path, array[0] if len(array) == 1 else np.moveaxis(array, 0, -1))
    else:
        raise NotImplementedError(kind)
    return array


def write_array(path: Path, array: np.ndarray, kind: str, fake: Fake) -> None:
    """Write (C, H, W) in place of a file of a fake."""
    _write_array(path, array, kind, fake.layout.labels.variable, fake.layout.labels.georeferenced, fake, None)


def write_tif(path: Path, array: np.ndarray, transform: rasterio.Affine | None = None, **more) -> None:
    count, height, width = array.shape
    place = {} if transform is None else {"crs": CRS, "transform": transform}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", count=count, height=height, width=width, dtype=array.dtype, **place, **more
        ) as target:
            target.write(array)


def write_palette(path: Path, numbers: np.ndarray) -> None:
    """Numbers (H, W) of colours, in a TIFF or PNG with a palette."""
    picture = Image.fromarray(numbers.astype(np.uint8), mode="P")
    picture.putpalette([value // 3 for value in range(768)])
    picture.save(path)


def _transform(fake: Fake, modality: str | None) -> rasterio.Affine:
    """All modalities from the same corner, with pixels that cover the same ground."""
    name = modality or fake.layout.labels.covers or next(iter(fake.layout.files))
    height, width = size_of(fake, name)
    return rasterio.Affine(720 / width, 0, 5e5, 0, -720 / height, 5.6e6)


# --- labels -------------------------------------------------------------------------------------------------


def label_size(fake: Fake) -> tuple[int, int]:
    labels = fake.layout.labels
    if labels.size is not None:
        return labels.size.height, labels.size.width
    covers = labels.covers or next(iter(fake.layout.files))
    height, width = size_of(fake, covers)
    own = fake.manifest.modalities[covers].gsd_m
    ratio = own / labels.gsd_m if own and labels.gsd_m else 1.0
    return max(1, round(height * ratio)), max(1, round(width * ratio))


def _index_of(manifest: Manifest, name: str) -> int:
    counted = [item.name for item in manifest.classes if not item.ignored]
    return counted.index(name) if name in counted else IGNORE


def _write_labels(fake: Fake, sample: FakeSample, sample_id: str, rng: np.random.Generator) -> None:
    labels, manifest = fake.layout.labels, fake.manifest
    if labels.encoding == "folder":
        shape = size_of(fake, next(iter(fake.layout.files)))
        sample.labels = np.full(shape, _index_of(manifest, sample.fields["class"]))
    if labels.encoding in ("none", "folder", "polygons") or sample_id in _unlabelled(fake.layout, fake.splits):
        return
    height, width = label_size(fake)
    # Pairs of what is written and what it means: numbers or colours.
    if labels.encoding == "colour":
        code = [(colour, _index_of(manifest, item.name)) for item in manifest.classes for colour in item.colours]
        code += [(colour, IGNORE) for colour in labels.ignore_colours]
    else:
        values = {item.name: labels.values.get(item.name, ()) for item in manifest.classes}
        if not labels.values:
            values = {item.name: [value + labels.offset for value in item.values] for item in manifest.classes}
        code = [
            (value, _index_of(manifest, name)) for name, numbers in values.items() for value in numbers if value >= 0
        ]
        code += [(value, IGNORE) for value in labels.ignore_values]
    choice = rng.integers(0, len(code), (height, width))
    choice.flat[: len(code)] = np.arange(len(code))[: choice.size]  # every value occurs where there is room
    sample.labels = np.array([[code[number][1] for number in row] for row in choice])
    raw = np.array([[code[number][0] for number in row] for row in choice])
    path = fake.root / str(labels.path).format(**sample.fields)
    path.parent.mkdir(parents=True, exist_ok=True)
    sample.files["labels"] = path
    if labels.encoding == "palette":
        picture = Image.fromarray(raw.astype(np.uint8), mode="P")
        picture.putpalette(list(rng.integers(0, 256, 768)))
        picture.save(path)
        return
    array = np.moveaxis(raw, -1, 0) if raw.ndim == 3 else np.repeat(raw[None], labels.band, axis=0)
    dtype = labels.dtype or ("uint8" if array.max() < 256 else "uint16")
    _write_array(
        path, array.astype(dtype), str(labels.format), labels.variable, labels.georeferenced, fake, labels.covers
    )


def _write_polygons(fake: Fake, rng: np.random.Generator) -> None:
    """Rectangles on pixel edges; where they overlap, the later class of the manifest shows."""
    columns, manifest = fake.layout.labels.polygons, fake.manifest
    values = {
        item.name: fake.layout.labels.values.get(item.name) or [v + fake.layout.labels.offset for v in item.values]
        for item in manifest.classes
    }
    unlabelled = _unlabelled(fake.layout, fake.splits)
    rows, extents = [], []
    for sample_id, sample in fake.samples.items():
        height, width = size_of(fake, fake.layout.labels.covers or next(iter(fake.layout.files)))
        x_max, y_min = 0.0091, -0.009
        extents.append((sample_id, x_max, y_min))
        if sample_id in unlabelled:
            continue
        sample.labels = np.full((height, width), _zero(fake))
        for item in manifest.classes:
            number = next((value for value in values[item.name] if value != 0), None)
            if number is None:
                continue
            top, left = rng.integers(0, height - 4), rng.integers(0, width - 4)
            bottom, right = top + rng.integers(2, 5), left + rng.integers(2, 5)
            if not item.ignored:
                sample.labels[top:bottom, left:right] = _index_of(manifest, item.name)
            corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
            x_scale, y_scale = x_max * (width + 1) / width**2, y_min * (height + 1) / height**2
            ring = ", ".join(f"{column * x_scale:.12f} {row * y_scale:.12f}" for column, row in corners)
            rows.append((sample_id, number, f"MULTIPOLYGON ((({ring})))"))
    table = fake.root / str(fake.layout.labels.path)
    _write_csv(table, [columns.image_column, columns.class_column, columns.geometry_column], rows)
    _write_csv(
        fake.root / columns.extent_path, [columns.extent_image_column, columns.x_column, columns.y_column], extents
    )


def _zero(fake: Fake) -> int:
    """What a pixel without a polygon means."""
    for item in fake.manifest.classes:
        if 0 in item.values:
            return _index_of(fake.manifest, item.name)
    return IGNORE


def _write_csv(path: Path, head: list[str], rows: list[tuple]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)


def _write_lists(fake: Fake) -> None:
    """The lists of the splits, and whatever else a complete copy has."""
    for name, split in fake.layout.splits.items():
        if split.list_file is not None:
            path = fake.root / split.list_file
            path.parent.mkdir(parents=True, exist_ok=True)
            line = LIST_LINES.get(fake.manifest.name, "{}")
            path.write_text("".join(line.format(sample) + "\n" for sample in sorted(fake.splits[name])))
    for extra in fake.layout.extra_files:
        path = fake.root / extra
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("of the publisher\n")
