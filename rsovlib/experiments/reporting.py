"""All tables on one page: the papers' numbers, ours, and what they say of each other.

The page needs nothing from the network and nothing but the folder of the runs beside it, whose executed notebooks it
links to. Numbers come from the rows of finished runs only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rsovlib.errors import InputError
from rsovlib.experiments import digits
from rsovlib.experiments.comparison import MEANINGS, SEEDS_RULE
from rsovlib.experiments.gather import gather_results
from rsovlib.experiments.report_grids import SIGNS
from rsovlib.experiments.report_lists import list_numbers, list_runs
from rsovlib.experiments.report_overview import WORDS, by_paper, facts, held, missing
from rsovlib.experiments.report_sections import GAIN, Section, counts, in_order, read_sections
from rsovlib.experiments.runs import FINISHED, NOTEBOOK, PAGE
from rsovlib.experiments.tables import load_tables
from rsovlib.files import write_beside

__all__ = ["GAIN", "Report", "write_report"]

HTML, MARKDOWN = "report.html", "report.md"
USUAL_PLACE = "runs"
"""Where the commands look without ``--out``."""


@dataclass(frozen=True)
class Report:
    """A written report.

    Attributes:
        page: the HTML file.
        markdown: the same in Markdown.
        sections: what stands in both.
    """

    page: Path
    markdown: Path
    sections: tuple[Section, ...]

    def counts(self) -> dict[str, int]:
        """How many numbers have each verdict."""
        return counts(line for section in self.sections for line in section.lines)

    def summary(self) -> str:
        """One line for a terminal."""
        found = ", ".join(f"{count} {word or 'without a number in a paper'}" for word, count in self.counts().items())
        return f"{digits.counted(len(self.sections), 'table')}; {found or 'no number'}"


def write_report(out: str | os.PathLike[str] = USUAL_PLACE, folder: str | os.PathLike[str] | None = None) -> Report:
    """Write ``report.html`` and ``report.md`` beside the runs.

    Args:
        out: folder of all runs.
        folder: of other tables' YAML files than rsovlib's.

    Returns:
        Where they are, and what stands in them.

    Raises:
        InputError: there is no such folder, or something in it can't be read.
    """
    place = Path(out)
    if not place.is_dir():
        raise InputError(f"There is no folder {place}; run `rsovlib reproduce --out {place}` first.")
    gather_results(place)
    given = "" if str(out) == USUAL_PLACE else str(out)
    sections = tuple(in_order(read_sections(place, load_tables(folder), given)))
    report = Report(place / HTML, place / MARKDOWN, sections)
    content = {
        "papers": by_paper(sections),
        "sections": sections,
        "facts": facts(sections),
        "held": held(sections),
        "words": WORDS,
        "missing": missing(sections, given),
        "counts": report.counts(),
        "meanings": MEANINGS,
        "rules": (SEEDS_RULE, digits.CUT_RULE),
        "signs": SIGNS,
        "costs": list_runs([run for section in sections for run in section.runs]),
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    for path, template in ((report.page, "report.html.j2"), (report.markdown, "report.md.j2")):
        text = _environment(html=path == report.page).get_template(template).render(content)
        with write_beside(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return report


def _environment(*, html: bool) -> Any:
    """Templates with the filters that they use; text is escaped for where it goes."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("rsovlib.experiments", "templates"),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": digits.number,
        "interval": digits.interval,
        "duration": digits.duration,
        "metric": digits.metric_name,
        "listing": list_numbers,
        "page": lambda run: quote(f"{FINISHED}/{run}/{PAGE}"),
        "notebook": lambda run: quote(f"{FINISHED}/{run}/{NOTEBOOK}"),
        "cell": lambda text: str(text).replace("|", "\\|").replace("\n", " "),
        "sign": lambda word: SIGNS[word],
        "unit": lambda grid: digits.unit_name(grid.metric, grid.unit),
        "slug": lambda text: text.replace(" ", "-"),
    }
    return environment
