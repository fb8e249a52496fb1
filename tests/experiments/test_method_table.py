"""Table 1: scores against a slow count, prompts, marks of stand-ins, the mean column, costs beside accuracy."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rsovlib.errors import InputError, WeightsError
from rsovlib.experiments.costs import Costs, Energy
from rsovlib.experiments.labelled import LabelledTiles, labelled_tiles
from rsovlib.experiments.papers import paper_table
from rsovlib.experiments.results import make_row
from rsovlib.experiments.sdci import cost_accuracy, method_table
from rsovlib.experiments.sdci.cost_accuracy import CostPoint, accuracy, draw_points, front, points_frame
from rsovlib.experiments.sdci.method_table import (
    AVERAGE,
    COLUMNS,
    MethodScores,
    ahead,
    beside_paper,
    gains_frame,
    mean_of_columns,
    methods_frame,
    open_sources,
    prompts_by_column,
    record_methods,
    run_methods,
    score_tiles,
)
from rsovlib.experiments.sdci.methods import ROWS, TableMethod, chosen_methods, not_run, settings_table, table_method
from rsovlib.metrics.uncertainty import Interval

SUITES = ("gid", "potsdam", "vaihingen", "loveda", "isaid")


class Toy:
    """A "method" whose labels depend on the words: pixels of value v get class (v + length of the first word) % 2."""

    def __init__(self, shift: int) -> None:
        self.shift = shift

    def __call__(self, image: np.ndarray, classes: list[str]) -> Any:
        return SimpleNamespace(labels=(image[..., 0].astype(np.int64) + len(classes[0]) + self.shift) % 2)

    def settings(self) -> dict[str, Any]:
        return {"method": "toy", "clip": "toy / none", "window": 8, "templates": ("a {}", "{}"), "logit_scale": 50.0}


def toy_tiles(count: int = 3) -> LabelledTiles:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2, (count, 4, 5, 3)).astype(np.uint8)
    truths = rng.integers(0, 2, (count, 4, 5)).astype(np.uint8)
    truths[:, 0, 0] = 255
    words = {"original": ["a", "bb"], "generalized": ["aa, x", "bb"]}
    return LabelledTiles(
        "sdci-gid", "1", ["one", "two"], count, words.__getitem__, lambda i: (f"tile {i}", images[i], truths[i])
    )


def toy_scores() -> tuple[MethodScores, LabelledTiles]:
    methods = [
        TableMethod("vanilla", ROWS["vanilla"], Toy(0), ""),
        TableMethod("sclip", ROWS["sclip"], Toy(1), ""),
        TableMethod("corrclip", ROWS["corrclip"], Toy(0), "superpixels stand in for SAM 2's masks"),
        TableMethod("sdci-v2", ROWS["sdci-v2"], Toy(1), ""),
    ]
    tiles, scores = toy_tiles(), MethodScores()
    score_tiles(scores, methods, tiles, progress=False)
    scores.methods.update({method.name: method for method in methods})
    return scores, tiles


def slow_miou(tiles: LabelledTiles, words: str, shift: int) -> float:
    """Class by class, pixel by pixel."""
    both, either = [0, 0], [0, 0]
    for _, image, truth in tiles:
        for row in range(4):
            for column in range(5):
                true = int(truth[row, column])
                if true == 255:
                    continue
                found = (int(image[row, column, 0]) + len(tiles.prompts(words)[0]) + shift) % 2
                for name in (0, 1):
                    both[name] += true == name == found
                    either[name] += name in (true, found)
    return 100 * float(np.mean([b / e for b, e in zip(both, either, strict=True)]))


def test_scores_are_those_of_a_slow_count_and_gains_are_their_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, tiles = toy_scores()
    recorded: list[tuple[Any, ...]] = []
    monkeypatch.setattr(method_table, "record", lambda *given, **fields: recorded.append((*given, fields)))
    scores.missing["sdci-v1"] = "no such network"
    record_methods(scores)
    values = {(row, column, metric): value for row, column, metric, value, _ in recorded}
    fields = {(row, column, metric): named for row, column, metric, _, named in recorded}
    for column, words in (("GID ori", "original"), ("GID gen", "generalized")):
        slow = {shift: slow_miou(tiles, words, shift) for shift in (0, 1)}
        assert slow[0] != slow[1]
        assert values["CLIP (vanilla)", column, "miou"] == pytest.approx(slow[0])
        assert values["SCLIP", column, "miou"] == pytest.approx(slow[1])
        assert values["SCLIP", column, "gain over vanilla"] == pytest.approx(slow[1] - slow[0])
        best = "sclip" if slow[1] > slow[0] else "corrclip"
        assert scores.best_compared(column) == best, "neither SDCI nor the reference"
        assert values["SDCI-v2", column, "gain over best compared"] == pytest.approx(slow[1] - max(slow.values()))
        assert (ROWS[best], column, "gain over best compared") not in values
        assert ("CLIP (vanilla)", column, "gain over vanilla") not in values
    named = fields["CorrCLIP", "GID ori", "miou"]
    assert named["note"] == "superpixels stand in for SAM 2's masks"
    assert named["parameters"]["method"]["window"] == 8
    assert named["parameters"]["method"]["templates"] == ["a {}", "{}"]
    assert (named["n"], named["unit"], named["dataset"]) == (3, "percent", "sdci-gid")
    assert values["SDCI-v1", "GID ori", "miou"] is None
    assert fields["SDCI-v1", AVERAGE, "miou"]["note"] == "no such network"
    assert values["SCLIP", AVERAGE, "miou"] is None
    assert "Potsdam ori" in fields["SCLIP", AVERAGE, "miou"]["note"]
    place = {"table": "t", "paper": "", "profile": "", "row": "SCLIP", "column": "GID ori", "metric": "miou"}
    given = {name: value for name, value in named.items() if name != "interval"}
    assert make_row(place | {"value": 1.0} | given).parameters["method"]["logit_scale"] == 50, "rows take it as it is"


def test_who_is_ahead_is_said_column_by_column() -> None:
    scores, _ = toy_scores()
    said = ahead(scores)
    for column in scores.columns:
        values = {name: scores.meters[name][column].compute()["miou"] for name in scores.methods if name != "vanilla"}
        best = max(values, key=lambda name: values[name])
        assert f"{ROWS[best]} " in said
        assert column in said
    scores.methods.pop("sdci-v2")
    assert "must be run" in ahead(scores)


def test_frames_for_people() -> None:
    scores, tiles = toy_scores()
    frame = methods_frame(scores)
    assert list(frame.index) == ["CLIP (vanilla)", "SCLIP", "CorrCLIP *", "SDCI-v2"]
    assert frame.loc["SCLIP", "GID ori"].startswith(f"{slow_miou(tiles, 'original', 1):.1f} [")
    assert "CLIP (vanilla)" not in gains_frame(scores).index, "nothing is compared with itself"
    assert gains_frame(scores, "best").loc["the best compared is", "GID ori"] in ("SCLIP", "CorrCLIP")
    both = beside_paper(scores, paper_table("sdci", "table1"))
    assert both.loc["SCLIP", ("GID ori", "paper")] == paper_table("sdci", "table1").value("SCLIP", "GID ori")
    assert both.loc["SCLIP", ("GID ori", "here")] == pytest.approx(slow_miou(tiles, "original", 1), abs=0.05)
    assert np.isnan(both.loc["CLIP (vanilla)", ("GID ori", "paper")]), "not in the paper's table"


def test_the_mean_is_over_the_papers_nine_columns() -> None:
    assert set(COLUMNS) == set(paper_table("sdci", "table1").columns) - {AVERAGE, "GFLOPs"}
    values = {
        column: Interval(10.0 * place, 10.0 * place - 3, 10.0 * place + 3) for place, column in enumerate(COLUMNS)
    }
    mean, note = mean_of_columns(values)
    assert mean is not None
    assert note == ""
    assert mean.value == pytest.approx(40)
    # four datasets with two wordings, 3 + 3 each, and one with one
    assert mean.high - mean.value == pytest.approx(np.sqrt(4 * 6**2 + 3**2) / 9)
    values.pop("iSAID ori")
    mean, note = mean_of_columns(values)
    assert mean is None
    assert "iSAID ori" in note


def test_prompts_are_the_manifests() -> None:
    found = {name: prompts_by_column(labelled_tiles(f"suites/sdci-{name}", protocol="sdci")) for name in SUITES}
    assert [column for columns in found.values() for column in columns] == list(COLUMNS)
    assert found["gid"]["GID gen"] == [
        "buildings",
        "agricultural land",
        "mountain forest",
        "flatland forest",
        "water body",
    ]
    assert found["potsdam"]["Potsdam gen"][0] == "ground, road, streets"
    assert list(found["isaid"]) == ["iSAID ori"]
    assert len(found["isaid"]["iSAID ori"]) == 15
    with pytest.raises(InputError):
        open_sources("suites/sdci-gid, suites/sdci-moon")


def test_methods_by_name_and_what_stands_in() -> None:
    assert chosen_methods("sdci-v2, sclip,vanilla") == ["vanilla", "sclip", "sdci-v2"]
    assert chosen_methods() == list(ROWS)
    with pytest.raises(InputError, match="sclip"):
        chosen_methods("sclipp")
    assert set(paper_table("sdci", "table1").rows) <= set(ROWS.values())
    marks = {name: table_method(name, profile="embedded", device="cpu").stand_in for name in chosen_methods("corrclip, "
             "cliper, segearth-ov, sclip, sdci-v2")}  # fmt: skip
    assert marks["sclip"] == ""
    for name, part in {
        "corrclip": "SAM 2",
        "cliper": "Stable Diffusion",
        "segearth-ov": "SimFeatUp",
        "sdci-v2": "v2",
    }.items():
        assert part in marks[name]
    with pytest.raises(InputError, match="embedded profile"):
        table_method("sdci-v1", profile="embedded")
    assert not not_run("full")


def test_settings_are_shown_and_released_thresholds_used_for_full_size_networks() -> None:
    method = table_method("sdci-v2", profile="embedded", device="cpu")
    shown = settings_table([method, table_method("naclip", profile="embedded", device="cpu")])
    assert shown.loc["NACLIP", "window (pixels)"] == "256, stride 192"
    assert shown.loc["SDCI-v2", "synonyms"] == "their mean"
    assert shown.loc["SDCI-v2", "stand-in"] == method.stand_in
    assert method.for_dataset("potsdam") is method.segmenter, "the embedded models have a threshold of their own"
    clip = replace(method.segmenter.clip, name="ViT-L-14-quickgelu")
    large = replace(method, segmenter=replace(method.segmenter, clip=clip))
    assert large.for_dataset("potsdam").config.presence_threshold == 0.0
    assert large.for_dataset("gid").config.presence_threshold == 0.5


def test_rows_whose_weights_are_missing_leave_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(name: str, **_: Any) -> TableMethod:
        if name == "corrclip":
            raise WeightsError("MetaCLIP is not here.")
        return TableMethod(name, ROWS[name], Toy(0), "")

    monkeypatch.setattr(method_table, "table_method", make)
    scores = run_methods(["sclip", "corrclip", "sdci-v1"], [toy_tiles()], profile="embedded", progress=False)
    assert list(scores.methods) == ["sclip"]
    assert scores.missing["corrclip"] == "MetaCLIP is not here."
    assert "embedded" in scores.missing["sdci-v1"]


def result(row: str, column: str, value: float | None, seed: int, half: float = 1.0) -> Any:
    content = {"paper": "sdci", "table": "sdci-table1", "row": row, "column": column, "metric": "miou", "value": value}
    interval = {"note": "why"} if value is None else {"low": value - half, "high": value + half}
    return make_row(content | interval | {"profile": "embedded", "dataset": "x", "seed": seed})


def test_accuracy_is_the_recorded_mean_or_made_of_the_columns() -> None:
    whole = [result("SCLIP", AVERAGE, 30.0 + seed, seed) for seed in range(3)]
    found = accuracy(whole, "SCLIP")
    assert found is not None
    assert found.value == pytest.approx(31)
    assert found.high - found.value > 1, "the seeds are a second source of doubt"
    parts = [result("SCLIP", column, 20.0, 0) for column in COLUMNS]
    made = accuracy([*parts, result("SCLIP", AVERAGE, None, 0)], "SCLIP")
    assert made is not None
    assert made.value == pytest.approx(20)
    assert accuracy(parts[1:], "SCLIP") is None
    assert accuracy(whole, "NACLIP") is None


def test_the_front_is_what_nothing_beats() -> None:
    points = {"cheap": (1, 10), "dear": (5, 30), "beaten": (6, 30), "as cheap, worse": (1, 9), "twin": (5, 30)}
    assert front(points) == {"cheap", "dear", "twin"}


def test_costs_are_drawn_with_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = [
        Costs(10, flops, (latency,), 0, Energy(None, None, ""), "cpu") for flops, latency in ((10**9, 0.1), (3e9, 0.5))
    ]
    points = [
        CostPoint("SCLIP", costs[0], 141.0, Interval(30, 28, 32), ""),
        CostPoint("CorrCLIP", costs[1], None, Interval(25, 20, 30), "superpixels"),
        CostPoint("CASS", costs[1], 3000.0, None, ""),
    ]
    figure = draw_points(points, "a title")
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert len(labels) == 3
    assert "(s an image)" in labels[0]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[:2] == ["1  SCLIP", "2  CorrCLIP"]
    assert "CASS" not in " ".join(legend), "nothing is drawn that was not measured"
    place = {
        "paper": "sdci",
        "table": "t",
        "profile": "embedded",
        "row": "SCLIP",
        "column": "one image",
        "dataset": "x",
    }
    recorded = [
        make_row(place | {"metric": "latency", "value": 0.2, "low": 0.1, "high": 0.3, "unit": "s", "note": "a range"}),
        make_row(place | {"metric": "energy", "value": None, "unit": "Wh", "note": "not measured: no codecarbon"}),
    ]
    own = cost_accuracy.costs_frame(recorded)
    assert own.index.name == "SCLIP"
    assert list(own.loc["latency"]) == [0.2, 0.1, 0.3, "s", ""]
    assert own.loc["energy", "to know"] == "not measured: no codecarbon"
    frame = points_frame(points)
    assert frame.loc["SCLIP", "on the front (latency)"] == "yes"
    assert frame.loc["CASS", "mIoU (percent) [95 %]"] == "not measured yet"
    assert cost_accuracy.full_size_gflops("vanilla") == cost_accuracy.full_size_gflops("maskclip")
    assert cost_accuracy.full_size_gflops("sdci-v3") is None
