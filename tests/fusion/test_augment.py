"""One geometry for optical, radar and labels; the release's misaligned radar; colour for optical alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsovlib.errors import InputError
from rsovlib.fusion.augment import (
    Geometry,
    SampleRule,
    colour_jitter,
    draw_batch,
    draw_from,
    draw_geometry,
    draw_sample,
    draw_short_side,
    padded,
    released_sar,
)
from rsovlib.fusion.pairs import Pair, PairPool


@pytest.fixture
def pair() -> Pair:
    """A place where radar, optical image and labels all show the same pattern: (37, 45)."""
    y, x = np.mgrid[0:37, 0:45]
    labels = ((y // 4 + x // 6) % 5).astype(np.uint8)
    grey = np.repeat((labels * 50)[..., None], 3, axis=2)
    return Pair("pattern", grey, grey.copy(), labels)


def agreement(pair: Pair, rule: SampleRule, draws: int = 24) -> float:
    """The smallest share of pixels, over some draws, at which optical, radar and labels show the same."""
    shares = []
    for seed in range(draws):
        optical, sar, _, labels = draw_sample(np.random.default_rng(seed), pair, rule)
        shown = torch.stack([(layer[0] * 255 / 50).round() for layer in (optical, sar)])
        shares.append(float((shown == labels).all(dim=0).float().mean()))
    return min(shares)


def test_every_crop_and_flip_keeps_radar_and_labels_on_the_optical_image(pair: Pair) -> None:
    assert agreement(pair, SampleRule(24, (24,), jitter=False)) == 1.0


def test_resizing_keeps_them_together_too(pair: Pair) -> None:
    rule = SampleRule(64, (16,), jitter=False)  # enlarged four times: only the borders of fields are mixed
    assert agreement(pair, rule) > 0.6
    optical, sar, _, _ = draw_sample(np.random.default_rng(0), pair, rule)
    torch.testing.assert_close(optical, sar)


def test_the_releases_radar_stays_where_it_was(pair: Pair) -> None:
    rule = SampleRule(24, (24,), jitter=False, sar_geometry="released")
    assert agreement(pair, rule) < 0.5
    for seed in range(5):
        _, sar, _, _ = draw_sample(np.random.default_rng(seed), pair, rule)
        np.testing.assert_array_equal((sar * 255).round().numpy().transpose(1, 2, 0), pair.sar[:24, :24])


def test_the_releases_radar_is_padded_with_128(pair: Pair) -> None:
    padded = (released_sar(pair.sar, 50) * 255).round()
    assert padded.shape == (3, 50, 50)
    assert (padded[:, 37:] == 128).all()
    assert (padded[:, :, 45:] == 128).all()
    np.testing.assert_array_equal(padded[:, :37, :45].numpy().transpose(1, 2, 0), pair.sar)


def test_flips_and_places_are_drawn_evenly() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_geometry(rng, (20, 30), 16, (16, 99)) for _ in range(400)]
    assert 150 < sum(one.flip for one in drawn) < 250
    assert {one.crop for one in drawn} == {16, 20}  # never larger than the image
    assert all(one.top + one.crop <= 20 and one.left + one.crop <= 30 for one in drawn)
    assert {one.top for one in drawn if one.crop == 16} == set(range(5))


# ---- the papers' rule ---------------------------------------------------------------------------------------------


def test_the_papers_rule_resizes_the_short_side_and_cuts_along_the_long_one() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_short_side(rng, (20, 35), 24, 24) for _ in range(300)]
    assert {(one.height, one.width, one.top) for one in drawn} == {(24, 42, 0)}
    assert {one.left for one in drawn} == set(range(42 - 24 + 1))
    assert 100 < sum(one.flip for one in drawn) < 200
    assert SampleRule.papers().side == SampleRule.papers().short_side == 384
    with pytest.raises(InputError, match="short side"):
        SampleRule(short_side=4)


def test_the_papers_rule_keeps_all_layers_together(pair: Pair) -> None:
    # 37 x 45 is resized to 74 x 90: each pixel becomes four, so that only the borders of fields are mixed.
    assert agreement(pair, SampleRule.papers(74, jitter=False)) > 0.8
    assert agreement(pair, SampleRule.papers(37, jitter=False)) == 1.0
    optical, sar, _, _ = draw_sample(np.random.default_rng(0), pair, SampleRule.papers(50, jitter=False))
    torch.testing.assert_close(optical, sar)


def test_the_whole_of_a_square_image_is_seen() -> None:
    """A square image is resized and mirrored, and nothing is cut off: no draw loses a corner."""
    labels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    square = Pair("square", labels[..., None].repeat(3, axis=2), labels[..., None].repeat(3, axis=2), labels)
    for seed in range(6):
        _, _, _, seen = draw_sample(np.random.default_rng(seed), square, SampleRule.papers(16, jitter=False))
        assert set(seen.unique().tolist()) == set(range(64))
        columns = seen[::2, ::2]
        expected = torch.from_numpy(labels).long()
        assert torch.equal(columns, expected) or torch.equal(columns.flip(1), expected)


def test_what_is_too_small_is_filled_up_after_colours_and_flips(pair: Pair) -> None:
    rule = SampleRule.papers(40, short_side=16, without_sar=0.0)
    for seed in range(8):
        optical, sar, valid, labels = draw_sample(np.random.default_rng(seed), pair, rule)
        assert optical.shape == sar.shape == (3, 40, 40)
        assert (labels[16:] == 255).all()
        assert (labels[:, 19:] == 255).all()  # 45 columns of 37 rows become 19 of 16
        assert (labels[:16, :19] < 5).all()
        for layer in (optical, sar):
            assert torch.allclose(layer[:, 16:], torch.tensor(128 / 255))
            assert torch.allclose(layer[:, :16, 19:], torch.tensor(128 / 255))
        assert valid.all()
    assert torch.equal(padded(torch.ones(1, 3, 3), 3, 0.5), torch.ones(1, 3, 3))


def test_labels_are_never_mixed() -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[:, 10:] = 255
    assert set(Geometry(0, 0, 20, 33).labels(labels).unique().tolist()) == {0, 255}


def test_jitter_touches_the_optical_image_alone(pair: Pair) -> None:
    rule = SampleRule(24, (24,), jitter=True)
    plain = SampleRule(24, (24,), jitter=False)
    changed = 0
    for seed in range(12):
        coloured, sar, _, labels = draw_sample(np.random.default_rng(seed), pair, rule)
        optical, same_sar, _, same_labels = draw_sample(np.random.default_rng(seed), pair, plain)
        changed += not torch.equal(coloured, optical)
        assert torch.equal(sar, same_sar)
        assert torch.equal(labels, same_labels)
        assert 0 <= float(coloured.min()) <= float(coloured.max()) <= 1
    assert changed > 6


def test_jitter_changes_hue_and_saturation_too() -> None:
    image = torch.tensor([0.6, 0.3, 0.2]).view(3, 1, 1).expand(3, 4, 4)
    ratios = {
        tuple((colour_jitter(np.random.default_rng(s), image)[:, 0, 0]).round(decimals=3).tolist()) for s in range(30)
    }
    assert len(ratios) > 15


def test_clouds_cover_the_optical_image_and_nothing_else(pair: Pair) -> None:
    clear, cloudy = (SampleRule(32, (32,), jitter=False, cover=cover) for cover in (None, (1.0, 1.0)))
    without = draw_sample(np.random.default_rng(1), pair, clear, "thick")
    covered = draw_sample(np.random.default_rng(1), pair, cloudy, "thick")
    assert float((covered[0] - without[0]).abs().mean()) > 0.15
    assert all(torch.equal(a, b) for a, b in zip(covered[1:], without[1:], strict=True))
    assert torch.equal(draw_sample(np.random.default_rng(1), pair, cloudy, None)[0], without[0])


def test_missing_radar_is_zero_and_marked(pair: Pair) -> None:
    _, sar, valid, _ = draw_sample(np.random.default_rng(0), pair, SampleRule(16, (16,), without_sar=1.0))
    assert not sar.any()
    assert not valid.any()
    assert valid.shape == (1, 16, 16)


def test_a_batch_depends_on_its_generator_alone(pair: Pair) -> None:
    pools = [PairPool("a", [pair], ("x",), "varied"), PairPool("b", [pair, pair], ("y", "z"))]
    draw = draw_from(pools, 3, SampleRule(16, (16, 24)))
    first, again, other = (draw(np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert torch.equal(first.optical, again.optical)
    assert first.classes == again.classes
    assert not torch.equal(first.optical, other.optical)
    assert {draw(np.random.default_rng(seed)).classes for seed in range(20)} == {("x",), ("y", "z")}
    unlabelled = draw_batch(
        np.random.default_rng(0), PairPool("c", [Pair("p", pair.optical, pair.sar)]), 2, SampleRule()
    )
    assert unlabelled.labels.numel() == 0
    assert unlabelled.optical.shape == (2, 3, 128, 128)


def test_bad_rules_are_refused() -> None:
    with pytest.raises(InputError, match="geometry of the radar"):
        SampleRule(sar_geometry="shard")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="8 pixels"):
        SampleRule(side=4)
    with pytest.raises(InputError, match="no pairs"):
        PairPool("empty", [])
