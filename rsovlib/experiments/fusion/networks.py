"""Trained networks in the folders of their trainings: what each file says of itself, and how far it is the paper's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsovlib.errors import WeightsError
from rsovlib.experiments.fusion.recipe import ARCHITECTURES, ExperimentRecipe
from rsovlib.fusion.weights import read_record


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A file that the training notebook wrote in the full profile.

    Attributes:
        path: of the file.
        method: its name.
        seed: of weights and samples.
        train: what it was trained on.
        architecture: of :data:`rsovlib.experiments.fusion.recipe.ARCHITECTURES`.
        readings: of :data:`rsovlib.experiments.fusion.recipe.READINGS`.
        backbones: CLIP and DINO by name.
        record: everything else.
    """

    path: Path
    method: str
    seed: int
    train: str
    architecture: str
    readings: str
    backbones: tuple[str, str]
    record: Mapping[str, Any]

    @property
    def unlike_paper(self) -> str:
        """How its recipe differs from the paper's, in words; "" if it doesn't.

        Of such a network no number is comparable with the paper's. What the paper leaves open, or stands in for a
        network that can't be had by name, is another matter: see :attr:`stand_ins`.
        """
        if self.architecture not in ("vit-b", "vit-l"):
            return f"networks of size {self.architecture!r}"
        stage2, loop = ExperimentRecipe.full(self.architecture).of_method(self.method)
        wanted = {
            "steps": loop.steps,
            "batch": stage2.batch,
            "rate": loop.rate,
            "side": stage2.samples.side,
            "readings": "corrected",
            "CLIP": ARCHITECTURES[self.architecture].clip,
        }
        found = {
            "steps": self.record["loop"]["steps"],
            "batch": self.record["recipe"]["batch"],
            "rate": self.record["loop"]["rate"],
            "side": self.record["recipe"]["samples"]["side"],
            "readings": self.readings,
            "CLIP": self.backbones[0],
        }
        return "; ".join(f"{name} {found[name]}, not {value}" for name, value in wanted.items() if found[name] != value)

    @property
    def stand_ins(self) -> str:
        """What stands in for something that the paper used, in words; "" for nothing."""
        parts = []
        uses_dino = self.method not in ("cat-seg",)
        if self.architecture == "vit-b" and uses_dino and self.backbones[1] == ARCHITECTURES["vit-b"].dino:
            parts.append("DINO v1 in place of GSNet's remote-sensing DINO")
        pairs = (self.record.get("cmu") or {}).get("pairs", "")
        if pairs and not pairs.startswith("datasets/cmu-data/"):
            parts.append(f"CMU on {pairs} in place of CMU-Data")
        return "; ".join(parts)


def find_networks(folders: Iterable[str | Path]) -> list[TrainedNetwork]:
    """All networks in some folders, in the order of their names.

    Raises:
        WeightsError: a folder isn't there, or holds no network that says where it comes from.
    """
    found = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise WeightsError(f"There is no folder {folder}; give the folders that trainings wrote their networks to.")
        paths = sorted(folder.glob("*.safetensors"))
        networks = [_described(path) for path in paths]
        if not networks:
            raise WeightsError(f"{folder} holds no trained network; give the folder of a training in the full profile.")
        found += networks
    return found


def _described(path: Path) -> TrainedNetwork:
    record = read_record(path)["record"]
    try:
        return TrainedNetwork(
            path,
            record["method"],
            record["seed"],
            record["train"],
            record["architecture"],
            record["readings"],
            (record["backbones"][0], record["backbones"][1]),
            record,
        )
    except (KeyError, IndexError) as error:
        raise WeightsError(
            f"{path} doesn't say what it was trained on ({error} is missing); train it again."
        ) from error
