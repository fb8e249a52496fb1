"""The loss of stage 2: ignored pixels left out, or negatives of everything."""

from __future__ import annotations

import math

import pytest
import torch

from rsovlib.errors import InputError
from rsovlib.fusion.losses import class_bce


def slow_bce(logits: torch.Tensor, labels: torch.Tensor, *, negative: bool) -> float:
    terms = []
    for b, t, y, x in torch.cartesian_prod(*(torch.arange(n) for n in logits.shape)).tolist():
        label = int(labels[b, y, x])
        if label == 255 and not negative:
            continue
        p = 1 / (1 + math.exp(-float(logits[b, t, y, x])))
        terms.append(-math.log(p if label == t else 1 - p))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("negative", [False, True])
def test_equals_the_formula(negative: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    labels = torch.randint(0, 4, (2, 4, 5), generator=generator)
    labels[labels == 3] = 255
    found = class_bce(logits, labels, ignored_as_negative=negative)
    assert float(found) == pytest.approx(slow_bce(logits, labels, negative=negative), rel=1e-5)


def test_ignored_pixels_have_no_gradient_unless_they_are_negatives() -> None:
    logits = torch.zeros(1, 2, 3, 3, requires_grad=True)
    labels = torch.zeros(1, 3, 3, dtype=torch.long)
    labels[0, 1, 1] = 255
    (left_out,) = torch.autograd.grad(class_bce(logits, labels), logits)
    assert not left_out[0, :, 1, 1].any()
    assert left_out[0, :, 0, 0].all()
    (negatives,) = torch.autograd.grad(class_bce(logits, labels, ignored_as_negative=True), logits)
    assert (negatives[0, :, 1, 1] > 0).all()  # pushed down for every class


def test_small_logits_are_resized_to_the_labels() -> None:
    logits = torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    labels = torch.randint(0, 2, (1, 7, 5), generator=torch.Generator().manual_seed(2))
    large = torch.nn.functional.interpolate(logits, (7, 5), mode="bilinear", align_corners=False)
    assert float(class_bce(logits, labels)) == pytest.approx(float(class_bce(large, labels)), rel=1e-6)


def test_nothing_labelled_is_no_loss_and_no_nan() -> None:
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    loss = class_bce(logits, torch.full((1, 3, 3), 255))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match=r"0\.\.1"):
        class_bce(torch.zeros(1, 2, 3, 3), torch.full((1, 3, 3), 2))
    with pytest.raises(InputError, match=r"\(B, T, h, w\)"):
        class_bce(torch.zeros(2, 3, 3), torch.zeros(1, 3, 3))
