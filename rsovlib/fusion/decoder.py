"""The decoder: two steps, each twice as fine, guided by what CLIP and DINO saw in earlier blocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from rsovlib.fusion.guided import GuidedConv


class DecoderStep(nn.Module):
    """Enlarge by two, look at the guidance, convolve twice.

    Args:
        width: channels that come in.
        outputs: channels that go out.
        guidances: channels of each source's skip (CLIP's; DINO's where there is one).
        guidance_width: channels to which each is reduced; the enlarged volume gives up as many.
    """

    def __init__(self, width: int, outputs: int, guidances: list[int], guidance_width: int) -> None:
        super().__init__()
        kept = width - guidance_width
        self.reduce = nn.ModuleList(nn.Conv2d(inputs, guidance_width, 3, padding=1) for inputs in guidances)
        self.enlarge = nn.ConvTranspose2d(width, kept, kernel_size=2, stride=2)
        self.first = GuidedConv(kept, guidance_width * len(guidances), outputs)
        self.first_norm = nn.GroupNorm(max(1, outputs // 16), outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.GroupNorm(max(1, outputs // 16), outputs)

    def forward(self, volume: torch.Tensor, guidances: list[torch.Tensor]) -> torch.Tensor:
        """(B, T, C, h, w) and one (B, S, 2 h, 2 w) a source to (B, T, outputs, 2 h, 2 w)."""
        shape = volume.shape[:2]
        guidance = torch.cat([F.relu(r(g)) for r, g in zip(self.reduce, guidances, strict=True)], dim=1)
        large = self.enlarge(volume.flatten(0, 1)).unflatten(0, shape)
        x = F.relu(self.first_norm(self.first(large, guidance).flatten(0, 1)))
        x = F.relu(self.second_norm(self.second(x)))
        return x.unflatten(0, shape)


class GuidedDecoder(nn.Module):
    """From the refined volume to one logit map a class.

    Args:
        width: C of the volume.
        widths: of the two steps.
        skips: S1 and S2, channels of the skips.
        guidance_widths: channels to which the skips are reduced.
        sources: 1 (CLIP) or 2 (CLIP and DINO).
    """

    def __init__(
        self,
        width: int,
        widths: tuple[int, int],
        skips: tuple[int, int],
        guidance_widths: tuple[int, int],
        sources: int,
    ) -> None:
        super().__init__()
        self.step1 = DecoderStep(width, widths[0], [skips[0]] * sources, guidance_widths[0])
        self.step2 = DecoderStep(widths[0], widths[1], [skips[1]] * sources, guidance_widths[1])
        self.head = nn.Conv2d(widths[1], 1, 3, padding=1)

    def forward(self, volume: torch.Tensor, middle: list[torch.Tensor], fine: list[torch.Tensor]) -> torch.Tensor:
        """(B, T, C, h, w) and both sources' skips to logits (B, T, 4 h, 4 w)."""
        x = self.step2(self.step1(volume, middle), fine)
        return self.head(x.flatten(0, 1)).squeeze(1).unflatten(0, x.shape[:2])
