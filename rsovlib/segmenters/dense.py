"""One engine for the compared training-free methods: CLIP up to its last block, then whatever a method does there.

A method is a subclass that says what it changes: :meth:`DenseClip.attention` gives another map for the last block, or
:meth:`DenseClip.scores` does more. Input sizes, windows, text, temperature and thresholds are options of its
configuration with the authors' values as defaults.

    resize -> windows -> CLIP without its last block -> the method's last block -> cosines with the class names
    -> windows averaged -> image size -> softmax -> names merged -> classes
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
import torch.nn.functional as F

from rsovlib.backbones.clip import ClipBackbone
from rsovlib.backbones.dino import DinoBackbone
from rsovlib.backbones.position import POSITION_DIALECTS
from rsovlib.backbones.text import template_set
from rsovlib.data.classes import ClassPrompt, parse_classes
from rsovlib.errors import InputError, unknown_name
from rsovlib.segmenters.base import Segmentation
from rsovlib.segmenters.images import RGB, as_rgb, enlarge, resize_tensor_bicubic, to_unit
from rsovlib.segmenters.pamr import pamr
from rsovlib.segmenters.policies import Grid
from rsovlib.segmenters.queries import MERGES, Queries, encode_queries
from rsovlib.segmenters.sliding import SIZE_RULES, Place, input_sides, resize_bilinear, slide
from rsovlib.segmenters.texts import Texts, text_features, use_text_features


@dataclass(frozen=True)
class DenseConfig:
    """What all compared methods can be told; each method's defaults are its authors'.

    Attributes:
        size: S of the size rule, in pixels; None keeps the image's scale.
        size_rule: ``"short"`` or ``"box"``, see ``sliding.SIZE_RULES``.
        window: side of the sliding window in the resized image, in pixels; None for the whole image at once.
        stride: from one window to the next, in pixels.
        pad_to: windows get zeros up to multiples of this (and of the patch, always).
        position_embedding: dialect in which CLIP's position embedding is resized.
        templates: of the class texts.
        merge: how several names of one class are merged, see ``queries.MERGES``.
        logit_scale: lambda before the softmax over the names.
        prob_threshold: pixels whose best class has less become ``background_index``; 0 for none.
        background_index: the class that stands for everything else, where there is one.
        area_threshold: classes with a smaller share of the foreground than this are dropped; 0 for none.
        pamr_steps: steps of PAMR on the final scores; 0 for none.
        pamr_dilations: its neighbours' distances in pixels.
    """

    size: int | None = 448
    size_rule: str = "short"
    window: int | None = 448
    stride: int = 224
    pad_to: int | None = None
    position_embedding: str = "bicubic_offset"
    templates: str | tuple[str, ...] = "openai80"
    merge: str = "max_prob"
    logit_scale: float = 50.0
    prob_threshold: float = 0.0
    background_index: int = 0
    area_threshold: float = 0.0
    pamr_steps: int = 0
    pamr_dilations: tuple[int, ...] = (8, 16)

    #: What suits the embedded models: the image's own scale, windows as SDCI's, and the texts they were trained with.
    EMBEDDED: ClassVar[dict[str, Any]] = {"size": None, "window": 256, "stride": 192, "templates": "rs10"}
    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {
        "size_rule": tuple(SIZE_RULES),
        "merge": tuple(MERGES),
        "position_embedding": tuple(POSITION_DIALECTS),
    }
    RANGES: ClassVar[dict[str, tuple[float, float]]] = {
        "size": (1, math.inf),
        "window": (1, math.inf),
        "stride": (1, math.inf),
        "pad_to": (1, math.inf),
        "logit_scale": (0, math.inf),
        "prob_threshold": (0, 1),
        "background_index": (0, math.inf),
        "area_threshold": (0, 1),
        "pamr_steps": (0, math.inf),
    }

    def __post_init__(self) -> None:
        for name, choices in self.CHOICES.items():
            if getattr(self, name) not in choices:
                raise unknown_name(f"value of {name}", getattr(self, name), choices)
        for name, (low, high) in self.RANGES.items():
            value = getattr(self, name)
            # Written so that "not a number" fails too.
            if value is not None and not low <= value <= high:
                limit = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
                raise InputError(f"{name} must be {limit}, got {value}.")
        if self.window is not None and self.stride > self.window:
            raise InputError(f"A stride of {self.stride} leaves gaps between windows of {self.window}.")
        template_set(self.templates)

    @classmethod
    def official(cls, **changes: Any) -> Self:
        """The authors' values, with changes.

        Raises:
            InputError: there is no such option, or its value is out of range.
        """
        names = [entry.name for entry in fields(cls)]
        for name in changes:
            if name not in names:
                raise unknown_name(f"option of {cls.__name__.removesuffix('Config')}", name, names)
        return replace(cls(), **changes)

    @classmethod
    def embedded(cls, **changes: Any) -> Self:
        """The same with the sizes that suit the embedded models; windows overlap by a quarter."""
        return cls.official(**{**cls.EMBEDDED, **changes})


@dataclass(frozen=True)
class LastBlock:
    """What a method may build its map from.

    Attributes:
        tokens: (1, 1 + N, D), the residual stream before the last block.
        query, key, value: (1, heads, 1 + N, d) of the last block.
        grid: rows and columns of patches.
    """

    tokens: torch.Tensor
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    grid: Grid


@dataclass(frozen=True)
class Window:
    """One window as the network sees it.

    Attributes:
        pixels: (1, 3, H, W), normalised with CLIP's statistics.
        place: where it lies.
        grid: rows and columns of CLIP's patches.
        context: what :meth:`DenseClip.prepare` made of the whole image.
    """

    pixels: torch.Tensor
    place: Place
    grid: Grid
    context: Any


ConfigT = TypeVar("ConfigT", bound=DenseConfig)


class DenseClip(Generic[ConfigT]):
    """CLIP as a segmenter; a method's subclass says what happens in the last block.

    Args:
        clip: image-text backbone.
        config: options; the authors' values if not given.
    """

    name: ClassVar[str]
    config_type: ClassVar[type[DenseConfig]] = DenseConfig
    #: ``"full"``: residuals and feed-forward of the last block kept; ``"attention_only"``: neither.
    layout: str = "attention_only"

    def __init__(self, clip: ClipBackbone, config: ConfigT | None = None) -> None:
        self.clip = clip
        self.config: ConfigT = self.config_type() if config is None else config  # type: ignore[assignment]

    # ---- what a method changes -----------------------------------------------------------------------------

    def attention(self, last: LastBlock) -> torch.Tensor | None:
        """The map (1, heads or 1, L, L) that multiplies the last block's values; None for the identity."""
        raise NotImplementedError

    def scores(self, window: Window, queries: Queries) -> torch.Tensor:
        """Cosines of one window with all M names, (M, rows, columns), on any grid."""
        last = self.last_block(self.before_last(window), window.grid)
        features = self.read(last, self.attention(last))
        return self.compare(features[1:], queries, last.grid)

    def prepare(self, image: RGB, pixels: torch.Tensor) -> Any:
        """What is made once for an image and handed to all its windows: nothing here.

        Args:
            image: (H, W, 3) uint8, the original.
            pixels: (1, 3, h, w), resized and normalised.
        """
        return None

    @property
    def label(self) -> str:
        """The name for result rows; stand-ins for parts that can't be had change it."""
        return self.name

    # ---- the segmenter protocol ----------------------------------------------------------------------------

    @property
    def tiling(self) -> tuple[int, int]:
        """Tile and overlap in pixels that suit large scenes."""
        return (512, 128)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.clip.device

    def __call__(self, image: Any, classes: str | Sequence[str]) -> Segmentation:
        """Segment one image; stages: ``class_scores`` (K, H, W), cosines before the softmax.

        Raises:
            InputError: bad image or classes.
        """
        rgb = as_rgb(image)
        prompts = parse_classes(classes)
        thresholds = self.config.prob_threshold > 0 or self.config.area_threshold > 0
        if thresholds and self.config.background_index >= len(prompts):
            raise InputError(
                f"background_index is {self.config.background_index}, and there are {len(prompts)} classes, counted "
                "from 0; name the class of the background, or set prob_threshold and area_threshold to 0."
            )
        with torch.inference_mode():
            result = self._segment(rgb, prompts)
        result.settings = self.settings()
        return result

    def memory_needed(self, height: int, width: int, classes: int) -> int:
        """Foreseen peak in bytes above the models."""
        sides = input_sides(height, width, self.config.size, self.config.size_rule)
        place = max(self._places(*sides), key=lambda p: p.sides[0] * p.sides[1])
        tokens = place.sides[0] * place.sides[1] // self.clip.patch_size**2 + 1
        # Several maps of the last block, what it was computed from, and every pixel's scores with what becomes of them.
        maps = 5 * self.clip.heads * tokens**2
        features = 24 * tokens * self.clip.width
        canvas = 2 * classes * sides[0] * sides[1] + (5 * classes + 60 * bool(self.config.pamr_steps)) * height * width
        return 4 * (maps + features + canvas + 12 * sides[0] * sides[1])

    def settings(self) -> dict[str, Any]:
        """Method, weights and parameters as plain values."""
        return {
            "method": self.label,
            "clip": f"{self.clip.name} / {self.clip.weights}",
            "clip_sha256": self.clip.sha256,
            "layout": self.layout,
            **asdict(self.config),
        }

    def text_features(self, classes: str | Sequence[str]) -> Texts | None:
        """The texts of these classes, for another process; see :func:`rsovlib.segmenters.texts.text_features`."""
        return text_features(self.clip, lambda: self.encode_text(parse_classes(classes)))

    def use_text_features(self, texts: Texts) -> None:
        """Take over what :meth:`text_features` gave elsewhere."""
        use_text_features(self.clip, texts)

    # ---- the steps -----------------------------------------------------------------------------------------

    def encode_text(self, prompts: Sequence[ClassPrompt]) -> Queries:
        """The names of all classes."""
        return encode_queries(self.clip, prompts, self.config.templates, self.config.merge)

    def normalise(self, unit: torch.Tensor) -> torch.Tensor:
        """RGB in [0, 1] as CLIP wants it."""
        return self.clip.normalise(unit)

    def logits(self, image: RGB, queries: Queries) -> torch.Tensor:
        """Cosines with all names, windows averaged, at the image's size: (M, H, W)."""
        height, width = image.shape[:2]
        sides = input_sides(height, width, self.config.size, self.config.size_rule)
        pixels = self.normalise(to_unit(resize_bilinear(image, sides), self.clip.device))
        context = self.prepare(image, pixels)
        canvas = pixels.new_zeros(len(queries.vectors), *sides)
        count = pixels.new_zeros(sides)
        patch = self.clip.patch_size
        for place in self._places(*sides):
            grid = (place.sides[0] // patch, place.sides[1] // patch)
            scores = self.scores(Window(place.cut(pixels), place, grid, context), queries)
            inside = slice(place.row, place.row + place.height), slice(place.column, place.column + place.width)
            canvas[:, *inside] += place.uncover(enlarge(scores, place.sides))
            count[inside] += 1
        return enlarge(canvas / count, (height, width))

    def decide(self, image: RGB, logits: torch.Tensor, queries: Queries) -> torch.Tensor:
        """Probabilities (K, H, W) that sum to 1, of which the largest is the class that the method decides for."""
        config = self.config
        if config.pamr_steps:
            picture = self.clip.normalise(to_unit(image, logits.device))[0]
            logits = pamr(picture, logits, config.pamr_steps, config.pamr_dilations)
        scores = queries.merged((config.logit_scale * logits).softmax(dim=0))
        probabilities = scores / scores.sum(dim=0)
        if config.area_threshold > 0:
            scores = self._without_small_areas(scores)
        best, labels = scores.max(dim=0)
        labels = torch.where(best < config.prob_threshold, config.background_index, labels)
        return with_labels(probabilities, labels)

    def before_last(self, window: Window) -> torch.Tensor:
        """The residual stream before the last block, (1, 1 + N, D)."""
        tokens = self.clip.embed(window.pixels, self.config.position_embedding)
        for step in self.clip.walk(tokens, stop=len(self.clip.blocks) - 1):
            tokens = step.output
        return tokens

    def last_block(self, tokens: torch.Tensor, grid: Grid) -> LastBlock:
        """q, k and v of the last block."""
        block = self.clip.blocks[-1]
        return LastBlock(tokens, *self.clip.query_key_value(block, block.ln_1(tokens)), grid)

    def read(self, last: LastBlock, weights: torch.Tensor | None) -> torch.Tensor:
        """The last block with this map in place of its attention, projected to the joint space: (L, E)."""
        block = self.clip.blocks[-1]
        attended = self.clip.join_heads(block, last.value if weights is None else weights @ last.value)
        if self.layout == "full":
            attended = self.clip.finish(block, last.tokens, attended)
        return self.clip.project(attended)[0]

    def compare(self, features: torch.Tensor, queries: Queries, grid: Grid) -> torch.Tensor:
        """Cosines of (N, E) patch features with the names, as maps (M, *grid)."""
        return (queries.vectors @ F.normalize(features, dim=-1).T).unflatten(1, grid)

    # ---- details -------------------------------------------------------------------------------------------

    def _segment(self, rgb: RGB, prompts: Sequence[ClassPrompt]) -> Segmentation:
        queries = self.encode_text(prompts)
        logits = self.logits(rgb, queries)
        return Segmentation.from_probabilities(
            self.decide(rgb, logits, queries).cpu().numpy(),
            [prompt.name for prompt in prompts],
            stages={"class_scores": queries.merged(logits).cpu().numpy()},
            image=rgb,
        )

    def _places(self, height: int, width: int) -> list[Place]:
        multiple = math.lcm(self.config.pad_to or 1, self.clip.patch_size)
        return list(slide(height, width, self.config.window, self.config.stride, multiple))

    def _without_small_areas(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores of classes that take up too little of the foreground set to 0; the background stays."""
        background = self.config.background_index
        areas = torch.bincount(scores.argmax(dim=0).reshape(-1), minlength=len(scores)).to(scores)
        foreground = areas.sum() - areas[background]
        small = areas < self.config.area_threshold * foreground
        small[background] = False
        return scores * ~small[:, None, None]


class DenseClipDino(DenseClip[ConfigT]):
    """A method whose last attention comes from a second network.

    Args:
        clip: image-text backbone.
        dino: structural backbone.
        config: options; the authors' values if not given.
    """

    def __init__(self, clip: ClipBackbone, dino: DinoBackbone, config: ConfigT | None = None) -> None:
        super().__init__(clip, config)
        self.dino = dino

    def settings(self) -> dict[str, Any]:
        """Method, weights and parameters as plain values."""
        return {
            **super().settings(),
            "dino": f"{self.dino.name} / {self.dino.weights}",
            "dino_sha256": self.dino.sha256,
        }

    def memory_needed(self, height: int, width: int, classes: int) -> int:
        """Foreseen peak in bytes above the models."""
        sides = input_sides(height, width, self.config.size, self.config.size_rule)
        place = max(self._places(*sides), key=lambda p: p.sides[0] * p.sides[1])
        rows, columns = self.dino_grid(place.sides)
        tokens = rows * columns + self.dino.prefix_tokens
        # DINO's last map with what it came from, or the cosines with their mask; and the values on its grid.
        more = max(4 * self.dino.heads, 7) * tokens**2 + 3 * classes * tokens + 12 * tokens * self.clip.width
        return super().memory_needed(height, width, classes) + 4 * more

    def dino_grid(self, sides: tuple[int, int]) -> Grid:
        """Rows and columns of DINO's patches for a window of these sides."""
        scale = getattr(self.config, "dino_scale", None)
        if scale is None:
            rows, columns = (max(1, round(side / self.dino.patch_size)) for side in sides)
        else:
            rows, columns = (max(1, round(side / self.clip.patch_size * scale)) for side in sides)
        return rows, columns

    def dino_pixels(self, window: Window) -> torch.Tensor:
        """The same window as DINO wants it: its own statistics, sides that its patch divides."""
        mean = window.pixels.new_tensor(self.clip.mean)[:, None, None]
        std = window.pixels.new_tensor(self.clip.std)[:, None, None]
        pixels = self.dino.normalise(window.pixels * std + mean)
        rows, columns = self.dino_grid(window.place.sides)
        return resize_tensor_bicubic(pixels, (rows * self.dino.patch_size, columns * self.dino.patch_size))

    @staticmethod
    def carry_values(value: torch.Tensor, source: Grid, target: Grid) -> torch.Tensor:
        """Values without class token (1, heads, N, d), bilinearly to another grid."""
        if source == target:
            return value
        heads, _, size = value.shape[1:]
        images = value.transpose(2, 3).reshape(1, heads * size, *source)
        resized = F.interpolate(images, size=target, mode="bilinear", align_corners=False)
        return resized.reshape(1, heads, size, -1).transpose(2, 3)


def with_labels(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Probabilities whose largest is the wanted class: where it isn't, it changes places with the largest.

    Args:
        probabilities: (K, H, W).
        labels: (H, W).

    Returns:
        (K, H, W), summing to what they summed to.
    """
    best, winner = probabilities.max(dim=0, keepdim=True)
    wanted = labels[None]
    own = probabilities.gather(0, wanted)
    # Where the winner is the wanted class, both lines write the same number.
    return probabilities.scatter(0, winner, own).scatter(0, wanted, best)
