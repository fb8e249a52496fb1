"""What MM-OVSeg's own tables say of its claims, and all findings about it together."""

from __future__ import annotations

import math
from statistics import fmean
from typing import Any

from rsovlib.experiments.findings import Finding, places, relation_row
from rsovlib.experiments.fusion import released as released_mmovseg
from rsovlib.experiments.papers import PaperTable, load_paper, paper_table
from rsovlib.experiments.relations import relations


def mmovseg_findings() -> list[Finding]:
    """All findings: first the networks, then the program, then the tables."""
    return [
        released_mmovseg.parameters(),
        released_mmovseg.position_tables(),
        released_mmovseg.parts(),
        released_mmovseg.patches(),
        released_mmovseg.alignment(),
        released_mmovseg.negatives(),
        released_mmovseg.names(),
        released_mmovseg.orders(),
        _weighted(),
        _modules(),
        _clouds(),
        _where_the_gain_is(),
        _budgets(),
    ]


def _weighted() -> Finding:
    checked = [one for one in relations("mm-ovseg") if "of Table A3" in one.rule]
    wrong = [one for one in checked if not one.holds]
    return Finding(
        "seen-and-unseen",
        "Table 2 is the mean over all classes of Table A3's seen and unseen ones.",
        "holds" if len(wrong) <= 1 else "does not hold",
        f"{len(checked) - len(wrong)} of {len(checked)} numbers agree within rounding; not {places(wrong)}: printed "
        f"{wrong[0].printed}, the others give {wrong[0].computed:.2f}. So the class counts are right, and mIoU is "
        "the mean over classes.",
        tuple(relation_row(one) for one in checked),
        "Tables 2 and A3",
    )


def _modules() -> Finding:
    table, groups = paper_table("mm-ovseg", "table3"), load_paper("mm-ovseg").facts["ddhr_sk"]
    rows: list[dict[str, Any]] = []
    for row in reversed(list(table.rows)):
        rows.append(
            {
                "row": row,
                **{column: table.value(row, column) for column in table.columns},
                "seen": round(fmean(table.value(row, name) or math.nan for name in groups["seen"]), 1),
                "unseen": round(fmean(table.value(row, name) or math.nan for name in groups["unseen"]), 1),
            }
        )
    without, half, whole = rows
    return Finding(
        "ablation",
        "DEF and CMU each improve the result.",
        "unclear",
        f"They do on mIoU ({without['mIoU']}, {half['mIoU']}, {whole['mIoU']}) and on the unseen classes "
        f"({without['unseen']}, {half['unseen']}, {whole['unseen']}). On the seen ones DEF without CMU is worse than "
        f"neither ({half['seen']} against {without['seen']}; forest {half['forest']} against {without['forest']}), and "
        f"city is best with neither ({without['city']}). One dataset, one run.",
        tuple(rows),
        "Table 3",
    )


def _clouds() -> Finding:
    table = paper_table("mm-ovseg", "table2")
    pairs = {"PIE-RGB-SAR": (("s5", "none"), ("s1", "varied")), "OpenEarthMap-SAR": (("s4", "thin"), ("s3", "thick"))}
    rows: list[dict[str, Any]] = []
    for name, settings in pairs.items():
        for setting, cover in settings:
            rows.append({"dataset": name, "clouds": cover, "setting": setting, **_ahead(table, setting)})
    less = [float(rows[index + 1]["ahead of GSNet"]) < float(rows[index]["ahead of GSNet"]) for index in (0, 2)]
    return Finding(
        "gain-with-clouds",
        "The more cloud, the more SAR helps.",
        "does not hold" if all(less) else "unclear",
        "Two datasets come under two covers each. On both MM-OVSeg is less far ahead of GSNet under more cloud: "
        + "; ".join(
            f"{rows[index]['ahead of GSNet']:+.1f} ({rows[index]['clouds']}) and "
            f"{rows[index + 1]['ahead of GSNet']:+.1f} ({rows[index + 1]['clouds']}) on {rows[index]['dataset']}"
            for index in (0, 2)
        )
        + ". There are no intervals, so the differences may be chance; they don't support the claim.",
        tuple(rows),
        "Table 2",
    )


def _where_the_gain_is() -> Finding:
    table = paper_table("mm-ovseg", "table2")
    settings = list(load_paper("mm-ovseg").facts["settings"])
    rows: list[dict[str, Any]] = [
        {"setting": f"{name} ({table.titles[name]})", **_ahead(table, name)} for name in settings
    ]
    gains = {name: float(row["ahead of GSNet"]) for name, row in zip(settings, rows, strict=True)}
    korea = [name for name in settings if "DDHR-SK" in table.titles[name]]
    share = sum(gains[name] for name in korea) / sum(gains.values())
    others = fmean(gain for name, gain in gains.items() if name not in korea)
    return Finding(
        "where-the-gain-is",
        "MM-OVSeg is ahead throughout.",
        "holds" if min(gains.values()) > 0 else "does not hold",
        f"It is ahead of GSNet in all six settings, by {fmean(gains.values()):.1f} points on average; "
        f"{100 * share:.0f} % of that comes from the two settings trained on DDHR-SK ({', '.join(korea)}), and in "
        f"the other four it is {others:.1f}. No interval or second seed is given.",
        tuple(rows),
        "Table 2",
    )


def _budgets() -> Finding:
    table, iterations = paper_table("mm-ovseg", "tableA1"), load_paper("mm-ovseg").facts["iterations"]
    seen = {row: count * (table.value(row, "batch") or math.nan) for row, count in iterations.items()}
    rows = [
        {
            "method": row,
            "batch (Table A1)": table.value(row, "batch"),
            "iterations (released)": count,
            "images seen": int(seen[row]),
            "of MM-OVSeg's": round(seen[row] / seen["MM-OVSeg"], 2),
        }
        for row, count in iterations.items()
    ]
    return Finding(
        "budgets",
        "The compared methods were trained alike.",
        "not comparable",
        f"With the released configurations GSNet sees {seen['GSNet']:,.0f} images in training and MM-OVSeg "
        f"{seen['MM-OVSeg']:,.0f}, {seen['MM-OVSeg'] / seen['GSNet']:.1f} times as many. Whether the paper's "
        "comparison used these configurations isn't said.",
        tuple(rows),
        "Table A1; released configurations",
    )


def _ahead(table: PaperTable, setting: str) -> dict[str, float]:
    """How far MM-OVSeg is ahead of GSNet and of the best other method, in points."""
    column = {row: value for row, value in table.column(setting).items() if value is not None}
    own = column.pop("MM-OVSeg")
    return {
        "MM-OVSeg": own,
        "ahead of GSNet": round(own - column["GSNet"], 1),
        "ahead of the best other": round(own - max(column.values()), 1),
    }
