"""The figures' numbers against slow references, and panels from any image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch

from rsovlib.data.scenes import make_scene
from rsovlib.errors import InputError
from rsovlib.experiments.lessons.alignment import effective_negatives, pushes, token_loss
from rsovlib.experiments.lessons.data import worst_version
from rsovlib.experiments.lessons.graphs import PatchGraph, convergence, patch_graph, walker
from rsovlib.experiments.lessons.pixels import VARIANTS, lesson_config, looking, variant_maps
from rsovlib.experiments.lessons.superpixels import convex_variants, square_regions
from rsovlib.experiments.sdci.caf_views import caf_views, roc_area
from rsovlib.experiments.sdci.figures import (
    boundary_observation,
    maps_by_method,
    maps_by_rung,
    say_missing,
    steps_of_figure5,
)
from rsovlib.experiments.sdci.ladder import ladder_labels
from rsovlib.experiments.subject import Subject, take_subject
from rsovlib.fusion.infonce import ContrastRule, token_infonce
from rsovlib.kernels import diffuse
from rsovlib.metrics import SegmentationMetrics
from rsovlib.segmenters import SDCI, SDCIConfig, make_segmenter

SEED = 1_000_003


@pytest.fixture(scope="module")
def sdci() -> SDCI:
    segmenter = make_segmenter("sdci")
    assert isinstance(segmenter, SDCI)
    return segmenter


@pytest.fixture(scope="module")
def subject() -> Subject:
    return take_subject("", size=64, seed=SEED)


# ---- what is shown -----------------------------------------------------------------------------------------------


def test_a_simulated_scene_has_a_truth_unless_the_classes_are_the_users(subject: Subject):
    assert subject.labels is not None
    assert subject.labels.shape == subject.image.shape[:2] == (64, 64)
    own = take_subject("", "water, lake; forest", size=64, seed=SEED)
    assert own.labels is None
    assert own.classes == ["water, lake", "forest"]
    assert (own.image == subject.image).all()


def test_of_a_raster_the_middle_is_taken_with_its_scale(tmp_path: Path):
    scene = make_scene((40, 61), SEED, modalities=())
    path = tmp_path / "scene.tif"
    profile = {"driver": "GTiff", "height": 40, "width": 61, "count": 3, "dtype": "uint8", "crs": "EPSG:32631"}
    with rasterio.open(path, "w", transform=rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 0), **profile) as target:
        target.write(np.moveaxis(scene.optical, 2, 0))
    found = take_subject(str(path), "water; forest", size=32)
    assert found.image.shape == (32, 32, 3)
    assert (found.image == scene.optical[4:36, 14:46]).all()
    assert found.gsd == 0.5
    assert found.labels is None
    assert "32 x 32" in found.story
    with pytest.raises(InputError, match="needs classes"):
        take_subject(str(path))


def test_a_tile_of_a_suite_brings_its_words_and_truth():
    found = take_subject("suites/sdci-gid/0", size=64)
    assert found.labels is not None
    assert found.image.shape == (64, 64, 3)
    assert found.labels[found.labels != 255].max() < len(found.classes)
    for wrong in ("suites/sdci-gid/one", "suites/sdci-gid/9999"):
        with pytest.raises(InputError):
            take_subject(wrong)


# ---- Figures 1, 4, 5 ------------------------------------------------------------------------------------------------


def test_figure_1_counts_boundaries_and_draws_its_panels(subject: Subject):
    seen = boundary_observation(subject, make_segmenter("valuepath"), "value path", SDCIConfig.official())
    table = seen.scores()
    assert list(table.index) == ["superpixels", "value path", "value path, a vote in each superpixel"]
    shares = table.to_numpy()
    assert ((shares >= 0) & (shares <= 100))[~np.isnan(shares)].all()
    meter = SegmentationMetrics([name.split(",")[0] for name in subject.classes])
    meter.update(seen.labels, subject.labels)
    assert table.loc["value path", "boundary F1 (%)"] == pytest.approx(100 * meter.compute()["boundary_f1"])
    titles = [axes.get_title() for axes in seen.plot().axes if axes.get_title()]
    assert [title[:3] for title in titles] == ["(a)", "(b)", "(b'", "(c)", "(d)"]
    unknown = Subject(subject.image, subject.classes, None, None, "")
    seen = boundary_observation(unknown, make_segmenter("valuepath"), "value path", SDCIConfig.official())
    assert seen.scores().empty
    assert len([axes for axes in seen.plot().axes if axes.get_title()]) == 4


def test_figure_4_has_a_map_a_method_and_says_what_is_missing(subject: Subject):
    compared = maps_by_method(subject, ("maskclip", "cliper"), progress=False)
    assert list(compared.maps) == ["maskclip", "cliper-dino"]
    expected = make_segmenter("maskclip")(subject.image, subject.classes).labels
    assert (compared.maps["maskclip"] == expected).all()
    assert compared.scores().loc["truth", "mIoU (%)"] == 100
    assert list(compared.iou().columns) == ["maskclip", "cliper-dino"]
    assert "All methods" in say_missing(compared.missing)
    assert "sclip: no file" in say_missing({"sclip": "no file"})
    with pytest.raises(InputError, match="method"):
        maps_by_method(subject, ("mascklip",), progress=False)


def test_figure_5_shows_the_ladder_of_table_2(subject: Subject, sdci: SDCI):
    ladder = maps_by_rung(subject, {"SDCI": sdci})
    assert list(ladder.maps) == ["baseline", "+ CAF", "+ BCDR", "+ CSCP (SDCI)"]
    rungs = ladder_labels(sdci, subject.image, subject.classes)
    for name in ("baseline", "+ CAF", "+ BCDR"):
        assert (ladder.maps[name] == rungs[name]).all()
    assert (ladder.maps["+ CSCP (SDCI)"] == sdci(subject.image, subject.classes).labels).all()
    titles = [axes.get_title() for axes in ladder.plot().axes]
    assert titles[0] == "image"
    assert "mIoU" in titles[1]


def test_figure_5s_claim_is_judged_step_by_step():
    scores = pd.DataFrame(
        {
            "mIoU (%)": [47.4, 40.0, 40.7, 41.0, 100.0],
            "boundary F1 (%)": [36.3, 36.1, 38.4, 30.0, 100.0],
            "connected regions": [111.0, 283.0, 148.0, 300.0, 97.0],
        },
        index=["+ CAF", "+ BCDR", "+ CSCP (SDCI-v2)", "+ CSCP (SDCI-v1)", "truth"],
    )
    table = steps_of_figure5(scores)
    assert list(table.index) == ["+ BCDR", "+ CSCP (SDCI-v2)", "+ CSCP (SDCI-v1)"]
    assert list(table["noise suppressed"]) == [False, True, False], "both versions come after BCDR"
    assert list(table["boundaries clearer"]) == [False, True, False]
    assert list(table["mIoU rises"]) == [False, True, True]
    assert table.loc["+ BCDR", "regions"] == "111 → 283"
    assert steps_of_figure5(scores[["connected regions"]]).empty


# ---- Figure 3 --------------------------------------------------------------------------------------------------------


def test_roc_area_is_the_share_of_ordered_pairs():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, 60).astype(float), rng.random(60) < 0.3
    pairs = [np.sign(a - b) / 2 + 0.5 for a in scores[positive] for b in scores[~positive]]
    assert roc_area(scores, positive) == pytest.approx(np.mean(pairs))
    assert np.isnan(roc_area(scores, np.ones(60, bool)))


def test_figure_3_scores_are_those_of_caf_and_attention_is_a_row_of_it(subject: Subject, sdci: SDCI):
    point = (37, 22)
    views = caf_views(sdci, subject, "forest", point)
    result = sdci(subject.image, subject.classes)
    clip = views.branches["CLIP"]
    np.testing.assert_allclose(clip.fused.reshape(len(clip.fused), -1).T, result.stages["clip_scores"], rtol=1e-5)
    rows, columns = clip.own.shape
    row = result.stages["clip_attention"][37 * rows // 64 * columns + 22 * columns // 64]
    np.testing.assert_allclose(clip.own, (row / row.mean()).reshape(rows, columns), rtol=1e-4)
    assert views.branches["DINO"].other.shape == views.branches["DINO"].own.shape
    assert views.names[views.shown] == "forest"
    table = views.separation()
    assert table.shape[1] == 4
    assert table.stack().between(0, 100).all()
    change = table["DINO with CAF (%)"] - table["DINO alone (%)"]
    said = views.says(least=0.0)
    assert said.count("(") == 2 * len(table), "every class of both branches, with its change"
    assert f"{change.index[0]} ({change.iloc[0]:+.1f})" in said
    assert "helps no class, and harms none" in views.says(least=1000)
    texts = [axes.get_title() for axes in views.plot().axes]
    assert sum("forest" in text for text in texts) == 4


def test_figure_3_refuses_what_it_cant_show(subject: Subject, sdci: SDCI):
    with pytest.raises(InputError, match="class to show"):
        caf_views(sdci, subject, "forst")
    with pytest.raises(InputError, match="outside"):
        caf_views(sdci, subject, point=(64, 0))
    large = Subject(np.zeros((300, 300, 3), np.uint8), ["a", "b"], None, None, "")
    with pytest.raises(InputError, match="size=256"):
        caf_views(sdci, large)


# ---- what lessons compute ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def graph(sdci: SDCI, subject: Subject) -> PatchGraph:
    return patch_graph(sdci, subject)


def test_a_walker_is_a_row_of_the_diffusion(graph: PatchGraph):
    transition = graph.transition(5, 0.1)
    node, steps, alpha = 17, 4, 0.7
    dense = transition.toarray()
    operator = np.eye(len(dense))
    for _ in range(steps):
        operator = alpha * dense @ operator + (1 - alpha) * np.eye(len(dense))
    at = walker(transition, node, steps, alpha)
    np.testing.assert_allclose(at, operator[node], atol=1e-9)
    scores = diffuse(transition, graph.scores.astype(np.float64), alpha, steps)
    np.testing.assert_allclose(at @ graph.scores, scores[node], atol=1e-6)


def test_patches_and_pixels_correspond(graph: PatchGraph):
    for node in (0, 5, len(graph.features) - 1):
        row, column = graph.centre(node)
        assert graph.node((round(row), round(column))) == node


def test_the_distance_to_the_limit_stays_below_its_bound(graph: PatchGraph):
    distances = convergence(graph.transition(), graph.scores, (0.8,), 20)[0.8]
    assert distances[0] == 1
    assert (distances <= 0.8 ** np.arange(21) + 1e-6).all()


def test_every_variant_looks_and_maps_as_its_method_does(sdci: SDCI, subject: Subject):
    config = lesson_config("embedded")
    view = looking(sdci.clip, subject, config, (30, 30))
    assert set(view.maps) == set(VARIANTS)
    assert all(values.mean() == pytest.approx(1, rel=1e-4) for values in view.maps.values())
    maps = variant_maps(sdci.clip, subject, config)
    expected = make_segmenter("clearclip")(subject.image, subject.classes).labels
    assert (maps["q with q (ClearCLIP)"] == expected).all()


def test_the_worst_version_may_be_two():
    assert worst_version({"colours": 0.014, "both": 0.014, "radar": 0.5}) == "d"
    assert worst_version({"colours": 0.2, "both": 0.1, "radar": 0.5}) == "c"
    assert worst_version({"colours": 0.2, "both": 0.6, "radar": 0.1}) == "a"


def test_squares_are_about_as_many_as_wanted():
    for height, width, count in ((64, 64, 100), (37, 91, 50), (5, 5, 1)):
        found = square_regions(height, width, count)
        assert found.shape == (height, width)
        assert len(np.unique(found)) == pytest.approx(count, rel=0.25)


def test_with_superpixels_the_convex_step_is_sdci(sdci: SDCI, subject: Subject):
    maps = convex_variants(sdci, subject.image, subject.classes, sdci.config.beta)
    assert (maps["TV with superpixels"] == sdci(subject.image, subject.classes).labels).all()
    assert set(maps) == {"no convex step", "TV, image ignored", "TV with superpixels", "vote in superpixels"}


def test_pushes_are_the_gradient_of_infonce():
    torch.manual_seed(0)
    similarities = torch.tensor([0.9, 0.8, 0.5, 0.0], dtype=torch.float64, requires_grad=True)
    tau = 0.2
    loss = -torch.log_softmax(similarities / tau, dim=0)[0]
    loss.backward()
    shares = pushes([0.9, 0.8, 0.5, 0.0], tau)
    expected = (shares - np.array([1, 0, 0, 0])) / tau
    np.testing.assert_allclose(similarities.grad.numpy(), expected, atol=1e-12)
    assert token_loss([0.9, 0.8, 0.5, 0.0], tau) == pytest.approx(float(loss.detach()))
    # The library's loss of the same query: one image, the negatives being its other patches' keys.
    keys = torch.nn.functional.normalize(torch.randn(1, 4, 8), dim=-1)
    queries = torch.nn.functional.normalize(torch.randn(1, 4, 8), dim=-1)
    cosines = (queries[0] @ keys[0].T).tolist()
    each = [token_loss([row[i], *(x for j, x in enumerate(row) if j != i)], tau) for i, row in enumerate(cosines)]
    assert float(token_infonce(queries, keys, ContrastRule(temperature=tau))) == pytest.approx(np.mean(each), rel=1e-5)
    assert effective_negatives([0.3, 0.3, 0.3], tau) == pytest.approx(3)
    assert effective_negatives([0.9, 0.0, 0.0], 0.01) == pytest.approx(1)
