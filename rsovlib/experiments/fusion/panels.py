"""Figures 4 and A1 to A3: one scene of a setting, and what every method makes of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rsovlib.data.suites import load_suite
from rsovlib.experiments.fusion.evaluation import METHOD_TITLES, SETTINGS, Condition, segmenter, shown_scenes
from rsovlib.plots import Panel, Picture, plot_panels


def scene_panels(
    key: str, methods: Sequence[str], index: int = 0, seed: int = 0, condition: Condition | None = None
) -> Picture:
    """Optical image, radar, truth and the maps of several methods, with the share of labelled pixels that is right.

    Args:
        key: of a setting, "s1" to "s6".
        methods: of :func:`rsovlib.experiments.fusion.evaluation.available_methods`.
        index: which test scene.
        seed: of the weights.
        condition: how it is shown; under the setting's own clouds if not given.
    """
    title, name = SETTINGS[key]
    suite = load_suite(name)
    condition = condition or Condition()
    scene = shown_scenes(name, condition, index + 1)[index]
    panels = [Panel("optical", scene.optical)]
    if scene.sar is not None:
        panels.append(Panel("radar", scene.sar))
    panels.append(Panel("truth", scene.labels.astype(np.int64)))
    known = scene.labels < len(suite.class_names)
    for method in methods:
        made = segmenter(method, seed)
        radar = (scene.sar, scene.sar_valid) if getattr(made, "uses_sar", False) else ()
        labels = made(scene.optical, suite.prompts, *radar).labels
        right = 100 * float((labels == scene.labels)[known].mean())
        panels.append(Panel(f"{METHOD_TITLES[method]}\n{right:.0f} % right", labels))
    return plot_panels(
        panels, suite.class_names, gsd=suite.gsd, columns=5, cell=2.3, title=f"{key}: {title}, {scene.name}"
    )


def cloudiest(key: str, scenes: int = 20) -> int:
    """Index of the cloudiest of the first test scenes with three classes or more: chosen without any result.

    Args:
        key: of a setting.
        scenes: how many to choose from.
    """
    shown = shown_scenes(SETTINGS[key][1], Condition(), scenes)
    varied = [
        (np.bincount(scene.labels.ravel(), minlength=256)[:255] > 0.03 * scene.labels.size).sum() for scene in shown
    ]
    return int(np.argmax([scene.opacity.mean() + (count >= 3) for scene, count in zip(shown, varied, strict=True)]))
