"""Lesson 06, radar for optical people: speckle and its law, looking sideways, and filters. Clouds: radar_clouds.

All angles of incidence theta are from the vertical; the sensor stands at the left of every profile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage, special, stats

from rsovlib.data._scene_radar import image_geometry, speckle
from rsovlib.data.lexicon import BUILDING, WATER
from rsovlib.data.sar import despeckle, equivalent_looks, from_db
from rsovlib.data.scenes import Scene, make_scene
from rsovlib.experiments.lessons.exercises import Exercise, Feedback, NumberExercise, Prediction
from rsovlib.plots import Chart, Panel, Picture, plot_charts, plot_panels

Floats = npt.NDArray[np.floating]

NOISE_FLOOR_DB = -28.0
#: Power of the ground and of a roof in the profiles, of the order of grass and of gravel at C band.
_GROUND_DB, _ROOF_DB = -12.0, -7.0

SPECKLE = Prediction(
    "The power of 16 independent looks is averaged. What becomes of the speckle's standard deviation?",
    {"a": "a sixteenth of that of one look", "b": "a quarter", "c": "it stays: the ground is rough, after all"},
)
ROOF = Prediction(
    "The radar looks from the left at a house on flat ground. Where in the image does the roof appear?",
    {"a": "where it is", "b": "nearer to the sensor", "c": "further away, as in an oblique photograph"},
)
STEEPER = Prediction(
    "The sensor looks more steeply, at 25 in place of 45 degrees from the vertical. What happens to a house's image?",
    {
        "a": "layover and shadow both become longer",
        "b": "layover becomes longer, the shadow shorter",
        "c": "layover becomes shorter, the shadow longer",
    },
)
TURNED = Prediction(
    "The same town is seen again by a radar that looks west in place of east. Which side of the houses is bright then?",
    {"a": "the same as before", "b": "the other one", "c": "both alike"},
)
FILTERS = Prediction(
    "Four images of one coast. Which is nearest to the speckle-free image (root of the mean squared difference, in dB) "
    "within 2 pixels of the borders between classes?",
    {"a": "the unfiltered image", "b": "the mean over 7 x 7 pixels", "c": "Lee's filter", "d": "Lee's refined filter"},
)
#: Filter -> what a reader calls it; in the order of the prediction's choices.
FILTER_NAMES = {"none": "unfiltered", "boxcar": "mean over 7 x 7", "lee": "Lee", "refined_lee": "refined Lee"}


# ---- speckle -----------------------------------------------------------------------------------------------------


def speckle_samples(looks: Sequence[float], size: int, seed: int) -> dict[float, Floats]:
    """Power of ground whose mean is 1, seen with several numbers of looks: looks -> (size, size)."""
    rng = np.random.default_rng(seed)
    return {count: speckle(rng, (size, size), count) for count in looks}


def mean_of_decibels(looks: float) -> float:
    """Mean of 10 log10 of speckle of mean 1, in dB: (10 / ln 10) (psi(L) - ln L), below 0."""
    return float(10 / np.log(10) * (special.digamma(looks) - np.log(looks)))


def speckle_table(samples: Mapping[float, Floats]) -> pd.DataFrame:
    """Measured beside the gamma law: relative standard deviation, equivalent looks, mean in decibels."""
    rows = {
        looks: {
            "std / mean": power.std() / power.mean(),
            "law: 1 / sqrt(L)": looks**-0.5,
            "equivalent looks": equivalent_looks(power),
            "mean power (dB)": 10 * np.log10(power.mean(dtype=np.float64)),
            "mean of the decibels (dB)": (10 * np.log10(power)).mean(dtype=np.float64),
            "law of that (dB)": mean_of_decibels(looks),
        }
        for looks, power in samples.items()
    }
    return pd.DataFrame(rows).T.rename_axis("looks L")


def plot_speckle(samples: Mapping[float, Floats]) -> Picture:
    """The same flat ground with every number of looks, in decibels on one scale."""
    panels = [
        Panel(f"L = {looks:g}", 10 * np.log10(power[:96, :96]), "power (dB)", (-15.0, 6.0), colour_map="gray")
        for looks, power in samples.items()
    ]
    return plot_panels(panels, columns=len(panels))


def plot_speckle_law(samples: Mapping[float, Floats], bins: int = 60) -> Picture:
    """Histograms of power against the gamma density of mean 1 and variance 1 / L."""
    charts = []
    for looks, power in samples.items():
        top = float(stats.gamma(looks, scale=1 / looks).ppf(0.998))
        counts, edges = np.histogram(power, bins=bins, range=(0, top))
        middles = (edges[1:] + edges[:-1]) / 2
        measured = counts / (power.size * np.diff(edges))
        law = stats.gamma(looks, scale=1 / looks).pdf(middles)
        curves = {"measured": (middles, measured), "gamma law": (middles, law)}
        charts.append(Chart("power / mean power", "density", curves, title=f"L = {looks:g}", marks=False))
    return plot_charts(charts, width=3.8, height=2.5)


# ---- looking sideways --------------------------------------------------------------------------------------------


def house_profile(
    height: float, width: float, incidence: float, *, gsd: float = 0.5, before: float = 60.0, behind: float = 60.0
) -> dict[str, Floats]:
    """What a radar sees of one house on flat ground, along the direction in which it looks.

    Args:
        height: of the house, metres.
        width: of the house along the look direction, metres.
        incidence: theta, degrees.
        gsd: metres a pixel.
        before: metres of ground in front of the house, towards the sensor.
        behind: metres of ground after it.

    Returns:
        ``"range"`` (n,), metres of ground range from the house's front; ``"surface"`` (n,), metres above the ground;
        and the power (n,) of ``"ground"``, ``"roof"`` and ``"walls"`` (facade and corner), 0 where nothing arrives.
    """
    places = (np.arange(round((before + width + behind) / gsd)) + 0.5) * gsd - before
    house = (places > 0) & (places < width)
    rows = 15  # far from the upper and lower edge, the profile doesn't know that the house ends
    above = np.tile(np.where(house, np.float32(height), np.float32(0)), (rows, 1))
    tangent = float(np.tan(np.radians(incidence)))

    def seen(ground: float, roof: float, walls: bool) -> Floats:
        echo = np.repeat(np.where(above > 0, np.float32(roof), np.float32(ground))[..., None], 2, axis=2)
        built = (above > 0) & walls
        image = image_geometry(echo, above, np.zeros_like(above), built, gsd, tangent)
        return image[rows // 2, :, 0].astype(np.float64)

    return {
        "range": places,
        "surface": above[0].astype(np.float64),
        "ground": seen(10 ** (_GROUND_DB / 10), 0.0, False),
        "roof": seen(0.0, 10 ** (_ROOF_DB / 10), False),
        "walls": seen(0.0, 0.0, True),
    }


def roof_shift(profile: Mapping[str, Floats]) -> float:
    """How far the roof's echo lies from the roof itself, metres; below 0 is nearer to the sensor."""
    true = profile["range"][profile["surface"] > 0].mean()
    return float(np.average(profile["range"], weights=profile["roof"]) - true)


def layover_and_shadow(profile: Mapping[str, Floats]) -> tuple[float, float]:
    """Lengths in metres: from the first echo of the house to its front; and of the ground behind it that is unseen."""
    places = profile["range"]
    gsd = places[1] - places[0]
    house = profile["roof"] + profile["walls"] > 1e-9
    behind = places > places[profile["surface"] > 0].max()
    return float(-(places[house].min() - gsd / 2)), float(gsd * (behind & (profile["ground"] <= 0)).sum())


def plot_house(profile: Mapping[str, Floats], incidence: float) -> Picture:
    """The house in section, and what arrives from each of its parts, in decibels."""
    places = profile["range"]

    def decibels(power: Floats) -> Floats:
        return 10 * np.log10(power + 10 ** (NOISE_FLOOR_DB / 10))

    parts = {name: (places, decibels(profile[name])) for name in ("ground", "roof", "walls")}
    label = "ground range from the front (m)"
    return plot_charts(
        [
            Chart(
                label, "height (m)", {"surface": (places, profile["surface"])}, "section; sensor far left", marks=False
            ),
            Chart(label, "power (dB)", parts, f"radar image, {incidence:g} degrees from the vertical", marks=False),
        ],
    )


def angle_table(height: float, width: float, incidences: Iterable[float]) -> pd.DataFrame:
    """Layover and shadow of a house at several angles, measured in the profile and by h / tan and h tan."""
    rows = {}
    for incidence in incidences:
        layover, shadow = layover_and_shadow(house_profile(height, width, incidence, before=120, behind=120, gsd=0.25))
        tangent = np.tan(np.radians(incidence))
        rows[incidence] = {
            "layover (m)": layover,
            "h / tan(theta) (m)": height / tangent,
            "shadow (m)": shadow,
            "h tan(theta) (m)": height * tangent,
        }
    return pd.DataFrame(rows).T.rename_axis("incidence (degrees)")


def town(size: int, seed: int, look: str = "east", looks: float = 4.0) -> Scene:
    """A simulated town at one metre a pixel, seen by a radar that looks in a direction."""
    return make_scene(
        size, seed, region="temperate", layout="urban", gsd=1.0, modalities=("sar", "dsm"), sar_looks=looks, look=look
    )


def brightness_beside_houses(scene: Scene, reach: float = 6.0) -> dict[str, float]:
    """Mean VV power in dB of what lies at most ``reach`` metres west, and east, of a house."""
    houses = scene.labels == BUILDING
    steps = max(1, round(reach / scene.gsd))
    found = {}
    for side, sign in (("west", -1), ("east", 1)):
        near = np.zeros_like(houses)
        for step in range(1, steps + 1):
            moved = np.zeros_like(houses)
            if sign < 0:
                moved[:, :-step] = houses[:, step:]
            else:
                moved[:, step:] = houses[:, :-step]
            near |= moved
        power = from_db(_radar(scene)[0][near & ~houses])
        found[side] = float(10 * np.log10(power.mean(dtype=np.float64)))
    return found


def plot_towns(towns: Mapping[str, Scene]) -> Picture:
    """One town: its optical image and classes, and the radar's view from each direction (VV, dB)."""
    first = next(iter(towns.values()))
    panels = [Panel("optical", first.optical), Panel("truth", first.labels)]
    panels += [
        Panel(f"radar looking {look}", _radar(scene)[0], "VV (dB)", (-25.0, 5.0), colour_map="gray")
        for look, scene in towns.items()
    ]
    return plot_panels(panels, first.classes, gsd=first.gsd, columns=2, cell=4.2)


# ---- filters -----------------------------------------------------------------------------------------------------


def speckled_and_clean(size: int, seed: int, looks: float) -> tuple[Scene, Scene]:
    """One coast with few looks, and with a thousand: almost without speckle."""
    return tuple(  # type: ignore[return-value]
        make_scene(size, seed, region="temperate", layout="coast", gsd=2.0, modalities=("sar", "nir"), sar_looks=count)
        for count in (looks, 1000)
    )


def filtered(scene: Scene) -> dict[str, Floats]:
    """VV in dB by the name of a filter, ``"none"`` first."""
    raw, looks = _radar(scene)[0], float(scene.notes["sar_looks"])
    return {
        "none": raw,
        "boxcar": despeckle(raw, "boxcar", "db", looks),
        "lee": despeckle(raw, "lee", "db", looks),
        "refined_lee": despeckle(raw, "refined_lee", "db", looks),
    }


def filter_table(scene: Scene, clean: Scene, reach: float = 2.0) -> pd.DataFrame:
    """Every filter: error against the clean image near the classes' borders and elsewhere, and looks on water.

    Args:
        scene: with speckle.
        clean: the same place without.
        reach: how near to a border is near, pixels.
    """
    labels = scene.labels
    border = np.zeros(labels.shape, bool)
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    near = ndimage.distance_transform_edt(~border) <= reach
    # Water far from the shore, where nothing leans over it.
    calm = ndimage.binary_erosion(labels == WATER, iterations=8)
    rows = {}
    for name, values in filtered(scene).items():
        error = values - _radar(clean)[0]
        rows[FILTER_NAMES[name]] = {
            "error near borders (dB)": float(np.sqrt((error[near] ** 2).mean(dtype=np.float64))),
            "error elsewhere (dB)": float(np.sqrt((error[~near] ** 2).mean(dtype=np.float64))),
            "equivalent looks on water": equivalent_looks(from_db(values[calm])) if calm.sum() > 1 else float("nan"),
        }
    return pd.DataFrame(rows).T.rename_axis("filter")


def plot_filters(scene: Scene, clean: Scene) -> Picture:
    """The speckled image, filtered, and the clean one (VV, dB)."""
    images = {FILTER_NAMES[name]: values for name, values in filtered(scene).items()}
    images["almost no speckle"] = _radar(clean)[0]
    panels = [Panel("optical", scene.optical)]
    panels += [Panel(title, values, "VV (dB)", (-28.0, 0.0), colour_map="gray") for title, values in images.items()]
    return plot_panels(panels, gsd=scene.gsd, columns=3)


def filters_outcome(scores: pd.DataFrame, guess: str | None = None) -> Feedback:
    """What came true of :data:`FILTERS`, from :func:`filter_table`."""
    errors = scores["error near borders (dB)"]
    choices = dict(zip(FILTER_NAMES.values(), FILTERS.choices, strict=True))
    listed = "; ".join(f"{name} {value:.2f} dB" for name, value in errors.items())
    return FILTERS.outcome(choices[str(errors.idxmin())], f"{listed}.", guess)


def _radar(scene: Scene) -> npt.NDArray[np.float32]:
    """(2, H, W) dB of a scene that was made with radar."""
    return np.asarray(scene.sar)


# ---- exercises ---------------------------------------------------------------------------------------------------


def decibel_exercise() -> Exercise:
    """The bias of averaged decibels."""
    return NumberExercise(
        "A field is seen with 2 looks. Somebody averages its decibels in place of its power. How many dB is the result "
        "off (with its sign)? Two decimals.",
        lambda: mean_of_decibels(2),
        tolerance=0.03,
        hint="Draw speckle with speckle_samples([2], 1000, 0)[2], or use the law: 10 / ln 10 times (psi(L) - ln L).",
        explanation="The logarithm bends downwards, so dark pixels pull more than bright ones: average power, not dB.",
    )


def height_exercise() -> Exercise:
    """A building's height from its layover."""
    return NumberExercise(
        "At an incidence of 40 degrees the image of a tower leans 30 m towards the sensor. How high is it, in metres?",
        lambda: 30 * np.tan(np.radians(40)),
        tolerance=0.5,
        hint="Layover is h / tan(theta).",
        explanation="The lean of a roof is a measure of height: radar sees the third dimension where it seems to fail.",
    )
