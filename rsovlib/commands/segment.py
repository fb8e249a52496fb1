"""``rsovlib segment``: an image and class names in, a georeferenced class map out."""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsovlib.segmenters.registry import method_help

if TYPE_CHECKING:
    from rsovlib.data.raster import SceneReport


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the command and its options."""
    parser = commands.add_parser(
        "segment",
        help="segment an image by class names and write a georeferenced class map",
        description="Segment a raster of any size by class names. Nothing is written unless everything succeeded; "
        "finished tiles are kept in MAP.tif.partial, and the same command goes on with them after any interruption.",
        epilog='Example: rsovlib segment scene.tif --classes "water, river; forest, trees; buildings" --out map.tif',
    )
    parser.add_argument(
        "image", metavar="IMAGE", help="GeoTIFF or any raster that GDAL reads, with three or more bands"
    )
    parser.add_argument(
        "--classes",
        required=True,
        metavar="TEXT",
        help='class names: ";" or a new line between classes, "," between synonyms of one class',
    )
    parser.add_argument("--out", required=True, metavar="MAP.tif", help="class map to write")

    parser.add_argument(
        "--sar",
        metavar="RADAR.tif",
        help="radar raster of the same place, for methods that use one; grid, resolution and extent may differ",
    )

    more = parser.add_argument_group("further outputs")
    more.add_argument("--png", metavar="FILE.png", help="picture of the map over the image, with a legend")
    more.add_argument("--vector", metavar="FILE", help="polygons: .gpkg, .geojson, .parquet or .fgb")
    more.add_argument("--probabilities", metavar="FILE.tif", help="probabilities, one band a class")

    more.add_argument("--areas", metavar="FILE.csv", help="pixels, share and hectares of each class")
    more.add_argument("--cog", action="store_true", help="write maps as cloud-optimised GeoTIFFs")

    how = parser.add_argument_group("method")
    how.add_argument(
        "--method", default="sdci", metavar="NAME", help=f"segmentation method (default: %(default)s): {method_help()}"
    )
    how.add_argument(
        "--profile",
        default="embedded",
        help='"embedded": small models that ship with rsovlib; "full": the papers\' weights (default: %(default)s)',
    )
    how.add_argument("--clip", metavar="NAME", help="another CLIP model than the profile's; see rsovlib weights list")
    how.add_argument("--clip-weights", metavar="TAG|FILE", help="its weights")
    how.add_argument("--dino", metavar="NAME", help="another DINO model than the profile's")
    how.add_argument("--dino-weights", metavar="TAG|FILE", help="its weights")
    how.add_argument(
        "--set",
        action="append",
        default=[],
        type=_assignment,
        metavar="NAME=VALUE",
        help="a parameter of the method, such as beta=0.3; may be given several times",
    )
    how.add_argument("--device", default="auto", help='"auto", "cpu", "cuda", ... (default: %(default)s)')

    image = parser.add_argument_group("image and tiles")
    image.add_argument(
        "--bands", metavar="R,G,B", help='bands to use as red, green, blue: "4,3,2" or names such as "B04,B03,B02"'
    )
    image.add_argument(
        "--stretch",
        default="auto",
        choices=("auto", "percentile", "none"),
        help="auto: 2-98 %% of the scene for all but 8-bit images; percentile: for all (default: %(default)s)",
    )
    image.add_argument("--sar-bands", metavar="VV,VH", help="polarisations of the radar raster, by number or name")
    image.add_argument(
        "--sar-unit",
        default="auto",
        choices=("auto", "db", "linear", "amplitude", "display"),
        help="of the radar's values (default: %(default)s)",
    )
    image.add_argument("--despeckle", metavar="FILTER", help='speckle filter for the radar, such as "refined_lee"')
    image.add_argument("--tile", type=int, metavar="PIXELS", help="side of a tile (default: the method's own)")
    image.add_argument(
        "--overlap", type=int, metavar="PIXELS", help="shared by neighbouring tiles (default: the method's own)"
    )
    image.add_argument(
        "--statistics",
        default="scene",
        choices=("scene", "tile"),
        help="scene: stretch and level the scores of all tiles alike, so that no squares appear; tile: each tile by "
        "itself, as the papers do (default: %(default)s)",
    )

    who = parser.add_argument_group("who computes")
    who.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: %(default)s)")
    who.add_argument("--scheduler", metavar="tcp://...", help="instead: the workers of a Dask cluster")
    who.add_argument("--threads", type=int, metavar="N", help="of each worker (default: cores / workers)")
    who.add_argument(
        "--batch",
        type=int,
        metavar="TILES",
        help="tiles that go through the networks together, at most (default: 1 on the CPU, by memory on a GPU)",
    )
    who.add_argument(
        "--no-resume", action="store_true", help="forget the tiles that an interrupted run of this command finished"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Segment the image; the exit code is 0."""
    from rsovlib.data.raster import segment_scene

    # Only what was asked for is handed on: a method without a DINO need not know the name.
    names = ("clip", "clip_weights", "dino", "dino_weights")
    models = {name: value for name in names if (value := getattr(options, name)) is not None}
    with _hint_on_interruption(options.out):
        report = segment_scene(
            options.image,
            options.classes,
            options.out,
            sar=options.sar,
            sar_bands=options.sar_bands,
            sar_unit=options.sar_unit,
            despeckle=options.despeckle,
            batch=options.batch,
            method=options.method,
            profile=options.profile,
            tile=options.tile,
            overlap=options.overlap,
            bands=options.bands,
            stretch=options.stretch,
            device=options.device,
            progress=not options.quiet,
            png=options.png,
            vector=options.vector,
            probabilities=options.probabilities,
            areas=options.areas,
            cog=options.cog,
            workers=options.workers,
            scheduler=options.scheduler,
            threads=options.threads,
            statistics=options.statistics,
            resume=not options.no_resume,
            **{**models, **dict(options.set)},
        )
    if not options.quiet:
        _print_report(report)
    return 0


@contextmanager
def _hint_on_interruption(out: str) -> Iterator[None]:
    """After Ctrl-C, say what is kept."""
    from rsovlib.data.tilestore import partial_folder

    try:
        yield
    except KeyboardInterrupt:
        kept = partial_folder(Path(out))
        if kept.is_dir():
            print(
                f"rsovlib: interrupted; finished tiles are kept in {kept}, and the same command goes on with them.",
                file=sys.stderr,
            )
        raise


def _assignment(text: str) -> tuple[str, Any]:
    """``beta=0.3`` as a name and a Python value; a value that isn't one is a word."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _print_report(report: SceneReport) -> None:
    """What was found, for a person at a terminal."""
    facts = report.settings
    bands = ", ".join(str(band) for band in facts["bands"])
    print(report.table().to_string(index=False, float_format=lambda value: f"{value:.2f}"))
    print(f"bands {bands} as red, green, blue ({facts['band_rule']}); brightness: {facts['stretch']}")
    if "sar" in facts:
        radar = facts["sar"]
        print(f"radar: {radar['source']}, {radar['grid']}; covers {100 * radar['coverage']['sar']:.1f} % of the image")
    if report.nodata_pixels:
        print(f"{report.nodata_pixels} pixels have no data in the image and none in the map")
    print(f"{report.tiles} tiles in {report.seconds:.1f} s; {report.segmenter_seconds:.1f} s in the segmenter")
    if report.resumed:
        print(f"{report.resumed} pieces were finished by an earlier run and not computed again")
    for kind, path in {"map": report.out, **report.files}.items():
        print(f"{kind}: {path}")
