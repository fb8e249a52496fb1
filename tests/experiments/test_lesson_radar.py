"""Lesson 06: its experiments follow the laws that it teaches, and its exercises know their answers."""

from __future__ import annotations

import numpy as np
import pytest

from rsovlib.data.lexicon import BUILDING
from rsovlib.experiments.lessons import radar as lesson
from rsovlib.experiments.lessons import radar_clouds as clouds


def test_speckle_follows_the_gamma_law():
    samples = lesson.speckle_samples((1, 4), 256, seed=0)
    table = lesson.speckle_table(samples)
    np.testing.assert_allclose(table["std / mean"], table["law: 1 / sqrt(L)"], rtol=0.02)
    np.testing.assert_allclose(table["equivalent looks"], [1, 4], rtol=0.03)
    np.testing.assert_allclose(table["mean of the decibels (dB)"], table["law of that (dB)"], atol=0.05)
    assert lesson.mean_of_decibels(1) == pytest.approx(-10 / np.log(10) * np.euler_gamma)
    lesson.plot_speckle(samples).draw_without_rendering()
    figure = lesson.plot_speckle_law(samples)
    for axes in figure.axes:
        measured, law = (line.get_ydata() for line in axes.lines)
        assert np.abs(np.asarray(measured) - np.asarray(law)).max() < 0.12


@pytest.mark.parametrize("incidence", [25.0, 35.0, 50.0])
@pytest.mark.parametrize("height", [6.0, 15.0])
def test_a_house_lies_where_geometry_says(height, incidence):
    profile = lesson.house_profile(height, 20.0, incidence, gsd=0.25)
    tangent = np.tan(np.radians(incidence))
    assert lesson.roof_shift(profile) == pytest.approx(-height / tangent, abs=0.3)
    layover, shadow = lesson.layover_and_shadow(profile)
    assert layover == pytest.approx(height / tangent, abs=0.6)
    assert shadow == pytest.approx(height * tangent, abs=0.6)
    # The corner at the foot is brightest, and no ground is seen where the house stands.
    assert abs(profile["range"][profile["walls"].argmax()]) < 0.5
    inside = (profile["range"] > 0) & (profile["range"] < 20)
    assert not profile["ground"][inside].any()
    lesson.plot_house(profile, incidence).draw_without_rendering()


def test_the_table_of_angles():
    table = lesson.angle_table(15.0, 20.0, (30, 45))
    np.testing.assert_allclose(table["layover (m)"], table["h / tan(theta) (m)"], atol=0.6)
    np.testing.assert_allclose(table["shadow (m)"], table["h tan(theta) (m)"], atol=0.6)


def test_houses_are_bright_on_the_side_of_the_sensor():
    towns = {look: lesson.town(128, 2_000_004, look) for look in ("east", "west")}
    assert (towns["east"].labels == BUILDING).any()
    np.testing.assert_array_equal(towns["east"].labels, towns["west"].labels)
    sides = {look: lesson.brightness_beside_houses(scene) for look, scene in towns.items()}
    assert sides["east"]["west"] > sides["east"]["east"] + 3
    assert sides["west"]["east"] > sides["west"]["west"] + 3
    lesson.plot_towns(towns).draw_without_rendering()


def test_filters_trade_borders_for_looks():
    scene, clean = lesson.speckled_and_clean(128, 2_000_008, 4.0)
    np.testing.assert_array_equal(scene.labels, clean.labels)
    table = lesson.filter_table(scene, clean)
    assert list(table.index) == list(lesson.FILTER_NAMES.values())
    assert len(lesson.FILTERS.choices) == len(lesson.FILTER_NAMES)
    assert table.loc["unfiltered", "equivalent looks on water"] == pytest.approx(4, rel=0.15)
    assert table["equivalent looks on water"].idxmax() == "mean over 7 x 7"
    assert table["error near borders (dB)"].idxmax() == "mean over 7 x 7"
    assert table.loc["refined Lee", "error elsewhere (dB)"] < table.loc["unfiltered", "error elsewhere (dB)"]
    lesson.plot_filters(scene, clean).draw_without_rendering()


def test_absorption_of_cloud_water():
    # Figure 1 of ITU-R P.840: about 0.09 at 10 GHz and 0.8 at 30 GHz, both at 0 degrees Celsius.
    assert clouds.absorption(10.0) == pytest.approx(0.09, abs=0.01)
    assert clouds.absorption(30.0) == pytest.approx(0.8, abs=0.05)
    # Rayleigh's law far below the relaxation: with the square of the frequency.
    assert clouds.absorption(0.2) / clouds.absorption(0.1) == pytest.approx(4, rel=0.01)
    assert clouds.absorption(10.0, 293.15) < clouds.absorption(10.0, 273.15)


def test_what_arrives():
    assert clouds.light_arrives(0.0) == 1
    assert clouds.light_arrives(1e-2, 10e-6) == pytest.approx(np.exp(-1.5))
    assert clouds.radar_arrives(0.0, 5.405) == 1
    assert clouds.radar_arrives(0.5, 5.405) == pytest.approx(clouds.radar_arrives(0.5, 5.405, passages=1) ** 2)
    table = clouds.arrival_table((0.1, 1.0))
    assert (table["C band, both ways (%)"] > 98).all()
    assert (table["light, one way (%)"] < 1e-4).all()
    clouds.plot_arrival().draw_without_rendering()


def test_separability():
    values, wanted = np.array([1.0, 2.0, 3.0, 4.0]), np.array([False, False, True, True])
    assert clouds.separability(values, wanted) == 1
    assert clouds.separability(-values, wanted) == 1
    assert clouds.separability(values, np.array([True, False, False, True])) == 0.5
    assert clouds.separability(values, np.array([False, True, False, True])) == 0.75
    assert clouds.separability(np.ones(4), wanted) == 0.5


def test_clouds_blind_the_camera_alone():
    scene, _ = lesson.speckled_and_clean(128, 2_000_008, 4.0)
    table = clouds.water_table(scene, 0.9, 2_000_008)
    clear, cloudy = table.iloc[:, 0], table.iloc[:, 1]
    assert cloudy["near infrared"] < clear["near infrared"] - 0.2
    assert cloudy["radar, filtered"] == clear["radar, filtered"]
    clouds.plot_clouded(scene, 0.9, 2_000_008).draw_without_rendering()


def test_exercises():
    assert lesson.decibel_exercise().check(-1.17).right
    assert not lesson.decibel_exercise().check(1.17).right
    assert lesson.height_exercise().check(25.2).right
    assert not lesson.height_exercise().check(35.8).right  # 30 / tan
