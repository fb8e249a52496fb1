"""Tiled and untiled solves agree to their certificates."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from rsovlib.errors import InputError
from rsovlib.kernels import solve_cscp, solve_cscp_tiled
from rsovlib.kernels.tiled import _starts


@pytest.mark.parametrize(("tile", "overlap"), [(16, 6), (20, 0), (100, 10)])
def test_the_result_is_the_untiled_one(make_case, energies, tile, overlap):
    case = make_case(kind=np.float32)
    whole = solve_cscp(*case.arrays, tolerance=1e-6)
    tiled = solve_cscp_tiled(*case.arrays, tolerance=1e-5, tile=tile, overlap=overlap, max_sweeps=60)
    assert tiled.converged
    primal, dual = energies[0](tiled.q, *case.arrays), energies[1](*tiled.dual, *case.arrays)
    assert (primal - dual) / primal == pytest.approx(tiled.relative_gap, rel=0.05)
    assert tiled.energy - whole.energy <= 1.1e-5 * whole.energy
    # sum_p KL(q || q*) <= gap / a, and Pinsker's inequality, for both answers
    distance = np.abs(tiled.q - whole.q).sum(axis=0)
    bound = np.sqrt(2 * (tiled.gap_per_pixel + 1e-9) / 1.2) + np.sqrt(2 * (whole.gap_per_pixel + 1e-9) / 1.2)
    assert np.sqrt((distance**2).mean()) <= bound


def test_every_sweep_raises_the_dual(make_case):
    case = make_case(sharpness=0.3)
    seen = []
    solve_cscp_tiled(*case.arrays, tolerance=1e-9, tile=12, overlap=3, max_sweeps=6, callback=seen.append)
    duals = [check.dual_energy for check in seen]
    assert len(duals) == 7
    assert all(later >= earlier - 1e-12 for earlier, later in pairwise(duals))


def test_tiles_cover_everything_once_or_more():
    for length in (1, 9, 10, 11, 37):
        covered = np.zeros(length, int)
        for start in _starts(length, 10, 4):
            assert start >= 0
            covered[start : start + 10] += 1
        assert (covered >= 1).all()


def test_cancelling_keeps_a_certified_result(make_case):
    case = make_case()
    result = solve_cscp_tiled(*case.arrays, tile=16, overlap=4, should_stop=lambda: True)
    assert result.cancelled
    assert not result.converged
    assert result.relative_gap > 0


def test_a_tile_must_be_larger_than_its_overlap(make_case):
    with pytest.raises(InputError, match="tile must be larger"):
        solve_cscp_tiled(*make_case().arrays, tile=16, overlap=16)
