"""The main job from the shell: run the quickstart notebook through papermill and say where its results are.

``python -m rsovlib.experiments.demo [--image scene.tif --classes "water; forest"] [--out runs/demo]``; the Makefile's
``make demo`` calls it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsovlib.errors import InputError, OutputError, RsovError
from rsovlib.files import write_beside
from rsovlib.resources import resource

#: Exit codes: bad input of the user's, and a notebook that failed by itself.
BAD_INPUT, FAILED = 2, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(prog="rsovlib demo", description="Run the quickstart notebook on a scene.")
    parser.add_argument("--image", default="", help="a raster; without it a scene is simulated")
    parser.add_argument("--classes", default="", help='"water, river; forest"; without it seven kinds of land')
    parser.add_argument("--out", default="runs/demo", help="folder for the results (default: %(default)s)")
    parser.add_argument("--profile", default="embedded", help="embedded or full (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        started = time.perf_counter()
        _check(options.image, options.classes, options.profile)
        folder = Path(options.out).resolve()
        notebook = run_notebook(
            resource("notebooks/quickstart.ipynb"),
            folder / "quickstart.ipynb",
            {
                "image": str(Path(options.image).resolve()) if options.image else "",
                "classes": options.classes,
                "profile": options.profile,
                "out": str(folder),
            },
        )
        from rsovlib.experiments.pages import write_html  # nbconvert takes a second; bad input is told before

        page = write_html(notebook, folder / "quickstart.html")
        _print_results(notebook, page, folder, time.perf_counter() - started)
    except RsovError as error:
        print(f"rsovlib: {error}", file=sys.stderr)
        return BAD_INPUT
    except NotebookError as error:
        print(f"rsovlib: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 130
    return 0


class NotebookError(Exception):
    """A cell of a notebook failed for another reason than the user's input."""


def run_notebook(source: Path, target: Path, parameters: dict[str, Any]) -> Path:
    """Execute a notebook with papermill; it stands at ``target`` only when every cell ran.

    Args:
        source: the notebook.
        target: where the executed one is put.
        parameters: values for its ``parameters`` cell.

    Raises:
        InputError: a cell raised one of rsovlib's own errors; its sentence is passed on.
        NotebookError: a cell failed otherwise, or the kernel died.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    # Without it every kernel start prints a warning about unencrypted TCP on this machine's own loopback.
    quiet = Config({"KernelManager": {"transport_encryption": "auto"}})
    with write_beside(target) as temporary:
        try:
            papermill.execute_notebook(
                str(source), str(temporary), parameters, kernel_name="python3", config=quiet, log_output=False
            )
        except PapermillExecutionError as error:
            if error.ename in _own_errors():
                raise InputError(error.evalue) from error
            raise NotebookError(f"{source.name}, cell {error.exec_count}: {error.ename}: {error.evalue}") from error
        except DeadKernelError as error:
            raise NotebookError(f"{source.name}: the kernel died, most likely for lack of memory.") from error
    return target


def _check(image: str, classes: str, profile: str) -> None:
    """Refuse bad input before a kernel is started: the sentence comes at once."""
    from rsovlib.data.classes import parse_classes
    from rsovlib.data.raster import open_scene
    from rsovlib.errors import unknown_name

    if profile not in ("embedded", "full"):
        raise unknown_name("profile", profile, ("embedded", "full"))
    if classes:
        parse_classes(classes)
    if image:
        with open_scene(image) as scene:
            scene.require_data()


def _own_errors() -> set[str]:
    """Names of rsovlib's error classes, as a failed cell reports them."""
    names, waiting = set(), [RsovError]
    while waiting:
        found = waiting.pop()
        names.add(found.__name__)
        waiting.extend(found.__subclasses__())
    return names


def _print_results(notebook: Path, page: Path, folder: Path, seconds: float) -> None:
    print(_ladder_text(notebook), end="")
    rows = {
        "class map (GeoTIFF)": folder / "map.tif",
        "picture": folder / "map.png",
        "HTML page": page,
        "executed notebook": notebook,
    }
    missing = [path for path in rows.values() if not path.is_file()]
    if missing:
        raise OutputError(f"The quickstart ran but left no {missing[0]}; remove the folder and run it again.")
    print(f"\nDone in {seconds:.0f} s:")
    for title, path in rows.items():
        print(f"  {title:20s} {_short(path)}")


def _ladder_text(notebook: Path) -> str:
    """The ladder's table as the notebook printed it, or nothing where there were no labels."""
    import nbformat

    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "code" and "ladder_table(" in cell.source:
            for output in cell.outputs:
                # The progress bar is an output of the same cell.
                if "mIoU" in output.get("data", {}).get("text/plain", ""):
                    return f"\nWhat each step of the method is worth (percent):\n{output.data['text/plain']}\n"
    return ""


def _short(path: Path) -> str:
    """Relative to the current folder where it lies below it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


if __name__ == "__main__":
    sys.exit(main())
