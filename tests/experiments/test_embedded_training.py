"""How the embedded models are made: data, losses, schedules, resuming, alignment, statistics, and what is written."""

from __future__ import annotations

import math
import zipfile
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from rsovlib.backbones import load_clip, load_dino
from rsovlib.backbones.embedded import EMBEDDED
from rsovlib.data.lexicon import BUILDING, FOREST, HELD_OUT_CROP, HELD_OUT_ROOF, ORCHARD, ROAD, WATER
from rsovlib.errors import InputError, OutputError, WeightsError
from rsovlib.experiments.embedded import clip_training, dino_training, progress
from rsovlib.experiments.embedded.alignment import fit_alignment
from rsovlib.experiments.embedded.clip_training import dense_tokens, new_clip, train_clip
from rsovlib.experiments.embedded.controls import ColourBackbone, random_dino
from rsovlib.experiments.embedded.dino_training import affinity_target, balanced_assignment, train_dino
from rsovlib.experiments.embedded.evaluation import (
    Case,
    confusion,
    dubai_cases,
    ladder_configs,
    run_ladder,
    scene_cases,
    word_lists,
)
from rsovlib.experiments.embedded.imagery import DUBAI_LABELS, dubai_parts, training_labels
from rsovlib.experiments.embedded.publish import model_names, write_pair
from rsovlib.experiments.embedded.recipe import (
    TEST_SEEDS,
    TRAIN_SEEDS,
    VALIDATION_SEEDS,
    ClipRecipe,
    DataRecipe,
    DinoRecipe,
)
from rsovlib.experiments.embedded.samples import IGNORE, LABELS, VEGETATION, Pool, draw_batch, real_pool, scene_pool
from rsovlib.experiments.embedded.statistics import bootstrap, mean_iou
from rsovlib.experiments.embedded.texts import draw_captions, draw_colour_texts, draw_word_lists
from rsovlib.segmenters.sdci import SDCI, SDCIConfig

SMALL_CLIP = ClipRecipe(value_steps=2, fused_steps=2, batch=4, captions=3, large_value=0, large_fused=0)


@pytest.fixture(scope="module")
def scenes() -> Pool:
    return scene_pool(6, 160, TRAIN_SEEDS)


def painted_pool() -> Pool:
    """Images in which the red channel tells the label, so that a wrong pairing of crops and labels would show."""
    rng = np.random.default_rng(0)
    labels = [np.kron(rng.integers(0, 5, (11, 12)), np.ones((16, 16))).astype(np.uint8) for _ in range(3)]
    images = [np.stack([40 * lab, lab * 0, lab * 0], axis=2).astype(np.uint8) for lab in labels]
    return Pool(images, labels, [lab * 0 for lab in labels], [""] * 3, np.full(3, 1 / 3), (64,))


def test_the_three_sets_of_scenes_do_not_meet():
    recipe = DataRecipe()
    assert TRAIN_SEEDS + recipe.scenes < VALIDATION_SEEDS
    assert VALIDATION_SEEDS + 10_000 < TEST_SEEDS


def test_crops_and_labels_stay_together(monkeypatch):
    monkeypatch.setattr("rsovlib.experiments.embedded.samples._recolour", lambda rng, images: images)
    batch = draw_batch(np.random.default_rng(1), painted_pool(), 12, 64)
    red = torch.nn.functional.avg_pool2d(batch.images[:, :1], 8).flatten(1) * 255 / 40
    expected = (batch.shares * torch.arange(LABELS)).sum(dim=-1)
    torch.testing.assert_close(red, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(batch.shares.sum(dim=-1), torch.ones(12, 64))


def test_scenes_do_not_depend_on_the_number_of_workers(scenes):
    again = scene_pool(6, 160, TRAIN_SEEDS, workers=2)
    for one, two in zip(scenes.images, again.images, strict=True):
        np.testing.assert_array_equal(one, two)


def test_too_small_scenes_are_refused():
    with pytest.raises(InputError, match="160 pixels"):
        scene_pool(1, 64, 0)


def test_word_lists_assign_every_label_to_at_most_one_class():
    rng = np.random.default_rng(0)
    for real in (False, True):
        for _ in range(60):
            for words in draw_word_lists(rng, real=real, regrouped=0.5):
                assert words.members.shape == (LABELS, len(words.texts))
                assert words.members.sum(dim=1).max() <= 1
                if real:
                    assert words.members[[BUILDING, ROAD, WATER, VEGETATION]].sum() == 4


def test_held_out_colours_are_never_put_into_words(scenes):
    rng = np.random.default_rng(0)
    for _ in range(40):
        roofs, crops = draw_colour_texts(rng)
        assert not any(HELD_OUT_ROOF in text for text in roofs)
        assert not any(f"{HELD_OUT_CROP} " in text for text in crops)
        captions, sets = draw_captions(rng, draw_batch(rng, scenes, 4, 64), 4)
        assert not any(f"{HELD_OUT_ROOF} " in text for text in captions)
        assert not any("orchard" in text for text in captions)
        assert all(ORCHARD not in present for present in sets)


def test_the_training_reads_clip_exactly_as_sdci_does():
    clip, dino = new_clip(3), random_dino()
    clip.model.eval().requires_grad_(False)
    image = torch.randint(0, 256, (72, 56, 3), dtype=torch.uint8)
    config = SDCIConfig.official(clip_size=None)
    features = SDCI(clip, dino, config).encode_image(image.numpy())
    images = image.permute(2, 0, 1)[None].float() / 255
    for deep in range(4):
        dense = dense_tokens(clip, images, deep, fused=True)
        torch.testing.assert_close(dense.paths["fused"][0], features.clip_layers[-1], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(dense.paths["fused_deep"][0], features.clip_layers[deep], atol=1e-4, rtol=1e-3)


def test_schedule_warms_up_peaks_and_ends_low():
    rates = [progress.learning_rate(step, 1000, 1e-3) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-3 / 50, rel=0.01)
    assert max(rates) == pytest.approx(1e-3, rel=0.01)
    assert rates[525] == pytest.approx(1e-3 * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * 0.525))))
    assert rates[-1] == pytest.approx(2e-5, rel=0.01)


def test_balanced_assignment_uses_every_prototype():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(120, 6, generator=generator) + torch.tensor([1.0, 0, 0, 0, 0, 0])  # one prototype attracts all
    plan = balanced_assignment(scores)
    torch.testing.assert_close(plan.sum(dim=1), torch.ones(120))
    assert plan.sum(dim=0).max() < 1.3 * plan.sum(dim=0).min()
    assert scores.softmax(dim=1).sum(dim=0).max() > 2 * scores.softmax(dim=1).sum(dim=0).min()


def test_affinity_prefers_patches_of_the_same_colour():
    images = torch.zeros(1, 3, 16, 24)
    images[..., 12:] = 0.8  # columns 0 and 1 of patches are dark up to pixel 12; the last is bright
    target = affinity_target(images, torch.ones(1, 6, 4))
    torch.testing.assert_close(target.sum(dim=-1), torch.ones(1, 6))
    assert target[0, 0, 3] > 0.4  # the dark patch below
    assert target[0, 0, 2] < 1e-3  # the bright one


def weights_of(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_clip_training_learns_repeats_itself_and_goes_on_where_it_stopped(scenes, tmp_path, monkeypatch):
    once, log = train_clip(scenes, None, SMALL_CLIP, 5)
    assert all(np.isfinite(value) for row in log for value in row.values())
    assert not torch.equal(weights_of(once.model), weights_of(new_clip(5).model))

    monkeypatch.setattr(clip_training, "SAVE_EVERY", 1)
    real_draw, calls = draw_batch, []

    def stopping(*arguments, **options):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real_draw(*arguments, **options)

    monkeypatch.setattr(clip_training, "draw_batch", stopping)
    file = tmp_path / "clip.ckpt"
    with pytest.raises(KeyboardInterrupt):
        train_clip(scenes, None, SMALL_CLIP, 5, file)
    again, whole = train_clip(scenes, None, SMALL_CLIP, 5, file)
    assert len(calls) == 5  # three steps, the interrupted one, and that one again
    torch.testing.assert_close(weights_of(again.model), weights_of(once.model), atol=1e-6, rtol=0)
    assert [row["step"] for row in whole] == [row["step"] for row in log]


def test_a_damaged_checkpoint_is_named(scenes, tmp_path):
    file = tmp_path / "clip.ckpt"
    file.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(WeightsError, match="delete it to start afresh"):
        train_clip(scenes, None, SMALL_CLIP, 0, file)


def test_dino_training_looks_at_no_label(scenes, tmp_path):
    recipe = DinoRecipe(steps=2, batch=4, prototypes=8)
    told, log = train_dino(scenes, None, recipe, 1, tmp_path / "dino.ckpt")
    assert "affinity" in log[-1]
    assert "affinity" not in log[0]
    blank = real_pool(scenes.images)
    blank = Pool(blank.images, blank.labels, blank.attributes, blank.water, scenes.weights, scenes.crops)
    untold, _ = train_dino(blank, None, recipe, 1)
    torch.testing.assert_close(weights_of(told.model), weights_of(untold.model))


def test_masked_patches_are_hidden_from_the_student():
    student = dino_training.Distiller(4).eval()
    first, second = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    everything = torch.ones(1, 64, dtype=torch.bool)
    torch.testing.assert_close(student(first, everything)[0], student(second, everything)[0])
    assert not torch.allclose(student(first, ~everything)[0], student(second, ~everything)[0])


def test_alignment_is_the_ridge_solution():
    torch.manual_seed(0)
    clip, dino = new_clip(0), random_dino()
    clip.model.eval().requires_grad_(False)
    images = torch.rand(3, 3, 64, 64)
    weight, bias, explained = fit_alignment(clip, dino, images, ridge=1e-3)
    assert weight.shape == (5, 128, 128)
    assert bias.shape == (5, 128)
    assert all(0 < share <= 1 for share in explained)
    # The gradient of the penalised squares vanishes at the solution.
    layer = torch.cat(
        [
            dino.features(
                torch.nn.functional.interpolate(dino.normalise(images), scale_factor=2, mode="bicubic")
            ).layers[2]
        ]
    ).flatten(0, 1)
    target = torch.nn.functional.normalize(dense_tokens(clip, images, 0, fused=True).paths["fused"].float(), dim=-1)
    target = torch.nn.functional.interpolate(
        target.transpose(1, 2).unflatten(2, (8, 8)), size=(16, 16), mode="bilinear", align_corners=False
    )
    residual = layer @ weight[2].T + bias[2] - target.flatten(2).transpose(1, 2).flatten(0, 1)
    centred = layer - layer.mean(dim=0)
    gradient = centred.T @ residual / len(layer) + 1e-3 * weight[2].T
    assert gradient.abs().max() < 1e-4
    assert residual.mean(dim=0).abs().max() < 1e-4


def test_raw_colour_attends_to_its_own_colour():
    colour = ColourBackbone()
    image = torch.zeros(1, 3, 16, 32)
    image[..., 16:] = 0.7
    features = colour.features(colour.normalise(image))
    assert features.grid == (2, 4)
    torch.testing.assert_close(features.attention.sum(dim=-1), torch.ones(1, 8))
    assert features.attention[0, 0, [0, 1, 4, 5]].sum() > 0.99


def test_confusion_and_mean_iou_by_hand():
    counts = confusion(np.array([[0, 1, 1, 2]]), np.array([[0, 0, 1, IGNORE]], np.uint8), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert float(mean_iou(counts)) == pytest.approx(50)  # 1/2 and 1/2; the third class has no ground truth


def test_bootstrap_of_a_method_against_itself_and_against_a_better_one():
    rng = np.random.default_rng(0)
    worse = rng.integers(1, 50, (20, 3, 3))
    better = worse + 40 * np.eye(3, dtype=int)
    same = bootstrap(worse, worse)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    gain = bootstrap(better, worse)
    assert 0 < gain.low < gain.value < gain.high
    alone = bootstrap(better)
    assert alone.value == pytest.approx(float(mean_iou(better.sum(axis=0))))


def fake_dubai(path, side=300):
    colours = np.array([(60, 16, 152), (110, 193, 228), (226, 169, 41), (132, 41, 246), (254, 221, 58), (0, 0, 0)])
    columns = np.arange(side) * 6 // side
    with zipfile.ZipFile(path, "w") as archive:
        for tile in (1, 7):
            for part in (1, 2):
                image = Image.fromarray(np.full((side - 20, side, 3), 30 * part, np.uint8))
                mask = Image.fromarray(np.tile(colours[columns][None], (side - 20, 1, 1)).astype(np.uint8))
                if tile == 7:
                    mask = mask.quantize(6, dither=Image.Dither.NONE)  # as some masks of the set are
                for kind, picture, suffix in (("images", image, "jpg"), ("masks", mask, "png")):
                    content = BytesIO()
                    picture.save(content, "JPEG" if suffix == "jpg" else "PNG")
                    archive.writestr(f"tile_{tile}/{kind}/image_part_00{part}.{suffix}", content.getvalue())
    return path


def test_dubai_parts_are_split_by_tile_and_read_by_colour(tmp_path):
    archive = fake_dubai(tmp_path / "dubai.zip")
    parts = dubai_parts(archive, (7,))
    assert [name for name, _, _ in parts] == ["tile_7/image_part_001", "tile_7/image_part_002"]
    _, image, labels = parts[0]
    assert image.shape == (280, 300, 3)
    assert labels[0, ::50].tolist() == [0, 1, 2, 3, 4, IGNORE]
    assert training_labels(labels)[0, ::50].tolist() == [*DUBAI_LABELS, IGNORE]
    cases = dubai_cases(archive, (1,), side=128)
    assert len(cases) == 8
    assert all(case.image.shape == (128, 128, 3) for case in cases)


def test_something_else_than_the_dubai_tiles_is_refused(tmp_path):
    file = tmp_path / "other.zip"
    file.write_text("no archive")
    with pytest.raises(InputError, match="zip file"):
        dubai_parts(file, (1,))
    with pytest.raises(InputError, match="has no part of tile_3"):
        dubai_parts(fake_dubai(tmp_path / "dubai.zip"), (3,))


def test_real_tiles_are_read_where_they_are(shared):
    parts = dubai_parts(shared / "data" / "dubai-aerial-seg" / "dubai_aerial_seg.zip", (2,))
    assert len(parts) == 9
    assert all(max(image.shape) <= 1100 for _, image, _ in parts)
    known = np.concatenate([labels.ravel() for _, _, labels in parts])
    assert (known != IGNORE).mean() > 0.95


def test_the_ladder_shares_work_without_changing_results():
    clip, dino = load_clip("rsov-tiny-clip", device="cpu"), load_dino("rsov-tiny-dino", device="cpu")
    whole = scene_cases(1, VALIDATION_SEEDS)[0]
    case = Case("cut", np.ascontiguousarray(whole.image[:72, :56]), whole.labels[:72, :56])
    names = word_lists()["class names"]
    configs = ladder_configs(SDCIConfig.embedded())
    together = run_ladder(clip, dino, [case], names, configs)
    assert set(together) == set(configs)
    for row, config in configs.items():
        alone = confusion(SDCI(clip, dino, config)(case.image, names).labels, case.labels, len(names))
        np.testing.assert_array_equal(together[row][0], alone, err_msg=row)


def test_a_written_pair_loads_again(tmp_path):
    clip, dino = new_clip(2), random_dino()
    clip.model.eval().requires_grad_(False)
    with pytest.raises(OutputError, match="alignment"):
        write_pair(tmp_path, clip, dino, 0)
    dino.alignment = (torch.randn(5, 128, 128), torch.randn(5, 128))
    names = write_pair(tmp_path, clip, dino, 1)
    assert names == model_names(1) == ("rsov-tiny-clip-s1", "rsov-tiny-dino-s1")
    read = load_clip("rsov-tiny-clip", weights=tmp_path / f"{names[0]}.safetensors", device="cpu")
    torch.testing.assert_close(
        read.encode_text(["water"]), clip.encode_text(["water"]), atol=3e-3, rtol=0
    )  # half precision
    image = torch.rand(1, 3, 64, 64)
    found = load_dino("rsov-tiny-dino", weights=tmp_path / f"{names[1]}.safetensors", device="cpu").features(image)
    torch.testing.assert_close(found.text_layers[0], dino.features(image).text_layers[0], atol=0.05, rtol=0.01)
    assert set(EMBEDDED) >= set(model_names(0))


def test_forest_is_a_class_of_its_own_and_vegetation_in_real_imagery():
    rng = np.random.default_rng(0)

    def columns(real):
        return {
            tuple(words.members[:, column].nonzero().flatten().tolist())
            for _ in range(40)
            for words in draw_word_lists(rng, real=real, regrouped=0)
            for column in range(len(words.texts))
        }

    assert (FOREST,) in columns(False)
    assert (FOREST,) not in columns(True)
    assert any(VEGETATION in members and FOREST in members for members in columns(True))
