"""The methods of SDCI's Table 1: their names in the paper, how each profile makes them, what stands in for what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from rsovlib.errors import InputError, unknown_name
from rsovlib.experiments.results import run_context
from rsovlib.segmenters import SDCI, Segmenter, make_segmenter

#: Method -> row of the table, in the paper's words where it has them.
ROWS = {
    "vanilla": "CLIP (vanilla)",
    "maskclip": "MaskCLIP",
    "clearclip": "ClearCLIP",
    "sclip": "SCLIP",
    "proxyclip": "ProxyCLIP",
    "corrclip": "CorrCLIP",
    "cliper": "CLIPer",
    "naclip": "NACLIP",
    "resclip": "ResCLIP",
    "cass": "CASS",
    "segearth-ov": "SegEarth-OV",
    "sdci-v1": "SDCI-v1",
    "sdci-v2": "SDCI-v2",
    "sdci-v3": "SDCI-v3",
}
#: The reference that all methods start from.
VANILLA = "vanilla"
#: SDCI's own versions; all others but the reference are the compared methods.
OWN = ("sdci-v1", "sdci-v2", "sdci-v3")
#: Those of SDCI's versions that the embedded models can't be: one small DINO can't differ in its generation.
NOT_EMBEDDED = {
    "sdci-v1": "not run in the embedded profile: it means DINO v1, and there is one small DINO, which stands for v2",
    "sdci-v3": "not run in the embedded profile: it means DINOv3, and there is one small DINO, which stands for v2",
}
#: A segmenter's label -> what isn't the authors' own part.
STAND_INS = {
    "corrclip-superpixel": "superpixels stand in for SAM 2's masks",
    "cliper-dino": "DINO's affinity stands in for Stable Diffusion's attention",
    "cliper-unrefined": "the refinement by Stable Diffusion is left out",
    "segearth-ov-bilinear": "bilinear enlargement stands in for SimFeatUp",
    "segearth-ov-guided": "a guided filter without learning stands in for SimFeatUp",
}
#: Dataset -> classes below it are taken for absent, in the released program of SDCI.
PRESENCE = {"gid": 0.5, "loveda": 0.5, "isaid": 0.5, "potsdam": 0.0, "vaihingen": 0.0}


@dataclass(frozen=True)
class TableMethod:
    """One row of the table, ready to run.

    Attributes:
        name: of the method.
        row: of the table.
        segmenter: with its models loaded.
        stand_in: what isn't the authors' own part; "" if nothing.
    """

    name: str
    row: str
    segmenter: Segmenter
    stand_in: str

    def for_dataset(self, dataset: str) -> Segmenter:
        """The segmenter with what its authors set for a dataset, where this package's defaults don't say it."""
        own = self.segmenter
        if isinstance(own, SDCI) and own.clip.name not in _small() and dataset in PRESENCE:
            return replace(own, config=replace(own.config, presence_threshold=PRESENCE[dataset]))
        return own


def chosen_methods(names: str = "") -> list[str]:
    """Methods from a text such as ``"vanilla, sclip"``, in the table's order; all for "".

    Raises:
        InputError: there is no such method in the table.
    """
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    for name in wanted:
        if name not in ROWS:
            raise unknown_name("method of the table", name, ROWS)
    return [name for name in ROWS if not wanted or name in wanted]


def not_run(profile: str) -> dict[str, str]:
    """Method -> why this profile can't run it."""
    return dict(NOT_EMBEDDED) if profile == "embedded" else {}


def table_method(name: str, *, profile: str, clip: str = "", dino: str = "", device: str = "auto") -> TableMethod:
    """One row's method with its models loaded.

    Args:
        name: key of :data:`ROWS`.
        profile: ``"embedded"`` or ``"full"``.
        clip: a CLIP for all methods; "" takes each method's own.
        dino: likewise; SDCI's versions in the full profile keep theirs, which is what tells them apart.
        device: where to compute.

    Raises:
        InputError: no such method, or one that this profile can't run.
        WeightsError: weights that aren't there.
    """
    if name not in ROWS:
        raise unknown_name("method of the table", name, ROWS)
    if name in not_run(profile):
        raise InputError(f"{name} is {not_run(profile)[name]}.")
    given = {key: value for key, value in (("clip", clip), ("dino", dino)) if value}
    own = name in OWN
    if own and profile == "full":
        given.pop("dino", None)
    method = "sdci" if own and profile == "embedded" else name
    segmenter = make_segmenter(method, profile=profile, device=device, **given)
    stand_in = STAND_INS.get(str(getattr(segmenter, "label", "")), "")
    if own and profile == "embedded":
        stand_in = "the embedded DINO stands in for DINOv2"
    return TableMethod(name, ROWS[name], segmenter, stand_in)


def row_parameters(segmenter: Segmenter) -> dict[str, Any]:
    """The notebook's parameters, and every setting of the method, for a result row."""
    return {**run_context().defaults.get("parameters", {}), "method": _plain(segmenter.settings())}


def settings_table(methods: list[TableMethod]) -> Any:
    """What tells the methods apart, a row a method: networks, input, windows, texts, temperature, stand-ins."""
    import pandas as pd

    rows = {}
    for method in methods:
        settings = method.segmenter.settings()
        size = settings.get("size", settings.get("clip_size"))
        side = settings.get("window")
        step = settings.get("stride") if "stride" in settings and method.name != "cliper" else None
        overlap = f"overlap {settings['overlap']}" if "overlap" in settings else f"stride {step}"
        rows[method.row] = {
            "CLIP": str(settings["clip"]).split(" / ")[0],
            "DINO": str(settings.get("dino", "")).split(" / ")[0],
            "input (pixels)": f"short side {size}" if size else "the image's own",
            "window (pixels)": f"{side}, {overlap}" if side else "whole image",
            "templates": settings["templates"] if isinstance(settings["templates"], str) else "own",
            "synonyms": _SYNONYMS[settings.get("merge", "mean_embedding")],
            "lambda": settings["logit_scale"],
            "stand-in": method.stand_in,
        }
    return pd.DataFrame(rows).T.rename_axis("method")


#: How several names of a class are used, in two words.
_SYNONYMS = {"max_prob": "the likeliest", "mean_embedding": "their mean", "joined": "one text"}


def _small() -> set[str]:
    from rsovlib.backbones.embedded import EMBEDDED

    return set(EMBEDDED)


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON knows them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
