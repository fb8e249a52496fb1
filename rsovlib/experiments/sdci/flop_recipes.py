"""How each method is counted: in its authors' setting, and in the one that explains SDCI's Table 1 best.

What the authors' programs compute beyond this package's was established by reading them and by comparing totals; each
such part says why it is there. Windows are given as side/stride in pixels.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from rsovlib.backbones.simfeatup import SimFeatUp
from rsovlib.experiments.sdci.flops import Part, Setting, counted, meta_clip, meta_dino
from rsovlib.segmenters.clearclip import ClearCLIP
from rsovlib.segmenters.cliper import CLIPer, CLIPerConfig
from rsovlib.segmenters.dense import DenseClip, DenseConfig, Window
from rsovlib.segmenters.maskclip import MaskCLIP, MaskCLIPConfig
from rsovlib.segmenters.naclip import NACLIP, NACLIPConfig
from rsovlib.segmenters.proxyclip import ProxyCLIP
from rsovlib.segmenters.queries import Queries
from rsovlib.segmenters.resclip import ResCLIP, ResCLIPConfig
from rsovlib.segmenters.sclip import SCLIP, SCLIPConfig
from rsovlib.segmenters.sdci import SDCI, SDCIConfig
from rsovlib.segmenters.segearth import SegEarthConfig, SegEarthOV
from rsovlib.segmenters.sliding import input_sides, slide


@dataclass
class Recipe:
    """A setting and its parts; see :class:`rsovlib.experiments.sdci.flops.FlopCount`."""

    configuration: str
    parts: list[Part] = field(default_factory=list)
    missing: str = ""


def maskclip(setting: Setting, size: int, classes: int) -> Recipe:
    """The value path."""
    if setting == "native":
        return Recipe("CLIP B/16, short side 448, one window", [_traced(MaskCLIP(meta_clip("B/16")), size, classes)])
    method = MaskCLIP(meta_clip("L/14"), MaskCLIPConfig(size=None))
    identity = Part("the identity as a matrix product", _windows(method, size) * _products(448, 1), "ClearCLIP's code")
    parts = [_traced(method, size, classes), _discarded_block(method, size), identity]
    return Recipe("CLIP L/14, windows 448/224 over the image itself (ClearCLIP's program)", parts)


def clearclip(setting: Setting, size: int, classes: int) -> Recipe:
    """Queries with queries."""
    if setting == "native":
        return Recipe("CLIP B/16, short side 448, one window", [_traced(ClearCLIP(meta_clip("B/16")), size, classes)])
    method = ClearCLIP(meta_clip("L/14"), DenseConfig(size=None))
    parts = [_traced(method, size, classes), _discarded_block(method, size)]
    return Recipe("CLIP L/14, windows 448/224 over the image itself, last block twice", parts)


def sclip(setting: Setting, size: int, classes: int) -> Recipe:
    """Queries with queries and keys with keys, residual and feed-forward kept."""
    if setting == "native":
        return Recipe("CLIP B/16, short side 336, windows 224/112", [_traced(SCLIP(meta_clip("B/16")), size, classes)])
    method = SCLIP(meta_clip("L/14"), SCLIPConfig(size=None, window=448, stride=224))
    return Recipe("CLIP L/14, windows 448/224 over the image itself", [_traced(method, size, classes)])


def naclip(setting: Setting, size: int, classes: int) -> Recipe:
    """Keys with keys and a neighbourhood."""
    if setting == "native":
        return Recipe("CLIP B/16, short side 336, windows 224/112", [_traced(NACLIP(meta_clip("B/16")), size, classes)])
    method = NACLIP(meta_clip("B/16"), NACLIPConfig(size=None, window=None))
    side = size // 16
    prior = Part(
        "the neighbourhood as a convolution",
        counted(
            lambda: torch.nn.functional.conv2d(
                _empty(side**2, 1, side, side), _empty(1, 1, 2 * side - 1, 2 * side - 1), padding=side - 1
            )
        ),
        "the authors' program; this package multiplies two one-dimensional Gaussians",
    )
    pamr = Part(
        "PAMR as convolutions",
        2 * 10 * 16 * 9 * classes * size**2 / 1e9,
        "the authors' program: 3 x 3 kernels with one entry; elementwise here",
    )
    return Recipe("CLIP B/16, the whole image at once", [_traced(method, size, classes), prior, pamr])


def resclip(setting: Setting, size: int, classes: int) -> Recipe:
    """Attention of the middle blocks mixed in, and a second pass."""
    if setting == "native":
        return Recipe(
            "CLIP B/16, short side 336, windows 224/112", [_traced(ResCLIP(meta_clip("B/16")), size, classes)]
        )
    method = ResCLIP(meta_clip("L/14"), ResCLIPConfig(size=None, window=None))
    return Recipe("CLIP L/14, the whole image at once", [_traced(method, size, classes)])


def cliper(setting: Setting, size: int, classes: int) -> Recipe:
    """All blocks' attention fused into one map."""
    clip, dino = meta_clip("L/14"), meta_dino("DINO B/8")
    image = np.zeros((size, size, 3), np.uint8)
    if setting == "native":
        method = CLIPer(clip, dino, CLIPerConfig())
        side = method._grid(size, size)[0]
        parts = [
            Part("CLIP with every layer's feature through the last block", counted(lambda: method._features(image))),
            Part(
                "DINO's affinity, the stand-in for Stable Diffusion",
                counted(lambda: method._affinity(image, (side, side))),
            ),
        ]
        return Recipe("CLIP L/14 at 336; DINO B/8 in place of Stable Diffusion", parts)
    method = CLIPer(clip, dino, CLIPerConfig(size=512))
    side = method._grid(size, size)[0]
    chain = Part("chain of ten attention maps of 64 x 64", 10 * 2 * 4096**3 / 1e9, "the authors' refinement")
    parts = [
        Part("CLIP with every layer's feature through the last block", counted(lambda: method._features(image))),
        _idle_projections(side**2 + 1),
        chain,
    ]
    return Recipe("CLIP L/14 at 518", parts, "Stable Diffusion 2.1's encoder and one pass of its U-Net")


def proxyclip(setting: Setting, size: int, classes: int) -> Recipe:
    """DINO's similarities; not in Table 1."""
    method = ProxyCLIP(meta_clip("B/16"), meta_dino("DINO B/8"))
    return Recipe("CLIP B/16 and DINO B/8, short side 336, one window", [_traced(method, size, classes)])


def corrclip(setting: Setting, size: int, classes: int) -> Recipe:
    """DINO's correlations inside of regions, three streams."""
    native = setting == "native"
    name, side, count = ("B/16", 336, 1) if native else ("L/14", 448, len(list(slide(size, size, 448, 224, 56))))
    clip, dino = meta_clip(name), meta_dino("DINO B/8")
    grid, fine = side // clip.patch_size, side // dino.patch_size
    tokens = grid**2 + 1
    width = clip.width
    gather = 2 * (2 * tokens * width**2 + 2 * fine**4 * width + 2 * fine**2 * width * (width + clip.embed_dim))
    parts = [
        Part("CLIP", count * _clip_pass(name, side)),
        Part("DINO", count * _dino_pass("DINO B/8", side)),
        Part("DINO's correlations", count * counted(lambda: _similarity(fine**2, 768))),
        Part("values of two streams gathered on DINO's grid", count * gather / 1e9),
    ]
    if native:
        return Recipe("CLIP B/16 and DINO B/8, short side 336, one window", parts, "the masks (SAM 2) and their tokens")
    what = "CLIP L/14 and DINO B/8, windows 448/224 over the image itself"
    return Recipe(what, parts, "the masks (SAM 2) and their tokens")


def cass(setting: Setting, size: int, classes: int) -> Recipe:
    """DINO's graph in CLIP's heads."""
    native = setting == "native"
    whole = input_sides(size, size, 336, "short")[0] if native else size
    count = len(list(slide(whole, whole, 224, 112, 16)))
    parts = [
        Part("CLIP, windows", count * _clip_pass("B/16", 224)),
        Part("DINO, windows", count * _dino_pass("DINO B/8", 224)),
    ]
    if native:
        parts.append(Part("CLIP, the whole image once", _clip_pass("B/16", whole)))
        return Recipe("CLIP B/16 and DINO B/8, short side 336, windows 224/112", parts, "spectra and low-rank graphs")
    why = "the authors' program repeats it for every window; once would do"
    parts += [
        Part("CLIP, the whole image for every window", count * _clip_pass("B/16", whole), why),
        Part("DINO, the whole image for every window", count * _dino_pass("DINO B/8", whole), f"unused; {why}"),
    ]
    return Recipe("CLIP B/16 and DINO B/8, windows 224/112 over the image itself, nothing kept", parts)


def segearth(setting: Setting, size: int, classes: int) -> Recipe:
    """Self-similarities and a learned upsampler."""
    method = SegEarthOV(meta_clip("B/16"), SegEarthConfig() if setting == "native" else SegEarthConfig(size=None))
    with torch.device("meta"):
        method.upsampler = SimFeatUp(512).eval().requires_grad_(False)
    where = "box of 448" if setting == "native" else "the image itself"
    parts = [_traced(method, size, classes, "CLIP, upsampler and cosines at full size")]
    if setting == "table1":
        pixels = sum((size_of * size_of) for size_of in (28, 56, 112, 224))
        kernel = _windows(method, size) * 2 * 32 * 121 * pixels / 1e9
        parts += [
            _discarded_block(method, size),
            Part("the upsampler's range kernel as a product", kernel, "elementwise here, the same numbers"),
        ]
    return Recipe(f"CLIP B/16, {where}, windows 224/112", parts, "the weighted sums of the upsampler, elementwise")


def sdci_v1(setting: Setting, size: int, classes: int) -> Recipe:
    """SDCI with DINO."""
    return _sdci(setting, size, classes, "DINO B/8")


def sdci_v2(setting: Setting, size: int, classes: int) -> Recipe:
    """SDCI with DINOv2."""
    return _sdci(setting, size, classes, "DINOv2 B/14")


def _sdci(setting: Setting, size: int, classes: int, name: str) -> Recipe:
    clip, dino = meta_clip("L/14"), meta_dino(name)
    method = SDCI(clip, dino, SDCIConfig.official())
    grid = method._clip_grid(size, size)
    sides = method._dino_sides(size, size, grid)
    here, there = grid[0] * grid[1], sides[0] * sides[1] // dino.patch_size**2
    pixels = _empty(1, 3, grid[0] * clip.patch_size, grid[1] * clip.patch_size)
    layers = len(clip.blocks), 12
    scores = 2 * (layers[0] * here + layers[1] * there) * 768 * (classes + 2) / 1e9
    parts = [
        Part("CLIP with every layer's feature through the last block", counted(lambda: method._clip_features(pixels))),
        Part("DINO", _dino_pass(name, sides[0])),
        Part("cosines of all layers with the words", scores),
        Part(
            "similarities of both graphs",
            counted(lambda: _similarity(here, 768)) + counted(lambda: _similarity(there, 768)),
        ),
    ]
    what = f"CLIP L/14 at {pixels.shape[-1]}, {name} at {sides[0]}"
    if setting == "native":
        sparse = 40 * 2 * method.config.neighbours * (here + there) * classes / 1e9
        parts.append(Part("diffusion on sparse graphs", sparse, "compiled, outside of torch; by its formula"))
        return Recipe(what, parts)
    dense = 40 * 2 * (here**2 + there**2) * classes / 1e9
    parts += [
        Part("diffusion on dense graphs", dense, "the released program multiplies whole matrices"),
        _idle_projections(here + 1),
    ]
    if name == "DINOv2 B/14":
        tokens = there + dino.prefix_tokens
        again = (2 * tokens * 768 * 3 * 768 + 2 * tokens**2 * 768) / 1e9
        fused = -12 * 4 * tokens**2 * 768 / 1e9
        parts += [
            Part("the last block's attention once more", again, "its fused kernel gives no map, so it is made again"),
            Part(
                "attention products of its twelve blocks", fused, "a fused kernel (xFormers) that the counter can't see"
            ),
        ]
    return Recipe(what, parts)


RECIPES: dict[str, Callable[[Setting, int, int], Recipe]] = {
    "maskclip": maskclip,
    "clearclip": clearclip,
    "sclip": sclip,
    "corrclip": corrclip,
    "cliper": cliper,
    "naclip": naclip,
    "resclip": resclip,
    "cass": cass,
    "segearth-ov": segearth,
    "proxyclip": proxyclip,
    "sdci-v1": sdci_v1,
    "sdci-v2": sdci_v2,
}


# ---- pieces ------------------------------------------------------------------------------------------------------


def _empty(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def _traced(method: DenseClip[Any], size: int, classes: int, name: str = "CLIP and cosines") -> Part:
    """A method of this package from pixels to cosines; of windows of one size one is counted for all."""
    queries = Queries(_empty(classes, method.clip.embed_dim), torch.arange(classes), classes)
    sides = input_sides(size, size, method.config.size, method.config.size_rule)
    pixels, patch, total = _empty(1, 3, *sides), method.clip.patch_size, 0.0
    alike = {place.sides: place for place in method._places(*sides)}
    number = Counter(place.sides for place in method._places(*sides))
    for key, place in alike.items():
        window = Window(place.cut(pixels), place, (key[0] // patch, key[1] // patch), None)
        total += number[key] * counted(functools.partial(method.scores, window, queries))
    return Part(f"{name}{' and DINO' if hasattr(method, 'dino') else ''}", total)


def _windows(method: DenseClip[Any], size: int) -> int:
    return len(method._places(*input_sides(size, size, method.config.size, method.config.size_rule)))


def _products(side: int, number: int) -> float:
    """So many products of a token-by-token map with tokens of L/14's width, in GFLOP, for a window of this side."""
    tokens = (side // 14) ** 2 + 1
    return number * 2 * tokens**2 * 1024 / 1e9


def _discarded_block(method: DenseClip[Any], size: int) -> Part:
    """The ordinary last block of every window, which ClearCLIP's program runs and throws away."""
    clip = method.clip
    place = method._places(*input_sides(size, size, method.config.size, method.config.size_rule))[0]
    tokens = _empty(1, place.sides[0] * place.sides[1] // clip.patch_size**2 + 1, clip.width)

    def block() -> None:
        last = clip.blocks[-1]
        query, key, value = clip.query_key_value(last, last.ln_1(tokens))
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        clip.finish(last, tokens, clip.join_heads(last, mixed))

    why = "run and thrown away by ClearCLIP's program and those built on it"
    return Part("the ordinary last block", _windows(method, size) * counted(block), why)


def _idle_projections(tokens: int) -> Part:
    """CLIPer and SDCI: each of 24 passes through the last block makes q, k and v; only v is used."""
    flops = 24 * 2 * tokens * 1024 * 2 * 1024 / 1e9
    return Part("q and k of the last block, 24 times", flops, "made and not used by the authors' program")


def _clip_pass(name: str, side: int) -> float:
    clip = meta_clip(name)

    def whole() -> None:
        tokens = clip.embed(_empty(1, 3, side, side))
        for step in clip.walk(tokens):
            tokens = step.output
        clip.project(tokens)

    return counted(whole)


def _dino_pass(name: str, side: int) -> float:
    return counted(lambda: meta_dino(name).features(_empty(1, 3, side, side)))


def _similarity(tokens: int, width: int) -> torch.Tensor:
    unit = _empty(tokens, width)
    return unit @ unit.T
