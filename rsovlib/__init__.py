"""Open-vocabulary segmentation of remote-sensing imagery: type class names, get a map.

``import rsovlib`` is light on purpose: the command line, the tests and a first notebook cell start at once.
PyTorch and the models are loaded when a name that needs them is first used.

    >>> import rsovlib
    >>> result = rsovlib.segment("scene.tif", ["water, river", "forest, trees", "buildings"])  # doctest: +SKIP
    >>> result.to_geotiff("classes.tif")  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rsovlib.segmenters.api import segment
    from rsovlib.segmenters.base import Segmentation

__version__ = "0.1.0"

__all__ = ["Segmentation", "__version__", "segment"]

# Public name -> the module that defines it.
_OBJECTS = {"segment": "rsovlib.segmenters.api", "Segmentation": "rsovlib.segmenters.base"}

_SUBMODULES = frozenset(
    {
        "backbones",
        "commands",
        "data",
        "errors",
        "experiments",
        "files",
        "fusion",
        "kernels",
        "metrics",
        "plots",
        "resources",
        "segmenters",
        "widgets",
    }
)


def __getattr__(name: str) -> Any:
    """Load a public name or a submodule on first use (PEP 562)."""
    if name in _OBJECTS:
        value = getattr(importlib.import_module(_OBJECTS[name]), name)
    elif name in _SUBMODULES:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # the next look-up doesn't come here
    return value


def __dir__() -> list[str]:
    """What Tab shows: the public names, loaded or not."""
    return sorted({*globals(), *__all__, *_SUBMODULES})
