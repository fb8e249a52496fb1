"""``rsovlib weights``: which weights there are, and whether they are here and unaltered."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from rsovlib.backbones.registry import NamedWeights


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the command and its actions."""
    parser = commands.add_parser(
        "weights",
        help="the weights that rsovlib knows: where they come from and whether they are here",
        description="The weights that rsovlib knows by name.",
    )
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="all names, with kind, licence, and whether they are on this machine")
    listing.set_defaults(command=list_weights)
    check = actions.add_parser("check", help="compare the files that are here with their checksums")
    check.add_argument("name", nargs="?", metavar="NAME", help="only this one")
    check.set_defaults(command=check_weights)
    show = actions.add_parser("show", help="everything about one")
    show.add_argument("name", metavar="NAME")
    show.set_defaults(command=show_weights)


def list_weights(options: argparse.Namespace) -> int:
    """Print a line for each name."""
    from rsovlib.backbones import registry

    rows = [("NAME", "KIND", "ARCHITECTURE", "HERE", "LICENCE", "USE")]
    for entry in registry.list_weights():
        here = "no" if _local_copy(entry) is None else "yes"
        rows.append((entry.name, entry.kind, entry.architecture, here, entry.licence, entry.use))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


def show_weights(options: argparse.Namespace) -> int:
    """Print all that is known of one name."""
    import dataclasses

    from rsovlib.backbones import registry

    entry = registry.get(options.name)
    facts = {key: value for key, value in dataclasses.asdict(entry).items() if value != ""}
    facts["here"] = _local_copy(entry) or f"no; it would be kept in {registry.cache_folder()}"
    width = max(len(key) for key in facts)
    for key, value in facts.items():
        print(f"{key.ljust(width)}  {value}")
    return 0


def check_weights(options: argparse.Namespace) -> int:
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
    return 0


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
