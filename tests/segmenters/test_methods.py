"""The compared methods: what each must have in common with CLIP, with the others, and with its own description."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import rsovlib
from rsovlib.backbones import ClipBackbone, DinoBackbone, encode_words, load_clip, load_dino, template_set
from rsovlib.backbones.simfeatup import BilateralStep, SimFeatUp, guided_upsample, load_simfeatup, weighted_neighbours
from rsovlib.data.classes import parse_classes
from rsovlib.data.lexicon import CLASSES as LABELS
from rsovlib.data.lexicon import class_prompts
from rsovlib.data.scenes import make_scene
from rsovlib.errors import InputError, WeightsError
from rsovlib.metrics import SegmentationMetrics
from rsovlib.segmenters import (
    COMPARED,
    SDCI,
    CASSConfig,
    CLIPer,
    CLIPerConfig,
    CorrCLIP,
    CorrCLIPConfig,
    DenseConfig,
    MaskCLIP,
    MaskCLIPConfig,
    ProxyCLIP,
    ProxyCLIPConfig,
    ResCLIP,
    ResCLIPConfig,
    SCLIPConfig,
    SDCIConfig,
    SegEarthConfig,
    SegEarthOV,
    Segmenter,
    VanillaCLIP,
    make_segmenter,
)
from rsovlib.segmenters.dense import with_labels
from rsovlib.segmenters.images import to_unit
from rsovlib.segmenters.queries import encode_queries
from rsovlib.segmenters.sliding import input_sides, resize_bilinear, slide

WORDS = ["water, river", "forest", "buildings"]
#: What makes a method run on the small networks of these tests, at the image's own scale.
SMALL: dict[str, dict[str, Any]] = {
    **{name: {} for name in COMPARED},
    "resclip": {"rcs_layers": "relative"},
    "cass": {"head_pairing": "matched", "pad_to": 56},
    "cliper": {"templates": "photo15", "window": None},
}
MAKE = Callable[..., Any]


@pytest.fixture
def make(tiny_clip: ClipBackbone, tiny_dino: DinoBackbone) -> MAKE:
    """A method on the small networks, by name and options."""

    def build(name: str, **options: Any) -> Any:
        entry = COMPARED[name]
        given = {"size": None, "window": None, "templates": "plain", **SMALL[name], **options}
        config = entry.config.official(**given)
        return entry.make(tiny_clip, tiny_dino if entry.needs_dino(config) else None, config)

    return build


@pytest.fixture(scope="module")
def picture() -> np.ndarray[Any, Any]:
    """A simulated scene of (56, 42) pixels."""
    return np.ascontiguousarray(make_scene(64, seed=4).optical[:56, :42])


def check(result: Any, shape: tuple[int, int], classes: int) -> None:
    assert result.labels.shape == shape
    assert result.probabilities.shape == (classes, *shape)
    assert np.isfinite(result.probabilities).all()
    assert (result.probabilities >= 0).all()
    np.testing.assert_allclose(result.probabilities.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(result.labels, result.probabilities.argmax(axis=0))


# ---- every method -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.parametrize("size", [(56, 42), (37, 31), (1, 1), (90, 12)])
def test_any_size(make, name, size):
    image = np.random.default_rng(1).integers(0, 255, (*size, 3), dtype=np.uint8)
    check(make(name)(image, WORDS), size, 3)


@pytest.mark.parametrize("name", COMPARED)
def test_windows_of_the_images_size_or_less(make, picture, name):
    whole = make(name)(picture, WORDS)
    check(whole, (56, 42), 3)
    same = make(name, window=56, **({"overlap": 8} if name == "cliper" else {"stride": 56}))(picture, WORDS)
    np.testing.assert_allclose(whole.probabilities, same.probabilities, atol=1e-6)
    windows = {"window": 32, "stride": 16} if name != "cliper" else {"window": 32, "overlap": 16}
    parts = make(name, **windows)(picture, WORDS)
    check(parts, (56, 42), 3)
    assert not np.allclose(whole.probabilities, parts.probabilities, atol=1e-4)


@pytest.mark.parametrize("name", COMPARED)
def test_one_class(make, picture, name):
    result = make(name)(picture, ["water"])
    check(result, (56, 42), 1)
    assert not result.labels.any()


@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.parametrize("merge", ["max_prob", "mean_embedding", "joined"])
def test_the_order_of_the_classes_does_not_matter(make, picture, name, merge):
    method = make(name, merge=merge)
    there, back = method(picture, WORDS), method(picture, WORDS[::-1])
    np.testing.assert_allclose(there.probabilities, back.probabilities[::-1], atol=2e-5)


@pytest.mark.parametrize("name", COMPARED)
def test_the_segmenter_protocol(make, picture, name):
    method = make(name)
    assert isinstance(method, Segmenter)
    settings = method.settings()
    assert settings["method"].startswith(name)
    assert set(asdict(method.config)) <= set(settings)
    assert method(picture, WORDS).settings == settings
    sizes = [method.memory_needed(side, side, 3) for side in (64, 256, 1024)]
    assert sizes == sorted(set(sizes))
    assert method.text_features(WORDS)


@pytest.mark.parametrize("name", COMPARED)
def test_on_the_embedded_models(name):
    image = make_scene(64, seed=6).optical[:, :53]
    result = rsovlib.segment(image, WORDS, method=name, device="cpu")
    check(result, (64, 53), 3)
    assert result.settings["clip"].startswith("rsov-tiny-clip")
    assert result.settings["templates"] == "rs10"


@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.parametrize("shape", [("ViT-B-16-quickgelu", 16, 48, 4), ("ViT-L-14-quickgelu", 14, 56, 5)])
def test_architectures_like_the_papers(name, shape):
    """The published layouts (QuickGELU, patches of 16 and 14) with fewer and narrower blocks."""
    architecture, patch, side, layers = shape
    torch.manual_seed(20)
    clip = load_clip(
        architecture,
        weights="random",
        device="cpu",
        embed_dim=24,
        vision_cfg={"image_size": side, "layers": layers, "width": 32, "head_width": 16, "patch_size": patch},
        text_cfg={"width": 32, "heads": 2, "layers": 1},
    )
    entry = COMPARED[name]
    changes = {"resclip": {"rcs_layers": "relative"}, "cliper": {"templates": "plain"}}.get(name, {})
    config = entry.config.official(**{"templates": "plain", "size": 64, **changes})
    dino = None
    if entry.dino is not None:
        dino = load_dino(
            "vit_base_patch8_224", weights="random", device="cpu", img_size=32, embed_dim=24, depth=2, num_heads=2
        )
    check(entry.make(clip, dino, config)(make_scene(64, seed=7).optical[:50], WORDS), (50, 64), 3)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["ViT-B-16-quickgelu", "ViT-L-14-quickgelu"])
def test_at_the_papers_sizes(architecture):
    torch.manual_seed(21)
    clip = load_clip(architecture, weights="random", device="cpu")
    dino = load_dino("vit_base_patch8_224", weights="random", device="cpu")
    image = make_scene(256, seed=8).optical
    for name, entry in COMPARED.items():
        # Only one window, and few texts: the layouts are what is tried here.
        changes: dict[str, Any] = {"head_pairing": "matched"} if name == "cass" and "L-14" in architecture else {}
        config = entry.config.official(**{"templates": "plain", "size": 224, **changes})
        check(entry.make(clip, dino if entry.dino else None, config)(image, WORDS), (256, 256), 3)


MEASURE = """
import ctypes, numpy as np
from pathlib import Path
from rsovlib.segmenters import COMPARED, make_segmenter

def resident(line):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(text.split()[1]) * 1024 for text in lines if text.startswith(line))

image = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
for method in COMPARED:
    segmenter = make_segmenter(method, device="cpu", window=None)
    segmenter(image[:96, :96], ["water", "forest"])
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # or this run would use what the last one let go
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = resident("VmRSS:")
    segmenter(image, ["water", "forest"])
    print(method, resident("VmHWM:") - before, segmenter.memory_needed(256, 256, 2))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak can be measured on Linux only")
def test_the_foreseen_memory_is_not_below_the_measured_peak():
    child = subprocess.run([sys.executable, "-W", "ignore", "-c", MEASURE], capture_output=True, text=True, check=True)
    lines = [line.split() for line in child.stdout.splitlines()]
    assert [name for name, _, _ in lines] == list(COMPARED)
    for name, measured, foreseen in lines:
        assert int(measured) <= int(foreseen) <= 5 * int(measured) + 250 * 2**20, name


# ---- what a method shares with CLIP -----------------------------------------------------------------------------


def patch_features(method: Any, image: np.ndarray[Any, Any]) -> torch.Tensor:
    """Patch features (N, E) of the method's last block, for a picture of one window."""
    pixels = method.normalise(to_unit(image, method.device))
    tokens = method.clip.embed(pixels, method.config.position_embedding)
    for step in method.clip.walk(tokens, stop=len(method.clip.blocks) - 1):
        tokens = step.output
    last = method.last_block(tokens, (pixels.shape[2] // 8, pixels.shape[3] // 8))
    return method.read(last, method.attention(last))[1:]


def test_vanilla_is_open_clips_own_last_layer(tiny_clip, picture):
    image = np.ascontiguousarray(np.concatenate([picture, picture], axis=1)[:48, :48])  # its own grid of 6 x 6
    visual = tiny_clip.model.visual
    with torch.inference_mode():
        pixels = tiny_clip.normalise(to_unit(image, tiny_clip.device))
        tokens = visual.conv1(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([visual.class_embedding.expand(1, 1, -1), tokens], dim=1) + visual.positional_embedding
        hidden = visual.transformer(visual.ln_pre(tokens))
        expected = (visual.ln_post(hidden) @ visual.proj)[0, 1:]
        got = patch_features(VanillaCLIP(tiny_clip), image)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_only_without_residual_the_sum_of_the_rows_is_free(make, picture):
    image = picture[:48, :40]
    for name, free in {"clearclip": True, "segearth-ov": True, "sclip": False}.items():
        method = make(name)
        with torch.inference_mode():
            before = patch_features(method, image)
            own = method.attention
            method.attention = lambda last, own=own: 3 * own(last)
            after = patch_features(method, image)
        assert torch.allclose(before, after, atol=1e-4) is free


def test_both_readings_of_maskclip(tiny_clip, picture):
    original = MaskCLIPConfig.original(size=48, templates="plain")
    assert (original.residual, original.statistics, original.window) == (True, "imagenet", None)
    assert len(template_set(MaskCLIPConfig.original().templates)) == 85
    common = MaskCLIP(tiny_clip, MaskCLIPConfig.official(templates="plain"))
    assert (common.layout, MaskCLIP(tiny_clip, original).layout) == ("attention_only", "full")
    check(MaskCLIP(tiny_clip, original)(picture, WORDS), (56, 42), 3)
    image = picture[:48, :40]
    with torch.inference_mode():
        pixels = tiny_clip.normalise(to_unit(image, tiny_clip.device))
        tokens = tiny_clip.embed(pixels, "bicubic_offset")
        for step in tiny_clip.walk(tokens, stop=2):
            tokens = step.output
        np.testing.assert_allclose(patch_features(common, image), tiny_clip.attend_last(tokens)[0, 1:], atol=1e-6)


def test_prompt_denoising_drops_what_no_pixel_is_sure_of(make, picture):
    method = make("maskclip", logit_scale=1.0)
    share = method(picture, WORDS).stages["class_scores"]
    best = torch.from_numpy(share).mul(100).softmax(dim=0).amax(dim=(1, 2)).sort().values
    denoised = make("maskclip", prompt_denoising=float(best[1:].mean()), logit_scale=1.0)(picture, WORDS)
    assert 1 <= (denoised.probabilities.max(axis=(1, 2)) > 1e-6).sum() < 3
    # If it dropped all, nothing is dropped.
    check(make("maskclip", prompt_denoising=1.0)(picture, WORDS), (56, 42), 3)


# ---- text, thresholds -------------------------------------------------------------------------------------------


def test_queries_by_way_of_merging(tiny_clip):
    prompts = parse_classes(["water, river", "forest"])
    templates = ("a {}.", "the {}.")
    words = F.normalize(encode_words(tiny_clip, ["water", "river", "forest"], templates).mean(dim=1), dim=-1)
    each = encode_queries(tiny_clip, prompts, templates, "max_prob")
    np.testing.assert_allclose(each.vectors, words, atol=1e-6)
    assert each.owner.tolist() == [0, 0, 1]
    joined = encode_queries(tiny_clip, prompts, templates, "joined")
    both = encode_words(tiny_clip, ["water, river", "forest"], templates).mean(dim=1)
    np.testing.assert_allclose(joined.vectors, F.normalize(both, dim=-1), atol=1e-6)
    values = torch.tensor([[0.2, 0.5], [0.3, 0.1], [0.5, 0.4]])
    assert each.merged(values).tolist() == values[1:].maximum(torch.stack([values[0], values[2]])).tolist()


def test_max_prob_takes_the_softmax_over_names_first(make, picture):
    method = make("clearclip", logit_scale=30.0)
    names = make("clearclip", logit_scale=30.0)(picture, ["water", "river", "forest"]).probabilities
    merged = method(picture, ["water, river", "forest"]).probabilities
    scores = np.stack([names[:2].max(axis=0), names[2]])
    np.testing.assert_allclose(merged, scores / scores.sum(axis=0), atol=1e-5)


def test_a_repeated_meaning_changes_nothing_in_the_mean(make, picture):
    method = make("clearclip", merge="mean_embedding")
    once = method(picture, ["water", "forest"])
    # The tokenizer knows no upper case, so these are the same text, but two names to us.
    vectors = method.encode_text(parse_classes(["water, water ", "forest"])).vectors
    np.testing.assert_allclose(vectors, method.encode_text(parse_classes(["water", "forest"])).vectors, atol=1e-6)
    check(once, (56, 42), 2)


def test_unsure_pixels_become_background(make, picture):
    plain = make("clearclip")(picture, WORDS)
    best = plain.probabilities.max(axis=0)
    # max_prob of three classes with four names: take the threshold from what the method itself compares.
    method = make("clearclip", prob_threshold=float(np.median(best)), background_index=1, merge="mean_embedding")
    reference = make("clearclip", merge="mean_embedding")(picture, WORDS)
    expected = np.where(reference.probabilities.max(axis=0) < method.config.prob_threshold, 1, reference.labels)
    result = method(picture, WORDS)
    check(result, (56, 42), 3)
    np.testing.assert_array_equal(result.labels, expected)
    assert (expected != reference.labels).any()
    with pytest.raises(InputError, match="background_index is 7"):
        make("clearclip", prob_threshold=0.5, background_index=7)(picture, WORDS)


def test_classes_of_little_area_are_dropped(make, picture):
    method = make("sclip", merge="mean_embedding", area_threshold=0.3, background_index=0)
    before = make("sclip", merge="mean_embedding")(picture, WORDS)
    areas = np.bincount(before.labels.ravel(), minlength=3)
    kept = [0, *(k for k in (1, 2) if areas[k] >= 0.3 * areas[1:].sum())]
    expected = np.array(kept)[before.probabilities[kept].argmax(axis=0)]
    np.testing.assert_array_equal(method(picture, WORDS).labels, expected)


def test_probabilities_follow_the_labels():
    probabilities = torch.tensor([[0.5, 0.2], [0.3, 0.2], [0.2, 0.6]])[..., None]
    got = with_labels(probabilities, torch.tensor([[1], [2]]))[..., 0]
    np.testing.assert_allclose(got, [[0.3, 0.2], [0.5, 0.2], [0.2, 0.6]])


# ---- sizes and windows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sides", "size", "rule", "expected"),
    [
        ((512, 512), 336, "short", (336, 336)),
        ((512, 768), 336, "short", (336, 504)),
        ((100, 5000), 336, "short", (41, 2048)),
        ((512, 768), 448, "box", (299, 448)),
        ((333, 512), 448, "box", (291, 448)),
        ((37, 31), None, "box", (37, 31)),
    ],
)
def test_input_sizes(sides, size, rule, expected):
    assert input_sides(*sides, size, rule) == expected
    image = np.zeros((*sides, 3), np.uint8)
    assert resize_bilinear(image, expected).shape == (*expected, 3)


@pytest.mark.parametrize(
    ("side", "window", "stride", "count"), [(512, 224, 112, 16), (512, 336, 112, 9), (512, 448, 224, 4)]
)
def test_the_published_numbers_of_windows(side, window, stride, count):
    places = list(slide(side, side, window, stride, 16))
    assert len(places) == count
    covered = np.zeros((side, side))
    for place in places:
        assert (place.height, place.width, place.sides) == (window, window, (window, window))
        covered[place.row : place.row + window, place.column : place.column + window] += 1
    assert covered.min() >= 1


def test_zeros_around_a_window_are_cut_off_again():
    (place,) = slide(37, 31, None, 1, 16)
    assert place.sides == (48, 32)
    image = torch.arange(37 * 31).reshape(37, 31)
    padded = place.cut(image)
    assert padded.shape == (48, 32)
    assert padded[:5].sum() == padded[42:].sum() == 0
    assert torch.equal(place.uncover(padded), image)


# ---- single methods ---------------------------------------------------------------------------------------------


def test_dinos_query_and_key_make_its_attention(picture):
    torch.manual_seed(30)
    for name, sides in (("vit_base_patch8_224", {"img_size": 32}), ("vit_base_patch14_reg4_dinov2", {"img_size": 56})):
        dino = load_dino(name, weights="random", device="cpu", embed_dim=16, depth=2, num_heads=1, **sides)
        pixels = torch.randn(1, 3, 4 * dino.patch_size, 3 * dino.patch_size)
        query, key, grid = dino.query_key(pixels)
        assert grid == (4, 3)
        # Without the prefix tokens' share of the softmax, rows agree once both are normalised.
        own = (query[0, 0] @ key[0, 0].T / 4).softmax(dim=-1)
        caught = dino.features(pixels).attention[0]
        np.testing.assert_allclose(own, caught / caught.sum(dim=-1, keepdim=True), atol=1e-6)


def test_proxyclip_reads_on_dinos_grid(tiny_clip, tiny_dino, picture):
    config = ProxyCLIPConfig.official(size=None, window=None, templates="plain", pad_to=56)
    method = ProxyCLIP(tiny_clip, tiny_dino, config)
    assert method.dino_grid((56, 112)) == (4, 8)
    finer = ProxyCLIP(tiny_clip, tiny_dino, replace(config, dino_scale=2.0))
    assert finer.dino_grid((56, 112)) == (14, 28)
    # With the sharpest proxy every place attends to itself alone: MaskCLIP on another grid.
    sharp = ProxyCLIP(tiny_clip, tiny_dino, replace(config, gamma=1e6, dino_scale=1.0))
    square = picture[:40, :40].repeat(2, axis=0)[:56, :40]
    masked = MaskCLIP(
        tiny_clip, MaskCLIPConfig.official(size=None, window=None, templates="plain", pad_to=56, logit_scale=40.0)
    )
    np.testing.assert_allclose(sharp(square, WORDS).probabilities, masked(square, WORDS).probabilities, atol=1e-4)


def test_corrclips_region_token_is_the_class_token_where_the_region_is_everything(tiny_clip, tiny_dino, picture):
    image = picture[:48, :40]
    method = CorrCLIP(tiny_clip, tiny_dino, CorrCLIPConfig.official(size=None, window=None, pad_to=None))
    with torch.inference_mode():
        pixels = tiny_clip.normalise(to_unit(image, tiny_clip.device))
        tokens = tiny_clip.embed(pixels, "bicubic_offset")
        steps = list(tiny_clip.walk(tokens))
        window = type("Window", (), {"pixels": pixels})()
        names = torch.tensor([0, 3])
        main, spatial, semantic = method._streams(window, torch.zeros(30, dtype=torch.long), names)
        expected = tiny_clip.project(steps[-1].output)[0, 0]
    np.testing.assert_allclose(semantic[0], expected, atol=1e-5)
    # A region without patches sees the class token alone, which is another thing.
    assert not torch.allclose(semantic[1], expected, atol=1e-2)
    # The copies change nothing for the others; of three blocks, the spatial stream is the output of none but the start.
    np.testing.assert_allclose(main, steps[-1].input, atol=1e-5)
    np.testing.assert_allclose(spatial, steps[1].input, atol=1e-5)


def test_corrclip_with_given_masks(tiny_clip, tiny_dino, picture):
    regions = np.full(picture.shape[:2], -1)
    regions[:30] = 0
    regions[30:, 20:] = 5
    config = CorrCLIPConfig.official(size=None, window=32, stride=16, templates="plain")
    method = CorrCLIP(tiny_clip, tiny_dino, config, masks=lambda image: regions)
    result = method(picture, WORDS)
    check(result, (56, 42), 3)
    # Map correction: one class a region, and none forced where nothing was segmented.
    assert all(len(np.unique(result.labels[regions == region])) == 1 for region in (0, 5))
    assert method.label == "corrclip"
    assert CorrCLIP(tiny_clip, tiny_dino, config).label == "corrclip-superpixel"
    assert "stand-in for SAM 2" in CorrCLIP(tiny_clip, tiny_dino, config).settings()["masks"]
    with pytest.raises(InputError, match="masks are"):
        CorrCLIP(tiny_clip, tiny_dino, config, masks=lambda image: regions[1:])(picture, WORDS)


def test_the_layers_of_resclip(tiny_clip, picture):
    literal = ResCLIP(tiny_clip, ResCLIPConfig.official(templates="plain", size=None))
    with pytest.raises(InputError, match=r"rcs_layers is \(6, 7, 8, 9\); name blocks from 1 to 2"):
        literal(picture, WORDS)
    for depth, expected in {12: [5, 6, 7, 8], 24: list(range(11, 18)), 5: [1, 2], 2: [0]}.items():
        method = ResCLIP(tiny_clip, ResCLIPConfig.official(rcs_layers="relative"))
        method.clip = type("Clip", (), {"blocks": [None] * depth, "name": "deep"})()
        assert method._layers() == expected
    without = ResCLIPConfig.official(
        templates="plain", size=None, window=None, rcs_layers=(1,), rcs_share=0.0, sfr=False
    )
    naclip = COMPARED["naclip"].config.official(templates="plain", size=None, window=None, pamr_steps=0)
    np.testing.assert_allclose(
        ResCLIP(tiny_clip, without)(picture, WORDS).probabilities,
        COMPARED["naclip"].make(tiny_clip, None, naclip)(picture, WORDS).probabilities,
        atol=1e-5,
    )


def test_cliper_agrees_with_sdcis_fused_map(tiny_clip, tiny_dino, picture):
    """Both were built on the same fusion, so that features and map of SDCI's CLIP branch are CLIPer's."""
    sdci = SDCI(tiny_clip, tiny_dino, SDCIConfig.official(clip_size=48, dino_size=56, templates="plain"))
    cliper = CLIPer(tiny_clip, config=CLIPerConfig.official(size=48, templates="plain", refinement="none"))
    with torch.inference_mode():
        features = sdci.encode_image(picture)
        layers, attention, grid = cliper._features(picture)
    assert grid == features.clip_grid
    np.testing.assert_allclose(layers, features.clip_layers, atol=1e-5)
    np.testing.assert_allclose(attention, features.clip_attention, atol=1e-6)


def test_clipers_refinement(tiny_clip, tiny_dino, picture):
    config = CLIPerConfig.official(size=48, templates="plain", refinement="given")

    def everything_alike(image):
        return torch.full((64, 64), 1 / 64), (8, 8)

    method = CLIPer(tiny_clip, config=config, affinity=everything_alike)
    assert method.label == "cliper"
    result = method(picture, WORDS)
    check(result, (56, 42), 3)
    # If every place is like every other, all of them get one answer.
    assert len(np.unique(result.labels)) == 1
    with pytest.raises(InputError, match="fit its grid"):
        CLIPer(tiny_clip, config=config, affinity=lambda image: (torch.eye(4), (8, 8)))(picture, WORDS)
    with pytest.raises(InputError, match="needs affinity="):
        CLIPer(tiny_clip, config=config)
    with pytest.raises(InputError, match="needs a DINO"):
        CLIPer(tiny_clip, config=replace(config, refinement="dino"))
    with pytest.raises(InputError, match="there are 3 layers"):
        CLIPer(tiny_clip, config=replace(config, refinement="none", select_layer=-4))
    words = replace(config, refinement="none", background_words=("sky", "ground"))
    check(CLIPer(tiny_clip, config=words)(picture, WORDS), (56, 42), 3)
    dropped = CLIPer(tiny_clip, config=replace(words, score_threshold=100.0))(picture, WORDS)
    np.testing.assert_allclose(dropped.probabilities, 1 / 3, atol=1e-6)


def test_cass_moves_the_most_present_text_of_a_cluster(make):
    method = make("cass", text_shift=0.5, ward_cut=0.1, top_patches=2)
    texts = F.normalize(torch.tensor([[1.0, 0, 0], [1, 0.02, 0], [0, 0, 1]]), dim=-1)
    features = torch.tensor([[1.0, 1, 0], [1, 0, 1], [0, -1, 0], [0, 0.1, 1]])
    moved = method._shifted(features, texts, torch.tensor([0.1, 0.3, 0.2]))
    assert torch.equal(moved[0], texts[0])
    unit = F.normalize(features, dim=-1)
    for row, patches in {1: [0, 1], 2: [3, 1]}.items():
        mean = F.normalize(unit[patches].mean(dim=0), dim=0)
        np.testing.assert_allclose(moved[row], F.normalize(0.5 * texts[row] + 0.5 * mean, dim=0), atol=1e-6)
    assert CASSConfig().head_pairing == "published"


# ---- SegEarth-OV's upsampler ------------------------------------------------------------------------------------


def test_one_step_of_simfeatup_pixel_by_pixel():
    torch.manual_seed(40)
    step = BilateralStep(key_dim=4).double().eval()
    with torch.no_grad():
        step.range_temp.fill_(0.7)
        step.sigma_spatial.fill_(0.6)
        source = torch.randn(1, 3, 4, 5, dtype=torch.float64)
        picture = torch.randn(1, 3, 8, 10, dtype=torch.float64)
        got = step(source, picture)
        projected = step.range_proj(picture)[0].numpy()
        large = F.interpolate(source, size=(8, 10), mode="bicubic", align_corners=False)[0].numpy()

        def mirrored(index, size):
            index = abs(index)
            return 2 * (size - 1) - index if index >= size else index

        row, column = 2, 7
        offsets = [(a, b) for a in range(-5, 6) for b in range(-5, 6)]
        places = [(mirrored(row + a, 8), mirrored(column + b, 10)) for a, b in offsets]
        alike = np.array([projected[:, row, column] @ projected[:, r, c] for r, c in places]) * np.exp(0.7)
        weights = np.exp(alike - alike.max())
        weights /= weights.sum()
        weights *= [np.exp(-((a / 5) ** 2 + (b / 5) ** 2) / (2 * 0.6**2)) for a, b in offsets]
        weights /= weights.sum()
        beside = torch.from_numpy(np.concatenate([weights, picture[0, :, row, column].numpy()]))[None, :, None, None]
        weights += 0.1 * step.fixup_proj(beside)[0, :, 0, 0].numpy()
        expected = sum(weight * large[:, r, c] for weight, (r, c) in zip(weights, places, strict=True))
    np.testing.assert_allclose(got[0, :, row, column], expected, atol=1e-9)


def test_a_checkpoint_as_published_loads(tmp_path, tiny_clip, picture):
    torch.manual_seed(41)
    upsampler = SimFeatUp(tiny_clip.embed_dim, key_dim=6).eval()
    named = {f"upsampler.{name}": value for name, value in upsampler.state_dict().items()}
    # A training run's checkpoint: its other parts, and its bookkeeping.
    torch.save({"epoch": 3, "state_dict": {**named, "downsampler.weight": torch.ones(2)}}, tmp_path / "x.ckpt")
    loaded = load_simfeatup(tmp_path / "x.ckpt")
    features, guide = torch.randn(1, tiny_clip.embed_dim, 2, 3), torch.randn(1, 3, 32, 48)
    with torch.inference_mode():
        assert loaded(features, guide).shape == (1, tiny_clip.embed_dim, 32, 48)
        np.testing.assert_array_equal(loaded(features, guide), upsampler(features, guide))

    options = {"size": None, "window": 32, "stride": 16, "templates": "plain"}
    config = SegEarthConfig.official(upsampler=str(tmp_path / "x.ckpt"), **options)
    method = SegEarthOV(tiny_clip, config)
    assert method.label == "segearth-ov"
    assert (method.settings()["upsampler"], len(method.settings()["upsampler_sha256"])) == ("x.ckpt", 64)
    check(method(picture, WORDS), (56, 42), 3)
    stand_in = SegEarthOV(tiny_clip, SegEarthConfig.official(upsampler="guided", **options))
    assert stand_in.label == "segearth-ov-guided"
    assert "stand-in for SimFeatUp" in stand_in.settings()["upsampler"]
    check(stand_in(picture, WORDS), (56, 42), 3)

    torch.save(SimFeatUp(5).state_dict(), tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="features of size 5"):
        SegEarthOV(tiny_clip, replace(config, upsampler=str(tmp_path / "other.ckpt")))
    torch.save({"weight": torch.ones(2)}, tmp_path / "none.ckpt")
    with pytest.raises(WeightsError, match="no SimFeatUp"):
        load_simfeatup(tmp_path / "none.ckpt")
    with pytest.raises(WeightsError, match=r"nowhere\.ckpt"):
        SegEarthOV(tiny_clip, replace(config, upsampler="nowhere.ckpt"))


def test_guided_upsampling_keeps_edges():
    picture = torch.zeros(1, 3, 32, 32)
    picture[..., 17:] = 2.0  # the edge lies beside the coarse one
    features = torch.zeros(1, 1, 4, 4)
    features[..., 2:] = 1.0
    fine = guided_upsample(features, picture, (32, 32))
    plain = F.interpolate(features, size=(32, 32), mode="bilinear", align_corners=False)
    step = picture[0, 0] / 2
    assert (fine[0, 0] - step).abs().mean() < 0.9 * (plain[0, 0] - step).abs().mean()
    np.testing.assert_allclose(guided_upsample(torch.ones(1, 2, 3, 3), picture, (24, 24)), 1.0, atol=1e-6)
    centre = torch.zeros(1, 121, 9, 9)
    centre[:, 60] = 1
    values = torch.randn(1, 2, 9, 9)
    assert torch.equal(weighted_neighbours(values, centre), values)


def test_segearth_takes_off_a_share_of_the_class_token(make, picture):
    with_bias, without = (make("segearth-ov", class_token_weight=weight) for weight in (0.0, -0.3))
    difference = with_bias(picture, WORDS).stages["class_scores"] - without(picture, WORDS).stages["class_scores"]
    names = encode_queries(without.clip, parse_classes(WORDS), "plain", "max_prob")
    assert len(names.vectors) == 4
    # One number a class, the same in all pixels.
    np.testing.assert_allclose(difference[1:], difference[1:, :1, :1] * np.ones((2, 56, 42)), atol=1e-5)
    assert np.abs(difference[1:]).max() > 1e-3


# ---- DINOv3, options, embedded scores ---------------------------------------------------------------------------


def test_sdci_with_dinov3(tiny_clip, picture):
    torch.manual_seed(50)
    dino = load_dino("vit_base_patch16_dinov3", weights="random", device="cpu", embed_dim=24, depth=3, num_heads=2)
    sdci = SDCI(tiny_clip, dino, SDCIConfig.official(clip_size=48, dino_size=64, templates="plain", tolerance=1e-3))
    check(sdci(picture, WORDS), (56, 42), 3)
    # Without dino_size its short side has 512 pixels, as the released program's adapter.
    assert SDCI(tiny_clip, dino)._dino_sides(512, 512, (6, 6)) == (512, 512)
    query, key, grid = dino.query_key(torch.randn(1, 3, 32, 48))
    assert grid == (2, 3)
    assert query.shape == key.shape == (1, 2, 6, 12)
    assert query.isfinite().all()


@pytest.mark.parametrize("method", ["sdci-v1", "sdci-v2", "sdci-v3"])
def test_branches_mean_networks_of_the_full_profile(method, monkeypatch, tmp_path):
    with pytest.raises(InputError, match="dino="):
        make_segmenter(method)
    named = make_segmenter(method, dino="rsov-tiny-dino", device="cpu")
    assert isinstance(named, SDCI)
    assert named.config == SDCIConfig.embedded()
    monkeypatch.setenv("RSOV_CACHE", str(tmp_path))
    monkeypatch.setenv("RSOV_OFFLINE", "1")
    with pytest.raises(WeightsError):
        make_segmenter(method, profile="full", clip="rsov-tiny-clip", device="cpu")


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("sclip", {"logit_scal": 40}, "option of SCLIP.*Did you mean 'logit_scale'"),
        ("sclip", {"beta": 0.1}, "option of SCLIP 'beta'"),
        ("clearclip", {"merge": "max_probs"}, "Did you mean 'max_prob'"),
        ("clearclip", {"stride": 300, "window": 256}, "gaps"),
        ("clearclip", {"prob_threshold": 1.5}, "prob_threshold must be between 0 and 1"),
        ("clearclip", {"logit_scale": float("nan")}, "logit_scale"),
        ("clearclip", {"templates": ("no hole",)}, "exactly one"),
        ("clearclip", {"templates": "openai8"}, "Did you mean 'openai80'"),
        ("naclip", {"sigma": 0}, "sigma"),
        ("resclip", {"rcs_layers": (5,)}, "rcs_layers"),
        ("cass", {"head_pairing": "best"}, "head_pairing"),
        ("cliper", {"refinement": "sd"}, "refinement"),
        ("cliper", {"overlap": 256}, "overlap"),
        ("cliper", {"pamr_steps": 3}, "no pamr_steps"),
        ("segearth-ov", {"size_rule": "long"}, "size rule|size_rule"),
        ("maskclip", {"statistics": "none"}, "statistics"),
    ],
)
def test_bad_options(picture, method, options, words):
    with pytest.raises(InputError, match=words) as caught:
        rsovlib.segment(picture, WORDS, method=method, device="cpu", **options)
    assert "\n" not in str(caught.value)


def test_published_defaults():
    """The settings that the authors' tables were made with, as far as one default can hold them."""
    assert (SCLIPConfig().size, SCLIPConfig().window, SCLIPConfig().stride, SCLIPConfig().logit_scale) == (
        336,
        224,
        112,
        40,
    )
    clear: DenseConfig = COMPARED["clearclip"].config()
    assert (clear.size, clear.window, clear.stride, clear.logit_scale, clear.prob_threshold) == (448, 448, 224, 50, 0)
    naclip = COMPARED["naclip"].config()
    assert (naclip.size, naclip.window, naclip.pamr_steps, naclip.pamr_dilations) == (336, 224, 10, (8, 16))
    assert (ProxyCLIPConfig().size, ProxyCLIPConfig().window, ProxyCLIPConfig().pad_to) == (336, 336, 56)
    assert (SegEarthConfig().size, SegEarthConfig().size_rule, SegEarthConfig().logit_scale) == (448, "box", 50)
    assert ResCLIPConfig().pamr_steps == 0
    assert all(entry.config().templates == "openai80" for name, entry in COMPARED.items() if name != "cliper")
    assert len(template_set("photo15")) == 15
    assert COMPARED["corrclip"].clip == ("ViT-B-16-quickgelu", "metaclip_fullcc")
    assert COMPARED["cliper"].clip == ("ViT-L-14-quickgelu", "openai")


def test_the_value_path_is_better_than_the_unchanged_network():
    """On the embedded models; which other methods are, the tables say."""
    prompts = class_prompts()
    places = np.full(256, 255)
    places[list(prompts)] = range(len(prompts))
    scores = {}
    for method in ("vanilla", "maskclip"):
        segmenter = make_segmenter(method, device="cpu")
        metrics = SegmentationMetrics([LABELS[label] for label in prompts], ignore_index=255)
        for seed in (1_000_000, 1_000_001):
            scene = make_scene(128, seed=seed)
            metrics.update(segmenter(scene.optical, list(prompts.values())).labels, places[scene.labels])
        scores[method] = metrics.compute()["miou"]
    assert scores["maskclip"] > scores["vanilla"]
