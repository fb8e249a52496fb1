"""Interactive panels for JupyterLab, on ipywidgets."""

from __future__ import annotations

from rsovlib.widgets.viewer import MapViewer

__all__ = ["MapViewer"]
