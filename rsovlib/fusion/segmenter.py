"""Trained fusion networks as segmenters: windows of the training's size, blended; with radar, with some, or without.

The network decides for each class by itself whether it is there. A map needs one class a pixel, and probabilities that
sum to one: given that exactly one of K independent yes-or-no questions is answered with yes, the probability that it is
class k is proportional to its odds, and the odds are exp(logit). So probabilities are the softmax of the logits, and
labels their largest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F

from rsovlib.backbones import load_clip, load_dino
from rsovlib.data.classes import ClassPrompt, parse_classes
from rsovlib.data.tiling import TileGrid, tile_grid
from rsovlib.errors import InputError, WeightsError, unknown_name
from rsovlib.fusion.config import SWITCHES, FusionConfig
from rsovlib.fusion.embedded import NAMES, embedded_fusions
from rsovlib.fusion.network import CostAggregationNetwork
from rsovlib.fusion.weights import load_fusion
from rsovlib.segmenters.base import Segmentation
from rsovlib.segmenters.images import as_rgb, as_sar, enlarge, to_unit
from rsovlib.segmenters.texts import Texts, text_features, use_text_features

if TYPE_CHECKING:
    from rsovlib.fusion.weights import Trained

#: Architecture -> CLIP and DINO (name, weights) of the full profile. The papers' remote-sensing DINO ("RSIB") and their
#: SAR encoders are not published where they could be fetched by name; DINO v1 has the same shape.
FULL = {
    "vit-b": (("ViT-B-16-quickgelu", "openai"), ("vit_base_patch8_224", "dino")),
    "vit-l": (("ViT-L-14-336-quickgelu", "openai"), ("vit_large_patch16_dinov3", "sat493m")),
}
#: Bytes that any pass takes: buffers of the libraries.
_LEAST_MEMORY = 16_000_000
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class FusionOptions:
    """How a network is run over an image.

    Attributes:
        short_side: the image is resized so that its short side has so many pixels; None keeps its scale. The papers
            resize to 384.
        window: side in pixels of what the network sees at once; None for the size that it was trained on, 0 for the
            whole image.
        overlap: pixels that neighbouring windows share at least; None for a quarter of a window.
        batch: windows that go through the network together.
        precision: ``"float32"``; or ``"bfloat16"``, ``"float16"`` on a GPU.
        keep_stages: whether costs and logits are kept beside the result.
    """

    short_side: int | None = None
    window: int | None = None
    overlap: int | None = None
    batch: int = 8
    precision: str = "float32"
    keep_stages: bool = True

    def __post_init__(self) -> None:
        for name, least in (("short_side", 1), ("window", 0), ("overlap", 0), ("batch", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} must be at least {least}, got {value}.")
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)


@dataclass
class FusionSegmenter:
    """A trained network as a segmenter (``segmenters.base.SarSegmenter``).

    Args:
        network: the network; it is frozen here.
        method: its name for result rows.
        options: see :class:`FusionOptions`.

    Raises:
        InputError: a precision that the device hasn't.
    """

    network: Trained
    method: str
    options: FusionOptions = FusionOptions()

    def __post_init__(self) -> None:
        self.network.freeze()
        if self.options.precision != "float32" and self.device.type == "cpu":
            raise InputError(f"precision={self.options.precision!r} needs a GPU; use 'float32' on the CPU.")
        if self.window and self.overlap >= self.window:
            raise InputError(f"An overlap of {self.overlap} pixels leaves nothing of a window of {self.window}.")

    @property
    def uses_sar(self) -> bool:
        """Whether there is a branch for radar."""
        return bool(self.network.config.uses_sar)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.network.clip.device

    @property
    def window(self) -> int:
        """Side of a window in pixels, 0 for the whole image."""
        return self.network.config.size if self.options.window is None else self.options.window

    @property
    def overlap(self) -> int:
        """Pixels that windows share at least."""
        return self.window // 4 if self.options.overlap is None else self.options.overlap

    @property
    def tiling(self) -> tuple[int, int]:
        """Tile and overlap in pixels that suit large scenes: several windows a tile."""
        return (512, 128) if not self.window else (4 * self.window - 3 * self.overlap, self.overlap)

    # ---- the segmenter protocol ----------------------------------------------------------------------------

    def __call__(
        self, image: Any, classes: str | Sequence[str], sar: Any = None, sar_valid: Any = None
    ) -> Segmentation:
        """Segment one image.

        Args:
            image: numpy (H, W, 3) uint8, or torch (3, H, W); any size.
            classes: K classes, ``"a, b, c"`` being synonyms of one.
            sar: radar on the same grid, see ``segmenters.images.as_sar``; None: there is none.
            sar_valid: (H, W) bool, where it holds data; None for everywhere.

        Returns:
            The segmentation. Stages (K, H, W): ``logits``, ``cost_clip`` and ``cost_dino`` (cosines, mean over the
            templates), ``fused`` and ``refined`` (mean over the channels of the volume before and after the
            aggregator); of EBSeg only ``logits``.

        Raises:
            InputError: bad image, classes or radar, or radar for a network without a place for it.
        """
        return self.segment_batch([image], classes, [sar], [sar_valid])[0]

    def segment_batch(
        self,
        images: Sequence[Any],
        classes: str | Sequence[str],
        sar: Sequence[Any] | None = None,
        sar_valid: Sequence[Any] | None = None,
    ) -> list[Segmentation]:
        """Segment several images; windows of one size go through the network together, whosever they are."""
        prompts = parse_classes(classes)
        radars, valids = sar or [None] * len(images), sar_valid or [None] * len(images)
        with torch.inference_mode():
            views = [self._view(i, s, v) for i, s, v in zip(images, radars, valids, strict=True)]
            text = self.network.encode_text(prompts)
            maps = self._maps(views, text)
            return [self._decide(view, prompts, found) for view, found in zip(views, maps, strict=True)]

    def memory_needed(self, height: int, width: int, classes: int) -> int:
        """Foreseen peak in bytes above the models, float32."""
        config = self.network.config
        scale = 1.0 if self.options.short_side is None else self.options.short_side / min(height, width)
        sides = [max(1, round(side * scale)) for side in (height, width)]
        seen = [min(side, self.window) if self.window else side for side in sides]
        count = min(self.options.batch, len(self._grid((sides[0], sides[1]))))
        cells = max(1, round(seen[0] / config.cell)) * max(1, round(seen[1] / config.cell))
        backbones = 26 * cells * max(self.network.clip.width, 4 * (config.dino_finer**2) * self.network.clip.width // 4)
        volume = classes * cells * self.network.volume_channels
        stages = 5 if self.options.keep_stages else 1
        canvas = (stages + 2) * classes * (height * width + sides[0] * sides[1]) + 16 * height * width
        return _LEAST_MEMORY + 4 * (count * (backbones + volume + 12 * seen[0] * seen[1]) + canvas)

    def settings(self) -> dict[str, Any]:
        """Method, weights and parameters as plain values."""
        network = self.network
        found = {
            "method": self.method,
            "weights": network.provenance.weights,
            "weights_sha256": network.provenance.sha256,
            "clip": f"{network.clip.name} / {network.clip.weights}",
            "clip_sha256": network.clip.sha256,
        }
        # "sar_dino" is one of the configuration's switches.
        for name, dino in (("dino", network.optical_dino), ("radar_dino", network.sar_dino)):
            if dino is not None:
                found |= {name: f"{dino.name} / {dino.weights}", f"{name}_sha256": dino.sha256}
        return (
            found | network.config.to_dict() | asdict(self.options) | {"window": self.window, "overlap": self.overlap}
        )

    def text_features(self, classes: str | Sequence[str]) -> Texts | None:
        """The texts of these classes, for another process; see :func:`rsovlib.segmenters.texts.text_features`."""
        return text_features(self.network.clip, lambda: self.network.encode_text(parse_classes(classes)))

    def use_text_features(self, texts: Texts) -> None:
        """Take over what :meth:`text_features` gave elsewhere."""
        use_text_features(self.network.clip, texts)

    # ---- the steps -----------------------------------------------------------------------------------------

    def _view(self, image: Any, sar: Any, sar_valid: Any) -> _View:
        """An image as tensors, resized if so wanted."""
        rgb = as_rgb(image)
        shape = (rgb.shape[0], rgb.shape[1])
        parts = [to_unit(rgb, self.device)]
        if sar is not None:
            if not self.uses_sar:
                raise InputError(f"{self.method} can't use a radar image; call it without sar.")
            radar, there = as_sar(sar, sar_valid, shape)
            parts += [to_unit(radar, self.device), torch.from_numpy(there).to(self.device).float()[None, None]]
        if self.options.short_side is not None:
            scale = self.options.short_side / min(shape)
            sides = (max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale)))
            parts = [F.interpolate(part, size=sides, mode="bilinear", align_corners=False) for part in parts]
        return _View(rgb, *parts)

    def _grid(self, sides: tuple[int, int]) -> TileGrid:
        window = self.window or max(sides)
        # A side shorter than a window is taken whole.
        return tile_grid(*sides, window, self.overlap if self.window else 0)

    def _maps(self, views: Sequence[_View], text: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        """Class maps of every view, (K, h, w) at the size that the network saw, windows blended.

        Where it sees the whole image at once, they stay at the size that it gives, so that they are resized only once.
        """
        canvases: list[dict[str, torch.Tensor]] = [{} for _ in views]
        for batch in _batches(views, self._grid, self.options.batch):
            found = self._run(torch.cat([place.optical for place in batch]), text, batch)
            for row, place in enumerate(batch):
                if not self.window:
                    canvases[place.view] = {name: value[row] for name, value in found.items()}
                    continue
                weights = torch.from_numpy(place.weights).to(self.device)
                canvas = canvases[place.view]
                for name, value in found.items():
                    whole = canvas.setdefault(name, value.new_zeros(value.shape[1], *views[place.view].sides))
                    whole[:, *place.slices] += weights * value[row]
        return canvases

    def _run(self, optical: torch.Tensor, text: torch.Tensor, batch: Sequence[_Window]) -> dict[str, torch.Tensor]:
        """Maps (B, K, h, w) of windows, at the windows' size; at the network's own where it sees the whole image."""
        sar = valid = None
        if batch[0].sar is not None:
            sar = torch.cat([cast(torch.Tensor, place.sar) for place in batch])
            valid = torch.cat([cast(torch.Tensor, place.valid) for place in batch])
        dtype = PRECISIONS[self.options.precision]
        with nullcontext() if dtype == torch.float32 else torch.autocast(self.device.type, dtype):
            out = self.network.run(optical, text, sar, valid)
        logits = out.logits.float()
        # The release resizes what the sigmoid made of them.
        before_resize = not self.network.config.readings.shows_logits_resized
        found = {"logits": logits.sigmoid() if before_resize else logits}
        if self.options.keep_stages:
            found |= {name: value.float() for name, value in out.stage_maps().items()}
        if not self.window:
            return found
        sides = (optical.shape[-2], optical.shape[-1])
        return {name: F.interpolate(m, size=sides, mode="bilinear", align_corners=False) for name, m in found.items()}

    def _decide(self, view: _View, prompts: Sequence[ClassPrompt], maps: dict[str, torch.Tensor]) -> Segmentation:
        shape = (view.image.shape[0], view.image.shape[1])
        full = {name: enlarge(value, shape) for name, value in maps.items()}
        if not self.network.config.readings.shows_logits_resized:
            full["logits"] = torch.logit(full["logits"], eps=1e-6)
        probabilities = full["logits"].softmax(dim=0)
        return Segmentation.from_probabilities(
            probabilities.cpu().numpy(),
            [prompt.name for prompt in prompts],
            stages={name: value.cpu().numpy() for name, value in full.items()} if self.options.keep_stages else {},
            image=view.image,
            settings=self.settings(),
        )


@dataclass(frozen=True)
class _View:
    """One image: as it was given, and as tensors (1, 3, H, W), (1, 3, H, W) and (1, 1, H, W) in [0, 1]."""

    image: np.ndarray[Any, np.dtype[np.uint8]]
    optical: torch.Tensor
    sar: torch.Tensor | None = None
    valid: torch.Tensor | None = None

    @property
    def sides(self) -> tuple[int, int]:
        return self.optical.shape[-2], self.optical.shape[-1]


@dataclass(frozen=True)
class _Window:
    """One window of one view, with its weights in the blend."""

    view: int
    slices: tuple[slice, slice]
    weights: np.ndarray[Any, np.dtype[np.float32]]
    optical: torch.Tensor
    sar: torch.Tensor | None
    valid: torch.Tensor | None


def _batches(views: Sequence[_View], grid: Any, size: int) -> Iterator[list[_Window]]:
    """Windows that can go through a network together: of one size, and all with radar or all without."""
    waiting: dict[tuple[Any, ...], list[_Window]] = {}
    for number, view in enumerate(views):
        tiles = grid(view.sides)
        for tile in tiles:
            parts = [
                None if part is None else part[:, :, *tile.slices] for part in (view.optical, view.sar, view.valid)
            ]
            place = _Window(number, tile.slices, tiles.weights(tile), *cast(Any, parts))
            if place.valid is not None and not bool(place.valid.any()):
                place = replace(place, sar=None, valid=None)  # nothing of the radar reaches here
            key = (*place.optical.shape, place.sar is None)
            group = waiting.setdefault(key, [])
            group.append(place)
            if len(group) == size:
                yield waiting.pop(key)
    yield from waiting.values()


def make_fusion_segmenter(
    method: str = "mm-ovseg",
    *,
    profile: str = "embedded",
    device: str = "auto",
    weights: str | os.PathLike[str] | None = None,
    architecture: str = "vit-b",
    clip: str | None = None,
    clip_weights: str | os.PathLike[str] | None = None,
    dino: str | None = None,
    dino_weights: str | os.PathLike[str] | None = None,
    **options: Any,
) -> FusionSegmenter:
    """A trained segmenter by name, with its networks loaded.

    A network of the papers, as they evaluate it: ``profile="full", weights="mm-ovseg.safetensors", short_side=384,
    window=0``.

    Args:
        method: ``"mm-ovseg"``, ``"mm-ovseg-no-cmu"`` (its SAR encoder is the optical one), ``"gsnet"``, ``"cat-seg"``
            or ``"ebseg"``.
        profile: ``"embedded"``: the small network that ships with the package; ``"full"``: the papers' size.
        device: where to compute.
        weights: another network: an embedded one's name (``"rsov-tiny-mmovseg-s1"``), a file that was trained here, or
            ``"random"`` (for shapes and costs only). The full profile needs it, for nobody publishes such a file.
        architecture: of random weights in the full profile, ``"vit-b"`` or ``"vit-l"``.
        clip: the CLIP that a file was trained on, as ``load_clip`` takes it, where the file's own name for it doesn't
            lead there; another one is refused.
        clip_weights: its weights.
        dino: likewise, as ``load_dino`` takes it.
        dino_weights: its weights.
        **options: see :class:`FusionOptions`.

    Raises:
        InputError: unknown method, profile or option, or weights of another method.
        WeightsError: weights that aren't there.
    """
    if method not in NAMES:
        raise unknown_name("trained method", method, NAMES)
    if profile not in ("embedded", "full"):
        raise unknown_name("profile", profile, ("embedded", "full"))
    known = list(FusionOptions.__dataclass_fields__)
    for name in options:
        if name not in known:
            raise unknown_name(f"option of {method}", name, [*known, "weights", "architecture"])
    own: dict[str, Any] = {}
    if clip or clip_weights:
        own["clip"] = load_clip(clip, clip_weights, device="cpu")
    if dino or dino_weights:
        own["optical_dino"] = load_dino(dino, dino_weights, device="cpu")
    if weights == "random":
        network = random_network(method, profile, device, architecture)
    elif weights is not None:
        network = load_fusion(weights, device, **own)
    elif profile == "full":
        raise WeightsError(
            f"No trained weights of {method} are published in a form that is read here; give weights= a file that was "
            "trained with rsovlib (`rsovlib reproduce mm-ovseg-training --profile full`), 'random' for shapes and "
            "costs, or profile='embedded'."
        )
    elif NAMES[method] not in embedded_fusions():
        raise WeightsError(
            f"This installation has no embedded {method} ({NAMES[method]}); train one, or give weights= a file."
        )
    else:
        network = load_fusion(NAMES[method], device, **own)
    if network.config.method != method.removesuffix("-no-cmu"):
        raise InputError(f"{weights} holds a network of {network.config.method}, not of {method}; name that method.")
    return FusionSegmenter(network, method, FusionOptions(**options))


def random_network(method: str, profile: str, device: str, architecture: str = "vit-b") -> Trained:
    """An untrained network on untrained backbones (full profile) or on the embedded ones."""
    from rsovlib.fusion.ebseg import EBSegConfig, EBSegNetwork

    if architecture not in FULL:
        raise unknown_name("architecture", architecture, FULL)
    if profile == "embedded":
        clip, dino = load_clip(device=device), load_dino(device=device)
    else:
        names = FULL[architecture]
        clip, dino = load_clip(names[0][0], "random", device), load_dino(names[1][0], "random", device)
    if method == "ebseg":
        made: EBSegConfig = EBSegConfig.embedded() if profile == "embedded" else EBSegConfig.full(architecture)
        return EBSegNetwork(made, clip, dino).to(clip.device)
    sizes = {"vit-b": FusionConfig.vit_b, "vit-l": FusionConfig.vit_l}
    base = FusionConfig.embedded() if profile == "embedded" else sizes[architecture]()
    config = FusionConfig.for_method(method.removesuffix("-no-cmu"), base)
    optical, sar = SWITCHES[config.method]
    # The radar's own encoder starts as a copy of the optical one; without CMU it stays that.
    second = replace(dino, model=_copy(dino.model)) if sar else None
    return CostAggregationNetwork(config, clip, dino if optical else None, second).to(clip.device)


def _copy(model: torch.nn.Module) -> torch.nn.Module:
    from copy import deepcopy

    return deepcopy(model)
