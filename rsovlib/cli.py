"""The command line: ``rsovlib segment``, ``rsovlib weights``.

Whatever a user can get wrong ends in one sentence on standard error and exit code 2, as argparse's own errors do.
Libraries are imported inside the commands, so that ``--help`` and mistakes in the arguments answer at once.
"""

from __future__ import annotations

import argparse
import ast
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import rsovlib
from rsovlib.errors import RsovError

if TYPE_CHECKING:
    from pathlib import Path

    from rsovlib.backbones.registry import NamedWeights
    from rsovlib.data.raster import SceneReport

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_TERMINATED = 128 + signal.SIGTERM
EXIT_BROKEN_PIPE = 128 + 13  # SIGPIPE, by number: Windows has none


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: those of the command line if None.

    Returns:
        The exit code: 0, 2 for anything that the user can mend, 130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        with _unwinding_when_terminated():
            command(options)
            sys.stdout.flush()
    except RsovError as error:
        print(f"rsovlib: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`rsovlib weights list | head`); Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rsovlib",
        description="Open-vocabulary segmentation of remote-sensing imagery: type class names, get a map.",
    )
    parser.add_argument("--version", action="version", version=f"rsovlib {rsovlib.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_segment(commands)
    _add_weights(commands)
    return parser


def _add_segment(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "segment",
        help="segment an image by class names and write a georeferenced class map",
        description="Segment a raster of any size by class names. Nothing is written unless everything succeeded.",
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

    more = parser.add_argument_group("further outputs")
    more.add_argument("--png", metavar="FILE.png", help="picture of the map over the image, with a legend")
    more.add_argument("--vector", metavar="FILE", help="polygons: .gpkg, .geojson, .parquet or .fgb")
    more.add_argument("--probabilities", metavar="FILE.tif", help="probabilities, one band a class")

    how = parser.add_argument_group("method")
    how.add_argument("--method", default="sdci", help="segmentation method (default: %(default)s)")
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
    image.add_argument("--tile", type=int, metavar="PIXELS", help="side of a tile (default: the method's own)")
    image.add_argument(
        "--overlap", type=int, metavar="PIXELS", help="shared by neighbouring tiles (default: the method's own)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    parser.set_defaults(command=_segment)


def _assignment(text: str) -> tuple[str, Any]:
    """``beta=0.3`` as a name and a Python value; a value that isn't one is a word."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _segment(options: argparse.Namespace) -> None:
    from rsovlib.data.raster import segment_scene

    # Only what was asked for is handed on: a method without a DINO need not know the name.
    names = ("clip", "clip_weights", "dino", "dino_weights")
    models = {name: value for name in names if (value := getattr(options, name)) is not None}
    report = segment_scene(
        options.image,
        options.classes,
        options.out,
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
        **{**models, **dict(options.set)},
    )
    if not options.quiet:
        _print_report(report)


def _print_report(report: SceneReport) -> None:
    """What was found, for a person at a terminal."""
    facts = report.settings
    bands = ", ".join(str(band) for band in facts["bands"])
    print(report.table().to_string(index=False, float_format=lambda value: f"{value:.2f}"))
    print(f"bands {bands} as red, green, blue ({facts['band_rule']}); brightness: {facts['stretch']}")
    if report.nodata_pixels:
        print(f"{report.nodata_pixels} pixels have no data in the image and none in the map")
    print(f"{report.tiles} tiles in {report.seconds:.1f} s, of which {report.segmenter_seconds:.1f} s in the segmenter")
    for kind, path in {"map": report.out, **report.files}.items():
        print(f"{kind}: {path}")


def _add_weights(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "weights",
        help="the weights that rsovlib knows: where they come from and whether they are here",
        description="The weights that rsovlib knows by name.",
    )
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="all names, with kind, licence, and whether they are on this machine")
    listing.set_defaults(command=_list_weights)
    check = actions.add_parser("check", help="compare the files that are here with their checksums")
    check.add_argument("name", nargs="?", metavar="NAME", help="only this one")
    check.set_defaults(command=_check_weights)
    show = actions.add_parser("show", help="everything about one")
    show.add_argument("name", metavar="NAME")
    show.set_defaults(command=_show_weights)


def _list_weights(options: argparse.Namespace) -> None:
    from rsovlib.backbones import registry

    rows = [("NAME", "KIND", "ARCHITECTURE", "HERE", "LICENCE", "USE")]
    for entry in registry.list_weights():
        here = "no" if _local_copy(entry) is None else "yes"
        rows.append((entry.name, entry.kind, entry.architecture, here, entry.licence, entry.use))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _show_weights(options: argparse.Namespace) -> None:
    import dataclasses

    from rsovlib.backbones import registry

    entry = registry.get(options.name)
    facts = {key: value for key, value in dataclasses.asdict(entry).items() if value != ""}
    facts["here"] = _local_copy(entry) or f"no; it would be kept in {registry.cache_folder()}"
    width = max(len(key) for key in facts)
    for key, value in facts.items():
        print(f"{key.ljust(width)}  {value}")


def _check_weights(options: argparse.Namespace) -> None:
    """Print a line for each; the first altered file is an error, after all lines. Nothing is fetched."""
    from rsovlib.backbones import registry
    from rsovlib.errors import WeightsError

    altered: list[WeightsError] = []
    for entry in [registry.get(options.name)] if options.name else registry.list_weights():
        path = _local_copy(entry)
        if path is None:
            verdict = "not here"
        else:
            try:
                verdict = f"as published, SHA-256 {registry.verified_sha256(path, entry.sha256)}"
            except WeightsError as error:
                altered.append(error)
                verdict = "ALTERED"
        print(f"{entry.name}: {verdict}")
    if altered:
        raise altered[0]


def _local_copy(entry: NamedWeights) -> Path | None:
    """The file of an entry if it is on this machine; nothing is fetched."""
    from rsovlib.backbones import registry
    from rsovlib.errors import WeightsError

    os.environ["RSOV_OFFLINE"] = "1"  # for the rest of this process, which only looks
    try:
        path = registry.fetch(entry)
    except WeightsError:
        return None
    return path if path.is_file() else None


@contextmanager
def _unwinding_when_terminated() -> Iterator[None]:
    """Let SIGTERM (a batch system, `timeout`) unwind the stack like Ctrl-C does, so that no temporary file is left."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(EXIT_TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may decide about signals
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
