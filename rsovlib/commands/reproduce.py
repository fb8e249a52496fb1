"""``rsovlib reproduce``: run the papers' tables, here or on a cluster, as far as they aren't finished."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rsovlib.experiments.reproduction import Summary

EXIT_FAILED = 1
"""A run failed, or none could be run: not a mistake of the user, so not 2."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the command and its options."""
    parser = commands.add_parser(
        "reproduce",
        help="run the papers' tables, each run only if it isn't finished",
        description="Run the notebooks behind the tables. What is finished isn't run again; after a kill, a failure "
        "or Ctrl-C the same command goes on. The exit code is 1 where a run failed.",
        epilog="Example: rsovlib reproduce sdci-table2 --workers 2 -p scenes=4",
    )
    parser.add_argument(
        "tables",
        nargs="*",
        metavar="TABLE",
        help="names from --list, or a paper's for all its tables, such as sdci (default: all that are quick)",
    )
    parser.add_argument("--list", action="store_true", help="print what there is to run, and run nothing")
    parser.add_argument(
        "--profile",
        default="embedded",
        help='"embedded": small models and simulated scenes; "full": the papers\' weights and data '
        "(default: %(default)s)",
    )
    where = parser.add_argument_group("where it runs")
    where.add_argument(
        "--workers", type=int, metavar="N", help="processes on this machine (default: one for two cores)"
    )
    where.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask scheduler, such as tcp://host:8786")
    where.add_argument("--threads", type=int, metavar="N", help="for each run (default: the cores shared out evenly)")
    where.add_argument("--out", default="runs", metavar="DIR", help="folder of all runs (default: %(default)s)")
    what = parser.add_argument_group("what is run")
    what.add_argument("--seeds", type=_seeds, metavar="0,1,2", help="in place of the tables' own")
    what.add_argument(
        "-p",
        dest="parameters",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of the notebooks; TABLE.NAME=VALUE for one table only; may be given several times",
    )
    what.add_argument("-f", dest="file", metavar="FILE.yaml", help="parameters from a file")
    what.add_argument("--force", action="store_true", help="run again what is finished")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, and only failures are printed")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Run the tables; the exit code is 1 if a run failed or none could be run."""
    if options.list:
        _print_tables()
        return 0
    from rsovlib.commands.reproduce_signals import ending_promptly

    with ending_promptly():
        from rsovlib.experiments.parameters import read_parameters, split_assignments
        from rsovlib.experiments.reproduction import reproduce

        summary = reproduce(
            options.tables,
            profile=options.profile,
            workers=options.workers,
            scheduler=options.scheduler,
            threads=options.threads,
            seeds=options.seeds,
            parameters=read_parameters(options.file) if options.file else None,
            texts=split_assignments(options.parameters),
            out=options.out,
            force=options.force,
            # In a file a bar is a mess; the lines then say how far it is.
            progress=not options.quiet and sys.stderr.isatty(),
            tell=None if options.quiet else _print_line,
        )
    _print_failures(summary)
    if not options.quiet:
        _print_end(summary)
    return 0 if summary.is_good else EXIT_FAILED


def _print_line(text: str) -> None:
    print(text, flush=True)


def _print_tables() -> None:
    from rsovlib.experiments.tables import load_tables

    rows = [("NAME", "PAPER", "KIND", "PROFILES", "TITLE")]
    for name, entry in load_tables().items():
        title = f"{entry.title} (only by name)" if entry.by_name else entry.title
        rows.append((name, entry.paper or "-", entry.kind, ", ".join(sorted(entry.profiles)), title))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _print_failures(summary: Summary) -> None:
    """What failed: the notebook, the cell, the last line of the error, and where more of it is."""
    from rsovlib.experiments.runs import FAILED, KERNEL_LOG, NOTEBOOK

    for unit, outcome in summary.failures():
        print(f"\n{outcome.state}: {unit.label}")
        folder = summary.out / FAILED / unit.name
        places = {
            "notebook": unit.notebook_name,
            "cell": outcome.cell,
            "error": outcome.reason,
            "executed": folder / NOTEBOOK,
            "log": folder / KERNEL_LOG,
        }
        for name, place in places.items():
            if place and (not isinstance(place, Path) or (place.is_file() and place.stat().st_size)):
                print(f"  {name:8s}  {place}")


def _print_end(summary: Summary) -> None:
    """What couldn't be run, the numbers, and where to go from here."""
    from rsovlib.experiments.digits import counted, duration
    from rsovlib.experiments.gather import CSV
    from rsovlib.experiments.reproduction import count_states

    reasons: dict[str, list[str]] = {}
    for unit, outcome in summary.not_run():
        reasons.setdefault(outcome.reason, []).append(unit.table)
    for reason, tables in reasons.items():
        print(f"\nnot run: {', '.join(dict.fromkeys(tables))}\n  {reason}")
    states = count_states(summary.outcomes.values())
    print(f"\n{counted(len(summary.units), 'run')} in {duration(summary.seconds)}: {states}")
    if summary.count("finished", "kept"):
        print(f"  results  {summary.out / CSV}")
        print(f"  next     rsovlib report --out {shlex.quote(str(summary.out))}")
    if summary.failures():
        print("  again    the same command runs what failed, and nothing else")


def _seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers such as 0,1,2") from None
