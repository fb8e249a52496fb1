"""``rsovlib report``: the papers' tables beside what was measured, as one page."""

from __future__ import annotations

import argparse


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the command and its options."""
    parser = commands.add_parser(
        "report",
        help="the papers' tables beside what was measured here, as an HTML page and as Markdown",
        description="Set what `rsovlib reproduce` measured beside the papers' numbers: report.html and report.md "
        "in the folder of the runs.",
    )
    parser.add_argument("--out", default="runs", metavar="DIR", help="folder of the runs (default: %(default)s)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Write the report; the exit code is 0."""
    from rsovlib.experiments.reporting import write_report

    report = write_report(options.out)
    if not options.quiet:
        print(report.summary())
        print(f"page: {report.page}")
        print(f"Markdown: {report.markdown}")
    return 0
