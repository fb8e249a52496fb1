"""The other grid's attention applied to scores, against the map that is never formed."""

from __future__ import annotations

import pytest
import torch

from rsovlib.kernels import resample_attention
from rsovlib.segmenters.carry import carried_product, joint_products


@pytest.mark.parametrize("align_renorm", [False, True])
@pytest.mark.parametrize(
    ("source", "target"),
    [((5, 4), (8, 6)), ((8, 6), (5, 4)), ((3, 7), (4, 4)), ((1, 1), (2, 3)), ((2, 3), (1, 1)), ((4, 5), (4, 5))],
)
def test_it_is_the_product_with_the_carried_map(source, target, align_renorm):
    generator = torch.Generator().manual_seed(6)
    attention = torch.rand(source[0] * source[1], source[0] * source[1], generator=generator)
    scores = torch.rand(target[0] * target[1], 3, generator=generator)
    formed = resample_attention(attention, source, target, align_renorm=align_renorm)
    product = carried_product(attention, scores, source, target, align_renorm=align_renorm)
    torch.testing.assert_close(product, formed @ scores, rtol=1e-5, atol=1e-5)


def test_rows_that_see_nothing_stay_empty():
    product = carried_product(torch.zeros(4, 4), torch.ones(9, 2), (2, 2), (3, 3), align_renorm=True)
    assert not product.any()


@pytest.mark.parametrize("align_renorm", [False, True])
@pytest.mark.parametrize(("grid", "other"), [((5, 4), (8, 6)), ((4, 5), (4, 5))])
def test_both_products_are_those_taken_one_by_one(grid, other, align_renorm):
    generator = torch.Generator().manual_seed(7)
    cells, others = grid[0] * grid[1], other[0] * other[1]
    attention = torch.rand(cells, cells, generator=generator)
    own, rival = torch.rand(cells, 2, generator=generator), torch.rand(others, 3, generator=generator)
    mine, carried = joint_products(attention, own, rival, grid, other, align_renorm)
    torch.testing.assert_close(mine, attention @ own)
    formed = resample_attention(attention, grid, other, align_renorm=align_renorm)
    torch.testing.assert_close(carried, formed @ rival, rtol=1e-5, atol=1e-5)
