"""What a table's notebook settles in its first cell: which networks are scored, and on what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rsovlib.experiments.fusion.evaluation import (
    METHOD_TITLES,
    available_methods,
    given_seeds,
    keep_scores,
    use_networks,
    why_not,
)
from rsovlib.experiments.fusion.networks import TrainedNetwork
from rsovlib.experiments.fusion.settings import chosen_settings, title_of


@dataclass(frozen=True)
class Bench:
    """What is compared.

    Attributes:
        methods: those that can be scored, in the table's order.
        seeds: of their weights.
        settings: key -> source of the test scenes.
        missing: method -> why it can't be scored.
        networks: of the full profile; none where those are scored that ship.
    """

    methods: list[str]
    seeds: list[int]
    settings: dict[str, str]
    missing: dict[str, str] = field(default_factory=dict)
    networks: list[TrainedNetwork] = field(default_factory=list)

    @property
    def source(self) -> str:
        """Of the first setting, for tables of one."""
        return next(iter(self.settings.values()))

    def has(self, *methods: str) -> bool:
        """Whether all of these can be scored."""
        return all(method in self.methods for method in methods)

    def story(self) -> str:
        """What is scored on what, in words."""
        lines = [f"{key}: {title_of(key)}, scenes of {source}" for key, source in self.settings.items()]
        lines += [f"{METHOD_TITLES[method]} is not run: {reason}" for method, reason in self.missing.items()]
        for one in self.networks:
            about = "; ".join(part for part in (one.unlike_paper, one.stand_ins) if part)
            lines.append(f"{one.path.name}, seed {one.seed}, trained on {one.train}{': ' * bool(about)}{about}")
        return "\n".join(lines)


def prepare(
    networks: Sequence[str] = (),
    *,
    train: str = "",
    test: str = "",
    seeds: str = "",
    scores: str = "",
    device: str = "cpu",
) -> Bench:
    """Settles networks, scenes and where scores are kept, for everything that is asked of them afterwards.

    Args:
        networks: folders of trainings in the full profile; none takes the networks that ship.
        train: training set of the networks; "" with ``test`` takes the six suites of the embedded profile.
        test: what they are tested on; see :func:`rsovlib.experiments.fusion.settings.chosen_settings`.
        seeds: "0, 1, 2"; "" takes all.
        scores: folder of a run whose scores are taken over, and stored in; "" stores none.
        device: where networks compute.

    Raises:
        InputError: networks without a training set, or settings that the paper doesn't have.
        WeightsError: a folder that isn't there or holds no network.
    """
    keep_scores(scores)
    found = use_networks(networks, device)
    if found and not train:
        sets = sorted({one.train for one in found})
        train = sets[0] if len(sets) == 1 else train
    settings = chosen_settings(train, test)
    chosen = given_seeds(seeds)
    missing = {}
    if found:
        source = next(iter(settings.values()))
        reasons = {method: why_not(method, chosen[0], source) for method in METHOD_TITLES}
        missing = {method: reason for method, reason in reasons.items() if reason}
    methods = [method for method in available_methods() if method not in missing]
    return Bench(methods, chosen, settings, missing, found)


def numbers(text: str) -> list[float]:
    """Numbers from a notebook's parameter, "0, 0.5, 1"; none from ""."""
    return [float(part) for part in text.split(",") if part.strip()]
