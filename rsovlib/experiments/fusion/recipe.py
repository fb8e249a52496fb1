"""The settings of the embedded experiment, in one place: what the cards, the notebooks and the checkpoints quote.

All methods of a seed see the same samples in the same order for the same number of steps; they differ in what they are
made of.  Everything was chosen on validation scenes (seeds from 1,000,000 on); tests begin at 2,000,000.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from rsovlib.errors import unknown_name
from rsovlib.fusion.augment import SampleRule
from rsovlib.fusion.cmu import CMURecipe
from rsovlib.fusion.config import FusionConfig
from rsovlib.fusion.fabric_loop import LoopSettings
from rsovlib.fusion.infonce import ContrastRule
from rsovlib.fusion.stage2 import Stage2Recipe

TRAIN_SUITES = ("mm-ovseg-pie-cloud", "mm-ovseg-ddhr-sk", "mm-ovseg-oem-thick")
"""Each step's batch is of one of them, and names that suite's seen classes.  The buildings that OEM keeps unseen are
part of the other two's "city", so that for OEM the *name* building is new to the trained layers, not the thing."""

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


@dataclass(frozen=True)
class ExperimentRecipe:
    """Everything that a training of the experiment depends on.

    Attributes:
        scenes: training scenes of each suite.
        scene_side: their side in pixels.
        cmu: distillation of the SAR encoder.
        cmu_loop: its steps and rates.
        stage2: samples of the fusion networks.
        loop: their steps and rates, the same for all.
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

    def with_seed(self, seed: int) -> ExperimentRecipe:
        """The same with the loops' seed."""
        return replace(self, cmu_loop=replace(self.cmu_loop, seed=seed), loop=replace(self.loop, seed=seed))

    def shorter(self, share: float) -> ExperimentRecipe:
        """The same with a share of the steps, at least two: for a look at whether everything works."""
        shortened = [replace(x, steps=max(2, round(share * x.steps))) for x in (self.cmu_loop, self.loop)]
        return replace(self, cmu_loop=shortened[0], loop=shortened[1], scenes=max(8, round(share * self.scenes)))


def network_config(method: str) -> FusionConfig:
    """The embedded network of a method.

    Raises:
        InputError: there is no such method, or it is of another kind.
    """
    known = [name for name in METHODS if name != "ebseg"]  # which has a configuration of its own
    if method not in known:
        raise unknown_name("method of the experiment", method, known)
    switch = method if method in ("cat-seg", "gsnet") else "mm-ovseg"
    config = FusionConfig.for_method(switch, FusionConfig.embedded())
    return replace(config, sar_clip=method in WITH_SAR_CLIP)
