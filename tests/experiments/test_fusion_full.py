"""The full profile of MM-OVSeg on fake copies of the real sets, with the embedded backbones in the papers' place."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rsovlib.backbones import load_dino
from rsovlib.cli import main
from rsovlib.errors import InputError, WeightsError
from rsovlib.experiments import reproduce
from rsovlib.experiments.fusion import evaluation, scenes, sizes, tables
from rsovlib.experiments.fusion.bench import numbers, prepare
from rsovlib.experiments.fusion.claims import CLAIMS, settings_means
from rsovlib.experiments.fusion.cmu_run import cmu_job
from rsovlib.experiments.fusion.evaluation import network_for, score, use_networks
from rsovlib.experiments.fusion.networks import find_networks
from rsovlib.experiments.fusion.panels import cloudiest, scene_panels, under_clouds
from rsovlib.experiments.fusion.publish import write_trained
from rsovlib.experiments.fusion.recipe import ExperimentRecipe, network_config
from rsovlib.experiments.fusion.scenes import PLAIN, Condition, dataset_of, scenes_of, shown_scenes
from rsovlib.experiments.fusion.settings import SETTINGS, chosen_settings, suite_settings, training_sets
from rsovlib.experiments.fusion.sources import open_pool, parse_source, parse_sources, put_aside
from rsovlib.experiments.fusion.training import training_job
from rsovlib.experiments.fusion.variants import given_readings
from rsovlib.experiments.results import ResultRow, make_row, read_rows
from rsovlib.experiments.runs import FINISHED, finished_runs
from rsovlib.experiments.sdci.verdicts import findings
from rsovlib.experiments.tables import load_tables
from rsovlib.fusion.segmenter import make_fusion_segmenter
from rsovlib.fusion.weights import encoder_record, load_encoder, load_fusion, read_record

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import fakes

KOREA, CHINA = "datasets/ddhr-sk/mm-ovseg", "datasets/ddhr-ch/mm-ovseg"
PIE, OEM = "datasets/pie-rgb-sar/mm-ovseg-cloud", "datasets/openearthmap-sar/mm-ovseg-thick"
TINY: dict[str, Any] = {"architecture": "tiny", "steps": 2, "batch": 2, "side": 32, "workers": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``RSOV_DATA`` with small copies in the publishers' folders; clouds of PIE and OEM have to be made."""
    folder = tmp_path_factory.mktemp("data")
    for name, layout in {
        "ddhr-sk": "ddhrnet",
        "ddhr-ch": "mm-ovseg",
        "pie-rgb-sar": "asanet",
        "openearthmap-sar": "dfc2025",
        "cmu-data": "pairs",
    }.items():
        fake = fakes.make_fake(folder / "made" / name, name, layout)
        fake.root.rename(folder / name)
    shutil.rmtree(folder / "pie-rgb-sar" / "rgb_clouds")
    shutil.rmtree(folder / "openearthmap-sar" / "train" / "rgb_cloud")
    return folder


@pytest.fixture
def at_hand(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The copies are where they are looked for, and nothing of other tests is remembered."""
    monkeypatch.setenv("RSOV_DATA", str(data))
    _forget()
    yield
    use_networks()
    evaluation.keep_scores("")
    _forget()


def _forget() -> None:
    scenes_of.cache_clear()
    scenes._made.cache_clear()
    evaluation._remembered.cache_clear()


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CMU on CMU-Data, then three networks on DDHR-SK: the folder holds ``cmu`` and ``korea``."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSOV_DATA", str(data))
        job = cmu_job("full", held_out=1, positions=4, progress=False, **TINY)
        job.write(folder / "cmu", folder, job.run(folder, progress=False))
        methods = "gsnet, ebseg, mm-ovseg"
        networks = training_job("full", methods=methods, cmu=[folder / "cmu"], progress=False, **TINY)
        write_trained(folder / "korea", networks.run(folder, progress=False))
        assert len(list(folder.glob("*.ckpt"))) == 3
        networks.forget_checkpoints(folder)
        assert not list(folder.glob("*.ckpt"))
    return folder


# ---- settings and recipes --------------------------------------------------------------------------------------------


def test_the_tables_run_the_settings_that_are_stated_in_one_place() -> None:
    pairs = [{"train": one.train, "test": one.test} for one in SETTINGS.values()]
    known = load_tables()
    for name in ("table2", "table-a3-seen", "table-a3-unseen", "table-a4", "figure3", "figures-maps"):
        assert known[f"mm-ovseg-{name}"].profiles["full"].matrix == pairs, name
    for name in ("training", "training-baselines", "training-vit-l", "training-baselines-vit-l"):
        matrix = known[f"mm-ovseg-{name}"].profiles["full"].matrix
        assert isinstance(matrix, dict)
        assert tuple(matrix["train"]) == training_sets(), name
    for name in ("table3", "table-a5", "readings"):
        assert known[f"mm-ovseg-{name}"].profiles["full"].matrix == [pairs[1]], name
    for point in known["mm-ovseg-clouds"].profiles["full"].points():
        assert {"train": point["train"], "test": point["test"]} in pairs


def test_which_setting_trains_and_tests_on_what() -> None:
    assert chosen_settings() == suite_settings()
    assert list(suite_settings().values())[1] == "mm-ovseg-ddhr-sk"
    assert chosen_settings(KOREA) == {"s2": KOREA, "s6": CHINA}
    assert chosen_settings(KOREA, CHINA) == {"s6": CHINA}
    assert chosen_settings(PIE, OEM) == {OEM: OEM}  # one's own
    assert chosen_settings(test="mm-ovseg-ddhr-sk") == {"s2": "mm-ovseg-ddhr-sk"}
    assert len(training_sets()) == 5
    for wrong in (("", CHINA), (CHINA, "")):
        with pytest.raises(InputError):
            chosen_settings(*wrong)


def test_sources() -> None:
    assert str(parse_source(KOREA)) == KOREA
    assert parse_source("mm-ovseg-ddhr-sk") == parse_source("suites/mm-ovseg-ddhr-sk")
    assert [one.kind for one in parse_sources(f"{KOREA}, suites/mm-ovseg-ddhr-sk")] == ["datasets", "suites"]
    assert parse_sources("/a, /b")[0].kind == "folders"
    for wrong in ("datasets/ddhr-sk", "suites/a/b", "elsewhere/x", ""):
        with pytest.raises(InputError, match="no source of scenes"):
            parse_source(wrong)
    for texts in ("", "/a", f"/a, {KOREA}", "/a, /b, /c"):
        with pytest.raises(InputError):
            parse_sources(texts)


def test_the_papers_recipe() -> None:
    base, large = ExperimentRecipe.full("vit-b"), ExperimentRecipe.full("vit-l")
    stage2, loop = base.of_method("mm-ovseg")
    assert (loop.steps, loop.rate, loop.clip, loop.weight_decay, stage2.batch) == (80_000, 2.5e-4, 0.01, 1e-4, 8)
    assert (loop.warm_up, loop.floor, loop.matmul, stage2.clip_factor) == (0.0, 0.0, "high", 0.01)
    assert (stage2.samples.side, stage2.samples.short_side, stage2.samples.cover) == (384, 384, None)
    assert (large.of_method("mm-ovseg")[1].steps, large.of_method("mm-ovseg")[0].batch) == (120_000, 4)
    budgets = {name: base.of_method(name) for name in ("cat-seg", "gsnet", "ebseg")}
    assert {name: (one[1].steps, one[0].batch, one[1].rate) for name, one in budgets.items()} == {
        "cat-seg": (80_000, 4, 2e-4),
        "gsnet": (30_000, 4, 2e-4),
        "ebseg": (120_000, 16, 1e-4),
    }
    assert budgets["ebseg"][0].samples.side == 640
    equal = ExperimentRecipe.full("vit-b", budgets="equal")
    assert equal.of_method("gsnet") == equal.of_method("mm-ovseg")
    assert (base.cmu.blocks, large.cmu.blocks) == ((3, 7, 11), (7, 15, 23))
    assert (base.cmu.positions, base.cmu.batch, base.cmu.contrast.temperature) == (256, 64, 0.07)
    cmu = base.cmu_steps(25_087).cmu_loop
    assert (cmu.steps, cmu.rate, cmu.weight_decay, cmu.warm_up) == (19_600, 1e-4, 0.05, 0.05)
    assert base.backbones_of(7) == ("openai-ViT-B-16", "dino-vitb8")
    with pytest.raises(InputError, match="Did you mean 'vit-b'"):
        ExperimentRecipe.full("vit-bb")
    with pytest.raises(InputError, match="budgets"):
        ExperimentRecipe.full(budgets="fair")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="seeds 0 to 2"):
        ExperimentRecipe().backbones_of(3)


def test_sizes_can_be_changed_for_all_methods_at_once() -> None:
    small = ExperimentRecipe.full("tiny", steps=3, batch=2, side=32)
    for method in ("mm-ovseg", "gsnet", "ebseg"):
        stage2, loop = small.of_method(method)
        assert (loop.steps, stage2.batch, stage2.samples.side, stage2.samples.short_side) == (3, 2, 32, 32)
    assert (small.cmu.batch, small.cmu.samples.side, small.cmu_loop.steps) == (2, 32, 3)
    assert network_config("mm-ovseg", "vit-l").dino_blocks == (8, 16, 24)
    assert network_config("gsnet", readings="first synonym only (release)").readings.all_synonyms is False
    with pytest.raises(InputError, match="no reading"):
        network_config("gsnet", readings="released")


# ---- CMU -------------------------------------------------------------------------------------------------------------


def test_the_distilled_encoder_is_written_and_read(trained: Path, tmp_path: Path) -> None:
    file = trained / "cmu" / "sar-dino.safetensors"
    content = encoder_record(file)
    assert content["kind"] == "dino"
    assert content["record"]["pairs"] == "datasets/cmu-data/cmu"
    assert content["record"]["count"] == 4  # of five pairs one was put aside
    dino = load_dino(device="cpu")
    encoder = load_encoder(file, dino)
    assert (encoder.name, encoder.weights, encoder.sha256) == ("rsov-tiny-dino (SAR)", "CMU", "")
    before, after = dino.model.state_dict(), encoder.model.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())
    with pytest.raises(WeightsError, match="give the teacher of the distillation"):
        load_encoder(file, load_dino("rsov-tiny-dino-s1", device="cpu"))
    with pytest.raises(WeightsError, match="no fusion network"):
        read_record(file)
    with pytest.raises(WeightsError, match="no distilled encoder"):
        encoder_record(trained / "korea" / "gsnet.safetensors")
    with pytest.raises(WeightsError, match="no weights file"):
        encoder_record(tmp_path / "absent.safetensors")


def test_clip_is_distilled_on_pairs_of_ones_own(data: Path, tmp_path: Path, at_hand: None) -> None:
    pairs = f"{data / 'cmu-data' / 'optical'}, {data / 'cmu-data' / 'sar'}"
    job = cmu_job("full", pairs=pairs, encoder="clip", held_out=0, positions=4, limit=3, progress=False, **TINY)
    assert job.count == 3
    assert job.held_out is None
    found = job.run(tmp_path, progress=False)
    path = job.write(tmp_path, tmp_path, found)
    encoder = load_encoder(path, job.teacher)
    for name, value in found.encoder.model.state_dict().items():
        assert torch.equal(value, encoder.model.state_dict()[name]), name
    assert not list(tmp_path.glob("*.ckpt"))


def test_the_teacher_sees_no_clouds(at_hand: None) -> None:
    cloudy, clear = (open_pool(parse_source(OEM), labelled=labelled) for labelled in (True, False))
    assert any((a.optical != b.optical).any() for a, b in zip(cloudy.pairs, clear.pairs, strict=True))
    assert clear.pairs[0].labels is None
    with pytest.raises(InputError, match="no images without clouds"):
        cmu_job("full", pairs=KOREA, progress=False, **TINY)
    whole, aside = put_aside(clear, 2)
    assert aside is not None
    names = [{pair.name for pair in pool.pairs} for pool in (whole, aside)]
    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == len(clear.pairs)
    assert put_aside(clear, 99) == (clear, None)


def test_epochs_become_steps(at_hand: None) -> None:
    options = {**TINY, "steps": 0}
    job = cmu_job("full", epochs=3, held_out=1, progress=False, **options)
    assert job.recipe.cmu_loop.steps == 6  # three times four pairs, two at a time
    assert "4 pairs of datasets/cmu-data/cmu, 1 put aside" in job.story()


# ---- training --------------------------------------------------------------------------------------------------------


def test_networks_say_where_they_come_from(trained: Path) -> None:
    found = find_networks([trained / "korea"])
    assert [one.method for one in found] == ["ebseg", "gsnet", "mm-ovseg"]
    for one in found:
        assert (one.train, one.seed, one.readings, one.architecture) == (KOREA, 0, "corrected", "tiny")
        assert one.backbones == ("rsov-tiny-clip", "rsov-tiny-dino")
        assert one.record["classes"] == {"ddhr-sk (mm-ovseg)": ["city", "forest", "farmland"]}
        assert one.record["data"] == {"ddhr-sk (mm-ovseg)": 2}
        assert "files" in one.record["versions"]["datasets/ddhr-sk"]
        assert np.isfinite(one.record["last"]["loss"])
        assert "tiny" in one.unlike_paper
    assert found[2].record["cmu"]["pairs"] == "datasets/cmu-data/cmu"
    assert found[1].record["cmu"] is None
    network = load_fusion(found[2].path, "cpu")
    encoder = load_encoder(trained / "cmu" / "sar-dino.safetensors", load_dino(device="cpu"))
    for one, other in zip(network.sar_model.parameters(), encoder.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert network.config.size == 32


def test_what_differs_from_the_paper_is_told(trained: Path) -> None:
    (gsnet,) = [one for one in find_networks([trained / "korea"]) if one.method == "gsnet"]
    stage2, loop = ExperimentRecipe.full("vit-b").of_method("gsnet")
    record = {"recipe": {"batch": 4, "samples": {"side": 384}}, "loop": {"steps": 30_000, "rate": 2e-4}, "cmu": None}
    published = replace(gsnet, architecture="vit-b", backbones=("openai-ViT-B-16", "dino-vitb8"), record=record)
    assert (stage2.batch, loop.steps) == (4, 30_000)
    assert published.unlike_paper == ""
    assert "in place of GSNet's" in published.stand_ins
    own = "vit_base_patch8_224@/data/rsib.pth"
    assert replace(published, backbones=("openai-ViT-B-16", own)).stand_ins == ""
    shorter = replace(published, record={**record, "loop": {"steps": 100, "rate": 2e-4}})
    assert shorter.unlike_paper == "steps 100, not 30000"
    pairs = replace(published, method="mm-ovseg", record={**record, "cmu": {"pairs": "/a, /b"}})
    assert "CMU on /a, /b in place of CMU-Data" in pairs.stand_ins


def test_a_stopped_training_goes_on_to_the_same_bits(tmp_path: Path, at_hand: None) -> None:
    options = {**TINY, "steps": 6}
    job = training_job("full", methods="gsnet", train=PIE, progress=False, **options)
    job = replace(job, recipe=replace(job.recipe, loop=replace(job.recipe.loop, save_every=2, log_every=1)))
    straight = job.run(tmp_path / "straight", progress=False).methods["gsnet"]

    from rsovlib.fusion.augment import DrawFrom

    calls, draw = iter(range(100)), DrawFrom.__call__

    def interrupted(self: DrawFrom, rng: np.random.Generator) -> object:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return draw(self, rng)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DrawFrom, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            job.run(tmp_path / "stopped", progress=False)
    (kept,) = (tmp_path / "stopped").glob("gsnet-*.ckpt")
    assert torch.load(kept, weights_only=True)["step"] == 4
    again = job.run(tmp_path / "stopped", progress=False).methods["gsnet"]
    for (name, one), other in zip(straight.network.named_parameters(), again.network.parameters(), strict=True):
        assert torch.equal(one, other), name
    # another training in the same folder doesn't meet it
    other_set = training_job("full", methods="gsnet", train=KOREA, progress=False, **options)
    assert other_set.checkpoint_of("gsnet") != job.checkpoint_of("gsnet")
    more_workers = replace(job, recipe=replace(job.recipe, loop=replace(job.recipe.loop, workers=3)))
    assert more_workers.checkpoint_of("gsnet") == job.checkpoint_of("gsnet")


def test_trainings_that_cannot_be_are_refused(tmp_path: Path, at_hand: None, monkeypatch: pytest.MonkeyPatch) -> None:
    job = training_job("full", methods="mm-ovseg", train=KOREA, progress=False, **TINY)
    with pytest.raises(InputError, match=r"needs a SAR encoder .* encoder='dino'"):
        job.run(tmp_path, progress=False)
    with pytest.raises(InputError, match="Did you mean 'gsnet'"):
        training_job("full", methods="gsnett", **TINY)
    with pytest.raises(InputError, match="Did you mean 'full'"):
        training_job("ful")
    with pytest.raises(InputError, match="has no readings"):
        training_job("full", methods="ebseg", readings="first synonym only (release)", **TINY)
    with pytest.raises(InputError, match="Did you mean 'cuda'"):
        training_job("full", methods="gsnet", **(TINY | {"device": "cuda:1"}))
    with pytest.raises(InputError, match="without labels"):
        training_job("full", train=f"{tmp_path}, {tmp_path}", **TINY)
    monkeypatch.delenv("RSOV_DATA")
    with pytest.raises(InputError, match=r"RSOV_DATA.*published at"):
        training_job("full", train=KOREA, **TINY)


def test_full_size_recipes_draw_clouds_over_simulated_scenes() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rsovlib.experiments.fusion.training.SUITE_SCENES", (2, 48))
        job = training_job("full", methods="gsnet", train="suites/mm-ovseg-ddhr-sk", progress=False, **TINY)
    assert job.recipe.stage2.samples.cover == (0.0, 1.0)
    assert job.pools[0].clouds == "varied"


# ---- segmenting ------------------------------------------------------------------------------------------------------


def test_a_trained_file_segments(trained: Path, tmp_path: Path, data: Path) -> None:
    file = trained / "korea" / "mm-ovseg.safetensors"
    image = np.random.default_rng(0).integers(0, 256, (40, 36, 3), dtype=np.uint8)
    made = make_fusion_segmenter("mm-ovseg", profile="full", weights=file, device="cpu", short_side=32, window=0)
    result = made(image, ["city", "road", "water"], sar=image[..., 0])
    assert result.labels.shape == (40, 36)
    assert result.settings["weights"] == "mm-ovseg.safetensors"
    assert result.settings["short_side"] == 32
    scene = next((data / "ddhr-sk").rglob("GF2/*.jpg"))
    radar = scene.parent.parent / "GF3" / scene.name
    arguments = ["segment", str(scene), "--sar", str(radar), "--classes", "city; road; water", "--quiet"]
    arguments += ["--method", "mm-ovseg", "--profile", "full", "--set", f"weights={file}", "--set", "short_side=32"]
    assert main([*arguments, "--device", "cpu", "--out", str(tmp_path / "map.tif")]) == 0
    assert (tmp_path / "map.tif").is_file()
    with pytest.raises(InputError, match="holds a network of gsnet"):
        make_fusion_segmenter("mm-ovseg", profile="full", weights=trained / "korea" / "gsnet.safetensors", device="cpu")


def test_backbones_that_lie_elsewhere_are_named(trained: Path, tmp_path: Path) -> None:
    dino = load_dino("rsov-tiny-dino-s1", device="cpu")
    first, second = tmp_path / "there.pt", tmp_path / "here.pt"
    torch.save(dino.model.state_dict(), first)
    options = {**TINY, "dino": f"rsov-tiny-dino@{first}"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rsovlib.experiments.fusion.training.SUITE_SCENES", (2, 48))
        job = training_job(
            "full", methods="mm-ovseg-no-cmu", train="suites/mm-ovseg-ddhr-sk", progress=False, **options
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rsovlib.experiments.fusion.publish.data_version", lambda names: {})
        write_trained(tmp_path / "networks", job.run(tmp_path, progress=False))
    file = tmp_path / "networks" / "mm-ovseg-no-cmu.safetensors"
    load_fusion(file, "cpu")
    first.rename(second)
    with pytest.raises(WeightsError, match=r"that file isn't here; say where it is by dino= and dino_weights="):
        load_fusion(file, "cpu")
    options = {"profile": "full", "weights": file, "device": "cpu", "dino": "rsov-tiny-dino"}
    made = make_fusion_segmenter("mm-ovseg-no-cmu", dino_weights=second, **options)
    assert made.network.sar_dino.sha256 == made.network.optical_dino.sha256 != ""
    with pytest.raises(WeightsError, match="give optical_dino= the one of the training"):
        make_fusion_segmenter("mm-ovseg-no-cmu", **options)


# ---- test scenes -----------------------------------------------------------------------------------------------------


def test_scenes_of_a_dataset(at_hand: None) -> None:
    korea, pie = scenes_of(KOREA), scenes_of(PIE)
    assert korea.classes == ["city", "road", "forest", "water", "farmland"]
    assert korea.unseen == ["road", "water"]
    assert korea.prompts() == korea.classes
    assert pie.prompts()[0] == "background"
    assert pie.prompts(plain=False)[0] == "backbroad"
    assert (korea.can_be_cloudless, pie.can_be_cloudless) == (False, True)
    assert (korea.has_opacity, pie.has_opacity) == (False, True)
    shown = shown_scenes(KOREA, PLAIN, 0)
    assert len(shown) == korea.count("test") == 2
    assert [one.name for one in shown[0:2]] == [shown[0].name, shown[1].name]
    assert (dataset_of(KOREA, 0), dataset_of(KOREA, 1), dataset_of(KOREA, 2)) == (
        "ddhr-sk",
        "ddhr-sk (part)",
        "ddhr-sk",
    )
    for scene in shown:
        assert scene.sar is not None
        assert scene.optical.shape == scene.sar.shape == (*scene.labels.shape, 3)
        assert not scene.opacity.any()
    pie_scene = shown_scenes(PIE, PLAIN, 1)[0]
    assert 0 < pie_scene.opacity.mean() < 1  # the manifest's simulated clouds
    with pytest.raises(InputError, match="validation"):
        korea.count("validation")


def test_conditions_on_real_images(at_hand: None) -> None:
    plain = shown_scenes(PIE, Condition(cover=0.0), 0)
    cloudy = shown_scenes(PIE, Condition(cover=0.6), 0)
    for bare, covered in zip(plain, cloudy, strict=True):
        assert not bare.opacity.any()
        assert (covered.opacity > 0.1).mean() == pytest.approx(0.6, abs=0.05)
        np.testing.assert_array_equal(bare.sar, covered.sar)
        np.testing.assert_array_equal(bare.labels, covered.labels)
    moved = shown_scenes(PIE, Condition(cover=0.0, shift=5), 0)[0]
    np.testing.assert_array_equal(moved.sar[5:, 5:], plain[0].sar[:-5, :-5])
    other = shown_scenes(PIE, Condition(cover=0.0, sar="other"), 0)[0]
    np.testing.assert_array_equal(other.sar, plain[1].sar)
    half = shown_scenes(PIE, Condition(sar="half"), 0)[0]
    assert half.sar_valid.mean() == pytest.approx(0.5)
    assert shown_scenes(PIE, Condition(sar="missing"), 0)[0].sar is None
    released = shown_scenes(PIE, Condition(cover=0.0, sar="released"), 0)[0]
    height, width = released.labels.shape
    corner = released.sar[
        : height * height // 384, : width * width // 384
    ]  # a native image fills a corner of 384 pixels
    assert abs(corner.astype(float).mean() - plain[0].sar.mean()) < 30
    assert (released.sar[height // 2 :, width // 2 :] == 128).all()
    for wrong in (Condition(looks=2.0), Condition(cover=0.5)):
        with pytest.raises(InputError):
            shown_scenes(KOREA, wrong, 1)[0]


# ---- scores ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[ResultRow]:
    """Everything that is recorded."""
    found: list[ResultRow] = []

    def recorded(row: str, column: str, metric: str, value: Any, **fields: Any) -> ResultRow:
        interval = fields.pop("interval", None)
        if interval is not None:
            fields |= {"low": interval.low, "high": interval.high, "level": interval.level}
        rest = {"table": "a", "paper": "", "profile": "full", "dataset": ""}
        found.append(make_row(rest | {"row": row, "column": column, "metric": metric, "value": value} | fields))
        return found[-1]

    for module in ("tables", "claims", "variants", "weather"):
        monkeypatch.setattr(f"rsovlib.experiments.fusion.{module}.record", recorded)
    return found


def test_given_networks_are_scored_on_real_scenes(trained: Path, at_hand: None, rows: list[ResultRow]) -> None:
    bench = prepare([str(trained / "korea")], train=KOREA, test=KOREA)
    assert bench.methods == ["ebseg", "gsnet", "segearth-ov", "mm-ovseg"]
    assert (bench.seeds, bench.settings) == ([0], {"s2": KOREA})
    assert set(bench.missing) == {"cat-seg", "mm-ovseg-no-cmu"}
    assert "CAT-Seg is not run" in bench.story()
    tables.settings_scores(bench.methods, "miou", 0, bench.seeds, bench.settings, bench.missing)
    by_row = {(one.row, one.column): one for one in rows}
    ours = by_row["MM-OVSeg", "s2"]
    assert ours.dataset == "ddhr-sk (own recipe)"  # it must not be compared with the paper's
    assert ours.n == 2
    assert list(ours.weights) == [
        "mm-ovseg.safetensors",
        "rsov-tiny-clip / rsov-tiny-clip.safetensors",
        "rsov-tiny-dino / rsov-tiny-dino.safetensors",
        "rsov-tiny-dino (SAR) / CMU",
    ]
    assert [len(digest) for digest in ours.weights.values()] == [64, 64, 64, 0]
    assert "tiny" in ours.note
    assert by_row["CAT-Seg", "s2"].value is None
    assert "No network of cat-seg" in by_row["CAT-Seg", "s2"].note
    assert by_row["MM-OVSeg", "mean"].note == tables.MEAN_MISSING
    rows.clear()
    tables.gains_table(tables.compared_pairs(bench.methods), "miou", 0, bench.seeds, bench.settings)
    assert {one.column for one in rows} == {"s2"}
    tables.ablation_table(0, bench.seeds, bench.source, bench.methods)
    rows.clear()
    tables.ablation_gains(0, bench.seeds, bench.source, bench.methods)
    clouded = next(one for one in rows if one.column == "under clouds")
    assert (clouded.value, clouded.note) == (None, "where the clouds of these images are isn't published")


def test_scores_count_every_pixel_at_its_own_size(trained: Path, at_hand: None) -> None:
    """By hand: each image through the segmenter, at the image's own size, all images in one pot."""
    use_networks([trained / "korea"])
    found = score("mm-ovseg", 0, KOREA, PLAIN, 0)
    made = make_fusion_segmenter(
        "mm-ovseg", weights=trained / "korea" / "mm-ovseg.safetensors", device="cpu", short_side=32, window=0
    )
    hits = pixels = 0
    for scene in shown_scenes(KOREA, PLAIN, 0):
        labels = made(scene.optical, scenes_of(KOREA).prompts(), scene.sar, scene.sar_valid).labels
        known = scene.labels < 5
        hits, pixels = hits + int((labels == scene.labels)[known].sum()), pixels + int(known.sum())
    assert found.counts.compute()["pixel_accuracy"] == pytest.approx(hits / pixels, abs=1e-9)


def test_a_test_set_finds_the_networks_of_its_training_set(trained: Path, at_hand: None) -> None:
    use_networks([trained / "korea"])
    assert network_for("mm-ovseg", 0, CHINA).train == KOREA
    assert network_for("mm-ovseg", 0, PIE).train == KOREA  # the only ones there are
    with pytest.raises(InputError, match="No network of cat-seg, seed 0"):
        network_for("cat-seg", 0, CHINA)
    with pytest.raises(InputError, match="are both ebseg, seed 0"):
        use_networks([trained / "korea", trained / "korea"])
    for wrong in (trained / "nowhere", trained / "cmu" / ".."):
        with pytest.raises(WeightsError):
            use_networks([wrong])
    use_networks()
    assert network_for("mm-ovseg", 0, CHINA) is None
    assert numbers("0, 0.5") == [0.0, 0.5]


def test_maps_of_a_real_scene(trained: Path, at_hand: None) -> None:
    bench = prepare([str(trained / "korea")], train=KOREA)
    assert bench.settings == {"s2": KOREA, "s6": CHINA}
    picture = scene_panels("s6", ["gsnet", "mm-ovseg"], cloudiest("s6", source=CHINA), 0, source=CHINA)
    assert len(picture.axes) >= 5
    assert under_clouds(bench.settings) == ""
    assert under_clouds({"s1": PIE, "s2": KOREA}) == "s1"
    assert under_clouds(suite_settings()) == "s2"


def test_given_readings_are_compared_under_their_own(trained: Path, at_hand: None, rows: list[ResultRow]) -> None:
    (ours,) = [one for one in find_networks([trained / "korea"]) if one.method == "mm-ovseg"]
    networks = [ours, replace(ours, readings="SAR not aligned (release)")]
    (found,) = given_readings(networks, PIE, 0, "cpu")
    assert list(found.meters) == ["corrected", "SAR not aligned (release)"]
    assert found.meters["corrected"].compute() != found.meters["SAR not aligned (release)"].compute()
    found.hand_over("mIoU")
    assert {one.dataset for one in rows} == {"pie-rgb-sar (own recipe)"}
    assert "mIoU against 'corrected'" in found.frame().columns
    for metric in ("miou", "miou_seen", "miou_unseen"):
        scores = {one.row: one.value for one in rows if one.metric == metric}
        (gain,) = [one for one in rows if one.metric == f"{metric} gain over corrected"]
        assert gain.row == "SAR not aligned (release)"
        assert gain.value == pytest.approx(scores[gain.row] - scores["corrected"])
        assert gain.low <= gain.value <= gain.high


def test_costs_of_given_networks(trained: Path, at_hand: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsovlib.experiments.fusion.sizes.record", lambda *given, **fields: None)
    monkeypatch.setattr("rsovlib.experiments.costs.record", lambda *given, **fields: None)
    frame = sizes.cost_rows(repeats=1, networks=[str(trained / "korea")], train=KOREA, test=KOREA, batch=2)
    assert list(frame.index) == ["CMU module", "GSNet", "MM-OVSeg"]
    loaded = load_fusion(trained / "korea" / "mm-ovseg.safetensors", "cpu")
    count = sum(parameter.numel() for parameter in loaded.parameters()) / 1e6
    assert frame.loc["MM-OVSeg", "parameters (million)"] == pytest.approx(count, abs=1e-3)
    assert (frame["training (s a step)"].astype(float) > 0).all()


def test_the_mean_of_the_settings_is_taken_over_their_runs() -> None:
    rest = {"table": "mm-ovseg-table2", "paper": "", "profile": "full", "dataset": "x", "metric": "miou"}
    made = [
        make_row(rest | {"row": row, "column": key, "value": float(place), "seed": seed})
        for row, seed, keys in (
            ("GSNet", 0, list(SETTINGS)),
            ("GSNet", 1, list(SETTINGS)[:5]),
            ("MM-OVSeg", 0, list(SETTINGS)),
        )
        for place, key in enumerate(keys)
    ]
    done = make_row(rest | {"row": "MM-OVSeg", "column": "mean", "value": 7.0, "seed": 0})
    assert settings_means([*made, done]) == {"GSNet": {0: 2.5}}


# ---- from CMU to the verdicts ----------------------------------------------------------------------------------------


def _parameters() -> dict[str, Any]:
    return {
        **TINY,
        "clip": "rsov-tiny-clip",
        "dino": "rsov-tiny-dino",
        "mm-ovseg-cmu": {"held_out": 1, "positions": 4},
        "mm-ovseg-training-baselines": {"methods": "cat-seg, gsnet, mm-ovseg-no-cmu"},
    }


def _reproduce(names: list[str], out: Path) -> Any:
    return reproduce(
        names, profile="full", workers=0, threads=1, parameters=_parameters(), out=out, progress=False, tell=print
    )


def test_from_pairs_to_the_table(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With DDHR-SK and CMU-Data alone: Table 2 has its second setting, and the others say what they lack."""
    some = tmp_path / "data"
    some.mkdir()
    for name in ("ddhr-sk", "cmu-data"):
        (some / name).symlink_to(data / name)
    monkeypatch.setenv("RSOV_DATA", str(some))
    out = tmp_path / "runs"
    summary = _reproduce(["mm-ovseg-table2"], out)
    assert summary.is_good, [(unit.label, outcome.reason) for unit, outcome in summary.failures()]
    done = [unit for unit in summary.units if summary.outcomes[unit.key].state == "finished"]
    assert [unit.table for unit in done] == [
        "mm-ovseg-training-baselines",
        "mm-ovseg-cmu",
        "mm-ovseg-training",
        "mm-ovseg-table2",
    ]
    for unit, outcome in summary.not_run():
        assert "There is no folder" in outcome.reason, unit.label
        assert "published at" in outcome.reason
    table = next(folder for folder, run in finished_runs(out) if run["table"] == "mm-ovseg-table2")
    rows = [row for row in read_rows(table / "rows.json") if row.metric == "miou" and row.column == "s2"]
    by_row = {row.row: row for row in rows}
    assert set(by_row) == {"CAT-Seg", "EBSeg", "GSNet", "SegEarth-OV", "MM-OVSeg without CMU", "MM-OVSeg", "FGAseg"}
    ours = by_row["MM-OVSeg"]
    assert (ours.profile, ours.dataset, ours.n, ours.seed) == ("full", "ddhr-sk (own recipe)", 2, 0)
    assert ours.dataset_version.startswith("datasets/ddhr-sk: 2022, manifest ")
    assert by_row["EBSeg"].value is None
    assert "No network of ebseg" in by_row["EBSeg"].note
    (trained,) = [folder for folder, run in finished_runs(out) if run["table"] == "mm-ovseg-training"]
    assert (
        ours.weights["mm-ovseg.safetensors"] == load_fusion(trained / "mm-ovseg.safetensors", "cpu").provenance.sha256
    )
    assert not list((out / "checkpoints").iterdir())
    again = _reproduce(["mm-ovseg-table2"], out)
    assert (again.count("kept"), again.count("finished")) == (4, 0)
    judged = findings(read_rows(table / "rows.json"), CLAIMS)
    assert {one.column for one in judged} == {"s2"}
    assert len(judged) == 5  # all but the gain over EBSeg, which wasn't trained


@pytest.mark.slow
def test_from_pairs_to_the_verdicts(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but OpenEarthMap-SAR (whose copy has one test image, too few for an interval)."""
    some = tmp_path / "data"
    some.mkdir()
    for name in ("ddhr-sk", "ddhr-ch", "pie-rgb-sar", "cmu-data"):
        (some / name).symlink_to(data / name)
    monkeypatch.setenv("RSOV_DATA", str(some))
    names = ["verdicts", "table-a2", "table-a5", "readings", "figure3", "figures-maps", "table-a1"]
    summary = _reproduce([f"mm-ovseg-{name}" for name in names], tmp_path / "runs")
    assert summary.is_good, [(unit.label, outcome.reason) for unit, outcome in summary.failures()]
    found = summary.results
    verdicts = found[found.table == "mm-ovseg-verdicts"]
    assert set(verdicts.column) >= {"s1", "s2", "s5", "s6"}
    rows = {name: found[found.table == f"mm-ovseg-{name}"].row.nunique() for name in ("table-a5", "readings")}
    assert rows == {"table-a5": 4, "readings": 6}
    clouds = found[found.table == "mm-ovseg-clouds"]
    assert "slope of the advantage" in set(clouds.metric)
    assert set(clouds.dataset) == {"pie-rgb-sar (own recipe)"}
    counted = found[(found.table == "mm-ovseg-table-a1") & (found.row == "MM-OVSeg") & (found.dataset == "ViT-B")]
    assert 31.170449 in set(counted.value)
    plans = json.loads((tmp_path / "runs" / "plans" / "mm-ovseg-training.full.json").read_text())
    assert len(plans["units"]) == 5
    assert (tmp_path / "runs" / FINISHED).is_dir()
