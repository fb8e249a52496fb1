"""Stage 1 as a run of its own: one SAR encoder, distilled once, for all networks that are trained afterwards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rsovlib.backbones import ClipBackbone, DinoBackbone
from rsovlib.backbones.checkpoints import sha256_of
from rsovlib.errors import unknown_name
from rsovlib.experiments.fusion.recipe import CMU_EPOCHS, ExperimentRecipe
from rsovlib.experiments.fusion.settings import TRAIN_SUITES
from rsovlib.experiments.fusion.sources import open_pool, parse_sources, put_aside
from rsovlib.experiments.fusion.training import (
    PROFILES,
    SAR_CLIP,
    SAR_DINO,
    SUITE_SCENES,
    held_out_pool,
    training_pools,
)
from rsovlib.experiments.identity import digest
from rsovlib.fusion.cmu import Distilled, distil, plain
from rsovlib.fusion.fabric_loop import lasting
from rsovlib.fusion.named import load_named_clip, load_named_dino
from rsovlib.fusion.pairs import PairPool
from rsovlib.fusion.weights import save_encoder

FILES = {"dino": SAR_DINO, "clip": SAR_CLIP}


@dataclass
class CMUJob:
    """One run of the CMU notebook.

    Attributes:
        encoder: what is distilled, "dino" or "clip".
        teacher: the optical one.
        named: its name, as :mod:`rsovlib.fusion.named` reads it.
        recipe: how.
        pools: pairs to distil on.
        held_out: pairs for the retrieval report; None reports none.
        pairs: the source by its name.
        seed: of the samples.
    """

    encoder: str
    teacher: DinoBackbone | ClipBackbone
    named: str
    recipe: ExperimentRecipe
    pools: tuple[PairPool, ...]
    held_out: PairPool | None
    pairs: str
    seed: int

    def checkpoint(self, folder: Path) -> Path:
        """Where progress is kept; another recipe has another file."""
        facts = [self.named, self.teacher.sha256, plain(self.recipe.cmu), lasting(self.recipe.cmu_loop), self.pairs]
        return folder / f"cmu-{self.encoder}-{digest([*facts, self.count])[:12]}.ckpt"

    def story(self) -> str:
        """What is distilled, on what, and for how long, in words."""
        cmu, loop, aside = self.recipe.cmu, self.recipe.cmu_loop, self.held_out
        return (
            f"{self.count} pairs of {self.pairs}, {0 if aside is None else len(aside.pairs)} put aside\n"
            f"{self.named}: {loop.steps:,} steps of {cmu.batch} pairs of {cmu.samples.side} pixels, "
            f"{cmu.positions} places of each, blocks {', '.join(str(block + 1) for block in cmu.blocks)}, "
            f"tau {cmu.contrast.temperature:g}, highest rate {loop.rate:g}"
        )

    @property
    def count(self) -> int:
        """Pairs to distil on."""
        return sum(len(pool.pairs) for pool in self.pools)

    def run(self, folder: Path, *, progress: bool = True) -> Distilled[Any]:
        """Distils; a stopped run goes on where it was.

        Args:
            folder: where the checkpoint goes.
            progress: show a bar.
        """
        if self.recipe.threads is not None:
            torch.set_num_threads(self.recipe.threads)
        recipe = self.recipe
        options: dict[str, Any] = {"held_out": self.held_out, "progress": progress}
        checkpoint = self.checkpoint(folder)
        if isinstance(self.teacher, DinoBackbone):
            return distil(self.teacher, self.pools, recipe.cmu, recipe.cmu_loop, checkpoint=checkpoint, **options)
        return distil(self.teacher, self.pools, recipe.cmu, recipe.cmu_loop, checkpoint=checkpoint, **options)

    def write(self, folder: Path, checkpoints: Path, found: Distilled[Any]) -> Path:
        """Writes the encoder, and removes the checkpoint.

        Returns:
            The file, which the training notebook finds by its folder.
        """
        path = folder / FILES[self.encoder]
        record = {
            "pairs": self.pairs,
            "count": self.count,
            "seed": self.seed,
            "recipe": plain(self.recipe.cmu),
            "loop": plain(self.recipe.cmu_loop),
            "last": {name: round(value, 4) for name, value in found.history[-1].items()},
            "retrieval": [plain(entry) for entry in found.after],
            "retrieval across images": [plain(entry) for entry in found.across_after],
        }
        save_encoder(path, found.encoder, self.teacher, self.named, record)
        self.checkpoint(checkpoints).unlink(missing_ok=True)
        return path

    def weights(self, path: Path) -> dict[str, str]:
        """Name and hash of teacher and student, for result rows."""
        return {self.named: self.teacher.sha256, path.name: sha256_of(path)}


def cmu_job(
    profile: str = "embedded",
    *,
    pairs: str = "",
    encoder: str = "dino",
    seed: int = 0,
    share: float = 1.0,
    epochs: int = CMU_EPOCHS,
    positions: int = 256,
    held_out: int = 64,
    limit: int = 0,
    progress: bool = True,
    **recipe: Any,
) -> CMUJob:
    """Settles what a run distils; nothing is distilled yet.

    Args:
        profile: "embedded": on the suites, with the embedded experiment's recipe; or "full".
        pairs: in the full profile: ``"datasets/NAME/PROTOCOL"``, ``"suites/NAME"``, several with commas between, or two
            absolute folders of one's own: optical images, and radar images of the same names. CMU-Data if not given.
        encoder: "dino", as published; "clip" for Table A5.
        seed: of the samples, and in the embedded profile of the backbones.
        share: of the embedded recipe's steps and scenes.
        epochs: times that every pair is seen, in the full profile; ``steps=`` goes before it.
        positions: places of each pair that are compared, in the full profile.
        held_out: pairs that are put aside for the retrieval report, in the full profile.
        limit: take only so many pairs, spread evenly; 0 takes all.
        progress: show a bar where pairs are made.
        **recipe: of the full profile, see :meth:`rsovlib.experiments.fusion.recipe.ExperimentRecipe.full`.

    Raises:
        InputError: an unknown profile, encoder or source, or pairs that aren't on this machine.
    """
    if profile not in PROFILES:
        raise unknown_name("profile", profile, PROFILES)
    if encoder not in FILES:
        raise unknown_name("encoder", encoder, FILES)
    if profile == "embedded":
        made = ExperimentRecipe() if share == 1 else ExperimentRecipe().shorter(share)
        pools = training_pools(made, progress=progress)
        aside: PairPool | None = held_out_pool(made, progress=progress)
        pairs = ", ".join(f"suites/{name}" for name in TRAIN_SUITES)
    else:
        made = ExperimentRecipe.full(**recipe)
        made = replace(made, cmu=replace(made.cmu, positions=positions))
        pairs = pairs or "datasets/cmu-data/cmu"
        scenes, side = SUITE_SCENES
        options: dict[str, Any] = {"scenes": scenes, "side": side, "labelled": False, "limit": limit}
        pools = [open_pool(one, progress=progress, **options) for one in parse_sources(pairs)]
        pools[0], aside = put_aside(pools[0], held_out)
        if not recipe.get("steps"):
            made = made.cmu_steps(sum(len(pool.pairs) for pool in pools), epochs)
    made = made.with_seed(seed)
    clip, dino = made.backbones_of(seed)
    named = dino if encoder == "dino" else clip
    teacher = load_named_dino(dino, "cpu") if encoder == "dino" else load_named_clip(clip, "cpu")
    return CMUJob(encoder, teacher, named, made, tuple(pools), aside, pairs, seed)
