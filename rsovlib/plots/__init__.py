"""Pictures: class colours, overlays with a legend, and the stages of a method side by side.

Nothing here uses pyplot: a :class:`Picture` is a matplotlib figure that belongs to nobody but its caller, so batch
jobs leak no figures and need no display, and JupyterLab shows it when it's the last value of a cell.

The names below are loaded when first used: colours need no matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rsovlib.plots.colours import LAND_COVER, OKABE_ITO, class_colours
    from rsovlib.plots.curves import Chart, plot_charts
    from rsovlib.plots.painting import class_shares, overlay
    from rsovlib.plots.panels import Panel, mean_colours, outlined, plot_panels
    from rsovlib.plots.picture import Picture
    from rsovlib.plots.scenes import Layered, plot_clouds, plot_scene_layers
    from rsovlib.plots.segmentations import Segmented, plot_segmentation, save_overlay
    from rsovlib.plots.stages import plot_stages
    from rsovlib.plots.tables import page_table

_HOME = {
    "colours": ("LAND_COVER", "OKABE_ITO", "class_colours"),
    "curves": ("Chart", "plot_charts"),
    "painting": ("class_shares", "overlay"),
    "panels": ("Panel", "mean_colours", "outlined", "plot_panels"),
    "picture": ("Picture",),
    "scenes": ("Layered", "plot_clouds", "plot_scene_layers"),
    "segmentations": ("Segmented", "plot_segmentation", "save_overlay"),
    "stages": ("plot_stages",),
    "tables": ("page_table",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "LAND_COVER",
    "OKABE_ITO",
    "Chart",
    "Layered",
    "Panel",
    "Picture",
    "Segmented",
    "class_colours",
    "class_shares",
    "mean_colours",
    "outlined",
    "overlay",
    "page_table",
    "plot_charts",
    "plot_clouds",
    "plot_panels",
    "plot_scene_layers",
    "plot_segmentation",
    "plot_stages",
    "save_overlay",
]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
