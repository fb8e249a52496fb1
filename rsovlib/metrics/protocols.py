"""How each paper counts, by the paper's name.

Two programs can print mIoU of the same maps and differ by tens of points.  What decides is written down here, with
where it is known from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rsovlib.errors import InputError, unknown_name
from rsovlib.metrics.counts import MeanOver
from rsovlib.metrics.segmentation import SegmentationMetrics
from rsovlib.metrics.soft import PerImageSoftMetrics

_BACKGROUND_WORDS = frozenset({"background", "clutter", "backbroad"})


@dataclass(frozen=True)
class Protocol:
    """A paper's way of counting.

    Attributes:
        name: what :func:`as_in` takes.
        source: the paper, and where the rule is stated.
        images: ``"pooled"``: one confusion matrix over the set; ``"per image"``: a score an image, then their mean.
        mean_over: which classes a mean runs over, see :data:`rsovlib.metrics.counts.MeanOver`.
        background: ``"ignored"``: pixels of no class are dropped; ``"scored"``: they are a class of the list, first
            in it; ``"as listed"``: the class list of the data set decides.
        strata: kinds of pixels that are reported separately.
        printed_as: the unit of the paper's tables; our scores are always fractions.
        note: what a reader should know about it.
    """

    name: str
    source: str
    images: Literal["pooled", "per image"]
    mean_over: MeanOver
    background: Literal["ignored", "scored", "as listed"]
    strata: tuple[str, ...]
    printed_as: Literal["percent", "fraction"]
    note: str


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="sdci",
            source="SDCI, equation 19 and appendix C.2; which pixels and classes enter, from its released program",
            images="pooled",
            mean_over="truth",
            background="ignored",
            strata=(),
            printed_as="percent",
            note=(
                "Foreground classes only (GID 5, Potsdam 5, Vaihingen 5, LoveDA 6, iSAID 15); background, clutter and "
                "no-data carry 255 and are dropped, so nothing is lost by painting them. A class with ground truth "
                "that is never predicted counts as 0."
            ),
        ),
        Protocol(
            name="with-background",
            source="SegEarth-OV's comparison and the SCLIP family of programs (mmsegmentation's IoUMetric)",
            images="pooled",
            mean_over="union",
            background="scored",
            strata=(),
            printed_as="percent",
            note=(
                "Background is the first class of the list, predicted and scored like the others. Four iSAID numbers "
                "in SDCI's Table 1 (MaskCLIP, SCLIP, ClearCLIP, SegEarth-OV) coincide with this way of counting on 16 "
                "classes; they don't compare with that table's others."
            ),
        ),
        Protocol(
            name="mm-ovseg",
            source="MM-OVSeg, Tables 2 and A3 and its released evaluation (detectron2's)",
            images="pooled",
            mean_over="truth",
            background="as listed",
            strata=(),
            printed_as="percent",
            note=(
                "Argmax over seen and unseen classes together; seen and unseen mIoU are means over the subsets, so "
                "that mIoU = (n_seen seen + n_unseen unseen) / n. 'background' of PIE-RGB-SAR is a seen class. The "
                "harmonic mean isn't in the paper."
            ),
        ),
        Protocol(
            name="scenario-sampling",
            source="Latent-space-guided scenario sampling, Tables 1-9 and its released evaluation",
            images="per image",
            mean_over="truth",
            background="scored",
            strata=(),
            printed_as="fraction",
            note=(
                "One class against the rest, soft, image by image; images with an empty mask score their background. "
                "The +- is the population standard deviation over the images of one fold."
            ),
        ),
        Protocol(
            name="edc",
            source="EDC's predecessor CloudSeg (released program); of EDC itself only the abstract was available",
            images="pooled",
            mean_over="truth",
            background="ignored",
            strata=("clear", "cloudy"),
            printed_as="percent",
            note=(
                "One confusion matrix, also split into clear and cloudy pixels by the cloud mask. Which classes an "
                "absent one would belong to isn't stated; those with ground truth are taken. Unknown land cover of "
                "M3M-CR and background of WHU-OPT-SAR carry 255."
            ),
        ),
    )
}


def as_in(
    paper: str, classes: Sequence[str], unseen: Iterable[str] = (), **settings: Any
) -> SegmentationMetrics | PerImageSoftMetrics:
    """Empty scores that count as a paper does.

    Args:
        paper: a key of :data:`PROTOCOLS`: ``"sdci"``, ``"with-background"``, ``"mm-ovseg"``, ``"scenario-sampling"``
            or ``"edc"``.
        classes: names of the classes in the order of the labels; for scenario sampling the one class.
        unseen: names of those that weren't trained on.
        **settings: more of :class:`SegmentationMetrics` (or :class:`PerImageSoftMetrics`), such as ``keep_images``.

    Returns:
        :class:`PerImageSoftMetrics` for scenario sampling, else :class:`SegmentationMetrics`.

    Raises:
        InputError: an unknown paper, a class list that can't be counted this way, or a setting that the paper's
            way of counting fixes.
    """
    if paper not in PROTOCOLS:
        raise unknown_name("paper whose metrics are known", paper, PROTOCOLS)
    protocol = PROTOCOLS[paper]
    names = [classes] if isinstance(classes, str) else list(classes)
    if fixed := sorted({"mean_over", "strata"} & settings.keys()):
        raise InputError(
            f"{fixed[0]} is fixed by the way {paper!r} counts; make SegmentationMetrics(...) to choose it yourself."
        )
    if protocol.images == "per image":
        if len(names) != 1 or list(unseen):
            raise InputError(f"{paper!r} scores one class against the rest; give this class alone, and none unseen.")
        return PerImageSoftMetrics(names[0], **settings)
    background = [name for name in names if name.lower() in _BACKGROUND_WORDS]
    if protocol.background == "ignored" and background:
        raise InputError(
            f"{paper!r} drops the pixels of {background[0]!r}; give them ignore_index in the labels and leave the "
            "class out, or count as in 'with-background'."
        )
    if protocol.background == "scored" and not background:
        raise InputError(f"{paper!r} scores the background as a class; name it in the list, or count as in 'sdci'.")
    return SegmentationMetrics(names, unseen=unseen, mean_over=protocol.mean_over, strata=protocol.strata, **settings)
