"""CMU and stage 2 on simulated scenes: what falls, what rises, what stays, and going on to the same bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rsovlib.backbones import load_clip, load_dino
from rsovlib.errors import InputError
from rsovlib.fusion.augment import SampleRule, draw_from
from rsovlib.fusion.cmu import CMURecipe, Tokens, distil
from rsovlib.fusion.config import FusionConfig
from rsovlib.fusion.fabric_loop import LoopSettings
from rsovlib.fusion.network import CostAggregationNetwork
from rsovlib.fusion.pairs import PairPool, folder_pool, suite_pool
from rsovlib.fusion.stage2 import (
    PAPER_LOOPS,
    Stage2Recipe,
    fit,
    parameter_groups,
    pixel_accuracy,
    predict_logits,
    start_aligned,
)

CMU = CMURecipe(blocks=(1, 4), positions=16, batch=8, samples=SampleRule(32, (32,), cover=None, jitter=False))


@pytest.fixture(scope="module")
def pool() -> PairPool:
    return suite_pool("mm-ovseg-ddhr-sk", 8, 64, progress=False)


def new_network(method: str = "mm-ovseg") -> CostAggregationNetwork:
    torch.manual_seed(0)
    clip, dino = load_clip(device="cpu"), load_dino(device="cpu")
    config = FusionConfig.for_method(method, FusionConfig.embedded())
    second = load_dino(device="cpu") if config.sar_dino else None
    return CostAggregationNetwork(config, clip, dino if config.optical_dino else None, second)


def test_pools_of_suites_name_only_what_is_seen(pool: PairPool) -> None:
    assert len(pool.classes) == 3
    assert not any("water" in words or "road" in words for words in pool.classes)
    labels = np.concatenate([pair.labels.ravel() for pair in pool.pairs if pair.labels is not None])
    assert set(np.unique(labels)) <= {0, 1, 2, 255}
    test = suite_pool("mm-ovseg-ddhr-sk", 2, 64, "test", progress=False)
    assert len(test.classes) == 5
    with pytest.raises(InputError, match="rgb and sar"):
        suite_pool("sdci-gid", 2, 64, progress=False)


def test_distilling_lowers_the_loss_and_leaves_the_teacher_alone(pool: PairPool) -> None:
    dino = load_dino(device="cpu")
    before = {name: value.clone() for name, value in dino.model.state_dict().items()}
    loop = LoopSettings(30, 1e-3, log_every=5, weight_decay=0.01)
    found = distil(dino, [pool], CMU, loop, held_out=pool, progress=False)
    assert found.history[-1]["loss"] < 0.8 * found.history[0]["loss"]
    assert all(torch.equal(before[name], value) for name, value in dino.model.state_dict().items())
    changed = found.encoder.model.state_dict()
    assert not torch.equal(changed["blocks.0.attn.qkv.weight"], before["blocks.0.attn.qkv.weight"])
    assert not any(parameter.requires_grad for parameter in found.encoder.model.parameters())
    assert len(found.before) == len(found.after) == 2


@pytest.mark.slow
def test_retrieval_rises_far_above_chance(pool: PairPool) -> None:
    recipe = replace(CMU, samples=replace(CMU.samples, flips=False, side=64, crops=(64,)), positions=32)
    loop = LoopSettings(250, 1e-3, log_every=10, weight_decay=0.0)
    found = distil(load_dino(device="cpu"), [pool], recipe, loop, held_out=pool, progress=False)
    for before, after in zip(found.before, found.after, strict=True):
        assert after.top1 > 2 * before.top1
        assert after.top1 > 10 * after.chance
    for before, after in zip(found.across_before, found.across_after, strict=True):
        assert after.top1 > before.top1
        assert after.top1 > 3 * after.chance


def test_the_student_starts_as_the_teachers_copy(pool: PairPool) -> None:
    dino = load_dino(device="cpu")
    found = distil(dino, [pool], CMU, LoopSettings(1, 1e-12, warm_up=0.0), progress=False)
    for name, value in dino.model.state_dict().items():
        torch.testing.assert_close(found.encoder.model.state_dict()[name], value, atol=1e-6, rtol=0)


def test_clip_is_distilled_too_and_its_words_are_not_touched(pool: PairPool) -> None:
    clip = load_clip(device="cpu")
    found = distil(clip, [pool], CMU, LoopSettings(2, 1e-3, log_every=1), progress=False)
    first, second = clip.model.state_dict(), found.encoder.model.state_dict()
    changed = {name for name in first if not torch.equal(first[name], second[name])}
    assert changed
    assert all(name.startswith("visual.") for name in changed)


def test_tokens_are_the_blocks_asked_for() -> None:
    dino = load_dino(device="cpu")
    image = torch.rand(2, 3, 32, 24)
    tokens = Tokens(dino, (0, 4))(image)
    features = dino.features(dino.normalise(image))
    torch.testing.assert_close(tokens[1], features.layers[4])
    torch.testing.assert_close(tokens[0], features.layers[0])
    with pytest.raises(InputError, match="blocks 0 to 4"):
        Tokens(dino, (5,))


def test_real_pairs_come_from_two_folders(shared: Path) -> None:
    folder = shared / "data" / "s1s2-pairs"
    pairs = folder_pool(folder / "optical", folder / "sar")
    assert len(pairs.pairs) >= 5
    assert all(p.optical.shape == p.sar.shape and p.labels is None for p in pairs.pairs)
    found = distil(load_dino(device="cpu"), [pairs], CMU, LoopSettings(2, 1e-4, log_every=1), progress=False)
    assert np.isfinite(found.history[-1]["loss"])
    with pytest.raises(InputError, match="There is no folder"):
        folder_pool(folder / "optical", folder / "radar")


def test_stage_2_trains_what_it_should_and_nothing_else(pool: PairPool) -> None:
    network = new_network()
    before = {name: value.clone() for name, value in network.named_parameters()}
    trained = {name for group in parameter_groups(network, 0.01) for name in group.parameters}
    recipe = Stage2Recipe(2, samples=SampleRule(48, (48,)))
    history = fit(network, [pool], recipe, LoopSettings(3, 1e-2, log_every=1), progress=False)
    changed = {name for name, value in network.named_parameters() if not torch.equal(value, before[name])}
    assert changed <= trained
    assert len(changed) > 0.8 * len(trained)
    assert [row["step"] for row in history] == [0, 1, 2]
    assert "accuracy" in history[0]


def test_stage_2_goes_on_to_the_same_bits(pool: PairPool, tmp_path: Path) -> None:
    recipe = Stage2Recipe(2, samples=SampleRule(48, (48, 64), without_sar=0.3))
    loop = LoopSettings(6, 1e-2, log_every=1, save_every=2)
    straight = new_network()
    fit(straight, [pool], recipe, loop, progress=False)

    stopped = new_network()
    draw = draw_from([pool], 2, recipe.samples)
    calls = iter(range(100))

    def interrupted(rng: np.random.Generator) -> object:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return draw(rng)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rsovlib.fusion.stage2.draw_from", lambda *_: interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(stopped, [pool], recipe, loop, checkpoint=tmp_path / "c", progress=False)
    resumed = new_network()
    fit(resumed, [pool], recipe, loop, checkpoint=tmp_path / "c", progress=False)
    for (name, one), other in zip(straight.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_the_releases_readings_change_what_is_trained(pool: PairPool) -> None:
    ours, released = new_network(), new_network()
    released.config = released.config.with_readings(sar_follows_optical=False, unseen_left_out=False)
    recipe = Stage2Recipe(4, samples=SampleRule(48, (64,), jitter=False))
    losses = [
        fit(one, [pool], recipe, LoopSettings(1, 1e-3, log_every=1), progress=False)[0]["loss"]
        for one in (ours, released)
    ]
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


@pytest.mark.slow
def test_overfits_eight_scenes(pool: PairPool) -> None:
    network = new_network()
    start_aligned(network)
    rule = SampleRule(64, (64,), flips=False, jitter=False, cover=(0.3, 0.3))
    # One cloud a scene: what is to be learned by heart stays the same.
    fixed = draw_from([pool], 24, rule)(np.random.default_rng(0))
    samples = {tuple(o.flatten()[:50].tolist()): i for i, o in enumerate(fixed.optical)}
    chosen = sorted(samples.values())[:8]
    batch = replace(fixed, **{n: getattr(fixed, n)[chosen] for n in ("optical", "sar", "sar_valid", "labels")})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rsovlib.fusion.stage2.draw_from", lambda *_: lambda rng: batch)
        fit(network, [pool], Stage2Recipe(8, 0.1), LoopSettings(500, 5e-3, log_every=50), progress=False)
    with torch.no_grad():
        assert float(pixel_accuracy(predict_logits(network, batch), batch.labels)) > 0.95


def test_the_papers_settings_are_those_of_the_specification() -> None:
    base, large = PAPER_LOOPS["vit-b"], PAPER_LOOPS["vit-l"]
    assert (base.steps, base.rate, base.clip, base.weight_decay) == (80_000, 2.5e-4, 0.01, 1e-4)
    assert (base.warm_up, base.floor, large.steps) == (0.0, 0.0, 120_000)
    assert (Stage2Recipe().batch, Stage2Recipe().clip_factor, Stage2Recipe().samples.side) == (8, 0.01, 384)
