"""The embedded experiment of MM-OVSeg: what is trained and written, how scenes are shown, what is counted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rsovlib.errors import InputError
from rsovlib.experiments.fusion import claims, evaluation, weather
from rsovlib.experiments.fusion.evaluation import score_network
from rsovlib.experiments.fusion.publish import write_card, write_scores, write_seed
from rsovlib.experiments.fusion.recipe import METHODS, READINGS, SHIPPED, ExperimentRecipe, network_config
from rsovlib.experiments.fusion.scenes import SIDE, Condition, scenes_of, shown_scenes
from rsovlib.experiments.fusion.settings import SETTINGS, TRAIN_SUITES
from rsovlib.experiments.fusion.training import TrainedSeed, cpu_seconds, train_seed
from rsovlib.fusion.segmenter import FusionOptions, FusionSegmenter
from rsovlib.fusion.weights import load_fusion, read_record

SUITE = "mm-ovseg-ddhr-sk"
TINY = replace(ExperimentRecipe().shorter(0.005), scenes=4, scene_side=96)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainedSeed, Path]:
    folder = tmp_path_factory.mktemp("experiment")
    return train_seed(1, ("gsnet", "ebseg", "mm-ovseg"), TINY, folder, progress=False), folder


def test_all_methods_have_equal_budgets_and_the_same_samples() -> None:
    recipe = ExperimentRecipe()
    assert recipe.with_seed(2).loop == replace(recipe.loop, seed=2)
    assert {network_config(name).readings for name in METHODS if name != "ebseg"} == {network_config("gsnet").readings}
    assert [network_config(name).method for name in SHIPPED] == ["cat-seg", "gsnet", "mm-ovseg", "mm-ovseg"]
    with pytest.raises(InputError, match="method of the experiment"):
        network_config("gsnett")


def test_a_stopped_experiment_takes_over_what_is_done(trained: tuple[TrainedSeed, Path]) -> None:
    first, folder = trained
    again = train_seed(1, ("gsnet",), TINY, folder, progress=False)
    for one, other in zip(
        first.methods["gsnet"].network.parameters(), again.methods["gsnet"].network.parameters(), strict=True
    ):
        assert torch.equal(one, other)
    assert cpu_seconds(again)["gsnet"] == cpu_seconds(first)["gsnet"]


def test_what_is_written_is_what_was_trained(trained: tuple[TrainedSeed, Path], tmp_path: Path) -> None:
    seed, _ = trained
    names = write_seed(tmp_path, seed)
    assert names == ["rsov-tiny-gsnet-s1", "rsov-tiny-ebseg-s1", "rsov-tiny-mmovseg-s1"]
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    for method, one in seed.methods.items():
        file = next(path for path in tmp_path.glob("*.safetensors") if method.replace("-", "") in path.name)
        loaded = load_fusion(file, "cpu")
        maps = [
            FusionSegmenter(network, method, FusionOptions(window=0))(image, ["forest", "water"]).probabilities
            for network in (one.network, loaded)
        ]
        assert np.abs(maps[0] - maps[1]).max() < 0.03  # half precision
        record = read_record(file)["record"]
        assert record["seed"] == 1
        assert record["data"]["suites"] == list(TRAIN_SUITES)
        assert (record["cmu"] is not None) == (method == "mm-ovseg")
        assert file.stat().st_size < 3.5e6
    manifest = json.loads((tmp_path / "models.json").read_text(encoding="utf-8"))
    assert set(manifest) == set(names)


def test_the_card_quotes_what_was_measured(trained: tuple[TrainedSeed, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="write a trained seed first"):
        write_card(tmp_path)
    seed, _ = trained
    write_seed(tmp_path, seed)
    write_scores(tmp_path, {"GSNet": {"s1": "12.3 [1.0, 20.0]"}})
    text = write_card(tmp_path).read_text(encoding="utf-8")
    distilled = seed.encoders.sar_dino
    assert distilled is not None
    assert f"{distilled.after[0].top1:.2%}" in text
    assert "12.3 [1.0, 20.0]" in text
    assert "{" not in text


def test_conditions_change_what_they_name_and_nothing_else() -> None:
    plain = shown_scenes(SUITE, Condition(cover=0.0), 2)[1]
    cloudy = shown_scenes(SUITE, Condition(cover=0.7), 2)[1]
    assert plain.name == cloudy.name
    assert np.array_equal(plain.labels, cloudy.labels)
    assert not plain.opacity.any()
    assert (cloudy.opacity > 0.1).mean() == pytest.approx(0.7, abs=0.02)
    assert plain.sar is not None
    assert np.array_equal(plain.sar, cloudy.sar)

    moved = shown_scenes(SUITE, Condition(cover=0.0, shift=5), 2)[1]
    assert moved.sar is not None
    assert np.array_equal(moved.sar[5:, 5:], plain.sar[:-5, :-5])
    assert np.array_equal(moved.optical, plain.optical)

    def roughness(looks: float) -> float:
        sar = shown_scenes(SUITE, Condition(cover=0.0, looks=looks), 2)[1].sar
        assert sar is not None
        grey = sar[..., 0].astype(float)
        return float(np.abs(np.diff(grey, axis=1)).mean())

    assert roughness(1.0) > 1.3 * roughness(50.0)
    half = shown_scenes(SUITE, Condition(sar="half"), 2)[1]
    assert half.sar_valid is not None
    assert half.sar_valid.mean() == pytest.approx(0.5)
    assert shown_scenes(SUITE, Condition(sar="missing"), 2)[1].sar is None
    with pytest.raises(InputError, match="given, missing"):
        Condition(sar="gone")


def test_validation_and_test_scenes_are_different_ones() -> None:
    names = [{scene.name for scene in shown_scenes(SUITE, Condition(split=s), 3)} for s in ("validation", "test")]
    assert not names[0] & names[1]
    assert all(int(name.split()[-1]) >= 2_000_000 for name in names[1])


def test_counts_are_those_of_one_call_a_scene(trained: tuple[TrainedSeed, Path]) -> None:
    made = FusionSegmenter(trained[0].methods["mm-ovseg"].network, "mm-ovseg", FusionOptions(window=0))
    counts, calibration = score_network(made, SUITE, Condition(), 3)
    hits = pixels = 0
    for scene in shown_scenes(SUITE, Condition(), 3):
        assert scene.optical.shape == (SIDE, SIDE, 3)
        labels = made(scene.optical, scenes_of(SUITE).prompts(), scene.sar, scene.sar_valid).labels
        known = scene.labels < 5
        hits, pixels = hits + int((labels == scene.labels)[known].sum()), pixels + int(known.sum())
    assert counts.compute()["pixel_accuracy"] == pytest.approx(hits / pixels, abs=1e-9)
    assert calibration.compute()["accuracy"] == pytest.approx(hits / pixels, abs=1e-3)
    assert set(counts.compute()["strata"]) == {"clear", "cloudy"}


def test_stored_scores_are_taken_over(
    trained: tuple[TrainedSeed, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = FusionSegmenter(trained[0].methods["gsnet"].network, "gsnet", FusionOptions(window=0))
    monkeypatch.setattr(evaluation, "segmenter", lambda method, seed, source: made)
    evaluation.keep_scores(str(tmp_path))
    try:
        first = evaluation.score("gsnet", 7, SUITE, Condition(), 2)
        evaluation._remembered.cache_clear()
        monkeypatch.setattr(evaluation, "score_network", None)  # may not be needed again
        again = evaluation.score("gsnet", 7, SUITE, Condition(), 2)
    finally:
        evaluation.keep_scores("")
        evaluation._remembered.cache_clear()
    assert again.counts.compute() == first.counts.compute()
    assert again.ece == first.ece
    assert len(list((tmp_path / "scores").iterdir())) == 1


def test_the_slope_of_the_claim_is_a_straight_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two methods whose accuracies are set by hand: one falls with the cover, the other doesn't."""
    from rsovlib.metrics import SegmentationMetrics

    def made_up(method: str, suite: str, condition: Condition, count: int, seeds: object) -> SegmentationMetrics:
        meter = SegmentationMetrics(["a", "b"], boundary_tolerance=None, boundary_width=None, keep_images=True)
        wrong = 0 if method == "mm-ovseg" else round(10 * (condition.cover or 0))
        for index in range(count):
            truth = np.tile([[0, 1]], (20, 1))
            found = truth.copy()
            found[:wrong] = 1 - found[:wrong]
            meter.update(found, truth, image=f"{index}")
        return meter

    monkeypatch.setattr(claims, "pooled", made_up)
    monkeypatch.setattr(evaluation, "pooled", made_up)
    claim = weather.examine_claim("mm-ovseg", "gsnet", SUITE, (0.0, 0.5, 1.0), scenes=4)
    # Of 20 rows 0, 5 and 10 are wrong: IoU 1, 15 / 25 and 10 / 30.
    gaps = [0.0, 40.0, 100 * 20 / 30]
    assert [one.value for one in claim.advantages] == pytest.approx(gaps)
    assert claim.slope.value == pytest.approx(gaps[2] - gaps[0])
    assert claim.verdict.startswith("holds here")
    turned = weather.examine_claim("gsnet", "mm-ovseg", SUITE, (0.0, 0.5, 1.0), scenes=4)
    assert turned.verdict.startswith("does not hold")


def test_every_setting_and_reading_is_there() -> None:
    assert list(SETTINGS) == [f"s{number}" for number in range(1, 7)]
    assert READINGS["corrected"] == {}
    assert set(READINGS["all of the release's readings"]) >= {"sar_follows_optical", "unseen_left_out"}
