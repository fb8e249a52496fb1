"""Interactive panels for JupyterLab and Voila, on ipywidgets."""

from __future__ import annotations

from rsovlib.widgets.viewer import MapViewer
from rsovlib.widgets.weather import CloudsAndRadar
from rsovlib.widgets.words import SegmentByWords

__all__ = ["CloudsAndRadar", "MapViewer", "SegmentByWords"]
