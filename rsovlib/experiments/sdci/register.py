"""The register of differences between SDCI's paper and its released program, D01 to D34, entry by entry.

arXiv 2601.21159 and its program disagree in some places, and the paper says nothing in others. Every entry says what
each of them does, and which fields of :class:`SDCIConfig` switch between the two; or why nothing can be switched. Where
the paper says nothing, the entry may have a *neighbour*: another way in which a reader of the paper alone could have
done it, so that the choice's weight can be measured all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rsovlib.errors import unknown_name
from rsovlib.segmenters import SDCIConfig

Kind = Literal["differ", "silent", "agree", "elsewhere"]

KINDS: dict[Kind, str] = {
    "differ": "the paper says one thing, the program does another",
    "silent": "the paper doesn't say; the program's way is compared with a neighbouring one",
    "agree": "no two readings, or none that could change a label",
    "elsewhere": "not a setting of the method, or not measurable with these models",
}


@dataclass(frozen=True)
class Entry:
    """One difference.

    Attributes:
        id: ``"D01"`` to ``"D34"``.
        what: the item.
        paper: what the paper says, or the neighbouring reading where it says nothing.
        official: what the released program does.
        kind: a key of :data:`KINDS`.
        to_paper, to_official: fields that switch to either; none where nothing can be switched.
        scaled: ``(to_paper, to_official)`` in their place for models whose DINO grid is given by ``dino_scale``.
        reason: what a reader must know: why it can't be switched, or what limits the switch.
        in_profile: whether ``SDCIConfig.paper()`` takes the paper's side.
    """

    id: str
    what: str
    paper: str
    official: str
    kind: Kind
    to_paper: Mapping[str, Any] = field(default_factory=dict)
    to_official: Mapping[str, Any] = field(default_factory=dict)
    scaled: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None
    reason: str = ""
    in_profile: bool = False

    @property
    def switchable(self) -> bool:
        """Whether fields of the configuration switch between both readings."""
        return bool(self.to_paper)

    def readings(self, config: SDCIConfig) -> tuple[SDCIConfig, SDCIConfig]:
        """A configuration with the paper's reading of this entry, and with the program's."""
        sides: tuple[Mapping[str, Any], Mapping[str, Any]] = (self.to_paper, self.to_official)
        if self.scaled is not None and config.dino_scale is not None:
            sides = self.scaled
        return replace(config, **sides[0]), replace(config, **sides[1])

    def other(self, config: SDCIConfig) -> tuple[str, SDCIConfig]:
        """The reading that a configuration doesn't have: ``"paper"`` or ``"official"``, and with it the configuration.

        A configuration that has neither, or that both readings leave as it is, gets the paper's.
        """
        paper, official = self.readings(config)
        return ("official", official) if config == paper != official else ("paper", paper)


def entry(name: str) -> Entry:
    """The entry of a number such as ``"D08"``.

    Raises:
        InputError: there is none.
    """
    for one in REGISTER:
        if one.id == name:
            return one
    raise unknown_name("entry of the register", name, [one.id for one in REGISTER])


def measurable(*, gpu: bool = False) -> list[Entry]:
    """The entries whose effect can be measured on this machine."""
    return [one for one in REGISTER if one.switchable and (gpu or one.id != "D03")]


def paper_base(config: SDCIConfig) -> SDCIConfig:
    """The paper's readings of all that :meth:`SDCIConfig.paper` takes from it, at the sizes of ``config``."""
    for one in REGISTER:
        if one.in_profile:
            config = one.readings(config)[0]
    return config


_D = Entry

REGISTER: tuple[Entry, ...] = (
    _D("D01", "CLIP's input", "512 x 512, the full image", "512 on the short side, then 518, a multiple of 14", "agree",
       reason="512 is no multiple of the patch, so that the program's rounding is the only way to do what is said"),
    _D("D02", "resize of CLIP's position embedding", "not said (here: bicubic with antialias)", "bilinear", "silent",
       {"position_embedding": "bicubic_antialias"}, {"position_embedding": "bilinear"},
       reason="no effect where the grid is the one of CLIP's training"),
    _D("D03", "precision", "not said (here: float32)", "float16 but for DINO, graph and solver", "silent",
       {"precision": "float32"}, {"precision": "float16"},
       reason="half precision needs a GPU; here it covers both networks"),
    _D("D04", "DINO's grid", "equal to CLIP's, point to point (v2)", "never equal: 532 pixels for v2, 384 for v1",
       "differ", {"dino_like_clip": True}, {"dino_like_clip": False}, ({"dino_scale": 1.0}, {"dino_scale": 2.0}),
       "the embedded DINO has a grid twice as fine as CLIP's where the program's is 1.03 times as fine (v2)",
       in_profile=True),
    _D("D05", "DINO's weights", "ViT-B/8 (v1), ViT-B/14 (v2)", "v2 with registers; an adapter for v3", "elsewhere",
       reason="another network, not a setting; needs the full-size weights with and without registers"),
    _D("D06", "resize of DINO's input", "not said (here: Pillow's, like CLIP's)", "bicubic tensor, no antialias",
       "silent", {"dino_resize": "pil"}, {"dino_resize": "tensor"}),
    _D("D07", "layers' attention maps (equation 4)", "mean", "sum", "differ", {"layer_maps": "mean"},
       {"layer_maps": "sum"}, reason="without effect wherever the map is normalised afterwards, as the program does",
       in_profile=True),
    _D("D08", "normalisation before Sym", "none", "columns, then rows, once more at each layer's feature", "differ",
       {"sinkhorn_rounds": 0}, {"sinkhorn_rounds": "cumulative"}, in_profile=True),
    _D("D09", "mu of equation 5", "one mean of the whole map", "a mean for each key", "differ",
       {"centre": "global_mean"}, {"centre": "column_mean"}, in_profile=True),
    _D("D10", "value path of equation 5", "V alone", "V, output projection, final norm, projection", "differ",
       {"value_path": "values"}, {"value_path": "out_proj"},
       reason="V alone doesn't lie in the text space: here only the output projection is left out"),
    _D("D11", "features F_n", "outputs of the blocks", "normed inputs of the blocks", "differ",
       {"layer_features": "block_outputs"}, {"layer_features": "normed_inputs"}, in_profile=True),
    _D("D12", "CLIP's attention in CAF (equation 6)", "mean of the plain maps", "mean of the processed map", "differ",
       {"clip_attention": "raw_mean"}, {"clip_attention": "processed"}, in_profile=True),
    _D("D13", "class token", "not said (here: taken out first)", "in all maps until their use", "silent",
       {"class_token": "dropped"}, {"class_token": "kept"}),
    _D("D14", "DINO's attention without its prefix", "not said (here: rows sum to 1 again)", "rows sum to less",
       "silent", {"dino_rows": "renormalised"}, {"dino_rows": "as_they_are"}),
    _D("D15", "Align", "not said (here: row sums are kept)", "bilinear on both axes; row sums change", "silent",
       {"align_renorm": True}, {"align_renorm": False}, reason="without effect where both grids are equal"),
    _D("D16", "scores S_n", "logits", "softmax of 50 cosines", "differ", {"scores": "logits"},
       {"scores": "probabilities"}, reason="equation 17 needs probabilities, which the logits become in D25 and D26"),
    _D("D17", "background text", "not mentioned", "\"other\", and the mean of the classes", "differ",
       {"background": None, "mean_text": False}, {"background": "other", "mean_text": True}),
    _D("D18", "scores below 0.2 of their maximum", "not mentioned", "set to 0 in the last layer", "differ",
       {"score_threshold": 0.0}, {"score_threshold": 0.2}, in_profile=True),
    _D("D19", "order of the product A S", "rows are queries", "the same", "agree"),
    _D("D20", "features of the graph", "mean of all layers", "last layer", "differ", {"graph_features": "mean"},
       {"graph_features": "last"}, in_profile=True),
    _D("D21", "tau", "0.07 in the text, 7 in the appendix (here: 7)", "0.07", "differ", {"tau": 7.0}, {"tau": 0.07}),
    _D("D22", "S_K", "the K largest, not oneself", "the same", "agree"),
    _D("D23", "grids of BCDR", "not said", "scores are carried to the other's grid and stay there", "agree",
       reason="the other graph lives on the other grid; walking on one's own would be another method"),
    _D("D24", "lambda_1", "1, tunable", "constant 1", "agree"),
    _D("D25", "maps before CSCP", "the diffused maps themselves", "rescaled, absent classes out, stretched to [0, 1]",
       "differ", {"rescale": False, "presence_threshold": 0.0, "min_max": False},
       {"rescale": True, "min_max": True},
       reason="from the paper's side the presence threshold stays 0, as released for two of the five datasets",
       in_profile=True),
    _D("D26", "maps to probabilities", "\"probability\" (here: divided by their sum)", "softmax, if they look unlike",
       "differ", {"to_probability": "sum"}, {"to_probability": "auto"}, in_profile=True),
    _D("D27", "superpixels", "Felzenszwalb, no numbers", "scale 40, sigma 0.8, at least 20 pixels", "agree",
       reason="the paper gives no other numbers; the sensitivity maps vary the scale"),
    _D("D28", "edges", "adjacent pixels", "right and down, each once", "agree"),
    _D("D29", "solver", "PDHG (here: to the certified optimum)", "100 inexact iterations", "differ",
       {"solver": "optimum"}, {"solver": "official"},
       reason="both of our profiles solve to the optimum; here the program's iterations are switched on"),
    _D("D30", "classes of the output", "not said", "the named ones; \"other\" is never predicted", "agree",
       reason="the paper has no background text that could be predicted"),
    _D("D31", "templates", "not named (here: the bare word)", "ten for remote sensing", "silent",
       {"templates": "plain"}, {"templates": "rs10"}),
    _D("D32", "synonyms", "mean of the words' embeddings", "mean in each template, then over the templates", "differ",
       {"synonyms": "by_word"}, {"synonyms": "by_template"},
       reason="without effect where every class has one word"),
    _D("D33", "wordings of the second prompt setting", "the paper's Table 3", "not released", "elsewhere",
       reason="data: the words stand in the manifests' prompt sets"),
    _D("D34", "evaluation", "mean over the classes", "named classes with ground truth; other pixels ignored",
       "elsewhere", reason="how is scored, not what is predicted; the tables score by the program's rule"),
)  # fmt: skip
