"""The loss of the second stage: binary cross-entropy of each class's map.

Pixels without a label include, in open-vocabulary training, every pixel of an unseen class.  CAT-Seg and what follows
it give them a target of zeros: unseen regions are then taught to be none of the seen classes.  Here they are left out
unless that reading is asked for.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from rsovlib.errors import InputError

IGNORE = 255


def class_bce(
    logits: torch.Tensor, labels: torch.Tensor, *, ignored_as_negative: bool = False, ignore_index: int = IGNORE
) -> torch.Tensor:
    """Mean binary cross-entropy with logits over classes and pixels.

    Args:
        logits: (B, T, h, w); resized bilinearly (corners not aligned) to the labels' size.
        labels: (B, H, W) integers, 0 to T - 1 or ``ignore_index``.
        ignored_as_negative: ignored pixels have a target of zeros for every class (CAT-Seg, GSNet and the release of
            MM-OVSeg); if not, they are left out.
        ignore_index: label of pixels without one.

    Returns:
        A number; 0 (with a gradient of zeros) where nothing is labelled and ignored pixels are left out.

    Raises:
        InputError: the shapes don't fit, or a label is no class.
    """
    if logits.ndim != 4 or labels.ndim != 3 or len(logits) != len(labels):
        raise InputError(
            f"The loss takes logits (B, T, h, w) and labels (B, H, W), not {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}."
        )
    labels = labels.long()
    known = labels != ignore_index
    classes = logits.shape[1]
    if known.any() and not 0 <= int(labels[known].min()) <= int(labels[known].max()) < classes:
        raise InputError(f"A label lies outside of 0..{classes - 1}; give the labels in the order of the classes.")
    if logits.shape[-2:] != labels.shape[-2:]:
        logits = F.interpolate(logits.float(), labels.shape[-2:], mode="bilinear", align_corners=False)
    # One channel too many takes the ignored pixels, and is cut off: their target is zero everywhere.
    hot = F.one_hot(torch.where(known, labels, classes), classes + 1)[..., :classes].movedim(-1, 1)
    loss = F.binary_cross_entropy_with_logits(logits.float(), hot.float(), reduction="none")
    if ignored_as_negative:
        return loss.mean()
    weight = known[:, None].float()
    return (loss * weight).sum() / (weight.sum() * classes).clamp(min=1)
