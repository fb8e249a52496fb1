"""``rsovlib data``: what is known of each dataset, whether a copy of it is whole, and its tiles."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rsovlib.data.check import CheckReport
    from rsovlib.data.manifest import Manifest

EXIT_DIFFERENT = 1
"""`data check` found differences: not a mistake of the user, so not 2."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the command and its actions."""
    parser = commands.add_parser(
        "data",
        help="the datasets that rsovlib knows: what they are, whether a copy is whole, and their tiles",
        description="The datasets that rsovlib describes. Nothing is downloaded: each has its page and its licence.",
    )
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")

    listing = actions.add_parser("list", help="all datasets, and whether they are under RSOV_DATA")
    listing.set_defaults(command=list_datasets)

    show = actions.add_parser("show", help="everything about one: bands, classes, prompts, folders, splits, licence")
    show.add_argument("name", metavar="NAME")
    show.add_argument("--json", action="store_true", help="the manifest as JSON")
    show.set_defaults(command=show_dataset)

    check = actions.add_parser(
        "check",
        help="compare a local copy with the manifest, file by file",
        description="Compare a local copy with the manifest. The exit code is 1 where something is different.",
    )
    _add_place(check)
    check.add_argument(
        "--partial", action="store_true", help="the copy is knowingly a part: numbers and listed samples may differ"
    )
    check.add_argument("--quick", action="store_true", help="read headers only, not all pixels")
    check.add_argument("--json", action="store_true", help="the result as JSON")
    check.set_defaults(command=check_dataset)

    prepare = actions.add_parser(
        "prepare",
        help="cut a dataset into tiles as its paper does, with an index",
        description="Cut a dataset into tiles as its paper does. A run that was stopped goes on where it was.",
    )
    _add_place(prepare)
    prepare.add_argument("--out", required=True, metavar="DIR", help="folder for the tiles and index.parquet")
    prepare.add_argument("--protocol", metavar="NAME", help="the paper's use of it (default: the manifest's first)")
    prepare.add_argument(
        "--format", default="tif", choices=("tif", "png"), help="of the tiles; tif keeps CRS and geotransform"
    )
    prepare.add_argument("--fold", type=int, default=0, metavar="N", help="of a protocol with a random split")
    prepare.add_argument("--allow-missing", action="store_true", help="samples may lack some of their images")
    prepare.add_argument(
        "--simulate-clouds",
        action="store_true",
        help="make missing cloudy images from clear ones, as the manifest says",
    )
    prepare.set_defaults(command=prepare_dataset)


def _add_place(parser: argparse.ArgumentParser) -> None:
    """What every action on a local copy takes."""
    parser.add_argument("name", metavar="NAME", help="a dataset's name, or the path of a manifest (.yaml)")
    parser.add_argument("--root", metavar="DIR", help="its folder (default: $RSOV_DATA/NAME)")
    parser.add_argument("--layout", metavar="NAME", help="how its folders are laid out (default: what fits best)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: %(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, and no summary")


def list_datasets(options: argparse.Namespace) -> int:
    """Print a line for each dataset."""
    from rsovlib.data.layout import DATA_VARIABLE
    from rsovlib.data.manifest import load_manifest, manifest_names

    parent = os.environ.get(DATA_VARIABLE)
    rows = [("NAME", "HERE", "CLASSES", "MODALITIES", "PAPERS", "TITLE")]
    for name in manifest_names():
        manifest = load_manifest(name)
        here = "yes" if parent and (Path(parent) / name).is_dir() else "no"
        classes = str(len(manifest.counted_classes()))
        rows.append((name, here, classes, ", ".join(manifest.modalities), ", ".join(manifest.papers), manifest.title))
    _print_columns(rows)
    return 0


def show_dataset(options: argparse.Namespace) -> int:
    """Print all that is known of one dataset."""
    from rsovlib.data.manifest import load_manifest

    manifest = load_manifest(options.name)
    if options.json:
        print(manifest.model_dump_json(indent=2, exclude_defaults=True))
    else:
        print("\n".join(_described(manifest)))
    return 0


def check_dataset(options: argparse.Namespace) -> int:
    """Print the differences and a summary; the exit code is 1 where there are any."""
    from rsovlib.data.check import check_copy

    report = check_copy(
        options.name,
        options.root,
        layout=options.layout,
        partial=options.partial,
        all_pixels=not options.quick,
        workers=options.workers,
        progress=not (options.quiet or options.json),
    )
    if options.json:
        import json

        print(json.dumps(report.as_dict(), indent=1, ensure_ascii=False))
    else:
        _print_findings(report, with_summary=not options.quiet)
    return 0 if report.is_complete else EXIT_DIFFERENT


def prepare_dataset(options: argparse.Namespace) -> int:
    """Write the tiles and the index."""
    from rsovlib.data.prepare import prepare_tiles

    report = prepare_tiles(
        options.name,
        options.root,
        options.out,
        protocol=options.protocol,
        layout=options.layout,
        tile_format=options.format,
        fold=options.fold,
        allow_missing=options.allow_missing,
        simulate_clouds=options.simulate_clouds,
        workers=options.workers,
        progress=not options.quiet,
    )
    if not options.quiet:
        print(report.summary())
    return 0


def _print_findings(report: CheckReport, *, with_summary: bool) -> None:
    _print_columns([(finding.kind, finding.path, finding.message) for finding in report.findings])
    if with_summary:
        print(report.summary(), file=sys.stdout)


def _print_columns(rows: Sequence[tuple[str, ...]]) -> None:
    """Rows of text, each column as wide as its widest entry but the last."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _described(manifest: Manifest) -> Iterator[str]:
    """A manifest for people, line by line."""
    yield f"{manifest.name}: {manifest.title} ({manifest.version})"
    if manifest.citation:
        yield f"cite: {manifest.citation}"
    yield from (f"page: {page}" for page in manifest.pages)
    licence = ". ".join(part for part in (manifest.licence.name, manifest.licence.notes) if part)
    yield f"licence: {licence}"
    yield from _modalities(manifest)
    yield from _classes(manifest)
    yield from _layouts(manifest)
    yield from _protocols(manifest)
    if manifest.notes:
        yield from ("", f"notes: {manifest.notes}")


def _modalities(manifest: Manifest) -> Iterator[str]:
    yield from ("", "modalities")
    for name, modality in manifest.modalities.items():
        ground = f", {modality.gsd_m:g} m" if modality.gsd_m else ""
        bands = "; ".join(
            band.name
            + (f" {band.wavelength_nm:g} nm" if band.wavelength_nm else "")
            + (f" {band.polarisation}" if band.polarisation and band.polarisation != band.name else "")
            + (f" [{band.unit}]" if band.unit != "digital number" else "")
            for band in modality.bands
        )
        yield f"  {name} ({modality.kind}, {modality.sensor}{ground}): {bands}"


def _classes(manifest: Manifest) -> Iterator[str]:
    if not manifest.classes:
        return
    yield from ("", "classes")
    for item in manifest.classes:
        values = f" = {', '.join(map(str, item.values))}" if item.values else ""
        colours = f" {' '.join(str(colour) for colour in item.colours)}" if item.colours else ""
        yield f"  {item.name}{values}{colours}{' (ignored)' if item.ignored else ''}"
    for key, prompt_set in manifest.prompt_sets.items():
        yield from ("", f"prompts {key} ({prompt_set.source})")
        yield from (
            f"  {item.name}: {', '.join(item.prompts[key])}" for item in manifest.classes if key in item.prompts
        )


def _layouts(manifest: Manifest) -> Iterator[str]:
    for name, layout in manifest.layouts.items():
        yield from ("", f"layout {name} ({layout.source})")
        yield from _indented(layout.tree.splitlines())
        for modality, files in layout.files.items():
            size = f", {files.size.height} x {files.size.width}" if files.size else ""
            optional = ", optional" if files.optional else ""
            yield f"  {modality}: {files.path} ({files.format}, {files.dtype}{size}{optional})"
        if layout.labels.path is not None:
            yield f"  labels: {layout.labels.path} ({layout.labels.format}, {layout.labels.encoding})"
        for split_name, split in layout.splits.items():
            count = f": {split.count} samples" if split.count is not None else ""
            own = "" if split.published else " (ours: no list is published)"
            yield f"  split {split_name}{count}{own}"


def _protocols(manifest: Manifest) -> Iterator[str]:
    for name, protocol in manifest.protocols.items():
        yield from ("", f"protocol {name} ({protocol.paper})")
        yield f"  modalities: {', '.join(protocol.modalities)}"
        yield f"  classes: {', '.join(protocol.classes)}"
        if protocol.seen:
            yield f"  seen: {', '.join(protocol.seen)}; unseen: {', '.join(protocol.unseen)}"
        if protocol.tiles is not None:
            tiles = protocol.tiles
            yield f"  tiles: {tiles.size} pixels, stride {tiles.stride}, edge {tiles.edge}"
        if protocol.splits:
            yield f"  splits: {', '.join(f'{role} = {split}' for role, split in protocol.splits.items())}"


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"    {line}" for line in lines)
