"""The report's first screen: what was run, what holds, what is missing, and which command gets it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rsovlib.experiments.digits import counted, duration
from rsovlib.experiments.papers import load_paper, paper_names
from rsovlib.experiments.report_sections import RunLine, Section, reproduce_command
from rsovlib.experiments.tables import PROFILES

CLAIM = re.compile(r"(holds|the opposite holds|unclear|not measured): (.+)")
"""How a notebook notes what it finds of a claim in one cell, see :func:`rsovlib.experiments.sdci.verdicts.word_of`."""

WORDS = ("holds", "the opposite holds", "does not hold", "unclear", "not comparable", "not measured")
"""What is found of claims, in the order of the columns."""

ALL_FINDINGS = "all findings"
"""The row in which :func:`rsovlib.experiments.findings.record_findings` counts what is found."""

_PROFILE_TEXTS = {
    "embedded": "small models that ship with rsovlib, simulated scenes; numbers show how the methods work, and aren't "
    "comparable with the papers'",
    "full": "the papers' weights and data",
}


@dataclass(frozen=True)
class Held:
    """What one notebook finds of a paper's claims.

    Attributes:
        section: of the notebook.
        claims: text, and how often what was found of it.
    """

    section: Section
    claims: tuple[tuple[str, Counter[str]], ...]

    @property
    def total(self) -> Counter[str]:
        """Of all claims together."""
        found: Counter[str] = Counter()
        for _, one in self.claims:
            found += one
        return found

    @property
    def run(self) -> str:
        """The run whose notebook says it."""
        return next(run.name for run in self.section.runs if run.is_finished)


@dataclass(frozen=True)
class Missing:
    """Something that is missing in several tables.

    Attributes:
        profile: in which.
        reason: why, as exactly as it is known.
        sections: which tables.
        command: what gets them; "" where something else is needed first.
    """

    profile: str
    reason: str
    sections: tuple[Section, ...]
    command: str


def facts(sections: Sequence[Section]) -> list[tuple[str, str]]:
    """What ran, how long, and with what: titles and texts."""
    runs = [run for section in sections for run in section.runs]
    done = [run for run in runs if run.is_finished]
    if not done:
        return [("runs", "none is finished")]
    others = Counter(run.state for run in runs if not run.is_finished)
    seconds = sum(run.seconds or 0.0 for run in done)
    return [
        ("runs", ", ".join([f"{len(done):,} finished", *(f"{count} {state}" for state, count in others.items())])),
        ("time", f"{duration(seconds)} of notebooks, begun {_span([run.started for run in done])} UTC"),
        *(
            ("profile", f"{name}: {_PROFILE_TEXTS[name]}")
            for name in PROFILES
            if any(run.profile == name for run in done)
        ),
        ("machine", _each(done, _machine)),
        ("device", ", ".join(_devices(sections)) or "not recorded"),
        ("rsovlib", _each(done, _sources)),
        ("libraries", _each(done, _libraries)),
    ]


def _span(times: Sequence[str]) -> str:
    """From the first to the last, with the day once where it is the same."""
    first, last = min(times), max(times)
    if first == last:
        return first
    day, _, hour = last.partition(" ")
    return f"from {first} to {hour if first.startswith(day) else last}"


def _each(runs: Sequence[RunLine], text: Callable[[RunLine], str]) -> str:
    """What all runs share; where they differ, what each group has."""
    found = Counter(text(run) for run in runs)
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{one} ({counted(count, 'run')})" for one, count in found.most_common())


def _machine(run: RunLine) -> str:
    return f"{run.processor}, {counted(run.threads, 'thread')} a run" if run.threads else run.processor


def _sources(run: RunLine) -> str:
    version = (run.libraries or {}).get("rsovlib", "")
    commit = f", commit {run.commit.replace('+changes', ' with changes')}" if run.commit else ""
    return f"{version}, code {run.code}{commit}"


def _libraries(run: RunLine) -> str:
    return ", ".join(f"{name} {version}" for name, version in (run.libraries or {}).items() if name != "rsovlib")


def _devices(sections: Iterable[Section]) -> list[str]:
    lines = (line for section in sections for line in section.lines)
    return sorted({line.measured.device for line in lines if line.measured is not None and line.measured.device})


def held(sections: Iterable[Section]) -> list[Held]:
    """The notebooks that judge claims, and what they find of them."""
    found = []
    for section in sections:
        claims: dict[str, Counter[str]] = {}
        for line in section.lines:
            match = CLAIM.fullmatch(line.note)
            if match:
                claims.setdefault(match.group(2), Counter())[match.group(1)] += 1
            elif line.row == ALL_FINDINGS and line.column in WORDS and line.measured is not None:
                claims.setdefault(section.short_title, Counter())[line.column] += round(line.measured.value)
        one = Held(section, tuple(claims.items()))
        # "not measured: ..." alone is no verdict: costs say so of their energy.
        if section.finished and set(one.total) - {"not measured"}:
            found.append(one)
    return found


def missing(sections: Sequence[Section], place: str = "") -> list[Missing]:
    """What is missing, said once for all tables that lack the same.

    Args:
        sections: all.
        place: for the commands, see :func:`rsovlib.experiments.report_sections.read_sections`.
    """
    groups: dict[tuple[str, str, bool, str], list[Section]] = {}
    for section in sections:
        for gap in section.gaps:
            if gap.obtainable:
                # What a paper's tables lack together is said once; data may be of several papers.
                paper = section.entry.paper if gap.command else ""
                groups.setdefault((gap.profile, gap.reason, bool(gap.command), paper), []).append(section)
    found = [
        Missing(
            profile,
            reason,
            tuple(own),
            reproduce_command([section.entry.name for section in own], profile, place) if by_command else "",
        )
        for (profile, reason, by_command, _), own in groups.items()
    ]
    # What somebody began, what a command gets, and what needs something else first.
    return sorted(found, key=lambda one: (not one.command, not any(section.started for section in one.sections)))


@dataclass(frozen=True)
class PaperPart:
    """The sections of one paper.

    Attributes:
        short: what people call the paper.
        title: of the paper, with its place.
        sections: in order.
    """

    short: str
    title: str
    sections: tuple[Section, ...]


def by_paper(sections: Sequence[Section]) -> list[PaperPart]:
    """The sections of each paper, in the order in which they come."""
    papers: dict[str, list[Section]] = {}
    for section in sections:
        papers.setdefault(section.entry.paper, []).append(section)
    return [PaperPart(*_titles(paper, own), tuple(own)) for paper, own in papers.items()]


def _titles(name: str, sections: Sequence[Section]) -> tuple[str, str]:
    """How a paper is called in short, as its tables' titles write it, and its title with its place."""
    if not name:
        return "Beside the papers", "Beside the papers"
    titles = (section.entry.title[: len(name)] for section in sections)
    short = next((title for title in titles if title.lower() == name), name)
    if name not in paper_names():
        return short, short
    paper = load_paper(name)
    return short, f"{paper.title}{f' (arXiv {paper.arxiv})' if paper.arxiv else ''}"
