"""The register is complete and switches what it says; effects are paired differences; tables and plots say the same."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from rsovlib.errors import InputError
from rsovlib.experiments.labelled import labelled_tiles
from rsovlib.experiments.sdci.readings import (
    ALL,
    effects_table,
    holm,
    measure_readings,
    plot_readings,
    record_readings,
    register_table,
)
from rsovlib.experiments.sdci.register import KINDS, REGISTER, entry, measurable, paper_base
from rsovlib.segmenters import SDCI, SDCIConfig, make_segmenter


def test_the_register_is_complete():
    assert [one.id for one in REGISTER] == [f"D{number:02d}" for number in range(1, 35)]
    for one in REGISTER:
        assert one.kind in KINDS
        # Whatever can't be switched says why, or both readings are the same.
        assert one.switchable == (one.kind in ("differ", "silent"))
        assert one.switchable or one.reason or one.id in ("D19", "D22", "D24", "D28"), one.id
    with pytest.raises(InputError, match="D35"):
        entry("D35")


@pytest.mark.parametrize("one", measurable(gpu=True), ids=lambda one: one.id)
@pytest.mark.parametrize("config", [SDCIConfig.official(), SDCIConfig.embedded()], ids=["full", "embedded"])
def test_both_readings_differ_and_lie_within_the_ranges(one, config):
    paper, official = one.readings(config)
    assert paper != official
    # Switching there and back leaves nothing behind; the presence threshold has no value that is the program's.
    changed = {name for name, value in asdict(paper).items() if value != asdict(config)[name]}
    assert changed <= set(one.to_paper) | {"dino_scale"}
    back = one.readings(paper)[1]
    assert replace(back, presence_threshold=official.presence_threshold) == official


def test_the_official_configuration_is_the_programs_side_of_the_register():
    config = SDCIConfig.official()
    for one in measurable():
        if one.id not in ("D07", "D29"):  # without effect there; and solved to the optimum in either profile
            assert one.readings(config)[1] == config, one.id


def test_the_papers_profile_is_the_registers():
    assert paper_base(SDCIConfig.official()) == SDCIConfig.paper()


def test_the_other_reading_is_the_one_that_a_configuration_does_not_have():
    official = SDCIConfig.official()
    assert entry("D09").other(official) == ("paper", replace(official, centre="global_mean"))
    assert entry("D09").other(replace(official, centre="global_mean")) == ("official", official)
    assert entry("D29").other(official) == ("official", replace(official, solver="official"))
    assert entry("D04").other(SDCIConfig.embedded()) == ("paper", SDCIConfig.embedded(dino_scale=1.0))


def test_the_table_of_the_register():
    table = register_table()
    assert list(table.index) == [one.id for one in REGISTER]
    assert table.loc["D21", "switch to the paper's"] == "tau=7.0"
    assert table.loc["D19", "switch to the paper's"] == ""


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.5]) == pytest.approx([1.0, 1.0])
    corrected = holm([0.01, float("nan"), 0.02])
    assert corrected[[0, 2]] == pytest.approx([0.02, 0.02])
    assert np.isnan(corrected[1])


@pytest.fixture(scope="module")
def measured():
    sdci = make_segmenter("sdci", device="cpu")
    tiles = labelled_tiles("suites/sdci-gid", protocol="sdci", limit=3, quick=False, size=64)
    entries = [entry(name) for name in ("D07", "D10", "D25")]
    return sdci, tiles, measure_readings(sdci, tiles, "candidates", entries, progress=False)


def test_effects_are_what_two_runs_give(measured):
    sdci, tiles, readings = measured
    effects = {(effect.side, effect.entry): effect for effect in readings.effects()}
    assert list(effects) == [
        *((side, name) for side in ("official", "paper") for name in ("D07", "D10", "D25")),
        ("official", ALL),
    ]
    alone = SDCI(sdci.clip, sdci.dino, replace(sdci.config, value_path="values"))
    prompts = tiles.prompts("candidates")
    changed = [(alone(image, prompts).labels != sdci(image, prompts).labels).mean() for _, image, _ in tiles]
    effect = effects["official", "D10"]
    assert effect.changed.value == pytest.approx(np.mean(changed))
    assert effect.changed.low <= effect.changed.value <= effect.changed.high
    assert effect.difference.value == pytest.approx(effect.miou - readings.base("official").value)
    assert effect.to == "paper"
    assert effect.setting == "value_path = values"
    assert effects["official", ALL].setting.endswith(" settings")
    assert effects["paper", "D25"].to == "official"
    assert effects["official", ALL].difference.value == pytest.approx(
        readings.base("paper").value - readings.base("official").value
    )
    assert readings.tiles == 3
    assert readings.seconds_per_setting > 0


def test_d07_has_no_effect_where_the_map_is_normalised(measured):
    effects = {(effect.side, effect.entry): effect for effect in measured[2].effects()}
    effect = effects["official", "D07"]
    assert effect.to == "official"
    assert (effect.changed.value, effect.difference.value) == (0, 0)


def test_tables_plots_and_rows(measured):
    _, tiles, readings = measured
    effects = readings.effects()
    table = effects_table(effects)
    assert len(table) == len(effects)
    assert table.loc[("from official", "D07"), "pixels changed (%)"] == 0
    assert list(table.index.get_level_values("side")) == ["from official"] * 4 + ["from paper"] * 3
    figure = plot_readings(effects)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert [label[:3] for label in labels] == ["D07", "D10", "D25"]
    figure.draw_without_rendering()
    rows = record_readings(readings, effects, tiles)
    values = {(row.row, row.column, row.metric): row.value for row in rows}
    assert len(values) == 2 + 2 * len(effects) + 31
    assert values["D07", "from official", "changed pixels"] == 0
    assert values["D33", "from official", "difference"] is None
