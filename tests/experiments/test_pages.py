"""A notebook as a page: formulas that any browser reads without the network, pictures inside, dead panels left out."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from latex2mathml.exceptions import MissingEndError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from rsovlib.experiments import pages
from rsovlib.experiments.pages import write_html
from rsovlib.resources import resource

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="


def page_of(folder: Path, *cells: nbformat.NotebookNode) -> str:
    notebook = new_notebook(cells=list(cells))
    nbformat.write(notebook, folder / "n.ipynb")
    return write_html(folder / "n.ipynb", folder / "n.html").read_text(encoding="utf-8")


def test_formulas_become_mathml(tmp_path):
    text = r"Rest: $\alpha P S$, `$not$`, and" + "\n\n" + r"$$\min_q \frac{a}{b} \sum_e w_e |q_i - q_j|$$"
    page = page_of(tmp_path, new_markdown_cell(text))
    assert len(re.findall(r'<math [^>]*display="inline"', page)) == 1
    assert len(re.findall(r'<math [^>]*display="block"', page)) == 1
    for part in ("<mfrac>", "<munder>", "<mi>α</mi>"):
        assert part in page
    assert "<code>$not$</code>" in page
    assert "$$\\min" not in page


def test_what_is_no_formula_stays_as_it_was_written(tmp_path):
    page = page_of(tmp_path, new_markdown_cell(r"$\frac{1}$ and $\begin{nonsense}$"))
    assert r"$\begin{nonsense}$" in page or "<math" in page  # shown in one way or the other, never lost
    assert "<h1" not in page


def test_formulas_that_cannot_be_read_show_their_source(tmp_path, monkeypatch):
    def unreadable(_formula: str, display: str) -> str:
        raise MissingEndError(display)

    monkeypatch.setattr(pages, "convert", unreadable)
    page = page_of(tmp_path, new_markdown_cell("$a < b$ and\n\n$$c$$\n\n\\begin{align}d\\end{align}"))
    for source in ("$a &lt; b$", "$$c$$", r"\begin{align}d\end{align}"):
        assert source in page


def test_nothing_comes_from_the_network_and_panels_are_left_out(tmp_path):
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "PANEL"}
    outputs = [new_output("display_data", {"image/png": PIXEL}), new_output("display_data", widget)]
    cell = new_code_cell("1", outputs=outputs)
    page = page_of(tmp_path, new_markdown_cell("# Title"), cell)
    assert "data:image/png;base64," in page
    assert "PANEL" not in page
    assert not re.findall(r'(?:src|href)="https?://', page)


@pytest.mark.parametrize("lesson", ["03_graphs_and_random_walks", "04_total_variation"])
def test_every_formula_of_a_lesson_is_read(lesson, tmp_path, monkeypatch):
    unread: list[str] = []
    mathml = pages._mathml

    def watched(formula: str, display: str) -> str:
        found = mathml(formula, display)
        if not found:
            unread.append(formula)
        return found

    monkeypatch.setattr(pages, "_mathml", watched)
    page = write_html(resource(f"notebooks/lessons/{lesson}.ipynb"), tmp_path / "page.html")
    assert not unread
    assert page.read_text(encoding="utf-8").count("<math ") > 5
