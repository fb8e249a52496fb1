"""Every choice that SDCI's paper and its released program leave or make differently, as one configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from rsovlib.errors import InputError, unknown_name

_CHOICES = {
    "dino_resize": ("tensor", "pil"),
    "position_embedding": ("bilinear", "bicubic", "bicubic_antialias", "bicubic_offset"),
    "layer_features": ("normed_inputs", "block_outputs"),
    "centre": ("column_mean", "global_mean"),
    "layer_maps": ("mean", "sum"),
    "value_path": ("out_proj", "values"),
    "clip_attention": ("processed", "raw_mean"),
    "class_token": ("kept", "dropped"),
    "dino_rows": ("as_they_are", "renormalised"),
    "scores": ("probabilities", "logits"),
    "graph_features": ("last", "mean"),
    "diffusion_graph": ("other", "own"),
    "to_probability": ("auto", "softmax", "sum"),
    "solver": ("optimum", "official"),
    "precision": ("float32", "float16", "bfloat16"),
    "synonyms": ("by_template", "by_word"),
}


@dataclass(frozen=True)
class SDCIConfig:
    """Every choice that SDCI leaves, each with its entry in the register of differences (D01-D34).

    Attributes:
        clip_size: short side of CLIP's input in pixels before rounding to patches; None keeps the image's scale (D01).
        position_embedding: dialect in which CLIP's position embedding is resized (D02).
        precision: of the two networks; ``"float16"`` needs a GPU. ``"bfloat16"`` changes labels, see
            ``benchmarks/bench_batches.py`` (D03).
        dino_size: short side of DINO's input; None takes the released program's for the patch size (D04).
        dino_scale: instead of ``dino_size``: DINO's grid is this many times as fine as CLIP's.
        dino_like_clip: a DINO with CLIP's patch size gets CLIP's grid, as the paper says of v2; ``dino_size`` and
            ``dino_scale`` come first (D04).
        dino_resize: torch's bicubic resize of the normalised image without antialias, or Pillow's of the 8-bit image,
            as CLIP gets it (D06).
        layer_maps: CLIP's maps are averaged over the layers or added up; only an unprocessed map shows it (D07).
        sinkhorn_rounds: normalisations of the fused attention before it is used, ``"cumulative"`` for one more at every
            layer's feature (D08).
        centre: what is subtracted from the symmetric map: a mean a key, or one of the whole map (D09).
        value_path: what the fused map's values go through on their way to the text space: the last block's output
            projection first, or the final normalisation and projection alone (D10).
        layer_features: what stands for a CLIP layer: its block's normed input, or its output (D11).
        clip_attention: CLIP's attention in CAF: the processed map, or the plain average (D12).
        class_token: whether CLIP's class token takes part in the maps until they are used, or is taken out of them
            beforehand (D13).
        dino_rows: whether DINO's attention, without its prefix tokens, is scaled to rows that sum to 1 again (D14).
        align_renorm: keep row sums when attention is carried to the other grid (D15).
        scores: probabilities, or the logits themselves, which are lambda times the cosine (D16).
        logit_scale: lambda before the softmax over texts (D16).
        background: extra text that competes in the softmax but is never predicted; None for none (D17).
        mean_text: whether the mean of the class texts competes as well (D17).
        score_threshold: last-layer scores below this share of their class's maximum become 0 (D18).
        lambda_1: weight of the other branch's attention in CAF, equations 8 and 9 (D24).
        caf: whether the other branch's attention is used at all; False is the ablation's baseline.
        graph_features: features that the graph is built from (D20).
        neighbours, tau: K and tau of the graph, equations 11 and 12 (D21).
        bcdr: whether scores are diffused.
        diffusion_graph: on the other branch's graph (the method) or on one's own (D23).
        alpha, steps: alpha and T of the diffusion, equations 13 to 15.
        rescale: rescale diffused maps to their class's maximum before diffusion (D25b).
        presence_threshold: classes whose maximum before diffusion isn't above it are set to 0; the released settings
            are 0.5 for GID, LoveDA and iSAID, and 0 for Potsdam and Vaihingen (D25c).
        min_max: stretch every class map to [0, 1] (D25d).
        to_probability: how maps become probabilities (D26): ``"softmax"`` over the classes; ``"sum"``, negative values
            set to 0 and divided by the sum; ``"auto"``, the softmax when a value is negative or the mean class sum
            exceeds ``softmax_above``, else as they are.
        softmax_above: see there.
        floor: smallest probability (D26).
        cscp: whether the branches are fused convexly; without it the CLIP branch decides.
        superpixel_scale, superpixel_sigma, superpixel_min_size: of Felzenszwalb's superpixels (D27).
        w_in, w_cross: edge weights inside and across superpixels, equation 16.
        lambda_clip, lambda_dino, beta: weights of equation 17.
        solver: the certified optimum, or the released 100 inexact iterations (D29).
        tolerance: relative duality gap at which the solver stops.
        templates: of the class texts (D31).
        synonyms: a class's words are averaged in every template, and then the templates; or the templates of every
            word, and then the words; each mean is brought to unit norm (D32).
        window, overlap: side and overlap in pixels of the sliding window for larger images; None for the whole image.
    """

    clip_size: int | None = 512
    position_embedding: str = "bilinear"
    precision: str = "float32"
    dino_size: int | None = None
    dino_scale: float | None = None
    dino_like_clip: bool = False
    dino_resize: str = "tensor"
    layer_maps: str = "mean"
    sinkhorn_rounds: str | int = "cumulative"
    centre: str = "column_mean"
    value_path: str = "out_proj"
    layer_features: str = "normed_inputs"
    clip_attention: str = "processed"
    class_token: str = "kept"
    dino_rows: str = "as_they_are"
    align_renorm: bool = False
    scores: str = "probabilities"
    logit_scale: float = 50.0
    background: str | None = "other"
    mean_text: bool = True
    score_threshold: float = 0.2
    lambda_1: float = 1.0
    caf: bool = True
    graph_features: str = "last"
    neighbours: int = 30
    tau: float = 0.07
    bcdr: bool = True
    diffusion_graph: str = "other"
    alpha: float = 0.9
    steps: int = 40
    rescale: bool = True
    presence_threshold: float = 0.0
    min_max: bool = True
    to_probability: str = "auto"
    softmax_above: float = 1.5
    floor: float = 1e-6
    cscp: bool = True
    superpixel_scale: float = 40.0
    superpixel_sigma: float = 0.8
    superpixel_min_size: int = 20
    w_in: float = 1.0
    w_cross: float = 0.1
    lambda_clip: float = 1.0
    lambda_dino: float = 0.2
    beta: float = 0.1
    solver: str = "optimum"
    tolerance: float = 1e-5
    templates: str | tuple[str, ...] = "rs10"
    synonyms: str = "by_template"
    window: int | None = None
    overlap: int = 64

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise unknown_name(f"value of {name}", getattr(self, name), choices)
        ranges = {
            "clip_size": (1, None),
            "dino_size": (1, None),
            "logit_scale": (0, None),
            "score_threshold": (0, 1),
            "neighbours": (1, None),
            "alpha": (0, 1),
            "steps": (0, None),
            "beta": (0, None),
            "lambda_1": (0, None),
            "lambda_clip": (0, None),
            "lambda_dino": (0, None),
            "w_in": (0, None),
            "w_cross": (0, None),
            "window": (16, None),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            # Written so that "not a number" fails too.
            if value is not None and not low <= value <= (math.inf if high is None else high):
                limit = f"at least {low}" if high is None else f"between {low} and {high}"
                raise InputError(f"{name} must be {limit}, got {value}.")
        for name in ("tau", "dino_scale", "tolerance"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} must be above 0, got {value}.")
        rounds = self.sinkhorn_rounds
        if rounds != "cumulative" and not (isinstance(rounds, int) and rounds >= 0):
            raise InputError(f"sinkhorn_rounds must be 'cumulative' or a whole number from 0 up, got {rounds!r}.")
        if self.window is not None and not 0 <= self.overlap < self.window:
            raise InputError(f"overlap must be at least 0 and below the window of {self.window}, got {self.overlap}.")

    @classmethod
    def official(cls, **changes: Any) -> SDCIConfig:
        """The released program's reading (the default), solved to the optimum."""
        return cls()._changed(changes)

    @classmethod
    def paper(cls, **changes: Any) -> SDCIConfig:
        """The printed equations wherever they suffice; everything else as in :meth:`official`.

        DINOv2 gets 518 pixels, because the paper says that its grid equals CLIP's.
        """
        config = cls(
            dino_like_clip=True,
            sinkhorn_rounds=0,
            centre="global_mean",
            layer_features="block_outputs",
            clip_attention="raw_mean",
            score_threshold=0.0,
            graph_features="mean",
            rescale=False,
            min_max=False,
            to_probability="sum",
        )
        return config._changed(changes)

    @classmethod
    def embedded(cls, **changes: Any) -> SDCIConfig:
        """The official reading with the settings that suit the embedded models (chosen on validation scenes).

        CLIP sees the image at its own scale, DINO a grid twice as fine; larger images are windowed. Classes that
        little speaks for are absent (the released settings have 0.5 for GID, LoveDA and iSAID; these models' scores
        are higher).
        """
        sizes = cls(clip_size=None, dino_scale=2.0, window=256, overlap=64)
        return replace(sizes, presence_threshold=0.7, tolerance=1e-3)._changed(changes)

    def _changed(self, changes: dict[str, Any]) -> SDCIConfig:
        names = [entry.name for entry in fields(self)]
        for name in changes:
            if name not in names:
                raise unknown_name("option of SDCI", name, names)
        return replace(self, **changes)
