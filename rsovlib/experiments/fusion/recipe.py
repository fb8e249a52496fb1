"""How the networks are trained, in one place: the embedded experiment's recipe, and the papers'.

In the embedded experiment all methods of a seed see the same samples in the same order for the same number of steps;
they differ in what they are made of. Everything in it was chosen on validation scenes (seeds from 1,000,000 on); tests
begin at 2,000,000. The papers' recipe is MM-OVSeg's (CVPR 2026, arXiv 2603.17528, supplement and released settings),
and for the methods beside it their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from rsovlib.errors import InputError, unknown_name
from rsovlib.fusion.augment import SampleRule
from rsovlib.fusion.cmu import CMURecipe
from rsovlib.fusion.config import FusionConfig, Readings
from rsovlib.fusion.ebseg import EBSegConfig
from rsovlib.fusion.fabric_loop import LoopSettings
from rsovlib.fusion.infonce import ContrastRule
from rsovlib.fusion.stage2 import PAPER_LOOPS, Stage2Recipe

BACKBONES = (
    ("rsov-tiny-clip", "rsov-tiny-dino"),
    ("rsov-tiny-clip-s1", "rsov-tiny-dino-s1"),
    ("rsov-tiny-clip-s2", "rsov-tiny-dino-s2"),
)
"""The pair of each seed: it changes the frozen networks, the new layers' first weights, and the order of samples."""

SHIPPED = ("cat-seg", "gsnet", "mm-ovseg-no-cmu", "mm-ovseg")
"""Trained and shipped for every seed."""
VARIANTS = ("cmu-on-clip", "cmu-on-both")
"""The further rows of Table A5: radar also, or only, through a CLIP that CMU has distilled."""
METHODS = (*SHIPPED, "ebseg", *VARIANTS)
WITH_CMU = ("mm-ovseg", "cmu-on-both")
"""Methods whose SAR DINO is distilled."""
WITH_SAR_CLIP = VARIANTS

READINGS: Mapping[str, Mapping[str, bool]] = {
    "corrected": {},
    "SAR not aligned (release)": {"sar_follows_optical": False},
    "ignored pixels are negatives (release)": {"unseen_left_out": False},
    "CLIP's statistics for all (release)": {"own_statistics": False},
    "first synonym only (release)": {"all_synonyms": False},
    "all of the release's readings": {
        "sar_follows_optical": False,
        "unseen_left_out": False,
        "own_statistics": False,
        "all_synonyms": False,
        "masks_missing_sar": False,
        "shows_logits_resized": False,
        "plain_class_names": False,
    },
}
"""What is changed against the corrected reading, one at a time and together."""


@dataclass(frozen=True)
class Architecture:
    """One size of networks.

    Attributes:
        clip, dino: the backbones that it is made for, as :mod:`rsovlib.fusion.named` reads them.
        fusion: CAT-Seg, GSNet and MM-OVSeg.
        ebseg: EBSeg.
        cmu_blocks: blocks, from 0, at which CMU compares tokens.
        batch: MM-OVSeg's, images a step.
    """

    clip: str
    dino: str
    fusion: FusionConfig
    ebseg: EBSegConfig
    cmu_blocks: tuple[int, ...]
    batch: int


ARCHITECTURES = {
    "tiny": Architecture(*BACKBONES[0], FusionConfig.embedded(), EBSegConfig.embedded(), (1, 3, 4), 8),
    "vit-b": Architecture(
        "openai-ViT-B-16", "dino-vitb8", FusionConfig.vit_b(), EBSegConfig.full("vit-b"), (3, 7, 11), 8
    ),
    "vit-l": Architecture(
        "ViT-L-14-336-quickgelu@openai",
        "vit_large_patch16_dinov3@sat493m",
        FusionConfig.vit_l(),
        EBSegConfig.full("vit-l"),
        (7, 15, 23),
        4,
    ),
}
"""The papers' optical DINO of ViT-B is "RSIB", which comes with GSNet; its file goes behind the architecture:
``vit_base_patch8_224@/data/rsib.pth``. DINO v1, of the same shape, stands in for it."""


@dataclass(frozen=True)
class Budget:
    """What a method's own authors trained it with, where that differs from MM-OVSeg's.

    Attributes:
        steps: of the optimiser.
        batch: images a step.
        rate: highest learning rate.
        weight_decay: see :class:`rsovlib.fusion.fabric_loop.LoopSettings`.
    """

    steps: int
    batch: int
    rate: float
    weight_decay: float = 1e-4


PAPER_BUDGETS: Mapping[str, Budget] = {
    "cat-seg": Budget(80_000, 4, 2e-4),
    "gsnet": Budget(30_000, 4, 2e-4),
    "ebseg": Budget(120_000, 16, 1e-4, 0.05),
}
"""Table A1 of MM-OVSeg, and the released settings."""

Budgets = Literal["paper", "equal"]
"""Each method with its authors' budget, as the paper compares them; or all with MM-OVSeg's."""

DEVICES = ("auto", "cpu", "cuda", "mps")
CMU_EPOCHS = 50
"""Ours, as the paper doesn't say."""


@dataclass(frozen=True)
class ExperimentRecipe:
    """Everything that a training depends on, besides its pairs.

    Attributes:
        scenes: training scenes of each suite.
        scene_side: their side in pixels.
        cmu: distillation of the SAR encoder.
        cmu_loop: its steps and rates.
        stage2: samples of the fusion networks.
        loop: their steps and rates, the same for all without a budget of their own.
        architecture: of :data:`ARCHITECTURES`.
        backbones: CLIP and DINO by name; None for the embedded pair of each seed.
        budgets: of single methods.
        threads: of the processor; None leaves that to the libraries.
    """

    scenes: int = 300
    scene_side: int = 160
    cmu: CMURecipe = field(
        default_factory=lambda: CMURecipe(
            blocks=(1, 3, 4),
            positions=32,
            batch=32,
            contrast=ContrastRule(temperature=0.2),
            samples=SampleRule(side=64, crops=(64, 96), cover=None, jitter=False),
        )
    )
    cmu_loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(
            steps=500, rate=6e-4, warm_up=0.1, floor=0.05, weight_decay=0.01, log_every=10, save_every=50
        )
    )
    stage2: Stage2Recipe = field(
        default_factory=lambda: Stage2Recipe(
            batch=8,
            samples=SampleRule(side=96, crops=(96, 128, 160), cover=(0.0, 1.0), clear=0.1, without_sar=0.1),
        )
    )
    loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(steps=450, rate=1.5e-3, warm_up=0.05, log_every=10, save_every=50)
    )
    architecture: str = "tiny"
    backbones: tuple[str, str] | None = None
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    threads: int | None = 1  # two contending threads are slower than one, on networks so small

    @classmethod
    def full(
        cls,
        architecture: str = "vit-b",
        *,
        clip: str = "",
        dino: str = "",
        budgets: Budgets = "paper",
        steps: int = 0,
        batch: int = 0,
        side: int = 0,
        device: str = "auto",
        devices: int = 1,
        precision: str = "32-true",
        workers: int = 4,
    ) -> Self:
        """The papers' recipe.

        Stage 2 is published; of CMU the loss and the layers' "multi-scale" are, and the rest is ours (see
        :mod:`rsovlib.fusion.cmu`): 256 positions, tau 0.07, AdamW at 1e-4 with a decay of 0.05 and 5 % warm-up, batches
        of 64.

        Args:
            architecture: ``"vit-b"``, ``"vit-l"``, or ``"tiny"`` for a try of everything with the embedded backbones.
            clip: another one than the architecture's, as :mod:`rsovlib.fusion.named` reads it.
            dino: likewise.
            budgets: see :data:`Budgets`.
            steps: in place of all methods' own, and CMU's; 0 leaves them.
            batch: likewise.
            side: of the samples, likewise.
            device: a kind of :data:`DEVICES`.
            devices: how many of them.
            precision: as Fabric has it; the papers' is 32-bit with a GPU's TF32.
            workers: processes that read samples ahead, of each device.

        Raises:
            InputError: an unknown architecture, device or choice of budgets.
        """
        if architecture not in ARCHITECTURES:
            raise unknown_name("architecture", architecture, ARCHITECTURES)
        if budgets not in ("paper", "equal"):
            raise unknown_name("choice of budgets", budgets, ("paper", "equal"))
        if device not in DEVICES:
            raise unknown_name("kind of device to train on", device, DEVICES)
        size = ARCHITECTURES[architecture]
        where: dict[str, Any] = {"accelerator": device, "devices": devices, "precision": precision, "workers": workers}
        loop = replace(PAPER_LOOPS.get(architecture, PAPER_LOOPS["vit-b"]), matmul="high", **where)
        cmu_loop = LoopSettings(
            1, 1e-4, warm_up=0.05, weight_decay=0.05, save_every=200, log_every=20, matmul="high", **where
        )
        recipe = cls(
            scenes=0,
            scene_side=0,
            cmu=CMURecipe(blocks=size.cmu_blocks, samples=SampleRule.papers(size.fusion.size, jitter=False)),
            cmu_loop=cmu_loop,
            stage2=Stage2Recipe(batch=size.batch, samples=SampleRule.papers(size.fusion.size)),
            loop=loop,
            architecture=architecture,
            backbones=(clip or size.clip, dino or size.dino),
            budgets=PAPER_BUDGETS if budgets == "paper" else {},
            threads=None,
        )
        return recipe.sized(steps, batch, side)

    def sized(self, steps: int = 0, batch: int = 0, side: int = 0) -> Self:
        """The same with other numbers of steps and samples and another side, for all methods and CMU; 0 leaves them."""
        found = self
        if steps:
            found = replace(found, budgets={name: replace(one, steps=steps) for name, one in found.budgets.items()})
            found = replace(found, loop=replace(found.loop, steps=steps), cmu_loop=replace(found.cmu_loop, steps=steps))
        if batch:
            found = replace(found, budgets={name: replace(one, batch=batch) for name, one in found.budgets.items()})
            found = replace(found, stage2=replace(found.stage2, batch=batch), cmu=replace(found.cmu, batch=batch))
        if side:
            rules = [replace(one.samples, **_square(side, one.samples)) for one in (found.stage2, found.cmu)]
            found = replace(
                found, stage2=replace(found.stage2, samples=rules[0]), cmu=replace(found.cmu, samples=rules[1])
            )
        return found

    def of_method(self, method: str) -> tuple[Stage2Recipe, LoopSettings]:
        """Samples and loop of one method: with its own budget, and at its own size where the papers' rule is used."""
        stage2, loop = self.stage2, self.loop
        budget = self.budgets.get(method)
        if budget is not None:
            loop = replace(loop, steps=budget.steps, rate=budget.rate, weight_decay=budget.weight_decay)
            stage2 = replace(stage2, batch=budget.batch)
        own = ARCHITECTURES[self.architecture]
        if method == "ebseg" and stage2.samples == SampleRule.papers(own.fusion.size):
            stage2 = replace(stage2, samples=SampleRule.papers(own.ebseg.size))
        return stage2, loop

    def cmu_steps(self, pairs: int, epochs: int = CMU_EPOCHS) -> Self:
        """The same with as many steps of CMU as let it see so many pairs so often."""
        return replace(self, cmu_loop=replace(self.cmu_loop, steps=max(1, math.ceil(epochs * pairs / self.cmu.batch))))

    def backbones_of(self, seed: int) -> tuple[str, str]:
        """Names of CLIP and DINO.

        Raises:
            InputError: the embedded models have no such seed.
        """
        if self.backbones is not None:
            return self.backbones
        if seed not in range(len(BACKBONES)):
            raise InputError(f"The embedded models have the seeds 0 to {len(BACKBONES) - 1}, not {seed}.")
        return BACKBONES[seed]

    def with_seed(self, seed: int) -> Self:
        """The same with the loops' seed."""
        return replace(self, cmu_loop=replace(self.cmu_loop, seed=seed), loop=replace(self.loop, seed=seed))

    def shorter(self, share: float) -> Self:
        """The same with a share of the steps, at least two: for a look at whether everything works."""
        shortened = [replace(x, steps=max(2, round(share * x.steps))) for x in (self.cmu_loop, self.loop)]
        return replace(self, cmu_loop=shortened[0], loop=shortened[1], scenes=max(8, round(share * self.scenes)))


def network_config(method: str, architecture: str = "tiny", readings: str = "corrected") -> FusionConfig:
    """The network of a method.

    Args:
        method: of :data:`METHODS`, but EBSeg, which has a configuration of its own.
        architecture: of :data:`ARCHITECTURES`.
        readings: of :data:`READINGS`.

    Raises:
        InputError: there is no such method, architecture or reading, or it is of another kind.
    """
    known = [name for name in METHODS if name != "ebseg"]
    if method not in known:
        raise unknown_name("method of the experiment", method, known)
    if architecture not in ARCHITECTURES:
        raise unknown_name("architecture", architecture, ARCHITECTURES)
    switch = method if method in ("cat-seg", "gsnet") else "mm-ovseg"
    config = FusionConfig.for_method(switch, ARCHITECTURES[architecture].fusion)
    return replace(config, sar_clip=method in WITH_SAR_CLIP, readings=named_readings(readings))


def named_readings(name: str) -> Readings:
    """One of :data:`READINGS`.

    Raises:
        InputError: there is none of that name.
    """
    if name not in READINGS:
        raise unknown_name("reading", name, READINGS)
    return Readings(**READINGS[name])


def _square(side: int, rule: SampleRule) -> dict[str, Any]:
    return {"side": side, "crops": (side,), "short_side": None if rule.short_side is None else side}
