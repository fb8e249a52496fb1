"""Lesson 01, what is looked at: a manifest, a scene in every sensor, clouds and the light that passes them, scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.colors import ListedColormap

from rsovlib.data.clouds import CLOUD_OPACITY, KINDS, add_clouds
from rsovlib.data.manifest import Manifest
from rsovlib.data.scenes import Scene
from rsovlib.errors import InputError
from rsovlib.experiments.lessons.exercises import Feedback, Prediction
from rsovlib.experiments.sdci.caf_views import roc_area
from rsovlib.plots import Panel, Picture, class_colours, page_table, plot_panels
from rsovlib.plots.page import LABEL, PAGE_WIDTH, TICK, TITLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas.io.formats.style import Styler

Clouded = dict[str, dict[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.floating[Any]]]]]

#: Bands that a cloud is drawn over -> wavelength in nanometres.
WAVELENGTHS = {"blue": 490, "green": 560, "red": 660, "near infrared": 860, "short-wave infrared": 1610}
#: Share of the pairs in the right order above which two kinds of land count as told apart.
TOLD_APART = 0.9

VEIL = Prediction(
    "A thin cloud (ice) and a thick one (droplets) lie over forest and water. Under which of them can the two still be "
    "told apart in the near infrared, so that more than 90 % of all pairs of a forest and a water pixel are in the "
    "right order?",
    {"a": "under the thin one only", "b": "under both", "c": "under neither"},
)

_MARKERS = "osD^v<>Ph*X"


# ---- a manifest --------------------------------------------------------------------------------------------------


def sensors_table(manifest: Manifest) -> Styler:
    """Every band of a dataset: sensor, metres a pixel, unit."""
    rows = [
        {"sensor": name, "kind": sensor.kind, "metres a pixel": sensor.gsd_m, "band": band.name, "unit": band.unit}
        for name, sensor in manifest.modalities.items()
        for band in sensor.bands
    ]
    return page_table(pd.DataFrame(rows), 2, index=False)


def classes_table(manifest: Manifest, word_sets: int = 2) -> Styler:
    """Every class of a dataset: its colour, its values in the label files, and its words in the first prompt sets."""
    names = list(manifest.prompt_sets)[:word_sets]
    rows = [
        {
            "colour": "",
            "class": one.name,
            "values": ", ".join(map(str, one.values)),
            **{f"words: {words}": ", ".join(one.prompts.get(words, ())) for words in names},
        }
        for one in manifest.classes
    ]
    paint = [
        f"background-color: rgb{one.display_colour or (255, 255, 255)}; border: 1px solid grey"
        for one in manifest.classes
    ]
    return page_table(pd.DataFrame(rows), index=False).apply(lambda column: paint, subset=["colour"])


# ---- one place in every sensor -----------------------------------------------------------------------------------


def plot_medians(scene: Scene, least: float = 0.005) -> Picture:
    """The median of every class in red against near infrared and in VV against VH; bars: the middle half of its pixels.

    Args:
        scene: with near infrared and radar.
        least: share of the scene below which a class is left out.
    """
    radar = np.asarray(scene.sar)
    pairs = (
        ("camera", scene.optical[..., 0], "red (grey value)", np.asarray(scene.nir), "near infrared (grey value)"),
        ("radar", radar[0], "VV (dB)", radar[1], "VH (dB)"),
    )
    colours = class_colours(scene.classes) / 255
    present = [label for label in range(len(scene.classes)) if (scene.labels == label).mean() > least]
    figure = Picture(figsize=(PAGE_WIDTH, 4.0), layout="constrained")
    row = figure.subplots(1, 2)
    for axes, (title, across, across_name, up, up_name) in zip(row, pairs, strict=True):
        for label in present:
            inside = scene.labels == label
            (left, x, right), (low, y, high) = (np.percentile(layer[inside], (25, 50, 75)) for layer in (across, up))
            axes.errorbar(
                x,
                y,
                xerr=[[x - left], [right - x]],
                yerr=[[y - low], [high - y]],
                fmt=_MARKERS[label % len(_MARKERS)],
                color=colours[label],
                markeredgecolor="black",
                markersize=7,
                label=scene.classes[label],
            )
        _name(axes, title, across_name, up_name)
    handles, names = row[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False, fontsize=LABEL)
    return figure


# ---- clouds --------------------------------------------------------------------------------------------------------


def cloud_table(scene: Scene, covers: Sequence[float], seed: int) -> Clouded:
    """The scene under every kind of cloud at several covers: kind -> name of the cover -> image and opacity."""
    shadows = scene.notes["shadow"]  # the clouds' shadows fall where those of the buildings fall
    azimuth = float(np.degrees(np.arctan2(-np.cos(shadows), np.sin(shadows))))
    return {
        kind: {
            f"{100 * cover:.0f} % cover": add_clouds(scene.optical, cover, kind, seed, sun_azimuth=azimuth)
            for cover in covers
        }
        for kind in KINDS
    }


def measured_clouds(clouds: Clouded) -> pd.DataFrame:
    """A row a kind of cloud: the cover that each image has (percent), and the mean opacity where it is cloudy."""
    rows = {}
    for kind, row in clouds.items():
        cover = {f"{name} wanted (%)": 100 * (veil > CLOUD_OPACITY).mean() for name, (_, veil) in row.items()}
        cloudy = np.concatenate([veil[veil > CLOUD_OPACITY] for _, veil in row.values()])
        rows[kind] = cover | {"mean opacity where it is cloudy": float(cloudy.mean())}
    return pd.DataFrame(rows).T.rename_axis("clouds")


@dataclass(frozen=True)
class Veil:
    """Spectra of forest and water under a clear sky and under the densest part of two clouds.

    Attributes:
        spectra: kind of cloud -> curve -> mean grey value in every band of :data:`WAVELENGTHS`.
        told: kind of cloud -> share of all pairs of a forest and a water pixel that the near infrared puts in the
            right order, 0.5 to 1.
        colours: kind of land -> colour.
    """

    spectra: Mapping[str, Mapping[str, npt.NDArray[np.floating[Any]]]]
    told: Mapping[str, float]
    colours: Mapping[str, Any]

    def plot(self) -> Picture:
        """A chart a kind of cloud."""
        figure = Picture(figsize=(PAGE_WIDTH, 3.9), layout="constrained")
        row = figure.subplots(1, len(self.spectra), sharey=True)
        for axes, (kind, curves) in zip(row, self.spectra.items(), strict=True):
            for name, values in curves.items():
                look = "o-" if "clear" in name else "s--"
                colour = self.colours[name.split(",")[0]]
                axes.plot(list(WAVELENGTHS.values()), values, look, color=colour, label=name)
            _name(axes, f"{kind} cloud", "wavelength (nm)", "mean grey value (0 to 255)" if axes is row[0] else "")
            axes.set_ylim(0, 255)
        handles, names = row[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False, fontsize=LABEL)
        return figure

    def outcome(self, guess: str | None = None) -> Feedback:
        """What came true of :data:`VEIL`."""
        apart = tuple(kind for kind, share in self.told.items() if share > TOLD_APART)
        shares = ", ".join(f"{100 * share:.0f} % under the {kind} one" for kind, share in self.told.items())
        return VEIL.outcome(
            {("thin",): "a", ("thin", "thick"): "b"}.get(apart, "c"),
            f"Pairs in the right order: {shares} (50 % is chance).",
            guess,
        )


def veil(scene: Scene, seed: int, cover: float = 0.6, densest: float = 0.3) -> Veil:
    """Draw a thin and a thick cloud over all bands of a scene, each with its wavelength.

    Args:
        scene: with near and short-wave infrared, forest and water.
        seed: of the clouds.
        cover: of the clouds.
        densest: share of the scene that counts as their densest part.

    Raises:
        InputError: forest or water isn't there, or not under a cloud.
    """
    stack = np.dstack([scene.optical[..., ::-1], np.asarray(scene.nir), np.asarray(scene.swir)])
    infrared = list(WAVELENGTHS).index("near infrared")
    lands = {name: scene.labels == list(scene.classes).index(name) for name in ("forest", "water")}
    spectra, told = {}, {}
    for kind in ("thin", "thick"):
        cloudy, opacity = add_clouds(stack, cover, kind, seed, wavelengths=list(WAVELENGTHS.values()), shadow=0)
        under = opacity > np.quantile(opacity, 1 - densest)
        for name, inside in lands.items():
            if not (inside & under).any():
                raise InputError(f"No {name} lies under the {kind} cloud of this scene; choose another scene_seed.")
        curves = {}
        for name, inside in lands.items():
            curves[f"{name}, clear sky"] = stack[inside].mean(axis=0)
            curves[f"{name}, under the densest cloud"] = cloudy[inside & under].mean(axis=0)
        spectra[kind] = curves
        either = under & (lands["forest"] | lands["water"])
        area = roc_area(cloudy[either][:, infrared].astype(float), lands["forest"][either])
        told[kind] = max(area, 1 - area)
    colours = class_colours(list(lands)) / 255
    return Veil(spectra, told, dict(zip(lands, colours, strict=True)))


# ---- a real pair ---------------------------------------------------------------------------------------------------


def show_pair(folder: str | None, bands: Sequence[int] | None, cloud_seed: int) -> Picture | None:
    """A real optical and radar pair side by side, and the optical one under simulated clouds; says what it did.

    Args:
        folder: with ``optical.tif`` and ``sar.tif``, or None.
        bands: red, green and blue of the optical raster, counted from 1.
        cloud_seed: which clouds.

    Returns:
        The pictures; None without a folder.

    Raises:
        RasterError: a raster can't be read, or the two don't overlap.
    """
    from rsovlib.data.pair import open_pair

    if not folder:
        print("Not run: no pair was given. Set pair_folder to a folder with optical.tif and sar.tif.")
        return None
    with open_pair(Path(folder) / "optical.tif", Path(folder) / "sar.tif", bands=bands) as pair:
        (optical, optical_valid), (radar, radar_valid) = pair.optical.preview(768), pair.sar.preview(768)
        print(f"{pair.height} x {pair.width} pixels; how the radar came to this grid: {pair.relation}.")
        print(f"The radar's red, green and blue: {', '.join(pair.sar.channels)}.")
        sides = pair.height, pair.width
    cloudy, _ = add_clouds(optical, 0.4, "varied", cloud_seed)
    cloudy[~optical_valid] = 255
    radar[~radar_valid] = 255
    panels = [
        Panel("optical", optical),
        Panel("optical under simulated clouds", cloudy),
        Panel("radar (white: no data)", radar),
    ]
    return plot_panels(panels, sides=sides, columns=3)


# ---- scores by hand ------------------------------------------------------------------------------------------------


def plot_by_hand(
    truth: npt.NDArray[Any], prediction: npt.NDArray[Any], names: Sequence[str], counts: npt.NDArray[Any]
) -> Picture:
    """A tiny map beside its truth, and the matrix of confusion with its numbers.

    Args:
        truth: (h, w), indices of the names, 255 where nothing is known.
        prediction: likewise.
        names: of the K classes.
        counts: (K, K) pixels, true by predicted.
    """
    palette = ListedColormap([*(class_colours(names) / 255), (0.8, 0.8, 0.8)])
    figure = Picture(figsize=(PAGE_WIDTH, 2.9), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.3, 1.3, 1))
    shown = (left, "truth (grey: unknown)", truth), (middle, "prediction", prediction)
    for axes, title, labels in shown:
        axes.imshow(np.where(labels == 255, len(names), labels), cmap=palette, vmin=-0.5, vmax=len(names) + 0.5)
        _name(axes, title, "x (pixels)", "y (pixels)")
        axes.set_xticks(range(labels.shape[1]))
        axes.set_yticks(range(labels.shape[0]))
        for label, name in enumerate(names):
            rows, columns = np.nonzero(labels == label)
            if len(rows):
                place = columns.mean(), rows.mean()
                axes.text(*place, name, ha="center", va="center", rotation=90, color="white", fontsize=TICK)
    right.imshow(counts, cmap="Blues")
    _name(right, "confusion (pixels)", "predicted", "true")
    right.set_xticks(range(len(names)), names)
    right.set_yticks(range(len(names)), names)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if count > counts.max() / 2 else "black"
        right.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=TITLE)
    return figure


def _name(axes: Axes, title: str, across: str, up: str) -> None:
    axes.set_title(title, fontsize=TITLE)
    axes.set_xlabel(across, fontsize=LABEL)
    axes.set_ylabel(up, fontsize=LABEL)
    axes.tick_params(labelsize=TICK)
