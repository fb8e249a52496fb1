"""What SDCI's own numbers say of its claims: arithmetic, protocols, wordings; no data and no weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import torch

from rsovlib.experiments.findings import Finding, places, relation_row
from rsovlib.experiments.papers import PaperTable, load_paper, paper_table
from rsovlib.experiments.relations import Relation, relations
from rsovlib.experiments.sdci.flops import counted, meta_clip


def sdci_findings() -> list[Finding]:
    """What SDCI's own numbers say of its claims, in the order of its tables."""
    found = {one.where: one for one in relations("sdci")}
    makers: Sequence[Callable[[Mapping[str, Relation]], Finding]] = (
        _averages,
        _gains,
        _marks,
        _borrowed,
        _without_isaid,
        _cass,
        _wording,
        _flops,
        _ablation,
        _share_of_steps,
        _chosen_words,
        _temperature,
        _ground_sampling,
    )
    return [make(found) for make in makers]


# ---- one function a finding ----------------------------------------------------------------------------------------


def _averages(found: Mapping[str, Relation]) -> Finding:
    checked = [one for where, one in found.items() if one.rule.startswith("mean") and where.endswith("average")]
    wrong = [one for one in checked if not one.holds]
    table = paper_table("sdci", "table1")
    isaid = table.value("CASS", "iSAID ori")
    return Finding(
        "averages",
        "The column of averages is the mean of a row's nine numbers.",
        "does not hold" if wrong else "holds",
        f"{len(checked) - len(wrong)} of {len(checked)} rows agree; not {places(wrong)}: the nine numbers give "
        f"{wrong[0].computed:.2f}, and the printed {wrong[0].printed:.2f} is the row's number on iSAID ({isaid}).",
        tuple(relation_row(one) for one in checked),
        "Table 1",
    )


def _gains(found: Mapping[str, Relation]) -> Finding:
    checked = [one for one in found.values() if one.rule == "gain above the best compared method"]
    wrong = [one for one in checked if not one.holds]
    return Finding(
        "gains",
        "The gains printed in Table 1 are above the best compared method of each column.",
        "does not hold" if wrong else "holds",
        f"{len(checked) - len(wrong)} of {len(checked)} agree; not {places(wrong)}: printed "
        f"+{wrong[0].printed:.2f}, the numbers give +{wrong[0].computed:.2f}. A dash stands where there is no gain.",
        tuple(relation_row(one) for one in checked),
        "Table 1, brackets",
    )


def _marks(found: Mapping[str, Relation]) -> Finding:
    del found
    table, rows = paper_table("sdci", "table1"), []
    for column, marks in load_paper("sdci").facts["marks"].items():
        order = sorted(table.rows, key=lambda row: table.value(row, column) or 0.0, reverse=True)
        for mark, row in marks.items():
            # The second best is underlined among the compared methods.
            compared = [name for name in order if name in load_paper("sdci").facts["compared"]]
            right = order[0] if mark == "best" else compared[0]
            rows.append(
                {
                    "column": column,
                    "marked as": mark,
                    "row": row,
                    "its number": table.value(row, column),
                    "should be": right,
                    "that number": table.value(right, column),
                }
            )
    return Finding(
        "marks",
        "Bold is a column's best number, underlined the best of the compared methods.",
        "does not hold",
        f"{len(rows)} marks are on another row than the numbers say.",
        tuple(rows),
        "Table 1, type",
    )


def _borrowed(found: Mapping[str, Relation]) -> Finding:
    del found
    table, other = paper_table("sdci", "table1"), paper_table("sdci", "isaid-elsewhere")
    rows: list[dict[str, Any]] = [
        {
            "method": row,
            "SDCI's Table 1": table.value(row, "iSAID ori"),
            "SegEarth-OV's publication": other.value(row, "iSAID"),
            "equal": table.value(row, "iSAID ori") == other.value(row, "iSAID"),
        }
        for row in other.rows
    ]
    equal = sum(bool(row["equal"]) for row in rows)
    facts = load_paper("sdci").facts
    return Finding(
        "isaid-protocols",
        "The column iSAID compares the methods with each other.",
        "not comparable",
        f"{equal} of its 11 numbers equal, to the last printed digit, those that SegEarth-OV's authors published for "
        f"sixteen classes with background on tiles of 896 pixels; SDCI counts {facts['classes_counted']['isaid']} "
        "classes without background on tiles of 512. That they were copied is inferred from the digits; the paper "
        "doesn't say it.",
        tuple(rows),
        "Table 1, column iSAID",
    )


def _without_isaid(found: Mapping[str, Relation]) -> Finding:
    del found
    table, facts = paper_table("sdci", "table1"), load_paper("sdci").facts
    nine = {row: fmean(_numbers(table, row)[:9]) for row in table.rows}
    eight = {row: fmean(_numbers(table, row)[:8]) for row in table.rows}
    ranks = {name: _ranks(values) for name, values in (("nine", nine), ("eight", eight))}
    rows: list[dict[str, Any]] = [
        {
            "method": row,
            "mean of nine": round(nine[row], 2),
            "rank": ranks["nine"][row],
            "without iSAID": round(eight[row], 2),
            "rank without iSAID": ranks["eight"][row],
        }
        for row in sorted(table.rows, key=eight.__getitem__, reverse=True)
    ]
    gain = {
        name: max(values[row] for row in facts["own"]) - max(values[row] for row in facts["compared"])
        for name, values in (("nine", nine), ("eight", eight))
    }
    leaders = {
        name: max(facts["compared"], key=values.__getitem__) for name, values in (("nine", nine), ("eight", eight))
    }
    moved = sum(ranks["nine"][row] != ranks["eight"][row] for row in table.rows)
    return Finding(
        "average-without-isaid",
        "On average SDCI is ahead of the best compared method, and the average orders the methods.",
        "holds" if min(gain.values()) > 0 else "does not hold",
        f"SDCI is ahead with iSAID (+{gain['nine']:.2f} above {leaders['nine']}) and without it "
        f"(+{gain['eight']:.2f} above {leaders['eight']}); but {moved} of {len(nine)} methods change their rank when "
        "that column of two protocols is left out.",
        tuple(rows),
        "Table 1, average",
    )


def _cass(found: Mapping[str, Relation]) -> Finding:
    del found
    table = paper_table("sdci", "table1")
    rows: list[dict[str, Any]] = [
        {
            "method": row,
            "GID ori": table.value(row, "GID ori"),
            "GID gen": table.value(row, "GID gen"),
            "difference": round((table.value(row, "GID gen") or 0) - (table.value(row, "GID ori") or 0), 2),
        }
        for row in table.rows
    ]
    others = [abs(float(row["difference"])) for row in rows if row["method"] != "CASS"]
    return Finding(
        "cass-gid",
        "CASS has the same mIoU on GID whichever words are asked for.",
        "unclear",
        f"{table.value('CASS', 'GID ori')} stands in both columns; every other method moves by {min(others):.2f} to "
        f"{max(others):.2f} points. Nothing in CASS makes it blind to the words, so one of the two cells is probably a "
        "copy; which one can't be told.",
        tuple(rows),
        "Table 1, CASS",
    )


def _wording(found: Mapping[str, Relation]) -> Finding:
    del found
    table, facts = paper_table("sdci", "table1"), load_paper("sdci").facts
    rows: list[dict[str, Any]] = []
    for name in ("GID", "Potsdam", "Vaihingen", "LoveDA"):
        shifts = [
            (table.value(row, f"{name} gen") or math.nan) - (table.value(row, f"{name} ori") or math.nan)
            for row in table.rows
        ]
        for wording in ("ori", "gen"):
            column = f"{name} {wording}"
            ahead = max(table.value(row, column) or 0 for row in facts["own"]) - max(
                table.value(row, column) or 0 for row in facts["compared"]
            )
            rows.append(
                {
                    "column": column,
                    "SDCI ahead by": round(ahead, 2),
                    "change by wording, median": round(sorted(shifts)[len(shifts) // 2], 2),
                    "smallest": round(min(shifts), 2),
                    "largest": round(max(shifts), 2),
                }
            )
    larger = sum(
        max(abs(float(row["smallest"])), abs(float(row["largest"]))) > float(row["SDCI ahead by"]) for row in rows
    )
    return Finding(
        "wording",
        "Differences in the table are differences between methods.",
        "not comparable",
        f"In {larger} of {len(rows)} columns the choice of words moves at least one method by more than SDCI is ahead. "
        "Only numbers of one column, with the same words for all, compare methods.",
        tuple(rows),
        "Table 1, ori and gen",
    )


def _flops(found: Mapping[str, Relation]) -> Finding:
    checked = [one for where, one in found.items() if where.endswith("GFLOPs")]
    offsets = sorted({round(one.difference, 2) for one in checked})
    text_tower: Any = meta_clip("L/14").model.encode_text
    prompt = counted(lambda: text_tower(torch.empty(1, 77, dtype=torch.long, device="meta")))
    return Finding(
        "gflops-offset",
        "The running text and Table 1 give the same GFLOPs for SDCI.",
        "does not hold" if offsets != [0.0] else "holds",
        f"The table is higher by {' and '.join(f'{offset:.2f}' for offset in offsets)} GFLOP for both versions. One "
        f"prompt through ViT-L/14's text encoder costs {prompt:.2f} GFLOP, so two of them would explain "
        f"{2 * prompt:.2f}; that it was so is a guess. The notebook sdci_gflops takes the numbers apart.",
        tuple(relation_row(one) for one in checked),
        "Table 1, GFLOPs; running text",
    )


def _ablation(found: Mapping[str, Relation]) -> Finding:
    checked = [
        one
        for one in found.values()
        if one.rule == "gain above the baseline" or "same number as in Table 1" in one.rule
    ]
    wrong = [one for one in checked if not one.holds]
    return Finding(
        "ablation",
        "Table 2's gains are above its baseline, and its last rows are Table 1's.",
        "does not hold" if wrong else "holds",
        f"All {len(checked)} numbers agree." if not wrong else f"Not {places(wrong)}.",
        tuple(relation_row(one) for one in checked),
        "Table 2",
    )


def _share_of_steps(found: Mapping[str, Relation]) -> Finding:
    del found
    table = paper_table("sdci", "table2")
    order = ["baseline", "baseline + CAF", "+ BCDR", "+ CSCP (DINO-v1)"]
    rows: list[dict[str, Any]] = [
        {
            "step": row,
            **{
                column: round((table.value(row, column) or 0) - (table.value(before, column) or 0), 2)
                for column in table.columns
            },
        }
        for before, row in itertools.pairwise(order)
    ]
    largest = {column: max(rows, key=lambda row: float(row[column]))["step"] for column in table.columns}
    most = ", ".join(f"{step} for {column}" for column, step in largest.items())
    return Finding(
        "steps-by-wording",
        "The ablation shows how much each step adds.",
        "unclear",
        f"Which step adds most depends on the words: {most}. There is one dataset, no interval "
        "and no second seed, and how rows 1 to 4 decide isn't said.",
        tuple(rows),
        "Table 2, differences of successive rows",
    )


def _chosen_words(found: Mapping[str, Relation]) -> Finding:
    del found
    table = paper_table("sdci", "table2")
    rows: list[dict[str, Any]] = [
        {
            "row": row,
            "gen": table.value(row, "gen"),
            "set of gen": table.value(row, "set_of_gen"),
            "gen above the set": round((table.value(row, "gen") or 0) - (table.value(row, "set_of_gen") or 0), 2),
        }
        for row in table.rows
    ]
    final = rows[-2:]
    return Finding(
        "chosen-words",
        "The generalised wording is a fair second setting.",
        "unclear",
        f"One word or list a class, chosen from a set, is worth {final[0]['gen above the set']:+.2f} (v1) and "
        f"{final[1]['gen above the set']:+.2f} points (v2) above the set itself, and "
        f"{rows[0]['gen above the set']:+.2f} for the baseline. How the words were chosen, and on which "
        "images, isn't said; if it was on the test images, "
        "the column is optimistic for whichever method they were chosen with.",
        tuple(rows),
        "Tables 2 and 3",
    )


def _temperature(found: Mapping[str, Relation]) -> Finding:
    del found
    given = load_paper("sdci").facts["tau"]
    rows: list[dict[str, Any]] = [
        {
            "cosine less than the best neighbour's by": gap,
            **{
                f"weight against it, tau = {tau} ({where})": float(f"{math.exp(-gap / tau):.3g}")
                for where, tau in given.items()
            },
        }
        for gap in (0.0, 0.05, 0.1, 0.2, 0.5)
    ]
    return Finding(
        "tau",
        "The graph's temperature tau is given.",
        "does not hold",
        f"The main text has {given['main text']}, the appendix {given['appendix']}: with the former a neighbour whose "
        f"cosine is lower by 0.2 counts {math.exp(-0.2 / given['main text']):.2f} times as much as the best, with the "
        f"latter {math.exp(-0.2 / given['appendix']):.2f} times: plain averaging. The released program has the main "
        "text's.",
        tuple(rows),
        "Equation 12; appendix",
    )


def _ground_sampling(found: Mapping[str, Relation]) -> Finding:
    del found
    from rsovlib.data.manifest import load_manifest

    rows: list[dict[str, Any]] = []
    for name, printed in load_paper("sdci").facts["gsd_m"].items():
        published = {modality.gsd_m for modality in load_manifest(name).modalities.values() if modality.gsd_m}
        rows.append(
            {
                "dataset": name,
                "printed (m)": printed,
                "publisher (m)": min(published),
                "factor": round(printed / min(published), 2),
            }
        )
    return Finding(
        "ground-sampling",
        "Potsdam and Vaihingen are introduced with their ground sampling distances.",
        "does not hold" if any(row["factor"] != 1 for row in rows) else "holds",
        f"Both are printed {rows[0]['factor']:g} times as coarse as the publisher says.",
        tuple(rows),
        "Datasets",
    )


# ---- details -------------------------------------------------------------------------------------------------------


def _numbers(table: PaperTable, row: str) -> list[float]:
    return [math.nan if value is None else value for value in table.row(row)]


def _ranks(values: Mapping[str, float]) -> dict[str, int]:
    order = sorted(values, key=values.__getitem__, reverse=True)
    return {name: order.index(name) + 1 for name in values}
