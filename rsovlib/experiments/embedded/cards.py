"""Model cards: written from the recipe and from the scores that were measured, so that no number is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rsovlib.data.lexicon import (
    CLASSES,
    COARSE_LISTS,
    CROP_COLOURS,
    HELD_OUT_CROP,
    HELD_OUT_ROOF,
    LEXICON,
    OTHER_NAMES,
    ROOF_COLOURS,
    TEMPLATES,
)
from rsovlib.errors import InputError
from rsovlib.experiments.embedded.imagery import DUBAI_CLASSES, DUBAI_TEST, DUBAI_TRAIN, DUBAI_VALIDATION
from rsovlib.experiments.embedded.publish import MIX_FILE, SCORES_FILE, model_names
from rsovlib.experiments.embedded.recipe import ClipRecipe, DinoRecipe
from rsovlib.files import write_beside

_WHAT = (
    "A small demonstration model trained on simulated scenes; open over its lexicon and its combinations, "
    "not open-vocabulary in general. It ships with rsovlib so that every notebook is a real experiment on any computer."
)

_DUBAI = (
    "Real imagery: parts of Dubai tiles {train} of *Semantic segmentation of aerial imagery* (Humans in the Loop; "
    "imagery of the Mohammed Bin Rashid Space Centre; its publisher is cited as releasing it under CC0 1.0). "
    "Tile {validation} was for validation, tile {test} for the test; the parts of a tile touch each other, so they "
    "were split by tile."
)

_LIMITS = """\
- Words of no training text are at the level of nonsense words. The models know a lexicon, its synonyms and its
  combinations; they don't know English.
- Colours that training never put into words are not composed reliably with nouns (see the table of colours).
- Things smaller than a patch of 8 pixels are lost: cars, single trees, paths; houses are blurred.
- Real imagery is read with caution: what isn't like the Dubai tiles (sensor, stretch, season, ground sampling
  distance) is often read wrongly, above all where it is dark.
- The region loss is dense label supervision in the space of texts. Whatever works here isn't evidence that
  training-free segmentation works from image-text pairs alone; use the papers' weights for such claims.
"""


def write_cards(folder: Path) -> list[Path]:
    """Writes the cards of the two kinds of model from the scores in a folder.

    Args:
        folder: holds ``scores.json``, as :func:`~rsovlib.experiments.embedded.publish.write_scores` leaves it.

    Returns:
        The files written.

    Raises:
        InputError: there are no scores.
    """
    file = folder / SCORES_FILE
    if not file.is_file():
        raise InputError(f"There is no {file}; score the models before their cards are written.")
    scores = json.loads(file.read_text(encoding="utf-8"))
    mix_file = folder / MIX_FILE
    mix = json.loads(mix_file.read_text(encoding="utf-8")) if mix_file.is_file() else {}
    written = []
    for name, text in zip(model_names(0), (_clip_card(scores, mix), _dino_card(scores)), strict=True):
        path = folder / f"{name}.md"
        with write_beside(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def _clip_card(scores: Mapping[str, Any], mix: Mapping[str, Any]) -> str:
    name, _ = model_names(0)
    return "\n".join(
        [
            f"# {name}",
            "",
            _WHAT,
            "",
            "An `open_clip.CLIP` of width 128: five image blocks with patches of 8 pixels, two text blocks, a joint "
            "space of 128. Seeds 1 and 2 of the same recipe are `-s1` and `-s2`.",
            "",
            *_data(scores),
            *_mix(mix),
            "## Words",
            "",
            *_words(),
            "",
            *_budget("clip", asdict(ClipRecipe()), scores),
            "The region loss is dense label supervision in the space of texts: every patch is told the shares of its "
            "classes, named by words drawn at random. It is read first on the value path, then through the fused "
            "attention of SDCI.",
            "",
            *_scores(scores),
            "## Limits",
            "",
            _LIMITS,
        ]
    )


def _dino_card(scores: Mapping[str, Any]) -> str:
    _, name = model_names(0)
    return "\n".join(
        [
            f"# {name}",
            "",
            _WHAT,
            "",
            "A timm `VisionTransformer` of width 128: five blocks, patches of 8 pixels, one class token. The file also "
            "holds one linear map a layer into the joint space of the CLIP of the same seed (`alignment.weight`, "
            "`alignment.bias`), a closed-form ridge regression on unlabelled crops.",
            "",
            *_data(scores),
            "The DINO sees no label and no text. Where real imagery is named, it also saw unlabelled Sentinel-2 tiles "
            "(contains modified Copernicus Sentinel data 2020).",
            "",
            "## Words",
            "",
            "None: words reach it through the alignment with the CLIP alone.",
            "",
            *_budget("dino", asdict(DinoRecipe()), scores),
            "Masked self-distillation (EMA teacher, Sinkhorn), and in the second part a pretext: the last attention "
            "predicts which patches look alike in colour and in the teacher's features. It therefore *imitates colour "
            "affinity*; it isn't the emergent structure of large self-supervised models. The rows `raw colour` and "
            "`random DINO` below are its rivals.",
            "",
            *_scores(scores),
            "## Limits",
            "",
            _LIMITS,
        ]
    )


def _data(scores: Mapping[str, Any]) -> list[str]:
    lines = ["## Data", ""]
    lines += [f"- {seed}: {row['data']}" for seed, row in scores.items()]
    if any("Dubai" in row["data"] for row in scores.values()):
        lines += [
            "",
            _DUBAI.format(train=_listed(DUBAI_TRAIN), validation=_listed(DUBAI_VALIDATION), test=_listed(DUBAI_TEST)),
        ]
    return [
        *lines,
        "",
        "Scenes for training, validation and test have seeds of their own; settings were chosen on validation only.",
        "",
    ]


def _mix(mix: Mapping[str, Any]) -> list[str]:
    if not mix:
        return []
    lines = [
        f"With real imagery in the mix, {ClipRecipe().real:.0%} of the steps go to it, and the scenes get so many "
        "fewer. Mean IoU of the value path, seed 0, at the same number of steps: real tiles gain, scenes lose. It was "
        "kept for what it is worth on real images; who works with scenes alone should train without it.",
        "",
        "| | with real imagery | scenes alone | difference |",
        "| --- | --- | --- | --- |",
    ]
    for name, row in mix.items():
        cells = (f"{row[key]['miou']:.1f} [{row[key]['low']:.1f}, {row[key]['high']:.1f}]" for key in row)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def _words() -> list[str]:
    lines = ["| class | paired with pictures | paired with other words only |", "| --- | --- | --- |"]
    lines += [f"| {CLASSES[key]} | {', '.join(w.trained)} | {', '.join(w.thesaurus)} |" for key, w in LEXICON.items()]
    single = set(LEXICON)
    for _, groups in COARSE_LISTS:
        for group in groups:
            if len(group.members) > 1 and not any(set(group.names) <= set(LEXICON[key].trained) for key in single):
                row = f"| {' + '.join(CLASSES[member] for member in group.members)} | {', '.join(group.names)} | |"
                if row not in lines:
                    lines.append(row)
    return [
        *lines,
        "",
        f"Whatever a list doesn't list: {', '.join(OTHER_NAMES)}. Colours of roofs: {', '.join(ROOF_COLOURS)} "
        f"({HELD_OUT_ROOF} never in words); of fields: {', '.join(CROP_COLOURS)} ({HELD_OUT_CROP} never in words). "
        f"Orchards are never named. {len(TEMPLATES)} templates, SDCI's ten among them.",
    ]


def _budget(part: str, recipe: Mapping[str, Any], scores: Mapping[str, Any]) -> list[str]:
    seconds = ", ".join(f"{seed}: {row['cpu_seconds'][part]:.0f}" for seed, row in scores.items())
    settings = ", ".join(f"{key} {value}" for key, value in recipe.items())
    return [
        "## Budget",
        "",
        f"CPU seconds on one thread ({seconds}), on a machine shared with other work; no GPU. Settings: {settings}.",
        "",
    ]


def _scores(scores: Mapping[str, Any]) -> list[str]:
    first = next(iter(scores.values()))
    lines = [
        "## Scores",
        "",
        f"Mean IoU in per cent with 95 % bootstrap intervals over the images; {first['scenes']} test scenes of "
        f"256 x 256, seven classes (guessing: {first['chance']['majority']:.1f} majority, "
        f"{first['chance']['uniform']:.1f} uniform). The value path is CLIP alone, without SDCI.",
        "",
        "SDCI's ladder on simulated test scenes, class names as prompts:",
        "",
        *_seed_table(scores, lambda row: row["ladder"]),
        "",
        "Words, on the value path:",
        "",
        *_seed_table(scores, lambda row: row["words"]),
        "",
        "IoU by class after CSCP:",
        "",
        *_plain_table(scores, lambda row: row["class_iou"]),
        "",
        "Colour with noun: accuracy in per cent among names that differ in the colour alone (held-out colours are "
        f"those of *{HELD_OUT_ROOF} roof* and *{HELD_OUT_CROP} field*):",
        "",
        *_plain_table(
            scores,
            lambda row: {
                f"{colour} {noun}": value
                for noun, table in row["colours"].items()
                for colour, value in table["accuracy"].items()
            },
        ),
        "",
    ]
    real = {seed: row for seed, row in scores.items() if "dubai" in row}
    if real:
        example = next(iter(real.values()))["dubai"]
        lines += [
            f"Real imagery, tile {_listed(example['tiles'])} of Dubai, of which training saw nothing: "
            f"{example['squares']} squares of 256 x 256, prompts {', '.join(DUBAI_CLASSES)} (guessing: "
            f"{example['chance']['majority']:.1f} majority, {example['chance']['uniform']:.1f} uniform):",
            "",
            *_seed_table(real, lambda row: row["dubai"]["ladder"]),
            "",
            "IoU by class on these squares, value path:",
            "",
            *_plain_table(real, lambda row: row["dubai"]["value_path_class_iou"]),
            "",
        ]
    return lines


def _seed_table(scores: Mapping[str, Any], pick: Any) -> list[str]:
    seeds = list(scores)
    lines = [f"| | {' | '.join(seeds)} |", f"| --- |{' --- |' * len(seeds)}"]
    for name in pick(scores[seeds[0]]):
        cells = []
        for seed in seeds:
            entry = pick(scores[seed]).get(name)
            cells.append("" if entry is None else f"{entry['miou']:.1f} [{entry['low']:.1f}, {entry['high']:.1f}]")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _plain_table(scores: Mapping[str, Any], pick: Any) -> list[str]:
    seeds = list(scores)
    names = list(pick(scores[seeds[0]]))
    lines = [f"| | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    lines += [f"| {seed} | {' | '.join(str(pick(scores[seed]).get(name, '')) for name in names)} |" for seed in seeds]
    return lines


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
