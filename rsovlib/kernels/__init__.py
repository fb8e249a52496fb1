"""Numerical kernels: pure functions on tensors, which know nothing of images, models or files.

Four families, each with its paper's symbols: attention fusion (CAF), score diffusion on a nearest-neighbour graph
(BCDR), superpixels, and the convex fusion of two probability maps under a total-variation prior (CSCP).

The names below are loaded when first used, so that importing this package stays cheap: neither torch nor a
compiler starts until a kernel is called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rsovlib.kernels.attention import (
        FusedAttention,
        accumulate,
        fuse_values,
        normalise_round_,
        processed_map,
        resample_attention,
    )
    from rsovlib.kernels.convex import CscpResult, DualField, cscp_energy, edge_weights, solve_cscp
    from rsovlib.kernels.diffusion import (
        Neighbours,
        diffuse,
        diffuse_both,
        diffuse_limit,
        knn_transition,
        nearest_neighbours,
        transition_of,
    )
    from rsovlib.kernels.superpixels import (
        compute_superpixels,
        felzenszwalb_superpixels,
        opencv_superpixels,
        slic_superpixels,
    )
    from rsovlib.kernels.tiled import solve_cscp_tiled

_HOME = {
    "attention": (
        "FusedAttention",
        "accumulate",
        "fuse_values",
        "normalise_round_",
        "processed_map",
        "resample_attention",
    ),
    "convex": ("CscpResult", "DualField", "cscp_energy", "edge_weights", "solve_cscp"),
    "diffusion": (
        "Neighbours",
        "diffuse",
        "diffuse_both",
        "diffuse_limit",
        "knn_transition",
        "nearest_neighbours",
        "transition_of",
    ),
    "superpixels": ("compute_superpixels", "felzenszwalb_superpixels", "opencv_superpixels", "slic_superpixels"),
    "tiled": ("solve_cscp_tiled",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "CscpResult",
    "DualField",
    "FusedAttention",
    "Neighbours",
    "accumulate",
    "compute_superpixels",
    "cscp_energy",
    "diffuse",
    "diffuse_both",
    "diffuse_limit",
    "edge_weights",
    "felzenszwalb_superpixels",
    "fuse_values",
    "knn_transition",
    "nearest_neighbours",
    "normalise_round_",
    "opencv_superpixels",
    "processed_map",
    "resample_attention",
    "slic_superpixels",
    "solve_cscp",
    "solve_cscp_tiled",
    "transition_of",
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
