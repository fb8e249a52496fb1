"""Sweeps over pairs of parameters: which settings, against what, and what the heat maps show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rsovlib.errors import InputError
from rsovlib.experiments.labelled import labelled_tiles
from rsovlib.experiments.sdci.sensitivity import GROUPS, Axis, plot_sweep, record_sweep, settings_of, sweep
from rsovlib.metrics import SegmentationMetrics, compare
from rsovlib.plots.heatmaps import HeatMap, plot_heat_maps
from rsovlib.segmenters import SDCI, SDCIConfig, make_segmenter

AXES = (Axis("beta", "β", (0.1, 3.0)), Axis("alpha", "α", (0.0, 0.9)), Axis("tau", "τ", (0.07, 7.0)))


@pytest.fixture(scope="module")
def sdci() -> SDCI:
    return make_segmenter("sdci", device="cpu")


@pytest.fixture(scope="module")
def tiles():
    return labelled_tiles("suites/sdci-gid", protocol="sdci", limit=3, quick=False, split="validation", size=64)


@pytest.fixture(scope="module")
def found(sdci, tiles):
    return sweep(sdci, tiles, "original", AXES, progress=False)


def test_the_defaults_are_on_every_axis_of_every_group():
    for config in (SDCIConfig.official(), SDCIConfig.embedded()):
        for axes in GROUPS.values():
            assert all(axis.around(config) == axis for axis in axes)
    assert Axis("beta", "β", (0.1, 0.3)).around(SDCIConfig(beta=0.2)).values == (0.1, 0.2, 0.3)


def test_settings_differ_from_the_default_in_two_values_at_most():
    settings = settings_of(AXES, (0.1, 0.9, 0.07))
    assert settings[0] == (0.1, 0.9, 0.07)
    assert len(settings) == len(set(settings)) == 1 + 3 + 3
    assert (3.0, 0.0, 7.0) not in settings


def test_tiles_are_those_of_validation(tiles):
    assert [name for name, _, _ in tiles] == ["sdci-gid 1000000", "sdci-gid 1000050", "sdci-gid 1000099"]
    assert all(image.shape == (64, 64, 3) for _, image, _ in tiles)
    assert "64 x 64" in tiles.version
    assert "validation" in tiles.version


def test_a_difference_is_the_paired_one_of_two_segmenters(sdci, tiles, found):
    meters = []
    for beta in (3.0, sdci.config.beta):
        segmenter = SDCI(sdci.clip, sdci.dino, replace(sdci.config, beta=beta))
        meter = SegmentationMetrics(
            tiles.classes, ignore_index=255, boundary_tolerance=None, boundary_width=None, keep_images=True
        )
        for name, image, truth in tiles:
            meter.update(segmenter(image, tiles.prompts("original")).labels, truth, image=name)
        meters.append(meter)
    expected = compare(*meters).difference
    got = found.difference(found.with_values(beta=3.0))
    # The warm start moves a solution by the solver's tolerance.
    assert (got.value, got.low, got.high) == pytest.approx((expected.value, expected.low, expected.high), abs=5e-3)
    assert found.difference(found.default).value == 0
    assert not found.differs(found.default)
    assert found.miou() == pytest.approx(meters[1].compute()["miou"])


def test_settings_that_were_not_scored(found):
    with pytest.raises(InputError, match="alphaa"):
        found.with_values(alphaa=0.5)
    with pytest.raises(InputError, match="two parameters"):
        found.with_values(beta=3.0, alpha=0.0, tau=7.0)


def test_heat_maps_and_tables_agree(found, tiles):
    across, up = found.axes[0], found.axes[1]
    one = found.heat_map(across, up)
    assert one.default == (1, 0)
    assert one.value[1, 0] == 0
    setting = found.with_values(beta=3.0, alpha=0.0)
    assert one.value[0, 1] == pytest.approx(100 * found.difference(setting).value)
    assert bool(one.unsure[0, 1]) is not found.differs(setting)
    table = found.table()
    assert len(table) == 3
    assert table.loc[("β", "3"), "difference (points)"].startswith(f"{one.value[1, 1]:+.2f} [")
    assert "6 settings beside the default" in found.summary()
    assert found.seconds_per_setting > 0
    rows = record_sweep(found, "BCDR", tiles)
    assert [(row.row, row.column) for row in rows] == [
        ("BCDR, default", "default"),
        ("BCDR, beta", "3"),
        ("BCDR, alpha", "0"),
        ("BCDR, tau", "7"),
    ]
    assert rows[1].value == pytest.approx(one.value[1, 1])
    figure = plot_sweep(found, "title")
    assert sum(axes.get_xlabel() != "" for axes in figure.axes) == 3
    figure.draw_without_rendering()


def test_only_unsure_cells_are_hatched_and_the_default_is_framed():
    value = np.array([[0.0, 2.0], [-1.0, 0.1]])
    one = HeatMap("x", "y", ["1", "2"], ["3", "4"], value, value - 0.5, value + 0.5, (0, 0))
    np.testing.assert_array_equal(one.unsure, [[True, False], [False, True]])
    axes = plot_heat_maps([one], label="points", columns=1).axes[0]
    hatched = [patch.get_xy() for patch in axes.patches if patch.get_hatch()]
    framed = [patch.get_xy() for patch in axes.patches if not patch.get_hatch()]
    assert (hatched, framed) == ([(0.5, 0.5)], [(-0.5, -0.5)])
    assert axes.images[0].get_clim() == (-2, 2)
