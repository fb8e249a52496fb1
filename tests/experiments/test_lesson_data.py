"""Lesson 01: what it draws and counts is what it says."""

from __future__ import annotations

import numpy as np
import pytest

from rsovlib.data.clouds import CLOUD_OPACITY, add_clouds
from rsovlib.data.manifest import load_manifest
from rsovlib.data.scenes import Scene, make_scene
from rsovlib.errors import InputError
from rsovlib.experiments.lessons import data as lesson
from rsovlib.experiments.lessons import data_views as views


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene(96, 2_000_001)


def test_a_manifest_as_tables():
    manifest = load_manifest("potsdam")
    sensors = views.sensors_table(manifest).to_html()
    assert sensors.count("<tr>") - 1 == sum(len(sensor.bands) for sensor in manifest.modalities.values())
    classes = views.classes_table(manifest).to_html()
    assert "ground, road, streets" in classes
    assert f"background-color: rgb{manifest.classes[1].display_colour}" in classes.replace("rgb (", "rgb(")


def test_every_cloud_has_the_cover_that_was_wanted(scene: Scene):
    clouds = views.cloud_table(scene, (0.3, 0.6), seed=1)
    measured = views.measured_clouds(clouds)
    np.testing.assert_allclose(measured["30 % cover wanted (%)"], 30, atol=2)
    np.testing.assert_allclose(measured["60 % cover wanted (%)"], 60, atol=2)
    _, veil = clouds["thick"]["60 % cover"]
    _, thinner = clouds["thick"]["30 % cover"]
    cloudy = np.concatenate([one[one > CLOUD_OPACITY] for one in (thinner, veil)])
    assert measured.loc["thick", "mean opacity where it is cloudy"] == pytest.approx(cloudy.mean())


def test_the_veil_counts_pairs_in_the_right_order(scene: Scene):
    found = views.veil(scene, seed=1, densest=0.3)
    stack = np.dstack([scene.optical[..., ::-1], np.asarray(scene.nir), np.asarray(scene.swir)])
    for kind, share in found.told.items():
        cloudy, opacity = add_clouds(stack, 0.6, kind, 1, wavelengths=list(views.WAVELENGTHS.values()), shadow=0)
        under = opacity > np.quantile(opacity, 0.7)
        forest, water = (
            cloudy[under & (scene.labels == scene.classes.index(name))][:, 3].astype(float)
            for name in ("forest", "water")
        )
        right = (forest[:, None] > water).mean() + 0.5 * (forest[:, None] == water).mean()
        assert share == pytest.approx(max(right, 1 - right))
    with pytest.raises(InputError, match="No water"):
        views.veil(make_scene(96, 2_000_008), seed=1)
    clear = found.spectra["thin"]["forest, clear sky"]
    np.testing.assert_allclose(clear, stack[scene.labels == scene.classes.index("forest")].mean(axis=0))
    assert found.plot()._repr_png_().startswith(b"\x89PNG")


def test_the_outcome_of_the_veil_follows_its_shares(scene: Scene):
    def outcome(thin: float, thick: float) -> str:
        return views.Veil({}, {"thin": thin, "thick": thick}, {}).outcome().text

    assert "a)" in outcome(0.99, 0.81)
    assert "b)" in outcome(0.99, 0.95)
    assert "c)" in outcome(0.6, 0.5)
    assert "81 % under the thick one" in outcome(0.99, 0.81)


def test_the_pictures_of_the_lesson_are_drawn(scene: Scene):
    names = ["water", "forest", "building"]
    truth = np.array([[0, 1, 2], [255, 1, 2]])
    figure = views.plot_by_hand(truth, truth, names, np.diag([1, 2, 2]))
    assert [text.get_text() for text in figure.axes[2].texts] == ["1", "0", "0", "0", "2", "0", "0", "0", "2"]
    legend = views.plot_medians(scene).legends[0]
    assert {"water", "forest"} <= {text.get_text() for text in legend.get_texts()}


def test_without_a_pair_nothing_is_shown_and_it_says_so(capsys: pytest.CaptureFixture[str]):
    assert views.show_pair(None, None, 1) is None
    assert "pair_folder" in capsys.readouterr().out


def test_clear_pixels_are_compared_with_themselves_without_clouds():
    study = lesson.cloud_study(64, range(2), range(10, 13), covers=(0.0, 0.5, 1.0))
    assert study.cloudless[0.0].compute()["miou"] == pytest.approx(study.miou(0.0, "colours"))
    # The same pixels are counted with and without clouds, so their truth is the same.
    for cover in (0.5, 1.0):
        counted = study.counted[cover]["colours"].confusion.sum(axis=1)
        np.testing.assert_array_equal(study.cloudless[cover].confusion.sum(axis=1), counted)
    halves = study.under_and_between(0.5)
    assert list(halves.index) == list(lesson.VERSIONS)
    assert halves.loc["radar"].notna().all()
    assert "of the 3 scenes" in study.worth_of_being_told(0.5)
    assert study.shadows_outcome().state == "told"
    assert study.cost_outcome("a").state in ("right", "wrong")
