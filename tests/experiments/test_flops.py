"""FLOPs counted at full size without content."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rsovlib.errors import InputError
from rsovlib.experiments.papers import paper_table
from rsovlib.experiments.sdci import flops
from rsovlib.experiments.sdci.flops import (
    TABLE1_METHODS,
    Explained,
    FlopCount,
    Part,
    counted,
    explanation_frame,
    flops_of,
    meta_clip,
    meta_dino,
    native_frame,
    parts_frame,
    record_flops,
    two_numbers,
)


def vit(tokens: int, width: int, blocks: int, patch: int, joint: int = 0, prefix: int = 1) -> float:
    """A ViT by its formula: 24 n D^2 + 4 n^2 D a block, the patches' embedding, the projection."""
    n = tokens + prefix
    block = 24 * n * width**2 + 4 * n**2 * width
    return (blocks * block + 2 * tokens * 3 * patch**2 * width + 2 * n * width * joint) / 1e9


def test_counting_a_product():
    assert counted(lambda: torch.zeros(3, 5, device="meta") @ torch.zeros(5, 7, device="meta")) == 2 * 3 * 5 * 7 / 1e9


def test_networks_against_their_formula():
    from rsovlib.experiments.sdci.flop_recipes import _clip_pass, _dino_pass

    assert _clip_pass("B/16", 224) == pytest.approx(vit(196, 768, 12, 16, 512), rel=1e-12)
    assert _clip_pass("L/14", 448) == pytest.approx(vit(1024, 1024, 24, 14, 768), rel=1e-12)
    assert _dino_pass("DINO B/8", 384) == pytest.approx(vit(2304, 768, 12, 8), rel=1e-12)
    assert _dino_pass("DINOv2 B/14", 532) == pytest.approx(vit(1444, 768, 12, 14, prefix=5), rel=1e-12)


@pytest.mark.parametrize("row", ["SDCI-v1", "SDCI-v2"])
def test_sdci_is_counted_within_one_per_cent_of_the_papers_text(row: str):
    count = flops_of(TABLE1_METHODS[row], setting="table1")
    printed = paper_table("sdci", "gflops-text").value(row, "GFLOPs")
    one = Explained(row, printed, count, "text")
    assert abs(one.deviation) < 0.002
    assert one.verdict == "reproduced within 1 %"
    # What this package runs is less: no idle projections, sparse graphs.
    assert flops_of(TABLE1_METHODS[row]).gflops < count.gflops


@pytest.mark.parametrize("row", ["MaskCLIP", "ClearCLIP"])
def test_two_others_are_large_clips_in_four_windows(row: str):
    printed = paper_table("sdci", "table1").value(row, "GFLOPs")
    count = flops_of(TABLE1_METHODS[row], setting="table1")
    assert count.gflops == pytest.approx(printed, rel=0.001)
    # As released by their authors: the base network, one window.
    assert flops_of(TABLE1_METHODS[row]).gflops < vit(784, 768, 12, 16, 512)


def test_four_times_the_windows():
    small, large = (flops_of("clearclip", setting="table1", size=size).gflops for size in (448, 672))
    assert large == pytest.approx(4 * small, rel=1e-9)


def test_a_count_is_the_sum_of_its_parts_and_is_recorded(monkeypatch):
    recorded = []
    monkeypatch.setattr(flops, "record", lambda *given, **fields: recorded.append((given, fields)))
    count = FlopCount("toy", "native", "somehow", (Part("a", 1.5), Part("b", -0.5, "unseen")), "the rest", 0.0)
    assert count.gflops == 1.0
    record_flops("row", count)
    (given, fields) = recorded[0]
    assert given == ("row", "GFLOPs", "flops", 1.0)
    assert (fields["unit"], fields["profile"]) == ("GFLOP", "full")
    assert fields["dataset"] == "image-512 in the authors' own setting"
    assert fields["note"].endswith("without the rest")
    assert list(parts_frame([count])["GFLOP"]) == [1.5, -0.5]
    record_flops("row", replace(count, setting="table1"))  # which alone is the paper's
    assert recorded[1][1]["dataset"] == "image-512"
    frame = explanation_frame([Explained("row", 2.0, count)])
    assert frame.loc[("row", "Table 1"), "verdict"] == "partly explained"


@pytest.mark.parametrize(
    ("counted_as", "missing", "verdict"),
    [
        (99.5, "", "reproduced within 1 %"),
        (96, "", "within 5 %"),
        (80, "", "not identified"),
        (106, "x", "not identified"),
    ],
)
def test_verdicts(counted_as: float, missing: str, verdict: str):
    count = FlopCount("toy", "table1", "", (Part("a", counted_as),), missing, 0.0)
    assert Explained("row", 100.0, count).verdict == verdict


def test_wrong_questions():
    for wrong in (
        lambda: flops_of("clip"),
        lambda: flops_of("sclip", setting="other"),
        lambda: flops_of("sclip", size=3),
        lambda: flops_of("sclip", classes=0),
        lambda: meta_clip("H/14"),
        lambda: meta_dino("B/8"),
        lambda: meta_clip("B/16").encode_text(["a"]),
    ):
        with pytest.raises(InputError):
            wrong()


def test_tables_of_counts_for_people():
    count = FlopCount("sclip", "native", "somehow", (Part("a", 1.5),), "the rest", 0.0)
    assert native_frame({"SCLIP": count}).loc["SCLIP", "not counted"] == "the rest"
    assert parts_frame([count]).index[0] == ("SCLIP", "a"), "as the paper calls it"
    both = [Explained("x", 3.0, count, "Table 1"), Explained("x", 1.0, count, "text"), Explained("y", 2.0, count)]
    frame = two_numbers(both)
    assert list(frame.index) == ["x"]
    assert frame.loc["x", "difference"] == 2.0


def test_a_printed_number_is_explained_in_one_sentence(monkeypatch: pytest.MonkeyPatch):
    def explained(gflops: float, missing: str = "") -> Explained:
        return Explained(
            "row", 100.0, FlopCount("toy", "table1", "L/14, four windows", (Part("a", gflops),), missing, 0.0)
        )

    assert explained(100.5).sentence == "the printed 100 is explained by L/14, four windows: 100.5 GFLOP (+0.5 %)"
    assert "no setting that was tried" in explained(120).sentence
    assert explained(60, "the U-Net").sentence.endswith("(-40.0 %), without the U-Net")
    recorded = []
    monkeypatch.setattr(flops, "record", lambda *given, **fields: recorded.append(fields))
    native = FlopCount("toy", "native", "B/16, one window", (Part("a", 5.0),), "", 0.0)
    record_flops("row", native, explained=explained(100.5))
    note = recorded[0]["note"]
    assert note.startswith("counted as its authors run it: B/16, one window; the printed 100 is explained by L/14")
