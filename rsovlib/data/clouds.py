"""Simulated clouds over clear images: thin, thick and varied, with their shadows, and haze.

The image is mixed with a cloud by its opacity, as SatelliteCloudGenerator does (Czerkawski et al. 2023, Remote Sensing
15(17), 4138, doi 10.3390/rs15174138, after Lee & Sim 2019, doi 10.1109/ICIP.2019.8803666).  For band c and each pixel:

    y_c = (1 - alpha_c) ((1 - h_c) s_c x_c + h_c A) + alpha_c l T_c A

alpha is the cloud's opacity, h the haze's, s the light that the shadow leaves, A the value of a bright cloud's top, T_c
its brightness in the band and l how well it is lit.  alpha_c = 1 - (1 - alpha)^kappa_c, where kappa_c is how much
thicker the cloud is, optically, at the band's wavelength than at 550 nm; without wavelengths kappa_c = T_c = 1.

Every result is made with a :data:`CLOUD_VERSION`: the same arguments and version give the same clouds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rsovlib.data._cloud_blend import (
    Array,
    BandLook,
    as_floats,
    bands_first,
    blend_into,
    is_tensor,
    missing_data,
    number_type,
    stack_layers,
    valid_pixels,
)
from rsovlib.data._cloud_field import CLOUD_OPACITY, CloudKind, cloud_layers
from rsovlib.data._cloud_optics import PHASES, UNKNOWN_BAND, BandOptics, band_optics
from rsovlib.errors import InputError, unknown_name

if TYPE_CHECKING:
    import torch

__all__ = ["CLOUD_OPACITY", "CLOUD_VERSION", "KINDS", "PRESETS", "CloudPreset", "add_clouds", "add_preset_clouds"]

CLOUD_VERSION = 1
"""Changes whenever the same arguments give other clouds."""

# Peaks: SatelliteCloudGenerator's THIN_CONFIG (0.4-0.7) and its default max_lvl (0.95-1).  Softness is chosen so that
# the mean opacity of what counts as cloud is 0.2-0.5 for thin and 0.6-1 for thick clouds.
_THIN = CloudKind(peak=(0.4, 0.7), softness=1.0)
_THICK = CloudKind(peak=(0.95, 1.0), softness=0.3)
_SKIES: Mapping[str, tuple[CloudKind, ...]] = {"thin": (_THIN,), "thick": (_THICK,), "varied": (_THIN, _THICK)}
# Exponent of the optical thickness, tau ~ lambda^-eta, and what the cloud is made of.  Thin clouds veil like Chavez's
# (1988) very hazy atmosphere; the droplets of thick ones are too large to tell the wavelengths apart.
_SPECTRA: Mapping[str, tuple[float, str]] = {"thin": (0.5, "ice"), "thick": (0.0, "water"), "varied": (0.25, "water")}
KINDS = tuple(_SKIES)

_SHORTEST, _LONGEST = 350.0, 2500.0  # nm
_WHITE_OF_TYPE = {"uint8": 255.0, "uint16": 10_000.0, "int16": 10_000.0}
_BRIGHT_ON_DISPLAY, _BRIGHT_REFLECTANCE = 0.95, 0.7
_NOT_REFLECTANCE = 10.0  # snow and glint exceed 1; nothing comes near this

Image = TypeVar("Image", NDArray[Any], "torch.Tensor")
OneOrMany = float | Sequence[float]


@dataclass(frozen=True)
class CloudPreset:
    """The clouds of a published setting.

    Attributes:
        kind: of :data:`KINDS`.
        cover: the range that each image's cover is drawn from.
        note: what is known of the original, and what is chosen here.
    """

    kind: str
    cover: tuple[float, float]
    note: str


_UNPUBLISHED = "the program and parameters of the original aren't published; the range of cover is chosen here"
PRESETS: Mapping[str, CloudPreset] = {
    "openearthmap-sar-thin": CloudPreset("thin", (0.3, 0.7), f"MM-OVSeg, OEM-thin: {_UNPUBLISHED}."),
    "openearthmap-sar-thick": CloudPreset("thick", (0.3, 0.7), f"MM-OVSeg, OEM-thick: {_UNPUBLISHED}."),
    "pie-rgb-sar-cloud": CloudPreset("varied", (0.2, 0.7), f"MM-OVSeg, PIE-cloud: {_UNPUBLISHED}."),
    "ddhr-sk": CloudPreset(
        "varied", (0.2, 0.7), "MM-OVSeg, DDHR-SK: its clouds seem to be part of the data; these stand in for them."
    ),
    "ddhr-ch": CloudPreset("varied", (0.2, 0.7), f"MM-OVSeg, DDHR-CH: {_UNPUBLISHED}."),
    "whu-opt-sar": CloudPreset("varied", (0.2, 0.7), f"EDC and CloudSeg, WHU-OPT-SAR: {_UNPUBLISHED}."),
    "m3m-cr": CloudPreset(
        "varied", (0.2, 0.8), "EDC and CloudSeg, M3M-CR has real clouds; these stand in for them on other images."
    ),
}


def add_clouds(
    image: Image,
    cover: OneOrMany,
    kind: str = "varied",
    seed: int | Sequence[int] = 0,
    *,
    wavelengths: Sequence[float | None] | None = None,
    phase: str | None = None,
    haze: float = 0.0,
    shadow: float = 0.6,
    sun_azimuth: float = 135.0,
    sun_elevation: float = 50.0,
    cloud_height: float | None = None,
    scale: float | None = None,
    brightness: float | None = None,
    colour: Sequence[float] | None = None,
    white: float | None = None,
    black: OneOrMany = 0.0,
    nodata: float | None = None,
) -> tuple[Image, Image]:
    """Covers a clear image with clouds.

    ``cover`` is the share of the pixels with data whose opacity is above :data:`CLOUD_OPACITY` (0.1); it is met to the
    pixel.  At 0 there is no cloud at all, not even a fringe.  One seed has one pattern: raising ``cover`` lets the same
    clouds grow, ``kind`` makes them thinner or thicker, and other bands of the same place, passed in a call of their
    own, get the same clouds.

    Args:
        image: NumPy (H, W, C) or torch (C, H, W), or one band (H, W) of either, or a torch batch (B, C, H, W).
            uint8, uint16 or int16 (reflectance x 10000), or floating point (reflectance, 1 = white).
        cover: 0..1; for a batch also one for each image.
        kind: "thin" (mean opacity of the clouds about 0.2-0.5), "thick" (about 0.6-1), or "varied" (both in one sky).
        seed: which clouds; image i of a batch has seed + i, unless a sequence names the seed of each.
        wavelengths: centre of each band in nm, None where it isn't known. With them, thin clouds and haze veil blue
            more than red, tops are darker where water or ice absorbs, low clouds vanish from the cirrus band at
            1375 nm, and shadows are blue.
        phase: "water" or "ice", for the tops' colour beyond 900 nm; by default thin clouds are of ice, others of water.
        haze: mean opacity at 550 nm of a broad haze over the whole image, 0..1. It doesn't count as cover and isn't
            part of the opacity that is given back.
        shadow: how much of the direct sunlight an opaque cloud takes from its shadow, 0..1. The rest comes through
            the cloud or from its neighbours; SatelliteCloudGenerator draws 0.3-0.6.
        sun_azimuth: degrees clockwise from up; 135 is the lower right, so that shadows fall to the upper left.
        sun_elevation: degrees above the horizon, above 0 and up to 90.
        cloud_height: in pixels, that is metres divided by the ground sampling distance; a twelfth of the image's
            shorter side by default. A shadow lies cloud_height / tan(sun_elevation) away from its cloud.
        scale: standard deviation of the largest structures, pixels; a tenth of the longer side by default.
        brightness: of a fully lit cloud top, relative to ``white``; by default 0.95 for uint8, which shows clouds
            nearly saturated, and 0.7 for reflectance.
        colour: factor of each band's cloud brightness, for clouds that aren't white.
        white: value of a perfectly white surface: by default 255 for uint8, 10000 for uint16 and int16, 1 for floats.
        black: value of a perfectly dark one, one for all bands or one for each, for example the 1000 of Sentinel-2's
            processing baseline 04.00, or the path radiance (dark-object value) of images at the top of atmosphere.
        nodata: value of pixels without data. They, and NaN, come back as they are, and no other pixel gets this value.

    Returns:
        The cloudy image, of the same kind, type, shape and device, and the opacity of its clouds at 550 nm, (H, W) or
        (B, H, W) float32, 0..1 and 0 where the image has no data.

    Raises:
        InputError: an argument that can't be.
    """
    if kind not in _SKIES:
        raise unknown_name("kind of cloud", kind, KINDS)
    bands = bands_first(image)
    height, width, count = (int(bands.shape[axis]) for axis in (-2, -1, -3))
    dtype = number_type(bands)
    brightness = (
        (_BRIGHT_ON_DISPLAY if dtype == np.uint8 else _BRIGHT_REFLECTANCE) if brightness is None else brightness
    )
    for name, share in (("haze", haze), ("shadow", shadow), ("brightness", brightness)):
        if not 0 <= share <= 1:
            raise InputError(f"The {name} of clouds lies between 0 and 1, not at {share!r}.")
    shift = _shadow_shift(min(height, width) / 12 if cloud_height is None else cloud_height, sun_azimuth, sun_elevation)
    scale = max(height, width) / 10 if scale is None else scale
    if not (math.isfinite(scale) and scale > 0):
        raise InputError(f"The scale of clouds is a positive number of pixels, not {scale!r}.")

    values = as_floats(bands, dtype)
    missing = missing_data(values, nodata, dtype)
    white = _white(dtype, values, missing) if white is None else float(white)
    tint, dark = _each_band("colour", colour, 1.0, count), _each_band("black", black, 0.0, count)
    if not white > max(dark):
        raise InputError(f"white={white:g} must be above black={max(dark):g}: both are values of the image.")
    looks = [
        BandLook(
            optics=optics,
            top=brightness * tint[band] * optics.top * (white - dark[band]),
            haze=brightness * optics.haze_top * (white - dark[band]),
            black=dark[band],
            shadow=shadow,
        )
        for band, optics in enumerate(_optics(wavelengths, count, kind, phase, sun_elevation))
    ]

    images = int(bands.shape[0]) if bands.ndim == 4 else 1
    valid = valid_pixels(missing)
    valid = None if valid is None else valid.reshape(images, height, width)
    layers = [
        cloud_layers(
            np.random.Generator(np.random.PCG64(np.random.SeedSequence([CLOUD_VERSION, one_seed]))),
            (height, width),
            one_cover,
            _SKIES[kind],
            scale=scale,
            haze=haze,
            shadow_shift=shift,
            valid=None if valid is None else valid[index],
        )
        for index, (one_seed, one_cover) in enumerate(zip(_seeds(seed, images), _covers(cover, images), strict=True))
    ]
    together = stack_layers(layers, bands)
    cloudy = _empty_like(image)
    blend_into(bands_first(cloudy), bands, values, together, looks, dtype, nodata, missing)
    return cloudy, together.opacity


def add_preset_clouds(image: Image, preset: str, seed: int | Sequence[int] = 0, **options: Any) -> tuple[Image, Image]:
    """Covers a clear image with the clouds of a published setting.

    Args:
        image: as for :func:`add_clouds`.
        preset: a name in :data:`PRESETS`; its kind is used, and each image's cover is drawn from its range.
        seed: as for :func:`add_clouds`; it decides the cover too.
        **options: further arguments of :func:`add_clouds`.

    Returns:
        The cloudy image and the opacity of its clouds, as :func:`add_clouds`.

    Raises:
        InputError: no such preset, or an argument that can't be.
    """
    if preset not in PRESETS:
        raise unknown_name("preset of clouds", preset, PRESETS)
    chosen = PRESETS[preset]
    bands = bands_first(image)
    seeds = _seeds(seed, int(bands.shape[0]) if bands.ndim == 4 else 1)
    # A stream of its own: the same seed has the same clouds whether their cover is drawn or given.
    covers = [float(np.random.default_rng([CLOUD_VERSION, one, 1]).uniform(*chosen.cover)) for one in seeds]
    return add_clouds(image, covers, chosen.kind, seeds, **options)


def _optics(
    wavelengths: Sequence[float | None] | None, count: int, kind: str, phase: str | None, sun_elevation: float
) -> list[BandOptics]:
    angstrom, usual_phase = _SPECTRA[kind]
    phase = usual_phase if phase is None else phase
    if phase not in PHASES:
        raise unknown_name("phase of clouds", phase, PHASES)
    if wavelengths is None:
        return [UNKNOWN_BAND] * count
    if len(wavelengths) != count:
        raise InputError(
            f"The image has {count} bands and {len(wavelengths)} wavelengths were given; name one for each."
        )
    for wavelength in wavelengths:
        if wavelength is not None and not _SHORTEST <= wavelength <= _LONGEST:
            raise InputError(
                f"Clouds know wavelengths from {_SHORTEST:g} to {_LONGEST:g} nm, not {wavelength:g}; "
                "give the centres of the bands in nanometres."
            )
    return [
        UNKNOWN_BAND if wavelength is None else band_optics(float(wavelength), angstrom, phase, sun_elevation)
        for wavelength in wavelengths
    ]


def _white(dtype: np.dtype[Any], values: Array, missing: Array | None) -> float:
    if dtype.kind != "f":
        return _WHITE_OF_TYPE[dtype.name]
    known = values if missing is None else values[~missing]
    if known.shape[0] and float(known.max()) > _NOT_REFLECTANCE:
        raise InputError(
            f"This image of floating point goes up to {float(known.max()):g}, which isn't a reflectance; "
            "say with white=... what value a white surface has, for example 255 or 10000."
        )
    return 1.0


def _each_band(name: str, values: OneOrMany | None, default: float, count: int) -> list[float]:
    given = _numbers(name, default if values is None else values)
    if given.ndim > 1 or (given.ndim == 1 and len(given) != count) or not np.isfinite(given).all():
        raise InputError(f"{name}={values!r}: give one finite number, or one for each of the {count} bands.")
    return [float(value) for value in np.broadcast_to(given, count)]


def _numbers(name: str, values: OneOrMany) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}={values!r}: give a number, or a list of numbers.") from error


def _covers(cover: OneOrMany, images: int) -> list[float]:
    given = _numbers("cover", cover)
    if given.ndim > 1 or (given.ndim == 1 and len(given) != images):
        raise InputError(
            f"There are {images} image(s) and {given.size} covers; give one number, or one for each image."
        )
    if not ((given >= 0) & (given <= 1)).all():
        raise InputError(f"The cover of clouds is a share between 0 and 1, not {cover!r}.")
    return [float(value) for value in np.broadcast_to(given, images)]


def _seeds(seed: int | Sequence[int], images: int) -> list[int]:
    given = np.asarray(seed)
    if given.dtype.kind not in "iu" or given.ndim > 1 or (given < 0).any():
        raise InputError(f"The seed of clouds is a whole number from 0 on, or one for each image, not {seed!r}.")
    if given.ndim == 0:
        return [int(given) + index for index in range(images)]
    if len(given) != images:
        raise InputError(f"There are {images} image(s) and {len(given)} seeds; give one number, or one for each image.")
    return [int(one) for one in given]


def _shadow_shift(height: float, sun_azimuth: float, sun_elevation: float) -> tuple[int, int]:
    """Where shadows fall, (rows down, columns right) of their clouds."""
    if not 0 < sun_elevation <= 90:
        raise InputError(f"The sun stands above 0 and up to 90 degrees high, not at {sun_elevation!r}.")
    if not (math.isfinite(height) and height >= 0 and math.isfinite(sun_azimuth)):
        raise InputError(f"Clouds at a height of {height!r} pixels and a sun at {sun_azimuth!r} degrees can't be.")
    distance = height / math.tan(math.radians(sun_elevation))
    azimuth = math.radians(sun_azimuth)
    # Rows go south and columns east, azimuths clockwise from north: away from the sun is (+cos, -sin).
    return round(distance * math.cos(azimuth)), round(-distance * math.sin(azimuth))


def _empty_like(image: Array) -> Array:
    if is_tensor(image):
        import torch

        return torch.empty_like(image, requires_grad=False)
    return np.empty_like(image)
