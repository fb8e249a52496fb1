"""Lesson 06, second half: what clouds take from light and from microwaves, and what that does to two sensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from rsovlib.data.clouds import CLOUD_OPACITY, add_clouds
from rsovlib.data.lexicon import WATER
from rsovlib.data.scenes import Scene
from rsovlib.experiments.lessons.exercises import Prediction
from rsovlib.experiments.lessons.radar import Floats, filtered
from rsovlib.plots import Chart, Panel, Picture, plot_charts, plot_panels

#: Radar band -> frequency in GHz: TerraSAR-X, Sentinel-1, ALOS-2.
BANDS = {"X band": 9.65, "C band": 5.405, "L band": 1.2575}

ARRIVES = Prediction(
    "A thick cloud holds 0.5 kg of water above each square metre. How much of a C-band pulse is left after both ways?",
    {"a": "less than 1 %", "b": "about half", "c": "more than 90 %"},
)
UNDER_CLOUDS = Prediction(
    "Water is to be told from land by one number a pixel, under thick clouds that cover 90 %. Which is the best?",
    {"a": "near infrared", "b": "radar, pixel by pixel", "c": "radar, filtered"},
)


def absorption(frequency: float, temperature: float = 273.15) -> float:
    """Absorption of small water droplets, dB a (kg / m2) of cloud water, one way.

    Rayleigh's law (droplets of 10 micrometres are tiny beside centimetres) with the double-Debye permittivity of water.

    Args:
        frequency: GHz, up to 200.
        temperature: K.

    Source:
        Recommendation ITU-R P.840-6 (2013), Attenuation due to clouds and fog, equations 2 to 10.
    """
    theta = 300 / temperature
    static = 77.66 + 103.3 * (theta - 1)
    middle, high = 0.0671 * static, 3.52
    first = 20.20 - 146 * (theta - 1) + 316 * (theta - 1) ** 2
    second = 39.8 * first
    slow, fast = (frequency / first) ** 2 + 1, (frequency / second) ** 2 + 1
    imaginary = frequency * ((static - middle) / (first * slow) + (middle - high) / (second * fast))
    real = (static - middle) / slow + (middle - high) / fast + high
    eta = (2 + real) / imaginary
    return float(0.819 * frequency / (imaginary * (1 + eta**2)))


def radar_arrives(water: npt.ArrayLike, frequency: float, passages: int = 2) -> Floats:
    """Share of a pulse's power that passes a cloud.

    Args:
        water: kg / m2 of cloud water.
        frequency: GHz.
        passages: 2 for a radar, whose pulse goes there and back.
    """
    return np.asarray(10 ** (-passages * absorption(frequency) * np.asarray(water, np.float64) / 10))


def light_arrives(water: npt.ArrayLike, radius: float = 10e-6) -> Floats:
    """Share of the light that passes a cloud in a straight line: exp(-3 W / (2 rho r)).

    Droplets are large beside light's waves, and each takes twice its cross-section out of the beam (G. L. Stephens,
    J. Atmos. Sci. 35, 1978, doi:10.1175/1520-0469(1978)035<2123:RPIEWC>2.0.CO;2). What is scattered still brightens
    the scene, but carries no picture of the ground.

    Args:
        water: W, kg / m2 of cloud water.
        radius: effective radius r of the droplets, metres.
    """
    return np.asarray(np.exp(-1.5 * np.asarray(water, np.float64) / (1000 * radius)))


def arrival_table(water: Sequence[float]) -> pd.DataFrame:
    """Percent that arrive through several amounts of cloud water (kg / m2): light one way, radar both ways."""
    columns = {"light, one way (%)": 100 * light_arrives(water)}
    columns |= {f"{name}, both ways (%)": 100 * radar_arrives(water, frequency) for name, frequency in BANDS.items()}
    return pd.DataFrame(columns, index=pd.Index(water, name="cloud water (kg / m2)"))


def plot_arrival(most: float = 1.0) -> Picture:
    """The same as curves; and the absorption against frequency, where the bands lie."""
    water = np.geomspace(2e-3, most, 60)
    curves = {"light, one way": (water, 100 * light_arrives(water))}
    curves |= {f"{name}, both ways": (water, 100 * radar_arrives(water, value)) for name, value in BANDS.items()}
    frequencies = np.geomspace(1, 100, 13)
    law = {"cloud at 0 °C": (frequencies, np.array([absorption(value) for value in frequencies]))}
    bands = {name: (np.array([value]), np.array([absorption(value)])) for name, value in BANDS.items()}
    return plot_charts(
        [
            Chart("cloud water (kg per square metre)", "arrives (percent)", curves, log_x=True, marks=False),
            Chart("frequency (GHz)", "absorption (dB per kg / m²)", law | bands, log_x=True, log_y=True),
        ],
    )


def separability(values: npt.NDArray[Any], wanted: npt.NDArray[np.bool_]) -> float:
    """How well one number a pixel tells two kinds apart: 0.5 not at all, 1 perfectly, whichever is brighter.

    The probability that a random pixel of the one kind is brighter than one of the other (area under the ROC curve).
    """
    ranks = rankdata(values.ravel())
    inside = wanted.ravel()
    count, others = int(inside.sum()), int((~inside).sum())
    area = (ranks[inside].sum() - count * (count + 1) / 2) / (count * others)
    return float(max(area, 1 - area))


def clouded(scene: Scene, cover: float, seed: int) -> tuple[npt.NDArray[np.uint8], Floats, Floats]:
    """The scene under thick clouds: optical (H, W, 3), near infrared (H, W), and the opacity (H, W)."""
    bands = np.dstack([scene.optical, np.asarray(scene.nir)])
    cloudy, opacity = add_clouds(bands, cover, "thick", seed)
    return np.ascontiguousarray(cloudy[..., :3]), cloudy[..., 3].astype(np.float64), opacity


def water_table(scene: Scene, cover: float, seed: int) -> pd.DataFrame:
    """How well each sensor tells water from land, under a clear and under a cloudy sky.

    The simulated radar has no term for clouds: by the laws above it would change by less than its calibration.
    """
    water = scene.labels == WATER
    optical, infrared, _ = clouded(scene, cover, seed)
    images = filtered(scene)
    radar = {"radar, pixel by pixel": images["none"], "radar, filtered": images["refined_lee"]}
    rows = {
        "red": (scene.optical[..., 0], optical[..., 0]),
        "near infrared": (np.asarray(scene.nir), infrared),
        **{name: (values, values) for name, values in radar.items()},
    }
    table = {
        name: {"clear sky": separability(clear, water), f"{100 * cover:.0f} % thick clouds": separability(under, water)}
        for name, (clear, under) in rows.items()
    }
    return pd.DataFrame(table).T.rename_axis("water against land (0.5: chance, 1: perfect)")


def plot_clouded(scene: Scene, cover: float, seed: int) -> Picture:
    """One coast: clear, under clouds, by radar, and the truth."""
    optical, _, opacity = clouded(scene, cover, seed)
    panels = [
        Panel("optical, clear sky", scene.optical),
        Panel(f"optical, {100 * (opacity > CLOUD_OPACITY).mean():.0f} % clouds", optical),
        Panel("radar, refined Lee", filtered(scene)["refined_lee"], "VV (dB)", (-28.0, 0.0), colour_map="gray"),
        Panel("truth", scene.labels),
    ]
    return plot_panels(panels, scene.classes, gsd=scene.gsd, columns=2, cell=4.2)
