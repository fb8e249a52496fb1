"""An executed notebook as one HTML file that needs nothing from the network: pictures inside, formulas as MathML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from jinja2 import DictLoader, pass_context
from latex2mathml import exceptions
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from rsovlib.files import write_beside

_WIDGET = "application/vnd.jupyter.widget-view+json"
#: What latex2mathml raises at a formula that it can't read; its errors have no common kind.
_UNREADABLE: tuple[type[Exception], ...] = (
    *(kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    *(IndexError, KeyError, ValueError),
)
#: nbconvert's page, less the diagram library that it would load from the network.
_TEMPLATE = "{% extends 'lab/index.html.j2' %}{% block html_head_js_mermaidjs %}{% endblock %}"


def write_html(notebook: Path, page: Path) -> Path:
    """Write an executed notebook as a page of its own.

    Panels are left out: one without its kernel is a dead picture, and its scripts would come from the network.

    Args:
        notebook: the notebook.
        page: the HTML file.

    Returns:
        ``page``.
    """
    content = nbformat.read(notebook, as_version=4)
    for cell in content.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _WIDGET not in output.get("data", {})]
    content.metadata.pop("widgets", None)
    exporter = _OfflineExporter(
        extra_loaders=[DictLoader({"offline.html.j2": _TEMPLATE})],
        template_file="offline.html.j2",
        mathjax_url="",
        require_js_url="",
        jquery_url="",
        embed_images=True,
    )
    exporter.exclude_input_prompt = True
    exporter.exclude_output_prompt = True
    text, _ = exporter.from_notebook_node(content)
    with write_beside(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return page


class _FormulaRenderer(IPythonRenderer):
    """Markdown to HTML as nbconvert does it, but for formulas, which browsers read as MathML without any script."""

    def inline_math(self, body: str) -> str:
        return _mathml(body, "inline") or str(super().inline_math(body))

    def block_math(self, body: str) -> str:
        return _mathml(body, "block") or str(super().block_math(body))

    def latex_environment(self, name: str, body: str) -> str:
        whole = f"\\begin{{{name}}}{body}\\end{{{name}}}"
        return _mathml(whole, "block") or str(super().latex_environment(name, body))


def _mathml(formula: str, display: str) -> str:
    """The formula; "" where it can't be read, so that its source is shown instead."""
    try:
        return str(convert(formula, display=display))
    except _UNREADABLE:
        return ""


class _OfflineExporter(HTMLExporter):
    """nbconvert's exporter with :class:`_FormulaRenderer`."""

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        renderer = _FormulaRenderer(
            escape=False,
            attachments=context.get("cell", {}).get("attachments", {}),
            embed_images=self.embed_images,
            path=context.get("resources", {}).get("metadata", {}).get("path", ""),
            anchor_link_text=self.anchor_link_text,
            exclude_anchor_links=self.exclude_anchor_links,
            **self.lexer_options,
        )
        return str(MarkdownWithMath(renderer=renderer).render(source))
