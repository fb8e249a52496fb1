"""Each paper's way of counting: which pixels and classes enter, by cases computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from rsovlib.errors import InputError
from rsovlib.metrics import PROTOCOLS, PerImageSoftMetrics, SegmentationMetrics, as_in

GID = ["built-up", "farmland", "forest", "meadow", "water"]
PIE = ["background", "city", "road", "water", "forest", "farmland"]


def test_every_protocol_says_where_it_is_from():
    assert {"sdci", "mm-ovseg", "scenario-sampling", "edc"} <= set(PROTOCOLS)
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert len(protocol.source) > 20
        assert len(protocol.note) > 20


def test_sdci_and_with_background_differ_by_what_is_painted_over_the_background():
    # One building (0) on a background that the foreground-only method must paint over.
    true = np.full((4, 4), 255)
    true[:1, :2] = 0
    painted = np.zeros((4, 4), int)
    sdci = as_in("sdci", ["building", "road"])
    sdci.update(painted, true)
    assert sdci.compute()["miou"] == 1  # dropped pixels cost nothing; road has no ground truth
    with_background = as_in("with-background", ["background", "building", "road"])
    with_background.update(painted + 1, np.where(true == 255, 0, true + 1))
    # building 2 / 16, background 0 / 14; road is neither true nor predicted.
    assert with_background.compute()["miou"] == pytest.approx((2 / 16 + 0) / 2)


def test_a_class_that_is_predicted_without_ground_truth():
    true, predicted = np.array([[1, 1, 1, 1]]), np.array([[1, 1, 1, 2]])
    for paper, expected in (("sdci", 3 / 4), ("mm-ovseg", 3 / 4)):
        metrics = as_in(paper, GID)
        metrics.update(predicted, true)
        assert metrics.compute()["miou"] == expected
    union = as_in("with-background", ["background", *GID])
    union.update(predicted, true)
    assert union.compute()["miou"] == pytest.approx((3 / 4 + 0) / 2)


def test_mm_ovseg_splits_into_seen_and_unseen():
    metrics = as_in("mm-ovseg", PIE, unseen=["road", "water"])
    rng = np.random.default_rng(0)
    true = rng.integers(0, 6, (20, 30))
    metrics.update(np.where(rng.random(true.shape) < 0.3, 0, true), true)
    scores = metrics.compute()
    assert 6 * scores["miou"] == pytest.approx(4 * scores["miou_seen"] + 2 * scores["miou_unseen"])
    assert scores["miou_unseen"] == pytest.approx((scores["iou"]["road"] + scores["iou"]["water"]) / 2)


def test_the_papers_own_tables_follow_the_rule_of_seen_and_unseen(shared):
    """Table 2 of MM-OVSeg is the weighted mean of its Table A3 within rounding: so means run over all its classes."""
    tables = yaml.safe_load((shared / "specs" / "paper_tables_trained.yaml").read_text(encoding="utf-8"))
    paper = next(part for part in tables.values() if isinstance(part, dict) and "table2_miou_vit_b16" in part)
    settings, splits = paper["settings"], paper["tableA3_seen_unseen_miou"]
    checked = 0
    for method, rows in splits.items():
        whole = paper["table2_miou_vit_b16"].get(method)
        for name, counts in settings.items():
            seen, unseen = counts["n_seen"], counts["n_unseen"]
            expected = (seen * rows["seen"][name] + unseen * rows["unseen"][name]) / (seen + unseen)
            assert whole[name] == pytest.approx(expected, abs=0.15)
            checked += 1
    assert checked == 36


def test_edc_splits_by_clouds():
    metrics = as_in("edc", GID)
    metrics.update(np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 255]]), strata=np.array([[False, True, True, True]]))
    scores = metrics.compute()
    assert scores["miou"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert scores["strata"]["clear"]["miou"] == 1
    assert scores["strata"]["cloudy"]["miou"] == pytest.approx(1 / 2)  # farmland 1 / 2; built-up has no truth there
    assert scores["strata"]["cloudy"]["pixels"] == 2


def test_scenario_sampling_is_soft_and_per_image():
    metrics = as_in("scenario-sampling", ["tree"])
    assert isinstance(metrics, PerImageSoftMetrics)
    metrics.update(np.full((3, 3), 0.01), np.zeros((3, 3), int), image="no trees")
    assert metrics.compute()["soft_iou_per_image"] == pytest.approx(0.99)
    assert as_in("scenario-sampling", "tree").target == "tree"


def test_more_settings_are_handed_on():
    metrics = as_in("sdci", GID, boundary_tolerance=None, keep_images=True)
    assert isinstance(metrics, SegmentationMetrics)
    assert (metrics.boundary_tolerance, metrics.keep_images) == (None, True)


@pytest.mark.parametrize(
    ("paper", "arguments", "sentence"),
    [
        ("sdcii", {"classes": GID}, "Did you mean 'sdci'"),
        ("sdci", {"classes": [*GID, "Background"]}, "drops the pixels of 'Background'"),
        ("with-background", {"classes": GID}, "scores the background as a class"),
        ("sdci", {"classes": GID, "mean_over": "all"}, "mean_over is fixed"),
        ("edc", {"classes": GID, "strata": ()}, "strata is fixed"),
        ("scenario-sampling", {"classes": GID}, "one class against the rest"),
        ("mm-ovseg", {"classes": PIE, "unseen": ["roads"]}, "Did you mean 'road'"),
    ],
)
def test_what_a_paper_does_not_count(paper: str, arguments: dict, sentence: str):
    with pytest.raises(InputError, match=sentence):
        as_in(paper, **arguments)
