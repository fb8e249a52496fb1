"""ResCLIP: NACLIP's map mixed with attention of blocks in the middle, then again with a map of its own first guess.

Yang et al., "ResCLIP: Residual Attention for Training-free Dense Vision-language Inference", CVPR 2025. RCS (residual
cross-correlation) mixes in the mean attention of blocks 6 to 9; SFR (semantic feedback refinement) makes a map of which
patches the first guess puts into one class, window by window.

The constants were published set by set; for aerial images there are none, and the defaults are those of VOC20 and the
released demonstration. The first guess knows names, not classes: two names of a class count as different (as released).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from rsovlib.errors import InputError
from rsovlib.segmenters import policies
from rsovlib.segmenters.dense import DenseClip, DenseConfig, LastBlock, Window
from rsovlib.segmenters.images import enlarge
from rsovlib.segmenters.naclip import NACLIPConfig
from rsovlib.segmenters.pamr import pamr
from rsovlib.segmenters.queries import Queries
from rsovlib.segmenters.sliding import input_sides


@dataclass(frozen=True)
class ResCLIPConfig(NACLIPConfig):
    """Options of ResCLIP, beside NACLIP's.

    Attributes:
        rcs_layers: blocks whose attention is averaged, counted from 1; or ``"relative"``, those between the middle and
            three quarters of the depth (6 to 9 of 12).
        rcs_scale, rcs_share: tau and lambda of RCS.
        sfr: whether there is a second pass with feedback.
        sfr_scale, sfr_share: tau and lambda of SFR.
        first_threshold: pixels whose best name has less in the first guess count as the first name.
        path_decay: whether lines that leave a class count less.
        feedback_pamr_steps: of PAMR on the first guess.
    """

    pamr_steps: int = 0
    rcs_layers: tuple[int, ...] | str = (6, 7, 8, 9)
    rcs_scale: float = 2.0
    rcs_share: float = 0.6
    sfr: bool = True
    sfr_scale: float = 2.1
    sfr_share: float = 0.6
    first_threshold: float = 0.1
    path_decay: bool = True
    feedback_pamr_steps: int = 10

    EMBEDDED: ClassVar[dict[str, Any]] = {**DenseConfig.EMBEDDED, "rcs_layers": "relative"}
    RANGES: ClassVar[dict[str, tuple[float, float]]] = {
        **NACLIPConfig.RANGES,
        "rcs_share": (0, 1),
        "sfr_share": (0, 1),
        "rcs_scale": (1e-6, float("inf")),
        "sfr_scale": (1e-6, float("inf")),
        "first_threshold": (0, 1),
        "feedback_pamr_steps": (0, float("inf")),
    }


class ResCLIP(DenseClip[ResCLIPConfig]):
    """Residual attention as a segmenter."""

    name = "resclip"
    config_type = ResCLIPConfig

    def scores(self, window: Window, queries: Queries) -> torch.Tensor:
        """Two passes through the last block, the second with what the first one found."""
        config = self.config
        tokens, earlier = self._middle(window)
        last = self.last_block(tokens, window.grid)
        omega = policies.neighbourhood(last.grid, config.sigma, like=last.key)
        first = self._scores(last, policies.neighbour_aware(last.key, omega), earlier, queries)
        if not config.sfr:
            return first
        feedback = policies.class_feedback(self._guess(window, first), config.sigma, decay=config.path_decay)
        weights = policies.with_feedback(last.key, feedback, omega, config.sfr_share, config.sfr_scale)
        return self._scores(last, weights, earlier, queries)

    def memory_needed(self, height: int, width: int, classes: int) -> int:
        """Foreseen peak in bytes above the model."""
        sides = input_sides(height, width, self.config.size, self.config.size_rule)
        tokens = max(place.sides[0] * place.sides[1] for place in self._places(*sides)) // self.clip.patch_size**2
        # The lines between all pairs of patches are followed at once, in 64 bits.
        lines = 400 * tokens**2 if self.config.sfr else 0
        return super().memory_needed(height, width, classes) + lines

    def _scores(self, last: LastBlock, weights: torch.Tensor, earlier: torch.Tensor, queries: Queries) -> torch.Tensor:
        mixed = policies.cross_residual(weights, earlier, self.config.rcs_share, self.config.rcs_scale)
        return self.compare(self.read(last, mixed)[1:], queries, last.grid)

    def _middle(self, window: Window) -> tuple[torch.Tensor, torch.Tensor]:
        """The residual stream before the last block, and the mean attention of the blocks in the middle."""
        layers = self._layers()
        total: torch.Tensor | None = None
        tokens = self.clip.embed(window.pixels, self.config.position_embedding)
        for step in self.clip.walk(tokens, attention=layers, stop=len(self.clip.blocks) - 1):
            if step.attention is not None:
                total = step.attention if total is None else total + step.attention
            tokens = step.output
        if total is None:  # _layers names at least one
            raise InputError("ResCLIP needs at least one block before the last.")
        return tokens, total / len(layers)

    def _layers(self) -> list[int]:
        """Numbers, from 0, of the blocks in the middle."""
        depth = len(self.clip.blocks)
        asked = self.config.rcs_layers
        if asked == "relative":
            asked = tuple(range(max(1, depth // 2), max(1, depth * 3 // 4) + 1))
        if isinstance(asked, str) or not asked or not all(1 <= layer < depth for layer in asked):
            raise InputError(
                f"rcs_layers is {asked!r}; name blocks from 1 to {depth - 1} (all but the last of {self.clip.name}), "
                "or 'relative'."
            )
        return [layer - 1 for layer in asked]

    def _guess(self, window: Window, scores: torch.Tensor) -> torch.Tensor:
        """The most frequent name of every patch's pixels, (rows, columns)."""
        patch, names = self.clip.patch_size, len(scores)
        maps = pamr(
            window.pixels[0],
            enlarge(scores, window.place.sides),
            self.config.feedback_pamr_steps,
            self.config.pamr_dilations,
        )
        best, labels = (self.config.logit_scale * maps).softmax(dim=0).max(dim=0)
        labels = torch.where(best < self.config.first_threshold, 0, labels)
        cells = labels.unflatten(1, (-1, patch)).unflatten(0, (-1, patch)).transpose(1, 2).flatten(2)
        counts = torch.nn.functional.one_hot(cells, names).sum(dim=2)
        return counts.argmax(dim=-1)
