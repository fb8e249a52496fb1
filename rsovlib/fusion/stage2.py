"""Stage 2: the fusion network learns the seen classes, through clouds, with the radar beside the optical image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from rsovlib.fusion.augment import FusionBatch, SampleRule, draw_from
from rsovlib.fusion.cmu import plain
from rsovlib.fusion.ebseg import EBSegNetwork
from rsovlib.fusion.fabric_loop import LoopSettings, ParameterGroup, train
from rsovlib.fusion.losses import class_bce
from rsovlib.fusion.network import CostAggregationNetwork
from rsovlib.fusion.pairs import PairPool

Trained: TypeAlias = CostAggregationNetwork | EBSegNetwork


@dataclass(frozen=True)
class Stage2Recipe:
    """How a fusion network is trained, besides the loop's settings.

    Attributes:
        batch: samples a step, shared out over the devices; on a device all are of one pool, since there is one list of
            classes.
        clip_factor: learning rate of CLIP's query and value weights, as a share of the new layers'.
        samples: how they are cut, clouded and recoloured. Its ``sar_geometry`` is that of the network's readings.
    """

    batch: int = 8
    clip_factor: float = 0.01
    samples: SampleRule = field(default_factory=lambda: SampleRule(side=384, crops=(384,)))


PAPER_LOOPS: Mapping[str, LoopSettings] = {
    "vit-b": LoopSettings(
        80_000, 2.5e-4, warm_up=0.0, clip=0.01, save_every=1000, log_every=50, accelerator="auto", workers=4
    ),
    "vit-l": LoopSettings(
        120_000, 2.5e-4, warm_up=0.0, clip=0.01, save_every=1000, log_every=50, accelerator="auto", workers=4
    ),
}
"""The published settings: AdamW, a cosine without warm-up, gradients clipped to a global norm of 0.01.  Batches of 8
(ViT-B) and 4 (ViT-L); the paper has 120,000 steps for ViT-L, the release's file 80,000."""


class Stage2Objective(nn.Module):
    """The loss of a batch under the network's readings.

    Args:
        network: in training.
    """

    def __init__(self, network: CostAggregationNetwork | EBSegNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: FusionBatch) -> dict[str, torch.Tensor]:
        """Binary cross-entropy of the seen classes, and the share of labelled pixels that are right.

        A network with losses of its own (EBSeg) is trained with those.
        """
        if isinstance(self.network, EBSegNetwork):
            own, logits = self.network.losses(batch.optical, list(batch.classes), batch.labels)
            parts = {name: value.detach() for name, value in own._asdict().items()}
            return {"loss": own.total, **parts, "accuracy": pixel_accuracy(logits.detach(), batch.labels)}
        logits = predict_logits(self.network, batch)
        readings = self.network.config.readings
        loss = class_bce(logits, batch.labels, ignored_as_negative=readings.ignored_as_negative)
        return {"loss": loss, "accuracy": pixel_accuracy(logits.detach(), batch.labels)}


def start_aligned(network: CostAggregationNetwork) -> None:
    """Begin with DINO projections that speak CLIP's language, where a checkpoint has learned how.

    The embedded DINOs carry a linear map of each layer into CLIP's joint space; it becomes the first weights of the
    projection that is compared with the text, of both sensors, for a SAR encoder imitates the optical one. The papers'
    DINOs have no such map, and nothing happens.
    """
    for dino, levels in ((network.optical_dino, network.optical_levels), (network.sar_dino, network.sar_levels)):
        if dino is None or levels is None or dino.alignment is None:
            continue
        weight, bias = dino.alignment
        last: Any = levels.last
        if last.kernel_size != (1, 1):
            continue
        block = network.config.dino_blocks[2] - 1
        with torch.no_grad():
            last.weight.copy_(weight[block][:, :, None, None])
            last.bias.copy_(bias[block])


def predict_logits(network: CostAggregationNetwork | EBSegNetwork, batch: FusionBatch) -> torch.Tensor:
    """Logits (B, T, h, w) of a batch; the radar goes in where the network has a place for it."""
    text = network.encode_text(list(batch.classes))
    if not network.config.uses_sar:
        return network(batch.optical, text)
    return network(batch.optical, text, batch.sar, batch.sar_valid)


def pixel_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Share of the labelled pixels whose largest logit is their class's; labels are read at the logits' resolution."""
    factor = labels.shape[-1] // logits.shape[-1]
    thinned = labels[..., factor // 2 :: factor, factor // 2 :: factor] if factor > 1 else labels
    if thinned.shape[-2:] != logits.shape[-2:]:
        logits = nn.functional.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
        thinned = labels
    known = thinned < logits.shape[1]
    return ((logits.argmax(dim=1) == thinned) & known).sum() / known.sum().clamp(min=1)


def parameter_groups(network: CostAggregationNetwork | EBSegNetwork, clip_factor: float) -> list[ParameterGroup]:
    """What the network trains, CLIP's part at a lower rate."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    members: dict[str, dict[str, nn.Parameter]] = {}
    for group, parameter in network.trained_parameters():
        members.setdefault(group, {})[names[id(parameter)]] = parameter
    return [ParameterGroup(name, part, clip_factor if name == "clip" else 1.0) for name, part in members.items()]


def fit(
    network: CostAggregationNetwork | EBSegNetwork,
    pools: Sequence[PairPool],
    recipe: Stage2Recipe,
    loop: LoopSettings,
    *,
    checkpoint: Path | None = None,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Trains a fusion network in place.

    Args:
        network: with its frozen backbones.
        pools: labelled pairs, a pool a list of seen classes; each is as likely.
        recipe: samples and rates.
        loop: steps and the rest.
        checkpoint: where progress is kept; a stopped training goes on from there.
        progress: show a bar.

    Returns:
        The history, see :func:`rsovlib.fusion.fabric_loop.train`.
    """
    if isinstance(network, EBSegNetwork):
        for pool in pools:
            network.remember(list(pool.classes))
    aligned = network.config.readings.sar_follows_optical
    samples = replace(recipe.samples, sar_geometry="shared" if aligned else "released")
    history = train(
        Stage2Objective(network),
        parameter_groups(network, recipe.clip_factor),
        draw_from(pools, loop.share_of(recipe.batch), samples),
        loop,
        checkpoint=checkpoint,
        label=network.config.method,
        identity=_identity(network, recipe, pools),
        progress=progress,
    )
    network.eval()
    return history


def _identity(
    network: CostAggregationNetwork | EBSegNetwork, recipe: Stage2Recipe, pools: Sequence[PairPool]
) -> dict[str, Any]:
    """What a checkpoint must agree with."""
    return {
        "network": plain(network.config),
        "recipe": plain(recipe),
        "pools": [[pool.name, len(pool.pairs), list(pool.classes)] for pool in pools],
    }
