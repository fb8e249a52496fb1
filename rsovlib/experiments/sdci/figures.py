"""SDCI's Figures 1, 4 and 5 from any image: superpixels and blur, methods side by side, the ladder in pictures.

(Figure 3 is in :mod:`rsovlib.experiments.sdci.caf_views`.) arXiv 2601.21159.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from skimage.measure import label as connected_regions
from tqdm.auto import tqdm

from rsovlib.data.classes import parse_classes
from rsovlib.errors import WeightsError
from rsovlib.experiments.results import record
from rsovlib.experiments.sdci.ladder import IGNORED, RUNGS, ladder_labels
from rsovlib.experiments.subject import Subject
from rsovlib.kernels import felzenszwalb_superpixels
from rsovlib.metrics import SegmentationMetrics
from rsovlib.metrics.regions import majority, region_scores
from rsovlib.plots import Panel, Picture, mean_colours, outlined, plot_panels
from rsovlib.segmenters import SDCI, SDCIConfig, make_segmenter

Labels = npt.NDArray[np.integer[Any]]

#: Of Figure 4, in the order of Table 1's rows, and SDCI.
FIGURE4_METHODS = (
    "maskclip",
    "sclip",
    "clearclip",
    "naclip",
    "proxyclip",
    "resclip",
    "cliper",
    "corrclip",
    "cass",
    "segearth-ov",
    "sdci",
)


@dataclass(frozen=True)
class ClassMaps:
    """Class maps of one image by whatever made them.

    Attributes:
        subject: the image.
        maps: name -> (H, W) labels.
        missing: name -> why there is no map.
    """

    subject: Subject
    maps: dict[str, Labels]
    missing: Mapping[str, str]

    def scores(self) -> pd.DataFrame:
        """A row a map: mIoU and boundary F1 in percent (where the truth is known), and connected regions in it."""
        rows = {name: _scores(self.subject, labels) for name, labels in self.maps.items()}
        if self.subject.labels is not None:
            rows["truth"] = _scores(self.subject, self.subject.labels)
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("map")

    def iou(self) -> pd.DataFrame:
        """IoU in percent: a row a class, a column a map; empty where the truth isn't known."""
        if self.subject.labels is None:
            return pd.DataFrame()
        names = _names(self.subject)
        columns = {
            name: _meter(self.subject, labels, self.subject.labels).compute()["iou"]
            for name, labels in self.maps.items()
        }
        return 100 * pd.DataFrame({name: [iou[each] for each in names] for name, iou in columns.items()}, index=names)

    def plot(self, columns: int = 4, title: str = "") -> Picture:
        """The image, every map with its mIoU, and the truth where it is known."""
        scores = self.scores()
        panels = [Panel("image", self.subject.image)]
        for name, labels in self.maps.items():
            known = f"\nmIoU {scores['mIoU (%)'][name]:.1f} %" if self.subject.labels is not None else ""
            panels.append(Panel(f"{name}{known}", labels))
        if self.subject.labels is not None:
            panels.append(Panel("truth", self.subject.labels))
        return plot_panels(panels, self.subject.classes, gsd=self.subject.gsd, columns=columns, title=title)

    def record(self) -> None:
        """Hand the scores over as result rows."""
        record_table(self.scores())


@dataclass(frozen=True)
class BoundaryObservation:
    """SDCI's Figure 1: what superpixels know of boundaries, and what a map of coarse tokens doesn't.

    Attributes:
        subject: the image.
        superpixels: (H, W).
        labels: (H, W), the method's class map.
        method: its name.
    """

    subject: Subject
    superpixels: npt.NDArray[np.int32]
    labels: Labels
    method: str

    def scores(self, tolerance: float = 2.0) -> pd.DataFrame:
        """How much of the true boundary each partition finds; empty where the truth isn't known.

        A row for the superpixels, for the method's map, and for that map after a vote in each superpixel. ``of pixels
        at a border`` is what the recall was paid with: a partition with borders everywhere finds every boundary.

        Args:
            tolerance: pixels that a border may lie beside the true one.
        """
        truth = self.subject.labels
        if truth is None:
            return pd.DataFrame()
        voted = majority(self.superpixels, self.labels)
        rows = {}
        for name, regions, predicted in (
            ("superpixels", self.superpixels, None),
            (self.method, self.labels, self.labels),
            (f"{self.method}, a vote in each superpixel", voted, voted),
        ):
            found = region_scores(regions, truth, tolerance=tolerance, ignore_index=IGNORED)
            rows[name] = {
                "true boundary found (%)": 100 * found.boundary_recall,
                "of pixels at a border (%)": 100 * found.boundary_pixels,
                "boundary F1 (%)": np.nan if predicted is None else _scores(self.subject, predicted)["boundary F1 (%)"],
                "best possible accuracy (%)": 100 * found.achievable if predicted is None else np.nan,
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("partition")

    def record(self) -> None:
        """Hand the scores over as result rows."""
        record_table(self.scores())

    def plot(self) -> Picture:
        """The paper's panels (a) to (d), and the superpixels in their mean colours."""
        image, truth = self.subject.image, self.subject.labels
        count = len(np.unique(self.superpixels))
        panels = [
            Panel("(a) image", image),
            Panel(f"(b) {count} superpixels, outlined", outlined(image, self.superpixels)),
            Panel("(b') in their mean colours", mean_colours(image, self.superpixels)),
            Panel(f"(c) {self.method}", self.labels),
        ]
        if truth is not None:
            panels.append(Panel("(d) truth", truth))
        return plot_panels(panels, self.subject.classes, gsd=self.subject.gsd, columns=3)


def boundary_observation(subject: Subject, segmenter: Any, name: str, config: SDCIConfig) -> BoundaryObservation:
    """Superpixels as SDCI takes them, and a method's class map, of one image.

    Args:
        subject: the image.
        segmenter: of the method (CLIPer in the paper).
        name: what to call it.
        config: SDCI's settings, for the superpixels.
    """
    superpixels = felzenszwalb_superpixels(
        subject.image,
        scale=config.superpixel_scale,
        sigma=config.superpixel_sigma,
        min_size=config.superpixel_min_size,
    )
    return BoundaryObservation(subject, superpixels, segmenter(subject.image, subject.classes).labels, name)


def maps_by_method(
    subject: Subject,
    methods: Iterable[str] = FIGURE4_METHODS,
    *,
    profile: str = "embedded",
    device: str = "auto",
    progress: bool = True,
) -> ClassMaps:
    """SDCI's Figure 4: the class maps of several methods, each with its own settings.

    Args:
        subject: the image.
        methods: names as in ``rsovlib.segment``.
        profile: ``"embedded"`` or ``"full"``.
        device: where to compute.
        progress: show a bar.

    Returns:
        The maps; methods whose weights aren't there are in ``missing``. A stand-in for a part that can't be had is
        named with the map (``cliper-dino``).
    """
    maps: dict[str, Labels] = {}
    missing: dict[str, str] = {}
    for method in tqdm(list(methods), desc="methods", unit="method", disable=not progress):
        try:
            segmenter: Any = make_segmenter(method, profile=profile, device=device)
        except WeightsError as error:
            missing[method] = str(error)
            continue
        maps[getattr(segmenter, "label", method)] = segmenter(subject.image, subject.classes).labels
    return ClassMaps(subject, maps, missing)


def maps_by_rung(subject: Subject, segmenters: Mapping[str, SDCI]) -> ClassMaps:
    """SDCI's Figure 5: the class maps after each step, and of the whole method.

    Args:
        subject: the image.
        segmenters: name -> SDCI. The steps are the first one's; each gives one map of the whole method (v1 and v2).
    """
    (first, sdci), *others = segmenters.items()
    rungs = ladder_labels(sdci, subject.image, subject.classes)
    *steps, whole = RUNGS
    maps: dict[str, Labels] = {name: rungs[name] for name in steps}
    maps[f"{whole} ({first})"] = rungs[whole]
    for name, other in others:
        maps[f"{whole} ({name})"] = other(subject.image, subject.classes).labels
    return ClassMaps(subject, maps, {})


def steps_of_figure5(scores: pd.DataFrame) -> pd.DataFrame:
    """Whether what the paper says of its Figure 5 holds at each step: noise suppressed, boundaries clearer.

    Args:
        scores: of :func:`maps_by_rung`; the maps of the whole method (one or two) each come after + BCDR.

    Returns:
        A row a step: regions and boundary F1 before and after, and yes or no; empty without the truth.
    """
    if "boundary F1 (%)" not in scores:
        return pd.DataFrame()
    names = [str(name) for name in scores.index if name != "truth"]
    whole = [name for name in names if name.startswith("+ CSCP")]
    steps = [name for name in names if name not in whole]
    pairs = [*itertools.pairwise(steps), *((steps[-1], name) for name in whole)]
    rows = {}
    for before, after in pairs:
        first, second = scores.loc[before], scores.loc[after]
        rows[after] = {
            "regions": f"{first['connected regions']:.0f} → {second['connected regions']:.0f}",
            "noise suppressed": bool(second["connected regions"] < first["connected regions"]),
            "boundary F1 (%)": f"{first['boundary F1 (%)']:.1f} → {second['boundary F1 (%)']:.1f}",
            "boundaries clearer": bool(second["boundary F1 (%)"] > first["boundary F1 (%)"]),
            "mIoU (%)": f"{first['mIoU (%)']:.1f} → {second['mIoU (%)']:.1f}",
            "mIoU rises": bool(second["mIoU (%)"] > first["mIoU (%)"]),
        }
    return pd.DataFrame(rows).T.rename_axis("step")


def record_table(table: pd.DataFrame) -> None:
    """Hand the numbers of a figure's table over as result rows; ``"... (%)"`` in a column's name is its unit."""
    values: dict[Any, Any] = table.stack().to_dict()
    for (row, column), value in values.items():
        if np.isfinite(value):
            metric, percent, _ = str(column).partition(" (%)")
            unit = "percent" if percent else ""
            record(str(row), metric, metric, float(value), unit=unit, dataset="one-image", n=1)


def _names(subject: Subject) -> list[str]:
    return [prompt.name for prompt in parse_classes(subject.classes)]


def _meter(subject: Subject, labels: Labels, truth: Labels) -> SegmentationMetrics:
    meter = SegmentationMetrics(_names(subject), ignore_index=IGNORED)
    meter.update(labels, truth)
    return meter


def _scores(subject: Subject, labels: Labels) -> dict[str, float]:
    """What can be said of one map; noise shows as many connected regions (4 neighbours)."""
    regions = float(connected_regions(labels, background=-1, connectivity=1).max())
    if subject.labels is None:
        return {"connected regions": regions}
    found = _meter(subject, labels, subject.labels).compute()
    return {
        "mIoU (%)": 100 * found["miou"],
        "boundary F1 (%)": 100 * found["boundary_f1"],
        "connected regions": regions,
    }


def say_missing(missing: Mapping[str, str]) -> str:
    """One line for each method without weights, or that nothing is missing."""
    lines: Sequence[str] = [f"{method}: {why}" for method, why in missing.items()]
    return (
        "\n".join(["Not shown, because weights are missing:", *lines]) if lines else "All methods have their weights."
    )
