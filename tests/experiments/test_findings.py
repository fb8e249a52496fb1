"""Findings: what is claimed, what the evidence says, and that the evidence is computed."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from rsovlib.errors import InputError
from rsovlib.experiments import findings as findings_module
from rsovlib.experiments.findings import OUTCOMES, Finding, findings_frame, record_findings
from rsovlib.experiments.fusion.findings import mmovseg_findings
from rsovlib.experiments.fusion.released import (
    alignment_panels,
    displacement,
    full_size,
    gradient_of_unlabelled,
    sizes,
)
from rsovlib.experiments.sdci.findings import sdci_findings

SDCI = {
    "averages": "does not hold",
    "gains": "does not hold",
    "marks": "does not hold",
    "isaid-protocols": "not comparable",
    "average-without-isaid": "holds",
    "cass-gid": "unclear",
    "wording": "not comparable",
    "gflops-offset": "does not hold",
    "ablation": "holds",
    "steps-by-wording": "unclear",
    "chosen-words": "unclear",
    "tau": "does not hold",
    "ground-sampling": "does not hold",
}
MMOVSEG = {
    "parameters": "holds",
    "position-tables": "does not hold",
    "parts": "holds",
    "patch-size": "does not hold",
    "sar-alignment": "does not hold",
    "unseen-as-negatives": "does not hold",
    "class-names": "does not hold",
    "class-order": "does not hold",
    "seen-and-unseen": "holds",
    "ablation": "unclear",
    "gain-with-clouds": "does not hold",
    "where-the-gain-is": "holds",
    "budgets": "not comparable",
}


@pytest.mark.parametrize(("make", "expected"), [(sdci_findings, SDCI), (mmovseg_findings, MMOVSEG)])
def test_outcomes_and_evidence(make, expected):
    found = make()
    assert {one.name: one.outcome for one in found} == expected
    assert set(expected.values()) <= set(OUTCOMES)
    for one in found:
        assert len(one.frame()) == len(one.evidence) > 0
        assert one.claim.endswith(".")
        assert one.because.endswith(".")
        cells = re.findall(r"<td[^>]*>(.*?)</td>", one._repr_html_(), re.S)
        assert len(cells) == one.frame().size
        assert not {"nan", "None", "-0", "True", "False"} & set(cells), "a page for people"
        assert "nan" not in repr(one)
    assert list(findings_frame(found).index) == list(expected)


def test_findings_are_recorded_where_numbers_decide(monkeypatch):
    recorded = {}
    monkeypatch.setattr(
        findings_module, "record", lambda row, column, metric, value, **_: recorded.update({(row, column): value})
    )
    evidence = ({"place": "here", "number": 1},)
    record_findings(
        Finding(name, "So it is.", outcome, "It was seen.", evidence, "page 1")
        for name, outcome in (("a", "holds"), ("b", "does not hold"), ("c", "unclear"))
    )
    assert {row: value for (row, column), value in recorded.items() if column == "claim"} == {"a": 1, "b": 0}
    assert recorded["all findings", "unclear"] == 1
    assert recorded["all findings", "not comparable"] == 0


def test_full_size_networks_have_the_published_sizes():
    assert sizes(full_size("mm-ovseg")) == (331_959_698, 31_170_449)
    assert sizes(full_size("gsnet")) == (243_988_242, 29_006_865)
    assert sizes(full_size("mm-ovseg", "ViT-L"))[1] == 79_864_209
    # CLIP's position tables: (14 * 14 + 1) * 768 of the images, 77 * 512 of the texts.
    with_tables = sizes(full_size("mm-ovseg", position_tables=True))[1]
    assert with_tables - 31_170_449 == 197 * 768 + 77 * 512
    with pytest.raises(InputError):
        full_size("mm-ovseg", "ViT-H")


@pytest.mark.parametrize("side", [256, 384, 1024])
def test_displacement_against_its_closed_form(side: int):
    """An optical pixel x shows the place (x + 0.5) side / 384 - 0.5, a SAR pixel x the place x."""
    away = displacement(side)
    place = np.clip((np.arange(384) + 0.5) * side / 384 - 0.5, 0, side - 1)
    off = (place - np.arange(384)) * 384 / side
    expected = np.hypot(off[:, None], off[None])
    inside = min(side, 384)
    np.testing.assert_allclose(away[:inside, :inside], expected[:inside, :inside], atol=1e-9)
    assert np.isnan(away[inside:]).all()
    assert np.isnan(away[:, inside:]).all()
    mirrored = displacement(side, flip=True)[:inside, :inside]
    np.testing.assert_allclose(
        mirrored,
        np.hypot(off[:, None], ((place[::-1] - np.arange(384)) * 384 / side)[None])[:inside, :inside],
        atol=1e-9,
    )


def test_gradients_where_there_is_no_label():
    """The sigmoid's 0.5 less the target, over 2 classes and 16 pixels, or over the 12 labelled ones."""
    released, labels = gradient_of_unlabelled(True)
    left_out, _ = gradient_of_unlabelled(False)
    target = np.stack([labels == 0, labels == 1])
    np.testing.assert_allclose(released, (0.5 - target) / 32, atol=1e-9)
    np.testing.assert_allclose(left_out, (0.5 - target) / 24 * (labels != 255), atol=1e-9)


def test_panels_of_a_pair():
    optical, released, aligned, distance = (panel.values for panel in alignment_panels(2_000_003, 64))
    assert optical.shape == released.shape == aligned.shape == (384, 384, 3)
    assert (released[64:] == 128).all()
    # The corner is the file itself, the aligned one the same enlarged.
    small = np.asarray(Image.fromarray(aligned).resize((64, 64), Image.Resampling.BOX), float)[..., 0]
    assert np.corrcoef(small.ravel(), released[:64, :64, 0].ravel())[0, 1] > 0.95
    assert distance.shape == (384, 384)


def test_evidence_has_as_many_decimals_as_its_smallest_number_needs():
    def cells(*numbers: float) -> list[str]:
        rows = tuple({"row": str(index), "number": number} for index, number in enumerate(numbers))
        one = Finding("a", "A.", "holds", "B.", rows, "here")
        return re.findall(r"<td[^>]*>(.*?)</td>", one._repr_html_(), re.S)

    assert cells(41.401, 40.41, 0.0) == ["41.40", "40.41", "0.00"]
    assert cells(1.0, 0.00079) == ["1.00000", "0.00079"]
    assert cells(1.0, 11.0) == ["1", "11"]
