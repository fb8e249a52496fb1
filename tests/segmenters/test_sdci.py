"""SDCI: the procedure against a slow reference on odd sizes, what every option does, and what a user may ask of it."""

from __future__ import annotations

import functools
from dataclasses import asdict, fields, replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from rsovlib.backbones import ClipBackbone, DinoBackbone, load_dino
from rsovlib.data.classes import parse_classes
from rsovlib.errors import InputError
from rsovlib.segmenters import SDCI, SDCIConfig, Segmentation, Segmenter
from rsovlib.segmenters.caf import Branch, fused_scores, word_scores
from rsovlib.segmenters.class_maps import probabilities
from rsovlib.segmenters.images import enlarge, resize_pil_bicubic

CLASSES = ["water, river", "forest", "bare soil"]


def small(**changes: Any) -> SDCIConfig:
    """The official reading, at sizes at which a test takes a moment."""
    return SDCIConfig.official(**{"clip_size": None, "dino_scale": 1.5, "tolerance": 1e-4, **changes})


@pytest.fixture(scope="module")
def sdci(tiny_clip: ClipBackbone, tiny_dino: DinoBackbone) -> SDCI:
    return SDCI(tiny_clip, tiny_dino, small())


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    """Three regions with noise, (37, 31, 3)."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:37, 0:31]
    colours = np.array([[40, 80, 160], [60, 130, 50], [190, 170, 140]])
    regions = np.select([x < 12, y < 20], [0, 1], default=2)
    return np.clip(colours[regions] + rng.normal(0, 6, (37, 31, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def result(sdci: SDCI, picture: NDArray[np.uint8]) -> Segmentation:
    return sdci(picture, CLASSES)


def changed(sdci: SDCI, **options: Any) -> SDCI:
    return SDCI(sdci.clip, sdci.dino, replace(sdci.config, **options))


def differing(one: Segmentation, other: Segmentation) -> set[str]:
    """The stages in which two results differ."""
    return {
        name
        for name, stage in one.stages.items()
        if np.shape(stage) != np.shape(other.stages[name]) or not np.allclose(stage, other.stages[name], atol=1e-7)
    }


# ---- the procedure, written down again as slowly and plainly as possible -----------------------------------------


def reference(clip: ClipBackbone, dino: DinoBackbone, image: NDArray[np.uint8], text: torch.Tensor) -> dict[str, Any]:
    """Steps 1 to 4 of the official procedure on a non-square image, with the models' own modules and python loops."""
    visual: Any = clip.model.visual
    h, w = 5, 4  # 37 x 31 pixels in patches of 8, each side to the nearest number of patches
    pixels = torch.from_numpy(resize_pil_bicubic(image, (8 * h, 8 * w))).permute(2, 0, 1)[None] / 255
    pixels = (pixels - torch.tensor(clip.mean).view(3, 1, 1)) / torch.tensor(clip.std).view(3, 1, 1)
    position = visual.positional_embedding
    grid = position[1:].reshape(1, 6, 6, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(h, w), mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)[0]
    x = visual.conv1(pixels).flatten(2).transpose(1, 2)[0] + grid
    x = visual.ln_pre(torch.cat([(visual.class_embedding + position[0])[None], x]))[None]

    total = torch.zeros(2, 1 + h * w, 1 + h * w)
    features = []
    for block in visual.transformer.resblocks[:-1]:
        normed = block.ln_1(x)
        features.append(normed)
        total += block.attn(normed, normed, normed, average_attn_weights=False)[1][0]
        x = block(x)
    features.append(x)
    last = visual.transformer.resblocks[-1]
    projected = []
    for feature in features:
        total = total / total.sum(dim=1, keepdim=True)
        total = total / total.sum(dim=2, keepdim=True)
        values = F.linear(last.ln_1(feature), last.attn.in_proj_weight[64:], last.attn.in_proj_bias[64:])[0]
        mixed, maps = [], []
        for head in range(2):
            symmetric = (total[head] + total[head].T) / 2
            kept = (symmetric - symmetric.mean(dim=0)).clamp_min(0)
            maps.append(kept / kept.sum(dim=1, keepdim=True))
            mixed.append(maps[-1] @ values[:, 16 * head : 16 * head + 16])
        projected.append(visual.ln_post(last.attn.out_proj(torch.cat(mixed, dim=1))) @ visual.proj)
    attention_c = torch.stack(maps).mean(dim=0)[1:, 1:]

    model: Any = dino.model
    hd, wd = 8, 6  # one and a half times 5 x 4, rounded half to even
    unit = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    unit = (unit - torch.tensor(dino.mean).view(3, 1, 1)) / torch.tensor(dino.std).view(3, 1, 1)
    unit = F.interpolate(unit, size=(14 * hd, 14 * wd), mode="bicubic", align_corners=False)
    seen = model.forward_intermediates(unit, norm=True, output_fmt="NLC", intermediates_only=True)
    raw = model.forward_intermediates(unit, return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True)[-2]
    tokens = torch.cat([raw[1], raw[0]], dim=1)
    block = model.blocks[-1]
    packed = block.attn.qkv(block.norm1(tokens))[0]  # (5 + N, 3 * 2 heads * 12)
    heads = [
        ((packed[:, 12 * i : 12 * i + 12] @ packed[:, 24 + 12 * i : 36 + 12 * i].T) / 12**0.5).softmax(dim=1)
        for i in range(2)
    ]
    attention_d = torch.stack(heads).mean(dim=0)[5:, 5:]

    def similarity(layer: torch.Tensor) -> torch.Tensor:
        return (50 * F.normalize(layer, dim=-1) @ text.T).softmax(dim=-1)[:, :3]

    def resized(maps: torch.Tensor, source: tuple[int, int], target: tuple[int, int]) -> torch.Tensor:
        for _ in range(2):  # the keys, then the queries
            images = maps.reshape(len(maps), 1, *source)
            maps = F.interpolate(images, size=target, mode="bilinear", align_corners=False).flatten(1).T
        return maps

    def smoothed(attention: torch.Tensor, scores: list[torch.Tensor]) -> torch.Tensor:
        top = scores[-1] * (scores[-1] >= 0.2 * scores[-1].max(dim=0).values)
        return attention @ top + torch.stack(scores[:-1]).mean(dim=0)

    def walked(scores: torch.Tensor, source: tuple[int, int], target: tuple[int, int], graph: torch.Tensor) -> Any:
        start = F.interpolate(scores.T.reshape(1, 3, *source), size=target, mode="bilinear", align_corners=False)
        start = start[0].flatten(1).T
        cosine = F.normalize(graph, dim=1) @ F.normalize(graph, dim=1).T
        cosine.fill_diagonal_(-1e9)
        best = cosine.topk(min(30, len(graph) - 1), dim=1)
        transition = torch.zeros_like(cosine).scatter(1, best.indices, (best.values / 0.07).exp())
        transition = transition / (transition.sum(dim=1, keepdim=True) + 1e-6)
        state = start
        for _ in range(40):
            state = 0.9 * transition @ state + 0.1 * start
        return state.T.reshape(3, *target), start.max(dim=0).values

    def shown(maps: torch.Tensor) -> torch.Tensor:
        maps = F.interpolate(maps[None], size=(37, 31), mode="bilinear", align_corners=False)[0]
        low, high = maps.flatten(1).min(dim=1).values, maps.flatten(1).max(dim=1).values
        return (maps - low[:, None, None]) / (high - low)[:, None, None]

    clip_scores = smoothed(
        attention_c + resized(attention_d, (hd, wd), (h, w)), [similarity(layer[1:]) for layer in projected]
    )
    dino_scores = smoothed(
        attention_d + resized(attention_c, (h, w), (hd, wd)), [similarity(layer[0]) for layer in seen]
    )
    clip_diffused, clip_presence = walked(clip_scores, (h, w), (hd, wd), seen[-1][0])
    dino_diffused, dino_presence = walked(dino_scores, (hd, wd), (h, w), projected[-1][1:])
    return {
        "clip_features": projected[-1],
        "clip_attention": attention_c,
        "dino_attention": attention_d,
        "clip_scores": clip_scores,
        "dino_scores": dino_scores,
        "clip_diffused": clip_diffused,
        "dino_diffused": dino_diffused,
        "clip_presence": clip_presence,
        "dino_presence": dino_presence,
        "clip_map": shown(clip_diffused),
        "dino_map": shown(dino_diffused),
    }


def test_the_official_procedure_on_an_odd_image(sdci, picture, result):
    with torch.inference_mode():
        expected = reference(sdci.clip, sdci.dino, picture, sdci.encode_text(parse_classes(CLASSES)))
    for name, value in expected.items():
        np.testing.assert_allclose(result.stages[name], value, atol=2e-5, err_msg=name)


def test_the_stages_hold_what_a_lesson_shows(result):
    shapes = {name: np.shape(stage) for name, stage in result.stages.items()}
    n_c, n_d, maps = 5 * 4, 8 * 6, (3, 37, 31)
    assert shapes == {
        "clip_features": (1 + n_c, 24),
        "clip_attention": (n_c, n_c),
        "dino_attention": (n_d, n_d),
        "clip_scores": (n_c, 3),
        "dino_scores": (n_d, 3),
        "clip_diffused": (3, 8, 6),
        "dino_diffused": (3, 5, 4),
        "clip_presence": (3,),
        "dino_presence": (3,),
        "clip_map": maps,
        "dino_map": maps,
        "superpixels": (37, 31),
        "relative_gap": (),
        "iterations": (),
    }
    assert result.labels.dtype == np.int64
    assert result.probabilities.dtype == np.float32
    assert result.probabilities.shape == maps
    np.testing.assert_allclose(result.probabilities.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(result.labels, result.probabilities.argmax(axis=0))
    assert result.classes == ["water", "forest", "bare soil"]
    assert result.stages["relative_gap"] <= 1e-4


# ---- the convex step's closed forms ------------------------------------------------------------------------------


def test_without_total_variation_the_answer_is_the_weighted_geometric_mean(sdci, picture):
    free = changed(sdci, beta=0.0, lambda_clip=0.7, lambda_dino=0.5)
    answer = free(picture, CLASSES)
    p_clip, p_dino = (
        probabilities(torch.from_numpy(answer.stages[f"{b}_map"]), free.config).double() for b in ("clip", "dino")
    )
    p_clip, p_dino = p_clip / p_clip.sum(dim=0), p_dino / p_dino.sum(dim=0)
    expected = ((0.7 * p_clip.log() + 0.5 * p_dino.log()) / 1.2).softmax(dim=0)
    np.testing.assert_allclose(answer.probabilities, expected, atol=1e-3)


def test_much_total_variation_inside_superpixels_makes_them_of_one_class(sdci, picture):
    answer = changed(sdci, beta=50.0, w_cross=0.0, tolerance=1e-6)(picture, CLASSES)
    pixels = answer.stages["superpixels"]
    assert 1 < pixels.max() + 1 < pixels.size / 20
    for number in range(pixels.max() + 1):
        assert len(np.unique(answer.labels[pixels == number])) == 1


# ---- what every option of the register does ----------------------------------------------------------------------


def clip_layers(sdci: SDCI, picture: NDArray[np.uint8], **options: Any) -> torch.Tensor:
    with torch.inference_mode():
        return changed(sdci, **options).encode_image(picture).clip_layers


def test_d08_every_layer_has_had_one_round_more(sdci, picture):
    cumulative = clip_layers(sdci, picture)
    for rounds in (1, 2, 3):
        fixed = clip_layers(sdci, picture, sinkhorn_rounds=rounds)
        alike = [torch.allclose(a, b, atol=1e-6) for a, b in zip(cumulative, fixed, strict=True)]
        assert alike == [layer + 1 == rounds for layer in range(3)]


def test_d08_and_d09_are_told_apart(sdci, picture):
    readings = {
        (rounds, centre): clip_layers(sdci, picture, sinkhorn_rounds=rounds, centre=centre)
        for rounds in ("cumulative", 0)
        for centre in ("column_mean", "global_mean")
    }
    for one, other in combinations(readings.values(), 2):
        assert (one - other).abs().max() > 1e-4


@pytest.mark.parametrize(("centre", "axes"), [("column_mean", (0,)), ("global_mean", (0, 1))])
def test_d09_what_is_subtracted(sdci, picture, centre, axes):
    """With no rounds the fused map can be written down from the blocks' own maps."""
    paper = changed(sdci, sinkhorn_rounds=0, centre=centre)
    with torch.inference_mode():
        features = paper.encode_image(picture)
        sides = (40, 32)
        pixels = torch.from_numpy(resize_pil_bicubic(picture, sides)).permute(2, 0, 1)[None] / 255
        tokens = sdci.clip.embed(sdci.clip.normalise(pixels))
        mean = sum(step.maps[0] for step in sdci.clip.walk(tokens, attention=True, stop=2)) / 2
        heads = []
        for a in mean:
            symmetric = (a + a.T) / 2
            kept = (symmetric - symmetric.mean(dim=axes, keepdim=True)).clamp_min(0)
            heads.append(kept / kept.sum(dim=1, keepdim=True))
    np.testing.assert_allclose(features.clip_attention, torch.stack(heads).mean(dim=0)[1:, 1:], atol=1e-6)


def test_d11_block_outputs_share_the_last_layer_with_normed_inputs(sdci, picture):
    inputs, outputs = clip_layers(sdci, picture), clip_layers(sdci, picture, layer_features="block_outputs")
    assert [torch.allclose(a, b, atol=1e-6) for a, b in zip(inputs, outputs, strict=True)] == [False, False, True]


def test_d12_the_plain_average_of_the_blocks_maps(sdci, picture):
    with torch.inference_mode():
        features = changed(sdci, clip_attention="raw_mean").encode_image(picture)
        pixels = torch.from_numpy(resize_pil_bicubic(picture, (40, 32))).permute(2, 0, 1)[None] / 255
        tokens = sdci.clip.embed(sdci.clip.normalise(pixels))
        mean = sum(step.maps[0] for step in sdci.clip.walk(tokens, attention=True, stop=2)) / 2
    np.testing.assert_allclose(features.clip_attention, mean.mean(dim=0)[1:, 1:], atol=1e-6)


def test_d06_the_resize_of_dinos_input_touches_dino_alone(sdci, picture, result):
    assert differing(result, changed(sdci, dino_resize="pil")(picture, CLASSES)) >= {"dino_attention", "dino_scores"}
    same_size = [changed(sdci, dino_size=56, dino_scale=None, dino_resize=how) for how in ("pil", "tensor")]
    square = np.ascontiguousarray(np.resize(picture, (56, 56, 3)))
    assert not differing(*(one(square, CLASSES) for one in same_size))


def test_d07_a_sum_shows_in_the_plain_map_only(sdci, picture, result):
    assert not differing(result, changed(sdci, layer_maps="sum")(picture, CLASSES))
    with torch.inference_mode():
        mean, total = (
            changed(sdci, clip_attention="raw_mean", layer_maps=how).encode_image(picture) for how in ("mean", "sum")
        )
    torch.testing.assert_close(total.clip_attention, 2 * mean.clip_attention)  # two of three blocks have a map
    torch.testing.assert_close(total.clip_layers, mean.clip_layers)


def test_d10_the_output_projection_can_be_left_out(sdci, picture, monkeypatch):
    with torch.inference_mode():
        short = clip_layers(sdci, picture, value_path="values")
        projection = sdci.clip.blocks[-1].attn.out_proj
        monkeypatch.setattr(projection, "forward", lambda values: values)
        torch.testing.assert_close(clip_layers(sdci, picture), short)


def test_d13_the_class_token_can_be_taken_out_first(sdci, picture):
    """With no rounds the map without it can be written down from the blocks' own maps."""
    without = changed(sdci, sinkhorn_rounds=0, class_token="dropped")
    with torch.inference_mode():
        features = without.encode_image(picture)
        pixels = torch.from_numpy(resize_pil_bicubic(picture, (40, 32))).permute(2, 0, 1)[None] / 255
        tokens = sdci.clip.embed(sdci.clip.normalise(pixels))
        total = sum(step.maps[0, :, 1:, 1:] for step in sdci.clip.walk(tokens, attention=True, stop=2))
        heads = []
        for a in total:
            symmetric = (a + a.T) / 2
            kept = (symmetric - symmetric.mean(dim=0, keepdim=True)).clamp_min(0)
            heads.append(kept / kept.sum(dim=1, keepdim=True))
    torch.testing.assert_close(features.clip_attention, torch.stack(heads).mean(dim=0), atol=1e-6, rtol=0)
    assert features.clip_last.shape == (21, 24)  # the class token is there all the same
    with torch.inference_mode():
        raw = changed(sdci, clip_attention="raw_mean", class_token="dropped").encode_image(picture).clip_attention
    torch.testing.assert_close(raw, total.mean(dim=0) / 2, atol=1e-6, rtol=0)


def test_d14_rows_without_the_prefix_can_be_brought_to_1(sdci, picture):
    with torch.inference_mode():
        plain, renormed = (
            changed(sdci, dino_rows=rows).encode_image(picture).dino_attention
            for rows in ("as_they_are", "renormalised")
        )
    assert (plain.sum(dim=1) < 1).all()
    torch.testing.assert_close(renormed.sum(dim=1), torch.ones(len(renormed)))
    torch.testing.assert_close(renormed, plain / plain.sum(dim=1, keepdim=True))


@pytest.mark.parametrize("lambda_1", [1.0, 0.3])
def test_equation_8_in_double_precision(sdci, lambda_1):
    """(A + lambda_1 U B U^T) S_N + mean of S_n, the bilinear weights U and everything else written out."""
    generator = torch.Generator().manual_seed(5)
    own_grid, other_grid = (3, 4), (5, 2)
    scores = torch.rand(3, 12, 2, generator=generator, dtype=torch.float64)
    rivals = torch.rand(2, 10, 2, generator=generator, dtype=torch.float64)  # what the other branch thinks is its own
    own, other = (torch.rand(n, n, generator=generator, dtype=torch.float64) for n in (12, 10))

    def weight(source: int, target: int, place: int, cell: int) -> float:
        where = min(max((place + 0.5) * source / target - 0.5, 0), source - 1)
        return max(0.0, 1 - abs(where - cell))

    carried = np.array(
        [
            [weight(5, 3, r, i) * weight(2, 4, c, j) for i in range(5) for j in range(2)]
            for r in range(3)
            for c in range(4)
        ]
    )
    last = scores[-1].numpy().copy()
    for k in range(2):
        last[last[:, k] < 0.2 * last[:, k].max(), k] = 0
    expected = own.numpy() @ last + lambda_1 * carried @ other.numpy() @ carried.T @ last + scores[:2].numpy().mean(0)
    config = replace(sdci.config, lambda_1=lambda_1)
    branch, rival = Branch(scores, own, own_grid), Branch(rivals, other, other_grid)
    np.testing.assert_allclose(fused_scores(branch, rival, config)[0], expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(fused_scores(rival, branch, config)[1], expected, rtol=0, atol=1e-6)


def test_d15_renormalisation_matters_only_where_the_grids_differ(sdci, picture):
    for scale, differ in ((1.5, True), (1.0, False)):
        plain, renormed = (changed(sdci, dino_scale=scale, align_renorm=on)(picture, CLASSES) for on in (False, True))
        assert ("clip_scores" in differing(plain, renormed)) is differ
        assert ("dino_scores" in differing(plain, renormed)) is differ
    # 20 tokens seen by 48: without renormalisation every row has 48 / 20 times as much.
    with torch.inference_mode():
        features = sdci.encode_image(picture)
        text = sdci.encode_text(parse_classes(CLASSES))
        only = [changed(sdci, align_renorm=on, score_threshold=0.0, lambda_1=1e4) for on in (False, True)]
        plain, renormed = (one.score(features, text, 3)[1] for one in only)
    assert (plain.sum() / renormed.sum()).item() == pytest.approx(48 / 20, rel=0.05)


def test_d16_d17_all_texts_compete_and_the_classes_are_kept(sdci, picture):
    with torch.inference_mode():
        features = sdci.encode_image(picture)
        prompts = parse_classes(CLASSES)
        for background, mean, rows in (("other", True, 5), ("other", False, 4), (None, True, 4), (None, False, 3)):
            one = changed(sdci, background=background, mean_text=mean)
            text = one.encode_text(prompts)
            assert text.shape == (rows, 24)
            torch.testing.assert_close(text.norm(dim=1), torch.ones(rows))
            directions = one.directions(features)[0]
            total = word_scores(directions, text, 3, one.config).sum(dim=-1)
            assert (bool(total.max() < 1 - 1e-4), torch.allclose(total, torch.ones(()))) == (rows > 3, rows == 3)
            flat = word_scores(directions, text, 3, replace(one.config, logit_scale=0.0))
            torch.testing.assert_close(flat, torch.full_like(flat, 1 / rows))
        both = changed(sdci, background="clouds").encode_text(prompts)
        torch.testing.assert_close(both[4], F.normalize(both[:3].mean(dim=0), dim=0))
        assert not torch.allclose(both[3], sdci.encode_text(prompts)[3])


def test_d16_scores_can_be_logits(sdci, picture):
    with torch.inference_mode():
        features = sdci.encode_image(picture)
        text = sdci.encode_text(parse_classes(CLASSES))
        directions = F.normalize(features.clip_layers, dim=-1)
        logits = word_scores(directions, text, 3, replace(sdci.config, scores="logits"))
        expected = 50 * (directions @ text.T)
        torch.testing.assert_close(logits, expected[..., :3])
        scores = word_scores(directions, text, 3, sdci.config)
        torch.testing.assert_close(scores, expected.softmax(dim=-1)[..., :3], atol=1e-6, rtol=0)


def test_directions_that_are_known_change_nothing(sdci, picture):
    with torch.inference_mode():
        features, text = sdci.encode_image(picture), sdci.encode_text(parse_classes(CLASSES))
        directions = sdci.directions(features)
        for own, given in zip(
            sdci.score(features, text, 3), sdci.score(features, text, 3, directions=directions), strict=True
        ):
            torch.testing.assert_close(own, given, rtol=0, atol=0)
    for unit in directions:
        torch.testing.assert_close(unit.norm(dim=-1), torch.ones(unit.shape[:2]))


def test_d32_words_may_be_merged_after_the_templates(sdci):
    prompts = parse_classes(["water, river", "forest"])
    with torch.inference_mode():
        by_template, by_word = (changed(sdci, synonyms=how).encode_text(prompts) for how in ("by_template", "by_word"))
        words = [changed(sdci).encode_text(parse_classes([word]))[0] for word in ("water", "river")]
    torch.testing.assert_close(by_word[0], F.normalize((words[0] + words[1]) / 2, dim=0), atol=1e-6, rtol=0)
    torch.testing.assert_close(by_word[1], by_template[1])  # a single word
    assert not torch.allclose(by_word[0], by_template[0], atol=1e-6)


def test_d18_low_scores_of_the_last_layer_are_dropped(sdci):
    scores = torch.tensor([[[1.0, 0.5], [0.1, 0.2]], [[0.8, 0.1], [0.1, 0.5]]])  # (2 layers, 2 tokens, 2 classes)
    branches = Branch(scores, torch.eye(2), (2, 1)), Branch(torch.zeros(1, 1, 2), torch.eye(1), (1, 1))
    alone = replace(sdci.config, caf=False)
    # 0.1 is below 0.2 x 0.8, and not below 0.2 x 0.5.
    torch.testing.assert_close(fused_scores(*branches, alone)[0], torch.tensor([[1.8, 0.6], [0.1, 0.7]]))
    off = replace(alone, score_threshold=0.0)
    torch.testing.assert_close(fused_scores(*branches, off)[0], torch.tensor([[1.8, 0.6], [0.2, 0.7]]))


def test_d20_the_graphs_features(sdci, picture, result):
    mean = changed(sdci, graph_features="mean")(picture, CLASSES)
    assert {"clip_diffused", "dino_diffused"} <= differing(result, mean)
    assert not differing(result, mean) & {"clip_features", "clip_scores", "dino_scores", "clip_presence"}


@pytest.mark.parametrize("change", [{"tau": 7.0}, {"neighbours": 3}, {"alpha": 0.5}, {"steps": 2}])
def test_d21_the_walks_parameters_touch_the_walk_alone(sdci, picture, result, change):
    other = changed(sdci, **change)(picture, CLASSES)
    assert {"clip_diffused", "dino_diffused"} <= differing(result, other)
    assert not differing(result, other) & {"clip_scores", "dino_scores", "clip_presence", "superpixels"}


@pytest.mark.parametrize("change", [{"alpha": 0.0}, {"steps": 0}])
def test_a_walk_that_goes_nowhere_returns_its_start(sdci, picture, change):
    still = changed(sdci, **change)(picture, CLASSES)
    carried = enlarge(torch.from_numpy(still.stages["clip_scores"]).T.unflatten(1, (5, 4)), (8, 6))
    np.testing.assert_allclose(still.stages["clip_diffused"], carried, atol=1e-6)


def test_d23_each_branch_walks_on_the_others_grid_or_on_its_own(sdci, picture, result):
    own = changed(sdci, diffusion_graph="own")(picture, CLASSES)
    assert result.stages["clip_diffused"].shape == (3, 8, 6) == own.stages["dino_diffused"].shape
    assert result.stages["dino_diffused"].shape == (3, 5, 4) == own.stages["clip_diffused"].shape


def test_d24_without_the_others_attention(sdci, picture, result):
    alone, zero = changed(sdci, caf=False)(picture, CLASSES), changed(sdci, lambda_1=0.0)(picture, CLASSES)
    assert not differing(alone, zero) - {"iterations", "relative_gap"}
    assert {"clip_scores", "dino_scores"} <= differing(result, alone)
    more = changed(sdci, lambda_1=2.0)(picture, CLASSES)
    # Scores are linear in lambda_1.
    steps = [more.stages["clip_scores"] - result.stages["clip_scores"]]
    steps.append(result.stages["clip_scores"] - alone.stages["clip_scores"])
    np.testing.assert_allclose(*steps, atol=1e-6)


def test_d25_rescaling_alone_has_no_lasting_effect(sdci, picture, result):
    assert not differing(result, changed(sdci, rescale=False)(picture, CLASSES))
    plain = changed(sdci, rescale=False, min_max=False)(picture, CLASSES)
    rescaled = changed(sdci, min_max=False)(picture, CLASSES)
    np.testing.assert_allclose(
        plain.stages["clip_map"], enlarge(torch.from_numpy(plain.stages["clip_diffused"]), (37, 31))
    )
    # (b): each class's largest value is its largest value before the diffusion.
    np.testing.assert_allclose(
        rescaled.stages["clip_map"].max(axis=(1, 2)), rescaled.stages["clip_presence"], rtol=1e-3
    )
    np.testing.assert_array_equal(result.stages["clip_map"].min(axis=(1, 2)), 0)
    np.testing.assert_array_equal(result.stages["clip_map"].max(axis=(1, 2)), 1)


def test_d25_absent_classes_are_dropped(sdci, picture, result):
    presence = np.sort(result.stages["clip_presence"])
    between = float(presence[0] + presence[1]) / 2
    fewer = changed(sdci, presence_threshold=between)(picture, CLASSES)
    absent = result.stages["clip_presence"] < between
    assert absent.sum() == 1
    assert not fewer.stages["clip_map"][absent].any()
    np.testing.assert_array_equal(fewer.stages["clip_map"][~absent], result.stages["clip_map"][~absent])


def test_d30_when_no_class_is_present_the_first_one_wins(sdci, picture):
    none = changed(sdci, presence_threshold=100.0)(picture, CLASSES)
    assert not none.labels.any()
    np.testing.assert_allclose(none.probabilities, 1 / 3, atol=1e-5)


def test_d26_from_maps_to_probabilities(sdci):
    low = torch.tensor([0.2, 0.4, 0.0]).view(3, 1, 1)
    high = torch.tensor([1.0, 0.9, 0.8]).view(3, 1, 1)
    negative = torch.tensor([0.2, -0.4, 0.1]).view(3, 1, 1)

    def as_is(maps: torch.Tensor, **changes: Any) -> torch.Tensor:
        return probabilities(maps, replace(sdci.config, **changes))

    torch.testing.assert_close(as_is(low), torch.tensor([0.2, 0.4, 1e-6]).view(3, 1, 1))
    torch.testing.assert_close(as_is(high), high.softmax(dim=0))
    torch.testing.assert_close(as_is(negative), negative.softmax(dim=0))
    torch.testing.assert_close(as_is(high, softmax_above=3.0), high)
    torch.testing.assert_close(as_is(low, to_probability="softmax"), low.softmax(dim=0))
    divided = functools.partial(as_is, to_probability="sum")
    torch.testing.assert_close(divided(negative), torch.tensor([2 / 3, 1e-6, 1 / 3]).view(3, 1, 1))
    # Scores above 1 keep their proportions.
    torch.testing.assert_close(divided(4 * high), high / high.sum())
    # Where every class is absent, none is preferred.
    assert len(divided(torch.zeros(3, 1, 1)).unique()) == 1


def test_d27_superpixels(sdci, picture, result):
    finer = changed(sdci, superpixel_scale=1.0, superpixel_min_size=4)(picture, CLASSES)
    assert finer.stages["superpixels"].max() > result.stages["superpixels"].max()
    assert not differing(result, finer) & {"clip_map", "dino_map"}


def test_d31_templates(sdci, picture, result):
    assert "clip_scores" in differing(result, changed(sdci, templates="plain")(picture, CLASSES))
    # The networks don't read.
    assert not differing(result, changed(sdci, templates=("{} from above",))(picture, CLASSES)) & {
        "clip_features",
        "clip_attention",
        "dino_attention",
        "superpixels",
    }


def test_the_ladder_rung_by_rung(sdci, picture):
    baseline = changed(sdci, caf=False, bcdr=False, cscp=False)(picture, CLASSES)
    assert baseline.stages["clip_diffused"].shape == (3, 5, 4)
    assert "superpixels" not in baseline.stages
    # Without the convex step the CLIP branch decides.
    np.testing.assert_array_equal(baseline.labels, baseline.stages["clip_map"].argmax(axis=0))
    np.testing.assert_allclose(baseline.probabilities.sum(axis=0), 1, atol=1e-6)
    caf = changed(sdci, bcdr=False, cscp=False)(picture, CLASSES)
    assert "clip_scores" in differing(baseline, caf)


# ---- readings ----------------------------------------------------------------------------------------------------


def test_the_paper_differs_in_the_documented_fields_only():
    official, paper = asdict(SDCIConfig.official()), asdict(SDCIConfig.paper())
    assert {name: value for name, value in paper.items() if value != official[name]} == {
        "dino_like_clip": True,  # D04
        "sinkhorn_rounds": 0,  # D08
        "centre": "global_mean",  # D09
        "layer_features": "block_outputs",  # D11
        "clip_attention": "raw_mean",  # D12
        "score_threshold": 0.0,  # D18
        "graph_features": "mean",  # D20
        "rescale": False,  # D25b
        "min_max": False,  # D25d
        "to_probability": "sum",  # D26
    }
    assert official["tau"] == paper["tau"] == 0.07  # D21: not the appendix's 7
    assert SDCIConfig.official() == SDCIConfig()
    embedded = asdict(SDCIConfig.embedded())
    changes = {name for name, value in embedded.items() if value != official[name]}
    assert changes == {"clip_size", "dino_scale", "window", "presence_threshold", "tolerance"}


def test_the_paper_reading_runs(sdci, picture):
    paper = SDCI(sdci.clip, sdci.dino, SDCIConfig.paper(clip_size=None, dino_size=98))(picture, CLASSES)
    np.testing.assert_allclose(paper.probabilities.sum(axis=0), 1, atol=1e-5)
    assert paper.stages["clip_map"].max() != 1


@pytest.mark.parametrize(
    ("patch", "official", "paper"),
    [(14, (532, 616), (518, 602)), (8, (384, 448), (384, 448)), (16, (512, 592), (512, 592))],
)
def test_d01_d04_input_sizes(patch, official, paper):
    """What both networks see of a 512 x 596 image, for a CLIP of patch 14."""

    class Stub:
        embed_dim, heads, width, patch_size = 8, 1, 8, 14
        device = torch.device("cpu")

    clip, dino = Stub(), Stub()
    dino.patch_size = patch
    for config, sides in ((SDCIConfig.official(), official), (SDCIConfig.paper(), paper)):
        one = SDCI(clip, dino, config)  # type: ignore[arg-type]
        grid = one._clip_grid(512, 596)
        assert grid == (37, 43)
        assert one._dino_sides(512, 596, grid) == sides


def test_unknown_options_name_the_nearest():
    for build in (SDCIConfig.official, SDCIConfig.paper, SDCIConfig.embedded):
        with pytest.raises(InputError, match=r"lamda_clip.*Did you mean 'lambda_clip'"):
            build(lamda_clip=1)
    with pytest.raises(InputError, match=r"softmx.*Did you mean 'softmax'"):
        SDCIConfig(to_probability="softmx")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", 1.5),
        ("alpha", float("nan")),
        ("beta", -0.1),
        ("tau", 0.0),
        ("dino_scale", 0.0),
        ("dino_scale", -2.0),
        ("tolerance", 0.0),
        ("steps", -1),
        ("neighbours", 0),
        ("w_cross", -1.0),
        ("score_threshold", 2.0),
        ("sinkhorn_rounds", -1),
        ("sinkhorn_rounds", "many"),
        ("window", 8),
    ],
)
def test_options_out_of_range(name, value):
    with pytest.raises(InputError, match=name):
        SDCIConfig(**{name: value})


def test_an_overlap_as_large_as_the_window():
    with pytest.raises(InputError, match="overlap"):
        SDCIConfig(window=64, overlap=64)


def test_backbones_that_share_no_space(tiny_clip):
    dino = load_dino(
        "vit_base_patch14_reg4_dinov2", weights="random", device="cpu", img_size=28, embed_dim=36, depth=1, num_heads=2
    )
    with pytest.raises(InputError, match=r"24.*36"):
        SDCI(tiny_clip, dino)


def test_half_precision_needs_a_gpu(tiny_clip, tiny_dino):
    with pytest.raises(InputError, match="float16"):
        SDCI(tiny_clip, tiny_dino, small(precision="float16"))


# ---- symmetry ----------------------------------------------------------------------------------------------------


def test_what_the_networks_saw_mirrored_gives_the_mirrored_maps(sdci, picture):
    """The networks have position embeddings and are not symmetric; everything after them is."""

    def mirrored(tokens: torch.Tensor, grid: tuple[int, int], axis: int) -> torch.Tensor:
        return tokens.unflatten(axis, grid).flip(axis + 1).flatten(axis, axis + 1)

    def mirror_map(attention: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        return mirrored(mirrored(attention, grid, 0), grid, 1)

    with torch.inference_mode():
        seen = sdci.encode_image(picture)
        text = sdci.encode_text(parse_classes(CLASSES))
        turned = replace(
            seen,
            clip_layers=mirrored(seen.clip_layers, seen.clip_grid, 1),
            clip_attention=mirror_map(seen.clip_attention, seen.clip_grid),
            dino_layers=mirrored(seen.dino_layers, seen.dino_grid, 1),
            dino_text_layers=mirrored(seen.dino_text_layers, seen.dino_grid, 1),
            dino_attention=mirror_map(seen.dino_attention, seen.dino_grid),
        )
        one, other = (sdci.refine(features, *sdci.score(features, text, 3)) for features in (seen, turned))
    for branch in ("clip", "dino"):
        np.testing.assert_allclose(other[f"{branch}_map"], one[f"{branch}_map"].flip(-1), atol=1e-4)


# ---- images and classes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(37, 31), (100, 60), (16, 90), (8, 8), (1, 1), (3, 50)])
def test_any_size(sdci, size):
    image = np.random.default_rng(1).integers(0, 255, (*size, 3), dtype=np.uint8)
    answer = sdci(image, CLASSES)
    assert answer.labels.shape == size
    assert np.isfinite(answer.probabilities).all()
    np.testing.assert_allclose(answer.probabilities.sum(axis=0), 1, atol=1e-5)


def test_a_single_patch(sdci):
    """One token a network: no neighbours to walk to, nothing to stretch."""
    answer = changed(sdci, dino_scale=1.0)(np.full((8, 8, 3), 90, np.uint8), CLASSES)
    assert answer.stages["clip_diffused"].shape == answer.stages["dino_diffused"].shape == (3, 1, 1)
    np.testing.assert_allclose(answer.stages["clip_diffused"].ravel(), answer.stages["clip_scores"].ravel())
    assert len(np.unique(answer.labels)) == 1
    of_clip = changed(sdci, dino_scale=1.0, cscp=False)(np.full((8, 8, 3), 90, np.uint8), CLASSES)
    assert (of_clip.labels == of_clip.stages["clip_scores"].argmax()).all()


def test_a_flat_image(sdci):
    answer = sdci(np.zeros((40, 40, 3), np.uint8), CLASSES)
    assert np.isfinite(answer.probabilities).all()


def test_one_class(sdci, picture):
    answer = sdci(picture, ["water"])
    assert not answer.labels.any()
    np.testing.assert_array_equal(answer.probabilities, 1)
    # It still competes with the background and with the mean of the classes, which is itself.
    assert answer.stages["clip_scores"].shape == (20, 1)


def test_permuting_the_classes_permutes_the_answer(sdci, picture, result):
    order = [2, 0, 1]
    other = sdci(picture, [CLASSES[i] for i in order])
    np.testing.assert_allclose(other.stages["clip_scores"], result.stages["clip_scores"][:, order], atol=1e-6)
    np.testing.assert_allclose(other.stages["dino_map"], result.stages["dino_map"][order], atol=1e-5)
    np.testing.assert_allclose(other.probabilities, result.probabilities[order], atol=2e-3)
    assert other.classes == [result.classes[i] for i in order]


def test_a_repeated_synonym_changes_nothing(sdci, picture, result):
    again = sdci(picture, ["water, river, water , River", "forest,forest", "bare  soil"])
    assert not differing(result, again)
    assert "clip_scores" in differing(result, sdci(picture, ["water", "forest", "bare soil"]))


def test_one_string_for_all_classes(sdci, picture, result):
    assert not differing(result, sdci(picture, "water, river; forest; bare soil"))


def test_torch_and_numpy_images_agree(sdci, picture, result):
    tensor = torch.from_numpy(picture).permute(2, 0, 1)
    assert not differing(result, sdci(tensor, CLASSES))
    assert not differing(result, sdci(tensor.double() / 255, CLASSES))
    assert not differing(result, sdci(np.asfortranarray(picture), CLASSES))


def test_the_image_is_left_alone(sdci, picture):
    before = picture.copy()
    sdci(picture, CLASSES)
    np.testing.assert_array_equal(picture, before)


def test_a_batch_equals_one_by_one(sdci, picture, result):
    flipped = picture[:20, ::-1]
    batch = sdci.segment_batch([picture, flipped], CLASSES)
    assert not differing(result, batch[0])
    assert not differing(sdci(flipped, CLASSES), batch[1])


def test_twice_the_same(sdci, picture, result):
    again = sdci(picture, CLASSES)
    np.testing.assert_array_equal(result.probabilities, again.probabilities)


def test_the_steps_one_by_one_give_the_whole(sdci, picture, result):
    """What an interactive tool does: only the steps that a change touches are repeated."""
    with torch.inference_mode():
        features = sdci.encode_image(picture)
        text = sdci.encode_text(parse_classes(CLASSES))
        stages = sdci.refine(features, *sdci.score(features, text, 3))
        fused, _ = sdci.solve(picture, stages["clip_map"], stages["dino_map"])
    np.testing.assert_array_equal(fused.numpy(), result.probabilities)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 4), np.uint8), "A numpy image must be"),
        (np.zeros((4, 4, 4), np.uint8), "A numpy image must be"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((4, 4, 3), np.int16), "int16"),
        (np.full((4, 4, 3), 7.0), r"\[0, 1\]"),
        (np.full((4, 4, 3), np.nan), r"\[0, 1\]"),
        (torch.zeros(4, 4, 3), "A torch image must be"),
    ],
)
def test_images_of_another_kind(sdci, image, words):
    with pytest.raises(InputError, match=words):
        sdci(image, CLASSES)


@pytest.mark.parametrize("classes", [[], "", ["water", "Water"], [" , "], ["water; forest"]])
def test_classes_that_are_none(sdci, picture, classes):
    with pytest.raises(InputError):
        sdci(picture, classes)


# ---- windows -----------------------------------------------------------------------------------------------------


def test_a_window_of_the_images_size_is_the_whole_image(sdci, picture, result):
    windowed = changed(sdci, window=37, overlap=8)(picture, CLASSES)
    assert not differing(result, windowed)


def test_windows_sum_to_one_and_keep_the_maps(sdci):
    image = np.random.default_rng(2).integers(0, 255, (61, 90, 3), dtype=np.uint8)
    answer = changed(sdci, window=40, overlap=12)(image, CLASSES)
    assert answer.probabilities.shape == (3, 61, 90)
    np.testing.assert_allclose(answer.probabilities.sum(axis=0), 1, atol=1e-5)
    assert {name: stage.shape for name, stage in answer.stages.items()} == {
        "clip_map": (3, 61, 90),
        "dino_map": (3, 61, 90),
    }


def test_a_corner_that_one_window_sees_alone_is_that_windows(sdci):
    image = np.random.default_rng(3).integers(0, 255, (40, 70, 3), dtype=np.uint8)
    whole = changed(sdci, window=40, overlap=10)(image, CLASSES)
    left = sdci(image[:, :40], CLASSES)
    np.testing.assert_allclose(whole.probabilities[:, :, :30], left.probabilities[:, :, :30], atol=1e-5)


# ---- the protocol ------------------------------------------------------------------------------------------------


def test_it_is_a_segmenter(sdci, result):
    assert isinstance(sdci, Segmenter)
    settings = sdci.settings()
    assert settings == result.settings
    assert {entry.name for entry in fields(SDCIConfig)} <= set(settings)
    plain = (str, int, float, bool, tuple, type(None))
    assert all(isinstance(value, plain) for value in settings.values())
    assert settings["clip"] == "ViT-B-32 / random"


def test_memory_grows_with_the_image_and_the_classes(sdci):
    sizes = [sdci.memory_needed(side, side, 4) for side in (32, 64, 128, 256)]
    assert sizes == sorted(set(sizes))
    assert sdci.memory_needed(64, 64, 40) > sdci.memory_needed(64, 64, 4)
    windowed = changed(sdci, window=64, overlap=16)
    assert windowed.memory_needed(64, 64, 4) == sdci.memory_needed(64, 64, 4)
    # With windows only the maps grow with the image, not the attention.
    assert windowed.memory_needed(640, 640, 4) < sdci.memory_needed(640, 640, 4) / 10


# ---- the structural branch ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_base_patch8_224.dino", {"img_size": 32}),
        ("vit_base_patch14_dinov2", {"img_size": 56}),
        ("vit_base_patch16_dinov3", {}),
    ],
)
@pytest.mark.parametrize("reading", ["official", "paper"])
def test_other_generations_of_dino(tiny_clip, picture, name, options, reading):
    dino = load_dino(name, weights="random", device="cpu", embed_dim=24, depth=2, num_heads=2, **options)
    config = getattr(SDCIConfig, reading)(clip_size=None, dino_size=5 * dino.patch_size, tolerance=1e-3)
    answer = SDCI(tiny_clip, dino, config)(picture, CLASSES)
    # 31 pixels on the short side become five patches, 37 become six.
    assert answer.stages["dino_scores"].shape == (6 * 5, 3)
    assert np.isfinite(answer.probabilities).all()
    np.testing.assert_allclose(answer.probabilities.sum(axis=0), 1, atol=1e-5)
