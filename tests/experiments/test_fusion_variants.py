"""What is said of networks that are trained for a table alone."""

from __future__ import annotations

import math

import pytest
import torch

from rsovlib.experiments.fusion.claims import VARIANT_CLAIMS
from rsovlib.experiments.fusion.variants import (
    CMU_TARGETS,
    UNSEEN_CALLED_SEEN,
    VariantScores,
    seed_means,
    unseen_called_seen,
)
from rsovlib.experiments.results import ResultRow
from rsovlib.metrics import SegmentationMetrics

CLASSES = ["road", "water", "crop", "snow"]


def meter(prediction: list[int], truth: list[int]) -> SegmentationMetrics:
    found = SegmentationMetrics(CLASSES, unseen=["crop", "snow"], keep_images=True)
    for name in ("one", "two"):  # an interval needs two images
        found.update(torch.tensor([prediction]), torch.tensor([truth]), image=name)
    return found


def test_unseen_pixels_that_a_seen_class_is_written_over() -> None:
    # crop: called road, snow, crop, nothing; snow: called water. Road called water doesn't count, nor does the ignored.
    found = meter([0, 3, 2, 255, 1, 1, 0], [2, 2, 2, 2, 3, 0, 255])
    assert unseen_called_seen(found) == pytest.approx(2 / 5)
    assert math.isnan(unseen_called_seen(meter([0, 1], [0, 1])))


def test_variants_hand_over_scores_and_paired_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[ResultRow] = []

    def record(row: str, column: str, metric: str, value: float, **fields: object) -> None:
        given = {"row": row, "column": column, "metric": metric, "value": value} | fields
        rows.append(ResultRow.model_validate({"paper": "p", "table": "t", "profile": "embedded"} | given))

    monkeypatch.setattr("rsovlib.experiments.fusion.variants.record", record)
    truth = [0, 1, 2, 3]
    found = VariantScores("neither", seed=1)
    found.meters = {"neither": meter([0, 1, 0, 0], truth), "DINO": meter([0, 1, 2, 3], truth)}
    found.meters["CLIP"] = meter([0, 1, 2, 2], truth)
    found.meters["CLIP and DINO"] = meter([0, 0, 2, 3], truth)
    found.hand_over("mIoU", also=["DINO"])
    values = {(one.row, one.metric): one.value for one in rows}
    assert values["DINO", "miou"] == 100
    assert values["DINO", "miou_unseen gain over neither"] == 100
    assert values["CLIP", "miou_seen gain over DINO"] == 0
    assert values["CLIP", "miou_unseen gain over DINO"] == -75
    assert values["neither", UNSEEN_CALLED_SEEN] == 100
    assert ("DINO", "miou gain over DINO") not in values
    assert {one.seed for one in rows} == {1}
    assert "unseen called seen" in found.frame().columns
    for claim in VARIANT_CLAIMS:
        if claim.table == "mm-ovseg-table-a5":
            assert set(claim.rows) <= set(CMU_TARGETS)
            assert {(row, claim.metric) for row in claim.rows} <= set(values)
        else:
            assert claim.metric.replace("corrected", "neither") in {metric for _, metric in values}

    other = [one.model_copy(update={"seed": 2, "value": 50.0}) for one in rows if one.row == "neither"]
    means = seed_means([*rows, *other], "t", UNSEEN_CALLED_SEEN)
    assert means.loc["neither"].tolist() == [75.0, 2]
    assert means.loc["DINO"].tolist() == [0.0, 1]
    assert not len(seed_means([], "t", UNSEEN_CALLED_SEEN))
