"""What holds over the seeds: differences on the same scenes, their recording, and the rule; shapes without weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rsovlib.data.suites import load_suite
from rsovlib.errors import InputError
from rsovlib.experiments.fusion import claims, evaluation, tables, weather
from rsovlib.experiments.fusion.claims import (
    CLAIMS,
    VARIANT_CLAIMS,
    contrast,
    judged,
    judged_gain,
    mean_of,
    record_seeds,
)
from rsovlib.experiments.fusion.evaluation import SEEDS
from rsovlib.experiments.fusion.scenes import Condition
from rsovlib.experiments.fusion.settings import SETTINGS
from rsovlib.experiments.fusion.sizes import record_a4_not_run, shape_table
from rsovlib.experiments.results import ResultRow, make_row
from rsovlib.experiments.sdci.verdicts import HOLDS, MISSING, OPPOSITE, UNCLEAR
from rsovlib.experiments.tables import load_tables
from rsovlib.metrics import Interval, SegmentationMetrics

SUITE = "mm-ovseg-ddhr-sk"
Wrong = Callable[[str, int, Condition], float]


def meter_of(suite: str, wrong: float, count: int) -> SegmentationMetrics:
    """Counts of scenes in which a share of each class's pixels is called the next class."""
    whole = load_suite(suite)
    kinds = len(whole.class_names)
    meter = SegmentationMetrics(
        whole.class_names,
        unseen=whole.unseen,
        boundary_tolerance=None,
        boundary_width=None,
        strata=("clear", "cloudy"),
        keep_images=True,
    )
    truth = np.tile(np.arange(kinds), (20, 1))
    for index in range(count):
        found = truth.copy()
        found[: round(20 * wrong)] = (found[: round(20 * wrong)] + 1) % kinds
        strata = (np.arange(20)[:, None] % 2 * np.ones(kinds)).astype(np.uint8)
        meter.update(found, truth, image=f"{index:03d}", strata=strata)
    return meter


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[ResultRow]:
    """Everything that is recorded."""
    found: list[ResultRow] = []
    rest = {"table": "a", "paper": "", "profile": "embedded", "dataset": ""}

    def recorded(row: str, column: str, metric: str, value: Any, **fields: Any) -> ResultRow:
        interval = fields.pop("interval", None)
        if interval is not None:
            fields |= {"low": interval.low, "high": interval.high, "level": interval.level}
        found.append(make_row(rest | {"row": row, "column": column, "metric": metric, "value": value} | fields))
        return found[-1]

    monkeypatch.setattr(claims, "record", recorded)
    return found


def scores_by_hand(monkeypatch: pytest.MonkeyPatch, wrong: Wrong) -> None:
    """Methods whose errors are given in place of networks."""

    def pooled(method: str, suite: str, condition: Condition, count: int, seeds: tuple[int, ...]) -> Any:
        (seed,) = seeds
        return meter_of(suite, wrong(method, seed, condition), count)

    monkeypatch.setattr(claims, "pooled", pooled)
    monkeypatch.setattr(evaluation, "pooled", pooled)


def test_a_contrast_is_the_weighted_sum_of_the_scores() -> None:
    right, wrong = meter_of(SUITE, 0.0, 3), meter_of(SUITE, 0.5, 3)
    # Half of each class is called the next one: 10 pixels of 30 agree.
    found = contrast([(right, "miou", 100.0), (wrong, "miou", -100.0)])
    assert found.value == pytest.approx(100 * (1 - 1 / 3))
    assert found.low == pytest.approx(found.value)  # all scenes are the same
    assert contrast([(wrong, "miou", 1.0), (wrong, "miou", -1.0)]) == Interval(0.0, 0.0, 0.0)


def test_a_contrast_pairs_the_scenes() -> None:
    """Two methods with the same luck in the same scenes differ by nothing, however much scenes differ."""
    meters = []
    for offset in (0.0, 0.1):
        meter = meter_of(SUITE, 0.0, 0)
        truth = np.tile(np.arange(5), (20, 1))
        for index in range(12):
            found, bad = truth.copy(), round(20 * (offset + 0.8 * (index % 2)))
            found[:bad] = (found[:bad] + 1) % 5
            meter.update(found, truth, image=f"{index:03d}", strata=np.zeros((20, 5), np.uint8))
        meters.append(meter)
    alone = contrast([(meters[0], "miou", 100.0)])
    paired = contrast([(meters[0], "miou", 100.0), (meters[1], "miou", -100.0)])
    assert paired.low > 0
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)


def test_counts_of_other_scenes_are_refused() -> None:
    with pytest.raises(InputError, match=r"\[2, 3\] scenes"):
        contrast([(meter_of(SUITE, 0, 2), "miou", 1.0), (meter_of(SUITE, 0, 3), "miou", -1.0)])


@pytest.mark.parametrize(
    ("errors", "word"),
    [((0.2, 0.2, 0.2), HOLDS), ((0.0, 0.0, 0.0), OPPOSITE), ((0.4, 0.05, 0.1), UNCLEAR)],
    ids=["all seeds better", "all seeds worse", "the seeds disagree"],
)
def test_the_spread_of_the_seeds_counts(
    errors: tuple[float, ...], word: str, rows: list[ResultRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores_by_hand(monkeypatch, lambda method, seed, _: 0.1 if method == "mm-ovseg" else errors[seed])
    found = judged_gain("mm-ovseg", "gsnet", "s2", SUITE, count=4)
    assert found.word == word
    assert str(found).endswith(word)
    assert [(one.row, one.metric, one.seed) for one in rows] == [
        ("MM-OVSeg", "miou gain over GSNet", seed) for seed in SEEDS
    ]
    assert found.interval.value == pytest.approx(np.mean([one.value for one in rows]))


def test_what_cannot_be_computed_says_so(rows: list[ResultRow]) -> None:
    nan = float("nan")
    found = judged(record_seeds({0: Interval(nan, nan, nan)}, "MM-OVSeg", "s2", "gain"))
    assert (found.word, str(found)) == (MISSING, MISSING)
    assert np.isnan(found.interval.value)
    assert rows[0].value is None
    assert rows[0].note


def test_the_mean_of_settings_is_narrower_than_one_setting() -> None:
    found = mean_of(
        [Interval(1.0, 0.0, 2.0), Interval(3.0, 2.0, 4.0), Interval(2.0, 1.0, 3.0), Interval(2.0, 1.0, 3.0)]
    )
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 1.5, 2.5))


def test_every_claim_is_about_rows_that_the_tables_record(
    rows: list[ResultRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores_by_hand(monkeypatch, lambda method, seed, _: {"mm-ovseg": 0.1, "mm-ovseg-no-cmu": 0.15}.get(method, 0.3))
    others = ("mm-ovseg-no-cmu", "gsnet", "ebseg", "cat-seg", "segearth-ov")
    pairs = [*(("mm-ovseg", other) for other in others), ("gsnet", "cat-seg")]

    def recorded(table: str, job: Callable[[], object]) -> set[tuple[str, str, str]]:
        rows.clear()
        job()
        return {(table, one.metric, one.row) for one in rows}

    known = recorded("mm-ovseg-table2", lambda: tables.gains_table(pairs, scenes=2, seeds=(0,)))
    assert {one.column for one in rows} == {*SETTINGS, "mean"}
    known |= recorded("mm-ovseg-table3", lambda: tables.ablation_gains(2, (0,)))
    assert {one.column for one in rows if one.metric == "step"} == {"mIoU", "seen", "unseen", "under clouds"}
    for part in ("seen", "unseen"):
        table = f"mm-ovseg-table-a3-{part}"
        known |= recorded(table, lambda part=part: tables.gains_table([("mm-ovseg", "gsnet")], f"miou_{part}", 2, (0,)))
    known |= recorded("mm-ovseg-table-a3-unseen", lambda: tables.unseen_against_seen("mm-ovseg", "gsnet", 2, (0,)))
    known |= recorded(
        "mm-ovseg-clouds", lambda: weather.examine_claim("mm-ovseg", "gsnet", covers=(0, 1), scenes=2, seeds=(0,))
    )
    known |= recorded("mm-ovseg-clouds", lambda: weather.harm_table(shifts=(0, 4), looks=(1,), scenes=2, seeds=(0,)))
    for claim in CLAIMS:
        for row in claim.rows or [None]:
            assert any(one[:2] == (claim.table, claim.metric) and row in (None, one[2]) for one in known), claim


def test_the_verdicts_need_every_table_that_they_judge() -> None:
    assert set(load_tables()["mm-ovseg-verdicts"].needs) == {claim.table for claim in CLAIMS}
    assert set(load_tables()["mm-ovseg-variants"].needs) == {claim.table for claim in VARIANT_CLAIMS}


def test_the_gain_on_unseen_classes_is_set_against_that_on_seen_ones(
    rows: list[ResultRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores_by_hand(monkeypatch, lambda method, seed, _: 0.1 if method == "mm-ovseg" else 0.3)
    tables.unseen_against_seen("mm-ovseg", "gsnet", 2, (0,))
    assert [one.value for one in rows] == pytest.approx([0.0] * 6)  # errors are the same for all classes
    assert {one.unit for one in rows} == {"percent"}


def test_bad_radar_is_named_and_compared_under_its_own_condition(
    rows: list[ResultRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(method: str, seed: int, condition: Condition) -> float:
        return 0.3 if method == "gsnet" else 0.9 if condition.shift == 8 or condition.sar == "missing" else 0.1

    scores_by_hand(monkeypatch, wrong)
    frame = weather.harm_table(shifts=(0, 8), looks=(1,), scenes=2)
    texts = frame.iloc[:, 0].to_dict()
    worse = [name for name, text in texts.items() if text.endswith(OPPOSITE)]
    assert worse == ["shifted by 8 pixels", "missing"]
    assert {one.metric for one in rows if one.column == "shifted by 0 pixels"} == {"miou gain over GSNet, aligned"}


def test_shapes_of_vit_l_and_the_scores_that_are_not_run() -> None:
    shapes = shape_table("ViT-L", classes=3)["shape"]
    assert shapes["cost of CLIP"] == "1 x 1 x 3 x 24 x 24"
    assert shapes["decoder, step 2"] == "1 x 3 x 32 x 96 x 96"
    assert shapes["logits"] == "1 x 3 x 96 x 96"
    assert shape_table("ViT-B", classes=3)["shape"]["text"] == "3 x 1 x 512"
    assert set(record_a4_not_run().to_numpy().ravel()) == {"not run"}
