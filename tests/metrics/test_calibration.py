"""The calibration error by hand, by torchmetrics, and cut in pieces."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from rsovlib.errors import InputError
from rsovlib.metrics import CalibrationError

IGNORE = 255


def some_probabilities(seed: int = 0, shape: tuple[int, int] = (37, 31), classes: int = 4):
    """Probabilities (K, H, W) float32 that are too sure of themselves, and labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (classes, *shape)).astype(np.float32)
    true = np.where(rng.random(shape) < 0.6, logits.argmax(axis=0), rng.integers(0, classes, shape))
    probabilities = torch.softmax(torch.from_numpy(logits), dim=0).numpy()
    return probabilities, np.where(rng.random(shape) < 0.1, IGNORE, true)


def error_of(probabilities: np.ndarray, true: np.ndarray, **options: object) -> dict:
    metrics = CalibrationError(probabilities.shape[0], **options)
    metrics.update(probabilities, true)
    return metrics.compute()


def test_by_hand():
    confidence = np.array([[0.9, 0.9, 0.9, 0.9, 0.6]])
    probabilities = np.stack([confidence, 1 - confidence])
    scores = error_of(probabilities, np.array([[0, 0, 0, 1, 0]]), bins=10)
    # Of four pixels at 0.9 three are right; the one at 0.6 is right.
    assert scores["expected_calibration_error"] == pytest.approx((4 * 0.15 + 1 * 0.4) / 5)
    assert scores["max_calibration_error"] == pytest.approx(0.4)
    assert scores["accuracy"] == pytest.approx(4 / 5)
    assert scores["mean_confidence"] == pytest.approx(4.2 / 5)
    assert scores["reliability"]["pixels"] == [0, 0, 0, 0, 0, 0, 1, 0, 0, 4, 0]
    assert scores["reliability"]["accuracy"][9] == pytest.approx(3 / 4)
    assert math.isnan(scores["reliability"]["accuracy"][0])


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("sure", [False, True])
def test_equals_torchmetrics(bins: int, sure: bool):
    probabilities, true = some_probabilities(bins)
    if sure:  # softmax in single precision reaches exactly 1
        probabilities[:, :9] = np.eye(4, dtype=np.float32)[:, [0]][..., None]
    scores = error_of(probabilities, true, bins=bins)
    for norm, name in (("l1", "expected_calibration_error"), ("max", "max_calibration_error")):
        theirs = multiclass_calibration_error(
            torch.from_numpy(probabilities)[None],
            torch.from_numpy(true)[None],
            num_classes=4,
            n_bins=bins,
            norm=norm,
            ignore_index=IGNORE,
        )
        assert scores[name] == pytest.approx(float(theirs), abs=1e-5)
    assert scores["max_calibration_error"] > 0.005


def test_probabilities_that_mean_what_they_say_are_calibrated():
    rng = np.random.default_rng(0)
    first = rng.random((300, 300))
    true = (rng.random(first.shape) > first).astype(int)
    probabilities = np.stack([first, 1 - first])
    assert error_of(probabilities, true)["expected_calibration_error"] < 0.01
    assert error_of(probabilities, 1 - true)["expected_calibration_error"] > 0.4


def test_windows_workers_and_batches_give_the_very_same():
    probabilities, true = some_probabilities(1)
    whole = CalibrationError(4)
    whole.update(probabilities, true)
    parts = [CalibrationError(4) for _ in range(3)]
    for part, (first, last) in zip(parts, ((0, 7), (7, 30), (30, 37)), strict=True):
        low = max(0, first - 3)
        part.update(probabilities[:, low:last], true[low:last], core=(slice(first - low, None), slice(None)))
    for order in ((0, 1, 2), (2, 1, 0)):
        total = CalibrationError(4)
        for number in order:
            total.merge(parts[number])
        assert total.state_dict() == whole.state_dict()
    batch = CalibrationError(4)
    batch.update(torch.from_numpy(np.stack([probabilities] * 2)), torch.from_numpy(np.stack([true] * 2)))
    whole.update(probabilities, true)
    assert batch.state_dict() == whole.state_dict()


def test_state_survives_json_and_sums_may_outgrow_64_bits():
    metrics = CalibrationError(4, bins=5)
    metrics.update(*some_probabilities())
    for _ in range(40):  # 2^40 times the pixels
        metrics.merge(metrics)
    read = CalibrationError.from_state_dict(json.loads(json.dumps(metrics.state_dict())))
    assert max(read.state_dict()["confidence"]) > 2**64
    once = error_of(*some_probabilities(), bins=5)
    assert read.compute()["expected_calibration_error"] == pytest.approx(once["expected_calibration_error"])
    with pytest.raises(InputError, match="pixels doesn't hold 6 counts"):
        CalibrationError.from_state_dict(metrics.state_dict() | {"pixels": [1]})


def test_nodata_is_dropped_whatever_it_holds():
    probabilities, true = some_probabilities(2)
    expected = error_of(probabilities, true)
    probabilities[:, true == IGNORE] = np.nan
    assert error_of(probabilities, true)["reliability"]["pixels"] == expected["reliability"]["pixels"]
    nothing = CalibrationError(4)
    nothing.update(probabilities, np.full_like(true, IGNORE))
    with pytest.raises(InputError, match="nothing to score"):
        nothing.compute()


def changed(place: tuple, value: float) -> np.ndarray:
    probabilities = np.full((2, 3, 4), 0.5)
    probabilities[place] = value
    return probabilities


@pytest.mark.parametrize(
    ("probabilities", "true", "sentence"),
    [
        (changed((0, 0, 0), np.nan), np.zeros((3, 4), int), "hold nan where there is ground truth"),
        (changed((0, 0, 0), 3.0), np.zeros((3, 4), int), "hold 3 where.*softmax"),
        (changed((0, 1, 2), 0.9), np.zeros((3, 4), int), "sum to 1.4"),
        (np.zeros((2, 3, 4), int), np.zeros((3, 4), int), "give floating-point"),
        (np.full((3, 3, 4), 1 / 3), np.zeros((3, 4), int), "of 3 classes; they should be of 2"),
        (np.full((2, 3, 4), 0.5), np.zeros((4, 3), int), "3 x 4 and the target 4 x 3"),
        (np.full((2, 3, 4), 0.5), np.full((3, 4), 2), "target holds the label 2"),
        (np.full((3, 4), 0.5), np.zeros((3, 4), int), r"are 3 x 4; give \(K, H, W\)"),
    ],
)
def test_maps_that_make_no_sense(probabilities: np.ndarray, true: np.ndarray, sentence: str):
    metrics = CalibrationError(2)
    with pytest.raises(InputError, match=sentence):
        metrics.update(probabilities, true)
    assert metrics.state_dict() == CalibrationError(2).state_dict()


def test_settings_that_make_no_sense():
    with pytest.raises(InputError, match="at least one of each"):
        CalibrationError(2, bins=0)
    with pytest.raises(InputError, match="ignore_index=1 is a class"):
        CalibrationError(2, ignore_index=1)
    with pytest.raises(InputError, match="different bins"):
        CalibrationError(2).merge(CalibrationError(2, bins=3))
