"""Writing trained fusion networks, in the embedded experiment's way and in the full profile's.

Those of the embedded experiment go where the package finds them: fp16 weights, the manifest, scores and the card. Each
of the full profile is a file that says wholly where it comes from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rsovlib.data.clouds import CLOUD_VERSION
from rsovlib.data.scenes import SCENE_VERSION
from rsovlib.errors import InputError
from rsovlib.experiments.fusion.recipe import WITH_CMU, WITH_SAR_CLIP, ExperimentRecipe
from rsovlib.experiments.fusion.settings import TRAIN_SUITES
from rsovlib.experiments.fusion.training import TrainedSeed, TrainingJob, cpu_seconds
from rsovlib.experiments.identity import data_version
from rsovlib.files import write_beside
from rsovlib.fusion.cmu import plain
from rsovlib.fusion.embedded import MANIFEST_FILE, NAMES, EmbeddedFusion, write_manifest
from rsovlib.fusion.infonce import Retrieval
from rsovlib.fusion.weights import save_fusion

RECORD_FILE = "training.json"
"""What each seed's training was and cost: recipe, losses, retrieval, CPU time."""
CARD = "rsov-tiny-fusion.md"
SCORES_FILE = "scores.json"


def write_trained(folder: Path, trained: TrainedSeed) -> list[str]:
    """Writes what a run of the training notebook has trained.

    In the full profile each method's network becomes ``METHOD.safetensors`` in 32 bits, for
    ``rsovlib segment --method METHOD --profile full --set weights=...``. For the embedded experiment see
    :func:`write_seed`; its card is written, too.

    Returns:
        The names of the networks, or of their files.
    """
    if trained.job is None:
        names = write_seed(folder, trained)
        write_card(folder)
        return names
    files = []
    for method, one in trained.methods.items():
        path = folder / f"{method}.safetensors"
        save_fusion(path, one.network, network_record(trained, trained.job, method))
        files.append(path.name)
    return files


def network_record(trained: TrainedSeed, job: TrainingJob, method: str) -> dict[str, Any]:
    """What a file of the full profile says of its training."""
    stage2, loop = trained.recipe.of_method(method)
    sources = [part.strip() for part in job.train.split(",")]
    datasets = ["/".join(name.split("/")[:2]) for name in sources]
    cmu = job.cmu_record("dino") if method in WITH_CMU else None
    on_clip = job.cmu_record("clip") if method in WITH_SAR_CLIP else None
    return {
        "method": method,
        "seed": trained.seed,
        "train": job.train,
        "architecture": trained.recipe.architecture,
        "readings": job.readings,
        "backbones": list(trained.recipe.backbones_of(trained.seed)),
        "data": {pool.name: len(pool.pairs) for pool in job.pools},
        "versions": data_version(datasets),
        "classes": {pool.name: list(pool.classes) for pool in job.pools},
        "recipe": plain(stage2),
        "loop": plain(loop),
        "cmu": cmu,
        "cmu on clip": on_clip,
        "last": {name: round(value, 4) for name, value in trained.methods[method].history[-1].items()},
        "history": _thinned(trained.methods[method].history),
    }


def write_seed(folder: Path, trained: TrainedSeed) -> list[str]:
    """Writes a seed's networks and enters them in the folder's manifest and record.

    Args:
        folder: where to; the package's own is ``rsovlib/fusion/embedded``.
        trained: of :func:`rsovlib.experiments.fusion.training.train_seed`; methods that don't ship are left out.

    Returns:
        Names under which ``load_fusion`` finds them once the folder is the package's.
    """
    models = _manifest(folder)
    names = []
    for method, one in trained.methods.items():
        if method not in NAMES:
            continue
        name = NAMES[method] + (f"-s{trained.seed}" if trained.seed else "")
        file = f"{name}.safetensors"
        record = training_record(trained, method)
        digest = save_fusion(folder / file, one.network, record, half=True)
        models[name] = EmbeddedFusion(name, method, file, digest, CARD)
        names.append(name)
    write_manifest(folder, models)
    _enter(folder / RECORD_FILE, f"seed {trained.seed}", seed_record(trained))
    return names


def training_record(trained: TrainedSeed, method: str) -> dict[str, Any]:
    """What a network's own file says of its training."""
    recipe: ExperimentRecipe = trained.recipe
    last = trained.methods[method].history[-1]
    return {
        "seed": trained.seed,
        "backbones": list(recipe.backbones_of(trained.seed)),
        "data": {"suites": list(TRAIN_SUITES), "scenes of each": recipe.scenes, "side": recipe.scene_side},
        "versions": {"scenes": SCENE_VERSION, "clouds": CLOUD_VERSION},
        "recipe": plain(recipe.stage2),
        "loop": plain(recipe.loop),
        "cmu": {"recipe": plain(recipe.cmu), "loop": plain(recipe.cmu_loop)} if method == "mm-ovseg" else None,
        "last": {name: round(value, 4) for name, value in last.items()},
    }


def seed_record(trained: TrainedSeed) -> dict[str, Any]:
    """Losses, retrieval and cost of all of a seed's trainings."""
    found: dict[str, Any] = {
        "recipe": plain(trained.recipe),
        "cpu_seconds": {name: round(value, 1) for name, value in cpu_seconds(trained).items()},
        "histories": {name: _thinned(one.history) for name, one in trained.methods.items()},
    }
    for name, one in trained.encoders.distilled().items():
        found[f"cmu on {name.lower()}"] = {
            "history": _thinned(one.history),
            "retrieval before": [_plain_retrieval(entry) for entry in one.before],
            "retrieval after": [_plain_retrieval(entry) for entry in one.after],
            "retrieval across before": [_plain_retrieval(entry) for entry in one.across_before],
            "retrieval across after": [_plain_retrieval(entry) for entry in one.across_after],
        }
    return found


def write_scores(folder: Path, scores: Mapping[str, Any]) -> None:
    """Enters measured scores (plain values) beside the weights; the card quotes them."""
    for key, value in scores.items():
        _enter(folder / SCORES_FILE, key, value)


def write_card(folder: Path) -> Path:
    """Writes the networks' card from the record and the scores in a folder, so that no number is typed by hand.

    Raises:
        InputError: there is no record.
    """
    if not (folder / RECORD_FILE).is_file():
        raise InputError(f"There is no {folder / RECORD_FILE}; write a trained seed first.")
    record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    scores_file = folder / SCORES_FILE
    scores = json.loads(scores_file.read_text(encoding="utf-8")) if scores_file.is_file() else {}
    path = folder / CARD
    with write_beside(path) as temporary:
        temporary.write_text(_card(record, scores), encoding="utf-8")
    return path


_WHAT = """\
# The embedded fusion networks

Small demonstration models trained on simulated scenes: CAT-Seg, GSNet, EBSeg, MM-OVSeg and MM-OVSeg without CMU on the
embedded CLIP and DINO, seeds 0, 1 and 2 (the second and third are called `-s1` and `-s2`). They ship so that
`rsovlib segment --sar` and every notebook work on any computer; what they say of radar and clouds is said of the
simulator.
"""

_DATA = """\
## Data

Simulated scenes of the suites {suites}
({count} of each, {side} pixels), seen classes only; clouds of 0 to 100 % cover are drawn anew for every sample. For the
suites of OpenEarthMap-SAR the *name* building is new to the trained layers, but buildings were seen as part of "city"
in the other suites. The backbones themselves were trained on simulated scenes with all classes and words, so "unseen"
means unseen by the fusion layers.
"""

_DIFFERENCES = """\
## What differs from the papers besides the size

- The logits start from the backbones' own cosines (`cost_skip`), and DINO's projection from the embedded DINO's map
  into CLIP's space: these networks learn for a few hundred steps, the papers' for 80,000.
- One network a method for all six settings, in place of one for each training set.
- Samples without radar ({without_sar:.0%}) and without clouds ({clear:.0%}) are part of the training.
- SAR goes through the optical image's geometry, and ignored pixels are left out of the loss (the corrected readings).
"""


def _card(record: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
    first = next(iter(record.values()))
    recipe = first["recipe"]
    samples = recipe["stage2"]["samples"]
    lines = [_WHAT, _DATA.format(suites=", ".join(TRAIN_SUITES), count=recipe["scenes"], side=recipe["scene_side"])]
    loop, cmu = recipe["loop"], recipe["cmu_loop"]
    lines += [
        "## Training\n",
        f"- Stage 2: {loop['steps']} steps of {recipe['stage2']['batch']} samples of {samples['side']} pixels, AdamW, "
        f"highest rate {loop['rate']:g} (CLIP's query and value weights: times {recipe['stage2']['clip_factor']:g}), "
        f"weight decay {loop['weight_decay']:g}, gradients clipped to {loop['clip']:g}. The same for all methods.",
        f"- CMU: {cmu['steps']} steps of {recipe['cmu']['batch']} pairs of {recipe['cmu']['samples']['side']} pixels, "
        f"rate {cmu['rate']:g}, InfoNCE with tau = {recipe['cmu']['contrast']['temperature']:g} at "
        f"{recipe['cmu']['positions']} places of each pair.\n",
        _DIFFERENCES.format(**samples),
        "## Retrieval: does a SAR token find the optical token of its place? (top-1, validation scenes)\n",
        "Among all tokens a copy of the optical encoder already finds some by their position in the image. Across "
        "images the candidates are the tokens at one position, and only what is there tells them apart.\n",
        "| seed | block | among all: before CMU | after | chance | across images: before CMU | after | chance |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for seed, row in record.items():
        found = row.get("cmu on dino")
        if found:
            blocks = recipe["cmu"]["blocks"]
            kinds = [f"retrieval {kind}" for kind in ("before", "after", "across before", "across after")]
            for block, *entries in zip(blocks, *(found[kind] for kind in kinds), strict=True):
                before, after, across_before, across_after = entries
                lines.append(
                    f"| {seed} | {block + 1} | {before['top1']:.2%} | {after['top1']:.2%} | {after['chance']:.2%} | "
                    f"{across_before['top1']:.2%} | {across_after['top1']:.2%} | {across_after['chance']:.2%} |"
                )
    lines += ["", "## CPU seconds\n", "| seed | " + " | ".join(first["cpu_seconds"]) + " |"]
    lines.append("|---|" + "---|" * len(first["cpu_seconds"]))
    for seed, row in record.items():
        lines.append(f"| {seed} | " + " | ".join(f"{value:.0f}" for value in row["cpu_seconds"].values()) + " |")
    if scores:
        lines += ["", "## Scores on test scenes (mIoU in percent, mean over seeds, 95 % interval over scenes)\n"]
        columns = list(next(iter(scores.values())))
        lines += ["| method | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
        for method, row in scores.items():
            lines.append(f"| {method} | " + " | ".join(str(row.get(column, "")) for column in columns) + " |")
    return "\n".join(lines) + "\n"


def _manifest(folder: Path) -> dict[str, EmbeddedFusion]:
    file = folder / MANIFEST_FILE
    rows = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {name: EmbeddedFusion(name=name, **row) for name, row in rows.items()}


def _thinned(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """Every so many rows, rounded: enough for a curve."""
    step = max(1, len(history) // 30)
    kept = [row for index, row in enumerate(history) if index % step == 0 or index == len(history) - 1]
    return [{name: float(f"{value:.4g}") for name, value in row.items()} for row in kept]


def _plain_retrieval(entry: Retrieval) -> dict[str, float]:
    return {name: float(f"{value:.5g}") for name, value in asdict(entry).items()}


def _enter(path: Path, key: str, value: Any) -> None:
    rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    rows[key] = value
    with write_beside(path) as temporary:
        temporary.write_text(json.dumps(dict(sorted(rows.items())), indent=1) + "\n", encoding="utf-8")
