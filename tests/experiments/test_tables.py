"""What the tables' notebooks call: labelled tiles, the ladder under several wordings, costs."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from rsovlib.errors import InputError
from rsovlib.experiments import costs
from rsovlib.experiments.costs import measure_costs, random_image, record_costs
from rsovlib.experiments.labelled import LabelledTiles, labelled_tiles
from rsovlib.experiments.sdci import ablation
from rsovlib.experiments.sdci.ablation import ladder_scores, record_ladder
from rsovlib.experiments.sdci.ladder import RUNGS, VALUE_PATH, ladder_labels, ladder_labels_by_wording
from rsovlib.segmenters import make_segmenter


def test_tiles_of_a_suite():
    tiles = labelled_tiles("suites/sdci-gid", protocol="sdci", limit=2)
    assert tiles.classes == ["built-up", "farmland", "forest", "meadow", "water"]
    assert tiles.prompts("generalized")[0] == "buildings"
    assert "2 of " in tiles.version
    found = list(tiles)
    assert len(found) == len(tiles) == 2
    for name, image, labels in found:
        assert name.startswith("sdci-gid ")
        assert image.shape == (*labels.shape, 3)
        assert image.dtype == labels.dtype == np.uint8
        assert set(np.unique(labels)) <= {0, 1, 2, 3, 4, 255}
    for wrong in ("suites/sdci-gidd", "sdci-gid", "elsewhere/x"):
        with pytest.raises(InputError):
            labelled_tiles(wrong, protocol="sdci")


def test_real_tiles_that_are_not_here(monkeypatch):
    monkeypatch.delenv("RSOV_DATA", raising=False)
    with pytest.raises(InputError, match="RSOV_DATA"):
        labelled_tiles("datasets/gid", protocol="sdci")


def test_wordings_share_the_networks_and_nothing_else():
    sdci = make_segmenter("sdci", device="cpu", window=64, overlap=16)
    image = random_image(80)[:, :72]
    wordings = {"a": ["water", "forest", "building"], "b": ["river, lake", "trees", "rooftop"]}
    together = ladder_labels_by_wording(sdci, image, wordings)
    for name, classes in wordings.items():
        alone = ladder_labels(sdci, image, classes)
        assert list(together[name]) == list(alone) == [VALUE_PATH, *RUNGS]
        for rung, labels in alone.items():
            np.testing.assert_array_equal(together[name][rung], labels)


def test_the_ladder_is_recorded_with_paired_gains(monkeypatch):
    """Three images of four pixels: the baseline has 2, 1, 2 right, the last rung all, the others as the baseline."""
    truth = np.array([[0, 0], [1, 1]], np.uint8)
    wrong = [np.array([[0, 1], [0, 1]]), np.array([[1, 1], [0, 1]]), np.array([[0, 1], [0, 1]])]

    def predicted(sdci, image, prompts):
        return {
            column: {
                rung: truth.astype(int) if rung == "+ CSCP" else wrong[image[0, 0, 0]] for rung in (VALUE_PATH, *RUNGS)
            }
            for column in prompts
        }

    monkeypatch.setattr(ablation, "ladder_labels_by_wording", predicted)
    images = [np.full((2, 2, 3), index, np.uint8) for index in range(3)]
    tiles = LabelledTiles(
        "toy", "1", ["a", "b"], 3, lambda words: ["a", words], lambda index: (f"tile {index}", images[index], truth)
    )
    recorded = []
    monkeypatch.setattr(ablation, "record", lambda *given, **fields: recorded.append((*given, fields)))
    scores = ladder_scores(None, tiles, {"ori": "x"}, progress=False)
    frame = record_ladder(scores, tiles, {rung: f"row {rung}" for rung in (VALUE_PATH, *RUNGS)})
    values = {(row, metric): (value, fields) for row, _, metric, value, fields in recorded}
    # classes a and b: intersections of 2 and 3 pixels, unions of 9 and 10, added up over the three images
    expected = 100 * np.mean([2 / 9, 3 / 10])
    assert values["row baseline", "miou"][0] == pytest.approx(expected)
    assert values["row + CSCP", "miou"][0] == pytest.approx(100)
    assert values["row + CSCP", "gain"][0] == pytest.approx(100 - expected)
    gain = values["row + CSCP", "gain"][1]
    assert gain["interval"].low > 0
    assert (gain["n"], gain["dataset"], gain["unit"]) == (3, "toy", "percent")
    assert values["row + CAF", "gain"][0] == 0
    assert ("row baseline", "gain") not in values
    assert list(frame.columns) == ["ori"]


@dataclass
class Backbone:
    model: nn.Module


class Toy:
    """A "segmenter" of one layer, (H W, 3) by (3, 5)."""

    def __init__(self):
        self.clip = self.dino = Backbone(nn.Linear(3, 5))
        self.calls = 0

    def __call__(self, image, classes):
        self.calls += 1
        with torch.inference_mode():
            return self.clip.model(torch.from_numpy(image).float().reshape(-1, 3))


def test_costs_of_a_network_that_can_be_counted_by_hand(monkeypatch):
    monkeypatch.setitem(sys.modules, "codecarbon", None)  # not installed
    toy = Toy()
    found = measure_costs(toy, random_image(12), ["a", "b"], repeats=3)
    assert found.parameters == 3 * 5 + 5, "a network that two branches share counts once"
    assert found.flops == 2 * 144 * 3 * 5
    assert len(found.latencies) == 3
    assert min(found.latencies) <= found.latency <= max(found.latencies)
    assert toy.calls == 5  # warm, counted, three times timed
    assert found.energy.watt_hours is None
    assert "not measured" in found.energy.assumptions
    rows = {row.metric: row for row in record_costs(found, "toy", "one image", dataset="image-12")}
    assert rows["flops"].value == pytest.approx(4320e-9)
    assert rows["parameters"].value == pytest.approx(20e-6)
    assert rows["energy"].value is None
    assert rows["energy"].note == rows["CO2 equivalent"].note == costs.NO_CODECARBON


def test_energy_where_codecarbon_is_installed():
    pytest.importorskip("codecarbon")
    without = measure_costs(Toy(), random_image(8), ["a"], repeats=1).energy
    assert without.watt_hours >= 0
    assert without.grams_co2 is None, "nobody guesses the country"
    assert "codecarbon, offline" in without.assumptions
    with_country = measure_costs(Toy(), random_image(8), ["a"], repeats=1, country="FRA").energy
    assert with_country.grams_co2 >= 0
    assert "electricity of FRA" in with_country.assumptions


def test_flops_of_sdci_follow_its_own_grid():
    """Four times the patches: more than four times the FLOPs, as attention is quadratic; parameters stay."""
    sdci = make_segmenter("sdci", device="cpu")
    small, large = (measure_costs(sdci, random_image(size), ["water", "forest"], repeats=1) for size in (48, 96))
    assert small.parameters == large.parameters > 2e6
    assert 4 * small.flops < large.flops < 16 * small.flops


@pytest.mark.parametrize("size", [5, 16, 37])
def test_random_images(size):
    image = random_image(size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, random_image(size))
