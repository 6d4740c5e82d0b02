"""Notebook pages: what frames them (measured where and when, or not yet), and their file to take away."""

import shutil
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from jupyter_cache import get_cache
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.osutil import relative_uri

from shopfloor.sphinx import provenance
from shopfloor.sphinx.derived import span
from shopfloor.sphinx.disclosure import fold
from shopfloor.sphinx.facts import MeasuredPage, facts_of

BEING_MEASURED = "This page is being measured on your machine; its figures appear when that ends."

# What the toolkit's displays are marked with; an output that holds one is followed by its provenance.
_MEASURED = ('class="sf-',)


def connect(app: Sphinx) -> None:
    """Keep, frame and offer notebook pages."""
    app.connect("doctree-read", _keep_outputs)
    app.connect("doctree-resolved", _frame)
    app.connect("build-finished", _copy_notebooks)


def is_notebook(env: BuildEnvironment, page: str) -> bool:
    """Whether a page has a kernel, so cells to run."""
    return "kernelspec" in env.metadata[page]


def _keep_outputs(app: Sphinx, _doctree: nodes.document) -> None:
    """Put the outputs into the file that MyST-NB leaves in `jupyter_execute`.

    It draws the page with the outputs from the cache, but writes the file without them.
    """
    page = app.env.docname
    if not is_notebook(app.env, page) or app.config.nb_execution_mode != "cache":
        return
    path = _executed(app, page)
    cache = get_cache(app.env.mystnb_config.execution_cache_path)  # type: ignore[attr-defined]  # MyST-NB sets it
    merged = ("kernelspec", "language_info", "shopfloor")
    _, executed = cache.merge_match_into_notebook(nbformat.read(path, as_version=4), nb_meta=merged)
    nbformat.write(executed, path)


def _frame(app: Sphinx, doctree: nodes.document, page: str) -> None:
    if not is_notebook(app.env, page):
        return
    title = doctree.next_node(nodes.section)
    entry = facts_of(app.env).pages.get(page)
    if title is None:
        return
    if entry is None or not entry.executed or entry.provenance is None:
        title.insert(1, nodes.container("", nodes.paragraph("", BEING_MEASURED), classes=["sf-banner"]))
        return
    origin = dict(entry.provenance)
    title.insert(1, _byline(app, page, origin))
    _note_outputs(doctree, origin)
    title += _colophon(entry, origin)


def _byline(app: Sphinx, page: str, origin: dict[str, Any]) -> nodes.paragraph:
    uri = relative_uri(app.builder.get_target_uri(page), _download(page))
    line = nodes.paragraph(classes=["sf-byline"])
    line += nodes.reference("", f"Measured on this machine, {provenance.day(origin)}", refuri="#provenance")
    line += nodes.Text(" · ")
    line += nodes.reference("", "Download this notebook (.ipynb)", refuri=uri, classes=["sf-download"])
    if origin["busy"]:
        line += [nodes.Text(" · "), span(provenance.BUSY, "sf-busy")]
    return line


def _note_outputs(doctree: nodes.document, origin: dict[str, Any]) -> None:
    """Below each figure and claim, folded: where and when it was measured. A busy machine is said unfolded."""
    for output in list(doctree.findall(nodes.container)):
        if "cell_output" not in output["classes"] or not any(map(_is_measured, output.findall(nodes.raw))):
            continue
        summary: list[nodes.Node] = [nodes.Text(f"Measured {provenance.day(origin)}")]
        if origin["busy"]:
            summary += [nodes.Text(" "), span("on a busy machine", "sf-busy")]
        output.append(fold(summary, [nodes.paragraph("", provenance.in_full(origin))], "sf-measured"))


def _is_measured(raw: nodes.raw) -> bool:
    return any(mark in raw.astext() for mark in _MEASURED)


def _colophon(entry: MeasuredPage, origin: dict[str, Any]) -> nodes.container:
    box = nodes.container(ids=["provenance"], classes=["sf-provenance"])
    claims = len(entry.claims)
    held = f"{claims} claim{'' if claims == 1 else 's'} executed, all hold. " if claims else ""
    text = f"{held}Measured on {provenance.day(origin)}: {provenance.in_full(origin)}"
    box += nodes.paragraph("", text)
    if origin["busy"]:
        box += nodes.paragraph("", provenance.BUSY, classes=["sf-busy"])
    return box


def _download(page: str) -> str:
    return f"_downloads/{page}.ipynb"


def _executed(app: Sphinx, page: str) -> Path:
    return Path(app.outdir).parent / "jupyter_execute" / f"{page}.ipynb"


def _copy_notebooks(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    for page, entry in facts_of(app.env).pages.items():
        if page not in app.env.found_docs or not is_notebook(app.env, page) or not entry.executed:
            continue
        target = Path(app.outdir) / _download(page)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_executed(app, page), target)
