"""The simplest dense reading of CLIP: the last block's values, without any attention (MaskCLIP's idea).

Zhou, Loy and Dai, "Extract Free Dense Labels from CLIP", ECCV 2022. In the notation of the compared methods: identity
attention, no residual, no feed-forward. It is the control row below SDCI's ladder: whatever SDCI's steps give must be
more than this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from rsovlib.backbones.clip import ClipBackbone
from rsovlib.backbones.text import encode_classes
from rsovlib.data.classes import ClassPrompt, parse_classes
from rsovlib.errors import unknown_name
from rsovlib.segmenters.base import Segmentation
from rsovlib.segmenters.images import RGB, as_rgb, enlarge, patch_sides, resize_pil_bicubic, to_unit
from rsovlib.segmenters.texts import Texts, text_features, use_text_features
from rsovlib.segmenters.windows import segment_windows


@dataclass
class ValuePath:
    """CLIP's value path as a segmenter.

    Args:
        clip: image-text backbone.
        clip_size: short side of CLIP's input in pixels; None keeps the image's scale.
        position_embedding: dialect in which CLIP's position embedding is resized.
        logit_scale: lambda before the softmax over classes.
        templates: of the class texts.
        window, overlap: of the sliding window for larger images; None for the whole image.
        precision: of the network: ``"float32"``, ``"bfloat16"``, or ``"float16"`` on a GPU.

    Raises:
        InputError: there is no such precision, or not on this device.
    """

    clip: ClipBackbone
    clip_size: int | None = 512
    position_embedding: str = "bilinear"
    logit_scale: float = 50.0
    templates: str | tuple[str, ...] = "rs10"
    window: int | None = None
    overlap: int = 64
    precision: str = "float32"

    def __post_init__(self) -> None:
        names = ("float32", "bfloat16") if self.clip.device.type == "cpu" else ("float32", "bfloat16", "float16")
        if self.precision not in names:
            raise unknown_name(f"precision on the {self.clip.device.type}", self.precision, names)

    @property
    def tiling(self) -> tuple[int, int]:
        """Tile and overlap in pixels that suit large scenes."""
        return (512, 128) if self.window is None else (self.window, self.overlap)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.clip.device

    def __call__(self, image: Any, classes: str | Sequence[str]) -> Segmentation:
        """Segment one image; stages: ``clip_scores`` (N, K), softmax over the classes of every patch.

        Raises:
            InputError: bad image or classes.
        """
        rgb = as_rgb(image)
        prompts = parse_classes(classes)
        with torch.inference_mode():
            text = encode_classes(self.clip, prompts, self.templates)
            if self.window is not None and max(rgb.shape[:2]) > self.window:
                result = segment_windows(
                    rgb, self.window, self.overlap, len(prompts), lambda tile: self._one(tile, prompts, text)
                )
            else:
                result = self._one(rgb, prompts, text)
        result.settings = self.settings()
        return result

    def segment_batch(self, images: Sequence[Any], classes: str | Sequence[str]) -> list[Segmentation]:
        """Segment several images; those of one size go through the network together, unless windows are cut."""
        pictures, prompts = [as_rgb(image) for image in images], parse_classes(classes)
        if len({picture.shape for picture in pictures}) != 1 or (
            self.window is not None and max(pictures[0].shape[:2]) > self.window
        ):
            return [self(picture, [str(prompt) for prompt in prompts]) for picture in pictures]
        with torch.inference_mode():
            results = self._several(pictures, prompts, encode_classes(self.clip, prompts, self.templates))
        for result in results:
            result.settings = self.settings()
        return results

    def memory_needed(self, height: int, width: int, classes: int) -> int:
        """Foreseen peak in bytes above the model."""
        full = height * width
        if self.window is not None:
            height, width = min(height, self.window), min(width, self.window)
        sides = patch_sides(height, width, self.clip.patch_size, self.clip_size)
        tokens = sides[0] * sides[1] // self.clip.patch_size**2 + 1
        # No attention map is formed: torch's fused attention goes over it in blocks.
        return 4 * (24 * tokens * self.clip.width + 12 * sides[0] * sides[1] + 3 * classes * full)

    def text_features(self, classes: str | Sequence[str]) -> Texts | None:
        """The texts of these classes, for another process; see :func:`rsovlib.segmenters.texts.text_features`."""
        return text_features(self.clip, lambda: encode_classes(self.clip, parse_classes(classes), self.templates))

    def use_text_features(self, texts: Texts) -> None:
        """Take over what :meth:`text_features` gave elsewhere."""
        use_text_features(self.clip, texts)

    def settings(self) -> dict[str, Any]:
        """Method, weights and parameters as plain values."""
        return {
            "method": "valuepath",
            "clip": f"{self.clip.name} / {self.clip.weights}",
            "clip_sha256": self.clip.sha256,
            "clip_size": self.clip_size,
            "position_embedding": self.position_embedding,
            "logit_scale": self.logit_scale,
            "templates": self.templates,
            "window": self.window,
            "overlap": self.overlap,
            "precision": self.precision,
        }

    def _one(self, image: RGB, prompts: Sequence[ClassPrompt], text: torch.Tensor) -> Segmentation:
        return self._several([image], prompts, text)[0]

    def _several(self, images: Sequence[RGB], prompts: Sequence[ClassPrompt], text: torch.Tensor) -> list[Segmentation]:
        """Images of one size."""
        height, width = images[0].shape[:2]
        patch = self.clip.patch_size
        sides = patch_sides(height, width, patch, self.clip_size)
        unit = torch.cat([to_unit(resize_pil_bicubic(image, sides), self.clip.device) for image in images])
        half = getattr(torch, self.precision)
        with torch.autocast(self.clip.device.type, dtype=half, enabled=half is not torch.float32):
            tokens = self.clip.embed(self.clip.normalise(unit), self.position_embedding)
            for step in self.clip.walk(tokens, stop=len(self.clip.blocks) - 1):
                tokens = step.output
            attended = self.clip.attend_last(tokens)
        features = F.normalize(attended.float()[:, 1:], dim=-1)
        scores = (self.logit_scale * features @ text.T).softmax(dim=-1)  # (B, N, K)
        return [
            Segmentation.from_probabilities(
                enlarge(one.T.unflatten(1, (sides[0] // patch, sides[1] // patch)), (height, width)).cpu().numpy(),
                [prompt.name for prompt in prompts],
                stages={"clip_scores": one.cpu().numpy()},
                image=image,
            )
            for image, one in zip(images, scores, strict=True)
        ]
