"""Lesson 02, from image-level CLIP to pixels: what stands in the last block decides what a patch can say."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.ticker import PercentFormatter

from rsovlib.backbones.clip import ClipBackbone
from rsovlib.backbones.text import encode_classes
from rsovlib.data.classes import parse_classes
from rsovlib.experiments.lessons.exercises import ArrayExercise, Exercise, Feedback, NumberExercise, Prediction
from rsovlib.experiments.sdci.ladder import IGNORED
from rsovlib.experiments.subject import Subject
from rsovlib.metrics import SegmentationMetrics
from rsovlib.plots import Panel, Picture, class_shares, plot_panels
from rsovlib.plots.page import TICK
from rsovlib.segmenters import policies
from rsovlib.segmenters.dense import DenseClip, DenseConfig, LastBlock
from rsovlib.segmenters.images import RGB, patch_sides, resize_pil_bicubic, to_unit

Policy = Callable[[LastBlock], torch.Tensor | None]
Labelled = Iterable[tuple[RGB, npt.NDArray[np.uint8]]]

#: What multiplies the values of the last block: name -> map. The first is CLIP's own.
VARIANTS: dict[str, Policy] = {
    "q with k (CLIP)": lambda last: policies.query_key(last.query, last.key),
    "each itself (MaskCLIP)": lambda last: None,
    "q with q (ClearCLIP)": lambda last: policies.query_query(last.query),
    "q with q + k with k (SCLIP)": lambda last: policies.correlative(last.query, last.key),
    "k with k, near first (NACLIP)": lambda last: policies.neighbour_aware(
        last.key, policies.neighbourhood(last.grid, 5.0, like=last.key)
    ),
    "q, k, v each with itself (SegEarth-OV)": lambda last: policies.self_self(last.query, last.key, last.value),
}
#: The rest of the block: residuals and feed-forward kept, or the attention's output alone.
LAYOUTS = {"whole block": "full", "attention alone": "attention_only"}


class VariantCLIP(DenseClip[DenseConfig]):
    """CLIP with one of :data:`VARIANTS` and of :data:`LAYOUTS`; everything else is the same for all.

    Args:
        clip: image-text backbone.
        policy: what multiplies the values.
        layout: ``"full"`` or ``"attention_only"``.
        config: input size, windows, texts and temperature.
    """

    name = "variant"

    def __init__(self, clip: ClipBackbone, policy: Policy, layout: str, config: DenseConfig) -> None:
        super().__init__(clip, config)
        self.policy = policy
        self.layout = layout

    def attention(self, last: LastBlock) -> torch.Tensor | None:
        """The variant's map."""
        return self.policy(last)


def lesson_config(profile: str) -> DenseConfig:
    """Input and texts for a profile: the whole image at once, the same for all variants."""
    return DenseConfig.embedded(window=None) if profile == "embedded" else DenseConfig.official(window=None)


def whole_image(clip: ClipBackbone, subject: Subject, config: DenseConfig) -> pd.DataFrame:
    """What CLIP says of the image as a whole, beside what is there.

    Args:
        clip: the model.
        subject: the image.
        config: for size, texts and temperature.

    Returns:
        A row a class: ``cosine`` of the class token with the class's text, ``probability`` (softmax of the scaled
        cosines) and ``share of the area``, both 0 to 1; the share is NaN where the truth isn't known.
    """
    prompts = parse_classes(subject.classes)
    with torch.inference_mode():
        token = F.normalize(clip.project(_last_tokens(clip, subject.image, config))[0, 0], dim=0)
        cosines = encode_classes(clip, prompts, config.templates) @ token
        probability = (config.logit_scale * cosines).softmax(dim=0)
    unknown = np.full(len(prompts), np.nan)
    shares = unknown if subject.labels is None else class_shares(subject.labels, len(prompts))
    return pd.DataFrame(
        {
            "cosine": cosines.cpu().numpy(),
            "probability": probability.cpu().numpy(),
            "share of the area": shares,
        },
        index=pd.Index([prompt.name for prompt in prompts], name="class"),
    )


def plot_whole_image(table: pd.DataFrame) -> Picture:
    """The two shares of :func:`whole_image` as bars."""
    figure = Picture(figsize=(7, 0.42 * len(table) + 1.4), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(table))[::-1]
    for offset, column, colour in ((0.2, "probability", "#0072B2"), (-0.2, "share of the area", "#E69F00")):
        bars = axes.barh(places + offset, table[column], height=0.38, color=colour, label=f"{column}")
        axes.bar_label(bars, labels=[f"{100 * value:.0f} %" for value in table[column]], padding=2, fontsize=TICK)
    axes.set_yticks(places, list(table.index))
    axes.set_xlim(0, 1.1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=None))
    axes.set_xlabel("percent")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


@dataclass(frozen=True)
class Looking:
    """Where one patch looks under every variant.

    Attributes:
        subject: the image.
        point: (row, column) of the patch, in pixels.
        maps: variant -> (h, w), the mean over the heads of its row, without the class token, as multiples of a
            uniform one.
        own: variant -> percent of a patch's attention that falls on patches of its own class, mean over all patches
            of the image; NaN without the truth.
        own_by_chance: the same for attention that is spread evenly.
    """

    subject: Subject
    point: tuple[int, int]
    maps: dict[str, npt.NDArray[np.float32]]
    own: dict[str, float]
    own_by_chance: float

    def plot(self) -> Picture:
        """The image and all maps, on one scale."""
        top = float(np.percentile(np.stack(list(self.maps.values())), 99.5))
        panels = [Panel("image", self.subject.image, marks=(self.point,))]
        for name, values in self.maps.items():
            title = name.replace(" (", "\n(")
            panels.append(Panel(title, values, "multiples of uniform", (0.0, max(top, 1.0)), marks=(self.point,)))
        return plot_panels(panels, sides=self.subject.image.shape[:2], gsd=self.subject.gsd, columns=4)

    def focus(self) -> pd.DataFrame:
        """What falls on a patch's own class, in percent, over all patches of the image; even attention last."""
        shares = self.own | {"spread evenly": self.own_by_chance}
        column = "attention on the patch's own class (%)"
        return pd.DataFrame({column: shares}).rename_axis("last block's attention")

    def outcome(self, guess: str | None = None) -> Feedback:
        """What came true of :data:`FOCUS`: over all patches, not only the one that is drawn."""
        own = self.own["q with k (CLIP)"]
        return FOCUS.outcome(
            "a" if own > 50 else "b",
            f"Over all patches of this image {own:.0f} % of CLIP's own attention falls on the patch's own class; "
            f"spread evenly it would be {self.own_by_chance:.0f} %.",
            guess,
        )


def looking(clip: ClipBackbone, subject: Subject, config: DenseConfig, point: tuple[int, int]) -> Looking:
    """The attention of one patch under every variant.

    Args:
        clip: the model.
        subject: the image.
        config: for the size.
        point: (row, column) in pixels.
    """
    height, width = subject.image.shape[:2]
    with torch.inference_mode():
        model = VariantCLIP(clip, VARIANTS["q with k (CLIP)"], "full", config)
        last = model.last_block(_stream(clip, subject.image, config), _grid(clip, subject.image, config))
        rows, columns = last.grid
        alike, known = _alike(subject, last.grid)
        token = (point[0] * rows // height) * columns + point[1] * columns // width
        maps, own = {}, {}
        for name, policy in VARIANTS.items():
            weights = policy(last)
            if weights is None:
                attention = torch.eye(rows * columns)
            else:
                attention = weights[0].mean(dim=0)[1:, 1:].cpu().float()
            maps[name] = (attention[token] / attention[token].mean()).reshape(rows, columns).numpy()
            seen = attention[known][:, known]
            own[name] = 100 * float(((seen * alike).sum(dim=1) / seen.sum(dim=1)).mean())
    return Looking(subject, point, maps, own, 100 * float(alike.float().mean()))


def variant_maps(
    clip: ClipBackbone,
    subject: Subject,
    config: DenseConfig,
    layout: str = "attention alone",
    names: Iterable[str] = tuple(VARIANTS),
) -> dict[str, npt.NDArray[np.int64]]:
    """The class map (H, W) of every variant, or of some.

    Args:
        clip: the model.
        subject: the image.
        config: the same for all.
        layout: one of :data:`LAYOUTS`.
        names: of the variants.
    """
    return {
        name: VariantCLIP(clip, VARIANTS[name], LAYOUTS[layout], config)(subject.image, subject.classes).labels
        for name in names
    }


def plot_variants(subject: Subject, maps: dict[str, npt.NDArray[np.int64]]) -> Picture:
    """The image, the truth and every variant's map."""
    panels = [Panel("image", subject.image)]
    if subject.labels is not None:
        panels.append(Panel("truth", subject.labels))
    panels += [Panel(name.replace(" (", "\n("), labels) for name, labels in maps.items()]
    return plot_panels(panels, subject.classes, gsd=subject.gsd, columns=4)


def score_variants(clip: ClipBackbone, scenes: Labelled, classes: list[str], config: DenseConfig) -> pd.DataFrame:
    """mIoU in percent of every variant (row) in both layouts (column), over all scenes together."""
    names = [prompt.name for prompt in parse_classes(classes)]
    meters = {
        (variant, layout): SegmentationMetrics(names, ignore_index=IGNORED)
        for variant in VARIANTS
        for layout in LAYOUTS
    }
    for image, labels in scenes:
        for (variant, layout), meter in meters.items():
            model = VariantCLIP(clip, VARIANTS[variant], LAYOUTS[layout], config)
            meter.update(model(image, classes).labels, labels)
    table = pd.DataFrame(index=pd.Index(VARIANTS, name="last block's attention"), columns=list(LAYOUTS), dtype=float)
    for (variant, layout), meter in meters.items():
        table.loc[variant, layout] = 100 * meter.compute()["miou"]
    return table


def random_labels_score(scenes: Labelled, classes: list[str], seed: int = 0) -> float:
    """mIoU in percent of labels drawn at random, all classes alike: what "nothing" looks like in this metric."""
    names = [prompt.name for prompt in parse_classes(classes)]
    meter = SegmentationMetrics(names, ignore_index=IGNORED)
    rng = np.random.default_rng(seed)
    for _, labels in scenes:
        meter.update(rng.integers(0, len(names), labels.shape), labels)
    return 100 * float(meter.compute()["miou"])


# ---- what the lesson asks ----------------------------------------------------------------------------------------

WHERE = Prediction(
    "CLIP was trained with one vector an image. If every patch of its last layer is compared with the words instead, "
    "what will the map be like?",
    {"a": "coarse, but right: patches know what they show", "b": "little better than labels drawn at random"},
)
FOCUS = Prediction(
    "A patch of the last block looks at others by its query and their keys (q with k). Where will it look?",
    {
        "a": "at places of its own kind: more than half of its attention goes there",
        "b": "elsewhere: at most half of it does",
    },
)
LAYOUT = Prediction(
    "Each variant is run twice: in the whole block, with residual and feed-forward, and with the attention's output "
    "alone. What gives the better maps, on average over the variants?",
    {"a": "the whole block: it is what was trained", "b": "the attention alone"},
)


def neighbourhood_exercise() -> Exercise:
    """Omega of NACLIP on a grid of 1 x 3 patches."""
    return ArrayExercise(
        "Three patches stand in a row. NACLIP adds exp(-distance² / (2 σ²)) to the scores. With σ = 1 and without a "
        "class token, which 3 x 3 matrix is added?",
        lambda: policies.neighbourhood((1, 3), 1.0, class_token=False, like=torch.zeros(1)).numpy(),
        tolerance=1e-3,
        hint="The distance of a patch to itself is 0, to its neighbour 1, and from one end to the other 2.",
        explanation="The largest number is 1 and nothing is normalised: the softmax comes afterwards.",
    )


def tokens_exercise(clip: ClipBackbone, sides: tuple[int, int]) -> Exercise:
    """How many numbers an attention map of one head has."""
    rows, columns = (side // clip.patch_size for side in sides)
    return NumberExercise(
        f"The image has {sides[0]} x {sides[1]} pixels, a patch {clip.patch_size} x {clip.patch_size}. How many "
        "numbers does the attention map of one head have?",
        lambda: float((rows * columns + 1) ** 2),
        tolerance=0.5,
        hint="Every token attends to every token, and the patches aren't the only tokens.",
        explanation="The fourth power of the side: this is why large scenes are cut into windows.",
    )


# ---- details -------------------------------------------------------------------------------------------------------


def _alike(subject: Subject, grid: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Which patches have one class at their middles.

    Returns:
        (M, M) bool, and (M,) the indices of the M patches whose class is known (none without the truth).
    """
    if subject.labels is None:
        return torch.zeros(0, 0, dtype=torch.bool), torch.zeros(0, dtype=torch.int64)
    (height, width), (rows, columns) = subject.labels.shape, grid
    down = ((np.arange(rows) + 0.5) * height / rows).astype(int)
    across = ((np.arange(columns) + 0.5) * width / columns).astype(int)
    labels = torch.from_numpy(subject.labels[down[:, None], across].astype(np.int64)).flatten()
    known = torch.nonzero(labels != IGNORED).flatten()
    return labels[known][:, None] == labels[known], known


def _grid(clip: ClipBackbone, image: RGB, config: DenseConfig) -> tuple[int, int]:
    rows, columns = patch_sides(image.shape[0], image.shape[1], clip.patch_size, config.size)
    return rows // clip.patch_size, columns // clip.patch_size


def _pixels(clip: ClipBackbone, image: RGB, config: DenseConfig) -> torch.Tensor:
    sides = patch_sides(image.shape[0], image.shape[1], clip.patch_size, config.size)
    return clip.normalise(to_unit(resize_pil_bicubic(image, sides), clip.device))


def _walked(clip: ClipBackbone, image: RGB, config: DenseConfig, stop: int | None) -> Any:
    tokens = clip.embed(_pixels(clip, image, config), config.position_embedding)
    for step in clip.walk(tokens, stop=stop):
        tokens = step.output
    return tokens


def _stream(clip: ClipBackbone, image: RGB, config: DenseConfig) -> torch.Tensor:
    """Before the last block, (1, 1 + N, D)."""
    stream: torch.Tensor = _walked(clip, image, config, len(clip.blocks) - 1)
    return stream


def _last_tokens(clip: ClipBackbone, image: RGB, config: DenseConfig) -> torch.Tensor:
    """After the last block, (1, 1 + N, D)."""
    tokens: torch.Tensor = _walked(clip, image, config, None)
    return tokens
