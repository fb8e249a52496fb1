"""Figures 4 and A1 to A3: one scene of a setting, and what every method makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rsovlib.experiments.fusion.evaluation import METHOD_TITLES, segmenter, words_for
from rsovlib.experiments.fusion.scenes import PLAIN, Condition, scenes_of, shown_scenes
from rsovlib.experiments.fusion.settings import SETTINGS, title_of
from rsovlib.plots import Panel, Picture, plot_panels

AMONG = 20
"""Scenes among which one is chosen to be shown."""


def scene_panels(
    key: str,
    methods: Sequence[str],
    index: int = 0,
    seed: int = 0,
    condition: Condition = PLAIN,
    source: str = "",
) -> Picture:
    """Optical image, radar, truth and the maps of several methods, with the share of labelled pixels that is right.

    Args:
        key: of a setting, "s1" to "s6".
        methods: of :func:`rsovlib.experiments.fusion.evaluation.available_methods`.
        index: which of the first :data:`AMONG` test scenes (of a dataset: of so many that are spread over it).
        seed: of the weights.
        condition: how it is shown.
        source: of the scenes; the setting's suite if not given.
    """
    source = source or SETTINGS[key].suite
    scenes = scenes_of(source)
    scene = scenes.scene(scenes.places(AMONG, condition.split)[index], condition)
    panels = [Panel("optical", scene.optical)]
    if scene.sar is not None:
        panels.append(Panel("radar", scene.sar))
    panels.append(Panel("truth", scene.labels.astype(np.int64)))
    known = scene.labels < len(scenes.classes)
    for method in methods:
        made = segmenter(method, seed, source)
        radar = (scene.sar, scene.sar_valid) if getattr(made, "uses_sar", False) else ()
        labels = made(scene.optical, words_for(made, source), *radar).labels
        right = 100 * float((labels == scene.labels)[known].mean()) if known.any() else float("nan")
        panels.append(Panel(f"{METHOD_TITLES[method]}\n{right:.0f} % right", labels))
    return plot_panels(
        panels, scenes.classes, gsd=scenes.gsd, columns=5, cell=2.3, title=f"{key}: {title_of(key)}, {scene.name}"
    )


def under_clouds(settings: Mapping[str, str]) -> str:
    """The setting whose scenes are shown under growing clouds: the second where it can be, else the first that can.

    Returns:
        Its key; "" where no setting has images without clouds.
    """
    order = sorted(settings, key=lambda key: key != "s2")
    return next((key for key in order if scenes_of(settings[key]).can_be_cloudless), "")


def cloudiest(key: str, scenes: int = AMONG, source: str = "") -> int:
    """Index of the cloudiest of the first test scenes with three classes or more: chosen without any result.

    Where nobody knows how cloudy they are, it is the first of them.

    Args:
        key: of a setting.
        scenes: how many to choose from.
        source: of the scenes; the setting's suite if not given.
    """
    shown = shown_scenes(source or SETTINGS[key].suite, PLAIN, scenes)
    clouds, varied = [], []
    for scene in shown:
        varied.append((np.bincount(scene.labels.ravel(), minlength=256)[:255] > 0.03 * scene.labels.size).sum())
        clouds.append(scene.opacity.mean())
    return int(np.argmax([cloud + (count >= 3) for cloud, count in zip(clouds, varied, strict=True)]))
