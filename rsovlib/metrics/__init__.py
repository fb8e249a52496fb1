"""Scores of predictions against ground truth: counted window by window, joined over workers, with their uncertainty.

* :class:`SegmentationMetrics`: IoU, accuracy, F1, seen / unseen / harmonic mean and boundary scores from counts of the
  whole set;
* :class:`PerImageSoftMetrics`: the soft IoU and F1 of the missing-modality paper, beside the pooled ones;
* :class:`CalibrationError`: do the probabilities mean what they say;
* :func:`as_in`: a paper's own way of counting, by the paper's name;
* :func:`confidence_interval`, :func:`compare`: bootstrap intervals over the images, and paired tests.
"""

from rsovlib.metrics.calibration import CalibrationError
from rsovlib.metrics.counts import class_scores, confusion_matrix, mean_over_classes
from rsovlib.metrics.protocols import PROTOCOLS, Protocol, as_in
from rsovlib.metrics.segmentation import SegmentationMetrics
from rsovlib.metrics.soft import PerImageSoftMetrics
from rsovlib.metrics.uncertainty import Comparison, Interval, bootstrap, compare, confidence_interval

__all__ = [
    "PROTOCOLS",
    "CalibrationError",
    "Comparison",
    "Interval",
    "PerImageSoftMetrics",
    "Protocol",
    "SegmentationMetrics",
    "as_in",
    "bootstrap",
    "class_scores",
    "compare",
    "confidence_interval",
    "confusion_matrix",
    "mean_over_classes",
]
