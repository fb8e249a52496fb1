"""How clouds, haze and the sky treat each wavelength."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

REFERENCE = 550.0
"""Wavelength at which opacity is stated, nm."""

HAZE_ANGSTROM = 1.0
"""Chavez's (1988, doi 10.1016/0034-4257(88)90019-3) scattering model of a moderately clear atmosphere, lambda^-1."""

# Brightness of a thick cloud's top relative to 550 nm at some wavelengths (nm); straight lines between.
# Droplets and crystals are much larger than the wavelength, so that the visible and near infrared are alike; beyond,
# water absorbs and ice absorbs more (about 60 % and 30 % of reflectance at 1.6 um: EUMeTrain's NIR1.6 manual; Nakajima
# & King 1990, doi 10.1175/1520-0469(1990)047<1878:DOTOTA>2.0.CO;2).  At 945 and 1375 nm the vapour above a low cloud
# hides it and a cirrus stands above most of the vapour (Gao et al. 1998, J. Geophys. Res. 103(D24), 32169).
# The values of water at 945, 1610 and 2200 nm follow the cumulus of a Sentinel-2 patch of SEN12MS-CR (tests compare).
_TOPS: Mapping[str, Sequence[tuple[float, float]]] = {
    "water": (
        (350, 1.0),
        (920, 1.0),
        (935, 0.15),
        (955, 0.15),
        (970, 1.0),
        (1240, 1.0),
        (1340, 0.9),
        (1360, 0.0),
        (1420, 0.0),
        (1500, 0.9),
        (1610, 1.0),
        (1800, 0.9),
        (2200, 0.75),
        (2500, 0.6),
    ),
    "ice": (
        (350, 1.0),
        (920, 1.0),
        (935, 0.85),
        (955, 0.85),
        (970, 1.0),
        (1050, 0.95),
        (1240, 0.85),
        (1340, 0.7),
        (1360, 0.6),
        (1420, 0.5),
        (1500, 0.35),
        (1610, 0.5),
        (1800, 0.5),
        (2200, 0.4),
        (2500, 0.25),
    ),
}
PHASES = tuple(_TOPS)

_SKYLIGHT_UNKNOWN = 0.2  # of a band whose wavelength isn't known
_AEROSOL = 0.1  # optical depth of a clear sky's aerosol at 550 nm
_FORWARD = 0.6  # share of the light scattered in the air that arrives at the ground: a little more than half


@dataclass(frozen=True)
class BandOptics:
    """What one band sees.

    Attributes:
        cloud: optical thickness of the cloud relative to 550 nm.
        top: brightness of the cloud's top relative to 550 nm.
        haze: optical thickness of the haze relative to 550 nm.
        haze_top: brightness of the haze relative to 550 nm.
        skylight: share of a sunlit ground's light that comes from the sky and reaches its shadows.
    """

    cloud: float
    top: float
    haze: float
    haze_top: float
    skylight: float


UNKNOWN_BAND = BandOptics(cloud=1.0, top=1.0, haze=1.0, haze_top=1.0, skylight=_SKYLIGHT_UNKNOWN)


def band_optics(wavelength: float, angstrom: float, phase: str, sun_elevation: float) -> BandOptics:
    """What a band of known wavelength sees.

    Args:
        wavelength: centre of the band, nm.
        angstrom: exponent eta of the cloud's optical thickness, tau(lambda) ~ lambda^(-eta).
        phase: one of :data:`PHASES`.
        sun_elevation: degrees above the horizon.

    Returns:
        Its factors.
    """
    relative = wavelength / REFERENCE
    return BandOptics(
        cloud=relative**-angstrom,
        top=_top(wavelength, phase),
        haze=relative**-HAZE_ANGSTROM,
        haze_top=_top(wavelength, "water"),  # low like water clouds, and hidden by vapour as they are
        skylight=_skylight(wavelength / 1000, sun_elevation),
    )


def _top(wavelength: float, phase: str) -> float:
    at, brightness = zip(*_TOPS[phase], strict=True)
    return float(np.interp(wavelength, at, brightness))


def _skylight(micrometres: float, sun_elevation: float) -> float:
    """Share of skylight in a clear sky's light: blue shadows are brighter than infrared ones.

    Rayleigh's optical depth is Hansen & Travis (1974, doi 10.1007/BF00168069), equation 2.30.
    """
    inverse = micrometres**-2
    rayleigh = 0.008569 * inverse**2 * (1 + 0.0113 * inverse + 0.00013 * inverse**2)
    depth = rayleigh + _AEROSOL * (micrometres / 0.55) ** -1.3
    direct = math.exp(-depth / math.sin(math.radians(sun_elevation)))
    scattered = _FORWARD * (1 - direct)
    return scattered / (direct + scattered)
