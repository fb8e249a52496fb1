"""What MM-OVSeg's release does against what the paper says, each with evidence that is computed here.

Networks are built at full size on torch's ``meta`` device, so that parameters are counted without memory for them;
defects of the data pipeline are shown by running both readings on the same input.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from rsovlib.data.manifest import load_manifest
from rsovlib.data.scenes import make_scene
from rsovlib.errors import unknown_name
from rsovlib.experiments.findings import Finding
from rsovlib.experiments.papers import load_paper, paper_table
from rsovlib.experiments.sdci.flops import meta_clip, meta_dino
from rsovlib.fusion.augment import Geometry, released_sar
from rsovlib.fusion.config import FusionConfig
from rsovlib.fusion.losses import class_bce
from rsovlib.fusion.network import CostAggregationNetwork
from rsovlib.fusion.pairs import sar_picture
from rsovlib.plots.panels import Panel

_SIDE = 384
"""Pixels of the release's input."""
_METHODS = {"CAT-Seg": "cat-seg", "GSNet": "gsnet", "MM-OVSeg": "mm-ovseg"}


# ---- networks ------------------------------------------------------------------------------------------------------


@cache
def full_size(method: str, size: str = "ViT-B", *, position_tables: bool = False) -> CostAggregationNetwork:
    """A network of the published size without content.

    Args:
        method: ``"cat-seg"``, ``"gsnet"`` or ``"mm-ovseg"``.
        size: ``"ViT-B"`` (CLIP B/16, DINO B/8) or ``"ViT-L"`` (CLIP L/14 at 336 pixels, DINOv3 L/16).
        position_tables: whether CLIP's are trained.

    Raises:
        InputError: unknown method or size.
    """
    if size not in ("ViT-B", "ViT-L"):
        raise unknown_name("size", size, ("ViT-B", "ViT-L"))
    base = FusionConfig.vit_b() if size == "ViT-B" else FusionConfig.vit_l()
    config = FusionConfig.for_method(method, base)
    config = replace(config, readings=replace(config.readings, trains_position=position_tables))
    clip = meta_clip("B/16" if size == "ViT-B" else "L/14 at 336")
    dino = meta_dino("DINO B/8" if size == "ViT-B" else "DINOv3 L/16")
    with torch.device("meta"):
        return CostAggregationNetwork(
            config, clip, dino if config.optical_dino else None, deepcopy(dino) if config.sar_dino else None
        )


def sizes(network: CostAggregationNetwork) -> tuple[int, int]:
    """Numbers of all parameters and of those that are trained."""
    every = sum(parameter.numel() for parameter in network.parameters())
    return every, sum(parameter.numel() for _, parameter in network.trained_parameters())


def _size_of(*modules: nn.Module | None) -> int:
    return sum(parameter.numel() for module in modules if module is not None for parameter in module.parameters())


def parameters() -> Finding:
    """How large the networks are, and how much of them is trained."""
    trained, costs = paper_table("mm-ovseg", "tableA1"), paper_table("mm-ovseg", "tableA2")
    facts = load_paper("mm-ovseg").facts["parameters_of_the_release"]
    release = {
        "GSNet": (facts["gsnet_b_total"], facts["gsnet_b_trainable"]),
        "MM-OVSeg": (facts["mm_ovseg_b_total"], facts["mm_ovseg_b_trainable"]),
    }
    rows = []
    for row, method in _METHODS.items():
        total, taught = sizes(full_size(method))
        rows.append(
            {
                "method": row,
                "all, counted here": total,
                "all, release": release.get(row, (None, None))[0],
                "all, Table A2 (million)": costs.value(row, "parameters") if row in costs.rows else None,
                "trained, counted here": taught,
                "trained, release": release.get(row, (None, None))[1],
                "trained, Table A1 (million)": trained.value(row, "parameters"),
            }
        )
    exact = all(
        (row["all, counted here"], row["trained, counted here"]) == release[str(row["method"])] for row in rows[1:]
    )
    taught = sizes(full_size("mm-ovseg", "ViT-L"))[1]
    return Finding(
        "parameters",
        "MM-OVSeg has 331 million parameters, 31 million of which are trained.",
        "holds" if exact else "does not hold",
        "This package's networks agree with the released modules to the parameter, for MM-OVSeg and GSNet. The "
        f"ViT-L form trains {taught:,} ({facts['mm_ovseg_l_trainable']:,} in the release).",
        tuple(rows),
        "Tables A1 and A2",
    )


def position_tables() -> Finding:
    """Whether CLIP's position tables are trained."""
    printed = paper_table("mm-ovseg", "tableA1")
    release = load_paper("mm-ovseg").facts["parameters_of_the_release"]["mm_ovseg_b_trainable"]
    rows = []
    for name, trains in (("not trained", False), ("trained", True)):
        taught = sizes(full_size("mm-ovseg", position_tables=trains))[1]
        rows.append(
            {
                "CLIP's position tables": name,
                "trained, counted here": taught,
                "in millions": round(taught / 1e6, 2),
                "difference to the release": taught - release,
            }
        )
    return Finding(
        "position-tables",
        "The rule in the released program that unfreezes CLIP's position tables does so.",
        "does not hold",
        f"The release trains {release:,} parameters, which is the count without the tables; with them it would be "
        f"{rows[1]['difference to the release']:,} more. The rule looks inside of parameters called 'transformer', "
        f"where the tables are not. The printed {printed.value('MM-OVSeg', 'parameters'):g} million fits either.",
        tuple(rows),
        "Released program; Table A1",
    )


def parts() -> Finding:
    """The sizes of the modules in Table A2."""
    costs, network = paper_table("mm-ovseg", "tableA2"), full_size("mm-ovseg")
    dino = _size_of(network.optical_model)
    projections = _size_of(network.optical_levels, network.sar_levels, network.clip_middle, network.clip_fine)
    total = sizes(network)[0]
    counted = {"CMU module": dino, "DEF module": dino + projections, "MM-OVSeg": total}
    rows = [
        {
            "row": row,
            "printed (million)": costs.value(row, "parameters"),
            "counted (million)": round(number / 1e6, 2),
            "what was counted": what,
        }
        for (row, number), what in zip(
            counted.items(), ("one DINO ViT-B/8", "one DINO and all projections", "the whole network"), strict=True
        )
    ]
    printed = costs.value("MM-OVSeg", "parameters")
    return Finding(
        "parts",
        "Table A2 gives the sizes of the modules CMU and DEF and of the whole.",
        "holds",
        f"All three are explained. The whole is {total / 1e6:.2f} million, printed as {printed:g}: cut off, not "
        "rounded. The two modules don't add up to anything, since each counts a DINO and CLIP stands in neither.",
        tuple(rows),
        "Table A2",
    )


def patches() -> Finding:
    """The patch size of the large DINO."""
    real, rows = meta_dino("DINOv3 L/16").patch_size, []
    for name, patch in (("as the paper writes, ViT-L/14", 14), ("as released, ViT-L/16", real)):
        cells = _SIDE / patch
        rows.append(
            {
                "DINOv3": name,
                "patch (pixels)": patch,
                f"cells of {_SIDE} pixels": round(cells, 3),
                "fits CLIP's 24 x 24": cells == 24,
            }
        )
    return Finding(
        "patch-size",
        "The large network's DINOv3 is a ViT-L/14.",
        "does not hold",
        f"DINOv3 has patches of {real} pixels, and only those divide {_SIDE} pixels into the "
        "24 x 24 cells that the released program uses.",
        tuple(rows),
        "Supplement; released program",
    )


# ---- the program ---------------------------------------------------------------------------------------------------


def displacement(side: int, *, flip: bool = False) -> npt.NDArray[np.float64]:
    """How far apart the places are that optical and SAR show at one input pixel, in the release.

    Both are fed a picture of its own coordinates, through the release's own steps, in units of a pixel of the input.

    Args:
        side: of the square image files, in pixels.
        flip: whether this sample's optical image was mirrored.

    Returns:
        (384, 384) in pixels of the network's input; NaN where SAR is padding.
    """
    size, ground = (_SIDE, _SIDE), []
    for axis in np.indices((side, side)).astype(np.float64):
        mirrored = np.ascontiguousarray(axis[:, ::-1]) if flip else axis
        optical = F.interpolate(torch.from_numpy(mirrored)[None, None], size, mode="bilinear", align_corners=False)
        sar = np.full(size, np.nan)
        corner = axis[:_SIDE, :_SIDE]
        sar[: corner.shape[0], : corner.shape[1]] = corner
        ground.append((optical[0, 0].numpy() - sar) * _SIDE / side)
    return np.hypot(*ground)


def alignment() -> Finding:
    """Whether both sensors show one place."""
    rows = []
    for side, sets in ((256, "PIE, DDHR"), (_SIDE, "files of the input's size"), (1024, "OEM")):
        for flip in (False, True):
            away = displacement(side, flip=flip)
            there = np.isfinite(away)
            rows.append(
                {
                    "files": f"{side} x {side} ({sets}){', mirrored' if flip else ''}",
                    "padding (% of SAR)": round(100 * (1 - there.mean()), 1),
                    "median distance (pixels)": round(float(np.median(away[there])), 1),
                    "largest (pixels)": round(float(away[there].max()), 1),
                    "within one patch of 8 (%)": round(100 * float((away[there] <= 8).sum() / away.size), 1),
                }
            )
    return Finding(
        "sar-alignment",
        "Optical and SAR images show the network the same place.",
        "does not hold",
        "Optical images are resized and in half of the samples mirrored, SAR is neither. With files of 256 pixels "
        f"{rows[0]['within one patch of 8 (%)']} % of the input's pixels show both sensors the same place to within "
        f"one patch, with 1024 pixels {rows[4]['within one patch of 8 (%)']} %. If the files were redistributed at "
        "384 pixels, only the mirroring is wrong; the files weren't at hand.",
        tuple(rows),
        "Released program, data loading",
    )


def gradient_of_unlabelled(ignored_as_negative: bool) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
    """What the loss asks of a tiny map: three labelled columns and one without a label (an unseen class).

    Returns:
        The gradient of the loss with respect to the logits, (2 classes, 4, 4), at logits of 0; and the labels (4, 4).
    """
    labels = np.array([[0, 0, 1, 255]] * 4, np.uint8)
    logits = torch.zeros(1, 2, 4, 4, requires_grad=True)
    class_bce(logits, torch.from_numpy(labels)[None], ignored_as_negative=ignored_as_negative).backward()
    if logits.grad is None:  # backward has just made it
        return np.zeros((2, 4, 4)), labels
    return logits.grad[0].double().numpy(), labels


def negatives() -> Finding:
    """What the loss does where there is no label."""
    rows = []
    for name, negative in (("released: zeros as target", True), ("left out", False)):
        gradient, labels = gradient_of_unlabelled(negative)
        rows.append(
            {
                "unlabelled pixels": name,
                "gradient at a right class": round(float(gradient[0][labels == 0].mean()), 5),
                "at a wrong class": round(float(gradient[1][labels == 0].mean()), 5),
                "at an unlabelled pixel": round(float(gradient[:, labels == 255].mean()), 5),
            }
        )
    return Finding(
        "unseen-as-negatives",
        "Unseen classes take no part in training.",
        "does not hold",
        "Their pixels carry the label 255 and get zeros as target for every seen class. On a tiny map the loss "
        f"pushes every logit there down as hard as at a wrong class (gradient {rows[0]['at an unlabelled pixel']} "
        f"against {rows[0]['at a wrong class']}); with such pixels left out it is "
        f"{rows[1]['at an unlabelled pixel']:g}. CAT-Seg and GSNet do the same, so that the three are treated alike "
        "in this.",
        tuple(rows),
        "Released program, loss",
    )


def names() -> Finding:
    """What CLIP reads in the class names."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer, rows = SimpleTokenizer(), []

    def pieces(text: str) -> str:
        return " + ".join(tokenizer.decode([token]).strip() for token in tokenizer.encode(text))

    meant = {"backbroad": "background", "developedspace": "developed space", "agricultureland": "agricultural land"}
    for names in load_paper("mm-ovseg").facts["class_names"].values():
        for asked in names:
            if asked in meant:
                rows.append(
                    {
                        "asked for": asked,
                        "CLIP reads": pieces(asked),
                        "meant": meant[asked],
                        "CLIP would read": pieces(meant[asked]),
                    }
                )
    return Finding(
        "class-names",
        "The classes are asked for by their names.",
        "does not hold",
        f"{len(rows)} names are misspelt or run together, and CLIP's tokenizer takes them apart into other pieces. "
        "They are trained with like this; whoever asks for the right word at test time asks for another one.",
        tuple(rows),
        "Released program, class lists",
    )


def orders() -> Finding:
    """In which order two datasets number their classes."""
    lists = {name: [one.name for one in load_manifest(name).classes] for name in ("ddhr-sk", "ddhr-ch")}
    korea, china = lists["ddhr-sk"], lists["ddhr-ch"]
    rows = [
        {"label": index, "ddhr-sk": here, "ddhr-ch": there, "same": here == there}
        for index, (here, there) in enumerate(zip(korea, china, strict=True))
    ]
    right = sum(bool(row["same"]) for row in rows)
    return Finding(
        "class-order",
        "The two DDHR sets of the cross-domain setting number their classes alike.",
        "does not hold",
        f"{right} of {len(rows)} classes have the same number in both. A perfect map scored in the other set's order "
        f"would have an mIoU of {100 * right / len(rows):.0f} %. The release keeps two lists, and so must whoever "
        "reproduces s6.",
        tuple(rows),
        "Released class lists",
    )


def _as_bytes(picture: torch.Tensor) -> npt.NDArray[np.uint8]:
    made: npt.NDArray[np.uint8] = (picture * 255).round().to(torch.uint8).movedim(0, -1).numpy()
    return made


def alignment_panels(seed: int, side: int = 256, *, flip: bool = False) -> list[Panel]:
    """A simulated pair as the release feeds it, and as it should be fed.

    Args:
        seed: of the scene.
        side: of the files in pixels.
        flip: whether the optical image is mirrored, as half of the training samples are.

    Returns:
        The optical input, the SAR input of the release, the aligned SAR, and how far apart the release's two are.
    """
    scene = make_scene(side, seed, modalities=("sar",))
    if scene.sar is None:  # it was asked for
        return []
    sar, aligned = sar_picture(scene.sar[:1]), Geometry(0, 0, side, _SIDE, flip)
    return [
        Panel(f"optical input{', mirrored' if flip else ''}", _as_bytes(aligned.picture(scene.optical))),
        Panel("SAR input of the release", _as_bytes(released_sar(sar, _SIDE))),
        Panel("SAR through the same steps", _as_bytes(aligned.picture(sar))),
        Panel("distance of what the release\nshows at one pixel", displacement(side, flip=flip), unit="pixels"),
    ]
