"""The paper's six settings (Table 1): what each trains on, what it is tested on, and the suite that mirrors it.

This is the one place that says so. In the embedded profile a setting is its suite; in the full profile it is a training
set and a test set, each a dataset in a protocol of its manifest.
"""

from __future__ import annotations

from typing import NamedTuple

from rsovlib.errors import InputError
from rsovlib.experiments.fusion.sources import parse_source


class Setting(NamedTuple):
    """One column of Table 2.

    Attributes:
        title: the paper's name.
        suite: the simulated scenes that stand for it.
        train, test: real data, as :func:`rsovlib.experiments.fusion.sources.parse_source` reads it.
    """

    title: str
    suite: str
    train: str
    test: str


_PIE_CLOUD, _PIE_CLEAN = (f"datasets/pie-rgb-sar/mm-ovseg-{sky}" for sky in ("cloud", "clean"))
_OEM_THICK, _OEM_THIN = (f"datasets/openearthmap-sar/mm-ovseg-{sky}" for sky in ("thick", "thin"))
_KOREA, _CHINA = (f"datasets/ddhr-{place}/mm-ovseg" for place in ("sk", "ch"))

SETTINGS: dict[str, Setting] = {
    "s1": Setting("PIE-cloud", "mm-ovseg-pie-cloud", _PIE_CLOUD, _PIE_CLOUD),
    "s2": Setting("DDHR-SK", "mm-ovseg-ddhr-sk", _KOREA, _KOREA),
    "s3": Setting("OEM-thick", "mm-ovseg-oem-thick", _OEM_THICK, _OEM_THICK),
    "s4": Setting("OEM-thin", "mm-ovseg-oem-thin", _OEM_THIN, _OEM_THIN),
    "s5": Setting("PIE-clean", "mm-ovseg-pie-clean", _PIE_CLEAN, _PIE_CLEAN),
    "s6": Setting("DDHR-SK to DDHR-CH", "mm-ovseg-ddhr-ch", _KOREA, _CHINA),
}

TRAIN_SUITES = ("mm-ovseg-pie-cloud", "mm-ovseg-ddhr-sk", "mm-ovseg-oem-thick")
"""What the embedded networks are trained on: each step's batch is of one of them, and names that suite's seen classes.
The buildings that OEM keeps unseen are part of the other two's "city", so that for OEM the *name* building is new to
the trained layers, not the thing."""


def suite_settings() -> dict[str, str]:
    """The six settings of the embedded profile: key -> suite."""
    return {key: one.suite for key, one in SETTINGS.items()}


def training_sets() -> tuple[str, ...]:
    """The real sets that networks are trained on; one of them serves two settings."""
    return tuple(dict.fromkeys(one.train for one in SETTINGS.values()))


def chosen_settings(train: str = "", test: str = "") -> dict[str, str]:
    """What a run of a table scores: key -> source of its scenes.

    Args:
        train: training set of the networks; "" with ``test`` takes the six suites of the embedded profile.
        test: what they are tested on; "" takes all that the paper tests networks of this training set on. A suite needs
            no training set: all embedded networks are tested on it.

    Returns:
        The settings that these are; a pair that the paper doesn't have is called by the name of its test set.

    Raises:
        InputError: a test set without its training set, or a training set that the paper tests nowhere.
    """
    if not train and not test:
        return suite_settings()
    if not train and parse_source(test).kind == "suites":
        return {next((key for key, one in SETTINGS.items() if one.suite == test), test): test}
    if not train:
        raise InputError(f"Say what the networks that are tested on {test} were trained on: train='datasets/...'.")
    found = {key: one.test for key, one in SETTINGS.items() if one.train == train and test in ("", one.test)}
    if not found and not test:
        raise InputError(f"The paper tests no network that was trained on {train}; say what to test it on, test='...'.")
    return found or {test: test}


def title_of(key: str) -> str:
    """The paper's name of a setting; a pair of one's own is called what it is."""
    return SETTINGS[key].title if key in SETTINGS else key
