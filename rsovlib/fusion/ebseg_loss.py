"""EBSeg's losses: queries are matched with the classes that an image holds, then taught their masks and their names.

Weights are the published ones: classes 2 x 0.75 for each of A and B, masks 5, Dice 5, semantic structure 10.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from rsovlib.fusion.ebseg_head import Prediction

_CLASS, _MASK, _DICE, _STRUCTURE = 2.0, 5.0, 5.0, 10.0
#: Weight of A's and of B's class loss.
_SHARE = 0.75
#: Weight of "no class" in the class losses; most queries belong to none.
_NO_CLASS = 0.1


class EBSegLosses(NamedTuple):
    """Weighted parts; their sum is minimised.

    Attributes:
        classes: cross-entropy of A and B.
        masks: binary cross-entropy of masks.
        dice: of masks.
        structure: semantic structure consistency.
    """

    classes: torch.Tensor
    masks: torch.Tensor
    dice: torch.Tensor
    structure: torch.Tensor

    @property
    def total(self) -> torch.Tensor:
        """Their sum."""
        return self.classes + self.masks + self.dice + self.structure


class Target(NamedTuple):
    """What an image holds.

    Attributes:
        classes: (n,) numbers of the classes in it.
        masks: (n, N) where each is, of all pixels.
        known: (N,) bool, labelled pixels.
    """

    classes: torch.Tensor
    masks: torch.Tensor
    known: torch.Tensor


def targets_of(labels: torch.Tensor, count: int, sides: tuple[int, int]) -> list[Target]:
    """Labels (B, H, W) at the masks' resolution, image by image; values from ``count`` on are unknown."""
    small = F.interpolate(labels[:, None].float(), size=sides, mode="nearest")[:, 0].long().flatten(1)
    found = []
    for row in small:
        known = (row >= 0) & (row < count)
        classes = row[known].unique()
        found.append(Target(classes, (row == classes[:, None]).float(), known))
    return found


def match(logits: torch.Tensor, masks: torch.Tensor, target: Target) -> tuple[torch.Tensor, torch.Tensor]:
    """The cheapest assignment of an image's classes to queries (Hungarian method).

    Args:
        logits: (Q, T + 1) of the classes.
        masks: (Q, N) logits.
        target: of the image.

    Returns:
        Queries and places in ``target.classes``, both (n,) (fewer if there are fewer queries).
    """
    from scipy.optimize import linear_sum_assignment

    with torch.no_grad():
        inside, wanted = masks[:, target.known].float(), target.masks[:, target.known]
        share = max(1, inside.shape[1])
        cross = F.softplus(inside).sum(dim=1, keepdim=True) - inside @ wanted.T
        likely = inside.sigmoid()
        overlap = 2 * likely @ wanted.T
        dice = 1 - (overlap + 1) / (likely.sum(dim=1, keepdim=True) + wanted.sum(dim=1) + 1)
        cost = _MASK * cross / share + _DICE * dice - _CLASS * logits.softmax(dim=-1)[:, target.classes]
        rows, columns = linear_sum_assignment(cost.cpu().numpy())
    return torch.as_tensor(rows, device=masks.device), torch.as_tensor(columns, device=masks.device)


def set_losses(
    predictions: list[Prediction],
    attended: torch.Tensor,
    classifier: torch.Tensor,
    scale: torch.Tensor,
    labels: torch.Tensor,
) -> EBSegLosses:
    """All losses of a batch.

    Args:
        predictions: after every layer.
        attended: (B, Q, D), embeddings B after the last.
        classifier: (T + 1, D), unit texts of the classes, and "no class" last.
        scale: inverse temperature of the cosines.
        labels: (B, H, W).
    """
    targets = targets_of(
        labels, len(classifier) - 1, (predictions[-1].masks.shape[-2], predictions[-1].masks.shape[-1])
    )
    count = max(1, sum(len(target.classes) for target in targets))
    zero = classifier.new_zeros(())
    classes, masks, dice, structure = zero, zero, zero, zero
    for prediction in predictions:
        last = prediction is predictions[-1]
        logits = scale * prediction.embeddings @ classifier.T
        flat = prediction.masks.flatten(2)
        pairs = [match(logits[i], flat[i], target) for i, target in enumerate(targets)]
        classes = classes + _CLASS * _SHARE * _class_loss(logits, targets, pairs)
        if last:
            classes = classes + _CLASS * _SHARE * _class_loss(scale * attended @ classifier.T, targets, pairs)
            structure = _STRUCTURE * _structure_loss(prediction.embeddings, classifier, targets, pairs)
        for image, (target, (queries, places)) in enumerate(zip(targets, pairs, strict=True)):
            if not len(queries):
                continue
            inside, wanted = flat[image, queries][:, target.known], target.masks[places][:, target.known]
            cross = F.binary_cross_entropy_with_logits(inside, wanted, reduction="none").mean(dim=1)
            likely = inside.sigmoid()
            overlap = 2 * (likely * wanted).sum(dim=1)
            masks = masks + _MASK * cross.sum() / count
            dice = dice + _DICE * (1 - (overlap + 1) / (likely.sum(dim=1) + wanted.sum(dim=1) + 1)).sum() / count
    return EBSegLosses(classes, masks, dice, structure)


def _class_loss(
    logits: torch.Tensor, targets: list[Target], pairs: list[tuple[torch.Tensor, torch.Tensor]]
) -> torch.Tensor:
    nothing = logits.shape[-1] - 1
    wanted = torch.full(logits.shape[:2], nothing, dtype=torch.long, device=logits.device)
    for image, (target, (queries, places)) in enumerate(zip(targets, pairs, strict=True)):
        wanted[image, queries] = target.classes[places]
    weights = torch.ones(nothing + 1, device=logits.device)
    weights[nothing] = _NO_CLASS
    return F.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten(), weights)


def _structure_loss(
    embeddings: torch.Tensor,
    classifier: torch.Tensor,
    targets: list[Target],
    pairs: list[tuple[torch.Tensor, torch.Tensor]],
) -> torch.Tensor:
    """Images' classes should be as alike as their texts: squared difference of the cosines, mean over images."""
    total = classifier.new_zeros(())
    for image, (target, (queries, places)) in enumerate(zip(targets, pairs, strict=True)):
        if len(queries):
            seen, words = embeddings[image, queries], classifier[target.classes[places]].detach()
            total = total + F.mse_loss(seen @ seen.T, words @ words.T)
    return total / len(targets)
