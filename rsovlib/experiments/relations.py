"""Relations that a paper's own numbers must satisfy: averages, gains, weighted means, the same number in two places.

They need no data and no weights. Printed numbers are rounded, so each relation has a tolerance that follows from how
many decimals were printed; what lies outside of it is a slip in the paper, or in its transcription.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsovlib.errors import unknown_name
from rsovlib.experiments.papers import PaperTable, load_paper, paper_table

if TYPE_CHECKING:
    import pandas as pd

_EXACT = 1e-9


@dataclass(frozen=True)
class Relation:
    """One printed number, and what the paper's other numbers say that it must be.

    Attributes:
        where: the number's place, ``"Table 1, CASS, average"``.
        rule: what it must equal, in words.
        printed: the number.
        computed: from the others.
        tolerance: what rounding explains.
    """

    where: str
    rule: str
    printed: float
    computed: float
    tolerance: float

    @property
    def difference(self) -> float:
        """Printed minus computed."""
        return self.printed - self.computed

    @property
    def holds(self) -> bool:
        """Whether rounding explains the difference."""
        return abs(self.difference) <= self.tolerance + _EXACT


def relations(paper: str) -> list[Relation]:
    """All relations of a paper that this package knows.

    Args:
        paper: ``"sdci"``, ``"mm-ovseg"`` or ``"scenario-sampling"``.

    Raises:
        InputError: no relations are known of that paper.
    """
    if paper not in _KNOWN:
        raise unknown_name("paper with known relations", paper, _KNOWN)
    return list(_KNOWN[paper]())


def relations_frame(found: Iterable[Relation], digits: int = 3) -> pd.DataFrame:
    """As a table, rounded for reading."""
    import pandas as pd

    columns = ["where", "rule", "printed", "computed", "difference", "tolerance", "holds"]
    rows = [
        (
            one.where,
            one.rule,
            one.printed,
            round(one.computed, digits),
            round(one.difference, digits),
            round(one.tolerance, digits),
            one.holds,
        )
        for one in found
    ]
    return pd.DataFrame(rows, columns=columns).set_index("where")


def means(table: PaperTable, target: str, columns: Sequence[str], step: float) -> Iterator[Relation]:
    """A column that is the mean of others, row by row.

    Args:
        table: with all these columns.
        target: the column of means.
        columns: whose mean it is.
        step: smallest printed difference, 0.01 for two decimals; each number is off by half of it at most.
    """
    for row in table.rows:
        values = [value for column in columns if (value := table.value(row, column)) is not None]
        printed = table.value(row, target)
        if printed is not None and len(values) == len(columns):
            yield Relation(
                f"{_place(table)}, {row}, {target}",
                f"mean of {len(columns)} columns",
                printed,
                math.fsum(values) / len(values),
                step,
            )


def gains(
    printed: PaperTable, numbers: PaperTable, reference: Callable[[str], float], rule: str, step: float
) -> Iterator[Relation]:
    """Printed gains against the difference of a number and a reference.

    Args:
        printed: the gains.
        numbers: what they are gains of, with the same rows and columns.
        reference: column -> the number that the gain is above.
        rule: the reference in words.
        step: smallest printed difference; three rounded numbers meet.
    """
    for row, column, gain in printed.cells():
        value = numbers.value(row, column)
        if value is not None:
            yield Relation(f"{_place(printed)}, {row}, {column}", rule, gain, value - reference(column), 1.5 * step)


def same(
    first: PaperTable, second: PaperTable, places: Iterable[tuple[tuple[str, str], tuple[str, str]]]
) -> Iterator[Relation]:
    """The same number in two tables.

    Args:
        first: one table.
        second: the other.
        places: (row, column) of the first and of the second.
    """
    for one, other in places:
        left, right = first.value(*one), second.value(*other)
        if left is not None and right is not None:
            rule = f"the same number as in {_place(second)}"
            yield Relation(f"{_place(first)}, {one[0]}, {one[1]}", rule, left, right, 0.0)


def best_of(table: PaperTable, rows: Sequence[str]) -> Callable[[str], float]:
    """Column -> the largest number of some rows."""
    return lambda column: max(value for row in rows if (value := table.value(row, column)) is not None)


# ---- what is known of each paper ----------------------------------------------------------------------------------


def _sdci() -> Iterator[Relation]:
    paper, table = load_paper("sdci"), paper_table("sdci", "table1")
    measured = table.columns[:9]
    yield from means(table, "average", measured, 0.01)
    compared = best_of(table, paper.facts["compared"])
    yield from gains(paper_table("sdci", "table1-gains"), table, compared, "gain above the best compared method", 0.01)
    text = paper_table("sdci", "gflops-text")
    yield from same(table, text, [((row, "GFLOPs"), (row, "GFLOPs")) for row in text.rows])
    ablation = paper_table("sdci", "table2")
    yield from gains(
        paper_table("sdci", "table2-gains"),
        ablation,
        lambda column: ablation.row("baseline")[ablation.columns.index(column)] or math.nan,
        "gain above the baseline",
        0.01,
    )
    ends = {"+ CSCP (DINO-v1)": "SDCI-v1", "+ CSCP (DINO-v2)": "SDCI-v2"}
    yield from same(
        ablation,
        table,
        [((step, column), (row, f"GID {column}")) for step, row in ends.items() for column in ("ori", "gen")],
    )


def _mm_ovseg() -> Iterator[Relation]:
    paper = load_paper("mm-ovseg")
    settings = tuple(paper.facts["settings"])
    for name in ("table2", "tableA3-unseen", "tableA3-seen", "tableA4"):
        yield from means(paper.tables[name], "mean", settings, 0.1)
    yield from _weighted(paper.tables["table2"], paper.tables["tableA3-unseen"], paper.tables["tableA3-seen"])
    classes = paper.tables["table3"]
    yield from means(classes, "mIoU", classes.columns[:5], 0.1)
    groups = paper.facts["ddhr_sk"]
    for row, other in {"MM-OVSeg": "MM-OVSeg", "without CMU and DEF": "GSNet"}.items():
        for group, part in (("seen", "tableA3-seen"), ("unseen", "tableA3-unseen")):
            printed = paper.tables[part].value(other, "s2")
            values = [classes.value(row, name) or math.nan for name in groups[group]]
            if printed is not None:
                rule = f"mean of Table 3's {group} classes, row {row}"
                place = f"{_place(paper.tables[part])}, {other}, s2, {group}"
                yield Relation(place, rule, printed, math.fsum(values) / len(values), 0.1)
    table2, costs, targets = paper.tables["table2"], paper.tables["tableA2"], paper.tables["tableA5"]
    yield from same(
        classes,
        table2,
        [(("MM-OVSeg", "mIoU"), ("MM-OVSeg", "s2")), (("without CMU and DEF", "mIoU"), ("GSNet", "s2"))],
    )
    yield from same(costs, table2, [((row, "mIoU"), (row, "s2")) for row in ("MM-OVSeg", "GSNet")])
    yield from same(
        targets, classes, [(("DINO", "mIoU"), ("MM-OVSeg", "mIoU")), (("neither", "mIoU"), ("without CMU", "mIoU"))]
    )


def _weighted(table: PaperTable, unseen: PaperTable, seen: PaperTable) -> Iterator[Relation]:
    """Table 2 as the mean of Table A3's two numbers, weighted by how many classes stand behind each."""
    for setting, facts in load_paper("mm-ovseg").facts["settings"].items():
        few, many = facts["unseen"], facts["seen"]
        for row in table.rows:
            printed, low, high = (part.value(row, setting) for part in (table, unseen, seen))
            if printed is not None and low is not None and high is not None:
                rule = f"({few} x unseen + {many} x seen) / {few + many} of Table A3"
                mean = (few * low + many * high) / (few + many)
                yield Relation(f"{_place(table)}, {row}, {setting}", rule, printed, mean, 0.1)


def _scenario_sampling() -> Iterator[Relation]:
    """F1 is never below IoU; no number in [0, 1] spreads more than sqrt(m (1 - m)) about its mean m."""
    for table in load_paper("scenario-sampling").tables.values():
        for row in table.rows:
            for way in ("none", "dropout", "lora", "ours"):
                for metric in ("iou", "f1"):
                    mean, spread = (table.value(row, f"{way} {metric}{end}") for end in ("", " std"))
                    if mean is not None and spread is not None:
                        most = math.sqrt((mean + 0.0005) * (1.0005 - mean))
                        rule = "no more than sqrt(m (1 - m))"
                        place = f"{_place(table)}, {row}, {way} {metric} std"
                        # Where the bound holds, the nearest number that satisfies it is the printed one.
                        yield Relation(place, rule, spread, min(spread, most), 0.0015)
                iou, f1 = table.value(row, f"{way} iou"), table.value(row, f"{way} f1")
                if iou is not None and f1 is not None:
                    yield Relation(f"{_place(table)}, {row}, {way} f1", "no less than the IoU", f1, max(f1, iou), 0.0)


_KNOWN: dict[str, Callable[[], Iterator[Relation]]] = {
    "sdci": _sdci,
    "mm-ovseg": _mm_ovseg,
    "scenario-sampling": _scenario_sampling,
}


def _place(table: PaperTable) -> str:
    """The table's own name, without the paper's."""
    return table.source.partition(", ")[2]
